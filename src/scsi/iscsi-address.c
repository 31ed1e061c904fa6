/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns the reading of iSCSI URLs, initiator names and ISIDs.
 *
 * Thread: any.
 *
 * Theory of operation: libiscsi's own parser does the splitting, so that an URL means here what it means to libiscsi's tools;
 * what that parser takes silently (a URL cut at 255 bytes, a user without a password, letters as a port, "?key" without a value)
 * is refused before or after it. Messages carry the printable URL only.
 */

#include "config.h"

#include "scsi/iscsi-address.h"
#include "scsi/transport.h"

#include <iscsi/iscsi.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SCHEME "iscsi://"
#define NAME_FILE "/etc/iscsi/initiatorname.iscsi"
#define DEFAULT_PORT 3260

void
hf_iscsi_address_free (HfIscsiAddress *address)
{
  if (!address)
    return;
  g_free (address->printable);
  g_free (address->host);
  g_free (address->target);
  g_free (address->user);
  g_free (address->password);
  g_free (address->target_user);
  g_free (address->target_password);
  g_free (address->initiator_name);
  g_free (address);
}

static gboolean
refuse (const char *printable, const char *why, GError **error)
{
  g_set_error (error, HF_SCSI_ERROR, HF_SCSI_ERROR_ADDRESS, "%s: %s", printable, why);
  hf_scsi_error_set_syntax (error);
  return FALSE;
}

guint64
hf_iscsi_isid_from_name (const char *initiator_name)
{
  g_autoptr (GChecksum) checksum = g_checksum_new (G_CHECKSUM_SHA256);
  /* Targets compare names without case: the same name in other letters has to be the same nexus. */
  g_autofree char *name = g_ascii_strdown (initiator_name, -1);
  guint8 digest[32];
  gsize length = sizeof digest;
  guint64 isid = 0x80;

  g_checksum_update (checksum, (const guchar *)name, -1);
  g_checksum_get_digest (checksum, digest, &length);
  for (guint i = 0; i < 5; i++)
    isid = isid << 8 | digest[i];
  return isid;
}

gboolean
hf_iscsi_isid_is_valid (guint64 isid)
{
  guint8 first = isid >> 40;

  return isid >> 48 == 0 && (first < 0x40 || first == 0x40 || first == 0x80);
}

/* The user's part of URL, "user%password@": from where to where the password stands. FALSE: there is none. */
static gboolean
find_password (const char *url, const char **ret_begin, const char **ret_end)
{
  const char *at = strrchr (url, '@');
  const char *begin;

  if (!at)
    return FALSE;
  begin = memchr (url, '%', at - url) ?: memchr (url, ':', at - url);
  if (!begin)
    return FALSE;
  *ret_begin = begin;
  *ret_end = at;
  return TRUE;
}

char *
hf_iscsi_address_without_password (const char *url)
{
  const char *scheme = strstr (url, "://");
  const char *rest = scheme ? scheme + strlen ("://") : url;
  const char *begin, *end;
  g_autoptr (GString) text = g_string_new_len (url, rest - url);

  if (!scheme || !find_password (rest, &begin, &end))
    return g_strdup (url);
  g_string_append_len (text, rest, begin - rest);
  g_string_append (text, end);
  return g_string_free (g_steal_pointer (&text), FALSE);
}

static gboolean
check_url (const char *url, const char *printable, GError **error)
{
  const char *rest = url + strlen (SCHEME);

  if (!g_str_has_prefix (url, SCHEME))
    return refuse (printable, "an iSCSI URL begins with " SCHEME, error);
  if (strlen (rest) >= MAX_STRING_SIZE)
    return refuse (printable, "the URL is too long", error);
  if (strchr (rest, '?'))
    return refuse (printable, "the URL has a part behind '?'", error);
  if (strchr (rest, '@') != strrchr (rest, '@'))
    return refuse (printable, "the URL has two '@': give such a password in LIBISCSI_CHAP_PASSWORD", error);
  for (const char *p = rest; *p; p++)
    if (!g_ascii_isgraph (*p))
      return refuse (printable, "the URL has blanks or control characters", error);
  return TRUE;
}

/* "host", "host:port", "[::1]", "[::1]:port" */
static gboolean
split_portal (HfIscsiAddress *self, const char *portal, GError **error)
{
  const char *bracket = *portal == '[' ? strchr (portal, ']') : NULL;
  const char *colon = strchr (bracket ?: portal, ':');
  gsize length = colon ? (gsize)(colon - portal) : strlen (portal);
  guint64 port = DEFAULT_PORT;

  if (*portal == '[' && (!bracket || (bracket[1] && bracket[1] != ':')))
    return refuse (self->printable, "the IPv6 address has no ']' behind it", error);
  if (colon && !g_ascii_string_to_unsigned (colon + 1, 10, 1, G_MAXUINT16, &port, NULL))
    return refuse (self->printable, "the port is not a number from 1 to 65535", error);
  self->host = bracket ? g_strndup (portal + 1, bracket - portal - 1) : g_strndup (portal, length);
  self->port = port;
  return *self->host ? TRUE : refuse (self->printable, "the host is empty", error);
}

