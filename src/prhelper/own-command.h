/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Commands that QEMU 11 sends of its own accord when a machine with a reservation has moved, or has failed to (QEMU,
 * docs/system/devices/scsi/migrate-pr.rst): READ RESERVATION, READ KEYS, REGISTER with RESERVATION KEY 0, PREEMPT with both keys
 * the guest's. They come before the VM runs, on the same connection and the same descriptor as the guest's.
 *
 * Pure. Thread: any.
 */

#include "prhelper/protocol.h"

typedef enum {
  HF_OWN_COMMAND_NO,   /* a guest's: it proves that the VM runs */
  HF_OWN_COMMAND_READ, /* may be QEMU's: only reads */
  HF_OWN_COMMAND_DONE, /* wants what we have done, or have found out that must not be done */
} HfOwnCommand;

/* key: what the VM's Save or Load had on this LU; 0: nothing. type: of the reservation it has there now, or 0. */
HfOwnCommand hf_own_command (const HfProtocolRequest *request, guint64 key, guint8 type);

/* REPORT CAPABILITIES as the guest may see it: without SIP_C, for what it registers for other initiator ports by it is in no
   Save. length: bytes of data. TRUE if something was hidden. */
gboolean hf_mask_capabilities (const HfProtocolRequest *request, guint8 *data, gsize length);
