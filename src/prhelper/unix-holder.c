/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns: nothing. Thread: any.
 *
 * Theory of operation: /proc/net/unix has a line for each socket, with its inode and the path it was bound to; /proc/PID/fd has a
 * link "socket:[INODE]" for each that the process has open. Looking at the links needs the right to trace the process, which the
 * helper has where it finds devices itself. sock_diag(7) would tell more, but needs AF_NETLINK, which the sandbox forbids.
 */
#include "config.h"

#include "prhelper/unix-holder.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Socket has called listen: the flags of <linux/net.h>. */
#define SO_ACCEPTCON_FLAG 0x10000

G_DEFINE_AUTOPTR_CLEANUP_FUNC (FILE, fclose)
G_DEFINE_AUTOPTR_CLEANUP_FUNC (DIR, closedir)

/* "ADDRESS: REFS PROTOCOL FLAGS TYPE STATE INODE PATH". 0: not a socket that listens at path. */
static guint64
parse_line (const char *line, const char *path)
{
  unsigned int flags = 0;
  guint64 inode = 0;
  int at = 0;

  if (sscanf (line, "%*x: %*x %*x %x %*x %*x %" G_GUINT64_FORMAT " %n", &flags, &inode, &at) != 2 || at == 0)
    return 0;
  return (flags & SO_ACCEPTCON_FLAG) && strcmp (line + at, path) == 0 ? inode : 0;
}

GArray *
hf_unix_listeners (const char *path)
{
  GArray *listeners = g_array_new (FALSE, FALSE, sizeof (guint64));
  g_autoptr (FILE) file = fopen ("/proc/net/unix", "re");
  char *line = NULL;
  size_t size = 0;
  ssize_t length;

  while (file && (length = getline (&line, &size, file)) > 0) {
    guint64 inode;

    if (line[length - 1] == '\n')
      line[length - 1] = '\0';
    inode = parse_line (line, path);
    if (inode)
      g_array_append_val (listeners, inode);
  }
  free (line);
  return listeners;
}

static gboolean
is_one_of (const GArray *listeners, const char *target)
{
  for (guint i = 0; i < listeners->len; i++) {
    char name[64];

    g_snprintf (name, sizeof name, "socket:[%" G_GUINT64_FORMAT "]", g_array_index (listeners, guint64, i));
    if (strcmp (name, target) == 0)
      return TRUE;
  }
  return FALSE;
}

HfHolds
hf_unix_holds (const GArray *listeners, pid_t pid)
{
  g_autofree char *path = g_strdup_printf ("/proc/%d/fd", (int)pid);
  g_autoptr (DIR) folder = listeners->len ? opendir (path) : NULL;
  gboolean saw_all = TRUE;
  struct dirent *entry;

  if (!folder)
    return HF_HOLDS_UNKNOWN;
  while ((entry = readdir (folder))) {
    char target[64];
    ssize_t length = entry->d_name[0] == '.' ? 0 : readlinkat (dirfd (folder), entry->d_name, target, sizeof target - 1);

    if (length < 0)
      saw_all = FALSE;
    if (length <= 0)
      continue;
    target[length] = '\0';
    if (is_one_of (listeners, target))
      return HF_HOLDS_YES;
  }
  return saw_all ? HF_HOLDS_NO : HF_HOLDS_UNKNOWN;
}
