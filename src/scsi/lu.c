/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns a LU over some transport: what is the same for all of them, once. Retries, unit attentions, injected failures, counting,
 * identity.
 *
 * Thread: that of the caller; one at a time.
 *
 * Theory of operation: hf_lu_execute makes attempts until one counts. An attempt is: the point before-STEP, the transport, the
 * point after-STEP. A point may cut the link or replace the answer; a replaced answer was not sent and is not counted. With
 * HF_SCSI_RETRY an answer that SAM-5 calls transient is followed by the next attempt: UNIT ATTENTION at once (5.14: reporting it
 * has cleared it), BUSY and TASK SET FULL after a growing wait. All attempts share the deadline of the command.
 */

#include "config.h"

#include "base/deadline.h"
#include "base/fail.h"
#include "scsi/transport.h"

#include <string.h>

#define PAGE_LENGTH 1024
#define NO_LU 0x7f       /* SPC-4 6.6.2: PERIPHERAL QUALIFIER 011b, type 1Fh */
#define ASC_NO_LU 0x2500 /* LOGICAL UNIT NOT SUPPORTED */
#define WAIT_FIRST_MS 1
#define WAIT_MAX_MS 128
/* A target that raises unit attentions without end gets a wait between attempts like a busy one. */
#define UNIT_ATTENTIONS_AT_ONCE 16

struct _HfLu {
  HfTransport *transport;
  char *address;
  guint timeout_ms;
  guint commands;
  HfNexus nexus;
  HfLuIdentity identity;
  gboolean has_identity;
  guint n_unit_attentions; /* not taken yet, each once */
  guint16 unit_attentions[HF_SCSI_UA_MAX];
};

HfLu *
hf_lu_new_for_transport (HfTransport *transport, const char *address, guint timeout_ms)
{
  HfLu *lu = g_new0 (HfLu, 1);

  lu->transport = transport;
  lu->address = g_strdup (address);
  lu->timeout_ms = timeout_ms ?: HF_SCSI_TIMEOUT_DEFAULT_MS;
  transport->ops->get_transport_id (transport, &lu->nexus.transport_id);
  return lu;
}

HfLu *
hf_lu_open (const char *address, const HfLuOptions *options, GError **error)
{
  guint timeout_ms = options && options->timeout_ms ? options->timeout_ms : HF_SCSI_TIMEOUT_DEFAULT_MS;
  g_autofree char *printable = NULL;
  HfTransport *transport;

  hf_fail_init_once ();
  if (strstr (address, "://")) {
    transport = hf_transport_iscsi_open (address, options, &printable, error);
  } else {
    printable = g_strdup (address);
    transport = hf_transport_sgio_open (address, timeout_ms, error);
  }
  return transport ? hf_lu_new_for_transport (transport, printable, timeout_ms) : NULL;
}

void
hf_lu_free (HfLu *lu)
{
  if (!lu)
    return;
  lu->transport->ops->free (lu->transport);
  g_free (lu->address);
  g_free (lu);
}

const char *
hf_lu_get_address (HfLu *lu)
{
  return lu->address;
}

const HfNexus *
hf_lu_get_nexus (HfLu *lu)
{
  return &lu->nexus;
}

void
hf_lu_set_timeout (HfLu *lu, guint timeout_ms)
{
  lu->timeout_ms = timeout_ms ?: HF_SCSI_TIMEOUT_DEFAULT_MS;
}

guint
hf_lu_get_logins (HfLu *lu)
{
  return lu->transport->ops->get_logins != NULL ? lu->transport->ops->get_logins (lu->transport) : 0;
}

guint
hf_lu_take_unit_attentions (HfLu *lu, guint16 *ret)
{
  guint n = lu->n_unit_attentions;

  memcpy (ret, lu->unit_attentions, n * sizeof *ret);
  lu->n_unit_attentions = 0;
  return n;
}

