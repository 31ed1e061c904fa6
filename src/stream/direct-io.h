/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What transfers past the page cache (O_DIRECT) need: descriptor, alignment, memory; and whether the cache would be faster.
 *
 * Thread: any; no state.
 */

#include <glib.h>

/* What offsets, lengths and memory must be multiples of on this descriptor with O_DIRECT: a power of two of at least a page, so
   that a page of the cache never is half of one kind; at most 64 KiB. 0: the file system says that it cannot be done. */
guint hf_direct_alignment (int fd);

/* A second descriptor of the regular file fd, for direct reads. -1 if the file system has none. */
int hf_direct_open_to_read (int fd, guint *ret_alignment);

/* Are half of these bytes of the regular file fd or more in the page cache, as a few pages tell? Then copying them is faster than
   most disks, though it costs several times the processor's time of a direct read. */
gboolean hf_direct_is_cached (int fd, guint64 start, guint64 length);

/* Memory for direct transfers, zeroed, aligned to a page at least. NULL with HF_STREAM_ERROR_FILE. */
guint8 *hf_direct_memory_new (gsize size, GError **error);
/* memory NULL is accepted. */
void hf_direct_memory_free (guint8 *memory, gsize size);
