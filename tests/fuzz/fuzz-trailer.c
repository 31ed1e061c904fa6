/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The trailer from an enemy. The input is read as one, behind a payload of the length that it claims; and, because no fuzzer
 * guesses an XXH3-64, once more with its own checksum made right. What is accepted must be what we would have written, and its
 * blocks must lie in the payload, one behind the other.
 */

#include "fuzz.h"

#include "stream/trailer.h"

#include <string.h>

#define BLOCKS_WALKED 4096u

static void
check_blocks (const HfTrailer *trailer)
{
  guint64 position = trailer->payload_offset;

  for (guint64 i = 0; i < MIN (trailer->n_blocks, BLOCKS_WALKED); i++) {
    guint64 offset, length;

    hf_trailer_block (trailer, i, &offset, &length);
    if (offset != position || length == 0 || length > trailer->block_size)
      g_error ("block %" G_GUINT64_FORMAT " is not where the one before it ends", i);
    position += length;
  }
  if (trailer->n_blocks <= BLOCKS_WALKED && position != trailer->payload_offset + trailer->payload_length)
    g_error ("the blocks are not the payload");
}

static void
try_decode (const guint8 *data, gsize size, guint64 file_size)
{
  g_autoptr (GError) error = NULL;
  HfTrailer trailer = { 0 };

  if (hf_trailer_decode (data, size, file_size, &trailer, &error) == (error != NULL))
    g_error ("a result and an error, or neither");
  if (error)
    return;
  if (trailer.payload_offset + trailer.payload_length + size != file_size)
    g_error ("a trailer that does not fill the file");
  check_blocks (&trailer);
  {
    g_autoptr (GBytes) again = hf_trailer_encode (&trailer);

    if (g_bytes_get_size (again) != size || memcmp (g_bytes_get_data (again, NULL), data, size) != 0)
      g_error ("two encodings of one trailer");
  }
  hf_trailer_clear (&trailer);
}

static guint64
get_be64 (const guint8 *bytes)
{
  guint64 be;

  memcpy (&be, bytes, sizeof be);
  return GUINT64_FROM_BE (be);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  g_autofree guint8 *fixed = NULL;
  const guint8 *footer;
  guint64 file_size, be;

  if (size < HF_TRAILER_FOOTER_SIZE) {
    try_decode (data, size, size);
    return 0;
  }
  footer = data + size - HF_TRAILER_FOOTER_SIZE;
  file_size = get_be64 (footer + 16) + get_be64 (footer + 24) + size;
  try_decode (data, size, file_size);
  try_decode (data, size, size);

  fixed = g_memdup2 (data, size);
  be = GUINT64_TO_BE (hf_trailer_checksum (fixed, size - sizeof be));
  memcpy (fixed + size - sizeof be, &be, sizeof be);
  try_decode (fixed, size, file_size);
  return 0;
}
