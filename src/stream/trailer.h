/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What `holdfast stream capture` adds behind the payload: how long it is, one checksum for each block of it, and when it was
 * saved. Who reads only the payload (cat, QEMU) never sees it: a QEMU stream ends itself.
 *
 * Layout, big-endian, directly behind the payload:
 *   n_blocks x u64   XXH3-64 of each block of the payload
 *   footer, 80 bytes, the last ones of the file:
 *     0  magic "HFSTREAM"          8  u32 version 1             12  u32 block size, a power of two, 64 KiB to 64 MiB
 *    16  u64 payload offset       24  u64 payload length        32  s64 time of the commit, microseconds since 1970 UTC
 *    40  u64 number of blocks     48  u32 flags                 52  20 bytes 0
 *    72  u64 XXH3-64 of everything before it in the trailer (checksums and the first 72 bytes of the footer)
 * Block k is the part of the payload at file offsets [k', k' + 1) x block size, where k' counts from the block of the payload's
 * first byte; so the first and the last may be short.
 *
 * Thread: any; pure.
 */

#include "stream/stream-error.h"

#define HF_TRAILER_FOOTER_SIZE 80u
#define HF_TRAILER_BLOCK_SIZE (1u << 20) /* what capture writes */
/* 16 TiB in blocks of what capture writes; all checksums are read at once, so this bounds what a hostile file costs in memory. */
#define HF_TRAILER_BLOCKS_MAX (G_GUINT64_CONSTANT (1) << 24)

typedef enum {
  HF_TRAILER_COMPLETE = 1 << 0 /* the end of a QEMU stream was seen (not set with --any) */
} HfTrailerFlags;

typedef struct {
  guint32 block_size;
  guint64 payload_offset, payload_length;
  gint64 time;
  guint32 flags;
  guint64 n_blocks;
  guint64 *checksums; /* n_blocks; NULL after hf_trailer_decode_footer */
} HfTrailer;

void hf_trailer_clear (HfTrailer *trailer);

/* How many blocks a payload has. 0 for an empty one. */
guint64 hf_trailer_count_blocks (guint64 payload_offset, guint64 payload_length, guint32 block_size);
/* Where block index begins in the file, and how long it is. index < n_blocks. */
void hf_trailer_block (const HfTrailer *trailer, guint64 index, guint64 *ret_offset, guint64 *ret_length);
/* The checksum of one block. */
guint64 hf_trailer_checksum (const void *data, gsize length);

GBytes *hf_trailer_encode (const HfTrailer *trailer);

/* TRUE if these 80 bytes begin with the magic; what follows may still be wrong. */
gboolean hf_trailer_is_footer (const guint8 *footer);

/* The footer of a file of file_size bytes: everything but the checksums, all lengths checked against each other and file_size. */
gboolean hf_trailer_decode_footer (const guint8 *footer, guint64 file_size, HfTrailer *ret, GError **error);
/* bytes: the whole trailer (8 x n_blocks + 80). Its own checksum is tested here. */
gboolean hf_trailer_decode (const guint8 *bytes, gsize length, guint64 file_size, HfTrailer *ret, GError **error);
/* The same; *bytes (of g_malloc) becomes ret->checksums, and *bytes NULL, so that a large trailer is in memory once. */
gboolean hf_trailer_decode_take (guint8 **bytes, gsize length, guint64 file_size, HfTrailer *ret, GError **error);
