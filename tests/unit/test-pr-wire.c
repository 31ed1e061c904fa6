/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* pr-wire against bytes written down from the tables of SPC-4 6.15 and 6.16, not from the encoder. */
#include <holdfast/pr.h>

#include <string.h>

#define KEY G_GUINT64_CONSTANT (0x0102030405060708)
#define NEW_KEY G_GUINT64_CONSTANT (0x1112131415161718)
#define KEY_BYTES 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08
#define NEW_KEY_BYTES 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18

/* TransportIDs of SPC-4 7.6.4. */
#define SAS_BYTES 0x06, 0, 0, 0, 0x50, 0x01, 0x40, 0x50, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
#define FC_BYTES 0x00, 0, 0, 0, 0, 0, 0, 0, 0x21, 0, 0, 0x24, 0xff, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0
/* "iqn.2026-11.org.example:a,i,0x00023d000001" and two bytes of NUL: 44 = 2ch bytes. */
#define ISCSI_LENGTH 48
#define ISCSI_BYTES                                                                                                              \
  0x45, 0, 0, 0x2c, 'i', 'q', 'n', '.', '2', '0', '2', '6', '-', '1', '1', '.', 'o', 'r', 'g', '.', 'e', 'x', 'a', 'm', 'p',     \
      'l', 'e', ':', 'a', ',', 'i', ',', '0', 'x', '0', '0', '0', '2', '3', 'd', '0', '0', '0', '0', '0', '1', 0, 0

static const HfTransportId sas_id = { 24, { SAS_BYTES } };
static const HfTransportId fc_id = { 24, { FC_BYTES } };
static const HfTransportId iscsi_id = { ISCSI_LENGTH, { ISCSI_BYTES } };
static const HfTransportId two_ids[] = { { 24, { SAS_BYTES } }, { ISCSI_LENGTH, { ISCSI_BYTES } } };

/* ---- PERSISTENT RESERVE OUT ---- */

typedef struct {
  const char *name;
  HfPrOut out;
  guint8 cdb[10];
  guint length;
  guint8 list[128];
} OutSample;

static const OutSample out_samples[] = {
  { "register",
    { .action = HF_PR_OUT_REGISTER, .new_key = NEW_KEY },
    { 0x5f, 0, 0, 0, 0, 0, 0, 0, 24 },
    24,
    { 0, 0, 0, 0, 0, 0, 0, 0, NEW_KEY_BYTES } },
  { "register-aptpl-all-tg-pt",
    { .action = HF_PR_OUT_REGISTER, .key = KEY, .new_key = NEW_KEY, .aptpl = TRUE, .all_tg_pt = TRUE },
    { 0x5f, 0, 0, 0, 0, 0, 0, 0, 24 },
    24,
    { KEY_BYTES, NEW_KEY_BYTES, 0, 0, 0, 0, 0x05 } },
  { "register-spec-i-pt",
    { .action = HF_PR_OUT_REGISTER, .new_key = NEW_KEY, .transport_ids = two_ids, .n_transport_ids = 2 },
    { 0x5f, 0, 0, 0, 0, 0, 0, 0, 100 },
    100,
    { 0, 0, 0, 0, 0, 0, 0, 0, NEW_KEY_BYTES, 0, 0, 0, 0, 0x08, 0, 0, 0, 0, 0, 0, 72, SAS_BYTES, ISCSI_BYTES } },
  { "reserve", { .action = HF_PR_OUT_RESERVE, .type = 5, .key = KEY }, { 0x5f, 1, 0x05, 0, 0, 0, 0, 0, 24 }, 24, { KEY_BYTES } },
  { "reserve-scope",
    { .action = HF_PR_OUT_RESERVE, .scope = 2, .type = 8, .key = KEY },
    { 0x5f, 1, 0x28, 0, 0, 0, 0, 0, 24 },
    24,
    { KEY_BYTES } },
  { "release", { .action = HF_PR_OUT_RELEASE, .type = 3, .key = KEY }, { 0x5f, 2, 0x03, 0, 0, 0, 0, 0, 24 }, 24, { KEY_BYTES } },
  { "clear", { .action = HF_PR_OUT_CLEAR, .key = KEY }, { 0x5f, 3, 0, 0, 0, 0, 0, 0, 24 }, 24, { KEY_BYTES } },
  { "preempt",
    { .action = HF_PR_OUT_PREEMPT, .type = 1, .key = KEY, .new_key = NEW_KEY },
    { 0x5f, 4, 1, 0, 0, 0, 0, 0, 24 },
    24,
    { KEY_BYTES, NEW_KEY_BYTES } },
  { "preempt-and-abort",
    { .action = HF_PR_OUT_PREEMPT_AND_ABORT, .type = 6, .key = KEY, .new_key = NEW_KEY },
    { 0x5f, 5, 6, 0, 0, 0, 0, 0, 24 },
    24,
    { KEY_BYTES, NEW_KEY_BYTES } },
  { "register-and-ignore",
    { .action = HF_PR_OUT_REGISTER_AND_IGNORE, .new_key = NEW_KEY, .aptpl = TRUE },
    { 0x5f, 6, 0, 0, 0, 0, 0, 0, 24 },
    24,
    { 0, 0, 0, 0, 0, 0, 0, 0, NEW_KEY_BYTES, 0, 0, 0, 0, 0x01 } },
  { "register-and-move",
    { .action = HF_PR_OUT_REGISTER_AND_MOVE,
      .type = 3,
      .key = KEY,
      .new_key = NEW_KEY,
      .aptpl = TRUE,
      .unregister = TRUE,
      .relative_target_port = 0x0102,
      .transport_ids = &iscsi_id,
      .n_transport_ids = 1 },
    { 0x5f, 7, 3, 0, 0, 0, 0, 0, 72 },
    72,
    { KEY_BYTES, NEW_KEY_BYTES, 0, 0x03, 1, 2, 0, 0, 0, 48, ISCSI_BYTES } },
  { "register-and-move-keep",
    { .action = HF_PR_OUT_REGISTER_AND_MOVE, .key = KEY, .new_key = NEW_KEY, .transport_ids = &fc_id, .n_transport_ids = 1 },
    { 0x5f, 7, 0, 0, 0, 0, 0, 0, 48 },
    48,
    { KEY_BYTES, NEW_KEY_BYTES, 0, 0, 0, 0, 0, 0, 0, 24, FC_BYTES } },
  { "replace-lost-reservation",
    { .action = HF_PR_OUT_REPLACE_LOST_RESERVATION, .type = 7, .new_key = NEW_KEY },
    { 0x5f, 8, 7, 0, 0, 0, 0, 0, 24 },
    24,
    { 0, 0, 0, 0, 0, 0, 0, 0, NEW_KEY_BYTES } },
};

