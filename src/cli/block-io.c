/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See the header. Owns nothing. SBC-3 5.15, 5.8, 5.33. */

#include "cli/block-io.h"

#define OPERATION_READ_CAPACITY_10 0x25
#define OPERATION_READ_10 0x28
#define OPERATION_WRITE_10 0x2a
#define BLOCK_SIZE_MAX 65536 /* no disk has larger blocks */

static gboolean
send_command (HfLu *lu, guint8 operation, HfScsiDirection direction, void *data, guint32 length, const char *step,
              HfScsiResult *ret, GError **error)
{
  HfScsiCommand command = { .cdb = { operation },
                            .cdb_length = 10,
                            .direction = direction,
                            .data = data,
                            .data_length = length,
                            .flags = HF_SCSI_RETRY,
                            .step = step };
  if (operation != OPERATION_READ_CAPACITY_10)
    command.cdb[8] = 1; /* TRANSFER LENGTH: one block, LOGICAL BLOCK ADDRESS 0 */
  return hf_lu_execute (lu, &command, ret, error);
}

gboolean
hf_block_size (HfLu *lu, guint32 *ret_size, HfScsiResult *ret_result, GError **error)
{
  guint8 data[8] = { 0 };
  *ret_size = 0;
  if (!send_command (lu, OPERATION_READ_CAPACITY_10, HF_SCSI_FROM_DEVICE, data, sizeof data, "capacity", ret_result, error))
    return FALSE;
  if (ret_result->status != HF_SAM_GOOD)
    return TRUE;
  guint32 size = (guint32)data[4] << 24 | (guint32)data[5] << 16 | (guint32)data[6] << 8 | data[7];
  if (ret_result->transferred < sizeof data || size == 0 || size > BLOCK_SIZE_MAX) {
    g_set_error (error, HF_SCSI_ERROR, HF_SCSI_ERROR_ANSWER, "%s: capacity: a block size of %u bytes", hf_lu_get_address (lu),
                 size);
    return FALSE;
  }
  *ret_size = size;
  return TRUE;
}

gboolean
hf_block_read (HfLu *lu, void *block, guint32 size, HfScsiResult *ret_result, GError **error)
{
  return send_command (lu, OPERATION_READ_10, HF_SCSI_FROM_DEVICE, block, size, "read", ret_result, error);
}

gboolean
hf_block_write (HfLu *lu, const void *block, guint32 size, HfScsiResult *ret_result, GError **error)
{
  return send_command (lu, OPERATION_WRITE_10, HF_SCSI_TO_DEVICE, (void *)block, size, "write", ret_result, error);
}
