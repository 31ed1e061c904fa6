/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns: the runs (memory and requests) and the engine that writes them. Thread: the one that made it.
 *
 * Theory of operation: a run is aligned memory of 1 MiB. One run is open: what continues it is appended, anything else closes it
 * and opens the next. A closed run is submitted; before that, every run in flight that it touches is waited for, because
 * completions have no order. The engine bounds what is in flight; a free run is waited for when all are. A small run is written
 * at once and through the page cache, which may be mixed with O_DIRECT here: both write whole pages of the host, never the same
 * one at a time.
 *
 * Memory: N_RUNS x 1 MiB, in one mapping. Not MADV_DONTFORK: nothing here forks.
 */
#include "config.h"

#include "stream/run-writer.h"

#include <errno.h>
#include <holdfast/io.h>
#include <string.h>
#include <sys/mman.h>

#define DEPTH 16u

/* Below this a run is written through the page cache at once: with O_DIRECT each hole that is filled costs an allocation and a
   wait, and scattered pages took three times the processor's time and twice as long (ext4, Linux 6.18). */
#define SMALL_RUN (64u << 10)
#define N_RUNS (DEPTH + 1) /* one is being filled */

typedef struct {
  HfEngineRequest request;
  struct iovec iov; /* .iov_len: bytes in the run */
  gboolean in_flight;
} Run;

struct _HfRunWriter {
  HfSaveFile *file;
  HfEngine *engine;
  int fd;
  guint8 *memory;
  Run runs[N_RUNS];
  Run *open; /* NULL: none */
};

static void
on_done (HfEngineRequest *request, G_GNUC_UNUSED const GError *error)
{
  ((Run *)request->data)->in_flight = FALSE;
}

HfRunWriter *
hf_run_writer_new (HfSaveFile *file, guint unit, HfEngineKind kind, GError **error)
{
  g_autoptr (HfRunWriter) writer = g_new0 (HfRunWriter, 1);
  int direct = hf_save_file_direct_fd (file);

  writer->file = file;
  writer->fd = direct >= 0 && unit % hf_save_file_alignment (file) == 0 ? direct : hf_save_file_fd (file);
  writer->engine = hf_engine_new (kind, N_RUNS, (gsize)N_RUNS * HF_RUN_MAX, error);
  if (!writer->engine)
    return NULL;
  /* A mapping is aligned to pages of the host; a direct descriptor may want up to 64 KiB. */
  writer->memory = mmap (NULL, (gsize)(N_RUNS + 1) * HF_RUN_MAX, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (writer->memory == MAP_FAILED) {
    int saved = errno;

    writer->memory = NULL;
    g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE, "no memory for writing: %s", g_strerror (saved));
    return NULL;
  }
  for (guint i = 0; i < N_RUNS; i++) {
    Run *run = &writer->runs[i];
    guintptr first = ((guintptr)writer->memory + HF_RUN_MAX - 1) & ~(guintptr)(HF_RUN_MAX - 1);

    run->iov.iov_base = (guint8 *)first + (gsize)i * HF_RUN_MAX;
    run->request = (HfEngineRequest){ .operation = HF_IO_WRITE, .fd = writer->fd, .iov = &run->iov, .n_iov = 1, .done = on_done };
    run->request.data = run;
  }
  return g_steal_pointer (&writer);
}

void
hf_run_writer_free (HfRunWriter *writer)
{
  if (!writer)
    return;
  hf_engine_free (writer->engine);
  if (writer->memory)
    munmap (writer->memory, (gsize)(N_RUNS + 1) * HF_RUN_MAX);
  g_free (writer);
}

static guint64
run_end (const Run *run)
{
  return (guint64)run->request.offset + run->iov.iov_len;
}

static gboolean
overlap (const Run *a, const Run *b)
{
  return (guint64)a->request.offset < run_end (b) && (guint64)b->request.offset < run_end (a);
}

/* Waits until nothing in flight lies where run will be written. */
static void
wait_for_older (HfRunWriter *writer, const Run *run)
{
  for (guint i = 0; i < N_RUNS; i++) {
    const Run *other = &writer->runs[i];

    while (other->in_flight && overlap (other, run))
      hf_engine_wait (writer->engine);
  }
}

static gboolean
close_run (HfRunWriter *writer, GError **error)
{
  Run *run = g_steal_pointer (&writer->open);

  if (!run)
    return TRUE;
  wait_for_older (writer, run);
  if (run->iov.iov_len < SMALL_RUN)
    return hf_pwrite_all (hf_save_file_fd (writer->file), run->iov.iov_base, run->iov.iov_len, run->request.offset, NULL, error)
           == 0;
  run->in_flight = TRUE;
  if (hf_engine_submit (writer->engine, &run->request, error))
    return TRUE;
  run->in_flight = FALSE;
  return FALSE;
}

static Run *
find_free (HfRunWriter *writer)
{
  while (TRUE) {
    for (guint i = 0; i < N_RUNS; i++) {
      if (!writer->runs[i].in_flight)
        return &writer->runs[i];
    }
    hf_engine_wait (writer->engine);
  }
}

gboolean
hf_run_writer_put (HfRunWriter *writer, guint64 offset, const guint8 *bytes, gsize length, GError **error)
{
  Run *run = writer->open;

  if (!run || run_end (run) != offset || run->iov.iov_len + length > HF_RUN_MAX) {
    if (!close_run (writer, error))
      return FALSE;
    run = writer->open = find_free (writer);
    run->request.offset = offset;
    run->iov.iov_len = 0;
  }
  memcpy ((guint8 *)run->iov.iov_base + run->iov.iov_len, bytes, length);
  run->iov.iov_len += length;
  return TRUE;
}

gboolean
hf_run_writer_get (HfRunWriter *writer, guint64 offset, guint8 *bytes, gsize length, GError **error)
{
  Run wanted = { .request.offset = offset, .iov.iov_len = length };

  if (!close_run (writer, error))
    return FALSE;
  wait_for_older (writer, &wanted);
  /* Through the page cache: bytes need not be aligned. Linux writes back and drops what O_DIRECT goes past. */
  return hf_pread_all (hf_save_file_fd (writer->file), bytes, length, offset, NULL, error) == 0;
}

gboolean
hf_run_writer_finish (HfRunWriter *writer, GError **error)
{
  gboolean closed = close_run (writer, error);

  return hf_engine_drain (writer->engine, closed ? error : NULL) && closed;
}
