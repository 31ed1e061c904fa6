/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns: Save, Load and the other operations on a VM's LUs, one at a time for each VM. Thread: main; job_run and what it calls are
 * on a thread of the operation's own.
 *
 * Theory of operation: an operation waits until no command of its VM is on its way, and while one waits or runs, commands wait.
 * So a VM's LUs are touched by its guest or by us, never by both. A job owns all it needs: copies of descriptors, of what is
 * held, of rules. What it found out is taken over when it comes back, written to the journal, and only then answered.
 *
 * Before a Load the journal says that there is one: whoever comes after a crash takes it back.
 */
#include "config.h"

#include "prhelper/vm-private.h"

#include <errno.h>
#include <fcntl.h>
#include <gio/gio.h>
#include <string.h>
#include <unistd.h>

struct _HfOperation {
  HfOperationKind kind;
  HfVm *vm;
  GBytes *bytes; /* the record it works with, encoded; NULL with SAVE */
  HfVmDone done;
  gpointer user_data;
  gboolean running, has_prelude;
  gboolean began;    /* a Load: the phase says so */
  gint64 guest_time; /* at the start */

  /* The job's. */
  HfMigrateOptions options;
  HfPeer peer;
  int pidfd; /* -1: the process has ended, or cannot be seen */
  gboolean alive, adopt;
  char **globs; /* NULL: none */
  char *label;
  GPtrArray *holdings;
  GArray *rivals; /* of HfLuIdentity: LUs of other VMs; with adopt */
  HfRecord *record;
  GPtrArray *unplugged; /* of HfHolding: the VM does not have the node open any more */
  HfLoad *load;
  HfReport *report;
  GError *error;
};

/* ---- on a thread ---- */

static HfHolding *
find_holding (GPtrArray *holdings, const HfDevice *device)
{
  for (guint i = 0; i < holdings->len; i++)
    if (hf_device_equal (((HfHolding *)holdings->pdata[i])->device, device))
      return holdings->pdata[i];
  return NULL;
}

/* devices: emptied. */
static void
merge (HfOperation *operation, GPtrArray *devices)
{
  g_ptr_array_set_free_func (devices, NULL);
  for (guint i = 0; i < devices->len; i++) {
    HfDevice *device = devices->pdata[i];
    HfHolding *holding = find_holding (operation->holdings, device);

    if (!holding) {
      g_ptr_array_add (operation->holdings, hf_holding_new (device));
      continue;
    }
    if (holding->device->fd < 0) {
      HfDevice *number_only = holding->device;

      holding->device = device;
      device = number_only;
    }
    hf_device_free (device);
  }
  g_ptr_array_set_size (devices, 0);
}

/* A node of this machine with the identity, for a process that has ended; that it is the LU is proved again later. */
static void
add_by_identity (HfOperation *operation, const HfLuIdentity *identity)
{
  g_auto (GStrv) paths = hf_lu_find_devices (identity, NULL);
  g_autoptr (GPtrArray) devices = NULL;

  if (!paths)
    return;
  devices = hf_devices_of_globs ((const char *const *)paths, NULL);
  if (devices)
    merge (operation, devices);
}

/* Nodes of which only the number is known. all: also those through which something is held. */
static void
drop_numbers (GPtrArray *holdings, gboolean all)
{
  for (guint i = holdings->len; i-- > 0;) {
    HfHolding *holding = holdings->pdata[i];

    if (holding->device->fd < 0 && (all || (holding->state.key == 0 && !holding->state.uncertain)))
      g_ptr_array_remove_index (holdings, i);
  }
}

