/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A save file appears whole or not at all, whoever else writes it and whatever fails.
 */
#include "config.h"

#include "stream/save-file.h"

#include "base/fail.h"
#include "base/file-sync.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <holdfast/io.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct {
  char *folder, *path, *partial;
} Place;

static void
place_set_up (Place *place, gconstpointer data)
{
  (void)data;
  place->folder = g_dir_make_tmp ("holdfast-save-XXXXXX", NULL);
  g_assert_nonnull (place->folder);
  place->path = g_build_filename (place->folder, "vm.hf", NULL);
  place->partial = g_strconcat (place->path, ".partial", NULL);
}

static void
place_tear_down (Place *place, gconstpointer data)
{
  g_autoptr (GDir) dir = g_dir_open (place->folder, 0, NULL);
  const char *name;

  (void)data;
  g_assert_true (hf_fail_set (NULL, NULL));
  while ((name = g_dir_read_name (dir))) {
    g_autofree char *path = g_build_filename (place->folder, name, NULL);
    g_assert_cmpint (g_remove (path), ==, 0);
  }
  g_assert_cmpint (g_rmdir (place->folder), ==, 0);
  g_free (place->folder);
  g_free (place->path);
  g_free (place->partial);
}

static void
put (const char *path, const char *text)
{
  g_assert_true (g_file_set_contents (path, text, -1, NULL));
}

static void
assert_contents (const char *path, const char *text)
{
  g_autofree char *contents = NULL;
  gsize length = 0;

  g_assert_true (g_file_get_contents (path, &contents, &length, NULL));
  g_assert_cmpmem (contents, length, text, strlen (text));
}

static gboolean
exists (const char *path)
{
  struct stat st;
  return lstat (path, &st) == 0;
}

static guint
mode_of (const char *path)
{
  struct stat st;
  g_assert_cmpint (stat (path, &st), ==, 0);
  return st.st_mode & 07777;
}

static HfSaveFile *
new_file (const char *path, guint64 prefix, const char *text)
{
  g_autoptr (GError) error = NULL;
  HfSaveFile *file = hf_save_file_new (path, prefix, HF_SAVE_DEFAULT, &error);

  g_assert_no_error (error);
  g_assert_nonnull (file);
  g_assert_cmpint (hf_pwrite_all (hf_save_file_fd (file), text, strlen (text), (gint64)prefix, NULL, &error), ==, 0);
  g_assert_no_error (error);
  return file;
}

static void
test_commit (Place *place, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (HfSaveFile) file = new_file (place->path, 0, "new memory");

  (void)data;
  g_assert_true (exists (place->partial));
  g_assert_cmpuint (mode_of (place->partial), ==, 0600);
  g_assert_false (exists (place->path));
  g_assert_true (hf_save_file_commit (file, 3, &error));
  g_assert_no_error (error);
  g_assert_false (exists (place->partial));
  assert_contents (place->path, "new");
  g_assert_cmpuint (mode_of (place->path), ==, 0600);
}

static void
test_extend (Place *place, gconstpointer data)
{
  g_autoptr (HfSaveFile) file = new_file (place->path, 0, "x");
  struct stat st;

  (void)data;
  g_assert_true (hf_save_file_commit (file, 1u << 20, NULL));
  g_assert_cmpint (stat (place->path, &st), ==, 0);
  g_assert_cmpint (st.st_size, ==, 1 << 20);
}

/* An odd umask must not make it more open, nor the mode of the old file be lost. */
static void
test_mode_is_kept (Place *place, gconstpointer data)
{
  g_autoptr (HfSaveFile) file = NULL;

  (void)data;
  put (place->path, "old");
  g_assert_cmpint (g_chmod (place->path, 0640), ==, 0);
  file = new_file (place->path, 0, "new");
  g_assert_cmpuint (mode_of (place->partial), ==, 0600);
  g_assert_true (hf_save_file_commit (file, 3, NULL));
  g_assert_cmpuint (mode_of (place->path), ==, 0640);
}

