/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The two walks through a QEMU stream: what is whole both find whole, and find the same in it; what is cut neither takes for
 * whole; of what is damaged at least one says so. That each of them can be wrong alone, and is caught by the other, has tests of
 * its own.
 */
#include "config.h"

#include "../fake/qemu-stream.h"
#include "base/bytes.h"
#include "stream/description.h"
#include "stream/mapped-ram.h"
#include "stream/stream-map.h"

#include <string.h>

static const guint8 helper_state[] = "HELLO-STATE-A";

static const FakeStreamOptions variants[] = {
  { .n_pages = 16 },
  { .n_pages = 5, .no_command = TRUE, .machine = "pc-i440fx-7.2" },
  { .n_pages = 7, .no_footers = TRUE },
  { .n_pages = 4, .uuid = TRUE, .page_bits = 14 },
  { .n_pages = 9, .offset = 777, .n_rounds = 5, .seed = 3 },
  { .n_pages = 3, .dbus_id = "helperA", .dbus_data = helper_state, .dbus_length = sizeof helper_state },
  { .n_pages = 3, .pr_key = 0xabcdef, .pr_type = 5 },
  { .n_pages = 20, .mapped = TRUE },
  { .n_pages = 70, .mapped = TRUE, .offset = 71969, .uuid = TRUE },
  { .n_pages = 3, .mapped = TRUE, .page_bits = 16, .pr_key = 1, .dbus_id = "h", .no_command = TRUE },
};

/* As small as a stream can be, so that every byte of it can have its turn. */
static const FakeStreamOptions smallest = { .n_pages = 2, .page_bits = 9, .n_rounds = 1, .pr_key = 77, .pr_type = 1 };

typedef struct {
  HfReader *reader;
  HfStreamMap *forward, *tail;
  GError *forward_error, *tail_error;
} Walks;

/* Both, over [start, length) of bytes. */
static Walks *
walk (const guint8 *bytes, gsize length, gsize start)
{
  Walks *walks = g_new0 (Walks, 1);
  gboolean whole;

  walks->reader = hf_reader_new_memory (bytes, length);
  whole = hf_walk_forward (walks->reader, start, length, NULL, &walks->forward, &walks->forward_error);
  g_assert_true (whole == (walks->forward_error == NULL));
  whole = hf_walk_tail (walks->reader, start, length, &walks->tail, &walks->tail_error);
  g_assert_true (whole == (walks->tail_error == NULL));
  g_assert_nonnull (walks->forward);
  g_assert_nonnull (walks->tail);
  return walks;
}

static void
walks_free (Walks *walks)
{
  hf_reader_free (walks->reader);
  hf_stream_map_free (walks->forward);
  hf_stream_map_free (walks->tail);
  g_clear_error (&walks->forward_error);
  g_clear_error (&walks->tail_error);
  g_free (walks);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Walks, walks_free)

/* Neither has an error, and they agree. */
static gboolean
is_good (const Walks *walks)
{
  return !walks->forward_error && !walks->tail_error && hf_stream_maps_agree (walks->forward, walks->tail, NULL);
}

static void
assert_good (const Walks *walks)
{
  g_autoptr (GError) error = NULL;

  g_assert_no_error (walks->forward_error);
  g_assert_no_error (walks->tail_error);
  hf_stream_maps_agree (walks->forward, walks->tail, &error);
  g_assert_no_error (error);
}

static void
assert_fails (const GError *error, HfStreamError code, const char *word)
{
  g_assert_error (error, HF_STREAM_ERROR, (gint)code);
  if (!strstr (error->message, word))
    g_error ("\"%s\" does not say \"%s\"", error->message, word);
}

/* Of the stream that this is made of. */
static void
assert_map (const HfStreamMap *map, const FakeStream *stream, const FakeStreamOptions *options)
{
  const HfStreamSection *timer = hf_stream_map_find (map, "timer");

  g_assert_cmpuint (map->start, ==, options->offset);
  g_assert_cmpuint (map->end, ==, stream->bytes->len);
  g_assert_cmpuint (map->eof_offset, ==, stream->eof);
  g_assert_cmpuint (map->description_offset, ==, stream->eof + 6);
  g_assert_cmpuint (map->description_length, ==, stream->bytes->len - stream->eof - 6);
  g_assert_cmpstr (map->machine, ==, options->machine ? options->machine : "pc-q35-10.0");
  g_assert_cmpint (map->mapped_ram, ==, options->mapped);
  g_assert_cmpint (map->footers, ==, !options->no_footers);
  g_assert_cmpint (map->has_uuid, ==, options->uuid);
  g_assert_cmpuint (map->uuid[15], ==, options->uuid ? 0xaf : 0);
  g_assert_cmpuint (map->target_page_bits, ==, options->page_bits == 12 ? 0 : options->page_bits);
  g_assert_true (map->eof_seen && map->description_seen && map->ram_end_seen);
  g_assert_nonnull (timer);
  g_assert_cmpuint (timer->offset, ==, stream->ram_end);
  g_assert_cmpuint (timer->body_length, ==, 24);
  g_assert_cmpuint (timer->version, ==, 2);
}

