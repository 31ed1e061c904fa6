/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns: the lanes, the jobs in them, the threads. Thread: main, except job_run, job_send and job_post.
 *
 * Theory of operation: a lane is the queue of one device, found by its number, and lives while it has jobs. Its first job is at
 * work, the others wait. A thread runs one job, puts it into the inbox and wakes the main context, which answers and starts the
 * lane's next. So a device that hangs keeps one thread, and its commands, and nobody else's.
 *
 * A read of a device that has answered in microseconds so far is no matter for another thread: to wake it, and to be woken by it,
 * would take longer. The main thread executes it itself behind the turn of its loop (loop.h). If another thread is main when it
 * comes back, the job goes into the inbox like all others.
 *
 * Descriptors to be closed are jobs too, in a lane for each client process, or, if many of a user's have one, a common one of
 * that user: close(2) on a file of FUSE waits for its server. While one such job is at work the next collects descriptors. statx
 * without synchronisation, which finds the lane, never waits.
 *
 * Threads for commands are bounded, in all, for each user and for each process; beyond that a command is refused (its client
 * answers BUSY), so that a process with many dead devices cannot take all threads. The last quarter of them is for processes
 * that have none, and the last eighth for other users. Threads that close have a bound of their own.
 */
#include "config.h"

#include "prhelper/queue.h"

#include "base/deadline.h"
#include "prhelper/log.h"
#include "prhelper/loop.h"
#include "prhelper/threads.h"

#include <fcntl.h>
#include <holdfast/scsi.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* Descriptors of a process that wait to be closed: that some wait for so long is too much, too. */
#define DISCARDS_SLOW 16
#define DISCARD_SLOW_TIME (5 * G_USEC_PER_SEC)
/* Processes of a user that close at the same time. */
#define DISCARDERS_MAX 16
#define THREADS_KEPT 18
/* The kernel needs time too when a device gave no answer, to abort the command; its answer is to come before the deadline. */
#define KERNEL_SHARE_MS 5000
/* Jobs that end in one turn of the main loop; clients that pipeline would keep it for ever. */
#define BATCH_MAX 64

/* A read that is expected to be done in this time is left to the main thread; one that takes longer only if nothing else is at
   work, and the last commands were for the same device, so that nobody is likely to wait for the main thread meanwhile. What is
   expected is the mean of about the last eight, of which a slow one counts no more than SLOW_US. */
#define SHORT_US 20
#define SHORT_ALONE_US 500
#define ALONE_MIN 16
#define SLOW_US 1000
#define MEAN_OF 8
/* Devices whose speed is known. */
#define SPEEDS_MAX 256

typedef enum { LANE_BLOCK, LANE_CHARACTER, LANE_OTHER, LANE_DISCARD, LANE_DISCARD_USER } LaneKind;

typedef struct {
  guint64 kind;         /* LaneKind */
  guint64 major, minor; /* of the device; device and inode of a file; process id and start time; user id and 0 */
} LaneKey;

typedef struct {
  LaneKey key;
  GQueue jobs;    /* of HfJob; the head is running */
  gint64 started; /* when it began */
} Lane;

/* Of a device. */
typedef struct {
  LaneKey key;
  gint mean_us;
} Speed;

struct _HfJob {
  HfQueue *queue;
  Lane *lane;
  HfPeer peer;
  int descriptor;
  GArray *discards;                             /* of int; NULL: a command, or work */
  void (*work) (int descriptor, gpointer data); /* NULL: a command */
  gboolean held;                                /* the work is done */
  gpointer work_data;
  GDestroyNotify work_destroy;
  HfProtocolRequest request; /* its list is the data of PR OUT */
  guint8 *data;              /* of PR IN */
  gint64 deadline;
  HfSgioAnswer answer;
  gboolean begun, deferred;
  gint took_us;   /* of a command; -1: it was not sent */
  HfJobDone done; /* NULL: abandoned, or nobody ever waited */
  gpointer user_data;
};

