/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The rules of a move. Pure; any thread.
 *
 * Theory of operation. What the LU lists is first boiled down to HfFacts: how many registrations of the VM's key K are ours, the
 * peer's, somebody else's; whether K holds the reservation. Then the rows of the table in doc/architecture.md are tried in order,
 * each a predicate on the facts, and the first that applies is the verdict. The verdict and the facts give the next command.
 *
 * Who a registration belongs to is read from READ FULL STATUS where that works. Without it (or without knowing our own
 * TransportID) equal keys are counted: K may be listed as often as at save plus once for each REGISTER of ours, and our own nexus
 * is known by the answers to our own commands.
 *
 * A REGISTER of ours is a danger of its own: if the VM was fenced between our look and our command, it brings the fenced key
 * back. So it counts only once K has been seen on another of the VM's nexuses afterwards: a PREEMPT by key would have removed it
 * from all.
 */

#include "pr/pr-plan.h"

#include <string.h>

typedef struct {
  const HfPlanInput *in;
  const HfPrSaved *saved;
  const HfPrObservation *seen;
  HfRegistered registered[HF_PR_NEXUSES_MAX];
  guint64 other_key;
  gboolean told_apart; /* READ FULL STATUS works and all our TransportIDs are known */
  guint listed;        /* registrations of K, = ours + peer + other */
  guint ours, peer, other;
  guint elsewhere;      /* registrations of K that are certainly not ours: what may be taken back without losing K */
  gboolean holding;     /* K holds the reservation */
  gboolean exclusive;   /* it holds one of the types with a single holder: 1, 3, 5, 6 */
  gboolean undisturbed; /* everything that counted since our take-over was our own */
  gboolean unsettled;   /* an unverified REGISTER of ours waits for a probe */
  gboolean resurrected; /* an unverified REGISTER of ours is all that is left of K */
} HfFacts;

/* ---- whose registration ---- */

static gboolean
is_known (const HfNexus *nexus)
{
  return nexus->transport_id.length != 0;
}

/* Where one REGISTER covers all target ports, SPC-4 7.6.3.2.3 leaves the port of a registration undefined. */
static gboolean
is_registration_of (const HfPrRegistrant *registrant, const HfNexus *nexus)
{
  HfNexus it = registrant->nexus;
  if (registrant->all_tg_pt)
    it.relative_target_port = 0;
  return hf_nexus_compare (&it, nexus) == HF_NEXUS_SAME;
}

static gboolean
is_ours (const HfPlanInput *in, const HfPrRegistrant *registrant)
{
  for (guint i = 0; i < in->n_ours; i++)
    if (is_registration_of (registrant, &in->ours[i].nexus))
      return TRUE;
  return FALSE;
}

static gboolean
is_saved (const HfPrSaved *saved, const HfPrRegistrant *registrant)
{
  for (guint i = 0; i < saved->n_nexuses; i++)
    if (is_registration_of (registrant, &saved->nexuses[i]))
      return TRUE;
  return FALSE;
}

static gboolean
is_saved_nexus (const HfPrSaved *saved, const HfNexus *nexus)
{
  for (guint i = 0; i < saved->n_nexuses; i++)
    if (hf_nexus_compare (&saved->nexuses[i], nexus) == HF_NEXUS_SAME)
      return TRUE;
  return FALSE;
}

static guint
count_unknown_saved (const HfPrSaved *saved)
{
  guint n = 0;
  for (guint i = 0; i < saved->n_nexuses; i++)
    n += !is_known (&saved->nexuses[i]);
  return n;
}

static guint
count_unknown_ours (const HfPlanInput *in, gboolean only_registered)
{
  guint n = 0;
  for (guint i = 0; i < in->n_ours; i++)
    n += !is_known (&in->ours[i].nexus) && (!only_registered || in->ours[i].known == HF_REGISTERED_KEY);
  return n;
}

/* Seen from the source, the destination's nexuses are in no record. K was the VM's alone at save, so as many as the source had
   may have it now. */
static guint
count_destination_slots (const HfPlanInput *in)
{
  const HfPrSaved *saved = in->saved;
  return in->role == HF_ROLE_SOURCE && saved->key_count <= saved->n_nexuses ? saved->n_nexuses : 0;
}

