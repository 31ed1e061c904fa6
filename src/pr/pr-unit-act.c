/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * One unit's dealings with its LU: looking, sending, taking back. Thread: that of the unit.
 *
 * Theory of operation. Before a PERSISTENT RESERVE OUT its intent stands in the journal, on the disk. The answer changes what is
 * known of the nexus (a table) and the progress that the next plan is made from. RESERVATION CONFLICT means that the command was
 * not executed; any other answer than GOOD means that only the next look can tell.
 */

#include <string.h>

#include "pr/pr-unit-private.h"

#define BACK_OUT_ATTEMPTS 3 /* for each nexus */

static const struct {
  const char *step, *look; /* the command, and the look at the LU behind it */
} action_names[] = {
  [HF_ACTION_NONE] = { "observe", "observe" },
  [HF_ACTION_REGISTER] = { "register", "verify-register" },
  [HF_ACTION_PROBE] = { "probe", "verify-probe" },
  [HF_ACTION_TAKE_OVER] = { "take-over", "verify-take-over" },
  [HF_ACTION_UNREGISTER] = { "back-out", "verify-back-out" },
};
G_STATIC_ASSERT (G_N_ELEMENTS (action_names) == HF_N_ACTIONS);

/* READ FULL STATUS shows this nexus' registration. */
static gboolean
is_told (HfUnit *unit, guint nexus)
{
  return unit->seen.full && unit->ours[nexus].nexus.transport_id.length != 0;
}

/* ---- journal ---- */

static gboolean
write_entry (HfUnit *unit, HfJournalKind kind, const char *step, guint nexus, HfAction action, GError **error)
{
  if (unit->shared->journal == NULL)
    return TRUE;
  g_autofree char *name = hf_nexus_to_string (&unit->ours[nexus].nexus);
  HfJournalEntry entry = { .kind = kind,
                           .lu = unit->result.name,
                           .step = step,
                           .nexus = name,
                           .generation = unit->seen.generation,
                           .is_register = action == HF_ACTION_REGISTER,
                           .is_take_over = action == HF_ACTION_TAKE_OVER };
  return hf_journal_write (unit->shared->journal, &entry, error);
}

gboolean
hf_unit_write_journal (HfUnit *unit, HfJournalKind kind, const char *step, guint nexus, HfAction action)
{
  g_autoptr (GError) error = NULL;
  HfUnitError failure = { 0 };
  if (write_entry (unit, kind, step, nexus, action, &error))
    return TRUE;
  hf_unit_error_set (&failure, "journal", NULL, HF_SG_EXIT_FILE, "%s", error->message);
  hf_unit_fail (unit, HF_VERDICT_ERROR, &failure);
  return FALSE;
}

gboolean
hf_unit_is_any_touched (HfUnit *unit)
{
  for (guint i = 0; i < unit->n_lus; i++)
    if (unit->touched[i])
      return TRUE;
  return FALSE;
}

/* A REGISTER of ours is gone again, or was never executed. */
static gboolean
forget_register (HfUnit *unit, guint nexus, const char *step)
{
  HfPlanProgress *progress = &unit->input.progress;
  gboolean any = progress->unverified_nexus == HF_NEXUS_ANY && !hf_unit_is_any_touched (unit);
  gboolean last = progress->register_unverified && (any || progress->unverified_nexus == nexus);
  progress->register_unverified &= !last;
  progress->registers_sent -= progress->registers_sent > 0;
  return hf_unit_write_journal (unit, HF_JOURNAL_UNDONE, step, nexus, last ? HF_ACTION_REGISTER : HF_ACTION_NONE);
}

/* This nexus answered that it is not registered (any more). If the target may have taken a new login for another nexus, the
   registration that was made before it may be listed for ever: the journal goes on accounting for it. */
static gboolean
forget_registration (HfUnit *unit, guint nexus, HfAnswer answer)
{
  gboolean stale = unit->stale[nexus] && !unit->seen.full && answer == HF_ANSWER_CONFLICT;
  unit->ours[nexus].known = HF_REGISTERED_NONE;
  unit->touched[nexus] = FALSE;
  return stale || forget_register (unit, nexus, "back-out");
}

/* ---- looking ---- */

