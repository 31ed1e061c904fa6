/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The fields of RAM START in a mapped-ram file that is otherwise in order: the sum, and of each block its fields, its header and
 * the front of its bitmap, one behind the other in data; what data does not reach stays as it is. A file that is found good has
 * the layout that QEMU writes, because nothing else of it has changed.
 */
#include "fuzz.h"

#include "../fake/qemu-stream.h"
#include "stream/verify.h"

#include <string.h>

#define BITMAP_FRONT 8u
#define HEADER_SIZE 28u

static const FakeStreamOptions options = { .n_pages = 40, .mapped = TRUE };

typedef struct {
  guint64 offset;
  gsize length;
} Place;

static FakeStream *stream;
static guint8 *original;
static Place places[1 + FAKE_N_BLOCKS];

static HfVerifyReport *
verify (void)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (HfImage) image =
      hf_image_of_reader (hf_reader_new_memory (stream->bytes->data, stream->bytes->len), 0, FALSE, &error);
  HfVerifyReport *report = NULL;

  if (!image || !hf_verify_image (image, HF_VERIFY_DEFAULT, NULL, &report, &error))
    g_error ("bytes in memory could not be verified: %s", error->message);
  return report;
}

static void
prepare (void)
{
  g_autoptr (HfVerifyReport) report = NULL;
  gsize total = 0;

  stream = fake_stream_new (&options);
  report = verify ();
  g_assert (report->n_problems == 0 && report->forward->blocks->len == FAKE_N_BLOCKS);
  for (guint i = 0; i < FAKE_N_BLOCKS; i++) {
    const HfStreamBlock *block = &g_array_index (report->forward->blocks, HfStreamBlock, i);
    gsize fields = 1 + strlen (block->ram.id) + 8;

    if (i == 0)
      places[0] = (Place){ block->header_offset - fields - 8, 8 };
    places[1 + i] = (Place){ block->header_offset - fields, fields + HEADER_SIZE + BITMAP_FRONT };
    total += places[1 + i].length;
  }
  original = g_malloc (total + places[0].length);
  for (gsize i = 0, at = 0; i < G_N_ELEMENTS (places); at += places[i++].length)
    memcpy (original + at, stream->bytes->data + places[i].offset, places[i].length);
}

/* So many bytes of data into the places. */
static void
overlay (const guint8 *data, gsize length)
{
  for (gsize i = 0; i < G_N_ELEMENTS (places) && length > 0; i++) {
    gsize n = MIN (length, places[i].length);

    memcpy (stream->bytes->data + places[i].offset, data, n);
    data += n;
    length -= n;
  }
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t length)
{
  g_autoptr (HfVerifyReport) report = NULL;

  if (!stream)
    prepare ();
  overlay (data, length);
  report = verify ();
  for (guint i = 0; report->n_problems == 0 && i < report->forward->blocks->len; i++) {
    const HfStreamBlock *block = &g_array_index (report->forward->blocks, HfStreamBlock, i);

    if (block->page_size != stream->page_size || block->bitmap_offset != block->header_offset + HEADER_SIZE
        || block->pages_offset % block->page_size != 0 || block->pages_offset + block->ram.used_length > stream->bytes->len
        || block->bitmap_offset + block->bitmap_length > block->pages_offset)
      g_error ("block %u is good, but has no place in the file", i);
  }
  overlay (original, length);
  return 0;
}
