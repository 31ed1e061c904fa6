/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The main loop, on a thread that may be away for a moment: what is expected to take microseconds is done by it, without waking
 * another thread, and if it takes longer another one goes on with the loop. One for the process.
 *
 * "Thread: main" of other files means the thread that runs the loop now, which has all that main owns for itself. It gives that
 * up with hf_loop_leave and has it again only when hf_loop_return says so. Meanwhile nobody runs the context:
 * g_main_context_invoke of another thread would call its function there and then, so messages to main are sources of their own.
 */

#include <glib.h>

/* Behind each turn of the default main context, on the main thread. TRUE: there is more to do, so the next turn must not wait. */
typedef gboolean (*HfLoopBehind) (gpointer user_data);

/* Replaces the one before; NULL: none. Thread: main. */
void hf_loop_set_behind (HfLoopBehind behind, gpointer user_data);

/* Runs the default main context until g_main_loop_quit, on threads of its own if there can be any; returns when they have left
   it. loop was made as running. */
void hf_loop_run (GMainLoop *loop);

/* Whether hf_loop_leave is likely to succeed behind this turn. */
gboolean hf_loop_can_leave (void);

/* Only inside HfLoopBehind. FALSE: nobody could take over, or the loop is none of hf_loop_run; stay. TRUE: the caller is not the
   main thread any more, and asks hf_loop_return soon. */
gboolean hf_loop_leave (void);

/* TRUE: the caller is the main thread again. FALSE: another one is; touch nothing of main's and return from HfLoopBehind. */
gboolean hf_loop_return (void);
