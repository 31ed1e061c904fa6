/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The metrics file, read by a parser of the text format (version 0.0.4) that takes nothing but what the format allows: every
 * series once, HELP and TYPE before their series, families in one piece, labels escaped.
 */
#include "config.h"

#include "prhelper/log.h"
#include "prhelper/metrics.h"

#include "../fake/fake-vms.h"

#include <errno.h>
#include <gio/gio.h>
#include <glib/gstdio.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LIMIT_US (20 * G_USEC_PER_SEC)
#define LU "\x60\x01\x40\x5a\xbc\xde\xf0\x12"
#define WWID "naa.6001405abcdef012"

/* ---- the parser ---- */

typedef struct {
  GHashTable *series; /* "name{label=value;...}" with values unescaped -> double */
  GHashTable *types;  /* of the families that were begun */
  char *family;       /* the present one */
} Parser;

static void
parser_clear (Parser *parser)
{
  g_clear_pointer (&parser->series, g_hash_table_unref);
  g_clear_pointer (&parser->types, g_hash_table_unref);
  g_free (parser->family);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (Parser, parser_clear)

/* [a-zA-Z_][a-zA-Z0-9_]*, taken off *text. */
static char *
take_name (const char **text)
{
  const char *start = *text;

  g_assert_true (g_ascii_isalpha (*start) || *start == '_');
  while (g_ascii_isalnum (**text) || **text == '_')
    (*text)++;
  return g_strndup (start, (gsize)(*text - start));
}

static void
take (const char **text, const char *word)
{
  g_assert_true (g_str_has_prefix (*text, word));
  *text += strlen (word);
}

/* "VALUE" with its escapes, taken off *text and added to into. */
static void
take_value (const char **text, GString *into)
{
  take (text, "\"");
  for (; **text != '"'; (*text)++) {
    g_assert_cmpint (**text, !=, '\0');
    if (**text != '\\') {
      g_string_append_c (into, **text);
      continue;
    }
    (*text)++;
    g_assert_nonnull (strchr ("\\\"n", **text));
    g_string_append_c (into, **text == 'n' ? '\n' : **text);
  }
  take (text, "\"");
}

static void
parse_comment (Parser *parser, const char *line)
{
  g_autofree char *name = NULL;
  gboolean help = g_str_has_prefix (line, "# HELP ");

  take (&line, help ? "# HELP " : "# TYPE ");
  name = take_name (&line);
  take (&line, " ");
  if (help) {
    g_assert_false (g_hash_table_contains (parser->types, name));
    g_assert_cmpuint (strlen (line), >, 5);
    g_assert_null (strchr (line, '\\'));
    g_free (parser->family);
    parser->family = g_steal_pointer (&name);
    return;
  }
  g_assert_cmpstr (name, ==, parser->family);
  g_assert_true (strcmp (line, "gauge") == 0 || strcmp (line, "counter") == 0);
  g_assert_cmpint (strcmp (line, "counter") == 0, ==, g_str_has_suffix (name, "_total"));
  g_assert_true (g_hash_table_insert (parser->types, g_steal_pointer (&name), g_strdup (line)));
}

static void
parse_series (Parser *parser, const char *line)
{
  g_autofree char *name = take_name (&line);
  g_autoptr (GString) key = g_string_new (name);
  char *end;
  double value;

  g_assert_cmpstr (name, ==, parser->family);
  g_assert_true (g_hash_table_contains (parser->types, name));
  if (*line == '{') {
    do {
      g_autofree char *label = (line++, take_name (&line));
      g_string_append_printf (key, "%s%s=", strchr (key->str, '{') ? ";" : "{", label);
      take (&line, "=");
      take_value (&line, key);
    } while (*line == ',');
    take (&line, "}");
    g_string_append_c (key, '}');
  }
  take (&line, " ");
  value = g_ascii_strtod (line, &end);
  g_assert_true (end > line && *end == '\0' && isfinite (value));
  g_assert_true (g_hash_table_insert (parser->series, g_strdup (key->str), g_memdup2 (&value, sizeof value)));
}

static void
parse (Parser *parser, const char *text)
{
  g_auto (GStrv) lines = g_strsplit (text, "\n", -1);
  guint n = g_strv_length (lines);

  memset (parser, 0, sizeof *parser);
  parser->series = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, g_free);
  parser->types = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, g_free);
  g_assert_true (g_utf8_validate (text, -1, NULL));
  g_assert_true (g_str_has_suffix (text, "\n"));
  for (guint i = 0; i + 1 < n; i++)
    if (lines[i][0] == '#')
      parse_comment (parser, lines[i]);
    else
      parse_series (parser, lines[i]);
}

