/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Save, Load, commit, abort, reclaim and release of a VM's LUs, on models of the LUs.
 *
 *     source: S1 S2          destination: D1 D2          third: T
 *        +----+-----------------------+----------------------+
 *                one LU, or two, each with its own type
 *
 * A device is the LU's number as major and the nexus as minor. HOLDFAST_FAIL kills this program, which runs itself for that: the
 * LUs live in a file that both map.
 */
#include "move-world.h"
#include "state-dir.h"

#include "base/fail.h"
#include "prhelper/migrate-private.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define LUS 3
#define DEAD_LU 99 /* a device that answers after DEAD_MS, with an error */
#define DEAD_MS 300
#define UA_RESET 0x2903
#define UA_REGISTRATIONS_PREEMPTED 0x2a05

static const guint8 types[] = { 0, 1, 3, 5, 6, 7, 8 };

/* What the opener finds. */
static World worlds[LUS];
static gboolean identified;
static guint outs; /* PERSISTENT RESERVE OUTs of all */

static HfLu *
open_model (const HfDevice *device, guint timeout_ms, GError **error)
{
  if (device->major != DEAD_LU)
    return hf_model_lu_new (&worlds[device->major].wire, device->minor, identified);
  g_usleep (DEAD_MS * 1000);
  g_set_error (error, HF_SCSI_ERROR, HF_SCSI_ERROR_TIMEOUT, "no answer");
  return NULL;
}

static void
count_outs (HfModel *model, guint nexus, guint index, const guint8 *cdb, gpointer user_data)
{
  if (cdb[0] == 0x5f)
    g_atomic_int_inc (&outs);
}

/* ---- what the tests share ---- */

typedef struct {
  HfModelQuirks quirks;
  gboolean blind, identified;
  guint n_lus, n_paths;
  guint8 type[LUS];
} Setting;

static guint64
key_of (guint lu)
{
  return K + lu; /* a key of another LU is no use here */
}

/* The guest registers through all its paths and reserves through the first. */
static void
start_guest (const Setting *setting)
{
  identified = setting->identified;
  outs = 0;
  for (guint i = 0; i < setting->n_lus; i++) {
    HfModel *model = &worlds[i].model;
    world_init (&worlds[i], setting->quirks, (guint8)i);
    worlds[i].wire.before = count_outs;
    model->refuse_full_status = setting->blind;
    hf_model_pr_out (model, T, IGNORE, 0, X, 0);
    for (guint path = 0; path < setting->n_paths; path++)
      hf_model_pr_out (model, S1 + path, IGNORE, 0, key_of (i), 0);
    if (setting->type[i] != 0)
      hf_model_pr_out (model, S1, RESERVE, key_of (i), 0, setting->type[i]);
  }
}

static void
stop_guest (const Setting *setting)
{
  for (guint i = 0; i < setting->n_lus; i++)
    world_clear (&worlds[i]);
}

static HfHolding *
add_device (GPtrArray *holdings, guint lu, guint nexus)
{
  HfDevice *device = g_new0 (HfDevice, 1);
  HfHolding *holding;

  *device =
      (HfDevice){ .fd = -1, .block = TRUE, .major = lu, .minor = nexus, .name = g_strdup_printf ("block %u:%u", lu, nexus) };
  holding = hf_holding_new (device);
  g_ptr_array_add (holdings, holding);
  return holding;
}

static GPtrArray *
new_holdings (void)
{
  return g_ptr_array_new_with_free_func ((GDestroyNotify)hf_holding_free);
}

static GPtrArray *
make_devices (const Setting *setting, guint first)
{
  GPtrArray *holdings = new_holdings ();

  for (guint i = 0; i < setting->n_lus; i++)
    for (guint path = 0; path < setting->n_paths; path++)
      add_device (holdings, i, first + path);
  return holdings;
}

/* As the helper has learnt it. */
static GPtrArray *
make_tracked (const Setting *setting)
{
  GPtrArray *holdings = make_devices (setting, S1);

  for (guint i = 0; i < holdings->len; i++) {
    HfHolding *holding = holdings->pdata[i];
    holding->tracked = TRUE;
    holding->state.key = key_of (holding->device->major);
    holding->state.type = holding->device->minor == S1 ? setting->type[holding->device->major] : 0;
  }
  return holdings;
}

static const HfMigrateOptions plain = { .on_change = HF_ON_CHANGE_ADOPT, .timeout_ms = 5000 };

static HfRecord *
save (GPtrArray *holdings)
{
  GError *error = NULL;
  HfRecord *record = hf_migrate_save ("vm", holdings, FALSE, &plain, &error);

  g_assert_no_error (error);
  g_assert_nonnull (record);
  return record;
}

/* As it travels. */
static HfRecord *
copy (const HfRecord *record)
{
  GError *error = NULL;
  g_autoptr (GBytes) bytes = hf_record_encode (record, &error);
  HfRecord *ret;

  g_assert_no_error (error);
  ret = hf_record_decode (g_bytes_get_data (bytes, NULL), g_bytes_get_size (bytes), &error);
  g_assert_no_error (error);
  return ret;
}

static gboolean
has_key (guint lu, guint nexus)
{
  return worlds[lu].model.nexuses[nexus].registered && worlds[lu].model.nexuses[nexus].key == key_of (lu);
}

static gboolean
is_exclusive (guint8 type)
{
  return type != 0 && type < 7;
}

static gboolean
holds (guint lu, guint first, guint n_paths)
{
  for (guint path = 0; path < n_paths; path++)
    if (hf_model_is_holder (&worlds[lu].model, first + path))
      return TRUE;
  return FALSE;
}

/* The VM has all it had, on the nexuses from first on. */
static void
assert_has (const Setting *setting, guint lu, guint first)
{
  for (guint path = 0; path < setting->n_paths; path++)
    g_assert_true (has_key (lu, first + path));
  g_assert_cmpuint (worlds[lu].model.type, ==, setting->type[lu]);
  if (setting->type[lu] != 0)
    g_assert_true (holds (lu, first, setting->n_paths));
}

static void
assert_not_registered (const Setting *setting, guint lu, guint first)
{
  for (guint path = 0; path < setting->n_paths; path++)
    g_assert_false (has_key (lu, first + path));
}

static void
fence (guint lu)
{
  HfModel *model = &worlds[lu].model;

  hf_model_pr_out (model, T, PREEMPT, X, key_of (lu), model->type != 0 ? model->type : 5);
  g_assert_cmpuint (hf_model_count_key (model, key_of (lu)), ==, 0);
}

static const HfLuReport *
find_report (const HfReport *report, guint lu)
{
  for (guint i = 0; i < report->n_lus; i++)
    if (report->lus[i].identity.designators[0].bytes[7] == (guint8)worlds[lu].model.naa)
      return &report->lus[i];
  g_assert_not_reached ();
}

static HfVerdict
usual_verdict (guint8 type)
{
  return type != 0 ? HF_VERDICT_MOVED : HF_VERDICT_REGISTERED;
}

/* ---- the whole way, with each disturbance ---- */

typedef enum {
  UNDISTURBED,
  FENCED_BEFORE_SAVE,
  FENCED_BEFORE_LOAD,
  FENCED_BEFORE_COMMIT,
  ABORTED,
  RECLAIMED,
} Event;
#define N_EVENTS (RECLAIMED + 1)

typedef struct {
  Setting setting;
  Event event;
  GPtrArray *source;
  HfRecord *record;
  HfLoad *load;
  char *state_dir;
  HfMigrateOptions options;
} Way;

