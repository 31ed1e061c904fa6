/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A process seen from outside: real children that wait on a pipe, real nodes (loop devices, made in a folder of the test), a real
 * QEMU that runs a loop. What each combination of user and capabilities may see is tried in children that became that.
 */

#include "config.h"

#include "prhelper/process.h"

#include <cap-ng.h>
#include <errno.h>
#include <fcntl.h>
#include <gio/gio.h>
#include <glib/gstdio.h>
#include <grp.h>
#include <poll.h>
#include <seccomp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#define LIMIT_S 60
#define LOOP_MAJOR 7
#define NOBODY 65534
#define OTHER 65533

/* ---- children ---- */

typedef struct {
  pid_t pid;
  int ready, hold; /* our ends: it writes when it is there, and ends when hold is closed */
  HfPeer peer;
} Child;

static HfPeer
peer_of (pid_t pid)
{
  g_autofree char *path = g_strdup_printf ("/proc/%d/stat", (int)pid), *line = NULL;

  g_assert_true (g_file_get_contents (path, &line, NULL, NULL));
  return (HfPeer){ .pid = pid, .start_time = hf_peer_parse_start_time (line) };
}

/* prepare runs in the child: it opens what the test looks for. */
static Child
child_new (void (*prepare) (gconstpointer), gconstpointer data)
{
  int ready[2], hold[2];
  Child child = { 0 };
  char byte = 0;

  g_assert_no_errno (pipe2 (ready, O_CLOEXEC));
  g_assert_no_errno (pipe2 (hold, O_CLOEXEC));
  child.pid = fork ();
  g_assert_cmpint (child.pid, >=, 0);
  if (child.pid == 0) {
    prctl (PR_SET_PDEATHSIG, SIGKILL);
    close (hold[1]);
    if (prepare)
      prepare (data);
    if (write (ready[1], "+", 1) != 1 || read (hold[0], &byte, 1) != 0)
      _exit (1);
    _exit (0);
  }
  close (ready[1]);
  close (hold[0]);
  child.ready = ready[0];
  child.hold = hold[1];
  g_assert_cmpint (read (child.ready, &byte, 1), ==, 1);
  child.peer = peer_of (child.pid);
  return child;
}

static void
child_end (Child *child)
{
  close (child->hold);
  close (child->ready);
  g_assert_cmpint (waitpid (child->pid, NULL, 0), ==, child->pid);
}

static void
test_open (void)
{
  g_autoptr (GError) error = NULL;
  Child child = child_new (NULL, NULL);
  HfPeer peer = child.peer;
  int pidfd = hf_process_open (&peer, &error);
  struct pollfd ended = { .fd = pidfd, .events = POLLIN };

  g_assert_no_error (error);
  g_assert_cmpint (fcntl (pidfd, F_GETFD) & FD_CLOEXEC, !=, 0);
  g_assert_cmpint (poll (&ended, 1, 0), ==, 0);

  /* Its number, and another process. */
  peer.start_time++;
  g_assert_cmpint (hf_process_open (&peer, &error), ==, -1);
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND);
  g_clear_error (&error);
  g_assert_cmpint (hf_process_get_guest_time (&peer), ==, -1);
  g_assert_null (hf_devices_of_process (&peer, pidfd, NULL, &error));
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND);
  g_clear_error (&error);

  child_end (&child);
  g_assert_cmpint (poll (&ended, 1, LIMIT_S * 1000), ==, 1);
  g_assert_cmpint (hf_process_open (&child.peer, &error), ==, -1);
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND);
  g_clear_error (&error);
  g_assert_null (hf_devices_of_process (&child.peer, pidfd, NULL, &error));
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND);
  close (pidfd);
}

/* Its entry in /proc is there until somebody waits for it. */
static void
test_zombie (void)
{
  g_autoptr (GError) error = NULL;
  Child child = child_new (NULL, NULL);
  int pidfd = hf_process_open (&child.peer, &error);
  struct pollfd ended = { .fd = pidfd, .events = POLLIN };

  g_assert_no_error (error);
  kill (child.pid, SIGKILL);
  g_assert_cmpint (poll (&ended, 1, LIMIT_S * 1000), ==, 1);
  g_assert_null (hf_devices_of_process (&child.peer, pidfd, NULL, &error));
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND);
  close (pidfd);
  child_end (&child);
}

