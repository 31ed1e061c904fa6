/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The control socket: lines, quotas and peers with methods of the test's own, and the real methods over VMs that are only told
 * of. Sockets are real. One thread: the test waits for a line by running the main context until it is there.
 */
#include "config.h"

#include "../fake/fake-vms.h"
#include "base/deadline.h"
#include "prhelper/control-line.h"
#include "prhelper/log.h"
#include "prhelper/vm-control.h"

#include <errno.h>
#include <fcntl.h>
#include <glib-unix.h>
#include <glib/gstdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define LIMIT_MS 20000
#define CLIENTS_MAX 32
#define NOBODY 65534
#define RECORD_BASE64 "SE9MREZBU1Q="

typedef struct {
  char *folder, *path;
  HfControl *control;
  GPtrArray *held; /* calls of "hold" that wait */
  guint n_begun;
  HfVms *vms;
  HfVmControl vm_control;
} Stage;

/* ---- a client ---- */

typedef struct {
  int fd;
  GString *bytes;
} Client;

static int
connect_to (const char *path)
{
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  int fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

  g_assert_cmpint (fd, >=, 0);
  strcpy (address.sun_path, path);
  g_assert_no_errno (connect (fd, (struct sockaddr *)&address, sizeof address));
  return fd;
}

static void
client_close (Client *client)
{
  if (client->fd >= 0)
    close (client->fd);
  g_string_free (client->bytes, TRUE);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (Client, client_close)

static gboolean
on_event (gint fd, GIOCondition condition, gpointer user_data)
{
  *(gboolean *)user_data = TRUE;
  return G_SOURCE_CONTINUE;
}

static gboolean
on_limit (gpointer user_data)
{
  g_error ("nothing in %d ms", LIMIT_MS);
  return G_SOURCE_REMOVE;
}

/* Runs the main context until fd has something to read. */
static void
wait_readable (int fd)
{
  gboolean ready = FALSE;
  guint event = g_unix_fd_add (fd, G_IO_IN | G_IO_HUP, on_event, &ready);
  guint limit = g_timeout_add (LIMIT_MS, on_limit, NULL);

  while (!ready)
    g_main_context_iteration (NULL, TRUE);
  g_source_remove (event);
  g_source_remove (limit);
}

/* The next line; NULL: closed. Free with g_free. */
static char *
next_line (Client *client)
{
  for (;;) {
    const char *end = strchr (client->bytes->str, '\n');
    char buffer[65536];
    ssize_t n;

    if (end) {
      char *line = g_strndup (client->bytes->str, (gsize)(end - client->bytes->str));
      g_string_erase (client->bytes, 0, end + 1 - client->bytes->str);
      return line;
    }
    wait_readable (client->fd);
    n = recv (client->fd, buffer, sizeof buffer, MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno == ECONNRESET))
      return NULL;
    if (n > 0)
      g_string_append_len (client->bytes, buffer, n);
  }
}

static void
assert_line (Client *client, const char *expected)
{
  g_autofree char *line = next_line (client);

  g_assert_cmpstr (line, ==, expected);
}

/* What a closed connection still had is passed over. */
static void
assert_closed (Client *client)
{
  for (;;) {
    g_autofree char *line = next_line (client);
    if (!line)
      return;
  }
}

static Client
client_new (const char *path)
{
  Client client = { connect_to (path), g_string_new (NULL) };

  assert_line (&client, "{\"holdfast\":{\"version\":\"" PACKAGE_VERSION "\",\"protocol\":1}}");
  return client;
}

/* Small enough for the socket's buffer. */
static void
client_send (Client *client, const char *text)
{
  g_assert_cmpint (send (client->fd, text, strlen (text), MSG_NOSIGNAL), ==, (gssize)strlen (text));
}

static void
exchange (Client *client, const char *text, const char *expected)
{
  client_send (client, text);
  client_send (client, "\n");
  assert_line (client, expected);
}

/* ---- the stage ---- */

static void
method_now (HfControlCall *call, JsonObject *params, gpointer user_data)
{
  JsonNode *node = json_node_new (JSON_NODE_OBJECT);

  json_node_set_object (node, params);
  hf_control_return (call, node);
}

static void
method_hold (HfControlCall *call, JsonObject *params, gpointer user_data)
{
  Stage *stage = user_data;

  stage->n_begun++;
  g_ptr_array_add (stage->held, call);
}

static void
method_watch (HfControlCall *call, JsonObject *params, gpointer user_data)
{
  hf_control_watch (call);
}

static void
method_large (HfControlCall *call, JsonObject *params, gpointer user_data)
{
  g_autofree char *text = g_strnfill (4 << 20, 'x');

  hf_control_return (call, json_node_init_string (json_node_alloc (), text));
}

static const HfControlMethod methods[] = {
  { "now", method_now }, { "hold", method_hold }, { "watch", method_watch }, { "large", method_large }, { NULL, NULL },
};

