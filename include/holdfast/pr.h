/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Persistent reservations: the commands of SPC-4 6.15 and 6.16 as bytes, the answers as values, and the picture of what an LU
 * holds.
 *
 * Encoding and decoding is pure: no I/O, any thread, any bytes may be passed. Service actions are numbers of the standard, keys
 * are 64-bit values in host order.
 */

#include <holdfast/scsi.h>

G_BEGIN_DECLS

#define HF_PR_ERROR (hf_pr_error_quark ())
HF_PUBLIC GQuark hf_pr_error_quark (void);

typedef enum {
  HF_PR_ERROR_ARGUMENT, /* the caller asked for something SPC-4 cannot express */
  HF_PR_ERROR_ANSWER,   /* the target's bytes are malformed */
  HF_PR_ERROR_DEVICE,   /* the target answered something else than GOOD */
  HF_PR_ERROR_CHANGING, /* the LU's reservations changed faster than they could be read */
  HF_PR_ERROR_KEY,      /* our registration cannot be told: a key is needed */
  HF_PR_ERROR_JOURNAL,  /* the journal cannot be read or written */
  HF_PR_ERROR_STATE     /* the function was called out of order */
} HfPrError;

typedef enum {
  HF_PR_IN_READ_KEYS = 0,
  HF_PR_IN_READ_RESERVATION = 1,
  HF_PR_IN_REPORT_CAPABILITIES = 2,
  HF_PR_IN_READ_FULL_STATUS = 3
} HfPrInAction;

typedef enum {
  HF_PR_OUT_REGISTER = 0,
  HF_PR_OUT_RESERVE = 1,
  HF_PR_OUT_RELEASE = 2,
  HF_PR_OUT_CLEAR = 3,
  HF_PR_OUT_PREEMPT = 4,
  HF_PR_OUT_PREEMPT_AND_ABORT = 5,
  HF_PR_OUT_REGISTER_AND_IGNORE = 6,
  HF_PR_OUT_REGISTER_AND_MOVE = 7,
  HF_PR_OUT_REPLACE_LOST_RESERVATION = 8
} HfPrOutAction;

/* SPC-4 6.15.3.4. 0 is "no reservation" here and never sent. */
typedef enum {
  HF_PR_TYPE_NONE = 0,
  HF_PR_TYPE_WRITE_EXCLUSIVE = 1,
  HF_PR_TYPE_EXCLUSIVE_ACCESS = 3,
  HF_PR_TYPE_WRITE_EXCLUSIVE_REGISTRANTS_ONLY = 5,
  HF_PR_TYPE_EXCLUSIVE_ACCESS_REGISTRANTS_ONLY = 6,
  HF_PR_TYPE_WRITE_EXCLUSIVE_ALL_REGISTRANTS = 7,
  HF_PR_TYPE_EXCLUSIVE_ACCESS_ALL_REGISTRANTS = 8
} HfPrType;

HF_PUBLIC gboolean hf_pr_type_is_valid (guint8 type);           /* 1, 3, 5, 6, 7, 8 */
HF_PUBLIC gboolean hf_pr_type_is_all_registrants (guint8 type); /* 7, 8 */
HF_PUBLIC const char *hf_pr_type_to_string (guint8 type); /* "Write Exclusive, registrants only"; "none"; "obsolete"; static */
HF_PUBLIC const char *hf_pr_in_action_to_string (guint8 action);  /* "READ KEYS"; static */
HF_PUBLIC const char *hf_pr_out_action_to_string (guint8 action); /* "REGISTER AND IGNORE EXISTING KEY"; static */

/* ---- PERSISTENT RESERVE OUT ---- */

typedef struct {
  guint8 action; /* HfPrOutAction */
  guint8 scope;  /* 0: LU */
  guint8 type;
  guint64 key;     /* RESERVATION KEY */
  guint64 new_key; /* SERVICE ACTION RESERVATION KEY */
  gboolean aptpl, all_tg_pt;
  /* SPEC_I_PT, with REGISTER only: these initiator ports are registered too. For REGISTER AND MOVE: exactly one. */
  const HfTransportId *transport_ids;
  guint n_transport_ids;
  gboolean unregister;          /* UNREG, REGISTER AND MOVE only */
  guint16 relative_target_port; /* REGISTER AND MOVE only */
} HfPrOut;

/* The CDB (10 bytes, into cdb of at least 10) and the parameter list. Free the list with g_byte_array_unref. NULL with
   HF_PR_ERROR_ARGUMENT. */
HF_PUBLIC GByteArray *hf_pr_out_encode (const HfPrOut *out, guint8 *cdb, GError **error);

/* The other way, for helpers that pass a guest's command on: what a CDB of cdb_length bytes and its parameter list ask for. FALSE
   with HF_PR_ERROR_ARGUMENT if they are not a PERSISTENT RESERVE OUT or malformed. transport_ids is not decoded (n_transport_ids
   counts them, transport_ids is NULL). */
HF_PUBLIC gboolean hf_pr_out_decode (const guint8 *cdb, gsize cdb_length, const guint8 *list, gsize list_length, HfPrOut *ret,
                                     GError **error);

/* ---- PERSISTENT RESERVE IN ---- */

/* 10 bytes into cdb. */
HF_PUBLIC void hf_pr_in_encode (guint8 action, guint16 allocation_length, guint8 *cdb);

