/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns: the block list of a forward walk. Thread: that of the walk.
 *
 * Theory of operation: RAM sections of version 4, as migration/ram.c of QEMU writes them. START has the list of blocks, up to a
 * sum that stands before it; of mapped-ram each block brings its header and is followed, after a jump, by the next one's fields.
 * Then, in every section, items up to EOS: a 64-bit word whose low bits, below the page size, say what it is.
 */

#include "config.h"

#include "base/bytes.h"
#include "stream/forward.h"

#include <string.h>

#define FLAG_ZERO 0x02u
#define FLAG_MEM_SIZE 0x04u
#define FLAG_PAGE 0x08u
#define FLAG_EOS 0x10u
#define FLAG_CONTINUE 0x20u
#define FLAG_XBZRLE 0x40u
#define FLAG_HOOK 0x80u
#define FLAG_COMPRESSED 0x100u
#define FLAG_MULTIFD_FLUSH 0x200u

#define MAPPED_HEADER_SIZE 28u
#define MAPPED_VERSION 1u
#define XBZRLE_ENCODING 1u
/* An interrupt is looked for, and progress told, as often as this. */
#define STEP_SIZE (4u << 20)

/* RAM START. */

static gboolean
take_mapped_header (HfForward *forward, HfStreamBlock *block, GError **error)
{
  guint8 header[MAPPED_HEADER_SIZE];

  g_autofree char *id = hf_stream_quote (block->ram.id);

  block->mapped = TRUE;
  block->header_offset = forward->position;
  if (!hf_forward_take (forward, header, sizeof header, error))
    return FALSE;
  block->page_size = hf_get_be64 (header + 4);
  block->bitmap_offset = hf_get_be64 (header + 12);
  block->pages_offset = hf_get_be64 (header + 20);
  if (hf_get_be32 (header) != MAPPED_VERSION)
    return hf_forward_unsupported (error,
                                   "block %s: the mapped-ram header at offset %" G_GUINT64_FORMAT " has version %u, known is %u",
                                   id, block->header_offset, hf_get_be32 (header), MAPPED_VERSION);
  return TRUE;
}

/* One bit for each page, in words of 64 bits; verify.c looks whether the file has room for it. */
static guint64
bitmap_length (const HfStreamBlock *block)
{
  guint64 pages = block->page_size ? block->ram.used_length / block->page_size : 0;

  return (pages / 64 + (pages % 64 != 0)) * 8;
}

/* To the next block's fields, which are behind this one's pages. */
static gboolean
jump (HfForward *forward, HfStreamBlock *block, GError **error)
{
  g_autofree char *id = hf_stream_quote (block->ram.id);
  guint64 target;

  if (block->bitmap_offset == 0 && block->pages_offset == 0 && forward->ignore_shared)
    return TRUE; /* shared memory that is not in the file */
  block->bitmap_length = bitmap_length (block);
  if (!g_uint64_checked_add (&target, block->pages_offset, block->ram.used_length) || target < forward->position)
    return hf_forward_malformed (error,
                                 "block %s: its pages are said to be at offset %" G_GUINT64_FORMAT
                                 ", which cannot be: its header ends at offset %" G_GUINT64_FORMAT,
                                 id, block->pages_offset, forward->position);
  return hf_forward_skip (forward, target - forward->position, error);
}

static gboolean
take_block (HfForward *forward, guint64 rest, guint64 *ret_used, GError **error)
{
  HfStreamBlock block = { 0 };
  guint64 offset = forward->position, address;
  g_autofree char *id = NULL;

  if (!hf_forward_take_name (forward, block.ram.id, error) || !hf_forward_take_be64 (forward, &block.ram.used_length, error))
    return FALSE;
  id = hf_stream_quote (block.ram.id);
  *ret_used = block.ram.used_length;
  if (block.ram.used_length == 0 || block.ram.used_length % forward->page_size != 0 || block.ram.used_length > rest)
    return hf_forward_malformed (error,
                                 "block %s at offset %" G_GUINT64_FORMAT ": a length of %" G_GUINT64_FORMAT " bytes cannot be",
                                 id, offset, block.ram.used_length);
  if (!g_hash_table_insert (forward->blocks, g_strdup (block.ram.id), GUINT_TO_POINTER (forward->map->blocks->len + 1)))
    return hf_forward_malformed (error, "block %s at offset %" G_GUINT64_FORMAT " is there twice", id, offset);
  if (forward->ignore_shared && !hf_forward_take_be64 (forward, &address, error))
    return FALSE;
  if (forward->map->mapped_ram && !take_mapped_header (forward, &block, error))
    return FALSE;
  g_array_append_val (forward->map->blocks, block);
  return !forward->map->mapped_ram
         || jump (forward, &g_array_index (forward->map->blocks, HfStreamBlock, forward->map->blocks->len - 1), error);
}

