/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns: the forward walk: framing, CONFIGURATION, the order of sections. Thread: one at a time.
 *
 * Theory of operation: as QEMU loads a stream, but with the description in hand instead of devices: header, CONFIGURATION, then
 * one section after the other as their type bytes say, RAM item by item (forward-ram.c), devices by the description
 * (forward-devices.c), EOF byte, description. Where RAM has ended, the description is looked for from there on: 00 06, a length
 * that reaches to the end of the stream, and text without zero bytes. Devices that come before RAM has ended (early setup:
 * virtio-mem) need it earlier; then the last 64 MiB are searched.
 *
 * A wrong place cannot be taken for the description, and the search is linear: before the next candidate comes its own 00 byte,
 * which ends the look at this one.
 *
 * Whether sections have footers is seen at the end of the first one.
 */

#include "config.h"

#include "base/bytes.h"
#include "stream/forward.h"

#include <string.h>

#define STREAM_VERSION 3u
#define RAM_VERSION 4u
#define PAGE_SIZE_DEFAULT 4096u
#define PAGE_BITS_MIN 9u
#define PAGE_BITS_MAX 24u
#define DESCRIPTION_HEADER_SIZE 6u /* EOF byte, type, length */

enum {
  TYPE_EOF = 0x00,
  TYPE_START = 0x01,
  TYPE_PART = 0x02,
  TYPE_END = 0x03,
  TYPE_FULL = 0x04,
  TYPE_SUBSECTION = 0x05,
  TYPE_DESCRIPTION = 0x06,
  TYPE_CONFIGURATION = 0x07,
  TYPE_COMMAND = 0x08,
  TYPE_FOOTER = 0x7e
};

static void G_GNUC_PRINTF (3, 0) set_error_va (GError **error, HfStreamError code, const char *format, va_list arguments)
{
  g_autofree char *text = g_strdup_vprintf (format, arguments);

  g_set_error_literal (error, HF_STREAM_ERROR, code, text);
}

gboolean
hf_forward_malformed (GError **error, const char *format, ...)
{
  va_list arguments;

  va_start (arguments, format);
  set_error_va (error, HF_STREAM_ERROR_MALFORMED, format, arguments);
  va_end (arguments);
  return FALSE;
}

gboolean
hf_forward_unsupported (GError **error, const char *format, ...)
{
  va_list arguments;

  va_start (arguments, format);
  set_error_va (error, HF_STREAM_ERROR_UNSUPPORTED, format, arguments);
  va_end (arguments);
  return FALSE;
}

/* The cursor. */

static gboolean
check_rest (HfForward *forward, guint64 length, GError **error)
{
  gboolean cut = forward->limit == forward->end;

  if (length <= forward->limit - forward->position)
    return TRUE;
  g_set_error (error, HF_STREAM_ERROR, cut ? HF_STREAM_ERROR_INCOMPLETE : HF_STREAM_ERROR_MALFORMED,
               "%" G_GUINT64_FORMAT " bytes should be at offset %" G_GUINT64_FORMAT ", but %s at %" G_GUINT64_FORMAT, length,
               forward->position, cut ? "the stream ends" : "the sections end", forward->limit);
  return FALSE;
}

gboolean
hf_forward_take (HfForward *forward, void *buffer, gsize length, GError **error)
{
  if (!check_rest (forward, length, error) || !hf_reader_get (forward->reader, forward->position, buffer, length, error))
    return FALSE;
  forward->position += length;
  return TRUE;
}

gboolean
hf_forward_skip (HfForward *forward, guint64 length, GError **error)
{
  if (!check_rest (forward, length, error))
    return FALSE;
  forward->position += length;
  return TRUE;
}

gboolean
hf_forward_take_u8 (HfForward *forward, guint8 *ret, GError **error)
{
  return hf_forward_take (forward, ret, sizeof *ret, error);
}

gboolean
hf_forward_take_be16 (HfForward *forward, guint16 *ret, GError **error)
{
  guint8 bytes[2];

  if (!hf_forward_take (forward, bytes, sizeof bytes, error))
    return FALSE;
  *ret = hf_get_be16 (bytes);
  return TRUE;
}

gboolean
hf_forward_take_be32 (HfForward *forward, guint32 *ret, GError **error)
{
  guint8 bytes[4];

  if (!hf_forward_take (forward, bytes, sizeof bytes, error))
    return FALSE;
  *ret = hf_get_be32 (bytes);
  return TRUE;
}

