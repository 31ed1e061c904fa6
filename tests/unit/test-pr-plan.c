/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The decision, row by row.
 *
 *   a: the source's nexus     b: the destination's     c: a third party's
 *   K: the VM's key           X: another
 *
 * Each test is named after the rule it proves, and asserts verdict and next command.
 */

#include "pr/pr-plan.h"

#include <string.h>

#define K G_GUINT64_CONSTANT (0xabc)
#define X G_GUINT64_CONSTANT (0xdef)

typedef struct {
  char who; /* 'a', 'b', 'c', 'd' */
  guint64 key;
} Reg;

typedef struct {
  HfPrSaved saved;
  HfNexus source[2];
  HfPrObservation seen;
  guint64 keys[8];
  HfPrRegistrant registrants[8];
  HfPlanNexus ours[2];
  HfPlanInput in;
  HfPlan plan;
} World;

static HfNexus
nexus (char who)
{
  HfNexus it = { 0 };
  hf_transport_id_sas (0x5000000000000000 + (guint8)who, &it.transport_id);
  return it;
}

/* K with saved_type on a; the move is to b; READ FULL STATUS works. */
static World *
world_new (guint8 saved_type)
{
  World *world = g_new0 (World, 1);
  world->source[0] = nexus ('a');
  world->saved = (HfPrSaved){ .key = K, .type = saved_type, .key_count = 1, .n_nexuses = 1, .nexuses = world->source };
  world->ours[0].nexus = nexus ('b');
  world->seen = (HfPrObservation){ .generation = 7, .keys = world->keys, .registrants = world->registrants, .full = TRUE };
  world->in = (HfPlanInput){ .saved = &world->saved, .observed = &world->seen, .n_ours = 1, .ours = world->ours };
  return world;
}

static void
add (World *world, char who, guint64 key)
{
  guint i = world->seen.n_keys++;
  world->keys[i] = key;
  world->registrants[i] = (HfPrRegistrant){ .key = key, .nexus = nexus (who) };
}

/* who holds type; for types 7, 8 everybody does. */
static void
reserve (World *world, char who, guint8 type)
{
  HfNexus holder = nexus (who);
  world->seen.reserved = TRUE;
  world->seen.type = type;
  for (guint i = 0; i < world->seen.n_keys; i++) {
    gboolean all = hf_pr_type_is_all_registrants (type);
    world->registrants[i].holder = all || hf_nexus_compare (&world->registrants[i].nexus, &holder) == HF_NEXUS_SAME;
    if (world->registrants[i].holder && !all)
      world->seen.holder_key = world->keys[i];
  }
}

/* The target knows no READ FULL STATUS. */
static void
blind (World *world)
{
  world->seen.full = FALSE;
  world->seen.registrants = NULL;
}

static void
world_expect (World *world, HfVerdict verdict, HfAction action)
{
  hf_plan_clear (&world->plan);
  hf_plan_make (&world->in, &world->plan);
  g_assert_cmpstr (hf_verdict_to_string (world->plan.verdict), ==, hf_verdict_to_string (verdict));
  g_assert_cmpint (world->plan.action, ==, action);
}

static void
world_free (World *world)
{
  hf_plan_clear (&world->plan);
  g_free (world);
}

G_DEFINE_AUTOPTR_CLEANUP_FUNC (World, world_free)

/* ---- rows ---- */

static void
test_none_sends_nothing_and_reports_a_leftover (void)
{
  g_autoptr (World) world = world_new (0);
  world->saved = (HfPrSaved){ .generation = 1 };
  world_expect (world, HF_VERDICT_NONE, HF_ACTION_NONE);
  g_assert_null (world->plan.text);
  add (world, 'b', X);
  world_expect (world, HF_VERDICT_NONE, HF_ACTION_NONE);
  g_assert_nonnull (strstr (world->plan.text, "0xdef"));
}

static void
test_unreadable_is_an_error_never_a_fence (void)
{
  g_autoptr (World) world = world_new (5);
  world->in.observed = NULL;
  world_expect (world, HF_VERDICT_ERROR, HF_ACTION_NONE);
}

