/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns: the control socket, its clients, and the calls that are not answered yet. Thread: main.
 *
 * Theory of operation: a client is one source, which reads, answers and ends in its own turn and nowhere else; whoever finishes a
 * call or publishes an event only puts a line into the client's queue and wakes the source up. So nothing can end a client under
 * somebody's feet, and a method may answer inside its function or an hour later.
 *
 * Three clocks: a line that was begun must be complete in STALL_MS, a line in the queue must be taken in STALL_MS, and without
 * either there is none: who watches may be silent for ever. A client with CALLS_MAX calls in flight is not read: what it sends
 * waits in its socket. A call whose client has gone goes on, and its answer is dropped.
 */
#include "config.h"

#include "prhelper/control.h"

#include "base/deadline.h"
#include "base/line-buffer.h"
#include "prhelper/control-line.h"
#include "prhelper/log.h"

#include <errno.h>
#include <glib-unix.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PROTOCOL_VERSION 1
#define CLIENTS_MAX 32
#define CALLS_MAX 8
#define QUEUED_MAX (8u << 20)
#define STALL_MS 30000
#define READ_SIZE 65536
/* Lines answered in one turn, before others have theirs. */
#define LINES_PER_TURN 16
#define PAUSE_MS 100

typedef struct {
  HfControl *control;
  int fd;
  GSource *source;
  gpointer tag;
  HfPeer peer;
  HfLineBuffer in;
  gint64 line_deadline; /* of the line that is begun; -1: none is */
  GQueue out;           /* of OutLine */
  gsize out_bytes, out_done;
  GHashTable *calls; /* in flight, a set */
  gboolean watching, ended;
  const char *fault; /* why it is closed; NULL: it is not */
} ControlClient;

typedef struct {
  GBytes *bytes;
  gint64 deadline;
} OutLine;

typedef struct {
  GSource source;
  ControlClient *client;
} ControlSource;

struct _HfControl {
  HfListener *listener;
  const HfControlMethod *methods;
  gpointer user_data;
  GHashTable *clients; /* a set */
  guint accept_source, pause_source, stall_ms;
};

struct _HfControlCall {
  ControlClient *client; /* NULL: gone */
  JsonNode *id;
};

/* ---- what goes out ---- */

static void
out_line_free (gpointer data)
{
  OutLine *line = data;

  g_bytes_unref (line->bytes);
  g_free (line);
}

/* Its turn comes soon. */
static void
wake (ControlClient *client)
{
  g_source_set_ready_time (client->source, 0);
}

static void
queue_bytes (ControlClient *client, GBytes *bytes)
{
  OutLine *line;

  if (client->fault)
    return;
  if (client->out_bytes + g_bytes_get_size (bytes) > QUEUED_MAX) {
    client->fault = "it does not take its answers";
    wake (client);
    return;
  }
  line = g_new (OutLine, 1);
  line->bytes = g_bytes_ref (bytes);
  line->deadline = hf_deadline_after_ms (client->control->stall_ms);
  g_queue_push_tail (&client->out, line);
  client->out_bytes += g_bytes_get_size (bytes);
  wake (client);
}

/* The object as a line. object is taken over. */
static GBytes *
line_new (JsonObject *object)
{
  g_autoptr (JsonNode) node = json_node_new (JSON_NODE_OBJECT);
  g_autofree char *json = NULL;
  GString *text;

  json_node_take_object (node, object);
  json = json_to_string (node, FALSE);
  text = g_string_new (json);
  /* The only control character that json-glib does not escape. */
  g_string_replace (text, "\x1f", "\\u001f", 0);
  g_string_append_c (text, '\n');
  return g_string_free_to_bytes (text);
}

static void
queue_object (ControlClient *client, JsonObject *object)
{
  g_autoptr (GBytes) bytes = line_new (object);

  queue_bytes (client, bytes);
}

static void
queue_greeting (ControlClient *client)
{
  JsonObject *object = json_object_new (), *holdfast = json_object_new ();

  json_object_set_string_member (holdfast, "version", PACKAGE_VERSION);
  json_object_set_int_member (holdfast, "protocol", PROTOCOL_VERSION);
  json_object_set_object_member (object, "holdfast", holdfast);
  queue_object (client, object);
}