static void
assert_blocks (const HfStreamMap *map, const FakeStream *stream, const FakeStreamOptions *options)
{
  g_assert_cmpuint (map->blocks->len, ==, FAKE_N_BLOCKS);
  for (guint i = 0; i < FAKE_N_BLOCKS; i++) {
    const HfStreamBlock *block = &g_array_index (map->blocks, HfStreamBlock, i);

    g_assert_cmpstr (block->ram.id, ==, stream->ids[i]);
    g_assert_cmpuint (block->ram.used_length, ==, stream->ram[i]->len);
    g_assert_cmpint (block->mapped, ==, options->mapped);
    if (!options->mapped)
      continue;
    g_assert_cmpuint (block->bitmap_offset, ==, block->header_offset + 28);
    g_assert_cmpuint (block->pages_offset % (1u << 20), ==, 0);
    g_assert_cmpuint (block->bitmap_length, ==, (stream->ram[i]->len / stream->page_size + 63) / 64 * 8);
  }
}

static void
test_whole (gconstpointer data)
{
  const FakeStreamOptions *options = data;
  g_autoptr (FakeStream) stream = fake_stream_new (options);
  g_autoptr (Walks) walks = walk (stream->bytes->data, stream->bytes->len, options->offset);

  assert_good (walks);
  assert_map (walks->forward, stream, options);
  assert_map (walks->tail, stream, options);
  assert_blocks (walks->forward, stream, options);
  if (!options->mapped)
    g_assert_cmpuint (walks->forward->pages + walks->forward->zero_pages, >=,
                      (stream->ram[0]->len + stream->ram[1]->len + stream->ram[2]->len) / stream->page_size);
}

/* scsi-disk/pr: 27 bytes before the footer, and version, name and place as they are in the stream. */
static void
test_subsections (void)
{
  g_autoptr (FakeStream) stream = fake_stream_new (&variants[6]);
  g_autoptr (Walks) walks = walk (stream->bytes->data, stream->bytes->len, 0);
  const HfStreamMap *maps[] = { walks->forward, walks->tail };

  for (guint i = 0; i < 2; i++) {
    const HfStreamSection *disk = hf_stream_map_find (maps[i], "0000:00:01.0/0:3:1/scsi-disk");
    const HfStreamSubsection *pr;

    g_assert_nonnull (disk);
    g_assert_cmpuint (disk->subsections->len, ==, 1);
    pr = g_ptr_array_index (disk->subsections, 0);
    g_assert_cmpstr (pr->name, ==, "scsi-disk/pr");
    g_assert_cmpuint (pr->length, ==, 27);
    g_assert_cmpuint (pr->version, ==, 1);
    g_assert_cmpuint (pr->offset + pr->length + 5, ==, disk->offset + disk->length);
    g_assert_cmphex (stream->bytes->data[pr->offset], ==, 5);
  }
}

/* Each cut by itself, as a block of its own size, so that the sanitizer sees a read behind it. */
static void
assert_cut (const FakeStream *stream, gsize start, gsize length)
{
  g_autofree guint8 *bytes = g_memdup2 (stream->bytes->data, MAX (length, 1));
  g_autoptr (Walks) walks = walk (bytes, length, start);

  g_assert_error (walks->tail_error, HF_STREAM_ERROR, HF_STREAM_ERROR_INCOMPLETE);
  g_assert_error (walks->forward_error, HF_STREAM_ERROR, HF_STREAM_ERROR_INCOMPLETE);
  g_assert_cmpuint (walks->forward->end, ==, 0);
  g_assert_cmpuint (walks->tail->end, ==, 0);
}

static void
test_cut_anywhere (void)
{
  g_autoptr (FakeStream) stream = fake_stream_new (&smallest);

  for (gsize length = 0; length < stream->bytes->len; length++)
    assert_cut (stream, 0, length);
}

/* Of larger ones: at every boundary, before and behind it. */
static void
test_cut_at_boundaries (gconstpointer data)
{
  const FakeStreamOptions *options = data;
  g_autoptr (FakeStream) stream = fake_stream_new (options);
  guint step = 1 + stream->boundaries->len / 60;

  for (guint i = 0; i < stream->boundaries->len; i += step) {
    guint64 offset = g_array_index (stream->boundaries, FakeBoundary, i).offset;

    for (gint64 shift = -1; shift <= 1; shift++) {
      if ((gint64)offset + shift >= (gint64)options->offset && offset + (guint64)shift < stream->bytes->len)
        assert_cut (stream, options->offset, offset + (guint64)shift);
    }
  }
}

/* A cut in CONFIGURATION of one and in the middle of another's tail: what follows is of another stream. */
static void
test_without_description (void)
{
  const FakeStreamOptions options = { .no_description = TRUE };
  g_autoptr (FakeStream) stream = fake_stream_new (&options);
  g_autoptr (Walks) walks = walk (stream->bytes->data, stream->bytes->len, 0);

  assert_fails (walks->tail_error, HF_STREAM_ERROR_INCOMPLETE, "suppress-vmdesc");
  assert_fails (walks->forward_error, HF_STREAM_ERROR_INCOMPLETE, "suppress-vmdesc");
}

