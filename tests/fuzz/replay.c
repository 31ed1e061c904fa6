/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The main of a fuzz target without libFuzzer: every seed of tests/fuzz/seeds/NAME/ is one test of the program fuzz-NAME.
 *
 * A seed is handed over whole and then cut at every length (of long ones: at some), each time as a block of its own size, so that
 * the address sanitizer sees a read behind it.
 */
#include "fuzz.h"

#include <glib.h>
#include <string.h>

#define CUTS_MAX 1024

static void
run (const char *bytes, gsize length)
{
  g_autofree guint8 *block = g_malloc (MAX (length, 1));

  memcpy (block, bytes, length);
  g_assert_cmpint (LLVMFuzzerTestOneInput (block, length), ==, 0);
}

static void
test_seed (gconstpointer data)
{
  const char *path = data;
  g_autofree char *bytes = NULL;
  g_autoptr (GError) error = NULL;
  gsize length;

  g_assert_true (g_file_get_contents (path, &bytes, &length, &error));
  g_assert_no_error (error);
  run (bytes, length);
  for (gsize cut = 0; cut < length; cut += 1 + length / CUTS_MAX)
    run (bytes, cut);
}

/* The program's name without "fuzz-"; libtool may have put "lt-" before it. */
static char *
target_name (const char *program)
{
  g_autofree char *base = g_path_get_basename (program);
  const char *name = strstr (base, "fuzz-");

  return g_strdup (name != NULL ? name + strlen ("fuzz-") : base);
}

int
main (int argc, char **argv)
{
  g_autofree char *target = target_name (argv[0]);
  g_autofree char *folder = NULL;
  g_autoptr (GPtrArray) paths = g_ptr_array_new_with_free_func (g_free);
  g_autoptr (GError) error = NULL;
  g_autoptr (GDir) dir = NULL;
  const char *name;

  g_test_init (&argc, &argv, NULL);
  folder = g_build_filename (g_getenv ("HOLDFAST_SRCDIR") ? g_getenv ("HOLDFAST_SRCDIR") : ".", "tests/fuzz/seeds", target, NULL);
  dir = g_dir_open (folder, 0, &error);
  if (dir == NULL)
    g_error ("no seeds: %s", error->message);
  while ((name = g_dir_read_name (dir)) != NULL) {
    g_autofree char *test = g_strdup_printf ("/fuzz/%s/%s", target, name);

    g_ptr_array_add (paths, g_build_filename (folder, name, NULL));
    g_test_add_data_func (test, paths->pdata[paths->len - 1], test_seed);
  }
  if (paths->len == 0)
    g_error ("no seeds in %s", folder);
  return g_test_run ();
}