static JsonObject *
error_new (const char *code, const char *message)
{
  /* Messages hold names that others chose. */
  g_autofree char *valid = g_utf8_make_valid (message, -1);
  JsonObject *error = json_object_new ();

  json_object_set_string_member (error, "code", code);
  json_object_set_string_member (error, "message", valid);
  return error;
}

/* ---- calls ---- */

static void
call_free (HfControlCall *call)
{
  if (call->client) {
    g_hash_table_remove (call->client->calls, call);
    /* Its next line may have waited for this. */
    wake (call->client);
  }
  json_node_unref (call->id);
  g_free (call);
}

/* result, error: taken over; NULL: left out. */
static void
answer (HfControlCall *call, JsonNode *result, JsonObject *error)
{
  JsonObject *object = json_object_new ();

  json_object_set_member (object, "id", json_node_copy (call->id));
  if (result)
    json_object_set_member (object, "result", result);
  if (error)
    json_object_set_object_member (object, "error", error);
  if (call->client)
    queue_object (call->client, object);
  else
    json_object_unref (object);
  call_free (call);
}

void
hf_control_return (HfControlCall *call, JsonNode *result)
{
  answer (call, result, NULL);
}

void
hf_control_fail (HfControlCall *call, const char *code, const char *message, JsonNode *result)
{
  answer (call, result, error_new (code, message));
}

void
hf_control_watch (HfControlCall *call)
{
  JsonNode *result = json_node_new (JSON_NODE_OBJECT);
  ControlClient *client = call->client;

  json_node_take_object (result, json_object_new ());
  answer (call, result, NULL);
  if (client)
    client->watching = TRUE;
}

void
hf_control_publish (HfControl *control, const char *name, JsonNode *data)
{
  g_autoptr (GBytes) bytes = NULL;
  JsonObject *object = json_object_new ();
  GHashTableIter iter;
  gpointer client;

  json_object_set_string_member (object, "event", name);
  json_object_set_member (object, "data", data);
  bytes = line_new (object);
  g_hash_table_iter_init (&iter, control->clients);
  while (g_hash_table_iter_next (&iter, &client, NULL))
    if (((ControlClient *)client)->watching)
      queue_bytes (client, bytes);
}

static void
begin_call (ControlClient *client, HfControlRequest *request, const char *problem)
{
  const HfControlMethod *method = client->control->methods;
  HfControlCall *call = g_new0 (HfControlCall, 1);

  call->client = client;
  call->id = g_steal_pointer (&request->id);
  g_hash_table_add (client->calls, call);
  while (!problem && method->name && strcmp (method->name, request->method) != 0)
    method++;
  if (!problem && method->name)
    method->function (call, request->params, client->control->user_data);
  else
    hf_control_fail (call, "bad-request", problem ?: "there is no such method", NULL);
}

/* ---- a client's turn ---- */

static void
receive (ControlClient *client)
{
  guint8 bytes[READ_SIZE];
  /* recv(2) is another system call, which the sandbox has no use for. */
  ssize_t n = read (client->fd, bytes, sizeof bytes);

  if (n > 0)
    hf_line_buffer_feed (&client->in, bytes, (gsize)n);
  else if (n == 0)
    client->ended = TRUE;
  else if (errno != EAGAIN && errno != EINTR)
    client->fault = g_strerror (errno);
}

/* TRUE: there is more to do without anything that comes from outside. */
static gboolean
take_lines (ControlClient *client)
{
  for (guint i = 0; i < LINES_PER_TURN; i++) {
    g_auto (HfControlRequest) request = { 0 };
    g_autoptr (GBytes) line = NULL;
    const char *problem = NULL;
    const char *text;
    gsize length;

    if (client->fault || g_hash_table_size (client->calls) >= CALLS_MAX)
      return FALSE;
    if (!hf_line_buffer_take (&client->in, &line)) {
      client->fault = "a line is too long";
      return FALSE;
    }
    if (!line)
      return FALSE;
    client->line_deadline = -1;
    text = g_bytes_get_data (line, &length);
    hf_control_request_parse (text ?: "", length, &request, &problem);
    begin_call (client, &request, problem);
  }
  return TRUE;
}

