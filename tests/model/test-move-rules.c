/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Rules of the move that need more than one nexus on each side, or a target in a special mood. One test, one rule.
 */
#include "move-world.h"

static const guint8 types[] = { 1, 3, 5, 6, 7, 8 };

/* ---- S9: a guest with two paths ---- */

static void
move_two (HfModelQuirks quirks, guint8 type, gboolean identified)
{
  static const guint sources[] = { S1, S2 };
  g_autoptr (HfRecord) record = hf_record_new ("vm");
  HfMove *move;
  World world;
  gboolean exclusive = type != 0 && type < 7;

  world_init (&world, quirks, 0);
  hf_model_set_key (&world.model, S1, K);
  hf_model_set_key (&world.model, S2, K);
  hf_model_set_reservation (&world.model, S1, type);
  world_plug (&world, D1, identified);
  world_plug (&world, D2, identified);
  add_unit (record, &world, type, sources, 2, FALSE);
  move = start_move (record, HF_ROLE_DESTINATION, &world, 1);
  g_assert_true (hf_move_prepare (move));
  g_assert_true (hf_move_commit (move));
  g_assert_cmpint (verdict (move, 0), ==, type == 0 ? HF_VERDICT_REGISTERED : HF_VERDICT_MOVED);
  g_assert_cmphex (world.model.nexuses[D1].key, ==, K);
  g_assert_cmphex (world.model.nexuses[D2].key, ==, K);
  g_assert_cmpuint (world.model.type, ==, type);
  g_assert_cmphex (world.model.nexuses[S1].key, ==, exclusive ? 0 : K);
  g_assert_cmphex (world.model.nexuses[S2].key, ==, exclusive ? 0 : K);
  if (type != 0)
    g_assert_true (hf_model_is_holder (&world.model, D1) || hf_model_is_holder (&world.model, D2));
  hf_move_free (move);
  world_clear (&world);
}

static void
test_two_nexuses (void)
{
  guint runs = 0;

  for (guint quirks = 0; quirks < HF_N_MODEL_QUIRKS; quirks++)
    for (guint i = 0; i <= G_N_ELEMENTS (types); i++)
      for (gboolean identified = FALSE; identified <= TRUE; identified++, runs++)
        move_two (quirks, i == 0 ? 0 : types[i - 1], identified);
  g_assert_cmpuint (runs, ==, 42);
}

/* While the two move, K and the reservation are there after every command. */
typedef struct {
  guint commands, least;
  gboolean reserved;
} Watch;

static void
watch (HfModel *model, guint nexus, guint index, const guint8 *cdb, gpointer user_data)
{
  Watch *w = user_data;

  w->commands = index;
  w->least = MIN (w->least, hf_model_count_key (model, K));
  w->reserved = w->reserved && model->type == 1 && model->holder >= 0 && model->nexuses[model->holder].key == K;
}

static void
test_two_nexuses_no_gap (void)
{
  static const guint sources[] = { S1, S2 };

  for (guint quirks = 0; quirks < HF_N_MODEL_QUIRKS; quirks++) {
    g_autoptr (HfRecord) record = hf_record_new ("vm");
    Watch w = { .least = G_MAXUINT, .reserved = TRUE };
    HfMove *move;
    World world;

    world_init (&world, quirks, 0);
    hf_model_set_key (&world.model, S1, K);
    hf_model_set_key (&world.model, S2, K);
    hf_model_set_reservation (&world.model, S2, 1);
    world.wire.after = watch;
    world.wire.user_data = &w;
    world_plug (&world, D1, TRUE);
    world_plug (&world, D2, TRUE);
    add_unit (record, &world, 1, sources, 2, FALSE);
    move = start_move (record, HF_ROLE_DESTINATION, &world, 1);
    g_assert_true (hf_move_prepare (move));
    g_assert_true (hf_move_commit (move));
    g_assert_cmpuint (w.commands, >, 5);
    g_assert_cmpuint (w.least, >=, 1);
    g_assert_true (w.reserved);
    hf_move_free (move);
    world_clear (&world);
  }
}

/* ---- one nexus is both sides ---- */

