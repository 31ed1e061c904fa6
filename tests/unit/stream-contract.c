/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The contract set (stream-contract.h).
 *
 * Theory of operation: every transfer goes through contract_move, which asserts what holds always: an error exactly with -1, done
 * at most what was wanted and all of it on success, the caller's elements and the file position as they were. Calls are kept
 * small (hf_transfer_set_call_max), so that a few KiB have many calls and each can be made to fail.
 */

#include "config.h"

#include "stream-contract-private.h"
#include "stream/transfer.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define CALL 1024u
#define N_CALLS 8u
#define SIZE ((gsize)CALL * N_CALLS)
#define START 4096 /* where the transfers of these tests begin */
#define POSITION 7

guint8
pattern (gint64 offset)
{
  return (guint64)offset * 2654435761u >> 13 ^ offset;
}

int
contract_file (gsize size, gboolean direct)
{
  const char *folder = direct ? g_getenv ("HOLDFAST_BUILDDIR") : NULL;
  g_autofree char *path = g_build_filename (folder ?: direct ? "." : g_get_tmp_dir (), "stream-contract-XXXXXX", NULL);
  g_autofree guint8 *bytes = g_malloc (size + 1);
  int fd = g_mkstemp_full (path, O_RDWR | O_CLOEXEC, 0600);

  g_assert_cmpint (fd, >=, 0);
  g_unlink (path);
  for (gsize i = 0; i < size; i++)
    bytes[i] = pattern (i);
  g_assert_cmpint (pwrite (fd, bytes, size, 0), ==, size);
  g_assert_cmpint (lseek (fd, POSITION, SEEK_SET), ==, POSITION);
  /* The test is of O_DIRECT, so a build folder without it is no place for the test. */
  if (direct)
    g_assert_cmpint (fcntl (fd, F_SETFL, O_DIRECT), ==, 0);
  return fd;
}

/* What a caller bears, but not for ever: every second call of a row moves enough to get on. */
static gssize
random_fault (Injector *injector, gsize length)
{
  static const gssize passing[] = { -EINTR, -EAGAIN };
  gsize steps = length / injector->step;

  if (!injector->was_bad && g_rand_boolean (injector->rand)) {
    injector->was_bad = TRUE;
    return passing[g_rand_int_range (injector->rand, 0, G_N_ELEMENTS (passing))];
  }
  injector->was_bad = FALSE;
  if (steps < 2 || g_rand_int_range (injector->rand, 0, 4) == 0)
    return FULL;
  return g_rand_int_range (injector->rand, 1, MIN (steps, G_MAXINT32)) * injector->step;
}

static gssize
inject (HfIoOperation operation, int fd, gint64 offset, gsize length, gpointer data)
{
  Injector *injector = data;
  gssize how;

  g_mutex_lock (&injector->lock);
  if (injector->calls < G_N_ELEMENTS (injector->offsets)) {
    injector->offsets[injector->calls] = offset;
    injector->lengths[injector->calls] = length;
  }
  if (injector->rand)
    how = random_fault (injector, length);
  else
    how = injector->calls < injector->n ? injector->script[injector->calls] : injector->then;
  injector->calls++;
  g_mutex_unlock (&injector->lock);
  return how > 0 ? MIN (how, (gssize)length) : how;
}

void
injector_start (Injector *injector)
{
  g_mutex_init (&injector->lock);
  hf_io_fault_set (inject, injector);
}

void
injector_stop (Injector *injector)
{
  hf_io_fault_set (NULL, NULL);
  g_mutex_clear (&injector->lock);
}

gboolean
contract_parent (void)
{
  if (g_test_subprocess ())
    return FALSE;
  g_test_trap_subprocess (NULL, 0, 0);
  g_test_trap_assert_passed ();
  return TRUE;
}

/* --- one transfer, and what holds for each --- */

static gsize
total (const struct iovec *iov, gsize n_iov)
{
  gsize length = 0;

  for (gsize i = 0; i < n_iov; i++)
    length += iov[i].iov_len;
  return length;
}

