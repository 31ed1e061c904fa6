/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns: what a request must look like. Thread: any; pure.
 *
 * Theory of operation: the text is bounded before json-glib sees it. Its parser calls itself for each level, reads on behind
 * nothing, lets integers wrap and makes infinity of 1e999; so levels, members and digits are counted here, and there is nothing
 * behind the object. A member that is not known is refused: a misspelt "params" must not become a command without them.
 */
#include "config.h"

#include "prhelper/control-line.h"

#include "base/json-check.h"

#include <string.h>

typedef struct {
  guint depth, commas, digits;
  gboolean ended; /* the object is closed */
} Scan;

/* c stands outside of a string. NULL: it may. */
static const char *
scan_character (Scan *scan, char c)
{
  if (g_ascii_isspace (c))
    return NULL;
  if (scan->ended)
    return "something stands behind the object";
  if (scan->depth == 0 && c != '{')
    return "no object";
  if (c == '{' || c == '[')
    scan->depth++;
  if ((c == '}' || c == ']') && --scan->depth == 0)
    scan->ended = TRUE;
  if (c == ',' && ++scan->commas > HF_CONTROL_COMMAS_MAX)
    return "too many members";
  if ((c == 'e' || c == 'E') && scan->digits)
    return "a number with an exponent";
  if (!g_ascii_isdigit (c) && c != '.')
    scan->digits = 0;
  else if (++scan->digits > HF_CONTROL_DIGITS_MAX)
    return "a number has too many digits";
  return NULL;
}

/* line passed hf_json_check: strings end, escapes are complete, brackets are balanced. */
static const char *
scan_line (const char *line, gsize length)
{
  gboolean in_string = FALSE;
  Scan scan = { 0 };

  for (gsize i = 0; i < length; i++) {
    const char *problem = NULL;

    if (in_string && line[i] == '\\')
      /* A NUL ends a string for whoever reads it as one of C: what stands behind would be hidden. */
      problem = length - i > 5 && memcmp (line + i, "\\u0000", 6) == 0 ? "a zero in a string" : (i++, NULL);
    else if (line[i] == '"')
      problem = (in_string = !in_string) ? scan_character (&scan, '"') : NULL;
    else if (!in_string)
      problem = scan_character (&scan, line[i]);
    if (problem)
      return problem;
  }
  return scan.ended ? NULL : "no object";
}

/* What is wrong with the members of object; NULL: nothing. */
static const char *
take_members (JsonObject *object, HfControlRequest *request)
{
  JsonNode *id = json_object_get_member (object, "id");
  JsonNode *method = json_object_get_member (object, "method");
  JsonNode *params = json_object_get_member (object, "params");

  if (id && !JSON_NODE_HOLDS_VALUE (id) && !JSON_NODE_HOLDS_NULL (id))
    return "id is no string, number, true, false or null";
  if (id) {
    json_node_unref (request->id);
    request->id = json_node_copy (id);
  }
  if (!id)
    return "id is missing";
  if (!method || !JSON_NODE_HOLDS_VALUE (method) || json_node_get_value_type (method) != G_TYPE_STRING)
    return "method is no string";
  if (params && !JSON_NODE_HOLDS_OBJECT (params))
    return "params is no object";
  if (json_object_get_size (object) != (params ? 3 : 2))
    return "a member is none of id, method and params";
  request->method = json_node_dup_string (method);
  request->params = params ? json_node_dup_object (params) : json_object_new ();
  return NULL;
}

gboolean
hf_control_request_parse (const char *line, gsize length, HfControlRequest *ret, const char **ret_problem)
{
  g_autoptr (JsonParser) parser = NULL;
  const char *problem = NULL;
  JsonNode *root;

  memset (ret, 0, sizeof *ret);
  ret->id = json_node_new (JSON_NODE_NULL);
  if (hf_json_check (line, length, HF_CONTROL_DEPTH_MAX, &problem))
    problem = scan_line (line, length);
  if (!problem) {
    parser = json_parser_new ();
    root = json_parser_load_from_data (parser, line, (gssize)length, NULL) ? json_parser_get_root (parser) : NULL;
    problem = root && JSON_NODE_HOLDS_OBJECT (root) ? take_members (json_node_get_object (root), ret) : "no JSON";
  }
  *ret_problem = problem;
  return problem == NULL;
}

void
hf_control_request_clear (HfControlRequest *request)
{
  g_clear_pointer (&request->id, json_node_unref);
  g_clear_pointer (&request->method, g_free);
  g_clear_pointer (&request->params, json_object_unref);
}