static void
keep_unit_attention (HfLu *lu, guint16 asc_ascq)
{
  guint i = 0;

  while (i < lu->n_unit_attentions && lu->unit_attentions[i] != asc_ascq)
    i++;
  if (i < HF_SCSI_UA_MAX && i == lu->n_unit_attentions)
    lu->unit_attentions[lu->n_unit_attentions++] = asc_ascq;
}

guint
hf_lu_get_commands (HfLu *lu)
{
  return lu->commands;
}

/* ---- injected failures ---- */

typedef enum {
  INJECTED_NOTHING,
  INJECTED_ANSWER, /* the result was made up */
  INJECTED_ERROR   /* the link was cut */
} Injected;

static const guint8 injected_statuses[HF_N_FAIL_ACTIONS] = {
  [HF_FAIL_UNIT_ATTENTION] = HF_SAM_CHECK_CONDITION,
  [HF_FAIL_BUSY] = HF_SAM_BUSY,
  [HF_FAIL_TASK_SET_FULL] = HF_SAM_TASK_SET_FULL,
  [HF_FAIL_CONFLICT] = HF_SAM_RESERVATION_CONFLICT,
};

static void
make_up_answer (HfFailAction action, guint argument, const HfScsiCommand *command, HfScsiResult *ret)
{
  /* Fixed format, current, UNIT ATTENTION (SPC-4 4.5.3). */
  const guint8 sense[18] = { 0x70, 0, 6, 0, 0, 0, 0, 10, 0, 0, 0, 0, argument >> 8, argument & 0xff };

  ret->status = injected_statuses[action];
  ret->residual = command->data_length;
  ret->transferred = 0;
  ret->sense_length = 0;
  if (action == HF_FAIL_UNIT_ATTENTION) {
    ret->sense_length = sizeof sense;
    memcpy (ret->sense, sense, sizeof sense);
  }
}

static Injected
cut_link (HfLu *lu, HfScsiError code, const char *when, const char *step, GError **error)
{
  if (lu->transport->ops->drop_link)
    lu->transport->ops->drop_link (lu->transport);
  g_clear_error (error);
  g_set_error (error, HF_SCSI_ERROR, code, "%s: %s (injected %s %s)", lu->address,
               code == HF_SCSI_ERROR_TIMEOUT ? "no answer before the deadline" : "the link was lost", when, step);
  return INJECTED_ERROR;
}

/* An answer can only stand instead of the command, so it has no meaning after it. */
static Injected
inject (HfLu *lu, const char *when, const HfScsiCommand *command, HfScsiResult *ret, GError **error)
{
  guint argument = 0;
  HfFailAction action = hf_fail_point (when, command->step, TRUE, &argument);

  if (action == HF_FAIL_LINK || action == HF_FAIL_ERROR)
    return cut_link (lu, HF_SCSI_ERROR_LINK, when, command->step, error);
  if (action == HF_FAIL_TIMEOUT)
    return cut_link (lu, HF_SCSI_ERROR_TIMEOUT, when, command->step, error);
  if (injected_statuses[action] == HF_SAM_GOOD || g_str_equal (when, "after"))
    return INJECTED_NOTHING;
  make_up_answer (action, argument, command, ret);
  return INJECTED_ANSWER;
}

/* ---- commands ---- */

/* One attempt. The attempts and unit attentions of earlier ones stay in ret. */
static gboolean
attempt (HfLu *lu, const HfScsiCommand *command, gint64 deadline, HfScsiResult *ret, GError **error)
{
  Injected injected = inject (lu, "before", command, ret, error);
  HfScsiResult answer = { 0 };
  gboolean ok;

  if (injected != INJECTED_NOTHING)
    return injected == INJECTED_ANSWER;
  lu->commands++;
  ret->attempts++;
  ok = lu->transport->ops->execute (lu->transport, command, deadline, &answer, error);
  if (inject (lu, "after", command, ret, error) == INJECTED_ERROR || !ok)
    return FALSE;
  ret->status = answer.status;
  ret->sense_length = answer.sense_length;
  memcpy (ret->sense, answer.sense, sizeof ret->sense);
  ret->transferred = answer.transferred;
  ret->residual = answer.residual;
  return TRUE;
}

