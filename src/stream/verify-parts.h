/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Inside verify.h: the layout of mapped-ram (verify-layout.c) and the checksums (verify-sums.c).
 *
 * Thread: that of the verification.
 */

#include "stream/verify.h"

/* A line of the report becomes longer; index in problems. */
void hf_verify_problem_add (HfVerifyReport *report, guint index, const char *text);
/* One line more; what is said beyond HF_VERIFY_PROBLEMS_MAX is only counted. */
void hf_verify_problem (HfVerifyReport *report, const char *format, ...) G_GNUC_PRINTF (2, 3);

/* Of the blocks that the forward walk found, in [start, end). FALSE: it could not be done. */
gboolean hf_verify_layout (HfReader *reader, const HfStreamMap *forward, guint64 end, const HfStreamJob *job,
                           HfVerifyReport *report, GError **error);

/* The checksums of an image that has some. While the walk runs, what is read for them is lent to it, so that the file is read
   once: a block is tested as soon as somebody wants a byte of it. */
typedef struct _HfVerifySums HfVerifySums;
HfVerifySums *hf_verify_sums_new (HfImage *image, const HfStreamJob *job, HfVerifyReport *report, GError **error);
/* From now on what is read for them is lent to the image's reader, so that the file is read once: a block is tested, and all
   before it, as soon as somebody wants a byte of it. For a walk forward; one that begins at the end would leave nothing to lend.
 */
void hf_verify_sums_lend (HfVerifySums *sums);
/* What was not tested yet. Then the lines of bad blocks are made to name what lies there: the pages that were passed below, and
   what the walks found, which is in the report. Pages of a classic stream in memory are not named: nothing is lent of it, so its
   blocks are tested behind the walk. */
gboolean hf_verify_sums_finish (HfVerifySums *sums, GError **error);
/* A HfWalkPage; data: HfVerifySums. */
void hf_verify_sums_pass_page (const HfRamBlock *block, guint64 page, guint64 offset, guint64 length, gpointer data);
/* The image's reader is left alone again. NULL is accepted. */
void hf_verify_sums_free (HfVerifySums *sums);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (HfVerifySums, hf_verify_sums_free)
