/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How far a piece of work is, as text and as JSON; and one connection of a socket that leaves nothing behind. */
#include "config.h"

#include "base/deadline.h"
#include "cli/stream-progress.h"
#include "cli/stream-socket.h"

#include <errno.h>
#include <glib-unix.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define KIB G_GUINT64_CONSTANT (1024)
#define GIB (KIB * KIB * KIB)

static void
test_describe (void)
{
  static const struct {
    guint64 done, total;
    gint64 elapsed_us;
    const char *text, *json;
  } cases[] = {
    { 0, 0, 0, "0 B, 0 B/s", "{\"bytes\":0,\"total\":null,\"rate\":0,\"seconds_left\":null}" },
    { 1023, 0, 1000000, "1023 B, 1023 B/s", "{\"bytes\":1023,\"total\":null,\"rate\":1023,\"seconds_left\":null}" },
    { GIB, 4 * GIB, 2000000, "1.0 GiB of 4.0 GiB (25 %), 512.0 MiB/s, 0:06 left",
      "{\"bytes\":1073741824,\"total\":4294967296,\"rate\":536870912,\"seconds_left\":6.0}" },
    { GIB, 100 * GIB, 60000000, "1.0 GiB of 100.0 GiB (1 %), 17.1 MiB/s, 99:00 left",
      "{\"bytes\":1073741824,\"total\":107374182400,\"rate\":17895697,\"seconds_left\":5940.0}" },
    /* A file that grew while it was read. */
    { 3, 2, 1000000, "3 B of 2 B (100 %), 3 B/s", "{\"bytes\":3,\"total\":2,\"rate\":3,\"seconds_left\":null}" },
    /* Nothing yet: no time left can be known. */
    { 0, GIB, 5000000, "0 B of 1.0 GiB (0 %), 0 B/s", "{\"bytes\":0,\"total\":1073741824,\"rate\":0,\"seconds_left\":null}" },
    { G_MAXUINT64, G_MAXUINT64, 1, "16.0 EiB of 16.0 EiB (100 %), 16000000.0 EiB/s, 0:00 left", NULL },
  };

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autofree char *text = hf_progress_describe (cases[i].done, cases[i].total, cases[i].elapsed_us);
    g_autofree char *json = hf_progress_to_json (cases[i].done, cases[i].total, cases[i].elapsed_us);
    g_assert_cmpstr (text, ==, cases[i].text);
    if (cases[i].json)
      g_assert_cmpstr (json, ==, cases[i].json);
  }
}

static void
test_parse (void)
{
  HfProgressKind kind = HF_PROGRESS_LINE;

  g_assert_true (hf_progress_parse ("none", &kind));
  g_assert_cmpint (kind, ==, HF_PROGRESS_NONE);
  g_assert_true (hf_progress_parse ("json", &kind));
  g_assert_cmpint (kind, ==, HF_PROGRESS_JSON);
  g_assert_true (hf_progress_parse (NULL, &kind));
  g_assert_cmpint (kind, ==, isatty (STDERR_FILENO) ? HF_PROGRESS_LINE : HF_PROGRESS_NONE);
  g_assert_false (hf_progress_parse ("", &kind));
  g_assert_false (hf_progress_parse ("jso", &kind));
}

/* ---- the socket ---- */

typedef struct {
  char *folder, *path, *address;
  int interrupt[2];
  HfStreamJob job;
} Fixture;

static void
set_up (Fixture *f, gconstpointer data)
{
  f->folder = g_dir_make_tmp ("holdfast-test-socket-XXXXXX", NULL);
  g_assert_nonnull (f->folder);
  f->path = g_build_filename (f->folder, "sock", NULL);
  f->address = g_strconcat ("unix:", f->path, NULL);
  g_assert_true (g_unix_open_pipe (f->interrupt, FD_CLOEXEC, NULL));
  f->job = (HfStreamJob){ .interrupt_fd = f->interrupt[0] };
}

static void
tear_down (Fixture *f, gconstpointer data)
{
  g_remove (f->path);
  g_assert_cmpint (g_rmdir (f->folder), ==, 0);
  close (f->interrupt[0]);
  close (f->interrupt[1]);
  g_free (f->folder);
  g_free (f->path);
  g_free (f->address);
}

/* A socket at the path of f, listening or left over. */
static int
make_socket (Fixture *f, gboolean listening)
{
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  int fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

  g_assert_cmpint (fd, >=, 0);
  g_strlcpy (address.sun_path, f->path, sizeof address.sun_path);
  g_assert_cmpint (bind (fd, (struct sockaddr *)&address, sizeof address), ==, 0);
  if (listening)
    g_assert_cmpint (listen (fd, 1), ==, 0);
  return fd;
}

/* Connects as soon as the socket is there, looks at its mode, and says one word. */
static gpointer
call (gpointer data)
{
  Fixture *f = data;
  gint64 deadline = g_get_monotonic_time () + 20 * G_USEC_PER_SEC;
  struct stat status;
  int fd = -1;

  while (fd < 0 && g_get_monotonic_time () < deadline) {
    fd = hf_stream_connect (f->address, 0, NULL, NULL);
    g_thread_yield ();
  }
  g_assert_cmpint (fd, >=, 0);
  if (stat (f->path, &status) == 0)
    g_assert_cmpint (status.st_mode & 0777, ==, 0600);
  g_assert_cmpint (write (fd, "word", 4), ==, 4);
  close (fd);
  return NULL;
}

