/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A folder for the journals of one test. Thread: any.
 */

#include <glib.h>

/* Empty. Free with g_free, after remove_folder. */
char *make_state_dir (void);

/* With all that is in it. */
void remove_folder (const char *path);
