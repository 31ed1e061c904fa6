/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Sends PERSISTENT RESERVE IN and OUT and puts the answers together. Thread: that of the LU.
 *
 * Theory of operation. READ FULL STATUS shows registrations and reservation in one answer. Where it is not supported READ KEYS
 * and READ RESERVATION are two answers, and the world may change between them: PRGENERATION, which both carry, catches PREEMPT,
 * CLEAR and new keys, but not a key that left or the reservation itself (SPC-4 5.9.6), so a picture that others decide by reads
 * the keys twice.
 */

#include "pr/pr-exec.h"

#include <string.h>

#define READ_LENGTH 8192u      /* what QEMU's pr-helper protocol allows: 1023 keys; old LIO cuts ADDITIONAL LENGTH to less */
#define READ_LENGTH_MAX 65535u /* ALLOCATION LENGTH has 16 bits */
#define READ_ATTEMPTS 5

void
hf_unit_error_set (HfUnitError *error, const char *step, const HfScsiResult *result, int exit_code, const char *format, ...)
{
  va_list arguments;
  hf_unit_error_clear (error);
  error->step = g_strdup (step);
  va_start (arguments, format);
  error->text = g_strdup_vprintf (format, arguments);
  va_end (arguments);
  if (result != NULL) {
    error->answered = TRUE;
    error->result = *result;
    if (exit_code == 0)
      exit_code = hf_scsi_result_to_exit_code (result);
  }
  error->exit_code = exit_code != 0 ? exit_code : HF_SG_EXIT_OTHER;
}

void
hf_unit_error_clear (HfUnitError *error)
{
  g_free (error->step);
  g_free (error->text);
  memset (error, 0, sizeof *error);
}

static gboolean
run (HfPrExec *exec, HfScsiCommand *command, HfScsiResult *ret_result)
{
  g_autoptr (GError) error = NULL;
  if (exec->deadline != 0)
    command->timeout_ms = MAX (1, (exec->deadline - g_get_monotonic_time ()) / 1000);
  memset (ret_result, 0, sizeof *ret_result);
  if (hf_lu_execute (exec->lu, command, ret_result, &error))
    return TRUE;
  hf_unit_error_set (&exec->failure, command->step, NULL, hf_scsi_error_to_exit_code (error), "%s", error->message);
  return FALSE;
}

gboolean
hf_pr_exec_out (HfPrExec *exec, const char *step, const HfPrOut *out, HfScsiFlags flags, HfScsiResult *ret_result)
{
  g_autoptr (GError) error = NULL;
  HfScsiCommand command = { .cdb_length = 10, .direction = HF_SCSI_TO_DEVICE, .flags = flags, .step = step };
  g_autoptr (GByteArray) list = hf_pr_out_encode (out, command.cdb, &error);
  if (list == NULL) {
    hf_unit_error_set (&exec->failure, step, NULL, HF_SG_EXIT_SYNTAX, "%s", error->message);
    return FALSE;
  }
  command.data = list->data;
  command.data_length = list->len;
  return run (exec, &command, ret_result);
}

/* ---- reading ---- */

typedef enum { READ_OK, READ_UNSUPPORTED, READ_FAILED } ReadOutcome;

/* ILLEGAL REQUEST: the target does not know the service action (or not in this mode: LIO in pass-through says 5/2000). */
static gboolean
is_unsupported (const HfScsiResult *result)
{
  guint8 key = 0;
  return result->status == HF_SAM_CHECK_CONDITION && hf_scsi_result_get_sense (result, &key, NULL) && key == 5;
}

static ReadOutcome
read_once (HfPrExec *exec, const char *step, guint8 action, guint8 *buffer, guint length, HfScsiResult *result)
{
  HfScsiCommand command = { .cdb_length = 10, .direction = HF_SCSI_FROM_DEVICE, .data = buffer, .data_length = length };
  command.flags = HF_SCSI_RETRY;
  command.step = step;
  hf_pr_in_encode (action, length, command.cdb);
  memset (buffer, 0, length);
  if (!run (exec, &command, result))
    return READ_FAILED;
  if (result->status == HF_SAM_GOOD)
    return READ_OK;
  g_autofree char *text = hf_scsi_result_to_string (result);
  hf_unit_error_set (&exec->failure, step, result, 0, "%s: %s", hf_pr_in_action_to_string (action), text);
  return is_unsupported (result) ? READ_UNSUPPORTED : READ_FAILED;
}