/* SPC-4 table 53: sense key 6. */
static gboolean
take_unit_attention (HfLu *lu, HfScsiResult *result)
{
  guint16 asc_ascq;
  guint8 key;

  if (!hf_scsi_result_get_sense (result, &key, &asc_ascq) || key != 6)
    return FALSE;
  if (result->n_unit_attentions < HF_SCSI_UA_MAX)
    result->unit_attentions[result->n_unit_attentions] = asc_ascq;
  result->n_unit_attentions++;
  keep_unit_attention (lu, asc_ascq);
  return TRUE;
}

/* Whether there is to be another attempt; waits for it. */
static gboolean
want_again (HfScsiResult *result, gboolean unit_attention, gint64 deadline, guint *wait_ms)
{
  gboolean busy = result->status == HF_SAM_BUSY || result->status == HF_SAM_TASK_SET_FULL;
  int left = hf_deadline_left_ms (deadline);

  if ((!busy && !unit_attention) || left == 0)
    return FALSE;
  if (unit_attention && result->n_unit_attentions <= UNIT_ATTENTIONS_AT_ONCE)
    return TRUE;
  if ((int)*wait_ms >= left)
    return FALSE;
  g_usleep (*wait_ms * (gulong)1000);
  *wait_ms = MIN (*wait_ms * 2, WAIT_MAX_MS);
  return TRUE;
}

static gboolean
check_command (HfLu *lu, const HfScsiCommand *command, GError **error)
{
  static const guint8 lengths[] = { 6, 10, 12, 16 };
  gboolean has_data = command->direction == HF_SCSI_FROM_DEVICE || command->direction == HF_SCSI_TO_DEVICE;

  if (memchr (lengths, command->cdb_length, sizeof lengths) && command->data_length <= HF_SCSI_DATA_MAX
      && (command->data_length == 0 || (has_data && command->data)))
    return TRUE;
  g_set_error (error, HF_SCSI_ERROR, HF_SCSI_ERROR_ADDRESS, "%s: a CDB of %u bytes with %u bytes of data cannot be sent",
               lu->address, command->cdb_length, command->data_length);
  return FALSE;
}

gboolean
hf_lu_execute (HfLu *lu, const HfScsiCommand *command, HfScsiResult *ret_result, GError **error)
{
  HfScsiCommand named = *command;
  gint64 deadline = hf_deadline_after_ms (command->timeout_ms ?: lu->timeout_ms);
  guint wait_ms = WAIT_FIRST_MS;

  memset (ret_result, 0, sizeof *ret_result);
  named.step = command->step ?: "command";
  if (!check_command (lu, command, error))
    return FALSE;
  for (;;) {
    gboolean unit_attention;

    if (!attempt (lu, &named, deadline, ret_result, error))
      return FALSE;
    unit_attention = take_unit_attention (lu, ret_result);
    if (!(command->flags & HF_SCSI_RETRY) || !want_again (ret_result, unit_attention, deadline, &wait_ms))
      return TRUE;
  }
}

/* ---- identity ---- */

typedef struct {
  guint8 *bytes; /* PAGE_LENGTH or as long as the page is */
  gsize length;  /* that arrived */
} Page;

/* INQUIRY with EVPD, SPC-4 6.6. FALSE: no answer. An answer other than GOOD leaves the page empty. */
static gboolean
inquire (HfLu *lu, guint8 code, guint16 size, Page *page, HfScsiResult *ret, GError **error)
{
  HfScsiCommand command = {
    .cdb = { 0x12, 1, code, size >> 8, size & 0xff },
    .cdb_length = 6,
    .direction = HF_SCSI_FROM_DEVICE,
    .data_length = size,
    .flags = HF_SCSI_RETRY,
    .step = "identify",
  };

  g_free (page->bytes);
  page->bytes = command.data = g_malloc0 (size);
  page->length = 0;
  if (!hf_lu_execute (lu, &command, ret, error))
    return FALSE;
  if (ret->status == HF_SAM_GOOD)
    page->length = ret->transferred;
  return TRUE;
}

