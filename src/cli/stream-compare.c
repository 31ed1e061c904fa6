/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns: the part of holdfast stream inspect that knows LUs. Thread: main.
 *
 * Theory of operation: a record names its LUs by their identity, so its devices can be found, and the comparison is what check
 * says. Only those LUs of a record are compared that are here; what is not is told, and is no failure, because a file may be
 * looked at on any machine. The subsection scsi-disk/pr names no LU at all: it is compared where --map says with what, and
 * nowhere else.
 */
#include "config.h"

#include "cli/stream-compare.h"

#include "scsi/transport.h"

#include <string.h>

typedef struct {
  HfRun *run;
  HfReader *reader;
  GPtrArray *sections;
  const HfCompareWords *words;
  GPtrArray *given; /* HfLu, of words->addresses */
  guint8 *used;     /* of given: some record has this LU */
} Compare;

/* ---- the LUs of a record ---- */

static void
report_lu (HfRun *run, const char *address, const GError *error)
{
  hf_run_fail (run, address, NULL, hf_scsi_error_get_result (error), error->message);
  run->result = hf_exit_code_combine (run->result, hf_error_to_exit_code (error));
}

static gboolean
open_given (Compare *compare, GError **error)
{
  HfRun *run = compare->run;
  g_autoptr (GPtrArray) lus = NULL, errors = NULL;

  if (!compare->words->addresses[0])
    return TRUE;
  if (!hf_session_open_all (run->session, &run->options, compare->words->addresses, TRUE, &lus, &errors, error))
    return FALSE;
  for (guint i = 0; i < lus->len; i++) {
    if (errors->pdata[i])
      report_lu (run, compare->words->addresses[i], errors->pdata[i]);
    else
      g_ptr_array_add (compare->given, lus->pdata[i]);
  }
  compare->used = g_new0 (guint8, compare->given->len + 1);
  return TRUE;
}

static void
add_given (Compare *compare, const HfLuIdentity *identity, GPtrArray *lus)
{
  for (guint i = 0; i < compare->given->len; i++)
    if (hf_lu_identity_equal (hf_lu_get_identity (compare->given->pdata[i], NULL), identity)) {
      compare->used[i] = TRUE;
      g_ptr_array_add (lus, compare->given->pdata[i]);
    }
}

/* Adds the devices of this machine. FALSE with why there is none. */
static gboolean
add_found (HfRun *run, const HfLuIdentity *identity, GPtrArray *lus, GError **error)
{
  g_auto (GStrv) addresses = hf_lu_find_devices (identity, error);
  g_autoptr (GPtrArray) opened = NULL, errors = NULL;
  guint before = lus->len;

  if (!addresses || !hf_session_open_all (run->session, &run->options, addresses, TRUE, &opened, &errors, error))
    return FALSE;
  for (guint i = 0; i < opened->len; i++) {
    /* sysfs may be old: the LU says itself who it is. */
    if (errors->pdata[i] && lus->len == before && error && !*error)
      *error = g_error_copy (errors->pdata[i]);
    else if (!errors->pdata[i] && hf_lu_identity_equal (hf_lu_get_identity (opened->pdata[i], NULL), identity))
      g_ptr_array_add (lus, opened->pdata[i]);
  }
  if (lus->len > before) {
    g_clear_error (error);
    return TRUE;
  }
  if (error && !*error)
    g_set_error_literal (error, HF_SCSI_ERROR, HF_SCSI_ERROR_NOT_FOUND, "the device is another logical unit now");
  return FALSE;
}

/* NULL: lus has some of it; else why not. Free with g_free. */
static char *
find_lus (Compare *compare, const HfPrSaved *saved, GPtrArray *lus)
{
  g_autoptr (GError) error = NULL;
  guint before = lus->len;

  if (compare->words->offline)
    return g_strdup ("no LU was opened");
  if (!compare->words->addresses[0])
    return add_found (compare->run, &saved->identity, lus, &error) ? NULL : g_strdup (error->message);
  add_given (compare, &saved->identity, lus);
  return lus->len > before ? NULL : g_strdup ("none of the LUs that were named is this one");
}

/* What of record is here becomes a record of its own. */
static gboolean
compare_record (Compare *compare, const HfRecord *record, JsonObject *object, GError **error)
{
  g_autoptr (HfRecord) here = hf_record_new (record->vm);
  g_autoptr (GPtrArray) lus = g_ptr_array_new ();
  JsonArray *missing = json_array_new ();

  json_object_set_array_member (object, "not_compared", missing);
  for (guint i = 0; i < record->n_units; i++) {
    g_autofree char *why = find_lus (compare, &record->units[i], lus);
    g_autofree char *name = hf_lu_identity_to_string (&record->units[i].identity);
    JsonObject *unit;

    if (!why && !hf_record_add (here, &record->units[i], error))
      return FALSE;
    if (!why)
      continue;
    unit = json_object_new ();
    hf_json_set_string (unit, "lu", name);
    hf_json_set_string (unit, "why", why);
    json_array_add_object_element (missing, unit);
    g_string_append_printf (compare->run->text, "  %s: not compared: %s\n", name, why);
  }
  json_object_set_null_member (object, "compared");
  if (here->n_units > 0) {
    JsonObject *compared = json_object_new ();
    json_object_set_object_member (object, "compared", compared);
    return hf_check_record (compare->run, here, (HfLu *const *)lus->pdata, lus->len, compared, error);
  }
  return TRUE;
}

