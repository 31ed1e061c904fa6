/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The whole user space of the guest whose migration is tested: /init of its initramfs. It sends PERSISTENT RESERVE commands, and
 * writes numbered blocks, as it is told on the second serial line.
 *
 * One command is one line, and so is its answer, which begins with "ok" or "error":
 *
 *   disks                            how many there are
 *   pr DISK ACTION TYPE KEY NEW      PERSISTENT RESERVE OUT; ok STATUS KEY/ASC (hexadecimal)
 *   in DISK ACTION                   PERSISTENT RESERVE IN; ok STATUS KEY/ASC DATA
 *   ready DISK                       TEST UNIT READY until no unit attention is left; ok STATUS KEY/ASC
 *   start DISK NUMBER                begin to write: block NUMBER holds NUMBER, then the next
 *   stop DISK                        stop, and answer as stat
 *   quiet                            stop all of them
 *   stat DISK                        ok NAME=VALUE ..., see print_writer
 *   failures DISK                    ok NUMBER:ERRNO:MS ..., the first of them
 *   uptime                           ok MS
 *
 * Threads: one reads the commands; one for each disk writes and owns its Writer, which the other reads under the lock; one counts
 * ticks, which are as few as the processor time that the guest gets. Times are of the guest's monotonic clock, which stands still
 * while the VM is stopped.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <scsi/sg.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define DISKS_MAX 8
#define BLOCK 512
#define PERIOD_MS 10
#define TICK_MS 20
#define FAILURES_MAX 64
#define DATA_MAX 8192
#define BOOT_LIMIT_MS 60000

typedef struct {
  uint64_t number, ms;
  int error;
} Failed;

typedef struct {
  char node[32];
  int fd;
  pthread_t thread;
  pthread_mutex_t lock;
  bool running, started;
  uint64_t next, begin_ms, begin_ticks;
  uint64_t n_good, n_failed, last_good, last_good_ms;
  uint64_t last_ms, longest_ms; /* longest: between two of them, good or not */
  Failed last_failed, failures[FAILURES_MAX];
} Writer;

static Writer disks[DISKS_MAX];
static int n_disks;
static FILE *line_out;
static _Atomic uint64_t n_ticks;

