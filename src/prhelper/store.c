/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns: the folder of images, its lock, and the thread that writes.
 *
 * Thread: main, but for what stands under "the writer". An image is encoded by the writer too: with 1,000 LUs that takes longer
 * than a guest's command.
 *
 * Theory of operation: a job is what is to become of one VM's file. At most one job of a VM waits; a later image takes its place
 * in it and brings its done along. Jobs are taken in the order in which they began to wait, so no VM keeps another's from being
 * written. Only the writer touches files after hf_store_read, so one name does for what is not finished yet.
 *
 * A file is the line of its header, of fixed length: the boot it belongs to and the checksum of the second line, which is the
 * image. So files of another boot need not be understood, and a flipped bit in a key is found. A new file comes by rename(2), so
 * it is whole or the older one is. base/file-sync.h's hf_file_replace would not do: it follows a symbolic link, and always syncs.
 *
 * Locking: lock guards what stands below it in the struct. No file is touched with it held.
 */

#include "config.h"

#include "base/fail.h"
#include "base/file-sync.h"
#include "prhelper/log.h"
#include "prhelper/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <gio/gio.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOCK_NAME ".lock"
#define UNFINISHED_NAME ".unfinished"
#define SUFFIX ".json"
#define BOOT_ID_PATH "/proc/sys/kernel/random/boot_id"
#define BOOT_ID_LENGTH 36
#define CHECKSUM_LENGTH 64
#define HEADER_BOOT "{\"boot\":\""
#define HEADER_CHECKSUM "\",\"sha256\":\""
#define HEADER_END "\"}\n"
#define BOOT_AT (sizeof HEADER_BOOT - 1)
#define CHECKSUM_AT (BOOT_AT + BOOT_ID_LENGTH + sizeof HEADER_CHECKSUM - 1)
#define END_AT (CHECKSUM_AT + CHECKSUM_LENGTH)
#define HEADER_LENGTH (END_AT + sizeof HEADER_END - 1)

typedef struct {
  HfStoreDone done;
  gpointer user_data;
} Waiter;

typedef struct {
  char *name;       /* of the file */
  HfVmImage *image; /* NULL: remove the file */
  gboolean sync;
  GArray *waiters; /* of Waiter */
  GError *error;
} Job;

struct _HfStore {
  char *folder;
  int folder_fd, lock_fd;
  char boot[BOOT_ID_LENGTH + 1];
  GSource *inbox; /* ready when something is finished */
  gboolean started;
  pthread_t writer;

  pthread_mutex_t lock; /* not GMutex: the thread sanitizer does not see GLib's */
  pthread_cond_t wake;
  GQueue waiting, finished; /* of Job */
  GHashTable *by_name;      /* name in Job -> Job: those that wait */
  gboolean ending;
};

typedef struct {
  GSource base;
  HfStore *store;
} Inbox;

static gboolean G_GNUC_PRINTF (4, 5) fail (GError **error, int saved_errno, const HfStore *store, const char *format, ...)
{
  g_autofree char *text = NULL;
  va_list arguments;

  va_start (arguments, format);
  text = g_strdup_vprintf (format, arguments);
  va_end (arguments);
  g_set_error (error, G_IO_ERROR, (int)g_io_error_from_errno (saved_errno), "journal %s%s: %s", store->folder, text,
               g_strerror (saved_errno));
  return FALSE;
}

static void
job_free (Job *job)
{
  g_free (job->name);
  hf_vm_image_free (job->image);
  g_array_unref (job->waiters);
  g_clear_error (&job->error);
  g_free (job);
}

/* ---- the writer ---- */

/* 0, or the errno that a test asked for at this point. */
static int
injected_errno (const char *when, const char *step)
{
  guint argument = 0;
  HfFailAction action = hf_fail_point (when, step, FALSE, &argument);

  if (action == HF_FAIL_NOTHING)
    return 0;
  return action == HF_FAIL_ERROR && argument ? (int)argument : EIO;
}

