/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns: the blocks that are being read, an engine, a descriptor with O_DIRECT. Thread: that of the verification.
 *
 * Theory of operation: the blocks of the trailer are read in their order, some ahead, past the page cache where that can be: the
 * file is larger than what anybody will look at again. Each has its slot; block k is in slot k modulo the number of slots.
 * Somebody who wants a byte gets the block that contains it, once everything before it is tested. What was passed is gone; the
 * walk forward does not come back, and reads a few bytes by itself if it does.
 *
 * What lies in a bad block is what the owner of the guest wants to know. Pages of a classic stream are told by the walk as it
 * passes them, behind the test of the block in which they begin; only those of bad blocks are remembered, as ranges. The rest
 * (places of mapped-ram, devices) is in the maps, once the walks are done.
 */

#include "config.h"

#include "stream/verify-parts.h"

#include <fcntl.h>
#include <holdfast/io.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEPTH 8u
#define BYTES_MAX (16u << 20)
/* Blocks are multiples of 64 KiB, so only the ends of the payload need rounding; 4096 suits what holdfast writes to. */
#define ALIGNMENT 4096u
/* So much of what lies in a bad block is named. */
#define PLACES_MAX 4u

typedef struct {
  HfEngineRequest request;
  struct iovec iov;
  guint8 *bytes;  /* of the trailer's block size */
  guint64 offset; /* of bytes[0] in the file, aligned down */
  gboolean busy, failed;
} Slot;

/* Pages of a RAM block; n_pages 0: a section. */
typedef struct {
  char *id;
  guint64 first, last, n_pages;
} Place;

typedef struct {
  guint64 start, end;
  guint line; /* in the report's problems */
  Place places[PLACES_MAX];
  guint n_places;
  gboolean more; /* than these */
} BadBlock;

typedef struct {
  const HfRamBlock *block; /* NULL: none */
  guint64 page, start, end;
} PassedPage;

struct _HfVerifySums {
  HfImage *image;
  HfTrailer trailer; /* the image's, or blocks of the usual size without checksums */
  const HfStreamJob *job;
  HfVerifyReport *report;
  HfEngine *engine; /* NULL: through the reader, which has no descriptor */
  int direct;       /* -1: none */
  Slot slots[DEPTH];
  guint n_slots;
  guint64 submitted; /* blocks */
  guint64 tested;    /* blocks; the last one of them is the one that can be lent */
  GPtrArray *bad;    /* BadBlock, those that have a line in the report */
  PassedPage passed; /* the last page; it may reach into blocks that are tested later */
};

/* What lies in a bad block. */

static void
bad_block_free (gpointer data)
{
  BadBlock *bad = data;

  for (guint i = 0; i < bad->n_places; i++)
    g_free (bad->places[i].id);
  g_free (bad);
}

/* NULL: there is no room for another one. */
static Place *
get_place (BadBlock *bad, const char *id, gboolean section)
{
  for (guint i = 0; i < bad->n_places; i++) {
    if (g_str_equal (bad->places[i].id, id) && section == (bad->places[i].n_pages == 0))
      return &bad->places[i];
  }
  bad->more |= bad->n_places == PLACES_MAX;
  if (bad->n_places == PLACES_MAX)
    return NULL;
  bad->places[bad->n_places] = (Place){ .id = g_strdup (id), .first = G_MAXUINT64 };
  return &bad->places[bad->n_places++];
}

static void
add_pages (BadBlock *bad, const char *id, guint64 first, guint64 last)
{
  Place *place = get_place (bad, id, FALSE);

  if (!place)
    return;
  place->first = MIN (place->first, first);
  place->last = MAX (place->last, last);
  place->n_pages += last - first + 1;
}

static void
add_passed (BadBlock *bad, const PassedPage *passed)
{
  if (passed->block && passed->start < bad->end && passed->end > bad->start)
    add_pages (bad, passed->block->id, passed->page, passed->page);
}

