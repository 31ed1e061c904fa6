/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The devices of a migration: opening and identifying them, and what became of them as a report. Thread: any one; opens on
 * threads of its own.
 *
 * Theory of operation. Every device gets a thread, so that one on a dead path costs its own deadline and nobody else's. What is
 * learnt goes into the holding at once; the unit attentions that our commands met go there when the device is closed, because the
 * guest, which has the same I_T nexus, will not see them any more.
 */

#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/fail.h"
#include "base/parallel.h"
#include "prhelper/migrate-private.h"
#include "scsi/transport.h"

G_DEFINE_QUARK (hf - migrate - error - quark, hf_migrate_error)

static HfMigrateOpener opener;

/* ---- holdings ---- */

HfHolding *
hf_holding_new (HfDevice *device)
{
  HfHolding *holding = g_new0 (HfHolding, 1);
  holding->device = device;
  return holding;
}

void
hf_holding_free (HfHolding *holding)
{
  if (holding == NULL)
    return;
  hf_device_free (holding->device);
  g_free (holding);
}

const char *
hf_holding_get_name (const HfHolding *holding)
{
  return holding->device->name != NULL ? holding->device->name : "device";
}

void
hf_holding_add_unit_attentions (HfHolding *holding, const guint16 *unit_attentions, guint n)
{
  for (guint i = 0; i < n; i++) {
    guint j = 0;
    while (j < holding->n_unit_attentions && holding->unit_attentions[j] != unit_attentions[i])
      j++;
    if (j == holding->n_unit_attentions && j < HF_SCSI_UA_MAX)
      holding->unit_attentions[holding->n_unit_attentions++] = unit_attentions[i];
  }
}

void
hf_holding_drop_take_over (HfHolding *holding)
{
  /* RESERVATIONS PREEMPTED, RESERVATIONS RELEASED, REGISTRATIONS PREEMPTED */
  static const guint16 raised[] = { 0x2a03, 0x2a04, 0x2a05 };
  guint n = 0;
  for (guint i = 0; i < holding->n_unit_attentions; i++) {
    gboolean drop = FALSE;
    for (guint j = 0; j < G_N_ELEMENTS (raised); j++)
      drop |= holding->unit_attentions[i] == raised[j];
    if (!drop)
      holding->unit_attentions[n++] = holding->unit_attentions[i];
  }
  holding->n_unit_attentions = n;
}

/* ---- reports ---- */

void
hf_report_free (HfReport *report)
{
  if (report == NULL)
    return;
  for (guint i = 0; i < report->n_lus; i++) {
    g_free (report->lus[i].name);
    g_free (report->lus[i].text);
  }
  g_free (report->lus);
  g_free (report);
}

/* ---- devices ---- */

void
hf_migrate_set_opener (HfMigrateOpener it)
{
  opener = it;
}

static HfLu *
open_lu (const HfDevice *device, guint timeout_ms, GError **error)
{
  const char *name = device->name != NULL ? device->name : "device";
  int fd = fcntl (device->fd, F_DUPFD_CLOEXEC, 3);
  if (fd < 0) {
    g_set_error (error, HF_SCSI_ERROR, HF_SCSI_ERROR_OPEN, "%s: %s", name, g_strerror (errno));
    return NULL;
  }
  HfTransport *transport = hf_transport_sgio_from_fd (fd, name, error);
  return transport != NULL ? hf_lu_new_for_transport (transport, name, timeout_ms) : NULL;
}

typedef struct {
  const HfRecord *record; /* NULL: every LU is wanted */
  guint timeout_ms;
} Search;

static void
close_lu (HfOpened *opened)
{
  guint16 met[HF_SCSI_UA_MAX];
  if (opened->lu != NULL)
    hf_holding_add_unit_attentions (opened->holding, met, hf_lu_take_unit_attentions (opened->lu, met));
  opened->identity = NULL;
  g_clear_pointer (&opened->lu, hf_lu_free);
}

static void
identify (gpointer item, gpointer data)
{
  const Search *search = data;
  HfOpened *opened = item;
  HfHolding *holding = opened->holding;
  opened->lu = (opener != NULL ? opener : open_lu) (holding->device, search->timeout_ms, &opened->error);
  if (opened->lu == NULL)
    return;
  opened->identity = hf_lu_get_identity (opened->lu, &opened->error);
  if (opened->identity == NULL)
    return;
  holding->identified = TRUE;
  holding->identity = *opened->identity;
  holding->nexus = *hf_lu_get_nexus (opened->lu);
  /* A thread and a descriptor for each of a thousand devices is too much; those of the record are at most a few hundred. */
  if (search->record != NULL && hf_record_find (search->record, opened->identity, NULL) == NULL)
    close_lu (opened);
}

static void
opened_free (gpointer data)
{
  HfOpened *opened = data;
  close_lu (opened);
  g_clear_error (&opened->error);
  g_free (opened);
}

GPtrArray *
hf_migrate_open (GPtrArray *holdings, const HfRecord *record, guint timeout_ms)
{
  Search search = { record, timeout_ms };
  GPtrArray *all = g_ptr_array_new_with_free_func (opened_free);
  hf_fail_init_once ();
  for (guint i = 0; i < holdings->len; i++) {
    HfOpened *opened = g_new0 (HfOpened, 1);
    opened->holding = holdings->pdata[i];
    g_ptr_array_add (all, opened);
  }
  hf_parallel_for (all->pdata, all->len, HF_MIGRATE_THREADS_MAX, identify, &search);
  return all;
}

void
hf_migrate_identify (GPtrArray *holdings, guint timeout_ms)
{
  g_ptr_array_unref (hf_migrate_open (holdings, NULL, timeout_ms));
}
