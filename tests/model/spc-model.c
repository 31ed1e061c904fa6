/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns: nothing but the HfModel it is given. Thread: pure.
 *
 * DOC: Theory of Operation
 * A command passes three gates and then its function: a pending unit attention answers in its place (SAM-5 5.14), a SCSI-2
 * reservation of another nexus refuses it (SPC-2 5.5.1), and the function decides by the tables of SPC-4 5.13. What a target does
 * differently stands in traits[]; the code asks for the trait, never for the target's name.
 *
 * Registrations are kept per nexus. Equal keys are common, so nothing here is found by key except where the standard says so.
 */
#include "spc-model.h"

#include <string.h>

#define KEY_ILLEGAL_REQUEST 5
#define KEY_UNIT_ATTENTION 6
#define KEY_NOT_READY 2

#define ASC_LUN_COMMUNICATION_FAILURE 0x0800
#define ASC_PARAMETER_LIST_LENGTH 0x1a00
#define ASC_INVALID_OPCODE 0x2000
#define ASC_LBA_OUT_OF_RANGE 0x2100
#define ASC_INVALID_FIELD_IN_CDB 0x2400
#define ASC_INVALID_FIELD_IN_LIST 0x2600
#define ASC_INVALID_RELEASE 0x2604
#define UA_RESERVATIONS_PREEMPTED 0x2a03
#define UA_RESERVATIONS_RELEASED 0x2a04
#define UA_REGISTRATIONS_PREEMPTED 0x2a05

/* What the targets do differently. */
typedef struct {
  const char *name;
  guint8 capabilities[8];
  gboolean has_flags;                 /* APTPL, ALL_TG_PT; else 5/2400 */
  gboolean has_full_status;           /* READ FULL STATUS; else 5/2400 */
  gboolean has_preempt_and_abort;     /* else 5/2400 */
  gboolean cuts_full_status;          /* ADDITIONAL LENGTH of READ FULL STATUS says what fits, not what there is */
  guint16 list_length_asc;            /* for a parameter list of a wrong length */
  guint8 minimum_allocation;          /* PR IN below it: 5/2400 */
  guint8 minimum_allocation_caps;     /* the same for REPORT CAPABILITIES */
  gboolean unregistered_is_not_ready; /* RESERVE, RELEASE, CLEAR of an unregistered nexus, nothing reserved: 2/0800 */
  gboolean reserve_ignores_key;       /* RESERVE with a wrong RESERVATION KEY is accepted */
  gboolean release_checks_key_late;   /* RELEASE looks at the key only if there is something to release */
  gboolean release_type_conflict;     /* RELEASE with a wrong type: conflict instead of 5/2604 */
  gboolean preempt_checks_type;       /* PREEMPT with an invalid TYPE: 5/2400 even if no reservation is made */
  gboolean preempt_accepts_type_0;    /* and leaves a reservation of type 0, that is, none */
  gboolean preempt_key_0_ok;          /* SARK 0 without types 7, 8: GOOD instead of 5/2600 */
  gboolean preempt_keeps_caller;      /* SARK is the caller's own key and not the holder's: the caller stays */
  gboolean preempt_internal_holder; /* types 7, 8: SARK is the internal holder's key makes a new reservation of the CDB's TYPE */
  gboolean preempt_nobody_conflict; /* types 7, 8: SARK that only the caller has: conflict */
  gboolean preempt_says_2a03;       /* PREEMPT raises 2A03 where SPC-4 wants 2A05 */
  gboolean inverted_2a04;           /* RELEASE: for types 1, 3 only, at the caller and the unregistered nexuses */
  gboolean unregister_keeps_generation; /* unregistering does not count */
  gboolean unregister_holder_counts_2;  /* unregistering by the holder counts twice, */
  gboolean empty_register_counts;       /* and REGISTER (0, 0) of an unregistered nexus once */
  gboolean clear_drops_aptpl;
  gboolean sticky_all_tg_pt;        /* a nexus registered with ALL_TG_PT: REGISTER without it 5/2400 */
  gboolean move_wants_registration; /* REGISTER AND MOVE: the new nexus must be registered */
  gboolean relogin_is_new_nexus;
} Traits;

