/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The two ends of a stream: bytes come in and go out whole, whatever they come from and go to; and whoever waits can be stopped.
 */
#include "config.h"

#include "stream/input.h"
#include "stream/output.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define LENGTH ((3u << 20) + 4321)
#define NOBODY 65534

static guint8 *
make_bytes (gsize length)
{
  guint8 *bytes = g_malloc (length);

  for (gsize i = 0; i < length; i++)
    bytes[i] = (guint8)(i * 2654435761u >> 24);
  return bytes;
}

typedef enum { PIPE, PIPE_THAT_CANNOT_BE_REOPENED, SOCKET, N_KINDS } Kind;

static void
make_ends (Kind kind, int *ends)
{
  g_assert_cmpint (kind == SOCKET ? socketpair (AF_UNIX, SOCK_STREAM, 0, ends) : pipe (ends), ==, 0);
}

/* As another user would, or without /proc: the pipe's inode gives no rights. */
static HfOutput *
new_output (Kind kind, int fd)
{
  g_autoptr (GError) error = NULL;
  HfOutput *output;
  int user = -1;

  if (kind == PIPE_THAT_CANNOT_BE_REOPENED) {
    g_assert_cmpint (fchmod (fd, 0), ==, 0);
    user = setfsuid (NOBODY);
  }
  output = hf_output_new (fd, &error);
  if (user >= 0)
    setfsuid ((uid_t)user);
  g_assert_no_error (error);
  g_assert_nonnull (output);
  return output;
}

typedef struct {
  int fd;
  GByteArray *bytes;
} Reader;

static gpointer
read_all (gpointer data)
{
  Reader *reader = data;
  guint8 buffer[7777];
  ssize_t n;

  while ((n = read (reader->fd, buffer, sizeof buffer)) > 0)
    g_byte_array_append (reader->bytes, buffer, (guint)n);
  close (reader->fd);
  return NULL;
}

static void
test_all_bytes (void)
{
  g_autofree guint8 *bytes = make_bytes (LENGTH);

  for (Kind kind = PIPE; kind < N_KINDS; kind++) {
    g_autoptr (GByteArray) out = g_byte_array_new ();
    g_autoptr (GError) error = NULL;
    HfOutput *output;
    Reader reader;
    GThread *thread;
    int ends[2];
    gsize done = 0;

    make_ends (kind, ends);
    output = new_output (kind, ends[1]);
    reader = (Reader){ ends[0], out };
    thread = g_thread_new ("reader", read_all, &reader);
    g_assert_true (hf_output_write (output, bytes, LENGTH, NULL, &done, &error));
    g_assert_no_error (error);
    g_assert_cmpuint (done, ==, LENGTH);
    g_assert_cmpint (fcntl (ends[1], F_GETFL) & O_NONBLOCK, ==, 0);
    hf_output_free (output);
    close (ends[1]);
    g_thread_join (thread);
    g_assert_cmpmem (out->data, out->len, bytes, LENGTH);
  }
}

/* What was taken until then is said. */
static void
test_full (void)
{
  g_autofree guint8 *bytes = make_bytes (LENGTH);

  for (Kind kind = PIPE; kind < N_KINDS; kind++) {
    g_autoptr (GError) error = NULL;
    g_autoptr (GByteArray) out = g_byte_array_new ();
    HfStreamJob job = { 0 };
    HfOutput *output;
    Reader reader;
    int ends[2], interrupt[2];
    gsize done = 0;

    make_ends (kind, ends);
    g_assert_cmpint (pipe (interrupt), ==, 0);
    g_assert_cmpint (write (interrupt[1], "x", 1), ==, 1);
    job.interrupt_fd = interrupt[0];
    output = new_output (kind, ends[1]);
    g_assert_false (hf_output_write (output, bytes, LENGTH, &job, &done, &error));
    g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_INTERRUPTED);
    g_assert_cmpuint (done, <, LENGTH);
    hf_output_free (output);
    close (ends[1]);
    reader = (Reader){ ends[0], out };
    read_all (&reader);
    g_assert_cmpuint (out->len, ==, done);
    close (interrupt[0]);
    close (interrupt[1]);
  }
}

