/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The seccomp filter. Thread: main; it holds for all threads of the process, those that exist and those to come.
 */

#include <glib.h>

/* From here on only what the helper needs to serve: see sandbox.c for the list and doc/security.md for the reasons. FALSE with
 * G_IO_ERROR. */
gboolean hf_sandbox_enter (GError **error);
