/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The six positioned functions: the contract set on plain calls, the forms, what HOLDFAST_FAIL does to them, and system calls
 * that really return what is otherwise only acted. And the plain write(2) of base/file-sync.c.
 */

#include "config.h"

#include "base/fail.h"
#include "base/file-sync.h"
#include "stream-contract.h"
#include "stream/transfer.h"

#include <errno.h>
#include <linux/seccomp.h>
#include <seccomp.h>
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

/* --- a kernel that answers as it is told (seccomp_unotify(2)) --- */

static gint answer;  /* atomic: what every other positioned call gives, a negative errno value or 0 */
static gint n_asked; /* atomic */

static gpointer
answer_calls (gpointer data)
{
  static struct seccomp_notif *request;
  static struct seccomp_notif_resp *response;
  int *from = data, fd = -1;

  g_assert_cmpint (read (*from, &fd, sizeof fd), ==, sizeof fd);
  g_assert_cmpint (seccomp_notify_alloc (&request, &response), ==, 0);
  for (;;) {
    memset (request, 0, sizeof *request);
    if (seccomp_notify_receive (fd, request) != 0)
      continue;
    memset (response, 0, sizeof *response);
    response->id = request->id;
    if (g_atomic_int_add (&n_asked, 1) % 2)
      response->flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
    else
      response->error = g_atomic_int_get (&answer);
    seccomp_notify_respond (fd, response);
  }
  return NULL;
}

/* From now on this thread's positioned calls are answered by another, which is not bound by the filter. */
static void
ask_for_answers (void)
{
  static const int calls[] = { SCMP_SYS (pread64), SCMP_SYS (pwrite64), SCMP_SYS (preadv), SCMP_SYS (pwritev) };
  static int ends[2];
  scmp_filter_ctx filter = seccomp_init (SCMP_ACT_ALLOW);
  int fd;

  g_assert_cmpint (pipe (ends), ==, 0);
  g_thread_unref (g_thread_new ("answers", answer_calls, &ends[0]));
  for (guint i = 0; i < G_N_ELEMENTS (calls); i++)
    g_assert_cmpint (seccomp_rule_add (filter, SCMP_ACT_NOTIFY, calls[i], 0), ==, 0);
  g_assert_cmpint (seccomp_load (filter), ==, 0);
  fd = dup (seccomp_notify_fd (filter));
  g_assert_cmpint (fd, >=, 0);
  seccomp_release (filter);
  g_assert_cmpint (write (ends[1], &fd, sizeof fd), ==, sizeof fd);
}

/* The system call itself gives EINTR, EAGAIN, an error, or 0 with an errno that is left over from before. */
static void
test_kernel_answers (void)
{
  static const struct {
    int answer;
    int result;
    HfIoError code; /* of a write */
    guint asked;    /* for one transfer */
  } cases[] = {
    { -EINTR, 0, 0, 2 },
    { -EAGAIN, 0, 0, 2 },
    { -EIO, -1, HF_IO_ERROR_FAILED, 1 },
    { -ENOSPC, -1, HF_IO_ERROR_FULL, 1 },
    { 0, -1, HF_IO_ERROR_STUCK, 1 },
  };
  int fd;

  if (contract_parent ())
    return;
  fd = contract_file (100, FALSE);
  ask_for_answers ();
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (GError) error = NULL;
    guint8 bytes[20] = { 0 };
    struct iovec iov[] = { { bytes, 7 }, { bytes + 7, 13 } };
    gsize done = 99;

    g_atomic_int_set (&answer, cases[i].answer);
    g_atomic_int_set (&n_asked, 0);
    errno = EINTR; /* if this were looked at after a 0, it would be repeated */
    g_assert_cmpint (hf_pwrite_all (fd, "0123456789", 10, 50, &done, &error), ==, cases[i].result);
    g_assert_cmpuint (g_atomic_int_get (&n_asked), ==, cases[i].asked);
    g_assert_cmpuint (done, ==, cases[i].result == 0 ? 10 : 0);
    g_assert_true ((error != NULL) == (cases[i].result < 0));
    if (error)
      g_assert_error (error, HF_IO_ERROR, (int)cases[i].code);
    g_clear_error (&error);

    g_atomic_int_set (&n_asked, 0);
    g_assert_cmpint (hf_preadv_all (fd, iov, 2, 0, &done, &error), ==, cases[i].result);
    g_assert_cmpuint (g_atomic_int_get (&n_asked), ==, cases[i].asked);
    for (guint k = 0; k < done; k++)
      g_assert_cmphex (bytes[k], ==, pattern (k));
    if (cases[i].answer == 0)
      g_assert_error (error, HF_IO_ERROR, HF_IO_ERROR_EOF);
  }
  close (fd);
}

/* What is written in a row and not by position has the same rule for a write that moves nothing: it ends. */
static void
test_write_of_nothing (void)
{
  g_autoptr (GError) error = NULL;
  struct scmp_arg_cmp this_one = { .arg = 0, .op = SCMP_CMP_EQ };
  scmp_filter_ctx filter;
  off_t end;
  int fd;

  if (contract_parent ())
    return;
  fd = contract_file (0, FALSE);
  this_one.datum_a = (scmp_datum_t)fd;
  g_assert_true (hf_file_write_all (fd, "text", 4, &error));
  end = lseek (fd, 0, SEEK_CUR);
  filter = seccomp_init (SCMP_ACT_ALLOW);
  /* "Error" 0: the call is not made, and gives 0. Of this descriptor only: the test writes what it finds. */
  g_assert_cmpint (seccomp_rule_add_array (filter, SCMP_ACT_ERRNO (0), SCMP_SYS (write), 1, &this_one), ==, 0);
  g_assert_cmpint (seccomp_load (filter), ==, 0);
  seccomp_release (filter);
  g_assert_false (hf_file_write_all (fd, "text", 4, &error));
  g_assert_error (error, G_FILE_ERROR, G_FILE_ERROR_IO);
  g_assert_cmpint (lseek (fd, 0, SEEK_CUR), ==, end);
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
  g_test_add_func ("/positioned/kernel-answers", test_kernel_answers);
  g_test_add_func ("/positioned/write-of-nothing", test_write_of_nothing);
  return g_test_run ();
}
