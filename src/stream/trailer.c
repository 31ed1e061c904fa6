/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns the bytes of the trailer (trailer.h has the layout). Any thread; pure: no descriptor, no clock.
 *
 * Theory of operation: the footer alone says how long the trailer is, and every length in it follows from the others and from the
 * file's size, so all of them are tested against each other before anything is allocated or read by them. The checksum over the
 * trailer comes last.
 */

#include "config.h"

#include "stream/trailer.h"

#include "base/bytes.h"

#include <string.h>
#include <xxhash.h>

#define MAGIC "HFSTREAM"
#define MAGIC_SIZE 8
#define TRAILER_VERSION 1u
#define BLOCK_SIZE_MIN (64u << 10)
#define BLOCK_SIZE_MAX (64u << 20)
#define FLAGS_KNOWN ((guint32)HF_TRAILER_COMPLETE)

/* Where the footer's fields are. */
enum {
  AT_VERSION = 8,
  AT_BLOCK_SIZE = 12,
  AT_PAYLOAD_OFFSET = 16,
  AT_PAYLOAD_LENGTH = 24,
  AT_TIME = 32,
  AT_N_BLOCKS = 40,
  AT_FLAGS = 48,
  AT_RESERVED = 52,
  AT_CHECKSUM = 72
};
G_STATIC_ASSERT (AT_CHECKSUM + sizeof (guint64) == HF_TRAILER_FOOTER_SIZE);

void
hf_trailer_clear (HfTrailer *trailer)
{
  g_free (trailer->checksums);
  *trailer = (HfTrailer){ 0 };
}

guint64
hf_trailer_count_blocks (guint64 payload_offset, guint64 payload_length, guint32 block_size)
{
  guint64 last;

  if (payload_length == 0)
    return 0;
  /* The last byte, not the end: that may be one more than fits. */
  if (!g_uint64_checked_add (&last, payload_offset, payload_length - 1))
    last = G_MAXUINT64;
  return last / block_size - payload_offset / block_size + 1;
}

void
hf_trailer_block (const HfTrailer *trailer, guint64 index, guint64 *ret_offset, guint64 *ret_length)
{
  guint64 end = trailer->payload_offset + trailer->payload_length;
  guint64 block = (trailer->payload_offset / trailer->block_size + index) * trailer->block_size;
  guint64 start = MAX (block, trailer->payload_offset);

  *ret_offset = start;
  *ret_length = MIN (trailer->block_size - (start - block), end - start);
}

guint64
hf_trailer_checksum (const void *data, gsize length)
{
  return XXH3_64bits (data, length);
}

GBytes *
hf_trailer_encode (const HfTrailer *trailer)
{
  gsize table = trailer->n_blocks * sizeof (guint64);
  guint8 *bytes = g_malloc0 (table + HF_TRAILER_FOOTER_SIZE);
  guint8 *footer = bytes + table;

  for (guint64 i = 0; i < trailer->n_blocks; i++)
    hf_put_be64 (trailer->checksums[i], bytes + i * sizeof (guint64));
  memcpy (footer, MAGIC, MAGIC_SIZE);
  hf_put_be32 (TRAILER_VERSION, footer + AT_VERSION);
  hf_put_be32 (trailer->block_size, footer + AT_BLOCK_SIZE);
  hf_put_be64 (trailer->payload_offset, footer + AT_PAYLOAD_OFFSET);
  hf_put_be64 (trailer->payload_length, footer + AT_PAYLOAD_LENGTH);
  hf_put_be64 ((guint64)trailer->time, footer + AT_TIME);
  hf_put_be64 (trailer->n_blocks, footer + AT_N_BLOCKS);
  hf_put_be32 (trailer->flags, footer + AT_FLAGS);
  hf_put_be64 (hf_trailer_checksum (bytes, table + AT_CHECKSUM), footer + AT_CHECKSUM);
  return g_bytes_new_take (bytes, table + HF_TRAILER_FOOTER_SIZE);
}

gboolean
hf_trailer_is_footer (const guint8 *footer)
{
  return memcmp (footer, MAGIC, MAGIC_SIZE) == 0;
}

static gboolean
refuse (GError **error, guint64 file_size, const char *why)
{
  g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_MALFORMED, "trailer, footer at offset %" G_GUINT64_FORMAT ": %s",
               file_size - MIN (file_size, HF_TRAILER_FOOTER_SIZE), why);
  return FALSE;
}