static void
test_free_keeps_the_old (Place *place, gconstpointer data)
{
  (void)data;
  put (place->path, "old");
  hf_save_file_free (new_file (place->path, 0, "new"));
  assert_contents (place->path, "old");
  g_assert_false (exists (place->partial));
  hf_save_file_free (NULL);
}

static void
test_prefix (Place *place, gconstpointer data)
{
  g_autoptr (HfSaveFile) file = NULL;

  (void)data;
  put (place->path, "header|old payload that is longer");
  file = new_file (place->path, 7, "new payload");
  g_assert_true (hf_save_file_commit (file, 18, NULL));
  assert_contents (place->path, "header|new payload");
}

static void
test_prefix_refused (Place *place, gconstpointer data)
{
  g_autoptr (GError) error = NULL;

  (void)data;
  g_assert_null (hf_save_file_new (place->path, 7, HF_SAVE_DEFAULT, &error));
  g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE);
  g_clear_error (&error);
  put (place->path, "header");
  g_assert_null (hf_save_file_new (place->path, 7, HF_SAVE_DEFAULT, &error));
  g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE);
  assert_contents (place->path, "header");
  g_assert_false (exists (place->partial));
}

/* The link stays a link; what it points to is replaced, in its own folder. */
static void
test_symlink (Place *place, gconstpointer data)
{
  g_autofree char *link = g_build_filename (place->folder, "link", NULL);
  g_autoptr (HfSaveFile) file = NULL;

  (void)data;
  put (place->path, "old");
  g_assert_cmpint (symlink ("vm.hf", link), ==, 0);
  file = new_file (link, 0, "new");
  g_assert_true (exists (place->partial));
  g_assert_true (hf_save_file_commit (file, 3, NULL));
  g_assert_true (g_file_test (link, G_FILE_TEST_IS_SYMLINK));
  assert_contents (place->path, "new");
}

/* ---- a folder where others may put what they like. Only root can make what belongs to another user; who is not root tests that
   his own files and links are none of that. ---- */

#define SOMEBODY 65534

static const guint shared_modes[] = { 01777, 0777, 01770, 0775, 01757 };

static uid_t
foreign_uid (void)
{
  return geteuid () == 0 ? SOMEBODY : geteuid ();
}

/* What this process may do to a file of its own, and root to any. */
static void
give (const char *path)
{
  g_assert_cmpint (lchown (path, foreign_uid (), getegid ()), ==, 0);
}

static void
save (const char *path)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (HfSaveFile) file = new_file (path, 0, "new");

  g_assert_true (hf_save_file_commit (file, 3, &error));
  g_assert_no_error (error);
}

static void
assert_owner (const char *path, uid_t uid, guint mode)
{
  struct stat st;

  g_assert_cmpint (lstat (path, &st), ==, 0);
  g_assert_cmpuint (st.st_uid, ==, uid);
  g_assert_cmpuint (st.st_mode & 07777, ==, mode);
}

/* root's /any/file is not replaced because somebody made a link to it in /var/tmp. */
static void
test_planted_link (Place *place, gconstpointer data)
{
  gboolean foreign = geteuid () == 0;
  g_autofree char *target = g_build_filename (place->folder, "precious", NULL);

  (void)data;
  put (target, "old");
  g_assert_cmpint (symlink ("precious", place->path), ==, 0);
  give (place->path);
  for (guint i = 0; i < G_N_ELEMENTS (shared_modes); i++) {
    g_autoptr (GError) error = NULL;
    g_autoptr (HfSaveFile) file = NULL;

    g_assert_cmpint (g_chmod (place->folder, (int)shared_modes[i]), ==, 0);
    file = hf_save_file_new (place->path, 0, HF_SAVE_DEFAULT, &error);
    g_assert_true ((file == NULL) == foreign);
    if (foreign) {
      g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE);
      g_assert_nonnull (strstr (error->message, "another user (uid 65534)"));
    }
    g_clear_pointer (&file, hf_save_file_free);
    /* The same for a record of holdfast save -o. */
    g_assert_true (hf_file_replace (place->path, foreign ? "new" : "old", 3, NULL) == !foreign);
    assert_contents (target, "old");
  }
  /* Where only the folder's owner can have put it, and where the folder is somebody's who may lead his own names where he likes.
   */
  g_assert_cmpint (g_chmod (place->folder, 0755), ==, 0);
  save (place->path);
  assert_contents (target, "new");
  put (target, "old");
  g_assert_cmpint (g_chmod (place->folder, 01777), ==, 0);
  give (place->folder);
  save (place->path);
  assert_contents (target, "new");
}

