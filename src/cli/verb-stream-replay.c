/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * holdfast stream replay FILE, and convert IN OUT. Owns: these sub-verbs. Thread: main.
 *
 * Theory of operation: what replay writes is a stream, so on standard output nothing else may be: no JSON, no other line of a
 * batch, and no terminal.
 */
#include "config.h"

#include "cli/stream-socket.h"
#include "cli/verb-stream.h"
#include "stream/capture.h"
#include "stream/convert.h"

#include <string.h>
#include <unistd.h>

typedef struct {
  char *fd, *listen, *connect, *offset, *engine, *progress;
  gboolean any, no_verify;
  char **files;
} ReplayWords;

static void
replay_words_clear (ReplayWords *words)
{
  g_free (words->fd);
  g_free (words->listen);
  g_free (words->connect);
  g_free (words->offset);
  g_free (words->engine);
  g_free (words->progress);
  g_strfreev (words->files);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (ReplayWords, replay_words_clear)

static gboolean
parse_replay (HfRun *run, char **argv, ReplayWords *words, GError **error)
{
  const GOptionEntry entries[] = {
    { "fd", 0, 0, G_OPTION_ARG_STRING, &words->fd, "Write to this descriptor", "N" },
    { "listen", 0, 0, G_OPTION_ARG_FILENAME, &words->listen, "Make a socket and write to one connection: unix:PATH", "SOCKET" },
    { "connect", 0, 0, G_OPTION_ARG_FILENAME, &words->connect, "Write to a socket that somebody listens on: unix:PATH",
      "SOCKET" },
    { "offset", 0, 0, G_OPTION_ARG_STRING, &words->offset, "The stream begins so far into FILE", "BYTES" },
    { "any", 0, 0, G_OPTION_ARG_NONE, &words->any, "FILE need not be a stream of QEMU", NULL },
    { "no-verify", 0, 0, G_OPTION_ARG_NONE, &words->no_verify, "Do not test the checksums on the way", NULL },
    HF_STREAM_ENGINE_ENTRY (&words->engine),
    HF_STREAM_PROGRESS_ENTRY (&words->progress),
    { NULL },
  };
  const HfOptionSpec spec = { "stream replay FILE", "Write the stream in FILE to standard output, as it was captured.", NULL,
                              entries, FALSE };
  g_auto (GStrv) given = hf_stream_argv (argv);

  if (!hf_run_parse (run, &spec, given, &words->files, error)
      || !hf_stream_check_files (words->files, 1, "replay needs one FILE", error))
    return FALSE;
  if ((words->fd != NULL) + (words->listen != NULL) + (words->connect != NULL) > 1)
    return hf_usage_error (error, "--fd, --listen and --connect exclude each other");
  return TRUE;
}

/* What the stream goes to unless it is a socket. */
static gboolean
find_output (HfRun *run, const ReplayWords *words, int *ret, GError **error)
{
  if (!hf_stream_parse_fd (words->fd, ret, error))
    return FALSE;
  if (words->listen || words->connect)
    return TRUE;
  if (*ret < 0)
    *ret = STDOUT_FILENO;
  if (*ret == STDOUT_FILENO && (run->in_batch || run->options.json))
    return hf_usage_error (error, "the stream leaves no room for other output: name --fd, --listen or --connect");
  if (isatty (*ret))
    return hf_usage_error (error, "the stream would go to a terminal: pipe it on, or name --fd, --listen or --connect");
  run->silent = *ret == STDOUT_FILENO;
  return TRUE;
}

static int
open_output (const HfRun *run, const ReplayWords *words, int output, HfStreamWork *work, GError **error)
{
  if (words->connect)
    return hf_stream_connect (words->connect, hf_stream_connection_deadline (run), &work->job, error);
  if (!words->listen)
    return output;
  output = hf_stream_listen (words->listen, hf_stream_connection_deadline (run), &work->job, error);
  hf_progress_begin (&work->progress, work->progress.kind);
  return output;
}

static gboolean
replay (HfRun *run, const ReplayWords *words, const HfReplayOptions *options, int given, GError **error)
{
  g_autoptr (GError) failure = NULL;
  HfStreamWork work;
  guint64 bytes = 0;
  gboolean done;
  int output;

  if (!hf_stream_work_begin (&work, words->progress, error))
    return FALSE;
  output = open_output (run, words, given, &work, &failure);
  done = output >= 0 && hf_replay (words->files[0], output, options, &work.job, &bytes, &failure);
  hf_stream_work_end (&work);
  /* Who reads a socket sees the end of the stream by its end. */
  if (output >= 0 && output != given)
    close (output);
  hf_json_set_string (run->object, "file", words->files[0]);
  json_object_set_int_member (run->object, "bytes", (gint64)bytes);
  if (done) {
    g_autofree char *shown = hf_printable (words->files[0]);
    g_string_append_printf (run->text, "%s: %" G_GUINT64_FORMAT " bytes\n", shown, bytes);
  } else {
    hf_stream_report_error (run, output >= 0 ? words->files[0] : NULL, failure);
  }
  return TRUE;
}

gboolean
hf_stream_replay (HfRun *run, char **argv, GError **error)
{
  g_auto (ReplayWords) words = { 0 };
  HfReplayOptions options = { .engine = HF_ENGINE_AUTO };
  int output;

  if (!parse_replay (run, argv, &words, error) || !find_output (run, &words, &output, error)
      || !hf_stream_parse_size ("--offset", words.offset, &options.offset, error)
      || !hf_stream_parse_engine (words.engine, &options.engine, error))
    return FALSE;
  options.any = words.any;
  options.no_verify = words.no_verify;
  return replay (run, &words, &options, output, error);
}

/* ---- convert ---- */

typedef struct {
  char *to, *offset, *engine, *progress;
  gboolean no_sync, buffered;
  char **files;
} ConvertWords;

static void
convert_words_clear (ConvertWords *words)
{
  g_free (words->to);
  g_free (words->offset);
  g_free (words->engine);
  g_free (words->progress);
  g_strfreev (words->files);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (ConvertWords, convert_words_clear)

typedef gboolean (*Converter) (HfImage *image, const char *output, const HfConvertOptions *options, const HfStreamJob *job,
                               GError **error);

static const struct {
  const char *name;
  Converter convert;
} formats[] = {
  { "mapped-ram", hf_convert_to_mapped },
  { "classic", hf_convert_to_classic },
};

static gboolean
parse_convert (HfRun *run, char **argv, ConvertWords *words, Converter *ret, GError **error)
{
  const GOptionEntry entries[] = {
    { "to", 0, 0, G_OPTION_ARG_STRING, &words->to, "mapped-ram or classic", "FORMAT" },
    { "offset", 0, 0, G_OPTION_ARG_STRING, &words->offset, "The stream begins so far into IN", "BYTES" },
    { "no-sync", 0, 0, G_OPTION_ARG_NONE, &words->no_sync, "Do not wait for the disk: a crash of the host may damage the file",
      NULL },
    { "buffered", 0, 0, G_OPTION_ARG_NONE, &words->buffered, "Write through the page cache, without O_DIRECT", NULL },
    HF_STREAM_ENGINE_ENTRY (&words->engine),
    HF_STREAM_PROGRESS_ENTRY (&words->progress),
    { NULL },
  };
  const HfOptionSpec spec = { "stream convert --to FORMAT IN OUT", "Write the state in IN into OUT in another format.", NULL,
                              entries, FALSE };
  g_auto (GStrv) given = hf_stream_argv (argv);

  if (!hf_run_parse (run, &spec, given, &words->files, error))
    return FALSE;
  for (guint i = 0; words->to && i < G_N_ELEMENTS (formats); i++)
    if (strcmp (formats[i].name, words->to) == 0)
      *ret = formats[i].convert;
  if (!*ret)
    return hf_usage_error (error, "convert needs --to mapped-ram or --to classic");
  return hf_stream_check_files (words->files, 2, "convert needs two files, IN and OUT", error)
         && hf_stream_check_output (words->files[1], error);
}

gboolean
hf_stream_convert (HfRun *run, char **argv, GError **error)
{
  g_auto (ConvertWords) words = { 0 };
  HfConvertOptions options = { .flags = HF_SAVE_DEFAULT };
  g_autoptr (HfImage) image = NULL;
  g_autoptr (GError) failure = NULL;
  Converter convert = NULL;
  HfStreamWork work;
  guint64 offset;
  gboolean done;

  if (!parse_convert (run, argv, &words, &convert, error) || !hf_stream_parse_size ("--offset", words.offset, &offset, error)
      || !hf_stream_parse_engine (words.engine, &options.engine, error))
    return FALSE;
  options.flags = (words.no_sync ? HF_SAVE_NO_SYNC : 0) | (words.buffered ? HF_SAVE_BUFFERED : 0);
  if (!hf_stream_work_begin (&work, words.progress, error))
    return FALSE;
  image = hf_image_open (words.files[0], offset, FALSE, &failure);
  done = image && convert (image, words.files[1], &options, &work.job, &failure);
  hf_stream_work_end (&work);
  hf_json_set_string (run->object, "input", words.files[0]);
  hf_json_set_string (run->object, "output", words.files[1]);
  hf_json_set_string (run->object, "format", words.to);
  if (done) {
    g_autofree char *shown = hf_printable (words.files[1]);
    g_string_append_printf (run->text, "%s: %s\n", shown, words.to);
  } else {
    g_autofree char *both = g_strdup_printf ("%s to %s", words.files[0], words.files[1]);
    hf_stream_report_error (run, image ? both : words.files[0], failure);
  }
  return TRUE;
}