static void
test_out_encode (gconstpointer data)
{
  const OutSample *sample = data;
  g_autoptr (GError) error = NULL;
  g_autoptr (GByteArray) list = NULL;
  guint8 cdb[10];

  memset (cdb, 0xaa, sizeof cdb);
  list = hf_pr_out_encode (&sample->out, cdb, &error);
  g_assert_no_error (error);
  g_assert_nonnull (list);
  g_assert_cmpmem (cdb, sizeof cdb, sample->cdb, sizeof sample->cdb);
  g_assert_cmpmem (list->data, list->len, sample->list, sample->length);
}

static void
test_out_decode (gconstpointer data)
{
  const OutSample *sample = data;
  g_autoptr (GError) error = NULL;
  HfPrOut out;

  g_assert_true (hf_pr_out_decode (sample->cdb, 10, sample->list, sample->length, &out, &error));
  g_assert_no_error (error);
  g_assert_cmpuint (out.action, ==, sample->out.action);
  g_assert_cmpuint (out.scope, ==, sample->out.scope);
  g_assert_cmpuint (out.type, ==, sample->out.type);
  g_assert_cmphex (out.key, ==, sample->out.key);
  g_assert_cmphex (out.new_key, ==, sample->out.new_key);
  g_assert_cmpint (out.aptpl, ==, sample->out.aptpl);
  g_assert_cmpint (out.all_tg_pt, ==, sample->out.all_tg_pt);
  g_assert_cmpint (out.unregister, ==, sample->out.unregister);
  g_assert_cmpuint (out.relative_target_port, ==, sample->out.relative_target_port);
  g_assert_cmpuint (out.n_transport_ids, ==, sample->out.n_transport_ids);
  g_assert_null (out.transport_ids);
}

/* Every length but the right one is refused, and nothing behind the bytes that are there is read: each is a heap block of its own
   size, so the address sanitizer sees a read behind it. */
static void
test_out_truncated (gconstpointer data)
{
  const OutSample *sample = data;

  for (guint length = 0; length < sample->length; length++) {
    g_autofree guint8 *list = g_malloc (MAX (length, 1));
    g_autoptr (GError) first = NULL;
    g_autoptr (GError) second = NULL;
    HfPrOut out = { .action = 99 };
    guint8 cdb[10];

    memcpy (list, sample->list, length);
    memcpy (cdb, sample->cdb, sizeof cdb);
    g_assert_false (hf_pr_out_decode (cdb, 10, list, length, &out, &first));
    g_assert_error (first, HF_PR_ERROR, HF_PR_ERROR_ARGUMENT);
    cdb[8] = (guint8)length; /* now the CDB admits that the list is short */
    g_assert_false (hf_pr_out_decode (cdb, 10, list, length, &out, &second));
    g_assert_error (second, HF_PR_ERROR, HF_PR_ERROR_ARGUMENT);
    g_assert_cmpuint (out.action, ==, 99);
  }
  for (guint length = 0; length < 10; length++) {
    g_autofree guint8 *cdb = g_malloc (MAX (length, 1));
    HfPrOut out;

    memcpy (cdb, sample->cdb, length);
    g_assert_false (hf_pr_out_decode (cdb, length, sample->list, sample->length, &out, NULL));
  }
}

