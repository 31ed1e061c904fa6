/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The part of the contract set that is about O_DIRECT, on files of the build folder. */

#include "config.h"

#include "stream-contract-private.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define DIRECT_SIZE 65536u
#define DIRECT_ALIGNMENT 4096u /* a multiple of what any file system here asks for */

static guint8 *
direct_memory (const Case *test)
{
  guint8 *memory = aligned_alloc (DIRECT_ALIGNMENT, DIRECT_SIZE);

  g_assert_nonnull (memory);
  for (gsize i = 0; i < DIRECT_SIZE; i++)
    memory[i] = test->operation == HF_IO_WRITE ? pattern (i) : 0;
  return memory;
}

static void
direct_check (const Case *test, int fd, guint8 *memory, gsize length)
{
  if (test->operation == HF_IO_WRITE)
    g_assert_cmpint (pread (fd, memory, DIRECT_SIZE, 0), ==, DIRECT_SIZE);
  for (gsize i = 0; i < length; i++)
    g_assert_cmphex (memory[i], ==, pattern (i));
}

/* Short off the alignment: done again from the boundary before it, never from between. */
static void
test_direct_remainder (gconstpointer data)
{
  const Case *test = data;
  const gssize script[] = { 5000, 4096, 10001, -EINTR, 1, FULL };
  Injector injector = { .script = script, .n = G_N_ELEMENTS (script), .then = FULL };
  g_autoptr (GError) error = NULL;
  guint8 *memory = direct_memory (test);
  const struct iovec iov[] = { { memory, 8192 }, { memory + 8192, DIRECT_SIZE - 8192 } };
  int fd = contract_file (DIRECT_SIZE, TRUE);

  injector_start (&injector);
  g_assert_cmpint (contract_move (test, FALSE, fd, iov, 2, 0, NULL, &error), ==, 1);
  injector_stop (&injector);
  g_assert_cmpuint (injector.calls, ==, G_N_ELEMENTS (script));
  for (guint i = 0; i < injector.calls; i++)
    g_assert_cmpint (injector.offsets[i] % 512, ==, 0);
  /* 5000 counts for 4096 or 4608, as the alignment is; then the numbers grow but for the last, which made no progress. */
  g_assert_cmpint (injector.offsets[1], >=, 4096);
  g_assert_cmpint (injector.offsets[1], <=, 5000);
  g_assert_cmpint (injector.offsets[5], ==, injector.offsets[4]);
  direct_check (test, fd, memory, DIRECT_SIZE);
  close (fd);
  free (memory);
}

/* Without progress it ends, and says how far it came. */
static void
test_direct_stuck (gconstpointer data)
{
  const Case *test = data;
  const gssize script[] = { 8192, 100, 100 };
  Injector injector = { .script = script, .n = G_N_ELEMENTS (script), .then = FULL };
  g_autoptr (GError) error = NULL;
  guint8 *memory = direct_memory (test);
  const struct iovec iov = { memory, DIRECT_SIZE };
  int fd = contract_file (DIRECT_SIZE, TRUE);
  gsize done;

  injector_start (&injector);
  g_assert_cmpint (contract_move (test, FALSE, fd, &iov, 1, 0, &done, &error), ==, -1);
  injector_stop (&injector);
  g_assert_cmpuint (injector.calls, ==, 3);
  g_assert_cmpuint (done, ==, 8192);
  contract_assert_error (test, error, HF_IO_ERROR_STUCK, 0, DIRECT_SIZE, 8192, 0);
  g_assert_nonnull (strstr (error->message, "O_DIRECT"));
  direct_check (test, fd, memory, 8192);
  close (fd);
  free (memory);
}

/* The end of a file is off the alignment too, but is the end. Nothing is injected. */
static void
test_direct_end (gconstpointer data)
{
  const Case *test = data;
  guint8 *memory = direct_memory (test);
  const struct iovec iov = { memory, DIRECT_SIZE };
  const gsize sizes[] = { 10000, 8192, 1 };

  for (guint i = 0; i < G_N_ELEMENTS (sizes); i++) {
    g_autoptr (GError) error = NULL;
    int fd = contract_file (sizes[i], TRUE);
    gsize done;

    g_assert_cmpint (contract_move (test, FALSE, fd, &iov, 1, 0, &done, &error), ==, -1);
    g_assert_cmpuint (done, ==, sizes[i]);
    contract_assert_error (test, error, HF_IO_ERROR_TRUNCATED, 0, DIRECT_SIZE, done, 0);
    direct_check (test, fd, memory, done);
    close (fd);
  }
  free (memory);
}