gboolean
hf_forward_take_be64 (HfForward *forward, guint64 *ret, GError **error)
{
  guint8 bytes[8];

  if (!hf_forward_take (forward, bytes, sizeof bytes, error))
    return FALSE;
  *ret = hf_get_be64 (bytes);
  return TRUE;
}

gboolean
hf_forward_take_name (HfForward *forward, char name[256], GError **error)
{
  guint64 offset = forward->position;
  guint8 length;

  if (!hf_forward_take_u8 (forward, &length, error) || !hf_forward_take (forward, name, length, error))
    return FALSE;
  name[length] = '\0';
  return (length > 0 && strlen (name) == length)
         || hf_forward_malformed (error, "the name at offset %" G_GUINT64_FORMAT " is none", offset);
}

/* CONFIGURATION. */

static gboolean
take_target_page_bits (HfForward *forward, GError **error)
{
  HfStreamMap *map = forward->map;

  if (!hf_forward_take_be32 (forward, &map->target_page_bits, error))
    return FALSE;
  if (map->target_page_bits < PAGE_BITS_MIN || map->target_page_bits > PAGE_BITS_MAX)
    return hf_forward_malformed (error, "CONFIGURATION names pages of 2^%u bytes", map->target_page_bits);
  forward->page_size = 1u << map->target_page_bits;
  return TRUE;
}

static gboolean
take_capabilities (HfForward *forward, GError **error)
{
  g_autoptr (GStrvBuilder) builder = g_strv_builder_new ();
  guint32 count;
  char name[256];

  if (!hf_forward_take_be32 (forward, &count, error))
    return FALSE;
  if (count > HF_STREAM_CAPABILITIES_MAX)
    return hf_forward_malformed (error, "CONFIGURATION names %u capabilities", count);
  for (guint32 i = 0; i < count; i++) {
    if (!hf_forward_take_name (forward, name, error))
      return FALSE;
    g_strv_builder_add (builder, name);
  }
  g_strfreev (forward->map->capabilities);
  forward->map->capabilities = g_strv_builder_end (builder);
  forward->map->mapped_ram = g_strv_contains ((const char *const *)forward->map->capabilities, "mapped-ram");
  forward->ignore_shared = g_strv_contains ((const char *const *)forward->map->capabilities, "x-ignore-shared");
  return TRUE;
}

static gboolean
take_uuid (HfForward *forward, GError **error)
{
  forward->map->has_uuid = hf_forward_take (forward, forward->map->uuid, sizeof forward->map->uuid, error);
  return forward->map->has_uuid;
}

static const struct {
  const char *name;
  gboolean (*take) (HfForward *forward, GError **error);
} configuration_subsections[] = {
  { "configuration/target-page-bits", take_target_page_bits },
  { "configuration/capabilities", take_capabilities },
  { "configuration/uuid", take_uuid },
};

static gboolean
take_configuration_subsection (HfForward *forward, GError **error)
{
  guint64 offset = forward->position;
  g_autofree char *quoted = NULL;
  guint32 version;
  guint8 type;
  char name[256];

  if (!hf_forward_take_u8 (forward, &type, error) || !hf_forward_take_name (forward, name, error)
      || !hf_forward_take_be32 (forward, &version, error))
    return FALSE;
  quoted = hf_stream_quote (name);
  for (gsize i = 0; i < G_N_ELEMENTS (configuration_subsections); i++) {
    if (g_str_equal (name, configuration_subsections[i].name) && version == 1)
      return configuration_subsections[i].take (forward, error);
  }
  return hf_forward_unsupported (error, "CONFIGURATION at offset %" G_GUINT64_FORMAT " has a part %s version %u", offset, quoted,
                                 version);
}

/* Does the next byte say this? It stays. */
static gboolean
peek (HfForward *forward, guint8 type, gboolean *ret, GError **error)
{
  guint8 byte;

  if (!check_rest (forward, 1, error) || !hf_reader_u8 (forward->reader, forward->position, &byte, error))
    return FALSE;
  *ret = byte == type;
  return TRUE;
}

/* There may be none (migration.send-configuration=off). */
static gboolean
take_configuration (HfForward *forward, GError **error)
{
  g_autofree char *machine = NULL;
  gboolean is_there;
  guint32 length;

  if (!peek (forward, TYPE_CONFIGURATION, &is_there, error))
    return FALSE;
  if (!is_there)
    return TRUE;
  if (!hf_forward_skip (forward, 1, error) || !hf_forward_take_be32 (forward, &length, error))
    return FALSE;
  if (length == 0 || length > HF_STREAM_MACHINE_MAX)
    return hf_forward_malformed (error, "CONFIGURATION has a machine name of %u bytes", length);
  machine = g_malloc0 (length + 1);
  if (!hf_forward_take (forward, machine, length, error))
    return FALSE;
  forward->map->machine = g_steal_pointer (&machine);
  while (peek (forward, TYPE_SUBSECTION, &is_there, error)) {
    if (!is_there)
      return TRUE;
    if (!take_configuration_subsection (forward, error))
      return FALSE;
  }
  return FALSE;
}

