/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns the rules of <holdfast/io.h>: what is refused, what one call may move, what its result means.
 *
 * Thread: see transfer.h.
 *
 * Theory of operation: `moved` is the truth; the rest follows from it. Before each call the cursor (element, within) is brought
 * to it, and the call gets the caller's own elements while it can (nothing moved inside an element yet), else a private copy of
 * those that are left, so the caller's are never written to. A short result is added to moved and the next call made from there.
 *
 * O_DIRECT cannot go on at any byte. Short there means: round offset + moved down to the alignment and do the rest again (the
 * same bytes, so twice is harmless). Two calls in a row that do not get beyond where they began end it. A short read also comes
 * of the end of the file, and would then end at the same byte for ever: if the file's size says so, that is the end.
 */

#include "config.h"

#include "stream/transfer.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

/* MAX_RW_COUNT of Linux: INT_MAX rounded down to a page of 4096 (read(2)). */
#define CALL_MAX 0x7ffff000u
#define ALIGNMENT_DEFAULT 4096u
#define ALIGNMENT_MAX 65536u
/* A regular file always polls ready, so EAGAIN from one would otherwise spin. */
#define BACKOFF_MIN_MS 1u
#define BACKOFF_MAX_MS 50u

G_DEFINE_QUARK (hf - io - error - quark, hf_io_error)

static const char *const names[] = { [HF_IO_READ] = "read", [HF_IO_WRITE] = "write" };

static gint patience_ms = HF_IO_PATIENCE_MS; /* atomic */
static gsize call_max = CALL_MAX;            /* atomic */

void
hf_transfer_set_patience (guint milliseconds)
{
  g_atomic_int_set (&patience_ms, milliseconds);
}

guint
hf_transfer_patience (void)
{
  return (guint)g_atomic_int_get (&patience_ms);
}

void
hf_transfer_set_call_max (gsize bytes)
{
  __atomic_store_n (&call_max, bytes ? bytes : CALL_MAX, __ATOMIC_RELAXED);
}

/* "write at offset 4096: 512 of 8192 bytes moved: No space left on device (errno 28)" */
static G_GNUC_PRINTF (4, 5) HfTransferState
    fail (const HfTransfer *transfer, GError **error, HfIoError code, const char *format, ...)
{
  g_autofree char *why = NULL;
  va_list arguments;

  va_start (arguments, format);
  why = g_strdup_vprintf (format, arguments);
  va_end (arguments);
  g_set_error (error, HF_IO_ERROR, code,
               "%s at offset %" G_GINT64_FORMAT ": %" G_GSIZE_FORMAT " of %" G_GSIZE_FORMAT " bytes moved: %s",
               names[transfer->operation], transfer->offset, transfer->moved, transfer->wanted, why);
  return HF_TRANSFER_FAILED;
}

gboolean
hf_transfer_init (HfTransfer *transfer, HfIoOperation operation, int fd, const struct iovec *iov, gsize n_iov, gint64 offset,
                  GError **error)
{
  *transfer = (HfTransfer){ .operation = operation, .fd = fd, .offset = offset, .iov = iov, .n_iov = n_iov };
  if (offset < 0) {
    fail (transfer, error, HF_IO_ERROR_ARGUMENT, "the offset is negative");
    return FALSE;
  }
  for (gsize i = 0; i < n_iov; i++) {
    if (iov[i].iov_len > (guint64)(G_MAXINT64 - offset) - transfer->wanted) {
      fail (transfer, error, HF_IO_ERROR_ARGUMENT, "with element %" G_GSIZE_FORMAT " of %" G_GSIZE_FORMAT " bytes, the end is %s",
            i, iov[i].iov_len, "beyond the last possible offset");
      return FALSE;
    }
    transfer->wanted += iov[i].iov_len;
  }
  return TRUE;
}

void
hf_transfer_clear (HfTransfer *transfer)
{
  g_clear_pointer (&transfer->window, g_free);
}

/* Brings the cursor to `moved`, on an element that is not used up; moved < wanted, so there is one. */
static void
seek (HfTransfer *transfer)
{
  gsize left;

  if (transfer->moved < transfer->at)
    transfer->element = transfer->within = transfer->at = 0;
  left = transfer->moved - transfer->at + transfer->within;
  while (left >= transfer->iov[transfer->element].iov_len)
    left -= transfer->iov[transfer->element++].iov_len;
  transfer->within = left;
  transfer->at = transfer->moved;
}

/* How many elements, from the cursor on, a call of length bytes has, empty ones too. */
static gsize
count_elements (const HfTransfer *transfer, gsize length)
{
  gsize i = transfer->element, have = transfer->iov[i++].iov_len - transfer->within;

  while (have < length)
    have += transfer->iov[i++].iov_len;
  return i - transfer->element;
}

