/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns: one connection to a monitor, and the commands that wait for its answers. Thread: main.
 *
 * Theory of operation: a plain non-blocking socket and sources of the default main context; no threads, so that a sandbox has to
 * allow no more than socket, connect, getsockopt, send, recv and close. A connection begins with QEMU's greeting and the answer
 * to qmp_capabilities, both before a deadline; only then is it "connected". A monitor serves one client at a time: a second one
 * can connect, but is never greeted, which the deadline finds as well.
 *
 * Every command has an id, and QEMU gives it back with the answer (qmp-spec, 2.4): so a late answer to a command that was given
 * up cannot be taken for another's. Callbacks come from the main loop only, never from inside hf_qmp_new or hf_qmp_execute, and
 * each of them may free the object: it is counted, and what runs holds a count.
 */
#include "config.h"

#include "vmstate/qmp.h"

#include "base/json-check.h"

#include <errno.h>
#include <glib-unix.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define HANDSHAKE_MS 10000
#define RETRY_MIN_MS 50
#define RETRY_MAX_MS 1000
/* A connection that lasted so long was a good one: the next attempt comes soon again. */
#define GOOD_US (1 * G_USEC_PER_SEC)
#define READ_SIZE (16u << 10)
/* Of what QEMU has not read yet. */
#define OUT_MAX (1u << 20)
/* Levels, and values, of one line: more than QEMU's longest answer (query-qmp-schema) has. A value that is parsed takes much more
   room than its text. */
#define DEPTH_MAX 64
#define VALUES_MAX (1u << 18)
/* Of QEMU's words in a message. */
#define WORDS_MAX 500

G_DEFINE_QUARK (hf - qmp - error - quark, hf_qmp_error)

struct _HfQmp {
  char *path;
  gboolean retry;
  HfQmpHandlers handlers;
  gpointer user_data;
  int fd; /* -1: none */
  guint in_source, out_source, timer;
  GByteArray *in, *out;
  gsize searched; /* bytes of in that are known to hold no newline */
  gboolean greeted, connected, told, freed;
  pid_t pid;
  guint delay_ms;
  gint64 connected_at;
  gint64 last_id;
  GQueue waiting; /* Command, oldest first */
};

typedef struct {
  HfQmp *qmp;
  gint64 id;
  HfQmpDone done;
  gpointer user_data;
  guint timeout_ms;
  guint source;
} Command;

static void attempt (HfQmp *qmp);
static void clear (gpointer data);

/* ---- commands that wait ---- */

static void
finish (HfQmp *qmp, Command *command, JsonNode *result, const GError *error)
{
  g_queue_remove (&qmp->waiting, command);
  if (command->source)
    g_source_remove (command->source);
  if (command->done)
    command->done (result, error, command->user_data);
  g_free (command);
}

static void
finish_with (HfQmp *qmp, Command *command, HfQmpError code, const char *message)
{
  g_autoptr (GError) error = g_error_new (HF_QMP_ERROR, code, "QEMU's monitor %s: %s", qmp->path, message);

  finish (qmp, command, NULL, error);
}

static gboolean
on_command_timeout (gpointer user_data)
{
  Command *command = user_data;
  HfQmp *qmp = g_rc_box_acquire (command->qmp);
  g_autofree char *message = g_strdup_printf ("no answer in %u ms", command->timeout_ms);

  command->source = 0;
  finish_with (qmp, command, HF_QMP_ERROR_TIMEOUT, message);
  g_rc_box_release_full (qmp, clear);
  return G_SOURCE_REMOVE;
}

static gboolean
on_not_connected (gpointer user_data)
{
  Command *command = user_data;
  HfQmp *qmp = g_rc_box_acquire (command->qmp);

  command->source = 0;
  finish_with (qmp, command, HF_QMP_ERROR_LOST, "not connected");
  g_rc_box_release_full (qmp, clear);
  return G_SOURCE_REMOVE;
}

/* Those that wait now: a callback may add others. */
static void
finish_all (HfQmp *qmp, const char *why)
{
  gint64 last = qmp->last_id;

  for (;;) {
    Command *command = g_queue_peek_head (&qmp->waiting);

    if (!command || command->id > last)
      break;
    finish_with (qmp, command, HF_QMP_ERROR_LOST, why);
  }
}

static Command *
find_command (HfQmp *qmp, gint64 id)
{
  for (GList *link = qmp->waiting.head; link; link = link->next)
    if (((Command *)link->data)->id == id)
      return link->data;
  return NULL;
}

/* ---- the connection ends ---- */

static void
remove_source (guint *source)
{
  if (*source)
    g_source_remove (*source);
  *source = 0;
}