struct _HfQueue {
  HfQueueLimits limits;
  GHashTable *lanes;  /* LaneKey in Lane -> Lane */
  GHashTable *speeds; /* LaneKey in Speed -> Speed */
  LaneKey last_key;   /* of the last command, and how many before it were for the same device */
  guint n_same;
  GQueue deferred; /* of HfJob, heads of their lanes: for the main thread, behind this turn of its loop */
  /* Numbers, of processes and of users. */
  GHashTable *processes, *users;          /* -> running commands */
  GHashTable *user_discards, *discarders; /* -> descriptors that wait to be closed; processes with a lane for them */
  guint n_running;
  HfThreads *threads;
  GSource *inbox_source;
  gboolean freed;

  gint references;      /* atomic: the owner and each running job */
  pthread_mutex_t lock; /* guards inbox and inbox_source against hf_queue_free; the thread sanitizer does not see GLib's locks */
  GQueue inbox;
};

static guint
lane_hash (gconstpointer data)
{
  const LaneKey *key = data;

  return (guint)(key->kind * 31 + key->major * 8191 + key->minor);
}

static gboolean
lane_equal (gconstpointer a, gconstpointer b)
{
  return memcmp (a, b, sizeof (LaneKey)) == 0;
}

static void
queue_unref (HfQueue *queue)
{
  if (!g_atomic_int_dec_and_test (&queue->references))
    return;
  pthread_mutex_destroy (&queue->lock);
  g_free (queue);
}

static void
job_free (HfJob *job)
{
  g_clear_pointer (&job->discards, g_array_unref);
  if (job->work_destroy)
    job->work_destroy (job->work_data);
  g_free (job->request.list);
  g_free (job->data);
  g_free (job);
}

/* ---- on a thread ---- */

static void
job_post (HfJob *job)
{
  HfQueue *queue = job->queue;

  pthread_mutex_lock (&queue->lock);
  if (!queue->inbox_source) {
    job_free (job);
  } else {
    g_queue_push_tail (&queue->inbox, job);
    if (queue->inbox.length == 1)
      g_source_set_ready_time (queue->inbox_source, 0);
  }
  pthread_mutex_unlock (&queue->lock);
  queue_unref (queue);
}

static gpointer
close_all (gpointer data)
{
  g_autoptr (GArray) descriptors = data;

  for (guint i = 0; i < descriptors->len; i++)
    close (g_array_index (descriptors, int, i));
  return NULL;
}

/* Sends the command, unless it is too late. */
static void
job_send (HfJob *job)
{
  gboolean out = job->request.cdb[0] == HF_PROTOCOL_PR_OUT;
  gint64 began = g_get_monotonic_time ();
  guint left_ms = (guint)hf_deadline_left_ms (job->deadline);

  job->took_us = -1;
  if (left_ms) {
    hf_sgio_execute (job->descriptor, &job->request, out ? job->request.list : job->data,
                     left_ms - MIN (left_ms / 4, KERNEL_SHARE_MS), &job->answer);
    job->took_us = (gint)MIN (g_get_monotonic_time () - began, SLOW_US);
  } else {
    job->answer.status = HF_SAM_BUSY;
  }
  close (job->descriptor);
}

static void
job_run (gpointer data)
{
  HfJob *job = data;

  if (job->discards)
    close_all (g_array_ref (job->discards));
  else if (job->work)
    job->work (job->descriptor, job->work_data);
  else
    job_send (job);
  job_post (job);
}

/* ---- on the main thread ---- */

static guint
count (GHashTable *table, gpointer key, int change)
{
  guint number = GPOINTER_TO_UINT (g_hash_table_lookup (table, key)) + (guint)change;

  if (change && number)
    g_hash_table_insert (table, key, GUINT_TO_POINTER (number));
  else if (change)
    g_hash_table_remove (table, key);
  return number;
}

/* The process id alone is no name. It has 22 bits (proc(5)); where pointers have no room for both, some are counted as one. */
static gpointer
process_key (const HfPeer *peer)
{
  return GSIZE_TO_POINTER ((gsize)(peer->start_time << 22) ^ (gsize)peer->pid);
}

static gpointer
user_key (const HfPeer *peer)
{
  return GUINT_TO_POINTER (peer->uid);
}

static void
count_running (HfQueue *queue, const HfJob *job, int change)
{
  if (job->discards)
    return;
  queue->n_running += (guint)change;
  count (queue->processes, process_key (&job->peer), change);
  count (queue->users, user_key (&job->peer), change);
}

