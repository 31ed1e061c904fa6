/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Takes back what an earlier run of the program prepared and did not finish. Thread: that of the unit.
 *
 * Theory of operation. The journal says how many REGISTERs may stand, not from which nexus. So the nexuses are looked at; where
 * the target does not tell whose a registration is, each is asked with a probe, which changes nothing. Those that have the VM's
 * key are taken back by the rules of any other back-out: not the VM's last registration, and nothing behind a take-over. Nothing
 * is registered here, so a VM that was fenced meanwhile stays fenced.
 */

#include "pr/pr-unit-private.h"

static gboolean
has_something_to_do (const HfPlanProgress *progress)
{
  return progress->registers_sent > 0 || progress->register_unverified;
}

/* The end of the phase: nothing of ours stands, or it was left where it is. */
static void
set_end (HfUnit *unit, HfVerdict verdict)
{
  unit->result.verdict = unit->result.alternative = verdict;
  unit->result.type = HF_PR_TYPE_NONE;
  unit->result.accepted = verdict != HF_VERDICT_REFUSED;
  unit->decided = TRUE;
}

/* FALSE, and failed: the journal cannot be written, or the LU does not say what is set for it. */
static gboolean
probe (HfUnit *unit)
{
  for (guint i = 0; i < unit->n_lus; i++) {
    HfScsiResult result;
    gboolean told = unit->seen.full && unit->ours[i].nexus.transport_id.length != 0;
    if (told || unit->ours[i].known != HF_REGISTERED_UNKNOWN)
      continue;
    if (!hf_unit_learn_aptpl (unit, i) || !hf_unit_write_journal (unit, HF_JOURNAL_INTENT, "probe", i, HF_ACTION_PROBE))
      return FALSE;
    hf_unit_after_probe (unit, i, hf_unit_send (unit, HF_ACTION_PROBE, i, "probe", &result));
  }
  return TRUE;
}

/* FALSE: the unit failed. Nexuses that have the key are touched by now. */
static gboolean
find_registered (HfUnit *unit)
{
  if (!hf_unit_look_until_seen (unit) || !hf_unit_settle_unanswered (unit, TRUE))
    return FALSE;
  if (!has_something_to_do (&unit->input.progress))
    return TRUE;
  if (hf_pr_observation_count_key (&unit->seen, unit->result.saved->key) > 0 && !probe (unit))
    return FALSE;
  hf_plan_clear (&unit->plan);
  hf_plan_make (&unit->input, &unit->plan);
  for (guint i = 0; i < unit->n_lus; i++)
    unit->touched[i] = unit->plan.registered[i];
  return TRUE;
}

/* Without READ FULL STATUS a registration that counts as ours may be listed although none of our nexuses has it any more: the
   target took a new login for another nexus. */
static gboolean
is_all_gone (HfUnit *unit)
{
  const HfPrSaved *saved = unit->result.saved;
  for (guint i = 0; i < unit->n_lus; i++)
    if (unit->touched[i] || (!unit->plan.told_apart && unit->ours[i].known == HF_REGISTERED_UNKNOWN))
      return hf_pr_observation_count_key (&unit->seen, saved->key) == 0;
  return unit->plan.told_apart || hf_pr_observation_count_key (&unit->seen, saved->key) <= saved->key_count;
}

/* The earlier run got as far as the take-over: what it took over is the VM's, and its source takes it back if it runs there. */
static gboolean
is_taken_over (HfUnit *unit)
{
  return unit->take_over_sent && hf_unit_is_any_touched (unit) && unit->plan.peer == 0 && unit->plan.type != HF_PR_TYPE_NONE;
}

static void
set_settled (HfUnit *unit, HfVerdict verdict)
{
  unit->input.progress.registers_sent = 0;
  unit->input.progress.register_unverified = FALSE;
  set_end (unit, verdict);
}

static void
take_back (HfUnit *unit)
{
  gboolean any = hf_unit_is_any_touched (unit);
  HfUnitError failure = { 0 };
  hf_unit_back_out (unit);
  if (!has_something_to_do (&unit->input.progress) || is_all_gone (unit)) {
    unit->take_over_sent = FALSE;
    set_settled (unit, any ? HF_VERDICT_UNREGISTERED : HF_VERDICT_UNCHANGED);
    return;
  }
  if (is_taken_over (unit)) {
    hf_unit_forget_notes (unit);
    hf_unit_add_note (unit, "an earlier run has taken over already: this stays");
    set_settled (unit, HF_VERDICT_UNCHANGED);
    unit->result.type = unit->plan.type;
    return;
  }
  set_end (unit, HF_VERDICT_REFUSED);
  hf_unit_error_set (&failure, "back-out", NULL, HF_SG_EXIT_OTHER,
                     "what an earlier run registered cannot be taken back, or must not: it may be the VM's last");
  hf_unit_fail (unit, HF_VERDICT_REFUSED, &failure);
}

void
hf_unit_abort_earlier (HfUnit *unit)
{
  hf_unit_start_anew (unit, FALSE);
  if (!has_something_to_do (&unit->input.progress)) {
    set_end (unit, HF_VERDICT_UNCHANGED);
    return;
  }
  if (!hf_unit_is_reachable (unit))
    return;
  hf_unit_start (unit);
  unit->read_twice = TRUE;
  if (find_registered (unit))
    take_back (unit);
  hf_unit_finish (unit);
}
