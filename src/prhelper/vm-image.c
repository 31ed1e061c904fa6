/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns: the JSON of an image. Thread: any; pure.
 *
 * Theory of operation: numbers that may be over 2^53 (keys, times) are strings, so that every reader of JSON sees all of their
 * bits. A member that is missing, of another type or out of its bounds is damage, because half of what a VM holds is worse than
 * none of it: nobody would notice. Members that are not known are passed over.
 */

#include "config.h"

#include "base/json-check.h"
#include "prhelper/store.h"

#include <gio/gio.h>
#include <json-glib/json-glib.h>
#include <string.h>

#define IMAGE_VERSION 1
/* The image, held, one of it, its identity, designators, one of them. */
#define DEPTH_MAX 6
/* Scope and type are four bits each, SPC-4 6.15.3; so are the type and the code set of a designator, 7.8.6.1. */
#define NIBBLE_MAX 15

static const char *const phase_names[] = {
  [HF_VM_IDLE] = "idle",
  [HF_VM_SAVED] = "saved",
  [HF_VM_LOADING] = "loading",
  [HF_VM_PREPARED] = "prepared",
};
G_STATIC_ASSERT (G_N_ELEMENTS (phase_names) == HF_N_VM_PHASES);

HfVmImage *
hf_vm_image_new (const HfPeer *peer)
{
  HfVmImage *image = g_new0 (HfVmImage, 1);

  image->peer = *peer;
  image->guest_time = -1;
  image->held = g_array_new (FALSE, TRUE, sizeof (HfHeld));
  return image;
}

void
hf_vm_image_free (HfVmImage *image)
{
  if (!image)
    return;
  g_free (image->name);
  g_free (image->uuid);
  g_clear_pointer (&image->record, g_bytes_unref);
  g_array_unref (image->held);
  g_free (image);
}

/* ---- encode ---- */

static void
add_hex (JsonBuilder *builder, const char *name, guint64 value)
{
  g_autofree char *text = g_strdup_printf ("0x%" G_GINT64_MODIFIER "x", value);

  json_builder_set_member_name (builder, name);
  json_builder_add_string_value (builder, text);
}

static void
add_long (JsonBuilder *builder, const char *name, gint64 value)
{
  g_autofree char *text = g_strdup_printf ("%" G_GINT64_FORMAT, value);

  json_builder_set_member_name (builder, name);
  json_builder_add_string_value (builder, text);
}

static void
add_number (JsonBuilder *builder, const char *name, gint64 value)
{
  json_builder_set_member_name (builder, name);
  json_builder_add_int_value (builder, value);
}

static void
add_flag (JsonBuilder *builder, const char *name, gboolean value)
{
  json_builder_set_member_name (builder, name);
  json_builder_add_boolean_value (builder, value);
}

static void
add_text (JsonBuilder *builder, const char *name, const char *value)
{
  g_autofree char *text = value ? g_utf8_make_valid (value, -1) : NULL;

  json_builder_set_member_name (builder, name);
  if (text)
    json_builder_add_string_value (builder, text);
  else
    json_builder_add_null_value (builder);
}

static void
add_designator (JsonBuilder *builder, const HfDesignator *designator)
{
  char text[2 * HF_DESIGNATOR_MAX + 1] = "";

  for (guint i = 0; i < designator->length; i++)
    g_snprintf (text + 2 * (gsize)i, 3, "%02x", designator->bytes[i]);
  json_builder_begin_object (builder);
  add_number (builder, "type", designator->type);
  add_number (builder, "code_set", designator->code_set);
  add_text (builder, "value", text);
  json_builder_end_object (builder);
}

static void
add_identity (JsonBuilder *builder, const HfHeld *held)
{
  json_builder_set_member_name (builder, "identity");
  if (!held->identified) {
    json_builder_add_null_value (builder);
    return;
  }
  json_builder_begin_object (builder);
  json_builder_set_member_name (builder, "designators");
  json_builder_begin_array (builder);
  for (guint i = 0; i < held->identity.n_designators; i++)
    add_designator (builder, &held->identity.designators[i]);
  json_builder_end_array (builder);
  add_text (builder, "serial", held->identity.serial);
  json_builder_end_object (builder);
}

