/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Lines on standard error: "holdfast-pr-helper: MESSAGE", or "<N>MESSAGE" when it is the journal of systemd (sd-daemon(3)).
 * Thread: any after hf_log_init.
 */

#include <glib.h>
#include <sys/types.h>

/* The levels of syslog(3). */
typedef enum { HF_LOG_ERROR = 3, HF_LOG_WARNING = 4, HF_LOG_NOTICE = 5, HF_LOG_INFO = 6 } HfLogLevel;

/* Finds out where standard error goes. Messages up to level are written. */
void hf_log_init (HfLogLevel level);

/* For messages that cost something to make. */
gboolean hf_log_wants (HfLogLevel level);

/* One line. What is not printable ASCII or blank in the text is written as '?': parts of it may come from outside. */
void hf_log (HfLogLevel level, const char *format, ...) G_GNUC_PRINTF (2, 3);

/* What clients can cause as often as they like: a burst of each process is written, then the rest is counted, and the number is
 * written when it is quiet again. */
void hf_log_peer (HfLogLevel level, pid_t pid, const char *format, ...) G_GNUC_PRINTF (3, 4);

/* A change of a VM's state, in a line: "VM (pid N): LU: operation: result". */
typedef struct {
  const char *vm, *lu, *operation, *result; /* lu may be NULL */
  pid_t pid;
} HfLogFields;
/* When standard error is the journal of systemd, and its socket could be reached at hf_log_init, the fields go there too, as
   HOLDFAST_VM, HOLDFAST_LU, HOLDFAST_OPERATION and HOLDFAST_RESULT (systemd.journal-fields(7)). */
void hf_log_event (HfLogLevel level, const HfLogFields *fields);
