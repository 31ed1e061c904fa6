/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns: nothing. Thread: that of the walk; pure.
 *
 * Theory of operation: how the forward walk reads members of the description. The tail walk reads them by description.h; if both
 * went one way, a mistake in it would be in both walks, and they would agree on it.
 */

#include "config.h"

#include "stream/forward.h"

static JsonNode *
get_member (JsonObject *object, const char *name, JsonNodeType type)
{
  JsonNode *node = json_object_get_member (object, name);

  return node && json_node_get_node_type (node) == type ? node : NULL;
}

JsonArray *
hf_forward_json_array (JsonObject *object, const char *name)
{
  JsonNode *node = get_member (object, name, JSON_NODE_ARRAY);

  return node ? json_node_get_array (node) : NULL;
}

guint
hf_forward_json_count (JsonArray *array)
{
  return array ? json_array_get_length (array) : 0;
}

JsonObject *
hf_forward_json_object (JsonObject *object, const char *name)
{
  JsonNode *node = get_member (object, name, JSON_NODE_OBJECT);

  return node ? json_node_get_object (node) : NULL;
}

JsonObject *
hf_forward_json_at (JsonArray *array, guint index)
{
  JsonNode *node = index < hf_forward_json_count (array) ? json_array_get_element (array, index) : NULL;

  return node && json_node_get_node_type (node) == JSON_NODE_OBJECT ? json_node_get_object (node) : NULL;
}

const char *
hf_forward_json_text (JsonObject *object, const char *name)
{
  JsonNode *node = get_member (object, name, JSON_NODE_VALUE);

  return node && json_node_get_value_type (node) == G_TYPE_STRING ? json_node_get_string (node) : NULL;
}

gboolean
hf_forward_json_number (JsonObject *object, const char *name, guint64 *ret)
{
  JsonNode *node = get_member (object, name, JSON_NODE_VALUE);
  gboolean is_number = node && json_node_get_value_type (node) == G_TYPE_INT64 && json_node_get_int (node) >= 0;

  if (is_number)
    *ret = (guint64)json_node_get_int (node);
  return is_number;
}
