/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Programs that were started with standard descriptors closed: nothing else gets their numbers. */

#include "config.h"

#include "base/descriptors.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <sys/wait.h>
#include <unistd.h>

/* In a child: closes the standard descriptors whose bits are set; exit code 0 or the number of the line that is wrong. */
#define EXPECT(condition)                                                                                                        \
  do {                                                                                                                           \
    if (!(condition))                                                                                                            \
      _exit (__LINE__ & 0xff ?: 1);                                                                                              \
  } while (0)

static void
child_occupies (guint closed, const char *path)
{
  char byte;
  int fd;

  for (int i = 0; i < 3; i++)
    if (closed & 1u << i)
      close (i);
  EXPECT (hf_descriptors_occupy_standard ());
  fd = open (path, O_RDWR | O_CREAT, 0600);
  EXPECT (fd > 2);
  EXPECT (!(closed & 1) || (read (0, &byte, 1) < 0 && errno == EBADF));
  EXPECT (!(closed & 2) || (write (1, "x", 1) < 0 && errno == EBADF));
  EXPECT (!(closed & 4) || (write (2, "x", 1) < 0 && errno == EBADF));
  _exit (0);
}

static void
child_moves_up (guint closed, const char *path)
{
  struct stat node;
  int fd, above;

  for (int i = 0; i < 3; i++)
    if (closed & 1u << i)
      close (i);
  fd = open (path, O_RDWR | O_CREAT, 0600);
  EXPECT (fd >= 0);
  above = hf_descriptor_above_standard (fd);
  EXPECT (above > 2);
  EXPECT (fcntl (above, F_GETFL) >= 0);
  EXPECT (fd > 2 ? above == fd : fstat (fd, &node) < 0 && errno == EBADF);
  _exit (0);
}

static void
test_children (gconstpointer child)
{
  void (*run) (guint closed, const char *path) = (void (*) (guint, const char *))child;
  g_autofree char *folder = g_dir_make_tmp ("holdfast-descriptors-XXXXXX", NULL);
  g_autofree char *path = g_build_filename (folder, "disk", NULL);

  for (guint closed = 0; closed < 8; closed++) {
    int status;
    pid_t pid = fork ();

    g_assert_cmpint (pid, >=, 0);
    if (pid == 0)
      run (closed, path);
    g_assert_cmpint (waitpid (pid, &status, 0), ==, pid);
    g_test_message ("closed: %u", closed);
    g_assert_cmpint (status, ==, 0);
  }
  g_unlink (path);
  g_rmdir (folder);
}

static void
test_no_descriptor (void)
{
  g_assert_cmpint (hf_descriptor_above_standard (-1), ==, -1);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_data_func ("/descriptors/occupied", child_occupies, test_children);
  g_test_add_data_func ("/descriptors/above", child_moves_up, test_children);
  g_test_add_func ("/descriptors/none", test_no_descriptor);
  return g_test_run ();
}
