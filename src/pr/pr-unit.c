/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Runs the plan of one LU. Owns the unit's result and what is known of its nexuses. Thread: see the header.
 *
 * Theory of operation. One loop: look at the LU, plan, send one command, again. The plan is made anew from each look, so what
 * others did in between is decided by the same rules. The loop ends when the plan has no command left, when prepare meets the
 * take-over, when the verdict is not accepted (then what was registered is taken back), or when others kept changing the LU.
 *
 * An answer that does not tell what happened (CHECK CONDITION, BUSY, a lost link, a timeout) is no failure by itself: the next
 * look tells.
 */

#include <string.h>

#include "pr/pr-unit-private.h"

#define FRESH_US G_TIME_SPAN_SECOND /* a commit later than this after prepare's last look looks again */

/* ---- names ---- */

const char *const *
hf_move_steps (void)
{
  static const char *const steps[] = {
    "identify",        "observe",   "capabilities",     "register",       "verify-register",       "probe",
    "verify-probe",    "take-over", "verify-take-over", "register-again", "verify-register-again", "back-out",
    "verify-back-out", "release",   "verify-release",   "journal-write",  "journal-sync",          NULL
  };
  return steps;
}

/* ---- life ---- */

HfUnit *
hf_unit_new (const HfPrSaved *saved, const HfUnitShared *shared)
{
  HfUnit *unit = g_new0 (HfUnit, 1);
  unit->shared = shared;
  unit->result.saved = saved;
  unit->result.name = hf_lu_identity_to_string (&saved->identity);
  unit->result.certain = TRUE;
  unit->result.type = saved->type;
  unit->input =
      (HfPlanInput){ .saved = saved, .role = shared->options.role, .peer_gone = shared->options.peer_gone, .ours = unit->ours };
  unit->look = "observe";
  return unit;
}

void
hf_unit_free (HfUnit *unit)
{
  for (guint i = 0; i < unit->n_lus; i++)
    hf_unit_error_clear (&unit->exec[i].failure);
  hf_plan_clear (&unit->plan);
  hf_pr_observation_clear (&unit->seen);
  hf_pr_observation_clear (&unit->result.before);
  hf_pr_observation_clear (&unit->result.after);
  hf_unit_error_clear (&unit->result.error);
  g_free (unit->result.name);
  g_free (unit->result.device);
  g_free (unit->result.note);
  g_free (unit->merged);
  hf_unit_error_clear (&unit->refusal);
  g_free (unit);
}

/* Two nodes of one path ("/dev/sda", "/dev/sg0"), or two paths that nothing tells apart. */
static gboolean
is_same_nexus (HfUnit *unit, HfLu *lu)
{
  for (guint i = 0; i < unit->n_lus; i++)
    if (hf_nexus_compare (&unit->ours[i].nexus, hf_lu_get_nexus (lu)) == HF_NEXUS_SAME)
      return TRUE;
  return FALSE;
}

gboolean
hf_unit_add_lu (HfUnit *unit, HfLu *lu)
{
  if (unit->n_lus == HF_PR_NEXUSES_MAX)
    return FALSE;
  if (is_same_nexus (unit, lu)) {
    g_autofree char *text =
        g_strdup_printf ("%s is not used: it is the same I_T nexus as %s", hf_lu_get_address (lu), unit->result.device);
    g_free (unit->merged);
    unit->merged = g_steal_pointer (&text);
    return TRUE;
  }
  guint i = unit->n_lus++;
  unit->exec[i].lu = lu;
  unit->logins[i] = hf_lu_get_logins (lu);
  unit->ours[i].nexus = *hf_lu_get_nexus (lu);
  unit->input.n_ours = unit->result.n_nexuses = unit->n_lus;
  unit->result.commands++; /* the INQUIRY that proved the identity, even if it was sent long before */
  if (unit->result.device == NULL)
    unit->result.device = g_strdup (hf_lu_get_address (lu));
  return TRUE;
}

gboolean
hf_unit_is_backed_out (HfUnit *unit)
{
  return !hf_unit_is_any_touched (unit);
}

guint
hf_unit_get_room (HfUnit *unit)
{
  return HF_PR_NEXUSES_MAX - unit->n_lus;
}

HfMoveUnit *
hf_unit_get_result (HfUnit *unit)
{
  return &unit->result;
}

HfOwner
hf_unit_get_owner (HfUnit *unit, const HfPrObservation *observation, guint index)
{
  return hf_plan_owner (&unit->input, observation, index);
}

