/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * An LU with two nexuses on each side, for tests of one rule of the move at a time.
 *
 *     source: S1 S2          destination: D1 D2          third: T
 *        nexus 0 1                  2 3                      4
 *        +----+-----------------------+----------------------+
 *                        one LU (or several)
 */

#include <holdfast/move.h>

#include "model-transport.h"

#define K G_GUINT64_CONSTANT (0x4b)
#define X G_GUINT64_CONSTANT (0x58)

enum { S1, S2, D1, D2, T, NEXUSES };
enum { REGISTER, RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_AND_ABORT, IGNORE };

/* One LU, its record and this host's nexuses to it. */
typedef struct {
  HfModel model;
  HfModelWire wire;
  HfLu *lus[2];
  guint n_lus;
} World;

/* lu: tells the LUs of one test apart. */
void world_init (World *world, HfModelQuirks quirks, guint8 lu);
void world_clear (World *world);

/* Gives this host nexus of the world's LU. */
void world_plug (World *world, guint nexus, gboolean identified);

/* The world's LU as the source saved it, with the key K. */
void add_unit (HfRecord *record, const World *world, guint8 type, const guint *sources, guint n_sources, gboolean all_tg_pt);

/* A move with all nexuses of the worlds. Free with hf_move_free. */
HfMove *start_move (const HfRecord *record, HfRole role, World *worlds, guint n_worlds);
HfMove *start_move_with (const HfRecord *record, const HfMoveOptions *options, World *worlds, guint n_worlds);

HfVerdict verdict (HfMove *move, guint unit);