/* Also a link behind a link, which is our own. */
static void
test_planted_link_behind_a_link (Place *place, gconstpointer data)
{
  g_autofree char *other = g_build_filename (place->folder, "shared", NULL);
  g_autofree char *planted = g_build_filename (other, "vm", NULL), *target = g_build_filename (place->folder, "precious", NULL);
  g_autoptr (HfSaveFile) file = NULL;

  (void)data;
  put (target, "old");
  g_assert_cmpint (g_mkdir (other, 0700), ==, 0);
  g_assert_cmpint (g_chmod (other, 01777), ==, 0);
  g_assert_cmpint (symlink ("../precious", planted), ==, 0);
  g_assert_cmpint (symlink ("shared/vm", place->path), ==, 0);
  give (planted);
  file = hf_save_file_new (place->path, 0, HF_SAVE_DEFAULT, NULL);
  g_assert_true ((file == NULL) == (geteuid () == 0));
  assert_contents (target, "old");
  g_assert_cmpint (g_remove (planted), ==, 0);
}

/* Who made the file for us to find would own the guest's memory. */
static void
test_planted_file (Place *place, gconstpointer data)
{
  gboolean foreign = geteuid () == 0;

  (void)data;
  for (guint i = 0; i < G_N_ELEMENTS (shared_modes); i++) {
    g_autoptr (GError) error = NULL;
    g_autoptr (HfSaveFile) file = NULL;

    g_assert_cmpint (g_chmod (place->folder, (int)shared_modes[i]), ==, 0);
    put (place->path, "planted");
    g_assert_cmpint (g_chmod (place->path, 0666), ==, 0);
    give (place->path);
    file = hf_save_file_new (place->path, 4, HF_SAVE_DEFAULT, &error);
    g_assert_true ((file == NULL) == foreign);
    if (foreign)
      g_assert_nonnull (strstr (error->message, "its beginning shall stay, but another user (uid 65534)"));
    g_clear_pointer (&file, hf_save_file_free);
    save (place->path);
    assert_contents (place->path, "new");
    assert_owner (place->path, geteuid (), foreign ? 0600 : 0666);
    g_assert_cmpint (g_remove (place->path), ==, 0);
  }
}

/* Nor a second name for a file of ours that all may read. */
static void
test_planted_hard_link (Place *place, gconstpointer data)
{
  g_autofree char *readable = g_build_filename (place->folder, "readable", NULL);

  (void)data;
  put (readable, "old");
  g_assert_cmpint (g_chmod (readable, 0644), ==, 0);
  g_assert_cmpint (link (readable, place->path), ==, 0);
  g_assert_cmpint (g_chmod (place->folder, 01777), ==, 0);
  save (place->path);
  assert_owner (place->path, geteuid (), 0600);
  assert_contents (readable, "old");
}

/* What libvirt relies on: root replaces a file that it had given to QEMU's user, in a folder that only root may write. */
static void
test_owner_is_kept (Place *place, gconstpointer data)
{
  static const guint modes[] = { 0700, 0711, 0755, 01755 };

  (void)data;
  for (guint i = 0; i < G_N_ELEMENTS (modes); i++) {
    g_assert_cmpint (g_chmod (place->folder, (int)modes[i]), ==, 0);
    put (place->path, "old");
    g_assert_cmpint (g_chmod (place->path, 0640), ==, 0);
    give (place->path);
    save (place->path);
    assert_owner (place->path, foreign_uid (), 0640);
    g_assert_cmpint (g_remove (place->path), ==, 0);
  }
}

