/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns: a guest's command from the request to the answer. Thread: main; the device is on the queue's.
 *
 * Theory of operation: a command goes through these stages, most of them through one:
 *
 *   waiting      an operation on the VM's LUs runs, or has to come first
 *   identifying  a REGISTER: whose LU is behind the node (INQUIRY, in the queue of the node)
 *   noting       a REGISTER of a new key: the journal has the key before the device has it
 *   at device    in the queue of the node
 *   learning     what the VM holds has changed: the journal has it before the guest knows
 *   answered     done is about to be called
 *
 * What is learnt comes from the status. A command whose client is gone goes on without it if it was sent, and is learnt from all
 * the same. Commands that are answered without a device: CHECK CONDITION with a unit attention that our own command met on the
 * guest's nexus, RESERVATION CONFLICT for a second VM on a nexus, and GOOD for what QEMU 11 asks and is done already.
 */
#include "config.h"

#include "prhelper/vm-private.h"

#include "base/deadline.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define SENSE_UNIT_ATTENTION 0x06
#define CDB_LENGTH 10

typedef enum { STAGE_WAITING, STAGE_IDENTIFYING, STAGE_NOTING, STAGE_AT_DEVICE, STAGE_LEARNING, STAGE_ANSWERED } Stage;

struct _HfCommand {
  HfVm *vm;
  Stage stage;
  HfProtocolRequest request;
  int descriptor; /* -1: handed on */
  gint64 deadline;
  HfQueueNode node;
  gboolean is_out, decoded, noted;
  HfPrOut out;
  HfJob *job;
  HfSgioAnswer answer;
  const guint8 *data; /* the job's */
  guint idle_source;
  GList link; /* in the VM's */
  gboolean at_work;
  HfCommandDone done; /* NULL: abandoned */
  gpointer user_data;
};

static void proceed (HfCommand *command);

/* ---- the end ---- */

static void
leave_work (HfCommand *command)
{
  if (!command->at_work)
    return;
  command->at_work = FALSE;
  command->vm->at_work--;
}

/* The device is others' again. */
static void
let_go (HfCommand *command)
{
  if (command->job)
    hf_queue_abandon (command->vm->vms->queue, command->job);
  command->job = NULL;
}

static void
command_free (HfCommand *command)
{
  HfVm *vm = command->vm;

  leave_work (command);
  g_queue_unlink (&vm->commands, &command->link);
  if (command->descriptor >= 0 && vm->orphan)
    close (command->descriptor);
  else if (command->descriptor >= 0)
    hf_queue_discard (vm->vms->queue, &vm->peer, command->descriptor);
  g_free (command->request.list);
  g_free (command);
  if (!vm->orphan) {
    hf_vm_drop_empty_nodes (vm);
    hf_vm_work (vm);
    hf_vm_check_end (vm);
  }
  hf_vm_unref (vm);
}

static void
finish (HfCommand *command)
{
  command->stage = STAGE_ANSWERED;
  command->job = NULL;
  leave_work (command);
  if (command->done)
    command->done (command, command->user_data);
  command_free (command);
}

static gboolean
on_answered (gpointer user_data)
{
  ((HfCommand *)user_data)->idle_source = 0;
  finish (user_data);
  return G_SOURCE_REMOVE;
}

/* The answer is there without a device. */
static void
answer (HfCommand *command)
{
  command->stage = STAGE_ANSWERED;
  let_go (command);
  leave_work (command);
  command->idle_source = g_idle_add_full (G_PRIORITY_DEFAULT, on_answered, command, NULL);
}

static void
answer_status (HfCommand *command, guint8 status)
{
  command->answer.status = status;
  answer (command);
}

static const char *
name_action (const HfCommand *command)
{
  return hf_pr_out_action_to_string (command->request.cdb[1] & 0x1f);
}

static HfVmNode *
find_node (const HfCommand *command)
{
  return hf_vm_find_node (command->vm, command->node.block, command->node.major, command->node.minor);
}

/* ---- learning ---- */

