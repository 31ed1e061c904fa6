/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns: the LUs of a test's World, as the header says. Thread: the test's.
 */
#include "move-world.h"

#include <string.h>

void
world_init (World *world, HfModelQuirks quirks, guint8 lu)
{
  memset (world, 0, sizeof *world);
  hf_model_init (&world->model, quirks, NEXUSES);
  world->model.naa += lu;
  hf_model_wire_init (&world->wire, &world->model);
}

void
world_plug (World *world, guint nexus, gboolean identified)
{
  world->lus[world->n_lus++] = hf_model_lu_new (&world->wire, nexus, identified);
}

void
world_clear (World *world)
{
  for (guint i = 0; i < world->n_lus; i++)
    hf_lu_free (world->lus[i]);
  hf_model_wire_clear (&world->wire);
}

void
add_unit (HfRecord *record, const World *world, guint8 type, const guint *sources, guint n_sources, gboolean all_tg_pt)
{
  HfNexus nexuses[NEXUSES];
  HfPrSaved saved = { .key = K, .type = type, .all_tg_pt = all_tg_pt, .key_count = n_sources, .n_nexuses = n_sources };
  HfDesignator *naa = &saved.identity.designators[saved.identity.n_designators++];
  GError *error = NULL;

  saved.nexuses = nexuses;
  naa->type = 3;
  naa->code_set = 1;
  naa->length = 8;
  for (guint i = 0; i < 8; i++)
    naa->bytes[i] = (guint8)(world->model.naa >> 8 * (7 - i));
  for (guint i = 0; i < n_sources; i++)
    nexuses[i] = world->model.nexuses[sources[i]].id;
  hf_record_add (record, &saved, &error);
  g_assert_no_error (error);
}

HfMove *
start_move_with (const HfRecord *record, const HfMoveOptions *options, World *worlds, guint n_worlds)
{
  GError *error = NULL;
  HfMove *move = hf_move_new (record, options, &error);

  g_assert_no_error (error);
  for (guint i = 0; i < n_worlds; i++) {
    hf_move_add_lus (move, worlds[i].lus, worlds[i].n_lus, &error);
    g_assert_no_error (error);
  }
  return move;
}

HfMove *
start_move (const HfRecord *record, HfRole role, World *worlds, guint n_worlds)
{
  HfMoveOptions options = { .role = role, .timeout_ms = 5000 };

  return start_move_with (record, &options, worlds, n_worlds);
}

HfVerdict
verdict (HfMove *move, guint unit)
{
  return hf_move_get_unit (move, unit)->verdict;
}
