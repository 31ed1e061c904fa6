/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Classic to mapped-ram and back: the memory that a random stream ends with is in every file on the way, on both engines and with
 * a device that moves less than it is asked for; what is damaged, cut or interrupted gives an error and leaves no file.
 */
#include "config.h"

#include "ram-model.h"
#include "stream/convert.h"
#include "stream/fault.h"
#include "stream/mapped-writer.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <holdfast/io.h>
#include <string.h>
#include <unistd.h>

static char *folder;

typedef gboolean (*Convert) (HfImage *image, const char *output, const HfConvertOptions *options, const HfStreamJob *job,
                             GError **error);

static char *
file_name (const char *name)
{
  return g_build_filename (folder, name, NULL);
}

/* Names in the test's folder. */
static gboolean
convert_with (Convert convert, const char *from, guint64 offset, const char *to, HfEngineKind engine, const HfStreamJob *job,
              GError **error)
{
  g_autofree char *input = file_name (from);
  g_autofree char *output = file_name (to);
  const HfConvertOptions options = { .flags = HF_SAVE_NO_SYNC, .engine = engine };
  g_autoptr (HfImage) image = hf_image_open (input, offset, FALSE, error);

  return image && convert (image, output, &options, job, error);
}

static void
convert_good (Convert convert, const char *from, guint64 offset, const char *to, HfEngineKind engine)
{
  g_autoptr (GError) error = NULL;

  convert_with (convert, from, offset, to, engine, NULL, &error);
  g_assert_no_error (error);
}

/* Nothing of the output is left, what was there before is as it was, and the error is of this kind and says this. */
static void
convert_bad (Convert convert, const char *from, int code, const char *text)
{
  g_autofree char *output = file_name ("bad");
  g_autofree char *partial = file_name ("bad.partial");
  g_autofree char *bytes = NULL;
  g_autoptr (GError) error = NULL;

  g_assert_true (g_file_set_contents (output, "old", 3, NULL));
  g_assert_false (convert_with (convert, from, 0, "bad", HF_ENGINE_AUTO, NULL, &error));
  g_assert_error (error, HF_STREAM_ERROR, code);
  if (!strstr (error->message, text))
    g_error ("\"%s\" is not in: %s", text, error->message);
  g_assert_false (g_file_test (partial, G_FILE_TEST_EXISTS));
  g_assert_true (g_file_get_contents (output, &bytes, NULL, NULL));
  g_assert_cmpstr (bytes, ==, "old");
}

static void
write_bytes (const char *name, const void *bytes, gsize length)
{
  g_autofree char *path = file_name (name);

  g_assert_true (g_file_set_contents (path, bytes, (gssize)length, NULL));
}

static guint8 *
read_bytes (const char *name, gsize *ret_length)
{
  g_autofree char *path = file_name (name);
  char *bytes = NULL;

  g_assert_true (g_file_get_contents (path, &bytes, ret_length, NULL));
  return (guint8 *)bytes;
}

static void
assert_mapped (const char *name, const RamModel *model)
{
  gsize length;
  g_autofree guint8 *bytes = read_bytes (name, &length);
  g_autofree char *problem = ram_model_check_mapped (model, bytes, length, 0);

  g_assert_cmpstr (problem, ==, NULL);
}

/* With a trailer that says what the payload is. */
static void
assert_classic (const char *name, const RamModel *model)
{
  gsize length;
  g_autofree guint8 *bytes = read_bytes (name, &length);
  g_autofree char *path = file_name (name);
  g_autofree char *problem = NULL;
  g_autoptr (HfImage) image = hf_image_open (path, 0, FALSE, NULL);

  g_assert_nonnull (image);
  g_assert_cmpint (image->kind, ==, HF_IMAGE_HOLDFAST);
  g_assert_cmpuint (image->trailer.flags, ==, HF_TRAILER_COMPLETE);
  g_assert_cmpuint (image->start, ==, 0);
  problem = ram_model_check_classic (model, bytes, image->end, TRUE);
  g_assert_cmpstr (problem, ==, NULL);
}

