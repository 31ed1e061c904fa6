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

#include "pr/pr-unit.h"

#include <string.h>

#include "pr/pr-exec.h"

#define SURPRISES_MAX 5               /* decisions anew because others acted or an answer was unclear */
#define STEPS_MAX 256                 /* more than any number of nexuses needs: a bound for a target that makes no sense */
#define REFUSALS_MAX 2                /* the same command answered CHECK CONDITION without effect */
#define BACK_OUT_ATTEMPTS 3           /* for each nexus */
#define FRESH_US (G_TIME_SPAN_SECOND) /* a commit later than this after prepare's last look looks again */
#define EXIT_TIMEOUT 33
#define EXIT_OTHER 99

struct _HfUnit {
  HfMoveUnit result;
  const HfUnitShared *shared;
  guint n_lus;
  HfPrExec exec[HF_PR_NEXUSES_MAX];
  HfPlanNexus ours[HF_PR_NEXUSES_MAX];
  gboolean touched[HF_PR_NEXUSES_MAX]; /* a REGISTER of ours may stand here */
  HfPlanInput input;
  HfPlan plan;
  HfPrObservation seen;
  gint64 seen_at; /* 0: seen is empty or out of date */
  const char *look;
  HfVerdict last_verdict;
  gboolean decided;
  gboolean take_over_sent; /* and not known to have failed */
  gboolean aptpl_known, aptpl;
  gboolean uncounted; /* a command since the last look whose effect on PRGENERATION differs between targets, or is not known */
  guint counted;      /* commands since the last look that count in PRGENERATION */
  guint surprises, refusals;
  gint64 deadline;
};

/* ---- names ---- */

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
  g_free (unit);
}

