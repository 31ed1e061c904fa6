/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What HfLu adds to every transport: retries, unit attentions, injected failures, counting, identity. The device is a script. */

#include "config.h"

#include "../fake/scripted-transport.h"
#include "base/fail.h"

#include <string.h>

static const HfScriptStep GOOD = { .status = HF_SAM_GOOD };
#define UNIT_ATTENTION(asc_ascq)                                                                                                 \
  {                                                                                                                              \
    .status = HF_SAM_CHECK_CONDITION, .unit_attention = asc_ascq                                                                 \
  }

static HfScsiCommand
test_unit_ready (HfScsiFlags flags)
{
  return (HfScsiCommand){ .cdb_length = 6, .flags = flags, .timeout_ms = 5000, .step = "register" };
}

/* The caller that asked for it never sees a unit attention as the answer, but all of them in the list. */
static void
test_retry_unit_attention (void)
{
  static const HfScriptStep steps[] = { UNIT_ATTENTION (0x2900), UNIT_ATTENTION (0x2a05), { .status = HF_SAM_GOOD } };
  HfScript *script = hf_script_new (steps, G_N_ELEMENTS (steps), NULL);
  g_autoptr (HfLu) lu = hf_lu_new_for_transport (&script->transport, "script", 0);
  g_autoptr (GError) error = NULL;
  HfScsiCommand command = test_unit_ready (HF_SCSI_RETRY);
  HfScsiResult result;

  g_assert_true (hf_lu_execute (lu, &command, &result, &error));
  g_assert_no_error (error);
  g_assert_cmpuint (result.status, ==, HF_SAM_GOOD);
  g_assert_cmpuint (result.sense_length, ==, 0);
  g_assert_cmpuint (result.attempts, ==, 3);
  g_assert_cmpuint (hf_lu_get_commands (lu), ==, 3);
  g_assert_cmpuint (result.n_unit_attentions, ==, 2);
  g_assert_cmphex (result.unit_attentions[0], ==, 0x2900);
  g_assert_cmphex (result.unit_attentions[1], ==, 0x2a05);
  /* One deadline for all attempts. */
  g_assert_cmpint (script->deadlines[0], ==, script->deadlines[2]);
}

/* Without the flag the answer is handed on at once, and still counted as a unit attention. */
static void
test_plain_unit_attention (void)
{
  static const HfScriptStep steps[] = { UNIT_ATTENTION (0x2a03), { .status = HF_SAM_GOOD } };
  HfScript *script = hf_script_new (steps, G_N_ELEMENTS (steps), NULL);
  g_autoptr (HfLu) lu = hf_lu_new_for_transport (&script->transport, "script", 0);
  HfScsiCommand command = test_unit_ready (HF_SCSI_PLAIN);
  HfScsiResult result;

  g_assert_true (hf_lu_execute (lu, &command, &result, NULL));
  g_assert_cmpuint (result.status, ==, HF_SAM_CHECK_CONDITION);
  g_assert_cmpuint (result.sense_length, ==, 18);
  g_assert_cmpuint (result.attempts, ==, 1);
  g_assert_cmpuint (result.n_unit_attentions, ==, 1);
  g_assert_cmphex (result.unit_attentions[0], ==, 0x2a03);
  g_assert_cmpuint (script->n_executed, ==, 1);
}

static void
test_retry_busy_then_conflict (void)
{
  static const HfScriptStep steps[] = { { .status = HF_SAM_BUSY },
                                        { .status = HF_SAM_TASK_SET_FULL },
                                        { .status = HF_SAM_RESERVATION_CONFLICT } };
  HfScript *script = hf_script_new (steps, G_N_ELEMENTS (steps), NULL);
  g_autoptr (HfLu) lu = hf_lu_new_for_transport (&script->transport, "script", 0);
  HfScsiCommand command = test_unit_ready (HF_SCSI_RETRY);
  HfScsiResult result;

  g_assert_true (hf_lu_execute (lu, &command, &result, NULL));
  g_assert_cmpuint (result.status, ==, HF_SAM_RESERVATION_CONFLICT);
  g_assert_cmpuint (result.attempts, ==, 3);
  g_assert_cmpuint (result.n_unit_attentions, ==, 0);
}

