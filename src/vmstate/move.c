/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A move: all LUs of one record, in two phases. Thread: that of the caller; each phase runs the units on workers of its own and
 * waits.
 *
 * Theory of operation. The units know nothing of each other. What ties them together is here: a phase starts only when the one
 * before it ended well on every LU, so nothing is committed before everything is prepared, and one journal file tells a rerun
 * about all of them.
 */

#include <holdfast/move.h>

#include "base/parallel.h"
#include "pr/journal.h"
#include "pr/pr-unit.h"

#define EXIT_FILE 15   /* sg3_utils' code */
#define WORKERS_MAX 64 /* LUs wait for their targets, not for a processor */

struct _HfMove {
  const HfRecord *record;
  HfUnitShared shared;
  char *state_dir;   /* NULL: no journal */
  HfUnit **units;    /* one for each of the record's */
  gboolean begun;    /* any phase was run */
  gboolean aborting; /* an abort that failed may be tried again */
  gboolean prepared;
};

/* Destination and source may be the same machine with the same state directory, and a release must not end the journal of a
 * reclaim. */
static char *
find_journal_dir (const HfMove *move, const char *purpose)
{
  return move->state_dir != NULL ? g_build_filename (move->state_dir, purpose, NULL) : NULL;
}

static const char *
get_purpose (const HfMove *move)
{
  return move->shared.options.role == HF_ROLE_SOURCE ? "source" : "destination";
}

static gboolean
open_journal (HfMove *move, const char *purpose, gboolean write, GError **error)
{
  g_autofree char *folder = find_journal_dir (move, purpose);
  g_clear_pointer (&move->shared.journal, hf_journal_free);
  if (folder == NULL)
    return TRUE;
  move->shared.journal = hf_journal_open (folder, move->record->id, write, error);
  return move->shared.journal != NULL;
}

HfMove *
hf_move_new (const HfRecord *record, const HfMoveOptions *options, GError **error)
{
  g_autoptr (HfMove) move = g_new0 (HfMove, 1);
  move->record = record;
  move->shared.options = *options;
  move->shared.options.state_dir = NULL;
  move->state_dir = g_strdup (options->state_dir);
  move->units = g_new0 (HfUnit *, record->n_units);
  for (guint i = 0; i < record->n_units; i++)
    move->units[i] = hf_unit_new (&record->units[i], &move->shared);
  if (!open_journal (move, get_purpose (move), FALSE, error))
    return NULL;
  return g_steal_pointer (&move);
}

void
hf_move_free (HfMove *move)
{
  if (move == NULL)
    return;
  for (guint i = 0; i < move->record->n_units; i++)
    hf_unit_free (move->units[i]);
  g_free (move->units);
  hf_journal_free (move->shared.journal);
  g_free (move->state_dir);
  g_free (move);
}

/* ---- in parallel ---- */

typedef struct {
  void (*function) (HfUnit *unit);
} Phase;

static void
run_phase (gpointer item, gpointer data)
{
  const Phase *phase = data;
  phase->function (item);
}

static void
for_each_unit (HfMove *move, void (*function) (HfUnit *unit))
{
  Phase phase = { function };
  hf_parallel_for ((gpointer *)move->units, move->record->n_units, WORKERS_MAX, run_phase, &phase);
}

/* ---- LUs ---- */

typedef struct {
  HfLu *lu;
  const HfLuIdentity *identity;
  GError *error;
} Identification;

static void
identify (gpointer item, gpointer data)
{
  Identification *it = item;
  it->identity = hf_lu_get_identity (it->lu, &it->error);
}

/* The unit of the record, by identity and not by path. */
static HfUnit *
find_unit (HfMove *move, const Identification *it, GError **error)
{
  const HfPrSaved *saved = hf_record_find (move->record, it->identity, error);
  if (saved == NULL) {
    g_prefix_error (error, "%s: ", hf_lu_get_address (it->lu));
    return NULL;
  }
  return move->units[saved - move->record->units];
}

