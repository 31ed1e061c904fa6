/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What must hold of JSON from outside before json-glib reads it. Its parser calls itself for each level without a limit, so a row
 * of "[" ends the process; and it takes comments and other quotes, so that nobody else would see the same levels.
 *
 * Thread: any; pure.
 */

#include <glib.h>

/* TRUE: text is UTF-8 without zero bytes, its strings are those of RFC 8259, outside of them stands nothing that RFC 8259 does
   not know, and at most depth_max arrays and objects stand in each other. It may still be no JSON: that is for the parser. FALSE
   sets ret_problem (may be NULL) to a static string: "too many levels". */
gboolean hf_json_check (const char *text, gsize length, guint depth_max, const char **ret_problem);