/* One bit is other than it was: at least one walk must say so, unless the byte is one that nothing follows from. */

/* Bytes that no structure depends on. */
enum { STRUCTURE, CONTENT, PAGE_NUMBER, DESCRIPTION };

static void
mark (guint8 *kinds, guint64 offset, guint64 length, guint8 kind)
{
  memset (kinds + offset, kind, length);
}

/* The items of a PART: page numbers and the bytes of pages. */
static void
mark_items (guint8 *kinds, const guint8 *bytes, guint64 offset, guint32 page_size)
{
  for (;;) {
    guint32 flags = (guint32)(bytes[offset + 6] << 8 | bytes[offset + 7]) & (page_size - 1);
    guint64 length = flags & 0x08 ? page_size : 1;

    if (flags == 0x10)
      return;
    mark (kinds, offset, 7, PAGE_NUMBER);
    offset += 8 + (flags & 0x20 ? 0 : 1 + bytes[offset + 8]);
    if (flags & 0x08)
      mark (kinds, offset, length, CONTENT);
    offset += length;
  }
}

/* What the fields of a device hold; its subsections' headers are structure. */
static void
mark_device (guint8 *kinds, const HfStreamSection *section)
{
  mark (kinds, section->body_offset, section->body_length, CONTENT);
  for (guint i = 0; i < section->subsections->len; i++) {
    const HfStreamSubsection *subsection = g_ptr_array_index (section->subsections, i);

    mark (kinds, subsection->offset, 6 + strlen (subsection->name), STRUCTURE);
  }
}

static guint8 *
kinds_of (const FakeStream *stream, const HfStreamMap *map)
{
  guint8 *kinds = g_malloc0 (stream->bytes->len);

  mark (kinds, 13, strlen (map->machine), CONTENT);
  for (guint i = 0; i < map->sections->len; i++) {
    const HfStreamSection *section = g_ptr_array_index (map->sections, i);

    if (section->type == 0x02)
      mark_items (kinds, stream->bytes->data, section->body_offset, stream->page_size);
    if (section->type == 0x04)
      mark_device (kinds, section);
  }
  mark (kinds, map->description_offset, map->description_length, DESCRIPTION);
  return kinds;
}

/* The sections are the same to the byte, so what the flip changed in the description is not what QEMU's bytes depend on. */
static gboolean
same_sections (const HfStreamMap *a, const HfStreamMap *b)
{
  if (a->sections->len != b->sections->len)
    return FALSE;
  for (guint i = 0; i < a->sections->len; i++) {
    const HfStreamSection *x = g_ptr_array_index (a->sections, i), *y = g_ptr_array_index (b->sections, i);

    if (x->offset != y->offset || x->length != y->length || !g_str_equal (x->id, y->id) || x->version != y->version
        || x->instance_id != y->instance_id || x->subsections->len != y->subsections->len)
      return FALSE;
  }
  return TRUE;
}

static gboolean
is_harmless (guint8 kind, const HfStreamMap *before, const Walks *after)
{
  switch (kind) {
  case CONTENT:
    return TRUE; /* a checksum's business */
  case PAGE_NUMBER:
    /* It is the number of another page of the same block; a checksum's business too. */
    return before->pages == after->forward->pages && before->zero_pages == after->forward->zero_pages;
  case DESCRIPTION:
    return same_sections (before, after->forward);
  default:
    return FALSE;
  }
}

static void
test_flips (gconstpointer data)
{
  static const guint8 masks[] = { 0x01, 0x08, 0x80 };
  const FakeStreamOptions *options = data;
  g_autoptr (FakeStream) stream = fake_stream_new (options);
  guint8 *bytes = stream->bytes->data;
  g_autoptr (Walks) before = walk (bytes, stream->bytes->len, 0);
  g_autofree guint8 *kinds = kinds_of (stream, before->forward);
  guint n_structure = 0;

  assert_good (before);
  for (guint at = 0; at < stream->bytes->len; at++) {
    for (guint i = 0; i < G_N_ELEMENTS (masks); i++) {
      g_autoptr (Walks) after = NULL;

      if (kinds[at] == CONTENT && at % 64 != 0)
        continue;
      bytes[at] ^= masks[i];
      after = walk (bytes, stream->bytes->len, 0);
      bytes[at] ^= masks[i];
      n_structure += kinds[at] == STRUCTURE;
      if (is_good (after) && !is_harmless (kinds[at], before->forward, after))
        g_error ("nobody noticed that bits 0x%02x of the byte at offset %u are others", masks[i], at);
    }
  }
  g_assert_cmpuint (n_structure, >, 3 * 300);
}

/* Each walk can be wrong alone. */

/* The text is there once; what replaces it has its length. */
static void
replace (FakeStream *stream, const char *text, const char *by)
{
  guint8 *found = memmem (stream->bytes->data, stream->bytes->len, text, strlen (text));

  g_assert_nonnull (found);
  g_assert_cmpuint (strlen (text), ==, strlen (by));
  g_assert_null (memmem (found + 1, stream->bytes->len - (gsize)(found + 1 - stream->bytes->data), text, strlen (text)));
  memcpy (found, by, strlen (by));
}

