/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* TransportIDs: built byte for byte as SPC-4 has them, compared as initiator ports, printed whatever they are. */

#include "config.h"

#include <holdfast/scsi.h>
#include <string.h>

#define NAME "iqn.2026-11.org.example:a"

static HfNexus
iscsi (const char *name, gboolean has_isid, guint64 isid, guint16 port)
{
  HfNexus nexus = { .relative_target_port = port };

  g_assert_true (hf_transport_id_iscsi (name, has_isid, isid, &nexus.transport_id));
  return nexus;
}

static HfNexus
sas (guint64 address, guint16 port)
{
  HfNexus nexus = { .relative_target_port = port };

  hf_transport_id_sas (address, &nexus.transport_id);
  return nexus;
}

static HfNexus
fc (guint64 port_name, guint16 port)
{
  HfNexus nexus = { .relative_target_port = port };

  hf_transport_id_fc (port_name, &nexus.transport_id);
  return nexus;
}

static HfNexus
raw (const void *bytes, gsize length)
{
  HfNexus nexus = { 0 };

  nexus.transport_id.length = length;
  memcpy (nexus.transport_id.bytes, bytes, length);
  return nexus;
}

/* SPC-4 7.6.4.6: a multiple of four, at least 24 in all, at least one zero byte behind the text. */
static void
test_build_iscsi (void)
{
  HfTransportId id;
  char name[232];

  g_assert_true (hf_transport_id_iscsi ("iqn.a", TRUE, G_GUINT64_CONSTANT (0x00023d000001), &id));
  g_assert_cmpuint (id.length, ==, 28);
  g_assert_cmpmem (id.bytes, id.length, "\x45\0\0\x18iqn.a,i,0x00023d000001\0\0", 28);
  g_assert_true (hf_transport_id_iscsi ("iqn.a", FALSE, 0, &id));
  g_assert_cmpuint (id.length, ==, 24);
  g_assert_cmpmem (id.bytes, id.length, "\x05\0\0\x14iqn.a\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 24);

  for (gsize length = 1; length <= 223; length++) {
    memset (name, 'n', length);
    name[length] = '\0';
    for (guint has_isid = 0; has_isid < 2; has_isid++) {
      g_assert_true (hf_transport_id_iscsi (name, has_isid, 1, &id));
      g_assert_cmpuint (id.length, <=, HF_TRANSPORT_ID_MAX);
      g_assert_cmpuint (id.length, >=, 24);
      g_assert_cmpuint (id.length % 4, ==, 0);
      g_assert_cmpuint (id.bytes[2] << 8 | id.bytes[3], ==, id.length - 4);
      g_assert_cmpuint (id.bytes[id.length - 1], ==, 0);
    }
  }
  memset (name, 'n', 224);
  name[224] = '\0';
  g_assert_false (hf_transport_id_iscsi (name, FALSE, 0, &id));
  g_assert_false (hf_transport_id_iscsi ("", FALSE, 0, &id));
  g_assert_cmpuint (id.length, ==, 0);
}

static void
test_build_fixed (void)
{
  HfTransportId id;

  hf_transport_id_sas (G_GUINT64_CONSTANT (0x5001405000000001), &id);
  g_assert_cmpmem (id.bytes, id.length, "\x06\0\0\0\x50\x01\x40\x50\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0", 24);
  hf_transport_id_fc (G_GUINT64_CONSTANT (0x2100001b32000001), &id);
  g_assert_cmpmem (id.bytes, id.length, "\0\0\0\0\0\0\0\0\x21\0\0\x1b\x32\0\0\x01\0\0\0\0\0\0\0\0", 24);
}

static void
assert_match (HfNexus a, HfNexus b, HfNexusMatch expected)
{
  g_assert_cmpint (hf_nexus_compare (&a, &b), ==, expected);
  g_assert_cmpint (hf_nexus_compare (&b, &a), ==, expected);
}

static void
test_compare (void)
{
  assert_match (iscsi (NAME, TRUE, 1, 0), iscsi (NAME, TRUE, 1, 0), HF_NEXUS_SAME);
  assert_match (iscsi (NAME, TRUE, 0xab, 0), iscsi ("IQN.2026-11.ORG.example:A", TRUE, 0xab, 0), HF_NEXUS_SAME);
  assert_match (iscsi (NAME, TRUE, 1, 0), iscsi (NAME, TRUE, 2, 0), HF_NEXUS_DIFFERENT);
  assert_match (iscsi (NAME, TRUE, 1, 0), iscsi (NAME "b", TRUE, 1, 0), HF_NEXUS_DIFFERENT);
  /* A side that does not know its ISID or port. */
  assert_match (iscsi (NAME, FALSE, 0, 0), iscsi (NAME, TRUE, 2, 0), HF_NEXUS_SAME);
  assert_match (iscsi (NAME, TRUE, 1, 0), iscsi (NAME, TRUE, 1, 3), HF_NEXUS_SAME);
  assert_match (iscsi (NAME, TRUE, 1, 2), iscsi (NAME, TRUE, 1, 3), HF_NEXUS_DIFFERENT);
  assert_match (sas (1, 0), sas (1, 0), HF_NEXUS_SAME);
  assert_match (sas (1, 0), sas (2, 0), HF_NEXUS_DIFFERENT);
  assert_match (sas (1, 1), sas (1, 2), HF_NEXUS_DIFFERENT);
  assert_match (fc (1, 0), fc (1, 0), HF_NEXUS_SAME);
  assert_match (fc (1, 0), fc (2, 0), HF_NEXUS_DIFFERENT);
  assert_match (fc (1, 0), sas (1, 0), HF_NEXUS_DIFFERENT);
  assert_match (raw ("", 0), sas (1, 0), HF_NEXUS_UNKNOWN);
  assert_match (raw ("", 0), raw ("", 0), HF_NEXUS_UNKNOWN);
}

/* The bytes that SPC-4 reserves are not part of a port; those of a TransportID nobody can read are. */
static void
test_compare_bytes (void)
{
  HfNexus a = sas (1, 0);
  HfNexus b = a;

  b.transport_id.bytes[20] = 0xff;
  assert_match (a, b, HF_NEXUS_SAME);
  a.transport_id.bytes[0] = b.transport_id.bytes[0] = 0x04; /* SRP */
  assert_match (a, b, HF_NEXUS_DIFFERENT);
  assert_match (a, a, HF_NEXUS_SAME);
  /* Format 01b without ",i,0x" is not read as a name. */
  assert_match (raw ("\x45\0\0\x14iqn.a\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 24), iscsi ("iqn.a", FALSE, 0, 0), HF_NEXUS_DIFFERENT);
  /* More padding than we would write. */
  assert_match (raw ("\x05\0\0\x18iqn.a\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 28), iscsi ("iqn.a", TRUE, 9, 0), HF_NEXUS_SAME);
  /* A length field that promises more than there is. */
  assert_match (raw ("\x05\0\xff\xffiqn.a\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 24), iscsi ("iqn.a", TRUE, 9, 0), HF_NEXUS_SAME);
}

static void
assert_text (HfNexus nexus, const char *expected)
{
  g_autofree char *text = hf_nexus_to_string (&nexus);

  g_assert_cmpstr (text, ==, expected);
}

static void
test_text (void)
{
  assert_text (iscsi (NAME, TRUE, G_GUINT64_CONSTANT (0x00023d000001), 0), "iscsi:" NAME ",i,0x00023d000001");
  assert_text (iscsi (NAME, FALSE, 0, 2), "iscsi:" NAME ",port 2");
  assert_text (sas (G_GUINT64_CONSTANT (0x5001405000000000), 1), "sas:5001405000000000,port 1");
  assert_text (fc (G_GUINT64_CONSTANT (0x2100001b32000001), 0), "fc:2100001b32000001");
  assert_text (raw ("", 0), "unknown");
  assert_text (raw ("\x05\0\0\x14"
                    "a\x1b[2J \xff\0\0\0\0\0\0\0\0\0\0\0\0\0",
                    24),
               "iscsi:a\\x1b[2J\\x20\\xff");
  assert_text (raw ("\x06\0\0", 3), "protocol6:060000");
}

/* Bytes from an enemy: printable, and the same as itself. */
static void
test_any_bytes (void)
{
  for (guint i = 0; i < 20000; i++) {
    HfNexus nexus = { 0 };
    g_autofree char *text = NULL;

    nexus.transport_id.length = g_test_rand_int_range (1, HF_TRANSPORT_ID_MAX + 1);
    for (guint k = 0; k < nexus.transport_id.length; k++)
      nexus.transport_id.bytes[k] = g_test_rand_int ();
    nexus.transport_id.bytes[0] &= 0x46;
    text = hf_nexus_to_string (&nexus);
    for (const char *p = text; *p; p++)
      g_assert_true (g_ascii_isgraph (*p));
    g_assert_cmpint (hf_nexus_compare (&nexus, &nexus), ==, HF_NEXUS_SAME);
  }
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/nexus/build-iscsi", test_build_iscsi);
  g_test_add_func ("/nexus/build-fixed", test_build_fixed);
  g_test_add_func ("/nexus/compare", test_compare);
  g_test_add_func ("/nexus/compare-bytes", test_compare_bytes);
  g_test_add_func ("/nexus/text", test_text);
  g_test_add_func ("/nexus/any-bytes", test_any_bytes);
  return g_test_run ();
}
