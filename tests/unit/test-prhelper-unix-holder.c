/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Who has a socket open that somebody else may have made: on sockets and processes of the test's own. */

#include "config.h"

#include "prhelper/unix-holder.h"

#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct {
  char *dir, *path;
  int fd;
} Fixture;

static int
bind_at (const char *path, gboolean listens)
{
  struct sockaddr_un name = { .sun_family = AF_UNIX };
  int fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

  g_strlcpy (name.sun_path, path, sizeof name.sun_path);
  g_assert_cmpint (bind (fd, (struct sockaddr *)&name, sizeof name), ==, 0);
  if (listens)
    g_assert_cmpint (listen (fd, 1), ==, 0);
  return fd;
}

static void
set_up (Fixture *f, gconstpointer data)
{
  f->dir = g_dir_make_tmp ("holdfast-holder-XXXXXX", NULL);
  f->path = g_build_filename (f->dir, "a socket", NULL);
  f->fd = bind_at (f->path, TRUE);
}

static void
tear_down (Fixture *f, gconstpointer data)
{
  if (f->fd >= 0)
    close (f->fd);
  g_unlink (f->path);
  g_assert_cmpint (g_rmdir (f->dir), ==, 0);
  g_free (f->dir);
  g_free (f->path);
}

static void
test_ours (Fixture *f, gconstpointer data)
{
  g_autoptr (GArray) listeners = hf_unix_listeners (f->path);

  g_assert_cmpuint (listeners->len, ==, 1);
  g_assert_cmpint (hf_unix_holds (listeners, getpid ()), ==, HF_HOLDS_YES);
  g_assert_cmpint (hf_unix_holds (listeners, getppid ()), ==, HF_HOLDS_NO);
}

/* A child has it after its maker has closed it. */
static void
test_handed_over (Fixture *f, gconstpointer data)
{
  g_autoptr (GArray) listeners = NULL;
  pid_t child = fork ();

  if (child == 0) {
    prctl (PR_SET_PDEATHSIG, SIGKILL);
    for (;;)
      pause ();
  }
  close (f->fd);
  f->fd = -1;
  listeners = hf_unix_listeners (f->path);
  g_assert_cmpint (hf_unix_holds (listeners, child), ==, HF_HOLDS_YES);
  g_assert_cmpint (hf_unix_holds (listeners, getpid ()), ==, HF_HOLDS_NO);
  g_assert_cmpint (kill (child, SIGKILL), ==, 0);
  g_assert_cmpint (waitpid (child, NULL, 0), ==, child);
  g_assert_cmpint (hf_unix_holds (listeners, child), ==, HF_HOLDS_UNKNOWN);
}

/* A file that was replaced: both sockets have that name, and it cannot be told which of them is there now. */
static void
test_replaced (Fixture *f, gconstpointer data)
{
  g_autoptr (GArray) listeners = NULL;
  int second;

  g_unlink (f->path);
  second = bind_at (f->path, TRUE);
  listeners = hf_unix_listeners (f->path);
  g_assert_cmpuint (listeners->len, ==, 2);
  close (second);
}

static void
test_none (Fixture *f, gconstpointer data)
{
  g_autofree char *other = g_build_filename (f->dir, "other", NULL);
  g_autofree char *part = g_build_filename (f->dir, "a", NULL);
  g_autoptr (GArray) nobody = hf_unix_listeners (part);
  g_autoptr (GArray) silent = NULL;
  int fd = bind_at (other, FALSE);

  /* Bound, but it does not listen. */
  silent = hf_unix_listeners (other);
  g_assert_cmpuint (silent->len, ==, 0);
  g_assert_cmpuint (nobody->len, ==, 0);
  g_assert_cmpint (hf_unix_holds (nobody, getpid ()), ==, HF_HOLDS_UNKNOWN);
  close (fd);
  g_unlink (other);
}

#define ADD(path, function) g_test_add (path, Fixture, NULL, set_up, function, tear_down)

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  ADD ("/prhelper/unix-holder/ours", test_ours);
  ADD ("/prhelper/unix-holder/handed-over", test_handed_over);
  ADD ("/prhelper/unix-holder/replaced", test_replaced);
  ADD ("/prhelper/unix-holder/none", test_none);
  return g_test_run ();
}
