/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The move of a VM that runs: some LUs are taken over at once, the others once it is known where the VM runs, or never.
 *
 * The rig's watcher (move-rig.c) asserts the safety rules on every command; here stands what must be true at the end of a run.
 * HOLDFAST_MODEL_CASE="..." runs one case and prints each command.
 */
#include "move-rig.h"
#include "move-world.h"
#include "state-dir.h"

#include <string.h>

#define FAILURES_SHOWN 20
#define COMMANDS_MAX 80

static const guint8 all_types[] = { 0, 1, 3, 5, 6, 7, 8 };

typedef struct {
  guint runs, failures, disturbed;
  guint verdicts[HF_N_VERDICTS];
  guint refused; /* runs that did not end well, and may not */
  char *state_dir;
} Suite;

static void
finish_case (Suite *suite, Rig *rig)
{
  g_autofree char *line = rig_case_to_string (&rig->c);
  g_autofree char *initial = rig_describe (&rig->initial);
  g_autofree char *final = rig_describe (&rig->model);

  suite->runs++;
  suite->verdicts[rig->verdict]++;
  suite->disturbed += rig->acted;
  suite->refused += !rig->committed;
  if (rig->violations->len == 0 || suite->failures++ >= FAILURES_SHOWN)
    return;
  g_printerr ("# FAILED %s | %s -> %s, %s (%s) | %s\n", line, initial, final, hf_verdict_to_string (rig->verdict),
              rig->text != NULL ? rig->text : "", rig->violations->str);
}

static void
finish_suite (const Suite *suite, const char *name, guint floor)
{
  g_autoptr (GString) counts = g_string_new (NULL);

  for (guint i = 0; i < HF_N_VERDICTS; i++)
    if (suite->verdicts[i] > 0)
      g_string_append_printf (counts, " %s %u", hf_verdict_to_string (i), suite->verdicts[i]);
  g_test_message ("%s: %u runs, %u disturbed, %u failed, %u without success;%s", name, suite->runs, suite->disturbed,
                  suite->failures, suite->refused, counts->str);
  g_assert_cmpuint (suite->failures, ==, 0);
  g_assert_cmpuint (suite->runs, >=, floor);
}

/* ---- the end of a run ---- */

static gboolean
is_exclusive (guint type)
{
  return type != 0 && type < HF_PR_TYPE_WRITE_EXCLUSIVE_ALL_REGISTRANTS;
}

/* Nobody acted: the LU is as after a load, and a look was spared nowhere. */
static void
judge_later (Rig *rig)
{
  const RigCase *c = &rig->c;
  HfVerdict expected = c->type != 0 ? HF_VERDICT_MOVED : HF_VERDICT_REGISTERED;

  if (rig->verdict != expected || !rig->committed)
    rig_violation (rig, "the verdict should be %s", hf_verdict_to_string (expected));
  if (!rig_has_key (&rig->model, RIG_D) || rig_has_key (&rig->model, RIG_S) == is_exclusive (c->type))
    rig_violation (rig, "K is not where it should be");
  if (rig->model.type != c->type || (c->type != 0 && !hf_model_is_holder (&rig->model, RIG_D)))
    rig_violation (rig, "the reservation is not where it should be");
}

static void
judge_undone (Rig *rig)
{
  if (!rig_same (&rig->initial, &rig->model) || !rig->committed)
    rig_violation (rig, "something is left behind");
}

static gboolean
is_fence_known (const Rig *rig)
{
  return rig->fenced && rig->c.keys[RIG_T] != RIG_HAS_KEY && !rig->impostor;
}

