/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * SIGINT and SIGTERM while something is under way: remembered instead of killing the process between two steps.
 *
 * Thread: main. The handler may run on any thread that does not block the signals; those that send SG_IO do.
 */

/* From here to hf_interrupt_end the first SIGINT or SIGTERM is remembered; a second one ends the process. A signal that is
   ignored stays ignored. */
void hf_interrupt_begin (void);
void hf_interrupt_end (void);

/* The same for work that waits for descriptors: SIGHUP is one of them too, SIGPIPE is ignored, and the descriptor that is
   returned becomes readable with the first signal. It is valid until hf_interrupt_end; -1: there is none. */
int hf_interrupt_begin_fd (void);

/* The signal that came since the last hf_interrupt_begin, or 0. Who was asked to end begins nothing new. */
int hf_interrupted (void);
