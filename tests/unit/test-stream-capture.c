/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Capture commits what is whole and nothing else: cut anywhere, the old file stays, and the status says so.
 */
#include "config.h"

#include "stream/capture.h"

#include "../fake/qemu-stream.h"
#include "base/deadline.h"
#include "base/fail.h"
#include "stream/fault.h"
#include "stream/image.h"
#include "stream/verify.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <holdfast/io.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define OLD "the old file, whole"

typedef struct {
  char *folder, *path, *partial, *status, *source;
} Place;

static void
place_set_up (Place *place, gconstpointer data)
{
  (void)data;
  place->folder = g_dir_make_tmp ("holdfast-capture-XXXXXX", NULL);
  g_assert_nonnull (place->folder);
  place->path = g_build_filename (place->folder, "vm.hf", NULL);
  place->partial = g_strconcat (place->path, ".partial", NULL);
  place->status = g_strconcat (place->path, ".status", NULL);
  place->source = g_build_filename (place->folder, "source", NULL);
}

static void
place_tear_down (Place *place, gconstpointer data)
{
  const char *const names[] = { place->path, place->partial, place->status, place->source };

  (void)data;
  hf_io_fault_set (NULL, NULL);
  g_assert_true (hf_fail_set (NULL, NULL));
  for (gsize i = 0; i < G_N_ELEMENTS (names); i++)
    g_unlink (names[i]);
  g_assert_cmpint (g_rmdir (place->folder), ==, 0);
  g_free (place->folder);
  g_free (place->path);
  g_free (place->partial);
  g_free (place->status);
  g_free (place->source);
}

/* Who sends: in pieces of all sizes, then closes. */
typedef struct {
  int fd;
  const guint8 *bytes;
  gsize length;
  guint32 seed;
} Sender;

static gpointer
send_bytes (gpointer data)
{
  Sender *sender = data;
  g_autoptr (GRand) rand = g_rand_new_with_seed (sender->seed);

  for (gsize at = 0; at < sender->length;) {
    gsize piece = (gsize)g_rand_int_range (rand, 1, 300000);
    ssize_t n = write (sender->fd, sender->bytes + at, MIN (piece, sender->length - at));

    if (n < 0)
      break; /* EPIPE: who receives has given up */
    at += (gsize)n;
  }
  close (sender->fd);
  return NULL;
}

typedef enum { BY_PIPE, BY_SOCKET, BY_FILE, N_WAYS } Way;

static void
open_way (Place *place, Way way, Sender *sender, int *input)
{
  int ends[2];

  if (way == BY_FILE) {
    g_assert_true (g_file_set_contents (place->source, (const char *)sender->bytes, (gssize)sender->length, NULL));
    *input = open (place->source, O_RDONLY | O_CLOEXEC);
    g_assert_cmpint (*input, >=, 0);
    return;
  }
  g_assert_cmpint (way == BY_PIPE ? pipe (ends) : socketpair (AF_UNIX, SOCK_STREAM, 0, ends), ==, 0);
  *input = ends[0];
  sender->fd = ends[1];
}

/* Captures these bytes. The caller clears *ret and *error. */
static gboolean
capture_bytes (Place *place, const void *bytes, gsize length, Way way, const HfCaptureOptions *options, HfStreamStatus *ret,
               GError **error)
{
  Sender sender = { .fd = -1, .bytes = bytes, .length = length, .seed = (guint32)g_test_rand_int () };
  GThread *thread = NULL;
  gboolean ok;
  int input;

  open_way (place, way, &sender, &input);
  if (way != BY_FILE)
    thread = g_thread_new ("sender", send_bytes, &sender);
  ok = hf_capture (input, place->path, options, NULL, ret, error);
  close (input);
  if (thread)
    g_thread_join (thread);
  g_assert_false (g_file_test (place->partial, G_FILE_TEST_EXISTS));
  return ok;
}

