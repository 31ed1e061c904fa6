/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the files of one unit share: pr-unit.c (the loop and the phases), pr-unit-act.c (looking, sending, taking back, with the
 * journal), pr-unit-release.c, pr-unit-abort.c. Nobody else includes this.
 */

#include "pr/pr-exec.h"
#include "pr/pr-unit.h"

#define HF_SURPRISES_MAX 5 /* decisions anew because others acted or an answer was unclear */
#define HF_STEPS_MAX 256   /* more than any number of nexuses needs: a bound for a target that makes no sense */
#define HF_REFUSALS_MAX 2  /* the same command answered CHECK CONDITION without effect */

struct _HfUnit {
  HfMoveUnit result;
  char *merged; /* a note on nexuses that were given twice; or NULL */
  const HfUnitShared *shared;
  guint n_lus;
  HfPrExec exec[HF_PR_NEXUSES_MAX];
  HfPlanNexus ours[HF_PR_NEXUSES_MAX];
  gboolean touched[HF_PR_NEXUSES_MAX]; /* a REGISTER of ours may stand here */
  gboolean touched_before;             /* ... the last REGISTER */
  gboolean register_answered;          /* with GOOD */
  gboolean stale[HF_PR_NEXUSES_MAX];   /* and the link was set up anew since */
  guint logins[HF_PR_NEXUSES_MAX];     /* hf_lu_get_logins at the last look */
  guint n_met[HF_PR_NEXUSES_MAX];      /* unit attentions of each nexus that nobody took yet */
  guint16 met[HF_PR_NEXUSES_MAX][HF_SCSI_UA_MAX];
  HfPlanInput input;
  HfPlan plan;
  HfPrObservation seen;
  gint64 seen_at; /* 0: seen is empty or out of date */
  const char *look;
  gboolean only_reads; /* check */
  gboolean read_twice; /* the look that follows, or the last one, if READ FULL STATUS does not work */
  HfVerdict last_verdict;
  gboolean decided;
  gboolean committed;
  gboolean take_over_sent; /* and not known to have failed */
  gboolean aptpl_known, aptpl;
  gboolean uncounted;    /* a command since the last look whose effect on PRGENERATION differs between targets, or is not known */
  gboolean others_acted; /* PRGENERATION moved by more than our own commands since the last decision */
  guint counted;         /* commands since the last look that count in PRGENERATION */
  guint surprises, refusals;
  HfUnitError refusal; /* of the last PERSISTENT RESERVE OUT, if it was not GOOD */
  gint64 deadline;
};

typedef enum { HF_ANSWER_GOOD, HF_ANSWER_CONFLICT, HF_ANSWER_UNCLEAR } HfAnswer;

/* ---- pr-unit.c ---- */

/* A phase that starts anew knows what the journal says, and nothing else. only_reads: it sends no PERSISTENT RESERVE OUT. */
void hf_unit_start_anew (HfUnit *unit, gboolean only_reads);

/* Frame a phase: deadline, sums, unit attentions. */
void hf_unit_start (HfUnit *unit);
void hf_unit_finish (HfUnit *unit);

/* The unit ends with verdict, not accepted; takes over what is in failure. */
void hf_unit_fail (HfUnit *unit, HfVerdict verdict, HfUnitError *failure);
/* The same where no command went wrong, but no progress is made. */
void hf_unit_give_up (HfUnit *unit);
void hf_unit_forget_notes (HfUnit *unit);

/* FALSE, and failed: a unit with a key has no nexus here. */
gboolean hf_unit_is_reachable (HfUnit *unit);
/* Row 1 of the table: the VM had no key. TRUE: the unit is at its end. */
gboolean hf_unit_is_none (HfUnit *unit);

/* ---- pr-unit-act.c ---- */

/* FALSE, and failed, if the journal cannot be written: then nothing may be sent. */
gboolean hf_unit_write_journal (HfUnit *unit, HfJournalKind kind, const char *step, guint nexus, HfAction action);

/* Looks through the first nexus that answers. FALSE: none did; each exec has its failure. */
gboolean hf_unit_look (HfUnit *unit, HfObserve observe);
/* The same, again and again once something was sent. FALSE, and failed: the LU cannot be read. */
gboolean hf_unit_look_until_seen (HfUnit *unit);

/* A REGISTER without an answer, and PRGENERATION as before it: it was not executed, so what the nexus has is its own. write: into
   the journal. FALSE, and failed: that did not work. */
gboolean hf_unit_settle_unanswered (HfUnit *unit, gboolean write);

gboolean hf_unit_is_any_touched (HfUnit *unit);
gboolean hf_unit_learn_aptpl (HfUnit *unit, guint nexus);
HfAnswer hf_unit_send (HfUnit *unit, HfAction action, guint nexus, const char *step, HfScsiResult *ret_result);
gboolean hf_unit_after_probe (HfUnit *unit, guint nexus, HfAnswer answer);

/* Sends the plan's command. FALSE, and failed: journal or capabilities. */
gboolean hf_unit_act (HfUnit *unit);

/* Takes back what this move registered. After the take-over there is no way back: the reservation is ours. */
void hf_unit_back_out (HfUnit *unit);
