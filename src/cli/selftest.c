/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The move matrix. Owns the state of one case; nothing survives it. Thread: one.
 *
 * Theory of operation. The destination's LU is wrapped (scsi/transport-hook.h), so that just before its Nth command the third
 * party acts. N counts up until the move ends before it: then every gap was met. What must hold afterwards is said here by the
 * action alone, without a look at the plan: a fenced VM (PREEMPT, CLEAR) stays fenced: its key is gone from the LU and the
 * verdict says so; otherwise its key is on the destination, and what it held, in the type the LU shows, is held; the third
 * party's own registration and reservation are as it left them.
 */

#include "cli/selftest.h"

#include <string.h>

#include "cli/block-io.h"
#include "scsi/transport-hook.h"

#define KEY G_GUINT64_CONSTANT (0x686f6c6466617374)
#define THIRD_KEY G_GUINT64_CONSTANT (0x7769746e657373)
#define GAPS_MAX 40

typedef enum { ACT_NOTHING, ACT_PREEMPT, ACT_CLEAR, ACT_REGISTER, ACT_CHANGE_TYPE } Act;
static const char *const act_names[] = { "nothing", "PREEMPT", "CLEAR", "REGISTER", "change of type" };
G_STATIC_ASSERT (G_N_ELEMENTS (act_names) == ACT_CHANGE_TYPE + 1);

static const guint8 types[] = { 0, 1, 3, 5, 6, 7, 8 };
static const guint8 other_type[] = { 0, 3, 0, 1, 0, 6, 5, 8, 7 };

typedef struct {
  const HfSelftestLus *lus;
  guint32 block_size;
  guint8 *block;
  /* of the case */
  guint8 type;
  Act act;
  guint gap;
  gboolean acted;
  char *step;           /* the command before which the third party acted */
  HfPrObservation left; /* what the LU showed when it had */
  GString *fault;
} Case;

static void blame (Case *it, const char *format, ...) G_GNUC_PRINTF (2, 3);

static void
blame (Case *it, const char *format, ...)
{
  va_list arguments;
  if (it->fault->len > 0)
    g_string_append (it->fault, "; ");
  va_start (arguments, format);
  g_string_append_vprintf (it->fault, format, arguments);
  va_end (arguments);
}

/* ---- commands ---- */

/* The status, or -1 without an answer. */
static int
pr_out (HfLu *lu, guint8 action, guint64 key, guint64 new_key, guint8 type)
{
  g_autoptr (GError) error = NULL;
  HfScsiResult result;
  HfPrOut out = { .action = action, .key = key, .new_key = new_key, .type = type };
  return hf_pr_send (lu, "selftest", &out, HF_SCSI_RETRY, &result, &error) ? result.status : -1;
}

static void
expect_good (Case *it, const char *what, int status)
{
  if (status != HF_SAM_GOOD)
    blame (it, "%s was answered with status %d", what, status);
}

static void
register_third (Case *it)
{
  expect_good (it, "the third party's REGISTER", pr_out (it->lus->witness, HF_PR_OUT_REGISTER_AND_IGNORE, 0, THIRD_KEY, 0));
}

/* By the holder: the source, or the destination once it has taken over. */
static void
change_type (Case *it)
{
  HfLu *holder = it->lus->source;
  if (pr_out (holder, HF_PR_OUT_RELEASE, KEY, 0, it->type) != HF_SAM_GOOD
      || pr_out (holder, HF_PR_OUT_RESERVE, KEY, 0, other_type[it->type]) != HF_SAM_GOOD) {
    holder = it->lus->destination;
    pr_out (holder, HF_PR_OUT_RELEASE, KEY, 0, it->type);
    expect_good (it, "the holder's RESERVE with another type", pr_out (holder, HF_PR_OUT_RESERVE, KEY, 0, other_type[it->type]));
  }
}