static void
test_unknown (void)
{
  const HfPeer unknown[] = { { .pid = 0, .start_time = 5 }, { .pid = 1, .start_time = 0 }, { .pid = -7, .start_time = 5 } };

  for (guint i = 0; i < G_N_ELEMENTS (unknown); i++) {
    g_autoptr (GError) error = NULL;
    char *name = NULL, *uuid = NULL;

    g_assert_cmpint (hf_process_open (&unknown[i], &error), ==, -1);
    g_assert_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT);
    hf_process_get_names (&unknown[i], &name, &uuid);
    g_assert_null (name);
    g_assert_null (uuid);
    g_assert_cmpint (hf_process_get_guest_time (&unknown[i]), ==, -1);
  }
}

/* ---- names ---- */

#define UUID "0c6e8c5e-0f6a-4a9e-9d6e-3f8d7c1b2a39"

typedef struct {
  const char *words; /* '|' between them and behind the last */
  const char *name, *uuid;
} Words;

static const Words words[] = {
  { "qemu|-name|vm1|-uuid|" UUID "|", "vm1", UUID },
  { "qemu|--name|guest=vm2,debug-threads=on|--uuid|0C6E8C5E-0F6A-4A9E-9D6E-3F8D7C1B2A39|", "vm2", UUID },
  { "qemu|-name|debug-threads=on,guest=a,,b,,|", "a,b,", NULL },
  { "qemu|-name|one,process=x|-name|guest=two|", "two", NULL },
  { "qemu|-name|guest=one,guest=two|", "two", NULL },
  { "qemu|-name|a,,b,c|", "a,b", NULL },
  { "qemu|-name|process=x,guest|", NULL, NULL },
  { "qemu|-name|vm|-name|guest=|", "vm", NULL },
  { "qemu|-name||", NULL, NULL },
  { "qemu|-name|,|", NULL, NULL },
  { "qemu|-name|", NULL, NULL },
  { "qemu|-name|vm", "vm", NULL },
  { "-name|vm|", NULL, NULL },
  { "qemu|---name|vm|name|vm|-names|vm|", NULL, NULL },
  { "qemu|-uuid|../../etc/passwd|-name|x|", "x", NULL },
  { "qemu|-name|a\nb\x1b[31m\xff\xc2\x85\xe2\x80\xae\xe2\x80\xa8z|", "a?b?[31m\xef\xbf\xbd???z", NULL },
  { "qemu||||-name||-name|x||", "x", NULL },
  { "|", NULL, NULL },
  { "", NULL, NULL },
};

static void
test_parse_names (void)
{
  for (guint i = 0; i < G_N_ELEMENTS (words); i++) {
    gsize length = strlen (words[i].words);
    g_autofree char *text = g_strdelimit (g_strdup (words[i].words), "|", '\0'), *name = NULL, *uuid = NULL;
    g_autofree char *shown = g_strescape (words[i].words, NULL);

    g_test_message ("%s", shown);
    hf_process_parse_names (text, length, &name, &uuid);
    g_assert_cmpstr (name, ==, words[i].name);
    g_assert_cmpstr (uuid, ==, words[i].uuid);
  }
}

/* Any bytes: nothing is read beyond the end, and what comes out is short and clean. */
static void
test_parse_names_hostile (void)
{
  g_autoptr (GRand) source = g_rand_new_with_seed (3);

  for (guint round = 0; round < 20000; round++) {
    static const char *const pieces[] = { "-name", "--uuid",   "guest=",           ",", ",,", "=",
                                          "\xc3",  "\xe2\x82", "\xf0\x9f\x98\x80", "x", "\n", "" };
    g_autoptr (GString) text = g_string_new (NULL);
    g_autofree char *name = NULL, *uuid = NULL, *exact = NULL;

    for (gint32 n = g_rand_int_range (source, 0, 30); n > 0; n--) {
      g_string_append (text, pieces[g_rand_int_range (source, 0, G_N_ELEMENTS (pieces))]);
      if (g_rand_boolean (source))
        g_string_append_c (text, '\0');
    }
    exact = g_malloc (text->len + 1);
    memcpy (exact, text->str, text->len + 1);
    hf_process_parse_names (exact, text->len, &name, &uuid);
    g_assert_true (!name || (g_utf8_validate (name, -1, NULL) && strlen (name) <= 255 && !strchr (name, '\n')));
    g_assert_null (uuid);
  }
}

