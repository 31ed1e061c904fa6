/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * One LU of a move: asks pr-plan what to do, does it on the LU's nexuses, looks, asks again. Every PERSISTENT RESERVE OUT stands
 * in the journal before it is sent; one that takes a registration back is sent even if the journal fails.
 *
 * Thread: one at a time; different units in parallel. Functions block until the unit's deadline at the longest.
 */

#include "pr/journal.h"
#include "pr/pr-plan.h"

typedef struct _HfUnit HfUnit;

/* What all units of a move share. Outlives them. */
typedef struct {
  HfMoveOptions options;
  HfJournal *journal; /* NULL: none is kept. May be replaced between calls */
  gboolean running;   /* the VM runs on this host: nothing is taken back after a failure */
} HfUnitShared;

/* saved outlives the unit. */
HfUnit *hf_unit_new (const HfPrSaved *saved, const HfUnitShared *shared);
void hf_unit_free (HfUnit *unit);

/* Adds a nexus; lu outlives the unit. One that is there already is not added again, and noted. FALSE if there are
 * HF_PR_NEXUSES_MAX. */
gboolean hf_unit_add_lu (HfUnit *unit, HfLu *lu);

/* FALSE: a REGISTER of ours may still stand, because it could not, or must not, be taken back. */
gboolean hf_unit_is_backed_out (HfUnit *unit);
#define HF_NOTE_KEPT "this nexus may stay registered: run the command again with the same record and state directory"

/* How many more nexuses fit. */
guint hf_unit_get_room (HfUnit *unit);

void hf_unit_add_note (HfUnit *unit, const char *note);

/* The result so far; valid as long as unit, changed by the calls below. */
HfMoveUnit *hf_unit_get_result (HfUnit *unit);

/* Each starts a deadline of its own. The outcome is in the result; `accepted` says whether the move may go on. */
void hf_unit_check (HfUnit *unit);
void hf_unit_prepare (HfUnit *unit);
void hf_unit_commit (HfUnit *unit);
/* Leaves a unit alone that was committed. */
void hf_unit_abort (HfUnit *unit);
/* Of what an earlier run registered, by the journal. */
void hf_unit_abort_earlier (HfUnit *unit);
gboolean hf_unit_is_committed (HfUnit *unit);
/* Proves that the registration may go; hf_unit_release, if that was accepted, removes it. */
void hf_unit_prove_release (HfUnit *unit);
void hf_unit_release (HfUnit *unit);

/* The journal may forget this unit: nothing of ours waits for a rerun. */
gboolean hf_unit_is_settled (HfUnit *unit);

/* FALSE: lu is none of the unit's. What it met since the last call. */
gboolean hf_unit_take_unit_attentions (HfUnit *unit, HfLu *lu, guint16 *ret, guint *ret_n);

HfOwner hf_unit_get_owner (HfUnit *unit, const HfPrObservation *observation, guint index);
