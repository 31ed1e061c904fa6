/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A record as a file, standard input or standard output. Any thread; blocks on the file. The order of system calls that makes the
 * file appear as a whole is base/file-sync.c's.
 */

#include "config.h"

#include <holdfast/record.h>

#include "base/file-sync.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static gboolean
is_standard_stream (const char *path)
{
  return strcmp (path, "-") == 0;
}

gboolean
hf_record_write_file (const HfRecord *record, const char *path, GError **error)
{
  gboolean standard_output = is_standard_stream (path);
  const char *name = standard_output ? "standard output" : path;
  g_autoptr (GError) local = NULL;
  g_autoptr (GBytes) bytes = hf_record_encode (record, error);

  if (bytes == NULL) {
    g_prefix_error (error, "%s: ", name);
    return FALSE;
  }
  gsize length;
  const void *data = g_bytes_get_data (bytes, &length);
  if (standard_output ? hf_file_write_all (STDOUT_FILENO, data, length, &local) : hf_file_replace (path, data, length, &local))
    return TRUE;
  g_set_error (error, HF_RECORD_ERROR, HF_RECORD_ERROR_FILE, "%s: %s", name, local->message);
  return FALSE;
}

/* Everything fd gives, but at most one byte more than a record may have: hf_record_decode refuses that. NULL and errno on error.
 */
static GByteArray *
read_all (int fd)
{
  g_autoptr (GByteArray) content = g_byte_array_new ();
  guint8 chunk[16384];

  while (content->len <= HF_RECORD_SIZE_MAX) {
    gsize room = HF_RECORD_SIZE_MAX + 1 - content->len;
    ssize_t n = read (fd, chunk, MIN (room, sizeof (chunk)));
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      return NULL;
    if (n == 0)
      break;
    g_byte_array_append (content, chunk, (guint)n);
  }
  return g_steal_pointer (&content);
}

HfRecord *
hf_record_read_file (const char *path, GError **error)
{
  gboolean standard_input = is_standard_stream (path);
  const char *name = standard_input ? "standard input" : path;
  int fd = standard_input ? STDIN_FILENO : open (path, O_RDONLY | O_CLOEXEC | O_NOCTTY);

  if (fd < 0) {
    g_set_error (error, HF_RECORD_ERROR, HF_RECORD_ERROR_FILE, "%s: open: %s", name, g_strerror (errno));
    return NULL;
  }
  g_autoptr (GByteArray) content = read_all (fd);
  int saved_errno = errno;
  if (!standard_input)
    close (fd);
  if (content == NULL) {
    g_set_error (error, HF_RECORD_ERROR, HF_RECORD_ERROR_FILE, "%s: read: %s", name, g_strerror (saved_errno));
    return NULL;
  }

  HfRecord *record = hf_record_decode (content->data, content->len, error);
  if (record == NULL)
    g_prefix_error (error, "%s: ", name);
  return record;
}
