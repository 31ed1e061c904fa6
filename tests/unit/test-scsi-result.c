/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A device's answer in words and exit codes, with sense data in both formats, cut, and without meaning. */

#include "config.h"

#include "scsi/transport.h"

#include <errno.h>
#include <string.h>

typedef struct {
  guint8 status;
  guint8 sense_length;
  guint8 sense[20];
  const char *text;
  int exit_code;
} Case;

/* Exit codes: sg3_utils(8), EXIT STATUS. */
static const Case cases[] = {
  { HF_SAM_GOOD, 0, { 0 }, "GOOD", 0 },
  { HF_SAM_CONDITION_MET, 0, { 0 }, "CONDITION MET", 25 },
  { HF_SAM_BUSY, 0, { 0 }, "BUSY", 26 },
  { HF_SAM_RESERVATION_CONFLICT, 0, { 0 }, "RESERVATION CONFLICT", 24 },
  { HF_SAM_TASK_SET_FULL, 0, { 0 }, "TASK SET FULL", 27 },
  { HF_SAM_ACA_ACTIVE, 0, { 0 }, "ACA ACTIVE", 28 },
  { HF_SAM_TASK_ABORTED, 0, { 0 }, "TASK ABORTED", 29 },
  { 0x7e, 0, { 0 }, "status 0x7e", 99 },
  { HF_SAM_CHECK_CONDITION,
    18,
    { 0x70, 0, 6, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x2a, 0x05 },
    "CHECK CONDITION 6/2a05 (Registrations preempted)",
    6 },
  { HF_SAM_CHECK_CONDITION, 8, { 0x72, 6, 0x2a, 0x03 }, "CHECK CONDITION 6/2a03 (Reservations preempted)", 6 },
  { HF_SAM_CHECK_CONDITION,
    18,
    { 0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x24, 0 },
    "CHECK CONDITION 5/2400 (Invalid field in cdb)",
    5 },
  { HF_SAM_CHECK_CONDITION,
    18,
    { 0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x20, 0 },
    "CHECK CONDITION 5/2000 (Invalid command operation code)",
    9 },
  { HF_SAM_CHECK_CONDITION,
    18,
    { 0x70, 0, 2, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x08, 0 },
    "CHECK CONDITION 2/0800 (Logical unit communication failure)",
    2 },
  { HF_SAM_CHECK_CONDITION, 18, { 0x70, 0, 11, 0, 0, 0, 0, 10 }, "CHECK CONDITION b/0000 (No additional sense information)", 11 },
  { HF_SAM_CHECK_CONDITION, 0, { 0 }, "CHECK CONDITION without sense data", 98 },
  { HF_SAM_CHECK_CONDITION, 18, { 0x11, 0x22 }, "CHECK CONDITION without sense data", 98 },
};

static void
fill (const Case *one, HfScsiResult *ret)
{
  memset (ret, 0, sizeof *ret);
  ret->status = one->status;
  ret->sense_length = one->sense_length;
  memcpy (ret->sense, one->sense, sizeof one->sense);
}

static void
test_text_and_exit_code (void)
{
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autofree char *text = NULL;
    HfScsiResult result;

    fill (&cases[i], &result);
    text = hf_scsi_result_to_string (&result);
    g_assert_cmpstr (text, ==, cases[i].text);
    g_assert_cmpint (hf_scsi_result_to_exit_code (&result), ==, cases[i].exit_code);
  }
}

