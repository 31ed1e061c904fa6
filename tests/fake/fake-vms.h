/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * prhelper/vms.h without devices: VMs are what the test made, and a job waits until the test ends it. For the tests of what only
 * calls into vms.h. Thread: one.
 */

#include "prhelper/vms.h"

typedef struct {
  const char *kind; /* "save", "load", "check", "release", "reclaim" */
  HfVm *vm;
  GBytes *record; /* or NULL */
  HfOnChange on_change;
  HfVmDone done;
  gpointer user_data;
} FakeJob;

HfVms *fake_vms_new (void);
void fake_vms_free (HfVms *vms);

HfVm *fake_vms_add (HfVms *vms, pid_t pid, const char *name, const char *uuid);
void fake_vms_remove (HfVms *vms, HfVm *vm);
/* Its state may be changed through them. */
HfVmImage *fake_vm_image (HfVm *vm);
HfVmCounters *fake_vm_counters (HfVm *vm);
void fake_vm_hold (HfVm *vm, guint minor, const char *designator, guint64 key, guint8 type);

/* The oldest job that waits; NULL: none. */
const FakeJob *fake_vms_get_job (HfVms *vms);
/* Ends it. */
void fake_vms_finish (HfVms *vms, const HfVmOutcome *outcome, const GError *error);