static const Traits traits[] = {
  [HF_MODEL_SPC] = { .name = "SPC",
                     .capabilities = { 0x00, 0x08, 0x1d, 0x90, 0xea, 0x01 },
                     .has_flags = TRUE,
                     .has_full_status = TRUE,
                     .has_preempt_and_abort = TRUE,
                     .list_length_asc = ASC_PARAMETER_LIST_LENGTH },
  [HF_MODEL_LIO] = { .name = "LIO",
                     .capabilities = { 0x00, 0x08, 0x1d, 0x90, 0xea, 0x01 },
                     .has_flags = TRUE,
                     .has_full_status = TRUE,
                     .has_preempt_and_abort = TRUE,
                     .cuts_full_status = TRUE,
                     .list_length_asc = ASC_PARAMETER_LIST_LENGTH,
                     .minimum_allocation = 8,
                     .minimum_allocation_caps = 6,
                     .unregistered_is_not_ready = TRUE,
                     .release_checks_key_late = TRUE,
                     .release_type_conflict = TRUE,
                     .preempt_checks_type = TRUE,
                     .preempt_internal_holder = TRUE,
                     .preempt_nobody_conflict = TRUE,
                     .unregister_keeps_generation = TRUE,
                     .clear_drops_aptpl = TRUE,
                     .sticky_all_tg_pt = TRUE },
  [HF_MODEL_TGT] = { .name = "tgt",
                     .capabilities = { 0x00, 0x08, 0x00, 0x80, 0xea, 0x01 },
                     .list_length_asc = ASC_INVALID_FIELD_IN_CDB,
                     .minimum_allocation = 8,
                     .minimum_allocation_caps = 8,
                     .reserve_ignores_key = TRUE,
                     .release_checks_key_late = TRUE,
                     .preempt_accepts_type_0 = TRUE,
                     .preempt_key_0_ok = TRUE,
                     .preempt_keeps_caller = TRUE,
                     .preempt_says_2a03 = TRUE,
                     .inverted_2a04 = TRUE,
                     .unregister_holder_counts_2 = TRUE,
                     .empty_register_counts = TRUE,
                     .move_wants_registration = TRUE,
                     .relogin_is_new_nexus = TRUE },
};
G_STATIC_ASSERT (G_N_ELEMENTS (traits) == HF_N_MODEL_QUIRKS);

static const Traits *
get_traits (const HfModel *model)
{
  return &traits[model->quirks];
}

static const HfModelAnswer good = { HF_SAM_GOOD, 0, 0, 0 };
static const HfModelAnswer conflict = { HF_SAM_RESERVATION_CONFLICT, 0, 0, 0 };

static HfModelAnswer
check_condition (guint8 key, guint16 asc_ascq)
{
  return (HfModelAnswer){ HF_SAM_CHECK_CONDITION, key, asc_ascq, 0 };
}

static HfModelAnswer
illegal (guint16 asc_ascq)
{
  return check_condition (KEY_ILLEGAL_REQUEST, asc_ascq);
}

/* ---- bytes ---- */

static guint64
get_be (const guint8 *bytes, guint n)
{
  guint64 value = 0;

  for (guint i = 0; i < n; i++)
    value = value << 8 | bytes[i];
  return value;
}

static void
set_be (guint8 *bytes, guint n, guint64 value)
{
  for (guint i = 0; i < n; i++)
    bytes[i] = (guint8)(value >> 8 * (n - 1 - i));
}

/* Data-in: counts everything, keeps what fits. */
typedef struct {
  guint8 *data;
  gsize size, length;
} Sink;

static void
put_bytes (Sink *sink, const guint8 *bytes, gsize n)
{
  for (gsize i = 0; i < n; i++, sink->length++)
    if (sink->length < sink->size)
      sink->data[sink->length] = bytes[i];
}

static void
put (Sink *sink, guint n, guint64 value)
{
  guint8 bytes[8];

  set_be (bytes, n, value);
  put_bytes (sink, bytes, n);
}

static HfModelAnswer
sent (const Sink *sink)
{
  HfModelAnswer answer = good;

  answer.in_length = (guint32)MIN (sink->length, sink->size);
  return answer;
}

/* ---- state ---- */

static gboolean
type_is_valid (guint8 type)
{
  return type == 1 || type == 3 || (type >= 5 && type <= 8);
}

static gboolean
type_is_all_registrants (guint8 type)
{
  return type == 7 || type == 8;
}

gboolean
hf_model_is_all_registrants (const HfModel *model)
{
  return type_is_all_registrants (model->type);
}

gboolean
hf_model_is_holder (const HfModel *model, guint nexus)
{
  if (model->type == 0)
    return FALSE;
  return hf_model_is_all_registrants (model) ? model->nexuses[nexus].registered : model->holder == (int)nexus;
}

static guint64
holder_key (const HfModel *model)
{
  return model->holder < 0 ? 0 : model->nexuses[model->holder].key;
}

guint
hf_model_count_key (const HfModel *model, guint64 key)
{
  guint count = model->n_crowd > 0 && model->crowd_key == key ? model->n_crowd : 0;

  for (guint i = 0; i < model->n_nexuses; i++)
    count += model->nexuses[i].registered && model->nexuses[i].key == key;
  return count;
}

/* SPC-4 table 62 and 63: READ and WRITE while a persistent reservation is there. */
gboolean
hf_model_may_access (const HfModel *model, guint nexus, gboolean write)
{
  if (model->scsi2_holder >= 0)
    return model->scsi2_holder == (int)nexus;
  if (model->type == 0 || hf_model_is_holder (model, nexus))
    return TRUE;
  if (model->nexuses[nexus].registered && model->type >= 5)
    return TRUE;
  return !write && (model->type == 1 || model->type == 5 || model->type == 7);
}

