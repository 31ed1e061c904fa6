/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Load, reclaim and release: which devices are the record's LUs, what is taken over when, and what the VM has afterwards. Thread:
 * any one; every call blocks.
 *
 * Theory of operation. All three are one HfMove over the devices that were found to be the record's LUs. A Load prepares all of
 * them, takes over those at once that the guest cannot write to otherwise, and keeps the move open until it is known where the VM
 * runs. Once it is known to run here (commit, reclaim) there is nothing to go back to: each LU goes as far as it can.
 *
 * Afterwards a holding is what its LU's verdict says. Where that cannot be told, it is uncertain, and the next Save reads the LU.
 */

#include "config.h"

#include "pr/pr-plan.h"
#include "prhelper/migrate-private.h"

#define LUS_NAMED_MAX 8 /* in one message */

/* One of the three at work. */
typedef struct {
  const HfRecord *record;
  HfMigrateOptions options;
  HfRole role;
  guint n_devices;   /* looked at */
  GPtrArray *opened; /* of HfOpened: those in use */
  guint *units;      /* the index in record of each */
  guint *counts;     /* how many of them each unit has */
  HfMove *move;
} Operation;

struct _HfLoad {
  HfRecord *record;
  GPtrArray *holdings;
  char *state_dir;
  HfMigrateOptions options;
  Operation operation;
  GPtrArray *used; /* of HfHolding, not owned */
  gboolean has_run, finished;
  gboolean anew; /* a commit or abort without a run before it failed: the next starts again */
};

/* ---- which devices ---- */

static void
operation_clear (Operation *operation)
{
  hf_move_free (operation->move);
  g_clear_pointer (&operation->opened, g_ptr_array_unref);
  g_free (operation->units);
  g_free (operation->counts);
  *operation = (Operation){ 0 };
}

/* The index in record, or -1. A unit without a key needs no device. */
static int
find_unit (const HfRecord *record, const HfLuIdentity *identity)
{
  const HfPrSaved *saved = hf_record_find (record, identity, NULL);
  return saved != NULL && saved->key != 0 ? (int)(saved - record->units) : -1;
}

static gboolean
is_saved_nexus (const HfPrSaved *saved, const HfNexus *nexus)
{
  for (guint i = 0; i < saved->n_nexuses; i++)
    if (hf_nexus_compare (&saved->nexuses[i], nexus) == HF_NEXUS_SAME)
      return TRUE;
  return FALSE;
}

static gboolean
is_preferred_saved (const HfPrSaved *saved, const HfHolding *holding)
{
  return is_saved_nexus (saved, &holding->nexus);
}

static gboolean
is_preferred_tracked (const HfPrSaved *saved, const HfHolding *holding)
{
  return holding->tracked;
}

static gboolean
is_any (const HfPrSaved *saved, const HfHolding *holding)
{
  return TRUE;
}

/* If there are more paths than the VM had nexuses: its own first (one host is both sides, or this is the source). */
static gboolean (*const preferences[]) (const HfPrSaved *saved, const HfHolding *holding) = {
  is_preferred_saved,
  is_preferred_tracked,
  is_any,
};

/* Two nodes of one path are one nexus. */
static gboolean
is_used (const Operation *operation, const gboolean *chosen, GPtrArray *all, const HfOpened *opened, int unit)
{
  for (guint i = 0; i < all->len; i++) {
    const HfOpened *other = all->pdata[i];
    if (chosen[i] && find_unit (operation->record, other->identity) == unit
        && hf_nexus_compare (&other->holding->nexus, &opened->holding->nexus) == HF_NEXUS_SAME)
      return TRUE;
  }
  return FALSE;
}

static gboolean
want_device (const Operation *operation, const gboolean *chosen, GPtrArray *all, const HfOpened *opened, guint preference)
{
  int unit = opened->identity != NULL ? find_unit (operation->record, opened->identity) : -1;
  if (unit < 0)
    return FALSE;
  const HfPrSaved *saved = &operation->record->units[unit];
  return operation->counts[unit] < MIN (saved->n_nexuses, HF_PR_NEXUSES_MAX) && preferences[preference](saved, opened->holding)
         && !is_used (operation, chosen, all, opened, unit);
}

