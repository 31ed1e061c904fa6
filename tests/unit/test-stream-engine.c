/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The engine: the contract set on threads and on a ring, then what is the engine's own: bounds, callbacks, the first error, and
 * threads where a ring is forbidden (by a real seccomp filter, in a child).
 */

#include "config.h"

#include "stream-contract.h"
#include "stream/engine.h"
#include "stream/stream-error.h"
#include "stream/transfer.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <seccomp.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define BLOCK 4096u
#define N_BLOCKS 200u

/* --- one request at a time, for the contract set --- */

static void
note_result (HfEngineRequest *request, const GError *error)
{
  GError **ret = request->data;

  g_assert_null (*ret);
  *ret = error ? g_error_copy (error) : NULL;
}

static int
move_by (HfEngineKind kind, HfIoOperation operation, gboolean eof_ok, int fd, const struct iovec *iov, gsize n_iov, gint64 offset,
         gsize *done, GError **error)
{
  g_autoptr (GError) of_request = NULL, of_drain = NULL, why = NULL;
  HfEngineRequest request = { .operation = operation, .fd = fd, .offset = offset, .iov = iov, .n_iov = n_iov, .eof_ok = eof_ok };
  g_autoptr (HfEngine) engine = hf_engine_new (kind, 4, 1 << 20, &why);

  g_assert_no_error (why);
  request.done = note_result;
  request.data = &of_request;
  *done = 0;
  if (!hf_engine_submit (engine, &request, error)) {
    g_assert_null (of_request);
    return -1;
  }
  /* What the callback was told is what drain says. */
  g_assert_true (hf_engine_drain (engine, &of_drain) == (of_request == NULL));
  if (of_request)
    g_assert_cmpstr (of_request->message, ==, of_drain->message);
  *done = request.moved;
  if (of_drain) {
    g_propagate_error (error, g_steal_pointer (&of_drain));
    return -1;
  }
  return request.moved == 0 && eof_ok && n_iov > 0 ? 0 : 1;
}

static int
move_ring (HfIoOperation operation, gboolean eof_ok, int fd, const struct iovec *iov, gsize n_iov, gint64 offset, gsize *done,
           GError **error)
{
  return move_by (HF_ENGINE_RING, operation, eof_ok, fd, iov, n_iov, offset, done, error);
}

static int
move_threads (HfIoOperation operation, gboolean eof_ok, int fd, const struct iovec *iov, gsize n_iov, gint64 offset, gsize *done,
              GError **error)
{
  return move_by (HF_ENGINE_THREADS, operation, eof_ok, fd, iov, n_iov, offset, done, error);
}

/* --- many at a time --- */

typedef struct {
  HfEngine *engine;
  int fd;
  guint8 *memory;
  HfEngineRequest requests[N_BLOCKS];
  struct iovec iov[N_BLOCKS * 3];
  guint n_done[N_BLOCKS];
  guint accepted, finished, failed;
  gsize bytes;
  char *first; /* the first message that a callback was told */
} Many;

static void
count (HfEngineRequest *request, const GError *error)
{
  Many *many = request->data;
  guint i = request - many->requests;

  many->n_done[i]++;
  many->finished++;
  many->bytes -= BLOCK;
  if (!error) {
    g_assert_cmpuint (request->moved, ==, BLOCK);
    return;
  }
  g_assert_cmpuint (request->moved, <, BLOCK);
  g_assert_cmpint (error->domain, ==, HF_IO_ERROR);
  many->failed++;
  if (!many->first)
    many->first = g_strdup (error->message);
}

