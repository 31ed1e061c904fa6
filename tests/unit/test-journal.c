/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The journal: what entries add up to, that a crash at any byte leaves the complete entries, that one move at a time writes, and
 * that writers share their syncs without any of them returning too early.
 */

#include "config.h"

#include "base/fail.h"
#include "pr/journal.h"

#include <holdfast/pr.h>

#include <errno.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define ID "11111111-2222-4333-8444-555555555555"
#define LU "naa.60014050000000000000000000000001"
#define OTHER_LU "naa.60014050000000000000000000000002"
#define NEXUS "iscsi:iqn.2026-11.org.example:a,i,0x00023d000001"

typedef struct {
  char *state_dir, *folder, *path;
} Files;

static void
files_set_up (Files *files, gconstpointer data)
{
  g_autofree char *top = g_dir_make_tmp ("holdfast-journal-XXXXXX", NULL);

  g_assert_nonnull (top);
  files->state_dir = g_build_filename (top, "state", "holdfast", NULL);
  files->folder = g_build_filename (files->state_dir, "moves", NULL);
  files->path = g_build_filename (files->folder, ID ".journal", NULL);
}

static void
files_tear_down (Files *files, gconstpointer data)
{
  g_autofree char *state = g_path_get_dirname (files->state_dir);
  g_autofree char *top = g_path_get_dirname (state);
  const char *const folders[] = { files->folder, files->state_dir, state, top };

  g_remove (files->path);
  for (guint i = 0; i < G_N_ELEMENTS (folders); i++)
    g_rmdir (folders[i]);
  g_assert_false (g_file_test (top, G_FILE_TEST_EXISTS));
  g_free (files->state_dir);
  g_free (files->folder);
  g_free (files->path);
}

static HfJournal *
open_journal (Files *files, gboolean write)
{
  g_autoptr (GError) error = NULL;
  HfJournal *journal = hf_journal_open (files->state_dir, ID, write, &error);

  g_assert_no_error (error);
  g_assert_nonnull (journal);
  return journal;
}

static void
assert_open_fails (Files *files, gboolean write, const char *message)
{
  g_autoptr (GError) error = NULL;

  g_assert_null (hf_journal_open (files->state_dir, ID, write, &error));
  g_assert_error (error, HF_PR_ERROR, HF_PR_ERROR_JOURNAL);
  g_assert_nonnull (strstr (error->message, files->path));
  if (strstr (error->message, message) == NULL)
    g_error ("\"%s\" does not say \"%s\"", error->message, message);
}

static HfJournalEntry
make_entry (HfJournalKind kind, gboolean is_register, gboolean is_take_over, guint32 generation)
{
  return (HfJournalEntry){ .kind = kind,
                           .lu = LU,
                           .step = is_register    ? "register"
                                   : is_take_over ? "take-over"
                                                  : "unregister",
                           .nexus = NEXUS,
                           .generation = generation,
                           .is_register = is_register,
                           .is_take_over = is_take_over };
}

static void
write_entry (HfJournal *journal, HfJournalEntry entry)
{
  g_autoptr (GError) error = NULL;

  g_assert_true (hf_journal_write (journal, &entry, &error));
  g_assert_no_error (error);
}

static void
assert_summary (HfJournal *journal, const char *lu, guint registers, gboolean unverified, gboolean take_over, guint32 generation)
{
  HfJournalSummary summary;

  hf_journal_get_summary (journal, lu, &summary);
  g_assert_cmpuint (summary.registers_sent, ==, registers);
  g_assert_cmpint (summary.register_unverified, ==, unverified);
  g_assert_cmpint (summary.take_over_sent, ==, take_over);
  g_assert_cmpuint (summary.generation, ==, generation);
}

static void
set_fail (const char *specification)
{
  g_autoptr (GError) error = NULL;

  g_assert_true (hf_fail_set (specification, &error));
  g_assert_no_error (error);
}

/* ---- what entries add up to ---- */

/* Each letter an entry: R intent of REGISTER, T of a take-over, U of an unregister, v VERIFIED of a REGISTER, t of a take-over,
   x UNDONE of the last REGISTER, y of another. The generation of the Nth entry is N. */
typedef struct {
  const char *entries;
  HfJournalSummary sum;
} SummaryCase;

