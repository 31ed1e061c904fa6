/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A classic stream into a mapped-ram file, while it arrives.
 *
 * Owns: the parser, which pages are there, what is written at the end. Thread: the one that made it.
 *
 * Theory of operation: the block list fixes every offset. Pages go to their places through the run writer; nothing else is
 * written before the end of RAM. What follows RAM goes behind the last block as it comes. hf_mapped_writer_finish then writes
 * what makes it a file: header, CONFIGURATION, RAM START with the headers of the blocks, END, and last the bitmaps. So what is
 * broken off does not even begin with QEVM.
 *
 * PART sections are left out (they would say nothing), a SWITCHOVER_START is kept where it was, before END. XBZRLE data is a
 * difference to the page that was sent before, so that page is read back; xbzrle is rare over exec:, this is slow and right.
 *
 * Source: QEMU's docs/devel/migration/mapped-ram.rst; docs/devel/migration/main.rst; docs/xbzrle.txt for the encoding.
 */
#include "config.h"

#include "stream/mapped-writer.h"

#include "base/bytes.h"
#include "stream/mapped-ram.h"
#include "stream/page-set.h"
#include "stream/run-writer.h"

#include <holdfast/io.h>
#include <string.h>

#define TYPE_START 0x01
#define TYPE_END 0x03
#define TYPE_FOOTER 0x7e
#define RAM_VERSION 4u
#define FLAG_MEM_SIZE 0x04u
#define FLAG_EOS 0x10u

#define COMMAND_SWITCHOVER_START 0x0b
#define COMMAND_LENGTH 5u

/* A page whose contents came costs the sender what its bit can cost us; one of XBZRLE data, which may follow a page of zeros,
   costs 14 bytes. So the page sets may have what was received and this, which alone is enough for 2 TiB of pages of 4 KiB. */
#define FREE_CHUNKS 16384u

#define PIECE (1u << 20)

struct _HfMappedWriter {
  HfSaveFile *file;
  guint64 start;
  HfEngineKind kind;
  HfFeed *feed;
  HfRunWriter *runs;
  GError *failure;

  GByteArray *head; /* header, CONFIGURATION; later RAM START up to its block list */
  guint32 page_size, section_id;
  HfMappedBlock *blocks;
  HfPageSet **sets;
  guint n_blocks;
  guint8 *page; /* one page, for XBZRLE */
  guint8 command[COMMAND_LENGTH];
  gboolean has_command;

  gboolean ended;
  guint64 tail; /* file offset where the bytes of rest go */
  GByteArray *rest;
  guint64 n_pages, n_zero;
  guint64 n_chunks; /* of all sets */
};

static void
append_u8 (GByteArray *bytes, guint8 value)
{
  g_byte_array_append (bytes, &value, 1);
}

/* EOS, and the footer if the source wrote footers. */
static void
append_end_of_section (HfMappedWriter *writer, GByteArray *bytes)
{
  hf_append_be64 (bytes, FLAG_EOS);
  if (!hf_feed_footers (writer->feed))
    return;
  append_u8 (bytes, TYPE_FOOTER);
  hf_append_be32 (bytes, writer->section_id);
}

/* ---- what the stream says before its pages ---- */

static gboolean
on_configuration (const guint8 *bytes, gsize length, guint32 page_size, const char *const *capabilities, gpointer data,
                  GError **error)
{
  HfMappedWriter *writer = data;

  if (g_strv_contains (capabilities, "x-ignore-shared")) {
    g_set_error_literal (error, HF_STREAM_ERROR, HF_STREAM_ERROR_UNSUPPORTED,
                         "the stream was saved with x-ignore-shared, and does not say which blocks it leaves out");
    return FALSE;
  }
  writer->head = hf_mapped_ram_configuration (bytes, length, TRUE, error);
  writer->page_size = page_size;
  return writer->head != NULL;
}