/* Keeps those in use, in the order given; the others are closed. */
static void
choose (Operation *operation, GPtrArray *all)
{
  g_autofree gboolean *chosen = g_new0 (gboolean, all->len + 1);
  for (guint preference = 0; preference < G_N_ELEMENTS (preferences); preference++)
    for (guint i = 0; i < all->len; i++) {
      const HfOpened *opened = all->pdata[i];
      if (chosen[i] || !want_device (operation, chosen, all, opened, preference))
        continue;
      chosen[i] = TRUE;
      operation->counts[find_unit (operation->record, opened->identity)]++;
    }
  for (guint i = all->len; i > 0; i--)
    if (!chosen[i - 1])
      g_ptr_array_remove_index (all, i - 1);
  operation->opened = g_ptr_array_ref (all);
  operation->units = g_new0 (guint, all->len + 1);
  for (guint i = 0; i < all->len; i++)
    operation->units[i] = (guint)find_unit (operation->record, ((HfOpened *)all->pdata[i])->identity);
}

static gboolean
check_found (const Operation *operation, GError **error)
{
  for (guint i = 0; i < operation->record->n_units; i++) {
    const HfPrSaved *saved = &operation->record->units[i];
    if (saved->key == 0 || operation->counts[i] > 0)
      continue;
    g_autofree char *name = hf_lu_identity_to_string (&saved->identity);
    g_set_error (error, HF_MIGRATE_ERROR, HF_MIGRATE_ERROR_NOT_FOUND, "%s: not among the %u devices that were looked at", name,
                 operation->n_devices);
    return FALSE;
  }
  return TRUE;
}

static gboolean
make_move (Operation *operation, GError **error)
{
  HfMoveOptions options = { .role = operation->role,
                            .on_change = operation->options.on_change,
                            .timeout_ms = operation->options.timeout_ms,
                            .state_dir = operation->options.state_dir };
  g_autofree HfLu **lus = g_new0 (HfLu *, operation->opened->len + 1);
  g_autoptr (GError) local = NULL;
  for (guint i = 0; i < operation->opened->len; i++)
    lus[i] = ((HfOpened *)operation->opened->pdata[i])->lu;
  operation->move = hf_move_new (operation->record, &options, &local);
  if (operation->move != NULL && hf_move_add_lus (operation->move, lus, operation->opened->len, &local))
    return TRUE;
  g_set_error_literal (error, HF_MIGRATE_ERROR, HF_MIGRATE_ERROR_REFUSED, local->message);
  return FALSE;
}

/* all_found: an LU without a device is an error; else that of its unit. */
static gboolean
operation_start (Operation *operation, GPtrArray *holdings, gboolean all_found, GError **error)
{
  guint timeout_ms = operation->options.timeout_ms != 0 ? operation->options.timeout_ms : HF_SCSI_TIMEOUT_DEFAULT_MS;
  g_autoptr (GPtrArray) all = hf_migrate_open (holdings, operation->record, timeout_ms);
  operation->n_devices = all->len;
  operation->counts = g_new0 (guint, operation->record->n_units + 1);
  choose (operation, all);
  return (!all_found || check_found (operation, error)) && make_move (operation, error);
}

/* ---- what became of an LU ---- */

static gboolean
is_ours (HfVerdict verdict)
{
  return verdict == HF_VERDICT_UNCHANGED || (verdict >= HF_VERDICT_TYPE_CHANGED && verdict <= HF_VERDICT_REGISTERED);
}

static gboolean
is_a_change (HfVerdict verdict)
{
  return verdict == HF_VERDICT_FENCED || verdict == HF_VERDICT_TYPE_CHANGED || verdict == HF_VERDICT_PREEMPTED
         || verdict == HF_VERDICT_RELEASED;
}

/* What is registered here now: nothing, the VM's key, or nobody knows. */
typedef enum { HAS_NOTHING, HAS_KEY, HAS_MAYBE, HAS_AS_BEFORE } Has;
typedef Has (*Judge) (const HfMoveUnit *unit);

static Has
judge_load (const HfMoveUnit *unit)
{
  if (unit->accepted && is_ours (unit->verdict))
    return HAS_KEY;
  return !unit->accepted && (unit->taken_over || unit->take_over_due || unit->kept) ? HAS_MAYBE : HAS_NOTHING;
}

