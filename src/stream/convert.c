/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Conversion between the two layouts. To mapped-ram is short: the writer that a capture uses is fed from a file. To classic is
 * the rest of this file.
 *
 * Owns: the output until it is committed. Thread: one at a time.
 *
 * Theory of operation, to mapped-ram: the end of the input is looked at, then it is read block by block; if it has checksums,
 * each block is compared with its own before the writer sees it. What the parser refuses, and what follows RAM, is found by the
 * parser and by hf_verify_end.
 *
 * To classic: the input's structure is verified first (both walks, the layout, pages that nobody wrote), because the bitmaps are
 * believed from then on. Then come CONFIGURATION without the capability, whatever lies between it and RAM, RAM START with a plain
 * block list, one PART section with every page once, block by block, and the rest of the input as it is: its own empty PARTs, the
 * command, END, devices, EOF and description.
 *
 * A libvirt image loses its header: the output is a QEMU stream.
 */
#include "config.h"

#include "stream/convert.h"

#include "base/bytes.h"
#include "stream/block-writer.h"
#include "stream/input.h"
#include "stream/mapped-ram.h"
#include "stream/mapped-writer.h"
#include "stream/verify.h"

#include <errno.h>
#include <holdfast/io.h>
#include <string.h>
#include <unistd.h>

#define PIECE (1u << 20)
#define TYPE_START 0x01
#define TYPE_PART 0x02
#define TYPE_END 0x03
#define TYPE_COMMAND 0x08
#define TYPE_FOOTER 0x7e
#define BITMAP_PIECE 4096u

/* Item flags need the low bits of an offset. */
#define PAGE_SIZE_MIN 1024u
#define PAGE_SIZE_MAX 65536u

enum { ITEM_ZERO = 0x02, ITEM_MEM_SIZE = 0x04, ITEM_PAGE = 0x08, ITEM_EOS = 0x10, ITEM_CONTINUE = 0x20 };

/* ---- the input, block by block ---- */

typedef struct {
  HfImage *image;
  HfInput *input; /* NULL: through the image's reader */
  guint8 *block;
  guint64 n_blocks, block_size;
} Source;

static void
source_clear (Source *source)
{
  hf_input_free (source->input);
  free (source->block);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (Source, source_clear)

static gboolean
source_open (Source *source, HfImage *image, GError **error)
{
  *source = (Source){ .image = image, .block_size = image->has_trailer ? image->trailer.block_size : PIECE };
  source->n_blocks = hf_trailer_count_blocks (image->start, image->end - image->start, source->block_size);
  source->block = aligned_alloc (PAGE_SIZE_MAX, source->block_size);
  if (!source->block) {
    g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE, "memory for the input: %s", g_strerror (ENOMEM));
    return FALSE;
  }
  if (image->fd < 0)
    return TRUE;
  if (lseek (image->fd, (off_t)image->start, SEEK_SET) < 0) {
    g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE, "set the file position of the input: %s", g_strerror (errno));
    return FALSE;
  }
  source->input = hf_input_new (image->fd, error);
  return source->input != NULL;
}

static gboolean
source_fill (Source *source, guint64 offset, guint64 length, const HfStreamJob *job, GError **error)
{
  gsize filled = 0;

  if (!source->input)
    return hf_reader_get_large (source->image->reader, offset, source->block, length, error);
  while (filled < length) {
    gsize got = 0;

    if (!hf_input_read (source->input, source->block + filled, length - filled, job, &got, error))
      return FALSE;
    if (got == 0) {
      g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_INCOMPLETE, "the input became shorter: it ends at %" G_GUINT64_FORMAT,
                   offset + filled);
      return FALSE;
    }
    filled += got;
  }
  return TRUE;
}

