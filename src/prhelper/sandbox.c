/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns: the list of system calls. Thread: main.
 *
 * Theory of operation: what is listed is allowed, some of it only with certain arguments; what no part of the helper, the C
 * library or GLib ever calls, and an intruder would, kills the process; everything else gives EPERM, because a C library that
 * tries something new and falls back must not end the reservations of running machines.
 *
 * The one ioctl is SG_IO. Nothing can be connected to or executed, no memory made executable, and files are opened for reading
 * only: /proc/PID/stat of a client is all there is to open.
 */
#include "config.h"

#include "prhelper/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <gio/gio.h>
#include <sched.h>
#include <scsi/sg.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

typedef int Call;

static const Call allowed[] = {
  /* clients and standard error */
  SCMP_SYS (accept4),
  SCMP_SYS (recvmsg),
  SCMP_SYS (sendmsg),
  SCMP_SYS (sendto),
  SCMP_SYS (shutdown),
  SCMP_SYS (getsockopt),
  SCMP_SYS (read),
  SCMP_SYS (write),
  SCMP_SYS (close),
  SCMP_SYS (statx),
  SCMP_SYS (fstat),
  SCMP_SYS (newfstatat),
  SCMP_SYS (lstat),
  SCMP_SYS (stat),
  SCMP_SYS (fcntl),
  SCMP_SYS (lseek),
  /* the loop */
  SCMP_SYS (poll),
  SCMP_SYS (ppoll),
  SCMP_SYS (eventfd2),
  SCMP_SYS (clock_gettime),
  SCMP_SYS (gettimeofday),
  SCMP_SYS (restart_syscall),
  /* threads */
  SCMP_SYS (futex),
  SCMP_SYS (set_robust_list),
  SCMP_SYS (rseq),
  SCMP_SYS (gettid),
  SCMP_SYS (getpid),
  SCMP_SYS (sched_yield),
  SCMP_SYS (sched_getaffinity),
  SCMP_SYS (sched_getattr),
  SCMP_SYS (rt_sigprocmask),
  SCMP_SYS (rt_sigreturn),
  SCMP_SYS (rt_sigaction),
  SCMP_SYS (sigaltstack),
  SCMP_SYS (nanosleep),
  SCMP_SYS (clock_nanosleep),
  SCMP_SYS (exit),
  SCMP_SYS (exit_group),
  /* memory */
  SCMP_SYS (brk),
  SCMP_SYS (munmap),
  SCMP_SYS (madvise),
  SCMP_SYS (getrandom),
  /* the end: the socket's path and the file with our process id */
  SCMP_SYS (unlink),
  SCMP_SYS (unlinkat),
};

/* Nobody calls these by accident. */
static const Call deadly[] = {
  SCMP_SYS (execve),
  SCMP_SYS (execveat),
  SCMP_SYS (ptrace),
  SCMP_SYS (process_vm_readv),
  SCMP_SYS (process_vm_writev),
  SCMP_SYS (mount),
  SCMP_SYS (umount2),
  SCMP_SYS (pivot_root),
  SCMP_SYS (chroot),
  SCMP_SYS (setns),
  SCMP_SYS (unshare),
  SCMP_SYS (bpf),
  SCMP_SYS (init_module),
  SCMP_SYS (finit_module),
  SCMP_SYS (kexec_load),
  SCMP_SYS (perf_event_open),
  SCMP_SYS (userfaultfd),
  SCMP_SYS (open_by_handle_at),
  SCMP_SYS (connect),
  SCMP_SYS (bind),
  SCMP_SYS (listen),
  SCMP_SYS (setuid),
  SCMP_SYS (setresuid),
  SCMP_SYS (setgid),
  SCMP_SYS (setresgid),
  SCMP_SYS (capset),
  SCMP_SYS (iopl),
  SCMP_SYS (ioperm),
  SCMP_SYS (fork),
  SCMP_SYS (vfork),
  SCMP_SYS (io_uring_setup),
};

/* Allowed if (argument & mask) == value. */
typedef struct {
  Call call;
  unsigned int argument;
  guint64 mask, value;
} Limited;

#define WHOLE_WORD G_MAXUINT32

static const Limited limited[] = {
  { SCMP_SYS (ioctl), 1, WHOLE_WORD, SG_IO },
  { SCMP_SYS (openat), 2, O_ACCMODE | O_CREAT | O_TRUNC, O_RDONLY },
  { SCMP_SYS (mmap), 2, PROT_EXEC, 0 },
  { SCMP_SYS (mprotect), 2, PROT_EXEC, 0 },
  /* Threads, not processes. */
  { SCMP_SYS (clone), 0, CLONE_THREAD, CLONE_THREAD },
  { SCMP_SYS (prctl), 0, WHOLE_WORD, PR_SET_NAME },
};

static int
add_limited (scmp_filter_ctx filter)
{
  int result = 0;

  for (guint i = 0; i < G_N_ELEMENTS (limited) && result == 0; i++) {
    struct scmp_arg_cmp comparison = SCMP_CMP (limited[i].argument, SCMP_CMP_MASKED_EQ, limited[i].mask, limited[i].value);

    result = seccomp_rule_add_array (filter, SCMP_ACT_ALLOW, limited[i].call, 1, &comparison);
  }
  return result;
}

/* Signals to ourselves only: abort(), and HOLDFAST_FAIL. */
static int
add_signals (scmp_filter_ctx filter)
{
  static const Call calls[] = { SCMP_SYS (kill), SCMP_SYS (tgkill) };
  int result = 0;

  for (guint i = 0; i < G_N_ELEMENTS (calls) && result == 0; i++)
    result = seccomp_rule_add (filter, SCMP_ACT_ALLOW, calls[i], 1, SCMP_A0 (SCMP_CMP_EQ, (scmp_datum_t)getpid ()));
  return result;
}

static int
add_rules (scmp_filter_ctx filter)
{
  int result = 0;

  for (guint i = 0; i < G_N_ELEMENTS (allowed) && result == 0; i++)
    result = seccomp_rule_add (filter, SCMP_ACT_ALLOW, allowed[i], 0);
  for (guint i = 0; i < G_N_ELEMENTS (deadly) && result == 0; i++)
    result = seccomp_rule_add (filter, SCMP_ACT_KILL_PROCESS, deadly[i], 0);
  if (result == 0)
    result = add_limited (filter);
  if (result == 0)
    result = add_signals (filter);
  /* Its flags lie in memory, where a filter cannot look; the C library then falls back to clone. */
  if (result == 0)
    result = seccomp_rule_add (filter, SCMP_ACT_ERRNO (ENOSYS), SCMP_SYS (clone3), 0);
  return result;
}

gboolean
hf_sandbox_enter (GError **error)
{
  scmp_filter_ctx filter = seccomp_init (SCMP_ACT_ERRNO (EPERM));
  int result = filter ? 0 : -ENOMEM;

  if (result == 0)
    result = seccomp_attr_set (filter, SCMP_FLTATR_CTL_TSYNC, 1);
  if (result == 0)
    result = add_rules (filter);
  if (result == 0)
    result = seccomp_load (filter);
  if (filter)
    seccomp_release (filter);
  if (result == 0)
    return TRUE;
  g_set_error (error, G_IO_ERROR, (int)g_io_error_from_errno (-result),
               "the filter of system calls cannot be loaded: %s (--sandbox=off serves without it)", g_strerror (-result));
  return FALSE;
}