static char *
checksum_of (const void *data, gsize length)
{
  return g_compute_checksum_for_data (G_CHECKSUM_SHA256, data, length);
}

/* NULL with what is wrong: it could not be read again. */
static GString *
make_text (const HfStore *store, const HfVmImage *image, const char **ret_problem)
{
  g_autoptr (GBytes) bytes = hf_vm_image_encode (image);
  gsize length;
  const char *data = g_bytes_get_data (bytes, &length);
  g_autofree char *checksum = checksum_of (data, length);
  GString *text;

  if (image->phase != HF_VM_IDLE && !image->record)
    *ret_problem = "no record";
  if (image->held->len > HF_STORE_HELD_MAX)
    *ret_problem = "too many devices";
  if (length > HF_STORE_SIZE_MAX)
    *ret_problem = "too long";
  if (*ret_problem)
    return NULL;
  text = g_string_sized_new (HEADER_LENGTH + length + 1);
  g_string_append_printf (text, HEADER_BOOT "%s" HEADER_CHECKSUM "%s" HEADER_END, store->boot, checksum);
  g_string_append_len (text, data, (gssize)length);
  g_string_append_c (text, '\n');
  return text;
}

static gboolean
fill (const HfStore *store, const Job *job, int fd, const GString *text, GError **error)
{
  g_autoptr (GError) local = NULL;
  int injected = injected_errno ("before", "store-write");

  if (injected)
    return fail (error, injected, store, "/%s: write", job->name);
  if (!hf_file_write_all (fd, text->str, text->len, &local)) {
    g_set_error (error, G_IO_ERROR, G_IO_ERROR_FAILED, "journal %s/%s: %s", store->folder, job->name, local->message);
    return FALSE;
  }
  injected = injected_errno ("after", "store-write");
  if (injected)
    return fail (error, injected, store, "/%s: write", job->name);
  if (!job->sync)
    return TRUE;
  injected = injected_errno ("before", "store-sync");
  if (injected || fsync (fd) != 0)
    return fail (error, injected ? injected : errno, store, "/%s: sync", job->name);
  return TRUE;
}