static const SummaryCase summary_cases[] = {
  { "", { 0, FALSE, FALSE, 0 } },
  { "R", { 1, TRUE, FALSE, 1 } },
  { "Rv", { 1, FALSE, FALSE, 1 } },
  { "RvT", { 1, FALSE, TRUE, 1 } },
  { "RvTt", { 1, FALSE, TRUE, 1 } },
  { "Rt", { 1, TRUE, FALSE, 1 } },  /* a verified take-over says nothing of a REGISTER */
  { "RR", { 2, TRUE, FALSE, 2 } },  /* a REGISTER that was sent again, or a second path */
  { "RvR", { 2, TRUE, FALSE, 3 } }, /* only the last one counts as unverified */
  { "RvRv", { 2, FALSE, FALSE, 3 } },
  { "RU", { 1, TRUE, FALSE, 1 } }, /* an unregister that may not have arrived undoes nothing */
  { "RUx", { 0, FALSE, FALSE, 1 } },
  { "RvTUx", { 0, FALSE, FALSE, 1 } },
  { "RRx", { 1, FALSE, FALSE, 2 } }, /* one of two is gone: the other still counts */
  { "RvRx", { 1, FALSE, FALSE, 3 } },
  { "RvRy", { 1, TRUE, FALSE, 3 } }, /* the first is gone: the second is as unverified as before */
  { "RxR", { 1, TRUE, FALSE, 3 } },
  { "RvTxT", { 0, FALSE, TRUE, 1 } },
  { "U", { 0, FALSE, FALSE, 0 } },
  { "v", { 0, FALSE, FALSE, 0 } },
};

static HfJournalEntry
entry_of_letter (char letter, guint32 generation)
{
  switch (letter) {
  case 'R':
    return make_entry (HF_JOURNAL_INTENT, TRUE, FALSE, generation);
  case 'T':
    return make_entry (HF_JOURNAL_INTENT, FALSE, TRUE, generation);
  case 'U':
    return make_entry (HF_JOURNAL_INTENT, FALSE, FALSE, generation);
  case 'v':
    return make_entry (HF_JOURNAL_VERIFIED, TRUE, FALSE, generation);
  case 't':
    return make_entry (HF_JOURNAL_VERIFIED, FALSE, TRUE, generation);
  case 'x':
    return make_entry (HF_JOURNAL_UNDONE, TRUE, FALSE, generation);
  case 'y':
    return make_entry (HF_JOURNAL_UNDONE, FALSE, FALSE, generation);
  default:
    g_assert_not_reached ();
  }
}

static void
test_summary (gconstpointer data)
{
  const SummaryCase *wanted = data;
  HfJournalSummary summary = { 0 };

  for (guint i = 0; wanted->entries[i] != '\0'; i++) {
    HfJournalEntry entry = entry_of_letter (wanted->entries[i], i + 1);
    hf_journal_summary_learn (&summary, &entry);
  }
  g_assert_cmpuint (summary.registers_sent, ==, wanted->sum.registers_sent);
  g_assert_cmpint (summary.register_unverified, ==, wanted->sum.register_unverified);
  g_assert_cmpint (summary.take_over_sent, ==, wanted->sum.take_over_sent);
  g_assert_cmpuint (summary.generation, ==, wanted->sum.generation);
}

/* The same through a file that is opened again. */
static void
test_summary_of_file (Files *files, gconstpointer data)
{
  for (guint c = 0; c < G_N_ELEMENTS (summary_cases); c++) {
    const SummaryCase *wanted = &summary_cases[c];
    g_autoptr (GError) error = NULL;
    g_autoptr (HfJournal) journal = open_journal (files, TRUE);
    for (guint i = 0; wanted->entries[i] != '\0'; i++)
      write_entry (journal, entry_of_letter (wanted->entries[i], i + 1));
    g_autoptr (HfJournal) reader = open_journal (files, FALSE);
    assert_summary (journal, LU, wanted->sum.registers_sent, wanted->sum.register_unverified, wanted->sum.take_over_sent,
                    wanted->sum.generation);
    assert_summary (reader, LU, wanted->sum.registers_sent, wanted->sum.register_unverified, wanted->sum.take_over_sent,
                    wanted->sum.generation);
    g_assert_true (hf_journal_remove (journal, &error));
    g_assert_no_error (error);
  }
}

