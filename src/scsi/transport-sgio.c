/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns one open block or sg node and sends commands to it with SG_IO, through libsgutils2's pass-through.
 *
 * Thread: that of the HfLu; the ioctl runs on a worker of the transport.
 *
 * Theory of operation: the ioctl may sit in the kernel far beyond the deadline: the block layer raises SG_IO timeouts to at least
 * 7 s, the pass-through counts in seconds, and on a dead path the error handler comes on top. So each command is a job with
 * copies of its own of CDB and data, and is left behind when the deadline passes; nothing of the caller is written to afterwards.
 * The descriptor is counted: it is closed when neither the transport nor a job needs it.
 *
 * An answer of the device counts also if host or driver bytes are set beside it (RESERVATION CONFLICT and BUSY come so from some
 * drivers); only without one do these bytes tell what happened to the link.
 */

#include "config.h"

#include "base/deadline.h"
#include "base/descriptors.h"
#include "base/worker.h"
#include "scsi/nexus-sysfs.h"
#include "scsi/transport.h"

#include <errno.h>
#include <fcntl.h>
#include <scsi/sg_lib.h>
#include <scsi/sg_pt.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Host byte of the Linux SCSI layer (include/scsi/scsi_status.h): the device did not answer in time. */
#define HOST_TIME_OUT 0x03

typedef struct {
  int fd;
} Descriptor;

typedef struct {
  HfTransport transport;
  Descriptor *descriptor; /* g_atomic_rc_box */
  char *name;
  HfTransportId transport_id;
  HfWorker *worker;
} Sgio;

/* One command, on its own. */
typedef struct {
  Descriptor *descriptor;
  HfScsiCommand command; /* data is our copy */
  guint timeout_s;
  /* the answer */
  int error; /* of do_scsi_pt: 0, -errno or SCSI_PT_DO_ */
  int category, status, residual, sense_length, host;
  char host_text[128];
  guint8 sense[HF_SCSI_SENSE_MAX];
} Job;

static void
descriptor_close (gpointer data)
{
  Descriptor *descriptor = data;

  close (descriptor->fd);
}

static void
descriptor_unref (Descriptor *descriptor)
{
  g_atomic_rc_box_release_full (descriptor, descriptor_close);
}

static Job *
job_new (Sgio *self, const HfScsiCommand *command, gint64 deadline)
{
  Job *job = g_new0 (Job, 1);

  job->descriptor = g_atomic_rc_box_acquire (self->descriptor);
  job->command = *command;
  job->command.data = command->data_length ? g_malloc0 (command->data_length) : NULL;
  if (command->direction == HF_SCSI_TO_DEVICE && command->data_length)
    memcpy (job->command.data, command->data, command->data_length);
  /* libsgutils2 1.46 takes whole seconds, and means its own default with 0. */
  job->timeout_s = MAX (1, (hf_deadline_left_ms (deadline) + 999) / 1000);
  return job;
}

static void
job_free (gpointer data)
{
  Job *job = data;

  descriptor_unref (job->descriptor);
  g_free (job->command.data);
  g_free (job);
}

static void
job_take_answer (Job *job, const struct sg_pt_base *pt)
{
  job->category = get_scsi_pt_result_category (pt);
  job->status = get_scsi_pt_status_response (pt);
  job->residual = get_scsi_pt_resid (pt);
  job->sense_length = CLAMP (get_scsi_pt_sense_len (pt), 0, HF_SCSI_SENSE_MAX);
  job->host = get_scsi_pt_transport_err (pt);
  get_scsi_pt_transport_err_str (pt, sizeof job->host_text, job->host_text);
  g_strdelimit (g_strchomp (job->host_text), "\n", ' ');
}

/* On the worker. */
static void
job_run (gpointer data)
{
  Job *job = data;
  HfScsiCommand *command = &job->command;
  struct sg_pt_base *pt = construct_scsi_pt_obj_with_fd (job->descriptor->fd, 0);

  if (!pt) {
    job->error = -ENOMEM;
    return;
  }
  set_scsi_pt_cdb (pt, command->cdb, command->cdb_length);
  set_scsi_pt_sense (pt, job->sense, sizeof job->sense);
  if (command->data_length && command->direction == HF_SCSI_FROM_DEVICE)
    set_scsi_pt_data_in (pt, command->data, command->data_length);
  else if (command->data_length)
    set_scsi_pt_data_out (pt, command->data, command->data_length);
  job->error = do_scsi_pt (pt, job->descriptor->fd, job->timeout_s, 0);
  if (job->error == 0)
    job_take_answer (job, pt);
  destruct_scsi_pt_obj (pt);
}