void
hf_model_raise_unit_attention (HfModel *model, guint nexus, guint16 asc_ascq)
{
  HfModelNexus *n = &model->nexuses[nexus];

  if (n->n_unit_attentions < HF_MODEL_UNIT_ATTENTIONS)
    n->unit_attentions[n->n_unit_attentions++] = asc_ascq;
}

static void
attend_other_registrants (HfModel *model, guint caller, guint16 asc_ascq)
{
  for (guint i = 0; i < model->n_nexuses; i++)
    if (i != caller && model->nexuses[i].registered)
      hf_model_raise_unit_attention (model, i, asc_ascq);
}

static void
drop_reservation (HfModel *model)
{
  model->type = 0;
  model->holder = -1;
}

static void
add_registration (HfModel *model, guint nexus, guint64 key)
{
  HfModelNexus *n = &model->nexuses[nexus];

  if (!n->registered)
    n->order = ++model->n_orders;
  n->registered = TRUE;
  n->key = key;
}

static int
oldest_registrant (const HfModel *model)
{
  int oldest = -1;

  for (guint i = 0; i < model->n_nexuses; i++)
    if (model->nexuses[i].registered && (oldest < 0 || model->nexuses[i].order < model->nexuses[oldest].order))
      oldest = (int)i;
  return oldest;
}

/* The registration, and what hangs on it: the reservation of types 1, 3, 5, 6 ends with its holder's, that of 7, 8 with the last
   (SPC-4 5.13.11.2.2, 5.13.11.2.3). */
static void
remove_registration (HfModel *model, guint nexus)
{
  HfModelNexus *n = &model->nexuses[nexus];
  gboolean all = hf_model_is_all_registrants (model);

  n->registered = n->all_tg_pt = FALSE;
  n->key = 0;
  if (model->type == 0)
    return;
  if (model->holder == (int)nexus)
    model->holder = all ? oldest_registrant (model) : -1;
  if (model->holder < 0 && (!all || model->n_crowd == 0))
    drop_reservation (model);
}

void
hf_model_set_key (HfModel *model, guint nexus, guint64 key)
{
  if (key == 0)
    remove_registration (model, nexus);
  else
    add_registration (model, nexus, key);
}

void
hf_model_set_reservation (HfModel *model, guint nexus, guint8 type)
{
  model->type = type;
  model->holder = type == 0 ? -1 : (int)nexus;
}

void
hf_model_init (HfModel *model, HfModelQuirks quirks, guint n_nexuses)
{
  g_assert_cmpuint (n_nexuses, <=, HF_MODEL_NEXUSES);
  memset (model, 0, sizeof *model);
  model->quirks = quirks;
  model->naa = G_GUINT64_CONSTANT (0x6001405a0b0c0d0e);
  model->holder = model->scsi2_holder = -1;
  model->n_nexuses = n_nexuses;
  for (guint i = 0; i < n_nexuses; i++) {
    HfNexus *id = &model->nexuses[i].id;
    id->relative_target_port = 1;
    id->transport_id.length = 24;
    id->transport_id.bytes[0] = 0x06; /* SAS, SPC-4 7.6.4.7 */
    set_be (id->transport_id.bytes + 4, 8, G_GUINT64_CONSTANT (0x5001405000000000) + i);
  }
}

const char *
hf_model_quirks_to_string (HfModelQuirks quirks)
{
  return traits[quirks].name;
}

guint
hf_model_relogin (HfModel *model, guint nexus)
{
  guint fresh = model->n_nexuses;

  if (!get_traits (model)->relogin_is_new_nexus)
    return nexus;
  g_assert_cmpuint (fresh, <, HF_MODEL_NEXUSES);
  model->n_nexuses++;
  memset (&model->nexuses[fresh], 0, sizeof model->nexuses[fresh]);
  model->nexuses[fresh].id = model->nexuses[nexus].id;
  return fresh;
}

/* ---- PERSISTENT RESERVE OUT ---- */

typedef struct {
  guint8 action, scope, type;
  guint64 key, new_key;
  gboolean spec_i_pt, all_tg_pt, aptpl, unregister;
  guint16 relative_target_port;
  const guint8 *transport_id;
  guint32 transport_id_length;
} Out;