static gboolean
read_page (HfLu *lu, guint8 code, Page *page, HfScsiResult *ret, GError **error)
{
  gsize said;

  if (!inquire (lu, code, PAGE_LENGTH, page, ret, error))
    return FALSE;
  said = page->length >= 4 ? 4 + (page->bytes[2] << 8 | page->bytes[3]) : 0;
  if (said <= PAGE_LENGTH || page->bytes[1] != code)
    return TRUE;
  return inquire (lu, code, MIN (said, G_MAXUINT16), page, ret, error);
}

/* ILLEGAL REQUEST: the LU has no such page, or is not there (5/2500). Any other answer says nothing about who the LU is. */
static gboolean
is_refused (const HfScsiResult *result, gboolean *ret_no_lu)
{
  guint16 asc_ascq;
  guint8 key;
  gboolean refused = hf_scsi_result_get_sense (result, &key, &asc_ascq) && key == 5;

  *ret_no_lu = refused && asc_ascq == ASC_NO_LU;
  return refused;
}

static gboolean
set_identity_error (HfLu *lu, const HfScsiResult *result, GError **error)
{
  g_autofree char *text = hf_scsi_result_to_string (result);
  gboolean no_lu;
  int code = is_refused (result, &no_lu) ? HF_SCSI_ERROR_IDENTITY : HF_SCSI_ERROR_STATUS;

  g_set_error (error, HF_SCSI_ERROR, code, "%s: %sINQUIRY: %s", lu->address, no_lu ? "no logical unit at this address: " : "",
               text);
  hf_scsi_error_set_result (error, result);
  return FALSE;
}

/* ret_try_80: page 83h was read or refused, and has no designator. */
static gboolean
read_83 (HfLu *lu, Page *page, gboolean *ret_try_80, GError **error)
{
  HfScsiResult result;
  GError *local = NULL;
  gboolean no_lu;

  if (!read_page (lu, 0x83, page, &result, error))
    return FALSE;
  if (result.status != HF_SAM_GOOD) {
    *ret_try_80 = is_refused (&result, &no_lu) && !no_lu;
    return set_identity_error (lu, &result, error);
  }
  if (hf_lu_identity_parse_83 (page->bytes, page->length, &lu->identity, &lu->nexus.relative_target_port, &local))
    return TRUE;
  *ret_try_80 = local->code == HF_SCSI_ERROR_IDENTITY && page->bytes[0] != NO_LU;
  g_propagate_prefixed_error (error, local, "%s: ", lu->address);
  return FALSE;
}

static gboolean
read_80 (HfLu *lu, Page *page, GError **error)
{
  HfScsiResult result;

  if (!read_page (lu, 0x80, page, &result, error))
    return FALSE;
  if (result.status != HF_SAM_GOOD)
    return set_identity_error (lu, &result, error);
  if (!hf_lu_identity_parse_80 (page->bytes, page->length, &lu->identity, error)) {
    g_prefix_error (error, "%s: ", lu->address);
    return FALSE;
  }
  if (*lu->identity.serial)
    return TRUE;
  g_set_error (error, HF_SCSI_ERROR, HF_SCSI_ERROR_IDENTITY, "%s: neither a designator nor a serial number", lu->address);
  return FALSE;
}

const HfLuIdentity *
hf_lu_get_identity (HfLu *lu, GError **error)
{
  Page page = { 0 };
  gboolean try_80 = FALSE;

  if (!lu->has_identity) {
    lu->has_identity = read_83 (lu, &page, &try_80, error);
    if (!lu->has_identity && try_80) {
      g_clear_error (error);
      lu->has_identity = read_80 (lu, &page, error);
    }
    g_free (page.bytes);
  }
  return lu->has_identity ? &lu->identity : NULL;
}
