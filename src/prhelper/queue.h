/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Commands waiting for their LU: those of one device in order, devices in parallel, each on a thread of its own while it has one.
 *
 * Thread: main (loop.h), which executes the short ones itself. A command is one job: it owns its descriptor and its buffers, is
 * handed to a thread whole, and comes back whole. Descriptors of clients are touched by threads only, also to be closed: behind
 * one may be a file system that never answers.
 */

#include "prhelper/peer.h"
#include "prhelper/sgio.h"

typedef struct _HfQueue HfQueue;
typedef struct _HfJob HfJob;

/* Of a device, by number. */
typedef struct {
  gboolean block; /* FALSE: a character device */
  guint major, minor;
} HfQueueNode;

/* On the main context: the answer of job. The job, its data included, is freed after the call. */
typedef void (*HfJobDone) (HfJob *job, gpointer user_data);

typedef struct {
  guint max_threads;             /* devices in use at the same time */
  guint max_threads_per_process; /* of them for one client process */
  guint max_discards_per_uid;    /* descriptors that wait to be closed; half of them for one process */
  guint short_us;                /* a read that is expected to take less is left to the main thread; 0: as measured to be good */
} HfQueueLimits;

HfQueue *hf_queue_new (const HfQueueLimits *limits);

/* Does not wait for threads; no done is called any more. */
void hf_queue_free (HfQueue *queue);

/* Takes over descriptor, and of request the list, which becomes NULL. deadline: g_get_monotonic_time scale; a command that did
   not begin by then is never sent. NULL: too many devices are in use, nothing was sent. */
HfJob *hf_queue_submit (HfQueue *queue, const HfPeer *peer, HfProtocolRequest *request, int descriptor, gint64 deadline,
                        HfJobDone done, gpointer user_data);

/* The same for a descriptor that was looked at already. */
HfJob *hf_queue_submit_to (HfQueue *queue, const HfPeer *peer, HfProtocolRequest *request, int descriptor,
                           const HfQueueNode *node, gint64 deadline, HfJobDone done, gpointer user_data);

/* Runs work (descriptor, data) in the queue of the device, on a thread; data is the job's. Afterwards, when done is called, the
   device is still the job's: nothing else is sent to it until hf_queue_continue or hf_queue_abandon, which may come later. Takes
   over descriptor. NULL: too many devices are in use; data was freed. */
HfJob *hf_queue_submit_work (HfQueue *queue, const HfPeer *peer, int descriptor, void (*work) (int descriptor, gpointer data),
                             gpointer data, GDestroyNotify destroy, HfJobDone done, gpointer user_data);
/* Sends the command on the descriptor of the work that is done. Takes over the list. */
void hf_queue_continue (HfQueue *queue, HfJob *job, HfProtocolRequest *request, gint64 deadline, HfJobDone done,
                        gpointer user_data);

/* FALSE: it waits in the queue of its device; abandoned now, it is never sent. */
gboolean hf_job_has_begun (const HfJob *job);

/* Nobody waits for job any more: done is not called. If it has not begun, it never will. */
void hf_queue_abandon (HfQueue *queue, HfJob *job);

/* FALSE: descriptor is neither a block nor a character device, and is not to be submitted: it takes no SCSI command. */
gboolean hf_queue_is_device (int descriptor, HfQueueNode *ret);

/* Closes the descriptor of a client. */
void hf_queue_discard (HfQueue *queue, const HfPeer *peer, int descriptor);

/* TRUE if so many descriptors of this process or user wait to be closed, or some for so long, that no more should be taken. */
gboolean hf_queue_is_clogged (HfQueue *queue, const HfPeer *peer);

/* Jobs that threads have begun and not ended, abandoned ones included. */
guint hf_queue_get_running (HfQueue *queue);

/* Valid inside done. */
const HfProtocolRequest *hf_job_get_request (const HfJob *job);
const HfSgioAnswer *hf_job_get_answer (const HfJob *job);
const guint8 *hf_job_get_data (const HfJob *job); /* answer's transferred bytes of PR IN */
