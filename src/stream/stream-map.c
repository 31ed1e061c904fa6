/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns: what a walk found. Thread: any; pure.
 *
 * Theory of operation: both maps are ascending. The tail walk saw the END of RAM and the sections behind it; the forward walk saw
 * all. So the forward map's part from RAM END on is compared section by section, and what it saw before must be as many FULL
 * sections as the tail walk could not place.
 */

#include "config.h"

#include "stream/stream-map.h"

#include <string.h>

#define TYPE_END 0x03
#define TYPE_FULL 0x04

static void
free_subsection (gpointer data)
{
  HfStreamSubsection *subsection = data;

  g_free (subsection->name);
  g_free (subsection);
}

void
hf_stream_section_free (HfStreamSection *section)
{
  if (!section)
    return;
  g_free (section->id);
  g_ptr_array_unref (section->subsections);
  g_free (section);
}

HfStreamSection *
hf_stream_section_new (guint8 type, guint64 offset, const void *id, gsize length)
{
  HfStreamSection *section = g_new0 (HfStreamSection, 1);

  section->type = type;
  section->offset = offset;
  section->id = g_strndup (id, length);
  section->subsections = g_ptr_array_new_with_free_func (free_subsection);
  return section;
}

HfStreamMap *
hf_stream_map_new (guint64 start)
{
  HfStreamMap *map = g_new0 (HfStreamMap, 1);

  map->start = start;
  map->capabilities = g_new0 (char *, 1);
  map->sections = g_ptr_array_new_with_free_func ((GDestroyNotify)hf_stream_section_free);
  map->blocks = g_array_new (FALSE, TRUE, sizeof (HfStreamBlock));
  return map;
}

void
hf_stream_map_free (HfStreamMap *map)
{
  if (!map)
    return;
  g_free (map->machine);
  g_strfreev (map->capabilities);
  g_ptr_array_unref (map->sections);
  g_array_unref (map->blocks);
  g_free (map);
}

gboolean
hf_stream_map_take (HfStreamMap *map, HfStreamSection *section, GError **error)
{
  if (map->sections->len < HF_STREAM_SECTIONS_MAX) {
    g_ptr_array_add (map->sections, section);
    return TRUE;
  }
  g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_UNSUPPORTED, "more than %u sections before offset %" G_GUINT64_FORMAT,
               HF_STREAM_SECTIONS_MAX, section->offset);
  hf_stream_section_free (section);
  return FALSE;
}

char *
hf_stream_quote (const char *name)
{
  g_autofree char *escaped = g_strescape (name, NULL);

  return g_strdup_printf ("\"%s\"", escaped);
}

const HfStreamSection *
hf_stream_map_find (const HfStreamMap *map, const char *id)
{
  for (guint i = 0; i < map->sections->len; i++) {
    const HfStreamSection *section = g_ptr_array_index (map->sections, i);

    if (g_str_equal (section->id, id))
      return section;
  }
  return NULL;
}

static gboolean
disagree (GError **error, const char *id, guint64 offset, const char *what, guint64 forward, guint64 tail)
{
  g_autofree char *name = hf_stream_quote (id);

  g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_MALFORMED,
               "the walks disagree on section %s at offset %" G_GUINT64_FORMAT ": %s is %" G_GUINT64_FORMAT
               " forward and %" G_GUINT64_FORMAT " from the end",
               name, offset, what, forward, tail);
  return FALSE;
}

typedef struct {
  const char *what;
  guint64 forward, tail;
} Pair;

/* The first pair that differs; NULL: none. */
static const Pair *
find_difference (const Pair *pairs, gsize n_pairs)
{
  for (gsize i = 0; i < n_pairs; i++) {
    if (pairs[i].forward != pairs[i].tail)
      return &pairs[i];
  }
  return NULL;
}

static gboolean
subsections_agree (const HfStreamSection *forward, const HfStreamSection *tail, GError **error)
{
  for (guint i = 0; i < forward->subsections->len; i++) {
    const HfStreamSubsection *a = g_ptr_array_index (forward->subsections, i);
    const HfStreamSubsection *b = g_ptr_array_index (tail->subsections, i);
    const Pair pairs[] = {
      { "a subsection's offset", a->offset, b->offset },
      { "a subsection's length", a->length, b->length },
      { "a subsection's version", a->version, b->version },
      { "the place of the subsection that both name", !g_str_equal (a->name, b->name), 0 },
    };
    const Pair *pair = find_difference (pairs, G_N_ELEMENTS (pairs));

    if (pair)
      return disagree (error, a->name, a->offset, pair->what, pair->forward, pair->tail);
  }
  return TRUE;
}