/* What answers told of a nexus holds as long as nobody else acts, and as long as it is the same nexus. */
static void
doubt_answers (HfUnit *unit)
{
  for (guint i = 0; i < unit->n_lus; i++)
    unit->ours[i].known = HF_REGISTERED_UNKNOWN;
}

static void
doubt_new_logins (HfUnit *unit)
{
  HfPlanProgress *progress = &unit->input.progress;
  for (guint i = 0; i < unit->n_lus; i++) {
    guint logins = hf_lu_get_logins (unit->exec[i].lu);
    if (logins == unit->logins[i])
      continue;
    unit->logins[i] = logins;
    unit->stale[i] |= unit->touched[i];
    unit->ours[i].known = HF_REGISTERED_UNKNOWN;
    if (progress->register_unverified && progress->unverified_nexus == i)
      progress->unverified_nexus = HF_NEXUS_ANY;
  }
}

/* The nexuses stand in for each other: the picture is the LU's. */
gboolean
hf_unit_look (HfUnit *unit, HfObserve observe)
{
  HfPrObservation seen = { 0 };
  guint i = 0;
  while (i < unit->n_lus && !hf_pr_exec_observe (&unit->exec[i], unit->look, observe, &seen))
    i++;
  if (i == unit->n_lus)
    return FALSE;
  if (unit->result.has_before && !unit->uncounted && seen.generation != unit->seen.generation + unit->counted) {
    unit->others_acted = TRUE;
    doubt_answers (unit);
  }
  doubt_new_logins (unit);
  unit->counted = 0;
  unit->uncounted = FALSE;
  hf_pr_observation_clear (&unit->seen);
  unit->seen = seen;
  unit->seen_at = g_get_monotonic_time ();
  unit->input.observed = &unit->seen;
  if (!unit->result.has_before) {
    hf_pr_observation_copy (&seen, &unit->result.before);
    unit->result.has_before = TRUE;
  }
  return TRUE;
}

gboolean
hf_unit_settle_unanswered (HfUnit *unit, gboolean write)
{
  HfPlanProgress *progress = &unit->input.progress;
  guint nexus = progress->unverified_nexus;
  gboolean told = is_told (unit, nexus != HF_NEXUS_ANY ? nexus : 0);
  if (!progress->register_unverified || unit->register_answered || told || unit->seen.generation != progress->register_generation)
    return TRUE;
  /* PRGENERATION starts at 0 again after a power loss: of an earlier run that would prove nothing. */
  if (nexus == HF_NEXUS_ANY && progress->register_generation == 0)
    return TRUE;
  if (nexus != HF_NEXUS_ANY)
    unit->touched[nexus] = unit->touched_before;
  progress->register_unverified = FALSE;
  progress->registers_sent -= progress->registers_sent > 0;
  nexus = nexus == HF_NEXUS_ANY ? 0 : nexus;
  return !write || hf_unit_write_journal (unit, HF_JOURNAL_UNDONE, "register", nexus, HF_ACTION_REGISTER);
}

/* Before anything was sent a lost link is an error; afterwards the LU must be read if it can be. */
gboolean
hf_unit_look_until_seen (HfUnit *unit)
{
  HfObserve observe = unit->read_twice && !unit->input.progress.acted ? HF_OBSERVE_TWICE : HF_OBSERVE_ONCE;
  gboolean sent = hf_unit_is_any_touched (unit) || unit->take_over_sent || unit->input.progress.acted;
  while (!hf_unit_look (unit, observe)) {
    gboolean again = sent && unit->surprises < HF_SURPRISES_MAX && g_get_monotonic_time () < unit->deadline;
    if (!again) {
      unit->input.observed = NULL;
      hf_unit_fail (unit, HF_VERDICT_ERROR, &unit->exec[0].failure);
      return FALSE;
    }
    unit->surprises++;
  }
  return TRUE;
}

/* ---- sending ---- */

/* APTPL is one flag for the whole LU on some targets, and any REGISTER sets it: keep it on if it is on now. Known for one phase.
 */
static gboolean
learn_aptpl (HfUnit *unit, guint nexus)
{
  HfPrCapabilities capabilities;
  unit->aptpl |= unit->result.saved->aptpl;
  if (unit->aptpl || unit->aptpl_known)
    return TRUE;
  if (!hf_pr_exec_capabilities (&unit->exec[nexus], &capabilities))
    return FALSE;
  unit->aptpl = capabilities.persist_through_power_loss_activated;
  unit->aptpl_known = TRUE;
  return TRUE;
}