/* Random schedules on O_DIRECT, short results on and off the alignment. */
static void
test_direct_any_schedule (gconstpointer data)
{
  const Case *test = data;

  for (guint32 seed = 1; seed <= 40; seed++) {
    g_autoptr (GRand) rand = g_rand_new_with_seed (seed);
    Injector injector = { .rand = rand, .step = 4099 };
    g_autoptr (GError) error = NULL;
    guint8 *memory = direct_memory (test);
    const struct iovec iov[] = { { memory, 4096 }, { memory + 4096, 20480 }, { memory + 24576, DIRECT_SIZE - 24576 } };
    int fd = contract_file (DIRECT_SIZE, TRUE);

    injector_start (&injector);
    g_assert_cmpint (contract_move (test, FALSE, fd, iov, 3, 0, NULL, &error), ==, 1);
    injector_stop (&injector);
    direct_check (test, fd, memory, DIRECT_SIZE);
    close (fd);
    free (memory);
  }
}

/* EINVAL of O_DIRECT says what is wrong when something is. */
static void
test_direct_misaligned (gconstpointer data)
{
  const Case *test = data;
  Injector injector = { .then = -EINVAL };
  guint8 *memory = direct_memory (test);
  const struct iovec odd_memory = { memory + 1, 4096 }, odd_length = { memory, 1000 }, right = { memory, 4096 };
  const struct {
    const struct iovec *iov;
    gint64 offset;
    HfIoError code;
  } cases[] = {
    { &odd_memory, 0, HF_IO_ERROR_ARGUMENT },
    { &odd_length, 0, HF_IO_ERROR_ARGUMENT },
    { &right, 100, HF_IO_ERROR_ARGUMENT },
    { &right, 4096, HF_IO_ERROR_FAILED },
  };
  int fd = contract_file (DIRECT_SIZE, TRUE);

  injector_start (&injector);
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (GError) error = NULL;

    g_assert_cmpint (contract_move (test, FALSE, fd, cases[i].iov, 1, cases[i].offset, NULL, &error), ==, -1);
    contract_assert_error (test, error, cases[i].code, cases[i].offset, cases[i].iov->iov_len, 0, EINVAL);
    g_assert_true ((strstr (error->message, "O_DIRECT") != NULL) == (cases[i].code == HF_IO_ERROR_ARGUMENT));
  }
  injector_stop (&injector);
  close (fd);
  free (memory);
}

/* O_DIRECT is told EINVAL there, because what is left below the limit is off its alignment. The limit is the reason all the same.
 */
static void
test_direct_limit (gconstpointer data)
{
  const Case *test = data;
  const struct rlimit limit = { .rlim_cur = 10000, .rlim_max = 10000 };
  g_autoptr (GError) error = NULL;
  guint8 *memory;
  struct iovec iov = { NULL, DIRECT_SIZE };
  int fd;

  if (contract_parent ())
    return;
  fd = contract_file (0, TRUE);
  iov.iov_base = memory = direct_memory (test);
  signal (SIGXFSZ, SIG_IGN);
  g_assert_cmpint (setrlimit (RLIMIT_FSIZE, &limit), ==, 0);
  g_assert_cmpint (contract_move (test, FALSE, fd, &iov, 1, 0, NULL, &error), ==, -1);
  g_assert_error (error, HF_IO_ERROR, HF_IO_ERROR_FULL);
  g_assert_nonnull (strstr (error->message, "RLIMIT_FSIZE"));
  close (fd);
  free (memory);
}

const ContractTest contract_direct_tests[] = {
  { "direct-remainder", READS | WRITES, test_direct_remainder },
  { "direct-stuck", READS | WRITES, test_direct_stuck },
  { "direct-end", READS, test_direct_end },
  { "direct-any-schedule", READS | WRITES, test_direct_any_schedule },
  { "direct-misaligned", READS | WRITES, test_direct_misaligned },
  { "direct-limit", WRITES, test_direct_limit },
};
const guint contract_n_direct_tests = G_N_ELEMENTS (contract_direct_tests);
