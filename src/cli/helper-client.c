/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns: the connection to the helper. Thread: main.
 *
 * Theory of operation: one call at a time, and what comes meanwhile and is no answer is an event, which is kept. The socket does
 * not block; waiting is poll's, with what is left of the deadline. A line is read as JSON only after its size, levels and strings
 * were checked, because json-glib trusts its input; what the members are is asked of each as it is needed.
 */
#include "config.h"

#include "cli/helper-client.h"

#include "base/deadline.h"
#include "base/json-check.h"
#include "base/line-buffer.h"
#include "cli/cli.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* What the helper keeps for a client that does not read. */
#define LINE_MAX_BYTES (8u << 20)
#define DEPTH_MAX 16
#define EVENTS_MAX 1024
#define READ_SIZE 65536
/* sg3_utils' code of a deadline that passed. */
#define EXIT_TIMEOUT 33

G_DEFINE_QUARK (hf - helper - error - quark, hf_helper_error)

struct _HfHelper {
  char *path, *version;
  int fd;
  gint64 deadline;
  gint64 last_id;
  HfLineBuffer in;
  GQueue events; /* of JsonObject */
};

static gboolean fail (GError **error, int code, const char *path, const char *format, ...) G_GNUC_PRINTF (4, 5);

/* FALSE */
static gboolean
fail (GError **error, int code, const char *path, const char *format, ...)
{
  g_autofree char *message = NULL;
  va_list arguments;

  va_start (arguments, format);
  message = g_strdup_vprintf (format, arguments);
  va_end (arguments);
  g_set_error (error, HF_HELPER_ERROR, code, "%s: %s", path, message);
  return FALSE;
}

/* ---- bytes ---- */

/* deadline -1: none. */
static gboolean
wait_for (HfHelper *helper, short events, gint64 deadline, GError **error)
{
  for (;;) {
    struct pollfd fd = { .fd = helper->fd, .events = events };
    int left = deadline < 0 ? -1 : hf_deadline_left_ms (deadline);
    int n = poll (&fd, 1, left);

    if (n > 0)
      return TRUE;
    if (n == 0)
      return fail (error, EXIT_TIMEOUT, helper->path,
                   "no answer in time; what was asked for may still go on: see holdfast status --helper");
    if (errno != EINTR)
      return fail (error, HF_EXIT_OTHER, helper->path, "%s", g_strerror (errno));
  }
}

static gboolean
send_line (HfHelper *helper, const char *line, GError **error)
{
  gsize length = strlen (line);

  for (gsize done = 0; done < length;) {
    ssize_t n = send (helper->fd, line + done, length - done, MSG_NOSIGNAL);

    if (n >= 0)
      done += (gsize)n;
    else if (errno == EAGAIN && !wait_for (helper, POLLOUT, helper->deadline, error))
      return FALSE;
    else if (errno != EAGAIN && errno != EINTR)
      return fail (error, HF_EXIT_FILE, helper->path, "the helper closed the connection: %s", g_strerror (errno));
  }
  return TRUE;
}

/* The next line, NULL with an error. Free with g_bytes_unref. */
static GBytes *
next_line (HfHelper *helper, gint64 deadline, GError **error)
{
  for (;;) {
    guint8 buffer[READ_SIZE];
    GBytes *line = NULL;
    ssize_t n;

    if (!hf_line_buffer_take (&helper->in, &line)) {
      fail (error, HF_EXIT_MALFORMED, helper->path, "a line of the helper is too long");
      return NULL;
    }
    if (line)
      return line;
    if (!wait_for (helper, POLLIN, deadline, error))
      return NULL;
    n = recv (helper->fd, buffer, sizeof buffer, 0);
    if (n > 0) {
      hf_line_buffer_feed (&helper->in, buffer, (gsize)n);
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
      fail (error, HF_EXIT_FILE, helper->path, "the helper closed the connection%s%s", n ? ": " : "",
            n ? g_strerror (errno) : "");
      return NULL;
    }
  }
}

