/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The reservations in a migration stream: holdfast's records in the data of QEMU's dbus-vmstate object
 * (backends/dbus-vmstate.c there), and the subsection scsi-disk/pr of QEMU 11 (hw/scsi/scsi-disk.c).
 *
 * Nothing in the file is believed: every length is tested against the section, and at most 1 MiB is read at a time.
 *
 * Thread: any, one at a time for a reader.
 */

#include "stream/stream-map.h"

#include <holdfast/record.h>

#define HF_VMSTATE_ENTRIES_MAX 1024u

/* What one helper saved. */
typedef struct {
  char *id;               /* as in the stream; 1 to 255 bytes */
  guint64 offset, length; /* of its data, in the reader */
  HfRecord *record;       /* NULL: it is none of holdfast's */
  char *problem;          /* the data begin like a record and are none; else NULL */
} HfVmstateEntry;

typedef struct {
  guint32 declared;   /* entries that the stream speaks of; QEMU leaves out a helper whose Save failed */
  GPtrArray *entries; /* HfVmstateEntry */
  char *problem;      /* why it could not be read to its end; else NULL */
} HfVmstate;

void hf_vmstate_free (HfVmstate *vmstate);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (HfVmstate, hf_vmstate_free)

/* TRUE if it is the section of a dbus-vmstate object. */
gboolean hf_vmstate_is_section (const HfStreamSection *section);
HfVmstate *hf_vmstate_read (HfReader *reader, const HfStreamSection *section);

/* What a guest holds on the LU of one scsi-block device. QEMU does not say which LU that is. */
typedef struct {
  guint64 offset; /* of the subsection */
  guint64 key;
  guint8 type; /* 0: registered, not holding */
} HfScsiDiskPr;

/* The subsection scsi-disk/pr of section, or NULL. */
const HfStreamSubsection *hf_scsi_disk_pr_find (const HfStreamSection *section);
/* FALSE with HF_STREAM_ERROR_MALFORMED, _INCOMPLETE or HF_IO_ERROR. */
gboolean hf_scsi_disk_pr_read (HfReader *reader, const HfStreamSubsection *subsection, HfScsiDiskPr *ret, GError **error);

/* What the LU shows that is not as pr says; NULL: it is the same. Free with g_free. Pure. */
char *hf_scsi_disk_pr_compare (const HfScsiDiskPr *pr, const HfPrObservation *observation);
