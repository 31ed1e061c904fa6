/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Server, clients and queue on real sockets. The devices are /dev/null and /dev/zero, which are no SCSI devices; what a command
 * meets there is acted out by HOLDFAST_FAIL's points.
 *
 * The main thread runs the server's loop, a second one is the clients: it blocks, with a limit, and tells the loop to stop at its
 * end.
 */

#include "config.h"

#include "base/fail.h"
#include "prhelper/log.h"
#include "prhelper/loop.h"
#include "prhelper/pidfile.h"
#include "prhelper/server.h"

#include <errno.h>
#include <fcntl.h>
#include <gio/gio.h>
#include <glib/gstdio.h>
#include <holdfast/scsi.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define LIMIT_S 20
/* A command that is still at work when everything else has happened. */
#define LONG "delay:6000"
#define LONG_US 6000000
/* Commands after which a device is known as quick, even if the first of them was not. */
#define TAKEOVER_QUICK 30

typedef struct {
  char *folder, *path;
  HfServer *server;
  GMainLoop *loop;
  HfServerRules rules;
  void (*play) (const char *path);
} Stage;

/* ---- a client ---- */

static int
connect_to (const char *path)
{
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  struct timeval limit = { .tv_sec = LIMIT_S };
  int fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

  g_assert_cmpint (fd, >=, 0);
  strcpy (address.sun_path, path);
  setsockopt (fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  g_assert_no_errno (connect (fd, (struct sockaddr *)&address, sizeof address));
  return fd;
}

/* FALSE: closed. */
static gboolean
receive (int fd, gpointer bytes, gsize length)
{
  ssize_t n = recv (fd, bytes, length, MSG_WAITALL);

  if (n < 0 && errno == EAGAIN)
    g_error ("no answer in %d s", LIMIT_S);
  return n == (ssize_t)length;
}

static int
client_new (const char *path)
{
  const guint8 none[HF_PROTOCOL_WORD_SIZE] = { 0 };
  guint8 word[HF_PROTOCOL_WORD_SIZE];
  int fd = connect_to (path);

  g_assert_true (receive (fd, word, sizeof word));
  g_assert_cmpint (word[3], ==, 1);
  g_assert_cmpint (send (fd, none, sizeof none, MSG_NOSIGNAL), ==, sizeof none);
  return fd;
}

static void
send_with (int fd, const guint8 *bytes, gsize length, const int *descriptors, guint n)
{
  union {
    struct cmsghdr align;
    char bytes[CMSG_SPACE (16 * sizeof (int))];
  } control = { 0 };
  struct iovec vector = { .iov_base = (gpointer)bytes, .iov_len = length };
  struct msghdr message = { .msg_iov = &vector, .msg_iovlen = 1 };

  if (n) {
    message.msg_control = control.bytes;
    message.msg_controllen = CMSG_SPACE (n * sizeof (int));
    CMSG_FIRSTHDR (&message)->cmsg_level = SOL_SOCKET;
    CMSG_FIRSTHDR (&message)->cmsg_type = SCM_RIGHTS;
    CMSG_FIRSTHDR (&message)->cmsg_len = CMSG_LEN (n * sizeof (int));
    memcpy (CMSG_DATA (CMSG_FIRSTHDR (&message)), descriptors, n * sizeof (int));
  }
  g_assert_cmpint (sendmsg (fd, &message, MSG_NOSIGNAL), ==, (gssize)length);
}

/* In one piece: a server that has read the CDB finds the list too. */
static void
request (int fd, guint8 opcode, guint8 length, const char *device, int flags)
{
  const guint8 bytes[HF_PROTOCOL_CDB_SIZE + 255] = { [0] = opcode, [8] = length };
  int descriptor = open (device, flags | O_CLOEXEC);

  g_assert_cmpint (descriptor, >=, 0);
  send_with (fd, bytes, HF_PROTOCOL_CDB_SIZE + (opcode == HF_PROTOCOL_PR_OUT ? length : 0u), &descriptor, 1);
  close (descriptor);
}

/* "00", "18", "02 b/0006"; "closed". */
static char *
answer (int fd)
{
  guint8 header[HF_PROTOCOL_REPLY_SIZE];

  if (!receive (fd, header, sizeof header))
    return g_strdup ("closed");
  if (header[3] != HF_SAM_CHECK_CONDITION)
    return g_strdup_printf ("%02x", header[3]);
  return g_strdup_printf ("%02x %x/%02x%02x", header[3], header[8 + 2], header[8 + 12], header[8 + 13]);
}

static void
assert_answer (int fd, const char *expected)
{
  g_autofree char *text = answer (fd);

  g_assert_cmpstr (text, ==, expected);
}

static void
assert_closed (int fd)
{
  char byte;

  if (receive (fd, &byte, 1))
    g_error ("the connection is open");
  close (fd);
}

/* Nothing has come so far. */
static void
assert_silent (int fd)
{
  char byte;

  g_assert_cmpint (recv (fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK), ==, -1);
  g_assert_cmpint (errno, ==, EAGAIN);
}

/* Whatever was sent before has been read: the loop, which takes one request of each client in its turn, went round. */
static void
settle (int fd)
{
  for (guint i = 0; i < 2; i++) {
    request (fd, HF_PROTOCOL_CLEANUP, 0, "/dev/zero", O_RDWR);
    assert_answer (fd, "00");
  }
}

static void
assert_serves (const char *path)
{
  int fd = client_new (path);

  request (fd, HF_PROTOCOL_CLEANUP, 0, "/dev/zero", O_RDWR);
  assert_answer (fd, "00");
  close (fd);
}

/* ---- the stage ---- */

static void
on_ended (gpointer user_data)
{
  g_main_loop_quit (((Stage *)user_data)->loop);
}

static gboolean
on_stop (gpointer user_data)
{
  hf_server_stop (((Stage *)user_data)->server);
  return G_SOURCE_REMOVE;
}

static Stage *the_stage;

static gpointer
clients_main (gpointer data)
{
  Stage *stage = data;

  stage->play (stage->path);
  g_idle_add (on_stop, stage);
  return NULL;
}

static Stage *
stage_new (void)
{
  Stage *stage = g_new0 (Stage, 1);

  stage->folder = g_dir_make_tmp ("test-prhelper-XXXXXX", NULL);
  g_assert_nonnull (stage->folder);
  stage->path = g_build_filename (stage->folder, "socket", NULL);
  stage->rules = (HfServerRules){
    .max_clients = 64,
    .max_clients_per_uid = 64,
    .queue = { .max_threads = 8, .max_threads_per_process = 8, .max_discards_per_uid = 1024 },
    .client = { .timeout_ms = LIMIT_S * 1000, .request_timeout_ms = LIMIT_S * 1000 },
  };
  return stage;
}

/* fail: what the commands meet. Frees stage. */
static void
stage_run (Stage *stage, void (*play) (const char *path), const char *fail)
{
  g_autoptr (GError) error = NULL;
  HfListener *listener;
  GThread *clients;

  g_assert_true (hf_fail_set (fail, &error));
  g_assert_no_error (error);
  listener = hf_listener_new (stage->path, 0600, &error);
  g_assert_no_error (error);
  stage->play = play;
  stage->loop = g_main_loop_new (NULL, TRUE);
  stage->server = hf_server_new (listener, &stage->rules, NULL, on_ended, stage);
  the_stage = stage;
  clients = g_thread_new ("clients", clients_main, stage);
  hf_loop_run (stage->loop);
  g_thread_join (clients);
  /* The word to stop may have come twice. */
  while (g_main_context_iteration (NULL, FALSE))
    continue;
  hf_server_free (stage->server);
  g_main_loop_unref (stage->loop);
  g_assert_false (g_file_test (stage->path, G_FILE_TEST_EXISTS));
  g_assert_cmpint (g_rmdir (stage->folder), ==, 0);
  g_free (stage->path);
  g_free (stage->folder);
  g_free (stage);
}

/* ---- what is answered ---- */

static void
play_answers (const char *path)
{
  int fd = client_new (path);

  request (fd, HF_PROTOCOL_PR_IN, 8, "/dev/null", O_RDWR);
  assert_answer (fd, "02 b/0006");
  request (fd, HF_PROTOCOL_PR_OUT, 24, "/dev/null", O_RDONLY);
  assert_answer (fd, "02 b/0006");
  request (fd, HF_PROTOCOL_CLEANUP, 0, "/dev/null", O_RDONLY);
  assert_answer (fd, "00");
  request (fd, HF_PROTOCOL_PR_OUT, 24, "/", O_RDONLY);
  assert_answer (fd, "02 b/0006");
  close (fd);
}

static void
test_answers (void)
{
  stage_run (stage_new (), play_answers, NULL);
}

static void
play_device_answers (const char *path)
{
  static const char *const expected[] = { "18", "08", "28", "02 6/2a03", "02 b/0006", "08", "08", "02 b/0006" };
  int fd = client_new (path);

  for (guint i = 0; i < G_N_ELEMENTS (expected); i++) {
    request (fd, HF_PROTOCOL_PR_OUT, 24, "/dev/null", O_RDWR);
    assert_answer (fd, expected[i]);
  }
  close (fd);
}

static void
test_device_answers (void)
{
  stage_run (stage_new (), play_device_answers,
             "before-guest-out#1=conflict,before-guest-out#2=busy,before-guest-out#3=task-set-full,"
             "before-guest-out#4=unit-attention:2A03,before-guest-out#5=link,before-guest-out#6=timeout,"
             "after-guest-out#1=timeout");
}

static void
play_strict (const char *path)
{
  int fd = client_new (path);

  request (fd, HF_PROTOCOL_PR_OUT, 24, "/dev/null", O_RDONLY);
  assert_answer (fd, "02 5/2000");
  request (fd, HF_PROTOCOL_CLEANUP, 0, "/dev/null", O_RDONLY);
  assert_answer (fd, "02 5/2000");
  request (fd, HF_PROTOCOL_PR_IN, 24, "/dev/null", O_RDONLY);
  assert_answer (fd, "02 b/0006");
  request (fd, HF_PROTOCOL_PR_OUT, 24, "/dev/null", O_RDWR);
  assert_answer (fd, "02 b/0006");
  close (fd);
}

static void
test_strict (void)
{
  Stage *stage = stage_new ();

  stage->rules.client.strict = TRUE;
  stage_run (stage, play_strict, NULL);
}

/* Two requests at once have two answers, in their order. */
static void
play_pipelined (const char *path)
{
  int fd = client_new (path);

  for (guint i = 0; i < 20; i++) {
    request (fd, HF_PROTOCOL_PR_OUT, 24, "/dev/null", O_RDWR);
    request (fd, HF_PROTOCOL_CLEANUP, 0, "/dev/null", O_RDWR);
  }
  for (guint i = 0; i < 20; i++) {
    assert_answer (fd, "02 b/0006");
    assert_answer (fd, "00");
  }
  close (fd);
}

static void
test_pipelined (void)
{
  stage_run (stage_new (), play_pipelined, NULL);
}

/* ---- who waits for whom ---- */

static void
play_other_device (const char *path)
{
  int slow = client_new (path), other = client_new (path);

  request (slow, HF_PROTOCOL_PR_OUT, 24, "/dev/null", O_RDWR);
  settle (other);
  request (other, HF_PROTOCOL_PR_IN, 24, "/dev/zero", O_RDWR);
  assert_answer (other, "02 b/0006");
  assert_silent (slow);
  assert_answer (slow, "02 b/0006");
  close (slow);
  close (other);
}

static void
test_other_device (void)
{
  stage_run (stage_new (), play_other_device, "before-guest-out#1=" LONG);
}

/* The second of a device begins when the first has ended. What is learnt from the first may come to its client a moment later. */
static void
play_same_device (const char *path)
{
  int first = client_new (path), second = client_new (path);
  gint64 began = g_get_monotonic_time ();

  request (first, HF_PROTOCOL_PR_OUT, 24, "/dev/null", O_RDWR);
  settle (second);
  request (second, HF_PROTOCOL_PR_IN, 24, "/dev/null", O_RDWR);
  assert_answer (second, "18");
  g_assert_cmpint (g_get_monotonic_time () - began, >=, LONG_US);
  assert_answer (first, "02 b/0006");
  close (first);
  close (second);
}

static void
test_same_device (void)
{
  stage_run (stage_new (), play_same_device, "before-guest-out#1=" LONG ",before-guest-in#1=conflict");
}

/* The deadline is real: an answer comes while the command is still away, and what waited behind it is never sent. Only this is
   told by BUSY. */
static void
play_deadline (const char *path)
{
  int first = client_new (path), second = client_new (path);
  gint64 start = g_get_monotonic_time ();

  request (first, HF_PROTOCOL_PR_OUT, 24, "/dev/null", O_RDWR);
  settle (second);
  request (second, HF_PROTOCOL_PR_OUT, 24, "/dev/null", O_RDWR);
  assert_answer (first, "02 b/2e02");
  assert_answer (second, "08");
  g_assert_cmpint (g_get_monotonic_time () - start, <, 1400 * 1000);
  /* The device is free again some time. */
  for (;;) {
    g_autofree char *text = NULL;

    request (first, HF_PROTOCOL_PR_OUT, 24, "/dev/null", O_RDWR);
    text = answer (first);
    if (strcmp (text, "08") == 0)
      continue;
    /* The second command to be executed: that of the second client was not. */
    g_assert_cmpstr (text, ==, "18");
    break;
  }
  close (first);
  close (second);
}

static void
test_deadline (void)
{
  Stage *stage = stage_new ();

  stage->rules.client.timeout_ms = 300;
  stage_run (stage, play_deadline, "before-guest-out#1=" LONG ",before-guest-out#2=conflict");
}

static void
play_threads (const char *path)
{
  int first = client_new (path), second = client_new (path), third = client_new (path);

  request (first, HF_PROTOCOL_PR_OUT, 24, "/dev/null", O_RDWR);
  settle (second);
  request (second, HF_PROTOCOL_PR_IN, 24, "/dev/zero", O_RDWR);
  assert_answer (second, "08");
  request (third, HF_PROTOCOL_CLEANUP, 0, "/dev/zero", O_RDWR);
  assert_answer (third, "00");
  assert_silent (first);
  assert_answer (first, "02 b/0006");
  close (first);
  close (second);
  close (third);
}

/* No thread is left for a second device. */
static void
test_threads (void)
{
  Stage *stage = stage_new ();

  stage->rules.queue.max_threads = 1;
  stage_run (stage, play_threads, "before-guest-out#1=" LONG);
  stage = stage_new ();
  stage->rules.queue.max_threads_per_process = 1;
  stage_run (stage, play_threads, "before-guest-out#1=" LONG);
}

/* ---- the loop's turn ---- */

#define TURN_JOBS_MAX 1000

typedef struct {
  HfQueue *queue;
  const char *device;
  guint *n_done; /* of all */
} Runner;

static void on_run (HfJob *job, gpointer user_data);

static void
run_again (Runner *runner)
{
  HfProtocolRequest request = { .cdb = { HF_PROTOCOL_PR_IN, [8] = 8 }, .length = 8 };
  const HfPeer peer = { .pid = 1 };
  int fd = open (runner->device, O_RDWR | O_CLOEXEC);

  g_assert_nonnull (hf_queue_submit (runner->queue, &peer, &request, fd, G_MAXINT64, on_run, runner));
}

/* Slow enough for the threads: whenever one job was taken from the inbox, the next is in it. */
static void
on_run (HfJob *job, gpointer user_data)
{
  Runner *runner = user_data;
  gint64 end = g_get_monotonic_time () + 1000;

  g_assert_cmpuint ((*runner->n_done)++, <, TURN_JOBS_MAX);
  while (g_get_monotonic_time () < end)
    g_thread_yield ();
  run_again (runner);
}

static gboolean
on_time (gpointer user_data)
{
  *(gboolean *)user_data = TRUE;
  return G_SOURCE_REMOVE;
}

/* ---- the main thread executes too ---- */

/* Threads that have the name. */
static guint
count_threads (const char *name)
{
  g_autoptr (GDir) threads = g_dir_open ("/proc/self/task", 0, NULL);
  const char *id;
  guint n = 0;

  g_assert_nonnull (threads);
  while ((id = g_dir_read_name (threads)) != NULL) {
    g_autofree char *path = g_build_filename ("/proc/self/task", id, "comm", NULL);
    g_autofree char *comm = NULL;

    if (g_file_get_contents (path, &comm, NULL, NULL))
      n += strcmp (g_strchomp (comm), name) == 0;
  }
  return n;
}

/* One that was away for a moment may not have ended yet: on a busy machine a quick read is not always quick. */
static void
await_threads (const char *name, guint wanted)
{
  gint64 limit = g_get_monotonic_time () + LIMIT_S * G_USEC_PER_SEC;

  while (count_threads (name) != wanted) {
    g_assert_cmpint (g_get_monotonic_time (), <, limit);
    g_usleep (1000);
  }
}

/* The device has been quick so often that the main thread executes its reads. When one hangs, another one is the main thread. */
static void
play_takeover (const char *path)
{
  int quick = client_new (path), other = client_new (path);

  for (guint i = 0; i < TAKEOVER_QUICK; i++) {
    request (quick, HF_PROTOCOL_PR_IN, 24, "/dev/null", O_RDWR);
    assert_answer (quick, "02 b/0006");
  }
  request (quick, HF_PROTOCOL_PR_IN, 24, "/dev/null", O_RDWR);
  settle (other);
  request (other, HF_PROTOCOL_PR_IN, 24, "/dev/zero", O_RDWR);
  assert_answer (other, "02 b/0006");
  /* The one that is away, the one that leads, and who watches it. */
  await_threads ("main", 3);
  assert_silent (quick);
  assert_answer (quick, "02 b/0006");
  request (quick, HF_PROTOCOL_PR_IN, 24, "/dev/null", O_RDWR);
  assert_answer (quick, "02 b/0006");
  close (quick);
  close (other);
}

static void
test_takeover (void)
{
  Stage *stage = stage_new ();

  stage->rules.queue.short_us = G_USEC_PER_SEC;
  stage_run (stage, play_takeover, "before-guest-in#31=delay:8000");
}

/* All is stopped while the main thread is away: it ends with its command, as any other would. */
static void
play_takeover_stop (const char *path)
{
  int quick = client_new (path);

  for (guint i = 0; i < TAKEOVER_QUICK; i++) {
    request (quick, HF_PROTOCOL_PR_IN, 24, "/dev/null", O_RDWR);
    assert_answer (quick, "02 b/0006");
  }
  request (quick, HF_PROTOCOL_PR_IN, 24, "/dev/null", O_RDWR);
  assert_serves (path);
  await_threads ("main", 3);
  g_idle_add (on_stop, the_stage);
  assert_answer (quick, "02 b/0006");
  assert_closed (quick);
}

static void
test_takeover_stop (void)
{
  Stage *stage = stage_new ();

  stage->rules.queue.short_us = G_USEC_PER_SEC;
  /* Well before the end of what a stop waits for. */
  stage_run (stage, play_takeover_stop, "before-guest-in#31=delay:1500");
}

/* A stack that there is no room for. */
static void
play_no_thread (const char *path)
{
  int fd = client_new (path);
  pthread_attr_t none, before;

  pthread_getattr_default_np (&before);
  pthread_attr_init (&none);
  g_assert_cmpint (pthread_attr_setstacksize (&none, (gsize)1 << (GLIB_SIZEOF_VOID_P * 8 - 2)), ==, 0);
  g_assert_cmpint (pthread_setattr_default_np (&none), ==, 0);
  request (fd, HF_PROTOCOL_PR_IN, 24, "/dev/null", O_RDWR);
  assert_answer (fd, "08");
  g_assert_cmpint (pthread_setattr_default_np (&before), ==, 0);
  request (fd, HF_PROTOCOL_PR_IN, 24, "/dev/null", O_RDWR);
  assert_answer (fd, "02 b/0006");
  pthread_attr_destroy (&none);
  pthread_attr_destroy (&before);
  close (fd);
}

/* No thread can be made: a command is answered and not kept. */
static void
test_no_thread (void)
{
  stage_run (stage_new (), play_no_thread, NULL);
}

/* Commands that follow each other without end do not keep the loop from anything else. */
static void
test_turn (void)
{
  static const char *const devices[] = { "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom" };
  const HfQueueLimits limits = { .max_threads = 8, .max_threads_per_process = 8 };
  HfQueue *queue = hf_queue_new (&limits);
  Runner runners[G_N_ELEMENTS (devices)];
  gboolean polled = FALSE;
  guint n_done = 0;

  g_assert_true (hf_fail_set (NULL, NULL));
  for (guint i = 0; i < G_N_ELEMENTS (devices); i++) {
    runners[i] = (Runner){ queue, devices[i], &n_done };
    run_again (&runners[i]);
  }
  g_timeout_add (50, on_time, &polled);
  while (!polled)
    g_main_context_iteration (NULL, TRUE);
  hf_queue_free (queue);
  g_assert_cmpuint (n_done, >, 0);
}

/* ---- shares ---- */

static gboolean
begin (HfQueue *queue, pid_t pid, uid_t uid)
{
  HfProtocolRequest request = { .cdb = { HF_PROTOCOL_PR_IN, [8] = 8 }, .length = 8 };
  const HfPeer peer = { .pid = pid, .uid = uid, .start_time = 4711 };

  return hf_queue_submit (queue, &peer, &request, memfd_create ("device", MFD_CLOEXEC), G_MAXINT64, NULL, NULL) != NULL;
}

/* Nothing ends here, for the loop does not run: all devices hang. */
static void
test_shares (void)
{
  const HfQueueLimits limits = { .max_threads = 8, .max_threads_per_process = 8 };
  HfQueue *queue = hf_queue_new (&limits);

  for (guint i = 0; i < 6; i++)
    g_assert_true (begin (queue, 1, 1000));
  /* A process that has some leaves the last quarter to others, a user the last eighth. */
  g_assert_false (begin (queue, 1, 1000));
  g_assert_true (begin (queue, 2, 1000));
  g_assert_false (begin (queue, 3, 1000));
  g_assert_true (begin (queue, 4, 1001));
  g_assert_false (begin (queue, 5, 1002));
  hf_queue_free (queue);
}

/* What one user's processes leave to be closed is counted together, and is nobody else's. */
static void
test_discards (void)
{
  const HfQueueLimits limits = { .max_discards_per_uid = 40 };
  const HfPeer peers[] = { { .pid = 1, .uid = 1000 }, { .pid = 1, .uid = 1000, .start_time = 1 }, { .pid = 2, .uid = 1001 } };
  HfQueue *queue = hf_queue_new (&limits);

  for (guint i = 0; i < 21; i++)
    hf_queue_discard (queue, &peers[0], memfd_create ("device", MFD_CLOEXEC));
  g_assert_true (hf_queue_is_clogged (queue, &peers[0]));
  g_assert_false (hf_queue_is_clogged (queue, &peers[1]));
  for (guint i = 0; i < 20; i++)
    hf_queue_discard (queue, &peers[1], memfd_create ("device", MFD_CLOEXEC));
  g_assert_true (hf_queue_is_clogged (queue, &peers[1]));
  g_assert_false (hf_queue_is_clogged (queue, &peers[2]));
  g_assert_cmpuint (hf_queue_get_running (queue), ==, 0);
  while (hf_queue_is_clogged (queue, &peers[0]) || hf_queue_is_clogged (queue, &peers[1]))
    g_main_context_iteration (NULL, TRUE);
  hf_queue_free (queue);
}

/* ---- clients that lie or stall ---- */

static void
play_stalls (const char *path)
{
  const guint8 cdb[HF_PROTOCOL_CDB_SIZE] = { HF_PROTOCOL_PR_IN };
  int idle = client_new (path), greeting = connect_to (path), part = client_new (path);
  guint8 word[HF_PROTOCOL_WORD_SIZE];

  send_with (part, cdb, 1, NULL, 0);
  g_assert_true (receive (greeting, word, sizeof word));
  assert_closed (greeting);
  assert_closed (part);
  /* It began nothing. */
  request (idle, HF_PROTOCOL_CLEANUP, 0, "/dev/zero", O_RDWR);
  assert_answer (idle, "00");
  close (idle);
}

static void
test_stalls (void)
{
  Stage *stage = stage_new ();

  stage->rules.client.request_timeout_ms = 100;
  stage_run (stage, play_stalls, NULL);
}

static guint
count_descriptors (void)
{
  g_autoptr (GDir) dir = g_dir_open ("/proc/self/fd", 0, NULL);
  guint n = 0;

  while (g_dir_read_name (dir))
    n++;
  return n;
}

static void
play_faults (const char *path)
{
  static const guint8 opcodes[] = { 0x12, HF_PROTOCOL_PR_IN, HF_PROTOCOL_PR_IN, HF_PROTOCOL_PR_IN, HF_PROTOCOL_PR_OUT };
  static const guint8 lengths[] = { 0, 0, 0, 0xff, 8 };
  static const guint n_descriptors[] = { 1, 2, 16, 0, 1 };
  int device = open ("/dev/zero", O_RDWR | O_CLOEXEC), descriptors[16];

  for (guint i = 0; i < G_N_ELEMENTS (descriptors); i++)
    descriptors[i] = device;
  for (guint i = 0; i < 50; i++) {
    guint kind = i % G_N_ELEMENTS (opcodes);
    const guint8 cdb[HF_PROTOCOL_CDB_SIZE] = { [0] = opcodes[kind], [8] = lengths[kind] };
    int fd = client_new (path);

    send_with (fd, cdb, sizeof cdb, descriptors, n_descriptors[kind]);
    assert_closed (fd);
  }
  close (device);
  assert_serves (path);
}

static void
play_command (const char *path)
{
  int fd = client_new (path);

  request (fd, HF_PROTOCOL_PR_IN, 8, "/dev/null", O_RDWR);
  assert_answer (fd, "02 b/0006");
  close (fd);
}

/* What was passed is closed, whatever was wrong with it; not before the server ends, but soon. */
static void
test_faults (void)
{
  gint64 limit = g_get_monotonic_time () + LIMIT_S * G_USEC_PER_SEC;
  guint before;

  stage_run (stage_new (), play_command, NULL);
  before = count_descriptors ();
  stage_run (stage_new (), play_faults, NULL);
  while (count_descriptors () > before && g_get_monotonic_time () < limit)
    g_thread_yield ();
  g_assert_cmpuint (count_descriptors (), ==, before);
}

/* It goes away in the middle of its command: nobody else notices. */
static void
play_leaves (const char *path)
{
  int leaver = client_new (path), stayer = client_new (path);

  request (leaver, HF_PROTOCOL_PR_OUT, 24, "/dev/null", O_RDWR);
  settle (stayer);
  request (stayer, HF_PROTOCOL_PR_IN, 24, "/dev/null", O_RDWR);
  close (leaver);
  assert_answer (stayer, "18");
  close (stayer);
}

static void
test_leaves (void)
{
  stage_run (stage_new (), play_leaves, "before-guest-out#1=" LONG ",before-guest-in#1=conflict");
}

/* It goes away while its command waits for the device: the command is never sent. */
static void
play_leaves_queue (const char *path)
{
  int first = client_new (path), leaver = client_new (path), other = client_new (path);

  request (first, HF_PROTOCOL_PR_OUT, 24, "/dev/null", O_RDWR);
  settle (other);
  request (leaver, HF_PROTOCOL_PR_OUT, 24, "/dev/null", O_RDWR);
  settle (other);
  close (leaver);
  settle (other);
  assert_silent (first);
  request (other, HF_PROTOCOL_PR_OUT, 24, "/dev/null", O_RDWR);
  assert_answer (first, "02 b/0006");
  assert_answer (other, "18");
  close (first);
  close (other);
}

static void
test_leaves_queue (void)
{
  stage_run (stage_new (), play_leaves_queue, "before-guest-out#1=" LONG ",before-guest-out#2=conflict");
}

/* ---- quotas and rules ---- */

static void
play_quota (const char *path)
{
  int first = client_new (path), second = client_new (path);

  assert_closed (connect_to (path));
  request (first, HF_PROTOCOL_CLEANUP, 0, "/dev/zero", O_RDWR);
  assert_answer (first, "00");
  close (first);
  request (second, HF_PROTOCOL_CLEANUP, 0, "/dev/zero", O_RDWR);
  assert_answer (second, "00");
  /* The place of the first is free as soon as the server has seen it go. */
  for (gboolean served = FALSE; !served;) {
    guint8 word[HF_PROTOCOL_WORD_SIZE];
    int fd = connect_to (path);

    served = receive (fd, word, sizeof word);
    close (fd);
  }
  close (second);
}

static void
test_quota (void)
{
  Stage *stage = stage_new ();

  stage->rules.max_clients = 2;
  stage_run (stage, play_quota, NULL);
  stage = stage_new ();
  stage->rules.max_clients_per_uid = 2;
  stage_run (stage, play_quota, NULL);
}

static void
play_refused (const char *path)
{
  assert_closed (connect_to (path));
}

static void
test_allow (void)
{
  g_autoptr (GArray) ours = g_array_new (FALSE, FALSE, sizeof (guint)), others = g_array_new (FALSE, FALSE, sizeof (guint));
  guint uid = getuid (), gid = getgid (), other = getuid () + 4711;
  Stage *stage = stage_new ();

  g_array_append_val (others, other);
  stage->rules.allow_uids = others;
  stage_run (stage, play_refused, NULL);
  g_array_append_val (others, uid);
  stage = stage_new ();
  stage->rules.allow_uids = others;
  stage_run (stage, assert_serves, NULL);
  /* One of the two rules is enough. */
  g_array_set_size (others, 1);
  g_array_append_val (ours, gid);
  stage = stage_new ();
  stage->rules.allow_uids = others;
  stage->rules.allow_gids = ours;
  stage_run (stage, assert_serves, NULL);
}

/* ---- the end ---- */

/* What was sent before the end is answered, then everybody is let go. */
static void
play_stop (const char *path)
{
  int idle = client_new (path), busy = client_new (path), half = client_new (path);
  const guint8 cdb[HF_PROTOCOL_CDB_SIZE] = { HF_PROTOCOL_PR_OUT, [8] = 24 }, list[24] = { 0 };
  int device = open ("/dev/zero", O_RDWR | O_CLOEXEC);

  send_with (half, cdb, sizeof cdb, &device, 1);
  settle (idle);
  request (busy, HF_PROTOCOL_PR_IN, 24, "/dev/null", O_RDWR);
  request (busy, HF_PROTOCOL_CLEANUP, 0, "/dev/null", O_RDWR);
  g_idle_add (on_stop, the_stage);
  assert_closed (idle);
  assert_silent (busy);
  /* Begun before the end, and still in time. */
  g_assert_cmpint (send (half, list, sizeof list, MSG_NOSIGNAL), ==, sizeof list);
  assert_answer (half, "18");
  assert_closed (half);
  assert_answer (busy, "02 b/0006");
  assert_answer (busy, "00");
  assert_closed (busy);
  close (device);
}

static void
test_stop (void)
{
  stage_run (stage_new (), play_stop, "before-guest-in=delay:1500,before-guest-out=conflict");
}

/* Commands that take long, and are many, do not keep the server. */
static void
play_stop_late (const char *path)
{
  int busy = client_new (path), waiting = client_new (path), idle = client_new (path);

  request (busy, HF_PROTOCOL_PR_IN, 24, "/dev/null", O_RDWR);
  for (guint i = 0; i < 20; i++)
    request (busy, HF_PROTOCOL_PR_IN, 24, "/dev/null", O_RDWR);
  settle (idle);
  request (waiting, HF_PROTOCOL_PR_OUT, 24, "/dev/null", O_RDWR);
  settle (idle);
  g_idle_add (on_stop, the_stage);
  assert_closed (idle);
  assert_answer (waiting, "08");
  assert_closed (waiting);
  assert_answer (busy, "02 b/2e02");
  for (guint i = 0; i < 20; i++)
    assert_answer (busy, "08");
  assert_closed (busy);
}

static void
test_stop_late (void)
{
  gint64 start = g_get_monotonic_time ();

  stage_run (stage_new (), play_stop_late, "before-guest-in=delay:6000");
  g_assert_cmpint (g_get_monotonic_time () - start, <, 5500 * 1000);
}

static void
test_pidfile (void)
{
  g_autofree char *folder = g_dir_make_tmp ("test-prhelper-XXXXXX", NULL);
  g_autofree char *path = g_build_filename (folder, "pid", NULL);
  g_autoptr (GError) error = NULL;
  HfPidfile *first = hf_pidfile_new (path, &error), *second;

  g_assert_no_error (error);
  /* What a client passes, and we close, does not take the lock away. */
  close (open (path, O_RDONLY | O_CLOEXEC));
  g_assert_null (hf_pidfile_new (path, &error));
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_WOULD_BLOCK);
  g_unlink (path);
  second = hf_pidfile_new (path, NULL);
  g_assert_nonnull (second);
  /* The successor's file stays. */
  hf_pidfile_free (first);
  g_assert_true (g_file_test (path, G_FILE_TEST_EXISTS));
  hf_pidfile_free (second);
  g_assert_cmpint (g_rmdir (folder), ==, 0);
}

