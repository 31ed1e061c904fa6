/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns one capture: from the lock and the removal of the old status to the writing of the new one. One thread at a time.
 *
 * Theory of operation: bytes are read into the place they are written from, and the parser looks at them there. What it does not
 * understand but is well-formed (an iterable device other than RAM) ends its work, not the capture: then the end of the file
 * alone decides. What is malformed ends the capture at once: QEMU's pipe breaks, its migration fails, and the guest goes on,
 * instead of being thrown away for a file that nobody can load.
 *
 * The lock of the save file is held from before the input is opened until the status is written, and the status is touched by
 * nobody else: so hf_stream_status_wait sees either a living capture or its last word. Its room on the disk is made before the
 * first byte is taken; on failure .partial goes first, so that a full disk has room for a long error too.
 *
 * An empty input is no QEMU stream, hence incomplete; with `any` it is what cat makes of it: an empty payload.
 */

#include "config.h"

#include "stream/capture.h"

#include "stream/block-writer.h"
#include "stream/feed.h"
#include "stream/input.h"
#include "stream/mapped-writer.h"
#include "stream/trailer.h"
#include "stream/verify.h"

#include <errno.h>
#include <holdfast/io.h>
#include <stdlib.h>
#include <unistd.h>

#define BUFFER_SIZE (1u << 20)
#define BUFFER_ALIGNMENT 4096u
#define STEP_BYTES (1u << 20)

typedef struct {
  const HfCaptureOptions *options;
  const HfStreamJob *job;
  HfInput *input;
  HfSaveFile *file;
  HfStatusRoom *room;
  HfBlockWriter *blocks; /* plain */
  HfFeed *feed;          /* plain; NULL: nothing (more) to ask it */
  HfMappedWriter *mapped;
  guint8 *buffer; /* mapped: where the input is read into */
  guint64 bytes;
  gint64 first_byte; /* monotonic; 0: none came */
} Capture;

/* What differs between the two formats. */
typedef struct {
  gboolean (*open) (Capture *capture, GError **error);
  guint8 *(*space) (Capture *capture, gsize *ret_size, GError **error);
  gboolean (*take) (Capture *capture, const guint8 *bytes, gsize length, GError **error);
  gboolean (*finish) (Capture *capture, guint64 *ret_length, GError **error);
} Format;

/* Plain: the stream as it is, and a trailer. */

/* A feed without this takes XBZRLE for something that its user cannot do. */
static gboolean
pass_xbzrle (guint block, guint64 offset, const guint8 *encoded, gsize length, gpointer data, GError **error)
{
  (void)block;
  (void)offset;
  (void)encoded;
  (void)length;
  (void)data;
  (void)error;
  return TRUE;
}

static gboolean
open_plain (Capture *capture, GError **error)
{
  static const HfFeedEvents silent = { .xbzrle = pass_xbzrle };

  capture->blocks = hf_block_writer_new (capture->file, capture->options->offset, capture->options->engine, error);
  if (capture->blocks && !capture->options->any)
    capture->feed = hf_feed_new (&silent, NULL);
  return capture->blocks != NULL;
}

static guint8 *
space_plain (Capture *capture, gsize *ret_size, GError **error)
{
  return hf_block_writer_space (capture->blocks, ret_size, error);
}

static gboolean
take_plain (Capture *capture, const guint8 *bytes, gsize length, GError **error)
{
  g_autoptr (GError) cause = NULL;

  if (capture->feed && !hf_feed_bytes (capture->feed, bytes, length, &cause)) {
    g_clear_pointer (&capture->feed, hf_feed_free);
    if (!g_error_matches (cause, HF_STREAM_ERROR, HF_STREAM_ERROR_UNSUPPORTED)) {
      g_propagate_error (error, g_steal_pointer (&cause));
      return FALSE;
    }
  }
  return hf_block_writer_advance (capture->blocks, length, error);
}

/* The same words for every way in which a stream can stop early. */
static gboolean
fail_incomplete (Capture *capture, const char *why, GError **error)
{
  g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_INCOMPLETE, "the input ended after %" G_GUINT64_FORMAT " bytes: %s",
               capture->bytes, why);
  return FALSE;
}

static gboolean
check_plain (Capture *capture, guint64 end, GError **error)
{
  int fd = hf_save_file_fd (capture->file);

  if (capture->options->any)
    return TRUE;
  if (capture->bytes == 0)
    return fail_incomplete (capture, "it was empty", error);
  if (capture->feed && hf_feed_state (capture->feed) != HF_FEED_REST)
    return fail_incomplete (capture, "the end of RAM was not seen", error);
  /* A block of zeros at the end is a hole that the file's size does not have yet. */
  if (ftruncate (fd, (off_t)end) != 0) {
    g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE, "set the length of the .partial: %s", g_strerror (errno));
    return FALSE;
  }
  return hf_verify_end (fd, capture->options->offset, end, error);
}