static void
test_same_nexus (void)
{
  static const guint sources[] = { S1 };

  for (guint quirks = 0; quirks < HF_N_MODEL_QUIRKS; quirks++) {
    g_autoptr (HfRecord) record = hf_record_new ("vm");
    HfMove *move;
    HfModel was;
    World world;

    world_init (&world, quirks, 0);
    hf_model_set_key (&world.model, S1, K);
    hf_model_set_reservation (&world.model, S1, 3);
    was = world.model;
    world_plug (&world, S1, TRUE);
    add_unit (record, &world, 3, sources, 1, FALSE);
    move = start_move (record, HF_ROLE_DESTINATION, &world, 1);
    g_assert_true (hf_move_prepare (move));
    g_assert_true (hf_move_commit (move));
    g_assert_cmpint (verdict (move, 0), ==, HF_VERDICT_UNCHANGED);
    g_assert_cmphex (world.model.nexuses[S1].key, ==, K);
    g_assert_cmpint (world.model.holder, ==, S1);
    /* and this nexus is not released: it is the VM's */
    g_assert_false (hf_move_release (move));
    g_assert_cmphex (world.model.nexuses[S1].key, ==, K);
    g_assert_cmpuint (world.model.type, ==, was.type);
    hf_move_free (move);
    world_clear (&world);
  }
}

/* ---- row 2: no answer is no fence ---- */

static void
test_scsi2 (void)
{
  static const guint sources[] = { S1 };

  for (guint quirks = 0; quirks < HF_N_MODEL_QUIRKS; quirks++) {
    g_autoptr (HfRecord) record = hf_record_new ("vm");
    const HfMoveUnit *unit;
    HfMove *move;
    World world;

    world_init (&world, quirks, 0);
    world.model.scsi2_holder = T;
    world_plug (&world, D1, TRUE);
    add_unit (record, &world, 5, sources, 1, FALSE);
    move = start_move (record, HF_ROLE_DESTINATION, &world, 1);
    g_assert_false (hf_move_prepare (move));
    unit = hf_move_get_unit (move, 0);
    g_assert_cmpint (unit->verdict, ==, HF_VERDICT_ERROR);
    g_assert_true (unit->error.answered);
    g_assert_cmphex (unit->error.result.status, ==, HF_SAM_RESERVATION_CONFLICT);
    g_assert_cmpint (unit->error.exit_code, ==, 24);
    g_assert_cmpuint (world.model.generation, ==, 0);
    hf_move_free (move);
    world_clear (&world);
  }
}

/* ---- LIO's moods ---- */

/* Without its folder LIO executes every registration and answers 2/0800: the move reads the LU instead of believing. */
static void
test_no_aptpl_store (void)
{
  static const guint sources[] = { S1 };
  g_autoptr (HfRecord) record = hf_record_new ("vm");
  HfMove *move;
  World world;

  world_init (&world, HF_MODEL_LIO, 0);
  world.model.no_aptpl_store = TRUE;
  hf_model_set_key (&world.model, S1, K);
  hf_model_set_reservation (&world.model, S1, 5);
  world_plug (&world, D1, TRUE);
  add_unit (record, &world, 5, sources, 1, FALSE);
  move = start_move (record, HF_ROLE_DESTINATION, &world, 1);
  g_assert_true (hf_move_prepare (move));
  g_assert_true (hf_move_commit (move));
  g_assert_cmpint (verdict (move, 0), ==, HF_VERDICT_MOVED);
  g_assert_cmpint (world.model.holder, ==, D1);
  hf_move_free (move);
  world_clear (&world);
}

