/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns nothing; looks up the initiator port of a SCSI device in sysfs.
 *
 * Thread: any.
 *
 * Theory of operation: DEV/device is a link to .../hostH/.../H:C:T:L; H:C:T:L and the folders above it name the host, the iSCSI
 * session and the kind of the link. One finder for each kind, tried in this order:
 *
 *   tcm_loop  configfs loopback/naa.X/tpgt_N/address is H:C:T of the device; LIO builds the SAS TransportID from `nexus`
 *   iSCSI     class/iscsi_session/sessionN: initiatorname, isid. Without an ISID the TransportID has the name only, which is
 * compared as such (hf_nexus_compare) FC        class/fc_host/hostH/port_name SAS       all of the HBA's own phys have one
 * address (a port has the address of its phys, SPL-4 4.2.8). If they differ, the port that leads to the device is not told from
 * here
 *
 * Multipath and device-mapper nodes have no `device`: unknown.
 */

#include "config.h"

#include "scsi/nexus-sysfs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

typedef struct {
  const char *sysfs;
  char *path; /* of the SCSI device, resolved */
  guint host, channel, target;
} Place;

/* First line of a file, without blanks; NULL if it cannot be read. */
static char *
read_line (const char *folder, const char *name)
{
  g_autofree char *path = g_build_filename (folder, name, NULL);
  g_autofree char *text = NULL;

  if (!g_file_get_contents (path, &text, NULL, NULL))
    return NULL;
  text[strcspn (text, "\n")] = '\0';
  return g_strdup (g_strstrip (text));
}

/* Exactly 16 hexadecimal digits, not all zero. */
static gboolean
parse_address (const char *text, guint64 *ret)
{
  return text && strlen (text) == 16 && g_ascii_string_to_unsigned (text, 16, 1, G_MAXUINT64, ret, NULL);
}

static gboolean
place_init (Place *place, const char *sysfs, gboolean block, dev_t device)
{
  g_autofree char *link = g_strdup_printf ("%s/dev/%s/%u:%u", sysfs, block ? "block" : "char", major (device), minor (device));
  g_autofree char *node = realpath (link, NULL);
  g_autofree char *partition = NULL;
  g_autofree char *scsi = NULL;
  const char *last;
  char rest;
  guint lun;

  if (!node)
    return FALSE;
  partition = g_build_filename (node, "partition", NULL);
  scsi = g_build_filename (node, g_file_test (partition, G_FILE_TEST_EXISTS) ? "../device" : "device", NULL);
  place->sysfs = sysfs;
  place->path = realpath (scsi, NULL);
  last = place->path ? strrchr (place->path, '/') : NULL;
  return last && sscanf (last + 1, "%u:%u:%u:%u%c", &place->host, &place->channel, &place->target, &lun, &rest) == 4;
}

/* The target port group of tcm_loop at address, e.g. "3:0:1". */
static gboolean
check_loopback_group (const char *group, const char *address, HfTransportId *ret)
{
  g_autofree char *here = read_line (group, "address");
  g_autofree char *nexus = read_line (group, "nexus");
  guint64 value;

  if (g_strcmp0 (here, address) != 0 || !nexus || !g_str_has_prefix (nexus, "naa.") || !parse_address (nexus + 4, &value))
    return FALSE;
  hf_transport_id_sas (value, ret);
  return TRUE;
}

static gboolean
check_loopback_port (const char *port, const char *address, HfTransportId *ret)
{
  g_autoptr (GDir) groups = g_dir_open (port, 0, NULL);
  const char *name;

  while (groups && (name = g_dir_read_name (groups))) {
    g_autofree char *group = g_build_filename (port, name, NULL);

    if (g_str_has_prefix (name, "tpgt_") && check_loopback_group (group, address, ret))
      return TRUE;
  }
  return FALSE;
}

