/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns the reading and comparing of LU identities: VPD page 83h (SPC-4 7.8.6) and page 80h (SPC-4 7.8.19).
 *
 * Thread: any; pure. Any bytes may be passed.
 *
 * Theory of operation: only designators of the LU itself (association 0) tell who it is; of the others the relative target port
 * identifier (association 1, type 4) is kept apart. The list is sorted by the strength of its types, and a longer list than fits
 * loses its weakest. A designator of zero bytes or blanks only is the same on every LU of a careless target, and is left out.
 */

#include "config.h"

#include "scsi/scsi-text.h"

#include <holdfast/scsi.h>
#include <string.h>

#define PAGE_SERIAL 0x80
#define PAGE_IDENTIFICATION 0x83
#define HEADER_LENGTH 4
#define NO_LU 0x7f /* PERIPHERAL QUALIFIER 011b, type 1Fh: no LU at this address */

#define ASSOCIATION_LU 0
#define ASSOCIATION_TARGET_PORT 1
#define TYPE_RELATIVE_TARGET_PORT 4

/* The strongest first. Types that are not listed do not name an LU. */
static const struct {
  guint8 type;
  const char *prefix;
  gboolean text;
} types[] = {
  { 3, "naa.", FALSE }, { 2, "eui.", FALSE }, { 10, "uuid.", FALSE },
  { 8, "name.", TRUE }, { 1, "t10.", TRUE },  { 0, "vendor.", TRUE },
};

static int
strength (guint8 type)
{
  for (guint i = 0; i < G_N_ELEMENTS (types); i++)
    if (types[i].type == type)
      return i;
  return -1;
}

/* Page code, no missing LU, and all the bytes that the header promises. */
static gboolean
check_page (const guint8 *page, gsize length, guint8 code, gsize *ret_end, GError **error)
{
  gsize end;

  if (length < HEADER_LENGTH || page[1] != code) {
    g_set_error (error, HF_SCSI_ERROR, HF_SCSI_ERROR_ANSWER, "VPD page %02xh: another page, or too short", code);
    return FALSE;
  }
  if (page[0] == NO_LU) {
    g_set_error (error, HF_SCSI_ERROR, HF_SCSI_ERROR_IDENTITY, "no logical unit at this address (peripheral qualifier 3)");
    return FALSE;
  }
  end = HEADER_LENGTH + (page[2] << 8 | page[3]);
  if (end > length) {
    g_set_error (error, HF_SCSI_ERROR, HF_SCSI_ERROR_ANSWER, "VPD page %02xh: %" G_GSIZE_FORMAT " bytes of %" G_GSIZE_FORMAT,
                 code, length, end);
    return FALSE;
  }
  *ret_end = end;
  return TRUE;
}

static gboolean
is_blank (const guint8 *bytes, gsize length)
{
  for (gsize i = 0; i < length; i++)
    if (bytes[i] != 0 && bytes[i] != ' ')
      return FALSE;
  return TRUE;
}

static gboolean
designator_equal (const HfDesignator *a, const HfDesignator *b)
{
  return a->type == b->type && a->length == b->length && memcmp (a->bytes, b->bytes, a->length) == 0;
}

/* Behind the last one that is as strong; the list keeps the device's order within a type. */
static void
insert (HfLuIdentity *identity, const HfDesignator *designator)
{
  guint at = identity->n_designators;

  for (guint i = 0; i < identity->n_designators; i++)
    if (designator_equal (&identity->designators[i], designator))
      return;
  while (at > 0 && strength (identity->designators[at - 1].type) > strength (designator->type))
    at--;
  if (at == HF_DESIGNATORS_MAX)
    return;
  if (identity->n_designators < HF_DESIGNATORS_MAX)
    identity->n_designators++;
  for (guint i = identity->n_designators - 1; i > at; i--)
    identity->designators[i] = identity->designators[i - 1];
  identity->designators[at] = *designator;
}

/* One designation descriptor, SPC-4 table 589: its whole length is known to be there. */
static void
take_descriptor (const guint8 *descriptor, HfLuIdentity *identity, guint16 *relative_target_port)
{
  guint8 association = descriptor[1] >> 4 & 3;
  HfDesignator designator = { .type = descriptor[1] & 0x0f, .code_set = descriptor[0] & 0x0f, .length = descriptor[3] };

  memcpy (designator.bytes, descriptor + HEADER_LENGTH, designator.length);
  if (association == ASSOCIATION_TARGET_PORT && designator.type == TYPE_RELATIVE_TARGET_PORT && designator.length == 4)
    *relative_target_port = designator.bytes[2] << 8 | designator.bytes[3];
  if (association == ASSOCIATION_LU && strength (designator.type) >= 0 && !is_blank (designator.bytes, designator.length))
    insert (identity, &designator);
}

