/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Pictures of an LU: what counts as the same, and who owns what after a copy. */
#include <holdfast/pr.h>

#include <string.h>

static HfPrRegistrant
registrant (guint64 key, guint8 port, gboolean holder)
{
  HfPrRegistrant r = { .key = key, .holder = holder, .type = holder ? 5 : 0 };

  r.nexus.transport_id.length = 24;
  r.nexus.transport_id.bytes[0] = 0x06;
  r.nexus.transport_id.bytes[11] = port;
  r.nexus.relative_target_port = 1;
  return r;
}

/* Keys A1, B2, A1 of three initiator ports; the first one holds type 5. */
static void
make (HfPrObservation *ret, gboolean full)
{
  const guint64 keys[] = { 0xa1, 0xb2, 0xa1 };
  const HfPrRegistrant registrants[] = { registrant (0xa1, 1, TRUE), registrant (0xb2, 2, FALSE), registrant (0xa1, 3, FALSE) };

  memset (ret, 0, sizeof *ret);
  ret->generation = 4;
  ret->n_keys = 3;
  ret->keys = g_memdup2 (keys, sizeof keys);
  ret->full = full;
  ret->registrants = full ? g_memdup2 (registrants, sizeof registrants) : NULL;
  ret->reserved = TRUE;
  ret->holder_key = 0xa1;
  ret->type = 5;
}

/* One change to a picture, and whether the picture is another one after it. */
typedef struct {
  const char *name;
  void (*change) (HfPrObservation *observation);
  gboolean equal;
} Change;

static void
nothing (HfPrObservation *o)
{
}

static void
swap_entries (HfPrObservation *o)
{
  guint64 key = o->keys[0];
  HfPrRegistrant r = o->registrants[0];

  o->keys[0] = o->keys[1];
  o->keys[1] = key;
  o->registrants[0] = o->registrants[1];
  o->registrants[1] = r;
}

static void
generation (HfPrObservation *o)
{
  o->generation++;
}

static void
drop_last (HfPrObservation *o)
{
  o->n_keys--;
}

static void
all_gone (HfPrObservation *o)
{
  o->n_keys = 0;
}

/* A1 B2 A1 and A1 B2 B2 are the same set but not the same multiset. */
static void
other_multiplicity (HfPrObservation *o)
{
  o->keys[2] = o->registrants[2].key = 0xb2;
}

static void
not_full (HfPrObservation *o)
{
  o->full = FALSE;
  g_clear_pointer (&o->registrants, g_free);
}

/* The keys are the same, but A1 and B2 have changed places. */
static void
other_nexus (HfPrObservation *o)
{
  HfNexus nexus = o->registrants[0].nexus;

  o->registrants[0].nexus = o->registrants[1].nexus;
  o->registrants[1].nexus = nexus;
}

static void
other_target_port (HfPrObservation *o)
{
  o->registrants[2].nexus.relative_target_port = 2;
}

static void
other_transport_id_length (HfPrObservation *o)
{
  o->registrants[2].nexus.transport_id.length = 28;
}

/* With one key on two nexuses only R_HOLDER tells which one holds. */
static void
other_holder (HfPrObservation *o)
{
  o->registrants[0].holder = FALSE;
  o->registrants[2].holder = TRUE;
}

static void
released (HfPrObservation *o)
{
  o->reserved = FALSE;
}

static void
other_holder_key (HfPrObservation *o)
{
  o->holder_key = 0xb2;
}

static void
other_type (HfPrObservation *o)
{
  o->type = 6;
}

static void
other_scope (HfPrObservation *o)
{
  o->scope = 1;
}

static const Change changes[] = {
  { "nothing", nothing, TRUE },
  { "order", swap_entries, TRUE },
  { "generation", generation, FALSE },
  { "one-key-less", drop_last, FALSE },
  { "all-keys-gone", all_gone, FALSE },
  { "other-multiplicity", other_multiplicity, FALSE },
  { "full-or-not", not_full, FALSE },
  { "other-nexus", other_nexus, FALSE },
  { "other-target-port", other_target_port, FALSE },
  { "other-transport-id-length", other_transport_id_length, FALSE },
  { "other-holder", other_holder, FALSE },
  { "released", released, FALSE },
  { "other-holder-key", other_holder_key, FALSE },
  { "other-type", other_type, FALSE },
  { "other-scope", other_scope, FALSE },
};

static void
test_equal (gconstpointer data)
{
  const Change *change = data;
  HfPrObservation a, b;

  make (&a, TRUE);
  make (&b, TRUE);
  change->change (&b);
  g_assert_cmpint (hf_pr_observation_equal (&a, &b), ==, change->equal);
  g_assert_cmpint (hf_pr_observation_equal (&b, &a), ==, change->equal);
  hf_pr_observation_clear (&a);
  hf_pr_observation_clear (&b);
}

