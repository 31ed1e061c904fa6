/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Accepts clients, within the rules, and ends when it is told to. Thread: main.
 */

#include "prhelper/client.h"
#include "prhelper/listener.h"

typedef struct {
  guint max_clients;
  guint max_clients_per_uid;
  const GArray *allow_uids; /* of uid_t */
  const GArray *allow_gids; /* of gid_t; both empty: everybody who can reach the socket */
  HfQueueLimits queue;
  HfClientRules client; /* closed and user_data are the server's */
  HfVmsRules vms;
} HfServerRules;

typedef struct _HfServer HfServer;

/* Takes over listener. store: NULL, or lives longer. ended: after hf_server_stop, when the last client is gone. */
HfServer *hf_server_new (HfListener *listener, const HfServerRules *rules, HfStore *store, void (*ended) (gpointer user_data),
                         gpointer user_data);

/* Valid as long as server. Nobody is accepted before the main loop runs. */
HfVms *hf_server_get_vms (HfServer *server);

/* No new clients; what was begun ends, within the deadlines of the rules; then ended is called, perhaps at once. */
void hf_server_stop (HfServer *server);

/* Clients that are left are closed. NULL is accepted. */
void hf_server_free (HfServer *server);