static const struct {
  const char *name;
  HfPrOut out;
  const char *message;
} refused[] = {
  { "reserved-action", { .action = 9 }, "reserved" },
  { "type-of-five-bits", { .action = HF_PR_OUT_RESERVE, .type = 16 }, "four bits" },
  { "scope-of-five-bits", { .action = HF_PR_OUT_RESERVE, .scope = 16 }, "four bits" },
  { "move-without-transport-id", { .action = HF_PR_OUT_REGISTER_AND_MOVE }, "exactly one" },
  { "move-with-two", { .action = HF_PR_OUT_REGISTER_AND_MOVE, .transport_ids = two_ids, .n_transport_ids = 2 }, "exactly one" },
  { "move-with-all-tg-pt",
    { .action = HF_PR_OUT_REGISTER_AND_MOVE, .all_tg_pt = TRUE, .transport_ids = &sas_id, .n_transport_ids = 1 },
    "ALL_TG_PT" },
  { "unreg-elsewhere", { .action = HF_PR_OUT_REGISTER, .unregister = TRUE }, "UNREG" },
  { "port-elsewhere", { .action = HF_PR_OUT_RESERVE, .relative_target_port = 1 }, "relative target port" },
  { "transport-ids-with-ignore",
    { .action = HF_PR_OUT_REGISTER_AND_IGNORE, .transport_ids = two_ids, .n_transport_ids = 2 },
    "TransportIDs go with" },
  { "transport-ids-of-a-decoded-command", { .action = HF_PR_OUT_REGISTER, .n_transport_ids = 2 }, "missing" },
};

static void
test_out_refused (void)
{
  for (guint i = 0; i < G_N_ELEMENTS (refused); i++) {
    g_autoptr (GError) error = NULL;
    guint8 cdb[10];

    g_test_message ("%s", refused[i].name);
    g_assert_null (hf_pr_out_encode (&refused[i].out, cdb, &error));
    g_assert_error (error, HF_PR_ERROR, HF_PR_ERROR_ARGUMENT);
    g_assert_nonnull (strstr (error->message, refused[i].message));
  }
}

/* A TransportID of unknown length, one that is cut, one longer than it says. */
static void
test_out_refuses_bad_transport_id (void)
{
  static const HfTransportId bad[] = { { 0, { 0 } }, { 20, { 0x06 } }, { 28, { 0x06 } }, { 40, { 0x45, 0, 0, 0x2c } } };

  for (guint i = 0; i < G_N_ELEMENTS (bad); i++) {
    HfPrOut out = { .action = HF_PR_OUT_REGISTER_AND_MOVE, .transport_ids = &bad[i], .n_transport_ids = 1 };
    g_autoptr (GError) error = NULL;
    guint8 cdb[10];

    g_assert_null (hf_pr_out_encode (&out, cdb, &error));
    g_assert_error (error, HF_PR_ERROR, HF_PR_ERROR_ARGUMENT);
    g_assert_nonnull (strstr (error->message, "malformed"));
  }
}

static void
test_out_refuses_list_too_long (void)
{
  guint n = HF_SCSI_DATA_MAX / 24 + 1;
  g_autofree HfTransportId *ids = g_new (HfTransportId, n);
  HfPrOut out = { .action = HF_PR_OUT_REGISTER, .transport_ids = ids, .n_transport_ids = n };
  g_autoptr (GError) error = NULL;
  guint8 cdb[10];

  for (guint i = 0; i < n; i++)
    ids[i] = sas_id;
  g_assert_null (hf_pr_out_encode (&out, cdb, &error));
  g_assert_error (error, HF_PR_ERROR, HF_PR_ERROR_ARGUMENT);
}

/* The list length has 32 bits in the CDB (bytes 5 to 8): a long SPEC_I_PT list must not lose the upper ones. */
static void
test_out_long_list (void)
{
  g_autofree HfTransportId *ids = g_new (HfTransportId, 3000);
  HfPrOut decoded, out = { .action = HF_PR_OUT_REGISTER, .new_key = KEY, .transport_ids = ids, .n_transport_ids = 3000 };
  g_autoptr (GByteArray) list = NULL;
  guint8 cdb[10];

  for (guint i = 0; i < 3000; i++)
    ids[i] = sas_id;
  list = hf_pr_out_encode (&out, cdb, NULL);
  g_assert_nonnull (list);
  g_assert_cmpuint (list->len, ==, 28 + 72000);
  g_assert_cmpuint (cdb[5] << 24 | cdb[6] << 16 | cdb[7] << 8 | cdb[8], ==, list->len);
  g_assert_true (hf_pr_out_decode (cdb, 10, list->data, list->len, &decoded, NULL));
  g_assert_cmpuint (decoded.n_transport_ids, ==, 3000);
}

static void
test_out_decode_refused (void)
{
  static const struct {
    guint offset;
    guint8 cdb[10];
    guint8 value;
    const char *message;
  } samples[] = {
    { 0, { 0x5e, 0, 0, 0, 0, 0, 0, 0, 24 }, 0, "not a PERSISTENT RESERVE OUT" },
    { 0, { 0x5f, 9, 0, 0, 0, 0, 0, 0, 24 }, 0, "reserved" },
    { 0, { 0x5f, 1, 5, 0, 0, 0, 0, 0, 32 }, 0, "not 24 bytes" },
    { 0, { 0x5f, 1, 5, 0, 0, 1, 0, 0, 24 }, 0, "shorter than PARAMETER LIST LENGTH" },
    { 20, { 0x5f, 6, 0, 0, 0, 0, 0, 0, 28 }, 0x08, "SPEC_I_PT" },
    { 20, { 0x5f, 0, 0, 0, 0, 0, 0, 0, 24 }, 0x08, "do not fit" },
    { 0, { 0x5f, 7, 0, 0, 0, 0, 0, 0, 24 }, 0, "does not fit" },
  };

  for (guint i = 0; i < G_N_ELEMENTS (samples); i++) {
    guint8 list[64] = { 0 };
    g_autoptr (GError) error = NULL;
    HfPrOut out;

    list[samples[i].offset] = samples[i].value;
    g_assert_false (hf_pr_out_decode (samples[i].cdb, 10, list, sizeof list, &out, &error));
    g_assert_error (error, HF_PR_ERROR, HF_PR_ERROR_ARGUMENT);
    g_assert_nonnull (strstr (error->message, samples[i].message));
  }
}

