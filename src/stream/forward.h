/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Inside the forward walk (hf_walk_forward in stream-map.h): walk-forward.c reads the framing, forward-ram.c the RAM sections,
 * forward-devices.c what the description describes, forward-json.c the members of it. Nothing of this is for the tail walk, which
 * must not share it.
 *
 * Thread: that of the walk.
 */

#include "stream/description.h"
#include "stream/stream-map.h"

typedef struct {
  HfReader *reader;
  guint64 end;
  const HfStreamJob *job;
  HfStreamMap *map;
  guint64 position; /* of the next byte */
  guint64 limit;    /* what is read now ends here: end, or the EOF byte once that is known */
  gboolean footers_known;
  guint64 told; /* the position that the job was told last */

  /* RAM */
  guint32 page_size;
  gboolean ignore_shared; /* the capability x-ignore-shared */
  guint32 ram_section_id;
  GHashTable *blocks; /* id (a copy) to index + 1 in map->blocks */
  guint block;        /* that of the last page, for CONTINUE; G_MAXUINT: none yet */
  HfWalkPage on_page; /* NULL: nobody wants to know */
  gpointer on_page_data;

  /* devices */
  JsonNode *description; /* NULL: not yet looked for */
  JsonArray *devices;    /* in it */
  guint next_device;
  guint64 steps;
  guint n_subsections;
} HfForward;

/* Both FALSE, so that they can be returned. */
gboolean hf_forward_malformed (GError **error, const char *format, ...) G_GNUC_PRINTF (2, 3);
gboolean hf_forward_unsupported (GError **error, const char *format, ...) G_GNUC_PRINTF (2, 3);

/* The next bytes. If there are not as many: HF_STREAM_ERROR_INCOMPLETE, or HF_STREAM_ERROR_MALFORMED before the description. */
gboolean hf_forward_take (HfForward *forward, void *buffer, gsize length, GError **error);
gboolean hf_forward_take_u8 (HfForward *forward, guint8 *ret, GError **error);
gboolean hf_forward_take_be16 (HfForward *forward, guint16 *ret, GError **error);
gboolean hf_forward_take_be32 (HfForward *forward, guint32 *ret, GError **error);
gboolean hf_forward_take_be64 (HfForward *forward, guint64 *ret, GError **error);
gboolean hf_forward_skip (HfForward *forward, guint64 length, GError **error);
/* A length byte and so many bytes of a name, which is not empty and has no zero byte. */
gboolean hf_forward_take_name (HfForward *forward, char name[256], GError **error);

/* Members of the description. NULL: there is no such member or element, or it is of another type. */
JsonArray *hf_forward_json_array (JsonObject *object, const char *name);
guint hf_forward_json_count (JsonArray *array); /* NULL: 0 */
JsonObject *hf_forward_json_object (JsonObject *object, const char *name);
JsonObject *hf_forward_json_at (JsonArray *array, guint index);
const char *hf_forward_json_text (JsonObject *object, const char *name);
/* FALSE: no such member, or no integer from 0 to G_MAXINT64. */
gboolean hf_forward_json_number (JsonObject *object, const char *name, guint64 *ret);

/* Bodies of sections; position is behind the section's header. */
gboolean hf_forward_ram_start (HfForward *forward, GError **error);
gboolean hf_forward_ram_items (HfForward *forward, GError **error); /* PART and END */
gboolean hf_forward_device (HfForward *forward, HfStreamSection *section, GError **error);