/* The next block, compared with its checksum if it has one. */
static gboolean
source_next (Source *source, guint64 index, guint64 *ret_length, const HfStreamJob *job, GError **error)
{
  HfTrailer grid = { .block_size = source->block_size,
                     .payload_offset = source->image->start,
                     .payload_length = source->image->end - source->image->start,
                     .n_blocks = source->n_blocks };
  guint64 offset = 0;

  hf_trailer_block (&grid, index, &offset, ret_length);
  if (!source_fill (source, offset, *ret_length, job, error))
    return FALSE;
  if (!source->image->has_trailer || hf_trailer_checksum (source->block, *ret_length) == source->image->trailer.checksums[index])
    return TRUE;
  g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_CHECKSUM,
               "the block of %" G_GUINT64_FORMAT " bytes at offset %" G_GUINT64_FORMAT " is not what was written", *ret_length,
               offset);
  return FALSE;
}

/* ---- the input ---- */

/* The first problem as an error. */
static gboolean
check_report (const HfVerifyReport *report, GError **error)
{
  HfStreamError code = HF_STREAM_ERROR_MALFORMED;

  if (report->n_problems == 0)
    return TRUE;
  if (hf_verify_report_is_unproved (report))
    code = HF_STREAM_ERROR_UNSUPPORTED;
  else if (report->incomplete)
    code = HF_STREAM_ERROR_INCOMPLETE;
  g_set_error (error, HF_STREAM_ERROR, (gint)code, "%s (problems: %" G_GUINT64_FORMAT ")",
               (const char *)g_ptr_array_index (report->problems, 0), report->n_problems);
  return FALSE;
}

/* Before all of it is read: a cut file ends it at once. Of a classic stream this looks at the end alone. */
static gboolean
verify_input (HfImage *image, const HfStreamJob *job, HfVerifyReport **ret_report, GError **error)
{
  if (image->kind == HF_IMAGE_ANY) {
    g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_MALFORMED, "this is not a QEMU migration stream");
    return FALSE;
  }
  return hf_verify_image (image, HF_VERIFY_QUICK, job, ret_report, error) && check_report (*ret_report, error);
}

/* ---- to mapped-ram ---- */

static gboolean
feed_all (HfImage *image, HfMappedWriter *writer, const HfStreamJob *job, GError **error)
{
  g_auto (Source) source = { 0 };
  guint64 done = 0;

  if (!source_open (&source, image, error))
    return FALSE;
  for (guint64 i = 0; i < source.n_blocks; i++) {
    guint64 length = 0;

    if (!hf_stream_job_step (job, done, image->end - image->start, error) || !source_next (&source, i, &length, job, error)
        || !hf_mapped_writer_feed (writer, source.block, length, error))
      return FALSE;
    done += length;
  }
  return hf_stream_job_step (job, done, done, error);
}

gboolean
hf_convert_to_mapped (HfImage *image, const char *output, const HfConvertOptions *options, const HfStreamJob *job, GError **error)
{
  g_autoptr (HfVerifyReport) report = NULL;
  g_autoptr (HfSaveFile) file = NULL;
  g_autoptr (HfMappedWriter) writer = NULL;
  guint64 length = 0;

  /* With checksums, each block is told apart from a bad one before anything else could be said of it. */
  if (!image->has_trailer && !verify_input (image, job, &report, error))
    return FALSE;
  file = hf_save_file_new (output, 0, options->flags, error);
  writer = file ? hf_mapped_writer_new (file, 0, options->engine, error) : NULL;
  return writer && feed_all (image, writer, job, error) && hf_mapped_writer_finish (writer, &length, error)
         && hf_verify_end (hf_save_file_fd (file), 0, length, error) && hf_save_file_commit (file, length, error);
}

/* ---- to classic: what is written ---- */

typedef struct {
  HfImage *image;
  const HfStreamMap *map;
  const HfStreamSection *start; /* RAM START */
  HfBlockWriter *writer;
  const HfStreamJob *job;
  guint32 page_size;
  guint8 *pages; /* PIECE bytes */
  guint64 done, total;
} Classic;