/* CHECK CONDITION that is no unit attention, and RESERVATION CONFLICT, are answers: repeating them would change nothing. */
static void
test_final_answers_are_not_repeated (void)
{
  static const HfScriptStep steps[] = { { .status = HF_SAM_CHECK_CONDITION },
                                        { .status = HF_SAM_RESERVATION_CONFLICT },
                                        { .status = HF_SAM_TASK_ABORTED },
                                        { .status = HF_SAM_ACA_ACTIVE } };
  HfScript *script = hf_script_new (steps, G_N_ELEMENTS (steps), NULL);
  g_autoptr (HfLu) lu = hf_lu_new_for_transport (&script->transport, "script", 0);
  HfScsiCommand command = test_unit_ready (HF_SCSI_RETRY);

  for (guint i = 0; i < G_N_ELEMENTS (steps); i++) {
    HfScsiResult result;

    g_assert_true (hf_lu_execute (lu, &command, &result, NULL));
    g_assert_cmpuint (result.status, ==, steps[i].status);
    g_assert_cmpuint (result.attempts, ==, 1);
  }
}

/* The last answer counts when the deadline has passed; it is not turned into an error, and the device is not hammered. */
static void
check_until_deadline (const HfScriptStep *step)
{
  HfScript *script = hf_script_new (step, 1, NULL);
  g_autoptr (HfLu) lu = hf_lu_new_for_transport (&script->transport, "script", 0);
  g_autoptr (GError) error = NULL;
  HfScsiCommand command = test_unit_ready (HF_SCSI_RETRY);
  HfScsiResult result;
  gint64 begin = g_get_monotonic_time ();

  command.timeout_ms = 100;
  g_assert_true (hf_lu_execute (lu, &command, &result, &error));
  g_assert_no_error (error);
  g_assert_cmpuint (result.status, ==, step->status);
  g_assert_cmpuint (result.attempts, >, 3);
  g_assert_cmpuint (result.attempts, <, 60);
  g_assert_cmpint (g_get_monotonic_time () - begin, <, 5 * G_USEC_PER_SEC);
  if (step->unit_attention) {
    g_assert_cmpuint (result.n_unit_attentions, ==, result.attempts);
    g_assert_cmphex (result.unit_attentions[HF_SCSI_UA_MAX - 1], ==, step->unit_attention);
  }
}

static void
test_until_deadline (void)
{
  static const HfScriptStep busy = { .status = HF_SAM_BUSY };
  static const HfScriptStep unit_attention = UNIT_ATTENTION (0x2900);

  check_until_deadline (&busy);
  check_until_deadline (&unit_attention);
}

/* What was seen before the link was lost is not lost with it. */
static void
test_error_after_unit_attention (void)
{
  static const HfScriptStep steps[] = { UNIT_ATTENTION (0x2a05), { .fails = TRUE, .error = HF_SCSI_ERROR_LINK } };
  HfScript *script = hf_script_new (steps, G_N_ELEMENTS (steps), NULL);
  g_autoptr (HfLu) lu = hf_lu_new_for_transport (&script->transport, "script", 0);
  g_autoptr (GError) error = NULL;
  HfScsiCommand command = test_unit_ready (HF_SCSI_RETRY);
  HfScsiResult result;

  g_assert_false (hf_lu_execute (lu, &command, &result, &error));
  g_assert_error (error, HF_SCSI_ERROR, HF_SCSI_ERROR_LINK);
  g_assert_cmpuint (script->n_executed, ==, 2);
  g_assert_cmpuint (result.n_unit_attentions, ==, 1);
}

static void
test_refused_commands (void)
{
  static const HfScsiCommand commands[] = {
    { .cdb_length = 0 },
    { .cdb_length = 7 },
    { .cdb_length = 32 },
    { .cdb_length = 6, .direction = HF_SCSI_NO_DATA, .data = (void *)"x", .data_length = 1 },
    { .cdb_length = 6, .direction = HF_SCSI_FROM_DEVICE, .data_length = 1 },
    { .cdb_length = 6, .direction = HF_SCSI_TO_DEVICE, .data = (void *)"x", .data_length = HF_SCSI_DATA_MAX + 1 },
  };
  HfScript *script = hf_script_new (&GOOD, 1, NULL);
  g_autoptr (HfLu) lu = hf_lu_new_for_transport (&script->transport, "script", 0);

  for (guint i = 0; i < G_N_ELEMENTS (commands); i++) {
    g_autoptr (GError) error = NULL;
    HfScsiResult result;

    g_assert_false (hf_lu_execute (lu, &commands[i], &result, &error));
    g_assert_error (error, HF_SCSI_ERROR, HF_SCSI_ERROR_ADDRESS);
  }
  g_assert_cmpuint (script->n_executed, ==, 0);
}

