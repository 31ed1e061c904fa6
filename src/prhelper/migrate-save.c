/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Save: what a VM holds, as a record. Only reads. Thread: any one; reads LUs on threads of its own.
 *
 * Theory of operation. Devices are put together by identity: those of one LU are its nexuses. For each LU that the VM may hold
 * something on, one picture is read, and what is known of each nexus is settled by it: by the nexus' own registration where READ
 * FULL STATUS and our TransportID tell it, else by the key. What cannot be told fails the Save, because a wrong record would
 * register a key that is not the VM's, or give up one that is.
 */

#include "config.h"

#include "base/parallel.h"
#include "pr/pr-exec.h"
#include "prhelper/migrate-private.h"

/* One LU. */
typedef struct {
  const HfLuIdentity *identity;
  GPtrArray *members; /* of HfOpened, not owned */
  gboolean adopt;
  guint timeout_ms;
  gboolean held; /* the guest was known to hold something, or may */
  gboolean done; /* saved is to be recorded */
  HfPrSaved saved;
  GError *error;
} Group;

static void
group_free (gpointer data)
{
  Group *group = data;
  g_ptr_array_unref (group->members);
  hf_pr_saved_clear (&group->saved);
  g_clear_error (&group->error);
  g_free (group);
}

static gboolean
may_hold (const HfHolding *holding)
{
  return holding->tracked && (holding->state.key != 0 || holding->state.uncertain);
}

static void fail (Group *group, const char *format, ...) G_GNUC_PRINTF (2, 3);

static void
fail (Group *group, const char *format, ...)
{
  g_autofree char *name = hf_lu_identity_to_string (group->identity);
  g_autofree char *text = NULL;
  va_list args;
  va_start (args, format);
  text = g_strdup_vprintf (format, args);
  va_end (args);
  g_set_error (&group->error, HF_MIGRATE_ERROR, HF_MIGRATE_ERROR_SAVE, "%s: what is held cannot be told: %s", name, text);
}

/* ---- one LU ---- */

/* Through the first member that answers. exec: with the LU that did, and no failure. */
static gboolean
observe (Group *group, HfPrExec *exec, HfPrObservation *ret)
{
  const char *reason = "no device of it can be opened";
  HfUnitError failure = { 0 };
  for (guint i = 0; i < group->members->len; i++) {
    const HfOpened *opened = group->members->pdata[i];
    if (opened->identity == NULL)
      continue;
    exec->lu = opened->lu;
    hf_unit_error_clear (&failure);
    if (hf_pr_exec_observe (exec, "save", HF_OBSERVE_TWICE, ret))
      return TRUE;
    failure = exec->failure;
    exec->failure = (HfUnitError){ 0 };
    reason = failure.text;
  }
  if (group->held)
    fail (group, "%s", reason);
  hf_unit_error_clear (&failure);
  return FALSE;
}

/* FALSE: it may be one of several keys, and more than one is there. */
static gboolean
settle (Group *group, HfHolding *holding, const HfPrObservation *seen)
{
  gboolean told = seen->full && holding->nexus.transport_id.length != 0;
  guint64 key = holding->state.key;
  gboolean all_tg_pt = holding->state.all_tg_pt;
  if (!may_hold (holding) && !(group->adopt && told))
    return TRUE;
  hf_pr_state_resolve (&holding->state, seen, &holding->nexus, holding->candidate_key);
  if (holding->state.uncertain && key == 0 && holding->candidate_key == 0) {
    fail (group, "%s: the guest's command is not understood, and any of the keys that are registered may be its",
          hf_holding_get_name (holding));
    return FALSE;
  }
  if (holding->state.uncertain) {
    fail (group,
          "%s: the guest's REGISTER was not answered, and both the old key 0x%" G_GINT64_MODIFIER
          "x and the new one 0x%" G_GINT64_MODIFIER "x are registered",
          hf_holding_get_name (holding), key, holding->candidate_key);
    return FALSE;
  }
  holding->candidate_key = 0;
  if (holding->state.key == 0)
    return TRUE;
  holding->state.all_tg_pt |= all_tg_pt;
  holding->tracked = TRUE;
  return TRUE;
}

/* The second node of one path ("/dev/sda", "/dev/sg0") is no second nexus. */
static gboolean
is_counted (const HfPrSaved *saved, const HfNexus *nexus)
{
  for (guint i = 0; i < saved->n_nexuses; i++)
    if (hf_nexus_compare (&saved->nexuses[i], nexus) == HF_NEXUS_SAME)
      return TRUE;
  return FALSE;
}

/* Adds one nexus that is registered. */
static gboolean
add_nexus (Group *group, const HfHolding *holding)
{
  const HfPrState *state = &holding->state;
  HfPrSaved *saved = &group->saved;
  if (saved->key != 0 && saved->key != state->key) {
    fail (group, "its nexuses are registered with different keys, 0x%" G_GINT64_MODIFIER "x and 0x%" G_GINT64_MODIFIER "x",
          saved->key, state->key);
    return FALSE;
  }
  saved->key = state->key;
  saved->aptpl |= state->aptpl;
  saved->all_tg_pt |= state->all_tg_pt;
  if (state->type != HF_PR_TYPE_NONE) {
    saved->type = state->type;
    saved->scope = state->scope;
  }
  if (is_counted (saved, &holding->nexus))
    return TRUE;
  if (saved->n_nexuses == HF_PR_NEXUSES_MAX) {
    fail (group, "it has more than %u nexuses", HF_PR_NEXUSES_MAX);
    return FALSE;
  }
  saved->nexuses[saved->n_nexuses++] = holding->nexus;
  return TRUE;
}

