/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A QEMU process seen from outside, by its process id and start time: whether it lives, what it is called, which devices it has
 * open, whether its vCPUs have run. Thread: any; reads procfs, never waits for the process.
 */

#include "prhelper/peer.h"

/* A pidfd of exactly this process: readable when it has ended. -1 with G_IO_ERROR: it has ended (G_IO_ERROR_NOT_FOUND), its start
   time is not known (peer->pid or start_time 0), or the kernel refuses. */
int hf_process_open (const HfPeer *peer, GError **error);

/* From its command line: -name NAME, -name guest=NAME,..., -uuid UUID. For people only: whoever started it can write anything.
   The name is UTF-8, at most 255 bytes, no control characters (but any other, '/' too), the uuid one in lower case; NULL: not
   there. Free with g_free. */
void hf_process_get_names (const HfPeer *peer, char **ret_name, char **ret_uuid);

/* Time that its threads, those that have ended included, spent running a virtual CPU (proc(5) /proc/PID/stat field 43,
   "guest_time"), in clock ticks. -1: not known, or it has ended. Only KVM running guest code makes it grow, never -accel tcg. */
gint64 hf_process_get_guest_time (const HfPeer *peer);

/* Pure: what the three above and below read. text[length] is a NUL. Parsers of a line give -1 or 0 if it is not there. */
void hf_process_parse_names (const char *text, gsize length, char **ret_name, char **ret_uuid);
gint64 hf_process_parse_guest_time (const char *line);
guint hf_process_parse_descriptors_max (const char *status);

/* A block or SCSI generic node. */
typedef struct {
  int fd; /* ours, close-on-exec */
  gboolean block;
  guint major, minor;
  char *name; /* "block 8:16", or the path that a glob gave; for messages */
} HfDevice;

/* A copy of fd. NULL with G_IO_ERROR: it is neither a block nor a character device, or there are no descriptors left. */
HfDevice *hf_device_new (int fd, GError **error);
void hf_device_free (HfDevice *device);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (HfDevice, hf_device_free)

/* TRUE: the same node, by kind and number. */
gboolean hf_device_equal (const HfDevice *a, const HfDevice *b);

/* Every block node and SCSI generic node (major 21) that the process has open, once each, of HfDevice. By pidfd_getfd, or, where
   that is not allowed, by opening /proc/PID/fd/N for reading (the kernel lets SG_IO of a holder of CAP_SYS_RAWIO through). At
   most HF_DEVICES_MAX. NULL with G_IO_ERROR: nothing can be learnt of this process (G_IO_ERROR_PERMISSION_DENIED names what is
   missing: CAP_SYS_PTRACE, or running as its user). One descriptor that cannot be had is
   skipped; ret_complete (may be NULL): none was. */
#define HF_DEVICES_MAX 1024
GPtrArray *hf_devices_of_process (const HfPeer *peer, int pidfd, gboolean *ret_complete, GError **error);

/* The nodes that globs match (glob(7), "/dev/disk/by-id/scsi-*"), opened for reading, once each, at most HF_DEVICES_MAX. What
   cannot be opened or is no such node, and a glob that nothing matches, is named in ret_skipped, which may be NULL; it gets NULL
   if there is none, else a text for the log, to be freed with g_free. */
GPtrArray *hf_devices_of_globs (const char *const *globs, char **ret_skipped);
