/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns: nothing but what it is given. Thread: one at a time.
 *
 * Theory of operation: sections of a QEMU stream have no length, but its last bytes do: 00 (EOF), 06 (VMDESCRIPTION), a length,
 * and JSON up to the end. The JSON says of every device how many bytes each of its fields took. So from the EOF byte each section
 * is found by going back the sum of its sizes, and proved by its header and its footer; inside of it, subsections are found in
 * the same way, the last one first. RAM is never read. Where no more device fits, RAM must end.
 *
 * A size is taken as it stands, also that of a structure: the forward walk (walk-forward.c) counts what is inside instead and
 * looks at no such sum.
 *
 * The first place from the end that looks like a description decides. What lies before it cannot be one: it would contain this
 * one's 00 byte, which JSON does not have. So the search is linear.
 */

#include "config.h"

#include "base/bytes.h"
#include "stream/description.h"
#include "stream/stream-map.h"

#include <string.h>

#define FIRST_WINDOW (1u << 20)
#define WINDOW_GROWTH 4u
#define TYPE_START 0x01
#define TYPE_END 0x03
#define TYPE_FULL 0x04
#define TYPE_SUBSECTION 0x05
#define TYPE_DESCRIPTION 0x06
#define TYPE_CONFIGURATION 0x07
#define TYPE_FOOTER 0x7e
#define FOOTER_SIZE 5u
#define DESCRIPTION_HEADER_SIZE 6u                     /* EOF byte, type, length */
#define SECTION_HEADER_SIZE(idlen) (14u + (idlen))     /* type, section id, idlen, id, instance, version */
#define SUBSECTION_HEADER_SIZE(namelen) (6u + namelen) /* type, namelen, name, version */
#define RAM_EOS 0x10u
#define STREAM_VERSION 3u
#define CONFIGURATION_MAX (64u << 10)
/* Fields looked at, structures counted as often as they are repeated. */
#define STEPS_MAX (1u << 24)

typedef struct {
  HfReader *reader;
  guint64 start, end;
  HfStreamMap *map;
  JsonArray *devices;
  guint64 steps;
  guint n_subsections;
} Tail;

static gboolean G_GNUC_PRINTF (2, 3) malformed (GError **error, const char *format, ...)
{
  va_list arguments;
  g_autofree char *text = NULL;

  va_start (arguments, format);
  text = g_strdup_vprintf (format, arguments);
  va_end (arguments);
  g_set_error_literal (error, HF_STREAM_ERROR, HF_STREAM_ERROR_MALFORMED, text);
  return FALSE;
}

/* The description. */

/* Where in bytes, the last length ones of the stream, before index limit, a description may begin; 0: nowhere. */
static gsize
find_candidate (const guint8 *bytes, gsize length, gsize limit)
{
  for (gsize p = limit; p-- > DESCRIPTION_HEADER_SIZE;) {
    if (bytes[p] == '{' && p + 1 < length && bytes[p + 1] == '"' && bytes[p - 5] == TYPE_DESCRIPTION && bytes[p - 6] == 0
        && hf_get_be32 (bytes + p - 4) == length - p)
      return p;
  }
  return 0;
}

/* *ret_bytes: the end of the stream, of which the description is from *ret_offset on. */
static gboolean
find_description (Tail *tail, guint8 **ret_bytes, gsize *ret_length, gsize *ret_offset, GError **error)
{
  guint64 available = tail->end - tail->start;
  gsize searched = 0;

  for (gsize window = FIRST_WINDOW; window <= HF_DESCRIPTION_MAX; window *= WINDOW_GROWTH) {
    gsize length = (gsize)MIN (window, available);
    g_autofree guint8 *bytes = g_malloc (MAX (length, 1));

    if (!hf_reader_get_large (tail->reader, tail->end - length, bytes, length, error))
      return FALSE;
    /* The first bytes of the last round could not have a header before them. */
    *ret_offset = find_candidate (bytes, length, length - searched + (searched ? DESCRIPTION_HEADER_SIZE : 0));
    if (*ret_offset) {
      *ret_length = length;
      *ret_bytes = g_steal_pointer (&bytes);
      return TRUE;
    }
    if (length == available)
      break;
    searched = length;
  }
  g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_INCOMPLETE,
               "no description ends at offset %" G_GUINT64_FORMAT ": the stream is cut, or it was written without one "
               "(suppress-vmdesc)",
               tail->end);
  return FALSE;
}

