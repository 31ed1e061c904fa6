/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Whatever is put in, in pieces of whatever size, from whatever offset on, is in the file, with the checksums of its blocks; and
 * a write that fails is never lost.
 */
#include "config.h"

#include "stream/block-writer.h"

#include "stream/fault.h"
#include "stream/trailer.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <holdfast/io.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOCK HF_TRAILER_BLOCK_SIZE

typedef struct {
  char *folder, *path;
} Place;

static void
place_set_up (Place *place, gconstpointer data)
{
  (void)data;
  place->folder = g_dir_make_tmp ("holdfast-blocks-XXXXXX", NULL);
  g_assert_nonnull (place->folder);
  place->path = g_build_filename (place->folder, "vm.hf", NULL);
}

static void
place_tear_down (Place *place, gconstpointer data)
{
  (void)data;
  hf_io_fault_set (NULL, NULL);
  g_unlink (place->path);
  g_assert_cmpint (g_rmdir (place->folder), ==, 0);
  g_free (place->folder);
  g_free (place->path);
}

/* Runs of bytes and of zeros, some longer than a block. */
static guint8 *
make_bytes (gsize length)
{
  guint8 *bytes = g_malloc0 (length + 1);

  for (gsize at = 0; at < length;) {
    gsize run = (gsize)g_test_rand_int_range (1, 3 * BLOCK);
    gsize end = MIN (length, at + run);

    if (g_test_rand_bit ())
      for (gsize i = at; i < end; i += (gsize)g_test_rand_int_range (1, 5000))
        bytes[i] = (guint8)g_test_rand_int ();
    at = end;
  }
  return bytes;
}

static gboolean
fill (HfBlockWriter *writer, const guint8 *bytes, gsize length, GError **error)
{
  for (gsize at = 0; at < length;) {
    gsize size = 0, piece = (gsize)g_test_rand_int_range (1, 2 * BLOCK);
    guint8 *space = hf_block_writer_space (writer, &size, error);

    if (!space)
      return FALSE;
    g_assert_cmpuint (size, >=, 1);
    g_assert_cmpuint (size, <=, BLOCK);
    size = MIN (MIN (size, length - at), piece);
    memcpy (space, bytes + at, size);
    if (!hf_block_writer_advance (writer, size, error))
      return FALSE;
    at += size;
    g_assert_cmpuint (hf_block_writer_length (writer), ==, at);
  }
  return TRUE;
}

static void
assert_checksums (const guint8 *bytes, guint64 start, gsize length, GArray *checksums)
{
  HfTrailer trailer = { .block_size = BLOCK, .payload_offset = start, .payload_length = length };

  trailer.n_blocks = hf_trailer_count_blocks (start, length, BLOCK);
  g_assert_cmpuint (checksums->len, ==, trailer.n_blocks);
  for (guint64 i = 0; i < trailer.n_blocks; i++) {
    guint64 offset, size;

    hf_trailer_block (&trailer, i, &offset, &size);
    g_assert_cmphex (g_array_index (checksums, guint64, i), ==, hf_trailer_checksum (bytes + (offset - start), size));
  }
}

static void
assert_file (const char *path, const char *prefix, gsize start, const guint8 *bytes, gsize length)
{
  g_autofree char *contents = NULL;
  gsize size = 0;

  g_assert_true (g_file_get_contents (path, &contents, &size, NULL));
  g_assert_cmpuint (size, ==, start + length);
  g_assert_cmpmem (contents, start, prefix, start);
  g_assert_true (memcmp (contents + start, bytes, length) == 0);
}

/* One file from the prefix to the rename. */
static void
write_one (Place *place, gsize start, gsize length, HfEngineKind kind, HfSaveFlags flags)
{
  g_autofree char *prefix = g_strnfill (start, 'p');
  g_autofree guint8 *bytes = make_bytes (length);
  g_autoptr (GError) error = NULL;
  g_autoptr (HfSaveFile) file = NULL;
  g_autoptr (HfBlockWriter) writer = NULL;
  g_autoptr (GArray) checksums = NULL;

  g_assert_true (g_file_set_contents (place->path, prefix, (gssize)start, NULL));
  file = hf_save_file_new (place->path, start, flags | HF_SAVE_NO_SYNC, &error);
  g_assert_no_error (error);
  writer = hf_block_writer_new (file, start, kind, &error);
  g_assert_no_error (error);
  g_assert_true (fill (writer, bytes, length, &error));
  g_assert_true (hf_block_writer_finish (writer, &checksums, &error));
  g_assert_no_error (error);
  assert_checksums (bytes, start, length, checksums);
  g_assert_true (hf_save_file_commit (file, start + length, &error));
  g_assert_no_error (error);
  assert_file (place->path, prefix, start, bytes, length);
}

