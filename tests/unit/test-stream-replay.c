/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Replay gives back what capture took, and not one byte of what was changed, cut or is not for a stream.
 */
#include "config.h"

#include "stream/capture.h"

#include "../fake/qemu-stream.h"
#include "stream/fault.h"
#include "stream/trailer.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <holdfast/io.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

typedef struct {
  char *folder, *path, *status, *source, *target;
} Place;

static void
place_set_up (Place *place, gconstpointer data)
{
  (void)data;
  place->folder = g_dir_make_tmp ("holdfast-replay-XXXXXX", NULL);
  g_assert_nonnull (place->folder);
  place->path = g_build_filename (place->folder, "vm.hf", NULL);
  place->status = g_strconcat (place->path, ".status", NULL);
  place->source = g_build_filename (place->folder, "source", NULL);
  place->target = g_build_filename (place->folder, "target", NULL);
}

static void
place_tear_down (Place *place, gconstpointer data)
{
  const char *const names[] = { place->path, place->status, place->source, place->target };

  (void)data;
  hf_io_fault_set (NULL, NULL);
  for (gsize i = 0; i < G_N_ELEMENTS (names); i++)
    g_unlink (names[i]);
  g_assert_cmpint (g_rmdir (place->folder), ==, 0);
  g_free (place->folder);
  g_free (place->path);
  g_free (place->status);
  g_free (place->source);
  g_free (place->target);
}

static void
put (const char *path, const void *bytes, gsize length)
{
  g_assert_true (g_file_set_contents (path, bytes, (gssize)length, NULL));
}

/* path becomes a capture of these bytes. */
static void
capture (Place *place, const void *bytes, gsize length, const HfCaptureOptions *options)
{
  g_autoptr (GError) error = NULL;
  HfStreamStatus status;
  int input;

  put (place->source, bytes, length);
  input = open (place->source, O_RDONLY | O_CLOEXEC);
  g_assert_true (hf_capture (input, place->path, options, NULL, &status, &error));
  g_assert_no_error (error);
  hf_stream_status_clear (&status);
  close (input);
}

/* Who receives: everything, or so many bytes and then closes. */
typedef struct {
  int fd;
  gsize limit;
  GByteArray *bytes;
} Receiver;

static gpointer
receive (gpointer data)
{
  Receiver *receiver = data;
  g_autofree guint8 *buffer = g_malloc (70000);

  while (receiver->bytes->len < receiver->limit) {
    ssize_t n = read (receiver->fd, buffer, MIN (receiver->limit - receiver->bytes->len, 70000));

    if (n <= 0)
      break;
    g_byte_array_append (receiver->bytes, buffer, (guint)n);
  }
  close (receiver->fd);
  return NULL;
}

typedef enum { BY_PIPE, BY_SOCKET, BY_PIPE_NONBLOCK, BY_FILE, N_WAYS } Way;

static int
open_way (Place *place, Way way, Receiver *receiver)
{
  int ends[2];

  if (way == BY_FILE)
    return open (place->target, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  g_assert_cmpint (way == BY_SOCKET ? socketpair (AF_UNIX, SOCK_STREAM, 0, ends) : pipe (ends), ==, 0);
  if (way == BY_PIPE_NONBLOCK)
    g_assert_cmpint (fcntl (ends[1], F_SETFL, O_NONBLOCK), ==, 0);
  receiver->fd = ends[0];
  return ends[1];
}

static GByteArray *
replay (Place *place, Way way, const HfReplayOptions *options, gsize limit, gboolean *ret_ok, guint64 *ret_bytes, GError **error)
{
  Receiver receiver = { .fd = -1, .limit = limit, .bytes = g_byte_array_new () };
  int output = open_way (place, way, &receiver);
  GThread *thread = receiver.fd >= 0 ? g_thread_new ("receiver", receive, &receiver) : NULL;

  *ret_ok = hf_replay (place->path, output, options, NULL, ret_bytes, error);
  close (output);
  if (thread) {
    g_thread_join (thread);
  } else {
    g_autofree char *contents = NULL;
    gsize length;

    g_assert_true (g_file_get_contents (place->target, &contents, &length, NULL));
    g_byte_array_append (receiver.bytes, (const guint8 *)contents, (guint)length);
  }
  return receiver.bytes;
}

/* All of these bytes come out, whatever the way. */
static void
assert_replayed (Place *place, const HfReplayOptions *options, const void *bytes, gsize length)
{
  for (guint way = 0; way < N_WAYS; way++) {
    g_autoptr (GError) error = NULL;
    g_autoptr (GByteArray) out = NULL;
    guint64 n = 0;
    gboolean ok;

    out = replay (place, way, options, G_MAXSIZE, &ok, &n, &error);
    g_assert_no_error (error);
    g_assert_true (ok);
    g_assert_cmpuint (n, ==, length);
    g_assert_cmpuint (out->len, ==, length);
    g_assert_true (length == 0 || memcmp (out->data, bytes, length) == 0);
  }
}

/* Refused before a byte was sent. code -1: of this kind or that. */
static void
assert_refused (Place *place, const HfReplayOptions *options, int code)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GByteArray) out = NULL;
  guint64 n = 1;
  gboolean ok;

  out = replay (place, BY_PIPE, options, G_MAXSIZE, &ok, &n, &error);
  g_assert_false (ok);
  g_assert_true (error && error->domain == HF_STREAM_ERROR && (code < 0 || error->code == code));
  g_assert_cmpuint (n, ==, 0);
  g_assert_cmpuint (out->len, ==, 0);
}