/* The devices to work on. FALSE: they cannot be had. */
static gboolean
gather (HfOperation *operation, GError **error)
{
  g_autoptr (GPtrArray) devices = NULL;
  g_autoptr (GError) failure = NULL;
  gboolean complete = FALSE; /* what is not among the devices is not open any more */

  if (operation->globs) {
    devices = hf_devices_of_globs ((const char *const *)operation->globs, NULL);
  } else if (operation->alive && operation->pidfd >= 0) {
    devices = hf_devices_of_process (&operation->peer, operation->pidfd, &complete, &failure);
  } else if (operation->record) {
    for (guint i = 0; i < operation->record->n_units; i++)
      if (operation->record->units[i].key)
        add_by_identity (operation, &operation->record->units[i].identity);
  }
  if (devices)
    merge (operation, devices);
  /* A Save is of everything that is held; the others find out themselves whether an LU of their record is missing. */
  drop_numbers (operation->holdings, operation->kind != HF_OPERATION_SAVE);
  for (guint i = operation->holdings->len; i-- > 0;) {
    HfHolding *holding = operation->holdings->pdata[i];

    if (holding->device->fd >= 0)
      continue;
    if (complete) {
      g_ptr_array_add (operation->unplugged, g_ptr_array_steal_index (operation->holdings, i));
      continue;
    }
    g_set_error (error, HF_MIGRATE_ERROR, HF_MIGRATE_ERROR_NOT_FOUND, "%s is held and cannot be reached: %s",
                 holding->device->name, failure ? failure->message : "the VM does not have it open any more");
    return FALSE;
  }
  /* With devices of its own the job can go on; without any it must say why. */
  if (!failure || operation->holdings->len)
    return TRUE;
  g_propagate_error (error, g_steal_pointer (&failure));
  return FALSE;
}

/* What is registered on an LU that another VM of ours uses is not to be adopted. */
static void
drop_rivals (HfOperation *operation)
{
  hf_migrate_identify (operation->holdings, operation->options.timeout_ms);
  for (guint i = operation->holdings->len; i-- > 0;) {
    const HfHolding *holding = operation->holdings->pdata[i];
    gboolean rival = FALSE;

    for (guint j = 0; j < operation->rivals->len && holding->identified && !holding->tracked; j++)
      rival |= hf_lu_identity_equal (&holding->identity, &g_array_index (operation->rivals, HfLuIdentity, j));
    if (rival)
      g_ptr_array_remove_index (operation->holdings, i);
  }
}

static gboolean
run_save (HfOperation *operation)
{
  g_autoptr (HfRecord) record = NULL;

  if (!gather (operation, &operation->error))
    return FALSE;
  if (operation->adopt)
    drop_rivals (operation);
  record = hf_migrate_save (operation->label, operation->holdings, operation->adopt, &operation->options, &operation->error);
  if (!record)
    return FALSE;
  operation->bytes = hf_record_encode (record, &operation->error);
  operation->record = g_steal_pointer (&record);
  return operation->bytes != NULL;
}

/* TRUE: load is there, perhaps made anew from the record: after a restart, or after a try that failed. */
static gboolean
need_load (HfOperation *operation)
{
  if (operation->load)
    return TRUE;
  if (!gather (operation, &operation->error))
    return FALSE;
  operation->load =
      hf_load_new (g_steal_pointer (&operation->record), g_steal_pointer (&operation->holdings), &operation->options);
  return TRUE;
}

static gboolean
is_empty (const HfRecord *record)
{
  for (guint i = 0; i < record->n_units; i++)
    if (record->units[i].key)
      return FALSE;
  return TRUE;
}

static gboolean
run_load (HfOperation *operation)
{
  /* Nothing to look for: a QEMU whose devices cannot be seen may still load what holds nothing. */
  if (is_empty (operation->record)) {
    operation->load =
        hf_load_new (g_steal_pointer (&operation->record), g_steal_pointer (&operation->holdings), &operation->options);
    return hf_load_run (operation->load, &operation->report, &operation->error);
  }
  return need_load (operation) && hf_load_run (operation->load, &operation->report, &operation->error);
}

static gboolean
run_check (HfOperation *operation)
{
  return need_load (operation) && hf_load_check (operation->load, &operation->report, &operation->error);
}

static gboolean
run_commit (HfOperation *operation)
{
  return need_load (operation) && hf_load_commit (operation->load, &operation->report, &operation->error);
}

static gboolean
run_abort (HfOperation *operation)
{
  return need_load (operation) && hf_load_abort (operation->load, &operation->report, &operation->error);
}

static gboolean
run_release (HfOperation *operation)
{
  return gather (operation, &operation->error)
         && hf_migrate_release (operation->record, operation->holdings, &operation->options, &operation->report,
                                &operation->error);
}

static gboolean
run_reclaim (HfOperation *operation)
{
  return gather (operation, &operation->error)
         && hf_migrate_reclaim (operation->record, operation->holdings, &operation->options, &operation->report,
                                &operation->error);
}

