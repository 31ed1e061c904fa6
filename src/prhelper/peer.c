/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns: nothing. Thread: any.
 *
 * Theory of operation: the kernel keeps the credentials of connect(2) with the socket. The start time is read afterwards, so
 * between the two the process may have ended and its number may be another's; such a connection is closed already and asks for
 * nothing.
 */
#include "config.h"

#include "prhelper/peer.h"

#include <errno.h>
#include <fcntl.h>
#include <gio/gio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define START_TIME_FIELD 22
/* The name of the process, in parentheses, is the second; what is behind it is counted from the third. */
#define FIELDS_BEFORE_STATE 2

guint64
hf_peer_parse_start_time (const char *line)
{
  const char *at = strrchr (line, ')');

  /* Blanks and parentheses may stand in the name, so the last parenthesis ends it. */
  for (guint field = FIELDS_BEFORE_STATE; at && field < START_TIME_FIELD; field++)
    at = strchr (at + 1, ' ');
  return at ? strtoull (at + 1, NULL, 10) : 0;
}

guint64
hf_peer_read_start_time (pid_t pid)
{
  g_autofree char *path = g_strdup_printf ("/proc/%d/stat", (int)pid);
  char line[1024];
  ssize_t length;
  int fd = open (path, O_RDONLY | O_CLOEXEC);

  if (fd < 0)
    return 0;
  length = read (fd, line, sizeof line - 1);
  close (fd);
  if (length <= 0)
    return 0;
  line[length] = '\0';
  return hf_peer_parse_start_time (line);
}

gboolean
hf_peer_from_socket (int fd, HfPeer *ret, GError **error)
{
  struct ucred credentials;
  socklen_t length = sizeof credentials;

  if (getsockopt (fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) < 0) {
    g_set_error (error, G_IO_ERROR, (int)g_io_error_from_errno (errno), "the credentials of a client: %s", g_strerror (errno));
    return FALSE;
  }
  ret->pid = credentials.pid;
  ret->uid = credentials.uid;
  ret->gid = credentials.gid;
  ret->start_time = credentials.pid > 0 ? hf_peer_read_start_time (credentials.pid) : 0;
  return TRUE;
}