/* ALL_TG_PT is replayed as the guest chose it, and the source's registration made with it can be removed. */
static void
test_all_tg_pt (void)
{
  static const guint sources[] = { S1 };
  g_autoptr (HfRecord) record = hf_record_new ("vm");
  World world, source;
  HfMove *move;

  world_init (&world, HF_MODEL_LIO, 0);
  hf_model_set_key (&world.model, S1, K);
  world.model.nexuses[S1].all_tg_pt = TRUE;
  hf_model_set_reservation (&world.model, S1, 7);
  world_plug (&world, D1, TRUE);
  add_unit (record, &world, 7, sources, 1, TRUE);
  move = start_move (record, HF_ROLE_DESTINATION, &world, 1);
  g_assert_true (hf_move_prepare (move));
  g_assert_true (hf_move_commit (move));
  g_assert_true (world.model.nexuses[D1].all_tg_pt);
  hf_move_free (move);

  source = (World){ .n_lus = 0 };
  hf_model_wire_init (&source.wire, &world.model);
  world_plug (&source, S1, TRUE);
  move = start_move (record, HF_ROLE_SOURCE, &source, 1);
  g_assert_true (hf_move_release (move));
  g_assert_cmpint (verdict (move, 0), ==, HF_VERDICT_UNREGISTERED);
  g_assert_false (world.model.nexuses[S1].registered);
  g_assert_true (hf_model_is_holder (&world.model, D1));
  hf_move_free (move);
  world_clear (&source);
  world_clear (&world);
}

/* ---- long lists ---- */

/* K is the last of 1101 keys: a list cut at 8192 bytes would show a fenced VM. */
static void
test_long_list (void)
{
  static const guint sources[] = { S1 };

  for (guint quirks = 0; quirks < HF_N_MODEL_QUIRKS; quirks++)
    for (gboolean blind = FALSE; blind <= TRUE; blind++) {
      g_autoptr (HfRecord) record = hf_record_new ("vm");
      HfMove *move;
      World world;

      world_init (&world, quirks, 0);
      world.model.refuse_full_status = blind;
      world.model.n_crowd = 1100;
      world.model.crowd_key = X;
      hf_model_set_key (&world.model, S1, K);
      hf_model_set_reservation (&world.model, S1, 5);
      world_plug (&world, D1, TRUE);
      add_unit (record, &world, 5, sources, 1, FALSE);
      move = start_move (record, HF_ROLE_DESTINATION, &world, 1);
      g_assert_true (hf_move_prepare (move));
      g_assert_true (hf_move_commit (move));
      g_assert_cmpint (verdict (move, 0), ==, HF_VERDICT_MOVED);
      g_assert_cmpint (world.model.holder, ==, D1);
      g_assert_cmpuint (world.model.n_crowd, ==, 1100);
      hf_move_free (move);
      world_clear (&world);
    }
}

/* ---- others never stop ---- */

/* Before every command somebody registers or leaves, and so the LU never shows the same picture twice. */
static void
never_rest (HfModel *model, guint nexus, guint index, const guint8 *cdb, gpointer user_data)
{
  hf_model_pr_out (model, T, IGNORE, 0, X + index, 0);
}

static void
test_bounded (void)
{
  static const guint sources[] = { S1 };

  for (guint quirks = 0; quirks < HF_N_MODEL_QUIRKS; quirks++) {
    g_autoptr (HfRecord) record = hf_record_new ("vm");
    const HfMoveUnit *unit;
    HfMove *move;
    World world;

    world_init (&world, quirks, 0);
    hf_model_set_key (&world.model, S1, K);
    hf_model_set_reservation (&world.model, S1, 5);
    world_plug (&world, D1, TRUE);
    add_unit (record, &world, 5, sources, 1, FALSE);
    world.wire.before = never_rest;
    move = start_move (record, HF_ROLE_DESTINATION, &world, 1);
    if (hf_move_prepare (move))
      hf_move_commit (move);
    unit = hf_move_get_unit (move, 0);
    g_assert_cmpuint (world.wire.n_commands, <, 100);
    /* Where one command gives the whole picture the move gets through; else it gives up and leaves nothing. */
    g_assert_true (unit->verdict == HF_VERDICT_MOVED || unit->verdict == HF_VERDICT_ERROR);
    g_assert_cmphex (world.model.nexuses[D1].key, ==, unit->verdict == HF_VERDICT_MOVED ? K : 0);
    g_assert_cmpint (world.model.holder, ==, unit->verdict == HF_VERDICT_MOVED ? D1 : S1);
    if (quirks != HF_MODEL_TGT)
      g_assert_cmpint (unit->verdict, ==, HF_VERDICT_MOVED);
    hf_move_free (move);
    world_clear (&world);
  }
}