/* Block i of three elements, at i * BLOCK. Writes write ~pattern. */
static void
many_init (Many *many, HfEngineKind kind, HfIoOperation operation, guint depth, gsize bytes_max)
{
  g_autoptr (GError) error = NULL;

  memset (many, 0, sizeof *many);
  many->fd = contract_file (N_BLOCKS * BLOCK, FALSE);
  many->memory = g_malloc0 (N_BLOCKS * BLOCK);
  many->engine = hf_engine_new (kind, depth, bytes_max, &error);
  g_assert_no_error (error);
  g_assert_cmpint (hf_engine_kind (many->engine), ==, kind);
  for (guint i = 0; i < N_BLOCKS; i++) {
    guint8 *block = many->memory + i * BLOCK;

    many->iov[3 * i] = (struct iovec){ block, 100 };
    many->iov[3 * i + 1] = (struct iovec){ block + 100, i };
    many->iov[3 * i + 2] = (struct iovec){ block + 100 + i, BLOCK - 100 - i };
    many->requests[i] =
        (HfEngineRequest){ .operation = operation, .fd = many->fd, .offset = i * BLOCK, .iov = &many->iov[3 * i] };
    many->requests[i].n_iov = 3;
    many->requests[i].done = count;
    many->requests[i].data = many;
    for (guint k = 0; k < BLOCK && operation == HF_IO_WRITE; k++)
      block[k] = ~pattern (i * BLOCK + k);
  }
}

static gboolean
many_submit (Many *many, guint i, GError **error)
{
  many->bytes += BLOCK;
  if (hf_engine_submit (many->engine, &many->requests[i], error)) {
    many->accepted++;
    return TRUE;
  }
  many->bytes -= BLOCK;
  return FALSE;
}

static void
many_clear (Many *many)
{
  hf_engine_free (many->engine);
  close (many->fd);
  g_free (many->memory);
  g_free (many->first);
}

/* What is in the file (write) or in memory (read) is the model's. */
static void
many_check (const Many *many, HfIoOperation operation)
{
  g_autofree guint8 *now = g_malloc0 (N_BLOCKS * BLOCK);
  const guint8 *bytes = operation == HF_IO_READ ? many->memory : now;

  g_assert_cmpint (pread (many->fd, now, N_BLOCKS * BLOCK, 0), ==, N_BLOCKS * BLOCK);
  for (guint i = 0; i < N_BLOCKS * BLOCK; i++)
    g_assert_cmphex (bytes[i], ==, operation == HF_IO_READ ? pattern (i) : (guint8)~pattern (i));
}

/* Any schedule over many requests: the same bytes, each told once, never more in flight than allowed. */
static void
test_many (gconstpointer data)
{
  HfEngineKind kind = GPOINTER_TO_UINT (data);

  for (guint32 seed = 1; seed <= 24; seed++) {
    HfIoOperation operation = seed % 2 ? HF_IO_READ : HF_IO_WRITE;
    g_autoptr (GRand) rand = g_rand_new_with_seed (seed);
    Injector injector = { .rand = rand, .step = 1 };
    guint depth = seed % 3 ? seed : 256;
    gsize bytes_max = seed % 4 ? 64 * BLOCK : seed * BLOCK;
    g_autoptr (GError) error = NULL;
    Many many;

    many_init (&many, kind, operation, depth, bytes_max);
    if (seed % 5)
      injector_start (&injector);
    for (guint i = 0; i < N_BLOCKS; i++) {
      g_assert_true (many_submit (&many, i, &error));
      g_assert_cmpuint (many.accepted - many.finished, <=, depth);
      g_assert_cmpuint (many.bytes, <=, bytes_max);
    }
    g_assert_true (hf_engine_drain (many.engine, &error));
    g_assert_no_error (error);
    if (seed % 5)
      injector_stop (&injector);
    for (guint i = 0; i < N_BLOCKS; i++)
      g_assert_cmpuint (many.n_done[i], ==, 1);
    g_assert_cmpuint (many.failed, ==, 0);
    many_check (&many, operation);
    many_clear (&many);
  }
}

