/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns NAME.partial from its creation to the rename, and the lock on it. One thread at a time; the two descriptors that it hands
 * out may be written to from any.
 *
 * Theory of operation: three open file descriptions of one inode. The first made the file and carries the lock (OFD, fcntl(2): it
 * belongs to the description, so neither a fork nor the closing of another descriptor loses it); nothing is ever written through
 * it, so it can stay open behind the rename, until the outcome was told. The other two write; they are closed, and the result of
 * close(2) looked at, before the rename.
 *
 * Two writers at once: O_EXCL lets one create NAME.partial. Who finds one there takes its lock first and only then looks whether
 * the name still means this inode: if so, its writer is dead, and only who holds the lock may remove it. Who created one checks
 * the same after locking it, because another may have taken it for a dead one in between.
 */

#include "config.h"

#include "stream/save-file.h"

#include "base/fail.h"
#include "base/file-sync.h"
#include "stream/direct-io.h"

#include <errno.h>
#include <fcntl.h>
#include <holdfast/io.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define ALIGNMENT_MIN 4096u
#define COPY_SIZE (1u << 20)
/* Each round lost means that another writer came by; so many of them is no accident. */
#define ROUNDS_MAX 1000
#define OPEN_FLAGS (O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK)

struct _HfSaveFile {
  char *target, *partial, *folder;
  HfSaveFlags flags;
  int lock_fd, fd, direct_fd, folder_fd; /* -1: closed */
  guint alignment;
  gboolean created; /* NAME.partial is ours and still there */
  gboolean renamed; /* NAME is ours */
  gboolean existed; /* NAME was there; then old is what it was like */
  gboolean planted; /* by whom nobody knows */
  struct stat old;
};

static gboolean
fail_errno (GError **error, int saved_errno, const char *step)
{
  g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE, "%s: %s", step, g_strerror (saved_errno));
  return FALSE;
}

/* The errno that a test asked for at this point; 0: none. */
static int
provoked (const char *when, const char *step)
{
  guint value = 0;

  return hf_fail_point (when, step, FALSE, &value) == HF_FAIL_ERROR ? (int)value : 0;
}

/* fcntl's answer on the whole file. Kind: F_RDLCK to look for a writer, F_WRLCK to become one. */
static int
lock_whole (int fd, int command, short kind, gboolean *ret_held)
{
  struct flock lock = { .l_type = kind, .l_whence = SEEK_SET };

  if (fcntl (fd, command, &lock) != 0)
    return -1;
  if (ret_held)
    *ret_held = lock.l_type != F_UNLCK;
  return 0;
}

/* Does path still mean the inode of fd? */
static gboolean
is_same_file (int fd, const char *path)
{
  struct stat by_fd, by_path;

  return fstat (fd, &by_fd) == 0 && lstat (path, &by_path) == 0 && by_fd.st_dev == by_path.st_dev
         && by_fd.st_ino == by_path.st_ino;
}

static gboolean
require_regular (int fd, const char *what, struct stat *st, GError **error)
{
  if (fstat (fd, st) != 0)
    return fail_errno (error, errno, what);
  if (S_ISREG (st->st_mode))
    return TRUE;
  g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE, "%s: is not a regular file", what);
  return FALSE;
}

/* TRUE: fd has the lock. FALSE without error: another has it. */
static gboolean
try_lock (int fd, GError **error)
{
  if (lock_whole (fd, F_OFD_SETLK, F_WRLCK, NULL) == 0)
    return TRUE;
  if (errno != EAGAIN && errno != EACCES)
    fail_errno (error, errno, "lock the .partial");
  return FALSE;
}

/* What a dead writer left is removed; a living one is an error. */
static gboolean
clear_away (const char *partial, GError **error)
{
  GError *lock_error = NULL;
  struct stat st;
  gboolean ok = TRUE;
  int fd = open (partial, OPEN_FLAGS);

  if (fd < 0)
    return errno == ENOENT ? TRUE : fail_errno (error, errno, "open the .partial that is there");
  if (!require_regular (fd, "the .partial that is there", &st, error)) {
    ok = FALSE;
  } else if (!try_lock (fd, &lock_error)) {
    if (lock_error)
      g_propagate_error (error, lock_error);
    else
      g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_BUSY, "another process is writing the .partial");
    ok = FALSE;
  } else if (is_same_file (fd, partial) && unlink (partial) != 0 && errno != ENOENT) {
    ok = fail_errno (error, errno, "remove the .partial that a dead writer left");
  }
  close (fd);
  return ok;
}

