/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Rules of the move that show when something breaks half-way: a run that ends between two commands and is run again, a path that
 * goes down, a fence between a look and a command, a back-out. One test, one rule, judged by what the LU holds afterwards.
 *
 * Owns: a Scene. Thread: the test's; the hooks run in whichever thread sends.
 */
#include "base/fail.h"
#include "move-world.h"
#include "state-dir.h"

#include <string.h>

#define SCENE_WORLDS 2
#define EXIT_TIMEOUT 33 /* sg3_utils' code */

static const guint sources[] = { S1, S2 };

/* What happens on a wire, and what was seen there. */
typedef struct {
  HfModelWire *wire;
  guint dies_after;    /* 1 + the action of the PERSISTENT RESERVE OUT behind which nothing is answered any more; 0: none */
  guint fenced_before; /* a number of REGISTER: right before it T preempts K */
  guint8 fence_type;   /* and reserves with it; 0: does not */
  gboolean two_ports;  /* a registration is listed twice, on two target ports: S2 and D2 stand for the second */
  guint outs, registers;
} Script;

/* One or two LUs, and the program that runs again and again on them with the same record and journals. */
typedef struct {
  World worlds[SCENE_WORLDS];
  Script scripts[SCENE_WORLDS];
  guint n_worlds;
  HfRecord *record;
  HfMove *move;
  char *state_dir;
} Scene;

static void
fence (HfModel *model, guint8 type)
{
  hf_model_pr_out (model, T, PREEMPT, X, K, type != 0 ? type : 1); /* without a reservation any type that there is */
  g_assert_cmpuint (hf_model_count_key (model, K), ==, 0);
  if (type != 0)
    hf_model_pr_out (model, T, RESERVE, X, 0, type);
}

static void
script_before (HfModel *model, guint nexus G_GNUC_UNUSED, guint index G_GNUC_UNUSED, const guint8 *cdb, gpointer user_data)
{
  Script *script = user_data;

  if (cdb[0] != 0x5f)
    return;
  script->outs++;
  if (cdb[1] == REGISTER && ++script->registers == script->fenced_before)
    fence (model, script->fence_type);
}

/* LIO, ALL_TG_PT: one REGISTER makes a registration on every target port, shown with RELATIVE TARGET PORT 0. */
static void
list_on_second_ports (HfModel *model)
{
  for (guint first = S1; first <= D1; first += D1 - S1) {
    const HfModelNexus *one = &model->nexuses[first];
    HfModelNexus *two = &model->nexuses[first + 1];
    two->id = one->id;
    if (two->registered != one->registered)
      hf_model_set_key (model, first + 1, one->key);
    two->all_tg_pt = one->all_tg_pt;
  }
}

static void
set_dead (HfModelWire *wire, guint from)
{
  wire->fault = HF_MODEL_FAULT_LINK_BEFORE;
  wire->fault_at = from;
  wire->dead = TRUE;
}

static void
set_alive (HfModelWire *wire)
{
  wire->fault = HF_MODEL_FAULT_NONE;
  wire->fault_at = 0;
  wire->dead = FALSE;
}

static void
script_after (HfModel *model, guint nexus G_GNUC_UNUSED, guint index, const guint8 *cdb, gpointer user_data)
{
  Script *script = user_data;

  if (script->two_ports)
    list_on_second_ports (model);
  if (cdb[0] != 0x5f || cdb[1] + 1u != script->dies_after)
    return;
  set_dead (script->wire, index + 1);
  script->dies_after = 0;
}

static void
script_wire (Script *script, HfModelWire *wire)
{
  script->wire = wire;
  wire->before = script_before;
  wire->after = script_after;
  wire->user_data = script;
}

/* K is on n_paths nexuses of the source, the first of which holds type. Nothing is plugged. */
static void
scene_init (Scene *scene, HfModelQuirks quirks, guint n_worlds, guint n_paths, guint8 type)
{
  memset (scene, 0, sizeof *scene);
  scene->n_worlds = n_worlds;
  scene->record = hf_record_new ("vm");
  scene->state_dir = make_state_dir ();
  for (guint i = 0; i < n_worlds; i++) {
    World *world = &scene->worlds[i];
    world_init (world, quirks, (guint8)i);
    hf_model_set_key (&world->model, T, X);
    for (guint j = 0; j < n_paths; j++)
      hf_model_set_key (&world->model, sources[j], K);
    hf_model_set_reservation (&world->model, S1, type);
    script_wire (&scene->scripts[i], &world->wire);
    add_unit (scene->record, world, type, sources, n_paths, FALSE);
  }
}

