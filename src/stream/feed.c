/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A classic migration stream as it arrives: header, CONFIGURATION, the RAM sections item by item, and the rest as it is.
 *
 * Owns: the bytes of one unit that lies across two pieces, the block list, and what was read of the header. Thread: any, one at a
 * time; pure.
 *
 * Theory of operation: the stream is a row of units whose length is known before the first byte of each: a word, an id, a page.
 * A step says what the next unit is, need how long it is. A unit that lies whole in the caller's piece is taken there, without a
 * copy; one that lies across pieces is put together in carry. A page that nobody asked for is not even put together. The steps
 * are a table, so is what a section's type byte leads to.
 *
 * Source: QEMU's docs/devel/migration and what savevm.c and ram.c write. Sections have no lengths: a section of another iterable
 * (dirty-bitmap, vfio, htab) or of an early device (virtio-mem) before RAM END cannot be stepped over, and is refused by name.
 */
#include "config.h"

#include "stream/feed.h"

#include "base/bytes.h"

#include <string.h>

#define MAGIC 0x5145564du /* "QEVM" */
#define STREAM_VERSION 3u
#define RAM_VERSION 4u

/* What may stand before the first section; QEMU's own header is below 300 bytes. */
#define HEAD_MAX 65536u
#define CAPABILITY_MAPPED "mapped-ram"
#define CAPABILITY_SHARED "x-ignore-shared"

/* The page bits that QEMU knows of all targets; the flags of an item need the low ten (TARGET_PAGE_BITS_MIN). */
#define PAGE_BITS_MIN 10u
#define PAGE_BITS_MAX 16u
#define PAGE_SIZE_DEFAULT 4096u

/* A unit is at most a page, or what a u16 can say. */
#define UNIT_MAX 65536u

enum {
  TYPE_EOF = 0x00,
  TYPE_START = 0x01,
  TYPE_PART = 0x02,
  TYPE_END = 0x03,
  TYPE_FULL = 0x04,
  TYPE_SUBSECTION = 0x05,
  TYPE_CONFIGURATION = 0x07,
  TYPE_COMMAND = 0x08,
  TYPE_FOOTER = 0x7e
};

enum {
  ITEM_ZERO = 0x02,
  ITEM_MEM_SIZE = 0x04,
  ITEM_PAGE = 0x08,
  ITEM_EOS = 0x10,
  ITEM_CONTINUE = 0x20,
  ITEM_XBZRLE = 0x40,
  ITEM_HOOK = 0x80,
  ITEM_COMPRESSED = 0x100,
  ITEM_MULTIFD_FLUSH = 0x200
};

#define XBZRLE_ENCODED 0x01

typedef enum {
  STEP_HEADER,
  STEP_TYPE,
  STEP_CONFIGURATION,
  STEP_MACHINE,
  STEP_SUBSECTION,
  STEP_SUBSECTION_NAME,
  STEP_PAGE_BITS,
  STEP_UUID,
  STEP_CAPABILITIES,
  STEP_CAPABILITY,
  STEP_CAPABILITY_NAME,
  STEP_SECTION,
  STEP_SECTION_NAME,
  STEP_SECTION_ID,
  STEP_FOOTER,
  STEP_COMMAND,
  STEP_COMMAND_DATA,
  STEP_MEM_SIZE,
  STEP_BLOCK,
  STEP_BLOCK_NAME,
  STEP_ITEM,
  STEP_ITEM_BLOCK,
  STEP_ITEM_BLOCK_NAME,
  STEP_PAGE,
  STEP_ZERO,
  STEP_XBZRLE,
  STEP_XBZRLE_DATA,
  STEP_REST,
  N_STEPS
} Step;

typedef enum { FOOTERS_UNKNOWN, FOOTERS_NO, FOOTERS_YES } Footers;

struct _HfFeed {
  HfFeedEvents events;
  gpointer data;

  Step step;
  gsize need;    /* length of the unit that comes next */
  gsize filled;  /* bytes of it in carry */
  guint8 *carry; /* UNIT_MAX */
  gsize skip;    /* bytes of a page that nobody wants */
  guint64 offset, unit;
  GError *failure;

