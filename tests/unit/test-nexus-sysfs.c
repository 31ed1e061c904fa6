/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Our own initiator port, and the nodes of a LU, from made-up sysfs trees. What is not certain must stay unknown. */

#include "config.h"

#include "scsi/lu-find.h"
#include "scsi/nexus-sysfs.h"

#include <errno.h>
#include <ftw.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

typedef struct {
  char *root;
} Tree;

static void
tree_set_up (Tree *tree, gconstpointer data)
{
  tree->root = g_dir_make_tmp ("holdfast-sysfs-XXXXXX", NULL);
  g_assert_nonnull (tree->root);
}

static int
remove_one (const char *path, const struct stat *status, int kind, struct FTW *place)
{
  return remove (path);
}

static void
tree_tear_down (Tree *tree, gconstpointer data)
{
  g_assert_cmpint (nftw (tree->root, remove_one, 16, FTW_DEPTH | FTW_PHYS), ==, 0);
  g_free (tree->root);
}

static void
add_file_bytes (Tree *tree, const char *path, const char *bytes, gssize length)
{
  g_autofree char *file = g_build_filename (tree->root, path, NULL);
  g_autofree char *folder = g_path_get_dirname (file);
  g_autoptr (GError) error = NULL;

  g_assert_cmpint (g_mkdir_with_parents (folder, 0700), ==, 0);
  g_assert_true (g_file_set_contents (file, bytes, length, &error));
  g_assert_no_error (error);
}

static void
add_file (Tree *tree, const char *path, const char *text)
{
  add_file_bytes (tree, path, text, -1);
}

/* path -> target, both below the root. */
static void
add_link (Tree *tree, const char *path, const char *target)
{
  g_autofree char *file = g_build_filename (tree->root, path, NULL);
  g_autofree char *folder = g_path_get_dirname (file);
  g_autofree char *to = g_build_filename (tree->root, target, NULL);

  g_assert_cmpint (g_mkdir_with_parents (folder, 0700), ==, 0);
  g_assert_cmpint (g_mkdir_with_parents (to, 0700), ==, 0);
  g_assert_cmpint (symlink (to, file), ==, 0);
}

/* Disk 8:0 with partition 8:1 and sg node 21:0 at the SCSI device folder/H:C:T:L. */
static void
add_disk (Tree *tree, const char *scsi)
{
  g_autofree char *block = g_build_filename (scsi, "block/sda", NULL);
  g_autofree char *partition = g_build_filename (block, "sda1", NULL);
  g_autofree char *mark = g_build_filename (partition, "partition", NULL);
  g_autofree char *device = g_build_filename (block, "device", NULL);
  g_autofree char *generic = g_build_filename (scsi, "scsi_generic/sg0", NULL);
  g_autofree char *generic_device = g_build_filename (generic, "device", NULL);

  add_link (tree, device, scsi);
  add_link (tree, generic_device, scsi);
  add_link (tree, "dev/block/8:0", block);
  add_link (tree, "dev/block/8:1", partition);
  add_link (tree, "dev/char/21:0", generic);
  add_file (tree, mark, "1\n");
}

static void
assert_nexus (Tree *tree, const char *expected)
{
  static const struct {
    gboolean block;
    guint major, minor;
  } nodes[] = { { TRUE, 8, 0 }, { TRUE, 8, 1 }, { FALSE, 21, 0 } };

  for (guint i = 0; i < G_N_ELEMENTS (nodes); i++) {
    HfNexus nexus = { 0 };
    g_autofree char *text = NULL;

    hf_nexus_from_sysfs (tree->root, nodes[i].block, makedev (nodes[i].major, nodes[i].minor), &nexus.transport_id);
    text = hf_nexus_to_string (&nexus);
    g_assert_cmpstr (text, ==, expected);
  }
}

static void
test_nothing (Tree *tree, gconstpointer data)
{
  HfTransportId id = { .length = 7 };

  hf_nexus_from_sysfs (tree->root, TRUE, makedev (8, 0), &id);
  g_assert_cmpuint (id.length, ==, 0);
  /* A node without a SCSI device: device-mapper, loop. */
  add_link (tree, "dev/block/8:0", "devices/virtual/block/dm-0");
  hf_nexus_from_sysfs (tree->root, TRUE, makedev (8, 0), &id);
  g_assert_cmpuint (id.length, ==, 0);
}

