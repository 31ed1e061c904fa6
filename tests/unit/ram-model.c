/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Owns: the model's memory. Thread: any, one at a time. The formats are those of QEMU's docs/devel/migration. */
#include "config.h"

#include "ram-model.h"

#include <string.h>

#define MIB (1u << 20)
#define ROUNDS 4u
#define RUNS_PER_ROUND 24u

void
ram_model_init (RamModel *model)
{
  *model = (RamModel){
    .blocks = { { "pc.ram", 700 * CS_PAGE }, { "/rom@etc/acpi/tables", 3 * CS_PAGE }, { "vga.vram", 130 * CS_PAGE } },
    .footer = TRUE
  };
  for (guint i = 0; i < RAM_MODEL_BLOCKS; i++)
    model->memory[i] = g_malloc0 (model->blocks[i].used_length);
}

void
ram_model_clear (RamModel *model)
{
  for (guint i = 0; i < RAM_MODEL_BLOCKS; i++)
    g_free (model->memory[i]);
}

/* ---- a random stream ---- */

static void
new_page (guint8 *page, GRand *random)
{
  guint32 seed = g_rand_int (random) | 1;

  for (guint i = 0; i < CS_PAGE; i += 4) {
    seed = seed * 1664525 + 1013904223;
    memcpy (page + i, &seed, 4);
  }
}

static gboolean
is_zero (const guint8 *page)
{
  return page[0] == 0 && memcmp (page, page + 1, CS_PAGE - 1) == 0;
}

/* Up to 20 changed bytes in front, further on some more: two pairs of runs, the second length of two bytes. */
static void
send_difference (GByteArray *stream, const char *id, guint64 offset, guint8 *page, GRand *random)
{
  guint front = g_rand_int_range (random, 0, 20), same = g_rand_int_range (random, 200, 2000);
  g_autoptr (GByteArray) encoded = g_byte_array_new ();

  cs_u8 (encoded, front);
  cs_u8 (encoded, 1);
  page[front] ^= 1 + g_rand_int_range (random, 0, 255);
  cs_u8 (encoded, page[front]);
  cs_u8 (encoded, 0x80 | (same & 0x7f));
  cs_u8 (encoded, same >> 7);
  cs_u8 (encoded, 2);
  for (guint i = 0; i < 2; i++) {
    page[front + 1 + same + i] ^= 0x55;
    cs_u8 (encoded, page[front + 1 + same + i]);
  }
  cs_be64 (stream, offset | CS_XBZRLE | (id ? 0 : CS_CONTINUE));
  if (id)
    cs_text (stream, id);
  cs_u8 (stream, 1);
  cs_be16 (stream, encoded->len);
  g_byte_array_append (stream, encoded->data, encoded->len);
}

/* Neighbouring pages of one block, each as a page, as zeros or as a difference. */
static void
send_run (RamModel *model, GByteArray *stream, GRand *random)
{
  guint block = g_rand_int_range (random, 0, RAM_MODEL_BLOCKS);
  guint n_pages = model->blocks[block].used_length / CS_PAGE;
  guint first = g_rand_int_range (random, 0, n_pages), n = g_rand_int_range (random, 1, g_rand_boolean (random) ? 4 : 400);
  guint zeros = g_rand_int_range (random, 0, 12);

  for (guint i = first; i < MIN (first + n, n_pages); i++) {
    const char *id = i == first ? model->blocks[block].id : NULL;
    guint8 *page = model->memory[block] + (gsize)i * CS_PAGE;
    guint kind = g_rand_int_range (random, 0, 20);

    model->n_pages++;
    if (kind < zeros) {
      memset (page, 0, CS_PAGE);
      model->n_zero++;
      cs_page (stream, id, (guint64)i * CS_PAGE, NULL);
    } else if (kind == 19 && model->xbzrle) {
      send_difference (stream, id, (guint64)i * CS_PAGE, page, random);
    } else {
      new_page (page, random);
      cs_page (stream, id, (guint64)i * CS_PAGE, page);
    }
  }
}

GByteArray *
ram_model_stream (RamModel *model, GRand *random)
{
  GByteArray *stream = g_byte_array_new ();

  cs_header (stream);
  cs_configuration (stream, "pc-q35-10.0", 0, NULL, (const guint8 *)"0123456789abcdef");
  cs_ram_start (stream, model->blocks, RAM_MODEL_BLOCKS, model->footer);
  for (guint i = 0; i < ROUNDS; i++) {
    if (i + 1 == ROUNDS && model->command)
      cs_switchover (stream);
    cs_ram_begin (stream, i + 1 < ROUNDS ? 0x02 : 0x03);
    for (guint j = 0; j < RUNS_PER_ROUND; j++)
      send_run (model, stream, random);
    cs_ram_end (stream, model->footer);
  }
  cs_devices (stream, model->footer);
  return stream;
}

