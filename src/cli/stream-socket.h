/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * One connection of a UNIX socket, for --listen and --connect.
 *
 * Thread: any; the calls block until there is a connection, the deadline passes or the work is interrupted.
 */

#include "stream/stream-error.h"

/* address: "unix:PATH". Makes the socket (mode 0600), takes one connection and removes the socket again, whatever happened. A
   socket that nobody listens on is replaced; one that somebody does is HF_STREAM_ERROR_BUSY. The descriptor blocks, and is the
   caller's; -1 on error. deadline: absolute, monotonic microseconds, by which there must be a connection; 0: none. */
int hf_stream_listen (const char *address, gint64 deadline, const HfStreamJob *job, GError **error);

/* Connects to a socket that somebody listens on; if that one is busy with others, waits until it takes us too. */
int hf_stream_connect (const char *address, gint64 deadline, const HfStreamJob *job, GError **error);