/* The command did not reach the device, or its answer did not reach us. */
static gboolean
check_link (const Sgio *self, const Job *job, GError **error)
{
  if (job->error < 0) {
    g_set_error (error, HF_SCSI_ERROR, HF_SCSI_ERROR_LINK, "%s: SG_IO: %s", self->name, g_strerror (-job->error));
    hf_scsi_error_set_errno (error, -job->error);
    return FALSE;
  }
  if (job->error == SCSI_PT_DO_TIMEOUT
      || (job->error == 0 && job->status == HF_SAM_GOOD && job->category == SCSI_PT_RESULT_TRANSPORT_ERR
          && job->host == HOST_TIME_OUT)) {
    g_set_error (error, HF_SCSI_ERROR, HF_SCSI_ERROR_TIMEOUT, "%s: the device did not answer in %u s (%s)", self->name,
                 job->timeout_s, job->host_text);
    return FALSE;
  }
  if (job->error > 0) {
    g_set_error (error, HF_SCSI_ERROR, HF_SCSI_ERROR_LINK, "%s: the pass-through refused the command (%d)", self->name,
                 job->error);
    return FALSE;
  }
  if (job->status == HF_SAM_GOOD && job->category == SCSI_PT_RESULT_TRANSPORT_ERR) {
    g_set_error (error, HF_SCSI_ERROR, HF_SCSI_ERROR_LINK, "%s: the link was lost: %s", self->name, job->host_text);
    return FALSE;
  }
  return TRUE;
}

static gboolean
check_answer (const Sgio *self, const Job *job, GError **error)
{
  if (job->residual < 0 || (guint)job->residual > job->command.data_length) {
    g_set_error (error, HF_SCSI_ERROR, HF_SCSI_ERROR_ANSWER, "%s: residual %d of %u bytes", self->name, job->residual,
                 job->command.data_length);
    return FALSE;
  }
  return TRUE;
}

static void
fill_result (const Job *job, const HfScsiCommand *command, HfScsiResult *ret)
{
  ret->status = job->status;
  if (ret->status == HF_SAM_CHECK_CONDITION) {
    ret->sense_length = job->sense_length;
    memcpy (ret->sense, job->sense, job->sense_length);
  }
  ret->residual = job->residual;
  ret->transferred = command->data_length - ret->residual;
  if (command->direction == HF_SCSI_FROM_DEVICE && ret->transferred)
    memcpy (command->data, job->command.data, ret->transferred);
}

static gboolean
sgio_execute (HfTransport *transport, const HfScsiCommand *command, gint64 deadline, HfScsiResult *ret_result, GError **error)
{
  Sgio *self = (Sgio *)transport;
  Job *job = job_new (self, command, deadline);
  HfWorkerResult worked = hf_worker_run (self->worker, job, deadline);
  gboolean ok;

  if (worked == HF_WORKER_LATE) {
    g_set_error (error, HF_SCSI_ERROR, HF_SCSI_ERROR_TIMEOUT, "%s: no answer before the deadline", self->name);
    return FALSE;
  }
  if (worked == HF_WORKER_BUSY) {
    job_free (job);
    g_set_error (error, HF_SCSI_ERROR, HF_SCSI_ERROR_TIMEOUT,
                 "%s: not sent: an earlier command that ran into its deadline is still in flight", self->name);
    return FALSE;
  }
  ok = check_link (self, job, error) && check_answer (self, job, error);
  if (ok)
    fill_result (job, command, ret_result);
  job_free (job);
  return ok;
}

static void
sgio_get_transport_id (HfTransport *transport, HfTransportId *ret)
{
  *ret = ((Sgio *)transport)->transport_id;
}

static void
sgio_free (HfTransport *transport)
{
  Sgio *self = (Sgio *)transport;

  hf_worker_free (self->worker);
  descriptor_unref (self->descriptor);
  g_free (self->name);
  g_free (self);
}

