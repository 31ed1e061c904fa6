/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns the thread of one worker and the hand-over of its jobs.
 *
 * Thread: see worker.h. One lock and one condition for both directions; there are never more than two waiters.
 *
 * Theory of operation: `job` is the slot. The caller puts a job in, the thread takes it, runs it without the lock and sets
 * `done`; the caller takes it out. A caller that gives up sets `abandoned`, and the thread empties the slot itself. Caller and
 * thread hold one reference each, so whoever leaves last frees the worker and nobody joins a thread that hangs. The thread starts
 * with the first job.
 */

#include "config.h"

#include "base/worker.h"

#include <pthread.h>
#include <signal.h>

struct _HfWorker {
  char *name;
  void (*run) (gpointer job);
  GDestroyNotify destroy;
  gint references; /* atomic */

  GMutex lock; /* guards what follows */
  GCond changed;
  gpointer job;
  gboolean started, done, abandoned, quit;
};

static void
worker_unref (HfWorker *worker)
{
  if (!g_atomic_int_dec_and_test (&worker->references))
    return;
  g_mutex_clear (&worker->lock);
  g_cond_clear (&worker->changed);
  g_free (worker->name);
  g_free (worker);
}

HfWorker *
hf_worker_new (const char *name, void (*run) (gpointer job), GDestroyNotify destroy)
{
  HfWorker *worker = g_new0 (HfWorker, 1);

  worker->name = g_strdup (name);
  worker->run = run;
  worker->destroy = destroy;
  worker->references = 1;
  g_mutex_init (&worker->lock);
  g_cond_init (&worker->changed);
  return worker;
}

/* With the lock held: one job from the slot and back. */
static void
run_one (HfWorker *worker)
{
  gpointer job = worker->job;

  g_mutex_unlock (&worker->lock);
  worker->run (job);
  g_mutex_lock (&worker->lock);
  if (worker->abandoned) {
    /* Not with the lock: closing a dead device may block too, and the next caller waits for the lock without a deadline. */
    g_mutex_unlock (&worker->lock);
    worker->destroy (job);
    g_mutex_lock (&worker->lock);
    worker->job = NULL;
    worker->abandoned = FALSE;
  } else {
    worker->done = TRUE;
  }
  g_cond_broadcast (&worker->changed);
}

static gpointer
worker_main (gpointer data)
{
  HfWorker *worker = data;

  g_mutex_lock (&worker->lock);
  while (!worker->quit) {
    if (worker->job && !worker->done)
      run_one (worker);
    else
      g_cond_wait (&worker->changed, &worker->lock);
  }
  g_mutex_unlock (&worker->lock);
  worker_unref (worker);
  return NULL;
}

/* With the lock held. All signals are blocked in the thread: they are the main thread's, and none may cut a command short. */
static gboolean
start_thread (HfWorker *worker)
{
  sigset_t all, old;
  GThread *thread;

  g_atomic_int_inc (&worker->references);
  sigfillset (&all);
  pthread_sigmask (SIG_SETMASK, &all, &old);
  thread = g_thread_try_new (worker->name, worker_main, worker, NULL);
  pthread_sigmask (SIG_SETMASK, &old, NULL);
  worker->started = thread != NULL;
  if (thread)
    g_thread_unref (thread);
  else
    g_atomic_int_add (&worker->references, -1);
  return worker->started;
}

HfWorkerResult
hf_worker_run (HfWorker *worker, gpointer job, gint64 deadline)
{
  g_autoptr (GMutexLocker) locker = g_mutex_locker_new (&worker->lock);

  (void)locker;
  while (worker->job)
    if (!g_cond_wait_until (&worker->changed, &worker->lock, deadline) && worker->job)
      return HF_WORKER_BUSY;

  if (!worker->started && !start_thread (worker))
    return HF_WORKER_BUSY;
  worker->job = job;
  worker->done = FALSE;
  g_cond_broadcast (&worker->changed);
  while (!worker->done)
    if (!g_cond_wait_until (&worker->changed, &worker->lock, deadline) && !worker->done) {
      worker->abandoned = TRUE;
      return HF_WORKER_LATE;
    }
  worker->job = NULL;
  worker->done = FALSE;
  return HF_WORKER_DONE;
}

void
hf_worker_free (HfWorker *worker)
{
  if (!worker)
    return;
  g_mutex_lock (&worker->lock);
  worker->quit = TRUE;
  g_cond_broadcast (&worker->changed);
  g_mutex_unlock (&worker->lock);
  worker_unref (worker);
}
