/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns: nothing. Thread: any; pure.
 *
 * Theory of operation: one pass that knows strings, brackets and which characters may stand between them. It must see the same
 * strings as the parser does, or brackets in what one of them takes for a string would not be counted. Therefore it is strict
 * where the parser is lax: escapes are complete, and comments and single quotes are refused.
 */

#include "config.h"

#include "base/json-check.h"

#include <string.h>

#define ESCAPE_DIGITS 4

/* text is behind the opening quote; behind the closing one, or NULL. end is not read. */
static const char *
skip_string (const char *text, const char *end)
{
  for (; text < end; text++) {
    if (*text == '"')
      return text + 1;
    /* RFC 8259 wants U+001F escaped too, but json-glib writes it as it is. */
    if ((guchar)*text < 0x1f)
      return NULL;
    if (*text != '\\')
      continue;
    text++;
    if (text == end || !strchr ("\"\\/bfnrtu", *text))
      return NULL;
    if (*text != 'u')
      continue;
    for (guint i = 0; i < ESCAPE_DIGITS; i++)
      if (++text == end || !g_ascii_isxdigit (*text))
        return NULL;
  }
  return NULL;
}

static gboolean
is_known (char c)
{
  return g_ascii_isalnum (c) || strchr (" \t\r\n,:+-.", c) != NULL;
}

static const char *
find_problem (const char *text, gsize length, guint depth_max)
{
  const char *end = text + length;
  guint depth = 0;

  if (!g_utf8_validate_len (text, length, NULL))
    return "not UTF-8";
  while (text < end) {
    char c = *text++;

    if (c == '"') {
      text = skip_string (text, end);
      if (!text)
        return "a string without end, or with a bad escape";
    } else if (c == '[' || c == '{') {
      if (++depth > depth_max)
        return "too many levels";
    } else if (c == ']' || c == '}') {
      if (depth-- == 0)
        return "more brackets closed than opened";
    } else if (!is_known (c)) {
      return "a character that JSON does not know";
    }
  }
  return depth ? "a bracket is not closed" : NULL;
}

gboolean
hf_json_check (const char *text, gsize length, guint depth_max, const char **ret_problem)
{
  const char *problem = find_problem (text, length, depth_max);

  if (problem && ret_problem)
    *ret_problem = problem;
  return problem == NULL;
}