/* The default of SIGPIPE would end this test; one that was pending before is left alone. */
static void
test_nobody_reads (void)
{
  sigset_t pipe_only, pending;

  sigemptyset (&pipe_only);
  sigaddset (&pipe_only, SIGPIPE);
  for (guint before = 0; before < 2; before++)
    for (Kind kind = PIPE; kind < N_KINDS; kind++) {
      g_autoptr (GError) error = NULL;
      HfOutput *output;
      int ends[2];
      gsize done = 1;

      if (before) {
        g_assert_cmpint (pthread_sigmask (SIG_BLOCK, &pipe_only, NULL), ==, 0);
        g_assert_cmpint (raise (SIGPIPE), ==, 0);
      }
      make_ends (kind, ends);
      close (ends[0]);
      output = new_output (kind, ends[1]);
      g_assert_false (hf_output_write (output, (const guint8 *)"x", 1, NULL, &done, &error));
      g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE);
      g_assert_nonnull (strstr (error->message, g_strerror (EPIPE)));
      g_assert_cmpuint (done, ==, 0);
      hf_output_free (output);
      close (ends[1]);
      g_assert_cmpint (sigpending (&pending), ==, 0);
      g_assert_cmpint (sigismember (&pending, SIGPIPE), ==, (int)before);
      if (before) {
        int number;
        g_assert_cmpint (sigwait (&pipe_only, &number), ==, 0);
        g_assert_cmpint (pthread_sigmask (SIG_UNBLOCK, &pipe_only, NULL), ==, 0);
      }
    }
}

/* Reads to the end, in pieces. */
static GByteArray *
take_all (HfInput *input, gsize piece)
{
  GByteArray *bytes = g_byte_array_new ();
  guint8 *buffer = aligned_alloc (65536, 1u << 20);
  gsize length = 1;

  while (length > 0) {
    g_autoptr (GError) error = NULL;

    g_assert_true (hf_input_read (input, buffer, piece, NULL, &length, &error));
    g_assert_no_error (error);
    g_assert_cmpuint (length, <=, piece);
    g_byte_array_append (bytes, buffer, (guint)length);
  }
  free (buffer);
  return bytes;
}

/* Directly and through the page cache, from any position on, in pieces of any size. */
static void
test_regular_input (void)
{
  static const gsize pieces[] = { 1u << 20, 65536, 4096, 5000, 70000 };
  static const off_t starts[] = { 0, 1, 4096, 65536, 100000, LENGTH, LENGTH + 5 };
  g_autofree guint8 *bytes = make_bytes (LENGTH);
  g_autofree char *path = NULL;
  int fd = g_file_open_tmp ("holdfast-input-XXXXXX", &path, NULL);

  g_assert_cmpint (fd, >=, 0);
  g_assert_true (g_file_set_contents (path, (const char *)bytes, LENGTH, NULL));
  close (fd);
  fd = open (path, O_RDONLY | O_CLOEXEC);
  for (guint cold = 0; cold < 2; cold++)
    for (gsize i = 0; i < G_N_ELEMENTS (pieces); i++)
      for (gsize k = 0; k < G_N_ELEMENTS (starts); k++) {
        gsize left = starts[k] < LENGTH ? LENGTH - (gsize)starts[k] : 0;
        g_autoptr (GByteArray) out = NULL;
        HfInput *input;

        if (cold) {
          g_assert_cmpint (fdatasync (fd), ==, 0);
          g_assert_cmpint (posix_fadvise (fd, 0, 0, POSIX_FADV_DONTNEED), ==, 0);
        }
        g_assert_cmpint (lseek (fd, starts[k], SEEK_SET), ==, starts[k]);
        input = hf_input_new (fd, NULL);
        g_assert_cmpuint (hf_input_total (input), ==, left);
        out = take_all (input, pieces[i]);
        hf_input_free (input);
        g_assert_cmpuint (out->len, ==, left);
        g_assert_true (left == 0 || memcmp (out->data, bytes + starts[k], left) == 0);
        g_assert_cmpint (lseek (fd, 0, SEEK_CUR), ==, starts[k] + (off_t)left);
      }
  close (fd);
  g_assert_cmpint (g_unlink (path), ==, 0);
}

static void
test_refused_inputs (void)
{
  g_autoptr (GError) error = NULL;
  int fd = open ("/", O_RDONLY | O_CLOEXEC);

  g_assert_null (hf_input_new (fd, &error));
  g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE);
  g_clear_error (&error);
  close (fd);
  g_assert_null (hf_input_new (fd, &error));
  g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE);
  g_clear_error (&error);
  g_assert_null (hf_output_new (fd, &error));
  g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/stream/output/all-bytes", test_all_bytes);
  g_test_add_func ("/stream/output/full", test_full);
  g_test_add_func ("/stream/output/nobody-reads", test_nobody_reads);
  g_test_add_func ("/stream/input/regular", test_regular_input);
  g_test_add_func ("/stream/input/refused", test_refused_inputs);
  return g_test_run ();
}
