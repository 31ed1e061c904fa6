/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A large file that appears whole or not at all: NAME.partial in the same folder, written to by position through one buffered
 * and, where the file system allows it, one O_DIRECT descriptor; fdatasync, close, rename to NAME, fsync of the folder, which is
 * opened first. Both descriptors are open before the first write, so that every write-back error reaches the one that is synced
 * (fsync(2)).
 *
 * A writer holds a lock on its NAME.partial; a NAME.partial without one was left by a writer that died, and the next one replaces
 * it. NAME itself is untouched until the rename. A symbolic link NAME is followed, anything else than a regular file is refused.
 * The lock stays on the file, also when it is already NAME, until hf_save_file_free.
 *
 * Mode 0600; if NAME was there, its mode, owner and group, as far as this process may give them (else without the group's
 * rights). In a folder that others may write, a NAME that is neither this user's nor the folder's owner's gives none of that, and
 * no prefix; and a link there of such an owner is refused.
 *
 * HOLDFAST_FAIL points: stream-create, stream-write, stream-sync, stream-close, stream-rename, stream-sync-dir.
 *
 * Thread: one at a time; the descriptors may be written to from any. Errors: HF_STREAM_ERROR.
 */

#include "stream/stream-error.h"

typedef enum {
  HF_SAVE_DEFAULT = 0,
  HF_SAVE_NO_SYNC = 1 << 0, /* neither fdatasync nor fsync of the folder: a crash of the host may leave a NAME with holes */
  HF_SAVE_BUFFERED = 1 << 1 /* no O_DIRECT descriptor */
} HfSaveFlags;

typedef struct _HfSaveFile HfSaveFile;

/* What is wrong with path as the name of a file of state, NULL: nothing. Names that end in .partial or .status, behind a symbolic
   link, belong to another file: its writer removes them. */
const char *hf_save_file_name_problem (const char *path);

/* prefix: so many bytes of NAME, which must be there, are copied to the start of NAME.partial. HF_STREAM_ERROR_BUSY if another
   writer is alive. */
HfSaveFile *hf_save_file_new (const char *path, guint64 prefix, HfSaveFlags flags, GError **error);

/* Removes NAME.partial unless the file was committed. NULL is accepted. */
void hf_save_file_free (HfSaveFile *file);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (HfSaveFile, hf_save_file_free)

/* Removes NAME.partial at once, but keeps the lock until hf_save_file_free; for whoever has to say something before that, on a
   disk that is full. Only hf_save_file_free is left to call then. */
void hf_save_file_discard (HfSaveFile *file);

/* Owned by file. Both are open for reading and writing. */
int hf_save_file_fd (const HfSaveFile *file);
/* -1: there is none. Offsets, lengths and memory must be multiples of the alignment. */
int hf_save_file_direct_fd (const HfSaveFile *file);
/* A power of two, 4096 to 65536, and at least a page, so that the two descriptors never share one in the page cache. */
guint hf_save_file_alignment (const HfSaveFile *file);

/* Cuts or extends it to length, and makes it NAME. On failure NAME is what it was, and NAME.partial is gone; but if the very last
   step fails, the sync of the folder, NAME is already the new file, and the message says so. */
gboolean hf_save_file_commit (HfSaveFile *file, guint64 length, GError **error);

/* Is NAME the new file, whatever the commit returned? */
gboolean hf_save_file_is_in_place (const HfSaveFile *file);

typedef enum {
  HF_SAVE_WRITER_NONE, /* nobody is writing NAME, and no NAME.partial is there */
  HF_SAVE_WRITER_DEAD, /* NAME.partial without a lock: left behind, or made a moment ago and about to be locked */
  HF_SAVE_WRITER_ALIVE /* from the lock on NAME.partial to hf_save_file_free */
} HfSaveWriter;

/* Who writes path? *watch: -1 at the first look, then kept by the caller for the next one and closed in the end: a descriptor of
   the file that is being written, which tells also when it has its final name, or none any more. */
gboolean hf_save_file_look (const char *path, int *watch, HfSaveWriter *ret, GError **error);
