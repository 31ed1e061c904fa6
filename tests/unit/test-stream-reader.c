/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The byte reader: what it gives is what the file has, in whatever order it is asked, and nothing behind the bounds.
 */
#include "stream/reader.h"

#include <glib/gstdio.h>
#include <holdfast/io.h>
#include <string.h>
#include <unistd.h>

#define FILE_SIZE (700u * 1024)

typedef struct {
  guint8 *bytes;
  int fd;
} File;

static void
set_up (File *file, gconstpointer data)
{
  g_autofree char *path = NULL;
  g_autoptr (GError) error = NULL;

  file->bytes = g_malloc (FILE_SIZE);
  for (guint i = 0; i < FILE_SIZE; i++)
    file->bytes[i] = (guint8)(i * 31 + i / 251);
  file->fd = g_file_open_tmp ("holdfast-reader-XXXXXX", &path, &error);
  g_assert_no_error (error);
  g_assert_cmpint (g_unlink (path), ==, 0);
  g_assert_cmpint (write (file->fd, file->bytes, FILE_SIZE), ==, FILE_SIZE);
}

static void
tear_down (File *file, gconstpointer data)
{
  close (file->fd);
  g_free (file->bytes);
}

/* Forward, back, across the edges of the window, and larger than it. */
static void
test_same_bytes (File *file, gconstpointer data)
{
  g_autoptr (HfReader) from_fd = hf_reader_new_fd (file->fd, FILE_SIZE);
  g_autoptr (HfReader) from_memory = hf_reader_new_memory (file->bytes, FILE_SIZE);
  HfReader *readers[] = { from_fd, from_memory };
  g_autoptr (GRand) rand = g_rand_new_with_seed (4);
  g_autofree guint8 *buffer = g_malloc (FILE_SIZE);
  g_autoptr (GError) error = NULL;

  for (guint i = 0; i < 2000; i++) {
    gsize offset = (gsize)g_rand_int_range (rand, 0, FILE_SIZE + 1);
    gsize most = MIN (FILE_SIZE - offset, i % 10 == 0 ? FILE_SIZE : 300);
    gsize length = (gsize)g_rand_int_range (rand, 0, (gint32)most + 1);
    HfReader *reader = readers[i % 2];

    memset (buffer, 0xcc, length);
    if (i % 3 == 0)
      g_assert_true (hf_reader_get_large (reader, offset, buffer, length, &error));
    else
      g_assert_true (hf_reader_get (reader, offset, buffer, length, &error));
    g_assert_cmpmem (buffer, length, file->bytes + offset, length);
  }
  g_assert_cmpuint (hf_reader_size (from_fd), ==, FILE_SIZE);
}

static void
test_numbers (void)
{
  static const guint8 bytes[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9 };
  g_autoptr (HfReader) reader = hf_reader_new_memory (bytes, sizeof bytes);
  g_autoptr (GError) error = NULL;
  guint64 be64;
  guint32 be32;
  guint16 be16;
  guint8 u8;

  g_assert_true (hf_reader_u8 (reader, 8, &u8, &error));
  g_assert_cmpuint (u8, ==, 9);
  g_assert_true (hf_reader_be16 (reader, 1, &be16, &error));
  g_assert_cmphex (be16, ==, 0x0203);
  g_assert_true (hf_reader_be32 (reader, 1, &be32, &error));
  g_assert_cmphex (be32, ==, 0x02030405);
  g_assert_true (hf_reader_be64 (reader, 1, &be64, &error));
  g_assert_cmphex (be64, ==, G_GUINT64_CONSTANT (0x0203040506070809));
  g_assert_false (hf_reader_be64 (reader, 2, &be64, &error));
  g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_INCOMPLETE);
}

