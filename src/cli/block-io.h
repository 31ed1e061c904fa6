/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Block 0 of an LU: what a nexus may do shows itself in data commands only (SPC-4 5.9.1). Commands are repeated after unit
   attentions. FALSE with an HF_SCSI_ERROR if there was no answer; any answer is in ret_result. Thread: that of the LU. */

#include <holdfast/scsi.h>

/* READ CAPACITY(10). *ret_size 0: the LU answered something else than GOOD. */
gboolean hf_block_size (HfLu *lu, guint32 *ret_size, HfScsiResult *ret_result, GError **error);

/* READ(10) and WRITE(10) of one block at address 0, size bytes. */
gboolean hf_block_read (HfLu *lu, void *block, guint32 size, HfScsiResult *ret_result, GError **error);
gboolean hf_block_write (HfLu *lu, const void *block, guint32 size, HfScsiResult *ret_result, GError **error);