static gboolean
append_trailer (Capture *capture, GArray *checksums, guint64 *length, GError **error)
{
  HfTrailer trailer = { .block_size = HF_TRAILER_BLOCK_SIZE,
                        .payload_offset = capture->options->offset,
                        .payload_length = capture->bytes,
                        .time = g_get_real_time (),
                        .flags = capture->options->any ? 0 : HF_TRAILER_COMPLETE,
                        .n_blocks = checksums->len,
                        .checksums = (guint64 *)(gpointer)checksums->data };
  g_autoptr (GBytes) bytes = hf_trailer_encode (&trailer);
  gsize size;
  const void *data = g_bytes_get_data (bytes, &size);

  if (hf_pwrite_all (hf_save_file_fd (capture->file), data, size, (gint64)*length, NULL, error) != 0)
    return FALSE;
  *length += size;
  return TRUE;
}

static gboolean
finish_plain (Capture *capture, guint64 *ret_length, GError **error)
{
  g_autoptr (GArray) checksums = NULL;

  if (!hf_block_writer_finish (capture->blocks, &checksums, error))
    return FALSE;
  *ret_length = capture->options->offset + capture->bytes;
  return check_plain (capture, *ret_length, error) && append_trailer (capture, checksums, ret_length, error);
}

/* mapped-ram: every page at its place, no trailer, because QEMU's own files have none and bitmaps come last. */

static gboolean
open_mapped (Capture *capture, GError **error)
{
  capture->buffer = aligned_alloc (BUFFER_ALIGNMENT, BUFFER_SIZE);
  if (!capture->buffer) {
    g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE, "memory for the input: %s", g_strerror (ENOMEM));
    return FALSE;
  }
  capture->mapped = hf_mapped_writer_new (capture->file, capture->options->offset, capture->options->engine, error);
  return capture->mapped != NULL;
}

static guint8 *
space_mapped (Capture *capture, gsize *ret_size, GError **error)
{
  (void)error;
  *ret_size = BUFFER_SIZE;
  return capture->buffer;
}

static gboolean
take_mapped (Capture *capture, const guint8 *bytes, gsize length, GError **error)
{
  return hf_mapped_writer_feed (capture->mapped, bytes, length, error);
}

static gboolean
finish_mapped (Capture *capture, guint64 *ret_length, GError **error)
{
  if (capture->bytes == 0)
    return fail_incomplete (capture, "it was empty", error);
  return hf_mapped_writer_finish (capture->mapped, ret_length, error)
         && hf_verify_end (hf_save_file_fd (capture->file), capture->options->offset, *ret_length, error);
}

static const Format plain = { open_plain, space_plain, take_plain, finish_plain };
static const Format mapped = { open_mapped, space_mapped, take_mapped, finish_mapped };

/* To the end of the input. */
static gboolean
receive (Capture *capture, const Format *format, GError **error)
{
  guint64 total = hf_input_total (capture->input), told = 0;

  for (;;) {
    gsize size = 0, length = 0;
    guint8 *space = format->space (capture, &size, error);

    if (!space || !hf_input_read (capture->input, space, size, capture->job, &length, error))
      return FALSE;
    if (length == 0)
      return TRUE;
    capture->first_byte = capture->first_byte ?: g_get_monotonic_time ();
    capture->bytes += length;
    if (!format->take (capture, space, length, error))
      return FALSE;
    if (capture->bytes - told >= STEP_BYTES) {
      told = capture->bytes;
      if (!hf_stream_job_step (capture->job, capture->bytes, total, error))
        return FALSE;
    }
  }
}

static gboolean
run (Capture *capture, int input, const char *path, GError **error)
{
  const HfCaptureOptions *options = capture->options;
  const Format *format = options->mapped ? &mapped : &plain;
  guint64 length = 0;

  capture->file = hf_save_file_new (path, options->offset, options->flags, error);
  /* Not before there is the lock: it may be that of a capture that has just ended. */
  if (!capture->file || !hf_stream_status_remove (path, error))
    return FALSE;
  /* Before the guest is given up for a file that nobody would learn of. */
  capture->room = hf_stream_status_reserve (path, error);
  if (!capture->room)
    return FALSE;
  if (input < 0)
    input = options->open_input (options->data, capture->job, error);
  capture->input = input >= 0 ? hf_input_new (input, error) : NULL;
  return capture->input && format->open (capture, error) && receive (capture, format, error)
         && format->finish (capture, &length, error) && hf_stream_job_step (capture->job, capture->bytes, capture->bytes, error)
         && hf_save_file_commit (capture->file, length, error);
}