static void
disconnect (HfQmp *qmp)
{
  remove_source (&qmp->in_source);
  remove_source (&qmp->out_source);
  remove_source (&qmp->timer);
  if (qmp->fd >= 0)
    close (qmp->fd);
  qmp->fd = -1;
  g_byte_array_set_size (qmp->in, 0);
  g_byte_array_set_size (qmp->out, 0);
  qmp->searched = 0;
  qmp->greeted = qmp->connected = FALSE;
  qmp->pid = 0;
}

static gboolean
on_retry (gpointer user_data)
{
  HfQmp *qmp = g_rc_box_acquire (user_data);

  qmp->timer = 0;
  attempt (qmp);
  g_rc_box_release_full (qmp, clear);
  return G_SOURCE_REMOVE;
}

/* The caller holds a count. */
static void
lose (HfQmp *qmp, const char *why)
{
  gboolean was_good = qmp->connected && g_get_monotonic_time () - qmp->connected_at >= GOOD_US;

  disconnect (qmp);
  if (was_good)
    qmp->delay_ms = RETRY_MIN_MS;
  finish_all (qmp, why);
  if (!qmp->freed && !qmp->told) {
    qmp->told = TRUE;
    if (qmp->handlers.lost)
      qmp->handlers.lost (qmp, why, qmp->user_data);
  }
  if (qmp->freed || !qmp->retry)
    return;
  qmp->timer = g_timeout_add (qmp->delay_ms, on_retry, qmp);
  qmp->delay_ms = MIN (qmp->delay_ms * 2, RETRY_MAX_MS);
}

static gboolean
on_handshake_timeout (gpointer user_data)
{
  HfQmp *qmp = g_rc_box_acquire (user_data);

  qmp->timer = 0;
  lose (qmp, qmp->greeted ? "no answer to qmp_capabilities" : "no greeting: it is stuck, or has another client");
  g_rc_box_release_full (qmp, clear);
  return G_SOURCE_REMOVE;
}

/* ---- what we send ---- */

static gboolean on_writable (gint fd, GIOCondition condition, gpointer user_data);

/* FALSE: the connection is broken; who reads finds out why. */
static gboolean
flush (HfQmp *qmp)
{
  while (qmp->out->len > 0) {
    ssize_t n = send (qmp->fd, qmp->out->data, qmp->out->len, MSG_NOSIGNAL | MSG_DONTWAIT);

    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0 && errno == EAGAIN)
      break;
    if (n < 0)
      return FALSE;
    g_byte_array_remove_range (qmp->out, 0, (guint)n);
  }
  if (qmp->out->len > 0 && !qmp->out_source)
    qmp->out_source = g_unix_fd_add (qmp->fd, G_IO_OUT, on_writable, qmp);
  return TRUE;
}

static gboolean
on_writable (gint fd, GIOCondition condition, gpointer user_data)
{
  HfQmp *qmp = user_data;

  qmp->out_source = 0;
  flush (qmp);
  return G_SOURCE_REMOVE;
}

static char *
command_line (const char *name, JsonObject *arguments, gint64 id)
{
  g_autoptr (JsonNode) node = json_node_new (JSON_NODE_OBJECT);
  g_autofree char *text = NULL;
  JsonObject *object = json_object_new ();

  json_object_set_string_member (object, "execute", name);
  if (arguments)
    json_object_set_object_member (object, "arguments", json_object_ref (arguments));
  json_object_set_int_member (object, "id", id);
  json_node_take_object (node, object);
  text = json_to_string (node, FALSE);
  return g_strconcat (text, "\n", NULL);
}

static void
send_command (HfQmp *qmp, const char *name, JsonObject *arguments, guint timeout_ms, HfQmpDone done, gpointer user_data)
{
  Command *command = g_new0 (Command, 1);
  g_autofree char *line = NULL;

  *command = (Command){ .qmp = qmp, .id = ++qmp->last_id, .done = done, .user_data = user_data, .timeout_ms = timeout_ms };
  line = command_line (name, arguments, command->id);
  g_queue_push_tail (&qmp->waiting, command);
  if (qmp->fd < 0 || qmp->out->len + strlen (line) > OUT_MAX) {
    command->source = g_idle_add (on_not_connected, command);
    return;
  }
  command->source = g_timeout_add (timeout_ms, on_command_timeout, command);
  g_byte_array_append (qmp->out, (const guint8 *)line, (guint)strlen (line));
  flush (qmp);
}