/* What was returned is what was written, and not more than one word about it. */
static void
assert_status (Place *place, HfStreamStatus *returned, HfStreamOutcome outcome)
{
  g_autoptr (GError) error = NULL;
  HfStreamStatus status;

  g_assert_true (
      hf_stream_status_wait (place->path, &(HfStreamWait){ .deadline = hf_deadline_after_ms (10000) }, NULL, &status, &error));
  g_assert_no_error (error);
  g_assert_cmpint (returned->outcome, ==, outcome);
  g_assert_cmpint (status.outcome, ==, outcome);
  g_assert_cmpstr (status.error, ==, returned->error);
  g_assert_true ((status.error == NULL) == (outcome == HF_OUTCOME_COMMITTED));
  g_assert_cmpuint (status.bytes, ==, returned->bytes);
  g_assert_cmpstr (status.format, ==, returned->format);
  hf_stream_status_clear (&status);
  hf_stream_status_clear (returned);
}

static void
assert_old (Place *place)
{
  g_autofree char *contents = NULL;

  g_assert_true (g_file_get_contents (place->path, &contents, NULL, NULL));
  g_assert_cmpstr (contents, ==, OLD);
}

/* The payload is there byte by byte, the trailer says so, and replay gives it back. */
static void
assert_payload (Place *place, guint64 start, const void *bytes, gsize length, gboolean complete)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (HfImage) image = hf_image_open (place->path, 0, TRUE, &error);
  g_autofree guint8 *payload = g_malloc (length + 1);

  g_assert_no_error (error);
  g_assert_true (image->has_trailer);
  g_assert_cmpuint (image->start, ==, start);
  g_assert_cmpuint (image->end, ==, start + length);
  g_assert_cmpint ((image->trailer.flags & HF_TRAILER_COMPLETE) != 0, ==, complete);
  g_assert_cmpint (hf_pread_all (image->fd, payload, length, (gint64)start, NULL, &error), ==, 0);
  g_assert_true (memcmp (payload, bytes, length) == 0);
  for (guint64 i = 0; i < image->trailer.n_blocks; i++) {
    guint64 offset, size;

    hf_trailer_block (&image->trailer, i, &offset, &size);
    g_assert_cmphex (image->trailer.checksums[i], ==, hf_trailer_checksum (payload + (offset - start), size));
  }
}

static void
test_whole (Place *place, gconstpointer data)
{
  (void)data;
  for (guint way = 0; way < N_WAYS; way++)
    for (guint big = 0; big < 2; big++) {
      FakeStreamOptions shape = { .n_pages = big ? 1000 : 20, .seed = way, .n_rounds = 1 + big };
      g_autoptr (FakeStream) stream = fake_stream_new (&shape);
      g_autoptr (GError) error = NULL;
      HfCaptureOptions options = { .engine = big ? HF_ENGINE_AUTO : HF_ENGINE_THREADS };
      HfStreamStatus status;

      g_assert_true (capture_bytes (place, stream->bytes->data, stream->bytes->len, way, &options, &status, &error));
      g_assert_no_error (error);
      g_assert_true (status.complete && status.sync);
      g_assert_cmpuint (status.bytes, ==, stream->bytes->len);
      assert_status (place, &status, HF_OUTCOME_COMMITTED);
      assert_payload (place, 0, stream->bytes->data, stream->bytes->len, TRUE);
    }
}

/* At every structural boundary, just before it, and inside pages. */
static void
test_cut (Place *place, gconstpointer data)
{
  g_autoptr (FakeStream) stream = fake_stream_new (NULL);
  HfCaptureOptions options = { .flags = HF_SAVE_NO_SYNC };
  guint n = 0;

  (void)data;
  g_assert_true (g_file_set_contents (place->path, OLD, -1, NULL));
  for (guint i = 0; i < stream->boundaries->len; i++) {
    guint64 boundary = g_array_index (stream->boundaries, FakeBoundary, i).offset;
    guint64 cuts[] = { boundary, boundary - 1, boundary + 1, boundary + 2000 };

    for (gsize k = 0; k < G_N_ELEMENTS (cuts); k++) {
      g_autoptr (GError) error = NULL;
      HfStreamStatus status;

      if (cuts[k] >= stream->bytes->len)
        continue;
      g_assert_false (capture_bytes (place, stream->bytes->data, cuts[k], k % 2 ? BY_PIPE : BY_FILE, &options, &status, &error));
      g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_INCOMPLETE);
      g_assert_cmpstr (status.error, ==, error->message);
      assert_status (place, &status, HF_OUTCOME_INCOMPLETE);
      assert_old (place);
      n++;
    }
  }
  g_assert_cmpuint (n, >, 100);
}