static void
append_ram_start (HfMappedWriter *writer, guint32 section_id, guint64 total)
{
  append_u8 (writer->head, TYPE_START);
  hf_append_be32 (writer->head, section_id);
  append_u8 (writer->head, strlen ("ram"));
  g_byte_array_append (writer->head, (const guint8 *)"ram", strlen ("ram"));
  hf_append_be32 (writer->head, 0);
  hf_append_be32 (writer->head, RAM_VERSION);
  hf_append_be64 (writer->head, total | FLAG_MEM_SIZE);
}

static gboolean
on_blocks (guint32 section_id, const HfRamBlock *blocks, guint n_blocks, gpointer data, GError **error)
{
  HfMappedWriter *writer = data;
  guint64 total = 0;

  for (guint i = 0; i < n_blocks; i++)
    total += blocks[i].used_length; /* the parser bounded the sum, and by that the pointers of the page sets to 16 MiB */
  append_ram_start (writer, section_id, total);
  writer->section_id = section_id;
  writer->blocks = g_new0 (HfMappedBlock, n_blocks);
  if (!hf_mapped_ram_plan (blocks, n_blocks, writer->page_size, writer->start + writer->head->len, writer->blocks, &writer->tail,
                           error))
    return FALSE;
  writer->n_blocks = n_blocks;
  writer->sets = g_new0 (HfPageSet *, n_blocks);
  for (guint i = 0; i < n_blocks; i++)
    writer->sets[i] = hf_page_set_new (blocks[i].used_length / writer->page_size);
  writer->runs = hf_run_writer_new (writer->file, writer->page_size, writer->kind, error);
  return writer->runs != NULL;
}

/* ---- pages ---- */

static gboolean
put_page (HfMappedWriter *writer, guint block, guint64 offset, const guint8 *page, GError **error)
{
  if (hf_page_set_add (writer->sets[block], offset / writer->page_size)
      && ++writer->n_chunks > FREE_CHUNKS + hf_feed_offset (writer->feed) / HF_PAGE_SET_CHUNK) {
    g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_UNSUPPORTED,
                 "pages all over the guest's RAM, in a stream of %" G_GUINT64_FORMAT " bytes so far",
                 hf_feed_offset (writer->feed));
    return FALSE;
  }
  return hf_run_writer_put (writer->runs, writer->blocks[block].pages_offset + offset, page, writer->page_size, error);
}

static gboolean
on_page (guint block, guint64 offset, const guint8 *page, gpointer data, GError **error)
{
  HfMappedWriter *writer = data;

  writer->n_pages++;
  return put_page (writer, block, offset, page, error);
}

static gboolean
on_zero (guint block, guint64 offset, gpointer data, G_GNUC_UNUSED GError **error)
{
  HfMappedWriter *writer = data;

  writer->n_pages++;
  writer->n_zero++;
  hf_page_set_remove (writer->sets[block], offset / writer->page_size);
  return TRUE;
}

/* A length of the encoding: 7 bits, and 7 more if the first byte says so. FALSE: cut or longer. */
static gboolean
take_length (const guint8 **bytes, const guint8 *end, gsize *ret)
{
  gsize value;

  if (*bytes == end)
    return FALSE;
  value = **bytes & 0x7f;
  if (*(*bytes)++ & 0x80) {
    if (*bytes == end || (**bytes & 0x80))
      return FALSE;
    value |= (gsize) * (*bytes)++ << 7;
  }
  *ret = value;
  return TRUE;
}

/* Pairs of runs: so many bytes are as before, so many are new and follow. Only the first may leave nothing as before. */
static gboolean
apply_xbzrle (guint8 *page, gsize page_size, const guint8 *bytes, gsize length)
{
  const guint8 *end = bytes + length, *begin = bytes;
  gsize at = 0, same = 0, new = 0;

  while (bytes < end) {
    gboolean first = bytes == begin;

    if (!take_length (&bytes, end, &same) || (same == 0 && !first) || same > page_size - at)
      return FALSE;
    at += same;
    if (!take_length (&bytes, end, &new) || new == 0 || new > page_size - at || new > (gsize)(end - bytes))
      return FALSE;
    memcpy (page + at, bytes, new);
    at += new;
    bytes += new;
  }
  return TRUE;
}

