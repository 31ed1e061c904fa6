/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns: nothing. Thread: any; pure.
 *
 * Theory of operation: nothing on the wire tells QEMU's own commands from the guest's. What can be told is what a command would
 * do. While a VM has not been seen to run after a Save or Load, a command that only reads, or that asks for exactly what the
 * move has done already, is taken for QEMU's: it proves nothing and it is not sent. If it was the guest's after all, its answer
 * is right too: reads are true, and REGISTER and PREEMPT with the guest's own key end in the state that there is.
 */
#include "config.h"

#include "prhelper/own-command.h"

#include <holdfast/pr.h>

#define CAPABILITIES_SIP_C 0x08
#define CAPABILITIES_BYTE 2

/* QEMU asks for the type that the LU shows; without a reservation, and for types 7 and 8, whose holder it does not find, for 1
   (11.0: 0). Another type is a guest's wish. */
static gboolean
may_be_type (guint8 asked, guint8 type)
{
  return asked == type || ((type == 0 || hf_pr_type_is_all_registrants (type)) && asked <= HF_PR_TYPE_WRITE_EXCLUSIVE);
}

static HfOwnCommand
classify_out (const HfPrOut *out, guint64 key, guint8 type)
{
  gboolean plain = !out->aptpl && !out->all_tg_pt && out->n_transport_ids == 0 && out->scope == 0;

  if (!plain || key == 0 || out->new_key != key)
    return HF_OWN_COMMAND_NO;
  switch (out->action) {
  case HF_PR_OUT_REGISTER:
    return out->key == 0 ? HF_OWN_COMMAND_DONE : HF_OWN_COMMAND_NO;
  case HF_PR_OUT_REGISTER_AND_IGNORE:
    return HF_OWN_COMMAND_DONE;
  case HF_PR_OUT_PREEMPT:
    return out->key == key && may_be_type (out->type, type) ? HF_OWN_COMMAND_DONE : HF_OWN_COMMAND_NO;
  default:
    return HF_OWN_COMMAND_NO;
  }
}

HfOwnCommand
hf_own_command (const HfProtocolRequest *request, guint64 key, guint8 type)
{
  HfPrOut out = { 0 };

  if (request->cdb[0] == HF_PROTOCOL_PR_IN) {
    guint8 action = request->cdb[1] & 0x1f;

    return action == HF_PR_IN_READ_KEYS || action == HF_PR_IN_READ_RESERVATION ? HF_OWN_COMMAND_READ : HF_OWN_COMMAND_NO;
  }
  if (request->cdb[0] != HF_PROTOCOL_PR_OUT || !hf_pr_out_decode (request->cdb, 10, request->list, request->length, &out, NULL))
    return HF_OWN_COMMAND_NO;
  return classify_out (&out, key, type);
}

gboolean
hf_mask_capabilities (const HfProtocolRequest *request, guint8 *data, gsize length)
{
  if (request->cdb[0] != HF_PROTOCOL_PR_IN || (request->cdb[1] & 0x1f) != HF_PR_IN_REPORT_CAPABILITIES
      || length <= CAPABILITIES_BYTE || !(data[CAPABILITIES_BYTE] & CAPABILITIES_SIP_C))
    return FALSE;
  data[CAPABILITIES_BYTE] &= (guint8)~CAPABILITIES_SIP_C;
  return TRUE;
}