int
contract_move (const Case *test, gboolean eof_ok, int fd, const struct iovec *iov, gsize n_iov, gint64 offset, gsize *done,
               GError **error)
{
  g_autofree struct iovec *before = g_memdup2 (iov, n_iov * sizeof *iov);
  gsize moved = 12345, wanted = total (iov, n_iov);
  g_autoptr (GError) why = NULL;
  int result = test->mover->move (test->operation, eof_ok, fd, iov, n_iov, offset, &moved, &why);

  g_assert_true ((result < 0) == (why != NULL));
  g_assert_cmpuint (moved, <=, wanted);
  if (result == 1)
    g_assert_cmpuint (moved, ==, wanted);
  if (result == 0)
    g_assert_cmpuint (moved, ==, 0);
  if (n_iov > 0)
    g_assert_cmpmem (iov, n_iov * sizeof *iov, before, n_iov * sizeof *iov);
  if (fd >= 0)
    g_assert_cmpint (lseek (fd, 0, SEEK_CUR), ==, POSITION);
  if (done)
    *done = moved;
  if (why)
    g_propagate_error (error, g_steal_pointer (&why));
  return result;
}

/* The message names everything. */
void
contract_assert_error (const Case *test, const GError *error, HfIoError code, gint64 offset, gsize wanted, gsize moved,
                       int errnum)
{
  g_autofree char *where =
      g_strdup_printf ("%s at offset %" G_GINT64_FORMAT ": %" G_GSIZE_FORMAT " of %" G_GSIZE_FORMAT " bytes ",
                       test->operation == HF_IO_READ ? "read" : "write", offset, moved, wanted);
  g_autofree char *number = g_strdup_printf ("(errno %d)", errnum);

  g_assert_error (error, HF_IO_ERROR, (int)code);
  g_assert_true (g_str_has_prefix (error->message, where));
  if (errnum == 0)
    return;
  g_assert_nonnull (strstr (error->message, g_strerror (errnum)));
  g_assert_nonnull (strstr (error->message, number));
}

/* --- a transfer of SIZE bytes at START with faults, compared with what the file must hold --- */

typedef struct {
  int fd;
  guint8 *memory;
  struct iovec iov[N_CALLS * 2];
  gsize n_iov;
} World;

/* n elements that do not end where calls end, some of them empty. */
static void
world_init (World *world, const Case *test, gsize n, GRand *rand)
{
  gsize left = SIZE;

  memset (world, 0, sizeof *world);
  world->fd = contract_file (START + 2 * SIZE, FALSE);
  world->memory = g_malloc0 (SIZE);
  world->n_iov = n;
  for (gsize i = 0; i < n; i++) {
    gsize length = left / (n - i) / 2;

    if (rand)
      length = g_rand_int_range (rand, 0, 4) ? g_rand_int_range (rand, 0, left + 1) : 0;
    length = i + 1 == n ? left : length;
    world->iov[i] = (struct iovec){ .iov_base = world->memory + SIZE - left, .iov_len = length };
    left -= length;
  }
  for (gsize i = 0; i < SIZE && test->operation == HF_IO_WRITE; i++)
    world->memory[i] = ~pattern (START + i);
}

/* The first `moved` bytes went over; nothing outside the transfer changed. */
static void
world_check (World *world, const Case *test, gsize moved)
{
  g_autofree guint8 *now = g_malloc0 (START + 2 * SIZE);

  hf_io_fault_set (NULL, NULL);
  g_assert_cmpint (pread (world->fd, now, START + 2 * SIZE, 0), ==, START + 2 * SIZE);
  for (gint64 i = 0; i < (gint64)(START + 2 * SIZE); i++) {
    gboolean inside = i >= START && i < (gint64)(START + SIZE), sure = inside && i < (gint64)(START + moved);

    if (test->operation == HF_IO_READ && sure)
      g_assert_cmphex (world->memory[i - START], ==, pattern (i));
    if (test->operation == HF_IO_READ || !inside)
      g_assert_cmphex (now[i], ==, pattern (i));
    else if (sure)
      g_assert_cmphex (now[i], ==, (guint8)~pattern (i));
  }
}

