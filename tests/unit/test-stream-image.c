/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where the stream lies in a file, and which files are refused by name.
 */
#include "stream/image.h"

#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEADER_SIZE 92u
#define XML_SIZE 1000u

/* Not a whole stream: the image looks at its first bytes only. */
static const char stream[] = "QEVM and what follows";
#define STREAM_SIZE ((gsize)(sizeof stream - 1))

static void
append_u32 (GByteArray *bytes, guint32 value, gboolean swap)
{
  if (swap)
    value = GUINT32_SWAP_LE_BE (value);
  g_byte_array_append (bytes, (const guint8 *)&value, sizeof value);
}

static GByteArray *
libvirt_image (const char *magic, guint32 version, guint32 format, gboolean swap)
{
  GByteArray *bytes = g_byte_array_new ();

  g_byte_array_append (bytes, (const guint8 *)magic, 16);
  append_u32 (bytes, version, swap);
  append_u32 (bytes, XML_SIZE, swap);
  append_u32 (bytes, 1, swap); /* was_running */
  append_u32 (bytes, format, swap);
  g_byte_array_set_size (bytes, HEADER_SIZE + XML_SIZE);
  memset (bytes->data + 32, ' ', bytes->len - 32);
  g_byte_array_append (bytes, (const guint8 *)stream, STREAM_SIZE);
  return bytes;
}

/* What capture adds behind the payload, which begins at start. */
static void
append_trailer (GByteArray *bytes, guint64 start)
{
  HfTrailer trailer = { .block_size = HF_TRAILER_BLOCK_SIZE,
                        .payload_offset = start,
                        .payload_length = bytes->len - start,
                        .flags = HF_TRAILER_COMPLETE,
                        .n_blocks = 1 };
  guint64 checksum = hf_trailer_checksum (bytes->data + start, bytes->len - start);
  g_autoptr (GBytes) encoded = NULL;

  trailer.checksums = &checksum;
  encoded = hf_trailer_encode (&trailer);
  g_byte_array_append (bytes, g_bytes_get_data (encoded, NULL), (guint)g_bytes_get_size (encoded));
}

static HfImage *
open_bytes (const GByteArray *bytes, guint64 offset, gboolean any, GError **error)
{
  return hf_image_of_reader (hf_reader_new_memory (bytes->data, bytes->len), offset, any, error);
}

static void
expect (const GByteArray *bytes, guint64 offset, gboolean any, HfImageKind kind, guint64 start, guint64 end)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (HfImage) image = open_bytes (bytes, offset, any, &error);

  g_assert_no_error (error);
  g_assert_cmpstr (hf_image_kind_name (image->kind), ==, hf_image_kind_name (kind));
  g_assert_cmpuint (image->start, ==, start);
  g_assert_cmpuint (image->end, ==, end);
  g_assert_cmpuint (image->size, ==, bytes->len);
  g_assert_cmpint (image->fd, ==, -1);
}

static void
expect_error (const GByteArray *bytes, guint64 offset, gboolean any, HfStreamError code, const char *word)
{
  g_autoptr (GError) error = NULL;
  HfImage *image = open_bytes (bytes, offset, any, &error);

  g_assert_null (image);
  g_assert_error (error, HF_STREAM_ERROR, (gint)code);
  g_assert_nonnull (strstr (error->message, word));
}

static void
test_qemu (void)
{
  g_autoptr (GByteArray) bytes = g_byte_array_new ();

  g_byte_array_append (bytes, (const guint8 *)stream, STREAM_SIZE);
  expect (bytes, 0, FALSE, HF_IMAGE_QEMU, 0, STREAM_SIZE);
  g_byte_array_prepend (bytes, (const guint8 *)"something of another program", 28);
  expect (bytes, 28, FALSE, HF_IMAGE_QEMU, 28, 28 + STREAM_SIZE);
  expect_error (bytes, 0, FALSE, HF_STREAM_ERROR_MALFORMED, "QEVM");
  expect_error (bytes, 27, FALSE, HF_STREAM_ERROR_MALFORMED, "27");
  expect_error (bytes, bytes->len + 1, FALSE, HF_STREAM_ERROR_INCOMPLETE, "begin");
}

/* Not even the first four bytes. */
static void
test_short (void)
{
  g_autoptr (GByteArray) bytes = g_byte_array_new ();

  for (guint length = 0; length < 4; length++) {
    g_byte_array_set_size (bytes, 0);
    g_byte_array_append (bytes, (const guint8 *)"QEVM", length);
    expect_error (bytes, 0, FALSE, HF_STREAM_ERROR_INCOMPLETE, "header");
    expect (bytes, 0, TRUE, HF_IMAGE_ANY, 0, length);
  }
}

