/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What migrate.c (devices, reports), migrate-save.c and migrate-load.c share. Nobody else but tests includes this.
 */

#include "prhelper/migrate.h"

/* A device while one operation uses it. */
typedef struct {
  HfHolding *holding;           /* outlives this */
  HfLu *lu;                     /* NULL: it could not be opened, or is not wanted */
  const HfLuIdentity *identity; /* read from lu just now; NULL: see error */
  GError *error;
} HfOpened;

/* Opens and identifies all, in parallel; identity and nexus go into the holdings. With a record only its LUs stay open. Of
   HfOpened, in the order of holdings; free with g_ptr_array_unref, which gives the unit attentions that were met to the holdings.
 */
GPtrArray *hf_migrate_open (GPtrArray *holdings, const HfRecord *record, guint timeout_ms);
#define HF_MIGRATE_THREADS_MAX 256

/* Each is kept once. */
void hf_holding_add_unit_attentions (HfHolding *holding, const guint16 *unit_attentions, guint n);
/* Forgets those that a take-over raises (SPC-4 5.9.11): the VM still has its key, so they say nothing to its guest. */
void hf_holding_drop_take_over (HfHolding *holding);

/* "block 8:16", for messages. */
const char *hf_holding_get_name (const HfHolding *holding);

/* How an LU is opened; NULL: SG_IO on a copy of the device's descriptor. For tests, before anything is opened. */
typedef HfLu *(*HfMigrateOpener) (const HfDevice *device, guint timeout_ms, GError **error);
void hf_migrate_set_opener (HfMigrateOpener opener);
