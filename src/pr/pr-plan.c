/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The rules of a move. Pure; any thread.
 *
 * Theory of operation. What the LU lists is first boiled down to HfFacts: how many registrations of the VM's key K are ours, the
 * peer's, somebody else's; whether K holds the reservation. Then the rows of the table in doc/architecture.md are tried in order,
 * each a predicate on the facts, and the first that applies is the verdict. The verdict and the facts give the next command.
 */

#include "pr/pr-facts.h"

/* ---- what the rows share ---- */

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
    if (!hf_facts_is_saved_nexus (facts->saved, &facts->in->ours[i].nexus))
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
         || (facts->in->progress.register_unverified && !facts->unsettled && facts->listed > 0 && hf_facts_may_hide (facts));
}

static gboolean
row_occupied (const HfFacts *facts)
{
  return hf_facts_is_any (facts, HF_REGISTERED_OTHER);
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
                            facts->saved->key, facts->listed, hf_facts_count_allowed (facts));
  g_autoptr (GString) text = g_string_new (NULL);
  g_string_printf (text, "key 0x%" G_GINT64_MODIFIER "x is registered by a nexus that is not the VM's:", facts->saved->key);
  for (guint i = 0; i < facts->seen->n_keys; i++) {
    const HfPrRegistrant *registrant = &facts->seen->registrants[i];
    if (registrant->key != facts->saved->key || hf_facts_is_ours (facts->in, registrant)
        || hf_facts_is_saved (facts->saved, registrant))
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
  hf_facts_collect (in, &facts);
  *ret = (HfPlan){ .verdict = find_verdict (&facts), .certain = TRUE };
  ret->alternative = ret->verdict;
  if (is_a_move (ret->verdict))
    plan_steps (&facts, ret);
  else if (ret->verdict == HF_VERDICT_FENCED)
    plan_back_out (&facts, ret);
  if (facts.seen != NULL)
    fill_plan (&facts, ret);

  /* Reads alone do not tell whether this nexus is one of those that K is listed for. */
  gboolean open = !facts.told_apart && !in->progress.acted && hf_facts_is_any (&facts, HF_REGISTERED_UNKNOWN);
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
    if (facts->seen->registrants[i].holder && hf_facts_is_ours (facts->in, &facts->seen->registrants[i]))
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
  guint named = facts->told_apart ? others - MIN (others, hf_facts_count_unmatched (facts)) : 0;
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
  hf_facts_collect (in, &facts);
  *ret = (HfPlan){ .verdict = HF_VERDICT_UNCHANGED, .certain = TRUE };
  if (in->saved->key == 0)
    ret->verdict = HF_VERDICT_NONE;
  else if (facts.seen == NULL)
    ret->verdict = HF_VERDICT_ERROR;
  else if (facts.listed == 0)
    ret->verdict = HF_VERDICT_FENCED;
  else if (hf_facts_is_any (&facts, HF_REGISTERED_OTHER))
    refuse (ret, describe_occupied (&facts));
  else if (hf_facts_is_any (&facts, HF_REGISTERED_UNKNOWN)) {
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
