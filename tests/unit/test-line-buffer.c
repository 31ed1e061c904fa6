/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Lines out of a stream: however it is cut, whatever is in it. */
#include "config.h"

#include "base/line-buffer.h"

#include <string.h>

#define LINE_MAX_BYTES 8

static void
assert_line (HfLineBuffer *buffer, const char *expected)
{
  g_autoptr (GBytes) line = NULL;
  gsize length = 0;
  const char *bytes;

  g_assert_true (hf_line_buffer_take (buffer, &line));
  if (!expected) {
    g_assert_null (line);
    return;
  }
  g_assert_nonnull (line);
  bytes = g_bytes_get_data (line, &length);
  g_assert_cmpmem (bytes, length, expected, strlen (expected));
}

/* The same lines come out, whatever pieces they came in. */
static void
test_pieces (void)
{
  const char stream[] = "one\n\ntwo two\nrest";

  for (gsize piece = 1; piece <= strlen (stream); piece++) {
    g_autoptr (GString) seen = g_string_new (NULL);
    HfLineBuffer buffer;

    hf_line_buffer_init (&buffer, LINE_MAX_BYTES);
    for (gsize at = 0; at < strlen (stream); at += piece) {
      g_autoptr (GBytes) line = NULL;

      hf_line_buffer_feed (&buffer, stream + at, MIN (piece, strlen (stream) - at));
      while (hf_line_buffer_take (&buffer, &line) && line) {
        g_string_append_len (seen, g_bytes_get_data (line, NULL) ?: "", (gssize)g_bytes_get_size (line));
        g_string_append_c (seen, '|');
        g_clear_pointer (&line, g_bytes_unref);
      }
    }
    g_assert_cmpstr (seen->str, ==, "one||two two|");
    g_assert_true (hf_line_buffer_has_rest (&buffer));
    hf_line_buffer_clear (&buffer);
  }
}

/* A line of exactly the limit is one; a byte more is found before its newline is there. */
static void
test_limit (void)
{
  g_autoptr (GBytes) line = NULL;
  HfLineBuffer buffer;

  hf_line_buffer_init (&buffer, LINE_MAX_BYTES);
  hf_line_buffer_feed (&buffer, "12345678", 8);
  assert_line (&buffer, NULL);
  hf_line_buffer_feed (&buffer, "\n", 1);
  assert_line (&buffer, "12345678");
  g_assert_false (hf_line_buffer_has_rest (&buffer));
  hf_line_buffer_feed (&buffer, "123456789", 9);
  g_assert_false (hf_line_buffer_take (&buffer, &line));
  hf_line_buffer_clear (&buffer);
}

/* A long line does not take the complete ones before it along. */
static void
test_limit_after_lines (void)
{
  g_autoptr (GBytes) line = NULL;
  HfLineBuffer buffer;

  hf_line_buffer_init (&buffer, LINE_MAX_BYTES);
  hf_line_buffer_feed (&buffer, "a\n123456789\n", 12);
  assert_line (&buffer, "a");
  g_assert_false (hf_line_buffer_take (&buffer, &line));
  hf_line_buffer_clear (&buffer);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/line-buffer/pieces", test_pieces);
  g_test_add_func ("/line-buffer/limit", test_limit);
  g_test_add_func ("/line-buffer/limit-after-lines", test_limit_after_lines);
  return g_test_run ();
}
