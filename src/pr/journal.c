/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns the journal files. hf_journal_write and hf_journal_get_summary: any thread, also at the same time; the rest: one thread.
 *
 * Theory of operation: an entry is appended with one write under the lock, and becomes true when an fdatasync that began after it
 * has returned. The first writer that finds no sync running becomes the syncer: it syncs, without the lock, everything that was
 * appended until then, and wakes the others, one of which syncs the rest. So 64 LUs cost a few syncs, not 64. After a failed sync
 * the kernel may have dropped the pages and report success the next time: the journal is poisoned and every later write fails.
 *
 * Locking: lock guards everything below it in the struct. Nothing is called with it held but write(2) and ftruncate(2).
 */

#include "config.h"

#include "pr/journal.h"

#include <holdfast/pr.h>

#include "base/fail.h"
#include "base/file-sync.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_SIZE_MAX (16u << 20)
#define LINE_MAX_BYTES 8192
#define CHECKSUM_DIGITS 16
#define N_FIELDS 9
#define SYSTEM_STATE_DIR "/var/lib/holdfast"

static const char *const kind_names[] = { "intent", "verified", "undone" };
G_STATIC_ASSERT (G_N_ELEMENTS (kind_names) == HF_N_JOURNAL_KINDS);

/* Index: is_register | is_take_over << 1 */
static const char *const what_names[] = { "-", "register", "take-over", "register+take-over" };

struct _HfJournal {
  char *path, *folder;
  int fd; /* -1: opened for reading, or nothing there */

  GMutex lock;
  GCond done;               /* synced or poison changed */
  guint64 appended, synced; /* entries, counted from open */
  gboolean syncing;
  off_t size; /* of the file: whole lines */
  GError *poison;
  GHashTable *summaries; /* char *lu -> HfJournalSummary * */
  guint syncs;
};

static gboolean G_GNUC_PRINTF (3, 4) fail (GError **error, const char *path, const char *format, ...)
{
  va_list arguments;

  va_start (arguments, format);
  g_autofree char *text = g_strdup_vprintf (format, arguments);
  va_end (arguments);
  g_set_error (error, HF_PR_ERROR, HF_PR_ERROR_JOURNAL, "journal %s: %s", path, text);
  return FALSE;
}

/* ---- what entries add up to ---- */

void
hf_journal_summary_learn (HfJournalSummary *summary, const HfJournalEntry *entry)
{
  if (entry->kind == HF_JOURNAL_UNDONE) {
    summary->registers_sent -= summary->registers_sent > 0;
    summary->register_unverified &= !entry->is_register;
    summary->take_over_sent &= summary->registers_sent > 0;
    return;
  }
  if (entry->kind == HF_JOURNAL_VERIFIED) {
    if (entry->is_register)
      summary->register_unverified = FALSE;
    return;
  }
  if (entry->is_register) {
    summary->registers_sent++;
    summary->register_unverified = TRUE;
    summary->generation = entry->generation;
  }
  if (entry->is_take_over)
    summary->take_over_sent = TRUE;
}

static void
learn (HfJournal *journal, const HfJournalEntry *entry)
{
  HfJournalSummary *summary = g_hash_table_lookup (journal->summaries, entry->lu);

  if (summary == NULL) {
    summary = g_new0 (HfJournalSummary, 1);
    g_hash_table_insert (journal->summaries, g_strdup (entry->lu), summary);
  }
  hf_journal_summary_learn (summary, entry);
}

void
hf_journal_get_summary (HfJournal *journal, const char *lu, HfJournalSummary *ret)
{
  g_mutex_lock (&journal->lock);
  const HfJournalSummary *summary = g_hash_table_lookup (journal->summaries, lu);
  *ret = summary != NULL ? *summary : (HfJournalSummary){ 0 };
  g_mutex_unlock (&journal->lock);
}

/* ---- lines ---- */