/* A standard error that nobody reads. */
static void
test_log (void)
{
  int ends[2], old = dup (STDERR_FILENO);
  char text[4096];
  ssize_t n;

  g_assert_no_errno (pipe2 (ends, O_CLOEXEC));
  g_assert_no_errno (fcntl (ends[0], F_SETFL, O_NONBLOCK));
  dup2 (ends[1], STDERR_FILENO);
  alarm (LIMIT_S);
  for (guint i = 0; i < 3000; i++)
    hf_log (HF_LOG_ERROR, "%u: a line that is long enough to fill a pipe of 64 KiB when it is written often", i);
  while (read (ends[0], text, sizeof text) > 0)
    continue;
  hf_log (HF_LOG_ERROR, "read again");
  alarm (0);
  dup2 (old, STDERR_FILENO);
  n = read (ends[0], text, sizeof text - 1);
  g_assert_cmpint (n, >, 0);
  text[n] = '\0';
  g_assert_nonnull (strstr (text, "read again\n"));
  g_assert_nonnull (strstr (text, " lines were lost"));
  close (old);
  close (ends[0]);
  close (ends[1]);
}

static void
test_listener (void)
{
  g_autofree char *folder = g_dir_make_tmp ("test-prhelper-XXXXXX", NULL);
  g_autofree char *path = g_build_filename (folder, "socket", NULL);
  g_autofree char *file = g_build_filename (folder, "file", NULL);
  g_autoptr (GError) error = NULL;
  HfListener *first = hf_listener_new (path, 0660, NULL), *second;
  GStatBuf status;

  g_assert_nonnull (first);
  g_assert_cmpint (g_stat (path, &status), ==, 0);
  g_assert_cmpuint (status.st_mode & 0777, ==, 0660);
  second = hf_listener_new (path, -1, NULL);
  g_assert_nonnull (second);
  /* The successor's socket stays. */
  hf_listener_free (first);
  g_assert_true (g_file_test (path, G_FILE_TEST_EXISTS));
  hf_listener_free (second);
  g_assert_false (g_file_test (path, G_FILE_TEST_EXISTS));
  g_assert_true (g_file_set_contents (file, "mine", -1, NULL));
  g_assert_null (hf_listener_new (file, -1, &error));
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_EXISTS);
  g_assert_true (g_file_test (file, G_FILE_TEST_IS_REGULAR));
  g_assert_null (hf_listener_new ("socket", -1, NULL));
  g_unlink (file);
  g_rmdir (folder);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  hf_log_init (HF_LOG_ERROR);
  g_test_add_func ("/prhelper/server/answers", test_answers);
  g_test_add_func ("/prhelper/server/device-answers", test_device_answers);
  g_test_add_func ("/prhelper/server/strict", test_strict);
  g_test_add_func ("/prhelper/server/pipelined", test_pipelined);
  g_test_add_func ("/prhelper/server/other-device", test_other_device);
  g_test_add_func ("/prhelper/server/same-device", test_same_device);
  g_test_add_func ("/prhelper/server/deadline", test_deadline);
  g_test_add_func ("/prhelper/server/threads", test_threads);
  g_test_add_func ("/prhelper/server/turn", test_turn);
  g_test_add_func ("/prhelper/server/takeover", test_takeover);
  g_test_add_func ("/prhelper/server/takeover-stop", test_takeover_stop);
  g_test_add_func ("/prhelper/server/no-thread", test_no_thread);
  g_test_add_func ("/prhelper/server/shares", test_shares);
  g_test_add_func ("/prhelper/server/discards", test_discards);
  g_test_add_func ("/prhelper/server/stalls", test_stalls);
  g_test_add_func ("/prhelper/server/faults", test_faults);
  g_test_add_func ("/prhelper/server/leaves", test_leaves);
  g_test_add_func ("/prhelper/server/leaves-queue", test_leaves_queue);
  g_test_add_func ("/prhelper/server/quota", test_quota);
  g_test_add_func ("/prhelper/server/allow", test_allow);
  g_test_add_func ("/prhelper/server/stop", test_stop);
  g_test_add_func ("/prhelper/server/stop-late", test_stop_late);
  g_test_add_func ("/prhelper/pidfile", test_pidfile);
  g_test_add_func ("/prhelper/log", test_log);
  g_test_add_func ("/prhelper/listener/path", test_listener);
  return g_test_run ();
}
