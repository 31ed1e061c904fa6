/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The trailer: what is written is read again, and no bit of it can change without being noticed.
 */
#include "config.h"

#include "stream/trailer.h"

#include <string.h>

typedef struct {
  guint64 offset, length;
  guint32 block_size;
} Shape;

static const Shape shapes[] = {
  { 0, 0, HF_TRAILER_BLOCK_SIZE },
  { 0, 1, HF_TRAILER_BLOCK_SIZE },
  { 0, HF_TRAILER_BLOCK_SIZE, HF_TRAILER_BLOCK_SIZE },
  { 0, HF_TRAILER_BLOCK_SIZE + 1, HF_TRAILER_BLOCK_SIZE },
  { 71969, 5 * HF_TRAILER_BLOCK_SIZE, HF_TRAILER_BLOCK_SIZE },
  { HF_TRAILER_BLOCK_SIZE - 1, 2, HF_TRAILER_BLOCK_SIZE },
  { HF_TRAILER_BLOCK_SIZE, 1, HF_TRAILER_BLOCK_SIZE },
  { 3 * HF_TRAILER_BLOCK_SIZE + 17, 0, HF_TRAILER_BLOCK_SIZE },
  { 100, 1000000, 64u << 10 },
  { 100, 100000000, 64u << 20 },
};

static HfTrailer
make_trailer (const Shape *shape)
{
  HfTrailer trailer = { .block_size = shape->block_size,
                        .payload_offset = shape->offset,
                        .payload_length = shape->length,
                        .time = G_GINT64_CONSTANT (1767225600123456),
                        .flags = HF_TRAILER_COMPLETE };

  trailer.n_blocks = hf_trailer_count_blocks (shape->offset, shape->length, shape->block_size);
  trailer.checksums = g_new (guint64, trailer.n_blocks);
  for (guint64 i = 0; i < trailer.n_blocks; i++)
    trailer.checksums[i] = hf_trailer_checksum (&i, sizeof i);
  return trailer;
}

static guint64
file_size_of (const HfTrailer *trailer, GBytes *bytes)
{
  return trailer->payload_offset + trailer->payload_length + g_bytes_get_size (bytes);
}

static void
test_round_trip (void)
{
  for (gsize i = 0; i < G_N_ELEMENTS (shapes); i++) {
    g_autoptr (GError) error = NULL;
    HfTrailer trailer = make_trailer (&shapes[i]), again = { 0 };
    g_autoptr (GBytes) bytes = hf_trailer_encode (&trailer);
    gsize length;
    const guint8 *data = g_bytes_get_data (bytes, &length);

    g_assert_cmpuint (length, ==, trailer.n_blocks * 8 + HF_TRAILER_FOOTER_SIZE);
    g_assert_true (hf_trailer_is_footer (data + length - HF_TRAILER_FOOTER_SIZE));
    g_assert_true (hf_trailer_decode (data, length, file_size_of (&trailer, bytes), &again, &error));
    g_assert_no_error (error);
    g_assert_cmpuint (again.payload_offset, ==, trailer.payload_offset);
    g_assert_cmpuint (again.payload_length, ==, trailer.payload_length);
    g_assert_cmpint (again.time, ==, trailer.time);
    g_assert_cmpuint (again.flags, ==, trailer.flags);
    g_assert_cmpuint (again.block_size, ==, trailer.block_size);
    g_assert_cmpmem (again.checksums, again.n_blocks * 8, trailer.checksums, trailer.n_blocks * 8);
    hf_trailer_clear (&again);
    hf_trailer_clear (&trailer);
  }
}

/* The blocks are the payload: they follow each other without gap, and all inner borders are on the grid. */
static void
test_blocks_cover_the_payload (void)
{
  for (gsize i = 0; i < G_N_ELEMENTS (shapes); i++) {
    HfTrailer trailer = make_trailer (&shapes[i]);
    guint64 position = trailer.payload_offset;

    for (guint64 k = 0; k < trailer.n_blocks; k++) {
      guint64 offset, length;

      hf_trailer_block (&trailer, k, &offset, &length);
      g_assert_cmpuint (offset, ==, position);
      g_assert_cmpuint (length, >, 0);
      g_assert_cmpuint (length, <=, trailer.block_size);
      if (k > 0)
        g_assert_cmpuint (offset % trailer.block_size, ==, 0);
      position += length;
    }
    g_assert_cmpuint (position, ==, trailer.payload_offset + trailer.payload_length);
    hf_trailer_clear (&trailer);
  }
}

