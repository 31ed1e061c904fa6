/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Is this file whole? Both walks and that they agree; of mapped-ram all that QEMU does not test: page size, block list, bitmap
 * and page ranges inside the file, no two of them overlapping, every present page inside it; of ours the checksums.
 *
 * Problems are collected, not only the first; each is one line that names what is bad: block, page and offset where it has them.
 *
 * Thread: one at a time.
 */

#include "stream/engine.h"
#include "stream/image.h"
#include "stream/stream-map.h"

#define HF_VERIFY_PROBLEMS_MAX 100u

typedef struct {
  HfStreamMap *forward, *tail; /* never NULL but for an image of HF_IMAGE_ANY; see HF_VERIFY_QUICK */
  GPtrArray *problems;         /* char *, at most HF_VERIFY_PROBLEMS_MAX */
  guint64 n_problems;          /* also those that are not in problems */
  gboolean incomplete;         /* the stream is cut: the problems follow from that */
  guint64 n_unknown;           /* of n_problems: something that holdfast does not understand, and so cannot prove */
  gboolean checksums;          /* there were some, and they were tested */
  guint64 present_pages;       /* of mapped-ram: bits set */
} HfVerifyReport;

void hf_verify_report_free (HfVerifyReport *report);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (HfVerifyReport, hf_verify_report_free)

typedef enum {
  HF_VERIFY_DEFAULT = 0,
  /* Structure only: neither checksums nor classic RAM page by page. Of a classic stream forward is then only its head, up to the
     block list, and there are no two walks to compare. */
  HF_VERIFY_QUICK = 1 << 0
} HfVerifyFlags;

/* Nothing is wrong with the file, but something could not be tested: a stream with what only the tail walk can pass (a dirty
   bitmap, VFIO) has one problem that says so. That does not make it bad. */
gboolean hf_verify_report_is_unproved (const HfVerifyReport *report);

/* FALSE with an error: it could not be done (I/O, interrupted). TRUE: done; the file is good if n_problems is 0. Progress is told
   of what takes time: not with HF_VERIFY_QUICK. */
gboolean hf_verify_image (HfImage *image, HfVerifyFlags flags, const HfStreamJob *job, HfVerifyReport **ret_report,
                          GError **error);

/* What capture asks before it commits: [start, end) of fd is a whole QEMU stream. By the tail walk and, for mapped-ram, the tests
   of the layout. */
gboolean hf_verify_end (int fd, guint64 start, guint64 end, GError **error);
