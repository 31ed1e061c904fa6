/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The real move, run on the model of an LU for everything that can stand there and everything that others can do meanwhile.
 *
 *   host of the source     host of the destination     a third initiator
 *         S: K, X or -            D: K, X or -              T: K, X or -        K: the VM's key, X: another
 *         +---------------------------+-------------------------+
 *                      one LU, reserved by one of them or not
 *
 * The rules are asserted on the model (move-rig.c watches every command), not on the plan. The verdict is compared with an oracle
 * that is written down here once more from the table of the issue, from what the LU truly holds; where equal keys hide who is who
 * the oracle gives every verdict that what can be read allows.
 *
 * HOLDFAST_MODEL_CASE="..." runs one case and prints each command. HOLDFAST_MODEL_FULL=1 leaves nothing out of the matrices.
 * HOLDFAST_MODEL_SEED=N makes other random runs.
 */
#include "move-rig.h"
#include "state-dir.h"

#include <string.h>

#define VERDICT(v) (1u << HF_VERDICT_##v)
#define FAILURES_SHOWN 30
#define COMMANDS_MAX 80
#define BUDGET_FULL_STATUS 7
#define BUDGET_BLIND 12

static const guint8 all_types[] = { 1, 3, 5, 6, 7, 8 };

/* ---- the oracle ---- */

static gboolean
is_held_by_key (const HfModel *model)
{
  if (model->type == 0)
    return FALSE;
  if (hf_model_is_all_registrants (model))
    return hf_model_count_key (model, RIG_KEY) > 0;
  return rig_has_key (model, (guint)model->holder);
}

/* Rows 6 to 11, for an LU on which every K counts as the VM's. */
static guint
oracle_rows (const RigCase *c, const HfModel *model)
{
  gboolean own = rig_has_key (model, rig_own (c));
  gboolean holding = is_held_by_key (model);
  gboolean alone = hf_model_count_key (model, RIG_KEY) == 1;
  gboolean enough = alone || (!c->gone && hf_model_is_all_registrants (model));

  if (own && (c->saved == 0 ? !holding && (alone || !c->gone) : holding && model->type == c->saved && enough))
    return VERDICT (UNCHANGED);
  if (holding)
    return model->type == c->saved ? VERDICT (MOVED) : VERDICT (TYPE_CHANGED);
  if (c->saved == 0)
    return VERDICT (REGISTERED);
  return model->type != 0 ? VERDICT (PREEMPTED) : VERDICT (RELEASED);
}

/* Row 3: K is, or may be, on a nexus that is not the VM's. Where the VM went is in no record: seen from the source one K
   elsewhere is the destination's. Without names K counts: once as saved, and once for the destination that the source does not
   know. */
static gboolean
is_ambiguous (const RigCase *c, const HfModel *model)
{
  guint listed = hf_model_count_key (model, RIG_KEY);
  guint others = listed - rig_has_key (model, rig_own (c));

  if (c->role == HF_ROLE_SOURCE)
    return others > 1 && (rig_told (c) || listed > 2);
  if (!rig_full_status (c) || c->identified == RIG_ID_NONE)
    return listed > 1;
  if (c->identified == RIG_ID_OURS)
    return others > 1;
  return rig_has_key (model, RIG_T) || (c->identified == RIG_ID_RECORD && rig_has_key (model, RIG_D));
}

/* The verdicts that are right for what the LU holds: one, but where nothing that can be read tells more. */
static guint
oracle (const RigCase *c, const HfModel *model)
{
  guint own = rig_own (c);
  gboolean sees_own = rig_full_status (c) && (c->identified == RIG_ID_BOTH || c->identified == RIG_ID_OURS);
  guint listed = hf_model_count_key (model, RIG_KEY);
  guint others = listed - rig_has_key (model, own);
  gboolean own_other = model->nexuses[own].registered && !rig_has_key (model, own);
  guint rows;

  if (c->saved == RIG_SAVED_NOTHING)
    return VERDICT (NONE);
  if (is_ambiguous (c, model))
    return VERDICT (AMBIGUOUS);
  if (own_other && sees_own)
    return VERDICT (OCCUPIED);
  if (listed == 0)
    return VERDICT (FENCED);
  if (own_other)
    return VERDICT (OCCUPIED);
  rows = oracle_rows (c, model);
  if (sees_own)
    return rows;
  /* K listed once and here: this nexus may be the one that was saved. */
  if (c->role == HF_ROLE_DESTINATION && rig_has_key (model, own))
    rows |= VERDICT (UNCHANGED);
  /* Two others have K and we do not, which shows only when our REGISTER was GOOD. */
  if (c->role == HF_ROLE_SOURCE && others > 1)
    rows |= VERDICT (AMBIGUOUS);
  return rows;
}