/* The length of the array goes to *ret_n: 1 for one field. */
static gboolean
read_field (JsonObject *field, guint64 *ret_size, guint64 *ret_n, GError **error)
{
  *ret_n = 1;
  if (field && hf_description_number (field, "size", ret_size)
      && (!json_object_has_member (field, "array_len") || hf_description_number (field, "array_len", ret_n)))
    return TRUE;
  return malformed (error, "the description has a field without a size");
}

static gboolean
add_product (guint64 *sum, guint64 size, guint64 n, GError **error)
{
  guint64 product;

  if (g_uint64_checked_mul (&product, size, n) && g_uint64_checked_add (sum, *sum, product) && *sum <= G_MAXINT64)
    return TRUE;
  return malformed (error, "the sizes in the description are too large");
}

static gboolean
count_step (Tail *tail, GError **error)
{
  return ++tail->steps <= STEPS_MAX || malformed (error, "the description takes too many steps");
}

/* subsection may be NULL: not even an object. */
static const char *
subsection_name (JsonObject *subsection, GError **error)
{
  const char *name = subsection ? hf_description_string (subsection, "vmsd_name") : NULL;

  if (!name)
    malformed (error, "the description has a subsection without a name");
  return name;
}

static gboolean add_subsections (Tail *tail, JsonObject *object, guint64 *sum, GError **error);

/* What the fields and subsections of a device, a structure or a subsection take. */
static gboolean
add_body (Tail *tail, JsonObject *object, guint64 *sum, GError **error)
{
  JsonArray *fields = hf_description_array (object, "fields");
  guint n_fields = fields ? json_array_get_length (fields) : 0;
  guint64 size, n;

  for (guint i = 0; i < n_fields; i++) {
    if (!count_step (tail, error) || !read_field (hf_description_element (fields, i), &size, &n, error)
        || !add_product (sum, size, n, error))
      return FALSE;
  }
  return add_subsections (tail, object, sum, error);
}

static gboolean
add_subsections (Tail *tail, JsonObject *object, guint64 *sum, GError **error)
{
  JsonArray *subsections = hf_description_array (object, "subsections");
  guint n_subsections = subsections ? json_array_get_length (subsections) : 0;

  for (guint i = 0; i < n_subsections; i++) {
    JsonObject *subsection = hf_description_element (subsections, i);
    const char *name = subsection_name (subsection, error);

    if (!name || !add_product (sum, SUBSECTION_HEADER_SIZE (strlen (name)), 1, error) || !add_body (tail, subsection, sum, error))
      return FALSE;
  }
  return TRUE;
}

/* Subsections, from the end of a section. */

/* Also FALSE as soon as there were too many steps: the next one is an error. */
static gboolean
has_subsections (Tail *tail, JsonObject *object)
{
  JsonArray *subsections = hf_description_array (object, "subsections");
  JsonArray *fields = hf_description_array (object, "fields");
  guint n_fields = fields ? json_array_get_length (fields) : 0;

  if (subsections && json_array_get_length (subsections) > 0)
    return TRUE;
  for (guint i = 0; i < n_fields && ++tail->steps <= STEPS_MAX; i++) {
    JsonObject *field = hf_description_element (fields, i);
    JsonObject *structure = field ? hf_description_object (field, "struct") : NULL;

    if (structure && has_subsections (tail, structure))
      return TRUE;
  }
  return FALSE;
}

/* At offset, which with the whole subsection lies in the section, stands the header of this one. */
static gboolean
check_subsection (Tail *tail, JsonObject *object, HfStreamSubsection *subsection, GError **error)
{
  guint8 header[SUBSECTION_HEADER_SIZE (255)];
  gsize name_length = strlen (subsection->name), length = SUBSECTION_HEADER_SIZE (name_length);
  g_autofree char *name = hf_stream_quote (subsection->name);
  guint64 version;

  if (name_length > 255 || subsection->length < length)
    return malformed (error, "the description names a subsection %s that cannot be", name);
  if (!hf_reader_get (tail->reader, subsection->offset, header, length, error))
    return FALSE;
  if (header[0] != TYPE_SUBSECTION || header[1] != name_length || memcmp (header + 2, subsection->name, name_length) != 0)
    return malformed (error, "subsection %s does not begin at offset %" G_GUINT64_FORMAT ", as the sizes behind it say", name,
                      subsection->offset);
  subsection->version = hf_get_be32 (header + 2 + name_length);
  if (!hf_description_number (object, "version", &version) || version != subsection->version)
    return malformed (error, "subsection %s at offset %" G_GUINT64_FORMAT " has version %u, which is not that of the description",
                      name, subsection->offset, subsection->version);
  return TRUE;
}