static void
test_every_bit_counts (void)
{
  HfTrailer trailer = make_trailer (&shapes[4]);
  g_autoptr (GBytes) bytes = hf_trailer_encode (&trailer);
  guint64 file_size = file_size_of (&trailer, bytes);
  gsize length;
  g_autofree guint8 *data = g_memdup2 (g_bytes_get_data (bytes, &length), g_bytes_get_size (bytes));

  for (gsize bit = 0; bit < length * 8; bit++) {
    g_autoptr (GError) error = NULL;
    HfTrailer again = { 0 };

    data[bit / 8] ^= (guint8)(1u << (bit % 8));
    g_assert_false (hf_trailer_decode (data, length, file_size, &again, &error));
    g_assert_true (error && error->domain == HF_STREAM_ERROR);
    g_assert_null (again.checksums);
    data[bit / 8] ^= (guint8)(1u << (bit % 8));
  }
  hf_trailer_clear (&trailer);
}

/* A wrong length is found even if who changed it made a new checksum. */
static void
test_lengths_against_each_other (void)
{
  static const struct {
    gint64 offset, length;
    guint64 blocks;
    guint32 block_size;
    const char *why;
  } cases[] = {
    { 0, 1, 0, 0, "*not as long as the file*" },   { 1, 0, 0, 0, "*not as long as the file*" },
    { 0, -(1 << 20), 0, 0, "*number of blocks*" }, { 0, 0, 1, 0, "*number of blocks*" },
    { 0, 0, G_MAXUINT64 / 8, 0, "*more blocks*" }, { 0, G_MAXINT64, 0, 0, "*behind the end*" },
    { -1, 0, 0, 0, "*behind the end*" },           { 0, 0, 0, 4096, "*block size*" },
    { 0, 0, 0, 0x180000, "*block size*" },         { 0, 0, 0, 0x80000000u, "*block size*" },
  };

  for (gsize i = 0; i < G_N_ELEMENTS (cases); i++) {
    Shape shape = { 0, 3 * HF_TRAILER_BLOCK_SIZE - 100, HF_TRAILER_BLOCK_SIZE };
    HfTrailer trailer = make_trailer (&shape), good = trailer, again = { 0 };
    g_autoptr (GError) error = NULL;
    g_autoptr (GBytes) whole = hf_trailer_encode (&good);
    g_autoptr (GBytes) bytes = NULL;
    gsize length;
    const guint8 *data;

    trailer.payload_offset += (guint64)cases[i].offset;
    trailer.payload_length += (guint64)cases[i].length;
    trailer.block_size = cases[i].block_size ?: trailer.block_size;
    trailer.n_blocks = 0;
    bytes = hf_trailer_encode (&trailer);
    trailer.n_blocks = good.n_blocks + cases[i].blocks;
    data = g_bytes_get_data (bytes, &length);
    {
      g_autofree guint8 *footer = g_memdup2 (data, length);
      guint64 be = GUINT64_TO_BE (trailer.n_blocks);

      memcpy (footer + 40, &be, sizeof be);
      be = GUINT64_TO_BE (hf_trailer_checksum (footer, 72));
      memcpy (footer + 72, &be, sizeof be);
      g_assert_false (hf_trailer_decode_footer (footer, file_size_of (&good, whole), &again, &error));
    }
    g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_MALFORMED);
    g_assert_true (g_pattern_match_simple (cases[i].why, error->message));
    hf_trailer_clear (&good);
  }
}

static void
test_cut (void)
{
  HfTrailer trailer = make_trailer (&shapes[4]);
  g_autoptr (GBytes) bytes = hf_trailer_encode (&trailer);
  guint64 file_size = file_size_of (&trailer, bytes);
  gsize length;
  const guint8 *data = g_bytes_get_data (bytes, &length);

  for (gsize cut = 1; cut <= length; cut++) {
    g_autoptr (GError) error = NULL;
    HfTrailer again = { 0 };
    g_autofree guint8 *copy = g_memdup2 (data + cut, length - cut);

    g_assert_false (hf_trailer_decode (copy, length - cut, file_size, &again, &error));
    g_assert_nonnull (error);
  }
  hf_trailer_clear (&trailer);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/stream/trailer/round-trip", test_round_trip);
  g_test_add_func ("/stream/trailer/blocks-cover-the-payload", test_blocks_cover_the_payload);
  g_test_add_func ("/stream/trailer/every-bit-counts", test_every_bit_counts);
  g_test_add_func ("/stream/trailer/lengths-against-each-other", test_lengths_against_each_other);
  g_test_add_func ("/stream/trailer/cut", test_cut);
  return g_test_run ();
}