static void
ensure_error (HfOperation *operation, gboolean done)
{
  if (!done && !operation->error)
    operation->error = g_error_new_literal (HF_MIGRATE_ERROR, HF_MIGRATE_ERROR_REFUSED, "not done");
}

/* ---- on the main thread: what each result means ---- */

/* Descriptors of other LUs are not kept open for nothing. */
static GPtrArray *
keep_moved (GPtrArray *holdings, const HfRecord *record)
{
  for (guint i = holdings->len; i-- > 0;) {
    const HfHolding *holding = holdings->pdata[i];
    const HfPrSaved *saved = holding->identified ? hf_record_find (record, &holding->identity, NULL) : NULL;

    if (!saved || saved->key == 0)
      g_ptr_array_remove_index (holdings, i);
  }
  return holdings;
}

/* What the guest registered there stays on the LU; it cannot follow the VM, which does not have the disk any more. */
static void
forget_unplugged (HfOperation *operation)
{
  HfVm *vm = operation->vm;

  for (guint i = 0; operation->unplugged && i < operation->unplugged->len; i++) {
    const HfHolding *holding = operation->unplugged->pdata[i];
    HfVmNode *node = hf_vm_find_node (vm, holding->device->block, holding->device->major, holding->device->minor);

    if (!node)
      continue;
    hf_vm_tell (vm, "save", node->lu, "not saved: the VM does not have it open any more; its registration stays", TRUE);
    hf_vm_discard_device (vm, g_steal_pointer (&node->device));
    g_ptr_array_remove_fast (vm->nodes, node);
  }
}

static gboolean
has_ever_sent (const HfVmCounters *counters)
{
  guint64 n = counters->reads;

  for (guint i = 0; i < G_N_ELEMENTS (counters->commands); i++)
    for (guint j = 0; j < G_N_ELEMENTS (counters->commands[i]); j++)
      n += counters->commands[i][j];
  return n > 0;
}

/* What somebody who wonders why nothing moved wants to know. */
static void
explain_save (HfOperation *operation)
{
  HfVm *vm = operation->vm;

  for (guint i = 0; i < operation->holdings->len; i++) {
    const HfHolding *holding = operation->holdings->pdata[i];
    const HfVmNode *node = hf_vm_find_node (vm, holding->device->block, holding->device->major, holding->device->minor);

    if (node && node->state.key && holding->state.key == 0 && !holding->state.uncertain)
      hf_vm_tell (vm, "save", node->lu, "its key is not on the LU any more: others removed it", TRUE);
  }
  if (is_empty (operation->record) && !has_ever_sent (&vm->counters))
    hf_vm_tell (vm, "save", NULL, "nothing is held, and no PERSISTENT RESERVE command of this VM was seen", FALSE);
}

static void
after_save (HfOperation *operation)
{
  HfVm *vm = operation->vm;

  vm->counters.saves += !operation->error;
  forget_unplugged (operation);
  if (operation->error) {
    hf_vm_owe (vm, operation->holdings);
    return;
  }
  explain_save (operation);
  hf_vm_take_holdings (vm, operation->holdings, TRUE);
  vm->incomplete = FALSE;
  hf_vm_set_moved (vm, operation->record);
  if (is_empty (operation->record)) {
    hf_vm_set_phase (vm, HF_VM_IDLE, NULL);
    return;
  }
  hf_vm_set_phase (vm, HF_VM_SAVED, operation->bytes);
  vm->kept = keep_moved (g_steal_pointer (&operation->holdings), operation->record);
  vm->guest_time = operation->guest_time;
  vm->window = TRUE;
}

static void
after_load (HfOperation *operation)
{
  HfVm *vm = operation->vm;

  vm->counters.loads++;
  vm->counters.refused += operation->error != NULL;
  if (operation->error) {
    if (operation->load && hf_load_is_pending (operation->load)) {
      /* Not all could be taken back. */
      vm->load = g_steal_pointer (&operation->load);
      hf_vm_operate (vm, HF_OPERATION_ABORT, NULL, HF_ON_CHANGE_ADOPT, NULL, NULL);
    } else if (operation->began) {
      hf_vm_set_phase (vm, HF_VM_IDLE, NULL);
    }
    return;
  }
  hf_vm_take_holdings (vm, hf_load_get_holdings (operation->load), FALSE);
  vm->incomplete = FALSE;
  hf_vm_set_moved (vm, hf_load_get_record (operation->load));
  if (is_empty (hf_load_get_record (operation->load))) {
    hf_vm_set_phase (vm, HF_VM_IDLE, NULL);
  } else {
    hf_vm_set_phase (vm, HF_VM_PREPARED, operation->bytes);
    vm->load = g_steal_pointer (&operation->load);
  }
  vm->guest_time = vm->alive ? hf_process_get_guest_time (&vm->peer) : -1;
  vm->window = vm->alive && vm->phase != HF_VM_IDLE;
}