static void
test_foreign_nexus_with_the_key_is_ambiguous_and_named (void)
{
  g_autoptr (World) world = world_new (5);
  add (world, 'a', K);
  add (world, 'c', K);
  reserve (world, 'a', 5);
  world_expect (world, HF_VERDICT_AMBIGUOUS, HF_ACTION_NONE);
  HfNexus third = nexus ('c');
  g_autofree char *name = hf_nexus_to_string (&third);
  g_assert_nonnull (strstr (world->plan.text, name));
}

static void
test_key_listed_once_too_often_is_ambiguous (void)
{
  g_autoptr (World) world = world_new (5);
  add (world, 'a', K);
  add (world, 'c', K);
  blind (world);
  world_expect (world, HF_VERDICT_AMBIGUOUS, HF_ACTION_NONE);
  g_assert_nonnull (strstr (world->plan.text, "2 times"));
}

static void
test_journal_accounts_for_one_more_key (void)
{
  g_autoptr (World) world = world_new (7);
  add (world, 'a', K);
  add (world, 'b', K);
  reserve (world, 'a', 7);
  blind (world);
  world->in.progress.registers_sent = 1;
  world->ours[0].known = HF_REGISTERED_KEY;
  world_expect (world, HF_VERDICT_UNCHANGED, HF_ACTION_NONE);
}

static void
test_other_key_on_the_destination_is_occupied (void)
{
  g_autoptr (World) world = world_new (5);
  add (world, 'a', K);
  add (world, 'b', X);
  reserve (world, 'a', 5);
  world_expect (world, HF_VERDICT_OCCUPIED, HF_ACTION_NONE);
  g_assert_cmphex (world->plan.other_key, ==, X);
}

static void
test_key_nowhere_is_fenced (void)
{
  g_autoptr (World) world = world_new (5);
  add (world, 'c', X);
  reserve (world, 'c', 5);
  world_expect (world, HF_VERDICT_FENCED, HF_ACTION_NONE);
}

static void
test_same_nexus_is_unchanged_whatever_it_holds (void)
{
  g_autoptr (World) world = world_new (5);
  world->ours[0].nexus = nexus ('a');
  add (world, 'a', K);
  world_expect (world, HF_VERDICT_UNCHANGED, HF_ACTION_NONE);
}

static void
test_final_state_is_unchanged (void)
{
  static const guint8 types[] = { 1, 3, 5, 6, 7, 8 };
  for (guint i = 0; i < G_N_ELEMENTS (types); i++) {
    g_autoptr (World) world = world_new (types[i]);
    add (world, 'b', K);
    reserve (world, 'b', types[i]);
    world_expect (world, HF_VERDICT_UNCHANGED, HF_ACTION_NONE);
    g_assert_cmpint (world->plan.type, ==, types[i]);
  }
}

static void
test_unverified_register_without_the_source_is_a_fence (void)
{
  g_autoptr (World) world = world_new (5);
  add (world, 'b', K);
  reserve (world, 'b', 5);
  world->in.progress = (HfPlanProgress){ .registers_sent = 1, .register_unverified = TRUE, .unverified_nexus = HF_NEXUS_ANY };
  world_expect (world, HF_VERDICT_FENCED, HF_ACTION_UNREGISTER);
}

static void
test_unverified_register_with_the_source_goes_on (void)
{
  g_autoptr (World) world = world_new (5);
  add (world, 'a', K);
  add (world, 'b', K);
  reserve (world, 'a', 5);
  world->in.progress = (HfPlanProgress){ .registers_sent = 1, .register_unverified = TRUE, .unverified_nexus = HF_NEXUS_ANY };
  world_expect (world, HF_VERDICT_MOVED, HF_ACTION_TAKE_OVER);
  g_assert_true (world->plan.register_verified);
}

static void
test_moved_registers_then_takes_over_with_the_type (void)
{
  static const guint8 types[] = { 1, 3, 5, 6 };
  for (guint i = 0; i < G_N_ELEMENTS (types); i++) {
    g_autoptr (World) world = world_new (types[i]);
    add (world, 'a', K);
    reserve (world, 'a', types[i]);
    world_expect (world, HF_VERDICT_MOVED, HF_ACTION_REGISTER);
    add (world, 'b', K);
    world_expect (world, HF_VERDICT_MOVED, HF_ACTION_TAKE_OVER);
    g_assert_cmpint (world->plan.take_over_type, ==, types[i]);
  }
}