/* What is inside of a structure is less than its size says: only who counts the inside can see it. */
static void
test_only_forward_notices (void)
{
  g_autoptr (FakeStream) stream = fake_stream_new (&variants[0]);
  g_autoptr (Walks) walks = NULL;

  replace (stream, "\"array_len\": 8, ", "\"array_len\": 7, ");
  walks = walk (stream->bytes->data, stream->bytes->len, 0);
  g_assert_no_error (walks->tail_error);
  assert_fails (walks->forward_error, HF_STREAM_ERROR_MALFORMED, "cpu_common/crash_occurred");
}

/* The size of a structure is other than what is inside: only who takes it as it stands can see it. */
static void
test_only_tail_notices (void)
{
  g_autoptr (FakeStream) stream = fake_stream_new (&variants[0]);
  g_autoptr (Walks) walks = NULL;

  replace (stream, "\"size\": 33}", "\"size\": 32}");
  walks = walk (stream->bytes->data, stream->bytes->len, 0);
  g_assert_no_error (walks->forward_error);
  assert_fails (walks->tail_error, HF_STREAM_ERROR_MALFORMED, "cpu_common");
}

/* The functions by which each walk reads numbers of the description, one too much if it shall be wrong. The linker puts these in
   their place (--wrap). */
static gboolean tail_misreads, forward_misreads;

gboolean __real_hf_description_number (JsonObject *object, const char *name, guint64 *ret);
gboolean __wrap_hf_description_number (JsonObject *object, const char *name, guint64 *ret);
gboolean __real_hf_forward_json_number (JsonObject *object, const char *name, guint64 *ret);
gboolean __wrap_hf_forward_json_number (JsonObject *object, const char *name, guint64 *ret);

gboolean
__wrap_hf_description_number (JsonObject *object, const char *name, guint64 *ret)
{
  gboolean done = __real_hf_description_number (object, name, ret);

  *ret += done && tail_misreads && g_str_equal (name, "size");
  return done;
}

gboolean
__wrap_hf_forward_json_number (JsonObject *object, const char *name, guint64 *ret)
{
  gboolean done = __real_hf_forward_json_number (object, name, ret);

  *ret += done && forward_misreads && g_str_equal (name, "size");
  return done;
}

/* What one of them misreads the other one reads right: they share no function for it. */
static void
test_one_misreads (void)
{
  g_autoptr (FakeStream) stream = fake_stream_new (&variants[0]);
  g_autoptr (Walks) by_tail = NULL, by_forward = NULL;

  tail_misreads = TRUE;
  by_tail = walk (stream->bytes->data, stream->bytes->len, 0);
  tail_misreads = FALSE;
  forward_misreads = TRUE;
  by_forward = walk (stream->bytes->data, stream->bytes->len, 0);
  forward_misreads = FALSE;
  g_assert_no_error (by_tail->forward_error);
  g_assert_error (by_tail->tail_error, HF_STREAM_ERROR, HF_STREAM_ERROR_MALFORMED);
  g_assert_no_error (by_forward->tail_error);
  g_assert_error (by_forward->forward_error, HF_STREAM_ERROR, HF_STREAM_ERROR_MALFORMED);
}

typedef struct {
  const char *what;
  void (*change) (HfStreamMap *map, HfStreamSection *section, HfStreamSubsection *subsection);
} Change;

#define CHANGE(NAME, STATEMENT)                                                                                                  \
  static void change_##NAME (HfStreamMap *map, HfStreamSection *section, HfStreamSubsection *subsection)                         \
  {                                                                                                                              \
    STATEMENT;                                                                                                                   \
  }

CHANGE (offset, section->offset++)
CHANGE (length, section->length--)
CHANGE (body_offset, section->body_offset++)
CHANGE (body_length, section->body_length++)
CHANGE (section_id, section->section_id ^= 1)
CHANGE (instance, section->instance_id++)
CHANGE (version, section->version++)
CHANGE (type, section->type = 0x03)
CHANGE (id, section->id[0] ^= 1)
CHANGE (subsection_offset, subsection->offset++)
CHANGE (subsection_length, subsection->length++)
CHANGE (subsection_version, subsection->version++)
CHANGE (subsection_name, subsection->name[0] ^= 1)
CHANGE (subsection_lost, g_ptr_array_set_size (section->subsections, 0))
CHANGE (section_lost, g_ptr_array_set_size (map->sections, (gint)map->sections->len - 1))
CHANGE (ram_end, ((HfStreamSection *)map->sections->pdata[map->sections->len - 4])->length++)
CHANGE (eof, map->eof_offset++)
CHANGE (description_offset, map->description_offset++)
CHANGE (description_length, map->description_length++)
CHANGE (end, map->end++)
CHANGE (start, map->start++)
CHANGE (footers, map->footers = FALSE)
CHANGE (mapped, map->mapped_ram = TRUE)
CHANGE (page_bits, map->target_page_bits = 16)
CHANGE (machine, map->machine[0] ^= 1)