gboolean
hf_unit_learn_aptpl (HfUnit *unit, guint nexus)
{
  if (learn_aptpl (unit, nexus))
    return TRUE;
  hf_unit_fail (unit, HF_VERDICT_ERROR, &unit->exec[nexus].failure);
  return FALSE;
}

static HfPrOut
make_command (HfUnit *unit, HfAction action)
{
  guint64 key = unit->result.saved->key;
  HfPrOut out = { .action = HF_PR_OUT_REGISTER, .aptpl = unit->aptpl, .all_tg_pt = unit->result.saved->all_tg_pt };
  out.key = action == HF_ACTION_REGISTER ? 0 : key;
  out.new_key = action == HF_ACTION_UNREGISTER ? 0 : key;
  if (action == HF_ACTION_TAKE_OVER) {
    out.action = HF_PR_OUT_PREEMPT;
    out.type = unit->plan.take_over_type;
    out.aptpl = out.all_tg_pt = FALSE;
  }
  return out;
}

HfAnswer
hf_unit_send (HfUnit *unit, HfAction action, guint nexus, const char *step, HfScsiResult *ret_result)
{
  HfPrOut out = make_command (unit, action);
  memset (ret_result, 0, sizeof *ret_result);
  hf_unit_error_clear (&unit->refusal);
  if (!hf_pr_exec_out (&unit->exec[nexus], step, &out, HF_SCSI_RETRY, ret_result)) {
    unit->uncounted = TRUE;
    unit->refusal = unit->exec[nexus].failure;
    memset (&unit->exec[nexus].failure, 0, sizeof unit->exec[nexus].failure);
    return HF_ANSWER_UNCLEAR;
  }
  if (ret_result->status == HF_SAM_GOOD) {
    unit->counted++;
    unit->uncounted |= action == HF_ACTION_UNREGISTER;
    return HF_ANSWER_GOOD;
  }
  g_autofree char *text = hf_scsi_result_to_string (ret_result);
  hf_unit_error_set (&unit->refusal, step, ret_result, 0, "%s: %s", hf_pr_out_action_to_string (out.action), text);
  if (ret_result->status == HF_SAM_RESERVATION_CONFLICT)
    return HF_ANSWER_CONFLICT;
  unit->uncounted = TRUE;
  unit->refusals += ret_result->status == HF_SAM_CHECK_CONDITION;
  return HF_ANSWER_UNCLEAR;
}

/* What an answer to REGISTER and PROBE says about a nexus of which READ FULL STATUS says nothing. */
static const HfRegistered learnt[HF_N_REGISTERED][2][3] = {
  /*                             REGISTER: GOOD, CONFLICT, UNCLEAR                        PROBE: GOOD, CONFLICT, UNCLEAR */
  [HF_REGISTERED_UNKNOWN] = { { HF_REGISTERED_KEY, HF_REGISTERED_SOME, HF_REGISTERED_UNKNOWN },
                              { HF_REGISTERED_KEY, HF_REGISTERED_NOT_KEY, HF_REGISTERED_UNKNOWN } },
  [HF_REGISTERED_NONE] = { { HF_REGISTERED_KEY, HF_REGISTERED_SOME, HF_REGISTERED_UNKNOWN },
                           { HF_REGISTERED_KEY, HF_REGISTERED_NOT_KEY, HF_REGISTERED_UNKNOWN } },
  [HF_REGISTERED_KEY] = { { HF_REGISTERED_KEY, HF_REGISTERED_SOME, HF_REGISTERED_UNKNOWN },
                          { HF_REGISTERED_KEY, HF_REGISTERED_NOT_KEY, HF_REGISTERED_UNKNOWN } },
  [HF_REGISTERED_OTHER] = { { HF_REGISTERED_KEY, HF_REGISTERED_OTHER, HF_REGISTERED_UNKNOWN },
                            { HF_REGISTERED_KEY, HF_REGISTERED_OTHER, HF_REGISTERED_UNKNOWN } },
  [HF_REGISTERED_SOME] = { { HF_REGISTERED_KEY, HF_REGISTERED_SOME, HF_REGISTERED_UNKNOWN },
                           { HF_REGISTERED_KEY, HF_REGISTERED_OTHER, HF_REGISTERED_UNKNOWN } },
  [HF_REGISTERED_NOT_KEY] = { { HF_REGISTERED_KEY, HF_REGISTERED_OTHER, HF_REGISTERED_UNKNOWN },
                              { HF_REGISTERED_KEY, HF_REGISTERED_NOT_KEY, HF_REGISTERED_UNKNOWN } },
};