/* Only the first LU is fenced; the others must not notice. */
static gboolean
is_fenced (const Way *way, guint lu, Event latest)
{
  return lu == 0 && way->event >= FENCED_BEFORE_SAVE && way->event <= FENCED_BEFORE_COMMIT && way->event <= latest;
}

static gboolean
waits (const Way *way, guint lu)
{
  guint8 type = way->setting.type[lu];

  return (type == 5 || type == 6) && way->setting.n_paths == 1 && !is_fenced (way, lu, FENCED_BEFORE_LOAD);
}

static void
assert_record (const Way *way)
{
  const Setting *setting = &way->setting;

  g_assert_cmpstr (way->record->vm, ==, "vm");
  g_assert_cmpuint (way->record->n_units, ==, setting->n_lus);
  for (guint i = 0; i < setting->n_lus; i++) {
    const HfPrSaved *saved = &way->record->units[i];
    gboolean fenced = is_fenced (way, i, FENCED_BEFORE_SAVE);
    g_assert_cmphex (saved->key, ==, fenced ? 0 : key_of (i));
    g_assert_cmpuint (saved->type, ==, fenced ? 0 : setting->type[i]);
    g_assert_cmpuint (saved->n_nexuses, ==, fenced ? 0 : setting->n_paths);
    g_assert_cmpuint (saved->key_count, ==, fenced ? 0 : setting->n_paths);
  }
}

static void
assert_holdings (const Way *way, GPtrArray *holdings, gboolean has, Event latest)
{
  for (guint i = 0; i < holdings->len; i++) {
    const HfHolding *holding = holdings->pdata[i];
    guint lu = holding->device->major;
    gboolean key = has && !is_fenced (way, lu, latest);
    guint8 type = key ? way->setting.type[lu] : 0;
    g_assert_true (holding->identified);
    g_assert_false (holding->state.uncertain);
    g_assert_cmphex (holding->state.key, ==, key ? key_of (lu) : 0);
    /* one of two is the holder */
    if (is_exclusive (type) && way->setting.n_paths == 2 && holding->state.type == 0) {
      g_assert_cmpuint (((HfHolding *)holdings->pdata[i ^ 1])->state.type, ==, type);
      type = 0;
    }
    g_assert_cmpuint (holding->state.type, ==, type);
  }
}

static void
load (Way *way)
{
  const Setting *setting = &way->setting;
  GError *error = NULL;
  HfReport *report = NULL;
  gboolean pending = FALSE;
  guint before = outs;

  way->load = hf_load_new (copy (way->record), make_devices (setting, D1), &way->options);
  g_assert_false (hf_load_is_pending (way->load));
  g_assert_true (hf_load_check (way->load, &report, &error));
  g_assert_no_error (error);
  g_assert_cmpuint (report->n_lus, ==, setting->n_lus);
  g_assert_cmpuint (outs, ==, before);
  g_clear_pointer (&report, hf_report_free);
  g_assert_true (hf_load_run (way->load, &report, &error));
  g_assert_no_error (error);
  for (guint i = 0; i < setting->n_lus; i++) {
    const HfLuReport *lu = find_report (report, i);
    gboolean none = is_fenced (way, i, FENCED_BEFORE_SAVE), fenced = !none && is_fenced (way, i, FENCED_BEFORE_LOAD);
    pending |= waits (way, i) || (!none && !fenced && !is_exclusive (setting->type[i]));
    g_assert_cmpint (lu->prepared, ==, waits (way, i));
    g_assert_cmpstr (hf_verdict_to_string (lu->verdict), ==,
                     hf_verdict_to_string (none     ? HF_VERDICT_NONE
                                           : fenced ? HF_VERDICT_FENCED
                                                    : usual_verdict (setting->type[i])));
    g_assert_cmpint (lu->warning, ==, fenced);
    g_assert_cmphex (lu->key, ==, none || fenced ? 0 : key_of (i));
    if (none || fenced) {
      g_assert_cmpuint (hf_model_count_key (&worlds[i].model, key_of (i)), ==, 0);
      continue;
    }
    for (guint path = 0; path < setting->n_paths; path++)
      g_assert_true (has_key (i, D1 + path));
    g_assert_cmpuint (worlds[i].model.type, ==, setting->type[i]);
    g_assert_cmpint (has_key (i, S1), ==, !is_exclusive (setting->type[i]) || waits (way, i));
  }
  g_assert_cmpint (hf_load_is_pending (way->load), ==, pending);
  assert_holdings (way, hf_load_get_holdings (way->load), TRUE, FENCED_BEFORE_LOAD);
  hf_report_free (report);
}

static void
commit (Way *way)
{
  const Setting *setting = &way->setting;
  GError *error = NULL;
  HfReport *report = NULL;

  g_assert_true (hf_load_commit (way->load, &report, &error));
  g_assert_no_error (error);
  g_assert_false (hf_load_is_pending (way->load));
  for (guint i = 0; i < setting->n_lus; i++) {
    g_assert_false (find_report (report, i)->prepared);
    if (is_fenced (way, i, FENCED_BEFORE_COMMIT)) {
      g_assert_cmpuint (hf_model_count_key (&worlds[i].model, key_of (i)), ==, 0);
      /* Where the take-over came before, the fence came after this migration, and is nobody's news here. */
      if (waits (way, i))
        g_assert_cmpint (find_report (report, i)->verdict, ==, HF_VERDICT_FENCED);
      continue;
    }
    assert_has (setting, i, D1);
    if (is_exclusive (setting->type[i]))
      assert_not_registered (setting, i, S1);
  }
  if (way->event != FENCED_BEFORE_COMMIT || waits (way, 0))
    assert_holdings (way, hf_load_get_holdings (way->load), TRUE, FENCED_BEFORE_COMMIT);
  hf_report_free (report);
  /* A second proof changes nothing. */
  g_assert_true (hf_load_commit (way->load, NULL, &error));
  g_assert_no_error (error);
}

/* What is left on the source goes, and only there. */
static void
release (Way *way)
{
  const Setting *setting = &way->setting;
  GError *error = NULL;
  HfReport *report = NULL;

  g_assert_true (hf_migrate_release (way->record, way->source, &way->options, &report, &error));
  g_assert_no_error (error);
  for (guint i = 0; i < setting->n_lus; i++) {
    assert_not_registered (setting, i, S1);
    g_assert_cmphex (find_report (report, i)->key, ==, 0);
    if (!is_fenced (way, i, FENCED_BEFORE_COMMIT))
      assert_has (setting, i, D1);
  }
  for (guint i = 0; i < way->source->len; i++)
    g_assert_cmphex (((HfHolding *)way->source->pdata[i])->state.key, ==, 0);
  hf_report_free (report);
}

static void
take_back (Way *way)
{
  const Setting *setting = &way->setting;
  GError *error = NULL;

  g_assert_true (hf_load_abort (way->load, NULL, &error));
  g_assert_no_error (error);
  g_assert_false (hf_load_is_pending (way->load));
  for (guint i = 0; i < setting->n_lus; i++) {
    gboolean committed = is_exclusive (setting->type[i]) && !waits (way, i);
    if (committed)
      assert_has (setting, i, D1);
    else
      assert_not_registered (setting, i, D1);
    if (!committed)
      assert_has (setting, i, S1);
  }
}