static gboolean place_body (Tail *tail, HfStreamSection *section, JsonObject *object, guint64 *cursor, GError **error);

/* The last one of what is before *cursor. */
static gboolean
place_subsection (Tail *tail, HfStreamSection *section, JsonObject *object, guint64 *cursor, GError **error)
{
  const char *name = subsection_name (object, error);
  guint64 end = *cursor, length;
  HfStreamSubsection *subsection;

  if (!name)
    return FALSE;
  subsection = g_new0 (HfStreamSubsection, 1);
  subsection->name = g_strdup (name);
  g_ptr_array_add (section->subsections, subsection);
  if (++tail->n_subsections > HF_STREAM_SUBSECTIONS_MAX)
    return malformed (error, "more than %u subsections", HF_STREAM_SUBSECTIONS_MAX);
  length = SUBSECTION_HEADER_SIZE (strlen (name));
  if (!add_body (tail, object, &length, error))
    return FALSE;
  if (length > end - section->body_offset)
    return malformed (error, "a subsection that ends at offset %" G_GUINT64_FORMAT " is longer than its section", end);
  subsection->offset = end - length;
  subsection->length = length;
  if (!check_subsection (tail, object, subsection, error) || !place_body (tail, section, object, cursor, error))
    return FALSE;
  *cursor = subsection->offset;
  return TRUE;
}

static gboolean
place_field (Tail *tail, HfStreamSection *section, JsonObject *field, guint64 *cursor, GError **error)
{
  JsonObject *structure;
  guint64 size, n, total = 0;

  if (!count_step (tail, error) || !read_field (field, &size, &n, error) || !add_product (&total, size, n, error))
    return FALSE;
  if (total > *cursor - section->body_offset)
    return malformed (error, "a field that ends at offset %" G_GUINT64_FORMAT " is longer than its section", *cursor);
  structure = hf_description_object (field, "struct");
  if (!structure || !has_subsections (tail, structure)) {
    *cursor -= total;
    return TRUE;
  }
  for (guint64 i = 0; i < n; i++) {
    guint64 start = *cursor - size;

    if (!count_step (tail, error) || !place_body (tail, section, structure, cursor, error))
      return FALSE;
    /* The structure was passed field by field only for its subsections: its size counts. */
    if (*cursor != start)
      return malformed (error,
                        "a structure begins at offset %" G_GUINT64_FORMAT " by its size and at %" G_GUINT64_FORMAT
                        " by its subsections and fields",
                        start, *cursor);
  }
  return TRUE;
}

/* *cursor: behind the last byte of the object; then its first one. */
static gboolean
place_body (Tail *tail, HfStreamSection *section, JsonObject *object, guint64 *cursor, GError **error)
{
  JsonArray *subsections = hf_description_array (object, "subsections");
  JsonArray *fields = hf_description_array (object, "fields");

  for (guint i = subsections ? json_array_get_length (subsections) : 0; i > 0; i--) {
    if (!place_subsection (tail, section, hf_description_element (subsections, i - 1), cursor, error))
      return FALSE;
  }
  for (guint i = fields ? json_array_get_length (fields) : 0; i > 0; i--) {
    if (!place_field (tail, section, hf_description_element (fields, i - 1), cursor, error))
      return FALSE;
  }
  return TRUE;
}