/* The next line as an object. Free with json_object_unref. */
static JsonObject *
next_object (HfHelper *helper, gint64 deadline, GError **error)
{
  g_autoptr (GBytes) line = next_line (helper, deadline, error);
  g_autoptr (JsonParser) parser = NULL;
  JsonNode *root = NULL;
  gsize length = 0;
  const char *text;

  if (!line)
    return NULL;
  text = g_bytes_get_data (line, &length);
  parser = json_parser_new ();
  if (text && hf_json_check (text, length, DEPTH_MAX, NULL) && json_parser_load_from_data (parser, text, (gssize)length, NULL))
    root = json_parser_get_root (parser);
  if (root && JSON_NODE_HOLDS_OBJECT (root))
    return json_node_dup_object (root);
  fail (error, HF_EXIT_MALFORMED, helper->path, "a line of the helper is no JSON object");
  return NULL;
}

/* ---- members ---- */

static JsonNode *
get_value (JsonObject *object, const char *name, GType type)
{
  JsonNode *node = object ? json_object_get_member (object, name) : NULL;

  return node && JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == type ? node : NULL;
}

const char *
hf_helper_get_string (JsonObject *object, const char *name)
{
  JsonNode *node = get_value (object, name, G_TYPE_STRING);

  return node ? json_node_get_string (node) : NULL;
}

gint64
hf_helper_get_int (JsonObject *object, const char *name)
{
  JsonNode *node = get_value (object, name, G_TYPE_INT64);

  return node ? json_node_get_int (node) : 0;
}

gboolean
hf_helper_get_boolean (JsonObject *object, const char *name)
{
  JsonNode *node = get_value (object, name, G_TYPE_BOOLEAN);

  return node && json_node_get_boolean (node);
}

JsonObject *
hf_helper_get_object (JsonObject *object, const char *name)
{
  JsonNode *node = object ? json_object_get_member (object, name) : NULL;

  return node && JSON_NODE_HOLDS_OBJECT (node) ? json_node_get_object (node) : NULL;
}

GList *
hf_helper_get_objects (JsonObject *object, const char *name)
{
  JsonNode *node = object ? json_object_get_member (object, name) : NULL;
  JsonArray *array = node && JSON_NODE_HOLDS_ARRAY (node) ? json_node_get_array (node) : NULL;
  GList *objects = NULL;

  for (guint i = 0; array && i < json_array_get_length (array); i++) {
    JsonNode *element = json_array_get_element (array, i);
    if (JSON_NODE_HOLDS_OBJECT (element))
      objects = g_list_prepend (objects, json_node_get_object (element));
  }
  return g_list_reverse (objects);
}

guint64
hf_helper_get_hex (JsonObject *object, const char *name)
{
  const char *text = hf_helper_get_string (object, name);
  guint64 value = 0;

  return text && hf_parse_hex (name, text, G_MAXUINT64, &value, NULL) ? value : 0;
}

JsonNode *
hf_helper_printable (JsonNode *node)
{
  JsonNode *copy = json_node_new (json_node_get_node_type (node));

  if (JSON_NODE_HOLDS_OBJECT (node)) {
    JsonObject *from = json_node_get_object (node), *to = json_object_new ();
    g_autoptr (GList) members = json_object_get_members (from);

    for (GList *l = members; l; l = l->next) {
      g_autofree char *name = hf_printable (l->data);
      json_object_set_member (to, name, hf_helper_printable (json_object_get_member (from, l->data)));
    }
    json_node_take_object (copy, to);
  } else if (JSON_NODE_HOLDS_ARRAY (node)) {
    JsonArray *from = json_node_get_array (node), *to = json_array_new ();

    for (guint i = 0; i < json_array_get_length (from); i++)
      json_array_add_element (to, hf_helper_printable (json_array_get_element (from, i)));
    json_node_take_array (copy, to);
  } else if (JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == G_TYPE_STRING) {
    g_autofree char *text = hf_printable (json_node_get_string (node));
    json_node_set_string (copy, text);
  } else {
    json_node_unref (copy);
    copy = json_node_copy (node);
  }
  return copy;
}

