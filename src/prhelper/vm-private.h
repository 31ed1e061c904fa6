/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the files of the VMs share: vms.c (who there is), vm-node.c (what is held through each node), command.c (a guest's command
 * on its way), vm-operation.c (Save, Load and the rest as jobs), vm-phase.c (what a sign means in which phase). Nobody else
 * includes this. Thread: main.
 */

#include "prhelper/own-command.h"
#include "prhelper/vms.h"

#define HF_VM_NODES_MAX 256

/* One node that the guest sends commands through, or a Load found: an I_T nexus, as far as this host can tell nodes apart. */
typedef struct {
  gboolean block;
  guint major, minor;
  HfDevice *device; /* NULL: not kept, for the process can be asked for it */
  gboolean identified;
  HfLuIdentity identity;
  char *lu; /* hf_lu_identity_to_string, or the node's name */
  gboolean tracked;
  HfPrState state;
  guint64 candidate_key; /* what an unclear REGISTER wanted to register */
  guint at_device;       /* PERSISTENT RESERVE OUTs that were sent and are not answered, those nobody waits for included */
  guint64 moved_key;     /* the key of the Save or Load that this node was part of; 0: none */
  guint n_unit_attentions;
  guint16 unit_attentions[HF_SCSI_UA_MAX]; /* met by our own commands, owed to the guest */
} HfVmNode;

typedef struct _HfOperation HfOperation;

typedef enum {
  HF_OPERATION_SAVE,
  HF_OPERATION_LOAD,
  HF_OPERATION_CHECK,
  HF_OPERATION_COMMIT,
  HF_OPERATION_ABORT,
  HF_OPERATION_RELEASE,
  HF_OPERATION_RECLAIM
} HfOperationKind;
#define HF_N_OPERATIONS (HF_OPERATION_RECLAIM + 1)

struct _HfVm {
  gint references; /* the table, connections, commands, operations */
  HfVms *vms;
  HfPeer peer;
  char *name, *uuid, *label;
  guint connections;
  int pidfd; /* -1: the end of the last connection is the end of the VM */
  guint pidfd_source;
  gboolean alive;
  gboolean orphan;   /* the table is gone */
  gboolean given_up; /* its image stays for the next start of the helper */

  GPtrArray *nodes;    /* of HfVmNode */
  gboolean incomplete; /* the process is older than what we know of it: a Save also looks for what was registered before */
  GQueue commands;     /* of HfCommand, all */
  GQueue waiting;      /* those held back by an operation */
  guint at_work;       /* commands that are on their way to a device or back, and not abandoned */
  GQueue operations;   /* of HfOperation: the head runs, or waits for at_work */

  HfVmPhase phase;
  GBytes *record;
  HfLoad *load;    /* HF_VM_PREPARED; not while an operation has it */
  GPtrArray *kept; /* of HfHolding: descriptors for a release after the end of the process; or NULL */
  gint64 guest_time;
  gint64 phase_since; /* monotonic */
  gint64 alone_since; /* the last connection went */
  gint64 warned_at;
  gboolean failed_meanwhile; /* HF_SIGN_FAILED came while a Save ran */
  gboolean window;           /* commands that come now may be QEMU's own */
  guint attempts;            /* of the operation that failed, which is tried again */
  HfOperationKind retry_kind;
  gint64 not_before;
  guint retry_source;
  HfVmCounters counters;
};

struct _HfVms {
  HfVmsRules rules;
  HfQueue *queue;
  HfStore *store;
  GHashTable *by_process; /* HfPeer in HfVm -> HfVm */
  const HfVmWatch *watchers;
  void (*lifecycle) (HfVm *vm, gboolean alive, gpointer user_data);
  gpointer lifecycle_data;
  guint tick_source;
  gint64 started; /* in clock ticks after boot */
  gboolean freed;
};