static void
test_name_long (void)
{
  g_autoptr (GString) text = g_string_new ("qemu");
  g_autofree char *name = NULL, *uuid = NULL;

  g_string_append_len (text, "\0-name\0", 7);
  for (guint i = 0; i < 1000; i++)
    g_string_append (text, "\xe2\x82\xac");
  hf_process_parse_names (text->str, text->len, &name, &uuid);
  g_assert_cmpuint (strlen (name), ==, 255);
  g_assert_true (g_utf8_validate (name, -1, NULL));
}

/* A shell that waits for its standard input has these words behind its own. */
static void
check_names (char *const *arguments, const char *expect_name, const char *expect_uuid)
{
  g_autoptr (GPtrArray) argv = g_ptr_array_new ();
  g_autoptr (GError) error = NULL;
  g_autofree char *name = NULL, *uuid = NULL;
  char *const shell[] = { (char *)"sh", (char *)"-c", (char *)"echo; read line", NULL };
  char byte;
  GPid pid;
  int in, out;
  HfPeer peer;

  for (char *const *word = shell; *word; word++)
    g_ptr_array_add (argv, *word);
  for (char *const *word = arguments; *word; word++)
    g_ptr_array_add (argv, *word);
  g_ptr_array_add (argv, NULL);
  g_spawn_async_with_pipes (NULL, (char **)argv->pdata, NULL, G_SPAWN_SEARCH_PATH | G_SPAWN_DO_NOT_REAP_CHILD, NULL, NULL, &pid,
                            &in, &out, NULL, &error);
  g_assert_no_error (error);
  g_assert_cmpint (read (out, &byte, 1), ==, 1);
  peer = peer_of (pid);
  hf_process_get_names (&peer, &name, &uuid);
  g_assert_cmpstr (name, ==, expect_name);
  g_assert_cmpstr (uuid, ==, expect_uuid);
  close (in);
  close (out);
  g_assert_cmpint (waitpid (pid, NULL, 0), ==, pid);
}

static void
test_names (void)
{
  g_autofree char *filler = g_strnfill (100000, 'x');
  char *const plain[] = { (char *)"qemu",  (char *)"-name", (char *)"guest=a,,b,debug-threads=on",
                          (char *)"-uuid", (char *)UUID,    NULL };
  /* More than is read: what begins behind the bound does not count, and neither does half a word. */
  char *const behind[] = { (char *)"-name", (char *)"vm", filler, filler, (char *)"-uuid", (char *)UUID, NULL };
  char *const across[] = { (char *)"-uuid", (char *)UUID, filler, (char *)"-name", filler, NULL };

  check_names (plain, "a,b", UUID);
  check_names (behind, "vm", NULL);
  check_names (across, NULL, UUID);
}

/* ---- guest time ---- */

