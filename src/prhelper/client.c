/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns: one connection. Thread: main.
 *
 * Theory of operation: a client is in one phase: writing (the greeting or a reply), reading (a request) or waiting (for its
 * command). Its source waits for the socket's event of that phase and, with the ready time, for the deadline of the phase; an
 * idle client between two requests has none. Every step returns FALSE when it ended the client, and then nothing may be touched
 * any more.
 *
 * Reading asks the socket only for the bytes that the current part of the request lacks. The kernel ends a read at bytes that
 * brought descriptors, so a descriptor always belongs to the part that was asked for, and the next request stays in the socket.
 *
 * Stopping: shutdown(SHUT_RD) first, so that the client's next write fails and QEMU connects again to whoever comes after us.
 * What is in the socket by then was sent in good faith and is answered; a close between a CDB and its reply is an error that the
 * guest sees. But there is one deadline for all of it: without socket activation nobody can connect meanwhile.
 */
#include "config.h"

#include "prhelper/client.h"

#include "base/deadline.h"
#include "prhelper/log.h"
#include "prhelper/trace.h"

#include <errno.h>
#include <fcntl.h>
#include <glib-unix.h>
#include <holdfast/pr.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SENSE_ILLEGAL_REQUEST 0x05
#define INVALID_COMMAND_OPERATION_CODE 0x2000
#define SENSE_ABORTED 0x0b
#define COMMAND_TIMEOUT_DURING_PROCESSING 0x2e02
#define IO_PROCESS_TERMINATED 0x0006
/* One more than is allowed, to see that it is too many; the kernel drops the rest and says so. */
#define DESCRIPTORS_MAX 2

typedef enum { PHASE_WRITING, PHASE_READING, PHASE_WAITING } Phase;

struct _HfClient {
  int socket;
  GSource *source;
  gpointer tag; /* NULL: the socket is not looked at */
  HfPeer peer;
  const HfClientRules *rules;
  HfQueue *queue;
  HfVms *vms;
  HfVm *vm;
  Phase phase;
  GIOCondition watched; /* of the socket, G_IO_HUP and G_IO_ERR besides */
  gint64 deadline;      /* of the phase; -1: none */
  gint64 alarm;         /* the source's ready time: not later than deadline; -1: none */
  HfProtocolDecoder decoder;
  int descriptor;     /* of the request that is being read; -1: none yet */
  HfCommand *command; /* in flight */
  guint8 *out;        /* what is being written */
  gsize out_length, out_done;
  gboolean stopping, stream_ended;
  gint64 stop_deadline;
};

typedef struct {
  GSource source;
  HfClient *client;
} ClientSource;

static void
watch (HfClient *client, GIOCondition condition)
{
  if (!client->tag || client->watched == condition)
    return;
  client->watched = condition;
  g_source_modify_unix_fd (client->source, client->tag, condition);
}

static void
set_alarm (HfClient *client, gint64 when)
{
  if (client->alarm == when)
    return;
  client->alarm = when;
  g_source_set_ready_time (client->source, when);
}

/* Each change of a source wakes its loop, a system call and a turn for nothing. So while a command is in flight the socket is
   watched on until something comes, and an alarm that is too early stays: its client looks at the clock then. */
static void
enter (HfClient *client, Phase phase, gint64 deadline)
{
  if (client->stopping && deadline >= 0)
    deadline = MIN (deadline, client->stop_deadline);
  client->phase = phase;
  client->deadline = deadline;
  if (phase != PHASE_WAITING)
    watch (client, phase == PHASE_WRITING ? G_IO_OUT : G_IO_IN);
  if (deadline >= 0 && (client->alarm < 0 || deadline < client->alarm))
    set_alarm (client, deadline);
}

/* Tells the owner, who frees the client. */
static gboolean
end (HfClient *client)
{
  hf_trace (HF_TRACE_CLIENT_CLOSE, "pid=%d", (int)client->peer.pid);
  g_source_destroy (client->source);
  client->rules->closed (client, client->rules->user_data);
  return FALSE;
}