static gboolean
take_header (HfForward *forward, GError **error)
{
  guint8 magic[4];
  guint32 version;

  if (!hf_forward_take (forward, magic, sizeof magic, error))
    return FALSE;
  if (memcmp (magic, "QEVM", sizeof magic) != 0)
    return hf_forward_malformed (error, "no QEMU stream begins at offset %" G_GUINT64_FORMAT, forward->map->start);
  if (!hf_forward_take_be32 (forward, &version, error))
    return FALSE;
  if (version != STREAM_VERSION)
    return hf_forward_unsupported (error, "the stream has version %u, known is %u", version, STREAM_VERSION);
  return take_configuration (forward, error);
}

/* The description. */

/* In bytes, which are the last ones of the stream; G_MAXSIZE: nowhere. */
static gsize
find_candidate (const guint8 *bytes, gsize length)
{
  for (gsize at = 0; at + DESCRIPTION_HEADER_SIZE + 2 <= length; at++) {
    gsize text = at + DESCRIPTION_HEADER_SIZE;

    if (bytes[at] == TYPE_EOF && bytes[at + 1] == TYPE_DESCRIPTION && hf_get_be32 (bytes + at + 2) == length - text
        && bytes[text] == '{' && bytes[text + 1] == '"' && !memchr (bytes + text, 0, length - text))
      return text;
  }
  return G_MAXSIZE;
}

/* From the position on; once. */
static gboolean
find_description (HfForward *forward, GError **error)
{
  guint64 rest = forward->end - forward->position;
  gsize length = (gsize)MIN (rest, (guint64)HF_DESCRIPTION_MAX + DESCRIPTION_HEADER_SIZE), found;
  g_autofree guint8 *bytes = NULL;

  if (forward->description)
    return TRUE;
  bytes = g_malloc (MAX (length, 1));
  if (!hf_reader_get_large (forward->reader, forward->end - length, bytes, length, error))
    return FALSE;
  found = find_candidate (bytes, length);
  if (found == G_MAXSIZE) {
    g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_INCOMPLETE,
                 "behind offset %" G_GUINT64_FORMAT " there is no description up to the end at %" G_GUINT64_FORMAT
                 ": the stream is cut, or it was written without one (suppress-vmdesc)",
                 forward->position, forward->end);
    return FALSE;
  }
  forward->description = hf_description_parse ((const char *)bytes + found, length - found, error);
  if (!forward->description)
    return FALSE;
  forward->devices = hf_forward_json_array (json_node_get_object (forward->description), "devices");
  forward->map->description_length = length - found;
  forward->map->description_offset = forward->end - forward->map->description_length;
  forward->limit = forward->map->description_offset - DESCRIPTION_HEADER_SIZE + 1; /* with the EOF byte */
  return TRUE;
}

/* Sections. */

static gboolean
take_footer (HfForward *forward, const HfStreamSection *section, GError **error)
{
  g_autofree char *quoted = hf_stream_quote (section->id);
  guint64 offset = forward->position;
  guint32 section_id;
  guint8 type;

  if (!hf_forward_take_u8 (forward, &type, error) || !hf_forward_take_be32 (forward, &section_id, error))
    return FALSE;
  if (type == TYPE_FOOTER && section_id == section->section_id)
    return TRUE;
  return hf_forward_malformed (error,
                               "section %u %s at offset %" G_GUINT64_FORMAT " should end at offset %" G_GUINT64_FORMAT
                               ", but its footer is not there",
                               section->section_id, quoted, section->offset, offset);
}

/* Behind the body. */
static gboolean
finish_section (HfForward *forward, HfStreamSection *section, GError **error)
{
  section->body_length = forward->position - section->body_offset;
  if (!forward->footers_known && !peek (forward, TYPE_FOOTER, &forward->map->footers, error))
    return FALSE;
  forward->footers_known = TRUE;
  if (forward->map->footers && !take_footer (forward, section, error))
    return FALSE;
  section->length = forward->position - section->offset;
  return TRUE;
}

