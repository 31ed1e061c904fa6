/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a guest holds, command by command. Every rule is one row: the state before, the command, its status, the state after.
 *
 *   guest G: key K (or K2 after a change)        other node: key X
 *
 * A state is written { key, type, scope, aptpl, all_tg_pt, uncertain }.
 */
#include <holdfast/pr.h>

#define K G_GUINT64_CONSTANT (0x6b6b6b6b00000001)
#define K2 G_GUINT64_CONSTANT (0x6b6b6b6b00000002)
#define X G_GUINT64_CONSTANT (0x7878787800000003)

#define NOTHING                                                                                                                  \
  {                                                                                                                              \
    0, 0, 0, 0, 0, 0                                                                                                             \
  }
#define REGISTERED                                                                                                               \
  {                                                                                                                              \
    K, 0, 0, 0, 0, 0                                                                                                             \
  }
#define HOLDS(type)                                                                                                              \
  {                                                                                                                              \
    K, type, 0, 0, 0, 0                                                                                                          \
  }
#define GOOD HF_SAM_GOOD

typedef struct {
  const char *rule;
  HfPrState before;
  HfPrOut command; /* action, scope, type, RESERVATION KEY, SERVICE ACTION RESERVATION KEY, APTPL, ALL_TG_PT */
  int status;
  HfPrState after;
} Rule;

