/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The journal of a move: what was about to be sent, written and synced before it is sent, so that a rerun after a crash knows
 * what may have been executed.
 *
 * One file for each record, STATE_DIR/moves/RECORD-ID.journal, append only, one line for each entry:
 *   hf1 <checksum> <time> <kind> <what> <lu> <step> <generation> <nexus>\n
 * checksum: 16 hex digits of the SHA-256 of what stands behind it and its blank. time: seconds since 1970. kind: intent,
 * verified, undone. what: register, take-over, register+take-over or -. In lu, step and nexus, bytes that are not printable
 * ASCII, blanks and backslashes are \xHH; an empty text is \-. An entry counts only with its newline and checksum. A last line
 * without newline is torn: its sync never returned, so it was never acted on, and it is cut off. Any other bad line is an error
 * that nothing is sent after. The file is locked (flock) while it is open for writing and removed when the move is over.
 *
 * Points of base/fail.h: journal-write (a failed one leaves nothing in the file) and journal-sync (a failed one poisons the
 * journal: what is on the disk is not known any more, and every later write fails). error is acted out, anything else than stop,
 * kill and delay counts as error.
 *
 * Thread: hf_journal_write may be called from several threads at a time; they share one fdatasync (group commit).
 */

#include <glib.h>

typedef enum {
  HF_JOURNAL_INTENT,   /* step is about to be sent */
  HF_JOURNAL_VERIFIED, /* the LU was read after step, and step is as it should be */
  HF_JOURNAL_UNDONE    /* one REGISTER of ours was not executed, or is gone again; is_register: the last one */
} HfJournalKind;
#define HF_N_JOURNAL_KINDS (HF_JOURNAL_UNDONE + 1)

/* What the entries of one LU add up to. */
typedef struct {
  guint registers_sent;         /* intents of REGISTER less UNDONE: so many nexuses of ours may be listed */
  gboolean register_unverified; /* the last intent of a REGISTER has no VERIFIED or UNDONE behind it */
  gboolean take_over_sent;      /* an intent of PREEMPT is there */
  guint32 generation;           /* PRGENERATION seen before the last REGISTER */
} HfJournalSummary;

typedef struct _HfJournalEntry HfJournalEntry;
typedef struct _HfJournal HfJournal;

/* Pure. What one more entry of an LU makes of its summary; all-zero is the summary of no entry. */
void hf_journal_summary_learn (HfJournalSummary *summary, const HfJournalEntry *entry);

/* record_id must be a UUID in text form (it names a file). write FALSE: nothing is created and no lock taken; a journal that is
   not there is empty. Errors: HF_PR_ERROR_JOURNAL, naming the file. */
HfJournal *hf_journal_open (const char *state_dir, const char *record_id, gboolean write, GError **error);
void hf_journal_free (HfJournal *journal);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (HfJournal, hf_journal_free)

/* Returns after the entry is on the disk. lu: hf_lu_identity_to_string. step: one of hf_move_steps. nexus: hf_nexus_to_string
   or "unknown"; blanks and control characters in it are escaped. is_register, is_take_over say what step does. */
struct _HfJournalEntry {
  HfJournalKind kind;
  const char *lu, *step, *nexus;
  guint32 generation;
  gboolean is_register, is_take_over;
};
gboolean hf_journal_write (HfJournal *journal, const HfJournalEntry *entry, GError **error);

/* What the file said of this LU when it was opened, and what was written since, synced or not. All-zero for an LU without
 * entries. */
void hf_journal_get_summary (HfJournal *journal, const char *lu, HfJournalSummary *ret);

/* The move is over on all LUs: remove the file, sync the folder. Nothing can be written afterwards. */
gboolean hf_journal_remove (HfJournal *journal, GError **error);

/* How many fdatasyncs the writes took, for measurements. */
guint hf_journal_get_syncs (HfJournal *journal);

/* $STATE_DIR for the command line: explicit if not NULL; /var/lib/holdfast if it can be made and written; else
   $XDG_STATE_HOME/holdfast or ~/.local/state/holdfast. Free with g_free. */
char *hf_journal_default_dir (const char *explicit_dir);
