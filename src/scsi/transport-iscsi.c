/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns one iSCSI session to one target, with one connection, and sends commands to one LU of it through libiscsi.
 *
 * Thread: that of the HfLu; everything happens inside execute and free, nothing in between. Only the look-up of a host name runs
 * on a worker, since the resolver knows no deadline.
 *
 * Theory of operation: libiscsi is used asynchronously, with a poll loop of our own that ends at a deadline in milliseconds. Each
 * wait has one `Wait` on the heap of the transport that the callback fills; there is never more than one. Login is connect and
 * login only: libiscsi's full connect would send TEST UNIT READY and swallow the unit attentions that belong to the first
 * command.
 *
 * A session that was cut, timed out or broke the protocol is destroyed at once. iscsi_destroy_context calls the callbacks of what
 * was in flight, so the Wait and the task (which owns the data buffer that libiscsi reads into) are freed after it; the caller's
 * buffer is only ever copied to from here. The next execute logs in again with the same initiator name and ISID, which is the
 * same I_T nexus. libiscsi's automatic reconnect is off: it would take a new random ISID, a new nexus without the registration.
 *
 * SIGPIPE: libiscsi writes with writev(2), which has no MSG_NOSIGNAL. A library must not change the process' handler, so SIGPIPE
 * is blocked in this thread while libiscsi runs, and one that our own write raised is taken from the queue before it is unblocked
 * (SIGPIPE is sent to the thread that writes). The program sees no difference.
 */

#include "config.h"

#include "base/deadline.h"
#include "base/worker.h"
#include "scsi/iscsi-address.h"
#include "scsi/transport.h"

#include <errno.h>
#include <fcntl.h>
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define LOGOUT_TIMEOUT_MS 1000
#define REDIRECTS_MAX 4

typedef struct {
  gboolean done;
  int status; /* SCSI status, or libiscsi's SCSI_STATUS_CANCELLED, _ERROR, _TIMEOUT, _REDIRECT */
} Wait;

typedef struct {
  HfTransport transport;
  HfIscsiAddress *address;
  struct iscsi_context *context; /* NULL: not logged in */
  gboolean broken;               /* the connection failed under us */
  char *why;                     /* libiscsi's words for it, before it put others over them */
  guint n_logins;                /* since open */
  Wait wait;
  HfWorker *resolver;
} Iscsi;

/* ---- SIGPIPE ---- */

typedef struct {
  sigset_t old;
  gboolean was_pending;
} PipeGuard;

static void
pipe_guard_enter (PipeGuard *guard)
{
  sigset_t pipe, pending;

  sigemptyset (&pipe);
  sigaddset (&pipe, SIGPIPE);
  pthread_sigmask (SIG_BLOCK, &pipe, &guard->old);
  sigpending (&pending);
  guard->was_pending = sigismember (&pending, SIGPIPE);
}

static void
pipe_guard_leave (PipeGuard *guard)
{
  const struct timespec now = { 0 };
  sigset_t pipe;

  sigemptyset (&pipe);
  sigaddset (&pipe, SIGPIPE);
  if (!guard->was_pending)
    while (sigtimedwait (&pipe, NULL, &now) < 0 && errno == EINTR)
      ;
  pthread_sigmask (SIG_SETMASK, &guard->old, NULL);
}

/* ---- the loop ---- */

static void
drop (Iscsi *self)
{
  if (self->context)
    iscsi_destroy_context (self->context);
  self->context = NULL;
  self->broken = FALSE;
  g_clear_pointer (&self->why, g_free);
}

/* libiscsi's last message on one line. */
static char *
reason (Iscsi *self)
{
  const char *text = self->why ?: self->context ? iscsi_get_error (self->context) : NULL;
  /* The sentence on reconnecting is only what libiscsi did not do then. */
  gboolean closed = !text || !*text || g_str_has_prefix (text, "iscsi_service_reconnect");
  g_autofree char *line = g_strdup (closed ? "the connection was closed" : text);

  g_strdelimit (line, "\n\r\t", ' ');
  return g_strstrip (g_utf8_make_valid (line, -1));
}

static void
waited (struct iscsi_context *context, int status, void *data, void *user_data)
{
  Wait *wait = user_data;

  wait->done = TRUE;
  wait->status = status;
}

