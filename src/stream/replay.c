/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns one replay: the file, a row of blocks in memory, and which of them are being read. One thread at a time.
 *
 * Theory of operation: nothing is written before the end of the file was looked at, because QEMU cannot take back what it loaded.
 * Then blocks are read ahead, several at a time and past the page cache where that pays, and written in their order, each after
 * its checksum. A byte lies in its slot where it lies in its block, so what is aligned in the file is aligned in memory. A block
 * that is a hole of the file is not read.
 */

#include "config.h"

#include "stream/capture.h"

#include "stream/direct-io.h"
#include "stream/image.h"
#include "stream/output.h"
#include "stream/stream-map.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MEMORY_AIM (16u << 20)
#define SLOTS_MIN 2u
#define SLOTS_MAX 64u

typedef struct {
  guint8 *memory;
  guint64 offset; /* in the file, of the block's first payload byte */
  gsize from, length;
  gboolean busy, ready, hole; /* busy: being read; ready: in memory */
  HfEngineRequest request;
  struct iovec iov;
} Slot;

typedef struct {
  const HfReplayOptions *options;
  const HfStreamJob *job;
  HfImage *image;
  HfTrailer grid; /* the image's trailer, or one without checksums for the same arithmetic */
  HfOutput *output;
  HfEngine *engine;
  int direct_fd;
  guint alignment; /* of direct_fd */
  guint8 *memory;
  gsize memory_size;
  Slot slots[SLOTS_MAX];
  guint n_slots;
  guint64 data_end;   /* up to here the file was asked for holes, and had data last; see find_hole */
  guint64 zeroed_end; /* up to here it is a hole */
  guint64 written;
} Replay;

static gboolean
check_image (const HfImage *image, gboolean any, GError **error)
{
  g_autoptr (HfStreamMap) map = NULL;
  g_autoptr (GError) cause = NULL;
  gboolean whole;

  if (image->kind == HF_IMAGE_ANY)
    return TRUE;
  whole = hf_walk_tail (image->reader, image->start, image->end, &map, &cause);
  if (map->mapped_ram) {
    g_set_error (
        error, HF_STREAM_ERROR, HF_STREAM_ERROR_UNSUPPORTED,
        "it is mapped-ram, whose pages are not in the order of a stream: load it with -incoming file:, or make it classic with "
        "holdfast stream convert --to classic");
    return FALSE;
  }
  if (whole || any)
    return TRUE;
  g_propagate_error (error, g_steal_pointer (&cause));
  return FALSE;
}

static gboolean
open_engine (Replay *replay, GError **error)
{
  const HfImage *image = replay->image;
  guint32 block = replay->grid.block_size;

  replay->n_slots = CLAMP (MEMORY_AIM / block, SLOTS_MIN, SLOTS_MAX);
  replay->memory_size = (gsize)replay->n_slots * block;
  replay->memory = hf_direct_memory_new (replay->memory_size, error);
  if (!replay->memory)
    return FALSE;
  for (guint i = 0; i < replay->n_slots; i++)
    replay->slots[i].memory = replay->memory + (gsize)i * block;
  if (!hf_direct_is_cached (image->fd, image->start, image->end - image->start))
    replay->direct_fd = hf_direct_open_to_read (image->fd, &replay->alignment);
  replay->engine = hf_engine_new (replay->options->engine, replay->n_slots, replay->memory_size, error);
  return replay->engine != NULL;
}

/* Up to here the file has no data from offset on, where it has none at all up to its end (ENXIO). That is said also of a file
 * that became shorter meanwhile: what is missing is no hole, and the read of it tells. */
static guint64
end_of_last_hole (const Replay *replay, guint64 offset)
{
  struct stat st;

  return fstat (replay->image->fd, &st) == 0 && (guint64)st.st_size >= replay->image->size ? replay->image->size : offset;
}

/* Are all these bytes a hole? Asks the file only when what it said last does not reach so far. */
static gboolean
find_hole (Replay *replay, guint64 offset, gsize length)
{
  off_t data;

  if (offset + length <= replay->zeroed_end)
    return TRUE;
  if (offset < replay->data_end)
    return FALSE;
  data = lseek (replay->image->fd, (off_t)offset, SEEK_DATA);
  if (data < 0 && errno != ENXIO) {
    replay->data_end = G_MAXUINT64;
    return FALSE;
  }
  replay->zeroed_end = data < 0 ? end_of_last_hole (replay, offset) : (guint64)data;
  if (offset + length <= replay->zeroed_end)
    return TRUE;
  data = lseek (replay->image->fd, (off_t)replay->zeroed_end, SEEK_HOLE);
  replay->data_end = data < 0 ? G_MAXUINT64 : (guint64)data;
  return FALSE;
}

static void
block_read (HfEngineRequest *request, const GError *error)
{
  Slot *slot = request->data;

  /* An error is the engine's first, or follows from it: that one is reported. */
  slot->busy = FALSE;
  slot->ready = error == NULL;
}

