/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What this host's nexuses hold on one LU, read from the LU. Only reads. Thread: that of the LUs.
 */

#include <string.h>

#include "pr/pr-exec.h"

static const HfPrRegistrant *
find_registrant (const HfPrObservation *seen, const HfNexus *nexus)
{
  for (guint i = 0; seen->full && i < seen->n_keys; i++)
    if (hf_nexus_compare (&seen->registrants[i].nexus, nexus) == HF_NEXUS_SAME)
      return &seen->registrants[i];
  return NULL;
}

static gboolean
fail_key (HfPrExec *exec, int exit_code, const char *text)
{
  hf_unit_error_set (&exec->failure, "save", NULL, exit_code, "%s", text);
  return FALSE;
}

/* Our key, from our own registration. 0 if we have none. */
static gboolean
find_own_key (HfPrExec *exec, HfLu *const *lus, guint n_lus, const HfPrObservation *seen, guint64 *ret_key)
{
  *ret_key = 0;
  if (seen->n_keys == 0)
    return TRUE; /* nobody is registered, so we are not */
  if (!seen->full)
    return fail_key (exec, 1,
                     "the target does not support READ FULL STATUS, so our registration cannot be told: give the key (--key)");
  for (guint i = 0; i < n_lus; i++) {
    const HfNexus *nexus = hf_lu_get_nexus (lus[i]);
    if (nexus->transport_id.length == 0)
      return fail_key (exec, 1,
                       "the TransportID of this nexus is not known, so our registration cannot be told: give the key (--key)");
    const HfPrRegistrant *registrant = find_registrant (seen, nexus);
    guint64 key = registrant != NULL ? registrant->key : 0;
    if (i > 0 && key != *ret_key)
      return fail_key (
          exec, 1, "our nexuses of this LU are registered with different keys: save them one by one, or give the key (--key)");
    *ret_key = key;
  }
  return TRUE;
}

/* A key that was given must be ours, as far as the target tells. */
static gboolean
check_key (HfPrExec *exec, HfLu *const *lus, guint n_lus, const HfPrObservation *seen, guint64 key)
{
  if (hf_pr_observation_count_key (seen, key) == 0)
    return fail_key (exec, 1, "the key is not registered on the LU");
  for (guint i = 0; i < n_lus; i++) {
    const HfNexus *nexus = hf_lu_get_nexus (lus[i]);
    if (!seen->full || nexus->transport_id.length == 0)
      continue;
    const HfPrRegistrant *registrant = find_registrant (seen, nexus);
    if (registrant == NULL || registrant->key != key)
      return fail_key (exec, 1, "this nexus is not registered with the key");
  }
  return TRUE;
}

static gboolean
fill (HfPrExec *exec, HfLu *const *lus, guint n_lus, const HfPrObservation *seen, guint64 key, HfPrSaved *saved)
{
  HfPrCapabilities capabilities;
  saved->generation = seen->generation;
  saved->key = key;
  if (key == 0)
    return TRUE;
  if (!hf_pr_exec_capabilities (exec, &capabilities))
    return FALSE;
  saved->aptpl = capabilities.persist_through_power_loss_activated;
  saved->key_count = hf_pr_observation_count_key (seen, key);
  if (seen->reserved && (hf_pr_type_is_all_registrants (seen->type) || seen->holder_key == key)) {
    saved->type = seen->type;
    saved->scope = seen->scope;
  }
  saved->n_nexuses = n_lus;
  saved->nexuses = g_new0 (HfNexus, n_lus);
  for (guint i = 0; i < n_lus; i++) {
    saved->nexuses[i] = *hf_lu_get_nexus (lus[i]);
    const HfPrRegistrant *registrant = find_registrant (seen, &saved->nexuses[i]);
    saved->all_tg_pt |= registrant != NULL && registrant->all_tg_pt;
  }
  return TRUE;
}

static gboolean
save (HfPrExec *exec, HfLu *const *lus, guint n_lus, guint64 key, HfPrSaved *saved)
{
  HfPrObservation seen = { 0 };
  if (!hf_pr_exec_observe (exec, "save", HF_OBSERVE_TWICE, &seen))
    return FALSE;
  gboolean done = key == 0 ? find_own_key (exec, lus, n_lus, &seen, &key) : check_key (exec, lus, n_lus, &seen, key);
  done = done && fill (exec, lus, n_lus, &seen, key, saved);
  hf_pr_observation_clear (&seen);
  return done;
}

/* All nexuses must be of one LU. */
static gboolean
identify (HfLu *const *lus, guint n_lus, HfLuIdentity *ret, HfUnitError *failure, GError **error)
{
  for (guint i = 0; i < n_lus; i++) {
    GError *local = NULL;
    const HfLuIdentity *identity = hf_lu_get_identity (lus[i], &local);
    if (identity == NULL) {
      hf_unit_error_set (failure, "identify", NULL, hf_scsi_error_to_exit_code (local), "%s", local->message);
      g_propagate_error (error, local);
      return FALSE;
    }
    if (i == 0)
      *ret = *identity;
    else if (!hf_lu_identity_equal (ret, identity)) {
      hf_unit_error_set (failure, "identify", NULL, HF_SG_EXIT_SYNTAX, "%s and %s are different LUs", hf_lu_get_address (lus[0]),
                         hf_lu_get_address (lus[i]));
      g_set_error_literal (error, HF_PR_ERROR, HF_PR_ERROR_ARGUMENT, failure->text);
      return FALSE;
    }
  }
  return TRUE;
}

static gboolean
identify_and_save (HfPrExec *exec, HfLu *const *lus, guint n_lus, guint64 key, HfPrSaved *saved, GError **error)
{
  if (!identify (lus, n_lus, &saved->identity, &exec->failure, error))
    return FALSE;
  if (save (exec, lus, n_lus, key, saved))
    return TRUE;
  int code = exec->failure.exit_code == HF_SG_EXIT_SYNTAX ? HF_PR_ERROR_KEY : HF_PR_ERROR_DEVICE;
  g_set_error (error, HF_PR_ERROR, code, "%s: %s: %s", hf_lu_get_address (lus[0]), exec->failure.step, exec->failure.text);
  return FALSE;
}

gboolean
hf_pr_save (HfLu *const *lus, guint n_lus, guint64 key, HfPrSaved *ret, HfUnitError *ret_failure, GError **error)
{
  HfPrExec exec = { 0 };
  HfPrSaved saved = { 0 };
  GError *local = NULL;
  if (n_lus == 0 || n_lus > HF_PR_NEXUSES_MAX) {
    g_set_error (error, HF_PR_ERROR, HF_PR_ERROR_ARGUMENT, "%u nexuses of one LU; 1 to %u can be saved", n_lus,
                 HF_PR_NEXUSES_MAX);
    return FALSE;
  }
  exec.lu = lus[0];
  if (identify_and_save (&exec, lus, n_lus, key, &saved, &local)) {
    hf_unit_error_clear (&exec.failure);
    *ret = saved;
    return TRUE;
  }
  hf_pr_saved_clear (&saved);
  if (ret_failure != NULL)
    *ret_failure = exec.failure;
  else
    hf_unit_error_clear (&exec.failure);
  g_propagate_error (error, local);
  return FALSE;
}