static Has
judge_check (const HfMoveUnit *unit)
{
  return is_ours (unit->verdict) ? HAS_KEY : HAS_NOTHING;
}

/* K is here, and certainly on none of the source's nexuses: whatever the reason was to keep it, it is the VM's last registration.
 */
static gboolean
is_last (const HfMoveUnit *unit)
{
  const HfPrObservation *seen = &unit->after;
  const HfPrSaved *saved = unit->saved;
  guint listed = unit->kept && unit->has_after && seen->full ? hf_pr_observation_count_key (seen, saved->key) : 0;
  for (guint i = 0; listed > 0 && i < seen->n_keys; i++)
    for (guint j = 0; j < saved->n_nexuses; j++)
      if (seen->keys[i] == saved->key && hf_nexus_compare (&seen->registrants[i].nexus, &saved->nexuses[j]) != HF_NEXUS_DIFFERENT)
        return FALSE;
  return listed > 0;
}

/* What was committed stays: its verdict is accepted. The abort of an earlier run ends in UNCHANGED with a type, if that was. */
static Has
judge_abort (const HfMoveUnit *unit)
{
  if (is_last (unit))
    return HAS_KEY;
  if (unit->taken_over)
    return unit->accepted ? HAS_KEY : HAS_MAYBE;
  return unit->kept || unit->verdict == HF_VERDICT_ERROR ? HAS_MAYBE : HAS_NOTHING;
}

static Has
judge_reclaim (const HfMoveUnit *unit)
{
  if (!unit->accepted)
    return HAS_MAYBE;
  return is_ours (unit->verdict) ? HAS_KEY : HAS_NOTHING;
}

static Has
judge_release (const HfMoveUnit *unit)
{
  return unit->accepted ? HAS_NOTHING : HAS_AS_BEFORE;
}

/* ---- report ---- */

static char *
describe (const HfMoveUnit *unit)
{
  g_autoptr (GString) text = g_string_new (NULL);
  if (unit->error.step != NULL)
    g_string_append_printf (text, "%s: %s", unit->error.step, unit->error.text);
  if (unit->note != NULL)
    g_string_append_printf (text, "%s%s", text->len > 0 ? "; " : "", unit->note);
  if (unit->n_nexuses > 0 && unit->n_nexuses < unit->saved->n_nexuses)
    g_string_append_printf (text, "%sthe VM had %u nexuses, %u %s used here", text->len > 0 ? "; " : "", unit->saved->n_nexuses,
                            unit->n_nexuses, unit->n_nexuses == 1 ? "is" : "are");
  return text->len > 0 ? g_string_free (g_steal_pointer (&text), FALSE) : NULL;
}

static void
make_report (const Operation *operation, Judge judge, HfReport **ret_report)
{
  HfReport *report = g_new0 (HfReport, 1);
  if (ret_report == NULL) {
    g_free (report);
    return;
  }
  report->n_lus = hf_move_get_n_units (operation->move);
  report->lus = g_new0 (HfLuReport, report->n_lus);
  for (guint i = 0; i < report->n_lus; i++) {
    const HfMoveUnit *unit = hf_move_get_unit (operation->move, i);
    Has has = judge (unit);
    gboolean any = has == HAS_KEY || has == HAS_MAYBE || (has == HAS_AS_BEFORE && unit->verdict == HF_VERDICT_REFUSED);
    report->lus[i] = (HfLuReport){ .identity = unit->saved->identity,
                                   .name = g_strdup (unit->name),
                                   .verdict = unit->verdict,
                                   .warning = is_a_change (unit->verdict),
                                   .prepared = unit->take_over_due,
                                   .key = any ? unit->saved->key : 0,
                                   .type = any ? unit->type : HF_PR_TYPE_NONE,
                                   .milliseconds = unit->milliseconds,
                                   .text = describe (unit) };
  }
  *ret_report = report;
}

/* ---- holdings ---- */