static void
test_parse_guest_time (void)
{
  static const struct {
    const char *name, *field, *tail;
    gint64 expect;
  } lines[] = {
    { "(qemu)", "77", " 0 1\n", 77 },
    { "(a) R 1 2 3 (b) S)", "77", " 0\n", 77 },
    { "(qemu)", "0", "\n", 0 },
    { "(qemu)", "9223372036854775807", "", G_MAXINT64 },
    { "(qemu)", "9223372036854775808", "", -1 },
    { "(qemu)", "99999999999999999999999", " 0", -1 },
    { "(qemu)", "-1", " 0", -1 },
    { "(qemu)", "+1", " 0", -1 },
    { "(qemu)", "", "", -1 },
    { "(qemu)", "x", "", -1 },
    { "(qemu)", "1x", " 0", -1 },
    { "qemu", "77", " 0", -1 },
  };

  for (guint i = 0; i < G_N_ELEMENTS (lines); i++) {
    g_autoptr (GString) line = g_string_new ("1 ");

    g_string_append_printf (line, "%s S", lines[i].name);
    for (guint field = 4; field < 43; field++)
      g_string_append_printf (line, " %u", field);
    g_string_append_printf (line, " %s%s", lines[i].field, lines[i].tail);
    g_test_message ("%s ... %s%s", lines[i].name, lines[i].field, lines[i].tail[0] == '\n' ? "" : lines[i].tail);
    g_assert_cmpint (hf_process_parse_guest_time (line->str), ==, lines[i].expect);
  }
  g_assert_cmpint (hf_process_parse_guest_time (""), ==, -1);
  g_assert_cmpint (hf_process_parse_guest_time (")"), ==, -1);
  g_assert_cmpint (hf_process_parse_guest_time ("1 (x) S 1 2 3"), ==, -1);
  g_assert_cmpuint (hf_process_parse_descriptors_max ("Name:\tx\nFDSize:\t64\nGroups:"), ==, 64);
  g_assert_cmpuint (hf_process_parse_descriptors_max ("Name:\tFDSize:\t64\n"), ==, 0);
  g_assert_cmpuint (hf_process_parse_descriptors_max ("\nFDSize:\t999999999999999999999999"), ==, 65536);
  g_assert_cmpuint (hf_process_parse_descriptors_max ("\nFDSize:"), ==, 0);
  g_assert_cmpuint (hf_process_parse_descriptors_max (""), ==, 0);
}

/* Ticks of field 14, utime. */
static gint64
user_time (const HfPeer *peer)
{
  g_autofree char *path = g_strdup_printf ("/proc/%d/stat", (int)peer->pid), *line = NULL;
  const char *at;

  g_assert_true (g_file_get_contents (path, &line, NULL, NULL));
  at = strrchr (line, ')');
  for (guint field = 2; field < 14; field++)
    at = strchr (at + 1, ' ');
  return g_ascii_strtoll (at + 1, NULL, 10);
}

/* QEMU with a boot sector that is "jmp $", until enough says so or the time is up: then -1. Else the guest time. */
static gint64
run_guest (const char *accelerator, gboolean (*enough) (const HfPeer *peer))
{
  static const guint8 loop[512] = { [0] = 0xeb, [1] = 0xfe, [510] = 0x55, [511] = 0xaa };
  g_autofree char *folder = g_dir_make_tmp ("holdfast-process-XXXXXX", NULL), *disk = g_build_filename (folder, "disk", NULL);
  g_autofree char *drive = g_strdup_printf ("file=%s,format=raw,if=floppy,readonly=on", disk);
  const char *argv[] = { "qemu-system-x86_64", "-accel", accelerator, "-m",    "16", "-display", "none",
                         "-nodefaults",        "-drive", drive,       "-name", "vm", NULL };
  gint64 end = g_get_monotonic_time () + LIMIT_S * G_USEC_PER_SEC, time = -1;
  g_autoptr (GError) error = NULL;
  GPid pid;
  HfPeer peer;

  g_assert_true (g_file_set_contents (disk, (const char *)loop, sizeof loop, NULL));
  g_spawn_async (NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH | G_SPAWN_DO_NOT_REAP_CHILD, NULL, NULL, &pid, &error);
  g_assert_no_error (error);
  peer = peer_of (pid);
  while (time < 0 && waitpid (pid, NULL, WNOHANG) == 0 && g_get_monotonic_time () < end) {
    if (enough (&peer))
      time = hf_process_get_guest_time (&peer);
    g_usleep (20000);
  }
  kill (pid, SIGKILL);
  waitpid (pid, NULL, 0);
  g_unlink (disk);
  g_rmdir (folder);
  return time;
}

static gboolean
has_used_processor (const HfPeer *peer)
{
  return user_time (peer) >= 150;
}

static void
test_guest_time (void)
{
  HfPeer ourselves = peer_of (getpid ());

  g_assert_cmpint (hf_process_get_guest_time (&ourselves), ==, 0);
  g_assert_cmpint (run_guest ("tcg", has_used_processor), ==, 0);
}

/* ---- devices ---- */

/* Nodes of our own for two loop devices, which need not have a file behind them. */
typedef struct {
  char *folder, *a, *b, *link, *file, *other;
} Nodes;