/* What is no QEMU stream is refused early, so that the sender notices. */
static void
test_malformed (Place *place, gconstpointer data)
{
  g_autoptr (FakeStream) stream = fake_stream_new (NULL);
  HfCaptureOptions options = { 0 };
  g_autoptr (GError) error = NULL;
  HfStreamStatus status;

  (void)data;
  g_assert_true (g_file_set_contents (place->path, OLD, -1, NULL));
  stream->bytes->data[0] ^= 1;
  g_assert_false (capture_bytes (place, stream->bytes->data, stream->bytes->len, BY_PIPE, &options, &status, &error));
  g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_MALFORMED);
  assert_status (place, &status, HF_OUTCOME_MALFORMED);
  assert_old (place);
}

/* Well-formed, but not to be made mapped-ram: it is that already. */
static void
test_unsupported (Place *place, gconstpointer data)
{
  g_autoptr (FakeStream) stream = fake_stream_new (&(FakeStreamOptions){ .mapped = TRUE });
  HfCaptureOptions options = { .mapped = TRUE };
  g_autoptr (GError) error = NULL;
  HfStreamStatus status;

  (void)data;
  g_assert_true (g_file_set_contents (place->path, OLD, -1, NULL));
  g_assert_false (capture_bytes (place, stream->bytes->data, stream->bytes->len, BY_FILE, &options, &status, &error));
  g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_UNSUPPORTED);
  assert_status (place, &status, HF_OUTCOME_UNSUPPORTED);
  assert_old (place);
}

/* Damage behind RAM is found from the end. */
static void
test_damaged_devices (Place *place, gconstpointer data)
{
  g_autoptr (FakeStream) stream = fake_stream_new (NULL);
  HfCaptureOptions options = { 0 };
  g_autoptr (GError) error = NULL;
  HfStreamStatus status;

  (void)data;
  g_assert_true (g_file_set_contents (place->path, OLD, -1, NULL));
  stream->bytes->data[stream->ram_end + 1] ^= 1;
  g_assert_false (capture_bytes (place, stream->bytes->data, stream->bytes->len, BY_FILE, &options, &status, &error));
  g_assert_nonnull (error);
  hf_stream_status_clear (&status);
  assert_old (place);
}

static void
test_empty (Place *place, gconstpointer data)
{
  HfCaptureOptions options = { 0 };
  g_autoptr (GError) error = NULL;
  HfStreamStatus status;

  (void)data;
  g_assert_false (capture_bytes (place, "", 0, BY_PIPE, &options, &status, &error));
  g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_INCOMPLETE);
  assert_status (place, &status, HF_OUTCOME_INCOMPLETE);
  g_assert_false (g_file_test (place->path, G_FILE_TEST_EXISTS));
  g_clear_error (&error);

  options.any = TRUE;
  g_assert_true (capture_bytes (place, "", 0, BY_PIPE, &options, &status, &error));
  g_assert_no_error (error);
  assert_status (place, &status, HF_OUTCOME_COMMITTED);
  assert_payload (place, 0, "", 0, FALSE);
}

static void
test_any (Place *place, gconstpointer data)
{
  static const char text[] = "QEVM is not what this is";
  HfCaptureOptions options = { .any = TRUE };
  g_autoptr (GError) error = NULL;
  HfStreamStatus status;

  (void)data;
  g_assert_true (capture_bytes (place, text, sizeof text, BY_SOCKET, &options, &status, &error));
  g_assert_no_error (error);
  g_assert_false (status.complete);
  assert_status (place, &status, HF_OUTCOME_COMMITTED);
  assert_payload (place, 0, text, sizeof text, FALSE);
}