gboolean
hf_unit_is_settled (HfUnit *unit)
{
  const HfPlanProgress *progress = &unit->input.progress;
  if (progress->registers_sent == 0 && !progress->register_unverified)
    return TRUE;
  /* Without READ FULL STATUS the journal accounts for our K as long as the peer's is listed beside it. */
  gboolean over = unit->result.accepted && unit->plan.action == HF_ACTION_NONE && unit->decided;
  return over && !progress->register_unverified && (unit->plan.peer == 0 || unit->plan.told_apart);
}

/* ---- deadline, results ---- */

static guint
count_commands (HfUnit *unit)
{
  guint n = 0;
  for (guint i = 0; i < unit->n_lus; i++)
    n += hf_lu_get_commands (unit->exec[i].lu);
  return n;
}

void
hf_unit_start (HfUnit *unit)
{
  guint timeout_ms = unit->shared->options.timeout_ms != 0 ? unit->shared->options.timeout_ms : HF_SCSI_TIMEOUT_DEFAULT_MS;
  unit->deadline = g_get_monotonic_time () + timeout_ms * (gint64)1000;
  for (guint i = 0; i < unit->n_lus; i++)
    unit->exec[i].deadline = unit->deadline;
  unit->aptpl = unit->aptpl_known = FALSE;
  unit->result.milliseconds -= g_get_monotonic_time () / 1000;
  unit->result.commands -= count_commands (unit);
}

static void
keep_after (HfUnit *unit)
{
  hf_pr_observation_clear (&unit->result.after);
  unit->result.has_after = unit->result.has_before && unit->seen_at != 0;
  if (unit->result.has_after)
    hf_pr_observation_copy (&unit->seen, &unit->result.after);
}

static void
keep_unit_attention (guint16 *all, guint *n, guint16 met)
{
  guint i = 0;
  while (i < *n && all[i] != met)
    i++;
  if (i == *n && i < HF_SCSI_UA_MAX)
    all[(*n)++] = met;
}

static void
keep_unit_attentions (HfUnit *unit, guint nexus)
{
  HfMoveUnit *result = &unit->result;
  guint16 met[HF_SCSI_UA_MAX];
  guint n = hf_lu_take_unit_attentions (unit->exec[nexus].lu, met);
  for (guint i = 0; i < n; i++) {
    keep_unit_attention (result->unit_attentions, &result->n_unit_attentions, met[i]);
    keep_unit_attention (unit->met[nexus], &unit->n_met[nexus], met[i]);
  }
}

gboolean
hf_unit_take_unit_attentions (HfUnit *unit, HfLu *lu, guint16 *ret, guint *ret_n)
{
  for (guint i = 0; i < unit->n_lus; i++) {
    if (unit->exec[i].lu != lu)
      continue;
    keep_unit_attentions (unit, i);
    *ret_n = unit->n_met[i];
    memcpy (ret, unit->met[i], unit->n_met[i] * sizeof *ret);
    unit->n_met[i] = 0;
    return TRUE;
  }
  return FALSE;
}

/* The sums were reduced at start, so that several phases add up. */
void
hf_unit_finish (HfUnit *unit)
{
  unit->result.milliseconds += g_get_monotonic_time () / 1000;
  unit->result.commands += count_commands (unit);
  for (guint i = 0; i < unit->n_lus; i++)
    keep_unit_attentions (unit, i);
  unit->result.taken_over = unit->input.progress.taken_over || unit->take_over_sent;
  keep_after (unit);
}

void
hf_unit_fail (HfUnit *unit, HfVerdict verdict, HfUnitError *failure)
{
  unit->result.verdict = verdict;
  unit->result.accepted = FALSE;
  hf_unit_error_clear (&unit->result.error);
  unit->result.error = *failure;
  memset (failure, 0, sizeof *failure);
}

void
hf_unit_add_note (HfUnit *unit, const char *note)
{
  char *old = unit->result.note;
  if (old != NULL && strstr (old, note) != NULL)
    return;
  unit->result.note = old != NULL ? g_strconcat (old, "; ", note, NULL) : g_strdup (note);
  g_free (old);
}

/* ---- the loop ---- */

/* A phase that starts anew knows what the journal says, and nothing else. */
void
hf_unit_start_anew (HfUnit *unit, gboolean only_reads)
{
  HfPlanProgress *progress = &unit->input.progress;
  HfJournalSummary summary = { 0 };
  hf_unit_forget_notes (unit);
  if (unit->shared->journal != NULL)
    hf_journal_get_summary (unit->shared->journal, unit->result.name, &summary);
  *progress = (HfPlanProgress){ .registers_sent = summary.registers_sent,
                                .register_unverified = summary.register_unverified,
                                .unverified_nexus = HF_NEXUS_ANY,
                                .register_generation = summary.generation };
  unit->take_over_sent = summary.take_over_sent;
  unit->only_reads = only_reads;
  unit->read_twice = only_reads;
  unit->register_answered = unit->decided = FALSE;
  unit->surprises = unit->refusals = 0;
  unit->committed = unit->result.take_over_due = unit->result.kept = FALSE;
  unit->seen_at = 0;
  unit->look = "observe";
  hf_pr_observation_clear (&unit->result.before);
  unit->result.has_before = FALSE;
  unit->input.observed = NULL;
  for (guint i = 0; i < unit->n_lus; i++)
    unit->ours[i].known = HF_REGISTERED_UNKNOWN;
  memset (unit->touched, 0, sizeof unit->touched);
  memset (unit->stale, 0, sizeof unit->stale);
}

