/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns the bytes of FILE.status, the room for them on the disk, and the wait for them. Any thread; no state.
 *
 * Theory of operation of the room: a disk that is full after a commit would leave a file in place that nobody learns of. So a
 * file without a name gets its blocks before the first byte of the stream is taken; the text is written over them, and the file
 * renamed.
 *
 * Theory of operation of the wait: while a capture lives, it holds the lock of the file that it writes, from before there is
 * anything to see until after the status is written; so a status counts only when nobody has that lock, and a lock that went away
 * without a status is a death. The waiter keeps a descriptor of the file whose lock it saw, because the name is gone or changed
 * by then. A NAME.partial without a lock is a dead one too, but it may also be so young that its lock is still to come: it gets a
 * grace. One that was there at the first look says nothing: it may be an older death, and the capture that will replace it still
 * to begin. Looking every few milliseconds is cheap (three system calls), works on every file system, and cannot miss what a
 * notification would tell about another host's writes.
 */

#include "config.h"

#include "stream/status.h"

#include "base/deadline.h"
#include "base/fail.h"
#include "base/file-sync.h"
#include "base/json-check.h"
#include "stream/save-file.h"

#include <errno.h>
#include <fcntl.h>
#include <holdfast/io.h>
#include <json-glib/json-glib.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define STATUS_VERSION 1
#define BEGINNING "{\"version\":" /* of what encode makes */
#define SIZE_MAX_BYTES (64u << 10)
#define DEPTH_MAX 4u
#define LOOK_EVERY_MS 20
#define GRACE_US (100 * 1000)
#define TEMPORARY ".holdfast-"
#define ROUNDS_MAX 1000
/* What a status without an error has more than an empty one. Whoever fails has given his own room back before he says so. */
#define ROOM_FOR_NUMBERS 1024

static const char *const outcome_names[] = { "committed", "incomplete", "failed", "interrupted", "malformed", "unsupported" };
G_STATIC_ASSERT (G_N_ELEMENTS (outcome_names) == HF_N_STREAM_OUTCOMES);

static const char *const formats[] = { "classic", "mapped-ram", "any", NULL };

const char *
hf_stream_outcome_name (HfStreamOutcome outcome)
{
  g_return_val_if_fail ((guint)outcome < HF_N_STREAM_OUTCOMES, NULL);
  return outcome_names[outcome];
}

void
hf_stream_status_clear (HfStreamStatus *status)
{
  g_free (status->error);
  g_free (status->format);
  g_free (status->id);
  *status = (HfStreamStatus){ 0 };
}

/* Beside the file itself, not beside a link to it, so that all who know the file know its status. What cannot be a file keeps its
   own name: then the status is there to say that. */
static char *
status_path (const char *path)
{
  g_autofree char *target = hf_file_target (path, NULL);

  return g_strconcat (target ?: path, ".status", NULL);
}

static gboolean
fail_errno (GError **error, int saved_errno, const char *step)
{
  g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE, "%s the .status: %s", step, g_strerror (saved_errno));
  return FALSE;
}

static char *
encode (const char *path, const HfStreamStatus *status)
{
  g_autoptr (JsonObject) object = json_object_new ();
  g_autoptr (JsonNode) node = json_node_new (JSON_NODE_OBJECT);
  g_autofree char *name = g_filename_display_name (path);
  g_autofree char *text = NULL;

  json_object_set_int_member (object, "version", STATUS_VERSION);
  json_object_set_string_member (object, "file", name);
  json_object_set_string_member (object, "outcome", outcome_names[status->outcome]);
  if (status->error) {
    g_autofree char *error = g_utf8_make_valid (status->error, -1);
    json_object_set_string_member (object, "error", error);
  } else {
    json_object_set_null_member (object, "error");
  }
  json_object_set_int_member (object, "bytes", (gint64)MIN (status->bytes, (guint64)G_MAXINT64));
  json_object_set_double_member (object, "seconds", status->seconds);
  json_object_set_int_member (object, "time", status->time);
  json_object_set_boolean_member (object, "sync", status->sync);
  json_object_set_boolean_member (object, "complete", status->complete);
  json_object_set_string_member (object, "format", status->format ?: formats[0]);
  if (status->id)
    json_object_set_string_member (object, "id", status->id);
  else
    json_object_set_null_member (object, "id");
  json_node_set_object (node, object);
  text = json_to_string (node, FALSE);
  return g_strconcat (text, "\n", NULL);
}