void
hf_qmp_execute (HfQmp *qmp, const char *command, JsonObject *arguments, guint timeout_ms, HfQmpDone done, gpointer user_data)
{
  if (qmp->connected) {
    send_command (qmp, command, arguments, timeout_ms, done, user_data);
  } else {
    Command *waiting = g_new0 (Command, 1);

    *waiting = (Command){ .qmp = qmp, .id = ++qmp->last_id, .done = done, .user_data = user_data };
    g_queue_push_tail (&qmp->waiting, waiting);
    if (!qmp->freed)
      waiting->source = g_idle_add (on_not_connected, waiting);
    else
      finish_with (qmp, waiting, HF_QMP_ERROR_LOST, "not connected");
  }
  g_clear_pointer (&arguments, json_object_unref);
}

/* ---- what QEMU sends ---- */

static void
on_negotiated (JsonNode *result, const GError *error, gpointer user_data)
{
  HfQmp *qmp = user_data;

  /* Lost and timed out: whoever brings that ends the connection as well. */
  if (!result && error->code != HF_QMP_ERROR_ANSWER)
    return;
  if (!result) {
    lose (qmp, error->message);
    return;
  }
  remove_source (&qmp->timer);
  qmp->connected = TRUE;
  qmp->told = FALSE;
  qmp->connected_at = g_get_monotonic_time ();
  if (qmp->handlers.connected)
    qmp->handlers.connected (qmp, qmp->pid, qmp->user_data);
}

/* NULL: there is none, or it is something else. */
static const char *
get_string (JsonObject *object, const char *name)
{
  JsonNode *node = json_object_get_member (object, name);

  return node && JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == G_TYPE_STRING ? json_node_get_string (node)
                                                                                                  : NULL;
}

static JsonObject *
get_object (JsonObject *object, const char *name)
{
  JsonNode *node = json_object_get_member (object, name);

  return node && JSON_NODE_HOLDS_OBJECT (node) ? json_node_get_object (node) : NULL;
}

static void
finish_with_answer (HfQmp *qmp, Command *command, JsonObject *answer)
{
  JsonObject *failure = get_object (answer, "error");
  const char *class = failure ? get_string (failure, "class") : NULL, *desc = failure ? get_string (failure, "desc") : NULL;
  g_autofree char *words = NULL, *valid = NULL;

  if (!failure && json_object_has_member (answer, "return")) {
    finish (qmp, command, json_object_get_member (answer, "return"), NULL);
    return;
  }
  words = g_strdup_printf ("%.64s: %.*s", class ? class : "error", WORDS_MAX, desc ? desc : "no reason given");
  valid = g_utf8_make_valid (words, -1);
  finish_with (qmp, command, HF_QMP_ERROR_ANSWER, valid);
}

static gboolean
take_answer (HfQmp *qmp, JsonObject *answer)
{
  JsonNode *id = json_object_get_member (answer, "id");
  Command *command;

  /* Ours always has one, so this answers nothing that we said: QEMU did not understand it, or it is not QEMU. */
  if (!id || !JSON_NODE_HOLDS_VALUE (id) || json_node_get_value_type (id) != G_TYPE_INT64)
    return FALSE;
  command = find_command (qmp, json_node_get_int (id));
  if (command)
    finish_with_answer (qmp, command, answer);
  return TRUE;
}

/* Returns what is wrong with message, or NULL. */
static const char *
take_message (HfQmp *qmp, JsonObject *message)
{
  const char *event = get_string (message, "event");

  if (!qmp->greeted) {
    if (!get_object (message, "QMP"))
      return "no greeting of QMP";
    qmp->greeted = TRUE;
    /* Not its own deadline: the one of the handshake, which comes first. */
    send_command (qmp, "qmp_capabilities", NULL, 2 * HANDSHAKE_MS, on_negotiated, qmp);
    return NULL;
  }
  if (json_object_has_member (message, "return") || json_object_has_member (message, "error"))
    return take_answer (qmp, message) ? NULL : "an answer without the id of a command";
  /* Others are of a newer QEMU; the specification has clients ignore what they do not know. */
  if (event && qmp->connected && qmp->handlers.event)
    qmp->handlers.event (qmp, event, get_object (message, "data"), qmp->user_data);
  return NULL;
}

static gboolean
is_safe (const char *line, gsize length)
{
  guint n = 0;

  for (gsize i = 0; i < length; i++)
    n += strchr (",[{", line[i]) != NULL;
  return n <= VALUES_MAX && hf_json_check (line, length, DEPTH_MAX, NULL);
}

static const char *
take_line (HfQmp *qmp, const char *line, gsize length)
{
  g_autoptr (JsonParser) parser = json_parser_new ();
  JsonNode *root;

  if (!is_safe (line, length) || !json_parser_load_from_data (parser, line, (gssize)length, NULL))
    return "what it sends is no JSON";
  root = json_parser_get_root (parser);
  if (!root || !JSON_NODE_HOLDS_OBJECT (root))
    return "what it sends is no JSON object";
  return take_message (qmp, json_node_get_object (root));
}