/* ---- readers ---- */

typedef struct {
  const guint8 *bytes;
  gsize length, at;
  gboolean cut;
} In;

static guint64
get (In *in, guint n)
{
  guint64 value = 0;

  if (in->at > in->length || n > in->length - in->at) {
    in->cut = TRUE;
    return 0;
  }
  for (guint i = 0; i < n; i++)
    value = value << 8 | in->bytes[in->at++];
  return value;
}

static gboolean
get_is (In *in, const void *bytes, gsize n)
{
  if (in->at > in->length || n > in->length - in->at || memcmp (in->bytes + in->at, bytes, n) != 0)
    return FALSE;
  in->at += n;
  return TRUE;
}

/* Up to and with MEM_SIZE. */
static gboolean
read_head (In *in, const RamModel *model, gboolean mapped)
{
  static const char *const capability[] = { "mapped-ram", NULL };
  g_autoptr (GByteArray) head = g_byte_array_new ();
  guint64 total = 0;

  for (guint i = 0; i < RAM_MODEL_BLOCKS; i++)
    total += model->blocks[i].used_length;
  cs_header (head);
  cs_configuration (head, "pc-q35-10.0", 0, mapped ? capability : NULL, (const guint8 *)"0123456789abcdef");
  cs_section (head, 0x01, CS_RAM_ID, "ram", 0, 4);
  cs_be64 (head, total | CS_MEM_SIZE);
  return get_is (in, head->data, head->len);
}

/* What follows the pages of a mapped-ram file, or the items of a classic one, to the end. */
static gboolean
read_tail (In *in, const RamModel *model)
{
  g_autoptr (GByteArray) devices = g_byte_array_new ();

  cs_devices (devices, model->footer);
  return get_is (in, devices->data, devices->len) && in->at == in->length;
}

static char *
check_block (const RamModel *model, guint block, In *in)
{
  const CsBlock *expected = &model->blocks[block];
  g_autoptr (GByteArray) fields = g_byte_array_new ();
  guint64 version, page_size, bitmap, pages;

  cs_text (fields, expected->id);
  cs_be64 (fields, expected->used_length);
  if (!get_is (in, fields->data, fields->len))
    return g_strdup_printf ("the fields of block %u are wrong", block);
  version = get (in, 4);
  page_size = get (in, 8);
  bitmap = get (in, 8);
  pages = get (in, 8);
  if (in->cut || version != 1 || page_size != CS_PAGE || bitmap != in->at || pages % MIB || pages < bitmap || pages > in->length
      || expected->used_length > in->length - pages)
    return g_strdup_printf ("the header of block %u is wrong", block);
  for (guint64 i = 0; i < expected->used_length / CS_PAGE; i++) {
    const guint8 *want = model->memory[block] + i * CS_PAGE;
    gboolean set = in->bytes[bitmap + i / 8] >> (i % 8) & 1;

    if (set ? memcmp (in->bytes + pages + i * CS_PAGE, want, CS_PAGE) != 0 : !is_zero (want))
      return g_strdup_printf ("page %" G_GUINT64_FORMAT " of block %u (bit %d) is wrong", i, block, set);
  }
  in->at = pages + expected->used_length;
  return NULL;
}

char *
ram_model_check_mapped (const RamModel *model, const guint8 *file, gsize length, gsize start)
{
  In in = { .bytes = file, .length = length, .at = start };
  g_autoptr (GByteArray) tail = g_byte_array_new ();

  if (!read_head (&in, model, TRUE))
    return g_strdup ("the head is wrong");
  for (guint i = 0; i < RAM_MODEL_BLOCKS; i++) {
    char *problem = check_block (model, i, &in);

    if (problem)
      return problem;
  }
  cs_ram_end (tail, model->footer);
  if (model->command)
    cs_switchover (tail);
  cs_ram_begin (tail, 0x03);
  cs_ram_end (tail, model->footer);
  if (!get_is (&in, tail->data, tail->len) || !read_tail (&in, model))
    return g_strdup ("what follows the pages is wrong");
  return NULL;
}