static void
count_answer (HfCommand *command, int status)
{
  HfVmCounters *counters = &command->vm->counters;
  guint action = command->request.cdb[1] & 0x1f;

  if (!command->is_out)
    counters->reads++;
  else if (action < G_N_ELEMENTS (counters->commands))
    counters->commands[action][status == HF_SAM_GOOD ? 0 : status == HF_SAM_RESERVATION_CONFLICT ? 1 : status >= 0 ? 2 : 3]++;
}

static void
on_learnt (const GError *error, gpointer user_data)
{
  finish (user_data);
}

/* A key that may become ours by this command. */
static gboolean
registers_new_key (const HfCommand *command, const HfVmNode *node)
{
  gboolean registers = command->out.action == HF_PR_OUT_REGISTER || command->out.action == HF_PR_OUT_REGISTER_AND_IGNORE
                       || command->out.action == HF_PR_OUT_REPLACE_LOST_RESERVATION;

  return command->decoded && registers && command->out.new_key != 0 && command->out.new_key != node->state.key;
}

/* Executed without our knowledge, it leaves a nexus that has no registration as it was. */
static gboolean
cannot_matter (const HfCommand *command, const HfVmNode *node)
{
  return command->decoded && node->state.key == 0 && !node->state.uncertain && !registers_new_key (command, node);
}

/* Executed, it leaves no registration. */
static gboolean
unregisters (const HfCommand *command)
{
  gboolean registers = command->out.action == HF_PR_OUT_REGISTER || command->out.action == HF_PR_OUT_REGISTER_AND_IGNORE;

  return command->out.action == HF_PR_OUT_CLEAR || (registers && command->out.new_key == 0);
}

/* What the VM holds through the node, by the answer. TRUE: it changed. */
static gboolean
learn (HfCommand *command, int status)
{
  HfVmNode *node = find_node (command);
  gboolean changed;

  if (!node || (status != HF_SAM_GOOD && cannot_matter (command, node)))
    return FALSE;
  if (command->decoded) {
    changed = hf_pr_state_learn (&node->state, &command->out, status);
    if (status == HF_SAM_GOOD && unregisters (command)) {
      changed |= node->state.uncertain;
      node->state.uncertain = FALSE;
    }
  } else {
    changed = status == HF_SAM_GOOD && !node->state.uncertain;
    node->state.uncertain |= status == HF_SAM_GOOD;
  }
  if (!node->state.uncertain)
    node->candidate_key = 0;
  if (changed && (node->state.key || node->state.uncertain))
    node->tracked = TRUE;
  return changed;
}

static void
tell_out (HfCommand *command, const char *result, gboolean warning)
{
  g_autofree char *device = hf_command_name_device (command);
  HfVmNode *node = find_node (command);

  hf_vm_tell_guest (command->vm, name_action (command), node ? node->lu : device, result, warning);
}

static void
tell_answer (HfCommand *command)
{
  HfScsiResult result = { .status = command->answer.status, .sense_length = command->answer.sense_length };
  g_autofree char *text = NULL;

  memcpy (result.sense, command->answer.sense, command->answer.sense_length);
  text = hf_scsi_result_to_string (&result);
  tell_out (command, command->answer.trouble[0] ? command->answer.trouble : text, FALSE);
}

/* Without a device's answer the command may have been executed, whatever the guest is told. A unit attention is reported instead
   of executing the command (SAM-5 5.14), which teaches as little as a conflict. */
static int
status_to_learn (const HfCommand *command)
{
  const HfSgioAnswer *answered = &command->answer;
  HfScsiResult result = { .status = answered->status, .sense_length = answered->sense_length };
  guint16 code;
  guint8 key;

  if (answered->trouble[0])
    return -1;
  memcpy (result.sense, answered->sense, answered->sense_length);
  if (hf_scsi_result_get_sense (&result, &key, &code) && key == SENSE_UNIT_ATTENTION)
    return HF_SAM_RESERVATION_CONFLICT;
  return answered->status;
}

/* A node with a command on its way is neither forgotten nor settled. */
static void
count_at_device (HfCommand *command, int change)
{
  HfVmNode *node = command->is_out ? find_node (command) : NULL;

  if (node)
    node->at_device += (guint)change;
}

