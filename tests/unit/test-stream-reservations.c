/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The reservations in a stream: what dbus-vmstate and scsi-disk/pr say is read, what is hostile is told and never followed. The
 * sections are made here, byte by byte, as QEMU writes them.
 */
#include "config.h"

#include "cli/stream-reservations.h"

#include <string.h>

#define BODY_AT 7u /* the section does not begin at 0 */

static void
append_be32 (GByteArray *bytes, guint32 value)
{
  guint32 big = GUINT32_TO_BE (value);

  g_byte_array_append (bytes, (const guint8 *)&big, sizeof big);
}

static void
append_counted (GByteArray *bytes, const void *data, gsize length)
{
  append_be32 (bytes, (guint32)length);
  g_byte_array_append (bytes, data, (guint)length);
}

/* A section whose body is entries behind the two numbers, at BODY_AT; 5 bytes follow it. size 0: the right one. */
static GByteArray *
make_body (guint32 size, guint32 declared, const GByteArray *entries, HfStreamSection *section)
{
  GByteArray *bytes = g_byte_array_new ();

  g_byte_array_append (bytes, (const guint8 *)"1234567", BODY_AT);
  append_be32 (bytes, size ? size : entries->len + 4);
  append_be32 (bytes, declared);
  g_byte_array_append (bytes, entries->data, entries->len);
  memset (section, 0, sizeof *section);
  section->type = 0x04;
  section->id = (char *)"dbus-vmstate/dbus-vmstate";
  section->body_offset = BODY_AT;
  section->body_length = bytes->len - BODY_AT;
  g_byte_array_append (bytes, (const guint8 *)"\x7e\0\0\0\x05", 5);
  return bytes;
}

static HfVmstate *
read_body (guint32 size, guint32 declared, const GByteArray *entries)
{
  HfStreamSection section;
  g_autoptr (GByteArray) bytes = make_body (size, declared, entries, &section);
  g_autoptr (HfReader) reader = hf_reader_new_memory (bytes->data, bytes->len);

  g_assert_true (hf_vmstate_is_section (&section));
  return hf_vmstate_read (reader, &section);
}

static const HfVmstateEntry *
entry_of (const HfVmstate *vmstate, guint index)
{
  g_assert_cmpuint (index, <, vmstate->entries->len);
  return vmstate->entries->pdata[index];
}

/* A record is known by its magic, whoever saved it; other helpers' data are left alone. */
static void
test_entries (void)
{
  g_autoptr (GByteArray) entries = g_byte_array_new ();
  g_autoptr (HfRecord) record = hf_record_new ("vm1");
  g_autoptr (GBytes) encoded = hf_record_encode (record, NULL);
  g_autoptr (HfVmstate) vmstate = NULL;

  append_counted (entries, "helperA", 7);
  append_counted (entries, "HELLO-STATE-A", 13);
  append_counted (entries, "other", 5);
  append_counted (entries, g_bytes_get_data (encoded, NULL), g_bytes_get_size (encoded));
  append_counted (entries, "empty", 5);
  append_counted (entries, "", 0);
  vmstate = read_body (0, 3, entries);
  g_assert_cmpstr (vmstate->problem, ==, NULL);
  g_assert_cmpuint (vmstate->declared, ==, 3);
  g_assert_cmpuint (vmstate->entries->len, ==, 3);
  g_assert_cmpstr (entry_of (vmstate, 0)->id, ==, "helperA");
  g_assert_cmpuint (entry_of (vmstate, 0)->offset, ==, BODY_AT + 8 + 4 + 7 + 4);
  g_assert_cmpuint (entry_of (vmstate, 0)->length, ==, 13);
  g_assert_null (entry_of (vmstate, 0)->record);
  g_assert_nonnull (entry_of (vmstate, 1)->record);
  g_assert_cmpstr (entry_of (vmstate, 1)->record->id, ==, record->id);
  g_assert_cmpuint (entry_of (vmstate, 2)->length, ==, 0);
}