/* After a migration on this host, through the same nodes, the process that the VM left holds nothing any more. */
static void
settle_source_here (HfOperation *operation)
{
  HfVm *vm = operation->vm;
  g_autoptr (GPtrArray) list = hf_vms_list (vm->vms);

  for (guint i = 0; i < list->len; i++) {
    HfVm *other = list->pdata[i];

    if (other == vm || other->phase != HF_VM_SAVED || !g_bytes_equal (other->record, operation->bytes)
        || !g_queue_is_empty (&other->operations) || !hf_vm_shares_nodes (other, vm))
      continue;
    hf_vm_tell (other, "release", NULL, "not needed: the VM runs in another process of this host", FALSE);
    hf_vm_forget_held (other);
    hf_vm_set_phase (other, HF_VM_IDLE, NULL);
    hf_vm_close_window (other);
    hf_vm_store (other, TRUE, NULL, NULL);
    hf_vm_check_end (other);
  }
}

static void
after_commit (HfOperation *operation)
{
  HfVm *vm = operation->vm;

  if (operation->error) {
    vm->load = g_steal_pointer (&operation->load); /* for another try */
    return;
  }
  hf_vm_take_holdings (vm, hf_load_get_holdings (operation->load), TRUE);
  settle_source_here (operation);
  hf_vm_set_phase (vm, HF_VM_IDLE, NULL);
}

static void
after_abort (HfOperation *operation)
{
  HfVm *vm = operation->vm;

  if (operation->error) {
    vm->load = g_steal_pointer (&operation->load); /* with its descriptors, for another try */
    return;
  }
  vm->counters.rolled_back++;
  hf_vm_take_holdings (vm, hf_load_get_holdings (operation->load), FALSE);
  hf_vm_set_phase (vm, HF_VM_IDLE, NULL);
  hf_vm_close_window (vm);
}

static void
after_release (HfOperation *operation)
{
  HfVm *vm = operation->vm;

  if (operation->error) {
    if (!vm->kept)
      vm->kept = g_steal_pointer (&operation->holdings);
    return;
  }
  hf_vm_take_holdings (vm, operation->holdings, FALSE);
  hf_vm_set_phase (vm, HF_VM_IDLE, NULL);
  hf_vm_close_window (vm);
}

static void
after_reclaim (HfOperation *operation)
{
  HfVm *vm = operation->vm;
  g_autofree char *text = NULL;

  if (operation->error)
    return;
  hf_vm_take_holdings (vm, operation->holdings, TRUE);
  vm->counters.rolled_back++;
  vm->counters.last_gap_us = g_get_monotonic_time () - vm->phase_since;
  text = g_strdup_printf ("done %" G_GINT64_FORMAT " ms after the Save", vm->counters.last_gap_us / 1000);
  hf_vm_tell (vm, "reclaim", NULL, text, FALSE);
  hf_vm_set_phase (vm, HF_VM_IDLE, NULL);
}

static void
after_check (HfOperation *operation)
{
  if (operation->load)
    hf_vm_owe (operation->vm, hf_load_get_holdings (operation->load));
}

typedef struct {
  const char *name;
  gboolean (*run) (HfOperation *operation); /* on a thread */
  void (*after) (HfOperation *operation);   /* on the main thread; error tells whether it was done */
  gboolean needs_load, stores;              /* of the VM; the image is written afterwards */
  HfVmPhase first, last;                    /* in which there is something to do */
  gboolean needs_record;                    /* the VM's own */
} Kind;

