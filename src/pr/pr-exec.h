/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Persistent reservation commands on an LU: one command, one picture. On failure it keeps the step and the device's
 * answer.
 *
 * Thread: that of the LU.
 */

#include <holdfast/move.h>

/* Exit codes of sg3_utils for what is no device's answer (sg3_utils(8)). */
enum { HF_SG_EXIT_SYNTAX = 1, HF_SG_EXIT_FILE = 15, HF_SG_EXIT_TIMEOUT = 33, HF_SG_EXIT_MALFORMED = 97, HF_SG_EXIT_OTHER = 99 };

typedef struct {
  HfLu *lu;
  gint64 deadline;         /* g_get_monotonic_time scale; 0: the LU's own for each command */
  gboolean no_full_status; /* learnt: READ FULL STATUS is not supported here */
  HfUnitError failure;     /* of the last call that returned FALSE; hf_unit_error_clear */
} HfPrExec;

/* FALSE with failure filled if the LU gave no answer. */
gboolean hf_pr_exec_out (HfPrExec *exec, const char *step, const HfPrOut *out, HfScsiFlags flags, HfScsiResult *ret_result);

/* Twice: where one command does not give the whole picture, READ KEYS is repeated behind READ RESERVATION and must be equal.
   Otherwise equal generations do. FALSE with failure filled. */
typedef enum { HF_OBSERVE_ONCE, HF_OBSERVE_TWICE } HfObserve;
gboolean hf_pr_exec_observe (HfPrExec *exec, const char *step, HfObserve observe, HfPrObservation *ret);

/* FALSE with failure filled. A target that does not know REPORT CAPABILITIES has none: TRUE and zeroes. */
gboolean hf_pr_exec_capabilities (HfPrExec *exec, HfPrCapabilities *ret);

/* Fills error, which must be empty. result NULL: the LU gave no answer. exit_code 0: that of result. */
void hf_unit_error_set (HfUnitError *error, const char *step, const HfScsiResult *result, int exit_code, const char *format, ...)
    G_GNUC_PRINTF (5, 6);
