/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The record: what is written can be read, what is damaged or hostile is refused and says why, a file appears as a whole or not
 * at all.
 *
 * Hostile records are built here from text, with a frame of the test's own making whose checksum is right: only the contents are
 * bad.
 */

#include "config.h"

#include <holdfast/record.h>

#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEADER 48
#define BODY_TYPE "(sssxa(a(yyay)styybbuua(ayq)))"
#define ID "11111111-2222-4333-8444-555555555555"
#define UNIT "([(3, 1, [96, 1])], 'SER', 4660, 5, 0, false, true, 7, 2, [([5, 0], 1)])"
#define BODY "('" ID "', 'host1', 'vm1', 1700000000, [" UNIT "])"

/* An LU whose NAA designator ends in number, with n_extra more designators of 60 bytes and two nexuses with the longest iSCSI
 * name. */
static void
fill_saved (HfPrSaved *saved, HfNexus *nexuses, guint number, guint n_extra)
{
  g_autofree char *name = g_strnfill (223, 'n');
  HfLuIdentity *identity = &saved->identity;

  memset (saved, 0, sizeof (*saved));
  identity->n_designators = 1 + n_extra;
  identity->designators[0] = (HfDesignator){ .type = 3, .code_set = 1, .length = 16 };
  memcpy (identity->designators[0].bytes, "\x60\x01\x40\x50", 4);
  identity->designators[0].bytes[14] = (guint8)(number >> 8);
  identity->designators[0].bytes[15] = (guint8)number;
  for (guint i = 1; i <= n_extra; i++) {
    identity->designators[i] = (HfDesignator){ .type = 1, .code_set = 2, .length = 60 };
    memset (identity->designators[i].bytes, 'a' + (int)i, 60);
  }
  g_snprintf (identity->serial, sizeof (identity->serial), "serial-%u", number);
  saved->key = G_GUINT64_CONSTANT (0xfedcba9876543210) + number;
  saved->type = HF_PR_TYPE_EXCLUSIVE_ACCESS_REGISTRANTS_ONLY;
  saved->aptpl = TRUE;
  saved->generation = 0xfffffff0u;
  saved->key_count = 2;
  saved->n_nexuses = 2;
  saved->nexuses = nexuses;
  memset (nexuses, 0, 2 * sizeof (*nexuses));
  for (guint i = 0; i < 2; i++) {
    g_assert_true (hf_transport_id_iscsi (name, TRUE, 0x23d000001 + i, &nexuses[i].transport_id));
    nexuses[i].relative_target_port = (guint16)(i + 1);
  }
}

static HfRecord *
make_record (guint n_units, guint n_extra)
{
  HfRecord *record = hf_record_new ("vm-7");

  for (guint i = 0; i < n_units; i++) {
    g_autoptr (GError) error = NULL;
    HfNexus nexuses[2];
    HfPrSaved saved;
    fill_saved (&saved, nexuses, i, n_extra);
    g_assert_true (hf_record_add (record, &saved, &error));
    g_assert_no_error (error);
  }
  return record;
}

static void
assert_units_equal (const HfPrSaved *a, const HfPrSaved *b)
{
  g_assert_cmpuint (a->identity.n_designators, ==, b->identity.n_designators);
  for (guint i = 0; i < a->identity.n_designators; i++) {
    const HfDesignator *x = &a->identity.designators[i], *y = &b->identity.designators[i];
    g_assert_cmpuint (x->type, ==, y->type);
    g_assert_cmpuint (x->code_set, ==, y->code_set);
    g_assert_cmpmem (x->bytes, x->length, y->bytes, y->length);
  }
  g_assert_cmpstr (a->identity.serial, ==, b->identity.serial);
  g_assert_cmphex (a->key, ==, b->key);
  g_assert_cmpuint (a->type, ==, b->type);
  g_assert_cmpuint (a->scope, ==, b->scope);
  g_assert_cmpint (a->aptpl, ==, b->aptpl);
  g_assert_cmpint (a->all_tg_pt, ==, b->all_tg_pt);
  g_assert_cmpuint (a->generation, ==, b->generation);
  g_assert_cmpuint (a->key_count, ==, b->key_count);
  g_assert_cmpuint (a->n_nexuses, ==, b->n_nexuses);
  for (guint i = 0; i < a->n_nexuses; i++) {
    const HfNexus *x = &a->nexuses[i], *y = &b->nexuses[i];
    g_assert_cmpmem (x->transport_id.bytes, x->transport_id.length, y->transport_id.bytes, y->transport_id.length);
    g_assert_cmpuint (x->relative_target_port, ==, y->relative_target_port);
  }
}