static void
world_clear (World *world)
{
  close (world->fd);
  g_free (world->memory);
}

/* One fault at call k. */
static void
play (const Case *test, gssize fault, guint k, gsize n_iov, HfIoError code, gboolean passes, gsize expected)
{
  gssize script[N_CALLS];
  Injector injector = { .script = script, .n = k + 1, .then = FULL };
  g_autoptr (GError) error = NULL;
  World world;
  gsize done;
  int result;

  for (guint i = 0; i < k; i++)
    script[i] = FULL;
  script[k] = fault;
  world_init (&world, test, n_iov, NULL);
  injector_start (&injector);
  result = contract_move (test, FALSE, world.fd, world.iov, world.n_iov, START, &done, &error);
  injector_stop (&injector);
  g_test_message ("fault %zd at call %u, %zu elements: %s", fault, k, n_iov, error ? error->message : "all bytes");
  g_assert_cmpuint (injector.calls, >, k);
  g_assert_cmpuint (done, ==, expected);
  if (passes) {
    g_assert_no_error (error);
    g_assert_cmpint (result, ==, 1);
    g_assert_cmpuint (injector.calls, >=, fault == FULL ? N_CALLS : N_CALLS + (fault < 0));
  } else {
    g_assert_cmpuint (injector.calls, ==, k + 1);
    contract_assert_error (test, error, code, START, SIZE, done, fault < 0 ? -fault : 0);
  }
  world_check (&world, test, done);
  world_clear (&world);
}

static void
test_each_fault (gconstpointer data)
{
  const Case *test = data;
  static const struct {
    gssize fault;
    gboolean passes;
    HfIoError code;
  } faults[] = {
    { FULL, TRUE, 0 },
    { 1, TRUE, 0 },
    { CALL - 1, TRUE, 0 },
    { CALL / 2, TRUE, 0 },
    { -EINTR, TRUE, 0 },
    { -EAGAIN, TRUE, 0 },
    { -EIO, FALSE, HF_IO_ERROR_FAILED },
    { -EBADF, FALSE, HF_IO_ERROR_FAILED },
    { -EINVAL, FALSE, HF_IO_ERROR_FAILED },
    { -ECANCELED, FALSE, HF_IO_ERROR_FAILED },
    { -ENOSPC, FALSE, HF_IO_ERROR_FULL },
    { -EDQUOT, FALSE, HF_IO_ERROR_FULL },
    { -EFBIG, FALSE, HF_IO_ERROR_FULL },
  };

  hf_transfer_set_call_max (CALL);
  for (guint i = 0; i < G_N_ELEMENTS (faults); i++)
    for (guint k = 0; k < N_CALLS; k++)
      for (gsize n_iov = 1; n_iov <= 7; n_iov += 6)
        play (test, faults[i].fault, k, n_iov, faults[i].code, faults[i].passes, faults[i].passes ? SIZE : k * CALL);
  hf_transfer_set_call_max (0);
}

/* A read that moves nothing is the end of the file, a write that does is an error at once. */
static void
test_zero (gconstpointer data)
{
  const Case *test = data;

  hf_transfer_set_call_max (CALL);
  for (guint k = 0; k < N_CALLS; k++) {
    HfIoError at_end = k == 0 ? HF_IO_ERROR_EOF : HF_IO_ERROR_TRUNCATED;

    play (test, 0, k, 7, test->operation == HF_IO_WRITE ? HF_IO_ERROR_STUCK : at_end, FALSE, k * CALL);
  }
  hf_transfer_set_call_max (0);
}