static gint
compare_subsections (gconstpointer a, gconstpointer b)
{
  const HfStreamSubsection *x = *(HfStreamSubsection *const *)a, *y = *(HfStreamSubsection *const *)b;

  return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* Sections, from the end of the stream. */

/* Is this device's header at offset, and, with footers, its footer before end? */
static gboolean
section_matches (Tail *tail, JsonObject *device, const char *name, guint64 offset, guint64 end, gboolean footers,
                 HfStreamSection **ret_section, GError **error)
{
  guint8 bytes[SECTION_HEADER_SIZE (255)], footer[FOOTER_SIZE] = { 0 };
  gsize name_length = strlen (name), length = SECTION_HEADER_SIZE (name_length);
  guint64 instance, version;
  HfStreamSection *section;

  if (!hf_reader_get (tail->reader, offset, bytes, length, error)
      || (footers && !hf_reader_get (tail->reader, end - FOOTER_SIZE, footer, FOOTER_SIZE, error)))
    return FALSE;
  if (bytes[0] != TYPE_FULL || bytes[5] != name_length || memcmp (bytes + 6, name, name_length) != 0
      || !hf_description_number (device, "instance_id", &instance) || hf_get_be32 (bytes + 6 + name_length) != instance
      || (footers && (footer[0] != TYPE_FOOTER || memcmp (footer + 1, bytes + 1, 4) != 0)))
    return TRUE;
  section = *ret_section = hf_stream_section_new (TYPE_FULL, offset, name, name_length);
  section->section_id = hf_get_be32 (bytes + 1);
  section->instance_id = (guint32)instance;
  section->version = hf_get_be32 (bytes + 10 + name_length);
  section->length = end - offset;
  section->body_offset = offset + length;
  section->body_length = section->length - length - (footers ? FOOTER_SIZE : 0);
  /* A device of the old style has no version in the description. */
  if (hf_description_number (device, "version", &version) && version != section->version)
    return malformed (error,
                      "the section at offset %" G_GUINT64_FORMAT " has version %u, the description says %" G_GUINT64_FORMAT,
                      offset, section->version, version);
  return TRUE;
}

/* The section of device that ends at end; *ret_section stays NULL if it is not there. */
static gboolean
find_section (Tail *tail, JsonObject *device, guint64 end, gboolean footers, HfStreamSection **ret_section, GError **error)
{
  const char *name = hf_description_string (device, "name");
  guint64 length, cursor;

  if (!name || strlen (name) > 255)
    return malformed (error, "the description has a device without a name");
  length = SECTION_HEADER_SIZE (strlen (name)) + (footers ? FOOTER_SIZE : 0);
  if (!add_body (tail, device, &length, error))
    return FALSE;
  if (length > end - tail->start)
    return TRUE;
  if (!section_matches (tail, device, name, end - length, end, footers, ret_section, error))
    return FALSE;
  if (!*ret_section)
    return TRUE;
  cursor = (*ret_section)->body_offset + (*ret_section)->body_length;
  if (!place_body (tail, *ret_section, device, &cursor, error))
    return FALSE;
  g_ptr_array_sort ((*ret_section)->subsections, compare_subsections);
  return TRUE;
}

/* The devices from the last one on. *cursor: in: the EOF byte; out: behind what stands before them. The map has them in reverse
   order then. */
static gboolean
place_devices (Tail *tail, guint64 *cursor, GError **error)
{
  guint n = json_array_get_length (tail->devices);

  tail->map->footers = TRUE;
  for (tail->map->unplaced = n; tail->map->unplaced > 0; tail->map->unplaced--) {
    JsonObject *device = hf_description_element (tail->devices, tail->map->unplaced - 1);
    g_autoptr (HfStreamSection) section = NULL;

    if (!device)
      return malformed (error, "the description has a device that is none");
    if (!find_section (tail, device, *cursor, tail->map->footers, &section, error))
      return FALSE;
    if (!section && tail->map->unplaced == n) { /* migration.send-section-footer=off */
      if (!find_section (tail, device, *cursor, FALSE, &section, error))
        return FALSE;
      tail->map->footers = section == NULL;
    }
    if (!section)
      return TRUE;
    *cursor = section->offset;
    if (!hf_stream_map_take (tail->map, g_steal_pointer (&section), error))
      return FALSE;
  }
  return TRUE;
}

static gboolean
no_end_of_ram (Tail *tail, guint64 end, GError **error)
{
  JsonObject *device = tail->map->unplaced ? hf_description_element (tail->devices, tail->map->unplaced - 1) : NULL;
  g_autofree char *name = hf_stream_quote (device ? hf_description_string (device, "name") : "");

  return malformed (error, "neither section %s of the description nor RAM ends at offset %" G_GUINT64_FORMAT, name, end);
}

/* Before end stand the last word of RAM END and its footer. What else can be saved in rounds (a dirty bitmap, VFIO) ends with
   words of its own; then only the footer can be seen, and every device must have been found. */
static gboolean
place_end_of_ram (Tail *tail, guint64 end, GError **error)
{
  guint footer_size = tail->map->footers ? FOOTER_SIZE : 0, length = footer_size + 8;
  HfStreamSection *section;
  guint8 bytes[8 + FOOTER_SIZE];

  if (end - tail->start < length)
    return no_end_of_ram (tail, end, error);
  if (!hf_reader_get (tail->reader, end - length, bytes, length, error))
    return FALSE;
  if (footer_size && bytes[8] != TYPE_FOOTER)
    return no_end_of_ram (tail, end, error);
  tail->map->ram_end_seen = hf_get_be64 (bytes) == RAM_EOS;
  if (!tail->map->ram_end_seen && (tail->map->unplaced || !footer_size))
    return no_end_of_ram (tail, end, error);
  section = hf_stream_section_new (TYPE_END, end - length, "", 0);
  section->section_id = footer_size ? hf_get_be32 (bytes + 9) : 0;
  section->length = length;
  section->body_offset = section->offset;
  section->body_length = 8;
  return hf_stream_map_take (tail->map, section, error);
}

static void
reverse (GPtrArray *array)
{
  for (guint i = 0, j = array->len; i + 1 < j; i++) {
    gpointer last = array->pdata[--j];

    array->pdata[j] = array->pdata[i];
    array->pdata[i] = last;
  }
}

/* CONFIGURATION, out of the first bytes of the stream. */

typedef struct {
  const guint8 *bytes;
  gsize length;
  gboolean cut; /* more was wanted than there is */
} Rest;

/* The next n bytes; NULL: there are not as many. */
static const guint8 *
take (Rest *rest, gsize n)
{
  const guint8 *bytes = rest->bytes;

  rest->cut |= n > rest->length;
  if (rest->cut)
    return NULL;
  rest->bytes += n;
  rest->length -= n;
  return bytes;
}

/* So many bytes as the first one says. NULL: there are not as many. */
static char *
take_name (Rest *rest)
{
  const guint8 *length = take (rest, 1), *name = length ? take (rest, *length) : NULL;

  return name ? g_strndup ((const char *)name, *length) : NULL;
}

static gboolean
take_target_page_bits (HfStreamMap *map, Rest *rest)
{
  const guint8 *bits = take (rest, 4);

  map->target_page_bits = bits ? hf_get_be32 (bits) : 0;
  return bits != NULL;
}

static gboolean
take_capabilities (HfStreamMap *map, Rest *rest)
{
  const guint8 *count = take (rest, 4);
  g_autoptr (GStrvBuilder) builder = g_strv_builder_new ();

  if (count && hf_get_be32 (count) > HF_STREAM_CAPABILITIES_MAX)
    return FALSE;
  for (guint32 n = count ? hf_get_be32 (count) : 0; n > 0; n--) {
    g_autofree char *name = take_name (rest);

    if (!name || !*name)
      return FALSE;
    map->mapped_ram |= g_str_equal (name, "mapped-ram");
    g_strv_builder_add (builder, name);
  }
  g_strfreev (map->capabilities);
  map->capabilities = g_strv_builder_end (builder);
  return count != NULL;
}

static gboolean
take_uuid (HfStreamMap *map, Rest *rest)
{
  const guint8 *uuid = take (rest, sizeof map->uuid);

  map->has_uuid = uuid != NULL;
  if (uuid)
    memcpy (map->uuid, uuid, sizeof map->uuid);
  return map->has_uuid;
}

static const struct {
  const char *name;
  gboolean (*read) (HfStreamMap *map, Rest *rest);
} configuration_parts[] = {
  { "configuration/target-page-bits", take_target_page_bits },
  { "configuration/capabilities", take_capabilities },
  { "configuration/uuid", take_uuid },
};

static gboolean
take_configuration_part (HfStreamMap *map, Rest *rest)
{
  g_autofree char *name = NULL;
  const guint8 *version;

  take (rest, 1);
  name = take_name (rest);
  version = name ? take (rest, 4) : NULL;
  if (!version || hf_get_be32 (version) != 1)
    return FALSE;
  for (gsize i = 0; i < G_N_ELEMENTS (configuration_parts); i++) {
    if (g_str_equal (name, configuration_parts[i].name))
      return configuration_parts[i].read (map, rest);
  }
  return FALSE;
}

/* Without CONFIGURATION (migration.send-configuration=off) the first section follows. */
static gboolean
take_configuration (HfStreamMap *map, Rest *rest)
{
  const guint8 *type = take (rest, 1), *length, *machine;

  if (!type || *type != TYPE_CONFIGURATION)
    return type && (*type == TYPE_START || *type == TYPE_FULL);
  length = take (rest, 4);
  if (length && (hf_get_be32 (length) == 0 || hf_get_be32 (length) > HF_STREAM_MACHINE_MAX))
    return FALSE;
  machine = length ? take (rest, hf_get_be32 (length)) : NULL;
  if (!machine)
    return FALSE;
  map->machine = g_strndup ((const char *)machine, hf_get_be32 (length));
  while (rest->length > 0 && *rest->bytes == TYPE_SUBSECTION) {
    if (!take_configuration_part (map, rest))
      return FALSE;
  }
  return TRUE;
}

static gboolean
read_start (Tail *tail, GError **error)
{
  gsize length = (gsize)MIN (CONFIGURATION_MAX, tail->end - tail->start);
  g_autofree guint8 *bytes = g_malloc (MAX (length, 1));
  Rest rest = { .bytes = bytes, .length = length };
  const guint8 *header;
  gboolean known;

  if (!hf_reader_get (tail->reader, tail->start, bytes, length, error))
    return FALSE;
  header = take (&rest, 8);
  if (header && memcmp (header, "QEVM", 4) != 0)
    return malformed (error, "no QEMU stream begins at offset %" G_GUINT64_FORMAT, tail->start);
  if (header && hf_get_be32 (header + 4) != STREAM_VERSION) {
    g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_UNSUPPORTED, "the stream has version %u, known is %u",
                 hf_get_be32 (header + 4), STREAM_VERSION);
    return FALSE;
  }
  known = header && take_configuration (tail->map, &rest);
  if (known && (rest.length > 0 || length < tail->end - tail->start))
    return TRUE;
  if ((known || rest.cut) && length == tail->end - tail->start) {
    g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_INCOMPLETE,
                 "the stream ends at offset %" G_GUINT64_FORMAT ", in or behind its CONFIGURATION", tail->end);
    return FALSE;
  }
  return malformed (error, "at offset %" G_GUINT64_FORMAT " ends what should be CONFIGURATION and is none",
                    tail->start + (guint64)(rest.bytes - bytes));
}

