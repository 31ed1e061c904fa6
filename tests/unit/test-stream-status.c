/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * FILE.status: what is written is read again, anything else is refused, and who waits neither misses the end of a capture nor
 * takes a death for one.
 */
#include "config.h"

#include "stream/status.h"

#include "base/deadline.h"
#include "stream/save-file.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define PATIENCE_MS 20000

typedef struct {
  char *folder, *path, *status, *partial;
} Place;

static void
place_set_up (Place *place, gconstpointer data)
{
  (void)data;
  place->folder = g_dir_make_tmp ("holdfast-status-XXXXXX", NULL);
  g_assert_nonnull (place->folder);
  place->path = g_build_filename (place->folder, "vm.hf", NULL);
  place->status = g_strconcat (place->path, ".status", NULL);
  place->partial = g_strconcat (place->path, ".partial", NULL);
}

static void
place_tear_down (Place *place, gconstpointer data)
{
  (void)data;
  g_unlink (place->path);
  g_unlink (place->status);
  g_unlink (place->partial);
  g_assert_cmpint (g_rmdir (place->folder), ==, 0);
  g_free (place->folder);
  g_free (place->path);
  g_free (place->status);
  g_free (place->partial);
}

static const HfStreamStatus committed = { .outcome = HF_OUTCOME_COMMITTED,
                                          .bytes = 123456789012,
                                          .seconds = 1.5,
                                          .time = 1767225600,
                                          .sync = TRUE,
                                          .complete = TRUE,
                                          .format = (char *)"mapped-ram" };

static void
write_status (Place *place, const HfStreamStatus *status)
{
  g_autoptr (GError) error = NULL;

  g_assert_true (hf_stream_status_write (place->path, status, NULL, &error));
  g_assert_no_error (error);
}

static void
test_round_trip (Place *place, gconstpointer data)
{
  (void)data;
  for (guint outcome = 0; outcome < HF_N_STREAM_OUTCOMES; outcome++) {
    g_autoptr (GError) error = NULL;
    HfStreamStatus status = committed, again;

    status.outcome = (HfStreamOutcome)outcome;
    status.error = outcome == HF_OUTCOME_COMMITTED ? NULL : (char *)"offset 5: \"\xff\" and \n";
    write_status (place, &status);
    g_assert_true (hf_stream_status_read (place->path, &again, &error));
    g_assert_no_error (error);
    g_assert_cmpint (again.outcome, ==, status.outcome);
    g_assert_true ((again.error != NULL) == (status.error != NULL));
    g_assert_cmpuint (again.bytes, ==, status.bytes);
    g_assert_cmpfloat (again.seconds, ==, status.seconds);
    g_assert_cmpint (again.time, ==, status.time);
    g_assert_true (again.sync && again.complete);
    g_assert_cmpstr (again.format, ==, status.format);
    hf_stream_status_clear (&again);
  }
}

static void
test_remove (Place *place, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  HfStreamStatus status;

  (void)data;
  g_assert_true (hf_stream_status_remove (place->path, &error));
  g_assert_no_error (error);
  write_status (place, &committed);
  g_assert_true (hf_stream_status_remove (place->path, &error));
  g_assert_false (hf_stream_status_read (place->path, &status, &error));
  g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE);
}

/* Another file may have that name, such as a state of a VM: it is neither removed nor replaced. */
static void
test_foreign (Place *place, gconstpointer data)
{
  g_autofree char *large = g_strnfill ((64 << 10) + 1, ' ');
  const char *const texts[] = { "QEVM", "{\"versions\":1}", large };

  (void)data;
  memcpy (large, "{\"version\":1}", 13);
  for (gsize i = 0; i < G_N_ELEMENTS (texts); i++) {
    g_autoptr (GError) removed = NULL, written = NULL;
    g_autofree char *contents = NULL;

    g_assert_true (g_file_set_contents (place->status, texts[i], -1, NULL));
    g_assert_false (hf_stream_status_remove (place->path, &removed));
    g_assert_error (removed, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE);
    g_assert_false (hf_stream_status_write (place->path, &committed, NULL, &written));
    g_assert_error (written, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE);
    g_assert_true (g_file_get_contents (place->status, &contents, NULL, NULL));
    g_assert_cmpstr (contents, ==, texts[i]);
  }
  /* What a crash of the host left of one. */
  g_assert_true (g_file_set_contents (place->status, "", 0, NULL));
  g_assert_true (hf_stream_status_remove (place->path, NULL));
}

