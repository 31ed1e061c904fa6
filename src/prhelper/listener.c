/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns: the listening socket and its path. Thread: main, before there are others: the umask is the process's.
 *
 * Theory of operation: the socket gets its mode from the umask at bind, so that it never has more rights than it shall have.
 * Device and inode are kept: a successor may have put its own socket at the path before we end, and that one must stay.
 */
#include "config.h"

#include "prhelper/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <gio/gio.h>
#include <glib-unix.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* More than VMs that start at the same moment; the kernel bounds it by net.core.somaxconn. */
#define BACKLOG 1024
#define INHERITED_FD 3

struct _HfListener {
  int fd;
  char *path; /* NULL: inherited */
  dev_t device;
  ino_t inode;
};

static void
set_errno (GError **error, const char *path, const char *what)
{
  int reason = errno;

  g_set_error (error, G_IO_ERROR, (int)g_io_error_from_errno (reason), "%s: %s: %s", path, what, g_strerror (reason));
}

static gboolean
remove_stale (const char *path, GError **error)
{
  struct stat status;

  if (lstat (path, &status) < 0)
    return errno == ENOENT || (set_errno (error, path, "cannot be looked at"), FALSE);
  if (!S_ISSOCK (status.st_mode)) {
    g_set_error (error, G_IO_ERROR, G_IO_ERROR_EXISTS, "%s: is there and is no socket", path);
    return FALSE;
  }
  if (unlink (path) < 0 && errno != ENOENT) {
    set_errno (error, path, "the old socket cannot be removed");
    return FALSE;
  }
  return TRUE;
}

static gboolean
bind_at (int fd, const char *path, int mode, GError **error)
{
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  mode_t before = 0;
  int result;

  if (path[0] != '/' || strlen (path) >= sizeof address.sun_path) {
    g_set_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_FILENAME, "%s: the path of a socket is absolute and has at most %u bytes",
                 path, (guint)sizeof address.sun_path - 1);
    return FALSE;
  }
  if (!remove_stale (path, error))
    return FALSE;
  strcpy (address.sun_path, path);
  if (mode >= 0)
    before = umask (0777 & ~(mode_t)mode);
  result = bind (fd, (struct sockaddr *)&address, sizeof address);
  if (mode >= 0)
    umask (before);
  if (result < 0 || listen (fd, BACKLOG) < 0) {
    set_errno (error, path, result < 0 ? "cannot be bound" : "cannot be listened on");
    return FALSE;
  }
  return TRUE;
}

HfListener *
hf_listener_new (const char *path, int mode, GError **error)
{
  HfListener *listener;
  struct stat status;
  int fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

  if (fd < 0) {
    set_errno (error, path, "no socket");
    return NULL;
  }
  if (!bind_at (fd, path, mode, error)) {
    close (fd);
    return NULL;
  }
  listener = g_new0 (HfListener, 1);
  listener->fd = fd;
  listener->path = g_strdup (path);
  if (stat (path, &status) == 0) {
    listener->device = status.st_dev;
    listener->inode = status.st_ino;
  }
  return listener;
}

static gboolean
check_inherited (int fd, GError **error)
{
  int domain = 0, type = 0, listens = 0;
  socklen_t length = sizeof (int);

  if (getsockopt (fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) < 0 || getsockopt (fd, SOL_SOCKET, SO_TYPE, &type, &length) < 0
      || getsockopt (fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &length) < 0) {
    set_errno (error, "socket activation", "descriptor 3");
    return FALSE;
  }
  if (domain == AF_UNIX && type == SOCK_STREAM && listens)
    return TRUE;
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA, "socket activation: descriptor 3 is no listening UNIX stream socket");
  return FALSE;
}

HfListener *
hf_listener_inherit (GError **error)
{
  g_autofree char *pid = g_strdup (g_getenv ("LISTEN_PID"));
  g_autofree char *n_fds = g_strdup (g_getenv ("LISTEN_FDS"));
  HfListener *listener;

  /* Meant for another process: these stay. */
  if (!pid || !n_fds || strtoul (pid, NULL, 10) != (unsigned long)getpid ())
    return NULL;
  g_unsetenv ("LISTEN_PID");
  g_unsetenv ("LISTEN_FDS");
  g_unsetenv ("LISTEN_FDNAMES");
  if (strcmp (n_fds, "1") != 0) {
    g_set_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA, "socket activation with %s sockets: one is served", n_fds);
    return NULL;
  }
  if (!check_inherited (INHERITED_FD, error) || !g_unix_set_fd_nonblocking (INHERITED_FD, TRUE, error))
    return NULL;
  fcntl (INHERITED_FD, F_SETFD, FD_CLOEXEC);
  listener = g_new0 (HfListener, 1);
  listener->fd = INHERITED_FD;
  return listener;
}

void
hf_listener_free (HfListener *listener)
{
  struct stat status;

  if (!listener)
    return;
  if (listener->path && lstat (listener->path, &status) == 0 && status.st_dev == listener->device
      && status.st_ino == listener->inode)
    unlink (listener->path);
  close (listener->fd);
  g_free (listener->path);
  g_free (listener);
}

int
hf_listener_get_fd (HfListener *listener)
{
  return listener->fd;
}