static gboolean
replace (const HfStore *store, const Job *job, const GString *text, GError **error)
{
  int fd = openat (store->folder_fd, UNFINISHED_NAME, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  gboolean good;
  int injected;

  if (fd < 0)
    return fail (error, errno, store, "/%s: create", job->name);
  good = fill (store, job, fd, text, error);
  close (fd);
  if (good && renameat (store->folder_fd, UNFINISHED_NAME, store->folder_fd, job->name) != 0)
    good = fail (error, errno, store, "/%s: rename", job->name);
  if (!good) {
    unlinkat (store->folder_fd, UNFINISHED_NAME, 0);
    return FALSE;
  }
  if (!job->sync)
    return TRUE;
  /* EINVAL: a file system that cannot sync folders, where nothing better can be done. */
  if (fsync (store->folder_fd) != 0 && errno != EINVAL)
    return fail (error, errno, store, ": sync the folder");
  injected = injected_errno ("after", "store-sync");
  return !injected || fail (error, injected, store, "/%s: sync", job->name);
}

static void
run_job (const HfStore *store, Job *job)
{
  g_autoptr (GString) text = NULL;
  const char *problem = NULL;

  if (!job->image) {
    if (unlinkat (store->folder_fd, job->name, 0) != 0 && errno != ENOENT)
      fail (&job->error, errno, store, "/%s: remove", job->name);
    return;
  }
  text = make_text (store, job->image, &problem);
  if (!text)
    g_set_error (&job->error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT, "journal %s/%s: %s", store->folder, job->name, problem);
  else
    replace (store, job, text, &job->error);
}

/* With the lock held, which it gives up meanwhile. NULL: it is time to end, and nothing waits. */
static Job *
next_job (HfStore *store)
{
  Job *job;

  while (g_queue_is_empty (&store->waiting) && !store->ending)
    pthread_cond_wait (&store->wake, &store->lock);
  job = g_queue_pop_head (&store->waiting);
  if (job)
    g_hash_table_remove (store->by_name, job->name);
  return job;
}

static gpointer
writer_main (gpointer data)
{
  HfStore *store = data;
  Job *job;

  pthread_mutex_lock (&store->lock);
  while ((job = next_job (store))) {
    pthread_mutex_unlock (&store->lock);
    run_job (store, job);
    pthread_mutex_lock (&store->lock);
    g_queue_push_tail (&store->finished, job);
    g_source_set_ready_time (store->inbox, 0);
  }
  pthread_mutex_unlock (&store->lock);
  return NULL;
}

/* All signals are blocked in the thread: they are the main thread's. */
static gboolean
start_writer (HfStore *store, GError **error)
{
  sigset_t all, old;
  int result;

  sigfillset (&all);
  pthread_sigmask (SIG_SETMASK, &all, &old);
  result = pthread_create (&store->writer, NULL, writer_main, store);
  pthread_sigmask (SIG_SETMASK, &old, NULL);
  if (result)
    return fail (error, result, store, ": start a thread");
  store->started = TRUE;
  return TRUE;
}

/* ---- what is finished ---- */

static void
tell (Job *job)
{
  if (job->error && job->waiters->len == 0)
    hf_log (HF_LOG_ERROR, "%s", job->error->message);
  for (guint i = 0; i < job->waiters->len; i++) {
    Waiter *waiter = &g_array_index (job->waiters, Waiter, i);

    waiter->done (job->error, waiter->user_data);
  }
  job_free (job);
}

static gboolean
inbox_dispatch (GSource *source, GSourceFunc callback, gpointer user_data)
{
  HfStore *store = ((Inbox *)source)->store;
  GQueue finished;
  Job *job;

  pthread_mutex_lock (&store->lock);
  g_source_set_ready_time (source, -1);
  finished = store->finished;
  g_queue_init (&store->finished);
  pthread_mutex_unlock (&store->lock);
  while ((job = g_queue_pop_head (&finished)))
    tell (job);
  return G_SOURCE_CONTINUE;
}

static GSourceFuncs inbox_functions = { .dispatch = inbox_dispatch };

static void
start_inbox (HfStore *store)
{
  store->inbox = g_source_new (&inbox_functions, sizeof (Inbox));
  ((Inbox *)store->inbox)->store = store;
  g_source_set_name (store->inbox, "store");
  g_source_attach (store->inbox, NULL);
}

/* ---- the folder ---- */

static gboolean
read_boot_id (HfStore *store, GError **error)
{
  g_autofree char *text = NULL;

  if (!g_file_get_contents (BOOT_ID_PATH, &text, NULL, error))
    return FALSE;
  g_strstrip (text);
  if (!g_uuid_string_is_valid (text)) {
    g_set_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA, "%s holds no UUID", BOOT_ID_PATH);
    return FALSE;
  }
  g_strlcpy (store->boot, text, sizeof store->boot);
  return TRUE;
}

static gboolean
open_folder (HfStore *store, GError **error)
{
  g_autoptr (GError) local = NULL;

  if (!hf_dir_make (store->folder, &local)) {
    g_set_error (error, G_IO_ERROR, G_IO_ERROR_FAILED, "journal %s: %s", store->folder, local->message);
    return FALSE;
  }
  store->folder_fd = open (store->folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  return store->folder_fd >= 0 || fail (error, errno, store, ": open");
}

static gboolean
lock_folder (HfStore *store, GError **error)
{
  store->lock_fd = openat (store->folder_fd, LOCK_NAME, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0600);
  if (store->lock_fd < 0)
    return fail (error, errno, store, "/" LOCK_NAME ": open");
  if (flock (store->lock_fd, LOCK_EX | LOCK_NB) == 0)
    return TRUE;
  if (errno != EWOULDBLOCK)
    return fail (error, errno, store, "/" LOCK_NAME ": lock");
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_BUSY, "journal %s: another helper has it", store->folder);
  return FALSE;
}