gboolean
hf_forward_ram_start (HfForward *forward, GError **error)
{
  guint64 offset = forward->position, word, total, used;

  if (!hf_forward_take_be64 (forward, &word, error))
    return FALSE;
  total = word & ~(guint64)(forward->page_size - 1);
  if ((word & (forward->page_size - 1)) != FLAG_MEM_SIZE || total == 0)
    return hf_forward_malformed (error, "RAM at offset %" G_GUINT64_FORMAT " does not begin with its size", offset);
  if (total > HF_RAM_BYTES_MAX)
    return hf_forward_malformed (error, "RAM at offset %" G_GUINT64_FORMAT " is said to have %" G_GUINT64_FORMAT " bytes", offset,
                                 total);
  for (guint64 rest = total; rest > 0; rest -= used) {
    if (forward->map->blocks->len == HF_RAM_BLOCKS_MAX)
      return hf_forward_unsupported (error, "more than %u RAM blocks", HF_RAM_BLOCKS_MAX);
    if (!take_block (forward, rest, &used, error))
      return FALSE;
  }
  return hf_forward_ram_items (forward, error);
}

/* Pages. */

static gboolean
find_block (HfForward *forward, guint64 flags, guint64 item_offset, GError **error)
{
  guint index;
  char id[256];

  if (flags & FLAG_CONTINUE) {
    if (forward->block != G_MAXUINT)
      return TRUE;
    return hf_forward_malformed (error, "the first page at offset %" G_GUINT64_FORMAT " continues a block", item_offset);
  }
  if (!hf_forward_take_name (forward, id, error))
    return FALSE;
  index = GPOINTER_TO_UINT (g_hash_table_lookup (forward->blocks, id));
  if (index == 0) {
    g_autofree char *name = hf_stream_quote (id);

    return hf_forward_malformed (error, "the page at offset %" G_GUINT64_FORMAT " is of block %s, which the list does not have",
                                 item_offset, name);
  }
  forward->block = index - 1;
  return TRUE;
}

/* Names the page in front of the message. */
static gboolean
bad_page (HfForward *forward, guint64 page_offset, guint64 item_offset, const char *problem, GError **error)
{
  const HfStreamBlock *block = &g_array_index (forward->map->blocks, HfStreamBlock, forward->block);
  g_autofree char *id = hf_stream_quote (block->ram.id);

  return hf_forward_malformed (error, "block %s, page %" G_GUINT64_FORMAT ", at offset %" G_GUINT64_FORMAT ": %s", id,
                               page_offset / forward->page_size, item_offset, problem);
}

static gboolean
take_zero (HfForward *forward, guint64 page_offset, guint64 item_offset, GError **error)
{
  guint8 byte;

  if (!hf_forward_take_u8 (forward, &byte, error))
    return FALSE;
  forward->map->zero_pages++;
  return byte == 0 || bad_page (forward, page_offset, item_offset, "a page of one byte repeated, which is not zero", error);
}

static gboolean
take_page (HfForward *forward, guint64 page_offset, guint64 item_offset, GError **error)
{
  forward->map->pages++;
  return hf_forward_skip (forward, forward->page_size, error);
}

/* A number of at most 14 bits, as docs/devel/migration of QEMU says: seven bits, and in the first byte the sign that there are
   seven more. 0 bytes: there is none. */
static gsize
get_count (const guint8 *data, gsize length, gsize *ret)
{
  if (length == 0)
    return 0;
  *ret = data[0] & 0x7f;
  if (!(data[0] & 0x80))
    return 1;
  if (length == 1 || data[1] & 0x80)
    return 0;
  *ret |= (gsize)data[1] << 7;
  return 2;
}

