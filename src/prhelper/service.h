/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The helper at work: the server, the VMs, their journal, and the three doors beside QEMU's: message bus and monitor, control
 * socket, metrics. Thread: main.
 */

#include "prhelper/links.h"
#include "prhelper/server.h"

typedef struct {
  HfServerRules server;
  HfLinksRules links;
  const char *metrics; /* NULL: none */
} HfServiceRules;

typedef struct _HfService HfService;

/* Takes over listener, control (NULL: no control socket) and store (NULL: nothing is kept). Takes up what the store knows; what
   rules point to must live longer. NULL with G_IO_ERROR. ended: as for hf_server_new. */
HfService *hf_service_new (HfListener *listener, HfListener *control, HfStore *store, const HfServiceRules *rules,
                           void (*ended) (gpointer user_data), gpointer user_data, GError **error);
void hf_service_stop (HfService *service);
/* NULL is accepted. */
void hf_service_free (HfService *service);
