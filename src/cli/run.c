/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns: the run of one verb, from its words to its exit code. Thread: main.
 *
 * Theory of operation: the verb fills text, object and warnings; what of them is printed is decided here, once. With --json every
 * run prints exactly one line, also when it failed before it touched anything, because who reads a batch counts lines.
 */
#include "config.h"

#include "cli/cli.h"
#include "cli/helper-client.h"
#include "cli/selftest.h"
#include "stream/stream-error.h"

#include <holdfast/io.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

G_DEFINE_QUARK (hf - usage - error - quark, hf_usage_error)

gboolean
hf_usage_error (GError **error, const char *format, ...)
{
  va_list arguments;
  g_autofree char *message = NULL;

  va_start (arguments, format);
  message = g_strdup_vprintf (format, arguments);
  va_end (arguments);
  g_set_error_literal (error, HF_USAGE_ERROR, HF_USAGE_ERROR_FAILED, message);
  return FALSE;
}

static int
pr_error_to_exit_code (int code)
{
  switch ((HfPrError)code) {
  case HF_PR_ERROR_ARGUMENT:
  case HF_PR_ERROR_KEY:
    return HF_EXIT_USAGE;
  case HF_PR_ERROR_ANSWER:
    return HF_EXIT_MALFORMED;
  case HF_PR_ERROR_JOURNAL:
    return HF_EXIT_FILE;
  case HF_PR_ERROR_DEVICE:
  case HF_PR_ERROR_CHANGING:
  case HF_PR_ERROR_STATE:
    break;
  }
  return HF_EXIT_OTHER;
}

static int
stream_error_to_exit_code (int code)
{
  switch ((HfStreamError)code) {
  case HF_STREAM_ERROR_FILE:
    return HF_EXIT_FILE;
  case HF_STREAM_ERROR_INCOMPLETE:
  case HF_STREAM_ERROR_MALFORMED:
  case HF_STREAM_ERROR_CHECKSUM:
    return HF_EXIT_MALFORMED;
  case HF_STREAM_ERROR_UNSUPPORTED:
    return HF_EXIT_REFUSED;
  case HF_STREAM_ERROR_BUSY:
    return HF_EXIT_BUSY;
  case HF_STREAM_ERROR_INTERRUPTED:
    break;
  }
  return HF_EXIT_OTHER;
}

int
hf_error_to_exit_code (const GError *error)
{
  if (error->domain == HF_USAGE_ERROR || error->domain == G_OPTION_ERROR)
    return HF_EXIT_USAGE;
  if (error->domain == HF_RECORD_ERROR)
    return error->code == HF_RECORD_ERROR_FILE ? HF_EXIT_FILE : HF_EXIT_RECORD;
  if (g_error_matches (error, HF_SCSI_ERROR, HF_SCSI_ERROR_IDENTITY))
    return HF_EXIT_RECORD;
  if (error->domain == HF_SCSI_ERROR)
    return hf_scsi_error_to_exit_code (error);
  if (error->domain == HF_SELFTEST_ERROR)
    return HF_EXIT_REFUSED;
  if (error->domain == HF_HELPER_ERROR)
    return error->code;
  if (error->domain == HF_PR_ERROR)
    return pr_error_to_exit_code (error->code);
  if (error->domain == HF_STREAM_ERROR)
    return stream_error_to_exit_code (error->code);
  if (error->domain == HF_IO_ERROR)
    return HF_EXIT_FILE;
  return HF_EXIT_OTHER;
}

static gboolean
is_own_exit_code (int code)
{
  return code >= HF_EXIT_REFUSED && code <= HF_EXIT_RECORD;
}

int
hf_exit_code_combine (int first, int second)
{
  if (is_own_exit_code (first) && is_own_exit_code (second))
    return MAX (first, second);
  if (is_own_exit_code (second))
    return second;
  return first ? first : second;
}

char *
hf_printable (const char *text)
{
  g_autofree char *valid = NULL;
  GString *out;

  if (!text)
    return NULL;
  valid = g_utf8_make_valid (text, -1);
  out = g_string_sized_new (strlen (valid));
  for (const char *p = valid; *p; p = g_utf8_next_char (p)) {
    gunichar c = g_utf8_get_char (p);
    /* Format characters too: they turn the direction of what follows. */
    if (g_unichar_iscntrl (c) || g_unichar_type (c) == G_UNICODE_FORMAT)
      g_string_append_printf (out, c < 0x100 ? "\\x%02x" : "\\u%04x", c);
    else
      g_string_append_unichar (out, c);
  }
  return g_string_free (out, FALSE);
}

void
hf_run_warn (HfRun *run, const char *format, ...)
{
  va_list arguments;
  g_autofree char *message = NULL, *printable = NULL;

  va_start (arguments, format);
  message = g_strdup_vprintf (format, arguments);
  va_end (arguments);
  printable = hf_printable (message);
  g_string_append_printf (run->warnings, "holdfast: %s\n", printable);
}

