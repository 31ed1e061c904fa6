/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns: the report. Thread: one at a time.
 *
 * Theory of operation: what is wrong with the file becomes a line of the report; what keeps us from looking (a disk's error, an
 * interrupt) ends the verification. The walk from the end is the cheap one, so it goes first. The walk forward goes over the
 * blocks that are read for the checksums. Then both are compared, and of mapped-ram the layout is tested with the blocks that the
 * walk forward has found, also if it got stuck in them.
 *
 * A stream that the walk forward does not understand (a dirty bitmap, VFIO: formats of their own between those of RAM) is called
 * neither good nor bad: one line says what was not looked at.
 */

#include "config.h"

#include "stream/lost-pages.h"
#include "stream/verify-parts.h"

void
hf_verify_report_free (HfVerifyReport *report)
{
  if (!report)
    return;
  hf_stream_map_free (report->forward);
  hf_stream_map_free (report->tail);
  g_ptr_array_unref (report->problems);
  g_free (report);
}

static HfVerifyReport *
report_new (void)
{
  HfVerifyReport *report = g_new0 (HfVerifyReport, 1);

  report->problems = g_ptr_array_new_with_free_func (g_free);
  return report;
}

void
hf_verify_problem (HfVerifyReport *report, const char *format, ...)
{
  va_list arguments;

  if (report->n_problems++ >= HF_VERIFY_PROBLEMS_MAX)
    return;
  va_start (arguments, format);
  g_ptr_array_add (report->problems, g_strdup_vprintf (format, arguments));
  va_end (arguments);
}

void
hf_verify_problem_add (HfVerifyReport *report, guint index, const char *text)
{
  char *line = report->problems->pdata[index];

  report->problems->pdata[index] = g_strconcat (line, text, NULL);
  g_free (line);
}

/* What a walk says of the file, against what kept it from walking. */
static gboolean
is_problem (const GError *error)
{
  return g_error_matches (error, HF_STREAM_ERROR, HF_STREAM_ERROR_INCOMPLETE)
         || g_error_matches (error, HF_STREAM_ERROR, HF_STREAM_ERROR_MALFORMED)
         || g_error_matches (error, HF_STREAM_ERROR, HF_STREAM_ERROR_UNSUPPORTED);
}

gboolean
hf_verify_report_is_unproved (const HfVerifyReport *report)
{
  return report->n_problems > 0 && report->n_unknown == report->n_problems;
}

/* The walk that is called who ended so. FALSE: error goes to the caller. */
static gboolean
take_result (HfVerifyReport *report, const char *who, GError *result, GError **error)
{
  gboolean unknown;

  if (!result)
    return TRUE;
  if (!is_problem (result)) {
    g_propagate_error (error, result);
    return FALSE;
  }
  unknown = g_error_matches (result, HF_STREAM_ERROR, HF_STREAM_ERROR_UNSUPPORTED);
  hf_verify_problem (report, "%s: %s%s", who, result->message, unknown ? "; what follows was not looked at" : "");
  report->n_unknown += unknown;
  report->incomplete |= g_error_matches (result, HF_STREAM_ERROR, HF_STREAM_ERROR_INCOMPLETE);
  g_error_free (result);
  return TRUE;
}

/* One file's. */
typedef struct {
  HfImage *image; /* NULL: it is not one */
  int fd;         /* what reader reads; -1: memory */
  HfReader *reader;
  guint64 start, end;
  gboolean quick;
  const HfStreamJob *job; /* of the walk forward */
  HfVerifySums *sums;     /* NULL: none are tested */
  HfVerifyReport *report;
} Verification;

static gboolean
walk_tail (Verification *v, gboolean *ret_whole, GError **error)
{
  GError *result = NULL;

  *ret_whole = hf_walk_tail (v->reader, v->start, v->end, &v->report->tail, &result);
  return take_result (v->report, "from the end", result, error);
}

/* head_only: of a classic stream. */
static gboolean
walk_forward (Verification *v, gboolean head_only, gboolean *ret_whole, GError **error)
{
  GError *result = NULL;

  if (v->sums)
    hf_verify_sums_lend (v->sums);
  if (head_only)
    *ret_whole = hf_walk_forward_head (v->reader, v->start, v->end, &v->report->forward, &result);
  else
    *ret_whole = hf_walk_forward_pages (v->reader, v->start, v->end, v->job, v->sums ? hf_verify_sums_pass_page : NULL, v->sums,
                                        &v->report->forward, &result);
  return take_result (v->report, "forward", result, error);
}

static void
compare (HfVerifyReport *report)
{
  g_autoptr (GError) difference = NULL;

  if (!hf_stream_maps_agree (report->forward, report->tail, &difference))
    hf_verify_problem (report, "%s", difference->message);
}

static void
note_lost (const HfStreamBlock *block, guint64 first, guint64 n_pages, gpointer data)
{
  g_autofree char *id = hf_stream_quote (block->ram.id);

  hf_verify_problem (data,
                     "block %s: pages %" G_GUINT64_FORMAT " to %" G_GUINT64_FORMAT " (offset %" G_GUINT64_FORMAT
                     ") are marked present, but were never written: a hole of the file",
                     id, first, first + n_pages - 1, block->pages_offset + first * block->page_size);
}