static const Rule rules[] = {
  /* REGISTER */
  { "register-gives-the-key", NOTHING, { HF_PR_OUT_REGISTER, 0, 0, 0, K }, GOOD, REGISTERED },
  { "register-gives-the-flags", NOTHING, { HF_PR_OUT_REGISTER, 0, 0, 0, K, 1, 1 }, GOOD, { K, 0, 0, 1, 1, 0 } },
  { "register-of-nothing-is-nothing", NOTHING, { HF_PR_OUT_REGISTER, 0, 0, 0, 0 }, GOOD, NOTHING },
  { "register-changes-the-key-and-keeps-the-reservation", HOLDS (5), { HF_PR_OUT_REGISTER, 0, 0, K, K2 }, GOOD, { K2, 5 } },
  { "register-of-the-same-key-changes-nothing", HOLDS (3), { HF_PR_OUT_REGISTER, 0, 0, K, K }, GOOD, HOLDS (3) },
  { "register-again-replaces-the-flags", { K, 5, 0, 1, 1, 0 }, { HF_PR_OUT_REGISTER, 0, 0, K, K }, GOOD, HOLDS (5) },
  { "unregister-of-the-holder-releases-1", HOLDS (1), { HF_PR_OUT_REGISTER, 0, 0, K, 0 }, GOOD, NOTHING },
  { "unregister-of-the-holder-releases-6", { K, 6, 0, 1, 1, 0 }, { HF_PR_OUT_REGISTER, 0, 0, K, 0 }, GOOD, NOTHING },
  { "unregister-ends-type-7-for-us", HOLDS (7), { HF_PR_OUT_REGISTER, 0, 0, K, 0 }, GOOD, NOTHING },
  { "register-with-key-0-shows-that-we-had-lost-it", HOLDS (5), { HF_PR_OUT_REGISTER, 0, 0, 0, K2 }, GOOD, { K2 } },
  { "register-with-a-key-we-did-not-know-is-uncertain",
    NOTHING,
    { HF_PR_OUT_REGISTER, 0, 0, K, K2 },
    GOOD,
    { K2, .uncertain = 1 } },

  /* REGISTER AND IGNORE EXISTING KEY */
  { "ignore-gives-the-key", NOTHING, { HF_PR_OUT_REGISTER_AND_IGNORE, 0, 0, X, K, 1, 0 }, GOOD, { K, 0, 0, 1, 0, 0 } },
  { "ignore-changes-the-key-and-keeps-the-reservation",
    HOLDS (1),
    { HF_PR_OUT_REGISTER_AND_IGNORE, 0, 0, 0, K2 },
    GOOD,
    { K2, 1 } },
  { "ignore-with-key-0-unregisters", HOLDS (8), { HF_PR_OUT_REGISTER_AND_IGNORE, 0, 0, 0, 0 }, GOOD, NOTHING },

  /* RESERVE, RELEASE, CLEAR */
  { "reserve-gives-the-type", REGISTERED, { HF_PR_OUT_RESERVE, 0, 5, K }, GOOD, HOLDS (5) },
  { "reserve-gives-the-scope", REGISTERED, { HF_PR_OUT_RESERVE, 2, 3, K }, GOOD, { K, 3, 2 } },
  { "reserve-keeps-the-flags", { K, 0, 0, 1, 1, 0 }, { HF_PR_OUT_RESERVE, 0, 8, K }, GOOD, { K, 8, 0, 1, 1, 0 } },
  { "reserve-of-the-same-type-changes-nothing", HOLDS (6), { HF_PR_OUT_RESERVE, 0, 6, K }, GOOD, HOLDS (6) },
  { "reserve-with-another-key-is-uncertain-and-keeps-ours",
    REGISTERED,
    { HF_PR_OUT_RESERVE, 0, 5, X },
    GOOD,
    { K, 5, .uncertain = 1 } },
  { "reserve-unknown-before-takes-the-key", NOTHING, { HF_PR_OUT_RESERVE, 0, 5, K }, GOOD, { K, 5, .uncertain = 1 } },
  { "release-ends-the-reservation", HOLDS (5), { HF_PR_OUT_RELEASE, 0, 5, K }, GOOD, REGISTERED },
  { "release-of-who-does-not-hold-changes-nothing", REGISTERED, { HF_PR_OUT_RELEASE, 0, 5, K }, GOOD, REGISTERED },
  { "clear-ends-everything", { K, 7, 0, 1, 1, 0 }, { HF_PR_OUT_CLEAR, 0, 0, K }, GOOD, NOTHING },

  /* PREEMPT */
  { "preempt-of-another-by-the-holder-changes-nothing", HOLDS (5), { HF_PR_OUT_PREEMPT, 0, 1, K, X }, GOOD, HOLDS (5) },
  { "preempt-and-abort-of-another-by-the-holder-changes-nothing",
    HOLDS (1),
    { HF_PR_OUT_PREEMPT_AND_ABORT, 0, 3, K, X },
    GOOD,
    HOLDS (1) },
  { "preempt-by-who-does-not-hold-is-uncertain", REGISTERED, { HF_PR_OUT_PREEMPT, 0, 5, K, X }, GOOD, { K, .uncertain = 1 } },
  { "preempt-of-the-own-key-is-uncertain", HOLDS (5), { HF_PR_OUT_PREEMPT, 0, 5, K, K }, GOOD, { K, 5, .uncertain = 1 } },
  { "preempt-and-abort-of-the-own-key-is-uncertain",
    HOLDS (5),
    { HF_PR_OUT_PREEMPT_AND_ABORT, 0, 5, K, K },
    GOOD,
    { K, 5, .uncertain = 1 } },
  { "preempt-of-all-registrants-is-uncertain", HOLDS (7), { HF_PR_OUT_PREEMPT, 0, 1, K, 0 }, GOOD, { K, 7, .uncertain = 1 } },
  { "preempt-of-one-of-all-registrants-is-uncertain",
    HOLDS (8),
    { HF_PR_OUT_PREEMPT, 0, 1, K, X },
    GOOD,
    { K, 8, .uncertain = 1 } },
  { "preempt-with-key-0-by-a-holder-is-uncertain", HOLDS (5), { HF_PR_OUT_PREEMPT, 0, 5, K, 0 }, GOOD, { K, 5, .uncertain = 1 } },

  /* REGISTER AND MOVE, REPLACE LOST RESERVATION, what SPC-4 does not know */
  { "move-gives-the-reservation-away",
    { K, 3, 0, 1, 0, 0 },
    { HF_PR_OUT_REGISTER_AND_MOVE, 0, 3, K, X },
    GOOD,
    { K, 0, 0, 1, 0, 0 } },
  { "move-with-unreg-ends-everything", HOLDS (3), { HF_PR_OUT_REGISTER_AND_MOVE, 0, 3, K, X, .unregister = 1 }, GOOD, NOTHING },
  { "replace-lost-reservation-is-uncertain",
    NOTHING,
    { HF_PR_OUT_REPLACE_LOST_RESERVATION, 0, 5, 0, K },
    GOOD,
    { .uncertain = 1 } },
  { "a-reserved-service-action-is-uncertain", HOLDS (5), { 9, 0, 5, K, K2 }, GOOD, { K, 5, .uncertain = 1 } },

  /* The status decides: a REGISTER that failed does not replace the key. */
  { "conflict-on-register-changes-nothing",
    HOLDS (5),
    { HF_PR_OUT_REGISTER, 0, 0, X, K2 },
    HF_SAM_RESERVATION_CONFLICT,
    HOLDS (5) },
  { "conflict-on-clear-changes-nothing", HOLDS (5), { HF_PR_OUT_CLEAR, 0, 0, X }, HF_SAM_RESERVATION_CONFLICT, HOLDS (5) },
  { "conflict-on-self-preempt-changes-nothing",
    REGISTERED,
    { HF_PR_OUT_PREEMPT, 0, 5, K, K },
    HF_SAM_RESERVATION_CONFLICT,
    REGISTERED },
  { "check-condition-is-uncertain",
    HOLDS (5),
    { HF_PR_OUT_REGISTER, 0, 0, K, K2 },
    HF_SAM_CHECK_CONDITION,
    { K, 5, .uncertain = 1 } },
  { "busy-is-uncertain", REGISTERED, { HF_PR_OUT_RESERVE, 0, 5, K }, HF_SAM_BUSY, { K, .uncertain = 1 } },
  { "task-set-full-is-uncertain", REGISTERED, { HF_PR_OUT_RESERVE, 0, 5, K }, HF_SAM_TASK_SET_FULL, { K, .uncertain = 1 } },
  { "task-aborted-is-uncertain", HOLDS (5), { HF_PR_OUT_RELEASE, 0, 5, K }, HF_SAM_TASK_ABORTED, { K, 5, .uncertain = 1 } },
  { "condition-met-is-uncertain", HOLDS (5), { HF_PR_OUT_CLEAR, 0, 0, K }, HF_SAM_CONDITION_MET, { K, 5, .uncertain = 1 } },
  { "no-answer-is-uncertain", NOTHING, { HF_PR_OUT_REGISTER, 0, 0, 0, K }, -1, { .uncertain = 1 } },

  /* Only a reading of the LU ends the uncertainty. */
  { "good-register-leaves-it-uncertain",
    { K, 5, .uncertain = 1 },
    { HF_PR_OUT_REGISTER, 0, 0, K, K2 },
    GOOD,
    { K2, 5, .uncertain = 1 } },
  { "good-unregister-leaves-it-uncertain",
    { K, 5, .uncertain = 1 },
    { HF_PR_OUT_REGISTER, 0, 0, K, 0 },
    GOOD,
    { .uncertain = 1 } },
  { "conflict-leaves-it-uncertain",
    { K, 5, .uncertain = 1 },
    { HF_PR_OUT_CLEAR, 0, 0, K },
    HF_SAM_RESERVATION_CONFLICT,
    { K, 5, .uncertain = 1 } },
};