static gboolean
check_room (const Identification *all, HfUnit *const *found, guint n, GError **error)
{
  for (guint i = 0; i < n; i++) {
    guint wanted = 0;
    for (guint j = 0; j <= i; j++)
      wanted += found[j] == found[i];
    if (wanted <= hf_unit_get_room (found[i]))
      continue;
    g_set_error (error, HF_RECORD_ERROR, HF_RECORD_ERROR_LU, "%s: more than %u nexuses to one LU", hf_lu_get_address (all[i].lu),
                 HF_PR_NEXUSES_MAX);
    return FALSE;
  }
  return TRUE;
}

/* Workers use them in parallel: each must be another. */
static gboolean
check_different (HfLu *const *lus, guint n, GError **error)
{
  g_autoptr (GHashTable) known = g_hash_table_new (NULL, NULL);
  for (guint i = 0; i < n; i++)
    if (!g_hash_table_add (known, lus[i])) {
      g_set_error (error, HF_RECORD_ERROR, HF_RECORD_ERROR_LU, "%s was given twice", hf_lu_get_address (lus[i]));
      return FALSE;
    }
  return TRUE;
}

static gboolean
add_identified (HfMove *move, Identification *all, guint n, GError **error)
{
  g_autofree HfUnit **found = g_new0 (HfUnit *, n);
  for (guint i = 0; i < n; i++) {
    if (all[i].error != NULL) {
      g_propagate_error (error, g_steal_pointer (&all[i].error));
      return FALSE;
    }
    found[i] = find_unit (move, &all[i], error);
    if (found[i] == NULL)
      return FALSE;
  }
  if (!check_room (all, found, n, error))
    return FALSE;
  for (guint i = 0; i < n; i++)
    hf_unit_add_lu (found[i], all[i].lu);
  return TRUE;
}

gboolean
hf_move_add_lus (HfMove *move, HfLu *const *lus, guint n_lus, GError **error)
{
  g_autofree Identification *all = g_new0 (Identification, n_lus);
  g_autofree gpointer *items = g_new0 (gpointer, n_lus);
  if (!check_different (lus, n_lus, error))
    return FALSE;
  for (guint i = 0; i < n_lus; i++) {
    all[i].lu = lus[i];
    items[i] = &all[i];
  }
  hf_parallel_for (items, n_lus, WORKERS_MAX, identify, NULL);
  gboolean done = add_identified (move, all, n_lus, error);
  for (guint i = 0; i < n_lus; i++)
    g_clear_error (&all[i].error);
  return done;
}

/* ---- phases ---- */

static gboolean
all_accepted (HfMove *move)
{
  for (guint i = 0; i < move->record->n_units; i++)
    if (!hf_unit_get_result (move->units[i])->accepted)
      return FALSE;
  return TRUE;
}

static void
fail_all (HfMove *move, const GError *error)
{
  for (guint i = 0; i < move->record->n_units; i++) {
    HfMoveUnit *unit = hf_unit_get_result (move->units[i]);
    unit->verdict = HF_VERDICT_ERROR;
    unit->accepted = FALSE;
    hf_unit_error_clear (&unit->error);
    unit->error = (HfUnitError){ .step = g_strdup ("journal"), .text = g_strdup (error->message), .exit_code = EXIT_FILE };
  }
}

/* The file stays as long as one LU still needs it. */
static void
close_journal (HfMove *move)
{
  g_autoptr (GError) error = NULL;
  if (move->shared.journal == NULL)
    return;
  for (guint i = 0; i < move->record->n_units; i++)
    if (!hf_unit_is_settled (move->units[i]))
      return;
  if (!hf_journal_remove (move->shared.journal, &error) && move->record->n_units > 0)
    hf_unit_add_note (move->units[0], error->message);
}

/* For writing, before the first command. FALSE: every unit says why. */
static gboolean
start_journal (HfMove *move, const char *purpose)
{
  g_autoptr (GError) error = NULL;
  if (open_journal (move, purpose, TRUE, &error))
    return TRUE;
  fail_all (move, error);
  return FALSE;
}

gboolean
hf_move_check (HfMove *move)
{
  move->begun = TRUE;
  for_each_unit (move, hf_unit_check);
  return all_accepted (move);
}

static void
set_backed_out (HfMove *move, const char *text)
{
  for (guint i = 0; i < move->record->n_units; i++) {
    HfMoveUnit *unit = hf_unit_get_result (move->units[i]);
    if (!unit->accepted || hf_unit_is_committed (move->units[i]))
      continue;
    unit->accepted = FALSE;
    g_free (unit->note);
    unit->note = g_strdup (text);
    if (!hf_unit_is_backed_out (move->units[i]))
      hf_unit_add_note (move->units[i], HF_NOTE_KEPT);
  }
}