/* A VM that was fenced stays fenced; one that was not keeps its registration here, whatever else becomes of it. */
static void
judge_later_disturbed (Rig *rig)
{
  gboolean own = rig_has_key (&rig->model, rig->own);

  if (rig->wire.n_commands > COMMANDS_MAX)
    rig_violation (rig, "%u commands", rig->wire.n_commands);
  if (is_fence_known (rig) && (rig_count_ours (&rig->model) > 0 || rig_is_held (&rig->model)))
    rig_violation (rig, "K of a fenced VM is registered");
  if (is_fence_known (rig) && rig->committed && rig->last_out >= rig->c.at && rig->verdict != HF_VERDICT_FENCED)
    rig_violation (rig, "the VM was fenced");
  /* lost: the other host's K went away, or somebody acted right before our PREEMPT, which no rule can foresee. */
  if (rig->prepared && !rig->fenced && !rig->lost && !own)
    rig_violation (rig, "a VM that runs here lost its registration");
  if (rig->prepared && !rig->committed && rig->verdict != HF_VERDICT_AMBIGUOUS)
    rig_violation (rig, "not committed");
}

static void
judge_undone_disturbed (Rig *rig)
{
  gboolean own = rig_has_key (&rig->model, rig->own);
  gboolean last = rig->lost && !rig->fenced;

  if (is_fence_known (rig) && rig_count_ours (&rig->model) > 0)
    rig_violation (rig, "K of a fenced VM is registered");
  if (own && !last)
    rig_violation (rig, "our registration is left behind");
  if (own && rig->prepared && (rig->committed || !rig->kept))
    rig_violation (rig, "what is left behind is not said");
}

/* ---- others act between any two commands ---- */

static void
disturb (Suite *suite, const RigCase *base)
{
  RigCase c = *base;
  void (*judge) (Rig * rig) = c.verb == RIG_LATER ? judge_later_disturbed : judge_undone_disturbed;

  for (c.action = RIG_PREEMPT; c.action < RIG_N_ACTIONS; c.action++) {
    gboolean acted = TRUE;
    for (c.at = 1; acted; c.at++) {
      Rig rig;
      rig_init (&rig, &c);
      rig_run (&rig, NULL);
      acted = rig.acted;
      if (acted) {
        judge (&rig);
        finish_case (suite, &rig);
      }
      rig_clear (&rig);
      g_assert_cmpuint (c.at, <=, COMMANDS_MAX);
    }
  }
}

static void
run_plain (Suite *suite, const RigCase *c)
{
  Rig rig;

  rig_init (&rig, c);
  rig_run (&rig, NULL);
  (c->verb == RIG_LATER ? judge_later : judge_undone) (&rig);
  finish_case (suite, &rig);
  rig_clear (&rig);
}

/* The VM on the source, alone or beside a third, on each target. */
static void
each_case (Suite *suite, guint verb, void (*function) (Suite *suite, const RigCase *c))
{
  RigCase c = { .verb = verb, .keys = { RIG_HAS_KEY, RIG_NO_KEY, RIG_NO_KEY }, .holder = RIG_S };

  for (c.target = 0; c.target < RIG_N_TARGETS; c.target++)
    for (c.identified = 0; c.identified < 2; c.identified++)
      for (c.keys[RIG_T] = RIG_NO_KEY; c.keys[RIG_T] <= RIG_HAS_OTHER; c.keys[RIG_T] += RIG_HAS_OTHER)
        for (guint i = 0; i < G_N_ELEMENTS (all_types); i++) {
          c.type = c.saved = all_types[i];
          function (suite, &c);
        }
}

static void
test_later (void)
{
  Suite suite = { 0 };

  each_case (&suite, RIG_LATER, run_plain);
  finish_suite (&suite, "later", 140);
  g_assert_cmpuint (suite.refused, ==, 0);
}

static void
test_later_disturbed (void)
{
  Suite suite = { 0 };

  each_case (&suite, RIG_LATER, disturb);
  finish_suite (&suite, "later, disturbed", 5000);
}

static void
test_later_abort (void)
{
  Suite suite = { 0 };

  each_case (&suite, RIG_LATER_ABORT, run_plain);
  finish_suite (&suite, "later abort", 140);
}