/* A request that is larger than all that may be in flight goes alone. */
static void
test_larger_than_bound (gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  Many many;

  many_init (&many, GPOINTER_TO_UINT (data), HF_IO_WRITE, 8, 1);
  for (guint i = 0; i < N_BLOCKS; i++) {
    g_assert_true (many_submit (&many, i, &error));
    g_assert_cmpuint (many.accepted - many.finished, ==, 1);
  }
  g_assert_true (hf_engine_drain (many.engine, &error));
  many_check (&many, HF_IO_WRITE);
  many_clear (&many);
}

/* The device fails at one offset, and is not ready behind it. */
static gssize
break_at (HfIoOperation operation, int fd, gint64 offset, gsize length, gpointer data)
{
  gint *calls_after = data;

  if (offset == 50 * BLOCK)
    return -EIO;
  if (offset < 50 * BLOCK)
    return length;
  g_atomic_int_inc (calls_after);
  return -EAGAIN;
}

/* The first error is reported from then on, everything accepted is told, and nothing new begins. */
static void
test_first_error (gconstpointer data)
{
  g_autoptr (GError) error = NULL, again = NULL, drained = NULL;
  gint calls_after = 0, calls_then;
  guint i = 0;
  Many many;

  many_init (&many, GPOINTER_TO_UINT (data), HF_IO_WRITE, 8, G_MAXSIZE);
  hf_io_fault_set (break_at, &calls_after);
  while (i < N_BLOCKS && many_submit (&many, i, &error))
    i++;
  /* It was met while others were in flight, and long before the end. */
  g_assert_cmpuint (i, >, 50);
  g_assert_cmpuint (i, <=, 50 + 8);
  g_assert_error (error, HF_IO_ERROR, HF_IO_ERROR_FAILED);
  g_assert_nonnull (strstr (error->message, g_strerror (EIO)));
  g_assert_false (hf_engine_drain (many.engine, &drained));
  g_assert_cmpstr (drained->message, ==, error->message);
  g_assert_cmpstr (many.first, ==, error->message);
  calls_then = g_atomic_int_get (&calls_after);
  g_assert_false (many_submit (&many, i, &again));
  g_assert_cmpstr (again->message, ==, error->message);
  g_clear_error (&drained);
  g_assert_false (hf_engine_drain (many.engine, &drained));
  g_assert_cmpstr (drained->message, ==, error->message);
  g_assert_cmpint (g_atomic_int_get (&calls_after), ==, calls_then);
  hf_io_fault_set (NULL, NULL);
  for (guint k = 0; k < N_BLOCKS; k++)
    g_assert_cmpuint (many.n_done[k], ==, k < i);
  g_assert_cmpuint (many.requests[50].moved, ==, 0);
  many_clear (&many);
}

typedef struct {
  gint calls, calls_after, failed; /* atomic; calls of block 0, and those of them after the other failed */
} HalfDone;

/* Block 0 comes some bytes far and must then wait; the other fails. */
static gssize
slow_and_broken (HfIoOperation operation, int fd, gint64 offset, gsize length, gpointer data)
{
  HalfDone *world = data;

  if (offset >= BLOCK) {
    g_atomic_int_set (&world->failed, 1);
    return -EIO;
  }
  if (g_atomic_int_get (&world->failed))
    g_atomic_int_inc (&world->calls_after);
  return g_atomic_int_add (&world->calls, 1) < 100 ? 1 : -EAGAIN;
}

/* One that is half done when another fails does not go on, and says why. */
static void
test_half_done (gconstpointer data)
{
  HalfDone world = { 0 };
  g_autoptr (GError) error = NULL;
  Many many;

  many_init (&many, GPOINTER_TO_UINT (data), HF_IO_WRITE, 2, G_MAXSIZE);
  hf_io_fault_set (slow_and_broken, &world);
  g_assert_true (many_submit (&many, 0, &error));
  g_assert_true (many_submit (&many, 1, &error));
  g_assert_false (hf_engine_drain (many.engine, &error));
  hf_io_fault_set (NULL, NULL);
  g_assert_nonnull (strstr (error->message, g_strerror (EIO)));
  g_assert_cmpuint (many.failed, ==, 2);
  g_assert_cmpuint (many.requests[0].moved, <=, 100);
  g_assert_cmpint (world.calls_after, <=, 102);
  many_clear (&many);
}

