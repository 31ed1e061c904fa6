/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What an LU lists, boiled down to what the rows of the verdict ask about. Shared by pr-facts.c and pr-plan.c; nobody else
 * includes it. Pure.
 */

#include "pr/pr-plan.h"

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

/* Counts and judges input->observed; everything is 0 if that is NULL. The facts point into input. */
void hf_facts_collect (const HfPlanInput *input, HfFacts *ret);

/* One of our nexuses is known to be as registered says. */
gboolean hf_facts_is_any (const HfFacts *facts, HfRegistered registered);

/* The registrant is one of our nexuses; one of those that the record names. */
gboolean hf_facts_is_ours (const HfPlanInput *input, const HfPrRegistrant *registrant);
gboolean hf_facts_is_saved (const HfPrSaved *saved, const HfPrRegistrant *registrant);
gboolean hf_facts_is_saved_nexus (const HfPrSaved *saved, const HfNexus *nexus);

/* Registrations of K that no TransportID puts down to us or the peer, and how many of them there may be. */
guint hf_facts_count_unmatched (const HfFacts *facts);
guint hf_facts_count_allowed (const HfFacts *facts);

/* Does the unverified REGISTER of an earlier run, on a nexus that does not exist any more, hide behind a K that looks like the
 * peer's? */
gboolean hf_facts_may_hide (const HfFacts *facts);
