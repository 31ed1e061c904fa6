/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The parser of classic streams that takes pieces of any size: one stream, cut in every way, gives one row of events; what is
 * wrong is refused with its offset, and what only needs more than holdfast does, by name.
 */
#include "config.h"

#include "classic-stream.h"
#include "stream/feed.h"

#include <string.h>

static const CsBlock two[] = { { "pc.ram", 16 * CS_PAGE }, { "/rom@etc/acpi/tables", 2 * CS_PAGE } };
static const guint8 uuid[16] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 };

/* ---- a consumer that writes down what it is told ---- */

typedef struct {
  GString *text;
  GByteArray *rest;
  guint64 end;
  const guint8 *piece; /* bounds of what is being fed: a page between them was not copied */
  gsize piece_length;
  guint uncopied;
  const char *fail_at; /* the event that fails */
} Log;

static gboolean
note (Log *log, const char *event, GError **error)
{
  if (g_strcmp0 (log->fail_at, event) != 0)
    return TRUE;
  g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE, "%s failed", event);
  return FALSE;
}

static gboolean
on_configuration (const guint8 *bytes, gsize length, guint32 page_size, const char *const *capabilities, gpointer data,
                  GError **error)
{
  Log *log = data;
  g_autofree char *names = g_strjoinv (",", (char **)capabilities);
  g_autofree char *sum = g_compute_checksum_for_data (G_CHECKSUM_MD5, bytes, length);

  g_string_append_printf (log->text, "configuration %zu %s %u [%s]\n", length, sum, page_size, names);
  return note (log, "configuration", error);
}

static gboolean
on_blocks (guint32 section_id, const HfRamBlock *blocks, guint n_blocks, gpointer data, GError **error)
{
  Log *log = data;

  g_string_append_printf (log->text, "blocks %u", section_id);
  for (guint i = 0; i < n_blocks; i++)
    g_string_append_printf (log->text, " %s:%" G_GUINT64_FORMAT, blocks[i].id, blocks[i].used_length);
  g_string_append (log->text, "\n");
  return note (log, "blocks", error);
}

static gboolean
on_page (guint block, guint64 offset, const guint8 *page, gpointer data, GError **error)
{
  Log *log = data;

  g_string_append_printf (log->text, "page %u 0x%" G_GINT64_MODIFIER "x %02x %02x\n", block, offset, page[0], page[CS_PAGE - 1]);
  if (log->piece && page >= log->piece && page + CS_PAGE <= log->piece + log->piece_length)
    log->uncopied++;
  return note (log, "page", error);
}

static gboolean
on_zero (guint block, guint64 offset, gpointer data, GError **error)
{
  Log *log = data;

  g_string_append_printf (log->text, "zero %u 0x%" G_GINT64_MODIFIER "x\n", block, offset);
  return note (log, "zero", error);
}

static gboolean
on_xbzrle (guint block, guint64 offset, const guint8 *encoded, gsize length, gpointer data, GError **error)
{
  Log *log = data;

  g_string_append_printf (log->text, "xbzrle %u 0x%" G_GINT64_MODIFIER "x %zu:%02x\n", block, offset, length,
                          length > 0 ? encoded[length - 1] : 0);
  return note (log, "xbzrle", error);
}

static gboolean
on_command (const guint8 *bytes, gsize length, gpointer data, GError **error)
{
  Log *log = data;

  g_string_append_printf (log->text, "command %zu:%02x%02x%02x\n", length, bytes[0], bytes[1], bytes[2]);
  return note (log, "command", error);
}

static gboolean
on_ram_end (guint64 stream_offset, gpointer data, GError **error)
{
  Log *log = data;

  log->end = stream_offset;
  g_string_append (log->text, "end\n");
  return note (log, "ram_end", error);
}

static gboolean
on_rest (const guint8 *bytes, gsize length, gpointer data, GError **error)
{
  Log *log = data;

  g_byte_array_append (log->rest, bytes, length);
  return note (log, "rest", error);
}

static const HfFeedEvents all_events = {
  on_configuration, on_blocks, on_page, on_zero, on_xbzrle, on_command, on_ram_end, on_rest
};

static void
log_init (Log *log)
{
  *log = (Log){ .text = g_string_new (NULL), .rest = g_byte_array_new () };
}

