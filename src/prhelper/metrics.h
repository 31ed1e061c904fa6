/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * --metrics FILE: what the helper knows, as text for the textfile collector of the Prometheus node exporter.
 *
 * Thread: main; the file is written on a thread of its own, so that a file system that hangs stops nobody. The file is replaced
 * as a whole, mode 0644, at most once a second after something happened and every 15 s; it stays as it is when the helper ends.
 */

#include "prhelper/vms.h"

typedef struct _HfMetrics HfMetrics;

/* path is absolute, its folder is there. vms must live longer. */
HfMetrics *hf_metrics_new (const char *path, HfVms *vms);
/* Does not wait for a file that is being written. NULL is accepted. */
void hf_metrics_free (HfMetrics *metrics);

/* A HfVmWatcher: something happened to vm. user_data: the HfMetrics; NULL: there is none. */
void hf_metrics_event (HfVm *vm, const HfVmEvent *event, gpointer user_data);

/* The text now. Free with g_free. */
char *hf_metrics_to_string (HfMetrics *metrics);