/* ---- room on the disk ---- */

struct _HfStatusRoom {
  char *folder, *temporary; /* temporary NULL: the file has no name yet, and needs none to go away with us */
  int fd, folder_fd;        /* folder_fd -1: it may not be read, hence not be synced either */
};

void
hf_stream_status_room_free (HfStatusRoom *room)
{
  if (!room)
    return;
  if (room->temporary)
    unlink (room->temporary);
  if (room->fd >= 0)
    close (room->fd);
  if (room->folder_fd >= 0)
    close (room->folder_fd);
  g_free (room->temporary);
  g_free (room->folder);
  g_free (room);
}

/* Not each file system has files without a name (NFS has not); a capture that is killed then leaves this one behind. */
static gboolean
open_room (HfStatusRoom *room)
{
  room->fd = open (room->folder, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
  if (room->fd >= 0)
    return TRUE;
  room->temporary = g_build_filename (room->folder, TEMPORARY "XXXXXX", NULL);
  room->fd = mkostemp (room->temporary, O_CLOEXEC); /* mode 0600 */
  if (room->fd >= 0)
    return TRUE;
  g_clear_pointer (&room->temporary, g_free);
  return FALSE;
}

HfStatusRoom *
hf_stream_status_reserve (const char *path, GError **error)
{
  g_autoptr (HfStatusRoom) room = g_new0 (HfStatusRoom, 1);
  g_autofree char *name = status_path (path);
  const HfStreamStatus shortest = { 0 };
  g_autofree char *text = encode (path, &shortest);
  int rc;

  room->folder = g_path_get_dirname (name);
  room->folder_fd = open (room->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  room->fd = -1;
  if (!open_room (room)) {
    fail_errno (error, errno, "make room for");
    return NULL;
  }
  rc = posix_fallocate (room->fd, 0, (off_t)(strlen (text) + ROOM_FOR_NUMBERS));
  if (rc != 0) {
    fail_errno (error, rc, "make room for");
    return NULL;
  }
  return g_steal_pointer (&room);
}

/* Does what stands at name look like a status? Another file may be called so. A link is one of ours to replace, whatever it leads
 * to. */
static gboolean
check_ours (const char *name, GError **error)
{
  char begin[sizeof BEGINNING - 1];
  gboolean ours;
  struct stat st;
  int fd;

  if (lstat (name, &st) != 0)
    return errno == ENOENT || fail_errno (error, errno, "look at");
  if (S_ISLNK (st.st_mode) || (S_ISREG (st.st_mode) && st.st_size == 0))
    return TRUE;
  ours = S_ISREG (st.st_mode) && st.st_size <= SIZE_MAX_BYTES;
  /* One that we may not read, such as another user's, is judged by its size alone. */
  fd = ours ? open (name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY) : -1;
  if (fd >= 0) {
    ours = read (fd, begin, sizeof begin) == (ssize_t)sizeof begin && memcmp (begin, BEGINNING, sizeof begin) == 0;
    close (fd);
  }
  if (!ours)
    g_set_error_literal (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE,
                         "the .status that is there was not written by a capture, and is not written over");
  return ours;
}

/* Over the room, so that nothing has to be allocated. */
static gboolean
fill_room (const HfStatusRoom *room, const char *text, GError **error)
{
  gsize length = strlen (text);
  g_autoptr (GError) cause = NULL;

  if (!hf_file_write_all (room->fd, text, length, &cause)) {
    g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE, "write the .status: %s", cause->message);
    return FALSE;
  }
  return (ftruncate (room->fd, (off_t)length) == 0 && fsync (room->fd) == 0) || fail_errno (error, errno, "sync");
}

/* A file without a name gets one that nobody has; only then can it replace another. */
static gboolean
name_room (HfStatusRoom *room, GError **error)
{
  g_autofree char *self = g_strdup_printf ("/proc/self/fd/%d", room->fd);

  for (guint round = 0; !room->temporary && round < ROUNDS_MAX; round++) {
    g_autofree char *name = g_strdup_printf ("%s/" TEMPORARY "%06x", room->folder, g_random_int () & 0xffffff);

    if (linkat (AT_FDCWD, self, AT_FDCWD, name, AT_SYMLINK_FOLLOW) == 0)
      room->temporary = g_steal_pointer (&name);
    else if (errno != EEXIST)
      break;
  }
  return room->temporary || fail_errno (error, errno, "name");
}

static gboolean
use_room (HfStatusRoom *room, const char *name, const char *text, GError **error)
{
  if (!fill_room (room, text, error) || !name_room (room, error))
    return FALSE;
  /* The name may be a link, in a folder where others put links: it is replaced, not followed. */
  if (rename (room->temporary, name) != 0)
    return fail_errno (error, errno, "rename");
  g_clear_pointer (&room->temporary, g_free);
  /* EINVAL: a file system that cannot sync folders, where nothing better can be done. */
  return room->folder_fd < 0 || fsync (room->folder_fd) == 0 || errno == EINVAL
         || fail_errno (error, errno, "sync the folder of");
}

/* Whatever the room could not be used for (a name without /proc, for one) is tried without it. */
static gboolean
put_status (const char *name, const char *text, HfStatusRoom *room, GError **error)
{
  g_autoptr (HfStatusRoom) ours = room;
  g_autoptr (GError) cause = NULL;

  if (ours && use_room (ours, name, text, &cause))
    return TRUE;
  if (cause)
    g_debug ("%s", cause->message);
  g_clear_error (&cause);
  g_clear_pointer (&ours, hf_stream_status_room_free);
  if (hf_file_replace_name (name, text, strlen (text), &cause))
    return TRUE;
  g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE, "write the .status: %s", cause->message);
  return FALSE;
}

