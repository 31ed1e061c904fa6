/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * holdfast doctor --qmp SOCKET: checks a running VM for what would go wrong in a migration. Owns: this verb. Thread: main.
 *
 * Theory of operation: asks the monitor, reads QEMU's command line, and greets the helper's socket as QEMU would; then the rules
 * judge, in one go. Nothing is changed. One question waits for the other: the main context runs until the answer is there or the
 * deadline has passed. A question that QEMU refuses is a fact that is missing, a monitor that is lost is an error.
 */
#include "config.h"

#include "cli/cli.h"
#include "cli/doctor-nodes.h"
#include "cli/doctor-rules.h"

#include "base/deadline.h"
#include "vmstate/qmp.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* For each question; the monitor belongs to a VM that may be busy. */
#define QUESTION_MS 10000
#define GREETING_MS 2000
/* Of a command line, in bytes, and of devices: QEMU has far fewer. */
#define COMMAND_LINE_MAX (1u << 20)
#define DISKS_MAX 1024

typedef struct {
  HfQmp *qmp;
  guint timeout_ms;
  pid_t pid;
  gboolean connected, lost;
  char *why;
  JsonNode *result;
  GError *error;
  gboolean answered;
} Monitor;

/* ---- the monitor ---- */

static void
on_connected (HfQmp *qmp, pid_t pid, gpointer user_data)
{
  Monitor *monitor = user_data;

  monitor->connected = TRUE;
  monitor->pid = pid;
}

static void
on_lost (HfQmp *qmp, const char *why, gpointer user_data)
{
  Monitor *monitor = user_data;

  monitor->lost = TRUE;
  monitor->why = g_strdup (why);
}

static gboolean
on_deadline (gpointer user_data)
{
  *(gboolean *)user_data = TRUE;
  return G_SOURCE_CONTINUE;
}

static gboolean
monitor_connect (Monitor *monitor, const char *path, GError **error)
{
  static const HfQmpHandlers handlers = { .connected = on_connected, .lost = on_lost };
  gboolean late = FALSE;
  guint source = g_timeout_add (monitor->timeout_ms, on_deadline, &late);

  monitor->qmp = hf_qmp_new (path, FALSE, &handlers, monitor);
  while (!monitor->connected && !monitor->lost && !late)
    g_main_context_iteration (NULL, TRUE);
  g_source_remove (source);
  if (monitor->connected)
    return TRUE;
  if (monitor->lost)
    g_set_error (error, HF_QMP_ERROR, HF_QMP_ERROR_LOST, "%s: %s", path, monitor->why);
  else
    g_set_error (error, HF_QMP_ERROR, HF_QMP_ERROR_TIMEOUT, "%s: no greeting in %u ms: it is stuck, or has another client", path,
                 monitor->timeout_ms);
  return FALSE;
}