static void
assert_state (const HfPrState *state, const HfPrState *expected)
{
  g_assert_cmphex (state->key, ==, expected->key);
  g_assert_cmpuint (state->type, ==, expected->type);
  g_assert_cmpuint (state->scope, ==, expected->scope);
  g_assert_cmpint (state->aptpl, ==, expected->aptpl);
  g_assert_cmpint (state->all_tg_pt, ==, expected->all_tg_pt);
  g_assert_cmpint (state->uncertain, ==, expected->uncertain);
}

static gboolean
differs (const HfPrState *a, const HfPrState *b)
{
  return a->key != b->key || a->type != b->type || a->scope != b->scope || a->aptpl != b->aptpl || a->all_tg_pt != b->all_tg_pt
         || a->uncertain != b->uncertain;
}

static void
test_rule (gconstpointer data)
{
  const Rule *rule = data;
  HfPrState state = rule->before;
  gboolean changed = hf_pr_state_learn (&state, &rule->command, rule->status);

  assert_state (&state, &rule->after);
  g_assert_cmpint (changed, ==, differs (&rule->before, &rule->after));
}

/* ---- resolve: A is the guest's nexus, B another one of a node with key X or, if it says so, with the guest's ---- */

enum { A = 1, B = 2 };

static HfNexus
nexus (guint8 port)
{
  HfNexus n = { .transport_id = { .length = 24, .bytes = { [0] = 0x06, [4] = 0x50, [11] = port } }, .relative_target_port = 1 };

  return n;
}

typedef struct {
  guint64 key;
  guint8 port; /* 0: the target gives no TransportID */
  gboolean holder, all_tg_pt;
} Entry;

