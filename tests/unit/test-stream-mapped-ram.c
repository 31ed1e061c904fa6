/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The layout of mapped-ram files is that of QEMU 10.0.2, to the byte (offsets that were read in its files), nothing overflows,
 * and CONFIGURATION gains and loses the capability without losing anything else.
 */
#include "config.h"

#include "classic-stream.h"
#include "stream/mapped-ram.h"

#include <string.h>

#define MIB (G_GUINT64_CONSTANT (1) << 20)

static const guint8 uuid[16] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 };

/* A guest of 256 MiB, saved by QEMU 10.0.2 to the start of a file. */
static void
test_layout_of_qemu (void)
{
  static const HfRamBlock ram[] = { { "pc.ram", 256 * MIB }, { "/rom@etc/acpi/tables", 0x20000 } };
  HfMappedBlock blocks[2];
  guint64 end = 0;

  g_assert_true (hf_mapped_ram_plan (ram, 2, 4096, 0x60, blocks, &end, NULL));
  g_assert_cmphex (blocks[0].header_offset, ==, 0x6f);
  g_assert_cmphex (blocks[0].bitmap_offset, ==, 0x8b);
  g_assert_cmpuint (blocks[0].bitmap_length, ==, 8192);
  g_assert_cmphex (blocks[0].pages_offset, ==, 0x100000);
  g_assert_cmphex (blocks[1].bitmap_offset, ==, 0x10100039);
  g_assert_cmpuint (blocks[1].bitmap_length, ==, 8);
  g_assert_cmphex (blocks[1].pages_offset, ==, 0x10200000);
  g_assert_cmphex (end, ==, 0x10220000);
}

/* Behind a prefix the offsets stay absolute: file:NAME,offset=0x11921. */
static void
test_layout_behind_offset (void)
{
  static const HfRamBlock ram[] = { { "pc.ram", 64 * MIB } };
  HfMappedBlock block;
  guint64 end = 0;

  g_assert_true (hf_mapped_ram_plan (ram, 1, 4096, 0x11921 + 0x60, &block, &end, NULL));
  g_assert_cmpuint (block.bitmap_offset, ==, 72108);
  g_assert_cmpuint (block.pages_offset, ==, MIB);
  g_assert_cmpuint (end, ==, 65 * MIB);
}

/* The bitmap that ends on a multiple of 1 MiB, the one that ends one behind, and the block without pages. */
static void
test_layout_edges (void)
{
  static const HfRamBlock ram[] = { { "a", 65 * 4096 }, { "b", 0 }, { "c", 64 * 4096 } };
  HfMappedBlock blocks[3];
  guint64 end = 0;

  g_assert_true (hf_mapped_ram_plan (ram, 3, 4096, MIB - 10 - 28 - 16, blocks, &end, NULL));
  g_assert_cmpuint (blocks[0].bitmap_length, ==, 16);
  g_assert_cmpuint (blocks[0].pages_offset, ==, MIB);
  g_assert_cmpuint (blocks[1].header_offset, ==, MIB + 65 * 4096 + 10);
  g_assert_cmpuint (blocks[1].bitmap_length, ==, 0);
  g_assert_cmpuint (blocks[1].pages_offset, ==, 2 * MIB);
  g_assert_cmpuint (blocks[2].header_offset, ==, 2 * MIB + 10);
  g_assert_cmpuint (blocks[2].bitmap_length, ==, 8);
  g_assert_cmpuint (end, ==, 3 * MIB + 64 * 4096);
  g_assert_true (hf_mapped_ram_plan (ram, 1, 4096, MIB - 10 - 28 - 15, blocks, &end, NULL));
  g_assert_cmpuint (blocks[0].pages_offset, ==, 2 * MIB);
  g_assert_true (hf_mapped_ram_plan (ram, 1, 65536, 0, blocks, &end, NULL)); /* larger pages, smaller bitmap */
  g_assert_cmpuint (blocks[0].bitmap_length, ==, 8);
}

static void
test_layout_overflow (void)
{
  static const guint64 lengths[] = { G_MAXUINT64 - 4095, G_MAXINT64 - 4094, G_MAXINT64 - MIB - 4095 };

  for (gsize i = 0; i < G_N_ELEMENTS (lengths); i++) {
    HfRamBlock ram[2] = { { "a", lengths[i] }, { "b", 4096 } };
    HfMappedBlock blocks[2];
    guint64 end = 77;
    g_autoptr (GError) error = NULL;

    g_assert_false (hf_mapped_ram_plan (ram, 2, 4096, 100, blocks, &end, &error));
    g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_MALFORMED);
    g_assert_cmpuint (end, ==, 77);
  }
  for (guint64 position = G_MAXINT64 - 100; position <= G_MAXINT64; position += 50) {
    HfRamBlock ram = { "a", 4096 };
    HfMappedBlock block;
    guint64 end;

    g_assert_false (hf_mapped_ram_plan (&ram, 1, 4096, position, &block, &end, NULL));
  }
}