static gboolean
put (Classic *classic, const void *bytes, gsize length, GError **error)
{
  const guint8 *from = bytes;

  while (length > 0) {
    gsize room = 0;
    guint8 *space = hf_block_writer_space (classic->writer, &room, error);
    gsize part = MIN (room, length);

    if (!space)
      return FALSE;
    memcpy (space, from, part);
    if (!hf_block_writer_advance (classic->writer, part, error))
      return FALSE;
    from += part;
    length -= part;
  }
  return TRUE;
}

static gboolean
put_be64 (Classic *classic, guint64 value, GError **error)
{
  guint8 be[8];

  hf_put_be64 (value, be);
  return put (classic, be, sizeof be, error);
}

/* The bytes [from, to) of the input as they are. */
static gboolean
put_range (Classic *classic, guint64 from, guint64 to, GError **error)
{
  while (from < to) {
    gsize part = MIN (to - from, PIECE);

    if (!hf_reader_get_large (classic->image->reader, from, classic->pages, part, error)
        || !put (classic, classic->pages, part, error))
      return FALSE;
    from += part;
  }
  return TRUE;
}

static gboolean
put_end_of_section (Classic *classic, GError **error)
{
  guint8 footer[5] = { TYPE_FOOTER };

  hf_put_be32 (classic->start->section_id, footer + 1);
  return put_be64 (classic, ITEM_EOS, error) && (!classic->map->footers || put (classic, footer, sizeof footer, error));
}

/* Header and CONFIGURATION; early devices, if any, follow as they are. */
static gboolean
put_head (Classic *classic, GError **error)
{
  const HfStreamSection *first = g_ptr_array_index (classic->map->sections, 0);
  guint64 start = classic->map->start, length = first->offset - start;
  g_autoptr (GByteArray) head = NULL;

  if (length > PIECE) {
    g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_MALFORMED, "CONFIGURATION has %" G_GUINT64_FORMAT " bytes", length);
    return FALSE;
  }
  if (!hf_reader_get (classic->image->reader, start, classic->pages, length, error))
    return FALSE;
  head = hf_mapped_ram_configuration (classic->pages, length, FALSE, error);
  return head && put (classic, head->data, head->len, error) && put_range (classic, first->offset, classic->start->offset, error);
}

/* RAM START with a plain block list. */
static gboolean
put_start (Classic *classic, GError **error)
{
  const GArray *blocks = classic->map->blocks;
  guint64 total = 0;

  for (guint i = 0; i < blocks->len; i++)
    total += g_array_index (blocks, HfStreamBlock, i).ram.used_length;
  if (!put_range (classic, classic->start->offset, classic->start->body_offset, error)
      || !put_be64 (classic, total | ITEM_MEM_SIZE, error))
    return FALSE;
  for (guint i = 0; i < blocks->len; i++) {
    const HfRamBlock *ram = &g_array_index (blocks, HfStreamBlock, i).ram;
    guint8 length = strlen (ram->id);

    if (!put (classic, &length, 1, error) || !put (classic, ram->id, length, error)
        || !put_be64 (classic, ram->used_length, error))
      return FALSE;
  }
  return put_end_of_section (classic, error);
}

/* ---- to classic: pages ---- */

/* The word of an item, and the block's id with the first one. */
static gboolean
put_item (Classic *classic, const HfStreamBlock *block, guint64 page, guint kind, GError **error)
{
  guint8 length = strlen (block->ram.id);

  if (!put_be64 (classic, page * classic->page_size | kind | (page > 0 ? ITEM_CONTINUE : 0), error))
    return FALSE;
  return page > 0 || (put (classic, &length, 1, error) && put (classic, block->ram.id, length, error));
}

static gboolean
put_zeros (Classic *classic, const HfStreamBlock *block, guint64 first, guint64 n, GError **error)
{
  static const guint8 fill = 0;

  for (guint64 page = first; page < first + n; page++) {
    if (!put_item (classic, block, page, ITEM_ZERO, error) || !put (classic, &fill, 1, error))
      return FALSE;
  }
  return TRUE;
}

