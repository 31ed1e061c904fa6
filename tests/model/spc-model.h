/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A model of one logical unit's persistent reservations, small enough to be read and believed.
 *
 * It is a second, independent writing-down of the rules: nothing in it comes from the library but the types of scsi.h, so that a
 * mistake in the code under test is not made twice. Three targets can be played: SPC-4 by the letter, LIO (the Linux kernel
 * target) and tgt, which differ in the places named in the traits table of spc-model.c.
 *
 * Not in the model: SPEC_I_PT and REPLACE LOST RESERVATION (5/2600, 5/2400), more than one block of data, more than one target.
 *
 * Thread: pure; whoever owns the HfModel. It is plain data: copy it with = to remember a state.
 */

#include <holdfast/scsi.h>

G_BEGIN_DECLS

typedef enum { HF_MODEL_SPC, HF_MODEL_LIO, HF_MODEL_TGT } HfModelQuirks;
#define HF_N_MODEL_QUIRKS (HF_MODEL_TGT + 1)

#define HF_MODEL_NEXUSES 8
#define HF_MODEL_UNIT_ATTENTIONS 8
#define HF_MODEL_BLOCK 512
#define HF_MODEL_SENSE 18

/* One I_T nexus as the LU sees it. */
typedef struct {
  HfNexus id; /* what READ FULL STATUS shows */
  guint64 key;
  gboolean registered, all_tg_pt;
  guint order; /* of the registration, for the list and for LIO's choice of the next internal holder */
  guint n_unit_attentions;
  guint16 unit_attentions[HF_MODEL_UNIT_ATTENTIONS]; /* ASC << 8 | ASCQ, the oldest first */
} HfModelNexus;

typedef struct {
  HfModelQuirks quirks;
  gboolean refuse_full_status; /* READ FULL STATUS answers 5/2000, as a target in pass-through mode does */
  gboolean no_aptpl_store;     /* LIO without its folder: registrations are executed and then answered 2/0800 */
  guint64 naa;

  guint n_nexuses;
  HfModelNexus nexuses[HF_MODEL_NEXUSES];
  guint n_orders;
  /* Registrations of nexuses that never send anything, all with one key: they make the lists long. */
  guint n_crowd;
  guint64 crowd_key;

  guint32 generation;
  guint8 type; /* of the reservation; 0: none */
  int holder;  /* index; for types 7, 8 the target's internal holder, which matters on LIO only; -1: none */
  gboolean aptpl;
  int scsi2_holder; /* RESERVE(6); -1: none */
  guint8 block[HF_MODEL_BLOCK];
} HfModel;

/* The LU's answer. in_length bytes of the caller's buffer are valid. */
typedef struct {
  guint8 status; /* HfSamStatus */
  guint8 sense_key;
  guint16 asc_ascq;
  guint32 in_length;
} HfModelAnswer;

/* All nexuses are unregistered; nexus n is SAS port 5001405000000000h + n, relative target port 1. */
void hf_model_init (HfModel *model, HfModelQuirks quirks, guint n_nexuses);

/* "SPC", "LIO", "tgt"; static */
const char *hf_model_quirks_to_string (HfModelQuirks quirks);

/* Executes one command of nexus. out: the parameter list or data of out_length bytes; in: room of in_size bytes. */
HfModelAnswer hf_model_execute (HfModel *model, guint nexus, const guint8 *cdb, gsize cdb_length, const guint8 *out,
                                gsize out_length, guint8 *in, gsize in_size);

/* Fixed format sense data of a CHECK CONDITION. */
void hf_model_answer_get_sense (const HfModelAnswer *answer, guint8 sense[HF_MODEL_SENSE]);

/* The port of nexus logs out and in again. Returns the index it has from now on: tgt takes it for a new nexus, and the
   registration of the old one stays listed with nobody behind it. */
guint hf_model_relogin (HfModel *model, guint nexus);

void hf_model_raise_unit_attention (HfModel *model, guint nexus, guint16 asc_ascq);

/* PERSISTENT RESERVE OUT without flags, repeated while the answer is a unit attention, as any initiator would. */
HfModelAnswer hf_model_pr_out (HfModel *model, guint nexus, guint8 action, guint64 key, guint64 new_key, guint8 type);

/* May nexus read or write now? Asks without taking a unit attention away. */
gboolean hf_model_may_access (const HfModel *model, guint nexus, gboolean write);

gboolean hf_model_is_all_registrants (const HfModel *model);

/* Does nexus hold the reservation? Under types 7, 8 every registrant does. */
gboolean hf_model_is_holder (const HfModel *model, guint nexus);

/* How many nexuses, the crowd included, are registered with key. */
guint hf_model_count_key (const HfModel *model, guint64 key);

/* Set up a state without commands: no generation, no unit attentions. key 0 unregisters. */
void hf_model_set_key (HfModel *model, guint nexus, guint64 key);
void hf_model_set_reservation (HfModel *model, guint nexus, guint8 type);

G_END_DECLS
