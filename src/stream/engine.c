/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns what is the same for every engine: which back-end, the bounds, the first error, the callbacks.
 *
 * Thread: the one that made the engine.
 *
 * Theory of operation: depth jobs are allocated once; a free one takes a request, the back-end starts it and gives it back when
 * it is over. The first error that comes back sets `stop`, which every transfer looks at before it goes on, so the rest ends
 * with what the system already has.
 */

#include "config.h"

#include "stream/engine-private.h"
#include "stream/stream-error.h"

#define ENVIRONMENT "HOLDFAST_ENGINE"

struct _HfEngine {
  const HfEngineBackend *backend;
  gpointer state;
  guint depth;
  gsize bytes_max;

  HfEngineJob *jobs;
  GPtrArray *idle; /* of jobs */
  gsize bytes;     /* in flight */
  GError *first;
  gint stop; /* atomic: there is a first error, or the engine ends */
  gboolean calling_back, ending;
};

static gboolean
choose (HfEngineKind *kind, GError **error)
{
  const char *name = g_getenv (ENVIRONMENT);

  if (*kind != HF_ENGINE_AUTO || !name || !*name)
    return TRUE;
  if (g_str_equal (name, "ring"))
    *kind = HF_ENGINE_RING;
  else if (g_str_equal (name, "threads"))
    *kind = HF_ENGINE_THREADS;
  else
    g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE, ENVIRONMENT ": \"%s\" is neither \"ring\" nor \"threads\"", name);
  return *kind != HF_ENGINE_AUTO;
}

static gboolean
try_backend (HfEngine *engine, const HfEngineBackend *backend, GError **error)
{
  engine->backend = backend;
  engine->state = backend->open (engine->depth, error);
  return engine->state != NULL;
}

HfEngine *
hf_engine_new (HfEngineKind kind, guint depth, gsize bytes_max, GError **error)
{
  g_autoptr (HfEngine) engine = NULL;

  if (depth < 1 || depth > HF_ENGINE_DEPTH_MAX) {
    g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE, "%u transfers at a time: 1 to %u are possible", depth,
                 HF_ENGINE_DEPTH_MAX);
    return NULL;
  }
  if (!choose (&kind, error))
    return NULL;
  engine = g_new0 (HfEngine, 1);
  engine->depth = depth;
  engine->bytes_max = bytes_max;
  engine->jobs = g_new0 (HfEngineJob, depth);
  engine->idle = g_ptr_array_sized_new (depth);
  for (guint i = 0; i < depth; i++)
    g_ptr_array_add (engine->idle, &engine->jobs[i]);
  /* Whatever keeps a ring away (a filter, the kernel, locked memory, descriptors), threads need none of it. */
  if (kind != HF_ENGINE_THREADS && try_backend (engine, &hf_engine_ring, kind == HF_ENGINE_RING ? error : NULL))
    return g_steal_pointer (&engine);
  if (kind != HF_ENGINE_RING && try_backend (engine, &hf_engine_threads, error))
    return g_steal_pointer (&engine);
  return NULL;
}

HfEngineKind
hf_engine_kind (const HfEngine *engine)
{
  return engine->backend->kind;
}

static guint
in_flight (const HfEngine *engine)
{
  return engine->depth - engine->idle->len;
}

static void
keep_first (HfEngine *engine, const GError *error)
{
  if (!engine->first)
    engine->first = g_error_copy (error);
  g_atomic_int_set (&engine->stop, 1);
}

/* A job is over. */
static void
complete (HfEngine *engine, HfEngineJob *job)
{
  g_autoptr (GError) error = g_steal_pointer (&job->error);
  HfEngineRequest *request = g_steal_pointer (&job->request);

  request->moved = job->transfer.moved;
  if (job->state == HF_TRANSFER_EOF && !request->eof_ok)
    hf_transfer_set_eof (&job->transfer, &error);
  if (error)
    keep_first (engine, error);
  engine->bytes -= job->transfer.wanted;
  hf_transfer_clear (&job->transfer);
  g_ptr_array_add (engine->idle, job);
  if (engine->ending || !request->done)
    return;
  engine->calling_back = TRUE;
  request->done (request, error);
  engine->calling_back = FALSE;
}

/* Takes everything that is over; block: at least one, if any is in flight. */
static void
reap (HfEngine *engine, gboolean block)
{
  while (in_flight (engine) > 0) {
    HfEngineJob *job = engine->backend->finish (engine->state, block);

    if (!job)
      return;
    complete (engine, job);
    block = FALSE;
  }
}

static gboolean
must_wait (const HfEngine *engine, gsize length)
{
  if (in_flight (engine) == 0)
    return FALSE;
  return in_flight (engine) == engine->depth || length > engine->bytes_max || engine->bytes > engine->bytes_max - length;
}

static gboolean
report (const HfEngine *engine, GError **error)
{
  if (engine->first)
    g_propagate_error (error, g_error_copy (engine->first));
  return engine->first == NULL;
}

/* As the transfer will see it; what cannot be is the engine's first error, like every other. */
static gboolean
check (HfEngine *engine, const HfEngineRequest *request, gsize *ret_length)
{
  g_autoptr (GError) error = NULL;
  HfTransfer transfer;

  if (engine->calling_back)
    g_set_error (&error, HF_IO_ERROR, HF_IO_ERROR_ARGUMENT, "a request was submitted by a callback of the same engine");
  else if (request->n_iov > HF_ENGINE_IOV_MAX)
    g_set_error (&error, HF_IO_ERROR, HF_IO_ERROR_ARGUMENT, "%u elements in one request: at most %u are possible", request->n_iov,
                 HF_ENGINE_IOV_MAX);
  else if (hf_transfer_init (&transfer, request->operation, request->fd, request->iov, request->n_iov, request->offset, &error))
    *ret_length = transfer.wanted;
  if (error)
    keep_first (engine, error);
  return error == NULL;
}

gboolean
hf_engine_submit (HfEngine *engine, HfEngineRequest *request, GError **error)
{
  gsize length = 0;
  HfEngineJob *job;

  if (!check (engine, request, &length))
    return report (engine, error);
  reap (engine, FALSE);
  while (!engine->first && must_wait (engine, length))
    reap (engine, TRUE);
  if (!report (engine, error))
    return FALSE;

  job = g_ptr_array_steal_index_fast (engine->idle, engine->idle->len - 1);
  job->request = request;
  hf_transfer_init (&job->transfer, request->operation, request->fd, request->iov, request->n_iov, request->offset, NULL);
  job->transfer.stop = &engine->stop;
  engine->bytes += length;
  request->moved = 0;
  engine->backend->start (engine->state, job);
  return TRUE;
}

void
hf_engine_wait (HfEngine *engine)
{
  reap (engine, TRUE);
}

gboolean
hf_engine_drain (HfEngine *engine, GError **error)
{
  while (in_flight (engine) > 0)
    reap (engine, TRUE);
  return report (engine, error);
}

void
hf_engine_free (HfEngine *engine)
{
  if (!engine)
    return;
  engine->ending = TRUE;
  g_atomic_int_set (&engine->stop, 1);
  while (engine->state && in_flight (engine) > 0)
    reap (engine, TRUE);
  if (engine->state)
    engine->backend->close (engine->state);
  g_clear_error (&engine->first);
  g_ptr_array_unref (engine->idle);
  g_free (engine->jobs);
  g_free (engine);
}
