/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * holdfast selftest: qualifies a target with the move matrix (selftest.c). Owns: this verb. Thread: main.
 */

#include "config.h"

#include "cli/cli.h"
#include "cli/selftest.h"

typedef struct {
  HfRun *run;
  gboolean tap;
  guint n_cases, n_failed;
  JsonArray *failures;
} Tally;

static void
count (const char *name, const char *fault, void *data)
{
  Tally *tally = data;
  tally->n_cases++;
  tally->n_failed += fault != NULL;
  if (fault != NULL) {
    JsonObject *failure = json_object_new ();
    hf_json_set_string (failure, "case", name);
    hf_json_set_string (failure, "text", fault);
    json_array_add_object_element (tally->failures, failure);
  }
  if (tally->tap && fault == NULL)
    g_string_append_printf (tally->run->text, "ok %u - %s\n", tally->n_cases, name);
  else if (tally->tap)
    g_string_append_printf (tally->run->text, "not ok %u - %s\n# %s\n", tally->n_cases, name, fault);
  else if (fault != NULL)
    g_string_append_printf (tally->run->text, "%s: %s\n", name, fault);
}

static void
list_points (HfRun *run)
{
  JsonArray *steps = json_array_new (), *points = json_array_new ();
  for (guint i = 0; hf_move_steps ()[i] != NULL; i++) {
    g_autofree char *before = g_strconcat ("before-", hf_move_steps ()[i], NULL);
    g_autofree char *after = g_strconcat ("after-", hf_move_steps ()[i], NULL);
    g_string_append_printf (run->text, "%s\n%s\n", before, after);
    json_array_add_string_element (steps, hf_move_steps ()[i]);
    json_array_add_string_element (points, before);
    json_array_add_string_element (points, after);
  }
  json_object_set_array_member (run->object, "steps", steps);
  json_object_set_array_member (run->object, "points", points);
}

static gboolean
open_lus (HfRun *run, char *const *addresses, HfSelftestLus *lus, GError **error)
{
  static const char *const roles[] = { "source", "destination", "witness" };
  HfLu **lu[] = { &lus->source, &lus->destination, &lus->witness };
  for (guint i = 0; i < G_N_ELEMENTS (lu); i++) {
    HfOptions options = run->options;
    g_autofree char *name = NULL;
    /* On iSCSI each role is an initiator of its own: three nexuses also if the three addresses are equal. */
    if (g_str_has_prefix (addresses[i], "iscsi://")) {
      name = g_strdup_printf (
          "%s:%s", options.initiator_name != NULL ? options.initiator_name : "iqn.2026-11.org.holdfast:selftest", roles[i]);
      options.initiator_name = name;
      options.has_isid = FALSE;
    }
    *lu[i] = hf_session_open (run->session, &options, addresses[i], error);
    if (*lu[i] == NULL)
      return FALSE;
  }
  return TRUE;
}

/* TAP's way to say that nothing was tested. */
static void
bail_out (HfRun *run, gboolean tap, const GError *error)
{
  g_autofree char *text = hf_printable (error->message);

  if (tap)
    g_string_append_printf (run->text, "Bail out! %s\n", text);
}

static gboolean
run_matrix (HfRun *run, char *const *addresses, gboolean tap, GError **error)
{
  HfSelftestLus lus;
  Tally tally = { .run = run, .tap = tap };
  if (!open_lus (run, addresses, &lus, error)) {
    bail_out (run, tap, *error);
    return FALSE;
  }
  tally.failures = json_array_new ();
  gboolean done = hf_selftest_run (&lus, count, &tally, error);
  json_object_set_int_member (run->object, "cases", tally.n_cases);
  json_object_set_int_member (run->object, "failed", tally.n_failed);
  json_object_set_array_member (run->object, "failures", tally.failures);
  if (!done) {
    bail_out (run, tap, *error);
    return FALSE;
  }
  if (tap)
    g_string_append_printf (run->text, "1..%u\n", tally.n_cases);
  else
    g_string_append_printf (run->text, "%u cases, %u failed\n", tally.n_cases, tally.n_failed);
  run->result = tally.n_failed > 0 ? HF_EXIT_OTHER : HF_EXIT_OK;
  return TRUE;
}

gboolean
hf_verb_selftest (HfRun *run, char **argv, GError **error)
{
  g_autofree char *source = NULL, *destination = NULL, *witness = NULL;
  g_auto (GStrv) rest = NULL;
  gboolean tap = FALSE, list = FALSE;
  const GOptionEntry entries[] = {
    { "source", 0, 0, G_OPTION_ARG_STRING, &source, "The scratch LU as the host sees it that the VM leaves", "LU" },
    { "destination", 0, 0, G_OPTION_ARG_STRING, &destination, "... as the host sees it that the VM moves to", "LU" },
    { "witness", 0, 0, G_OPTION_ARG_STRING, &witness, "... as a third host sees it, which interferes and judges", "LU" },
    { "tap", 0, 0, G_OPTION_ARG_NONE, &tap, "Print one line for each case (Test Anything Protocol)", NULL },
    { "list-points", 0, 0, G_OPTION_ARG_NONE, &list, "List the points that HOLDFAST_FAIL knows, and test nothing", NULL },
    { NULL },
  };
  const HfOptionSpec spec = {
    "selftest --source LU --destination LU --witness LU", "Run the move matrix on a scratch LU: is this target fit for holdfast?",
    "Three I_T nexuses of one LU, on which nobody is registered, are needed; block 0 is rewritten with its own "
    "contents. With iscsi:// addresses each role logs in under an initiator name of its own.",
    entries, FALSE
  };

  if (!hf_run_parse (run, &spec, argv, &rest, error))
    return FALSE;
  if (rest[0] != NULL)
    return hf_usage_error (error, "selftest takes no other words: %s", rest[0]);
  if (list) {
    list_points (run);
    return TRUE;
  }
  if (source == NULL || destination == NULL || witness == NULL)
    return hf_usage_error (error, "selftest needs --source, --destination and --witness");
  char *const addresses[] = { source, destination, witness };
  return run_matrix (run, addresses, tap, error);
}