/* A single holder is one nexus; where the target does not tell which, each of the VM's counts as it. */
static guint8
find_type (const HfHolding *holding, const HfMoveUnit *unit)
{
  const HfPrObservation *seen = &unit->after;
  if (!unit->has_after || !seen->full || unit->take_over_due || hf_pr_type_is_all_registrants (unit->type))
    return unit->type;
  for (guint i = 0; i < seen->n_keys; i++) {
    HfNexusMatch match = hf_nexus_compare (&seen->registrants[i].nexus, &holding->nexus);
    if (match == HF_NEXUS_UNKNOWN || (match == HF_NEXUS_SAME && seen->registrants[i].holder))
      return unit->type;
  }
  return HF_PR_TYPE_NONE;
}

static void
set_state (HfHolding *holding, const HfMoveUnit *unit, Has has)
{
  if (has == HAS_AS_BEFORE)
    return;
  holding->candidate_key = 0;
  holding->state = (HfPrState){ 0 };
  if (has == HAS_NOTHING)
    return;
  holding->tracked = TRUE;
  holding->state = (HfPrState){ .key = unit->saved->key,
                                .type = find_type (holding, unit),
                                .scope = unit->saved->scope,
                                .aptpl = unit->saved->aptpl,
                                .all_tg_pt = unit->saved->all_tg_pt,
                                .uncertain = has == HAS_MAYBE };
}

/* What each nexus met goes to its guest, but for what the take-overs of this migration raised. */
static void
keep_unit_attentions (const Operation *operation, guint index, gboolean ours)
{
  const HfOpened *opened = operation->opened->pdata[index];
  guint16 met[HF_SCSI_UA_MAX];
  guint n = hf_move_take_unit_attentions (operation->move, opened->lu, met);
  hf_holding_add_unit_attentions (opened->holding, met, n);
  if (ours)
    hf_holding_drop_take_over (opened->holding);
}

static void
update_holdings (const Operation *operation, Judge judge)
{
  for (guint i = 0; i < operation->opened->len; i++) {
    const HfMoveUnit *unit = hf_move_get_unit (operation->move, operation->units[i]);
    Has has = judge (unit);
    keep_unit_attentions (operation, i, has == HAS_KEY);
    set_state (((HfOpened *)operation->opened->pdata[i])->holding, unit, has);
  }
}

static void
finish (const Operation *operation, Judge judge, HfReport **ret_report)
{
  update_holdings (operation, judge);
  make_report (operation, judge, ret_report);
}

/* ---- errors ---- */

/* The cause, not the LUs that it took along. */
static gboolean
is_cause (const Operation *operation, const HfMoveUnit *unit)
{
  return !unit->accepted && (unit->error.step != NULL || !hf_verdict_is_accepted (unit->verdict, operation->options.on_change));
}

static void append_lu (GString *text, guint *n, const char *format, ...) G_GNUC_PRINTF (3, 4);

static void
append_lu (GString *text, guint *n, const char *format, ...)
{
  va_list args;
  if (++*n > LUS_NAMED_MAX)
    return;
  g_string_append (text, *n > 1 ? "; " : "");
  va_start (args, format);
  g_string_append_vprintf (text, format, args);
  va_end (args);
}

static void
append_rest (GString *text, guint n)
{
  if (n > LUS_NAMED_MAX)
    g_string_append_printf (text, "; and %u more", n - LUS_NAMED_MAX);
}

/* FALSE: there is none. */
static gboolean
append_causes (const Operation *operation, gboolean all, GString *text)
{
  guint n = 0;
  for (guint i = 0; i < hf_move_get_n_units (operation->move); i++) {
    const HfMoveUnit *unit = hf_move_get_unit (operation->move, i);
    if (unit->accepted || (!all && !is_cause (operation, unit)))
      continue;
    g_autofree char *cause = describe (unit);
    append_lu (text, &n, "%s: %s: %s", unit->name, hf_verdict_to_string (unit->verdict),
               cause != NULL ? cause : "this change is to be refused (on-change)");
  }
  append_rest (text, n);
  return n > 0;
}

/* FALSE: there is none. */
static gboolean
append_committed (const Operation *operation, GString *text)
{
  guint n = 0;
  for (guint i = 0; i < hf_move_get_n_units (operation->move); i++) {
    const HfMoveUnit *unit = hf_move_get_unit (operation->move, i);
    if (!unit->taken_over)
      continue;
    g_string_append (text, n == 0 ? "; taken over already: " : "");
    append_lu (text, &n, "%s", unit->name);
  }
  append_rest (text, n);
  return n > 0;
}

