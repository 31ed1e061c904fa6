/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns: the file and its lock. Thread: main.
 *
 * Theory of operation: the lock is what counts, the number is for readers. It belongs to the open file description (F_OFD_SETLK):
 * one of the process would go when any other descriptor of the file is closed, and clients pass descriptors. A predecessor that
 * ends removes the file it had locked, so after the lock was got it is checked that the name still leads to this file; if not, it
 * is tried again.
 */
#include "config.h"

#include "prhelper/pidfile.h"

#include <errno.h>
#include <fcntl.h>
#include <gio/gio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct _HfPidfile {
  char *path;
  int fd;
};

/* TRUE: the name leads to the file that is open as fd. */
static gboolean
has_name (int fd, const char *path)
{
  struct stat opened, named;

  return fstat (fd, &opened) == 0 && stat (path, &named) == 0 && named.st_dev == opened.st_dev && named.st_ino == opened.st_ino;
}

static gboolean
fail (const char *path, const char *what, GError **error)
{
  int reason = errno;

  g_set_error (error, G_IO_ERROR, (int)g_io_error_from_errno (reason), "PID file %s: %s: %s", path, what, g_strerror (reason));
  return FALSE;
}

/* ret_fd: open and locked; whether it still has the name is told by ret_is_it. */
static gboolean
open_locked (const char *path, int *ret_fd, gboolean *ret_is_it, GError **error)
{
  struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
  int fd = open (path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);

  if (fd < 0)
    return fail (path, "cannot be opened", error);
  if (fcntl (fd, F_OFD_SETLK, &lock) < 0) {
    fail (path, errno == EAGAIN || errno == EACCES ? "another process has it" : "cannot be locked", error);
    close (fd);
    return FALSE;
  }
  *ret_is_it = has_name (fd, path);
  *ret_fd = fd;
  return TRUE;
}

HfPidfile *
hf_pidfile_new (const char *path, GError **error)
{
  g_autofree char *text = g_strdup_printf ("%d\n", (int)getpid ());
  gboolean is_it = FALSE;
  HfPidfile *pidfile;
  int fd = -1;

  while (!is_it) {
    if (!open_locked (path, &fd, &is_it, error))
      return NULL;
    if (!is_it)
      close (fd);
  }
  if (ftruncate (fd, 0) < 0 || write (fd, text, strlen (text)) != (ssize_t)strlen (text)) {
    fail (path, "cannot be written", error);
    close (fd);
    return NULL;
  }
  pidfile = g_new0 (HfPidfile, 1);
  pidfile->path = g_strdup (path);
  pidfile->fd = fd;
  return pidfile;
}

void
hf_pidfile_free (HfPidfile *pidfile)
{
  if (!pidfile)
    return;
  /* Whoever took the name away meanwhile keeps what has it now. */
  if (has_name (pidfile->fd, pidfile->path))
    unlink (pidfile->path);
  close (pidfile->fd);
  g_free (pidfile->path);
  g_free (pidfile);
}