static void
reclaim (Way *way)
{
  const Setting *setting = &way->setting;
  GError *error = NULL;
  HfReport *report = NULL;

  g_assert_true (hf_migrate_reclaim (way->record, way->source, &way->options, &report, &error));
  g_assert_no_error (error);
  for (guint i = 0; i < setting->n_lus; i++) {
    assert_has (setting, i, S1);
    g_assert_cmphex (find_report (report, i)->key, ==, key_of (i));
    if (is_exclusive (setting->type[i]))
      assert_not_registered (setting, i, D1);
  }
  assert_holdings (way, way->source, TRUE, UNDISTURBED);
  hf_report_free (report);
}

static gboolean
is_any_journal_left (const char *folder)
{
  g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
  const char *name;

  while (dir != NULL && (name = g_dir_read_name (dir)) != NULL) {
    g_autofree char *path = g_build_filename (folder, name, NULL);
    if (g_str_has_suffix (name, ".journal") || is_any_journal_left (path))
      return TRUE;
  }
  return FALSE;
}

static void
run_events (Way *way)
{
  if (way->event == FENCED_BEFORE_SAVE)
    fence (0);
  way->record = save (way->source);
  assert_record (way);
  assert_holdings (way, way->source, TRUE, FENCED_BEFORE_SAVE);
  if (way->event == FENCED_BEFORE_LOAD)
    fence (0);
  load (way);
  if (way->event == FENCED_BEFORE_COMMIT)
    fence (0);
  if (way->event == ABORTED) {
    take_back (way);
    reclaim (way);
    return;
  }
  commit (way);
  if (way->event == RECLAIMED)
    reclaim (way);
  else
    release (way);
}

static void
run_way (const Setting *setting, Event event)
{
  Way way = { .setting = *setting, .event = event, .state_dir = make_state_dir (), .options = plain };

  start_guest (setting);
  way.options.state_dir = way.state_dir;
  way.source = make_tracked (setting);
  run_events (&way);
  /* Where equal keys are counted, the journal of a registration stays as long as the other host's. */
  if (setting->identified && !setting->blind && setting->quirks != HF_MODEL_TGT)
    g_assert_false (is_any_journal_left (way.state_dir));
  hf_load_free (way.load);
  hf_record_free (way.record);
  g_ptr_array_unref (way.source);
  remove_folder (way.state_dir);
  g_free (way.state_dir);
  stop_guest (setting);
}

static void
each_target (Setting *setting, guint *ret_runs)
{
  for (setting->quirks = 0; setting->quirks < HF_N_MODEL_QUIRKS; setting->quirks++)
    for (setting->blind = FALSE; setting->blind <= TRUE; setting->blind++)
      for (setting->identified = FALSE; setting->identified <= TRUE; setting->identified++)
        for (Event event = 0; event < N_EVENTS; event++, ++*ret_runs)
          run_way (setting, event);
}

static void
test_one_lu (void)
{
  guint runs = 0;

  for (guint i = 0; i < G_N_ELEMENTS (types); i++) {
    Setting setting = { .n_lus = 1, .n_paths = 1, .type = { types[i] } };
    each_target (&setting, &runs);
  }
  g_assert_cmpuint (runs, ==, G_N_ELEMENTS (types) * 3 * 2 * 2 * N_EVENTS);
}

/* One key on two nexuses: a guest's multipath. */
static void
test_two_nexuses (void)
{
  guint runs = 0;

  for (guint i = 0; i < G_N_ELEMENTS (types); i++) {
    Setting setting = { .n_lus = 1, .n_paths = 2, .type = { types[i] } };
    each_target (&setting, &runs);
  }
  g_assert_cmpuint (runs, >, 400);
}

/* One that cannot wait, one that does, one without a take-over: each way round, because the first is the one that is fenced. */
static void
test_three_lus (void)
{
  static const guint8 orders[][LUS] = { { 1, 5, 7 }, { 5, 7, 1 }, { 7, 1, 5 }, { 6, 0, 3 }, { 0, 6, 8 } };
  guint runs = 0;

  for (guint i = 0; i < G_N_ELEMENTS (orders); i++) {
    Setting setting = { .n_lus = LUS, .n_paths = 1 };
    memcpy (setting.type, orders[i], sizeof setting.type);
    each_target (&setting, &runs);
  }
  g_assert_cmpuint (runs, >, 300);
}

/* ---- one host is both sides ---- */

/* Nothing is sent that changes anything, and the release of what is the VM's own is refused. */
static void
test_same_host (void)
{
  for (guint i = 0; i < G_N_ELEMENTS (types); i++)
    for (guint n_paths = 1; n_paths <= 2; n_paths++) {
      Setting setting = { .quirks = HF_MODEL_LIO, .identified = TRUE, .n_lus = 1, .n_paths = n_paths, .type = { types[i] } };
      g_autoptr (GPtrArray) source = make_tracked (&setting);
      g_autoptr (HfRecord) record = NULL;
      HfReport *report = NULL;
      GError *error = NULL;
      guint32 generation;
      HfLoad *it;

      start_guest (&setting);
      record = save (source);
      generation = worlds[0].model.generation;
      it = hf_load_new (copy (record), make_devices (&setting, S1), &plain);
      g_assert_true (hf_load_run (it, &report, &error));
      g_assert_cmpint (report->lus[0].verdict, ==, HF_VERDICT_UNCHANGED);
      g_assert_cmphex (report->lus[0].key, ==, K);
      g_assert_false (hf_load_is_pending (it));
      g_clear_pointer (&report, hf_report_free);
      g_assert_true (hf_load_commit (it, NULL, &error));
      g_assert_false (hf_migrate_release (record, source, &plain, &report, &error));
      g_assert_error (error, HF_MIGRATE_ERROR, HF_MIGRATE_ERROR_REFUSED);
      g_assert_cmpint (report->lus[0].verdict, ==, HF_VERDICT_REFUSED);
      g_assert_nonnull (report->lus[0].text);
      g_assert_nonnull (strstr (error->message, report->lus[0].name));
      g_assert_cmphex (((HfHolding *)source->pdata[0])->state.key, ==, K);
      g_clear_error (&error);
      assert_has (&setting, 0, S1);
      g_assert_cmpuint (worlds[0].model.generation, ==, generation);
      hf_report_free (report);
      hf_load_free (it);
      stop_guest (&setting);
    }
}

/* ---- Save ---- */

static const Setting lio_5 = { .quirks = HF_MODEL_LIO, .identified = TRUE, .n_lus = 1, .n_paths = 1, .type = { 5 } };
static const Setting lio_5_two_paths = { .quirks = HF_MODEL_LIO, .identified = TRUE, .n_lus = 1, .n_paths = 2, .type = { 5 } };

static void
assert_no_save (GPtrArray *holdings, const char *cause)
{
  GError *error = NULL;

  g_assert_null (hf_migrate_save ("vm", holdings, FALSE, &plain, &error));
  g_assert_error (error, HF_MIGRATE_ERROR, HF_MIGRATE_ERROR_SAVE);
  g_assert_nonnull (strstr (error->message, cause));
  g_clear_error (&error);
}

static void
test_save_nothing (void)
{
  g_autoptr (GPtrArray) holdings = make_devices (&lio_5, S1);
  g_autoptr (HfRecord) record = NULL;
  g_autoptr (HfRecord) again = NULL;

  start_guest (&lio_5);
  add_device (holdings, DEAD_LU, 0);
  record = save (holdings);
  g_assert_cmpuint (record->n_units, ==, 0);
  again = copy (record);
  g_assert_cmpuint (worlds[0].wire.n_commands, ==, 0); /* what is not tracked is not asked */
  stop_guest (&lio_5);
}