static void
test_all_registrants_needs_no_take_over (void)
{
  g_autoptr (World) world = world_new (8);
  add (world, 'a', K);
  reserve (world, 'a', 8);
  world_expect (world, HF_VERDICT_MOVED, HF_ACTION_REGISTER);
  add (world, 'b', K);
  reserve (world, 'a', 8);
  world->in.progress.acted = TRUE;
  world_expect (world, HF_VERDICT_MOVED, HF_ACTION_NONE);
}

static void
test_the_type_on_the_disk_counts (void)
{
  g_autoptr (World) world = world_new (5);
  add (world, 'a', K);
  add (world, 'b', K);
  reserve (world, 'a', 1);
  world_expect (world, HF_VERDICT_TYPE_CHANGED, HF_ACTION_TAKE_OVER);
  g_assert_cmpint (world->plan.take_over_type, ==, 1);
}

static void
test_all_registrants_of_another_make_the_vm_a_holder (void)
{
  g_autoptr (World) world = world_new (0);
  add (world, 'a', K);
  add (world, 'c', X);
  reserve (world, 'c', 7);
  world_expect (world, HF_VERDICT_TYPE_CHANGED, HF_ACTION_REGISTER);
}

static void
test_preempted_released_registered_only_register (void)
{
  g_autoptr (World) preempted = world_new (5), released = world_new (5), registered = world_new (0);
  add (preempted, 'a', K);
  add (preempted, 'c', X);
  reserve (preempted, 'c', 5);
  world_expect (preempted, HF_VERDICT_PREEMPTED, HF_ACTION_REGISTER);
  add (released, 'a', K);
  world_expect (released, HF_VERDICT_RELEASED, HF_ACTION_REGISTER);
  add (registered, 'a', K);
  add (registered, 'c', X);
  reserve (registered, 'c', 1);
  world_expect (registered, HF_VERDICT_REGISTERED, HF_ACTION_REGISTER);
}

/* ---- our own register and preempt ---- */

static void
test_register_that_came_too_late_goes_away (void)
{
  g_autoptr (World) world = world_new (5);
  add (world, 'b', K);
  add (world, 'c', X);
  reserve (world, 'c', 5);
  world->in.progress = (HfPlanProgress){ .registers_sent = 1, .register_unverified = TRUE, .acted = TRUE };
  world_expect (world, HF_VERDICT_FENCED, HF_ACTION_UNREGISTER);
  g_assert_false (world->plan.register_verified);
}

static void
test_own_preempt_that_dropped_us_is_repaired (void)
{
  g_autoptr (World) world = world_new (5);
  world->in.progress = (HfPlanProgress){ .acted = TRUE, .taken_over = TRUE, .take_over_generation = 6 };
  world_expect (world, HF_VERDICT_RELEASED, HF_ACTION_REGISTER);
  /* Behind it: nobody else acted, so being alone is as it should be. */
  add (world, 'b', K);
  world->seen.generation = 8;
  world->in.progress.registers_since = 1;
  world->in.progress.register_unverified = TRUE;
  world_expect (world, HF_VERDICT_RELEASED, HF_ACTION_NONE);
}

static void
test_own_preempt_with_others_around_is_a_fence (void)
{
  g_autoptr (World) world = world_new (5);
  world->in.progress = (HfPlanProgress){ .acted = TRUE, .taken_over = TRUE, .take_over_generation = 5 };
  world_expect (world, HF_VERDICT_FENCED, HF_ACTION_NONE);
}

