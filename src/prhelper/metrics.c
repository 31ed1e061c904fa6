/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns: the metrics file, its thread, and the counters of VMs that are gone. Thread: main; write_file runs on the file's own.
 *
 * Theory of operation: the text is made on the main thread from vms.h and handed over whole; while one is being written the next
 * waits as a mark that something changed. The thread wakes up a source that the main thread made, and nothing of GLib's is
 * allocated on one thread and freed on the other. A name is what somebody gave a VM, and two VMs may have one: a file with the
 * same series twice would be refused as a whole by its reader, so series are collected in a table by their labels, where gauges
 * keep the largest value and counters add up. What counts for the whole helper must not shrink when a VM goes: its last counters
 * are kept.
 */
#include "config.h"

#include "prhelper/metrics.h"

#include "prhelper/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PERIOD_S 15
#define PAUSE_MS 1000

typedef struct {
  guint64 conflicts, saves, loads, refused, rolled_back;
} Totals;

/* A VM that was seen. */
typedef struct {
  HfPeer peer;
  Totals totals;
} Seen;

/* One text on its way into the file: of the main thread and of the one that writes, freed by who lets go of it last. */
typedef struct {
  int references; /* atomic */
  int done;       /* atomic: reason is set */
  GSource *source;
  char *path, *text;
  int reason; /* errno; 0: written */
} Writing;

/* Ready when a file is written. */
typedef struct {
  GSource source;
  HfMetrics *metrics;
} DoneSource;

struct _HfMetrics {
  char *path;
  HfVms *vms;
  GHashTable *seen; /* Seen, a set by peer */
  Totals gone;
  Writing *writing; /* NULL: none */
  GSource *done_source;
  gboolean dirty;
  int last_reason; /* so that a failure is said once */
  guint period_source, pause_source;
};

/* ---- the text ---- */

typedef enum {
  REGISTERED,
  RESERVATION_TYPE,
  STALE,
  PATHS,
  PATHS_REGISTERED,
  N_LU_FAMILIES,
  CONNECTIONS = N_LU_FAMILIES,
  GAP,
  VMS,
  COMMANDS,
  READS,
  CONFLICTS,
  SAVES,
  MIGRATIONS,
  N_FAMILIES
} Family;

static const struct {
  const char *name, *help;
  gboolean counter;
} families[] = {
  [REGISTERED] = { "holdfast_pr_registered", "1: the VM has a key on the LU; 0: it had one, or tried.", FALSE },
  [RESERVATION_TYPE] = { "holdfast_pr_reservation_type", "Type of the reservation that the VM holds (SPC-4 6.15.3.4); 0: none.",
                         FALSE },
  [STALE] = { "holdfast_pr_state_stale", "1: an answer was lost, what the VM holds is not known until the LU is read.", FALSE },
  [PATHS] = { "holdfast_pr_paths", "Device nodes through which the VM used the LU.", FALSE },
  [PATHS_REGISTERED] = { "holdfast_pr_paths_registered", "Those of them with a key.", FALSE },
  [CONNECTIONS] = { "holdfast_pr_connections", "Connections of the VM to the helper.", FALSE },
  [GAP] = { "holdfast_pr_reclaim_gap_seconds", "From the last Save to the end of the reclaim after it.", FALSE },
  [VMS] = { "holdfast_pr_vms", "VMs that the helper knows.", FALSE },
  [COMMANDS] = { "holdfast_pr_commands_total", "PERSISTENT RESERVE OUT commands by service action and answer.", TRUE },
  [READS] = { "holdfast_pr_reads_total", "PERSISTENT RESERVE IN commands.", TRUE },
  [CONFLICTS] = { "holdfast_pr_conflicts_total", "RESERVATION CONFLICTs because another VM uses the nexus.", TRUE },
  [SAVES] = { "holdfast_pr_saves_total", "Saves of a VM's reservations.", TRUE },
  [MIGRATIONS] = { "holdfast_pr_migrations_total", "Migrations to this host by result.", TRUE },
};
G_STATIC_ASSERT (G_N_ELEMENTS (families) == N_FAMILIES);

