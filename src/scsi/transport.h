/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * How a command reaches an LU. One vtable, three implementations: transport-sgio.c, transport-iscsi.c, and the scripted and model
 * transports of the tests. Retries, injection, counting and identity live above it in lu.c, once.
 *
 * Thread: that of the HfLu. The object may have threads of its own.
 */

#include <holdfast/scsi.h>

typedef struct _HfTransport HfTransport;

typedef struct {
  const char *name; /* "sgio", "iscsi", "model" */

  /* Sends command once. deadline: g_get_monotonic_time scale, absolute. TRUE: ret_result has status, sense, transferred and
     residual, as the device gave them, and nothing else was touched. FALSE: HF_SCSI_ERROR_LINK, _TIMEOUT or _ANSWER. Must return
     by the deadline, whatever the device does. Logs in again first if the link was lost. Never NULL. */
  gboolean (*execute) (HfTransport *transport, const HfScsiCommand *command, gint64 deadline, HfScsiResult *ret_result,
                       GError **error);

  /* Drop the link as if it had been cut: the next execute starts a new one. For injected faults. NULL: nothing to drop. */
  void (*drop_link) (HfTransport *transport);

  /* How often the link was set up again since open. NULL: it never is. */
  guint (*get_logins) (HfTransport *transport);

  /* Our own initiator port; returns with length 0 if unknown. Never NULL. */
  void (*get_transport_id) (HfTransport *transport, HfTransportId *ret);

  /* Log out and free. Never NULL. */
  void (*free) (HfTransport *transport);
} HfTransportOps;

/* First member of every implementation's struct. */
struct _HfTransport {
  const HfTransportOps *ops;
};

/* address without a scheme: a device node. */
HfTransport *hf_transport_sgio_open (const char *path, guint timeout_ms, GError **error);
/* Takes over fd, an open block or sg node. */
HfTransport *hf_transport_sgio_from_fd (int fd, const char *name, GError **error);
/* ret_address: the URL without the password, free with g_free. */
HfTransport *hf_transport_iscsi_open (const char *url, const HfLuOptions *options, char **ret_address, GError **error);

/* A HfLu over any transport, which it takes over. address is copied. timeout_ms 0: the default. */
HfLu *hf_lu_new_for_transport (HfTransport *transport, const char *address, guint timeout_ms);

/* ---- what a HF_SCSI_ERROR knows beside its code (scsi-result.c). error may be NULL. ---- */

/* The operating system refused: reason is its errno, which sg3_utils has exit codes for. */
void hf_scsi_error_set_errno (GError **error, int reason);
/* The words of the address are malformed: a mistake of the command line. */
void hf_scsi_error_set_syntax (GError **error);
/* The LU's answer, which is copied. */
void hf_scsi_error_set_result (GError **error, const HfScsiResult *result);
/* NULL: none, or another domain. Valid as long as error. */
const HfScsiResult *hf_scsi_error_get_result (const GError *error);