static void
test_equal_without_full_status (void)
{
  HfPrObservation a, b;

  make (&a, FALSE);
  make (&b, FALSE);
  b.keys[0] = 0xb2;
  b.keys[1] = 0xa1;
  g_assert_true (hf_pr_observation_equal (&a, &b));
  b.keys[0] = 0xa1;
  g_assert_false (hf_pr_observation_equal (&a, &b));
  hf_pr_observation_clear (&a);
  hf_pr_observation_clear (&b);
}

static void
test_equal_empty (void)
{
  HfPrObservation a = { .generation = 1 }, b = { .generation = 1, .full = TRUE };

  g_assert_true (hf_pr_observation_equal (&a, &a));
  g_assert_true (hf_pr_observation_equal (&b, &b));
  g_assert_false (hf_pr_observation_equal (&a, &b));
}

/* Both are cleared: a shared pointer would be freed twice. */
static void
test_copy (void)
{
  HfPrObservation a, copy;

  make (&a, TRUE);
  memset (&copy, 0xaa, sizeof copy);
  hf_pr_observation_copy (&a, &copy);
  g_assert_true (copy.keys != a.keys);
  g_assert_true (copy.registrants != a.registrants);
  g_assert_true (hf_pr_observation_equal (&a, &copy));
  hf_pr_observation_clear (&a);
  g_assert_null (a.keys);
  g_assert_null (a.registrants);
  g_assert_cmpuint (a.n_keys, ==, 0);
  g_assert_cmphex (copy.keys[1], ==, 0xb2);
  hf_pr_observation_clear (&copy);
  hf_pr_observation_copy (&a, &copy);
  g_assert_null (copy.keys);
  hf_pr_observation_clear (&copy);
}

static void
test_count_key (void)
{
  HfPrObservation a;

  make (&a, FALSE);
  g_assert_cmpuint (hf_pr_observation_count_key (&a, 0xa1), ==, 2);
  g_assert_cmpuint (hf_pr_observation_count_key (&a, 0xb2), ==, 1);
  g_assert_cmpuint (hf_pr_observation_count_key (&a, 0xc3), ==, 0);
  hf_pr_observation_clear (&a);
  g_assert_cmpuint (hf_pr_observation_count_key (&a, 0xa1), ==, 0);
}

static void
test_saved_copy (void)
{
  HfPrRegistrant r = registrant (0xa1, 7, TRUE);
  HfPrSaved saved = { .key = 0xa1, .type = 5, .aptpl = TRUE, .generation = 9, .key_count = 2, .n_nexuses = 1 };
  HfPrSaved copy;

  saved.nexuses = g_memdup2 (&r.nexus, sizeof r.nexus);
  g_strlcpy (saved.identity.serial, "0123", sizeof saved.identity.serial);
  memset (&copy, 0xaa, sizeof copy);
  hf_pr_saved_copy (&saved, &copy);
  g_assert_true (copy.nexuses != saved.nexuses);
  hf_pr_saved_clear (&saved);
  g_assert_null (saved.nexuses);
  g_assert_cmphex (saved.key, ==, 0);
  g_assert_cmpstr (saved.identity.serial, ==, "");
  hf_pr_saved_clear (&saved);

  g_assert_cmphex (copy.key, ==, 0xa1);
  g_assert_cmpuint (copy.type, ==, 5);
  g_assert_true (copy.aptpl);
  g_assert_cmpuint (copy.generation, ==, 9);
  g_assert_cmpuint (copy.key_count, ==, 2);
  g_assert_cmpuint (copy.n_nexuses, ==, 1);
  g_assert_cmpuint (copy.nexuses[0].transport_id.bytes[11], ==, 7);
  g_assert_cmpstr (copy.identity.serial, ==, "0123");
  hf_pr_saved_clear (&copy);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  for (guint i = 0; i < G_N_ELEMENTS (changes); i++) {
    g_autofree char *path = g_strdup_printf ("/pr-observation/equal/%s", changes[i].name);
    g_test_add_data_func (path, &changes[i], test_equal);
  }
  g_test_add_func ("/pr-observation/equal-without-full-status", test_equal_without_full_status);
  g_test_add_func ("/pr-observation/equal-empty", test_equal_empty);
  g_test_add_func ("/pr-observation/copy", test_copy);
  g_test_add_func ("/pr-observation/count-key", test_count_key);
  g_test_add_func ("/pr-saved/copy", test_saved_copy);
  return g_test_run ();
}
