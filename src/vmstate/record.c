/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns HfRecord and its bytes. Pure: no I/O, any thread; one record belongs to one thread at a time.
 *
 * Theory of operation: the frame (magic, version, length, SHA-256) tells a damaged, foreign or newer record from a good one; it
 * is no proof of who wrote it. Behind it stands a GVariant, which GLib reads safely from untrusted bytes: it must be in normal
 * form, so that equal records have equal bytes and no byte of it is without meaning. Then the same rules are asked from a record
 * that was read and from one that is to be written: what we write, we also read. Lists are bounded before they are allocated.
 */

#include "base/bytes.h"

#include <holdfast/record.h>

#include <string.h>

#define MAGIC "HOLDFAST"
#define MAGIC_SIZE 8
#define DIGEST_SIZE 32
#define HEADER_SIZE (MAGIC_SIZE + 4 + 4 + DIGEST_SIZE)
#define TEXT_MAX 255
/* READ KEYS cannot list more: 8 bytes for each key (SPC-4 6.15.2). */
#define KEY_COUNT_MAX (HF_SCSI_DATA_MAX / 8)
/* The last second of the year 9999: later times cannot be printed. */
#define TIME_MAX G_GINT64_CONSTANT (253402300799)

/* identity: designators (type, code set, bytes), serial; key, type, scope, APTPL, ALL_TG_PT, PRGENERATION, times listed, nexuses
   (TransportID, relative target port) */
#define UNIT_FORMAT "(a(yyay)styybbuua(ayq))"
/* id, host, vm, time, units */
#define BODY_FORMAT "(sssxa" UNIT_FORMAT ")"

G_DEFINE_QUARK (hf - record - error - quark, hf_record_error)

G_STATIC_ASSERT (sizeof (MAGIC) - 1 == MAGIC_SIZE);
G_STATIC_ASSERT (HEADER_SIZE == 48);

/* The designators of an LU, the strongest first, as scsi.h orders them. */
static const guint8 designator_types[] = { 3, 2, 10, 8, 1, 0 };

static gboolean G_GNUC_PRINTF (3, 4) fail (GError **error, HfRecordError code, const char *format, ...)
{
  va_list arguments;

  va_start (arguments, format);
  g_autofree char *text = g_strdup_vprintf (format, arguments);
  va_end (arguments);
  g_set_error (error, HF_RECORD_ERROR, (gint)code, "record: %s", text);
  return FALSE;
}

/* ---- the object ---- */

/* Any bytes as a text that the record may have: UTF-8, without control characters, at most TEXT_MAX bytes. */
static char *
make_text (const char *raw)
{
  g_autofree char *valid = g_utf8_make_valid (raw, -1);
  GString *text = g_string_new (NULL);

  for (const char *p = valid; *p != '\0'; p = g_utf8_next_char (p)) {
    gsize size = (gsize)(g_utf8_next_char (p) - p);
    if (text->len + size > TEXT_MAX)
      break;
    if (g_unichar_iscntrl (g_utf8_get_char (p)))
      g_string_append_c (text, '_');
    else
      g_string_append_len (text, p, (gssize)size);
  }
  return g_string_free (text, FALSE);
}

HfRecord *
hf_record_new (const char *vm)
{
  HfRecord *record = g_new0 (HfRecord, 1);

  record->id = g_uuid_string_random ();
  record->host = make_text (g_get_host_name ());
  record->vm = make_text (vm != NULL ? vm : "");
  record->time = g_get_real_time () / G_USEC_PER_SEC;
  return record;
}

void
hf_record_free (HfRecord *record)
{
  if (record == NULL)
    return;
  for (guint i = 0; i < record->n_units; i++)
    hf_pr_saved_clear (&record->units[i]);
  g_free (record->units);
  g_free (record->id);
  g_free (record->host);
  g_free (record->vm);
  g_free (record);
}