static gboolean
decode_out (const guint8 *cdb, const guint8 *list, gsize length, Out *ret)
{
  gboolean move = (cdb[1] & 0x1f) == 7;

  if (get_be (cdb + 5, 4) != length || length < 24 || (!move && length != 24 && !(list[20] & 0x08)))
    return FALSE;
  *ret = (Out){ .action = cdb[1] & 0x1f, .scope = cdb[2] >> 4, .type = cdb[2] & 0x0f };
  ret->key = get_be (list, 8);
  ret->new_key = get_be (list + 8, 8);
  if (!move) {
    ret->spec_i_pt = (list[20] & 0x08) != 0;
    ret->all_tg_pt = (list[20] & 0x04) != 0;
    ret->aptpl = (list[20] & 0x01) != 0;
    return TRUE;
  }
  ret->unregister = (list[17] & 0x02) != 0;
  ret->aptpl = (list[17] & 0x01) != 0;
  ret->relative_target_port = (guint16)get_be (list + 18, 2);
  ret->transport_id_length = (guint32)get_be (list + 20, 4);
  ret->transport_id = list + 24;
  return ret->transport_id_length == length - 24;
}

static guint
unregister_counts (const HfModel *model, guint nexus)
{
  const Traits *t = get_traits (model);

  if (t->unregister_keeps_generation)
    return 0;
  return t->unregister_holder_counts_2 && model->type != 0 && model->holder == (int)nexus ? 2 : 1;
}

static void
unregister (HfModel *model, guint nexus)
{
  guint8 type = model->type;

  model->generation += unregister_counts (model, nexus);
  remove_registration (model, nexus);
  if (model->type == 0 && (type == 5 || type == 6) && !get_traits (model)->inverted_2a04)
    attend_other_registrants (model, nexus, UA_RESERVATIONS_RELEASED);
}

/* REGISTER and REGISTER AND IGNORE EXISTING KEY, SPC-4 5.13.7. */
static HfModelAnswer
out_register (HfModel *model, guint nexus, const Out *out)
{
  HfModelNexus *n = &model->nexuses[nexus];
  const Traits *t = get_traits (model);

  if (out->spec_i_pt || ((out->aptpl || out->all_tg_pt) && !t->has_flags))
    return illegal (t->has_flags ? ASC_INVALID_FIELD_IN_LIST : ASC_INVALID_FIELD_IN_CDB);
  if (out->action == 0 && out->key != n->key) /* an unregistered nexus has key 0 */
    return conflict;
  if (n->all_tg_pt && !out->all_tg_pt && t->sticky_all_tg_pt)
    return illegal (ASC_INVALID_FIELD_IN_CDB);
  if (!n->registered && out->new_key == 0) {
    model->generation += t->empty_register_counts;
    return good;
  }
  if (out->new_key != 0) {
    add_registration (model, nexus, out->new_key);
    n->all_tg_pt = out->all_tg_pt;
    model->generation++;
  } else
    unregister (model, nexus);
  model->aptpl = out->aptpl; /* one for the whole LU, the last one counts: SPC-4 5.13.5 */
  return model->no_aptpl_store ? check_condition (KEY_NOT_READY, ASC_LUN_COMMUNICATION_FAILURE) : good;
}

/* RESERVE, RELEASE, CLEAR and PREEMPT are for registered nexuses. */
static HfModelAnswer
refuse_unregistered (const HfModel *model, const Out *out)
{
  if (get_traits (model)->unregistered_is_not_ready && model->type == 0 && out->action <= 3)
    return check_condition (KEY_NOT_READY, ASC_LUN_COMMUNICATION_FAILURE);
  return conflict;
}

static HfModelAnswer
out_reserve (HfModel *model, guint nexus, const Out *out)
{
  const HfModelNexus *n = &model->nexuses[nexus];

  if (!type_is_valid (out->type) || out->scope != 0)
    return illegal (ASC_INVALID_FIELD_IN_CDB);
  if (!n->registered)
    return refuse_unregistered (model, out);
  if (out->key != n->key && !get_traits (model)->reserve_ignores_key)
    return conflict;
  if (model->type != 0)
    return hf_model_is_holder (model, nexus) && model->type == out->type ? good : conflict;
  hf_model_set_reservation (model, nexus, out->type);
  return good;
}

static void
attend_release (HfModel *model, guint nexus, guint8 type)
{
  if (!get_traits (model)->inverted_2a04) {
    if (type >= 5)
      attend_other_registrants (model, nexus, UA_RESERVATIONS_RELEASED);
    return;
  }
  for (guint i = 0; i < model->n_nexuses; i++)
    if (type < 5 && (i == nexus || !model->nexuses[i].registered))
      hf_model_raise_unit_attention (model, i, UA_RESERVATIONS_RELEASED);
}

static HfModelAnswer
out_release (HfModel *model, guint nexus, const Out *out)
{
  const HfModelNexus *n = &model->nexuses[nexus];
  const Traits *t = get_traits (model);
  guint8 type = model->type;

  if (!n->registered)
    return refuse_unregistered (model, out);
  if (out->key != n->key && !t->release_checks_key_late)
    return conflict;
  if (!hf_model_is_holder (model, nexus))
    return good;
  if (out->key != n->key)
    return conflict;
  if (out->type != type || out->scope != 0)
    return t->release_type_conflict ? conflict : illegal (ASC_INVALID_RELEASE);
  drop_reservation (model);
  attend_release (model, nexus, type);
  return good;
}

