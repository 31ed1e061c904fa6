/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * holdfast save -o FILE LU...: writes what this host's nexuses hold into a record; with --helper, what holdfast-pr-helper saves
 * of a VM. Owns: this verb. Thread: main.
 *
 * Theory of operation: the LUs that were named are paths; those with one identity are one LU, saved as one unit with several
 * nexuses. The record is written when every LU was saved, so a record is never less than it was asked for.
 */
#include "config.h"

#include "cli/cli.h"
#include "cli/helper-verbs.h"

#include <string.h>

typedef struct {
  char *key, *vm, *output, *helper;
  gboolean aptpl, all_tg_pt;
  char **addresses;
} SaveWords;

static void
save_words_clear (SaveWords *words)
{
  g_free (words->key);
  g_free (words->vm);
  g_free (words->output);
  g_free (words->helper);
  g_strfreev (words->addresses);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (SaveWords, save_words_clear)

/* The words for LUs mean nothing to the helper, which knows its VMs. */
static gboolean
check_helper_words (const SaveWords *words, GError **error)
{
  if (!words->vm || !*words->vm)
    return hf_usage_error (error, "--helper needs --vm NAME");
  if (words->addresses[0] || words->key || words->aptpl || words->all_tg_pt)
    return hf_usage_error (error, "--helper knows what the VM holds: no LU, --key, --aptpl or --all-tg-pt");
  return TRUE;
}

static gboolean
parse_words (HfRun *run, char **argv, SaveWords *words, GError **error)
{
  g_auto (GStrv) helper_argv = hf_helper_argv (argv);
  const GOptionEntry entries[] = {
    { "output", 'o', 0, G_OPTION_ARG_FILENAME, &words->output, "Where the record goes; - is standard output", "FILE" },
    { "key", 0, 0, G_OPTION_ARG_STRING, &words->key, "The VM's key; without it our registration is found by our TransportID",
      "HEX" },
    { "vm", 0, 0, G_OPTION_ARG_STRING, &words->vm, "Name or UUID of the VM; for people, but with --helper it is asked for",
      "NAME" },
    { "aptpl", 0, 0, G_OPTION_ARG_NONE, &words->aptpl, "The VM registered with APTPL", NULL },
    { "all-tg-pt", 0, 0, G_OPTION_ARG_NONE, &words->all_tg_pt, "The VM registered with ALL_TG_PT", NULL },
    HF_HELPER_ENTRY (&words->helper),
    { NULL },
  };
  const HfOptionSpec spec = { "save -o FILE LU... | --helper --vm NAME",
                              "Write what a VM holds on LUs into a record. Sends only reads.", NULL, entries, FALSE };

  if (!hf_run_parse (run, &spec, helper_argv, &words->addresses, error))
    return FALSE;
  if (!words->output || !*words->output)
    return hf_usage_error (error, "save needs -o FILE");
  if (words->helper && !check_helper_words (words, error))
    return FALSE;
  if (!words->helper && !words->addresses[0])
    return hf_usage_error (error, "save needs an LU");
  if (strcmp (words->output, "-") == 0 && (run->options.json || run->in_batch))
    return hf_usage_error (error, "-o - leaves no room for other output: name a file");
  return TRUE;
}

/* ---- saving one LU ---- */

/* lus: NULL: not known. */
static void
show_unit (HfRun *run, JsonObject *object, const HfPrSaved *saved, GPtrArray *lus)
{
  g_autofree char *name = hf_lu_identity_to_string (&saved->identity);
  JsonArray *devices = json_array_new ();

  for (guint i = 0; lus && i < lus->len; i++)
    json_array_add_string_element (devices, hf_lu_get_address (lus->pdata[i]));
  hf_json_set_string (object, "lu", name);
  json_object_set_array_member (object, "devices", devices);
  hf_json_set_hex (object, "key", saved->key);
  json_object_set_int_member (object, "type", saved->type);
  json_object_set_int_member (object, "generation", saved->generation);
  json_object_set_null_member (object, "error");
  if (saved->key == 0)
    g_string_append_printf (run->text, "%s: no registration\n", name);
  else
    g_string_append_printf (run->text, "%s: key 0x%" G_GINT64_MODIFIER "x, %s%s, %u nexus%s\n", name, saved->key,
                            saved->type ? "holding: " : "registered, not holding",
                            saved->type ? hf_pr_type_to_string (saved->type) : "", saved->n_nexuses,
                            saved->n_nexuses == 1 ? "" : "es");
}

static void
show_failure (HfRun *run, JsonObject *object, HfLu *lu, const HfUnitError *failure, const GError *error)
{
  const HfScsiResult *result = failure && failure->answered ? &failure->result : NULL;
  const char *step = failure && failure->step ? failure->step : "save";
  const char *text = failure && failure->text ? failure->text : error->message;
  int code = failure && failure->exit_code ? failure->exit_code : hf_error_to_exit_code (error);

  hf_json_set_string (object, "device", hf_lu_get_address (lu));
  json_object_set_object_member (object, "error", hf_json_error (step, result, text));
  hf_run_fail (run, hf_lu_get_address (lu), step, result, text);
  run->result = hf_exit_code_combine (run->result, code);
}

/* A guest on these nexuses will not see them any more, so they must not vanish here. */
static void
show_unit_attentions (GPtrArray *lus, JsonObject *object)
{
  guint16 all[HF_PR_NEXUSES_MAX * HF_SCSI_UA_MAX];
  guint n = 0;

  for (guint i = 0; i < MIN (lus->len, HF_PR_NEXUSES_MAX); i++)
    n += hf_lu_take_unit_attentions (lus->pdata[i], all + n);
  hf_json_set_unit_attentions (object, all, n);
}

/* The key on more nexuses than were named: a move takes it from all of them. */
static void
warn_of_others (HfRun *run, const HfPrSaved *saved, GPtrArray *lus)
{
  if (saved->key_count > saved->n_nexuses)
    hf_run_warn (
        run,
        "warning: %s: the key is registered %u times, and %u of the VM's nexuses were named: name them all; what belongs to "
        "another VM would lose its registration in a move",
        hf_lu_get_address (lus->pdata[0]), saved->key_count, saved->n_nexuses);
}

/* lus: all of one LU. */
static gboolean
save_unit (HfRun *run, const SaveWords *words, guint64 key, GPtrArray *lus, HfRecord *record, JsonObject *object)
{
  HfPrSaved saved = { 0 };
  HfUnitError failure = { 0 };
  g_autoptr (GError) error = NULL;
  gboolean ok;

  ok = hf_pr_save ((HfLu *const *)lus->pdata, lus->len, key, &saved, &failure, &error);
  if (ok && saved.key != 0) {
    /* APTPL cannot be read for one registration, ALL_TG_PT only with READ FULL STATUS. */
    saved.aptpl |= words->aptpl;
    saved.all_tg_pt |= words->all_tg_pt;
  }
  ok = ok && hf_record_add (record, &saved, &error);
  if (ok) {
    show_unit (run, object, &saved, lus);
    warn_of_others (run, &saved, lus);
  } else {
    show_failure (run, object, lus->pdata[0], &failure, error);
  }
  hf_pr_saved_clear (&saved);
  hf_unit_error_clear (&failure);
  return ok;
}

/* ---- which LUs are one ---- */

static GPtrArray *
find_group (GPtrArray *groups, HfLu *lu)
{
  const HfLuIdentity *identity = hf_lu_get_identity (lu, NULL);
  GPtrArray *group;

  for (guint i = 0; i < groups->len; i++) {
    group = groups->pdata[i];
    if (hf_lu_identity_equal (hf_lu_get_identity (group->pdata[0], NULL), identity))
      return group;
  }
  group = g_ptr_array_new ();
  g_ptr_array_add (groups, group);
  return group;
}

/* Array of arrays of HfLu. NULL if an LU could not be opened or has no identity. */
static GPtrArray *
open_groups (HfRun *run, char *const *addresses, GError **error)
{
  g_autoptr (GPtrArray) lus = NULL, errors = NULL;
  g_autoptr (GPtrArray) groups = g_ptr_array_new_with_free_func ((GDestroyNotify)g_ptr_array_unref);

  if (!hf_session_open_all (run->session, &run->options, addresses, TRUE, &lus, &errors, error))
    return NULL;
  for (guint i = 0; i < lus->len; i++) {
    if (errors->pdata[i]) {
      g_propagate_error (error, g_error_copy (errors->pdata[i]));
      return NULL;
    }
    g_ptr_array_add (find_group (groups, lus->pdata[i]), lus->pdata[i]);
  }
  return g_steal_pointer (&groups);
}

/* units is taken over. */
static void
show_record (HfRun *run, const SaveWords *words, const HfRecord *record, JsonArray *units)
{
  hf_json_set_string (run->object, "file", words->output);
  hf_json_set_string (run->object, "id", record->id);
  json_object_set_array_member (run->object, "units", units);
  if (strcmp (words->output, "-") == 0)
    g_string_truncate (run->text, 0);
}

static gboolean
save_lus (HfRun *run, const SaveWords *words, guint64 key, GError **error)
{
  g_autoptr (GPtrArray) groups = open_groups (run, words->addresses, error);
  g_autoptr (HfRecord) record = NULL;
  gboolean ok = TRUE;
  JsonArray *units;

  if (!groups)
    return FALSE;
  record = hf_record_new (words->vm);
  units = json_array_new ();
  for (guint i = 0; i < groups->len; i++) {
    JsonObject *unit = json_object_new ();
    ok &= save_unit (run, words, key, groups->pdata[i], record, unit);
    show_unit_attentions (groups->pdata[i], unit);
    json_array_add_object_element (units, unit);
  }
  show_record (run, words, record, units);
  if (ok)
    return hf_record_write_file (record, words->output, error);
  hf_run_warn (run, "%s was not written", words->output);
  return TRUE;
}

/* ---- with the helper ---- */

/* Checked like one from a file: what the helper says is not believed. */
static HfRecord *
ask_record (HfHelper *helper, const char *vm, GError **error)
{
  g_auto (HfHelperAnswer) answer = { 0 };
  g_autofree guint8 *bytes = NULL;
  const char *text;
  gsize length = 0;

  if (!hf_helper_call (helper, "save", hf_helper_params (vm), &answer, error) || !hf_helper_answer_check (&answer, error))
    return NULL;
  text = hf_helper_get_string (answer.result, "record");
  if (text)
    bytes = g_base64_decode (text, &length);
  return hf_record_decode (bytes ? bytes : (const guint8 *)"", length, error);
}

static gboolean
save_vm (HfRun *run, const SaveWords *words, GError **error)
{
  g_autoptr (HfHelper) helper = hf_helper_open (run, words->helper, error);
  g_autoptr (HfRecord) record = helper ? ask_record (helper, words->vm, error) : NULL;
  JsonArray *units;

  if (!record)
    return FALSE;
  units = json_array_new ();
  for (guint i = 0; i < record->n_units; i++) {
    JsonObject *unit = json_object_new ();
    show_unit (run, unit, &record->units[i], NULL);
    json_array_add_object_element (units, unit);
  }
  if (record->n_units == 0)
    g_string_append (run->text, "the VM holds nothing\n");
  show_record (run, words, record, units);
  return hf_record_write_file (record, words->output, error);
}

gboolean
hf_verb_save (HfRun *run, char **argv, GError **error)
{
  g_auto (SaveWords) words = { 0 };
  guint64 key = 0;

  if (!parse_words (run, argv, &words, error))
    return FALSE;
  if (words.helper)
    return save_vm (run, &words, error);
  if (words.key && !hf_parse_hex ("--key", words.key, G_MAXUINT64, &key, error))
    return FALSE;
  if (words.key && key == 0)
    return hf_usage_error (error, "--key 0 is no key");
  return save_lus (run, &words, key, error);
}
