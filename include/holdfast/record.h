/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The record: what a VM holds on its LUs, as bytes that travel (a file, a migration stream). A record may come from an enemy:
 * decoding bounds everything before it is allocated and believes nothing but its own checks.
 *
 * Layout: 8 bytes magic "HOLDFAST", u32 big-endian version, u32 big-endian body length, 32 bytes SHA-256 of all other bytes, body
 * (a GVariant in normal form, little-endian). At most HF_RECORD_SIZE_MAX bytes for HF_RECORD_LUS_MAX LUs, because QEMU's
 * dbus-vmstate takes no more.
 */

#include <holdfast/pr.h>

G_BEGIN_DECLS

#define HF_RECORD_VERSION 1
#define HF_RECORD_SIZE_MAX (1u << 20)
#define HF_RECORD_LUS_MAX 256

#define HF_RECORD_ERROR (hf_record_error_quark ())
HF_PUBLIC GQuark hf_record_error_quark (void);

typedef enum {
  HF_RECORD_ERROR_FOREIGN,   /* not a holdfast record */
  HF_RECORD_ERROR_TRUNCATED, /* shorter, or longer, than it says */
  HF_RECORD_ERROR_CORRUPTED, /* checksum or contents are wrong */
  HF_RECORD_ERROR_NEWER,     /* written by a later version */
  HF_RECORD_ERROR_TOO_LARGE, /* does not fit into HF_RECORD_SIZE_MAX or HF_RECORD_LUS_MAX */
  HF_RECORD_ERROR_FILE,      /* cannot be read or written */
  HF_RECORD_ERROR_LU         /* an LU is not in the record, or twice, or cannot be told from another */
} HfRecordError;

typedef struct {
  char *id;      /* a random UUID in text form, names the journal of a move */
  char *host;    /* where it was saved; UTF-8, at most 255 bytes */
  char *vm;      /* name or UUID of the VM; UTF-8, at most 255 bytes; "" if unknown */
  gint64 time;   /* of the save, seconds since 1970 UTC */
  guint n_units; /* at most HF_RECORD_LUS_MAX, each another LU */
  HfPrSaved *units;
} HfRecord;

/* An empty record with a fresh id, this host's name and the present time. vm may be NULL. Free with hf_record_free. */
HF_PUBLIC HfRecord *hf_record_new (const char *vm);
HF_PUBLIC void hf_record_free (HfRecord *record);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (HfRecord, hf_record_free)

/* Takes a copy of saved. FALSE with HF_RECORD_ERROR_LU if the LU is in it already, HF_RECORD_ERROR_TOO_LARGE if it is full. */
HF_PUBLIC gboolean hf_record_add (HfRecord *record, const HfPrSaved *saved, GError **error);

/* The unit of this LU, or NULL with HF_RECORD_ERROR_LU, whose message names the LU and the record's. Valid as long as record. */
HF_PUBLIC const HfPrSaved *hf_record_find (const HfRecord *record, const HfLuIdentity *identity, GError **error);

HF_PUBLIC GBytes *hf_record_encode (const HfRecord *record, GError **error);
HF_PUBLIC HfRecord *hf_record_decode (const void *data, gsize length, GError **error);

/* path "-" is standard output or standard input. A file is written as a whole or not at all (temporary file in the same folder,
   fsync, rename, fsync of the folder), mode 0600. Reading stops with an error at HF_RECORD_SIZE_MAX. Messages name the path. */
HF_PUBLIC gboolean hf_record_write_file (const HfRecord *record, const char *path, GError **error);
HF_PUBLIC HfRecord *hf_record_read_file (const char *path, GError **error);

G_END_DECLS
