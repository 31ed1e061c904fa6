/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns a row of blocks in memory, and which bytes of the file each one holds while it is filled and while it is written.
 *
 * Thread: the one that made it; the engine's callbacks run there too.
 *
 * Theory of operation: a slot is memory for one block of the file's grid, and a byte lies in it where it lies in the block, so
 * what is aligned in the file is aligned in memory. The caller fills the current slot; when it is full its checksum is taken,
 * while it is still in the processor's cache, and it is given to the engine; an idle one takes its place. A full slot is one
 * direct write; only the first and the last may need two more, through the buffered descriptor, for what is off the alignment.
 *
 * A block of zeros is not written at all. That is safe because the file is new (O_EXCL): behind the prefix nothing was ever
 * written that a hole would show.
 */

#include "config.h"

#include "stream/block-writer.h"

#include "stream/direct-io.h"
#include "stream/trailer.h"

#include <string.h>

#define BLOCK ((gsize)HF_TRAILER_BLOCK_SIZE)
/* More was not faster, and what is filled, summed and written soon stays in the processor's cache. */
#define SLOTS 8u
#define PARTS 3u /* head, aligned middle, tail */

typedef struct {
  HfBlockWriter *writer;
  guint8 *memory;
  guint64 block;  /* file offset of memory[0] */
  gsize from, to; /* filled */
  guint pending;  /* requests in flight */
  HfEngineRequest requests[PARTS];
  struct iovec iov[PARTS];
} Slot;

struct _HfBlockWriter {
  HfSaveFile *file;
  HfEngine *engine;
  guint8 *memory; /* of all slots */
  Slot slots[SLOTS];
  Slot *idle[SLOTS];
  guint n_idle;
  Slot *current; /* NULL: none yet, or the last one is full */
  guint64 start, position;
  GArray *checksums;
  guint64 zero_checksum; /* of a whole block of zeros */
  gboolean zero_known;
  GError *error; /* the first one */
};

static gboolean
report (HfBlockWriter *writer, GError **error)
{
  if (writer->error)
    g_propagate_error (error, g_error_copy (writer->error));
  return writer->error == NULL;
}

HfBlockWriter *
hf_block_writer_new (HfSaveFile *file, guint64 start, HfEngineKind kind, GError **error)
{
  g_autoptr (HfBlockWriter) writer = g_new0 (HfBlockWriter, 1);

  writer->file = file;
  writer->start = writer->position = start;
  writer->checksums = g_array_new (FALSE, FALSE, sizeof (guint64));
  writer->memory = hf_direct_memory_new (SLOTS * BLOCK, error);
  if (!writer->memory)
    return NULL;
  writer->engine = hf_engine_new (kind, SLOTS + PARTS, SLOTS * BLOCK, error);
  if (!writer->engine)
    return NULL;
  for (guint i = 0; i < SLOTS; i++) {
    writer->slots[i].writer = writer;
    writer->slots[i].memory = writer->memory + i * BLOCK;
    writer->idle[writer->n_idle++] = &writer->slots[i];
  }
  return g_steal_pointer (&writer);
}

void
hf_block_writer_free (HfBlockWriter *writer)
{
  if (!writer)
    return;
  /* First: it may still be reading the memory. */
  hf_engine_free (writer->engine);
  hf_direct_memory_free (writer->memory, SLOTS * BLOCK);
  g_array_unref (writer->checksums);
  g_clear_error (&writer->error);
  g_free (writer);
}

guint64
hf_block_writer_length (const HfBlockWriter *writer)
{
  return writer->position - writer->start;
}

/* A callback may have been faster: inside hf_engine_submit, for one. */
static void
keep_first (HfBlockWriter *writer, GError *error)
{
  if (writer->error)
    g_error_free (error);
  else
    writer->error = error;
}

static void
part_done (HfEngineRequest *request, const GError *error)
{
  Slot *slot = request->data;
  HfBlockWriter *writer = slot->writer;

  if (error)
    keep_first (writer, g_error_copy (error));
  if (--slot->pending == 0)
    writer->idle[writer->n_idle++] = slot;
}

/* The bytes [from, to) of the slot through fd. */
static gboolean
submit_part (Slot *slot, guint part, int fd, gsize from, gsize to)
{
  HfBlockWriter *writer = slot->writer;
  HfEngineRequest *request = &slot->requests[part];
  GError *error = NULL;

  if (from == to)
    return TRUE;
  slot->iov[part] = (struct iovec){ .iov_base = slot->memory + from, .iov_len = to - from };
  *request = (HfEngineRequest){ .operation = HF_IO_WRITE,
                                .fd = fd,
                                .offset = (gint64)(slot->block + from),
                                .iov = &slot->iov[part],
                                .n_iov = 1,
                                .done = part_done,
                                .data = slot };
  slot->pending++;
  if (hf_engine_submit (writer->engine, request, &error))
    return TRUE;
  keep_first (writer, error);
  slot->pending--;
  return FALSE;
}