/* Several nodes of one LU are one series. */
typedef struct {
  guint paths, registered;
  guint8 type;
  gboolean stale;
} LuSum;

/* Labels as they are written -> value, for each family; those of LUs, which are many, share their labels. */
typedef struct {
  GHashTable *series[N_FAMILIES]; /* of double; NULL: a family of LUs */
  GHashTable *lus;                /* of LuSum */
} Table;

/* The text format: in a label's value backslash, quote and newline are escaped, all else stands for itself, in UTF-8. */
static char *
escape (const char *value)
{
  g_autofree char *valid = g_utf8_make_valid (value, -1);
  GString *text = g_string_new (NULL);

  for (const char *p = valid; *p; p++)
    if (*p == '\n')
      g_string_append (text, "\\n");
    else if (*p == '\\' || *p == '"')
      g_string_append_printf (text, "\\%c", *p);
    else
      g_string_append_c (text, *p);
  return g_string_free (text, FALSE);
}

/* Pairs of name and value, NULL at the end. Free with g_free. */
static char *labels_new (const char *first, ...) G_GNUC_NULL_TERMINATED;

static char *
labels_new (const char *first, ...)
{
  GString *text = g_string_new (NULL);
  va_list arguments;

  va_start (arguments, first);
  for (const char *name = first; name; name = va_arg (arguments, const char *)) {
    g_autofree char *value = escape (va_arg (arguments, const char *));
    g_string_append_printf (text, "%s%s=\"%s\"", text->len ? "," : "", name, value);
  }
  va_end (arguments);
  return g_string_free (text, FALSE);
}

/* labels is taken over. */
static void
put (Table *table, Family family, char *labels, double value)
{
  double *old = g_hash_table_lookup (table->series[family], labels);

  if (old) {
    *old = families[family].counter ? *old + value : MAX (*old, value);
    g_free (labels);
    return;
  }
  g_hash_table_insert (table->series[family], labels, g_memdup2 (&value, sizeof value));
}

static double
value_of_lu (Family family, const LuSum *sum)
{
  const double values[] = { [REGISTERED] = sum->registered > 0,
                            [RESERVATION_TYPE] = sum->type,
                            [STALE] = sum->stale,
                            [PATHS] = sum->paths,
                            [PATHS_REGISTERED] = sum->registered };

  G_STATIC_ASSERT (G_N_ELEMENTS (values) == N_LU_FAMILIES);
  return values[family];
}

/* labels: sorted, of table. */
static void
print_family (const Table *table, Family family, GList *labels, GString *text)
{
  const char *name = families[family].name;

  if (!labels)
    return;
  g_string_append_printf (text, "# HELP %s %s\n# TYPE %s %s\n", name, families[family].help, name,
                          families[family].counter ? "counter" : "gauge");
  for (GList *l = labels; l; l = l->next) {
    const char *set = l->data;
    double value = family < N_LU_FAMILIES ? value_of_lu (family, g_hash_table_lookup (table->lus, set))
                                          : *(double *)g_hash_table_lookup (table->series[family], set);
    char number[G_ASCII_DTOSTR_BUF_SIZE];

    g_string_append (text, name);
    if (*set) {
      g_string_append_c (text, '{');
      g_string_append (text, set);
      g_string_append_c (text, '}');
    }
    g_string_append_c (text, ' ');
    g_string_append (text, g_ascii_dtostr (number, sizeof number, value));
    g_string_append_c (text, '\n');
  }
}

static void
print_table (const Table *table, GString *text)
{
  g_autoptr (GList) lus = g_list_sort (g_hash_table_get_keys (table->lus), (GCompareFunc)strcmp);

  for (guint i = 0; i < N_LU_FAMILIES; i++)
    print_family (table, i, lus, text);
  for (guint i = N_LU_FAMILIES; i < N_FAMILIES; i++) {
    g_autoptr (GList) labels = g_list_sort (g_hash_table_get_keys (table->series[i]), (GCompareFunc)strcmp);

    print_family (table, i, labels, text);
  }
}

/* ---- what is known ---- */

