/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns: the meaning of the control socket's methods. Thread: main.
 *
 * Theory of operation: a method checks its parameters, finds its VM, calls into vms.h, and ends with the call as the user data of
 * the job's end. Tables say which parameters a method knows and which code an error gets. What is not known is refused: a caller
 * who asked for more than we understand must not get less. 64-bit values are strings, because a JSON number loses their
 * precision.
 */
#include "config.h"

#include "prhelper/vm-control.h"

#include <gio/gio.h>
#include <string.h>

/* ---- parameters ---- */

#define BAD_REQUEST "bad-request"

/* NULL: params has none but the names allowed, each a string. */
static const char *
check_params (JsonObject *params, const char *const *allowed)
{
  g_autoptr (GList) members = json_object_get_members (params);

  for (GList *l = members; l; l = l->next) {
    JsonNode *node = json_object_get_member (params, l->data);

    if (!g_strv_contains (allowed, l->data))
      return "a member of params is not known";
    if (!JSON_NODE_HOLDS_VALUE (node) || json_node_get_value_type (node) != G_TYPE_STRING)
      return "a member of params is no string";
  }
  return NULL;
}

static const char *
get_string (JsonObject *params, const char *name)
{
  return json_object_has_member (params, name) ? json_object_get_string_member (params, name) : NULL;
}

/* FALSE: the call is finished. */
static gboolean
take_params (HfControlCall *call, JsonObject *params, const char *const *allowed)
{
  const char *problem = check_params (params, allowed);

  if (problem)
    hf_control_fail (call, BAD_REQUEST, problem, NULL);
  return problem == NULL;
}

/* NULL: the call is finished. */
static HfVm *
take_vm (HfControlCall *call, JsonObject *params, HfVmControl *control)
{
  const char *name = get_string (params, "vm");
  g_autoptr (GError) error = NULL;
  HfVm *vm;

  if (!name || !*name) {
    hf_control_fail (call, BAD_REQUEST, "params.vm is missing: a name, a uuid, or \"pid:N\"", NULL);
    return NULL;
  }
  vm = hf_vms_find (control->vms, name, &error);
  if (!vm)
    hf_control_fail (call, g_error_matches (error, G_IO_ERROR, G_IO_ERROR_EXISTS) ? "ambiguous" : "not-found", error->message,
                     NULL);
  return vm;
}

/* FALSE: the call is finished. */
static gboolean
take_on_change (HfControlCall *call, JsonObject *params, HfOnChange *on_change)
{
  const char *text = get_string (params, "on_change");

  if (!text)
    return TRUE;
  if (strcmp (text, "adopt") == 0)
    *on_change = HF_ON_CHANGE_ADOPT;
  else if (strcmp (text, "refuse") == 0)
    *on_change = HF_ON_CHANGE_REFUSE;
  else
    hf_control_fail (call, BAD_REQUEST, "params.on_change is \"adopt\" or \"refuse\"", NULL);
  return strcmp (text, "adopt") == 0 || strcmp (text, "refuse") == 0;
}

/* NULL: the call is finished. */
static GBytes *
take_record (HfControlCall *call, JsonObject *params)
{
  const char *text = get_string (params, "record");
  g_autofree guint8 *bytes = NULL;
  g_autofree char *again = NULL;
  gsize length = 0;

  if (!text || !*text) {
    hf_control_fail (call, BAD_REQUEST, "params.record is missing", NULL);
    return NULL;
  }
  /* g_base64_decode passes over what it does not know; so what came of it must give the same text. */
  bytes = g_base64_decode (text, &length);
  again = g_base64_encode (bytes, length);
  if (strcmp (again, text) != 0)
    hf_control_fail (call, BAD_REQUEST, "params.record is no base64 (RFC 4648, 4), or too long", NULL);
  else if (length > HF_RECORD_SIZE_MAX)
    hf_control_fail (call, "record", "the record is too long", NULL);
  else
    return g_bytes_new_take (g_steal_pointer (&bytes), length);
  return NULL;
}

