/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Reading what an LU holds from a device that misbehaves: lists that do not fit, generations that run away, service actions that
 * are not known. The device is scripted, answer by answer.
 */

#include "pr/pr-exec.h"

#include <string.h>

#include "../fake/scripted-transport.h"

#define K G_GUINT64_CONSTANT (0xabc)

static void
put_be (guint8 *bytes, guint64 value, guint length)
{
  for (guint i = 0; i < length; i++)
    bytes[i] = value >> (8 * (length - 1 - i));
}

/* READ KEYS with n times K; told: ADDITIONAL LENGTH. */
static HfScriptStep
keys (guint8 *buffer, guint32 generation, guint n, guint32 told)
{
  put_be (buffer, generation, 4);
  put_be (buffer + 4, told, 4);
  for (guint i = 0; i < n; i++)
    put_be (buffer + 8 + 8 * (gsize)i, K, 8);
  return (HfScriptStep){ .data = buffer, .length = 8 + 8 * (gsize)n };
}

static HfScriptStep
reservation (guint8 *buffer, guint32 generation, guint8 type)
{
  memset (buffer, 0, 24);
  put_be (buffer, generation, 4);
  put_be (buffer + 4, type != 0 ? 16 : 0, 4);
  put_be (buffer + 8, K, 8);
  buffer[21] = type;
  return (HfScriptStep){ .data = buffer, .length = type != 0 ? 24 : 8 };
}

/* READ FULL STATUS with n registrants, the first of which holds type 5; each descriptor has 48 bytes. */
static HfScriptStep
full_status (guint8 *buffer, guint32 generation, guint n, guint32 told)
{
  put_be (buffer, generation, 4);
  put_be (buffer + 4, told, 4);
  for (guint i = 0; i < n; i++) {
    guint8 *descriptor = buffer + 8 + 48 * (gsize)i;
    memset (descriptor, 0, 48);
    put_be (descriptor, K + i, 8);
    descriptor[12] = i == 0;
    descriptor[13] = i == 0 ? 5 : 0;
    put_be (descriptor + 18, 1, 2);
    put_be (descriptor + 20, 24, 4);
    descriptor[24] = 6; /* SAS */
    put_be (descriptor + 28, 0x5000 + i, 8);
  }
  return (HfScriptStep){ .data = buffer, .length = 8 + 48 * (gsize)n };
}

static const HfScriptStep not_known = { .status = HF_SAM_CHECK_CONDITION };

typedef struct {
  HfScript *script;
  HfLu *lu;
  HfPrExec exec;
  HfPrObservation seen;
} Rig;

static void
rig_set_up (Rig *rig, const HfScriptStep *steps, guint n)
{
  memset (rig, 0, sizeof *rig);
  rig->script = hf_script_new (steps, n, NULL);
  rig->lu = hf_lu_new_for_transport (&rig->script->transport, "script", 1000);
  rig->exec.lu = rig->lu;
}

static void
rig_clear (Rig *rig)
{
  hf_pr_observation_clear (&rig->seen);
  hf_unit_error_clear (&rig->exec.failure);
  hf_lu_free (rig->lu);
}

static guint16
allocation_length (Rig *rig, guint index)
{
  return rig->script->cdbs[index][7] << 8 | rig->script->cdbs[index][8];
}

static void
test_full_status_is_one_command (void)
{
  guint8 buffer[256];
  HfScriptStep steps[] = { full_status (buffer, 3, 2, 96) };
  Rig rig;
  rig_set_up (&rig, steps, 1);
  g_assert_true (hf_pr_exec_observe (&rig.exec, "observe", HF_OBSERVE_TWICE, &rig.seen));
  g_assert_cmpuint (rig.script->n_executed, ==, 1);
  g_assert_true (rig.seen.full && rig.seen.reserved);
  g_assert_cmpuint (rig.seen.n_keys, ==, 2);
  g_assert_cmphex (rig.seen.holder_key, ==, K);
  g_assert_cmpuint (rig.seen.type, ==, 5);
  rig_clear (&rig);
}