/* Behind a header: it stays, and so it does when the stream is cut. */
static void
test_offset (Place *place, gconstpointer data)
{
  static const guint64 offsets[] = { 1, 4096, 71969, (1 << 20) + 3 };

  (void)data;
  for (gsize i = 0; i < G_N_ELEMENTS (offsets); i++) {
    g_autoptr (FakeStream) stream = fake_stream_new (NULL);
    g_autofree char *header = g_strnfill (offsets[i] + 10, 'h');
    g_autofree char *contents = NULL;
    HfCaptureOptions options = { .offset = offsets[i] };
    g_autoptr (GError) error = NULL, cut = NULL;
    HfStreamStatus status;
    gsize length;

    g_assert_true (g_file_set_contents (place->path, header, -1, NULL));
    g_assert_false (capture_bytes (place, stream->bytes->data, stream->bytes->len - 1, BY_PIPE, &options, &status, &cut));
    assert_status (place, &status, HF_OUTCOME_INCOMPLETE);
    g_assert_true (capture_bytes (place, stream->bytes->data, stream->bytes->len, BY_PIPE, &options, &status, &error));
    g_assert_no_error (error);
    assert_status (place, &status, HF_OUTCOME_COMMITTED);
    assert_payload (place, offsets[i], stream->bytes->data, stream->bytes->len, TRUE);
    g_assert_true (g_file_get_contents (place->path, &contents, &length, NULL));
    g_assert_true (memcmp (contents, header, offsets[i]) == 0);
  }
}

/* Mapped: the pages of the guest at their places. */
static void
test_mapped (Place *place, gconstpointer data)
{
  FakeStreamOptions shape = { .n_pages = 300, .n_rounds = 3, .seed = 5 };
  g_autoptr (FakeStream) stream = fake_stream_new (&shape);
  HfCaptureOptions options = { .mapped = TRUE };
  g_autoptr (GError) error = NULL;
  g_autoptr (HfImage) image = NULL;
  g_autoptr (HfVerifyReport) report = NULL;
  HfStreamStatus status;

  (void)data;
  g_assert_true (capture_bytes (place, stream->bytes->data, stream->bytes->len, BY_PIPE, &options, &status, &error));
  g_assert_no_error (error);
  g_assert_cmpstr (status.format, ==, "mapped-ram");
  assert_status (place, &status, HF_OUTCOME_COMMITTED);
  image = hf_image_open (place->path, 0, FALSE, &error);
  g_assert_no_error (error);
  g_assert_true (hf_verify_image (image, HF_VERIFY_DEFAULT, NULL, &report, &error));
  g_assert_no_error (error);
  g_assert_cmpuint (report->n_problems, ==, 0);
  g_assert_true (report->forward->mapped_ram);
  g_assert_cmpuint (report->forward->blocks->len, ==, FAKE_N_BLOCKS);
  for (guint b = 0; b < FAKE_N_BLOCKS; b++) {
    const HfStreamBlock *block = &g_array_index (report->forward->blocks, HfStreamBlock, b);
    g_autofree guint8 *bitmap = g_malloc (block->bitmap_length);
    g_autofree guint8 *page = g_malloc (stream->page_size);

    g_assert_cmpuint (block->ram.used_length, ==, stream->ram[b]->len);
    g_assert_cmpint (hf_pread_all (image->fd, bitmap, block->bitmap_length, (gint64)block->bitmap_offset, NULL, NULL), ==, 0);
    for (guint64 i = 0; i < stream->ram[b]->len / stream->page_size; i++) {
      guint64 at = i * stream->page_size;

      memset (page, 0, stream->page_size);
      if (bitmap[i / 8] >> (i % 8) & 1)
        g_assert_cmpint (hf_pread_all (image->fd, page, stream->page_size, (gint64)(block->pages_offset + at), NULL, NULL), ==,
                         0);
      g_assert_true (memcmp (page, stream->ram[b]->data + at, stream->page_size) == 0);
    }
  }
}

