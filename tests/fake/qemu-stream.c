/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns a writer of QEMU's migration stream, independent of src/stream. Any thread.
 *
 * Theory of operation: bytes and description grow side by side: each device field appends its bytes to the one and its size to
 * the other. Memory is an array of pages that the rounds change; what is sent of it follows from the seed alone.
 *
 * Sources: QEMU docs/devel/migration/main.rst and mapped-ram.rst, migration/savevm.c, migration/ram.c.
 */

#include "config.h"

#include "qemu-stream.h"

#include "base/bytes.h"

#include <string.h>

enum { SECTION_START = 1, SECTION_PART, SECTION_END, SECTION_FULL, SUBSECTION, DESCRIPTION, CONFIGURATION, COMMAND };
#define SECTION_FOOTER 0x7e
#define FLAG_ZERO 0x02u
#define FLAG_MEM_SIZE 0x04u
#define FLAG_PAGE 0x08u
#define FLAG_EOS 0x10u
#define FLAG_CONTINUE 0x20u
#define RAM_SECTION 2u
#define PAGES_ALIGN (1u << 20)

typedef struct {
  const FakeStreamOptions *options;
  FakeStream *stream;
  GString *json;
  GRand *rand;
  guint32 section; /* id of the one that is open */
  gboolean first;  /* no device, or field, so far */
  guint64 bitmaps[FAKE_N_BLOCKS], pages[FAKE_N_BLOCKS];
} Builder;

static const char *const block_ids[FAKE_N_BLOCKS] = { "pc.ram", "0000:00:02.0/vga.vram", "/rom@etc/acpi/tables" };

static void
put (Builder *b, const void *data, gsize length)
{
  g_byte_array_append (b->stream->bytes, data, (guint)length);
}

static void
put8 (Builder *b, guint8 value)
{
  put (b, &value, 1);
}

static void
put16 (Builder *b, guint16 value)
{
  guint16 be = GUINT16_TO_BE (value);
  put (b, &be, sizeof be);
}

static void
put32 (Builder *b, guint32 value)
{
  guint32 be = GUINT32_TO_BE (value);
  put (b, &be, sizeof be);
}

static void
put64 (Builder *b, guint64 value)
{
  guint64 be = GUINT64_TO_BE (value);
  put (b, &be, sizeof be);
}

static void
put_name (Builder *b, const char *name)
{
  put8 (b, (guint8)strlen (name));
  put (b, name, strlen (name));
}

static void
mark (Builder *b, const char *what)
{
  FakeBoundary boundary = { b->stream->bytes->len, what };

  g_array_append_val (b->stream->boundaries, boundary);
}

static void
begin_section (Builder *b, guint8 type, guint32 section, const char *id, guint32 version)
{
  mark (b, "section");
  put8 (b, type);
  put32 (b, section);
  b->section = section;
  if (type == SECTION_START || type == SECTION_FULL) {
    put_name (b, id);
    put32 (b, 0);
    put32 (b, version);
  }
  mark (b, "section body");
}

static void
end_section (Builder *b)
{
  mark (b, "section footer");
  if (b->options->no_footers)
    return;
  put8 (b, SECTION_FOOTER);
  put32 (b, b->section);
}

/* The framing of a subsection, in bytes alone. */
static void
put_subsection (Builder *b, const char *name)
{
  mark (b, "subsection");
  put8 (b, SUBSECTION);
  put_name (b, name);
  put32 (b, 1);
}

static void
put_configuration (Builder *b)
{
  const char *machine = b->options->machine ?: "pc-q35-10.0";

  put32 (b, 0x5145564d);
  mark (b, "header version");
  put32 (b, 3);
  mark (b, "CONFIGURATION");
  put8 (b, CONFIGURATION);
  put32 (b, (guint32)strlen (machine));
  put (b, machine, strlen (machine));
  if (b->options->page_bits && b->options->page_bits != 12) {
    put_subsection (b, "configuration/target-page-bits");
    put32 (b, b->options->page_bits);
  }
  if (b->options->mapped) {
    put_subsection (b, "configuration/capabilities");
    put32 (b, 1);
    put_name (b, "mapped-ram");
  }
  if (b->options->uuid) {
    put_subsection (b, "configuration/uuid");
    for (guint8 i = 0; i < 16; i++)
      put8 (b, 0xa0 + i);
  }
}

static guint8 *
page_of (Builder *b, guint block, guint page)
{
  return b->stream->ram[block]->data + (gsize)page * b->stream->page_size;
}

static guint
pages_in (Builder *b, guint block)
{
  return b->stream->ram[block]->len / b->stream->page_size;
}