void
hf_verify_sums_pass_page (const HfRamBlock *block, guint64 page, guint64 offset, guint64 length, gpointer data)
{
  HfVerifySums *sums = data;
  guint n = sums->bad->len;

  sums->passed = (PassedPage){ block, page, offset, offset + length };
  /* Of the blocks that are tested it can touch the last two: its first bytes and, where its name was read, the next ones. */
  for (guint i = n > 2 ? n - 2 : 0; i < n; i++)
    add_passed (sums->bad->pdata[i], &sums->passed);
}

static void
note_bad (HfVerifySums *sums, guint64 start, guint64 length)
{
  BadBlock *bad;

  if (sums->report->problems->len < sums->report->n_problems)
    return; /* it has no line */
  bad = g_new0 (BadBlock, 1);
  bad->start = start;
  bad->end = start + length;
  bad->line = sums->report->problems->len - 1;
  add_passed (bad, &sums->passed);
  g_ptr_array_add (sums->bad, bad);
}

static void
add_mapped (BadBlock *bad, const HfStreamMap *map)
{
  for (guint i = 0; i < map->blocks->len; i++) {
    const HfStreamBlock *block = &g_array_index (map->blocks, HfStreamBlock, i);
    guint64 pages_end;

    if (block->page_size == 0 || !g_uint64_checked_add (&pages_end, block->pages_offset, block->ram.used_length)
        || block->pages_offset >= bad->end || pages_end <= bad->start)
      continue;
    add_pages (bad, block->ram.id, (MAX (bad->start, block->pages_offset) - block->pages_offset) / block->page_size,
               (MIN (bad->end, pages_end) - 1 - block->pages_offset) / block->page_size);
  }
}

static void
add_sections (BadBlock *bad, const HfStreamMap *map)
{
  for (guint i = 0; i < map->sections->len; i++) {
    const HfStreamSection *section = map->sections->pdata[i];

    if (*section->id && !g_str_equal (section->id, "ram") && section->offset < bad->end
        && section->offset + section->length > bad->start)
      get_place (bad, section->id, TRUE);
  }
}

static char *
describe_place (const Place *place)
{
  g_autofree char *id = hf_stream_quote (place->id);

  if (place->n_pages == 0)
    return g_strdup_printf ("section %s", id);
  if (place->n_pages == 1)
    return g_strdup_printf ("page %" G_GUINT64_FORMAT " of %s", place->first, id);
  if (place->n_pages >= place->last - place->first + 1) /* one may have come twice */
    return g_strdup_printf ("pages %" G_GUINT64_FORMAT " to %" G_GUINT64_FORMAT " of %s", place->first, place->last, id);
  return g_strdup_printf ("%" G_GUINT64_FORMAT " pages from %" G_GUINT64_FORMAT " to %" G_GUINT64_FORMAT " of %s", place->n_pages,
                          place->first, place->last, id);
}

static void
name_bad_block (const HfVerifySums *sums, BadBlock *bad)
{
  const HfVerifyReport *report = sums->report;
  g_autoptr (GString) text = g_string_new (NULL);

  if (report->forward)
    add_mapped (bad, report->forward);
  if (report->forward && report->tail)
    add_sections (bad, report->tail->end ? report->tail : report->forward);
  for (guint i = 0; i < bad->n_places; i++) {
    g_autofree char *place = describe_place (&bad->places[i]);

    g_string_append_printf (text, "%s%s", i ? ", " : "; it holds ", place);
  }
  g_string_append (text, bad->more ? " and more" : "");
  hf_verify_problem_add (sums->report, bad->line, text->str);
}

static void
slot_done (HfEngineRequest *request, const GError *error)
{
  Slot *slot = request->data;

  slot->busy = FALSE;
  slot->failed = error != NULL;
}

static Slot *
slot_of (HfVerifySums *sums, guint64 index)
{
  return &sums->slots[index % sums->n_slots];
}