static HfStreamOutcome
outcome_of (const GError *error)
{
  static const HfStreamOutcome outcomes[] = { [HF_STREAM_ERROR_FILE] = HF_OUTCOME_FAILED,
                                              [HF_STREAM_ERROR_INCOMPLETE] = HF_OUTCOME_INCOMPLETE,
                                              [HF_STREAM_ERROR_MALFORMED] = HF_OUTCOME_MALFORMED,
                                              [HF_STREAM_ERROR_UNSUPPORTED] = HF_OUTCOME_UNSUPPORTED,
                                              [HF_STREAM_ERROR_CHECKSUM] = HF_OUTCOME_MALFORMED,
                                              [HF_STREAM_ERROR_BUSY] = HF_OUTCOME_FAILED,
                                              [HF_STREAM_ERROR_INTERRUPTED] = HF_OUTCOME_INTERRUPTED };

  if (!error)
    return HF_OUTCOME_COMMITTED;
  return error->domain == HF_STREAM_ERROR && (gsize)error->code < G_N_ELEMENTS (outcomes) ? outcomes[error->code]
                                                                                          : HF_OUTCOME_FAILED;
}

static void
fill_status (const Capture *capture, const GError *error, HfStreamStatus *ret)
{
  const HfCaptureOptions *options = capture->options;
  gboolean committed = error == NULL, in_place = capture->file && hf_save_file_is_in_place (capture->file);

  *ret = (HfStreamStatus){ .outcome = outcome_of (error),
                           .error = error ? g_strdup (error->message) : NULL,
                           .bytes = capture->bytes,
                           .id = g_strdup (options->id),
                           .time = g_get_real_time () / G_USEC_PER_SEC,
                           .sync = committed && (options->flags & HF_SAVE_NO_SYNC) == 0,
                           .complete = in_place && !options->any,
                           .format = g_strdup (options->any      ? "any"
                                               : options->mapped ? "mapped-ram"
                                                                 : "classic") };
  if (capture->first_byte)
    ret->seconds = (double)(g_get_monotonic_time () - capture->first_byte) / G_USEC_PER_SEC;
}

/* Whatever holds descriptors or memory of the file, but not its lock. */
static void
close_parts (Capture *capture)
{
  g_clear_pointer (&capture->blocks, hf_block_writer_free);
  g_clear_pointer (&capture->mapped, hf_mapped_writer_free);
  g_clear_pointer (&capture->feed, hf_feed_free);
  g_clear_pointer (&capture->input, hf_input_free);
  free (capture->buffer);
  if (capture->file)
    hf_save_file_discard (capture->file);
}

/* Before anything of the file or its status is touched. */
static gboolean
check_alone (const char *path, GError **error)
{
  HfSaveWriter writer = HF_SAVE_WRITER_NONE;
  int watch = -1;

  if (!hf_save_file_look (path, &watch, &writer, error))
    return FALSE;
  if (watch >= 0)
    close (watch);
  if (writer != HF_SAVE_WRITER_ALIVE)
    return TRUE;
  g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_BUSY, "another process is writing the .partial");
  return FALSE;
}

static gboolean
check_options (const HfCaptureOptions *options, GError **error)
{
  if (!options->any || !options->mapped)
    return TRUE;
  g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_UNSUPPORTED, "only a QEMU stream can become mapped-ram");
  return FALSE;
}

gboolean
hf_capture (int input, const char *path, const HfCaptureOptions *options, const HfStreamJob *job, HfStreamStatus *ret_status,
            GError **error)
{
  Capture capture = { .options = options, .job = job };
  g_autoptr (GError) cause = NULL, status_error = NULL;
  gboolean ours = check_options (options, &cause) && check_alone (path, &cause);
  gboolean ok = ours && run (&capture, input, path, &cause);

  close_parts (&capture);
  fill_status (&capture, cause, ret_status);
  /* The status of a file that another one writes is that one's. */
  if (ours && (capture.file || !g_error_matches (cause, HF_STREAM_ERROR, HF_STREAM_ERROR_BUSY)))
    hf_stream_status_write (path, ret_status, g_steal_pointer (&capture.room), &status_error);
  hf_stream_status_room_free (capture.room);
  hf_save_file_free (capture.file);
  if (!ok) {
    g_propagate_error (error, g_steal_pointer (&cause));
    return FALSE;
  }
  if (status_error) {
    g_propagate_prefixed_error (error, g_steal_pointer (&status_error),
                                "the file is in place, but who waits for it will not learn: ");
    return FALSE;
  }
  return TRUE;
}
