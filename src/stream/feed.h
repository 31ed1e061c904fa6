/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Reads a classic QEMU migration stream (QEVM version 3, ram version 4, no mapped-ram) while it arrives, in pieces of any size:
 * the header, CONFIGURATION, and every item of the RAM sections, up to the footer of the RAM END section. What comes after it,
 * the devices, has no lengths in the stream (docs/devel/migration); it is passed on as it is.
 *
 * Pure logic: no I/O, memory bounded by one page, one block list (at most 4096 blocks) and the header (at most 64 KiB).
 *
 * Thread: any, one at a time. Errors: HF_STREAM_ERROR_MALFORMED and HF_STREAM_ERROR_UNSUPPORTED, with the offset from the start
 * of the stream; the first one stays.
 */

#include "stream/stream-error.h"

#define HF_RAM_BLOCKS_MAX 4096u
#define HF_RAM_BYTES_MAX (G_GUINT64_CONSTANT (1) << 46)
/* Of CONFIGURATION, for all who read it. QEMU 11 knows some twenty capabilities. */
#define HF_STREAM_CAPABILITIES_MAX 64u
#define HF_STREAM_MACHINE_MAX 1024u

typedef struct {
  char id[256]; /* NUL-terminated; as in the stream, at most 255 bytes */
  guint64 used_length;
} HfRamBlock;

/* Each may be NULL; FALSE (with error) ends the parsing. page and the bytes are valid during the call only. */
typedef struct {
  /* bytes [0, length) of the stream: header and CONFIGURATION; page_size as target-page-bits says, else 4096; capabilities: those
     that the stream names (NULL-terminated). */
  gboolean (*configuration) (const guint8 *bytes, gsize length, guint32 page_size, const char *const *capabilities, gpointer data,
                             GError **error);
  /* The block list of RAM START; section_id is that of the ram section. */
  gboolean (*blocks) (guint32 section_id, const HfRamBlock *blocks, guint n_blocks, gpointer data, GError **error);
  gboolean (*page) (guint block, guint64 offset, const guint8 *page, gpointer data, GError **error);
  gboolean (*zero) (guint block, guint64 offset, gpointer data, GError **error);
  /* XBZRLE data against what was sent of this page before: length bytes as QEMU encoded them. NULL: HF_STREAM_ERROR_UNSUPPORTED.
   */
  gboolean (*xbzrle) (guint block, guint64 offset, const guint8 *encoded, gsize length, gpointer data, GError **error);
  /* A COMMAND between RAM sections (SWITCHOVER_START), whole, with its type byte. */
  gboolean (*command) (const guint8 *bytes, gsize length, gpointer data, GError **error);
  /* The footer of RAM END was read. */
  gboolean (*ram_end) (guint64 stream_offset, gpointer data, GError **error);
  /* Everything behind it, in pieces. */
  gboolean (*rest) (const guint8 *bytes, gsize length, gpointer data, GError **error);
} HfFeedEvents;

typedef struct _HfFeed HfFeed;

HfFeed *hf_feed_new (const HfFeedEvents *events, gpointer data);
void hf_feed_free (HfFeed *feed);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (HfFeed, hf_feed_free)

gboolean hf_feed_bytes (HfFeed *feed, const guint8 *bytes, gsize length, GError **error);

/* Where it stands. */
typedef enum { HF_FEED_HEADER, HF_FEED_RAM, HF_FEED_REST, HF_FEED_FAILED } HfFeedState;
HfFeedState hf_feed_state (const HfFeed *feed);
guint64 hf_feed_offset (const HfFeed *feed); /* bytes taken so far */
/* Sections end with footers (the machine's send-section-footer). FALSE until the first section behind RAM START. */
gboolean hf_feed_footers (const HfFeed *feed);