static gboolean
on_xbzrle (guint block, guint64 offset, const guint8 *encoded, gsize length, gpointer data, GError **error)
{
  HfMappedWriter *writer = data;
  guint64 place = writer->blocks[block].pages_offset + offset;

  writer->n_pages++;
  if (!writer->page)
    writer->page = g_malloc (writer->page_size);
  if (!hf_page_set_has (writer->sets[block], offset / writer->page_size))
    memset (writer->page, 0, writer->page_size);
  else if (!hf_run_writer_get (writer->runs, place, writer->page, writer->page_size, error))
    return FALSE;
  if (!apply_xbzrle (writer->page, writer->page_size, encoded, length)) {
    g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_MALFORMED,
                 "the XBZRLE data of the page at 0x%" G_GINT64_MODIFIER "x of RAM block '%s' is wrong", offset,
                 writer->blocks[block].ram.id);
    return FALSE;
  }
  return put_page (writer, block, offset, writer->page, error);
}

/* ---- what follows RAM ---- */

static gboolean
on_command (const guint8 *bytes, gsize length, gpointer data, GError **error)
{
  HfMappedWriter *writer = data;

  if (length != COMMAND_LENGTH || hf_get_be16 (bytes + 1) != COMMAND_SWITCHOVER_START || !writer->blocks || writer->has_command) {
    g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_UNSUPPORTED, "the command 0x%02x, which has no place in a file",
                 hf_get_be16 (bytes + 1));
    return FALSE;
  }
  memcpy (writer->command, bytes, length);
  writer->has_command = TRUE;
  return TRUE;
}

static gboolean
write_rest (HfMappedWriter *writer, GError **error)
{
  if (hf_pwrite_all (hf_save_file_fd (writer->file), writer->rest->data, writer->rest->len, writer->tail, NULL, error))
    return FALSE;
  writer->tail += writer->rest->len;
  g_byte_array_set_size (writer->rest, 0);
  return TRUE;
}

static gboolean
on_ram_end (G_GNUC_UNUSED guint64 stream_offset, gpointer data, G_GNUC_UNUSED GError **error)
{
  HfMappedWriter *writer = data;

  writer->ended = TRUE;
  append_end_of_section (writer, writer->rest);
  if (writer->has_command)
    g_byte_array_append (writer->rest, writer->command, sizeof writer->command);
  append_u8 (writer->rest, TYPE_END);
  hf_append_be32 (writer->rest, writer->section_id);
  append_end_of_section (writer, writer->rest);
  return TRUE;
}

static gboolean
on_rest (const guint8 *bytes, gsize length, gpointer data, GError **error)
{
  HfMappedWriter *writer = data;

  while (length > 0) {
    gsize part = MIN (length, PIECE - MIN (writer->rest->len, PIECE));

    g_byte_array_append (writer->rest, bytes, part);
    bytes += part;
    length -= part;
    if (writer->rest->len >= PIECE && !write_rest (writer, error))
      return FALSE;
  }
  return TRUE;
}

/* ---- the end ---- */

static gboolean
write_headers (HfMappedWriter *writer, GError **error)
{
  int fd = hf_save_file_fd (writer->file);

  if (hf_pwrite_all (fd, writer->head->data, writer->head->len, writer->start, NULL, error))
    return FALSE;
  for (guint i = 0; i < writer->n_blocks; i++) {
    const HfMappedBlock *block = &writer->blocks[i];
    g_autoptr (GByteArray) fields = g_byte_array_new ();

    hf_mapped_ram_append_block (block, writer->page_size, fields);
    if (hf_pwrite_all (fd, fields->data, fields->len, block->bitmap_offset - fields->len, NULL, error))
      return FALSE;
  }
  return TRUE;
}