/* What the table's last column makes of the LU. */
static void
oracle_after (const RigCase *c, HfVerdict verdict, HfModel *model)
{
  guint own = rig_own (c);
  guint keep = 0;

  if (verdict < HF_VERDICT_TYPE_CHANGED || verdict > HF_VERDICT_REGISTERED)
    return;
  keep = model->type;
  hf_model_set_key (model, own, RIG_KEY);
  if ((verdict == HF_VERDICT_MOVED || verdict == HF_VERDICT_TYPE_CHANGED) && !hf_model_is_all_registrants (model)) {
    for (guint i = 0; i < RIG_NEXUSES; i++)
      if (i != own && rig_has_key (model, i))
        hf_model_set_key (model, i, 0);
    hf_model_set_reservation (model, own, (guint8)keep);
  }
  if (c->gone)
    for (guint i = 0; i < RIG_NEXUSES; i++)
      if (i != own && rig_has_key (model, i))
        hf_model_set_key (model, i, 0);
}

/* Does the LU look as this verdict says? For runs in which others acted. */
static gboolean
fits (const Rig *rig, const HfModel *model)
{
  const RigCase *c = &rig->c;
  guint own = rig->own;
  gboolean has = rig_has_key (model, own);
  gboolean all = hf_model_is_all_registrants (model);
  gboolean holds =
      has && hf_model_is_holder (model, own) && (all || hf_model_count_key (model, RIG_KEY) == 1 || rig_has_key (model, RIG_T));

  switch (rig->verdict) {
  case HF_VERDICT_MOVED:
    return holds && model->type == c->saved;
  case HF_VERDICT_TYPE_CHANGED:
    return holds && model->type != c->saved;
  case HF_VERDICT_PREEMPTED:
    return has && model->type != 0 && !holds;
  case HF_VERDICT_RELEASED:
    return has && model->type == 0;
  case HF_VERDICT_REGISTERED:
    return has && !hf_model_is_holder (model, own);
  case HF_VERDICT_UNCHANGED:
    return has;
  case HF_VERDICT_FENCED:
    return rig_count_ours (model) == 0;
  default:
    return TRUE;
  }
}

/* ---- running and reporting ---- */

typedef struct {
  guint runs, failures, disturbed;
  guint verdicts[HF_N_VERDICTS];
  char *state_dir;
} Suite;

static void
finish_case (Suite *suite, Rig *rig)
{
  g_autofree char *line = NULL, *initial = NULL, *final = NULL;

  suite->runs++;
  suite->verdicts[rig->verdict]++;
  suite->disturbed += rig->acted;
  if (rig->violations->len == 0)
    return;
  if (suite->failures++ >= FAILURES_SHOWN)
    return;
  line = rig_case_to_string (&rig->c);
  initial = rig_describe (&rig->initial);
  final = rig_describe (&rig->model);
  g_printerr ("# FAILED %s | %s -> %s, %s after %u commands (%s) | %s\n", line, initial, final,
              hf_verdict_to_string (rig->verdict), rig->wire.n_commands, rig->text != NULL ? rig->text : "",
              rig->violations->str);
}

static void
finish_suite (Suite *suite, const char *name, guint floor)
{
  g_autoptr (GString) counts = g_string_new (NULL);

  for (guint i = 0; i < HF_N_VERDICTS; i++)
    if (suite->verdicts[i] > 0)
      g_string_append_printf (counts, " %s %u", hf_verdict_to_string (i), suite->verdicts[i]);
  g_test_message ("%s: %u runs, %u disturbed, %u failed;%s", name, suite->runs, suite->disturbed, suite->failures, counts->str);
  g_assert_cmpuint (suite->failures, ==, 0);
  g_assert_cmpuint (suite->runs, >=, floor);
}

static gboolean
is_full (void)
{
  return g_getenv ("HOLDFAST_MODEL_FULL") != NULL;
}

/* A source that does not know its own TransportID finds out by a REGISTER, READ FULL STATUS or not, whether it is still
 * registered. */
static guint
get_budget (const RigCase *c)
{
  return rig_told (c) || (rig_full_status (c) && c->role == HF_ROLE_DESTINATION) ? BUDGET_FULL_STATUS : BUDGET_BLIND;
}

