/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Positioned reads and writes that move all bytes or say what is missing. The names and return values are those of QEMU 11.1's
 * qio_channel_preadv_all_eof and its family (include/io/channel.h there); what QEMU leaves open is settled here:
 *
 * - A short transfer is continued. EINTR is repeated. EAGAIN is waited for, up to HF_IO_PATIENCE_MS without any progress.
 * - A write that moves nothing is an error at once. A read that moves nothing is the end of the file.
 * - A negative offset, a sum of lengths or an end beyond G_MAXINT64 is refused before the first system call. Length 0 succeeds
 *   without a system call, also behind the end of the file.
 * - More elements than the system takes (IOV_MAX) and more bytes than it moves in one call (0x7ffff000) are split.
 * - The caller's iovec is never written to. The file position is neither used nor moved.
 * - On a descriptor with O_DIRECT a short transfer that ends off the alignment is rounded down and done again from there; if that
 *   makes no progress, the call fails. What lies between is written twice with the same bytes. A read that ends off the alignment
 *   because the file ends there is the end of the file.
 * - done (may be NULL) is always set: how many bytes from offset on were certainly moved, on failure too.
 * - No call fails without an error or succeeds with one. A message names the operation, offset, bytes wanted and moved, and
 *   cause.
 *
 * Thread: any; several may share a descriptor. The calls block.
 */

#include <glib.h>
#include <holdfast/scsi.h>
#include <sys/uio.h>

G_BEGIN_DECLS

#define HF_IO_PATIENCE_MS 30000

#define HF_IO_ERROR (hf_io_error_quark ())
HF_PUBLIC GQuark hf_io_error_quark (void);

typedef enum {
  HF_IO_ERROR_ARGUMENT,  /* offset or length cannot be, or are not aligned as O_DIRECT needs it (EINVAL); nothing was done */
  HF_IO_ERROR_EOF,       /* the file ends at or before offset: not one byte was read */
  HF_IO_ERROR_TRUNCATED, /* the file ends after some of the bytes */
  HF_IO_ERROR_STUCK,     /* a write moved nothing, EAGAIN did not end, or O_DIRECT made no progress */
  HF_IO_ERROR_FULL,      /* ENOSPC, EDQUOT, EFBIG, or EINVAL of O_DIRECT across RLIMIT_FSIZE */
  HF_IO_ERROR_FAILED     /* any other errno, named in the message */
} HfIoError;

/* 1: all bytes. 0: end of the file before any byte, error untouched, *done 0. -1: error set. */
HF_PUBLIC int hf_preadv_all_eof (int fd, const struct iovec *iov, gsize n_iov, gint64 offset, gsize *done, GError **error);
HF_PUBLIC int hf_pread_all_eof (int fd, void *buffer, gsize length, gint64 offset, gsize *done, GError **error);

/* 0: all bytes. -1: error set; the end of the file before any byte is HF_IO_ERROR_EOF. */
HF_PUBLIC int hf_preadv_all (int fd, const struct iovec *iov, gsize n_iov, gint64 offset, gsize *done, GError **error);
HF_PUBLIC int hf_pread_all (int fd, void *buffer, gsize length, gint64 offset, gsize *done, GError **error);
HF_PUBLIC int hf_pwritev_all (int fd, const struct iovec *iov, gsize n_iov, gint64 offset, gsize *done, GError **error);
HF_PUBLIC int hf_pwrite_all (int fd, const void *buffer, gsize length, gint64 offset, gsize *done, GError **error);

G_END_DECLS