/* Block 0 must wait until the test lets it go on. */
static gssize
first_waits (HfIoOperation operation, int fd, gint64 offset, gsize length, gpointer data)
{
  return offset < BLOCK && !g_atomic_int_get ((gint *)data) ? -EAGAIN : (gssize)length;
}

/* One that must wait does not hold up the others. */
static void
test_waiting_is_alone (gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  gint go_on = 0;
  Many many;

  many_init (&many, GPOINTER_TO_UINT (data), HF_IO_WRITE, 4, G_MAXSIZE);
  hf_io_fault_set (first_waits, &go_on);
  for (guint i = 0; i < N_BLOCKS; i++)
    g_assert_true (many_submit (&many, i, &error));
  while (many.finished < N_BLOCKS - 1)
    hf_engine_wait (many.engine);
  g_assert_cmpuint (many.n_done[0], ==, 0);
  g_atomic_int_set (&go_on, 1);
  g_assert_true (hf_engine_drain (many.engine, &error));
  hf_io_fault_set (NULL, NULL);
  g_assert_cmpuint (many.n_done[0], ==, 1);
  many_check (&many, HF_IO_WRITE);
  many_clear (&many);
}

/* Freed in mid-flight: nothing is called back, nothing touches the memory any more (the sanitizer would see it). */
static void
test_free_in_flight (gconstpointer data)
{
  for (guint round = 0; round < 20; round++) {
    g_autoptr (GError) error = NULL;
    guint finished;
    Many many;

    many_init (&many, GPOINTER_TO_UINT (data), round % 2 ? HF_IO_READ : HF_IO_WRITE, 16, G_MAXSIZE);
    for (guint i = 0; i < 16; i++)
      g_assert_true (many_submit (&many, i, &error));
    finished = many.finished;
    hf_engine_free (g_steal_pointer (&many.engine));
    g_assert_cmpuint (many.finished, ==, finished);
    many_clear (&many);
  }
}

/* wait takes at least one, and returns when there is none. */
static void
test_wait (gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  Many many;

  many_init (&many, GPOINTER_TO_UINT (data), HF_IO_READ, 8, G_MAXSIZE);
  hf_engine_wait (many.engine);
  for (guint i = 0; i < 8; i++)
    g_assert_true (many_submit (&many, i, &error));
  while (many.finished < 8) {
    guint before = many.finished;

    hf_engine_wait (many.engine);
    g_assert_cmpuint (many.finished, >, before);
  }
  hf_engine_wait (many.engine);
  g_assert_true (hf_engine_drain (many.engine, &error));
  many_clear (&many);
}

/* With eof_ok the end of the file is no error at any byte, and moved says where it is. */
static void
test_eof_ok (gconstpointer data)
{
  static const gint64 offsets[] = { 0, 900, 999, 1000, 2000 };
  static const gsize moved[] = { 100, 100, 1, 0, 0 };
  g_autoptr (GError) error = NULL;
  g_autoptr (HfEngine) engine = hf_engine_new (GPOINTER_TO_UINT (data), 8, G_MAXSIZE, &error);
  HfEngineRequest requests[G_N_ELEMENTS (offsets)];
  struct iovec iov[G_N_ELEMENTS (offsets)];
  guint8 memory[G_N_ELEMENTS (offsets)][100] = { 0 };
  int fd = contract_file (1000, FALSE);

  for (guint i = 0; i < G_N_ELEMENTS (offsets); i++) {
    iov[i] = (struct iovec){ memory[i], 100 };
    requests[i] = (HfEngineRequest){ .operation = HF_IO_READ, .fd = fd, .offset = offsets[i], .iov = &iov[i], .n_iov = 1 };
    requests[i].eof_ok = TRUE;
    g_assert_true (hf_engine_submit (engine, &requests[i], &error));
  }
  g_assert_true (hf_engine_drain (engine, &error));
  g_assert_no_error (error);
  for (guint i = 0; i < G_N_ELEMENTS (offsets); i++) {
    g_assert_cmpuint (requests[i].moved, ==, moved[i]);
    for (gsize k = 0; k < moved[i]; k++)
      g_assert_cmphex (memory[i][k], ==, pattern (offsets[i] + k));
  }
  close (fd);
}