gboolean
hf_record_add (HfRecord *record, const HfPrSaved *saved, GError **error)
{
  for (guint i = 0; i < record->n_units; i++)
    if (hf_lu_identity_equal (&record->units[i].identity, &saved->identity)) {
      g_autofree char *name = hf_lu_identity_to_string (&saved->identity);
      return fail (error, HF_RECORD_ERROR_LU, "LU %s is in it already", name);
    }
  if (record->n_units >= HF_RECORD_LUS_MAX)
    return fail (error, HF_RECORD_ERROR_TOO_LARGE, "it has %d LUs already, more do not fit", HF_RECORD_LUS_MAX);

  record->units = g_renew (HfPrSaved, record->units, record->n_units + 1);
  memset (&record->units[record->n_units], 0, sizeof (HfPrSaved));
  hf_pr_saved_copy (saved, &record->units[record->n_units]);
  record->n_units++;
  return TRUE;
}

/* "naa.1, naa.2 and 3 more" */
static char *
list_units (const HfRecord *record)
{
  const guint listed_max = 8;
  GString *text = g_string_new (NULL);

  for (guint i = 0; i < MIN (record->n_units, listed_max); i++) {
    g_autofree char *name = hf_lu_identity_to_string (&record->units[i].identity);
    g_string_append_printf (text, "%s%s", i == 0 ? "" : ", ", name);
  }
  if (record->n_units > listed_max)
    g_string_append_printf (text, " and %u more", record->n_units - listed_max);
  return g_string_free (text, FALSE);
}

const HfPrSaved *
hf_record_find (const HfRecord *record, const HfLuIdentity *identity, GError **error)
{
  const HfPrSaved *found = NULL;

  for (guint i = 0; i < record->n_units; i++) {
    if (!hf_lu_identity_equal (&record->units[i].identity, identity))
      continue;
    if (found != NULL) {
      g_autofree char *name = hf_lu_identity_to_string (identity);
      fail (error, HF_RECORD_ERROR_LU, "LU %s fits more than one of its LUs", name);
      return NULL;
    }
    found = &record->units[i];
  }
  if (found == NULL) {
    g_autofree char *name = hf_lu_identity_to_string (identity);
    g_autofree char *list = list_units (record);
    fail (error, HF_RECORD_ERROR_LU, "LU %s is not in it; it has %s", name, record->n_units > 0 ? list : "no LU");
  }
  return found;
}

/* ---- the rules ---- */

static gboolean
check_text (const char *field, const char *text, GError **error)
{
  if (text == NULL || strlen (text) > TEXT_MAX)
    return fail (error, HF_RECORD_ERROR_CORRUPTED, "%s is longer than %d bytes", field, TEXT_MAX);
  if (!g_utf8_validate (text, -1, NULL))
    return fail (error, HF_RECORD_ERROR_CORRUPTED, "%s is not UTF-8", field);
  /* It is printed on terminals. */
  for (const char *p = text; *p != '\0'; p = g_utf8_next_char (p))
    if (g_unichar_iscntrl (g_utf8_get_char (p)))
      return fail (error, HF_RECORD_ERROR_CORRUPTED, "%s has a control character", field);
  return TRUE;
}

/* The place of a designator type in designator_types, or -1. */
static int
designator_rank (guint8 type)
{
  for (guint i = 0; i < G_N_ELEMENTS (designator_types); i++)
    if (designator_types[i] == type)
      return (int)i;
  return -1;
}

static gboolean
check_designators (guint index, const HfLuIdentity *identity, GError **error)
{
  int rank = 0;

  if (identity->n_designators > HF_DESIGNATORS_MAX)
    return fail (error, HF_RECORD_ERROR_CORRUPTED, "LU %u has more than %d designators", index, HF_DESIGNATORS_MAX);
  for (guint i = 0; i < identity->n_designators; i++) {
    const HfDesignator *designator = &identity->designators[i];
    int this_rank = designator_rank (designator->type);
    if (this_rank < 0)
      return fail (error, HF_RECORD_ERROR_CORRUPTED, "LU %u: designator %u has type %u, which does not identify an LU", index, i,
                   designator->type);
    if (this_rank < rank)
      return fail (error, HF_RECORD_ERROR_CORRUPTED, "LU %u: designator %u is out of order", index, i);
    if (designator->length == 0)
      return fail (error, HF_RECORD_ERROR_CORRUPTED, "LU %u: designator %u is empty", index, i);
    if (designator->code_set > 15)
      return fail (error, HF_RECORD_ERROR_CORRUPTED, "LU %u: designator %u has code set %u", index, i, designator->code_set);
    rank = this_rank;
  }
  if (identity->n_designators == 0 && identity->serial[0] == '\0')
    return fail (error, HF_RECORD_ERROR_CORRUPTED, "LU %u has no designator and no serial number", index);
  return TRUE;
}

