/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns: the reading of -blockdev and -drive. Thread: any; pure.
 *
 * Theory of operation: both syntaxes of QEMU, key=value with commas (a comma in a value is doubled) and JSON, are made into one
 * flat list of options for each node. A node that was added later by blockdev-add is not there, and whoever asks has to say so.
 */
#include "config.h"

#include "cli/doctor-nodes.h"

#include "base/json-check.h"

#include <string.h>

/* A chain of nodes that is longer is a circle. */
#define CHAIN_MAX 16
#define JSON_DEPTH_MAX 32

/* The text up to the next comma that stands alone; *text is then behind it, or NULL. */
static char *
next_part (const char **text)
{
  GString *part = g_string_new (NULL);
  const char *p = *text;

  for (; *p && (p[0] != ',' || p[1] == ','); p++) {
    g_string_append_c (part, *p);
    if (*p == ',')
      p++;
  }
  *text = *p ? p + 1 : NULL;
  return g_string_free (part, FALSE);
}

static JsonObject *
read_key_values (const char *text)
{
  JsonObject *options = json_object_new ();

  while (text) {
    g_autofree char *part = next_part (&text);
    char *value = strchr (part, '=');

    if (!value)
      continue;
    *value++ = '\0';
    json_object_set_string_member (options, part, value);
  }
  return options;
}

/* Static words for booleans, as key=value has them. NULL: neither a string nor a boolean. */
static const char *
value_text (JsonNode *node)
{
  if (!JSON_NODE_HOLDS_VALUE (node))
    return NULL;
  if (json_node_get_value_type (node) == G_TYPE_BOOLEAN)
    return json_node_get_boolean (node) ? "on" : "off";
  return json_node_get_value_type (node) == G_TYPE_STRING ? json_node_get_string (node) : NULL;
}

static void
flatten (JsonObject *from, const char *prefix, JsonObject *options)
{
  g_autoptr (GList) names = json_object_get_members (from);

  for (GList *name = names; name; name = name->next) {
    JsonNode *node = json_object_get_member (from, name->data);
    g_autofree char *key = g_strconcat (prefix, name->data, NULL);
    g_autofree char *inner = g_strconcat (key, ".", NULL);

    if (JSON_NODE_HOLDS_OBJECT (node))
      flatten (json_node_get_object (node), inner, options);
    else if (value_text (node))
      json_object_set_string_member (options, key, value_text (node));
  }
}

/* NULL: no JSON object. */
static JsonObject *
read_json (const char *text)
{
  g_autoptr (JsonParser) parser = json_parser_new ();
  JsonObject *options;

  if (!hf_json_check (text, strlen (text), JSON_DEPTH_MAX, NULL) || !json_parser_load_from_data (parser, text, -1, NULL))
    return NULL;
  if (!JSON_NODE_HOLDS_OBJECT (json_parser_get_root (parser)))
    return NULL;
  options = json_object_new ();
  flatten (json_node_get_object (json_parser_get_root (parser)), "", options);
  return options;
}

static const char *
get (JsonObject *options, const char *name)
{
  return json_object_has_member (options, name) ? json_object_get_string_member (options, name) : NULL;
}

static void
add_blockdev (JsonObject *nodes, const char *text)
{
  JsonObject *options = *text == '{' ? read_json (text) : read_key_values (text);

  if (options && get (options, "node-name"))
    json_object_set_object_member (nodes, get (options, "node-name"), json_object_ref (options));
  g_clear_pointer (&options, json_object_unref);
}

static void
add_drive (JsonObject *nodes, const char *text)
{
  JsonObject *options = read_key_values (text);
  g_autofree char *name = get (options, "id") ? g_strconcat ("drive:", get (options, "id"), NULL) : NULL;

  /* "file" is a path here, not another node. */
  json_object_remove_member (options, "file");
  if (!get (options, "auto-read-only"))
    json_object_set_string_member (options, "auto-read-only", "on");
  if (name)
    json_object_set_object_member (nodes, name, json_object_ref (options));
  json_object_unref (options);
}

JsonObject *
hf_doctor_nodes (const char *const *argv)
{
  JsonObject *nodes = json_object_new ();

  for (guint i = 0; argv[i] && argv[i + 1]; i++) {
    /* QEMU takes one dash or two. */
    const char *word = g_str_has_prefix (argv[i], "--") ? argv[i] + 1 : argv[i];

    if (strcmp (word, "-blockdev") == 0)
      add_blockdev (nodes, argv[++i]);
    else if (strcmp (word, "-drive") == 0)
      add_drive (nodes, argv[++i]);
  }
  return nodes;
}

/* "pr-manager", or "file.pr-manager" and so on. */
static const char *
find_option (JsonObject *options, const char *option)
{
  g_autoptr (GList) names = json_object_get_members (options);
  g_autofree char *ending = g_strconcat (".", option, NULL);

  /* The node below knows better: it is the one that opens the device. */
  for (GList *name = names; name; name = name->next)
    if (g_str_has_suffix (name->data, ending))
      return json_object_get_string_member (options, name->data);
  return get (options, option);
}

const char *
hf_doctor_node_option (JsonObject *nodes, const char *node, const char *option, gboolean *ret_seen)
{
  const char *found = NULL;

  *ret_seen = FALSE;
  for (guint i = 0; node && i < CHAIN_MAX; i++) {
    JsonObject *options = json_object_has_member (nodes, node) ? json_object_get_object_member (nodes, node) : NULL;
    const char *here = options ? find_option (options, option) : NULL;

    /* A chain with an unknown node in it tells nothing. */
    *ret_seen = options != NULL;
    if (here)
      found = here;
    node = options ? get (options, "file") : NULL;
  }
  return found;
}