/* ---- open, write, remove ---- */

static void
test_nothing_there (Files *files, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (HfJournal) journal = open_journal (files, FALSE);
  HfJournalEntry entry = make_entry (HF_JOURNAL_INTENT, TRUE, FALSE, 1);

  assert_summary (journal, LU, 0, FALSE, FALSE, 0);
  g_assert_false (g_file_test (files->state_dir, G_FILE_TEST_EXISTS));
  g_assert_false (hf_journal_write (journal, &entry, &error));
  g_assert_error (error, HF_PR_ERROR, HF_PR_ERROR_JOURNAL);
  g_clear_error (&error);
  g_assert_false (hf_journal_remove (journal, &error));
  g_assert_error (error, HF_PR_ERROR, HF_PR_ERROR_JOURNAL);
}

static void
test_record_id (Files *files, gconstpointer data)
{
  const char *const ids[] = { "", "x", "../../etc/passwd", ID "x", ID "/" };

  for (guint i = 0; i < G_N_ELEMENTS (ids); i++) {
    g_autoptr (GError) error = NULL;
    g_assert_null (hf_journal_open (files->state_dir, ids[i], TRUE, &error));
    g_assert_error (error, HF_PR_ERROR, HF_PR_ERROR_JOURNAL);
  }
  g_assert_false (g_file_test (files->state_dir, G_FILE_TEST_EXISTS));
}

static void
test_modes (Files *files, gconstpointer data)
{
  g_autoptr (HfJournal) journal = open_journal (files, TRUE);
  struct stat st;

  g_assert_nonnull (journal);
  g_assert_cmpint (stat (files->folder, &st), ==, 0);
  g_assert_cmpuint (st.st_mode & 07777, ==, 0700);
  g_assert_cmpint (stat (files->path, &st), ==, 0);
  g_assert_cmpuint (st.st_mode & 07777, ==, 0600);
}

/* Several LUs, and texts that would break a line. */
static void
test_texts (Files *files, gconstpointer data)
{
  const char *const lus[] = { LU, OTHER_LU, "", "t10.A B\\C\n\x7f\xc3\xa9", "\\-", "-" };
  HfJournalEntry entry = make_entry (HF_JOURNAL_INTENT, TRUE, FALSE, G_MAXUINT32);
  g_autoptr (HfJournal) journal = open_journal (files, TRUE);

  entry.nexus = "unknown,\tport\r\n1 ";
  for (guint i = 0; i < G_N_ELEMENTS (lus); i++) {
    entry.lu = lus[i];
    for (guint times = 0; times <= i; times++)
      write_entry (journal, entry);
  }
  g_autoptr (HfJournal) reader = open_journal (files, FALSE);
  for (guint i = 0; i < G_N_ELEMENTS (lus); i++)
    assert_summary (reader, lus[i], i + 1, TRUE, FALSE, G_MAXUINT32);
  assert_summary (reader, "naa.5", 0, FALSE, FALSE, 0);
}

/* What a crash leaves is read by another version, and by people: the line is a contract. */
static void
test_line (Files *files, gconstpointer data)
{
  g_autofree char *content = NULL;
  g_autoptr (HfJournal) journal = open_journal (files, TRUE);

  write_entry (journal, make_entry (HF_JOURNAL_INTENT, TRUE, FALSE, 41));
  g_assert_true (g_file_get_contents (files->path, &content, NULL, NULL));
  g_assert_true (g_regex_match_simple ("^hf1 [0-9a-f]{16} [0-9]+ intent register " LU
                                       " register 41 iscsi:iqn\\.2026-11\\.org\\.example:a,i,0x00023d000001\n$",
                                       content, G_REGEX_DOLLAR_ENDONLY, 0));
  g_autofree char *digest = g_compute_checksum_for_data (G_CHECKSUM_SHA256, (const guint8 *)content + 21, strlen (content) - 22);
  g_assert_cmpmem (content + 4, 16, digest, 16);
}

static void
test_long_entry (Files *files, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *nexus = g_strnfill (9000, 'n');
  HfJournalEntry entry = make_entry (HF_JOURNAL_INTENT, TRUE, FALSE, 1);
  g_autoptr (HfJournal) journal = open_journal (files, TRUE);

  entry.nexus = nexus;
  g_assert_false (hf_journal_write (journal, &entry, &error));
  g_assert_error (error, HF_PR_ERROR, HF_PR_ERROR_JOURNAL);
  assert_summary (journal, LU, 0, FALSE, FALSE, 0);
  write_entry (journal, make_entry (HF_JOURNAL_INTENT, TRUE, FALSE, 2));
}

