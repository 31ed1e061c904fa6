/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * holdfast check, load, release and reclaim: what follows from a record. Owns: these verbs. Thread: main.
 *
 * Theory of operation: one table says for each verb which side of the move the LUs are on and which phases of HfMove run; all
 * else is common: read the record, open the LUs that were named (or find them by their identity), add them, run, show one verdict
 * for each LU. A record or an LU that does not fit is refused before any command that could change something.
 */
#include "config.h"

#include "cli/cli.h"
#include "pr/journal.h"

#include <string.h>

typedef struct {
  const char *name, *synopsis, *summary;
  HfRole role;
  gboolean (*run) (HfMove *move);
} MoveVerb;

typedef struct {
  char *input, *on_change;
  gboolean source_gone, destination_gone;
  char **addresses;
} MoveWords;

static void
move_words_clear (MoveWords *words)
{
  g_free (words->input);
  g_free (words->on_change);
  g_strfreev (words->addresses);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (MoveWords, move_words_clear)

static gboolean
prepare_and_commit (HfMove *move)
{
  return hf_move_prepare (move) && hf_move_commit (move);
}

static const MoveVerb check_verb = { "check", "check -i FILE [LU...]", "Say what load would do. Sends only reads.",
                                     HF_ROLE_DESTINATION, hf_move_check };
static const MoveVerb load_verb = { "load", "load -i FILE [LU...]", "Take over here what the record says the VM held.",
                                    HF_ROLE_DESTINATION, prepare_and_commit };
static const MoveVerb release_verb = { "release", "release -i FILE [LU...]",
                                       "Remove this host's registration, after proving that nothing is lost by it.",
                                       HF_ROLE_SOURCE, hf_move_release };
static const MoveVerb reclaim_verb = { "reclaim", "reclaim -i FILE [LU...]",
                                       "Take everything back on the source after a failed migration.", HF_ROLE_SOURCE,
                                       prepare_and_commit };

static gboolean
parse_words (HfRun *run, const MoveVerb *verb, char **argv, MoveWords *words, HfMoveOptions *options, GError **error)
{
  const GOptionEntry entries[] = {
    { "input", 'i', 0, G_OPTION_ARG_FILENAME, &words->input, "The record; - is standard input", "FILE" },
    { "on-change", 0, 0, G_OPTION_ARG_STRING, &words->on_change,
      "What to do if others changed the reservation: adopt (default) or refuse", "POLICY" },
    { "source-gone", 0, 0, G_OPTION_ARG_NONE, &words->source_gone, "The source host is dead: remove its registration here",
      NULL },
    { "destination-gone", 0, verb->role == HF_ROLE_SOURCE ? 0 : G_OPTION_FLAG_HIDDEN, G_OPTION_ARG_NONE, &words->destination_gone,
      "The destination host is dead: remove its registration here", NULL },
    { NULL },
  };
  const HfOptionSpec spec = { verb->synopsis, verb->summary,
                              "Without LUs the block devices of this machine are searched for them.", entries, FALSE };

  if (!hf_run_parse (run, &spec, argv, &words->addresses, error))
    return FALSE;
  if (!words->input)
    return hf_usage_error (error, "%s needs -i FILE", verb->name);
  if (words->destination_gone && verb->role != HF_ROLE_SOURCE)
    return hf_usage_error (error, "%s runs on the destination: --destination-gone makes no sense", verb->name);
  if (words->on_change && strcmp (words->on_change, "refuse") == 0)
    options->on_change = HF_ON_CHANGE_REFUSE;
  else if (words->on_change && strcmp (words->on_change, "adopt") != 0)
    return hf_usage_error (error, "--on-change is adopt or refuse, not \"%s\"", words->on_change);
  options->role = verb->role;
  options->peer_gone = words->source_gone || words->destination_gone;
  options->timeout_ms = run->options.timeout_ms;
  return TRUE;
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

static gboolean
add_lus (HfRun *run, HfMove *move, const HfRecord *record, const MoveWords *words, GError **error)
{
  g_auto (GStrv) addresses = words->addresses[0] ? g_strdupv (words->addresses) : find_addresses (run, record);
  g_autoptr (GPtrArray) lus = NULL, errors = NULL;

  if (!hf_session_open_all (run->session, &run->options, addresses, FALSE, &lus, &errors, error))
    return FALSE;
  for (guint i = 0; i < lus->len; i++) {
    if (errors->pdata[i]) {
      g_propagate_error (error, g_error_copy (errors->pdata[i]));
      return FALSE;
    }
  }
  return hf_move_add_lus (move, (HfLu *const *)lus->pdata, lus->len, error);
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
  const char *text;
} verdicts[] = {
  { HF_VERDICT_NONE, CLASS_DONE, "the VM had no key here" },
  { HF_VERDICT_ERROR, CLASS_DEVICE, "the LU could not be read or changed" },
  { HF_VERDICT_AMBIGUOUS, CLASS_UNCLEAR, "the key, or the reservation, may belong to another nexus" },
  { HF_VERDICT_OCCUPIED, CLASS_UNCLEAR, "this nexus is registered with another key" },
  { HF_VERDICT_FENCED, CLASS_CHANGED, "the VM was fenced: its key is gone, and stays gone" },
  { HF_VERDICT_UNCHANGED, CLASS_DONE, "already as it should be" },
  { HF_VERDICT_TYPE_CHANGED, CLASS_CHANGED, "moved, with the type that the LU showed" },
  { HF_VERDICT_MOVED, CLASS_DONE, "registered and holding" },
  { HF_VERDICT_PREEMPTED, CLASS_CHANGED, "registered; another key holds the reservation" },
  { HF_VERDICT_RELEASED, CLASS_CHANGED, "registered; nobody holds a reservation" },
  { HF_VERDICT_REGISTERED, CLASS_DONE, "registered, without a reservation" },
  { HF_VERDICT_UNREGISTERED, CLASS_DONE, "this host's registration was removed" },
  { HF_VERDICT_REFUSED, CLASS_REFUSED, "nothing was changed" },
};
G_STATIC_ASSERT (G_N_ELEMENTS (verdicts) == HF_N_VERDICTS);

static int
unit_exit_code (const HfMoveUnit *unit, HfOnChange on_change)
{
  switch (verdicts[unit->verdict].class) {
  case CLASS_DONE:
    return HF_EXIT_OK;
  case CLASS_CHANGED:
    return on_change == HF_ON_CHANGE_REFUSE ? HF_EXIT_REFUSED : HF_EXIT_CHANGED;
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

static JsonObject *
json_unit (const HfMoveUnit *unit, WhoseData *data)
{
  JsonObject *object = json_object_new ();
  const HfUnitError *failure = &unit->error;

  hf_json_set_string (object, "lu", unit->name);
  hf_json_set_string (object, "device", unit->device);
  hf_json_set_string (object, "verdict", hf_verdict_to_string (unit->verdict));
  json_object_set_boolean_member (object, "certain", unit->certain);
  if (!unit->certain)
    hf_json_set_string (object, "or", hf_verdict_to_string (unit->alternative));
  hf_json_set_hex (object, "key", unit->saved->key);
  json_object_set_int_member (object, "type", unit->type);
  json_object_set_int_member (object, "generation", unit->has_after ? unit->after.generation : unit->before.generation);
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
  else
    json_object_set_null_member (object, "error");
  return object;
}

static void
print_unit (HfRun *run, const HfMoveUnit *unit, WhoseData *data)
{
  g_string_append_printf (run->text, "%s (%s)\n", unit->name, unit->device ? unit->device : "no device");
  if (unit->has_before)
    hf_table_print_observation ("before", &unit->before, whose, data, run->text);
  if (unit->has_before && unit->has_after && hf_pr_observation_equal (&unit->before, &unit->after))
    g_string_append (run->text, "  after: the same\n");
  else if (unit->has_after)
    hf_table_print_observation ("after", &unit->after, whose, data, run->text);
  g_string_append_printf (run->text, "  verdict: %s", hf_verdict_to_string (unit->verdict));
  if (!unit->certain)
    g_string_append_printf (run->text, " or %s", hf_verdict_to_string (unit->alternative));
  g_string_append_printf (run->text, " (%s), key 0x%" G_GINT64_MODIFIER "x, type %u; %u commands, %u ms\n",
                          verdicts[unit->verdict].text, unit->saved->key, unit->type, unit->commands, unit->milliseconds);
}

static void
warn_of_unit (HfRun *run, const HfMoveUnit *unit)
{
  const HfUnitError *failure = &unit->error;

  if (verdicts[unit->verdict].class == CLASS_CHANGED)
    hf_run_warn (run, "warning: %s: %s: %s", unit->name, hf_verdict_to_string (unit->verdict), verdicts[unit->verdict].text);
  if (unit->note)
    hf_run_warn (run, "warning: %s: %s", unit->name, unit->note);
  if (failure->step)
    hf_run_fail (run, unit->name, failure->step, failure->answered ? &failure->result : NULL, failure->text);
}

static void
report_move (HfRun *run, HfMove *move, const HfMoveOptions *options, gboolean went_through)
{
  JsonArray *units = json_array_new ();

  for (guint i = 0; i < hf_move_get_n_units (move); i++) {
    const HfMoveUnit *unit = hf_move_get_unit (move, i);
    WhoseData data = { move, i, options->role };
    json_array_add_object_element (units, json_unit (unit, &data));
    print_unit (run, unit, &data);
    warn_of_unit (run, unit);
    run->result = hf_exit_code_combine (run->result, unit_exit_code (unit, options->on_change));
  }
  json_object_set_array_member (run->object, "units", units);
  /* The library said no, and no unit says why: never answer success. */
  if (!went_through && (run->result == HF_EXIT_OK || run->result == HF_EXIT_CHANGED))
    run->result = HF_EXIT_OTHER;
}

static gboolean
run_move_verb (HfRun *run, const MoveVerb *verb, char **argv, GError **error)
{
  g_auto (MoveWords) words = { 0 };
  HfMoveOptions options = { 0 };
  g_autofree char *state_dir = NULL;
  g_autoptr (HfRecord) record = NULL;
  g_autoptr (HfMove) move = NULL;
  gboolean went_through;

  if (!parse_words (run, verb, argv, &words, &options, error))
    return FALSE;
  record = hf_record_read_file (words.input, error);
  if (!record)
    return FALSE;
  state_dir = hf_journal_default_dir (run->options.state_dir);
  options.state_dir = state_dir;
  move = hf_move_new (record, &options, error);
  if (!move || !add_lus (run, move, record, &words, error))
    return FALSE;
  went_through = verb->run (move);
  report_move (run, move, &options, went_through);
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
