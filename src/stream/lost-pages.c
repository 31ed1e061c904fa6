/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns: nothing but what it is given. Thread: any, one at a time.
 *
 * Theory of operation: the file system knows which ranges it has (lseek with SEEK_DATA and SEEK_HOLE), so no page is read. Of
 * each hole the pages that lie in it as a whole are looked up in the bitmap, which is read in pieces. A run that goes on in the
 * next piece or hole is found as two.
 */

#include "config.h"

#include "stream/lost-pages.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define PIECE 4096u /* bytes of a bitmap */

typedef struct {
  HfReader *reader;
  const HfStreamBlock *block;
  HfLostPagesFunc found;
  gpointer data;
} Search;

/* bits: those of the pages from first on, of which the ones in [begin, end) count. */
static void
report_runs (const Search *search, const guint8 *bits, guint64 first, guint64 begin, guint64 end)
{
  for (guint64 page = begin; page < end; page++) {
    guint64 start = page;

    while (page < end && (bits[(page - first) / 8] >> (page - first) % 8 & 1) != 0)
      page++;
    if (page > start)
      search->found (search->block, start, page - start, search->data);
  }
}

/* The pages that lie in the file's range [start, end), as far as they lie in it as a whole. */
static gboolean
look_up (const Search *search, guint64 start, guint64 end, GError **error)
{
  const HfStreamBlock *block = search->block;
  guint64 begin = (start - block->pages_offset + block->page_size - 1) / block->page_size;
  guint64 last = (end - block->pages_offset) / block->page_size;
  guint8 bits[PIECE];

  while (begin < last) {
    guint64 byte = begin / 8, length = MIN ((last + 7) / 8 - byte, PIECE);
    guint64 until = MIN (last, (byte + length) * 8);

    if (byte + length > block->bitmap_length) {
      g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_MALFORMED,
                   "block %s: the bitmap has no bit for page %" G_GUINT64_FORMAT, block->ram.id, until - 1);
      return FALSE;
    }
    if (!hf_reader_get (search->reader, block->bitmap_offset + byte, bits, length, error))
      return FALSE;
    report_runs (search, bits, byte * 8, begin, until);
    begin = until;
  }
  return TRUE;
}

/* The next offset from position on that has data, or has none. *ret: at most end. FALSE: it cannot be said. */
static gboolean
seek (int fd, guint64 position, int whence, guint64 end, guint64 *ret)
{
  off_t at = lseek (fd, (off_t)position, whence);

  if (at < 0 && errno != ENXIO)
    return FALSE;
  /* ENXIO: no data from here to the end of the file (lseek(2)). */
  *ret = at < 0 ? end : MIN ((guint64)at, end);
  return TRUE;
}

gboolean
hf_find_lost_pages (int fd, HfReader *reader, const HfStreamBlock *block, HfLostPagesFunc found, gpointer data, GError **error)
{
  const Search search = { .reader = reader, .block = block, .found = found, .data = data };
  guint64 position = block->pages_offset, end, begin;

  if (!block->mapped || block->page_size == 0 || !g_uint64_checked_add (&end, position, block->ram.used_length)
      || end > G_MAXINT64) {
    g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_MALFORMED, "block %s: its pages lie nowhere", block->ram.id);
    return FALSE;
  }
  /* What is behind the end of the file is no hole of it. */
  end = MIN (end, hf_reader_size (reader));
  while (position < end) {
    if (!seek (fd, position, SEEK_DATA, end, &begin))
      return TRUE;
    if (begin > position && !look_up (&search, position, begin, error))
      return FALSE;
    if (begin == end || !seek (fd, begin, SEEK_HOLE, end, &position))
      return TRUE;
  }
  return TRUE;
}