  GByteArray *head; /* until configured */
  gboolean configured;
  GPtrArray *capabilities; /* char *, NULL-terminated from configured on */
  guint capabilities_left;
  gboolean ignore_shared;
  guint32 page_size;

  guint8 type; /* of the section or command that is being read */
  Footers footers;
  gboolean footer_due, ended;
  gboolean ram_started;
  guint32 section_id;
  guint16 command_length;
  guint8 command[4];

  guint64 ram_left; /* of the total of MEM_SIZE */
  GArray *blocks;
  GHashTable *by_id; /* of char * in blocks to GUINT_TO_POINTER (index), filled when the list is whole */

  Step payload; /* of the item */
  gsize payload_need;
  guint64 page_offset;
  guint block; /* of the last item; n_blocks: none yet */
};

/* ---- errors and steps ---- */

G_GNUC_PRINTF (4, 5)
static gboolean
refuse (HfFeed *feed, HfStreamError code, GError **error, const char *format, ...)
{
  g_autofree char *text = NULL;
  va_list list;

  va_start (list, format);
  text = g_strdup_vprintf (format, list);
  va_end (list);
  g_set_error (error, HF_STREAM_ERROR, code, "at offset %" G_GUINT64_FORMAT ": %s", feed->unit, text);
  return FALSE;
}

#define malformed(feed, error, ...) refuse (feed, HF_STREAM_ERROR_MALFORMED, error, __VA_ARGS__)
#define unsupported(feed, error, ...) refuse (feed, HF_STREAM_ERROR_UNSUPPORTED, error, __VA_ARGS__)

static gboolean
go (HfFeed *feed, Step step, gsize need)
{
  feed->step = step;
  feed->need = need;
  return TRUE;
}

/* An id or a name of a stream as text for a message. */
static char *
printable (const guint8 *bytes, gsize length)
{
  g_autofree char *text = g_strndup ((const char *)bytes, length);

  return g_strescape (text, NULL);
}

/* ---- header and CONFIGURATION ---- */

static gboolean
take_header (HfFeed *feed, const guint8 *bytes, GError **error)
{
  if (hf_get_be32 (bytes) != MAGIC)
    return malformed (feed, error, "this is not a QEMU migration stream: it does not begin with QEVM");
  if (hf_get_be32 (bytes + 4) != STREAM_VERSION)
    return unsupported (feed, error, "stream version %u, only %u is known", hf_get_be32 (bytes + 4), STREAM_VERSION);
  return go (feed, STEP_TYPE, 1);
}

static gboolean
take_configuration (HfFeed *feed, const guint8 *bytes, GError **error)
{
  guint32 length = hf_get_be32 (bytes);

  if (length == 0 || length > HF_STREAM_MACHINE_MAX)
    return malformed (feed, error, "a machine name of %u bytes", length);
  return go (feed, STEP_MACHINE, length);
}

static gboolean
take_machine (HfFeed *feed, G_GNUC_UNUSED const guint8 *bytes, G_GNUC_UNUSED GError **error)
{
  return go (feed, STEP_TYPE, 1);
}

static gboolean
take_subsection (HfFeed *feed, const guint8 *bytes, G_GNUC_UNUSED GError **error)
{
  return go (feed, STEP_SUBSECTION_NAME, bytes[0] + 4u);
}

static gboolean
take_subsection_name (HfFeed *feed, const guint8 *bytes, GError **error)
{
  static const struct {
    const char *name;
    Step step;
    gsize need;
  } subsections[] = {
    { "configuration/target-page-bits", STEP_PAGE_BITS, 4 },
    { "configuration/capabilities", STEP_CAPABILITIES, 4 },
    { "configuration/uuid", STEP_UUID, 16 },
  };
  gsize length = feed->need - 4;
  g_autofree char *name = NULL;

  for (gsize i = 0; i < G_N_ELEMENTS (subsections); i++) {
    if (strlen (subsections[i].name) != length || memcmp (subsections[i].name, bytes, length) != 0)
      continue;
    if (hf_get_be32 (bytes + length) != 1)
      return unsupported (feed, error, "%s of version %u", subsections[i].name, hf_get_be32 (bytes + length));
    return go (feed, subsections[i].step, subsections[i].need);
  }
  name = printable (bytes, length);
  return unsupported (feed, error, "the subsection '%s' of CONFIGURATION", name);
}