static void
scene_plug (Scene *scene, guint nexus)
{
  for (guint i = 0; i < scene->n_worlds; i++)
    world_plug (&scene->worlds[i], nexus, TRUE);
}

/* The program starts; one that ran before was killed where it stood. */
static void
scene_start (Scene *scene, HfRole role, guint timeout_ms, gboolean peer_gone)
{
  HfMoveOptions options = { .role = role, .timeout_ms = timeout_ms, .peer_gone = peer_gone, .state_dir = scene->state_dir };

  hf_move_free (scene->move);
  scene->move = start_move_with (scene->record, &options, scene->worlds, scene->n_worlds);
  for (guint i = 0; i < scene->n_worlds; i++)
    scene->scripts[i].outs = 0;
}

static void
scene_load (Scene *scene)
{
  scene_start (scene, HF_ROLE_DESTINATION, 5000, FALSE);
}

static void
scene_clear (Scene *scene)
{
  hf_move_free (scene->move);
  for (guint i = 0; i < scene->n_worlds; i++)
    world_clear (&scene->worlds[i]);
  hf_record_free (scene->record);
  remove_folder (scene->state_dir);
  g_free (scene->state_dir);
}

static void
fail_at (const char *specification)
{
  GError *error = NULL;

  g_assert_true (hf_fail_set (specification, &error));
  g_assert_no_error (error);
}

static const HfMoveUnit *
get_unit (const Scene *scene)
{
  return hf_move_get_unit (scene->move, 0);
}

static gboolean
has_key (const HfModel *model, guint nexus)
{
  return model->nexuses[nexus].registered && model->nexuses[nexus].key == K;
}

/* ---- a rerun ---- */

/* Killed after the PREEMPT of one LU, before D2 was registered again; at the rerun the other LU does not answer. Nothing of the
   first is taken back: it is all that the VM has there. A third run ends what the first began. */
static void
test_rerun_keeps_holder (void)
{
  Scene scene;
  HfModel *model = &scene.worlds[0].model;
  int holder;

  scene_init (&scene, HF_MODEL_LIO, 2, 2, 1);
  scene_plug (&scene, D1);
  scene_plug (&scene, D2);
  scene_load (&scene);
  g_assert_true (hf_move_prepare (scene.move));
  scene.scripts[0].dies_after = PREEMPT + 1;
  set_dead (&scene.worlds[1].wire, scene.worlds[1].wire.n_commands + 1);
  g_assert_false (hf_move_commit (scene.move));
  holder = model->holder;
  g_assert_true (holder == D1 || holder == D2);
  g_assert_cmpuint (hf_model_count_key (model, K), ==, 1);

  set_alive (&scene.worlds[0].wire);
  scene_load (&scene);
  g_assert_false (hf_move_prepare (scene.move));
  g_assert_cmpint (model->holder, ==, holder);
  g_assert_true (has_key (model, (guint)holder));
  g_assert_cmpuint (model->type, ==, 1);
  g_assert_cmpint (scene.worlds[1].model.holder, ==, S1);

  set_alive (&scene.worlds[1].wire);
  scene_load (&scene);
  g_assert_true (hf_move_prepare (scene.move));
  g_assert_true (hf_move_commit (scene.move));
  for (guint i = 0; i < 2; i++) {
    model = &scene.worlds[i].model;
    g_assert_cmpuint (hf_model_count_key (model, K), ==, 2);
    g_assert_true (has_key (model, D1) && has_key (model, D2));
    g_assert_true (model->holder == D1 || model->holder == D2);
    g_assert_cmpuint (model->type, ==, 1);
  }
  scene_clear (&scene);
}

/* T fences between two REGISTERs of ours, and the path of the second goes down behind it: its UNREGISTER cannot arrive. That the
   first one's conflicts, because it is gone, says nothing about the second. */