/* How many registrations of K may be there that no TransportID puts down to us or the peer. */
static guint
count_allowed (const HfFacts *facts)
{
  const HfPlanInput *in = facts->in;
  if (!facts->seen->full)
    return in->saved->key_count + in->progress.registers_sent + count_destination_slots (in);
  guint unknown = count_unknown_ours (in, FALSE);
  guint registered = count_unknown_ours (in, TRUE);
  return count_unknown_saved (in->saved) + MAX (registered, MIN (unknown, in->progress.registers_sent))
         + count_destination_slots (in);
}

static guint
count_unmatched (const HfFacts *facts)
{
  const HfPrObservation *seen = facts->seen;
  if (!seen->full)
    return facts->listed;
  guint n = 0;
  for (guint i = 0; i < seen->n_keys; i++) {
    const HfPrRegistrant *registrant = &seen->registrants[i];
    n += registrant->key == facts->saved->key && !is_ours (facts->in, registrant) && !is_saved (facts->saved, registrant);
  }
  return n;
}

HfOwner
hf_plan_owner (const HfPlanInput *in, const HfPrObservation *seen, guint index)
{
  if (!seen->full)
    return HF_OWNER_UNKNOWN;
  const HfPrRegistrant *registrant = &seen->registrants[index];
  if (is_ours (in, registrant))
    return HF_OWNER_OURS;
  if (is_saved (in->saved, registrant))
    return HF_OWNER_PEER;
  if (count_unknown_ours (in, FALSE) > 0 || count_unknown_saved (in->saved) > 0)
    return HF_OWNER_UNKNOWN;
  if (in->saved->key != 0 && registrant->key == in->saved->key && count_destination_slots (in) > 0)
    return HF_OWNER_PEER;
  return HF_OWNER_OTHER;
}

/* ---- facts ---- */

static HfRegistered
see_registration (HfFacts *facts, guint index)
{
  const HfPlanNexus *ours = &facts->in->ours[index];
  const HfPrObservation *seen = facts->seen;
  if (!seen->full || !is_known (&ours->nexus))
    return ours->known == HF_REGISTERED_KEY && facts->listed == 0 ? HF_REGISTERED_NONE : ours->known;

  for (guint i = 0; i < seen->n_keys; i++) {
    if (!is_registration_of (&seen->registrants[i], &ours->nexus))
      continue;
    if (seen->registrants[i].key == facts->saved->key)
      return HF_REGISTERED_KEY;
    facts->other_key = seen->registrants[i].key;
    return HF_REGISTERED_OTHER;
  }
  return HF_REGISTERED_NONE;
}

/* Registrations of K that are ours: one nexus may be listed several times (ALL_TG_PT). */
static guint
count_ours (const HfFacts *facts)
{
  guint n = 0;
  for (guint i = 0; facts->seen->full && i < facts->seen->n_keys; i++)
    n += facts->seen->registrants[i].key == facts->saved->key && is_ours (facts->in, &facts->seen->registrants[i]);
  for (guint i = 0; i < facts->in->n_ours; i++)
    n += (!facts->seen->full || !is_known (&facts->in->ours[i].nexus)) && facts->registered[i] == HF_REGISTERED_KEY;
  return MIN (n, facts->listed);
}

/* The most of them that may be ours. */
static guint
count_ours_at_most (const HfFacts *facts)
{
  guint n = facts->ours;
  for (guint i = 0; i < facts->in->n_ours; i++)
    n += facts->registered[i] == HF_REGISTERED_UNKNOWN || facts->registered[i] == HF_REGISTERED_SOME;
  return n;
}

static void
count_registrations (HfFacts *facts)
{
  const HfPlanInput *in = facts->in;
  facts->listed = hf_pr_observation_count_key (facts->seen, facts->saved->key);
  facts->told_apart = facts->seen->full && count_unknown_ours (in, FALSE) == 0;
  for (guint i = 0; i < in->n_ours; i++)
    facts->registered[i] = see_registration (facts, i);
  facts->ours = count_ours (facts);
  guint allowed = count_allowed (facts);
  guint unmatched = count_unmatched (facts);
  facts->other = unmatched > allowed ? MIN (unmatched - allowed, facts->listed - facts->ours) : 0;
  facts->peer = facts->listed - facts->ours - facts->other;
  guint not_ours = facts->listed - facts->other;
  facts->elsewhere = not_ours - MIN (not_ours, count_ours_at_most (facts));
}

