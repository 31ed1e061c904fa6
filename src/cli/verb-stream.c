/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * holdfast stream SUBVERB: state of VMs in files. Owns: the table of sub-verbs, and the words that they share. Thread: main.
 *
 * Theory of operation: the words before the sub-verb are the options of every verb; what follows belongs to the sub-verb, which
 * is parsed like a verb of its own. The work itself is src/stream; a sub-verb opens what it was told to, lets it run with
 * progress and signals in place, and says how it ended.
 */
#include "config.h"

#include "base/deadline.h"
#include "cli/interrupt.h"
#include "cli/verb-stream.h"
#include "stream/save-file.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>

#define ID_MAX 64u

static const struct {
  const char *name, *summary;
  HfVerbFunc run;
} sub_verbs[] = {
  { "capture", "write a migration stream into a file", hf_stream_capture },
  { "replay", "give the stream in a file back", hf_stream_replay },
  { "wait", "wait for a capture, and say how it ended", hf_stream_wait },
  { "convert", "turn a classic file into mapped-ram, or back", hf_stream_convert },
  { "inspect", "show what is in a file", hf_stream_inspect },
  { "verify", "say whether a file is whole, or what is bad", hf_stream_verify },
};

static char *
describe_sub_verbs (void)
{
  GString *text = g_string_new ("Sub-verbs:\n");

  for (guint i = 0; i < G_N_ELEMENTS (sub_verbs); i++)
    g_string_append_printf (text, "  %-8s %s\n", sub_verbs[i].name, sub_verbs[i].summary);
  g_string_append (text, "\nholdfast stream SUBVERB --help says more, and so does holdfast-stream(1).");
  return g_string_free (text, FALSE);
}

gboolean
hf_verb_stream (HfRun *run, char **argv, GError **error)
{
  g_autofree char *description = describe_sub_verbs ();
  const HfOptionSpec spec = { "stream SUBVERB ...", "Carry the state of a VM through a file.", description, NULL, TRUE };
  g_auto (GStrv) rest = NULL;

  if (!hf_run_parse (run, &spec, argv, &rest, error))
    return FALSE;
  if (!rest[0])
    return hf_usage_error (error, "stream needs a sub-verb");
  for (guint i = 0; i < G_N_ELEMENTS (sub_verbs); i++)
    if (strcmp (sub_verbs[i].name, rest[0]) == 0)
      return sub_verbs[i].run (run, rest, error);
  return hf_usage_error (error, "\"%s\" is not a sub-verb of stream", rest[0]);
}

/* ---- words ---- */

char **
hf_stream_argv (char **argv)
{
  char **words = g_strdupv (argv);

  for (guint i = 0; words[i] && strcmp (words[i], "--") != 0; i++)
    if (strcmp (words[i], "--progress") == 0) {
      g_free (words[i]);
      words[i] = g_strdup ("--progress=auto");
    }
  return words;
}

gboolean
hf_stream_parse_size (const char *option, const char *text, guint64 *ret, GError **error)
{
  static const char suffixes[] = "kmgt";
  const char *suffix = NULL;
  char *end = NULL;
  guint64 value;
  guint shift = 0;

  *ret = 0;
  if (!text)
    return TRUE;
  /* g_ascii_strtoull takes a sign and blanks, and says an overflow by errno only. */
  if (!g_ascii_isdigit (*text))
    return hf_usage_error (error, "%s wants a number of bytes, not \"%s\"", option, text);
  errno = 0;
  value = g_ascii_strtoull (text, &end, g_ascii_strncasecmp (text, "0x", 2) == 0 ? 16 : 10);
  if (*end && end > text)
    suffix = strchr (suffixes, g_ascii_tolower (*end));
  if (suffix && *suffix) {
    shift = 10 * (guint)(suffix - suffixes + 1);
    end++;
  }
  if (*end || errno != 0 || value > (guint64)G_MAXINT64 >> shift)
    return hf_usage_error (error, "%s wants a number of bytes, with K, M, G or T behind it, not \"%s\"", option, text);
  *ret = value << shift;
  return TRUE;
}

gboolean
hf_stream_parse_engine (const char *text, HfEngineKind *ret, GError **error)
{
  static const char *const names[] = { [HF_ENGINE_AUTO] = "auto", [HF_ENGINE_RING] = "ring", [HF_ENGINE_THREADS] = "threads" };

  *ret = HF_ENGINE_AUTO;
  if (!text)
    return TRUE;
  for (guint i = 0; i < G_N_ELEMENTS (names); i++)
    if (strcmp (names[i], text) == 0) {
      *ret = (HfEngineKind)i;
      return TRUE;
    }
  return hf_usage_error (error, "--engine is auto, ring or threads, not \"%s\"", text);
}