static void
test_lock (Files *files, gconstpointer data)
{
  g_autoptr (HfJournal) first = open_journal (files, TRUE);

  assert_open_fails (files, TRUE, "another move of this record runs");
  g_autoptr (HfJournal) reader = open_journal (files, FALSE);
  g_clear_pointer (&first, hf_journal_free);
  g_autoptr (HfJournal) second = open_journal (files, TRUE);
  g_assert_true (reader && second);
}

static void
test_remove (Files *files, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  HfJournalEntry entry = make_entry (HF_JOURNAL_INTENT, TRUE, FALSE, 1);
  g_autoptr (HfJournal) journal = open_journal (files, TRUE);

  write_entry (journal, entry);
  g_assert_true (hf_journal_remove (journal, &error));
  g_assert_no_error (error);
  g_assert_false (g_file_test (files->path, G_FILE_TEST_EXISTS));
  g_assert_false (hf_journal_write (journal, &entry, &error));
  g_assert_error (error, HF_PR_ERROR, HF_PR_ERROR_JOURNAL);

  /* The next move of the record does not inherit anything, even while the old journal is still open. */
  g_autoptr (HfJournal) next = open_journal (files, TRUE);
  assert_summary (next, LU, 0, FALSE, FALSE, 0);
}

/* ---- damage ---- */

/* A file with n intents of REGISTER. */
static char *
make_content (Files *files, guint n, gsize *ret_length)
{
  char *content;
  g_autoptr (HfJournal) journal = open_journal (files, TRUE);

  for (guint i = 0; i < n; i++)
    write_entry (journal, make_entry (HF_JOURNAL_INTENT, TRUE, FALSE, i + 1));
  g_assert_true (g_file_get_contents (files->path, &content, ret_length, NULL));
  return content;
}

static void
make_empty (Files *files)
{
  hf_journal_free (open_journal (files, TRUE));
}

static void
write_content (Files *files, const char *content, gsize length)
{
  g_assert_true (g_file_set_contents (files->path, content, (gssize)length, NULL));
}

static guint
count_lines (const char *content, gsize length)
{
  guint n = 0;

  for (gsize i = 0; i < length; i++)
    n += content[i] == '\n';
  return n;
}

/* The disk keeps any first part of what was written: the complete entries count, and writing goes on behind them. */
static void
test_cut_at_every_byte (Files *files, gconstpointer data)
{
  gsize length;
  g_autofree char *content = make_content (files, 3, &length);

  for (gsize cut = 0; cut <= length; cut++) {
    guint whole = count_lines (content, cut);
    write_content (files, content, cut);
    g_autoptr (HfJournal) reader = open_journal (files, FALSE);
    assert_summary (reader, LU, whole, whole > 0, FALSE, whole);
    g_autoptr (HfJournal) journal = open_journal (files, TRUE);
    assert_summary (journal, LU, whole, whole > 0, FALSE, whole);
    write_entry (journal, make_entry (HF_JOURNAL_VERIFIED, TRUE, FALSE, 9));
    g_clear_pointer (&journal, hf_journal_free);
    journal = open_journal (files, TRUE);
    assert_summary (journal, LU, whole, FALSE, FALSE, whole);
  }
}

/* Blocks that were allocated but not written: zeros behind the last complete entry. */
static void
test_zero_tail (Files *files, gconstpointer data)
{
  gsize length;
  g_autofree char *content = make_content (files, 2, &length);

  memset (content + length - 20, 0, 20);
  write_content (files, content, length);
  g_autoptr (HfJournal) journal = open_journal (files, TRUE);
  assert_summary (journal, LU, 1, TRUE, FALSE, 1);
}