/* ---- shapes ---- */

static void
set_string (JsonObject *object, const char *name, const char *value)
{
  g_autofree char *valid = value ? g_utf8_make_valid (value, -1) : NULL;

  if (valid)
    json_object_set_string_member (object, name, valid);
  else
    json_object_set_null_member (object, name);
}

static void
set_hex (JsonObject *object, const char *name, guint64 value)
{
  g_autofree char *text = g_strdup_printf ("0x%" G_GINT64_MODIFIER "x", value);

  json_object_set_string_member (object, name, text);
}

static void
set_type (JsonObject *object, guint8 type)
{
  json_object_set_int_member (object, "type", type);
  json_object_set_string_member (object, "type_name", hf_pr_type_to_string (type));
}

/* object is taken over. */
static JsonNode *
node_of (JsonObject *object)
{
  JsonNode *node = json_node_new (JSON_NODE_OBJECT);

  json_node_take_object (node, object);
  return node;
}

static JsonObject *
json_report_lu (const HfLuReport *report)
{
  JsonObject *object = json_object_new ();

  set_string (object, "lu", report->name);
  json_object_set_string_member (object, "verdict", hf_verdict_to_string (report->verdict));
  set_type (object, report->type);
  set_hex (object, "key", report->key);
  json_object_set_boolean_member (object, "prepared", report->prepared);
  json_object_set_boolean_member (object, "warning", report->warning);
  set_string (object, "text", report->text);
  json_object_set_int_member (object, "milliseconds", report->milliseconds);
  return object;
}

/* NULL gives NULL. */
static JsonNode *
json_report (const HfReport *report)
{
  JsonObject *object;
  JsonArray *lus;

  if (!report)
    return NULL;
  object = json_object_new ();
  lus = json_array_new ();
  for (guint i = 0; i < report->n_lus; i++)
    json_array_add_object_element (lus, json_report_lu (&report->lus[i]));
  json_object_set_array_member (object, "lus", lus);
  return node_of (object);
}

static JsonObject *
json_held (const HfHeld *held)
{
  g_autofree char *lu = held->identified ? hf_lu_identity_to_string (&held->identity) : NULL;
  g_autofree char *device = g_strdup_printf ("%s %u:%u", held->block ? "block" : "char", held->major, held->minor);
  JsonObject *object = json_object_new ();

  set_string (object, "lu", lu);
  json_object_set_string_member (object, "device", device);
  set_hex (object, "key", held->state.key);
  set_type (object, held->state.type);
  json_object_set_boolean_member (object, "uncertain", held->state.uncertain);
  return object;
}

static const char *const answer_names[] = { "GOOD", "RESERVATION CONFLICT", "other", "none" };
G_STATIC_ASSERT (G_N_ELEMENTS (answer_names) == G_N_ELEMENTS (((HfVmCounters *)NULL)->commands[0]));
G_STATIC_ASSERT (G_N_ELEMENTS (((HfVmCounters *)NULL)->commands) == HF_PR_OUT_REPLACE_LOST_RESERVATION + 1);

/* {"REGISTER":{"GOOD":2}}: what never came is left out. */
static JsonObject *
json_commands (const HfVmCounters *counters)
{
  JsonObject *object = json_object_new ();

  for (guint8 action = 0; action < G_N_ELEMENTS (counters->commands); action++) {
    JsonObject *answers = json_object_new ();

    for (guint i = 0; i < G_N_ELEMENTS (answer_names); i++)
      if (counters->commands[action][i])
        json_object_set_int_member (answers, answer_names[i], (gint64)counters->commands[action][i]);
    if (json_object_get_size (answers) > 0)
      json_object_set_object_member (object, hf_pr_out_action_to_string (action), json_object_ref (answers));
    json_object_unref (answers);
  }
  return object;
}

