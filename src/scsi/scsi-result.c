/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns the meaning of a device's answer in words and exit codes. libsgutils2 knows the sense codes.
 *
 * Thread: any; pure.
 */

#include "config.h"

#include "scsi/transport.h"

#include <scsi/sg_lib.h>
#include <string.h>

/* SAM-5 5.3.1, and what sg3_utils exits with for it. */
static const struct {
  guint8 status;
  const char *name;
  int exit_code;
} statuses[] = {
  { HF_SAM_GOOD, "GOOD", SG_LIB_CAT_CLEAN },
  { HF_SAM_CHECK_CONDITION, "CHECK CONDITION", SG_LIB_CAT_SENSE },
  { HF_SAM_CONDITION_MET, "CONDITION MET", SG_LIB_CAT_CONDITION_MET },
  { HF_SAM_BUSY, "BUSY", SG_LIB_CAT_BUSY },
  { HF_SAM_RESERVATION_CONFLICT, "RESERVATION CONFLICT", SG_LIB_CAT_RES_CONFLICT },
  { HF_SAM_TASK_SET_FULL, "TASK SET FULL", SG_LIB_CAT_TS_FULL },
  { HF_SAM_ACA_ACTIVE, "ACA ACTIVE", SG_LIB_CAT_ACA_ACTIVE },
  { HF_SAM_TASK_ABORTED, "TASK ABORTED", SG_LIB_CAT_TASK_ABORTED },
};

static const struct {
  HfScsiError code;
  int exit_code;
} error_exit_codes[] = {
  { HF_SCSI_ERROR_ADDRESS, SG_LIB_FILE_ERROR },   { HF_SCSI_ERROR_OPEN, SG_LIB_FILE_ERROR },
  { HF_SCSI_ERROR_LINK, SG_LIB_CAT_OTHER },       { HF_SCSI_ERROR_TIMEOUT, SG_LIB_CAT_TIMEOUT },
  { HF_SCSI_ERROR_ANSWER, SG_LIB_CAT_MALFORMED }, { HF_SCSI_ERROR_IDENTITY, SG_LIB_CAT_OTHER },
  { HF_SCSI_ERROR_NOT_FOUND, SG_LIB_FILE_ERROR }, { HF_SCSI_ERROR_STATUS, SG_LIB_CAT_OTHER },
};
G_STATIC_ASSERT (G_N_ELEMENTS (error_exit_codes) == HF_SCSI_ERROR_STATUS + 1);

/* What an error knows beside its code, wherever it is copied to. */
typedef struct {
  int exit_code; /* 0: that of the code */
  HfScsiResult *result;
} HfScsiErrorPrivate;

static void
hf_scsi_error_private_init (HfScsiErrorPrivate *private)
{
  *private = (HfScsiErrorPrivate){ 0 };
}

static void
hf_scsi_error_private_copy (const HfScsiErrorPrivate *from, HfScsiErrorPrivate *to)
{
  to->exit_code = from->exit_code;
  to->result = g_memdup2 (from->result, sizeof *from->result);
}

static void
hf_scsi_error_private_clear (HfScsiErrorPrivate *private)
{
  g_free (private->result);
}

G_DEFINE_EXTENDED_ERROR (HfScsiError, hf_scsi_error)

void
hf_scsi_error_set_errno (GError **error, int reason)
{
  if (error && *error)
    hf_scsi_error_get_private (*error)->exit_code = sg_convert_errno (reason);
}

void
hf_scsi_error_set_syntax (GError **error)
{
  if (error && *error)
    hf_scsi_error_get_private (*error)->exit_code = SG_LIB_SYNTAX_ERROR;
}

void
hf_scsi_error_set_result (GError **error, const HfScsiResult *result)
{
  HfScsiErrorPrivate *private;

  if (!error || !*error)
    return;
  private = hf_scsi_error_get_private (*error);
  private->exit_code = hf_scsi_result_to_exit_code (result);
  private->result = g_memdup2 (result, sizeof *result);
}

const HfScsiResult *
hf_scsi_error_get_result (const GError *error)
{
  return error->domain == HF_SCSI_ERROR ? hf_scsi_error_get_private (error)->result : NULL;
}

static gboolean
normalize (const HfScsiResult *result, struct sg_scsi_sense_hdr *ret)
{
  if (result->status != HF_SAM_CHECK_CONDITION || result->sense_length > HF_SCSI_SENSE_MAX)
    return FALSE;
  return sg_scsi_normalize_sense (result->sense, result->sense_length, ret);
}

gboolean
hf_scsi_result_get_sense (const HfScsiResult *result, guint8 *ret_key, guint16 *ret_asc_ascq)
{
  struct sg_scsi_sense_hdr sense;

  if (!normalize (result, &sense))
    return FALSE;
  if (ret_key)
    *ret_key = sense.sense_key;
  if (ret_asc_ascq)
    *ret_asc_ascq = sense.asc << 8 | sense.ascq;
  return TRUE;
}

static char *
sense_to_string (const HfScsiResult *result)
{
  struct sg_scsi_sense_hdr sense;
  char buffer[128];
  const char *text;

  if (!normalize (result, &sense))
    return g_strdup ("CHECK CONDITION without sense data");
  text = sg_get_asc_ascq_str (sense.asc, sense.ascq, sizeof buffer, buffer);
  if (g_str_has_prefix (text, "Additional sense: "))
    text += strlen ("Additional sense: ");
  return g_strdup_printf ("CHECK CONDITION %x/%02x%02x (%s)", sense.sense_key, sense.asc, sense.ascq, text);
}

char *
hf_scsi_result_to_string (const HfScsiResult *result)
{
  if (result->status == HF_SAM_CHECK_CONDITION)
    return sense_to_string (result);
  for (guint i = 0; i < G_N_ELEMENTS (statuses); i++)
    if (statuses[i].status == result->status)
      return g_strdup (statuses[i].name);
  return g_strdup_printf ("status 0x%02x", result->status);
}

int
hf_scsi_result_to_exit_code (const HfScsiResult *result)
{
  if (result->status == HF_SAM_CHECK_CONDITION && result->sense_length <= HF_SCSI_SENSE_MAX)
    return sg_err_category_sense (result->sense, result->sense_length);
  for (guint i = 0; i < G_N_ELEMENTS (statuses); i++)
    if (statuses[i].status == result->status)
      return statuses[i].exit_code;
  return SG_LIB_CAT_OTHER;
}

int
hf_scsi_error_to_exit_code (const GError *error)
{
  if (!error || error->domain != HF_SCSI_ERROR)
    return SG_LIB_CAT_OTHER;
  if (hf_scsi_error_get_private (error)->exit_code)
    return hf_scsi_error_get_private (error)->exit_code;
  for (guint i = 0; i < G_N_ELEMENTS (error_exit_codes); i++)
    if ((int)error_exit_codes[i].code == error->code)
      return error_exit_codes[i].exit_code;
  return SG_LIB_CAT_OTHER;
}