static gboolean
check_identity (guint index, const HfLuIdentity *identity, GError **error)
{
  if (!check_designators (index, identity, error))
    return FALSE;
  if (memchr (identity->serial, '\0', sizeof (identity->serial)) == NULL || !g_utf8_validate (identity->serial, -1, NULL))
    return fail (error, HF_RECORD_ERROR_CORRUPTED, "LU %u: the serial number is not a text", index);
  return TRUE;
}

/* A unit without a key: the VM is not registered, so nothing else can be said of it. */
static gboolean
check_unregistered (guint index, const HfPrSaved *unit, GError **error)
{
  if (unit->type != 0 || unit->scope != 0 || unit->aptpl || unit->all_tg_pt || unit->key_count != 0 || unit->n_nexuses != 0)
    return fail (error, HF_RECORD_ERROR_CORRUPTED,
                 "LU %u has no key but type %u, scope %u, APTPL %d, ALL_TG_PT %d, key count %u, %u nexuses", index, unit->type,
                 unit->scope, unit->aptpl, unit->all_tg_pt, unit->key_count, unit->n_nexuses);
  return TRUE;
}

static gboolean
check_unit (guint index, const HfPrSaved *unit, GError **error)
{
  if (!check_identity (index, &unit->identity, error))
    return FALSE;
  if (unit->key == 0)
    return check_unregistered (index, unit, error);
  if (unit->type != 0 && !hf_pr_type_is_valid (unit->type))
    return fail (error, HF_RECORD_ERROR_CORRUPTED, "LU %u: type %u is no reservation type", index, unit->type);
  /* SPC-4 6.15.3.3: LU_SCOPE is the only one that is not obsolete. */
  if (unit->scope != 0)
    return fail (error, HF_RECORD_ERROR_CORRUPTED, "LU %u: scope %u is not the LU's", index, unit->scope);
  if (unit->key_count < 1 || unit->key_count > KEY_COUNT_MAX)
    return fail (error, HF_RECORD_ERROR_CORRUPTED, "LU %u: a key cannot be listed %u times", index, unit->key_count);
  if (unit->n_nexuses < 1 || unit->n_nexuses > HF_PR_NEXUSES_MAX)
    return fail (error, HF_RECORD_ERROR_CORRUPTED, "LU %u has a key on %u nexuses; 1 to %d are possible", index, unit->n_nexuses,
                 HF_PR_NEXUSES_MAX);
  for (guint i = 0; i < unit->n_nexuses; i++)
    if (unit->nexuses[i].transport_id.length > HF_TRANSPORT_ID_MAX)
      return fail (error, HF_RECORD_ERROR_CORRUPTED, "LU %u: the TransportID of nexus %u has more than %d bytes", index, i,
                   HF_TRANSPORT_ID_MAX);
  return TRUE;
}

/* Two units of one LU would be moved twice, with two opinions. */
static gboolean
check_no_duplicates (const HfRecord *record, GError **error)
{
  for (guint i = 0; i < record->n_units; i++)
    for (guint j = 0; j < i; j++)
      if (hf_lu_identity_equal (&record->units[i].identity, &record->units[j].identity)) {
        g_autofree char *name = hf_lu_identity_to_string (&record->units[i].identity);
        return fail (error, HF_RECORD_ERROR_CORRUPTED, "LU %u and LU %u are the same, %s", j, i, name);
      }
  return TRUE;
}