/* Every call moves one byte; and before each of them another is interrupted. */
static void
test_byte_by_byte (gconstpointer data)
{
  const Case *test = data;
  g_autofree gssize *script = g_new (gssize, 2 * SIZE);
  Injector injectors[] = { { .then = 1 }, { .script = script, .n = 2 * SIZE, .then = FULL } };
  const guint calls[] = { SIZE, 2 * SIZE };

  for (gsize i = 0; i < 2 * SIZE; i++)
    script[i] = i % 2 ? 1 : -EINTR;
  for (guint i = 0; i < G_N_ELEMENTS (injectors); i++) {
    g_autoptr (GError) error = NULL;
    World world;

    world_init (&world, test, 5, NULL);
    injector_start (&injectors[i]);
    g_assert_cmpint (contract_move (test, FALSE, world.fd, world.iov, world.n_iov, START, NULL, &error), ==, 1);
    injector_stop (&injectors[i]);
    g_assert_cmpuint (injectors[i].calls, ==, calls[i]);
    world_check (&world, test, SIZE);
    world_clear (&world);
  }
}

/* Any schedule of short results, EINTR and EAGAIN gives the same bytes. */
static void
test_any_schedule (gconstpointer data)
{
  const Case *test = data;

  for (guint32 seed = 1; seed <= 150; seed++) {
    g_autoptr (GRand) rand = g_rand_new_with_seed (seed);
    Injector injector = { .rand = rand, .step = seed % 5 ? 1 : 512 };
    g_autoptr (GError) error = NULL;
    World world;

    world_init (&world, test, 1 + seed % (N_CALLS * 2), rand);
    hf_transfer_set_call_max (seed % 3 ? 0 : 1 + seed * 97 % SIZE);
    injector_start (&injector);
    g_assert_cmpint (contract_move (test, FALSE, world.fd, world.iov, world.n_iov, START, NULL, &error), ==, 1);
    injector_stop (&injector);
    world_check (&world, test, SIZE);
    world_clear (&world);
  }
  hf_transfer_set_call_max (0);
}

/* EAGAIN without end is given up, what was moved before stays true. */
static void
test_patience (gconstpointer data)
{
  const Case *test = data;
  const gssize script[] = { 1000 };
  Injector injector = { .script = script, .n = 1, .then = -EAGAIN };
  g_autoptr (GError) error = NULL;
  gint64 begin = g_get_monotonic_time ();
  World world;
  gsize done;

  hf_transfer_set_patience (40);
  world_init (&world, test, 3, NULL);
  injector_start (&injector);
  g_assert_cmpint (contract_move (test, FALSE, world.fd, world.iov, world.n_iov, START, &done, &error), ==, -1);
  injector_stop (&injector);
  hf_transfer_set_patience (HF_IO_PATIENCE_MS);
  g_assert_cmpint (g_get_monotonic_time () - begin, >=, 40 * G_TIME_SPAN_MILLISECOND);
  /* Pauses grow: no spinning on a file that polls ready all the time. */
  g_assert_cmpuint (injector.calls, >, 2);
  g_assert_cmpuint (injector.calls, <, 20);
  g_assert_cmpuint (done, ==, 1000);
  contract_assert_error (test, error, HF_IO_ERROR_STUCK, START, SIZE, 1000, EAGAIN);
  world_check (&world, test, done);
  world_clear (&world);
}

/* Patience is for a standstill: three times EAGAIN before each byte take longer than it in all, but none of them. */
static void
test_patience_begins_anew (gconstpointer data)
{
  enum { BYTES = 90, TURNS = 4, PATIENCE_MS = 600 };
  const Case *test = data;
  gssize script[BYTES * TURNS];
  Injector injector = { .script = script, .n = G_N_ELEMENTS (script), .then = FULL };
  g_autoptr (GError) error = NULL;
  gint64 begin = g_get_monotonic_time ();
  World world;

  for (guint i = 0; i < G_N_ELEMENTS (script); i++)
    script[i] = i % TURNS == TURNS - 1 ? 1 : -EAGAIN;
  hf_transfer_set_patience (PATIENCE_MS);
  world_init (&world, test, 1, NULL);
  injector_start (&injector);
  g_assert_cmpint (contract_move (test, FALSE, world.fd, world.iov, world.n_iov, START, NULL, &error), ==, 1);
  injector_stop (&injector);
  hf_transfer_set_patience (HF_IO_PATIENCE_MS);
  g_assert_no_error (error);
  g_assert_cmpint (g_get_monotonic_time () - begin, >, PATIENCE_MS * G_TIME_SPAN_MILLISECOND);
  world_check (&world, test, SIZE);
  world_clear (&world);
}

