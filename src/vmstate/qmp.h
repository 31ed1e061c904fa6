/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A client of QEMU's monitor (QEMU, docs/interop/qmp-spec.rst) on a Unix socket.
 *
 * Thread: main (the default main context). Connecting is repeated until it works and again when the monitor is lost. What QEMU
 * sends is bounded (HF_QMP_LINE_MAX); a line that is no JSON object ends the connection. Nothing here blocks.
 */

#include <gio/gio.h>
#include <json-glib/json-glib.h>

#define HF_QMP_LINE_MAX (4u << 20)

#define HF_QMP_ERROR (hf_qmp_error_quark ())
GQuark hf_qmp_error_quark (void);
typedef enum {
  HF_QMP_ERROR_LOST,    /* not connected, or the connection ended: the command may have been executed */
  HF_QMP_ERROR_ANSWER,  /* QEMU's "error": class and desc stand in the message */
  HF_QMP_ERROR_TIMEOUT, /* no answer in time */
} HfQmpError;

typedef struct _HfQmp HfQmp;

typedef struct {
  /* Greeting and qmp_capabilities are done. pid: SO_PEERCRED, the process that called listen (not QEMU, if it was handed the
     socket); 0: not known. */
  void (*connected) (HfQmp *qmp, pid_t pid, gpointer user_data);
  /* data may be NULL. */
  void (*event) (HfQmp *qmp, const char *name, JsonObject *data, gpointer user_data);
  /* Once for each change from connected, or from trying, to not connected. */
  void (*lost) (HfQmp *qmp, const char *why, gpointer user_data);
} HfQmpHandlers;

/* path: of a Unix socket; "unix:" before it is accepted. retry: FALSE: one attempt, then lost. Each of handlers may be NULL.
   Callbacks come from the main loop only, and each may free the object. */
HfQmp *hf_qmp_new (const char *path, gboolean retry, const HfQmpHandlers *handlers, gpointer user_data);
/* Commands that wait get HF_QMP_ERROR_LOST. NULL is accepted. */
void hf_qmp_free (HfQmp *qmp);
const char *hf_qmp_get_path (HfQmp *qmp);
gboolean hf_qmp_is_connected (HfQmp *qmp);

/* result: QEMU's "return", valid during the call; NULL with error. */
typedef void (*HfQmpDone) (JsonNode *result, const GError *error, gpointer user_data);
/* arguments: taken over; may be NULL. done: may be NULL; called exactly once. */
void hf_qmp_execute (HfQmp *qmp, const char *command, JsonObject *arguments, guint timeout_ms, HfQmpDone done,
                     gpointer user_data);