static gboolean
check_record (const HfRecord *record, GError **error)
{
  /* The id names a file: nothing but a UUID. */
  if (record->id == NULL || !g_uuid_string_is_valid (record->id))
    return fail (error, HF_RECORD_ERROR_CORRUPTED, "id is not a UUID");
  if (!check_text ("host", record->host, error) || !check_text ("vm", record->vm, error))
    return FALSE;
  if (record->time < 0 || record->time > TIME_MAX)
    return fail (error, HF_RECORD_ERROR_CORRUPTED, "time %" G_GINT64_FORMAT " is not between 1970 and 9999", record->time);
  if (record->n_units > HF_RECORD_LUS_MAX)
    return fail (error, HF_RECORD_ERROR_TOO_LARGE, "%u LUs; at most %d are possible", record->n_units, HF_RECORD_LUS_MAX);
  for (guint i = 0; i < record->n_units; i++)
    if (!check_unit (i, &record->units[i], error))
      return FALSE;
  return check_no_duplicates (record, error);
}

/* ---- encode ---- */

static GVariant *
build_bytes (const guint8 *bytes, gsize length)
{
  return g_variant_new_fixed_array (G_VARIANT_TYPE_BYTE, bytes, length, 1);
}

static GVariant *
build_unit (const HfPrSaved *unit)
{
  GVariantBuilder designators, nexuses;

  g_variant_builder_init (&designators, G_VARIANT_TYPE ("a(yyay)"));
  for (guint i = 0; i < unit->identity.n_designators; i++) {
    const HfDesignator *designator = &unit->identity.designators[i];
    g_variant_builder_add (&designators, "(yy@ay)", designator->type, designator->code_set,
                           build_bytes (designator->bytes, designator->length));
  }
  g_variant_builder_init (&nexuses, G_VARIANT_TYPE ("a(ayq)"));
  for (guint i = 0; i < unit->n_nexuses; i++) {
    const HfNexus *nexus = &unit->nexuses[i];
    g_variant_builder_add (&nexuses, "(@ayq)", build_bytes (nexus->transport_id.bytes, nexus->transport_id.length),
                           nexus->relative_target_port);
  }
  return g_variant_new (UNIT_FORMAT, &designators, unit->identity.serial, unit->key, unit->type, unit->scope, unit->aptpl,
                        unit->all_tg_pt, unit->generation, unit->key_count, &nexuses);
}

/* GVariant is in host order: little-endian is what travels. The same step serves both ways. Takes over body. */
static GVariant *
swap_to_little_endian (GVariant *body)
{
#if G_BYTE_ORDER == G_BIG_ENDIAN
  GVariant *swapped = g_variant_byteswap (body);
  g_variant_unref (body);
  return swapped;
#else
  return body;
#endif
}

static GVariant *
build_body (const HfRecord *record)
{
  GVariantBuilder units;

  g_variant_builder_init (&units, G_VARIANT_TYPE ("a" UNIT_FORMAT));
  for (guint i = 0; i < record->n_units; i++)
    g_variant_builder_add_value (&units, build_unit (&record->units[i]));
  GVariant *body = g_variant_new (BODY_FORMAT, record->id, record->host, record->vm, record->time, &units);
  return swap_to_little_endian (g_variant_ref_sink (body));
}

/* SHA-256 of everything but the digest itself. */
static void
digest_frame (const guint8 *header, const guint8 *body, gsize body_length, guint8 *ret)
{
  gsize size = DIGEST_SIZE;
  g_autoptr (GChecksum) checksum = g_checksum_new (G_CHECKSUM_SHA256);

  g_checksum_update (checksum, header, HEADER_SIZE - DIGEST_SIZE);
  g_checksum_update (checksum, body, (gssize)body_length);
  g_checksum_get_digest (checksum, ret, &size);
}

GBytes *
hf_record_encode (const HfRecord *record, GError **error)
{
  if (!check_record (record, error))
    return NULL;

  g_autoptr (GVariant) body = build_body (record);
  gsize body_length = g_variant_get_size (body);
  if (body_length > HF_RECORD_SIZE_MAX - HEADER_SIZE) {
    fail (error, HF_RECORD_ERROR_TOO_LARGE, "%" G_GSIZE_FORMAT " bytes for %u LUs; at most %u bytes are possible",
          body_length + HEADER_SIZE, record->n_units, HF_RECORD_SIZE_MAX);
    return NULL;
  }

  guint8 *frame = g_malloc (HEADER_SIZE + body_length);
  memcpy (frame, MAGIC, MAGIC_SIZE);
  hf_put_be32 (HF_RECORD_VERSION, frame + MAGIC_SIZE);
  hf_put_be32 ((guint32)body_length, frame + MAGIC_SIZE + 4);
  g_variant_store (body, frame + HEADER_SIZE);
  digest_frame (frame, frame + HEADER_SIZE, body_length, frame + HEADER_SIZE - DIGEST_SIZE);
  return g_bytes_new_take (frame, HEADER_SIZE + body_length);
}

