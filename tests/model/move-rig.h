/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * One run of the real move on a model, with a third party that acts between two commands and a watcher that compares the LU
 * before and after every command of ours with the safety rules.
 *
 *   source S: nexus 0      destination D: nexus 1      third party T: nexus 2
 *
 * A case is all that decides a run. It can be written as one line and read back, so that a failing one can be run alone:
 *   HOLDFAST_MODEL_CASE="target=2 identified=1 role=0 ..." tests/model/test-move-model
 * Members that are not named are 0.
 */

#include <holdfast/move.h>

#include "model-transport.h"

enum { RIG_S, RIG_D, RIG_T, RIG_NEXUSES };

#define RIG_KEY G_GUINT64_CONSTANT (0x4b4b4b4b00000001)       /* K: the VM's */
#define RIG_OTHER_KEY G_GUINT64_CONSTANT (0x5858585800000000) /* + nexus: somebody else's */
#define RIG_NEW_KEY G_GUINT64_CONSTANT (0x5858585800000010)   /* what T registers when it acts */

typedef enum { RIG_SPC, RIG_SPC_BLIND, RIG_LIO, RIG_LIO_BLIND, RIG_TGT } RigTarget; /* blind: no READ FULL STATUS */
#define RIG_N_TARGETS (RIG_TGT + 1)

/* Whose TransportIDs are known: nobody's, ours and in the record the source's, ours only, the record's only. */
typedef enum { RIG_ID_NONE, RIG_ID_BOTH, RIG_ID_OURS, RIG_ID_RECORD } RigIdentified;
#define RIG_N_IDENTIFIED (RIG_ID_RECORD + 1)

typedef enum { RIG_NO_KEY, RIG_HAS_KEY, RIG_HAS_OTHER } RigKey;

/* What somebody else does, at one instant. */
typedef enum {
  RIG_NOTHING,
  RIG_PREEMPT,         /* T registers if need be and preempts K: the fence */
  RIG_CLEAR,           /* T registers if need be and clears */
  RIG_REGISTER,        /* T registers a key of its own */
  RIG_RELEASE,         /* the VM's holder releases */
  RIG_RESERVE,         /* the same, and T reserves */
  RIG_CHANGE_TYPE,     /* the holder releases and reserves with another type */
  RIG_SELF_PREEMPT,    /* the VM's holder preempts its own key with another type */
  RIG_IMPOSTOR,        /* T registers K */
  RIG_PEER_UNREGISTERS /* the VM's nexus on the other host leaves */
} RigAction;
#define RIG_N_ACTIONS (RIG_PEER_UNREGISTERS + 1)

/* The last three are what a running VM needs: a commit once it is known that it runs here, an abort behind a commit of other LUs,
   and an abort of what an earlier run prepared. */
typedef enum {
  RIG_LOAD,
  RIG_CHECK,
  RIG_ABORT,
  RIG_REFUSE,
  RIG_RELEASE_VERB,
  RIG_LATER,
  RIG_LATER_ABORT,
  RIG_EARLIER_ABORT
} RigVerb;
#define RIG_N_VERBS (RIG_EARLIER_ABORT + 1)

#define RIG_SAVED_NOTHING 255

typedef struct {
  guint target;          /* RigTarget */
  guint identified;      /* the transports know their TransportIDs, and the record the source's */
  guint role;            /* HfRole */
  guint saved;           /* type; 0: K registered only; RIG_SAVED_NOTHING: no key */
  guint keys[3];         /* RigKey of S, D, T */
  guint type;            /* of the reservation; 0: none */
  guint holder;          /* with type: a registered nexus */
  guint verb;            /* RigVerb */
  guint aptpl;           /* 1: saved with APTPL, 2: not, but PTPL_A is 1; the LU has it */
  guint gone;            /* --source-gone */
  guint action, at;      /* RigAction before command number at */
  guint fault, fault_at; /* HfModelFault */
  guint random;          /* instead of action and at: a seed; somebody acts before every sixth command or so */
  guint dead;            /* from fault_at on nothing is answered any more: the host died */
} RigCase;

typedef struct {
  RigCase c;
  HfModel model, initial;
  guint own; /* the index of our nexus; a restart may change it */
  HfRecord *record;
  GRand *rand;       /* NULL without random */
  HfModel at_action; /* before the action */
  HfModelWire wire;
  HfModelHook also; /* a second ear of the test: called first in before */
  gpointer also_data;
  GString *violations; /* empty: the rules were kept */

  /* the watcher's */
  guint acted_now;           /* RigAction before the command that is under way */
  HfModel pre;               /* before the command that is under way */
  gboolean acted;            /* the action took place */
  gboolean acted_since_read; /* and no reservation was read since */
  gboolean took_over;        /* a PREEMPT of ours made us the holder */
  gboolean impostor;         /* T registered K meanwhile */
  gboolean fenced;           /* K was on none of our nexuses at an instant, and not through us */
  gboolean lost;             /* the peer's K went away, and not through us */
  gboolean seen_fenced;      /* the fence, and a read since it */
  gboolean resurrected;      /* K is there by our unverified REGISTER alone */
  guint reads;               /* since then */
  guint outs, last_out;      /* PERSISTENT RESERVE OUTs of ours; the number of the last one */

  /* the result */
  gboolean prepared, committed, taken_over, kept;
  HfVerdict verdict, alternative;
  gboolean certain, accepted;
  guint8 type;
  guint commands;
  char *text; /* of the unit's error and note */
} Rig;

void rig_init (Rig *rig, const RigCase *c);
void rig_clear (Rig *rig);

/* Runs the case's verb once on the rig's model. state_dir NULL: no journal. The same rig may run again: a new process on the same
 * LU. */
void rig_run (Rig *rig, const char *state_dir);

/* The program ends and starts again, on what the LU holds now and without faults and third parties. */
void rig_restart (Rig *rig);

void rig_violation (Rig *rig, const char *format, ...) G_GNUC_PRINTF (2, 3);

/* The nexus that sends. */
guint rig_own (const RigCase *c);
guint rig_peer (const RigCase *c);
gboolean rig_full_status (const RigCase *c);
/* READ FULL STATUS works and all names are known. */
gboolean rig_told (const RigCase *c);

gboolean rig_has_key (const HfModel *model, guint nexus);
/* On how many of the VM's nexuses K is. */
guint rig_count_ours (const HfModel *model);
/* The reservation is under K, by one of the VM's nexuses. */
gboolean rig_is_held (const HfModel *model);
/* Same registrations, same holder, same type: what initiators can see but for PRGENERATION. */
gboolean rig_same (const HfModel *a, const HfModel *b);
char *rig_describe (const HfModel *model);

/* The case as numbers, and in words behind a "#". Free with g_free. */
char *rig_case_to_string (const RigCase *c);
gboolean rig_case_parse (const char *text, RigCase *ret);

/* A record of one LU as the source saved it. */
HfRecord *rig_make_record (const HfModel *model, const RigCase *c, const guint *sources, guint n_sources);