/* ---- the connection ---- */

static gboolean
connect_socket (HfHelper *helper, GError **error)
{
  struct sockaddr_un address = { .sun_family = AF_UNIX };

  if (strlen (helper->path) >= sizeof address.sun_path)
    return fail (error, HF_EXIT_USAGE, helper->path, "the path of a socket has at most %u bytes",
                 (guint)sizeof address.sun_path - 1);
  strcpy (address.sun_path, helper->path);
  helper->fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (helper->fd < 0)
    return fail (error, HF_EXIT_OTHER, helper->path, "no socket: %s", g_strerror (errno));
  if (connect (helper->fd, (struct sockaddr *)&address, sizeof address) == 0)
    return TRUE;
  if (errno == ENOENT || errno == ECONNREFUSED)
    return fail (error, HF_EXIT_FILE, helper->path,
                 "no holdfast-pr-helper listens there (its option --control names the socket)");
  if (errno == EACCES || errno == EPERM)
    return fail (error, HF_EXIT_FILE, helper->path, "only root and the helper's own user may use its control socket");
  return fail (error, HF_EXIT_FILE, helper->path, "cannot be connected to: %s", g_strerror (errno));
}

static gboolean
check_greeting (HfHelper *helper, GError **error)
{
  g_autoptr (JsonObject) greeting = next_object (helper, helper->deadline, error);
  JsonObject *holdfast, *refusal;
  gint64 protocol;

  if (!greeting)
    return FALSE;
  refusal = hf_helper_get_object (greeting, "error");
  if (refusal)
    return fail (error, HF_EXIT_FILE, helper->path, "%s", hf_helper_get_string (refusal, "message") ?: "refused");
  holdfast = hf_helper_get_object (greeting, "holdfast");
  protocol = hf_helper_get_int (holdfast, "protocol");
  if (!holdfast || protocol < 1)
    return fail (error, HF_EXIT_MALFORMED, helper->path, "who listens there is no holdfast-pr-helper");
  helper->version = g_strdup (hf_helper_get_string (holdfast, "version") ?: "?");
  if (protocol != HF_HELPER_PROTOCOL)
    return fail (error, HF_EXIT_OTHER, helper->path,
                 "the helper (version %s) is %s than this program: it speaks protocol %" G_GINT64_FORMAT ", not %d",
                 helper->version, protocol > HF_HELPER_PROTOCOL ? "newer" : "older", protocol, HF_HELPER_PROTOCOL);
  return TRUE;
}

HfHelper *
hf_helper_connect (const char *path, gint64 deadline, GError **error)
{
  g_autoptr (HfHelper) helper = g_new0 (HfHelper, 1);

  helper->path = g_strdup (path);
  helper->fd = -1;
  helper->deadline = deadline;
  hf_line_buffer_init (&helper->in, LINE_MAX_BYTES);
  g_queue_init (&helper->events);
  if (!connect_socket (helper, error) || !check_greeting (helper, error))
    return NULL;
  return g_steal_pointer (&helper);
}

void
hf_helper_free (HfHelper *helper)
{
  if (!helper)
    return;
  if (helper->fd >= 0)
    close (helper->fd);
  hf_line_buffer_clear (&helper->in);
  g_queue_clear_full (&helper->events, (GDestroyNotify)json_object_unref);
  g_free (helper->version);
  g_free (helper->path);
  g_free (helper);
}

const char *
hf_helper_get_version (HfHelper *helper)
{
  return helper->version;
}

/* ---- calls ---- */

void
hf_helper_answer_clear (HfHelperAnswer *answer)
{
  g_clear_pointer (&answer->result, json_object_unref);
  g_clear_pointer (&answer->code, g_free);
  g_clear_pointer (&answer->message, g_free);
}