static void
append_escaped (GString *line, const char *text)
{
  if (text == NULL || *text == '\0')
    g_string_append (line, "\\-");
  for (const guint8 *p = (const guint8 *)text; p != NULL && *p != '\0'; p++) {
    if (*p > 0x20 && *p < 0x7f && *p != '\\')
      g_string_append_c (line, (char)*p);
    else
      g_string_append_printf (line, "\\x%02x", *p);
  }
}

/* The other way, in place. FALSE if text is not what append_escaped writes. */
static gboolean
unescape (char *text)
{
  char *out = text;

  if (strcmp (text, "\\-") == 0) {
    *text = '\0';
    return TRUE;
  }
  for (const char *p = text; *p != '\0'; p++) {
    if (*p != '\\') {
      *out++ = *p;
      continue;
    }
    if (p[1] != 'x' || !g_ascii_isxdigit (p[2]) || !g_ascii_isxdigit (p[3]))
      return FALSE;
    int byte = g_ascii_xdigit_value (p[2]) << 4 | g_ascii_xdigit_value (p[3]);
    if (byte == 0)
      return FALSE;
    *out++ = (char)byte;
    p += 3;
  }
  *out = '\0';
  return TRUE;
}

static char *
line_checksum (const char *text)
{
  char *digest = g_compute_checksum_for_string (G_CHECKSUM_SHA256, text, -1);

  digest[CHECKSUM_DIGITS] = '\0';
  return digest;
}

static char *
build_line (const HfJournalEntry *entry)
{
  guint what = (entry->is_register ? 1u : 0u) | (entry->is_take_over ? 2u : 0u);
  GString *text = g_string_new (NULL);

  g_string_append_printf (text, "%" G_GINT64_FORMAT " %s %s ", g_get_real_time () / G_USEC_PER_SEC, kind_names[entry->kind],
                          what_names[what]);
  append_escaped (text, entry->lu);
  g_string_append_c (text, ' ');
  append_escaped (text, entry->step);
  g_string_append_printf (text, " %u ", entry->generation);
  append_escaped (text, entry->nexus);

  g_autofree char *body = g_string_free (text, FALSE);
  g_autofree char *checksum = line_checksum (body);
  return g_strdup_printf ("hf1 %s %s\n", checksum, body);
}

static int
find_name (const char *const *names, guint n, const char *name)
{
  for (guint i = 0; i < n; i++)
    if (strcmp (names[i], name) == 0)
      return (int)i;
  return -1;
}

/* fields: of a line with a good checksum. The strings of ret live in it. NULL or what is wrong. */
static const char *
parse_fields (char **fields, HfJournalEntry *ret)
{
  int kind = find_name (kind_names, G_N_ELEMENTS (kind_names), fields[3]);
  int what = find_name (what_names, G_N_ELEMENTS (what_names), fields[4]);
  guint64 generation;

  if (kind < 0 || what < 0)
    return "unknown kind of entry";
  if (!g_ascii_string_to_unsigned (fields[7], 10, 0, G_MAXUINT32, &generation, NULL))
    return "the generation is not a number";
  if (!unescape (fields[5]) || !unescape (fields[6]) || !unescape (fields[8]))
    return "bad escape";
  *ret = (HfJournalEntry){
    .kind = (HfJournalKind)kind,
    .lu = fields[5],
    .step = fields[6],
    .nexus = fields[8],
    .generation = (guint32)generation,
    .is_register = (what & 1) != 0,
    .is_take_over = (what & 2) != 0,
  };
  return NULL;
}