static void
test_two_nexuses_first_take_over_then_the_rest (void)
{
  g_autoptr (World) world = world_new (5);
  world->source[1] = nexus ('c');
  world->saved.n_nexuses = world->saved.key_count = 2;
  world->in.n_ours = 2;
  world->ours[1].nexus = nexus ('d');
  add (world, 'a', K);
  add (world, 'c', K);
  add (world, 'b', K);
  reserve (world, 'a', 5);
  world_expect (world, HF_VERDICT_MOVED, HF_ACTION_TAKE_OVER);
  world->seen.n_keys = 0;
  add (world, 'b', K);
  reserve (world, 'b', 5);
  world->in.progress = (HfPlanProgress){ .acted = TRUE, .taken_over = TRUE, .take_over_generation = 6 };
  world_expect (world, HF_VERDICT_MOVED, HF_ACTION_REGISTER);
  g_assert_cmpuint (world->plan.nexus, ==, 1);
}

/* ---- without READ FULL STATUS ---- */

static void
test_blind_reads_cannot_tell_source_from_destination (void)
{
  g_autoptr (World) world = world_new (5);
  add (world, 'a', K);
  reserve (world, 'a', 5);
  blind (world);
  world_expect (world, HF_VERDICT_MOVED, HF_ACTION_REGISTER);
  g_assert_false (world->plan.certain);
  g_assert_cmpint (world->plan.alternative, ==, HF_VERDICT_UNCHANGED);
  /* REGISTER conflicted: registered with something; the probe conflicted: with another key; or it was GOOD: the same nexus. */
  world->ours[0].known = HF_REGISTERED_SOME;
  world_expect (world, HF_VERDICT_MOVED, HF_ACTION_PROBE);
  world->ours[0].known = HF_REGISTERED_OTHER;
  world_expect (world, HF_VERDICT_OCCUPIED, HF_ACTION_NONE);
  world->ours[0].known = HF_REGISTERED_KEY;
  world_expect (world, HF_VERDICT_UNCHANGED, HF_ACTION_NONE);
}

static void
test_blind_unclear_register_is_probed_first (void)
{
  g_autoptr (World) world = world_new (5);
  add (world, 'a', K);
  reserve (world, 'a', 5);
  blind (world);
  world->in.progress = (HfPlanProgress){ .registers_sent = 1, .register_unverified = TRUE, .acted = TRUE };
  world_expect (world, HF_VERDICT_MOVED, HF_ACTION_PROBE);
  world->ours[0].known = HF_REGISTERED_KEY;
  world_expect (world, HF_VERDICT_FENCED, HF_ACTION_UNREGISTER);
}

/* ---- the source's side ---- */

static void
test_reclaim_takes_the_destination_for_the_peer (void)
{
  g_autoptr (World) world = world_new (5);
  world->in.role = HF_ROLE_SOURCE;
  world->ours[0].nexus = nexus ('a');
  add (world, 'c', K);
  reserve (world, 'c', 5);
  world_expect (world, HF_VERDICT_MOVED, HF_ACTION_REGISTER);
  add (world, 'd', K);
  world_expect (world, HF_VERDICT_AMBIGUOUS, HF_ACTION_NONE);
}

static void
world_expect_release (World *world, HfVerdict verdict, HfAction action)
{
  hf_plan_clear (&world->plan);
  hf_plan_release (&world->in, &world->plan);
  g_assert_cmpstr (hf_verdict_to_string (world->plan.verdict), ==, hf_verdict_to_string (verdict));
  g_assert_cmpint (world->plan.action, ==, action);
}

static World *
world_release_new (guint8 type)
{
  World *world = world_new (type);
  world->in.role = HF_ROLE_SOURCE;
  world->ours[0].nexus = nexus ('a');
  add (world, 'a', K);
  return world;
}

static void
test_release_needs_another_nexus_of_the_vm (void)
{
  g_autoptr (World) world = world_release_new (7);
  reserve (world, 'a', 7);
  world_expect_release (world, HF_VERDICT_REFUSED, HF_ACTION_NONE);
  add (world, 'c', X);
  world_expect_release (world, HF_VERDICT_REFUSED, HF_ACTION_NONE);
  add (world, 'b', K);
  world_expect_release (world, HF_VERDICT_UNREGISTERED, HF_ACTION_UNREGISTER);
}

