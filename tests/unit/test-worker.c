/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A blocking call with a deadline: what happens when it comes back in time, late, or never while somebody waits. */

#include "config.h"

#include "base/deadline.h"
#include "base/worker.h"

/* A job that ends when the test opens the gate. */
typedef struct {
  GMutex lock;
  GCond changed;
  gboolean begun, open;
  guint n_destroyed;
} Gate;

typedef struct {
  Gate *gate; /* NULL: ends at once */
  int value;
} Job;

static void
gate_init (Gate *gate)
{
  *gate = (Gate){ 0 };
  g_mutex_init (&gate->lock);
  g_cond_init (&gate->changed);
}

static void
gate_open (Gate *gate)
{
  g_mutex_lock (&gate->lock);
  gate->open = TRUE;
  g_cond_broadcast (&gate->changed);
  g_mutex_unlock (&gate->lock);
}

static void
gate_wait_destroyed (Gate *gate, guint n)
{
  g_mutex_lock (&gate->lock);
  while (gate->n_destroyed < n)
    g_cond_wait (&gate->changed, &gate->lock);
  g_mutex_unlock (&gate->lock);
}

static void
run (gpointer data)
{
  Job *job = data;

  if (job->gate) {
    g_mutex_lock (&job->gate->lock);
    job->gate->begun = TRUE;
    while (!job->gate->open)
      g_cond_wait (&job->gate->changed, &job->gate->lock);
    g_mutex_unlock (&job->gate->lock);
  }
  job->value++;
}

static void
destroy (gpointer data)
{
  Job *job = data;
  Gate *gate = job->gate;

  g_free (job);
  g_mutex_lock (&gate->lock);
  gate->n_destroyed++;
  g_cond_broadcast (&gate->changed);
  g_mutex_unlock (&gate->lock);
}

static void
test_done (void)
{
  HfWorker *worker = hf_worker_new ("test", run, destroy);
  Job job = { 0 };

  for (int i = 1; i <= 100; i++) {
    g_assert_cmpint (hf_worker_run (worker, &job, hf_deadline_after_ms (10000)), ==, HF_WORKER_DONE);
    g_assert_cmpint (job.value, ==, i);
  }
  hf_worker_free (worker);
  hf_worker_free (NULL);
}

/* The caller gets away at the deadline, the next one is told why it has to wait, and the worker is of use again afterwards. */
static void
test_late_then_busy_then_done (void)
{
  HfWorker *worker = hf_worker_new ("test", run, destroy);
  Job *late = g_new0 (Job, 1);
  Job job = { 0 };
  Gate gate;
  gint64 begin = g_get_monotonic_time ();

  gate_init (&gate);
  late->gate = &gate;
  g_assert_cmpint (hf_worker_run (worker, late, hf_deadline_after_ms (30)), ==, HF_WORKER_LATE);
  g_assert_cmpint (g_get_monotonic_time () - begin, >=, 30000);
  g_assert_cmpint (hf_worker_run (worker, &job, hf_deadline_after_ms (30)), ==, HF_WORKER_BUSY);
  g_assert_cmpint (g_get_monotonic_time () - begin, <, 5000000);
  g_assert_cmpint (job.value, ==, 0);
  g_assert_cmpuint (gate.n_destroyed, ==, 0);

  gate_open (&gate);
  g_assert_cmpint (hf_worker_run (worker, &job, hf_deadline_after_ms (10000)), ==, HF_WORKER_DONE);
  g_assert_cmpuint (gate.n_destroyed, ==, 1);
  g_assert_cmpint (job.value, ==, 1);
  hf_worker_free (worker);
}

/* Freeing does not wait for a call that hangs; the thread cleans up behind it. */
static void
test_free_while_running (void)
{
  HfWorker *worker = hf_worker_new ("test", run, destroy);
  Job *late = g_new0 (Job, 1);
  Gate gate;

  gate_init (&gate);
  late->gate = &gate;
  g_assert_cmpint (hf_worker_run (worker, late, hf_deadline_after_ms (10)), ==, HF_WORKER_LATE);
  hf_worker_free (worker);
  g_assert_cmpuint (gate.n_destroyed, ==, 0);
  gate_open (&gate);
  gate_wait_destroyed (&gate, 1);
}

static void
test_deadline (void)
{
  gint64 now = g_get_monotonic_time ();

  g_assert_cmpint (hf_deadline_left_ms (now - 1), ==, 0);
  g_assert_cmpint (hf_deadline_left_ms (hf_deadline_after_ms (0)), ==, 0);
  g_assert_cmpint (hf_deadline_left_ms (now + 60 * G_USEC_PER_SEC), >, 50000);
  /* A longer wait than poll() takes is cut, not wrapped. */
  g_assert_cmpint (hf_deadline_left_ms (G_MAXINT64), ==, G_MAXINT);
  /* Less than a millisecond is one, or a loop would spin. */
  g_assert_cmpint (hf_deadline_left_ms (g_get_monotonic_time () + 100000), >, 0);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/worker/done", test_done);
  g_test_add_func ("/worker/late-then-busy-then-done", test_late_then_busy_then_done);
  g_test_add_func ("/worker/free-while-running", test_free_while_running);
  g_test_add_func ("/worker/deadline", test_deadline);
  return g_test_run ();
}