static gboolean
take_page_bits (HfFeed *feed, const guint8 *bytes, GError **error)
{
  guint32 bits = hf_get_be32 (bytes);

  if (bits < PAGE_BITS_MIN || bits > PAGE_BITS_MAX)
    return malformed (feed, error, "pages of 2 to the power of %u bytes", bits);
  feed->page_size = 1u << bits;
  return go (feed, STEP_TYPE, 1);
}

static gboolean
take_uuid (HfFeed *feed, G_GNUC_UNUSED const guint8 *bytes, G_GNUC_UNUSED GError **error)
{
  return go (feed, STEP_TYPE, 1);
}

static gboolean
take_capabilities (HfFeed *feed, const guint8 *bytes, GError **error)
{
  guint32 count = hf_get_be32 (bytes);

  if (count > HF_STREAM_CAPABILITIES_MAX - feed->capabilities->len)
    return malformed (feed, error, "a list of %u capabilities", count);
  feed->capabilities_left = count;
  return count > 0 ? go (feed, STEP_CAPABILITY, 1) : go (feed, STEP_TYPE, 1);
}

static gboolean
take_capability (HfFeed *feed, const guint8 *bytes, GError **error)
{
  if (bytes[0] == 0)
    return malformed (feed, error, "a capability without a name");
  return go (feed, STEP_CAPABILITY_NAME, bytes[0]);
}

static gboolean
take_capability_name (HfFeed *feed, const guint8 *bytes, G_GNUC_UNUSED GError **error)
{
  char *name = g_strndup ((const char *)bytes, feed->need);

  g_ptr_array_add (feed->capabilities, name);
  feed->ignore_shared |= strcmp (name, CAPABILITY_SHARED) == 0;
  return --feed->capabilities_left > 0 ? go (feed, STEP_CAPABILITY, 1) : go (feed, STEP_TYPE, 1);
}

/* The type byte of the first section was read: what lies before it is the header. */
static gboolean
end_head (HfFeed *feed, GError **error)
{
  const char *const *capabilities;
  gboolean ok;

  feed->configured = TRUE;
  g_ptr_array_add (feed->capabilities, NULL);
  capabilities = (const char *const *)feed->capabilities->pdata;
  ok = !feed->events.configuration
       || feed->events.configuration (feed->head->data, feed->head->len - 1, feed->page_size, capabilities, feed->data, error);
  g_byte_array_set_size (feed->head, 0);
  if (ok && g_strv_contains (capabilities, CAPABILITY_MAPPED))
    return unsupported (feed, error, "this is a mapped-ram file already, not a classic stream");
  return ok;
}

/* ---- sections ---- */

static gboolean
begin_configuration (HfFeed *feed, GError **error)
{
  if (feed->head->len != 9)
    return malformed (feed, error, "CONFIGURATION is not the first section");
  return go (feed, STEP_CONFIGURATION, 4);
}

static gboolean
begin_subsection (HfFeed *feed, GError **error)
{
  if (feed->configured || feed->head->len == 9)
    return malformed (feed, error, "a subsection outside of CONFIGURATION");
  return go (feed, STEP_SUBSECTION, 1);
}

static gboolean
begin_named (HfFeed *feed, G_GNUC_UNUSED GError **error)
{
  return go (feed, STEP_SECTION, 5);
}

static gboolean
begin_part (HfFeed *feed, GError **error)
{
  if (!feed->ram_started)
    return malformed (feed, error, "a PART or END section before the START section of ram");
  return go (feed, STEP_SECTION_ID, 4);
}

static gboolean
begin_command (HfFeed *feed, G_GNUC_UNUSED GError **error)
{
  return go (feed, STEP_COMMAND, 4);
}