static gboolean
submit (HfVerifySums *sums, guint64 index, GError **error)
{
  Slot *slot = slot_of (sums, index);
  guint64 offset, length, end;

  hf_trailer_block (&sums->trailer, index, &offset, &length);
  slot->offset = offset - offset % ALIGNMENT;
  /* The last block's end is rounded up into the trailer, or to the end of the file. */
  end = (offset + length + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  slot->iov = (struct iovec){ .iov_base = slot->bytes, .iov_len = (gsize)(end - slot->offset) };
  slot->request = (HfEngineRequest){
    .operation = HF_IO_READ,
    .fd = sums->direct >= 0 ? sums->direct : sums->image->fd,
    .offset = (gint64)slot->offset,
    .iov = &slot->iov,
    .n_iov = 1,
    .eof_ok = TRUE,
    .done = slot_done,
    .data = slot,
  };
  slot->busy = TRUE;
  slot->failed = FALSE;
  if (!sums->engine) {
    slot->busy = FALSE;
    slot->offset = offset;
    return hf_reader_get_large (sums->image->reader, offset, slot->bytes, (gsize)length, error);
  }
  if (hf_engine_submit (sums->engine, &slot->request, error))
    return TRUE;
  slot->busy = FALSE;
  return FALSE;
}

/* As many as there are slots, behind those that were tested. */
static gboolean
read_ahead (HfVerifySums *sums, GError **error)
{
  guint ahead = sums->engine ? sums->n_slots : 1;

  while (sums->submitted < sums->trailer.n_blocks && sums->submitted < sums->tested + ahead) {
    if (!submit (sums, sums->submitted, error))
      return FALSE;
    sums->submitted++;
  }
  return TRUE;
}

/* The block is there. */
static gboolean
wait_for (HfVerifySums *sums, guint64 index, guint64 offset, guint64 length, GError **error)
{
  Slot *slot = slot_of (sums, index);

  while (slot->busy)
    hf_engine_wait (sums->engine);
  if (slot->failed) {
    /* The first error of the engine may be that of another block. */
    if (!hf_engine_drain (sums->engine, error))
      return FALSE;
    g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE, "read at offset %" G_GUINT64_FORMAT " failed", offset);
    return FALSE;
  }
  if (!sums->engine || slot->request.moved >= offset + length - slot->offset)
    return TRUE;
  g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE,
               "read at offset %" G_GUINT64_FORMAT ": the file has become shorter meanwhile", offset);
  return FALSE;
}

/* The next one. */
static gboolean
test_block (HfVerifySums *sums, GError **error)
{
  const HfTrailer *trailer = &sums->trailer;
  guint64 index = sums->tested, offset, length;
  const guint8 *bytes;

  if (!read_ahead (sums, error))
    return FALSE;
  hf_trailer_block (trailer, index, &offset, &length);
  if (!wait_for (sums, index, offset, length, error))
    return FALSE;
  bytes = slot_of (sums, index)->bytes + (offset - slot_of (sums, index)->offset);
  if (trailer->checksums && hf_trailer_checksum (bytes, (gsize)length) != trailer->checksums[index]) {
    hf_verify_problem (sums->report,
                       "block %" G_GUINT64_FORMAT " of the trailer (offset %" G_GUINT64_FORMAT ", %" G_GUINT64_FORMAT
                       " bytes) is not what was written: its checksum is another",
                       index, offset, length);
    note_bad (sums, offset, length);
  }
  sums->tested++;
  return hf_stream_job_step (sums->job, offset + length - sums->image->start, trailer->payload_length, error);
}