static struct iovec *
get_window (HfTransfer *transfer, gsize n)
{
  if (n <= G_N_ELEMENTS (transfer->short_window))
    return transfer->short_window;
  if (n > transfer->window_size) {
    g_free (transfer->window);
    transfer->window = g_new (struct iovec, n);
    transfer->window_size = n;
  }
  return transfer->window;
}

/* Aims the next call at up to limit bytes from the cursor on. */
static void
aim (HfTransfer *transfer, gsize limit)
{
  const struct iovec *from = transfer->iov + transfer->element;
  gsize n = MIN (count_elements (transfer, limit), IOV_MAX), length = 0;
  struct iovec *window;

  for (gsize i = 0; i < n; i++)
    length += from[i].iov_len;
  length -= transfer->within;
  transfer->call_n = n;
  transfer->call_length = MIN (length, limit);
  transfer->call_iov = from;
  if (transfer->within == 0 && length <= limit)
    return;
  window = get_window (transfer, n);
  memcpy (window, from, n * sizeof *window);
  window[0].iov_base = (char *)window[0].iov_base + transfer->within;
  window[0].iov_len -= transfer->within;
  window[n - 1].iov_len -= length - transfer->call_length;
  transfer->call_iov = window;
}

/* 0: the kernel, or its headers, cannot tell. */
static guint
ask_alignment (int fd)
{
#ifdef STATX_DIOALIGN
  struct statx about;

  if (statx (fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &about) == 0 && (about.stx_mask & STATX_DIOALIGN))
    return about.stx_dio_offset_align;
#endif
  return 0;
}

static guint
look_up_alignment (int fd)
{
  int flags = fcntl (fd, F_GETFL);
  guint alignment;

  if (flags < 0 || !(flags & O_DIRECT))
    return 1;
  alignment = ask_alignment (fd);
  if (alignment == 0 || alignment > ALIGNMENT_MAX || (alignment & (alignment - 1)))
    return ALIGNMENT_DEFAULT;
  return alignment;
}

static guint
get_alignment (HfTransfer *transfer)
{
  if (transfer->alignment == 0)
    transfer->alignment = look_up_alignment (transfer->fd);
  return transfer->alignment;
}

/* A device that moves fewer bytes than it was asked for: it is asked for no more, as far as O_DIRECT can be asked for that. */
static void
clip_call (HfTransfer *transfer, gsize clip)
{
  gsize alignment = get_alignment (transfer), asked = (clip + alignment - 1) / alignment * alignment;

  transfer->clip = clip;
  aim (transfer, MIN (asked, transfer->call_length));
}

gboolean
hf_transfer_prepare (HfTransfer *transfer, gssize *ret_result)
{
  gssize how;

  *ret_result = 0;
  if (transfer->moved == transfer->wanted)
    return FALSE;
  seek (transfer);
  aim (transfer, MIN (transfer->wanted - transfer->moved, __atomic_load_n (&call_max, __ATOMIC_RELAXED)));
  transfer->clip = transfer->call_length;
  how = hf_io_fault (transfer->operation, transfer->fd, transfer->offset + transfer->moved, transfer->call_length);
  *ret_result = how;
  if (how <= 0)
    return FALSE;
  if ((gsize)how < transfer->call_length)
    clip_call (transfer, how);
  return TRUE;
}

/* With some bytes of the call moved but not all. */
static gboolean
is_end_of_file (const HfTransfer *transfer)
{
  struct stat about;

  return transfer->operation == HF_IO_READ && fstat (transfer->fd, &about) == 0 && S_ISREG (about.st_mode)
         && transfer->offset + (gint64)transfer->moved >= about.st_size;
}

static HfTransferState
go_on (HfTransfer *transfer, gsize result, GError **error)
{
  gsize before = transfer->moved, over;

  transfer->moved += result;
  transfer->give_up = 0;
  if (transfer->moved == transfer->wanted)
    return HF_TRANSFER_DONE;
  over = (transfer->offset + transfer->moved) & (get_alignment (transfer) - 1);
  if (over == 0) {
    transfer->stalled = FALSE;
    return HF_TRANSFER_CALL;
  }
  if (is_end_of_file (transfer))
    return HF_TRANSFER_EOF;
  transfer->moved -= MIN (transfer->moved, over);
  if (transfer->moved > before) {
    transfer->stalled = FALSE;
    return HF_TRANSFER_CALL;
  }
  transfer->moved = MIN (before, transfer->moved);
  if (transfer->stalled)
    return fail (transfer, error, HF_IO_ERROR_STUCK,
                 "O_DIRECT gave %" G_GSIZE_FORMAT " bytes twice, which is not a multiple of %u to go on from", result,
                 transfer->alignment);
  transfer->stalled = TRUE;
  return HF_TRANSFER_CALL;
}