static void
test_later_abort_disturbed (void)
{
  Suite suite = { 0 };

  each_case (&suite, RIG_LATER_ABORT, disturb);
  finish_suite (&suite, "later abort, disturbed", 5000);
}

/* ---- an abort of what an earlier run prepared ---- */

/* Whether the registration was told to be the destination's or not, abort never adds one. */
static void
note_register (HfModel *model, guint nexus, guint index G_GNUC_UNUSED, const guint8 *cdb, gpointer user_data)
{
  Rig *rig = user_data;
  gboolean has = rig_has_key (model, nexus);

  if (cdb[0] == 0x5f && cdb[1] != 0)
    rig_violation (rig, "an abort sends REGISTER and nothing else");
  rig->prepared |= has;
}

static void
judge_earlier (Rig *rig, const HfModel *before, gboolean took_over)
{
  gboolean own = rig_has_key (&rig->model, rig->own);

  if (is_fence_known (rig) && rig_count_ours (&rig->model) > 0 && rig->c.target != RIG_TGT)
    rig_violation (rig, "K of a fenced VM is registered");
  if (own && !rig_has_key (before, rig->own))
    rig_violation (rig, "an abort registered");
  if (own && !took_over && rig_told (&rig->c) && !rig->lost)
    rig_violation (rig, "the registration is left behind");
  if (own && rig->committed && !took_over)
    rig_violation (rig, "what is left behind is not said");
  if (took_over && !rig->fenced && rig_count_ours (&rig->model) == 0)
    rig_violation (rig, "what was taken over is gone");
  if (rig_told (&rig->c) && !rig->committed && !rig->lost)
    rig_violation (rig, "an abort where everything is told ended in %s (%s)", hf_verdict_to_string (rig->verdict), rig->text);
}

/* The program dies at a command of a Load, others act, and the next program takes back what there is. */
static gboolean
run_earlier (Suite *suite, const RigCase *c)
{
  HfModel before;
  gboolean reached, took_over;
  Rig rig;

  rig_init (&rig, c);
  rig.c.action = RIG_NOTHING;
  rig_run (&rig, suite->state_dir);
  reached = rig.wire.n_commands >= c->fault_at;
  if (!reached) {
    rig_clear (&rig);
    return FALSE;
  }
  took_over = rig.took_over;
  rig_restart (&rig);
  rig.c.action = c->action;
  rig.c.at = 1;
  rig.c.verb = RIG_EARLIER_ABORT;
  rig.also = note_register;
  rig.also_data = &rig;
  before = rig.model;
  rig_run (&rig, suite->state_dir);
  judge_earlier (&rig, &before, took_over);
  rig.c = *c;
  finish_case (suite, &rig);
  rig_clear (&rig);
  return TRUE;
}

static void
crash (Suite *suite, const RigCase *base)
{
  static const guint actions[] = { RIG_NOTHING, RIG_PREEMPT, RIG_CLEAR, RIG_PEER_UNREGISTERS };
  RigCase c = *base;

  c.dead = 1;
  for (guint i = 0; i < G_N_ELEMENTS (actions); i++)
    for (c.fault = HF_MODEL_FAULT_LINK_BEFORE; c.fault <= HF_MODEL_FAULT_LINK_AFTER; c.fault++) {
      c.action = actions[i];
      for (c.fault_at = 1; run_earlier (suite, &c); c.fault_at++)
        g_assert_cmpuint (c.fault_at, <=, COMMANDS_MAX);
    }
}

static void
test_earlier (void)
{
  Suite suite = { .state_dir = make_state_dir () };

  each_case (&suite, RIG_LOAD, crash);
  remove_folder (suite.state_dir);
  g_free (suite.state_dir);
  finish_suite (&suite, "abort of an earlier run", 5000);
  g_assert_cmpuint (suite.verdicts[HF_VERDICT_UNREGISTERED], >, 200);
}

/* ---- two LUs ---- */

#define N 2