/* The message has all three numbers: that is how a cut file is described. */
static void
test_beyond_the_end (File *file, gconstpointer data)
{
  static const struct {
    guint64 offset;
    gsize length;
  } cases[] = {
    { FILE_SIZE - 1, 2 }, { FILE_SIZE, 1 }, { FILE_SIZE + 1, 0 }, { G_MAXUINT64, 1 }, { G_MAXUINT64 - 1, 2 }, { 1, G_MAXSIZE },
  };
  g_autoptr (HfReader) from_fd = hf_reader_new_fd (file->fd, FILE_SIZE);
  g_autoptr (HfReader) from_memory = hf_reader_new_memory (file->bytes, FILE_SIZE);
  guint8 buffer[2];

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autofree char *offset = g_strdup_printf ("%" G_GUINT64_FORMAT, cases[i].offset);
    g_autofree char *length = g_strdup_printf ("%" G_GSIZE_FORMAT, cases[i].length);
    g_autoptr (GError) error = NULL, other = NULL;

    g_assert_false (hf_reader_get (from_fd, cases[i].offset, buffer, cases[i].length, &error));
    g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_INCOMPLETE);
    g_assert_nonnull (strstr (error->message, offset));
    g_assert_nonnull (strstr (error->message, length));
    g_assert_nonnull (strstr (error->message, "716800"));
    g_assert_false (hf_reader_get (from_memory, cases[i].offset, buffer, cases[i].length, &other));
    g_assert_error (other, HF_STREAM_ERROR, HF_STREAM_ERROR_INCOMPLETE);
  }
}

/* A file that has become shorter than it was is an error of reading, not bytes out of nowhere. */
static void
test_shrunk (File *file, gconstpointer data)
{
  g_autoptr (HfReader) reader = hf_reader_new_fd (file->fd, FILE_SIZE);
  g_autoptr (GError) error = NULL;
  guint8 buffer[64];

  g_assert_cmpint (ftruncate (file->fd, 1000), ==, 0);
  g_assert_false (hf_reader_get (reader, 960, buffer, sizeof buffer, &error));
  g_assert_error (error, HF_IO_ERROR, HF_IO_ERROR_TRUNCATED);
}

typedef struct {
  File *file;
  guint n_asked;
  gboolean fail;
} Lender;

/* Blocks of 1000 bytes, of the first half of the file, with every bit turned so that they can be told from the file's. */
static gboolean
lend (guint64 offset, const guint8 **ret_block, guint64 *ret_offset, gsize *ret_length, gpointer data, GError **error)
{
  static guint8 block[1000];
  Lender *lender = data;

  lender->n_asked++;
  if (lender->fail) {
    g_set_error_literal (error, HF_STREAM_ERROR, HF_STREAM_ERROR_INTERRUPTED, "stop");
    return FALSE;
  }
  if (offset >= FILE_SIZE / 2)
    return TRUE;
  *ret_offset = offset / 1000 * 1000;
  *ret_length = sizeof block;
  for (guint i = 0; i < sizeof block; i++)
    block[i] = (guint8)~lender->file->bytes[*ret_offset + i];
  *ret_block = block;
  return TRUE;
}

/* What is lent is taken, once for each block; the rest comes from the file; the lender's error is the reader's. */
static void
test_lent (File *file, gconstpointer data)
{
  g_autoptr (HfReader) reader = hf_reader_new_fd (file->fd, FILE_SIZE);
  Lender lender = { .file = file };
  g_autoptr (GError) error = NULL;
  guint8 buffer[1500];

  hf_reader_set_lend (reader, lend, &lender);
  g_assert_true (hf_reader_get (reader, 1900, buffer, sizeof buffer, &error));
  for (guint i = 0; i < sizeof buffer; i++)
    g_assert_cmphex (buffer[i], ==, (guint8)~file->bytes[1900 + i]);
  g_assert_cmpuint (lender.n_asked, ==, 3);
  g_assert_true (hf_reader_get (reader, 3300, buffer, 100, &error));
  g_assert_cmpuint (lender.n_asked, ==, 3);
  g_assert_true (hf_reader_get (reader, FILE_SIZE / 2 + 700, buffer, 100, &error));
  g_assert_cmpmem (buffer, 100, file->bytes + FILE_SIZE / 2 + 700, 100);
  lender.fail = TRUE;
  g_assert_false (hf_reader_get (reader, 10000, buffer, 100, &error));
  g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_INTERRUPTED);
  hf_reader_set_lend (reader, NULL, NULL);
  g_assert_true (hf_reader_get (reader, 10000, buffer, 100, NULL));
  g_assert_cmpmem (buffer, 100, file->bytes + 10000, 100);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add ("/stream/reader/same-bytes", File, NULL, set_up, test_same_bytes, tear_down);
  g_test_add_func ("/stream/reader/numbers", test_numbers);
  g_test_add ("/stream/reader/beyond-the-end", File, NULL, set_up, test_beyond_the_end, tear_down);
  g_test_add ("/stream/reader/shrunk", File, NULL, set_up, test_shrunk, tear_down);
  g_test_add ("/stream/reader/lent", File, NULL, set_up, test_lent, tear_down);
  return g_test_run ();
}