static void
test_refused_targets (Place *place, gconstpointer data)
{
  static const char *const names[] = { ".", "fifo", "dangling" };
  g_autofree char *fifo = g_build_filename (place->folder, "fifo", NULL);
  g_autofree char *dangling = g_build_filename (place->folder, "dangling", NULL);

  (void)data;
  g_assert_cmpint (mkfifo (fifo, 0600), ==, 0);
  g_assert_cmpint (symlink ("nowhere", dangling), ==, 0);
  for (gsize i = 0; i < G_N_ELEMENTS (names); i++) {
    g_autoptr (GError) error = NULL;
    g_autofree char *path = g_build_filename (place->folder, names[i], NULL);

    g_assert_null (hf_save_file_new (path, 0, HF_SAVE_DEFAULT, &error));
    g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE);
  }
}

/* A link or a fifo called NAME.partial is nobody's leftover: it is neither followed nor removed. */
static void
test_strange_partial (Place *place, gconstpointer data)
{
  g_autofree char *victim = g_build_filename (place->folder, "victim", NULL);

  (void)data;
  put (victim, "precious");
  for (guint i = 0; i < 2; i++) {
    g_autoptr (GError) error = NULL;

    g_assert_cmpint (i == 0 ? symlink ("victim", place->partial) : mkfifo (place->partial, 0600), ==, 0);
    g_assert_null (hf_save_file_new (place->path, 0, HF_SAVE_DEFAULT, &error));
    g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE);
    assert_contents (victim, "precious");
    g_assert_cmpint (g_unlink (place->partial), ==, 0);
  }
}

static void
test_dead_partial_is_replaced (Place *place, gconstpointer data)
{
  g_autoptr (HfSaveFile) file = NULL;

  (void)data;
  put (place->partial, "what a dead writer left, much longer than the new one");
  file = new_file (place->path, 0, "new");
  g_assert_true (hf_save_file_commit (file, 6, NULL));
  g_assert_cmpint (g_unlink (place->path), ==, 0);
}

static void
test_busy (Place *place, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (HfSaveFile) file = new_file (place->path, 0, "new");

  (void)data;
  g_assert_null (hf_save_file_new (place->path, 0, HF_SAVE_DEFAULT, &error));
  g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_BUSY);
  g_assert_true (exists (place->partial));
  g_assert_true (hf_save_file_commit (file, 3, NULL));
  assert_contents (place->path, "new");
}

/* Writers that start at once over a dead one's leftover: never two alive, and never a mixture. */

#define RACERS 4
#define RACES 25

typedef struct {
  const char *path;
  gint *alive;
  guint won, busy;
} Racer;

static gpointer
race (gpointer data)
{
  Racer *racer = data;

  while (racer->won < RACES) {
    g_autoptr (GError) error = NULL;
    g_autoptr (HfSaveFile) file = hf_save_file_new (racer->path, 0, HF_SAVE_NO_SYNC, &error);

    if (!file) {
      g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_BUSY);
      racer->busy++;
      g_thread_yield ();
      continue;
    }
    g_assert_cmpint (g_atomic_int_add (racer->alive, 1), ==, 0);
    g_assert_cmpint (hf_pwrite_all (hf_save_file_fd (file), "race", 4, 0, NULL, NULL), ==, 0);
    g_atomic_int_add (racer->alive, -1);
    if (racer->won % 2 == 0)
      g_assert_true (hf_save_file_commit (file, 4, NULL));
    racer->won++;
  }
  return NULL;
}

static void
test_race (Place *place, gconstpointer data)
{
  Racer racers[RACERS];
  GThread *threads[RACERS];
  gint alive = 0;
  guint busy = 0;

  (void)data;
  put (place->partial, "left");
  for (guint i = 0; i < RACERS; i++) {
    racers[i] = (Racer){ place->path, &alive, 0, 0 };
    threads[i] = g_thread_new ("racer", race, &racers[i]);
  }
  for (guint i = 0; i < RACERS; i++) {
    g_thread_join (threads[i]);
    busy += racers[i].busy;
  }
  g_test_message ("%u times another one was first", busy);
  g_assert_false (exists (place->partial));
  assert_contents (place->path, "race");
}