static void
rerun_after_half_undone (guint8 type)
{
  Scene scene;
  HfModel *model = &scene.worlds[0].model;
  Script *script = &scene.scripts[0];
  HfModelWire path;
  Script path_script = { .fenced_before = 1, .fence_type = 7, .dies_after = REGISTER + 1 };

  scene_init (&scene, HF_MODEL_LIO, 1, 2, type);
  hf_model_wire_init (&path, model);
  script_wire (&path_script, &path);
  scene_plug (&scene, D1);
  scene.worlds[0].lus[scene.worlds[0].n_lus++] = hf_model_lu_new (&path, D2, TRUE);
  scene_load (&scene);
  hf_move_prepare (scene.move);
  g_assert_cmpuint (script->registers, >=, 1);
  g_assert_cmpuint (path_script.registers, >=, 1);
  g_assert_false (has_key (model, D1));
  g_assert_true (has_key (model, D2));

  set_alive (&path);
  scene_load (&scene);
  if (hf_move_prepare (scene.move))
    hf_move_commit (scene.move);
  g_assert_cmpint (verdict (scene.move, 0), ==, HF_VERDICT_FENCED);
  g_assert_cmpuint (hf_model_count_key (model, K), ==, 0);
  g_assert_cmpuint (model->type, ==, 7);
  g_assert_cmphex (model->nexuses[T].key, ==, X);
  scene_clear (&scene);
  hf_model_wire_clear (&path);
}

static void
test_undone_hides_no_other (void)
{
  rerun_after_half_undone (0);
  rerun_after_half_undone (7);
}

/* `reclaim` is killed behind a REGISTER that came too late, and `release` runs before it is run again. */
static void
rerun_of_reclaim (gboolean release_between)
{
  Scene scene;
  HfModel *model = &scene.worlds[0].model;
  Script *script = &scene.scripts[0];

  scene_init (&scene, HF_MODEL_LIO, 1, 1, 5);
  hf_model_set_key (model, D1, K);
  hf_model_set_reservation (model, D1, 5);
  hf_model_set_key (model, S1, 0);
  scene_plug (&scene, S1);
  script->fenced_before = 1;
  script->fence_type = 5;
  script->dies_after = REGISTER + 1;
  scene_start (&scene, HF_ROLE_SOURCE, 5000, FALSE);
  g_assert_false (hf_move_prepare (scene.move));
  g_assert_true (has_key (model, S1));
  g_assert_cmpuint (hf_model_count_key (model, K), ==, 1);

  set_alive (&scene.worlds[0].wire);
  if (release_between) {
    scene_start (&scene, HF_ROLE_SOURCE, 5000, FALSE);
    g_assert_false (hf_move_release (scene.move));
    g_assert_cmpint (verdict (scene.move, 0), ==, HF_VERDICT_REFUSED);
    g_assert_true (has_key (model, S1));
  }
  scene_start (&scene, HF_ROLE_SOURCE, 5000, FALSE);
  if (hf_move_prepare (scene.move))
    hf_move_commit (scene.move);
  g_assert_cmpint (verdict (scene.move, 0), ==, HF_VERDICT_FENCED);
  g_assert_cmpuint (hf_model_count_key (model, K), ==, 0);
  g_assert_cmpint (model->holder, ==, T);
  scene_clear (&scene);
}

static void
test_release_keeps_journal_of_reclaim (void)
{
  rerun_of_reclaim (FALSE);
  rerun_of_reclaim (TRUE);
}

/* ---- one registration, listed once for each target port ---- */

static void
scene_init_all_tg_pt (Scene *scene, guint8 type)
{
  HfModel *model = &scene->worlds[0].model;

  scene_init (scene, HF_MODEL_LIO, 1, 1, type);
  model->nexuses[S1].all_tg_pt = TRUE;
  list_on_second_ports (model);
  g_assert_cmpuint (hf_model_count_key (model, K), ==, 2);
  scene->record->units[0].all_tg_pt = TRUE;
  scene->record->units[0].key_count = 2;
  scene->scripts[0].two_ports = TRUE;
}