static gboolean
put_pages (Classic *classic, const HfStreamBlock *block, guint64 first, guint64 n, GError **error)
{
  guint64 at = block->pages_offset + first * classic->page_size;

  if (!hf_reader_get_large (classic->image->reader, at, classic->pages, n * classic->page_size, error))
    return FALSE;
  for (guint64 i = 0; i < n; i++) {
    if (!put_item (classic, block, first + i, ITEM_PAGE, error)
        || !put (classic, classic->pages + i * classic->page_size, classic->page_size, error))
      return FALSE;
  }
  return TRUE;
}

static gboolean
is_set (const guint8 *bitmap, guint64 bit)
{
  return bitmap[bit / 8] >> (bit % 8) & 1;
}

/* So many bits from bit on are like it; at most max. */
static guint64
count_alike (const guint8 *bitmap, guint64 bit, guint64 end, guint64 max)
{
  gboolean set = is_set (bitmap, bit);
  guint64 n = 1;

  while (bit + n < end && n < max && is_set (bitmap, bit + n) == set)
    n++;
  return n;
}

/* The pages [first, first + n) of block, whose bits are bitmap. */
static gboolean
put_piece (Classic *classic, const HfStreamBlock *block, guint64 first, guint64 n, const guint8 *bitmap, GError **error)
{
  for (guint64 bit = 0; bit < n;) {
    guint64 alike = count_alike (bitmap, bit, n, PIECE / classic->page_size);

    if (is_set (bitmap, bit) ? !put_pages (classic, block, first + bit, alike, error)
                             : !put_zeros (classic, block, first + bit, alike, error))
      return FALSE;
    bit += alike;
    classic->done += alike * classic->page_size;
    if (!hf_stream_job_step (classic->job, classic->done, classic->total, error))
      return FALSE;
  }
  return TRUE;
}

static gboolean
put_block (Classic *classic, const HfStreamBlock *block, GError **error)
{
  guint64 n_pages = block->ram.used_length / classic->page_size;
  guint8 bitmap[BITMAP_PIECE];

  for (guint64 first = 0; first < n_pages; first += 8 * sizeof bitmap) {
    guint64 n = MIN (n_pages - first, 8 * sizeof bitmap);

    if (!hf_reader_get (classic->image->reader, block->bitmap_offset + first / 8, bitmap, (n + 7) / 8, error)
        || !put_piece (classic, block, first, n, bitmap, error))
      return FALSE;
  }
  return TRUE;
}

static gboolean
put_ram (Classic *classic, GError **error)
{
  const GArray *blocks = classic->map->blocks;
  guint8 part[5] = { TYPE_PART };

  hf_put_be32 (classic->start->section_id, part + 1);
  if (!put (classic, part, sizeof part, error))
    return FALSE;
  for (guint i = 0; i < blocks->len; i++) {
    if (!put_block (classic, &g_array_index (blocks, HfStreamBlock, i), error))
      return FALSE;
  }
  return put_end_of_section (classic, error);
}

/* ---- to classic: the whole ---- */

static gboolean
refuse (GError **error, HfStreamError code, const char *why)
{
  g_set_error_literal (error, HF_STREAM_ERROR, code, why);
  return FALSE;
}