/* Takes one line out of what came; NULL: there is none yet. */
static char *
next_line (HfQmp *qmp, gsize *ret_length)
{
  guint8 *start = qmp->in->data, *end;
  char *line;

  if (qmp->in->len == qmp->searched)
    return NULL;
  end = memchr (start + qmp->searched, '\n', qmp->in->len - qmp->searched);
  qmp->searched = end ? 0 : qmp->in->len;
  if (!end)
    return NULL;
  *ret_length = (gsize)(end - start);
  line = g_strndup ((const char *)start, *ret_length);
  g_byte_array_remove_range (qmp->in, 0, (guint)*ret_length + 1);
  return line;
}

/* The caller holds a count. */
static void
take_lines (HfQmp *qmp)
{
  while (qmp->fd >= 0) {
    gsize length = 0;
    g_autofree char *line = next_line (qmp, &length);
    const char *wrong;

    if (!line)
      break;
    wrong = length > HF_QMP_LINE_MAX ? "a line that is too long" : take_line (qmp, line, length);
    if (wrong && qmp->fd >= 0)
      lose (qmp, wrong);
  }
  if (qmp->in->len > HF_QMP_LINE_MAX)
    lose (qmp, "a line that is too long");
}

static gboolean
on_readable (gint fd, GIOCondition condition, gpointer user_data)
{
  HfQmp *qmp = g_rc_box_acquire (user_data);
  guint8 bytes[READ_SIZE];
  ssize_t n = recv (fd, bytes, sizeof bytes, MSG_DONTWAIT);

  if (n > 0) {
    g_byte_array_append (qmp->in, bytes, (guint)n);
    take_lines (qmp);
  } else if (n == 0) {
    lose (qmp, "closed");
  } else if (errno != EAGAIN && errno != EINTR) {
    lose (qmp, g_strerror (errno));
  }
  g_rc_box_release_full (qmp, clear);
  return G_SOURCE_CONTINUE;
}

/* ---- the connection begins ---- */

/* A descriptor that is connected, or -1 with why. */
static int
open_socket (const char *path, const char **ret_why)
{
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  int fd;

  if (strlen (path) >= sizeof address.sun_path) {
    *ret_why = "its path is too long for a Unix socket";
    return -1;
  }
  strcpy (address.sun_path, path);
  fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd >= 0 && connect (fd, (struct sockaddr *)&address, sizeof address) == 0)
    return fd;
  /* unix(7): EAGAIN is a full backlog, there is nothing to wait for with poll. */
  *ret_why = errno == EAGAIN ? "others wait for it" : g_strerror (errno);
  if (fd >= 0)
    close (fd);
  return -1;
}

/* The caller holds a count. */
static void
attempt (HfQmp *qmp)
{
  const char *why = NULL;
  int fd = open_socket (qmp->path, &why);
  struct ucred peer = { 0 };
  socklen_t length = sizeof peer;

  if (fd < 0) {
    lose (qmp, why);
    return;
  }
  qmp->fd = fd;
  if (getsockopt (fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 && peer.pid > 0)
    qmp->pid = peer.pid;
  qmp->in_source = g_unix_fd_add (fd, G_IO_IN | G_IO_HUP | G_IO_ERR, on_readable, qmp);
  qmp->timer = g_timeout_add (HANDSHAKE_MS, on_handshake_timeout, qmp);
}

HfQmp *
hf_qmp_new (const char *path, gboolean retry, const HfQmpHandlers *handlers, gpointer user_data)
{
  HfQmp *qmp = g_rc_box_new0 (HfQmp);

  qmp->path = g_strdup (g_str_has_prefix (path, "unix:") ? path + strlen ("unix:") : path);
  qmp->retry = retry;
  qmp->handlers = *handlers;
  qmp->user_data = user_data;
  qmp->fd = -1;
  qmp->in = g_byte_array_new ();
  qmp->out = g_byte_array_new ();
  qmp->delay_ms = RETRY_MIN_MS;
  g_queue_init (&qmp->waiting);
  qmp->timer = g_idle_add (on_retry, qmp);
  return qmp;
}

static void
clear (gpointer data)
{
  HfQmp *qmp = data;

  g_byte_array_unref (qmp->in);
  g_byte_array_unref (qmp->out);
  g_free (qmp->path);
}

void
hf_qmp_free (HfQmp *qmp)
{
  if (!qmp)
    return;
  qmp->freed = TRUE;
  disconnect (qmp);
  finish_all (qmp, "given up");
  g_rc_box_release_full (qmp, clear);
}

const char *
hf_qmp_get_path (HfQmp *qmp)
{
  return qmp->path;
}

gboolean
hf_qmp_is_connected (HfQmp *qmp)
{
  return qmp->connected;
}
