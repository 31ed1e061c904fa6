/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The file with our process id, locked as long as we live. Thread: main.
 */

#include <glib.h>

typedef struct _HfPidfile HfPidfile;

/* NULL with G_IO_ERROR, if another process has it, too. */
HfPidfile *hf_pidfile_new (const char *path, GError **error);

/* Removes the file. NULL is accepted. */
void hf_pidfile_free (HfPidfile *pidfile);