static void
on_device_done (HfJob *job, gpointer user_data)
{
  HfCommand *command = user_data;
  gboolean changed;

  command->answer = *hf_job_get_answer (job);
  command->data = hf_job_get_data (job);
  count_answer (command, command->answer.trouble[0] ? -1 : command->answer.status);
  if (!command->is_out) {
    if (command->vm->vms->rules.migrates && command->answer.status == HF_SAM_GOOD)
      hf_mask_capabilities (&command->request, (guint8 *)command->data, command->answer.transferred);
    finish (command);
    return;
  }
  command->data = NULL;
  count_at_device (command, -1);
  changed = learn (command, status_to_learn (command));
  tell_answer (command);
  if (!changed && !command->noted) {
    finish (command);
    return;
  }
  command->stage = STAGE_LEARNING;
  command->job = NULL;
  /* A key that was noted and did not come to be is forgotten again, which may be lost without harm. */
  hf_vm_store (command->vm, changed, on_learnt, command);
}

/* ---- the device ---- */

static void
send_to_device (HfCommand *command)
{
  HfProtocolRequest request = command->request;

  command->stage = STAGE_AT_DEVICE;
  count_at_device (command, 1);
  if (request.list)
    request.list = g_memdup2 (request.list, request.length);
  if (command->job) {
    hf_queue_continue (command->vm->vms->queue, command->job, &request, command->deadline, on_device_done, command);
    return;
  }
  command->job = hf_queue_submit_to (command->vm->vms->queue, &command->vm->peer, &request, command->descriptor, &command->node,
                                     command->deadline, on_device_done, command);
  command->descriptor = -1;
  if (command->job)
    return;
  count_at_device (command, -1);
  g_free (request.list);
  answer_status (command, HF_SAM_BUSY);
}

static void
on_noted (const GError *error, gpointer user_data)
{
  HfCommand *command = user_data;

  if (command->done && !command->vm->orphan) {
    send_to_device (command);
    return;
  }
  let_go (command);
  command_free (command);
}

static void
note (HfCommand *command)
{
  HfVmNode *node = hf_vm_get_node (command->vm, command->node.block, command->node.major, command->node.minor);

  if (!node) {
    tell_out (command, "BUSY: too many devices", TRUE);
    answer_status (command, HF_SAM_BUSY);
    return;
  }
  if (!registers_new_key (command, node)) {
    send_to_device (command);
    return;
  }
  command->stage = STAGE_NOTING;
  command->noted = TRUE;
  node->candidate_key = command->out.new_key;
  node->tracked = TRUE;
  hf_vm_store (command->vm, FALSE, on_noted, command);
}

/* ---- identity ---- */

typedef struct {
  HfCommand *command; /* not for the thread */
  HfPeer peer;
  int pidfd;
  guint timeout_ms;
  HfDevice *device; /* a copy of the descriptor; NULL: there was none */
  gboolean identified;
  HfLuIdentity identity;
  gboolean can_ask; /* the process can be asked for the node */
} Identification;

static void
identification_free (gpointer data)
{
  Identification *it = data;

  hf_device_free (it->device);
  if (it->pidfd >= 0)
    close (it->pidfd);
  g_free (it);
}

/* On a thread. */
static void
identify (int descriptor, gpointer data)
{
  Identification *it = data;
  g_autoptr (GPtrArray) open = it->pidfd >= 0 ? hf_devices_of_process (&it->peer, it->pidfd, NULL, NULL) : NULL;

  it->device = hf_device_new (descriptor, NULL);
  for (guint i = 0; open && it->device && i < open->len; i++)
    it->can_ask |= hf_device_equal (open->pdata[i], it->device);
  /* On this thread: a device that hangs keeps its place in the queue, and nothing else. */
  it->identified = it->device && hf_sgio_identify (descriptor, it->timeout_ms, &it->identity);
}

/* A second VM on this nexus. TRUE: answered. */
static gboolean
refuse_rival (HfCommand *command, const HfVmNode *node)
{
  HfVm *vm = command->vm, *rival = hf_vm_find_rival (vm, node);
  g_autofree char *text = NULL;

  if (!rival || vm->vms->rules.share_nexus || node->state.key || node->moved_key)
    return FALSE;
  text = g_strdup_printf ("RESERVATION CONFLICT: %s is registered on this LU through the same I_T nexus", rival->label);
  tell_out (command, text, TRUE);
  vm->counters.conflicts++;
  answer_status (command, HF_SAM_RESERVATION_CONFLICT);
  return TRUE;
}

