/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns: the list of system calls. Thread: main.
 *
 * Theory of operation: what is listed is allowed, some of it only with certain arguments; what no part of the helper, the C
 * library or GLib ever calls, and an intruder would, kills the process; everything else gives EPERM, because a C library that
 * tries something new and falls back must not end the reservations of running machines.
 *
 * The list comes in groups: each feature of the configuration adds its own, so a helper that only serves clients has no group
 * but the first. There nothing can be connected to, nothing be written but what is open, and nothing executed ever; files can be
 * opened for reading, which the filter cannot limit to some paths: that is left to the user, the unit and AppArmor.
 *
 * SG_IO is the one ioctl that does something. libsgutils2 asks SCSI generic nodes for the version of their driver before.
 */
#include "config.h"

#include "prhelper/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <gio/gio.h>
#include <sched.h>
#include <scsi/sg.h>
#include <seccomp.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define WHOLE_WORD G_MAXUINT32
#define WHOLE_POINTER G_MAXUINT64
/* clone(2): on s390 the stack comes first. */
#if defined __s390__
#define CLONE_FLAGS 1
#else
#define CLONE_FLAGS 0
#endif

/* Holds if (argument & mask) == value; mask 0: always. Names that an architecture does not have are left out by libseccomp. */
typedef struct {
  int call;
  unsigned int argument;
  guint64 mask, value;
} Rule;

static const Rule base[] = {
  /* clients and standard error */
  { SCMP_SYS (accept4) },
  { SCMP_SYS (recvmsg) },
  { SCMP_SYS (sendmsg) },
  { SCMP_SYS (sendto) },
  { SCMP_SYS (shutdown) },
  { SCMP_SYS (getsockopt) },
  { SCMP_SYS (read) },
  { SCMP_SYS (pread64) },
  { SCMP_SYS (write) },
  { SCMP_SYS (close) },
  { SCMP_SYS (statx) },
  { SCMP_SYS (fstat) },
  { SCMP_SYS (newfstatat) },
  { SCMP_SYS (lstat) },
  { SCMP_SYS (stat) },
  { SCMP_SYS (fcntl) },
  { SCMP_SYS (lseek) },
  /* devices: what they are, in sysfs and procfs; whether a VM's process lives */
  { SCMP_SYS (ioctl), 1, WHOLE_WORD, SG_IO },
  { SCMP_SYS (ioctl), 1, WHOLE_WORD, SG_GET_VERSION_NUM },
  { SCMP_SYS (getdents64) },
  { SCMP_SYS (readlink) },
  { SCMP_SYS (readlinkat) },
  { SCMP_SYS (access) },
  { SCMP_SYS (faccessat) },
  { SCMP_SYS (faccessat2) },
  { SCMP_SYS (getcwd) },
  { SCMP_SYS (pidfd_open) },
  /* the loop */
  { SCMP_SYS (poll) },
  { SCMP_SYS (ppoll) },
  { SCMP_SYS (eventfd2) },
  { SCMP_SYS (clock_gettime) },
  { SCMP_SYS (clock_getres) },
  { SCMP_SYS (gettimeofday) },
  { SCMP_SYS (time) },
  { SCMP_SYS (restart_syscall) },
  /* threads */
  { SCMP_SYS (futex) },
  { SCMP_SYS (set_robust_list) },
  { SCMP_SYS (rseq) },
  { SCMP_SYS (gettid) },
  { SCMP_SYS (getpid) },
  { SCMP_SYS (getuid) },
  { SCMP_SYS (geteuid) },
  { SCMP_SYS (getgid) },
  { SCMP_SYS (getegid) },
  { SCMP_SYS (uname) },
  { SCMP_SYS (sysinfo) },
  { SCMP_SYS (sched_yield) },
  { SCMP_SYS (sched_getaffinity) },
  { SCMP_SYS (sched_getattr) },
  { SCMP_SYS (rt_sigprocmask) },
  { SCMP_SYS (rt_sigreturn) },
  { SCMP_SYS (rt_sigaction) },
  { SCMP_SYS (sigaltstack) },
  { SCMP_SYS (nanosleep) },
  { SCMP_SYS (clock_nanosleep) },
  { SCMP_SYS (exit) },
  { SCMP_SYS (exit_group) },
  { SCMP_SYS (clone), CLONE_FLAGS, CLONE_THREAD, CLONE_THREAD }, /* not processes */
  { SCMP_SYS (prctl), 0, WHOLE_WORD, PR_SET_NAME },
  { SCMP_SYS (prlimit64), 2, WHOLE_POINTER, 0 }, /* asks, does not set */
  { SCMP_SYS (getrlimit) },
  /* memory */
  { SCMP_SYS (brk) },
  { SCMP_SYS (munmap) },
  { SCMP_SYS (mremap) },
  { SCMP_SYS (madvise) },
  { SCMP_SYS (getrandom) },
  { SCMP_SYS (mmap), 2, PROT_EXEC, 0 },
  { SCMP_SYS (mprotect), 2, PROT_EXEC, 0 },
  /* the end: the socket's path and the file with our process id */
  { SCMP_SYS (unlink) },
  { SCMP_SYS (unlinkat) },
  /* how 32-bit architectures call the same */
  { SCMP_SYS (_llseek) },
  { SCMP_SYS (fcntl64) },
  { SCMP_SYS (fstat64) },
  { SCMP_SYS (fstatat64) },
  { SCMP_SYS (lstat64) },
  { SCMP_SYS (stat64) },
  { SCMP_SYS (mmap2), 2, PROT_EXEC, 0 },
  { SCMP_SYS (clock_gettime64) },
  { SCMP_SYS (clock_getres_time64) },
  { SCMP_SYS (clock_nanosleep_time64) },
  { SCMP_SYS (futex_time64) },
  { SCMP_SYS (ppoll_time64) },
  { SCMP_SYS (geteuid32) },
  { SCMP_SYS (getegid32) },
  { SCMP_SYS (getuid32) },
  { SCMP_SYS (getgid32) },
  { SCMP_SYS (ugetrlimit) },
  { SCMP_SYS (sigreturn) },
};

