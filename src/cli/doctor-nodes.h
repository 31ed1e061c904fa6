/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What a VM's command line says about its block nodes. QMP does not tell the options pr-manager and auto-read-only of a node; the
 * words of -blockdev and -drive do.
 *
 * Thread: any; pure.
 */

#include <json-glib/json-glib.h>

/* argv of a QEMU. Returns an object: node name, or "drive:" and the id of a -drive, -> options as strings; what stands in an
   object of an object has its path with dots, as in "file.driver". Of a -drive that does not say auto-read-only, it is "on". */
JsonObject *hf_doctor_nodes (const char *const *argv);

/* The option of node, or of what it names as its "file", and so on; with or without a path before it. NULL: not given.
   ret_seen: the node itself stands on the command line. */
const char *hf_doctor_node_option (JsonObject *nodes, const char *node, const char *option, gboolean *ret_seen);