/* FALSE: not here; the test is skipped. */
static gboolean
nodes_init (Nodes *nodes)
{
  int fd;

  nodes->folder = g_dir_make_tmp ("holdfast-process-XXXXXX", NULL);
  nodes->a = g_build_filename (nodes->folder, "disk-a", NULL);
  nodes->b = g_build_filename (nodes->folder, "disk-b", NULL);
  nodes->link = g_build_filename (nodes->folder, "disk-link", NULL);
  nodes->file = g_build_filename (nodes->folder, "disk-file", NULL);
  nodes->other = g_build_filename (nodes->folder, "disk-null", NULL);
  g_assert_no_errno (chmod (nodes->folder, 0755));
  g_assert_true (g_file_set_contents (nodes->file, "x", 1, NULL));
  g_assert_no_errno (symlink (nodes->a, nodes->link));
  if (mknod (nodes->a, S_IFBLK | 0600, makedev (LOOP_MAJOR, 6)) == 0
      && mknod (nodes->b, S_IFBLK | 0600, makedev (LOOP_MAJOR, 7)) == 0
      && mknod (nodes->other, S_IFCHR | 0666, makedev (1, 3)) == 0) {
    fd = open (nodes->a, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
      close (fd);
      return TRUE;
    }
  }
  g_test_skip ("needs root and loop devices (modprobe loop)");
  return FALSE;
}

static void
nodes_clear (Nodes *nodes)
{
  char *paths[] = { nodes->a, nodes->b, nodes->link, nodes->file, nodes->other };

  for (guint i = 0; i < G_N_ELEMENTS (paths); i++) {
    g_unlink (paths[i]);
    g_free (paths[i]);
  }
  g_rmdir (nodes->folder);
  g_free (nodes->folder);
}

static void
open_nodes (gconstpointer data)
{
  const Nodes *nodes = data;
  int ends[2];

  /* a twice and by its link; b only as a place, which takes no commands; and what is no LU. */
  if (open (nodes->a, O_RDWR) < 0 || open (nodes->a, O_RDONLY) < 0 || open (nodes->link, O_RDONLY) < 0
      || open (nodes->b, O_PATH) < 0 || open ("/dev/null", O_RDWR) < 0 || open (nodes->file, O_RDONLY) < 0 || pipe (ends) < 0)
    _exit (1);
}

static GPtrArray *
devices_of (const Child *child, GError **error)
{
  GPtrArray *devices;
  int pidfd = hf_process_open (&child->peer, error);

  if (pidfd < 0)
    return NULL;
  devices = hf_devices_of_process (&child->peer, pidfd, NULL, error);
  close (pidfd);
  return devices;
}

static void
assert_device (GPtrArray *devices, guint i, guint minor, const char *name)
{
  const HfDevice *device = g_ptr_array_index (devices, i);
  struct stat status;

  g_assert_no_errno (fstat (device->fd, &status));
  g_assert_true (S_ISBLK (status.st_mode) && status.st_rdev == makedev (LOOP_MAJOR, minor));
  g_assert_true (device->block);
  g_assert_cmpuint (device->major, ==, LOOP_MAJOR);
  g_assert_cmpuint (device->minor, ==, minor);
  g_assert_cmpstr (device->name, ==, name);
  g_assert_cmpint (fcntl (device->fd, F_GETFD) & FD_CLOEXEC, !=, 0);
}

static void
test_devices (void)
{
  g_autoptr (GPtrArray) devices = NULL;
  g_autoptr (GError) error = NULL;
  Nodes nodes;
  Child child;

  if (nodes_init (&nodes)) {
    child = child_new (open_nodes, &nodes);
    devices = devices_of (&child, &error);
    g_assert_no_error (error);
    g_assert_cmpuint (devices->len, ==, 1);
    assert_device (devices, 0, 6, "block 7:6");
    child_end (&child);
  }
  nodes_clear (&nodes);
}

/* A process that has none is no error. */
static void
test_no_devices (void)
{
  g_autoptr (GPtrArray) devices = NULL;
  g_autoptr (GError) error = NULL;
  Child child = child_new (NULL, NULL);

  devices = devices_of (&child, &error);
  g_assert_no_error (error);
  g_assert_cmpuint (devices->len, ==, 0);
  child_end (&child);
}

