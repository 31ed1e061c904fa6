/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Bytes into a pipe, a socket or a file, one after the other, that can be stopped while the other side does not take them, and
 * that never raise SIGPIPE.
 *
 * Thread: one at a time. Errors: HF_STREAM_ERROR.
 */

#include "stream/stream-error.h"

typedef struct _HfOutput HfOutput;

/* fd stays the caller's; its flags are not changed. */
HfOutput *hf_output_new (int fd, GError **error);
void hf_output_free (HfOutput *output);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (HfOutput, hf_output_free)

/* Writes all of it, waiting no longer than until job->interrupt_fd is readable (HF_STREAM_ERROR_INTERRUPTED). job may be NULL;
   its progress is not called. *done: how much of it was taken, on failure too. */
gboolean hf_output_write (HfOutput *output, const guint8 *bytes, gsize length, const HfStreamJob *job, gsize *done,
                          GError **error);
