/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The layout of QEMU's mapped-ram files (docs/devel/migration/mapped-ram.rst there): where each block's bitmap and pages lie, and
 * the bytes of the RAM START section. All offsets are absolute in the file, also when the stream does not begin at its start.
 *
 * Thread: any; pure.
 */

#include "stream/feed.h"

#define HF_MAPPED_PAGES_ALIGN (1u << 20)
#define HF_MAPPED_HEADER_SIZE 28u

typedef struct {
  HfRamBlock ram;
  guint64 header_offset; /* of the 28 bytes; the id's length byte lies before it */
  guint64 bitmap_offset, bitmap_length;
  guint64 pages_offset;
} HfMappedBlock;

/* position: file offset of the byte behind the MEM_SIZE word, where the first block's fields go. Fills blocks[], and *ret_end
   with the file offset behind the last block's pages, where the EOS word goes. FALSE: overflow. */
gboolean hf_mapped_ram_plan (const HfRamBlock *ram, guint n_blocks, guint32 page_size, guint64 position, HfMappedBlock *blocks,
                             guint64 *ret_end, GError **error);

/* The fields of one block up to and with its 28-byte header: id length, id, used_length, header. */
void hf_mapped_ram_append_block (const HfMappedBlock *block, guint32 page_size, GByteArray *bytes);

/* CONFIGURATION (with its type byte) of machine, whose subsections other than capabilities are copied from bytes (header and
   CONFIGURATION as HfFeedEvents.configuration gives them), with the capability mapped-ram added (mapped) or taken away. Starts
   with the QEVM header. */
GByteArray *hf_mapped_ram_configuration (const guint8 *bytes, gsize length, gboolean mapped, GError **error);