/* Does the unverified REGISTER of an earlier run, on a nexus that does not exist any more, hide behind a K that looks like the
 * peer's? */
static gboolean
may_hide (const HfFacts *facts)
{
  const HfPlanProgress *progress = &facts->in->progress;
  return !facts->told_apart && progress->unverified_nexus == HF_NEXUS_ANY && facts->ours == 0
         && facts->listed <= facts->saved->key_count && facts->seen->generation != progress->register_generation;
}

static gboolean
is_any (const HfFacts *facts, HfRegistered registered)
{
  for (guint i = 0; i < facts->in->n_ours; i++)
    if (facts->registered[i] == registered)
      return TRUE;
  return FALSE;
}

/* One REGISTER cannot stand for both: they are different nexuses, and not two target ports of an initiator port that registers
 * with all. */
static gboolean
are_independent (const HfFacts *facts, guint a, guint b)
{
  const HfNexus *first = &facts->in->ours[a].nexus;
  HfNexus second = facts->in->ours[b].nexus;
  if (facts->saved->all_tg_pt)
    second.relative_target_port = 0;
  return a != b && hf_nexus_compare (first, &second) != HF_NEXUS_SAME;
}

/* K on one of ours besides the one that the unverified REGISTER was sent from; of an earlier run: on two of ours. */
static gboolean
is_on_another_of_ours (const HfFacts *facts, guint nexus)
{
  for (guint i = 0; i < facts->in->n_ours; i++)
    for (guint j = 0; j < facts->in->n_ours; j++)
      if ((nexus == HF_NEXUS_ANY || nexus == j) && facts->registered[i] == HF_REGISTERED_KEY
          && facts->registered[j] == HF_REGISTERED_KEY && are_independent (facts, i, j))
        return TRUE;
  return FALSE;
}

static void
judge_register (HfFacts *facts)
{
  const HfPlanProgress *progress = &facts->in->progress;
  if (!progress->register_unverified || facts->listed == 0)
    return;

  gboolean any = progress->unverified_nexus == HF_NEXUS_ANY;
  HfRegistered it =
      any ? (facts->ours > 0 ? HF_REGISTERED_KEY : HF_REGISTERED_NONE) : facts->registered[progress->unverified_nexus];
  if (any && facts->ours == 0 && is_any (facts, HF_REGISTERED_UNKNOWN))
    it = HF_REGISTERED_UNKNOWN;

  facts->unsettled = it == HF_REGISTERED_UNKNOWN || it == HF_REGISTERED_SOME;
  gboolean alone = facts->peer == 0 && !is_on_another_of_ours (facts, progress->unverified_nexus);
  gboolean our_own_window = facts->undisturbed && progress->registers_since > 0;
  facts->resurrected = it == HF_REGISTERED_KEY && alone && !our_own_window;
}

static void
collect_facts (const HfPlanInput *in, HfFacts *facts)
{
  const HfPlanProgress *progress = &in->progress;
  *facts = (HfFacts){ .in = in, .saved = in->saved, .seen = in->observed };
  if (facts->seen == NULL)
    return;
  count_registrations (facts);
  const HfPrObservation *seen = facts->seen;
  gboolean all_registrants = hf_pr_type_is_all_registrants (seen->type);
  if (seen->reserved)
    facts->holding = all_registrants ? facts->ours + facts->peer > 0 : seen->holder_key == in->saved->key;
  facts->exclusive = facts->holding && !all_registrants;
  facts->undisturbed = progress->taken_over && seen->generation == progress->take_over_generation + 1 + progress->registers_since;
  judge_register (facts);
}

static gboolean
all_ours_registered (const HfFacts *facts)
{
  for (guint i = 0; i < facts->in->n_ours; i++)
    if (facts->registered[i] != HF_REGISTERED_KEY)
      return FALSE;
  return TRUE;
}

static gboolean
is_same_nexus (const HfFacts *facts)
{
  if (facts->in->role != HF_ROLE_DESTINATION || !all_ours_registered (facts))
    return FALSE;
  if (!facts->told_apart)
    return facts->in->progress.registers_sent == 0 && facts->listed <= facts->saved->key_count;
  for (guint i = 0; i < facts->in->n_ours; i++)
    if (!is_saved_nexus (facts->saved, &facts->in->ours[i].nexus))
      return FALSE;
  return TRUE;
}

