/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Owns one listening socket and the thread that serves it. Thread: see iscsi-target.h. */

#include "config.h"

#include "iscsi-target.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define HEADER_LENGTH 48
/* RFC 7143 11.2.1.2 */
#define LOGIN_REQUEST 0x03
#define LOGOUT_REQUEST 0x06
#define SCSI_COMMAND 0x01
#define SCSI_RESPONSE 0x21
#define LOGIN_RESPONSE 0x23
#define DATA_IN 0x25
#define LOGOUT_RESPONSE 0x26

typedef struct {
  guint8 header[HEADER_LENGTH];
  guint8 data[65536];
  gsize length;
} Pdu;

typedef struct {
  FakeTarget *target;
  int fd;
  guint32 status_number;
  gboolean login_begun;
} Connection;

static void
put32 (guint8 *at, guint32 value)
{
  value = htonl (value);
  memcpy (at, &value, sizeof value);
}

static guint32
get32 (const guint8 *at)
{
  guint32 value;

  memcpy (&value, at, sizeof value);
  return ntohl (value);
}

static gboolean
receive_all (int fd, void *buffer, gsize length)
{
  return length == 0 || recv (fd, buffer, length, MSG_WAITALL) == (gssize)length;
}

static gboolean
receive_pdu (Connection *connection, Pdu *pdu)
{
  gsize padded;

  if (!receive_all (connection->fd, pdu->header, HEADER_LENGTH))
    return FALSE;
  pdu->length = get32 (pdu->header + 4) & 0xffffff;
  padded = (pdu->length + 3) & ~(gsize)3;
  return padded <= sizeof pdu->data && receive_all (connection->fd, pdu->data, padded);
}

/* The initiator task tag, the serial numbers and the data length are filled in here. */
static gboolean
send_pdu (Connection *connection, guint8 *header, const Pdu *request, const void *data, gsize length)
{
  const guint8 zeros[4] = { 0 };
  /* RFC 7143 4.2.2.1: an immediate command (bit 6) does not use up its number. */
  guint32 next = get32 (request->header + 24) + !(request->header[0] & 0x40);

  put32 (header + 4, length);
  memcpy (header + 16, request->header + 16, 4);
  put32 (header + 24, connection->status_number++);
  put32 (header + 28, next);
  put32 (header + 32, next + 31);
  return send (connection->fd, header, HEADER_LENGTH, MSG_NOSIGNAL) == HEADER_LENGTH
         && (length == 0 || send (connection->fd, data, length, MSG_NOSIGNAL) == (gssize)length)
         && send (connection->fd, zeros, -length & 3, MSG_NOSIGNAL) >= 0;
}

static gboolean
answer_login (Connection *connection, const Pdu *request)
{
  static const char keys[] =
      "HeaderDigest=None\0DataDigest=None\0InitialR2T=Yes\0ImmediateData=Yes\0MaxRecvDataSegmentLength=8192\0"
      "MaxBurstLength=65536\0FirstBurstLength=65536\0ErrorRecoveryLevel=0";
  FakeTarget *target = connection->target;
  guint8 header[HEADER_LENGTH] = { LOGIN_RESPONSE, request->header[1] & 0x8f };
  gboolean security = (request->header[1] & 0x0c) == 0;
  g_autofree char *address = NULL;

  memcpy (header + 8, request->header + 8, 6);
  header[15] = 1;
  if (target->login == FAKE_LOGIN_REFUSED) {
    header[36] = 2;
    header[37] = 1;
    return send_pdu (connection, header, request, NULL, 0);
  }
  if (target->login == FAKE_LOGIN_REDIRECT) {
    header[36] = 1;
    header[37] = 1;
    address = g_strconcat ("TargetAddress=", target->redirect, NULL);
    return send_pdu (connection, header, request, address, strlen (address) + 1);
  }
  if (security)
    return send_pdu (connection, header, request, "AuthMethod=None", 16);
  return send_pdu (connection, header, request, keys, sizeof keys);
}

static gboolean
take_login (Connection *connection, const Pdu *request)
{
  static const char garbage[200] = "HTTP/1.1 400 Bad Request\r\n\r\n";
  FakeTarget *target = connection->target;

  if (!connection->login_begun) {
    connection->login_begun = TRUE;
    memcpy (target->isid, request->header + 8, sizeof target->isid);
    memcpy (target->names, request->data, MIN (request->length, sizeof target->names));
    g_atomic_int_inc (&target->n_logins);
  }
  switch (target->login) {
  case FAKE_LOGIN_SILENT:
    return TRUE;
  case FAKE_LOGIN_CLOSE:
    return FALSE;
  case FAKE_LOGIN_GARBAGE:
    return send (connection->fd, garbage, sizeof garbage, MSG_NOSIGNAL) > 0;
  default:
    return answer_login (connection, request);
  }
}

