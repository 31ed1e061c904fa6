/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns: one window of the file. Thread: one at a time.
 *
 * Theory of operation: the walks ask for a few bytes at a time, nearly always a little further on. A window that begins where
 * they ask serves hundreds of such reads with one call. Memory needs none. Whoever reads the file anyway, for its checksums,
 * lends his blocks instead (hf_reader_set_lend), so that a large file is read once.
 */

#include "config.h"

#include "stream/reader.h"

#include "base/bytes.h"

#include <holdfast/io.h>
#include <string.h>

/* Between two pages of a classic stream lie 4105 bytes, so a window serves 31 of their headers. Walks that jump, those of
   mapped-ram and from the end, read no more than this for each jump. */
#define WINDOW_SIZE (128u * 1024)

struct _HfReader {
  const guint8 *memory; /* of hf_reader_new_memory */
  int fd;
  guint64 size;
  guint8 *window;
  guint64 window_offset;
  gsize window_length;
  HfReaderLend lend;
  gpointer lend_data;
  const guint8 *block; /* what was lent last; NULL: nothing */
  guint64 block_offset;
  gsize block_length;
};

HfReader *
hf_reader_new_fd (int fd, guint64 size)
{
  HfReader *reader = g_new0 (HfReader, 1);

  reader->fd = fd;
  reader->size = MIN (size, G_MAXINT64);
  reader->window = g_malloc (WINDOW_SIZE);
  return reader;
}

HfReader *
hf_reader_new_memory (const void *data, gsize size)
{
  HfReader *reader = g_new0 (HfReader, 1);

  reader->fd = -1;
  reader->memory = data;
  reader->size = size;
  return reader;
}

void
hf_reader_free (HfReader *reader)
{
  if (!reader)
    return;
  g_free (reader->window);
  g_free (reader);
}

guint64
hf_reader_size (const HfReader *reader)
{
  return reader->size;
}

void
hf_reader_set_lend (HfReader *reader, HfReaderLend lend, gpointer data)
{
  reader->lend = lend;
  reader->lend_data = data;
  reader->block = NULL;
  reader->block_length = 0;
}

static gboolean
check_bounds (const HfReader *reader, guint64 offset, gsize length, GError **error)
{
  if (offset <= reader->size && length <= reader->size - offset)
    return TRUE;
  g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_INCOMPLETE,
               "%" G_GSIZE_FORMAT " bytes are missing at offset %" G_GUINT64_FORMAT ": the end is at %" G_GUINT64_FORMAT, length,
               offset, reader->size);
  return FALSE;
}

/* The part of [offset, offset + length) that lies in bytes, which are those at start, goes to buffer. How many bytes. */
static gsize
copy_front (const guint8 *bytes, guint64 start, gsize n_bytes, guint64 offset, guint8 *buffer, gsize length)
{
  gsize n;

  if (offset < start || offset - start >= n_bytes)
    return 0;
  n = MIN (length, n_bytes - (gsize)(offset - start));
  memcpy (buffer, bytes + (offset - start), n);
  return n;
}

/* The bounds are checked. */
static gboolean
get_from_window (HfReader *reader, guint64 offset, guint8 *buffer, gsize length, GError **error)
{
  while (length > 0) {
    gsize n = copy_front (reader->window, reader->window_offset, reader->window_length, offset, buffer, length);

    if (n == 0) {
      gsize wanted = MIN (WINDOW_SIZE, reader->size - offset);

      reader->window_length = 0;
      if (hf_pread_all (reader->fd, reader->window, wanted, (gint64)offset, NULL, error) < 0)
        return FALSE;
      reader->window_offset = offset;
      reader->window_length = wanted;
      continue;
    }
    offset += n;
    buffer += n;
    length -= n;
  }
  return TRUE;
}

/* What the lender has of it, from offset on. *ret_n 0: nothing. The bounds are checked. */
static gboolean
get_lent (HfReader *reader, guint64 offset, guint8 *buffer, gsize length, gsize *ret_n, GError **error)
{
  *ret_n = 0;
  if (!reader->lend)
    return TRUE;
  *ret_n = copy_front (reader->block, reader->block_offset, reader->block_length, offset, buffer, length);
  if (*ret_n > 0)
    return TRUE;
  reader->block = NULL;
  reader->block_length = 0;
  if (!reader->lend (offset, &reader->block, &reader->block_offset, &reader->block_length, reader->lend_data, error))
    return FALSE;
  *ret_n = copy_front (reader->block, reader->block_offset, reader->block_length, offset, buffer, length);
  return TRUE;
}

gboolean
hf_reader_get (HfReader *reader, guint64 offset, void *buffer, gsize length, GError **error)
{
  guint8 *bytes = buffer;

  if (!check_bounds (reader, offset, length, error))
    return FALSE;
  if (length == 0)
    return TRUE;
  if (reader->memory) {
    memcpy (bytes, reader->memory + offset, length);
    return TRUE;
  }
  while (length > 0) {
    gsize n;

    if (!get_lent (reader, offset, bytes, length, &n, error))
      return FALSE;
    if (n == 0)
      return get_from_window (reader, offset, bytes, length, error);
    offset += n;
    bytes += n;
    length -= n;
  }
  return TRUE;
}

gboolean
hf_reader_get_large (HfReader *reader, guint64 offset, void *buffer, gsize length, GError **error)
{
  if (reader->memory || length == 0)
    return hf_reader_get (reader, offset, buffer, length, error);
  if (!check_bounds (reader, offset, length, error))
    return FALSE;
  return hf_pread_all (reader->fd, buffer, length, (gint64)offset, NULL, error) == 0;
}

gboolean
hf_reader_u8 (HfReader *reader, guint64 offset, guint8 *ret, GError **error)
{
  return hf_reader_get (reader, offset, ret, sizeof *ret, error);
}

gboolean
hf_reader_be16 (HfReader *reader, guint64 offset, guint16 *ret, GError **error)
{
  guint8 bytes[2];

  if (!hf_reader_get (reader, offset, bytes, sizeof bytes, error))
    return FALSE;
  *ret = hf_get_be16 (bytes);
  return TRUE;
}

gboolean
hf_reader_be32 (HfReader *reader, guint64 offset, guint32 *ret, GError **error)
{
  guint8 bytes[4];

  if (!hf_reader_get (reader, offset, bytes, sizeof bytes, error))
    return FALSE;
  *ret = hf_get_be32 (bytes);
  return TRUE;
}

gboolean
hf_reader_be64 (HfReader *reader, guint64 offset, guint64 *ret, GError **error)
{
  guint8 bytes[8];

  if (!hf_reader_get (reader, offset, bytes, sizeof bytes, error))
    return FALSE;
  *ret = hf_get_be64 (bytes);
  return TRUE;
}