/* ---- PERSISTENT RESERVE IN ---- */

static void
test_in_encode (void)
{
  static const guint8 expected[][10] = {
    { 0x5e, 0, 0, 0, 0, 0, 0, 0x20, 0x00 },
    { 0x5e, 1, 0, 0, 0, 0, 0, 0x20, 0x00 },
    { 0x5e, 2, 0, 0, 0, 0, 0, 0x20, 0x00 },
    { 0x5e, 3, 0, 0, 0, 0, 0, 0x20, 0x00 },
  };
  guint8 cdb[10];

  for (guint action = 0; action < G_N_ELEMENTS (expected); action++) {
    memset (cdb, 0xaa, sizeof cdb);
    hf_pr_in_encode ((guint8)action, 8192, cdb);
    g_assert_cmpmem (cdb, sizeof cdb, expected[action], 10);
  }
  hf_pr_in_encode (HF_PR_IN_READ_KEYS, 0xffff, cdb);
  g_assert_cmphex (cdb[7] << 8 | cdb[8], ==, 0xffff);
}

static const guint8 keys_sample[] = { 0, 0, 0x12, 0x34, 0, 0, 0, 24, KEY_BYTES, NEW_KEY_BYTES, KEY_BYTES };

static void
test_keys (void)
{
  g_autoptr (GError) error = NULL;
  HfPrKeys keys;

  g_assert_true (hf_pr_keys_decode (keys_sample, sizeof keys_sample, &keys, &error));
  g_assert_no_error (error);
  g_assert_cmpuint (keys.generation, ==, 0x1234);
  g_assert_cmpuint (keys.additional_length, ==, 24);
  g_assert_false (keys.truncated);
  g_assert_cmpuint (keys.n_keys, ==, 3);
  g_assert_cmphex (keys.keys[0], ==, KEY);
  g_assert_cmphex (keys.keys[1], ==, NEW_KEY);
  g_assert_cmphex (keys.keys[2], ==, KEY);
  hf_pr_keys_clear (&keys);
  g_assert_null (keys.keys);
  hf_pr_keys_clear (&keys);
}

static void
test_keys_none (void)
{
  static const guint8 sample[] = { 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0 };
  HfPrKeys keys;

  g_assert_true (hf_pr_keys_decode (sample, sizeof sample, &keys, NULL));
  g_assert_cmphex (keys.generation, ==, 0xffffffff);
  g_assert_cmpuint (keys.n_keys, ==, 0);
  g_assert_null (keys.keys);
  g_assert_false (keys.truncated);
}

/* An allocation length of 8192 zeroes behind the list must not become keys. */
static void
test_keys_ignores_what_is_behind (void)
{
  g_autofree guint8 *buffer = g_malloc0 (8192);
  HfPrKeys keys;

  memcpy (buffer, keys_sample, sizeof keys_sample);
  g_assert_true (hf_pr_keys_decode (buffer, 8192, &keys, NULL));
  g_assert_cmpuint (keys.n_keys, ==, 3);
  g_assert_false (keys.truncated);
  hf_pr_keys_clear (&keys);
}

static void
test_keys_every_truncation (void)
{
  for (guint length = 0; length < sizeof keys_sample; length++) {
    g_autofree guint8 *data = g_malloc (MAX (length, 1));
    g_autoptr (GError) error = NULL;
    HfPrKeys keys;

    memcpy (data, keys_sample, length);
    if (!hf_pr_keys_decode (data, length, &keys, &error)) {
      g_assert_cmpuint (length, <, 8);
      g_assert_error (error, HF_PR_ERROR, HF_PR_ERROR_ANSWER);
      continue;
    }
    g_assert_cmpuint (length, >=, 8);
    g_assert_true (keys.truncated);
    g_assert_cmpuint (keys.n_keys, ==, (length - 8) / 8);
    g_assert_cmpuint (keys.additional_length, ==, 24);
    hf_pr_keys_clear (&keys);
  }
}

static void
test_keys_length_not_of_keys (void)
{
  static const guint8 sample[16] = { 0, 0, 0, 1, 0, 0, 0, 7 };
  static const guint8 huge[16] = { 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff };
  g_autoptr (GError) error = NULL;
  HfPrKeys keys;

  g_assert_false (hf_pr_keys_decode (sample, sizeof sample, &keys, &error));
  g_assert_error (error, HF_PR_ERROR, HF_PR_ERROR_ANSWER);
  g_assert_nonnull (strstr (error->message, "READ KEYS"));
  g_assert_false (hf_pr_keys_decode (huge, sizeof huge, &keys, NULL));
}

