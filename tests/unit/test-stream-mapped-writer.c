/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From a classic stream to a mapped-ram file: whatever the order of pages, however often they are sent again or turn zero, and
 * however short the device's writes are, the file holds the memory that the stream ends with; a device that fails and a stream
 * that is cut give an error and no file.
 */
#include "config.h"

#include "ram-model.h"
#include "stream/fault.h"
#include "stream/mapped-writer.h"
#include "stream/page-set.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <holdfast/io.h>
#include <string.h>

static char *folder;

static const HfEngineKind kinds[] = { HF_ENGINE_RING, HF_ENGINE_THREADS };

static char *
file_name (const char *name)
{
  return g_build_filename (folder, name, NULL);
}

/* Everything that hf_capture does with a mapped-writer but its own tests. */
static gboolean
write_file (const char *path, const GByteArray *stream, gsize piece, guint64 start, HfSaveFlags flags, HfEngineKind kind,
            RamModel *counts, GError **error)
{
  g_autoptr (HfSaveFile) file = hf_save_file_new (path, start, flags | HF_SAVE_NO_SYNC, error);
  g_autoptr (HfMappedWriter) writer = file ? hf_mapped_writer_new (file, start, kind, error) : NULL;
  guint64 length = 0;

  if (!writer)
    return FALSE;
  for (gsize at = 0; at < stream->len; at += piece) {
    if (!hf_mapped_writer_feed (writer, stream->data + at, MIN (piece, stream->len - at), error))
      return FALSE;
  }
  if (!hf_mapped_writer_finish (writer, &length, error))
    return FALSE;
  if (counts)
    hf_mapped_writer_counts (writer, &counts->n_pages, &counts->n_zero);
  return hf_save_file_commit (file, length, error);
}

static void
assert_holds (const char *path, const RamModel *model, gsize start)
{
  g_autofree char *bytes = NULL;
  g_autofree char *problem = NULL;
  gsize length = 0;

  g_assert_true (g_file_get_contents (path, &bytes, &length, NULL));
  problem = ram_model_check_mapped (model, (const guint8 *)bytes, length, start);
  g_assert_cmpstr (problem, ==, NULL);
}

/* ---- the property ---- */

static gssize
bad_device (G_GNUC_UNUSED HfIoOperation operation, G_GNUC_UNUSED int fd, G_GNUC_UNUSED gint64 offset, gsize length, gpointer data)
{
  gint *calls = data; /* atomic: engines may ask from several threads */
  guint call = g_atomic_int_add (calls, 1);

  switch (call % 5) {
  case 0:
    return -EINTR;
  case 1:
    /* Seldom aligned, but one sector at least: O_DIRECT goes on from there. */
    return length > 512 ? (gssize)(512 + call * 7919u % (length - 512)) : (gssize)length;
  case 3:
    return length > 4096 ? 4096 : (gssize)length;
  default:
    return (gssize)length;
  }
}

static void
check_one (GRand *random, guint round, HfEngineKind kind, HfSaveFlags flags, gboolean faults)
{
  g_autofree char *path = file_name ("mapped");
  g_autoptr (GByteArray) stream = NULL;
  g_autoptr (GError) error = NULL;
  RamModel model, counts;
  gint calls = 0;
  gsize piece = round % 3 == 0 ? 1 << 20 : g_rand_int_range (random, 1000, 100000);

  ram_model_init (&model);
  model.footer = round % 4 != 1;
  model.command = round % 2 == 0;
  model.xbzrle = round % 3 != 2;
  stream = ram_model_stream (&model, random);
  if (faults)
    hf_io_fault_set (bad_device, &calls);
  write_file (path, stream, piece, 0, flags, kind, &counts, &error);
  hf_io_fault_set (NULL, NULL);
  g_assert_no_error (error);
  g_assert_true (!faults || calls > 100);
  assert_holds (path, &model, 0);
  g_assert_cmpuint (counts.n_pages, ==, model.n_pages);
  g_assert_cmpuint (counts.n_zero, ==, model.n_zero);
  ram_model_clear (&model);
}