static void
add_held (JsonBuilder *builder, const HfHeld *held)
{
  const HfPrState *state = &held->state;

  json_builder_begin_object (builder);
  add_flag (builder, "block", held->block);
  add_number (builder, "major", held->major);
  add_number (builder, "minor", held->minor);
  add_identity (builder, held);
  add_hex (builder, "key", state->key);
  add_number (builder, "type", state->type);
  add_number (builder, "scope", state->scope);
  add_flag (builder, "aptpl", state->aptpl);
  add_flag (builder, "all_tg_pt", state->all_tg_pt);
  add_flag (builder, "uncertain", state->uncertain);
  add_hex (builder, "candidate_key", held->candidate_key);
  json_builder_end_object (builder);
}

static void
add_record (JsonBuilder *builder, const HfVmImage *image)
{
  g_autofree char *text = NULL;
  gsize length;
  const guint8 *bytes;

  if (image->record && image->phase != HF_VM_IDLE) {
    bytes = g_bytes_get_data (image->record, &length);
    text = g_base64_encode (bytes, length);
  }
  add_text (builder, "record", text);
}

static void
add_image (JsonBuilder *builder, const HfVmImage *image)
{
  json_builder_begin_object (builder);
  add_number (builder, "version", IMAGE_VERSION);
  add_number (builder, "pid", image->peer.pid);
  add_long (builder, "start_time", (gint64)image->peer.start_time);
  add_number (builder, "uid", image->peer.uid);
  add_number (builder, "gid", image->peer.gid);
  add_text (builder, "name", image->name);
  add_text (builder, "uuid", image->uuid);
  add_text (builder, "phase", phase_names[image->phase]);
  add_record (builder, image);
  add_long (builder, "guest_time", image->guest_time);
  json_builder_set_member_name (builder, "held");
  json_builder_begin_array (builder);
  for (guint i = 0; i < image->held->len; i++)
    add_held (builder, &g_array_index (image->held, HfHeld, i));
  json_builder_end_array (builder);
  json_builder_end_object (builder);
}

GBytes *
hf_vm_image_encode (const HfVmImage *image)
{
  g_autoptr (JsonBuilder) builder = json_builder_new ();
  g_autoptr (JsonGenerator) generator = json_generator_new ();
  g_autoptr (JsonNode) root = NULL;
  gsize length;
  char *text;

  add_image (builder, image);
  root = json_builder_get_root (builder);
  json_generator_set_root (generator, root);
  text = json_generator_to_data (generator, &length);
  return g_bytes_new_take (text, length);
}

/* ---- decode ---- */

/* One object and what was found wrong first; the values of wrong members are 0. */
typedef struct {
  JsonObject *object;
  const char **problem; /* the name of a member; shared by all readers of an image */
} Reader;

static void
complain (const Reader *reader, const char *name)
{
  if (!*reader->problem)
    *reader->problem = name;
}

/* The member if it is a value of this type. */
static JsonNode *
get_value (const Reader *reader, const char *name, GType type)
{
  JsonNode *node = json_object_get_member (reader->object, name);

  if (node && JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == type)
    return node;
  complain (reader, name);
  return NULL;
}

static gint64
get_number (const Reader *reader, const char *name, gint64 max)
{
  JsonNode *node = get_value (reader, name, G_TYPE_INT64);
  gint64 value = node ? json_node_get_int (node) : 0;

  if (value >= 0 && value <= max)
    return value;
  complain (reader, name);
  return 0;
}

static gboolean
get_flag (const Reader *reader, const char *name)
{
  JsonNode *node = get_value (reader, name, G_TYPE_BOOLEAN);

  return node && json_node_get_boolean (node);
}

static const char *
get_text (const Reader *reader, const char *name)
{
  JsonNode *node = get_value (reader, name, G_TYPE_STRING);

  return node ? json_node_get_string (node) : "";
}

