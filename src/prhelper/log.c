/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns: what is written to standard error. Thread: any; hf_log_peer only on the main thread, which alone meets peers.
 *
 * Theory of operation: a line is made in memory and written with one write(2), so that lines of threads do not mix. If standard
 * error cannot take it, it is lost and counted: it may be a pipe that nobody reads, and machines wait for the main thread. A pipe
 * that poll calls writable has room for PIPE_BUF bytes, and no line is longer.
 */
#include "config.h"

#include "prhelper/log.h"

#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define PROGRAM "holdfast-pr-helper"
#define JOURNAL_SOCKET "/run/systemd/journal/socket"
#define BURST 20
/* Processes share them by the remainder of their id: one that is loud hides few others. */
#define N_BURSTS 64
#define BURST_TIME (10 * G_USEC_PER_SEC)

typedef struct {
  gint64 start;
  guint n, n_lost;
} Burst;

static struct {
  HfLogLevel level;
  gboolean journal;
  int journal_socket;     /* -1: fields cannot be told */
  Burst bursts[N_BURSTS]; /* of hf_log_peer */
  gint n_dropped;         /* atomic: lines that standard error did not take */
} the_log = { .level = HF_LOG_NOTICE, .journal_socket = -1 };

/* JOURNAL_STREAM=DEVICE:INODE names the stream that systemd made; it may have been redirected since (systemd.exec(5)). */
static gboolean
is_journal (void)
{
  const char *stream = g_getenv ("JOURNAL_STREAM");
  g_autofree char *here = NULL;
  struct stat status;

  if (!stream || fstat (STDERR_FILENO, &status) < 0)
    return FALSE;
  here = g_strdup_printf ("%" G_GUINT64_FORMAT ":%" G_GUINT64_FORMAT, (guint64)status.st_dev, (guint64)status.st_ino);
  return strcmp (stream, here) == 0;
}

/* Connected now, because the sandbox forbids it later. */
static int
open_journal (void)
{
  const struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = JOURNAL_SOCKET };
  int fd = socket (AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

  if (fd < 0 || connect (fd, (const struct sockaddr *)&address, sizeof address) == 0)
    return fd;
  close (fd);
  return -1;
}

void
hf_log_init (HfLogLevel level)
{
  the_log.level = level;
  the_log.journal = is_journal ();
  if (the_log.journal && the_log.journal_socket < 0)
    the_log.journal_socket = open_journal ();
}

gboolean
hf_log_wants (HfLogLevel level)
{
  return level <= the_log.level;
}

static gboolean
write_line (HfLogLevel level, const char *text)
{
  g_autofree char *line = the_log.journal ? g_strdup_printf ("<%d>%s", (int)level, text) : g_strdup_printf (PROGRAM ": %s", text);
  gsize length = MIN (strlen (line), PIPE_BUF - 1);
  struct pollfd room = { .fd = STDERR_FILENO, .events = POLLOUT };

  for (gsize i = 0; i < length; i++)
    if (!g_ascii_isprint (line[i]))
      line[i] = '?';
  line[length] = '\n'; /* the zero is not written */
  if (poll (&room, 1, 0) == 1 && write (STDERR_FILENO, line, length + 1) >= 0)
    return TRUE;
  g_atomic_int_inc (&the_log.n_dropped);
  return FALSE;
}

static void
write_text (HfLogLevel level, const char *text)
{
  gint n = g_atomic_int_get (&the_log.n_dropped);

  if (!write_line (level, text) || n == 0)
    return;
  if (g_atomic_int_compare_and_exchange (&the_log.n_dropped, n, 0)) {
    g_autofree char *lost = g_strdup_printf ("%d lines were lost, standard error did not take them", n);

    if (!write_line (HF_LOG_WARNING, lost))
      g_atomic_int_add (&the_log.n_dropped, n - 1);
  }
}

void
hf_log (HfLogLevel level, const char *format, ...)
{
  g_autofree char *text = NULL;
  va_list arguments;

  if (!hf_log_wants (level))
    return;
  va_start (arguments, format);
  text = g_strdup_vprintf (format, arguments);
  va_end (arguments);
  write_text (level, text);
}

static gboolean
burst_allows (Burst *burst)
{
  gint64 now = g_get_monotonic_time ();

  if (now - burst->start > BURST_TIME) {
    if (burst->n_lost)
      hf_log (HF_LOG_WARNING, "%u more messages about clients were not written", burst->n_lost);
    *burst = (Burst){ .start = now };
  }
  if (burst->n < BURST) {
    burst->n++;
    return TRUE;
  }
  burst->n_lost++;
  return FALSE;
}

void
hf_log_peer (HfLogLevel level, pid_t pid, const char *format, ...)
{
  g_autofree char *text = NULL;
  va_list arguments;

  if (!hf_log_wants (level) || !burst_allows (&the_log.bursts[(guint)pid % N_BURSTS]))
    return;
  va_start (arguments, format);
  text = g_strdup_vprintf (format, arguments);
  va_end (arguments);
  write_text (level, text);
}

/* One field of the journal's native protocol: a value without a newline stands behind '='. */
static void
append_field (GString *message, const char *name, const char *value)
{
  gsize start;

  if (!value)
    return;
  g_string_append_printf (message, "%s=", name);
  start = message->len;
  g_string_append (message, value);
  for (gsize i = start; i < message->len; i++)
    if (!g_ascii_isprint (message->str[i]))
      message->str[i] = '?';
  g_string_append_c (message, '\n');
}

static gboolean
send_fields (HfLogLevel level, const char *text, const HfLogFields *fields)
{
  g_autoptr (GString) message = g_string_new (NULL);

  g_string_append_printf (message, "PRIORITY=%d\nSYSLOG_IDENTIFIER=" PROGRAM "\nHOLDFAST_PID=%d\n", (int)level, (int)fields->pid);
  append_field (message, "MESSAGE", text);
  append_field (message, "HOLDFAST_VM", fields->vm);
  append_field (message, "HOLDFAST_LU", fields->lu);
  append_field (message, "HOLDFAST_OPERATION", fields->operation);
  append_field (message, "HOLDFAST_RESULT", fields->result);
  return send (the_log.journal_socket, message->str, message->len, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0;
}

void
hf_log_event (HfLogLevel level, const HfLogFields *fields)
{
  g_autofree char *text = NULL;

  if (!hf_log_wants (level))
    return;
  text = g_strdup_printf ("%s (pid %d): %s%s%s: %s", fields->vm, (int)fields->pid, fields->lu ? fields->lu : "",
                          fields->lu ? ": " : "", fields->operation, fields->result ? fields->result : "");
  if (the_log.journal_socket < 0 || !send_fields (level, text, fields))
    write_text (level, text);
}
