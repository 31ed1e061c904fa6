/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A stand-in for the kernel's SG_IO: a module for LD_PRELOAD that makes marker files look like block devices and hands each SG_IO
 * on them, with the descriptor, to a process that has the iSCSI sessions (sgio-broker.c). So a pr-helper, and any other program
 * that sends SG_IO, runs against a real target on a machine without SCSI; what it may do to its own process (a filter of system
 * calls, other users, no network) it may do here too, and as in real life an I_T nexus outlives the program that uses it.
 *
 * Thread: any. A caller sends its own request; of those who wait, one reads the answers of all.
 *
 * Theory of operation: the connection to $HOLDFAST_STANDIN_SOCKET is made before main. From then on only fstat, sendmsg, recvmsg
 * and futexes are needed. A marker file is known by its time of last change (sgio-standin.h). With $HOLDFAST_STANDIN_AT_ONCE the
 * module answers each command by itself, GOOD without data: a device that costs nothing, for scripts/bench.
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "sgio-standin.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bsg.h>
#include <linux/fs.h>
#include <pthread.h>
#include <scsi/sg.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

#define STANDIN_PUBLIC __attribute__ ((visibility ("default")))
#define SG_VERSION 30536
#define SD_MAJOR 8
/* Minor numbers that no disk of this machine has. */
#define MINOR_FIRST 0xf0000
/* Out of the way of programs that expect the first numbers. */
#define DESCRIPTOR_FIRST 100

/* A caller that waits. */
typedef struct Waiter {
  struct Waiter *next;
  uint64_t id;
  bool done;
  StandinReply reply;
  uint8_t *data;
  uint32_t data_max;
} Waiter;

/* The C library's, or a sanitizer's. */
static int (*next_fstat) (int, struct stat *);
static int (*next_fstat64) (int, struct stat64 *);
static int (*next_statx) (int, const char *restrict, int, unsigned int, struct statx *restrict);
static int (*next_ioctl) (int, unsigned long, ...);

static int broker = -1;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static Waiter *waiters;
static bool somebody_reads, at_once;
static uint64_t last_id;

static void *
next_function (const char *name)
{
  void *function = dlsym (RTLD_NEXT, name);

  if (!function)
    abort ();
  return function;
}

/* Once, before there are threads: in the constructor, or for another library's constructor that is earlier. */
static void
find_next_functions (void)
{
  if (next_ioctl)
    return;
  next_fstat = (int (*) (int, struct stat *))next_function ("fstat");
  next_fstat64 = (int (*) (int, struct stat64 *))next_function ("fstat64");
  next_statx = (int (*) (int, const char *restrict, int, unsigned int, struct statx *restrict))next_function ("statx");
  next_ioctl = (int (*) (int, unsigned long, ...))next_function ("ioctl");
}