static gboolean
begin_footer (HfFeed *feed, GError **error)
{
  return malformed (feed, error, "a section footer where no section ended");
}

static gboolean
begin_end (HfFeed *feed, GError **error)
{
  return malformed (feed, error, "the stream ends before the END section of ram");
}

static const struct {
  guint8 type;
  gboolean (*begin) (HfFeed *feed, GError **error);
} section_types[] = {
  { TYPE_EOF, begin_end },
  { TYPE_START, begin_named },
  { TYPE_PART, begin_part },
  { TYPE_END, begin_part },
  { TYPE_FULL, begin_named },
  { TYPE_SUBSECTION, begin_subsection },
  { TYPE_CONFIGURATION, begin_configuration },
  { TYPE_COMMAND, begin_command },
  { TYPE_FOOTER, begin_footer },
};

/* Whether sections have footers (the machine's send-section-footer) shows behind the first one: 0x7e is no section's type. */
static gboolean
take_type_after_section (HfFeed *feed, GError **error)
{
  feed->footer_due = FALSE;
  if (feed->type == TYPE_FOOTER) {
    feed->footers = FOOTERS_YES;
    return go (feed, STEP_FOOTER, 4);
  }
  if (feed->footers == FOOTERS_YES)
    return malformed (feed, error, "the footer of a ram section is missing");
  feed->footers = FOOTERS_NO;
  return TRUE;
}

static gboolean
take_type (HfFeed *feed, const guint8 *bytes, GError **error)
{
  feed->type = bytes[0];
  if (feed->footer_due) {
    if (!take_type_after_section (feed, error))
      return FALSE;
    if (feed->step == STEP_FOOTER)
      return TRUE;
  }
  if (!feed->configured && feed->type != TYPE_CONFIGURATION && feed->type != TYPE_SUBSECTION && !end_head (feed, error))
    return FALSE;
  for (gsize i = 0; i < G_N_ELEMENTS (section_types); i++) {
    if (section_types[i].type == feed->type)
      return section_types[i].begin (feed, error);
  }
  return malformed (feed, error, "a section of the unknown type 0x%02x", feed->type);
}

static gboolean
take_section (HfFeed *feed, const guint8 *bytes, GError **error)
{
  feed->section_id = feed->ram_started ? feed->section_id : hf_get_be32 (bytes);
  if (bytes[4] == 0)
    return malformed (feed, error, "a section without an id");
  return go (feed, STEP_SECTION_NAME, bytes[4] + 8u);
}

static gboolean
take_section_name (HfFeed *feed, const guint8 *bytes, GError **error)
{
  gsize length = feed->need - 8;
  gboolean is_ram = length == 3 && memcmp (bytes, "ram", 3) == 0;
  guint32 version = hf_get_be32 (bytes + length + 4);
  g_autofree char *id = printable (bytes, length);

  if (!is_ram)
    return unsupported (feed, error, "the section of '%s' lies %s, and what is in it has no length", id,
                        feed->ram_started ? "between those of ram" : "before the START section of ram");
  if (feed->ram_started || feed->type == TYPE_FULL)
    return malformed (feed, error, "%s of ram", feed->ram_started ? "a second START section" : "a FULL section");
  if (hf_get_be32 (bytes + length) != 0)
    return unsupported (feed, error, "ram of instance %u", hf_get_be32 (bytes + length));
  if (version != RAM_VERSION)
    return unsupported (feed, error, "ram of version %u, only %u is known", version, RAM_VERSION);
  feed->ram_started = TRUE;
  return go (feed, STEP_MEM_SIZE, 8);
}

static gboolean
take_section_id (HfFeed *feed, const guint8 *bytes, GError **error)
{
  if (hf_get_be32 (bytes) != feed->section_id)
    return unsupported (feed, error, "section %u lies between those of ram, and what is in it has no length",
                        hf_get_be32 (bytes));
  feed->ended = feed->type == TYPE_END;
  return go (feed, STEP_ITEM, 8);
}