gboolean
hf_run_parse (HfRun *run, const HfOptionSpec *spec, char **argv, char ***ret_rest, GError **error)
{
  HfParse parse = hf_options_parse (&run->options, spec, argv, run->text, ret_rest, error);

  /* Help is for people, whatever else was asked for; but who reads a batch's lines needs his line. */
  run->plain = parse == HF_PARSE_DONE && !run->in_batch;
  return parse == HF_PARSE_OK;
}

/* text has word as one of the parts that stand before a colon. */
static gboolean
names (const char *text, const char *word)
{
  g_autofree char *part = g_strconcat (word, ": ", NULL);

  return strstr (text, part) != NULL;
}

void
hf_run_fail (HfRun *run, const char *object, const char *step, const HfScsiResult *result, const char *text)
{
  g_autofree char *answer = result ? hf_scsi_result_to_string (result) : NULL;
  const char *said = text ? text : "";
  GString *line = g_string_new (NULL);

  /* Each once: the library's messages name some of them, by where they come from. */
  if (object && !names (said, object))
    g_string_append_printf (line, "%s: ", object);
  if (step && !names (said, step))
    g_string_append_printf (line, "%s: ", step);
  g_string_append (line, said);
  if (answer && !strstr (said, answer))
    g_string_append_printf (line, "%s%s", *said ? ": " : "", answer);
  hf_run_warn (run, "%s", line->str);
  g_string_free (line, TRUE);
}

gboolean
hf_run_no_answer (HfRun *run, HfLu *lu, const char *step, const GError *error)
{
  run->result = hf_error_to_exit_code (error);
  hf_run_fail (run, hf_lu_get_address (lu), step, NULL, error->message);
  json_object_set_object_member (run->object, "error", hf_json_error (step, NULL, error->message));
  return TRUE;
}

static const HfVerb *
find_verb (const char *name, GError **error)
{
  for (const HfVerb *verb = hf_verbs; verb->name; verb++)
    if (strcmp (verb->name, name) == 0)
      return verb;
  hf_usage_error (error, "\"%s\" is not a verb of holdfast", name);
  return NULL;
}

static void
report_failure (HfRun *run, const char *verb, const GError *error)
{
  run->result = hf_error_to_exit_code (error);
  hf_run_warn (run, "%s", error->message);
  if (error->domain == HF_USAGE_ERROR && verb)
    hf_run_warn (run, "try: holdfast %s --help", verb);
  else if (error->domain == HF_USAGE_ERROR)
    hf_run_warn (run, "try: holdfast --help");
  json_object_set_object_member (run->object, "error", hf_json_error (NULL, NULL, error->message));
}

/* The words of a line that GOption could not read: then --json counts wherever it stands, so that a reader of lines gets his
 * line. */
static gboolean
wants_json (const HfRun *run, char **argv)
{
  return run->options.json || g_strv_contains ((const char *const *)argv, "--json");
}

int
hf_run_verb_to_strings (HfSession *session, const HfOptions *defaults, gboolean in_batch, char **argv, char **ret_out,
                        char **ret_err)
{
  HfRun run = { .session = session, .in_batch = in_batch };
  g_autoptr (GError) error = NULL;
  const HfVerb *verb;

  hf_options_copy (defaults, &run.options);
  run.text = g_string_new (NULL);
  run.warnings = g_string_new (NULL);
  run.object = json_object_new ();
  json_object_set_int_member (run.object, "version", 1);
  json_object_set_int_member (run.object, "result", 0);

  verb = find_verb (argv[0], &error);
  if (!verb || (!verb->run (&run, argv, &error) && error))
    report_failure (&run, verb ? verb->name : NULL, error);

  if (hf_session_take_name_ignored (session))
    hf_run_warn (&run, "warning: --initiator-name and --isid have no effect on a device node: the kernel logged in");
  json_object_set_int_member (run.object, "result", run.result);
  if (run.silent)
    *ret_out = g_strdup ("");
  else
    *ret_out = !run.plain && wants_json (&run, argv) ? hf_json_line (run.object) : g_strdup (run.text->str);
  *ret_err = g_string_free (run.warnings, FALSE);
  g_string_free (run.text, TRUE);
  json_object_unref (run.object);
  hf_options_clear (&run.options);
  return run.result;
}

int
hf_run_verb (HfSession *session, const HfOptions *defaults, gboolean in_batch, char **argv)
{
  g_autofree char *out = NULL, *err = NULL;
  int result = hf_run_verb_to_strings (session, defaults, in_batch, argv, &out, &err);

  /* Errors first: who sees the line of output may rely on all of this verb being there. */
  fputs (err, stderr);
  fflush (stderr);
  if ((fputs (out, stdout) < 0 || fflush (stdout) != 0) && result == HF_EXIT_OK)
    return HF_EXIT_FILE;
  return result;
}
