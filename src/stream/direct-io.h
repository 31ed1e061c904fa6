/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What transfers past the page cache (O_DIRECT) need: to know the alignment, memory, and whether they pay.
 *
 * Thread: any; no state.
 */

#include <glib.h>

/* What offsets, lengths and memory must be multiples of on this descriptor with O_DIRECT: a power of two of at least a page, so
   that a page of the cache never is half of one kind; at most 64 KiB. 0: the file system says that it cannot be done. */
guint hf_direct_alignment (int fd);

/* A second descriptor of the regular file fd, for direct reads of [start, start + length). -1 if the file system has none, or if
   half of these bytes or more are in the page cache: copying them is faster than the disk. */
int hf_direct_open_to_read (int fd, guint64 start, guint64 length, guint *ret_alignment);

/* Memory for direct transfers, zeroed, aligned to a page at least. NULL with HF_STREAM_ERROR_FILE. */
guint8 *hf_direct_memory_new (gsize size, GError **error);
/* memory NULL is accepted. */
void hf_direct_memory_free (guint8 *memory, gsize size);