/* -1: there is none. */
static double
get (const Parser *parser, const char *series)
{
  const double *value = g_hash_table_lookup (parser->series, series);

  return value ? *value : -1;
}

static void
parse_metrics (Parser *parser, HfMetrics *metrics)
{
  g_autofree char *text = hf_metrics_to_string (metrics);

  g_test_message ("%s", text);
  parse (parser, text);
}

/* ---- the stage ---- */

typedef struct {
  char *folder, *path;
  HfVms *vms;
  HfMetrics *metrics;
} Stage;

static void
stage_new (Stage *stage)
{
  g_autoptr (GError) error = NULL;

  stage->folder = g_dir_make_tmp ("holdfast-XXXXXX", &error);
  g_assert_no_error (error);
  stage->path = g_build_filename (stage->folder, "holdfast.prom", NULL);
  stage->vms = fake_vms_new ();
  stage->metrics = hf_metrics_new (stage->path, stage->vms);
}

static gboolean
on_tick (gpointer user_data)
{
  return G_SOURCE_CONTINUE;
}

/* Runs the main context until the file has text. */
static void
wait_for (Stage *stage, const char *text)
{
  gint64 limit = g_get_monotonic_time () + LIMIT_US;
  guint tick = g_timeout_add (10, on_tick, NULL);

  for (;;) {
    g_autofree char *content = NULL;

    g_main_context_iteration (NULL, TRUE);
    if (g_file_get_contents (stage->path, &content, NULL, NULL) && strstr (content, text))
      break;
    g_assert_cmpint (g_get_monotonic_time (), <, limit);
  }
  g_source_remove (tick);
}

