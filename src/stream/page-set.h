/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Which pages of a RAM block are there: a bitmap whose memory is taken as pages are added, so that a stream that claims a block
 * of any size costs nothing before it sends pages. Its bytes are those of a mapped-ram file: bit i is bit i % 8 of byte i / 8, as
 * a little-endian host has it.
 *
 * Thread: any, one at a time; pure.
 */

#include <glib.h>

#define HF_PAGE_SET_CHUNK 4096u /* bytes of the bitmap that come and go together */

typedef struct _HfPageSet HfPageSet;

HfPageSet *hf_page_set_new (guint64 n_pages);
void hf_page_set_free (HfPageSet *set);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (HfPageSet, hf_page_set_free)

/* page < n_pages. TRUE: it was the first of its piece, which has taken HF_PAGE_SET_CHUNK bytes of memory now. */
gboolean hf_page_set_add (HfPageSet *set, guint64 page);
void hf_page_set_remove (HfPageSet *set, guint64 page);
gboolean hf_page_set_has (const HfPageSet *set, guint64 page);

/* The bitmap in pieces of HF_PAGE_SET_CHUNK bytes; the last piece may be longer than the bitmap that it is of. */
guint64 hf_page_set_n_chunks (const HfPageSet *set);
/* NULL: no page of this piece is there. Valid until the next call that adds. */
const guint8 *hf_page_set_chunk (const HfPageSet *set, guint64 chunk);