gboolean
hf_lu_identity_parse_83 (const guint8 *page, gsize length, HfLuIdentity *ret, guint16 *ret_relative_target_port, GError **error)
{
  g_autofree HfLuIdentity *identity = g_new0 (HfLuIdentity, 1);
  guint16 relative_target_port = 0;
  gsize end;

  if (!check_page (page, length, PAGE_IDENTIFICATION, &end, error))
    return FALSE;
  for (gsize at = HEADER_LENGTH; at < end; at += HEADER_LENGTH + page[at + 3]) {
    if (end - at < HEADER_LENGTH || end - at - HEADER_LENGTH < page[at + 3]) {
      g_set_error (error, HF_SCSI_ERROR, HF_SCSI_ERROR_ANSWER, "VPD page 83h: a descriptor runs over the end of the page");
      return FALSE;
    }
    take_descriptor (page + at, identity, &relative_target_port);
  }
  if (ret_relative_target_port)
    *ret_relative_target_port = relative_target_port;
  if (identity->n_designators == 0) {
    g_set_error (error, HF_SCSI_ERROR, HF_SCSI_ERROR_IDENTITY, "VPD page 83h: no designator of the logical unit");
    return FALSE;
  }
  ret->n_designators = identity->n_designators;
  memcpy (ret->designators, identity->designators, sizeof ret->designators);
  return TRUE;
}

gboolean
hf_lu_identity_parse_80 (const guint8 *page, gsize length, HfLuIdentity *ret, GError **error)
{
  g_autofree char *text = NULL;
  g_autofree char *valid = NULL;
  const char *cut;
  gsize end;

  if (!check_page (page, length, PAGE_SERIAL, &end, error))
    return FALSE;
  text = g_strndup ((const char *)page + HEADER_LENGTH, MIN (end - HEADER_LENGTH, HF_DESIGNATOR_MAX));
  valid = g_utf8_make_valid (text, -1);
  g_strstrip (valid);
  /* A replacement character is longer than the byte it stands for: cut between characters. */
  length = MIN (strlen (valid), HF_DESIGNATOR_MAX);
  g_utf8_validate (valid, length, &cut);
  g_strlcpy (ret->serial, valid, cut - valid + 1);
  return TRUE;
}

/* Whether one of a's designators of this type is b's; sets *ret_both if both have the type. */
static gboolean
share_designator (const HfLuIdentity *a, const HfLuIdentity *b, guint8 type, gboolean *ret_both)
{
  for (guint i = 0; i < a->n_designators; i++)
    for (guint j = 0; j < b->n_designators; j++) {
      if (a->designators[i].type != type || b->designators[j].type != type)
        continue;
      *ret_both = TRUE;
      if (designator_equal (&a->designators[i], &b->designators[j]))
        return TRUE;
    }
  return FALSE;
}

gboolean
hf_lu_identity_equal (const HfLuIdentity *a, const HfLuIdentity *b)
{
  for (guint i = 0; i < G_N_ELEMENTS (types); i++) {
    gboolean both = FALSE;
    gboolean shared = share_designator (a, b, types[i].type, &both);

    if (both)
      return shared;
  }
  return *a->serial && g_str_equal (a->serial, b->serial);
}

char *
hf_lu_identity_to_string (const HfLuIdentity *identity)
{
  const HfDesignator *first = &identity->designators[0];
  g_autoptr (GString) text = g_string_new (NULL);
  gsize length;
  int index;

  if (identity->n_designators == 0 || (index = strength (first->type)) < 0) {
    g_string_append (text, "serial.");
    hf_text_append_escaped (text, (const guint8 *)identity->serial, strnlen (identity->serial, sizeof identity->serial));
    return g_string_free (g_steal_pointer (&text), FALSE);
  }
  g_string_append (text, types[index].prefix);
  length = first->length;
  if (types[index].text && first->code_set != 1) {
    /* SCSI name strings are filled up with zero bytes (SPC-4 7.8.6.11). */
    while (length > 0 && first->bytes[length - 1] == 0)
      length--;
    hf_text_append_escaped (text, first->bytes, length);
  } else {
    hf_text_append_hex (text, first->bytes, length);
  }
  return g_string_free (g_steal_pointer (&text), FALSE);
}