/* A new NAME.partial, locked. -1: error set. */
static int
create_locked (const char *partial, GError **error)
{
  for (guint round = 0; round < ROUNDS_MAX; round++) {
    GError *lock_error = NULL;
    int fd = open (partial, OPEN_FLAGS | O_CREAT | O_EXCL, 0600);

    if (fd < 0 && errno != EEXIST) {
      fail_errno (error, errno, "create the .partial");
      return -1;
    }
    if (fd < 0) {
      if (!clear_away (partial, error))
        return -1;
      continue;
    }
    if (try_lock (fd, &lock_error) && is_same_file (fd, partial))
      return fd;
    if (lock_error) {
      g_propagate_error (error, lock_error);
      unlink (partial);
      close (fd);
      return -1;
    }
    close (fd);
  }
  g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_BUSY, "other processes keep creating and removing the .partial");
  return -1;
}

/* Another open file description of the .partial. -1 with errno. */
static int
open_again (const HfSaveFile *file, int more_flags)
{
  int fd = open (file->partial, (OPEN_FLAGS & ~O_NONBLOCK) | more_flags);
  struct stat a, b;

  if (fd < 0)
    return -1;
  if (fstat (fd, &a) == 0 && fstat (file->lock_fd, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino)
    return fd;
  close (fd);
  errno = ESTALE;
  return -1;
}

/* A file system that has no O_DIRECT (tmpfs: EINVAL) is no error. */
static gboolean
open_writers (HfSaveFile *file, GError **error)
{
  file->fd = open_again (file, 0);
  if (file->fd < 0)
    return fail_errno (error, errno, "open the .partial again");
  file->alignment = MAX (ALIGNMENT_MIN, (guint)sysconf (_SC_PAGESIZE));
  if ((file->flags & HF_SAVE_BUFFERED) != 0)
    return TRUE;
  file->direct_fd = open_again (file, O_DIRECT);
  if (file->direct_fd < 0)
    return errno == ESTALE ? fail_errno (error, errno, "open the .partial with O_DIRECT") : TRUE;
  file->alignment = hf_direct_alignment (file->direct_fd);
  if (file->alignment == 0) {
    close (file->direct_fd);
    file->direct_fd = -1;
    file->alignment = MAX (ALIGNMENT_MIN, (guint)sysconf (_SC_PAGESIZE));
  }
  return TRUE;
}

static gboolean
copy_bytes (int from, int to, guint64 length, GError **error)
{
  g_autofree guint8 *buffer = g_malloc (COPY_SIZE);

  for (guint64 done = 0; done < length;) {
    gsize piece = (gsize)MIN (length - done, COPY_SIZE);

    if (hf_pread_all (from, buffer, piece, (gint64)done, NULL, error) != 0
        || hf_pwrite_all (to, buffer, piece, (gint64)done, NULL, error) != 0)
      return FALSE;
    done += piece;
  }
  return TRUE;
}

static gboolean
copy_prefix (HfSaveFile *file, guint64 prefix, GError **error)
{
  struct stat st;
  gboolean ok;
  int from;

  if (prefix == 0)
    return TRUE;
  from = open (file->target, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK);
  if (from < 0)
    return fail_errno (error, errno, "open the file whose beginning shall stay");
  ok = require_regular (from, "the file whose beginning shall stay", &st, error);
  if (ok && (guint64)st.st_size < prefix) {
    g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE,
                 "%" G_GUINT64_FORMAT " bytes at its beginning shall stay, but it has only %" G_GINT64_FORMAT, prefix,
                 (gint64)st.st_size);
    ok = FALSE;
  }
  /* Asked again of what is open: it may have come since. */
  if (ok && hf_file_may_be_planted (file->target, &st)) {
    g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE,
                 "its beginning shall stay, but another user (uid %u) may have put it there: others may write to its folder",
                 (guint)st.st_uid);
    ok = FALSE;
  }
  ok = ok && copy_bytes (from, file->fd, prefix, error);
  close (from);
  return ok;
}

const char *
hf_save_file_name_problem (const char *path)
{
  g_autofree char *target = hf_file_target (path, NULL);
  const char *name = target ?: path;

  if (g_str_has_suffix (name, ".partial"))
    return "a name that ends in .partial is that of a file that is not complete";
  if (g_str_has_suffix (name, ".status"))
    return "a name that ends in .status is that of the outcome of a capture";
  return NULL;
}

static gboolean
find_target (HfSaveFile *file, const char *path, GError **error)
{
  g_autoptr (GError) cause = NULL;
  const char *problem;

  file->target = hf_file_target (path, &cause);
  if (!file->target) {
    g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE, "%s", cause->message);
    return FALSE;
  }
  problem = hf_save_file_name_problem (file->target);
  if (problem) {
    g_set_error_literal (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE, problem);
    return FALSE;
  }
  file->partial = g_strconcat (file->target, ".partial", NULL);
  file->folder = g_path_get_dirname (file->target);
  file->existed = lstat (file->target, &file->old) == 0;
  file->planted = file->existed && hf_file_may_be_planted (file->target, &file->old);
  return TRUE;
}

