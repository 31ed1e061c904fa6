/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns: the JSON shapes that several verbs share. Thread: any; pure.
 *
 * Theory of operation: json-glib keeps members in the order they were set, so the shapes read as the manual pages print them.
 * Strings that came from outside are made printable before they go in, because a JSON string must be UTF-8.
 */
#include "config.h"

#include "cli/cli.h"

void
hf_json_set_hex (JsonObject *object, const char *name, guint64 value)
{
  g_autofree char *text = g_strdup_printf ("0x%" G_GINT64_MODIFIER "x", value);
  json_object_set_string_member (object, name, text);
}

void
hf_json_set_string (JsonObject *object, const char *name, const char *value)
{
  g_autofree char *printable = hf_printable (value);

  if (printable)
    json_object_set_string_member (object, name, printable);
  else
    json_object_set_null_member (object, name);
}

void
hf_json_set_unit_attentions (JsonObject *object, const guint16 *unit_attentions, guint n)
{
  JsonArray *array = json_array_new ();

  for (guint i = 0; i < MIN (n, HF_SCSI_UA_MAX); i++) {
    g_autofree char *text = g_strdup_printf ("%04x", unit_attentions[i]);
    json_array_add_string_element (array, text);
  }
  json_object_set_array_member (object, "unit_attentions", array);
}

void
hf_json_set_reservation (JsonObject *object, const char *name, gboolean reserved, guint64 key, guint8 type, guint8 scope)
{
  JsonObject *reservation;

  if (!reserved) {
    json_object_set_null_member (object, name);
    return;
  }
  reservation = json_object_new ();
  hf_json_set_hex (reservation, "key", key);
  json_object_set_int_member (reservation, "type", type);
  json_object_set_int_member (reservation, "scope", scope);
  json_object_set_object_member (object, name, reservation);
}

void
hf_json_set_nexus (JsonObject *object, const HfNexus *nexus)
{
  HfNexus port = { 0 };
  g_autofree char *text = NULL;

  if (nexus && nexus->transport_id.length > 0) {
    port.transport_id = nexus->transport_id;
    text = hf_nexus_to_string (&port);
  }
  hf_json_set_string (object, "transport_id", text);
  if (nexus && nexus->relative_target_port)
    json_object_set_int_member (object, "relative_target_port", nexus->relative_target_port);
  else
    json_object_set_null_member (object, "relative_target_port");
}

void
hf_json_set_result (JsonObject *object, const HfScsiResult *result)
{
  g_autofree char *status = NULL, *sense = NULL;
  guint8 key;
  guint16 asc_ascq;

  if (result)
    status = hf_scsi_result_to_string (result);
  if (result && hf_scsi_result_get_sense (result, &key, &asc_ascq)) {
    sense = g_strdup_printf ("%x/%04x", key, asc_ascq);
    /* The text of the status repeats the sense data, which has a member of its own here. */
    g_free (status);
    status = g_strdup ("CHECK CONDITION");
  }
  hf_json_set_string (object, "status", status);
  hf_json_set_string (object, "sense", sense);
}

JsonObject *
hf_json_error (const char *step, const HfScsiResult *result, const char *text)
{
  JsonObject *object = json_object_new ();

  hf_json_set_string (object, "step", step);
  hf_json_set_result (object, result);
  hf_json_set_string (object, "text", text);
  return object;
}

int
hf_observation_is_holder (const HfPrObservation *observation, guint index)
{
  if (observation->full)
    return observation->registrants[index].holder ? 1 : 0;
  if (!observation->reserved)
    return 0;
  if (hf_pr_type_is_all_registrants (observation->type))
    return 1;
  if (observation->keys[index] != observation->holder_key)
    return 0;
  return hf_pr_observation_count_key (observation, observation->holder_key) == 1 ? 1 : -1;
}

static JsonObject *
json_registration (const HfPrObservation *observation, guint index, const char *ours)
{
  JsonObject *object = json_object_new ();
  int holder = hf_observation_is_holder (observation, index);

  hf_json_set_hex (object, "key", observation->keys[index]);
  hf_json_set_nexus (object, observation->full ? &observation->registrants[index].nexus : NULL);
  if (holder < 0)
    json_object_set_null_member (object, "holder");
  else
    json_object_set_boolean_member (object, "holder", holder);
  hf_json_set_string (object, "ours", ours);
  return object;
}

JsonObject *
hf_json_observation (const HfPrObservation *observation, HfWhoseFunc whose, void *data)
{
  JsonObject *object = json_object_new ();
  JsonArray *keys = json_array_new ();

  json_object_set_int_member (object, "generation", observation->generation);
  for (guint i = 0; i < observation->n_keys; i++)
    json_array_add_object_element (keys, json_registration (observation, i, whose (observation, i, data)));
  json_object_set_array_member (object, "keys", keys);
  hf_json_set_reservation (object, "reservation", observation->reserved, observation->holder_key, observation->type,
                           observation->scope);
  return object;
}

char *
hf_json_line (JsonObject *object)
{
  g_autoptr (JsonNode) node = json_node_new (JSON_NODE_OBJECT);
  g_autofree char *text = NULL;

  json_node_set_object (node, object);
  text = json_to_string (node, FALSE);
  return g_strconcat (text, "\n", NULL);
}