static gboolean
is_final (const HfFacts *facts)
{
  if (!all_ours_registered (facts) || (facts->in->peer_gone && facts->peer > 0))
    return FALSE;
  if (facts->saved->type == HF_PR_TYPE_NONE)
    return !facts->holding;
  return facts->holding && facts->seen->type == facts->saved->type && (!facts->exclusive || facts->peer == 0);
}

/* ---- the rows of the table ---- */

static gboolean
row_none (const HfFacts *facts)
{
  return facts->saved->key == 0;
}

static gboolean
row_error (const HfFacts *facts)
{
  return facts->seen == NULL;
}

/* One REGISTER with ALL_TG_PT may list K several times, so without READ FULL STATUS counting tells nothing. */
static gboolean
cannot_count (const HfFacts *facts)
{
  return facts->saved->all_tg_pt && !facts->told_apart && facts->listed > 0;
}

static gboolean
row_ambiguous (const HfFacts *facts)
{
  /* Once the reservation is ours, somebody who registers the same key later does not undo the move. */
  if (facts->in->progress.taken_over && facts->ours > 0)
    return FALSE;
  return facts->other > 0 || cannot_count (facts)
         || (facts->in->progress.register_unverified && !facts->unsettled && facts->listed > 0 && may_hide (facts));
}

static gboolean
row_occupied (const HfFacts *facts)
{
  return is_any (facts, HF_REGISTERED_OTHER);
}

static gboolean
row_fenced (const HfFacts *facts)
{
  if (facts->resurrected)
    return TRUE;
  /* Our own PREEMPT may drop our own registration (SPC-4 5.9.11.3: "all registrations with the specified key"), if the
     reservation went away before it. Nobody else acted: that is no fence. */
  gboolean dropped_by_us = facts->undisturbed && facts->in->progress.registers_since == 0;
  return facts->ours + facts->peer == 0 && !dropped_by_us;
}

static gboolean
row_unchanged (const HfFacts *facts)
{
  const HfPlanProgress *progress = &facts->in->progress;
  return !progress->acted && (is_same_nexus (facts) || (is_final (facts) && !progress->register_unverified));
}

static gboolean
row_type_changed (const HfFacts *facts)
{
  return facts->holding && facts->seen->type != facts->saved->type;
}

static gboolean
row_moved (const HfFacts *facts)
{
  return facts->holding;
}

static gboolean
row_preempted (const HfFacts *facts)
{
  return facts->saved->type != HF_PR_TYPE_NONE && facts->seen->reserved;
}

static gboolean
row_released (const HfFacts *facts)
{
  return facts->saved->type != HF_PR_TYPE_NONE;
}

static gboolean
row_registered (const HfFacts *facts)
{
  return TRUE;
}

static const struct {
  HfVerdict verdict;
  gboolean (*applies) (const HfFacts *facts);
} rows[] = {
  { HF_VERDICT_NONE, row_none },
  { HF_VERDICT_ERROR, row_error },
  { HF_VERDICT_AMBIGUOUS, row_ambiguous },
  { HF_VERDICT_OCCUPIED, row_occupied },
  { HF_VERDICT_FENCED, row_fenced },
  { HF_VERDICT_UNCHANGED, row_unchanged },
  { HF_VERDICT_TYPE_CHANGED, row_type_changed },
  { HF_VERDICT_MOVED, row_moved },
  { HF_VERDICT_PREEMPTED, row_preempted },
  { HF_VERDICT_RELEASED, row_released },
  { HF_VERDICT_REGISTERED, row_registered },
};
G_STATIC_ASSERT (G_N_ELEMENTS (rows) == HF_VERDICT_REGISTERED + 1);

static HfVerdict
find_verdict (const HfFacts *facts)
{
  guint i = 0;
  while (!rows[i].applies (facts))
    i++;
  return rows[i].verdict;
}

/* ---- the next command ---- */

/* What brings nexus i nearer to being registered with K, or to knowing it. */
static const HfAction register_actions[] = {
  [HF_REGISTERED_UNKNOWN] = HF_ACTION_REGISTER, [HF_REGISTERED_NONE] = HF_ACTION_REGISTER,
  [HF_REGISTERED_KEY] = HF_ACTION_NONE,         [HF_REGISTERED_OTHER] = HF_ACTION_NONE,
  [HF_REGISTERED_SOME] = HF_ACTION_PROBE,       [HF_REGISTERED_NOT_KEY] = HF_ACTION_REGISTER,
};
G_STATIC_ASSERT (G_N_ELEMENTS (register_actions) == HF_N_REGISTERED);

