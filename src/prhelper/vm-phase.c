/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns: where a VM's migration stands, and what follows from a sign. Thread: main.
 *
 * Theory of operation:
 *
 *   phase      | the VM runs here        | the migration failed | the process ended
 *   idle       | -                       | -                    | forgotten
 *   saved      | reclaim, then idle      | reclaim, then idle   | release, then forgotten
 *   loading    | -                       | abort, then idle     | abort, then forgotten
 *   prepared   | commit, then idle       | abort, then idle     | abort, then forgotten
 *
 * Prepared is every Load that was answered, also where nothing is left to take over: then commit and abort find that.
 *
 * That a VM runs here is told by the monitor (RESUME), by a command that only a guest sends, by another Save of it, and by the
 * time that its threads spend running a virtual CPU: that clock stands still from the Save on the source and from the Load on the
 * destination until guest code runs there, and only the side on which it runs can move it. Time that passes tells nothing.
 *
 * An operation that failed is tried again, less and less often, as long as it can matter.
 */
#include "config.h"

#include "prhelper/vm-private.h"

#include <string.h>

#define ATTEMPTS_MAX 14
#define RETRY_FIRST_MS 1000
#define RETRY_MOST_MS 60000

typedef struct {
  HfOperationKind runs, failed, incoming_failed, ended;
  gboolean has_runs, has_failed, has_incoming_failed, has_ended;
} Consequence;

static const Consequence consequences[] = {
  [HF_VM_IDLE] = { 0 },
  [HF_VM_SAVED] = { .runs = HF_OPERATION_RECLAIM,
                    .failed = HF_OPERATION_RECLAIM,
                    .ended = HF_OPERATION_RELEASE,
                    .has_runs = TRUE,
                    .has_failed = TRUE,
                    .has_ended = TRUE },
  [HF_VM_LOADING] = { .incoming_failed = HF_OPERATION_ABORT,
                      .ended = HF_OPERATION_ABORT,
                      .has_incoming_failed = TRUE,
                      .has_ended = TRUE },
  [HF_VM_PREPARED] = { .runs = HF_OPERATION_COMMIT,
                       .incoming_failed = HF_OPERATION_ABORT,
                       .ended = HF_OPERATION_ABORT,
                       .has_runs = TRUE,
                       .has_incoming_failed = TRUE,
                       .has_ended = TRUE },
};
G_STATIC_ASSERT (G_N_ELEMENTS (consequences) == HF_N_VM_PHASES);

void
hf_vm_set_phase (HfVm *vm, HfVmPhase phase, GBytes *record)
{
  GBytes *old = vm->record;

  vm->record = record ? g_bytes_ref (record) : NULL;
  g_clear_pointer (&old, g_bytes_unref);
  vm->phase = phase;
  vm->phase_since = vm->warned_at = g_get_monotonic_time ();
  vm->attempts = 0;
  vm->not_before = 0;
  g_clear_handle_id (&vm->retry_source, g_source_remove);
  if (phase != HF_VM_SAVED)
    hf_free_elsewhere (g_steal_pointer (&vm->kept));
  if (phase != HF_VM_PREPARED)
    g_clear_pointer (&vm->load, hf_load_free);
  hf_vms_start_ticking (vm->vms);
}

static gboolean
start (HfVm *vm, HfOperationKind kind)
{
  if (g_get_monotonic_time () < vm->not_before)
    return FALSE;
  if (!hf_vm_is_operating (vm, kind))
    hf_vm_operate (vm, kind, NULL, HF_ON_CHANGE_ADOPT, NULL, NULL);
  return TRUE;
}

void
hf_vm_close_window (HfVm *vm)
{
  vm->window = FALSE;
  hf_vm_set_moved (vm, NULL);
}

gboolean
hf_vm_runs (HfVm *vm, gboolean certain)
{
  const Consequence *consequence = &consequences[vm->phase];

  if (certain)
    hf_vm_close_window (vm);
  return consequence->has_runs && start (vm, consequence->runs);
}

void
hf_vm_sign (HfVm *vm, HfSign sign)
{
  const Consequence *consequence = &consequences[vm->phase];

  /* Its QEMU did not wait for the answer. */
  if (sign == HF_SIGN_FAILED && hf_vm_is_operating (vm, HF_OPERATION_SAVE))
    vm->failed_meanwhile = TRUE;
  if (sign == HF_SIGN_RUNS)
    hf_vm_runs (vm, TRUE);
  else if (sign == HF_SIGN_FAILED && consequence->has_failed)
    start (vm, consequence->failed);
  else if (sign == HF_SIGN_INCOMING_FAILED && consequence->has_incoming_failed)
    start (vm, consequence->incoming_failed);
}

/* It went on in another process of this host, through the same nexus: nothing is left over. */
static gboolean
is_on_this_host (HfVm *vm)
{
  for (guint i = 0; i < vm->nodes->len; i++) {
    const HfVmNode *node = vm->nodes->pdata[i];

    if (node->moved_key && hf_vm_find_rival (vm, node))
      return TRUE;
  }
  return FALSE;
}

void
hf_vm_ended (HfVm *vm)
{
  const Consequence *consequence = &consequences[vm->phase];

  vm->not_before = 0;
  if (vm->phase == HF_VM_SAVED && is_on_this_host (vm)) {
    hf_vm_tell (vm, "release", NULL, "not needed: another VM of this host holds the LU", FALSE);
    hf_vm_set_phase (vm, HF_VM_IDLE, NULL);
  } else if (consequence->has_ended)
    start (vm, consequence->ended);
}