/* S5, S6, S7, S8 of a run in which nobody else acted. */
static void
judge_load (Rig *rig)
{
  const RigCase *c = &rig->c;
  guint allowed = oracle (c, &rig->initial);
  HfModel expected = rig->initial;
  guint budget = get_budget (c);

  if (!(allowed & 1u << rig->verdict))
    rig_violation (rig, "S5: the verdict should be of %x", allowed);
  oracle_after (c, rig->verdict, &expected);
  if (!rig_same (&expected, &rig->model))
    rig_violation (rig, "S5: not the final state of the verdict");
  if (allowed == VERDICT (MOVED) && !c->gone && rig->wire.n_commands > budget)
    rig_violation (rig, "S7: %u commands", rig->wire.n_commands);
  if (rig->commands != rig->wire.n_commands)
    rig_violation (rig, "%u commands counted, %u sent", rig->commands, rig->wire.n_commands);
  if (rig->initial.aptpl && !rig->model.aptpl)
    rig_violation (rig, "S8: APTPL was turned off");
  if (rig->accepted != (rig->verdict != HF_VERDICT_AMBIGUOUS && rig->verdict != HF_VERDICT_OCCUPIED)
      || rig->prepared != rig->accepted)
    rig_violation (rig, "accepted %d, prepared %d", rig->accepted, rig->prepared);
  if (rig->prepared && !rig->committed)
    rig_violation (rig, "prepared and not committed");
}

/* check: only reads (the watcher), and the verdict or its alternative is right. What only a REGISTER tells it need not know. */
static void
judge_check (Rig *rig)
{
  guint allowed = oracle (&rig->c, &rig->initial);
  guint said = 1u << rig->verdict | (rig->certain ? 0 : 1u << rig->alternative);

  if (!rig_told (&rig->c) && allowed & VERDICT (OCCUPIED))
    return;
  if (!(said & allowed))
    rig_violation (rig, "S5: check says %x, should be of %x", said, allowed);
  if (rig_told (&rig->c) && !rig->certain)
    rig_violation (rig, "S5: READ FULL STATUS tells, and check is not certain");
}

/* An aborted and a refused move leave the LU as it was. */
static void
judge_undone (Rig *rig)
{
  const guint changes = VERDICT (TYPE_CHANGED) | VERDICT (RELEASED) | VERDICT (PREEMPTED) | VERDICT (FENCED);
  HfModel expected = rig->initial;
  gboolean refused = rig->c.verb == RIG_REFUSE && changes & 1u << rig->verdict;

  if (refused && (rig->prepared || rig->accepted))
    rig_violation (rig, "on-change=refuse accepted %s", hf_verdict_to_string (rig->verdict));
  if (rig->c.verb == RIG_REFUSE && !refused)
    oracle_after (&rig->c, rig->verdict, &expected);
  if (!rig_same (&expected, &rig->model))
    rig_violation (rig, "S6: something is left behind");
  if (rig->initial.aptpl && !rig->model.aptpl)
    rig_violation (rig, "S8: APTPL was turned off");
}

/* release: the registration goes if all is proved, and else nothing does. */
static void
judge_release (Rig *rig)
{
  const RigCase *c = &rig->c;
  const HfModel *was = &rig->initial;
  guint own = rig_own (c);
  gboolean has = rig_has_key (was, own);
  gboolean exclusive = is_held_by_key (was) && !hf_model_is_all_registrants (was);
  gboolean another = hf_model_count_key (was, RIG_KEY) > (guint)has;
  gboolean holds = exclusive && (!rig_told (c) || was->holder == (int)own);
  HfModel expected = *was;

  if (rig->verdict == HF_VERDICT_UNREGISTERED) {
    hf_model_set_key (&expected, own, 0);
    if (c->saved == RIG_SAVED_NOTHING || !has || holds || !another)
      rig_violation (rig, "released without the right to");
  } else if (rig_told (c) && c->saved != RIG_SAVED_NOTHING && has && !holds && rig_has_key (was, rig_peer (c)))
    rig_violation (rig, "not released: %s", rig->text);
  if (!rig_same (&expected, &rig->model))
    rig_violation (rig, "S6: not the state of the verdict");
  if (has && !another && rig->verdict != HF_VERDICT_REFUSED && c->saved != RIG_SAVED_NOTHING)
    rig_violation (rig, "the last K must be refused");
  if (was->aptpl && !rig->model.aptpl)
    rig_violation (rig, "S8: APTPL was turned off");
}

/* test-move-later.c judges the others. */
static void (*const judges[]) (Rig *rig) = {
  judge_load, judge_check, judge_undone, judge_undone, judge_release, NULL, NULL, NULL
};
G_STATIC_ASSERT (G_N_ELEMENTS (judges) == RIG_N_VERBS);