static void
assert_records_equal (const HfRecord *a, const HfRecord *b)
{
  g_assert_cmpstr (a->id, ==, b->id);
  g_assert_cmpstr (a->host, ==, b->host);
  g_assert_cmpstr (a->vm, ==, b->vm);
  g_assert_cmpint (a->time, ==, b->time);
  g_assert_cmpuint (a->n_units, ==, b->n_units);
  for (guint i = 0; i < a->n_units; i++)
    assert_units_equal (&a->units[i], &b->units[i]);
}

/* A frame around body, with a right checksum. */
static GByteArray *
frame_body (guint32 version, const void *body, gsize length)
{
  g_autoptr (GChecksum) checksum = g_checksum_new (G_CHECKSUM_SHA256);
  GByteArray *frame = g_byte_array_new ();
  guint32 words[2] = { GUINT32_TO_BE (version), GUINT32_TO_BE ((guint32)length) };
  guint8 digest[32];
  gsize digest_size = sizeof (digest);

  g_byte_array_append (frame, (const guint8 *)"HOLDFAST", 8);
  g_byte_array_append (frame, (const guint8 *)words, 8);
  g_checksum_update (checksum, frame->data, 16);
  g_checksum_update (checksum, body, (gssize)length);
  g_checksum_get_digest (checksum, digest, &digest_size);
  g_byte_array_append (frame, digest, sizeof (digest));
  g_byte_array_append (frame, body, (guint)length);
  return frame;
}

static HfRecord *
decode_text (const char *text, guint32 version, GError **error)
{
  g_autoptr (GError) local = NULL;
  g_autoptr (GVariant) body = g_variant_parse (G_VARIANT_TYPE (BODY_TYPE), text, NULL, NULL, &local);

  g_assert_no_error (local);
  if (G_BYTE_ORDER == G_BIG_ENDIAN) {
    GVariant *swapped = g_variant_byteswap (body);
    g_variant_unref (body);
    body = swapped;
  }
  g_autoptr (GByteArray) frame = frame_body (version, g_variant_get_data (body), g_variant_get_size (body));
  return hf_record_decode (frame->data, frame->len, error);
}

/* ---- round trip ---- */

static void
test_round_trip (void)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (HfRecord) record = make_record (3, 2);
  HfPrSaved unregistered;
  HfNexus nexuses[2];

  fill_saved (&unregistered, nexuses, 99, 0);
  unregistered = (HfPrSaved){ .identity = unregistered.identity, .generation = 12 };
  g_assert_true (hf_record_add (record, &unregistered, &error));

  g_autoptr (GBytes) bytes = hf_record_encode (record, &error);
  g_assert_no_error (error);
  g_autoptr (HfRecord) again = hf_record_decode (g_bytes_get_data (bytes, NULL), g_bytes_get_size (bytes), &error);
  g_assert_no_error (error);
  assert_records_equal (record, again);
  g_autoptr (GBytes) bytes_again = hf_record_encode (again, &error);
  g_assert_true (g_bytes_equal (bytes, bytes_again));
}

/* The layout is a contract with other versions and other machines: fixed bytes, not only a round trip. */
static void
test_layout (void)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (HfRecord) record = hf_record_new (NULL);

  g_free (record->id);
  record->id = g_strdup (ID);
  g_free (record->host);
  record->host = g_strdup ("h");
  record->time = 0x0102;
  g_autoptr (GBytes) bytes = hf_record_encode (record, &error);
  g_assert_no_error (error);
  /* id, host and vm with their zero bytes, which fill 40 bytes, time, no unit, where vm, host and id end */
  const guint8 tail[] = { 'h', 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 40, 39, 37 };
  gsize size;
  const guint8 *data = g_bytes_get_data (bytes, &size);
  g_assert_cmpmem (data, 16, "HOLDFAST\0\0\0\1\0\0\0\063", 16);
  g_assert_cmpmem (data + HEADER, 37, ID, 37);
  g_assert_cmpuint (size, ==, HEADER + 37 + sizeof (tail));
  g_assert_cmpmem (data + HEADER + 37, sizeof (tail), tail, sizeof (tail));
}

