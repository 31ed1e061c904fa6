/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Moving what a VM holds from one I_T nexus to another.
 *
 * A HfMove is one record and the nexuses of this host to its LUs. It works on all LUs in parallel and in two phases: prepare
 * observes each LU and registers this host's nexus (make before break), commit takes the reservation over, abort undoes a
 * prepare. Nothing is committed before everything is prepared and every verdict accepted.
 *
 *   HfMove *move = hf_move_new (record, &options, &error);
 *   hf_move_add_lus (move, lus, n_lus, &error);   all LUs of the record, several times for several paths
 *   hf_move_prepare (move) && hf_move_commit (move);
 *   for (guint i = 0; i < hf_move_get_n_units (move); i++) hf_move_get_unit (move, i)->verdict ...
 *
 * Whoever migrates a running VM may take over some LUs first and the rest once the VM runs here: hf_move_commit_some, then
 * hf_move_set_running and hf_move_commit, or hf_move_abort, which leaves alone what was committed.
 *
 * Thread: one thread at a time; the functions block, bounded by the deadline of each unit, and use worker threads of their own.
 * Results live as long as the move and change with each call.
 */

#include <holdfast/record.h>

G_BEGIN_DECLS

/* What the LU says about the saved state, first match in this order (doc/architecture.md has the table). */
typedef enum {
  HF_VERDICT_NONE,         /* the VM had no key here */
  HF_VERDICT_ERROR,        /* the LU could not be read or kept changing; nothing of ours is left behind that was not there */
  HF_VERDICT_AMBIGUOUS,    /* the key, or a reservation under it, may belong to a nexus that is not ours */
  HF_VERDICT_OCCUPIED,     /* this nexus is registered with another key */
  HF_VERDICT_FENCED,       /* the key is on none of our nexuses */
  HF_VERDICT_UNCHANGED,    /* already as it should be */
  HF_VERDICT_TYPE_CHANGED, /* moved, with the type that the LU showed */
  HF_VERDICT_MOVED,        /* this nexus is registered and holds */
  HF_VERDICT_PREEMPTED,    /* registered here; another key holds the reservation */
  HF_VERDICT_RELEASED,     /* registered here; nobody holds a reservation */
  HF_VERDICT_REGISTERED,   /* registered here, as saved without a reservation */
  HF_VERDICT_UNREGISTERED, /* hf_move_release, and hf_move_abort of an earlier run: this nexus' registration was removed */
  HF_VERDICT_REFUSED       /* the same two: a condition failed, nothing was changed */
} HfVerdict;
#define HF_N_VERDICTS (HF_VERDICT_REFUSED + 1)

/* "type-changed"; static */
HF_PUBLIC const char *hf_verdict_to_string (HfVerdict verdict);

typedef enum {
  HF_ON_CHANGE_ADOPT, /* type-changed, released, preempted and fenced are followed, with a warning */
  HF_ON_CHANGE_REFUSE /* they refuse the move: nothing is changed */
} HfOnChange;

typedef enum {
  HF_ROLE_DESTINATION, /* load: the LUs are those of the host the VM moves to */
  HF_ROLE_SOURCE       /* reclaim and release: the LUs are those of the host the VM left */
} HfRole;

/* Whose nexus a registration is, as far as can be known. */
typedef enum {
  HF_OWNER_UNKNOWN,
  HF_OWNER_OURS, /* the nexus of this HfMove */
  HF_OWNER_PEER, /* the VM's nexus on the other host */
  HF_OWNER_OTHER
} HfOwner;

typedef struct {
  HfRole role;
  HfOnChange on_change;
  gboolean peer_gone;    /* --source-gone: the other host is dead, its registration is removed here; see holdfast-load(1) for the
                            window */
  guint timeout_ms;      /* for each LU and phase; 0: HF_SCSI_TIMEOUT_DEFAULT_MS */
  const char *state_dir; /* where the journal lives; NULL: no journal (a crash can then not be cleaned up after) */
} HfMoveOptions;

/* Why a unit ended in HF_VERDICT_ERROR, _OCCUPIED, _AMBIGUOUS or _REFUSED. */
typedef struct {
  char *step;        /* "observe", "register" ...; NULL: no error */
  gboolean answered; /* the LU answered: result is valid */
  HfScsiResult result;
  char *text;
  int exit_code; /* sg3_utils' code of it */
} HfUnitError;

/* One LU of the move: read only. */
typedef struct {
  const HfPrSaved *saved; /* of the record */
  char *name;             /* hf_lu_identity_to_string */
  char *device;           /* address of the first nexus; NULL: none was added */
  HfVerdict verdict;
  gboolean certain; /* FALSE: reads alone cannot tell; alternative is the other possibility */
  HfVerdict alternative;
  gboolean accepted; /* the verdict and the policy let the move go on */
  guint8 type;       /* the reservation type the VM has now; 0: none */
  guint commands;    /* sent to this LU, INQUIRYs included */
  guint milliseconds;
  gboolean has_before, has_after;
  HfPrObservation before, after;
  guint n_unit_attentions; /* distinct ones in unit_attentions */
  guint16 unit_attentions[HF_SCSI_UA_MAX];
  char *note; /* a warning in words, or NULL: a left-over key, a leftover registration of the peer */
  HfUnitError error;
  guint n_nexuses;        /* of this host: how many are used */
  gboolean take_over_due; /* prepared, and stopped before the take-over */
  gboolean taken_over;    /* a take-over was executed, or may have been, by this move or an earlier run of it */
  gboolean kept; /* after a failure or an abort: a registration that was made here could not, or must not, be taken back */
} HfMoveUnit;

