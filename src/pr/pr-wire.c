/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * PERSISTENT RESERVE IN and OUT as bytes: SPC-4 6.15 and 6.16.
 *
 * Owns: nothing. Thread: any; every function is pure.
 *
 * Theory of operation: encoding refuses what the standard cannot express and lets everything else pass, a reserved TYPE included,
 * because the answer to it is the target's to give. Decoding trusts no length: each is compared with the bytes that arrived
 * before it is used, memory is taken only for entries that arrived, and ret is written only on success. ADDITIONAL LENGTH larger
 * than what arrived is not an error, it is how a target says that the allocation length was too small (SPC-4 6.15.2).
 */

#include "base/bytes.h"

#include <holdfast/pr.h>

#include <string.h>

#define CDB_LENGTH 10
#define LIST_LENGTH 24
#define HEADER_LENGTH 8
#define RESERVATION_LENGTH 16
#define DESCRIPTOR_LENGTH 24
#define TRANSPORT_ID_MIN 24

#define PROTOCOL_MASK 0x0f
#define PROTOCOL_ISCSI 0x05

/* Byte 20 of the parameter list of every service action but REGISTER AND MOVE, SPC-4 6.16.3. */
#define SPEC_I_PT 0x08
#define ALL_TG_PT 0x04
#define APTPL 0x01
/* Byte 17 of REGISTER AND MOVE's, SPC-4 6.16.4. */
#define MOVE_UNREG 0x02
#define MOVE_APTPL 0x01

G_DEFINE_QUARK (hf - pr - error - quark, hf_pr_error)

/* ---- names ---- */

static const char *const type_names[16] = {
  [0] = "none",
  [HF_PR_TYPE_WRITE_EXCLUSIVE] = "Write Exclusive",
  [2] = "obsolete",
  [HF_PR_TYPE_EXCLUSIVE_ACCESS] = "Exclusive Access",
  [4] = "obsolete",
  [HF_PR_TYPE_WRITE_EXCLUSIVE_REGISTRANTS_ONLY] = "Write Exclusive, registrants only",
  [HF_PR_TYPE_EXCLUSIVE_ACCESS_REGISTRANTS_ONLY] = "Exclusive Access, registrants only",
  [HF_PR_TYPE_WRITE_EXCLUSIVE_ALL_REGISTRANTS] = "Write Exclusive, all registrants",
  [HF_PR_TYPE_EXCLUSIVE_ACCESS_ALL_REGISTRANTS] = "Exclusive Access, all registrants",
};

static const char *const in_names[] = {
  [HF_PR_IN_READ_KEYS] = "READ KEYS",
  [HF_PR_IN_READ_RESERVATION] = "READ RESERVATION",
  [HF_PR_IN_REPORT_CAPABILITIES] = "REPORT CAPABILITIES",
  [HF_PR_IN_READ_FULL_STATUS] = "READ FULL STATUS",
};
G_STATIC_ASSERT (G_N_ELEMENTS (in_names) == HF_PR_IN_READ_FULL_STATUS + 1);

static const char *const out_names[] = {
  [HF_PR_OUT_REGISTER] = "REGISTER",
  [HF_PR_OUT_RESERVE] = "RESERVE",
  [HF_PR_OUT_RELEASE] = "RELEASE",
  [HF_PR_OUT_CLEAR] = "CLEAR",
  [HF_PR_OUT_PREEMPT] = "PREEMPT",
  [HF_PR_OUT_PREEMPT_AND_ABORT] = "PREEMPT AND ABORT",
  [HF_PR_OUT_REGISTER_AND_IGNORE] = "REGISTER AND IGNORE EXISTING KEY",
  [HF_PR_OUT_REGISTER_AND_MOVE] = "REGISTER AND MOVE",
  [HF_PR_OUT_REPLACE_LOST_RESERVATION] = "REPLACE LOST RESERVATION",
};
G_STATIC_ASSERT (G_N_ELEMENTS (out_names) == HF_PR_OUT_REPLACE_LOST_RESERVATION + 1);

static const char *
name_of (const char *const *names, gsize n_names, guint8 number)
{
  return number < n_names && names[number] ? names[number] : "reserved";
}

const char *
hf_pr_type_to_string (guint8 type)
{
  return name_of (type_names, G_N_ELEMENTS (type_names), type);
}

const char *
hf_pr_in_action_to_string (guint8 action)
{
  return name_of (in_names, G_N_ELEMENTS (in_names), action);
}

