/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Which process has a listening Unix socket open, where SO_PEERCRED tells only who called listen(2) last, or cannot tell. Thread:
 * any; reads procfs.
 */

#include <glib.h>
#include <sys/types.h>

typedef enum { HF_HOLDS_UNKNOWN, HF_HOLDS_NO, HF_HOLDS_YES } HfHolds;

/* Inode numbers (guint64) of the sockets that listen at path, as they were bound: more than one if the file was replaced, none if
   it was bound by another name or in another network namespace (proc(5), /proc/net/unix). Free with g_array_unref. */
GArray *hf_unix_listeners (const char *path);

/* Whether the process has one of them open. UNKNOWN: there are none, or its descriptors cannot be looked at. */
HfHolds hf_unix_holds (const GArray *listeners, pid_t pid);