static void
test_new (void)
{
  g_autofree char *long_name = g_strnfill (254, 'x');
  g_autofree char *raw = g_strconcat (long_name, "\xc3\xa9", NULL);
  g_autoptr (GError) error = NULL;
  g_autoptr (HfRecord) cut = hf_record_new (raw);
  g_autoptr (HfRecord) dirty = hf_record_new ("a\x1b[2Jb\xff");
  g_autoptr (HfRecord) unknown = hf_record_new (NULL);

  g_assert_cmpstr (cut->vm, ==, long_name);
  g_assert_cmpstr (dirty->vm, ==, "a_[2Jb\xef\xbf\xbd");
  g_assert_cmpstr (unknown->vm, ==, "");
  g_assert_cmpstr (cut->id, !=, dirty->id);
  g_assert_true (g_uuid_string_is_valid (cut->id));
  g_autoptr (GBytes) bytes = hf_record_encode (dirty, &error);
  g_assert_no_error (error);
  g_assert_nonnull (bytes);
}

static void
test_full_size (void)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (HfRecord) record = make_record (HF_RECORD_LUS_MAX, 8);
  g_autoptr (GBytes) bytes = hf_record_encode (record, &error);

  g_assert_no_error (error);
  g_assert_cmpuint (g_bytes_get_size (bytes), <=, HF_RECORD_SIZE_MAX);
  g_autoptr (HfRecord) again = hf_record_decode (g_bytes_get_data (bytes, NULL), g_bytes_get_size (bytes), &error);
  g_assert_no_error (error);
  assert_records_equal (record, again);

  HfPrSaved saved;
  HfNexus nexuses[2];
  fill_saved (&saved, nexuses, 9999, 0);
  g_assert_false (hf_record_add (record, &saved, &error));
  g_assert_error (error, HF_RECORD_ERROR, HF_RECORD_ERROR_TOO_LARGE);
}

static void
test_too_large (void)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (HfRecord) record = hf_record_new ("vm");

  for (guint i = 0; i < HF_RECORD_LUS_MAX; i++) {
    HfNexus nexuses[HF_PR_NEXUSES_MAX];
    HfPrSaved saved;
    fill_saved (&saved, nexuses, i, 0);
    for (guint j = 2; j < HF_PR_NEXUSES_MAX; j++)
      nexuses[j] = nexuses[0];
    saved.n_nexuses = HF_PR_NEXUSES_MAX;
    g_assert_true (hf_record_add (record, &saved, &error));
  }
  g_assert_null (hf_record_encode (record, &error));
  g_assert_error (error, HF_RECORD_ERROR, HF_RECORD_ERROR_TOO_LARGE);
}

/* ---- LUs ---- */

static void
test_add_twice (void)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (HfRecord) record = make_record (2, 0);
  HfNexus nexuses[2];
  HfPrSaved saved;

  fill_saved (&saved, nexuses, 1, 0);
  g_assert_false (hf_record_add (record, &saved, &error));
  g_assert_error (error, HF_RECORD_ERROR, HF_RECORD_ERROR_LU);
  g_assert_cmpuint (record->n_units, ==, 2);
}

static void
test_find (void)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (HfRecord) record = make_record (12, 0);
  HfNexus nexuses[2];
  HfPrSaved saved;

  fill_saved (&saved, nexuses, 7, 0);
  g_assert_true (hf_record_find (record, &saved.identity, &error) == &record->units[7]);
  g_assert_no_error (error);

  fill_saved (&saved, nexuses, 0x4242, 0);
  g_assert_null (hf_record_find (record, &saved.identity, &error));
  g_assert_error (error, HF_RECORD_ERROR, HF_RECORD_ERROR_LU);
  g_autofree char *wanted = hf_lu_identity_to_string (&saved.identity);
  g_autofree char *had = hf_lu_identity_to_string (&record->units[0].identity);
  g_assert_nonnull (strstr (error->message, wanted));
  g_assert_nonnull (strstr (error->message, had));
  g_assert_nonnull (strstr (error->message, "and 4 more"));
}

/* Two LUs of the record, told apart by NAA only, and one that is found has a designator of each. */
static void
test_find_not_unique (void)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (HfRecord) record = make_record (2, 0);
  HfLuIdentity both = record->units[0].identity;

  both.designators[1] = record->units[1].identity.designators[0];
  both.n_designators = 2;
  g_assert_null (hf_record_find (record, &both, &error));
  g_assert_error (error, HF_RECORD_ERROR, HF_RECORD_ERROR_LU);
  g_assert_nonnull (strstr (error->message, "more than one"));
}