static void
monitor_clear (Monitor *monitor)
{
  hf_qmp_free (monitor->qmp);
  g_free (monitor->why);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (Monitor, monitor_clear)

static void
on_answer (JsonNode *result, const GError *error, gpointer user_data)
{
  Monitor *monitor = user_data;

  monitor->answered = TRUE;
  monitor->result = result ? json_node_copy (result) : NULL;
  monitor->error = error ? g_error_copy (error) : NULL;
}

/* TRUE: ret_result is the answer, or NULL if QEMU refuses the question. arguments: taken over. */
static gboolean
ask (Monitor *monitor, const char *command, JsonObject *arguments, JsonNode **ret_result, GError **error)
{
  monitor->answered = FALSE;
  hf_qmp_execute (monitor->qmp, command, arguments, monitor->timeout_ms, on_answer, monitor);
  while (!monitor->answered)
    g_main_context_iteration (NULL, TRUE);
  *ret_result = g_steal_pointer (&monitor->result);
  if (g_error_matches (monitor->error, HF_QMP_ERROR, HF_QMP_ERROR_ANSWER))
    g_clear_error (&monitor->error);
  if (!monitor->error)
    return TRUE;
  g_propagate_prefixed_error (error, g_steal_pointer (&monitor->error), "%s: ", command);
  return FALSE;
}

/* Sets the members of object that path has. */
static gboolean
ask_properties (Monitor *monitor, const char *path, const char *const *names, JsonObject *object, GError **error)
{
  for (; *names; names++) {
    JsonObject *arguments = json_object_new ();
    JsonNode *value = NULL;

    json_object_set_string_member (arguments, "path", path);
    json_object_set_string_member (arguments, "property", *names);
    if (!ask (monitor, "qom-get", arguments, &value, error))
      return FALSE;
    if (value)
      json_object_set_member (object, *names, value);
  }
  return TRUE;
}

/* ---- facts ---- */

static gboolean
ask_commands (Monitor *monitor, JsonObject *facts, GError **error)
{
  static const char *const commands[] = { "query-version", "query-pr-managers", "query-block", "query-migrate-capabilities",
                                          "query-name" };

  for (guint i = 0; i < G_N_ELEMENTS (commands); i++) {
    JsonNode *result = NULL;

    if (!ask (monitor, commands[i], NULL, &result, error))
      return FALSE;
    if (result)
      json_object_set_member (facts, commands[i], result);
  }
  return TRUE;
}

static const char *
string_member (JsonObject *object, const char *name)
{
  JsonNode *node = json_object_get_member (object, name);

  return node && JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == G_TYPE_STRING ? json_node_get_string (node)
                                                                                                  : NULL;
}

/* Element i of array that is an object, or NULL. */
static JsonObject *
element (JsonArray *array, guint i)
{
  JsonNode *node = json_array_get_element (array, i);

  return JSON_NODE_HOLDS_OBJECT (node) ? json_node_get_object (node) : NULL;
}

static gboolean
ask_objects (Monitor *monitor, JsonObject *facts, GError **error)
{
  static const struct {
    const char *type;
    const char *properties[3];
  } types[] = { { "child<pr-manager-helper>", { "path", NULL } }, { "child<dbus-vmstate>", { "addr", "id-list", NULL } } };
  JsonObject *arguments = json_object_new ();
  g_autoptr (JsonNode) list = NULL;
  JsonArray *array;

  json_object_set_string_member (arguments, "path", "/objects");
  if (!ask (monitor, "qom-list", arguments, &list, error))
    return FALSE;
  if (!list || !JSON_NODE_HOLDS_ARRAY (list))
    return TRUE;
  array = json_node_get_array (list);
  for (guint i = 0; i < json_array_get_length (array); i++) {
    JsonObject *object = element (array, i);
    const char *name = object ? string_member (object, "name") : NULL, *type = object ? string_member (object, "type") : NULL;
    g_autofree char *path = g_strconcat ("/objects/", name, NULL);

    for (guint j = 0; name && type && j < G_N_ELEMENTS (types); j++)
      if (strcmp (type, types[j].type) == 0 && !ask_properties (monitor, path, types[j].properties, object, error))
        return FALSE;
  }
  json_object_set_array_member (facts, "objects", json_array_ref (array));
  return TRUE;
}

/* query-block names a device by its id if it has one, else by its path in QOM. */
static gboolean
ask_device (Monitor *monitor, JsonObject *devices, const char *qdev, GError **error)
{
  static const char *const properties[] = { "type", "rerror", "werror", "share-rw", "migrate-pr", NULL };
  g_autofree char *path = *qdev == '/' ? g_strdup (qdev) : g_strconcat ("/machine/peripheral/", qdev, NULL);
  JsonObject *device = json_object_new ();

  json_object_set_object_member (devices, qdev, device);
  return ask_properties (monitor, path, properties, device, error);
}

static gboolean
ask_devices (Monitor *monitor, JsonObject *facts, GError **error)
{
  JsonNode *blocks = json_object_get_member (facts, "query-block");
  JsonArray *array = blocks && JSON_NODE_HOLDS_ARRAY (blocks) ? json_node_get_array (blocks) : NULL;
  JsonObject *devices = json_object_new ();

  json_object_set_object_member (facts, "devices", devices);
  for (guint i = 0; array && i < MIN (json_array_get_length (array), DISKS_MAX); i++) {
    JsonObject *block = element (array, i);
    const char *qdev = block ? string_member (block, "qdev") : NULL;

    if (qdev && json_object_has_member (block, "inserted") && !ask_device (monitor, devices, qdev, error))
      return FALSE;
  }
  return TRUE;
}

/* Of a process that is not QEMU, or not to be seen: without nodes. */
static void
read_nodes (pid_t pid, JsonObject *facts)
{
  g_autofree char *path = g_strdup_printf ("/proc/%d/cmdline", (int)pid), *text = NULL;
  g_autoptr (GPtrArray) argv = g_ptr_array_new ();
  gsize length = 0;

  if (pid > 0 && !g_file_get_contents (path, &text, &length, NULL))
    length = 0;
  for (gsize i = 0; text && i < MIN (length, COMMAND_LINE_MAX); i += strlen (text + i) + 1)
    g_ptr_array_add (argv, text + i);
  g_ptr_array_add (argv, NULL);
  json_object_set_object_member (facts, "nodes", hf_doctor_nodes ((const char *const *)argv->pdata));
}

/* ---- the helper ---- */

static gboolean
receive_word (int fd, guint32 *ret_word)
{
  gint64 deadline = hf_deadline_after_ms (GREETING_MS);
  guint8 word[sizeof *ret_word];
  gsize n = 0;

  while (n < sizeof word) {
    struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
    ssize_t got;

    if (poll (&poll_fd, 1, hf_deadline_left_ms (deadline)) <= 0)
      return FALSE;
    got = recv (fd, word + n, sizeof word - n, MSG_DONTWAIT);
    if (got <= 0)
      return FALSE;
    n += (gsize)got;
  }
  memcpy (ret_word, word, sizeof word);
  *ret_word = GUINT32_FROM_BE (*ret_word);
  return TRUE;
}

/* What the helper at path offers, or a HfDoctor value. Takes part in the handshake and goes: no command is sent. */
static gint64
greet_helper (const char *path)
{
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  gint64 features = HF_DOCTOR_NO_ANSWER;
  const guint8 nothing[4] = { 0 };
  guint32 word;
  int fd;

  if (strlen (path) >= sizeof address.sun_path)
    return HF_DOCTOR_NO_ANSWER;
  strcpy (address.sun_path, path);
  fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0)
    return HF_DOCTOR_NO_ANSWER;
  if (connect (fd, (struct sockaddr *)&address, sizeof address) < 0)
    features = errno == EACCES || errno == EPERM ? HF_DOCTOR_DENIED : HF_DOCTOR_NO_ANSWER;
  else if (receive_word (fd, &word) && send (fd, nothing, sizeof nothing, MSG_NOSIGNAL | MSG_DONTWAIT) == sizeof nothing)
    features = word;
  close (fd);
  return features;
}