static void
stage_clear (Stage *stage)
{
  hf_metrics_free (stage->metrics);
  fake_vms_free (stage->vms);
  /* A file that is being written when the metrics end comes to its end all the same. */
  for (gint64 limit = g_get_monotonic_time () + LIMIT_US; g_rmdir (stage->folder) < 0;) {
    g_assert_true (errno == ENOTEMPTY || errno == EEXIST);
    g_remove (stage->path);
    g_assert_cmpint (g_get_monotonic_time (), <, limit);
  }
  while (g_main_context_iteration (NULL, FALSE))
    ;
  g_free (stage->path);
  g_free (stage->folder);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (Stage, stage_clear)

static void
tell (Stage *stage, HfVm *vm)
{
  const HfVmEvent event = { .operation = "register", .result = "GOOD" };

  hf_metrics_event (vm, &event, stage->metrics);
}

/* ---- tests ---- */

static void
test_values (void)
{
  g_auto (Stage) stage;
  g_auto (Parser) parser = { 0 };
  HfVmCounters *counters;
  HfVm *vm;

  stage_new (&stage);
  vm = fake_vms_add (stage.vms, 42, "web", NULL);
  fake_vm_hold (vm, 16, LU, 0xab, 5);
  fake_vm_hold (vm, 32, LU, 0, 0);
  fake_vm_hold (vm, 48, NULL, 0, 0);
  g_array_index (fake_vm_image (vm)->held, HfHeld, 2).state.uncertain = TRUE;
  counters = fake_vm_counters (vm);
  counters->commands[HF_PR_OUT_REGISTER][0] = 2;
  counters->commands[HF_PR_OUT_PREEMPT][1] = 3;
  counters->reads = 4;
  counters->conflicts = 5;
  counters->saves = 6;
  counters->loads = 7;
  counters->refused = 8;
  counters->rolled_back = 9;
  counters->last_gap_us = 1500000;
  parse_metrics (&parser, stage.metrics);
  /* Two nodes are one LU. */
  g_assert_cmpfloat (get (&parser, "holdfast_pr_registered{wwid=" WWID ";vm=web}"), ==, 1);
  g_assert_cmpfloat (get (&parser, "holdfast_pr_reservation_type{wwid=" WWID ";vm=web}"), ==, 5);
  g_assert_cmpfloat (get (&parser, "holdfast_pr_paths{wwid=" WWID ";vm=web}"), ==, 2);
  g_assert_cmpfloat (get (&parser, "holdfast_pr_paths_registered{wwid=" WWID ";vm=web}"), ==, 1);
  g_assert_cmpfloat (get (&parser, "holdfast_pr_state_stale{wwid=" WWID ";vm=web}"), ==, 0);
  g_assert_cmpfloat (get (&parser, "holdfast_pr_registered{wwid=block 8:48;vm=web}"), ==, 0);
  g_assert_cmpfloat (get (&parser, "holdfast_pr_state_stale{wwid=block 8:48;vm=web}"), ==, 1);
  g_assert_cmpfloat (get (&parser, "holdfast_pr_commands_total{vm=web;sa=REGISTER;status=GOOD}"), ==, 2);
  g_assert_cmpfloat (get (&parser, "holdfast_pr_commands_total{vm=web;sa=PREEMPT;status=RESERVATION CONFLICT}"), ==, 3);
  g_assert_cmpfloat (get (&parser, "holdfast_pr_commands_total{vm=web;sa=CLEAR;status=GOOD}"), ==, -1);
  g_assert_cmpfloat (get (&parser, "holdfast_pr_reads_total{vm=web}"), ==, 4);
  g_assert_cmpfloat (get (&parser, "holdfast_pr_connections{vm=web}"), ==, 2);
  g_assert_cmpfloat (get (&parser, "holdfast_pr_reclaim_gap_seconds{vm=web}"), ==, 1.5);
  g_assert_cmpfloat (get (&parser, "holdfast_pr_vms"), ==, 1);
  g_assert_cmpfloat (get (&parser, "holdfast_pr_conflicts_total"), ==, 5);
  g_assert_cmpfloat (get (&parser, "holdfast_pr_saves_total"), ==, 6);
  g_assert_cmpfloat (get (&parser, "holdfast_pr_migrations_total{result=ok}"), ==, 7);
  g_assert_cmpfloat (get (&parser, "holdfast_pr_migrations_total{result=refused}"), ==, 8);
  g_assert_cmpfloat (get (&parser, "holdfast_pr_migrations_total{result=rolled_back}"), ==, 9);
}

/* Whatever a VM is called, the file can be read, and the name comes out again. */
static void
test_names (void)
{
  static const char *const names[] = { "a\"b", "a\\b", "a\nb", "a\\n", "\"} 1\nholdfast_pr_vms 7", "\xc3\xa4{},=#", "" };
  g_auto (Stage) stage;
  g_auto (Parser) parser = { 0 };

  stage_new (&stage);
  for (guint i = 0; i < G_N_ELEMENTS (names); i++)
    fake_vms_add (stage.vms, (pid_t)(i + 1), names[i], NULL);
  parse_metrics (&parser, stage.metrics);
  for (guint i = 0; i < G_N_ELEMENTS (names); i++) {
    g_autofree char *series = g_strdup_printf ("holdfast_pr_connections{vm=%s}", names[i]);
    g_assert_cmpfloat (get (&parser, series), ==, 2);
  }
  g_assert_cmpfloat (get (&parser, "holdfast_pr_vms"), ==, G_N_ELEMENTS (names));
}

/* Bytes that are no UTF-8 would cost the whole file. */
static void
test_name_not_utf8 (void)
{
  g_auto (Stage) stage;
  g_auto (Parser) parser = { 0 };

  stage_new (&stage);
  fake_vms_add (stage.vms, 1, "a\xff", NULL);
  parse_metrics (&parser, stage.metrics);
  g_assert_cmpfloat (get (&parser, "holdfast_pr_connections{vm=a\xef\xbf\xbd}"), ==, 2);
}

/* Two VMs of one name on one LU are one series, or the reader would refuse the file. */
static void
test_twins (void)
{
  g_auto (Stage) stage;
  g_auto (Parser) parser = { 0 };
  HfVm *vm;

  stage_new (&stage);
  vm = fake_vms_add (stage.vms, 42, "web", NULL);
  fake_vm_hold (vm, 16, LU, 0xab, 5);
  fake_vm_counters (vm)->reads = 2;
  vm = fake_vms_add (stage.vms, 43, "web", NULL);
  fake_vm_hold (vm, 16, LU, 0, 0);
  fake_vm_counters (vm)->reads = 3;
  parse_metrics (&parser, stage.metrics);
  g_assert_cmpfloat (get (&parser, "holdfast_pr_registered{wwid=" WWID ";vm=web}"), ==, 1);
  g_assert_cmpfloat (get (&parser, "holdfast_pr_reads_total{vm=web}"), ==, 5);
}

/* The helper's counters do not shrink when a VM goes, nor count it twice when its process id comes again. */
static void
test_gone (void)
{
  g_auto (Stage) stage;
  g_auto (Parser) before = { 0 }, gone = { 0 }, again = { 0 };
  HfVm *vm;

  stage_new (&stage);
  vm = fake_vms_add (stage.vms, 42, "web", NULL);
  fake_vm_counters (vm)->loads = 3;
  parse_metrics (&before, stage.metrics);
  g_assert_cmpfloat (get (&before, "holdfast_pr_migrations_total{result=ok}"), ==, 3);
  /* What happened since the last look is in the event of its end. */
  fake_vm_counters (vm)->loads = 4;
  tell (&stage, vm);
  fake_vms_remove (stage.vms, vm);
  parse_metrics (&gone, stage.metrics);
  g_assert_cmpfloat (get (&gone, "holdfast_pr_migrations_total{result=ok}"), ==, 4);
  g_assert_cmpfloat (get (&gone, "holdfast_pr_vms"), ==, 0);
  vm = fake_vms_add (stage.vms, 42, "web", NULL);
  fake_vm_counters (vm)->loads = 1;
  parse_metrics (&again, stage.metrics);
  g_assert_cmpfloat (get (&again, "holdfast_pr_migrations_total{result=ok}"), ==, 5);
}

/* Everybody may read the file, whatever the umask; a half-written one has another name and does not stay. */
static void
test_file (void)
{
  mode_t before = umask (0077);
  g_autofree char *content = NULL;
  g_auto (Stage) stage;
  g_auto (Parser) parser = { 0 };
  GStatBuf status;
  g_autoptr (GDir) dir = NULL;

  stage_new (&stage);
  wait_for (&stage, "holdfast_pr_vms 0\n");
  umask (before);
  g_assert_no_errno (g_stat (stage.path, &status));
  g_assert_cmpint (status.st_mode & 07777, ==, 0644);
  g_assert_true (g_file_get_contents (stage.path, &content, NULL, NULL));
  parse (&parser, content);
  dir = g_dir_open (stage.folder, 0, NULL);
  g_assert_cmpstr (g_dir_read_name (dir), ==, "holdfast.prom");
  g_assert_null (g_dir_read_name (dir));
}

/* Many events are few files: at most one a second, and the last state is in it. */
static void
test_pace (void)
{
  gint64 begin = g_get_monotonic_time ();
  g_autoptr (GHashTable) inodes = g_hash_table_new (NULL, NULL);
  gboolean done = FALSE;
  g_auto (Stage) stage;
  HfVm *vm;

  stage_new (&stage);
  vm = fake_vms_add (stage.vms, 42, "web", NULL);
  while (!done) {
    g_autofree char *content = NULL;
    GStatBuf status;

    if (fake_vm_counters (vm)->saves < 500)
      fake_vm_counters (vm)->saves++;
    tell (&stage, vm);
    g_main_context_iteration (NULL, FALSE);
    if (g_stat (stage.path, &status) == 0)
      g_hash_table_add (inodes, GSIZE_TO_POINTER (status.st_mtim.tv_nsec / 1000 + status.st_mtim.tv_sec % 1000 * 1000000));
    done = g_file_get_contents (stage.path, &content, NULL, NULL) && strstr (content, "holdfast_pr_saves_total 500\n");
    g_assert_cmpint (g_get_monotonic_time () - begin, <, LIMIT_US);
  }
  g_assert_cmpuint (g_hash_table_size (inodes), <=, 2 + (g_get_monotonic_time () - begin) / G_USEC_PER_SEC);
}

/* A folder that is not there costs a line in the log; when it comes, so does the file. */
static void
test_failure (void)
{
  g_auto (Stage) stage;
  g_autofree char *folder = NULL;
  HfVm *vm;

  stage_new (&stage);
  wait_for (&stage, "holdfast_pr_vms 0\n");
  folder = g_strconcat (stage.folder, ".away", NULL);
  g_assert_no_errno (g_rename (stage.folder, folder));
  vm = fake_vms_add (stage.vms, 42, "web", NULL);
  tell (&stage, vm);
  for (gint64 end = g_get_monotonic_time () + 1500000; g_get_monotonic_time () < end;)
    g_main_context_iteration (NULL, FALSE);
  g_assert_no_errno (g_rename (folder, stage.folder));
  tell (&stage, vm);
  wait_for (&stage, "holdfast_pr_vms 1\n");
}

/* The name of the half-written file may be a trap: what it points to is not touched. */
static void
test_link (void)
{
  g_auto (Stage) stage;
  g_autofree char *victim = NULL, *trap = NULL, *content = NULL;
  HfVm *vm;

  stage_new (&stage);
  wait_for (&stage, "holdfast_pr_vms 0\n");
  victim = g_build_filename (stage.folder, "victim", NULL);
  trap = g_strconcat (stage.path, ".tmp", NULL);
  g_assert_true (g_file_set_contents (victim, "untouched", -1, NULL));
  g_assert_no_errno (symlink (victim, trap));
  vm = fake_vms_add (stage.vms, 42, "web", NULL);
  tell (&stage, vm);
  wait_for (&stage, "holdfast_pr_vms 1\n");
  g_assert_true (g_file_get_contents (victim, &content, NULL, NULL));
  g_assert_cmpstr (content, ==, "untouched");
  g_assert_no_errno (g_remove (victim));
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  hf_log_init (HF_LOG_ERROR);
  g_test_add_func ("/metrics/values", test_values);
  g_test_add_func ("/metrics/names", test_names);
  g_test_add_func ("/metrics/name-not-utf8", test_name_not_utf8);
  g_test_add_func ("/metrics/twins", test_twins);
  g_test_add_func ("/metrics/gone", test_gone);
  g_test_add_func ("/metrics/file", test_file);
  g_test_add_func ("/metrics/pace", test_pace);
  g_test_add_func ("/metrics/failure", test_failure);
  g_test_add_func ("/metrics/link", test_link);
  return g_test_run ();
}
