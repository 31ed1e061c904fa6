/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/parallel.h"

#include <sys/resource.h>
#include <unistd.h>

#define N 100

typedef struct {
  guint at_once, most;
  GMutex lock;
  GCond changed;
  guint wait_for; /* that many at once, or one second */
} Crowd;

static void
enter (gpointer item, gpointer data)
{
  Crowd *crowd = data;
  gint64 deadline = g_get_monotonic_time () + G_TIME_SPAN_SECOND;

  g_mutex_lock (&crowd->lock);
  crowd->at_once++;
  crowd->most = MAX (crowd->most, crowd->at_once);
  g_cond_broadcast (&crowd->changed);
  while (crowd->most < crowd->wait_for && g_cond_wait_until (&crowd->changed, &crowd->lock, deadline))
    ;
  crowd->at_once--;
  g_mutex_unlock (&crowd->lock);
  g_atomic_int_inc ((guint *)item);
}

static guint
run (guint n, guint threads_max, guint wait_for)
{
  static guint counts[N];
  gpointer items[N];
  Crowd crowd = { .wait_for = wait_for };

  for (guint i = 0; i < N; i++) {
    counts[i] = 0;
    items[i] = &counts[i];
  }
  hf_parallel_for (items, n, threads_max, enter, &crowd);
  for (guint i = 0; i < N; i++)
    g_assert_cmpuint (counts[i], ==, i < n);
  g_assert_cmpuint (crowd.at_once, ==, 0);
  return crowd.most;
}

/* Each item once, side by side, and not more of them than was asked for. */
static void
test_each_once (void)
{
  g_assert_cmpuint (run (0, 8, 0), ==, 0);
  g_assert_cmpuint (run (1, 8, 1), ==, 1);
  g_assert_cmpuint (run (N, 8, 8), ==, 8);
  g_assert_cmpuint (run (N, 1, 1), ==, 1);
  g_assert_cmpuint (run (5, 64, 5), ==, 5);
}

static gpointer
do_nothing (gpointer data)
{
  return data;
}

/* No thread is to be had: the caller does it all. A process of its own, under another user: root has no such limit. */
static void
test_no_threads (void)
{
  struct rlimit none = { 0, 0 };

  if (g_test_subprocess ()) {
    g_assert_cmpint (setrlimit (RLIMIT_NPROC, &none), ==, 0);
    if (getuid () == 0)
      g_assert_cmpint (setuid (65534), ==, 0);
    g_assert_null (g_thread_try_new ("none", do_nothing, NULL, NULL));
    g_assert_cmpuint (run (N, 8, 1), ==, 1);
    _exit (0); /* looking for leaks at the end takes a thread */
  }
  g_test_trap_subprocess (NULL, 10 * G_TIME_SPAN_SECOND, G_TEST_SUBPROCESS_INHERIT_STDERR);
  g_test_trap_assert_passed ();
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/parallel/each-once", test_each_once);
  g_test_add_func ("/parallel/no-threads", test_no_threads);
  return g_test_run ();
}