static void
test_property (void)
{
  g_autoptr (GRand) random = g_rand_new_with_seed (g_test_rand_int ());

  for (guint round = 0; round < 6; round++) {
    for (gsize i = 0; i < G_N_ELEMENTS (kinds); i++) {
      check_one (random, round, kinds[i], HF_SAVE_DEFAULT, FALSE);
      check_one (random, round, kinds[i], HF_SAVE_BUFFERED, FALSE);
    }
  }
}

static void
test_property_bad_device (void)
{
  g_autoptr (GRand) random = g_rand_new_with_seed (g_test_rand_int ());

  for (guint round = 0; round < 3; round++) {
    for (gsize i = 0; i < G_N_ELEMENTS (kinds); i++) {
      check_one (random, round, kinds[i], HF_SAVE_DEFAULT, TRUE);
      check_one (random, round, kinds[i], HF_SAVE_BUFFERED, TRUE);
    }
  }
}

/* Pages [first, first + n) of the first block, all filled with value. */
static void
send_filled (RamModel *model, GByteArray *stream, guint first, guint n, guint8 value)
{
  for (guint i = first; i < first + n; i++) {
    guint8 *page = model->memory[0] + i * CS_PAGE;

    memset (page, value, CS_PAGE);
    cs_page (stream, model->blocks[0].id, i * CS_PAGE, page);
  }
}

/* The same places again and again, as long runs (many in flight), as single pages (written at once), and across each other: the
   last one wins, although the writes take differently long. */
static void
test_later_wins (void)
{
  for (gsize i = 0; i < 2 * G_N_ELEMENTS (kinds); i++) {
    g_autofree char *path = file_name ("again");
    g_autoptr (GByteArray) stream = g_byte_array_new ();
    g_autoptr (GError) error = NULL;
    RamModel model;
    gint calls = 0;

    ram_model_init (&model);
    cs_header (stream);
    cs_configuration (stream, "pc-q35-10.0", 0, NULL, (const guint8 *)"0123456789abcdef");
    cs_ram_start (stream, model.blocks, RAM_MODEL_BLOCKS, TRUE);
    cs_ram_begin (stream, 0x03);
    for (guint n = 0; n < 60; n++) {
      send_filled (&model, stream, n % 3 * 7, 40 + n % 5 * 30, n + 1);
      send_filled (&model, stream, 300 + n % 2, 20, n + 2);
      send_filled (&model, stream, 5 + n, 1, n + 100);
    }
    send_filled (&model, stream, 0, 250, 0xfe);
    send_filled (&model, stream, 30, 200, 0xfd);
    send_filled (&model, stream, 60, 1, 0xfc);
    cs_ram_end (stream, TRUE);
    cs_devices (stream, TRUE);
    hf_io_fault_set (bad_device, &calls);
    write_file (path, stream, stream->len, 0, i % 2 ? HF_SAVE_BUFFERED : HF_SAVE_DEFAULT, kinds[i / 2], NULL, &error);
    hf_io_fault_set (NULL, NULL);
    g_assert_no_error (error);
    assert_holds (path, &model, 0);
    ram_model_clear (&model);
  }
}

/* Behind a prefix that stays, as libvirt's header does; offsets are absolute. */
static void
test_behind_prefix (void)
{
  static const gsize prefixes[] = { 1, 4096, 71969, (1 << 20) + 5 };

  for (gsize i = 0; i < G_N_ELEMENTS (prefixes); i++) {
    g_autofree char *path = file_name ("prefix");
    g_autofree char *prefix = g_strnfill (prefixes[i], 'p');
    g_autofree char *bytes = NULL;
    g_autoptr (GRand) random = g_rand_new_with_seed (g_test_rand_int ());
    g_autoptr (GByteArray) stream = NULL;
    g_autoptr (GError) error = NULL;
    RamModel model;

    ram_model_init (&model);
    stream = ram_model_stream (&model, random);
    g_assert_true (g_file_set_contents (path, prefix, prefixes[i], NULL));
    write_file (path, stream, 1 << 20, prefixes[i], HF_SAVE_DEFAULT, HF_ENGINE_AUTO, NULL, &error);
    g_assert_no_error (error);
    assert_holds (path, &model, prefixes[i]);
    g_assert_true (g_file_get_contents (path, &bytes, NULL, NULL));
    g_assert_cmpmem (bytes, prefixes[i], prefix, prefixes[i]);
    ram_model_clear (&model);
  }
}

