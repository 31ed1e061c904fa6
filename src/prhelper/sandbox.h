/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The seccomp filter. Thread: main; it holds for all threads of the process, those that exist and those to come.
 */

#include <glib.h>

/* What is configured beside serving clients. Each adds system calls; all FALSE is a plain qemu-pr-helper. */
typedef struct {
  gboolean state;   /* files are written: a state folder, metrics */
  gboolean devices; /* descriptors of a VM's process are copied */
  gboolean links;   /* message buses and monitors are connected to */
  gboolean control; /* a second listening socket; needs nothing more */
} HfSandboxFeatures;

/* From here on only what the helper needs to serve: see sandbox.c for the list and doc/security.md for the reasons. Sockets that
 * listen and files that are locked must be there already. FALSE with G_IO_ERROR. */
gboolean hf_sandbox_enter (const HfSandboxFeatures *features, GError **error);