static void
set_action (HfPlan *plan, HfAction action, guint nexus)
{
  plan->action = action;
  plan->nexus = nexus;
}

/* The source is asked first whether it is still registered, if K is listed often enough for that. */
static HfAction
find_register_action (const HfFacts *facts, guint nexus)
{
  HfRegistered registered = facts->registered[nexus];
  gboolean probably = facts->in->role == HF_ROLE_SOURCE && facts->listed > facts->saved->key_count;
  return registered == HF_REGISTERED_UNKNOWN && probably ? HF_ACTION_PROBE : register_actions[registered];
}

/* TRUE if there was one to register. */
static gboolean
plan_register (const HfFacts *facts, gboolean only_first, HfPlan *plan)
{
  if (only_first && facts->ours > 0)
    return FALSE;
  for (guint i = 0; i < facts->in->n_ours; i++) {
    HfAction action = find_register_action (facts, i);
    if (action == HF_ACTION_NONE)
      continue;
    set_action (plan, action, i);
    return TRUE;
  }
  return FALSE;
}

/* REGISTER on a nexus that is registered would hide what happened to the REGISTER before it, so look at it first. */
static gboolean
plan_probe (const HfFacts *facts, HfPlan *plan)
{
  if (!facts->unsettled)
    return FALSE;
  for (guint i = 0; i < facts->in->n_ours; i++) {
    gboolean it = facts->in->progress.unverified_nexus == HF_NEXUS_ANY || facts->in->progress.unverified_nexus == i;
    if (!it || (facts->registered[i] != HF_REGISTERED_UNKNOWN && facts->registered[i] != HF_REGISTERED_SOME))
      continue;
    set_action (plan, HF_ACTION_PROBE, i);
    return TRUE;
  }
  return FALSE;
}

static guint
first_registered (const HfFacts *facts)
{
  guint i = 0;
  while (i + 1 < facts->in->n_ours && facts->registered[i] != HF_REGISTERED_KEY)
    i++;
  return i;
}

/* Registered first, last to go: K stays visible throughout. A reservation of types 1, 3, 5, 6 is taken over by one PREEMPT, which
   removes K from all other nexuses, ours too, so the rest of ours is registered behind it. With any other state each side removes
   its own registration, unless the other side is dead. */
static void
plan_steps (const HfFacts *facts, HfPlan *plan)
{
  gboolean take_over = facts->peer > 0 && (facts->exclusive || facts->in->peer_gone);
  if (plan_probe (facts, plan) || plan_register (facts, take_over, plan))
    return;
  if (!take_over)
    return;
  set_action (plan, HF_ACTION_TAKE_OVER, first_registered (facts));
  /* Without a reservation to take TYPE is ignored, but targets check it (LIO refuses 0). */
  plan->take_over_type = facts->seen->reserved ? facts->seen->type : HF_PR_TYPE_WRITE_EXCLUSIVE;
}

/* After a fence: the REGISTER that came too late goes away again. */
static void
plan_back_out (const HfFacts *facts, HfPlan *plan)
{
  if (facts->resurrected)
    for (guint i = 0; i < facts->in->n_ours; i++)
      if (facts->registered[i] == HF_REGISTERED_KEY) {
        set_action (plan, HF_ACTION_UNREGISTER, i);
        return;
      }
}