/* ---- decode ---- */

static gboolean
check_frame (const guint8 *data, gsize length, GError **error)
{
  guint8 digest[DIGEST_SIZE];

  if (length > HF_RECORD_SIZE_MAX)
    return fail (error, HF_RECORD_ERROR_TOO_LARGE, "more than %u bytes", HF_RECORD_SIZE_MAX);
  if (length > 0 && memcmp (data, MAGIC, MIN (length, MAGIC_SIZE)) != 0)
    return fail (error, HF_RECORD_ERROR_FOREIGN, "this is not a holdfast record (it does not start with " MAGIC ")");
  if (length < HEADER_SIZE)
    return fail (error, HF_RECORD_ERROR_TRUNCATED, "truncated: %" G_GSIZE_FORMAT " bytes, the header alone has %d", length,
                 HEADER_SIZE);

  guint32 version = hf_get_be32 (data + MAGIC_SIZE);
  if (version > HF_RECORD_VERSION)
    return fail (error, HF_RECORD_ERROR_NEWER, "written in version %u; this holdfast reads version %d", version,
                 HF_RECORD_VERSION);
  if (version != HF_RECORD_VERSION)
    return fail (error, HF_RECORD_ERROR_CORRUPTED, "version %u does not exist", version);

  guint32 body_length = hf_get_be32 (data + MAGIC_SIZE + 4);
  if (body_length != length - HEADER_SIZE)
    return fail (error, HF_RECORD_ERROR_TRUNCATED, "%s: the body has %" G_GSIZE_FORMAT " bytes, the header says %u",
                 body_length > length - HEADER_SIZE ? "truncated" : "something is appended", length - HEADER_SIZE, body_length);

  digest_frame (data, data + HEADER_SIZE, body_length, digest);
  if (memcmp (digest, data + HEADER_SIZE - DIGEST_SIZE, DIGEST_SIZE) != 0)
    return fail (error, HF_RECORD_ERROR_CORRUPTED, "the checksum is wrong");
  return TRUE;
}

/* The bytes of child index of parent; FALSE if they are more than size. */
static gboolean
read_bytes (GVariant *parent, gsize index, guint8 *bytes, gsize size, gsize *ret_length)
{
  g_autoptr (GVariant) child = g_variant_get_child_value (parent, index);
  gsize length;
  const void *data = g_variant_get_fixed_array (child, &length, 1);

  if (length > size)
    return FALSE;
  if (length > 0)
    memcpy (bytes, data, length);
  *ret_length = length;
  return TRUE;
}

static gboolean
read_designators (GVariant *list, guint index, HfLuIdentity *ret, GError **error)
{
  gsize n = g_variant_n_children (list);

  if (n > HF_DESIGNATORS_MAX)
    return fail (error, HF_RECORD_ERROR_CORRUPTED, "LU %u has more than %d designators", index, HF_DESIGNATORS_MAX);
  for (gsize i = 0; i < n; i++) {
    g_autoptr (GVariant) item = g_variant_get_child_value (list, i);
    HfDesignator *designator = &ret->designators[i];
    gsize length;
    g_variant_get_child (item, 0, "y", &designator->type);
    g_variant_get_child (item, 1, "y", &designator->code_set);
    if (!read_bytes (item, 2, designator->bytes, HF_DESIGNATOR_MAX, &length))
      return fail (error, HF_RECORD_ERROR_CORRUPTED, "LU %u: designator %" G_GSIZE_FORMAT " has more than %d bytes", index, i,
                   HF_DESIGNATOR_MAX);
    designator->length = (guint8)length;
  }
  ret->n_designators = (guint)n;
  return TRUE;
}

