/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Turns a classic stream, as it arrives, into a mapped-ram file that QEMU 10 loads with -incoming file: (also with multifd and
 * direct-io). Every page has its fixed place; runs of neighbouring pages become one positioned vector write; a page that is sent
 * again overwrites, one that turns zero only loses its bit. Bitmaps are written last, so what is broken off has none.
 *
 * HF_STREAM_ERROR_UNSUPPORTED: what the parser cannot step over (feed.h: other iterables and early devices between START and END
 * of ram), x-ignore-shared, a stream without CONFIGURATION, commands other than SWITCHOVER_START. XBZRLE is applied to the page
 * that was sent before.
 *
 * Before a page is written whose older bytes are still in flight, those are waited for: the later one wins.
 *
 * Thread: the one that made it. Errors: HF_STREAM_ERROR, HF_IO_ERROR; the first stays.
 */

#include "stream/engine.h"
#include "stream/feed.h"
#include "stream/save-file.h"

typedef struct _HfMappedWriter HfMappedWriter;

/* start: file offset at which the QEVM stream begins. file outlives the writer. */
HfMappedWriter *hf_mapped_writer_new (HfSaveFile *file, guint64 start, HfEngineKind kind, GError **error);
void hf_mapped_writer_free (HfMappedWriter *writer);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (HfMappedWriter, hf_mapped_writer_free)

/* The next bytes of the classic stream. */
gboolean hf_mapped_writer_feed (HfMappedWriter *writer, const guint8 *bytes, gsize length, GError **error);

/* The stream is over: HF_STREAM_ERROR_INCOMPLETE unless RAM END was seen. Writes bitmaps and waits for everything; *ret_length is
   the file's. The caller checks the whole (verify.h) and commits. */
gboolean hf_mapped_writer_finish (HfMappedWriter *writer, guint64 *ret_length, GError **error);

/* Of RAM: how many page messages came, how many of them were zero. */
void hf_mapped_writer_counts (const HfMappedWriter *writer, guint64 *ret_pages, guint64 *ret_zero);