/* ---- damage ---- */

static void
test_every_truncation (void)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (HfRecord) record = make_record (2, 1);
  g_autoptr (GBytes) bytes = hf_record_encode (record, &error);
  gsize size;
  const guint8 *data = g_bytes_get_data (bytes, &size);

  g_assert_cmpuint (size, >, 1000);
  for (gsize length = 0; length < size; length++) {
    g_autoptr (GError) local = NULL;
    /* A copy of its own, so that the sanitizer sees a read behind the end. */
    g_autofree guint8 *copy = g_memdup2 (data, length);
    g_assert_null (hf_record_decode (copy, length, &local));
    g_assert_error (local, HF_RECORD_ERROR, HF_RECORD_ERROR_TRUNCATED);
  }
}

static void
test_appended (void)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (HfRecord) record = make_record (1, 1);
  g_autoptr (GBytes) bytes = hf_record_encode (record, &error);
  g_autoptr (GByteArray) longer = g_byte_array_new ();

  g_byte_array_append (longer, g_bytes_get_data (bytes, NULL), (guint)g_bytes_get_size (bytes));
  g_byte_array_append (longer, (const guint8 *)"", 1);
  g_assert_null (hf_record_decode (longer->data, longer->len, &error));
  g_assert_error (error, HF_RECORD_ERROR, HF_RECORD_ERROR_TRUNCATED);
}

static void
test_every_flipped_byte (void)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (HfRecord) record = make_record (1, 1);
  g_autoptr (GBytes) bytes = hf_record_encode (record, &error);
  gsize size;
  g_autofree guint8 *copy = g_memdup2 (g_bytes_get_data (bytes, NULL), g_bytes_get_size (bytes));

  size = g_bytes_get_size (bytes);
  for (gsize i = 0; i < size; i++)
    for (guint bit = 0; bit < 9; bit++) {
      g_autoptr (GError) local = NULL;
      guint8 mask = bit == 8 ? 0xff : (guint8)(1u << bit);
      copy[i] ^= mask;
      g_assert_null (hf_record_decode (copy, size, &local));
      g_assert_true (local->domain == HF_RECORD_ERROR);
      copy[i] ^= mask;
    }
  g_autoptr (HfRecord) whole = hf_record_decode (copy, size, &error);
  g_assert_no_error (error);
  g_assert_nonnull (whole);
}

static void
test_foreign (void)
{
  const char *const foreign[] = { "X", "{\"version\":1}", "HOLDFASU................................................" };

  for (guint i = 0; i < G_N_ELEMENTS (foreign); i++) {
    g_autoptr (GError) error = NULL;
    g_assert_null (hf_record_decode (foreign[i], strlen (foreign[i]), &error));
    g_assert_error (error, HF_RECORD_ERROR, HF_RECORD_ERROR_FOREIGN);
  }
}

/* ---- hostile contents ---- */

typedef struct {
  const char *name, *from, *to;
  HfRecordError code;
  const char *message;
} HostileCase;

