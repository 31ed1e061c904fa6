/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * org.qemu.VMState1 on one message bus: the place that QEMU's dbus-vmstate gives a helper in the migration stream (QEMU,
 * docs/interop/dbus-vmstate.rst).
 *
 * Thread: main (the default main context). One object is one bus. Connecting is repeated until it works, for the bus of a VM may
 * come later than the helper, and again when the bus is lost. The name is queued for, not taken: other helpers may be there.
 */

#include <gio/gio.h>

#define HF_VMSTATE_SIZE_MAX (1u << 20)

/* One Save or Load that waits for its answer. Finish each exactly once. */
typedef struct _HfVmstateCall HfVmstateCall;

typedef struct {
  /* pid: of the process that called, as the bus tells it; 0: the bus does not know. user_data: of hf_vmstate_bus_new. */
  void (*save) (HfVmstateCall *call, pid_t pid, gpointer user_data);
  /* data: at most HF_VMSTATE_SIZE_MAX bytes, valid until the call is finished. */
  void (*load) (HfVmstateCall *call, pid_t pid, GBytes *data, gpointer user_data);
  /* text: "connected", or why not; for the log, once for each change. */
  void (*state) (gboolean connected, const char *address, const char *text, gpointer user_data);
} HfVmstateHandlers;

typedef struct _HfVmstateBus HfVmstateBus;

/* address: a D-Bus address. id: 1 to 255 bytes of UTF-8. handlers must live longer. */
HfVmstateBus *hf_vmstate_bus_new (const char *address, const char *id, const HfVmstateHandlers *handlers, gpointer user_data);
/* Calls that wait are answered with an error; each must still be finished. NULL is accepted. */
void hf_vmstate_bus_free (HfVmstateBus *bus);
/* The same, but blocks until the answers are written, at most timeout_ms: for the end of the program, when no loop runs any more.
 */
void hf_vmstate_bus_free_flushed (HfVmstateBus *bus, guint timeout_ms);
const char *hf_vmstate_bus_get_address (HfVmstateBus *bus);

/* Answers: a Save with data (1 to HF_VMSTATE_SIZE_MAX bytes; QEMU takes an empty array for a failure), a Load with NULL, either
   with error, whose message QEMU prints. Frees call. May be called after the bus is gone. */
void hf_vmstate_call_finish (HfVmstateCall *call, GBytes *data, const GError *error);