static void
test_device_new (void)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (HfDevice) device = NULL, again = NULL, other = NULL;
  int fd = open ("/dev/null", O_RDWR | O_CLOEXEC), ends[2];

  device = hf_device_new (fd, &error);
  again = hf_device_new (fd, &error);
  close (fd);
  g_assert_no_error (error);
  g_assert_cmpstr (device->name, ==, "character 1:3");
  g_assert_false (device->block);
  g_assert_cmpint (device->fd, !=, again->fd);
  g_assert_cmpint (fcntl (device->fd, F_GETFD), ==, FD_CLOEXEC);
  g_assert_true (hf_device_equal (device, again));
  fd = open ("/dev/zero", O_RDONLY | O_CLOEXEC);
  other = hf_device_new (fd, &error);
  close (fd);
  g_assert_false (hf_device_equal (device, other));
  g_assert_no_errno (pipe2 (ends, O_CLOEXEC));
  g_assert_null (hf_device_new (ends[0], &error));
  g_assert_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT);
  close (ends[0]);
  close (ends[1]);
}

static void
test_globs (void)
{
  g_autoptr (GPtrArray) devices = NULL, none = NULL;
  g_autofree char *skipped = NULL, *pattern = NULL;
  const char *const nothing[] = { "/nonexistent/*", NULL };
  const char *const all[] = { "/dev/null", NULL };
  Nodes nodes;

  none = hf_devices_of_globs (nothing, &skipped);
  g_assert_cmpuint (none->len, ==, 0);
  g_assert_cmpstr (skipped, ==, "/nonexistent/*: nothing matches");
  g_clear_pointer (&skipped, g_free);
  g_clear_pointer (&none, g_ptr_array_unref);
  none = hf_devices_of_globs (all, NULL);
  g_assert_cmpuint (none->len, ==, 0);
  if (nodes_init (&nodes)) {
    g_autofree char *text = NULL;
    const char *const globs[] = { (pattern = g_build_filename (nodes.folder, "disk-*", NULL)), nodes.a, NULL };

    devices = hf_devices_of_globs (globs, &skipped);
    g_assert_cmpuint (devices->len, ==, 2);
    assert_device (devices, 0, 6, nodes.a);
    assert_device (devices, 1, 7, nodes.b);
    text = g_strdup_printf ("%s: neither a block nor a SCSI generic node, %s: neither a block nor a SCSI generic node",
                            nodes.file, nodes.other);
    g_assert_cmpstr (skipped, ==, text);
  }
  nodes_clear (&nodes);
}

/* ---- who may see them ---- */

typedef struct {
  const char *what;
  guint uid;
  gboolean rawio, ptrace;
  guint target_uid;
  gboolean target_capable; /* the process keeps root's capabilities */
  guint expect;            /* devices; 0: G_IO_ERROR_PERMISSION_DENIED, which names CAP_SYS_PTRACE */
  gboolean yama;           /* pidfd_getfd is refused, as kernel.yama.ptrace_scope=1 does it */
  gboolean shut;           /* the node may be opened by root only */
} Combination;

static const Combination combinations[] = {
  { "as its own user with CAP_SYS_RAWIO", NOBODY, TRUE, FALSE, NOBODY, FALSE, 1 },
  { "as its own user without a capability", NOBODY, FALSE, FALSE, NOBODY, FALSE, 1 },
  { "as its own user with Yama", NOBODY, TRUE, FALSE, NOBODY, FALSE, 1, TRUE, FALSE },
  { "as its own user with Yama and without the node's mode", NOBODY, TRUE, FALSE, NOBODY, FALSE, 0, TRUE, TRUE },
  { "as its own user without the node's mode", NOBODY, TRUE, FALSE, NOBODY, FALSE, 1, FALSE, TRUE },
  { "as another user with CAP_SYS_RAWIO only", OTHER, TRUE, FALSE, NOBODY, FALSE, 0 },
  { "as another user with CAP_SYS_PTRACE", OTHER, TRUE, TRUE, NOBODY, FALSE, 1 },
  { "as root without capabilities", 0, TRUE, FALSE, NOBODY, FALSE, 0 },
  { "as root with CAP_SYS_PTRACE", 0, TRUE, TRUE, NOBODY, FALSE, 1 },
  { "as root of root with all its capabilities", 0, TRUE, FALSE, 0, TRUE, 0 },
  { "as root of root, with CAP_SYS_PTRACE", 0, TRUE, TRUE, 0, TRUE, 1 },
};