/* QEMU counts a helper before it asks it; one that fails is not in the data. */
static void
test_fewer_than_declared (void)
{
  g_autoptr (GByteArray) entries = g_byte_array_new ();
  g_autoptr (HfVmstate) vmstate = NULL, none = NULL;

  append_counted (entries, "a", 1);
  append_counted (entries, "xyz", 3);
  vmstate = read_body (0, 0xffffffff, entries);
  g_assert_cmpstr (vmstate->problem, ==, NULL);
  g_assert_cmpuint (vmstate->entries->len, ==, 1);
  g_byte_array_set_size (entries, 0);
  none = read_body (0, 1, entries);
  g_assert_cmpstr (none->problem, ==, NULL);
  g_assert_cmpuint (none->entries->len, ==, 0);
}

/* QEMU writes its whole buffer, which is larger than what is in it. */
static void
test_padding (void)
{
  g_autoptr (GByteArray) entries = g_byte_array_new ();

  append_counted (entries, "holdfast", 8);
  append_counted (entries, "xyz", 3);
  for (guint i = 0; i < 3; i++) {
    static const guint sizes[] = { 1, 170, 5000 };
    g_autofree guint8 *zeros = g_malloc0 (sizes[i]);
    g_autoptr (GByteArray) padded = g_byte_array_new ();
    g_autoptr (HfVmstate) vmstate = NULL, skipped = NULL, dirty = NULL;

    g_byte_array_append (padded, entries->data, entries->len);
    g_byte_array_append (padded, zeros, sizes[i]);
    vmstate = read_body (0, 1, padded);
    g_assert_cmpstr (vmstate->problem, ==, NULL);
    g_assert_cmpuint (vmstate->entries->len, ==, 1);
    skipped = read_body (0, 2, padded);
    g_assert_cmpstr (skipped->problem, ==, NULL);
    g_assert_cmpuint (skipped->entries->len, ==, 1);
    padded->data[padded->len - 1] = 1;
    dirty = read_body (0, 1, padded);
    g_assert_nonnull (strstr (dirty->problem, "behind the last one"));
    g_assert_cmpuint (dirty->entries->len, ==, 1);
  }
}

/* More than were declared, a size that is not the section's, lengths beyond the section, the file or QEMU's limits. */
static void
test_hostile_entries (void)
{
  g_autoptr (GByteArray) good = g_byte_array_new (), lengths = g_byte_array_new ();

  append_counted (good, "a", 1);
  append_counted (good, "xyz", 3);
  for (guint i = 0; i < 3; i++) {
    static const guint32 sizes[][2] = { { 0, 0 }, { 15, 1 }, { 17, 1 } };
    g_autoptr (HfVmstate) vmstate = read_body (sizes[i][0], sizes[i][1], good);
    g_assert_nonnull (vmstate->problem);
    g_assert_cmpuint (vmstate->entries->len, ==, 0);
  }
  /* Fewer bytes are zeros. */
  for (gsize keep = 4; keep < good->len; keep++) {
    g_autoptr (GByteArray) cut = g_byte_array_new ();
    g_autoptr (HfVmstate) vmstate = NULL;
    g_byte_array_append (cut, good->data, (guint)keep);
    vmstate = read_body (0, 1, cut);
    g_assert_nonnull (vmstate->problem);
    g_assert_cmpuint (vmstate->entries->len, ==, 0);
  }
  for (guint i = 0; i < 3; i++) {
    static const guint32 bad[] = { 256, 0x7fffffff, 0xffffffff };
    g_autoptr (HfVmstate) vmstate = NULL;
    g_byte_array_set_size (lengths, 0);
    append_be32 (lengths, bad[i]);
    g_byte_array_append (lengths, good->data, good->len);
    vmstate = read_body (0, 1, lengths);
    g_assert_nonnull (strstr (vmstate->problem, "an id"));
  }
}