static gboolean
sections_agree (const HfStreamSection *forward, const HfStreamSection *tail, GError **error)
{
  const Pair pairs[] = {
    { "its offset", forward->offset, tail->offset },
    { "its length", forward->length, tail->length },
    { "its type", forward->type, tail->type },
    { "its section id", forward->section_id, tail->section_id },
    { "its instance", forward->instance_id, tail->instance_id },
    { "its version", forward->version, tail->version },
    { "where its body begins", forward->body_offset, tail->body_offset },
    { "its body's length", forward->body_length, tail->body_length },
    { "the number of its subsections", forward->subsections->len, tail->subsections->len },
    { "the difference of its names", !g_str_equal (forward->id, tail->id), 0 },
  };
  const Pair *pair = find_difference (pairs, G_N_ELEMENTS (pairs));

  if (pair)
    return disagree (error, forward->id, forward->offset, pair->what, pair->forward, pair->tail);
  return subsections_agree (forward, tail, error);
}

/* Both are the END of RAM; the tail walk knows where it ends, and its section id from the footer alone. */
static gboolean
ends_agree (const HfStreamSection *forward, const HfStreamSection *tail, gboolean footers, GError **error)
{
  const Pair pairs[] = {
    { "where it ends", forward->offset + forward->length, tail->offset + tail->length },
    { "its section id", footers ? forward->section_id : 0, tail->section_id },
    { "where it begins, too late", forward->offset > tail->offset, 0 },
  };
  const Pair *pair = find_difference (pairs, G_N_ELEMENTS (pairs));

  return pair ? disagree (error, "end of ram", forward->offset, pair->what, pair->forward, pair->tail) : TRUE;
}

static gboolean
streams_agree (const HfStreamMap *forward, const HfStreamMap *tail, GError **error)
{
  const Pair pairs[] = {
    { "its start", forward->start, tail->start },
    { "its end", forward->end, tail->end },
    { "the EOF byte's offset", forward->eof_offset, tail->eof_offset },
    { "the description's offset", forward->description_offset, tail->description_offset },
    { "the description's length", forward->description_length, tail->description_length },
    { "the presence of footers", forward->footers, tail->footers },
    { "the presence of mapped-ram", forward->mapped_ram, tail->mapped_ram },
    { "the number of target page bits", forward->target_page_bits, tail->target_page_bits },
    { "the difference of its machines", g_strcmp0 (forward->machine, tail->machine) != 0, 0 },
  };
  const Pair *pair = find_difference (pairs, G_N_ELEMENTS (pairs));

  return pair ? disagree (error, "whole stream", forward->start, pair->what, pair->forward, pair->tail) : TRUE;
}

/* Index of the last END; -1: none. *ret_early: how many FULL sections stand before it. */
static gint64
find_end (const HfStreamMap *map, guint *ret_early)
{
  gint64 end = -1;
  guint full = 0;

  *ret_early = 0;
  for (guint i = 0; i < map->sections->len; i++) {
    const HfStreamSection *section = g_ptr_array_index (map->sections, i);

    full += section->type == TYPE_FULL;
    if (section->type == TYPE_END) {
      end = i;
      *ret_early = full;
    }
  }
  return end;
}

gboolean
hf_stream_maps_agree (const HfStreamMap *forward, const HfStreamMap *tail, GError **error)
{
  guint early, none;
  gint64 first = find_end (forward, &early), from = find_end (tail, &none);

  if (!streams_agree (forward, tail, error))
    return FALSE;
  if (first < 0 || from != 0)
    return disagree (error, "end of ram", forward->start, "its presence", first >= 0, from == 0);
  if (early != tail->unplaced)
    return disagree (error, "whole stream", forward->start, "the number of devices before the end of RAM", early, tail->unplaced);
  if (forward->sections->len - (guint)first != tail->sections->len)
    return disagree (error, "whole stream", forward->start, "the number of sections behind RAM",
                     forward->sections->len - (guint)first, tail->sections->len);
  for (guint i = 0; i < tail->sections->len; i++) {
    const HfStreamSection *a = g_ptr_array_index (forward->sections, (guint)first + i);
    const HfStreamSection *b = g_ptr_array_index (tail->sections, i);

    if (i == 0 ? !ends_agree (a, b, tail->footers, error) : !sections_agree (a, b, error))
      return FALSE;
  }
  return TRUE;
}