/* K is listed twice behind our REGISTER, and both are ours: the source's was fenced before. */
static void
test_all_tg_pt_fenced (void)
{
  static const guint8 types[] = { 0, 5, 7 };

  for (guint i = 0; i < G_N_ELEMENTS (types); i++) {
    Scene scene;
    scene_init_all_tg_pt (&scene, types[i]);
    scene_plug (&scene, D1);
    scene.scripts[0].fenced_before = 1;
    scene.scripts[0].fence_type = types[i];
    scene_load (&scene);
    if (hf_move_prepare (scene.move))
      hf_move_commit (scene.move);
    g_assert_cmpuint (scene.scripts[0].registers, >=, 2); /* the one that came too late, and its end */
    g_assert_cmpint (verdict (scene.move, 0), ==, HF_VERDICT_FENCED);
    g_assert_cmpuint (hf_model_count_key (&scene.worlds[0].model, K), ==, 0);
    g_assert_cmphex (scene.worlds[0].model.nexuses[T].key, ==, X);
    scene_clear (&scene);
  }
}

/* And undisturbed such a VM moves. */
static void
test_all_tg_pt_moved (void)
{
  static const guint8 types[] = { 0, 1, 5, 7 };

  for (guint i = 0; i < G_N_ELEMENTS (types); i++) {
    Scene scene;
    HfModel *model = &scene.worlds[0].model;
    scene_init_all_tg_pt (&scene, types[i]);
    scene_plug (&scene, D1);
    scene_load (&scene);
    g_assert_true (hf_move_prepare (scene.move));
    g_assert_true (hf_move_commit (scene.move));
    g_assert_cmpint (verdict (scene.move, 0), ==, types[i] == 0 ? HF_VERDICT_REGISTERED : HF_VERDICT_MOVED);
    g_assert_true (has_key (model, D1));
    g_assert_true (model->nexuses[D1].all_tg_pt);
    g_assert_cmpuint (model->type, ==, types[i]);
    g_assert_true (types[i] == 0 || hf_model_is_holder (model, D1));
    scene_clear (&scene);
  }
}

/* Our own second listing is not the other host: release would remove the VM's last registration. */
static void
test_all_tg_pt_release (void)
{
  Scene scene;
  HfModel *model = &scene.worlds[0].model;

  scene_init_all_tg_pt (&scene, 7);
  scene_plug (&scene, S1);
  scene_start (&scene, HF_ROLE_SOURCE, 5000, FALSE);
  g_assert_false (hf_move_release (scene.move));
  g_assert_cmpint (verdict (scene.move, 0), ==, HF_VERDICT_REFUSED);
  g_assert_cmpuint (scene.scripts[0].outs, ==, 0);
  g_assert_true (has_key (model, S1));
  g_assert_cmpuint (model->type, ==, 7);

  /* and with the other host's there it goes */
  hf_model_set_key (model, D1, K);
  model->nexuses[D1].all_tg_pt = TRUE;
  list_on_second_ports (model);
  scene_start (&scene, HF_ROLE_SOURCE, 5000, FALSE);
  g_assert_true (hf_move_release (scene.move));
  g_assert_false (has_key (model, S1));
  g_assert_true (has_key (model, D1));
  scene_clear (&scene);
}

/* ---- one nexus, given twice ---- */

static void
test_nexus_given_twice (void)
{
  Scene scene;
  HfModel *model = &scene.worlds[0].model;

  scene_init (&scene, HF_MODEL_LIO, 1, 1, 1);
  scene_plug (&scene, D1);
  scene_plug (&scene, D1);
  scene_load (&scene);
  g_assert_true (hf_move_prepare (scene.move));
  g_assert_true (hf_move_commit (scene.move));
  g_assert_cmpint (verdict (scene.move, 0), ==, HF_VERDICT_MOVED);
  g_assert_cmpint (model->holder, ==, D1);
  g_assert_cmpuint (model->type, ==, 1);
  g_assert_true (hf_model_may_access (model, D1, TRUE));
  g_assert_false (has_key (model, S1));
  g_assert_cmpuint (scene.scripts[0].registers, ==, 1);
  g_assert_nonnull (get_unit (&scene)->note);
  g_assert_nonnull (strstr (get_unit (&scene)->note, "same I_T nexus"));
  scene_clear (&scene);
}

