/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A module for LD_PRELOAD that tells the thread sanitizer what GLib does between threads. GLib is not built with the sanitizer
 * and makes its locks of bare futexes, so without this each use of a GMutex, a GThreadPool or an idle source looks like a race,
 * and a list of suppressions would hide the races of our own code with them.
 *
 * Thread: any.
 *
 * Theory of operation: calls from outside of libglib come here first, because the module stands before it, and go on to it. Locks
 * are told as locks. What is handed over (a job of a pool, a callback of a main loop) is told as a release by who hands over and
 * an acquire by who takes; for the latter the function to call is wrapped. In a program without the sanitizer nothing is told.
 */

#include <dlfcn.h>
#include <glib.h>

#define PUBLIC __attribute__ ((visibility ("default")))
#define WEAK __attribute__ ((weak))

/* sanitizer/tsan_interface.h, which cannot say that it may be missing. */
WEAK void __tsan_acquire (void *address);
WEAK void __tsan_release (void *address);
WEAK void __tsan_mutex_pre_lock (void *address, unsigned flags);
WEAK void __tsan_mutex_post_lock (void *address, unsigned flags, int recursion);
WEAK int __tsan_mutex_pre_unlock (void *address, unsigned flags);
WEAK void __tsan_mutex_post_unlock (void *address, unsigned flags);
#define TRY_LOCK (1u << 4)
#define TRY_LOCK_FAILED (1u << 5)

PUBLIC void tsan_glib_is_loaded (void);

/* So that a test can ask whether it is there. */
void
tsan_glib_is_loaded (void)
{
}

static gpointer
next (const char *name)
{
  gpointer found = dlsym (RTLD_NEXT, name);

  if (!found)
    __builtin_trap ();
  return found;
}