/* An unclear REGISTER: the one key that is listed is the guest's; if both are, nobody knows. By its own name the nexus tells. */
static void
test_save_uncertain (void)
{
  for (guint known = 0; known < 2; known++)
    for (guint executed = 0; executed < 2; executed++) {
      Setting setting = lio_5;
      g_autoptr (GPtrArray) holdings = make_tracked (&setting);
      g_autoptr (HfRecord) record = NULL;
      HfHolding *holding = holdings->pdata[0];
      setting.identified = known;
      start_guest (&setting);
      holding->state.uncertain = TRUE;
      holding->candidate_key = 0x77;
      if (executed)
        hf_model_pr_out (&worlds[0].model, S1, REGISTER, K, 0x77, 0);
      record = save (holdings);
      g_assert_cmphex (record->units[0].key, ==, executed ? 0x77 : K);
      g_assert_cmpuint (record->units[0].type, ==, 5);
      g_assert_false (holding->state.uncertain);
      g_assert_cmphex (holding->state.key, ==, executed ? 0x77 : K);
      g_assert_cmphex (holding->candidate_key, ==, 0);

      holding->state.uncertain = TRUE;
      holding->state.key = K;
      holding->candidate_key = 0x77;
      hf_model_pr_out (&worlds[0].model, D1, IGNORE, 0, executed ? K : 0x77, 0);
      if (known) {
        g_clear_pointer (&record, hf_record_free);
        record = save (holdings);
        g_assert_cmphex (record->units[0].key, ==, executed ? 0x77 : K);
      } else {
        assert_no_save (holdings, "0x77");
        g_assert_true (holding->state.uncertain);
      }
      stop_guest (&setting);
    }
}

/* A command that was not understood may have registered any key: only the nexus' own name tells, or that there is none. */
static void
test_save_no_key_to_look_for (void)
{
  for (guint known = 0; known < 2; known++) {
    Setting setting = lio_5;
    g_autoptr (GPtrArray) holdings = make_tracked (&setting);
    g_autoptr (HfRecord) record = NULL;
    HfHolding *holding = holdings->pdata[0];

    setting.identified = known;
    start_guest (&setting);
    holding->state = (HfPrState){ .uncertain = TRUE };
    if (known) {
      record = save (holdings);
      g_assert_cmphex (record->units[0].key, ==, K);
      g_assert_cmpuint (record->units[0].type, ==, 5);
    } else {
      assert_no_save (holdings, "cannot be told");
      g_assert_true (holding->state.uncertain);
      hf_model_pr_out (&worlds[0].model, T, CLEAR, X, 0, 0);
      record = save (holdings);
      g_assert_cmphex (record->units[0].key, ==, 0);
      g_assert_false (holding->state.uncertain);
    }
    stop_guest (&setting);
  }
}

static void
test_save_different_keys (void)
{
  g_autoptr (GPtrArray) holdings = make_tracked (&lio_5_two_paths);

  start_guest (&lio_5_two_paths);
  hf_model_pr_out (&worlds[0].model, S2, REGISTER, K, 0x77, 0);
  ((HfHolding *)holdings->pdata[1])->state.key = 0x77;
  assert_no_save (holdings, "different keys");
  stop_guest (&lio_5_two_paths);
}

/* A path that is open and not registered is no nexus of the VM's. */
static void
test_save_unregistered_path (void)
{
  g_autoptr (GPtrArray) holdings = make_tracked (&lio_5_two_paths);
  g_autoptr (HfRecord) record = NULL;

  start_guest (&lio_5_two_paths);
  hf_model_pr_out (&worlds[0].model, S2, REGISTER, K, 0, 0);
  ((HfHolding *)holdings->pdata[1])->state = (HfPrState){ 0 };
  record = save (holdings);
  g_assert_cmpuint (record->units[0].n_nexuses, ==, 1);
  g_assert_cmpuint (record->units[0].key_count, ==, 1);
  g_clear_pointer (&record, hf_record_free);
  /* and one that the helper believes to be registered is asked */
  ((HfHolding *)holdings->pdata[1])->state.key = K;
  record = save (holdings);
  g_assert_cmpuint (record->units[0].n_nexuses, ==, 1);
  g_assert_cmphex (((HfHolding *)holdings->pdata[1])->state.key, ==, 0);
  stop_guest (&lio_5_two_paths);
}

/* A dead device fails the Save if the guest may hold something there; a dead path of an LU that answers elsewhere does not. */
static void
test_save_dead (void)
{
  g_autoptr (GPtrArray) holdings = make_tracked (&lio_5_two_paths);
  g_autoptr (HfRecord) record = NULL;
  HfHolding *holding;

  start_guest (&lio_5_two_paths);
  g_ptr_array_unref (hf_migrate_open (holdings, NULL, 1000));
  holding = holdings->pdata[1];
  holding->device->major = DEAD_LU;
  record = save (holdings);
  g_assert_cmpuint (record->units[0].n_nexuses, ==, 2);
  holding->identified = FALSE;
  assert_no_save (holdings, holding->device->name);
  holding->state = (HfPrState){ .uncertain = TRUE };
  assert_no_save (holdings, holding->device->name);
  holding->state.uncertain = FALSE;
  g_clear_pointer (&record, hf_record_free);
  record = save (holdings);
  g_assert_cmpuint (record->units[0].n_nexuses, ==, 1);
  stop_guest (&lio_5_two_paths);
}

/* What was registered before the helper began to watch, by READ FULL STATUS only. */
static void
test_save_adopt (void)
{
  for (guint blind = 0; blind < 2; blind++)
    for (guint known = 0; known < 2; known++) {
      Setting setting = lio_5;
      g_autoptr (GPtrArray) holdings = make_devices (&setting, S1);
      g_autoptr (HfRecord) record = NULL;
      GError *error = NULL;
      gboolean told = !blind && known;
      setting.blind = blind;
      setting.identified = known;
      start_guest (&setting);
      hf_model_pr_out (&worlds[0].model, S1, REGISTER, K, K, 0);
      add_device (holdings, 0, S2);
      add_device (holdings, DEAD_LU, 0);
      record = hf_migrate_save (NULL, holdings, TRUE, &plain, &error);
      g_assert_no_error (error);
      g_assert_cmpuint (record->n_units, ==, told);
      g_assert_cmpint (((HfHolding *)holdings->pdata[0])->tracked, ==, told);
      g_assert_false (((HfHolding *)holdings->pdata[1])->tracked);
      if (told) {
        g_assert_cmphex (record->units[0].key, ==, K);
        g_assert_cmpuint (record->units[0].type, ==, 5);
        g_assert_cmpuint (record->units[0].n_nexuses, ==, 1);
      }
      stop_guest (&setting);
    }
}

static void
test_save_flags (void)
{
  g_autoptr (GPtrArray) holdings = make_tracked (&lio_5);
  g_autoptr (HfRecord) record = NULL;
  HfHolding *holding = holdings->pdata[0];

  start_guest (&lio_5);
  holding->state.all_tg_pt = TRUE;
  record = save (holdings);
  g_assert_true (record->units[0].all_tg_pt);
  g_assert_false (record->units[0].aptpl);
  worlds[0].model.aptpl = TRUE;
  g_clear_pointer (&record, hf_record_free);
  record = save (holdings);
  g_assert_true (record->units[0].aptpl);
  stop_guest (&lio_5);
}

