/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns: the listening socket, the clients, the queue. Thread: main.
 *
 * Theory of operation: whoever connects is looked at (SO_PEERCRED) and either becomes a client or is closed at once. If the
 * process has no descriptors left, accept fails and the connection stays in the backlog, where poll would report it without end:
 * so the socket is not looked at for a moment.
 */
#include "config.h"

#include "prhelper/server.h"

#include "base/deadline.h"
#include "prhelper/log.h"

#include <errno.h>
#include <glib-unix.h>
#include <sys/socket.h>
#include <unistd.h>

/* Connections accepted before clients have their turn. */
#define ACCEPTS_MAX 64
#define PAUSE_MS 100
/* For all that clients had begun when we were told to stop. QEMU tries for 4 to 5 seconds to connect to whoever comes next. */
#define STOP_GRACE_MS 3000

struct _HfServer {
  HfListener *listener; /* NULL: stopped */
  HfServerRules rules;
  HfQueue *queue;
  HfVms *vms;
  GHashTable *clients; /* HfClient, a set */
  GHashTable *uids;    /* uid -> number of its clients */
  guint accept_source, pause_source;
  gboolean stopping;
  void (*ended) (gpointer user_data);
  gpointer user_data;
};

static gboolean on_connection (gint fd, GIOCondition condition, gpointer user_data);

static guint
count_uid (HfServer *server, uid_t uid, int change)
{
  gpointer key = GUINT_TO_POINTER (uid);
  guint count = GPOINTER_TO_UINT (g_hash_table_lookup (server->uids, key)) + (guint)change;

  if (change && count)
    g_hash_table_insert (server->uids, key, GUINT_TO_POINTER (count));
  else if (change)
    g_hash_table_remove (server->uids, key);
  return count;
}

static gboolean
is_listed (const GArray *list, guint id)
{
  for (guint i = 0; list && i < list->len; i++)
    if (g_array_index (list, guint, i) == id)
      return TRUE;
  return FALSE;
}

static gboolean
is_allowed (const HfServerRules *rules, const HfPeer *peer)
{
  if ((!rules->allow_uids || rules->allow_uids->len == 0) && (!rules->allow_gids || rules->allow_gids->len == 0))
    return TRUE;
  return is_listed (rules->allow_uids, peer->uid) || is_listed (rules->allow_gids, peer->gid);
}

/* Why peer may not become a client; NULL if it may. */
static const char *
refuse (HfServer *server, const HfPeer *peer)
{
  if (!is_allowed (&server->rules, peer))
    return "neither its user nor its group is allowed";
  if (g_hash_table_size (server->clients) >= server->rules.max_clients)
    return "too many clients";
  if (count_uid (server, peer->uid, 0) >= server->rules.max_clients_per_uid)
    return "too many clients of this user";
  if (hf_queue_is_clogged (server->queue, peer))
    return "its file descriptors cannot be closed";
  return NULL;
}

static void
check_ended (HfServer *server)
{
  if (server->stopping && g_hash_table_size (server->clients) == 0)
    server->ended (server->user_data);
}

static void
client_closed (HfClient *client, gpointer user_data)
{
  HfServer *server = user_data;

  count_uid (server, hf_client_get_peer (client)->uid, -1);
  g_hash_table_remove (server->clients, client);
  check_ended (server);
}

static void
take_client (HfServer *server, int fd)
{
  g_autoptr (GError) error = NULL;
  const char *why;
  HfPeer peer;

  if (!hf_peer_from_socket (fd, &peer, &error)) {
    hf_log_peer (HF_LOG_WARNING, 0, "%s", error->message);
    close (fd);
    return;
  }
  why = refuse (server, &peer);
  if (why) {
    hf_log_peer (HF_LOG_WARNING, peer.pid, "client %d (uid %u, gid %u): refused: %s", (int)peer.pid, (guint)peer.uid,
                 (guint)peer.gid, why);
    close (fd);
    return;
  }
  count_uid (server, peer.uid, 1);
  g_hash_table_add (server->clients, hf_client_new (fd, &peer, &server->rules.client, server->queue, server->vms));
}

static gboolean
on_pause_end (gpointer user_data)
{
  HfServer *server = user_data;

  server->pause_source = 0;
  server->accept_source = g_unix_fd_add (hf_listener_get_fd (server->listener), G_IO_IN, on_connection, server);
  return G_SOURCE_REMOVE;
}

static gboolean
pause_accepting (HfServer *server, int reason)
{
  hf_log_peer (HF_LOG_WARNING, 0, "a client cannot be accepted: %s", g_strerror (reason));
  server->accept_source = 0;
  server->pause_source = g_timeout_add (PAUSE_MS, on_pause_end, server);
  return G_SOURCE_REMOVE;
}

static gboolean
on_connection (gint listening, GIOCondition condition, gpointer user_data)
{
  HfServer *server = user_data;

  for (guint i = 0; i < ACCEPTS_MAX; i++) {
    int fd = accept4 (listening, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd >= 0)
      take_client (server, fd);
    else if (errno == EAGAIN)
      break;
    else if (errno != EINTR && errno != ECONNABORTED)
      return pause_accepting (server, errno);
  }
  return G_SOURCE_CONTINUE;
}

HfServer *
hf_server_new (HfListener *listener, const HfServerRules *rules, HfStore *store, void (*ended) (gpointer user_data),
               gpointer user_data)
{
  HfServer *server = g_new0 (HfServer, 1);

  server->listener = listener;
  server->rules = *rules;
  server->rules.client.closed = client_closed;
  server->rules.client.user_data = server;
  server->queue = hf_queue_new (&rules->queue);
  server->vms = hf_vms_new (&rules->vms, server->queue, store);
  server->clients = g_hash_table_new_full (NULL, NULL, (GDestroyNotify)hf_client_free, NULL);
  server->uids = g_hash_table_new (NULL, NULL);
  server->ended = ended;
  server->user_data = user_data;
  server->accept_source = g_unix_fd_add (hf_listener_get_fd (listener), G_IO_IN, on_connection, server);
  return server;
}

static void
stop_accepting (HfServer *server)
{
  g_clear_handle_id (&server->accept_source, g_source_remove);
  g_clear_handle_id (&server->pause_source, g_source_remove);
  g_clear_pointer (&server->listener, hf_listener_free);
}

void
hf_server_stop (HfServer *server)
{
  g_autoptr (GList) clients = g_hash_table_get_keys (server->clients);
  gint64 deadline = hf_deadline_after_ms (STOP_GRACE_MS);

  if (server->stopping)
    return;
  stop_accepting (server);
  /* A client that ends takes itself out of the table, and none the others. */
  for (GList *l = clients; l; l = l->next)
    hf_client_stop (l->data, deadline);
  server->stopping = TRUE;
  check_ended (server);
}

HfVms *
hf_server_get_vms (HfServer *server)
{
  return server->vms;
}

void
hf_server_free (HfServer *server)
{
  if (!server)
    return;
  stop_accepting (server);
  g_hash_table_unref (server->clients);
  hf_vms_free (server->vms);
  hf_queue_free (server->queue);
  g_hash_table_unref (server->uids);
  g_free (server);
}
