/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The program holdfast. Owns: the words before the verb. Thread: main.
 *
 * Theory of operation: options that stand before the verb are defaults for it; everything else is the verb's (run.c).
 */
#include "config.h"

#include "base/descriptors.h"
#include "base/fail.h"
#include "cli/cli.h"

#include <locale.h>
#include <stdio.h>
#include <stdlib.h>

static char *
describe_verbs (void)
{
  GString *text = g_string_new ("Verbs:\n");

  for (const HfVerb *verb = hf_verbs; verb->name; verb++)
    g_string_append_printf (text, "  %-10s %s\n", verb->name, verb->summary);
  g_string_append (text, "\nAn LU is a block or sg node, or iscsi://[user[%password]@]host[:port]/target-iqn/lun .\n"
                         "holdfast VERB --help says more, and so does the manual page holdfast(1), which names the others.");
  return g_string_free (text, FALSE);
}

/* What is wrong before a verb was found. With --json it is a line too. */
static int
fail (char *const *argv, const GError *error)
{
  g_autofree char *message = hf_printable (error->message);
  g_autofree char *line = NULL;
  JsonObject *object;

  fprintf (stderr, "holdfast: %s\nholdfast: try: holdfast --help\n", message);
  if (!g_strv_contains ((const char *const *)argv, "--json"))
    return HF_EXIT_USAGE;
  object = json_object_new ();
  json_object_set_int_member (object, "version", 1);
  json_object_set_int_member (object, "result", HF_EXIT_USAGE);
  json_object_set_object_member (object, "error", hf_json_error (NULL, NULL, error->message));
  line = hf_json_line (object);
  json_object_unref (object);
  fputs (line, stdout);
  return HF_EXIT_USAGE;
}

static int
run_program (int argc, char **argv)
{
  g_autofree char *verbs = describe_verbs ();
  const HfOptionSpec spec = { "VERB ...", "SCSI persistent reservations that follow a virtual machine.", verbs, NULL, TRUE };
  HfOptions options = { 0 };
  g_autoptr (HfSession) session = hf_session_new ();
  g_autoptr (GString) text = g_string_new (NULL);
  g_autoptr (GError) error = NULL;
  g_auto (GStrv) rest = NULL;
  int result;

  setlocale (LC_ALL, "");
  g_set_prgname ("holdfast");
  hf_set_fail_steps ();
  if (argc < 1 || !hf_fail_init (&error))
    return error ? fail (argv, error) : HF_EXIT_USAGE;

  switch (hf_options_parse (&options, &spec, argv, text, &rest, &error)) {
  case HF_PARSE_DONE:
    fputs (text->str, stdout);
    result = fflush (stdout) == 0 ? HF_EXIT_OK : HF_EXIT_FILE;
    break;
  case HF_PARSE_OK:
    if (rest[0]) {
      result = hf_run_verb (session, &options, FALSE, rest);
      break;
    }
    hf_usage_error (&error, "a verb is missing");
    G_GNUC_FALLTHROUGH;
  case HF_PARSE_ERROR:
  default:
    result = fail (argv, error);
  }
  hf_options_clear (&options);
  return result;
}

int
main (int argc, char **argv)
{
  /* Before anything else: what is opened next must not get the number that messages go to. */
  if (!hf_descriptors_occupy_standard ())
    _Exit (HF_EXIT_FILE);
  return run_program (argc, argv);
}