static ReadOutcome
fail_malformed (HfPrExec *exec, const char *step, guint8 action, GError *error)
{
  hf_unit_error_set (&exec->failure, step, NULL, HF_SG_EXIT_MALFORMED, "%s: %s", hf_pr_in_action_to_string (action),
                     error->message);
  g_error_free (error);
  return READ_FAILED;
}

static ReadOutcome
fail_too_long (HfPrExec *exec, const char *step, guint8 action, guint32 length)
{
  hf_unit_error_set (&exec->failure, step, NULL, HF_SG_EXIT_MALFORMED,
                     "%s: the list has %u bytes, one command carries at most %u", hf_pr_in_action_to_string (action), length,
                     READ_LENGTH_MAX);
  return READ_FAILED;
}

static ReadOutcome
read_keys (HfPrExec *exec, const char *step, HfPrKeys *ret)
{
  g_autofree guint8 *buffer = g_malloc (READ_LENGTH_MAX);
  GError *error = NULL;
  HfScsiResult result;
  for (guint length = READ_LENGTH;; length = READ_LENGTH_MAX) {
    ReadOutcome outcome = read_once (exec, step, HF_PR_IN_READ_KEYS, buffer, length, &result);
    if (outcome != READ_OK)
      return outcome;
    if (!hf_pr_keys_decode (buffer, result.transferred, ret, &error))
      return fail_malformed (exec, step, HF_PR_IN_READ_KEYS, error);
    if (!ret->truncated)
      return READ_OK;
    guint32 wanted = ret->additional_length;
    hf_pr_keys_clear (ret);
    if (length == READ_LENGTH_MAX)
      return fail_too_long (exec, step, HF_PR_IN_READ_KEYS, wanted);
  }
}

/* LIO cuts ADDITIONAL LENGTH to the buffer here, so a list that leaves no room for one more registrant may be cut. */
static gboolean
may_be_cut (const HfPrFullStatus *status, guint length)
{
  const guint largest = 24 + HF_TRANSPORT_ID_MAX;
  return status->truncated || status->additional_length > length - 8 - largest;
}

static ReadOutcome
read_full_status (HfPrExec *exec, const char *step, HfPrFullStatus *ret)
{
  g_autofree guint8 *buffer = g_malloc (READ_LENGTH_MAX);
  GError *error = NULL;
  HfScsiResult result;
  for (guint length = READ_LENGTH;; length = READ_LENGTH_MAX) {
    ReadOutcome outcome = read_once (exec, step, HF_PR_IN_READ_FULL_STATUS, buffer, length, &result);
    if (outcome != READ_OK)
      return outcome;
    if (!hf_pr_full_status_decode (buffer, result.transferred, ret, &error))
      return fail_malformed (exec, step, HF_PR_IN_READ_FULL_STATUS, error);
    if (!may_be_cut (ret, length))
      return READ_OK;
    hf_pr_full_status_clear (ret);
    if (length == READ_LENGTH_MAX)
      return READ_UNSUPPORTED; /* too many registrants for one answer: READ KEYS still has room for them */
  }
}

static ReadOutcome
read_reservation (HfPrExec *exec, const char *step, HfPrReservation *ret)
{
  g_autofree guint8 *buffer = g_malloc (READ_LENGTH);
  GError *error = NULL;
  HfScsiResult result;
  ReadOutcome outcome = read_once (exec, step, HF_PR_IN_READ_RESERVATION, buffer, READ_LENGTH, &result);
  if (outcome != READ_OK)
    return outcome;
  if (!hf_pr_reservation_decode (buffer, result.transferred, ret, &error))
    return fail_malformed (exec, step, HF_PR_IN_READ_RESERVATION, error);
  return READ_OK;
}

/* Takes over what is in status. */
static void
take_full_status (HfPrFullStatus *status, HfPrObservation *ret)
{
  *ret = (HfPrObservation){ .generation = status->generation, .n_keys = status->n_registrants, .full = TRUE };
  ret->keys = g_new0 (guint64, status->n_registrants);
  ret->registrants = g_steal_pointer (&status->registrants);
  for (guint i = 0; i < ret->n_keys; i++) {
    const HfPrRegistrant *registrant = &ret->registrants[i];
    ret->keys[i] = registrant->key;
    if (!registrant->holder)
      continue;
    ret->reserved = TRUE;
    ret->scope = registrant->scope;
    ret->type = registrant->type;
    ret->holder_key = hf_pr_type_is_all_registrants (registrant->type) ? 0 : registrant->key;
  }
}