static char *
describe_ambiguous (const HfFacts *facts)
{
  if (cannot_count (facts))
    return g_strdup (
        "registered with ALL_TG_PT, and the target does not tell which nexus is whose: registrations cannot be counted");
  if (facts->other == 0)
    return g_strdup_printf ("an earlier run sent a REGISTER whose fate cannot be told: key 0x%" G_GINT64_MODIFIER
                            "x is listed %u times, PRGENERATION went from %u to %u",
                            facts->saved->key, facts->listed, facts->in->progress.register_generation, facts->seen->generation);
  if (!facts->seen->full)
    return g_strdup_printf ("key 0x%" G_GINT64_MODIFIER "x is listed %u times; the record and the journal account for %u",
                            facts->saved->key, facts->listed, count_allowed (facts));
  g_autoptr (GString) text = g_string_new (NULL);
  g_string_printf (text, "key 0x%" G_GINT64_MODIFIER "x is registered by a nexus that is not the VM's:", facts->saved->key);
  for (guint i = 0; i < facts->seen->n_keys; i++) {
    const HfPrRegistrant *registrant = &facts->seen->registrants[i];
    if (registrant->key != facts->saved->key || is_ours (facts->in, registrant) || is_saved (facts->saved, registrant))
      continue;
    g_autofree char *name = hf_nexus_to_string (&registrant->nexus);
    g_string_append_printf (text, " %s", name);
  }
  return g_string_free (g_steal_pointer (&text), FALSE);
}

static char *
describe_occupied (const HfFacts *facts)
{
  if (facts->other_key == 0)
    return g_strdup ("this nexus is registered with another key, which the target does not tell");
  return g_strdup_printf ("this nexus is registered with another key: 0x%" G_GINT64_MODIFIER "x", facts->other_key);
}

static void
describe (const HfFacts *facts, HfPlan *plan)
{
  if (plan->verdict == HF_VERDICT_AMBIGUOUS)
    plan->text = describe_ambiguous (facts);
  else if (plan->verdict == HF_VERDICT_OCCUPIED)
    plan->text = describe_occupied (facts);
  else if (plan->verdict == HF_VERDICT_NONE && facts->other_key != 0)
    plan->text =
        g_strdup_printf ("the VM had no key here, but this nexus is registered with 0x%" G_GINT64_MODIFIER "x", facts->other_key);
  plan->other_key = facts->other_key;
}

static void
fill_plan (const HfFacts *facts, HfPlan *plan)
{
  const HfPlanProgress *progress = &facts->in->progress;
  for (guint i = 0; i < facts->in->n_ours; i++)
    plan->registered[i] = facts->registered[i] == HF_REGISTERED_KEY;
  plan->peer = facts->peer;
  plan->elsewhere = facts->elsewhere;
  plan->told_apart = facts->told_apart;
  plan->register_verified = progress->register_unverified && !facts->unsettled && !facts->resurrected;
  gboolean has =
      plan->verdict == HF_VERDICT_UNCHANGED || plan->verdict == HF_VERDICT_MOVED || plan->verdict == HF_VERDICT_TYPE_CHANGED;
  plan->type = has && facts->holding ? facts->seen->type : HF_PR_TYPE_NONE;
  describe (facts, plan);
}

static gboolean
is_a_move (HfVerdict verdict)
{
  return verdict >= HF_VERDICT_TYPE_CHANGED && verdict <= HF_VERDICT_REGISTERED;
}

void
hf_plan_make (const HfPlanInput *in, HfPlan *ret)
{
  HfFacts facts;
  collect_facts (in, &facts);
  *ret = (HfPlan){ .verdict = find_verdict (&facts), .certain = TRUE };
  ret->alternative = ret->verdict;
  if (is_a_move (ret->verdict))
    plan_steps (&facts, ret);
  else if (ret->verdict == HF_VERDICT_FENCED)
    plan_back_out (&facts, ret);
  if (facts.seen != NULL)
    fill_plan (&facts, ret);

  /* Reads alone do not tell whether this nexus is one of those that K is listed for. */
  gboolean open = !facts.told_apart && !in->progress.acted && is_any (&facts, HF_REGISTERED_UNKNOWN);
  if (is_a_move (ret->verdict) && open) {
    ret->certain = FALSE;
    ret->alternative = HF_VERDICT_UNCHANGED;
  }
}

/* ---- release ---- */

static gboolean
holds_exclusively (const HfFacts *facts)
{
  if (!facts->exclusive)
    return FALSE;
  if (!facts->told_apart)
    return TRUE; /* a registered nexus of the holder's key counts as the holder */
  for (guint i = 0; i < facts->seen->n_keys; i++)
    if (facts->seen->registrants[i].holder && is_ours (facts->in, &facts->seen->registrants[i]))
      return TRUE;
  return FALSE;
}