/* Removes what a killed helper left, and finds out whether files can be made here. */
static gboolean
try_folder (HfStore *store, GError **error)
{
  int fd;

  if (unlinkat (store->folder_fd, UNFINISHED_NAME, 0) != 0 && errno != ENOENT)
    return fail (error, errno, store, "/" UNFINISHED_NAME ": remove");
  fd = openat (store->folder_fd, UNFINISHED_NAME, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0)
    return fail (error, errno, store, ": create a file");
  close (fd);
  return unlinkat (store->folder_fd, UNFINISHED_NAME, 0) == 0 || fail (error, errno, store, ": remove a file");
}

HfStore *
hf_store_new (const char *dir, GError **error)
{
  HfStore *store = g_new0 (HfStore, 1);

  store->folder = g_build_filename (dir, "vms", NULL);
  store->folder_fd = store->lock_fd = -1;
  pthread_mutex_init (&store->lock, NULL);
  pthread_cond_init (&store->wake, NULL);
  g_queue_init (&store->waiting);
  g_queue_init (&store->finished);
  store->by_name = g_hash_table_new (g_str_hash, g_str_equal);
  start_inbox (store);
  if (!read_boot_id (store, error) || !open_folder (store, error) || !lock_folder (store, error) || !try_folder (store, error)
      || !start_writer (store, error))
    g_clear_pointer (&store, hf_store_free);
  return store;
}

void
hf_store_free (HfStore *store)
{
  Job *job;

  if (!store)
    return;
  pthread_mutex_lock (&store->lock);
  store->ending = TRUE;
  pthread_cond_signal (&store->wake);
  pthread_mutex_unlock (&store->lock);
  if (store->started)
    pthread_join (store->writer, NULL);
  g_source_destroy (store->inbox);
  g_source_unref (store->inbox);
  while ((job = g_queue_pop_head (&store->finished))) {
    g_array_set_size (job->waiters, 0);
    tell (job);
  }
  g_hash_table_unref (store->by_name);
  pthread_cond_destroy (&store->wake);
  pthread_mutex_destroy (&store->lock);
  if (store->lock_fd >= 0)
    close (store->lock_fd); /* and unlock */
  if (store->folder_fd >= 0)
    close (store->folder_fd);
  g_free (store->folder);
  g_free (store);
}

/* ---- read ---- */

static char *
name_of (const HfPeer *peer)
{
  return g_strdup_printf ("%d-%" G_GUINT64_FORMAT SUFFIX, (int)peer->pid, peer->start_time);
}

/* TRUE for what name_of gives, and nothing else. */
static gboolean
parse_name (const char *name, HfPeer *ret)
{
  g_auto (GStrv) parts = NULL;
  g_autofree char *stem = NULL, *again = NULL;
  guint64 pid;

  if (!g_str_has_suffix (name, SUFFIX))
    return FALSE;
  stem = g_strndup (name, strlen (name) - strlen (SUFFIX));
  parts = g_strsplit (stem, "-", 3);
  if (g_strv_length (parts) != 2 || !g_ascii_string_to_unsigned (parts[0], 10, 0, G_MAXINT32, &pid, NULL)
      || !g_ascii_string_to_unsigned (parts[1], 10, 0, G_MAXUINT64, &ret->start_time, NULL))
    return FALSE;
  ret->pid = (pid_t)pid;
  again = name_of (ret);
  return g_str_equal (name, again);
}

/* A regular file of length bytes, -1 with errno, or -1 and what is wrong with it. It is looked at before it is opened, because
   opening a device may do something. */