/* The same, or NULL for null. */
static const char *
get_text_or_null (const Reader *reader, const char *name)
{
  JsonNode *node = json_object_get_member (reader->object, name);

  return node && JSON_NODE_HOLDS_NULL (node) ? NULL : get_text (reader, name);
}

static guint64
get_hex (const Reader *reader, const char *name)
{
  const char *text = get_text (reader, name);
  guint64 value = 0;

  if (!g_str_has_prefix (text, "0x") || !g_ascii_string_to_unsigned (text + 2, 16, 0, G_MAXUINT64, &value, NULL))
    complain (reader, name);
  return value;
}

static gint64
get_long (const Reader *reader, const char *name, gint64 min)
{
  gint64 value = 0;

  if (!g_ascii_string_to_signed (get_text (reader, name), 10, min, G_MAXINT64, &value, NULL))
    complain (reader, name);
  return value;
}

/* At most max elements; NULL: none, or wrong. */
static JsonArray *
get_array (const Reader *reader, const char *name, guint max)
{
  JsonNode *node = json_object_get_member (reader->object, name);

  if (node && JSON_NODE_HOLDS_ARRAY (node) && json_array_get_length (json_node_get_array (node)) <= max)
    return json_node_get_array (node);
  complain (reader, name);
  return NULL;
}

/* A reader of the i-th element. FALSE if it is no object. */
static gboolean
get_element (const Reader *reader, const char *name, JsonArray *array, guint i, Reader *ret)
{
  JsonNode *node = json_array_get_element (array, i);

  if (!JSON_NODE_HOLDS_OBJECT (node)) {
    complain (reader, name);
    return FALSE;
  }
  *ret = (Reader){ json_node_get_object (node), reader->problem };
  return TRUE;
}

static void
read_designator (const Reader *reader, HfDesignator *ret)
{
  const char *text = get_text (reader, "value");
  gsize length = strlen (text);

  ret->type = (guint8)get_number (reader, "type", NIBBLE_MAX);
  ret->code_set = (guint8)get_number (reader, "code_set", NIBBLE_MAX);
  if (length % 2 || length > (gsize)2 * HF_DESIGNATOR_MAX || strspn (text, "0123456789abcdef") != length) {
    complain (reader, "value");
    return;
  }
  ret->length = (guint8)(length / 2);
  for (guint i = 0; i < ret->length; i++)
    ret->bytes[i] = (guint8)(g_ascii_xdigit_value (text[2 * i]) << 4 | g_ascii_xdigit_value (text[2 * i + 1]));
}

static void
read_identity (const Reader *reader, HfHeld *ret)
{
  JsonNode *node = json_object_get_member (reader->object, "identity");
  JsonArray *designators;

  if (!node || !(JSON_NODE_HOLDS_OBJECT (node) || JSON_NODE_HOLDS_NULL (node))) {
    complain (reader, "identity");
    return;
  }
  ret->identified = JSON_NODE_HOLDS_OBJECT (node);
  if (!ret->identified)
    return;

  Reader inner = { json_node_get_object (node), reader->problem };
  designators = get_array (&inner, "designators", HF_DESIGNATORS_MAX);
  ret->identity.n_designators = designators ? json_array_get_length (designators) : 0;
  for (guint i = 0; i < ret->identity.n_designators; i++) {
    Reader element;

    if (get_element (&inner, "designators", designators, i, &element))
      read_designator (&element, &ret->identity.designators[i]);
  }
  if (g_strlcpy (ret->identity.serial, get_text (&inner, "serial"), sizeof ret->identity.serial) >= sizeof ret->identity.serial)
    complain (&inner, "serial");
}

static void
read_held (const Reader *reader, HfHeld *ret)
{
  ret->block = get_flag (reader, "block");
  ret->major = (guint)get_number (reader, "major", G_MAXUINT32);
  ret->minor = (guint)get_number (reader, "minor", G_MAXUINT32);
  read_identity (reader, ret);
  ret->state.key = get_hex (reader, "key");
  ret->state.type = (guint8)get_number (reader, "type", NIBBLE_MAX);
  ret->state.scope = (guint8)get_number (reader, "scope", NIBBLE_MAX);
  ret->state.aptpl = get_flag (reader, "aptpl");
  ret->state.all_tg_pt = get_flag (reader, "all_tg_pt");
  ret->state.uncertain = get_flag (reader, "uncertain");
  ret->candidate_key = get_hex (reader, "candidate_key");
}

