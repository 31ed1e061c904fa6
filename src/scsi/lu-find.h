/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * hf_lu_find_devices on any tree, for tests.
 *
 * Thread: any; reads files only.
 */

#include <holdfast/scsi.h>

/* sysfs: "/sys". Sorted by name; free with g_strfreev. */
char **hf_lu_find_devices_below (const char *sysfs, const HfLuIdentity *identity, GError **error);