static void
test_release_never_from_the_holder (void)
{
  static const guint8 types[] = { 1, 3, 5, 6 };
  for (guint i = 0; i < G_N_ELEMENTS (types); i++) {
    g_autoptr (World) world = world_release_new (types[i]);
    add (world, 'b', K);
    reserve (world, 'a', types[i]);
    world_expect_release (world, HF_VERDICT_REFUSED, HF_ACTION_NONE);
    reserve (world, 'b', types[i]);
    world_expect_release (world, HF_VERDICT_UNREGISTERED, HF_ACTION_UNREGISTER);
  }
}

static void
test_release_blind_counts_a_registered_source_as_the_holder (void)
{
  g_autoptr (World) world = world_release_new (5);
  add (world, 'b', K);
  reserve (world, 'b', 5);
  blind (world);
  world_expect_release (world, HF_VERDICT_UNCHANGED, HF_ACTION_PROBE);
  world->ours[0].known = HF_REGISTERED_KEY;
  world_expect_release (world, HF_VERDICT_REFUSED, HF_ACTION_NONE);
  world->ours[0].known = HF_REGISTERED_NOT_KEY;
  world_expect_release (world, HF_VERDICT_UNCHANGED, HF_ACTION_NONE);
}

static void
test_release_does_not_take_a_foreign_key_for_the_vms (void)
{
  g_autoptr (World) world = world_release_new (7);
  world->saved.key_count = 2; /* somebody else had K at save already */
  add (world, 'c', K);
  reserve (world, 'a', 7);
  world_expect_release (world, HF_VERDICT_REFUSED, HF_ACTION_NONE);
}

static void
test_policy (void)
{
  for (guint verdict = 0; verdict < HF_N_VERDICTS; verdict++) {
    gboolean changed = verdict == HF_VERDICT_TYPE_CHANGED || verdict == HF_VERDICT_RELEASED || verdict == HF_VERDICT_PREEMPTED
                       || verdict == HF_VERDICT_FENCED;
    gboolean bad = verdict == HF_VERDICT_ERROR || verdict == HF_VERDICT_AMBIGUOUS || verdict == HF_VERDICT_OCCUPIED
                   || verdict == HF_VERDICT_REFUSED;
    g_assert_cmpint (hf_verdict_is_accepted (verdict, HF_ON_CHANGE_ADOPT), ==, !bad);
    g_assert_cmpint (hf_verdict_is_accepted (verdict, HF_ON_CHANGE_REFUSE), ==, !bad && !changed);
  }
}

#define TEST(name) g_test_add_func ("/pr-plan/" #name, test_##name)

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  TEST (none_sends_nothing_and_reports_a_leftover);
  TEST (unreadable_is_an_error_never_a_fence);
  TEST (foreign_nexus_with_the_key_is_ambiguous_and_named);
  TEST (key_listed_once_too_often_is_ambiguous);
  TEST (journal_accounts_for_one_more_key);
  TEST (other_key_on_the_destination_is_occupied);
  TEST (key_nowhere_is_fenced);
  TEST (same_nexus_is_unchanged_whatever_it_holds);
  TEST (final_state_is_unchanged);
  TEST (unverified_register_without_the_source_is_a_fence);
  TEST (unverified_register_with_the_source_goes_on);
  TEST (moved_registers_then_takes_over_with_the_type);
  TEST (all_registrants_needs_no_take_over);
  TEST (the_type_on_the_disk_counts);
  TEST (all_registrants_of_another_make_the_vm_a_holder);
  TEST (preempted_released_registered_only_register);
  TEST (register_that_came_too_late_goes_away);
  TEST (own_preempt_that_dropped_us_is_repaired);
  TEST (own_preempt_with_others_around_is_a_fence);
  TEST (two_nexuses_first_take_over_then_the_rest);
  TEST (blind_reads_cannot_tell_source_from_destination);
  TEST (blind_unclear_register_is_probed_first);
  TEST (reclaim_takes_the_destination_for_the_peer);
  TEST (release_needs_another_nexus_of_the_vm);
  TEST (release_never_from_the_holder);
  TEST (release_blind_counts_a_registered_source_as_the_holder);
  TEST (release_does_not_take_a_foreign_key_for_the_vms);
  TEST (policy);
  return g_test_run ();
}
