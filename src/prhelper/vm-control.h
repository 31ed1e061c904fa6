/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the control socket's methods do: list, watch, save, check, load, release, reclaim, over the VMs. doc/control.md describes
 * them. Thread: main.
 */

#include "prhelper/control.h"
#include "prhelper/vms.h"

typedef struct {
  HfVms *vms;
  HfOnChange on_change; /* of a load that does not say it */
} HfVmControl;

/* For hf_control_new; user_data is a HfVmControl, which must live as long as a call may be in flight. */
extern const HfControlMethod hf_vm_control_methods[];

/* A HfVmWatcher: tells all who watch. user_data: the HfControl; NULL: there is none. */
void hf_vm_control_event (HfVm *vm, const HfVmEvent *event, gpointer user_data);