static const struct {
  const char *code;
  int exit_code;
} codes[] = {
  { "bad-request", HF_EXIT_USAGE }, { "not-found", HF_EXIT_FILE }, { "ambiguous", HF_EXIT_USAGE },
  { "refused", HF_EXIT_REFUSED },   { "record", HF_EXIT_RECORD },  { "lu-not-found", HF_EXIT_RECORD },
  { "committed", HF_EXIT_OTHER },
};

gboolean
hf_helper_answer_check (const HfHelperAnswer *answer, GError **error)
{
  int exit_code = HF_EXIT_OTHER;

  if (!answer->code)
    return TRUE;
  for (guint i = 0; i < G_N_ELEMENTS (codes); i++)
    if (strcmp (answer->code, codes[i].code) == 0)
      exit_code = codes[i].exit_code;
  g_set_error (error, HF_HELPER_ERROR, exit_code, "the helper says: %s", answer->message);
  return FALSE;
}

/* TRUE: object is the answer with this id, and ret has it. */
static gboolean
read_answer (HfHelper *helper, JsonObject *object, HfHelperAnswer *ret, GError **error)
{
  JsonObject *result = hf_helper_get_object (object, "result"), *failure = hf_helper_get_object (object, "error");

  if (!get_value (object, "id", G_TYPE_INT64) || hf_helper_get_int (object, "id") != helper->last_id || (!result && !failure)
      || (failure && !hf_helper_get_string (failure, "code")))
    return fail (error, HF_EXIT_MALFORMED, helper->path, "the helper's answer is malformed");
  ret->result = result ? json_object_ref (result) : NULL;
  if (failure) {
    ret->code = g_strdup (hf_helper_get_string (failure, "code"));
    ret->message = g_strdup (hf_helper_get_string (failure, "message") ?: ret->code);
  }
  return TRUE;
}

/* FALSE: too many of them. Takes object over. */
static gboolean
keep_event (HfHelper *helper, JsonObject *object, GError **error)
{
  JsonObject *data = hf_helper_get_object (object, "data");

  if (data && g_queue_get_length (&helper->events) < EVENTS_MAX)
    g_queue_push_tail (&helper->events, json_object_ref (data));
  json_object_unref (object);
  if (!data)
    return fail (error, HF_EXIT_MALFORMED, helper->path, "an event of the helper is malformed");
  return g_queue_get_length (&helper->events) < EVENTS_MAX
         || fail (error, HF_EXIT_MALFORMED, helper->path, "the helper sends events and no answer");
}

static char *
request_line (HfHelper *helper, const char *method, JsonObject *params)
{
  JsonObject *object = json_object_new ();
  char *line;

  json_object_set_int_member (object, "id", ++helper->last_id);
  json_object_set_string_member (object, "method", method);
  if (params)
    json_object_set_object_member (object, "params", params);
  line = hf_json_line (object);
  json_object_unref (object);
  return line;
}

gboolean
hf_helper_call (HfHelper *helper, const char *method, JsonObject *params, HfHelperAnswer *ret, GError **error)
{
  g_autofree char *line = request_line (helper, method, params);

  memset (ret, 0, sizeof *ret);
  if (!send_line (helper, line, error))
    return FALSE;
  for (;;) {
    JsonObject *object = next_object (helper, helper->deadline, error);
    gboolean ok;

    if (!object)
      return FALSE;
    if (json_object_has_member (object, "event")) {
      if (!keep_event (helper, object, error))
        return FALSE;
      continue;
    }
    ok = read_answer (helper, object, ret, error);
    json_object_unref (object);
    return ok;
  }
}

JsonObject *
hf_helper_next_event (HfHelper *helper, GError **error)
{
  JsonObject *object;

  if (g_queue_is_empty (&helper->events)) {
    object = next_object (helper, -1, error);
    /* Anything else than an event is malformed: nothing was asked. */
    if (!object || !keep_event (helper, object, error))
      return NULL;
  }
  return g_queue_pop_head (&helper->events);
}