const char *
hf_pr_out_action_to_string (guint8 action)
{
  return name_of (out_names, G_N_ELEMENTS (out_names), action);
}

gboolean
hf_pr_type_is_valid (guint8 type)
{
  return type == 1 || type == 3 || (type >= 5 && type <= 8);
}

gboolean
hf_pr_type_is_all_registrants (guint8 type)
{
  return type == HF_PR_TYPE_WRITE_EXCLUSIVE_ALL_REGISTRANTS || type == HF_PR_TYPE_EXCLUSIVE_ACCESS_ALL_REGISTRANTS;
}

/* Bytes that the TransportID at data takes by its own account (SPC-4 7.6.4): iSCSI says it in bytes 2 and 3, all other protocols
   have
   24. 0 if fewer than that are there. */
static gsize
transport_id_size (const guint8 *data, gsize length)
{
  gsize size = TRANSPORT_ID_MIN;

  if (length < 4)
    return 0;
  if ((data[0] & PROTOCOL_MASK) == PROTOCOL_ISCSI)
    size = 4 + (gsize)hf_get_be16 (data + 2);
  return size <= length ? size : 0;
}

/* ---- PERSISTENT RESERVE OUT ---- */

/* The rules of SPC-4 6.16.2 to 6.16.4 on which member goes with which service action. */
static gboolean
out_check (const HfPrOut *out, GError **error)
{
  const char *name = hf_pr_out_action_to_string (out->action);
  gboolean move = out->action == HF_PR_OUT_REGISTER_AND_MOVE;
  const char *wrong = NULL;

  if (out->action >= G_N_ELEMENTS (out_names))
    wrong = "this service action is reserved";
  else if (out->scope > 0x0f || out->type > 0x0f)
    wrong = "SCOPE and TYPE have four bits each";
  else if (move && out->n_transport_ids != 1)
    wrong = "exactly one TransportID is needed";
  else if (move && out->all_tg_pt)
    wrong = "ALL_TG_PT does not exist here";
  else if (!move && (out->unregister || out->relative_target_port != 0))
    wrong = "UNREG and a relative target port identifier go with REGISTER AND MOVE only";
  else if (out->n_transport_ids > 0 && !move && out->action != HF_PR_OUT_REGISTER)
    wrong = "TransportIDs go with REGISTER and REGISTER AND MOVE only";
  else if (out->n_transport_ids > 0 && out->transport_ids == NULL)
    wrong = "the TransportIDs are missing";

  if (wrong == NULL)
    return TRUE;
  g_set_error (error, HF_PR_ERROR, HF_PR_ERROR_ARGUMENT, "PERSISTENT RESERVE OUT, %s (%u): %s", name, out->action, wrong);
  return FALSE;
}

/* Appends the TransportIDs to list and gives their length in all. */
static gboolean
append_transport_ids (GByteArray *list, const HfPrOut *out, guint32 *ret_length, GError **error)
{
  guint32 start = list->len;

  for (guint i = 0; i < out->n_transport_ids; i++) {
    const HfTransportId *id = &out->transport_ids[i];

    if (id->length < TRANSPORT_ID_MIN || id->length > HF_TRANSPORT_ID_MAX || id->length % 4 != 0
        || transport_id_size (id->bytes, id->length) != id->length) {
      g_set_error (error, HF_PR_ERROR, HF_PR_ERROR_ARGUMENT, "%s: TransportID %u of %u bytes is malformed",
                   hf_pr_out_action_to_string (out->action), i, id->length);
      return FALSE;
    }
    if (list->len + id->length > HF_SCSI_DATA_MAX) {
      g_set_error (error, HF_PR_ERROR, HF_PR_ERROR_ARGUMENT, "%s: %u TransportIDs are more than fit into one parameter list",
                   hf_pr_out_action_to_string (out->action), out->n_transport_ids);
      return FALSE;
    }
    g_byte_array_append (list, id->bytes, id->length);
  }
  *ret_length = list->len - start;
  return TRUE;
}