static gboolean
end_with (HfClient *client, const char *why)
{
  hf_log_peer (HF_LOG_WARNING, client->peer.pid, "client %d (uid %u): %s, closed", (int)client->peer.pid, (guint)client->peer.uid,
               why);
  return end (client);
}

/* ---- writing ---- */

/* No more bytes after those that are in the socket. */
static void
close_stream (HfClient *client)
{
  if (client->stream_ended)
    return;
  client->stream_ended = TRUE;
  shutdown (client->socket, SHUT_RD);
}

/* Writes what the socket takes. TRUE: go on, with the phase that client is in now. */
static gboolean
write_out (HfClient *client)
{
  while (client->out_done < client->out_length) {
    ssize_t n =
        send (client->socket, client->out + client->out_done, client->out_length - client->out_done, MSG_NOSIGNAL | MSG_DONTWAIT);

    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0 && errno == EAGAIN) {
      enter (client, PHASE_WRITING, hf_deadline_after_ms (client->rules->request_timeout_ms));
      return TRUE;
    }
    if (n < 0)
      return end (client);
    client->out_done += (gsize)n;
  }
  g_clear_pointer (&client->out, g_free);
  if (client->stopping)
    close_stream (client);
  /* Behind the greeting its answer is due; behind a reply a client may be silent for ever. */
  enter (client, PHASE_READING,
         hf_protocol_decoder_is_idle (&client->decoder) ? -1 : hf_deadline_after_ms (client->rules->request_timeout_ms));
  return TRUE;
}

static void
set_out (HfClient *client, gsize length)
{
  client->out = g_malloc (length);
  client->out_length = length;
  client->out_done = 0;
}

/* The reply to the request of the decoder, which is finished with it. */
static gboolean
reply (HfClient *client, const HfProtocolRequest *request, const HfSgioAnswer *answer, const guint8 *data)
{
  guint8 header[HF_PROTOCOL_REPLY_SIZE];
  gsize sz = hf_protocol_encode_reply (request, answer->status, answer->sense, answer->sense_length, answer->transferred, header);

  hf_trace (HF_TRACE_REPLY, "pid=%d status=%02x sz=%u", (int)client->peer.pid, answer->status, (guint)sz);
  set_out (client, sizeof header + sz);
  memcpy (client->out, header, sizeof header);
  if (sz)
    memcpy (client->out + sizeof header, data, sz);
  hf_protocol_decoder_next (&client->decoder);
  return write_out (client);
}

/* ---- executing ---- */

static gboolean step (HfClient *client);

/* command: NULL, it was not sent. */
static void
log_out (HfClient *client, const HfProtocolRequest *request, const HfSgioAnswer *answer, const HfCommand *command)
{
  g_autofree char *device = NULL;
  g_autofree char *text = NULL;
  HfScsiResult result = { .status = answer->status, .sense_length = answer->sense_length };

  if (!answer->trouble[0] && request->cdb[0] != HF_PROTOCOL_PR_OUT)
    return;
  device = command ? hf_command_name_device (command) : g_strdup ("not sent");
  if (answer->trouble[0])
    hf_log_peer (HF_LOG_INFO, client->peer.pid, "client %d (uid %u): %s: %s", (int)client->peer.pid, (guint)client->peer.uid,
                 device, answer->trouble);
  if (request->cdb[0] != HF_PROTOCOL_PR_OUT || !hf_log_wants (HF_LOG_INFO))
    return;
  memcpy (result.sense, answer->sense, answer->sense_length);
  text = hf_scsi_result_to_string (&result);
  hf_log (HF_LOG_INFO, "client %d (uid %u): %s: %s: %s", (int)client->peer.pid, (guint)client->peer.uid, device,
          hf_pr_out_action_to_string (request->cdb[1] & 0x1f), text);
}

