/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * See the header. Owns nothing but the count: the LU below stays its owner's.
 */

#include "scsi/transport-hook.h"

typedef struct {
  HfTransport base;
  HfLu *lu;
  HfBeforeCommand before;
  void *data;
  guint n_commands;
} Hook;

static gboolean
execute (HfTransport *transport, const HfScsiCommand *command, gint64 deadline, HfScsiResult *ret_result, GError **error)
{
  Hook *hook = (Hook *)transport;
  HfScsiCommand inner = *command;
  hook->before (hook->n_commands++, command->step, hook->data);
  inner.flags = HF_SCSI_PLAIN; /* the LU above repeats */
  inner.timeout_ms = MAX (1, (deadline - g_get_monotonic_time ()) / 1000);
  return hf_lu_execute (hook->lu, &inner, ret_result, error);
}

static void
get_transport_id (HfTransport *transport, HfTransportId *ret)
{
  *ret = hf_lu_get_nexus (((Hook *)transport)->lu)->transport_id;
}

static guint
get_logins (HfTransport *transport)
{
  return hf_lu_get_logins (((Hook *)transport)->lu);
}

static const HfTransportOps hook_ops = {
  .name = "hook",
  .execute = execute,
  .get_transport_id = get_transport_id,
  .get_logins = get_logins,
  .free = (void (*) (HfTransport *))g_free,
};

HfLu *
hf_lu_new_with_hook (HfLu *lu, HfBeforeCommand before, void *data)
{
  Hook *hook = g_new0 (Hook, 1);
  *hook = (Hook){ .base.ops = &hook_ops, .lu = lu, .before = before, .data = data };
  return hf_lu_new_for_transport (&hook->base, hf_lu_get_address (lu), 0);
}