/* Part of a block is moved before the file ends, without eof_ok. */
static void
test_truncated (gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  Many many;

  many_init (&many, GPOINTER_TO_UINT (data), HF_IO_READ, 1, G_MAXSIZE);
  g_assert_cmpint (ftruncate (many.fd, BLOCK + 10), ==, 0);
  g_assert_true (many_submit (&many, 1, &error));
  g_assert_false (hf_engine_drain (many.engine, &error));
  g_assert_error (error, HF_IO_ERROR, HF_IO_ERROR_TRUNCATED);
  g_assert_cmpuint (many.requests[1].moved, ==, 10);
  many_clear (&many);
}

typedef struct {
  HfEngine *engine;
  HfEngineRequest inner;
  gboolean refused;
  guint inner_done;
} Nested;

static void
inner_done (HfEngineRequest *request, const GError *error)
{
  ++*(guint *)request->data;
}

static void
submit_inside (HfEngineRequest *request, const GError *error)
{
  Nested *nested = request->data;
  g_autoptr (GError) why = NULL;

  nested->refused = !hf_engine_submit (nested->engine, &nested->inner, &why);
  g_assert_error (why, HF_IO_ERROR, HF_IO_ERROR_ARGUMENT);
}

/* What a caller must not do is refused with an error, once and for all. */
static void
test_misuse (gconstpointer data)
{
  HfEngineKind kind = GPOINTER_TO_UINT (data);
  g_autoptr (GError) error = NULL;
  Nested nested = { .engine = hf_engine_new (kind, 2, 1000, &error) };
  HfEngineRequest outer = { .operation = HF_IO_READ, .done = submit_inside, .data = &nested };
  struct iovec iov[1025] = { 0 };
  HfEngineRequest wide = { .operation = HF_IO_READ, .iov = iov, .n_iov = G_N_ELEMENTS (iov) };
  g_autoptr (HfEngine) other = hf_engine_new (kind, 2, 1000, &error);

  g_assert_no_error (error);
  nested.inner = (HfEngineRequest){ .operation = HF_IO_READ, .done = inner_done, .data = &nested.inner_done };
  g_assert_true (hf_engine_submit (nested.engine, &outer, &error));
  g_assert_false (hf_engine_drain (nested.engine, NULL));
  g_assert_true (nested.refused);
  g_assert_cmpuint (nested.inner_done, ==, 0);
  hf_engine_free (nested.engine);

  g_assert_false (hf_engine_submit (other, &wide, &error));
  g_assert_error (error, HF_IO_ERROR, HF_IO_ERROR_ARGUMENT);
  g_clear_error (&error);
  for (guint depth = 0; depth <= 257; depth += 257) {
    g_assert_null (hf_engine_new (kind, depth, 1000, &error));
    g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE);
    g_clear_error (&error);
  }
}

/* --- which engine --- */

static void
assert_auto (HfEngineKind kind)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (HfEngine) engine = hf_engine_new (HF_ENGINE_AUTO, 4, 1000, &error);

  g_assert_no_error (error);
  g_assert_cmpint (hf_engine_kind (engine), ==, kind);
}

static void
test_environment (void)
{
  g_autoptr (GError) error = NULL;

  g_setenv ("HOLDFAST_ENGINE", "threads", TRUE);
  assert_auto (HF_ENGINE_THREADS);
  g_setenv ("HOLDFAST_ENGINE", "rings", TRUE);
  g_assert_null (hf_engine_new (HF_ENGINE_AUTO, 4, 1000, &error));
  g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE);
  g_assert_nonnull (strstr (error->message, "HOLDFAST_ENGINE"));
  g_unsetenv ("HOLDFAST_ENGINE");
}