static const HostileCase hostile_cases[] = {
  { "id-path", "'" ID "'", "'../../../../etc/cron.d/x'", HF_RECORD_ERROR_CORRUPTED, "id is not a UUID" },
  { "id-empty", "'" ID "'", "''", HF_RECORD_ERROR_CORRUPTED, "id is not a UUID" },
  { "host-escape", "'host1'", "'\\u001b[2J'", HF_RECORD_ERROR_CORRUPTED, "host has a control character" },
  { "vm-newline", "'vm1'", "'a\\nb'", HF_RECORD_ERROR_CORRUPTED, "vm has a control character" },
  { "time-negative", "1700000000", "-1", HF_RECORD_ERROR_CORRUPTED, "time -1" },
  { "time-late", "1700000000", "253402300800", HF_RECORD_ERROR_CORRUPTED, "time 253402300800" },
  { "duplicate", UNIT, UNIT "," UNIT, HF_RECORD_ERROR_CORRUPTED, "LU 0 and LU 1 are the same" },
  { "no-identity", "[(3, 1, [96, 1])], 'SER'", "[], ''", HF_RECORD_ERROR_CORRUPTED, "no designator and no serial" },
  { "designator-empty", "[96, 1]", "[]", HF_RECORD_ERROR_CORRUPTED, "designator 0 is empty" },
  { "designator-type", "(3, 1, [96", "(5, 1, [96", HF_RECORD_ERROR_CORRUPTED, "designator 0 has type 5" },
  { "designator-order", "(3, 1, [96, 1])", "(1, 2, [65]), (3, 1, [96, 1])", HF_RECORD_ERROR_CORRUPTED,
    "designator 1 is out of order" },
  { "code-set", "(3, 1, [96", "(3, 200, [96", HF_RECORD_ERROR_CORRUPTED, "code set 200" },
  { "no-key-type", "4660, 5, 0, false, true, 7, 2, [([5, 0], 1)]", "0, 5, 0, false, false, 7, 0, []", HF_RECORD_ERROR_CORRUPTED,
    "no key but type 5" },
  { "no-key-nexus", "4660, 5, 0, false, true, 7, 2,", "0, 0, 0, false, false, 7, 0,", HF_RECORD_ERROR_CORRUPTED, "1 nexuses" },
  { "no-key-flag", "4660, 5, 0, false, true, 7, 2, [([5, 0], 1)]", "0, 0, 0, true, false, 7, 0, []", HF_RECORD_ERROR_CORRUPTED,
    "APTPL 1" },
  { "type-2", "4660, 5,", "4660, 2,", HF_RECORD_ERROR_CORRUPTED, "type 2 is no reservation type" },
  { "type-255", "4660, 5,", "4660, 255,", HF_RECORD_ERROR_CORRUPTED, "type 255 is no reservation type" },
  { "scope", "4660, 5, 0,", "4660, 5, 2,", HF_RECORD_ERROR_CORRUPTED, "scope 2" },
  { "key-count-0", "7, 2,", "7, 0,", HF_RECORD_ERROR_CORRUPTED, "listed 0 times" },
  { "key-count-large", "7, 2,", "7, 4294967295,", HF_RECORD_ERROR_CORRUPTED, "listed 4294967295 times" },
  { "no-nexus", "[([5, 0], 1)]", "[]", HF_RECORD_ERROR_CORRUPTED, "on 0 nexuses" },
};

static char *
replace_once (const char *text, const char *from, const char *to)
{
  const char *at = strstr (text, from);

  g_assert_nonnull (at);
  g_assert_null (strstr (at + 1, from));
  g_autofree char *head = g_strndup (text, (gsize)(at - text));
  return g_strconcat (head, to, at + strlen (from), NULL);
}

static void
assert_refused (const char *text, HfRecordError code, const char *message)
{
  g_autoptr (GError) error = NULL;

  g_assert_null (decode_text (text, HF_RECORD_VERSION, &error));
  g_assert_true (g_error_matches (error, HF_RECORD_ERROR, (gint)code));
  if (strstr (error->message, message) == NULL)
    g_error ("\"%s\" does not say \"%s\"", error->message, message);
}

/* Without this, every hostile case could be refused for the same, other reason. */
static void
test_hostile_base_is_good (void)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (HfRecord) record = decode_text (BODY, HF_RECORD_VERSION, &error);

  g_assert_no_error (error);
  g_assert_cmpuint (record->n_units, ==, 1);
  g_assert_cmphex (record->units[0].key, ==, 4660);
  g_assert_cmpuint (record->units[0].key_count, ==, 2);
}

static void
test_hostile (gconstpointer data)
{
  const HostileCase *hostile = data;
  g_autofree char *text = replace_once (BODY, hostile->from, hostile->to);

  assert_refused (text, hostile->code, hostile->message);
}

/* count times item, with commas; item may have one %u, the number. */
static char *
repeat (const char *item, guint count)
{
  GString *text = g_string_new (NULL);

  for (guint i = 0; i < count; i++) {
    g_autofree char *number = g_strdup_printf ("%u, %u", i >> 8, i & 255);
    g_auto (GStrv) parts = g_strsplit (item, "%u", 2);
    g_string_append_printf (text, "%s%s%s%s", i > 0 ? ", " : "", parts[0], parts[1] != NULL ? number : "",
                            parts[1] != NULL ? parts[1] : "");
  }
  return g_string_free (text, FALSE);
}