static void
start_on_thread (HfQueue *queue, HfJob *job)
{
  job->begun = TRUE;
  g_atomic_int_inc (&queue->references);
  if (hf_threads_run (queue->threads, job, job->discards != NULL))
    return;
  hf_log_peer (HF_LOG_WARNING, job->peer.pid, "no thread can be made: a command of process %d is answered BUSY",
               (int)job->peer.pid);
  /* Nothing is sent. A discard is refused only if there is not one thread that could close. */
  job->answer.status = HF_SAM_BUSY;
  job->took_us = -1;
  if (job->discards)
    close_all (g_array_ref (job->discards));
  else if (!job->work)
    hf_queue_discard (queue, &job->peer, job->descriptor);
  job_post (job);
}

/* Only reads: how long a command takes that aborts others is not to be told by the one before. */
static gboolean
is_short (HfQueue *queue, const Lane *lane, const HfJob *job)
{
  const Speed *speed;
  gboolean alone;

  if (job->discards || job->work || job->request.cdb[0] != HF_PROTOCOL_PR_IN)
    return FALSE;
  queue->n_same = lane_equal (&queue->last_key, &lane->key) ? queue->n_same + 1 : 0;
  queue->last_key = lane->key;
  alone = queue->n_running == 1 && queue->n_same >= ALONE_MIN;
  speed = g_hash_table_lookup (queue->speeds, &lane->key);
  if (!speed || !hf_loop_can_leave ())
    return FALSE;
  return (guint)speed->mean_us < (queue->limits.short_us ? queue->limits.short_us : alone ? SHORT_ALONE_US : SHORT_US);
}

static void
lane_start (HfQueue *queue, Lane *lane)
{
  HfJob *job = g_queue_peek_head (&lane->jobs);

  lane->started = g_get_monotonic_time ();
  count_running (queue, job, 1);
  if (is_short (queue, lane, job)) {
    job->deferred = TRUE;
    g_queue_push_tail (&queue->deferred, job);
  } else {
    start_on_thread (queue, job);
  }
}

/* The next of the lane may begin. */
static void
lane_pop (HfQueue *queue, Lane *lane)
{
  const HfJob *job = g_queue_pop_head (&lane->jobs);

  if (!g_queue_is_empty (&lane->jobs)) {
    lane_start (queue, lane);
  } else {
    if (lane->key.kind == LANE_DISCARD)
      count (queue->discarders, user_key (&job->peer), -1);
    g_hash_table_remove (queue->lanes, &lane->key);
  }
}

static void
learn_speed (HfQueue *queue, const HfJob *job)
{
  Speed *speed;

  if (job->discards || job->work || job->took_us < 0)
    return;
  speed = g_hash_table_lookup (queue->speeds, &job->lane->key);
  if (speed) {
    speed->mean_us += (job->took_us - speed->mean_us) / MEAN_OF;
    return;
  }
  if (g_hash_table_size (queue->speeds) >= SPEEDS_MAX)
    g_hash_table_remove_all (queue->speeds);
  speed = g_new (Speed, 1);
  *speed = (Speed){ job->lane->key, job->took_us };
  g_hash_table_insert (queue->speeds, &speed->key, speed);
}

static void
job_end (HfJob *job)
{
  HfQueue *queue = job->queue;

  learn_speed (queue, job);
  count_running (queue, job, -1);
  if (job->discards)
    count (queue->user_discards, user_key (&job->peer), -(int)job->discards->len);
  if (job->work && job->done) {
    job->held = TRUE;
    job->done (job, job->user_data);
    return;
  }
  lane_pop (queue, job->lane);
  if (job->work)
    hf_queue_discard (queue, &job->peer, job->descriptor);
  else if (job->done)
    job->done (job, job->user_data);
  job_free (job);
}

typedef struct {
  GSource source;
  HfQueue *queue;
} InboxSource;

static HfJob *
inbox_pop (HfQueue *queue)
{
  HfJob *job;

  pthread_mutex_lock (&queue->lock);
  job = g_queue_pop_head (&queue->inbox);
  pthread_mutex_unlock (&queue->lock);
  return job;
}

