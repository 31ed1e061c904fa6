/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * How far a long piece of work is: one line on standard error that is written over, or lines of JSON for programs.
 *
 * Thread: the one that works.
 */

#include <glib.h>

typedef enum { HF_PROGRESS_NONE, HF_PROGRESS_LINE, HF_PROGRESS_JSON } HfProgressKind;

typedef struct {
  HfProgressKind kind;
  gint64 started, shown; /* monotonic microseconds; shown 0: nothing yet */
  guint64 done, total;   /* as they were last told */
} HfProgress;

/* word: "auto" (a line if standard error is a terminal), "json", "none"; NULL is "auto". FALSE: none of them. */
gboolean hf_progress_parse (const char *word, HfProgressKind *ret);

void hf_progress_begin (HfProgress *progress, HfProgressKind kind);
/* For HfStreamJob.progress; data is the HfProgress. Shows something a few times in a second at most. */
void hf_progress_step (guint64 done, guint64 total, gpointer data);
/* The line is taken away; the last line of JSON says the end. */
void hf_progress_end (HfProgress *progress);

/* Pure: "1.2 GiB of 4.0 GiB (30 %), 812.0 MiB/s, 0:03 left", and {"bytes":..,"total":..,"rate":..,"seconds_left":..}. total 0:
   not known. Free with g_free. */
char *hf_progress_describe (guint64 done, guint64 total, gint64 elapsed_us);
char *hf_progress_to_json (guint64 done, guint64 total, gint64 elapsed_us);