/* Before anything else: a folder that may be written to but not be read cannot be synced, which must not turn out behind the
 * rename. */
static gboolean
open_folder (HfSaveFile *file, GError **error)
{
  if ((file->flags & HF_SAVE_NO_SYNC) != 0)
    return TRUE;
  file->folder_fd = open (file->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  return file->folder_fd >= 0 || fail_errno (error, errno, "open the folder, which has to be synced");
}

static gboolean
create (HfSaveFile *file, GError **error)
{
  int wanted = provoked ("before", "stream-create");

  if (wanted != 0)
    return fail_errno (error, wanted, "create the .partial");
  file->lock_fd = create_locked (file->partial, error);
  if (file->lock_fd < 0)
    return FALSE;
  file->created = TRUE;
  wanted = provoked ("after", "stream-create");
  return wanted == 0 || fail_errno (error, wanted, "create the .partial");
}

HfSaveFile *
hf_save_file_new (const char *path, guint64 prefix, HfSaveFlags flags, GError **error)
{
  g_autoptr (HfSaveFile) file = g_new0 (HfSaveFile, 1);

  file->flags = flags;
  file->lock_fd = file->fd = file->direct_fd = file->folder_fd = -1;
  hf_fail_init_once ();
  if (!find_target (file, path, error) || !open_folder (file, error) || !create (file, error) || !open_writers (file, error)
      || !copy_prefix (file, prefix, error))
    return NULL;
  return g_steal_pointer (&file);
}

int
hf_save_file_fd (const HfSaveFile *file)
{
  return file->fd;
}

int
hf_save_file_direct_fd (const HfSaveFile *file)
{
  return file->direct_fd;
}

gboolean
hf_save_file_is_in_place (const HfSaveFile *file)
{
  return file->renamed;
}

guint
hf_save_file_alignment (const HfSaveFile *file)
{
  return file->alignment;
}

/* close(2) tells of write-back errors on NFS and of quotas. It is not repeated: the descriptor is gone in any case. */
static int
close_checked (int *fd)
{
  int old = *fd;

  *fd = -1;
  return old < 0 || close (old) == 0 || errno == EINTR ? 0 : errno;
}

static void
close_writers (HfSaveFile *file)
{
  close_checked (&file->direct_fd);
  close_checked (&file->fd);
}

/* Only what is still ours: nobody else removes it, but a user may. Cut to nothing, because the descriptor with the lock keeps the
   inode, and a full disk must have room for the status. */
void
hf_save_file_discard (HfSaveFile *file)
{
  close_writers (file);
  if (file->created && is_same_file (file->lock_fd, file->partial)) {
    if (ftruncate (file->lock_fd, 0) != 0)
      g_debug ("cut the .partial: %s", g_strerror (errno));
    unlink (file->partial);
  }
  file->created = FALSE;
}

void
hf_save_file_free (HfSaveFile *file)
{
  if (!file)
    return;
  hf_save_file_discard (file);
  close_checked (&file->lock_fd);
  close_checked (&file->folder_fd);
  g_free (file->target);
  g_free (file->partial);
  g_free (file->folder);
  g_free (file);
}

/* As it would be if the old file had been written over. Who put a file there for us to find reads no guest's memory by that. */
static int
keep_attributes (HfSaveFile *file)
{
  mode_t mode = file->old.st_mode & 0777;
  struct stat st;

  if (!file->existed || file->planted)
    return 0;
  if (fstat (file->fd, &st) != 0)
    return errno;
  /* Without the right to give it away, the group's rights would be those of another group. */
  if ((st.st_uid != file->old.st_uid || st.st_gid != file->old.st_gid)
      && fchown (file->fd, file->old.st_uid, file->old.st_gid) != 0)
    mode &= ~(mode_t)070;
  return fchmod (file->fd, mode) == 0 ? 0 : errno;
}

/* The steps of a commit: 0 or an errno. */

static int
step_sync (HfSaveFile *file)
{
  return (file->flags & HF_SAVE_NO_SYNC) != 0 || fdatasync (file->fd) == 0 ? 0 : errno;
}

static int
step_close (HfSaveFile *file)
{
  int direct = close_checked (&file->direct_fd);
  int buffered = close_checked (&file->fd);

  return direct ?: buffered;
}

static int
step_rename (HfSaveFile *file)
{
  if (!is_same_file (file->lock_fd, file->partial))
    return ESTALE;
  if (rename (file->partial, file->target) != 0)
    return errno;
  file->created = FALSE;
  file->renamed = TRUE;
  return 0;
}

static const struct {
  const char *step, *what;
  int (*run) (HfSaveFile *file);
} commit_steps[] = {
  { "stream-sync", "sync the .partial", step_sync },
  { "stream-close", "close the .partial", step_close },
  { "stream-rename", "rename the .partial", step_rename },
};

static int
run_step (HfSaveFile *file, gsize i)
{
  int rc = provoked ("before", commit_steps[i].step);

  rc = rc ?: commit_steps[i].run (file);
  return rc ?: provoked ("after", commit_steps[i].step);
}

/* Behind the rename nothing can be taken back. */
static gboolean
fail_late (GError **error, const char *cause)
{
  g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE,
               "the new file is in place, but a crash of the host may bring the old one back: %s", cause);
  return FALSE;
}

