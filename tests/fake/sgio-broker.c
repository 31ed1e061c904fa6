/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * usage: sgio-broker SOCKET LOG
 *
 * The process behind the stand-in for SG_IO (sgio-standin.c): it has the iSCSI sessions, one for each URL and initiator name, and
 * executes commands, or misbehaves as the marker file says. It owns the sessions and a counter for each file, until it is killed.
 *
 * Thread: one for each connection, and one for each command. Commands of one session go one after the other, sessions side by
 * side. Delays and hangs are outside of that order, as the latency of a device with a queue is.
 *
 * Theory of operation: a marker file holds words WORD=VALUE; those in $HOLDFAST_STANDIN come first and are meant for all files.
 *   url=URL initiator=NAME   the logical unit and the nexus
 *   delay=MS                 each command takes so much longer
 * What follows is for PR IN and PR OUT, and with all=1 for every command:
 *   hang=MS                  the call stays away so long, whatever its timeout is
 *   status=HEX sense=HEX     the answer, in place of the logical unit's
 *   host=HEX driver=HEX      the bytes of that name in the header
 *   errno=N                  the call fails
 *   residual=N               in place of the real one, after the command was executed
 *   times=N                  only the first N commands with this file are disturbed
 * LOG gets a line at the begin and one at the end of each command.
 *
 * The session is a plain login: no TEST UNIT READY, so the caller sees the unit attentions that a nexus of its own would have.
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "sgio-standin.h"

#include <errno.h>
#include <fcntl.h>
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define WORDS_MAX 2047
#define PR_IN 0x5e
#define PR_OUT 0x5f
/* Bytes of the Linux SCSI layer. */
#define HOST_NO_CONNECT 0x01
#define HOST_TIME_OUT 0x03
#define DRIVER_SENSE 0x08
/* The block layer gives an SG_IO on a block node at least this long. */
#define TIMEOUT_MIN_S 7

typedef struct {
  char url[512], initiator[256];
  long delay, hang, times, error, residual;
  int status, host, driver;
  bool all, has_residual;
  uint8_t sense[STANDIN_SENSE_MAX];
  unsigned sense_length;
} Words;

typedef struct Session {
  struct Session *next;
  char url[512], initiator[256];
  pthread_mutex_t lock;
  struct iscsi_context *context; /* NULL: not logged in */
  int lun;
} Session;

typedef struct Marker {
  struct Marker *next;
  dev_t device;
  ino_t inode;
  long disturbed;
} Marker;

/* One command, on its thread. */
typedef struct {
  int connection, fd;
  long number;
  struct stat file;
  StandinRequest request;
  StandinReply reply;
  uint8_t data[STANDIN_DATA_MAX];
} Command;

static pthread_mutex_t lists_lock = PTHREAD_MUTEX_INITIALIZER;
static Session *sessions;
static Marker *markers;
static int log_fd = -1;

static void
fail (const char *what)
{
  fprintf (stderr, "sgio-broker: %s: %s\n", what, strerror (errno));
  exit (1);
}

/* ---- marker files ---- */

static unsigned
parse_hex (const char *text, uint8_t *ret, unsigned max)
{
  unsigned n = 0, byte;

  while (n < max && sscanf (text + 2 * n, "%2x", &byte) == 1)
    ret[n++] = byte;
  return n;
}

static void
take_word (const char *word, const char *value, Words *words)
{
  const struct {
    const char *name;
    long *number;
  } numbers[] = { { "delay", &words->delay },
                  { "hang", &words->hang },
                  { "times", &words->times },
                  { "errno", &words->error },
                  { "residual", &words->residual } };
  const struct {
    const char *name;
    int *number;
  } hex[] = { { "status", &words->status }, { "host", &words->host }, { "driver", &words->driver } };

  for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; i++)
    if (!strcmp (word, numbers[i].name))
      *numbers[i].number = strtol (value, NULL, 10);
  for (unsigned i = 0; i < sizeof hex / sizeof *hex; i++)
    if (!strcmp (word, hex[i].name))
      *hex[i].number = strtol (value, NULL, 16);
  if (!strcmp (word, "url"))
    snprintf (words->url, sizeof words->url, "%s", value);
  else if (!strcmp (word, "initiator"))
    snprintf (words->initiator, sizeof words->initiator, "%s", value);
  else if (!strcmp (word, "sense"))
    words->sense_length = parse_hex (value, words->sense, sizeof words->sense);
  else if (!strcmp (word, "all"))
    words->all = *value == '1';
  else if (!strcmp (word, "residual"))
    words->has_residual = true;
}