/* What is longer than QEMU takes is not read into memory. */
static void
test_too_long (void)
{
  g_autoptr (GByteArray) entries = g_byte_array_new ();
  g_autofree guint8 *zeros = g_malloc0 (HF_RECORD_SIZE_MAX + 1);
  g_autoptr (HfVmstate) vmstate = NULL;

  append_counted (entries, "a", 1);
  append_counted (entries, zeros, HF_RECORD_SIZE_MAX + 1);
  vmstate = read_body (0, 1, entries);
  g_assert_nonnull (strstr (vmstate->problem, "the data of a helper"));
}

static void
test_too_many (void)
{
  g_autoptr (GByteArray) entries = g_byte_array_new ();
  g_autoptr (HfVmstate) vmstate = NULL;

  for (guint i = 0; i < HF_VMSTATE_ENTRIES_MAX + 1; i++) {
    append_counted (entries, "a", 1);
    append_counted (entries, "b", 1);
  }
  vmstate = read_body (0, 0xffffffff, entries);
  g_assert_nonnull (vmstate->problem);
  g_assert_cmpuint (vmstate->entries->len, ==, HF_VMSTATE_ENTRIES_MAX);
}

/* It says that it is a record, so what is wrong with it must be seen. */
static void
test_damaged_record (void)
{
  g_autoptr (GByteArray) entries = g_byte_array_new ();
  g_autoptr (HfRecord) record = hf_record_new ("vm1");
  g_autoptr (GBytes) encoded = hf_record_encode (record, NULL);
  g_autoptr (HfVmstate) vmstate = NULL;

  append_counted (entries, "holdfast", 8);
  append_counted (entries, g_bytes_get_data (encoded, NULL), g_bytes_get_size (encoded));
  entries->data[entries->len - 1] ^= 1;
  vmstate = read_body (0, 1, entries);
  g_assert_cmpstr (vmstate->problem, ==, NULL);
  g_assert_null (entry_of (vmstate, 0)->record);
  g_assert_nonnull (entry_of (vmstate, 0)->problem);
}

/* ---- scsi-disk/pr ---- */

static const guint8 pr_bytes[] = { 'x', 0x05, 0x0c, 's', 'c', 's', 'i', '-',  'd',  'i',  's',  'k',  '/',  'p',
                                   'r', 0,    0,    0,   1,   0,   0,   0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 5 };

static void
test_pr (void)
{
  g_autoptr (HfReader) reader = hf_reader_new_memory (pr_bytes, sizeof pr_bytes);
  HfStreamSubsection other = { .name = (char *)"scsi-disk/pry", .offset = 1, .length = 27 };
  HfStreamSubsection subsection = { .name = (char *)"scsi-disk/pr", .version = 1, .offset = 1, .length = 27 };
  g_autoptr (GPtrArray) subsections = g_ptr_array_new ();
  HfStreamSection section = { .type = 0x04, .id = (char *)"a/scsi-disk", .subsections = subsections };
  g_autoptr (GError) error = NULL;
  HfScsiDiskPr pr;

  g_ptr_array_add (subsections, &other);
  g_assert_null (hf_scsi_disk_pr_find (&section));
  g_ptr_array_add (subsections, &subsection);
  g_assert_true (hf_scsi_disk_pr_find (&section) == &subsection);
  g_assert_true (hf_scsi_disk_pr_read (reader, &subsection, &pr, &error));
  g_assert_no_error (error);
  g_assert_cmphex (pr.key, ==, G_GUINT64_CONSTANT (0x123456789abc));
  g_assert_cmpuint (pr.type, ==, 5);
  g_assert_cmpuint (pr.offset, ==, 1);
}

