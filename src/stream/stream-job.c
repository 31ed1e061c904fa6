/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Owns: nothing. Tells how far a long piece of work is, and looks whether it shall stop. Thread: the worker's own. */
#include "config.h"

#include "stream/stream-error.h"

#include <poll.h>

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