/* Packed, big-endian, as QEMU 10 writes them. */
static void
test_block_fields (void)
{
  static const guint8 expected[] = { 6, 'p', 'c', '.', 'r', 'a',  'm', 0,    0, 0, 0,    0x10, 0, 0, 0, /* id, used_length */
                                     0, 0,   0,   1,   0,   0,    0,   0,    0, 0, 0x10, 0,             /* version, page_size */
                                     0, 0,   0,   0,   0,   0,    0,   0x8b,                            /* bitmap_offset */
                                     0, 0,   0,   0,   0,   0x10, 0,   0 };                             /* pages_offset */
  static const HfRamBlock ram = { "pc.ram", 256 * MIB };
  HfMappedBlock block;
  guint64 end;
  g_autoptr (GByteArray) bytes = g_byte_array_new ();

  g_assert_true (hf_mapped_ram_plan (&ram, 1, 4096, 0x60, &block, &end, NULL));
  hf_mapped_ram_append_block (&block, 4096, bytes);
  g_assert_cmpmem (bytes->data, bytes->len, expected, sizeof expected);
  g_assert_cmpuint (0x60 + bytes->len, ==, block.bitmap_offset);
}

static GByteArray *
configuration (guint page_bits, const char *const *capabilities, const guint8 *with_uuid)
{
  GByteArray *bytes = g_byte_array_new ();

  cs_header (bytes);
  cs_configuration (bytes, "pc-q35-10.0", page_bits, capabilities, with_uuid);
  return bytes;
}

/* Both ways, for every set of subsections. */
static void
test_configuration (void)
{
  static const char *const none[] = { NULL, NULL }, *const other[] = { "new", NULL, NULL };
  static const char *const mapped[] = { "mapped-ram", NULL }, *const both[] = { "new", "mapped-ram", NULL };
  static const struct {
    const char *const *without, *const *with;
  } lists[] = { { NULL, mapped }, { other, both } };

  for (guint bits = 0; bits <= 14; bits += 14) {
    for (guint with_uuid = 0; with_uuid < 2; with_uuid++) {
      for (gsize i = 0; i < G_N_ELEMENTS (lists); i++) {
        g_autoptr (GByteArray) classic = configuration (bits, lists[i].without, with_uuid ? uuid : NULL);
        g_autoptr (GByteArray) target = configuration (bits, lists[i].with, with_uuid ? uuid : NULL);
        g_autoptr (GByteArray) to_mapped = hf_mapped_ram_configuration (classic->data, classic->len, TRUE, NULL);
        g_autoptr (GByteArray) again = hf_mapped_ram_configuration (target->data, target->len, TRUE, NULL);
        g_autoptr (GByteArray) back = hf_mapped_ram_configuration (target->data, target->len, FALSE, NULL);

        g_assert_cmpmem (to_mapped->data, to_mapped->len, target->data, target->len);
        g_assert_cmpmem (again->data, again->len, target->data, target->len);
        g_assert_cmpmem (back->data, back->len, classic->data, classic->len);
      }
    }
  }
  {
    g_autoptr (GByteArray) empty = configuration (0, none, NULL);
    g_autoptr (GByteArray) gone = hf_mapped_ram_configuration (empty->data, empty->len, FALSE, NULL);
    g_autoptr (GByteArray) expected = configuration (0, NULL, NULL);

    g_assert_cmpmem (gone->data, gone->len, expected->data, expected->len);
  }
}

/* Cut anywhere but between two subsections it is refused. */
static void
test_configuration_cut (void)
{
  static const char *const other[] = { "new", NULL };
  g_autoptr (GByteArray) whole = configuration (14, other, uuid);
  guint good = 0;

  for (gsize length = 0; length < whole->len; length++) {
    g_autofree guint8 *copy = g_memdup2 (whole->data, length);
    g_autoptr (GError) error = NULL;
    g_autoptr (GByteArray) ret = hf_mapped_ram_configuration (copy, length, TRUE, &error);

    g_assert_true ((ret != NULL) == (error == NULL));
    good += ret != NULL;
    if (length == 8)
      g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_UNSUPPORTED);
    else if (error)
      g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_MALFORMED);
  }
  g_assert_cmpuint (good, ==, 3);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/stream/mapped-ram/layout/qemu", test_layout_of_qemu);
  g_test_add_func ("/stream/mapped-ram/layout/offset", test_layout_behind_offset);
  g_test_add_func ("/stream/mapped-ram/layout/edges", test_layout_edges);
  g_test_add_func ("/stream/mapped-ram/layout/overflow", test_layout_overflow);
  g_test_add_func ("/stream/mapped-ram/block-fields", test_block_fields);
  g_test_add_func ("/stream/mapped-ram/configuration", test_configuration);
  g_test_add_func ("/stream/mapped-ram/configuration/cut", test_configuration_cut);
  return g_test_run ();
}
