/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a guest holds on one LU, learnt from its PERSISTENT RESERVE OUT commands and their status.
 *
 * Owns: nothing. Thread: any; every function is pure.
 *
 * Theory of operation: the status decides, never the request alone. GOOD: the rule of the service action is applied (one
 * function each, in a table). RESERVATION CONFLICT: the target did nothing, so nothing is learnt. Anything else, and no
 * answer at all: the command may have been executed (a target may report an error for a REGISTER that it has executed), so the
 * state is uncertain until somebody reads the LU.
 *
 * A GOOD command never takes the uncertainty back, it only adds what it tells: one rule that is easy to prove, at the price of
 * a reading of the LU now and then. What other initiators do is not seen here at all.
 */

#include <holdfast/pr.h>

#include <string.h>

/* The nexus has no registration any more, so no reservation of its own either. For types 7 and 8 the reservation may live on,
   held by the other registrants. */
static void
forget (HfPrState *state)
{
  gboolean uncertain = state->uncertain;

  memset (state, 0, sizeof *state);
  state->uncertain = uncertain;
}

static void
release (HfPrState *state)
{
  state->type = HF_PR_TYPE_NONE;
  state->scope = 0;
}

/* The RESERVATION KEY of a command that was GOOD should be the guest's key. If it is not, either our picture is old or the target
   does not check RESERVE (some do not): the LU has to tell. A key that we know is kept, a guess is better than none. */
static void
check_key (HfPrState *state, guint64 key)
{
  if (state->key == key)
    return;
  if (state->key == 0)
    state->key = key;
  state->uncertain = TRUE;
}

static void
set_registration (HfPrState *state, const HfPrOut *command)
{
  if (command->new_key == 0) {
    forget (state);
    return;
  }
  state->key = command->new_key;
  state->aptpl = command->aptpl != FALSE;
  state->all_tg_pt = command->all_tg_pt != FALSE;
}

static void
learn_register (HfPrState *state, const HfPrOut *command)
{
  /* RESERVATION KEY 0 is accepted from an unregistered nexus only: what we thought it held is gone. */
  if (command->key == 0)
    release (state);
  else if (command->new_key != 0)
    check_key (state, command->key);
  set_registration (state, command);
}

static void
learn_reserve (HfPrState *state, const HfPrOut *command)
{
  check_key (state, command->key);
  state->type = command->type;
  state->scope = command->scope;
}

/* GOOD without effect for a registrant that does not hold, and then there is nothing to forget. */
static void
learn_release (HfPrState *state, const HfPrOut *command)
{
  check_key (state, command->key);
  release (state);
}

static void
learn_clear (HfPrState *state, const HfPrOut *command)
{
  forget (state);
}

/* Only a holder of types 1, 3, 5, 6 that removes another key knows what it has afterwards: the same. Else: SERVICE ACTION
   RESERVATION KEY 0 or the guest's own may remove the guest, and without the reservation it may have become the holder
   (SPC-4, Preempting). */
static void
learn_preempt (HfPrState *state, const HfPrOut *command)
{
  gboolean sole_holder = state->type != HF_PR_TYPE_NONE && !hf_pr_type_is_all_registrants (state->type);

  check_key (state, command->key);
  if (!sole_holder || command->new_key == 0 || command->new_key == state->key || command->new_key == command->key)
    state->uncertain = TRUE;
}

/* The reservation is another nexus's now; so is the key in it, which says nothing of ours. */
static void
learn_move (HfPrState *state, const HfPrOut *command)
{
  check_key (state, command->key);
  release (state);
  if (command->unregister)
    forget (state);
}

static void
learn_replace_lost (HfPrState *state, const HfPrOut *command)
{
  state->uncertain = TRUE;
}

static void (*const rules[]) (HfPrState *state, const HfPrOut *command) = {
  [HF_PR_OUT_REGISTER] = learn_register,
  [HF_PR_OUT_RESERVE] = learn_reserve,
  [HF_PR_OUT_RELEASE] = learn_release,
  [HF_PR_OUT_CLEAR] = learn_clear,
  [HF_PR_OUT_PREEMPT] = learn_preempt,
  [HF_PR_OUT_PREEMPT_AND_ABORT] = learn_preempt,
  [HF_PR_OUT_REGISTER_AND_IGNORE] = set_registration,
  [HF_PR_OUT_REGISTER_AND_MOVE] = learn_move,
  [HF_PR_OUT_REPLACE_LOST_RESERVATION] = learn_replace_lost,
};
G_STATIC_ASSERT (G_N_ELEMENTS (rules) == HF_PR_OUT_REPLACE_LOST_RESERVATION + 1);