static gboolean
read_nexuses (GVariant *list, guint index, HfPrSaved *ret, GError **error)
{
  gsize n = g_variant_n_children (list);

  if (n > HF_PR_NEXUSES_MAX)
    return fail (error, HF_RECORD_ERROR_CORRUPTED, "LU %u has a key on %" G_GSIZE_FORMAT " nexuses; 1 to %d are possible", index,
                 n, HF_PR_NEXUSES_MAX);
  ret->nexuses = n > 0 ? g_new0 (HfNexus, n) : NULL;
  ret->n_nexuses = (guint)n;
  for (gsize i = 0; i < n; i++) {
    g_autoptr (GVariant) item = g_variant_get_child_value (list, i);
    HfTransportId *transport_id = &ret->nexuses[i].transport_id;
    gsize length;
    if (!read_bytes (item, 0, transport_id->bytes, HF_TRANSPORT_ID_MAX, &length))
      return fail (error, HF_RECORD_ERROR_CORRUPTED, "LU %u: the TransportID of nexus %" G_GSIZE_FORMAT " has more than %d bytes",
                   index, i, HF_TRANSPORT_ID_MAX);
    transport_id->length = (guint16)length;
    g_variant_get_child (item, 1, "q", &ret->nexuses[i].relative_target_port);
  }
  return TRUE;
}

/* ret: all zero before. What was read before an error is in it, for hf_record_free. */
static gboolean
read_unit (GVariant *unit, guint index, HfPrSaved *ret, GError **error)
{
  g_autoptr (GVariant) designators = NULL;
  g_autoptr (GVariant) nexuses = NULL;
  const char *serial;

  g_variant_get (unit, "(@a(yyay)&styybbuu@a(ayq))", &designators, &serial, &ret->key, &ret->type, &ret->scope, &ret->aptpl,
                 &ret->all_tg_pt, &ret->generation, &ret->key_count, &nexuses);
  if (strlen (serial) > HF_DESIGNATOR_MAX)
    return fail (error, HF_RECORD_ERROR_CORRUPTED, "LU %u: the serial number has more than %d bytes", index, HF_DESIGNATOR_MAX);
  g_strlcpy (ret->identity.serial, serial, sizeof (ret->identity.serial));
  return read_designators (designators, index, &ret->identity, error) && read_nexuses (nexuses, index, ret, error);
}

static gboolean
read_body (GVariant *body, HfRecord *ret, GError **error)
{
  g_autoptr (GVariant) units = NULL;

  g_variant_get (body, "(sssx@a" UNIT_FORMAT ")", &ret->id, &ret->host, &ret->vm, &ret->time, &units);
  gsize n = g_variant_n_children (units);
  if (n > HF_RECORD_LUS_MAX)
    return fail (error, HF_RECORD_ERROR_TOO_LARGE, "%" G_GSIZE_FORMAT " LUs; at most %d are possible", n, HF_RECORD_LUS_MAX);
  ret->units = g_new0 (HfPrSaved, n);
  ret->n_units = (guint)n;
  for (gsize i = 0; i < n; i++) {
    g_autoptr (GVariant) unit = g_variant_get_child_value (units, i);
    if (!read_unit (unit, (guint)i, &ret->units[i], error))
      return FALSE;
  }
  return TRUE;
}

HfRecord *
hf_record_decode (const void *data, gsize length, GError **error)
{
  if (!check_frame (data, length, error))
    return NULL;

  g_autoptr (GBytes) bytes = g_bytes_new ((const guint8 *)data + HEADER_SIZE, length - HEADER_SIZE);
  GVariant *untrusted = g_variant_ref_sink (g_variant_new_from_bytes (G_VARIANT_TYPE (BODY_FORMAT), bytes, FALSE));
  gboolean normal = g_variant_is_normal_form (untrusted);
  g_autoptr (GVariant) body = swap_to_little_endian (untrusted);
  if (!normal) {
    fail (error, HF_RECORD_ERROR_CORRUPTED, "the body is not a GVariant in normal form of type " BODY_FORMAT);
    return NULL;
  }

  g_autoptr (HfRecord) record = g_new0 (HfRecord, 1);
  if (!read_body (body, record, error) || !check_record (record, error))
    return NULL;
  return g_steal_pointer (&record);
}
