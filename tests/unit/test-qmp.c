/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The client of QEMU's monitor: against a real QEMU, and against monitors that lie, babble or keep silent.
 *
 * A monitor that is no QEMU is a thread with a listening socket, which plays a script and has blocking calls with a limit. The
 * main thread runs the default main context until what is expected has happened, or the limit has passed.
 */

#include "config.h"

#include "vmstate/qmp.h"

#include <errno.h>
#include <gio/gio.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define LIMIT_S 30
#define GREETING                                                                                                                 \
  "{\"QMP\":{\"version\":{\"qemu\":{\"micro\":0,\"minor\":0,\"major\":9},\"package\":\"\"},\"capabilities\":[]}}\r\n"

/* What the callbacks have seen. */
typedef struct {
  HfQmp *qmp;
  guint n_connected, n_lost, n_done;
  pid_t pid;
  char *why;
  GString *events; /* each with a space behind it */
  GString *done;   /* "return", "lost", "timeout" or "answer MESSAGE", each with a newline behind it */
  gboolean free_in_event, free_in_lost, free_in_done;
} Seen;

static void
free_qmp (Seen *seen)
{
  hf_qmp_free (g_steal_pointer (&seen->qmp));
}

static void
on_connected (HfQmp *qmp, pid_t pid, gpointer user_data)
{
  Seen *seen = user_data;

  g_assert_true (hf_qmp_is_connected (qmp));
  seen->n_connected++;
  seen->pid = pid;
}

static void
on_event (HfQmp *qmp, const char *name, JsonObject *data, gpointer user_data)
{
  Seen *seen = user_data;

  g_string_append_printf (seen->events, "%s ", name);
  if (seen->free_in_event)
    free_qmp (seen);
}

static void
on_lost (HfQmp *qmp, const char *why, gpointer user_data)
{
  Seen *seen = user_data;

  g_assert_false (hf_qmp_is_connected (qmp));
  seen->n_lost++;
  g_free (seen->why);
  seen->why = g_strdup (why);
  if (seen->free_in_lost)
    free_qmp (seen);
}

static void
on_done (JsonNode *result, const GError *error, gpointer user_data)
{
  static const char *const words[] = { "lost", "answer", "timeout" };
  Seen *seen = user_data;

  g_assert_true ((result == NULL) != (error == NULL));
  seen->n_done++;
  if (!error) {
    g_string_append (seen->done, "return\n");
  } else {
    g_assert_true (error->domain == HF_QMP_ERROR);
    g_string_append_printf (seen->done, "%s %s\n", words[error->code], error->message);
  }
  if (seen->free_in_done)
    free_qmp (seen);
}

static const HfQmpHandlers handlers = { on_connected, on_event, on_lost };

static Seen *
seen_new (const char *path, gboolean retry)
{
  Seen *seen = g_new0 (Seen, 1);

  seen->events = g_string_new (NULL);
  seen->done = g_string_new (NULL);
  seen->qmp = hf_qmp_new (path, retry, &handlers, seen);
  return seen;
}

static void
seen_free (Seen *seen)
{
  free_qmp (seen);
  g_free (seen->why);
  g_string_free (seen->events, TRUE);
  g_string_free (seen->done, TRUE);
  g_free (seen);
}

static gboolean
on_limit (gpointer user_data)
{
  g_error ("what was expected did not happen in %d s", LIMIT_S);
  return G_SOURCE_REMOVE;
}

/* Runs the main context until condition. */
#define RUN_UNTIL(condition)                                                                                                     \
  G_STMT_START                                                                                                                   \
  {                                                                                                                              \
    guint limit_source = g_timeout_add_seconds (LIMIT_S, on_limit, NULL);                                                        \
    while (!(condition))                                                                                                         \
      g_main_context_iteration (NULL, TRUE);                                                                                     \
    g_source_remove (limit_source);                                                                                              \
  }                                                                                                                              \
  G_STMT_END

/* ---- monitors that are no QEMU ---- */

