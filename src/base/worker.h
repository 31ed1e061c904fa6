/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Blocking calls with a deadline that is real, although the call may sit in the kernel for ever.
 *
 * A worker is one thread that does one job at a time. The job is a block of memory that owns everything the call reads and
 * writes. A caller whose deadline passes leaves the job behind: the worker frees it when the call comes back, and is busy until
 * then.
 *
 * Thread: a worker has one caller at a time; jobs run on the worker's own thread, with all signals blocked.
 */

#include <glib.h>

typedef struct _HfWorker HfWorker;

typedef enum {
  HF_WORKER_DONE, /* the job was run and is the caller's again */
  HF_WORKER_LATE, /* the deadline passed while the job ran: the worker owns it now */
  /* an earlier, abandoned job ran until the deadline, or there is no thread to be had: this one was not begun and is the
     caller's again */
  HF_WORKER_BUSY
} HfWorkerResult;

/* run: does the job. destroy: frees an abandoned one, on the worker's thread. name: at most 15 bytes, for debuggers. */
HfWorker *hf_worker_new (const char *name, void (*run) (gpointer job), GDestroyNotify destroy);

HfWorkerResult hf_worker_run (HfWorker *worker, gpointer job, gint64 deadline);

/* Does not wait for an abandoned job: the thread ends after it. NULL is accepted. */
void hf_worker_free (HfWorker *worker);
