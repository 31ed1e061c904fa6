/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The engine on io_uring: one ring, and the only requests to one in this tree.
 *
 * Thread: the engine's; with IORING_SETUP_SINGLE_ISSUER the kernel insists on it.
 *
 * Theory of operation: a job is in one of three places: `flying` (it has a request in the ring), `waiting` (for the time when
 * EAGAIN is tried again) or `over`. A completion goes through hf_transfer_step like the result of a system call, and the rest of
 * a short one is a new request. Requests are given to the kernel one at a time, as they come: a transfer of 1 MiB outweighs the
 * call, and the device begins at once.
 *
 * There are never more requests than entries, so neither queue can overflow. Requests are not linked: a short result breaks the
 * chain (io_uring_enter(2)).
 */

#include "config.h"

#include "stream/engine-private.h"
#include "stream/stream-error.h"

#include <errno.h>
#include <liburing.h>

/* How long the kernel may refuse a request for lack of memory while none is in flight that could free some. */
#define REFUSED_PAUSE_US 2000

typedef struct {
  struct io_uring ring;
  int broken; /* errno with which io_uring_enter failed for good; then there is no ring any more */

  HfEngineJob **flying;
  guint n_flying;
  GQueue waiting, over; /* of jobs, linked by their own link */
  gint64 give_up;       /* monotonic: when a kernel that takes no request has had its time; 0: it takes them */
} Ring;

/* From the best for a single thread on; a kernel that does not know a flag says EINVAL (io_uring_setup(2)). */
static const unsigned setups[] = {
  IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN, /* 6.1 */
  IORING_SETUP_COOP_TASKRUN,                               /* 5.19 */
  0,
};

static int
set_up (struct io_uring *ring, guint depth)
{
  struct io_uring_params parameters;
  int result = -EINVAL;

  for (gsize i = 0; i < G_N_ELEMENTS (setups) && result == -EINVAL; i++) {
    parameters = (struct io_uring_params){ .flags = setups[i] };
    result = io_uring_queue_init_params (depth, ring, &parameters);
  }
  /* Waiting with a limit of time is part of the wait since 5.11; before, it would be one more request. */
  if (result == 0 && !(parameters.features & IORING_FEAT_EXT_ARG)) {
    io_uring_queue_exit (ring);
    result = -EOPNOTSUPP;
  }
  return result;
}

static gpointer
ring_open (guint depth, GError **error)
{
  Ring *ring = g_new0 (Ring, 1);
  int result = set_up (&ring->ring, depth);

  if (result == 0) {
    ring->flying = g_new0 (HfEngineJob *, depth);
    return ring;
  }
  g_free (ring);
  g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE, "no io_uring: %s%s", g_strerror (-result),
               result == -ENOMEM ? " (the limit of locked memory, RLIMIT_MEMLOCK, may be too low)" : "");
  return NULL;
}

static void
ring_close (gpointer state)
{
  Ring *ring = state;

  if (!ring->broken)
    io_uring_queue_exit (&ring->ring);
  g_free (ring->flying);
  g_free (ring);
}

static void
end (Ring *ring, HfEngineJob *job, HfTransferState state)
{
  job->state = state;
  g_queue_push_tail_link (&ring->over, &job->link);
}

static void
land (Ring *ring, HfEngineJob *job)
{
  HfEngineJob *last = ring->flying[--ring->n_flying];

  ring->flying[job->slot] = last;
  last->slot = job->slot;
}

/* io_uring_enter fails for good only when it is forbidden behind our back (a filter that was installed later) or on a bug. What
   is in the ring cannot be waited for then; the kernel ends it with the ring. */
static void
give_up_ring (Ring *ring, int errnum)
{
  ring->broken = errnum;
  io_uring_queue_exit (&ring->ring);
  while (ring->n_flying > 0) {
    HfEngineJob *job = ring->flying[0];

    land (ring, job);
    hf_transfer_abandon (&job->transfer, "io_uring_enter", errnum, &job->error);
    end (ring, job, HF_TRANSFER_FAILED);
  }
}

/* What the kernel does not take for now stays in the ring's own queue and is offered again. */
static gboolean
is_passing (Ring *ring, int errnum)
{
  gint64 now = g_get_monotonic_time ();

  if (errnum == EINTR || errnum == ETIME)
    return TRUE;
  if (errnum != EAGAIN && errnum != EBUSY && errnum != ENOMEM)
    return FALSE;
  if (ring->give_up == 0)
    ring->give_up = now + hf_transfer_patience () * G_TIME_SPAN_MILLISECOND;
  return now < ring->give_up;
}

static void
entered (Ring *ring, int result)
{
  if (result >= 0)
    ring->give_up = 0;
  else if (!is_passing (ring, -result))
    give_up_ring (ring, -result);
}