/* ---- injected failures ---- */

typedef struct {
  const char *specification;
  gboolean ok;
  int error;      /* !ok */
  guint8 status;  /* ok */
  guint executed; /* by the device */
  guint dropped;
} InjectCase;

static void
test_injected (void)
{
  static const InjectCase cases[] = {
    { "before-register=link", FALSE, HF_SCSI_ERROR_LINK, 0, 0, 1 },
    { "after-register=link", FALSE, HF_SCSI_ERROR_LINK, 0, 1, 1 },
    { "before-register=timeout", FALSE, HF_SCSI_ERROR_TIMEOUT, 0, 0, 1 },
    { "after-register=timeout", FALSE, HF_SCSI_ERROR_TIMEOUT, 0, 1, 1 },
    { "before-register=busy", TRUE, 0, HF_SAM_BUSY, 0, 0 },
    { "before-register=task-set-full", TRUE, 0, HF_SAM_TASK_SET_FULL, 0, 0 },
    { "before-register=conflict", TRUE, 0, HF_SAM_RESERVATION_CONFLICT, 0, 0 },
    { "before-register=unit-attention:2a04", TRUE, 0, HF_SAM_CHECK_CONDITION, 0, 0 },
    { "before-register=delay:1", TRUE, 0, HF_SAM_GOOD, 1, 0 },
    { "before-command=link", FALSE, HF_SCSI_ERROR_LINK, 0, 0, 1 },
    { "before-release=link", TRUE, 0, HF_SAM_GOOD, 1, 0 },
  };

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    HfScript *script = hf_script_new (&GOOD, 1, NULL);
    g_autoptr (HfLu) lu = hf_lu_new_for_transport (&script->transport, "script", 0);
    g_autoptr (GError) error = NULL;
    HfScsiCommand command = test_unit_ready (HF_SCSI_PLAIN);
    HfScsiResult result;

    g_test_message ("%s", cases[i].specification);
    g_assert_true (hf_fail_set (cases[i].specification, NULL));
    g_assert_cmpint (hf_lu_execute (lu, &command, &result, &error), ==, cases[i].ok);
    if (cases[i].ok)
      g_assert_cmpuint (result.status, ==, cases[i].status);
    else
      g_assert_error (error, HF_SCSI_ERROR, cases[i].error);
    g_assert_cmpuint (script->n_executed, ==, cases[i].executed);
    g_assert_cmpuint (hf_lu_get_commands (lu), ==, cases[i].executed);
    g_assert_cmpuint (script->n_dropped, ==, cases[i].dropped);
    hf_fail_set (NULL, NULL);
  }
}

/* A made-up unit attention is retried like a real one. */
static void
test_injected_unit_attention_is_retried (void)
{
  HfScript *script = hf_script_new (&GOOD, 1, NULL);
  g_autoptr (HfLu) lu = hf_lu_new_for_transport (&script->transport, "script", 0);
  HfScsiCommand command = test_unit_ready (HF_SCSI_RETRY);
  HfScsiResult result;

  g_assert_true (hf_fail_set ("before-register#1=unit-attention", NULL));
  g_assert_true (hf_lu_execute (lu, &command, &result, NULL));
  hf_fail_set (NULL, NULL);
  g_assert_cmpuint (result.status, ==, HF_SAM_GOOD);
  g_assert_cmpuint (result.n_unit_attentions, ==, 1);
  g_assert_cmphex (result.unit_attentions[0], ==, 0x2a03);
  g_assert_cmpuint (script->n_executed, ==, 1);
}

/* An injected error that follows the transport's own replaces it: GError must not be set twice. */
static void
test_injected_over_error (void)
{
  static const HfScriptStep lost = { .fails = TRUE, .error = HF_SCSI_ERROR_LINK };
  HfScript *script = hf_script_new (&lost, 1, NULL);
  g_autoptr (HfLu) lu = hf_lu_new_for_transport (&script->transport, "script", 0);
  g_autoptr (GError) error = NULL;
  HfScsiCommand command = test_unit_ready (HF_SCSI_PLAIN);
  HfScsiResult result;

  g_assert_true (hf_fail_set ("after-register=timeout", NULL));
  g_assert_false (hf_lu_execute (lu, &command, &result, &error));
  hf_fail_set (NULL, NULL);
  g_assert_error (error, HF_SCSI_ERROR, HF_SCSI_ERROR_TIMEOUT);
}