/* Two of three pages have contents. */
static void
fill_page (Builder *b, guint8 *page)
{
  guint32 size = b->stream->page_size;

  if (g_rand_int_range (b->rand, 0, 3) == 0) {
    memset (page, 0, size);
    return;
  }
  for (guint32 i = 0; i < size; i += sizeof (guint32)) {
    guint32 word = g_rand_int (b->rand);
    memcpy (page + i, &word, sizeof word);
  }
  page[size - 1] |= 1;
}

static gboolean
is_zero (const guint8 *page, gsize size)
{
  return page[0] == 0 && memcmp (page, page + 1, size - 1) == 0;
}

static void
put_page (Builder *b, guint block, guint page, gboolean same_block)
{
  guint32 size = b->stream->page_size;
  guint64 offset = (guint64)page * size;
  const guint8 *bytes = page_of (b, block, page);
  gboolean zero = is_zero (bytes, size);

  put64 (b, offset | (zero ? FLAG_ZERO : FLAG_PAGE) | (same_block ? FLAG_CONTINUE : 0));
  if (!same_block)
    put_name (b, block_ids[block]);
  if (zero) {
    put8 (b, 0);
    return;
  }
  mark (b, "page");
  if (b->stream->first_page == 0)
    b->stream->first_page = b->stream->bytes->len;
  put (b, bytes, size);
}

/* One PART: in the first round every page, later some, changed. */
static void
put_round (Builder *b, guint round)
{
  begin_section (b, SECTION_PART, RAM_SECTION, NULL, 0);
  for (guint block = 0; block < FAKE_N_BLOCKS; block++) {
    gboolean same_block = FALSE;

    for (guint page = 0; page < pages_in (b, block); page++) {
      if (round > 0 && g_rand_int_range (b->rand, 0, 4) != 0)
        continue;
      fill_page (b, page_of (b, block, page));
      if (!b->options->mapped)
        put_page (b, block, page, same_block);
      same_block = TRUE;
    }
  }
  put64 (b, FLAG_EOS);
  end_section (b);
}

static void
put_zeros (Builder *b, gsize length)
{
  g_byte_array_set_size (b->stream->bytes, b->stream->bytes->len + (guint)length);
  memset (b->stream->bytes->data + b->stream->bytes->len - length, 0, length);
}

/* Header, room for the bitmap, gap, room for the pages. */
static void
put_mapped_block (Builder *b, guint block)
{
  guint64 length = b->stream->ram[block]->len;
  guint64 bitmap_length = (pages_in (b, block) + 63) / 64 * 8;
  guint64 header = b->stream->bytes->len;

  mark (b, "mapped-ram header");
  b->bitmaps[block] = header + 28;
  b->pages[block] = (b->bitmaps[block] + bitmap_length + PAGES_ALIGN - 1) / PAGES_ALIGN * PAGES_ALIGN;
  put32 (b, 1);
  put64 (b, b->stream->page_size);
  put64 (b, b->bitmaps[block]);
  put64 (b, b->pages[block]);
  mark (b, "bitmap");
  put_zeros (b, b->pages[block] - b->stream->bytes->len);
  mark (b, "pages");
  put_zeros (b, length);
}

static void
put_ram_start (Builder *b)
{
  guint64 total = 0;

  for (guint block = 0; block < FAKE_N_BLOCKS; block++)
    total += b->stream->ram[block]->len;
  begin_section (b, SECTION_START, RAM_SECTION, "ram", 4);
  put64 (b, total | FLAG_MEM_SIZE);
  for (guint block = 0; block < FAKE_N_BLOCKS; block++) {
    mark (b, "block");
    put_name (b, block_ids[block]);
    put64 (b, b->stream->ram[block]->len);
    if (b->options->mapped)
      put_mapped_block (b, block);
  }
  put64 (b, FLAG_EOS);
  end_section (b);
}

/* mapped-ram: the memory as it is in the end; bits in the order of a little-endian host. */
static void
fill_mapped (Builder *b)
{
  guint32 size = b->stream->page_size;

  for (guint block = 0; block < FAKE_N_BLOCKS; block++)
    for (guint page = 0; page < pages_in (b, block); page++) {
      guint64 at = b->pages[block] + (guint64)page * size;

      if (is_zero (page_of (b, block, page), size))
        continue;
      memcpy (b->stream->bytes->data + at, page_of (b, block, page), size);
      b->stream->bytes->data[b->bitmaps[block] + page / 8] |= (guint8)(1u << (page % 8));
      if (b->stream->first_page == 0)
        b->stream->first_page = at;
    }
}