GByteArray *
hf_pr_out_encode (const HfPrOut *out, guint8 *cdb, GError **error)
{
  guint8 fixed[LIST_LENGTH + 4] = { 0 };
  gboolean move = out->action == HF_PR_OUT_REGISTER_AND_MOVE;
  gboolean spec_i_pt = !move && out->n_transport_ids > 0;
  g_autoptr (GByteArray) list = g_byte_array_new ();
  guint32 ids_length;

  if (!out_check (out, error))
    return NULL;

  hf_put_be64 (out->key, fixed);
  hf_put_be64 (out->new_key, fixed + 8);
  if (move) {
    fixed[17] = (out->unregister ? MOVE_UNREG : 0) | (out->aptpl ? MOVE_APTPL : 0);
    hf_put_be16 (out->relative_target_port, fixed + 18);
  } else {
    fixed[20] = (spec_i_pt ? SPEC_I_PT : 0) | (out->all_tg_pt ? ALL_TG_PT : 0) | (out->aptpl ? APTPL : 0);
  }
  g_byte_array_append (list, fixed, LIST_LENGTH + (spec_i_pt ? 4 : 0));
  if (!append_transport_ids (list, out, &ids_length, error))
    return NULL;
  if (move)
    hf_put_be32 (ids_length, list->data + 20);
  else if (spec_i_pt)
    hf_put_be32 (ids_length, list->data + 24);

  memset (cdb, 0, CDB_LENGTH);
  cdb[0] = 0x5f;
  cdb[1] = out->action;
  cdb[2] = (guint8)(out->scope << 4 | out->type);
  hf_put_be32 (list->len, cdb + 5);
  return g_steal_pointer (&list);
}

/* Counts the TransportIDs that fill exactly length bytes. */
static gboolean
count_transport_ids (const guint8 *data, gsize length, guint *ret_count)
{
  guint count = 0;

  while (length > 0) {
    gsize size = transport_id_size (data, length);

    if (size < TRANSPORT_ID_MIN)
      return FALSE;
    data += size;
    length -= size;
    count++;
  }
  *ret_count = count;
  return TRUE;
}

/* The parameter list behind the keys. Gives what is wrong with it, or NULL. */
static const char *
out_decode_list (const guint8 *list, gsize length, HfPrOut *out)
{
  if (out->action == HF_PR_OUT_REGISTER_AND_MOVE) {
    out->unregister = (list[17] & MOVE_UNREG) != 0;
    out->aptpl = (list[17] & MOVE_APTPL) != 0;
    out->relative_target_port = hf_get_be16 (list + 18);
    if (hf_get_be32 (list + 20) != length - LIST_LENGTH || !count_transport_ids (list + 24, length - 24, &out->n_transport_ids)
        || out->n_transport_ids != 1)
      return "the TransportID does not fit its length";
    return NULL;
  }

  out->all_tg_pt = (list[20] & ALL_TG_PT) != 0;
  out->aptpl = (list[20] & APTPL) != 0;
  if ((list[20] & SPEC_I_PT) == 0)
    return length == LIST_LENGTH ? NULL : "the parameter list is not 24 bytes long";
  if (out->action != HF_PR_OUT_REGISTER)
    return "SPEC_I_PT goes with REGISTER only";
  if (length < LIST_LENGTH + 4 || hf_get_be32 (list + 24) != length - LIST_LENGTH - 4
      || !count_transport_ids (list + 28, length - 28, &out->n_transport_ids))
    return "the TransportIDs do not fit their length";
  return NULL;
}

gboolean
hf_pr_out_decode (const guint8 *cdb, gsize cdb_length, const guint8 *list, gsize list_length, HfPrOut *ret, GError **error)
{
  HfPrOut out = { 0 };
  const char *wrong = NULL;
  guint32 length;

  if (cdb_length < CDB_LENGTH || cdb[0] != 0x5f) {
    g_set_error (error, HF_PR_ERROR, HF_PR_ERROR_ARGUMENT, "not a PERSISTENT RESERVE OUT command");
    return FALSE;
  }
  out.action = cdb[1] & 0x1f;
  out.scope = cdb[2] >> 4;
  out.type = cdb[2] & 0x0f;
  length = hf_get_be32 (cdb + 5);

  if (out.action >= G_N_ELEMENTS (out_names))
    wrong = "this service action is reserved";
  else if (length < LIST_LENGTH)
    wrong = "the parameter list is shorter than 24 bytes";
  else if (length > list_length)
    wrong = "the parameter list is shorter than PARAMETER LIST LENGTH";
  else
    wrong = out_decode_list (list, length, &out);
  if (wrong != NULL) {
    g_set_error (error, HF_PR_ERROR, HF_PR_ERROR_ARGUMENT, "PERSISTENT RESERVE OUT, %s (%u): %s",
                 hf_pr_out_action_to_string (out.action), out.action, wrong);
    return FALSE;
  }
  out.key = hf_get_be64 (list);
  out.new_key = hf_get_be64 (list + 8);
  *ret = out;
  return TRUE;
}

/* ---- PERSISTENT RESERVE IN ---- */