/* The largest length that a target can claim costs no more memory than what it sent. */
static void
test_keys_claims_four_gigabytes (void)
{
  static const guint8 sample[] = { 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xf8, KEY_BYTES };
  HfPrKeys keys;

  g_assert_true (hf_pr_keys_decode (sample, sizeof sample, &keys, NULL));
  g_assert_true (keys.truncated);
  g_assert_cmpuint (keys.n_keys, ==, 1);
  g_assert_cmpuint (keys.additional_length, ==, 0xfffffff8);
  hf_pr_keys_clear (&keys);
}

/* A list longer than one buffer: the first answer says how long it is, the second has it. */
static void
test_keys_longer_than_one_buffer (void)
{
  enum { N = 2000 };
  g_autoptr (GByteArray) answer = g_byte_array_new ();
  static const guint8 header[] = { 0, 0, 0, 9, 0, 0, 0x3e, 0x80 };
  HfPrKeys keys;

  g_byte_array_append (answer, header, sizeof header);
  for (guint i = 0; i < N; i++) {
    guint8 key[8] = { 0, 0, 0, 0, 0, 0, (guint8)(i >> 8), (guint8)i };
    g_byte_array_append (answer, key, sizeof key);
  }
  g_assert_true (hf_pr_keys_decode (answer->data, 8192, &keys, NULL));
  g_assert_true (keys.truncated);
  g_assert_cmpuint (keys.n_keys, ==, 1023);
  g_assert_cmpuint (keys.additional_length + 8, ==, answer->len);
  hf_pr_keys_clear (&keys);

  g_assert_true (hf_pr_keys_decode (answer->data, answer->len, &keys, NULL));
  g_assert_false (keys.truncated);
  g_assert_cmpuint (keys.n_keys, ==, N);
  g_assert_cmphex (keys.keys[N - 1], ==, N - 1);
  hf_pr_keys_clear (&keys);
}

static const guint8 reservation_sample[24] = { 0, 0, 0, 7, 0, 0, 0, 16, KEY_BYTES, 0, 0, 0, 0, 0, 0x05 };

static void
test_reservation (void)
{
  HfPrReservation reservation;

  g_assert_true (hf_pr_reservation_decode (reservation_sample, sizeof reservation_sample, &reservation, NULL));
  g_assert_true (reservation.reserved);
  g_assert_cmpuint (reservation.generation, ==, 7);
  g_assert_cmphex (reservation.key, ==, KEY);
  g_assert_cmpuint (reservation.scope, ==, 0);
  g_assert_cmpuint (reservation.type, ==, 5);
}

static void
test_reservation_none (void)
{
  static const guint8 sample[] = { 0, 0, 0, 7, 0, 0, 0, 0, KEY_BYTES, 0, 0, 0, 0, 0, 0x05 };
  HfPrReservation reservation;

  g_assert_true (hf_pr_reservation_decode (sample, sizeof sample, &reservation, NULL));
  g_assert_false (reservation.reserved);
  g_assert_cmpuint (reservation.generation, ==, 7);
  g_assert_cmphex (reservation.key, ==, 0);
  g_assert_cmpuint (reservation.type, ==, 0);
}

static void
test_reservation_every_truncation (void)
{
  for (guint length = 0; length < sizeof reservation_sample; length++) {
    g_autofree guint8 *data = g_malloc (MAX (length, 1));
    g_autoptr (GError) error = NULL;
    HfPrReservation reservation;

    memcpy (data, reservation_sample, length);
    g_assert_false (hf_pr_reservation_decode (data, length, &reservation, &error));
    g_assert_error (error, HF_PR_ERROR, HF_PR_ERROR_ANSWER);
  }
}

/* Neither "none" nor "one": believing it either way could lose a reservation. */
static void
test_reservation_of_another_length (void)
{
  guint8 sample[40] = { 0, 0, 0, 7, 0, 0, 0, 8, KEY_BYTES };
  HfPrReservation reservation;

  for (guint length = 1; length < 33; length++) {
    g_autoptr (GError) error = NULL;

    sample[7] = (guint8)length;
    g_assert_cmpint (hf_pr_reservation_decode (sample, sizeof sample, &reservation, &error), ==, length == 16);
    if (length != 16)
      g_assert_error (error, HF_PR_ERROR, HF_PR_ERROR_ANSWER);
  }
}

/* A target that accepted PREEMPT with TYPE 0 shows it afterwards. */
static void
test_reservation_keeps_an_unknown_type (void)
{
  guint8 sample[24];
  HfPrReservation reservation;

  memcpy (sample, reservation_sample, sizeof sample);
  for (guint type = 0; type < 16; type++) {
    sample[21] = (guint8)(0x20 | type);
    g_assert_true (hf_pr_reservation_decode (sample, sizeof sample, &reservation, NULL));
    g_assert_true (reservation.reserved);
    g_assert_cmpuint (reservation.type, ==, type);
    g_assert_cmpuint (reservation.scope, ==, 2);
  }
}

