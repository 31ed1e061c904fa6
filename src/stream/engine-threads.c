/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The engine where there is no ring: a few threads that make the calls of positioned.c.
 *
 * Thread: the functions of the back-end run in the engine's; `waiting` and `over` hand jobs to the workers and back, under one
 * lock. A job belongs to one worker between them.
 *
 * Theory of operation: two workers at least, because with one the device idles between a call's end and the next; four at most,
 * because more did not make 1 MiB transfers faster. They have all signals blocked: those are the main thread's.
 */

#include "config.h"

#include "stream/engine-private.h"
#include "stream/stream-error.h"

#include <pthread.h>
#include <signal.h>

#define WORKERS_MIN 2u
#define WORKERS_MAX 4u

typedef struct {
  GThread *threads[WORKERS_MAX];
  guint n_threads;

  GMutex lock; /* guards what follows */
  GCond more, less;
  GQueue waiting, over; /* of jobs, linked by their own link */
  gboolean quit;
} Workers;

static void
run_job (HfEngineJob *job)
{
  if (hf_transfer_stopped (&job->transfer, &job->error))
    job->state = HF_TRANSFER_FAILED;
  else
    job->state = hf_transfer_run (&job->transfer, &job->error);
}

static gpointer
worker_main (gpointer data)
{
  Workers *workers = data;

  g_mutex_lock (&workers->lock);
  while (!workers->quit) {
    GList *link = g_queue_pop_head_link (&workers->waiting);

    if (!link) {
      g_cond_wait (&workers->more, &workers->lock);
      continue;
    }
    g_mutex_unlock (&workers->lock);
    run_job (link->data);
    g_mutex_lock (&workers->lock);
    g_queue_push_tail_link (&workers->over, link);
    g_cond_signal (&workers->less);
  }
  g_mutex_unlock (&workers->lock);
  return NULL;
}

static void
workers_close (gpointer state)
{
  Workers *workers = state;

  g_mutex_lock (&workers->lock);
  workers->quit = TRUE;
  g_cond_broadcast (&workers->more);
  g_mutex_unlock (&workers->lock);
  for (guint i = 0; i < workers->n_threads; i++)
    g_thread_join (workers->threads[i]);
  g_mutex_clear (&workers->lock);
  g_cond_clear (&workers->more);
  g_cond_clear (&workers->less);
  g_free (workers);
}

static gpointer
workers_open (guint depth, GError **error)
{
  g_autoptr (GError) why = NULL;
  Workers *workers = g_new0 (Workers, 1);
  guint n = MIN (depth, CLAMP (g_get_num_processors (), WORKERS_MIN, WORKERS_MAX));
  sigset_t all, old;

  g_mutex_init (&workers->lock);
  g_cond_init (&workers->more);
  g_cond_init (&workers->less);
  sigfillset (&all);
  pthread_sigmask (SIG_SETMASK, &all, &old);
  while (workers->n_threads < n && !why) {
    GThread *thread = g_thread_try_new ("hf-transfer", worker_main, workers, &why);

    if (thread)
      workers->threads[workers->n_threads++] = thread;
  }
  pthread_sigmask (SIG_SETMASK, &old, NULL);
  if (workers->n_threads > 0)
    return workers; /* fewer than wished do it too */
  g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE, "no thread for transfers: %s", why->message);
  workers_close (workers);
  return NULL;
}

static void
workers_start (gpointer state, HfEngineJob *job)
{
  Workers *workers = state;

  job->link = (GList){ .data = job };
  g_mutex_lock (&workers->lock);
  g_queue_push_tail_link (&workers->waiting, &job->link);
  g_cond_signal (&workers->more);
  g_mutex_unlock (&workers->lock);
}

static HfEngineJob *
workers_finish (gpointer state, gboolean block)
{
  Workers *workers = state;
  GList *link;

  g_mutex_lock (&workers->lock);
  while (!(link = g_queue_pop_head_link (&workers->over)) && block)
    g_cond_wait (&workers->less, &workers->lock);
  g_mutex_unlock (&workers->lock);
  return link ? link->data : NULL;
}

const HfEngineBackend hf_engine_threads = {
  .kind = HF_ENGINE_THREADS,
  .open = workers_open,
  .start = workers_start,
  .finish = workers_finish,
  .close = workers_close,
};
