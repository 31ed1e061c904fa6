/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Owns nothing. Thread: any; pure. */

#include "config.h"

#include "scsi/scsi-text.h"

void
hf_text_append_escaped (GString *text, const guint8 *bytes, gsize length)
{
  for (gsize i = 0; i < length; i++) {
    if (bytes[i] > ' ' && bytes[i] < 0x7f && bytes[i] != '\\')
      g_string_append_c (text, bytes[i]);
    else
      g_string_append_printf (text, "\\x%02x", bytes[i]);
  }
}

void
hf_text_append_hex (GString *text, const guint8 *bytes, gsize length)
{
  for (gsize i = 0; i < length; i++)
    g_string_append_printf (text, "%02x", bytes[i]);
}
