/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Bytes of a stream, cut into lines. The caller bounds what it feeds by what hf_line_buffer_feed answers. Thread: any; pure.
 */

#include <glib.h>

typedef struct {
  GByteArray *bytes;
  gsize scanned; /* no newline stands before */
  gsize line_max;
} HfLineBuffer;

/* line_max: bytes of a line without its newline. */
void hf_line_buffer_init (HfLineBuffer *buffer, gsize line_max);
void hf_line_buffer_clear (HfLineBuffer *buffer);

/* Adds bytes. */
void hf_line_buffer_feed (HfLineBuffer *buffer, const void *bytes, gsize length);

/* The next line without its newline; ret_line: free with g_bytes_unref, NULL if none is complete. FALSE: the line is longer than
   line_max, and nothing is to be had from this buffer any more. */
gboolean hf_line_buffer_take (HfLineBuffer *buffer, GBytes **ret_line);

/* TRUE: there are bytes that hf_line_buffer_take has not given yet. */
gboolean hf_line_buffer_has_rest (const HfLineBuffer *buffer);