/* ---- identity ---- */

static const guint8 page_83[] = {
  0x00, 0x83, 0x00, 20, 0x01, 0x03, 0x00, 8, 0x60, 1, 2, 3, 4, 5, 6, 7, /* NAA */
  0x01, 0x14, 0x00, 4,  0,    0,    0,    9,                            /* relative target port 9 */
};
static const guint8 page_83_empty[] = { 0x00, 0x83, 0x00, 8, 0x01, 0x14, 0x00, 4, 0, 0, 0, 9 };
static const guint8 page_80[] = { 0x00, 0x80, 0x00, 6, ' ', 'S', 'N', '1', ' ', ' ' };

static void
test_identity (void)
{
  static const HfScriptStep steps[] = { UNIT_ATTENTION (0x2900), { .data = page_83, .length = sizeof page_83 } };
  HfScript *script = hf_script_new (steps, G_N_ELEMENTS (steps), NULL);
  g_autoptr (HfLu) lu = hf_lu_new_for_transport (&script->transport, "script", 0);
  g_autoptr (GError) error = NULL;
  g_autofree char *text = NULL;
  const HfLuIdentity *identity;

  g_assert_cmpuint (hf_lu_get_nexus (lu)->transport_id.length, ==, 24);
  g_assert_cmpuint (hf_lu_get_nexus (lu)->relative_target_port, ==, 0);
  identity = hf_lu_get_identity (lu, &error);
  g_assert_no_error (error);
  text = hf_lu_identity_to_string (identity);
  g_assert_cmpstr (text, ==, "naa.6001020304050607");
  g_assert_cmpuint (hf_lu_get_nexus (lu)->relative_target_port, ==, 9);
  g_assert_cmphex (script->cdbs[1][0], ==, 0x12);
  g_assert_cmphex (script->cdbs[1][2], ==, 0x83);
  /* From memory. */
  g_assert_true (hf_lu_get_identity (lu, NULL) == identity);
  g_assert_cmpuint (script->n_executed, ==, 2);
}

static void
check_falls_back_to_serial (const HfScriptStep *first)
{
  HfScriptStep steps[] = { *first, { .data = page_80, .length = sizeof page_80 } };
  HfScript *script = hf_script_new (steps, G_N_ELEMENTS (steps), NULL);
  g_autoptr (HfLu) lu = hf_lu_new_for_transport (&script->transport, "script", 0);
  g_autoptr (GError) error = NULL;
  const HfLuIdentity *identity = hf_lu_get_identity (lu, &error);

  g_assert_no_error (error);
  g_assert_cmpstr (identity->serial, ==, "SN1");
  g_assert_cmpuint (identity->n_designators, ==, 0);
  g_assert_cmphex (script->cdbs[1][2], ==, 0x80);
}

static void
test_identity_falls_back_to_serial (void)
{
  static const HfScriptStep refused = { .status = HF_SAM_CHECK_CONDITION };
  static const HfScriptStep empty = { .data = page_83_empty, .length = sizeof page_83_empty };

  check_falls_back_to_serial (&refused);
  check_falls_back_to_serial (&empty);
}

/* A page that lies about itself is an error, and no reason to fall back to a weaker identity. */
static void
test_identity_malformed (void)
{
  static const guint8 cut[] = { 0x00, 0x83, 0x00, 20, 0x01, 0x03, 0x00, 8 };
  static const HfScriptStep step = { .data = cut, .length = sizeof cut };
  HfScript *script = hf_script_new (&step, 1, NULL);
  g_autoptr (HfLu) lu = hf_lu_new_for_transport (&script->transport, "script", 0);
  g_autoptr (GError) error = NULL;

  g_assert_null (hf_lu_get_identity (lu, &error));
  g_assert_error (error, HF_SCSI_ERROR, HF_SCSI_ERROR_ANSWER);
  g_assert_cmpuint (script->n_executed, ==, 1);
}

static void
test_identity_conflict_is_an_error (void)
{
  static const HfScriptStep step = { .status = HF_SAM_RESERVATION_CONFLICT };
  HfScript *script = hf_script_new (&step, 1, NULL);
  g_autoptr (HfLu) lu = hf_lu_new_for_transport (&script->transport, "script", 0);
  g_autoptr (GError) error = NULL;

  g_assert_null (hf_lu_get_identity (lu, &error));
  g_assert_error (error, HF_SCSI_ERROR, HF_SCSI_ERROR_STATUS);
  g_assert_cmpint (hf_scsi_error_to_exit_code (error), ==, 24);
  g_assert_nonnull (strstr (error->message, "RESERVATION CONFLICT"));
  g_assert_cmpuint (script->n_executed, ==, 1);
}