/* done may free the queue, so that each job is taken from the inbox by itself. */
static gboolean
inbox_dispatch (GSource *source, GSourceFunc callback, gpointer user_data)
{
  HfQueue *queue = ((InboxSource *)source)->queue;
  HfJob *job;
  guint n = 0;

  g_source_set_ready_time (source, -1);
  g_atomic_int_inc (&queue->references);
  while (!queue->freed && (job = inbox_pop (queue)) != NULL) {
    job_end (job);
    if (++n < BATCH_MAX || queue->freed)
      continue;
    /* What is left has its turn when the others had theirs. */
    g_source_set_ready_time (source, 0);
    break;
  }
  queue_unref (queue);
  return G_SOURCE_CONTINUE;
}

static GSourceFuncs inbox_functions = { .dispatch = inbox_dispatch };

/* Behind a turn of the loop: what was left to the main thread. */
static gboolean
run_deferred (gpointer user_data)
{
  HfQueue *queue = user_data;
  gboolean more;
  HfJob *job;

  g_atomic_int_inc (&queue->references);
  for (guint n = 0; n < BATCH_MAX && !queue->freed && (job = g_queue_pop_head (&queue->deferred)) != NULL; n++) {
    job->deferred = FALSE;
    job->begun = TRUE;
    if (!hf_loop_leave ()) {
      start_on_thread (queue, job);
      continue;
    }
    job_send (job);
    if (!hf_loop_return ()) {
      job_post (job); /* our reference is the job's now */
      return FALSE;
    }
    job_end (job);
  }
  more = !queue->freed && !g_queue_is_empty (&queue->deferred);
  queue_unref (queue);
  return more;
}

static void
lane_free (gpointer data)
{
  Lane *lane = data;

  g_queue_clear (&lane->jobs);
  g_free (lane);
}

HfQueue *
hf_queue_new (const HfQueueLimits *limits)
{
  HfQueue *queue = g_new0 (HfQueue, 1);

  queue->limits = *limits;
  queue->references = 1;
  pthread_mutex_init (&queue->lock, NULL);
  g_queue_init (&queue->inbox);
  queue->lanes = g_hash_table_new_full (lane_hash, lane_equal, NULL, lane_free);
  queue->speeds = g_hash_table_new_full (lane_hash, lane_equal, NULL, g_free);
  g_queue_init (&queue->deferred);
  queue->processes = g_hash_table_new (NULL, NULL);
  queue->users = g_hash_table_new (NULL, NULL);
  queue->user_discards = g_hash_table_new (NULL, NULL);
  queue->discarders = g_hash_table_new (NULL, NULL);
  queue->threads = hf_threads_new (THREADS_KEPT, job_run);
  queue->inbox_source = g_source_new (&inbox_functions, sizeof (InboxSource));
  ((InboxSource *)queue->inbox_source)->queue = queue;
  g_source_attach (queue->inbox_source, NULL);
  hf_loop_set_behind (run_deferred, queue);
  return queue;
}

/* Jobs that wait are freed here, those at work by their threads. Their descriptors are closed elsewhere, or with the process. */
static void
free_waiting (HfQueue *queue)
{
  GArray *descriptors = g_array_new (FALSE, FALSE, sizeof (int));
  GThread *thread;
  GHashTableIter iter;
  gpointer value;

  g_hash_table_iter_init (&iter, queue->lanes);
  while (g_hash_table_iter_next (&iter, NULL, &value)) {
    Lane *lane = value;
    HfJob *job;

    while ((job = g_queue_pop_head (&lane->jobs)) != NULL) {
      if (job->begun && !job->held)
        continue;
      if (job->discards)
        g_array_append_vals (descriptors, job->discards->data, job->discards->len);
      else
        g_array_append_val (descriptors, job->descriptor);
      job_free (job);
    }
  }
  thread = g_thread_try_new ("close", close_all, descriptors, NULL);
  if (thread)
    g_thread_unref (thread);
  else
    g_array_unref (descriptors);
}

void
hf_queue_free (HfQueue *queue)
{
  if (!queue)
    return;
  queue->freed = TRUE;
  hf_loop_set_behind (NULL, NULL);
  g_queue_clear (&queue->deferred);
  free_waiting (queue);
  pthread_mutex_lock (&queue->lock);
  g_queue_clear_full (&queue->inbox, (GDestroyNotify)job_free);
  g_source_destroy (queue->inbox_source);
  g_clear_pointer (&queue->inbox_source, g_source_unref);
  pthread_mutex_unlock (&queue->lock);
  hf_threads_free (queue->threads);
  g_hash_table_unref (queue->lanes);
  g_hash_table_unref (queue->speeds);
  g_hash_table_unref (queue->processes);
  g_hash_table_unref (queue->users);
  g_hash_table_unref (queue->user_discards);
  g_hash_table_unref (queue->discarders);
  queue_unref (queue);
}

