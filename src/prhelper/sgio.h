/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A guest's command on a descriptor that came with it. Blocks; thread: a worker.
 */

#include "prhelper/protocol.h"

#include <holdfast/scsi.h>

/* What the guest gets. */
typedef struct {
  guint8 status; /* HfSamStatus */
  guint8 sense_length;
  guint8 sense[HF_PROTOCOL_SENSE_SIZE];
  guint32 transferred; /* bytes of data that came; at most what was asked for */
  char trouble[64];    /* why there is no answer of a device, for the log; "" if there is one */
} HfSgioAnswer;

/* Makes answer one of the helper's own: CHECK CONDITION with fixed format sense data (SPC-4 4.5.3). */
void hf_sgio_answer_sense (HfSgioAnswer *answer, guint8 key, guint16 asc_ascq);

/* INQUIRY, VPD page 83h, and 80h if that has nothing. FALSE: it is no LU that says who it is. Waits as below. */
gboolean hf_sgio_identify (int fd, guint timeout_ms, HfLuIdentity *ret);

/* Sends the command once and waits for its end, which may be later than timeout_ms. data: cdb's length bytes, read for PR OUT,
   written for PR IN. Status, sense and residual are the device's, byte for byte; if none answered, ret has what comes nearest. */
void hf_sgio_execute (int fd, const HfProtocolRequest *request, guint8 *data, guint timeout_ms, HfSgioAnswer *ret);
