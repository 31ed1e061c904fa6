/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * SIGINT and SIGTERM while a move is under way: remembered instead of killing the process between two commands.
 *
 * Thread: main. The handler may run on any thread that does not block the signals; those that send SG_IO do.
 */

/* From here to hf_interrupt_end the first SIGINT or SIGTERM is remembered; a second one ends the process. A signal that is
   ignored stays ignored. */
void hf_interrupt_begin (void);
void hf_interrupt_end (void);

/* The signal that came since the last hf_interrupt_begin, or 0. Who was asked to end begins nothing new. */
int hf_interrupted (void);