static void
test_pr_hostile (void)
{
  static const guint64 lengths[] = { 26, 28, 0, G_MAXUINT64 };
  g_autoptr (HfReader) reader = hf_reader_new_memory (pr_bytes, sizeof pr_bytes);
  HfScsiDiskPr pr;

  for (guint i = 0; i < G_N_ELEMENTS (lengths); i++) {
    HfStreamSubsection subsection = { .name = (char *)"scsi-disk/pr", .offset = 1, .length = lengths[i] };
    g_autoptr (GError) error = NULL;
    g_assert_false (hf_scsi_disk_pr_read (reader, &subsection, &pr, &error));
    g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_MALFORMED);
  }
  /* Each byte of the framing counts; those of key and type are anything. */
  for (guint i = 1; i <= 18; i++) {
    HfStreamSubsection subsection = { .name = (char *)"scsi-disk/pr", .offset = 1, .length = 27 };
    guint8 bytes[sizeof pr_bytes];
    g_autoptr (HfReader) flipped = NULL;
    g_autoptr (GError) error = NULL;
    memcpy (bytes, pr_bytes, sizeof bytes);
    bytes[i] ^= 0x20;
    flipped = hf_reader_new_memory (bytes, sizeof bytes);
    g_assert_false (hf_scsi_disk_pr_read (flipped, &subsection, &pr, &error));
    g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_MALFORMED);
  }
  {
    HfStreamSubsection subsection = { .name = (char *)"scsi-disk/pr", .offset = 2, .length = 27 };
    g_autoptr (GError) error = NULL;
    g_assert_false (hf_scsi_disk_pr_read (reader, &subsection, &pr, &error));
    g_assert_nonnull (error);
  }
}

/* K is 0xabc, another's key 0xd00d. */
static void
test_pr_compare (void)
{
  static guint64 both[] = { 0xabc, 0xd00d }, other[] = { 0xd00d };
  static const struct {
    guint8 saved;
    gboolean registered, reserved;
    guint64 holder;
    guint8 type;
    const char *difference;
  } cases[] = {
    { 5, TRUE, TRUE, 0xabc, 5, NULL },
    { 0, TRUE, FALSE, 0, 0, NULL },
    { 0, TRUE, TRUE, 0xd00d, 1, NULL },
    { 7, TRUE, TRUE, 0, 7, NULL },
    { 5, FALSE, TRUE, 0xd00d, 5, "is not registered" },
    { 7, FALSE, TRUE, 0, 7, "is not registered" },
    { 5, TRUE, FALSE, 0, 0, "nobody holds" },
    { 5, TRUE, TRUE, 0xd00d, 5, "key 0xd00d holds" },
    { 5, TRUE, TRUE, 0xabc, 6, "key 0xabc holds" },
    { 0, TRUE, TRUE, 0xabc, 5, "key 0xabc holds" },
    { 0, TRUE, TRUE, 0, 8, "every registrant holds" },
    { 7, TRUE, TRUE, 0, 8, "every registrant holds" },
  };

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    HfScsiDiskPr pr = { .key = 0xabc, .type = cases[i].saved };
    HfPrObservation observation = { .n_keys = cases[i].registered ? 2 : 1,
                                    .keys = cases[i].registered ? both : other,
                                    .reserved = cases[i].reserved,
                                    .holder_key = cases[i].holder,
                                    .type = cases[i].type };
    g_autofree char *difference = hf_scsi_disk_pr_compare (&pr, &observation);

    g_test_message ("case %u: %s", i, difference ? difference : "the same");
    g_assert_cmpint (difference == NULL, ==, cases[i].difference == NULL);
    if (difference)
      g_assert_nonnull (strstr (difference, cases[i].difference));
  }
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/stream-reservations/entries", test_entries);
  g_test_add_func ("/stream-reservations/fewer-than-declared", test_fewer_than_declared);
  g_test_add_func ("/stream-reservations/padding", test_padding);
  g_test_add_func ("/stream-reservations/hostile-entries", test_hostile_entries);
  g_test_add_func ("/stream-reservations/too-long", test_too_long);
  g_test_add_func ("/stream-reservations/too-many", test_too_many);
  g_test_add_func ("/stream-reservations/damaged-record", test_damaged_record);
  g_test_add_func ("/stream-reservations/pr", test_pr);
  g_test_add_func ("/stream-reservations/pr-hostile", test_pr_hostile);
  g_test_add_func ("/stream-reservations/pr-compare", test_pr_compare);
  return g_test_run ();
}