/* A model and its stream in a file. */
static void
make (const char *name, RamModel *model, GRand *random)
{
  g_autoptr (GByteArray) stream = ram_model_stream (model, random);
  g_autofree char *problem = NULL;

  if (!model->xbzrle)
    problem = ram_model_check_classic (model, stream->data, stream->len, FALSE);
  g_assert_cmpstr (problem, ==, NULL);
  write_bytes (name, stream->data, stream->len);
}

/* ---- the property ---- */

static gssize
bad_device (G_GNUC_UNUSED HfIoOperation operation, G_GNUC_UNUSED int fd, G_GNUC_UNUSED gint64 offset, gsize length, gpointer data)
{
  gint *calls = data; /* atomic: engines may ask from several threads */
  guint call = g_atomic_int_add (calls, 1);

  switch (call % 4) {
  case 0:
    return -EINTR;
  case 1:
    return length > 512 ? (gssize)(512 + call * 7919u % (length - 512)) : (gssize)length;
  default:
    return (gssize)length;
  }
}

static void
round_trip (GRand *random, guint round, HfEngineKind engine, gboolean faults)
{
  RamModel model;
  gint calls = 0;

  ram_model_init (&model);
  model.footer = round % 2 == 0;
  model.command = round % 3 != 0;
  model.xbzrle = round % 3 == 2;
  make ("classic", &model, random);
  if (faults)
    hf_io_fault_set (bad_device, &calls);
  convert_good (hf_convert_to_mapped, "classic", 0, "mapped", engine);
  convert_good (hf_convert_to_classic, "mapped", 0, "classic-2", engine);
  convert_good (hf_convert_to_mapped, "classic-2", 0, "mapped-2", engine);
  hf_io_fault_set (NULL, NULL);
  g_assert_true (!faults || calls > 100);
  assert_mapped ("mapped", &model);
  assert_classic ("classic-2", &model);
  assert_mapped ("mapped-2", &model);
  ram_model_clear (&model);
}

static void
test_round_trip (gconstpointer data)
{
  g_autoptr (GRand) random = g_rand_new_with_seed (g_test_rand_int ());

  for (guint round = 0; round < 6; round++) {
    round_trip (random, round, HF_ENGINE_RING, GPOINTER_TO_INT (data));
    round_trip (random, round, HF_ENGINE_THREADS, GPOINTER_TO_INT (data));
  }
}

/* ---- libvirt's images ---- */

static GByteArray *
libvirt_image (guint32 format, gsize xml, const guint8 *stream, gsize length)
{
  GByteArray *image = g_byte_array_new ();
  guint32 header[19] = { 2, (guint32)xml, 1, format };

  g_byte_array_append (image, (const guint8 *)"LibvirtQemudSave", 16);
  g_byte_array_append (image, (const guint8 *)header, sizeof header);
  g_assert_cmpuint (image->len, ==, 92);
  g_byte_array_set_size (image, 92 + xml);
  memset (image->data + 92, ' ', xml);
  g_byte_array_append (image, stream, length);
  return image;
}

static void
test_libvirt (void)
{
  g_autoptr (GRand) random = g_rand_new_with_seed (g_test_rand_int ());
  g_autoptr (GByteArray) stream = NULL;
  g_autoptr (GByteArray) raw = NULL;
  RamModel model;

  ram_model_init (&model);
  stream = ram_model_stream (&model, random);
  raw = libvirt_image (0, 7001, stream->data, stream->len);
  write_bytes ("libvirt", raw->data, raw->len);
  convert_good (hf_convert_to_mapped, "libvirt", 0, "mapped", HF_ENGINE_AUTO);
  assert_mapped ("mapped", &model);
  ram_model_clear (&model);
}