static void
put_ram (Builder *b)
{
  guint n_rounds = b->options->n_rounds ?: 2;

  put_ram_start (b);
  for (guint round = 0; round < n_rounds; round++)
    put_round (b, round);
  if (!b->options->no_command) {
    mark (b, "COMMAND");
    put8 (b, COMMAND);
    put16 (b, 0x0b); /* SWITCHOVER_START */
    put16 (b, 0);
  }
  begin_section (b, SECTION_END, RAM_SECTION, NULL, 0);
  put64 (b, FLAG_EOS);
  end_section (b);
  b->stream->ram_end = b->stream->bytes->len;
  if (b->options->mapped)
    fill_mapped (b);
}

static void
describe (Builder *b, const char *comma_text)
{
  g_string_append (b->json, b->first ? comma_text + 2 : comma_text);
  b->first = FALSE;
}

static void
begin_device (Builder *b, guint32 section, const char *id, const char *vmsd_name, guint32 version)
{
  begin_section (b, SECTION_FULL, section, id, version);
  describe (b, ", {");
  g_string_append_printf (b->json, "\"name\": \"%s\", \"instance_id\": 0, \"vmsd_name\": \"%s\", \"version\": %u, \"fields\": [",
                          id, vmsd_name, version);
  b->first = TRUE;
}

static void
end_device (Builder *b, const char *brackets)
{
  g_string_append (b->json, brackets);
  b->first = FALSE;
  end_section (b);
}

/* array_len 0: no array. Bytes that are not given count up. */
static void
field (Builder *b, const char *name, const char *type, guint size, guint array_len, const void *data)
{
  describe (b, ", {");
  g_string_append_printf (b->json, "\"name\": \"%s\", ", name);
  if (array_len)
    g_string_append_printf (b->json, "\"array_len\": %u, ", array_len);
  g_string_append_printf (b->json, "\"type\": \"%s\", \"size\": %u}", type, size);
  for (guint i = 0; i < size * MAX (array_len, 1); i++)
    put8 (b, data ? ((const guint8 *)data)[i] : (guint8)(0x40 + i));
}

static void
begin_struct (Builder *b, const char *name, const char *vmsd_name)
{
  describe (b, ", {");
  g_string_append_printf (b->json, "\"name\": \"%s\", \"type\": \"struct\", \"struct\": {\"vmsd_name\": \"%s\", \"version\": 1, ",
                          name, vmsd_name);
  g_string_append (b->json, "\"fields\": [");
  b->first = TRUE;
}

static void
end_struct (Builder *b, guint size)
{
  g_string_append_printf (b->json, "]}, \"size\": %u}", size);
  b->first = FALSE;
}

/* Behind the fields of a device. */
static void
begin_subsection (Builder *b, const char *name)
{
  put_subsection (b, name);
  g_string_append_printf (b->json, "], \"subsections\": [{\"vmsd_name\": \"%s\", \"version\": 1, \"fields\": [", name);
  b->first = TRUE;
}

static void
put_timer (Builder *b)
{
  begin_device (b, 0, "timer", "timer", 2);
  field (b, "cpu_ticks_offset", "int64", 8, 0, NULL);
  field (b, "unused", "unused_buffer", 8, 0, NULL);
  field (b, "cpu_clock_offset", "int64", 8, 0, NULL);
  end_device (b, "]}");
}

static void
put_cpu (Builder *b)
{
  begin_device (b, 3, "cpu_common", "cpu_common", 1);
  field (b, "halted", "uint32", 4, 0, NULL);
  field (b, "regs", "uint64", 8, 16, NULL);
  begin_struct (b, "apic", "apic_common");
  field (b, "id", "uint8", 1, 0, NULL);
  field (b, "isr", "uint32", 4, 8, NULL);
  end_struct (b, 33);
  begin_subsection (b, "cpu_common/crash_occurred");
  field (b, "crash_occurred", "bool", 1, 0, NULL);
  end_device (b, "]}]}");
}

static void
put_dbus (Builder *b)
{
  gsize id_length = strlen (b->options->dbus_id);
  gsize length = 12 + id_length + b->options->dbus_length;
  g_autoptr (GByteArray) data = g_byte_array_new ();
  guint32 words[2] = { GUINT32_TO_BE (1), GUINT32_TO_BE ((guint32)id_length) };
  guint32 size = GUINT32_TO_BE ((guint32)length), data_length = GUINT32_TO_BE ((guint32)b->options->dbus_length);

  g_byte_array_append (data, (const guint8 *)words, sizeof words);
  g_byte_array_append (data, (const guint8 *)b->options->dbus_id, (guint)id_length);
  g_byte_array_append (data, (const guint8 *)&data_length, sizeof data_length);
  if (b->options->dbus_length)
    g_byte_array_append (data, b->options->dbus_data, (guint)b->options->dbus_length);
  begin_device (b, 4, "dbus-vmstate/dbus-vmstate", "dbus-vmstate", 0);
  field (b, "data_size", "uint32", 4, 0, &size);
  field (b, "data", "buffer", (guint)length, 0, data->data);
  end_device (b, "]}");
}