/* What cannot be is refused before anything is called. */
static void
test_refused (gconstpointer data)
{
  const Case *test = data;
  char byte = 0;
  const struct {
    gint64 offset;
    struct iovec iov[2];
  } cases[] = {
    { -1, { { &byte, 1 } } },
    { G_MININT64, { { &byte, 1 } } },
    { G_MAXINT64, { { &byte, 1 } } },
    { G_MAXINT64 - 1, { { &byte, 1 }, { &byte, 1 } } },
    { 0, { { &byte, G_MAXINT64 }, { &byte, 1 } } },
    { 0, { { &byte, (gsize)G_MAXINT64 + 1 } } },
    { 1, { { &byte, G_MAXSIZE } } },
    { 0, { { &byte, G_MAXSIZE }, { &byte, 2 } } },
  };
  Injector injector = { .then = -EIO };

  injector_start (&injector);
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (GError) error = NULL;
    gsize done = 1;

    g_assert_cmpint (test->mover->move (test->operation, FALSE, -1, cases[i].iov, 2, cases[i].offset, &done, &error), ==, -1);
    g_assert_error (error, HF_IO_ERROR, HF_IO_ERROR_ARGUMENT);
    g_assert_cmpuint (done, ==, 0);
  }
  g_assert_cmpuint (injector.calls, ==, 0);
  injector_stop (&injector);
}

/* Length 0 succeeds without a call, behind the end and at the last possible offset too. */
static void
test_nothing (gconstpointer data)
{
  const Case *test = data;
  char byte;
  const struct iovec iov[3] = { { &byte, 0 }, { NULL, 0 }, { &byte, 0 } };
  const gint64 offsets[] = { 0, 100000, G_MAXINT64 };
  Injector injector = { .then = -EIO };

  injector_start (&injector);
  for (guint i = 0; i < G_N_ELEMENTS (offsets); i++)
    for (gsize n_iov = 0; n_iov <= 3; n_iov++) {
      g_autoptr (GError) error = NULL;

      g_assert_cmpint (contract_move (test, FALSE, -1, iov, n_iov, offsets[i], NULL, &error), ==, 1);
    }
  g_assert_cmpuint (injector.calls, ==, 0);
  injector_stop (&injector);
}

/* The real end of a real file. */
static void
test_end_of_file (gconstpointer data)
{
  const Case *test = data;
  guint8 memory[200] = { 0 };
  const struct iovec iov[2] = { { memory, 60 }, { memory + 60, 140 } };
  const struct {
    gint64 offset;
    gboolean eof_ok;
    int result;
    HfIoError code;
    gsize done;
  } cases[] = {
    { 800, FALSE, 1, 0, 200 },
    { 800, TRUE, 1, 0, 200 },
    { 1000, TRUE, 0, 0, 0 },
    { 5000, TRUE, 0, 0, 0 },
    { 1000, FALSE, -1, HF_IO_ERROR_EOF, 0 },
    { 5000, FALSE, -1, HF_IO_ERROR_EOF, 0 },
    { 999, FALSE, -1, HF_IO_ERROR_TRUNCATED, 1 },
    { 801, FALSE, -1, HF_IO_ERROR_TRUNCATED, 199 },
    { 940, FALSE, -1, HF_IO_ERROR_TRUNCATED, 60 },
  };
  int fd = contract_file (1000, FALSE);

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (GError) error = NULL;
    gsize done;

    g_assert_cmpint (contract_move (test, cases[i].eof_ok, fd, iov, 2, cases[i].offset, &done, &error), ==, cases[i].result);
    g_assert_cmpuint (done, ==, cases[i].done);
    for (gsize k = 0; k < done; k++)
      g_assert_cmphex (memory[k], ==, pattern (cases[i].offset + k));
    if (cases[i].result < 0)
      contract_assert_error (test, error, cases[i].code, cases[i].offset, 200, done, 0);
  }
  close (fd);
}