static void
set_error (const Operation *operation, GError **error)
{
  g_autoptr (GString) text = g_string_new (NULL);
  if (!append_causes (operation, FALSE, text))
    append_causes (operation, TRUE, text);
  int code = append_committed (operation, text) ? HF_MIGRATE_ERROR_COMMITTED : HF_MIGRATE_ERROR_REFUSED;
  g_set_error_literal (error, HF_MIGRATE_ERROR, code, text->str);
}

static gboolean
fail_order (const char *text, GError **error)
{
  g_set_error_literal (error, HF_MIGRATE_ERROR, HF_MIGRATE_ERROR_REFUSED, text);
  return FALSE;
}

/* ---- Load ---- */

HfLoad *
hf_load_new (HfRecord *record, GPtrArray *holdings, const HfMigrateOptions *options)
{
  HfLoad *load = g_new0 (HfLoad, 1);
  load->record = record;
  load->holdings = holdings;
  load->options = *options;
  load->options.state_dir = load->state_dir = g_strdup (options->state_dir);
  load->used = g_ptr_array_new ();
  return load;
}

void
hf_load_free (HfLoad *load)
{
  if (load == NULL)
    return;
  operation_clear (&load->operation);
  g_ptr_array_unref (load->used);
  g_ptr_array_unref (load->holdings);
  hf_record_free (load->record);
  g_free (load->state_dir);
  g_free (load);
}

const HfRecord *
hf_load_get_record (HfLoad *load)
{
  return load->record;
}

GPtrArray *
hf_load_get_holdings (HfLoad *load)
{
  return load->used;
}

static gboolean
load_start (HfLoad *load, gboolean all_found, GError **error)
{
  Operation *operation = &load->operation;
  operation_clear (operation);
  *operation = (Operation){ .record = load->record, .options = load->options, .role = HF_ROLE_DESTINATION };
  gboolean started = operation_start (operation, load->holdings, all_found, error);
  g_ptr_array_set_size (load->used, 0);
  for (guint i = 0; operation->opened != NULL && i < operation->opened->len; i++)
    g_ptr_array_add (load->used, ((HfOpened *)operation->opened->pdata[i])->holding);
  return started;
}

gboolean
hf_load_check (HfLoad *load, HfReport **ret_report, GError **error)
{
  if (load->has_run)
    return fail_order ("this Load has run already", error);
  if (!load_start (load, TRUE, error))
    return FALSE;
  gboolean good = hf_move_check (load->operation.move);
  for (guint i = 0; i < load->operation.opened->len; i++)
    keep_unit_attentions (&load->operation, i, FALSE);
  make_report (&load->operation, judge_check, ret_report);
  if (!good)
    set_error (&load->operation, error);
  return good;
}

/* Types 1 and 3 let nobody but the holder write; with 5 and 6 being registered is enough, but the PREEMPT of a VM with several
   nexuses removes all but one of them, so the others are registered behind it, and the guest must not notice. */
static gboolean
cannot_wait (const HfMoveUnit *unit, gpointer user_data)
{
  gboolean holder_only = unit->type == HF_PR_TYPE_WRITE_EXCLUSIVE || unit->type == HF_PR_TYPE_EXCLUSIVE_ACCESS;
  return unit->take_over_due && (holder_only || unit->saved->n_nexuses > 1 || unit->n_nexuses > 1);
}

/* Some nexus would be taken back by an abort. */
static gboolean
is_undoable (HfLoad *load)
{
  for (guint i = 0; i < load->record->n_units; i++) {
    const HfMoveUnit *unit = hf_move_get_unit (load->operation.move, i);
    gboolean registered = is_ours (unit->verdict) && unit->verdict != HF_VERDICT_UNCHANGED;
    if (registered && !unit->taken_over)
      return TRUE;
  }
  return FALSE;
}

/* FALSE: all is taken back that was not committed. */
static gboolean
prepare_and_commit (HfMove *move)
{
  if (!hf_move_prepare (move))
    return FALSE;
  if (hf_move_commit_some (move, cannot_wait, NULL))
    return TRUE;
  hf_move_abort (move);
  return FALSE;
}