static gboolean
end_ram (HfFeed *feed, GError **error)
{
  go (feed, STEP_REST, 0);
  return !feed->events.ram_end || feed->events.ram_end (feed->offset, feed->data, error);
}

static gboolean
take_footer (HfFeed *feed, const guint8 *bytes, GError **error)
{
  if (hf_get_be32 (bytes) != feed->section_id)
    return malformed (feed, error, "the footer of section %u names section %u", feed->section_id, hf_get_be32 (bytes));
  return feed->ended ? end_ram (feed, error) : go (feed, STEP_TYPE, 1);
}

/* EOS ends the body of a section. */
static gboolean
end_section (HfFeed *feed, GError **error)
{
  if (feed->ended && feed->footers == FOOTERS_NO)
    return end_ram (feed, error);
  feed->footer_due = TRUE;
  return go (feed, STEP_TYPE, 1);
}

static gboolean
take_command (HfFeed *feed, const guint8 *bytes, G_GNUC_UNUSED GError **error)
{
  memcpy (feed->command, bytes, sizeof feed->command);
  return go (feed, STEP_COMMAND_DATA, hf_get_be16 (bytes + 2));
}

static gboolean
take_command_data (HfFeed *feed, const guint8 *bytes, GError **error)
{
  g_autoptr (GByteArray) whole = g_byte_array_new ();
  guint8 type = TYPE_COMMAND;

  go (feed, STEP_TYPE, 1);
  if (!feed->events.command)
    return TRUE;
  g_byte_array_append (whole, &type, 1);
  g_byte_array_append (whole, feed->command, sizeof feed->command);
  g_byte_array_append (whole, bytes, hf_get_be16 (feed->command + 2));
  return feed->events.command (whole->data, whole->len, feed->data, error);
}

/* ---- the block list ---- */

static gboolean
take_mem_size (HfFeed *feed, const guint8 *bytes, GError **error)
{
  guint64 word = hf_get_be64 (bytes), mask = feed->page_size - 1;

  if ((word & mask) != ITEM_MEM_SIZE)
    return malformed (feed, error, "the START section of ram does not begin with the block list");
  feed->ram_left = word & ~mask;
  if (feed->ram_left == 0)
    return malformed (feed, error, "a block list of 0 bytes");
  if (feed->ram_left > HF_RAM_BYTES_MAX)
    return malformed (feed, error, "a block list of %" G_GUINT64_FORMAT " bytes", feed->ram_left);
  return go (feed, STEP_BLOCK, 1);
}

static gboolean
take_block (HfFeed *feed, const guint8 *bytes, GError **error)
{
  /* With postcopy-ram QEMU puts the page size behind the length of blocks of huge pages; its first byte is 0. The stream does not
     say which blocks those are. */
  if (bytes[0] == 0)
    return unsupported (feed, error, "a RAM block without an id; was postcopy-ram on while it was saved?");
  if (feed->blocks->len >= HF_RAM_BLOCKS_MAX)
    return malformed (feed, error, "more than %u RAM blocks", HF_RAM_BLOCKS_MAX);
  return go (feed, STEP_BLOCK_NAME, bytes[0] + (feed->ignore_shared ? 16u : 8u));
}

static gboolean
end_blocks (HfFeed *feed, GError **error)
{
  const HfRamBlock *blocks = (const HfRamBlock *)feed->blocks->data;

  for (guint i = 0; i < feed->blocks->len; i++) {
    if (!g_hash_table_insert (feed->by_id, (gpointer)blocks[i].id, GUINT_TO_POINTER (i))) {
      g_autofree char *id = g_strescape (blocks[i].id, NULL);

      return malformed (feed, error, "RAM block '%s' is in the list twice", id);
    }
  }
  feed->block = feed->blocks->len;
  go (feed, STEP_ITEM, 8);
  return !feed->events.blocks || feed->events.blocks (feed->section_id, blocks, feed->blocks->len, feed->data, error);
}