static guint
run_undisturbed (Suite *suite, const RigCase *c)
{
  Rig rig;
  guint commands;

  rig_init (&rig, c);
  rig_run (&rig, NULL);
  judges[c->verb](&rig);
  finish_case (suite, &rig);
  commands = rig.wire.n_commands;
  rig_clear (&rig);
  return commands;
}

/* ---- the matrices ---- */

/* Every (S, D, T) of no key, K and another; every reservation of every registered nexus, or of some types only. */
typedef void (*CaseFunction) (Suite *suite, const RigCase *c);

static void
each_reservation (Suite *suite, RigCase *c, gboolean every_type, CaseFunction function)
{
  c->type = c->holder = 0;
  function (suite, c);
  for (guint i = 0; i < G_N_ELEMENTS (all_types); i++)
    for (c->holder = 0; c->holder < RIG_NEXUSES; c->holder++) {
      c->type = all_types[i];
      if (c->keys[c->holder] != RIG_NO_KEY && (every_type || c->type == 1 || c->type == 5 || c->type == 7))
        function (suite, c);
    }
}

static void
each_state (Suite *suite, RigCase *c, gboolean every_type, CaseFunction function)
{
  for (c->keys[RIG_S] = 0; c->keys[RIG_S] < 3; c->keys[RIG_S]++)
    for (c->keys[RIG_D] = 0; c->keys[RIG_D] < 3; c->keys[RIG_D]++)
      for (c->keys[RIG_T] = 0; c->keys[RIG_T] < 3; c->keys[RIG_T]++)
        each_reservation (suite, c, every_type, function);
}

static const guint8 all_saved[] = { RIG_SAVED_NOTHING, 0, 1, 3, 5, 6, 7, 8 };

static void
each_saved (Suite *suite, RigCase *c, CaseFunction function)
{
  for (guint i = 0; i < G_N_ELEMENTS (all_saved); i++) {
    guint8 saved = all_saved[i];
    c->saved = saved;
    if (is_full () || saved == RIG_SAVED_NOTHING || saved == 0 || saved == 1 || saved == 5 || saved == 7)
      each_state (suite, c, is_full () || saved == c->target + 1, function);
  }
}

static void
run_one (Suite *suite, const RigCase *c)
{
  run_undisturbed (suite, c);
}

/* Only a source releases. */
static guint
first_role (guint verb)
{
  return verb == RIG_RELEASE_VERB ? HF_ROLE_SOURCE : HF_ROLE_DESTINATION;
}

static void
run_matrix (const char *name, guint verb, guint aptpl, guint gone, guint floor)
{
  Suite suite = { 0 };
  RigCase c = { .verb = verb, .aptpl = aptpl, .gone = gone };

  /* tgt, the last one, has no APTPL */
  for (c.target = 0; c.target < (aptpl != 0 ? RIG_TGT : RIG_N_TARGETS); c.target++)
    for (c.identified = 0; c.identified < 2; c.identified++)
      for (c.role = first_role (verb); c.role < 2; c.role++)
        each_saved (&suite, &c, run_one);
  finish_suite (&suite, name, floor);
}

static void
test_load (void)
{
  run_matrix ("load", RIG_LOAD, 0, 0, 20000);
}

/* READ FULL STATUS with only our name known, or only the source's. */
static void
test_half_known (void)
{
  Suite suite = { 0 };
  RigCase c = { .verb = RIG_LOAD };

  for (c.target = RIG_SPC; c.target <= RIG_LIO; c.target += RIG_LIO - RIG_SPC)
    for (c.identified = RIG_ID_OURS; c.identified < RIG_N_IDENTIFIED; c.identified++)
      each_saved (&suite, &c, run_one);
  finish_suite (&suite, "half known", 4000);
}

static void
test_check (void)
{
  run_matrix ("check", RIG_CHECK, 0, 0, 20000);
}

static void
test_abort (void)
{
  run_matrix ("abort", RIG_ABORT, 0, 0, 20000);
}

static void
test_refuse (void)
{
  run_matrix ("refuse", RIG_REFUSE, 0, 0, 20000);
}

static void
test_release (void)
{
  run_matrix ("release", RIG_RELEASE_VERB, 0, 0, 10000);
}

/* load --source-gone: what the other host had is removed too, and nobody else's. */
static void
test_source_gone (void)
{
  run_matrix ("source gone", RIG_LOAD, 0, 1, 20000);
}