static gboolean
find_loopback (const Place *place, HfTransportId *ret)
{
  g_autofree char *folder = g_build_filename (place->sysfs, "kernel/config/target/loopback", NULL);
  g_autofree char *address = g_strdup_printf ("%u:%u:%u", place->host, place->channel, place->target);
  g_autoptr (GDir) ports = NULL;
  const char *name;

  if (!strstr (place->path, "/tcm_loop_"))
    return FALSE;
  ports = g_dir_open (folder, 0, NULL);
  while (ports && (name = g_dir_read_name (ports))) {
    g_autofree char *port = g_build_filename (folder, name, NULL);

    if (g_str_has_prefix (name, "naa.") && check_loopback_port (port, address, ret))
      return TRUE;
  }
  return FALSE;
}

static gboolean
find_iscsi (const Place *place, HfTransportId *ret)
{
  const char *found = strstr (place->path, "/session");
  g_autofree char *session = NULL;
  g_autofree char *folder = NULL;
  g_autofree char *name = NULL;
  g_autofree char *isid = NULL;
  guint64 value = 0;
  gboolean has_isid;

  if (!found)
    return FALSE;
  session = g_strndup (found + 1, strcspn (found + 1, "/"));
  folder = g_build_filename (place->sysfs, "class/iscsi_session", session, NULL);
  name = read_line (folder, "initiatorname");
  isid = read_line (folder, "isid");
  has_isid = isid && strlen (isid) == 12 && g_ascii_string_to_unsigned (isid, 16, 1, G_MAXUINT64, &value, NULL);
  return name && !g_str_equal (name, "(null)") && hf_transport_id_iscsi (name, has_isid, value, ret);
}

static gboolean
find_fc (const Place *place, HfTransportId *ret)
{
  g_autofree char *folder = g_strdup_printf ("%s/class/fc_host/host%u", place->sysfs, place->host);
  g_autofree char *name = read_line (folder, "port_name");
  guint64 value;

  if (!name || !g_str_has_prefix (name, "0x") || !parse_address (name + 2, &value) || value == G_MAXUINT64)
    return FALSE;
  hf_transport_id_fc (value, ret);
  return TRUE;
}

/* "phy-H:N" is a phy of the HBA itself; "phy-H:E:N" belongs to an expander. */
static gboolean
is_own_phy (const char *name, guint host)
{
  guint h, n;
  char rest;

  return sscanf (name, "phy-%u:%u%c", &h, &n, &rest) == 2 && h == host;
}

static gboolean
find_sas (const Place *place, HfTransportId *ret)
{
  g_autofree char *folder = g_build_filename (place->sysfs, "class/sas_phy", NULL);
  g_autofree char *host = g_strdup_printf ("%s/class/sas_host/host%u", place->sysfs, place->host);
  g_autoptr (GDir) phys = g_file_test (host, G_FILE_TEST_EXISTS) ? g_dir_open (folder, 0, NULL) : NULL;
  guint64 common = 0;
  const char *name;

  while (phys && (name = g_dir_read_name (phys))) {
    g_autofree char *phy = g_build_filename (folder, name, NULL);
    g_autofree char *text = NULL;
    guint64 value;

    if (!is_own_phy (name, place->host))
      continue;
    text = read_line (phy, "sas_address");
    if (!text || !g_str_has_prefix (text, "0x") || !parse_address (text + 2, &value) || (common && value != common))
      return FALSE;
    common = value;
  }
  if (common)
    hf_transport_id_sas (common, ret);
  return common != 0;
}

void
hf_nexus_from_sysfs (const char *sysfs, gboolean block, dev_t device, HfTransportId *ret)
{
  static gboolean (*const finders[]) (const Place *, HfTransportId *) = { find_loopback, find_iscsi, find_fc, find_sas };
  Place place = { 0 };

  memset (ret, 0, sizeof *ret);
  if (place_init (&place, sysfs, block, device))
    for (guint i = 0; i < G_N_ELEMENTS (finders); i++)
      if (finders[i](&place, ret))
        break;
  free (place.path);
}
