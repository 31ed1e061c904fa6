/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns: nothing. Thread: that of the verification.
 *
 * Theory of operation: everything in a mapped-ram file has its place: the first bytes of the stream, then of each block its
 * fields, its bitmap and its pages, then the rest of the stream. QEMU tests little of that when it loads
 * (parse_ramblock_mapped_ram, read_ramblock_mapped_ram). Here each block is tested by itself, then all ranges of all blocks are
 * sorted: no two may share a byte. Last come the bitmaps: bits behind the last page, and pages that are said to be in the file
 * and are not.
 *
 * Offsets are absolute in the file, and so is the end. QEMU writes pages at multiples of 1 MiB; its documentation keeps the right
 * to change that, so only whole pages are demanded.
 */

#include "config.h"

#include "stream/verify-parts.h"

#define CHUNK_SIZE (1u << 20)
#define PAGE_SIZE_MIN 512u
#define PAGE_SIZE_DEFAULT 4096u
#define HEADER_SIZE 28u

typedef struct {
  guint64 start, end;
  const char *block; /* NULL: the stream */
  const char *what;
} Range;

typedef struct {
  HfReader *reader;
  const HfStreamMap *map;
  guint64 end;
  guint64 page_size;
  gboolean ignore_shared;
  const HfStreamJob *job;
  guint64 told; /* how far the job was told that the work is: it does not go back */
  HfVerifyReport *report;
} Layout;

static gboolean
is_ignored (const Layout *layout, const HfStreamBlock *block)
{
  return layout->ignore_shared && block->bitmap_offset == 0 && block->pages_offset == 0;
}

static gboolean
fits (guint64 offset, guint64 length, guint64 end)
{
  return offset <= end && length <= end - offset;
}

/* TRUE: its bitmap can be read. */
static gboolean
check_block (Layout *layout, const HfStreamBlock *block, const char *id)
{
  guint64 behind_header = block->header_offset + HEADER_SIZE;

  if (block->page_size != layout->page_size || block->page_size < PAGE_SIZE_MIN
      || (block->page_size & (block->page_size - 1)) != 0) {
    hf_verify_problem (layout->report,
                       "block %s: the header at offset %" G_GUINT64_FORMAT " says pages of %" G_GUINT64_FORMAT
                       " bytes, the stream's have %" G_GUINT64_FORMAT,
                       id, block->header_offset, block->page_size, layout->page_size);
    return FALSE;
  }
  if (block->bitmap_offset != behind_header)
    hf_verify_problem (layout->report,
                       "block %s: the bitmap is said to be at offset %" G_GUINT64_FORMAT
                       ", but the header ends at %" G_GUINT64_FORMAT,
                       id, block->bitmap_offset, behind_header);
  if (block->pages_offset % block->page_size != 0)
    hf_verify_problem (layout->report,
                       "block %s: the pages are said to be at offset %" G_GUINT64_FORMAT
                       ", which is no multiple of %" G_GUINT64_FORMAT,
                       id, block->pages_offset, block->page_size);
  if (!fits (block->bitmap_offset, block->bitmap_length, layout->end)) {
    hf_verify_problem (layout->report,
                       "block %s: the bitmap of %" G_GUINT64_FORMAT " bytes at offset %" G_GUINT64_FORMAT
                       " lies behind the end at %" G_GUINT64_FORMAT,
                       id, block->bitmap_length, block->bitmap_offset, layout->end);
    return FALSE;
  }
  if (!fits (block->pages_offset, block->ram.used_length, layout->end)) {
    hf_verify_problem (layout->report,
                       "block %s: %" G_GUINT64_FORMAT " bytes of pages at offset %" G_GUINT64_FORMAT
                       " should be there, but the end is at %" G_GUINT64_FORMAT,
                       id, block->ram.used_length, block->pages_offset, layout->end);
    layout->report->incomplete = TRUE;
  }
  return TRUE;
}

