/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What ties the helper to its QEMUs beside the guest's commands: the message buses where they call Save and Load, and their
 * monitors. Every call and event is brought to the VM that it is about (vms.h). Thread: main.
 *
 * Addresses may be templates (template.h): then there is one for each VM, opened when the VM appears and closed when it ends.
 */

#include "prhelper/vms.h"

typedef struct {
  const char *const *vmstate_bus; /* D-Bus addresses; NULL: none */
  const char *vmstate_id;         /* 1 to 255 bytes of UTF-8 */
  const char *const *qmp;         /* paths of Unix sockets; NULL: none */
  HfOnChange on_change;           /* of Load */
} HfLinksRules;

typedef struct _HfLinks HfLinks;

/* TRUE: rules can be used. Else G_IO_ERROR_INVALID_ARGUMENT: an address is no D-Bus address or holds an unknown %x, the id is too
   long. Call at the start of the program. */
gboolean hf_links_check (const HfLinksRules *rules, GError **error);

/* Opens what is no template, and what belongs to VMs that live already. vms must live longer than links; rules are copied. Starts
   threads (GDBus): not before daemon(3). */
HfLinks *hf_links_new (const HfLinksRules *rules, HfVms *vms);
/* Calls that wait are answered with an error; blocks for a moment until answers are written. NULL is accepted. */
void hf_links_free (HfLinks *links);

/* A VM appeared, or its process has ended (hf_vms_set_lifecycle). */
void hf_links_vm (HfLinks *links, HfVm *vm, gboolean alive);