static uint64_t
now_ms (void)
{
  struct timespec t;

  clock_gettime (CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void *
count_ticks (void *data)
{
  (void)data;
  for (;; n_ticks++)
    usleep (TICK_MS * 1000);
  return NULL;
}

/* ---- the writer ---- */

static void
note_result (Writer *w, uint64_t number, int error)
{
  uint64_t ms = now_ms ();

  pthread_mutex_lock (&w->lock);
  if (ms - w->last_ms > w->longest_ms)
    w->longest_ms = ms - w->last_ms;
  w->last_ms = ms;
  if (error == 0) {
    w->n_good++;
    w->last_good = number;
    w->last_good_ms = ms;
  } else {
    w->last_failed = (Failed){ .number = number, .ms = ms, .error = error };
    if (w->n_failed < FAILURES_MAX)
      w->failures[w->n_failed] = w->last_failed;
    w->n_failed++;
  }
  w->next = number + 1;
  pthread_mutex_unlock (&w->lock);
}

static void *
write_blocks (void *data)
{
  Writer *w = data;
  char *block = aligned_alloc (4096, 4096);
  uint64_t due = now_ms ();

  memset (block, 0, 4096);
  while (w->running) {
    uint64_t now = now_ms ();
    ssize_t n;

    if (now < due)
      usleep ((useconds_t)(due - now) * 1000);
    due = (now < due ? due : now) + PERIOD_MS;

    memcpy (block, "holdfast", 8);
    memcpy (block + 8, &w->next, sizeof w->next);
    n = pwrite (w->fd, block, BLOCK, (off_t)(w->next * BLOCK));
    note_result (w, w->next, n == BLOCK ? 0 : n < 0 ? errno : EIO);
  }
  free (block);
  return NULL;
}

static void
start_writer (Writer *w, uint64_t number)
{
  w->next = number;
  w->begin_ms = w->last_ms = now_ms ();
  w->begin_ticks = n_ticks;
  w->n_good = w->n_failed = w->last_good = w->last_good_ms = w->longest_ms = 0;
  w->last_failed = (Failed){ 0 };
  w->running = w->started = true;
  pthread_create (&w->thread, NULL, write_blocks, w);
}

static void
stop_writer (Writer *w)
{
  if (!w->running)
    return;
  w->running = false;
  pthread_join (w->thread, NULL);
}

static void
answer (const char *format, ...)
{
  va_list arguments;

  va_start (arguments, format);
  vfprintf (line_out, format, arguments);
  va_end (arguments);
  fputc ('\n', line_out);
  fflush (line_out);
}

static void
print_writer (Writer *w)
{
  pthread_mutex_lock (&w->lock);
  answer ("ok next=%" PRIu64 " good=%" PRIu64 " failed=%" PRIu64 " last_good=%" PRIu64 " begin_ms=%" PRIu64
          " last_good_ms=%" PRIu64 " longest_ms=%" PRIu64 " last_failed=%" PRIu64 " last_failed_ms=%" PRIu64
          " last_errno=%d now_ms=%" PRIu64 " ticks=%" PRIu64,
          w->next, w->n_good, w->n_failed, w->last_good, w->begin_ms, w->last_good_ms, w->longest_ms, w->last_failed.number,
          w->last_failed.ms, w->last_failed.error, now_ms (), n_ticks - w->begin_ticks);
  pthread_mutex_unlock (&w->lock);
}

static void
print_failures (Writer *w)
{
  char text[FAILURES_MAX * 48] = "ok";
  size_t length = 2;

  pthread_mutex_lock (&w->lock);
  for (uint64_t i = 0; i < w->n_failed && i < FAILURES_MAX; i++)
    length += (size_t)snprintf (text + length, sizeof text - length, " %" PRIu64 ":%d:%" PRIu64, w->failures[i].number,
                                w->failures[i].error, w->failures[i].ms);
  pthread_mutex_unlock (&w->lock);
  answer ("%s", text);
}

/* ---- SCSI commands ---- */

typedef struct {
  unsigned status, key, asc, length;
} Answer;

static bool
scsi (Writer *w, const unsigned char *cdb, unsigned cdb_length, int direction, void *data, unsigned length, Answer *ret)
{
  unsigned char sense[96] = { 0 };
  sg_io_hdr_t io = { .interface_id = 'S',
                     .dxfer_direction = direction,
                     .cmd_len = (unsigned char)cdb_length,
                     .mx_sb_len = sizeof sense,
                     .dxfer_len = length,
                     .dxferp = data,
                     .cmdp = (unsigned char *)cdb,
                     .sbp = sense,
                     .timeout = 60000 };

  if (ioctl (w->fd, SG_IO, &io) != 0 || io.host_status != 0) {
    answer ("error errno %d host status %u", errno, io.host_status);
    return false;
  }
  *ret = (Answer){ .status = io.status & 0x3e, .length = length - (io.resid > 0 ? (unsigned)io.resid : 0) };
  if (ret->status == 2) {
    bool descriptor = (sense[0] & 0x7e) == 0x72;

    ret->key = sense[descriptor ? 1 : 2] & 0xf;
    ret->asc = descriptor ? (unsigned)sense[2] << 8 | sense[3] : (unsigned)sense[12] << 8 | sense[13];
  }
  return true;
}

static void
put64 (unsigned char *at, uint64_t value)
{
  for (int i = 0; i < 8; i++)
    at[i] = (unsigned char)(value >> (56 - 8 * i));
}

static void
persistent_reserve_out (Writer *w, unsigned action, unsigned type, uint64_t key, uint64_t new_key)
{
  unsigned char cdb[10] = { 0x5f, (unsigned char)action, (unsigned char)type, 0, 0, 0, 0, 0, 24 }, list[24] = { 0 };
  Answer a;

  put64 (list, key);
  put64 (list + 8, new_key);
  if (scsi (w, cdb, sizeof cdb, SG_DXFER_TO_DEV, list, sizeof list, &a))
    answer ("ok %02x %x/%04x", a.status, a.key, a.asc);
}

static void
persistent_reserve_in (Writer *w, unsigned action)
{
  unsigned char cdb[10] = { 0x5e, (unsigned char)action, 0, 0, 0, 0, 0, DATA_MAX >> 8, DATA_MAX & 0xff };
  static unsigned char data[DATA_MAX];
  static char text[2 * DATA_MAX + 1];
  Answer a;

  if (!scsi (w, cdb, sizeof cdb, SG_DXFER_FROM_DEV, data, sizeof data, &a))
    return;
  text[0] = '\0';
  for (unsigned i = 0; i < a.length; i++)
    sprintf (text + 2 * i, "%02x", data[i]);
  answer ("ok %02x %x/%04x %s", a.status, a.key, a.asc, text);
}

static void
test_unit_ready (Writer *w)
{
  unsigned char cdb[6] = { 0 };
  Answer a;

  for (int i = 0; i < 16; i++) {
    if (!scsi (w, cdb, sizeof cdb, SG_DXFER_NONE, NULL, 0, &a))
      return;
    if (a.status != 2 || a.key != 6)
      break;
  }
  answer ("ok %02x %x/%04x", a.status, a.key, a.asc);
}

/* ---- commands ---- */

static void
obey (char *line)
{
  char verb[16] = "";
  unsigned disk = 0, action = 0, type = 0;
  uint64_t key = 0, new_key = 0, number = 0;
  Writer *w;

  if (sscanf (line, "%15s %u", verb, &disk) < 1 || disk >= DISKS_MAX || (disk > 0 && (int)disk >= n_disks)) {
    answer ("error no command or no such disk: %s", line);
    return;
  }
  w = &disks[disk];
  if (strcmp (verb, "disks") == 0)
    answer ("ok %d", n_disks);
  else if (strcmp (verb, "quiet") == 0) {
    for (int i = 0; i < n_disks; i++)
      stop_writer (&disks[i]);
    answer ("ok");
  } else if (strcmp (verb, "uptime") == 0)
    answer ("ok %" PRIu64, now_ms ());
  else if (strcmp (verb, "pr") == 0 && sscanf (line, "%*s %*u %u %u %" SCNx64 " %" SCNx64, &action, &type, &key, &new_key) == 4)
    persistent_reserve_out (w, action, type, key, new_key);
  else if (strcmp (verb, "in") == 0 && sscanf (line, "%*s %*u %u", &action) == 1)
    persistent_reserve_in (w, action);
  else if (strcmp (verb, "ready") == 0)
    test_unit_ready (w);
  else if (strcmp (verb, "start") == 0 && sscanf (line, "%*s %*u %" SCNu64, &number) == 1 && !w->running) {
    start_writer (w, number);
    answer ("ok");
  } else if (strcmp (verb, "stop") == 0 && w->started) {
    stop_writer (w);
    print_writer (w);
  } else if (strcmp (verb, "stat") == 0 && w->started)
    print_writer (w);
  else if (strcmp (verb, "failures") == 0 && w->started)
    print_failures (w);
  else
    answer ("error not understood: %s", line);
}

/* ---- the start of the system ---- */

static int
by_name (const void *a, const void *b)
{
  return strcmp (*(char *const *)a, *(char *const *)b);
}

/* The names in folder in order; the modules are numbered in the order in which they are loaded. */
static int
list_folder (const char *folder, char **names, int max)
{
  DIR *dir = opendir (folder);
  int n = 0;

  for (struct dirent *entry; dir != NULL && n < max && (entry = readdir (dir)) != NULL;)
    if (entry->d_name[0] != '.')
      names[n++] = strdup (entry->d_name);
  if (dir != NULL)
    closedir (dir);
  qsort (names, (size_t)n, sizeof *names, by_name);
  return n;
}

static void
load_modules (void)
{
  char *names[64], path[300];
  int n = list_folder ("/modules", names, 64);

  for (int i = 0; i < n; i++) {
    int fd;

    snprintf (path, sizeof path, "/modules/%s", names[i]);
    fd = open (path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || syscall (SYS_finit_module, fd, "", 0) != 0)
      printf ("agent: %s: %s\n", path, strerror (errno));
    close (fd);
  }
}

/* The disks in the order of their SCSI addresses, which the tests set: DISK of a command is the target's number. The kernel's
   names, sda and so on, go by who was found first. */
static int
find_disks (void)
{
  char *names[64], path[600];
  int n = list_folder ("/sys/bus/scsi/devices", names, 64), found = 0;

  for (int i = 0; i < n; i++) {
    char *nodes[2];
    int host, channel, target, lun;

    if (sscanf (names[i], "%d:%d:%d:%d", &host, &channel, &target, &lun) != 4 || target >= DISKS_MAX)
      continue;
    snprintf (path, sizeof path, "/sys/bus/scsi/devices/%s/block", names[i]);
    if (list_folder (path, nodes, 2) != 1)
      continue;
    snprintf (disks[target].node, sizeof disks[target].node, "/dev/%.20s", nodes[0]);
    if (access (disks[target].node, F_OK) == 0)
      found++;
  }
  return found;
}

static void
open_disks (int wanted)
{
  uint64_t end = now_ms () + BOOT_LIMIT_MS;

  while ((n_disks = find_disks ()) < wanted && now_ms () < end)
    usleep (20000); /* between two looks at sysfs */
  for (int i = 0; i < n_disks; i++) {
    disks[i].fd = open (disks[i].node, O_RDWR | O_DIRECT | O_CLOEXEC);
    pthread_mutex_init (&disks[i].lock, NULL);
    if (disks[i].fd < 0)
      printf ("agent: %s: %s\n", disks[i].node, strerror (errno));
  }
}

/* "disks=N" on the kernel's command line. */
static int
wanted_disks (void)
{
  char text[1024] = "";
  int fd = open ("/proc/cmdline", O_RDONLY | O_CLOEXEC);
  ssize_t n = read (fd, text, sizeof text - 1);
  const char *at = n > 0 ? strstr (text, "disks=") : NULL;

  close (fd);
  return at != NULL ? atoi (at + strlen ("disks=")) : 1;
}

int
main (void)
{
  struct termios terminal;
  char line[256];
  FILE *in;
  int tty;
  pthread_t ticker;

  mkdir ("/proc", 0755);
  mkdir ("/sys", 0755);
  mkdir ("/dev", 0755);
  mount ("proc", "/proc", "proc", 0, NULL);
  mount ("sys", "/sys", "sysfs", 0, NULL);
  mount ("dev", "/dev", "devtmpfs", 0, NULL);
  load_modules ();
  open_disks (wanted_disks ());

  tty = open ("/dev/ttyS1", O_RDWR | O_NOCTTY | O_CLOEXEC);
  tcgetattr (tty, &terminal);
  cfmakeraw (&terminal);
  cfsetspeed (&terminal, B115200);
  tcsetattr (tty, TCSANOW, &terminal);
  in = fdopen (tty, "r");
  line_out = fdopen (dup (tty), "w");
  pthread_create (&ticker, NULL, count_ticks, NULL);
  answer ("ready %d", n_disks);
  while (fgets (line, sizeof line, in) != NULL) {
    line[strcspn (line, "\r\n")] = '\0';
    obey (line);
  }
  printf ("agent: the command line ended\n");
  pause ();
}