/* A name that goes into a TransportID and a login: a ',' would end it there, a blank or control character here. */
static gboolean
check_name (const char *name, const char *printable, GError **error)
{
  gsize length = strlen (name);

  if (length == 0 || length > HF_ISCSI_NAME_MAX)
    return refuse (printable, "an iSCSI name has 1 to 223 bytes", error);
  for (gsize i = 0; i < length; i++)
    if ((guint8)name[i] <= ' ' || name[i] == ',' || name[i] == 0x7f)
      return refuse (printable, "an iSCSI name has no blanks, commas or control characters", error);
  return g_utf8_validate (name, -1, NULL) ? TRUE : refuse (printable, "an iSCSI name is UTF-8", error);
}

static char *
dup_or_null (const char *text)
{
  return *text ? g_strdup (text) : NULL;
}

static gboolean
take_url (HfIscsiAddress *self, const struct iscsi_url *url, gboolean url_has_user, GError **error)
{
  /* libiscsi keeps what LIBISCSI_CHAP_... or the URL gave, and drops a half of a pair. */
  self->user = dup_or_null (url->user);
  self->password = dup_or_null (url->passwd);
  self->target_user = dup_or_null (url->target_user);
  self->target_password = dup_or_null (url->target_passwd);
  self->target = g_strdup (url->target);
  if (url_has_user && !(self->user && self->password))
    return refuse (self->printable, "a user without a password: give it in LIBISCSI_CHAP_PASSWORD", error);
  if (url->lun < 0 || url->lun > G_MAXUINT16)
    return refuse (self->printable, "the LUN is not a number from 0 to 65535", error);
  self->lun = url->lun;
  return split_portal (self, url->portal, error) && check_name (self->target, self->printable, error);
}

static gboolean
parse_url (HfIscsiAddress *self, const char *url, GError **error)
{
  /* The context is only there to keep the parser's message, which repeats the URL with its password and is not shown. */
  struct iscsi_context *context = iscsi_create_context ("iqn.2026-11.org.holdfast:parser");
  struct iscsi_url *parsed = context ? iscsi_parse_full_url (context, url) : NULL;
  const char *lun = strrchr (url, '/');
  gboolean ok;

  if (parsed && g_ascii_string_to_unsigned (lun + 1, 10, 0, G_MAXUINT16, NULL, NULL))
    ok = take_url (self, parsed, strchr (url, '@') != NULL, error);
  else
    ok = refuse (self->printable, "the form is " SCHEME "[user[%password]@]host[:port]/target-iqn/lun", error);
  if (parsed)
    iscsi_destroy_url (parsed);
  if (context)
    iscsi_destroy_context (context);
  return ok;
}

/* InitiatorName= of open-iscsi's file; NULL if it has none. */
static char *
read_name_file (const char *path)
{
  g_autofree char *text = NULL;
  g_auto (GStrv) lines = NULL;

  if (!g_file_get_contents (path, &text, NULL, NULL))
    return NULL;
  lines = g_strsplit (text, "\n", -1);
  for (guint i = 0; lines[i]; i++)
    if (g_str_has_prefix (g_strstrip (lines[i]), "InitiatorName="))
      return g_strdup (g_strstrip (lines[i] + strlen ("InitiatorName=")));
  return NULL;
}

/* RFC 3722: an iSCSI name has letters in lower case, digits, '-', '.' and ':'. */
static char *
make_name (void)
{
  g_autofree char *host = g_ascii_strdown (g_get_host_name (), 128);

  g_strcanon (host, "abcdefghijklmnopqrstuvwxyz0123456789-.", '-');
  return g_strconcat ("iqn.2026-11.org.holdfast:", host, NULL);
}

static gboolean
take_options (HfIscsiAddress *self, const HfLuOptions *options, GError **error)
{
  self->initiator_name = g_strdup (options->initiator_name) ?: read_name_file (NAME_FILE) ?: make_name ();
  if (!check_name (self->initiator_name, self->initiator_name, error))
    return FALSE;
  self->isid = options->has_isid ? options->isid : hf_iscsi_isid_from_name (self->initiator_name);
  if (hf_iscsi_isid_is_valid (self->isid))
    return TRUE;
  g_set_error (error, HF_SCSI_ERROR, HF_SCSI_ERROR_ADDRESS,
               "ISID 0x%012" G_GINT64_MODIFIER "x: 48 bits are expected that begin with 00 to 40 or 80", self->isid);
  hf_scsi_error_set_syntax (error);
  return FALSE;
}

HfIscsiAddress *
hf_iscsi_address_parse (const char *url, const HfLuOptions *options, GError **error)
{
  static const HfLuOptions none;
  g_autoptr (HfIscsiAddress) self = g_new0 (HfIscsiAddress, 1);

  self->printable = hf_iscsi_address_without_password (url);
  if (!check_url (url, self->printable, error) || !parse_url (self, url, error) || !take_options (self, options ?: &none, error))
    return NULL;
  return g_steal_pointer (&self);
}