typedef struct {
  const char *rule;
  HfPrState before;
  gboolean full;
  guint8 own; /* 0: the own nexus is not known */
  guint64 candidate;
  Entry entries[3];
  guint8 type; /* 0: not reserved */
  guint64 holder_key;
  HfPrState after;
} Resolve;

#define UNCERTAIN(key, type)                                                                                                     \
  {                                                                                                                              \
    key, type, .uncertain = 1                                                                                                    \
  }

static const Resolve resolves[] = {
  /* by nexus */
  { "nexus-shows-the-key", UNCERTAIN (0, 0), TRUE, A, 0, { { K, A }, { X, B } }, 0, 0, { K } },
  { "nexus-shows-an-unexpected-key", UNCERTAIN (K, 0), TRUE, A, 0, { { K2, A }, { K, B } }, 0, 0, { K2 } },
  { "nexus-shows-the-holder", UNCERTAIN (K, 0), TRUE, A, 0, { { K, A, TRUE }, { X, B } }, 5, K, { K, 5 } },
  { "nexus-shows-another-holder-of-the-same-key", UNCERTAIN (K, 5), TRUE, A, 0, { { K, A }, { K, B, TRUE } }, 5, K, { K } },
  { "nexus-not-listed-is-not-registered", { K, 5, 0, 1, 1, 1 }, TRUE, A, K, { { K, B, TRUE }, { X, 3 } }, 5, K, NOTHING },
  { "nothing-listed-is-not-registered", UNCERTAIN (K, 5), TRUE, A, K, { { 0 } }, 0, 0, NOTHING },
  { "nexus-shows-all-tg-pt", { K, 0, 0, 1, 0, 1 }, TRUE, A, 0, { { K, A, FALSE, TRUE } }, 0, 0, { K, 0, 0, 1, 1, 0 } },
  { "type-7-is-held-by-every-registrant", UNCERTAIN (K, 0), TRUE, A, 0, { { K, A }, { X, B, TRUE } }, 7, 0, { K, 7 } },
  { "type-8-is-not-held-unregistered", UNCERTAIN (K, 8), TRUE, A, 0, { { X, B, TRUE } }, 8, 0, NOTHING },
  { "reservation-gone", UNCERTAIN (K, 5), TRUE, A, 0, { { K, A }, { X, B } }, 0, 0, { K } },
  { "unknown-nexus-beside-ours-does-not-matter", UNCERTAIN (K, 0), TRUE, A, K2, { { K, 0 }, { K2, A } }, 0, 0, { K2 } },
  { "unknown-nexus-instead-of-ours-is-judged-by-key", UNCERTAIN (K, 0), TRUE, A, 0, { { K, 0 }, { X, B } }, 0, 0, { K } },
  { "own-nexus-twice-with-two-keys-is-judged-by-key", UNCERTAIN (K, 0), TRUE, A, 0, { { K, A }, { X, A } }, 0, 0, { K } },

  /* by key */
  { "key-listed", UNCERTAIN (K, 0), FALSE, A, 0, { { K }, { X } }, 0, 0, { K } },
  { "own-nexus-not-known-is-judged-by-key", UNCERTAIN (K, 0), TRUE, 0, 0, { { K, A }, { X, B } }, 0, 0, { K } },
  { "key-not-listed", { K, 5, 0, 1, 1, 1 }, FALSE, A, 0, { { X } }, 5, X, NOTHING },
  { "candidate-listed", UNCERTAIN (K, 5), FALSE, A, K2, { { K2 }, { X } }, 5, K2, { K2, 5 } },
  { "candidate-not-listed", UNCERTAIN (K, 5), FALSE, A, K2, { { K }, { X } }, 5, K, { K, 5 } },
  { "candidate-is-the-old-key", UNCERTAIN (K, 5), FALSE, A, K, { { K } }, 5, K, { K, 5 } },
  { "old-and-candidate-listed-stays-uncertain", UNCERTAIN (K, 5), FALSE, A, K2, { { K }, { K2 } }, 5, K2, UNCERTAIN (K, 5) },
  { "key-registered-not-holding", UNCERTAIN (K, 5), FALSE, A, 0, { { K }, { X } }, 3, X, { K } },
  { "key-holds-the-type-on-disk", UNCERTAIN (K, 5), FALSE, A, 0, { { K }, { X } }, 3, K, { K, 3 } },
  { "key-of-type-7-holds", UNCERTAIN (K, 0), FALSE, A, 0, { { K }, { X } }, 7, 0, { K, 7 } },
  { "key-0-is-no-registration", NOTHING, FALSE, A, 0, { { X } }, 7, 0, NOTHING },
  { "no-key-to-look-for-stays-uncertain", UNCERTAIN (0, 0), FALSE, A, 0, { { X } }, 7, 0, UNCERTAIN (0, 0) },
  { "no-key-to-look-for-and-none-listed", UNCERTAIN (0, 0), FALSE, A, 0, { { 0 } }, 0, 0, NOTHING },
  { "no-key-to-look-for-but-the-nexus-tells", UNCERTAIN (0, 0), TRUE, A, 0, { { X, B } }, 0, 0, NOTHING },
  { "key-keeps-the-flags", { K, 0, 0, 1, 1, 1 }, FALSE, A, 0, { { K } }, 0, 0, { K, 0, 0, 1, 1, 0 } },
};

