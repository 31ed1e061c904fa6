/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * See the header. Owns nothing: the work lives on the caller's stack, and every thread is joined before the caller returns.
 *
 * Theory of operation: threads take the next item until there is none, and so does the caller. A thread pool would leave its
 * items lying if it got no thread at all (EAGAIN at a limit of the service manager), and the caller waiting for ever.
 */

#include "base/parallel.h"

typedef struct {
  gpointer *items;
  guint n;
  guint next; /* atomic */
  GFunc function;
  gpointer data;
} Work;

static gpointer
take_items (gpointer data)
{
  Work *work = data;
  guint i;
  while ((i = (guint)g_atomic_int_add (&work->next, 1)) < work->n)
    work->function (work->items[i], work->data);
  return NULL;
}

void
hf_parallel_for (gpointer *items, guint n, guint threads_max, GFunc function, gpointer data)
{
  Work work = { .items = items, .n = n, .function = function, .data = data };
  guint wanted = MIN (n, threads_max), n_threads = 0;
  g_autofree GThread **threads = g_new0 (GThread *, wanted + 1);
  while (n_threads + 1 < wanted) {
    threads[n_threads] = g_thread_try_new ("hf-parallel", take_items, &work, NULL);
    if (threads[n_threads] == NULL)
      break;
    n_threads++;
  }
  take_items (&work);
  for (guint i = 0; i < n_threads; i++)
    g_thread_join (threads[i]);
}