/* The function behind this one, looked up once. Two threads that look it up at the same time find the same. */
#define NEXT(variable, name)                                                                                                     \
  static __typeof__ (&name) variable;                                                                                            \
  if (!__atomic_load_n (&variable, __ATOMIC_RELAXED))                                                                            \
  __atomic_store_n (&variable, (__typeof__ (&name))next (#name), __ATOMIC_RELAXED)

static void
hand_over (gpointer address)
{
  if (__tsan_release)
    __tsan_release (address);
}

static void
take_over (gpointer address)
{
  if (__tsan_acquire)
    __tsan_acquire (address);
}

/* ---- locks ---- */

static void
before_lock (gpointer mutex, unsigned flags)
{
  if (__tsan_mutex_pre_lock)
    __tsan_mutex_pre_lock (mutex, flags);
}

static void
after_lock (gpointer mutex, unsigned flags)
{
  if (__tsan_mutex_post_lock)
    __tsan_mutex_post_lock (mutex, flags, 0);
}

static void
before_unlock (gpointer mutex)
{
  if (__tsan_mutex_pre_unlock)
    __tsan_mutex_pre_unlock (mutex, 0);
}

static void
after_unlock (gpointer mutex)
{
  if (__tsan_mutex_post_unlock)
    __tsan_mutex_post_unlock (mutex, 0);
}

PUBLIC void (g_mutex_lock) (GMutex *mutex)
{
  NEXT (real, g_mutex_lock);
  before_lock (mutex, 0);
  real (mutex);
  after_lock (mutex, 0);
}

PUBLIC
gboolean (g_mutex_trylock) (GMutex *mutex)
{
  NEXT (real, g_mutex_trylock);
  before_lock (mutex, TRY_LOCK);
  gboolean locked = real (mutex);
  after_lock (mutex, locked ? TRY_LOCK : TRY_LOCK | TRY_LOCK_FAILED);
  return locked;
}

PUBLIC void (g_mutex_unlock) (GMutex *mutex)
{
  NEXT (real, g_mutex_unlock);
  before_unlock (mutex);
  real (mutex);
  after_unlock (mutex);
}

PUBLIC void (g_cond_wait) (GCond *cond, GMutex *mutex)
{
  NEXT (real, g_cond_wait);
  before_unlock (mutex);
  after_unlock (mutex);
  real (cond, mutex);
  before_lock (mutex, 0);
  after_lock (mutex, 0);
}

PUBLIC
gboolean (g_cond_wait_until) (GCond *cond, GMutex *mutex, gint64 end)
{
  NEXT (real, g_cond_wait_until);
  before_unlock (mutex);
  after_unlock (mutex);
  gboolean woken = real (cond, mutex, end);
  before_lock (mutex, 0);
  after_lock (mutex, 0);
  return woken;
}

/* Whoever finds the location set reads it with an acquire that the sanitizer does see. */
PUBLIC void (g_once_init_leave) (volatile void *location, gsize result)
{
  NEXT (real, g_once_init_leave);
  hand_over ((gpointer)location);
  real (location, result);
}

/* ---- pools ---- */

typedef struct {
  GFunc function;
  gpointer user_data;
} Work;

/* What the jobs of all pools have done, for those who wait for the end of a pool. */
static char work_done;

static void
do_work (gpointer job, gpointer user_data)
{
  Work *work = user_data;

  take_over (job);
  work->function (job, work->user_data);
  hand_over (&work_done);
}

/* The block is never freed: a pool that is not waited for runs on after g_thread_pool_free. */
PUBLIC GThreadPool *(g_thread_pool_new)(GFunc function, gpointer user_data, gint max_threads, gboolean exclusive, GError **error)
{
  NEXT (real, g_thread_pool_new);
  Work *work = g_new (Work, 1);

  *work = (Work){ function, user_data };
  hand_over (work);
  return real (do_work, work, max_threads, exclusive, error);
}

PUBLIC
gboolean (g_thread_pool_push) (GThreadPool *pool, gpointer job, GError **error)
{
  NEXT (real, g_thread_pool_push);
  hand_over (job);
  return real (pool, job, error);
}

PUBLIC void (g_thread_pool_free) (GThreadPool *pool, gboolean immediate, gboolean wait)
{
  NEXT (real, g_thread_pool_free);
  real (pool, immediate, wait);
  if (wait)
    take_over (&work_done);
}

/* ---- main loops ---- */

typedef struct {
  GSourceFunc function;
  gpointer user_data;
  GDestroyNotify notify;
} Callback;

static gboolean
call_back (gpointer data)
{
  Callback *callback = data;

  take_over (callback);
  return callback->function (callback->user_data);
}

static void
forget (gpointer data)
{
  Callback *callback = data;

  take_over (callback);
  if (callback->notify)
    callback->notify (callback->user_data);
  g_free (callback);
}

static Callback *
wrap (GSourceFunc function, gpointer user_data, GDestroyNotify notify)
{
  Callback *callback = g_new (Callback, 1);

  *callback = (Callback){ function, user_data, notify };
  hand_over (callback);
  return callback;
}

PUBLIC
guint (g_idle_add_full) (gint priority, GSourceFunc function, gpointer user_data, GDestroyNotify notify)
{
  NEXT (real, g_idle_add_full);
  return real (priority, call_back, wrap (function, user_data, notify), forget);
}

PUBLIC
guint (g_idle_add) (GSourceFunc function, gpointer user_data)
{
  return g_idle_add_full (G_PRIORITY_DEFAULT_IDLE, function, user_data, NULL);
}

PUBLIC void (g_main_context_invoke_full) (GMainContext *context, gint priority, GSourceFunc function, gpointer user_data,
                                          GDestroyNotify notify)
{
  NEXT (real, g_main_context_invoke_full);
  real (context, priority, call_back, wrap (function, user_data, notify), forget);
}

PUBLIC void (g_main_context_invoke) (GMainContext *context, GSourceFunc function, gpointer user_data)
{
  g_main_context_invoke_full (context, G_PRIORITY_DEFAULT, function, user_data, NULL);
}