static void
test_any (void)
{
  g_autoptr (GByteArray) bytes = g_byte_array_new ();

  g_byte_array_append (bytes, (const guint8 *)"no stream at all", 16);
  expect (bytes, 0, TRUE, HF_IMAGE_ANY, 0, 16);
  append_trailer (bytes, 0);
  expect (bytes, 0, TRUE, HF_IMAGE_ANY, 0, 16);
  expect_error (bytes, 0, FALSE, HF_STREAM_ERROR_MALFORMED, "QEVM");
}

static void
test_libvirt (void)
{
  for (guint swap = 0; swap < 2; swap++) {
    for (guint format = 0; format <= 6; format += 6) {
      g_autoptr (GByteArray) bytes = libvirt_image ("LibvirtQemudSave", 2, format, swap);
      g_autoptr (HfImage) image = open_bytes (bytes, 0, FALSE, NULL);

      expect (bytes, 0, FALSE, HF_IMAGE_LIBVIRT, HEADER_SIZE + XML_SIZE, bytes->len);
      expect (bytes, HEADER_SIZE + XML_SIZE, FALSE, HF_IMAGE_LIBVIRT, HEADER_SIZE + XML_SIZE, bytes->len);
      expect_error (bytes, HEADER_SIZE, FALSE, HF_STREAM_ERROR_MALFORMED, "1092");
      g_assert_cmpuint (image->libvirt_format, ==, format);
      g_assert_true (image->libvirt_was_running);
    }
  }
}

static void
test_libvirt_refused (void)
{
  static const char *const names[] = { NULL, "gzip", "bzip2", "xz", "lzop", "zstd" };
  g_autoptr (GByteArray) partial = libvirt_image ("LibvirtQemudPart", 2, 0, FALSE);
  g_autoptr (GByteArray) newer = libvirt_image ("LibvirtQemudSave", 3, 0, FALSE);
  g_autoptr (GByteArray) unknown = libvirt_image ("LibvirtQemudSave", 2, 7, FALSE);
  g_autoptr (GByteArray) cut = libvirt_image ("LibvirtQemudSave", 2, 0, FALSE);

  for (guint format = 1; format < G_N_ELEMENTS (names); format++) {
    for (guint swap = 0; swap < 2; swap++) {
      g_autoptr (GByteArray) bytes = libvirt_image ("LibvirtQemudSave", 2, format, swap);

      expect_error (bytes, 0, FALSE, HF_STREAM_ERROR_UNSUPPORTED, names[format]);
    }
  }
  expect_error (partial, 0, FALSE, HF_STREAM_ERROR_INCOMPLETE, "not complete");
  expect_error (partial, 0, TRUE, HF_STREAM_ERROR_INCOMPLETE, "not complete");
  expect_error (newer, 0, FALSE, HF_STREAM_ERROR_UNSUPPORTED, "version");
  expect_error (unknown, 0, FALSE, HF_STREAM_ERROR_UNSUPPORTED, "7 (unknown)");
  for (guint length = 16; length < HEADER_SIZE + XML_SIZE; length += 7) {
    g_byte_array_set_size (cut, length);
    expect_error (cut, 0, FALSE, HF_STREAM_ERROR_INCOMPLETE, "offset");
  }
}

static void
test_ours (void)
{
  g_autoptr (GByteArray) bytes = g_byte_array_new ();
  g_autoptr (HfImage) image = NULL;

  g_byte_array_append (bytes, (const guint8 *)stream, STREAM_SIZE);
  append_trailer (bytes, 0);
  expect (bytes, 0, FALSE, HF_IMAGE_HOLDFAST, 0, STREAM_SIZE);
  image = open_bytes (bytes, 0, FALSE, NULL);
  g_assert_true (image->has_trailer);
  g_assert_cmpuint (image->trailer.n_blocks, ==, 1);
  g_assert_nonnull (image->trailer.checksums);
}

