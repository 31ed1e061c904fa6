/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What --trace switches on: one line for each event, for whoever looks for a fault. Thread: main.
 */

#include <glib.h>

typedef enum { HF_TRACE_CLIENT_CONNECT, HF_TRACE_CLIENT_CLOSE, HF_TRACE_REQUEST, HF_TRACE_REPLY } HfTraceEvent;
#define HF_N_TRACE_EVENTS (HF_TRACE_REPLY + 1)

/* QEMU's syntax: [[enable=]PATTERN][,events=FILE][,file=FILE]. PATTERN is a glob, with '-' before it what it matches is switched
   off; events: a file with one pattern on each line; file: where the lines go instead of standard error. May be called several
   times. FALSE with G_IO_ERROR or G_OPTION_ERROR. */
gboolean hf_trace_add (const char *specification, GError **error);

/* "pr_helper_request", one on each line. Free with g_free. */
char *hf_trace_list (void);

void hf_trace (HfTraceEvent event, const char *format, ...) G_GNUC_PRINTF (2, 3);