static gboolean
walk (Tail *tail, GError **error)
{
  g_autofree guint8 *bytes = NULL;
  g_autoptr (JsonNode) root = NULL;
  gsize length, offset;
  guint64 cursor;

  if (!read_start (tail, error) || !find_description (tail, &bytes, &length, &offset, error))
    return FALSE;
  root = hf_description_parse ((const char *)bytes + offset, length - offset, error);
  if (!root)
    return FALSE;
  g_clear_pointer (&bytes, g_free);
  tail->map->description_seen = tail->map->eof_seen = TRUE;
  tail->map->description_length = length - offset;
  tail->map->description_offset = tail->end - tail->map->description_length;
  tail->map->eof_offset = cursor = tail->map->description_offset - DESCRIPTION_HEADER_SIZE;
  tail->devices = hf_description_array (json_node_get_object (root), "devices");
  if (!place_devices (tail, &cursor, error) || !place_end_of_ram (tail, cursor, error))
    return FALSE;
  tail->map->end = tail->end;
  return TRUE;
}

gboolean
hf_walk_tail (HfReader *reader, guint64 start, guint64 end, HfStreamMap **ret_map, GError **error)
{
  Tail tail = { .reader = reader, .start = start, .end = end, .map = hf_stream_map_new (start) };
  g_autoptr (GError) problem = NULL;

  *ret_map = tail.map;
  walk (&tail, &problem);
  reverse (tail.map->sections);
  if (!problem)
    return TRUE;
  g_propagate_error (error, g_steal_pointer (&problem));
  return FALSE;
}
