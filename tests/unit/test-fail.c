/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* HOLDFAST_FAIL: what is accepted, what is refused, which point it hits, and that the log proves it. */

#include "config.h"

#include "base/fail.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void
set (const char *specification)
{
  g_autoptr (GError) error = NULL;

  g_assert_true (hf_fail_set (specification, &error));
  g_assert_no_error (error);
}

/* A typo must not make a test pass. */
static void
test_refused (void)
{
  static const char *const specifications[] = {
    "register",
    "before-register",
    "before-register=",
    "before-register=linkk",
    "during-register=link",
    "before-=link",
    "-register=link",
    "before-Register=link",
    "before-register#0=link",
    "before-register#=link",
    "before-register#x=link",
    "before-register=link:1",
    "before-register=delay",
    "before-register=delay:x",
    "before-register=delay:-1",
    "before-register=delay:99999999",
    "before-register=unit-attention:2A",
    "before-register=unit-attention:2A0G",
    "before-register=error:EWHAT",
    "after-register=busy",
    "after-register=unit-attention",
    "before-register=short:0",
    "before-register=short:",
    "before-register=short:-1",
    "before-register=short:99999999999",
    "before-register=zero:1",
    "after-register=short",
    "after-register=zero",
    "before-register=link,",
    ",before-register=link",
    "before-register=link before-reserve=link",
  };

  for (guint i = 0; i < G_N_ELEMENTS (specifications); i++) {
    g_autoptr (GError) error = NULL;

    g_test_message ("%s", specifications[i]);
    g_assert_false (hf_fail_set (specifications[i], &error));
    g_assert_error (error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE);
    g_assert_nonnull (strstr (error->message, "HOLDFAST_FAIL"));
  }
}

/* What was set before a refused specification still stands. */
static void
test_refused_changes_nothing (void)
{
  set ("before-register=link");
  g_assert_false (hf_fail_set ("before-register=", NULL));
  g_assert_cmpint (hf_fail_point ("before", "register", TRUE, NULL), ==, HF_FAIL_LINK);
  set (NULL);
  g_assert_cmpint (hf_fail_point ("before", "register", TRUE, NULL), ==, HF_FAIL_NOTHING);
}

static void
test_every_action (void)
{
  static const struct {
    const char *text;
    HfFailAction action;
    guint argument;
  } cases[] = {
    { "link", HF_FAIL_LINK, 0 },
    { "timeout", HF_FAIL_TIMEOUT, 0 },
    { "unit-attention", HF_FAIL_UNIT_ATTENTION, 0x2a03 },
    { "unit-attention:2a05", HF_FAIL_UNIT_ATTENTION, 0x2a05 },
    { "busy", HF_FAIL_BUSY, 0 },
    { "task-set-full", HF_FAIL_TASK_SET_FULL, 0 },
    { "conflict", HF_FAIL_CONFLICT, 0 },
    { "error", HF_FAIL_ERROR, EIO },
    { "error:ENOSPC", HF_FAIL_ERROR, ENOSPC },
    { "error:EFBIG", HF_FAIL_ERROR, EFBIG },
    { "delay:0", HF_FAIL_NOTHING, 0 },
    { "short", HF_FAIL_SHORT, 1 },
    { "short:70000", HF_FAIL_SHORT, 70000 },
    { "zero", HF_FAIL_ZERO, 0 },
  };

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autofree char *specification = g_strconcat ("before-take-over=", cases[i].text, NULL);
    guint argument = 77;

    set (specification);
    g_assert_cmpint (hf_fail_point ("before", "take-over", TRUE, &argument), ==, cases[i].action);
    g_assert_cmpuint (argument, ==, cases[i].argument);
    g_assert_cmpint (hf_fail_point ("after", "take-over", TRUE, NULL), ==, HF_FAIL_NOTHING);
    g_assert_cmpint (hf_fail_point ("before", "take", TRUE, NULL), ==, HF_FAIL_NOTHING);
  }
}

/* A program that says which steps it has: others, and what means nothing at a step, are refused. */
static void
test_steps (void)
{
  static const char *const commands[] = { "register", "observe", NULL };
  static const char *const others[] = { "journal-write", NULL };
  static const char *const transfers[] = { "stream-read", NULL };
  static const struct {
    const char *specification;
    gboolean ok;
  } cases[] = {
    { "before-register=kill", TRUE },        { "after-command=link", TRUE },         { "before-journal-write=error", TRUE },
    { "after-journal-write=delay:1", TRUE }, { "before-observe#3=conflict", TRUE },  { "before-registr=kill", FALSE },
    { "before-take-over=kill", FALSE },      { "before-register=error", FALSE },     { "before-command=error", FALSE },
    { "before-journal-write=link", FALSE },  { "before-journal-write=busy", FALSE }, { "before-journal-write=timeout", FALSE },
    { "before-stream-read=short", TRUE },    { "before-stream-read=zero", TRUE },    { "before-stream-read=error:EINTR", TRUE },
    { "before-stream-read=kill", TRUE },     { "after-stream-read=kill", FALSE },    { "before-stream-write=short", FALSE },
    { "before-register=short", FALSE },      { "before-command=zero", FALSE },       { "before-journal-write=short", FALSE },
    { "before-stream-read=link", FALSE },    { "before-command=short:2", FALSE },    { "before-journal-write=zero", FALSE },
  };

  hf_fail_set_steps (commands, others, transfers);
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (GError) error = NULL;

    g_test_message ("%s", cases[i].specification);
    g_assert_cmpint (hf_fail_set (cases[i].specification, &error), ==, cases[i].ok);
    g_assert_true (cases[i].ok == (error == NULL));
  }
  hf_fail_set_steps (commands, others, NULL);
  g_assert_false (hf_fail_set ("before-stream-read=kill", NULL));
  hf_fail_set_steps (NULL, NULL, NULL);
}