/* ---- vms.c ---- */
HfVm *hf_vm_ref (HfVm *vm);
void hf_vm_unref (HfVm *vm);
/* The VM may be forgotten now: its process has ended and nothing is left to do. */
void hf_vm_check_end (HfVm *vm);
/* TRUE: it has no connection and nothing that tells its end, and has to be looked for again. */
gboolean hf_vm_look_for_end (HfVm *vm);
void hf_vm_tell (HfVm *vm, const char *operation, const char *lu, const char *result, gboolean warning);
void hf_vm_tell_guest (HfVm *vm, const char *operation, const char *lu, const char *result, gboolean warning);
/* Writes the VM's image. done may be NULL; without a store it is called by an idle source, so never inside. */
void hf_vm_store (HfVm *vm, gboolean sync, HfStoreDone done, gpointer user_data);
/* Looks at VMs in a phase that waits for a proof: does nothing if none is. */
void hf_vms_start_ticking (HfVms *vms);

/* ---- vm-node.c ---- */
HfVmNode *hf_vm_find_node (HfVm *vm, gboolean block, guint major, guint minor);
/* Made if it is missing. NULL: too many. */
HfVmNode *hf_vm_get_node (HfVm *vm, gboolean block, guint major, guint minor);
void hf_vm_node_free (HfVmNode *node);
/* Descriptors of devices are closed on a thread. NULL is accepted. */
void hf_free_elsewhere (GPtrArray *holdings);
void hf_vm_discard_device (HfVm *vm, HfDevice *device);
/* FALSE: the node was another LU until now, and what was held there is forgotten. */
gboolean hf_vm_node_set_identity (HfVmNode *node, const HfLuIdentity *identity);
/* A node that holds nothing is forgotten. */
void hf_vm_drop_empty_nodes (HfVm *vm);
/* Another living VM that is registered on the LU of node; NULL: none. */
HfVm *hf_vm_find_rival (HfVm *vm, const HfVmNode *node);
/* All nodes that vm's Save or Load was of are other's too. */
gboolean hf_vm_shares_nodes (HfVm *vm, HfVm *other);
/* vm does not hold anything any more. */
void hf_vm_forget_held (HfVm *vm);
/* What other VMs hold, of HfLuIdentity. */
GArray *hf_vm_list_rivals (HfVm *vm);
/* Of HfHolding, for a job: copies of descriptors; device NULL where the process has to be asked. */
GPtrArray *hf_vm_get_holdings (HfVm *vm);
/* The unit attentions that a job met go to the guest. */
void hf_vm_owe (HfVm *vm, GPtrArray *holdings);
/* What a job found out, into the nodes. owed: unit attentions go to the guest. */
void hf_vm_take_holdings (HfVm *vm, GPtrArray *holdings, gboolean owed);
/* All that the record of a Save or Load names: their commands may be QEMU's own. NULL: none is. */
void hf_vm_set_moved (HfVm *vm, const HfRecord *record);

/* ---- command.c ---- */
/* Commands that were held back go on, if they may. */
void hf_vm_release_waiting (HfVm *vm);
/* At the end of the program. */
void hf_vm_leave_commands (HfVm *vm);

/* ---- vm-operation.c ---- */
/* record: of LOAD and CHECK; else NULL. done may be NULL. */
void hf_vm_operate (HfVm *vm, HfOperationKind kind, GBytes *record, HfOnChange on_change, HfVmDone done, gpointer user_data);
/* One of this kind waits or runs. */
gboolean hf_vm_is_operating (HfVm *vm, HfOperationKind kind);
/* Starts the next operation if it may start now; without one, commands that waited go on. */
void hf_vm_work (HfVm *vm);

/* ---- vm-phase.c ---- */
void hf_vm_set_phase (HfVm *vm, HfVmPhase phase, GBytes *record);
/* The VM runs here, or will in a moment, as a sign or a command of its QEMU tells. certain: no command of QEMU's own comes any
   more. TRUE: an operation was started that comes first. */
gboolean hf_vm_runs (HfVm *vm, gboolean certain);
/* No command of QEMU's own comes any more. */
void hf_vm_close_window (HfVm *vm);
void hf_vm_ended (HfVm *vm);
/* After a restart of the helper: what the journal says goes on. */
void hf_vm_restored (HfVm *vm);
/* An operation has ended, and the phase is what it made it: what comes next, and when. */
void hf_vm_after (HfVm *vm, HfOperationKind kind, const GError *error);
gboolean hf_vms_tick (gpointer vms);