/* statx that asks the file system nothing: type and device number are in memory once a descriptor exists. */
static LaneKey
find_key (int descriptor)
{
  struct statx status = { 0 };

  if (statx (descriptor, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, 0, &status) < 0)
    memset (&status, 0, sizeof status);
  if (S_ISBLK (status.stx_mode) || S_ISCHR (status.stx_mode))
    return (LaneKey){ S_ISBLK (status.stx_mode) ? LANE_BLOCK : LANE_CHARACTER, status.stx_rdev_major, status.stx_rdev_minor };
  return (LaneKey){ LANE_OTHER, makedev (status.stx_dev_major, status.stx_dev_minor), status.stx_ino };
}

static Lane *
lane_get (HfQueue *queue, const LaneKey *key)
{
  Lane *lane = g_hash_table_lookup (queue->lanes, key);

  if (lane)
    return lane;
  lane = g_new0 (Lane, 1);
  lane->key = *key;
  g_queue_init (&lane->jobs);
  g_hash_table_insert (queue->lanes, &lane->key, lane);
  return lane;
}

static void
lane_push (HfQueue *queue, const LaneKey *key, HfJob *job)
{
  Lane *lane = lane_get (queue, key);

  job->lane = lane;
  g_queue_push_tail (&lane->jobs, job);
  if (lane->jobs.length == 1)
    lane_start (queue, lane);
}

static gboolean
may_start (HfQueue *queue, const LaneKey *key, const HfPeer *peer)
{
  guint max = queue->limits.max_threads, in_use;

  if (g_hash_table_contains (queue->lanes, key))
    return TRUE;
  if (queue->n_running >= max || count (queue->users, user_key (peer), 0) >= max - max / 8)
    return FALSE;
  /* Processes that cannot be told apart are not counted as one. */
  in_use = peer->pid ? count (queue->processes, process_key (peer), 0) : 0;
  return in_use < queue->limits.max_threads_per_process && (in_use == 0 || queue->n_running < max - max / 4);
}

static void
take_request (HfJob *job, HfProtocolRequest *request)
{
  job->request = *request;
  request->list = NULL;
  if (request->cdb[0] == HF_PROTOCOL_PR_IN && request->length)
    job->data = g_malloc0 (request->length);
}

static HfJob *
submit (HfQueue *queue, const LaneKey *key, const HfPeer *peer, HfProtocolRequest *request, int descriptor, gint64 deadline,
        HfJobDone done, gpointer user_data)
{
  HfJob *job;

  if (!may_start (queue, key, peer)) {
    hf_queue_discard (queue, peer, descriptor);
    return NULL;
  }
  job = g_new0 (HfJob, 1);
  job->queue = queue;
  job->peer = *peer;
  job->descriptor = descriptor;
  take_request (job, request);
  job->deadline = deadline;
  job->done = done;
  job->user_data = user_data;
  lane_push (queue, key, job);
  return job;
}

HfJob *
hf_queue_submit (HfQueue *queue, const HfPeer *peer, HfProtocolRequest *request, int descriptor, gint64 deadline, HfJobDone done,
                 gpointer user_data)
{
  LaneKey key = find_key (descriptor);

  return submit (queue, &key, peer, request, descriptor, deadline, done, user_data);
}

HfJob *
hf_queue_submit_to (HfQueue *queue, const HfPeer *peer, HfProtocolRequest *request, int descriptor, const HfQueueNode *node,
                    gint64 deadline, HfJobDone done, gpointer user_data)
{
  LaneKey key = { node->block ? LANE_BLOCK : LANE_CHARACTER, node->major, node->minor };

  return submit (queue, &key, peer, request, descriptor, deadline, done, user_data);
}