static void
test_mapped_cut (Place *place, gconstpointer data)
{
  g_autoptr (FakeStream) stream = fake_stream_new (NULL);
  HfCaptureOptions options = { .mapped = TRUE, .flags = HF_SAVE_NO_SYNC };

  (void)data;
  g_assert_true (g_file_set_contents (place->path, OLD, -1, NULL));
  for (guint i = 0; i + 1 < stream->boundaries->len; i++) {
    g_autoptr (GError) error = NULL;
    HfStreamStatus status;
    gsize cut = g_array_index (stream->boundaries, FakeBoundary, i).offset;

    g_assert_false (capture_bytes (place, stream->bytes->data, cut, BY_FILE, &options, &status, &error));
    g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_INCOMPLETE);
    assert_status (place, &status, HF_OUTCOME_INCOMPLETE);
    assert_old (place);
  }
}

/* A disk that is full or broken, at any write; every step of the commit. */

typedef struct {
  gint calls, at;
  int errnum;
  HfIoOperation operation;
} Failure;

static gssize
fail_once (HfIoOperation operation, int fd, gint64 offset, gsize length, gpointer data)
{
  Failure *failure = data;

  (void)fd;
  (void)offset;
  if (operation != failure->operation)
    return (gssize)length;
  return g_atomic_int_add (&failure->calls, 1) == failure->at ? -failure->errnum : (gssize)length;
}

static void
test_failed_transfers (Place *place, gconstpointer data)
{
  FakeStreamOptions shape = { .n_pages = 1500, .n_rounds = 1 };
  g_autoptr (FakeStream) stream = fake_stream_new (&shape);
  HfCaptureOptions options = { .flags = HF_SAVE_NO_SYNC };

  (void)data;
  g_assert_true (g_file_set_contents (place->path, OLD, -1, NULL));
  for (guint i = 0; i < 4; i++) {
    g_autoptr (GError) error = NULL;
    Failure failure = { .at = (gint)(i / 2), .errnum = i < 2 ? ENOSPC : EIO, .operation = i % 2 ? HF_IO_READ : HF_IO_WRITE };
    HfStreamStatus status;

    hf_io_fault_set (fail_once, &failure);
    g_assert_false (capture_bytes (place, stream->bytes->data, stream->bytes->len, BY_FILE, &options, &status, &error));
    hf_io_fault_set (NULL, NULL);
    g_assert_nonnull (error);
    g_assert_nonnull (strstr (error->message, g_strerror (failure.errnum)));
    assert_status (place, &status, HF_OUTCOME_FAILED);
    assert_old (place);
  }
}

static void
test_failed_steps (Place *place, gconstpointer data)
{
  static const char *const steps[] = { "stream-create", "stream-sync", "stream-close", "stream-rename" };
  g_autoptr (FakeStream) stream = fake_stream_new (NULL);
  HfCaptureOptions options = { 0 };

  (void)data;
  g_assert_true (g_file_set_contents (place->path, OLD, -1, NULL));
  for (gsize i = 0; i < G_N_ELEMENTS (steps); i++) {
    g_autoptr (GError) error = NULL;
    g_autofree char *specification = g_strconcat ("before-", steps[i], "=error:EIO", NULL);
    HfStreamStatus status;

    g_assert_true (hf_fail_set (specification, NULL));
    g_assert_false (capture_bytes (place, stream->bytes->data, stream->bytes->len, BY_FILE, &options, &status, &error));
    g_assert_true (hf_fail_set (NULL, NULL));
    g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE);
    assert_status (place, &status, HF_OUTCOME_FAILED);
    assert_old (place);
  }
}

