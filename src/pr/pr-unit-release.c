/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Removes a nexus' registration after proving that nothing is lost by it. Thread: that of the unit.
 */

#include "pr/pr-unit-private.h"

static gboolean
send_release (HfUnit *unit)
{
  HfScsiResult result;
  guint nexus = unit->plan.nexus;
  HfAction action = unit->plan.action;
  const char *name = action == HF_ACTION_PROBE ? "probe" : "release";
  if (!hf_unit_learn_aptpl (unit, nexus) || !hf_unit_write_journal (unit, HF_JOURNAL_INTENT, name, nexus, action))
    return FALSE;
  HfAnswer answer = hf_unit_send (unit, action, nexus, name, &result);
  if (action == HF_ACTION_PROBE)
    hf_unit_after_probe (unit, nexus, answer);
  else {
    unit->surprises += answer == HF_ANSWER_UNCLEAR;
    unit->ours[nexus].known = answer == HF_ANSWER_UNCLEAR ? HF_REGISTERED_UNKNOWN : HF_REGISTERED_NONE;
    unit->input.progress.acted |= answer != HF_ANSWER_CONFLICT;
  }
  unit->look = action == HF_ACTION_PROBE ? "verify-probe" : "verify-release";
  return TRUE;
}

/* FALSE: the unit is at its end. */
static gboolean
plan_release (HfUnit *unit)
{
  if (!hf_unit_look_until_seen (unit))
    return FALSE;
  hf_plan_clear (&unit->plan);
  hf_plan_release (&unit->input, &unit->plan);
  unit->decided = TRUE;
  unit->result.verdict = unit->plan.verdict;
  unit->result.alternative = unit->plan.verdict;
  unit->result.accepted = hf_verdict_is_accepted (unit->plan.verdict, unit->shared->options.on_change);
  gboolean over = unit->plan.action == HF_ACTION_NONE;
  if (over && unit->plan.text != NULL) {
    HfUnitError failure = { 0 };
    hf_unit_error_set (&failure, unit->look, NULL, HF_SG_EXIT_OTHER, "%s", unit->plan.text);
    hf_unit_fail (unit, unit->plan.verdict, &failure);
  }
  return !over;
}

static gboolean
may_go_on (HfUnit *unit)
{
  gboolean late = g_get_monotonic_time () >= unit->deadline;
  if (!late && unit->surprises <= HF_SURPRISES_MAX && unit->refusals < HF_REFUSALS_MAX)
    return TRUE;
  hf_unit_give_up (unit);
  return FALSE;
}

/* Probes tell what is registered and change nothing, so they belong to the proof. */
static void
run (HfUnit *unit, gboolean unregister)
{
  hf_unit_start (unit);
  unit->read_twice = TRUE;
  for (guint i = 0; i < HF_STEPS_MAX && plan_release (unit); i++) {
    if (unit->plan.action == HF_ACTION_UNREGISTER && !unregister)
      break;
    if (!may_go_on (unit) || !send_release (unit))
      break;
  }
  hf_unit_finish (unit);
}

void
hf_unit_prove_release (HfUnit *unit)
{
  hf_unit_start_anew (unit, FALSE);
  if (hf_unit_is_reachable (unit) && !hf_unit_is_none (unit))
    run (unit, FALSE);
}

void
hf_unit_release (HfUnit *unit)
{
  if (unit->result.accepted && unit->plan.action == HF_ACTION_UNREGISTER)
    run (unit, TRUE);
}
