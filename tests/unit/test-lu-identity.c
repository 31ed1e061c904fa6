/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Who an LU is: which designators count and in which order, what two LUs must share to be one, and pages that lie. */

#include "config.h"

#include <holdfast/scsi.h>
#include <string.h>

/* A page 83h that grows. */
typedef struct {
  guint8 bytes[4096];
  gsize length;
} Page;

static void
begin (Page *page, guint8 code)
{
  memset (page, 0, sizeof *page);
  page->bytes[1] = code;
  page->length = 4;
}

static void
set_length (Page *page)
{
  page->bytes[2] = (page->length - 4) >> 8;
  page->bytes[3] = (page->length - 4) & 0xff;
}

static void
add (Page *page, guint8 association, guint8 type, guint8 code_set, const void *bytes, guint8 length)
{
  guint8 *at = page->bytes + page->length;

  at[0] = code_set;
  at[1] = association << 4 | type;
  at[3] = length;
  memcpy (at + 4, bytes, length);
  page->length += 4 + length;
  set_length (page);
}

#define ADD(page, association, type, code_set, text) add (page, association, type, code_set, text, sizeof text - 1)

/* The parser gets a block of exactly this size, so that the address sanitizer sees a read behind it. */
static gboolean
parse_83 (const guint8 *bytes, gsize length, HfLuIdentity *ret, guint16 *ret_port, GError **error)
{
  g_autofree guint8 *copy = g_memdup2 (bytes, length);

  memset (ret, 0, sizeof *ret);
  return hf_lu_identity_parse_83 (copy, length, ret, ret_port, error);
}

static void
parse_page (const Page *page, HfLuIdentity *ret)
{
  g_autoptr (GError) error = NULL;

  g_assert_true (parse_83 (page->bytes, page->length, ret, NULL, &error));
  g_assert_no_error (error);
}

static void
assert_name (const HfLuIdentity *identity, const char *expected)
{
  g_autofree char *text = hf_lu_identity_to_string (identity);

  g_assert_cmpstr (text, ==, expected);
}

/* The strongest first, whatever order the LU has; only association 0; the relative target port aside. */
static void
test_order (void)
{
  static const guint8 expected[] = { 3, 3, 2, 10, 8, 1, 0 };
  HfLuIdentity identity;
  guint16 port = 77;
  Page page;

  begin (&page, 0x83);
  ADD (&page, 0, 0, 1, "\x01\x02");
  ADD (&page, 0, 1, 2, "LIO-ORG disk0");
  ADD (&page, 0, 8, 3, "iqn.2026-11.test:lu");
  ADD (&page, 1, 3, 1, "\x50\0\0\0\0\0\0\x01"); /* of the port */
  ADD (&page, 0, 10, 1, "\x10\0uuuuuuuuuuuuuuuu");
  ADD (&page, 0, 2, 1, "EUI64..8");
  ADD (&page, 1, 4, 1, "\0\0\x12\x34");
  ADD (&page, 1, 5, 1, "\0\0\0\x01");
  ADD (&page, 2, 8, 3, "iqn.2026-11.test:device");
  ADD (&page, 0, 3, 1, "\x60\x01\x40\x50\0\0\0\x02");
  ADD (&page, 0, 3, 1, "\x60\x01\x40\x50\0\0\0\x01");
  ADD (&page, 0, 3, 1, "\x60\x01\x40\x50\0\0\0\x02"); /* twice */
  ADD (&page, 0, 6, 1, "\0\0\0\x01");                 /* LU group: not a name */

  g_assert_true (parse_83 (page.bytes, page.length, &identity, &port, NULL));
  g_assert_cmpuint (port, ==, 0x1234);
  g_assert_cmpuint (identity.n_designators, ==, G_N_ELEMENTS (expected));
  for (guint i = 0; i < G_N_ELEMENTS (expected); i++)
    g_assert_cmpuint (identity.designators[i].type, ==, expected[i]);
  assert_name (&identity, "naa.6001405000000002");
}

/* The list is cut at its weak end. */
static void
test_too_many (void)
{
  HfLuIdentity identity;
  Page page;

  begin (&page, 0x83);
  for (guint8 i = 1; i <= 40; i++)
    add (&page, 0, 0, 1, &i, 1);
  for (guint8 i = 1; i <= 3; i++)
    add (&page, 0, 3, 1, (guint8[8]){ 0x60, 0, 0, 0, 0, 0, 0, i }, 8);
  parse_page (&page, &identity);
  g_assert_cmpuint (identity.n_designators, ==, HF_DESIGNATORS_MAX);
  for (guint i = 0; i < HF_DESIGNATORS_MAX; i++)
    g_assert_cmpuint (identity.designators[i].type, ==, i < 3 ? 3 : 0);
  g_assert_cmpuint (identity.designators[0].bytes[7], ==, 1);
}