static void
command_done (HfCommand *command, gpointer user_data)
{
  HfClient *client = user_data;

  client->command = NULL;
  log_out (client, hf_command_get_request (command), hf_command_get_answer (command), command);
  /* The next request is read when the loop finds it: others have their turn, and mostly it is not there yet. */
  reply (client, hf_command_get_request (command), hf_command_get_answer (command), hf_command_get_data (command));
}

static gboolean
reply_alone (HfClient *client, const HfSgioAnswer *answer)
{
  HfProtocolRequest request = client->decoder.request;

  log_out (client, &request, answer, NULL);
  request.list = NULL;
  return reply (client, &request, answer, NULL);
}

static gboolean
is_read_only (int descriptor)
{
  return (fcntl (descriptor, F_GETFL) & O_ACCMODE) == O_RDONLY;
}

/* What is answered without a device. TRUE: answer has it. FALSE: ret_node is the device. */
static gboolean
answer_alone (HfClient *client, int descriptor, HfQueueNode *ret_node, HfSgioAnswer *answer)
{
  guint8 opcode = client->decoder.request.cdb[0];

  if (client->rules->strict && opcode != HF_PROTOCOL_PR_IN && is_read_only (descriptor)) {
    hf_sgio_answer_sense (answer, SENSE_ILLEGAL_REQUEST, INVALID_COMMAND_OPERATION_CODE);
    return TRUE;
  }
  if (opcode == HF_PROTOCOL_CLEANUP || hf_queue_is_device (descriptor, ret_node))
    return opcode == HF_PROTOCOL_CLEANUP;
  /* As SG_IO's ENOTTY is answered. */
  hf_sgio_answer_sense (answer, SENSE_ABORTED, IO_PROCESS_TERMINATED);
  return TRUE;
}

/* The decoder has a whole request. */
static gboolean
execute (HfClient *client)
{
  HfProtocolRequest *request = &client->decoder.request;
  HfSgioAnswer answer = { .status = HF_SAM_GOOD };
  int descriptor = client->descriptor;
  HfQueueNode node;

  hf_trace (HF_TRACE_REQUEST, "pid=%d opcode=%02x action=%u length=%u", (int)client->peer.pid, request->cdb[0],
            request->cdb[1] & 0x1f, request->length);
  client->descriptor = -1;
  if (!answer_alone (client, descriptor, &node, &answer)) {
    gint64 deadline = hf_deadline_after_ms (client->rules->timeout_ms);

    if (client->stopping)
      deadline = MIN (deadline, client->stop_deadline);
    client->command = hf_vm_submit (client->vm, request, descriptor, &node, deadline, command_done, client);
    enter (client, PHASE_WAITING, deadline);
    return TRUE;
  }
  if (request->cdb[0] == HF_PROTOCOL_CLEANUP && answer.status == HF_SAM_GOOD)
    hf_vm_cleanup (client->vm, descriptor);
  else
    hf_queue_discard (client->queue, &client->peer, descriptor);
  return reply_alone (client, &answer);
}

/* ---- reading ---- */

static void
take_descriptors (HfClient *client, struct msghdr *message, guint *ret_n)
{
  gboolean wanted = hf_protocol_decoder_takes_descriptors (&client->decoder);

  *ret_n = 0;
  for (struct cmsghdr *part = CMSG_FIRSTHDR (message); part; part = CMSG_NXTHDR (message, part)) {
    gsize n = (part->cmsg_len - CMSG_LEN (0)) / sizeof (int);

    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
      continue;
    for (gsize i = 0; i < n; i++) {
      int descriptor;

      memcpy (&descriptor, CMSG_DATA (part) + i * sizeof (int), sizeof descriptor);
      (*ret_n)++;
      if (wanted && client->descriptor < 0)
        client->descriptor = descriptor;
      else
        hf_queue_discard (client->queue, &client->peer, descriptor);
    }
  }
}

