/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The layout of a mapped-ram file, and its CONFIGURATION.
 *
 * Owns: nothing. Thread: any; pure.
 *
 * Theory of operation: the block list is not a row of bytes as in a classic stream: behind the fields of each block lies a header
 * of 28 bytes, then its bitmap, then, from the next multiple of 1 MiB on, room for all its pages; the next block's fields follow
 * there. So every offset follows from the position of the first block and the lengths. QEMU reads the offsets from the header and
 * demands only that pages_offset is a multiple of the page size; what is written here is what QEMU 10 writes.
 *
 * Source: QEMU's docs/devel/migration/mapped-ram.rst, ram.c (mapped_ram_setup_ramblock), savevm.c (vmstate_configuration).
 */
#include "config.h"

#include "stream/mapped-ram.h"

#include "base/bytes.h"

#include <string.h>

#define HEADER_VERSION 1u
#define STREAM_HEADER_SIZE 8u

#define TYPE_SUBSECTION 0x05
#define TYPE_CONFIGURATION 0x07
#define SUBSECTION_VERSION 1u
#define CAPABILITY "mapped-ram"

/* The bitmap is an array of the host's unsigned long; 64 bits on all hosts that QEMU 9 runs on with KVM. */
#define BITMAP_WORD_BITS 64u
#define BITMAP_WORD_BYTES 8u

/* ---- layout ---- */

/* *value += term, within what a file offset can be. */
static gboolean
add_offset (guint64 *value, guint64 term)
{
  if (term > (guint64)G_MAXINT64 - *value)
    return FALSE;
  *value += term;
  return TRUE;
}

static gboolean
plan_block (HfMappedBlock *block, guint32 page_size, guint64 *position)
{
  guint64 pages = block->ram.used_length / page_size + (block->ram.used_length % page_size > 0);
  guint64 words = pages / BITMAP_WORD_BITS + (pages % BITMAP_WORD_BITS > 0);

  if (!add_offset (position, 1 + strlen (block->ram.id) + 8))
    return FALSE;
  block->header_offset = *position;
  if (!add_offset (position, HF_MAPPED_HEADER_SIZE))
    return FALSE;
  block->bitmap_offset = *position;
  block->bitmap_length = words * BITMAP_WORD_BYTES;
  if (!add_offset (position, block->bitmap_length) || !add_offset (position, HF_MAPPED_PAGES_ALIGN - 1))
    return FALSE;
  *position -= *position % HF_MAPPED_PAGES_ALIGN;
  block->pages_offset = *position;
  return add_offset (position, block->ram.used_length);
}

gboolean
hf_mapped_ram_plan (const HfRamBlock *ram, guint n_blocks, guint32 page_size, guint64 position, HfMappedBlock *blocks,
                    guint64 *ret_end, GError **error)
{
  gboolean fits = position <= G_MAXINT64;

  for (guint i = 0; fits && i < n_blocks; i++) {
    blocks[i] = (HfMappedBlock){ .ram = ram[i] };
    fits = plan_block (&blocks[i], page_size, &position);
  }
  if (!fits) {
    g_set_error_literal (error, HF_STREAM_ERROR, HF_STREAM_ERROR_MALFORMED, "the RAM blocks are larger than a file can be");
    return FALSE;
  }
  *ret_end = position;
  return TRUE;
}

static void
append_text (GByteArray *bytes, const char *text, guint8 length)
{
  g_byte_array_append (bytes, &length, 1);
  g_byte_array_append (bytes, (const guint8 *)text, length);
}

void
hf_mapped_ram_append_block (const HfMappedBlock *block, guint32 page_size, GByteArray *bytes)
{
  append_text (bytes, block->ram.id, strlen (block->ram.id));
  hf_append_be64 (bytes, block->ram.used_length);
  hf_append_be32 (bytes, HEADER_VERSION);
  hf_append_be64 (bytes, page_size);
  hf_append_be64 (bytes, block->bitmap_offset);
  hf_append_be64 (bytes, block->pages_offset);
}

/* ---- CONFIGURATION ---- */

/* What is left of the input. */
typedef struct {
  const guint8 *bytes;
  gsize left;
} Cursor;

/* NULL: so many are not there. */
static const guint8 *
take (Cursor *cursor, gsize length)
{
  const guint8 *bytes = cursor->bytes;

  if (length > cursor->left)
    return NULL;
  cursor->bytes += length;
  cursor->left -= length;
  return bytes;
}

static gboolean
take_be32 (Cursor *cursor, guint32 *ret)
{
  const guint8 *bytes = take (cursor, 4);

  *ret = bytes ? hf_get_be32 (bytes) : 0;
  return bytes != NULL;
}

typedef enum { PAGE_BITS, CAPABILITIES, UUID, N_SUBSECTIONS } SubsectionIndex;

static const struct {
  const char *name;
  gsize length; /* of the body; 0: a list of capabilities, kept without its count */
} subsections[] = {
  [PAGE_BITS] = { "configuration/target-page-bits", 4 },
  [CAPABILITIES] = { "configuration/capabilities", 0 },
  [UUID] = { "configuration/uuid", 16 },
};
G_STATIC_ASSERT (G_N_ELEMENTS (subsections) == N_SUBSECTIONS);

