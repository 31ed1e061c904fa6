/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns a second, non-blocking open file description of an output that is a pipe. One thread at a time.
 *
 * Theory of operation: whoever waits must be able to be stopped, so no write may block. A socket has MSG_DONTWAIT for that. A
 * pipe is opened once more, because making the caller's descriptor non-blocking would do so for everybody who has it; where that
 * cannot be done (no /proc), a piece of PIPE_BUF bytes is written as soon as the pipe has room, which it then does not wait for
 * (pipe(7)). A regular file never makes one wait.
 *
 * SIGPIPE is blocked around each write, and taken away if it is ours: a library must not change what the process does with it.
 */

#include "config.h"

#include "stream/output.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PIPE_SIZE (1 << 20)

struct _HfOutput {
  int fd;     /* the caller's, or own_fd */
  int own_fd; /* -1: none */
  gboolean socket;
  gsize piece; /* at most so many bytes at once */
};

static gboolean
fail_errno (GError **error, int saved_errno, const char *step)
{
  g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE, "%s: %s", step, g_strerror (saved_errno));
  return FALSE;
}

static void
start_pipe (HfOutput *output)
{
  g_autofree char *name = g_strdup_printf ("/proc/self/fd/%d", output->fd);

  (void)fcntl (output->fd, F_SETPIPE_SZ, PIPE_SIZE);
  output->own_fd = open (name, O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
  if (output->own_fd >= 0)
    output->fd = output->own_fd;
  else
    output->piece = PIPE_BUF;
}

HfOutput *
hf_output_new (int fd, GError **error)
{
  g_autoptr (HfOutput) output = g_new0 (HfOutput, 1);
  struct stat st;

  output->fd = fd;
  output->own_fd = -1;
  output->piece = G_MAXSSIZE;
  if (fstat (fd, &st) != 0) {
    fail_errno (error, errno, "look at the output");
    return NULL;
  }
  output->socket = S_ISSOCK (st.st_mode);
  if (S_ISFIFO (st.st_mode))
    start_pipe (output);
  return g_steal_pointer (&output);
}

void
hf_output_free (HfOutput *output)
{
  if (!output)
    return;
  if (output->own_fd >= 0)
    close (output->own_fd);
  g_free (output);
}

/* errno is that of the write. */
static ssize_t
write_quietly (const HfOutput *output, const guint8 *bytes, gsize length)
{
  static const struct timespec at_once;
  sigset_t pipe_only, pending, old;
  int saved_errno;
  ssize_t n;

  if (output->socket)
    return send (output->fd, bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL);
  sigemptyset (&pipe_only);
  sigaddset (&pipe_only, SIGPIPE);
  sigemptyset (&pending);
  sigpending (&pending);
  pthread_sigmask (SIG_BLOCK, &pipe_only, &old);
  n = write (output->fd, bytes, MIN (length, output->piece));
  saved_errno = errno;
  if (n < 0 && saved_errno == EPIPE && !sigismember (&pending, SIGPIPE))
    while (sigtimedwait (&pipe_only, NULL, &at_once) < 0 && errno == EINTR)
      ;
  pthread_sigmask (SIG_SETMASK, &old, NULL);
  errno = saved_errno;
  return n;
}

/* Until the output takes something, or will never. */
static gboolean
wait_writable (const HfOutput *output, const HfStreamJob *job, GError **error)
{
  struct pollfd fds[] = { { .fd = output->fd, .events = POLLOUT }, { .fd = job ? job->interrupt_fd : -1, .events = POLLIN } };
  int n;

  do
    n = poll (fds, G_N_ELEMENTS (fds), -1);
  while (n < 0 && errno == EINTR);
  if (n < 0)
    return fail_errno (error, errno, "wait for the output");
  if (fds[1].revents == 0)
    return TRUE;
  g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_INTERRUPTED, "interrupted");
  return FALSE;
}

gboolean
hf_output_write (HfOutput *output, const guint8 *bytes, gsize length, const HfStreamJob *job, gsize *done, GError **error)
{
  /* A pipe that blocks must be asked first. */
  gboolean ask = output->piece == PIPE_BUF;

  *done = 0;
  while (*done < length) {
    ssize_t n;

    if (ask && !wait_writable (output, job, error))
      return FALSE;
    n = write_quietly (output, bytes + *done, length - *done);
    if (n > 0)
      *done += (gsize)n;
    else if (n == 0)
      return fail_errno (error, EIO, "write the output: nothing was taken");
    else if (errno == EAGAIN && !wait_writable (output, job, error))
      return FALSE;
    else if (errno != EAGAIN && errno != EINTR)
      return fail_errno (error, errno, "write the output");
  }
  return TRUE;
}