static void
on_identified (HfJob *job, gpointer user_data)
{
  Identification *it = user_data;
  HfCommand *command = it->command;
  HfVmNode *node = NULL;

  if (!command->done) {
    let_go (command);
    command_free (command);
    return;
  }
  if (it->identified)
    node = hf_vm_get_node (command->vm, command->node.block, command->node.major, command->node.minor);
  if (node) {
    if (!hf_vm_node_set_identity (node, &it->identity))
      hf_vm_tell (command->vm, "identify", node->lu, "this node was another LU until now: what was held there is forgotten",
                  TRUE);
    hf_vm_discard_device (command->vm, g_steal_pointer (&node->device));
    if (!it->can_ask)
      node->device = g_steal_pointer (&it->device);
    if (refuse_rival (command, node))
      return;
  }
  note (command);
}

static void
start_identifying (HfCommand *command)
{
  HfVm *vm = command->vm;
  Identification *it = g_new0 (Identification, 1);
  int descriptor = command->descriptor;

  *it = (Identification){ .command = command,
                          .peer = vm->peer,
                          .pidfd = vm->pidfd >= 0 ? fcntl (vm->pidfd, F_DUPFD_CLOEXEC, 3) : -1,
                          .timeout_ms = MAX (1, (guint)hf_deadline_left_ms (command->deadline)) };
  command->stage = STAGE_IDENTIFYING;
  command->descriptor = -1;
  command->job =
      hf_queue_submit_work (vm->vms->queue, &vm->peer, descriptor, identify, it, identification_free, on_identified, it);
  if (!command->job)
    answer_status (command, HF_SAM_BUSY);
}

/* ---- the way ---- */

/* A unit attention that was met for the guest. TRUE: answered. */
static gboolean
pay_attention (HfCommand *command, HfVmNode *node)
{
  if (!node || node->n_unit_attentions == 0)
    return FALSE;
  hf_sgio_answer_sense (&command->answer, SENSE_UNIT_ATTENTION, node->unit_attentions[0]);
  node->n_unit_attentions--;
  memmove (node->unit_attentions, node->unit_attentions + 1, node->n_unit_attentions * sizeof node->unit_attentions[0]);
  answer (command);
  return TRUE;
}

/* What QEMU 11 wants and has. TRUE: answered. */
static gboolean
answer_own (HfCommand *command, const HfVmNode *node)
{
  gboolean held;

  if (!command->vm->window || !node
      || hf_own_command (&command->request, node->moved_key, node->state.type) != HF_OWN_COMMAND_DONE)
    return FALSE;
  /* What is not the VM's any more must not become so again by QEMU's good will: fenced stays fenced. */
  held = node->state.key == node->moved_key;
  hf_vm_tell (command->vm, name_action (command), node->lu,
              held ? "GOOD, not sent: the move has done it" : "RESERVATION CONFLICT, not sent: the VM does not have its key here",
              !held);
  answer_status (command, held ? HF_SAM_GOOD : HF_SAM_RESERVATION_CONFLICT);
  return TRUE;
}

static void
proceed (HfCommand *command)
{
  HfVmNode *node = find_node (command);

  command->vm->at_work++;
  command->at_work = TRUE;
  if (answer_own (command, node) || pay_attention (command, node))
    return;
  if (!command->is_out)
    send_to_device (command);
  else if (!node || !node->identified || command->out.action == HF_PR_OUT_REGISTER
           || command->out.action == HF_PR_OUT_REGISTER_AND_IGNORE)
    start_identifying (command);
  else
    note (command);
}

/* TRUE: the command has to wait for an operation. */
static gboolean
must_wait (HfCommand *command)
{
  HfVm *vm = command->vm;
  const HfVmNode *node = find_node (command);
  HfOwnCommand own = vm->window ? hf_own_command (&command->request, node ? node->moved_key : 0, node ? node->state.type : 0)
                                : HF_OWN_COMMAND_NO;

  if (!g_queue_is_empty (&vm->operations))
    return TRUE;
  /* On the source even QEMU's own commands tell that the migration has failed. */
  if (vm->phase == HF_VM_SAVED || own == HF_OWN_COMMAND_NO)
    return hf_vm_runs (vm, own == HF_OWN_COMMAND_NO);
  return FALSE;
}