/* Two workers would use one HfLu: refused before any command, and the move is as it was. */
static void
test_lu_given_twice (void)
{
  Scene scene;
  HfMoveOptions options = { .role = HF_ROLE_DESTINATION };
  HfLu *lus[2];
  GError *error = NULL;

  scene_init (&scene, HF_MODEL_LIO, 1, 1, 1);
  scene_plug (&scene, D1);
  scene.move = hf_move_new (scene.record, &options, &error);
  g_assert_no_error (error);
  lus[0] = lus[1] = scene.worlds[0].lus[0];
  g_assert_false (hf_move_add_lus (scene.move, lus, 2, &error));
  g_assert_error (error, HF_RECORD_ERROR, HF_RECORD_ERROR_LU);
  g_clear_error (&error);
  g_assert_cmpuint (scene.worlds[0].wire.n_commands, ==, 0);
  g_assert_null (get_unit (&scene)->device);
  g_assert_false (hf_move_check (scene.move));
  g_assert_cmpint (verdict (scene.move, 0), ==, HF_VERDICT_ERROR);

  g_assert_true (hf_move_add_lus (scene.move, lus, 1, &error));
  g_assert_no_error (error);
  g_assert_true (hf_move_check (scene.move));
  g_assert_cmpint (verdict (scene.move, 0), ==, HF_VERDICT_MOVED);
  scene_clear (&scene);
}

/* ---- taking back ---- */

/* The source left between prepare and abort: what we registered is the VM's last K and stays, and the abort does not claim to be
   done. */
static void
test_abort_keeps_last (void)
{
  static const guint8 types[] = { 0, 7 };

  for (guint i = 0; i < G_N_ELEMENTS (types); i++) {
    Scene scene;
    HfModel *model = &scene.worlds[0].model;
    scene_init (&scene, HF_MODEL_LIO, 1, 1, types[i]);
    scene_plug (&scene, D1);
    scene_load (&scene);
    g_assert_true (hf_move_prepare (scene.move));
    hf_model_pr_out (model, S1, REGISTER, K, 0, 0);
    g_assert_cmpuint (hf_model_count_key (model, K), ==, 1);
    g_assert_false (hf_move_abort (scene.move));
    g_assert_false (get_unit (&scene)->accepted);
    g_assert_true (has_key (model, D1));
    g_assert_cmpuint (model->type, ==, types[i]);
    g_assert_nonnull (strstr (get_unit (&scene)->note, "may stay registered"));
    scene_clear (&scene);
  }
}

/* The PREEMPT was not executed, and the LU shows it: an error like any other. */
static void
take_over_refused (const char *fail)
{
  Scene scene;
  HfModel *model = &scene.worlds[0].model;

  scene_init (&scene, HF_MODEL_LIO, 1, 1, 1);
  scene_plug (&scene, D1);
  scene_start (&scene, HF_ROLE_DESTINATION, 1000, FALSE);
  g_assert_true (hf_move_prepare (scene.move));
  g_assert_true (has_key (model, D1));
  fail_at (fail);
  g_assert_false (hf_move_commit (scene.move));
  fail_at (NULL);
  g_assert_cmpint (verdict (scene.move, 0), ==, HF_VERDICT_ERROR);
  g_assert_nonnull (get_unit (&scene)->error.step);
  g_assert_false (get_unit (&scene)->accepted);
  g_assert_false (model->nexuses[D1].registered);
  g_assert_true (has_key (model, S1));
  g_assert_cmpint (model->holder, ==, S1);
  scene_clear (&scene);
}

static void
test_take_over_busy (void)
{
  take_over_refused ("before-take-over=busy");
}

static void
test_take_over_link_lost (void)
{
  take_over_refused ("before-take-over=link");
}

