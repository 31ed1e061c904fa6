/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the process may do after it has started: send SCSI commands that change something (CAP_SYS_RAWIO), where it is wanted see
 * the devices of VMs of other users (CAP_SYS_PTRACE), and nothing else that its user may not do. Thread: main, before there are
 * others, because capabilities belong to a thread.
 */

#include <glib.h>

#define HF_NO_ID G_MAXUINT32

/* Keeps CAP_SYS_RAWIO, and with keep_ptrace CAP_SYS_PTRACE, if they are there; drops every other capability, the bounding set and
   the supplementary groups as far as we may, becomes uid and gid (HF_NO_ID: stays), and gives up that exec ever raises anything.
   ret_rawio: whether that capability is there. FALSE with G_IO_ERROR: nothing may be served then. */
gboolean hf_privileges_drop (guint uid, guint gid, gboolean keep_ptrace, gboolean *ret_rawio, GError **error);
