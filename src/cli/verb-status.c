/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * holdfast status LU...: what each LU holds; with --helper, what each VM holds (helper-verbs.c). Owns: this verb. Thread: main.
 *
 * Theory of operation: one consistent observation for each LU, reads only. An LU that fails has its error in its place, and the
 * others are still shown.
 */
#include "config.h"

#include "cli/cli.h"
#include "cli/helper-verbs.h"
#include "scsi/iscsi-address.h"

/* Whose a registration is, seen from the one nexus that was asked through. */
static const char *
whose (const HfPrObservation *observation, guint index, void *data)
{
  if (!observation->full)
    return NULL;
  switch (hf_nexus_compare (&observation->registrants[index].nexus, hf_lu_get_nexus (data))) {
  case HF_NEXUS_SAME:
    return "yes";
  case HF_NEXUS_DIFFERENT:
    return "no";
  case HF_NEXUS_UNKNOWN:
    break;
  }
  return NULL;
}

/* The outcome for one LU that did not answer as it should. */
static void
report_error (HfRun *run, JsonObject *unit, const char *address, const HfUnitError *failure, const GError *error)
{
  const HfScsiResult *result = failure && failure->answered ? &failure->result : NULL;
  const char *step = failure && failure->step ? failure->step : "open";
  const char *text = failure && failure->text ? failure->text : error->message;
  int code = failure && failure->exit_code ? failure->exit_code : hf_error_to_exit_code (error);

  json_object_set_null_member (unit, "state");
  json_object_set_object_member (unit, "error", hf_json_error (step, result, text));
  hf_run_fail (run, address, step, result, text);
  run->result = hf_exit_code_combine (run->result, code);
}

/* A guest on this nexus will not see them any more, so they must not vanish here. */
static void
show_unit_attentions (HfLu *lu, JsonObject *unit)
{
  guint16 unit_attentions[HF_SCSI_UA_MAX];
  guint n = hf_lu_take_unit_attentions (lu, unit_attentions);

  hf_json_set_unit_attentions (unit, unit_attentions, n);
}

static void
show_lu (HfRun *run, HfLu *lu, JsonObject *unit)
{
  g_autoptr (GError) error = NULL;
  const HfLuIdentity *identity = hf_lu_get_identity (lu, &error);
  g_autofree char *name = identity ? hf_lu_identity_to_string (identity) : NULL;
  HfPrObservation observation = { 0 };
  HfUnitError failure = { 0 };

  hf_json_set_string (unit, "lu", name);
  hf_json_set_string (unit, "device", hf_lu_get_address (lu));
  if (!identity) {
    HfUnitError at_identity = { .step = (char *)"identify" };
    report_error (run, unit, hf_lu_get_address (lu), &at_identity, error);
    return;
  }
  if (!hf_pr_observe (lu, "status", &observation, &failure, &error)) {
    report_error (run, unit, hf_lu_get_address (lu), &failure, error);
    hf_unit_error_clear (&failure);
    return;
  }
  json_object_set_object_member (unit, "state", hf_json_observation (&observation, whose, lu));
  json_object_set_null_member (unit, "error");
  g_string_append_printf (run->text, "%s (%s)\n", name, hf_lu_get_address (lu));
  hf_table_print_observation ("holds", &observation, whose, lu, run->text);
  hf_pr_observation_clear (&observation);
}

static gboolean
show_lus (HfRun *run, char *const *addresses, GError **error)
{
  g_autoptr (GPtrArray) lus = NULL, errors = NULL;
  JsonArray *units;

  if (!hf_session_open_all (run->session, &run->options, addresses, TRUE, &lus, &errors, error))
    return FALSE;
  units = json_array_new ();
  for (guint i = 0; i < lus->len; i++) {
    JsonObject *unit = json_object_new ();
    if (lus->pdata[i]) {
      show_lu (run, lus->pdata[i], unit);
      show_unit_attentions (lus->pdata[i], unit);
    } else {
      g_autofree char *shown = hf_iscsi_address_without_password (addresses[i]);
      json_object_set_null_member (unit, "lu");
      hf_json_set_string (unit, "device", shown);
      report_error (run, unit, shown, NULL, errors->pdata[i]);
    }
    json_array_add_object_element (units, unit);
  }
  json_object_set_array_member (run->object, "units", units);
  return TRUE;
}

gboolean
hf_verb_status (HfRun *run, char **argv, GError **error)
{
  g_autofree char *helper = NULL;
  gboolean watch = FALSE;
  const GOptionEntry entries[] = {
    HF_HELPER_ENTRY (&helper),
    { "watch", 0, 0, G_OPTION_ARG_NONE, &watch, "With --helper: go on and print every change of state", NULL },
    { NULL },
  };
  const HfOptionSpec spec = { "status LU... | --helper", "Show the registrations and the reservation of LUs. Sends only reads.",
                              "With --helper it shows the VMs of holdfast-pr-helper and what they hold.", entries, FALSE };
  g_auto (GStrv) words = hf_helper_argv (argv), addresses = NULL;

  if (!hf_run_parse (run, &spec, words, &addresses, error))
    return FALSE;
  if (helper && addresses[0])
    return hf_usage_error (error, "--helper shows what VMs hold: no LU can be named");
  if (helper)
    return hf_helper_status (run, helper, watch, error);
  if (watch)
    return hf_usage_error (error, "--watch needs --helper");
  if (!addresses[0])
    return hf_usage_error (error, "status needs an LU");
  return show_lus (run, addresses, error);
}