static void
forbid (int system_call, int errnum)
{
  scmp_filter_ctx filter = seccomp_init (SCMP_ACT_ALLOW);

  g_assert_nonnull (filter);
  g_assert_cmpint (seccomp_rule_add (filter, SCMP_ACT_ERRNO (errnum), system_call, 0), ==, 0);
  g_assert_cmpint (seccomp_load (filter), ==, 0);
  seccomp_release (filter);
}

/* A container's filter, an old kernel, too little locked memory: threads without a word, and a ring only with an error. */
static void
test_forbidden (gconstpointer data)
{
  int errnum = GPOINTER_TO_INT (data);
  g_autoptr (GError) error = NULL;
  Many many;

  if (contract_parent ())
    return;
  forbid (SCMP_SYS (io_uring_setup), errnum);
  assert_auto (HF_ENGINE_THREADS);
  g_assert_null (hf_engine_new (HF_ENGINE_RING, 4, 1000, &error));
  g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE);
  g_assert_nonnull (strstr (error->message, g_strerror (errnum)));
  g_clear_error (&error);
  g_setenv ("HOLDFAST_ENGINE", "ring", TRUE);
  g_assert_null (hf_engine_new (HF_ENGINE_AUTO, 4, 1000, &error));
  g_clear_error (&error);

  many_init (&many, HF_ENGINE_THREADS, HF_IO_READ, 8, G_MAXSIZE);
  for (guint i = 0; i < N_BLOCKS; i++)
    g_assert_true (many_submit (&many, i, &error));
  g_assert_true (hf_engine_drain (many.engine, &error));
  many_check (&many, HF_IO_READ);
  many_clear (&many);
}

/* A ring that stops working says so; it neither hangs nor claims success. */
static void
test_ring_breaks (void)
{
  g_autoptr (GError) error = NULL, again = NULL;
  Many many;

  if (contract_parent ())
    return;
  many_init (&many, HF_ENGINE_RING, HF_IO_READ, 8, G_MAXSIZE);
  g_assert_true (many_submit (&many, 0, &error));
  hf_engine_wait (many.engine);
  g_assert_cmpuint (many.finished, ==, 1);
  forbid (SCMP_SYS (io_uring_enter), EPERM);
  g_assert_true (many_submit (&many, 1, &error));
  g_assert_false (hf_engine_drain (many.engine, &error));
  g_assert_nonnull (strstr (error->message, "io_uring_enter"));
  g_assert_nonnull (strstr (error->message, g_strerror (EPERM)));
  g_assert_cmpuint (many.finished, ==, 2);
  g_assert_cmpuint (many.failed, ==, 1);
  g_assert_false (many_submit (&many, 2, &again));
  g_assert_cmpstr (again->message, ==, error->message);
  many_clear (&many);
}

/* One that never takes a request, without ever failing for good, is given up when its time is over. */
static void
test_ring_takes_nothing (gconstpointer data)
{
  enum { PATIENCE_MS = 60 };
  int errnum = GPOINTER_TO_INT (data);
  g_autoptr (GError) error = NULL;
  gint64 begin;
  Many many;

  if (contract_parent ())
    return;
  hf_transfer_set_patience (PATIENCE_MS);
  many_init (&many, HF_ENGINE_RING, HF_IO_READ, 8, G_MAXSIZE);
  forbid (SCMP_SYS (io_uring_enter), errnum);
  begin = g_get_monotonic_time ();
  g_assert_true (many_submit (&many, 0, &error));
  g_assert_false (hf_engine_drain (many.engine, &error));
  g_assert_cmpint (g_get_monotonic_time () - begin, >=, PATIENCE_MS * G_TIME_SPAN_MILLISECOND);
  g_assert_cmpint (g_get_monotonic_time () - begin, <, HF_IO_PATIENCE_MS * (gint64)G_TIME_SPAN_MILLISECOND);
  g_assert_nonnull (strstr (error->message, "io_uring_enter"));
  g_assert_nonnull (strstr (error->message, g_strerror (errnum)));
  g_assert_cmpuint (many.failed, ==, 1);
  many_clear (&many);
}