gboolean
hf_stream_status_remove (const char *path, GError **error)
{
  g_autofree char *name = status_path (path);

  if (!check_ours (name, error))
    return FALSE;
  if (unlink (name) == 0 || errno == ENOENT)
    return TRUE;
  g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE, "remove the old .status: %s", g_strerror (errno));
  return FALSE;
}

gboolean
hf_stream_status_write (const char *path, const HfStreamStatus *status, HfStatusRoom *room, GError **error)
{
  g_autoptr (HfStatusRoom) ours = room;
  g_autofree char *name = status_path (path);
  g_autofree char *text = encode (path, status);
  guint wanted = 0;

  if (hf_fail_point ("before", "stream-status", FALSE, &wanted) == HF_FAIL_ERROR)
    return fail_errno (error, (int)wanted, "write");
  if (!check_ours (name, error) || !put_status (name, text, g_steal_pointer (&ours), error))
    return FALSE;
  return hf_fail_point ("after", "stream-status", FALSE, &wanted) != HF_FAIL_ERROR || fail_errno (error, (int)wanted, "write");
}

static gboolean
refuse (GError **error, const char *why)
{
  g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_MALFORMED, "the .status: %s", why);
  return FALSE;
}

/* The member, if it is a plain value of this type; else NULL. */
static JsonNode *
value_of (JsonObject *object, const char *name, GType type)
{
  JsonNode *node = json_object_get_member (object, name);

  return node && JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == type ? node : NULL;
}

static gboolean
take_outcome (const char *name, HfStreamOutcome *ret)
{
  for (guint i = 0; i < HF_N_STREAM_OUTCOMES; i++)
    if (g_str_equal (name, outcome_names[i])) {
      *ret = (HfStreamOutcome)i;
      return TRUE;
    }
  return FALSE;
}

