/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The filter of system calls with each set of features: what an intruder would try, each in a child that entered it, and what the
 * helper's own parts do there. An attempt ends with an errno, or the kernel ends the child.
 */

#include "config.h"

#include "base/file-sync.h"
#include "prhelper/process.h"
#include "prhelper/sandbox.h"
#include "prhelper/store.h"
#include "scsi/transport.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <gio/gio.h>
#include <glib/gstdio.h>
#include <holdfast/scsi.h>
#include <linux/openat2.h>
#include <sched.h>
#include <scsi/sg.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

/* What the children work on; opened by the parent. */
typedef struct {
  char *folder, *file, *bus;
  int file_fd, folder_fd, null_fd, listen_fd, pipe_fd, pidfd;
  HfPeer self;
} Things;

#define LIMIT_S 20

static Things things;

/* errno, or 0. */
static int
of (long result)
{
  return result == -1 ? errno : 0;
}

/* ---- attempts ---- */

static char *
path_of (const char *name)
{
  return g_build_filename (things.folder, name, NULL);
}

static int
try_execve (void)
{
  char *const argv[] = { (char *)"/bin/true", NULL };
  return of (execve (argv[0], argv, NULL));
}
static int
try_ptrace (void)
{
  return of (ptrace (PTRACE_TRACEME, 0, NULL, NULL));
}
static int
try_read_memory (void)
{
  struct iovec vector = { &things, sizeof things };
  return of (process_vm_readv (getppid (), &vector, 1, &vector, 1, 0));
}
static int
try_socket_inet (void)
{
  return of (socket (AF_INET, SOCK_STREAM, 0));
}
static int
try_socket_netlink (void)
{
  return of (socket (AF_NETLINK, SOCK_RAW, 0));
}
static int
try_socket_unix (void)
{
  return of (socket (AF_UNIX, SOCK_STREAM, 0));
}
static int
try_connect (void)
{
  const struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = "/nonexistent" };
  return of (connect (things.listen_fd, (const struct sockaddr *)&address, sizeof address)) == EPERM ? EPERM : 0;
}
static int
try_bind (void)
{
  const struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = "/nonexistent" };
  return of (bind (things.listen_fd, (const struct sockaddr *)&address, sizeof address));
}
static int
try_listen (void)
{
  return of (listen (things.listen_fd, 1));
}
static int
try_accept (void)
{
  return of (accept4 (things.listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) == EAGAIN ? 0 : errno;
}
static int
try_open_read (void)
{
  return of (open (things.file, O_RDONLY | O_CLOEXEC)) || of (open (things.file, O_PATH)) ? errno : 0;
}
static int
try_open_write (void)
{
  return of (open (things.file, O_WRONLY));
}
static int
try_open_truncate (void)
{
  return of (open (things.file, O_RDONLY | O_TRUNC));
}
static int
try_open_create (void)
{
  g_autofree char *path = path_of ("new");
  return of (open (path, O_RDONLY | O_CREAT, 0600));
}
static int
try_open_unnamed (void)
{
  return of (open (things.folder, O_TMPFILE | O_RDWR, 0600));
}
static int
try_openat2 (void)
{
  struct open_how how = { .flags = O_RDONLY };
  return of (syscall (SYS_openat2, AT_FDCWD, things.file, &how, sizeof how));
}
static int
try_mkdir (void)
{
  g_autofree char *path = path_of ("folder");
  return of (mkdir (path, 0700)) ? errno : of (unlinkat (AT_FDCWD, path, AT_REMOVEDIR));
}
static int
try_rename (void)
{
  g_autofree char *path = path_of ("renamed");
  int result = of (rename (things.file, path));
  return result ? result : of (rename (path, things.file));
}
static int
try_sync (void)
{
  return of (fsync (things.file_fd)) || of (fdatasync (things.file_fd)) ? errno : 0;
}
static int
try_truncate (void)
{
  return of (ftruncate (things.file_fd, 4));
}
static int
try_flock (void)
{
  return of (flock (things.file_fd, LOCK_SH));
}
static int
try_fchmod (void)
{
  return of (fchmod (things.file_fd, 0600));
}
static int
try_chmod (void)
{
  return of (chmod (things.file, 04755));
}
static int
try_chown (void)
{
  return of (fchown (things.file_fd, getuid (), getgid ()));
}
static int
try_link (void)
{
  g_autofree char *path = path_of ("linked");
  return of (link (things.file, path));
}
static int
try_symlink (void)
{
  g_autofree char *path = path_of ("symlink");
  return of (symlink ("/etc/passwd", path));
}
static int
try_xattr (void)
{
  return of (fsetxattr (things.file_fd, "user.x", "x", 1, 0));
}
static int
try_mknod (void)
{
  g_autofree char *path = path_of ("node");
  return of (mknod (path, S_IFCHR | 0666, 0x103));
}
static int
try_mount (void)
{
  return of (mount ("none", "/nonexistent", "tmpfs", 0, NULL));
}
static int
try_setuid (void)
{
  return of (setuid (getuid ()));
}
static int
try_capset (void)
{
  return of (syscall (SYS_capset, NULL, NULL));
}
static int
try_unshare (void)
{
  return of (unshare (CLONE_NEWUSER));
}
static int
try_bpf (void)
{
  return of (syscall (SYS_bpf, 0, NULL, 0));
}
static int
try_io_uring (void)
{
  return of (syscall (SYS_io_uring_setup, 1, NULL));
}
static int
try_memfd (void)
{
  return of (memfd_create ("x", 0));
}
static int
try_fork (void)
{
  pid_t pid = fork ();
  if (pid == 0)
    _exit (0);
  return of (pid);
}
static int
try_clone3 (void)
{
  return of (syscall (SYS_clone3, NULL, 0));
}
static gpointer
be_thread (gpointer data)
{
  return data;
}
static int
try_thread (void)
{
  return g_thread_join (g_thread_new ("worker", be_thread, &things)) == &things ? 0 : EINVAL;
}
static int
try_map_executable (void)
{
  return mmap (NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? errno : 0;
}
static int
try_make_executable (void)
{
  void *page = mmap (NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return of (mprotect (page, 4096, PROT_READ | PROT_EXEC));
}
static int
try_kill_parent (void)
{
  return of (kill (getppid (), 0));
}
static int
try_kill_self (void)
{
  return of (kill (getpid (), 0));
}
static int
try_signal_pidfd (void)
{
  return of (pidfd_send_signal (things.pidfd, 0, NULL, 0));
}
static int
try_pidfd (void)
{
  return of (pidfd_open (getpid (), 0));
}
static int
try_take_descriptor (void)
{
  return of (pidfd_getfd (things.pidfd, things.null_fd, 0));
}
static int
try_ioctl_other (void)
{
  int n;
  return of (ioctl (things.pipe_fd, FIONREAD, &n));
}
/* ENOTTY: it reached the file. */
static int
try_ioctl_sg (void)
{
  int version;
  if (of (ioctl (things.null_fd, SG_IO, NULL)) != ENOTTY)
    return errno;
  return of (ioctl (things.null_fd, SG_GET_VERSION_NUM, &version)) == ENOTTY ? 0 : errno;
}
static int
try_dumpable (void)
{
  return of (prctl (PR_SET_DUMPABLE, 1));
}
static int
try_limits (void)
{
  struct rlimit limit;
  return of (getrlimit (RLIMIT_NOFILE, &limit));
}
static int
try_set_limits (void)
{
  struct rlimit limit = { 100, 100 };
  return of (setrlimit (RLIMIT_NOFILE, &limit));
}
static int
try_list_folder (void)
{
  g_autoptr (GDir) folder = g_dir_open ("/proc/self/fd", 0, NULL);
  return folder && g_dir_read_name (folder) && g_file_test (things.file, G_FILE_TEST_IS_REGULAR)
                 && access (things.file, R_OK) == 0
             ? 0
             : EPERM;
}
static int
try_read_link (void)
{
  char text[100];
  return of (readlink ("/proc/self/exe", text, sizeof text));
}
#ifdef SYS_open
static int
try_old_open (void)
{
  return of (syscall (SYS_open, things.file, O_RDWR));
}
static int
try_old_fork (void)
{
  return of (syscall (SYS_fork));
}
#endif
#ifdef __x86_64__
/* The numbers of the x32 architecture, whose calls would not be found in the list. */
static int
try_x32 (void)
{
  return of (syscall (0x40000000 | SYS_getpid));
}
#endif

/* ---- the helper's own parts ---- */

static int
work_names (void)
{
  g_autofree char *name = NULL, *uuid = NULL;
  int fd = hf_process_open (&things.self, NULL);

  hf_process_get_names (&things.self, &name, &uuid);
  return fd >= 0 && hf_process_get_guest_time (&things.self) >= 0 ? 0 : EPERM;
}

static int
work_globs (void)
{
  const char *const globs[] = { "/dev/nul*", NULL };
  g_autofree char *skipped = NULL;
  G_GNUC_UNUSED g_autoptr (GPtrArray) devices = hf_devices_of_globs (globs, &skipped);

  return g_strcmp0 (skipped, "/dev/null: neither a block nor a SCSI generic node") == 0 ? 0 : EPERM;
}

/* The way of migrate.c: a descriptor, libsgutils2, a thread. /dev/null says itself that it takes no command. */
static int
work_transport (void)
{
  g_autoptr (GError) error = NULL;
  HfTransport *transport = hf_transport_sgio_from_fd (fcntl (things.null_fd, F_DUPFD_CLOEXEC, 3), "null", &error);
  g_autoptr (HfLu) lu = transport ? hf_lu_new_for_transport (transport, "null", 5000) : NULL;

  if (!lu || hf_lu_get_identity (lu, &error))
    return EPERM;
  return strstr (error->message, g_strerror (ENOTTY)) ? 0 : EPERM;
}

static int
work_devices (void)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GPtrArray) found = hf_devices_of_process (&things.self, things.pidfd, NULL, &error);

  return found ? 0 : EPERM;
}

static int
work_files (void)
{
  g_autofree char *folder = path_of ("a/b"), *path = path_of ("a/b/file");

  return hf_dir_make (folder, NULL) && hf_file_replace (path, "x", 1, NULL) && hf_file_replace (path, "y", 1, NULL)
                 && g_unlink (path) == 0
             ? 0
             : EPERM;
}

static void
on_written (const GError *error, gpointer user_data)
{
  *(int *)user_data = error ? EPERM : 0;
}

static int
work_store (void)
{
  g_autofree char *folder = path_of ("state");
  g_autoptr (GError) error = NULL;
  HfStore *store = hf_store_new (folder, &error);
  HfPeer peer = { .pid = 1, .start_time = 1 };
  int result = -1;

  if (!store)
    return EPERM;
  hf_store_write (store, hf_vm_image_new (&peer), TRUE, on_written, &result);
  while (result == -1)
    g_main_context_iteration (NULL, TRUE);
  hf_store_remove (store, &peer);
  hf_store_free (store);
  return result;
}

static int
work_bus (void)
{
  g_autoptr (GDBusConnection) connection = g_dbus_connection_new_for_address_sync (
      things.bus, G_DBUS_CONNECTION_FLAGS_AUTHENTICATION_CLIENT | G_DBUS_CONNECTION_FLAGS_MESSAGE_BUS_CONNECTION, NULL, NULL,
      NULL);
  g_autoptr (GVariant) answer = NULL;

  if (!connection)
    return EPERM;
  answer = g_dbus_connection_call_sync (connection, "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus",
                                        "RequestName", g_variant_new ("(su)", "org.qemu.VMState1", 0), NULL,
                                        G_DBUS_CALL_FLAGS_NONE, 30000, NULL, NULL);
  return answer ? 0 : EPERM;
}

/* ---- what is to happen ---- */

#define STATE 1
#define DEVICES 2
#define LINKS 4
#define CONTROL 8
#define ALL 16
#define NEVER 0
#define ANY ALL

typedef struct {
  const char *name;
  int (*attempt) (void);
  guint when;    /* it works with any of these features; ANY: always, NEVER: never */
  int otherwise; /* errno, or -SIGSYS: the kernel ends the process */
} Attempt;

static const Attempt attempts[] = {
  { "execve", try_execve, NEVER, -SIGSYS },
  { "ptrace", try_ptrace, NEVER, -SIGSYS },
  { "process_vm_readv", try_read_memory, NEVER, -SIGSYS },
  { "socket, AF_INET", try_socket_inet, NEVER, EPERM },
  { "socket, AF_NETLINK", try_socket_netlink, NEVER, EPERM },
  { "socket, AF_UNIX", try_socket_unix, LINKS, EPERM },
  { "connect", try_connect, LINKS, -SIGSYS },
  { "bind", try_bind, NEVER, -SIGSYS },
  { "listen", try_listen, NEVER, -SIGSYS },
  { "accept", try_accept, ANY, 0 },
  { "open for reading", try_open_read, ANY, 0 },
  { "open for writing", try_open_write, STATE, EPERM },
  { "open and truncate", try_open_truncate, STATE, EPERM },
  { "open and create", try_open_create, STATE, EPERM },
  { "open without a name", try_open_unnamed, STATE, EPERM },
  { "openat2", try_openat2, NEVER, EPERM },
  { "mkdir", try_mkdir, STATE, EPERM },
  { "rename", try_rename, STATE, EPERM },
  { "fsync, fdatasync", try_sync, STATE, EPERM },
  { "ftruncate", try_truncate, STATE, EPERM },
  { "flock", try_flock, STATE, EPERM },
  { "fchmod", try_fchmod, STATE, EPERM },
  { "chmod", try_chmod, NEVER, EPERM },
  { "chown", try_chown, NEVER, EPERM },
  { "link", try_link, NEVER, EPERM },
  { "symlink", try_symlink, NEVER, EPERM },
  { "setxattr", try_xattr, NEVER, EPERM },
  { "mknod", try_mknod, NEVER, -SIGSYS },
  { "mount", try_mount, NEVER, -SIGSYS },
  { "setuid", try_setuid, NEVER, -SIGSYS },
  { "capset", try_capset, NEVER, -SIGSYS },
  { "unshare", try_unshare, NEVER, -SIGSYS },
  { "bpf", try_bpf, NEVER, -SIGSYS },
  { "io_uring_setup", try_io_uring, NEVER, -SIGSYS },
  { "memfd_create", try_memfd, NEVER, EPERM },
  { "fork", try_fork, NEVER, EPERM },
  { "clone3", try_clone3, NEVER, ENOSYS },
  { "a thread", try_thread, ANY, 0 },
  { "mmap, PROT_EXEC", try_map_executable, NEVER, EPERM },
  { "mprotect, PROT_EXEC", try_make_executable, NEVER, EPERM },
  { "kill, another process", try_kill_parent, NEVER, EPERM },
  { "kill, ourselves", try_kill_self, ANY, 0 },
  { "pidfd_send_signal", try_signal_pidfd, NEVER, EPERM },
  { "pidfd_open", try_pidfd, ANY, 0 },
  { "pidfd_getfd", try_take_descriptor, DEVICES, EPERM },
  { "ioctl, another", try_ioctl_other, NEVER, EPERM },
  { "ioctl, SG_IO", try_ioctl_sg, ANY, 0 },
  { "prctl, another", try_dumpable, NEVER, EPERM },
  { "getrlimit", try_limits, ANY, 0 },
  { "setrlimit", try_set_limits, NEVER, EPERM },
  { "looking into a folder", try_list_folder, ANY, 0 },
  { "readlink", try_read_link, ANY, 0 },
#ifdef SYS_open
  { "open, the old call", try_old_open, NEVER, EPERM },
  { "fork, the old call", try_old_fork, NEVER, -SIGSYS },
#endif
#ifdef __x86_64__
  { "a call of x32", try_x32, NEVER, -SIGSYS },
#endif
  { "process.c: names and times", work_names, ANY, 0 },
  { "process.c: globs", work_globs, ANY, 0 },
  { "process.c: devices", work_devices, ANY, 0 },
  { "a transport", work_transport, ANY, 0 },
  { "file-sync.c", work_files, STATE, EPERM },
  { "store.c", work_store, STATE, EPERM },
  { "a message bus", work_bus, LINKS, EPERM },
};

/* errno, or minus the signal that ended it. */
static int
run (const Attempt *attempt, const HfSandboxFeatures *features)
{
  int status = -1;
  pid_t pid = fork ();

  g_assert_cmpint (pid, >=, 0);
  if (pid == 0) {
    alarm (LIMIT_S);
    _exit (hf_sandbox_enter (features, NULL) ? attempt->attempt () : 255);
  }
  g_assert_cmpint (waitpid (pid, &status, 0), ==, pid);
  return WIFSIGNALED (status) ? -WTERMSIG (status) : WEXITSTATUS (status);
}

static void
test_features (gconstpointer data)
{
  guint set = GPOINTER_TO_UINT (data), n_wrong = 0;
  const HfSandboxFeatures features = {
    .state = (set & STATE) != 0, .devices = (set & DEVICES) != 0, .links = (set & LINKS) != 0, .control = (set & CONTROL) != 0
  };

  for (guint i = 0; i < G_N_ELEMENTS (attempts); i++) {
    int expect = attempts[i].when == ANY || (attempts[i].when & set) ? 0 : attempts[i].otherwise,
        seen = run (&attempts[i], &features);

    if (seen != expect)
      g_test_message ("%s: %d, and not %d", attempts[i].name, seen, expect);
    n_wrong += seen != expect;
  }
  g_assert_cmpuint (n_wrong, ==, 0);
}

/* Without a filter every attempt has another end: what is tried above is not refused for another reason. */
static void
test_without (void)
{
  guint n_same = 0;

  for (guint i = 0; i < G_N_ELEMENTS (attempts); i++) {
    int status = -1;
    pid_t pid;

    if (attempts[i].when == ANY)
      continue;
    pid = fork ();
    if (pid == 0)
      _exit (attempts[i].attempt ());
    g_assert_cmpint (waitpid (pid, &status, 0), ==, pid);
    if (WIFEXITED (status) && WEXITSTATUS (status) != attempts[i].otherwise)
      continue;
    g_test_message ("%s ends with %x without a filter", attempts[i].name, (unsigned int)status);
    n_same++;
  }
  g_assert_cmpuint (n_same, ==, 0);
}

/* ---- the stage ---- */

static void
end_with_us (gpointer user_data)
{
  prctl (PR_SET_PDEATHSIG, SIGKILL);
}

static GPid
start_bus (void)
{
  g_autofree char *address = g_strdup_printf ("--address=unix:path=%s/bus", things.folder);
  const char *argv[] = { "dbus-daemon", "--session", "--nofork", "--print-address", address, NULL };
  g_autoptr (GError) error = NULL;
  char line[1024];
  gsize length = 0;
  GPid pid;
  int out;

  g_spawn_async_with_pipes (NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH | G_SPAWN_DO_NOT_REAP_CHILD, end_with_us, NULL, &pid,
                            NULL, &out, NULL, &error);
  g_assert_no_error (error);
  while (length < sizeof line - 1 && read (out, line + length, 1) == 1 && line[length] != '\n')
    length++;
  line[length] = '\0';
  close (out);
  g_assert_true (g_str_has_prefix (line, "unix:path="));
  things.bus = g_strdup (line);
  return pid;
}

static void
stage_init (void)
{
  g_autofree char *line = NULL;
  int ends[2];

  things.folder = g_dir_make_tmp ("holdfast-sandbox-XXXXXX", NULL);
  things.file = path_of ("file");
  g_assert_true (g_file_set_contents (things.file, "text", 4, NULL));
  things.file_fd = open (things.file, O_RDWR | O_CLOEXEC);
  things.null_fd = open ("/dev/null", O_RDWR | O_CLOEXEC);
  things.listen_fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  g_assert_no_errno (bind (things.listen_fd, &(struct sockaddr){ .sa_family = AF_UNIX }, sizeof (sa_family_t)));
  g_assert_no_errno (listen (things.listen_fd, 1));
  g_assert_no_errno (pipe2 (ends, O_CLOEXEC));
  things.pipe_fd = ends[0];
  things.pidfd = pidfd_open (getpid (), 0);
  g_assert_cmpint (things.pidfd, >=, 0);
  g_assert_true (g_file_get_contents ("/proc/self/stat", &line, NULL, NULL));
  things.self = (HfPeer){ .pid = getpid (), .start_time = hf_peer_parse_start_time (line) };
}

static void
remove_folder (const char *path)
{
  g_autoptr (GDir) folder = g_dir_open (path, 0, NULL);
  const char *name;

  while (folder && (name = g_dir_read_name (folder)) != NULL) {
    g_autofree char *inside = g_build_filename (path, name, NULL);

    if (g_file_test (inside, G_FILE_TEST_IS_DIR) && !g_file_test (inside, G_FILE_TEST_IS_SYMLINK))
      remove_folder (inside);
    else
      g_unlink (inside);
  }
  g_rmdir (path);
}

int
main (int argc, char **argv)
{
  static const guint sets[] = { 0, STATE, DEVICES, LINKS, CONTROL, STATE | DEVICES | LINKS | CONTROL };
  GPid bus;
  int result;

  g_test_init (&argc, &argv, NULL);
  stage_init ();
  bus = start_bus ();
  for (guint i = 0; i < G_N_ELEMENTS (sets); i++) {
    g_autofree char *name =
        g_strdup_printf ("/prhelper/sandbox/%s%s%s%s%s", sets[i] ? "" : "plain", sets[i] & STATE ? "state" : "",
                         sets[i] & DEVICES ? "devices" : "", sets[i] & LINKS ? "links" : "", sets[i] & CONTROL ? "control" : "");
    g_test_add_data_func (name, GUINT_TO_POINTER (sets[i]), test_features);
  }
  g_test_add_func ("/prhelper/sandbox/without", test_without);
  result = g_test_run ();
  kill (bus, SIGTERM);
  waitpid (bus, NULL, 0);
  remove_folder (things.folder);
  return result;
}