/* What was committed is not looked at: it waits for nothing. */
static gboolean
is_taken_back (HfMove *move)
{
  for (guint i = 0; i < move->record->n_units; i++)
    if (!hf_unit_is_committed (move->units[i]) && !hf_unit_is_settled (move->units[i]))
      return FALSE;
  return TRUE;
}

gboolean
hf_move_prepare (HfMove *move)
{
  move->begun = TRUE;
  if (!start_journal (move, get_purpose (move)))
    return FALSE;
  for_each_unit (move, hf_unit_prepare);
  gboolean accepted = all_accepted (move);
  move->prepared = accepted || move->shared.running;
  if (move->prepared)
    return accepted;
  for_each_unit (move, hf_unit_abort);
  set_backed_out (move, "not done, because another LU was not accepted");
  close_journal (move);
  move->aborting = !is_taken_back (move);
  return FALSE;
}

gboolean
hf_move_commit (HfMove *move)
{
  if (!move->prepared)
    return FALSE;
  for_each_unit (move, hf_unit_commit);
  gboolean accepted = all_accepted (move);
  move->prepared = move->shared.running && !accepted;
  close_journal (move);
  return accepted;
}

gboolean
hf_move_commit_some (HfMove *move, HfMoveWanted wanted, gpointer user_data)
{
  g_autofree gpointer *items = g_new0 (gpointer, move->record->n_units);
  Phase phase = { hf_unit_commit };
  gboolean accepted = TRUE;
  guint n = 0;
  if (!move->prepared)
    return FALSE;
  for (guint i = 0; i < move->record->n_units; i++)
    if (wanted (hf_unit_get_result (move->units[i]), user_data))
      items[n++] = move->units[i];
  hf_parallel_for (items, n, WORKERS_MAX, run_phase, &phase);
  for (guint i = 0; i < n; i++)
    accepted &= hf_unit_get_result (items[i])->accepted;
  return accepted;
}

void
hf_move_set_running (HfMove *move)
{
  move->shared.running = TRUE;
  move->shared.options.on_change = HF_ON_CHANGE_ADOPT;
}

/* What an earlier run left. */
static gboolean
abort_earlier (HfMove *move)
{
  move->begun = TRUE;
  if (!start_journal (move, get_purpose (move)))
    return FALSE;
  for_each_unit (move, hf_unit_abort_earlier);
  close_journal (move);
  return all_accepted (move);
}

gboolean
hf_move_abort (HfMove *move)
{
  if (!move->begun)
    return abort_earlier (move);
  if (move->prepared || move->aborting)
    for_each_unit (move, hf_unit_abort);
  move->prepared = FALSE;
  set_backed_out (move, "taken back");
  close_journal (move);
  move->aborting = !is_taken_back (move);
  return !move->aborting;
}

gboolean
hf_move_release (HfMove *move)
{
  move->begun = TRUE;
  if (!start_journal (move, "release"))
    return FALSE;
  for_each_unit (move, hf_unit_prove_release);
  if (all_accepted (move))
    for_each_unit (move, hf_unit_release);
  else
    set_backed_out (move, "not done, because another LU was not accepted");
  close_journal (move);
  return all_accepted (move);
}

guint
hf_move_take_unit_attentions (HfMove *move, HfLu *lu, guint16 *ret)
{
  guint n = 0;
  for (guint i = 0; i < move->record->n_units; i++)
    if (hf_unit_take_unit_attentions (move->units[i], lu, ret, &n))
      return n;
  return hf_lu_take_unit_attentions (lu, ret); /* the same nexus as one that was added: not used */
}

guint
hf_move_get_n_units (HfMove *move)
{
  return move->record->n_units;
}

const HfMoveUnit *
hf_move_get_unit (HfMove *move, guint index)
{
  return hf_unit_get_result (move->units[index]);
}

HfOwner
hf_move_unit_get_owner (HfMove *move, guint unit, const HfPrObservation *observation, guint index)
{
  return hf_unit_get_owner (move->units[unit], observation, index);
}