typedef struct {
  guint32 generation;
  guint32 additional_length; /* as the target said it: more than arrived means that the list was cut */
  gboolean truncated;        /* the list did not fit: ask again with additional_length + 8 bytes */
  guint n_keys;              /* whole keys that arrived; equal keys appear several times */
  guint64 *keys;
} HfPrKeys;
HF_PUBLIC gboolean hf_pr_keys_decode (const guint8 *data, gsize length, HfPrKeys *ret, GError **error);
HF_PUBLIC void hf_pr_keys_clear (HfPrKeys *keys); /* frees the content; all-zero is accepted */

typedef struct {
  guint32 generation;
  gboolean reserved;
  guint64 key; /* the holder's; 0 for types 7, 8 */
  guint8 scope, type;
} HfPrReservation;
HF_PUBLIC gboolean hf_pr_reservation_decode (const guint8 *data, gsize length, HfPrReservation *ret, GError **error);

typedef struct {
  gboolean replace_lost_reservation_capable, compatible_reservation_handling, specify_initiator_ports_capable,
      all_target_ports_capable, persist_through_power_loss_capable, persist_through_power_loss_activated, type_mask_valid;
  guint8 allow_commands; /* 0 to 7 */
  guint16 type_mask;     /* bit N: type N is supported; valid with type_mask_valid */
} HfPrCapabilities;
HF_PUBLIC gboolean hf_pr_capabilities_decode (const guint8 *data, gsize length, HfPrCapabilities *ret, GError **error);

/* One registrant in READ FULL STATUS. */
typedef struct {
  guint64 key;
  HfNexus nexus;
  gboolean holder, all_tg_pt;
  guint8 scope, type; /* of the reservation; 0 unless holder */
} HfPrRegistrant;

typedef struct {
  guint32 generation;
  guint32 additional_length;
  gboolean truncated;
  guint n_registrants;
  HfPrRegistrant *registrants;
} HfPrFullStatus;
HF_PUBLIC gboolean hf_pr_full_status_decode (const guint8 *data, gsize length, HfPrFullStatus *ret, GError **error);
HF_PUBLIC void hf_pr_full_status_clear (HfPrFullStatus *status);

/* ---- what an LU holds ---- */

/* A consistent picture of one LU's registrations and its reservation. */
typedef struct {
  guint32 generation;
  guint n_keys;
  guint64 *keys;
  gboolean full; /* READ FULL STATUS worked: registrants has n_keys entries in the order of keys, else NULL */
  HfPrRegistrant *registrants;
  gboolean reserved;
  guint64 holder_key; /* 0 for types 7, 8 */
  guint8 scope, type;
} HfPrObservation;

HF_PUBLIC void hf_pr_observation_clear (HfPrObservation *observation);
HF_PUBLIC void hf_pr_observation_copy (const HfPrObservation *observation, HfPrObservation *ret);
HF_PUBLIC gboolean hf_pr_observation_equal (const HfPrObservation *a, const HfPrObservation *b);
HF_PUBLIC guint hf_pr_observation_count_key (const HfPrObservation *observation, guint64 key);

/* ---- one LU's share of a record ---- */

#define HF_PR_NEXUSES_MAX 32

/* What a VM holds on one LU. Plain data but for nexuses. */
typedef struct {
  HfLuIdentity identity;
  guint64 key; /* 0: the VM has no registration here, and the rest but identity and generation is 0 */
  guint8 type; /* HfPrType; 0: registered, not holding. For types 7, 8 every registrant holds */
  guint8 scope;
  gboolean aptpl, all_tg_pt;
  guint32 generation; /* PRGENERATION at save */
  guint key_count;    /* how often the key was listed at save: at least n_nexuses unless READ KEYS lagged */
  guint n_nexuses;    /* the source's I_T nexuses, at most HF_PR_NEXUSES_MAX; at least 1 if key is not 0 */
  HfNexus *nexuses;
} HfPrSaved;

HF_PUBLIC void hf_pr_saved_clear (HfPrSaved *saved);
HF_PUBLIC void hf_pr_saved_copy (const HfPrSaved *saved, HfPrSaved *ret);

/* ---- what a guest holds, learnt command by command ---- */

typedef struct {
  guint64 key; /* 0: not registered */
  guint8 type, scope;
  gboolean aptpl, all_tg_pt;
  gboolean uncertain; /* an answer did not tell what happened: read the disk (hf_pr_state_resolve) before trusting the rest */
} HfPrState;

/* Pure. Learns from a guest's PERSISTENT RESERVE OUT and its status (HfSamStatus; or -1: timeout, lost link). RESERVATION
   CONFLICT changes nothing; any other status than GOOD makes the state uncertain, and so does a GOOD PREEMPT (AND ABORT) whose
   SERVICE ACTION RESERVATION KEY is the guest's own key. TRUE if the state changed. */
HF_PUBLIC gboolean hf_pr_state_learn (HfPrState *state, const HfPrOut *command, int status);

/* Pure. Settles an uncertain state by what the LU shows. own: the guest's nexus, NULL or unknown: judged by key. candidate_key:
   the key the guest may have (SERVICE ACTION RESERVATION KEY of the unclear REGISTER), or 0. */
HF_PUBLIC void hf_pr_state_resolve (HfPrState *state, const HfPrObservation *observation, const HfNexus *own,
                                    guint64 candidate_key);

G_END_DECLS
