/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * usage: load run SOCKET CLIENTS MS FILE...     clients of the helper at SOCKET
 *        load device CLIENTS MS FILE...         the same commands without a helper: SG_IO by as many threads
 *        load first SOCKET FILE PROGRAM ARG...  start PROGRAM, and one command as soon as it listens
 *        load echo SOCKET                       a server that answers each command at once, to know what the client itself costs
 *
 * The client of scripts/bench. Each client has one command at a time in flight, READ KEYS, as QEMU has; client N uses FILE N
 * modulo their number. It prints "COMMANDS SECONDS P50 P99", the latter two in microseconds; first prints the milliseconds.
 *
 * Thread: one, which waits for all clients with epoll and sends bytes that were made before. For device one for each client.
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <scsi/sg.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CLIENTS_MAX 1024
#define SAMPLES_MAX 4000000
#define CDB_SIZE 16
#define HEADER_SIZE 104
#define DATA_MAX 256
#define FIRST_LIMIT_NS 10000000000

typedef struct {
  int socket, file;
  int64_t sent_at;
  size_t received, n_answers;
  uint8_t reply[HEADER_SIZE + DATA_MAX];
} Client;

/* PERSISTENT RESERVE IN, READ KEYS, ALLOCATION LENGTH 256 (SPC-4 6.15.1). */
static const uint8_t read_keys[CDB_SIZE] = { 0x5e, 0, 0, 0, 0, 0, 0, DATA_MAX >> 8, DATA_MAX & 0xff };

typedef struct {
  uint32_t ns, client;
} Sample;

static Client clients[CLIENTS_MAX];
static int n_clients;
static int64_t end_at;
static Sample samples[SAMPLES_MAX];
static size_t n_samples; /* atomic for device */

static void
fail (const char *what)
{
  fprintf (stderr, "load: %s: %s\n", what, strerror (errno));
  exit (1);
}

static int64_t
now_ns (void)
{
  struct timespec time;

  clock_gettime (CLOCK_MONOTONIC, &time);
  return time.tv_sec * INT64_C (1000000000) + time.tv_nsec;
}

static void
add_sample (Client *client, int64_t ns)
{
  size_t place = __atomic_fetch_add (&n_samples, 1, __ATOMIC_RELAXED);

  if (place >= SAMPLES_MAX) {
    errno = ENOSPC;
    fail ("the samples");
  }
  samples[place] = (Sample){ (uint32_t)ns, (uint32_t)(client - clients) };
  client->n_answers++;
}

static int
compare_samples (const void *a, const void *b)
{
  uint32_t x = ((const Sample *)a)->ns, y = ((const Sample *)b)->ns;

  return (x > y) - (x < y);
}

/* Microseconds; the samples are sorted, and each client has an answer. */
static double
percentile (double part)
{
  double weight = 0;
  size_t i = 0;

  while (i < n_samples - 1 && (weight += 1.0 / (double)clients[samples[i].client].n_answers) < part * n_clients)
    i++;
  return samples[i].ns / 1e3;
}

static void
print_samples (int64_t started_at)
{
  double seconds = (double)(now_ns () - started_at) / 1e9;

  if (n_samples == 0) {
    errno = ETIMEDOUT;
    fail ("no answer");
  }
  qsort (samples, n_samples, sizeof *samples, compare_samples);
  printf ("%zu %.6f %.1f %.1f\n", n_samples, seconds, percentile (0.5), percentile (0.99));
}

/* ---- the protocol ---- */

static struct sockaddr_un
address_of (const char *path)
{
  struct sockaddr_un address = { .sun_family = AF_UNIX };

  snprintf (address.sun_path, sizeof address.sun_path, "%s", path);
  return address;
}

/* Connects and takes the greeting. -1: nobody listens. */
static int
try_connect (const char *path)
{
  struct sockaddr_un address = address_of (path);
  int fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  uint8_t word[4] = { 0 };

  if (fd < 0)
    fail ("a socket");
  if (connect (fd, (struct sockaddr *)&address, sizeof address) < 0) {
    close (fd);
    return -1;
  }
  if (recv (fd, word, sizeof word, MSG_WAITALL) != sizeof word)
    fail ("the greeting");
  memset (word, 0, sizeof word);
  if (send (fd, word, sizeof word, MSG_NOSIGNAL) != sizeof word)
    fail ("the answer to the greeting");
  return fd;
}

