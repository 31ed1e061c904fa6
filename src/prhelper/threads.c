/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns: the idle threads. Thread: main, and the threads.
 *
 * Theory of operation: an idle thread is in a stack and waits on a semaphore of its own, so a job costs one wake and no thread
 * that is not meant looks at a lock. The last one in is the first one out: its stack is in the cache, and those below end nothing
 * by sleeping. Not GThreadPool: its threads share a lock and a condition, and a job it has no thread for stays in it.
 */
#include "config.h"

#include "prhelper/threads.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>

typedef struct Thread Thread;

struct Thread {
  HfThreads *threads;
  sem_t wake;
  gpointer job; /* NULL after wake: end */
  Thread *next;
};

struct _HfThreads {
  gint references; /* atomic: the owner and each thread */
  guint keep;
  void (*run) (gpointer job);
  pthread_mutex_t lock; /* guards what follows */
  Thread *idle;
  guint n_idle, n_all;
  GQueue waiting;
  gboolean freed;
};

static void
threads_unref (HfThreads *threads)
{
  if (!g_atomic_int_dec_and_test (&threads->references))
    return;
  pthread_mutex_destroy (&threads->lock);
  g_queue_clear (&threads->waiting);
  g_free (threads);
}

/* Waits for it. NULL: the thread is to end. */
static gpointer
next_job (Thread *self)
{
  HfThreads *threads = self->threads;

  pthread_mutex_lock (&threads->lock);
  self->job = g_queue_pop_head (&threads->waiting);
  if (self->job || threads->freed || threads->n_idle >= threads->keep) {
    threads->n_all -= self->job == NULL;
    pthread_mutex_unlock (&threads->lock);
    return self->job;
  }
  self->next = threads->idle;
  threads->idle = self;
  threads->n_idle++;
  pthread_mutex_unlock (&threads->lock);
  while (sem_wait (&self->wake) < 0 && errno == EINTR)
    continue;
  return self->job;
}

static void *
thread_main (void *data)
{
  Thread *self = data;

  pthread_setname_np (pthread_self (), "device");
  do
    self->threads->run (self->job);
  while (next_job (self));
  sem_destroy (&self->wake);
  threads_unref (self->threads);
  g_free (self);
  return NULL;
}

static gboolean
start_thread (HfThreads *threads, gpointer job)
{
  Thread *thread = g_new0 (Thread, 1);
  pthread_attr_t attributes;
  pthread_t id;
  gboolean started;

  *thread = (Thread){ .threads = threads, .job = job };
  sem_init (&thread->wake, 0, 0);
  g_atomic_int_inc (&threads->references);
  pthread_attr_init (&attributes);
  pthread_attr_setdetachstate (&attributes, PTHREAD_CREATE_DETACHED);
  started = pthread_create (&id, &attributes, thread_main, thread) == 0;
  pthread_attr_destroy (&attributes);
  if (started)
    return TRUE;
  sem_destroy (&thread->wake);
  g_free (thread);
  threads_unref (threads);
  return FALSE;
}

HfThreads *
hf_threads_new (guint keep, void (*run) (gpointer job))
{
  HfThreads *threads = g_new0 (HfThreads, 1);

  threads->references = 1;
  threads->keep = keep;
  threads->run = run;
  pthread_mutex_init (&threads->lock, NULL);
  g_queue_init (&threads->waiting);
  return threads;
}

void
hf_threads_free (HfThreads *threads)
{
  Thread *idle, *next;

  if (!threads)
    return;
  pthread_mutex_lock (&threads->lock);
  threads->freed = TRUE;
  idle = g_steal_pointer (&threads->idle);
  threads->n_all -= threads->n_idle;
  threads->n_idle = 0;
  pthread_mutex_unlock (&threads->lock);
  for (; idle; idle = next) {
    next = idle->next;
    sem_post (&idle->wake); /* it frees itself */
  }
  threads_unref (threads);
}

gboolean
hf_threads_run (HfThreads *threads, gpointer job, gboolean may_wait)
{
  Thread *thread;
  gboolean waits;

  pthread_mutex_lock (&threads->lock);
  thread = threads->idle;
  if (thread) {
    threads->idle = thread->next;
    threads->n_idle--;
    thread->job = job;
  } else {
    threads->n_all++;
  }
  pthread_mutex_unlock (&threads->lock);
  if (thread) {
    sem_post (&thread->wake);
    return TRUE;
  }
  if (start_thread (threads, job))
    return TRUE;
  pthread_mutex_lock (&threads->lock);
  waits = --threads->n_all > 0 && may_wait;
  if (waits)
    g_queue_push_tail (&threads->waiting, job);
  pthread_mutex_unlock (&threads->lock);
  return waits;
}