/* line without its newline. NULL, or what is wrong with it. */
static const char *
load_line (HfJournal *journal, const char *line)
{
  const char *prefix = "hf1 ";
  HfJournalEntry entry;

  if (strlen (line) > LINE_MAX_BYTES)
    return "longer than a line can be";
  if (!g_str_has_prefix (line, prefix))
    return g_str_has_prefix (line, "hf") ? "of an unknown version" : "not an entry";
  if (strlen (line) < strlen (prefix) + CHECKSUM_DIGITS + 1)
    return "too short";
  const char *body = line + strlen (prefix) + CHECKSUM_DIGITS + 1;
  g_autofree char *checksum = line_checksum (body);
  if (body[-1] != ' ' || strncmp (line + strlen (prefix), checksum, CHECKSUM_DIGITS) != 0)
    return "the checksum is wrong";

  g_auto (GStrv) fields = g_strsplit (line, " ", N_FIELDS + 1);
  if (g_strv_length (fields) != N_FIELDS)
    return "wrong number of fields";
  const char *problem = parse_fields (fields, &entry);
  if (problem == NULL)
    learn (journal, &entry);
  return problem;
}

/* ---- open ---- */

/* The whole file; NULL on error. */
static GString *
read_file (int fd, const char *path, GError **error)
{
  g_autoptr (GString) content = g_string_new (NULL);
  char chunk[16384];

  for (;;) {
    ssize_t n = read (fd, chunk, sizeof (chunk));
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0) {
      fail (error, path, "read: %s", g_strerror (errno));
      return NULL;
    }
    if (n == 0)
      return g_steal_pointer (&content);
    if (content->len + (gsize)n > FILE_SIZE_MAX) {
      fail (error, path, "larger than %u bytes", FILE_SIZE_MAX);
      return NULL;
    }
    g_string_append_len (content, chunk, n);
  }
}

/* Learns all whole lines and sets size to where they end. */
static gboolean
load (HfJournal *journal, int fd, GError **error)
{
  g_autoptr (GString) content = read_file (fd, journal->path, error);
  if (content == NULL)
    return FALSE;

  char *line = content->str;
  char *end = content->str + content->len;
  for (guint number = 1; line < end; number++) {
    char *newline = memchr (line, '\n', (gsize)(end - line));
    if (newline == NULL)
      break;
    *newline = '\0';
    /* A zero byte inside would hide the rest of the line from the checksum. */
    const char *problem = strlen (line) == (gsize)(newline - line) ? load_line (journal, line) : "it has a zero byte";
    if (problem != NULL)
      return fail (error, journal->path,
                   "line %u is damaged: %s. What was sent cannot be known: look at the LUs, then remove the file", number,
                   problem);
    line = newline + 1;
  }
  journal->size = line - content->str;
  return TRUE;
}

/* TRUE in ret_same if fd still is the file at path: a move that ended between our open and our lock has removed it. */
static gboolean
check_file (int fd, const char *path, gboolean *ret_same, GError **error)
{
  struct stat opened, named;

  if (fstat (fd, &opened) != 0)
    return fail (error, path, "stat: %s", g_strerror (errno));
  if (!S_ISREG (opened.st_mode))
    return fail (error, path, "not a regular file");
  *ret_same = lstat (path, &named) == 0 && named.st_dev == opened.st_dev && named.st_ino == opened.st_ino;
  return TRUE;
}