/* Asked by hand, so that a ring that our code cannot set up is a failure and not a skip. 0, or why the kernel forbids it. */
static int
ask_kernel_for_ring (void)
{
  struct io_uring_params parameters = { 0 };
  long fd = syscall (SYS_io_uring_setup, 4, &parameters);

  if (fd < 0)
    return errno;
  close (fd);
  return 0;
}

/* Where the kernel has none at all, this stands for the ring's tests. */
static void
test_no_ring_here (void)
{
  g_test_message ("no io_uring here: %s", g_strerror (ask_kernel_for_ring ()));
  assert_auto (HF_ENGINE_THREADS);
}

static void
test_auto_is_ring (void)
{
  assert_auto (HF_ENGINE_RING);
}

static void
add_own (HfEngineKind kind, const char *name)
{
  static const struct {
    const char *name;
    void (*run) (gconstpointer data);
  } tests[] = {
    { "many", test_many },
    { "larger-than-bound", test_larger_than_bound },
    { "first-error", test_first_error },
    { "half-done", test_half_done },
    { "waiting-is-alone", test_waiting_is_alone },
    { "free-in-flight", test_free_in_flight },
    { "wait", test_wait },
    { "eof-ok", test_eof_ok },
    { "truncated", test_truncated },
    { "misuse", test_misuse },
  };

  for (guint i = 0; i < G_N_ELEMENTS (tests); i++) {
    g_autofree char *path = g_strdup_printf ("/engine/%s/%s", name, tests[i].name);

    g_test_add_data_func (path, GUINT_TO_POINTER (kind), tests[i].run);
  }
}

static void
add_ring (void)
{
  static const Mover ring = { .name = "ring", .n_iov_max = 1024, .move = move_ring };

  contract_add (&ring);
  add_own (HF_ENGINE_RING, "ring");
  g_test_add_func ("/engine/auto-is-ring", test_auto_is_ring);
  g_test_add_func ("/engine/ring-breaks", test_ring_breaks);
  g_test_add_data_func ("/engine/ring-takes-nothing/EAGAIN", GINT_TO_POINTER (EAGAIN), test_ring_takes_nothing);
  g_test_add_data_func ("/engine/ring-takes-nothing/EBUSY", GINT_TO_POINTER (EBUSY), test_ring_takes_nothing);
  g_test_add_data_func ("/engine/ring-takes-nothing/ENOMEM", GINT_TO_POINTER (ENOMEM), test_ring_takes_nothing);
}

int
main (int argc, char **argv)
{
  static const Mover threads = { .name = "threads", .n_iov_max = 1024, .move = move_threads };
  int forbidden = ask_kernel_for_ring ();

  g_test_init (&argc, &argv, NULL);
  g_unsetenv ("HOLDFAST_ENGINE");
  contract_add (&threads);
  add_own (HF_ENGINE_THREADS, "threads");
  if (forbidden == EPERM || forbidden == ENOSYS)
    g_test_add_func ("/engine/no-ring-here", test_no_ring_here);
  else
    add_ring ();
  g_test_add_func ("/engine/environment", test_environment);
  g_test_add_data_func ("/engine/forbidden/EPERM", GINT_TO_POINTER (EPERM), test_forbidden);
  g_test_add_data_func ("/engine/forbidden/ENOSYS", GINT_TO_POINTER (ENOSYS), test_forbidden);
  g_test_add_data_func ("/engine/forbidden/ENOMEM", GINT_TO_POINTER (ENOMEM), test_forbidden);
  return g_test_run ();
}
