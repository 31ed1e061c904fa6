/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Deadlines: absolute, in microseconds on the scale of g_get_monotonic_time, so that the parts of a step share one and none adds
 * to it.
 *
 * Thread: any.
 */

#include <glib.h>

/* timeout_ms from now. */
static inline gint64
hf_deadline_after_ms (guint timeout_ms)
{
  return g_get_monotonic_time () + (gint64)timeout_ms * 1000;
}

/* What is left, rounded up so that a wait of this length does not end before the deadline; 0: it has passed. Fits poll(). */
static inline int
hf_deadline_left_ms (gint64 deadline)
{
  gint64 left = deadline - g_get_monotonic_time ();

  return left <= 0 ? 0 : (int)MIN ((left + 999) / 1000, G_MAXINT);
}