static void
log_clear (Log *log)
{
  g_string_free (log->text, TRUE);
  g_byte_array_unref (log->rest);
}

/* ---- streams ---- */

static void
fill (guint8 *page, guint seed)
{
  for (guint i = 0; i < CS_PAGE; i++)
    page[i] = seed * 31 + i / 7 + 1;
}

/* All that there is in one: two blocks, items with and without id, XBZRLE, a command, END with a page in it, devices. */
static GByteArray *
whole_stream (gboolean footer)
{
  static const char *const capabilities[] = { "some-day", NULL };
  GByteArray *stream = g_byte_array_new ();
  guint8 page[CS_PAGE];

  cs_header (stream);
  cs_configuration (stream, "pc-q35-10.0", 12, capabilities, uuid);
  cs_ram_start (stream, two, 2, footer);
  cs_ram_begin (stream, 0x02);
  for (guint i = 0; i < 4; i++) {
    fill (page, i);
    cs_page (stream, i == 0 ? "pc.ram" : NULL, i * CS_PAGE, page);
  }
  cs_page (stream, NULL, 4 * CS_PAGE, NULL);
  cs_page (stream, "/rom@etc/acpi/tables", CS_PAGE, page);
  cs_ram_end (stream, footer);
  cs_ram_begin (stream, 0x02);
  cs_page (stream, NULL, 0, NULL); /* the block of the section before */
  cs_be64 (stream, 0x200);         /* MULTIFD_FLUSH */
  cs_be64 (stream, 15 * CS_PAGE | CS_XBZRLE);
  cs_text (stream, "pc.ram");
  cs_u8 (stream, 1);
  cs_be16 (stream, 3);
  g_byte_array_append (stream, (const guint8 *)"\x05\x01\x77", 3);
  cs_ram_end (stream, footer);
  cs_switchover (stream);
  cs_ram_begin (stream, 0x03);
  cs_page (stream, NULL, 2 * CS_PAGE, page);
  cs_ram_end (stream, footer);
  cs_devices (stream, footer);
  return stream;
}

static gboolean
feed_cut (HfFeed *feed, Log *log, const GByteArray *stream, gsize piece, GError **error)
{
  for (gsize at = 0; at < stream->len; at += piece) {
    gsize length = MIN (piece, stream->len - at);
    /* Of its own, so that a sanitizer sees who keeps what is valid during the call only. */
    g_autofree guint8 *copy = g_memdup2 (stream->data + at, length);

    log->piece = copy;
    log->piece_length = length;
    if (!hf_feed_bytes (feed, copy, length, error))
      return FALSE;
  }
  return TRUE;
}

/* ---- tests ---- */

static void
test_events (void)
{
  g_autoptr (GByteArray) stream = whole_stream (TRUE);
  g_autoptr (GByteArray) devices = g_byte_array_new ();
  g_autoptr (HfFeed) feed = NULL;
  Log log;
  const char *after_configuration;

  log_init (&log);
  feed = hf_feed_new (&all_events, &log);
  g_assert_cmpint (hf_feed_state (feed), ==, HF_FEED_HEADER);
  g_assert_true (feed_cut (feed, &log, stream, stream->len, NULL));
  g_assert_true (g_str_has_prefix (log.text->str, "configuration "));
  g_assert_nonnull (strstr (log.text->str, " 4096 [some-day]\n"));
  after_configuration = strchr (log.text->str, '\n') + 1;
  g_assert_cmpstr (after_configuration, ==,
                   "blocks 2 pc.ram:65536 /rom@etc/acpi/tables:8192\n"
                   "page 0 0x0 01 4a\npage 0 0x1000 20 69\npage 0 0x2000 3f 88\npage 0 0x3000 5e a7\n"
                   "zero 0 0x4000\npage 1 0x1000 5e a7\nzero 1 0x0\nxbzrle 0 0xf000 3:77\n"
                   "command 5:08000b\npage 0 0x2000 5e a7\nend\n");
  cs_devices (devices, TRUE);
  g_assert_cmpmem (log.rest->data, log.rest->len, devices->data, devices->len);
  g_assert_cmpuint (log.end, ==, stream->len - devices->len);
  g_assert_cmpint (hf_feed_state (feed), ==, HF_FEED_REST);
  g_assert_cmpuint (hf_feed_offset (feed), ==, stream->len);
  g_assert_true (hf_feed_footers (feed));
  g_assert_cmpuint (log.uncopied, ==, 6); /* every page, as the piece is the whole */
  log_clear (&log);
}