static void
stage_new (Stage *stage, int mode, const HfControlMethod *own)
{
  g_autoptr (GError) error = NULL;
  HfListener *listener;

  memset (stage, 0, sizeof *stage);
  stage->folder = g_dir_make_tmp ("holdfast-XXXXXX", &error);
  g_assert_no_error (error);
  stage->path = g_build_filename (stage->folder, "control.sock", NULL);
  listener = hf_listener_new (stage->path, mode, &error);
  g_assert_no_error (error);
  stage->held = g_ptr_array_new ();
  stage->vms = fake_vms_new ();
  stage->vm_control.vms = stage->vms;
  stage->control =
      own ? hf_control_new (listener, own, stage) : hf_control_new (listener, hf_vm_control_methods, &stage->vm_control);
}

static void
stage_clear (Stage *stage)
{
  hf_control_free (stage->control);
  g_assert_cmpuint (stage->held->len, ==, 0);
  g_ptr_array_unref (stage->held);
  fake_vms_free (stage->vms);
  g_assert_no_errno (g_rmdir (stage->folder));
  g_free (stage->path);
  g_free (stage->folder);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (Stage, stage_clear)

static void
run_until (const gboolean *condition)
{
  guint limit = g_timeout_add (LIMIT_MS, on_limit, NULL);

  while (!*condition)
    g_main_context_iteration (NULL, TRUE);
  g_source_remove (limit);
}

/* Runs the main context until n calls of "hold" have begun. */
static void
wait_begun (Stage *stage, guint n)
{
  guint limit = g_timeout_add (LIMIT_MS, on_limit, NULL);

  while (stage->n_begun < n)
    g_main_context_iteration (NULL, TRUE);
  g_source_remove (limit);
}

static void
finish (Stage *stage, guint index, const char *text)
{
  HfControlCall *call = g_ptr_array_remove_index (stage->held, index);

  hf_control_return (call, json_node_init_string (json_node_alloc (), text));
}

static void
settle (void)
{
  while (g_main_context_iteration (NULL, FALSE))
    ;
}

/* ---- lines ---- */

#define ONE "{\"id\":1,\"method\":\"m\"}"

static const struct {
  const char *line;
  const char *problem; /* a part of it; NULL: it is a request */
} lines[] = {
  { ONE, NULL },
  { "\t " ONE " \r", NULL },
  { "{\"params\":{\"vm\":\"a\\u00e4\\n\"},\"method\":\"m\",\"id\":null}", NULL },
  { "{\"id\":999999999999999,\"method\":\"m\"}", NULL },
  { "", "no object" },
  { "   ", "no object" },
  { "[1]", "no object" },
  { "1", "no object" },
  { "\"m\"", "no object" },
  { "null", "no object" },
  { ONE ONE, "behind" },
  { ONE " x", "behind" },
  { ONE "]", "bracket" },
  { "{\"id\":1,\"method\":\"m\"", "bracket" },
  { "{\"id\":1,\"method\":\"m}", "string" },
  { "{\"id\":1,\"method\":\"\\q\"}", "escape" },
  { "{\"id\":1,\"method\":\"\\u00\"}", "escape" },
  { "{\"id\":1,\"method\":\"m\\u0000n\"}", "zero" },
  { "{\"id\":1,\"method\":\"\\\\u0000\"}", NULL },
  { "{\"id\":1,\"method\":\"\xff\"}", "UTF-8" },
  { "{\"id\":1,\"method\":\"\xed\xa0\x80\"}", "UTF-8" },
  { "{\"id\":1,'method':\"m\"}", "character" },
  { "{\"id\":1,/**/\"method\":\"m\"}", "character" },
  { "{\"id\":1 \"method\":\"m\"}", "no JSON" },
  { "{\"id\":1,\"method\":\"\\udc00\\u0041\"}", "escape" },
  { "{\"id\":,\"method\":\"m\"}", "no JSON" },
  { "{\"method\":\"m\"}", "id is missing" },
  { "{\"id\":[],\"method\":\"m\"}", "id is no string" },
  { "{\"id\":{},\"method\":\"m\"}", "id is no string" },
  { "{\"id\":1234567890123456,\"method\":\"m\"}", "digits" },
  { "{\"id\":1e9,\"method\":\"m\"}", "exponent" },
  { "{\"id\":1}", "method" },
  { "{\"id\":1,\"method\":1}", "method" },
  { "{\"id\":1,\"method\":null}", "method" },
  { "{\"id\":1,\"method\":\"m\",\"params\":[]}", "params" },
  { "{\"id\":1,\"method\":\"m\",\"params\":null}", "params" },
  { "{\"id\":1,\"method\":\"m\",\"parms\":{}}", "none of" },
  { "{\"id\":1,\"method\":\"m\",\"params\":{\"a\":[[[[[[[[1]]]]]]]]}}", "levels" },
};

static void
test_lines (void)
{
  for (guint i = 0; i < G_N_ELEMENTS (lines); i++) {
    g_auto (HfControlRequest) request = { 0 };
    const char *problem = NULL;
    gboolean ok = hf_control_request_parse (lines[i].line, strlen (lines[i].line), &request, &problem);

    g_test_message ("%s: %s", lines[i].line, problem);
    g_assert_nonnull (request.id);
    g_assert_cmpint (ok, ==, lines[i].problem == NULL);
    g_assert_cmpint (ok, ==, problem == NULL);
    if (!ok)
      g_assert_nonnull (strstr (problem, lines[i].problem));
    else
      g_assert_true (request.method && request.params);
  }
}

/* A zero byte would end the text for json-glib, not for who counts levels. */
static void
test_line_with_zero (void)
{
  g_auto (HfControlRequest) request = { 0 };
  const char line[] = "{\"id\":1,\"method\":\"m\"}\0{";
  const char *problem;

  g_assert_false (hf_control_request_parse (line, sizeof line - 1, &request, &problem));
}

/* json-glib calls itself for each level: a megabyte of them must be refused before it. */
static void
test_levels (void)
{
  g_autofree char *line = g_strnfill (HF_CONTROL_LINE_MAX, '[');
  g_auto (HfControlRequest) request = { 0 };
  const char *problem = NULL;

  g_assert_false (hf_control_request_parse (line, HF_CONTROL_LINE_MAX, &request, &problem));
  g_assert_cmpstr (problem, ==, "too many levels");
}

static void
test_members (void)
{
  g_autoptr (GString) line = g_string_new ("{\"id\":1,\"method\":\"m\",\"params\":{\"a\":1");
  g_auto (HfControlRequest) request = { 0 };
  const char *problem = NULL;

  for (guint i = 0; i < HF_CONTROL_COMMAS_MAX; i++)
    g_string_append_printf (line, ",\"a%u\":1", i);
  g_string_append (line, "}}");
  g_assert_false (hf_control_request_parse (line->str, line->len, &request, &problem));
  g_assert_cmpstr (problem, ==, "too many members");
}

/* ---- the socket ---- */

static void
test_ids (void)
{
  static const char *const ids[] = { "1", "-7", "0", "\"a\\u0001\\u001fb\"", "null", "true", "false", "1.5", "999999999999999" };
  g_auto (Stage) stage;
  g_auto (Client) client = { .fd = -1 };

  stage_new (&stage, 0600, methods);
  client = client_new (stage.path);
  for (guint i = 0; i < G_N_ELEMENTS (ids); i++) {
    g_autofree char *line = g_strdup_printf ("{\"id\":%s,\"method\":\"now\",\"params\":{\"a\":\"b\"}}", ids[i]);
    g_autofree char *expected = g_strdup_printf ("{\"id\":%s,\"result\":{\"a\":\"b\"}}", ids[i]);

    exchange (&client, line, expected);
  }
}

/* A bad line costs an answer, not the connection; what is known of it is in the answer. */
static void
test_bad_lines (void)
{
  g_auto (Stage) stage;
  g_auto (Client) client = { .fd = -1 };

  stage_new (&stage, 0600, methods);
  client = client_new (stage.path);
  exchange (&client, "nonsense", "{\"id\":null,\"error\":{\"code\":\"bad-request\",\"message\":\"no object\"}}");
  exchange (&client, "{\"id\":5}", "{\"id\":5,\"error\":{\"code\":\"bad-request\",\"message\":\"method is no string\"}}");
  exchange (&client, "{\"id\":\"x\",\"method\":\"nowhere\"}",
            "{\"id\":\"x\",\"error\":{\"code\":\"bad-request\",\"message\":\"there is no such method\"}}");
  exchange (&client, "{\"id\":6,\"method\":\"now\"}", "{\"id\":6,\"result\":{}}");
}

static void
test_line_in_pieces (void)
{
  const char line[] = "{\"id\":1,\"method\":\"now\"}\n";
  g_auto (Stage) stage;
  g_auto (Client) client = { .fd = -1 };

  stage_new (&stage, 0600, methods);
  client = client_new (stage.path);
  for (guint i = 0; i < sizeof line - 1; i++) {
    g_assert_cmpint (send (client.fd, line + i, 1, MSG_NOSIGNAL), ==, 1);
    settle ();
  }
  assert_line (&client, "{\"id\":1,\"result\":{}}");
}

/* Answers come when they are ready, each with its id, and what waits is not lost when the client says that it sends no more. */
static void
test_later (void)
{
  g_auto (Stage) stage;
  g_auto (Client) client = { .fd = -1 };

  stage_new (&stage, 0600, methods);
  client = client_new (stage.path);
  client_send (&client, "{\"id\":1,\"method\":\"hold\"}\n{\"id\":2,\"method\":\"hold\"}\n{\"id\":3,\"method\":\"now\"}\n");
  g_assert_no_errno (shutdown (client.fd, SHUT_WR));
  assert_line (&client, "{\"id\":3,\"result\":{}}");
  g_assert_cmpuint (stage.held->len, ==, 2);
  finish (&stage, 1, "second");
  assert_line (&client, "{\"id\":2,\"result\":\"second\"}");
  finish (&stage, 0, "first");
  assert_line (&client, "{\"id\":1,\"result\":\"first\"}");
  assert_closed (&client);
}

/* Eight calls at a time; the ninth begins when one of them ends, and none is lost. */
static void
test_calls_in_flight (void)
{
  g_autoptr (GString) text = g_string_new (NULL);
  g_auto (Stage) stage;
  g_auto (Client) client = { .fd = -1 };

  stage_new (&stage, 0600, methods);
  client = client_new (stage.path);
  for (guint i = 0; i < 20; i++)
    g_string_append_printf (text, "{\"id\":%u,\"method\":\"hold\"}\n", i);
  client_send (&client, text->str);
  wait_begun (&stage, 8);
  for (guint i = 0; i < 20; i++) {
    g_autofree char *expected = g_strdup_printf ("{\"id\":%u,\"result\":\"x\"}", i);

    settle ();
    g_assert_cmpuint (stage.held->len, ==, MIN (8, 20 - i));
    finish (&stage, 0, "x");
    assert_line (&client, expected);
  }
  g_assert_cmpuint (stage.n_begun, ==, 20);
}

/* Whoever asked may go; whoever was asked may end first. */
static void
test_gone (void)
{
  g_auto (Stage) stage;
  g_auto (Client) client = { .fd = -1 }, other = { .fd = -1 };

  stage_new (&stage, 0600, methods);
  client = client_new (stage.path);
  client_send (&client, "{\"id\":1,\"method\":\"hold\"}\n");
  wait_begun (&stage, 1);
  close (client.fd);
  client.fd = -1;
  settle ();
  finish (&stage, 0, "nobody hears it");
  other = client_new (stage.path);
  client_send (&other, "{\"id\":2,\"method\":\"hold\"}\n");
  wait_begun (&stage, 2);
  hf_control_free (g_steal_pointer (&stage.control));
  finish (&stage, 0, "nobody can hear it");
  assert_closed (&other);
}

static void
publish (Stage *stage, const char *text)
{
  hf_control_publish (stage->control, "state", json_node_init_string (json_node_alloc (), text));
}

/* The answer to watch comes before the first event; who does not watch gets none. */
static void
test_watch (void)
{
  g_auto (Stage) stage;
  g_auto (Client) watcher = { .fd = -1 }, other = { .fd = -1 };

  stage_new (&stage, 0600, methods);
  watcher = client_new (stage.path);
  other = client_new (stage.path);
  publish (&stage, "before");
  exchange (&watcher, "{\"id\":1,\"method\":\"watch\"}", "{\"id\":1,\"result\":{}}");
  publish (&stage, "a");
  publish (&stage, "b");
  assert_line (&watcher, "{\"event\":\"state\",\"data\":\"a\"}");
  assert_line (&watcher, "{\"event\":\"state\",\"data\":\"b\"}");
  exchange (&other, "{\"id\":2,\"method\":\"now\"}", "{\"id\":2,\"result\":{}}");
}

/* A watcher that reads nothing is closed when 8 MiB wait for it; another one misses nothing. */
static void
test_watcher_stalls (void)
{
  g_autofree char *text = g_strnfill (1 << 20, 'x');
  g_auto (Stage) stage;
  g_auto (Client) deaf = { .fd = -1 }, watcher = { .fd = -1 };

  stage_new (&stage, 0600, methods);
  deaf = client_new (stage.path);
  watcher = client_new (stage.path);
  exchange (&deaf, "{\"id\":1,\"method\":\"watch\"}", "{\"id\":1,\"result\":{}}");
  exchange (&watcher, "{\"id\":1,\"method\":\"watch\"}", "{\"id\":1,\"result\":{}}");
  for (guint i = 0; i < 12; i++) {
    g_autofree char *line = NULL;

    publish (&stage, text);
    line = next_line (&watcher);
    g_assert_nonnull (line);
    g_assert_cmpuint (strlen (line), >, 1 << 20);
  }
  assert_closed (&deaf);
  exchange (&watcher, "{\"id\":2,\"method\":\"now\"}", "{\"id\":2,\"result\":{}}");
}

/* An answer that is not taken for too long. */
static void
test_answer_stalls (void)
{
  g_auto (Stage) stage;
  g_auto (Client) client = { .fd = -1 }, other = { .fd = -1 };
  char byte;
  int queued = 0;

  stage_new (&stage, 0600, methods);
  hf_control_set_stall_ms (stage.control, 200);
  client = client_new (stage.path);
  other = client_new (stage.path);
  client_send (&client, "{\"id\":1,\"method\":\"large\"}\n");
  /* The other end closes by itself: seen without reading. */
  for (gint64 limit = hf_deadline_after_ms (LIMIT_MS); !queued;) {
    exchange (&other, "{\"id\":2,\"method\":\"now\"}", "{\"id\":2,\"result\":{}}");
    queued = send (client.fd, "\n", 1, MSG_NOSIGNAL) < 0 && errno == EPIPE;
    g_assert_cmpint (g_get_monotonic_time (), <, limit);
  }
  g_assert_cmpint (recv (client.fd, &byte, 1, MSG_DONTWAIT), ==, 1);
  assert_closed (&client);
}

/* A line that was begun and does not end. A client between two lines has all the time. */
static void
test_line_stalls (void)
{
  g_auto (Stage) stage;
  g_auto (Client) client = { .fd = -1 }, idle = { .fd = -1 };

  stage_new (&stage, 0600, methods);
  hf_control_set_stall_ms (stage.control, 100);
  idle = client_new (stage.path);
  client = client_new (stage.path);
  client_send (&client, "{\"id\":1,");
  assert_closed (&client);
  exchange (&idle, "{\"id\":2,\"method\":\"now\"}", "{\"id\":2,\"result\":{}}");
}

static void
test_line_too_long (void)
{
  g_autofree char *text = g_strnfill (65536, 'x');
  g_auto (Stage) stage;
  g_auto (Client) client = { .fd = -1 };
  gsize sent = 0;

  stage_new (&stage, 0600, methods);
  client = client_new (stage.path);
  for (;;) {
    ssize_t n = send (client.fd, text, 65536, MSG_NOSIGNAL | MSG_DONTWAIT);

    if (n < 0 && errno != EAGAIN)
      break;
    sent += (gsize)MAX (n, 0);
    g_assert_cmpuint (sent, <, 8 << 20);
    settle ();
  }
  g_assert_cmpuint (sent, >=, HF_CONTROL_LINE_MAX);
  assert_closed (&client);
}

/* The last client too many is told why; a place that is free again can be taken. */
static void
test_too_many_clients (void)
{
  g_auto (Stage) stage;
  Client clients[CLIENTS_MAX];
  g_auto (Client) other = { .fd = -1, .bytes = g_string_new (NULL) };
  g_auto (Client) last = { .fd = -1 };

  stage_new (&stage, 0600, methods);
  for (guint i = 0; i < CLIENTS_MAX; i++)
    clients[i] = client_new (stage.path);
  other.fd = connect_to (stage.path);
  assert_line (&other, "{\"error\":{\"code\":\"refused\",\"message\":\"too many clients of the control socket\"}}");
  assert_closed (&other);
  client_close (&clients[0]);
  settle ();
  last = client_new (stage.path);
  for (guint i = 1; i < CLIENTS_MAX; i++)
    client_close (&clients[i]);
}

/* The child is another user; 0: it was refused by a line. */
static int
connect_as_nobody (const char *path)
{
  char buffer[256] = "";
  int fd;

  if (setgid (NOBODY) < 0 || setuid (NOBODY) < 0)
    return 2;
  fd = connect_to (path);
  return recv (fd, buffer, sizeof buffer - 1, 0) > 0 && strstr (buffer, "\"refused\"") ? 0 : 1;
}

static void
on_child (GPid pid, gint status, gpointer user_data)
{
  g_assert_cmpint (status, ==, 0);
  *(gboolean *)user_data = TRUE;
}

/* Whatever the mode of the socket became. */
static void
test_other_user (void)
{
  gboolean ended = FALSE;
  g_auto (Stage) stage;
  GPid child;

  stage_new (&stage, 0666, methods);
  if (geteuid () != 0) {
    g_test_skip ("only root can become another user");
    return;
  }
  g_assert_no_errno (g_chmod (stage.folder, 0755));
  child = fork ();
  if (child == 0)
    _exit (connect_as_nobody (stage.path));
  g_child_watch_add (child, on_child, &ended);
  run_until (&ended);
}

static guint
count_descriptors (void)
{
  g_autoptr (GDir) dir = g_dir_open ("/proc/self/fd", 0, NULL);
  guint n = 0;

  while (g_dir_read_name (dir))
    n++;
  return n;
}

static void
test_descriptors (void)
{
  guint before = 0;
  g_auto (Stage) stage;

  stage_new (&stage, 0600, methods);
  for (guint i = 0; i < 300; i++) {
    g_auto (Client) client = client_new (stage.path);

    exchange (&client, "{\"id\":1,\"method\":\"now\"}", "{\"id\":1,\"result\":{}}");
    client_close (&client);
    client.fd = -1;
    client.bytes = g_string_new (NULL);
    settle ();
    if (i == 0)
      before = count_descriptors ();
  }
  g_assert_cmpuint (count_descriptors (), ==, before);
}

/* ---- the methods ---- */

#define ERROR(id, code, message) "{\"id\":" id ",\"error\":{\"code\":\"" code "\",\"message\":\"" message "\"}}"

static void
test_list (void)
{
  g_auto (Stage) stage;
  g_auto (Client) client = { .fd = -1 };
  HfVmCounters *counters;
  HfVm *vm;

  stage_new (&stage, 0600, NULL);
  client = client_new (stage.path);
  exchange (&client, "{\"id\":1,\"method\":\"list\"}", "{\"id\":1,\"result\":{\"vms\":[]}}");
  vm = fake_vms_add (stage.vms, 42, "web", "e9a5d1f0-0000-4000-8000-000000000001");
  fake_vm_hold (vm, 16, "\x60\x01\x40\x5a\xbc\xde\xf0\x12", 0xabcdef0123456789, 5);
  fake_vm_hold (vm, 17, NULL, 0, 0);
  fake_vm_image (vm)->phase = HF_VM_PREPARED;
  counters = fake_vm_counters (vm);
  counters->commands[HF_PR_OUT_REGISTER][0] = 2;
  counters->commands[HF_PR_OUT_RESERVE][1] = 3;
  counters->reads = 4;
  counters->last_gap_us = 1500;
  exchange (&client, "{\"id\":2,\"method\":\"list\"}",
            "{\"id\":2,\"result\":{\"vms\":[{\"vm\":\"web\",\"pid\":42,\"uuid\":\"e9a5d1f0-0000-4000-8000-000000000001\","
            "\"alive\":true,\"connections\":2,\"phase\":\"prepared\",\"lus\":["
            "{\"lu\":\"naa.6001405abcdef012\",\"device\":\"block 8:16\",\"key\":\"0xabcdef0123456789\",\"type\":5,"
            "\"type_name\":\"Write Exclusive, registrants only\",\"uncertain\":false},"
            "{\"lu\":null,\"device\":\"block 8:17\",\"key\":\"0x0\",\"type\":0,\"type_name\":\"none\",\"uncertain\":false}],"
            "\"counters\":{\"commands\":{\"REGISTER\":{\"GOOD\":2},\"RESERVE\":{\"RESERVATION CONFLICT\":3}},\"reads\":4,"
            "\"conflicts\":0,\"saves\":0,\"loads\":0,\"refused\":0,\"rolled_back\":0,\"last_gap_us\":1500}}]}}");
}

static void
wait_job (Stage *stage)
{
  guint limit = g_timeout_add (LIMIT_MS, on_limit, NULL);

  while (!fake_vms_get_job (stage->vms))
    g_main_context_iteration (NULL, TRUE);
  g_source_remove (limit);
}

static void
test_save (void)
{
  g_autoptr (GBytes) record = g_bytes_new_static ("HOLDFAST", 8);
  g_autoptr (GError) error = g_error_new_literal (HF_MIGRATE_ERROR, HF_MIGRATE_ERROR_SAVE, "cannot be told");
  g_auto (Stage) stage;
  g_auto (Client) client = { .fd = -1 };

  stage_new (&stage, 0600, NULL);
  fake_vms_add (stage.vms, 42, "web", "some-uuid");
  client = client_new (stage.path);
  client_send (&client, "{\"id\":1,\"method\":\"save\",\"params\":{\"vm\":\"some-uuid\"}}\n");
  wait_job (&stage);
  g_assert_cmpstr (fake_vms_get_job (stage.vms)->kind, ==, "save");
  fake_vms_finish (stage.vms, &(HfVmOutcome){ .record = record }, NULL);
  assert_line (&client, "{\"id\":1,\"result\":{\"record\":\"" RECORD_BASE64 "\"}}");
  client_send (&client, "{\"id\":2,\"method\":\"save\",\"params\":{\"vm\":\"pid:42\"}}\n");
  wait_job (&stage);
  fake_vms_finish (stage.vms, NULL, error);
  assert_line (&client, ERROR ("2", "failed", "cannot be told"));
}

#define LOAD(id, more)                                                                                                           \
  "{\"id\":" id ",\"method\":\"load\",\"params\":{\"vm\":\"web\",\"record\":\"" RECORD_BASE64 "\"" more "}}\n"
#define REPORT                                                                                                                   \
  "\"result\":{\"lus\":[{\"lu\":\"naa.1\",\"verdict\":\"preempted\",\"type\":7,\"type_name\":\"Write Exclusive, all "            \
  "registrants\","                                                                                                               \
  "\"key\":\"0xab\",\"prepared\":true,\"warning\":true,\"text\":\"another\\nholds\",\"milliseconds\":12}]}"

static HfLuReport report_lu = { .name = (char *)"naa.1",
                                .verdict = HF_VERDICT_PREEMPTED,
                                .warning = TRUE,
                                .prepared = TRUE,
                                .key = 0xab,
                                .type = 7,
                                .milliseconds = 12,
                                .text = (char *)"another\nholds" };

static void
test_load (void)
{
  HfReport report = { 1, &report_lu };
  const HfVmOutcome outcome = { .report = &report };
  g_autoptr (GError) error = g_error_new_literal (HF_MIGRATE_ERROR, HF_MIGRATE_ERROR_COMMITTED, "naa.1 was committed");
  g_auto (Stage) stage;
  g_auto (Client) client = { .fd = -1 };

  stage_new (&stage, 0600, NULL);
  stage.vm_control.on_change = HF_ON_CHANGE_REFUSE;
  fake_vms_add (stage.vms, 42, "web", NULL);
  client = client_new (stage.path);
  client_send (&client, LOAD ("1", ",\"on_change\":\"adopt\""));
  wait_job (&stage);
  g_assert_cmpstr (fake_vms_get_job (stage.vms)->kind, ==, "load");
  g_assert_cmpint (fake_vms_get_job (stage.vms)->on_change, ==, HF_ON_CHANGE_ADOPT);
  g_assert_cmpmem (g_bytes_get_data (fake_vms_get_job (stage.vms)->record, NULL),
                   g_bytes_get_size (fake_vms_get_job (stage.vms)->record), "HOLDFAST", 8);
  fake_vms_finish (stage.vms, &outcome, NULL);
  assert_line (&client, "{\"id\":1," REPORT "}");
  /* Without the word the helper's own rule holds. */
  client_send (&client, LOAD ("2", ""));
  wait_job (&stage);
  g_assert_cmpint (fake_vms_get_job (stage.vms)->on_change, ==, HF_ON_CHANGE_REFUSE);
  fake_vms_finish (stage.vms, &outcome, error);
  assert_line (&client, "{\"id\":2," REPORT ",\"error\":{\"code\":\"committed\",\"message\":\"naa.1 was committed\"}}");
}

/* check says what load would say to the same words. */
static void
test_check (void)
{
  HfReport report = { 1, &report_lu };
  g_auto (Stage) stage;
  g_auto (Client) client = { .fd = -1 };
  static const char check[] =
      "{\"id\":1,\"method\":\"check\",\"params\":{\"vm\":\"web\",\"record\":\"" RECORD_BASE64 "\",\"on_change\":\"%s\"}}\n";
  g_autofree char *adopt = g_strdup_printf (check, "adopt"), *refuse = g_strdup_printf (check, "refuse");

  stage_new (&stage, 0600, NULL);
  fake_vms_add (stage.vms, 42, "web", NULL);
  client = client_new (stage.path);
  client_send (&client, adopt);
  wait_job (&stage);
  g_assert_cmpstr (fake_vms_get_job (stage.vms)->kind, ==, "check");
  fake_vms_finish (stage.vms, &(HfVmOutcome){ .report = &report }, NULL);
  assert_line (&client, "{\"id\":1," REPORT "}");
  client_send (&client, refuse);
  wait_job (&stage);
  fake_vms_finish (stage.vms, &(HfVmOutcome){ .report = &report }, NULL);
  assert_line (&client, "{\"id\":1," REPORT ",\"error\":{\"code\":\"refused\",\"message\":\"an LU was changed by others\"}}");
}

static void
test_release_and_reclaim (void)
{
  static const char *const kinds[] = { "release", "reclaim" };
  HfReport report = { 1, &report_lu };
  g_autoptr (GError) error = g_error_new_literal (HF_MIGRATE_ERROR, HF_MIGRATE_ERROR_REFUSED, "no");
  g_auto (Stage) stage;
  g_auto (Client) client = { .fd = -1 };

  stage_new (&stage, 0600, NULL);
  fake_vms_add (stage.vms, 42, "web", NULL);
  client = client_new (stage.path);
  for (guint i = 0; i < G_N_ELEMENTS (kinds); i++) {
    g_autofree char *line = g_strdup_printf ("{\"id\":1,\"method\":\"%s\",\"params\":{\"vm\":\"web\"}}\n", kinds[i]);

    client_send (&client, line);
    wait_job (&stage);
    g_assert_cmpstr (fake_vms_get_job (stage.vms)->kind, ==, kinds[i]);
    fake_vms_finish (stage.vms, &(HfVmOutcome){ .report = &report }, NULL);
    assert_line (&client, "{\"id\":1," REPORT "}");
    client_send (&client, line);
    wait_job (&stage);
    fake_vms_finish (stage.vms, &(HfVmOutcome){ 0 }, error);
    assert_line (&client, ERROR ("1", "refused", "no"));
  }
}

/* Each error of migrate.h has its code. */
static void
test_codes (void)
{
  static const char *const codes[] = { "record", "lu-not-found", "refused", "committed", "failed" };
  g_auto (Stage) stage;
  g_auto (Client) client = { .fd = -1 };

  stage_new (&stage, 0600, NULL);
  fake_vms_add (stage.vms, 42, "web", NULL);
  client = client_new (stage.path);
  for (guint i = 0; i < G_N_ELEMENTS (codes); i++) {
    g_autoptr (GError) error = g_error_new_literal (HF_MIGRATE_ERROR, (int)i, "m");
    g_autofree char *expected = g_strdup_printf (ERROR ("1", "%s", "m"), codes[i]);

    client_send (&client, LOAD ("1", ""));
    wait_job (&stage);
    fake_vms_finish (stage.vms, NULL, error);
    assert_line (&client, expected);
  }
}

static void
test_params (void)
{
  static const struct {
    const char *method, *params, *code;
  } cases[] = {
    { "list", "{\"vm\":\"web\"}", "bad-request" },
    { "watch", "{\"all\":\"yes\"}", "bad-request" },
    { "save", "{}", "bad-request" },
    { "save", "{\"vm\":\"\"}", "bad-request" },
    { "save", "{\"vm\":1}", "bad-request" },
    { "save", "{\"vm\":null}", "bad-request" },
    { "save", "{\"vm\":[\"web\"]}", "bad-request" },
    { "save", "{\"vm\":\"web\",\"force\":\"yes\"}", "bad-request" },
    { "save", "{\"vm\":\"nowhere\"}", "not-found" },
    { "save", "{\"vm\":\"twin\"}", "ambiguous" },
    { "release", "{\"vm\":\"web\",\"record\":\"SE9M\"}", "bad-request" },
    { "reclaim", "{\"vm\":\"twin\"}", "ambiguous" },
    { "load", "{\"vm\":\"web\"}", "bad-request" },
    { "load", "{\"vm\":\"web\",\"record\":\"\"}", "bad-request" },
    { "load", "{\"vm\":\"web\",\"record\":\"no base64!\"}", "bad-request" },
    { "load", "{\"vm\":\"web\",\"record\":\"SE9\"}", "bad-request" },
    { "load", "{\"vm\":\"web\",\"record\":\"SE9M\",\"on_change\":\"ignore\"}", "bad-request" },
    { "check", "{\"vm\":\"nowhere\",\"record\":\"SE9M\"}", "not-found" },
  };
  g_auto (Stage) stage;
  g_auto (Client) client = { .fd = -1 };

  stage_new (&stage, 0600, NULL);
  fake_vms_add (stage.vms, 42, "web", NULL);
  fake_vms_add (stage.vms, 43, "twin", NULL);
  fake_vms_add (stage.vms, 44, "twin", NULL);
  client = client_new (stage.path);
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autofree char *line = g_strdup_printf ("{\"id\":1,\"method\":\"%s\",\"params\":%s}\n", cases[i].method, cases[i].params);
    g_autofree char *start = g_strdup_printf ("{\"id\":1,\"error\":{\"code\":\"%s\",", cases[i].code);
    g_autofree char *answer = NULL;

    client_send (&client, line);
    answer = next_line (&client);
    g_test_message ("%s%s", line, answer);
    g_assert_true (g_str_has_prefix (answer, start));
  }
  g_assert_null (fake_vms_get_job (stage.vms));
}