/* A REGISTER of an earlier run that still stands is this run's to take back. */
static void
adopt_journal (HfUnit *unit)
{
  if (unit->decided || unit->input.progress.registers_sent == 0 || unit->plan.verdict == HF_VERDICT_UNCHANGED)
    return;
  for (guint i = 0; i < unit->n_lus; i++)
    unit->touched[i] = unit->plan.registered[i];
}

static gboolean
note_verified (HfUnit *unit)
{
  HfPlanProgress *progress = &unit->input.progress;
  if (!unit->plan.register_verified)
    return TRUE;
  guint nexus = progress->unverified_nexus == HF_NEXUS_ANY ? 0 : progress->unverified_nexus;
  progress->register_unverified = FALSE;
  return hf_unit_write_journal (unit, HF_JOURNAL_VERIFIED, "register", nexus, HF_ACTION_REGISTER);
}

/* Plans from what was seen. FALSE: the unit is at its end, not accepted. */
static gboolean
decide (HfUnit *unit)
{
  hf_plan_clear (&unit->plan);
  hf_plan_make (&unit->input, &unit->plan);
  if (!unit->only_reads)
    adopt_journal (unit);
  HfVerdict verdict = unit->plan.verdict;
  /* Behind the take-over there is no refusing: the reservation is ours. */
  gboolean done = unit->input.progress.taken_over && verdict >= HF_VERDICT_TYPE_CHANGED && verdict <= HF_VERDICT_REGISTERED;
  unit->surprises += unit->decided && (verdict != unit->last_verdict || unit->others_acted);
  unit->others_acted = FALSE;
  unit->last_verdict = verdict;
  unit->decided = TRUE;
  unit->result.verdict = verdict;
  unit->result.certain = unit->plan.certain;
  unit->result.alternative = unit->plan.alternative;
  unit->result.type = unit->plan.type;
  unit->result.accepted = done || hf_verdict_is_accepted (verdict, unit->shared->options.on_change);
  hf_unit_error_clear (&unit->result.error);
  if (unit->result.accepted)
    return TRUE;
  if (unit->plan.text != NULL) {
    HfUnitError failure = { 0 };
    hf_unit_error_set (&failure, unit->look, NULL, HF_SG_EXIT_OTHER, "%s", unit->plan.text);
    hf_unit_fail (unit, verdict, &failure);
  }
  return FALSE;
}

void
hf_unit_give_up (HfUnit *unit)
{
  HfUnitError failure = { 0 };
  if (unit->refusal.step != NULL)
    failure = unit->refusal, memset (&unit->refusal, 0, sizeof unit->refusal);
  else if (g_get_monotonic_time () >= unit->deadline)
    hf_unit_error_set (&failure, unit->look, NULL, HF_SG_EXIT_TIMEOUT, "the deadline passed");
  else
    hf_unit_error_set (&failure, unit->look, NULL, HF_SG_EXIT_OTHER,
                       "others kept changing the reservations: gave up after %u decisions", unit->surprises);
  hf_unit_fail (unit, HF_VERDICT_ERROR, &failure);
}

/* A picture read in parts is read again before it is the last word; where we go on, the look behind our own command does that. */
static gboolean
needs_second_reading (HfUnit *unit)
{
  gboolean last_word = unit->plan.action == HF_ACTION_NONE || !unit->result.accepted;
  if (!last_word || unit->seen.full || unit->read_twice || unit->input.progress.acted)
    return FALSE;
  unit->read_twice = TRUE;
  unit->seen_at = 0;
  return TRUE;
}

/* FALSE: not accepted or failed, to be backed out. */
static gboolean
step (HfUnit *unit, gboolean commit, gboolean *ret_over)
{
  if (unit->seen_at == 0 && (!hf_unit_look_until_seen (unit) || !hf_unit_settle_unanswered (unit, TRUE)))
    return FALSE;
  gboolean accepted = decide (unit);
  if (needs_second_reading (unit))
    return TRUE;
  if (!accepted || !note_verified (unit))
    return FALSE;
  *ret_over = unit->plan.action == HF_ACTION_NONE || (!commit && unit->plan.action == HF_ACTION_TAKE_OVER);
  if (*ret_over)
    return TRUE;
  gboolean late = g_get_monotonic_time () >= unit->deadline;
  if (late || unit->surprises > HF_SURPRISES_MAX || unit->refusals >= HF_REFUSALS_MAX) {
    hf_unit_give_up (unit);
    return FALSE;
  }
  return hf_unit_act (unit);
}