/* Others may put a link into a folder like /tmp: what it points to is not ours to write. */
static void
test_link (Place *place, gconstpointer data)
{
  g_autofree char *contents = NULL;

  (void)data;
  g_assert_true (g_file_set_contents (place->path, "precious", -1, NULL));
  g_assert_cmpint (symlink ("vm.hf", place->status), ==, 0);
  write_status (place, &committed);
  g_assert_false (g_file_test (place->status, G_FILE_TEST_IS_SYMLINK));
  g_assert_true (g_file_get_contents (place->path, &contents, NULL, NULL));
  g_assert_cmpstr (contents, ==, "precious");
}

#define MEMBERS "\"bytes\":1,\"seconds\":2,\"time\":3,\"sync\":true,\"complete\":true"

static void
test_refused (Place *place, gconstpointer data)
{
  static const char *const texts[] = {
    "",
    "[]",
    "{}",
    "[[[[[[[[[[",
    "{\"version\":2,\"outcome\":\"committed\",\"error\":null," MEMBERS ",\"format\":\"any\"}",
    "{\"version\":1,\"outcome\":\"done\",\"error\":null," MEMBERS ",\"format\":\"any\"}",
    "{\"version\":1,\"outcome\":\"committed\",\"error\":null," MEMBERS ",\"format\":\"other\"}",
    "{\"version\":1,\"outcome\":\"committed\",\"error\":null," MEMBERS "}",
    "{\"version\":1,\"outcome\":\"committed\",\"error\":5," MEMBERS ",\"format\":\"any\"}",
    "{\"version\":1,\"outcome\":\"committed\"," MEMBERS ",\"format\":\"any\"}",
    "{\"version\":1,\"outcome\":\"committed\",\"error\":\"but\"," MEMBERS ",\"format\":\"any\"}",
    "{\"version\":1,\"outcome\":\"failed\",\"error\":null," MEMBERS ",\"format\":\"any\"}",
    "{\"version\":1,\"outcome\":\"committed\",\"error\":null,\"bytes\":-1,\"seconds\":2,\"time\":3,\"sync\":true,\"complete\":"
    "true,"
    "\"format\":\"any\"}",
    "{\"version\":1,\"outcome\":\"committed\",\"error\":null,\"bytes\":{},\"seconds\":2,\"time\":3,\"sync\":true,\"complete\":"
    "true,"
    "\"format\":\"any\"}",
  };
  static const char good[] =
      "{\"version\":1,\"outcome\":\"committed\",\"error\":null," MEMBERS ",\"format\":\"any\",\"new\":[1]}";
  g_autoptr (GError) error = NULL;
  HfStreamStatus status;

  (void)data;
  for (gsize i = 0; i < G_N_ELEMENTS (texts); i++) {
    g_autoptr (GError) refused = NULL;

    g_assert_true (g_file_set_contents (place->status, texts[i], -1, NULL));
    g_assert_false (hf_stream_status_read (place->path, &status, &refused));
    g_assert_error (refused, HF_STREAM_ERROR, HF_STREAM_ERROR_MALFORMED);
  }
  g_assert_true (g_file_set_contents (place->status, good, -1, NULL));
  g_assert_true (hf_stream_status_read (place->path, &status, &error));
  g_assert_no_error (error);
  hf_stream_status_clear (&status);
}