/* A locked descriptor, or -1. */
static int
open_locked (const char *path, GError **error)
{
  for (guint attempt = 0; attempt < 100; attempt++) {
    gboolean same;
    int fd = open (path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    if (fd < 0) {
      fail (error, path, "open: %s", g_strerror (errno));
      return -1;
    }
    if (flock (fd, LOCK_EX | LOCK_NB) != 0) {
      if (errno == EWOULDBLOCK)
        fail (error, path, "another move of this record runs");
      else
        fail (error, path, "lock: %s", g_strerror (errno));
      close (fd);
      return -1;
    }
    if (!check_file (fd, path, &same, error)) {
      close (fd);
      return -1;
    }
    if (same)
      return fd;
    close (fd);
  }
  fail (error, path, "it is removed again and again");
  return -1;
}

static gboolean
open_for_writing (HfJournal *journal, GError **error)
{
  g_autoptr (GError) local = NULL;

  if (!hf_dir_make (journal->folder, &local))
    return fail (error, journal->path, "%s", local->message);
  journal->fd = open_locked (journal->path, error);
  if (journal->fd < 0 || !load (journal, journal->fd, error))
    return FALSE;
  if (ftruncate (journal->fd, journal->size) != 0)
    return fail (error, journal->path, "cut off the torn last line: %s", g_strerror (errno));
  /* An empty file may be new: fdatasync does not make its name last. */
  if (journal->size == 0 && !hf_dir_sync (journal->folder, &local))
    return fail (error, journal->path, "%s", local->message);
  return TRUE;
}

static gboolean
open_for_reading (HfJournal *journal, GError **error)
{
  gboolean same;
  int fd = open (journal->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

  if (fd < 0)
    return errno == ENOENT ? TRUE : fail (error, journal->path, "open: %s", g_strerror (errno));
  gboolean ok = check_file (fd, journal->path, &same, error) && load (journal, fd, error);
  close (fd);
  return ok;
}

HfJournal *
hf_journal_open (const char *state_dir, const char *record_id, gboolean write, GError **error)
{
  if (!g_uuid_string_is_valid (record_id)) {
    fail (error, state_dir, "the id of the record is not a UUID");
    return NULL;
  }

  g_autoptr (HfJournal) journal = g_new0 (HfJournal, 1);
  journal->fd = -1;
  g_mutex_init (&journal->lock);
  g_cond_init (&journal->done);
  journal->summaries = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, g_free);
  journal->folder = g_build_filename (state_dir, "moves", NULL);
  journal->path = g_strdup_printf ("%s/%s.journal", journal->folder, record_id);
  if (!(write ? open_for_writing (journal, error) : open_for_reading (journal, error)))
    return NULL;
  return g_steal_pointer (&journal);
}

void
hf_journal_free (HfJournal *journal)
{
  if (journal == NULL)
    return;
  if (journal->fd >= 0)
    close (journal->fd); /* and unlock */
  g_mutex_clear (&journal->lock);
  g_cond_clear (&journal->done);
  g_clear_error (&journal->poison);
  g_hash_table_unref (journal->summaries);
  g_free (journal->path);
  g_free (journal->folder);
  g_free (journal);
}

/* ---- write ---- */

/* 0, or the errno that a test asked for at this point. */
static int
injected_errno (const char *when, const char *step)
{
  guint argument = 0;
  HfFailAction action = hf_fail_point (when, step, FALSE, &argument);

  if (action == HF_FAIL_NOTHING)
    return 0;
  return action == HF_FAIL_ERROR && argument != 0 ? (int)argument : EIO;
}

static int
append_line (int fd, const char *line)
{
  int injected = injected_errno ("before", "journal-write");

  if (injected != 0)
    return injected;
  for (gsize left = strlen (line); left > 0;) {
    ssize_t n = write (fd, line, left);
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      return errno;
    line += n;
    left -= (gsize)n;
  }
  return injected_errno ("after", "journal-write");
}

static int
sync_file (int fd)
{
  int injected = injected_errno ("before", "journal-sync");

  if (injected != 0)
    return injected;
  if (fdatasync (fd) != 0)
    return errno;
  return injected_errno ("after", "journal-sync");
}

/* With the lock. The first failure counts. */
static void
poison (HfJournal *journal, int errnum, const char *step)
{
  if (journal->poison == NULL)
    fail (&journal->poison, journal->path, "%s: %s", step, g_strerror (errnum));
  g_cond_broadcast (&journal->done);
}

/* With the lock. FALSE: nothing of the line is left in the file, or the journal is poisoned. */
static gboolean
append_locked (HfJournal *journal, const HfJournalEntry *entry, const char *line, GError **error)
{
  gsize length = strlen (line);

  if (journal->poison != NULL) {
    g_propagate_error (error, g_error_copy (journal->poison));
    return FALSE;
  }
  if ((guint64)journal->size + length > FILE_SIZE_MAX)
    return fail (error, journal->path, "it is full");

  int errnum = append_line (journal->fd, line);
  if (errnum != 0) {
    /* A half line in the middle would make the whole file unreadable. */
    if (ftruncate (journal->fd, journal->size) != 0)
      poison (journal, errno, "cut off a line that could not be written");
    return fail (error, journal->path, "write: %s", g_strerror (errnum));
  }
  journal->size += (off_t)length;
  journal->appended++;
  learn (journal, entry);
  return TRUE;
}

/* With the lock, which it drops while it syncs. */
static void
sync_appended (HfJournal *journal)
{
  guint64 target = journal->appended;

  journal->syncing = TRUE;
  g_mutex_unlock (&journal->lock);
  int errnum = sync_file (journal->fd);
  g_mutex_lock (&journal->lock);
  journal->syncing = FALSE;
  journal->syncs++;
  if (errnum != 0)
    poison (journal, errnum, "sync");
  else
    journal->synced = target;
  g_cond_broadcast (&journal->done);
}

static gboolean
write_locked (HfJournal *journal, const HfJournalEntry *entry, const char *line, GError **error)
{
  if (!append_locked (journal, entry, line, error))
    return FALSE;

  guint64 ours = journal->appended;
  while (journal->synced < ours && journal->poison == NULL) {
    if (journal->syncing)
      g_cond_wait (&journal->done, &journal->lock);
    else
      sync_appended (journal);
  }
  if (journal->synced >= ours)
    return TRUE;
  g_propagate_error (error, g_error_copy (journal->poison));
  return FALSE;
}

gboolean
hf_journal_write (HfJournal *journal, const HfJournalEntry *entry, GError **error)
{
  if (journal->fd < 0)
    return fail (error, journal->path, "it is open for reading only");

  g_autofree char *line = build_line (entry);
  if (strlen (line) > LINE_MAX_BYTES)
    return fail (error, journal->path, "an entry of %" G_GSIZE_FORMAT " bytes is too long", strlen (line));
  g_mutex_lock (&journal->lock);
  gboolean ok = write_locked (journal, entry, line, error);
  g_mutex_unlock (&journal->lock);
  return ok;
}

guint
hf_journal_get_syncs (HfJournal *journal)
{
  g_mutex_lock (&journal->lock);
  guint syncs = journal->syncs;
  g_mutex_unlock (&journal->lock);
  return syncs;
}

/* ---- the end of a move ---- */

gboolean
hf_journal_remove (HfJournal *journal, GError **error)
{
  g_autoptr (GError) local = NULL;

  if (journal->fd < 0)
    return fail (error, journal->path, "it is open for reading only");
  /* Still locked: who opens the same name now makes a new file, who opened it before finds it gone. */
  if (unlink (journal->path) != 0 && errno != ENOENT)
    return fail (error, journal->path, "remove: %s", g_strerror (errno));
  g_mutex_lock (&journal->lock);
  if (journal->poison == NULL)
    fail (&journal->poison, journal->path, "it was removed");
  g_mutex_unlock (&journal->lock);
  if (!hf_dir_sync (journal->folder, &local))
    return fail (error, journal->path, "%s", local->message);
  return TRUE;
}

/* Can files be made in path, or path itself? With the rights that open(2) will have. */
static gboolean
is_writable_dir (const char *path)
{
  struct stat st;

  if (stat (path, &st) == 0)
    return S_ISDIR (st.st_mode) && faccessat (AT_FDCWD, path, W_OK | X_OK, AT_EACCESS) == 0;
  if (errno != ENOENT)
    return FALSE;
  g_autofree char *parent = g_path_get_dirname (path);
  return faccessat (AT_FDCWD, parent, W_OK | X_OK, AT_EACCESS) == 0;
}

char *
hf_journal_default_dir (const char *explicit_dir)
{
  if (explicit_dir != NULL)
    return g_strdup (explicit_dir);
  if (is_writable_dir (SYSTEM_STATE_DIR))
    return g_strdup (SYSTEM_STATE_DIR);
  return g_build_filename (g_get_user_state_dir (), "holdfast", NULL);
}
