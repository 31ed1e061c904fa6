/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The smallest use of libholdfast: who is an LU, and what is held on it?
 *
 *   cc -o example example.c $(pkg-config --cflags --libs holdfast)
 *   ./example /dev/sdb
 *   ./example iscsi://192.0.2.1/iqn.2026-11.org.example:disk/1
 */
#include <holdfast/holdfast.h>
#include <stdio.h>

static int
fail (const char *what, GError *error)
{
  fprintf (stderr, "%s: %s\n", what, error->message);
  g_error_free (error);
  return 1;
}

static void
print_observation (const HfPrObservation *seen)
{
  printf ("%u registrations, ", seen->n_keys);
  if (!seen->reserved)
    puts ("no reservation");
  else
    printf ("reservation of type %u (%s)\n", seen->type, hf_pr_type_to_string (seen->type));

  for (guint i = 0; i < seen->n_keys; i++) {
    /* Which nexus has the key is known only where the target has READ FULL STATUS. */
    g_autofree char *nexus = seen->full ? hf_nexus_to_string (&seen->registrants[i].nexus) : g_strdup ("unknown nexus");
    printf ("  key 0x%016" G_GINT64_MODIFIER "x  %s\n", seen->keys[i], nexus);
  }
}

int
main (int argc, char **argv)
{
  if (argc != 2) {
    fprintf (stderr, "usage: %s LU\n", argv[0]);
    return 1;
  }

  /* All-zero options are the defaults. Errors mean that the LU gave no usable answer. */
  GError *error = NULL;
  g_autoptr (HfLu) lu = hf_lu_open (argv[1], &(HfLuOptions){ .timeout_ms = 10000 }, &error);
  if (!lu)
    return fail (argv[1], error);

  const HfLuIdentity *identity = hf_lu_get_identity (lu, &error);
  if (!identity)
    return fail (argv[1], error);
  g_autofree char *name = hf_lu_identity_to_string (identity);
  printf ("%s is %s\n", hf_lu_get_address (lu), name);

  HfPrObservation seen = { 0 };
  if (!hf_pr_observe (lu, "observe", &seen, NULL, &error))
    return fail (name, error);
  print_observation (&seen);
  hf_pr_observation_clear (&seen);
  return 0;
}