static int
open_image (const HfStore *store, const char *name, gsize *ret_length, const char **ret_problem)
{
  struct stat st;
  int fd;

  if (fstatat (store->folder_fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
    return -1;
  if (!S_ISREG (st.st_mode)) {
    *ret_problem = "not a regular file";
    return -1;
  }
  if (st.st_size > (off_t)(HEADER_LENGTH + HF_STORE_SIZE_MAX + 1)) {
    *ret_problem = "longer than an image can be";
    return -1;
  }
  fd = openat (store->folder_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  *ret_length = (gsize)st.st_size;
  return fd;
}

/* -1 with errno; fewer than length at the end of the file. */
static gssize
read_up_to (int fd, char *buffer, gsize length)
{
  gsize sum = 0;

  while (sum < length) {
    ssize_t n = read (fd, buffer + sum, length - sum);

    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      return -1;
    if (n == 0)
      break;
    sum += (gsize)n;
  }
  return (gssize)sum;
}

static gboolean
is_header (const char *header, gsize length)
{
  return length == HEADER_LENGTH && memcmp (header, HEADER_BOOT, BOOT_AT) == 0
         && memcmp (header + BOOT_AT + BOOT_ID_LENGTH, HEADER_CHECKSUM, sizeof HEADER_CHECKSUM - 1) == 0
         && memcmp (header + END_AT, HEADER_END, sizeof HEADER_END - 1) == 0;
}

/* The image in the second line, or NULL with G_IO_ERROR. */
static HfVmImage *
parse_body (const char *header, const char *body, gsize length, const HfPeer *peer, GError **error)
{
  g_autofree char *checksum = NULL;
  g_autoptr (HfVmImage) image = NULL;

  /* The newline is not the image's. */
  checksum = checksum_of (body, length ? length - 1 : 0);
  if (length == 0 || body[length - 1] != '\n' || memcmp (checksum, header + CHECKSUM_AT, CHECKSUM_LENGTH) != 0) {
    g_set_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA, "the checksum is wrong");
    return NULL;
  }
  image = hf_vm_image_decode (body, length - 1, error);
  if (image && (image->peer.pid != peer->pid || image->peer.start_time != peer->start_time)) {
    g_set_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA, "it is of another VM than its name says");
    return NULL;
  }
  return g_steal_pointer (&image);
}

/* NULL and no error: of another boot. G_IO_ERROR_INVALID_DATA: damaged; other errors: it cannot be read. */
static HfVmImage *
read_image (const HfStore *store, int fd, gsize length, const HfPeer *peer, GError **error)
{
  char header[HEADER_LENGTH];
  gssize n = read_up_to (fd, header, sizeof header);
  g_autofree char *body = NULL;

  if (n >= 0 && !is_header (header, (gsize)n)) {
    g_set_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA, "it does not begin as an image does");
    return NULL;
  }
  if (n >= 0 && memcmp (header + BOOT_AT, store->boot, BOOT_ID_LENGTH) != 0)
    return NULL;
  if (n >= 0) {
    body = g_malloc (length - HEADER_LENGTH + 1);
    n = read_up_to (fd, body, length - HEADER_LENGTH);
  }
  if (n >= 0)
    return parse_body (header, body, (gsize)n, peer, error);
  g_set_error (error, G_IO_ERROR, (int)g_io_error_from_errno (errno), "%s", g_strerror (errno));
  return NULL;
}

static void
set_aside (const HfStore *store, const char *name, const char *why)
{
  g_autofree char *aside = g_strconcat (name, ".damaged", NULL);

  hf_log (HF_LOG_ERROR, "journal %s/%s is damaged: %s; what this VM holds is not known until its guest says it again",
          store->folder, name, why);
  if (renameat (store->folder_fd, name, store->folder_fd, aside) != 0)
    hf_log (HF_LOG_ERROR, "journal %s/%s cannot be renamed: %s", store->folder, name, g_strerror (errno));
}

