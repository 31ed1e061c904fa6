/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The JSON description behind a QEMU stream, out of a file that nobody vouches for: json-glib with bounds before it. That both
 * walks share, and nothing else of it: where the description lies, what its members are and what they mean, each finds in its own
 * way. The functions for members are those of the tail walk; the forward walk has others (forward-json.c).
 *
 * Thread: any; pure.
 */

#include "stream/stream-error.h"

#include <json-glib/json-glib.h>

/* A VM of 55 sections has 100 KB. */
#define HF_DESCRIPTION_MAX (64u << 20)
#define HF_DESCRIPTION_LEVELS_MAX 64u
/* json-glib takes some hundred bytes for each value, whatever its text takes. That VM has some thousand. */
#define HF_DESCRIPTION_VALUES_MAX (1u << 18)

/* The root, an object with an array "devices"; free with json_node_unref. Errors: HF_STREAM_ERROR_MALFORMED. */
JsonNode *hf_description_parse (const char *text, gsize length, GError **error);

/* For the tail walk alone. NULL: there is no such member, or it is of another type. index < the array's length. */
JsonArray *hf_description_array (JsonObject *object, const char *name);
JsonObject *hf_description_object (JsonObject *object, const char *name);
JsonObject *hf_description_element (JsonArray *array, guint index);
const char *hf_description_string (JsonObject *object, const char *name);
/* FALSE: no such member, or no integer from 0 to G_MAXINT64. */
gboolean hf_description_number (JsonObject *object, const char *name, guint64 *ret);