static void
test_names (void)
{
  static const struct {
    guint8 type, code_set;
    const char *bytes;
    guint8 length;
    const char *name;
  } cases[] = {
    { 2, 1, "\x01\x23\x45\x67\x89\xab\xcd\xef", 8, "eui.0123456789abcdef" },
    { 10, 1, "\x10\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff\x00", 18,
      "uuid.1000112233445566778899aabbccddeeff00" },
    { 8, 3, "iqn.2026-11.test:lu\0\0\0", 22, "name.iqn.2026-11.test:lu" },
    { 1, 2, "IET     00010001", 16, "t10.IET\\x20\\x20\\x20\\x20\\x2000010001" },
    { 1, 2, "a\x1b[2J\\\xff\n", 8, "t10.a\\x1b[2J\\x5c\\xff\\x0a" },
    { 0, 1, "\xca\xfe", 2, "vendor.cafe" },
  };

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    HfLuIdentity identity;
    Page page;

    begin (&page, 0x83);
    add (&page, 0, cases[i].type, cases[i].code_set, cases[i].bytes, cases[i].length);
    parse_page (&page, &identity);
    assert_name (&identity, cases[i].name);
  }
}

static void
test_malformed (void)
{
  static const struct {
    const char *bytes;
    gsize length;
  } cases[] = {
    { "", 0 },
    { "\0\x83\0", 3 },
    { "\0\x80\0\x0c\x01\x03\0\x08\x60\x01\x02\x03\x04\x05\x06\x07", 16 }, /* another page */
    { "\0\x83\0\x0d\x01\x03\0\x08\x60\x01\x02\x03\x04\x05\x06\x07", 16 }, /* one byte more than there is */
    { "\0\x83\xff\xff\x01\x03\0\x08\x60\x01\x02\x03\x04\x05\x06\x07", 16 },
    { "\0\x83\0\x0c\x01\x03\0\x09\x60\x01\x02\x03\x04\x05\x06\x07", 16 }, /* descriptor over the end */
    { "\0\x83\0\x03\x01\x03\0", 7 },                                      /* half a descriptor header */
    { "\0\x83\0\x0d\x01\x03\0\x08\x60\x01\x02\x03\x04\x05\x06\x07\x01", 17 },
  };

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (GError) error = NULL;
    HfLuIdentity identity;

    g_test_message ("case %u", i);
    g_assert_false (parse_83 ((const guint8 *)cases[i].bytes, cases[i].length, &identity, NULL, &error));
    g_assert_error (error, HF_SCSI_ERROR, HF_SCSI_ERROR_ANSWER);
    g_assert_cmpuint (identity.n_designators, ==, 0);
  }
}

/* Nothing that could be mistaken for a name: two LUs with the same zeros would be one. */
static void
test_no_identity (void)
{
  HfLuIdentity identity;
  guint16 port = 0;
  Page page;

  begin (&page, 0x83);
  ADD (&page, 1, 4, 1, "\0\0\0\x05");
  ADD (&page, 0, 3, 1, "\0\0\0\0\0\0\0\0");
  ADD (&page, 0, 1, 2, "        ");
  ADD (&page, 0, 0, 1, "");
  for (guint i = 0; i < 3; i++) {
    g_autoptr (GError) error = NULL;

    g_assert_false (parse_83 (page.bytes, page.length, &identity, &port, &error));
    g_assert_error (error, HF_SCSI_ERROR, HF_SCSI_ERROR_IDENTITY);
    if (i == 0)
      g_assert_cmpuint (port, ==, 5);
    if (i == 0)
      begin (&page, 0x83);
    else
      page.bytes[0] = 0x7f; /* no LU here, whatever the page says */
    if (i == 1)
      ADD (&page, 0, 3, 1, "\x60\x01\x40\x50\0\0\0\x02");
  }
}

static void
parse_serial (const char *bytes, gsize length, char *ret)
{
  HfLuIdentity identity = { 0 };
  g_autoptr (GError) error = NULL;
  Page page;

  begin (&page, 0x80);
  memcpy (page.bytes + 4, bytes, length);
  page.length += length;
  set_length (&page);
  g_assert_true (hf_lu_identity_parse_80 (page.bytes, page.length, &identity, &error));
  g_assert_no_error (error);
  g_assert_true (g_utf8_validate (identity.serial, -1, NULL));
  g_strlcpy (ret, identity.serial, HF_DESIGNATOR_MAX + 1);
}