HfJob *
hf_queue_submit_work (HfQueue *queue, const HfPeer *peer, int descriptor, void (*work) (int descriptor, gpointer data),
                      gpointer data, GDestroyNotify destroy, HfJobDone done, gpointer user_data)
{
  HfJob *job = g_new0 (HfJob, 1);
  LaneKey key = find_key (descriptor);

  job->queue = queue;
  job->peer = *peer;
  job->descriptor = descriptor;
  job->work = work;
  job->work_data = data;
  job->work_destroy = destroy;
  job->done = done;
  job->user_data = user_data;
  if (may_start (queue, &key, peer)) {
    lane_push (queue, &key, job);
    return job;
  }
  hf_queue_discard (queue, peer, descriptor);
  job_free (job);
  return NULL;
}

void
hf_queue_continue (HfQueue *queue, HfJob *job, HfProtocolRequest *request, gint64 deadline, HfJobDone done, gpointer user_data)
{
  job->held = FALSE;
  job->work = NULL;
  take_request (job, request);
  job->deadline = deadline;
  job->done = done;
  job->user_data = user_data;
  lane_start (queue, job->lane);
}

gboolean
hf_queue_is_device (int descriptor, HfQueueNode *ret)
{
  LaneKey key = find_key (descriptor);

  *ret = (HfQueueNode){ key.kind == LANE_BLOCK, (guint)key.major, (guint)key.minor };
  return key.kind != LANE_OTHER;
}

static LaneKey
discard_key (const HfPeer *peer)
{
  return (LaneKey){ LANE_DISCARD, (guint64)peer->pid, peer->start_time };
}

/* The lane to close descriptors of peer in. */
static LaneKey
find_discard_lane (HfQueue *queue, const HfPeer *peer)
{
  LaneKey key = discard_key (peer);

  if (g_hash_table_contains (queue->lanes, &key))
    return key;
  if (count (queue->discarders, user_key (peer), 0) >= DISCARDERS_MAX)
    return (LaneKey){ LANE_DISCARD_USER, peer->uid, 0 };
  count (queue->discarders, user_key (peer), 1);
  return key;
}

void
hf_queue_discard (HfQueue *queue, const HfPeer *peer, int descriptor)
{
  LaneKey key = find_discard_lane (queue, peer);
  HfJob *job = g_queue_peek_tail (&lane_get (queue, &key)->jobs);

  count (queue->user_discards, user_key (peer), 1);
  if (job && !job->begun) {
    g_array_append_val (job->discards, descriptor);
    return;
  }
  job = g_new0 (HfJob, 1);
  job->queue = queue;
  job->peer = *peer;
  job->descriptor = -1;
  job->discards = g_array_new (FALSE, FALSE, sizeof (int));
  g_array_append_val (job->discards, descriptor);
  lane_push (queue, &key, job);
}

void
hf_queue_abandon (HfQueue *queue, HfJob *job)
{
  job->done = NULL;
  if (job->begun && !job->held)
    return;
  if (job->deferred) {
    g_queue_remove (&queue->deferred, job);
    count_running (queue, job, -1);
  }
  if (job->held || job->deferred)
    lane_pop (queue, job->lane);
  else
    g_queue_remove (&job->lane->jobs, job);
  hf_queue_discard (queue, &job->peer, job->descriptor);
  job_free (job);
}

gboolean
hf_queue_is_clogged (HfQueue *queue, const HfPeer *peer)
{
  LaneKey key = discard_key (peer);
  Lane *lane = g_hash_table_lookup (queue->lanes, &key);
  guint n = 0;

  if (count (queue->user_discards, user_key (peer), 0) > queue->limits.max_discards_per_uid)
    return TRUE;
  if (!lane)
    return FALSE;
  for (GList *l = lane->jobs.head; l; l = l->next)
    n += ((HfJob *)l->data)->discards->len;
  return n > queue->limits.max_discards_per_uid / 2
         || (n > DISCARDS_SLOW && g_get_monotonic_time () - lane->started > DISCARD_SLOW_TIME);
}

guint
hf_queue_get_running (HfQueue *queue)
{
  return queue->n_running;
}

gboolean
hf_job_has_begun (const HfJob *job)
{
  return job->begun;
}

const HfProtocolRequest *
hf_job_get_request (const HfJob *job)
{
  return &job->request;
}

const HfSgioAnswer *
hf_job_get_answer (const HfJob *job)
{
  return &job->answer;
}

const guint8 *
hf_job_get_data (const HfJob *job)
{
  return job->data;
}
