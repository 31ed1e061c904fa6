/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns: nothing. Thread: that of the walk.
 *
 * Theory of operation: a device's body is passed in the order in which QEMU wrote it: its fields one after the other, a structure
 * by what is inside of it, then its subsections, each of which must stand where the fields before it end. Only the sizes of what
 * is no structure count: what a structure says of its own size is for the tail walk.
 *
 * A field of type vstruct or tmp has a description of its inside in the field itself, which QEMU writes at another time than the
 * size; those are passed by their size (scripts/analyze-migration.py there does it too).
 */

#include "config.h"

#include "base/bytes.h"
#include "stream/forward.h"

#include <string.h>

#define TYPE_SUBSECTION 0x05
/* Fields looked at, those of repeated structures as often as they are passed one by one. */
#define STEPS_MAX (1u << 24)

static gboolean
step (HfForward *forward, GError **error)
{
  return ++forward->steps <= STEPS_MAX || hf_forward_malformed (error, "the description needs more than %u steps", STEPS_MAX);
}

/* How often the field is there. */
static gboolean
get_count (JsonObject *field, guint64 *ret, GError **error)
{
  *ret = 1;
  return !json_object_has_member (field, "array_len") || hf_forward_json_number (field, "array_len", ret)
         || hf_forward_malformed (error, "the description has an array of no length");
}

static gboolean measure (HfForward *forward, JsonObject *object, guint64 *ret_length, gboolean *ret_plain, GError **error);

/* Once. *ret_plain becomes FALSE if there is a subsection in it: then the length is of no use. */
static gboolean
measure_one (HfForward *forward, JsonObject *field, guint64 *ret_length, gboolean *ret_plain, GError **error)
{
  JsonObject *structure = hf_forward_json_object (field, "struct");

  if (structure)
    return measure (forward, structure, ret_length, ret_plain, error);
  return hf_forward_json_number (field, "size", ret_length)
         || hf_forward_malformed (error, "the description has a field of no size");
}

/* What the fields of an object take. */
static gboolean
measure (HfForward *forward, JsonObject *object, guint64 *ret_length, gboolean *ret_plain, GError **error)
{
  JsonArray *fields = hf_forward_json_array (object, "fields");
  JsonArray *subsections = hf_forward_json_array (object, "subsections");
  guint n_fields = hf_forward_json_count (fields);

  *ret_length = 0;
  if (subsections && json_array_get_length (subsections) > 0)
    *ret_plain = FALSE;
  for (guint i = 0; i < n_fields; i++) {
    JsonObject *field = hf_forward_json_at (fields, i);
    guint64 length, count;

    if (!step (forward, error))
      return FALSE;
    if (!field)
      return hf_forward_malformed (error, "the description has a field that is none");
    if (!get_count (field, &count, error) || !measure_one (forward, field, &length, ret_plain, error))
      return FALSE;
    if (!g_uint64_checked_mul (&length, length, count) || !g_uint64_checked_add (ret_length, *ret_length, length))
      return hf_forward_malformed (error, "the description has a structure that is too long");
  }
  return TRUE;
}

static gboolean pass_body (HfForward *forward, HfStreamSection *section, JsonObject *object, GError **error);

static gboolean
pass_field (HfForward *forward, HfStreamSection *section, JsonObject *field, GError **error)
{
  gboolean plain = TRUE;
  guint64 length, count;

  if (!step (forward, error))
    return FALSE;
  if (!field)
    return hf_forward_malformed (error, "the description has a field that is none");
  if (!get_count (field, &count, error) || !measure_one (forward, field, &length, &plain, error))
    return FALSE;
  if (plain) {
    if (!g_uint64_checked_mul (&length, length, count))
      return hf_forward_malformed (error, "the description has an array that is too long");
    return hf_forward_skip (forward, length, error);
  }
  for (guint64 i = 0; i < count; i++) {
    if (!step (forward, error) || !pass_body (forward, section, hf_forward_json_object (field, "struct"), error))
      return FALSE;
  }
  return TRUE;
}