static void
parse_words (char *text, Words *words)
{
  char *saveptr, *word, *value;

  for (word = strtok_r (text, " \n", &saveptr); word; word = strtok_r (NULL, " \n", &saveptr)) {
    value = strchr (word, '=');
    if (value) {
      *value++ = '\0';
      take_word (word, value, words);
    }
  }
}

/* FALSE with errno. */
static bool
load_words (int fd, Words *words)
{
  char text[WORDS_MAX + 1], defaults[WORDS_MAX + 1], path[64];
  const char *environment = getenv ("HOLDFAST_STANDIN");
  ssize_t length;
  int readable;

  /* The descriptor may be for writing only, as a device's may be. */
  snprintf (path, sizeof path, "/proc/self/fd/%d", fd);
  readable = open (path, O_RDONLY | O_CLOEXEC);
  if (readable < 0)
    return false;
  length = pread (readable, text, WORDS_MAX, 0);
  close (readable);
  if (length < 0)
    return false;
  text[length] = '\0';
  memset (words, 0, sizeof *words);
  words->times = -1;
  words->status = words->host = words->driver = -1;
  snprintf (defaults, sizeof defaults, "%s", environment ? environment : "");
  parse_words (defaults, words);
  parse_words (text, words);
  return true;
}

/* Counts a command that may be disturbed. FALSE: the file's times are over. */
static bool
take_disturbance (const struct stat *file, long times)
{
  Marker *marker;
  bool disturb;

  if (times < 0)
    return true;
  pthread_mutex_lock (&lists_lock);
  for (marker = markers; marker; marker = marker->next)
    if (marker->device == file->st_dev && marker->inode == file->st_ino)
      break;
  if (!marker && (marker = calloc (1, sizeof *marker))) {
    marker->device = file->st_dev;
    marker->inode = file->st_ino;
    marker->next = markers;
    markers = marker;
  }
  disturb = marker && marker->disturbed++ < times;
  pthread_mutex_unlock (&lists_lock);
  return disturb;
}

/* ---- sessions ---- */

static Session *
find_session (const Words *words)
{
  Session *session;

  pthread_mutex_lock (&lists_lock);
  for (session = sessions; session; session = session->next)
    if (!strcmp (session->url, words->url) && !strcmp (session->initiator, words->initiator))
      break;
  if (!session && (session = calloc (1, sizeof *session))) {
    memcpy (session->url, words->url, sizeof session->url);
    memcpy (session->initiator, words->initiator, sizeof session->initiator);
    pthread_mutex_init (&session->lock, NULL);
    session->next = sessions;
    sessions = session;
  }
  pthread_mutex_unlock (&lists_lock);
  return session;
}

static void
session_drop (Session *session)
{
  if (session->context)
    iscsi_destroy_context (session->context);
  session->context = NULL;
}

/* The same initiator name and ISID at each login. */
static bool
session_login (Session *session)
{
  struct iscsi_url *url;
  bool ok = false;

  if (session->context)
    return true;
  session->context = iscsi_create_context (session->initiator);
  if (!session->context)
    return false;
  iscsi_set_noautoreconnect (session->context, 1);
  iscsi_set_timeout (session->context, TIMEOUT_MIN_S);
  url = iscsi_parse_full_url (session->context, session->url);
  if (url) {
    session->lun = url->lun;
    /* A second session with the same name and ISID would end the first one (RFC 7143 6.3.5), so each logical unit has its own. */
    iscsi_set_isid_en (session->context, 0x23d, url->lun);
    iscsi_set_session_type (session->context, ISCSI_SESSION_NORMAL);
    iscsi_set_targetname (session->context, url->target);
    ok = iscsi_connect_sync (session->context, url->portal) == 0 && iscsi_login_sync (session->context) == 0;
    iscsi_destroy_url (url);
  }
  if (!ok)
    session_drop (session);
  return ok;
}