/* Where the cuts lie makes no difference. */
static void
test_pieces (void)
{
  static const gsize sizes[] = { 1, 2, 3, 5, 7, 8, 9, 13, 64, 1000, 4095, 4096, 4097, 4104, 5000, 10000 };

  for (guint footer = 0; footer < 2; footer++) {
    g_autoptr (GByteArray) stream = whole_stream (footer);
    Log whole;
    g_autoptr (HfFeed) reference = NULL;

    log_init (&whole);
    reference = hf_feed_new (&all_events, &whole);
    g_assert_true (feed_cut (reference, &whole, stream, stream->len, NULL));
    g_assert_cmpint (hf_feed_footers (reference), ==, footer);
    for (gsize i = 0; i < G_N_ELEMENTS (sizes); i++) {
      Log log;
      g_autoptr (HfFeed) feed = NULL;

      log_init (&log);
      feed = hf_feed_new (&all_events, &log);
      g_assert_true (feed_cut (feed, &log, stream, sizes[i], NULL));
      g_assert_cmpstr (log.text->str, ==, whole.text->str);
      g_assert_cmpmem (log.rest->data, log.rest->len, whole.rest->data, whole.rest->len);
      g_assert_cmpuint (log.end, ==, whole.end);
      g_assert_true (hf_feed_bytes (feed, NULL, 0, NULL));
      log_clear (&log);
    }
    log_clear (&whole);
  }
}

/* Two pieces, the cut at every byte. */
static void
test_every_cut (void)
{
  g_autoptr (GByteArray) stream = whole_stream (TRUE);
  Log whole;
  g_autoptr (HfFeed) reference = NULL;

  log_init (&whole);
  reference = hf_feed_new (&all_events, &whole);
  g_assert_true (feed_cut (reference, &whole, stream, stream->len, NULL));
  for (gsize cut = 1; cut < stream->len; cut++) {
    Log log;
    g_autoptr (HfFeed) feed = NULL;

    log_init (&log);
    feed = hf_feed_new (&all_events, &log);
    g_assert_true (hf_feed_bytes (feed, stream->data, cut, NULL));
    g_assert_cmpint (hf_feed_state (feed) == HF_FEED_REST, ==, cut >= whole.end);
    g_assert_true (hf_feed_bytes (feed, stream->data + cut, stream->len - cut, NULL));
    g_assert_cmpstr (log.text->str, ==, whole.text->str);
    log_clear (&log);
  }
  log_clear (&whole);
}

/* Who asks for nothing but the end gets it, and no page is looked at. */
static void
test_no_events (void)
{
  const HfFeedEvents events = { .xbzrle = on_xbzrle, .ram_end = on_ram_end };
  static const gsize sizes[] = { 1, 100, 4096, 1 << 20 };

  for (gsize i = 0; i < G_N_ELEMENTS (sizes); i++) {
    g_autoptr (GByteArray) stream = whole_stream (TRUE);
    g_autoptr (GByteArray) devices = g_byte_array_new ();
    g_autoptr (HfFeed) feed = NULL;
    Log log;

    cs_devices (devices, TRUE);
    log_init (&log);
    feed = hf_feed_new (&events, &log);
    g_assert_true (feed_cut (feed, &log, stream, sizes[i], NULL));
    g_assert_cmpstr (log.text->str, ==, "xbzrle 0 0xf000 3:77\nend\n");
    g_assert_cmpuint (log.end, ==, stream->len - devices->len);
    log_clear (&log);
  }
}

/* ---- what is refused ---- */

typedef void (*Build) (GByteArray *stream);

static void
start (GByteArray *stream)
{
  cs_header (stream);
  cs_configuration (stream, "pc", 0, NULL, NULL);
}

static void
start_ram (GByteArray *stream)
{
  start (stream);
  cs_ram_start (stream, two, 2, TRUE);
  cs_ram_begin (stream, 0x02);
}

static void
bad_magic (GByteArray *stream)
{
  cs_be32 (stream, 0x5145564e);
  cs_be32 (stream, 3);
}

static void
bad_version (GByteArray *stream)
{
  cs_be32 (stream, 0x5145564d);
  cs_be32 (stream, 2);
}