static void
test_sense (void)
{
  HfScsiResult result;
  guint16 asc_ascq = 0;
  guint8 key = 0;

  fill (&cases[8], &result);
  g_assert_true (hf_scsi_result_get_sense (&result, &key, &asc_ascq));
  g_assert_cmpuint (key, ==, 6);
  g_assert_cmphex (asc_ascq, ==, 0x2a05);
  fill (&cases[9], &result);
  g_assert_true (hf_scsi_result_get_sense (&result, &key, &asc_ascq));
  g_assert_cmphex (asc_ascq, ==, 0x2a03);
  /* Old bytes in the buffer are no sense data of this answer. */
  result.status = HF_SAM_GOOD;
  g_assert_false (hf_scsi_result_get_sense (&result, &key, &asc_ascq));
  result.status = HF_SAM_CHECK_CONDITION;
  result.sense_length = 0;
  g_assert_false (hf_scsi_result_get_sense (&result, NULL, NULL));
}

/* Any length of any bytes gives some text and some code. */
static void
test_any_sense (void)
{
  HfScsiResult result = { .status = HF_SAM_CHECK_CONDITION };

  for (guint response = 0; response < 256; response++)
    for (guint length = 0; length < 256; length += 1 + length / 8) {
      g_autofree char *text = NULL;

      memset (result.sense, 0xff, sizeof result.sense);
      result.sense[0] = response;
      result.sense_length = length;
      text = hf_scsi_result_to_string (&result);
      g_assert_true (g_str_has_prefix (text, "CHECK CONDITION"));
      g_assert_cmpint (hf_scsi_result_to_exit_code (&result), >, 0);
    }
}

static void
test_error_exit_codes (void)
{
  static const struct {
    int code, exit_code;
  } errors[] = { { HF_SCSI_ERROR_ADDRESS, 15 },   { HF_SCSI_ERROR_OPEN, 15 },   { HF_SCSI_ERROR_LINK, 99 },
                 { HF_SCSI_ERROR_TIMEOUT, 33 },   { HF_SCSI_ERROR_ANSWER, 97 }, { HF_SCSI_ERROR_IDENTITY, 99 },
                 { HF_SCSI_ERROR_NOT_FOUND, 15 }, { HF_SCSI_ERROR_STATUS, 99 } };
  g_autoptr (GError) other = g_error_new_literal (G_OPTION_ERROR, 0, "other");

  for (guint i = 0; i < G_N_ELEMENTS (errors); i++) {
    g_autoptr (GError) error = g_error_new_literal (HF_SCSI_ERROR, errors[i].code, "text");

    g_assert_cmpint (hf_scsi_error_to_exit_code (error), ==, errors[i].exit_code);
  }
  g_assert_cmpint (hf_scsi_error_to_exit_code (other), ==, 99);
}

/* sg3_utils: 50 + errno of the operating system, 1 for a mistake in the words, the answer's own. Copies know it too. */
static void
test_error_details (void)
{
  const HfScsiResult busy = { .status = HF_SAM_BUSY };
  g_autoptr (GError) error = g_error_new_literal (HF_SCSI_ERROR, HF_SCSI_ERROR_LINK, "text");
  g_autoptr (GError) copy = NULL;

  hf_scsi_error_set_errno (NULL, ENOTTY);
  hf_scsi_error_set_errno (&error, ENOTTY);
  g_assert_cmpint (hf_scsi_error_to_exit_code (error), ==, 75);
  g_assert_null (hf_scsi_error_get_result (error));
  hf_scsi_error_set_syntax (&error);
  g_assert_cmpint (hf_scsi_error_to_exit_code (error), ==, 1);
  hf_scsi_error_set_result (&error, &busy);
  copy = g_error_copy (error);
  g_clear_error (&error);
  g_assert_cmpint (hf_scsi_error_to_exit_code (copy), ==, 26);
  g_assert_cmpuint (hf_scsi_error_get_result (copy)->status, ==, HF_SAM_BUSY);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/scsi-result/text-and-exit-code", test_text_and_exit_code);
  g_test_add_func ("/scsi-result/sense", test_sense);
  g_test_add_func ("/scsi-result/any-sense", test_any_sense);
  g_test_add_func ("/scsi-result/error-exit-codes", test_error_exit_codes);
  g_test_add_func ("/scsi-result/error-details", test_error_details);
  return g_test_run ();
}
