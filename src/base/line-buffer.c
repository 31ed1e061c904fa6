/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns: the bytes between a socket and a line. Thread: any; pure.
 *
 * Theory of operation: bytes are looked at once for a newline, however small the pieces are in which they came. A line that is
 * too long is found as soon as its bytes are there, not when it ends: it may never end.
 */
#include "config.h"

#include "base/line-buffer.h"

#include <string.h>

void
hf_line_buffer_init (HfLineBuffer *buffer, gsize line_max)
{
  buffer->bytes = g_byte_array_new ();
  buffer->scanned = 0;
  buffer->line_max = line_max;
}

void
hf_line_buffer_clear (HfLineBuffer *buffer)
{
  g_clear_pointer (&buffer->bytes, g_byte_array_unref);
}

void
hf_line_buffer_feed (HfLineBuffer *buffer, const void *bytes, gsize length)
{
  g_byte_array_append (buffer->bytes, bytes, (guint)length);
}

gboolean
hf_line_buffer_take (HfLineBuffer *buffer, GBytes **ret_line)
{
  GByteArray *bytes = buffer->bytes;
  const guint8 *end =
      bytes->len > buffer->scanned ? memchr (bytes->data + buffer->scanned, '\n', bytes->len - buffer->scanned) : NULL;
  gsize length = end ? (gsize)(end - bytes->data) : bytes->len;

  *ret_line = NULL;
  if (length > buffer->line_max)
    return FALSE;
  if (!end) {
    buffer->scanned = bytes->len;
    return TRUE;
  }
  *ret_line = g_bytes_new (bytes->data, length);
  g_byte_array_remove_range (bytes, 0, (guint)length + 1);
  buffer->scanned = 0;
  return TRUE;
}

gboolean
hf_line_buffer_has_rest (const HfLineBuffer *buffer)
{
  return buffer->bytes->len > 0;
}