/* A sparse image: the stream lies behind the header, the offsets in it count from the start of the file. */
static void
test_libvirt_sparse (void)
{
  g_autoptr (GRand) random = g_rand_new_with_seed (g_test_rand_int ());
  g_autoptr (GByteArray) stream = NULL;
  g_autoptr (GByteArray) head = libvirt_image (6, 65536, NULL, 0);
  g_autofree char *path = file_name ("sparse");
  g_autoptr (HfSaveFile) file = NULL;
  g_autoptr (HfMappedWriter) writer = NULL;
  g_autoptr (GError) error = NULL;
  guint64 length = 0;
  RamModel model;

  ram_model_init (&model);
  stream = ram_model_stream (&model, random);
  write_bytes ("sparse", head->data, head->len);
  file = hf_save_file_new (path, head->len, HF_SAVE_NO_SYNC, &error);
  g_assert_no_error (error);
  writer = hf_mapped_writer_new (file, head->len, HF_ENGINE_AUTO, &error);
  g_assert_no_error (error);
  g_assert_true (hf_mapped_writer_feed (writer, stream->data, stream->len, &error));
  g_assert_true (hf_mapped_writer_finish (writer, &length, &error));
  g_assert_true (hf_save_file_commit (file, length, &error));
  convert_good (hf_convert_to_classic, "sparse", 0, "classic", HF_ENGINE_AUTO);
  assert_classic ("classic", &model);
  ram_model_clear (&model);
}

/* ---- what is refused ---- */

static void
test_already (void)
{
  g_autoptr (GRand) random = g_rand_new_with_seed (21);
  RamModel model;

  ram_model_init (&model);
  make ("classic", &model, random);
  convert_bad (hf_convert_to_classic, "classic", HF_STREAM_ERROR_UNSUPPORTED, "classic stream already");
  convert_good (hf_convert_to_mapped, "classic", 0, "mapped", HF_ENGINE_AUTO);
  convert_bad (hf_convert_to_mapped, "mapped", HF_STREAM_ERROR_UNSUPPORTED, "mapped-ram file already");
  ram_model_clear (&model);
}

/* One bit, anywhere in a file that has checksums. */
static void
test_checksum (void)
{
  g_autoptr (GRand) random = g_rand_new_with_seed (22);
  g_autofree guint8 *bytes = NULL;
  g_autofree char *path = file_name ("classic-2");
  gsize length = 0, end;
  RamModel model;

  ram_model_init (&model);
  make ("classic", &model, random);
  convert_good (hf_convert_to_mapped, "classic", 0, "mapped", HF_ENGINE_AUTO);
  convert_good (hf_convert_to_classic, "mapped", 0, "classic-2", HF_ENGINE_AUTO);
  {
    g_autoptr (HfImage) image = hf_image_open (path, 0, FALSE, NULL);

    end = image->end;
  }
  bytes = read_bytes ("classic-2", &length);
  for (guint i = 0; i < 20; i++) {
    gsize at = 8 + (gsize)g_rand_int (random) % (end - 8);

    bytes[at] ^= 1u << (i % 8);
    write_bytes ("flipped", bytes, length);
    bytes[at] ^= 1u << (i % 8);
    convert_bad (hf_convert_to_mapped, "flipped", HF_STREAM_ERROR_CHECKSUM, "is not what was written");
  }
  ram_model_clear (&model);
}

/* Cut at every part of the classic stream, and of the mapped-ram file. */
static void
test_cut (void)
{
  g_autoptr (GRand) random = g_rand_new_with_seed (23);
  RamModel model;

  ram_model_init (&model);
  make ("classic", &model, random);
  convert_good (hf_convert_to_mapped, "classic", 0, "mapped", HF_ENGINE_AUTO);
  for (guint i = 0; i < 12; i++) {
    gsize length = 0;
    g_autofree guint8 *classic = read_bytes ("classic", &length);

    write_bytes ("cut", classic, i < 4 ? length - 1 - i * 40 : 8 + (length - 8) / 12 * i);
    convert_bad (hf_convert_to_mapped, "cut", HF_STREAM_ERROR_INCOMPLETE, "");
  }
  for (guint i = 0; i < 12; i++) {
    gsize length = 0;
    g_autofree guint8 *mapped = read_bytes ("mapped", &length);

    write_bytes ("cut", mapped, i < 4 ? length - 1 - i * 40 : 8 + (length - 8) / 12 * i);
    convert_bad (hf_convert_to_classic, "cut", HF_STREAM_ERROR_INCOMPLETE, "");
  }
  ram_model_clear (&model);
}