static HfModelAnswer
out_clear (HfModel *model, guint nexus, const Out *out)
{
  if (!model->nexuses[nexus].registered)
    return refuse_unregistered (model, out);
  if (out->key != model->nexuses[nexus].key)
    return conflict;
  attend_other_registrants (model, nexus, UA_RESERVATIONS_PREEMPTED);
  model->n_crowd = 0;
  for (guint i = 0; i < model->n_nexuses; i++)
    remove_registration (model, i);
  drop_reservation (model);
  model->generation++;
  if (get_traits (model)->clear_drops_aptpl)
    model->aptpl = FALSE;
  return good;
}

/* Removes the registrations with key (0: with any) but the caller's, unless take_caller. Returns how many. */
static guint
preempt_registrations (HfModel *model, guint caller, guint64 key, gboolean take_caller)
{
  guint16 ua = get_traits (model)->preempt_says_2a03 ? UA_RESERVATIONS_PREEMPTED : UA_REGISTRATIONS_PREEMPTED;
  guint count = 0;

  if (key == 0 || key == model->crowd_key) {
    count += model->n_crowd;
    model->n_crowd = 0;
  }
  for (guint i = 0; i < model->n_nexuses; i++) {
    HfModelNexus *n = &model->nexuses[i];
    if (!n->registered || (key != 0 && n->key != key) || (i == caller && !take_caller))
      continue;
    remove_registration (model, i);
    if (i != caller)
      hf_model_raise_unit_attention (model, i, ua);
    count++;
  }
  return count;
}

/* The caller becomes holder with the TYPE of the CDB, the victims are unregistered: SPC-4 5.13.11.2.4. */
static HfModelAnswer
preempt_reservation (HfModel *model, guint caller, const Out *out)
{
  guint8 old = model->type;

  if (!type_is_valid (out->type) && !(out->type == 0 && get_traits (model)->preempt_accepts_type_0))
    return illegal (ASC_INVALID_FIELD_IN_CDB);
  drop_reservation (model);
  preempt_registrations (model, caller, out->new_key, FALSE);
  hf_model_set_reservation (model, caller, out->type);
  if (old != out->type && !get_traits (model)->inverted_2a04)
    attend_other_registrants (model, caller, UA_RESERVATIONS_RELEASED);
  model->generation++;
  return good;
}

/* Types 7, 8: there is no holder to name; by SARK 0 all others are removed and the reservation is taken. */
static HfModelAnswer
preempt_all_registrants (HfModel *model, guint caller, const Out *out)
{
  const Traits *t = get_traits (model);
  guint removed;

  if (out->new_key == 0 || (t->preempt_internal_holder && out->new_key == holder_key (model)))
    return preempt_reservation (model, caller, out);
  if (hf_model_count_key (model, out->new_key) == 0)
    return conflict;
  removed = preempt_registrations (model, caller, out->new_key, FALSE);
  if (removed == 0 && t->preempt_nobody_conflict)
    return conflict;
  model->generation++;
  return good;
}

/* PREEMPT and PREEMPT AND ABORT (no tasks here to abort), SPC-4 5.13.11.2. */
static HfModelAnswer
out_preempt (HfModel *model, guint nexus, const Out *out)
{
  const HfModelNexus *n = &model->nexuses[nexus];
  const Traits *t = get_traits (model);

  if (out->action == 5 && !t->has_preempt_and_abort)
    return illegal (ASC_INVALID_FIELD_IN_CDB);
  if (!n->registered && model->type != 0)
    return conflict;
  if (t->preempt_checks_type && !type_is_valid (out->type))
    return illegal (ASC_INVALID_FIELD_IN_CDB);
  if (!n->registered || out->key != n->key)
    return conflict;
  if (hf_model_is_all_registrants (model))
    return preempt_all_registrants (model, nexus, out);
  if (out->new_key == 0) {
    if (!t->preempt_key_0_ok)
      return illegal (ASC_INVALID_FIELD_IN_LIST);
    model->generation++;
    return good;
  }
  if (model->type != 0 && out->new_key == holder_key (model))
    return preempt_reservation (model, nexus, out);
  if (hf_model_count_key (model, out->new_key) == 0)
    return conflict;
  preempt_registrations (model, nexus, out->new_key, !t->preempt_keeps_caller);
  model->generation++;
  return good;
}

static int
find_nexus (const HfModel *model, const Out *out)
{
  for (guint i = 0; i < model->n_nexuses; i++) {
    const HfNexus *id = &model->nexuses[i].id;
    if (id->transport_id.length == out->transport_id_length
        && memcmp (id->transport_id.bytes, out->transport_id, out->transport_id_length) == 0
        && id->relative_target_port == out->relative_target_port)
      return (int)i;
  }
  return -1;
}