static void
test_round_trip (Place *place, gconstpointer data)
{
  (void)data;
  for (guint i = 0; i < 4; i++) {
    g_autoptr (FakeStream) stream =
        fake_stream_new (&(FakeStreamOptions){ .n_pages = i % 2 ? 6000 : 20, .seed = i, .n_rounds = 1 });
    HfReplayOptions options = { .engine = i < 2 ? HF_ENGINE_AUTO : HF_ENGINE_THREADS };

    capture (place, stream->bytes->data, stream->bytes->len, &(HfCaptureOptions){ .flags = HF_SAVE_NO_SYNC });
    assert_replayed (place, &options, stream->bytes->data, stream->bytes->len);
  }
}

/* QEMU's own file, without a trailer; libvirt's, without its header; ours behind a header. */
static void
test_other_files (Place *place, gconstpointer data)
{
  g_autoptr (FakeStream) stream = fake_stream_new (&(FakeStreamOptions){ .n_pages = 700 });
  guint8 header[92 + 1000] = "LibvirtQemudSave";
  guint32 version = 2, xml = 1000;
  g_autoptr (GByteArray) libvirt = g_byte_array_new ();
  HfReplayOptions options = { 0 };

  (void)data;
  put (place->path, stream->bytes->data, stream->bytes->len);
  assert_replayed (place, &options, stream->bytes->data, stream->bytes->len);

  memcpy (header + 16, &version, sizeof version);
  memcpy (header + 20, &xml, sizeof xml);
  g_byte_array_append (libvirt, header, sizeof header);
  g_byte_array_append (libvirt, stream->bytes->data, stream->bytes->len);
  put (place->path, libvirt->data, libvirt->len);
  assert_replayed (place, &options, stream->bytes->data, stream->bytes->len);

  capture (place, stream->bytes->data, stream->bytes->len, &(HfCaptureOptions){ .offset = sizeof header });
  assert_replayed (place, &options, stream->bytes->data, stream->bytes->len);
}

/* Mostly holes, and so long that the slots are used again. */
static void
test_holes (Place *place, gconstpointer data)
{
  const gsize length = (40u << 20) + 12345;
  g_autofree guint8 *bytes = g_malloc0 (length);
  HfReplayOptions options = { .any = TRUE };

  (void)data;
  for (gsize at = 0; at < length; at += 3u << 20)
    bytes[at + (at >> 10)] = 0xaa;
  capture (place, bytes, length, &(HfCaptureOptions){ .any = TRUE, .flags = HF_SAVE_NO_SYNC });
  assert_replayed (place, &options, bytes, length);
  capture (place, "", 0, &(HfCaptureOptions){ .any = TRUE, .flags = HF_SAVE_NO_SYNC });
  assert_replayed (place, &options, "", 0);
}

/* One bit: nothing of its block comes out, and all before it does. */
static void
test_flipped (Place *place, gconstpointer data)
{
  g_autoptr (FakeStream) stream = fake_stream_new (&(FakeStreamOptions){ .n_pages = 1500, .n_rounds = 1 });
  gsize length = stream->bytes->len;
  HfReplayOptions options = { 0 };

  (void)data;
  for (guint i = 0; i < 20; i++) {
    g_autofree char *contents = NULL;
    g_autoptr (GError) error = NULL;
    g_autoptr (GByteArray) out = NULL;
    gsize size, at = (gsize)g_test_rand_int_range ((gint32)stream->first_page, (gint32)stream->ram_end - 100);
    guint64 n;
    gboolean ok;

    capture (place, stream->bytes->data, length, &(HfCaptureOptions){ .flags = HF_SAVE_NO_SYNC });
    g_assert_true (g_file_get_contents (place->path, &contents, &size, NULL));
    contents[at] ^= (char)(1 << g_test_rand_int_range (0, 8));
    put (place->path, contents, size);
    out = replay (place, BY_PIPE, &options, G_MAXSIZE, &ok, &n, &error);
    g_assert_false (ok);
    g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_CHECKSUM);
    g_assert_cmpuint (out->len, ==, at / HF_TRAILER_BLOCK_SIZE * HF_TRAILER_BLOCK_SIZE);
    g_assert_cmpuint (n, ==, out->len);
    g_assert_true (out->len == 0 || memcmp (out->data, stream->bytes->data, out->len) == 0);
  }
}