/* Each after_ function takes the answer to its command in. FALSE: the unit failed (journal). */
static gboolean
after_register (HfUnit *unit, guint nexus, HfAnswer answer)
{
  HfPlanProgress *progress = &unit->input.progress;
  HfPlanNexus *ours = &unit->ours[nexus];
  gboolean told = is_told (unit, nexus);
  unit->surprises += answer == HF_ANSWER_UNCLEAR || (answer == HF_ANSWER_CONFLICT && told);
  ours->known = learnt[ours->known][0][answer];
  if (answer == HF_ANSWER_CONFLICT)
    return forget_register (unit, nexus, "register");
  unit->touched[nexus] = TRUE;
  unit->register_answered = answer == HF_ANSWER_GOOD;
  progress->acted = TRUE;
  progress->registers_since += progress->taken_over && answer == HF_ANSWER_GOOD;
  return TRUE;
}

gboolean
hf_unit_after_probe (HfUnit *unit, guint nexus, HfAnswer answer)
{
  unit->surprises += answer == HF_ANSWER_UNCLEAR;
  unit->ours[nexus].known = learnt[unit->ours[nexus].known][1][answer];
  return TRUE;
}

static gboolean
after_take_over (HfUnit *unit, guint nexus, HfAnswer answer)
{
  HfPlanProgress *progress = &unit->input.progress;
  unit->surprises += answer != HF_ANSWER_GOOD;
  if (answer == HF_ANSWER_CONFLICT) {
    /* This nexus is not registered with K any more: we were fenced meanwhile. The look that follows says by what. */
    unit->take_over_sent = FALSE;
    unit->ours[nexus].known = HF_REGISTERED_UNKNOWN;
    return TRUE;
  }
  progress->acted = TRUE;
  if (answer == HF_ANSWER_UNCLEAR)
    return TRUE;
  progress->taken_over = TRUE;
  progress->take_over_generation = unit->seen.generation;
  progress->registers_since = 0;
  for (guint i = 0; i < unit->n_lus; i++)
    if (i != nexus && unit->ours[i].known == HF_REGISTERED_KEY)
      unit->ours[i].known = HF_REGISTERED_NONE;
  return TRUE;
}

static gboolean
after_unregister (HfUnit *unit, guint nexus, HfAnswer answer)
{
  unit->surprises += answer == HF_ANSWER_UNCLEAR;
  unit->input.progress.acted = TRUE;
  if (answer != HF_ANSWER_UNCLEAR)
    return forget_registration (unit, nexus, answer);
  unit->ours[nexus].known = HF_REGISTERED_UNKNOWN;
  return TRUE;
}

static void
before_register (HfUnit *unit, guint nexus)
{
  HfPlanProgress *progress = &unit->input.progress;
  progress->registers_sent++;
  progress->register_unverified = TRUE;
  progress->unverified_nexus = nexus;
  progress->register_generation = unit->seen.generation;
  unit->touched_before = unit->touched[nexus];
}

static gboolean (*const after_action[]) (HfUnit *unit, guint nexus, HfAnswer answer) = {
  [HF_ACTION_NONE] = NULL,
  [HF_ACTION_REGISTER] = after_register,
  [HF_ACTION_PROBE] = hf_unit_after_probe,
  [HF_ACTION_TAKE_OVER] = after_take_over,
  [HF_ACTION_UNREGISTER] = after_unregister,
};
G_STATIC_ASSERT (G_N_ELEMENTS (after_action) == HF_N_ACTIONS);

/* Sends the plan's command. FALSE: the unit failed. A REGISTER or probe that conflicted changed nothing: no need to look again.
 */