static gboolean
take_members (JsonObject *object, HfStreamStatus *ret, GError **error)
{
  JsonNode *version = value_of (object, "version", G_TYPE_INT64), *outcome = value_of (object, "outcome", G_TYPE_STRING);
  JsonNode *bytes = value_of (object, "bytes", G_TYPE_INT64), *time = value_of (object, "time", G_TYPE_INT64);
  JsonNode *sync = value_of (object, "sync", G_TYPE_BOOLEAN), *complete = value_of (object, "complete", G_TYPE_BOOLEAN);
  JsonNode *format = value_of (object, "format", G_TYPE_STRING), *text = value_of (object, "error", G_TYPE_STRING);
  JsonNode *id = value_of (object, "id", G_TYPE_STRING);
  JsonNode *seconds = value_of (object, "seconds", G_TYPE_DOUBLE);
  JsonNode *error_node = json_object_get_member (object, "error");
  HfStreamStatus status = { 0 };

  if (!version || json_node_get_int (version) != STATUS_VERSION)
    return refuse (error, "the version is not 1");
  if (!outcome || !take_outcome (json_node_get_string (outcome), &status.outcome))
    return refuse (error, "the outcome is unknown");
  seconds = seconds ?: value_of (object, "seconds", G_TYPE_INT64);
  if (!bytes || json_node_get_int (bytes) < 0 || !seconds || !time || !sync || !complete)
    return refuse (error, "a member is missing or of another type");
  if (!format || !g_strv_contains (formats, json_node_get_string (format)))
    return refuse (error, "the format is unknown");
  if (!text && !(error_node && JSON_NODE_HOLDS_NULL (error_node)))
    return refuse (error, "the error is neither a text nor null");
  if ((text == NULL) != (status.outcome == HF_OUTCOME_COMMITTED))
    return refuse (error, "outcome and error contradict each other");

  status.error = text ? g_strdup (json_node_get_string (text)) : NULL;
  status.bytes = (guint64)json_node_get_int (bytes);
  status.seconds = json_node_get_double (seconds);
  status.time = json_node_get_int (time);
  status.sync = json_node_get_boolean (sync);
  status.complete = json_node_get_boolean (complete);
  status.format = g_strdup (json_node_get_string (format));
  status.id = id ? g_strdup (json_node_get_string (id)) : NULL;
  *ret = status;
  return TRUE;
}

static gboolean
decode (const char *text, gsize length, HfStreamStatus *ret, GError **error)
{
  g_autoptr (JsonParser) parser = json_parser_new ();
  const char *problem = NULL;
  JsonNode *root;

  if (!hf_json_check (text, length, DEPTH_MAX, &problem))
    return refuse (error, problem);
  if (!json_parser_load_from_data (parser, text, (gssize)length, NULL))
    return refuse (error, "it is no JSON");
  root = json_parser_get_root (parser);
  if (!root || !JSON_NODE_HOLDS_OBJECT (root))
    return refuse (error, "it is no JSON object");
  return take_members (json_node_get_object (root), ret, error);
}

static gboolean
read_open (int fd, HfStreamStatus *ret, GError **error)
{
  g_autofree char *text = NULL;
  g_autoptr (GError) cause = NULL;
  struct stat st;

  if (fstat (fd, &st) != 0)
    return fail_errno (error, errno, "look at");
  if (!S_ISREG (st.st_mode))
    return refuse (error, "it is not a regular file");
  if (st.st_size > SIZE_MAX_BYTES)
    return refuse (error, "it is larger than 64 KiB");
  text = g_malloc ((gsize)st.st_size + 1);
  if (hf_pread_all (fd, text, (gsize)st.st_size, 0, NULL, &cause) != 0) {
    g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE, "the .status: %s", cause->message);
    return FALSE;
  }
  return decode (text, (gsize)st.st_size, ret, error);
}

/* *ret_missing: there is none; then it is no error. */
static gboolean
read_if_there (const char *path, HfStreamStatus *ret, gboolean *ret_missing, GError **error)
{
  g_autofree char *name = status_path (path);
  int fd = open (name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  gboolean ok;

  *ret_missing = fd < 0 && errno == ENOENT;
  if (fd < 0)
    return *ret_missing || fail_errno (error, errno, "open");
  ok = read_open (fd, ret, error);
  close (fd);
  return ok;
}

gboolean
hf_stream_status_read (const char *path, HfStreamStatus *ret, GError **error)
{
  gboolean missing = FALSE;

  if (!read_if_there (path, ret, &missing, error))
    return FALSE;
  return !missing || fail_errno (error, ENOENT, "open");
}

typedef enum { LOOK_AGAIN, LOOK_DONE, LOOK_FAILED } Look;

typedef struct {
  HfStreamWait *wait;
  int watch;         /* of the capture that was seen, -1: none */
  gboolean seen;     /* one was alive */
  gboolean fresh;    /* not only what was dead at the first look was seen */
  gint64 dead_since; /* 0: not */
  gint64 idle_since; /* none of ours is alive */
  HfSaveWriter writer;
} Waiter;

/* *ret_there: there is the outcome that is waited for. */
static gboolean
read_outcome (const char *path, const Waiter *waiter, HfStreamStatus *ret, gboolean *ret_there, gboolean *ret_other,
              GError **error)
{
  const char *id = waiter->wait->id;
  gboolean missing;

  *ret_there = *ret_other = FALSE;
  if (!read_if_there (path, ret, &missing, error))
    return FALSE;
  *ret_other = !missing && id && g_strcmp0 (ret->id, id) != 0;
  *ret_there = !missing && !*ret_other;
  if (*ret_other)
    hf_stream_status_clear (ret);
  return TRUE;
}

static Look
look_dead (Waiter *waiter, GError **error)
{
  gint64 now = g_get_monotonic_time ();

  waiter->dead_since = waiter->dead_since ?: now;
  if (!waiter->fresh || now - waiter->dead_since < GRACE_US)
    return LOOK_AGAIN;
  g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_INCOMPLETE,
               "the capture died without a word; what it wrote is left in the .partial");
  return LOOK_FAILED;
}