static HfVmPhase
read_phase (const Reader *reader)
{
  const char *text = get_text (reader, "phase");

  for (guint i = 0; i < G_N_ELEMENTS (phase_names); i++)
    if (g_str_equal (text, phase_names[i]))
      return (HfVmPhase)i;
  complain (reader, "phase");
  return HF_VM_IDLE;
}

/* Present exactly if the phase is another than idle. g_base64_decode passes over what is no base64, so it is encoded again. */
static GBytes *
read_record (const Reader *reader, HfVmPhase phase)
{
  const char *text = get_text_or_null (reader, "record");
  g_autofree guint8 *bytes = NULL;
  g_autofree char *again = NULL;
  gsize length;

  if (!text && phase == HF_VM_IDLE)
    return NULL;
  if (text && phase != HF_VM_IDLE && strlen (text) <= (HF_RECORD_SIZE_MAX / 3 + 1) * (gsize)4) {
    bytes = g_base64_decode (text, &length);
    again = g_base64_encode (bytes, length);
    if (length <= HF_RECORD_SIZE_MAX && g_str_equal (text, again))
      return g_bytes_new_take (g_steal_pointer (&bytes), length);
  }
  complain (reader, "record");
  return NULL;
}

static void
read_all_held (const Reader *reader, GArray *ret)
{
  JsonArray *array = get_array (reader, "held", HF_STORE_HELD_MAX);

  for (guint i = 0; array && i < json_array_get_length (array) && !*reader->problem; i++) {
    Reader element;

    g_array_set_size (ret, i + 1);
    if (get_element (reader, "held", array, i, &element))
      read_held (&element, &g_array_index (ret, HfHeld, i));
  }
}

static HfVmImage *
read_image (const Reader *reader)
{
  /* As far as it goes: who it is. */
  HfPeer peer = {
    .pid = (pid_t)get_number (reader, "pid", G_MAXINT32),
    .uid = (uid_t)get_number (reader, "uid", G_MAXUINT32),
    .gid = (gid_t)get_number (reader, "gid", G_MAXUINT32),
    .start_time = (guint64)get_long (reader, "start_time", 0),
  };
  HfVmImage *image = hf_vm_image_new (&peer);

  if (get_number (reader, "version", IMAGE_VERSION) != IMAGE_VERSION)
    complain (reader, "version");
  image->name = g_strdup (get_text_or_null (reader, "name"));
  image->uuid = g_strdup (get_text_or_null (reader, "uuid"));
  image->phase = read_phase (reader);
  image->record = read_record (reader, image->phase);
  image->guest_time = get_long (reader, "guest_time", -1);
  read_all_held (reader, image->held);
  return image;
}

static HfVmImage *
fail (GError **error, const char *what)
{
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA, "%s", what);
  return NULL;
}

HfVmImage *
hf_vm_image_decode (const char *text, gsize length, GError **error)
{
  g_autoptr (JsonParser) parser = json_parser_new ();
  g_autoptr (HfVmImage) image = NULL;
  g_autoptr (GError) local = NULL;
  const char *problem = NULL;
  JsonNode *root;

  if (length == 0 || length > HF_STORE_SIZE_MAX)
    return fail (error, length ? "longer than an image can be" : "empty");
  if (!hf_json_check (text, length, DEPTH_MAX, &problem))
    return fail (error, problem);
  if (!json_parser_load_from_data (parser, text, (gssize)length, &local))
    return fail (error, local->message);
  root = json_parser_get_root (parser);
  if (!root || !JSON_NODE_HOLDS_OBJECT (root))
    return fail (error, "not a JSON object");

  Reader reader = { json_node_get_object (root), &problem };
  image = read_image (&reader);
  if (!problem)
    return g_steal_pointer (&image);
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA, "\"%s\" is missing or wrong", problem);
  return NULL;
}