/* Behind the section id: idlen, id, instance_id, version_id. */
static gboolean
take_section_header (HfForward *forward, HfStreamSection *section, GError **error)
{
  char id[256];

  if (!hf_forward_take_name (forward, id, error) || !hf_forward_take_be32 (forward, &section->instance_id, error)
      || !hf_forward_take_be32 (forward, &section->version, error))
    return FALSE;
  g_free (section->id);
  section->id = g_strdup (id);
  return TRUE;
}

static gboolean
take_start (HfForward *forward, HfStreamSection *section, GError **error)
{
  g_autofree char *quoted = NULL;

  if (!take_section_header (forward, section, error))
    return FALSE;
  quoted = hf_stream_quote (section->id);
  if (!g_str_equal (section->id, "ram"))
    return hf_forward_unsupported (error, "section %s at offset %" G_GUINT64_FORMAT " is saved in rounds, in a format of its own",
                                   quoted, section->offset);
  if (section->version != RAM_VERSION)
    return hf_forward_unsupported (error, "RAM at offset %" G_GUINT64_FORMAT " has version %u, known is %u", section->offset,
                                   section->version, RAM_VERSION);
  if (forward->map->ram_start_seen || section->instance_id != 0)
    return hf_forward_malformed (error, "a second RAM at offset %" G_GUINT64_FORMAT, section->offset);
  forward->ram_section_id = section->section_id;
  section->body_offset = forward->position;
  if (!hf_forward_ram_start (forward, error))
    return FALSE;
  forward->map->ram_start_seen = TRUE;
  return TRUE;
}

static gboolean
take_part (HfForward *forward, HfStreamSection *section, GError **error)
{
  if (!forward->map->ram_start_seen || forward->map->ram_end_seen || section->section_id != forward->ram_section_id)
    return hf_forward_malformed (error, "the section at offset %" G_GUINT64_FORMAT " goes on with %u, which is not open",
                                 section->offset, section->section_id);
  section->body_offset = forward->position;
  return hf_forward_ram_items (forward, error);
}

static gboolean
take_end (HfForward *forward, HfStreamSection *section, GError **error)
{
  return take_part (forward, section, error);
}

static gboolean
take_full (HfForward *forward, HfStreamSection *section, GError **error)
{
  if (!find_description (forward, error) || !take_section_header (forward, section, error))
    return FALSE;
  section->body_offset = forward->position;
  return hf_forward_device (forward, section, error);
}

static const struct {
  guint8 type;
  gboolean (*take) (HfForward *forward, HfStreamSection *section, GError **error);
} section_types[] = {
  { TYPE_START, take_start },
  { TYPE_PART, take_part },
  { TYPE_END, take_end },
  { TYPE_FULL, take_full },
};

/* What QEMU writes into files: migration/savevm.c there. The first comes with dirty bitmaps, which may go on in postcopy; it must
   be the first of all. */
static const struct {
  guint16 command, length_max;
  gboolean in_ram; /* between START and END, else before everything */
} commands[] = {
  { 0x03, 16, FALSE }, /* POSTCOPY_ADVISE */
  { 0x0b, 0, TRUE },   /* SWITCHOVER_START */
};

static gboolean
is_place_of_command (const HfStreamMap *map, gboolean in_ram)
{
  return in_ram ? map->ram_start_seen && !map->ram_end_seen : map->sections->len == 0;
}

/* COMMAND has no footer. */
static gboolean
take_command (HfForward *forward, HfStreamSection *section, GError **error)
{
  guint16 command, length;

  if (!hf_forward_take_be16 (forward, &command, error) || !hf_forward_take_be16 (forward, &length, error))
    return FALSE;
  for (gsize i = 0; i < G_N_ELEMENTS (commands); i++) {
    if (commands[i].command != command)
      continue;
    if (length > commands[i].length_max || !is_place_of_command (forward->map, commands[i].in_ram))
      return hf_forward_malformed (error,
                                   "command 0x%02x with %u bytes of data at offset %" G_GUINT64_FORMAT " does not belong there",
                                   command, length, section->offset);
    section->body_offset = forward->position;
    section->body_length = length;
    section->length = forward->position + length - section->offset;
    return hf_forward_skip (forward, length, error);
  }
  return hf_forward_unsupported (error, "command 0x%02x at offset %" G_GUINT64_FORMAT, command, section->offset);
}

