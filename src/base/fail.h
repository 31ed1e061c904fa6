/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Named points at which a test makes holdfast stop, die or see a misbehaving device. Without HOLDFAST_FAIL they cost one load.
 *
 * HOLDFAST_FAIL=POINT[#N]=ACTION[:ARGUMENT][,...]
 *   POINT   before-STEP or after-STEP, where STEP is what the code is doing ("register", "take-over", "journal-write" ...);
 *           before-command and after-command match every SCSI command (not the journal, not files)
 *   #N      only the Nth time the point is reached (from 1); without it every time
 *   ACTION  stop (SIGSTOP), kill (SIGKILL), link (the link is lost: before: not sent, after: executed, answer lost), timeout
 * (same, as a deadline that passed), unit-attention[:2A03] (answered instead of executed), busy, task-set-full, conflict
 *           (answered instead of executed), error[:ERRNO-NAME] (I/O error; not of SCSI commands), delay:MS, and of the transfers
 *           before-stream-read and before-stream-write only: short[:BYTES] (at most so many bytes are moved, 1 by default), zero
 *           (the call moves nothing and names no error). Retried transfers reach their point again.
 * HOLDFAST_FAIL_LOG=FILE appends one line with the name of every point reached, so that a suite can prove that it met them all.
 *
 * Thread: any. A malformed specification is refused by hf_fail_set, so a typo cannot make a test pass.
 */

#include <glib.h>

typedef enum {
  HF_FAIL_NOTHING,
  HF_FAIL_STOP,
  HF_FAIL_KILL,
  HF_FAIL_LINK,
  HF_FAIL_TIMEOUT,
  HF_FAIL_UNIT_ATTENTION,
  HF_FAIL_BUSY,
  HF_FAIL_TASK_SET_FULL,
  HF_FAIL_CONFLICT,
  HF_FAIL_ERROR,
  HF_FAIL_DELAY,
  HF_FAIL_SHORT,
  HF_FAIL_ZERO
} HfFailAction;
#define HF_N_FAIL_ACTIONS (HF_FAIL_ZERO + 1)

/* The steps that there are: those that send a SCSI command, others (the journal, files), and single reads and writes (may be
   NULL: none). Each ends with NULL, is static, and from now on nothing else is accepted. Without this call every step is. */
void hf_fail_set_steps (const char *const *commands, const char *const *others, const char *const *transfers);

/* Replaces the whole specification; NULL or "" clears it; counters start again. FALSE with G_OPTION_ERROR_BAD_VALUE. */
gboolean hf_fail_set (const char *specification, GError **error);

/* hf_fail_set from the environment. Call once at the start of main; the library itself does it at the first hf_lu_open, and
   ignores a malformed value with a warning. */
gboolean hf_fail_init (GError **error);

/* hf_fail_init, unless hf_fail_init or hf_fail_set was called before; a malformed value is ignored with a warning. */
void hf_fail_init_once (void);

/* The point WHEN-STEP was reached (when: "before" or "after"). Stop, kill and delay are done here and give HF_FAIL_NOTHING; the
   others are for the caller to act out. command: TRUE for a SCSI command, so that before-command matches. ret_argument (may be
   NULL): ASC and ASCQ, an errno value, or bytes. */
HfFailAction hf_fail_point (const char *when, const char *step, gboolean command, guint *ret_argument);
