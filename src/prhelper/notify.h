/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Telling systemd how we are: sd_notify(3), without its library. Thread: main.
 */

#include <glib.h>

/* Connects to NOTIFY_SOCKET, if there is one, and takes it out of the environment. FALSE with G_IO_ERROR. */
gboolean hf_notify_init (GError **error);

/* "READY=1", "STOPPING=1". Does nothing if nobody wants to know. */
void hf_notify (const char *state);
