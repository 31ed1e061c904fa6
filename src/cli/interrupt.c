/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns the actions of SIGINT and SIGTERM while a move is under way, and of SIGHUP and SIGPIPE too while a stream is. Thread: see
 * the header.
 *
 * Theory of operation: the handler only sets a flag, and for a stream writes one byte into a pipe of ours. The move looks at the
 * flag between its phases, so each phase ends as if nothing had come; a stream waits for the pipe together with its own
 * descriptors. Polls that the signal cuts short are repeated by their loops.
 */
#include "config.h"

#include "cli/interrupt.h"

#include <errno.h>
#include <fcntl.h>
#include <glib-unix.h>
#include <glib.h>
#include <signal.h>
#include <unistd.h>

static const int signals[] = { SIGINT, SIGTERM, SIGHUP, SIGPIPE };
#define N_OF_MOVES 2
static struct sigaction before[G_N_ELEMENTS (signals)];
static guint n_begun;
static volatile sig_atomic_t came;
static int pipe_fds[2] = { -1, -1 };

static void
remember (int number)
{
  int reason = errno;
  ssize_t written = 0;

  came = number;
  /* The pipe is empty and does not block: one byte fits, and nobody reads it. */
  if (pipe_fds[1] >= 0)
    written = write (pipe_fds[1], "", 1);
  (void)written;
  errno = reason;
}

static void
begin (guint n)
{
  /* Once only: the second signal finds the default again. */
  struct sigaction action = { .sa_handler = remember, .sa_flags = SA_RESTART | (int)SA_RESETHAND };
  struct sigaction ignore = { .sa_handler = SIG_IGN };

  n_begun = n;
  came = 0;
  for (guint i = 0; i < n; i++) {
    sigaction (signals[i], NULL, &before[i]);
    if (before[i].sa_handler != SIG_IGN)
      sigaction (signals[i], signals[i] == SIGPIPE ? &ignore : &action, NULL);
  }
}

void
hf_interrupt_begin (void)
{
  begin (N_OF_MOVES);
}

int
hf_interrupt_begin_fd (void)
{
  if (!g_unix_open_pipe (pipe_fds, FD_CLOEXEC, NULL))
    pipe_fds[0] = pipe_fds[1] = -1;
  else
    g_unix_set_fd_nonblocking (pipe_fds[1], TRUE, NULL);
  begin (G_N_ELEMENTS (signals));
  return pipe_fds[0];
}

void
hf_interrupt_end (void)
{
  for (guint i = 0; i < n_begun; i++)
    sigaction (signals[i], &before[i], NULL);
  n_begun = 0;
  for (guint i = 0; i < G_N_ELEMENTS (pipe_fds); i++) {
    if (pipe_fds[i] >= 0)
      close (pipe_fds[i]);
    pipe_fds[i] = -1;
  }
}

int
hf_interrupted (void)
{
  return came;
}