/* In a child of the test: -1 when it cannot be done. */
static int
become (guint uid, gboolean rawio, gboolean ptrace)
{
  capng_clear (CAPNG_SELECT_BOTH);
  if (rawio)
    capng_update (CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED, CAP_SYS_RAWIO);
  if (ptrace)
    capng_update (CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED, CAP_SYS_PTRACE);
  return capng_change_id ((int)uid, (int)uid, CAPNG_DROP_SUPP_GRP | CAPNG_CLEAR_BOUNDING);
}

typedef struct {
  const Combination *combination;
  const Nodes *nodes;
} Target;

static void
prepare_target (gconstpointer data)
{
  const Target *target = data;

  open_nodes (target->nodes);
  if (!target->combination->target_capable && become (target->combination->target_uid, FALSE, FALSE) != 0)
    _exit (1);
  /* As after the exec of a QEMU that was started as this user. */
  prctl (PR_SET_DUMPABLE, 1);
}

static gboolean
refuse_getfd (void)
{
  scmp_filter_ctx filter = seccomp_init (SCMP_ACT_ALLOW);
  gboolean done =
      filter && seccomp_rule_add (filter, SCMP_ACT_ERRNO (EPERM), SCMP_SYS (pidfd_getfd), 0) == 0 && seccomp_load (filter) == 0;

  seccomp_release (filter);
  return done;
}

/* The exit status: 0 as expected. */
static int
look_as (const Combination *combination, const Child *child)
{
  g_autoptr (GPtrArray) devices = NULL;
  g_autoptr (GError) error = NULL;

  if (become (combination->uid, combination->rawio, combination->ptrace) != 0 || (combination->yama && !refuse_getfd ()))
    return 2;
  devices = devices_of (child, &error);
  g_printerr ("# %s: %d devices, %s\n", combination->what, devices ? (int)devices->len : -1, error ? error->message : "no error");
  if (combination->expect)
    return devices && devices->len == combination->expect ? 0 : 3;
  return !devices && g_error_matches (error, G_IO_ERROR, G_IO_ERROR_PERMISSION_DENIED)
                 && strstr (error->message, "CAP_SYS_PTRACE")
             ? 0
             : 4;
}

static void
test_combinations (void)
{
  Nodes nodes;

  if (nodes_init (&nodes))
    for (guint i = 0; i < G_N_ELEMENTS (combinations); i++) {
      Target target = { &combinations[i], &nodes };
      Child child = child_new (prepare_target, &target);
      int status = -1;
      pid_t pid;

      g_assert_no_errno (chmod (nodes.a, combinations[i].shut ? 0600 : 0666));
      pid = fork ();
      if (pid == 0)
        _exit (look_as (&combinations[i], &child));
      g_assert_cmpint (waitpid (pid, &status, 0), ==, pid);
      g_test_message ("%s", combinations[i].what);
      g_assert_cmpint (status, ==, 0);
      child_end (&child);
    }
  nodes_clear (&nodes);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/prhelper/process/open", test_open);
  g_test_add_func ("/prhelper/process/zombie", test_zombie);
  g_test_add_func ("/prhelper/process/unknown", test_unknown);
  g_test_add_func ("/prhelper/process/names/parse", test_parse_names);
  g_test_add_func ("/prhelper/process/names/hostile", test_parse_names_hostile);
  g_test_add_func ("/prhelper/process/names/long", test_name_long);
  g_test_add_func ("/prhelper/process/names/real", test_names);
  g_test_add_func ("/prhelper/process/guest-time/parse", test_parse_guest_time);
  g_test_add_func ("/prhelper/process/guest-time/real", test_guest_time);
  g_test_add_func ("/prhelper/process/devices", test_devices);
  g_test_add_func ("/prhelper/process/devices/none", test_no_devices);
  g_test_add_func ("/prhelper/process/devices/copy", test_device_new);
  g_test_add_func ("/prhelper/process/devices/globs", test_globs);
  g_test_add_func ("/prhelper/process/devices/combinations", test_combinations);
  return g_test_run ();
}