/* Every length against the others and against the file. */
static const char *
find_wrong_length (const HfTrailer *trailer, guint64 file_size)
{
  guint64 payload_end;

  if (trailer->block_size < BLOCK_SIZE_MIN || trailer->block_size > BLOCK_SIZE_MAX
      || (trailer->block_size & (trailer->block_size - 1)) != 0)
    return "the block size is not a power of two from 64 KiB to 64 MiB";
  if (!g_uint64_checked_add (&payload_end, trailer->payload_offset, trailer->payload_length) || payload_end > file_size)
    return "the payload ends behind the end of the file";
  if (trailer->n_blocks > HF_TRAILER_BLOCKS_MAX)
    return "there are more blocks than 2^24";
  if (trailer->n_blocks != hf_trailer_count_blocks (trailer->payload_offset, trailer->payload_length, trailer->block_size))
    return "the number of blocks is not that of the payload";
  /* Neither product nor sum can overflow any more. */
  if (file_size - payload_end != trailer->n_blocks * sizeof (guint64) + HF_TRAILER_FOOTER_SIZE)
    return "payload and trailer are not as long as the file";
  return NULL;
}

gboolean
hf_trailer_decode_footer (const guint8 *footer, guint64 file_size, HfTrailer *ret, GError **error)
{
  static const guint8 zero[AT_CHECKSUM - AT_RESERVED];
  const char *wrong;
  HfTrailer trailer = {
    .block_size = hf_get_be32 (footer + AT_BLOCK_SIZE),
    .payload_offset = hf_get_be64 (footer + AT_PAYLOAD_OFFSET),
    .payload_length = hf_get_be64 (footer + AT_PAYLOAD_LENGTH),
    .time = (gint64)hf_get_be64 (footer + AT_TIME),
    .flags = hf_get_be32 (footer + AT_FLAGS),
    .n_blocks = hf_get_be64 (footer + AT_N_BLOCKS),
  };

  if (!hf_trailer_is_footer (footer))
    return refuse (error, file_size, "no magic HFSTREAM");
  if (hf_get_be32 (footer + AT_VERSION) != TRAILER_VERSION)
    return refuse (error, file_size, "the version is not 1");
  if ((trailer.flags & ~FLAGS_KNOWN) != 0)
    return refuse (error, file_size, "a flag is set that version 1 does not have");
  if (memcmp (footer + AT_RESERVED, zero, sizeof zero) != 0)
    return refuse (error, file_size, "a byte that must be 0 is not");
  wrong = find_wrong_length (&trailer, file_size);
  if (wrong)
    return refuse (error, file_size, wrong);
  *ret = trailer;
  return TRUE;
}

/* Everything but the checksums themselves. */
static gboolean
decode_outline (const guint8 *bytes, gsize length, guint64 file_size, HfTrailer *ret, GError **error)
{
  HfTrailer trailer;
  const guint8 *footer;

  if (length < HF_TRAILER_FOOTER_SIZE)
    return refuse (error, file_size, "it is cut");
  footer = bytes + length - HF_TRAILER_FOOTER_SIZE;
  if (!hf_trailer_decode_footer (footer, file_size, &trailer, error))
    return FALSE;
  if (length != trailer.n_blocks * sizeof (guint64) + HF_TRAILER_FOOTER_SIZE)
    return refuse (error, file_size, "it is not as long as its number of blocks says");
  if (hf_get_be64 (footer + AT_CHECKSUM) != hf_trailer_checksum (bytes, length - sizeof (guint64))) {
    g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_CHECKSUM,
                 "trailer at offset %" G_GUINT64_FORMAT ", %" G_GSIZE_FORMAT " bytes: its own checksum is wrong",
                 file_size - length, length);
    return FALSE;
  }
  *ret = trailer;
  return TRUE;
}

gboolean
hf_trailer_decode_take (guint8 **bytes, gsize length, guint64 file_size, HfTrailer *ret, GError **error)
{
  guint64 *checksums = (guint64 *)(gpointer)*bytes;

  if (!decode_outline (*bytes, length, file_size, ret, error))
    return FALSE;
  for (guint64 i = 0; i < ret->n_blocks; i++)
    checksums[i] = GUINT64_FROM_BE (checksums[i]);
  ret->checksums = checksums;
  *bytes = NULL;
  return TRUE;
}

gboolean
hf_trailer_decode (const guint8 *bytes, gsize length, guint64 file_size, HfTrailer *ret, GError **error)
{
  guint8 *copy = g_memdup2 (bytes, length);
  gboolean ok = hf_trailer_decode_take (&copy, length, file_size, ret, error);

  g_free (copy);
  return ok;
}