/* other: where the helper's socket is from here; NULL: where QEMU says. */
static void
greet_helpers (JsonObject *facts, const char *other)
{
  JsonNode *objects = json_object_get_member (facts, "objects");
  JsonArray *array = objects && JSON_NODE_HOLDS_ARRAY (objects) ? json_node_get_array (objects) : NULL;

  for (guint i = 0; array && i < json_array_get_length (array); i++) {
    JsonObject *object = element (array, i);
    const char *path = object ? string_member (object, "path") : NULL;

    if (!path)
      continue;
    if (other)
      json_object_set_string_member (object, "path", other);
    json_object_set_int_member (object, "features", greet_helper (other ? other : path));
  }
}

/* ---- output ---- */

static void
print_check (HfRun *run, const HfDoctorCheck *check)
{
  g_autofree char *found = hf_printable (check->found), *subject = hf_printable (check->subject);

  g_string_append_printf (run->text, "%-8s %s: %s%s%s\n", hf_doctor_verdict_name (check->verdict), check->name,
                          subject ? subject : "", subject ? ": " : "", found);
  if (check->advice)
    g_string_append_printf (run->text, "         why: %s\n         do:  %s\n", check->why, check->advice);
}

static JsonObject *
json_check (const HfDoctorCheck *check)
{
  JsonObject *object = json_object_new ();

  hf_json_set_string (object, "check", check->name);
  hf_json_set_string (object, "verdict", hf_doctor_verdict_name (check->verdict));
  hf_json_set_string (object, "subject", check->subject);
  hf_json_set_string (object, "found", check->found);
  hf_json_set_string (object, "why", check->why);
  hf_json_set_string (object, "advice", check->advice);
  return object;
}