/* ---- what fails ---- */

static gssize
fail_at (HfIoOperation operation, G_GNUC_UNUSED int fd, G_GNUC_UNUSED gint64 offset, gsize length, gpointer data)
{
  gint *left = data;

  return operation == HF_IO_WRITE && g_atomic_int_dec_and_test (left) ? -EIO : (gssize)length;
}

/* Whichever write the device refuses: an error that says so, the old file whole, nothing else left. */
static void
test_device_fails (void)
{
  g_autofree char *path = file_name ("old");
  g_autofree char *partial = file_name ("old.partial");
  g_autoptr (GRand) random = g_rand_new_with_seed (17);
  g_autoptr (GByteArray) stream = NULL;
  RamModel model;

  ram_model_init (&model);
  stream = ram_model_stream (&model, random);
  for (gsize i = 0; i < G_N_ELEMENTS (kinds); i++) {
    guint failed = 0;

    for (gint at = 1; at < 100000; at += at < 8 ? 1 : 97) {
      g_autoptr (GError) error = NULL;
      g_autofree char *bytes = NULL;
      gint left = at;
      gboolean ok;

      g_assert_true (g_file_set_contents (path, "old", 3, NULL));
      hf_io_fault_set (fail_at, &left);
      ok = write_file (path, stream, 1 << 20, 0, HF_SAVE_DEFAULT, kinds[i], NULL, &error);
      hf_io_fault_set (NULL, NULL);
      g_assert_false (g_file_test (partial, G_FILE_TEST_EXISTS));
      if (ok) {
        g_assert_cmpint (left, >, 0); /* there were not so many writes */
        assert_holds (path, &model, 0);
        break;
      }
      failed++;
      g_assert_cmpint (left, <=, 0);
      g_assert_error (error, HF_IO_ERROR, HF_IO_ERROR_FAILED);
      g_assert_true (g_file_get_contents (path, &bytes, NULL, NULL));
      g_assert_cmpstr (bytes, ==, "old");
    }
    g_assert_cmpuint (failed, >, 8);
  }
  ram_model_clear (&model);
}

/* Cut anywhere before the end of RAM. */
static void
test_cut (void)
{
  g_autofree char *path = file_name ("cut");
  g_autofree char *partial = file_name ("cut.partial");
  g_autoptr (GRand) random = g_rand_new_with_seed (18);
  g_autoptr (GByteArray) stream = NULL;
  g_autoptr (GByteArray) devices = g_byte_array_new ();
  RamModel model;

  ram_model_init (&model);
  stream = ram_model_stream (&model, random);
  cs_devices (devices, TRUE);
  for (gsize length = 0; length < stream->len - devices->len; length += length < 200 ? 1 : 500009) {
    g_autoptr (GByteArray) cut = g_byte_array_new ();
    g_autoptr (GError) error = NULL;

    g_byte_array_append (cut, stream->data, length);
    g_assert_false (write_file (path, cut, 1 << 20, 0, HF_SAVE_DEFAULT, HF_ENGINE_AUTO, NULL, &error));
    g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_INCOMPLETE);
    g_assert_false (g_file_test (path, G_FILE_TEST_EXISTS));
    g_assert_false (g_file_test (partial, G_FILE_TEST_EXISTS));
  }
  ram_model_clear (&model);
}

/* Before finish nothing in the file says that it is one: not even QEVM. */
static void
test_no_early_head (void)
{
  g_autofree char *path = file_name ("early");
  g_autofree char *partial = file_name ("early.partial");
  g_autoptr (GRand) random = g_rand_new_with_seed (19);
  g_autoptr (HfSaveFile) file = hf_save_file_new (path, 0, HF_SAVE_NO_SYNC, NULL);
  g_autoptr (HfMappedWriter) writer = hf_mapped_writer_new (file, 0, HF_ENGINE_AUTO, NULL);
  g_autoptr (GByteArray) stream = NULL;
  g_autofree char *bytes = NULL;
  gsize length = 0;
  RamModel model;

  ram_model_init (&model);
  stream = ram_model_stream (&model, random);
  g_assert_true (hf_mapped_writer_feed (writer, stream->data, stream->len, NULL));
  g_assert_true (g_file_get_contents (partial, &bytes, &length, NULL));
  g_assert_cmpuint (length, >, 1 << 20); /* pages are there already */
  for (guint i = 0; i < 4096; i++)
    g_assert_cmpint (bytes[i], ==, 0);
  ram_model_clear (&model);
}

