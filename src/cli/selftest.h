/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The move matrix on a real LU: reservation type x what a third party does x the gap between two commands of the move in which it
 * does it. Each case is set up, moved and judged from the witness by reads, and by data commands of all three nexuses.
 *
 * Thread: that of the LUs.
 */

#include <holdfast/holdfast.h>

#define HF_SELFTEST_ERROR (hf_selftest_error_quark ())
GQuark hf_selftest_error_quark (void);
typedef enum { HF_SELFTEST_ERROR_IN_USE /* refused: nothing was changed */ } HfSelftestError;

/* The three nexuses of one scratch LU, on which nobody is registered. Block 0 is read once and only ever written back. */
typedef struct {
  HfLu *source, *destination, *witness;
} HfSelftestLus;

/* One case is over. fault: what is wrong, or NULL. */
typedef void (*HfSelftestReport) (const char *name, const char *fault, void *data);

/* Runs all cases. FALSE if the LU cannot be used at all (registrations, different LUs, no answer); the LU is left without
   registrations. */
gboolean hf_selftest_run (const HfSelftestLus *lus, HfSelftestReport report, void *data, GError **error);
