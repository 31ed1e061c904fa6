/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The two values of the reservation code that own memory: the picture of an LU (HfPrObservation) and one LU's share of a record
 * (HfPrSaved).
 *
 * Owns: nothing of its own. Thread: any; every function is pure.
 *
 * Theory of operation: clear accepts all-zero and leaves all-zero; copy overwrites ret without looking at it, so ret must be
 * empty or uninitialised. Targets list registrations in no order (SPC-4 6.15.2), so two pictures are compared as multisets.
 */

#include <holdfast/pr.h>

#include <stdlib.h>
#include <string.h>

/* g_memdup2 of n elements; NULL for none. */
static void *
copy_elements (const void *elements, guint n, gsize size)
{
  return n > 0 && elements != NULL ? g_memdup2 (elements, n * size) : NULL;
}

void
hf_pr_observation_clear (HfPrObservation *observation)
{
  g_free (observation->keys);
  g_free (observation->registrants);
  memset (observation, 0, sizeof *observation);
}

void
hf_pr_observation_copy (const HfPrObservation *observation, HfPrObservation *ret)
{
  HfPrObservation copy = *observation;

  copy.keys = copy_elements (observation->keys, observation->n_keys, sizeof *observation->keys);
  copy.registrants = copy_elements (observation->registrants, observation->n_keys, sizeof *observation->registrants);
  *ret = copy;
}

guint
hf_pr_observation_count_key (const HfPrObservation *observation, guint64 key)
{
  guint count = 0;

  for (guint i = 0; i < observation->n_keys; i++)
    count += observation->keys[i] == key;
  return count;
}

static int
compare_keys (const void *a, const void *b)
{
  guint64 x = *(const guint64 *)a, y = *(const guint64 *)b;

  return x < y ? -1 : x > y;
}

/* By key, nexus and holder. Two readings of one LU show one nexus in the same bytes, so bytes are compared: hf_nexus_compare
   knows "unknown" and is no order. */
static int
compare_registrants (const void *a, const void *b)
{
  const HfPrRegistrant *x = *(const HfPrRegistrant *const *)a, *y = *(const HfPrRegistrant *const *)b;
  const HfTransportId *x_id = &x->nexus.transport_id, *y_id = &y->nexus.transport_id;
  int order = compare_keys (&x->key, &y->key);

  if (order == 0)
    order = (int)x_id->length - (int)y_id->length;
  if (order == 0)
    order = memcmp (x_id->bytes, y_id->bytes, MIN (x_id->length, HF_TRANSPORT_ID_MAX));
  if (order == 0)
    order = (int)x->nexus.relative_target_port - (int)y->nexus.relative_target_port;
  if (order == 0)
    order = (x->holder != 0) - (y->holder != 0);
  return order;
}

static gboolean
same_keys (const HfPrObservation *a, const HfPrObservation *b)
{
  g_autofree guint64 *x = copy_elements (a->keys, a->n_keys, sizeof *a->keys);
  g_autofree guint64 *y = copy_elements (b->keys, b->n_keys, sizeof *b->keys);

  if (a->n_keys == 0)
    return TRUE;
  qsort (x, a->n_keys, sizeof *x, compare_keys);
  qsort (y, b->n_keys, sizeof *y, compare_keys);
  return memcmp (x, y, a->n_keys * sizeof *x) == 0;
}

/* Pointers to the registrants in the order of compare_registrants: they are too large to be moved about. */
static const HfPrRegistrant **
sorted_registrants (const HfPrObservation *observation)
{
  const HfPrRegistrant **sorted = g_new (const HfPrRegistrant *, observation->n_keys);

  for (guint i = 0; i < observation->n_keys; i++)
    sorted[i] = &observation->registrants[i];
  qsort (sorted, observation->n_keys, sizeof *sorted, compare_registrants);
  return sorted;
}

static gboolean
same_registrants (const HfPrObservation *a, const HfPrObservation *b)
{
  g_autofree const HfPrRegistrant **x = NULL;
  g_autofree const HfPrRegistrant **y = NULL;

  if (a->n_keys == 0)
    return TRUE;
  x = sorted_registrants (a);
  y = sorted_registrants (b);
  for (guint i = 0; i < a->n_keys; i++)
    if (compare_registrants (&x[i], &y[i]) != 0)
      return FALSE;
  return TRUE;
}

gboolean
hf_pr_observation_equal (const HfPrObservation *a, const HfPrObservation *b)
{
  if (a->generation != b->generation || a->n_keys != b->n_keys || !a->full != !b->full)
    return FALSE;
  if (!a->reserved != !b->reserved)
    return FALSE;
  if (a->reserved && (a->holder_key != b->holder_key || a->scope != b->scope || a->type != b->type))
    return FALSE;
  return same_keys (a, b) && (!a->full || same_registrants (a, b));
}

void
hf_pr_saved_clear (HfPrSaved *saved)
{
  g_free (saved->nexuses);
  memset (saved, 0, sizeof *saved);
}

void
hf_pr_saved_copy (const HfPrSaved *saved, HfPrSaved *ret)
{
  HfPrSaved copy = *saved;

  copy.nexuses = copy_elements (saved->nexuses, saved->n_nexuses, sizeof *saved->nexuses);
  *ret = copy;
}
