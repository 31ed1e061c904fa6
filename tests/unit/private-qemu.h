/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A real QEMU without a machine, whose monitor is its standard input and output. Thread: main, as private-bus.h. */

#include "private-bus.h"

typedef struct {
  GSubprocess *process;
  GDataInputStream *out;
} Qemu;

/* arguments: behind those that every test needs; NULL-terminated. */
void private_qemu_start (Qemu *qemu, const char *const *arguments);
/* The same; fd becomes descriptor 3 of it and is closed here. */
void private_qemu_start_with (Qemu *qemu, const char *const *arguments, int fd);
/* Sends a command and waits for a line with text in it. arguments: JSON. An error that QEMU answers fails the test. */
void private_qemu_command (Qemu *qemu, const char *command, const char *arguments, const char *text);
/* Until a line of the monitor has text in it; FALSE: QEMU has ended. */
gboolean private_qemu_wait (Qemu *qemu, const char *text);
pid_t private_qemu_pid (Qemu *qemu);
void private_qemu_end (Qemu *qemu);