static void
test_any_length (Place *place, gconstpointer data)
{
  static const gsize lengths[] = { 0,         1,     511,       512,          4095,      4096,          4097,
                                   BLOCK - 1, BLOCK, BLOCK + 1, BLOCK + 4096, 2 * BLOCK, 3 * BLOCK - 7, 20 * BLOCK + 5 };
  static const gsize starts[] = { 0, 1, 92, 4096, 71969, BLOCK - 1, BLOCK, BLOCK + 4097 };

  (void)data;
  for (gsize i = 0; i < G_N_ELEMENTS (lengths); i++)
    write_one (place, 0, lengths[i], HF_ENGINE_AUTO, HF_SAVE_DEFAULT);
  for (gsize i = 0; i < G_N_ELEMENTS (starts); i++)
    write_one (place, starts[i], (gsize)g_test_rand_int_range (1, 3 * BLOCK), HF_ENGINE_THREADS, HF_SAVE_DEFAULT);
  for (guint i = 0; i < 12; i++)
    write_one (place, (gsize)g_test_rand_int_range (0, 2 * BLOCK), (gsize)g_test_rand_int_range (0, 4 * BLOCK),
               i % 2 ? HF_ENGINE_THREADS : HF_ENGINE_AUTO, i % 3 ? HF_SAVE_DEFAULT : HF_SAVE_BUFFERED);
}

/* Calls that come short, are interrupted or would block, at any place; and on the direct descriptor everything is aligned,
   because some file systems would write it through the page cache without a word. */

typedef struct {
  GMutex lock;
  GRand *rand;
  int direct_fd;
  guint alignment;
  guint calls, odd; /* how many were disturbed */
} Weather;

static gssize
bad_weather (HfIoOperation operation, int fd, gint64 offset, gsize length, gpointer data)
{
  Weather *weather = data;
  gssize result = (gssize)length;

  (void)operation;
  g_mutex_lock (&weather->lock);
  weather->calls++;
  if (fd == weather->direct_fd) {
    g_assert_cmpint (offset % 512, ==, 0); /* what is redone begins where the device asks for, not a page */
    g_assert_cmpuint (length % 512, ==, 0);
  }
  switch (g_rand_int_range (weather->rand, 0, 4)) {
  case 0:
    result = -EINTR;
    break;
  case 1:
    result =
        length > 2 * weather->alignment ? g_rand_int_range (weather->rand, (gint32)weather->alignment, (gint32)length) : result;
    break;
  default:
    break;
  }
  weather->odd += result != (gssize)length;
  g_mutex_unlock (&weather->lock);
  return result;
}

static void
test_bad_weather (Place *place, gconstpointer data)
{
  guint odd = 0;

  (void)data;
  for (guint i = 0; i < 6; i++) {
    gsize length = (gsize)g_test_rand_int_range (BLOCK, 4 * BLOCK);
    g_autofree guint8 *bytes = make_bytes (length);
    g_autoptr (GError) error = NULL;
    g_autoptr (HfSaveFile) file = hf_save_file_new (place->path, 0, HF_SAVE_NO_SYNC, &error);
    g_autoptr (HfBlockWriter) writer = hf_block_writer_new (file, 0, i % 2 ? HF_ENGINE_THREADS : HF_ENGINE_AUTO, &error);
    g_autoptr (GArray) checksums = NULL;
    Weather weather = { .rand = g_rand_new_with_seed ((guint32)g_test_rand_int ()),
                        .direct_fd = hf_save_file_direct_fd (file),
                        .alignment = hf_save_file_alignment (file) };

    g_assert_no_error (error);
    hf_io_fault_set (bad_weather, &weather);
    g_assert_true (fill (writer, bytes, length, &error));
    g_assert_true (hf_block_writer_finish (writer, &checksums, &error));
    g_assert_no_error (error);
    hf_io_fault_set (NULL, NULL);
    g_assert_true (hf_save_file_commit (file, length, &error));
    assert_file (place->path, "", 0, bytes, length);
    odd += weather.odd;
    g_rand_free (weather.rand);
  }
  g_assert_cmpuint (odd, >, 0);
}

/* The write number `at` fails; all others are fine. */

typedef struct {
  gint calls, at;
  int errnum;
} Failure;