typedef struct {
  char *folder, *path;
  int fd; /* listens */
  GThread *thread;
  void (*play) (int fd, guint connection); /* of each connection */
  guint n_connections;
} Monitor;

static void
say (int fd, const char *text)
{
  /* Who is told nonsense may have gone. */
  if (send (fd, text, strlen (text), MSG_NOSIGNAL) < 0)
    g_assert_true (errno == EPIPE || errno == ECONNRESET);
}

/* Reads a line, and returns the number behind "id":; -1: closed. */
static gint64
hear (int fd)
{
  GString *line = g_string_new (NULL);
  gint64 id = -1;
  char c = 0;

  while (c != '\n' && recv (fd, &c, 1, 0) == 1)
    g_string_append_c (line, c);
  if (c == '\n') {
    const char *member = strstr (line->str, "\"id\":");
    g_assert_nonnull (member);
    id = g_ascii_strtoll (member + strlen ("\"id\":"), NULL, 10);
  }
  g_string_free (line, TRUE);
  return id;
}

static void
answer (int fd, gint64 id)
{
  g_autofree char *text = g_strdup_printf ("{\"return\": {}, \"id\": %" G_GINT64_FORMAT "}\r\n", id);
  say (fd, text);
}

/* As QEMU: until commands may come. */
static void
greet (int fd)
{
  say (fd, GREETING);
  answer (fd, hear (fd));
}

