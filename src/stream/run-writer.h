/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Writes pages to their places in a save file, in any order and as often as they come: neighbours that come one after another
 * become one write of up to 1 MiB, several writes are in flight, and where two are of the same place the later one wins, because
 * the earlier one is waited for. O_DIRECT where the file has it and a page is aligned enough.
 *
 * Thread: the one that made it. Errors: HF_STREAM_ERROR, HF_IO_ERROR; the first one stays.
 */

#include "stream/engine.h"
#include "stream/save-file.h"

#define HF_RUN_MAX (1u << 20)

typedef struct _HfRunWriter HfRunWriter;

/* Every offset and length that is put will be a multiple of unit, a power of two. file outlives the writer. */
HfRunWriter *hf_run_writer_new (HfSaveFile *file, guint unit, HfEngineKind kind, GError **error);
/* Waits for what is in flight. NULL is accepted. */
void hf_run_writer_free (HfRunWriter *writer);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (HfRunWriter, hf_run_writer_free)

/* bytes are copied. length: at most HF_RUN_MAX. */
gboolean hf_run_writer_put (HfRunWriter *writer, guint64 offset, const guint8 *bytes, gsize length, GError **error);

/* What was put there last; behind the end of the file it is an error. */
gboolean hf_run_writer_get (HfRunWriter *writer, guint64 offset, guint8 *bytes, gsize length, GError **error);

/* Writes and waits for everything. */
gboolean hf_run_writer_finish (HfRunWriter *writer, GError **error);