/* On LIO any REGISTER without APTPL ends it for the whole LU, an UNREGISTER that is the first command of its run too. */
static void
back_out_of_rerun (gboolean saved)
{
  Scene scene;
  HfModel *model = &scene.worlds[0].model;

  scene_init (&scene, HF_MODEL_LIO, 2, 1, 5);
  for (guint i = 0; i < 2; i++) {
    scene.worlds[i].model.aptpl = TRUE;
    scene.record->units[i].aptpl = saved;
  }
  scene_plug (&scene, D1);
  scene_load (&scene);
  g_assert_true (hf_move_prepare (scene.move));
  g_assert_true (has_key (model, D1));
  g_assert_true (model->aptpl);

  set_dead (&scene.worlds[1].wire, scene.worlds[1].wire.n_commands + 1);
  scene_load (&scene);
  g_assert_false (hf_move_prepare (scene.move));
  g_assert_cmpuint (scene.scripts[0].outs, ==, 1);
  g_assert_false (model->nexuses[D1].registered);
  g_assert_true (model->aptpl);
  scene_clear (&scene);
}

static void
test_back_out_keeps_aptpl (void)
{
  back_out_of_rerun (FALSE);
  back_out_of_rerun (TRUE);
}

/* What an earlier run prepared is not taken back by a run that only looked. */
static void
test_check_then_abort (void)
{
  Scene scene;
  HfModel *model = &scene.worlds[0].model;

  scene_init (&scene, HF_MODEL_LIO, 1, 1, 5);
  scene_plug (&scene, D1);
  scene_load (&scene);
  g_assert_true (hf_move_prepare (scene.move));
  g_assert_cmpuint (scene.scripts[0].outs, ==, 1);
  scene_load (&scene);
  g_assert_true (hf_move_check (scene.move));
  hf_move_abort (scene.move);
  g_assert_cmpuint (scene.scripts[0].outs, ==, 0);
  g_assert_true (has_key (model, D1));
  g_assert_cmpint (model->holder, ==, S1);
  scene_clear (&scene);
}

/* ---- what is reported ---- */

/* The deadline passes behind a good PREEMPT, with one more command to send. */
static void
take_over_too_slow (Scene *scene)
{
  const HfUnitError *error;

  g_assert_true (hf_move_prepare (scene->move));
  fail_at ("before-verify-take-over=delay:1100");
  g_assert_false (hf_move_commit (scene->move));
  fail_at (NULL);
  g_assert_cmpint (verdict (scene->move, 0), ==, HF_VERDICT_ERROR);
  error = &get_unit (scene)->error;
  g_assert_cmpint (error->exit_code, ==, EXIT_TIMEOUT);
  g_assert_false (error->answered);
  g_assert_nonnull (strstr (error->text, "deadline"));
  scene_clear (scene);
}

/* A target without READ FULL STATUS refuses it, and the move goes on without it: that is no reason why it ended. */
static void
test_deadline_is_reported (void)
{
  Scene scene;

  scene_init (&scene, HF_MODEL_TGT, 1, 2, 5);
  scene_plug (&scene, D1);
  scene_plug (&scene, D2);
  scene_start (&scene, HF_ROLE_DESTINATION, 1000, FALSE);
  take_over_too_slow (&scene);

  /* LIO's PREEMPT of our own key takes ours too, and the nexus that sent it is the one to register again. */
  scene_init (&scene, HF_MODEL_LIO, 1, 1, 0);
  scene.worlds[0].model.refuse_full_status = TRUE;
  scene_plug (&scene, D1);
  scene_start (&scene, HF_ROLE_DESTINATION, 1000, TRUE);
  take_over_too_slow (&scene);
}

/* ---- release of several LUs ---- */

/* Only the first LU could do without us: nothing is removed on either. */
static void
test_release_all_or_none (void)
{
  Scene scene;

  scene_init (&scene, HF_MODEL_LIO, 2, 1, 0);
  hf_model_set_key (&scene.worlds[0].model, D1, K);
  scene_plug (&scene, S1);
  scene_start (&scene, HF_ROLE_SOURCE, 5000, FALSE);
  g_assert_false (hf_move_release (scene.move));
  g_assert_cmpint (verdict (scene.move, 1), ==, HF_VERDICT_REFUSED);
  for (guint i = 0; i < 2; i++) {
    g_assert_false (hf_move_get_unit (scene.move, i)->accepted);
    g_assert_cmpuint (scene.scripts[i].outs, ==, 0);
    g_assert_true (has_key (&scene.worlds[i].model, S1));
  }

  hf_model_set_key (&scene.worlds[1].model, D1, K);
  scene_start (&scene, HF_ROLE_SOURCE, 5000, FALSE);
  g_assert_true (hf_move_release (scene.move));
  for (guint i = 0; i < 2; i++)
    g_assert_false (has_key (&scene.worlds[i].model, S1));
  scene_clear (&scene);
}