/* The last step of a commit can no longer be taken back: the file is the new one, and the status does not deny it. */
static void
test_failed_last_step (Place *place, gconstpointer data)
{
  g_autoptr (FakeStream) stream = fake_stream_new (NULL);
  HfCaptureOptions options = { 0 };
  g_autoptr (GError) error = NULL;
  HfStreamStatus status;

  (void)data;
  g_assert_true (g_file_set_contents (place->path, OLD, -1, NULL));
  g_assert_true (hf_fail_set ("before-stream-sync-dir=error:EIO", NULL));
  g_assert_false (capture_bytes (place, stream->bytes->data, stream->bytes->len, BY_FILE, &options, &status, &error));
  g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE);
  g_assert_nonnull (strstr (error->message, "the new file is in place"));
  g_assert_true (status.complete && !status.sync);
  assert_status (place, &status, HF_OUTCOME_FAILED);
  assert_payload (place, 0, stream->bytes->data, stream->bytes->len, TRUE);
}

/* A file that is in place, but nobody will learn: that is said. */
static void
test_failed_status (Place *place, gconstpointer data)
{
  g_autoptr (FakeStream) stream = fake_stream_new (NULL);
  HfCaptureOptions options = { 0 };
  g_autoptr (GError) error = NULL;
  HfStreamStatus status;

  (void)data;
  g_assert_true (hf_fail_set ("before-stream-status=error:ENOSPC", NULL));
  g_assert_false (capture_bytes (place, stream->bytes->data, stream->bytes->len, BY_FILE, &options, &status, &error));
  g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE);
  g_assert_nonnull (strstr (error->message, "in place"));
  hf_stream_status_clear (&status);
  assert_payload (place, 0, stream->bytes->data, stream->bytes->len, TRUE);
}

/* The second one touches nothing of the first one's. */
static void
test_busy (Place *place, gconstpointer data)
{
  HfSaveFile *first = hf_save_file_new (place->path, 0, HF_SAVE_NO_SYNC, NULL);
  HfCaptureOptions options = { 0 };
  g_autoptr (GError) error = NULL;
  HfStreamStatus status;
  int ends[2];

  (void)data;
  g_assert_true (g_file_set_contents (place->status, "of the first one", -1, NULL));
  g_assert_cmpint (pipe (ends), ==, 0);
  g_assert_false (hf_capture (ends[0], place->path, &options, NULL, &status, &error));
  g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_BUSY);
  hf_stream_status_clear (&status);
  g_assert_true (g_file_test (place->status, G_FILE_TEST_EXISTS));
  g_assert_true (g_file_test (place->partial, G_FILE_TEST_EXISTS));
  close (ends[0]);
  close (ends[1]);
  hf_save_file_free (first);
}

/* A section between those of ram, as virtio-mem's: it cannot be passed without the description, which comes last. So the end of
   the file decides alone, and it still does not let a cut one through. */
static void
test_foreign_section (Place *place, gconstpointer data)
{
  static const guint8 section[] = "\x04\0\0\0\x09\x04"
                                  "vmem"
                                  "\0\0\0\0"
                                  "\0\0\0\x01"
                                  "state"
                                  "\x7e\0\0\0\x09";
  g_autoptr (FakeStream) stream = fake_stream_new (NULL);
  g_autoptr (GByteArray) bytes = g_byte_array_new ();
  HfCaptureOptions options = { 0 };
  g_autoptr (GError) error = NULL;
  HfStreamStatus status;
  guint64 at = 0;

  (void)data;
  /* Of the sections, the second one is the first PART. */
  for (guint i = 0, n = 0; n < 2; i++) {
    const FakeBoundary *boundary = &g_array_index (stream->boundaries, FakeBoundary, i);

    n += g_str_equal (boundary->what, "section");
    at = boundary->offset;
  }
  g_byte_array_append (bytes, stream->bytes->data, (guint)at);
  g_byte_array_append (bytes, section, sizeof section - 1);
  g_byte_array_append (bytes, stream->bytes->data + at, stream->bytes->len - (guint)at);
  g_assert_true (capture_bytes (place, bytes->data, bytes->len, BY_PIPE, &options, &status, &error));
  g_assert_no_error (error);
  assert_status (place, &status, HF_OUTCOME_COMMITTED);
  assert_payload (place, 0, bytes->data, bytes->len, TRUE);
  g_assert_false (capture_bytes (place, bytes->data, bytes->len - 1, BY_PIPE, &options, &status, &error));
  g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_INCOMPLETE);
  assert_status (place, &status, HF_OUTCOME_INCOMPLETE);
}