static void
test_plain_disk (Tree *tree, gconstpointer data)
{
  add_disk (tree, "devices/pci0000:00/ata1/host1/target1:0:0/1:0:0:0");
  assert_nexus (tree, "unknown");
}

static void
test_fc (Tree *tree, gconstpointer data)
{
  add_disk (tree, "devices/pci0000:00/host3/rport-3:0-1/target3:0:0/3:0:0:5");
  add_file (tree, "class/fc_host/host4/port_name", "0x2100001b32999999\n");
  assert_nexus (tree, "unknown");
  add_file (tree, "class/fc_host/host3/port_name", "0x2100001b32000001\n");
  assert_nexus (tree, "fc:2100001b32000001");
  /* What an HBA shows before it has a name. */
  add_file (tree, "class/fc_host/host3/port_name", "0xffffffffffffffff\n");
  assert_nexus (tree, "unknown");
  add_file (tree, "class/fc_host/host3/port_name", "0x0\n");
  assert_nexus (tree, "unknown");
}

static void
test_iscsi (Tree *tree, gconstpointer data)
{
  add_disk (tree, "devices/platform/host5/session12/target5:0:0/5:0:0:1");
  add_file (tree, "class/iscsi_session/session1/initiatorname", "iqn.2026-11.test:wrong\n");
  assert_nexus (tree, "unknown");
  add_file (tree, "class/iscsi_session/session12/initiatorname", "iqn.2026-11.test:a\n");
  assert_nexus (tree, "iscsi:iqn.2026-11.test:a");
  add_file (tree, "class/iscsi_session/session12/isid", "00023d000001\n");
  assert_nexus (tree, "iscsi:iqn.2026-11.test:a,i,0x00023d000001");
  /* Drivers that do not know it print zeros or nothing. */
  add_file (tree, "class/iscsi_session/session12/isid", "000000000000\n");
  assert_nexus (tree, "iscsi:iqn.2026-11.test:a");
  add_file (tree, "class/iscsi_session/session12/initiatorname", "(null)\n");
  assert_nexus (tree, "unknown");
}

static void
test_sas (Tree *tree, gconstpointer data)
{
  add_disk (tree, "devices/pci0000:00/host2/port-2:0/end_device-2:0/target2:0:0/2:0:0:0");
  add_file (tree, "class/sas_phy/phy-2:0/sas_address", "0x500605b000000001\n");
  /* No SAS HBA: somebody else's phys. */
  assert_nexus (tree, "unknown");
  add_file (tree, "class/sas_host/host2/uevent", "");
  add_file (tree, "class/sas_phy/phy-2:1/sas_address", "0x500605b000000001\n");
  add_file (tree, "class/sas_phy/phy-2:0:4/sas_address", "0x500605b0000000ff\n"); /* the expander's */
  add_file (tree, "class/sas_phy/phy-22:0/sas_address", "0x500605b0000000ee\n");
  assert_nexus (tree, "sas:500605b000000001");
  /* Phys of several ports: which one leads to the device is not known. */
  add_file (tree, "class/sas_phy/phy-2:2/sas_address", "0x500605b000000002\n");
  assert_nexus (tree, "unknown");
}

static void
test_loopback (Tree *tree, gconstpointer data)
{
  add_disk (tree, "devices/tcm_loop_0/tcm_loop_adapter_1/host3/target3:0:2/3:0:2:0");
  add_file (tree, "kernel/config/target/loopback/naa.500140500000000a/tpgt_1/address", "3:0:1\n");
  add_file (tree, "kernel/config/target/loopback/naa.500140500000000a/tpgt_1/nexus", "naa.600140500000000a\n");
  assert_nexus (tree, "unknown");
  add_file (tree, "kernel/config/target/loopback/naa.500140500000000b/tpgt_2/address", "3:0:2\n");
  assert_nexus (tree, "unknown");
  add_file (tree, "kernel/config/target/loopback/naa.500140500000000b/tpgt_2/nexus", "naa.600140500000000b\n");
  assert_nexus (tree, "sas:600140500000000b");
  /* Other protocols of the loopback fabric have other TransportIDs. */
  add_file (tree, "kernel/config/target/loopback/naa.500140500000000b/tpgt_2/nexus", "iqn.2026-11.test:a\n");
  assert_nexus (tree, "unknown");
  add_file (tree, "kernel/config/target/loopback/naa.500140500000000b/tpgt_2/nexus", "naa.6001405\n");
  assert_nexus (tree, "unknown");
}