static void
act_as_third (Case *it)
{
  if (it->act == ACT_CHANGE_TYPE) {
    change_type (it);
    return;
  }
  register_third (it);
  if (it->act == ACT_PREEMPT)
    expect_good (
        it, "the third party's PREEMPT",
        pr_out (it->lus->witness, HF_PR_OUT_PREEMPT, THIRD_KEY, KEY, it->type != 0 ? it->type : HF_PR_TYPE_WRITE_EXCLUSIVE));
  else if (it->act == ACT_CLEAR)
    expect_good (it, "the third party's CLEAR", pr_out (it->lus->witness, HF_PR_OUT_CLEAR, THIRD_KEY, 0, 0));
}

static void
see (Case *it, HfPrObservation *ret)
{
  g_autoptr (GError) error = NULL;
  if (!hf_pr_observe (it->lus->witness, "judge", ret, NULL, &error))
    blame (it, "%s", error->message);
}

static void
interfere (guint index, const char *step, void *data)
{
  Case *it = data;
  if (it->acted || index != it->gap || it->act == ACT_NOTHING)
    return;
  it->acted = TRUE;
  it->step = g_strdup (step);
  act_as_third (it);
  see (it, &it->left);
}

/* ---- one case ---- */

static void
clean (Case *it)
{
  register_third (it);
  expect_good (it, "CLEAR", pr_out (it->lus->witness, HF_PR_OUT_CLEAR, THIRD_KEY, 0, 0));
}

static gboolean
set_up (Case *it, HfPrSaved *saved)
{
  g_autoptr (GError) error = NULL;
  expect_good (it, "the VM's REGISTER", pr_out (it->lus->source, HF_PR_OUT_REGISTER_AND_IGNORE, 0, KEY, 0));
  if (it->type != 0)
    expect_good (it, "the VM's RESERVE", pr_out (it->lus->source, HF_PR_OUT_RESERVE, KEY, 0, it->type));
  if (it->fault->len == 0 && !hf_pr_save (&it->lus->source, 1, KEY, saved, NULL, &error))
    blame (it, "save: %s", error->message);
  return it->fault->len == 0;
}

static HfVerdict
move (Case *it, const HfPrSaved *saved, guint8 *ret_type)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (HfRecord) record = hf_record_new ("selftest");
  HfMoveOptions options = { 0 }; /* no journal: a crash leaves a scratch LU */
  HfLu *lu = hf_lu_new_with_hook (it->lus->destination, interfere, it);
  HfVerdict verdict = HF_VERDICT_ERROR;
  HfMove *moving = hf_record_add (record, saved, &error) ? hf_move_new (record, &options, &error) : NULL;

  if (moving != NULL && hf_move_add_lus (moving, &lu, 1, &error)) {
    if (hf_move_prepare (moving))
      hf_move_commit (moving);
    const HfMoveUnit *unit = hf_move_get_unit (moving, 0);
    verdict = unit->verdict;
    *ret_type = unit->type;
    if (unit->error.text != NULL)
      blame (it, "load: %s: %s", unit->error.step, unit->error.text);
  }
  if (error != NULL)
    blame (it, "load: %s", error->message);
  hf_move_free (moving);
  hf_lu_free (lu);
  return verdict;
}

/* ---- judging ---- */

static gboolean
may_write (Case *it, HfLu *lu)
{
  g_autoptr (GError) error = NULL;
  HfScsiResult result;
  if (!hf_block_write (lu, it->block, it->block_size, &result, &error)) {
    blame (it, "write: %s", error->message);
    return FALSE;
  }
  return result.status == HF_SAM_GOOD;
}

static void
expect_write (Case *it, const char *who, HfLu *lu, gboolean expected)
{
  if (may_write (it, lu) != expected)
    blame (it, "the %s %s write", who, expected ? "may not" : "may");
}

