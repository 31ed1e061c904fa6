/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * holdfast stream capture FILE and wait FILE: a stream into a file, and how that ended. Owns: these sub-verbs. Thread: main.
 *
 * Theory of operation: who has not said where the stream comes from means standard input, which must then be somebody's stream:
 * not a terminal, and not the lines of a batch. The exit codes of both say the same, because QEMU throws away the one of capture.
 */
#include "config.h"

#include "base/deadline.h"
#include "cli/interrupt.h"
#include "cli/stream-socket.h"
#include "cli/verb-stream.h"
#include "stream/capture.h"

#include <string.h>
#include <unistd.h>

typedef struct {
  char *fd, *listen, *offset, *id, *engine, *progress;
  gboolean any, mapped, no_sync, buffered;
  char **files;
} CaptureWords;

static void
capture_words_clear (CaptureWords *words)
{
  g_free (words->fd);
  g_free (words->listen);
  g_free (words->offset);
  g_free (words->id);
  g_free (words->engine);
  g_free (words->progress);
  g_strfreev (words->files);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (CaptureWords, capture_words_clear)

static gboolean
parse_capture (HfRun *run, char **argv, CaptureWords *words, GError **error)
{
  const GOptionEntry entries[] = {
    { "fd", 0, 0, G_OPTION_ARG_STRING, &words->fd, "Read from this descriptor", "N" },
    { "listen", 0, 0, G_OPTION_ARG_FILENAME, &words->listen, "Make a socket and read from one connection: unix:PATH", "SOCKET" },
    { "offset", 0, 0, G_OPTION_ARG_STRING, &words->offset, "Keep the first bytes of FILE and write behind them", "BYTES" },
    { "id", 0, 0, G_OPTION_ARG_STRING, &words->id, "A word of your own for FILE.status, which wait --id looks for", "WORD" },
    { "any", 0, 0, G_OPTION_ARG_NONE, &words->any, "Not a stream of QEMU: the end of input is the end", NULL },
    { "mapped", 0, 0, G_OPTION_ARG_NONE, &words->mapped, "Write a mapped-ram file, bounded by the guest's memory", NULL },
    { "no-sync", 0, 0, G_OPTION_ARG_NONE, &words->no_sync, "Do not wait for the disk: a crash of the host may damage the file",
      NULL },
    { "buffered", 0, 0, G_OPTION_ARG_NONE, &words->buffered, "Write through the page cache, without O_DIRECT", NULL },
    HF_STREAM_ENGINE_ENTRY (&words->engine),
    HF_STREAM_PROGRESS_ENTRY (&words->progress),
    { NULL },
  };
  const HfOptionSpec spec = { "stream capture FILE", "Write a migration stream into FILE, which appears whole or not at all.",
                              "How it ended is in FILE.status; holdfast stream wait FILE tells it.", entries, FALSE };
  g_auto (GStrv) given = hf_stream_argv (argv);

  if (!hf_run_parse (run, &spec, given, &words->files, error)
      || !hf_stream_check_files (words->files, 1, "capture needs one FILE", error))
    return FALSE;
  if (!hf_stream_check_output (words->files[0], error) || !hf_stream_check_id (words->id, error))
    return FALSE;
  if (words->fd && words->listen)
    return hf_usage_error (error, "--fd and --listen exclude each other");
  if (words->any && words->mapped)
    return hf_usage_error (error, "--mapped needs a stream of QEMU, not --any");
  return TRUE;
}

/* What the stream comes from unless it is a socket. */
static gboolean
find_input (HfRun *run, const CaptureWords *words, int *ret, GError **error)
{
  if (!hf_stream_parse_fd (words->fd, ret, error))
    return FALSE;
  if (words->listen)
    return TRUE;
  if (*ret < 0)
    *ret = STDIN_FILENO;
  if (run->in_batch && *ret == STDIN_FILENO)
    return hf_usage_error (error, "in a batch standard input is the batch's: name --fd or --listen");
  if (isatty (*ret))
    return hf_usage_error (error, "the stream would come from a terminal: pipe it into capture, or name --fd or --listen");
  return TRUE;
}

typedef struct {
  const char *address;
  const HfRun *run;
  HfStreamWork *work;
  int fd; /* -1: there is none yet */
} Connection;

static int
open_connection (gpointer data, const HfStreamJob *job, GError **error)
{
  Connection *connection = data;

  connection->fd = hf_stream_listen (connection->address, hf_stream_connection_deadline (connection->run), job, error);
  /* The rate is that of the stream, not of the waiting for it. */
  hf_progress_begin (&connection->work->progress, connection->work->progress.kind);
  return connection->fd;
}

static gboolean
capture (HfRun *run, const CaptureWords *words, HfCaptureOptions *options, int input, GError **error)
{
  g_auto (HfStreamStatus) status = { 0 };
  g_autoptr (GError) failure = NULL;
  HfStreamWork work;
  Connection connection = { words->listen, run, &work, -1 };
  gboolean done, busy;

  if (!hf_stream_work_begin (&work, words->progress, error))
    return FALSE;
  options->open_input = open_connection;
  options->data = &connection;
  done = hf_capture (words->listen ? -1 : input, words->files[0], options, &work.job, &status, &failure);
  hf_stream_work_end (&work);
  if (connection.fd >= 0)
    close (connection.fd);
  busy = g_error_matches (failure, HF_STREAM_ERROR, HF_STREAM_ERROR_BUSY);
  if (!busy)
    hf_stream_show_status (run, words->files[0], &status, hf_interrupted ());
  /* What is committed and could not be said in FILE.status is no success: somebody waits for that. */
  if (busy || (!done && status.outcome == HF_OUTCOME_COMMITTED))
    hf_stream_report_error (run, words->files[0], failure);
  return TRUE;
}

gboolean
hf_stream_capture (HfRun *run, char **argv, GError **error)
{
  g_auto (CaptureWords) words = { 0 };
  HfCaptureOptions options = { .flags = HF_SAVE_DEFAULT };
  int input;

  if (!parse_capture (run, argv, &words, error) || !find_input (run, &words, &input, error)
      || !hf_stream_parse_size ("--offset", words.offset, &options.offset, error)
      || !hf_stream_parse_engine (words.engine, &options.engine, error))
    return FALSE;
  options.id = words.id;
  options.any = words.any;
  options.mapped = words.mapped;
  options.flags = (words.no_sync ? HF_SAVE_NO_SYNC : 0) | (words.buffered ? HF_SAVE_BUFFERED : 0);
  return capture (run, &words, &options, input, error);
}

/* ---- wait ---- */

#define START_TIMEOUT_MS 30000

static void
do_wait (HfRun *run, const char *path, HfStreamWait *wait, HfStreamWork *work)
{
  g_auto (HfStreamStatus) status = { 0 };
  g_autoptr (GError) failure = NULL;
  gboolean done = hf_stream_status_wait (path, wait, &work->job, &status, &failure);

  hf_stream_work_end (work);
  if (done) {
    hf_stream_show_status (run, path, &status, 0);
    return;
  }
  hf_stream_report_error (run, path, failure);
  if (wait->late && !g_error_matches (failure, HF_STREAM_ERROR, HF_STREAM_ERROR_INCOMPLETE))
    run->result = HF_EXIT_TIMEOUT;
}

gboolean
hf_stream_wait (HfRun *run, char **argv, GError **error)
{
  g_autofree char *id = NULL;
  int start_timeout_ms = START_TIMEOUT_MS;
  const GOptionEntry entries[] = {
    { "id", 0, 0, G_OPTION_ARG_STRING, &id, "Wait for the capture with this word, whatever another one said", "WORD" },
    { "start-timeout", 0, 0, G_OPTION_ARG_INT, &start_timeout_ms, "How long one may need to begin (30000; 0: for ever)", "MS" },
    { NULL },
  };
  const HfOptionSpec spec = { "stream wait FILE", "Wait until a capture of FILE has ended, and say how, also by the exit code.",
                              "With --timeout it gives up after so many milliseconds; else it waits for as long as it takes.",
                              entries, FALSE };
  g_auto (GStrv) files = NULL;
  HfStreamWait wait = { 0 };
  HfStreamWork work;

  if (!hf_run_parse (run, &spec, argv, &files, error) || !hf_stream_check_files (files, 1, "wait needs one FILE", error)
      || !hf_stream_check_id (id, error))
    return FALSE;
  if (start_timeout_ms < 0)
    return hf_usage_error (error, "--start-timeout wants a number of milliseconds, not %d", start_timeout_ms);
  wait.id = id;
  wait.start_timeout_ms = (guint)start_timeout_ms;
  wait.deadline = run->options.timeout_ms ? hf_deadline_after_ms (run->options.timeout_ms) : 0;
  if (!hf_stream_work_begin (&work, "none", error))
    return FALSE;
  do_wait (run, files[0], &wait, &work);
  return TRUE;
}
