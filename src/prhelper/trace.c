/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns: which events are switched on, and the file they go to. Thread: main.
 */
#include "config.h"

#include "prhelper/trace.h"

#include <errno.h>
#include <fcntl.h>
#include <gio/gio.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

static const char *const event_names[] = {
  [HF_TRACE_CLIENT_CONNECT] = "pr_helper_client_connect",
  [HF_TRACE_CLIENT_CLOSE] = "pr_helper_client_close",
  [HF_TRACE_REQUEST] = "pr_helper_request",
  [HF_TRACE_REPLY] = "pr_helper_reply",
};
G_STATIC_ASSERT (G_N_ELEMENTS (event_names) == HF_N_TRACE_EVENTS);

static gboolean is_on[HF_N_TRACE_EVENTS];
static int trace_fd = STDERR_FILENO;

static gboolean
enable (const char *pattern, GError **error)
{
  gboolean on = pattern[0] != '-';
  guint n_matches = 0;

  for (guint i = 0; i < HF_N_TRACE_EVENTS; i++) {
    if (!g_pattern_match_simple (on ? pattern : pattern + 1, event_names[i]))
      continue;
    is_on[i] = on;
    n_matches++;
  }
  /* A pattern may match nothing, as with QEMU; a name that does not exist is a mistake. */
  if (n_matches || strpbrk (pattern, "*?"))
    return TRUE;
  g_set_error (error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE, "trace event '%s' does not exist", pattern);
  return FALSE;
}

static gboolean
enable_from_file (const char *path, GError **error)
{
  g_autofree char *text = NULL;
  g_auto (GStrv) lines = NULL;

  if (!g_file_get_contents (path, &text, NULL, error))
    return FALSE;
  lines = g_strsplit (text, "\n", -1);
  for (char **line = lines; *line; line++) {
    g_strstrip (*line);
    if (**line != '\0' && **line != '#' && !enable (*line, error))
      return FALSE;
  }
  return TRUE;
}

static gboolean
open_file (const char *path, GError **error)
{
  int fd = open (path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, 0600);

  if (fd < 0) {
    g_set_error (error, G_IO_ERROR, (int)g_io_error_from_errno (errno), "trace file %s: %s", path, g_strerror (errno));
    return FALSE;
  }
  if (trace_fd != STDERR_FILENO)
    close (trace_fd);
  trace_fd = fd;
  return TRUE;
}

gboolean
hf_trace_add (const char *specification, GError **error)
{
  static const struct {
    const char *word;
    gboolean (*take) (const char *value, GError **error);
  } words[] = { { "enable=", enable }, { "events=", enable_from_file }, { "file=", open_file } };
  g_auto (GStrv) parts = g_strsplit (specification, ",", -1);

  for (guint i = 0; parts[i]; i++) {
    gboolean (*take) (const char *value, GError **error) = NULL;
    const char *value = parts[i];

    for (guint j = 0; j < G_N_ELEMENTS (words); j++)
      if (g_str_has_prefix (parts[i], words[j].word)) {
        take = words[j].take;
        value = parts[i] + strlen (words[j].word);
      }
    if (!take && i > 0) {
      g_set_error (error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE, "trace option '%s' is not known", parts[i]);
      return FALSE;
    }
    if (*value && !(take ? take : enable) (value, error))
      return FALSE;
  }
  return TRUE;
}

char *
hf_trace_list (void)
{
  GString *text = g_string_new (NULL);

  for (guint i = 0; i < HF_N_TRACE_EVENTS; i++)
    g_string_append_printf (text, "%s\n", event_names[i]);
  return g_string_free (text, FALSE);
}

void
hf_trace (HfTraceEvent event, const char *format, ...)
{
  g_autofree char *text = NULL;
  g_autofree char *line = NULL;
  struct pollfd room = { .fd = trace_fd, .events = POLLOUT };
  va_list arguments;

  if (!is_on[event])
    return;
  va_start (arguments, format);
  text = g_strdup_vprintf (format, arguments);
  va_end (arguments);
  line = g_strdup_printf ("%s %s\n", event_names[event], text);
  /* Lost, and not waited for, where nobody reads. */
  if (poll (&room, 1, 0) == 1 && write (trace_fd, line, strlen (line)) < 0)
    is_on[event] = FALSE;
}
