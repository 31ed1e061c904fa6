/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The helper's journal: what each VM holds and where its migration stands, one file for each VM, so that a helper that was killed
 * at any moment goes on where it was.
 *
 * STATE_DIR/vms/PID-STARTTIME.json, replaced as a whole. An image that was written without sync survives the end of this process,
 * not a power cut; after that the VM is gone too. Images of another boot of the machine are removed unread.
 *
 * Thread: main; files are written on a thread of the store's own. Bounds: HF_STORE_SIZE_MAX for a file, HF_STORE_VMS_MAX files.
 */

#include <holdfast/record.h>

#include "prhelper/peer.h"

/* More than HF_STORE_HELD_MAX of the longest identities and the largest record take: what can be written can be read. */
#define HF_STORE_SIZE_MAX (16u << 20)
#define HF_STORE_VMS_MAX 65536
#define HF_STORE_HELD_MAX 1024

typedef enum {
  HF_VM_IDLE,     /* no migration is known */
  HF_VM_SAVED,    /* record is that of its Save: it may run elsewhere */
  HF_VM_LOADING,  /* record is that of its Load, which has not been answered */
  HF_VM_PREPARED, /* the same, answered; take-overs wait for a proof that the VM runs here */
} HfVmPhase;
#define HF_N_VM_PHASES (HF_VM_PREPARED + 1)

/* What is held through one node. */
typedef struct {
  gboolean block;
  guint major, minor;
  gboolean identified;
  HfLuIdentity identity;
  HfPrState state;
  guint64 candidate_key; /* an unclear REGISTER's */
} HfHeld;

typedef struct {
  HfPeer peer;
  char *name, *uuid; /* for people; NULL: not known */
  HfVmPhase phase;
  GBytes *record;    /* encoded; NULL with HF_VM_IDLE */
  gint64 guest_time; /* hf_process_get_guest_time at the Save or Load; -1: not known */
  GArray *held;      /* of HfHeld */
} HfVmImage;
HfVmImage *hf_vm_image_new (const HfPeer *peer);
void hf_vm_image_free (HfVmImage *image);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (HfVmImage, hf_vm_image_free)

/* Pure. The image as one line of JSON; name, uuid and serial numbers are made UTF-8. Any bytes may be decoded; NULL with
   G_IO_ERROR_INVALID_DATA. That a record inside is one is not checked. Free with g_bytes_unref. */
GBytes *hf_vm_image_encode (const HfVmImage *image);
HfVmImage *hf_vm_image_decode (const char *text, gsize length, GError **error);

typedef struct _HfStore HfStore;

/* Makes dir/vms if it is missing, and locks it. NULL with G_IO_ERROR: it cannot be written, or another helper has it
   (G_IO_ERROR_BUSY). Starts a thread: call it after fork. */
HfStore *hf_store_new (const char *dir, GError **error);
/* Writes what waits and waits for it; no done is called any more. NULL is accepted. */
void hf_store_free (HfStore *store);

/* Reads all images of this boot: of HfVmImage. What is damaged, or no file, is renamed to NAME.damaged and
   logged, what cannot be read is logged and stays; the others count. NULL with G_IO_ERROR: the folder cannot be read. Call it
   before the first hf_store_write. */
GPtrArray *hf_store_read (HfStore *store, GError **error);

/* done: on the main context, never inside this call, when this image or a later one of the same VM is written or the VM removed;
   error (G_IO_ERROR, names the file and the step) NULL if it was. After an error the older image is still there (the newer one,
   if it was the sync of the folder that failed). Images of one VM are written in order, and only the last of those that wait. The
   image is taken over. done may be NULL: errors are logged. */
typedef void (*HfStoreDone) (const GError *error, gpointer user_data);
void hf_store_write (HfStore *store, HfVmImage *image, gboolean sync, HfStoreDone done, gpointer user_data);

/* The VM is gone: after what waits, removes its file. */
void hf_store_remove (HfStore *store, const HfPeer *peer);