static const Kind kinds[] = {
  [HF_OPERATION_SAVE] = { "save", run_save, after_save, FALSE, TRUE, HF_VM_IDLE, HF_VM_IDLE, FALSE },
  [HF_OPERATION_LOAD] = { "load", run_load, after_load, FALSE, TRUE, HF_VM_IDLE, HF_VM_IDLE, FALSE },
  [HF_OPERATION_CHECK] = { "check", run_check, after_check, FALSE, FALSE, HF_VM_IDLE, HF_VM_PREPARED, FALSE },
  [HF_OPERATION_COMMIT] = { "commit", run_commit, after_commit, TRUE, TRUE, HF_VM_PREPARED, HF_VM_PREPARED, TRUE },
  [HF_OPERATION_ABORT] = { "abort", run_abort, after_abort, TRUE, TRUE, HF_VM_LOADING, HF_VM_PREPARED, TRUE },
  [HF_OPERATION_RELEASE] = { "release", run_release, after_release, FALSE, TRUE, HF_VM_SAVED, HF_VM_SAVED, TRUE },
  [HF_OPERATION_RECLAIM] = { "reclaim", run_reclaim, after_reclaim, FALSE, TRUE, HF_VM_SAVED, HF_VM_SAVED, TRUE },
};
G_STATIC_ASSERT (G_N_ELEMENTS (kinds) == HF_N_OPERATIONS);

/* ---- the course of one ---- */

static void
operation_free (HfOperation *operation)
{
  g_clear_pointer (&operation->bytes, g_bytes_unref);
  hf_free_elsewhere (operation->holdings);
  g_clear_pointer (&operation->unplugged, g_ptr_array_unref);
  g_clear_pointer (&operation->rivals, g_array_unref);
  g_clear_pointer (&operation->record, hf_record_free);
  g_strfreev (operation->globs);
  hf_load_free (operation->load);
  g_clear_pointer (&operation->report, hf_report_free);
  g_clear_error (&operation->error);
  if (operation->pidfd >= 0)
    close (operation->pidfd);
  g_free (operation->label);
  g_free ((char *)operation->options.state_dir);
  g_free (operation);
}

static void
tell_result (HfOperation *operation)
{
  const char *name = kinds[operation->kind].name;

  for (guint i = 0; operation->report && i < operation->report->n_lus; i++) {
    const HfLuReport *lu = &operation->report->lus[i];
    g_autofree char *text = g_strdup_printf ("%s%s%s%s", hf_verdict_to_string (lu->verdict), lu->prepared ? ", prepared" : "",
                                             lu->text ? ": " : "", lu->text ? lu->text : "");

    hf_vm_tell (operation->vm, name, lu->name, text, lu->warning);
  }
  hf_vm_tell (operation->vm, name, NULL, operation->error ? operation->error->message : "done", operation->error != NULL);
}

/* A Load that the journal does not have would be taken back by a helper that is restarted: it is taken back now. A Save that it
   does not have could not be reclaimed. */
static void
fail_unstored (HfOperation *operation, const GError *not_stored)
{
  HfVm *vm = operation->vm;

  if (!not_stored || operation->error || (operation->kind != HF_OPERATION_LOAD && operation->kind != HF_OPERATION_SAVE))
    return;
  g_set_error (&operation->error, HF_MIGRATE_ERROR, HF_MIGRATE_ERROR_REFUSED, "the journal cannot be written: %s",
               not_stored->message);
  if (operation->kind == HF_OPERATION_SAVE)
    hf_vm_set_phase (vm, HF_VM_IDLE, NULL);
  else if (vm->phase == HF_VM_PREPARED)
    hf_vm_operate (vm, HF_OPERATION_ABORT, NULL, HF_ON_CHANGE_ADOPT, NULL, NULL);
}

/* The journal has it: now it may be answered. */
static void
conclude (const GError *not_stored, gpointer user_data)
{
  HfOperation *operation = user_data;
  HfVm *vm = operation->vm;
  HfVmOutcome outcome = { operation->kind == HF_OPERATION_SAVE ? operation->bytes : NULL, operation->report };

  if (vm->orphan) {
    operation_free (operation);
    hf_vm_unref (vm);
    return;
  }
  fail_unstored (operation, not_stored);
  if (operation->done)
    operation->done (vm, &outcome, operation->error, operation->user_data);
  g_queue_pop_head (&vm->operations);
  hf_vm_after (vm, operation->kind, operation->error);
  operation_free (operation);
  hf_vm_drop_empty_nodes (vm);
  hf_vm_work (vm);
  hf_vm_check_end (vm);
  hf_vm_unref (vm);
}