/* A complete line that is not what was written may hide a REGISTER that was sent: nothing goes on after it. */
static void
test_every_flipped_byte (Files *files, gconstpointer data)
{
  gsize length;
  g_autofree char *content = make_content (files, 3, &length);
  gsize first = (gsize)(strchr (content, '\n') - content) + 1;

  for (gsize i = first; i < 2 * first; i++) {
    content[i] ^= 0x41;
    write_content (files, content, length);
    assert_open_fails (files, i % 2 == 0, "line 2 is damaged");
    content[i] ^= 0x41;
  }
  write_content (files, content, length);
  g_autoptr (HfJournal) journal = open_journal (files, FALSE);
  assert_summary (journal, LU, 3, TRUE, FALSE, 3);
}

static void
test_bad_files (Files *files, gconstpointer data)
{
  /* A right checksum does not make a wrong line right. */
  g_autofree char *bad_kind = g_compute_checksum_for_string (G_CHECKSUM_SHA256, "1 wish - a b 1 c", -1);
  g_autofree char *bad_fields = g_compute_checksum_for_string (G_CHECKSUM_SHA256, "1 intent - a b 1", -1);
  g_autofree char *bad_number = g_compute_checksum_for_string (G_CHECKSUM_SHA256, "1 intent - a b 4294967296 c", -1);
  g_autofree char *bad_escape = g_compute_checksum_for_string (G_CHECKSUM_SHA256, "1 intent - a\\x00 b 1 c", -1);
  char *const lines[] = {
    g_strdup_printf ("hf1 %.16s 1 wish - a b 1 c\n", bad_kind),
    g_strdup_printf ("hf1 %.16s 1 intent - a b 1\n", bad_fields),
    g_strdup_printf ("hf1 %.16s 1 intent - a b 4294967296 c\n", bad_number),
    g_strdup_printf ("hf1 %.16s 1 intent - a\\x00 b 1 c\n", bad_escape),
    g_strdup ("hf2 0123456789abcdef something new\n"),
    g_strdup ("\n"),
    g_strdup ("hf1 \n"),
  };
  const char *const messages[] = { "unknown kind",    "number of fields", "not a number", "bad escape",
                                   "unknown version", "not an entry",     "too short" };
  make_empty (files);

  for (guint i = 0; i < G_N_ELEMENTS (messages); i++) {
    write_content (files, lines[i], strlen (lines[i]));
    assert_open_fails (files, TRUE, messages[i]);
    assert_open_fails (files, FALSE, messages[i]);
    g_free (lines[i]);
  }
}

static void
test_too_large (Files *files, gconstpointer data)
{
  make_empty (files);
  g_assert_cmpint (truncate (files->path, (16 << 20) + 1), ==, 0);
  assert_open_fails (files, TRUE, "larger than");
}

/* A name in a folder that others may write to is not followed. */
static void
test_not_a_file (Files *files, gconstpointer data)
{
  make_empty (files);
  g_assert_cmpint (g_remove (files->path), ==, 0);
  g_assert_cmpint (symlink ("/dev/null", files->path), ==, 0);
  assert_open_fails (files, TRUE, "open");
  g_assert_cmpint (g_remove (files->path), ==, 0);
  g_assert_cmpint (mkfifo (files->path, 0600), ==, 0);
  assert_open_fails (files, FALSE, "not a regular file");
  assert_open_fails (files, TRUE, "not a regular file");
}

/* ---- provoked failures ---- */

static void
assert_write_fails (HfJournal *journal, const char *message)
{
  g_autoptr (GError) error = NULL;
  HfJournalEntry entry = make_entry (HF_JOURNAL_INTENT, TRUE, FALSE, 7);

  g_assert_false (hf_journal_write (journal, &entry, &error));
  g_assert_error (error, HF_PR_ERROR, HF_PR_ERROR_JOURNAL);
  if (strstr (error->message, message) == NULL)
    g_error ("\"%s\" does not say \"%s\"", error->message, message);
}

/* A full disk: nothing of the entry is left, and there may be room for the next. */
static void
test_write_fails (Files *files, gconstpointer data)
{
  const char *const points[] = { "before-journal-write#1=error:ENOSPC", "after-journal-write#1=error:ENOSPC" };
  g_autoptr (HfJournal) journal = open_journal (files, TRUE);

  for (guint i = 0; i < G_N_ELEMENTS (points); i++) {
    set_fail (points[i]);
    assert_write_fails (journal, g_strerror (ENOSPC));
    assert_summary (journal, LU, i, i > 0, FALSE, i);
    write_entry (journal, make_entry (HF_JOURNAL_INTENT, TRUE, FALSE, i + 1));
    set_fail (NULL);
    g_autoptr (HfJournal) reader = open_journal (files, FALSE);
    assert_summary (reader, LU, i + 1, TRUE, FALSE, i + 1);
  }
}