static const Change changes[] = {
  { "offset", change_offset },
  { "length", change_length },
  { "body_offset", change_body_offset },
  { "body_length", change_body_length },
  { "section_id", change_section_id },
  { "instance", change_instance },
  { "version", change_version },
  { "type", change_type },
  { "id", change_id },
  { "subsection_offset", change_subsection_offset },
  { "subsection_length", change_subsection_length },
  { "subsection_version", change_subsection_version },
  { "subsection_name", change_subsection_name },
  { "subsection_lost", change_subsection_lost },
  { "section_lost", change_section_lost },
  { "ram_end", change_ram_end },
  { "eof", change_eof },
  { "description_offset", change_description_offset },
  { "description_length", change_description_length },
  { "end", change_end },
  { "start", change_start },
  { "footers", change_footers },
  { "mapped", change_mapped },
  { "page_bits", change_page_bits },
  { "machine", change_machine },
};

/* Whatever one of them found differently, whichever it is. */
static void
test_disagreement (void)
{
  g_autoptr (FakeStream) stream = fake_stream_new (&variants[6]);

  for (guint i = 0; i < 2 * G_N_ELEMENTS (changes); i++) {
    g_autoptr (Walks) walks = walk (stream->bytes->data, stream->bytes->len, 0);
    HfStreamMap *map = i % 2 ? walks->forward : walks->tail;
    HfStreamSection *disk = g_ptr_array_index (map->sections, map->sections->len - 1);
    g_autoptr (GError) error = NULL;

    assert_good (walks);
    changes[i / 2].change (map, disk, g_ptr_array_index (disk->subsections, 0));
    if (hf_stream_maps_agree (walks->forward, walks->tail, &error))
      g_error ("the walks agree with another %s", changes[i / 2].what);
    assert_fails (error, HF_STREAM_ERROR_MALFORMED, "disagree");
  }
}

/* What else stands in streams. */

/* At offset go length bytes in, of data. */
static void
insert (FakeStream *stream, guint64 offset, const void *data, gsize length)
{
  GByteArray *bytes = stream->bytes;
  gsize rest = bytes->len - offset;

  g_byte_array_set_size (bytes, (guint)(bytes->len + length));
  memmove (bytes->data + offset + length, bytes->data + offset, rest);
  memcpy (bytes->data + offset, data, length);
}

/* QEMU writes the early state of virtio-mem before or behind RAM START; both come before RAM ends. */
static void
test_early_device (void)
{
  for (guint place = 0; place < 2; place++) {
    g_autoptr (FakeStream) stream = fake_stream_new (&variants[0]);
    g_autoptr (Walks) before = walk (stream->bytes->data, stream->bytes->len, 0), walks = NULL;
    const HfStreamSection *timer = hf_stream_map_find (before->forward, "timer");
    g_autofree guint8 *bytes = g_memdup2 (stream->bytes->data + timer->offset, timer->length);

    memmove (stream->bytes->data + timer->offset, stream->bytes->data + timer->offset + timer->length,
             stream->bytes->len - timer->offset - timer->length);
    g_byte_array_set_size (stream->bytes, (guint)(stream->bytes->len - timer->length));
    insert (stream, ((HfStreamSection *)before->forward->sections->pdata[place])->offset, bytes, timer->length);
    walks = walk (stream->bytes->data, stream->bytes->len, 0);
    assert_good (walks);
    g_assert_cmpuint (walks->tail->unplaced, ==, 1);
    g_assert_cmpstr (((HfStreamSection *)walks->forward->sections->pdata[place])->id, ==, "timer");
    walks->tail->unplaced = 0;
    g_assert_false (is_good (walks));
  }
}

/* A dirty bitmap, VFIO: the tail walk passes them, the forward walk says what it is. */
static void
test_other_iterable (void)
{
  g_autoptr (FakeStream) stream = fake_stream_new (&variants[0]);
  g_autoptr (Walks) walks = NULL;

  replace (stream, "\003ram", "\003rom");
  walks = walk (stream->bytes->data, stream->bytes->len, 0);
  g_assert_no_error (walks->tail_error);
  assert_fails (walks->forward_error, HF_STREAM_ERROR_UNSUPPORTED, "\"rom\"");
}

/* A stream with a machine name of so many bytes, and so many capabilities. */
static FakeStream *
make_configured (guint machine_length, guint n_capabilities)
{
  static const char name[] = "\x05\x1a"
                             "configuration/capabilities\0\0\0\x01\0\0\0";
  g_autofree char *machine = g_strnfill (MAX (machine_length, 1), 'm');
  const FakeStreamOptions options = { .machine = machine };
  FakeStream *stream = fake_stream_new (&options);
  guint8 count = (guint8)n_capabilities;

  for (guint i = 0; i < n_capabilities; i++)
    insert (stream, 13 + MAX (machine_length, 1), "\x01x", 2);
  if (n_capabilities) {
    insert (stream, 13 + MAX (machine_length, 1), &count, 1);
    insert (stream, 13 + MAX (machine_length, 1), name, sizeof name - 1);
  }
  if (machine_length == 0) {
    hf_put_be32 (0, stream->bytes->data + 9);
    memmove (stream->bytes->data + 13, stream->bytes->data + 14, stream->bytes->len - 14);
    g_byte_array_set_size (stream->bytes, stream->bytes->len - 1);
  }
  return stream;
}