static HfTransferState
would_block (HfTransfer *transfer, GError **error)
{
  gint64 now = g_get_monotonic_time ();
  guint patience = hf_transfer_patience ();

  if (transfer->give_up == 0) {
    transfer->give_up = now + patience * G_TIME_SPAN_MILLISECOND;
    transfer->wait_ms = BACKOFF_MIN_MS;
    return HF_TRANSFER_WAIT;
  }
  if (now >= transfer->give_up)
    return fail (transfer, error, HF_IO_ERROR_STUCK, "no progress for %u ms: %s (errno %d)", patience, g_strerror (EAGAIN),
                 EAGAIN);
  transfer->wait_ms = MIN (transfer->wait_ms * 2, BACKOFF_MAX_MS);
  return HF_TRANSFER_WAIT;
}

/* EINVAL of O_DIRECT names no reason. */
static gboolean
is_misaligned (HfTransfer *transfer)
{
  gsize mask = get_alignment (transfer) - 1;

  if (mask == 0 || transfer->moved > 0)
    return FALSE;
  for (gsize i = 0; i < transfer->n_iov; i++)
    if ((GPOINTER_TO_SIZE (transfer->iov[i].iov_base) | transfer->iov[i].iov_len) & mask)
      return TRUE;
  return (transfer->offset & mask) != 0;
}

/* Below the process' limit O_DIRECT may find a rest that it cannot write, and calls that EINVAL too. */
static gboolean
is_over_limit (const HfTransfer *transfer)
{
  struct rlimit limit;

  return transfer->operation == HF_IO_WRITE && getrlimit (RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY
         && (guint64)transfer->offset + transfer->wanted > limit.rlim_cur;
}

static HfTransferState
failed_call (HfTransfer *transfer, int errnum, GError **error)
{
  HfIoError code = HF_IO_ERROR_FAILED;

  if (errnum == EINTR)
    return HF_TRANSFER_CALL;
  if (errnum == EAGAIN)
    return would_block (transfer, error);
  if (errnum == EINVAL && is_misaligned (transfer))
    return fail (transfer, error, HF_IO_ERROR_ARGUMENT,
                 "%s (errno %d): O_DIRECT, and offset, lengths or memory are not multiples of %u", g_strerror (errnum), errnum,
                 transfer->alignment);
  if (errnum == EINVAL && get_alignment (transfer) > 1 && is_over_limit (transfer))
    return fail (transfer, error, HF_IO_ERROR_FULL, "%s (errno %d): O_DIRECT across the limit of a file's size (RLIMIT_FSIZE)",
                 g_strerror (errnum), errnum);
  if (errnum == ENOSPC || errnum == EDQUOT || errnum == EFBIG)
    code = HF_IO_ERROR_FULL;
  return fail (transfer, error, code, "%s (errno %d)", g_strerror (errnum), errnum);
}

gboolean
hf_transfer_stopped (const HfTransfer *transfer, GError **error)
{
  if (!transfer->stop || !g_atomic_int_get (transfer->stop))
    return FALSE;
  fail (transfer, error, HF_IO_ERROR_FAILED, "not continued, because another transfer failed");
  return TRUE;
}

void
hf_transfer_abandon (const HfTransfer *transfer, const char *call, int errnum, GError **error)
{
  fail (transfer, error, HF_IO_ERROR_FAILED, "%s: %s (errno %d)", call, g_strerror (errnum), errnum);
}

HfTransferState
hf_transfer_step (HfTransfer *transfer, gssize result, GError **error)
{
  HfTransferState state;

  if (transfer->moved == transfer->wanted)
    return HF_TRANSFER_DONE;
  if (result > 0)
    state = go_on (transfer, MIN ((gsize)result, transfer->clip), error);
  else if (result < 0)
    state = failed_call (transfer, -result, error);
  else if (transfer->operation == HF_IO_READ)
    return HF_TRANSFER_EOF;
  else
    return fail (transfer, error, HF_IO_ERROR_STUCK, "the write moved nothing and named no error");
  if ((state == HF_TRANSFER_CALL || state == HF_TRANSFER_WAIT) && hf_transfer_stopped (transfer, error))
    return HF_TRANSFER_FAILED;
  return state;
}

void
hf_transfer_set_eof (const HfTransfer *transfer, GError **error)
{
  if (transfer->moved == 0)
    fail (transfer, error, HF_IO_ERROR_EOF, "the file ends at or before this offset");
  else
    fail (transfer, error, HF_IO_ERROR_TRUNCATED, "the file ends there");
}
