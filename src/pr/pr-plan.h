/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The decision: what was saved, what the LU shows and what we did so far -> a verdict and the next command. Pure: no I/O, no
 * clock.
 *
 * The mover asks again after each command and each look at the LU, so a plan is one step long, and what others did meanwhile is
 * met by the same rules as what they had done before. `ours` are the nexuses the move was given, `peer` the VM's nexuses on the
 * other host.
 *
 * Source of the rules: SPC-4 5.9, and the table in doc/architecture.md.
 */

#include <holdfast/move.h>

/* What is known of the registration of one nexus of ours. From READ FULL STATUS if that works and our TransportID is known, else
   from the answers to our own commands. */
typedef enum {
  HF_REGISTERED_UNKNOWN,
  HF_REGISTERED_NONE,
  HF_REGISTERED_KEY,     /* with the VM's key */
  HF_REGISTERED_OTHER,   /* with another key */
  HF_REGISTERED_SOME,    /* with some key: REGISTER from "unregistered" conflicted */
  HF_REGISTERED_NOT_KEY, /* unregistered or with another key: REGISTER with both keys the VM's conflicted */
} HfRegistered;
#define HF_N_REGISTERED (HF_REGISTERED_NOT_KEY + 1)

typedef enum {
  HF_ACTION_NONE,
  HF_ACTION_REGISTER,   /* REGISTER, RESERVATION KEY 0, SARK K */
  HF_ACTION_PROBE,      /* REGISTER, both keys K: GOOD only if this nexus is registered with K, and nothing changes */
  HF_ACTION_TAKE_OVER,  /* PREEMPT, both keys K */
  HF_ACTION_UNREGISTER, /* REGISTER, RESERVATION KEY K, SARK 0 */
} HfAction;
#define HF_N_ACTIONS (HF_ACTION_UNREGISTER + 1)

typedef struct {
  HfNexus nexus;
  HfRegistered known; /* from answers */
} HfPlanNexus;

#define HF_NEXUS_ANY G_MAXUINT

/* What this move and, by the journal, an earlier run of it did to the LU. */
typedef struct {
  guint registers_sent;         /* REGISTERs that may have added a listed K */
  gboolean register_unverified; /* the last REGISTER was not checked yet */
  guint unverified_nexus;       /* the nexus of it; HF_NEXUS_ANY: of an earlier run */
  guint32 register_generation;  /* PRGENERATION before the last REGISTER */
  gboolean acted;               /* this run changed the LU */
  gboolean taken_over;          /* this run's PREEMPT was answered GOOD */
  guint32 take_over_generation; /* PRGENERATION before it */
  guint registers_since;        /* REGISTERs of ours since it that were answered GOOD */
} HfPlanProgress;

typedef struct {
  const HfPrSaved *saved;
  const HfPrObservation *observed; /* NULL: the LU could not be read */
  HfRole role;
  gboolean peer_gone;
  guint n_ours;
  const HfPlanNexus *ours;
  HfPlanProgress progress;
} HfPlanInput;

typedef struct {
  HfVerdict verdict;
  gboolean certain;
  HfVerdict alternative;
  guint8 type; /* the reservation the VM has once the steps are done; 0: none */
  HfAction action;
  guint nexus; /* index of ours that sends action */
  guint8 take_over_type;
  gboolean told_apart; /* READ FULL STATUS works and all our TransportIDs are known: no answer is needed to know our nexuses */
  gboolean register_verified;             /* the unverified REGISTER was checked by this observation and stands */
  gboolean registered[HF_PR_NEXUSES_MAX]; /* of ours: K is there by now, as far as known */
  guint peer;                             /* registrations of K on the peer's nexuses */
  guint elsewhere;                        /* registrations of K that are certainly not ours, and may be the peer's */
  guint64 other_key;                      /* OCCUPIED: the key found; 0: unknown. NONE: a left-over key of ours; 0: none */
  char *text;                             /* why, for AMBIGUOUS, OCCUPIED, REFUSED and notes; or NULL. hf_plan_clear frees it */
} HfPlan;

void hf_plan_clear (HfPlan *plan);

/* Never fails. *ret is overwritten, not cleared. */
void hf_plan_make (const HfPlanInput *input, HfPlan *ret);

/* The plan of `release`: verdict UNREGISTERED with action UNREGISTER, UNCHANGED if K is on none of ours, REFUSED with the
   condition that failed, or action PROBE where the answers so far do not tell. */
void hf_plan_release (const HfPlanInput *input, HfPlan *ret);

/* Whose registration index of the observation is. */
HfOwner hf_plan_owner (const HfPlanInput *input, const HfPrObservation *observation, guint index);

/* accept: may the move go on with this verdict? */
gboolean hf_verdict_is_accepted (HfVerdict verdict, HfOnChange on_change);