/* A device that is none of SCSI's, opened as in earnest: it is nobody's LU, and an error only if something is held there. */
static void
test_not_scsi (void)
{
  g_autoptr (GPtrArray) holdings = new_holdings ();
  g_autoptr (HfRecord) record = NULL;
  GError *error = NULL;
  int fd = open ("/dev/null", O_RDWR | O_CLOEXEC);
  HfDevice *device = hf_device_new (fd, &error);
  HfHolding *holding;

  g_assert_no_error (error);
  close (fd);
  holding = hf_holding_new (device);
  g_ptr_array_add (holdings, holding);
  hf_migrate_set_opener (NULL);
  hf_migrate_identify (holdings, 1000);
  g_assert_false (holding->identified);
  g_assert_cmpint (fcntl (holding->device->fd, F_GETFD), >=, 0); /* a copy was used */
  record = hf_migrate_save ("vm", holdings, TRUE, &plain, &error);
  g_assert_no_error (error);
  g_assert_cmpuint (record->n_units, ==, 0);
  holding->tracked = TRUE;
  holding->state.key = K;
  assert_no_save (holdings, "SG_IO");
  hf_migrate_set_opener (open_model);
}

/* ---- Load: what is refused ---- */

typedef struct {
  HfRecord *record;
  GPtrArray *source;
  HfLoad *load;
  HfReport *report;
  GError *error;
} Step;

static void
step_init (Step *step, const Setting *setting)
{
  *step = (Step){ 0 };
  start_guest (setting);
  step->source = make_tracked (setting);
  step->record = save (step->source);
}

static void
step_load (Step *step, GPtrArray *devices, const HfMigrateOptions *options)
{
  hf_load_free (step->load);
  g_clear_pointer (&step->report, hf_report_free);
  g_clear_error (&step->error);
  step->load = hf_load_new (copy (step->record), devices, options);
}

static void
step_clear (Step *step, const Setting *setting)
{
  hf_load_free (step->load);
  hf_report_free (step->report);
  g_clear_error (&step->error);
  hf_record_free (step->record);
  g_ptr_array_unref (step->source);
  stop_guest (setting);
}

/* Before anything is sent. */
static void
test_not_found (void)
{
  Setting setting = { .quirks = HF_MODEL_LIO, .identified = TRUE, .n_lus = 2, .n_paths = 1, .type = { 1, 5 } };
  GPtrArray *devices = new_holdings ();
  g_autofree char *name = NULL;
  Step step;

  step_init (&step, &setting);
  add_device (devices, 0, D1);
  add_device (devices, DEAD_LU, 0);
  outs = 0;
  step_load (&step, devices, &plain);
  name = hf_lu_identity_to_string (&step.record->units[1].identity);
  g_assert_false (hf_load_check (step.load, &step.report, &step.error));
  g_assert_error (step.error, HF_MIGRATE_ERROR, HF_MIGRATE_ERROR_NOT_FOUND);
  g_clear_error (&step.error);
  g_assert_false (hf_load_run (step.load, &step.report, &step.error));
  g_assert_error (step.error, HF_MIGRATE_ERROR, HF_MIGRATE_ERROR_NOT_FOUND);
  g_assert_nonnull (strstr (step.error->message, name));
  g_assert_nonnull (strstr (step.error->message, "the 2 devices"));
  g_assert_null (step.report);
  g_assert_false (hf_load_is_pending (step.load));
  g_assert_cmpuint (outs, ==, 0);
  step_clear (&step, &setting);
}

/* on-change=refuse: a change on one LU, and the other one is as it was too. */
static void
test_refuse (void)
{
  Setting setting = { .quirks = HF_MODEL_LIO, .identified = TRUE, .n_lus = 2, .n_paths = 1, .type = { 1, 5 } };
  HfMigrateOptions options = plain;
  g_autofree char *name = NULL;
  Step step;

  options.on_change = HF_ON_CHANGE_REFUSE;
  step_init (&step, &setting);
  name = hf_lu_identity_to_string (&step.record->units[1].identity);
  hf_model_pr_out (&worlds[1].model, S1, RELEASE, K + 1, 0, 5);
  step_load (&step, make_devices (&setting, D1), &options);
  g_assert_false (hf_load_run (step.load, &step.report, &step.error));
  g_assert_error (step.error, HF_MIGRATE_ERROR, HF_MIGRATE_ERROR_REFUSED);
  g_assert_nonnull (strstr (step.error->message, name));
  g_assert_nonnull (strstr (step.error->message, "released"));
  g_assert_cmpint (find_report (step.report, 1)->verdict, ==, HF_VERDICT_RELEASED);
  g_assert_true (find_report (step.report, 1)->warning);
  assert_has (&setting, 0, S1);
  assert_not_registered (&setting, 0, D1);
  assert_not_registered (&setting, 1, D1);
  g_assert_true (has_key (1, S1));
  g_assert_cmphex (((HfHolding *)hf_load_get_holdings (step.load)->pdata[0])->state.key, ==, 0);
  /* adopted it goes on */
  step_load (&step, make_devices (&setting, D1), &plain);
  g_assert_true (hf_load_run (step.load, &step.report, &step.error));
  assert_has (&setting, 0, D1);
  g_assert_true (has_key (1, D1));
  step_clear (&step, &setting);
}

static void
test_occupied_and_ambiguous (void)
{
  static const HfVerdict verdicts[] = { HF_VERDICT_OCCUPIED, HF_VERDICT_AMBIGUOUS };

  for (guint i = 0; i < G_N_ELEMENTS (verdicts); i++) {
    Step step;
    step_init (&step, &lio_5);
    hf_model_pr_out (&worlds[0].model, i == 0 ? D1 : T, IGNORE, 0, i == 0 ? X : K, 0);
    step_load (&step, make_devices (&lio_5, D1), &plain);
    outs = 0;
    g_assert_false (hf_load_run (step.load, &step.report, &step.error));
    g_assert_error (step.error, HF_MIGRATE_ERROR, HF_MIGRATE_ERROR_REFUSED);
    g_assert_nonnull (strstr (step.error->message, hf_verdict_to_string (verdicts[i])));
    g_assert_cmpint (step.report->lus[0].verdict, ==, verdicts[i]);
    g_assert_cmpuint (outs, ==, 0);
    step_clear (&step, &lio_5);
  }
}

/* The second take-over is lost with its link: the error names what was committed, what was not is taken back, and the source can
   take back the rest. */
static void
fail_preempt (HfModel *model, guint nexus, guint index, const guint8 *cdb, gpointer user_data)
{
  HfModelWire *wire = user_data;

  /* the one look before it was answered; from here on nothing is */
  if (nexus != D1 || cdb[0] != 0x5f || cdb[1] != REGISTER)
    return;
  wire->fault = HF_MODEL_FAULT_LINK_BEFORE;
  wire->fault_at = index + 2;
}

