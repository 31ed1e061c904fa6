/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Builds classic migration streams, byte by byte, for tests. All functions append to stream. Thread: any. */

#include <glib.h>

#define CS_PAGE 4096u
#define CS_RAM_ID 2u

enum { CS_ZERO = 0x02, CS_MEM_SIZE = 0x04, CS_PAGE_ITEM = 0x08, CS_EOS = 0x10, CS_CONTINUE = 0x20, CS_XBZRLE = 0x40 };

typedef struct {
  const char *id;
  guint64 used_length;
} CsBlock;

void cs_u8 (GByteArray *stream, guint8 value);
void cs_be16 (GByteArray *stream, guint16 value);
void cs_be32 (GByteArray *stream, guint32 value);
void cs_be64 (GByteArray *stream, guint64 value);
void cs_text (GByteArray *stream, const char *text); /* u8 length and the bytes */

/* "QEVM", version 3. */
void cs_header (GByteArray *stream);
/* capabilities (may be NULL) and uuid (may be NULL) are the subsections of these names; page_bits 0: none. */
void cs_configuration (GByteArray *stream, const char *machine, guint page_bits, const char *const *capabilities,
                       const guint8 *uuid);
/* The head of a START (0x01) or FULL (0x04) section. */
void cs_section (GByteArray *stream, guint8 type, guint32 section_id, const char *id, guint32 instance_id, guint32 version);
void cs_footer (GByteArray *stream, guint32 section_id);
/* RAM START whole, with footer. */
void cs_ram_start (GByteArray *stream, const CsBlock *blocks, guint n_blocks, gboolean footer);
/* A PART (0x02) or END (0x03) section: what lies between begin and end are items. */
void cs_ram_begin (GByteArray *stream, guint8 type);
void cs_ram_end (GByteArray *stream, gboolean footer);
/* id NULL: of the block of the item before. page NULL: a zero page. */
void cs_page (GByteArray *stream, const char *id, guint64 offset, const guint8 *page);
void cs_switchover (GByteArray *stream);
/* One device of 12 bytes, the EOF byte and the description, as QEMU ends a stream. */
void cs_devices (GByteArray *stream, gboolean footer);