static void
test_hostile_lists (void)
{
  g_autofree char *nexuses = repeat ("([5], 1)", 300);
  g_autofree char *designators = repeat ("(3, 1, [%u])", 17);
  g_autofree char *units = repeat ("([(3, 1, [%u])], '', 0, 0, 0, false, false, 7, 0, [])", 257);
  g_autofree char *bytes = repeat ("1", 300);
  g_autofree char *bytes_end = g_strconcat (bytes, "]", NULL);
  g_autofree char *serial = g_strnfill (256, 's');
  g_autofree char *quoted = g_strdup_printf ("'%s'", serial);
  g_autofree char *text = NULL;

  text = replace_once (BODY, "([5, 0], 1)", nexuses);
  assert_refused (text, HF_RECORD_ERROR_CORRUPTED, "on 300 nexuses");
  g_free (text);
  text = replace_once (BODY, "(3, 1, [96, 1])", designators);
  assert_refused (text, HF_RECORD_ERROR_CORRUPTED, "more than 16 designators");
  g_free (text);
  text = replace_once (BODY, UNIT, units);
  assert_refused (text, HF_RECORD_ERROR_TOO_LARGE, "257 LUs");
  g_free (text);
  text = replace_once (BODY, "96, 1", bytes);
  assert_refused (text, HF_RECORD_ERROR_CORRUPTED, "designator 0 has more than 255 bytes");
  g_free (text);
  text = replace_once (BODY, "5, 0]", bytes_end);
  assert_refused (text, HF_RECORD_ERROR_CORRUPTED, "TransportID of nexus 0 has more than 256 bytes");
  g_free (text);
  text = replace_once (BODY, "'SER'", quoted);
  assert_refused (text, HF_RECORD_ERROR_CORRUPTED, "serial number has more than 255 bytes");
  g_free (text);
  text = replace_once (BODY, "'vm1'", quoted);
  assert_refused (text, HF_RECORD_ERROR_CORRUPTED, "vm is longer than 255 bytes");
}

static void
test_newer (void)
{
  g_autoptr (GError) error = NULL;

  g_assert_null (decode_text (BODY, 7, &error));
  g_assert_error (error, HF_RECORD_ERROR, HF_RECORD_ERROR_NEWER);
  g_assert_nonnull (strstr (error->message, "version 7"));
  g_clear_error (&error);
  g_assert_null (decode_text (BODY, 0, &error));
  g_assert_error (error, HF_RECORD_ERROR, HF_RECORD_ERROR_CORRUPTED);
}

/* Any bytes in the body with a right checksum: refused or read, never worse. Deterministic, so that a failure can be repeated. */
static void
test_not_normal_form (void)
{
  g_autoptr (GRand) random = g_rand_new_with_seed (20260);
  g_autoptr (GError) error = NULL;
  g_autoptr (GVariant) body = g_variant_parse (G_VARIANT_TYPE (BODY_TYPE), BODY, NULL, NULL, &error);
  gsize size = g_variant_get_size (body);
  guint refused = 0;

  for (guint round = 0; round < 3000; round++) {
    g_autoptr (GError) local = NULL;
    g_autofree guint8 *copy = g_memdup2 (g_variant_get_data (body), size);
    for (int i = g_rand_int_range (random, 1, 4); i > 0; i--)
      copy[g_rand_int_range (random, 0, (gint32)size)] = (guint8)g_rand_int (random);
    g_autoptr (GByteArray) frame = frame_body (HF_RECORD_VERSION, copy, size);
    g_autoptr (HfRecord) record = hf_record_decode (frame->data, frame->len, &local);
    g_assert_true ((record == NULL) == (local != NULL));
    refused += record == NULL;
    if (record == NULL)
      continue;
    g_autoptr (GBytes) again = hf_record_encode (record, &local);
    g_assert_no_error (local);
    g_assert_cmpmem (g_bytes_get_data (again, NULL), g_bytes_get_size (again), frame->data, frame->len);
  }
  g_assert_cmpuint (refused, >, 1000);
}

/* What we would refuse to read is never written. */
static void
test_encode_refuses (void)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (HfRecord) record = make_record (2, 0);

  record->units[1].type = 4;
  g_assert_null (hf_record_encode (record, &error));
  g_assert_error (error, HF_RECORD_ERROR, HF_RECORD_ERROR_CORRUPTED);
  g_assert_nonnull (strstr (error->message, "LU 1: type 4"));
}

/* ---- files ---- */

typedef struct {
  char *folder, *path;
} Files;