/* The connection's callback comes twice: when it stands (then it ends the wait) and when it breaks. */
static void
connection_changed (struct iscsi_context *context, int status, void *data, void *user_data)
{
  Iscsi *self = user_data;

  if (status != SCSI_STATUS_GOOD) {
    self->broken = TRUE;
    g_free (self->why);
    self->why = g_strdup (iscsi_get_error (context));
  }
  waited (context, status, data, &self->wait);
}

/* One turn of the loop. */
static void
serve (Iscsi *self, int timeout_ms)
{
  struct pollfd poller = { .fd = iscsi_get_fd (self->context), .events = iscsi_which_events (self->context) };

  if (poll (&poller, 1, timeout_ms) <= 0)
    return;
  if (iscsi_service (self->context, poller.revents) < 0)
    self->broken = TRUE;
  /* Without reconnect libiscsi may call a dead socket served; polling it again would spin. */
  if (!self->wait.done && poller.revents & (POLLERR | POLLHUP | POLLNVAL))
    self->broken = TRUE;
}

/* Until the callback came (TRUE), the connection broke or the deadline passed. */
static gboolean
wait_for_callback (Iscsi *self, gint64 deadline)
{
  int left;

  while (!self->wait.done && !self->broken && (left = hf_deadline_left_ms (deadline)) > 0)
    serve (self, left);
  return self->wait.done;
}

static void
begin_wait (Iscsi *self)
{
  self->wait = (Wait){ 0 };
}

/* ---- name of the host ---- */

typedef struct {
  char *host;
  char *numeric; /* the answer; NULL: error */
  int error;
} ResolveJob;

static void
resolve_run (gpointer data)
{
  const struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
  ResolveJob *job = data;
  struct addrinfo *found = NULL;
  char text[NI_MAXHOST];

  job->error = getaddrinfo (job->host, NULL, &hints, &found);
  if (job->error == 0)
    job->error = getnameinfo (found->ai_addr, found->ai_addrlen, text, sizeof text, NULL, 0, NI_NUMERICHOST);
  if (job->error == 0)
    job->numeric = g_strdup (text);
  if (found)
    freeaddrinfo (found);
}

static void
resolve_free (gpointer data)
{
  ResolveJob *job = data;

  g_free (job->host);
  g_free (job->numeric);
  g_free (job);
}

/* "192.0.2.1:3260", "[2001:db8::1]:3260" */
static char *
resolve (Iscsi *self, gint64 deadline, GError **error)
{
  const HfIscsiAddress *address = self->address;
  ResolveJob *job = g_new0 (ResolveJob, 1);
  HfWorkerResult worked;
  char *portal = NULL;

  job->host = g_strdup (address->host);
  worked = hf_worker_run (self->resolver, job, deadline);
  if (worked != HF_WORKER_DONE)
    g_set_error (error, HF_SCSI_ERROR, HF_SCSI_ERROR_TIMEOUT, "%s: %s was not resolved before the deadline", address->printable,
                 address->host);
  else if (!job->numeric)
    g_set_error (error, HF_SCSI_ERROR, HF_SCSI_ERROR_ADDRESS, "%s: %s: %s", address->printable, address->host,
                 gai_strerror (job->error));
  else
    portal = g_strdup_printf (strchr (job->numeric, ':') ? "[%s]:%u" : "%s:%u", job->numeric, address->port);
  if (worked != HF_WORKER_LATE)
    resolve_free (job);
  return portal;
}

/* ---- login ---- */

/* The three types that RFC 7143 11.12.5 defines, byte for byte as they stand in the TransportID. */
static int
set_isid (struct iscsi_context *context, guint64 isid)
{
  guint32 middle = isid >> 16 & 0xffffff;
  guint32 low = isid & 0xffff;

  if (isid >> 46 == 0)
    return iscsi_set_isid_oui (context, isid >> 24 & 0x3fffff, isid & 0xffffff);
  if (isid >> 46 == 1)
    return iscsi_set_isid_en (context, middle, low);
  return iscsi_set_isid_random (context, middle, low);
}