static void
bad_machine (GByteArray *stream)
{
  cs_header (stream);
  cs_u8 (stream, 0x07);
  cs_be32 (stream, 0xffffffff);
}

static void
bad_subsection (GByteArray *stream)
{
  start (stream);
  cs_u8 (stream, 0x05);
  cs_text (stream, "configuration/new");
  cs_be32 (stream, 1);
}

static void
bad_page_bits (GByteArray *stream)
{
  cs_header (stream);
  cs_configuration (stream, "pc", 64, NULL, NULL);
}

static void
bad_capabilities (GByteArray *stream)
{
  start (stream);
  cs_u8 (stream, 0x05);
  cs_text (stream, "configuration/capabilities");
  cs_be32 (stream, 1);
  cs_be32 (stream, 0x7fffffff);
}

static void
already_mapped (GByteArray *stream)
{
  static const char *const capabilities[] = { "mapped-ram", NULL };

  cs_header (stream);
  cs_configuration (stream, "pc", 0, capabilities, NULL);
  cs_u8 (stream, 0x01);
}

static void
early_device (GByteArray *stream)
{
  start (stream);
  cs_section (stream, 0x04, 5, "0000:00:02.0/virtio-mem-early", 0, 1);
}

static void
other_iterable (GByteArray *stream)
{
  start (stream);
  cs_ram_start (stream, two, 2, TRUE);
  cs_section (stream, 0x01, 3, "dirty-bitmap", 0, 1);
}

static void
other_part (GByteArray *stream)
{
  start (stream);
  cs_ram_start (stream, two, 2, TRUE);
  cs_u8 (stream, 0x02);
  cs_be32 (stream, 77);
}

static void
part_first (GByteArray *stream)
{
  start (stream);
  cs_ram_begin (stream, 0x02);
}

static void
ram_version (GByteArray *stream)
{
  start (stream);
  cs_section (stream, 0x01, 2, "ram", 0, 5);
}

static void
ram_instance (GByteArray *stream)
{
  start (stream);
  cs_section (stream, 0x01, 2, "ram", 1, 4);
}

static void
ram_twice (GByteArray *stream)
{
  start (stream);
  cs_ram_start (stream, two, 2, TRUE);
  cs_section (stream, 0x01, 2, "ram", 0, 4);
}

static void
eof_early (GByteArray *stream)
{
  start (stream);
  cs_ram_start (stream, two, 2, TRUE);
  cs_u8 (stream, 0x00);
}

static void
unknown_type (GByteArray *stream)
{
  start (stream);
  cs_u8 (stream, 0x33);
}

static void
stray_footer (GByteArray *stream)
{
  start (stream);
  cs_footer (stream, 2);
}

static void
missing_footer (GByteArray *stream)
{
  start_ram (stream);
  cs_ram_end (stream, FALSE);
  cs_ram_begin (stream, 0x03);
}

static void
wrong_footer (GByteArray *stream)
{
  start_ram (stream);
  cs_be64 (stream, CS_EOS);
  cs_footer (stream, 3);
}

static void
begin_list (GByteArray *stream, guint64 total)
{
  start (stream);
  cs_section (stream, 0x01, CS_RAM_ID, "ram", 0, 4);
  cs_be64 (stream, total | CS_MEM_SIZE);
}

static void
list_nothing (GByteArray *stream)
{
  begin_list (stream, 0);
}

static void
list_no_mem_size (GByteArray *stream)
{
  start (stream);
  cs_section (stream, 0x01, CS_RAM_ID, "ram", 0, 4);
  cs_be64 (stream, CS_EOS);
}

static void
list_sum (GByteArray *stream)
{
  begin_list (stream, CS_PAGE);
  cs_text (stream, "pc.ram");
  cs_be64 (stream, 2 * CS_PAGE);
}

static void
list_part_of_page (GByteArray *stream)
{
  begin_list (stream, CS_PAGE);
  cs_text (stream, "pc.ram");
  cs_be64 (stream, 100);
}

static void
list_twice (GByteArray *stream)
{
  begin_list (stream, 2 * CS_PAGE);
  for (guint i = 0; i < 2; i++) {
    cs_text (stream, "pc.ram");
    cs_be64 (stream, CS_PAGE);
  }
}