static void
test_without_full_status_keys_are_read_twice (void)
{
  guint8 first[64], second[64], third[64];
  HfScriptStep steps[] = { not_known, keys (first, 3, 2, 16), reservation (second, 3, 1), keys (third, 3, 2, 16) };
  Rig rig;
  rig_set_up (&rig, steps, 4);
  g_assert_true (hf_pr_exec_observe (&rig.exec, "observe", HF_OBSERVE_TWICE, &rig.seen));
  g_assert_cmpuint (rig.script->n_executed, ==, 4);
  g_assert_false (rig.seen.full);
  g_assert_cmpuint (hf_pr_observation_count_key (&rig.seen, K), ==, 2);
  g_assert_true (rig.exec.no_full_status);
  rig_clear (&rig);
}

static void
test_a_key_that_left_between_the_readings_is_noticed (void)
{
  guint8 a[64], b[64], c[64], d[64], e[64], f[64];
  HfScriptStep steps[] = { not_known,         keys (a, 3, 2, 16),    reservation (b, 3, 1), keys (c, 3, 1, 8),
                           keys (d, 3, 1, 8), reservation (e, 3, 0), keys (f, 3, 1, 8) };
  Rig rig;
  rig_set_up (&rig, steps, 7);
  g_assert_true (hf_pr_exec_observe (&rig.exec, "observe", HF_OBSERVE_TWICE, &rig.seen));
  g_assert_cmpuint (rig.script->n_executed, ==, 7);
  g_assert_cmpuint (rig.seen.n_keys, ==, 1);
  g_assert_false (rig.seen.reserved);
  rig_clear (&rig);
}

static void
test_generations_that_run_away_are_an_error (void)
{
  guint8 a[64], b[64];
  HfScriptStep steps[] = { not_known,
                           keys (a, 3, 1, 8),
                           reservation (b, 4, 1),
                           keys (a, 3, 1, 8),
                           reservation (b, 4, 1),
                           keys (a, 3, 1, 8),
                           reservation (b, 4, 1),
                           keys (a, 3, 1, 8),
                           reservation (b, 4, 1),
                           keys (a, 3, 1, 8),
                           reservation (b, 4, 1) };
  Rig rig;
  rig_set_up (&rig, steps, G_N_ELEMENTS (steps));
  g_assert_false (hf_pr_exec_observe (&rig.exec, "observe", HF_OBSERVE_ONCE, &rig.seen));
  g_assert_cmpuint (rig.script->n_executed, ==, G_N_ELEMENTS (steps));
  g_assert_nonnull (strstr (rig.exec.failure.text, "changed"));
  rig_clear (&rig);
}

static void
test_a_list_that_does_not_fit_is_read_again (void)
{
  g_autofree guint8 *small = g_malloc0 (65536), *large = g_malloc0 (65536);
  guint8 r[64];
  guint n = 2000;
  HfScriptStep steps[] = { not_known, keys (small, 3, 1023, 8 * n), keys (large, 3, n, 8 * n), reservation (r, 3, 0) };
  Rig rig;
  rig_set_up (&rig, steps, 4);
  g_assert_true (hf_pr_exec_observe (&rig.exec, "observe", HF_OBSERVE_ONCE, &rig.seen));
  g_assert_cmpuint (allocation_length (&rig, 1), ==, 8192);
  g_assert_cmpuint (allocation_length (&rig, 2), ==, 65535);
  g_assert_cmpuint (rig.seen.n_keys, ==, n);
  rig_clear (&rig);
}

static void
test_a_list_too_long_for_any_answer_is_an_error (void)
{
  g_autofree guint8 *large = g_malloc0 (65536);
  HfScriptStep steps[] = { not_known, keys (large, 3, 8000, 8 * 9000) };
  Rig rig;
  rig_set_up (&rig, steps, 2);
  g_assert_false (hf_pr_exec_observe (&rig.exec, "observe", HF_OBSERVE_ONCE, &rig.seen));
  g_assert_nonnull (strstr (rig.exec.failure.text, "72000"));
  g_assert_cmpint (rig.exec.failure.exit_code, ==, 97);
  rig_clear (&rig);
}