static void
test_bounded (Place *place, gconstpointer data)
{
  g_autofree char *text = g_strnfill ((64 << 10) + 1, ' ');
  g_autoptr (GError) error = NULL;
  HfStreamStatus status;

  (void)data;
  memcpy (text, "{}", 2);
  g_assert_true (g_file_set_contents (place->status, text, -1, NULL));
  g_assert_false (hf_stream_status_read (place->path, &status, &error));
  g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_MALFORMED);
  g_clear_error (&error);
  g_assert_cmpint (g_unlink (place->status), ==, 0);
  g_assert_cmpint (mkfifo (place->status, 0600), ==, 0);
  g_assert_false (hf_stream_status_read (place->path, &status, &error));
  g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_MALFORMED);
}

/* A waiter on a thread of its own. */

typedef struct {
  const char *path;
  int interrupt_fd;
  guint timeout_ms;
  HfStreamStatus status;
  gboolean ok;
  GError *error;
} Waiter;

static gpointer
wait_in_thread (gpointer data)
{
  Waiter *waiter = data;
  HfStreamJob job = { .interrupt_fd = waiter->interrupt_fd };

  waiter->ok = hf_stream_status_wait (waiter->path, &(HfStreamWait){ .deadline = hf_deadline_after_ms (waiter->timeout_ms) },
                                      &job, &waiter->status, &waiter->error);
  return NULL;
}

/* A capture in a process of its own that does what each character says, one for each byte that it is sent: c create, r rename,
   s status, f free; and answers each with a byte. */
typedef struct {
  GPid pid;
  int commands, answers;
} Actor;

static void
act (Place *place, char what, HfSaveFile **file)
{
  if (what == 'c')
    *file = hf_save_file_new (place->path, 0, HF_SAVE_NO_SYNC, NULL);
  else if (what == 'r')
    hf_save_file_commit (*file, 0, NULL);
  else if (what == 's')
    hf_stream_status_write (place->path, &committed, NULL, NULL);
  else if (what == 'f')
    g_clear_pointer (file, hf_save_file_free);
}

static Actor
actor_new (Place *place)
{
  int commands[2], answers[2];
  Actor actor;

  g_assert_cmpint (pipe (commands), ==, 0);
  g_assert_cmpint (pipe (answers), ==, 0);
  actor.pid = fork ();
  g_assert_cmpint (actor.pid, >=, 0);
  if (actor.pid == 0) {
    HfSaveFile *file = NULL;
    char what;

    close (commands[1]);
    close (answers[0]);
    while (read (commands[0], &what, 1) == 1) {
      act (place, what, &file);
      if (write (answers[1], &what, 1) != 1)
        break;
    }
    _exit (0);
  }
  close (commands[0]);
  close (answers[1]);
  actor.commands = commands[1];
  actor.answers = answers[0];
  return actor;
}

static void
actor_do (Actor *actor, const char *steps)
{
  for (; *steps; steps++) {
    char answer;

    g_assert_cmpint (write (actor->commands, steps, 1), ==, 1);
    g_assert_cmpint (read (actor->answers, &answer, 1), ==, 1);
  }
}

static void
actor_end (Actor *actor, int with)
{
  if (with != 0)
    g_assert_cmpint (kill (actor->pid, with), ==, 0);
  close (actor->commands);
  g_assert_cmpint (waitpid (actor->pid, NULL, 0), ==, actor->pid);
  close (actor->answers);
}

/* What the capture does before the waiter starts, what after, and how it ends. */
static const struct {
  const char *before, *after;
  int with; /* signal at the end; 0: it ends by itself */
  int code; /* -1: the status is read */
} waits[] = {
  { "crsf", "", 0, -1 },
  { "", "crsf", 0, -1 },
  { "c", "rsf", 0, -1 },
  { "cr", "sf", 0, -1 },
  { "crs", "f", 0, -1 },
  { "crs", "", SIGKILL, -1 },
  { "c", "", SIGKILL, HF_STREAM_ERROR_INCOMPLETE },
  { "cr", "", SIGKILL, HF_STREAM_ERROR_INCOMPLETE },
  { "c", "r", SIGKILL, HF_STREAM_ERROR_INCOMPLETE },
  { "c", "f", 0, HF_STREAM_ERROR_INCOMPLETE },
};