void
hf_pr_in_encode (guint8 action, guint16 allocation_length, guint8 *cdb)
{
  memset (cdb, 0, CDB_LENGTH);
  cdb[0] = 0x5e;
  cdb[1] = action & 0x1f;
  hf_put_be16 (allocation_length, cdb + 7);
}

G_GNUC_PRINTF (3, 4)
static gboolean
bad_answer (guint8 action, GError **error, const char *format, ...)
{
  g_autofree char *text = NULL;
  va_list arguments;

  va_start (arguments, format);
  text = g_strdup_vprintf (format, arguments);
  va_end (arguments);
  g_set_error (error, HF_PR_ERROR, HF_PR_ERROR_ANSWER, "%s: malformed answer: %s", hf_pr_in_action_to_string (action), text);
  return FALSE;
}

/* PRGENERATION and ADDITIONAL LENGTH, which open every answer but REPORT CAPABILITIES. */
static gboolean
decode_header (guint8 action, const guint8 *data, gsize length, guint32 *ret_generation, guint32 *ret_additional, GError **error)
{
  if (length < HEADER_LENGTH)
    return bad_answer (action, error, "%" G_GSIZE_FORMAT " bytes are less than its header", length);
  *ret_generation = hf_get_be32 (data);
  *ret_additional = hf_get_be32 (data + 4);
  return TRUE;
}

gboolean
hf_pr_keys_decode (const guint8 *data, gsize length, HfPrKeys *ret, GError **error)
{
  HfPrKeys keys = { 0 };
  gsize arrived;

  if (!decode_header (HF_PR_IN_READ_KEYS, data, length, &keys.generation, &keys.additional_length, error))
    return FALSE;
  if (keys.additional_length % 8 != 0)
    return bad_answer (HF_PR_IN_READ_KEYS, error, "ADDITIONAL LENGTH %" G_GUINT32_FORMAT " is not a multiple of 8",
                       keys.additional_length);

  arrived = length - HEADER_LENGTH;
  keys.truncated = keys.additional_length > arrived;
  keys.n_keys = (guint)(MIN (keys.additional_length, arrived) / 8);
  keys.keys = keys.n_keys > 0 ? g_new (guint64, keys.n_keys) : NULL;
  for (guint i = 0; i < keys.n_keys; i++)
    keys.keys[i] = hf_get_be64 (data + HEADER_LENGTH + (gsize)i * 8);
  *ret = keys;
  return TRUE;
}

void
hf_pr_keys_clear (HfPrKeys *keys)
{
  g_free (keys->keys);
  memset (keys, 0, sizeof *keys);
}

gboolean
hf_pr_reservation_decode (const guint8 *data, gsize length, HfPrReservation *ret, GError **error)
{
  HfPrReservation reservation = { 0 };
  guint32 additional = 0; /* gcc does not see that a failed decode_header always returns */

  if (!decode_header (HF_PR_IN_READ_RESERVATION, data, length, &reservation.generation, &additional, error))
    return FALSE;
  if (additional != 0 && additional != RESERVATION_LENGTH)
    return bad_answer (HF_PR_IN_READ_RESERVATION, error, "ADDITIONAL LENGTH is %" G_GUINT32_FORMAT ", neither 0 nor 16",
                       additional);
  if (additional > length - HEADER_LENGTH)
    return bad_answer (HF_PR_IN_READ_RESERVATION, error, "%" G_GSIZE_FORMAT " bytes do not hold the reservation", length);

  /* TYPE is kept as it is: a target may show one that the standard does not know, and the caller has to see it. */
  reservation.reserved = additional != 0;
  if (reservation.reserved) {
    reservation.key = hf_get_be64 (data + 8);
    reservation.scope = data[21] >> 4;
    reservation.type = data[21] & 0x0f;
  }
  *ret = reservation;
  return TRUE;
}