static const HfTransportOps sgio_ops = {
  .name = "sgio",
  .execute = sgio_execute,
  .get_transport_id = sgio_get_transport_id,
  .free = sgio_free,
};

static gboolean
check_node (int fd, const char *name, struct stat *ret, GError **error)
{
  if (fd < 0 || fstat (fd, ret) < 0) {
    g_set_error (error, HF_SCSI_ERROR, HF_SCSI_ERROR_OPEN, "%s: %s", name, g_strerror (errno));
    return FALSE;
  }
  if (!S_ISBLK (ret->st_mode) && !S_ISCHR (ret->st_mode)) {
    g_set_error (error, HF_SCSI_ERROR, HF_SCSI_ERROR_ADDRESS, "%s: neither a block nor a character device", name);
    return FALSE;
  }
  return TRUE;
}

HfTransport *
hf_transport_sgio_from_fd (int fd, const char *name, GError **error)
{
  struct stat node;
  Sgio *self;

  fd = hf_descriptor_above_standard (fd);
  if (!check_node (fd, name, &node, error)) {
    if (fd >= 0)
      close (fd);
    return NULL;
  }
  self = g_new0 (Sgio, 1);
  self->transport.ops = &sgio_ops;
  self->descriptor = g_atomic_rc_box_new0 (Descriptor);
  self->descriptor->fd = fd;
  self->name = g_strdup (name);
  self->worker = hf_worker_new ("hf-sgio", job_run, job_free);
  hf_nexus_from_sysfs ("/sys", S_ISBLK (node.st_mode), node.st_rdev, &self->transport_id);
  return &self->transport;
}

/* An open may block on a dead device as well. */
typedef struct {
  char *path;
  int fd;
  int error;
} OpenJob;

static void
open_job_run (gpointer data)
{
  OpenJob *job = data;
  struct stat node;

  /* Looked at first: opening a FIFO, a terminal or a tape has effects of its own. */
  if (stat (job->path, &node) == 0 && !S_ISBLK (node.st_mode) && !S_ISCHR (node.st_mode)) {
    job->error = ENOTBLK;
    return;
  }
  job->fd = open (job->path, O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
  if (job->fd < 0 && (errno == EROFS || errno == EACCES))
    job->fd = open (job->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
  job->error = job->fd < 0 ? errno : 0;
}

static void
open_job_free (gpointer data)
{
  OpenJob *job = data;

  if (job->fd >= 0)
    close (job->fd);
  g_free (job->path);
  g_free (job);
}

static void
set_open_error (const char *path, int reason, GError **error)
{
  gboolean missing = reason == ENOENT || reason == ENOTDIR || reason == ENXIO || reason == ENODEV;

  if (reason == ENOTBLK) {
    g_set_error (error, HF_SCSI_ERROR, HF_SCSI_ERROR_ADDRESS, "%s: neither a block nor a character device", path);
    return;
  }
  g_set_error (error, HF_SCSI_ERROR, missing ? HF_SCSI_ERROR_ADDRESS : HF_SCSI_ERROR_OPEN, "%s: %s", path, g_strerror (reason));
  hf_scsi_error_set_errno (error, reason);
}

HfTransport *
hf_transport_sgio_open (const char *path, guint timeout_ms, GError **error)
{
  HfWorker *worker = hf_worker_new ("hf-open", open_job_run, open_job_free);
  OpenJob *job = g_new0 (OpenJob, 1);
  int fd;

  job->path = g_strdup (path);
  job->fd = -1;
  if (hf_worker_run (worker, job, hf_deadline_after_ms (timeout_ms)) != HF_WORKER_DONE) {
    hf_worker_free (worker);
    g_set_error (error, HF_SCSI_ERROR, HF_SCSI_ERROR_TIMEOUT, "%s: cannot be opened before the deadline", path);
    return NULL;
  }
  hf_worker_free (worker);
  fd = job->fd;
  job->fd = -1;
  if (fd < 0)
    set_open_error (path, job->error, error);
  open_job_free (job);
  return fd < 0 ? NULL : hf_transport_sgio_from_fd (fd, path, error);
}