static JsonObject *
json_counters (const HfVmCounters *counters)
{
  JsonObject *object = json_object_new ();

  json_object_set_object_member (object, "commands", json_commands (counters));
  json_object_set_int_member (object, "reads", (gint64)counters->reads);
  json_object_set_int_member (object, "conflicts", (gint64)counters->conflicts);
  json_object_set_int_member (object, "saves", (gint64)counters->saves);
  json_object_set_int_member (object, "loads", (gint64)counters->loads);
  json_object_set_int_member (object, "refused", (gint64)counters->refused);
  json_object_set_int_member (object, "rolled_back", (gint64)counters->rolled_back);
  if (counters->last_gap_us >= 0)
    json_object_set_int_member (object, "last_gap_us", counters->last_gap_us);
  else
    json_object_set_null_member (object, "last_gap_us");
  return object;
}

static const char *const phase_names[] = {
  [HF_VM_IDLE] = "idle", [HF_VM_SAVED] = "saved", [HF_VM_LOADING] = "loading", [HF_VM_PREPARED] = "prepared"
};
G_STATIC_ASSERT (G_N_ELEMENTS (phase_names) == HF_N_VM_PHASES);

static JsonObject *
json_vm (HfVm *vm)
{
  g_autoptr (HfVmImage) image = hf_vm_get_image (vm);
  JsonObject *object = json_object_new ();
  JsonArray *lus = json_array_new ();

  set_string (object, "vm", hf_vm_get_name (vm));
  json_object_set_int_member (object, "pid", hf_vm_get_peer (vm)->pid);
  set_string (object, "uuid", hf_vm_get_uuid (vm));
  json_object_set_boolean_member (object, "alive", hf_vm_is_alive (vm));
  json_object_set_int_member (object, "connections", hf_vm_get_connections (vm));
  json_object_set_string_member (object, "phase", phase_names[image->phase]);
  for (guint i = 0; i < image->held->len; i++)
    json_array_add_object_element (lus, json_held (&g_array_index (image->held, HfHeld, i)));
  json_object_set_array_member (object, "lus", lus);
  json_object_set_object_member (object, "counters", json_counters (hf_vm_get_counters (vm)));
  return object;
}

/* ---- ends ---- */

static const struct {
  HfMigrateError error;
  const char *code;
} migrate_codes[] = {
  { HF_MIGRATE_ERROR_RECORD, "record" },   { HF_MIGRATE_ERROR_NOT_FOUND, "lu-not-found" },
  { HF_MIGRATE_ERROR_REFUSED, "refused" }, { HF_MIGRATE_ERROR_COMMITTED, "committed" },
  { HF_MIGRATE_ERROR_SAVE, "failed" },
};
G_STATIC_ASSERT (G_N_ELEMENTS (migrate_codes) == HF_MIGRATE_ERROR_SAVE + 1);

static const char *
error_code (const GError *error)
{
  for (guint i = 0; i < G_N_ELEMENTS (migrate_codes); i++)
    if (g_error_matches (error, HF_MIGRATE_ERROR, (int)migrate_codes[i].error))
      return migrate_codes[i].code;
  return error->domain == HF_RECORD_ERROR ? "record" : "failed";
}

static void
saved (HfVm *vm, const HfVmOutcome *outcome, const GError *error, gpointer user_data)
{
  g_autofree char *text = NULL;
  JsonObject *object;
  gconstpointer bytes;
  gsize length;

  if (error) {
    hf_control_fail (user_data, error_code (error), error->message, NULL);
    return;
  }
  bytes = g_bytes_get_data (outcome->record, &length);
  text = g_base64_encode (bytes, length);
  object = json_object_new ();
  json_object_set_string_member (object, "record", text);
  hf_control_return (user_data, node_of (object));
}

static void
reported (HfVm *vm, const HfVmOutcome *outcome, const GError *error, gpointer user_data)
{
  JsonNode *report = json_report (outcome ? outcome->report : NULL);

  if (error)
    hf_control_fail (user_data, error_code (error), error->message, report);
  else
    hf_control_return (user_data, report ?: node_of (json_object_new ()));
}