static gboolean
take_block_name (HfFeed *feed, const guint8 *bytes, GError **error)
{
  gsize length = feed->need - (feed->ignore_shared ? 16 : 8);
  HfRamBlock block = { .used_length = hf_get_be64 (bytes + length) };
  g_autofree char *id = printable (bytes, length);

  if (memchr (bytes, 0, length))
    return malformed (feed, error, "a NUL in the id of RAM block %u", feed->blocks->len);
  if (block.used_length & (feed->page_size - 1))
    return malformed (feed, error, "RAM block '%s' has %" G_GUINT64_FORMAT " bytes, not whole pages", id, block.used_length);
  if (block.used_length > feed->ram_left)
    return malformed (feed, error, "RAM block '%s' has %" G_GUINT64_FORMAT " bytes, the list only %" G_GUINT64_FORMAT " more", id,
                      block.used_length, feed->ram_left);
  memcpy (block.id, bytes, length);
  g_array_append_val (feed->blocks, block);
  feed->ram_left -= block.used_length;
  return feed->ram_left > 0 ? go (feed, STEP_BLOCK, 1) : end_blocks (feed, error);
}

/* ---- items ---- */

/* The offset of the item within its block, as soon as the block is known. */
static gboolean
begin_payload (HfFeed *feed, GError **error)
{
  const HfRamBlock *block = &g_array_index (feed->blocks, HfRamBlock, feed->block);

  if (feed->page_offset >= block->used_length) {
    g_autofree char *id = g_strescape (block->id, NULL);

    return malformed (feed, error,
                      "a page at 0x%" G_GINT64_MODIFIER "x of RAM block '%s', which has 0x%" G_GINT64_MODIFIER "x bytes",
                      feed->page_offset, id, block->used_length);
  }
  if (feed->payload != STEP_PAGE || feed->events.page)
    return go (feed, feed->payload, feed->payload_need);
  feed->skip = feed->page_size;
  return go (feed, STEP_ITEM, 8);
}

static gboolean
take_block_item (HfFeed *feed, Step payload, gsize need, gboolean same_block, GError **error)
{
  feed->payload = payload;
  feed->payload_need = need;
  if (!same_block)
    return go (feed, STEP_ITEM_BLOCK, 1);
  if (feed->block >= feed->blocks->len)
    return malformed (feed, error, "a page of the same RAM block as the one before, but there is none before");
  return begin_payload (feed, error);
}

static gboolean
refuse_item (HfFeed *feed, guint64 word, guint flags, GError **error)
{
  if (flags == ITEM_HOOK)
    return unsupported (feed, error, "an item of RDMA (HOOK)");
  if ((flags & ~(guint)ITEM_CONTINUE) == ITEM_COMPRESSED)
    return unsupported (feed, error, "a compressed page (the obsolete capability compress)");
  if (flags == 0)
    return malformed (feed, error,
                      "the RAM item 0x%" G_GINT64_MODIFIER "x without a kind; was postcopy-ram on while it was saved?", word);
  return malformed (feed, error, "the RAM item 0x%" G_GINT64_MODIFIER "x of an unknown kind", word);
}

static gboolean
take_item (HfFeed *feed, const guint8 *bytes, GError **error)
{
  guint64 word = hf_get_be64 (bytes);
  guint flags = word & (feed->page_size - 1);
  gboolean same = (flags & ITEM_CONTINUE) != 0;

  feed->page_offset = word - flags;
  switch (flags & ~(guint)ITEM_CONTINUE) {
  case ITEM_PAGE:
    return take_block_item (feed, STEP_PAGE, feed->page_size, same, error);
  case ITEM_ZERO:
    return take_block_item (feed, STEP_ZERO, 1, same, error);
  case ITEM_XBZRLE:
    return take_block_item (feed, STEP_XBZRLE, 3, same, error);
  case ITEM_EOS:
    return same ? refuse_item (feed, word, flags, error) : end_section (feed, error);
  case ITEM_MULTIFD_FLUSH:
    return same ? refuse_item (feed, word, flags, error) : go (feed, STEP_ITEM, 8);
  default:
    return refuse_item (feed, word, flags, error);
  }
}