/* All who read CONFIGURATION have the same limits: what verify calls good, capture takes. */
static void
test_configuration_limits (void)
{
  static const struct {
    guint machine_length, n_capabilities;
    gboolean good;
  } cases[] = { { 1, 0, TRUE }, { 1024, 64, TRUE }, { 0, 0, FALSE }, { 1025, 0, FALSE }, { 1, 65, FALSE }, { 1, 255, FALSE } };
  static const HfFeedEvents no_events = { 0 };

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (FakeStream) stream = make_configured (cases[i].machine_length, cases[i].n_capabilities);
    g_autoptr (Walks) walks = walk (stream->bytes->data, stream->bytes->len, 0);
    g_autoptr (HfFeed) feed = hf_feed_new (&no_events, NULL);
    gsize head = 13 + cases[i].machine_length + (cases[i].n_capabilities ? 36 + 2 * cases[i].n_capabilities : 0);
    g_autoptr (GByteArray) rewritten = hf_mapped_ram_configuration (stream->bytes->data, head, FALSE, NULL);
    gboolean fed = hf_feed_bytes (feed, stream->bytes->data, stream->bytes->len, NULL);

    g_test_message ("a name of %u bytes, %u capabilities", cases[i].machine_length, cases[i].n_capabilities);
    g_assert_cmpint (stream->bytes->data[head], ==, 0x01); /* the first section */
    g_assert_cmpint (walks->forward_error == NULL, ==, cases[i].good);
    g_assert_cmpint (walks->tail_error == NULL, ==, cases[i].good);
    g_assert_cmpint (fed, ==, cases[i].good);
    g_assert_cmpint (rewritten != NULL, ==, cases[i].good);
  }
}

/* More than 64 TiB, all of it the first block's: nothing in the list contradicts it. */
static void
test_ram_limit (void)
{
  static const HfFeedEvents no_events = { 0 };

  for (guint i = 0; i < 2; i++) {
    g_autoptr (FakeStream) stream = fake_stream_new (&variants[0]);
    g_autoptr (Walks) before = walk (stream->bytes->data, stream->bytes->len, 0), walks = NULL;
    guint8 *word = stream->bytes->data + ((HfStreamSection *)before->forward->sections->pdata[0])->body_offset;
    guint64 total = (guint64)1 << 46, more = i * 4096 + total - (hf_get_be64 (word) & ~(guint64)4095);
    g_autoptr (HfFeed) feed = hf_feed_new (&no_events, NULL);

    hf_put_be64 (hf_get_be64 (word) + more, word);
    hf_put_be64 (hf_get_be64 (word + 9 + word[8]) + more, word + 9 + word[8]);
    walks = walk (stream->bytes->data, stream->bytes->len, 0);
    g_assert_cmpint (hf_feed_bytes (feed, stream->bytes->data, stream->bytes->len, NULL), ==, i == 0);
    if (i == 0)
      assert_good (walks);
    else
      assert_fails (walks->forward_error, HF_STREAM_ERROR_MALFORMED, "is said to have 70368744181760 bytes");
  }
}

typedef struct {
  const char *name, *problem; /* NULL: none */
  guint8 length;
  guint8 data[16];
} Xbzrle;

static const Xbzrle xbzrle_items[] = {
  { "one run", NULL, 6, { 3, 3, 'a', 'b', 'c', 0 } },
  { "first at once", NULL, 4, { 0, 1, 'x', 0 } },
  { "two bytes of count", NULL, 4, { 0x80 | 0x7f, 0x1e, 1, 'x' } },
  { "over the page", "longer than a page", 4, { 0x80 | 0x7f, 0x1f, 2, 'x' } },
  { "no new bytes", "bad run of new bytes", 2, { 5, 0 } },
  { "new bytes missing", "longer than a page", 3, { 5, 2, 'x' } },
  { "no second count", "bad run of new bytes", 1, { 5 } },
  { "count of three bytes", "bad run of equal bytes", 4, { 0x80, 0x80, 1, 1 } },
  { "an equal run of nothing", "bad run of equal bytes", 6, { 0, 1, 'x', 0, 1, 'y' } },
  { "nothing", "no length", 0, { 0 } },
};

