/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns: the socket between bind and the connection. Thread: the caller's.
 *
 * Theory of operation: the mode of the socket is set on the descriptor before bind, which the kernel takes over (unix_bind), so
 * that the path never has more rights, and the umask, which is the process's, is left alone. Who finds the path taken asks
 * whoever listens there: only a socket that refuses is a left-over. Device and inode are kept, so that a successor's socket at
 * the same path stays. No connect(2) waits, because a listener whose queue is full would let it wait through signals; who wants
 * in asks again and again, until interrupted.
 */
#include "config.h"

#include "cli/stream-socket.h"

#include "base/deadline.h"

#include <errno.h>
#include <glib-unix.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define PREFIX "unix:"
#define CONNECT_EVERY_MS 20

typedef struct {
  int fd;
  struct sockaddr_un address;
  dev_t device;
  ino_t inode; /* 0: nothing of ours is at the path */
} Listener;

static gboolean
fail (const char *path, const char *what, GError **error)
{
  g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE, "%s: %s: %s", path, what, g_strerror (errno));
  return FALSE;
}

static gboolean
parse (const char *text, struct sockaddr_un *ret, GError **error)
{
  const char *path = g_str_has_prefix (text, PREFIX) ? text + strlen (PREFIX) : NULL;

  *ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
  if (!path || !*path || strlen (path) >= sizeof ret->sun_path) {
    g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE, "\"%s\" is no socket: unix:PATH, with a path of at most %u bytes",
                 text, (guint)sizeof ret->sun_path - 1);
    return FALSE;
  }
  strcpy (ret->sun_path, path);
  return TRUE;
}

static int
new_socket (GError **error)
{
  int fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

  if (fd < 0)
    fail ("socket", "cannot be made", error);
  return fd;
}

static gboolean
connect_to (int fd, const struct sockaddr_un *address)
{
  return connect (fd, (const struct sockaddr *)address, sizeof *address) == 0;
}

/* The path is taken. TRUE: what was there was a socket without a listener, and is gone. */
static gboolean
remove_stale (const struct sockaddr_un *address, GError **error)
{
  const char *path = address->sun_path;
  struct stat status;
  gboolean answered;
  int fd;

  if (lstat (path, &status) < 0)
    return errno == ENOENT || fail (path, "cannot be looked at", error);
  if (!S_ISSOCK (status.st_mode)) {
    g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE, "%s: is there and is no socket", path);
    return FALSE;
  }
  fd = new_socket (error);
  if (fd < 0)
    return FALSE;
  /* EAGAIN: somebody listens, with a queue that is full (unix(7)). */
  answered = connect_to (fd, address) || errno != ECONNREFUSED;
  close (fd);
  if (answered) {
    g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_BUSY, "%s: somebody else listens there", path);
    return FALSE;
  }
  return unlink (path) == 0 || errno == ENOENT || fail (path, "the old socket cannot be removed", error);
}

static gboolean
bind_to (int fd, const struct sockaddr_un *address, GError **error)
{
  const struct sockaddr *where = (const struct sockaddr *)address;

  if (fchmod (fd, 0600) < 0)
    return fail (address->sun_path, "its mode cannot be set", error);
  if (bind (fd, where, sizeof *address) == 0)
    return TRUE;
  if (errno != EADDRINUSE)
    return fail (address->sun_path, "cannot be bound", error);
  if (!remove_stale (address, error))
    return FALSE;
  return bind (fd, where, sizeof *address) == 0 || fail (address->sun_path, "cannot be bound", error);
}

static void
listener_clear (Listener *listener)
{
  struct stat status;

  if (listener->inode && lstat (listener->address.sun_path, &status) == 0 && status.st_dev == listener->device
      && status.st_ino == listener->inode)
    unlink (listener->address.sun_path);
  if (listener->fd >= 0)
    close (listener->fd);
  listener->fd = -1;
}

static gboolean
listener_open (Listener *listener, GError **error)
{
  struct stat status;

  listener->fd = new_socket (error);
  if (listener->fd < 0 || !bind_to (listener->fd, &listener->address, error))
    return FALSE;
  if (lstat (listener->address.sun_path, &status) < 0)
    return fail (listener->address.sun_path, "cannot be looked at", error);
  listener->device = status.st_dev;
  listener->inode = status.st_ino;
  return listen (listener->fd, 1) == 0 || fail (listener->address.sun_path, "cannot be listened on", error);
}

/* Milliseconds for poll: until the deadline, but at most so many; -1: neither ends it. */
static int
pause_ms (gint64 deadline, int at_most)
{
  int left = deadline ? hf_deadline_left_ms (deadline) : -1;

  return left < 0 || (at_most >= 0 && at_most < left) ? at_most : left;
}

static gboolean
check_deadline (gint64 deadline, const char *path, GError **error)
{
  if (!deadline || g_get_monotonic_time () < deadline)
    return TRUE;
  errno = ETIMEDOUT;
  return fail (path, "no connection", error);
}

static int
accept_one (const Listener *listener, gint64 deadline, const HfStreamJob *job, GError **error)
{
  struct pollfd fds[] = { { .fd = listener->fd, .events = POLLIN }, { .fd = job ? job->interrupt_fd : -1, .events = POLLIN } };

  for (;;) {
    int fd;

    if (poll (fds, G_N_ELEMENTS (fds), pause_ms (deadline, -1)) < 0 && errno != EINTR) {
      fail (listener->address.sun_path, "cannot be waited for", error);
      return -1;
    }
    if (!hf_stream_job_step (job, 0, 0, error))
      return -1;
    if (!(fds[0].revents & POLLIN)) {
      if (!check_deadline (deadline, listener->address.sun_path, error))
        return -1;
      continue;
    }
    fd = accept4 (listener->fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd >= 0)
      return fd;
    /* Who called may have gone again (accept(2)). */
    if (errno != EINTR && errno != EAGAIN && errno != ECONNABORTED) {
      fail (listener->address.sun_path, "no connection", error);
      return -1;
    }
  }
}

int
hf_stream_listen (const char *address, gint64 deadline, const HfStreamJob *job, GError **error)
{
  Listener listener = { .fd = -1 };
  int fd = -1;

  if (!parse (address, &listener.address, error))
    return -1;
  if (listener_open (&listener, error))
    fd = accept_one (&listener, deadline, job, error);
  listener_clear (&listener);
  return fd;
}

/* TRUE: there is a connection. The kernel does not tell when a queue has room again. */
static gboolean
connect_soon (int fd, const struct sockaddr_un *address, gint64 deadline, const HfStreamJob *job, GError **error)
{
  while (!connect_to (fd, address)) {
    struct pollfd interrupt = { .fd = job ? job->interrupt_fd : -1, .events = POLLIN };

    if (errno != EAGAIN && errno != EINTR)
      return fail (address->sun_path, "cannot be connected to", error);
    (void)poll (&interrupt, 1, pause_ms (deadline, CONNECT_EVERY_MS));
    if (!hf_stream_job_step (job, 0, 0, error) || !check_deadline (deadline, address->sun_path, error))
      return FALSE;
  }
  return TRUE;
}

int
hf_stream_connect (const char *address, gint64 deadline, const HfStreamJob *job, GError **error)
{
  struct sockaddr_un where;
  int fd;

  if (!parse (address, &where, error))
    return -1;
  fd = new_socket (error);
  if (fd >= 0 && (!connect_soon (fd, &where, deadline, job, error) || !g_unix_set_fd_nonblocking (fd, FALSE, error))) {
    close (fd);
    return -1;
  }
  return fd;
}