/* Whatever fails before the rename: the old file is whole, nothing is left behind, and it can be tried again. */
static void
test_failed_steps (Place *place, gconstpointer data)
{
  static const char *const points[] = { "before-stream-create", "after-stream-create", "before-stream-sync",  "after-stream-sync",
                                        "before-stream-close",  "after-stream-close",  "before-stream-rename" };

  (void)data;
  put (place->path, "old");
  for (gsize i = 0; i < G_N_ELEMENTS (points); i++) {
    g_autoptr (GError) error = NULL;
    g_autofree char *specification = g_strconcat (points[i], "=error:ENOSPC", NULL);
    g_autoptr (HfSaveFile) file = NULL;

    g_assert_true (hf_fail_set (specification, NULL));
    file = hf_save_file_new (place->path, 0, HF_SAVE_DEFAULT, &error);
    if (file) {
      g_assert_cmpint (hf_pwrite_all (hf_save_file_fd (file), "new", 3, 0, NULL, NULL), ==, 0);
      g_assert_false (hf_save_file_commit (file, 3, &error));
    }
    g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE);
    g_assert_nonnull (strstr (error->message, g_strerror (ENOSPC)));
    g_assert_false (exists (place->partial));
    assert_contents (place->path, "old");
  }
}

/* Behind the rename the file is the new one, and the error says so. */
static void
test_failed_late_steps (Place *place, gconstpointer data)
{
  static const char *const points[] = { "after-stream-rename", "before-stream-sync-dir", "after-stream-sync-dir" };

  (void)data;
  for (gsize i = 0; i < G_N_ELEMENTS (points); i++) {
    g_autoptr (GError) error = NULL;
    g_autofree char *specification = g_strconcat (points[i], "=error:EIO", NULL);
    g_autoptr (HfSaveFile) file = NULL;

    put (place->path, "old");
    g_assert_true (hf_fail_set (specification, NULL));
    file = new_file (place->path, 0, "new");
    g_assert_false (hf_save_file_commit (file, 3, &error));
    g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE);
    g_assert_nonnull (strstr (error->message, "the new file is in place"));
    g_assert_false (exists (place->partial));
    assert_contents (place->path, "new");
  }
}

/* Without sync none of the two steps is reached. */
static void
test_no_sync (Place *place, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (HfSaveFile) file = NULL;

  (void)data;
  g_assert_true (hf_fail_set ("before-stream-sync-dir=error:EIO", NULL));
  file = hf_save_file_new (place->path, 0, HF_SAVE_NO_SYNC | HF_SAVE_BUFFERED, &error);
  g_assert_no_error (error);
  g_assert_cmpint (hf_save_file_direct_fd (file), ==, -1);
  g_assert_true (hf_save_file_commit (file, 0, &error));
  g_assert_no_error (error);
  assert_contents (place->path, "");
}

/* Somebody took the .partial away: what is there now is not ours, and must become neither NAME nor rubbish. */
static void
test_partial_was_replaced (Place *place, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  HfSaveFile *file = new_file (place->path, 0, "new");

  (void)data;
  g_assert_cmpint (g_unlink (place->partial), ==, 0);
  put (place->partial, "foreign");
  g_assert_false (hf_save_file_commit (file, 3, &error));
  g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE);
  hf_save_file_free (file);
  assert_contents (place->partial, "foreign");
  g_assert_false (exists (place->path));
}

