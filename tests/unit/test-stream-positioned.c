/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The six positioned functions: the contract set on plain calls, the forms, and what HOLDFAST_FAIL does to them. */

#include "config.h"

#include "base/fail.h"
#include "stream-contract.h"
#include "stream/transfer.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

static int
move_plain (HfIoOperation operation, gboolean eof_ok, int fd, const struct iovec *iov, gsize n_iov, gint64 offset, gsize *done,
            GError **error)
{
  if (operation == HF_IO_READ && eof_ok)
    return hf_preadv_all_eof (fd, iov, n_iov, offset, done, error);
  if (operation == HF_IO_READ)
    return hf_preadv_all (fd, iov, n_iov, offset, done, error) == 0 ? 1 : -1;
  return hf_pwritev_all (fd, iov, n_iov, offset, done, error) == 0 ? 1 : -1;
}

/* The forms with one buffer give what those with elements give; done and error may be NULL. */
static void
test_single_buffer (void)
{
  int fd = contract_file (1000, FALSE);
  g_autoptr (GError) error = NULL;
  guint8 bytes[100];
  gsize done = 1;

  g_assert_cmpint (hf_pread_all (fd, bytes, 100, 900, &done, &error), ==, 0);
  g_assert_cmpuint (done, ==, 100);
  g_assert_cmphex (bytes[99], ==, pattern (999));
  g_assert_cmpint (hf_pread_all_eof (fd, bytes, 100, 900, NULL, &error), ==, 1);
  g_assert_cmpint (hf_pread_all_eof (fd, bytes, 100, 1000, &done, &error), ==, 0);
  g_assert_cmpuint (done, ==, 0);
  g_assert_no_error (error);
  g_assert_cmpint (hf_pread_all (fd, bytes, 100, 1000, NULL, NULL), ==, -1);
  g_assert_cmpint (hf_pwrite_all (fd, "four", 4, 998, &done, &error), ==, 0);
  g_assert_cmpuint (done, ==, 4);
  g_assert_cmpint (hf_pread_all (fd, bytes, 5, 997, NULL, &error), ==, 0);
  g_assert_cmpmem (bytes + 1, 4, "four", 4);
  g_assert_cmpint (hf_pwrite_all (-1, "four", 4, 998, NULL, NULL), ==, -1);
  close (fd);
}

/* The eof form takes the end of the file only before the first byte. */
static void
test_partial_end (void)
{
  int fd = contract_file (1000, FALSE);
  g_autoptr (GError) error = NULL;
  guint8 bytes[100];
  gsize done = 1;

  g_assert_cmpint (hf_pread_all_eof (fd, bytes, 100, 960, &done, &error), ==, -1);
  g_assert_error (error, HF_IO_ERROR, HF_IO_ERROR_TRUNCATED);
  g_assert_cmpuint (done, ==, 40);
  close (fd);
}

/* Each action of HOLDFAST_FAIL at the transfers, and the Nth only. */
static void
test_environment (void)
{
  static const struct {
    const char *specification;
    int result;
    gsize done;
    HfIoError code;
  } cases[] = {
    { "before-stream-write=short:3", 0, 10, 0 },
    { "before-stream-write#1=short", 0, 10, 0 },
    { "before-stream-write#1=error:EINTR,before-stream-read=zero", 0, 10, 0 },
    { "before-stream-write#1=short:7,before-stream-write#2=zero", -1, 7, HF_IO_ERROR_STUCK },
    { "before-stream-write#1=short:4,before-stream-write#2=error:ENOSPC", -1, 4, HF_IO_ERROR_FULL },
    { "before-stream-write#1=short:4,before-stream-write#2=error:EINTR,before-stream-write#3=error", -1, 4, HF_IO_ERROR_FAILED },
    { "before-stream-read=error", 0, 10, 0 },
  };
  int fd = contract_file (0, FALSE);

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (GError) error = NULL;
    gsize done = 99;

    g_test_message ("%s", cases[i].specification);
    g_assert_true (hf_fail_set (cases[i].specification, &error));
    g_assert_cmpint (hf_pwrite_all (fd, "0123456789", 10, 0, &done, &error), ==, cases[i].result);
    g_assert_cmpuint (done, ==, cases[i].done);
    g_assert_true ((error != NULL) == (cases[i].result < 0));
    if (error)
      g_assert_error (error, HF_IO_ERROR, (int)cases[i].code);
  }
  hf_fail_set (NULL, NULL);
  close (fd);
}

/* A read that HOLDFAST_FAIL ends early is the end of the file. */
static void
test_environment_read (void)
{
  int fd = contract_file (100, FALSE);
  g_autoptr (GError) error = NULL;
  guint8 bytes[100];
  gsize done;

  g_assert_true (hf_fail_set ("before-stream-read#1=short:30,before-stream-read#2=zero", &error));
  g_assert_cmpint (hf_pread_all (fd, bytes, 100, 0, &done, &error), ==, -1);
  g_assert_error (error, HF_IO_ERROR, HF_IO_ERROR_TRUNCATED);
  g_assert_cmpuint (done, ==, 30);
  hf_fail_set (NULL, NULL);
  close (fd);
}

int
main (int argc, char **argv)
{
  static const Mover plain = { .name = "plain", .move = move_plain };

  g_test_init (&argc, &argv, NULL);
  contract_add (&plain);
  g_test_add_func ("/positioned/single-buffer", test_single_buffer);
  g_test_add_func ("/positioned/partial-end", test_partial_end);
  g_test_add_func ("/positioned/environment", test_environment);
  g_test_add_func ("/positioned/environment-read", test_environment_read);
  return g_test_run ();
}