/* One item other than EOS into memory. */
static gboolean
read_item (In *in, const RamModel *model, guint64 word, guint8 *const *memory, GArray *const *times, guint *block)
{
  guint64 offset = word & ~(guint64)(CS_PAGE - 1);
  guint kind = word & (CS_PAGE - 1) & ~(guint)CS_CONTINUE;

  if (!(word & CS_CONTINUE)) {
    for (*block = 0; *block < RAM_MODEL_BLOCKS; ++*block) {
      g_autoptr (GByteArray) id = g_byte_array_new ();

      cs_text (id, model->blocks[*block].id);
      if (get_is (in, id->data, id->len))
        break;
    }
  }
  if (*block >= RAM_MODEL_BLOCKS || offset >= model->blocks[*block].used_length)
    return FALSE;
  g_array_index (times[*block], guint, offset / CS_PAGE)++;
  if (kind == CS_ZERO) {
    memset (memory[*block] + offset, 0, CS_PAGE);
    return get (in, 1) == 0 && !in->cut;
  }
  if (kind != CS_PAGE_ITEM || in->length - in->at < CS_PAGE)
    return FALSE;
  memcpy (memory[*block] + offset, in->bytes + in->at, CS_PAGE);
  in->at += CS_PAGE;
  return TRUE;
}

/* The sections of RAM behind START, up to the end of END. */
static gboolean
read_sections (In *in, const RamModel *model, guint8 *const *memory, GArray *const *times)
{
  guint block = RAM_MODEL_BLOCKS;
  guint8 type = 0;

  while (type != 0x03) {
    guint64 word;

    type = get (in, 1);
    if (type == 0x08 && get (in, 4) == 0x000b0000)
      continue;
    if ((type != 0x02 && type != 0x03) || get (in, 4) != CS_RAM_ID)
      return FALSE;
    while ((word = get (in, 8)) != CS_EOS) {
      if (in->cut || !read_item (in, model, word, memory, times, &block))
        return FALSE;
    }
    if (model->footer && (get (in, 1) != 0x7e || get (in, 4) != CS_RAM_ID))
      return FALSE;
  }
  return !in->cut;
}

static char *
compare (const RamModel *model, guint8 *const *memory, GArray *const *times, gboolean each_once)
{
  for (guint i = 0; i < RAM_MODEL_BLOCKS; i++) {
    for (guint64 page = 0; page < model->blocks[i].used_length / CS_PAGE; page++) {
      if (memcmp (memory[i] + page * CS_PAGE, model->memory[i] + page * CS_PAGE, CS_PAGE) != 0)
        return g_strdup_printf ("page %" G_GUINT64_FORMAT " of block %u is wrong", page, i);
      if (each_once && g_array_index (times[i], guint, page) != 1)
        return g_strdup_printf ("page %" G_GUINT64_FORMAT " of block %u was sent %u times", page, i,
                                g_array_index (times[i], guint, page));
    }
  }
  return NULL;
}

char *
ram_model_check_classic (const RamModel *model, const guint8 *stream, gsize length, gboolean each_once)
{
  In in = { .bytes = stream, .length = length };
  g_autoptr (GByteArray) list = g_byte_array_new ();
  guint8 *memory[RAM_MODEL_BLOCKS];
  GArray *times[RAM_MODEL_BLOCKS];
  char *problem = NULL;

  for (guint i = 0; i < RAM_MODEL_BLOCKS; i++) {
    memory[i] = g_malloc (model->blocks[i].used_length);
    /* What a page that is not sent keeps, as the memory of firmware would. */
    memset (memory[i], each_once ? 0xaa : 0, model->blocks[i].used_length);
    times[i] = g_array_new (FALSE, TRUE, sizeof (guint));
    g_array_set_size (times[i], model->blocks[i].used_length / CS_PAGE);
    cs_text (list, model->blocks[i].id);
    cs_be64 (list, model->blocks[i].used_length);
  }
  cs_ram_end (list, model->footer);
  if (!read_head (&in, model, FALSE) || !get_is (&in, list->data, list->len))
    problem = g_strdup ("the head is wrong");
  else if (!read_sections (&in, model, memory, times) || !read_tail (&in, model))
    problem = g_strdup_printf ("the structure is wrong near offset %zu", in.at);
  else
    problem = compare (model, memory, times, each_once);
  for (guint i = 0; i < RAM_MODEL_BLOCKS; i++) {
    g_free (memory[i]);
    g_array_unref (times[i]);
  }
  return problem;
}