static void
files_set_up (Files *files, gconstpointer data)
{
  files->folder = g_dir_make_tmp ("holdfast-record-XXXXXX", NULL);
  g_assert_nonnull (files->folder);
  files->path = g_build_filename (files->folder, "vm.record", NULL);
}

static void
files_tear_down (Files *files, gconstpointer data)
{
  g_autoptr (GDir) folder = g_dir_open (files->folder, 0, NULL);

  for (const char *name; (name = g_dir_read_name (folder)) != NULL;) {
    g_autofree char *path = g_build_filename (files->folder, name, NULL);
    g_remove (path);
  }
  g_rmdir (files->folder);
  g_free (files->folder);
  g_free (files->path);
}

static guint
count_files (Files *files)
{
  g_autoptr (GDir) folder = g_dir_open (files->folder, 0, NULL);
  guint n = 0;

  while (g_dir_read_name (folder) != NULL)
    n++;
  return n;
}

static void
test_file_round_trip (Files *files, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (HfRecord) first = make_record (1, 0);
  g_autoptr (HfRecord) second = make_record (2, 0);
  struct stat st;

  g_assert_true (hf_record_write_file (first, files->path, &error));
  g_assert_no_error (error);
  g_assert_true (hf_record_write_file (second, files->path, &error));
  g_autoptr (HfRecord) read_back = hf_record_read_file (files->path, &error);
  g_assert_no_error (error);
  assert_records_equal (second, read_back);
  g_assert_cmpint (stat (files->path, &st), ==, 0);
  g_assert_cmpuint (st.st_mode & 07777, ==, 0600);
  g_assert_cmpuint (count_files (files), ==, 1);
}

/* The disk is full in the middle of the write: the old file stays and nothing else is left. */
static void
test_file_no_space (Files *files, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (HfRecord) old = make_record (1, 0);
  g_autoptr (HfRecord) new = make_record (64, 0);
  struct rlimit before, small;

  g_assert_true (hf_record_write_file (old, files->path, &error));
  g_assert_cmpint (getrlimit (RLIMIT_FSIZE, &before), ==, 0);
  small = (struct rlimit){ .rlim_cur = 4096, .rlim_max = before.rlim_max };
  signal (SIGXFSZ, SIG_IGN);
  g_assert_cmpint (setrlimit (RLIMIT_FSIZE, &small), ==, 0);
  gboolean ok = hf_record_write_file (new, files->path, &error);
  g_assert_cmpint (setrlimit (RLIMIT_FSIZE, &before), ==, 0);
  signal (SIGXFSZ, SIG_DFL);

  g_assert_false (ok);
  g_assert_error (error, HF_RECORD_ERROR, HF_RECORD_ERROR_FILE);
  g_assert_nonnull (strstr (error->message, files->path));
  g_clear_error (&error);
  g_autoptr (HfRecord) read_back = hf_record_read_file (files->path, &error);
  g_assert_no_error (error);
  assert_records_equal (old, read_back);
  g_assert_cmpuint (count_files (files), ==, 1);
}

static void
test_file_errors (Files *files, gconstpointer data)
{
  g_autofree char *missing = g_build_filename (files->folder, "no", "such", "file", NULL);
  g_autoptr (HfRecord) record = make_record (1, 0);
  const char *const bad[] = { missing, files->folder, "/dev/full" };

  for (guint i = 0; i < G_N_ELEMENTS (bad); i++) {
    g_autoptr (GError) error = NULL;
    g_assert_false (hf_record_write_file (record, bad[i], &error));
    g_assert_error (error, HF_RECORD_ERROR, HF_RECORD_ERROR_FILE);
    g_assert_nonnull (strstr (error->message, bad[i]));
  }
  for (guint i = 0; i < 2; i++) {
    g_autoptr (GError) error = NULL;
    g_assert_null (hf_record_read_file (bad[i], &error));
    g_assert_error (error, HF_RECORD_ERROR, HF_RECORD_ERROR_FILE);
    g_assert_nonnull (strstr (error->message, bad[i]));
  }
}