/* APTPL stays on, whether the guest chose it or somebody else turned it on; and the source's own unregistering keeps it. */
static void
test_aptpl (void)
{
  run_matrix ("aptpl saved", RIG_LOAD, 1, 0, 15000);
  run_matrix ("aptpl active", RIG_LOAD, 2, 0, 15000);
  run_matrix ("aptpl saved, abort", RIG_ABORT, 1, 0, 15000);
  run_matrix ("aptpl active, abort", RIG_ABORT, 2, 0, 15000);
  run_matrix ("aptpl saved, release", RIG_RELEASE_VERB, 1, 0, 7500);
  run_matrix ("aptpl active, release", RIG_RELEASE_VERB, 2, 0, 7500);
}

/* ---- others act ---- */

/* The states from which a move does something, and some in which it must not. */
static const guint8 keysets[][3] = {
  { RIG_HAS_KEY, RIG_NO_KEY, RIG_NO_KEY },     { RIG_HAS_KEY, RIG_NO_KEY, RIG_HAS_OTHER },
  { RIG_HAS_KEY, RIG_HAS_KEY, RIG_HAS_OTHER }, { RIG_NO_KEY, RIG_HAS_KEY, RIG_HAS_OTHER },
  { RIG_NO_KEY, RIG_NO_KEY, RIG_HAS_OTHER },   { RIG_HAS_KEY, RIG_HAS_OTHER, RIG_NO_KEY },
  { RIG_HAS_OTHER, RIG_HAS_KEY, RIG_NO_KEY },  { RIG_HAS_KEY, RIG_NO_KEY, RIG_HAS_KEY },
};

/* As oracle for a run that others disturbed: the LU is as the verdict says, now or, if we sent nothing since, before they acted.
 */
static void
judge_disturbed (Rig *rig)
{
  const RigCase *c = &rig->c;
  gboolean late = rig->last_out < c->at;
  gboolean hidden = c->keys[RIG_T] == RIG_HAS_KEY && (!rig_told (c) || c->role == HF_ROLE_SOURCE);
  gboolean own = rig_has_key (&rig->model, rig->own);

  if (rig->wire.n_commands > COMMANDS_MAX)
    rig_violation (rig, "S6: %u commands", rig->wire.n_commands);
  if (rig->verdict == HF_VERDICT_ERROR)
    rig_violation (rig, "S6: one action of others led to an error");
  if (rig->fenced && (rig_count_ours (&rig->model) > 0 || rig_is_held (&rig->model)) && !hidden)
    rig_violation (rig, "S3: K of a fenced VM is registered");
  if (!fits (rig, &rig->model) && !(late && fits (rig, &rig->at_action)))
    rig_violation (rig, "S5: the LU is not as the verdict says");
  if (!rig->accepted && own && c->keys[rig_own (c)] != RIG_HAS_KEY)
    rig_violation (rig, "S6: not accepted, and our registration left behind");
}

static void
judge_disturbed_undo (Rig *rig)
{
  gboolean own = rig_has_key (&rig->model, rig->own);
  /* The other host's K went meanwhile: ours is the VM's last one, stays, and abort says that it failed. */
  gboolean last = rig->lost && !rig->fenced && !rig->committed;

  if (own && rig->c.keys[rig_own (&rig->c)] != RIG_HAS_KEY && !last)
    rig_violation (rig, "S6: our registration left behind");
  if (rig->verdict == HF_VERDICT_UNREGISTERED && own)
    rig_violation (rig, "S5: unregistered, but K is there");
}

static void
disturb (Suite *suite, const RigCase *base)
{
  RigCase c = *base;

  for (c.action = RIG_PREEMPT; c.action < RIG_N_ACTIONS; c.action++) {
    gboolean acted = TRUE;
    for (c.at = 1; acted; c.at++) {
      Rig rig;
      rig_init (&rig, &c);
      rig_run (&rig, NULL);
      acted = rig.acted;
      if (acted) {
        (c.verb == RIG_LOAD ? judge_disturbed : judge_disturbed_undo) (&rig);
        finish_case (suite, &rig);
      }
      rig_clear (&rig);
      g_assert_cmpuint (c.at, <=, COMMANDS_MAX);
    }
  }
}

/* Saved as the VM holds it, saved as another type, saved without. */
static void
each_saved_near (Suite *suite, const RigCase *base, CaseFunction function)
{
  RigCase c = *base;

  c.saved = c.type != 0 ? c.type : 5;
  function (suite, &c);
  c.saved = 0;
  function (suite, &c);
  if (!is_full ())
    return;
  c.saved = c.type == 5 ? 6 : c.type == 7 ? 8 : 7;
  function (suite, &c);
}