/* NULL: nothing that counts. */
static HfVmImage *
take_image (const HfStore *store, const char *name, const HfPeer *peer)
{
  g_autoptr (GError) error = NULL;
  const char *problem = NULL;
  HfVmImage *image;
  gsize length;
  int fd = open_image (store, name, &length, &problem);

  if (problem) {
    set_aside (store, name, problem);
    return NULL;
  }
  if (fd < 0) {
    hf_log (HF_LOG_ERROR, "journal %s/%s cannot be read: %s", store->folder, name, g_strerror (errno));
    return NULL;
  }
  image = read_image (store, fd, length, peer, &error);
  close (fd);
  if (image)
    return image;
  if (!error && unlinkat (store->folder_fd, name, 0) != 0)
    hf_log (HF_LOG_WARNING, "journal %s/%s, of another boot, cannot be removed: %s", store->folder, name, g_strerror (errno));
  if (error && g_error_matches (error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA))
    set_aside (store, name, error->message);
  else if (error)
    hf_log (HF_LOG_ERROR, "journal %s/%s cannot be read: %s", store->folder, name, error->message);
  return NULL;
}

static DIR *
open_list (const HfStore *store)
{
  /* A descriptor of its own: closedir closes it, and reading moves it. */
  int fd = openat (store->folder_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *list = fd >= 0 ? fdopendir (fd) : NULL;

  if (fd >= 0 && !list)
    close (fd);
  return list;
}

/* Names first: what is renamed while readdir(3) goes through a folder may come twice. */
static gboolean
read_names (const HfStore *store, GPtrArray *names, GError **error)
{
  DIR *list = open_list (store);
  struct dirent *entry;
  HfPeer peer;
  int saved_errno;

  if (!list)
    return fail (error, errno, store, ": read the folder");
  for (errno = 0; (entry = readdir (list)) && names->len < HF_STORE_VMS_MAX; errno = 0)
    if (parse_name (entry->d_name, &peer))
      g_ptr_array_add (names, g_strdup (entry->d_name));
  saved_errno = entry ? 0 : errno;
  closedir (list);
  if (entry)
    hf_log (HF_LOG_ERROR, "journal %s: more than %d files; the rest is not read", store->folder, HF_STORE_VMS_MAX);
  return !saved_errno || fail (error, saved_errno, store, ": read the folder");
}

GPtrArray *
hf_store_read (HfStore *store, GError **error)
{
  g_autoptr (GPtrArray) images = g_ptr_array_new_with_free_func ((GDestroyNotify)hf_vm_image_free);
  g_autoptr (GPtrArray) names = g_ptr_array_new_with_free_func (g_free);

  if (!read_names (store, names, error))
    return NULL;
  for (guint i = 0; i < names->len; i++) {
    const char *name = g_ptr_array_index (names, i);
    HfVmImage *image;
    HfPeer peer;

    if (parse_name (name, &peer) && (image = take_image (store, name, &peer)))
      g_ptr_array_add (images, image);
  }
  return g_steal_pointer (&images);
}

/* ---- write ---- */

static Job *
job_new (char *name)
{
  Job *job = g_new0 (Job, 1);

  job->name = name;
  job->waiters = g_array_new (FALSE, FALSE, sizeof (Waiter));
  return job;
}

/* image NULL: remove. */
static void
submit (HfStore *store, const HfPeer *peer, HfVmImage *image, gboolean sync, const Waiter *waiter)
{
  char *name = name_of (peer);
  Job *job;

  pthread_mutex_lock (&store->lock);
  job = g_hash_table_lookup (store->by_name, name);
  if (job) {
    hf_vm_image_free (job->image);
    g_free (name);
  } else {
    job = job_new (name);
    g_hash_table_insert (store->by_name, job->name, job);
    g_queue_push_tail (&store->waiting, job);
  }
  job->image = image;
  job->sync |= sync;
  if (waiter->done)
    g_array_append_val (job->waiters, *waiter);
  pthread_cond_signal (&store->wake);
  pthread_mutex_unlock (&store->lock);
}

void
hf_store_write (HfStore *store, HfVmImage *image, gboolean sync, HfStoreDone done, gpointer user_data)
{
  submit (store, &image->peer, image, sync, &(Waiter){ done, user_data });
}

void
hf_store_remove (HfStore *store, const HfPeer *peer)
{
  submit (store, peer, NULL, FALSE, &(Waiter){ NULL, NULL });
}