/* SPC-4 5.13.8. */
static HfModelAnswer
out_register_and_move (HfModel *model, guint nexus, const Out *out)
{
  const HfModelNexus *n = &model->nexuses[nexus];
  int to = find_nexus (model, out);

  if (!n->registered || out->key != n->key || model->holder != (int)nexus || hf_model_is_all_registrants (model))
    return conflict;
  if (to < 0 || to == (int)nexus || out->new_key == 0)
    return illegal (ASC_INVALID_FIELD_IN_LIST);
  if (get_traits (model)->move_wants_registration && !model->nexuses[to].registered)
    return conflict;
  add_registration (model, (guint)to, out->new_key);
  model->holder = to;
  if (out->unregister)
    remove_registration (model, nexus);
  model->aptpl = out->aptpl;
  model->generation++;
  return good;
}

typedef HfModelAnswer (*OutFunction) (HfModel *model, guint nexus, const Out *out);

static const OutFunction out_functions[] = {
  out_register, out_reserve, out_release, out_clear, out_preempt, out_preempt, out_register, out_register_and_move,
};
G_STATIC_ASSERT (G_N_ELEMENTS (out_functions) == 8);

static HfModelAnswer
pr_out (HfModel *model, guint nexus, const guint8 *cdb, const guint8 *list, gsize length, Sink *sink G_GNUC_UNUSED)
{
  Out out;

  if (model->scsi2_holder >= 0)
    return conflict;
  if ((cdb[1] & 0x1f) >= G_N_ELEMENTS (out_functions))
    return illegal (ASC_INVALID_FIELD_IN_CDB);
  if (!decode_out (cdb, list, length, &out))
    return illegal (get_traits (model)->list_length_asc);
  return out_functions[out.action](model, nexus, &out);
}

/* ---- PERSISTENT RESERVE IN ---- */

/* Registered nexuses in the order of registration. */
static guint
list_registrants (const HfModel *model, guint *ret)
{
  guint n = 0;

  for (guint i = 0; i < model->n_nexuses; i++) {
    guint place;
    if (!model->nexuses[i].registered)
      continue;
    for (place = n++; place > 0 && model->nexuses[ret[place - 1]].order > model->nexuses[i].order; place--)
      ret[place] = ret[place - 1];
    ret[place] = i;
  }
  return n;
}

static HfModelAnswer
in_read_keys (const HfModel *model, Sink *sink)
{
  guint order[HF_MODEL_NEXUSES];
  guint n = list_registrants (model, order);

  put (sink, 4, model->generation);
  put (sink, 4, 8 * (n + model->n_crowd));
  for (guint i = 0; i < n; i++)
    put (sink, 8, model->nexuses[order[i]].key);
  for (guint i = 0; i < model->n_crowd; i++)
    put (sink, 8, model->crowd_key);
  return sent (sink);
}

static HfModelAnswer
in_read_reservation (const HfModel *model, Sink *sink)
{
  put (sink, 4, model->generation);
  put (sink, 4, model->type == 0 ? 0 : 16);
  if (model->type == 0)
    return sent (sink);
  put (sink, 8, hf_model_is_all_registrants (model) ? 0 : holder_key (model));
  put (sink, 5, 0);
  put (sink, 1, model->type);
  put (sink, 2, 0);
  return sent (sink);
}

static HfModelAnswer
in_report_capabilities (const HfModel *model, Sink *sink)
{
  guint8 bytes[8];

  memcpy (bytes, get_traits (model)->capabilities, sizeof bytes);
  bytes[3] |= model->aptpl ? 0x01 : 0;
  put_bytes (sink, bytes, sizeof bytes);
  return sent (sink);
}

static void
put_descriptor (Sink *sink, const HfModelNexus *n, guint64 key, guint8 type, const HfTransportId *id)
{
  put (sink, 8, key);
  put (sink, 4, 0);
  put (sink, 1, (n->all_tg_pt ? 0x02 : 0) | (type != 0 ? 0x01 : 0));
  put (sink, 1, type);
  put (sink, 4, 0);
  put (sink, 2, n->all_tg_pt ? 0 : n->id.relative_target_port);
  put (sink, 4, id->length);
  put_bytes (sink, id->bytes, id->length);
}

/* The i-th of the crowd, for READ FULL STATUS. */
static HfModelNexus
crowd_nexus (guint i)
{
  HfModelNexus n = { .id = { .relative_target_port = 1, .transport_id = { .length = 24, .bytes = { 0x06 } } } };

  set_be (n.id.transport_id.bytes + 4, 8, G_GUINT64_CONSTANT (0x5001405c00000000) + i);
  return n;
}

