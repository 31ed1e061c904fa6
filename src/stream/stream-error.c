/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Owns: the error domain of this folder, and the look at the interrupt. Thread: any. */
#include "config.h"

#include "stream/stream-error.h"

#include <poll.h>

G_DEFINE_QUARK (hf - stream - error - quark, hf_stream_error)

gboolean
hf_stream_job_step (const HfStreamJob *job, guint64 done, guint64 total, GError **error)
{
  struct pollfd interrupt;

  if (!job)
    return TRUE;
  interrupt = (struct pollfd){ .fd = job->interrupt_fd, .events = POLLIN };
  if (job->interrupt_fd >= 0 && poll (&interrupt, 1, 0) > 0) {
    g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_INTERRUPTED, "interrupted after %" G_GUINT64_FORMAT " bytes", done);
    return FALSE;
  }
  if (job->progress)
    job->progress (done, total, job->data);
  return TRUE;
}
