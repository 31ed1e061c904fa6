/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns: who is the main thread. Thread: any.
 *
 * Theory of operation: waking a thread costs more than a short command, so a short command is to be executed by the thread that
 * read it. No system call says beforehand whether it will wait. So the main thread leaves: it notes that it is away and gives up
 * nothing else. Another thread, the standby, looks each millisecond; if the same absence still lasts, it takes the loop, with all
 * that main owns, and starts the next standby. Who comes back then finds another one in its place, hands over what it has as any
 * thread does, and ends. Without a standby nobody may leave. When nobody has left for a while the standby sleeps.
 *
 * The process's first thread only waits for the end: it must be able to leave when a command never comes back.
 *
 * The lock is pthread's own, for the thread sanitizer does not see GLib's; what main owns goes from thread to thread under it.
 */
#include "config.h"

#include "prhelper/loop.h"

#include <pthread.h>
#include <time.h>

/* The longest absence is between one and two of them. */
#define LOOK_NS 1000000
/* So many looks without an absence, and the standby sleeps: a command now and then is to cost a few of them, not a hundred. */
#define LOOKS_IDLE 10
#define NS_PER_S 1000000000

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t standby_wakes, ended;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* Guarded by lock. */
static pthread_t leader;
static gboolean is_led, is_away, has_standby, standby_sleeps, is_over;
static gboolean is_pinned; /* the process's first thread leads, which never leaves */
static guint64 absences;

/* Main's. */
static GMainLoop *main_loop;
static HfLoopBehind behind;
static gpointer behind_data;

static void *standby_thread (void *data);

static void
init (void)
{
  pthread_condattr_t attributes;

  pthread_condattr_init (&attributes);
  pthread_condattr_setclock (&attributes, CLOCK_MONOTONIC);
  pthread_cond_init (&standby_wakes, &attributes);
  pthread_cond_init (&ended, &attributes);
  pthread_condattr_destroy (&attributes);
}

static gboolean
start_thread (void *(*function) (void *))
{
  pthread_attr_t attributes;
  pthread_t thread;
  gboolean started;

  pthread_attr_init (&attributes);
  pthread_attr_setdetachstate (&attributes, PTHREAD_CREATE_DETACHED);
  started = pthread_create (&thread, &attributes, function, NULL) == 0;
  pthread_attr_destroy (&attributes);
  return started;
}

/* With lock held. */
static void
start_standby (void)
{
  if (!has_standby && !is_over && !is_pinned)
    has_standby = start_thread (standby_thread);
}

/* Until the end of the loop, or until another thread has it. */
static void
lead (void)
{
  gboolean more = TRUE, mine = TRUE; /* something may be left behind the turn of another thread */

  while (mine && g_main_loop_is_running (main_loop)) {
    g_main_context_iteration (NULL, !more);
    more = behind && behind (behind_data);
    pthread_mutex_lock (&lock);
    mine = pthread_equal (leader, pthread_self ());
    pthread_mutex_unlock (&lock);
  }
}

/* Whoever still has the loop when it is over says so. */
static void
serve (void)
{
  lead ();
  pthread_mutex_lock (&lock);
  if (is_led && pthread_equal (leader, pthread_self ())) {
    is_led = FALSE;
    is_over = TRUE;
    pthread_cond_signal (&standby_wakes);
    pthread_cond_broadcast (&ended);
  }
  pthread_mutex_unlock (&lock);
}

static struct timespec
next_look (void)
{
  struct timespec at;

  clock_gettime (CLOCK_MONOTONIC, &at);
  at.tv_nsec += LOOK_NS;
  if (at.tv_nsec >= NS_PER_S) {
    at.tv_nsec -= NS_PER_S;
    at.tv_sec++;
  }
  return at;
}

/* With lock held. TRUE: the main thread is away for too long; FALSE: the loop is over. */
static gboolean
watch (void)
{
  guint idle = 0;

  while (!is_over) {
    guint64 seen = absences;
    struct timespec look;

    if (idle >= LOOKS_IDLE && !is_away) {
      standby_sleeps = TRUE;
      while (standby_sleeps && !is_over)
        pthread_cond_wait (&standby_wakes, &lock);
      standby_sleeps = FALSE;
      idle = 0;
      continue;
    }
    look = next_look ();
    while (!is_over && pthread_cond_timedwait (&standby_wakes, &lock, &look) == 0)
      ;
    if (is_away && absences == seen)
      return TRUE;
    idle = absences == seen ? idle + 1 : 0;
  }
  return FALSE;
}

static void *
standby_thread (void *data)
{
  gboolean take_over;

  pthread_setname_np (pthread_self (), "main");
  pthread_mutex_lock (&lock);
  take_over = watch ();
  has_standby = FALSE;
  if (take_over) {
    leader = pthread_self ();
    is_away = FALSE;
    start_standby ();
  } else {
    pthread_cond_broadcast (&ended);
  }
  pthread_mutex_unlock (&lock);
  if (take_over)
    serve ();
  return NULL;
}

static void *
first_thread (void *data)
{
  pthread_setname_np (pthread_self (), "main");
  pthread_mutex_lock (&lock);
  leader = pthread_self ();
  start_standby ();
  pthread_mutex_unlock (&lock);
  serve ();
  return NULL;
}

void
hf_loop_set_behind (HfLoopBehind function, gpointer user_data)
{
  behind = function;
  behind_data = user_data;
}

void
hf_loop_run (GMainLoop *loop)
{
  pthread_once (&once, init);
  pthread_mutex_lock (&lock);
  main_loop = loop;
  is_over = FALSE;
  is_led = start_thread (first_thread);
  is_pinned = !is_led;
  if (is_pinned) {
    leader = pthread_self ();
    is_led = TRUE;
    pthread_mutex_unlock (&lock);
    serve ();
    return;
  }
  while (!is_over || has_standby)
    pthread_cond_wait (&ended, &lock);
  pthread_mutex_unlock (&lock);
}

/* With lock held. */
static gboolean
may_leave (void)
{
  return is_led && has_standby && pthread_equal (leader, pthread_self ());
}

gboolean
hf_loop_can_leave (void)
{
  gboolean can;

  pthread_mutex_lock (&lock);
  if (is_led && pthread_equal (leader, pthread_self ()))
    start_standby (); /* if there were too many threads when it was to be */
  can = may_leave ();
  pthread_mutex_unlock (&lock);
  return can;
}

gboolean
hf_loop_leave (void)
{
  gboolean left;

  pthread_mutex_lock (&lock);
  left = may_leave ();
  if (left) {
    is_away = TRUE;
    absences++;
    if (standby_sleeps) {
      standby_sleeps = FALSE;
      pthread_cond_signal (&standby_wakes);
    }
  }
  pthread_mutex_unlock (&lock);
  return left;
}

gboolean
hf_loop_return (void)
{
  gboolean mine;

  pthread_mutex_lock (&lock);
  mine = is_led && pthread_equal (leader, pthread_self ());
  if (mine)
    is_away = FALSE;
  else
    start_standby ();
  pthread_mutex_unlock (&lock);
  return mine;
}