gboolean
hf_stream_parse_fd (const char *text, int *ret, GError **error)
{
  guint64 number;

  *ret = -1;
  if (!text)
    return TRUE;
  if (!g_ascii_string_to_unsigned (text, 10, 0, G_MAXINT, &number, NULL))
    return hf_usage_error (error, "--fd wants the number of a descriptor, not \"%s\"", text);
  if (fcntl ((int)number, F_GETFD) < 0)
    return hf_usage_error (error, "--fd %s: there is no such descriptor", text);
  *ret = (int)number;
  return TRUE;
}

gboolean
hf_stream_check_files (char *const *rest, guint n, const char *what, GError **error)
{
  guint given = g_strv_length ((char **)rest);

  for (guint i = 0; i < given; i++)
    if (!*rest[i])
      return hf_usage_error (error, "the name of a file is empty");
  return given == n || hf_usage_error (error, "%s", what);
}

gboolean
hf_stream_check_id (const char *id, GError **error)
{
  gsize length = id ? strlen (id) : 1;
  gboolean good = length > 0 && length <= ID_MAX;

  for (gsize i = 0; id && good && i < length; i++)
    good = g_ascii_isgraph (id[i]);
  return good || hf_usage_error (error, "--id wants 1 to %u printable characters of ASCII, and no blanks", ID_MAX);
}

gboolean
hf_stream_check_output (const char *path, GError **error)
{
  const char *problem = hf_save_file_name_problem (path);

  return !problem || hf_usage_error (error, "%s", problem);
}

/* ---- work ---- */

gint64
hf_stream_connection_deadline (const HfRun *run)
{
  return run->options.timeout_ms ? hf_deadline_after_ms (run->options.timeout_ms) : 0;
}

gboolean
hf_stream_work_begin (HfStreamWork *work, const char *word, GError **error)
{
  HfProgressKind kind;

  if (!hf_progress_parse (word, &kind))
    return hf_usage_error (error, "--progress is auto, json or none, not \"%s\"", word);
  hf_progress_begin (&work->progress, kind);
  work->job = (HfStreamJob){ .interrupt_fd = hf_interrupt_begin_fd (), .progress = hf_progress_step, .data = &work->progress };
  return TRUE;
}

void
hf_stream_work_end (HfStreamWork *work)
{
  hf_progress_end (&work->progress);
  hf_interrupt_end ();
}

void
hf_stream_report_error (HfRun *run, const char *path, const GError *error)
{
  int code = hf_error_to_exit_code (error);

  if (g_error_matches (error, HF_STREAM_ERROR, HF_STREAM_ERROR_INTERRUPTED))
    code = hf_stream_outcome_to_exit_code (HF_OUTCOME_INTERRUPTED, hf_interrupted ());
  run->result = hf_exit_code_combine (run->result, code);
  hf_run_fail (run, path, NULL, NULL, error->message);
  json_object_set_object_member (run->object, "error", hf_json_error (NULL, NULL, error->message));
}

/* ---- how a capture ended ---- */

int
hf_stream_outcome_to_exit_code (HfStreamOutcome outcome, int signal)
{
  static const int codes[HF_N_STREAM_OUTCOMES] = { [HF_OUTCOME_COMMITTED] = HF_EXIT_OK,
                                                   [HF_OUTCOME_INCOMPLETE] = HF_EXIT_MALFORMED,
                                                   [HF_OUTCOME_FAILED] = HF_EXIT_FILE,
                                                   [HF_OUTCOME_MALFORMED] = HF_EXIT_MALFORMED,
                                                   [HF_OUTCOME_UNSUPPORTED] = HF_EXIT_REFUSED };

  /* As a shell says it of a process that the signal ended. */
  return outcome == HF_OUTCOME_INTERRUPTED ? 128 + (signal ? signal : SIGINT) : codes[outcome];
}

void
hf_stream_show_status (HfRun *run, const char *path, const HfStreamStatus *status, int signal)
{
  JsonObject *object = run->object;

  run->result = hf_stream_outcome_to_exit_code (status->outcome, signal);
  hf_json_set_string (object, "file", path);
  hf_json_set_string (object, "outcome", hf_stream_outcome_name (status->outcome));
  hf_json_set_string (object, "format", status->format);
  json_object_set_int_member (object, "bytes", (gint64)status->bytes);
  json_object_set_double_member (object, "seconds", status->seconds);
  json_object_set_int_member (object, "time", status->time);
  json_object_set_boolean_member (object, "sync", status->sync);
  json_object_set_boolean_member (object, "complete", status->complete);
  if (status->id)
    hf_json_set_string (object, "id", status->id);
  else
    json_object_set_null_member (object, "id");
  if (status->outcome != HF_OUTCOME_COMMITTED) {
    const char *text = status->error ? status->error : hf_stream_outcome_name (status->outcome);
    hf_run_fail (run, path, NULL, NULL, text);
    json_object_set_object_member (object, "error", hf_json_error (NULL, NULL, text));
  } else {
    g_autofree char *shown = hf_printable (path);
    g_string_append_printf (run->text, "%s: committed, %" G_GUINT64_FORMAT " bytes in %.1f s%s\n", shown, status->bytes,
                            status->seconds, status->sync ? "" : ", not synced: a crash of the host may damage it");
  }
}