gboolean
hf_unit_act (HfUnit *unit)
{
  HfAction action = unit->plan.action;
  guint nexus = unit->plan.nexus;
  gboolean again = action == HF_ACTION_REGISTER && unit->input.progress.taken_over;
  const char *step = again ? "register-again" : action_names[action].step;
  HfScsiResult result;

  if (action != HF_ACTION_TAKE_OVER && !hf_unit_learn_aptpl (unit, nexus))
    return FALSE;
  if (!hf_unit_write_journal (unit, HF_JOURNAL_INTENT, step, nexus, action))
    return FALSE;
  if (action == HF_ACTION_REGISTER)
    before_register (unit, nexus);
  unit->take_over_sent |= action == HF_ACTION_TAKE_OVER;
  HfAnswer answer = hf_unit_send (unit, action, nexus, step, &result);
  doubt_new_logins (unit);
  if (!after_action[action](unit, nexus, answer))
    return FALSE;
  unit->look = again ? "verify-register-again" : action_names[action].look;
  gboolean told = is_told (unit, nexus);
  gboolean nothing_changed = answer == HF_ANSWER_CONFLICT && !told && (action == HF_ACTION_REGISTER || action == HF_ACTION_PROBE);
  if (!nothing_changed)
    unit->seen_at = 0;
  return TRUE;
}

/* ---- backing out ---- */

static void
back_out_nexus (HfUnit *unit, guint nexus)
{
  HfScsiResult result;
  HfAnswer answer = HF_ANSWER_UNCLEAR;
  if (!learn_aptpl (unit, nexus))
    hf_unit_error_clear (&unit->exec[nexus].failure);
  /* A journal that cannot be written is no reason to leave a registration behind: unregistering is safe to repeat. */
  write_entry (unit, HF_JOURNAL_INTENT, "back-out", nexus, HF_ACTION_UNREGISTER, NULL);
  for (guint i = 0; i < BACK_OUT_ATTEMPTS && answer == HF_ANSWER_UNCLEAR; i++)
    answer = hf_unit_send (unit, HF_ACTION_UNREGISTER, nexus, "back-out", &result);
  if (answer != HF_ANSWER_UNCLEAR) {
    forget_registration (unit, nexus, answer);
    return;
  }
  hf_unit_add_note (unit, "the registration of this nexus could not be taken back; run the command again");
}

/* May nexus go? If K is seen on a nexus that is certainly not ours; or if it came too late after a fence, or may have. */
static gboolean
may_take_back (HfUnit *unit, const HfPlan *plan, guint nexus)
{
  const HfPlanProgress *progress = &unit->input.progress;
  gboolean any = progress->unverified_nexus == HF_NEXUS_ANY && plan->verdict == HF_VERDICT_FENCED;
  return plan->elsewhere > 0 || (progress->register_unverified && (any || progress->unverified_nexus == nexus));
}

/* FALSE: the take-over was executed, or may have been, and the LU does not show that it was not. */
static gboolean
is_before_take_over (HfUnit *unit, const HfPlan *plan, gboolean looked)
{
  if (unit->input.progress.taken_over)
    return FALSE;
  return !unit->take_over_sent || (looked && plan->told_apart && plan->elsewhere > 0);
}

void
hf_unit_back_out (HfUnit *unit)
{
  HfPlan plan;
  if (!hf_unit_is_any_touched (unit))
    return;
  /* The deadline may be the reason for backing out. */
  gint64 grace = g_get_monotonic_time () + 2 * G_TIME_SPAN_SECOND;
  for (guint i = 0; i < unit->n_lus; i++)
    unit->exec[i].deadline = MAX (unit->deadline, grace);
  unit->look = "verify-back-out";
  gboolean looked = hf_unit_look (unit, HF_OBSERVE_ONCE), kept = FALSE;
  if (!looked && unit->result.has_before)
    unit->input.observed = &unit->seen; /* out of date, but what we went by */
  hf_plan_make (&unit->input, &plan);
  gboolean before = is_before_take_over (unit, &plan, looked);
  unit->take_over_sent &= !before;
  for (guint i = 0; i < unit->n_lus; i++)
    if (unit->touched[i] && before && may_take_back (unit, &plan, i))
      back_out_nexus (unit, i);
    else
      kept |= unit->touched[i] && plan.registered[i];
  if (kept)
    hf_unit_add_note (unit, HF_NOTE_KEPT);
  hf_plan_clear (&plan);
  unit->result.kept = hf_unit_is_any_touched (unit);
  if (!hf_unit_look (unit, HF_OBSERVE_ONCE))
    unit->seen_at = 0;
}