static gboolean
on_job_done (gpointer user_data)
{
  HfOperation *operation = user_data;
  const Kind *kind = &kinds[operation->kind];

  if (operation->vm->orphan) {
    conclude (NULL, operation);
    return G_SOURCE_REMOVE;
  }
  kind->after (operation);
  tell_result (operation);
  if (kind->stores)
    hf_vm_store (operation->vm, TRUE, conclude, operation);
  else
    conclude (NULL, operation);
  return G_SOURCE_REMOVE;
}

static gpointer
job_run (gpointer data)
{
  HfOperation *operation = data;

  ensure_error (operation, kinds[operation->kind].run (operation));
  /* Not invoke, which would call it here while nobody runs the loop (prhelper/loop.h). */
  g_idle_add_full (G_PRIORITY_DEFAULT, on_job_done, operation, NULL);
  return NULL;
}

static void
start_job (const GError *not_stored, gpointer user_data)
{
  HfOperation *operation = user_data;
  GThread *thread = NULL;

  if (not_stored)
    g_set_error (&operation->error, HF_MIGRATE_ERROR, HF_MIGRATE_ERROR_REFUSED, "the journal cannot be written: %s",
                 not_stored->message);
  else
    thread = g_thread_try_new ("operation", job_run, operation, &operation->error);
  if (thread)
    g_thread_unref (thread);
  else
    g_idle_add_full (G_PRIORITY_DEFAULT, on_job_done, operation, NULL);
}

static void
fill_in (HfOperation *operation)
{
  HfVm *vm = operation->vm;
  const Kind *kind = &kinds[operation->kind];

  operation->peer = vm->peer;
  operation->alive = vm->alive;
  operation->pidfd = vm->alive && vm->pidfd >= 0 ? fcntl (vm->pidfd, F_DUPFD_CLOEXEC, 3) : -1;
  operation->adopt = vm->incomplete;
  operation->rivals = vm->incomplete ? hf_vm_list_rivals (vm) : NULL;
  operation->label = g_strdup (vm->label);
  operation->options.timeout_ms = vm->vms->rules.timeout_ms;
  operation->options.state_dir = g_strdup (vm->vms->rules.state_dir);
  operation->globs = g_strdupv ((char **)vm->vms->rules.device_globs);
  operation->guest_time = vm->alive ? hf_process_get_guest_time (&vm->peer) : -1;
  if (kind->needs_load)
    operation->load = g_steal_pointer (&vm->load);
  if (operation->kind == HF_OPERATION_RELEASE && vm->kept)
    operation->holdings = g_steal_pointer (&vm->kept);
  if (!operation->holdings)
    operation->holdings = hf_vm_get_holdings (vm);
  operation->unplugged = g_ptr_array_new_with_free_func ((GDestroyNotify)hf_holding_free);
}

/* FALSE: it is not for this phase, or has nothing to work with. */
static gboolean
find_record (HfOperation *operation)
{
  HfVm *vm = operation->vm;
  const Kind *kind = &kinds[operation->kind];

  if (vm->phase < kind->first || vm->phase > kind->last) {
    operation->error = g_error_new (HF_MIGRATE_ERROR, HF_MIGRATE_ERROR_REFUSED,
                                    kind->needs_record ? "%s: no migration of this VM waits for it"
                                                       : "%s: an earlier migration of this VM is not settled",
                                    kind->name);
    return FALSE;
  }
  for (guint i = 0; i < vm->nodes->len && operation->kind == HF_OPERATION_SAVE; i++) {
    const HfVmNode *node = vm->nodes->pdata[i];

    if (node->at_device == 0)
      continue;
    operation->error = g_error_new (HF_MIGRATE_ERROR, HF_MIGRATE_ERROR_SAVE,
                                    "%s: a command of the guest that got no answer is still at the device", node->lu);
    return FALSE;
  }
  if (kind->needs_record) {
    g_clear_pointer (&operation->bytes, g_bytes_unref);
    operation->bytes = g_bytes_ref (vm->record);
  }
  if (!operation->bytes)
    return TRUE;
  operation->record =
      hf_record_decode (g_bytes_get_data (operation->bytes, NULL), g_bytes_get_size (operation->bytes), &operation->error);
  return operation->record != NULL;
}

