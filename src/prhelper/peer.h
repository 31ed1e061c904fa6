/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Who is at the other end of a socket. Thread: any.
 *
 * A process id alone is no name: it is given again. With the time at which the process started it is one for the life of the
 * machine.
 */

#include <glib.h>
#include <sys/types.h>

typedef struct {
  pid_t pid; /* 0: of a process-id namespace that we cannot see */
  uid_t uid;
  gid_t gid;
  guint64 start_time; /* clock ticks after boot, proc(5) /proc/PID/stat field 22; 0: not known */
} HfPeer;

/* SO_PEERCRED: the process that called connect, at that time. FALSE with G_IO_ERROR. */
gboolean hf_peer_from_socket (int fd, HfPeer *ret, GError **error);

/* Field 22 of a line of /proc/PID/stat; 0 if it is not there. Pure: any text may be passed. */
guint64 hf_peer_parse_start_time (const char *line);

/* Of the process that has this id now; 0: there is none, or it cannot be read. */
guint64 hf_peer_read_start_time (pid_t pid);