static HfModelAnswer
in_read_full_status (const HfModel *model, Sink *sink)
{
  guint order[HF_MODEL_NEXUSES];
  guint n = list_registrants (model, order);
  gsize fits = 8;

  put (sink, 4, model->generation);
  put (sink, 4, 0);
  for (guint i = 0; i < n + model->n_crowd; i++) {
    HfModelNexus crowd = crowd_nexus (i);
    const HfModelNexus *r = i < n ? &model->nexuses[order[i]] : &crowd;
    gboolean holds = i < n ? hf_model_is_holder (model, order[i]) : hf_model_is_all_registrants (model);
    put_descriptor (sink, r, i < n ? r->key : model->crowd_key, holds ? model->type : 0, &r->id.transport_id);
    if (sink->length <= sink->size)
      fits = sink->length;
  }
  if (get_traits (model)->cuts_full_status)
    sink->length = fits;
  if (sink->size >= 8)
    set_be (sink->data + 4, 4, sink->length - 8);
  return sent (sink);
}

typedef HfModelAnswer (*InFunction) (const HfModel *model, Sink *sink);

static const InFunction in_functions[] = { in_read_keys, in_read_reservation, in_report_capabilities, in_read_full_status };
G_STATIC_ASSERT (G_N_ELEMENTS (in_functions) == 4);

static HfModelAnswer
pr_in (HfModel *model, guint nexus G_GNUC_UNUSED, const guint8 *cdb, const guint8 *out G_GNUC_UNUSED, gsize length G_GNUC_UNUSED,
       Sink *sink)
{
  const Traits *t = get_traits (model);
  guint8 action = cdb[1] & 0x1f;
  guint allocation = (guint)get_be (cdb + 7, 2);

  if (model->scsi2_holder >= 0)
    return conflict;
  if (action >= G_N_ELEMENTS (in_functions) || (action == 3 && !t->has_full_status))
    return illegal (ASC_INVALID_FIELD_IN_CDB);
  if (action == 3 && model->refuse_full_status)
    return illegal (ASC_INVALID_OPCODE);
  if (allocation < (action == 2 ? t->minimum_allocation_caps : t->minimum_allocation))
    return illegal (ASC_INVALID_FIELD_IN_CDB);
  sink->size = MIN (sink->size, allocation);
  return in_functions[action](model, sink);
}

/* ---- the other commands ---- */

static void
put_page_83 (const HfModel *model, guint nexus, Sink *sink)
{
  guint16 port = model->nexuses[nexus].id.relative_target_port;

  put (sink, 2, 0x0083);
  put (sink, 2, port == 0 ? 12 : 20);
  put (sink, 4, 0x01030008); /* binary, LU, NAA, 8 bytes */
  put (sink, 8, model->naa);
  if (port == 0)
    return;
  put (sink, 4, 0x01140004); /* binary, target port, relative target port identifier, 4 bytes */
  put (sink, 4, port);
}

static HfModelAnswer
inquiry (HfModel *model, guint nexus, const guint8 *cdb, const guint8 *out G_GNUC_UNUSED, gsize length G_GNUC_UNUSED, Sink *sink)
{
  static const guint8 standard[36] = { 0, 0, 6, 2, 31, 0, 0, 2, 'm', 'o', 'd', 'e', 'l' };
  static const guint8 page_00[] = { 0, 0x00, 0, 3, 0x00, 0x80, 0x83 };
  static const guint8 page_80[] = { 0, 0x80, 0, 4, 'L', 'U', '0', '1' };

  sink->size = MIN (sink->size, get_be (cdb + 3, 2));
  if ((cdb[1] & 1) == 0)
    put_bytes (sink, standard, sizeof standard);
  else if (cdb[2] == 0x00)
    put_bytes (sink, page_00, sizeof page_00);
  else if (cdb[2] == 0x80)
    put_bytes (sink, page_80, sizeof page_80);
  else if (cdb[2] == 0x83)
    put_page_83 (model, nexus, sink);
  else
    return illegal (ASC_INVALID_FIELD_IN_CDB);
  return sent (sink);
}

static HfModelAnswer
test_unit_ready (HfModel *model, guint nexus, const guint8 *cdb G_GNUC_UNUSED, const guint8 *out G_GNUC_UNUSED,
                 gsize length G_GNUC_UNUSED, Sink *sink G_GNUC_UNUSED)
{
  return model->scsi2_holder >= 0 && model->scsi2_holder != (int)nexus ? conflict : good;
}

/* READ CAPACITY(10), SBC-3 5.15: the last address, which is 0, and the size of the block. */
static HfModelAnswer
read_capacity (HfModel *model, guint nexus G_GNUC_UNUSED, const guint8 *cdb G_GNUC_UNUSED, const guint8 *out G_GNUC_UNUSED,
               gsize length G_GNUC_UNUSED, Sink *sink)
{
  put (sink, 4, 0);
  put (sink, 4, sizeof model->block);
  return sent (sink);
}

