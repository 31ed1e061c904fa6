/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A classic stream of any bytes, to the parser that takes it in pieces: what it tells lies within the bounds that it told, is the
 * same however the stream was cut, and what it calls a CONFIGURATION can be written again.
 *
 * The first byte says how long the pieces are.
 */

#include "config.h"

#include "fuzz.h"
#include "stream/mapped-ram.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
  guint64 sum; /* of all that was told */
  guint32 page_size;
  HfRamBlock *blocks;
  guint n_blocks;
  gboolean configured, ended;
  guint64 end, rest;
} Told;

static void
require (gboolean condition)
{
  if (!condition)
    abort ();
}

static void
add (Told *told, const void *bytes, gsize length)
{
  const guint8 *from = bytes;

  for (gsize i = 0; i < length; i++)
    told->sum = (told->sum ^ from[i]) * 0x100000001b3;
}

static void
add_item (Told *told, guint8 kind, guint block, guint64 offset, const guint8 *bytes, gsize length)
{
  require (told->blocks && !told->ended && block < told->n_blocks);
  require (offset % told->page_size == 0 && offset < told->blocks[block].used_length);
  add (told, &kind, sizeof kind);
  add (told, &block, sizeof block);
  add (told, &offset, sizeof offset);
  add (told, bytes, length);
}

/* What may be refused is not a crash; what is written is read again as the same. */
static void
rewrite (const guint8 *bytes, gsize length)
{
  for (gboolean mapped = FALSE; mapped <= TRUE; mapped++) {
    g_autoptr (GError) error = NULL;
    g_autoptr (GByteArray) once = hf_mapped_ram_configuration (bytes, length, mapped, &error);
    g_autoptr (GByteArray) twice = NULL;

    require ((once != NULL) == (error == NULL));
    require (once || error->domain == HF_STREAM_ERROR);
    if (!once)
      continue;
    twice = hf_mapped_ram_configuration (once->data, once->len, mapped, NULL);
    require (twice && twice->len == once->len && memcmp (twice->data, once->data, once->len) == 0);
  }
}

static gboolean
on_configuration (const guint8 *bytes, gsize length, guint32 page_size, const char *const *capabilities, gpointer data,
                  G_GNUC_UNUSED GError **error)
{
  Told *told = data;

  require (!told->configured && length >= 8 && page_size >= 1024 && page_size <= 65536);
  told->configured = TRUE;
  told->page_size = page_size;
  add (told, bytes, length);
  add (told, &page_size, sizeof page_size);
  for (gsize i = 0; capabilities[i]; i++)
    add (told, capabilities[i], strlen (capabilities[i]) + 1);
  rewrite (bytes, length);
  return TRUE;
}

static gboolean
on_blocks (guint32 section_id, const HfRamBlock *blocks, guint n_blocks, gpointer data, G_GNUC_UNUSED GError **error)
{
  Told *told = data;
  g_autofree HfMappedBlock *plan = g_new0 (HfMappedBlock, n_blocks);
  guint64 end = 0;

  require (told->configured && !told->blocks && n_blocks > 0 && n_blocks <= HF_RAM_BLOCKS_MAX);
  told->blocks = g_memdup2 (blocks, n_blocks * sizeof *blocks);
  told->n_blocks = n_blocks;
  add (told, &section_id, sizeof section_id);
  for (guint i = 0; i < n_blocks; i++) {
    require (blocks[i].id[0] && strlen (blocks[i].id) <= 255 && blocks[i].used_length % told->page_size == 0);
    add (told, blocks[i].id, strlen (blocks[i].id) + 1);
    add (told, &blocks[i].used_length, sizeof blocks[i].used_length);
  }
  if (!hf_mapped_ram_plan (blocks, n_blocks, told->page_size, 100, plan, &end, NULL))
    return TRUE;
  for (guint i = 0; i < n_blocks; i++) {
    require (plan[i].pages_offset % HF_MAPPED_PAGES_ALIGN == 0);
    require (plan[i].bitmap_offset + plan[i].bitmap_length <= plan[i].pages_offset);
    require (plan[i].pages_offset + blocks[i].used_length <= (i + 1 < n_blocks ? plan[i + 1].header_offset : end));
  }
  return TRUE;
}