void
hf_vm_restored (HfVm *vm)
{
  vm->window = vm->phase != HF_VM_IDLE;
  if (!vm->alive)
    hf_vm_ended (vm);
  else if (vm->phase == HF_VM_LOADING)
    hf_vm_sign (vm, HF_SIGN_INCOMING_FAILED); /* its QEMU got no answer */
}

void
hf_vm_cleanup (HfVm *vm, int descriptor)
{
  hf_queue_discard (vm->vms->queue, &vm->peer, descriptor);
  if (vm->phase == HF_VM_SAVED)
    start (vm, HF_OPERATION_RELEASE);
}

/* ---- again ---- */

/* A release that is refused on a living source waits for its end; the others are tried again while they matter. */
static gboolean
is_worth_a_retry (const HfVm *vm, HfOperationKind kind)
{
  switch (kind) {
  case HF_OPERATION_COMMIT:
    return vm->phase == HF_VM_PREPARED;
  case HF_OPERATION_RECLAIM:
    return vm->phase == HF_VM_SAVED;
  case HF_OPERATION_RELEASE:
    return vm->phase == HF_VM_SAVED && !vm->alive;
  case HF_OPERATION_ABORT:
    return vm->phase == HF_VM_PREPARED || vm->phase == HF_VM_LOADING;
  case HF_OPERATION_SAVE:
  case HF_OPERATION_LOAD:
  case HF_OPERATION_CHECK:
  default:
    return FALSE;
  }
}

/* The same operation again: that it failed is no sign for another one. */
static gboolean
on_retry (gpointer user_data)
{
  HfVm *vm = hf_vm_ref (user_data);

  vm->retry_source = 0;
  vm->not_before = 0;
  if (!vm->alive && vm->phase == HF_VM_SAVED)
    hf_vm_ended (vm); /* by now another VM of this host may hold the LU */
  else if (is_worth_a_retry (vm, vm->retry_kind))
    start (vm, vm->retry_kind);
  hf_vm_check_end (vm);
  hf_vm_unref (vm);
  return G_SOURCE_REMOVE;
}

static void
retry_later (HfVm *vm, HfOperationKind kind)
{
  guint delay = RETRY_FIRST_MS << MIN (vm->attempts, 10);

  delay = MIN (delay, RETRY_MOST_MS);
  vm->retry_kind = kind;
  vm->attempts++;
  vm->not_before = g_get_monotonic_time () + (gint64)delay * 1000;
  g_clear_handle_id (&vm->retry_source, g_source_remove);
  vm->retry_source = g_timeout_add (delay, on_retry, vm);
}

/* The process has ended long ago. */
static void
give_up (HfVm *vm)
{
  hf_vm_tell (vm, "end", NULL, "given up until the helper is started again: the journal keeps its record", TRUE);
  vm->given_up = TRUE;
  hf_vm_set_phase (vm, HF_VM_IDLE, NULL);
  hf_vm_check_end (vm);
}

void
hf_vm_after (HfVm *vm, HfOperationKind kind, const GError *error)
{
  if (error && is_worth_a_retry (vm, kind)) {
    if (vm->attempts >= ATTEMPTS_MAX && !vm->alive)
      give_up (vm);
    else
      retry_later (vm, kind);
    return;
  }
  if (kind == HF_OPERATION_SAVE && vm->failed_meanwhile) {
    vm->failed_meanwhile = FALSE;
    hf_vm_sign (vm, HF_SIGN_FAILED);
  }
  if (!vm->alive && vm->phase != HF_VM_IDLE && g_queue_is_empty (&vm->operations))
    hf_vm_ended (vm);
}

/* ---- looking ---- */

static void
look (HfVm *vm)
{
  gint64 now = g_get_monotonic_time (), warn = (gint64)vm->vms->rules.commit_warn_ms * 1000;
  gint64 guest_time = vm->guest_time >= 0 ? hf_process_get_guest_time (&vm->peer) : -1;

  if (guest_time > vm->guest_time) {
    hf_vm_tell (vm, "runs", NULL, "guest code has run", FALSE);
    vm->guest_time = guest_time;
    hf_vm_runs (vm, TRUE);
  }
  if (vm->phase == HF_VM_PREPARED && warn && (!vm->load || hf_load_is_pending (vm->load)) && now - vm->warned_at >= warn) {
    vm->warned_at = now;
    hf_vm_tell (vm, "commit", NULL, "still waits for a proof that the VM runs here", TRUE);
  }
}

gboolean
hf_vms_tick (gpointer data)
{
  HfVms *vms = data;
  g_autoptr (GPtrArray) list = hf_vms_list (vms);
  gboolean again = FALSE;

  for (guint i = 0; i < list->len; i++) {
    HfVm *vm = list->pdata[i];
    gboolean waits = vm->alive && (vm->phase != HF_VM_IDLE || vm->window);

    if (waits && g_queue_is_empty (&vm->operations))
      look (vm);
    again |= hf_vm_look_for_end (hf_vm_ref (vm)) || waits;
    hf_vm_unref (vm);
  }
  if (!again)
    vms->tick_source = 0;
  return again ? G_SOURCE_CONTINUE : G_SOURCE_REMOVE;
}
