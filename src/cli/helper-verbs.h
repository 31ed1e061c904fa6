/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the verbs share that have --helper[=SOCKET]: they ask holdfast-pr-helper instead of LUs. Thread: main. */

#include "cli/cli.h"
#include "cli/helper-client.h"

/* For the entries of a verb; path: a char *, freed by the verb; NULL: the option was not given. */
#define HF_HELPER_ENTRY(path)                                                                                                    \
  {                                                                                                                              \
    "helper", 0, 0, G_OPTION_ARG_FILENAME, (path),                                                                               \
        "Ask holdfast-pr-helper; its control socket is " HF_HELPER_SOCKET_DEFAULT " unless named", "SOCKET"                      \
  }

/* argv for hf_run_parse: a --helper without a socket gets the default. Free with g_strfreev. */
char **hf_helper_argv (char **argv);

/* Connects, and puts "helper" into run->object. */
HfHelper *hf_helper_open (HfRun *run, const char *path, GError **error);

/* The parameters of a call for a VM. */
JsonObject *hf_helper_params (const char *vm);

/* status --helper. */
gboolean hf_helper_status (HfRun *run, const char *path, gboolean watch, GError **error);
