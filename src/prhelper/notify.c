/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns: the socket to the service manager, connected before the sandbox forbids it. Thread: main.
 */
#include "config.h"

#include "prhelper/notify.h"

#include <errno.h>
#include <gio/gio.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int notify_fd = -1;

static gboolean
fail (const char *path, int reason, GError **error)
{
  g_set_error (error, G_IO_ERROR, (int)g_io_error_from_errno (reason), "NOTIFY_SOCKET %s: %s", path, g_strerror (reason));
  return FALSE;
}

gboolean
hf_notify_init (GError **error)
{
  g_autofree char *path = g_strdup (g_getenv ("NOTIFY_SOCKET"));
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  gsize length;

  if (!path)
    return TRUE;
  g_unsetenv ("NOTIFY_SOCKET");
  length = strlen (path);
  if ((path[0] != '/' && path[0] != '@') || length >= sizeof address.sun_path)
    return fail (path, EINVAL, error);
  memcpy (address.sun_path, path, length);
  /* An abstract address has no zero at its end, and one at its start. */
  if (path[0] == '@')
    address.sun_path[0] = '\0';
  else
    length++;
  notify_fd = socket (AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (notify_fd >= 0
      && connect (notify_fd, (struct sockaddr *)&address, (socklen_t)(offsetof (struct sockaddr_un, sun_path) + length)) == 0)
    return TRUE;
  return fail (path, errno, error);
}

void
hf_notify (const char *state)
{
  if (notify_fd >= 0 && send (notify_fd, state, strlen (state), MSG_NOSIGNAL) < 0 && errno == ECONNREFUSED) {
    close (notify_fd);
    notify_fd = -1;
  }
}
