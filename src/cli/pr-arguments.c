/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Owns: reading a TransportID from a word of the command line. Thread: any; pure. */
#include "config.h"

#include "cli/cli.h"
#include "cli/pr-arguments.h"

#include <string.h>

/* SPC-4 7.6.4: no TransportID is shorter. */
#define TRANSPORT_ID_MIN 24

static gboolean
parse_address (const char *text, void (*make) (guint64, HfTransportId *), HfTransportId *ret, GError **error)
{
  guint64 address;

  if (!hf_parse_hex ("--transport-id", text, G_MAXUINT64, &address, error))
    return FALSE;
  make (address, ret);
  return TRUE;
}

static gboolean
parse_iscsi (const char *text, HfTransportId *ret, GError **error)
{
  const char *separator = strstr (text, ",i,");
  g_autofree char *name = separator ? g_strndup (text, separator - text) : g_strdup (text);
  guint64 isid = 0;

  if (separator && !hf_parse_hex ("the ISID of --transport-id", separator + 3, (G_GUINT64_CONSTANT (1) << 48) - 1, &isid, error))
    return FALSE;
  if (!hf_transport_id_iscsi (name, separator != NULL, isid, ret))
    return hf_usage_error (error, "--transport-id: an iSCSI name has 1 to 223 bytes");
  return TRUE;
}

static gboolean
parse_bytes (const char *text, HfTransportId *ret, GError **error)
{
  g_auto (GStrv) words = g_strsplit_set (text, ", \t", -1);
  HfTransportId id = { 0 };

  for (guint i = 0; words[i]; i++) {
    guint64 byte;
    if (words[i][0] == '\0')
      continue;
    if (!hf_parse_hex ("a byte of --transport-id", words[i], 0xff, &byte, error))
      return FALSE;
    if (id.length == HF_TRANSPORT_ID_MAX)
      return hf_usage_error (error, "--transport-id: more than %d bytes", HF_TRANSPORT_ID_MAX);
    id.bytes[id.length++] = (guint8)byte;
  }
  if (id.length == 0)
    return hf_usage_error (error, "--transport-id is empty");
  if (id.length < TRANSPORT_ID_MIN)
    id.length = TRANSPORT_ID_MIN;
  if (id.length % 4 != 0)
    return hf_usage_error (error, "--transport-id: %u bytes are not a multiple of 4", id.length);
  *ret = id;
  return TRUE;
}

gboolean
hf_transport_id_parse (const char *text, HfTransportId *ret, GError **error)
{
  static const struct {
    const char *prefix;
    void (*make) (guint64, HfTransportId *);
  } addresses[] = {
    { "sas,", hf_transport_id_sas },
    { "sas:", hf_transport_id_sas },
    { "fcp,", hf_transport_id_fc },
    { "fc:", hf_transport_id_fc },
  };
  static const char *const names[] = { "iqn.", "naa.", "eui." };

  if (g_str_has_prefix (text, "iscsi:"))
    return parse_iscsi (text + strlen ("iscsi:"), ret, error);
  for (guint i = 0; i < G_N_ELEMENTS (names); i++)
    if (g_ascii_strncasecmp (text, names[i], strlen (names[i])) == 0)
      return parse_iscsi (text, ret, error);
  for (guint i = 0; i < G_N_ELEMENTS (addresses); i++)
    if (g_ascii_strncasecmp (text, addresses[i].prefix, strlen (addresses[i].prefix)) == 0)
      return parse_address (text + strlen (addresses[i].prefix), addresses[i].make, ret, error);
  return parse_bytes (text, ret, error);
}