static void
request (Ring *ring, HfEngineJob *job)
{
  const HfTransfer *transfer = &job->transfer;
  const struct iovec *iov = transfer->call_iov;
  guint64 at = transfer->offset + transfer->moved;
  struct io_uring_sqe *sqe = io_uring_get_sqe (&ring->ring); /* there is one for each job */

  if (transfer->operation == HF_IO_READ && transfer->call_n == 1)
    io_uring_prep_read (sqe, transfer->fd, iov->iov_base, transfer->call_length, at);
  else if (transfer->operation == HF_IO_READ)
    io_uring_prep_readv (sqe, transfer->fd, iov, transfer->call_n, at);
  else if (transfer->call_n == 1)
    io_uring_prep_write (sqe, transfer->fd, iov->iov_base, transfer->call_length, at);
  else
    io_uring_prep_writev (sqe, transfer->fd, iov, transfer->call_n, at);
  io_uring_sqe_set_data (sqe, job);
  job->slot = ring->n_flying;
  ring->flying[ring->n_flying++] = job;
  entered (ring, io_uring_submit (&ring->ring));
}

/* Makes the job's next call, or ends it; state: what hf_transfer_step said, and CALL at first. */
static void
advance (Ring *ring, HfEngineJob *job, HfTransferState state)
{
  gssize result;

  while (state == HF_TRANSFER_CALL) {
    if (hf_transfer_prepare (&job->transfer, &result)) {
      request (ring, job);
      return;
    }
    state = hf_transfer_step (&job->transfer, result, &job->error);
  }
  if (state != HF_TRANSFER_WAIT) {
    end (ring, job, state);
    return;
  }
  job->due = g_get_monotonic_time () + job->transfer.wait_ms * G_TIME_SPAN_MILLISECOND;
  g_queue_push_tail_link (&ring->waiting, &job->link);
}

static void
advance_or_fail (Ring *ring, HfEngineJob *job, HfTransferState state)
{
  if (state == HF_TRANSFER_CALL && ring->broken) {
    hf_transfer_abandon (&job->transfer, "io_uring_enter", ring->broken, &job->error);
    state = HF_TRANSFER_FAILED;
  } else if (state == HF_TRANSFER_CALL && hf_transfer_stopped (&job->transfer, &job->error)) {
    state = HF_TRANSFER_FAILED;
  }
  advance (ring, job, state);
}

static void
ring_start (gpointer state, HfEngineJob *job)
{
  job->link = (GList){ .data = job };
  advance_or_fail (state, job, HF_TRANSFER_CALL);
}

/* Takes the completions that are there, without a system call. A job that goes on may break the ring. */
static void
collect (Ring *ring)
{
  struct io_uring_cqe *cqe;

  while (!ring->broken && ring->n_flying > 0 && io_uring_peek_cqe (&ring->ring, &cqe) == 0) {
    HfEngineJob *job = io_uring_cqe_get_data (cqe);
    int result = cqe->res;

    io_uring_cqe_seen (&ring->ring, cqe);
    land (ring, job);
    advance_or_fail (ring, job, hf_transfer_step (&job->transfer, result, &job->error));
  }
}

/* Those whose time has come go on. The earliest time at which another is due; 0: none waits. */
static gint64
resume (Ring *ring)
{
  gint64 now = g_get_monotonic_time (), next = 0;

  for (GList *link = ring->waiting.head, *after; link; link = after) {
    HfEngineJob *job = link->data;

    after = link->next;
    if (job->due > now)
      continue;
    g_queue_unlink (&ring->waiting, link);
    advance_or_fail (ring, job, HF_TRANSFER_CALL);
  }
  for (GList *link = ring->waiting.head; link; link = link->next) {
    gint64 due = ((HfEngineJob *)link->data)->due;

    next = next ? MIN (next, due) : due;
  }
  return next;
}

/* Until something completes, or until the time `next` (0: none). */
static void
wait_for_ring (Ring *ring, gint64 next)
{
  gint64 pause = next ? MAX (next - g_get_monotonic_time (), 1) : REFUSED_PAUSE_US;
  struct __kernel_timespec limit = { .tv_sec = pause / G_USEC_PER_SEC, .tv_nsec = pause % G_USEC_PER_SEC * 1000 };
  struct io_uring_cqe *cqe;

  if (ring->n_flying == 0 || ring->n_flying == io_uring_sq_ready (&ring->ring)) {
    /* Nothing is with the kernel: only the clock goes on. */
    g_usleep (pause);
    if (ring->n_flying > 0)
      entered (ring, io_uring_submit (&ring->ring));
    return;
  }
  if (io_uring_sq_ready (&ring->ring) > 0 || next)
    entered (ring, io_uring_submit_and_wait_timeout (&ring->ring, &cqe, 1, &limit, NULL));
  else
    entered (ring, io_uring_submit_and_wait (&ring->ring, 1));
  if (ring->give_up)
    g_usleep (REFUSED_PAUSE_US);
}

static HfEngineJob *
ring_finish (gpointer state, gboolean block)
{
  Ring *ring = state;

  for (;;) {
    GList *link;
    gint64 next;

    collect (ring);
    next = resume (ring);
    link = g_queue_pop_head_link (&ring->over);
    if (link)
      return link->data;
    if (!block)
      return NULL;
    wait_for_ring (ring, next);
  }
}

const HfEngineBackend hf_engine_ring = {
  .kind = HF_ENGINE_RING,
  .open = ring_open,
  .start = ring_start,
  .finish = ring_finish,
  .close = ring_close,
};
