/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * One positioned transfer as a machine of states, without the system call: the same for preadv, for threads and for a ring, so
 * that the contract of <holdfast/io.h> is written once. Its driver asks hf_transfer_prepare what to call, calls it, and tells
 * hf_transfer_step what came of it.
 *
 * Thread: one at a time. Errors: HF_IO_ERROR.
 */

#include "stream/fault.h"

#include <holdfast/io.h>

typedef enum {
  HF_TRANSFER_CALL, /* prepare, and make the call */
  HF_TRANSFER_WAIT, /* the same, but wait_ms later: the descriptor would block */
  HF_TRANSFER_DONE, /* all bytes */
  HF_TRANSFER_EOF,  /* a read: the file ends behind the bytes that were moved; no error is set */
  HF_TRANSFER_FAILED
} HfTransferState;

typedef struct {
  HfIoOperation operation;
  int fd;
  gint64 offset;
  const struct iovec *iov; /* the caller's */
  gsize n_iov, wanted;
  gsize moved; /* bytes from offset on that were certainly moved */

  /* The call to make, set by hf_transfer_prepare: at most IOV_MAX elements and 0x7ffff000 bytes. */
  const struct iovec *call_iov;
  guint call_n;
  gsize call_length;
  guint wait_ms; /* with HF_TRANSFER_WAIT */

  const gint *stop; /* may be NULL; atomic: not 0: no further call is made */

  /* Private. */
  gsize element, within, at; /* `within` bytes of iov[element] are before byte `at` */
  gsize clip;                /* a fault: the call counts for so many bytes at most */
  struct iovec *window;
  gsize window_size;
  struct iovec short_window[8];
  guint alignment;  /* of O_DIRECT; 0: not known yet, 1: the descriptor has no O_DIRECT */
  gboolean stalled; /* the last call made no progress */
  gint64 give_up;   /* monotonic: when EAGAIN has lasted too long; 0: there was none */
} HfTransfer;

/* iov and its buffers live until hf_transfer_clear. FALSE with HF_IO_ERROR_ARGUMENT; to be cleared in either case. */
gboolean hf_transfer_init (HfTransfer *transfer, HfIoOperation operation, int fd, const struct iovec *iov, gsize n_iov,
                           gint64 offset, GError **error);
void hf_transfer_clear (HfTransfer *transfer);

/* TRUE: the call is to be made, at offset + moved. FALSE: it is not, and *ret_result is what it gives (a fault; or nothing is
   left to move, and the result 0 is for hf_transfer_step too). */
gboolean hf_transfer_prepare (HfTransfer *transfer, gssize *ret_result);

/* result: what the call gave, a negative errno value on failure. error is set with HF_TRANSFER_FAILED only. */
HfTransferState hf_transfer_step (HfTransfer *transfer, gssize result, GError **error);

/* HF_IO_ERROR_EOF or HF_IO_ERROR_TRUNCATED, for those who do not accept HF_TRANSFER_EOF. */
void hf_transfer_set_eof (const HfTransfer *transfer, GError **error);

/* TRUE, with an error that says so, if it shall not go on (or not begin). */
gboolean hf_transfer_stopped (const HfTransfer *transfer, GError **error);
/* Sets the error of one that cannot go on because call failed. */
void hf_transfer_abandon (const HfTransfer *transfer, const char *call, int errnum, GError **error);

/* Does it all with system calls; blocks. Gives DONE, EOF or FAILED. */
HfTransferState hf_transfer_run (HfTransfer *transfer, GError **error);

/* For tests: how long EAGAIN is borne without progress, HF_IO_PATIENCE_MS at first; and the most that one call moves (a multiple
   of every alignment in use), 0x7ffff000 at first and with 0. */
void hf_transfer_set_patience (guint milliseconds);
guint hf_transfer_patience (void);
void hf_transfer_set_call_max (gsize bytes);