/* Without files of our own. */
static const Rule reading[] = {
  { SCMP_SYS (openat), 2, O_ACCMODE | O_CREAT | O_TRUNC, O_RDONLY },
};

/* base/file-sync.c, pr/journal.c, prhelper/store.c, prhelper/metrics.c. */
static const Rule state[] = {
  { SCMP_SYS (openat) },    { SCMP_SYS (pwrite64) },    { SCMP_SYS (fsync) },  { SCMP_SYS (fdatasync) },
  { SCMP_SYS (ftruncate) }, { SCMP_SYS (ftruncate64) }, { SCMP_SYS (flock) },  { SCMP_SYS (fchmod) },
  { SCMP_SYS (mkdir) },     { SCMP_SYS (mkdirat) },     { SCMP_SYS (rename) }, { SCMP_SYS (renameat) },
  { SCMP_SYS (renameat2) },
};

/* prhelper/process.c */
static const Rule devices[] = {
  { SCMP_SYS (pidfd_getfd) },
};

/* vmstate/qmp.c, and GDBus for vmstate/vmstate-bus.c. */
static const Rule links[] = {
  { SCMP_SYS (socket), 0, WHOLE_WORD, AF_UNIX },
  { SCMP_SYS (connect) },
  { SCMP_SYS (getsockname) },
  { SCMP_SYS (getpeername) },
  { SCMP_SYS (setsockopt), 1, WHOLE_WORD, SOL_SOCKET },
  { SCMP_SYS (recvfrom) },
  { SCMP_SYS (recv) },
  { SCMP_SYS (send) },
  { SCMP_SYS (sendmmsg) },
};

/* Nobody calls these by accident. */
static const Rule deadly[] = {
  { SCMP_SYS (execve) },
  { SCMP_SYS (execveat) },
  { SCMP_SYS (ptrace) },
  { SCMP_SYS (process_vm_readv) },
  { SCMP_SYS (process_vm_writev) },
  { SCMP_SYS (mount) },
  { SCMP_SYS (umount2) },
  { SCMP_SYS (pivot_root) },
  { SCMP_SYS (chroot) },
  { SCMP_SYS (setns) },
  { SCMP_SYS (unshare) },
  { SCMP_SYS (bpf) },
  { SCMP_SYS (init_module) },
  { SCMP_SYS (finit_module) },
  { SCMP_SYS (kexec_load) },
  { SCMP_SYS (perf_event_open) },
  { SCMP_SYS (userfaultfd) },
  { SCMP_SYS (open_by_handle_at) },
  { SCMP_SYS (bind) },
  { SCMP_SYS (listen) },
  { SCMP_SYS (setuid) },
  { SCMP_SYS (setresuid) },
  { SCMP_SYS (setgid) },
  { SCMP_SYS (setresgid) },
  { SCMP_SYS (capset) },
  { SCMP_SYS (iopl) },
  { SCMP_SYS (ioperm) },
  { SCMP_SYS (fork) },
  { SCMP_SYS (vfork) },
  { SCMP_SYS (io_uring_setup) },
  { SCMP_SYS (kexec_file_load) },
  { SCMP_SYS (delete_module) },
  { SCMP_SYS (mount_setattr) },
  { SCMP_SYS (move_mount) },
  { SCMP_SYS (fsmount) },
  { SCMP_SYS (add_key) },
  { SCMP_SYS (keyctl) },
  { SCMP_SYS (swapon) },
  { SCMP_SYS (reboot) },
  { SCMP_SYS (mknod) },
  { SCMP_SYS (mknodat) },
  { SCMP_SYS (setgroups) },
  { SCMP_SYS (setreuid) },
  { SCMP_SYS (setregid) },
};

