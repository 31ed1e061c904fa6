/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns the actions of SIGINT and SIGTERM while a move is under way. Thread: see the header.
 *
 * Theory of operation: the handler only sets a flag. The move looks at it between its phases, so each phase ends as if nothing
 * had come. Polls that the signal cuts short are repeated by their loops.
 */
#include "config.h"

#include "cli/interrupt.h"

#include <glib.h>
#include <signal.h>

static const int signals[] = { SIGINT, SIGTERM };
static struct sigaction before[G_N_ELEMENTS (signals)];
static gboolean begun;
static volatile sig_atomic_t came;

static void
remember (int number)
{
  came = number;
}

void
hf_interrupt_begin (void)
{
  /* Once only: the second signal finds the default again. */
  struct sigaction action = { .sa_handler = remember, .sa_flags = SA_RESTART | (int)SA_RESETHAND };

  begun = TRUE;
  came = 0;
  for (guint i = 0; i < G_N_ELEMENTS (signals); i++) {
    sigaction (signals[i], NULL, &before[i]);
    if (before[i].sa_handler != SIG_IGN)
      sigaction (signals[i], &action, NULL);
  }
}

void
hf_interrupt_end (void)
{
  for (guint i = 0; begun && i < G_N_ELEMENTS (signals); i++)
    sigaction (signals[i], &before[i], NULL);
  begun = FALSE;
}

int
hf_interrupted (void)
{
  return came;
}