/* After a failed sync nobody knows what is on the disk: no later write may claim to be there. */
static void
test_sync_fails (Files *files, gconstpointer data)
{
  const char *const points[] = { "before-journal-sync#2=error", "after-journal-sync#2=error:EIO" };

  for (guint i = 0; i < G_N_ELEMENTS (points); i++) {
    g_autoptr (GError) error = NULL;
    g_autoptr (HfJournal) journal = open_journal (files, TRUE);
    set_fail (points[i]);
    write_entry (journal, make_entry (HF_JOURNAL_INTENT, TRUE, FALSE, 1));
    assert_write_fails (journal, g_strerror (EIO));
    set_fail (NULL);
    assert_write_fails (journal, g_strerror (EIO));
    /* The entry may be there, so it counts. */
    assert_summary (journal, LU, 2, TRUE, FALSE, 7);
    g_assert_true (hf_journal_remove (journal, &error));
    g_assert_no_error (error);
  }
}

/* A REGISTER is sent only after the intent was written: killed before, there is no entry, killed after, there is one. */
static void
test_killed (Files *files, gconstpointer data)
{
  const struct {
    const char *point;
    guint registers;
  } cases[] = { { "before-journal-write=kill", 0 },
                { "after-journal-write=kill", 1 },
                { "before-journal-sync=kill", 1 },
                { "after-journal-sync=kill", 1 } };

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (GError) error = NULL;
    int status;
    pid_t child = fork ();
    g_assert_cmpint (child, >=, 0);
    if (child == 0) {
      g_autoptr (HfJournal) journal = open_journal (files, TRUE);
      set_fail (cases[i].point);
      write_entry (journal, make_entry (HF_JOURNAL_INTENT, TRUE, FALSE, 3));
      _exit (0);
    }
    g_assert_cmpint (waitpid (child, &status, 0), ==, child);
    g_assert_true (WIFSIGNALED (status) && WTERMSIG (status) == SIGKILL);
    g_autoptr (HfJournal) journal = open_journal (files, TRUE);
    assert_summary (journal, LU, cases[i].registers, cases[i].registers > 0, FALSE, cases[i].registers * 3);
    g_assert_true (hf_journal_remove (journal, &error));
  }
}

/* ---- group commit ---- */

#define N_WRITERS 16
#define N_WRITES 8

typedef struct {
  HfJournal *journal;
  guint index, failed;
  char *lu;
} Writer;

static gpointer
write_many (gpointer data)
{
  Writer *writer = data;
  HfJournalEntry entry = make_entry (HF_JOURNAL_INTENT, TRUE, FALSE, writer->index);

  entry.lu = writer->lu;
  for (guint i = 0; i < N_WRITES; i++)
    writer->failed += !hf_journal_write (writer->journal, &entry, NULL);
  return NULL;
}

static void
run_writers (HfJournal *journal, Writer *writers)
{
  GThread *threads[N_WRITERS];

  for (guint i = 0; i < N_WRITERS; i++) {
    writers[i] = (Writer){ .journal = journal, .index = i, .lu = g_strdup_printf ("naa.%u", i) };
    threads[i] = g_thread_new ("writer", write_many, &writers[i]);
  }
  for (guint i = 0; i < N_WRITERS; i++)
    g_thread_join (threads[i]);
}

/* A sync takes 20 ms here, so everybody else has appended when it ends: 128 entries need far fewer syncs. */
static void
test_group_commit (Files *files, gconstpointer data)
{
  Writer writers[N_WRITERS];
  g_autoptr (HfJournal) journal = open_journal (files, TRUE);

  set_fail ("before-journal-sync=delay:20");
  run_writers (journal, writers);
  set_fail (NULL);

  g_test_message ("%u syncs for %u entries", hf_journal_get_syncs (journal), N_WRITERS * N_WRITES);
  g_assert_cmpuint (hf_journal_get_syncs (journal), >=, N_WRITES);
  g_assert_cmpuint (hf_journal_get_syncs (journal), <=, N_WRITERS * N_WRITES / 2);
  g_autoptr (HfJournal) reader = open_journal (files, FALSE);
  for (guint i = 0; i < N_WRITERS; i++) {
    g_assert_cmpuint (writers[i].failed, ==, 0);
    assert_summary (reader, writers[i].lu, N_WRITES, TRUE, FALSE, i);
    g_free (writers[i].lu);
  }
}

