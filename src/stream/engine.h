/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Many positioned transfers at a time, each with the contract of <holdfast/io.h>: short results are continued, EINTR repeated,
 * EAGAIN waited for within bounds, the rest of O_DIRECT done from an aligned boundary. On io_uring (one ring for each engine)
 * where the system allows it, else on threads; the same tests run on both.
 *
 * The first error wins: from then on nothing new is begun, what is in flight is waited for, and hf_engine_drain reports that
 * error; requests that are cut short by it get an error of their own that says so. Completions have no order. Links are not used:
 * a short result breaks a chain (io_uring_enter(2)), so a linked fsync proves nothing. Sync after hf_engine_drain.
 *
 * HOLDFAST_ENGINE=ring or =threads in the environment decides for HF_ENGINE_AUTO; another value is an error. What keeps a ring
 * away: a seccomp filter or kernel.io_uring_disabled (EPERM), an old kernel (ENOSYS, or before 5.11), RLIMIT_MEMLOCK (ENOMEM).
 *
 * What is not aligned on a descriptor with O_DIRECT is not looked for: the file system refuses it (HF_IO_ERROR_ARGUMENT), or does
 * it through its cache, which is slow but right.
 *
 * Thread: an engine belongs to the thread that made it; all callbacks run there, inside submit, wait and drain.
 */

#include "stream/fault.h"

#include <sys/uio.h>

typedef enum {
  HF_ENGINE_AUTO, /* as HOLDFAST_ENGINE says; without it a ring if there can be one, else threads */
  HF_ENGINE_RING,
  HF_ENGINE_THREADS
} HfEngineKind;

typedef struct _HfEngine HfEngine;
typedef struct _HfEngineRequest HfEngineRequest;

struct _HfEngineRequest {
  HfIoOperation operation;
  int fd; /* of a file or block device; a pipe has no offset, and a ring does not say so */
  gint64 offset;
  const struct iovec *iov; /* with its buffers and the request itself the engine's until done is called; not modified */
  guint n_iov;             /* at most 1024 */
  gboolean eof_ok;         /* a read: the end of the file before the last byte is no error, moved says how far it came */
  /* Called once for each accepted request, whatever became of it; may submit no more. error NULL: all bytes (or eof_ok). May be
     NULL. */
  void (*done) (HfEngineRequest *request, const GError *error);
  gpointer data; /* the caller's */

  gsize moved; /* set before done is called: bytes from offset on that were certainly moved */
};

/* depth: requests in flight at most, 1 to 256. bytes_max: bytes in flight at most; one request alone may be larger. NULL with an
   error of HF_STREAM_ERROR if the kind asked for cannot be had. */
HfEngine *hf_engine_new (HfEngineKind kind, guint depth, gsize bytes_max, GError **error);

/* Waits for what is in flight; does not call anything back. NULL is accepted. */
void hf_engine_free (HfEngine *engine);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (HfEngine, hf_engine_free)

/* HF_ENGINE_RING or HF_ENGINE_THREADS. */
HfEngineKind hf_engine_kind (const HfEngine *engine);

/* Takes the request, and waits for others first while there are too many. FALSE: not taken, done is not called, error is the
   first one of this engine. Its own done is not called before submit has returned. */
gboolean hf_engine_submit (HfEngine *engine, HfEngineRequest *request, GError **error);

/* Waits until at least one request that is in flight is done; returns at once if none is. */
void hf_engine_wait (HfEngine *engine);

/* Waits for everything in flight. FALSE with the first error since hf_engine_new; it stays. */
gboolean hf_engine_drain (HfEngine *engine, GError **error);