/* The largest record there is fits into a line, and a larger one is refused before anything is asked of the VM. */
static void
test_large_record (void)
{
  g_auto (Stage) stage;
  g_auto (Client) client = { .fd = -1 };

  stage_new (&stage, 0600, NULL);
  fake_vms_add (stage.vms, 42, "web", NULL);
  client = client_new (stage.path);
  for (guint over = 0; over < 2; over++) {
    g_autofree guint8 *bytes = g_malloc0 (HF_RECORD_SIZE_MAX + over);
    g_autofree char *text = g_base64_encode (bytes, HF_RECORD_SIZE_MAX + over);
    g_autofree char *line =
        g_strdup_printf ("{\"id\":1,\"method\":\"load\",\"params\":{\"vm\":\"web\",\"record\":\"%s\"}}\n", text);

    for (gsize at = 0; at < strlen (line);) {
      ssize_t n = send (client.fd, line + at, strlen (line) - at, MSG_NOSIGNAL | MSG_DONTWAIT);

      g_assert_true (n > 0 || errno == EAGAIN);
      at += (gsize)MAX (n, 0);
      settle ();
    }
    if (over) {
      assert_line (&client, ERROR ("1", "record", "the record is too long"));
      continue;
    }
    wait_job (&stage);
    g_assert_cmpuint (g_bytes_get_size (fake_vms_get_job (stage.vms)->record), ==, HF_RECORD_SIZE_MAX);
    fake_vms_finish (stage.vms, &(HfVmOutcome){ 0 }, NULL);
    assert_line (&client, "{\"id\":1,\"result\":{}}");
  }
}

