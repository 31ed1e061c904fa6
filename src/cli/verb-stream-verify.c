/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * holdfast stream verify FILE. Owns: this sub-verb. Thread: main.
 *
 * Theory of operation: verify.h finds what is bad; here it is printed, one line each, and the exit code says whether there was
 * any. What cannot be proved is not bad: its exit code is another, so that nobody throws a good file away.
 */
#include "config.h"

#include "cli/verb-stream.h"
#include "stream/verify.h"

typedef struct {
  char *offset, *progress;
  gboolean any, quick;
  char **files;
} VerifyWords;

static void
verify_words_clear (VerifyWords *words)
{
  g_free (words->offset);
  g_free (words->progress);
  g_strfreev (words->files);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (VerifyWords, verify_words_clear)

static gboolean
parse_verify (HfRun *run, char **argv, VerifyWords *words, GError **error)
{
  const GOptionEntry entries[] = {
    { "offset", 0, 0, G_OPTION_ARG_STRING, &words->offset, "The stream begins so far into FILE", "BYTES" },
    { "any", 0, 0, G_OPTION_ARG_NONE, &words->any, "FILE need not be a stream of QEMU; of what is none checksums are tested",
      NULL },
    { "quick", 0, 0, G_OPTION_ARG_NONE, &words->quick, "Structure only: neither checksums nor each page of a classic stream",
      NULL },
    HF_STREAM_PROGRESS_ENTRY (&words->progress),
    { NULL },
  };
  const HfOptionSpec spec = { "stream verify FILE", "Say whether the state in FILE is whole, or what is bad.", NULL, entries,
                              FALSE };
  g_auto (GStrv) given = hf_stream_argv (argv);

  return hf_run_parse (run, &spec, given, &words->files, error)
         && hf_stream_check_files (words->files, 1, "verify needs one FILE", error);
}

static void
show_problems (HfRun *run, const HfVerifyReport *report)
{
  JsonArray *problems = json_array_new ();

  for (guint i = 0; i < report->problems->len; i++) {
    g_autofree char *text = hf_printable (report->problems->pdata[i]);
    json_array_add_string_element (problems, text);
    g_string_append_printf (run->text, "  %s\n", text);
  }
  if (report->n_problems > report->problems->len)
    g_string_append_printf (run->text, "  and %" G_GUINT64_FORMAT " more\n", report->n_problems - report->problems->len);
  json_object_set_array_member (run->object, "problems", problems);
  json_object_set_int_member (run->object, "n_problems", (gint64)report->n_problems);
}

/* What of a file that is neither good nor bad is right all the same. */
static char *
describe_proved (const HfVerifyReport *report)
{
  GString *text = g_string_new ("not proved");

  if (report->tail && report->tail->end)
    g_string_append_printf (text, "; the end is right, with %u sections before it", report->tail->sections->len);
  if (report->checksums)
    g_string_append (text, "; the checksums are right");
  return g_string_free (text, FALSE);
}

static char *
describe_verdict (const HfVerifyReport *report)
{
  if (report->n_problems == 0)
    return g_strdup (report->checksums ? "good, checksums too" : "good");
  if (hf_verify_report_is_unproved (report))
    return describe_proved (report);
  return g_strdup (report->incomplete ? "incomplete" : "bad");
}

static void
show_report (HfRun *run, const char *path, const HfImage *image, const HfVerifyReport *report)
{
  g_autofree char *shown = hf_printable (path);
  g_autofree char *verdict = describe_verdict (report);
  const HfStreamMap *map = report->forward ? report->forward : report->tail;
  gboolean good = report->n_problems == 0, proved = !hf_verify_report_is_unproved (report);

  hf_json_set_string (run->object, "file", path);
  hf_json_set_string (run->object, "kind", hf_image_kind_name (image->kind));
  json_object_set_boolean_member (run->object, "good", good);
  json_object_set_boolean_member (run->object, "proved", proved);
  json_object_set_boolean_member (run->object, "incomplete", report->incomplete);
  json_object_set_boolean_member (run->object, "checksums", report->checksums);
  json_object_set_int_member (run->object, "sections", map ? map->sections->len : 0);
  json_object_set_int_member (run->object, "present_pages", (gint64)report->present_pages);
  g_string_append_printf (run->text, "%s: %s\n", shown, verdict);
  show_problems (run, report);
  if (!proved) {
    run->result = HF_EXIT_REFUSED;
    hf_run_warn (run, "%s: nothing is wrong with what could be tested, but that is not all", path);
  } else if (!good) {
    run->result = HF_EXIT_MALFORMED;
    hf_run_warn (run, "%s: %" G_GUINT64_FORMAT " problem%s", path, report->n_problems, report->n_problems == 1 ? "" : "s");
  }
}

gboolean
hf_stream_verify (HfRun *run, char **argv, GError **error)
{
  g_auto (VerifyWords) words = { 0 };
  g_autoptr (HfImage) image = NULL;
  g_autoptr (HfVerifyReport) report = NULL;
  g_autoptr (GError) failure = NULL;
  HfStreamWork work;
  guint64 offset;
  gboolean done;

  if (!parse_verify (run, argv, &words, error) || !hf_stream_parse_size ("--offset", words.offset, &offset, error)
      || !hf_stream_work_begin (&work, words.progress, error))
    return FALSE;
  image = hf_image_open (words.files[0], offset, words.any, &failure);
  done = image && hf_verify_image (image, words.quick ? HF_VERIFY_QUICK : HF_VERIFY_DEFAULT, &work.job, &report, &failure);
  if (done) /* also of what took no time to look at */
    hf_progress_step (image->end - image->start, image->end - image->start, &work.progress);
  hf_stream_work_end (&work);
  if (done)
    show_report (run, words.files[0], image, report);
  else
    hf_stream_report_error (run, words.files[0], failure);
  return TRUE;
}