/* TRUE if the two (or three) answers fit together. Takes over the keys. */
static gboolean
take_keys (HfPrKeys *keys, const HfPrReservation *reservation, const HfPrKeys *again, HfPrObservation *ret)
{
  HfPrObservation first = { .generation = keys->generation, .n_keys = keys->n_keys, .keys = keys->keys };
  HfPrObservation second = { .generation = again->generation, .n_keys = again->n_keys, .keys = again->keys };
  if (keys->generation != reservation->generation || !hf_pr_observation_equal (&first, &second))
    return FALSE;
  *ret = first;
  keys->keys = NULL;
  ret->reserved = reservation->reserved;
  ret->holder_key = reservation->key;
  ret->scope = reservation->scope;
  ret->type = reservation->type;
  return TRUE;
}

static gboolean
observe_in_parts (HfPrExec *exec, const char *step, HfObserve observe, HfPrObservation *ret)
{
  for (guint i = 0; i < READ_ATTEMPTS; i++) {
    HfPrKeys keys = { 0 }, again = { 0 };
    HfPrReservation reservation = { 0 };
    gboolean read = read_keys (exec, step, &keys) == READ_OK && read_reservation (exec, step, &reservation) == READ_OK
                    && (observe == HF_OBSERVE_ONCE || read_keys (exec, step, &again) == READ_OK);
    gboolean fits = read && take_keys (&keys, &reservation, observe == HF_OBSERVE_ONCE ? &keys : &again, ret);
    hf_pr_keys_clear (&keys);
    hf_pr_keys_clear (&again);
    if (!read || fits)
      return fits;
  }
  hf_unit_error_set (&exec->failure, step, NULL, HF_SG_EXIT_OTHER, "the reservations changed during each of %u readings",
                     READ_ATTEMPTS);
  return FALSE;
}

gboolean
hf_pr_exec_observe (HfPrExec *exec, const char *step, HfObserve observe, HfPrObservation *ret)
{
  if (!exec->no_full_status) {
    HfPrFullStatus status = { 0 };
    ReadOutcome outcome = read_full_status (exec, step, &status);
    if (outcome == READ_FAILED)
      return FALSE;
    if (outcome == READ_OK) {
      take_full_status (&status, ret);
      hf_pr_full_status_clear (&status);
      return TRUE;
    }
    exec->no_full_status = TRUE;
    hf_unit_error_clear (&exec->failure);
  }
  return observe_in_parts (exec, step, observe, ret);
}

gboolean
hf_pr_exec_capabilities (HfPrExec *exec, HfPrCapabilities *ret)
{
  guint8 buffer[8];
  GError *error = NULL;
  HfScsiResult result;
  memset (ret, 0, sizeof *ret);
  ReadOutcome outcome = read_once (exec, "capabilities", HF_PR_IN_REPORT_CAPABILITIES, buffer, sizeof buffer, &result);
  if (outcome == READ_UNSUPPORTED) {
    hf_unit_error_clear (&exec->failure);
    return TRUE;
  }
  if (outcome == READ_OK && !hf_pr_capabilities_decode (buffer, result.transferred, ret, &error))
    outcome = fail_malformed (exec, "capabilities", HF_PR_IN_REPORT_CAPABILITIES, error);
  return outcome == READ_OK;
}

/* ---- the public forms ---- */

static gboolean
hand_over (HfPrExec *exec, gboolean done, HfUnitError *ret_failure, GError **error)
{
  if (!done)
    g_set_error (error, HF_PR_ERROR, HF_PR_ERROR_DEVICE, "%s: %s: %s", hf_lu_get_address (exec->lu), exec->failure.step,
                 exec->failure.text);
  if (!done && ret_failure != NULL)
    *ret_failure = exec->failure;
  else
    hf_unit_error_clear (&exec->failure);
  return done;
}

gboolean
hf_pr_observe (HfLu *lu, const char *step, HfPrObservation *ret, HfUnitError *ret_failure, GError **error)
{
  HfPrExec exec = { .lu = lu };
  gboolean done = hf_pr_exec_observe (&exec, step, HF_OBSERVE_TWICE, ret);
  return hand_over (&exec, done, ret_failure, error);
}

gboolean
hf_pr_send (HfLu *lu, const char *step, const HfPrOut *out, HfScsiFlags flags, HfScsiResult *ret_result, GError **error)
{
  HfScsiCommand command = { .cdb_length = 10, .direction = HF_SCSI_TO_DEVICE, .flags = flags, .step = step };
  g_autoptr (GByteArray) list = hf_pr_out_encode (out, command.cdb, error);
  if (list == NULL)
    return FALSE;
  command.data = list->data;
  command.data_length = list->len;
  return hf_lu_execute (lu, &command, ret_result, error);
}