/* recvmsg of at most wanted bytes. Number of bytes, 0 at the end of the stream, or a negative errno. */
static ssize_t
receive (HfClient *client, guint8 *bytes, gsize wanted, guint *ret_n_descriptors)
{
  union {
    struct cmsghdr align;
    char bytes[CMSG_SPACE (DESCRIPTORS_MAX * sizeof (int))];
  } control;
  struct iovec vector = { .iov_base = bytes, .iov_len = wanted };
  struct msghdr message = {
    .msg_iov = &vector, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes
  };
  ssize_t n = recvmsg (client->socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);

  if (n < 0)
    return -errno;
  take_descriptors (client, &message, ret_n_descriptors);
  /* Either far too many came, or one came and we are out of descriptors: the request cannot be served. */
  return message.msg_flags & MSG_CTRUNC && hf_protocol_decoder_takes_descriptors (&client->decoder) ? -EMFILE : n;
}

static gboolean
stream_end (HfClient *client)
{
  if (hf_protocol_decoder_end (&client->decoder) == HF_PROTOCOL_FAULT && !client->stopping)
    return end_with (client, hf_protocol_fault_to_string (client->decoder.fault));
  return end (client);
}

/* The first byte of a request starts its clock. */
static void
start_clock (HfClient *client)
{
  gint64 deadline = hf_deadline_after_ms (client->rules->request_timeout_ms);

  if (client->deadline >= 0)
    return;
  enter (client, PHASE_READING, deadline);
}

/* Reads once. ret_again: there may be more. */
static gboolean
read_in (HfClient *client, gboolean *ret_again)
{
  guint8 bytes[HF_PROTOCOL_DATA_MAX];
  guint n_descriptors = 0;
  gsize used;
  ssize_t n;

  if (hf_queue_is_clogged (client->queue, &client->peer))
    return end_with (client, "its file descriptors cannot be closed");
  n = receive (client, bytes, hf_protocol_decoder_wanted (&client->decoder), &n_descriptors);
  *ret_again = TRUE;
  if (n == -EINTR)
    return TRUE;
  if (n == -EAGAIN) {
    *ret_again = FALSE;
    return TRUE;
  }
  if (n == -EMFILE)
    return end_with (client, "file descriptors could not be received");
  if (n < 0)
    return end (client);
  if (n == 0)
    return stream_end (client);
  switch (hf_protocol_decoder_feed (&client->decoder, bytes, (gsize)n, n_descriptors, &used)) {
  case HF_PROTOCOL_REQUEST:
    *ret_again = FALSE; /* others have requests too */
    return execute (client);
  case HF_PROTOCOL_FAULT:
    return end_with (client, hf_protocol_fault_to_string (client->decoder.fault));
  case HF_PROTOCOL_MORE:
  default:
    if (hf_protocol_decoder_is_idle (&client->decoder))
      enter (client, PHASE_READING, -1);
    else
      start_clock (client);
    return TRUE;
  }
}

/* ---- the source ---- */

/* Goes on in the phase until it would wait. */
static gboolean
step (HfClient *client)
{
  gboolean again = TRUE;

  if (client->phase == PHASE_WRITING && !write_out (client))
    return FALSE;
  while (again && client->phase == PHASE_READING)
    if (!read_in (client, &again))
      return FALSE;
  return TRUE;
}

static gboolean
late (HfClient *client)
{
  HfSgioAnswer answer = { .status = HF_SAM_BUSY };
  g_autofree char *device = NULL;
  HfProtocolRequest request;
  gboolean begun;

  if (client->phase != PHASE_WAITING)
    return end_with (client, client->phase == PHASE_READING ? "a request was begun and not finished" : "a reply was not read");
  begun = hf_command_has_begun (client->command);
  device = hf_command_name_device (client->command);
  /* BUSY says that the command was not accepted (SAM-5 5.3.1). One that was sent may still be executed. */
  if (begun)
    hf_sgio_answer_sense (&answer, SENSE_ABORTED, COMMAND_TIMEOUT_DURING_PROCESSING);
  hf_log_peer (HF_LOG_WARNING, client->peer.pid, "client %d (uid %u): %s: no answer in time, %s", (int)client->peer.pid,
               (guint)client->peer.uid, device, begun ? "its result is not known" : "not sent, answered BUSY");
  request = *hf_command_get_request (client->command);
  log_out (client, &request, &answer, client->command);
  request.list = NULL;
  hf_command_abandon (client->command);
  client->command = NULL;
  return reply (client, &request, &answer, NULL) && step (client);
}

