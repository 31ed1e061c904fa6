/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which commands are taken for QEMU's own, and what REPORT CAPABILITIES hides. */

#include "prhelper/own-command.h"

#include <holdfast/pr.h>
#include <string.h>

#define K 0xabcull
#define OTHER 0xdefull

typedef struct {
  const char *what;
  guint8 action, type;
  guint64 key, new_key;
  gboolean aptpl, all_tg_pt;
  HfOwnCommand expected;
} OutCase;

static const OutCase out_cases[] = {
  { "REGISTER of an unregistered nexus", HF_PR_OUT_REGISTER, 0, 0, K, FALSE, FALSE, HF_OWN_COMMAND_DONE },
  { "REGISTER AND IGNORE", HF_PR_OUT_REGISTER_AND_IGNORE, 0, 0, K, FALSE, FALSE, HF_OWN_COMMAND_DONE },
  { "PREEMPT with both keys", HF_PR_OUT_PREEMPT, 5, K, K, FALSE, FALSE, HF_OWN_COMMAND_DONE },
  { "PREEMPT with both keys and another TYPE", HF_PR_OUT_PREEMPT, 3, K, K, FALSE, FALSE, HF_OWN_COMMAND_NO },
  { "PREEMPT with both keys and TYPE 1", HF_PR_OUT_PREEMPT, 1, K, K, FALSE, FALSE, HF_OWN_COMMAND_NO },
  { "REGISTER of a registered nexus", HF_PR_OUT_REGISTER, 0, K, K, FALSE, FALSE, HF_OWN_COMMAND_NO },
  { "REGISTER of another key", HF_PR_OUT_REGISTER, 0, 0, OTHER, FALSE, FALSE, HF_OWN_COMMAND_NO },
  { "unregister", HF_PR_OUT_REGISTER, 0, K, 0, FALSE, FALSE, HF_OWN_COMMAND_NO },
  { "REGISTER with APTPL", HF_PR_OUT_REGISTER, 0, 0, K, TRUE, FALSE, HF_OWN_COMMAND_NO },
  { "REGISTER with ALL_TG_PT", HF_PR_OUT_REGISTER, 0, 0, K, FALSE, TRUE, HF_OWN_COMMAND_NO },
  { "PREEMPT of another", HF_PR_OUT_PREEMPT, 5, K, OTHER, FALSE, FALSE, HF_OWN_COMMAND_NO },
  { "PREEMPT AND ABORT", HF_PR_OUT_PREEMPT_AND_ABORT, 5, K, K, FALSE, FALSE, HF_OWN_COMMAND_NO },
  { "RESERVE", HF_PR_OUT_RESERVE, 5, K, K, FALSE, FALSE, HF_OWN_COMMAND_NO },
  { "CLEAR", HF_PR_OUT_CLEAR, 0, K, 0, FALSE, FALSE, HF_OWN_COMMAND_NO },
};

static void
test_out (void)
{
  for (guint i = 0; i < G_N_ELEMENTS (out_cases); i++) {
    const OutCase *it = &out_cases[i];
    HfPrOut out = { .action = it->action,
                    .type = it->type,
                    .key = it->key,
                    .new_key = it->new_key,
                    .aptpl = it->aptpl,
                    .all_tg_pt = it->all_tg_pt };
    HfProtocolRequest request = { 0 };
    g_autoptr (GByteArray) list = hf_pr_out_encode (&out, request.cdb, NULL);

    g_test_message ("%s", it->what);
    g_assert_nonnull (list);
    request.list = list->data;
    request.length = (guint16)list->len;
    g_assert_cmpint (hf_own_command (&request, K, 5), ==, it->expected);
    /* Where nothing was moved nothing is QEMU's. */
    g_assert_cmpint (hf_own_command (&request, 0, 5), ==, HF_OWN_COMMAND_NO);
    /* A list that says less than it must. */
    request.length = 23;
    g_assert_cmpint (hf_own_command (&request, K, 5), ==, HF_OWN_COMMAND_NO);
  }
}

/* TYPE 1, or 0, is what QEMU asks for where it does not find a holder. */
static void
test_preempt_type (void)
{
  static const struct {
    guint8 asked, type;
    HfOwnCommand expected;
  } cases[] = { { 1, 0, HF_OWN_COMMAND_DONE }, { 1, 7, HF_OWN_COMMAND_DONE }, { 7, 7, HF_OWN_COMMAND_DONE },
                { 3, 0, HF_OWN_COMMAND_NO },   { 5, 7, HF_OWN_COMMAND_NO },   { 1, 3, HF_OWN_COMMAND_NO } };

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    HfPrOut out = { .action = HF_PR_OUT_PREEMPT, .type = cases[i].asked, .key = K, .new_key = K };
    HfProtocolRequest request = { 0 };
    g_autoptr (GByteArray) list = hf_pr_out_encode (&out, request.cdb, NULL);

    request.list = list->data;
    request.length = (guint16)list->len;
    g_assert_cmpint (hf_own_command (&request, K, cases[i].type), ==, cases[i].expected);
  }
}

static void
test_in (void)
{
  static const HfOwnCommand expected[] = { HF_OWN_COMMAND_READ, HF_OWN_COMMAND_READ, HF_OWN_COMMAND_NO, HF_OWN_COMMAND_NO };

  for (guint8 action = 0; action < G_N_ELEMENTS (expected); action++) {
    HfProtocolRequest request = { .length = 24 };

    hf_pr_in_encode (action, 24, request.cdb);
    g_assert_cmpint (hf_own_command (&request, K, 5), ==, expected[action]);
  }
}

static void
test_mask (void)
{
  const guint8 all[8] = { 0, 8, 0x1d, 0x90, 0xea, 0x01, 0, 0 };
  HfProtocolRequest request = { .length = 8 };
  guint8 data[8];

  for (gsize length = 0; length <= sizeof data; length++) {
    memcpy (data, all, sizeof data);
    hf_pr_in_encode (HF_PR_IN_REPORT_CAPABILITIES, 8, request.cdb);
    g_assert_cmpint (hf_mask_capabilities (&request, data, length), ==, length > 2);
    g_assert_cmphex (data[2], ==, length > 2 ? 0x15 : 0x1d);
    data[2] = all[2];
    g_assert_cmpmem (data, sizeof data, all, sizeof all);
  }
  hf_pr_in_encode (HF_PR_IN_READ_KEYS, 8, request.cdb);
  g_assert_false (hf_mask_capabilities (&request, data, sizeof data));
  g_assert_cmpmem (data, sizeof data, all, sizeof all);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/prhelper/own-command/out", test_out);
  g_test_add_func ("/prhelper/own-command/preempt-type", test_preempt_type);
  g_test_add_func ("/prhelper/own-command/in", test_in);
  g_test_add_func ("/prhelper/own-command/mask", test_mask);
  return g_test_run ();
}
