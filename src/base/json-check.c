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

/* The UTF-16 code unit of "\\u" and four digits at text; -1: there is none. */
static int
read_unit (const char *text, const char *end)
{
  int unit = 0;

  if (end - text < 2 + ESCAPE_DIGITS || text[0] != '\\' || text[1] != 'u')
    return -1;
  for (guint i = 0; i < ESCAPE_DIGITS; i++) {
    int digit = g_ascii_xdigit_value (text[2 + i]);

    if (digit < 0)
      return -1;
    unit = unit << 4 | digit;
  }
  return unit;
}

/* The length of the escape at text; 0: it is bad. A surrogate without its other half is: json-glib makes bytes of it that are not
   UTF-8. */
static gsize
escape_length (const char *text, const char *end)
{
  int unit, next;

  if (end - text < 2 || !strchr ("\"\\/bfnrtu", text[1]))
    return 0;
  if (text[1] != 'u')
    return 2;
  unit = read_unit (text, end);
  if (unit < 0 || (unit >= 0xdc00 && unit <= 0xdfff))
    return 0;
  if (unit < 0xd800 || unit > 0xdbff)
    return 2 + ESCAPE_DIGITS;
  next = read_unit (text + 2 + ESCAPE_DIGITS, end);
  return next >= 0xdc00 && next <= 0xdfff ? 2 * (2 + ESCAPE_DIGITS) : 0;
}

/* text is behind the opening quote; behind the closing one, or NULL. end is not read. */
static const char *
skip_string (const char *text, const char *end)
{
  while (text < end) {
    gsize length = 1;

    if (*text == '"')
      return text + 1;
    /* RFC 8259 wants U+001F escaped too, but json-glib writes it as it is. */
    if ((guchar)*text < 0x1f)
      return NULL;
    if (*text == '\\')
      length = escape_length (text, end);
    if (length == 0)
      return NULL;
    text += length;
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