/* The peer is gone while its command is in flight: one that was sent ends first, its answer then finds nobody; one that was not
 * must not be any more, for its guest may run elsewhere by then. */
static gboolean
look_away (HfClient *client)
{
  if (!hf_command_has_begun (client->command))
    return end (client);
  g_source_remove_unix_fd (client->source, client->tag);
  client->tag = NULL;
  return TRUE;
}

static gboolean
dispatch (GSource *source, GSourceFunc callback, gpointer user_data)
{
  HfClient *client = ((ClientSource *)source)->client;
  GIOCondition condition = client->tag ? g_source_query_unix_fd (source, client->tag) : 0;
  gint64 now = client->alarm >= 0 ? g_get_monotonic_time () : 0;

  if (client->alarm >= 0 && now >= client->alarm)
    set_alarm (client, client->deadline);
  if (client->phase != PHASE_WAITING && condition)
    return step (client);
  if (client->phase == PHASE_WAITING && (condition & (G_IO_HUP | G_IO_ERR))) {
    if (!look_away (client))
      return FALSE;
  } else if (condition) {
    watch (client, 0); /* the next request, which is not read yet */
  }
  if (client->deadline >= 0 && now >= client->deadline)
    return late (client);
  return G_SOURCE_CONTINUE;
}

static GSourceFuncs client_functions = { .dispatch = dispatch };

HfClient *
hf_client_new (int socket, const HfPeer *peer, const HfClientRules *rules, HfQueue *queue, HfVms *vms)
{
  HfClient *client = g_new0 (HfClient, 1);

  client->socket = socket;
  client->descriptor = -1;
  client->peer = *peer;
  client->rules = rules;
  client->queue = queue;
  client->vms = vms;
  client->vm = hf_vms_connect (vms, peer);
  hf_protocol_decoder_init (&client->decoder);
  set_out (client, HF_PROTOCOL_WORD_SIZE);
  hf_protocol_encode_greeting (client->out);
  client->source = g_source_new (&client_functions, sizeof (ClientSource));
  ((ClientSource *)client->source)->client = client;
  /* It never runs a loop inside; what is blocked while it is dispatched wakes the loop twice. */
  g_source_set_can_recurse (client->source, TRUE);
  client->watched = G_IO_OUT;
  client->tag = g_source_add_unix_fd (client->source, socket, client->watched);
  client->alarm = -1;
  enter (client, PHASE_WRITING, hf_deadline_after_ms (rules->request_timeout_ms));
  g_source_attach (client->source, NULL);
  hf_trace (HF_TRACE_CLIENT_CONNECT, "pid=%d uid=%u start=%" G_GUINT64_FORMAT, (int)peer->pid, (guint)peer->uid,
            peer->start_time);
  return client;
}

void
hf_client_stop (HfClient *client, gint64 deadline)
{
  client->stopping = TRUE;
  client->stop_deadline = deadline;
  if (client->deadline >= 0)
    enter (client, client->phase, client->deadline);
  if (client->phase == PHASE_WAITING)
    return;
  if (hf_protocol_decoder_is_between (&client->decoder))
    close_stream (client);
  step (client);
}

void
hf_client_free (HfClient *client)
{
  if (!client)
    return;
  if (client->command)
    hf_command_abandon (client->command);
  if (client->descriptor >= 0)
    hf_queue_discard (client->queue, &client->peer, client->descriptor);
  g_source_destroy (client->source);
  g_source_unref (client->source);
  close (client->socket);
  hf_vms_disconnect (client->vms, client->vm);
  hf_protocol_decoder_clear (&client->decoder);
  g_free (client->out);
  g_free (client);
}

const HfPeer *
hf_client_get_peer (HfClient *client)
{
  return &client->peer;
}