/* Until the waiter has seen that a capture is alive: it has the file open then, and nobody else in this process has. */
static void
await_look (Place *place)
{
  gint64 deadline = hf_deadline_after_ms (PATIENCE_MS);

  while (g_get_monotonic_time () < deadline) {
    g_autoptr (GDir) dir = g_dir_open ("/proc/self/fd", 0, NULL);
    const char *name;

    g_assert_nonnull (dir);
    while ((name = g_dir_read_name (dir))) {
      g_autofree char *link = g_build_filename ("/proc/self/fd", name, NULL);
      g_autofree char *target = g_file_read_link (link, NULL);

      if (g_strcmp0 (target, place->path) == 0 || g_strcmp0 (target, place->partial) == 0)
        return;
    }
    g_usleep (1000);
  }
  g_error ("the waiter never looked");
}

static void
test_wait (Place *place, gconstpointer data)
{
  (void)data;
  for (gsize i = 0; i < G_N_ELEMENTS (waits); i++) {
    Waiter waiter = { .path = place->path, .interrupt_fd = -1, .timeout_ms = PATIENCE_MS };
    Actor actor = actor_new (place);
    g_autoptr (GThread) thread = NULL;

    g_assert_true (hf_stream_status_remove (place->path, NULL));
    actor_do (&actor, waits[i].before);
    thread = g_thread_new ("waiter", wait_in_thread, &waiter);
    if (waits[i].code >= 0)
      await_look (place);
    actor_do (&actor, waits[i].after);
    actor_end (&actor, waits[i].with);
    g_thread_join (g_steal_pointer (&thread));
    if (waits[i].code < 0) {
      g_assert_no_error (waiter.error);
      g_assert_true (waiter.ok);
      g_assert_cmpint (waiter.status.outcome, ==, HF_OUTCOME_COMMITTED);
      hf_stream_status_clear (&waiter.status);
    } else {
      g_assert_false (waiter.ok);
      g_assert_error (waiter.error, HF_STREAM_ERROR, waits[i].code);
      g_clear_error (&waiter.error);
    }
    g_unlink (place->partial);
  }
}

/* A dead one's leftover outweighs the status of the capture before it, unless that is the one by name; but it does not say that
   nobody is coming any more: it takes the time for that. */
static void
test_wait_dead_partial (Place *place, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  HfStreamWait wait = { .start_timeout_ms = 300 };
  HfStreamStatus named = committed, status;
  gint64 begin = g_get_monotonic_time ();

  (void)data;
  named.id = (char *)"17";
  write_status (place, &named);
  g_assert_true (g_file_set_contents (place->partial, "left", -1, NULL));
  g_assert_false (hf_stream_status_wait (place->path, &wait, NULL, &status, &error));
  g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_INCOMPLETE);
  g_assert_true (wait.late);
  g_assert_cmpint (g_get_monotonic_time () - begin, >=, 300 * 1000);
  g_clear_error (&error);
  wait.id = "17";
  g_assert_true (hf_stream_status_wait (place->path, &wait, NULL, &status, &error));
  g_assert_no_error (error);
  hf_stream_status_clear (&status);
}

/* The capture that replaces it may still be on its way; its words count, and not the death before it. */
static void
test_wait_old_partial (Place *place, gconstpointer data)
{
  Waiter waiter = { .path = place->path, .interrupt_fd = -1, .timeout_ms = PATIENCE_MS };
  Actor actor = actor_new (place);
  GThread *thread;

  (void)data;
  g_assert_true (g_file_set_contents (place->partial, "left", -1, NULL));
  thread = g_thread_new ("waiter", wait_in_thread, &waiter);
  /* Nothing tells that the waiter has looked; this is long after. */
  g_usleep (700 * 1000);
  actor_do (&actor, "crsf");
  actor_end (&actor, 0);
  g_thread_join (thread);
  g_assert_no_error (waiter.error);
  g_assert_true (waiter.ok);
  g_assert_cmpint (waiter.status.outcome, ==, HF_OUTCOME_COMMITTED);
  hf_stream_status_clear (&waiter.status);
}

