/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the sub-verbs of `holdfast stream` share: the words that several of them take, and the frame of a long piece of work.
 *
 * Thread: main.
 */

#include "cli/cli.h"
#include "cli/stream-progress.h"
#include "stream/engine.h"
#include "stream/status.h"

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (HfStreamStatus, hf_stream_status_clear)

/* The entry of --progress; word: a char *, freed by the sub-verb. */
#define HF_STREAM_PROGRESS_ENTRY(word)                                                                                           \
  {                                                                                                                              \
    "progress", 0, 0, G_OPTION_ARG_STRING, (word), "How far it is, on standard error: auto (on a terminal), json, none", "HOW"   \
  }
#define HF_STREAM_ENGINE_ENTRY(word)                                                                                             \
  {                                                                                                                              \
    "engine", 0, 0, G_OPTION_ARG_STRING, (word), "How bytes are moved: auto, ring, threads", "ENGINE"                            \
  }

/* argv for hf_run_parse: a --progress without a value gets "auto". Free with g_strfreev. */
char **hf_stream_argv (char **argv);

/* Bytes as QEMU and dd write them: decimal or 0x, and K, M, G, T (or k, m, g, t) for powers of 1024. text NULL: 0. */
gboolean hf_stream_parse_size (const char *option, const char *text, guint64 *ret, GError **error);
/* text NULL: auto. */
gboolean hf_stream_parse_engine (const char *text, HfEngineKind *ret, GError **error);
/* --fd N; text NULL: -1. The descriptor must be open. */
gboolean hf_stream_parse_fd (const char *text, int *ret, GError **error);
/* Exactly n files are in rest. what: "capture needs one FILE". */
gboolean hf_stream_check_files (char *const *rest, guint n, const char *what, GError **error);
/* --id WORD, of capture and wait; NULL is none. */
gboolean hf_stream_check_id (const char *id, GError **error);
/* May a file of state be written to path? Its name may not be that of another one's .partial or .status. */
gboolean hf_stream_check_output (const char *path, GError **error);

/* A long piece of work: progress is shown, and SIGINT, SIGTERM and SIGHUP stop it. */
typedef struct {
  HfStreamJob job;
  HfProgress progress;
} HfStreamWork;

/* Until when there must be a connection (--timeout): for hf_stream_listen and hf_stream_connect. */
gint64 hf_stream_connection_deadline (const HfRun *run);

/* Clear it with hf_stream_work_end before anything else is printed. word: of --progress, may be NULL. */
gboolean hf_stream_work_begin (HfStreamWork *work, const char *word, GError **error);
void hf_stream_work_end (HfStreamWork *work);

/* The work did not go as it should: run says so, with the exit code of error, or of the signal that stopped it. */
void hf_stream_report_error (HfRun *run, const char *path, const GError *error);

/* The same for what FILE.status says, here and in wait. signal: 0: not known. */
int hf_stream_outcome_to_exit_code (HfStreamOutcome outcome, int signal);
/* path, the status as text and as members of run->object, and the exit code. */
void hf_stream_show_status (HfRun *run, const char *path, const HfStreamStatus *status, int signal);

gboolean hf_stream_capture (HfRun *run, char **argv, GError **error);
gboolean hf_stream_replay (HfRun *run, char **argv, GError **error);
gboolean hf_stream_wait (HfRun *run, char **argv, GError **error);
gboolean hf_stream_convert (HfRun *run, char **argv, GError **error);
gboolean hf_stream_inspect (HfRun *run, char **argv, GError **error);
gboolean hf_stream_verify (HfRun *run, char **argv, GError **error);
