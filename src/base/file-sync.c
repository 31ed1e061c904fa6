/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns the order of system calls that makes a file or a folder survive a crash. Any thread; no state.
 *
 * Theory of operation: rename(2) replaces a file in one step, but only what was synced before it is sure to be in the new file,
 * and only a sync of the folder makes the step itself last. A temporary file that a crash leaves behind is called
 * .holdfast-XXXXXX; a name derived from the target could be longer than NAME_MAX.
 */

#include "config.h"

#include "base/file-sync.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static gboolean
fail_errno (GError **error, int saved_errno, const char *step)
{
  g_set_error (error, G_FILE_ERROR, g_file_error_from_errno (saved_errno), "%s: %s", step, g_strerror (saved_errno));
  return FALSE;
}

gboolean
hf_file_write_all (int fd, const void *data, gsize length, GError **error)
{
  const guint8 *bytes = data;

  while (length > 0) {
    ssize_t n = write (fd, bytes, length);
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      return fail_errno (error, errno, "write");
    bytes += n;
    length -= (gsize)n;
  }
  return TRUE;
}

gboolean
hf_dir_sync (const char *path, GError **error)
{
  int fd = open (path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0)
    return fail_errno (error, errno, "open the folder");
  int rc = fsync (fd);
  int saved_errno = errno;
  close (fd);
  /* EINVAL: a file system that cannot sync folders, where nothing better can be done. */
  if (rc != 0 && saved_errno != EINVAL)
    return fail_errno (error, saved_errno, "sync the folder");
  return TRUE;
}

gboolean
hf_dir_make (const char *path, GError **error)
{
  if (g_file_test (path, G_FILE_TEST_IS_DIR))
    return TRUE;

  g_autofree char *parent = g_path_get_dirname (path);
  if (strcmp (parent, path) != 0 && !hf_dir_make (parent, error))
    return FALSE;
  if (mkdir (path, 0700) != 0) {
    int saved_errno = errno;
    /* Another process made it meanwhile. */
    if (saved_errno == EEXIST && g_file_test (path, G_FILE_TEST_IS_DIR))
      return TRUE;
    g_autofree char *step = g_strdup_printf ("make the folder %s", path);
    return fail_errno (error, saved_errno, step);
  }
  return hf_dir_sync (parent, error);
}

/* Renaming over a link would cut /dev/stdout, for one, off from what it means. */
char *
hf_file_target (const char *path, GError **error)
{
  struct stat st;
  g_autofree char *target = g_strdup (path);

  if (lstat (target, &st) == 0 && S_ISLNK (st.st_mode)) {
    char *real = realpath (path, NULL);
    if (real == NULL) {
      fail_errno (error, errno, "follow the link");
      return NULL;
    }
    g_free (target);
    target = g_strdup (real);
    free (real);
  }
  if (lstat (target, &st) == 0 && !S_ISREG (st.st_mode)) {
    g_set_error (error, G_FILE_ERROR, G_FILE_ERROR_FAILED, "exists and is not a regular file");
    return NULL;
  }
  return g_steal_pointer (&target);
}

static gboolean
fill_and_rename (int fd, const char *temporary, const char *target, const void *data, gsize length, GError **error)
{
  if (!hf_file_write_all (fd, data, length, error))
    return FALSE;
  if (fsync (fd) != 0)
    return fail_errno (error, errno, "sync");
  if (rename (temporary, target) != 0)
    return fail_errno (error, errno, "rename");
  return TRUE;
}

gboolean
hf_file_replace_name (const char *path, const void *data, gsize length, GError **error)
{
  g_autofree char *folder = g_path_get_dirname (path);
  g_autofree char *temporary = g_build_filename (folder, ".holdfast-XXXXXX", NULL);
  int fd = mkostemp (temporary, O_CLOEXEC); /* mode 0600 */
  if (fd < 0)
    return fail_errno (error, errno, "create a temporary file");

  gboolean ok = fill_and_rename (fd, temporary, path, data, length, error);
  close (fd);
  if (!ok) {
    unlink (temporary);
    return FALSE;
  }
  return hf_dir_sync (folder, error);
}

gboolean
hf_file_replace (const char *path, const void *data, gsize length, GError **error)
{
  g_autofree char *target = hf_file_target (path, error);

  return target != NULL && hf_file_replace_name (target, data, length, error);
}