/* A link is followed, not replaced. */
static void
test_file_link (Files *files, gconstpointer data)
{
  g_autofree char *link = g_build_filename (files->folder, "link", NULL);
  g_autoptr (GError) error = NULL;
  g_autoptr (HfRecord) record = make_record (1, 0);

  g_assert_true (g_file_set_contents (files->path, "old", -1, NULL));
  g_assert_cmpint (symlink ("vm.record", link), ==, 0);
  g_assert_true (hf_record_write_file (record, link, &error));
  g_assert_no_error (error);
  g_assert_true (g_file_test (link, G_FILE_TEST_IS_SYMLINK));
  g_autoptr (HfRecord) read_back = hf_record_read_file (files->path, &error);
  assert_records_equal (record, read_back);
}

/* /dev/zero never ends: reading must. */
static void
test_file_endless (void)
{
  g_autoptr (GError) error = NULL;

  g_assert_null (hf_record_read_file ("/dev/zero", &error));
  g_assert_error (error, HF_RECORD_ERROR, HF_RECORD_ERROR_TOO_LARGE);
  g_assert_nonnull (strstr (error->message, "/dev/zero"));
}

static void
test_file_damaged (Files *files, gconstpointer data)
{
  g_autoptr (GError) error = NULL;

  g_assert_true (g_file_set_contents (files->path, "HOLDFAST", -1, NULL));
  g_assert_null (hf_record_read_file (files->path, &error));
  g_assert_error (error, HF_RECORD_ERROR, HF_RECORD_ERROR_TRUNCATED);
  g_assert_true (g_str_has_prefix (error->message, files->path));
}

/* "-" in a child of its own, whose output is the file that another child reads as its input. */
static void
test_standard_streams (Files *files, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  const char *path = g_getenv ("TEST_RECORD_PATH");

  if (g_test_subprocess ()) {
    g_autoptr (HfRecord) record = make_record (2, 0);
    g_assert_nonnull (freopen (path, "w", stdout));
    g_assert_true (hf_record_write_file (record, "-", &error));
    g_assert_nonnull (freopen (path, "r", stdin));
    g_autoptr (HfRecord) read_back = hf_record_read_file ("-", &error);
    g_assert_no_error (error);
    assert_records_equal (record, read_back);
    return;
  }
  g_setenv ("TEST_RECORD_PATH", files->path, TRUE);
  g_test_trap_subprocess (NULL, 0, G_TEST_SUBPROCESS_INHERIT_STDERR);
  g_test_trap_assert_passed ();
  g_autoptr (HfRecord) record = hf_record_read_file (files->path, &error);
  g_assert_no_error (error);
  g_assert_cmpuint (record->n_units, ==, 2);
}

static void
add_file_test (const char *name, void (*test) (Files *files, gconstpointer data))
{
  g_test_add (name, Files, NULL, files_set_up, test, files_tear_down);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/record/round-trip", test_round_trip);
  g_test_add_func ("/record/layout", test_layout);
  g_test_add_func ("/record/new", test_new);
  g_test_add_func ("/record/full-size", test_full_size);
  g_test_add_func ("/record/too-large", test_too_large);
  g_test_add_func ("/record/add-twice", test_add_twice);
  g_test_add_func ("/record/find", test_find);
  g_test_add_func ("/record/find-not-unique", test_find_not_unique);
  g_test_add_func ("/record/every-truncation", test_every_truncation);
  g_test_add_func ("/record/appended", test_appended);
  g_test_add_func ("/record/every-flipped-byte", test_every_flipped_byte);
  g_test_add_func ("/record/foreign", test_foreign);
  g_test_add_func ("/record/hostile/base-is-good", test_hostile_base_is_good);
  for (guint i = 0; i < G_N_ELEMENTS (hostile_cases); i++) {
    g_autofree char *name = g_strconcat ("/record/hostile/", hostile_cases[i].name, NULL);
    g_test_add_data_func (name, &hostile_cases[i], test_hostile);
  }
  g_test_add_func ("/record/hostile/lists", test_hostile_lists);
  g_test_add_func ("/record/newer", test_newer);
  g_test_add_func ("/record/not-normal-form", test_not_normal_form);
  g_test_add_func ("/record/encode-refuses", test_encode_refuses);
  add_file_test ("/record/file/round-trip", test_file_round_trip);
  add_file_test ("/record/file/no-space", test_file_no_space);
  add_file_test ("/record/file/errors", test_file_errors);
  add_file_test ("/record/file/link", test_file_link);
  g_test_add_func ("/record/file/endless", test_file_endless);
  add_file_test ("/record/file/damaged", test_file_damaged);
  add_file_test ("/record/file/standard-streams", test_standard_streams);
  return g_test_run ();
}
