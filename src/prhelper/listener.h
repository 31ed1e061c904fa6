/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The listening socket: made at a path, or inherited from systemd. Thread: main.
 */

#include <glib.h>

typedef struct _HfListener HfListener;

/* Binds to path, which must be absolute, and listens. A socket that is there is replaced, whoever listens on it, as
   qemu-pr-helper does; anything else that is there is an error. mode: of the socket, or -1: as the umask says. NULL with
   G_IO_ERROR. */
HfListener *hf_listener_new (const char *path, int mode, GError **error);

/* sd_listen_fds(3). NULL without error if we were not activated; NULL with G_IO_ERROR if we were, with something that cannot be
   used. The variables are removed from the environment. */
HfListener *hf_listener_inherit (GError **error);

/* Closes; the socket's path is removed if it was made here and is still ours. NULL is accepted. */
void hf_listener_free (HfListener *listener);

/* Does not block. Valid as long as listener. */
int hf_listener_get_fd (HfListener *listener);