/* Nothing there: said so after one INQUIRY, and not after the answer to another page. */
static void
test_identity_of_nothing (void)
{
  static const guint8 nothing[] = { 0x7f, 0x83, 0x00, 0 };
  static const HfScriptStep step = { .data = nothing, .length = sizeof nothing };
  HfScript *script = hf_script_new (&step, 1, NULL);
  g_autoptr (HfLu) lu = hf_lu_new_for_transport (&script->transport, "script", 0);
  g_autoptr (GError) error = NULL;

  g_assert_null (hf_lu_get_identity (lu, &error));
  g_assert_error (error, HF_SCSI_ERROR, HF_SCSI_ERROR_IDENTITY);
  g_assert_nonnull (strstr (error->message, "no logical unit at this address"));
  g_assert_cmpuint (script->n_executed, ==, 1);
}

/* A page longer than the first buffer is read again as a whole: the strongest designator may be the last. */
static void
test_identity_long_page (void)
{
  g_autoptr (GByteArray) page = g_byte_array_new ();
  guint8 vendor[4 + 255] = { 0x02, 0x01, 0x00, 255 };
  HfScriptStep step = { 0 };
  HfScript *script = hf_script_new (&step, 1, NULL);
  g_autoptr (HfLu) lu = hf_lu_new_for_transport (&script->transport, "script", 0);
  g_autoptr (GError) error = NULL;
  g_autofree char *text = NULL;

  g_byte_array_append (page, page_83, 4);
  for (guint i = 0; i < 5; i++) {
    memset (vendor + 4, 'a' + i, 255);
    g_byte_array_append (page, vendor, sizeof vendor);
  }
  g_byte_array_append (page, page_83 + 4, 12);
  page->data[2] = (page->len - 4) >> 8;
  page->data[3] = (page->len - 4) & 0xff;
  step.data = page->data;
  step.length = page->len;

  g_assert_nonnull (hf_lu_get_identity (lu, &error));
  g_assert_no_error (error);
  text = hf_lu_identity_to_string (hf_lu_get_identity (lu, NULL));
  g_assert_cmpstr (text, ==, "naa.6001020304050607");
  g_assert_cmpuint (script->n_executed, ==, 2);
  g_assert_cmpuint (hf_lu_get_commands (lu), ==, 2);
}

static void
test_free (void)
{
  gboolean freed = FALSE;
  HfScript *script = hf_script_new (&GOOD, 1, &freed);

  hf_lu_free (hf_lu_new_for_transport (&script->transport, "script", 0));
  g_assert_true (freed);
  hf_lu_free (NULL);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/lu/retry-unit-attention", test_retry_unit_attention);
  g_test_add_func ("/lu/plain-unit-attention", test_plain_unit_attention);
  g_test_add_func ("/lu/retry-busy-then-conflict", test_retry_busy_then_conflict);
  g_test_add_func ("/lu/final-answers-are-not-repeated", test_final_answers_are_not_repeated);
  g_test_add_func ("/lu/until-deadline", test_until_deadline);
  g_test_add_func ("/lu/error-after-unit-attention", test_error_after_unit_attention);
  g_test_add_func ("/lu/refused-commands", test_refused_commands);
  g_test_add_func ("/lu/injected", test_injected);
  g_test_add_func ("/lu/injected-unit-attention-is-retried", test_injected_unit_attention_is_retried);
  g_test_add_func ("/lu/injected-over-error", test_injected_over_error);
  g_test_add_func ("/lu/identity", test_identity);
  g_test_add_func ("/lu/identity-falls-back-to-serial", test_identity_falls_back_to_serial);
  g_test_add_func ("/lu/identity-malformed", test_identity_malformed);
  g_test_add_func ("/lu/identity-conflict-is-an-error", test_identity_conflict_is_an_error);
  g_test_add_func ("/lu/identity-of-nothing", test_identity_of_nothing);
  g_test_add_func ("/lu/identity-long-page", test_identity_long_page);
  g_test_add_func ("/lu/free", test_free);
  return g_test_run ();
}