static void
submit_slot (Slot *slot)
{
  HfSaveFile *file = slot->writer->file;
  gsize alignment = hf_save_file_alignment (file);
  int buffered = hf_save_file_fd (file), direct = hf_save_file_direct_fd (file);
  gsize head = (slot->from + alignment - 1) / alignment * alignment, tail = slot->to / alignment * alignment;

  /* One more, so that the slot is not idle before its last part is under way. */
  slot->pending = 1;
  if (direct < 0 || head >= tail) {
    submit_part (slot, 0, buffered, slot->from, slot->to);
  } else if (submit_part (slot, 0, buffered, slot->from, head) && submit_part (slot, 1, direct, head, tail)) {
    submit_part (slot, 2, buffered, tail, slot->to);
  }
  if (--slot->pending == 0)
    slot->writer->idle[slot->writer->n_idle++] = slot;
}

static gboolean
is_zero (const guint8 *bytes, gsize length)
{
  static const guint8 zero[64];

  /* Ends at the first byte that is not; nearly always that is among these. */
  return memcmp (bytes, zero, MIN (length, sizeof zero)) == 0
         && (length <= sizeof zero || memcmp (bytes, bytes + sizeof zero, length - sizeof zero) == 0);
}

static guint64
checksum_of_zero (HfBlockWriter *writer, const guint8 *bytes, gsize length)
{
  if (length != BLOCK)
    return hf_trailer_checksum (bytes, length);
  if (!writer->zero_known)
    writer->zero_checksum = hf_trailer_checksum (bytes, length);
  writer->zero_known = TRUE;
  return writer->zero_checksum;
}

/* The current slot is as full as it will be. What fails is in writer->error. */
static void
flush (HfBlockWriter *writer)
{
  Slot *slot = g_steal_pointer (&writer->current);
  const guint8 *bytes = slot->memory + slot->from;
  gsize length = slot->to - slot->from;
  gboolean zero = is_zero (bytes, length);
  guint64 checksum = zero ? checksum_of_zero (writer, bytes, length) : hf_trailer_checksum (bytes, length);

  g_array_append_val (writer->checksums, checksum);
  if (zero)
    writer->idle[writer->n_idle++] = slot;
  else
    submit_slot (slot);
}

guint8 *
hf_block_writer_space (HfBlockWriter *writer, gsize *ret_size, GError **error)
{
  Slot *slot = writer->current;

  /* What nobody could read back is not begun: readers bound the trailer. */
  if (!slot && writer->checksums->len >= HF_TRAILER_BLOCKS_MAX && !writer->error)
    keep_first (writer, g_error_new (HF_STREAM_ERROR, HF_STREAM_ERROR_UNSUPPORTED, "more than %" G_GUINT64_FORMAT " bytes",
                                     HF_TRAILER_BLOCKS_MAX * BLOCK));
  while (!slot && writer->n_idle == 0 && !writer->error)
    hf_engine_wait (writer->engine);
  if (!report (writer, error))
    return NULL;
  if (!slot) {
    slot = writer->current = writer->idle[--writer->n_idle];
    slot->block = writer->position / BLOCK * BLOCK;
    slot->from = slot->to = (gsize)(writer->position - slot->block);
  }
  *ret_size = BLOCK - slot->to;
  return slot->memory + slot->to;
}

gboolean
hf_block_writer_advance (HfBlockWriter *writer, gsize length, GError **error)
{
  Slot *slot = writer->current;

  if (length == 0)
    return report (writer, error);
  g_assert (slot && length <= BLOCK - slot->to);
  slot->to += length;
  writer->position += length;
  if (slot->to == BLOCK)
    flush (writer);
  return report (writer, error);
}

gboolean
hf_block_writer_finish (HfBlockWriter *writer, GArray **ret_checksums, GError **error)
{
  GError *cause = NULL;

  if (writer->current && writer->current->from < writer->current->to && !writer->error)
    flush (writer);
  if (!hf_engine_drain (writer->engine, &cause))
    keep_first (writer, cause);
  if (writer->error)
    return report (writer, error);
  g_assert (writer->checksums->len == hf_trailer_count_blocks (writer->start, hf_block_writer_length (writer), BLOCK));
  *ret_checksums = g_array_ref (writer->checksums);
  return TRUE;
}