/* The header of a block names a place outside of the file, or another block's. */
static void
test_bad_layout (void)
{
  g_autoptr (GRand) random = g_rand_new_with_seed (24);
  g_autofree guint8 *bytes = NULL;
  gsize length = 0;
  const guint8 *block;
  RamModel model;

  ram_model_init (&model);
  make ("classic", &model, random);
  convert_good (hf_convert_to_mapped, "classic", 0, "mapped", HF_ENGINE_AUTO);
  bytes = read_bytes ("mapped", &length);
  block = memmem (bytes, 4096, "\x06pc.ram", 7);
  g_assert_nonnull (block);
  for (gsize field = 0; field < 28; field++) {
    gsize at = (gsize)(block - bytes) + 15 + field;

    bytes[at] ^= 0x40;
    write_bytes ("layout", bytes, length);
    bytes[at] ^= 0x40;
    g_test_message ("byte %zu of the header", field);
    {
      g_autofree char *partial = file_name ("bad.partial");
      g_autoptr (GError) error = NULL;

      g_assert_false (convert_with (hf_convert_to_classic, "layout", 0, "bad", HF_ENGINE_AUTO, NULL, &error));
      g_assert_true (error && (error->domain == HF_STREAM_ERROR || error->domain == HF_IO_ERROR));
      g_assert_false (g_file_test (partial, G_FILE_TEST_EXISTS));
    }
  }
  ram_model_clear (&model);
}

/* ---- the job ---- */

typedef struct {
  guint64 last, total;
  guint calls, stop_after; /* 0: never */
  int write_end;
} Progress;

static void
on_progress (guint64 done, guint64 total, gpointer data)
{
  Progress *progress = data;

  g_assert_cmpuint (done, >=, progress->last);
  g_assert_cmpuint (done, <=, total);
  progress->last = done;
  progress->total = total;
  if (++progress->calls == progress->stop_after)
    g_assert_cmpint (write (progress->write_end, "x", 1), ==, 1);
}

static const struct {
  const char *name, *from;
  Convert convert;
} directions[] = {
  { "to-mapped", "classic", hf_convert_to_mapped },
  { "to-classic", "mapped", hf_convert_to_classic },
};

static void
test_job (gconstpointer data)
{
  gsize index = GPOINTER_TO_SIZE (data);
  g_autoptr (GRand) random = g_rand_new_with_seed (25);
  RamModel model;

  ram_model_init (&model);
  make ("classic", &model, random);
  convert_good (hf_convert_to_mapped, "classic", 0, "mapped", HF_ENGINE_AUTO);
  for (guint stop_after = 0; stop_after < 6; stop_after++) {
    int ends[2];
    Progress progress = { .stop_after = stop_after };
    HfStreamJob job = { .progress = on_progress, .data = &progress };
    g_autofree char *output = file_name ("stopped");
    g_autofree char *partial = file_name ("stopped.partial");
    g_autoptr (GError) error = NULL;

    g_unlink (output);
    g_assert_cmpint (pipe2 (ends, O_CLOEXEC), ==, 0);
    job.interrupt_fd = ends[0];
    progress.write_end = ends[1];
    g_assert_cmpint (convert_with (directions[index].convert, directions[index].from, 0, "stopped", HF_ENGINE_AUTO, &job, &error),
                     ==, stop_after == 0);
    g_assert_cmpint (g_file_test (output, G_FILE_TEST_EXISTS), ==, stop_after == 0);
    g_assert_false (g_file_test (partial, G_FILE_TEST_EXISTS));
    if (stop_after == 0) {
      g_assert_cmpuint (progress.calls, >, 6);
      g_assert_cmpuint (progress.last, ==, progress.total);
    } else {
      g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_INTERRUPTED);
      g_assert_cmpuint (progress.calls, ==, stop_after);
    }
    close (ends[0]);
    close (ends[1]);
  }
  ram_model_clear (&model);
}