static void
test_resolve (gconstpointer data)
{
  const Resolve *resolve = data;
  HfPrRegistrant registrants[3] = { 0 };
  guint64 keys[3];
  HfPrObservation observation = { .full = resolve->full, .keys = keys, .registrants = resolve->full ? registrants : NULL };
  HfPrState state = resolve->before;
  HfNexus own = nexus (resolve->own);

  for (guint i = 0; i < 3 && resolve->entries[i].key != 0; i++) {
    const Entry *entry = &resolve->entries[i];

    keys[i] = registrants[i].key = entry->key;
    if (entry->port != 0)
      registrants[i].nexus = nexus (entry->port);
    registrants[i].holder = entry->holder;
    registrants[i].all_tg_pt = entry->all_tg_pt;
    registrants[i].type = entry->holder ? resolve->type : 0;
    observation.n_keys++;
  }
  observation.reserved = resolve->type != 0;
  observation.type = resolve->type;
  observation.holder_key = resolve->holder_key;

  hf_pr_state_resolve (&state, &observation, resolve->own != 0 ? &own : NULL, resolve->candidate);
  assert_state (&state, &resolve->after);
}

/* An own nexus that is there but not known counts as none. */
static void
test_resolve_empty_own (void)
{
  HfPrRegistrant registrants[1] = { { .key = K, .nexus = nexus (A) } };
  guint64 keys[1] = { K };
  HfPrObservation observation = { .n_keys = 1, .keys = keys, .full = TRUE, .registrants = registrants };
  HfPrState state = UNCERTAIN (K, 0), expected = REGISTERED;
  HfNexus own = { 0 };

  hf_pr_state_resolve (&state, &observation, &own, 0);
  assert_state (&state, &expected);
}

/* The whole way: an unclear change of the key, settled by the LU, learnt on from there. */
static void
test_unclear_register_is_settled (void)
{
  guint64 keys[] = { X, K2 };
  HfPrObservation observation = { .n_keys = 2, .keys = keys, .reserved = TRUE, .type = 5, .holder_key = K2 };
  HfPrState state = HOLDS (5), held = { K2, 5 }, registered = { K2 };
  const HfPrOut change = { HF_PR_OUT_REGISTER, 0, 0, K, K2 }, release = { HF_PR_OUT_RELEASE, 0, 5, K2 };

  g_assert_true (hf_pr_state_learn (&state, &change, -1));
  g_assert_true (state.uncertain);
  g_assert_cmphex (state.key, ==, K);
  hf_pr_state_resolve (&state, &observation, NULL, change.new_key);
  assert_state (&state, &held);
  g_assert_true (hf_pr_state_learn (&state, &release, HF_SAM_GOOD));
  assert_state (&state, &registered);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  for (guint i = 0; i < G_N_ELEMENTS (rules); i++) {
    g_autofree char *path = g_strdup_printf ("/pr-state/learn/%s", rules[i].rule);
    g_test_add_data_func (path, &rules[i], test_rule);
  }
  for (guint i = 0; i < G_N_ELEMENTS (resolves); i++) {
    g_autofree char *path = g_strdup_printf ("/pr-state/resolve/%s", resolves[i].rule);
    g_test_add_data_func (path, &resolves[i], test_resolve);
  }
  g_test_add_func ("/pr-state/resolve/own-nexus-empty-is-judged-by-key", test_resolve_empty_own);
  g_test_add_func ("/pr-state/unclear-register-is-settled", test_unclear_register_is_settled);
  return g_test_run ();
}