static gboolean
is_type_1 (const HfMoveUnit *unit, gpointer user_data G_GNUC_UNUSED)
{
  return unit->take_over_due && unit->type == HF_PR_TYPE_WRITE_EXCLUSIVE;
}

typedef struct {
  World worlds[N];
  HfRecord *record;
  HfMove *move;
  char *state_dir;
} Pair;

/* The first is of type 1, the second of type 5; the first is taken over, the second not yet. */
static void
pair_init (Pair *pair)
{
  static const guint8 types[N] = { 1, 5 };
  static const guint source = S1;
  HfMoveOptions options = { .timeout_ms = 5000 };

  *pair = (Pair){ .record = hf_record_new ("vm"), .state_dir = make_state_dir () };
  for (guint i = 0; i < N; i++) {
    World *world = &pair->worlds[i];
    world_init (world, HF_MODEL_LIO, (guint8)i);
    hf_model_set_key (&world->model, S1, K);
    hf_model_set_key (&world->model, T, X);
    hf_model_set_reservation (&world->model, S1, types[i]);
    add_unit (pair->record, world, types[i], &source, 1, FALSE);
    world_plug (world, D1, TRUE);
  }
  options.state_dir = pair->state_dir;
  pair->move = start_move_with (pair->record, &options, pair->worlds, N);
  g_assert_true (hf_move_prepare (pair->move));
  g_assert_true (hf_move_get_unit (pair->move, 0)->take_over_due);
  g_assert_true (hf_move_commit_some (pair->move, is_type_1, NULL));
  g_assert_false (hf_move_get_unit (pair->move, 0)->take_over_due);
  g_assert_true (hf_move_get_unit (pair->move, 0)->taken_over);
  g_assert_true (hf_move_get_unit (pair->move, 1)->take_over_due);
  g_assert_false (hf_move_get_unit (pair->move, 1)->taken_over);
  g_assert_cmpint (pair->worlds[0].model.holder, ==, D1);
  g_assert_cmpint (pair->worlds[1].model.holder, ==, S1);
}

static gboolean
has_journal (const Pair *pair)
{
  g_autofree char *path = g_strdup_printf ("%s/destination/moves/%s.journal", pair->state_dir, pair->record->id);

  return g_file_test (path, G_FILE_TEST_EXISTS);
}

static void
pair_clear (Pair *pair)
{
  hf_move_free (pair->move);
  for (guint i = 0; i < N; i++)
    world_clear (&pair->worlds[i]);
  hf_record_free (pair->record);
  remove_folder (pair->state_dir);
  g_free (pair->state_dir);
}

/* The rest follows, and the journal ends with it. */
static void
test_pair_commit (void)
{
  Pair pair;
  guint commands;

  pair_init (&pair);
  g_assert_true (has_journal (&pair));
  commands = pair.worlds[0].wire.n_commands;
  g_assert_true (hf_move_commit (pair.move));
  g_assert_cmpuint (pair.worlds[0].wire.n_commands, ==, commands);
  g_assert_cmpint (pair.worlds[1].model.holder, ==, D1);
  g_assert_false (has_journal (&pair));
  pair_clear (&pair);
}

/* The rest is taken back; what was committed stays as it is, and is not asked. */
static void
test_pair_abort (void)
{
  Pair pair;
  guint commands;

  pair_init (&pair);
  commands = pair.worlds[0].wire.n_commands;
  g_assert_true (hf_move_abort (pair.move));
  g_assert_cmpuint (pair.worlds[0].wire.n_commands, ==, commands);
  g_assert_cmpint (pair.worlds[0].model.holder, ==, D1);
  g_assert_true (hf_move_get_unit (pair.move, 0)->accepted);
  g_assert_cmpint (pair.worlds[1].model.holder, ==, S1);
  g_assert_cmphex (pair.worlds[1].model.nexuses[D1].key, ==, 0);
  g_assert_false (hf_move_get_unit (pair.move, 1)->accepted);
  g_assert_false (hf_move_get_unit (pair.move, 1)->take_over_due);
  g_assert_false (has_journal (&pair));
  pair_clear (&pair);
}