static gboolean
start_block (Replay *replay, guint64 index, GError **error)
{
  Slot *slot = &replay->slots[index % replay->n_slots];
  gsize first, last; /* what is read of the block */
  gboolean direct = replay->direct_fd >= 0;
  gsize unit = direct ? replay->alignment : 1;
  guint64 length;

  hf_trailer_block (&replay->grid, index, &slot->offset, &length);
  slot->from = (gsize)(slot->offset % replay->grid.block_size);
  slot->length = (gsize)length;
  slot->hole = slot->ready = find_hole (replay, slot->offset, slot->length);
  if (slot->hole) {
    memset (slot->memory + slot->from, 0, slot->length);
    return TRUE;
  }
  first = slot->from / unit * unit;
  last = (slot->from + slot->length + unit - 1) / unit * unit;
  slot->iov = (struct iovec){ .iov_base = slot->memory + first, .iov_len = last - first };
  slot->request = (HfEngineRequest){ .operation = HF_IO_READ,
                                     .fd = direct ? replay->direct_fd : replay->image->fd,
                                     .offset = (gint64)(slot->offset - (slot->from - first)),
                                     .iov = &slot->iov,
                                     .n_iov = 1,
                                     .eof_ok = TRUE,
                                     .done = block_read,
                                     .data = slot };
  slot->busy = TRUE;
  if (hf_engine_submit (replay->engine, &slot->request, error))
    return TRUE;
  slot->busy = FALSE;
  return FALSE;
}

/* The block is in memory, whole and unchanged. */
static gboolean
finish_block (Replay *replay, guint64 index, GError **error)
{
  Slot *slot = &replay->slots[index % replay->n_slots];
  const guint8 *bytes = slot->memory + slot->from;

  /* Not for all of them: the others are read ahead. */
  while (slot->busy)
    hf_engine_wait (replay->engine);
  if (!slot->ready && !hf_engine_drain (replay->engine, error))
    return FALSE;
  if (!slot->hole && slot->request.moved < (gsize)(bytes + slot->length - (guint8 *)slot->iov.iov_base)) {
    g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_INCOMPLETE,
                 "offset %" G_GUINT64_FORMAT ": the file ends within the %" G_GSIZE_FORMAT " bytes of a block: it became shorter",
                 slot->offset, slot->length);
    return FALSE;
  }
  if (!replay->grid.checksums || replay->options->no_verify
      || hf_trailer_checksum (bytes, slot->length) == replay->grid.checksums[index])
    return TRUE;
  g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_CHECKSUM,
               "block %" G_GUINT64_FORMAT " at offset %" G_GUINT64_FORMAT ", %" G_GSIZE_FORMAT
               " bytes: the checksum is wrong; nothing of it was written",
               index, slot->offset, slot->length);
  return FALSE;
}

static gboolean
write_block (Replay *replay, guint64 index, GError **error)
{
  const Slot *slot = &replay->slots[index % replay->n_slots];
  gsize done = 0;
  gboolean ok = hf_output_write (replay->output, slot->memory + slot->from, slot->length, replay->job, &done, error);

  replay->written += done;
  if (!ok)
    g_prefix_error (error, "after %" G_GUINT64_FORMAT " of %" G_GUINT64_FORMAT " bytes: ", replay->written,
                    replay->grid.payload_length);
  return ok;
}

static gboolean
run (Replay *replay, GError **error)
{
  guint64 n_blocks = replay->grid.n_blocks;

  for (guint64 next = 0, begun = 0; next < n_blocks; next++) {
    for (; begun < n_blocks && begun < next + replay->n_slots; begun++)
      if (!start_block (replay, begun, error))
        return FALSE;
    if (!finish_block (replay, next, error) || !write_block (replay, next, error)
        || !hf_stream_job_step (replay->job, replay->written, replay->grid.payload_length, error))
      return FALSE;
  }
  return TRUE;
}

static void
make_grid (Replay *replay)
{
  const HfImage *image = replay->image;
  HfTrailer bare = { .block_size = HF_TRAILER_BLOCK_SIZE,
                     .payload_offset = image->start,
                     .payload_length = image->end - image->start };

  bare.n_blocks = hf_trailer_count_blocks (bare.payload_offset, bare.payload_length, bare.block_size);
  /* Its checksums stay the image's. */
  replay->grid = image->has_trailer ? image->trailer : bare;
}

static gboolean
start (Replay *replay, const char *path, int output, GError **error)
{
  replay->image = hf_image_open (path, replay->options->offset, replay->options->any, error);
  if (!replay->image || !check_image (replay->image, replay->options->any, error))
    return FALSE;
  make_grid (replay);
  replay->output = hf_output_new (output, error);
  return replay->output && open_engine (replay, error);
}

gboolean
hf_replay (const char *path, int output, const HfReplayOptions *options, const HfStreamJob *job, guint64 *ret_bytes,
           GError **error)
{
  g_autofree Replay *replay = g_new0 (Replay, 1);
  gboolean ok;

  replay->options = options;
  replay->job = job;
  replay->direct_fd = -1;
  ok = start (replay, path, output, error) && run (replay, error);
  if (ret_bytes)
    *ret_bytes = replay->written;
  hf_engine_free (replay->engine);
  hf_direct_memory_free (replay->memory, replay->memory_size);
  hf_output_free (replay->output);
  if (replay->direct_fd >= 0)
    close (replay->direct_fd);
  hf_image_free (replay->image);
  return ok;
}
