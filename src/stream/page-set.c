/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A bitmap in pieces. Owns: the pieces. Thread: any, one at a time; pure.
 *
 * Theory of operation: an array of pointers, one for each 4 KiB of the bitmap (128 MiB of RAM with pages of 4 KiB), filled when
 * the first page of a piece is added, which is told, so that who adds pages that cost the sender little can bound them; a block
 * of 1 TiB costs 64 KiB of pointers and at most 32 MiB.
 */
#include "config.h"

#include "stream/page-set.h"

#define CHUNK_BITS (G_GUINT64_CONSTANT (8) * HF_PAGE_SET_CHUNK)

struct _HfPageSet {
  guint64 n_chunks;
  guint8 **chunks;
};

HfPageSet *
hf_page_set_new (guint64 n_pages)
{
  HfPageSet *set = g_new0 (HfPageSet, 1);

  set->n_chunks = n_pages / CHUNK_BITS + (n_pages % CHUNK_BITS > 0);
  set->chunks = g_new0 (guint8 *, set->n_chunks);
  return set;
}

void
hf_page_set_free (HfPageSet *set)
{
  if (!set)
    return;
  for (guint64 i = 0; i < set->n_chunks; i++)
    g_free (set->chunks[i]);
  g_free (set->chunks);
  g_free (set);
}

gboolean
hf_page_set_add (HfPageSet *set, guint64 page)
{
  guint8 **chunk = &set->chunks[page / CHUNK_BITS];
  gboolean first = *chunk == NULL;

  if (first)
    *chunk = g_malloc0 (HF_PAGE_SET_CHUNK);
  (*chunk)[page % CHUNK_BITS / 8] |= 1u << (page % 8);
  return first;
}

void
hf_page_set_remove (HfPageSet *set, guint64 page)
{
  guint8 *chunk = set->chunks[page / CHUNK_BITS];

  if (chunk)
    chunk[page % CHUNK_BITS / 8] &= ~(1u << (page % 8));
}

gboolean
hf_page_set_has (const HfPageSet *set, guint64 page)
{
  const guint8 *chunk = set->chunks[page / CHUNK_BITS];

  return chunk && (chunk[page % CHUNK_BITS / 8] >> (page % 8) & 1);
}

guint64
hf_page_set_n_chunks (const HfPageSet *set)
{
  return set->n_chunks;
}

const guint8 *
hf_page_set_chunk (const HfPageSet *set, guint64 chunk)
{
  return set->chunks[chunk];
}