/* A VM that runs here keeps its registration when the take-over fails, and the take-over can be tried again. */
static void
test_pair_again (void)
{
  Pair pair;
  HfModelWire *wire = &pair.worlds[1].wire;

  pair_init (&pair);
  hf_move_set_running (pair.move);
  wire->fault = HF_MODEL_FAULT_LINK_BEFORE;
  wire->fault_at = wire->n_commands + 1;
  wire->dead = TRUE;
  g_assert_false (hf_move_commit (pair.move));
  g_assert_true (hf_move_get_unit (pair.move, 1)->take_over_due);
  g_assert_cmphex (pair.worlds[1].model.nexuses[D1].key, ==, K);
  g_assert_true (has_journal (&pair));
  wire->fault_at = 0;
  g_assert_true (hf_move_commit (pair.move));
  g_assert_cmpint (pair.worlds[1].model.holder, ==, D1);
  g_assert_false (has_journal (&pair));
  g_assert_false (hf_move_commit (pair.move));
  pair_clear (&pair);
}

/* Between the two commits a third fences the VM on the second LU: it stays fenced there. */
static void
test_pair_fenced (void)
{
  for (guint clear = 0; clear < 2; clear++) {
    Pair pair;
    pair_init (&pair);
    hf_model_pr_out (&pair.worlds[1].model, T, clear ? CLEAR : PREEMPT, X, clear ? 0 : K, 5);
    g_assert_cmpuint (hf_model_count_key (&pair.worlds[1].model, K), ==, 0);
    hf_move_set_running (pair.move);
    g_assert_true (hf_move_commit (pair.move));
    g_assert_cmpint (verdict (pair.move, 1), ==, HF_VERDICT_FENCED);
    g_assert_cmpuint (hf_model_count_key (&pair.worlds[1].model, K), ==, 0);
    g_assert_cmpint (pair.worlds[0].model.holder, ==, D1);
    pair_clear (&pair);
  }
}

/* HOLDFAST_MODEL_CASE: one case, command by command. */
static void
test_single (void)
{
  Suite suite = { .state_dir = make_state_dir () };
  RigCase c;
  Rig rig;

  g_assert_true (rig_case_parse (g_getenv ("HOLDFAST_MODEL_CASE"), &c));
  if (c.verb == RIG_LOAD) {
    run_earlier (&suite, &c);
  } else {
    rig_init (&rig, &c);
    rig_run (&rig, NULL);
    if (c.action == RIG_NOTHING)
      (c.verb == RIG_LATER ? judge_later : judge_undone) (&rig);
    else
      (c.verb == RIG_LATER ? judge_later_disturbed : judge_undone_disturbed) (&rig);
    finish_case (&suite, &rig);
    rig_clear (&rig);
  }
  remove_folder (suite.state_dir);
  g_free (suite.state_dir);
  finish_suite (&suite, "single", 1);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  if (g_getenv ("HOLDFAST_MODEL_CASE") != NULL) {
    g_test_add_func ("/move-later/single", test_single);
    return g_test_run ();
  }
  g_test_add_func ("/move-later/later", test_later);
  g_test_add_func ("/move-later/later-disturbed", test_later_disturbed);
  g_test_add_func ("/move-later/abort", test_later_abort);
  g_test_add_func ("/move-later/abort-disturbed", test_later_abort_disturbed);
  g_test_add_func ("/move-later/earlier", test_earlier);
  g_test_add_func ("/move-later/pair-commit", test_pair_commit);
  g_test_add_func ("/move-later/pair-abort", test_pair_abort);
  g_test_add_func ("/move-later/pair-again", test_pair_again);
  g_test_add_func ("/move-later/pair-fenced", test_pair_fenced);
  return g_test_run ();
}
