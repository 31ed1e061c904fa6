/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Which process serves a Unix socket, where SO_PEERCRED only tells who called listen(2): libvirt makes the sockets of a monitor
 * and hands them to QEMU. Thread: any; reads procfs.
 */

#include <glib.h>
#include <sys/types.h>

typedef enum { HF_HOLDS_UNKNOWN, HF_HOLDS_NO, HF_HOLDS_YES } HfHolds;

/* Inode numbers (guint64) of the sockets that listen at path, as they were bound: more than one if the file was replaced, none if
   it was bound by another name or in another network namespace (proc(5), /proc/net/unix). Free with g_array_unref. */
GArray *hf_unix_listeners (const char *path);

/* Whether the process has one of them open. UNKNOWN: there are none, or its descriptors cannot be looked at. */
HfHolds hf_unix_holds (const GArray *listeners, pid_t pid);
