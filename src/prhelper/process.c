/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns: nothing; a device is its holder's. Thread: any.
 *
 * Theory of operation: everything is read through a descriptor of the folder /proc/PID whose start time was compared, so it is
 * said of this process even if its number is another's meanwhile: procfs binds what is open to the process, not to the number.
 *
 * Its descriptors. Who may look into /proc/PID/fd (the process' own user, if the process may be dumped) looks at each node before
 * it is taken. O_PATH neither opens nor closes the file behind it, so no device is started and no file system is asked. Another
 * user with CAP_SYS_PTRACE, root without its other capabilities included, may not even list that folder, whose mode is 0500; but
 * it may copy any descriptor with pidfd_getfd(2), so the numbers are counted through, up to the FDSize of /proc/PID/status. The
 * other way round, Yama forbids pidfd_getfd to the process' own user (kernel.yama.ptrace_scope=1) and lets it read /proc: then
 * the node is opened anew. Reading is enough, because the kernel lets every command of a holder of CAP_SYS_RAWIO through.
 *
 * What the process wrote (its name, its arguments) is text of a stranger: bounded, cleaned, never used to decide.
 */
#include "config.h"

#include "prhelper/process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <gio/gio.h>
#include <glob.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* Of the arguments; libvirt's are 10 to 20 KiB. */
#define CMDLINE_MAX (128u << 10)
#define STAT_MAX 4096
#define NAME_SIZE_MAX 255
#define GUEST_TIME_FIELD 43
#define FIELDS_BEFORE_STATE 2
/* Numbers that are tried or listed; who has more open is no QEMU. */
#define DESCRIPTORS_MAX 65536
#define SKIPPED_SIZE_MAX 1024
/* Linux, include/uapi/linux/major.h: SCSI_GENERIC_MAJOR. */
#define SCSI_GENERIC_MAJOR 21

static gboolean
fail (GError **error, GIOErrorEnum code, const HfPeer *peer, const char *what, int reason)
{
  g_set_error (error, G_IO_ERROR, (int)code, "process %d: %s%s%s", (int)peer->pid, what, reason ? ": " : "",
               reason ? g_strerror (reason) : "");
  return FALSE;
}

static gboolean
fail_ended (GError **error, const HfPeer *peer)
{
  return fail (error, G_IO_ERROR_NOT_FOUND, peer, "it has ended", 0);
}

/* ---- procfs ---- */

/* At most size - 1 bytes of a file of procfs and a NUL. -1: not to be had. */
static gssize
read_at (int folder, const char *name, char *text, gsize size)
{
  gsize length = 0;
  ssize_t n = 0;
  int fd = openat (folder, name, O_RDONLY | O_CLOEXEC);

  if (fd < 0)
    return -1;
  while (length < size - 1 && ((n = read (fd, text + length, size - 1 - length)) > 0 || (n < 0 && errno == EINTR)))
    length += (gsize)MAX (n, 0);
  close (fd);
  text[length] = '\0';
  return n < 0 ? -1 : (gssize)length;
}

/* A descriptor of the folder of exactly this process, or -1. */
static int
open_folder (const HfPeer *peer, GError **error)
{
  g_autofree char *path = g_strdup_printf ("/proc/%d", (int)peer->pid);
  char line[STAT_MAX];
  int folder;

  if (peer->pid <= 0 || peer->start_time == 0) {
    fail (error, G_IO_ERROR_INVALID_ARGUMENT, peer, "when it started is not known", 0);
    return -1;
  }
  folder = open (path, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) {
    int reason = errno;

    if (reason == ENOENT)
      fail_ended (error, peer);
    else
      fail (error, g_io_error_from_errno (reason), peer, path, reason);
    return -1;
  }
  if (read_at (folder, "stat", line, sizeof line) > 0 && hf_peer_parse_start_time (line) == peer->start_time)
    return folder;
  close (folder);
  fail_ended (error, peer);
  return -1;
}

int
hf_process_open (const HfPeer *peer, GError **error)
{
  int folder, pidfd, reason;

  /* First the number, then the name: if it is still the same process afterwards, it was so at pidfd_open. */
  pidfd = peer->pid > 0 ? pidfd_open (peer->pid, 0) : -1;
  reason = errno;
  folder = open_folder (peer, error);
  if (folder >= 0 && pidfd < 0)
    fail (error, reason == ESRCH ? G_IO_ERROR_NOT_FOUND : g_io_error_from_errno (reason), peer, "pidfd_open", reason);
  if (folder >= 0)
    close (folder);
  if (folder >= 0 || pidfd < 0)
    return pidfd;
  close (pidfd);
  return -1;
}

/* ---- names ---- */

/* What a terminal or a log may be given. Empty: NULL. Takes over text. */
static char *
clean (char *text)
{
  g_autofree char *raw = text;
  g_autofree char *valid = raw ? g_utf8_make_valid (raw, -1) : NULL;
  g_autoptr (GString) cleaned = g_string_new (NULL);

  for (const char *at = valid; at && *at; at = g_utf8_next_char (at)) {
    gunichar c = g_utf8_get_char (at);
    GUnicodeType type = g_unichar_type (c);

    if (!g_unichar_isprint (c) || type == G_UNICODE_LINE_SEPARATOR || type == G_UNICODE_PARAGRAPH_SEPARATOR)
      c = '?';
    if (cleaned->len + (gsize)g_unichar_to_utf8 (c, NULL) > NAME_SIZE_MAX)
      break;
    g_string_append_unichar (cleaned, c);
  }
  return cleaned->len ? g_string_free (g_steal_pointer (&cleaned), FALSE) : NULL;
}

/* The next part of KEY=VALUE,KEY=VALUE; ",," is a comma in it. *at moves behind it, NULL at the end. */
static char *
next_part (const char **at)
{
  g_autoptr (GString) part = g_string_new (NULL);
  const char *c = *at;

  for (; *c && (*c != ',' || c[1] == ','); c++) {
    g_string_append_c (part, *c);
    if (*c == ',')
      c++;
  }
  *at = *c == ',' ? c + 1 : NULL;
  return g_string_free (g_steal_pointer (&part), FALSE);
}

/* QEMU, system/vl.c, qemu_name_opts: a first part without a key is the guest's name; of several the last one counts. */
static char *
parse_name_option (const char *value)
{
  g_autofree char *name = NULL;
  gboolean first = TRUE;

  for (const char *at = value; at; first = FALSE) {
    g_autofree char *part = next_part (&at);

    if (!g_str_has_prefix (part, "guest=") && (!first || strchr (part, '=')))
      continue;
    g_free (name);
    name = g_strdup (g_str_has_prefix (part, "guest=") ? part + strlen ("guest=") : part);
  }
  return clean (g_steal_pointer (&name));
}

static char *
parse_uuid_option (const char *value)
{
  return g_uuid_string_is_valid (value) ? g_ascii_strdown (value, -1) : NULL;
}

static void
take (char **slot, char *value)
{
  if (!value)
    return;
  g_free (*slot);
  *slot = value;
}

void
hf_process_parse_names (const char *text, gsize length, char **ret_name, char **ret_uuid)
{
  const char *end = text + length, *word, *value;

  *ret_name = *ret_uuid = NULL;
  /* The first word is the program. text[length] is a NUL, so each word ends. */
  for (word = text + strnlen (text, length) + 1; word < end; word = value) {
    gsize dashes = strspn (word, "-");

    value = word + strlen (word) + 1;
    if (value >= end || dashes < 1 || dashes > 2)
      continue;
    if (strcmp (word + dashes, "name") == 0)
      take (ret_name, parse_name_option (value));
    else if (strcmp (word + dashes, "uuid") == 0)
      take (ret_uuid, parse_uuid_option (value));
  }
}

void
hf_process_get_names (const HfPeer *peer, char **ret_name, char **ret_uuid)
{
  g_autofree char *text = g_malloc (CMDLINE_MAX + 1);
  gssize length;
  int folder = open_folder (peer, NULL);

  *ret_name = *ret_uuid = NULL;
  if (folder < 0)
    return;
  length = read_at (folder, "cmdline", text, CMDLINE_MAX + 1);
  close (folder);
  /* The last word of what was cut off is not the whole word. */
  if (length == CMDLINE_MAX)
    while (length > 0 && text[length - 1] != '\0')
      text[--length] = '\0';
  if (length > 0)
    hf_process_parse_names (text, (gsize)length, ret_name, ret_uuid);
}

/* ---- guest time ---- */

gint64
hf_process_parse_guest_time (const char *line)
{
  const char *at = strrchr (line, ')');
  guint64 value;
  char *end = NULL;

  for (guint field = FIELDS_BEFORE_STATE; at && field < GUEST_TIME_FIELD; field++)
    at = strchr (at + 1, ' ');
  if (!at || !g_ascii_isdigit (at[1]))
    return -1;
  errno = 0;
  value = g_ascii_strtoull (at + 1, &end, 10);
  return errno == 0 && value <= G_MAXINT64 && (*end == ' ' || *end == '\n' || *end == '\0') ? (gint64)value : -1;
}

/* The line of the process sums up its threads, those that have ended included: a vCPU that was unplugged does not take time back.
 */
gint64
hf_process_get_guest_time (const HfPeer *peer)
{
  char line[STAT_MAX];
  gssize length;
  int folder = open_folder (peer, NULL);

  if (folder < 0)
    return -1;
  length = read_at (folder, "stat", line, sizeof line);
  close (folder);
  return length > 0 ? hf_process_parse_guest_time (line) : -1;
}

/* ---- one device ---- */

/* Without asking a file system that may not answer. */
static gboolean
look (int fd, struct statx *ret)
{
  return statx (fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE, ret) == 0;
}

static gboolean
may_be_lu (const struct statx *status)
{
  return S_ISBLK (status->stx_mode) || (S_ISCHR (status->stx_mode) && status->stx_rdev_major == SCSI_GENERIC_MAJOR);
}

static gboolean
same_node (const struct statx *a, const struct statx *b)
{
  return (a->stx_mode & S_IFMT) == (b->stx_mode & S_IFMT) && a->stx_rdev_major == b->stx_rdev_major
         && a->stx_rdev_minor == b->stx_rdev_minor;
}

/* Takes over fd. name NULL: by number. */
static HfDevice *
device_of (int fd, const struct statx *status, const char *name)
{
  HfDevice *device = g_new0 (HfDevice, 1);

  device->fd = fd;
  device->block = S_ISBLK (status->stx_mode);
  device->major = status->stx_rdev_major;
  device->minor = status->stx_rdev_minor;
  device->name =
      name ? g_strdup (name) : g_strdup_printf ("%s %u:%u", device->block ? "block" : "character", device->major, device->minor);
  return device;
}

HfDevice *
hf_device_new (int fd, GError **error)
{
  struct statx status;
  int copy;

  if (!look (fd, &status) || (!S_ISBLK (status.stx_mode) && !S_ISCHR (status.stx_mode))) {
    g_set_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT, "neither a block nor a character device");
    return NULL;
  }
  copy = fcntl (fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
  if (copy >= 0)
    return device_of (copy, &status, NULL);
  g_set_error (error, G_IO_ERROR, (int)g_io_error_from_errno (errno), "the descriptor of a device: %s", g_strerror (errno));
  return NULL;
}

void
hf_device_free (HfDevice *device)
{
  if (!device)
    return;
  if (device->fd >= 0)
    close (device->fd);
  g_free (device->name);
  g_free (device);
}

gboolean
hf_device_equal (const HfDevice *a, const HfDevice *b)
{
  return a->block == b->block && a->major == b->major && a->minor == b->minor;
}

static gboolean
is_in (GPtrArray *devices, const struct statx *status)
{
  const HfDevice wanted = { .block = S_ISBLK (status->stx_mode),
                            .major = status->stx_rdev_major,
                            .minor = status->stx_rdev_minor };

  for (guint i = 0; i < devices->len; i++)
    if (hf_device_equal (g_ptr_array_index (devices, i), &wanted))
      return TRUE;
  return FALSE;
}

/* Takes over fd, and keeps it if it is a node that is not there yet and takes commands. wanted: what it must be; NULL: any. */
static gboolean
add_node (GPtrArray *devices, int fd, const struct statx *wanted, const char *name)
{
  struct statx status;
  int flags = fd >= 0 ? fcntl (fd, F_GETFL) : -1;

  if (flags >= 0 && !(flags & O_PATH) && look (fd, &status) && may_be_lu (&status) && (!wanted || same_node (&status, wanted))
      && !is_in (devices, &status)) {
    g_ptr_array_add (devices, device_of (fd, &status, name));
    return TRUE;
  }
  if (fd >= 0)
    close (fd);
  return FALSE;
}

/* ---- the devices of a process ---- */

typedef struct {
  int folder, pidfd;
  GPtrArray *devices;
  int refused; /* errno of a node that could not be had; 0: none */
} Search;

static void
take_listed (Search *search, int list, const char *entry)
{
  struct statx status;
  guint64 number;
  int fd, place;

  if (!g_ascii_string_to_unsigned (entry, 10, 0, G_MAXINT, &number, NULL))
    return;
  place = openat (list, entry, O_PATH | O_CLOEXEC);
  if (place < 0 && errno != ENOENT)
    search->refused = errno;
  if (place >= 0 && look (place, &status) && may_be_lu (&status) && !is_in (search->devices, &status)) {
    fd = pidfd_getfd (search->pidfd, (int)number, 0);
    /* Another file may have the number now, and one that was opened with O_PATH takes no commands. */
    if (fd < 0)
      fd = openat (list, entry, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0 && errno != ENOENT)
      search->refused = errno;
    add_node (search->devices, fd, &status, NULL);
  }
  if (place >= 0)
    close (place);
}

/* FALSE: the folder may not be read, or shows that there is something and nothing of it can be had; errno. */
static gboolean
search_list (Search *search)
{
  int list = openat (search->folder, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *entries = list >= 0 ? fdopendir (list) : NULL;
  struct dirent *entry;

  if (!entries) {
    int reason = errno;

    if (list >= 0)
      close (list);
    errno = reason;
    return FALSE;
  }
  for (guint n = 0; n < DESCRIPTORS_MAX && search->devices->len < HF_DEVICES_MAX && (entry = readdir (entries)) != NULL; n++)
    take_listed (search, list, entry->d_name);
  closedir (entries);
  errno = search->refused;
  return !search->refused || search->devices->len > 0;
}

guint
hf_process_parse_descriptors_max (const char *status)
{
  const char *line = strstr (status, "\nFDSize:");
  guint64 size = line ? g_ascii_strtoull (line + strlen ("\nFDSize:"), NULL, 10) : 0;

  return (guint)MIN (size, DESCRIPTORS_MAX);
}

/* FALSE: descriptors may not be copied; errno. A file of a file system that does not answer could hold up the close of its copy:
   this is why it is the second way. */
static gboolean
search_numbers (Search *search)
{
  char status[STAT_MAX];
  guint size = 0;

  if (read_at (search->folder, "status", status, sizeof status) > 0)
    size = hf_process_parse_descriptors_max (status);
  for (guint number = 0; number < size && search->devices->len < HF_DEVICES_MAX; number++) {
    int fd = pidfd_getfd (search->pidfd, (int)number, 0);

    if (fd >= 0)
      add_node (search->devices, fd, NULL, NULL);
    else if (errno == EPERM || errno == EACCES || errno == ENOSYS)
      return FALSE;
    else if (errno != EBADF)
      search->refused = errno;
  }
  return TRUE;
}

static gboolean
has_ended (int pidfd)
{
  struct pollfd ended = { .fd = pidfd, .events = POLLIN };

  return poll (&ended, 1, 0) > 0;
}

GPtrArray *
hf_devices_of_process (const HfPeer *peer, int pidfd, gboolean *ret_complete, GError **error)
{
  g_autoptr (GPtrArray) devices = g_ptr_array_new_with_free_func ((GDestroyNotify)hf_device_free);
  Search search = { .folder = open_folder (peer, error), .pidfd = pidfd, .devices = devices };
  gboolean found;
  int reason;

  if (search.folder < 0)
    return NULL;
  found = search_list (&search);
  if (!found) {
    search.refused = 0;
    found = search_numbers (&search);
  }
  reason = errno;
  close (search.folder);
  if (has_ended (pidfd))
    fail_ended (error, peer);
  else if (found) {
    if (ret_complete)
      *ret_complete = search.refused == 0 && devices->len < HF_DEVICES_MAX;
    return g_steal_pointer (&devices);
  } else if (reason == EPERM || reason == EACCES)
    fail (error, G_IO_ERROR_PERMISSION_DENIED, peer,
          "its devices cannot be seen: CAP_SYS_PTRACE is missing, or running as its user and group (or set --device)", reason);
  else
    fail (error, g_io_error_from_errno (reason), peer, "its devices cannot be seen", reason);
  return NULL;
}

/* ---- globs ---- */

static void
skip (GString *skipped, const char *path, const char *why)
{
  if (skipped->len < SKIPPED_SIZE_MAX)
    g_string_append_printf (skipped, "%s%s: %s", skipped->len ? ", " : "", path, why);
}

/* Looked at before it is opened: there are nodes that act when they are. */
static void
take_path (GPtrArray *devices, const char *path, GString *skipped)
{
  struct statx status;
  int fd, place = open (path, O_PATH | O_CLOEXEC);

  if (place < 0) {
    skip (skipped, path, g_strerror (errno));
  } else if (!look (place, &status) || !may_be_lu (&status)) {
    skip (skipped, path, "neither a block nor a SCSI generic node");
  } else if (!is_in (devices, &status)) {
    fd = open (path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0)
      skip (skipped, path, g_strerror (errno));
    else if (!add_node (devices, fd, &status, path))
      skip (skipped, path, "it was replaced while it was opened");
  }
  if (place >= 0)
    close (place);
}

GPtrArray *
hf_devices_of_globs (const char *const *globs, char **ret_skipped)
{
  GPtrArray *devices = g_ptr_array_new_with_free_func ((GDestroyNotify)hf_device_free);
  g_autoptr (GString) skipped = g_string_new (NULL);

  for (; globs && *globs; globs++) {
    glob_t found = { 0 };

    if (glob (*globs, 0, NULL, &found) != 0)
      skip (skipped, *globs, "nothing matches");
    for (gsize i = 0; i < found.gl_pathc && devices->len < HF_DEVICES_MAX; i++)
      take_path (devices, found.gl_pathv[i], skipped);
    globfree (&found);
  }
  if (ret_skipped)
    *ret_skipped = skipped->len ? g_string_free (g_steal_pointer (&skipped), FALSE) : NULL;
  return devices;
}