/* While it waits for bytes that do not come. */
static gpointer
interrupt_soon (gpointer data)
{
  int *ends = data;

  g_assert_cmpint (write (ends[1], "x", 1), ==, 1);
  return NULL;
}

static void
test_interrupted (Place *place, gconstpointer data)
{
  HfCaptureOptions options = { 0 };
  g_autoptr (GError) error = NULL;
  HfStreamStatus status;
  HfStreamJob job = { 0 };
  GThread *thread;
  int input[2], interrupt[2];

  (void)data;
  g_assert_true (g_file_set_contents (place->path, OLD, -1, NULL));
  g_assert_cmpint (pipe (input), ==, 0);
  g_assert_cmpint (pipe (interrupt), ==, 0);
  job.interrupt_fd = interrupt[0];
  thread = g_thread_new ("interrupt", interrupt_soon, interrupt);
  g_assert_false (hf_capture (input[0], place->path, &options, &job, &status, &error));
  g_thread_join (thread);
  g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_INTERRUPTED);
  assert_status (place, &status, HF_OUTCOME_INTERRUPTED);
  assert_old (place);
  g_assert_false (g_file_test (place->partial, G_FILE_TEST_EXISTS));
  for (guint i = 0; i < 2; i++) {
    close (input[i]);
    close (interrupt[i]);
  }
}

/* A regular file is read from its position on, and the position is behind it then. */
static void
test_position (Place *place, gconstpointer data)
{
  g_autoptr (FakeStream) stream = fake_stream_new (&(FakeStreamOptions){ .n_pages = 900 });
  g_autoptr (GByteArray) bytes = g_byte_array_new ();
  HfCaptureOptions options = { 0 };
  g_autoptr (GError) error = NULL;
  HfStreamStatus status;
  int input;

  (void)data;
  g_byte_array_append (bytes, (const guint8 *)"junk", 4);
  g_byte_array_append (bytes, stream->bytes->data, stream->bytes->len);
  g_assert_true (g_file_set_contents (place->source, (const char *)bytes->data, bytes->len, NULL));
  input = open (place->source, O_RDONLY | O_CLOEXEC);
  g_assert_cmpint (lseek (input, 4, SEEK_SET), ==, 4);
  g_assert_true (hf_capture (input, place->path, &options, NULL, &status, &error));
  g_assert_no_error (error);
  g_assert_cmpint (lseek (input, 0, SEEK_CUR), ==, bytes->len);
  close (input);
  assert_status (place, &status, HF_OUTCOME_COMMITTED);
  assert_payload (place, 0, stream->bytes->data, stream->bytes->len, TRUE);
}

static void
add (const char *name, void (*test) (Place *place, gconstpointer data))
{
  g_autofree char *path = g_strconcat ("/stream/capture/", name, NULL);
  g_test_add (path, Place, NULL, place_set_up, test, place_tear_down);
}

int
main (int argc, char **argv)
{
  /* Who sends is told by EPIPE. */
  signal (SIGPIPE, SIG_IGN);
  g_test_init (&argc, &argv, NULL);
  add ("whole", test_whole);
  add ("cut", test_cut);
  add ("malformed", test_malformed);
  add ("unsupported", test_unsupported);
  add ("damaged-devices", test_damaged_devices);
  add ("empty", test_empty);
  add ("any", test_any);
  add ("offset", test_offset);
  add ("mapped", test_mapped);
  add ("mapped-cut", test_mapped_cut);
  add ("failed-transfers", test_failed_transfers);
  add ("failed-steps", test_failed_steps);
  add ("failed-last-step", test_failed_last_step);
  add ("failed-status", test_failed_status);
  add ("busy", test_busy);
  add ("foreign-section", test_foreign_section);
  add ("interrupted", test_interrupted);
  add ("position", test_position);
  return g_test_run ();
}