static void
take_answer (Command *command, const struct scsi_task *task)
{
  const StandinRequest *request = &command->request;
  StandinReply *reply = &command->reply;
  unsigned size = task->datain.size > 0 ? task->datain.size : 0;

  reply->status = task->status;
  if (task->status == SCSI_STATUS_CHECK_CONDITION) {
    /* RFC 7143 11.4.7.2: two bytes of length, then the sense data. */
    if (size > 2) {
      reply->sense_length = size - 2 < STANDIN_SENSE_MAX ? size - 2 : STANDIN_SENSE_MAX;
      memcpy (reply->sense, task->datain.data + 2, reply->sense_length);
    }
    reply->residual = request->length;
  } else if (request->direction == STANDIN_FROM_DEVICE) {
    reply->data_length = size < request->length ? size : request->length;
    memcpy (command->data, task->datain.data, reply->data_length);
    reply->residual = request->length - reply->data_length;
  } else if (task->residual_status == SCSI_RESIDUAL_UNDERFLOW) {
    reply->residual = task->residual;
  }
}

static void
session_execute (Session *session, Command *command)
{
  static const int directions[] = {
    [STANDIN_NO_DATA] = SCSI_XFER_NONE, [STANDIN_TO_DEVICE] = SCSI_XFER_WRITE, [STANDIN_FROM_DEVICE] = SCSI_XFER_READ
  };
  StandinRequest *request = &command->request;
  struct iscsi_data out = { .size = request->length, .data = command->data };
  int timeout_s = request->timeout_ms / 1000 + 1;
  struct scsi_task *task, *done;

  pthread_mutex_lock (&session->lock);
  task = scsi_create_task (request->cdb_length, request->cdb, directions[request->direction], request->length);
  if (!task || !session_login (session)) {
    command->reply.host = HOST_NO_CONNECT;
  } else {
    iscsi_set_timeout (session->context, timeout_s > TIMEOUT_MIN_S ? timeout_s : TIMEOUT_MIN_S);
    done = iscsi_scsi_command_sync (session->context, session->lun, task, request->direction == STANDIN_TO_DEVICE ? &out : NULL);
    if (done && task->status >= 0 && task->status <= 0xff) {
      take_answer (command, task);
    } else {
      command->reply.host = task->status == SCSI_STATUS_TIMEOUT ? HOST_TIME_OUT : HOST_NO_CONNECT;
      session_drop (session);
    }
  }
  if (task)
    scsi_free_scsi_task (task);
  pthread_mutex_unlock (&session->lock);
}

/* ---- a command ---- */

static void
wait_ms (long ms)
{
  struct timespec left = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 };

  while (ms > 0 && nanosleep (&left, &left) < 0 && errno == EINTR)
    ;
}

static void
log_line (const char *what, const Command *command)
{
  const StandinRequest *request = &command->request;
  char line[256];
  int length =
      snprintf (line, sizeof line, "%s number=%ld device=%ld cdb=", what, command->number, command->file.st_mtim.tv_nsec);

  for (unsigned i = 0; i < request->cdb_length; i++)
    length += snprintf (line + length, sizeof line - length, "%02x", request->cdb[i]);
  length +=
      snprintf (line + length, sizeof line - length, " length=%u timeout=%u status=%x host=%x residual=%d\n", request->length,
                request->timeout_ms, (unsigned)command->reply.status, (unsigned)command->reply.host, command->reply.residual);
  /* One write: lines of several threads stay whole. */
  if (write (log_fd, line, length) != length)
    fail ("the log");
}

/* What the words put in place of the device's answer. TRUE: nothing is sent. */
static bool
play_answer (const Words *words, Command *command)
{
  StandinReply *reply = &command->reply;

  if (words->status < 0 && words->host < 0 && words->driver < 0 && words->sense_length == 0)
    return false;
  if (words->sense_length) {
    reply->status = SCSI_STATUS_CHECK_CONDITION;
    memcpy (reply->sense, words->sense, words->sense_length);
    reply->sense_length = words->sense_length;
  }
  if (words->status >= 0)
    reply->status = words->status;
  if (words->host >= 0)
    reply->host = words->host;
  if (words->driver >= 0)
    reply->driver = words->driver;
  reply->residual = command->request.length;
  return true;
}