static CaseFunction inner;

static void
run_near (Suite *suite, const RigCase *c)
{
  each_saved_near (suite, c, inner);
}

/* Where READ FULL STATUS does not work, knowing names makes no difference: the plain matrices prove it, the others need not. */
static gboolean
is_worth_it (const RigCase *c)
{
  return rig_full_status (c) || c->identified == RIG_ID_NONE || is_full ();
}

static void
each_side (Suite *suite, guint verb, guint n_keysets, CaseFunction function)
{
  RigCase c = { .verb = verb };

  inner = function;
  for (c.target = 0; c.target < RIG_N_TARGETS; c.target++)
    for (c.identified = 0; c.identified < 2; c.identified++)
      for (c.role = first_role (verb); c.role < 2; c.role++)
        for (guint i = 0; i < n_keysets && is_worth_it (&c); i++) {
          for (guint n = 0; n < 3; n++)
            c.keys[n] = keysets[i][n];
          each_reservation (suite, &c, is_full (), run_near);
        }
}

static void
test_disturbed_load (void)
{
  Suite suite = { 0 };

  each_side (&suite, RIG_LOAD, G_N_ELEMENTS (keysets), disturb);
  finish_suite (&suite, "load, disturbed", 60000);
}

static void
disturb_gone (Suite *suite, const RigCase *base)
{
  RigCase c = *base;

  c.gone = 1;
  disturb (suite, &c);
}

static void
test_disturbed_gone (void)
{
  Suite suite = { 0 };

  each_side (&suite, RIG_LOAD, is_full () ? 4 : 2, disturb_gone);
  finish_suite (&suite, "source gone, disturbed", 15000);
}

static void
test_disturbed_abort (void)
{
  Suite suite = { 0 };

  each_side (&suite, RIG_ABORT, is_full () ? 4 : 3, disturb);
  finish_suite (&suite, "abort, disturbed", 25000);
}

static void
test_disturbed_release (void)
{
  Suite suite = { 0 };

  each_side (&suite, RIG_RELEASE_VERB, 4, disturb);
  finish_suite (&suite, "release, disturbed", 17000);
}

/* Others act again and again. What the LU looks like in the end is anybody's, but the rules hold for every command of ours. */
static void
judge_random (Rig *rig)
{
  gboolean seen = rig->impostor || rig->c.keys[RIG_T] == RIG_HAS_KEY;
  gboolean hidden = seen && (!rig_told (&rig->c) || rig->c.role == HF_ROLE_SOURCE);
  gboolean added = rig_has_key (&rig->model, rig->own) && rig->c.keys[rig_own (&rig->c)] != RIG_HAS_KEY;

  if (hidden)
    g_string_truncate (rig->violations, 0); /* what is the VM's and what the other's cannot be told */
  if (rig->wire.n_commands > COMMANDS_MAX)
    rig_violation (rig, "S6: %u commands", rig->wire.n_commands);
  if (rig->fenced && rig_count_ours (&rig->model) > 0 && !hidden)
    rig_violation (rig, "S3: K of a fenced VM is registered");
  /* After a take-over nothing else of the VM's may be left. */
  if (!rig->accepted && !rig->took_over && added && !hidden)
    rig_violation (rig, "S6: not accepted, and our registration left behind");
}

static void
run_random (Suite *suite, const RigCase *c)
{
  Rig rig;

  rig_init (&rig, c);
  rig_run (&rig, NULL);
  judge_random (&rig);
  finish_case (suite, &rig);
  rig_clear (&rig);
}

static guint
pick (GRand *rand, guint n)
{
  return (guint)g_rand_int_range (rand, 0, (gint32)n);
}

/* The same runs every time; HOLDFAST_MODEL_SEED=N makes others. A failing case tells its own seed. */
static void
test_random (void)
{
  const char *seed = g_getenv ("HOLDFAST_MODEL_SEED");
  GRand *rand = g_rand_new_with_seed (seed != NULL ? (guint32)g_ascii_strtoull (seed, NULL, 10) : 1);
  Suite suite = { 0 };

  for (guint i = 0; i < (is_full () ? 400000u : 15000u); i++) {
    const guint8 *keys = keysets[pick (rand, G_N_ELEMENTS (keysets))];
    RigCase c = { .verb = RIG_LOAD, .keys = { keys[0], keys[1], keys[2] } };
    c.target = pick (rand, RIG_N_TARGETS);
    c.identified = pick (rand, 2);
    c.role = pick (rand, 2);
    c.gone = pick (rand, 4) == 0;
    c.holder = pick (rand, RIG_NEXUSES);
    c.type = c.keys[c.holder] != RIG_NO_KEY ? all_types[pick (rand, G_N_ELEMENTS (all_types))] : 0;
    c.saved = pick (rand, 2) == 0 ? c.type : 5;
    c.random = 1 + pick (rand, G_MAXINT - 1);
    run_random (&suite, &c);
  }
  g_rand_free (rand);
  finish_suite (&suite, "random", 15000);
}