/* Copies the list into body without mapped-ram; ret_count: how many are left. */
static gboolean
read_capabilities (Cursor *cursor, GByteArray *body, guint32 *ret_count)
{
  guint32 count;

  if (!take_be32 (cursor, &count) || count > HF_STREAM_CAPABILITIES_MAX)
    return FALSE;
  *ret_count = 0;
  for (guint32 i = 0; i < count; i++) {
    const guint8 *length = take (cursor, 1);
    const guint8 *name = length ? take (cursor, *length) : NULL;

    if (!name || *length == 0)
      return FALSE;
    if (*length == strlen (CAPABILITY) && memcmp (name, CAPABILITY, *length) == 0)
      continue;
    append_text (body, (const char *)name, *length);
    ++*ret_count;
  }
  return TRUE;
}

/* One subsection, behind its byte 0x05. */
static gboolean
read_subsection (Cursor *cursor, GByteArray *const bodies[N_SUBSECTIONS], guint32 *n_capabilities)
{
  const guint8 *length = take (cursor, 1);
  const guint8 *name = length ? take (cursor, *length) : NULL;
  guint32 version;

  if (!name || !take_be32 (cursor, &version) || version != SUBSECTION_VERSION)
    return FALSE;
  for (guint i = 0; i < N_SUBSECTIONS; i++) {
    const guint8 *body;

    if (strlen (subsections[i].name) != *length || memcmp (subsections[i].name, name, *length) != 0)
      continue;
    g_byte_array_set_size (bodies[i], 0); /* QEMU too lets a second one win */
    if (i == CAPABILITIES)
      return read_capabilities (cursor, bodies[i], n_capabilities);
    body = take (cursor, subsections[i].length);
    if (body)
      g_byte_array_append (bodies[i], body, subsections[i].length);
    return body != NULL;
  }
  return FALSE;
}

static void
append_subsection (GByteArray *ret, SubsectionIndex index)
{
  static const guint8 type = TYPE_SUBSECTION;

  g_byte_array_append (ret, &type, 1);
  append_text (ret, subsections[index].name, strlen (subsections[index].name));
  hf_append_be32 (ret, SUBSECTION_VERSION);
}

/* In the order of QEMU's vmstate_configuration; one that is empty is not there. */
static void
append_subsections (GByteArray *ret, GByteArray *const bodies[N_SUBSECTIONS], guint32 n_capabilities)
{
  for (guint i = 0; i < N_SUBSECTIONS; i++) {
    if (bodies[i]->len == 0)
      continue;
    append_subsection (ret, i);
    if (i == CAPABILITIES)
      hf_append_be32 (ret, n_capabilities);
    g_byte_array_append (ret, bodies[i]->data, bodies[i]->len);
  }
}

static gboolean
rewrite (Cursor *cursor, gboolean mapped, GByteArray *const bodies[N_SUBSECTIONS], GByteArray *ret)
{
  guint32 length, n_capabilities = 0;
  const guint8 *head = cursor->bytes, *type;

  if (!take (cursor, STREAM_HEADER_SIZE + 1) || head[STREAM_HEADER_SIZE] != TYPE_CONFIGURATION || !take_be32 (cursor, &length)
      || length == 0 || length > HF_STREAM_MACHINE_MAX || !take (cursor, length))
    return FALSE;
  g_byte_array_append (ret, head, cursor->bytes - head);
  while ((type = take (cursor, 1))) {
    if (*type != TYPE_SUBSECTION || !read_subsection (cursor, bodies, &n_capabilities))
      return FALSE;
  }
  if (mapped) {
    append_text (bodies[CAPABILITIES], CAPABILITY, strlen (CAPABILITY));
    n_capabilities++;
  }
  append_subsections (ret, bodies, n_capabilities);
  return TRUE;
}

GByteArray *
hf_mapped_ram_configuration (const guint8 *bytes, gsize length, gboolean mapped, GError **error)
{
  g_autoptr (GByteArray) ret = g_byte_array_new ();
  GByteArray *bodies[N_SUBSECTIONS];
  Cursor cursor = { bytes, length };
  gboolean ok;

  /* A machine with send-configuration=off writes none; the file would not say that it is mapped-ram. */
  if (length == STREAM_HEADER_SIZE) {
    g_set_error_literal (error, HF_STREAM_ERROR, HF_STREAM_ERROR_UNSUPPORTED,
                         "the stream has no CONFIGURATION (a machine with send-configuration=off)");
    return NULL;
  }
  for (guint i = 0; i < N_SUBSECTIONS; i++)
    bodies[i] = g_byte_array_new ();
  ok = rewrite (&cursor, mapped, bodies, ret);
  for (guint i = 0; i < N_SUBSECTIONS; i++)
    g_byte_array_unref (bodies[i]);
  if (!ok) {
    g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_MALFORMED, "CONFIGURATION is wrong near offset %zu",
                 length - cursor.left);
    return NULL;
  }
  return g_steal_pointer (&ret);
}