static void
execute (Command *command)
{
  StandinReply *reply = &command->reply;
  uint8_t opcode = command->request.cdb[0];
  Session *session;
  Words words;
  bool disturb;

  if (fstat (command->fd, &command->file) < 0 || !load_words (command->fd, &words)) {
    reply->error = errno;
    return;
  }
  disturb = (opcode == PR_IN || opcode == PR_OUT || words.all) && take_disturbance (&command->file, words.times);
  log_line ("begin", command);
  wait_ms (words.delay + (disturb ? words.hang : 0));
  if (disturb && words.error) {
    reply->error = words.error;
  } else if (!disturb || !play_answer (&words, command)) {
    session = find_session (&words);
    if (session)
      session_execute (session, command);
    else
      reply->error = ENOMEM;
    if (disturb && words.has_residual)
      reply->residual = words.residual;
  }
  if (reply->sense_length)
    reply->driver |= DRIVER_SENSE;
  log_line ("end", command);
}

static void *
command_thread (void *data)
{
  Command *command = data;
  struct iovec parts[2] = { { &command->reply, sizeof command->reply }, { command->data, 0 } };
  struct msghdr message = { .msg_iov = parts, .msg_iovlen = 2 };

  execute (command);
  close (command->fd);
  command->reply.id = command->request.id;
  parts[1].iov_len = command->reply.data_length;
  /* It fails if the program is gone, which is no fault. */
  (void)!sendmsg (command->connection, &message, MSG_NOSIGNAL);
  close (command->connection);
  free (command);
  return NULL;
}

/* ---- connections ---- */

/* FALSE: the connection ended. */
static bool
receive_command (int connection, Command *command)
{
  union {
    struct cmsghdr header;
    char bytes[CMSG_SPACE (sizeof (int))];
  } control;
  struct iovec parts[2] = { { &command->request, sizeof command->request }, { command->data, sizeof command->data } };
  struct msghdr message = { .msg_iov = parts, .msg_iovlen = 2, .msg_control = &control, .msg_controllen = sizeof control };
  struct cmsghdr *header;
  ssize_t received;

  do
    received = recvmsg (connection, &message, MSG_CMSG_CLOEXEC);
  while (received < 0 && errno == EINTR);
  header = received > 0 ? CMSG_FIRSTHDR (&message) : NULL;
  if (received < (ssize_t)sizeof command->request || !header || header->cmsg_type != SCM_RIGHTS)
    return false;
  memcpy (&command->fd, CMSG_DATA (header), sizeof command->fd);
  return true;
}

static void
start_thread (void *(*function) (void *), void *data)
{
  pthread_t thread;

  errno = pthread_create (&thread, NULL, function, data);
  if (errno)
    fail ("a thread");
  pthread_detach (thread);
}

static void *
connection_thread (void *data)
{
  static long counter;
  int connection = (int)(intptr_t)data;

  for (;;) {
    Command *command = malloc (sizeof *command);

    if (!command)
      fail ("memory");
    memset (command, 0, offsetof (Command, data));
    if (!receive_command (connection, command)) {
      free (command);
      break;
    }
    command->number = __atomic_add_fetch (&counter, 1, __ATOMIC_RELAXED);
    command->connection = fcntl (connection, F_DUPFD_CLOEXEC, 0);
    start_thread (command_thread, command);
  }
  close (connection);
  return NULL;
}

int
main (int argc, char **argv)
{
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  int listener;

  if (argc != 3) {
    fprintf (stderr, "usage: sgio-broker SOCKET LOG\n");
    return 1;
  }
  log_fd = open (argv[2], O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
  if (log_fd < 0)
    fail (argv[2]);
  listener = socket (AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  snprintf (address.sun_path, sizeof address.sun_path, "%s", argv[1]);
  if (listener < 0 || bind (listener, (struct sockaddr *)&address, sizeof address) < 0 || listen (listener, 64) < 0)
    fail (argv[1]);
  for (;;) {
    int connection = accept4 (listener, NULL, NULL, SOCK_CLOEXEC);

    if (connection < 0)
      fail ("a connection");
    start_thread (connection_thread, (void *)(intptr_t)connection);
  }
}
