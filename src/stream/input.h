/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The bytes of a pipe, a socket or a regular file, one after the other. A regular file is read by position, past the page cache
 * unless it has most of it.
 *
 * Thread: one at a time. Errors: HF_STREAM_ERROR, HF_IO_ERROR.
 */

#include "stream/stream-error.h"

typedef struct _HfInput HfInput;

/* fd stays the caller's; its flags are not changed. A regular file is read from its file position on. */
HfInput *hf_input_new (int fd, GError **error);
/* The file position of a regular file is set behind what was read. */
void hf_input_free (HfInput *input);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (HfInput, hf_input_free)

/* How many bytes there are to come; 0: not known. */
guint64 hf_input_total (const HfInput *input);

/* Reads at least 1 and at most size bytes, waiting for them, and no longer than until job->interrupt_fd is readable
   (HF_STREAM_ERROR_INTERRUPTED). *ret_length 0: the end. job may be NULL; its progress is not called. */
gboolean hf_input_read (HfInput *input, guint8 *buffer, gsize size, const HfStreamJob *job, gsize *ret_length, GError **error);