/* A check whose caller would refuse what a load that adopts accepts. */
static void
checked_strictly (HfVm *vm, const HfVmOutcome *outcome, const GError *error, gpointer user_data)
{
  const HfReport *report = outcome ? outcome->report : NULL;

  for (guint i = 0; !error && report && i < report->n_lus; i++)
    if (report->lus[i].warning) {
      hf_control_fail (user_data, "refused", "an LU was changed by others", json_report (report));
      return;
    }
  reported (vm, outcome, error, user_data);
}

/* ---- methods ---- */

static const char *const params_none[] = { NULL };
static const char *const params_vm[] = { "vm", NULL };
static const char *const params_record[] = { "vm", "record", "on_change", NULL };

static void
method_list (HfControlCall *call, JsonObject *params, gpointer user_data)
{
  HfVmControl *control = user_data;
  g_autoptr (GPtrArray) vms = NULL;
  JsonObject *object;
  JsonArray *array;

  if (!take_params (call, params, params_none))
    return;
  vms = hf_vms_list (control->vms);
  object = json_object_new ();
  array = json_array_new ();
  for (guint i = 0; i < vms->len; i++)
    json_array_add_object_element (array, json_vm (vms->pdata[i]));
  json_object_set_array_member (object, "vms", array);
  hf_control_return (call, node_of (object));
}

static void
method_watch (HfControlCall *call, JsonObject *params, gpointer user_data)
{
  if (take_params (call, params, params_none))
    hf_control_watch (call);
}

static void
method_save (HfControlCall *call, JsonObject *params, gpointer user_data)
{
  HfVm *vm = take_params (call, params, params_vm) ? take_vm (call, params, user_data) : NULL;

  if (vm)
    hf_vm_save (vm, saved, call);
}

static void
method_release (HfControlCall *call, JsonObject *params, gpointer user_data)
{
  HfVm *vm = take_params (call, params, params_vm) ? take_vm (call, params, user_data) : NULL;

  if (vm)
    hf_vm_release (vm, reported, call);
}

static void
method_reclaim (HfControlCall *call, JsonObject *params, gpointer user_data)
{
  HfVm *vm = take_params (call, params, params_vm) ? take_vm (call, params, user_data) : NULL;

  if (vm)
    hf_vm_reclaim (vm, reported, call);
}

static void
check_or_load (HfControlCall *call, JsonObject *params, HfVmControl *control, gboolean load)
{
  HfOnChange on_change = control->on_change;
  g_autoptr (GBytes) record = NULL;
  HfVm *vm;

  if (!take_params (call, params, params_record) || !take_on_change (call, params, &on_change))
    return;
  record = take_record (call, params);
  vm = record ? take_vm (call, params, control) : NULL;
  if (vm && load)
    hf_vm_load (vm, record, on_change, reported, call);
  else if (vm)
    hf_vm_check (vm, record, on_change == HF_ON_CHANGE_REFUSE ? checked_strictly : reported, call);
}

static void
method_check (HfControlCall *call, JsonObject *params, gpointer user_data)
{
  check_or_load (call, params, user_data, FALSE);
}

static void
method_load (HfControlCall *call, JsonObject *params, gpointer user_data)
{
  check_or_load (call, params, user_data, TRUE);
}

const HfControlMethod hf_vm_control_methods[] = {
  { "list", method_list }, { "watch", method_watch },     { "save", method_save },       { "check", method_check },
  { "load", method_load }, { "release", method_release }, { "reclaim", method_reclaim }, { NULL, NULL },
};

void
hf_vm_control_event (HfVm *vm, const HfVmEvent *event, gpointer user_data)
{
  JsonObject *data;

  if (!user_data)
    return;
  data = json_object_new ();
  set_string (data, "vm", hf_vm_get_name (vm));
  json_object_set_int_member (data, "pid", hf_vm_get_peer (vm)->pid);
  set_string (data, "lu", event->lu);
  set_string (data, "operation", event->operation);
  set_string (data, "result", event->result);
  json_object_set_boolean_member (data, "warning", event->warning);
  json_object_set_boolean_member (data, "guest", event->guest);
  hf_control_publish (user_data, "state", node_of (data));
}