static void
test_capabilities_lio (void)
{
  static const guint8 sample[] = { 0x00, 0x08, 0x1d, 0x90, 0xea, 0x01, 0, 0 };
  static const guint8 activated[] = { 0x00, 0x08, 0x1d, 0x91, 0xea, 0x01, 0, 0 };
  HfPrCapabilities capabilities;

  g_assert_true (hf_pr_capabilities_decode (sample, sizeof sample, &capabilities, NULL));
  g_assert_false (capabilities.replace_lost_reservation_capable);
  g_assert_true (capabilities.compatible_reservation_handling);
  g_assert_true (capabilities.specify_initiator_ports_capable);
  g_assert_true (capabilities.all_target_ports_capable);
  g_assert_true (capabilities.persist_through_power_loss_capable);
  g_assert_false (capabilities.persist_through_power_loss_activated);
  g_assert_true (capabilities.type_mask_valid);
  g_assert_cmpuint (capabilities.allow_commands, ==, 1);
  g_assert_cmphex (capabilities.type_mask, ==, 1 << 1 | 1 << 3 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8);
  g_assert_true (hf_pr_capabilities_decode (activated, sizeof activated, &capabilities, NULL));
  g_assert_true (capabilities.persist_through_power_loss_activated);
}

static void
test_capabilities_tgt (void)
{
  static const guint8 sample[] = { 0x00, 0x08, 0x00, 0x80, 0xea, 0x01, 0, 0 };
  HfPrCapabilities capabilities;

  g_assert_true (hf_pr_capabilities_decode (sample, sizeof sample, &capabilities, NULL));
  g_assert_false (capabilities.compatible_reservation_handling);
  g_assert_false (capabilities.specify_initiator_ports_capable);
  g_assert_false (capabilities.all_target_ports_capable);
  g_assert_false (capabilities.persist_through_power_loss_capable);
  g_assert_false (capabilities.persist_through_power_loss_activated);
  g_assert_true (capabilities.type_mask_valid);
  g_assert_cmpuint (capabilities.allow_commands, ==, 0);
  g_assert_cmphex (capabilities.type_mask, ==, 0x1ea);
}

static void
test_capabilities_every_truncation (void)
{
  static const guint8 sample[] = { 0x00, 0x08, 0x9d, 0xf1, 0xea, 0x01, 0, 0 };

  for (guint length = 0; length < sizeof sample; length++) {
    g_autofree guint8 *data = g_malloc (MAX (length, 1));
    g_autoptr (GError) error = NULL;
    HfPrCapabilities capabilities;

    memcpy (data, sample, length);
    if (!hf_pr_capabilities_decode (data, length, &capabilities, &error)) {
      g_assert_cmpuint (length, <, 4);
      g_assert_error (error, HF_PR_ERROR, HF_PR_ERROR_ANSWER);
      continue;
    }
    g_assert_cmpuint (length, >=, 4);
    g_assert_true (capabilities.replace_lost_reservation_capable);
    g_assert_cmpuint (capabilities.allow_commands, ==, 7);
    g_assert_cmpint (capabilities.type_mask_valid, ==, length >= 6);
    g_assert_cmphex (capabilities.type_mask, ==, length >= 6 ? 0x1ea : 0);
  }
}

/* ---- READ FULL STATUS ---- */

#define DESCRIPTOR(flags, scope_type, port, id_length) 0, 0, 0, 0, flags, scope_type, 0, 0, 0, 0, 0, port, 0, 0, 0, id_length

/* Three registrants: SAS holds, FC with ALL_TG_PT, iSCSI. 48 + 48 + 72 = a8h bytes. SCOPE/TYPE of those that do not hold is
 * noise. */
static const guint8 full_sample[] = { 0,
                                      0,
                                      0x01,
                                      0x02,
                                      0,
                                      0,
                                      0,
                                      0xa8,
                                      KEY_BYTES,
                                      DESCRIPTOR (0x01, 0x05, 1, 24),
                                      SAS_BYTES,
                                      NEW_KEY_BYTES,
                                      DESCRIPTOR (0x02, 0x16, 2, 24),
                                      FC_BYTES,
                                      KEY_BYTES,
                                      DESCRIPTOR (0x00, 0x77, 3, ISCSI_LENGTH),
                                      ISCSI_BYTES };
static const guint full_ends[] = { 8, 8 + 48, 8 + 96, 8 + 168 };

static void
test_full_status (void)
{
  g_autoptr (GError) error = NULL;
  HfPrFullStatus status;
  const HfPrRegistrant *r;

  g_assert_true (hf_pr_full_status_decode (full_sample, sizeof full_sample, &status, &error));
  g_assert_no_error (error);
  g_assert_cmpuint (status.generation, ==, 0x102);
  g_assert_cmpuint (status.additional_length, ==, 168);
  g_assert_false (status.truncated);
  g_assert_cmpuint (status.n_registrants, ==, 3);

  r = &status.registrants[0];
  g_assert_cmphex (r->key, ==, KEY);
  g_assert_true (r->holder);
  g_assert_false (r->all_tg_pt);
  g_assert_cmpuint (r->scope, ==, 0);
  g_assert_cmpuint (r->type, ==, 5);
  g_assert_cmpuint (r->nexus.relative_target_port, ==, 1);
  g_assert_cmpmem (r->nexus.transport_id.bytes, r->nexus.transport_id.length, sas_id.bytes, 24);

  r = &status.registrants[1];
  g_assert_cmphex (r->key, ==, NEW_KEY);
  g_assert_false (r->holder);
  g_assert_true (r->all_tg_pt);
  g_assert_cmpuint (r->scope, ==, 0);
  g_assert_cmpuint (r->type, ==, 0);
  g_assert_cmpuint (r->nexus.relative_target_port, ==, 2);
  g_assert_cmpmem (r->nexus.transport_id.bytes, r->nexus.transport_id.length, fc_id.bytes, 24);

  r = &status.registrants[2];
  g_assert_cmphex (r->key, ==, KEY);
  g_assert_cmpuint (r->type, ==, 0);
  g_assert_cmpuint (r->nexus.relative_target_port, ==, 3);
  g_assert_cmpmem (r->nexus.transport_id.bytes, r->nexus.transport_id.length, iscsi_id.bytes, ISCSI_LENGTH);

  hf_pr_full_status_clear (&status);
  g_assert_null (status.registrants);
  hf_pr_full_status_clear (&status);
}

