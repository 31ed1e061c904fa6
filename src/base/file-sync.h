/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Files that survive a crash: written as a whole or not at all, folders whose entries are on the disk.
 *
 * Thread: any; no state. Errors: G_FILE_ERROR; the message names the step and the cause, the caller knows the path.
 */

#include <glib.h>
#include <sys/stat.h>

/* Writes all bytes or fails. fd may be a pipe. */
gboolean hf_file_write_all (int fd, const void *data, gsize length, GError **error);

/* Replaces path, or makes it, with mode 0600: a temporary file in the same folder, fsync, rename, fsync of the folder. After an
   error the old file is still there. A symbolic link is followed (hf_file_target); anything else than a regular file is refused.
 */
gboolean hf_file_replace (const char *path, const void *data, gsize length, GError **error);

/* The same, but a symbolic link is itself what is replaced: for a name that nobody may lead elsewhere. */
gboolean hf_file_replace_name (const char *path, const void *data, gsize length, GError **error);

/* Where the bytes of path really are: a symbolic link is followed, anything else than a regular file, or nothing, is refused, and
   so is a link that may be planted. */
char *hf_file_target (const char *path, GError **error);

/* May somebody who is neither this user nor the owner of the folder have put this there? So it is in a folder that its group or
   others may write, sticky or not. st: of path itself, from lstat. */
gboolean hf_file_may_be_planted (const char *path, const struct stat *st);

/* fsync of a folder: what was made, renamed or removed in it stays so. */
gboolean hf_dir_sync (const char *path, GError **error);

/* Makes path and what is missing above it, mode 0700, each one synced into its parent. TRUE if it is there already. */
gboolean hf_dir_make (const char *path, GError **error);