static void
list_nul (GByteArray *stream)
{
  begin_list (stream, CS_PAGE);
  cs_u8 (stream, 3);
  g_byte_array_append (stream, (const guint8 *)"a\0b", 3);
  cs_be64 (stream, CS_PAGE);
}

static void
list_too_many (GByteArray *stream)
{
  begin_list (stream, G_GUINT64_CONSTANT (1) << 40);
  for (guint i = 0; i <= HF_RAM_BLOCKS_MAX; i++) {
    g_autofree char *id = g_strdup_printf ("ram%u", i);

    cs_text (stream, id);
    cs_be64 (stream, CS_PAGE);
  }
}

/* postcopy-ram: the page size of huge pages behind the length, of the first and of the last block. */
static void
list_page_size_first (GByteArray *stream)
{
  begin_list (stream, 4 << 20);
  cs_text (stream, "pc.ram");
  cs_be64 (stream, 2 << 20);
  cs_be64 (stream, 2 << 20);
}

static void
list_page_size_last (GByteArray *stream)
{
  begin_list (stream, 2 << 20);
  cs_text (stream, "pc.ram");
  cs_be64 (stream, 2 << 20);
  cs_be64 (stream, 2 << 20);
}

static void
item_unknown_block (GByteArray *stream)
{
  start_ram (stream);
  cs_page (stream, "pc.bios", 0, NULL);
}

static void
item_no_block_before (GByteArray *stream)
{
  start_ram (stream);
  cs_page (stream, NULL, 0, NULL);
}

static void
item_beyond (GByteArray *stream)
{
  start_ram (stream);
  cs_page (stream, "pc.ram", 16 * CS_PAGE, NULL);
}

static void
item_far_beyond (GByteArray *stream)
{
  start_ram (stream);
  cs_page (stream, "pc.ram", 0xfffffffffffff000, NULL);
}

static void
item_hook (GByteArray *stream)
{
  start_ram (stream);
  cs_be64 (stream, 0x80);
}

static void
item_compressed (GByteArray *stream)
{
  start_ram (stream);
  cs_be64 (stream, 0x100);
}

static void
item_two_kinds (GByteArray *stream)
{
  start_ram (stream);
  cs_be64 (stream, CS_PAGE_ITEM | CS_ZERO);
}

static void
item_no_kind (GByteArray *stream)
{
  start_ram (stream);
  cs_be64 (stream, CS_PAGE);
}

static void
item_mem_size (GByteArray *stream)
{
  start_ram (stream);
  cs_be64 (stream, CS_PAGE | CS_MEM_SIZE);
}

static void
item_zero_fill (GByteArray *stream)
{
  start_ram (stream);
  cs_be64 (stream, CS_ZERO);
  cs_text (stream, "pc.ram");
  cs_u8 (stream, 0xff);
}

static void
item_xbzrle_long (GByteArray *stream)
{
  start_ram (stream);
  cs_be64 (stream, CS_XBZRLE);
  cs_text (stream, "pc.ram");
  cs_u8 (stream, 1);
  cs_be16 (stream, CS_PAGE + 1);
}

static void
item_xbzrle_empty (GByteArray *stream)
{
  start_ram (stream);
  cs_be64 (stream, CS_XBZRLE);
  cs_text (stream, "pc.ram");
  cs_u8 (stream, 1);
  cs_be16 (stream, 0);
}