/* Of mapped-ram. Where pages are lost is asked only of a file whose layout is right. */
static gboolean
verify_mapped (Verification *v, GError **error)
{
  const HfStreamJob silent = { .interrupt_fd = v->job ? v->job->interrupt_fd : -1 };
  GArray *blocks = v->report->forward->blocks;
  guint64 before = v->report->n_problems;
  gboolean sound;

  if (!hf_verify_layout (v->reader, v->report->forward, v->end, v->quick ? &silent : v->job, v->report, error))
    return FALSE;
  sound = v->report->n_problems == before;
  for (guint i = 0; v->fd >= 0 && sound && i < blocks->len; i++) {
    const HfStreamBlock *block = &g_array_index (blocks, HfStreamBlock, i);
    GError *result = NULL;

    if (block->mapped && !hf_find_lost_pages (v->fd, v->reader, block, note_lost, v->report, &result)
        && !take_result (v->report, "holes", result, error))
      return FALSE;
  }
  return TRUE;
}

/* A classic file without checksums: page after page, all of it. */
static gboolean
walk_classic (Verification *v, gboolean *ret_whole, GError **error)
{
  const HfStreamJob silent = { .interrupt_fd = v->job ? v->job->interrupt_fd : -1 };
  g_autoptr (HfVerifySums) ahead = hf_verify_sums_new (v->image, v->job, v->report, error);
  const HfStreamJob *job = v->job;
  gboolean done;

  if (!ahead)
    return FALSE;
  v->job = &silent;
  v->sums = ahead;
  done = walk_forward (v, FALSE, ret_whole, error);
  v->job = job;
  v->sums = NULL;
  return done;
}

static gboolean
verify_structure (Verification *v, GError **error)
{
  gboolean tail_whole, forward_whole, head_only, ahead;

  if (!walk_tail (v, &tail_whole, error))
    return FALSE;
  head_only = v->quick && !v->report->tail->mapped_ram;
  ahead = !v->sums && v->image && v->fd >= 0 && !v->quick && !v->report->tail->mapped_ram;
  if (!(ahead ? walk_classic (v, &forward_whole, error) : walk_forward (v, head_only, &forward_whole, error)))
    return FALSE;
  if (tail_whole && forward_whole && !head_only)
    compare (v->report);
  return !v->report->forward->mapped_ram || verify_mapped (v, error);
}

/* One pass for both: the checksums tell how far it is. */
static gboolean
verify_with_sums (HfImage *image, const HfStreamJob *job, Verification *v, GError **error)
{
  const HfStreamJob silent = { .interrupt_fd = job ? job->interrupt_fd : -1 };
  g_autoptr (HfVerifySums) sums = hf_verify_sums_new (image, job, v->report, error);

  if (!sums)
    return FALSE;
  v->job = &silent;
  v->sums = sums;
  if ((image->kind != HF_IMAGE_ANY && !verify_structure (v, error)) || !hf_verify_sums_finish (sums, error))
    return FALSE;
  v->report->checksums = TRUE;
  return TRUE;
}

gboolean
hf_verify_image (HfImage *image, HfVerifyFlags flags, const HfStreamJob *job, HfVerifyReport **ret_report, GError **error)
{
  g_autoptr (HfVerifyReport) report = report_new ();
  Verification v = {
    .image = image,
    .fd = image->fd,
    .reader = image->reader,
    .start = image->start,
    .end = image->end,
    .quick = flags & HF_VERIFY_QUICK,
    .job = job,
    .report = report,
  };
  gboolean done;

  if (image->has_trailer && !v.quick)
    done = verify_with_sums (image, job, &v, error);
  else
    done = image->kind == HF_IMAGE_ANY || verify_structure (&v, error);
  if (done)
    *ret_report = g_steal_pointer (&report);
  return done;
}

gboolean
hf_verify_end (int fd, guint64 start, guint64 end, GError **error)
{
  g_autoptr (HfReader) reader = hf_reader_new_fd (fd, end);
  g_autoptr (HfVerifyReport) report = report_new ();
  g_autoptr (HfStreamMap) tail = NULL;
  Verification v = { .fd = fd, .reader = reader, .start = start, .end = end, .report = report };
  HfStreamError code = HF_STREAM_ERROR_MALFORMED;

  if (!hf_walk_tail (reader, start, end, &tail, error))
    return FALSE;
  if (!tail->mapped_ram)
    return TRUE;
  if (!verify_structure (&v, error))
    return FALSE;
  if (report->n_problems == 0)
    return TRUE;
  if (hf_verify_report_is_unproved (report))
    code = HF_STREAM_ERROR_UNSUPPORTED;
  else if (report->incomplete)
    code = HF_STREAM_ERROR_INCOMPLETE;
  g_set_error_literal (error, HF_STREAM_ERROR, (gint)code, g_ptr_array_index (report->problems, 0));
  return FALSE;
}