static const Rule deadly_without_links[] = {
  { SCMP_SYS (connect) },
};

/* Signals to ourselves only: abort(), and HOLDFAST_FAIL. */
static const int signals[] = { SCMP_SYS (kill), SCMP_SYS (tgkill) };

#define ALWAYS G_MAXSIZE
#define FEATURE(member) offsetof (HfSandboxFeatures, member)
#define RULES(table) table, G_N_ELEMENTS (table)

typedef struct {
  const Rule *rules;
  gsize n_rules;
  gsize feature; /* at this offset, or ALWAYS */
  gboolean when; /* it is so */
  guint32 action;
} Group;

static const Group groups[] = {
  { RULES (base), ALWAYS, TRUE, SCMP_ACT_ALLOW },
  { RULES (reading), FEATURE (state), FALSE, SCMP_ACT_ALLOW },
  { RULES (state), FEATURE (state), TRUE, SCMP_ACT_ALLOW },
  { RULES (devices), FEATURE (devices), TRUE, SCMP_ACT_ALLOW },
  { RULES (links), FEATURE (links), TRUE, SCMP_ACT_ALLOW },
  { RULES (deadly_without_links), FEATURE (links), FALSE, SCMP_ACT_KILL_PROCESS },
  { RULES (deadly), ALWAYS, TRUE, SCMP_ACT_KILL_PROCESS },
};

static gboolean
applies (const Group *group, const HfSandboxFeatures *features)
{
  return group->feature == ALWAYS || !G_STRUCT_MEMBER (gboolean, features, group->feature) == !group->when;
}

static int
add_group (scmp_filter_ctx filter, const Group *group)
{
  int result = 0;

  for (gsize i = 0; i < group->n_rules && result == 0; i++) {
    const Rule *rule = &group->rules[i];
    struct scmp_arg_cmp comparison = SCMP_CMP (rule->argument, SCMP_CMP_MASKED_EQ, rule->mask, rule->value);

    result = seccomp_rule_add_array (filter, group->action, rule->call, rule->mask ? 1 : 0, &comparison);
  }
  return result;
}

static int
add_rules (scmp_filter_ctx filter, const HfSandboxFeatures *features)
{
  int result = 0;

  for (guint i = 0; i < G_N_ELEMENTS (groups) && result == 0; i++)
    if (applies (&groups[i], features))
      result = add_group (filter, &groups[i]);
  for (guint i = 0; i < G_N_ELEMENTS (signals) && result == 0; i++)
    result = seccomp_rule_add (filter, SCMP_ACT_ALLOW, signals[i], 1, SCMP_A0 (SCMP_CMP_EQ, (scmp_datum_t)getpid ()));
  /* Its flags lie in memory, where a filter cannot look; the C library then falls back to clone. */
  if (result == 0)
    result = seccomp_rule_add (filter, SCMP_ACT_ERRNO (ENOSYS), SCMP_SYS (clone3), 0);
  return result;
}

gboolean
hf_sandbox_enter (const HfSandboxFeatures *features, GError **error)
{
  scmp_filter_ctx filter = seccomp_init (SCMP_ACT_ERRNO (EPERM));
  int result = filter ? 0 : -ENOMEM;

  if (result == 0)
    result = seccomp_attr_set (filter, SCMP_FLTATR_CTL_TSYNC, 1);
  /* System calls of another architecture, which have other numbers. */
  if (result == 0)
    result = seccomp_attr_set (filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
  if (result == 0)
    result = add_rules (filter, features);
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
