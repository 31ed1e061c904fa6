/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Text from bytes that a device or a peer chose: printable ASCII in one word, whatever they are.
 *
 * Thread: any; pure.
 */

#include <glib.h>

/* Printable ASCII but blank and backslash as it is, every other byte as \xNN: two different byte strings never look the same. */
void hf_text_append_escaped (GString *text, const guint8 *bytes, gsize length);

/* "6001405..." */
void hf_text_append_hex (GString *text, const guint8 *bytes, gsize length);