/* The system's own errors, each with its errno. */
static void
test_real_errors (gconstpointer data)
{
  const Case *test = data;
  guint8 memory[16] = { 0 };
  const struct iovec iov = { memory, sizeof memory };
  int ends[2], wrong = open ("/dev/null", test->operation == HF_IO_READ ? O_WRONLY | O_CLOEXEC : O_RDONLY | O_CLOEXEC);
  const struct {
    int *fd, errnum;
  } cases[] = { { &wrong, EBADF }, { &ends[test->operation == HF_IO_WRITE], ESPIPE } };

  g_assert_cmpint (pipe2 (ends, O_CLOEXEC), ==, 0);
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (GError) error = NULL;
    gsize done = 1;

    /* A ring would wait at a pipe, whose offset means nothing to it. */
    if (cases[i].errnum == ESPIPE && g_str_equal (test->mover->name, "ring"))
      continue;
    g_assert_cmpint (test->mover->move (test->operation, FALSE, *cases[i].fd, &iov, 1, 64, &done, &error), ==, -1);
    g_assert_cmpuint (done, ==, 0);
    contract_assert_error (test, error, HF_IO_ERROR_FAILED, 64, sizeof memory, 0, cases[i].errnum);
  }
  close (ends[0]);
  close (ends[1]);
  close (wrong);
}

/* More elements than one call takes. */
static void
test_many_elements (gconstpointer data)
{
  const Case *test = data;
  gsize n = test->mover->n_iov_max ?: 2500, length = 0;
  g_autofree guint8 *memory = g_malloc0 (n * 5);
  g_autofree struct iovec *iov = g_new (struct iovec, n);
  Injector injector = { .then = FULL };
  g_autoptr (GError) error = NULL;
  int fd = contract_file (n * 5, FALSE);

  for (gsize i = 0; i < n; i++) {
    iov[i] = (struct iovec){ memory + length, i % 6 };
    length += i % 6;
  }
  for (gsize i = 0; i < length; i++)
    memory[i] = test->operation == HF_IO_WRITE ? pattern (i) : 0;
  injector_start (&injector);
  g_assert_cmpint (contract_move (test, FALSE, fd, iov, n, 0, NULL, &error), ==, 1);
  injector_stop (&injector);
  g_assert_cmpuint (injector.calls, ==, (n + 1023) / 1024);
  g_assert_cmpint (test->operation == HF_IO_READ ? 0 : pread (fd, memory, length, 0), ==,
                   test->operation == HF_IO_READ ? 0 : length);
  for (gsize i = 0; i < length; i++)
    g_assert_cmphex (memory[i], ==, pattern (i));
  close (fd);
}

/* More bytes than one call moves: the same memory again and again, from and to where that costs little. */
static void
test_many_bytes (gconstpointer data)
{
  enum { N = 700 };
  const Case *test = data;
  const gsize piece = 3 << 20, all = N * piece;
  g_autofree guint8 *memory = g_malloc (piece);
  struct iovec iov[N];
  Injector injector = { .then = FULL };
  g_autoptr (GError) error = NULL;
  int fd = open (test->operation == HF_IO_READ ? "/dev/zero" : "/dev/null", O_RDWR | O_CLOEXEC);
  gsize done = 0;

  g_assert_cmpuint (all, >, 0x7ffff000);
  memset (memory, 0xff, piece);
  for (guint i = 0; i < N; i++)
    iov[i] = (struct iovec){ memory, piece };
  injector_start (&injector);
  g_assert_cmpint (test->mover->move (test->operation, FALSE, fd, iov, N, 100, &done, &error), ==, 1);
  injector_stop (&injector);
  g_assert_no_error (error);
  g_assert_cmpuint (done, ==, all);
  /* A ring's real reads of /dev/zero are short on top of it. */
  g_assert_cmpuint (injector.calls, >=, 2);
  g_assert_cmpuint (injector.lengths[0], ==, 0x7ffff000);
  g_assert_cmpint (injector.offsets[0], ==, 100);
  for (guint i = 1; i < MIN (injector.calls, G_N_ELEMENTS (injector.offsets)); i++) {
    g_assert_cmpint (injector.offsets[i], >, injector.offsets[i - 1]);
    g_assert_cmpint (injector.offsets[i] - injector.offsets[i - 1], <=, 0x7ffff000);
    g_assert_cmpuint (injector.lengths[i], ==, MIN (all - (injector.offsets[i] - 100), 0x7ffff000));
  }
  for (gsize i = 0; i < piece; i++)
    g_assert_cmphex (memory[i], ==, test->operation == HF_IO_READ ? 0 : 0xff);
  close (fd);
}

