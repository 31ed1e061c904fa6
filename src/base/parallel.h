/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * One call for each item, side by side, for calls that wait for devices and not for a processor.
 *
 * Thread: any. The calls run on threads of their own and on the caller's, in no order.
 */

#include <glib.h>

/* function (item, data) for each of the n items; returns when all are done. At most threads_max run at a time. Threads that
   cannot be had are done without: it takes longer then, and never fails. */
void hf_parallel_for (gpointer *items, guint n, guint threads_max, GFunc function, gpointer data);