static void
assert_refused (const GByteArray *stream, HfStreamError code, const char *text)
{
  g_autofree char *path = file_name ("refused");
  g_autoptr (GError) error = NULL;

  g_assert_false (write_file (path, stream, 1 << 20, 0, HF_SAVE_DEFAULT, HF_ENGINE_AUTO, NULL, &error));
  g_assert_error (error, HF_STREAM_ERROR, (int)code);
  g_assert_nonnull (strstr (error->message, text));
  g_assert_false (g_file_test (path, G_FILE_TEST_EXISTS));
}

static void
test_refused (void)
{
  static const char *const shared[] = { "x-ignore-shared", NULL };
  static const CsBlock huge = { "pc.ram", G_GUINT64_CONSTANT (1) << 60 }, small = { "pc.ram", 4 * CS_PAGE };
  g_autoptr (GByteArray) stream = g_byte_array_new ();

  cs_header (stream);
  cs_configuration (stream, "pc", 0, shared, NULL);
  cs_u8 (stream, 0x01);
  assert_refused (stream, HF_STREAM_ERROR_UNSUPPORTED, "x-ignore-shared");

  g_byte_array_set_size (stream, 0);
  cs_header (stream);
  cs_ram_start (stream, &small, 1, TRUE);
  assert_refused (stream, HF_STREAM_ERROR_UNSUPPORTED, "send-configuration");

  g_byte_array_set_size (stream, 0);
  cs_header (stream);
  cs_configuration (stream, "pc", 0, NULL, NULL);
  cs_ram_start (stream, &huge, 1, TRUE);
  assert_refused (stream, HF_STREAM_ERROR_MALFORMED, "1152921504606846976 bytes");

  g_byte_array_set_size (stream, 0);
  cs_header (stream);
  cs_configuration (stream, "pc", 0, NULL, NULL);
  cs_ram_start (stream, &small, 1, TRUE);
  cs_u8 (stream, 0x08);
  cs_be32 (stream, 0x00020004); /* PING */
  cs_be32 (stream, 1);
  assert_refused (stream, HF_STREAM_ERROR_UNSUPPORTED, "0x02");
}

static const struct {
  const char *name, *bytes;
  gsize length;
} bad_differences[] = {
  { "a length that is cut", "\x80", 1 },
  { "a length of three bytes", "\x80\x80\x01\x01\x61", 5 },
  { "no new bytes", "\x01\x00", 2 },
  { "new bytes that are cut", "\x01\x05\x61", 3 },
  { "nothing the same, not at the front", "\x00\x01\x61\x00\x01\x61", 6 },
  { "beyond the page", "\xff\x1f\x02\x61\x61", 5 },
  { "far beyond the page", "\xff\x7f\x01\x61", 4 },
  { "only the same", "\x05", 1 },
};

static void
test_bad_xbzrle (void)
{
  static const CsBlock small = { "pc.ram", 4 * CS_PAGE };

  for (gsize i = 0; i < G_N_ELEMENTS (bad_differences); i++) {
    g_autoptr (GByteArray) stream = g_byte_array_new ();

    g_test_message ("%s", bad_differences[i].name);
    cs_header (stream);
    cs_configuration (stream, "pc", 0, NULL, NULL);
    cs_ram_start (stream, &small, 1, TRUE);
    cs_ram_begin (stream, 0x02);
    cs_be64 (stream, CS_PAGE | CS_XBZRLE);
    cs_text (stream, "pc.ram");
    cs_u8 (stream, 1);
    cs_be16 (stream, bad_differences[i].length);
    g_byte_array_append (stream, (const guint8 *)bad_differences[i].bytes, bad_differences[i].length);
    assert_refused (stream, HF_STREAM_ERROR_MALFORMED, "XBZRLE data of the page at 0x1000");
  }
}

