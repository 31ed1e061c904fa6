/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * One connection: reads a request, has it executed, writes the reply, reads the next.
 *
 * Thread: main; it is a source of the default main context. Owns its socket, at most one descriptor of a client, one list of at
 * most 8192 bytes, and one reply. While a command is in flight nothing is read: what the client pipelines waits in the socket.
 */

#include "prhelper/peer.h"
#include "prhelper/vms.h"

typedef struct _HfClient HfClient;

typedef struct {
  gboolean strict;          /* refuse what qemu-pr-helper refuses: PR OUT on a read-only descriptor */
  guint timeout_ms;         /* of a command, from the whole request to the reply; then BUSY, or b/2E02 if it was sent */
  guint request_timeout_ms; /* of the client, for what it began: the greeting, a request, taking a reply; then it is closed */
  void (*closed) (HfClient *client, gpointer user_data); /* free it now or later; it does nothing more */
  gpointer user_data;
} HfClientRules;

/* Takes over socket, which must not block. rules, queue and vms must live longer. Sends the greeting. */
HfClient *hf_client_new (int socket, const HfPeer *peer, const HfClientRules *rules, HfQueue *queue, HfVms *vms);

/* Serves what was sent before this call, answers it, and then calls closed; nothing new is taken. May call closed at once.
   deadline: of all of it. */
void hf_client_stop (HfClient *client, gint64 deadline);

/* Closes at once. A command in flight goes on without a client. closed is not called. NULL is accepted. */
void hf_client_free (HfClient *client);

const HfPeer *hf_client_get_peer (HfClient *client);