static gboolean
on_page (guint block, guint64 offset, const guint8 *page, gpointer data, G_GNUC_UNUSED GError **error)
{
  add_item (data, 1, block, offset, page, ((Told *)data)->page_size);
  return TRUE;
}

static gboolean
on_zero (guint block, guint64 offset, gpointer data, G_GNUC_UNUSED GError **error)
{
  add_item (data, 2, block, offset, NULL, 0);
  return TRUE;
}

static gboolean
on_xbzrle (guint block, guint64 offset, const guint8 *encoded, gsize length, gpointer data, G_GNUC_UNUSED GError **error)
{
  add_item (data, 3, block, offset, encoded, length);
  return TRUE;
}

static gboolean
on_command (const guint8 *bytes, gsize length, gpointer data, G_GNUC_UNUSED GError **error)
{
  require (length >= 5 && bytes[0] == 0x08);
  add (data, bytes, length);
  return TRUE;
}

static gboolean
on_ram_end (guint64 stream_offset, gpointer data, G_GNUC_UNUSED GError **error)
{
  Told *told = data;

  require (told->blocks && !told->ended);
  told->ended = TRUE;
  told->end = stream_offset;
  add (told, &stream_offset, sizeof stream_offset);
  return TRUE;
}

static gboolean
on_rest (const guint8 *bytes, gsize length, gpointer data, G_GNUC_UNUSED GError **error)
{
  Told *told = data;

  require (told->ended && length > 0);
  told->rest += length;
  add (told, bytes, length);
  return TRUE;
}

/* The message of what is wrong; NULL: nothing. */
static char *
feed (const guint8 *data, gsize length, gsize piece, guint64 *ret_sum)
{
  static const HfFeedEvents events = {
    on_configuration, on_blocks, on_page, on_zero, on_xbzrle, on_command, on_ram_end, on_rest
  };
  Told told = { .sum = 0xcbf29ce484222325 };
  g_autoptr (HfFeed) parser = hf_feed_new (&events, &told);
  g_autoptr (GError) error = NULL;
  gboolean ok = TRUE;

  for (gsize at = 0; ok && at < length; at += piece) {
    /* Of its own, so that a sanitizer sees every byte too many. */
    g_autofree guint8 *copy = g_memdup2 (data + at, MIN (piece, length - at));

    ok = hf_feed_bytes (parser, copy, MIN (piece, length - at), &error);
  }
  require (ok == (error == NULL));
  require ((hf_feed_state (parser) == HF_FEED_FAILED) == !ok);
  require (!ok || hf_feed_offset (parser) == length);
  require ((hf_feed_state (parser) == HF_FEED_REST) == told.ended);
  require (!told.ended || told.end + told.rest == length);
  *ret_sum = told.sum;
  g_free (told.blocks);
  if (ok)
    return NULL;
  require (error->domain == HF_STREAM_ERROR && g_utf8_validate (error->message, -1, NULL));
  require (error->code == HF_STREAM_ERROR_MALFORMED || error->code == HF_STREAM_ERROR_UNSUPPORTED);
  return g_strdup (error->message);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t length)
{
  g_autofree char *whole = NULL;
  g_autofree char *pieces = NULL;
  guint64 whole_sum, pieces_sum;

  if (length == 0)
    return 0;
  whole = feed (data + 1, length - 1, MAX (length - 1, 1), &whole_sum);
  pieces = feed (data + 1, length - 1, 1 + data[0], &pieces_sum);
  require (g_strcmp0 (whole, pieces) == 0);
  require (whole_sum == pieces_sum);
  return 0;
}
