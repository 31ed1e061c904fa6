/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns the reading, building and comparing of TransportIDs (SPC-4 7.6.4).
 *
 * Thread: any; pure. Any bytes may be passed: a TransportID that cannot be read is compared byte for byte.
 */

#include "config.h"

#include "scsi/scsi-text.h"

#include <holdfast/scsi.h>
#include <string.h>

/* Protocol identifiers, SPC-4 7.6.1 */
#define PROTOCOL_FC 0x0
#define PROTOCOL_ISCSI 0x5
#define PROTOCOL_SAS 0x6
#define FORMAT_NAME_AND_ISID 0x40

#define FIXED_LENGTH 24
#define NAME_OFFSET 4
#define NAME_MAX_BYTES 223
#define ISID_SEPARATOR ",i,0x"

G_STATIC_ASSERT (NAME_OFFSET + NAME_MAX_BYTES + sizeof ISID_SEPARATOR + 12 + 3 <= HF_TRANSPORT_ID_MAX);

typedef enum { KIND_OTHER, KIND_FC, KIND_SAS, KIND_ISCSI } Kind;

typedef struct {
  Kind kind;
  const guint8 *name; /* FC, SAS: 8 bytes; iSCSI: the name without its end */
  gsize name_length;
  const guint8 *isid; /* the text behind ",i,0x"; NULL: none */
  gsize isid_length;
} Port;

static void
parse_iscsi (const HfTransportId *id, Port *ret)
{
  gsize space = id->length - NAME_OFFSET;
  const guint8 *text = id->bytes + NAME_OFFSET;
  gsize length = strnlen ((const char *)text, MIN (space, (gsize)(id->bytes[2] << 8 | id->bytes[3])));
  const guint8 *separator = NULL;

  if (id->bytes[0] & FORMAT_NAME_AND_ISID) {
    separator = memmem (text, length, ISID_SEPARATOR, strlen (ISID_SEPARATOR));
    if (!separator)
      return;
    ret->isid = separator + strlen (ISID_SEPARATOR);
    ret->isid_length = text + length - ret->isid;
  }
  ret->kind = KIND_ISCSI;
  ret->name = text;
  ret->name_length = separator ? (gsize)(separator - text) : length;
}

static void
parse (const HfTransportId *id, Port *ret)
{
  memset (ret, 0, sizeof *ret);
  if (id->length < FIXED_LENGTH || id->length > HF_TRANSPORT_ID_MAX)
    return;
  switch (id->bytes[0]) {
  case PROTOCOL_FC:
    *ret = (Port){ .kind = KIND_FC, .name = id->bytes + 8, .name_length = 8 };
    break;
  case PROTOCOL_SAS:
    *ret = (Port){ .kind = KIND_SAS, .name = id->bytes + 4, .name_length = 8 };
    break;
  case PROTOCOL_ISCSI:
  case PROTOCOL_ISCSI | FORMAT_NAME_AND_ISID:
    parse_iscsi (id, ret);
    break;
  default:
    break;
  }
}

static gboolean
equal_without_case (const guint8 *a, gsize a_length, const guint8 *b, gsize b_length)
{
  return a_length == b_length && g_ascii_strncasecmp ((const char *)a, (const char *)b, a_length) == 0;
}

static gboolean
same_initiator_port (const HfTransportId *a, const HfTransportId *b)
{
  Port x, y;

  parse (a, &x);
  parse (b, &y);
  if (x.kind != y.kind)
    return FALSE;
  if (x.kind == KIND_ISCSI)
    return equal_without_case (x.name, x.name_length, y.name, y.name_length)
           && (!x.isid || !y.isid || equal_without_case (x.isid, x.isid_length, y.isid, y.isid_length));
  if (x.kind == KIND_OTHER)
    return a->length == b->length && memcmp (a->bytes, b->bytes, MIN (a->length, HF_TRANSPORT_ID_MAX)) == 0;
  return memcmp (x.name, y.name, x.name_length) == 0;
}