/* The source fences itself and comes back, over and over: at most five decisions, then an error with nothing left behind. */
static void
turn_over (HfModel *model, guint nexus, guint index, const guint8 *cdb, gpointer user_data)
{
  guint *decisions = user_data;

  if (cdb[0] == 0x5f && cdb[1] == REGISTER)
    (*decisions)++;
  if (cdb[0] == 0x5e && cdb[1] != 2 && model->nexuses[D1].key == K)
    hf_model_pr_out (model, T, PREEMPT, X, K, 5);
  if (model->nexuses[S1].key != K)
    hf_model_pr_out (model, S1, IGNORE, 0, K, 0);
}

static void
test_five_decisions (void)
{
  static const guint sources[] = { S1 };
  g_autoptr (HfRecord) record = hf_record_new ("vm");
  guint decisions = 0;
  HfMove *move;
  World world;

  world_init (&world, HF_MODEL_SPC, 0);
  hf_model_set_key (&world.model, S1, K);
  hf_model_set_key (&world.model, T, X);
  world_plug (&world, D1, TRUE);
  add_unit (record, &world, 0, sources, 1, FALSE);
  world.wire.before = turn_over;
  world.wire.user_data = &decisions;
  move = start_move (record, HF_ROLE_DESTINATION, &world, 1);
  g_assert_false (hf_move_prepare (move));
  g_assert_cmpint (verdict (move, 0), ==, HF_VERDICT_ERROR);
  g_assert_cmpuint (decisions, >=, 2);
  g_assert_cmpuint (decisions, <=, 12);
  g_assert_false (world.model.nexuses[D1].registered);
  hf_move_free (move);
  world_clear (&world);
}

/* ---- several LUs ---- */

/* The second LU is occupied: the first, prepared already, is taken back, and none was committed. */
static void
test_all_or_nothing (void)
{
  static const guint sources[] = { S1 };

  for (guint quirks = 0; quirks < HF_N_MODEL_QUIRKS; quirks++) {
    g_autoptr (HfRecord) record = hf_record_new ("vm");
    World worlds[3];
    HfMove *move;

    for (guint i = 0; i < 3; i++) {
      world_init (&worlds[i], quirks, (guint8)i);
      hf_model_set_key (&worlds[i].model, S1, K);
      hf_model_set_reservation (&worlds[i].model, S1, 5);
      world_plug (&worlds[i], D1, TRUE);
      add_unit (record, &worlds[i], 5, sources, 1, FALSE);
    }
    hf_model_set_key (&worlds[1].model, D1, X);
    move = start_move (record, HF_ROLE_DESTINATION, worlds, 3);
    g_assert_false (hf_move_prepare (move));
    g_assert_cmpint (verdict (move, 1), ==, HF_VERDICT_OCCUPIED);
    for (guint i = 0; i < 3; i++) {
      g_assert_cmpint (worlds[i].model.holder, ==, S1);
      g_assert_cmphex (worlds[i].model.nexuses[D1].key, ==, i == 1 ? X : 0);
    }
    hf_move_free (move);
    for (guint i = 0; i < 3; i++)
      world_clear (&worlds[i]);
  }
}

static void
test_several (void)
{
  static const guint sources[] = { S1 };
  g_autoptr (HfRecord) record = hf_record_new ("vm");
  World worlds[G_N_ELEMENTS (types)];
  HfMove *move;

  for (guint i = 0; i < G_N_ELEMENTS (types); i++) {
    world_init (&worlds[i], HF_MODEL_LIO, (guint8)i);
    hf_model_set_key (&worlds[i].model, S1, K);
    hf_model_set_reservation (&worlds[i].model, S1, types[i]);
    world_plug (&worlds[i], D1, TRUE);
    add_unit (record, &worlds[i], types[i], sources, 1, FALSE);
  }
  move = start_move (record, HF_ROLE_DESTINATION, worlds, G_N_ELEMENTS (types));
  g_assert_true (hf_move_prepare (move));
  g_assert_true (hf_move_commit (move));
  g_assert_cmpuint (hf_move_get_n_units (move), ==, G_N_ELEMENTS (types));
  for (guint i = 0; i < G_N_ELEMENTS (types); i++) {
    g_assert_cmpint (verdict (move, i), ==, HF_VERDICT_MOVED);
    g_assert_cmpuint (hf_move_get_unit (move, i)->type, ==, types[i]);
    g_assert_true (hf_model_is_holder (&worlds[i].model, D1));
    g_assert_cmpuint (worlds[i].model.type, ==, types[i]);
  }
  hf_move_free (move);
  for (guint i = 0; i < G_N_ELEMENTS (types); i++)
    world_clear (&worlds[i]);
}