/* A few bytes for each 128 MiB of a huge guest make a file, but memory only as far as it is bounded. */
static void
test_sparse_pages (void)
{
  static const guint64 stride = G_GUINT64_CONSTANT (128) << 20;
  static const CsBlock huge = { "pc.ram", G_GUINT64_CONSTANT (16600) << 27 };
  static const guint8 difference[] = { 0x00, 0x01, 0x61 };
  g_autoptr (GByteArray) stream = g_byte_array_new ();

  cs_header (stream);
  cs_configuration (stream, "pc", 0, NULL, NULL);
  cs_ram_start (stream, &huge, 1, TRUE);
  cs_ram_begin (stream, 0x02);
  for (guint64 i = 0; i < huge.used_length / stride; i++) {
    cs_be64 (stream, i * stride | CS_XBZRLE | (i ? CS_CONTINUE : 0));
    if (i == 0)
      cs_text (stream, "pc.ram");
    cs_u8 (stream, 1);
    cs_be16 (stream, sizeof difference);
    g_byte_array_append (stream, difference, sizeof difference);
  }
  cs_ram_end (stream, TRUE);
  cs_ram_begin (stream, 0x03);
  cs_ram_end (stream, TRUE);
  cs_devices (stream, TRUE);
  assert_refused (stream, HF_STREAM_ERROR_UNSUPPORTED, "pages all over");
}

/* ---- the bitmap ---- */

/* A block of 64 TiB costs what its pages cost. */
static void
test_page_set (void)
{
  static const guint64 pages[] = { 0, 7, 8, 32767, 32768, (G_GUINT64_CONSTANT (1) << 34) - 1 };
  g_autoptr (HfPageSet) set = hf_page_set_new (G_GUINT64_CONSTANT (1) << 34);
  guint there = 0;

  for (gsize i = 0; i < G_N_ELEMENTS (pages); i++) {
    hf_page_set_remove (set, pages[i]);
    g_assert_false (hf_page_set_has (set, pages[i]));
    hf_page_set_add (set, pages[i]);
    g_assert_true (hf_page_set_has (set, pages[i]));
  }
  g_assert_cmpuint (hf_page_set_n_chunks (set), ==, (G_GUINT64_CONSTANT (1) << 34) / 32768);
  for (guint64 i = 0; i < hf_page_set_n_chunks (set); i++)
    there += hf_page_set_chunk (set, i) != NULL;
  g_assert_cmpuint (there, ==, 3);
  g_assert_cmphex (hf_page_set_chunk (set, 0)[0], ==, 0x81);
  g_assert_cmphex (hf_page_set_chunk (set, 0)[1], ==, 0x01);
  g_assert_cmphex (hf_page_set_chunk (set, 0)[4095], ==, 0x80);
  hf_page_set_remove (set, 7);
  g_assert_cmphex (hf_page_set_chunk (set, 0)[0], ==, 0x01);
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
  folder = g_dir_make_tmp ("holdfast-mapped-writer-XXXXXX", NULL);
  g_assert_nonnull (folder);
  g_test_add_func ("/stream/mapped-writer/property", test_property);
  g_test_add_func ("/stream/mapped-writer/property/bad-device", test_property_bad_device);
  g_test_add_func ("/stream/mapped-writer/later-wins", test_later_wins);
  g_test_add_func ("/stream/mapped-writer/behind-prefix", test_behind_prefix);
  g_test_add_func ("/stream/mapped-writer/device-fails", test_device_fails);
  g_test_add_func ("/stream/mapped-writer/cut", test_cut);
  g_test_add_func ("/stream/mapped-writer/no-early-head", test_no_early_head);
  g_test_add_func ("/stream/mapped-writer/refused", test_refused);
  g_test_add_func ("/stream/mapped-writer/refused/xbzrle", test_bad_xbzrle);
  g_test_add_func ("/stream/mapped-writer/refused/sparse-pages", test_sparse_pages);
  g_test_add_func ("/stream/mapped-writer/page-set", test_page_set);
  result = g_test_run ();
  remove_folder ();
  return result;
}
