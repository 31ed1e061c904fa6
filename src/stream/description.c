/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns: nothing. Thread: any; pure.
 *
 * Theory of operation: json-glib's parser has no bounds of its own. Levels, characters and the number of values are counted
 * before it sees the text.
 */

#include "config.h"

#include "stream/description.h"

#include "base/json-check.h"

/* At least as many values as json-glib will make; what stands in strings is counted too. */
static guint64
count_values (const char *text, gsize length)
{
  guint64 n = 1;

  for (gsize i = 0; i < length; i++)
    n += text[i] == ',' || text[i] == '[' || text[i] == '{';
  return n;
}

static const char *
find_problem (const char *text, gsize length)
{
  const char *problem = NULL;

  if (length > HF_DESCRIPTION_MAX)
    return "too long";
  if (!hf_json_check (text, length, HF_DESCRIPTION_LEVELS_MAX, &problem))
    return problem;
  return count_values (text, length) > HF_DESCRIPTION_VALUES_MAX ? "too many values" : NULL;
}

static gboolean
has_devices (JsonNode *root)
{
  JsonNode *devices = JSON_NODE_HOLDS_OBJECT (root) ? json_object_get_member (json_node_get_object (root), "devices") : NULL;

  return devices && JSON_NODE_HOLDS_ARRAY (devices);
}

JsonNode *
hf_description_parse (const char *text, gsize length, GError **error)
{
  g_autoptr (JsonParser) parser = json_parser_new_immutable ();
  g_autoptr (GError) cause = NULL;
  const char *problem = find_problem (text, length);
  JsonNode *root;

  if (!problem && !json_parser_load_from_data (parser, text, (gssize)length, &cause))
    problem = cause->message;
  root = problem ? NULL : json_parser_get_root (parser);
  if (root && has_devices (root))
    return json_node_ref (root);
  g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_MALFORMED, "the description is not what QEMU writes: %s",
               problem ? problem : "no devices");
  return NULL;
}

JsonArray *
hf_description_array (JsonObject *object, const char *name)
{
  JsonNode *node = json_object_get_member (object, name);

  return node && JSON_NODE_HOLDS_ARRAY (node) ? json_node_get_array (node) : NULL;
}

JsonObject *
hf_description_object (JsonObject *object, const char *name)
{
  JsonNode *node = json_object_get_member (object, name);

  return node && JSON_NODE_HOLDS_OBJECT (node) ? json_node_get_object (node) : NULL;
}

JsonObject *
hf_description_element (JsonArray *array, guint index)
{
  JsonNode *node = json_array_get_element (array, index);

  return node && JSON_NODE_HOLDS_OBJECT (node) ? json_node_get_object (node) : NULL;
}

const char *
hf_description_string (JsonObject *object, const char *name)
{
  JsonNode *node = json_object_get_member (object, name);

  return node && JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == G_TYPE_STRING ? json_node_get_string (node)
                                                                                                  : NULL;
}

gboolean
hf_description_number (JsonObject *object, const char *name, guint64 *ret)
{
  JsonNode *node = json_object_get_member (object, name);
  gint64 value;

  if (!node || !JSON_NODE_HOLDS_VALUE (node) || json_node_get_value_type (node) != G_TYPE_INT64)
    return FALSE;
  value = json_node_get_int (node);
  if (value < 0)
    return FALSE;
  *ret = (guint64)value;
  return TRUE;
}