static gssize
fail_once (HfIoOperation operation, int fd, gint64 offset, gsize length, gpointer data)
{
  Failure *failure = data;

  (void)operation;
  (void)fd;
  (void)offset;
  return g_atomic_int_add (&failure->calls, 1) == failure->at ? -failure->errnum : (gssize)length;
}

static void
test_failed_write (Place *place, gconstpointer data)
{
  static const int errors[] = { ENOSPC, EIO, EDQUOT };
  const gsize n_blocks = 24;
  g_autofree guint8 *bytes = g_malloc (n_blocks * BLOCK);

  (void)data;
  memset (bytes, 'x', n_blocks * BLOCK);
  for (gsize i = 0; i < n_blocks; i += 3) {
    g_autoptr (GError) error = NULL, again = NULL;
    Failure failure = { .at = (gint)i, .errnum = errors[i % G_N_ELEMENTS (errors)] };
    g_autoptr (HfSaveFile) file = hf_save_file_new (place->path, 0, HF_SAVE_NO_SYNC, NULL);
    g_autoptr (HfBlockWriter) writer = hf_block_writer_new (file, 0, i % 2 ? HF_ENGINE_THREADS : HF_ENGINE_AUTO, NULL);
    g_autoptr (GArray) checksums = NULL;
    gsize size;

    hf_io_fault_set (fail_once, &failure);
    if (fill (writer, bytes, n_blocks * BLOCK, &error))
      g_assert_false (hf_block_writer_finish (writer, &checksums, &error));
    g_assert_true (error && error->domain == HF_IO_ERROR);
    g_assert_nonnull (strstr (error->message, g_strerror (failure.errnum)));
    g_assert_null (checksums);
    /* It stays. */
    g_assert_null (hf_block_writer_space (writer, &size, &again));
    g_assert_nonnull (again);
    g_assert_cmpstr (again->message, ==, error->message);
    g_clear_error (&again);
    g_assert_false (hf_block_writer_finish (writer, &checksums, &again));
    g_assert_nonnull (again);
    hf_io_fault_set (NULL, NULL);
  }
}

/* Blocks of zeros take no space, where the file system can tell. */
static void
test_holes (Place *place, gconstpointer data)
{
  const gsize length = 8 * BLOCK;
  g_autofree guint8 *bytes = g_malloc0 (length);
  g_autoptr (HfSaveFile) file = hf_save_file_new (place->path, 0, HF_SAVE_NO_SYNC, NULL);
  g_autoptr (HfBlockWriter) writer = hf_block_writer_new (file, 0, HF_ENGINE_AUTO, NULL);
  g_autoptr (GArray) checksums = NULL;
  struct stat st;

  (void)data;
  bytes[3 * BLOCK + 77] = 1;
  g_assert_true (fill (writer, bytes, length, NULL));
  g_assert_true (hf_block_writer_finish (writer, &checksums, NULL));
  assert_checksums (bytes, 0, length, checksums);
  g_assert_true (hf_save_file_commit (file, length, NULL));
  assert_file (place->path, "", 0, bytes, length);
  g_assert_cmpint (stat (place->path, &st), ==, 0);
  g_assert_cmpint (st.st_blocks * 512, <=, BLOCK + 65536);
}

/* Freed in the middle of the work: nothing waits, nothing leaks, nothing is left. */
static void
test_abandoned (Place *place, gconstpointer data)
{
  g_autofree guint8 *bytes = g_malloc (5 * BLOCK);
  HfSaveFile *file = hf_save_file_new (place->path, 0, HF_SAVE_NO_SYNC, NULL);
  HfBlockWriter *writer = hf_block_writer_new (file, 0, HF_ENGINE_AUTO, NULL);

  (void)data;
  memset (bytes, 'x', 5 * BLOCK);
  g_assert_true (fill (writer, bytes, 5 * BLOCK - 10, NULL));
  hf_block_writer_free (writer);
  hf_save_file_free (file);
  g_assert_false (g_file_test (place->path, G_FILE_TEST_EXISTS));
  hf_block_writer_free (NULL);
}

static void
add (const char *name, void (*test) (Place *place, gconstpointer data))
{
  g_autofree char *path = g_strconcat ("/stream/block-writer/", name, NULL);
  g_test_add (path, Place, NULL, place_set_up, test, place_tear_down);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  add ("any-length", test_any_length);
  add ("bad-weather", test_bad_weather);
  add ("failed-write", test_failed_write);
  add ("holes", test_holes);
  add ("abandoned", test_abandoned);
  return g_test_run ();
}
