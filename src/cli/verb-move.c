/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * holdfast check, load, release and reclaim: what follows from a record. Owns: these verbs. Thread: main.
 *
 * Theory of operation: one table says for each verb which side of the move the LUs are on and which phases of HfMove run; all
 * else is common: read the record, open the LUs that were named (or find them by their identity), add them, run, show one verdict
 * for each LU. A record or an LU that does not fit is refused before any command that could change something. With --helper the
 * work is holdfast-pr-helper's, and its report is shown in the same shapes.
 */
#include "config.h"

#include "cli/cli.h"
#include "cli/helper-verbs.h"
#include "cli/interrupt.h"
#include "pr/journal.h"
#include "scsi/iscsi-address.h"
#include "scsi/transport.h"

#include <string.h>

typedef struct {
  const char *name, *synopsis, *summary;
  HfRole role;
  gboolean reads_only;
  /* ret_taken_back: the process was asked to end, and so what had been done was undone. */
  gboolean (*run) (HfMove *move, gboolean *ret_taken_back);
} MoveVerb;

typedef struct {
  char *input, *on_change, *helper, *vm;
  gboolean source_gone, destination_gone;
  char **addresses;
} MoveWords;

static void
move_words_clear (MoveWords *words)
{
  g_free (words->input);
  g_free (words->on_change);
  g_free (words->helper);
  g_free (words->vm);
  g_strfreev (words->addresses);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (MoveWords, move_words_clear)

/* A signal ends a move between its phases only: in a phase K may stand on both hosts. */
static gboolean
prepare_and_commit (HfMove *move, gboolean *ret_taken_back)
{
  gboolean prepared = hf_move_prepare (move);

  *ret_taken_back = hf_interrupted () != 0;
  if (!*ret_taken_back)
    return prepared && hf_move_commit (move);
  if (prepared)
    hf_move_abort (move);
  return FALSE;
}

static gboolean
check (HfMove *move, gboolean *ret_taken_back)
{
  return hf_move_check (move);
}

static gboolean
release (HfMove *move, gboolean *ret_taken_back)
{
  return hf_move_release (move);
}

static const MoveVerb check_verb = {
  .name = "check",
  .synopsis = "check -i FILE [LU... | --helper --vm NAME]",
  .summary = "Say what load would do. Sends only reads.",
  .role = HF_ROLE_DESTINATION,
  .reads_only = TRUE,
  .run = check,
};
static const MoveVerb load_verb = {
  .name = "load",
  .synopsis = "load -i FILE [LU... | --helper --vm NAME]",
  .summary = "Take over here what the record says the VM held.",
  .role = HF_ROLE_DESTINATION,
  .run = prepare_and_commit,
};
static const MoveVerb release_verb = {
  .name = "release",
  .synopsis = "release -i FILE [LU...] | --helper --vm NAME",
  .summary = "Remove this host's registration, after proving that nothing is lost by it.",
  .role = HF_ROLE_SOURCE,
  .run = release,
};
static const MoveVerb reclaim_verb = {
  .name = "reclaim",
  .synopsis = "reclaim -i FILE [LU...] | --helper --vm NAME",
  .summary = "Take everything back on the source after a failed migration.",
  .role = HF_ROLE_SOURCE,
  .run = prepare_and_commit,
};

/* The words on a dead host. FALSE: they mean nothing here. */
static gboolean
check_gone (HfRun *run, const MoveVerb *verb, const MoveWords *words, GError **error)
{
  if (verb == &release_verb && (words->source_gone || words->destination_gone))
    return hf_usage_error (error,
                           "release removes this host's registration and no other: --%s-gone has no effect; reclaim takes it",
                           words->source_gone ? "source" : "destination");
  if (verb->role == HF_ROLE_DESTINATION && words->destination_gone)
    return hf_usage_error (error, "%s runs on the destination: --destination-gone makes no sense", verb->name);
  if (verb == &reclaim_verb && words->source_gone)
    hf_run_warn (run,
                 "warning: reclaim runs on the source: --source-gone means the host on the other side, as --destination-gone");
  return TRUE;
}

/* What goes together. */
static gboolean
check_words (HfRun *run, const MoveVerb *verb, const MoveWords *words, GError **error)
{
  gboolean needs_record = !words->helper || verb->role == HF_ROLE_DESTINATION;

  if (!words->input && needs_record)
    return hf_usage_error (error, "%s needs -i FILE", verb->name);
  if (words->input && !needs_record)
    return hf_usage_error (error, "%s --helper works with the record of the VM's last save: -i has no effect", verb->name);
  if (!words->helper)
    return words->vm ? hf_usage_error (error, "--vm needs --helper") : check_gone (run, verb, words, error);
  if (!words->vm || !*words->vm)
    return hf_usage_error (error, "--helper needs --vm NAME");
  if (words->addresses[0] || words->source_gone || words->destination_gone)
    return hf_usage_error (error, "--helper works on the devices of the VM: no LU, --source-gone or --destination-gone");
  if (words->on_change && verb->role == HF_ROLE_SOURCE)
    return hf_usage_error (error, "%s --helper follows the helper's own --on-change", verb->name);
  return TRUE;
}

static gboolean
parse_words (HfRun *run, const MoveVerb *verb, char **argv, MoveWords *words, HfMoveOptions *options, GError **error)
{
  const GOptionEntry entries[] = {
    { "input", 'i', 0, G_OPTION_ARG_FILENAME, &words->input, "The record; - is standard input", "FILE" },
    { "on-change", 0, 0, G_OPTION_ARG_STRING, &words->on_change,
      "What to do if others changed the reservation: adopt (default) or refuse", "POLICY" },
    { "source-gone", 0, verb == &release_verb ? G_OPTION_FLAG_HIDDEN : 0, G_OPTION_ARG_NONE, &words->source_gone,
      "The host on the other side is dead: remove its registration here", NULL },
    { "destination-gone", 0, verb == &reclaim_verb ? 0 : G_OPTION_FLAG_HIDDEN, G_OPTION_ARG_NONE, &words->destination_gone,
      "The same, in the words of reclaim", NULL },
    HF_HELPER_ENTRY (&words->helper),
    { "vm", 0, 0, G_OPTION_ARG_STRING, &words->vm, "With --helper: the VM, by name, uuid or pid:N", "NAME" },
    { NULL },
  };
  const HfOptionSpec spec = { verb->synopsis, verb->summary,
                              "Without LUs the block devices of this machine are searched for them.", entries, FALSE };
  g_auto (GStrv) helper_argv = hf_helper_argv (argv);

  if (!hf_run_parse (run, &spec, helper_argv, &words->addresses, error) || !check_words (run, verb, words, error))
    return FALSE;
  if (words->on_change && strcmp (words->on_change, "refuse") == 0)
    options->on_change = HF_ON_CHANGE_REFUSE;
  else if (words->on_change && strcmp (words->on_change, "adopt") != 0)
    return hf_usage_error (error, "--on-change is adopt or refuse, not \"%s\"", words->on_change);
  options->role = verb->role;
  options->peer_gone = words->source_gone || words->destination_gone;
  options->timeout_ms = run->options.timeout_ms;
  return TRUE;
}

/* ---- what came out ---- */

typedef struct {
  HfMove *move;
  guint unit;
  HfRole role;
} WhoseData;

static const char *
whose (const HfPrObservation *observation, guint index, void *data)
{
  WhoseData *whose_data = data;
  gboolean here_is_source = whose_data->role == HF_ROLE_SOURCE;

  switch (hf_move_unit_get_owner (whose_data->move, whose_data->unit, observation, index)) {
  case HF_OWNER_OURS:
    return here_is_source ? "source" : "destination";
  case HF_OWNER_PEER:
    return here_is_source ? "destination" : "source";
  case HF_OWNER_OTHER:
    return "no";
  case HF_OWNER_UNKNOWN:
    break;
  }
  return NULL;
}

typedef enum { CLASS_DONE, CLASS_CHANGED, CLASS_UNCLEAR, CLASS_DEVICE, CLASS_REFUSED } VerdictClass;

static const struct {
  HfVerdict verdict;
  VerdictClass class;
  const char *done;
  const char *would; /* what was not done; NULL: nothing was to be done */
} verdicts[] = {
  { HF_VERDICT_NONE, CLASS_DONE, "the VM had no key here", NULL },
  { HF_VERDICT_ERROR, CLASS_DEVICE, "the LU could not be read or changed", NULL },
  { HF_VERDICT_AMBIGUOUS, CLASS_UNCLEAR, "the key, or the reservation, may belong to another nexus", NULL },
  { HF_VERDICT_OCCUPIED, CLASS_UNCLEAR, "this nexus is registered with another key", NULL },
  { HF_VERDICT_FENCED, CLASS_CHANGED, "the VM was fenced: its key is gone, and stays gone", NULL },
  { HF_VERDICT_UNCHANGED, CLASS_DONE, "already as it should be", NULL },
  { HF_VERDICT_TYPE_CHANGED, CLASS_CHANGED, "moved, with the type that the LU showed",
    "would be moved, with the type that the LU shows" },
  { HF_VERDICT_MOVED, CLASS_DONE, "registered and holding", "would be registered and holding" },
  { HF_VERDICT_PREEMPTED, CLASS_CHANGED, "registered; another key holds the reservation",
    "would be registered; another key holds the reservation" },
  { HF_VERDICT_RELEASED, CLASS_CHANGED, "registered; nobody holds a reservation",
    "would be registered; nobody holds a reservation" },
  { HF_VERDICT_REGISTERED, CLASS_DONE, "registered, without a reservation", "would be registered, without a reservation" },
  { HF_VERDICT_UNREGISTERED, CLASS_DONE, "this host's registration was removed", "this host's registration would be removed" },
  { HF_VERDICT_REFUSED, CLASS_REFUSED, "nothing was changed", NULL },
};
G_STATIC_ASSERT (G_N_ELEMENTS (verdicts) == HF_N_VERDICTS);

/* How one run of a verb ended. */
typedef struct {
  const MoveVerb *verb;
  HfOnChange on_change;
  gboolean went_through;
  const char *vm; /* with --helper */
} Outcome;

static gboolean
is_done (const Outcome *outcome, const HfMoveUnit *unit)
{
  return unit->accepted && !outcome->verb->reads_only;
}

/* The policy, and nothing else, kept the unit from what the LU would have let it do. */
static gboolean
is_refused_by_policy (const Outcome *outcome, const HfMoveUnit *unit)
{
  return outcome->on_change == HF_ON_CHANGE_REFUSE && verdicts[unit->verdict].class == CLASS_CHANGED && !unit->accepted;
}

/* Free with g_free. */
static char *
describe_verdict (const Outcome *outcome, const HfMoveUnit *unit)
{
  const char *would = verdicts[unit->verdict].would;

  if (is_done (outcome, unit) || (!would && !is_refused_by_policy (outcome, unit)))
    return g_strdup (verdicts[unit->verdict].done);
  return g_strdup_printf ("%s%s", outcome->verb->reads_only ? "" : "not done: ", would ?: verdicts[unit->verdict].done);
}

static int
unit_exit_code (const Outcome *outcome, const HfMoveUnit *unit)
{
  switch (verdicts[unit->verdict].class) {
  case CLASS_DONE:
    return HF_EXIT_OK;
  case CLASS_CHANGED:
    if (outcome->on_change == HF_ON_CHANGE_REFUSE)
      return HF_EXIT_REFUSED;
    /* "Done, but": not if it was not done, or would not be, because of another LU. */
    return unit->accepted && (outcome->went_through || !outcome->verb->reads_only) ? HF_EXIT_CHANGED : HF_EXIT_OK;
  case CLASS_UNCLEAR:
    return HF_EXIT_UNCLEAR;
  case CLASS_REFUSED:
    return HF_EXIT_REFUSED;
  case CLASS_DEVICE:
    break;
  }
  return unit->error.exit_code ? unit->error.exit_code : HF_EXIT_OTHER;
}

static void
set_state (JsonObject *object, const char *name, gboolean has, const HfPrObservation *observation, WhoseData *data)
{
  if (has)
    json_object_set_object_member (object, name, hf_json_observation (observation, whose, data));
  else
    json_object_set_null_member (object, name);
}

/* refusal: NULL, or why the policy refused the unit. */
static JsonObject *
json_unit (const HfMoveUnit *unit, gboolean done, const char *refusal, WhoseData *data)
{
  JsonObject *object = json_object_new ();
  const HfUnitError *failure = &unit->error;

  hf_json_set_string (object, "lu", unit->name);
  hf_json_set_string (object, "device", unit->device);
  hf_json_set_string (object, "verdict", hf_verdict_to_string (unit->verdict));
  json_object_set_boolean_member (object, "done", done);
  json_object_set_boolean_member (object, "certain", unit->certain);
  if (!unit->certain)
    hf_json_set_string (object, "or", hf_verdict_to_string (unit->alternative));
  hf_json_set_hex (object, "key", unit->saved->key);
  json_object_set_int_member (object, "type", unit->type);
  if (unit->has_before || unit->has_after)
    json_object_set_int_member (object, "generation", unit->has_after ? unit->after.generation : unit->before.generation);
  else
    json_object_set_null_member (object, "generation");
  json_object_set_int_member (object, "commands", unit->commands);
  json_object_set_int_member (object, "milliseconds", unit->milliseconds);
  set_state (object, "before", unit->has_before, &unit->before, data);
  set_state (object, "after", unit->has_after, &unit->after, data);
  hf_json_set_unit_attentions (object, unit->unit_attentions, unit->n_unit_attentions);
  if (unit->note)
    hf_json_set_string (object, "note", unit->note);
  if (failure->step)
    json_object_set_object_member (object, "error",
                                   hf_json_error (failure->step, failure->answered ? &failure->result : NULL, failure->text));
  else if (refusal)
    json_object_set_object_member (object, "error", hf_json_error ("observe", NULL, refusal));
  else
    json_object_set_null_member (object, "error");
  return object;
}

static void
print_unit (HfRun *run, const Outcome *outcome, const HfMoveUnit *unit, const char *said, WhoseData *data)
{
  g_autofree char *vm = hf_printable (outcome->vm);

  g_string_append_printf (run->text, "%s (%s)\n", unit->name, unit->device ?: vm ?: "no device");
  if (unit->has_before)
    hf_table_print_observation ("before", &unit->before, whose, data, run->text);
  if (unit->has_before && unit->has_after && hf_pr_observation_equal (&unit->before, &unit->after))
    g_string_append (run->text, "  after: the same\n");
  else if (unit->has_after)
    hf_table_print_observation ("after", &unit->after, whose, data, run->text);
  g_string_append_printf (run->text, "  verdict: %s", hf_verdict_to_string (unit->verdict));
  if (!unit->certain)
    g_string_append_printf (run->text, " or %s", hf_verdict_to_string (unit->alternative));
  g_string_append_printf (run->text, " (%s), key 0x%" G_GINT64_MODIFIER "x, type %u; ", said, unit->saved->key, unit->type);
  if (!outcome->vm)
    g_string_append_printf (run->text, "%u commands, ", unit->commands);
  g_string_append_printf (run->text, "%u ms\n", unit->milliseconds);
}

static void
warn_of_unit (HfRun *run, const HfMoveUnit *unit, const char *said, const char *refusal)
{
  const HfUnitError *failure = &unit->error;

  if (refusal)
    hf_run_warn (run, "%s: %s", unit->name, refusal);
  else if (verdicts[unit->verdict].class == CLASS_CHANGED)
    hf_run_warn (run, "warning: %s: %s: %s", unit->name, hf_verdict_to_string (unit->verdict), said);
  if (unit->note)
    hf_run_warn (run, "warning: %s: %s", unit->name, unit->note);
  if (failure->step)
    hf_run_fail (run, unit->name, failure->step, failure->answered ? &failure->result : NULL, failure->text);
}

static JsonObject *
report_unit (HfRun *run, const Outcome *outcome, const HfMoveUnit *unit, WhoseData *data)
{
  g_autofree char *said = describe_verdict (outcome, unit);
  g_autofree char *refusal =
      is_refused_by_policy (outcome, unit) ? g_strdup_printf ("refused: %s", hf_verdict_to_string (unit->verdict)) : NULL;

  print_unit (run, outcome, unit, said, data);
  warn_of_unit (run, unit, said, refusal);
  return json_unit (unit, is_done (outcome, unit), refusal, data);
}

/* object: gets "units". */
static void
report_move (HfRun *run, HfMove *move, const Outcome *outcome, JsonObject *object)
{
  JsonArray *units = json_array_new ();
  gboolean explained = outcome->went_through;

  for (guint i = 0; i < hf_move_get_n_units (move); i++) {
    const HfMoveUnit *unit = hf_move_get_unit (move, i);
    WhoseData data = { move, i, outcome->verb->role };
    int code = unit_exit_code (outcome, unit);
    explained |= code != HF_EXIT_OK && code != HF_EXIT_CHANGED;
    run->result = hf_exit_code_combine (run->result, code);
    json_array_add_object_element (units, report_unit (run, outcome, unit, &data));
  }
  json_object_set_array_member (object, "units", units);
  /* The library said no, and no unit says why: never answer success. */
  if (!explained)
    run->result = HF_EXIT_OTHER;
}

/* The process was asked to end. */
static void
report_signal (HfRun *run, gboolean taken_back)
{
  g_autofree char *text =
      g_strdup_printf ("signal %d: %s", hf_interrupted (),
                       taken_back ? "what was registered is taken back as far as the LUs answered; run the verb again"
                                  : "what was begun is finished");

  hf_run_warn (run, "%s", text);
  if (!taken_back)
    return;
  run->result = 128 + hf_interrupted ();
  json_object_set_object_member (run->object, "error", hf_json_error (NULL, NULL, text));
}

/* ---- which LUs ---- */

/* Device nodes for every LU of the record that this machine has. A node that is not there is the move's to report. */
static char **
find_addresses (HfRun *run, const HfRecord *record)
{
  g_autoptr (GPtrArray) addresses = g_ptr_array_new_with_free_func (g_free);

  for (guint i = 0; i < record->n_units; i++) {
    g_autoptr (GError) error = NULL;
    g_auto (GStrv) found = hf_lu_find_devices (&record->units[i].identity, &error);
    if (!found)
      hf_run_warn (run, "%s", error->message);
    for (guint j = 0; found && found[j]; j++)
      g_ptr_array_add (addresses, g_strdup (found[j]));
  }
  g_ptr_array_add (addresses, NULL);
  return (char **)g_ptr_array_free (g_steal_pointer (&addresses), FALSE);
}

/* An LU cannot be used, so nothing is done on any. Text and JSON say of each LU of the record that it was not touched. */
static void
report_not_started (HfRun *run, const HfRecord *record, const char *address, const char *step, const GError *error)
{
  g_autofree char *shown = hf_iscsi_address_without_password (address);
  g_autofree char *note = g_strdup_printf ("not done, because %s could not be used", shown);
  const HfScsiResult *result = hf_scsi_error_get_result (error);
  JsonArray *units = json_array_new ();

  for (guint i = 0; i < record->n_units; i++) {
    g_autofree char *name = hf_lu_identity_to_string (&record->units[i].identity);
    HfMoveUnit unit = { .saved = &record->units[i],
                        .name = name,
                        .verdict = HF_VERDICT_ERROR,
                        .certain = TRUE,
                        .note = note,
                        .type = record->units[i].type };
    json_array_add_object_element (units, json_unit (&unit, FALSE, NULL, NULL));
  }
  json_object_set_array_member (run->object, "units", units);
  json_object_set_object_member (run->object, "error", hf_json_error (step, result, error->message));
  hf_run_fail (run, shown, step, result, error->message);
  run->result = hf_exit_code_combine (run->result, hf_error_to_exit_code (error));
}

/* FALSE with error NULL: it was reported. */
static gboolean
add_lus (HfRun *run, HfMove *move, const HfRecord *record, const MoveWords *words, GError **error)
{
  g_auto (GStrv) addresses = words->addresses[0] ? g_strdupv (words->addresses) : find_addresses (run, record);
  g_autoptr (GPtrArray) lus = NULL, errors = NULL;

  if (!hf_session_open_all (run->session, &run->options, addresses, TRUE, &lus, &errors, error))
    return FALSE;
  for (guint i = 0; i < lus->len; i++)
    if (!errors->pdata[i] && !hf_record_find (record, hf_lu_get_identity (lus->pdata[i], NULL), (GError **)&errors->pdata[i])) {
      g_prefix_error ((GError **)&errors->pdata[i], "%s: ", hf_lu_get_address (lus->pdata[i]));
    }
  for (guint i = 0; i < lus->len; i++)
    if (errors->pdata[i])
      report_not_started (run, record, addresses[i], lus->pdata[i] ? "identify" : "open", errors->pdata[i]);
  for (guint i = 0; i < lus->len; i++)
    if (errors->pdata[i])
      return FALSE;
  return hf_move_add_lus (move, (HfLu *const *)lus->pdata, lus->len, error);
}

/* ---- with the helper ---- */

static gboolean
find_verdict (const char *text, HfVerdict *ret)
{
  for (guint i = 0; text && i < HF_N_VERDICTS; i++)
    if (strcmp (text, hf_verdict_to_string (i)) == 0) {
      *ret = i;
      return TRUE;
    }
  return FALSE;
}

/* The key that the VM had by record; else the one that the helper tells. */
static guint64
key_of_unit (const HfRecord *record, const char *name, JsonObject *lu)
{
  for (guint i = 0; record && i < record->n_units; i++) {
    g_autofree char *other = hf_lu_identity_to_string (&record->units[i].identity);
    if (strcmp (other, name) == 0)
      return record->units[i].key;
  }
  return hf_helper_get_hex (lu, "key");
}

/* One LU of the helper's report. code: of its error, or NULL. */
static JsonObject *
report_vm_unit (HfRun *run, const Outcome *outcome, const HfRecord *record, JsonObject *lu, const char *code)
{
  g_autofree char *name = hf_printable (hf_helper_get_string (lu, "lu") ?: "?");
  g_autofree char *text = hf_printable (hf_helper_get_string (lu, "text"));
  g_autofree char *said = NULL, *refusal = NULL;
  gboolean prepared = hf_helper_get_boolean (lu, "prepared");
  HfPrSaved saved = { .key = key_of_unit (record, name, lu) };
  HfMoveUnit unit = { .saved = &saved, .name = name, .verdict = HF_VERDICT_ERROR, .certain = TRUE };
  gboolean known = find_verdict (hf_helper_get_string (lu, "verdict"), &unit.verdict);
  VerdictClass class = verdicts[unit.verdict].class;
  JsonObject *object;

  /* After the first commit some LUs are done although the whole is not: those on which the VM has its key. */
  unit.accepted = !code || (strcmp (code, "committed") == 0 && !prepared && hf_helper_get_hex (lu, "key") != 0);
  unit.type = (guint8)hf_helper_get_int (lu, "type");
  unit.milliseconds = (guint)hf_helper_get_int (lu, "milliseconds");
  if (class == CLASS_DONE || class == CLASS_CHANGED)
    unit.note = text;
  else
    unit.error = (HfUnitError){ .step = (char *)outcome->verb->name,
                                .text = known ? text : (char *)"the helper's verdict is none that this program knows" };
  said = prepared && unit.accepted ? g_strdup ("registered; taken over as soon as the VM runs here")
                                   : describe_verdict (outcome, &unit);
  if (is_refused_by_policy (outcome, &unit))
    refusal = g_strdup_printf ("refused: %s", hf_verdict_to_string (unit.verdict));
  print_unit (run, outcome, &unit, said, NULL);
  warn_of_unit (run, &unit, said, refusal);
  run->result = hf_exit_code_combine (run->result, unit_exit_code (outcome, &unit));
  object = json_unit (&unit, is_done (outcome, &unit) && !prepared, refusal, NULL);
  json_object_set_null_member (object, "commands");
  json_object_set_boolean_member (object, "prepared", prepared);
  return object;
}

/* The helper refused by its own policy: nothing else than a change by others is in the report. */
static gboolean
is_policy (GList *lus)
{
  gboolean changed = FALSE;

  for (GList *l = lus; l; l = l->next) {
    HfVerdict verdict = HF_VERDICT_ERROR;

    find_verdict (hf_helper_get_string (l->data, "verdict"), &verdict);
    if (verdicts[verdict].class != CLASS_DONE && verdicts[verdict].class != CLASS_CHANGED)
      return FALSE;
    changed |= verdicts[verdict].class == CLASS_CHANGED;
  }
  return changed;
}

static void
report_vm (HfRun *run, Outcome *outcome, const HfRecord *record, const HfHelperAnswer *answer)
{
  g_autoptr (GList) lus = hf_helper_get_objects (answer->result, "lus");
  JsonArray *units = json_array_new ();
  g_autoptr (GError) failure = NULL;

  outcome->went_through = answer->code == NULL;
  if (g_strcmp0 (answer->code, "refused") == 0 && is_policy (lus))
    outcome->on_change = HF_ON_CHANGE_REFUSE;
  for (GList *l = lus; l; l = l->next)
    json_array_add_object_element (units, report_vm_unit (run, outcome, record, l->data, answer->code));
  json_object_set_array_member (run->object, "units", units);
  if (hf_helper_answer_check (answer, &failure)) {
    if (!lus)
      g_string_append (run->text, "the VM holds nothing\n");
    return;
  }
  run->result = hf_exit_code_combine (run->result, failure->code);
  hf_run_warn (run, "%s", failure->message);
  json_object_set_object_member (run->object, "error", hf_json_error (NULL, NULL, failure->message));
}

static gboolean
set_record (JsonObject *params, const HfRecord *record, GError **error)
{
  g_autoptr (GBytes) bytes = hf_record_encode (record, error);
  g_autofree char *text = NULL;

  if (!bytes)
    return FALSE;
  text = g_base64_encode (g_bytes_get_data (bytes, NULL), g_bytes_get_size (bytes));
  json_object_set_string_member (params, "record", text);
  return TRUE;
}

/* A signal ends this program; the helper ends what it was asked for. */
static gboolean
move_vm (HfRun *run, const MoveVerb *verb, const MoveWords *words, HfOnChange on_change, GError **error)
{
  Outcome outcome = { .verb = verb, .on_change = on_change, .vm = words->vm };
  g_autoptr (JsonObject) params = hf_helper_params (words->vm);
  g_auto (HfHelperAnswer) answer = { 0 };
  g_autoptr (HfRecord) record = NULL;
  g_autoptr (HfHelper) helper = NULL;

  if (words->input) {
    record = hf_record_read_file (words->input, error);
    if (!record || !set_record (params, record, error))
      return FALSE;
  }
  if (words->on_change)
    json_object_set_string_member (params, "on_change", words->on_change);
  helper = hf_helper_open (run, words->helper, error);
  if (!helper || !hf_helper_call (helper, verb->name, g_steal_pointer (&params), &answer, error))
    return FALSE;
  report_vm (run, &outcome, record, &answer);
  return TRUE;
}

static gboolean
run_move_verb (HfRun *run, const MoveVerb *verb, char **argv, GError **error)
{
  g_auto (MoveWords) words = { 0 };
  HfMoveOptions options = { 0 };
  g_autofree char *state_dir = NULL;
  g_autoptr (HfRecord) record = NULL;
  g_autoptr (HfMove) move = NULL;
  Outcome outcome = { .verb = verb };
  gboolean taken_back = FALSE;

  if (!parse_words (run, verb, argv, &words, &options, error))
    return FALSE;
  if (words.helper)
    return move_vm (run, verb, &words, options.on_change, error);
  record = hf_record_read_file (words.input, error);
  if (!record)
    return FALSE;
  state_dir = hf_journal_default_dir (run->options.state_dir);
  options.state_dir = state_dir;
  move = hf_move_new (record, &options, error);
  if (!move || !add_lus (run, move, record, &words, error))
    return FALSE;
  outcome.on_change = options.on_change;
  if (!verb->reads_only)
    hf_interrupt_begin ();
  outcome.went_through = verb->run (move, &taken_back);
  report_move (run, move, &outcome, run->object);
  if (!verb->reads_only && hf_interrupted ())
    report_signal (run, taken_back);
  hf_interrupt_end ();
  return TRUE;
}

gboolean
hf_check_record (HfRun *run, const HfRecord *record, HfLu *const *lus, guint n_lus, JsonObject *object, GError **error)
{
  const HfMoveOptions options = { .role = HF_ROLE_DESTINATION, .timeout_ms = run->options.timeout_ms };
  g_autoptr (HfMove) move = hf_move_new (record, &options, error);
  Outcome outcome = { .verb = &check_verb };

  if (!move || !hf_move_add_lus (move, lus, n_lus, error))
    return FALSE;
  outcome.went_through = hf_move_check (move);
  report_move (run, move, &outcome, object);
  return TRUE;
}

gboolean
hf_verb_check (HfRun *run, char **argv, GError **error)
{
  return run_move_verb (run, &check_verb, argv, error);
}

gboolean
hf_verb_load (HfRun *run, char **argv, GError **error)
{
  return run_move_verb (run, &load_verb, argv, error);
}

gboolean
hf_verb_release (HfRun *run, char **argv, GError **error)
{
  return run_move_verb (run, &release_verb, argv, error);
}

gboolean
hf_verb_reclaim (HfRun *run, char **argv, GError **error)
{
  return run_move_verb (run, &reclaim_verb, argv, error);
}
