/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The stream of a client of the control socket: cut into lines, each read as a request.
 *
 * The same bytes are fed whole and one by one: both must give the same lines. A request that is accepted has an id that is
 * written as JSON and read again.
 */
#include "fuzz.h"

#include "base/line-buffer.h"
#include "prhelper/control-line.h"

#include <string.h>

#define LINE_BYTES_MAX 4096

typedef struct {
  guint n_lines, n_requests, sum;
  gboolean too_long;
} Outcome;

/* The id comes back to the client as a part of a line, and is the same there. */
static void
check_id (JsonNode *id)
{
  g_autofree char *text = NULL;
  g_autoptr (JsonNode) again = NULL;

  g_assert (id && (JSON_NODE_HOLDS_VALUE (id) || JSON_NODE_HOLDS_NULL (id)));
  text = json_to_string (id, FALSE);
  g_assert (!strchr (text, '\n') && g_utf8_validate (text, -1, NULL));
  again = json_from_string (text, NULL);
  g_assert (again && json_node_equal (id, again));
}

static void
take_line (Outcome *outcome, GBytes *line)
{
  g_auto (HfControlRequest) request = { 0 };
  const char *problem = NULL;
  gsize length;
  const char *text = g_bytes_get_data (line, &length);
  gboolean ok = hf_control_request_parse (text ? text : "", length, &request, &problem);

  outcome->n_lines++;
  for (gsize i = 0; i < length; i++)
    outcome->sum = outcome->sum * 31 + (guint8)text[i];
  g_assert (request.id && ok == (problem == NULL));
  if (!ok)
    return;
  g_assert (request.method && request.params && length >= strlen ("{\"id\":1,\"method\":\"\"}"));
  check_id (request.id);
  outcome->n_requests++;
}

static Outcome
play (const guint8 *data, gsize length, gsize piece)
{
  Outcome outcome = { 0 };
  HfLineBuffer buffer;

  hf_line_buffer_init (&buffer, LINE_BYTES_MAX);
  while (length && !outcome.too_long) {
    gsize n = MIN (piece, length);
    g_autoptr (GBytes) line = NULL;

    hf_line_buffer_feed (&buffer, data, n);
    data += n;
    length -= n;
    while (!(outcome.too_long = !hf_line_buffer_take (&buffer, &line)) && line) {
      take_line (&outcome, line);
      g_clear_pointer (&line, g_bytes_unref);
    }
  }
  hf_line_buffer_clear (&buffer);
  return outcome;
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t length)
{
  Outcome whole = play (data, length, G_MAXSIZE), bytes = play (data, length, 1);

  g_assert (whole.n_lines == bytes.n_lines && whole.n_requests == bytes.n_requests && whole.sum == bytes.sum);
  g_assert (whole.too_long == bytes.too_long);
  return 0;
}