static gboolean
sync_folder (HfSaveFile *file, GError **error)
{
  int wanted;

  if ((file->flags & HF_SAVE_NO_SYNC) != 0)
    return TRUE;
  wanted = provoked ("before", "stream-sync-dir");
  if (wanted != 0)
    return fail_late (error, g_strerror (wanted));
  /* EINVAL: a file system that cannot sync folders, where nothing better can be done. */
  if (fsync (file->folder_fd) != 0 && errno != EINVAL)
    return fail_late (error, g_strerror (errno));
  wanted = provoked ("after", "stream-sync-dir");
  return wanted == 0 || fail_late (error, g_strerror (wanted));
}

static gboolean
prepare (HfSaveFile *file, guint64 length, GError **error)
{
  int rc;

  if (length > G_MAXINT64) {
    g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE, "%" G_GUINT64_FORMAT " bytes are more than a file can have",
                 length);
    return FALSE;
  }
  if (ftruncate (file->fd, (off_t)length) != 0)
    return fail_errno (error, errno, "set the length of the .partial");
  rc = keep_attributes (file);
  return rc == 0 || fail_errno (error, rc, "give the .partial the mode of the file");
}

gboolean
hf_save_file_commit (HfSaveFile *file, guint64 length, GError **error)
{
  if (!prepare (file, length, error)) {
    hf_save_file_discard (file);
    return FALSE;
  }
  for (gsize i = 0; i < G_N_ELEMENTS (commit_steps); i++) {
    int rc = run_step (file, i);

    if (rc != 0 && !file->created)
      return fail_late (error, g_strerror (rc));
    if (rc != 0) {
      fail_errno (error, rc, commit_steps[i].what);
      hf_save_file_discard (file);
      return FALSE;
    }
  }
  return sync_folder (file, error);
}

/* The lock of an open file: TRUE if a writer holds it. */
static gboolean
is_locked (int fd)
{
  gboolean held = FALSE;

  return lock_whole (fd, F_OFD_GETLK, F_RDLCK, &held) == 0 && held;
}

/* Opens path if a writer holds it. A file that is none of ours, or that we may not read, is nobody's. */
static int
open_if_locked (const char *path)
{
  int fd = open (path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK);

  if (fd >= 0 && is_locked (fd))
    return fd;
  if (fd >= 0)
    close (fd);
  return -1;
}

/* FALSE: the name changed while we looked. */
static gboolean
look_once (const char *target, const char *partial, int *watch, HfSaveWriter *ret, GError **error)
{
  int fd = open (partial, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK);

  if (fd < 0 && errno != ENOENT) {
    fail_errno (error, errno, "open the .partial");
    return TRUE;
  }
  if (fd >= 0 && is_locked (fd)) {
    *watch = fd;
    *ret = HF_SAVE_WRITER_ALIVE;
    return TRUE;
  }
  if (fd >= 0) {
    gboolean same = is_same_file (fd, partial);

    close (fd);
    *ret = HF_SAVE_WRITER_DEAD;
    return same;
  }
  *watch = open_if_locked (target);
  *ret = *watch >= 0 ? HF_SAVE_WRITER_ALIVE : HF_SAVE_WRITER_NONE;
  return TRUE;
}

gboolean
hf_save_file_look (const char *path, int *watch, HfSaveWriter *ret, GError **error)
{
  g_autoptr (GError) cause = NULL;
  g_autofree char *target = NULL, *partial = NULL;

  if (*watch >= 0 && is_locked (*watch)) {
    *ret = HF_SAVE_WRITER_ALIVE;
    return TRUE;
  }
  close_checked (watch);
  target = hf_file_target (path, &cause);
  if (!target) {
    g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE, "%s", cause->message);
    return FALSE;
  }
  partial = g_strconcat (target, ".partial", NULL);
  for (guint round = 0; round < ROUNDS_MAX; round++) {
    if (look_once (target, partial, watch, ret, &cause)) {
      if (!cause)
        return TRUE;
      g_propagate_error (error, g_steal_pointer (&cause));
      return FALSE;
    }
  }
  *ret = HF_SAVE_WRITER_DEAD;
  return TRUE;
}
