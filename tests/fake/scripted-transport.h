/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A device that follows a script: "UNIT ATTENTION twice, then GOOD", "BUSY until the deadline". Sits under a real HfLu.
 *
 * Thread: that of the HfLu. A command beyond the end of the script repeats the last step.
 */

#include "scsi/transport.h"

typedef struct {
  HfScsiError error; /* with fails: no answer but this error */
  gboolean fails;
  guint8 status;
  guint16 unit_attention; /* with CHECK CONDITION: sense key 6 and these ASC and ASCQ; 0: key 5, 24/00 */
  const guint8 *data;     /* what a read returns, cut at the caller's buffer; NULL: nothing */
  gsize length;
} HfScriptStep;

typedef struct {
  HfTransport transport;
  const HfScriptStep *steps;
  guint n_steps;
  guint n_executed;
  guint n_dropped;
  gboolean *freed;                  /* set to TRUE by free; may be NULL */
  guint8 cdbs[64][HF_SCSI_CDB_MAX]; /* of the first commands */
  gint64 deadlines[64];
} HfScript;

/* steps must outlive it. Freed by hf_lu_free. */
HfScript *hf_script_new (const HfScriptStep *steps, guint n_steps, gboolean *freed);
