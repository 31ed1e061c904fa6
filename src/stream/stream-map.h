/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What a walk found in a QEMU migration stream, and the two walks. To read, they have nothing in common but the byte reader and
 * the bounded load of the description into json-glib (hf_description_parse); to say what they found, these structures and their
 * constructors. The forward walk reads RAM item by item or by the mapped-ram headers, then the devices field by field after the
 * JSON description, which it looks for behind RAM; the tail walk finds the description from the end and goes back section by
 * section, by the sums of the sizes.
 *
 * Bounded: sections 2^18 (a live save sends a PART ten to twenty times a second), blocks 4096, subsections 65536, the description
 * as description.h says, and the steps taken in it.
 *
 * Thread: one at a time. Errors: HF_STREAM_ERROR, HF_IO_ERROR; messages name section and offset (absolute in the reader).
 */

#include "stream/feed.h"
#include "stream/reader.h"

/* A part of a section that has a name of its own: 0x05, its length, its name, version, fields. */
typedef struct {
  char *name;
  guint32 version;
  guint64 offset, length; /* from the byte 0x05 on, all of it, nested ones included */
} HfStreamSubsection;

typedef struct {
  guint8 type; /* 0x01 START, 0x02 PART, 0x03 END, 0x04 FULL, 0x08 COMMAND */
  guint32 section_id;
  char *id; /* NUL-terminated, escaped nowhere; "" for PART, END and COMMAND */
  guint32 instance_id, version;
  guint64 offset, length;           /* all of it, from the type byte to the end of the footer */
  guint64 body_offset, body_length; /* without framing and footer */
  GPtrArray *subsections;           /* HfStreamSubsection, in the order of their offsets */
} HfStreamSection;

typedef struct {
  HfRamBlock ram;
  gboolean mapped; /* the rest is 0 unless it is */
  guint64 header_offset, bitmap_offset, bitmap_length, pages_offset, page_size;
} HfStreamBlock;

typedef struct {
  guint64 start, end;       /* of the stream: from "QEVM" to the end of the JSON; end 0: not found */
  char *machine;            /* NULL: not found */
  guint32 target_page_bits; /* 0: not named */
  gboolean mapped_ram;
  char **capabilities; /* NULL-terminated; may be empty */
  gboolean has_uuid;
  guint8 uuid[16];
  gboolean ram_start_seen, ram_end_seen, eof_seen, description_seen;
  gboolean footers;                                           /* sections end with footers */
  guint64 eof_offset, description_offset, description_length; /* the JSON alone */
  GPtrArray *sections; /* HfStreamSection, in the order of their offsets; the tail walk has only FULL ones behind RAM END, and
                          of the END itself where it ends: its offset is there that of the last word and the footer */
  guint unplaced;      /* tail walk only: devices of the description that do not stand behind RAM END (early-setup ones) */
  GArray *blocks;      /* HfStreamBlock; forward walk only */
  guint64 pages, zero_pages, xbzrle_pages; /* of a classic stream; forward walk only */
} HfStreamMap;

void hf_stream_map_free (HfStreamMap *map);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (HfStreamMap, hf_stream_map_free)

/* What the walks build a map with. */
#define HF_STREAM_SECTIONS_MAX (1u << 18)
#define HF_STREAM_SUBSECTIONS_MAX 65536u
HfStreamMap *hf_stream_map_new (guint64 start);
/* Not yet in a map. id is copied, length bytes of it. */
HfStreamSection *hf_stream_section_new (guint8 type, guint64 offset, const void *id, gsize length);
void hf_stream_section_free (HfStreamSection *section);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (HfStreamSection, hf_stream_section_free)
/* Takes the section. FALSE: there are too many. */
gboolean hf_stream_map_take (HfStreamMap *map, HfStreamSection *section, GError **error);
/* A name out of a file as one line of ASCII, for messages. */
char *hf_stream_quote (const char *name);

/* Both: *ret_map is set in any case, to what was found until an error. [start, end) lie within the reader. TRUE: complete, with
   the description's last byte at end - 1. A stream without a description (machine option suppress-vmdesc) is
   HF_STREAM_ERROR_INCOMPLETE. */
gboolean hf_walk_forward (HfReader *reader, guint64 start, guint64 end, const HfStreamJob *job, HfStreamMap **ret_map,
                          GError **error);
/* The same, and on_page is told each page of a classic stream as it is passed: its number in the block, and where it lies. */
typedef void (*HfWalkPage) (const HfRamBlock *block, guint64 page, guint64 offset, guint64 length, gpointer data);
gboolean hf_walk_forward_pages (HfReader *reader, guint64 start, guint64 end, const HfStreamJob *job, HfWalkPage on_page,
                                gpointer data, HfStreamMap **ret_map, GError **error);
/* Only header, CONFIGURATION and the block list of a classic stream, up to the end of RAM START. */
gboolean hf_walk_forward_head (HfReader *reader, guint64 start, guint64 end, HfStreamMap **ret_map, GError **error);
gboolean hf_walk_tail (HfReader *reader, guint64 start, guint64 end, HfStreamMap **ret_map, GError **error);

/* The sections that both saw are the same, to the byte. The error names the first difference. */
gboolean hf_stream_maps_agree (const HfStreamMap *forward, const HfStreamMap *tail, GError **error);

/* NULL if there is none. */
const HfStreamSection *hf_stream_map_find (const HfStreamMap *map, const char *id);