static const char *const answer_names[] = { "GOOD", "RESERVATION CONFLICT", "other", "none" };
G_STATIC_ASSERT (G_N_ELEMENTS (answer_names) == G_N_ELEMENTS (((HfVmCounters *)NULL)->commands[0]));

static guint
seen_hash (gconstpointer data)
{
  const Seen *seen = data;

  return (guint)seen->peer.pid * 31 + (guint)seen->peer.start_time;
}

static gboolean
seen_equal (gconstpointer a, gconstpointer b)
{
  const HfPeer *one = &((const Seen *)a)->peer, *other = &((const Seen *)b)->peer;

  return one->pid == other->pid && one->start_time == other->start_time;
}

static void
look_at (HfMetrics *metrics, HfVm *vm)
{
  const HfVmCounters *counters = hf_vm_get_counters (vm);
  const Seen key = { .peer = *hf_vm_get_peer (vm) };
  Seen *seen = g_hash_table_lookup (metrics->seen, &key);

  if (!seen) {
    seen = g_memdup2 (&key, sizeof key);
    g_hash_table_add (metrics->seen, seen);
  }
  seen->totals = (Totals){ .conflicts = counters->conflicts,
                           .saves = counters->saves,
                           .loads = counters->loads,
                           .refused = counters->refused,
                           .rolled_back = counters->rolled_back };
}

static void
totals_add (Totals *to, const Totals *from)
{
  to->conflicts += from->conflicts;
  to->saves += from->saves;
  to->loads += from->loads;
  to->refused += from->refused;
  to->rolled_back += from->rolled_back;
}

/* VMs that are not in vms any more move from seen to gone. Returns the sum of all. */
static Totals
settle (HfMetrics *metrics, GPtrArray *vms)
{
  g_autoptr (GHashTable) here = g_hash_table_new (seen_hash, seen_equal);
  GHashTableIter iter;
  Totals sum;
  gpointer seen;

  for (guint i = 0; i < vms->len; i++) {
    const Seen key = { .peer = *hf_vm_get_peer (vms->pdata[i]) };

    look_at (metrics, vms->pdata[i]);
    g_hash_table_add (here, g_hash_table_lookup (metrics->seen, &key));
  }
  g_hash_table_iter_init (&iter, metrics->seen);
  while (g_hash_table_iter_next (&iter, &seen, NULL))
    if (!g_hash_table_contains (here, seen)) {
      totals_add (&metrics->gone, &((Seen *)seen)->totals);
      g_hash_table_iter_remove (&iter);
    }
  sum = metrics->gone;
  g_hash_table_iter_init (&iter, metrics->seen);
  while (g_hash_table_iter_next (&iter, &seen, NULL))
    totals_add (&sum, &((Seen *)seen)->totals);
  return sum;
}

/* labels is taken over. */
static void
put_lu (Table *table, char *labels, const LuSum *sum)
{
  LuSum *old = g_hash_table_lookup (table->lus, labels);

  if (!old) {
    g_hash_table_insert (table->lus, labels, g_memdup2 (sum, sizeof *sum));
    return;
  }
  *old = (LuSum){ .paths = MAX (old->paths, sum->paths),
                  .registered = MAX (old->registered, sum->registered),
                  .type = MAX (old->type, sum->type),
                  .stale = old->stale || sum->stale };
  g_free (labels);
}

static void
put_lus (Table *table, const char *vm, const HfVmImage *image)
{
  g_autoptr (GHashTable) lus = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, g_free);
  GHashTableIter iter;
  gpointer name, value;

  for (guint i = 0; i < image->held->len; i++) {
    const HfHeld *held = &g_array_index (image->held, HfHeld, i);
    char *wwid = held->identified ? hf_lu_identity_to_string (&held->identity)
                                  : g_strdup_printf ("%s %u:%u", held->block ? "block" : "char", held->major, held->minor);
    LuSum *sum = g_hash_table_lookup (lus, wwid);

    if (sum)
      g_free (wwid);
    else
      g_hash_table_insert (lus, wwid, sum = g_new0 (LuSum, 1));
    sum->paths++;
    sum->registered += held->state.key != 0;
    sum->type = MAX (sum->type, held->state.type);
    sum->stale |= held->state.uncertain;
  }
  g_hash_table_iter_init (&iter, lus);
  while (g_hash_table_iter_next (&iter, &name, &value))
    put_lu (table, labels_new ("wwid", name, "vm", vm, NULL), value);
}