/* `capture --offset` behind libvirt's header: ours, and the header still says whether libvirt has finished. */
static void
test_ours_behind_libvirt (void)
{
  g_autoptr (GByteArray) bytes = libvirt_image ("LibvirtQemudSave", 2, 0, FALSE);
  guint64 start = HEADER_SIZE + XML_SIZE, end = bytes->len;

  append_trailer (bytes, start);
  expect (bytes, 0, FALSE, HF_IMAGE_HOLDFAST, start, end);
  expect (bytes, start, FALSE, HF_IMAGE_HOLDFAST, start, end);
  expect_error (bytes, 7, FALSE, HF_STREAM_ERROR_MALFORMED, "not at 7");
  memcpy (bytes->data, "LibvirtQemudPart", 16);
  expect_error (bytes, 0, FALSE, HF_STREAM_ERROR_INCOMPLETE, "not complete");
}

/* No byte of a trailer can be other than it was, once the file still looks like ours. */
static void
test_damaged_trailer (void)
{
  g_autoptr (GByteArray) bytes = g_byte_array_new ();

  g_byte_array_append (bytes, (const guint8 *)stream, STREAM_SIZE);
  append_trailer (bytes, 0);
  for (guint at = STREAM_SIZE; at < bytes->len; at++) {
    g_autoptr (GError) error = NULL;
    g_autoptr (HfImage) image = NULL;

    bytes->data[at] ^= 0x10;
    image = open_bytes (bytes, 0, FALSE, &error);
    bytes->data[at] ^= 0x10;
    if (at >= STREAM_SIZE + 8 && at < STREAM_SIZE + 16) {
      g_assert_no_error (error); /* the magic: then it is QEMU's, with something behind its end, which the walks refuse */
      g_assert_cmpint (image->kind, ==, HF_IMAGE_QEMU);
      continue;
    }
    g_assert_null (image);
    g_assert_true (error->domain == HF_STREAM_ERROR);
    if (at < STREAM_SIZE + 8)
      g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_CHECKSUM);
  }
}

static void
test_files (void)
{
  g_autofree char *folder = g_dir_make_tmp ("holdfast-image-XXXXXX", NULL);
  g_autofree char *good = g_build_filename (folder, "vm.hf", NULL);
  g_autofree char *partial = g_build_filename (folder, "vm.hf.partial", NULL);
  g_autofree char *fifo = g_build_filename (folder, "fifo", NULL);
  const struct {
    const char *path;
    HfStreamError code;
    const char *word;
  } refused[] = {
    { partial, HF_STREAM_ERROR_INCOMPLETE, "partial" },
    { fifo, HF_STREAM_ERROR_FILE, "regular" },
    { folder, HF_STREAM_ERROR_FILE, "regular" },
    { "/nonexistent/file", HF_STREAM_ERROR_FILE, "No such file" },
  };
  g_autoptr (HfImage) image = NULL;
  g_autoptr (GError) error = NULL;

  g_assert_true (g_file_set_contents (good, stream, (gssize)STREAM_SIZE, NULL));
  g_assert_true (g_file_set_contents (partial, stream, (gssize)STREAM_SIZE, NULL));
  g_assert_cmpint (mkfifo (fifo, 0600), ==, 0);
  image = hf_image_open (good, 0, FALSE, &error);
  g_assert_no_error (error);
  g_assert_cmpint (image->fd, >=, 0);
  g_assert_cmpint (fcntl (image->fd, F_GETFL) & O_ACCMODE, ==, O_RDONLY);
  g_assert_cmpint (fcntl (image->fd, F_GETFD) & FD_CLOEXEC, ==, FD_CLOEXEC);
  g_assert_cmpuint (image->size, ==, STREAM_SIZE);
  for (guint i = 0; i < G_N_ELEMENTS (refused); i++) {
    g_autoptr (GError) problem = NULL;

    g_assert_null (hf_image_open (refused[i].path, 0, FALSE, &problem));
    g_assert_error (problem, HF_STREAM_ERROR, (gint)refused[i].code);
    g_assert_nonnull (strstr (problem->message, refused[i].word));
  }
  g_unlink (good);
  g_unlink (partial);
  g_unlink (fifo);
  g_assert_cmpint (g_rmdir (folder), ==, 0);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/stream/image/qemu", test_qemu);
  g_test_add_func ("/stream/image/short", test_short);
  g_test_add_func ("/stream/image/any", test_any);
  g_test_add_func ("/stream/image/libvirt", test_libvirt);
  g_test_add_func ("/stream/image/libvirt-refused", test_libvirt_refused);
  g_test_add_func ("/stream/image/ours", test_ours);
  g_test_add_func ("/stream/image/ours-behind-libvirt", test_ours_behind_libvirt);
  g_test_add_func ("/stream/image/damaged-trailer", test_damaged_trailer);
  g_test_add_func ("/stream/image/files", test_files);
  return g_test_run ();
}