static void
send_queued (ControlClient *client)
{
  OutLine *line;

  while ((line = g_queue_peek_head (&client->out)) && !client->fault) {
    gsize length;
    const guint8 *bytes = g_bytes_get_data (line->bytes, &length);
    ssize_t n = send (client->fd, bytes + client->out_done, length - client->out_done, MSG_NOSIGNAL);

    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0 && errno == EAGAIN)
      return;
    if (n < 0) {
      client->fault = g_strerror (errno);
      return;
    }
    client->out_done += (gsize)n;
    if (client->out_done < length)
      continue;
    client->out_done = 0;
    client->out_bytes -= length;
    out_line_free (g_queue_pop_head (&client->out));
  }
}

/* Sets clocks and events for the next turn. FALSE: there is none, the client is to be closed. */
static gboolean
prepare_turn (ControlClient *client, gboolean more)
{
  gboolean reads = !client->ended && g_hash_table_size (client->calls) < CALLS_MAX;
  OutLine *head = g_queue_peek_head (&client->out);
  gint64 now = g_get_monotonic_time (), next = -1;

  if (!reads || !hf_line_buffer_has_rest (&client->in))
    client->line_deadline = -1;
  else if (client->line_deadline < 0)
    client->line_deadline = hf_deadline_after_ms (client->control->stall_ms);
  if (!client->fault && client->line_deadline >= 0 && client->line_deadline <= now)
    client->fault = "it does not end the line that it began";
  if (!client->fault && head && head->deadline <= now)
    client->fault = "it does not take its answers";
  /* Who closed its side gets what it asked for before. */
  if (client->fault || (client->ended && !more && !head && !client->watching && g_hash_table_size (client->calls) == 0))
    return FALSE;
  if (client->line_deadline >= 0)
    next = client->line_deadline;
  if (head)
    next = next < 0 ? head->deadline : MIN (next, head->deadline);
  g_source_set_ready_time (client->source, more ? 0 : next);
  g_source_modify_unix_fd (client->source, client->tag, (GIOCondition)((reads && !more ? G_IO_IN : 0) | (head ? G_IO_OUT : 0)));
  return TRUE;
}

static void
client_free (gpointer data)
{
  ControlClient *client = data;
  GHashTableIter iter;
  gpointer call;

  g_hash_table_iter_init (&iter, client->calls);
  while (g_hash_table_iter_next (&iter, &call, NULL))
    ((HfControlCall *)call)->client = NULL;
  g_hash_table_unref (client->calls);
  g_source_destroy (client->source);
  g_source_unref (client->source);
  close (client->fd);
  hf_line_buffer_clear (&client->in);
  g_queue_clear_full (&client->out, out_line_free);
  g_free (client);
}

static gboolean
on_turn (GSource *source, GSourceFunc callback, gpointer user_data)
{
  ControlClient *client = ((ControlSource *)source)->client;
  GIOCondition events = g_source_query_unix_fd (source, client->tag);
  gboolean more;

  /* Nobody is there any more; a half that was only shut down is seen by reading. */
  if (events & (G_IO_HUP | G_IO_ERR | G_IO_NVAL)) {
    g_hash_table_remove (client->control->clients, client);
    return G_SOURCE_REMOVE;
  }
  if (events & G_IO_IN)
    receive (client);
  more = take_lines (client);
  send_queued (client);
  if (prepare_turn (client, more))
    return G_SOURCE_CONTINUE;
  if (client->fault)
    hf_log_peer (HF_LOG_WARNING, client->peer.pid, "control client %d: closed: %s", (int)client->peer.pid, client->fault);
  g_hash_table_remove (client->control->clients, client);
  return G_SOURCE_REMOVE;
}

static GSourceFuncs source_funcs = { .dispatch = on_turn };

/* ---- who comes ---- */