static const struct {
  const char *name;
  Build build;
  HfStreamError code;
  const char *text;
} refusals[] = {
  { "magic", bad_magic, HF_STREAM_ERROR_MALFORMED, "at offset 0: " },
  { "version", bad_version, HF_STREAM_ERROR_UNSUPPORTED, "version 2" },
  { "machine", bad_machine, HF_STREAM_ERROR_MALFORMED, "4294967295 bytes" },
  { "subsection", bad_subsection, HF_STREAM_ERROR_UNSUPPORTED, "'configuration/new'" },
  { "page-bits", bad_page_bits, HF_STREAM_ERROR_MALFORMED, "power of 64" },
  { "capabilities", bad_capabilities, HF_STREAM_ERROR_MALFORMED, "2147483647 capabilities" },
  { "already-mapped", already_mapped, HF_STREAM_ERROR_UNSUPPORTED, "mapped-ram" },
  { "early-device", early_device, HF_STREAM_ERROR_UNSUPPORTED, "'0000:00:02.0/virtio-mem-early'" },
  { "other-iterable", other_iterable, HF_STREAM_ERROR_UNSUPPORTED, "'dirty-bitmap'" },
  { "other-part", other_part, HF_STREAM_ERROR_UNSUPPORTED, "section 77" },
  { "part-first", part_first, HF_STREAM_ERROR_MALFORMED, "before the START" },
  { "ram-version", ram_version, HF_STREAM_ERROR_UNSUPPORTED, "version 5" },
  { "ram-instance", ram_instance, HF_STREAM_ERROR_UNSUPPORTED, "instance 1" },
  { "ram-twice", ram_twice, HF_STREAM_ERROR_MALFORMED, "second START" },
  { "eof-early", eof_early, HF_STREAM_ERROR_MALFORMED, "ends before the END" },
  { "unknown-type", unknown_type, HF_STREAM_ERROR_MALFORMED, "0x33" },
  { "stray-footer", stray_footer, HF_STREAM_ERROR_MALFORMED, "no section ended" },
  { "missing-footer", missing_footer, HF_STREAM_ERROR_MALFORMED, "footer of a ram section is missing" },
  { "wrong-footer", wrong_footer, HF_STREAM_ERROR_MALFORMED, "names section 3" },
  { "list-nothing", list_nothing, HF_STREAM_ERROR_MALFORMED, "0 bytes" },
  { "list-no-mem-size", list_no_mem_size, HF_STREAM_ERROR_MALFORMED, "does not begin with the block list" },
  { "list-sum", list_sum, HF_STREAM_ERROR_MALFORMED, "8192 bytes, the list only 4096 more" },
  { "list-part-of-page", list_part_of_page, HF_STREAM_ERROR_MALFORMED, "not whole pages" },
  { "list-twice", list_twice, HF_STREAM_ERROR_MALFORMED, "'pc.ram' is in the list twice" },
  { "list-nul", list_nul, HF_STREAM_ERROR_MALFORMED, "NUL" },
  { "list-too-many", list_too_many, HF_STREAM_ERROR_MALFORMED, "more than 4096" },
  { "list-page-size-first", list_page_size_first, HF_STREAM_ERROR_UNSUPPORTED, "postcopy-ram" },
  { "list-page-size-last", list_page_size_last, HF_STREAM_ERROR_MALFORMED, "postcopy-ram" },
  { "item-unknown-block", item_unknown_block, HF_STREAM_ERROR_MALFORMED, "'pc.bios'" },
  { "item-no-block-before", item_no_block_before, HF_STREAM_ERROR_MALFORMED, "none before" },
  { "item-beyond", item_beyond, HF_STREAM_ERROR_MALFORMED, "0x10000 of RAM block 'pc.ram'" },
  { "item-far-beyond", item_far_beyond, HF_STREAM_ERROR_MALFORMED, "0xfffffffffffff000 of RAM block 'pc.ram'" },
  { "item-hook", item_hook, HF_STREAM_ERROR_UNSUPPORTED, "HOOK" },
  { "item-compressed", item_compressed, HF_STREAM_ERROR_UNSUPPORTED, "compress" },
  { "item-two-kinds", item_two_kinds, HF_STREAM_ERROR_MALFORMED, "unknown kind" },
  { "item-no-kind", item_no_kind, HF_STREAM_ERROR_MALFORMED, "without a kind" },
  { "item-mem-size", item_mem_size, HF_STREAM_ERROR_MALFORMED, "unknown kind" },
  { "item-zero-fill", item_zero_fill, HF_STREAM_ERROR_MALFORMED, "filled with 0xff" },
  { "item-xbzrle-empty", item_xbzrle_empty, HF_STREAM_ERROR_MALFORMED, "0 bytes" },
  { "item-xbzrle-long", item_xbzrle_long, HF_STREAM_ERROR_MALFORMED, "4097 bytes" },
};