static void
send_command (Client *client)
{
  union {
    struct cmsghdr header;
    char bytes[CMSG_SPACE (sizeof (int))];
  } control = { .header = { .cmsg_len = CMSG_LEN (sizeof (int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS } };
  struct iovec part = { (void *)read_keys, sizeof read_keys };
  struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control };

  memcpy (CMSG_DATA (&control.header), &client->file, sizeof client->file);
  client->received = 0;
  client->sent_at = now_ns ();
  if (sendmsg (client->socket, &message, MSG_NOSIGNAL) != CDB_SIZE)
    fail ("a command");
}

static uint32_t
big_endian (const uint8_t *bytes)
{
  return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

/* Reads what is there. TRUE: the reply is complete, and good. */
static bool
receive_reply (Client *client)
{
  ssize_t n = recv (client->socket, client->reply + client->received, sizeof client->reply - client->received, 0);

  if (n <= 0)
    fail ("a reply");
  client->received += (size_t)n;
  if (client->received < HEADER_SIZE || client->received < HEADER_SIZE + big_endian (client->reply + 4))
    return false;
  if (big_endian (client->reply) != 0) {
    fprintf (stderr, "load: the status is %02x\n", big_endian (client->reply));
    exit (1);
  }
  return true;
}

/* ---- verbs ---- */

static int
open_file (const char *path)
{
  int fd = open (path, O_RDWR | O_CLOEXEC);

  if (fd < 0)
    fail (path);
  return fd;
}

static void
take_files (int number, char **paths, int n_paths)
{
  int files[CLIENTS_MAX];

  if (number < 1 || number > CLIENTS_MAX || n_paths < 1 || n_paths > CLIENTS_MAX) {
    errno = EINVAL;
    fail ("the number of clients");
  }
  n_clients = number;
  for (int i = 0; i < n_paths; i++)
    files[i] = open_file (paths[i]);
  for (int i = 0; i < n_clients; i++)
    clients[i].file = files[i % n_paths];
}

static void
run (const char *path, int number, int ms, char **paths, int n_paths)
{
  int epoll = epoll_create1 (EPOLL_CLOEXEC), in_flight = number;
  struct epoll_event events[64];
  int64_t started_at;

  take_files (number, paths, n_paths);
  for (int i = 0; i < n_clients; i++) {
    struct epoll_event event = { .events = EPOLLIN, .data.ptr = &clients[i] };

    clients[i].socket = try_connect (path);
    if (clients[i].socket < 0 || epoll_ctl (epoll, EPOLL_CTL_ADD, clients[i].socket, &event) < 0)
      fail (path);
  }
  started_at = now_ns ();
  end_at = started_at + ms * INT64_C (1000000);
  for (int i = 0; i < n_clients; i++)
    send_command (&clients[i]);
  while (in_flight > 0) {
    int n = epoll_wait (epoll, events, sizeof events / sizeof *events, -1);

    for (int i = 0; i < n; i++) {
      Client *client = events[i].data.ptr;

      if (!receive_reply (client))
        continue;
      add_sample (client, now_ns () - client->sent_at);
      if (client->sent_at < end_at)
        send_command (client);
      else
        in_flight--;
    }
  }
  print_samples (started_at);
}

static void *
device_thread (void *data)
{
  Client *client = data;
  uint8_t sense[96];

  do {
    sg_io_hdr_t header = { .interface_id = 'S',
                           .dxfer_direction = SG_DXFER_FROM_DEV,
                           .cmd_len = 10,
                           .mx_sb_len = sizeof sense,
                           .dxfer_len = DATA_MAX,
                           .dxferp = client->reply,
                           .cmdp = (unsigned char *)read_keys,
                           .sbp = sense,
                           .timeout = 30000 };

    client->sent_at = now_ns ();
    if (ioctl (client->file, SG_IO, &header) < 0 || header.status != 0)
      fail ("SG_IO");
    add_sample (client, now_ns () - client->sent_at);
  } while (client->sent_at < end_at);
  return NULL;
}

static void
device (int number, int ms, char **paths, int n_paths)
{
  pthread_t threads[CLIENTS_MAX];
  int64_t started_at;

  take_files (number, paths, n_paths);
  started_at = now_ns ();
  end_at = started_at + ms * INT64_C (1000000);
  for (int i = 0; i < n_clients; i++)
    if ((errno = pthread_create (&threads[i], NULL, device_thread, &clients[i])) != 0)
      fail ("a thread");
  for (int i = 0; i < n_clients; i++)
    pthread_join (threads[i], NULL);
  print_samples (started_at);
}

/* The program is ended and waited for: SIGKILL, so that its way to end does not matter. */
static void
first (const char *path, const char *file, char **command)
{
  Client *client = &clients[0];
  int64_t started_at;
  pid_t pid;

  client->file = open_file (file);
  started_at = now_ns ();
  pid = fork ();
  if (pid == 0) {
    execv (command[0], command);
    _exit (127);
  }
  while ((client->socket = try_connect (path)) < 0) {
    struct timespec pause = { .tv_nsec = 100000 };

    if (waitpid (pid, NULL, WNOHANG) != 0 || now_ns () - started_at > FIRST_LIMIT_NS) {
      errno = ETIMEDOUT;
      fail (command[0]);
    }
    nanosleep (&pause, NULL);
  }
  send_command (client);
  while (!receive_reply (client))
    ;
  printf ("%.3f\n", (double)(now_ns () - started_at) / 1e6);
  kill (pid, SIGKILL);
  waitpid (pid, NULL, 0);
}

/* Whoever only looks whether somebody listens is gone before the greeting. */
static void
echo_accept (int listener, int epoll)
{
  int fd = accept4 (listener, NULL, NULL, SOCK_CLOEXEC);
  struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };
  uint8_t word[4] = { 0 };

  if (fd < 0)
    fail ("a connection");
  if (send (fd, word, sizeof word, MSG_NOSIGNAL) < 0 || recv (fd, word, sizeof word, MSG_WAITALL) != sizeof word)
    close (fd);
  else if (epoll_ctl (epoll, EPOLL_CTL_ADD, fd, &event) < 0)
    fail ("a client");
}

/* As a helper without any work would do it: takes the command with its descriptor, closes that, and answers. Until it is killed.
 */
static void
echo (const char *path)
{
  struct sockaddr_un address = address_of (path);
  int listener = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), epoll = epoll_create1 (EPOLL_CLOEXEC);
  struct epoll_event event = { .events = EPOLLIN, .data.fd = listener };
  static const uint8_t reply[HEADER_SIZE];

  if (bind (listener, (struct sockaddr *)&address, sizeof address) < 0 || listen (listener, 128) < 0
      || epoll_ctl (epoll, EPOLL_CTL_ADD, listener, &event) < 0)
    fail (path);
  while (epoll_wait (epoll, &event, 1, -1) == 1) {
    char control[CMSG_SPACE (sizeof (int))];
    uint8_t cdb[CDB_SIZE];
    struct iovec part = { cdb, sizeof cdb };
    struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
    int file;

    if (event.data.fd == listener) {
      echo_accept (listener, epoll);
    } else if (recvmsg (event.data.fd, &message, MSG_CMSG_CLOEXEC) <= 0) {
      close (event.data.fd);
    } else {
      if (CMSG_FIRSTHDR (&message)) {
        memcpy (&file, CMSG_DATA (CMSG_FIRSTHDR (&message)), sizeof file);
        close (file);
      }
      if (send (event.data.fd, reply, sizeof reply, MSG_NOSIGNAL) < 0)
        close (event.data.fd);
    }
  }
}

int
main (int argc, char **argv)
{
  const char *verb = argc > 1 ? argv[1] : "";

  if (!strcmp (verb, "run") && argc > 5)
    run (argv[2], atoi (argv[3]), atoi (argv[4]), argv + 5, argc - 5);
  else if (!strcmp (verb, "device") && argc > 4)
    device (atoi (argv[2]), atoi (argv[3]), argv + 4, argc - 4);
  else if (!strcmp (verb, "first") && argc > 4)
    first (argv[2], argv[3], argv + 4);
  else if (!strcmp (verb, "echo") && argc == 3)
    echo (argv[2]);
  else {
    fprintf (stderr, "usage: load run|device|first|echo ...\n");
    return 1;
  }
  return 0;
}