static void
test_committed (void)
{
  Setting setting = { .quirks = HF_MODEL_LIO, .identified = TRUE, .n_lus = 3, .n_paths = 1, .type = { 1, 3, 5 } };
  HfMigrateOptions options = plain;
  g_autofree char *first = NULL, *second = NULL;
  HfReport *report = NULL;
  Step step;

  options.timeout_ms = 1000;
  step_init (&step, &setting);
  first = hf_lu_identity_to_string (&step.record->units[0].identity);
  second = hf_lu_identity_to_string (&step.record->units[1].identity);
  worlds[1].wire.before = fail_preempt;
  worlds[1].wire.user_data = &worlds[1].wire;
  worlds[1].wire.dead = TRUE;
  step_load (&step, make_devices (&setting, D1), &options);
  g_assert_false (hf_load_run (step.load, &step.report, &step.error));
  g_assert_error (step.error, HF_MIGRATE_ERROR, HF_MIGRATE_ERROR_COMMITTED);
  g_assert_nonnull (strstr (step.error->message, second));
  g_assert_nonnull (strstr (strstr (step.error->message, "taken over already"), first));
  g_assert_cmphex (find_report (step.report, 0)->key, ==, K);
  g_assert_cmphex (find_report (step.report, 2)->key, ==, 0);
  assert_has (&setting, 0, D1);
  assert_not_registered (&setting, 2, D1);
  g_assert_cmpint (find_report (step.report, 1)->verdict, ==, HF_VERDICT_ERROR);
  worlds[1].wire.before = NULL;
  worlds[1].wire.fault_at = 0;
  worlds[1].wire.dead = FALSE;
  g_clear_error (&step.error);
  g_assert_true (hf_migrate_reclaim (step.record, step.source, &plain, &report, &step.error));
  g_assert_no_error (step.error);
  for (guint i = 0; i < 3; i++) {
    assert_has (&setting, i, S1);
    assert_not_registered (&setting, i, D1);
  }
  hf_report_free (report);
  step_clear (&step, &setting);
}

/* ---- Load: which devices ---- */

/* More paths than the VM had: as many as it had, the first ones; fewer: those, and it is said. */
static void
test_number_of_nexuses (void)
{
  GPtrArray *devices = new_holdings ();
  Step step;

  step_init (&step, &lio_5);
  add_device (devices, 0, D2);
  add_device (devices, 0, D1);
  step_load (&step, devices, &plain);
  g_assert_true (hf_load_run (step.load, &step.report, &step.error));
  g_assert_true (has_key (0, D2));
  g_assert_false (has_key (0, D1));
  g_assert_cmpuint (hf_load_get_holdings (step.load)->len, ==, 1);
  g_assert_null (step.report->lus[0].text);
  step_clear (&step, &lio_5);

  step_init (&step, &lio_5_two_paths);
  devices = new_holdings ();
  add_device (devices, 0, D1);
  add_device (devices, 0, D1); /* the sg node of the same path */
  step_load (&step, devices, &plain);
  g_assert_true (hf_load_run (step.load, &step.report, &step.error));
  g_assert_true (has_key (0, D1));
  g_assert_cmpuint (hf_load_get_holdings (step.load)->len, ==, 1);
  g_assert_nonnull (strstr (step.report->lus[0].text, "had 2 nexuses, 1 is used"));
  g_assert_false (hf_load_is_pending (step.load)); /* the source had two: it could not wait */
  step_clear (&step, &lio_5_two_paths);
}

/* Of more paths than the VM had, its own: on the same host nothing moves, and a source takes back what it had where it had it. */
static void
test_own_nexus_first (void)
{
  GPtrArray *devices = new_holdings ();
  Step step;

  step_init (&step, &lio_5);
  add_device (devices, 0, S2);
  add_device (devices, 0, S1);
  step_load (&step, devices, &plain);
  g_assert_true (hf_load_run (step.load, &step.report, &step.error));
  g_assert_cmpint (step.report->lus[0].verdict, ==, HF_VERDICT_UNCHANGED);
  g_assert_false (has_key (0, S2));

  step_load (&step, make_devices (&lio_5, D1), &plain);
  g_assert_true (hf_load_run (step.load, NULL, &step.error));
  g_assert_true (hf_load_commit (step.load, NULL, &step.error));
  g_clear_pointer (&step.source, g_ptr_array_unref);
  step.source = new_holdings ();
  add_device (step.source, 0, S2);
  add_device (step.source, 0, S1);
  g_assert_true (hf_migrate_reclaim (step.record, step.source, &plain, NULL, &step.error));
  assert_has (&lio_5, 0, S1);
  g_assert_false (has_key (0, S2));
  g_assert_true (((HfHolding *)step.source->pdata[1])->tracked);
  g_assert_false (((HfHolding *)step.source->pdata[0])->tracked);
  step_clear (&step, &lio_5);
}

/* The VM runs on the source after all: what one LU refuses, or an LU that is gone, keeps no other from being taken back. */
static void
test_reclaim_each (void)
{
  Setting setting = { .quirks = HF_MODEL_LIO, .identified = TRUE, .n_lus = 3, .n_paths = 1, .type = { 1, 3, 1 } };
  g_autofree char *occupied = NULL, *gone = NULL;
  HfReport *report = NULL;
  Step step;

  step_init (&step, &setting);
  occupied = hf_lu_identity_to_string (&step.record->units[1].identity);
  gone = hf_lu_identity_to_string (&step.record->units[2].identity);
  step_load (&step, make_devices (&setting, D1), &plain);
  g_assert_true (hf_load_run (step.load, NULL, &step.error));
  hf_model_pr_out (&worlds[1].model, S1, IGNORE, 0, 0x77, 0);
  g_ptr_array_remove_index (step.source, 2);
  g_assert_false (hf_migrate_reclaim (step.record, step.source, &plain, &report, &step.error));
  g_assert_nonnull (strstr (step.error->message, occupied));
  g_assert_nonnull (strstr (step.error->message, gone));
  assert_has (&setting, 0, S1);
  g_assert_cmpint (find_report (report, 1)->verdict, ==, HF_VERDICT_OCCUPIED);
  g_assert_cmpint (find_report (report, 2)->verdict, ==, HF_VERDICT_ERROR);
  g_assert_cmphex (((HfHolding *)step.source->pdata[0])->state.key, ==, K);
  g_assert_true (((HfHolding *)step.source->pdata[1])->state.uncertain);
  hf_report_free (report);
  step_clear (&step, &setting);
}

/* Devices that do not answer are waited for side by side. */
static void
test_dead_devices (void)
{
  GPtrArray *devices = make_devices (&lio_5, D1);
  gint64 start, took;
  Step step;

  step_init (&step, &lio_5);
  for (guint i = 0; i < 40; i++)
    add_device (devices, DEAD_LU, i);
  step_load (&step, devices, &plain);
  start = g_get_monotonic_time ();
  g_assert_true (hf_load_run (step.load, &step.report, &step.error));
  took = g_get_monotonic_time () - start;
  g_assert_cmpint (took, >=, DEAD_MS * 1000);
  g_assert_cmpint (took, <, 10 * DEAD_MS * 1000); /* 40 one after the other are 12 s */
  g_assert_true (has_key (0, D1));
  step_clear (&step, &lio_5);
}

/* ---- commit, abort and the order of things ---- */

/* The VM runs here: a take-over that fails leaves its registration, and the next try does it. */
static void
test_commit_again (void)
{
  HfModelWire *wire = &worlds[0].wire;
  HfMigrateOptions options = plain;
  Step step;

  options.timeout_ms = 500;
  options.on_change = HF_ON_CHANGE_REFUSE;
  step_init (&step, &lio_5);
  step_load (&step, make_devices (&lio_5, D1), &options);
  g_assert_true (hf_load_run (step.load, NULL, &step.error));
  wire->fault = HF_MODEL_FAULT_LINK_BEFORE;
  wire->fault_at = wire->n_commands + 1;
  wire->dead = TRUE;
  g_assert_false (hf_load_commit (step.load, &step.report, &step.error));
  g_assert_error (step.error, HF_MIGRATE_ERROR, HF_MIGRATE_ERROR_REFUSED);
  g_assert_cmphex (step.report->lus[0].key, ==, K);
  g_assert_true (hf_load_is_pending (step.load));
  g_assert_true (((HfHolding *)hf_load_get_holdings (step.load)->pdata[0])->state.uncertain);
  g_assert_true (has_key (0, D1));
  g_assert_true (has_key (0, S1));
  wire->fault_at = 0;
  g_clear_error (&step.error);
  g_assert_true (hf_load_commit (step.load, NULL, &step.error));
  assert_has (&lio_5, 0, D1);
  assert_not_registered (&lio_5, 0, S1);
  g_assert_false (((HfHolding *)hf_load_get_holdings (step.load)->pdata[0])->state.uncertain);
  step_clear (&step, &lio_5);
}