static void
start (HfOperation *operation)
{
  HfVm *vm = operation->vm;

  operation->running = TRUE;
  hf_vm_ref (vm);
  if (!find_record (operation)) {
    g_idle_add_full (G_PRIORITY_DEFAULT, on_job_done, operation, NULL);
    return;
  }
  fill_in (operation);
  if (operation->kind != HF_OPERATION_LOAD) {
    start_job (NULL, operation);
    return;
  }
  operation->began = TRUE;
  hf_vm_set_phase (vm, HF_VM_LOADING, operation->bytes);
  hf_vm_store (vm, TRUE, start_job, operation);
}

static HfOperation *
operation_new (HfVm *vm, HfOperationKind kind, GBytes *record, HfOnChange on_change)
{
  HfOperation *operation = g_new0 (HfOperation, 1);

  operation->kind = kind;
  operation->vm = vm;
  operation->bytes = record ? g_bytes_ref (record) : NULL;
  operation->options.on_change = on_change;
  operation->pidfd = -1;
  return operation;
}

/* What has to end before a Save or a Load: who calls for one proves that the VM is here, and that what came before is over. */
static const struct {
  gboolean has;
  HfOperationKind kind;
} preludes[HF_N_VM_PHASES][2] = {
  [HF_VM_SAVED] = { { TRUE, HF_OPERATION_RECLAIM }, { TRUE, HF_OPERATION_RECLAIM } },
  [HF_VM_LOADING] = { { TRUE, HF_OPERATION_ABORT }, { TRUE, HF_OPERATION_ABORT } },
  [HF_VM_PREPARED] = { { TRUE, HF_OPERATION_COMMIT }, { TRUE, HF_OPERATION_ABORT } },
};

/* The operation to run now: one that comes before operation, or itself. */
static HfOperation *
find_first (HfVm *vm, HfOperation *operation)
{
  gboolean load = operation->kind == HF_OPERATION_LOAD;

  if ((!load && operation->kind != HF_OPERATION_SAVE) || operation->has_prelude || !preludes[vm->phase][load].has)
    return operation;
  operation->has_prelude = TRUE;
  hf_vm_close_window (vm);
  g_queue_push_head (&vm->operations, operation_new (vm, preludes[vm->phase][load].kind, NULL, HF_ON_CHANGE_ADOPT));
  return g_queue_peek_head (&vm->operations);
}

void
hf_vm_work (HfVm *vm)
{
  HfOperation *operation = g_queue_peek_head (&vm->operations);

  if (!operation)
    hf_vm_release_waiting (vm);
  else if (!operation->running && vm->at_work == 0)
    start (find_first (vm, operation));
}

void
hf_vm_operate (HfVm *vm, HfOperationKind kind, GBytes *record, HfOnChange on_change, HfVmDone done, gpointer user_data)
{
  HfOperation *operation = operation_new (vm, kind, record, on_change);

  operation->done = done;
  operation->user_data = user_data;
  g_queue_push_tail (&vm->operations, operation);
  hf_vm_work (vm);
}

gboolean
hf_vm_is_operating (HfVm *vm, HfOperationKind kind)
{
  for (GList *l = vm->operations.head; l; l = l->next)
    if (((HfOperation *)l->data)->kind == kind)
      return TRUE;
  return FALSE;
}

/* ---- for others ---- */

void
hf_vm_save (HfVm *vm, HfVmDone done, gpointer user_data)
{
  hf_vm_operate (vm, HF_OPERATION_SAVE, NULL, HF_ON_CHANGE_ADOPT, done, user_data);
}

void
hf_vm_load (HfVm *vm, GBytes *record, HfOnChange on_change, HfVmDone done, gpointer user_data)
{
  hf_vm_operate (vm, HF_OPERATION_LOAD, record, on_change, done, user_data);
}

void
hf_vm_check (HfVm *vm, GBytes *record, HfVmDone done, gpointer user_data)
{
  hf_vm_operate (vm, HF_OPERATION_CHECK, record, HF_ON_CHANGE_ADOPT, done, user_data);
}

void
hf_vm_release (HfVm *vm, HfVmDone done, gpointer user_data)
{
  hf_vm_operate (vm, HF_OPERATION_RELEASE, NULL, HF_ON_CHANGE_ADOPT, done, user_data);
}

void
hf_vm_reclaim (HfVm *vm, HfVmDone done, gpointer user_data)
{
  hf_vm_operate (vm, HF_OPERATION_RECLAIM, NULL, HF_ON_CHANGE_ADOPT, done, user_data);
}