gboolean
hf_load_run (HfLoad *load, HfReport **ret_report, GError **error)
{
  if (load->has_run)
    return fail_order ("this Load has run already", error);
  if (!load_start (load, TRUE, error))
    return FALSE;
  load->has_run = TRUE;
  gboolean good = prepare_and_commit (load->operation.move);
  load->finished = !good && hf_move_abort (load->operation.move);
  if (good && !is_undoable (load))
    load->finished = hf_move_commit (load->operation.move);
  finish (&load->operation, judge_load, ret_report);
  if (!good)
    set_error (&load->operation, error);
  return good;
}

gboolean
hf_load_is_pending (HfLoad *load)
{
  return load->has_run && !load->finished;
}

gboolean
hf_load_commit (HfLoad *load, HfReport **ret_report, GError **error)
{
  gboolean fresh = !load->has_run || load->anew;
  if (fresh && !load_start (load, FALSE, error)) {
    load->has_run = FALSE;
    return FALSE;
  }
  load->has_run = TRUE;
  hf_move_set_running (load->operation.move);
  if (fresh)
    hf_move_prepare (load->operation.move);
  gboolean good = load->finished || hf_move_commit (load->operation.move);
  load->finished |= good;
  load->anew = fresh && !good;
  finish (&load->operation, judge_load, ret_report);
  if (!good)
    set_error (&load->operation, error);
  return good;
}

/* Nothing can be done about what is left, by whatever number of tries. */
static gboolean
is_only_last_left (HfLoad *load)
{
  gboolean any = FALSE;
  for (guint i = 0; i < load->record->n_units; i++) {
    const HfMoveUnit *unit = hf_move_get_unit (load->operation.move, i);
    gboolean failed = unit->verdict == HF_VERDICT_ERROR || unit->verdict == HF_VERDICT_REFUSED || unit->kept;
    if (unit->accepted || !failed)
      continue;
    if (!is_last (unit))
      return FALSE;
    any = TRUE;
  }
  return any;
}

gboolean
hf_load_abort (HfLoad *load, HfReport **ret_report, GError **error)
{
  gboolean fresh = !load->has_run || load->anew;
  if (fresh && !load_start (load, FALSE, error)) {
    load->has_run = FALSE;
    return FALSE;
  }
  load->has_run = TRUE;
  gboolean good = load->finished || hf_move_abort (load->operation.move) || is_only_last_left (load);
  load->finished = good;
  load->anew = fresh && !good;
  finish (&load->operation, judge_abort, ret_report);
  if (!good)
    set_error (&load->operation, error);
  return good;
}

/* ---- the source ---- */

static gboolean
source_start (Operation *operation, const HfRecord *record, GPtrArray *holdings, const HfMigrateOptions *options, GError **error)
{
  *operation = (Operation){ .record = record, .options = *options, .role = HF_ROLE_SOURCE };
  if (operation_start (operation, holdings, FALSE, error))
    return TRUE;
  operation_clear (operation);
  return FALSE;
}

static gboolean
source_finish (Operation *operation, Judge judge, gboolean good, HfReport **ret_report, GError **error)
{
  finish (operation, judge, ret_report);
  if (!good)
    set_error (operation, error);
  operation_clear (operation);
  return good;
}

gboolean
hf_migrate_reclaim (const HfRecord *record, GPtrArray *holdings, const HfMigrateOptions *options, HfReport **ret_report,
                    GError **error)
{
  Operation operation;
  if (!source_start (&operation, record, holdings, options, error))
    return FALSE;
  hf_move_set_running (operation.move);
  hf_move_prepare (operation.move);
  gboolean good = hf_move_commit (operation.move);
  return source_finish (&operation, judge_reclaim, good, ret_report, error);
}

gboolean
hf_migrate_release (const HfRecord *record, GPtrArray *holdings, const HfMigrateOptions *options, HfReport **ret_report,
                    GError **error)
{
  Operation operation;
  if (!source_start (&operation, record, holdings, options, error))
    return FALSE;
  gboolean good = hf_move_release (operation.move);
  return source_finish (&operation, judge_release, good, ret_report, error);
}