static Look
look_alive (Waiter *waiter)
{
  waiter->seen = waiter->fresh = TRUE;
  waiter->dead_since = 0;
  waiter->idle_since = g_get_monotonic_time ();
  return LOOK_AGAIN;
}

static Look
look (const char *path, Waiter *waiter, HfStreamStatus *ret, GError **error)
{
  gboolean there = FALSE, other = FALSE;

  if (!hf_save_file_look (path, &waiter->watch, &waiter->writer, error))
    return LOOK_FAILED;
  if (waiter->writer == HF_SAVE_WRITER_ALIVE)
    return look_alive (waiter);
  /* A dead one's leftover outweighs the status of the capture before it, unless that is ours by name. */
  if ((waiter->writer == HF_SAVE_WRITER_NONE || waiter->wait->id) && !read_outcome (path, waiter, ret, &there, &other, error))
    return LOOK_FAILED;
  if (there)
    return LOOK_DONE;
  if (waiter->writer == HF_SAVE_WRITER_DEAD)
    return look_dead (waiter, error);
  waiter->dead_since = 0;
  waiter->fresh = TRUE;
  /* What was alive was another's, and has said so. */
  waiter->seen = waiter->seen && !other;
  if (!waiter->seen)
    return LOOK_AGAIN;
  g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_INCOMPLETE, "the capture died without a word");
  return LOOK_FAILED;
}

/* When to give up, as far as is known now. */
static gint64
find_end (const Waiter *waiter)
{
  gint64 end = waiter->wait->deadline ?: G_MAXINT64;
  gint64 start = waiter->idle_since + (gint64)waiter->wait->start_timeout_ms * 1000;

  return waiter->writer == HF_SAVE_WRITER_ALIVE || waiter->wait->start_timeout_ms == 0 ? end : MIN (end, start);
}

static gboolean
check_deadline (const Waiter *waiter, gint64 end, GError **error)
{
  if (g_get_monotonic_time () < end)
    return TRUE;
  waiter->wait->late = TRUE;
  if (waiter->writer == HF_SAVE_WRITER_ALIVE)
    g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_BUSY, "the capture is still under way");
  else if (waiter->writer == HF_SAVE_WRITER_DEAD)
    g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_INCOMPLETE,
                 "no capture of it has begun since, and the .partial that is there was left by one that died");
  else
    g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE, "no capture of it%s has begun, and there is no .status%s",
                 waiter->wait->id ? " with this id" : "", waiter->wait->id ? " of one" : "");
  return FALSE;
}

static void
pause_a_little (const HfStreamJob *job, gint64 end)
{
  struct pollfd interrupt = { .fd = job ? job->interrupt_fd : -1, .events = POLLIN };
  int left = end == G_MAXINT64 ? LOOK_EVERY_MS : hf_deadline_left_ms (end);

  (void)poll (&interrupt, 1, MIN (left, LOOK_EVERY_MS));
}

gboolean
hf_stream_status_wait (const char *path, HfStreamWait *wait, const HfStreamJob *job, HfStreamStatus *ret, GError **error)
{
  HfStreamJob silent = { .interrupt_fd = job ? job->interrupt_fd : -1 };
  Waiter waiter = { .wait = wait, .watch = -1, .idle_since = g_get_monotonic_time () };
  Look result;

  while ((result = look (path, &waiter, ret, error)) == LOOK_AGAIN) {
    gint64 end = find_end (&waiter);

    if (!hf_stream_job_step (&silent, 0, 0, error) || !check_deadline (&waiter, end, error)) {
      result = LOOK_FAILED;
      break;
    }
    pause_a_little (&silent, end);
  }
  if (waiter.watch >= 0)
    close (waiter.watch);
  return result == LOOK_DONE;
}
