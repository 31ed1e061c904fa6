/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A stand-in for the kernel's SG_IO: a module for LD_PRELOAD that makes a small text file look like a block device whose SG_IO
 * goes to an iSCSI logical unit. So a pr-helper, and any other program that sends SG_IO, runs against a real target on a machine
 * without SCSI. It owns the iSCSI sessions, one for each URL and initiator name, and counters for each file.
 *
 * Thread: any. Commands of one session go one after the other, sessions side by side. Delays and hangs are outside of that order,
 * as the latency of a device with a queue is.
 *
 * Theory of operation: a marker file holds words WORD=VALUE behind the magic; the same words in $HOLDFAST_STANDIN come first and
 * are meant for all files. url=URL initiator=NAME   the logical unit and the nexus delay=MS                 each command takes so
 * much longer What follows is for PR IN and PR OUT, and with all=1 for every command: hang=MS                  the call stays
 * away so long, whatever its timeout is status=HEX sense=HEX     the answer, in place of the logical unit's host=HEX driver=HEX
 * the bytes of that name in the header errno=N                  the call fails residual=N               in place of the real one,
 * after the command was executed times=N                  only the first N commands (in this process, for this file) are
 * disturbed $HOLDFAST_STANDIN_LOG: a file that gets a line at the begin and one at the end of each command.
 *
 * The session is a plain login: no TEST UNIT READY, so the caller sees the unit attentions that a nexus of its own would have.
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <linux/bsg.h>
#include <pthread.h>
#include <scsi/sg.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#define STANDIN_PUBLIC __attribute__ ((visibility ("default")))
#define MAGIC "holdfast-sgio-standin "
#define MARKER_MAX 2047
#define SENSE_MAX 252

/* Bytes of the Linux SCSI layer. */
#define HOST_NO_CONNECT 0x01
#define HOST_TIME_OUT 0x03
#define DRIVER_SENSE 0x08
#define SG_VERSION 30536
#define SD_MAJOR 8
/* The block layer gives an SG_IO on a block node at least this long. */
#define TIMEOUT_MIN_S 7

