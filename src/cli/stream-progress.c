/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns: the progress of one piece of work as it is shown. Thread: the one that works.
 *
 * Theory of operation: whoever works tells every block, and the clock decides what is shown. The rate is the mean since the
 * beginning: it is what the time left follows from, and it does not jump with each write-back.
 */
#include "config.h"

#include "cli/stream-progress.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define INTERVAL_US 300000
#define ERASE "\r\033[K"

gboolean
hf_progress_parse (const char *word, HfProgressKind *ret)
{
  if (!word || strcmp (word, "auto") == 0)
    *ret = isatty (STDERR_FILENO) ? HF_PROGRESS_LINE : HF_PROGRESS_NONE;
  else if (strcmp (word, "json") == 0)
    *ret = HF_PROGRESS_JSON;
  else if (strcmp (word, "none") == 0)
    *ret = HF_PROGRESS_NONE;
  else
    return FALSE;
  return TRUE;
}

/* Bytes in a second; 0: not known yet. */
static double
rate_of (guint64 done, gint64 elapsed_us)
{
  return elapsed_us > 0 ? (double)done * G_USEC_PER_SEC / (double)elapsed_us : 0;
}

/* FALSE: cannot be known. */
static gboolean
seconds_left (guint64 done, guint64 total, gint64 elapsed_us, double *ret)
{
  double rate = rate_of (done, elapsed_us);

  if (total == 0 || done > total || rate <= 0)
    return FALSE;
  *ret = (double)(total - done) / rate;
  return TRUE;
}

static void
append_size (GString *text, double bytes, const char *behind)
{
  static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
  guint i = 0;

  for (; bytes >= 1024 && i + 1 < G_N_ELEMENTS (units); i++)
    bytes /= 1024;
  g_string_append_printf (text, i ? "%.1f %s%s" : "%.0f %s%s", bytes, units[i], behind);
}

char *
hf_progress_describe (guint64 done, guint64 total, gint64 elapsed_us)
{
  GString *text = g_string_new (NULL);
  double left;

  append_size (text, (double)done, "");
  if (total) {
    append_size (g_string_append (text, " of "), (double)total, "");
    g_string_append_printf (text, " (%u %%)", (guint)((double)MIN (done, total) * 100 / (double)total));
  }
  append_size (g_string_append (text, ", "), rate_of (done, elapsed_us), "/s");
  if (seconds_left (done, total, elapsed_us, &left) && left < 360000)
    g_string_append_printf (text, ", %u:%02u left", (guint)left / 60, (guint)left % 60);
  return g_string_free (text, FALSE);
}

char *
hf_progress_to_json (guint64 done, guint64 total, gint64 elapsed_us)
{
  GString *text = g_string_new (NULL);
  char number[G_ASCII_DTOSTR_BUF_SIZE];
  double left;

  g_string_append_printf (text, "{\"bytes\":%" G_GUINT64_FORMAT ",\"total\":", done);
  if (total)
    g_string_append_printf (text, "%" G_GUINT64_FORMAT, total);
  else
    g_string_append (text, "null");
  g_string_append_printf (
      text, ",\"rate\":%s,\"seconds_left\":", g_ascii_formatd (number, sizeof number, "%.0f", rate_of (done, elapsed_us)));
  if (seconds_left (done, total, elapsed_us, &left))
    g_string_append (text, g_ascii_formatd (number, sizeof number, "%.1f", left));
  else
    g_string_append (text, "null");
  g_string_append_c (text, '}');
  return g_string_free (text, FALSE);
}

static void
show (HfProgress *progress, gint64 now)
{
  g_autofree char *text = NULL;

  if (progress->kind == HF_PROGRESS_JSON) {
    text = hf_progress_to_json (progress->done, progress->total, now - progress->started);
    fprintf (stderr, "%s\n", text);
  } else {
    text = hf_progress_describe (progress->done, progress->total, now - progress->started);
    fprintf (stderr, ERASE "%s", text);
  }
  fflush (stderr);
  progress->shown = now;
}

void
hf_progress_begin (HfProgress *progress, HfProgressKind kind)
{
  *progress = (HfProgress){ .kind = kind, .started = g_get_monotonic_time () };
}

void
hf_progress_step (guint64 done, guint64 total, gpointer data)
{
  HfProgress *progress = data;
  gint64 now;

  if (progress->kind == HF_PROGRESS_NONE)
    return;
  progress->done = done;
  progress->total = total;
  now = g_get_monotonic_time ();
  if (now - MAX (progress->shown, progress->started) >= INTERVAL_US)
    show (progress, now);
}

void
hf_progress_end (HfProgress *progress)
{
  if (progress->kind == HF_PROGRESS_JSON)
    show (progress, g_get_monotonic_time ());
  else if (progress->kind == HF_PROGRESS_LINE && progress->shown) {
    fputs (ERASE, stderr);
    fflush (stderr);
  }
  progress->kind = HF_PROGRESS_NONE;
}
