/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The record from an enemy. The input is read as a record, and, because no fuzzer guesses a SHA-256, once more as a body behind a
 * frame that is right. What is accepted must be what we would have written: encoded again it gives the same bytes.
 */

#include "fuzz.h"

#include <holdfast/record.h>

#include <string.h>

#define HEADER_SIZE 48

static void
try_decode (const guint8 *data, gsize size)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (HfRecord) record = hf_record_decode (data, size, &error);

  if ((record == NULL) != (error != NULL))
    g_error ("a result and an error, or neither");
  if (record == NULL)
    return;

  g_autoptr (GBytes) again = hf_record_encode (record, &error);
  if (again == NULL)
    g_error ("what was read cannot be written: %s", error->message);
  if (g_bytes_get_size (again) != size || memcmp (g_bytes_get_data (again, NULL), data, size) != 0)
    g_error ("two encodings of one record");
}

static GByteArray *
frame (const guint8 *body, gsize size)
{
  guint32 words[2] = { GUINT32_TO_BE (HF_RECORD_VERSION), GUINT32_TO_BE ((guint32)size) };
  guint8 digest[32];
  gsize digest_size = sizeof (digest);
  g_autoptr (GChecksum) checksum = g_checksum_new (G_CHECKSUM_SHA256);
  GByteArray *bytes = g_byte_array_new ();

  g_byte_array_append (bytes, (const guint8 *)"HOLDFAST", 8);
  g_byte_array_append (bytes, (const guint8 *)words, sizeof (words));
  g_checksum_update (checksum, bytes->data, bytes->len);
  g_checksum_update (checksum, body, (gssize)size);
  g_checksum_get_digest (checksum, digest, &digest_size);
  g_byte_array_append (bytes, digest, sizeof (digest));
  g_byte_array_append (bytes, body, (guint)size);
  return bytes;
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  try_decode (data, size);
  if (size > HF_RECORD_SIZE_MAX)
    return 0;

  /* A whole record as a seed is also a good body, with its header cut off. */
  gboolean whole = size > HEADER_SIZE && memcmp (data, "HOLDFAST", 8) == 0;
  gsize skip = whole ? HEADER_SIZE : 0;
  g_autoptr (GByteArray) framed = frame (data + skip, size - skip);
  try_decode (framed->data, framed->len);
  return 0;
}