/* The LU's APTPL is the VM's to keep, whoever asked for it. */
static gboolean
learn_aptpl (Group *group, HfPrExec *exec)
{
  HfPrCapabilities capabilities;
  if (group->saved.aptpl)
    return TRUE;
  if (!hf_pr_exec_capabilities (exec, &capabilities)) {
    fail (group, "%s", exec->failure.text);
    hf_unit_error_clear (&exec->failure);
    return FALSE;
  }
  group->saved.aptpl = capabilities.persist_through_power_loss_activated;
  return TRUE;
}

static gboolean
collect (Group *group, const HfPrObservation *seen)
{
  HfPrSaved *saved = &group->saved;
  saved->identity = *group->identity;
  saved->generation = seen->generation;
  saved->nexuses = g_new0 (HfNexus, HF_PR_NEXUSES_MAX);
  for (guint i = 0; i < group->members->len; i++) {
    HfHolding *holding = ((HfOpened *)group->members->pdata[i])->holding;
    if (!settle (group, holding, seen))
      return FALSE;
    if (holding->tracked && holding->state.key != 0 && !add_nexus (group, holding))
      return FALSE;
  }
  if (saved->key != 0)
    saved->key_count = hf_pr_observation_count_key (seen, saved->key);
  return TRUE;
}

static void
save_group (gpointer item, gpointer data)
{
  Group *group = item;
  HfPrExec exec = { .deadline = g_get_monotonic_time () + group->timeout_ms * (gint64)1000 };
  HfPrObservation seen = { 0 };
  if (!observe (group, &exec, &seen))
    return;
  gboolean done = collect (group, &seen);
  if (done && group->saved.key != 0)
    done = learn_aptpl (group, &exec);
  /* What was held and is gone is recorded as none, so that Load can tell. */
  group->done = done && (group->held || group->saved.key != 0);
  hf_pr_observation_clear (&seen);
}

/* ---- all LUs ---- */

static Group *
find_group (GPtrArray *groups, const HfLuIdentity *identity)
{
  for (guint i = 0; i < groups->len; i++) {
    Group *group = groups->pdata[i];
    if (hf_lu_identity_equal (group->identity, identity))
      return group;
  }
  Group *group = g_new0 (Group, 1);
  group->identity = identity;
  group->members = g_ptr_array_new ();
  g_ptr_array_add (groups, group);
  return group;
}

/* A path that is dead now belongs to the LU that it was found to be when it was alive: its registration is seen through another.
 */
static GPtrArray *
make_groups (GPtrArray *all, gboolean adopt, guint timeout_ms, GError **error)
{
  g_autoptr (GPtrArray) groups = g_ptr_array_new_with_free_func (group_free);
  for (guint i = 0; i < all->len; i++) {
    HfOpened *opened = all->pdata[i];
    HfHolding *holding = opened->holding;
    if (!holding->identified && !may_hold (holding))
      continue;
    if (!holding->identified) {
      g_set_error (error, HF_MIGRATE_ERROR, HF_MIGRATE_ERROR_SAVE, "%s: what is held cannot be told: %s",
                   hf_holding_get_name (holding), opened->error->message);
      return NULL;
    }
    Group *group = find_group (groups, &holding->identity);
    group->adopt = adopt;
    group->timeout_ms = timeout_ms;
    group->held |= may_hold (holding);
    g_ptr_array_add (group->members, opened);
  }
  for (guint i = groups->len; i > 0; i--) {
    const Group *group = groups->pdata[i - 1];
    if (!group->held && !adopt)
      g_ptr_array_remove_index (groups, i - 1);
  }
  return g_steal_pointer (&groups);
}

static gboolean
add_groups (HfRecord *record, GPtrArray *groups, GError **error)
{
  for (guint i = 0; i < groups->len; i++) {
    Group *group = groups->pdata[i];
    g_autoptr (GError) local = NULL;
    if (group->error != NULL) {
      g_propagate_error (error, g_steal_pointer (&group->error));
      return FALSE;
    }
    if (!group->done || hf_record_add (record, &group->saved, &local))
      continue;
    g_set_error_literal (error, HF_MIGRATE_ERROR, HF_MIGRATE_ERROR_SAVE, local->message);
    return FALSE;
  }
  return TRUE;
}

HfRecord *
hf_migrate_save (const char *vm, GPtrArray *holdings, gboolean adopt, const HfMigrateOptions *options, GError **error)
{
  guint timeout_ms = options->timeout_ms != 0 ? options->timeout_ms : HF_SCSI_TIMEOUT_DEFAULT_MS;
  g_autoptr (GPtrArray) looked_at = g_ptr_array_new ();
  for (guint i = 0; i < holdings->len; i++)
    if (adopt || ((HfHolding *)holdings->pdata[i])->tracked)
      g_ptr_array_add (looked_at, holdings->pdata[i]);
  g_autoptr (GPtrArray) all = hf_migrate_open (looked_at, NULL, timeout_ms);
  g_autoptr (GPtrArray) groups = make_groups (all, adopt, timeout_ms, error);
  if (groups == NULL)
    return NULL;
  hf_parallel_for (groups->pdata, groups->len, HF_MIGRATE_THREADS_MAX, save_group, NULL);
  g_autoptr (HfRecord) record = hf_record_new (vm);
  return add_groups (record, groups, error) ? g_steal_pointer (&record) : NULL;
}
