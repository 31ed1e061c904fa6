/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns: status --helper, and the words of --helper. Thread: main.
 *
 * Theory of operation: with --json the helper's members are handed on as they came, only made printable, so that a script sees
 * what a newer helper adds. For people a table shows what is asked for most. Watching asks for events before it asks for the
 * list: what happens between is in the list, or comes behind it, or both, but is never missed.
 */
#include "config.h"

#include "cli/helper-verbs.h"

#include "base/deadline.h"

#include <stdio.h>
#include <string.h>

/* Several phases of several LUs. */
#define TIMEOUT_DEFAULT_MS 120000

char **
hf_helper_argv (char **argv)
{
  char **words = g_strdupv (argv);

  for (guint i = 0; words[i] && strcmp (words[i], "--") != 0; i++)
    if (strcmp (words[i], "--helper") == 0) {
      g_free (words[i]);
      words[i] = g_strdup ("--helper=" HF_HELPER_SOCKET_DEFAULT);
    }
  return words;
}

HfHelper *
hf_helper_open (HfRun *run, const char *path, GError **error)
{
  guint timeout_ms = run->options.timeout_ms ? run->options.timeout_ms : TIMEOUT_DEFAULT_MS;
  HfHelper *helper = hf_helper_connect (path, hf_deadline_after_ms (timeout_ms), error);
  JsonObject *object;

  if (!helper)
    return NULL;
  object = json_object_new ();
  hf_json_set_string (object, "version", hf_helper_get_version (helper));
  json_object_set_int_member (object, "protocol", HF_HELPER_PROTOCOL);
  json_object_set_object_member (run->object, "helper", object);
  return helper;
}

JsonObject *
hf_helper_params (const char *vm)
{
  JsonObject *params = json_object_new ();
  /* From the command line: JSON has no other bytes than UTF-8. */
  g_autofree char *valid = g_utf8_make_valid (vm, -1);

  json_object_set_string_member (params, "vm", valid);
  return params;
}

/* ---- the list ---- */

static void
print_lus (JsonObject *vm, GString *text)
{
  static const char *const headings[] = { "LU", "device", "key", "reservation" };
  g_autoptr (HfTable) table = hf_table_new (G_N_ELEMENTS (headings), headings);
  g_autoptr (GList) lus = hf_helper_get_objects (vm, "lus");

  for (GList *l = lus; l; l = l->next) {
    gboolean uncertain = hf_helper_get_boolean (l->data, "uncertain");
    const char *type = hf_helper_get_int (l->data, "type") ? hf_helper_get_string (l->data, "type_name") : NULL;
    g_autofree char *key =
        g_strdup_printf ("0x%" G_GINT64_MODIFIER "x%s", hf_helper_get_hex (l->data, "key"), uncertain ? " ?" : "");
    const char *cells[] = { hf_helper_get_string (l->data, "lu"), hf_helper_get_string (l->data, "device"), key, type };

    hf_table_add (table, cells);
  }
  if (lus)
    hf_table_print (table, "  ", text);
}

static void
print_vm (JsonObject *vm, GString *text)
{
  g_autofree char *name = hf_printable (hf_helper_get_string (vm, "vm"));
  g_autofree char *uuid = hf_printable (hf_helper_get_string (vm, "uuid"));
  g_autofree char *phase = hf_printable (hf_helper_get_string (vm, "phase"));
  gint64 connections = hf_helper_get_int (vm, "connections");

  g_string_append_printf (text, "%s (pid %" G_GINT64_FORMAT "%s%s): %s, %" G_GINT64_FORMAT " connection%s, %s\n", name ?: "?",
                          hf_helper_get_int (vm, "pid"), uuid ? ", " : "", uuid ?: "",
                          hf_helper_get_boolean (vm, "alive") ? "runs" : "has ended", connections, connections == 1 ? "" : "s",
                          phase ?: "?");
  print_lus (vm, text);
}

static gboolean
show_list (HfRun *run, HfHelper *helper, GError **error)
{
  g_auto (HfHelperAnswer) answer = { 0 };
  g_autoptr (GList) vms = NULL;
  JsonNode *list;

  if (!hf_helper_call (helper, "list", NULL, &answer, error) || !hf_helper_answer_check (&answer, error))
    return FALSE;
  list = json_object_get_member (answer.result, "vms");
  if (!list || !JSON_NODE_HOLDS_ARRAY (list)) {
    g_set_error (error, HF_HELPER_ERROR, HF_EXIT_MALFORMED, "the helper's list is malformed");
    return FALSE;
  }
  json_object_set_member (run->object, "vms", hf_helper_printable (list));
  vms = hf_helper_get_objects (answer.result, "vms");
  for (GList *l = vms; l; l = l->next)
    print_vm (l->data, run->text);
  if (!vms)
    g_string_append (run->text, "no VM is connected\n");
  return TRUE;
}

/* ---- watching ---- */

/* What run has collected goes out now: who watches waits for each line. */
static gboolean
flush_run (HfRun *run, GError **error)
{
  g_autofree char *line = run->options.json ? hf_json_line (run->object) : g_strdup (run->text->str);

  g_string_truncate (run->text, 0);
  if (fputs (line, stdout) >= 0 && fflush (stdout) == 0)
    return TRUE;
  g_set_error (error, HF_HELPER_ERROR, HF_EXIT_FILE, "standard output cannot be written");
  return FALSE;
}

static void
show_event (HfRun *run, JsonObject *event)
{
  JsonNode *node = json_node_new (JSON_NODE_OBJECT);
  g_autofree char *vm = hf_printable (hf_helper_get_string (event, "vm"));
  g_autofree char *lu = hf_printable (hf_helper_get_string (event, "lu"));
  g_autofree char *operation = hf_printable (hf_helper_get_string (event, "operation"));
  g_autofree char *result = hf_printable (hf_helper_get_string (event, "result"));

  json_node_set_object (node, event);
  json_object_set_member (run->object, "event", hf_helper_printable (node));
  json_node_unref (node);
  g_string_append_printf (run->text, "%s%s: %s%s%s: %s\n", hf_helper_get_boolean (event, "warning") ? "warning: " : "", vm ?: "?",
                          lu ?: "", lu ? ": " : "", operation ?: "?", result ?: "?");
}

/* Ends with the helper, which is an error, or by a signal. */
static gboolean
watch_events (HfRun *run, HfHelper *helper, GError **error)
{
  gboolean ok = flush_run (run, error);

  json_object_remove_member (run->object, "vms");
  while (ok) {
    g_autoptr (JsonObject) event = hf_helper_next_event (helper, error);

    if (!event)
      break;
    show_event (run, event);
    ok = flush_run (run, error);
  }
  json_object_remove_member (run->object, "event");
  return FALSE;
}

gboolean
hf_helper_status (HfRun *run, const char *path, gboolean watch, GError **error)
{
  g_autoptr (HfHelper) helper = NULL;
  g_auto (HfHelperAnswer) answer = { 0 };

  if (watch && run->in_batch)
    return hf_usage_error (error, "--watch does not end, and so is nothing for a batch");
  helper = hf_helper_open (run, path, error);
  if (!helper)
    return FALSE;
  if (watch && (!hf_helper_call (helper, "watch", NULL, &answer, error) || !hf_helper_answer_check (&answer, error)))
    return FALSE;
  if (!show_list (run, helper, error))
    return FALSE;
  return !watch || watch_events (run, helper, error);
}