/* QEMU 11: hw/scsi/scsi-disk.c, as far as its layout goes. */
static void
put_scsi_disk (Builder *b)
{
  guint64 key = GUINT64_TO_BE (b->options->pr_key);

  begin_device (b, 5, "0000:00:01.0/0:3:1/scsi-disk", "scsi-disk", 1);
  begin_struct (b, "qdev", "SCSIDevice");
  field (b, "unit_attention.key", "uint8", 1, 0, NULL);
  field (b, "unit_attention.asc", "uint8", 1, 0, NULL);
  field (b, "unit_attention.ascq", "uint8", 1, 0, NULL);
  field (b, "sense_is_ua", "bool", 1, 0, NULL);
  field (b, "sense", "uint8", 1, 96, NULL);
  field (b, "sense_len", "uint32", 4, 0, NULL);
  field (b, "requests", "scsi-requests", 1, 0, NULL);
  end_struct (b, 105);
  field (b, "media_changed", "bool", 1, 0, NULL);
  field (b, "media_event", "bool", 1, 0, NULL);
  field (b, "eject_request", "bool", 1, 0, NULL);
  field (b, "tray_open", "bool", 1, 0, NULL);
  field (b, "tray_locked", "bool", 1, 0, NULL);
  begin_subsection (b, "scsi-disk/pr");
  field (b, "key", "uint64", 8, 0, &key);
  field (b, "resv_type", "uint8", 1, 0, &b->options->pr_type);
  end_device (b, "]}]}");
}

static void
put_description (Builder *b)
{
  g_string_append (b->json, "]}");
  if (b->options->no_description)
    return;
  mark (b, "VMDESCRIPTION");
  put8 (b, DESCRIPTION);
  put32 (b, (guint32)b->json->len);
  mark (b, "JSON");
  put (b, b->json->str, b->json->len);
}

static void
put_devices (Builder *b)
{
  g_string_append_printf (b->json, "{\"page_size\": %u, \"devices\": [", b->stream->page_size);
  b->first = TRUE;
  put_timer (b);
  put_cpu (b);
  if (b->options->dbus_id)
    put_dbus (b);
  if (b->options->pr_key)
    put_scsi_disk (b);
  b->stream->eof = b->stream->bytes->len;
  mark (b, "EOF byte");
  put8 (b, 0);
}

static void
make_ram (FakeStream *stream, guint n_pages)
{
  guint sizes[FAKE_N_BLOCKS] = { n_pages, n_pages / 4 + 1, 1 };

  for (guint block = 0; block < FAKE_N_BLOCKS; block++) {
    stream->ids[block] = block_ids[block];
    stream->ram[block] = g_byte_array_new ();
    g_byte_array_set_size (stream->ram[block], sizes[block] * stream->page_size);
    memset (stream->ram[block]->data, 0, stream->ram[block]->len);
  }
}

FakeStream *
fake_stream_new (const FakeStreamOptions *options)
{
  static const FakeStreamOptions defaults;
  FakeStream *stream = g_new0 (FakeStream, 1);
  Builder b = { .options = options ?: &defaults, .stream = stream };

  b.json = g_string_new (NULL);
  b.rand = g_rand_new_with_seed (b.options->seed);
  stream->page_size = 1u << (b.options->page_bits ?: 12);
  stream->bytes = g_byte_array_new ();
  stream->boundaries = g_array_new (FALSE, FALSE, sizeof (FakeBoundary));
  make_ram (stream, b.options->n_pages ?: 16);
  for (gsize i = 0; i < b.options->offset; i++)
    put8 (&b, 0xee);
  mark (&b, "header");
  put_configuration (&b);
  put_ram (&b);
  put_devices (&b);
  put_description (&b);
  mark (&b, "end");
  g_string_free (b.json, TRUE);
  g_rand_free (b.rand);
  return stream;
}

void
fake_stream_free (FakeStream *stream)
{
  if (!stream)
    return;
  for (guint block = 0; block < FAKE_N_BLOCKS; block++)
    g_byte_array_unref (stream->ram[block]);
  g_byte_array_unref (stream->bytes);
  g_array_unref (stream->boundaries);
  g_free (stream);
}
