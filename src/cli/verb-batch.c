/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * holdfast batch [FILE|-]: one verb for each line. Owns: this verb. Thread: main.
 *
 * Theory of operation: the session outlives the lines, so an LU that one line named is the same nexus in the next. A line that
 * fails does not end the batch. Each verb's output is complete and flushed before the next line is read, so a program can talk to
 * a batch through two pipes.
 */
#include "config.h"

#include "base/fail.h"
#include "cli/cli.h"
#include "cli/interrupt.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FAIL_WORD "HOLDFAST_FAIL="

/* A line that is no verb: printed as a verb's usage error is. */
static int
refuse_line (const HfRun *run, guint number, const GError *error)
{
  g_autofree char *message = hf_printable (error->message);
  JsonObject *object;
  g_autofree char *line = NULL;

  fprintf (stderr, "holdfast: line %u: %s\n", number, message);
  fflush (stderr);
  if (!run->options.json)
    return HF_EXIT_USAGE;
  object = json_object_new ();
  json_object_set_int_member (object, "version", 1);
  json_object_set_int_member (object, "result", HF_EXIT_USAGE);
  json_object_set_object_member (object, "error", hf_json_error (NULL, NULL, error->message));
  line = hf_json_line (object);
  json_object_unref (object);
  fputs (line, stdout);
  fflush (stdout);
  return HF_EXIT_USAGE;
}

/* The line with its own fault injection, which ends with it. */
static int
run_words (const HfRun *run, char **words, guint number)
{
  const char *specification = NULL;
  g_autoptr (GError) error = NULL;
  int result;

  for (; words[0] && g_str_has_prefix (words[0], FAIL_WORD); words++)
    specification = words[0] + strlen (FAIL_WORD);
  if (!words[0])
    hf_usage_error (&error, "a verb is missing behind %s", FAIL_WORD);
  else if (strcmp (words[0], "batch") == 0)
    hf_usage_error (&error, "a batch cannot be in a batch");
  else if (specification)
    hf_fail_set (specification, &error);
  if (error)
    return refuse_line (run, number, error);

  result = hf_run_verb (run->session, &run->options, TRUE, words);
  /* The environment's specification was accepted when the program started. */
  if (specification)
    hf_fail_set (g_getenv ("HOLDFAST_FAIL"), NULL);
  return result;
}

static int
run_line (const HfRun *run, const char *line, gsize length, guint number)
{
  g_auto (GStrv) words = NULL;
  g_autoptr (GError) error = NULL;

  if (strlen (line) != length) {
    hf_usage_error (&error, "a NUL byte");
    return refuse_line (run, number, error);
  }
  if (g_shell_parse_argv (line, NULL, &words, &error))
    return run_words (run, words, number);
  if (g_error_matches (error, G_SHELL_ERROR, G_SHELL_ERROR_EMPTY_STRING))
    return HF_EXIT_OK;
  return refuse_line (run, number, error);
}

static void
run_lines (HfRun *run, FILE *file)
{
  char *line = NULL;
  size_t size = 0;
  ssize_t length;

  for (guint number = 1; (length = getline (&line, &size, file)) >= 0; number++) {
    const char *start = line;
    if (length > 0 && line[length - 1] == '\n')
      line[--length] = '\0';
    while (g_ascii_isspace (*start))
      start++;
    if (*start == '#')
      continue;
    run->result = hf_exit_code_combine (run->result, run_line (run, line, (gsize)length, number));
    if (hf_interrupted ())
      break;
  }
  /* A file that ends early is not a batch that ended. */
  if (ferror (file)) {
    hf_run_warn (run, "the lines cannot be read on: %s", g_strerror (errno));
    run->result = hf_exit_code_combine (run->result, HF_EXIT_FILE);
  }
  free (line);
}

gboolean
hf_verb_batch (HfRun *run, char **argv, GError **error)
{
  const HfOptionSpec spec = { "batch [FILE|-]", "Run one verb per line. LUs stay open from line to line.", NULL, NULL, FALSE };
  g_auto (GStrv) files = NULL;
  FILE *file = stdin;

  if (!hf_run_parse (run, &spec, argv, &files, error))
    return FALSE;
  if (files[0] && files[1])
    return hf_usage_error (error, "batch reads one file");
  if (files[0] && strcmp (files[0], "-") != 0)
    file = fopen (files[0], "re");
  if (!file) {
    g_set_error (error, HF_RECORD_ERROR, HF_RECORD_ERROR_FILE, "%s: %s", files[0], g_strerror (errno));
    return FALSE;
  }
  run->silent = TRUE;
  run_lines (run, file);
  if (file != stdin)
    fclose (file);
  return TRUE;
}
