/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns: nothing; the caller has the path. Thread: any.
 */
#include "state-dir.h"

#include <glib/gstdio.h>

char *
make_state_dir (void)
{
  g_autofree char *in_memory = g_strdup ("/dev/shm/holdfast-model-XXXXXX");
  GError *error = NULL;
  char *dir;

  /* The journal syncs: a file system in memory saves minutes. */
  if (g_mkdtemp (in_memory) != NULL)
    return g_steal_pointer (&in_memory);
  dir = g_dir_make_tmp ("holdfast-model-XXXXXX", &error);
  g_assert_no_error (error);
  return dir;
}

void
remove_folder (const char *path)
{
  g_autoptr (GDir) dir = g_dir_open (path, 0, NULL);
  const char *name;

  while (dir != NULL && (name = g_dir_read_name (dir)) != NULL) {
    g_autofree char *inner_path = g_build_filename (path, name, NULL);
    if (g_file_test (inner_path, G_FILE_TEST_IS_DIR))
      remove_folder (inner_path);
    else
      g_unlink (inner_path);
  }
  g_rmdir (path);
}