void
hf_vm_release_waiting (HfVm *vm)
{
  while (g_queue_is_empty (&vm->operations) && !g_queue_is_empty (&vm->waiting)) {
    HfCommand *command = g_queue_peek_head (&vm->waiting);

    if (must_wait (command))
      return;
    g_queue_pop_head (&vm->waiting);
    proceed (command);
  }
}

HfCommand *
hf_vm_submit (HfVm *vm, HfProtocolRequest *request, int descriptor, const HfQueueNode *node, gint64 deadline, HfCommandDone done,
              gpointer user_data)
{
  HfCommand *command = g_new0 (HfCommand, 1);

  command->vm = hf_vm_ref (vm);
  command->link.data = command;
  g_queue_push_tail_link (&vm->commands, &command->link);
  command->request = *request;
  request->list = NULL;
  command->descriptor = descriptor;
  command->node = *node;
  command->deadline = deadline;
  command->done = done;
  command->user_data = user_data;
  command->is_out = command->request.cdb[0] == HF_PROTOCOL_PR_OUT;
  if (command->is_out)
    command->decoded =
        hf_pr_out_decode (command->request.cdb, CDB_LENGTH, command->request.list, command->request.length, &command->out, NULL);
  if (!command->decoded)
    command->out.action = command->request.cdb[1] & 0x1f;
  if (must_wait (command))
    g_queue_push_tail (&vm->waiting, command);
  else
    proceed (command);
  return command;
}

/* ---- looking on ---- */

/* From the question who the LU is on: it is on its way. */
gboolean
hf_command_has_begun (const HfCommand *command)
{
  gboolean in_queue = command->stage == STAGE_IDENTIFYING || command->stage == STAGE_AT_DEVICE;

  return in_queue ? command->job && hf_job_has_begun (command->job) : command->stage != STAGE_WAITING;
}

void
hf_command_abandon (HfCommand *command)
{
  HfVm *vm = command->vm;
  HfVmNode *node = command->is_out ? find_node (command) : NULL;
  gboolean in_queue = command->stage == STAGE_IDENTIFYING || command->stage == STAGE_AT_DEVICE;

  command->done = NULL;
  if (command->stage == STAGE_WAITING)
    g_queue_remove (&vm->waiting, command);
  if (command->stage == STAGE_WAITING || (in_queue && !hf_job_has_begun (command->job))) {
    if (command->stage == STAGE_AT_DEVICE)
      count_at_device (command, -1);
    let_go (command);
    command_free (command);
    return;
  }
  /* Until its answer comes nobody knows what the VM holds; operations do not wait for it. */
  if (command->stage == STAGE_AT_DEVICE && node && !cannot_matter (command, node)) {
    node->state.uncertain = node->tracked = TRUE;
    if (command->decoded && registers_new_key (command, node))
      node->candidate_key = command->out.new_key;
  }
  leave_work (command);
  hf_vm_work (vm);
}

/* The loop does not run any more: what would come back finds nobody. */
void
hf_vm_leave_commands (HfVm *vm)
{
  for (GList *l = vm->commands.head, *next; l; l = next) {
    HfCommand *command = l->data;
    gboolean comes_back = command->stage == STAGE_NOTING || command->stage == STAGE_LEARNING;

    /* The journal's thread brings these back. */
    next = l->next;
    command->done = NULL;
    g_clear_handle_id (&command->idle_source, g_source_remove);
    if (command->stage == STAGE_WAITING)
      g_queue_remove (&vm->waiting, command);
    let_go (command);
    if (!comes_back)
      command_free (command);
  }
}

const HfProtocolRequest *
hf_command_get_request (const HfCommand *command)
{
  return &command->request;
}

const HfSgioAnswer *
hf_command_get_answer (const HfCommand *command)
{
  return &command->answer;
}

const guint8 *
hf_command_get_data (const HfCommand *command)
{
  return command->data;
}

char *
hf_command_name_device (const HfCommand *command)
{
  return g_strdup_printf ("%s %u:%u", command->node.block ? "block" : "character", command->node.major, command->node.minor);
}
