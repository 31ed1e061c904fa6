/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns: the report. Thread: one at a time.
 *
 * Theory of operation: what is wrong with the file becomes a line of the report; what keeps us from looking (a disk's error, an
 * interrupt) ends the verification. The walk from the end is the cheap one, so it goes first. The walk forward goes over the
 * blocks that are read for the checksums. Then both are compared, and of mapped-ram the layout is tested with the blocks that the
 * walk forward has found, also if it got stuck in them.
 *
 * A stream that the walk forward does not understand (a dirty bitmap, VFIO: formats of their own between those of RAM) is not
 * called good: one line says that only the walk from the end was done.
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

/* What a walk says of the file, against what kept it from walking. */
static gboolean
is_problem (const GError *error)
{
  return g_error_matches (error, HF_STREAM_ERROR, HF_STREAM_ERROR_INCOMPLETE)
         || g_error_matches (error, HF_STREAM_ERROR, HF_STREAM_ERROR_MALFORMED)
         || g_error_matches (error, HF_STREAM_ERROR, HF_STREAM_ERROR_UNSUPPORTED);
}

/* The walk that is called who ended so. FALSE: error goes to the caller. */
static gboolean
take_result (HfVerifyReport *report, const char *who, GError *result, GError **error)
{
  if (!result)
    return TRUE;
  if (!is_problem (result)) {
    g_propagate_error (error, result);
    return FALSE;
  }
  hf_verify_problem (report, "%s: %s", who, result->message);
  report->incomplete |= g_error_matches (result, HF_STREAM_ERROR, HF_STREAM_ERROR_INCOMPLETE);
  g_error_free (result);
  return TRUE;
}

static gboolean
walk_tail (HfReader *reader, guint64 start, guint64 end, HfVerifyReport *report, gboolean *ret_whole, GError **error)
{
  GError *result = NULL;

  *ret_whole = hf_walk_tail (reader, start, end, &report->tail, &result);
  return take_result (report, "from the end", result, error);
}

/* head_only: of a classic stream. */
static gboolean
walk_forward (HfReader *reader, guint64 start, guint64 end, gboolean head_only, const HfStreamJob *job, HfVerifyReport *report,
              gboolean *ret_whole, GError **error)
{
  GError *result = NULL;

  if (head_only)
    *ret_whole = hf_walk_forward_head (reader, start, end, &report->forward, &result);
  else
    *ret_whole = hf_walk_forward (reader, start, end, job, &report->forward, &result);
  return take_result (report, "forward", result, error);
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
verify_mapped (int fd, HfReader *reader, guint64 end, const HfStreamJob *job, HfVerifyReport *report, GError **error)
{
  GArray *blocks = report->forward->blocks;
  guint64 before = report->n_problems;

  if (!hf_verify_layout (reader, report->forward, end, job, report, error))
    return FALSE;
  if (fd < 0 || report->n_problems > before)
    return TRUE;
  for (guint i = 0; i < blocks->len; i++) {
    const HfStreamBlock *block = &g_array_index (blocks, HfStreamBlock, i);
    GError *result = NULL;

    if (block->mapped && !hf_find_lost_pages (fd, reader, block, note_lost, report, &result)
        && !take_result (report, "holes", result, error))
      return FALSE;
  }
  return TRUE;
}

/* fd: what reader reads; -1: memory. job: for the walk forward; NULL if somebody else tells how far it is. */
static gboolean
verify_structure (int fd, HfReader *reader, guint64 start, guint64 end, HfVerifyFlags flags, const HfStreamJob *job,
                  HfVerifyReport *report, GError **error)
{
  gboolean tail_whole, forward_whole, head_only;

  if (!walk_tail (reader, start, end, report, &tail_whole, error))
    return FALSE;
  head_only = (flags & HF_VERIFY_QUICK) && !report->tail->mapped_ram;
  if (!walk_forward (reader, start, end, head_only, job, report, &forward_whole, error))
    return FALSE;
  if (tail_whole && forward_whole && !head_only)
    compare (report);
  return !report->forward->mapped_ram || verify_mapped (fd, reader, end, job, report, error);
}

/* One pass for both. */
static gboolean
verify_with_sums (HfImage *image, HfVerifyFlags flags, const HfStreamJob *job, HfVerifyReport *report, GError **error)
{
  const HfStreamJob silent = { .interrupt_fd = job ? job->interrupt_fd : -1 };
  g_autoptr (HfVerifySums) sums = hf_verify_sums_new (image, job, report, error);

  if (!sums)
    return FALSE;
  if (image->kind != HF_IMAGE_ANY
      && !verify_structure (image->fd, image->reader, image->start, image->end, flags, &silent, report, error))
    return FALSE;
  if (!hf_verify_sums_finish (sums, error))
    return FALSE;
  report->checksums = TRUE;
  return TRUE;
}

gboolean
hf_verify_image (HfImage *image, HfVerifyFlags flags, const HfStreamJob *job, HfVerifyReport **ret_report, GError **error)
{
  g_autoptr (HfVerifyReport) report = report_new ();
  gboolean done;

  if (image->has_trailer && !(flags & HF_VERIFY_QUICK))
    done = verify_with_sums (image, flags, job, report, error);
  else
    done = image->kind == HF_IMAGE_ANY
           || verify_structure (image->fd, image->reader, image->start, image->end, flags, job, report, error);
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

  if (!hf_walk_tail (reader, start, end, &tail, error))
    return FALSE;
  if (!tail->mapped_ram)
    return TRUE;
  if (!verify_structure (fd, reader, start, end, HF_VERIFY_DEFAULT, NULL, report, error))
    return FALSE;
  if (report->n_problems == 0)
    return TRUE;
  g_set_error_literal (error, HF_STREAM_ERROR, report->incomplete ? HF_STREAM_ERROR_INCOMPLETE : HF_STREAM_ERROR_MALFORMED,
                       g_ptr_array_index (report->problems, 0));
  return FALSE;
}