static gboolean
take_item_block (HfFeed *feed, const guint8 *bytes, GError **error)
{
  if (bytes[0] == 0)
    return malformed (feed, error, "a page of a RAM block without an id");
  return go (feed, STEP_ITEM_BLOCK_NAME, bytes[0]);
}

static gboolean
take_item_block_name (HfFeed *feed, const guint8 *bytes, GError **error)
{
  char id[256];
  gpointer index = NULL;

  memcpy (id, bytes, feed->need);
  id[feed->need] = '\0';
  if (memchr (bytes, 0, feed->need) || !g_hash_table_lookup_extended (feed->by_id, id, NULL, &index)) {
    g_autofree char *text = printable (bytes, feed->need);

    return malformed (feed, error, "a page of RAM block '%s', which is not in the list", text);
  }
  feed->block = GPOINTER_TO_UINT (index);
  return begin_payload (feed, error);
}

static gboolean
take_page (HfFeed *feed, const guint8 *bytes, GError **error)
{
  go (feed, STEP_ITEM, 8);
  return feed->events.page (feed->block, feed->page_offset, bytes, feed->data, error);
}

static gboolean
take_zero (HfFeed *feed, const guint8 *bytes, GError **error)
{
  if (bytes[0] != 0)
    return malformed (feed, error, "a zero page that is filled with 0x%02x", bytes[0]);
  go (feed, STEP_ITEM, 8);
  return !feed->events.zero || feed->events.zero (feed->block, feed->page_offset, feed->data, error);
}

static gboolean
take_xbzrle (HfFeed *feed, const guint8 *bytes, GError **error)
{
  guint16 length = hf_get_be16 (bytes + 1);

  /* A page that did not change is not sent. */
  if (bytes[0] != XBZRLE_ENCODED || length == 0 || length > feed->page_size)
    return malformed (feed, error, "an XBZRLE page with the flags 0x%02x and %u bytes", bytes[0], length);
  if (!feed->events.xbzrle)
    return unsupported (feed, error, "an XBZRLE page (the capability xbzrle)");
  return go (feed, STEP_XBZRLE_DATA, length);
}

static gboolean
take_xbzrle_data (HfFeed *feed, const guint8 *bytes, GError **error)
{
  gsize length = feed->need;

  go (feed, STEP_ITEM, 8);
  return feed->events.xbzrle (feed->block, feed->page_offset, bytes, length, feed->data, error);
}

/* ---- the engine ---- */

static gboolean (*const takers[]) (HfFeed *feed, const guint8 *bytes, GError **error) = {
  [STEP_HEADER] = take_header,
  [STEP_TYPE] = take_type,
  [STEP_CONFIGURATION] = take_configuration,
  [STEP_MACHINE] = take_machine,
  [STEP_SUBSECTION] = take_subsection,
  [STEP_SUBSECTION_NAME] = take_subsection_name,
  [STEP_PAGE_BITS] = take_page_bits,
  [STEP_UUID] = take_uuid,
  [STEP_CAPABILITIES] = take_capabilities,
  [STEP_CAPABILITY] = take_capability,
  [STEP_CAPABILITY_NAME] = take_capability_name,
  [STEP_SECTION] = take_section,
  [STEP_SECTION_NAME] = take_section_name,
  [STEP_SECTION_ID] = take_section_id,
  [STEP_FOOTER] = take_footer,
  [STEP_COMMAND] = take_command,
  [STEP_COMMAND_DATA] = take_command_data,
  [STEP_MEM_SIZE] = take_mem_size,
  [STEP_BLOCK] = take_block,
  [STEP_BLOCK_NAME] = take_block_name,
  [STEP_ITEM] = take_item,
  [STEP_ITEM_BLOCK] = take_item_block,
  [STEP_ITEM_BLOCK_NAME] = take_item_block_name,
  [STEP_PAGE] = take_page,
  [STEP_ZERO] = take_zero,
  [STEP_XBZRLE] = take_xbzrle,
  [STEP_XBZRLE_DATA] = take_xbzrle_data,
  [STEP_REST] = NULL,
};
G_STATIC_ASSERT (G_N_ELEMENTS (takers) == N_STEPS);