/* ---- hf_pr_save ---- */

static void
assert_not_saved (Scene *scene, guint64 key, GQuark domain, int code, const char *step, int exit_code)
{
  HfPrSaved saved = { 0 };
  HfUnitError failure = { 0 };
  GError *error = NULL;

  g_assert_false (hf_pr_save (scene->worlds[0].lus, 1, key, &saved, &failure, &error));
  g_assert_error (error, domain, code);
  g_assert_cmpstr (failure.step, ==, step);
  g_assert_nonnull (failure.text);
  if (exit_code >= 0)
    g_assert_cmpint (failure.exit_code, ==, exit_code);
  hf_unit_error_clear (&failure);
  g_clear_error (&error);
}

/* Three different mistakes: the LU does not say who it is, it does not answer, the key is another's. */
static void
test_save_says_why (void)
{
  Scene scene;
  HfModelWire *wire = &scene.worlds[0].wire;
  HfPrSaved saved = { 0 };
  GError *error = NULL;

  scene_init (&scene, HF_MODEL_LIO, 1, 1, 5);
  scene_plug (&scene, S1);
  set_dead (wire, 1);
  assert_not_saved (&scene, K, HF_SCSI_ERROR, HF_SCSI_ERROR_LINK, "identify", -1);
  set_alive (wire);
  g_assert_true (hf_pr_save (scene.worlds[0].lus, 1, K, &saved, NULL, &error));
  g_assert_no_error (error);
  g_assert_cmphex (saved.key, ==, K);
  hf_pr_saved_clear (&saved);
  assert_not_saved (&scene, X, HF_PR_ERROR, HF_PR_ERROR_KEY, "save", 1);
  set_dead (wire, wire->n_commands + 1);
  assert_not_saved (&scene, K, HF_PR_ERROR, HF_PR_ERROR_DEVICE, "save", -1);
  g_assert_false (hf_pr_save (scene.worlds[0].lus, 0, K, &saved, NULL, &error));
  g_assert_error (error, HF_PR_ERROR, HF_PR_ERROR_ARGUMENT);
  g_clear_error (&error);
  scene_clear (&scene);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/move-crash/rerun-keeps-holder", test_rerun_keeps_holder);
  g_test_add_func ("/move-crash/undone-hides-no-other", test_undone_hides_no_other);
  g_test_add_func ("/move-crash/release-keeps-journal-of-reclaim", test_release_keeps_journal_of_reclaim);
  g_test_add_func ("/move-crash/all-tg-pt-fenced", test_all_tg_pt_fenced);
  g_test_add_func ("/move-crash/all-tg-pt-moved", test_all_tg_pt_moved);
  g_test_add_func ("/move-crash/all-tg-pt-release", test_all_tg_pt_release);
  g_test_add_func ("/move-crash/nexus-given-twice", test_nexus_given_twice);
  g_test_add_func ("/move-crash/lu-given-twice", test_lu_given_twice);
  g_test_add_func ("/move-crash/abort-keeps-last", test_abort_keeps_last);
  g_test_add_func ("/move-crash/take-over-busy", test_take_over_busy);
  g_test_add_func ("/move-crash/take-over-link-lost", test_take_over_link_lost);
  g_test_add_func ("/move-crash/back-out-keeps-aptpl", test_back_out_keeps_aptpl);
  g_test_add_func ("/move-crash/check-then-abort", test_check_then_abort);
  g_test_add_func ("/move-crash/deadline-is-reported", test_deadline_is_reported);
  g_test_add_func ("/move-crash/release-all-or-none", test_release_all_or_none);
  g_test_add_func ("/move-crash/save-says-why", test_save_says_why);
  return g_test_run ();
}