/* The policy is for what a Load finds. A change behind it is followed, for the VM runs here. */
static void
test_commit_follows_changes (void)
{
  HfMigrateOptions options = plain;
  Step step;

  options.on_change = HF_ON_CHANGE_REFUSE;
  step_init (&step, &lio_5);
  step_load (&step, make_devices (&lio_5, D1), &options);
  g_assert_true (hf_load_run (step.load, NULL, &step.error));
  hf_model_pr_out (&worlds[0].model, S1, RELEASE, K, 0, 5);
  g_assert_true (hf_load_commit (step.load, &step.report, &step.error));
  g_assert_cmpint (step.report->lus[0].verdict, ==, HF_VERDICT_RELEASED);
  g_assert_true (has_key (0, D1));
  step_clear (&step, &lio_5);
}

static void
test_order (void)
{
  Step step;

  step_init (&step, &lio_5);
  step_load (&step, make_devices (&lio_5, D1), &plain);
  g_assert_true (hf_load_run (step.load, NULL, &step.error));
  g_assert_false (hf_load_run (step.load, NULL, &step.error));
  g_assert_error (step.error, HF_MIGRATE_ERROR, HF_MIGRATE_ERROR_REFUSED);
  g_clear_error (&step.error);
  g_assert_false (hf_load_check (step.load, NULL, &step.error));
  g_assert_error (step.error, HF_MIGRATE_ERROR, HF_MIGRATE_ERROR_REFUSED);
  g_clear_error (&step.error);
  g_assert_true (hf_load_is_pending (step.load));
  g_assert_true (hf_load_abort (step.load, NULL, &step.error));
  g_assert_true (hf_load_abort (step.load, NULL, &step.error));
  assert_has (&lio_5, 0, S1);
  assert_not_registered (&lio_5, 0, D1);
  step_clear (&step, &lio_5);
}

/* The last registration of the VM is not taken back, and that is said: the source is gone, so this is no failure. */
static void
test_abort_keeps_last (void)
{
  for (guint i = 0; i < G_N_ELEMENTS (types); i++) {
    Setting setting = lio_5;
    HfHolding *holding;
    Step step;
    if (types[i] == 1 || types[i] == 3)
      continue; /* nothing waits */
    setting.type[0] = types[i];
    step_init (&step, &setting);
    step_load (&step, make_devices (&setting, D1), &plain);
    g_assert_true (hf_load_run (step.load, NULL, &step.error));
    g_assert_true (hf_load_is_pending (step.load));
    hf_model_pr_out (&worlds[0].model, S1, REGISTER, K, 0, 0);
    g_assert_true (hf_load_abort (step.load, &step.report, &step.error));
    g_assert_no_error (step.error);
    g_assert_cmphex (step.report->lus[0].key, ==, K);
    g_assert_nonnull (strstr (step.report->lus[0].text, "may stay registered"));
    g_assert_true (has_key (0, D1));
    holding = hf_load_get_holdings (step.load)->pdata[0];
    g_assert_cmphex (holding->state.key, ==, K);
    g_assert_false (hf_load_is_pending (step.load));
    step_clear (&step, &setting);
  }
}

/* What could not be taken back is an error, and the next program can try again. */
static void
test_abort_fails (void)
{
  g_autofree char *state_dir = make_state_dir ();
  HfMigrateOptions options = plain;
  HfModelWire *wire = &worlds[0].wire;
  Step step;

  options.timeout_ms = 300;
  options.state_dir = state_dir;
  step_init (&step, &lio_5);
  step_load (&step, make_devices (&lio_5, D1), &options);
  g_assert_true (hf_load_run (step.load, NULL, &step.error));
  wire->fault = HF_MODEL_FAULT_LINK_BEFORE;
  wire->fault_at = wire->n_commands + 1;
  wire->dead = TRUE;
  g_assert_false (hf_load_abort (step.load, &step.report, &step.error));
  g_assert_error (step.error, HF_MIGRATE_ERROR, HF_MIGRATE_ERROR_REFUSED);
  g_assert_nonnull (strstr (step.error->message, "may stay registered"));
  g_assert_true (((HfHolding *)hf_load_get_holdings (step.load)->pdata[0])->state.uncertain);
  g_assert_true (has_key (0, D1));
  wire->fault_at = 0;
  step_load (&step, make_devices (&lio_5, D1), &options);
  g_assert_true (hf_load_abort (step.load, NULL, &step.error));
  g_assert_false (has_key (0, D1));
  assert_has (&lio_5, 0, S1);
  step_clear (&step, &lio_5);
  remove_folder (state_dir);
}

/* ---- unit attentions ---- */

/* What the two take-overs raised is nobody's; a reset is the guest's, on the nexus that met it; a fence is the guest's too. */
static void
test_unit_attentions (void)
{
  for (guint fenced = 0; fenced < 2; fenced++) {
    Setting setting = lio_5_two_paths;
    HfHolding *first, *second;
    HfReport *report = NULL;
    Step step;
    setting.type[0] = 1;
    step_init (&step, &setting);
    first = step.source->pdata[0];
    second = step.source->pdata[1];
    g_assert_cmpuint (first->n_unit_attentions + second->n_unit_attentions, ==, 0);
    step_load (&step, make_devices (&setting, D1), &plain);
    g_assert_true (hf_load_run (step.load, NULL, &step.error));
    g_assert_cmpuint (worlds[0].model.nexuses[S2].n_unit_attentions, >, 0);
    hf_model_raise_unit_attention (&worlds[0].model, S2, UA_RESET);
    if (fenced)
      fence (0);
    g_assert_true (hf_migrate_reclaim (step.record, step.source, &plain, &report, &step.error));
    g_assert_cmpint (report->lus[0].verdict, ==, fenced ? HF_VERDICT_FENCED : HF_VERDICT_MOVED);
    if (!fenced) {
      g_assert_cmpuint (first->n_unit_attentions, ==, 0);
      g_assert_cmpuint (second->n_unit_attentions, ==, 1);
      g_assert_cmphex (second->unit_attentions[0], ==, UA_RESET);
    } else {
      g_assert_cmpuint (first->n_unit_attentions, >=, 1);
      g_assert_cmphex (first->unit_attentions[first->n_unit_attentions - 1], ==, UA_REGISTRATIONS_PREEMPTED);
    }
    hf_report_free (report);
    step_clear (&step, &setting);
  }
}

/* ---- killed ---- */

/* The LUs are in a file, so that a program that is killed leaves them behind. */
typedef struct {
  HfModel models[2];
} Disk;