/* No two ranges of one file. */

static gint
compare_ranges (gconstpointer a, gconstpointer b)
{
  const Range *x = a, *y = b;

  if (x->start != y->start)
    return x->start < y->start ? -1 : 1;
  return x->end < y->end ? -1 : x->end > y->end;
}

static void
add_range (GArray *ranges, guint64 start, guint64 length, const char *block, const char *what)
{
  Range range = { .start = start, .block = block, .what = what };

  if (!g_uint64_checked_add (&range.end, start, length))
    range.end = G_MAXUINT64;
  if (length > 0)
    g_array_append_val (ranges, range);
}

static char *
range_name (const Range *range)
{
  g_autofree char *id = range->block ? hf_stream_quote (range->block) : NULL;

  return id ? g_strdup_printf ("%s of block %s", range->what, id) : g_strdup (range->what);
}

/* furthest: the range before next that ends last. */
static void
compare_neighbours (Layout *layout, const Range *furthest, const Range *next)
{
  g_autofree char *a = NULL, *b = NULL;

  if (next->start >= furthest->end)
    return;
  a = range_name (furthest);
  b = range_name (next);
  hf_verify_problem (layout->report,
                     "%s (offset %" G_GUINT64_FORMAT " to %" G_GUINT64_FORMAT ") and %s (offset %" G_GUINT64_FORMAT
                     " to %" G_GUINT64_FORMAT ") overlap",
                     a, furthest->start, furthest->end, b, next->start, next->end);
}

static guint64
fields_length (const Layout *layout, const HfStreamBlock *block)
{
  return 1 + strlen (block->ram.id) + 8 + (layout->ignore_shared ? 8 : 0) + HEADER_SIZE;
}

static void
check_overlaps (Layout *layout)
{
  g_autoptr (GArray) ranges = g_array_new (FALSE, FALSE, sizeof (Range));
  guint64 behind = 0;
  Range furthest;

  for (guint i = 0; i < layout->map->blocks->len; i++) {
    const HfStreamBlock *block = &g_array_index (layout->map->blocks, HfStreamBlock, i);
    guint64 length = fields_length (layout, block), fields = block->header_offset + HEADER_SIZE - length;

    if (i == 0)
      add_range (ranges, layout->map->start, fields - layout->map->start, NULL, "the start of the stream");
    add_range (ranges, fields, length, block->ram.id, "the header");
    behind = fields + length;
    if (is_ignored (layout, block))
      continue;
    add_range (ranges, block->bitmap_offset, block->bitmap_length, block->ram.id, "the bitmap");
    add_range (ranges, block->pages_offset, block->ram.used_length, block->ram.id, "the pages");
    behind = block->pages_offset + block->ram.used_length; /* the walk has tested that this is no overflow */
  }
  if (behind < layout->end)
    add_range (ranges, behind, layout->end - behind, NULL, "the rest of the stream");
  g_array_sort (ranges, compare_ranges);
  furthest = g_array_index (ranges, Range, 0);
  for (guint i = 1; i < ranges->len; i++) {
    const Range *next = &g_array_index (ranges, Range, i);

    compare_neighbours (layout, &furthest, next);
    if (next->end > furthest.end)
      furthest = *next;
  }
}

/* Bitmaps. */

typedef struct {
  guint64 n_pages; /* of the block */
  guint64 whole;   /* so many of them lie in the file */
  guint64 present; /* bits set among n_pages */
  guint64 missing; /* of these, not in the file */
  guint64 beyond;  /* bits set behind n_pages */
  guint64 first_missing, first_beyond;
} Bits;

/* One page's bit is set. */
static void
count_bit (Bits *bits, guint64 page)
{
  if (page >= bits->n_pages) {
    if (bits->beyond++ == 0)
      bits->first_beyond = page;
    return;
  }
  bits->present++;
  if (page >= bits->whole && bits->missing++ == 0)
    bits->first_missing = page;
}

