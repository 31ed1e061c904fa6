/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The control socket: JSON lines, {"id":1,"method":"save","params":{"vm":"NAME"}} -> {"id":1,"result":{...}} or
 * {"id":1,"error":{"code":"not-found","message":"..."}}; the first line, from the helper, is {"holdfast":{"version":"0.1.0",
 * "protocol":1}}. doc/control.md has the methods. This file knows lines, quotas and peers, not what a method means.
 *
 * Thread: main. Bounds: clients, bytes of a line, bytes that wait to be written; a client that goes beyond them or stalls is
 * closed. With too many calls in flight it is not read until one ends.
 */

#include "prhelper/listener.h"
#include "prhelper/peer.h"

#include <json-glib/json-glib.h>

typedef struct _HfControl HfControl;
typedef struct _HfControlCall HfControlCall;

typedef struct {
  const char *name;
  /* params: valid until the call is finished; never NULL. Finish each call exactly once, now or later. */
  void (*function) (HfControlCall *call, JsonObject *params, gpointer user_data);
} HfControlMethod;

/* Takes over listener. methods ends with name NULL. Allowed are root and the helper's own user; the socket's mode decides before
   that. */
HfControl *hf_control_new (HfListener *listener, const HfControlMethod *methods, gpointer user_data);
/* NULL is accepted. Calls may still be finished afterwards. Not from within a method. */
void hf_control_free (HfControl *control);

/* Answers and frees call. result is taken over. */
void hf_control_return (HfControlCall *call, JsonNode *result);
/* code: "bad-request", "not-found", "ambiguous", "refused", "failed" and those of doc/control.md; result: taken over, what is
   known all the same, or NULL. */
void hf_control_fail (HfControlCall *call, const char *code, const char *message, JsonNode *result);

/* From now on this client gets events (the answer comes first). */
void hf_control_watch (HfControlCall *call);
/* {"event":NAME,"data":...} to all who watch. data is taken over. */
void hf_control_publish (HfControl *control, const char *name, JsonNode *data);

/* How long a line that was begun, or an answer that is not taken, may wait; 30 s without this call. */
void hf_control_set_stall_ms (HfControl *control, guint stall_ms);