/* Everything that the map must say before its bitmaps are believed. */
static gboolean
prepare (Classic *classic, GError **error)
{
  const GArray *blocks = classic->map->blocks;

  if (!classic->map->mapped_ram)
    return refuse (error, HF_STREAM_ERROR_UNSUPPORTED, "this is a classic stream already");
  if (g_strv_contains ((const char *const *)classic->map->capabilities, "x-ignore-shared"))
    return refuse (error, HF_STREAM_ERROR_UNSUPPORTED, "the file was saved with x-ignore-shared: some blocks are not in it");
  classic->start = hf_stream_map_find (classic->map, "ram");
  if (!classic->start || classic->start->type != TYPE_START || blocks->len == 0)
    return refuse (error, HF_STREAM_ERROR_MALFORMED, "there is no START section of ram");
  classic->page_size = g_array_index (blocks, HfStreamBlock, 0).page_size;
  if (classic->page_size < PAGE_SIZE_MIN || classic->page_size > PAGE_SIZE_MAX || (classic->page_size & (classic->page_size - 1)))
    return refuse (error, HF_STREAM_ERROR_UNSUPPORTED, "a page size that no target of QEMU has");
  for (guint i = 0; i < blocks->len; i++) {
    const HfStreamBlock *block = &g_array_index (blocks, HfStreamBlock, i);

    if (!block->mapped || block->page_size != classic->page_size || block->ram.used_length % classic->page_size)
      return refuse (error, HF_STREAM_ERROR_MALFORMED, "the RAM blocks do not have the same page size");
    classic->total += block->ram.used_length;
  }
  return TRUE;
}

/* Where the pages go: before the first PART, command or END. QEMU 10 writes early devices (virtio-mem) behind RAM START, and they
   are to be loaded before the pages. */
static guint64
find_place (const Classic *classic)
{
  const GPtrArray *sections = classic->map->sections;

  for (guint i = 0; i < sections->len; i++) {
    const HfStreamSection *section = g_ptr_array_index (sections, i);

    if (section->offset > classic->start->offset
        && (section->type == TYPE_PART || section->type == TYPE_END || section->type == TYPE_COMMAND))
      return section->offset;
  }
  return classic->start->offset + classic->start->length;
}

static gboolean
put_all (Classic *classic, GError **error)
{
  guint64 place = find_place (classic);

  return put_head (classic, error) && put_start (classic, error)
         && put_range (classic, classic->start->offset + classic->start->length, place, error) && put_ram (classic, error)
         && put_range (classic, place, classic->map->end, error);
}

/* Waits for the blocks, looks at the end, adds the trailer. */
static gboolean
finish (Classic *classic, HfSaveFile *file, GError **error)
{
  g_autoptr (GArray) checksums = NULL;
  g_autoptr (GBytes) bytes = NULL;
  HfTrailer trailer = { .block_size = HF_TRAILER_BLOCK_SIZE, .flags = HF_TRAILER_COMPLETE };
  guint64 length = hf_block_writer_length (classic->writer);
  int fd = hf_save_file_fd (file);

  if (!hf_block_writer_finish (classic->writer, &checksums, error))
    return FALSE;
  trailer.payload_length = length;
  trailer.time = g_get_real_time ();
  trailer.n_blocks = checksums->len;
  trailer.checksums = (guint64 *)(gpointer)checksums->data;
  bytes = hf_trailer_encode (&trailer);
  /* The stream ends with the description, so its last block is no hole and the file has its length. */
  if (!hf_verify_end (fd, 0, length, error))
    return FALSE;
  if (hf_pwrite_all (fd, g_bytes_get_data (bytes, NULL), g_bytes_get_size (bytes), (gint64)length, NULL, error) != 0)
    return FALSE;
  return hf_save_file_commit (file, length + g_bytes_get_size (bytes), error);
}

gboolean
hf_convert_to_classic (HfImage *image, const char *output, const HfConvertOptions *options, const HfStreamJob *job,
                       GError **error)
{
  g_autoptr (HfVerifyReport) report = NULL;
  g_autoptr (HfSaveFile) file = NULL;
  g_autoptr (HfBlockWriter) writer = NULL;
  g_autofree guint8 *pages = g_malloc (PIECE);
  Classic classic = { .image = image, .job = job, .pages = pages };

  if (!verify_input (image, job, &report, error))
    return FALSE;
  classic.map = report->forward;
  if (!prepare (&classic, error))
    return FALSE;
  file = hf_save_file_new (output, 0, options->flags, error);
  writer = file ? hf_block_writer_new (file, 0, options->engine, error) : NULL;
  classic.writer = writer;
  return writer && put_all (&classic, error) && finish (&classic, file, error);
}