gboolean
hf_unit_add_lu (HfUnit *unit, HfLu *lu)
{
  if (unit->n_lus == HF_PR_NEXUSES_MAX)
    return FALSE;
  guint i = unit->n_lus++;
  unit->exec[i].lu = lu;
  unit->ours[i].nexus = *hf_lu_get_nexus (lu);
  unit->input.n_ours = unit->n_lus;
  unit->result.commands++; /* the INQUIRY that proved the identity, even if it was sent long before */
  if (unit->result.device == NULL)
    unit->result.device = g_strdup (hf_lu_get_address (lu));
  return TRUE;
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
  return over && !progress->register_unverified && (unit->plan.peer == 0 || unit->seen.full);
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

static void
start (HfUnit *unit)
{
  guint timeout_ms = unit->shared->options.timeout_ms != 0 ? unit->shared->options.timeout_ms : HF_SCSI_TIMEOUT_DEFAULT_MS;
  unit->deadline = g_get_monotonic_time () + timeout_ms * (gint64)1000;
  for (guint i = 0; i < unit->n_lus; i++)
    unit->exec[i].deadline = unit->deadline;
  unit->result.milliseconds -= g_get_monotonic_time () / 1000;
  unit->result.commands -= count_commands (unit);
}

static void
keep_after (HfUnit *unit)
{
  hf_pr_observation_clear (&unit->result.after);
  unit->result.has_after = unit->result.has_before;
  if (unit->result.has_after)
    hf_pr_observation_copy (&unit->seen, &unit->result.after);
}

/* The sums were reduced at start, so that several phases add up. */
static void
finish (HfUnit *unit)
{
  unit->result.milliseconds += g_get_monotonic_time () / 1000;
  unit->result.commands += count_commands (unit);
  unit->result.n_unit_attentions = 0;
  for (guint i = 0; i < unit->n_lus; i++)
    for (guint j = 0; j < unit->exec[i].n_unit_attentions; j++) {
      guint k = 0;
      while (k < unit->result.n_unit_attentions && unit->result.unit_attentions[k] != unit->exec[i].unit_attentions[j])
        k++;
      if (k == unit->result.n_unit_attentions && k < HF_SCSI_UA_MAX)
        unit->result.unit_attentions[unit->result.n_unit_attentions++] = unit->exec[i].unit_attentions[j];
    }
  keep_after (unit);
}

static void
fail (HfUnit *unit, HfVerdict verdict, HfUnitError *failure)
{
  unit->result.verdict = verdict;
  unit->result.accepted = FALSE;
  hf_unit_error_clear (&unit->result.error);
  unit->result.error = *failure;
  memset (failure, 0, sizeof *failure);
}

static void
add_note (HfUnit *unit, const char *note)
{
  char *old = unit->result.note;
  unit->result.note = old != NULL ? g_strconcat (old, "; ", note, NULL) : g_strdup (note);
  g_free (old);
}

/* ---- journal ---- */

static gboolean
write_journal (HfUnit *unit, HfJournalKind kind, const char *step, guint nexus, HfAction action)
{
  if (unit->shared->journal == NULL)
    return TRUE;
  g_autoptr (GError) error = NULL;
  g_autofree char *name = hf_nexus_to_string (&unit->ours[nexus].nexus);
  HfJournalEntry entry = { .kind = kind,
                           .lu = unit->result.name,
                           .step = step,
                           .nexus = name,
                           .generation = unit->seen.generation,
                           .is_register = action == HF_ACTION_REGISTER,
                           .is_take_over = action == HF_ACTION_TAKE_OVER };
  if (hf_journal_write (unit->shared->journal, &entry, &error))
    return TRUE;
  HfUnitError failure = { 0 };
  hf_unit_error_set (&failure, "journal", NULL, EXIT_OTHER, "%s", error->message);
  fail (unit, HF_VERDICT_ERROR, &failure);
  return FALSE;
}

static void
read_journal (HfUnit *unit)
{
  HfPlanProgress *progress = &unit->input.progress;
  HfJournalSummary summary = { 0 };
  if (unit->shared->journal == NULL)
    return;
  hf_journal_get_summary (unit->shared->journal, unit->result.name, &summary);
  progress->registers_sent = summary.registers_sent;
  progress->register_unverified = summary.register_unverified;
  progress->unverified_nexus = HF_NEXUS_ANY;
  progress->register_generation = summary.generation;
}

static gboolean
is_any_touched (HfUnit *unit)
{
  for (guint i = 0; i < unit->n_lus; i++)
    if (unit->touched[i])
      return TRUE;
  return FALSE;
}

/* A REGISTER of ours is known to be gone, or never to have been executed. */
static gboolean
forget_register (HfUnit *unit, guint nexus, const char *step)
{
  HfPlanProgress *progress = &unit->input.progress;
  unit->touched[nexus] = FALSE;
  if (progress->register_unverified && (progress->unverified_nexus == nexus || progress->unverified_nexus == HF_NEXUS_ANY))
    progress->register_unverified = FALSE;
  if (is_any_touched (unit)) {
    progress->registers_sent -= progress->registers_sent > 0;
    return write_journal (unit, HF_JOURNAL_VERIFIED, step, nexus, HF_ACTION_REGISTER);
  }
  progress->registers_sent = 0;
  return write_journal (unit, HF_JOURNAL_UNDONE, step, nexus, HF_ACTION_NONE);
}

/* ---- looking ---- */

/* What answers told of a nexus holds as long as nobody else acts. */
static void
doubt_answers (HfUnit *unit)
{
  static const HfRegistered doubted[HF_N_REGISTERED] = { [HF_REGISTERED_KEY] = HF_REGISTERED_SOME };
  for (guint i = 0; i < unit->n_lus; i++)
    unit->ours[i].known = doubted[unit->ours[i].known];
}

/* The nexuses stand in for each other: the picture is the LU's. */
static gboolean
look (HfUnit *unit, HfObserve observe)
{
  HfPrObservation seen = { 0 };
  guint i = 0;
  while (i < unit->n_lus && !hf_pr_exec_observe (&unit->exec[i], unit->look, observe, &seen))
    i++;
  if (i == unit->n_lus)
    return FALSE;
  if (unit->result.has_before && !unit->uncounted && seen.generation != unit->seen.generation + unit->counted)
    doubt_answers (unit);
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

/* Before anything was sent a lost link is an error; afterwards the LU must be read if it can be. */
static gboolean
look_until_seen (HfUnit *unit)
{
  HfObserve observe = unit->result.has_before ? HF_OBSERVE_ONCE : HF_OBSERVE_TWICE;
  gboolean sent = is_any_touched (unit) || unit->take_over_sent || unit->input.progress.acted;
  while (!look (unit, observe)) {
    gboolean again = sent && unit->surprises < SURPRISES_MAX && g_get_monotonic_time () < unit->deadline;
    if (!again) {
      unit->input.observed = NULL;
      fail (unit, HF_VERDICT_ERROR, &unit->exec[0].failure);
      return FALSE;
    }
    unit->surprises++;
  }
  return TRUE;
}

/* ---- sending ---- */

/* APTPL is one flag for the whole LU on some targets, and any REGISTER sets it: keep it on if it is on. */
static gboolean
learn_aptpl (HfUnit *unit, guint nexus)
{
  HfPrCapabilities capabilities;
  if (unit->aptpl_known)
    return TRUE;
  unit->aptpl = unit->result.saved->aptpl;
  if (!unit->aptpl) {
    if (!hf_pr_exec_capabilities (&unit->exec[nexus], &capabilities)) {
      fail (unit, HF_VERDICT_ERROR, &unit->exec[nexus].failure);
      return FALSE;
    }
    unit->aptpl = capabilities.persist_through_power_loss_activated;
  }
  unit->aptpl_known = TRUE;
  return TRUE;
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

typedef enum { ANSWER_GOOD, ANSWER_CONFLICT, ANSWER_UNCLEAR } Answer;

static Answer
send (HfUnit *unit, HfAction action, guint nexus, const char *step, HfScsiResult *ret_result)
{
  HfPrOut out = make_command (unit, action);
  memset (ret_result, 0, sizeof *ret_result);
  if (!hf_pr_exec_out (&unit->exec[nexus], step, &out, HF_SCSI_RETRY, ret_result)) {
    unit->uncounted = TRUE;
    return ANSWER_UNCLEAR;
  }
  if (ret_result->status == HF_SAM_GOOD) {
    unit->counted++;
    unit->uncounted |= action == HF_ACTION_UNREGISTER;
    return ANSWER_GOOD;
  }
  if (ret_result->status == HF_SAM_RESERVATION_CONFLICT)
    return ANSWER_CONFLICT;
  unit->uncounted = TRUE;
  g_autofree char *text = hf_scsi_result_to_string (ret_result);
  hf_unit_error_set (&unit->exec[nexus].failure, step, ret_result, 0, "%s: %s", hf_pr_out_action_to_string (out.action), text);
  unit->refusals += ret_result->status == HF_SAM_CHECK_CONDITION;
  return ANSWER_UNCLEAR;
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
after_register (HfUnit *unit, guint nexus, Answer answer)
{
  HfPlanProgress *progress = &unit->input.progress;
  HfPlanNexus *ours = &unit->ours[nexus];
  gboolean told = unit->seen.full && ours->nexus.transport_id.length != 0;
  unit->surprises += answer == ANSWER_UNCLEAR || (answer == ANSWER_CONFLICT && told);
  ours->known = learnt[ours->known][0][answer];
  if (answer == ANSWER_CONFLICT)
    return forget_register (unit, nexus, "register");
  progress->acted = TRUE;
  progress->registers_since += progress->taken_over && answer == ANSWER_GOOD;
  return TRUE;
}

static gboolean
after_probe (HfUnit *unit, guint nexus, Answer answer)
{
  unit->surprises += answer == ANSWER_UNCLEAR;
  unit->ours[nexus].known = learnt[unit->ours[nexus].known][1][answer];
  return TRUE;
}

static gboolean
after_take_over (HfUnit *unit, guint nexus, Answer answer)
{
  HfPlanProgress *progress = &unit->input.progress;
  unit->surprises += answer != ANSWER_GOOD;
  if (answer == ANSWER_CONFLICT) {
    /* This nexus is not registered with K any more: we were fenced meanwhile. The look that follows says by what. */
    unit->take_over_sent = FALSE;
    unit->ours[nexus].known = HF_REGISTERED_NOT_KEY;
    return TRUE;
  }
  progress->acted = TRUE;
  if (answer == ANSWER_UNCLEAR)
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
after_unregister (HfUnit *unit, guint nexus, Answer answer)
{
  unit->surprises += answer == ANSWER_UNCLEAR;
  unit->ours[nexus].known = answer == ANSWER_UNCLEAR ? HF_REGISTERED_UNKNOWN : HF_REGISTERED_NONE;
  unit->input.progress.acted = TRUE;
  return answer == ANSWER_UNCLEAR || forget_register (unit, nexus, "back-out");
}

static void
before_register (HfUnit *unit, guint nexus)
{
  HfPlanProgress *progress = &unit->input.progress;
  progress->registers_sent++;
  progress->register_unverified = TRUE;
  progress->unverified_nexus = nexus;
  progress->register_generation = unit->seen.generation;
  unit->touched[nexus] = TRUE;
}

static gboolean (*const after_action[]) (HfUnit *unit, guint nexus, Answer answer) = {
  [HF_ACTION_NONE] = NULL,
  [HF_ACTION_REGISTER] = after_register,
  [HF_ACTION_PROBE] = after_probe,
  [HF_ACTION_TAKE_OVER] = after_take_over,
  [HF_ACTION_UNREGISTER] = after_unregister,
};
G_STATIC_ASSERT (G_N_ELEMENTS (after_action) == HF_N_ACTIONS);

/* Sends the plan's command. FALSE: the unit failed. A REGISTER or probe that conflicted changed nothing: no need to look again.
 */
static gboolean
act (HfUnit *unit)
{
  HfAction action = unit->plan.action;
  guint nexus = unit->plan.nexus;
  gboolean again = action == HF_ACTION_REGISTER && unit->input.progress.taken_over;
  const char *step = again ? "register-again" : action_names[action].step;
  HfScsiResult result;

  if (!learn_aptpl (unit, nexus) || !write_journal (unit, HF_JOURNAL_INTENT, step, nexus, action))
    return FALSE;
  if (action == HF_ACTION_REGISTER)
    before_register (unit, nexus);
  unit->take_over_sent |= action == HF_ACTION_TAKE_OVER;
  Answer answer = send (unit, action, nexus, step, &result);
  if (!after_action[action](unit, nexus, answer))
    return FALSE;
  unit->look = again ? "verify-register-again" : action_names[action].look;
  gboolean told = unit->seen.full && unit->ours[nexus].nexus.transport_id.length != 0;
  gboolean nothing_changed = answer == ANSWER_CONFLICT && !told && (action == HF_ACTION_REGISTER || action == HF_ACTION_PROBE);
  if (!nothing_changed)
    unit->seen_at = 0;
  return TRUE;
}

/* ---- backing out ---- */

static void
back_out_nexus (HfUnit *unit, guint nexus)
{
  HfScsiResult result;
  Answer answer = ANSWER_UNCLEAR;
  /* A journal that fails is no reason to leave a registration behind: unregistering is safe to repeat. */
  write_journal (unit, HF_JOURNAL_INTENT, "back-out", nexus, HF_ACTION_UNREGISTER);
  for (guint i = 0; i < BACK_OUT_ATTEMPTS && answer == ANSWER_UNCLEAR; i++)
    answer = send (unit, HF_ACTION_UNREGISTER, nexus, "back-out", &result);
  if (answer != ANSWER_UNCLEAR) {
    unit->ours[nexus].known = HF_REGISTERED_NONE;
    forget_register (unit, nexus, "back-out");
    return;
  }
  add_note (unit, "the registration of this nexus could not be taken back; run the command again");
}

/* Takes back what this move registered. After the take-over there is no way back: the reservation is ours. */
static void
back_out (HfUnit *unit)
{
  if (!is_any_touched (unit) || unit->take_over_sent)
    return;
  /* The deadline may be the reason for backing out. */
  gint64 grace = g_get_monotonic_time () + 2 * G_TIME_SPAN_SECOND;
  for (guint i = 0; i < unit->n_lus; i++)
    unit->exec[i].deadline = MAX (unit->deadline, grace);
  for (guint i = 0; i < unit->n_lus; i++)
    if (unit->touched[i])
      back_out_nexus (unit, i);
  unit->look = "verify-back-out";
  look (unit, HF_OBSERVE_ONCE);
}

/* ---- the loop ---- */

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
  return write_journal (unit, HF_JOURNAL_VERIFIED, "register", nexus, HF_ACTION_REGISTER);
}

/* Plans from what was seen. FALSE: the unit is at its end, not accepted. */
static gboolean
decide (HfUnit *unit)
{
  hf_plan_clear (&unit->plan);
  hf_plan_make (&unit->input, &unit->plan);
  adopt_journal (unit);
  HfVerdict verdict = unit->plan.verdict;
  gboolean done = unit->input.progress.taken_over && verdict != HF_VERDICT_AMBIGUOUS;
  unit->surprises += unit->decided && verdict != unit->last_verdict;
  unit->last_verdict = verdict;
  unit->decided = TRUE;
  unit->result.verdict = verdict;
  unit->result.certain = unit->plan.certain;
  unit->result.alternative = unit->plan.alternative;
  unit->result.type = unit->plan.type;
  unit->result.accepted = done || hf_verdict_is_accepted (verdict, unit->shared->options.on_change);
  if (unit->result.accepted)
    return TRUE;
  if (unit->plan.text != NULL) {
    HfUnitError failure = { 0 };
    hf_unit_error_set (&failure, unit->look, NULL, EXIT_OTHER, "%s", unit->plan.text);
    fail (unit, verdict, &failure);
  }
  return FALSE;
}

static void
give_up (HfUnit *unit)
{
  HfUnitError failure = { 0 };
  HfUnitError *last = &unit->exec[unit->plan.nexus].failure;
  if (last->step != NULL && unit->surprises <= SURPRISES_MAX)
    failure = *last, memset (last, 0, sizeof *last);
  else if (g_get_monotonic_time () >= unit->deadline)
    hf_unit_error_set (&failure, unit->look, NULL, EXIT_TIMEOUT, "the deadline passed");
  else
    hf_unit_error_set (&failure, unit->look, NULL, EXIT_OTHER,
                       "others kept changing the reservations: gave up after %u decisions%s%s", unit->surprises,
                       last->text != NULL ? "; last: " : "", last->text != NULL ? last->text : "");
  fail (unit, HF_VERDICT_ERROR, &failure);
}

/* FALSE: not accepted or failed, to be backed out. */
static gboolean
step (HfUnit *unit, gboolean commit, gboolean *ret_over)
{
  if ((unit->seen_at == 0 && !look_until_seen (unit)) || !decide (unit) || !note_verified (unit))
    return FALSE;
  *ret_over = unit->plan.action == HF_ACTION_NONE || (!commit && unit->plan.action == HF_ACTION_TAKE_OVER);
  if (*ret_over)
    return TRUE;
  gboolean late = g_get_monotonic_time () >= unit->deadline;
  if (late || unit->surprises > SURPRISES_MAX || unit->refusals >= REFUSALS_MAX) {
    give_up (unit);
    return FALSE;
  }
  return act (unit);
}

static void
run (HfUnit *unit, gboolean commit)
{
  gboolean over = FALSE;
  for (guint i = 0; i < STEPS_MAX && !over; i++)
    if (!step (unit, commit, &over)) {
      back_out (unit);
      return;
    }
  if (!over) {
    give_up (unit);
    back_out (unit);
  }
}

static void
describe_end (HfUnit *unit)
{
  g_autofree char *text = NULL;
  if (!unit->result.accepted || unit->plan.action != HF_ACTION_NONE)
    return;
  if (unit->result.verdict == HF_VERDICT_NONE && unit->plan.text != NULL)
    add_note (unit, unit->plan.text);
  if (unit->result.verdict == HF_VERDICT_FENCED || unit->plan.peer == 0)
    return;
  text = g_strdup_printf ("the VM's key is still registered by %u nexus%s of the other host: release it there", unit->plan.peer,
                          unit->plan.peer == 1 ? "" : "es");
  add_note (unit, text);
}

/* Row 1 sends nothing; the LU is read only to tell of a left-over key, so failing to is no error. */
static gboolean
check_none (HfUnit *unit)
{
  if (unit->result.saved->key != 0)
    return FALSE;
  if (unit->n_lus > 0 && !look (unit, HF_OBSERVE_ONCE))
    hf_unit_error_clear (&unit->exec[0].failure);
  decide (unit);
  return TRUE;
}

static gboolean
check_reachable (HfUnit *unit)
{
  HfUnitError failure = { 0 };
  if (unit->n_lus > 0 || unit->result.saved->key == 0)
    return TRUE;
  hf_unit_error_set (&failure, "identify", NULL, 15, "no device was given or found for this LU of the record");
  fail (unit, HF_VERDICT_ERROR, &failure);
  return FALSE;
}

static void
forget_notes (HfUnit *unit)
{
  g_clear_pointer (&unit->result.note, g_free);
  hf_unit_error_clear (&unit->result.error);
}

void
hf_unit_check (HfUnit *unit)
{
  forget_notes (unit);
  read_journal (unit);
  if (!check_reachable (unit))
    return;
  start (unit);
  if (!check_none (unit) && look_until_seen (unit))
    decide (unit);
  unit->decided = FALSE;
  unit->seen_at = 0;
  finish (unit);
}

void
hf_unit_prepare (HfUnit *unit)
{
  forget_notes (unit);
  read_journal (unit);
  if (!check_reachable (unit))
    return;
  start (unit);
  if (!check_none (unit))
    run (unit, FALSE);
  finish (unit);
  describe_end (unit);
}

void
hf_unit_commit (HfUnit *unit)
{
  if (!unit->result.accepted || unit->plan.action == HF_ACTION_NONE)
    return;
  start (unit);
  if (unit->seen_at + FRESH_US < g_get_monotonic_time ())
    unit->seen_at = 0;
  run (unit, TRUE);
  finish (unit);
  describe_end (unit);
}

void
hf_unit_abort (HfUnit *unit)
{
  if (!is_any_touched (unit) || unit->take_over_sent)
    return;
  start (unit);
  back_out (unit);
  finish (unit);
}

/* ---- release ---- */

static gboolean
send_release (HfUnit *unit)
{
  HfScsiResult result;
  guint nexus = unit->plan.nexus;
  HfAction action = unit->plan.action;
  const char *name = action == HF_ACTION_PROBE ? "probe" : "release";
  if (!learn_aptpl (unit, nexus) || !write_journal (unit, HF_JOURNAL_INTENT, name, nexus, action))
    return FALSE;
  Answer answer = send (unit, action, nexus, name, &result);
  if (action == HF_ACTION_PROBE)
    after_probe (unit, nexus, answer);
  else {
    unit->surprises += answer == ANSWER_UNCLEAR;
    unit->ours[nexus].known = answer == ANSWER_UNCLEAR ? HF_REGISTERED_UNKNOWN : HF_REGISTERED_NONE;
    unit->input.progress.acted |= answer == ANSWER_GOOD;
  }
  unit->look = action == HF_ACTION_PROBE ? "verify-probe" : "verify-release";
  return TRUE;
}

static gboolean
step_release (HfUnit *unit, gboolean *ret_over)
{
  if (!look_until_seen (unit))
    return FALSE;
  hf_plan_clear (&unit->plan);
  hf_plan_release (&unit->input, &unit->plan);
  unit->decided = TRUE;
  unit->result.verdict = unit->plan.verdict;
  unit->result.alternative = unit->plan.verdict;
  unit->result.accepted = hf_verdict_is_accepted (unit->plan.verdict, unit->shared->options.on_change);
  *ret_over = unit->plan.action == HF_ACTION_NONE;
  if (*ret_over && unit->plan.text != NULL) {
    HfUnitError failure = { 0 };
    hf_unit_error_set (&failure, unit->look, NULL, EXIT_OTHER, "%s", unit->plan.text);
    fail (unit, unit->plan.verdict, &failure);
  }
  if (*ret_over)
    return TRUE;
  if (unit->surprises > SURPRISES_MAX || unit->refusals >= REFUSALS_MAX || g_get_monotonic_time () >= unit->deadline) {
    give_up (unit);
    return FALSE;
  }
  return send_release (unit);
}

void
hf_unit_release (HfUnit *unit)
{
  gboolean over = FALSE;
  forget_notes (unit);
  if (!check_reachable (unit))
    return;
  start (unit);
  if (!check_none (unit))
    for (guint i = 0; i < STEPS_MAX && !over && step_release (unit, &over); i++)
      continue;
  finish (unit);
}