static void
test_xbzrle (void)
{
  for (guint i = 0; i < G_N_ELEMENTS (xbzrle_items); i++) {
    const Xbzrle *item = &xbzrle_items[i];
    g_autoptr (FakeStream) stream = fake_stream_new (&variants[0]);
    g_autoptr (Walks) before = walk (stream->bytes->data, stream->bytes->len, 0), walks = NULL;
    const HfStreamSection *part = g_ptr_array_index (before->forward->sections, 2);
    guint8 bytes[64] = { 0, 0, 0, 0, 0, 0, 0x20, 0x40, 6, 'p', 'c', '.', 'r', 'a', 'm', 1, 0, item->length };
    guint data_length = item->length;

    /* The trailing byte of the first items is not data. */
    if (i < 2)
      bytes[17] = (guint8)(data_length = item->length - 1u);
    memcpy (bytes + 18, item->data, data_length);
    g_assert_cmpuint (part->type, ==, 0x02);
    insert (stream, part->body_offset + part->body_length - 8, bytes, 18 + data_length);
    walks = walk (stream->bytes->data, stream->bytes->len, 0);
    if (item->problem) {
      assert_fails (walks->forward_error, HF_STREAM_ERROR_MALFORMED, item->problem);
      assert_fails (walks->forward_error, HF_STREAM_ERROR_MALFORMED, "block \"pc.ram\", page 2, at offset ");
    } else {
      assert_good (walks);
      g_assert_cmpuint (walks->forward->xbzrle_pages, ==, 1);
    }
  }
}

/* A guest's memory may hold what looks like the description, with the right length too. */
static void
test_decoy (void)
{
  guint8 state[64] = { 0 };
  FakeStreamOptions options = { .dbus_id = "h", .dbus_data = state, .dbus_length = sizeof state };
  g_autoptr (FakeStream) stream = fake_stream_new (&options);
  static const guint8 mark_bytes[] = { 0, 6 };
  guint8 *page = stream->bytes->data + stream->first_page;
  guint8 *device = memmem (stream->bytes->data, stream->bytes->len, state, sizeof state);
  guint8 *places[] = { page, page + 100, device, device + 30 };

  g_assert_nonnull (device);
  for (guint i = 0; i < G_N_ELEMENTS (places); i++) {
    g_autoptr (Walks) walks = NULL;
    guint32 length = GUINT32_TO_BE ((guint32)(stream->bytes->data + stream->bytes->len - (places[i] + 6)));

    memcpy (places[i], mark_bytes, 2);
    memcpy (places[i] + 2, &length, 4);
    memcpy (places[i] + 6, "{\"", 2);
    walks = walk (stream->bytes->data, stream->bytes->len, 0);
    assert_good (walks);
  }
}

/* Descriptions that cannot be. Each replaces a text by one of the same length. */
static const struct {
  const char *text, *by;
} bad_descriptions[] = {
  { "\"size\": 33}", "\"size\": -3}" },
  { "\"size\": 33}", "\"sizf\": 33}" },
  { "\"devices\": [", "\"devicez\": [" },
  { "\"array_len\": 16, ", "\"array_len\":-16, " },
  { "\"array_len\": 16, ", "\"array_len\":9e9, " },
  { "\"array_len\": 16, ", "\"array_len\":null," },
  { "\"name\": \"timer\", ", "\"name\": 1234567, " },
  { "\"vmsd_name\": \"cpu_common/crash_occurred\"", "\"vmsd_name\": \"cpu_common/crash_occurrex\"" },
  { "\"vmsd_name\": \"cpu_common/crash_occurred\"", "\"vmsd_nam_\": \"cpu_common/crash_occurred\"" },
  { "\"subsections\": [{", "\"subsections\":[[{" },
  { "{\"page_size\": 4096", "{\"page_size\": 8192" },
  { "{\"page_size\": 4096", "[\"page_size\": 4096" },
};

static void
test_bad_descriptions (void)
{
  for (guint i = 0; i < G_N_ELEMENTS (bad_descriptions); i++) {
    g_autoptr (FakeStream) stream = fake_stream_new (&variants[0]);
    g_autoptr (Walks) walks = NULL;

    replace (stream, bad_descriptions[i].text, bad_descriptions[i].by);
    walks = walk (stream->bytes->data, stream->bytes->len, 0);
    if (is_good (walks))
      g_error ("\"%s\" was taken", bad_descriptions[i].by);
  }
}

/* Other descriptions than the stream's own, of any length: what stands in them costs neither memory nor time without bound. */
static void
assert_other_description (const char *json, const char *word)
{
  g_autoptr (FakeStream) stream = fake_stream_new (&variants[0]);
  guint32 length = GUINT32_TO_BE ((guint32)strlen (json));
  g_autoptr (Walks) walks = NULL;

  g_byte_array_set_size (stream->bytes, (guint)stream->eof + 2);
  g_byte_array_append (stream->bytes, (const guint8 *)&length, sizeof length);
  g_byte_array_append (stream->bytes, (const guint8 *)json, (guint)strlen (json));
  walks = walk (stream->bytes->data, stream->bytes->len, 0);
  assert_fails (walks->tail_error, HF_STREAM_ERROR_MALFORMED, word);
  g_assert_error (walks->forward_error, HF_STREAM_ERROR, HF_STREAM_ERROR_MALFORMED);
}

