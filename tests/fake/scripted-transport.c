/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Owns the script of one device. Thread: that of the HfLu. */

#include "config.h"

#include "scripted-transport.h"

#include <string.h>

static void
answer_check_condition (const HfScriptStep *step, HfScsiResult *ret)
{
  guint8 key = step->unit_attention ? 6 : 5;
  guint16 asc_ascq = step->unit_attention ?: 0x2400;
  const guint8 sense[18] = { 0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, asc_ascq >> 8, asc_ascq & 0xff };

  ret->sense_length = sizeof sense;
  memcpy (ret->sense, sense, sizeof sense);
}

static gboolean
script_execute (HfTransport *transport, const HfScsiCommand *command, gint64 deadline, HfScsiResult *ret_result, GError **error)
{
  HfScript *self = (HfScript *)transport;
  const HfScriptStep *step = &self->steps[MIN (self->n_executed, self->n_steps - 1)];

  if (self->n_executed < G_N_ELEMENTS (self->cdbs)) {
    memcpy (self->cdbs[self->n_executed], command->cdb, HF_SCSI_CDB_MAX);
    self->deadlines[self->n_executed] = deadline;
  }
  self->n_executed++;
  if (step->fails) {
    g_set_error (error, HF_SCSI_ERROR, step->error, "script: error %d", step->error);
    return FALSE;
  }
  ret_result->status = step->status;
  if (step->status == HF_SAM_CHECK_CONDITION)
    answer_check_condition (step, ret_result);
  if (command->direction == HF_SCSI_FROM_DEVICE && step->data) {
    ret_result->transferred = MIN (step->length, command->data_length);
    memcpy (command->data, step->data, ret_result->transferred);
  }
  ret_result->residual = command->data_length - ret_result->transferred;
  return TRUE;
}

static void
script_drop_link (HfTransport *transport)
{
  ((HfScript *)transport)->n_dropped++;
}

static void
script_get_transport_id (HfTransport *transport, HfTransportId *ret)
{
  hf_transport_id_sas (0x5001405000000001, ret);
}

static void
script_free (HfTransport *transport)
{
  HfScript *self = (HfScript *)transport;

  if (self->freed)
    *self->freed = TRUE;
  g_free (self);
}

static const HfTransportOps script_ops = {
  .name = "script",
  .execute = script_execute,
  .drop_link = script_drop_link,
  .get_transport_id = script_get_transport_id,
  .free = script_free,
};

HfScript *
hf_script_new (const HfScriptStep *steps, guint n_steps, gboolean *freed)
{
  HfScript *self = g_new0 (HfScript, 1);

  self->transport.ops = &script_ops;
  self->steps = steps;
  self->n_steps = n_steps;
  self->freed = freed;
  return self;
}