static void __attribute__ ((constructor)) connect_to_broker (void)
{
  const char *path = getenv ("HOLDFAST_STANDIN_SOCKET");
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  int fd;

  find_next_functions ();
  at_once = getenv ("HOLDFAST_STANDIN_AT_ONCE") != NULL;
  if (!path)
    return;
  snprintf (address.sun_path, sizeof address.sun_path, "%s", path);
  fd = socket (AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  if (fd < 0 || connect (fd, (struct sockaddr *)&address, sizeof address) < 0) {
    fprintf (stderr, "sgio-standin: %s: %s\n", path, strerror (errno));
    _exit (125);
  }
  broker = fcntl (fd, F_DUPFD_CLOEXEC, DESCRIPTOR_FIRST);
  close (fd);
}

/* ---- one command ---- */

static bool
send_request (int fd, const StandinRequest *request, void *data)
{
  union {
    struct cmsghdr header;
    char bytes[CMSG_SPACE (sizeof (int))];
  } control = { .header = { .cmsg_len = CMSG_LEN (sizeof (int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS } };
  struct iovec parts[2] = { { (void *)request, sizeof *request }, { data, request->length } };
  struct msghdr message = { .msg_iov = parts,
                            .msg_iovlen = request->direction == STANDIN_TO_DEVICE ? 2 : 1,
                            .msg_control = &control,
                            .msg_controllen = sizeof control };
  ssize_t sent;

  memcpy (CMSG_DATA (&control.header), &fd, sizeof fd);
  do
    sent = sendmsg (broker, &message, MSG_NOSIGNAL);
  while (sent < 0 && errno == EINTR);
  return sent >= 0;
}

/* The next answer, whoever it is for; lock is not held. FALSE: there will be none any more. */
static bool
receive_reply (StandinReply *reply, uint8_t *data)
{
  struct iovec parts[2] = { { reply, sizeof *reply }, { data, STANDIN_DATA_MAX } };
  struct msghdr message = { .msg_iov = parts, .msg_iovlen = 2 };
  ssize_t received;

  do
    received = recvmsg (broker, &message, 0);
  while (received < 0 && errno == EINTR);
  return received >= (ssize_t)sizeof *reply;
}

/* Under lock. */
static void
give_reply (const StandinReply *reply, const uint8_t *data)
{
  for (Waiter *waiter = waiters; waiter; waiter = waiter->next) {
    if (waiter->id != reply->id)
      continue;
    waiter->reply = *reply;
    memcpy (waiter->data, data, reply->data_length < waiter->data_max ? reply->data_length : waiter->data_max);
    waiter->done = true;
  }
}

/* Under lock. */
static void
give_up_all (void)
{
  for (Waiter *waiter = waiters; waiter; waiter = waiter->next)
    if (!waiter->done) {
      waiter->reply.error = EIO;
      waiter->done = true;
    }
}

/* Under lock, which is released while it waits. */
static void
wait_for_reply (Waiter *waiter)
{
  static uint8_t data[STANDIN_DATA_MAX];

  while (!waiter->done) {
    StandinReply reply;
    bool received;

    if (somebody_reads) {
      pthread_cond_wait (&changed, &lock);
      continue;
    }
    somebody_reads = true;
    pthread_mutex_unlock (&lock);
    received = receive_reply (&reply, data);
    pthread_mutex_lock (&lock);
    if (received)
      give_reply (&reply, data);
    else
      give_up_all ();
    somebody_reads = false;
    pthread_cond_broadcast (&changed);
  }
}

/* 0 or an errno. */
static int
run_command (int fd, StandinRequest *request, void *data, StandinReply *ret)
{
  Waiter waiter = { .data = data, .data_max = request->direction == STANDIN_FROM_DEVICE ? request->length : 0 }, **link;

  if (request->length > STANDIN_DATA_MAX)
    return EINVAL;
  if (at_once) {
    *ret = (StandinReply){ .residual = (int32_t)request->length };
    return 0;
  }
  pthread_mutex_lock (&lock);
  waiter.id = request->id = ++last_id;
  waiter.next = waiters;
  waiters = &waiter;
  pthread_mutex_unlock (&lock);
  if (!send_request (fd, request, data)) {
    waiter.reply.error = EIO;
    waiter.done = true;
  }
  pthread_mutex_lock (&lock);
  wait_for_reply (&waiter);
  for (link = &waiters; *link != &waiter; link = &(*link)->next)
    ;
  *link = waiter.next;
  pthread_mutex_unlock (&lock);
  *ret = waiter.reply;
  return ret->error;
}

static unsigned
sense_for (const StandinReply *reply, void *buffer, unsigned max)
{
  unsigned length = reply->sense_length < max ? reply->sense_length : max;

  if (length)
    memcpy (buffer, reply->sense, length);
  return length;
}

static unsigned
info_for (const StandinReply *reply)
{
  return reply->status || reply->host || reply->driver ? SG_INFO_CHECK : SG_INFO_OK;
}

static int
run_v3 (int fd, sg_io_hdr_t *header)
{
  StandinRequest request = { .timeout_ms = header->timeout, .length = header->dxfer_len, .cdb_length = header->cmd_len };
  StandinReply reply;
  int error;

  if (header->cmd_len < 6 || header->cmd_len > sizeof request.cdb)
    return EMSGSIZE;
  if (header->iovec_count)
    return EINVAL;
  memcpy (request.cdb, header->cmdp, header->cmd_len);
  request.direction = header->dxfer_direction == SG_DXFER_TO_DEV ? STANDIN_TO_DEVICE : STANDIN_FROM_DEVICE;
  if (header->dxfer_direction == SG_DXFER_NONE || header->dxfer_len == 0) {
    request.direction = STANDIN_NO_DATA;
    request.length = 0;
  }
  error = run_command (fd, &request, header->dxferp, &reply);
  if (error)
    return error;
  header->status = reply.status;
  header->masked_status = reply.status >> 1 & 0x1f;
  header->host_status = reply.host;
  header->driver_status = reply.driver;
  header->resid = reply.residual;
  header->sb_len_wr = sense_for (&reply, header->sbp, header->mx_sb_len);
  header->info = info_for (&reply);
  return 0;
}

static int
run_v4 (int fd, struct sg_io_v4 *header)
{
  bool out = header->dout_xfer_len > 0;
  StandinRequest request = { .timeout_ms = header->timeout,
                             .length = out ? header->dout_xfer_len : header->din_xfer_len,
                             .cdb_length = header->request_len };
  StandinReply reply;
  int error;

  if (header->request_len < 6 || header->request_len > sizeof request.cdb)
    return EMSGSIZE;
  memcpy (request.cdb, (const void *)(uintptr_t)header->request, header->request_len);
  request.direction = out ? STANDIN_TO_DEVICE : request.length ? STANDIN_FROM_DEVICE : STANDIN_NO_DATA;
  error = run_command (fd, &request, (void *)(uintptr_t)(out ? header->dout_xferp : header->din_xferp), &reply);
  if (error)
    return error;
  header->device_status = reply.status;
  header->transport_status = reply.host;
  header->driver_status = reply.driver;
  header->din_resid = out ? 0 : reply.residual;
  header->dout_resid = out ? reply.residual : 0;
  header->response_len = sense_for (&reply, (void *)(uintptr_t)header->response, header->max_response_len);
  header->info = info_for (&reply);
  return 0;
}

/* ---- what the program calls ---- */

static bool
is_marker (mode_t mode, time_t changed_at)
{
  return broker >= 0 && S_ISREG (mode) && changed_at == STANDIN_MARKER_SECOND;
}

STANDIN_PUBLIC int
fstat (int fd, struct stat *buffer)
{
  int result;

  find_next_functions ();
  result = next_fstat (fd, buffer);
  if (result == 0 && is_marker (buffer->st_mode, buffer->st_mtim.tv_sec)) {
    buffer->st_mode = (buffer->st_mode & ~(mode_t)S_IFMT) | S_IFBLK;
    buffer->st_rdev = makedev (SD_MAJOR, MINOR_FIRST + buffer->st_mtim.tv_nsec);
  }
  return result;
}

STANDIN_PUBLIC int
fstat64 (int fd, struct stat64 *buffer)
{
  int result;

  find_next_functions ();
  result = next_fstat64 (fd, buffer);
  if (result == 0 && is_marker (buffer->st_mode, buffer->st_mtim.tv_sec)) {
    buffer->st_mode = (buffer->st_mode & ~(mode_t)S_IFMT) | S_IFBLK;
    buffer->st_rdev = makedev (SD_MAJOR, MINOR_FIRST + buffer->st_mtim.tv_nsec);
  }
  return result;
}

STANDIN_PUBLIC int
statx (int folder, const char *restrict path, int flags, unsigned int mask, struct statx *restrict buffer)
{
  int result;

  find_next_functions ();
  result = next_statx (folder, path, flags, mask | STATX_MODE | STATX_TYPE | STATX_MTIME, buffer);
  if (result == 0 && is_marker (buffer->stx_mode, buffer->stx_mtime.tv_sec)) {
    buffer->stx_mode = (buffer->stx_mode & ~S_IFMT) | S_IFBLK;
    buffer->stx_rdev_major = SD_MAJOR;
    buffer->stx_rdev_minor = MINOR_FIRST + buffer->stx_mtime.tv_nsec;
  }
  return result;
}

static int
call_next_ioctl (int fd, unsigned long request, void *argument)
{
  find_next_functions ();
  return next_ioctl (fd, request, argument);
}

/* What is asked of a device besides SG_IO, each answered by an int. QEMU asks with the second whether the device can be written
   to, and from 11 on it refuses a device that does not say the third, which is the size of a block. */
static const struct {
  unsigned long request;
  int answer;
} plain_requests[] = {
  { SG_GET_VERSION_NUM, SG_VERSION },
  { BLKROGET, 0 },
  { BLKSSZGET, 512 },
};

static const int *
plain_answer (unsigned long request)
{
  for (size_t i = 0; i < sizeof plain_requests / sizeof *plain_requests; i++)
    if (plain_requests[i].request == request)
      return &plain_requests[i].answer;
  return NULL;
}

STANDIN_PUBLIC int
ioctl (int fd, unsigned long request, ...)
{
  const int *answer = plain_answer (request);
  struct stat file;
  void *argument;
  va_list list;
  int error;

  va_start (list, request);
  argument = va_arg (list, void *);
  va_end (list);
  /* The kernel knows no ioctl on a descriptor of O_PATH, not even one of a device. */
  if ((request != SG_IO && !answer) || fstat (fd, &file) < 0 || !S_ISBLK (file.st_mode)
      || !is_marker (S_IFREG, file.st_mtim.tv_sec) || fcntl (fd, F_GETFL) & O_PATH)
    return call_next_ioctl (fd, request, argument);
  if (answer) {
    *(int *)argument = *answer;
    return 0;
  }
  error = *(int *)argument == 'S' ? run_v3 (fd, argument) : *(int *)argument == 'Q' ? run_v4 (fd, argument) : EINVAL;
  if (error)
    errno = error;
  return error ? -1 : 0;
}
