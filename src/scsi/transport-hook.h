/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A transport over an open LU that lets its owner act before each command: how `selftest` puts a third party exactly between two
 * commands of a move. The nexus is the LU's own.
 *
 * Thread: that of the LU.
 */

#include "scsi/transport.h"

/* Called before each command is passed on. index: commands passed on before. step: as in HfScsiCommand. */
typedef void (*HfBeforeCommand) (guint index, const char *step, void *data);

/* lu outlives the result; free that with hf_lu_free. */
HfLu *hf_lu_new_with_hook (HfLu *lu, HfBeforeCommand before, void *data);