/* READ(10) and WRITE(10) of at most the one block there is. */
static HfModelAnswer
read_write (HfModel *model, guint nexus, const guint8 *cdb, const guint8 *out, gsize length, Sink *sink)
{
  gboolean write = cdb[0] == 0x2a;
  guint blocks = (guint)get_be (cdb + 7, 2);

  if (!hf_model_may_access (model, nexus, write))
    return conflict;
  if (blocks > 1 || get_be (cdb + 2, 4) != 0)
    return illegal (ASC_LBA_OUT_OF_RANGE);
  if (blocks == 0)
    return good;
  if (write)
    memcpy (model->block, out, MIN (length, sizeof model->block));
  else
    put_bytes (sink, model->block, sizeof model->block);
  return sent (sink);
}

/* RESERVE(6) and RELEASE(6), SPC-2 7.20 to 7.22. While persistent registrations exist they conflict, but for CRH (SPC-4 5.13.3).
 */
static HfModelAnswer
scsi2_reserve (HfModel *model, guint nexus, const guint8 *cdb, const guint8 *out G_GNUC_UNUSED, gsize length G_GNUC_UNUSED,
               Sink *sink G_GNUC_UNUSED)
{
  gboolean registrants = model->n_crowd > 0 || oldest_registrant (model) >= 0;
  gboolean compatible = model->nexuses[nexus].registered && (hf_model_is_holder (model, nexus) || model->type >= 5);

  if (registrants)
    return compatible ? good : conflict;
  if (cdb[0] == 0x16) {
    if (model->scsi2_holder >= 0 && model->scsi2_holder != (int)nexus)
      return conflict;
    model->scsi2_holder = (int)nexus;
  } else if (model->scsi2_holder == (int)nexus)
    model->scsi2_holder = -1;
  return good;
}

typedef struct {
  guint8 opcode, cdb_length;
  HfModelAnswer (*execute) (HfModel *model, guint nexus, const guint8 *cdb, const guint8 *out, gsize length, Sink *sink);
} Operation;

static const Operation operations[] = {
  { 0x00, 6, test_unit_ready }, { 0x12, 6, inquiry },        { 0x16, 6, scsi2_reserve },
  { 0x17, 6, scsi2_reserve },   { 0x25, 10, read_capacity }, { 0x28, 10, read_write },
  { 0x2a, 10, read_write },     { 0x5e, 10, pr_in },         { 0x5f, 10, pr_out },
};

static gboolean
take_unit_attention (HfModel *model, guint nexus, HfModelAnswer *ret)
{
  HfModelNexus *n = &model->nexuses[nexus];

  if (n->n_unit_attentions == 0)
    return FALSE;
  *ret = check_condition (KEY_UNIT_ATTENTION, n->unit_attentions[0]);
  n->n_unit_attentions--;
  memmove (n->unit_attentions, n->unit_attentions + 1, n->n_unit_attentions * sizeof n->unit_attentions[0]);
  return TRUE;
}

HfModelAnswer
hf_model_execute (HfModel *model, guint nexus, const guint8 *cdb, gsize cdb_length, const guint8 *out, gsize out_length,
                  guint8 *in, gsize in_size)
{
  Sink sink = { in, in_size, 0 };
  HfModelAnswer answer;

  g_assert_cmpuint (nexus, <, model->n_nexuses);
  if (cdb[0] != 0x12 && take_unit_attention (model, nexus, &answer))
    return answer;
  for (guint i = 0; i < G_N_ELEMENTS (operations); i++)
    if (operations[i].opcode == cdb[0] && operations[i].cdb_length == cdb_length)
      return operations[i].execute (model, nexus, cdb, out, out_length, &sink);
  return illegal (ASC_INVALID_OPCODE);
}

void
hf_model_answer_get_sense (const HfModelAnswer *answer, guint8 sense[HF_MODEL_SENSE])
{
  memset (sense, 0, HF_MODEL_SENSE);
  sense[0] = 0x70;
  sense[2] = answer->sense_key;
  sense[7] = HF_MODEL_SENSE - 8;
  set_be (sense + 12, 2, answer->asc_ascq);
}

HfModelAnswer
hf_model_pr_out (HfModel *model, guint nexus, guint8 action, guint64 key, guint64 new_key, guint8 type)
{
  guint8 cdb[10] = { 0x5f, action, type, 0, 0, 0, 0, 0, 24, 0 };
  guint8 list[24] = { 0 };
  HfModelAnswer answer;

  set_be (list, 8, key);
  set_be (list + 8, 8, new_key);
  do
    answer = hf_model_execute (model, nexus, cdb, sizeof cdb, list, sizeof list, NULL, 0);
  while (answer.status == HF_SAM_CHECK_CONDITION && answer.sense_key == KEY_UNIT_ATTENTION);
  return answer;
}