static void
judge_fenced (Case *it, HfVerdict verdict, const HfPrObservation *seen)
{
  if (verdict != HF_VERDICT_FENCED)
    blame (it, "the verdict is %s, not fenced", hf_verdict_to_string (verdict));
  if (hf_pr_observation_count_key (seen, KEY) != 0)
    blame (it, "the fenced key is listed again");
  /* What it left is the measure, not what it wanted: tgt loses types 7 and 8 in a PREEMPT. */
  const HfPrObservation *left = &it->left;
  gboolean reserved = left->reserved && left->type != 0;
  if (seen->reserved != left->reserved || seen->type != left->type || seen->holder_key != left->holder_key)
    blame (it, "the third party's reservation is not as it left it");
  if (hf_pr_observation_count_key (seen, THIRD_KEY) != hf_pr_observation_count_key (left, THIRD_KEY))
    blame (it, "the third party's registration is not as it left it");
  expect_write (it, "destination", it->lus->destination, !reserved);
  expect_write (it, "source", it->lus->source, !reserved);
}

static void
judge_held (Case *it, const HfPrObservation *seen, guint8 type)
{
  gboolean all = hf_pr_type_is_all_registrants (seen->type);
  gboolean expected_type = seen->type == it->type || (it->act == ACT_CHANGE_TYPE && seen->type == other_type[it->type]);
  if (!seen->reserved || (!all && seen->holder_key != KEY))
    blame (it, "the VM's reservation is lost");
  else if (!expected_type)
    blame (it, "the reservation has type %u", seen->type);
  else if (type != seen->type)
    blame (it, "the LU shows type %u, load says %u", seen->type, type);
  if (!all && hf_pr_observation_count_key (seen, KEY) != 1)
    blame (it, "the key is listed %u times", hf_pr_observation_count_key (seen, KEY));
}

static void
judge_moved (Case *it, HfVerdict verdict, guint8 type, const HfPrObservation *seen)
{
  HfVerdict expected = it->type == 0 ? HF_VERDICT_REGISTERED : HF_VERDICT_MOVED;
  gboolean changed = it->act == ACT_CHANGE_TYPE && verdict == HF_VERDICT_TYPE_CHANGED;
  if (verdict != expected && !changed)
    blame (it, "the verdict is %s, not %s", hf_verdict_to_string (verdict), hf_verdict_to_string (expected));
  if (hf_pr_observation_count_key (seen, KEY) == 0)
    blame (it, "the VM's key is lost");
  if (it->type != 0)
    judge_held (it, seen, type);
  gboolean third = it->acted && it->act == ACT_REGISTER;
  if (third && hf_pr_observation_count_key (seen, THIRD_KEY) != 1)
    blame (it, "the third party's registration is gone");
  expect_write (it, "destination", it->lus->destination, TRUE);
  if (it->type == 0)
    return;
  gboolean third_may = third && it->type >= HF_PR_TYPE_WRITE_EXCLUSIVE_REGISTRANTS_ONLY;
  expect_write (it, "witness", it->lus->witness, third_may);
  if (!hf_pr_type_is_all_registrants (seen->type))
    expect_write (it, "source", it->lus->source, FALSE);
}

static void
judge (Case *it, HfVerdict verdict, guint8 type)
{
  HfPrObservation seen = { 0 };
  see (it, &seen);
  if (it->acted && (it->act == ACT_PREEMPT || it->act == ACT_CLEAR))
    judge_fenced (it, verdict, &seen);
  else
    judge_moved (it, verdict, type, &seen);
  hf_pr_observation_clear (&seen);
}

/* TRUE if the third party had its turn: there may be another gap. */
static gboolean
run_case (Case *it, HfSelftestReport report, void *data)
{
  g_autofree char *name = NULL;
  HfPrSaved saved = { 0 };
  guint8 type = 0;
  it->acted = FALSE;
  it->fault = g_string_new (NULL);
  if (set_up (it, &saved)) {
    HfVerdict verdict = move (it, &saved, &type);
    judge (it, verdict, type);
  }
  hf_pr_saved_clear (&saved);
  clean (it);
  if (it->acted || it->act == ACT_NOTHING || it->fault->len > 0) {
    name = it->acted ? g_strdup_printf ("type %u, %s before command %u (%s)", it->type, act_names[it->act], it->gap + 1, it->step)
                     : g_strdup_printf ("type %u, %s", it->type, act_names[it->act]);
    report (name, it->fault->len > 0 ? it->fault->str : NULL, data);
  }
  g_string_free (g_steal_pointer (&it->fault), TRUE);
  g_clear_pointer (&it->step, g_free);
  hf_pr_observation_clear (&it->left);
  return it->acted;
}