/* ---- hf_lu_find_devices ---- */

static const char page_83[] = "\0\x83\0\x0c\x01\x03\0\x08\x60\x01\x02\x03\x04\x05\x06\x07";
static const char other_83[] = "\0\x83\0\x0c\x01\x03\0\x08\x60\x01\x02\x03\x04\x05\x06\x08";
static const char bad_83[] = "\0\x83\xff\xff\x01\x03\0\x08";

static void
test_find (Tree *tree, gconstpointer data)
{
  HfLuIdentity identity = { 0 };
  g_autoptr (GError) error = NULL;
  g_auto (GStrv) found = NULL;

  g_assert_true (hf_lu_identity_parse_83 ((const guint8 *)page_83, sizeof page_83 - 1, &identity, NULL, NULL));
  g_assert_null (hf_lu_find_devices_below (tree->root, &identity, &error));
  g_assert_error (error, HF_SCSI_ERROR, HF_SCSI_ERROR_NOT_FOUND);
  g_assert_nonnull (strstr (error->message, "naa.6001020304050607"));
  g_clear_error (&error);

  add_file_bytes (tree, "class/block/sdc/device/vpd_pg83", page_83, sizeof page_83 - 1);
  add_file_bytes (tree, "class/block/sda/device/vpd_pg83", page_83, sizeof page_83 - 1);
  add_file_bytes (tree, "class/block/sdb/device/vpd_pg83", other_83, sizeof other_83 - 1);
  add_file_bytes (tree, "class/block/sdd/device/vpd_pg83", bad_83, sizeof bad_83 - 1);
  add_file_bytes (tree, "class/block/sda1/device/vpd_pg83", page_83, sizeof page_83 - 1);
  add_file (tree, "class/block/sda1/partition", "1\n");
  add_file (tree, "class/block/loop0/size", "0\n");
  add_file_bytes (tree, "class/block/cciss!c0d0/device/vpd_pg83", page_83, sizeof page_83 - 1);
  found = hf_lu_find_devices_below (tree->root, &identity, &error);
  g_assert_no_error (error);
  g_assert_cmpuint (g_strv_length (found), ==, 3);
  g_assert_cmpstr (found[0], ==, "/dev/cciss/c0d0");
  g_assert_cmpstr (found[1], ==, "/dev/sda");
  g_assert_cmpstr (found[2], ==, "/dev/sdc");
}

static void
test_find_by_serial (Tree *tree, gconstpointer data)
{
  HfLuIdentity identity = { .serial = "SN1" };
  g_autoptr (GError) error = NULL;
  g_auto (GStrv) found = NULL;

  add_file_bytes (tree, "class/block/sdb/device/vpd_pg80", "\0\x80\0\x04SN1 ", 8);
  add_file_bytes (tree, "class/block/sdc/device/vpd_pg80", "\0\x80\0\x04SN2 ", 8);
  found = hf_lu_find_devices_below (tree->root, &identity, &error);
  g_assert_no_error (error);
  g_assert_cmpuint (g_strv_length (found), ==, 1);
  g_assert_cmpstr (found[0], ==, "/dev/sdb");
}

#define ADD(name, test) g_test_add (name, Tree, NULL, tree_set_up, test, tree_tear_down)

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  ADD ("/nexus-sysfs/nothing", test_nothing);
  ADD ("/nexus-sysfs/plain-disk", test_plain_disk);
  ADD ("/nexus-sysfs/fc", test_fc);
  ADD ("/nexus-sysfs/iscsi", test_iscsi);
  ADD ("/nexus-sysfs/sas", test_sas);
  ADD ("/nexus-sysfs/loopback", test_loopback);
  ADD ("/lu-find/find", test_find);
  ADD ("/lu-find/find-by-serial", test_find_by_serial);
  return g_test_run ();
}