/* Pairs of a run that stays as it was and a run that is replaced, whose bytes follow. */
static const char *
find_xbzrle_problem (const guint8 *data, gsize length, gsize page_size)
{
  gsize at = 0, covered = 0, count, n;

  while (at < length) {
    n = get_count (data + at, length - at, &count);
    if (n == 0 || (at > 0 && count == 0))
      return "XBZRLE data with a bad run of equal bytes";
    at += n;
    covered += count;
    n = get_count (data + at, length - at, &count);
    if (n == 0 || count == 0)
      return "XBZRLE data with a bad run of new bytes";
    at += n;
    covered += count;
    if (count > length - at || covered > page_size)
      return "XBZRLE data longer than a page";
    at += count;
  }
  return length == 0 ? "XBZRLE data of no length" : NULL;
}

static gboolean
take_xbzrle (HfForward *forward, guint64 page_offset, guint64 item_offset, GError **error)
{
  g_autofree guint8 *data = NULL;
  const char *problem = NULL;
  guint8 encoding;
  guint16 length;

  if (!hf_forward_take_u8 (forward, &encoding, error) || !hf_forward_take_be16 (forward, &length, error))
    return FALSE;
  if (encoding != XBZRLE_ENCODING)
    return bad_page (forward, page_offset, item_offset, "XBZRLE data of an unknown encoding", error);
  data = g_malloc (MAX (length, 1));
  if (!hf_forward_take (forward, data, length, error))
    return FALSE;
  forward->map->xbzrle_pages++;
  problem = find_xbzrle_problem (data, length, forward->page_size);
  return !problem || bad_page (forward, page_offset, item_offset, problem, error);
}

static const struct {
  guint64 flag;
  gboolean (*take) (HfForward *forward, guint64 page_offset, guint64 item_offset, GError **error);
} page_items[] = {
  { FLAG_ZERO, take_zero },
  { FLAG_PAGE, take_page },
  { FLAG_XBZRLE, take_xbzrle },
};

static const struct {
  guint64 flag;
  const char *name;
} unsupported_items[] = {
  { FLAG_HOOK, "of an RDMA hook" },
  { FLAG_COMPRESSED, "of a compressed page" },
};

static void
tell_page (HfForward *forward, guint64 page_offset, guint64 item_offset)
{
  const HfStreamBlock *block = &g_array_index (forward->map->blocks, HfStreamBlock, forward->block);

  if (forward->on_page)
    forward->on_page (&block->ram, page_offset / forward->page_size, item_offset, forward->position - item_offset,
                      forward->on_page_data);
}

static gboolean
take_item (HfForward *forward, guint64 word, guint64 item_offset, GError **error)
{
  guint64 flags = word & (forward->page_size - 1), page_offset = word - flags;

  for (gsize i = 0; i < G_N_ELEMENTS (page_items); i++) {
    if ((flags & ~(guint64)FLAG_CONTINUE) != page_items[i].flag || forward->map->mapped_ram)
      continue;
    if (!find_block (forward, flags, item_offset, error))
      return FALSE;
    if (page_offset >= g_array_index (forward->map->blocks, HfStreamBlock, forward->block).ram.used_length)
      return bad_page (forward, page_offset, item_offset, "it lies behind the end of the block", error);
    if (!page_items[i].take (forward, page_offset, item_offset, error))
      return FALSE;
    tell_page (forward, page_offset, item_offset);
    return TRUE;
  }
  for (gsize i = 0; i < G_N_ELEMENTS (unsupported_items); i++) {
    if (flags == unsupported_items[i].flag)
      return hf_forward_unsupported (error, "RAM at offset %" G_GUINT64_FORMAT " has an item %s", item_offset,
                                     unsupported_items[i].name);
  }
  if (flags == FLAG_MULTIFD_FLUSH && page_offset == 0 && !forward->map->mapped_ram)
    return TRUE;
  return hf_forward_malformed (
      error, "RAM at offset %" G_GUINT64_FORMAT " has a word that cannot be: 0x%016" G_GINT64_MODIFIER "x", item_offset, word);
}

gboolean
hf_forward_ram_items (HfForward *forward, GError **error)
{
  for (;;) {
    guint64 offset = forward->position, word;

    if (!hf_forward_take_be64 (forward, &word, error))
      return FALSE;
    if (word == FLAG_EOS)
      return TRUE;
    if (!take_item (forward, word, offset, error))
      return FALSE;
    if (forward->position - forward->told < STEP_SIZE)
      continue;
    forward->told = forward->position;
    if (!hf_stream_job_step (forward->job, forward->position - forward->map->start, forward->end - forward->map->start, error))
      return FALSE;
  }
}