/* ---- hf_pr_save ---- */

/* What is saved without a key is found by our own TransportID; without one a key is asked for. */
static void
test_save (void)
{
  HfPrSaved saved = { 0 };
  GError *error = NULL;
  World world;

  world_init (&world, HF_MODEL_LIO, 0);
  hf_model_set_key (&world.model, S1, K);
  hf_model_set_key (&world.model, S2, K);
  hf_model_set_key (&world.model, T, X);
  hf_model_set_reservation (&world.model, S2, 3);
  world_plug (&world, S1, TRUE);
  world_plug (&world, S2, TRUE);
  g_assert_true (hf_pr_save (world.lus, 2, 0, &saved, NULL, &error));
  g_assert_no_error (error);
  g_assert_cmphex (saved.key, ==, K);
  g_assert_cmpuint (saved.type, ==, 3);
  g_assert_cmpuint (saved.key_count, ==, 2);
  g_assert_cmpuint (saved.n_nexuses, ==, 2);
  hf_pr_saved_clear (&saved);
  world.model.quirks = HF_MODEL_TGT;
  g_assert_false (hf_pr_save (world.lus, 2, 0, &saved, NULL, &error));
  g_assert_error (error, HF_PR_ERROR, HF_PR_ERROR_KEY);
  g_clear_error (&error);
  world_clear (&world);
}

/* ---- the transport itself ---- */

static gboolean
send_tur (HfLu *lu, HfScsiResult *ret, GError **error)
{
  HfScsiCommand command = { .cdb_length = 6 };

  return hf_lu_execute (lu, &command, ret, error);
}

static void
test_transport (void)
{
  HfScsiResult result;
  GError *error = NULL;
  World world;

  world_init (&world, HF_MODEL_TGT, 0);
  hf_model_set_key (&world.model, D1, K);
  world_plug (&world, D1, TRUE);
  world.wire.fault = HF_MODEL_FAULT_LINK_AFTER;
  world.wire.fault_at = 2;
  hf_model_raise_unit_attention (&world.model, D1, 0x2a05);
  g_assert_true (send_tur (world.lus[0], &result, &error));
  g_assert_cmphex (result.status, ==, HF_SAM_CHECK_CONDITION);
  g_assert_cmphex (result.sense[12] << 8 | result.sense[13], ==, 0x2a05);
  g_assert_false (send_tur (world.lus[0], &result, &error));
  g_assert_error (error, HF_SCSI_ERROR, HF_SCSI_ERROR_LINK);
  g_clear_error (&error);
  g_assert_true (send_tur (world.lus[0], &result, &error));
  g_assert_cmphex (result.status, ==, HF_SAM_GOOD);
  g_assert_cmpuint (world.model.n_nexuses, ==, NEXUSES + 1); /* tgt: a new login is a new nexus */
  g_assert_cmpuint (world.wire.n_commands, ==, 3);
  world_clear (&world);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/move-rules/two-nexuses", test_two_nexuses);
  g_test_add_func ("/move-rules/two-nexuses-no-gap", test_two_nexuses_no_gap);
  g_test_add_func ("/move-rules/same-nexus", test_same_nexus);
  g_test_add_func ("/move-rules/scsi2", test_scsi2);
  g_test_add_func ("/move-rules/no-aptpl-store", test_no_aptpl_store);
  g_test_add_func ("/move-rules/all-tg-pt", test_all_tg_pt);
  g_test_add_func ("/move-rules/long-list", test_long_list);
  g_test_add_func ("/move-rules/bounded", test_bounded);
  g_test_add_func ("/move-rules/five-decisions", test_five_decisions);
  g_test_add_func ("/move-rules/all-or-nothing", test_all_or_nothing);
  g_test_add_func ("/move-rules/several", test_several);
  g_test_add_func ("/move-rules/save", test_save);
  g_test_add_func ("/move-rules/transport", test_transport);
  return g_test_run ();
}
