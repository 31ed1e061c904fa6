/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * One line of the control socket, {"id":1,"method":"save","params":{"vm":"NAME"}}. Thread: any; pure. Any bytes may be passed.
 */

#include <json-glib/json-glib.h>

/* A record of HF_RECORD_SIZE_MAX is 1.4 MiB in base64. */
#define HF_CONTROL_LINE_MAX (2u << 20)
/* Levels and members of a request: more than any method knows. */
#define HF_CONTROL_DEPTH_MAX 8
#define HF_CONTROL_COMMAS_MAX 64
/* Of a number: what a double holds without loss (2^53 has 16), so that an id comes back as it was. */
#define HF_CONTROL_DIGITS_MAX 15

typedef struct {
  JsonNode *id; /* a scalar; null if there was none that could be read */
  char *method;
  JsonObject *params; /* empty if there were none */
} HfControlRequest;

/* FALSE with a static string in ret_problem: then only id is set, as far as it is known. The request may be cleared after any
   result. */
gboolean hf_control_request_parse (const char *line, gsize length, HfControlRequest *ret, const char **ret_problem);
void hf_control_request_clear (HfControlRequest *request);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (HfControlRequest, hf_control_request_clear)