static void
test_hostile_descriptions (void)
{
  g_autoptr (GString) levels = g_string_new ("{\"devices\": "), values = g_string_new ("{\"devices\": [0");
  g_autoptr (GString) steps =
      g_string_new ("{\"devices\": [{\"name\": \"timer\", \"instance_id\": 0, \"version\": 2, \"fields\": [");

  for (guint i = 0; i < 100000; i++)
    g_string_append_c (levels, '[');
  assert_other_description (levels->str, "levels");
  for (guint i = 0; i < 270000; i++)
    g_string_append (values, ",0");
  g_string_append (values, "]}");
  assert_other_description (values->str, "too many values");
  /* Each level doubles the sizes; no sum of them is what the file has. */
  for (guint i = 0; i < 60; i++)
    g_string_append (steps, i ? ",{\"size\":4611686018427387904,\"array_len\":4611686018427387904}" : "{\"size\":24}");
  g_string_append (steps, "]}]}");
  assert_other_description (steps->str, "too large");
  assert_other_description ("{\"devices\": [1]}", "device");
  assert_other_description ("{\"devices\": {}}", "no devices");
  assert_other_description ("{\"devices\": [{\"name\": \"a\", \"instance_id\": 0, \"fields\": [[]]}]}", "size");
}

static void
append (FakeStream *stream, const char *bytes, gsize length)
{
  g_byte_array_append (stream->bytes, (const guint8 *)bytes, (guint)length);
}

/* One device whose only field is a structure that is there n times, each with n fields of no bytes and a subsection. */
static void
make_stepper (FakeStream *stream, guint n)
{
  g_autoptr (GString) json = g_string_new ("{\"devices\": [{\"name\": \"a\", \"instance_id\": 0, \"version\": 1, \"fields\": [");
  guint32 length;

  g_string_append_printf (json, "{\"name\": \"b\", \"array_len\": %u, \"size\": 7, \"struct\": {\"fields\": [", n);
  for (guint i = 0; i < n; i++)
    g_string_append (json, i ? ",{\"size\": 0}" : "{\"size\": 0}");
  g_string_append (json, "], \"subsections\": [{\"vmsd_name\": \"x\", \"version\": 1}]}}]}]}");
  g_byte_array_set_size (stream->bytes, (guint)stream->ram_end);
  append (stream,
          "\x04\0\0\0\x09\x01"
          "a\0\0\0\0\0\0\0\x01",
          15);
  for (guint i = 0; i < n; i++)
    append (stream, "\x05\x01x\0\0\0\x01", 7);
  append (stream, "\x7e\0\0\0\x09\0\x06", 7);
  length = GUINT32_TO_BE ((guint32)json->len);
  append (stream, (const char *)&length, sizeof length);
  append (stream, json->str, json->len);
}

/* What is repeated in what is repeated is bounded by the number of steps; below the bound it is in order. */
static void
test_many_steps (void)
{
  g_autoptr (FakeStream) few = fake_stream_new (&variants[0]), many = fake_stream_new (&variants[0]);
  g_autoptr (Walks) good = NULL, stopped = NULL;

  make_stepper (few, 100);
  good = walk (few->bytes->data, few->bytes->len, 0);
  assert_good (good);
  g_assert_cmpuint (hf_stream_map_find (good->tail, "a")->subsections->len, ==, 100);
  make_stepper (many, 6000);
  stopped = walk (many->bytes->data, many->bytes->len, 0);
  assert_fails (stopped->tail_error, HF_STREAM_ERROR_MALFORMED, "steps");
  assert_fails (stopped->forward_error, HF_STREAM_ERROR_MALFORMED, "steps");
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  for (guint i = 0; i < G_N_ELEMENTS (variants); i++) {
    g_autofree char *whole = g_strdup_printf ("/stream/walks/whole/%u", i);
    g_autofree char *cut = g_strdup_printf ("/stream/walks/cut-at-boundaries/%u", i);

    g_test_add_data_func (whole, &variants[i], test_whole);
    g_test_add_data_func (cut, &variants[i], test_cut_at_boundaries);
  }
  g_test_add_func ("/stream/walks/subsections", test_subsections);
  g_test_add_func ("/stream/walks/cut-anywhere", test_cut_anywhere);
  g_test_add_func ("/stream/walks/without-description", test_without_description);
  g_test_add_data_func ("/stream/walks/flips", &smallest, test_flips);
  g_test_add_func ("/stream/walks/only-forward-notices", test_only_forward_notices);
  g_test_add_func ("/stream/walks/only-tail-notices", test_only_tail_notices);
  g_test_add_func ("/stream/walks/one-misreads", test_one_misreads);
  g_test_add_func ("/stream/walks/disagreement", test_disagreement);
  g_test_add_func ("/stream/walks/early-device", test_early_device);
  g_test_add_func ("/stream/walks/other-iterable", test_other_iterable);
  g_test_add_func ("/stream/walks/configuration-limits", test_configuration_limits);
  g_test_add_func ("/stream/walks/ram-limit", test_ram_limit);
  g_test_add_func ("/stream/walks/xbzrle", test_xbzrle);
  g_test_add_func ("/stream/walks/decoy", test_decoy);
  g_test_add_func ("/stream/walks/bad-descriptions", test_bad_descriptions);
  g_test_add_func ("/stream/walks/hostile-descriptions", test_hostile_descriptions);
  g_test_add_func ("/stream/walks/many-steps", test_many_steps);
  return g_test_run ();
}