static gboolean
set_up_context (Iscsi *self)
{
  const HfIscsiAddress *address = self->address;
  struct iscsi_context *context = iscsi_create_context (address->initiator_name);

  self->context = context;
  if (!context)
    return FALSE;
  iscsi_set_noautoreconnect (context, 1);
  if (iscsi_set_session_type (context, ISCSI_SESSION_NORMAL) < 0 || iscsi_set_targetname (context, address->target) < 0
      || set_isid (context, address->isid) < 0)
    return FALSE;
  if (address->user && iscsi_set_initiator_username_pwd (context, address->user, address->password) < 0)
    return FALSE;
  if (address->user && address->target_user
      && iscsi_set_target_username_pwd (context, address->target_user, address->target_password) < 0)
    return FALSE;
  return TRUE;
}

static gboolean
set_login_error (Iscsi *self, const char *what, int code, GError **error)
{
  g_autofree char *text = reason (self);

  /* The callback or the break ends a wait; without either it was the deadline. */
  if (self->context && !self->wait.done && !self->broken)
    g_set_error (error, HF_SCSI_ERROR, HF_SCSI_ERROR_TIMEOUT, "%s: %s: no answer before the deadline", self->address->printable,
                 what);
  else
    g_set_error (error, HF_SCSI_ERROR, code, "%s: %s: %s", self->address->printable, what, text);
  drop (self);
  return FALSE;
}

static gboolean
connect_portal (Iscsi *self, const char *portal, gint64 deadline, GError **error)
{
  begin_wait (self);
  if (!set_up_context (self) || iscsi_connect_async (self->context, portal, connection_changed, self) < 0) {
    self->broken = TRUE;
    return set_login_error (self, "connect", HF_SCSI_ERROR_OPEN, error);
  }
  /* libiscsi opens its socket without it. */
  fcntl (iscsi_get_fd (self->context), F_SETFD, FD_CLOEXEC);
  if (!wait_for_callback (self, deadline) || self->wait.status != SCSI_STATUS_GOOD)
    return set_login_error (self, "connect", HF_SCSI_ERROR_OPEN, error);
  return TRUE;
}

/* ret_redirect: another portal, to be freed with g_free, if the target sends us there (RFC 7143 11.13.5, status class 1). */
static gboolean
login_portal (Iscsi *self, const char *portal, gint64 deadline, char **ret_redirect, GError **error)
{
  const char *other;

  if (!connect_portal (self, portal, deadline, error))
    return FALSE;
  begin_wait (self);
  if (iscsi_login_async (self->context, waited, &self->wait) < 0)
    self->broken = TRUE;
  if (!wait_for_callback (self, deadline))
    return set_login_error (self, "login", HF_SCSI_ERROR_OPEN, error);
  other = self->wait.status == SCSI_STATUS_REDIRECT ? iscsi_get_target_address (self->context) : NULL;
  if (other && *other) {
    *ret_redirect = g_strdup (other);
    drop (self);
    return TRUE;
  }
  return self->wait.status == SCSI_STATUS_GOOD ? TRUE : set_login_error (self, "login", HF_SCSI_ERROR_OPEN, error);
}

static gboolean
login (Iscsi *self, gint64 deadline, GError **error)
{
  g_autofree char *portal = NULL;

  drop (self);
  portal = resolve (self, deadline, error);
  if (!portal)
    return FALSE;
  for (guint i = 0; i <= REDIRECTS_MAX; i++) {
    g_autofree char *redirect = NULL;

    if (!login_portal (self, portal, deadline, &redirect, error))
      return FALSE;
    if (!redirect)
      return TRUE;
    g_free (portal);
    portal = g_steal_pointer (&redirect);
  }
  g_set_error (error, HF_SCSI_ERROR, HF_SCSI_ERROR_OPEN, "%s: login: redirected more than %d times", self->address->printable,
               REDIRECTS_MAX);
  return FALSE;
}

/* What came since the last command: a close, or a NOP-In of the target that wants its answer. A session found dead here cost no
   command, so it is replaced without a word. */
static gboolean
is_alive (Iscsi *self)
{
  begin_wait (self);
  for (guint i = 0; i < 16 && self->context && !self->broken; i++) {
    struct pollfd poller = { .fd = iscsi_get_fd (self->context), .events = POLLIN | POLLRDHUP };

    if (poll (&poller, 1, 0) <= 0)
      return TRUE;
    if (poller.revents & (POLLERR | POLLHUP | POLLRDHUP | POLLNVAL))
      return FALSE;
    if (iscsi_service (self->context, poller.revents) < 0 || !iscsi_is_logged_in (self->context))
      return FALSE;
  }
  return self->context && !self->broken;
}