/* A VM that runs here is not served by giving its registration back because of a failure. */
static void
back_out_of_failure (HfUnit *unit)
{
  if (!unit->shared->running)
    hf_unit_back_out (unit);
}

static void
run (HfUnit *unit, gboolean commit)
{
  gboolean over = FALSE;
  for (guint i = 0; i < HF_STEPS_MAX && !over; i++)
    if (!step (unit, commit, &over)) {
      back_out_of_failure (unit);
      return;
    }
  if (!over) {
    hf_unit_give_up (unit);
    back_out_of_failure (unit);
  }
}

static void
describe_end (HfUnit *unit)
{
  g_autofree char *text = NULL;
  if (unit->merged != NULL)
    hf_unit_add_note (unit, unit->merged);
  if (!unit->result.accepted || unit->plan.action != HF_ACTION_NONE)
    return;
  if (unit->result.verdict == HF_VERDICT_NONE && unit->plan.text != NULL)
    hf_unit_add_note (unit, unit->plan.text);
  if (unit->result.verdict == HF_VERDICT_FENCED || unit->plan.peer == 0)
    return;
  text = g_strdup_printf ("the VM's key is still registered by %u nexus%s of the other host: release it there", unit->plan.peer,
                          unit->plan.peer == 1 ? "" : "es");
  hf_unit_add_note (unit, text);
}

/* Row 1 sends nothing; the LU is read only to tell of a left-over key, so failing to is no error. */
gboolean
hf_unit_is_none (HfUnit *unit)
{
  if (unit->result.saved->key != 0)
    return FALSE;
  if (unit->n_lus > 0 && !hf_unit_look (unit, HF_OBSERVE_ONCE))
    hf_unit_error_clear (&unit->exec[0].failure);
  decide (unit);
  return TRUE;
}

gboolean
hf_unit_is_reachable (HfUnit *unit)
{
  HfUnitError failure = { 0 };
  if (unit->n_lus > 0 || unit->result.saved->key == 0)
    return TRUE;
  hf_unit_error_set (&failure, "identify", NULL, HF_SG_EXIT_FILE, "no device was given or found for this LU of the record");
  hf_unit_fail (unit, HF_VERDICT_ERROR, &failure);
  return FALSE;
}

void
hf_unit_forget_notes (HfUnit *unit)
{
  g_clear_pointer (&unit->result.note, g_free);
  hf_unit_error_clear (&unit->result.error);
}

void
hf_unit_check (HfUnit *unit)
{
  hf_unit_start_anew (unit, TRUE);
  if (!hf_unit_is_reachable (unit))
    return;
  hf_unit_start (unit);
  if (!hf_unit_is_none (unit) && hf_unit_look_until_seen (unit) && hf_unit_settle_unanswered (unit, FALSE))
    decide (unit);
  hf_unit_finish (unit);
}

void
hf_unit_prepare (HfUnit *unit)
{
  hf_unit_start_anew (unit, FALSE);
  if (!hf_unit_is_reachable (unit))
    return;
  hf_unit_start (unit);
  if (!hf_unit_is_none (unit))
    run (unit, FALSE);
  hf_unit_finish (unit);
  unit->result.take_over_due = unit->result.accepted && unit->plan.action == HF_ACTION_TAKE_OVER;
  describe_end (unit);
}

void
hf_unit_commit (HfUnit *unit)
{
  unit->committed = TRUE;
  if (!unit->result.take_over_due)
    return;
  hf_unit_start (unit);
  if (unit->shared->running || unit->seen_at + FRESH_US < g_get_monotonic_time ())
    unit->seen_at = 0;
  if (unit->shared->running)
    unit->surprises = unit->refusals = 0;
  run (unit, TRUE);
  hf_unit_finish (unit);
  unit->result.take_over_due = !unit->result.accepted && unit->shared->running;
  describe_end (unit);
}

gboolean
hf_unit_is_committed (HfUnit *unit)
{
  return unit->committed;
}

void
hf_unit_abort (HfUnit *unit)
{
  unit->result.take_over_due &= unit->committed;
  if (unit->committed || !hf_unit_is_any_touched (unit))
    return;
  hf_unit_start (unit);
  hf_unit_back_out (unit);
  hf_unit_finish (unit);
}
