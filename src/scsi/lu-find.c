/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Finds the block nodes of this machine whose LU has a given identity.
 *
 * Thread: any; reads sysfs only.
 *
 * Theory of operation: the kernel keeps VPD pages 83h and 80h of every SCSI disk as it read them when it found the disk. That is
 * good enough to find a candidate and not good enough to act on it: the LU behind a path may have been changed since.
 */

#include "config.h"

#include "scsi/lu-find.h"

#include <string.h>

static gboolean
read_identity (const char *device, HfLuIdentity *ret)
{
  g_autofree char *path_83 = g_build_filename (device, "vpd_pg83", NULL);
  g_autofree char *path_80 = g_build_filename (device, "vpd_pg80", NULL);
  g_autofree char *page_83 = NULL;
  g_autofree char *page_80 = NULL;
  gsize length;
  gboolean found = FALSE;

  memset (ret, 0, sizeof *ret);
  if (g_file_get_contents (path_83, &page_83, &length, NULL))
    found = hf_lu_identity_parse_83 ((const guint8 *)page_83, length, ret, NULL, NULL);
  if (g_file_get_contents (path_80, &page_80, &length, NULL))
    found |= hf_lu_identity_parse_80 ((const guint8 *)page_80, length, ret, NULL);
  return found;
}

/* A '/' of the node's name stands as '!' in sysfs. */
static char *
node_path (const char *name)
{
  g_autofree char *node = g_strdelimit (g_strdup (name), "!", '/');

  return g_strconcat ("/dev/", node, NULL);
}

static int
compare_paths (gconstpointer a, gconstpointer b)
{
  return strcmp (*(char *const *)a, *(char *const *)b);
}

char **
hf_lu_find_devices_below (const char *sysfs, const HfLuIdentity *identity, GError **error)
{
  g_autofree char *folder = g_build_filename (sysfs, "class/block", NULL);
  g_autofree HfLuIdentity *here = g_new0 (HfLuIdentity, 1);
  g_autoptr (GDir) blocks = g_dir_open (folder, 0, NULL);
  g_autoptr (GPtrArray) found = g_ptr_array_new_with_free_func (g_free);
  g_autofree char *wanted = NULL;
  const char *name;

  while (blocks && (name = g_dir_read_name (blocks))) {
    g_autofree char *device = g_build_filename (folder, name, "device", NULL);
    g_autofree char *partition = g_build_filename (folder, name, "partition", NULL);

    if (!g_file_test (partition, G_FILE_TEST_EXISTS) && read_identity (device, here) && hf_lu_identity_equal (identity, here))
      g_ptr_array_add (found, node_path (name));
  }
  if (found->len == 0) {
    wanted = hf_lu_identity_to_string (identity);
    g_set_error (error, HF_SCSI_ERROR, HF_SCSI_ERROR_NOT_FOUND, "%s: no block device of this machine is this logical unit",
                 wanted);
    return NULL;
  }
  g_ptr_array_sort (found, compare_paths);
  g_ptr_array_add (found, NULL);
  return (char **)g_ptr_array_free (g_steal_pointer (&found), FALSE);
}

char **
hf_lu_find_devices (const HfLuIdentity *identity, GError **error)
{
  return hf_lu_find_devices_below ("/sys", identity, error);
}