static void
test_descriptors (Place *place, gconstpointer data)
{
  g_autoptr (HfSaveFile) file = new_file (place->path, 0, "new");
  guint alignment = hf_save_file_alignment (file);

  (void)data;
  g_assert_cmpuint (alignment & (alignment - 1), ==, 0);
  g_assert_cmpuint (alignment, >=, (guint)sysconf (_SC_PAGESIZE));
  g_assert_cmpuint (alignment, <=, 65536);
  if (hf_save_file_direct_fd (file) >= 0) {
    gpointer block = NULL;
    g_autoptr (GError) error = NULL;

    g_assert_cmpint (posix_memalign (&block, alignment, alignment), ==, 0);
    memset (block, 'd', alignment);
    g_assert_cmpint (hf_pwrite_all (hf_save_file_direct_fd (file), block, alignment, alignment, NULL, &error), ==, 0);
    g_assert_no_error (error);
    free (block);
  }
}

static HfSaveWriter
look (Place *place, int *watch)
{
  HfSaveWriter writer = HF_SAVE_WRITER_NONE;
  g_autoptr (GError) error = NULL;

  g_assert_true (hf_save_file_look (place->path, watch, &writer, &error));
  g_assert_no_error (error);
  return writer;
}

/* From the lock to the free, by whatever name, and with none. */
static void
test_look (Place *place, gconstpointer data)
{
  int watch = -1, late = -1;
  HfSaveFile *file;

  (void)data;
  g_assert_cmpint (look (place, &watch), ==, HF_SAVE_WRITER_NONE);
  put (place->path, "old");
  g_assert_cmpint (look (place, &watch), ==, HF_SAVE_WRITER_NONE);
  put (place->partial, "left");
  g_assert_cmpint (look (place, &watch), ==, HF_SAVE_WRITER_DEAD);
  g_assert_cmpint (watch, ==, -1);
  file = new_file (place->path, 0, "new");
  g_assert_cmpint (look (place, &watch), ==, HF_SAVE_WRITER_ALIVE);
  g_assert_cmpint (watch, >=, 0);
  g_assert_true (hf_save_file_commit (file, 3, NULL));
  g_assert_cmpint (look (place, &watch), ==, HF_SAVE_WRITER_ALIVE);
  g_assert_cmpint (look (place, &late), ==, HF_SAVE_WRITER_ALIVE);
  hf_save_file_free (file);
  g_assert_cmpint (look (place, &watch), ==, HF_SAVE_WRITER_NONE);
  g_assert_cmpint (look (place, &late), ==, HF_SAVE_WRITER_NONE);
  g_assert_cmpint (watch, ==, -1);

  file = new_file (place->path, 0, "new");
  g_assert_cmpint (look (place, &watch), ==, HF_SAVE_WRITER_ALIVE);
  g_assert_cmpint (g_unlink (place->partial), ==, 0);
  g_assert_cmpint (look (place, &watch), ==, HF_SAVE_WRITER_ALIVE);
  hf_save_file_free (file);
  g_assert_cmpint (look (place, &watch), ==, HF_SAVE_WRITER_NONE);
}

static void
add (const char *name, void (*test) (Place *place, gconstpointer data))
{
  g_autofree char *path = g_strconcat ("/stream/save-file/", name, NULL);
  g_test_add (path, Place, NULL, place_set_up, test, place_tear_down);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  add ("commit", test_commit);
  add ("extend", test_extend);
  add ("mode-is-kept", test_mode_is_kept);
  add ("free-keeps-the-old", test_free_keeps_the_old);
  add ("prefix", test_prefix);
  add ("prefix-refused", test_prefix_refused);
  add ("symlink", test_symlink);
  add ("planted-link", test_planted_link);
  add ("planted-link-behind-a-link", test_planted_link_behind_a_link);
  add ("planted-file", test_planted_file);
  add ("planted-hard-link", test_planted_hard_link);
  add ("owner-is-kept", test_owner_is_kept);
  add ("refused-targets", test_refused_targets);
  add ("strange-partial", test_strange_partial);
  add ("dead-partial-is-replaced", test_dead_partial_is_replaced);
  add ("busy", test_busy);
  add ("race", test_race);
  add ("failed-steps", test_failed_steps);
  add ("failed-late-steps", test_failed_late_steps);
  add ("no-sync", test_no_sync);
  add ("partial-was-replaced", test_partial_was_replaced);
  add ("descriptors", test_descriptors);
  add ("look", test_look);
  return g_test_run ();
}
