/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The VMs: who they are, what they hold, where their migration stands, and what comes between a guest's command and its device.
 *
 * A VM is a client process, by process id and start time. It lives from its first connection to the end of the process, and
 * longer if something is left to do for it. Thread: main; work that blocks runs as jobs elsewhere and comes back as messages.
 */

#include "prhelper/migrate.h"
#include "prhelper/queue.h"
#include "prhelper/store.h"

typedef struct {
  gboolean share_nexus; /* --shared-nexus=allow */
  gboolean migrates;    /* a Save may come: clients are remembered, and what cannot follow a VM is hidden */
  HfOnChange on_change; /* of Load */
  guint timeout_ms;     /* of each phase of a move */
  guint commit_warn_ms;
  const char *const *device_globs; /* NULL: devices are those of the process */
  const char *state_dir;           /* NULL: nothing is kept */
} HfVmsRules;

typedef struct _HfVms HfVms;
typedef struct _HfVm HfVm;
typedef struct _HfCommand HfCommand;

/* queue, store (NULL: none) and rules must live longer. */
HfVms *hf_vms_new (const HfVmsRules *rules, HfQueue *queue, HfStore *store);
/* What is at work is left behind, for the journal. NULL is accepted. */
void hf_vms_free (HfVms *vms);
/* Takes up what the store knows; call once, before the first client. */
gboolean hf_vms_restore (HfVms *vms, GError **error);

/* ---- clients ---- */

/* A connection of this process came, or went. */
HfVm *hf_vms_connect (HfVms *vms, const HfPeer *peer);
void hf_vms_disconnect (HfVms *vms, HfVm *vm);

/* One guest command. As hf_queue_submit_to, whose rules hold for the parameters, descriptor being a device's; done is called on
   the main context, never inside this call. Never NULL: what cannot be sent is answered BUSY. */
typedef void (*HfCommandDone) (HfCommand *command, gpointer user_data);
HfCommand *hf_vm_submit (HfVm *vm, HfProtocolRequest *request, int descriptor, const HfQueueNode *node, gint64 deadline,
                         HfCommandDone done, gpointer user_data);
/* CLEANUP, FFh: QEMU says that the migration is done. Takes over descriptor. */
void hf_vm_cleanup (HfVm *vm, int descriptor);
/* FALSE: nothing was sent to the device, and after hf_command_abandon nothing will be. TRUE: it may have been sent. */
gboolean hf_command_has_begun (const HfCommand *command);
void hf_command_abandon (HfCommand *command);
/* Valid inside done, the request also before. */
const HfProtocolRequest *hf_command_get_request (const HfCommand *command);
const HfSgioAnswer *hf_command_get_answer (const HfCommand *command);
const guint8 *hf_command_get_data (const HfCommand *command);
char *hf_command_name_device (const HfCommand *command); /* "block 8:16", for the log; at any time; free with g_free */

/* ---- signs of where a VM runs, from a monitor ---- */

typedef enum {
  HF_SIGN_RUNS,           /* query-status says running, at the start or after RESUME */
  HF_SIGN_FAILED,         /* MIGRATION failed or cancelled, of either direction */
  HF_SIGN_INCOMING_FAILED /* the same, and query-status says inmigrate: what comes in has failed */
} HfSign;
void hf_vm_sign (HfVm *vm, HfSign sign);

/* ---- migration; done on the main context, never inside the call ---- */

typedef struct {
  GBytes *record;   /* of a save */
  HfReport *report; /* of the others; may be NULL with an error */
} HfVmOutcome;
typedef void (*HfVmDone) (HfVm *vm, const HfVmOutcome *outcome, const GError *error, gpointer user_data);

void hf_vm_save (HfVm *vm, HfVmDone done, gpointer user_data);
void hf_vm_load (HfVm *vm, GBytes *record, HfOnChange on_change, HfVmDone done, gpointer user_data);
void hf_vm_check (HfVm *vm, GBytes *record, HfVmDone done, gpointer user_data);
/* With the record of its last Save. */
void hf_vm_release (HfVm *vm, HfVmDone done, gpointer user_data);
void hf_vm_reclaim (HfVm *vm, HfVmDone done, gpointer user_data);

/* ---- looking ---- */

/* The VM whose process this is; NULL: none. start_time 0 finds none. */
HfVm *hf_vms_find_process (HfVms *vms, pid_t pid, guint64 start_time);
/* By name, uuid or "pid:N". NULL with G_IO_ERROR_NOT_FOUND, or G_IO_ERROR_EXISTS if several have it. */
HfVm *hf_vms_find (HfVms *vms, const char *name, GError **error);
/* Of HfVm, not owned; free with g_ptr_array_unref. */
GPtrArray *hf_vms_list (HfVms *vms);

const HfPeer *hf_vm_get_peer (HfVm *vm);
const char *hf_vm_get_name (HfVm *vm); /* "NAME", or "pid:N" without one */
const char *hf_vm_get_uuid (HfVm *vm); /* or NULL */
gboolean hf_vm_is_alive (HfVm *vm);
guint hf_vm_get_connections (HfVm *vm);
/* A copy of what is known; free with hf_vm_image_free. */
HfVmImage *hf_vm_get_image (HfVm *vm);

/* Counters for --metrics and list. */
typedef struct {
  guint64 commands[9][4]; /* PERSISTENT RESERVE OUT by service action; by answer: GOOD, RESERVATION CONFLICT, other, none */
  guint64 reads;          /* PERSISTENT RESERVE IN */
  guint64 conflicts;      /* answered by the rule of the shared nexus */
  guint64 saves, loads, refused, rolled_back;
  gint64 last_gap_us; /* of the last reclaim: from Save to the end of it; -1: none */
} HfVmCounters;
const HfVmCounters *hf_vm_get_counters (HfVm *vm);

/* One line for each change of state: for the log, watchers and metrics. */
typedef struct {
  const char *operation; /* "register", "save", "load", "commit", "abort", "release", "reclaim", "connect", "end" ... */
  const char *lu;        /* hf_lu_identity_to_string; NULL: the VM as a whole */
  const char *result;    /* "GOOD", a verdict, or an error */
  gboolean warning;
  gboolean guest; /* operation is a command of the guest's */
} HfVmEvent;
typedef void (*HfVmWatcher) (HfVm *vm, const HfVmEvent *event, gpointer user_data);
/* Replaces the watchers that were set before; those of an array that ends with function NULL are called in order. */
typedef struct {
  HfVmWatcher function;
  gpointer user_data;
} HfVmWatch;
void hf_vms_set_watchers (HfVms *vms, const HfVmWatch *watchers);
/* Called when a VM appears (alive) and when its process has ended. */
void hf_vms_set_lifecycle (HfVms *vms, void (*function) (HfVm *vm, gboolean alive, gpointer user_data), gpointer user_data);