/* --- a real short write --- */

/* The kernel writes up to the limit, and then says EFBIG (setrlimit(2)). */
static void
test_limit (gconstpointer data)
{
  const Case *test = data;
  const struct rlimit limit = { .rlim_cur = START + 1000, .rlim_max = START + 1000 };
  g_autoptr (GError) error = NULL;
  World world;
  gsize done;

  if (contract_parent ())
    return;
  world_init (&world, test, 5, NULL);
  signal (SIGXFSZ, SIG_IGN);
  g_assert_cmpint (ftruncate (world.fd, START), ==, 0);
  g_assert_cmpint (setrlimit (RLIMIT_FSIZE, &limit), ==, 0);
  g_assert_cmpint (contract_move (test, FALSE, world.fd, world.iov, world.n_iov, START, &done, &error), ==, -1);
  g_assert_cmpuint (done, ==, 1000);
  contract_assert_error (test, error, HF_IO_ERROR_FULL, START, SIZE, 1000, EFBIG);
  g_assert_cmpint (lseek (world.fd, 0, SEEK_END), ==, START + 1000);
  world_clear (&world);
}

static const ContractTest tests[] = {
  { "each-fault", READS | WRITES, test_each_fault },
  { "zero", READS | WRITES, test_zero },
  { "byte-by-byte", READS | WRITES, test_byte_by_byte },
  { "any-schedule", READS | WRITES, test_any_schedule },
  { "patience", READS | WRITES, test_patience },
  { "patience-begins-anew", READS | WRITES, test_patience_begins_anew },
  { "refused", READS | WRITES, test_refused },
  { "nothing", READS | WRITES, test_nothing },
  { "end-of-file", READS, test_end_of_file },
  { "real-errors", READS | WRITES, test_real_errors },
  { "many-elements", READS | WRITES, test_many_elements },
  { "many-bytes", READS | WRITES, test_many_bytes },
  { "limit", WRITES, test_limit },
};

static void
add (const Mover *mover, HfIoOperation operation, const char *name, void (*run) (gconstpointer data))
{
  g_autofree char *path = g_strdup_printf ("/%s/%s", mover->name, name);
  Case test = { .mover = mover, .operation = operation };

  g_test_add_data_func_full (path, g_memdup2 (&test, sizeof test), (GTestDataFunc)run, g_free);
}

static void
add_all (const Mover *mover, const ContractTest *list, guint n)
{
  for (guint i = 0; i < n; i++) {
    g_autofree char *read_name = g_strconcat (list[i].name, "/read", NULL);
    g_autofree char *write_name = g_strconcat (list[i].name, "/write", NULL);

    if (list[i].operations & READS)
      add (mover, HF_IO_READ, read_name, list[i].run);
    if (list[i].operations & WRITES)
      add (mover, HF_IO_WRITE, write_name, list[i].run);
  }
}

void
contract_add (const Mover *mover)
{
  add_all (mover, tests, G_N_ELEMENTS (tests));
  add_all (mover, contract_direct_tests, contract_n_direct_tests);
}
