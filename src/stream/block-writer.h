/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Writes a long row of bytes into a save file: blocks of 1 MiB on the file's own grid, several in flight, O_DIRECT where it can
 * be (what is not aligned, at the head and at the tail, goes through the buffered descriptor), blocks of zeros as holes, a
 * checksum for each block.
 *
 * Zero copy: the caller fills the block that hf_block_writer_space gives.
 *
 * Thread: the one that made it. Errors: HF_STREAM_ERROR and HF_IO_ERROR; the first one stays.
 */

#include "stream/engine.h"
#include "stream/save-file.h"

typedef struct _HfBlockWriter HfBlockWriter;

/* start: file offset of the first byte. file outlives the writer. */
HfBlockWriter *hf_block_writer_new (HfSaveFile *file, guint64 start, HfEngineKind kind, GError **error);
void hf_block_writer_free (HfBlockWriter *writer);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (HfBlockWriter, hf_block_writer_free)

/* Where the next bytes go: at least 1, up to a block; aligned memory when the position is aligned. May wait for a block to be
   written. NULL on error. */
guint8 *hf_block_writer_space (HfBlockWriter *writer, gsize *ret_size, GError **error);
/* So many bytes of that space are filled. */
gboolean hf_block_writer_advance (HfBlockWriter *writer, gsize length, GError **error);

guint64 hf_block_writer_length (const HfBlockWriter *writer); /* bytes so far */

/* Writes the rest and waits for everything. *ret_checksums (guint64, one for each block of HF_TRAILER_BLOCK_SIZE as trailer.h
   counts them) is the caller's. Holes at the end are not yet in the file's size: hf_save_file_commit cuts to length. */
gboolean hf_block_writer_finish (HfBlockWriter *writer, GArray **ret_checksums, GError **error);