static gboolean
send_data_in (Connection *connection, const Pdu *request, const FakeAnswer *answer)
{
  guint8 header[HEADER_LENGTH] = { DATA_IN, 0x80 };
  gboolean ok;

  put32 (header + 20, 0xffffffff);
  ok = send_pdu (connection, header, request, answer->data, answer->data_length);
  connection->status_number--; /* without status a Data-In PDU has no number */
  return ok;
}

static gboolean
take_command (Connection *connection, const Pdu *request)
{
  FakeTarget *target = connection->target;
  guint number = g_atomic_int_add (&target->n_commands, 1);
  const FakeAnswer *answer = &target->answers[MIN (number, target->n_answers - 1)];
  guint8 header[HEADER_LENGTH] = { SCSI_RESPONSE, 0x80 | answer->residual_flag, 0, answer->status };
  guint8 sense[258] = { 0 };
  gsize length = answer->sense ? 2 + answer->sense_length : 0;

  memcpy (target->lun, request->header + 8, sizeof target->lun);
  memcpy (target->data_out, request->data, MIN (request->length, sizeof target->data_out));
  if (answer->act == FAKE_SILENT)
    return TRUE;
  if (answer->act == FAKE_CLOSE)
    return FALSE;
  if (answer->data && !send_data_in (connection, request, answer))
    return FALSE;
  put32 (header + 44, answer->residual);
  if (answer->sense) {
    sense[0] = answer->sense_length >> 8;
    sense[1] = answer->sense_length & 0xff;
    memcpy (sense + 2, answer->sense, answer->sense_length);
  }
  return send_pdu (connection, header, request, sense, length) && answer->act == FAKE_ANSWER;
}

static gboolean
take_logout (Connection *connection, const Pdu *request)
{
  guint8 header[HEADER_LENGTH] = { LOGOUT_RESPONSE, 0x80 };

  g_atomic_int_inc (&connection->target->n_logouts);
  send_pdu (connection, header, request, NULL, 0);
  return FALSE;
}

static gboolean
serve_one (Connection *connection, const Pdu *request)
{
  switch (request->header[0] & 0x3f) {
  case LOGIN_REQUEST:
    return take_login (connection, request);
  case SCSI_COMMAND:
    return take_command (connection, request);
  case LOGOUT_REQUEST:
    return take_logout (connection, request);
  default:
    return TRUE;
  }
}

static gpointer
serve (gpointer data)
{
  FakeTarget *target = data;
  g_autofree Pdu *pdu = g_new0 (Pdu, 1);
  int fd;

  while ((fd = accept4 (target->listener, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
    Connection connection = { .target = target, .fd = fd, .status_number = 1 };
    gboolean received;

    g_atomic_int_set (&target->connection, fd);
    while ((received = receive_pdu (&connection, pdu)) && serve_one (&connection, pdu))
      ;
    if (!received)
      g_atomic_int_inc (&target->n_closed);
    g_atomic_int_set (&target->connection, -1);
    close (fd);
  }
  return NULL;
}

void
fake_target_start (FakeTarget *target)
{
  struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl (INADDR_LOOPBACK) };
  socklen_t length = sizeof address;

  target->connection = -1;
  target->listener = socket (AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  g_assert_cmpint (target->listener, >=, 0);
  g_assert_cmpint (bind (target->listener, (struct sockaddr *)&address, sizeof address), ==, 0);
  g_assert_cmpint (listen (target->listener, 8), ==, 0);
  g_assert_cmpint (getsockname (target->listener, (struct sockaddr *)&address, &length), ==, 0);
  target->port = ntohs (address.sin_port);
  target->thread = g_thread_new ("fake-target", serve, target);
}

void
fake_target_stop (FakeTarget *target)
{
  int fd = g_atomic_int_get (&target->connection);

  shutdown (target->listener, SHUT_RDWR);
  if (fd >= 0)
    shutdown (fd, SHUT_RDWR);
  g_thread_join (target->thread);
  close (target->listener);
  g_free (target->redirect);
}
