/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the helper does to a VM's LUs beside the guest's own commands: reading what is held (Save), preparing and committing a
 * Load, taking back (reclaim), removing what is left (release). Built on <holdfast/move.h>; this file knows devices and policy.
 *
 * Thread: any one at a time for each object; every function blocks, at most timeout_ms for each phase. They are run as jobs: they
 * own what they are given, and touch nothing of the main thread.
 */

#include <holdfast/move.h>

#include "prhelper/process.h"

#define HF_MIGRATE_ERROR (hf_migrate_error_quark ())
GQuark hf_migrate_error_quark (void);

typedef enum {
  HF_MIGRATE_ERROR_RECORD,    /* not understood */
  HF_MIGRATE_ERROR_NOT_FOUND, /* an LU of the record is not among the devices */
  HF_MIGRATE_ERROR_REFUSED,   /* a verdict that policy does not accept; nothing was changed */
  HF_MIGRATE_ERROR_COMMITTED, /* the same after the first commit: the message names the LUs that were committed */
  HF_MIGRATE_ERROR_SAVE,      /* what is held on an LU cannot be told */
} HfMigrateError;

typedef struct {
  HfOnChange on_change;
  guint timeout_ms;
  const char *state_dir; /* for the journals of moves; NULL: none is kept */
} HfMigrateOptions;

/* One node and what the guest is known to hold through it. */
typedef struct {
  HfDevice *device; /* owned */
  gboolean tracked; /* the guest sent PERSISTENT RESERVE OUT through it, or a Load registered it; else it is only open */
  HfPrState state;
  guint64 candidate_key; /* of an unclear REGISTER; 0: none */
  /* Filled in by every function that opened the device: */
  gboolean identified;
  HfLuIdentity identity;
  HfNexus nexus;
  guint n_unit_attentions; /* met by our commands on this nexus, which the guest will not see any more */
  guint16 unit_attentions[HF_SCSI_UA_MAX];
} HfHolding;
HfHolding *hf_holding_new (HfDevice *device); /* takes over device */
void hf_holding_free (HfHolding *holding);

/* One LU of a result, for log, control socket and tracking. */
typedef struct {
  HfLuIdentity identity;
  char *name;
  HfVerdict verdict;
  gboolean warning;  /* type-changed, released, preempted, fenced */
  gboolean prepared; /* registered, and the take-over is still to come */
  guint64 key;       /* what the VM has on the LU now; 0: nothing */
  guint8 type;
  guint milliseconds;
  char *text; /* why, or a note; NULL: nothing to say */
} HfLuReport;
typedef struct {
  guint n_lus;
  HfLuReport *lus;
} HfReport;
void hf_report_free (HfReport *report);

/* Reads INQUIRY pages through each device and fills in identity and nexus. A device that is no SCSI LU is left unidentified. */
void hf_migrate_identify (GPtrArray *holdings, guint timeout_ms);

/* What the VM holds, as a record. holdings: of HfHolding; several of one LU are its nexuses. The disk is the truth: a key that is
   known and not on the LU any more is saved as none. adopt: also take LUs that are not tracked, where READ FULL STATUS shows a
   registration of the device's own nexus. A VM that holds nothing gets a valid empty record. Settles uncertain states in
   holdings. NULL with HF_MIGRATE_ERROR_SAVE: something is held and cannot be told exactly; a guess is never saved. */
HfRecord *hf_migrate_save (const char *vm, GPtrArray *holdings, gboolean adopt, const HfMigrateOptions *options, GError **error);

/* A Load between prepare and the end. */
typedef struct _HfLoad HfLoad;

/* Takes over record and holdings (of HfHolding, every device that may be one of the record's LUs). The devices are identified and
   only those of the record are used; of one LU at most as many nexuses as the VM had. */
HfLoad *hf_load_new (HfRecord *record, GPtrArray *holdings, const HfMigrateOptions *options);
void hf_load_free (HfLoad *load); /* takes nothing back */

/* Reads only: would it go through? ret_report is set whenever the LUs were looked at. */
gboolean hf_load_check (HfLoad *load, HfReport **ret_report, GError **error);

/* Prepares every LU, then commits those that cannot wait: types 1 and 3, and 5 and 6 with more than one nexus on either side.
   FALSE: with HF_MIGRATE_ERROR_COMMITTED something was; with every other code all is as it was. */
gboolean hf_load_run (HfLoad *load, HfReport **ret_report, GError **error);

/* TRUE: hf_load_commit or hf_load_abort is still to come: a take-over waits, or (types 7, 8 and without a reservation, where
   there is none) a registration that an abort would take back; also after a run that failed and could not take back all. Freed
   before, it leaves its journal behind. */
gboolean hf_load_is_pending (HfLoad *load);

/* The VM runs here: takes over what waits. A VM that was fenced meanwhile stays fenced (verdict in the report, TRUE). Every
   change is followed, whatever on_change says; a failure takes nothing back, and the call may be repeated. After a crash: of a
   fresh HfLoad with the same record and state_dir, without hf_load_run, which would take back what it cannot finish. */
gboolean hf_load_commit (HfLoad *load, HfReport **ret_report, GError **error);

/* The VM will not run here: one unregister for each nexus that waits. After a crash: of a fresh HfLoad with the same record and
   state_dir, takes back what the journal says, and registers nothing. What was committed stays; so does what is by now the VM's
   last registration of its key (TRUE, and the report says so). */
gboolean hf_load_abort (HfLoad *load, HfReport **ret_report, GError **error);

const HfRecord *hf_load_get_record (HfLoad *load);
/* The devices in use with what the VM holds through each of them now; valid as long as load. */
GPtrArray *hf_load_get_holdings (HfLoad *load);

/* On the source. holdings: as for hf_load_new; what they hold is updated. reclaim: the VM runs here after all; takes back what
   its destination took over. release: the VM runs elsewhere; removes this host's registrations where nothing is lost by it
   (hf_move_release); FALSE with HF_MIGRATE_ERROR_REFUSED and the conditions that failed in the report. */
gboolean hf_migrate_reclaim (const HfRecord *record, GPtrArray *holdings, const HfMigrateOptions *options, HfReport **ret_report,
                             GError **error);
gboolean hf_migrate_release (const HfRecord *record, GPtrArray *holdings, const HfMigrateOptions *options, HfReport **ret_report,
                             GError **error);