HfNexusMatch
hf_nexus_compare (const HfNexus *a, const HfNexus *b)
{
  if (a->transport_id.length == 0 || b->transport_id.length == 0)
    return HF_NEXUS_UNKNOWN;
  if (!same_initiator_port (&a->transport_id, &b->transport_id))
    return HF_NEXUS_DIFFERENT;
  if (a->relative_target_port && b->relative_target_port && a->relative_target_port != b->relative_target_port)
    return HF_NEXUS_DIFFERENT;
  return HF_NEXUS_SAME;
}

static void
append_port (GString *text, const HfTransportId *id)
{
  Port port;

  parse (id, &port);
  if (id->length == 0) {
    g_string_append (text, "unknown");
  } else if (port.kind == KIND_ISCSI) {
    g_string_append (text, "iscsi:");
    hf_text_append_escaped (text, port.name, port.name_length);
    if (port.isid) {
      g_string_append (text, ISID_SEPARATOR);
      hf_text_append_escaped (text, port.isid, port.isid_length);
    }
  } else if (port.kind == KIND_OTHER) {
    g_string_append_printf (text, "protocol%x:", id->bytes[0] & 0x0f);
    hf_text_append_hex (text, id->bytes, MIN (id->length, HF_TRANSPORT_ID_MAX));
  } else {
    g_string_append (text, port.kind == KIND_FC ? "fc:" : "sas:");
    hf_text_append_hex (text, port.name, port.name_length);
  }
}

char *
hf_nexus_to_string (const HfNexus *nexus)
{
  g_autoptr (GString) text = g_string_new (NULL);

  append_port (text, &nexus->transport_id);
  if (nexus->relative_target_port)
    g_string_append_printf (text, ",port %u", nexus->relative_target_port);
  return g_string_free (g_steal_pointer (&text), FALSE);
}

gboolean
hf_transport_id_iscsi (const char *name, gboolean has_isid, guint64 isid, HfTransportId *ret)
{
  g_autofree char *text = NULL;
  gsize name_length = name ? strlen (name) : 0;
  gsize padded;

  memset (ret, 0, sizeof *ret);
  if (name_length == 0 || name_length > NAME_MAX_BYTES)
    return FALSE;
  text = has_isid ? g_strdup_printf ("%s" ISID_SEPARATOR "%012" G_GINT64_MODIFIER "x", name,
                                     isid & G_GUINT64_CONSTANT (0xffffffffffff))
                  : g_strdup (name);
  /* The text ends with at least one zero byte; ADDITIONAL LENGTH is at least 20 and a multiple of four. */
  padded = MAX ((strlen (text) + 1 + 3) & ~(gsize)3, FIXED_LENGTH - NAME_OFFSET);
  ret->length = NAME_OFFSET + padded;
  ret->bytes[0] = PROTOCOL_ISCSI | (has_isid ? FORMAT_NAME_AND_ISID : 0);
  ret->bytes[2] = padded >> 8;
  ret->bytes[3] = padded & 0xff;
  memcpy (ret->bytes + NAME_OFFSET, text, strlen (text));
  return TRUE;
}

static void
build_fixed (guint8 protocol, gsize offset, guint64 value, HfTransportId *ret)
{
  guint64 big_endian = GUINT64_TO_BE (value);

  memset (ret, 0, sizeof *ret);
  ret->length = FIXED_LENGTH;
  ret->bytes[0] = protocol;
  memcpy (ret->bytes + offset, &big_endian, sizeof big_endian);
}

void
hf_transport_id_sas (guint64 address, HfTransportId *ret)
{
  build_fixed (PROTOCOL_SAS, 4, address, ret);
}

void
hf_transport_id_fc (guint64 port_name, HfTransportId *ret)
{
  build_fixed (PROTOCOL_FC, 8, port_name, ret);
}