/* ---- faults ---- */

static gboolean
is_answered (guint fault)
{
  return fault == HF_MODEL_FAULT_BUSY || fault == HF_MODEL_FAULT_UNIT_ATTENTION;
}

/* What the same case comes to without faults. */
typedef struct {
  HfModel final;
  HfVerdict verdict;
  guint commands;
} Reference;

static Reference
run_reference (const RigCase *c)
{
  RigCase plain = *c;
  Reference ret;
  Rig rig;

  plain.fault = plain.fault_at = plain.dead = 0;
  rig_init (&rig, &plain);
  rig_run (&rig, NULL);
  ret = (Reference){ rig.model, rig.verdict, rig.wire.n_commands };
  rig_clear (&rig);
  return ret;
}

/* tgt takes every login for a new nexus, so the same registrations cannot be asked for: nothing is lost, and what is said is
 * true. */
static void
judge_end (Rig *rig, const Reference *reference, const char *when)
{
  gboolean same = rig->verdict == reference->verdict || rig->verdict == HF_VERDICT_UNCHANGED;
  /* Whether it was there before or came by the REGISTER without an answer need not be told. */
  gboolean as_good = reference->verdict == HF_VERDICT_UNCHANGED && rig->accepted && fits (rig, &rig->model);

  if (rig->c.target == RIG_TGT) {
    if (rig_count_ours (&reference->final) > 0 && rig_count_ours (&rig->model) == 0)
      rig_violation (rig, "S10: %s: K is lost", when);
    if (rig->verdict == HF_VERDICT_FENCED && reference->verdict != HF_VERDICT_FENCED)
      rig_violation (rig, "S10: %s: not fenced", when);
    if (rig->accepted && !fits (rig, &rig->model))
      rig_violation (rig, "S10: %s: the LU is not as the verdict says", when);
    return;
  }
  if (!same && !as_good)
    rig_violation (rig, "S10: %s: the verdict without the fault is %s", when, hf_verdict_to_string (reference->verdict));
  if (!rig_same (&rig->model, &reference->final))
    rig_violation (rig, "S10: %s: not the final state without the fault", when);
}

/* One fault, then, unless the move got over it, the program again with the same record and journal. */
static void
run_fault (Suite *suite, const RigCase *c, const Reference *reference)
{
  Rig rig;

  rig_init (&rig, c);
  rig_run (&rig, suite->state_dir);
  if (is_answered (c->fault) || (rig.accepted && rig.committed))
    judge_end (&rig, reference, "at once");
  else if (rig.verdict != HF_VERDICT_ERROR && rig.verdict != reference->verdict)
    rig_violation (&rig, "S10: neither an error nor the verdict without the fault");
  if (!is_answered (c->fault)) {
    rig_restart (&rig);
    rig_run (&rig, suite->state_dir);
    judge_end (&rig, reference, "again");
  }
  finish_case (suite, &rig);
  rig_clear (&rig);
}

static void
break_down (Suite *suite, const RigCase *base)
{
  Reference reference = run_reference (base);
  RigCase c = *base;

  for (c.fault = HF_MODEL_FAULT_LINK_BEFORE; c.fault < HF_N_MODEL_FAULTS; c.fault++)
    for (c.dead = 0; c.dead < (c.fault <= HF_MODEL_FAULT_LINK_AFTER ? 2u : 1u); c.dead++)
      for (c.fault_at = 1; c.fault_at <= reference.commands; c.fault_at++)
        if (c.fault != HF_MODEL_FAULT_BUSY || c.identified)
          run_fault (suite, &c, &reference);
}

static void
test_faults (void)
{
  Suite suite = { .state_dir = make_state_dir () };

  each_side (&suite, RIG_LOAD, is_full () ? 4 : 2, break_down);
  remove_folder (suite.state_dir);
  g_free (suite.state_dir);
  finish_suite (&suite, "faults", 11000);
}

/* The host dies at a command and others fence the VM right before or at any time after it: the rerun leaves K on none of our
 * nexuses. */
