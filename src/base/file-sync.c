/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns the order of system calls that makes a file or a folder survive a crash. Any thread; no state.
 *
 * Theory of operation: rename(2) replaces a file in one step, but only what was synced before it is sure to be in the new file,
 * and only a sync of the folder makes the step itself last. A temporary file that a crash leaves behind is called
 * .holdfast-XXXXXX; a name derived from the target could be longer than NAME_MAX.
 *
 * In a folder that others may write, they choose what a name means before we come: a link of theirs would have us replace any
 * file of ours, and a file of theirs has the owner and the mode that they want.
 */

#include "config.h"

#include "base/file-sync.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LINKS_MAX 40u /* as the kernel (path_resolution(7)) */

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
    if (n == 0) {
      g_set_error (error, G_FILE_ERROR, G_FILE_ERROR_IO, "write: it moved nothing and named no error");
      return FALSE;
    }
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

/* The kernel has the same rule for open(2) (proc_sys_fs(5), protected_symlinks and protected_regular), but readlink(2) and
 * rename(2) are not bound by it, and it can be off. A second name for a file of ours is no file that we put there. */
gboolean
hf_file_may_be_planted (const char *path, const struct stat *st)
{
  g_autofree char *folder = g_path_get_dirname (path);
  struct stat folder_st;

  if (stat (folder, &folder_st) != 0)
    return TRUE;
  if ((folder_st.st_mode & (S_IWGRP | S_IWOTH)) == 0)
    return FALSE;
  return (st->st_uid != geteuid () && st->st_uid != folder_st.st_uid) || st->st_nlink > 1;
}

/* What the link says. What is looked at and what is read are one inode, whatever becomes of the name. NULL without error: path
 * is no link. */
static char *
read_link (const char *path, GError **error)
{
  char text[PATH_MAX];
  struct stat st;
  ssize_t length = 0;
  int fd = open (path, O_PATH | O_NOFOLLOW | O_CLOEXEC);

  if (fd < 0)
    return NULL;
  if (fstat (fd, &st) != 0 || !S_ISLNK (st.st_mode))
    length = 0;
  else if (hf_file_may_be_planted (path, &st))
    g_set_error (error, G_FILE_ERROR, G_FILE_ERROR_PERM,
                 "%s is a link that another user (uid %u) may have put there: others may write to its folder", path,
                 (guint)st.st_uid);
  else if ((length = readlinkat (fd, "", text, sizeof text)) <= 0 || length == sizeof text)
    fail_errno (error, length < 0 ? errno : ENAMETOOLONG, "follow the link");
  close (fd);
  return length > 0 && length < (ssize_t)sizeof text ? g_strndup (text, (gsize)length) : NULL;
}

/* path without the links at its end. NULL: error set. */
static char *
follow_links (const char *path, GError **error)
{
  g_autofree char *target = g_strdup (path);
  struct stat st;

  for (guint links = 0;; links++) {
    g_autoptr (GError) cause = NULL;
    g_autofree char *text = read_link (target, &cause), *folder = g_path_get_dirname (target);

    if (!text && !cause)
      return g_steal_pointer (&target);
    if (text) {
      g_free (target);
      target = g_path_is_absolute (text) ? g_strdup (text) : g_build_filename (folder, text, NULL);
      if (links == LINKS_MAX)
        fail_errno (&cause, ELOOP, "follow the link");
      else if (lstat (target, &st) != 0)
        fail_errno (&cause, errno, "follow the link");
    }
    if (cause) {
      g_propagate_error (error, g_steal_pointer (&cause));
      return NULL;
    }
  }
}

/* Renaming over a link would cut /dev/stdout, for one, off from what it means. */
char *
hf_file_target (const char *path, GError **error)
{
  g_autofree char *target = follow_links (path, error);
  struct stat st;

  if (!target)
    return NULL;
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