static void
count_bits (Bits *bits, const guint8 *bytes, gsize length, guint64 first_page)
{
  for (gsize i = 0; i < length; i++, first_page += 8) {
    if (first_page + 8 <= MIN (bits->n_pages, bits->whole)) {
      bits->present += (guint)__builtin_popcount (bytes[i]);
      continue;
    }
    for (guint bit = 0; bit < 8; bit++) {
      if (bytes[i] >> bit & 1)
        count_bit (bits, first_page + bit);
    }
  }
}

static void
report_bits (Layout *layout, const HfStreamBlock *block, const Bits *bits, const char *id)
{
  layout->report->present_pages += bits->present;
  if (bits->missing)
    hf_verify_problem (layout->report,
                       "block %s, page %" G_GUINT64_FORMAT ", at offset %" G_GUINT64_FORMAT ": missing, with %" G_GUINT64_FORMAT
                       " more: the end is at %" G_GUINT64_FORMAT,
                       id, bits->first_missing, block->pages_offset + bits->first_missing * block->page_size, bits->missing - 1,
                       layout->end);
  if (bits->beyond)
    hf_verify_problem (layout->report,
                       "block %s, page %" G_GUINT64_FORMAT ": it has a bit, at offset %" G_GUINT64_FORMAT
                       ", but the block has %" G_GUINT64_FORMAT " pages",
                       id, bits->first_beyond, block->bitmap_offset + bits->first_beyond / 8, bits->n_pages);
}

/* Everything up to this offset is tested. */
static gboolean
tell (Layout *layout, guint64 offset, GError **error)
{
  guint64 start = layout->map->start;

  layout->told = MAX (layout->told, MIN (offset, layout->end) - MIN (offset, start));
  return hf_stream_job_step (layout->job, layout->told, layout->end - start, error);
}

static gboolean
check_bitmap (Layout *layout, const HfStreamBlock *block, const char *id, GError **error)
{
  guint64 room = block->pages_offset < layout->end ? layout->end - block->pages_offset : 0;
  Bits bits = { .n_pages = block->ram.used_length / block->page_size, .whole = room / block->page_size };
  g_autofree guint8 *bytes = g_malloc (CHUNK_SIZE);

  for (guint64 done = 0; done < block->bitmap_length;) {
    gsize length = (gsize)MIN (CHUNK_SIZE, block->bitmap_length - done);

    if (!hf_reader_get_large (layout->reader, block->bitmap_offset + done, bytes, length, error)
        || !tell (layout, block->bitmap_offset + done + length, error))
      return FALSE;
    count_bits (&bits, bytes, length, done * 8);
    done += length;
  }
  report_bits (layout, block, &bits, id);
  return TRUE;
}

gboolean
hf_verify_layout (HfReader *reader, const HfStreamMap *forward, guint64 end, const HfStreamJob *job, HfVerifyReport *report,
                  GError **error)
{
  Layout layout = {
    .reader = reader,
    .map = forward,
    .end = end,
    .page_size = forward->target_page_bits ? G_GUINT64_CONSTANT (1) << MIN (forward->target_page_bits, 62) : PAGE_SIZE_DEFAULT,
    .ignore_shared = g_strv_contains ((const char *const *)forward->capabilities, "x-ignore-shared"),
    .job = job,
    .report = report,
  };
  guint n_blocks = forward->blocks->len;

  for (guint i = 0; i < n_blocks; i++) {
    const HfStreamBlock *block = &g_array_index (forward->blocks, HfStreamBlock, i);
    g_autofree char *id = hf_stream_quote (block->ram.id);

    if (is_ignored (&layout, block) || !check_block (&layout, block, id))
      continue;
    if (!check_bitmap (&layout, block, id, error))
      return FALSE;
  }
  if (n_blocks > 0)
    check_overlaps (&layout);
  return tell (&layout, end, error);
}