/* The third sync fails: everyone who waited for it, and everyone after it, hears of it. Nobody hangs. */
static void
test_group_commit_fails (Files *files, gconstpointer data)
{
  Writer writers[N_WRITERS];
  guint failed = 0;
  g_autoptr (HfJournal) journal = open_journal (files, TRUE);

  set_fail ("before-journal-sync#1=delay:20,before-journal-sync#2=delay:20,before-journal-sync#3=error");
  run_writers (journal, writers);
  set_fail (NULL);

  g_assert_cmpuint (hf_journal_get_syncs (journal), ==, 3);
  for (guint i = 0; i < N_WRITERS; i++) {
    failed += writers[i].failed;
    g_free (writers[i].lu);
  }
  /* Two syncs of at most one entry for each writer succeeded. */
  g_assert_cmpuint (failed, >=, N_WRITERS * N_WRITES - 2 * N_WRITERS);
  g_assert_cmpuint (failed, <=, N_WRITERS * N_WRITES - 2);
  assert_write_fails (journal, g_strerror (EIO));
}

/* ---- where it lives ---- */

static void
test_default_dir (void)
{
  if (g_test_subprocess ()) {
    if (geteuid () == 0)
      g_assert_cmpint (setuid (65534), ==, 0);
    g_autofree char *unprivileged = hf_journal_default_dir (NULL);
    g_assert_cmpstr (unprivileged, ==, "/some/where/holdfast");
    return;
  }
  g_autofree char *explicit_dir = hf_journal_default_dir ("/a/b");
  g_assert_cmpstr (explicit_dir, ==, "/a/b");
  if (geteuid () == 0) {
    g_autofree char *privileged = hf_journal_default_dir (NULL);
    g_assert_cmpstr (privileged, ==, "/var/lib/holdfast");
  }
  g_setenv ("XDG_STATE_HOME", "/some/where", TRUE);
  g_test_trap_subprocess (NULL, 0, G_TEST_SUBPROCESS_INHERIT_STDERR);
  g_unsetenv ("XDG_STATE_HOME");
  g_test_trap_assert_passed ();
}

static void
add_file_test (const char *name, void (*test) (Files *files, gconstpointer data))
{
  g_test_add (name, Files, NULL, files_set_up, test, files_tear_down);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  for (guint i = 0; i < G_N_ELEMENTS (summary_cases); i++) {
    g_autofree char *name = g_strdup_printf ("/journal/summary/%s", i == 0 ? "none" : summary_cases[i].entries);
    g_test_add_data_func (name, &summary_cases[i], test_summary);
  }
  add_file_test ("/journal/summary-of-file", test_summary_of_file);
  add_file_test ("/journal/nothing-there", test_nothing_there);
  add_file_test ("/journal/record-id", test_record_id);
  add_file_test ("/journal/modes", test_modes);
  add_file_test ("/journal/texts", test_texts);
  add_file_test ("/journal/line", test_line);
  add_file_test ("/journal/long-entry", test_long_entry);
  add_file_test ("/journal/lock", test_lock);
  add_file_test ("/journal/remove", test_remove);
  add_file_test ("/journal/cut-at-every-byte", test_cut_at_every_byte);
  add_file_test ("/journal/zero-tail", test_zero_tail);
  add_file_test ("/journal/every-flipped-byte", test_every_flipped_byte);
  add_file_test ("/journal/bad-files", test_bad_files);
  add_file_test ("/journal/too-large", test_too_large);
  add_file_test ("/journal/not-a-file", test_not_a_file);
  add_file_test ("/journal/write-fails", test_write_fails);
  add_file_test ("/journal/sync-fails", test_sync_fails);
  add_file_test ("/journal/killed", test_killed);
  add_file_test ("/journal/group-commit", test_group_commit);
  add_file_test ("/journal/group-commit-fails", test_group_commit_fails);
  g_test_add_func ("/journal/default-dir", test_default_dir);
  return g_test_run ();
}
