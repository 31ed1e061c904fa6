/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Whose registrations an LU lists, and what they say about the VM's key K. Pure; any thread.
 *
 * Theory of operation. Who a registration belongs to is read from READ FULL STATUS where that works. Without it (or without
 * knowing our own TransportID) equal keys are counted: K may be listed as often as at save plus once for each REGISTER of ours,
 * and our own nexus is known by the answers to our own commands.
 *
 * A REGISTER of ours is a danger of its own: if the VM was fenced between our look and our command, it brings the fenced key
 * back. So it counts only once K has been seen on another of the VM's nexuses afterwards: a PREEMPT by key would have removed it
 * from all.
 */

#include "pr/pr-facts.h"

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

gboolean
hf_facts_is_ours (const HfPlanInput *in, const HfPrRegistrant *registrant)
{
  for (guint i = 0; i < in->n_ours; i++)
    if (is_registration_of (registrant, &in->ours[i].nexus))
      return TRUE;
  return FALSE;
}

gboolean
hf_facts_is_saved (const HfPrSaved *saved, const HfPrRegistrant *registrant)
{
  for (guint i = 0; i < saved->n_nexuses; i++)
    if (is_registration_of (registrant, &saved->nexuses[i]))
      return TRUE;
  return FALSE;
}

gboolean
hf_facts_is_saved_nexus (const HfPrSaved *saved, const HfNexus *nexus)
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
guint
hf_facts_count_allowed (const HfFacts *facts)
{
  const HfPlanInput *in = facts->in;
  if (!facts->seen->full)
    return in->saved->key_count + in->progress.registers_sent + count_destination_slots (in);
  guint unknown = count_unknown_ours (in, FALSE);
  guint registered = count_unknown_ours (in, TRUE);
  return count_unknown_saved (in->saved) + MAX (registered, MIN (unknown, in->progress.registers_sent))
         + count_destination_slots (in);
}

guint
hf_facts_count_unmatched (const HfFacts *facts)
{
  const HfPrObservation *seen = facts->seen;
  if (!seen->full)
    return facts->listed;
  guint n = 0;
  for (guint i = 0; i < seen->n_keys; i++) {
    const HfPrRegistrant *registrant = &seen->registrants[i];
    n += registrant->key == facts->saved->key && !hf_facts_is_ours (facts->in, registrant)
         && !hf_facts_is_saved (facts->saved, registrant);
  }
  return n;
}

HfOwner
hf_plan_owner (const HfPlanInput *in, const HfPrObservation *seen, guint index)
{
  if (!seen->full)
    return HF_OWNER_UNKNOWN;
  const HfPrRegistrant *registrant = &seen->registrants[index];
  if (hf_facts_is_ours (in, registrant))
    return HF_OWNER_OURS;
  if (hf_facts_is_saved (in->saved, registrant))
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
    n += facts->seen->registrants[i].key == facts->saved->key && hf_facts_is_ours (facts->in, &facts->seen->registrants[i]);
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
  guint allowed = hf_facts_count_allowed (facts);
  guint unmatched = hf_facts_count_unmatched (facts);
  facts->other = unmatched > allowed ? MIN (unmatched - allowed, facts->listed - facts->ours) : 0;
  facts->peer = facts->listed - facts->ours - facts->other;
  guint not_ours = facts->listed - facts->other;
  facts->elsewhere = not_ours - MIN (not_ours, count_ours_at_most (facts));
}

gboolean
hf_facts_may_hide (const HfFacts *facts)
{
  const HfPlanProgress *progress = &facts->in->progress;
  return !facts->told_apart && progress->unverified_nexus == HF_NEXUS_ANY && facts->ours == 0
         && facts->listed <= facts->saved->key_count && facts->seen->generation != progress->register_generation;
}

gboolean
hf_facts_is_any (const HfFacts *facts, HfRegistered registered)
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
  if (any && facts->ours == 0 && hf_facts_is_any (facts, HF_REGISTERED_UNKNOWN))
    it = HF_REGISTERED_UNKNOWN;

  facts->unsettled = it == HF_REGISTERED_UNKNOWN || it == HF_REGISTERED_SOME;
  gboolean alone = facts->peer == 0 && !is_on_another_of_ours (facts, progress->unverified_nexus);
  gboolean our_own_window = facts->undisturbed && progress->registers_since > 0;
  facts->resurrected = it == HF_REGISTERED_KEY && alone && !our_own_window;
}

void
hf_facts_collect (const HfPlanInput *in, HfFacts *facts)
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