/* ---- dbus-vmstate ---- */

static gboolean
show_entry (Compare *compare, const HfVmstateEntry *entry, JsonObject *object, GError **error)
{
  HfRun *run = compare->run;
  g_autofree char *id = hf_printable (entry->id);
  JsonObject *record;

  hf_json_set_string (object, "id", entry->id);
  json_object_set_int_member (object, "offset", (gint64)entry->offset);
  json_object_set_int_member (object, "length", (gint64)entry->length);
  g_string_append_printf (run->text, "  \"%s\": %" G_GUINT64_FORMAT " bytes at %" G_GUINT64_FORMAT, id, entry->length,
                          entry->offset);
  json_object_set_null_member (object, "record");
  if (entry->problem) {
    hf_json_set_string (object, "problem", entry->problem);
    g_string_append (run->text, ", a record that is refused\n");
    hf_run_warn (run, "dbus-vmstate: \"%s\": %s", id, entry->problem);
    run->result = hf_exit_code_combine (run->result, HF_EXIT_RECORD);
  }
  if (!entry->record) {
    g_string_append (run->text, entry->problem ? "" : "\n");
    return TRUE;
  }
  record = json_object_new ();
  json_object_set_object_member (object, "record", record);
  g_string_append (run->text, ", a ");
  hf_show_record (entry->record, run->text, record);
  return compare_record (compare, entry->record, record, error);
}

static gboolean
show_vmstate (Compare *compare, const HfStreamSection *section, JsonArray *all, GError **error)
{
  HfRun *run = compare->run;
  g_autoptr (HfVmstate) vmstate = hf_vmstate_read (compare->reader, section);
  JsonObject *object = json_object_new ();
  JsonArray *entries = json_array_new ();

  json_array_add_object_element (all, object);
  hf_json_set_string (object, "section", section->id);
  json_object_set_int_member (object, "declared", vmstate->declared);
  json_object_set_array_member (object, "entries", entries);
  hf_json_set_string (object, "problem", vmstate->problem);
  g_string_append_printf (run->text, "dbus-vmstate: %u of %u\n", vmstate->entries->len, vmstate->declared);
  if (vmstate->problem) {
    hf_run_warn (run, "%s: %s", section->id, vmstate->problem);
    run->result = hf_exit_code_combine (run->result, HF_EXIT_MALFORMED);
  } else if (vmstate->entries->len < vmstate->declared) {
    hf_run_warn (run, "warning: %s: %u of %u helpers did not save", section->id, vmstate->declared - vmstate->entries->len,
                 vmstate->declared);
  }
  for (guint i = 0; i < vmstate->entries->len; i++) {
    JsonObject *entry = json_object_new ();
    json_array_add_object_element (entries, entry);
    if (!show_entry (compare, vmstate->entries->pdata[i], entry, error))
      return FALSE;
  }
  return TRUE;
}

/* ---- scsi-disk/pr ---- */

/* The LU that a map names for section, or NULL. */
static const char *
mapped_lu (const HfCompareWords *words, const HfStreamSection *section)
{
  gsize length = strlen (section->id);

  for (guint i = 0; words->maps && words->maps[i]; i++)
    if (strncmp (words->maps[i], section->id, length) == 0 && words->maps[i][length] == '=')
      return words->maps[i] + length + 1;
  return NULL;
}

/* Each map names one section that there is, and an LU. */
static gboolean
check_maps (const Compare *compare, GError **error)
{
  for (guint i = 0; compare->words->maps && compare->words->maps[i]; i++) {
    const char *map = compare->words->maps[i];
    guint n = 0;

    for (guint j = 0; j < compare->sections->len; j++) {
      const HfStreamSection *section = compare->sections->pdata[j];
      gsize length = strlen (section->id);
      n += hf_scsi_disk_pr_find (section) && strncmp (map, section->id, length) == 0 && map[length] == '=' && map[length + 1];
    }
    if (n == 0)
      return hf_usage_error (error, "--map %s: SECTION-ID=LU names no section that has scsi-disk/pr", map);
    if (n > 1)
      return hf_usage_error (error, "--map %s names %u sections: it cannot be said which is meant", map, n);
  }
  return TRUE;
}

static const char *
whose (const HfPrObservation *observation, guint index, void *data)
{
  return NULL;
}

static void
set_compared (HfRun *run, JsonObject *object, const char *compared, const char *text)
{
  hf_json_set_string (object, "compared", compared);
  hf_json_set_string (object, "text", text);
  g_string_append_printf (run->text, "%s%s%s\n", compared, text ? ": " : "", text ? text : "");
}

