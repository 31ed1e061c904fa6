/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Owns: nothing. Thread: any. The format is that of QEMU's docs/devel/migration; written here apart from src/stream, on purpose.
 */
#include "config.h"

#include "classic-stream.h"

#include <string.h>

void
cs_u8 (GByteArray *stream, guint8 value)
{
  g_byte_array_append (stream, &value, 1);
}

void
cs_be16 (GByteArray *stream, guint16 value)
{
  cs_u8 (stream, value >> 8);
  cs_u8 (stream, value & 0xff);
}

void
cs_be32 (GByteArray *stream, guint32 value)
{
  cs_be16 (stream, value >> 16);
  cs_be16 (stream, value & 0xffff);
}

void
cs_be64 (GByteArray *stream, guint64 value)
{
  cs_be32 (stream, value >> 32);
  cs_be32 (stream, value & 0xffffffff);
}

static void
append_string (GByteArray *stream, const char *text)
{
  g_byte_array_append (stream, (const guint8 *)text, strlen (text));
}

void
cs_text (GByteArray *stream, const char *text)
{
  cs_u8 (stream, strlen (text));
  append_string (stream, text);
}

void
cs_header (GByteArray *stream)
{
  append_string (stream, "QEVM");
  cs_be32 (stream, 3);
}

static void
begin_subsection (GByteArray *stream, const char *name)
{
  cs_u8 (stream, 0x05);
  cs_text (stream, name);
  cs_be32 (stream, 1);
}

void
cs_configuration (GByteArray *stream, const char *machine, guint page_bits, const char *const *capabilities, const guint8 *uuid)
{
  cs_u8 (stream, 0x07);
  cs_be32 (stream, strlen (machine));
  append_string (stream, machine);
  if (page_bits > 0) {
    begin_subsection (stream, "configuration/target-page-bits");
    cs_be32 (stream, page_bits);
  }
  if (capabilities) {
    begin_subsection (stream, "configuration/capabilities");
    cs_be32 (stream, g_strv_length ((char **)capabilities));
    for (gsize i = 0; capabilities[i]; i++)
      cs_text (stream, capabilities[i]);
  }
  if (uuid) {
    begin_subsection (stream, "configuration/uuid");
    g_byte_array_append (stream, uuid, 16);
  }
}

void
cs_section (GByteArray *stream, guint8 type, guint32 section_id, const char *id, guint32 instance_id, guint32 version)
{
  cs_u8 (stream, type);
  cs_be32 (stream, section_id);
  cs_text (stream, id);
  cs_be32 (stream, instance_id);
  cs_be32 (stream, version);
}

void
cs_footer (GByteArray *stream, guint32 section_id)
{
  cs_u8 (stream, 0x7e);
  cs_be32 (stream, section_id);
}

void
cs_ram_start (GByteArray *stream, const CsBlock *blocks, guint n_blocks, gboolean footer)
{
  guint64 total = 0;

  for (guint i = 0; i < n_blocks; i++)
    total += blocks[i].used_length;
  cs_section (stream, 0x01, CS_RAM_ID, "ram", 0, 4);
  cs_be64 (stream, total | CS_MEM_SIZE);
  for (guint i = 0; i < n_blocks; i++) {
    cs_text (stream, blocks[i].id);
    cs_be64 (stream, blocks[i].used_length);
  }
  cs_ram_end (stream, footer);
}

void
cs_ram_begin (GByteArray *stream, guint8 type)
{
  cs_u8 (stream, type);
  cs_be32 (stream, CS_RAM_ID);
}

void
cs_ram_end (GByteArray *stream, gboolean footer)
{
  cs_be64 (stream, CS_EOS);
  if (footer)
    cs_footer (stream, CS_RAM_ID);
}

void
cs_page (GByteArray *stream, const char *id, guint64 offset, const guint8 *page)
{
  cs_be64 (stream, offset | (page ? CS_PAGE_ITEM : CS_ZERO) | (id ? 0 : CS_CONTINUE));
  if (id)
    cs_text (stream, id);
  if (page)
    g_byte_array_append (stream, page, CS_PAGE);
  else
    cs_u8 (stream, 0);
}

void
cs_switchover (GByteArray *stream)
{
  cs_u8 (stream, 0x08);
  cs_be16 (stream, 0x0b);
  cs_be16 (stream, 0);
}

void
cs_devices (GByteArray *stream, gboolean footer)
{
  static const char json[] =
      "{\"page_size\": 4096, \"devices\": [{\"name\": \"timer\", \"instance_id\": 0, \"vmsd_name\": \"timer\", "
      "\"version\": 2, \"fields\": [{\"name\": \"a\", \"type\": \"int64\", \"size\": 8}, "
      "{\"name\": \"b\", \"type\": \"uint32\", \"size\": 4}]}]}";

  cs_section (stream, 0x04, 0, "timer", 0, 2);
  cs_be64 (stream, 0x1122334455667788);
  cs_be32 (stream, 7);
  if (footer)
    cs_footer (stream, 0);
  cs_u8 (stream, 0x00);
  cs_u8 (stream, 0x06);
  cs_be32 (stream, strlen (json));
  append_string (stream, json);
}
