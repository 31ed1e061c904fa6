/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Big-endian fields at any address, as SCSI has them. The caller has checked the bounds. Pure; any thread.
 *
 * Not <scsi/sg_unaligned.h>: its 1.46 shifts into the sign bit, which the undefined behaviour sanitizer rightly stops at.
 */

#include <glib.h>
#include <string.h>

static inline guint16
hf_get_be16 (const guint8 *bytes)
{
  guint16 be;
  memcpy (&be, bytes, sizeof be);
  return GUINT16_FROM_BE (be);
}

static inline guint32
hf_get_be32 (const guint8 *bytes)
{
  guint32 be;
  memcpy (&be, bytes, sizeof be);
  return GUINT32_FROM_BE (be);
}

static inline guint64
hf_get_be64 (const guint8 *bytes)
{
  guint64 be;
  memcpy (&be, bytes, sizeof be);
  return GUINT64_FROM_BE (be);
}

static inline void
hf_put_be16 (guint16 value, guint8 *bytes)
{
  guint16 be = GUINT16_TO_BE (value);
  memcpy (bytes, &be, sizeof be);
}

static inline void
hf_put_be32 (guint32 value, guint8 *bytes)
{
  guint32 be = GUINT32_TO_BE (value);
  memcpy (bytes, &be, sizeof be);
}

static inline void
hf_put_be64 (guint64 value, guint8 *bytes)
{
  guint64 be = GUINT64_TO_BE (value);
  memcpy (bytes, &be, sizeof be);
}

/* The same at the end of bytes. */
static inline void
hf_append_be32 (GByteArray *bytes, guint32 value)
{
  guint8 be[4];

  hf_put_be32 (value, be);
  g_byte_array_append (bytes, be, sizeof be);
}

static inline void
hf_append_be64 (GByteArray *bytes, guint64 value)
{
  guint8 be[8];

  hf_put_be64 (value, be);
  g_byte_array_append (bytes, be, sizeof be);
}
