/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The six functions of <holdfast/io.h>, and every positioned system call of this tree.
 *
 * Thread: any; nothing is shared.
 *
 * Theory of operation: transfer.c decides, this file calls. One element goes by pread and pwrite, which need no copy in the
 * kernel.
 */

#include "config.h"

#include "stream/transfer.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

static gssize
call (const HfTransfer *transfer)
{
  const struct iovec *iov = transfer->call_iov;
  gint64 at = transfer->offset + transfer->moved;
  int n = transfer->call_n;
  gssize result;

  if (transfer->operation == HF_IO_READ)
    result = n == 1 ? pread (transfer->fd, iov->iov_base, transfer->call_length, at) : preadv (transfer->fd, iov, n, at);
  else
    result = n == 1 ? pwrite (transfer->fd, iov->iov_base, transfer->call_length, at) : pwritev (transfer->fd, iov, n, at);
  return result == -1 ? -errno : result;
}

/* The pause is for what polls ready all the time; what does not may take longer, but looks at the clock again. */
static void
wait_for_descriptor (const HfTransfer *transfer)
{
  struct pollfd descriptor = { .fd = transfer->fd, .events = transfer->operation == HF_IO_READ ? POLLIN : POLLOUT };

  g_usleep (transfer->wait_ms * (gulong)1000);
  poll (&descriptor, 1, transfer->wait_ms);
}

HfTransferState
hf_transfer_run (HfTransfer *transfer, GError **error)
{
  HfTransferState state = HF_TRANSFER_CALL;

  while (state == HF_TRANSFER_CALL || state == HF_TRANSFER_WAIT) {
    gssize result;

    if (state == HF_TRANSFER_WAIT)
      wait_for_descriptor (transfer);
    if (hf_transfer_prepare (transfer, &result))
      result = call (transfer);
    state = hf_transfer_step (transfer, result, error);
  }
  return state;
}

static HfTransferState
run (HfIoOperation operation, int fd, const struct iovec *iov, gsize n_iov, gint64 offset, gboolean eof_ok, gsize *done,
     GError **error)
{
  HfTransfer transfer;
  HfTransferState state = HF_TRANSFER_FAILED;

  if (hf_transfer_init (&transfer, operation, fd, iov, n_iov, offset, error))
    state = hf_transfer_run (&transfer, error);
  if (state == HF_TRANSFER_EOF && (!eof_ok || transfer.moved > 0)) {
    hf_transfer_set_eof (&transfer, error);
    state = HF_TRANSFER_FAILED;
  }
  if (done)
    *done = transfer.moved;
  hf_transfer_clear (&transfer);
  return state;
}

int
hf_preadv_all_eof (int fd, const struct iovec *iov, gsize n_iov, gint64 offset, gsize *done, GError **error)
{
  switch (run (HF_IO_READ, fd, iov, n_iov, offset, TRUE, done, error)) {
  case HF_TRANSFER_DONE:
    return 1;
  case HF_TRANSFER_EOF:
    return 0;
  default:
    return -1;
  }
}

int
hf_preadv_all (int fd, const struct iovec *iov, gsize n_iov, gint64 offset, gsize *done, GError **error)
{
  return run (HF_IO_READ, fd, iov, n_iov, offset, FALSE, done, error) == HF_TRANSFER_DONE ? 0 : -1;
}

int
hf_pwritev_all (int fd, const struct iovec *iov, gsize n_iov, gint64 offset, gsize *done, GError **error)
{
  return run (HF_IO_WRITE, fd, iov, n_iov, offset, FALSE, done, error) == HF_TRANSFER_DONE ? 0 : -1;
}

int
hf_pread_all_eof (int fd, void *buffer, gsize length, gint64 offset, gsize *done, GError **error)
{
  struct iovec iov = { .iov_base = buffer, .iov_len = length };

  return hf_preadv_all_eof (fd, &iov, 1, offset, done, error);
}

int
hf_pread_all (int fd, void *buffer, gsize length, gint64 offset, gsize *done, GError **error)
{
  struct iovec iov = { .iov_base = buffer, .iov_len = length };

  return hf_preadv_all (fd, &iov, 1, offset, done, error);
}

int
hf_pwrite_all (int fd, const void *buffer, gsize length, gint64 offset, gsize *done, GError **error)
{
  struct iovec iov = { .iov_base = (void *)buffer, .iov_len = length };

  return hf_pwritev_all (fd, &iov, 1, offset, done, error);
}