/* K on another nexus of the VM: one that the record names, or one more than had K at save without being the VM's. */
static gboolean
another_has_key (const HfFacts *facts)
{
  const HfPrSaved *saved = facts->saved;
  guint foreign_at_save = saved->key_count > saved->n_nexuses ? saved->key_count - saved->n_nexuses : 0;
  guint others = facts->listed - facts->ours;
  guint named = facts->told_apart ? others - MIN (others, count_unmatched (facts)) : 0;
  return named > 0 || others > foreign_at_save;
}

static void
refuse (HfPlan *plan, char *text)
{
  plan->verdict = HF_VERDICT_REFUSED;
  plan->text = text;
}

static void
plan_unregister (const HfFacts *facts, HfPlan *plan)
{
  guint64 key = facts->saved->key;
  if (holds_exclusively (facts))
    refuse (plan, g_strdup_printf ("this nexus %s the reservation (type %u)",
                                   facts->told_apart ? "holds" : "counts as the holder of", facts->seen->type));
  else if (!another_has_key (facts))
    refuse (plan, g_strdup_printf ("no other nexus of the VM is registered with 0x%" G_GINT64_MODIFIER "x", key));
  else {
    plan->verdict = HF_VERDICT_UNREGISTERED;
    set_action (plan, HF_ACTION_UNREGISTER, first_registered (facts));
  }
}

void
hf_plan_release (const HfPlanInput *in, HfPlan *ret)
{
  HfFacts facts;
  collect_facts (in, &facts);
  *ret = (HfPlan){ .verdict = HF_VERDICT_UNCHANGED, .certain = TRUE };
  if (in->saved->key == 0)
    ret->verdict = HF_VERDICT_NONE;
  else if (facts.seen == NULL)
    ret->verdict = HF_VERDICT_ERROR;
  else if (facts.listed == 0)
    ret->verdict = HF_VERDICT_FENCED;
  else if (is_any (&facts, HF_REGISTERED_OTHER))
    refuse (ret, describe_occupied (&facts));
  else if (is_any (&facts, HF_REGISTERED_UNKNOWN)) {
    guint i = 0;
    while (facts.registered[i] != HF_REGISTERED_UNKNOWN)
      i++;
    set_action (ret, HF_ACTION_PROBE, i);
  } else if (facts.ours > 0)
    plan_unregister (&facts, ret);
  else if (in->progress.acted)
    ret->verdict = HF_VERDICT_UNREGISTERED;
  ret->alternative = ret->verdict;
  if (facts.seen != NULL)
    fill_plan (&facts, ret);
}

/* ---- the rest ---- */

void
hf_plan_clear (HfPlan *plan)
{
  g_clear_pointer (&plan->text, g_free);
}

/* What each verdict means for the policy. */
static const struct {
  const char *name;
  gboolean accepted, changed;
} verdicts[] = {
  [HF_VERDICT_NONE] = { "none", TRUE, FALSE },
  [HF_VERDICT_ERROR] = { "error", FALSE, FALSE },
  [HF_VERDICT_AMBIGUOUS] = { "ambiguous", FALSE, FALSE },
  [HF_VERDICT_OCCUPIED] = { "occupied", FALSE, FALSE },
  [HF_VERDICT_FENCED] = { "fenced", TRUE, TRUE },
  [HF_VERDICT_UNCHANGED] = { "unchanged", TRUE, FALSE },
  [HF_VERDICT_TYPE_CHANGED] = { "type-changed", TRUE, TRUE },
  [HF_VERDICT_MOVED] = { "moved", TRUE, FALSE },
  [HF_VERDICT_PREEMPTED] = { "preempted", TRUE, TRUE },
  [HF_VERDICT_RELEASED] = { "released", TRUE, TRUE },
  [HF_VERDICT_REGISTERED] = { "registered", TRUE, FALSE },
  [HF_VERDICT_UNREGISTERED] = { "unregistered", TRUE, FALSE },
  [HF_VERDICT_REFUSED] = { "refused", FALSE, FALSE },
};
G_STATIC_ASSERT (G_N_ELEMENTS (verdicts) == HF_N_VERDICTS);

const char *
hf_verdict_to_string (HfVerdict verdict)
{
  return verdicts[verdict].name;
}

gboolean
hf_verdict_is_accepted (HfVerdict verdict, HfOnChange on_change)
{
  return verdicts[verdict].accepted && !(on_change == HF_ON_CHANGE_REFUSE && verdicts[verdict].changed);
}