typedef struct _HfMove HfMove;

/* record must outlive the move. Reads the journal; NULL with HF_PR_ERROR_JOURNAL if it is damaged. Free with hf_move_free. */
HF_PUBLIC HfMove *hf_move_new (const HfRecord *record, const HfMoveOptions *options, GError **error);
HF_PUBLIC void hf_move_free (HfMove *move);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (HfMove, hf_move_free)

/* Adds nexuses of this host, in the order given; they must outlive the move. Their identities are read in parallel. FALSE, and
   nothing added, if one cannot be read (HF_SCSI_ERROR) or is not in the record (HF_RECORD_ERROR_LU). */
HF_PUBLIC gboolean hf_move_add_lus (HfMove *move, HfLu *const *lus, guint n_lus, GError **error);

/* Reads only. TRUE if load would go through. Units of the record without a LU get HF_VERDICT_ERROR. */
HF_PUBLIC gboolean hf_move_check (HfMove *move);

/* Observes and registers. TRUE: every unit is accepted; else what was registered here was taken back. The journal is locked from
   here to hf_move_free: a second move of the record on this host ends in HF_VERDICT_ERROR. */
HF_PUBLIC gboolean hf_move_prepare (HfMove *move);

/* Takes over. Only after a prepare that returned TRUE. TRUE: every unit is in its final state; else the units tell which are. */
HF_PUBLIC gboolean hf_move_commit (HfMove *move);

/* Commits only those units that wanted is TRUE for; hf_move_commit or hf_move_abort follows for the rest, however long after, and
   the journal stays until then. TRUE: those are in their final state. */
typedef gboolean (*HfMoveWanted) (const HfMoveUnit *unit, gpointer user_data);
HF_PUBLIC gboolean hf_move_commit_some (HfMove *move, HfMoveWanted wanted, gpointer user_data);

/* The VM runs on this host, so there is no way back. From now on each LU goes as far as it can, whatever becomes of the others:
   every change is followed (HF_ON_CHANGE_ADOPT), a failure takes nothing back, hf_move_commit may follow a prepare that returned
   FALSE, and may be repeated after it returned FALSE itself. */
HF_PUBLIC void hf_move_set_running (HfMove *move);

/* Undoes a prepare by one unregister for each nexus it registered; units that were committed stay as they are. Of a move that
   was not prepared: undoes what an earlier run prepared, by its journal, and registers nothing. FALSE: something may be left. */
HF_PUBLIC gboolean hf_move_abort (HfMove *move);

/* Removes the registration of the nexuses that were added, after proving that nothing is lost by it. Instead of prepare and
 * commit. */
HF_PUBLIC gboolean hf_move_release (HfMove *move);

/* As hf_lu_take_unit_attentions, for an LU that was added: a move takes them for HfMoveUnit. */
HF_PUBLIC guint hf_move_take_unit_attentions (HfMove *move, HfLu *lu, guint16 *ret);

HF_PUBLIC guint hf_move_get_n_units (HfMove *move);
HF_PUBLIC const HfMoveUnit *hf_move_get_unit (HfMove *move, guint index);

/* Whose nexus registration index of observation is, seen from unit. Without READ FULL STATUS nearly always HF_OWNER_UNKNOWN. */
HF_PUBLIC HfOwner hf_move_unit_get_owner (HfMove *move, guint unit, const HfPrObservation *observation, guint index);

/* The names of all steps of a move, as they stand in errors, in the journal and in HOLDFAST_FAIL; NULL at the end; static. */
HF_PUBLIC const char *const *hf_move_steps (void);

/* What this host's nexuses lus (all of one LU) hold there. key 0: our registration is found by our own TransportID; if it cannot
   be known, HF_PR_ERROR_KEY asks for the key. ret_failure may be NULL; else it is filled on error, clear it with
   hf_unit_error_clear. */
HF_PUBLIC gboolean hf_pr_save (HfLu *const *lus, guint n_lus, guint64 key, HfPrSaved *ret, HfUnitError *ret_failure,
                               GError **error);
HF_PUBLIC void hf_unit_error_clear (HfUnitError *error);

/* A consistent picture of the LU (two equal readings where one command does not give all of it). ret_failure as above. */
HF_PUBLIC gboolean hf_pr_observe (HfLu *lu, const char *step, HfPrObservation *ret, HfUnitError *ret_failure, GError **error);

/* One PERSISTENT RESERVE OUT; the answer, whatever it is, in ret_result. flags: HF_SCSI_RETRY or HF_SCSI_PLAIN. */
HF_PUBLIC gboolean hf_pr_send (HfLu *lu, const char *step, const HfPrOut *out, HfScsiFlags flags, HfScsiResult *ret_result,
                               GError **error);

G_END_DECLS