static void
check_connection (Fixture *f)
{
  g_autoptr (GThread) caller = g_thread_new ("caller", call, f);
  g_autoptr (GError) error = NULL;
  char word[8];
  int fd = hf_stream_listen (f->address, 0, &f->job, &error);

  g_assert_no_error (error);
  g_assert_cmpint (fd, >=, 0);
  g_assert_cmpint (read (fd, word, sizeof word), ==, 4);
  g_assert_cmpint (memcmp (word, "word", 4), ==, 0);
  close (fd);
  g_thread_join (g_steal_pointer (&caller));
  g_assert_false (g_file_test (f->path, G_FILE_TEST_EXISTS));
}

static void
test_listen (Fixture *f, gconstpointer data)
{
  mode_t before = umask (0);

  check_connection (f);
  umask (before);
}

static void
test_stale (Fixture *f, gconstpointer data)
{
  close (make_socket (f, FALSE));
  g_assert_true (g_file_test (f->path, G_FILE_TEST_EXISTS));
  check_connection (f);
}

static void
test_busy (Fixture *f, gconstpointer data)
{
  int other = make_socket (f, TRUE);
  g_autoptr (GError) error = NULL;

  g_assert_cmpint (hf_stream_listen (f->address, 0, &f->job, &error), ==, -1);
  g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_BUSY);
  g_assert_true (g_file_test (f->path, G_FILE_TEST_EXISTS));
  close (other);
}

static void
test_interrupted (Fixture *f, gconstpointer data)
{
  g_autoptr (GError) error = NULL;

  g_assert_cmpint (write (f->interrupt[1], "", 1), ==, 1);
  g_assert_cmpint (hf_stream_listen (f->address, 0, &f->job, &error), ==, -1);
  g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_INTERRUPTED);
  g_assert_false (g_file_test (f->path, G_FILE_TEST_EXISTS));
}

/* Nobody comes, and nobody takes us: neither waits longer than it was told to. */
static void
test_deadline (Fixture *f, gconstpointer data)
{
  enum { WAIT_MS = 60 };
  g_autoptr (GError) error = NULL, full = NULL;
  gint64 begin = g_get_monotonic_time ();
  int server, fds[8], n = 0;

  g_assert_cmpint (hf_stream_listen (f->address, hf_deadline_after_ms (WAIT_MS), &f->job, &error), ==, -1);
  g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE);
  g_assert_nonnull (strstr (error->message, g_strerror (ETIMEDOUT)));
  g_assert_cmpint (g_get_monotonic_time () - begin, >=, WAIT_MS * G_TIME_SPAN_MILLISECOND);
  g_assert_false (g_file_test (f->path, G_FILE_TEST_EXISTS));

  server = make_socket (f, TRUE);
  while (n < 8 && (fds[n] = hf_stream_connect (f->address, hf_deadline_after_ms (WAIT_MS), &f->job, &full)) >= 0)
    n++;
  g_assert_cmpint (n, <, 8);
  g_assert_nonnull (strstr (full->message, g_strerror (ETIMEDOUT)));
  while (n > 0)
    close (fds[--n]);
  close (server);
}

/* What is no socket stays, and a path that is none is refused. */
static void
test_not_a_socket (Fixture *f, gconstpointer data)
{
  g_autofree char *long_name = g_strnfill (200, 'x');
  g_autofree char *long_address = g_strconcat ("unix:/", long_name, NULL);
  const char *const addresses[] = { f->address, "unix:", "tcp:1", f->path, long_address };

  g_assert_true (g_file_set_contents (f->path, "mine", 4, NULL));
  for (guint i = 0; i < G_N_ELEMENTS (addresses); i++) {
    g_autoptr (GError) error = NULL, refused = NULL;
    g_assert_cmpint (hf_stream_listen (addresses[i], 0, &f->job, &error), ==, -1);
    g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE);
    g_assert_cmpint (hf_stream_connect (addresses[i], 0, &f->job, &refused), ==, -1);
    g_assert_error (refused, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE);
  }
  g_assert_true (g_file_test (f->path, G_FILE_TEST_IS_REGULAR));
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/stream-progress/describe", test_describe);
  g_test_add_func ("/stream-progress/parse", test_parse);
  g_test_add ("/stream-socket/listen", Fixture, NULL, set_up, test_listen, tear_down);
  g_test_add ("/stream-socket/stale", Fixture, NULL, set_up, test_stale, tear_down);
  g_test_add ("/stream-socket/deadline", Fixture, NULL, set_up, test_deadline, tear_down);
  g_test_add ("/stream-socket/busy", Fixture, NULL, set_up, test_busy, tear_down);
  g_test_add ("/stream-socket/interrupted", Fixture, NULL, set_up, test_interrupted, tear_down);
  g_test_add ("/stream-socket/not-a-socket", Fixture, NULL, set_up, test_not_a_socket, tear_down);
  return g_test_run ();
}
