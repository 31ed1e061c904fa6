/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Bytes at an offset, out of a file or out of memory, never beyond the bounds. This and the bounded load of the description into
 * json-glib (hf_description_parse) are all of the file that the two walks read by the same code, on purpose.
 *
 * Thread: one at a time. Errors: HF_STREAM_ERROR_INCOMPLETE beyond the end (the message names offset, wanted, size), HF_IO_ERROR.
 */

#include "stream/stream-error.h"

typedef struct _HfReader HfReader;

/* fd stays the caller's. size: what may be read. */
HfReader *hf_reader_new_fd (int fd, guint64 size);
/* data outlives the reader. */
HfReader *hf_reader_new_memory (const void *data, gsize size);
void hf_reader_free (HfReader *reader);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (HfReader, hf_reader_free)

guint64 hf_reader_size (const HfReader *reader);

/* Whoever reads the file anyway lends what it has: sets *ret_block, *ret_offset and *ret_length to a row of bytes of the file
   that contains offset, which must stay until the next call, or leaves them; then the reader reads for itself. FALSE with an
   error ends the read. Not asked for memory and hf_reader_get_large. */
typedef gboolean (*HfReaderLend) (guint64 offset, const guint8 **ret_block, guint64 *ret_offset, gsize *ret_length, gpointer data,
                                  GError **error);
/* NULL: nobody. */
void hf_reader_set_lend (HfReader *reader, HfReaderLend lend, gpointer data);

/* Through a window: many small reads near each other cost few system calls. */
gboolean hf_reader_get (HfReader *reader, guint64 offset, void *buffer, gsize length, GError **error);
/* Past the window, for large ranges. */
gboolean hf_reader_get_large (HfReader *reader, guint64 offset, void *buffer, gsize length, GError **error);
gboolean hf_reader_u8 (HfReader *reader, guint64 offset, guint8 *ret, GError **error);
gboolean hf_reader_be16 (HfReader *reader, guint64 offset, guint16 *ret, GError **error);
gboolean hf_reader_be32 (HfReader *reader, guint64 offset, guint32 *ret, GError **error);
gboolean hf_reader_be64 (HfReader *reader, guint64 offset, guint64 *ret, GError **error);
