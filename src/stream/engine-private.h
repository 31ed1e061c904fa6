/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What engine.c and its two back-ends share: the jobs, and how a back-end is driven. Nobody else includes this.
 *
 * Thread: the engine's own, but for a job between start and finish: it is the back-end's.
 */

#include "stream/engine.h"
#include "stream/transfer.h"

#define HF_ENGINE_DEPTH_MAX 256u
#define HF_ENGINE_IOV_MAX 1024u

typedef struct _HfEngineJob HfEngineJob;

struct _HfEngineJob {
  HfTransfer transfer;
  HfEngineRequest *request;
  HfTransferState state; /* set when it is over: DONE, EOF or FAILED */
  GError *error;         /* with FAILED */

  /* The back-end's. */
  GList link;
  gint64 due;
  guint slot;
};

typedef struct {
  HfEngineKind kind;
  /* NULL with HF_STREAM_ERROR_UNSUPPORTED. */
  gpointer (*open) (guint depth, GError **error);
  /* Never more than depth at a time. */
  void (*start) (gpointer state, HfEngineJob *job);
  /* A job that is over; NULL if there is none and block is FALSE. Called with at least one job started and not finished. */
  HfEngineJob *(*finish) (gpointer state, gboolean block);
  /* With no job left. */
  void (*close) (gpointer state);
} HfEngineBackend;

extern const HfEngineBackend hf_engine_ring, hf_engine_threads;