static void
show_failure (HfRun *run, JsonObject *object, const char *address, const HfUnitError *failure, const GError *error)
{
  const HfScsiResult *result = failure->answered ? &failure->result : hf_scsi_error_get_result (error);
  const char *text = failure->text ? failure->text : error->message;

  set_compared (run, object, "failed", text);
  hf_run_fail (run, address, failure->step, result, text);
  run->result = hf_exit_code_combine (run->result, failure->exit_code ? failure->exit_code : hf_error_to_exit_code (error));
}

static void
compare_pr (HfRun *run, const HfScsiDiskPr *pr, const char *address, JsonObject *object)
{
  g_autoptr (GError) error = NULL;
  HfUnitError failure = { 0 };
  HfPrObservation observation = { 0 };
  HfLu *lu = hf_session_open (run->session, &run->options, address, &error);
  const HfLuIdentity *identity = lu ? hf_lu_get_identity (lu, &error) : NULL;
  g_autofree char *name = identity ? hf_lu_identity_to_string (identity) : NULL;
  g_autofree char *different = NULL;

  hf_json_set_string (object, "lu", name);
  hf_json_set_string (object, "device", lu ? hf_lu_get_address (lu) : NULL);
  g_string_append_printf (run->text, "%s: ", name ? name : "the LU");
  if (!identity || !hf_pr_observe (lu, "status", &observation, &failure, &error)) {
    show_failure (run, object, lu ? hf_lu_get_address (lu) : NULL, &failure, error);
    hf_unit_error_clear (&failure);
    return;
  }
  different = hf_scsi_disk_pr_compare (pr, &observation);
  set_compared (run, object, different ? "different" : "same", different);
  if (different) {
    hf_run_warn (run, "warning: %s: not as in the stream: %s", name, different);
    run->result = hf_exit_code_combine (run->result, HF_EXIT_CHANGED);
  }
  json_object_set_object_member (object, "state", hf_json_observation (&observation, whose, NULL));
  hf_table_print_observation ("holds", &observation, whose, NULL, run->text);
  hf_pr_observation_clear (&observation);
}

static void
show_pr (Compare *compare, const HfStreamSection *section, const HfStreamSubsection *subsection, JsonArray *all)
{
  HfRun *run = compare->run;
  const char *address = compare->words->offline ? NULL : mapped_lu (compare->words, section);
  g_autofree char *id = hf_printable (section->id);
  g_autoptr (GError) error = NULL;
  JsonObject *object = json_object_new ();
  HfScsiDiskPr pr;

  json_array_add_object_element (all, object);
  hf_json_set_string (object, "section", section->id);
  json_object_set_int_member (object, "instance_id", section->instance_id);
  if (!hf_scsi_disk_pr_read (compare->reader, subsection, &pr, &error)) {
    hf_json_set_string (object, "problem", error->message);
    hf_run_warn (run, "%s: %s", id, error->message);
    run->result = hf_exit_code_combine (run->result, hf_error_to_exit_code (error));
    return;
  }
  json_object_set_int_member (object, "offset", (gint64)pr.offset);
  hf_json_set_hex (object, "key", pr.key);
  json_object_set_int_member (object, "type", pr.type);
  g_string_append_printf (run->text, "scsi-disk/pr of %s: key 0x%" G_GINT64_MODIFIER "x, %s; ", id, pr.key,
                          pr.type ? hf_pr_type_to_string (pr.type) : "registered, not holding");
  if (address)
    compare_pr (run, &pr, address, object);
  else
    set_compared (run, object, "unmapped", NULL);
}

/* ---- all of it ---- */

static gboolean
check_used (const Compare *compare, GError **error)
{
  for (guint i = 0; i < compare->given->len; i++)
    if (!compare->used[i]) {
      g_set_error (error, HF_RECORD_ERROR, HF_RECORD_ERROR_LU, "%s: no record in this stream has this LU",
                   hf_lu_get_address (compare->given->pdata[i]));
      return FALSE;
    }
  return TRUE;
}

static gboolean
show_sections (Compare *compare, GError **error)
{
  JsonArray *vmstates = json_array_new (), *reservations = json_array_new ();

  json_object_set_array_member (compare->run->object, "vmstate", vmstates);
  json_object_set_array_member (compare->run->object, "reservations", reservations);
  for (guint i = 0; i < compare->sections->len; i++) {
    const HfStreamSection *section = compare->sections->pdata[i];
    const HfStreamSubsection *pr = hf_scsi_disk_pr_find (section);

    if (hf_vmstate_is_section (section) && !show_vmstate (compare, section, vmstates, error))
      return FALSE;
    if (pr)
      show_pr (compare, section, pr, reservations);
  }
  return check_used (compare, error);
}

gboolean
hf_compare_show (HfRun *run, HfReader *reader, GPtrArray *sections, const HfCompareWords *words, GError **error)
{
  g_autoptr (GPtrArray) given = g_ptr_array_new ();
  Compare compare = { .run = run, .reader = reader, .sections = sections, .words = words, .given = given };
  gboolean ok = check_maps (&compare, error) && open_given (&compare, error) && show_sections (&compare, error);

  g_free (compare.used);
  return ok;
}