static void
test_refusal (gconstpointer data)
{
  gsize index = GPOINTER_TO_SIZE (data);
  static const gsize sizes[] = { 1, 1 << 20 };

  for (gsize i = 0; i < G_N_ELEMENTS (sizes); i++) {
    g_autoptr (GByteArray) stream = g_byte_array_new ();
    g_autoptr (GError) error = NULL;
    g_autoptr (GError) again = NULL;
    g_autoptr (HfFeed) feed = NULL;
    Log log;

    refusals[index].build (stream);
    log_init (&log);
    feed = hf_feed_new (&all_events, &log);
    g_assert_false (feed_cut (feed, &log, stream, sizes[i], &error));
    g_assert_error (error, HF_STREAM_ERROR, (int)refusals[index].code);
    g_assert_nonnull (strstr (error->message, refusals[index].text));
    g_assert_true (g_str_has_prefix (error->message, "at offset "));
    g_assert_cmpint (hf_feed_state (feed), ==, HF_FEED_FAILED);
    /* The first one stays. */
    g_assert_false (hf_feed_bytes (feed, (const guint8 *)"x", 1, &again));
    g_assert_cmpstr (again->message, ==, error->message);
    g_assert_cmpint (again->code, ==, error->code);
    log_clear (&log);
  }
}

static void
test_xbzrle_unwanted (void)
{
  g_autoptr (GByteArray) stream = whole_stream (TRUE);
  const HfFeedEvents none = { 0 };
  g_autoptr (HfFeed) feed = hf_feed_new (&none, NULL);
  g_autoptr (GError) error = NULL;

  g_assert_false (hf_feed_bytes (feed, stream->data, stream->len, &error));
  g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_UNSUPPORTED);
  g_assert_nonnull (strstr (error->message, "xbzrle"));
}

/* x-ignore-shared: an address behind each length. */
static void
test_ignore_shared (void)
{
  static const char *const capabilities[] = { "x-ignore-shared", NULL };
  g_autoptr (GByteArray) stream = g_byte_array_new ();
  g_autoptr (HfFeed) feed = NULL;
  Log log;

  cs_header (stream);
  cs_configuration (stream, "pc", 0, capabilities, NULL);
  cs_section (stream, 0x01, CS_RAM_ID, "ram", 0, 4);
  cs_be64 (stream, 3 * CS_PAGE | CS_MEM_SIZE);
  for (guint i = 0; i < 2; i++) {
    cs_text (stream, i == 0 ? "pc.ram" : "vga.vram");
    cs_be64 (stream, (i + 1) * CS_PAGE);
    cs_be64 (stream, 0xfd000000);
  }
  cs_ram_end (stream, TRUE);
  log_init (&log);
  feed = hf_feed_new (&all_events, &log);
  g_assert_true (feed_cut (feed, &log, stream, 5, NULL));
  g_assert_nonnull (strstr (log.text->str, "blocks 2 pc.ram:4096 vga.vram:8192\n"));
  log_clear (&log);
}

/* Whatever event fails ends the parsing with that error. */
static void
test_event_fails (void)
{
  static const char *const events[] = { "configuration", "blocks", "page", "zero", "xbzrle", "command", "ram_end", "rest" };

  for (gsize i = 0; i < G_N_ELEMENTS (events); i++) {
    g_autoptr (GByteArray) stream = whole_stream (TRUE);
    g_autofree char *text = g_strdup_printf ("%s failed", events[i]);
    g_autoptr (GError) error = NULL;
    g_autoptr (HfFeed) feed = NULL;
    Log log;

    log_init (&log);
    log.fail_at = events[i];
    feed = hf_feed_new (&all_events, &log);
    g_assert_false (feed_cut (feed, &log, stream, 1000, &error));
    g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE);
    g_assert_cmpstr (error->message, ==, text);
    log_clear (&log);
  }
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/stream/feed/events", test_events);
  g_test_add_func ("/stream/feed/pieces", test_pieces);
  g_test_add_func ("/stream/feed/every-cut", test_every_cut);
  g_test_add_func ("/stream/feed/no-events", test_no_events);
  g_test_add_func ("/stream/feed/xbzrle-unwanted", test_xbzrle_unwanted);
  g_test_add_func ("/stream/feed/ignore-shared", test_ignore_shared);
  g_test_add_func ("/stream/feed/event-fails", test_event_fails);
  for (gsize i = 0; i < G_N_ELEMENTS (refusals); i++) {
    g_autofree char *path = g_strdup_printf ("/stream/feed/refused/%s", refusals[i].name);

    g_test_add_data_func (path, GSIZE_TO_POINTER (i), test_refusal);
  }
  return g_test_run ();
}