static gboolean
state_equal (const HfPrState *a, const HfPrState *b)
{
  return a->key == b->key && a->type == b->type && a->scope == b->scope && !a->aptpl == !b->aptpl
         && !a->all_tg_pt == !b->all_tg_pt && !a->uncertain == !b->uncertain;
}

gboolean
hf_pr_state_learn (HfPrState *state, const HfPrOut *command, int status)
{
  HfPrState before = *state;

  if (status == HF_SAM_RESERVATION_CONFLICT)
    return FALSE;
  if (status != HF_SAM_GOOD || command->action >= G_N_ELEMENTS (rules))
    state->uncertain = TRUE;
  else
    rules[command->action](state, command);
  return !state_equal (state, &before);
}

/* ---- settling an uncertain state ---- */

/* What the LU shows of one nexus. */
typedef struct {
  gboolean known; /* FALSE: it cannot be told */
  guint64 key;    /* 0: not registered */
  gboolean holder, by_nexus, all_tg_pt;
} Finding;

/* Is a of the two keys that the guest may have the one? Both listed: it cannot be told. */
static void
choose_key (gboolean old_listed, guint64 old_key, gboolean new_listed, guint64 new_key, Finding *ret)
{
  ret->known = !(old_listed && new_listed && old_key != new_key);
  ret->key = old_listed ? old_key : new_listed ? new_key : 0;
}

static void
find_by_key (const HfPrState *state, const HfPrObservation *observation, guint64 candidate_key, Finding *ret)
{
  gboolean old_listed = state->key != 0 && hf_pr_observation_count_key (observation, state->key) > 0;
  gboolean new_listed = candidate_key != 0 && hf_pr_observation_count_key (observation, candidate_key) > 0;

  choose_key (old_listed, state->key, new_listed, candidate_key, ret);
  /* Uncertain without a key to look for: any key that is listed may be the guest's. */
  ret->known &= !state->uncertain || state->key != 0 || candidate_key != 0 || observation->n_keys == 0;
  ret->holder = ret->key != 0 && ret->key == observation->holder_key;
}

/* FALSE: the nexus does not decide. An initiator port may be listed once for each target port; then, with our own target port not
   known, the keys have to agree. */
static gboolean
find_by_nexus (const HfPrObservation *observation, const HfNexus *own, Finding *ret)
{
  Finding found = { .known = TRUE, .by_nexus = TRUE };
  gboolean unknown = FALSE;

  if (!observation->full || own == NULL || own->transport_id.length == 0)
    return FALSE;
  for (guint i = 0; i < observation->n_keys; i++) {
    const HfPrRegistrant *registrant = &observation->registrants[i];
    HfNexusMatch match = hf_nexus_compare (&registrant->nexus, own);

    unknown |= match == HF_NEXUS_UNKNOWN;
    if (match != HF_NEXUS_SAME)
      continue;
    if (found.key != 0 && found.key != registrant->key)
      return FALSE;
    found.key = registrant->key;
    found.holder |= registrant->holder;
    found.all_tg_pt |= registrant->all_tg_pt;
  }
  if (found.key == 0 && unknown)
    return FALSE;
  *ret = found;
  return TRUE;
}

void
hf_pr_state_resolve (HfPrState *state, const HfPrObservation *observation, const HfNexus *own, guint64 candidate_key)
{
  Finding found = { 0 };

  if (!find_by_nexus (observation, own, &found))
    find_by_key (state, observation, candidate_key, &found);
  if (!found.known) {
    state->uncertain = TRUE;
    return;
  }

  state->uncertain = FALSE;
  if (found.key == 0) {
    forget (state);
    return;
  }
  state->key = found.key;
  if (found.by_nexus)
    state->all_tg_pt = found.all_tg_pt;
  /* With types 7 and 8 every registrant holds (SPC-4 6.15.3.4); READ RESERVATION shows key 0 and targets differ in R_HOLDER. */
  release (state);
  if (observation->reserved && (found.holder || hf_pr_type_is_all_registrants (observation->type))) {
    state->type = observation->type;
    state->scope = observation->scope;
  }
}