typedef struct {
  char url[512], initiator[256];
  long delay, hang, times, error, residual;
  int status, host, driver;
  bool all, has_residual;
  uint8_t sense[SENSE_MAX];
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

/* One SG_IO, whichever header it came in. */
typedef struct {
  uint8_t cdb[SCSI_CDB_MAX_SIZE];
  unsigned cdb_length;
  int direction; /* SCSI_XFER_ */
  uint8_t *data;
  unsigned length, timeout_ms;
  int status, host, driver;
  long residual;
  uint8_t sense[SENSE_MAX];
  unsigned sense_length;
} Command;

static pthread_mutex_t lists_lock = PTHREAD_MUTEX_INITIALIZER;
static Session *sessions;
static Marker *markers;

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
parse_words (char *text, Words *words)
{
  char *saveptr, *word, *value;

  for (word = strtok_r (text, " \n", &saveptr); word; word = strtok_r (NULL, " \n", &saveptr)) {
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

    value = strchr (word, '=');
    if (!value)
      continue;
    *value++ = '\0';
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
}

static int
real_fstat (int fd, struct stat *buffer)
{
  static int (*next) (int, struct stat *);

  if (!next)
    next = (int (*) (int, struct stat *))dlsym (RTLD_NEXT, "fstat");
  return next (fd, buffer);
}

/* Is it a marker file? text: MARKER_MAX + 1 bytes, the words behind the magic. Leaves errno as it is. */
static bool
read_marker (int fd, const struct stat *file, char *text)
{
  int saved = errno;
  bool found = false;
  ssize_t length;

  if (S_ISREG (file->st_mode) && file->st_size > (off_t)strlen (MAGIC) && file->st_size <= MARKER_MAX) {
    length = pread (fd, text, MARKER_MAX, 0);
    if (length > (ssize_t)strlen (MAGIC) && !memcmp (text, MAGIC, strlen (MAGIC))) {
      text[length] = '\0';
      memset (text, ' ', strlen (MAGIC));
      found = true;
    }
  }
  errno = saved;
  return found;
}

static bool
load_words (int fd, struct stat *ret_file, Words *words)
{
  char text[MARKER_MAX + 1], defaults[MARKER_MAX + 1];
  const char *environment = getenv ("HOLDFAST_STANDIN");

  if (real_fstat (fd, ret_file) < 0 || !read_marker (fd, ret_file, text))
    return false;
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
  unsigned size = task->datain.size > 0 ? task->datain.size : 0;

  command->status = task->status;
  command->residual = 0;
  if (task->status == SCSI_STATUS_CHECK_CONDITION) {
    /* RFC 7143 11.4.7.2: two bytes of length, then the sense data. */
    if (size > 2) {
      command->sense_length = size - 2 < SENSE_MAX ? size - 2 : SENSE_MAX;
      memcpy (command->sense, task->datain.data + 2, command->sense_length);
    }
    command->residual = command->length;
  } else if (command->direction == SCSI_XFER_READ) {
    if (size > command->length)
      size = command->length;
    memcpy (command->data, task->datain.data, size);
    command->residual = command->length - size;
  } else if (task->residual_status == SCSI_RESIDUAL_UNDERFLOW) {
    command->residual = task->residual;
  }
}

static void
session_execute (Session *session, Command *command)
{
  struct iscsi_data out = { .size = command->length, .data = command->data };
  unsigned timeout_s = command->timeout_ms / 1000 + 1;
  struct scsi_task *task, *done;

  pthread_mutex_lock (&session->lock);
  task = scsi_create_task (command->cdb_length, command->cdb, command->direction, command->length);
  if (!task || !session_login (session)) {
    command->host = HOST_NO_CONNECT;
  } else {
    iscsi_set_timeout (session->context, timeout_s > TIMEOUT_MIN_S ? timeout_s : TIMEOUT_MIN_S);
    done = iscsi_scsi_command_sync (session->context, session->lun, task, command->direction == SCSI_XFER_WRITE ? &out : NULL);
    if (done && task->status >= 0 && task->status <= 0xff) {
      take_answer (command, task);
    } else {
      command->host = task->status == SCSI_STATUS_TIMEOUT ? HOST_TIME_OUT : HOST_NO_CONNECT;
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
log_line (const char *what, long number, const struct stat *file, const Command *command)
{
  const char *path = getenv ("HOLDFAST_STANDIN_LOG");
  char line[256];
  int length, fd;

  if (!path)
    return;
  length = snprintf (line, sizeof line, "%s number=%ld inode=%lu cdb=", what, number, (unsigned long)file->st_ino);
  for (unsigned i = 0; i < command->cdb_length; i++)
    length += snprintf (line + length, sizeof line - length, "%02x", command->cdb[i]);
  length +=
      snprintf (line + length, sizeof line - length, " length=%u timeout=%u status=%x host=%x residual=%ld\n", command->length,
                command->timeout_ms, (unsigned)command->status, (unsigned)command->host, command->residual);
  fd = open (path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
  if (fd >= 0) {
    /* One write: lines of several threads stay whole. What a full disk loses, the test misses. */
    if (write (fd, line, length) != length)
      abort ();
    close (fd);
  }
}

/* What the words put in place of the device's answer. TRUE: nothing is sent. */
static bool
play_answer (const Words *words, Command *command)
{
  bool played = words->status >= 0 || words->host >= 0 || words->driver >= 0 || words->sense_length > 0;

  if (words->status >= 0)
    command->status = words->status;
  if (words->sense_length) {
    command->status = words->status >= 0 ? words->status : SCSI_STATUS_CHECK_CONDITION;
    memcpy (command->sense, words->sense, words->sense_length);
    command->sense_length = words->sense_length;
  }
  if (words->host >= 0)
    command->host = words->host;
  if (words->driver >= 0)
    command->driver = words->driver;
  if (played)
    command->residual = command->length;
  return played;
}

/* 0 or an errno. */
static int
run_command (const Words *words, const struct stat *file, Command *command)
{
  static long counter;
  long number = __atomic_add_fetch (&counter, 1, __ATOMIC_RELAXED);
  bool is_pr = command->cdb[0] == 0x5e || command->cdb[0] == 0x5f;
  bool disturb = (is_pr || words->all) && take_disturbance (file, words->times);
  Session *session;
  int error = 0;

  log_line ("begin", number, file, command);
  wait_ms (words->delay + (disturb ? words->hang : 0));
  if (disturb && words->error) {
    error = words->error;
  } else if (!disturb || !play_answer (words, command)) {
    session = find_session (words);
    if (session)
      session_execute (session, command);
    else
      error = ENOMEM;
    if (disturb && words->has_residual)
      command->residual = words->residual;
  }
  if (command->sense_length)
    command->driver |= DRIVER_SENSE;
  log_line ("end", number, file, command);
  return error;
}

static int
run_v3 (const Words *words, const struct stat *file, sg_io_hdr_t *header)
{
  Command command = { .timeout_ms = header->timeout, .length = header->dxfer_len, .data = header->dxferp };
  int error;

  if (header->cmd_len < 6 || header->cmd_len > sizeof command.cdb)
    return EMSGSIZE;
  if (header->iovec_count)
    return EINVAL;
  command.cdb_length = header->cmd_len;
  memcpy (command.cdb, header->cmdp, header->cmd_len);
  command.direction = header->dxfer_direction == SG_DXFER_TO_DEV     ? SCSI_XFER_WRITE
                      : header->dxfer_direction == SG_DXFER_FROM_DEV ? SCSI_XFER_READ
                                                                     : SCSI_XFER_NONE;
  if (command.direction == SCSI_XFER_NONE || command.length == 0) {
    command.direction = SCSI_XFER_NONE;
    command.length = 0;
  }
  error = run_command (words, file, &command);
  if (error)
    return error;
  header->status = command.status;
  header->masked_status = command.status >> 1 & 0x1f;
  header->host_status = command.host;
  header->driver_status = command.driver;
  header->resid = command.residual;
  header->sb_len_wr = command.sense_length < header->mx_sb_len ? command.sense_length : header->mx_sb_len;
  if (header->sb_len_wr)
    memcpy (header->sbp, command.sense, header->sb_len_wr);
  header->info = command.status || command.host || command.driver ? SG_INFO_CHECK : SG_INFO_OK;
  return 0;
}

static int
run_v4 (const Words *words, const struct stat *file, struct sg_io_v4 *header)
{
  Command command = { .timeout_ms = header->timeout };
  unsigned sense;
  int error;

  if (header->request_len < 6 || header->request_len > sizeof command.cdb)
    return EMSGSIZE;
  command.cdb_length = header->request_len;
  memcpy (command.cdb, (const void *)(uintptr_t)header->request, header->request_len);
  command.direction = header->dout_xfer_len ? SCSI_XFER_WRITE : header->din_xfer_len ? SCSI_XFER_READ : SCSI_XFER_NONE;
  command.length = header->dout_xfer_len ? header->dout_xfer_len : header->din_xfer_len;
  command.data = (uint8_t *)(uintptr_t)(header->dout_xfer_len ? header->dout_xferp : header->din_xferp);
  error = run_command (words, file, &command);
  if (error)
    return error;
  header->device_status = command.status;
  header->transport_status = command.host;
  header->driver_status = command.driver;
  header->din_resid = command.direction == SCSI_XFER_READ ? command.residual : 0;
  header->dout_resid = command.direction == SCSI_XFER_WRITE ? command.residual : 0;
  sense = command.sense_length < header->max_response_len ? command.sense_length : header->max_response_len;
  header->response_len = sense;
  if (sense)
    memcpy ((void *)(uintptr_t)header->response, command.sense, sense);
  header->info = command.status || command.host || command.driver ? SG_INFO_CHECK : SG_INFO_OK;
  return 0;
}

/* ---- what the program calls ---- */

static void
make_block_device (mode_t *mode, dev_t *device, ino_t inode)
{
  *mode = (*mode & ~(mode_t)S_IFMT) | S_IFBLK;
  /* A number that no disk of this machine has, the same for the same file. */
  *device = makedev (SD_MAJOR, 0xf0000 | (inode & 0xffff));
}

STANDIN_PUBLIC int
fstat (int fd, struct stat *buffer)
{
  char text[MARKER_MAX + 1];
  int result = real_fstat (fd, buffer);

  if (result == 0 && read_marker (fd, buffer, text))
    make_block_device (&buffer->st_mode, &buffer->st_rdev, buffer->st_ino);
  return result;
}

STANDIN_PUBLIC int
fstat64 (int fd, struct stat64 *buffer)
{
  static int (*next) (int, struct stat64 *);
  char text[MARKER_MAX + 1];
  struct stat file;
  int result;

  if (!next)
    next = (int (*) (int, struct stat64 *))dlsym (RTLD_NEXT, "fstat64");
  result = next (fd, buffer);
  if (result == 0 && real_fstat (fd, &file) == 0 && read_marker (fd, &file, text))
    make_block_device (&buffer->st_mode, &buffer->st_rdev, buffer->st_ino);
  return result;
}

static int
call_next_ioctl (int fd, unsigned long request, void *argument)
{
  static int (*next) (int, unsigned long, ...);

  if (!next)
    next = (int (*) (int, unsigned long, ...))dlsym (RTLD_NEXT, "ioctl");
  return next (fd, request, argument);
}

STANDIN_PUBLIC int
ioctl (int fd, unsigned long request, ...)
{
  struct stat file;
  Words words;
  void *argument;
  va_list list;
  int error;

  va_start (list, request);
  argument = va_arg (list, void *);
  va_end (list);
  if ((request != SG_IO && request != SG_GET_VERSION_NUM) || !load_words (fd, &file, &words))
    return call_next_ioctl (fd, request, argument);
  if (request == SG_GET_VERSION_NUM) {
    *(int *)argument = SG_VERSION;
    return 0;
  }
  error = *(int *)argument == 'S'   ? run_v3 (&words, &file, argument)
          : *(int *)argument == 'Q' ? run_v4 (&words, &file, argument)
                                    : EINVAL;
  if (error)
    errno = error;
  return error ? -1 : 0;
}