/* Whole descriptors that arrived are there, the one that was cut is not. */
static void
test_full_status_every_truncation (void)
{
  for (guint length = 0; length < sizeof full_sample; length++) {
    g_autofree guint8 *data = g_malloc (MAX (length, 1));
    g_autoptr (GError) error = NULL;
    HfPrFullStatus status;
    guint whole = 0;

    memcpy (data, full_sample, length);
    if (!hf_pr_full_status_decode (data, length, &status, &error)) {
      g_assert_cmpuint (length, <, 8);
      g_assert_error (error, HF_PR_ERROR, HF_PR_ERROR_ANSWER);
      continue;
    }
    while (whole < 3 && full_ends[whole + 1] <= length)
      whole++;
    g_assert_cmpuint (length, >=, 8);
    g_assert_true (status.truncated);
    g_assert_cmpuint (status.n_registrants, ==, whole);
    hf_pr_full_status_clear (&status);
  }
}

/* The same cuts where ADDITIONAL LENGTH claims that this is all: an error at every place but between two descriptors. */
static void
test_full_status_every_wrong_length (void)
{
  for (guint length = 8; length < sizeof full_sample; length++) {
    g_autofree guint8 *data = g_memdup2 (full_sample, length);
    g_autoptr (GError) error = NULL;
    HfPrFullStatus status;
    gboolean between = length == full_ends[0] || length == full_ends[1] || length == full_ends[2];

    data[7] = (guint8)(length - 8);
    g_assert_cmpint (hf_pr_full_status_decode (data, length, &status, &error), ==, between);
    if (between)
      hf_pr_full_status_clear (&status);
    else
      g_assert_error (error, HF_PR_ERROR, HF_PR_ERROR_ANSWER);
  }
}

static void
test_full_status_transport_id_too_long (void)
{
  guint8 sample[sizeof full_sample];
  g_autoptr (GError) error = NULL;
  HfPrFullStatus status;

  memcpy (sample, full_sample, sizeof sample);
  sample[8 + 22] = 1; /* 24 becomes 280 */
  g_assert_false (hf_pr_full_status_decode (sample, sizeof sample, &status, &error));
  g_assert_error (error, HF_PR_ERROR, HF_PR_ERROR_ANSWER);
  g_assert_nonnull (strstr (error->message, "280"));
}

/* The name's own length runs past the descriptor; a SAS address does not fit. */
static void
test_full_status_transport_id_is_cut (void)
{
  guint8 sample[sizeof full_sample];
  g_autoptr (GError) name = NULL;
  g_autoptr (GError) address = NULL;
  HfPrFullStatus status;

  memcpy (sample, full_sample, sizeof sample);
  sample[full_ends[2] + 24 + 3] = 0x2d;
  g_assert_false (hf_pr_full_status_decode (sample, sizeof sample, &status, &name));
  g_assert_error (name, HF_PR_ERROR, HF_PR_ERROR_ANSWER);
  g_assert_nonnull (strstr (name->message, "TransportID"));

  memcpy (sample, full_sample, sizeof sample);
  sample[8 + 23] = 20;
  sample[7] = 8 + 36; /* only this descriptor */
  g_assert_false (hf_pr_full_status_decode (sample, sizeof sample, &status, &address));
  g_assert_error (address, HF_PR_ERROR, HF_PR_ERROR_ANSWER);
}

/* Without a TransportID the registration is still one: its nexus is unknown. */
static void
test_full_status_without_transport_id (void)
{
  static const guint8 sample[] = { 0, 0, 0, 1, 0, 0, 0, 24, KEY_BYTES, DESCRIPTOR (0x01, 0x03, 1, 0) };
  HfPrFullStatus status;

  g_assert_true (hf_pr_full_status_decode (sample, sizeof sample, &status, NULL));
  g_assert_cmpuint (status.n_registrants, ==, 1);
  g_assert_cmpuint (status.registrants[0].nexus.transport_id.length, ==, 0);
  g_assert_cmpuint (status.registrants[0].type, ==, 3);
  hf_pr_full_status_clear (&status);
}

/* ---- names ---- */