/* A lost link is LINK here, whatever stood in the way of a new one. */
static gboolean
ensure_login (Iscsi *self, gint64 deadline, GError **error)
{
  GError *local = NULL;

  if (self->context && is_alive (self))
    return TRUE;
  self->n_logins++; /* also one that fails: the target may have let us in */
  if (login (self, deadline, &local))
    return TRUE;
  if (local->code != HF_SCSI_ERROR_TIMEOUT)
    local->code = HF_SCSI_ERROR_LINK;
  g_prefix_error (&local, "not sent, the link was lost: ");
  g_propagate_error (error, local);
  return FALSE;
}

/* ---- commands ---- */

/* The task owns its buffer: libiscsi may use both until the context is destroyed. */
static struct scsi_task *
new_task (const HfScsiCommand *command, guint8 *buffer)
{
  static const int directions[] = {
    [HF_SCSI_NO_DATA] = SCSI_XFER_NONE, [HF_SCSI_FROM_DEVICE] = SCSI_XFER_READ, [HF_SCSI_TO_DEVICE] = SCSI_XFER_WRITE
  };
  guint8 cdb[HF_SCSI_CDB_MAX];
  struct scsi_task *task;

  memcpy (cdb, command->cdb, sizeof cdb);
  task = scsi_create_task (command->cdb_length, cdb, command->data_length ? directions[command->direction] : SCSI_XFER_NONE,
                           command->data_length);
  if (task && command->data_length && command->direction == HF_SCSI_FROM_DEVICE
      && scsi_task_add_data_in_buffer (task, command->data_length, buffer) < 0)
    g_clear_pointer (&task, scsi_free_scsi_task);
  return task;
}

/* RFC 7143 11.4.7.2: the data segment of a SCSI Response is a 2-byte length and that many bytes of sense data. libiscsi hands it
   on as it came. */
static void
take_sense (const struct scsi_task *task, HfScsiResult *ret)
{
  const guint8 *data = task->datain.data;
  gsize length;

  if (!data || task->datain.size < 2)
    return;
  length = data[0] << 8 | data[1];
  ret->sense_length = MIN (MIN (length, (gsize)task->datain.size - 2), HF_SCSI_SENSE_MAX);
  memcpy (ret->sense, data + 2, ret->sense_length);
}

static gboolean
take_answer (Iscsi *self, const struct scsi_task *task, const HfScsiCommand *command, HfScsiResult *ret, GError **error)
{
  /* Overflow: the device had more than was asked for, and the buffer is full. */
  gsize residual = task->residual_status == SCSI_RESIDUAL_UNDERFLOW ? task->residual : 0;

  if (residual > command->data_length) {
    g_set_error (error, HF_SCSI_ERROR, HF_SCSI_ERROR_ANSWER, "%s: residual %" G_GSIZE_FORMAT " of %u bytes",
                 self->address->printable, residual, command->data_length);
    return FALSE;
  }
  ret->status = self->wait.status;
  ret->residual = residual;
  ret->transferred = command->data_length - ret->residual;
  if (ret->status == HF_SAM_CHECK_CONDITION)
    take_sense (task, ret);
  return TRUE;
}

static gboolean
set_lost (Iscsi *self, GError **error)
{
  g_autofree char *text = reason (self);

  if (!self->wait.done && !self->broken)
    g_set_error (error, HF_SCSI_ERROR, HF_SCSI_ERROR_TIMEOUT, "%s: no answer before the deadline", self->address->printable);
  else
    g_set_error (error, HF_SCSI_ERROR, HF_SCSI_ERROR_LINK, "%s: the link was lost: %s", self->address->printable, text);
  drop (self);
  return FALSE;
}

static gboolean
run_task (Iscsi *self, struct scsi_task *task, const HfScsiCommand *command, guint8 *buffer, gint64 deadline, HfScsiResult *ret,
          GError **error)
{
  struct iscsi_data out = { .size = command->data_length, .data = buffer };
  gboolean writes = command->direction == HF_SCSI_TO_DEVICE && command->data_length;

  begin_wait (self);
  if (iscsi_scsi_command_async (self->context, self->address->lun, task, waited, writes ? &out : NULL, &self->wait) < 0) {
    self->broken = TRUE;
    return set_lost (self, error);
  }
  /* A status has one byte; what is above it is libiscsi's own. */
  if (!wait_for_callback (self, deadline) || self->wait.status < 0 || self->wait.status > 0xff)
    return set_lost (self, error);
  if (!take_answer (self, task, command, ret, error)) {
    drop (self);
    return FALSE;
  }
  if (command->direction == HF_SCSI_FROM_DEVICE && ret->transferred)
    memcpy (command->data, buffer, ret->transferred);
  return TRUE;
}

