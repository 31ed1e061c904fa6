/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a target answers to PERSISTENT RESERVE IN and what a guest sends as PERSISTENT RESERVE OUT.
 *
 * Byte 0 of an input selects the decoder (0 to 3: the service action of PERSISTENT RESERVE IN, 4: PERSISTENT RESERVE OUT, its 10
 * bytes of CDB first), byte 1 is the status for what learns from it; the rest are the bytes.
 */
#include "fuzz.h"

#include <holdfast/pr.h>
#include <string.h>

#define PREFIX 2
#define CDB_LENGTH 10

/* A block of its own for what has a length of its own, so that a read behind it is seen. */
static guint8 *
own_block (const guint8 *data, gsize length)
{
  guint8 *block = g_malloc (MAX (length, 1));

  memcpy (block, data, length);
  return block;
}

static void
try_keys (const guint8 *data, gsize length, guint8 status)
{
  HfPrKeys keys;

  if (!hf_pr_keys_decode (data, length, &keys, NULL))
    return;
  g_assert (keys.n_keys <= (length - 8) / 8);
  g_assert (keys.truncated == (keys.additional_length > length - 8));
  g_assert (keys.truncated || keys.n_keys == keys.additional_length / 8);
  hf_pr_keys_clear (&keys);
}

static void
try_reservation (const guint8 *data, gsize length, guint8 status)
{
  HfPrReservation reservation;

  if (!hf_pr_reservation_decode (data, length, &reservation, NULL))
    return;
  g_assert (reservation.type <= 15 && reservation.scope <= 15);
  g_assert (reservation.reserved || (reservation.key == 0 && reservation.type == 0));
  g_assert (hf_pr_type_to_string (reservation.type) != NULL);
}

static void
try_capabilities (const guint8 *data, gsize length, guint8 status)
{
  HfPrCapabilities capabilities;

  if (!hf_pr_capabilities_decode (data, length, &capabilities, NULL))
    return;
  g_assert (capabilities.allow_commands <= 7);
  g_assert (capabilities.type_mask_valid || capabilities.type_mask == 0);
}

/* The registrants as a picture: it equals its copy, and every nexus of it finds itself registered. */
static void
try_observation (const HfPrFullStatus *full)
{
  HfPrObservation observation = {
    .generation = full->generation, .full = TRUE, .n_keys = full->n_registrants, .registrants = full->registrants
  };
  g_autofree guint64 *keys = g_new0 (guint64, full->n_registrants + 1);
  HfPrObservation copy;

  for (guint i = 0; i < full->n_registrants; i++) {
    keys[i] = full->registrants[i].key;
    observation.reserved |= full->registrants[i].holder;
    observation.type = full->registrants[i].type;
  }
  observation.keys = keys;
  hf_pr_observation_copy (&observation, &copy);
  g_assert (hf_pr_observation_equal (&observation, &copy));
  hf_pr_observation_clear (&copy);

  for (guint i = 0; i < MIN (full->n_registrants, 8); i++) {
    HfPrState state = { .key = keys[i], .uncertain = TRUE };

    g_assert (hf_pr_observation_count_key (&observation, keys[i]) > 0);
    hf_pr_state_resolve (&state, &observation, &full->registrants[i].nexus, 0);
    /* Key 0 is listed by no sane target: it is no registration, so another entry of this nexus may be found instead. */
    g_assert (state.key == keys[i] || state.uncertain || keys[i] == 0);
  }
}

static void
try_full_status (const guint8 *data, gsize length, guint8 status)
{
  HfPrFullStatus full;

  if (!hf_pr_full_status_decode (data, length, &full, NULL))
    return;
  g_assert (full.n_registrants <= (length - 8) / 24);
  g_assert (full.truncated == (full.additional_length > length - 8));
  for (guint i = 0; i < full.n_registrants; i++) {
    g_autofree char *text = hf_nexus_to_string (&full.registrants[i].nexus);

    g_assert (full.registrants[i].nexus.transport_id.length <= HF_TRANSPORT_ID_MAX);
    g_assert (text != NULL);
  }
  try_observation (&full);
  hf_pr_full_status_clear (&full);
}

/* What was decoded says the same when it is encoded again; TransportIDs are not decoded, so a list with some cannot be. */
static void
try_again (const HfPrOut *out)
{
  g_autoptr (GByteArray) list = NULL;
  guint8 cdb[CDB_LENGTH];
  HfPrOut again;

  list = hf_pr_out_encode (out, cdb, NULL);
  g_assert ((list == NULL) == (out->n_transport_ids > 0));
  if (list == NULL)
    return;
  g_assert (hf_pr_out_decode (cdb, sizeof cdb, list->data, list->len, &again, NULL));
  g_assert (again.action == out->action && again.scope == out->scope && again.type == out->type);
  g_assert (again.key == out->key && again.new_key == out->new_key);
  g_assert (again.aptpl == out->aptpl && again.all_tg_pt == out->all_tg_pt);
}

static void
try_out (const guint8 *data, gsize length, guint8 status)
{
  gsize cdb_length = MIN (length, CDB_LENGTH);
  g_autofree guint8 *cdb = own_block (data, cdb_length);
  g_autofree guint8 *list = own_block (data + cdb_length, length - cdb_length);
  HfPrState state = { .key = status, .type = status % 9 };
  gboolean changed;
  HfPrOut out;

  if (!hf_pr_out_decode (cdb, cdb_length, list, length - cdb_length, &out, NULL))
    return;
  try_again (&out);
  changed = hf_pr_state_learn (&state, &out, status);
  g_assert (status != HF_SAM_RESERVATION_CONFLICT || !changed);
  g_assert (status == HF_SAM_GOOD || status == HF_SAM_RESERVATION_CONFLICT || state.uncertain);
}

static void (*const decoders[]) (const guint8 *data, gsize length, guint8 status) = { try_keys, try_reservation, try_capabilities,
                                                                                      try_full_status, try_out };

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t length)
{
  g_autofree guint8 *block = NULL;

  if (length < PREFIX)
    return 0;
  block = own_block (data + PREFIX, length - PREFIX);
  decoders[data[0] % G_N_ELEMENTS (decoders)](block, length - PREFIX, data[1]);
  return 0;
}