/* One unit, whole. */
static inline gboolean
take_unit (HfFeed *feed, const guint8 *bytes, GError **error)
{
  if (!feed->configured) {
    if (feed->need > HEAD_MAX - feed->head->len)
      return malformed (feed, error, "what stands before the first section is longer than %u bytes", HEAD_MAX);
    g_byte_array_append (feed->head, bytes, feed->need);
  }
  return takers[feed->step](feed, bytes, error);
}

/* Adds to the unit in carry; TRUE: it is whole. */
static gboolean
fill_carry (HfFeed *feed, const guint8 **bytes, gsize *length)
{
  gsize part = MIN (*length, feed->need - feed->filled);

  memcpy (feed->carry + feed->filled, *bytes, part);
  feed->filled += part;
  feed->offset += part;
  *bytes += part;
  *length -= part;
  return feed->filled == feed->need;
}

static gboolean
take_units (HfFeed *feed, const guint8 *bytes, gsize length, GError **error)
{
  while (feed->step != STEP_REST) {
    const guint8 *unit = bytes;

    if (feed->skip > 0) {
      gsize part = MIN (feed->skip, length);

      feed->skip -= part;
      feed->offset += part;
      bytes += part;
      length -= part;
      if (feed->skip > 0)
        return TRUE;
    }
    if (feed->filled == 0)
      feed->unit = feed->offset;
    if (feed->filled > 0 || length < feed->need) {
      if (length == 0 || !fill_carry (feed, &bytes, &length))
        return TRUE;
      feed->filled = 0;
      unit = feed->carry;
    } else {
      unit = bytes;
      bytes += feed->need;
      length -= feed->need;
      feed->offset += feed->need;
    }
    if (!take_unit (feed, unit, error))
      return FALSE;
  }
  feed->offset += length;
  return length == 0 || !feed->events.rest || feed->events.rest (bytes, length, feed->data, error);
}

gboolean
hf_feed_bytes (HfFeed *feed, const guint8 *bytes, gsize length, GError **error)
{
  if (!feed->failure && !take_units (feed, bytes, length, &feed->failure) && !feed->failure)
    g_set_error (&feed->failure, HF_STREAM_ERROR, HF_STREAM_ERROR_MALFORMED, "at offset %" G_GUINT64_FORMAT ": given up",
                 feed->unit);
  if (!feed->failure)
    return TRUE;
  if (error)
    *error = g_error_copy (feed->failure);
  return FALSE;
}

HfFeedState
hf_feed_state (const HfFeed *feed)
{
  if (feed->failure)
    return HF_FEED_FAILED;
  if (feed->step == STEP_REST)
    return HF_FEED_REST;
  return feed->ram_started ? HF_FEED_RAM : HF_FEED_HEADER;
}

guint64
hf_feed_offset (const HfFeed *feed)
{
  return feed->offset;
}

gboolean
hf_feed_footers (const HfFeed *feed)
{
  return feed->footers == FOOTERS_YES;
}

HfFeed *
hf_feed_new (const HfFeedEvents *events, gpointer data)
{
  HfFeed *feed = g_new0 (HfFeed, 1);

  feed->events = *events;
  feed->data = data;
  feed->carry = g_malloc (UNIT_MAX + 512);
  feed->head = g_byte_array_new ();
  feed->capabilities = g_ptr_array_new_with_free_func (g_free);
  feed->page_size = PAGE_SIZE_DEFAULT;
  feed->blocks = g_array_new (FALSE, FALSE, sizeof (HfRamBlock));
  feed->by_id = g_hash_table_new (g_str_hash, g_str_equal);
  go (feed, STEP_HEADER, 8);
  return feed;
}

void
hf_feed_free (HfFeed *feed)
{
  if (!feed)
    return;
  g_hash_table_unref (feed->by_id);
  g_array_unref (feed->blocks);
  g_ptr_array_unref (feed->capabilities);
  g_byte_array_unref (feed->head);
  g_clear_error (&feed->failure);
  g_free (feed->carry);
  g_free (feed);
}