static void
test_no_verify (Place *place, gconstpointer data)
{
  g_autoptr (FakeStream) stream = fake_stream_new (NULL);
  g_autofree char *contents = NULL;
  HfReplayOptions options = { .no_verify = TRUE };
  gsize size;

  (void)data;
  capture (place, stream->bytes->data, stream->bytes->len, &(HfCaptureOptions){ 0 });
  g_assert_true (g_file_get_contents (place->path, &contents, &size, NULL));
  contents[stream->first_page] ^= 1;
  put (place->path, contents, size);
  assert_replayed (place, &options, contents, stream->bytes->len);
}

static void
test_refused (Place *place, gconstpointer data)
{
  g_autoptr (FakeStream) stream = fake_stream_new (NULL);
  g_autoptr (FakeStream) mapped = fake_stream_new (&(FakeStreamOptions){ .mapped = TRUE });
  HfReplayOptions options = { 0 }, any = { .any = TRUE };

  (void)data;
  for (guint i = 1; i + 1 < stream->boundaries->len; i++) {
    put (place->path, stream->bytes->data, g_array_index (stream->boundaries, FakeBoundary, i).offset);
    assert_refused (place, &options, -1);
  }
  put (place->path, mapped->bytes->data, mapped->bytes->len);
  assert_refused (place, &options, HF_STREAM_ERROR_UNSUPPORTED);
  assert_refused (place, &any, HF_STREAM_ERROR_UNSUPPORTED);
  put (place->path, "something else", 14);
  assert_refused (place, &options, HF_STREAM_ERROR_MALFORMED);
  assert_replayed (place, &any, "something else", 14);
  put (place->path, stream->bytes->data, stream->bytes->len - 100);
  assert_replayed (place, &any, stream->bytes->data, stream->bytes->len - 100);
}

/* The receiver goes away: an error that says how far it came, and no signal. */
static void
test_receiver_gone (Place *place, gconstpointer data)
{
  g_autoptr (FakeStream) stream = fake_stream_new (&(FakeStreamOptions){ .n_pages = 3000, .n_rounds = 1 });
  HfReplayOptions options = { 0 };

  (void)data;
  capture (place, stream->bytes->data, stream->bytes->len, &(HfCaptureOptions){ 0 });
  for (Way way = BY_PIPE; way <= BY_PIPE_NONBLOCK; way++) {
    g_autoptr (GError) error = NULL;
    g_autoptr (GByteArray) out = NULL;
    guint64 n;
    gboolean ok;

    out = replay (place, way, &options, 200000, &ok, &n, &error);
    g_assert_false (ok);
    g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE);
    g_assert_nonnull (strstr (error->message, g_strerror (EPIPE)) ?: strstr (error->message, g_strerror (ECONNRESET)));
    g_assert_cmpuint (n, <, stream->bytes->len);
    g_assert_cmpuint (n, >=, out->len);
    g_assert_cmpuint (out->len, ==, 200000);
  }
}

/* Nobody takes the bytes: it can be stopped all the same. */
static void
test_interrupted (Place *place, gconstpointer data)
{
  g_autoptr (FakeStream) stream = fake_stream_new (&(FakeStreamOptions){ .n_pages = 3000, .n_rounds = 1 });
  HfReplayOptions options = { 0 };

  (void)data;
  capture (place, stream->bytes->data, stream->bytes->len, &(HfCaptureOptions){ 0 });
  for (Way way = BY_PIPE; way <= BY_PIPE_NONBLOCK; way++) {
    g_autoptr (GError) error = NULL;
    Receiver receiver = { 0 };
    HfStreamJob job = { 0 };
    int output = open_way (place, way, &receiver), interrupt[2];

    g_assert_cmpint (pipe (interrupt), ==, 0);
    g_assert_cmpint (write (interrupt[1], "x", 1), ==, 1);
    job.interrupt_fd = interrupt[0];
    g_assert_false (hf_replay (place->path, output, &options, &job, NULL, &error));
    g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_INTERRUPTED);
    close (interrupt[0]);
    close (interrupt[1]);
    close (output);
    close (receiver.fd);
  }
}