static gboolean
take_section (HfForward *forward, guint8 type, GError **error)
{
  g_autoptr (HfStreamSection) section = hf_stream_section_new (type, forward->position - 1, "", 0);

  if (type == TYPE_COMMAND)
    return take_command (forward, section, error) && hf_stream_map_take (forward->map, g_steal_pointer (&section), error);
  for (gsize i = 0; i < G_N_ELEMENTS (section_types); i++) {
    if (section_types[i].type != type)
      continue;
    if (!hf_forward_take_be32 (forward, &section->section_id, error) || !section_types[i].take (forward, section, error)
        || !finish_section (forward, section, error) || !hf_stream_map_take (forward->map, g_steal_pointer (&section), error))
      return FALSE;
    forward->map->ram_end_seen |= type == TYPE_END;
    return TRUE;
  }
  return hf_forward_malformed (error, "what begins at offset %" G_GUINT64_FORMAT " with 0x%02x is no section",
                               forward->position - 1, type);
}

/* What the description says of all RAM must be what RAM was read with. */
static gboolean
check_page_size (HfForward *forward, GError **error)
{
  guint64 page_size;

  if (!hf_forward_json_number (json_node_get_object (forward->description), "page_size", &page_size)
      || page_size == forward->page_size)
    return TRUE;
  return hf_forward_malformed (error, "pages have %u bytes, the description says %" G_GUINT64_FORMAT, forward->page_size,
                               page_size);
}

/* The EOF byte was read. */
static gboolean
take_end_of_stream (HfForward *forward, GError **error)
{
  HfStreamMap *map = forward->map;

  map->eof_seen = TRUE;
  map->eof_offset = forward->position - 1;
  if (!map->ram_end_seen)
    return hf_forward_malformed (error, "the sections end at offset %" G_GUINT64_FORMAT ", but RAM has not ended",
                                 map->eof_offset);
  if (!find_description (forward, error))
    return FALSE;
  if (forward->position + DESCRIPTION_HEADER_SIZE - 1 != map->description_offset)
    return hf_forward_malformed (
        error, "the sections end at offset %" G_GUINT64_FORMAT ", but the description is at offset %" G_GUINT64_FORMAT,
        map->eof_offset, map->description_offset);
  if (forward->next_device != json_array_get_length (forward->devices))
    return hf_forward_malformed (error, "there are %u devices, the description says %u", forward->next_device,
                                 json_array_get_length (forward->devices));
  if (!check_page_size (forward, error))
    return FALSE;
  map->description_seen = TRUE;
  map->end = forward->end;
  return TRUE;
}

static gboolean
walk (HfForward *forward, gboolean head_only, GError **error)
{
  guint8 type;

  if (!take_header (forward, error))
    return FALSE;
  for (;;) {
    if (!hf_forward_take_u8 (forward, &type, error))
      return FALSE;
    if (type == TYPE_EOF)
      return take_end_of_stream (forward, error);
    if (!take_section (forward, type, error))
      return FALSE;
    if (head_only && forward->map->ram_start_seen)
      return TRUE;
    /* Then the description is looked for here, so that a device that is longer than it says does not look like a cut stream. */
    if (type == TYPE_END && !find_description (forward, error))
      return FALSE;
  }
}

static gboolean
start_walk (HfForward *forward, guint64 start, gboolean head_only, HfStreamMap **ret_map, GError **error)
{
  gboolean done;

  forward->limit = forward->end;
  forward->map = hf_stream_map_new (start);
  forward->position = forward->told = start;
  forward->page_size = PAGE_SIZE_DEFAULT;
  forward->blocks = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  forward->block = G_MAXUINT;
  done = walk (forward, head_only, error);
  *ret_map = forward->map;
  g_hash_table_unref (forward->blocks);
  g_clear_pointer (&forward->description, json_node_unref);
  return done;
}

gboolean
hf_walk_forward (HfReader *reader, guint64 start, guint64 end, const HfStreamJob *job, HfStreamMap **ret_map, GError **error)
{
  return hf_walk_forward_pages (reader, start, end, job, NULL, NULL, ret_map, error);
}

gboolean
hf_walk_forward_pages (HfReader *reader, guint64 start, guint64 end, const HfStreamJob *job, HfWalkPage on_page, gpointer data,
                       HfStreamMap **ret_map, GError **error)
{
  HfForward forward = { .reader = reader, .end = end, .job = job, .on_page = on_page, .on_page_data = data };

  return start_walk (&forward, start, FALSE, ret_map, error);
}

gboolean
hf_walk_forward_head (HfReader *reader, guint64 start, guint64 end, HfStreamMap **ret_map, GError **error)
{
  HfForward forward = { .reader = reader, .end = end };

  return start_walk (&forward, start, TRUE, ret_map, error);
}
