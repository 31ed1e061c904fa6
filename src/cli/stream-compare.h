/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What a stream says of reservations, shown, and beside it what the LUs say now. Only reads are sent.
 *
 * Thread: main.
 */

#include "cli/cli.h"
#include "cli/stream-reservations.h"

typedef struct {
  gboolean offline; /* no LU is opened */
  char **addresses; /* LUs of records; empty: the devices of this machine are searched */
  char **maps;      /* "SECTION-ID=LU"; may be NULL */
} HfCompareWords;

/* sections: HfStreamSection, read by reader. Fills run: text, "vmstate" and "reservations" of the object, warnings, result.
   FALSE: a map names no section, or an LU cannot be meant. */
gboolean hf_compare_show (HfRun *run, HfReader *reader, GPtrArray *sections, const HfCompareWords *words, GError **error);