static void
test_event (void)
{
  const HfVmEvent event = { .operation = "commit", .lu = NULL, .result = "GOOD \xff", .warning = TRUE };
  g_auto (Stage) stage;
  g_auto (Client) client = { .fd = -1 };
  HfVm *vm;

  stage_new (&stage, 0600, NULL);
  vm = fake_vms_add (stage.vms, 42, "we\"b", NULL);
  client = client_new (stage.path);
  exchange (&client, "{\"id\":1,\"method\":\"watch\"}", "{\"id\":1,\"result\":{}}");
  hf_vm_control_event (vm, &event, NULL);
  hf_vm_control_event (vm, &event, stage.control);
  assert_line (&client, "{\"event\":\"state\",\"data\":{\"vm\":\"we\\\"b\",\"pid\":42,\"lu\":null,\"operation\":\"commit\","
                        "\"result\":\"GOOD \xef\xbf\xbd\",\"warning\":true,\"guest\":false}}");
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  hf_log_init (HF_LOG_ERROR);
  g_test_add_func ("/control/lines", test_lines);
  g_test_add_func ("/control/line-with-zero", test_line_with_zero);
  g_test_add_func ("/control/levels", test_levels);
  g_test_add_func ("/control/members", test_members);
  g_test_add_func ("/control/ids", test_ids);
  g_test_add_func ("/control/bad-lines", test_bad_lines);
  g_test_add_func ("/control/line-in-pieces", test_line_in_pieces);
  g_test_add_func ("/control/later", test_later);
  g_test_add_func ("/control/calls-in-flight", test_calls_in_flight);
  g_test_add_func ("/control/gone", test_gone);
  g_test_add_func ("/control/watch", test_watch);
  g_test_add_func ("/control/watcher-stalls", test_watcher_stalls);
  g_test_add_func ("/control/answer-stalls", test_answer_stalls);
  g_test_add_func ("/control/line-stalls", test_line_stalls);
  g_test_add_func ("/control/line-too-long", test_line_too_long);
  g_test_add_func ("/control/too-many-clients", test_too_many_clients);
  g_test_add_func ("/control/other-user", test_other_user);
  g_test_add_func ("/control/descriptors", test_descriptors);
  g_test_add_func ("/vm-control/list", test_list);
  g_test_add_func ("/vm-control/save", test_save);
  g_test_add_func ("/vm-control/load", test_load);
  g_test_add_func ("/vm-control/check", test_check);
  g_test_add_func ("/vm-control/release-and-reclaim", test_release_and_reclaim);
  g_test_add_func ("/vm-control/codes", test_codes);
  g_test_add_func ("/vm-control/params", test_params);
  g_test_add_func ("/vm-control/large-record", test_large_record);
  g_test_add_func ("/vm-control/event", test_event);
  return g_test_run ();
}