static void
report (HfRun *run, JsonObject *facts, const GPtrArray *checks)
{
  static const int exit_codes[] = { HF_EXIT_OK, HF_EXIT_OK, HF_EXIT_CHANGED, HF_EXIT_REFUSED };
  HfDoctorVerdict worst = hf_doctor_worst (checks);
  JsonArray *array = json_array_new ();
  JsonNode *name = json_object_get_member (facts, "query-name");

  G_STATIC_ASSERT (G_N_ELEMENTS (exit_codes) == HF_DOCTOR_ERROR + 1);
  run->result = exit_codes[worst];
  for (guint i = 0; i < checks->len; i++) {
    print_check (run, checks->pdata[i]);
    json_array_add_object_element (array, json_check (checks->pdata[i]));
  }
  hf_json_set_string (run->object, "node", g_get_host_name ());
  hf_json_set_string (run->object, "vm",
                      name && JSON_NODE_HOLDS_OBJECT (name) ? string_member (json_node_get_object (name), "name") : NULL);
  json_object_set_boolean_member (run->object, "ok", worst <= HF_DOCTOR_UNKNOWN);
  json_object_set_array_member (run->object, "checks", array);
}

static gboolean
examine (HfRun *run, const char *path, const char *helper, const char *vmstate_id, GError **error)
{
  g_auto (Monitor) monitor = { .timeout_ms = run->options.timeout_ms ? run->options.timeout_ms : QUESTION_MS };
  g_autoptr (JsonObject) facts = json_object_new ();
  g_autoptr (GPtrArray) checks = NULL;

  if (!monitor_connect (&monitor, path, error) || !ask_commands (&monitor, facts, error) || !ask_objects (&monitor, facts, error)
      || !ask_devices (&monitor, facts, error))
    return FALSE;
  read_nodes (monitor.pid, facts);
  greet_helpers (facts, helper);
  checks = hf_doctor_judge (facts, vmstate_id);
  report (run, facts, checks);
  return TRUE;
}

gboolean
hf_verb_doctor (HfRun *run, char **argv, GError **error)
{
  g_autofree char *qmp = NULL, *helper = NULL, *vmstate_id = NULL;
  const GOptionEntry entries[] = {
    { "qmp", 0, 0, G_OPTION_ARG_FILENAME, &qmp, "a QMP socket of the VM", "SOCKET" },
    { "pr-socket", 0, 0, G_OPTION_ARG_FILENAME, &helper, "where the helper's socket is, if QEMU sees it elsewhere", "SOCKET" },
    { "vmstate-id", 0, 0, G_OPTION_ARG_STRING, &vmstate_id, "what the helper is called in id-list (default holdfast)", "ID" },
    { NULL },
  };
  const HfOptionSpec spec = { "--qmp SOCKET", "Checks a running VM for what would go wrong in a migration.", NULL, entries,
                              FALSE };
  g_autoptr (GError) failure = NULL;
  g_auto (GStrv) rest = NULL;

  if (!hf_run_parse (run, &spec, argv, &rest, error))
    return FALSE;
  if (rest[0])
    return hf_usage_error (error, "\"%s\" is one word too many", rest[0]);
  if (!qmp)
    return hf_usage_error (error, "--qmp SOCKET is needed");
  if (examine (run, qmp, helper, vmstate_id ? vmstate_id : "holdfast", &failure))
    return TRUE;
  run->result = failure->code == HF_QMP_ERROR_TIMEOUT ? HF_EXIT_TIMEOUT : HF_EXIT_FILE;
  hf_run_fail (run, NULL, "qmp", NULL, failure->message);
  json_object_set_object_member (run->object, "error", hf_json_error ("qmp", NULL, failure->message));
  return TRUE;
}