/* 05, length, name, version. */
static gboolean
take_subsection_header (HfForward *forward, const char *expected, guint32 *ret_version, GError **error)
{
  g_autofree char *quoted = hf_stream_quote (expected);
  guint64 offset = forward->position;
  guint8 type;
  char name[256];

  if (!hf_forward_take_u8 (forward, &type, error))
    return FALSE;
  if (type != TYPE_SUBSECTION)
    return hf_forward_malformed (error, "subsection %s is not at offset %" G_GUINT64_FORMAT ", where the fields before it end",
                                 quoted, offset);
  if (!hf_forward_take_name (forward, name, error))
    return FALSE;
  if (!g_str_equal (name, expected)) {
    g_autofree char *found = hf_stream_quote (name);

    return hf_forward_malformed (error, "at offset %" G_GUINT64_FORMAT " is subsection %s, the description says %s", offset,
                                 found, quoted);
  }
  return hf_forward_take_be32 (forward, ret_version, error);
}

static gboolean
pass_subsection (HfForward *forward, HfStreamSection *section, JsonObject *object, GError **error)
{
  const char *name = object ? hf_forward_json_text (object, "vmsd_name") : NULL;
  HfStreamSubsection *subsection;
  guint64 version;

  if (!name || !hf_forward_json_number (object, "version", &version))
    return hf_forward_malformed (error, "the description has a subsection without a name or version");
  if (++forward->n_subsections > HF_STREAM_SUBSECTIONS_MAX)
    return hf_forward_unsupported (error, "more than %u subsections", HF_STREAM_SUBSECTIONS_MAX);
  subsection = g_new0 (HfStreamSubsection, 1);
  subsection->name = g_strdup (name);
  subsection->offset = forward->position;
  g_ptr_array_add (section->subsections, subsection);
  if (!take_subsection_header (forward, name, &subsection->version, error))
    return FALSE;
  if (subsection->version != version)
    return hf_forward_malformed (
        error, "a subsection at offset %" G_GUINT64_FORMAT " has version %u, the description says %" G_GUINT64_FORMAT,
        subsection->offset, subsection->version, version);
  if (!pass_body (forward, section, object, error))
    return FALSE;
  subsection->length = forward->position - subsection->offset;
  return TRUE;
}

static gboolean
pass_body (HfForward *forward, HfStreamSection *section, JsonObject *object, GError **error)
{
  JsonArray *fields = hf_forward_json_array (object, "fields");
  JsonArray *subsections = hf_forward_json_array (object, "subsections");
  guint n_fields = hf_forward_json_count (fields);
  guint n_subsections = hf_forward_json_count (subsections);

  for (guint i = 0; i < n_fields; i++) {
    if (!pass_field (forward, section, hf_forward_json_at (fields, i), error))
      return FALSE;
  }
  for (guint i = 0; i < n_subsections; i++) {
    if (!pass_subsection (forward, section, hf_forward_json_at (subsections, i), error))
      return FALSE;
  }
  return TRUE;
}

/* The next one of the description must be this section. */
gboolean
hf_forward_device (HfForward *forward, HfStreamSection *section, GError **error)
{
  JsonObject *device = hf_forward_json_at (forward->devices, forward->next_device);
  const char *name = device ? hf_forward_json_text (device, "name") : NULL;
  g_autofree char *quoted = hf_stream_quote (section->id);
  guint64 number;

  if (!name)
    return hf_forward_malformed (error, "section %s at offset %" G_GUINT64_FORMAT " is not in the description", quoted,
                                 section->offset);
  if (!g_str_equal (name, section->id)) {
    g_autofree char *expected = hf_stream_quote (name);

    return hf_forward_malformed (error, "section %s at offset %" G_GUINT64_FORMAT ": the description says %s", quoted,
                                 section->offset, expected);
  }
  if (!hf_forward_json_number (device, "instance_id", &number) || number != section->instance_id)
    return hf_forward_malformed (error, "section %s at offset %" G_GUINT64_FORMAT ": instance %u is not that of the description",
                                 quoted, section->offset, section->instance_id);
  /* A device of the old style has no version there. */
  if (hf_forward_json_number (device, "version", &number) && number != section->version)
    return hf_forward_malformed (
        error, "section %s at offset %" G_GUINT64_FORMAT ": version %u is not the description's %" G_GUINT64_FORMAT, quoted,
        section->offset, section->version, number);
  forward->next_device++;
  return pass_body (forward, section, device, error);
}