/* A file without checksums, whose last part is a hole, is cut behind its data while it is read: "no data to the end" is then said
   of bytes that are gone, which are not zeros. */

typedef struct {
  const char *path;
  guint64 length;
} Cut;

static void
cut_file (guint64 done, guint64 total, gpointer data)
{
  const Cut *cut = data;

  (void)done;
  (void)total;
  g_assert_cmpint (truncate (cut->path, (off_t)cut->length), ==, 0);
}

static void
test_cut_hole (Place *place, gconstpointer data)
{
  const guint64 mib = 1u << 20, data_end = 24 * mib, end = 48 * mib;
  const guint64 lengths[] = { data_end, data_end + 1, data_end + 2 * mib + 4096, end - 1, end };
  g_autofree guint8 *bytes = g_malloc (data_end);
  HfReplayOptions options = { .any = TRUE };

  (void)data;
  memset (bytes, 0xaa, data_end);
  for (guint i = 0; i < G_N_ELEMENTS (lengths); i++) {
    g_autoptr (GError) error = NULL;
    Cut cut = { place->path, lengths[i] };
    HfStreamJob job = { .interrupt_fd = -1, .progress = cut_file, .data = &cut };
    int output = open ("/dev/null", O_WRONLY | O_CLOEXEC);
    guint64 n = 0;
    gboolean ok;

    put (place->path, bytes, data_end);
    g_assert_cmpint (truncate (place->path, (off_t)end), ==, 0);
    ok = hf_replay (place->path, output, &options, &job, &n, &error);
    close (output);
    g_assert_true (ok == (lengths[i] == end));
    g_assert_cmpuint (n, ==, lengths[i] / mib * mib);
    if (!ok)
      g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_INCOMPLETE);
  }
}

/* A disk that cannot be read at one place, and one that gives it in pieces. */

typedef struct {
  gint calls, at; /* this call fails; -1: none, but every second comes short */
} Disk;

static gssize
bad_disk (HfIoOperation operation, int fd, gint64 offset, gsize length, gpointer data)
{
  Disk *disk = data;
  gint call = g_atomic_int_add (&disk->calls, 1);

  (void)fd;
  (void)offset;
  if (operation == HF_IO_READ && disk->at < 0 && call % 2 && length > 8192)
    return (gssize)length - 5000;
  return disk->at == call ? -EIO : (gssize)length;
}

static void
test_bad_disk (Place *place, gconstpointer data)
{
  g_autoptr (FakeStream) stream = fake_stream_new (&(FakeStreamOptions){ .n_pages = 2000, .n_rounds = 1 });
  HfReplayOptions options = { 0 };
  Disk pieces = { .at = -1 };

  (void)data;
  capture (place, stream->bytes->data, stream->bytes->len, &(HfCaptureOptions){ 0 });
  for (gint at = 0; at < 12; at++) {
    g_autoptr (GError) error = NULL;
    g_autoptr (GByteArray) out = NULL;
    Disk disk = { .at = at };
    guint64 n;
    gboolean ok;

    hf_io_fault_set (bad_disk, &disk);
    out = replay (place, BY_PIPE, &options, G_MAXSIZE, &ok, &n, &error);
    hf_io_fault_set (NULL, NULL);
    g_assert_true (ok == (disk.calls <= at));
    if (ok)
      continue;
    g_assert_nonnull (strstr (error->message, g_strerror (EIO)));
    g_assert_cmpuint (out->len, <, stream->bytes->len);
    g_assert_true (out->len == 0 || memcmp (out->data, stream->bytes->data, out->len) == 0);
  }
  hf_io_fault_set (bad_disk, &pieces);
  assert_replayed (place, &options, stream->bytes->data, stream->bytes->len);
}

static void
add (const char *name, void (*test) (Place *place, gconstpointer data))
{
  g_autofree char *path = g_strconcat ("/stream/replay/", name, NULL);
  g_test_add (path, Place, NULL, place_set_up, test, place_tear_down);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  add ("round-trip", test_round_trip);
  add ("other-files", test_other_files);
  add ("holes", test_holes);
  add ("flipped", test_flipped);
  add ("no-verify", test_no_verify);
  add ("refused", test_refused);
  add ("receiver-gone", test_receiver_gone);
  add ("interrupted", test_interrupted);
  add ("cut-hole", test_cut_hole);
  add ("bad-disk", test_bad_disk);
  return g_test_run ();
}
