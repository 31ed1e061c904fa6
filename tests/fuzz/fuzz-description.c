/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The JSON description behind a small stream that is otherwise in order. If both walks take it and agree, the sections in their
 * maps follow one another without a gap up to the EOF byte.
 */
#include "fuzz.h"

#include "../fake/qemu-stream.h"
#include "stream/stream-map.h"

static const FakeStreamOptions options = {
  .n_pages = 1, .page_bits = 9, .n_rounds = 1, .pr_key = 0x1234, .pr_type = 5, .dbus_id = "h"
};

/* The stream up to the type byte of the description. */
static GByteArray *
make_front (void)
{
  FakeStream *stream = fake_stream_new (&options);
  GByteArray *front = g_byte_array_new ();

  g_byte_array_append (front, stream->bytes->data, (guint)stream->eof + 2);
  fake_stream_free (stream);
  return front;
}

static void
check_row (const HfStreamMap *map)
{
  guint64 at = 0;

  for (guint i = 0; i < map->sections->len; i++) {
    const HfStreamSection *section = g_ptr_array_index (map->sections, i);

    if (i > 0 && section->offset != at)
      g_error ("a gap before section %u", i);
    at = section->offset + section->length;
  }
  if (at != map->eof_offset)
    g_error ("a gap before the EOF byte");
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t length)
{
  static GByteArray *front;
  g_autoptr (GByteArray) bytes = g_byte_array_new ();
  g_autoptr (HfReader) reader = NULL;
  g_autoptr (HfStreamMap) forward = NULL, tail = NULL;
  g_autoptr (GError) forward_error = NULL, tail_error = NULL;
  guint32 be = GUINT32_TO_BE ((guint32)length);
  gboolean whole;

  if (!front)
    front = make_front ();
  g_byte_array_append (bytes, front->data, front->len);
  g_byte_array_append (bytes, (const guint8 *)&be, sizeof be);
  if (length > 0)
    g_byte_array_append (bytes, data, (guint)length);
  reader = hf_reader_new_memory (bytes->data, bytes->len);
  whole = hf_walk_forward (reader, 0, bytes->len, NULL, &forward, &forward_error);
  g_assert (whole == (forward_error == NULL));
  whole &= hf_walk_tail (reader, 0, bytes->len, &tail, &tail_error);
  g_assert (tail_error || tail->end == bytes->len);
  if (whole && hf_stream_maps_agree (forward, tail, NULL)) {
    check_row (forward);
    check_row (tail);
  }
  return 0;
}