/* LIO tells the length of what it put into the buffer, not of the list. */
static void
test_a_full_status_that_fills_the_buffer_is_read_again (void)
{
  g_autofree guint8 *small = g_malloc0 (65536), *large = g_malloc0 (65536);
  HfScriptStep steps[] = { full_status (small, 3, 170, 48 * 170), full_status (large, 3, 200, 48 * 200) };
  Rig rig;
  rig_set_up (&rig, steps, 2);
  g_assert_true (hf_pr_exec_observe (&rig.exec, "observe", HF_OBSERVE_ONCE, &rig.seen));
  g_assert_cmpuint (rig.script->n_executed, ==, 2);
  g_assert_cmpuint (rig.seen.n_keys, ==, 200);
  rig_clear (&rig);
}

static void
test_conflict_is_reported_with_the_answer (void)
{
  HfScriptStep steps[] = { { .status = HF_SAM_RESERVATION_CONFLICT } };
  Rig rig;
  rig_set_up (&rig, steps, 1);
  g_assert_false (hf_pr_exec_observe (&rig.exec, "observe", HF_OBSERVE_ONCE, &rig.seen));
  g_assert_true (rig.exec.failure.answered);
  g_assert_cmpint (rig.exec.failure.result.status, ==, HF_SAM_RESERVATION_CONFLICT);
  g_assert_cmpint (rig.exec.failure.exit_code, ==, 24);
  g_assert_cmpstr (rig.exec.failure.step, ==, "observe");
  rig_clear (&rig);
}

static void
test_malformed_answer_is_an_error (void)
{
  guint8 odd[16] = { 0, 0, 0, 1, 0, 0, 0, 5 };
  HfScriptStep steps[] = { not_known, { .data = odd, .length = 13 } };
  Rig rig;
  rig_set_up (&rig, steps, 2);
  g_assert_false (hf_pr_exec_observe (&rig.exec, "observe", HF_OBSERVE_ONCE, &rig.seen));
  g_assert_cmpint (rig.exec.failure.exit_code, ==, 97);
  rig_clear (&rig);
}

static void
test_unit_attentions_are_kept_once_each (void)
{
  guint8 buffer[256];
  HfScriptStep steps[] = { { .status = HF_SAM_CHECK_CONDITION, .unit_attention = 0x2a03 },
                           { .status = HF_SAM_CHECK_CONDITION, .unit_attention = 0x2a05 },
                           { .status = HF_SAM_CHECK_CONDITION, .unit_attention = 0x2a03 },
                           full_status (buffer, 3, 1, 48) };
  Rig rig;
  rig_set_up (&rig, steps, 4);
  g_assert_true (hf_pr_exec_observe (&rig.exec, "observe", HF_OBSERVE_ONCE, &rig.seen));
  guint16 met[HF_SCSI_UA_MAX];
  g_assert_cmpuint (hf_lu_take_unit_attentions (rig.lu, met), ==, 2);
  g_assert_cmphex (met[0], ==, 0x2a03);
  g_assert_cmphex (met[1], ==, 0x2a05);
  g_assert_cmpuint (hf_lu_take_unit_attentions (rig.lu, met), ==, 0);
  rig_clear (&rig);
}

static void
test_no_report_capabilities_means_no_capabilities (void)
{
  HfPrCapabilities capabilities;
  Rig rig;
  rig_set_up (&rig, &not_known, 1);
  g_assert_true (hf_pr_exec_capabilities (&rig.exec, &capabilities));
  g_assert_false (capabilities.persist_through_power_loss_activated);
  rig_clear (&rig);
}

#define TEST(name) g_test_add_func ("/pr-exec/" #name, test_##name)

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  TEST (full_status_is_one_command);
  TEST (without_full_status_keys_are_read_twice);
  TEST (a_key_that_left_between_the_readings_is_noticed);
  TEST (generations_that_run_away_are_an_error);
  TEST (a_list_that_does_not_fit_is_read_again);
  TEST (a_list_too_long_for_any_answer_is_an_error);
  TEST (a_full_status_that_fills_the_buffer_is_read_again);
  TEST (conflict_is_reported_with_the_answer);
  TEST (malformed_answer_is_an_error);
  TEST (unit_attentions_are_kept_once_each);
  TEST (no_report_capabilities_means_no_capabilities);
  return g_test_run ();
}
