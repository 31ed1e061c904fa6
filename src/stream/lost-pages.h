/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Pages that a mapped-ram file calls present and that nobody has written: they lie in holes of the file. QEMU before 11.1 leaves
 * such files, and calls the save completed, when a multifd channel writes less than it was told to; its loader takes the hole
 * for a page of zeros.
 *
 * It is no guess. QEMU clears the bit of a page of zeros (migration/ram.c, multifd-nocomp.c there); only with
 * zero-page-detection=none the bit stays set, but then the zeros are written. So only a program that makes holes of what it
 * copies (rsync --sparse) makes a good file look bad, and only with that parameter. A file whose holes were filled in while it
 * was copied looks good.
 *
 * Thread: any, one at a time; the file position of fd is moved. Errors: HF_STREAM_ERROR, HF_IO_ERROR.
 */

#include "stream/reader.h"
#include "stream/stream-map.h"

/* Pages [first, first + n_pages) of block, in ascending order. */
typedef void (*HfLostPagesFunc) (const HfStreamBlock *block, guint64 first, guint64 n_pages, gpointer data);

/* reader reads fd. block: a mapped one, whose bitmap and pages were tested to lie in the file. found is called for each run of
   lost pages. TRUE also where the file system knows nothing of holes. */
gboolean hf_find_lost_pages (int fd, HfReader *reader, const HfStreamBlock *block, HfLostPagesFunc found, gpointer data,
                             GError **error);
