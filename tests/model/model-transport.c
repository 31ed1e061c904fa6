/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns: the wire between a HfTransport and a HfModel. Thread: any, the wire's lock serialises.
 *
 * DOC: Theory of Operation
 * execute is: number the command, let the test act, act out the fault or ask the model, let the test look. A lost link is
 * remembered and the next command logs in again first, which on tgt makes a new nexus.
 */
#include "model-transport.h"

#include <string.h>

typedef struct {
  HfTransport transport;
  HfModelWire *wire;
  guint nexus, n_logins;
  gboolean identified, link_lost;
} ModelTransport;

static const char *const fault_names[] = { "none",          "link-before", "link-after",    "timeout-before",
                                           "timeout-after", "busy",        "unit-attention" };
G_STATIC_ASSERT (G_N_ELEMENTS (fault_names) == HF_N_MODEL_FAULTS);

const char *
hf_model_fault_to_string (HfModelFault fault)
{
  return fault_names[fault];
}

void
hf_model_wire_init (HfModelWire *wire, HfModel *model)
{
  memset (wire, 0, sizeof *wire);
  wire->model = model;
  g_mutex_init (&wire->lock);
}

void
hf_model_wire_clear (HfModelWire *wire)
{
  g_mutex_clear (&wire->lock);
}

static void
fill_result (const HfScsiCommand *command, const HfModelAnswer *answer, HfScsiResult *ret)
{
  gboolean in = command->direction == HF_SCSI_FROM_DEVICE;

  memset (ret, 0, sizeof *ret);
  ret->status = answer->status;
  ret->transferred = in ? answer->in_length : answer->status == HF_SAM_GOOD ? command->data_length : 0;
  ret->residual = command->data_length - ret->transferred;
  if (answer->status != HF_SAM_CHECK_CONDITION)
    return;
  ret->sense_length = HF_MODEL_SENSE;
  hf_model_answer_get_sense (answer, ret->sense);
}

static HfModelAnswer
ask_model (ModelTransport *self, const HfScsiCommand *command)
{
  gboolean in = command->direction == HF_SCSI_FROM_DEVICE;
  gboolean out = command->direction == HF_SCSI_TO_DEVICE;

  return hf_model_execute (self->wire->model, self->nexus, command->cdb, command->cdb_length, out ? command->data : NULL,
                           out ? command->data_length : 0, in ? command->data : NULL, in ? command->data_length : 0);
}

static gboolean
lose (ModelTransport *self, HfModelFault fault, GError **error)
{
  gboolean link = fault == HF_MODEL_FAULT_LINK_BEFORE || fault == HF_MODEL_FAULT_LINK_AFTER;

  self->link_lost |= link;
  g_set_error (error, HF_SCSI_ERROR, link ? HF_SCSI_ERROR_LINK : HF_SCSI_ERROR_TIMEOUT, "model: %s", fault_names[fault]);
  return FALSE;
}

/* With the lock held. */
static gboolean
carry (ModelTransport *self, HfModelFault fault, const HfScsiCommand *command, HfScsiResult *ret, GError **error)
{
  static const HfModelAnswer busy = { HF_SAM_BUSY, 0, 0, 0 };
  static const HfModelAnswer reset = { HF_SAM_CHECK_CONDITION, 6, 0x2903, 0 };
  HfModelAnswer answer;

  if (fault == HF_MODEL_FAULT_LINK_BEFORE || fault == HF_MODEL_FAULT_TIMEOUT_BEFORE)
    return lose (self, fault, error);
  if (fault == HF_MODEL_FAULT_BUSY)
    answer = busy;
  else if (fault == HF_MODEL_FAULT_UNIT_ATTENTION && command->cdb[0] != 0x12) /* INQUIRY never meets one */
    answer = reset;
  else
    answer = ask_model (self, command);
  if (fault == HF_MODEL_FAULT_LINK_AFTER || fault == HF_MODEL_FAULT_TIMEOUT_AFTER)
    return lose (self, fault, error);
  fill_result (command, &answer, ret);
  return TRUE;
}

static HfModelFault
pick_fault (const HfModelWire *wire, guint index)
{
  if (wire->fault_at == 0 || index < wire->fault_at)
    return HF_MODEL_FAULT_NONE;
  if (index == wire->fault_at)
    return wire->fault;
  return wire->dead ? HF_MODEL_FAULT_LINK_BEFORE : HF_MODEL_FAULT_NONE;
}

static gboolean
model_execute (HfTransport *transport, const HfScsiCommand *command, gint64 deadline G_GNUC_UNUSED, HfScsiResult *ret_result,
               GError **error)
{
  ModelTransport *self = (ModelTransport *)transport;
  HfModelWire *wire = self->wire;
  HfModelFault fault;
  gboolean ok;
  guint index;

  g_mutex_lock (&wire->lock);
  index = ++wire->n_commands;
  fault = pick_fault (wire, index);
  if (self->link_lost && fault != HF_MODEL_FAULT_LINK_BEFORE) {
    self->nexus = hf_model_relogin (wire->model, self->nexus);
    self->link_lost = FALSE;
    self->n_logins++;
  }
  if (wire->before != NULL)
    wire->before (wire->model, self->nexus, index, command->cdb, wire->user_data);
  ok = carry (self, fault, command, ret_result, error);
  if (wire->after != NULL)
    wire->after (wire->model, self->nexus, index, command->cdb, wire->user_data);
  g_mutex_unlock (&wire->lock);
  return ok;
}

static void
model_drop_link (HfTransport *transport)
{
  ((ModelTransport *)transport)->link_lost = TRUE;
}

static guint
model_get_logins (HfTransport *transport)
{
  return ((ModelTransport *)transport)->n_logins;
}

static void
model_get_transport_id (HfTransport *transport, HfTransportId *ret)
{
  const ModelTransport *self = (const ModelTransport *)transport;

  memset (ret, 0, sizeof *ret);
  if (self->identified)
    *ret = self->wire->model->nexuses[self->nexus].id.transport_id;
}

static void
model_free (HfTransport *transport)
{
  g_free (transport);
}

static const HfTransportOps model_ops = {
  .name = "model",
  .execute = model_execute,
  .drop_link = model_drop_link,
  .get_logins = model_get_logins,
  .get_transport_id = model_get_transport_id,
  .free = model_free,
};

HfTransport *
hf_model_transport_new (HfModelWire *wire, guint nexus, gboolean identified)
{
  ModelTransport *self = g_new0 (ModelTransport, 1);

  self->transport.ops = &model_ops;
  self->wire = wire;
  self->nexus = nexus;
  self->identified = identified;
  return &self->transport;
}

HfLu *
hf_model_lu_new (HfModelWire *wire, guint nexus, gboolean identified)
{
  g_autofree char *address = g_strdup_printf ("model:%u", nexus);

  return hf_lu_new_for_transport (hf_model_transport_new (wire, nexus, identified), address, 0);
}