static void
run_crash (Suite *suite, const RigCase *c, gboolean later)
{
  Rig rig;

  rig_init (&rig, c);
  if (later)
    rig.c.action = RIG_NOTHING;
  rig_run (&rig, suite->state_dir);
  rig.c.action = c->action;
  rig.c.at = 1;
  rig_restart (&rig);
  if (later)
    rig.c.action = c->action;
  rig_run (&rig, suite->state_dir);
  if (rig.fenced && c->target != RIG_TGT && rig_count_ours (&rig.model) > 0)
    rig_violation (&rig, "S3: K of a fenced VM is registered after the rerun");
  if (rig.fenced && rig_has_key (&rig.model, rig.own))
    rig_violation (&rig, "S3: this nexus has K of a fenced VM after the rerun");
  if (rig.fenced && rig.verdict != HF_VERDICT_FENCED && !(c->target == RIG_TGT && rig.verdict == HF_VERDICT_AMBIGUOUS))
    rig_violation (&rig, "S3: the rerun should say fenced");
  rig.c = *c;
  finish_case (suite, &rig);
  rig_clear (&rig);
}

static void
crash (Suite *suite, const RigCase *base)
{
  Reference reference = run_reference (base);
  RigCase c = *base;

  c.dead = 1;
  for (c.action = RIG_PREEMPT; c.action <= RIG_CLEAR; c.action++)
    for (c.fault = HF_MODEL_FAULT_LINK_BEFORE; c.fault <= HF_MODEL_FAULT_LINK_AFTER; c.fault++)
      for (c.fault_at = 1; c.fault_at <= reference.commands; c.fault_at++) {
        c.at = c.fault_at;
        run_crash (suite, &c, FALSE);
        run_crash (suite, &c, TRUE);
      }
}

static void
test_crash_and_fence (void)
{
  Suite suite = { .state_dir = make_state_dir () };

  each_side (&suite, RIG_LOAD, is_full () ? 4 : 2, crash);
  remove_folder (suite.state_dir);
  g_free (suite.state_dir);
  finish_suite (&suite, "crash and fence", 12000);
}

/* HOLDFAST_MODEL_CASE: one case, command by command. */
static void
test_single (void)
{
  Suite suite = { 0 };
  RigCase c;
  Rig rig;

  g_assert_true (rig_case_parse (g_getenv ("HOLDFAST_MODEL_CASE"), &c));
  g_assert_nonnull (judges[c.verb]);
  if (c.fault != HF_MODEL_FAULT_NONE) {
    Reference reference = run_reference (&c);
    suite.state_dir = make_state_dir ();
    if (c.action == RIG_NOTHING)
      run_fault (&suite, &c, &reference);
    else
      run_crash (&suite, &c, FALSE);
    remove_folder (suite.state_dir);
    g_free (suite.state_dir);
  } else if (c.random != 0) {
    run_random (&suite, &c);
  } else {
    rig_init (&rig, &c);
    rig_run (&rig, NULL);
    if (c.action == RIG_NOTHING)
      judges[c.verb](&rig);
    else
      (c.verb == RIG_LOAD ? judge_disturbed : judge_disturbed_undo) (&rig);
    finish_case (&suite, &rig);
    rig_clear (&rig);
  }
  finish_suite (&suite, "single", 1);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  if (g_getenv ("HOLDFAST_MODEL_CASE") != NULL) {
    g_test_add_func ("/move-model/single", test_single);
    return g_test_run ();
  }
  g_test_add_func ("/move-model/load", test_load);
  g_test_add_func ("/move-model/half-known", test_half_known);
  g_test_add_func ("/move-model/check", test_check);
  g_test_add_func ("/move-model/abort", test_abort);
  g_test_add_func ("/move-model/refuse", test_refuse);
  g_test_add_func ("/move-model/release", test_release);
  g_test_add_func ("/move-model/source-gone", test_source_gone);
  g_test_add_func ("/move-model/aptpl", test_aptpl);
  g_test_add_func ("/move-model/disturbed-load", test_disturbed_load);
  g_test_add_func ("/move-model/disturbed-gone", test_disturbed_gone);
  g_test_add_func ("/move-model/disturbed-abort", test_disturbed_abort);
  g_test_add_func ("/move-model/disturbed-release", test_disturbed_release);
  g_test_add_func ("/move-model/random", test_random);
  g_test_add_func ("/move-model/faults", test_faults);
  g_test_add_func ("/move-model/crash-and-fence", test_crash_and_fence);
  return g_test_run ();
}