static void
put_vm (Table *table, HfVm *vm)
{
  g_autoptr (HfVmImage) image = hf_vm_get_image (vm);
  const HfVmCounters *counters = hf_vm_get_counters (vm);
  const char *name = hf_vm_get_name (vm);

  put_lus (table, name, image);
  put (table, CONNECTIONS, labels_new ("vm", name, NULL), hf_vm_get_connections (vm));
  put (table, READS, labels_new ("vm", name, NULL), (double)counters->reads);
  if (counters->last_gap_us >= 0)
    put (table, GAP, labels_new ("vm", name, NULL), (double)counters->last_gap_us / G_USEC_PER_SEC);
  for (guint8 action = 0; action < G_N_ELEMENTS (counters->commands); action++)
    for (guint i = 0; i < G_N_ELEMENTS (answer_names); i++)
      if (counters->commands[action][i])
        put (table, COMMANDS, labels_new ("vm", name, "sa", hf_pr_out_action_to_string (action), "status", answer_names[i], NULL),
             (double)counters->commands[action][i]);
}

char *
hf_metrics_to_string (HfMetrics *metrics)
{
  g_autoptr (GPtrArray) vms = hf_vms_list (metrics->vms);
  Totals sum = settle (metrics, vms);
  GString *text = g_string_new (NULL);
  Table table = { .lus = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, g_free) };

  for (guint i = N_LU_FAMILIES; i < N_FAMILIES; i++)
    table.series[i] = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, g_free);
  for (guint i = 0; i < vms->len; i++)
    put_vm (&table, vms->pdata[i]);
  put (&table, VMS, g_strdup (""), vms->len);
  put (&table, CONFLICTS, g_strdup (""), (double)sum.conflicts);
  put (&table, SAVES, g_strdup (""), (double)sum.saves);
  put (&table, MIGRATIONS, labels_new ("result", "ok", NULL), (double)sum.loads);
  put (&table, MIGRATIONS, labels_new ("result", "refused", NULL), (double)sum.refused);
  put (&table, MIGRATIONS, labels_new ("result", "rolled_back", NULL), (double)sum.rolled_back);
  print_table (&table, text);
  g_hash_table_unref (table.lus);
  for (guint i = N_LU_FAMILIES; i < N_FAMILIES; i++)
    g_hash_table_unref (table.series[i]);
  return g_string_free (text, FALSE);
}

/* ---- the file ---- */

static void
writing_unref (Writing *writing)
{
  if (!g_atomic_int_dec_and_test (&writing->references))
    return;
  g_source_unref (writing->source);
  g_free (writing->path);
  g_free (writing->text);
  g_free (writing);
}

static Writing *
writing_new (HfMetrics *metrics)
{
  Writing *writing = g_new0 (Writing, 1);

  writing->references = 2;
  writing->source = g_source_ref (metrics->done_source);
  writing->path = g_strdup (metrics->path);
  writing->text = hf_metrics_to_string (metrics);
  return writing;
}

static gboolean
write_all (int fd, const char *text)
{
  for (gsize left = strlen (text); left;) {
    ssize_t n = write (fd, text, left);

    if (n < 0 && errno != EINTR)
      return FALSE;
    text += MAX (n, 0);
    left -= (gsize)MAX (n, 0);
  }
  return TRUE;
}

/* 0 or errno. The reader takes NAME.prom only, so the name of the half-written file is always the same: what a crash leaves is
   replaced. */
