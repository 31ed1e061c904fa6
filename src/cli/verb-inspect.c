/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * holdfast inspect FILE: shows a record. Owns: this verb. Thread: main.
 *
 * Theory of operation: reads the file and nothing else; no LU is opened. A record that load would refuse is refused here with the
 * same message.
 */
#include "config.h"

#include "cli/cli.h"

static JsonObject *
json_unit (const HfPrSaved *saved)
{
  JsonObject *object = json_object_new ();
  JsonArray *nexuses = json_array_new ();
  g_autofree char *name = hf_lu_identity_to_string (&saved->identity);

  hf_json_set_string (object, "lu", name);
  hf_json_set_hex (object, "key", saved->key);
  json_object_set_int_member (object, "type", saved->type);
  json_object_set_int_member (object, "scope", saved->scope);
  json_object_set_boolean_member (object, "aptpl", saved->aptpl);
  json_object_set_boolean_member (object, "all_tg_pt", saved->all_tg_pt);
  json_object_set_int_member (object, "generation", saved->generation);
  json_object_set_int_member (object, "key_count", saved->key_count);
  for (guint i = 0; i < saved->n_nexuses; i++) {
    JsonObject *nexus = json_object_new ();
    hf_json_set_nexus (nexus, &saved->nexuses[i]);
    json_array_add_object_element (nexuses, nexus);
  }
  json_object_set_array_member (object, "nexuses", nexuses);
  return object;
}

static char *
describe_nexuses (const HfPrSaved *saved)
{
  GString *text = g_string_new (NULL);

  for (guint i = 0; i < saved->n_nexuses; i++) {
    g_autofree char *nexus = hf_nexus_to_string (&saved->nexuses[i]);
    g_string_append_printf (text, "%s%s", i ? " " : "", nexus);
  }
  return g_string_free (text, FALSE);
}

static void
add_row (HfTable *table, const HfPrSaved *saved)
{
  g_autofree char *name = hf_lu_identity_to_string (&saved->identity);
  g_autofree char *key = g_strdup_printf ("0x%" G_GINT64_MODIFIER "x", saved->key);
  g_autofree char *type = g_strdup_printf ("%u", saved->type);
  g_autofree char *generation = g_strdup_printf ("%u", saved->generation);
  g_autofree char *count = g_strdup_printf ("%u", saved->key_count);
  g_autofree char *nexuses = describe_nexuses (saved);
  const char *flags = saved->aptpl ? (saved->all_tg_pt ? "aptpl,all-tg-pt" : "aptpl") : (saved->all_tg_pt ? "all-tg-pt" : NULL);
  const char *cells[] = { name, saved->key ? key : NULL, type, flags, generation, count, *nexuses ? nexuses : NULL };

  hf_table_add (table, cells);
}

void
hf_show_record (const HfRecord *record, GString *text, JsonObject *object)
{
  static const char *const headings[] = { "LU", "KEY", "TYPE", "FLAGS", "GENERATION", "LISTED", "I_T NEXUS" };
  g_autoptr (GDateTime) when = g_date_time_new_from_unix_utc (record->time);
  g_autofree char *time =
      when ? g_date_time_format (when, "%Y-%m-%dT%H:%M:%SZ") : g_strdup_printf ("%" G_GINT64_FORMAT, record->time);
  g_autofree char *vm = hf_printable (record->vm), *host = hf_printable (record->host);
  g_autoptr (HfTable) table = hf_table_new (G_N_ELEMENTS (headings), headings);
  JsonArray *units = json_array_new ();

  g_string_append_printf (text, "record %s of VM %s, saved on %s at %s\n", record->id, *vm ? vm : "(unnamed)", host, time);
  hf_json_set_string (object, "id", record->id);
  hf_json_set_string (object, "vm", record->vm);
  hf_json_set_string (object, "host", record->host);
  hf_json_set_string (object, "time", time);
  for (guint i = 0; i < record->n_units; i++) {
    add_row (table, &record->units[i]);
    json_array_add_object_element (units, json_unit (&record->units[i]));
  }
  json_object_set_array_member (object, "units", units);
  hf_table_print (table, "  ", text);
}

gboolean
hf_verb_inspect (HfRun *run, char **argv, GError **error)
{
  const HfOptionSpec spec = { "inspect FILE", "Show a record. No LU is opened; - is standard input.", NULL, NULL, FALSE };
  g_auto (GStrv) files = NULL;
  g_autoptr (HfRecord) record = NULL;

  if (!hf_run_parse (run, &spec, argv, &files, error))
    return FALSE;
  if (!files[0] || files[1])
    return hf_usage_error (error, "inspect needs one file");
  record = hf_record_read_file (files[0], error);
  if (!record)
    return FALSE;
  hf_show_record (record, run->text, run->object);
  return TRUE;
}