static void
test_names (void)
{
  g_assert_cmpstr (hf_pr_type_to_string (0), ==, "none");
  g_assert_cmpstr (hf_pr_type_to_string (1), ==, "Write Exclusive");
  g_assert_cmpstr (hf_pr_type_to_string (2), ==, "obsolete");
  g_assert_cmpstr (hf_pr_type_to_string (3), ==, "Exclusive Access");
  g_assert_cmpstr (hf_pr_type_to_string (5), ==, "Write Exclusive, registrants only");
  g_assert_cmpstr (hf_pr_type_to_string (6), ==, "Exclusive Access, registrants only");
  g_assert_cmpstr (hf_pr_type_to_string (7), ==, "Write Exclusive, all registrants");
  g_assert_cmpstr (hf_pr_type_to_string (8), ==, "Exclusive Access, all registrants");
  g_assert_cmpstr (hf_pr_type_to_string (9), ==, "reserved");
  g_assert_cmpstr (hf_pr_type_to_string (255), ==, "reserved");
  g_assert_cmpstr (hf_pr_in_action_to_string (0), ==, "READ KEYS");
  g_assert_cmpstr (hf_pr_in_action_to_string (3), ==, "READ FULL STATUS");
  g_assert_cmpstr (hf_pr_in_action_to_string (4), ==, "reserved");
  g_assert_cmpstr (hf_pr_out_action_to_string (6), ==, "REGISTER AND IGNORE EXISTING KEY");
  g_assert_cmpstr (hf_pr_out_action_to_string (8), ==, "REPLACE LOST RESERVATION");
  g_assert_cmpstr (hf_pr_out_action_to_string (9), ==, "reserved");
}

static void
test_types (void)
{
  for (guint type = 0; type < 256; type++) {
    gboolean valid = type == 1 || type == 3 || type == 5 || type == 6 || type == 7 || type == 8;

    g_assert_cmpint (hf_pr_type_is_valid ((guint8)type), ==, valid);
    g_assert_cmpint (hf_pr_type_is_all_registrants ((guint8)type), ==, type == 7 || type == 8);
  }
}

static void
add_out_tests (void)
{
  for (guint i = 0; i < G_N_ELEMENTS (out_samples); i++) {
    g_autofree char *encode = g_strdup_printf ("/pr-wire/out/encode/%s", out_samples[i].name);
    g_autofree char *decode = g_strdup_printf ("/pr-wire/out/decode/%s", out_samples[i].name);
    g_autofree char *truncated = g_strdup_printf ("/pr-wire/out/every-truncation/%s", out_samples[i].name);

    g_test_add_data_func (encode, &out_samples[i], test_out_encode);
    g_test_add_data_func (decode, &out_samples[i], test_out_decode);
    g_test_add_data_func (truncated, &out_samples[i], test_out_truncated);
  }
  g_test_add_func ("/pr-wire/out/refused", test_out_refused);
  g_test_add_func ("/pr-wire/out/refuses-bad-transport-id", test_out_refuses_bad_transport_id);
  g_test_add_func ("/pr-wire/out/refuses-list-too-long", test_out_refuses_list_too_long);
  g_test_add_func ("/pr-wire/out/long-list", test_out_long_list);
  g_test_add_func ("/pr-wire/out/decode-refused", test_out_decode_refused);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  add_out_tests ();
  g_test_add_func ("/pr-wire/in/encode", test_in_encode);
  g_test_add_func ("/pr-wire/keys/three", test_keys);
  g_test_add_func ("/pr-wire/keys/none", test_keys_none);
  g_test_add_func ("/pr-wire/keys/ignores-what-is-behind", test_keys_ignores_what_is_behind);
  g_test_add_func ("/pr-wire/keys/every-truncation", test_keys_every_truncation);
  g_test_add_func ("/pr-wire/keys/length-not-of-keys", test_keys_length_not_of_keys);
  g_test_add_func ("/pr-wire/keys/claims-four-gigabytes", test_keys_claims_four_gigabytes);
  g_test_add_func ("/pr-wire/keys/longer-than-one-buffer", test_keys_longer_than_one_buffer);
  g_test_add_func ("/pr-wire/reservation/held", test_reservation);
  g_test_add_func ("/pr-wire/reservation/none", test_reservation_none);
  g_test_add_func ("/pr-wire/reservation/every-truncation", test_reservation_every_truncation);
  g_test_add_func ("/pr-wire/reservation/of-another-length", test_reservation_of_another_length);
  g_test_add_func ("/pr-wire/reservation/keeps-an-unknown-type", test_reservation_keeps_an_unknown_type);
  g_test_add_func ("/pr-wire/capabilities/lio", test_capabilities_lio);
  g_test_add_func ("/pr-wire/capabilities/tgt", test_capabilities_tgt);
  g_test_add_func ("/pr-wire/capabilities/every-truncation", test_capabilities_every_truncation);
  g_test_add_func ("/pr-wire/full-status/sas-fc-iscsi", test_full_status);
  g_test_add_func ("/pr-wire/full-status/every-truncation", test_full_status_every_truncation);
  g_test_add_func ("/pr-wire/full-status/every-wrong-length", test_full_status_every_wrong_length);
  g_test_add_func ("/pr-wire/full-status/transport-id-too-long", test_full_status_transport_id_too_long);
  g_test_add_func ("/pr-wire/full-status/transport-id-is-cut", test_full_status_transport_id_is_cut);
  g_test_add_func ("/pr-wire/full-status/without-transport-id", test_full_status_without_transport_id);
  g_test_add_func ("/pr-wire/names", test_names);
  g_test_add_func ("/pr-wire/types", test_types);
  return g_test_run ();
}