static void
client_new (HfControl *control, int fd, const HfPeer *peer)
{
  ControlClient *client = g_new0 (ControlClient, 1);

  client->control = control;
  client->fd = fd;
  client->peer = *peer;
  client->line_deadline = -1;
  client->calls = g_hash_table_new (NULL, NULL);
  hf_line_buffer_init (&client->in, HF_CONTROL_LINE_MAX);
  g_queue_init (&client->out);
  client->source = g_source_new (&source_funcs, sizeof (ControlSource));
  ((ControlSource *)client->source)->client = client;
  g_source_set_static_name (client->source, "control client");
  client->tag = g_source_add_unix_fd (client->source, fd, G_IO_IN);
  g_source_attach (client->source, NULL);
  g_hash_table_add (control->clients, client);
  queue_greeting (client);
}

/* Tells why, if the socket takes it. */
static void
refuse (int fd, const HfPeer *peer, const char *why)
{
  JsonObject *object = json_object_new ();
  g_autoptr (GBytes) line = NULL;

  hf_log_peer (HF_LOG_WARNING, peer->pid, "control client %d (uid %u): refused: %s", (int)peer->pid, (guint)peer->uid, why);
  json_object_set_object_member (object, "error", error_new ("refused", why));
  line = line_new (object);
  if (send (fd, g_bytes_get_data (line, NULL), g_bytes_get_size (line), MSG_NOSIGNAL) < 0)
    hf_log_peer (HF_LOG_INFO, peer->pid, "control client %d: %s", (int)peer->pid, g_strerror (errno));
  close (fd);
}

static void
take_client (HfControl *control, int fd)
{
  g_autoptr (GError) error = NULL;
  HfPeer peer;

  if (!hf_peer_from_socket (fd, &peer, &error)) {
    hf_log_peer (HF_LOG_WARNING, 0, "control socket: %s", error->message);
    close (fd);
  } else if (peer.uid != 0 && peer.uid != geteuid ()) {
    refuse (fd, &peer, "only root and the helper's own user may use the control socket");
  } else if (g_hash_table_size (control->clients) >= CLIENTS_MAX) {
    refuse (fd, &peer, "too many clients of the control socket");
  } else {
    client_new (control, fd, &peer);
  }
}

static gboolean on_connection (gint fd, GIOCondition condition, gpointer user_data);

static gboolean
on_pause_end (gpointer user_data)
{
  HfControl *control = user_data;

  control->pause_source = 0;
  control->accept_source = g_unix_fd_add (hf_listener_get_fd (control->listener), G_IO_IN, on_connection, control);
  return G_SOURCE_REMOVE;
}

/* Without descriptors left, poll would report the connection that waits without end. */
static gboolean
pause_accepting (HfControl *control, int reason)
{
  hf_log_peer (HF_LOG_WARNING, 0, "a control client cannot be accepted: %s", g_strerror (reason));
  control->accept_source = 0;
  control->pause_source = g_timeout_add (PAUSE_MS, on_pause_end, control);
  return G_SOURCE_REMOVE;
}

static gboolean
on_connection (gint listening, GIOCondition condition, gpointer user_data)
{
  HfControl *control = user_data;
  int fd = accept4 (listening, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

  if (fd >= 0)
    take_client (control, fd);
  else if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
    return pause_accepting (control, errno);
  return G_SOURCE_CONTINUE;
}

HfControl *
hf_control_new (HfListener *listener, const HfControlMethod *methods, gpointer user_data)
{
  HfControl *control = g_new0 (HfControl, 1);

  control->listener = listener;
  control->methods = methods;
  control->user_data = user_data;
  control->stall_ms = STALL_MS;
  control->clients = g_hash_table_new_full (NULL, NULL, client_free, NULL);
  control->accept_source = g_unix_fd_add (hf_listener_get_fd (listener), G_IO_IN, on_connection, control);
  return control;
}

void
hf_control_free (HfControl *control)
{
  if (!control)
    return;
  g_clear_handle_id (&control->accept_source, g_source_remove);
  g_clear_handle_id (&control->pause_source, g_source_remove);
  g_hash_table_unref (control->clients);
  hf_listener_free (control->listener);
  g_free (control);
}

void
hf_control_set_stall_ms (HfControl *control, guint stall_ms)
{
  control->stall_ms = stall_ms;
}
