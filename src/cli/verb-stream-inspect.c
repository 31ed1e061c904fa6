/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * holdfast stream inspect FILE. Owns: this sub-verb. Thread: main.
 *
 * Theory of operation: the forward walk says what is in the file, and of a cut one what was there until the cut. What it could
 * not reach, the tail walk may have found from the other end; so a stream whose memory is damaged still shows its devices. The
 * exit code is that of the walk: only a whole stream is 0. One that has something in it which the forward walk does not
 * understand, and whose end is whole, is not called cut.
 */
#include "config.h"

#include "cli/stream-compare.h"
#include "cli/verb-stream.h"
#include "stream/image.h"
#include "stream/stream-map.h"

#include <string.h>

typedef struct {
  char *offset, *progress;
  gboolean any;
  HfCompareWords compare;
  char **rest;
} InspectWords;

static void
inspect_words_clear (InspectWords *words)
{
  g_free (words->offset);
  g_free (words->progress);
  g_strfreev (words->compare.maps);
  g_strfreev (words->rest);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (InspectWords, inspect_words_clear)

typedef struct {
  HfImage *image;
  HfStreamMap *forward, *tail; /* tail: NULL unless the forward walk did not come to the end */
  GError *problem;             /* of the forward walk; NULL: complete */
  gboolean unproved;           /* it came upon what it does not understand; the end, if it can be understood, is whole */
  GPtrArray *sections;         /* HfStreamSection of both; not owned */
} Inspection;

static void
inspection_clear (Inspection *inspection)
{
  hf_image_free (inspection->image);
  hf_stream_map_free (inspection->forward);
  hf_stream_map_free (inspection->tail);
  g_clear_error (&inspection->problem);
  g_clear_pointer (&inspection->sections, g_ptr_array_unref);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (Inspection, inspection_clear)

/* ---- looking ---- */

static void
collect_sections (Inspection *inspection)
{
  guint64 end = 0;

  inspection->sections = g_ptr_array_new ();
  for (guint i = 0; i < inspection->forward->sections->len; i++) {
    HfStreamSection *section = inspection->forward->sections->pdata[i];
    g_ptr_array_add (inspection->sections, section);
    end = section->offset + section->length;
  }
  for (guint i = 0; inspection->tail && i < inspection->tail->sections->len; i++) {
    HfStreamSection *section = inspection->tail->sections->pdata[i];
    if (section->offset >= end)
      g_ptr_array_add (inspection->sections, section);
  }
}

/* The forward walk has a problem. What it does not understand is no fault of the stream, unless the tail walk finds one. */
static void
take_tail (Inspection *inspection)
{
  HfImage *image = inspection->image;
  g_autoptr (GError) problem = NULL;

  hf_walk_tail (image->reader, image->start, image->end, &inspection->tail, &problem);
  if (!g_error_matches (inspection->problem, HF_STREAM_ERROR, HF_STREAM_ERROR_UNSUPPORTED))
    return;
  inspection->unproved = !problem || g_error_matches (problem, HF_STREAM_ERROR, HF_STREAM_ERROR_UNSUPPORTED);
  if (inspection->unproved)
    return;
  g_clear_error (&inspection->problem);
  inspection->problem = g_steal_pointer (&problem);
}

static gboolean
look (Inspection *inspection, const char *path, guint64 offset, gboolean any, const HfStreamJob *job, GError **error)
{
  HfImage *image = inspection->image = hf_image_open (path, offset, any, error);
  if (!image)
    return FALSE;
  if (image->kind == HF_IMAGE_ANY)
    return TRUE;
  if (!hf_walk_forward (image->reader, image->start, image->end, job, &inspection->forward, &inspection->problem)) {
    if (g_error_matches (inspection->problem, HF_STREAM_ERROR, HF_STREAM_ERROR_INTERRUPTED)) {
      g_propagate_error (error, g_steal_pointer (&inspection->problem));
      return FALSE;
    }
    take_tail (inspection);
  }
  collect_sections (inspection);
  return TRUE;
}

/* ---- showing ---- */

static void
set_number (JsonObject *object, const char *name, guint64 value)
{
  json_object_set_int_member (object, name, (gint64)value);
}

static void
show_trailer (HfRun *run, const HfImage *image)
{
  JsonObject *object;
  g_autoptr (GDateTime) when = NULL;
  g_autofree char *time = NULL;

  if (!image->has_trailer) {
    json_object_set_null_member (run->object, "trailer");
    return;
  }
  when = g_date_time_new_from_unix_utc (image->trailer.time / G_USEC_PER_SEC);
  time = when ? g_date_time_format (when, "%Y-%m-%dT%H:%M:%SZ") : g_strdup ("?");
  object = json_object_new ();
  hf_json_set_string (object, "time", time);
  set_number (object, "block_size", image->trailer.block_size);
  set_number (object, "blocks", image->trailer.n_blocks);
  json_object_set_boolean_member (object, "complete", (image->trailer.flags & HF_TRAILER_COMPLETE) != 0);
  json_object_set_object_member (run->object, "trailer", object);
  g_string_append_printf (run->text, "  captured at %s, %" G_GUINT64_FORMAT " checksums of blocks of %u bytes\n", time,
                          image->trailer.n_blocks, image->trailer.block_size);
}

static void
show_libvirt (HfRun *run, const HfImage *image)
{
  JsonObject *object;

  if (image->kind != HF_IMAGE_LIBVIRT) {
    json_object_set_null_member (run->object, "libvirt");
    return;
  }
  object = json_object_new ();
  json_object_set_int_member (object, "format", image->libvirt_format);
  json_object_set_boolean_member (object, "was_running", image->libvirt_was_running);
  json_object_set_object_member (run->object, "libvirt", object);
  g_string_append_printf (run->text, "  image format %u, the VM was %s\n", image->libvirt_format,
                          image->libvirt_was_running ? "running" : "paused");
}

static void
show_image (HfRun *run, const char *path, const HfImage *image)
{
  static const char *const whats[] = {
    [HF_IMAGE_QEMU] = "a file of QEMU",
    [HF_IMAGE_LIBVIRT] = "a save image of libvirt",
    [HF_IMAGE_HOLDFAST] = "a capture of holdfast",
    [HF_IMAGE_ANY] = "no stream of QEMU",
  };
  JsonObject *stream = json_object_new ();
  g_autofree char *shown = hf_printable (path);

  G_STATIC_ASSERT (G_N_ELEMENTS (whats) == HF_N_IMAGE_KINDS);
  hf_json_set_string (run->object, "file", path);
  hf_json_set_string (run->object, "kind", hf_image_kind_name (image->kind));
  set_number (run->object, "size", image->size);
  set_number (stream, "offset", image->start);
  set_number (stream, "length", image->end - image->start);
  json_object_set_object_member (run->object, "stream", stream);
  g_string_append_printf (
      run->text, "%s: %s, %" G_GUINT64_FORMAT " bytes; the stream is %" G_GUINT64_FORMAT " bytes at %" G_GUINT64_FORMAT "\n",
      shown, whats[image->kind], image->size, image->end - image->start, image->start);
  show_trailer (run, image);
  show_libvirt (run, image);
}

static void
show_machine (HfRun *run, const HfStreamMap *map)
{
  static const char *const uuid_format = "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x";
  const guint8 *u = map->uuid;
  g_autofree char *machine = hf_printable (map->machine);
  g_autofree char *uuid = NULL;
  JsonArray *capabilities = json_array_new ();

  if (map->has_uuid)
    uuid = g_strdup_printf (uuid_format, u[0], u[1], u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13],
                            u[14], u[15]);
  hf_json_set_string (run->object, "machine", map->machine);
  hf_json_set_string (run->object, "uuid", uuid);
  json_object_set_int_member (run->object, "target_page_bits", map->target_page_bits);
  json_object_set_boolean_member (run->object, "mapped_ram", map->mapped_ram);
  json_object_set_array_member (run->object, "capabilities", capabilities);
  g_string_append_printf (run->text, "  machine %s, %s%s%s", machine ? machine : "unknown",
                          map->mapped_ram ? "mapped-ram" : "classic", uuid ? ", uuid " : "", uuid ? uuid : "");
  for (guint i = 0; map->capabilities && map->capabilities[i]; i++) {
    g_autofree char *name = hf_printable (map->capabilities[i]);
    json_array_add_string_element (capabilities, name);
    g_string_append_printf (run->text, "%s%s", i ? ", " : ", capabilities: ", name);
  }
  g_string_append_c (run->text, '\n');
}

/* What of a whole stream was found, and what is missing. */
static void
show_completeness (HfRun *run, const Inspection *inspection)
{
  const HfStreamMap *forward = inspection->forward, *tail = inspection->tail;
  const struct {
    const char *name, *text;
    gboolean seen;
  } parts[] = {
    { "configuration", "configuration", forward->machine != NULL },
    { "ram_start", "start of RAM", forward->ram_start_seen },
    { "ram_end", "end of RAM", forward->ram_end_seen || (tail && tail->ram_end_seen) },
    { "eof", "end of the stream", forward->eof_seen || (tail && tail->eof_seen) },
    { "description", "description of the devices", forward->description_seen || (tail && tail->description_seen) },
  };
  JsonObject *seen = json_object_new ();
  GString *missing = g_string_new (NULL);

  json_object_set_boolean_member (run->object, "complete", inspection->problem == NULL);
  json_object_set_boolean_member (run->object, "proved", !inspection->unproved);
  for (guint i = 0; i < G_N_ELEMENTS (parts); i++) {
    json_object_set_boolean_member (seen, parts[i].name, parts[i].seen);
    if (!parts[i].seen)
      g_string_append_printf (missing, "%s%s", missing->len ? ", " : "", parts[i].text);
  }
  json_object_set_object_member (run->object, "seen", seen);
  if (inspection->unproved)
    g_string_append (run->text, "  not proved to be whole: something in it is not understood\n");
  else if (inspection->problem)
    g_string_append_printf (run->text, "  not whole%s%s\n", missing->len ? "; missing: " : "", missing->str);
  else
    g_string_append (run->text, "  complete\n");
  g_string_free (missing, TRUE);
}

static JsonArray *
json_subsections (const HfStreamSection *section)
{
  JsonArray *array = json_array_new ();

  for (guint i = 0; section->subsections && i < section->subsections->len; i++) {
    const HfStreamSubsection *subsection = section->subsections->pdata[i];
    JsonObject *object = json_object_new ();

    hf_json_set_string (object, "name", subsection->name);
    json_object_set_int_member (object, "version", subsection->version);
    set_number (object, "offset", subsection->offset);
    set_number (object, "length", subsection->length);
    json_array_add_object_element (array, object);
  }
  return array;
}

static const char *
section_type (const HfStreamSection *section)
{
  static const char *const names[] = { [1] = "start", [2] = "part", [3] = "end", [4] = "full", [8] = "command" };

  return section->type < G_N_ELEMENTS (names) && names[section->type] ? names[section->type] : "unknown";
}

static void
show_section (const HfStreamSection *section, HfTable *table, JsonArray *array)
{
  JsonObject *object = json_object_new ();
  g_autofree char *offset = g_strdup_printf ("%" G_GUINT64_FORMAT, section->offset);
  g_autofree char *length = g_strdup_printf ("%" G_GUINT64_FORMAT, section->length);
  g_autofree char *instance = g_strdup_printf ("%u", section->instance_id);
  g_autofree char *version = g_strdup_printf ("%u", section->version);
  gboolean named = *section->id != '\0';
  const char *cells[] = {
    offset, length, section_type (section), named ? section->id : NULL, named ? instance : NULL, named ? version : NULL
  };

  hf_table_add (table, cells);
  hf_json_set_string (object, "type", section_type (section));
  hf_json_set_string (object, "id", section->id);
  json_object_set_int_member (object, "section_id", section->section_id);
  json_object_set_int_member (object, "instance_id", section->instance_id);
  json_object_set_int_member (object, "version", section->version);
  set_number (object, "offset", section->offset);
  set_number (object, "length", section->length);
  json_object_set_array_member (object, "subsections", json_subsections (section));
  json_array_add_object_element (array, object);
}

static void
show_sections (HfRun *run, GPtrArray *sections)
{
  static const char *const headings[] = { "OFFSET", "LENGTH", "TYPE", "SECTION", "INSTANCE", "VERSION" };
  g_autoptr (HfTable) table = hf_table_new (G_N_ELEMENTS (headings), headings);
  JsonArray *array = json_array_new ();

  for (guint i = 0; i < sections->len; i++)
    show_section (sections->pdata[i], table, array);
  json_object_set_array_member (run->object, "sections", array);
  if (sections->len)
    hf_table_print (table, "  ", run->text);
}

static void
show_block (const HfStreamBlock *block, HfTable *table, JsonArray *array)
{
  JsonObject *object = json_object_new ();
  g_autofree char *length = g_strdup_printf ("%" G_GUINT64_FORMAT, block->ram.used_length);
  g_autofree char *bitmap = g_strdup_printf ("%" G_GUINT64_FORMAT, block->bitmap_offset);
  g_autofree char *pages = g_strdup_printf ("%" G_GUINT64_FORMAT, block->pages_offset);
  const char *cells[] = { block->ram.id, length, block->mapped ? bitmap : NULL, block->mapped ? pages : NULL };

  hf_table_add (table, cells);
  hf_json_set_string (object, "id", block->ram.id);
  set_number (object, "length", block->ram.used_length);
  if (block->mapped) {
    set_number (object, "header_offset", block->header_offset);
    set_number (object, "bitmap_offset", block->bitmap_offset);
    set_number (object, "bitmap_length", block->bitmap_length);
    set_number (object, "pages_offset", block->pages_offset);
    set_number (object, "page_size", block->page_size);
  }
  json_array_add_object_element (array, object);
}

static void
show_blocks (HfRun *run, const HfStreamMap *map)
{
  static const char *const headings[] = { "RAM BLOCK", "LENGTH", "BITMAP AT", "PAGES AT" };
  g_autoptr (HfTable) table = hf_table_new (G_N_ELEMENTS (headings), headings);
  JsonArray *array = json_array_new ();

  for (guint i = 0; i < map->blocks->len; i++)
    show_block (&g_array_index (map->blocks, HfStreamBlock, i), table, array);
  json_object_set_array_member (run->object, "blocks", array);
  if (map->blocks->len)
    hf_table_print (table, "  ", run->text);
  if (map->mapped_ram || !map->ram_start_seen)
    return;
  set_number (run->object, "pages", map->pages);
  set_number (run->object, "zero_pages", map->zero_pages);
  set_number (run->object, "xbzrle_pages", map->xbzrle_pages);
  g_string_append_printf (
      run->text, "  pages: %" G_GUINT64_FORMAT ", of zeros: %" G_GUINT64_FORMAT ", as differences: %" G_GUINT64_FORMAT "\n",
      map->pages, map->zero_pages, map->xbzrle_pages);
}

/* ---- the sub-verb ---- */

static gboolean
parse_inspect (HfRun *run, char **argv, InspectWords *words, GError **error)
{
  const GOptionEntry entries[] = {
    { "offset", 0, 0, G_OPTION_ARG_STRING, &words->offset, "The stream begins so far into FILE", "BYTES" },
    { "any", 0, 0, G_OPTION_ARG_NONE, &words->any, "FILE need not be a stream of QEMU", NULL },
    { "map", 0, 0, G_OPTION_ARG_STRING_ARRAY, &words->compare.maps, "The scsi-disk/pr of this section is of this LU",
      "SECTION-ID=LU" },
    { "offline", 0, 0, G_OPTION_ARG_NONE, &words->compare.offline, "Open no LU", NULL },
    HF_STREAM_PROGRESS_ENTRY (&words->progress),
    { NULL },
  };
  const HfOptionSpec spec = { "stream inspect FILE [LU...]",
                              "Show what is in FILE, and compare the reservations in it with their LUs. Sends only reads.",
                              "Without LUs the block devices of this machine are searched for those of holdfast's records.",
                              entries, FALSE };
  g_auto (GStrv) given = hf_stream_argv (argv);

  if (!hf_run_parse (run, &spec, given, &words->rest, error))
    return FALSE;
  if (!words->rest[0] || !*words->rest[0])
    return hf_usage_error (error, "inspect needs a FILE");
  if (words->compare.offline && (words->rest[1] || words->compare.maps))
    return hf_usage_error (error, "--offline opens no LU: none can be named");
  words->compare.addresses = words->rest + 1;
  return TRUE;
}

gboolean
hf_stream_inspect (HfRun *run, char **argv, GError **error)
{
  g_auto (InspectWords) words = { 0 };
  g_auto (Inspection) inspection = { 0 };
  g_autoptr (GError) failure = NULL;
  HfStreamWork work;
  guint64 offset;
  gboolean done;

  if (!parse_inspect (run, argv, &words, error) || !hf_stream_parse_size ("--offset", words.offset, &offset, error)
      || !hf_stream_work_begin (&work, words.progress, error))
    return FALSE;
  done = look (&inspection, words.rest[0], offset, words.any, &work.job, &failure);
  if (done) /* also of what took no time to look at */
    hf_progress_step (inspection.image->end - inspection.image->start, inspection.image->end - inspection.image->start,
                      &work.progress);
  hf_stream_work_end (&work);
  if (!done) {
    hf_stream_report_error (run, words.rest[0], failure);
    return TRUE;
  }
  show_image (run, words.rest[0], inspection.image);
  if (!inspection.forward)
    return TRUE;
  show_machine (run, inspection.forward);
  show_completeness (run, &inspection);
  show_sections (run, inspection.sections);
  show_blocks (run, inspection.forward);
  if (inspection.problem)
    hf_stream_report_error (run, words.rest[0], inspection.problem);
  return hf_compare_show (run, inspection.image->reader, inspection.sections, &words.compare, error);
}