gboolean
hf_pr_capabilities_decode (const guint8 *data, gsize length, HfPrCapabilities *ret, GError **error)
{
  HfPrCapabilities capabilities = { 0 };
  gsize valid;

  if (length < 2)
    return bad_answer (HF_PR_IN_REPORT_CAPABILITIES, error, "%" G_GSIZE_FORMAT " bytes are less than its length field", length);
  /* LENGTH counts itself and is 8 (SPC-4 6.15.4). Fewer bytes are accepted as far as they hold the flags. */
  valid = MIN ((gsize)hf_get_be16 (data), length);
  if (valid < 4)
    return bad_answer (HF_PR_IN_REPORT_CAPABILITIES, error, "%" G_GSIZE_FORMAT " bytes do not hold the flags", valid);

  capabilities.replace_lost_reservation_capable = (data[2] & 0x80) != 0;
  capabilities.compatible_reservation_handling = (data[2] & 0x10) != 0;
  capabilities.specify_initiator_ports_capable = (data[2] & 0x08) != 0;
  capabilities.all_target_ports_capable = (data[2] & 0x04) != 0;
  capabilities.persist_through_power_loss_capable = (data[2] & 0x01) != 0;
  capabilities.type_mask_valid = (data[3] & 0x80) != 0 && valid >= 6;
  capabilities.allow_commands = data[3] >> 4 & 0x07;
  capabilities.persist_through_power_loss_activated = (data[3] & 0x01) != 0;
  /* Byte 4 has type N in bit N, byte 5 goes on with type 8 in bit 0. */
  if (capabilities.type_mask_valid)
    capabilities.type_mask = (guint16)(data[4] | data[5] << 8);
  *ret = capabilities;
  return TRUE;
}

/* ---- READ FULL STATUS ---- */

/* One full status descriptor (SPC-4 6.15.5) at the start of length bytes. ret_used 0: it did not arrive as a whole. */
static gboolean
decode_descriptor (const guint8 *data, gsize length, HfPrRegistrant *ret, gsize *ret_used, GError **error)
{
  HfPrRegistrant registrant = { 0 };
  guint32 id_length;

  *ret_used = 0;
  if (length < DESCRIPTOR_LENGTH)
    return TRUE;
  id_length = hf_get_be32 (data + 20);
  if (id_length > HF_TRANSPORT_ID_MAX)
    return bad_answer (HF_PR_IN_READ_FULL_STATUS, error, "a TransportID of %" G_GUINT32_FORMAT " bytes", id_length);
  if (id_length > length - DESCRIPTOR_LENGTH)
    return TRUE;
  if (id_length > 0 && transport_id_size (data + DESCRIPTOR_LENGTH, id_length) == 0)
    return bad_answer (HF_PR_IN_READ_FULL_STATUS, error,
                       "ADDITIONAL DESCRIPTOR LENGTH %" G_GUINT32_FORMAT " cuts the TransportID", id_length);

  registrant.key = hf_get_be64 (data);
  registrant.all_tg_pt = (data[12] & 0x02) != 0;
  registrant.holder = (data[12] & 0x01) != 0;
  registrant.scope = registrant.holder ? data[13] >> 4 : 0;
  registrant.type = registrant.holder ? data[13] & 0x0f : 0;
  registrant.nexus.relative_target_port = hf_get_be16 (data + 18);
  registrant.nexus.transport_id.length = (guint16)id_length;
  memcpy (registrant.nexus.transport_id.bytes, data + DESCRIPTOR_LENGTH, id_length);
  *ret = registrant;
  *ret_used = DESCRIPTOR_LENGTH + id_length;
  return TRUE;
}

gboolean
hf_pr_full_status_decode (const guint8 *data, gsize length, HfPrFullStatus *ret, GError **error)
{
  HfPrFullStatus status = { 0 };
  g_autoptr (GArray) registrants = g_array_new (FALSE, FALSE, sizeof (HfPrRegistrant));
  gsize left;

  if (!decode_header (HF_PR_IN_READ_FULL_STATUS, data, length, &status.generation, &status.additional_length, error))
    return FALSE;
  left = MIN (status.additional_length, length - HEADER_LENGTH);
  status.truncated = status.additional_length > left;

  data += HEADER_LENGTH;
  while (left > 0) {
    HfPrRegistrant registrant;
    gsize used;

    if (!decode_descriptor (data, left, &registrant, &used, error))
      return FALSE;
    if (used == 0 && status.truncated)
      break;
    if (used == 0)
      return bad_answer (HF_PR_IN_READ_FULL_STATUS, error, "a descriptor runs past ADDITIONAL LENGTH %" G_GUINT32_FORMAT,
                         status.additional_length);
    g_array_append_val (registrants, registrant);
    data += used;
    left -= used;
  }
  status.n_registrants = registrants->len;
  if (registrants->len > 0)
    status.registrants = (HfPrRegistrant *)g_array_free (g_steal_pointer (&registrants), FALSE);
  *ret = status;
  return TRUE;
}

void
hf_pr_full_status_clear (HfPrFullStatus *status)
{
  g_free (status->registrants);
  memset (status, 0, sizeof *status);
}