/* HfReaderLend. */
static gboolean
lend (guint64 offset, const guint8 **ret_block, guint64 *ret_offset, gsize *ret_length, gpointer data, GError **error)
{
  HfVerifySums *sums = data;
  const HfTrailer *trailer = &sums->trailer;
  guint64 start, length;

  if (offset < sums->image->start || offset >= sums->image->end)
    return TRUE;
  for (;;) {
    if (sums->tested > 0) {
      hf_trailer_block (trailer, sums->tested - 1, &start, &length);
      if (offset < start)
        return TRUE;
      if (offset - start < length)
        break;
    }
    if (!test_block (sums, error))
      return FALSE;
  }
  *ret_block = slot_of (sums, sums->tested - 1)->bytes + (start - slot_of (sums, sums->tested - 1)->offset);
  *ret_offset = start;
  *ret_length = (gsize)length;
  return TRUE;
}

/* A second descriptor, because O_DIRECT belongs to the open file. The one that cannot read is of no use. */
static int
open_direct (int fd)
{
  g_autofree char *path = g_strdup_printf ("/proc/self/fd/%d", fd);
  int direct = open (path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_DIRECT);
  void *bytes = NULL;
  gboolean works;

  if (direct < 0)
    return -1;
  works = posix_memalign (&bytes, ALIGNMENT, ALIGNMENT) == 0 && hf_pread_all_eof (direct, bytes, ALIGNMENT, 0, NULL, NULL) >= 0;
  free (bytes);
  if (works)
    return direct;
  close (direct);
  return -1;
}

static gboolean
start (HfVerifySums *sums, GError **error)
{
  guint32 block_size = sums->trailer.block_size;

  sums->n_slots = CLAMP (BYTES_MAX / block_size, 2, DEPTH);
  for (guint i = 0; i < sums->n_slots; i++) {
    void *bytes = NULL;

    if (posix_memalign (&bytes, ALIGNMENT, block_size) != 0) {
      g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE, "no memory for blocks of %u bytes", block_size);
      return FALSE;
    }
    sums->slots[i].bytes = bytes;
  }
  if (sums->image->fd < 0)
    return TRUE;
  sums->direct = open_direct (sums->image->fd);
  sums->engine = hf_engine_new (HF_ENGINE_AUTO, sums->n_slots, (gsize)sums->n_slots * block_size, error);
  return sums->engine != NULL;
}

static HfTrailer
without_checksums (const HfImage *image)
{
  guint64 length = image->end - image->start;

  return (HfTrailer){
    .block_size = HF_TRAILER_BLOCK_SIZE,
    .payload_offset = image->start,
    .payload_length = length,
    .n_blocks = hf_trailer_count_blocks (image->start, length, HF_TRAILER_BLOCK_SIZE),
  };
}

HfVerifySums *
hf_verify_sums_new (HfImage *image, const HfStreamJob *job, HfVerifyReport *report, GError **error)
{
  g_autoptr (HfVerifySums) sums = g_new0 (HfVerifySums, 1);

  sums->image = image;
  sums->trailer = image->has_trailer ? image->trailer : without_checksums (image);
  sums->job = job;
  sums->report = report;
  sums->bad = g_ptr_array_new_with_free_func (bad_block_free);
  sums->direct = -1;
  return start (sums, error) ? g_steal_pointer (&sums) : NULL;
}

void
hf_verify_sums_lend (HfVerifySums *sums)
{
  hf_reader_set_lend (sums->image->reader, lend, sums);
}

gboolean
hf_verify_sums_finish (HfVerifySums *sums, GError **error)
{
  while (sums->tested < sums->trailer.n_blocks) {
    if (!test_block (sums, error))
      return FALSE;
  }
  for (guint i = 0; i < sums->bad->len; i++)
    name_bad_block (sums, sums->bad->pdata[i]);
  return TRUE;
}

void
hf_verify_sums_free (HfVerifySums *sums)
{
  if (!sums)
    return;
  hf_reader_set_lend (sums->image->reader, NULL, NULL);
  hf_engine_free (sums->engine); /* waits: the slots are its until then */
  for (guint i = 0; i < G_N_ELEMENTS (sums->slots); i++)
    free (sums->slots[i].bytes);
  if (sums->direct >= 0)
    close (sums->direct);
  g_ptr_array_unref (sums->bad);
  g_free (sums);
}
