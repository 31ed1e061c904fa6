/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What stands before json-glib: levels are bounded, and no trick makes the check see other strings than the parser.
 */
#include "config.h"

#include "base/json-check.h"

#include <json-glib/json-glib.h>
#include <string.h>

#define DEPTH 3

static const struct {
  const char *text;
  const char *problem; /* NULL: good */
} texts[] = {
  { "{}", NULL },
  { "[[[]]]", NULL },
  { "[[[]],[[]]]", NULL },
  { "{\"a\":[1,-2.5e+3,true,null,\"x\"]}\r\n\t ", NULL },
  { "\"[[[[[[\"", NULL },
  { "\"\\\"[[[[[\"", NULL },
  { "\"\\\\\"", NULL },
  { "\"\\u005b\\/\\b\\f\\n\\r\\t\"", NULL },
  { "\"\xc3\xa4\"", NULL },
  { "\"\x1f\"", NULL },
  { "[[[[]]]]", "too many levels" },
  { "{\"a\":{\"b\":{\"c\":{}}}}", "too many levels" },
  { "[[[[", "too many levels" },
  { "[[", "a bracket is not closed" },
  { "]", "more brackets closed than opened" },
  { "[]]", "more brackets closed than opened" },
  { "\"a", "a string without end, or with a bad escape" },
  { "\"a\\", "a string without end, or with a bad escape" },
  { "\"a\\\"", "a string without end, or with a bad escape" },
  { "\"a\nb\"", "a string without end, or with a bad escape" },
  { "\"\\x41\"", "a string without end, or with a bad escape" },
  /* A parser that reads four characters whatever they are takes the quote with them. */
  { "\"\\u1\"[[[[", "a string without end, or with a bad escape" },
  { "\"\\u", "a string without end, or with a bad escape" },
  { "\"\\u123", "a string without end, or with a bad escape" },
  { "/* \" */[[[[", "a character that JSON does not know" },
  { "// \"\n[[[[", "a character that JSON does not know" },
  { "# \"\n[[[[", "a character that JSON does not know" },
  { "'\"'[[[[", "a character that JSON does not know" },
  { "\"\\ud83d\\ude00\"", NULL },
  { "\"\\ud83d\"", "a string without end, or with a bad escape" },
  { "\"\\ud83d\\n\"", "a string without end, or with a bad escape" },
  { "\"\\ud83d\\u0041\"", "a string without end, or with a bad escape" },
  { "\"\\ud83d\\ude0", "a string without end, or with a bad escape" },
  { "\"\\ude00\"", "a string without end, or with a bad escape" },
  { "\"\xff\"", "not UTF-8" },
};

static void
test_texts (void)
{
  for (gsize i = 0; i < G_N_ELEMENTS (texts); i++) {
    gsize length = strlen (texts[i].text);
    /* A block of its own size, so that the address sanitizer sees a read behind it. */
    g_autofree char *block = g_memdup2 (texts[i].text, length);
    const char *problem = NULL;
    gboolean good = hf_json_check (block, length, DEPTH, &problem);

    g_test_message ("text %" G_GSIZE_FORMAT, i);
    g_assert_cmpstr (problem, ==, texts[i].problem);
    g_assert_cmpint (good, ==, texts[i].problem == NULL);
    g_assert_cmpint (hf_json_check (block, length, DEPTH, NULL), ==, good);
  }
}

static void
test_zero_byte (void)
{
  g_assert_false (hf_json_check ("[\0]", 3, DEPTH, NULL));
  g_assert_true (hf_json_check ("", 0, DEPTH, NULL));
}

/* The reason for it all: what kills the parser does not reach it, and what is let through is read. */
static void
test_parser (void)
{
  g_autofree char *deep = g_strnfill (1000000, '[');
  g_autoptr (GError) error = NULL;
  g_autoptr (JsonParser) parser = json_parser_new ();

  g_assert_false (hf_json_check (deep, 1000000, 64, NULL));
  for (gsize i = 0; i < G_N_ELEMENTS (texts); i++) {
    if (texts[i].problem)
      continue;
    g_assert_true (json_parser_load_from_data (parser, texts[i].text, -1, &error));
    g_assert_no_error (error);
  }
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/json-check/texts", test_texts);
  g_test_add_func ("/json-check/zero-byte", test_zero_byte);
  g_test_add_func ("/json-check/parser", test_parser);
  return g_test_run ();
}