static Disk *
map_disk (const char *path)
{
  int fd = open (path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  Disk *disk;

  g_assert_cmpint (fd, >=, 0);
  g_assert_cmpint (ftruncate (fd, sizeof (Disk)), ==, 0);
  disk = mmap (NULL, sizeof (Disk), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  g_assert_true (disk != MAP_FAILED);
  close (fd);
  return disk;
}

static void
use_disk (Disk *disk)
{
  identified = TRUE;
  for (guint i = 0; i < G_N_ELEMENTS (disk->models); i++)
    hf_model_wire_init (&worlds[i].wire, &disk->models[i]);
}

static const Setting killed_setting = { .identified = TRUE, .n_lus = 2, .n_paths = 1, .type = { 1, 5 } };

/* The other program: "DISK RECORD STATE-DIR". */
static int
be_killed (char **argv)
{
  HfMigrateOptions options = plain;
  GError *error = NULL;
  HfRecord *record = hf_record_read_file (argv[1], &error);
  HfLoad *it;

  g_assert_no_error (error);
  g_assert_true (hf_fail_init (&error));
  use_disk (map_disk (argv[0]));
  options.state_dir = argv[2];
  it = hf_load_new (record, make_devices (&killed_setting, D1), &options);
  if (!hf_load_run (it, NULL, &error) || !hf_load_commit (it, NULL, &error))
    return 2;
  hf_load_free (it);
  return 0;
}

static int
run_other (const char *fail, const char *disk, const char *record, const char *state_dir)
{
  const char *argv[] = { "/proc/self/exe", "--be-killed", disk, record, state_dir, NULL };
  g_auto (GStrv) environment = g_environ_setenv (g_get_environ (), "HOLDFAST_FAIL", fail, TRUE);
  GError *error = NULL;
  int status;

  g_spawn_sync (NULL, (char **)argv, environment, 0, NULL, NULL, NULL, NULL, &status, &error);
  g_assert_no_error (error);
  return status;
}

typedef enum { THEN_ABORT, THEN_COMMIT, THEN_FENCE_AND_ABORT } Then;

/* What a fresh program makes of it. */
static void
after_kill (const char *fail, Disk *disk, HfLoad *it, Then then)
{
  HfModel before[2] = { disk->models[0], disk->models[1] };
  GError *error = NULL;
  gboolean good;

  if (then == THEN_FENCE_AND_ABORT)
    for (guint i = 0; i < 2; i++)
      hf_model_pr_out (&disk->models[i], T, PREEMPT, X, key_of (i), disk->models[i].type ?: 5);
  good = then == THEN_COMMIT ? hf_load_commit (it, NULL, &error) : hf_load_abort (it, NULL, &error);
  if (!good)
    g_error ("%s: %s", fail, error->message);
  for (guint i = 0; i < 2; i++) {
    const HfModel *model = &disk->models[i];
    gboolean taken_over = before[i].holder == D1;
    if (then == THEN_FENCE_AND_ABORT) {
      g_assert_cmpuint (hf_model_count_key (model, key_of (i)), ==, 0);
      continue;
    }
    g_assert_cmpint (model->holder, ==, then == THEN_COMMIT || taken_over ? D1 : S1);
    g_assert_cmpuint (hf_model_count_key (model, key_of (i)), ==, 1);
  }
}

static void
kill_at (const char *fail, Then then)
{
  g_autofree char *state_dir = make_state_dir ();
  g_autofree char *disk_path = g_build_filename (state_dir, "disk", NULL);
  g_autofree char *record_path = g_build_filename (state_dir, "record", NULL);
  g_autoptr (GPtrArray) source = make_tracked (&killed_setting);
  g_autoptr (HfRecord) record = NULL;
  HfMigrateOptions options = plain;
  Disk *disk = map_disk (disk_path);
  HfModelQuirks quirks = HF_MODEL_LIO;
  GError *error = NULL;
  HfLoad *it;
  int status;

  for (guint i = 0; i < 2; i++) {
    HfModel *model = &disk->models[i];
    hf_model_init (model, quirks, NEXUSES);
    model->naa += i;
    hf_model_set_key (model, S1, key_of (i));
    hf_model_set_key (model, T, X);
    hf_model_set_reservation (model, S1, killed_setting.type[i]);
  }
  use_disk (disk);
  record = save (source);
  g_assert_true (hf_record_write_file (record, record_path, &error));
  status = run_other (fail, disk_path, record_path, state_dir);
  if (!WIFSIGNALED (status) || WTERMSIG (status) != SIGKILL)
    g_error ("%s: not killed, status %x", fail, status);
  options.state_dir = state_dir;
  it = hf_load_new (copy (record), make_devices (&killed_setting, D1), &options);
  after_kill (fail, disk, it, then);
  if (then != THEN_FENCE_AND_ABORT)
    g_assert_false (is_any_journal_left (state_dir));
  hf_load_free (it);
  for (guint i = 0; i < 2; i++)
    hf_model_wire_clear (&worlds[i].wire);
  munmap (disk, sizeof *disk);
  remove_folder (state_dir);
}

/* At every step of a Load and its commit. */
static void
test_killed (void)
{
  static const char *const points[] = {
    "before-identify",      "before-observe",           "after-observe",           "before-capabilities#2",
    "before-journal-write", "after-journal-sync",       "before-register",         "after-register#1",
    "after-register#2",     "before-verify-register#2", "after-verify-register#2", "before-take-over#1",
    "after-take-over#1",    "after-verify-take-over#1", "before-take-over#2",      "after-take-over#2",
  };

  for (guint i = 0; i < G_N_ELEMENTS (points); i++) {
    g_autofree char *fail = g_strdup_printf ("%s=kill", points[i]);
    for (Then then = THEN_ABORT; then <= THEN_FENCE_AND_ABORT; then++)
      kill_at (fail, then);
  }
}

int
main (int argc, char **argv)
{
  hf_migrate_set_opener (open_model);
  if (argc == 5 && g_str_equal (argv[1], "--be-killed"))
    return be_killed (argv + 2);
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/migrate/one-lu", test_one_lu);
  g_test_add_func ("/migrate/two-nexuses", test_two_nexuses);
  g_test_add_func ("/migrate/three-lus", test_three_lus);
  g_test_add_func ("/migrate/same-host", test_same_host);
  g_test_add_func ("/migrate/save-nothing", test_save_nothing);
  g_test_add_func ("/migrate/save-uncertain", test_save_uncertain);
  g_test_add_func ("/migrate/save-no-key-to-look-for", test_save_no_key_to_look_for);
  g_test_add_func ("/migrate/save-different-keys", test_save_different_keys);
  g_test_add_func ("/migrate/save-unregistered-path", test_save_unregistered_path);
  g_test_add_func ("/migrate/save-dead", test_save_dead);
  g_test_add_func ("/migrate/save-adopt", test_save_adopt);
  g_test_add_func ("/migrate/save-flags", test_save_flags);
  g_test_add_func ("/migrate/not-scsi", test_not_scsi);
  g_test_add_func ("/migrate/not-found", test_not_found);
  g_test_add_func ("/migrate/refuse", test_refuse);
  g_test_add_func ("/migrate/occupied-and-ambiguous", test_occupied_and_ambiguous);
  g_test_add_func ("/migrate/committed", test_committed);
  g_test_add_func ("/migrate/number-of-nexuses", test_number_of_nexuses);
  g_test_add_func ("/migrate/own-nexus-first", test_own_nexus_first);
  g_test_add_func ("/migrate/reclaim-each", test_reclaim_each);
  g_test_add_func ("/migrate/dead-devices", test_dead_devices);
  g_test_add_func ("/migrate/commit-again", test_commit_again);
  g_test_add_func ("/migrate/commit-follows-changes", test_commit_follows_changes);
  g_test_add_func ("/migrate/order", test_order);
  g_test_add_func ("/migrate/abort-keeps-last", test_abort_keeps_last);
  g_test_add_func ("/migrate/abort-fails", test_abort_fails);
  g_test_add_func ("/migrate/unit-attentions", test_unit_attentions);
  g_test_add_func ("/migrate/killed", test_killed);
  return g_test_run ();
}