/* A piece without a page stays a hole, which reads as zeros. */
static gboolean
write_bitmap (HfMappedWriter *writer, guint index, GError **error)
{
  const HfMappedBlock *block = &writer->blocks[index];

  for (guint64 i = 0; i < hf_page_set_n_chunks (writer->sets[index]); i++) {
    const guint8 *bytes = hf_page_set_chunk (writer->sets[index], i);
    guint64 at = i * HF_PAGE_SET_CHUNK;

    if (bytes
        && hf_pwrite_all (hf_save_file_fd (writer->file), bytes, MIN (HF_PAGE_SET_CHUNK, block->bitmap_length - at),
                          block->bitmap_offset + at, NULL, error))
      return FALSE;
  }
  return TRUE;
}

static gboolean
finish (HfMappedWriter *writer, GError **error)
{
  static const char *const places[] = { [HF_FEED_HEADER] = "before its RAM", [HF_FEED_RAM] = "within its RAM" };

  if (!writer->ended) {
    g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_INCOMPLETE, "the stream ends %s, after %" G_GUINT64_FORMAT " bytes",
                 places[hf_feed_state (writer->feed)], hf_feed_offset (writer->feed));
    return FALSE;
  }
  if (!write_rest (writer, error) || !hf_run_writer_finish (writer->runs, error) || !write_headers (writer, error))
    return FALSE;
  for (guint i = 0; i < writer->n_blocks; i++) {
    if (!write_bitmap (writer, i, error))
      return FALSE;
  }
  return TRUE;
}

/* ---- the whole ---- */

static const HfFeedEvents events = { on_configuration, on_blocks, on_page, on_zero, on_xbzrle, on_command, on_ram_end, on_rest };

HfMappedWriter *
hf_mapped_writer_new (HfSaveFile *file, guint64 start, HfEngineKind kind, GError **error)
{
  HfMappedWriter *writer;

  if (start > G_MAXINT64) {
    g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_UNSUPPORTED, "a stream at offset %" G_GUINT64_FORMAT, start);
    return NULL;
  }
  writer = g_new0 (HfMappedWriter, 1);
  writer->file = file;
  writer->start = start;
  writer->kind = kind;
  writer->feed = hf_feed_new (&events, writer);
  writer->rest = g_byte_array_new ();
  return writer;
}

void
hf_mapped_writer_free (HfMappedWriter *writer)
{
  if (!writer)
    return;
  hf_run_writer_free (writer->runs);
  hf_feed_free (writer->feed);
  for (guint i = 0; i < writer->n_blocks; i++)
    hf_page_set_free (writer->sets[i]);
  g_free (writer->sets);
  g_free (writer->blocks);
  g_clear_pointer (&writer->head, g_byte_array_unref);
  g_byte_array_unref (writer->rest);
  g_free (writer->page);
  g_clear_error (&writer->failure);
  g_free (writer);
}

/* The first error stays. */
static gboolean
keep (HfMappedWriter *writer, gboolean ok, GError **error)
{
  if (!ok && error)
    *error = g_error_copy (writer->failure);
  return ok;
}

gboolean
hf_mapped_writer_feed (HfMappedWriter *writer, const guint8 *bytes, gsize length, GError **error)
{
  return keep (writer, !writer->failure && hf_feed_bytes (writer->feed, bytes, length, &writer->failure), error);
}

gboolean
hf_mapped_writer_finish (HfMappedWriter *writer, guint64 *ret_length, GError **error)
{
  if (!keep (writer, !writer->failure && finish (writer, &writer->failure), error))
    return FALSE;
  *ret_length = writer->tail;
  return TRUE;
}

void
hf_mapped_writer_counts (const HfMappedWriter *writer, guint64 *ret_pages, guint64 *ret_zero)
{
  *ret_pages = writer->n_pages;
  *ret_zero = writer->n_zero;
}