/* #N counts the times its own point was reached, and setting again starts anew. */
static void
test_turns (void)
{
  for (guint round = 0; round < 2; round++) {
    set ("before-register#2=busy,before-register#3=conflict,before-register#3=link");
    g_assert_cmpint (hf_fail_point ("before", "register", TRUE, NULL), ==, HF_FAIL_NOTHING);
    g_assert_cmpint (hf_fail_point ("after", "register", TRUE, NULL), ==, HF_FAIL_NOTHING);
    g_assert_cmpint (hf_fail_point ("before", "register", TRUE, NULL), ==, HF_FAIL_BUSY);
    g_assert_cmpint (hf_fail_point ("before", "register", TRUE, NULL), ==, HF_FAIL_CONFLICT);
    g_assert_cmpint (hf_fail_point ("before", "register", TRUE, NULL), ==, HF_FAIL_NOTHING);
  }
}

static void
test_every_command (void)
{
  set ("before-command#2=link");
  g_assert_cmpint (hf_fail_point ("before", "journal-write", FALSE, NULL), ==, HF_FAIL_NOTHING);
  g_assert_cmpint (hf_fail_point ("before", "identify", TRUE, NULL), ==, HF_FAIL_NOTHING);
  g_assert_cmpint (hf_fail_point ("before", "register", TRUE, NULL), ==, HF_FAIL_LINK);
}

static void
test_delay (void)
{
  gint64 begin = g_get_monotonic_time ();

  set ("before-register=delay:30");
  g_assert_cmpint (hf_fail_point ("before", "register", TRUE, NULL), ==, HF_FAIL_NOTHING);
  g_assert_cmpint (g_get_monotonic_time () - begin, >=, 30000);
}

static pid_t
reach_in_child (const char *specification)
{
  pid_t child = fork ();

  g_assert_cmpint (child, >=, 0);
  if (child == 0) {
    hf_fail_set (specification, NULL);
    hf_fail_point ("before", "register", TRUE, NULL);
    _exit (42);
  }
  return child;
}

static void
test_kill (void)
{
  pid_t child = reach_in_child ("before-register=kill");
  int status;

  g_assert_cmpint (waitpid (child, &status, 0), ==, child);
  g_assert_true (WIFSIGNALED (status));
  g_assert_cmpint (WTERMSIG (status), ==, SIGKILL);
}

/* A stopped process goes on behind the point. */
static void
test_stop (void)
{
  pid_t child = reach_in_child ("before-register=stop");
  int status;

  g_assert_cmpint (waitpid (child, &status, WUNTRACED), ==, child);
  g_assert_true (WIFSTOPPED (status));
  g_assert_cmpint (kill (child, SIGCONT), ==, 0);
  g_assert_cmpint (waitpid (child, &status, 0), ==, child);
  g_assert_true (WIFEXITED (status));
  g_assert_cmpint (WEXITSTATUS (status), ==, 42);
}

/* The suite counts the points it reached by this file, also those where nothing is provoked. Last: the log stays open. */
static void
test_environment (void)
{
  g_autofree char *folder = g_dir_make_tmp ("holdfast-fail-XXXXXX", NULL);
  g_autofree char *path = g_build_filename (folder, "points", NULL);
  g_autofree char *text = NULL;
  g_autoptr (GError) error = NULL;

  g_setenv ("HOLDFAST_FAIL", "before-register=nonsense", TRUE);
  g_assert_false (hf_fail_init (&error));
  g_assert_error (error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE);
  g_clear_error (&error);

  g_setenv ("HOLDFAST_FAIL", "before-register=busy", TRUE);
  g_setenv ("HOLDFAST_FAIL_LOG", path, TRUE);
  g_assert_true (hf_fail_init (&error));
  g_assert_cmpint (hf_fail_point ("before", "observe", TRUE, NULL), ==, HF_FAIL_NOTHING);
  g_assert_cmpint (hf_fail_point ("before", "register", TRUE, NULL), ==, HF_FAIL_BUSY);
  /* The library's own start does not undo the program's. */
  set (NULL);
  hf_fail_init_once ();
  g_assert_cmpint (hf_fail_point ("after", "register", TRUE, NULL), ==, HF_FAIL_NOTHING);
  g_assert_cmpint (hf_fail_point ("before", "register", TRUE, NULL), ==, HF_FAIL_NOTHING);
  g_assert_true (g_file_get_contents (path, &text, NULL, &error));
  g_assert_cmpstr (text, ==, "before-observe\nbefore-register\nafter-register\nbefore-register\n");
  g_unlink (path);
  g_rmdir (folder);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/fail/refused", test_refused);
  g_test_add_func ("/fail/refused-changes-nothing", test_refused_changes_nothing);
  g_test_add_func ("/fail/every-action", test_every_action);
  g_test_add_func ("/fail/steps", test_steps);
  g_test_add_func ("/fail/turns", test_turns);
  g_test_add_func ("/fail/every-command", test_every_command);
  g_test_add_func ("/fail/delay", test_delay);
  g_test_add_func ("/fail/kill", test_kill);
  g_test_add_func ("/fail/stop", test_stop);
  g_test_add_func ("/fail/environment", test_environment);
  return g_test_run ();
}
