/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Threads that wait for something to do: the one that has waited least is woken, and nobody else. Not bounded: whoever gives them
 * jobs counts.
 *
 * Thread: main; run is called on the threads.
 */

#include <glib.h>

typedef struct _HfThreads HfThreads;

/* keep: so many stay when they have nothing to do. */
HfThreads *hf_threads_new (guint keep, void (*run) (gpointer job));

/* Does not wait: jobs at work end, then their threads do. None may wait in the queue of hf_threads_run. NULL is accepted. */
void hf_threads_free (HfThreads *threads);

/* may_wait: if there can be no more threads, for one that has ended its job. FALSE: there is no thread for job. */
gboolean hf_threads_run (HfThreads *threads, gpointer job, gboolean may_wait);