static void
test_serial (void)
{
  char long_text[600], serial[HF_DESIGNATOR_MAX + 1];
  g_autoptr (GError) error = NULL;
  HfLuIdentity identity = { 0 };

  parse_serial ("  SN 12 \0\0", 10, serial);
  g_assert_cmpstr (serial, ==, "SN 12");
  parse_serial ("", 0, serial);
  g_assert_cmpstr (serial, ==, "");
  /* Bytes that are no UTF-8 triple their size on the way. */
  memset (long_text, 0xff, sizeof long_text);
  parse_serial (long_text, sizeof long_text, serial);
  g_assert_cmpuint (strlen (serial), ==, 255);
  memset (long_text, 'x', sizeof long_text);
  parse_serial (long_text, sizeof long_text, serial);
  g_assert_cmpuint (strlen (serial), ==, 255);

  g_assert_false (hf_lu_identity_parse_80 ((const guint8 *)"\0\x80\0\x04SN1", 7, &identity, &error));
  g_assert_error (error, HF_SCSI_ERROR, HF_SCSI_ERROR_ANSWER);
}

static void
make (HfLuIdentity *ret, const char *naa, const char *t10, const char *serial)
{
  Page page;

  begin (&page, 0x83);
  if (naa)
    add (&page, 0, 3, 1, naa, 8);
  if (t10)
    add (&page, 0, 1, 2, t10, strlen (t10));
  memset (ret, 0, sizeof *ret);
  if (naa || t10)
    parse_page (&page, ret);
  if (serial)
    g_strlcpy (ret->serial, serial, sizeof ret->serial);
}

/* The strongest type that both have decides alone. */
static void
test_equal (void)
{
  static const struct {
    const char *naa[2], *t10[2], *serial[2];
    gboolean equal;
  } cases[] = {
    { { "60000001", "60000001" }, { "a", "b" }, { NULL, NULL }, TRUE },
    { { "60000001", "60000002" }, { "a", "a" }, { "s", "s" }, FALSE },
    { { "60000001", NULL }, { "a", "a" }, { NULL, NULL }, TRUE },
    { { "60000001", NULL }, { "a", "b" }, { "s", "s" }, FALSE },
    { { "60000001", NULL }, { NULL, "a" }, { "s", "s" }, TRUE },
    { { "60000001", NULL }, { NULL, "a" }, { "s", "t" }, FALSE },
    { { NULL, NULL }, { NULL, NULL }, { "s", "s" }, TRUE },
    { { NULL, NULL }, { NULL, NULL }, { "", "" }, FALSE },
    { { NULL, NULL }, { "a", "aa" }, { NULL, NULL }, FALSE },
  };

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    HfLuIdentity a, b;

    make (&a, cases[i].naa[0], cases[i].t10[0], cases[i].serial[0]);
    make (&b, cases[i].naa[1], cases[i].t10[1], cases[i].serial[1]);
    g_test_message ("case %u", i);
    g_assert_cmpint (hf_lu_identity_equal (&a, &b), ==, cases[i].equal);
    g_assert_cmpint (hf_lu_identity_equal (&b, &a), ==, cases[i].equal);
  }
}

/* Of several designators of one type one is enough: a LU keeps its old names when it gets a new one. */
static void
test_equal_one_of_several (void)
{
  HfLuIdentity a, b;
  Page page;

  begin (&page, 0x83);
  ADD (&page, 0, 3, 1, "60000001");
  ADD (&page, 0, 3, 1, "60000002");
  parse_page (&page, &a);
  make (&b, "60000002", NULL, NULL);
  g_assert_true (hf_lu_identity_equal (&a, &b));
  g_assert_true (hf_lu_identity_equal (&b, &a));
}

static void
test_name_of_serial (void)
{
  HfLuIdentity identity;

  make (&identity, NULL, NULL, "SN 1\xc3\xa4");
  assert_name (&identity, "serial.SN\\x201\\xc3\\xa4");
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/lu-identity/order", test_order);
  g_test_add_func ("/lu-identity/too-many", test_too_many);
  g_test_add_func ("/lu-identity/names", test_names);
  g_test_add_func ("/lu-identity/malformed", test_malformed);
  g_test_add_func ("/lu-identity/no-identity", test_no_identity);
  g_test_add_func ("/lu-identity/serial", test_serial);
  g_test_add_func ("/lu-identity/equal", test_equal);
  g_test_add_func ("/lu-identity/equal-one-of-several", test_equal_one_of_several);
  g_test_add_func ("/lu-identity/name-of-serial", test_name_of_serial);
  return g_test_run ();
}
