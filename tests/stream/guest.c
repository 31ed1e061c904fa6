/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The whole user space of the guest whose memory goes through files: /init of its initramfs. It fills most of its memory with
 * pages whose every byte follows from the page's number and generation, goes on giving pages new generations while it is saved,
 * and then says whether memory still holds what it wrote.
 *
 * One command on the second serial line is one line, and so is its answer, which begins with "ok" or "error":
 *
 *   start RATE       begin to write RATE pages a second
 *   stop             stop; ok WRITTEN
 *   stat             ok WRITTEN
 *   check            stop, and look at every page: ok PAGES, or: error page N generation G byte B
 *
 * The pages of class 3 (page number modulo 8) are never written but by zeros, those of class 5 are all zeros in every odd
 * generation: they turn zero and back. What a page should hold stands in a table of generations, whose sum of hashes is kept as
 * it changes, so that a damaged table does not pass for damaged pages or hide them.
 *
 * Threads: one reads the commands; one writes while it is told to, and is the only one then that touches pages and table.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define WORDS (PAGE / 8)
#define N_PAGES 20480 /* 80 MiB */
#define N_HOT 2048    /* every other write goes into these */
#define PERIOD_MS 10
#define MAGIC 0x3154534555474648u /* "HFGUEST1" in the memory of a little-endian machine */

static uint64_t *pages;
static uint32_t *generations;
static uint64_t table_sum;
static atomic_bool running;
static atomic_uint_fast64_t written;
static unsigned rate;
static pthread_t writer;
static FILE *line_out;

/* ---- what a page holds ---- */

/* splitmix64, by its published constants: every bit of the input changes about half of the output. */
static uint64_t
mix (uint64_t x)
{
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

static uint64_t
hash_of (uint32_t page, uint32_t generation)
{
  return mix ((uint64_t)page << 32 | generation);
}

static bool
is_zero (uint32_t page, uint32_t generation)
{
  return page % 8 == 3 || (page % 8 == 5 && generation % 2 == 1);
}

static uint64_t
word_of (uint32_t page, uint32_t generation, unsigned i, uint64_t hash)
{
  switch (i) {
  case 0:
    return MAGIC;
  case 1:
    return page;
  case 2:
    return generation;
  default:
    return hash * (2 * (uint64_t)i + 1) + i;
  }
}

static void
write_page (uint32_t page)
{
  uint64_t *at = pages + (size_t)page * WORDS, hash;

  table_sum -= hash_of (page, generations[page]);
  generations[page]++;
  hash = hash_of (page, generations[page]);
  table_sum += hash;
  if (is_zero (page, generations[page])) {
    memset (at, 0, PAGE);
    return;
  }
  for (unsigned i = 0; i < WORDS; i++)
    at[i] = word_of (page, generations[page], i, hash);
}

/* The first byte that is not what was written, or -1. */
static int
first_bad_byte (uint32_t page)
{
  const uint64_t *at = pages + (size_t)page * WORDS, hash = hash_of (page, generations[page]);
  bool zero = is_zero (page, generations[page]);

  for (unsigned i = 0; i < WORDS; i++) {
    uint64_t wanted = zero ? 0 : word_of (page, generations[page], i, hash);

    if (at[i] != wanted)
      return (int)(i * 8) + __builtin_ctzll (at[i] ^ wanted) / 8;
  }
  return -1;
}

static void
fill (void)
{
  size_t size = (size_t)N_PAGES * PAGE;

  pages = mmap (NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  generations = calloc (N_PAGES, sizeof *generations);
  if (pages == MAP_FAILED || generations == NULL) {
    printf ("guest: no memory\n");
    abort ();
  }
  for (uint32_t page = 0; page < N_PAGES; page++)
    table_sum += hash_of (page, 0);
  /* Generation 1 of all, 2 of every second page of class 5: some of these begin as zero. */
  for (uint32_t page = 0; page < N_PAGES; page++) {
    write_page (page);
    if (page % 16 == 5)
      write_page (page);
  }
}

/* ---- the writer ---- */

static void *
write_pages (void *data)
{
  uint64_t random = 1;

  (void)data;
  while (running) {
    for (unsigned i = 0; i < rate * PERIOD_MS / 1000; i++) {
      random = mix (random);
      write_page ((uint32_t)(random >> 32) % (random % 2 == 0 ? N_HOT : N_PAGES));
      written++;
    }
    usleep (PERIOD_MS * 1000);
  }
  return NULL;
}

static void
stop_writer (void)
{
  if (!running)
    return;
  running = false;
  pthread_join (writer, NULL);
}

/* ---- commands ---- */

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
check_pages (void)
{
  uint64_t sum = 0;

  for (uint32_t page = 0; page < N_PAGES; page++)
    sum += hash_of (page, generations[page]);
  if (sum != table_sum) {
    answer ("error the table of generations: its sum is %016" PRIx64 ", not %016" PRIx64, sum, table_sum);
    return;
  }
  for (uint32_t page = 0; page < N_PAGES; page++) {
    int bad = first_bad_byte (page);

    if (bad >= 0) {
      answer ("error page %" PRIu32 " generation %" PRIu32 " byte %d", page, generations[page], bad);
      return;
    }
  }
  answer ("ok %u", N_PAGES);
}

static void
obey (const char *line)
{
  unsigned number = 0;

  if (sscanf (line, "start %u", &number) == 1 && number >= 100 && !running) {
    rate = number;
    running = true;
    if (pthread_create (&writer, NULL, write_pages, NULL) != 0)
      abort ();
    answer ("ok");
  } else if (strcmp (line, "stop") == 0 || strcmp (line, "stat") == 0) {
    if (line[2] == 'o')
      stop_writer ();
    answer ("ok %" PRIuFAST64, written);
  } else if (strcmp (line, "check") == 0) {
    stop_writer ();
    check_pages ();
  } else
    answer ("error not understood: %s", line);
}

int
main (void)
{
  struct termios terminal;
  char line[256];
  FILE *in;
  int tty;

  mkdir ("/dev", 0755);
  mount ("dev", "/dev", "devtmpfs", 0, NULL);
  fill ();
  tty = open ("/dev/ttyS1", O_RDWR | O_NOCTTY | O_CLOEXEC);
  tcgetattr (tty, &terminal);
  cfmakeraw (&terminal);
  cfsetspeed (&terminal, B115200);
  tcsetattr (tty, TCSANOW, &terminal);
  in = fdopen (tty, "r");
  line_out = fdopen (dup (tty), "w");
  answer ("ready");
  while (fgets (line, sizeof line, in) != NULL) {
    line[strcspn (line, "\r\n")] = '\0';
    obey (line);
  }
  printf ("guest: the command line ended\n");
  pause ();
}