static gboolean
send_command (Iscsi *self, const HfScsiCommand *command, gint64 deadline, HfScsiResult *ret, GError **error)
{
  g_autofree guint8 *buffer = NULL;
  struct scsi_task *task;
  gboolean ok;

  if (!ensure_login (self, deadline, error))
    return FALSE;
  buffer = command->data_length ? g_malloc0 (command->data_length) : NULL;
  if (command->direction == HF_SCSI_TO_DEVICE && command->data_length)
    memcpy (buffer, command->data, command->data_length);
  task = new_task (command, buffer);
  if (!task) {
    g_set_error (error, HF_SCSI_ERROR, HF_SCSI_ERROR_LINK, "%s: not sent: out of memory", self->address->printable);
    return FALSE;
  }
  /* On failure the context is gone when this returns, so nobody else knows the task and the buffer. */
  ok = run_task (self, task, command, buffer, deadline, ret, error);
  scsi_free_scsi_task (task);
  return ok;
}

static gboolean
iscsi_execute (HfTransport *transport, const HfScsiCommand *command, gint64 deadline, HfScsiResult *ret_result, GError **error)
{
  Iscsi *self = (Iscsi *)transport;
  PipeGuard guard;
  gboolean ok;

  pipe_guard_enter (&guard);
  ok = send_command (self, command, deadline, ret_result, error);
  pipe_guard_leave (&guard);
  return ok;
}

static void
iscsi_drop_link (HfTransport *transport)
{
  drop ((Iscsi *)transport);
}

static guint
iscsi_get_logins (HfTransport *transport)
{
  return ((Iscsi *)transport)->n_logins;
}

static void
iscsi_get_transport_id (HfTransport *transport, HfTransportId *ret)
{
  const HfIscsiAddress *address = ((Iscsi *)transport)->address;

  hf_transport_id_iscsi (address->initiator_name, TRUE, address->isid, ret);
}

static void
logout (Iscsi *self)
{
  if (!self->context || !is_alive (self))
    return;
  begin_wait (self);
  if (iscsi_logout_async (self->context, waited, &self->wait) == 0)
    wait_for_callback (self, hf_deadline_after_ms (LOGOUT_TIMEOUT_MS));
}

static void
iscsi_free (HfTransport *transport)
{
  Iscsi *self = (Iscsi *)transport;
  PipeGuard guard;

  pipe_guard_enter (&guard);
  logout (self);
  drop (self);
  pipe_guard_leave (&guard);
  hf_worker_free (self->resolver);
  hf_iscsi_address_free (self->address);
  g_free (self);
}

static const HfTransportOps iscsi_ops = {
  .name = "iscsi",
  .execute = iscsi_execute,
  .drop_link = iscsi_drop_link,
  .get_logins = iscsi_get_logins,
  .get_transport_id = iscsi_get_transport_id,
  .free = iscsi_free,
};

HfTransport *
hf_transport_iscsi_open (const char *url, const HfLuOptions *options, char **ret_address, GError **error)
{
  HfIscsiAddress *address = hf_iscsi_address_parse (url, options, error);
  guint timeout_ms = options && options->timeout_ms ? options->timeout_ms : HF_SCSI_TIMEOUT_DEFAULT_MS;
  Iscsi *self;
  PipeGuard guard;
  gboolean ok;

  if (!address)
    return NULL;
  self = g_new0 (Iscsi, 1);
  self->transport.ops = &iscsi_ops;
  self->address = address;
  self->resolver = hf_worker_new ("hf-resolve", resolve_run, resolve_free);
  pipe_guard_enter (&guard);
  ok = login (self, hf_deadline_after_ms (timeout_ms), error);
  pipe_guard_leave (&guard);
  if (!ok) {
    iscsi_free (&self->transport);
    return NULL;
  }
  *ret_address = g_strdup (address->printable);
  return &self->transport;
}
