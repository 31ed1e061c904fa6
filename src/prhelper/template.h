/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Addresses that are another one for each VM: %p is its process id, %n its name, %u its uuid, %% a percent sign. Pure; thread:
 * any.
 *
 * Name and uuid come from a command line that anybody may have written. They are only taken if they can be nothing but one part
 * of a path: not empty, "." or "..", valid UTF-8, and without control characters and '/', ',', ';', ':', '=', '%', which separate
 * the parts of a path or of a D-Bus address.
 */

#include <glib.h>
#include <sys/types.h>

/* TRUE: text names something of a VM (%p, %n, %u), so it has to be expanded for each. */
gboolean hf_template_is_template (const char *text);

/* FALSE with G_IO_ERROR_INVALID_ARGUMENT: an unknown word stands behind a percent sign, or nothing does. */
gboolean hf_template_check (const char *text, GError **error);

/* pid 0, name or uuid NULL: not known. Free with g_free. NULL with G_IO_ERROR_INVALID_ARGUMENT: text asks for what is not known
   or cannot be taken (the message says which and why), or is not valid. */
char *hf_template_expand (const char *text, pid_t pid, const char *name, const char *uuid, GError **error);