static gpointer
monitor_thread (gpointer data)
{
  Monitor *monitor = data;
  struct timeval limit = { .tv_sec = LIMIT_S };

  for (guint i = 0; i < monitor->n_connections; i++) {
    int fd = accept4 (monitor->fd, NULL, NULL, SOCK_CLOEXEC);

    g_assert_no_errno (fd);
    setsockopt (fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt (fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    monitor->play (fd, i);
    close (fd);
  }
  return NULL;
}

static Monitor *
monitor_new (void (*play) (int fd, guint connection), guint n_connections)
{
  Monitor *monitor = g_new0 (Monitor, 1);
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  struct timeval limit = { .tv_sec = LIMIT_S };

  monitor->folder = g_dir_make_tmp ("holdfast-qmp-XXXXXX", NULL);
  g_assert_nonnull (monitor->folder);
  monitor->path = g_build_filename (monitor->folder, "qmp", NULL);
  monitor->play = play;
  monitor->n_connections = n_connections;
  monitor->fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  g_assert_cmpint (monitor->fd, >=, 0);
  g_assert_cmpuint (strlen (monitor->path), <, sizeof address.sun_path);
  strcpy (address.sun_path, monitor->path);
  g_assert_no_errno (bind (monitor->fd, (struct sockaddr *)&address, sizeof address));
  g_assert_no_errno (listen (monitor->fd, 1));
  setsockopt (monitor->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  monitor->thread = g_thread_new ("monitor", monitor_thread, monitor);
  return monitor;
}

static void
monitor_free (Monitor *monitor)
{
  g_thread_join (monitor->thread);
  close (monitor->fd);
  g_unlink (monitor->path);
  g_rmdir (monitor->folder);
  g_free (monitor->path);
  g_free (monitor->folder);
  g_free (monitor);
}

static void
say_nothing (int fd, guint connection)
{
  char c;
  g_assert_cmpint (recv (fd, &c, 1, 0), ==, 0); /* the client went first */
}

static void
say_garbage (int fd, guint connection)
{
  say (fd, "220 mail.example ESMTP\r\n");
}

static void
say_no_object (int fd, guint connection)
{
  say (fd, "[\"QMP\"]\n");
}

static void
say_no_greeting (int fd, guint connection)
{
  say (fd, "{\"QMP\": 1}\n");
}

static void
say_no_utf8 (int fd, guint connection)
{
  say (fd, "{\"QMP\": {}, \"x\": \"\xff\xfe\"}\n");
}

static void
say_nested (int fd, guint connection)
{
  g_autofree char *open = g_strnfill (2u << 20, '[');
  say (fd, open);
  say (fd, "\n");
}

static void
say_hidden_nested (int fd, guint connection)
{
  g_autofree char *open = g_strnfill (2u << 20, '[');
  say (fd, "{\"a\":/*\"*/");
  say (fd, open);
  say (fd, "\n");
}

static void
say_endless (int fd, guint connection)
{
  g_autofree char *much = g_strnfill (1u << 20, ' ');

  for (guint i = 0; i < 6; i++)
    say (fd, much);
}

static void
say_many_values (int fd, guint connection)
{
  GString *text = g_string_new ("{\"QMP\":{},\"a\":[0");

  for (guint i = 0; i < 400000; i++)
    g_string_append (text, ",0");
  g_string_append (text, "]}\n");
  say (fd, text->str);
  g_string_free (text, TRUE);
}

static void
say_nul (int fd, guint connection)
{
  const char text[] = "{\"QMP\":{}}\0\n";
  g_assert_cmpint (send (fd, text, sizeof text - 1, MSG_NOSIGNAL), ==, sizeof text - 1);
}

static void
refuse_capabilities (int fd, guint connection)
{
  g_autofree char *text = NULL;

  say (fd, GREETING);
  text = g_strdup_printf ("{\"error\": {\"class\": \"X\", \"desc\": \"no\"}, \"id\": %" G_GINT64_FORMAT "}\n", hear (fd));
  say (fd, text);
}

static void
greet_and_close (int fd, guint connection)
{
  say (fd, GREETING);
  hear (fd);
}

typedef struct {
  const char *name;
  void (*play) (int fd, guint connection);
  const char *why;
} Hostile;

static const Hostile hostiles[] = {
  { "garbage", say_garbage, "what it sends is no JSON" },
  { "no-object", say_no_object, "what it sends is no JSON object" },
  { "no-greeting", say_no_greeting, "no greeting of QMP" },
  { "no-utf8", say_no_utf8, "what it sends is no JSON" },
  { "nested", say_nested, "what it sends is no JSON" },
  { "nested-behind-a-comment", say_hidden_nested, "what it sends is no JSON" },
  { "endless", say_endless, "a line that is too long" },
  { "many-values", say_many_values, "what it sends is no JSON" },
  { "nul", say_nul, "what it sends is no JSON" },
  { "refuses-capabilities", refuse_capabilities, "X: no" },
  { "closes-while-negotiating", greet_and_close, "closed" },
};

/* One of these ends the connection, once, and says what was wrong. */
static void
test_hostile (gconstpointer data)
{
  const Hostile *hostile = data;
  Monitor *monitor = monitor_new (hostile->play, 1);
  Seen *seen = seen_new (monitor->path, FALSE);

  RUN_UNTIL (seen->n_lost > 0);
  g_assert_nonnull (strstr (seen->why, hostile->why));
  g_assert_cmpuint (seen->n_connected, ==, 0);
  seen_free (seen);
  monitor_free (monitor);
}

/* A monitor with another client accepts and says nothing: 10 s are enough for it. */
static void
test_silent (void)
{
  Monitor *monitor = monitor_new (say_nothing, 1);
  gint64 start = g_get_monotonic_time ();
  Seen *seen = seen_new (monitor->path, FALSE);

  RUN_UNTIL (seen->n_lost > 0);
  g_assert_cmpint (g_get_monotonic_time () - start, >=, 9 * G_USEC_PER_SEC);
  g_assert_nonnull (strstr (seen->why, "no greeting"));
  seen_free (seen);
  monitor_free (monitor);
}

static void
test_nobody_listens (void)
{
  Seen *seen = seen_new ("/nonexistent/qmp", FALSE);

  g_assert_cmpuint (seen->n_lost, ==, 0); /* never from inside hf_qmp_new */
  RUN_UNTIL (seen->n_lost > 0);
  g_assert_cmpstr (seen->why, ==, g_strerror (ENOENT));
  seen_free (seen);
}

static void
test_path_too_long (void)
{
  g_autofree char *path = g_strnfill (108, 'x');
  Seen *seen = seen_new (path, FALSE);

  RUN_UNTIL (seen->n_lost > 0);
  g_assert_nonnull (strstr (seen->why, "too long"));
  seen_free (seen);
}

/* An answer that nobody asked for, and one for a command that is not ours: the second has no id, so the connection ends. */
static void
answer_wrongly (int fd, guint connection)
{
  greet (fd);
  hear (fd);
  say (fd, "{\"return\": {}, \"id\": 4711}\r\n");
  say (fd, "{\"timestamp\": {}, \"event\": \"STILL_THERE\"}\r\n");
  say (fd, "{\"return\": {}}\r\n");
}

static void
test_answer_without_id (void)
{
  Monitor *monitor = monitor_new (answer_wrongly, 1);
  Seen *seen = seen_new (monitor->path, FALSE);

  RUN_UNTIL (seen->n_connected > 0);
  hf_qmp_execute (seen->qmp, "query-status", NULL, LIMIT_S * 1000, on_done, seen);
  RUN_UNTIL (seen->n_lost > 0);
  g_assert_cmpstr (seen->events->str, ==, "STILL_THERE ");
  g_assert_cmpuint (seen->n_done, ==, 1);
  g_assert_true (g_str_has_prefix (seen->done->str, "lost "));
  g_assert_nonnull (strstr (seen->why, "without the id"));
  seen_free (seen);
  monitor_free (monitor);
}

static void
answer_late (int fd, guint connection)
{
  gint64 first, second;

  greet (fd);
  first = hear (fd);
  second = hear (fd);
  answer (fd, first);
  answer (fd, second);
  say_nothing (fd, connection);
}

/* A late answer is not taken for the next command's. */
static void
test_timeout (void)
{
  Monitor *monitor = monitor_new (answer_late, 1);
  Seen *seen = seen_new (monitor->path, FALSE);

  RUN_UNTIL (seen->n_connected > 0);
  hf_qmp_execute (seen->qmp, "first", NULL, 50, on_done, seen);
  RUN_UNTIL (seen->n_done == 1);
  g_assert_true (g_str_has_prefix (seen->done->str, "timeout "));
  hf_qmp_execute (seen->qmp, "second", NULL, LIMIT_S * 1000, on_done, seen);
  RUN_UNTIL (seen->n_done == 2);
  g_assert_true (g_str_has_suffix (seen->done->str, "\nreturn\n"));
  g_assert_cmpuint (seen->n_lost, ==, 0);
  seen_free (seen);
  monitor_free (monitor);
}

/* Not connected: an error, but from the loop. Given up: every command that waits hears of it. */
static void
test_not_connected (void)
{
  Seen *seen = seen_new ("/nonexistent/qmp", TRUE);

  hf_qmp_execute (seen->qmp, "query-status", json_object_new (), 1000, on_done, seen);
  g_assert_cmpuint (seen->n_done, ==, 0);
  RUN_UNTIL (seen->n_done == 1);
  g_assert_true (g_str_has_prefix (seen->done->str, "lost "));
  hf_qmp_execute (seen->qmp, "query-status", NULL, 1000, on_done, seen);
  free_qmp (seen);
  g_assert_cmpuint (seen->n_done, ==, 2);
  seen_free (seen);
}

static void
greet_then_end (int fd, guint connection)
{
  if (connection == 1)
    return; /* an attempt that fails */
  greet (fd);
  say (fd, "{\"timestamp\": {}, \"event\": \"EV\"}\r\n");
  if (connection == 2)
    say_nothing (fd, connection);
}

/* With retry: found again; lost is told once for each loss, not once for each attempt. */
static void
test_retry (void)
{
  Monitor *monitor = monitor_new (greet_then_end, 3);
  Seen *seen = seen_new (monitor->path, TRUE);

  RUN_UNTIL (seen->n_connected == 2 && seen->events->len == 2 * strlen ("EV "));
  g_assert_cmpuint (seen->n_lost, ==, 1);
  g_assert_cmpint (seen->pid, ==, getpid ());
  seen_free (seen);
  monitor_free (monitor);
}

static void
greet_and_stay (int fd, guint connection)
{
  gint64 id;

  greet (fd);
  say (fd, "{\"timestamp\": {}, \"event\": \"A\"}\r\n{\"timestamp\": {}, \"event\": \"B\", \"data\": 7}\r\n");
  id = hear (fd);
  if (id >= 0)
    answer (fd, id);
  say_nothing (fd, connection);
}

/* Any callback may end the object. */
static void
test_free_in_event (void)
{
  Monitor *monitor = monitor_new (greet_and_stay, 1);
  Seen *seen = seen_new (monitor->path, TRUE);

  seen->free_in_event = TRUE;
  RUN_UNTIL (!seen->qmp);
  g_assert_cmpstr (seen->events->str, ==, "A ");
  seen_free (seen);
  monitor_free (monitor);
}

static void
test_free_in_done (void)
{
  Monitor *monitor = monitor_new (greet_and_stay, 1);
  Seen *seen = seen_new (monitor->path, TRUE);

  seen->free_in_done = TRUE;
  RUN_UNTIL (seen->n_connected);
  hf_qmp_execute (seen->qmp, "query-status", NULL, 1000, on_done, seen);
  RUN_UNTIL (!seen->qmp);
  g_assert_cmpstr (seen->done->str, ==, "return\n");
  g_assert_cmpstr (seen->events->str, ==, "A B ");
  seen_free (seen);
  monitor_free (monitor);
}

static void
test_free_in_lost (void)
{
  Seen *seen = seen_new ("/nonexistent/qmp", TRUE);

  seen->free_in_lost = TRUE;
  RUN_UNTIL (!seen->qmp);
  g_assert_cmpuint (seen->n_lost, ==, 1);
  seen_free (seen);
}

static void
hear_much (int fd, guint connection)
{
  gint64 id;

  greet (fd);
  while ((id = hear (fd)) >= 0)
    answer (fd, id);
}

/* More than a socket takes at once: the rest goes when it can. More than we keep: an error. */
static void
test_much_to_send (void)
{
  g_autofree char *word = g_strnfill (4000, 'x');
  Monitor *monitor = monitor_new (hear_much, 1);
  Seen *seen = seen_new (monitor->path, FALSE);

  RUN_UNTIL (seen->n_connected);
  for (guint i = 0; i < 400; i++) {
    JsonObject *arguments = json_object_new ();
    json_object_set_string_member (arguments, "word", word);
    hf_qmp_execute (seen->qmp, "x", arguments, LIMIT_S * 1000, on_done, seen);
  }
  RUN_UNTIL (seen->n_done == 400);
  g_assert_nonnull (strstr (seen->done->str, "return\n"));
  g_assert_nonnull (strstr (seen->done->str, "lost "));
  g_assert_cmpuint (seen->n_lost, ==, 0);
  seen_free (seen);
  monitor_free (monitor);
}

/* ---- QEMU ---- */

typedef struct {
  char *folder, *path;
  GSubprocess *process;
} Qemu;

static Qemu *
qemu_new (void)
{
  Qemu *qemu = g_new0 (Qemu, 1);
  g_autoptr (GError) error = NULL;
  g_autofree char *option = NULL;

  qemu->folder = g_dir_make_tmp ("holdfast-qmp-XXXXXX", NULL);
  g_assert_nonnull (qemu->folder);
  qemu->path = g_build_filename (qemu->folder, "qmp", NULL);
  option = g_strdup_printf ("unix:%s,server=on,wait=off", qemu->path);
  qemu->process = g_subprocess_new (G_SUBPROCESS_FLAGS_NONE, &error, "qemu-system-x86_64", "-M", "none", "-S", "-nodefaults",
                                    "-display", "none", "-qmp", option, NULL);
  g_assert_no_error (error);
  return qemu;
}

static void
qemu_end (Qemu *qemu)
{
  g_subprocess_force_exit (qemu->process);
  g_subprocess_wait (qemu->process, NULL, NULL);
}

static void
qemu_free (Qemu *qemu)
{
  qemu_end (qemu);
  g_object_unref (qemu->process);
  g_unlink (qemu->path);
  g_rmdir (qemu->folder);
  g_free (qemu->path);
  g_free (qemu->folder);
  g_free (qemu);
}

/* The monitor comes after us; events, answers and errors of the real one; its end is noticed at once. */
static void
test_qemu (void)
{
  Qemu *qemu = qemu_new ();
  g_autofree char *address = g_strconcat ("unix:", qemu->path, NULL);
  Seen *seen = seen_new (address, TRUE);

  g_assert_cmpstr (hf_qmp_get_path (seen->qmp), ==, qemu->path);
  RUN_UNTIL (seen->n_connected);
  g_assert_cmpint (seen->pid, ==, g_ascii_strtoll (g_subprocess_get_identifier (qemu->process), NULL, 10));
  hf_qmp_execute (seen->qmp, "cont", NULL, LIMIT_S * 1000, on_done, seen);
  hf_qmp_execute (seen->qmp, "stop", NULL, LIMIT_S * 1000, on_done, seen);
  RUN_UNTIL (seen->n_done == 2 && seen->events->len >= strlen ("RESUME STOP "));
  g_assert_cmpstr (seen->events->str, ==, "RESUME STOP ");
  g_assert_cmpstr (seen->done->str, ==, "return\nreturn\n");
  g_string_truncate (seen->done, 0);
  hf_qmp_execute (seen->qmp, "no-such-command", NULL, LIMIT_S * 1000, on_done, seen);
  RUN_UNTIL (seen->n_done == 3);
  g_assert_true (g_str_has_prefix (seen->done->str, "answer "));
  g_assert_nonnull (strstr (seen->done->str, "CommandNotFound: "));
  seen->n_lost = 0;
  qemu_end (qemu);
  RUN_UNTIL (seen->n_lost == 1);
  seen_free (seen);
  qemu_free (qemu);
}

/* The longest thing that a client asks for is far from the bounds of a line. */
static void
test_qemu_long_answer (void)
{
  Qemu *qemu = qemu_new ();
  Seen *seen = seen_new (qemu->path, TRUE);

  RUN_UNTIL (seen->n_connected);
  hf_qmp_execute (seen->qmp, "query-qmp-schema", NULL, LIMIT_S * 1000, on_done, seen);
  RUN_UNTIL (seen->n_done == 1);
  g_assert_cmpstr (seen->done->str, ==, "return\n");
  seen_free (seen);
  qemu_free (qemu);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  for (guint i = 0; i < G_N_ELEMENTS (hostiles); i++) {
    g_autofree char *name = g_strconcat ("/qmp/hostile/", hostiles[i].name, NULL);
    g_test_add_data_func (name, &hostiles[i], test_hostile);
  }
  g_test_add_func ("/qmp/hostile/silent", test_silent);
  g_test_add_func ("/qmp/hostile/answer-without-id", test_answer_without_id);
  g_test_add_func ("/qmp/nobody-listens", test_nobody_listens);
  g_test_add_func ("/qmp/path-too-long", test_path_too_long);
  g_test_add_func ("/qmp/timeout", test_timeout);
  g_test_add_func ("/qmp/not-connected", test_not_connected);
  g_test_add_func ("/qmp/retry", test_retry);
  g_test_add_func ("/qmp/free-in-event", test_free_in_event);
  g_test_add_func ("/qmp/free-in-done", test_free_in_done);
  g_test_add_func ("/qmp/free-in-lost", test_free_in_lost);
  g_test_add_func ("/qmp/much-to-send", test_much_to_send);
  g_test_add_func ("/qmp/qemu", test_qemu);
  g_test_add_func ("/qmp/qemu-long-answer", test_qemu_long_answer);
  return g_test_run ();
}