/* What another capture said is passed over, before and after it. */
static void
test_wait_id (Place *place, gconstpointer data)
{
  HfStreamWait wait = { .id = "17", .start_timeout_ms = 100 };
  HfStreamStatus named = committed, status;
  g_autoptr (GError) error = NULL;
  g_autoptr (HfSaveFile) file = NULL;

  (void)data;
  write_status (place, &committed);
  g_assert_false (hf_stream_status_wait (place->path, &wait, NULL, &status, &error));
  g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE);
  g_assert_true (wait.late);
  g_clear_error (&error);
  named.id = (char *)"18";
  write_status (place, &named);
  g_assert_false (hf_stream_status_wait (place->path, &wait, NULL, &status, &error));
  g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE);
  g_clear_error (&error);
  /* What is under way may be the right one: no bound for the beginning. */
  file = hf_save_file_new (place->path, 0, HF_SAVE_NO_SYNC, NULL);
  wait.deadline = hf_deadline_after_ms (300);
  g_assert_false (hf_stream_status_wait (place->path, &wait, NULL, &status, &error));
  g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_BUSY);
  g_clear_error (&error);
  g_clear_pointer (&file, hf_save_file_free);
  wait.deadline = 0;
  named.id = (char *)"17";
  write_status (place, &named);
  g_assert_true (hf_stream_status_wait (place->path, &wait, NULL, &status, &error));
  g_assert_no_error (error);
  g_assert_cmpstr (status.id, ==, "17");
  hf_stream_status_clear (&status);
}

static void
test_wait_deadline (Place *place, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (HfSaveFile) file = NULL;
  HfStreamStatus status;

  (void)data;
  g_assert_false (
      hf_stream_status_wait (place->path, &(HfStreamWait){ .deadline = hf_deadline_after_ms (30) }, NULL, &status, &error));
  g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE);
  g_clear_error (&error);
  file = hf_save_file_new (place->path, 0, HF_SAVE_NO_SYNC, NULL);
  g_assert_false (
      hf_stream_status_wait (place->path, &(HfStreamWait){ .deadline = hf_deadline_after_ms (30) }, NULL, &status, &error));
  g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_BUSY);
}

static void
test_wait_interrupted (Place *place, gconstpointer data)
{
  int ends[2];
  Waiter waiter = { .path = place->path, .timeout_ms = PATIENCE_MS };
  GThread *thread;

  (void)data;
  g_assert_cmpint (pipe (ends), ==, 0);
  waiter.interrupt_fd = ends[0];
  thread = g_thread_new ("waiter", wait_in_thread, &waiter);
  g_assert_cmpint (write (ends[1], "x", 1), ==, 1);
  g_thread_join (thread);
  g_assert_false (waiter.ok);
  g_assert_error (waiter.error, HF_STREAM_ERROR, HF_STREAM_ERROR_INTERRUPTED);
  g_clear_error (&waiter.error);
  close (ends[0]);
  close (ends[1]);
}

static void
add (const char *name, void (*test) (Place *place, gconstpointer data))
{
  g_autofree char *path = g_strconcat ("/stream/status/", name, NULL);
  g_test_add (path, Place, NULL, place_set_up, test, place_tear_down);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  add ("round-trip", test_round_trip);
  add ("remove", test_remove);
  add ("foreign", test_foreign);
  add ("link", test_link);
  add ("refused", test_refused);
  add ("bounded", test_bounded);
  add ("wait", test_wait);
  add ("wait-dead-partial", test_wait_dead_partial);
  add ("wait-old-partial", test_wait_old_partial);
  add ("wait-id", test_wait_id);
  add ("wait-deadline", test_wait_deadline);
  add ("wait-interrupted", test_wait_interrupted);
  return g_test_run ();
}