static void
run_all (Case *it, HfSelftestReport report, void *data)
{
  for (guint i = 0; i < G_N_ELEMENTS (types); i++)
    for (it->act = ACT_NOTHING; it->act <= ACT_CHANGE_TYPE; it->act++) {
      it->type = types[i];
      it->gap = 0;
      if (it->act == ACT_CHANGE_TYPE && it->type == 0)
        continue;
      while (run_case (it, report, data) && it->gap < GAPS_MAX)
        it->gap++;
    }
}

/* ---- the LU ---- */

G_DEFINE_QUARK (hf_selftest_error, hf_selftest_error)

static gboolean
check_same_lu (const HfSelftestLus *lus, GError **error)
{
  HfLu *all[] = { lus->source, lus->destination, lus->witness };
  const HfLuIdentity *first = hf_lu_get_identity (all[0], error);
  for (guint i = 1; first != NULL && i < G_N_ELEMENTS (all); i++) {
    const HfLuIdentity *identity = hf_lu_get_identity (all[i], error);
    if (identity == NULL)
      return FALSE;
    if (!hf_lu_identity_equal (first, identity)) {
      g_set_error (error, HF_PR_ERROR, HF_PR_ERROR_ARGUMENT, "%s and %s are different LUs", hf_lu_get_address (all[0]),
                   hf_lu_get_address (all[i]));
      return FALSE;
    }
    if (hf_nexus_compare (hf_lu_get_nexus (all[0]), hf_lu_get_nexus (all[i])) == HF_NEXUS_SAME
        || (i == 2 && hf_nexus_compare (hf_lu_get_nexus (all[1]), hf_lu_get_nexus (all[2])) == HF_NEXUS_SAME)) {
      g_set_error (error, HF_PR_ERROR, HF_PR_ERROR_ARGUMENT, "source, destination and witness must be three I_T nexuses");
      return FALSE;
    }
  }
  return first != NULL;
}

static gboolean
check_unused (HfLu *lu, GError **error)
{
  HfPrObservation seen = { 0 };
  if (!hf_pr_observe (lu, "selftest", &seen, NULL, error))
    return FALSE;
  gboolean unused = seen.n_keys == 0 && !seen.reserved;
  if (!unused)
    g_set_error (error, HF_SELFTEST_ERROR, HF_SELFTEST_ERROR_IN_USE,
                 "%s: the LU has %u registration%s: it is in use, not a scratch LU", hf_lu_get_address (lu), seen.n_keys,
                 seen.n_keys == 1 ? "" : "s");
  hf_pr_observation_clear (&seen);
  return unused;
}

static gboolean
read_block (Case *it, GError **error)
{
  HfScsiResult result;
  if (!hf_block_size (it->lus->witness, &it->block_size, &result, error))
    return FALSE;
  it->block = g_malloc0 (MAX (it->block_size, 1));
  if (it->block_size > 0 && !hf_block_read (it->lus->witness, it->block, it->block_size, &result, error))
    return FALSE;
  if (result.status == HF_SAM_GOOD && it->block_size > 0 && result.transferred == it->block_size)
    return TRUE;
  g_autofree char *text = hf_scsi_result_to_string (&result);
  g_set_error (error, HF_PR_ERROR, HF_PR_ERROR_DEVICE, "%s: block 0 cannot be read: %s", hf_lu_get_address (it->lus->witness),
               text);
  return FALSE;
}

gboolean
hf_selftest_run (const HfSelftestLus *lus, HfSelftestReport report, void *data, GError **error)
{
  Case it = { .lus = lus };
  if (!check_same_lu (lus, error) || !check_unused (lus->witness, error))
    return FALSE;
  gboolean ready = read_block (&it, error);
  if (ready)
    run_all (&it, report, data);
  g_free (it.block);
  return ready;
}