/* Whichever transfer the device refuses: an error, and no file. */
static gssize
fail_at (G_GNUC_UNUSED HfIoOperation operation, G_GNUC_UNUSED int fd, G_GNUC_UNUSED gint64 offset, gsize length, gpointer data)
{
  gint *left = data;

  return g_atomic_int_dec_and_test (left) ? -EIO : (gssize)length;
}

static void
test_device_fails (gconstpointer data)
{
  gsize index = GPOINTER_TO_SIZE (data);
  g_autoptr (GRand) random = g_rand_new_with_seed (26);
  g_autofree char *output = file_name ("failed");
  g_autofree char *partial = file_name ("failed.partial");
  guint failed = 0;
  RamModel model;

  ram_model_init (&model);
  make ("classic", &model, random);
  convert_good (hf_convert_to_mapped, "classic", 0, "mapped", HF_ENGINE_AUTO);
  for (gint at = 1; at < 100000; at += at < 12 ? 1 : 41) {
    g_autoptr (GError) error = NULL;
    gint left = at;
    gboolean ok;

    g_unlink (output);
    hf_io_fault_set (fail_at, &left);
    ok = convert_with (directions[index].convert, directions[index].from, 0, "failed", HF_ENGINE_AUTO, NULL, &error);
    hf_io_fault_set (NULL, NULL);
    g_assert_false (g_file_test (partial, G_FILE_TEST_EXISTS));
    g_assert_cmpint (g_file_test (output, G_FILE_TEST_EXISTS), ==, ok);
    g_assert_cmpint (ok, ==, error == NULL);
    g_assert_cmpint (ok, ==, left > 0);
    if (ok)
      break;
    failed++;
  }
  g_assert_cmpuint (failed, >, 12);
  ram_model_clear (&model);
}

static void
remove_folder (void)
{
  GDir *dir = g_dir_open (folder, 0, NULL);
  const char *name;

  while ((name = g_dir_read_name (dir))) {
    g_autofree char *path = file_name (name);

    g_unlink (path);
  }
  g_dir_close (dir);
  g_rmdir (folder);
  g_free (folder);
}

int
main (int argc, char **argv)
{
  int result;

  g_test_init (&argc, &argv, NULL);
  folder = g_dir_make_tmp ("holdfast-convert-XXXXXX", NULL);
  g_assert_nonnull (folder);
  g_test_add_data_func ("/stream/convert/round-trip", GINT_TO_POINTER (FALSE), test_round_trip);
  g_test_add_data_func ("/stream/convert/round-trip/bad-device", GINT_TO_POINTER (TRUE), test_round_trip);
  g_test_add_func ("/stream/convert/libvirt", test_libvirt);
  g_test_add_func ("/stream/convert/libvirt/sparse", test_libvirt_sparse);
  g_test_add_func ("/stream/convert/already", test_already);
  g_test_add_func ("/stream/convert/checksum", test_checksum);
  g_test_add_func ("/stream/convert/cut", test_cut);
  g_test_add_func ("/stream/convert/bad-layout", test_bad_layout);
  for (gsize i = 0; i < G_N_ELEMENTS (directions); i++) {
    g_autofree char *job = g_strdup_printf ("/stream/convert/job/%s", directions[i].name);
    g_autofree char *device = g_strdup_printf ("/stream/convert/device-fails/%s", directions[i].name);

    g_test_add_data_func (job, GSIZE_TO_POINTER (i), test_job);
    g_test_add_data_func (device, GSIZE_TO_POINTER (i), test_device_fails);
  }
  result = g_test_run ();
  remove_folder ();
  return result;
}