static int
replace_file (const char *path, const char *text)
{
  g_autofree char *new_path = g_strconcat (path, ".tmp", NULL);
  gboolean ok;
  int fd, reason;

  if (unlink (new_path) < 0 && errno != ENOENT)
    return errno;
  fd = open (new_path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
  if (fd < 0)
    return errno;
  /* Whatever the umask says: the reader is another user. */
  ok = fchmod (fd, 0644) == 0 && write_all (fd, text);
  reason = ok ? 0 : errno;
  if (close (fd) < 0 && !reason)
    reason = errno;
  if (!reason && rename (new_path, path) < 0)
    reason = errno;
  if (reason)
    unlink (new_path);
  return reason;
}

static void update (HfMetrics *metrics);

static gboolean
on_pause_end (gpointer user_data)
{
  HfMetrics *metrics = user_data;

  metrics->pause_source = 0;
  if (metrics->dirty)
    update (metrics);
  return G_SOURCE_REMOVE;
}

static gboolean
on_done (GSource *source, GSourceFunc callback, gpointer user_data)
{
  HfMetrics *metrics = ((DoneSource *)source)->metrics;
  Writing *writing = metrics->writing;

  g_source_set_ready_time (source, -1);
  if (!writing || !g_atomic_int_get (&writing->done))
    return G_SOURCE_CONTINUE;
  metrics->writing = NULL;
  if (writing->reason && writing->reason != metrics->last_reason)
    hf_log (HF_LOG_WARNING, "%s: metrics cannot be written: %s", writing->path, g_strerror (writing->reason));
  metrics->last_reason = writing->reason;
  writing_unref (writing);
  if (metrics->dirty && !metrics->pause_source)
    update (metrics);
  return G_SOURCE_CONTINUE;
}

static GSourceFuncs done_functions = { .dispatch = on_done };

static gpointer
run_writing (gpointer data)
{
  Writing *writing = data;

  writing->reason = replace_file (writing->path, writing->text);
  g_atomic_int_set (&writing->done, 1);
  g_source_set_ready_time (writing->source, 0);
  writing_unref (writing);
  return NULL;
}

/* Writes now, or as soon as the pause is over and the file before is written. */
static void
update (HfMetrics *metrics)
{
  g_autoptr (GError) error = NULL;
  GThread *thread;

  metrics->dirty = metrics->writing || metrics->pause_source;
  if (metrics->dirty)
    return;
  metrics->writing = writing_new (metrics);
  metrics->pause_source = g_timeout_add (PAUSE_MS, on_pause_end, metrics);
  thread = g_thread_try_new ("metrics", run_writing, metrics->writing, &error);
  if (thread) {
    g_thread_unref (thread);
    return;
  }
  hf_log (HF_LOG_WARNING, "%s: metrics cannot be written: %s", metrics->path, error->message);
  writing_unref (metrics->writing);
  g_clear_pointer (&metrics->writing, writing_unref);
}

static gboolean
on_period (gpointer user_data)
{
  update (user_data);
  return G_SOURCE_CONTINUE;
}

void
hf_metrics_event (HfVm *vm, const HfVmEvent *event, gpointer user_data)
{
  HfMetrics *metrics = user_data;

  if (!metrics)
    return;
  /* It may be the last that is heard of this VM. */
  look_at (metrics, vm);
  update (metrics);
}

HfMetrics *
hf_metrics_new (const char *path, HfVms *vms)
{
  HfMetrics *metrics = g_new0 (HfMetrics, 1);

  metrics->path = g_strdup (path);
  metrics->vms = vms;
  metrics->seen = g_hash_table_new_full (seen_hash, seen_equal, g_free, NULL);
  metrics->done_source = g_source_new (&done_functions, sizeof (DoneSource));
  ((DoneSource *)metrics->done_source)->metrics = metrics;
  g_source_attach (metrics->done_source, NULL);
  metrics->period_source = g_timeout_add_seconds (PERIOD_S, on_period, metrics);
  update (metrics);
  return metrics;
}

void
hf_metrics_free (HfMetrics *metrics)
{
  if (!metrics)
    return;
  g_clear_handle_id (&metrics->period_source, g_source_remove);
  g_clear_handle_id (&metrics->pause_source, g_source_remove);
  g_source_destroy (metrics->done_source);
  g_source_unref (metrics->done_source);
  g_clear_pointer (&metrics->writing, writing_unref);
  g_hash_table_unref (metrics->seen);
  g_free (metrics->path);
  g_free (metrics);
}
