/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns: a Rig. Thread: the test's; the hooks run in whichever thread sends.
 *
 * DOC: Theory of Operation
 * The watcher copies the model before each command of ours, after the third party has acted, and looks at it again after the
 * command. So every difference it sees is our doing, and the rules are asked command by command: was K removed, was the
 * reservation lost, was anything of others touched. What the third party took away is remembered (fenced, lost) and forbids or
 * excuses what follows.
 */
#include "move-rig.h"

#include <stdio.h>
#include <string.h>

#define READS_PER_OBSERVATION 5

static const struct {
  const char *name;
  HfModelQuirks quirks;
  gboolean blind;
} targets[] = {
  [RIG_SPC] = { "SPC", HF_MODEL_SPC, FALSE }, [RIG_SPC_BLIND] = { "SPC-blind", HF_MODEL_SPC, TRUE },
  [RIG_LIO] = { "LIO", HF_MODEL_LIO, FALSE }, [RIG_LIO_BLIND] = { "LIO-blind", HF_MODEL_LIO, TRUE },
  [RIG_TGT] = { "tgt", HF_MODEL_TGT, TRUE },
};
G_STATIC_ASSERT (G_N_ELEMENTS (targets) == RIG_N_TARGETS);

guint
rig_own (const RigCase *c)
{
  return c->role == HF_ROLE_DESTINATION ? RIG_D : RIG_S;
}

guint
rig_peer (const RigCase *c)
{
  return c->role == HF_ROLE_DESTINATION ? RIG_S : RIG_D;
}

gboolean
rig_full_status (const RigCase *c)
{
  return !targets[c->target].blind;
}

gboolean
rig_told (const RigCase *c)
{
  return rig_full_status (c) && c->identified == RIG_ID_BOTH;
}

/* ---- looking at the model ---- */

gboolean
rig_has_key (const HfModel *model, guint nexus)
{
  return model->nexuses[nexus].registered && model->nexuses[nexus].key == RIG_KEY;
}

guint
rig_count_ours (const HfModel *model)
{
  guint n = 0;

  for (guint i = 0; i < model->n_nexuses; i++)
    n += i != RIG_T && rig_has_key (model, i);
  return n;
}

gboolean
rig_is_held (const HfModel *model)
{
  if (model->type == 0)
    return FALSE;
  if (hf_model_is_all_registrants (model))
    return rig_count_ours (model) > 0;
  return model->holder >= 0 && model->holder != RIG_T && rig_has_key (model, (guint)model->holder);
}

static gboolean
is_held_exclusively (const HfModel *model)
{
  return model->type != 0 && !hf_model_is_all_registrants (model) && model->holder >= 0
         && rig_has_key (model, (guint)model->holder);
}

gboolean
rig_same (const HfModel *a, const HfModel *b)
{
  guint n = MAX (a->n_nexuses, b->n_nexuses);

  for (guint i = 0; i < n; i++)
    if (a->nexuses[i].registered != b->nexuses[i].registered || a->nexuses[i].key != b->nexuses[i].key)
      return FALSE;
  return a->type == b->type && (hf_model_is_all_registrants (a) || a->holder == b->holder);
}

static char
key_letter (const HfModelNexus *n)
{
  return !n->registered ? '-' : n->key == RIG_KEY ? 'K' : 'X';
}

char *
rig_describe (const HfModel *model)
{
  GString *text = g_string_new ("keys=");

  for (guint i = 0; i < model->n_nexuses; i++)
    g_string_append_c (text, key_letter (&model->nexuses[i]));
  g_string_append_printf (text, " type=%u", model->type);
  if (model->type != 0)
    g_string_append_printf (text, " holder=%d", model->holder);
  g_string_append_printf (text, " generation=%u%s", model->generation, model->aptpl ? " aptpl" : "");
  return g_string_free (text, FALSE);
}

void
rig_violation (Rig *rig, const char *format, ...)
{
  va_list args;

  va_start (args, format);
  g_string_append (rig->violations, rig->violations->len == 0 ? "" : "; ");
  g_string_append_vprintf (rig->violations, format, args);
  va_end (args);
}

/* ---- the third party ---- */

enum { REGISTER, RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_AND_ABORT, IGNORE };

static guint64
third_key (HfModel *model)
{
  if (!model->nexuses[RIG_T].registered)
    hf_model_pr_out (model, RIG_T, IGNORE, 0, RIG_NEW_KEY, 0);
  return model->nexuses[RIG_T].key;
}

static guint8
other_type (guint8 type)
{
  return type == 5 ? 6 : type == 7 ? 8 : 5;
}

/* The nexus that can act for the reservation: the holder, or any registrant of types 7, 8. -1: none. */
static int
acting_holder (const HfModel *model)
{
  if (model->type == 0)
    return -1;
  for (guint i = 0; i < model->n_nexuses; i++)
    if (hf_model_is_holder (model, i))
      return (int)i;
  return -1;
}

static void
do_preempt (HfModel *model, const RigCase *c G_GNUC_UNUSED)
{
  guint64 key = third_key (model);

  hf_model_pr_out (model, RIG_T, PREEMPT, key, RIG_KEY, model->type != 0 ? model->type : 5);
}

static void
do_clear (HfModel *model, const RigCase *c G_GNUC_UNUSED)
{
  hf_model_pr_out (model, RIG_T, CLEAR, third_key (model), 0, 0);
}

static void
do_register (HfModel *model, const RigCase *c G_GNUC_UNUSED)
{
  hf_model_pr_out (model, RIG_T, IGNORE, 0, RIG_NEW_KEY, 0);
}

static void
do_release (HfModel *model, const RigCase *c G_GNUC_UNUSED)
{
  int holder = acting_holder (model);

  if (holder >= 0 && rig_is_held (model))
    hf_model_pr_out (model, (guint)holder, RELEASE, model->nexuses[holder].key, 0, model->type);
}

static void
do_reserve (HfModel *model, const RigCase *c)
{
  do_release (model, c);
  hf_model_pr_out (model, RIG_T, RESERVE, third_key (model), 0, 5);
}

static void
do_change_type (HfModel *model, const RigCase *c G_GNUC_UNUSED)
{
  int holder = acting_holder (model);
  guint8 type = other_type (model->type);

  if (holder < 0)
    return;
  hf_model_pr_out (model, (guint)holder, RELEASE, model->nexuses[holder].key, 0, model->type);
  hf_model_pr_out (model, (guint)holder, RESERVE, model->nexuses[holder].key, 0, type);
}

static void
do_self_preempt (HfModel *model, const RigCase *c G_GNUC_UNUSED)
{
  int holder = acting_holder (model);

  if (holder >= 0 && rig_is_held (model))
    hf_model_pr_out (model, (guint)holder, PREEMPT, model->nexuses[holder].key, model->nexuses[holder].key,
                     other_type (model->type));
}

static void
do_impostor (HfModel *model, const RigCase *c G_GNUC_UNUSED)
{
  hf_model_pr_out (model, RIG_T, IGNORE, 0, RIG_KEY, 0);
}

static void
do_peer_unregisters (HfModel *model, const RigCase *c)
{
  if (rig_has_key (model, rig_peer (c)))
    hf_model_pr_out (model, rig_peer (c), REGISTER, RIG_KEY, 0, 0);
}

static const struct {
  const char *name;
  void (*act) (HfModel *model, const RigCase *c);
} actions[] = {
  [RIG_NOTHING] = { "nothing", NULL },
  [RIG_PREEMPT] = { "preempt", do_preempt },
  [RIG_CLEAR] = { "clear", do_clear },
  [RIG_REGISTER] = { "register", do_register },
  [RIG_RELEASE] = { "release", do_release },
  [RIG_RESERVE] = { "reserve", do_reserve },
  [RIG_CHANGE_TYPE] = { "change-type", do_change_type },
  [RIG_SELF_PREEMPT] = { "self-preempt", do_self_preempt },
  [RIG_IMPOSTOR] = { "impostor", do_impostor },
  [RIG_PEER_UNREGISTERS] = { "peer-unregisters", do_peer_unregisters },
};
G_STATIC_ASSERT (G_N_ELEMENTS (actions) == RIG_N_ACTIONS);

static void
third_party (Rig *rig, guint action)
{
  guint ours = rig_count_ours (&rig->model);
  gboolean peer = rig_has_key (&rig->model, rig_peer (&rig->c));

  rig->at_action = rig->model;
  actions[action].act (&rig->model, &rig->c);
  rig->acted = rig->acted_since_read = TRUE;
  rig->impostor |= rig_has_key (&rig->model, RIG_T);
  rig->fenced |= ours > 0 && rig_count_ours (&rig->model) == 0;
  rig->lost |= peer && !rig_has_key (&rig->model, rig_peer (&rig->c));
  rig->resurrected = FALSE;
}

/* ---- the watcher ---- */

/* Nobody can tell T's K from the VM's: with equal keys and no names, and seen from the source, which does not know where the VM
   went, the rules about others' registrations cannot be kept. */
static gboolean
is_impostor_hidden (const Rig *rig)
{
  if (!rig_has_key (&rig->pre, RIG_T))
    return FALSE;
  return !rig_told (&rig->c) || (rig->c.role == HF_ROLE_SOURCE && !rig_has_key (&rig->pre, RIG_D));
}

static gboolean
is_preempt (const guint8 *cdb)
{
  return cdb[0] == 0x5f && (cdb[1] == PREEMPT || cdb[1] == PREEMPT_AND_ABORT);
}

/* Another one acted between our look and our command: what a PREEMPT, or release's unregister, removes then could not be known.
 */
static gboolean
is_race (const Rig *rig, const guint8 *cdb)
{
  return rig->acted_since_read && (is_preempt (cdb) || (cdb[0] == 0x5f && rig->c.verb == RIG_RELEASE_VERB));
}

/* Make before break, and no instant without the reservation. */
static void
watch_ours (Rig *rig, const guint8 *cdb, guint index)
{
  /* After it K may come back only if nobody else acted. */
  rig->lost |= is_race (rig, cdb) && rig_count_ours (&rig->pre) > 0 && rig_count_ours (&rig->model) == 0;
  gboolean excused = rig->fenced || rig->lost || is_race (rig, cdb) || is_impostor_hidden (rig);

  if (rig_count_ours (&rig->pre) > 0 && rig_count_ours (&rig->model) == 0 && !excused
      && !(rig->c.gone && !rig_is_held (&rig->pre)))
    rig_violation (rig, "S1: command %u removed K from the last of the VM's nexuses", index);
  if (rig_is_held (&rig->pre) && !rig_is_held (&rig->model) && !excused)
    rig_violation (rig, "S2: command %u lost the reservation", index);
  if (is_held_exclusively (&rig->pre) && rig_is_held (&rig->pre) && rig->model.type != rig->pre.type && !excused)
    rig_violation (rig, "S2: command %u changed type %u to %u", index, rig->pre.type, rig->model.type);
}

/* Others' keys and reservations are never removed or changed by us. */
static void
watch_others (Rig *rig, const guint8 *cdb, guint index)
{
  gboolean all = hf_model_is_all_registrants (&rig->pre);

  for (guint i = 0; i < rig->pre.n_nexuses; i++) {
    const HfModelNexus *was = &rig->pre.nexuses[i], *is = &rig->model.nexuses[i];
    gboolean k = was->key == RIG_KEY;
    if (!was->registered || (k && i != RIG_T) || (was->registered == is->registered && was->key == is->key))
      continue;
    if (k && (is_impostor_hidden (rig) || (is_preempt (cdb) && rig->impostor)))
      continue;
    rig_violation (rig, "S4: command %u changed the registration of nexus %u", index, i);
  }
  if (rig->pre.type == 0 && rig->model.type != 0)
    rig_violation (rig, "S4: command %u made a reservation where there was none", index);
  if (all && rig->model.type != rig->pre.type && !is_race (rig, cdb) && !((rig->fenced || rig->lost) && rig->model.type == 0))
    rig_violation (rig, "S4: command %u changed type %u to %u", index, rig->pre.type, rig->model.type);
  if (rig->pre.type != 0 && !all && !is_held_exclusively (&rig->pre)
      && (rig->model.type != rig->pre.type || rig->model.holder != rig->pre.holder))
    rig_violation (rig, "S4: command %u changed the reservation of another", index);
}

static gboolean
is_cut_off (const Rig *rig, guint index)
{
  return rig->wire.dead && rig->wire.fault_at != 0 && index >= rig->wire.fault_at;
}

/* A fenced VM stays fenced; the one REGISTER that came too late is found out at the next look and does nothing meanwhile. */
static void
watch_fence (Rig *rig, const guint8 *cdb, guint index)
{
  guint own = rig->own;
  gboolean came = !rig_has_key (&rig->pre, own) && rig_has_key (&rig->model, own);

  if (rig->resurrected && cdb[0] != 0x12 && cdb[0] != 0x5e && !(cdb[0] == 0x5f && cdb[1] == REGISTER))
    rig_violation (rig, "S3: command %u (%02x %02x) of a fenced VM", index, cdb[0], cdb[1]);
  if (rig->resurrected && cdb[0] == 0x5e && !is_cut_off (rig, index) && ++rig->reads > READS_PER_OBSERVATION)
    rig_violation (rig, "S3: command %u: K of a fenced VM stays registered", index);
  if (rig->resurrected && !rig_has_key (&rig->model, own))
    rig->resurrected = FALSE;
  if (!came || !rig->fenced || is_impostor_hidden (rig))
    return;
  if (rig->seen_fenced)
    rig_violation (rig, "S3: command %u registered K again after the fence was seen", index);
  rig->resurrected = TRUE;
  rig->reads = 0;
}

static void
watch_verb (Rig *rig, const guint8 *cdb, guint index)
{
  if (rig->c.verb == RIG_CHECK && cdb[0] != 0x12 && cdb[0] != 0x5e)
    rig_violation (rig, "S6: command %u of check is no read (%02x %02x)", index, cdb[0], cdb[1]);
  if (rig->c.saved == RIG_SAVED_NOTHING && cdb[0] == 0x5f)
    rig_violation (rig, "S6: command %u for a VM without a key", index);
  if ((cdb[0] == 0x2a || cdb[0] == 0x28 || cdb[0] == 0x16) && rig->c.verb != RIG_N_VERBS)
    rig_violation (rig, "command %u is not for a move to send (%02x)", index, cdb[0]);
}

static void
before_command (HfModel *model, guint nexus, guint index, const guint8 *cdb, gpointer user_data)
{
  Rig *rig = user_data;

  rig->acted_now = RIG_NOTHING;
  if (rig->rand != NULL && g_rand_int_range (rig->rand, 0, 6) == 0)
    rig->acted_now = (guint)g_rand_int_range (rig->rand, RIG_PREEMPT, RIG_N_ACTIONS);
  else if (rig->rand == NULL && index == rig->c.at)
    rig->acted_now = rig->c.action;
  if (rig->acted_now != RIG_NOTHING)
    third_party (rig, rig->acted_now);
  if (rig->also != NULL)
    rig->also (model, nexus, index, cdb, rig->also_data);
  rig->own = nexus; /* on tgt another one after a lost link */
  rig->pre = *model;
}

static void
trace (Rig *rig, guint nexus, guint index, const guint8 *cdb)
{
  g_autofree char *state = NULL;

  if (g_getenv ("HOLDFAST_MODEL_CASE") == NULL)
    return;
  state = rig_describe (&rig->model);
  g_printerr ("# %2u nexus %u %02x %02x type %x: %s%s%s%s\n", index, nexus, cdb[0], cdb[1], cdb[2], state,
              rig->acted_now != RIG_NOTHING ? " after " : "", rig->acted_now != RIG_NOTHING ? actions[rig->acted_now].name : "",
              rig->fenced ? " fenced" : "");
}

static void
after_command (HfModel *model G_GNUC_UNUSED, guint nexus, guint index, const guint8 *cdb, gpointer user_data)
{
  Rig *rig = user_data;

  trace (rig, nexus, index, cdb);
  watch_ours (rig, cdb, index);
  watch_others (rig, cdb, index);
  watch_fence (rig, cdb, index);
  watch_verb (rig, cdb, index);
  if (cdb[0] == 0x5e && cdb[1] != 2) {
    rig->seen_fenced |= rig->fenced && cdb[1] != 1 && rig_count_ours (&rig->model) == 0 && !is_impostor_hidden (rig);
    rig->acted_since_read &= cdb[1] == 0;
  }
  rig->took_over |= is_preempt (cdb) && rig->model.holder == (int)nexus && rig->pre.holder != (int)nexus;
  if (cdb[0] == 0x5f) {
    rig->outs++;
    rig->last_out = index;
  }
}

/* ---- a run ---- */

static void
set_up_model (HfModel *model, const RigCase *c)
{
  static const guint64 keys[] = { 0, RIG_KEY, RIG_OTHER_KEY };

  hf_model_init (model, targets[c->target].quirks, RIG_NEXUSES);
  model->refuse_full_status = targets[c->target].blind;
  model->generation = 100;
  model->aptpl = c->aptpl != 0;
  for (guint i = 0; i < RIG_NEXUSES; i++)
    hf_model_set_key (model, i, keys[c->keys[i]] + (c->keys[i] == RIG_HAS_OTHER ? i + 1 : 0));
  hf_model_set_reservation (model, c->holder, (guint8)c->type);
}

void
rig_init (Rig *rig, const RigCase *c)
{
  memset (rig, 0, sizeof *rig);
  rig->c = *c;
  set_up_model (&rig->model, c);
  rig->initial = rig->at_action = rig->model;
  hf_model_wire_init (&rig->wire, &rig->model);
  rig->wire.before = before_command;
  rig->wire.after = after_command;
  rig->wire.user_data = rig;
  rig->wire.fault = c->fault;
  rig->wire.fault_at = c->fault_at;
  rig->wire.dead = c->dead;
  rig->violations = g_string_new (NULL);
  rig->own = rig_own (c);
  rig->rand = c->random != 0 ? g_rand_new_with_seed (c->random) : NULL;
}

void
rig_restart (Rig *rig)
{
  rig->own = hf_model_relogin (&rig->model, rig->own);
  rig->wire.fault_at = 0;
  rig->wire.dead = FALSE;
  rig->c.action = RIG_NOTHING;
  g_clear_pointer (&rig->rand, g_rand_free);
  rig->wire.n_commands = rig->last_out = rig->outs = 0;
  rig->resurrected = FALSE;
}

void
rig_clear (Rig *rig)
{
  hf_model_wire_clear (&rig->wire);
  g_string_free (rig->violations, TRUE);
  g_free (rig->text);
  hf_record_free (rig->record);
  g_clear_pointer (&rig->rand, g_rand_free);
}

HfRecord *
rig_make_record (const HfModel *model, const RigCase *c, const guint *sources, guint n_sources)
{
  HfNexus nexuses[HF_MODEL_NEXUSES];
  HfPrSaved saved = { .nexuses = nexuses };
  HfRecord *record = hf_record_new ("vm");
  HfDesignator *naa = &saved.identity.designators[saved.identity.n_designators++];
  GError *error = NULL;

  *naa = (HfDesignator){ .type = 3, .code_set = 1, .length = 8 };
  for (guint i = 0; i < 8; i++)
    naa->bytes[i] = (guint8)(model->naa >> 8 * (7 - i));
  saved.generation = 100;
  if (c->saved != RIG_SAVED_NOTHING) {
    saved.key = RIG_KEY;
    saved.type = (guint8)c->saved;
    saved.aptpl = c->aptpl == 1;
    saved.key_count = saved.n_nexuses = n_sources;
    for (guint i = 0; i < n_sources; i++)
      nexuses[i] =
          c->identified == RIG_ID_BOTH || c->identified == RIG_ID_RECORD ? model->nexuses[sources[i]].id : (HfNexus){ 0 };
  }
  hf_record_add (record, &saved, &error);
  g_assert_no_error (error);
  return record;
}

static void
keep_result (Rig *rig, const HfMoveUnit *unit)
{
  rig->verdict = unit->verdict;
  rig->alternative = unit->alternative;
  rig->certain = unit->certain;
  rig->accepted = unit->accepted;
  rig->taken_over = unit->taken_over;
  rig->kept = unit->kept;
  rig->type = unit->type;
  rig->commands = unit->commands;
  g_free (rig->text);
  rig->text = g_strdup_printf ("%s%s%s", unit->error.text != NULL ? unit->error.text : "", unit->note != NULL ? " note: " : "",
                               unit->note != NULL ? unit->note : "");
}

static gboolean
is_another (const HfMoveUnit *unit G_GNUC_UNUSED, gpointer user_data G_GNUC_UNUSED)
{
  return FALSE;
}

/* What is known of a VM that runs here is looked at again, however short the time was. */
static gboolean
run_later (Rig *rig, HfMove *move)
{
  g_assert_true (hf_move_commit_some (move, is_another, NULL));
  if (rig->c.verb == RIG_LATER_ABORT)
    return hf_move_abort (move);
  hf_move_set_running (move);
  return hf_move_commit (move);
}

static void
run_verb (Rig *rig, HfMove *move)
{
  rig->committed = FALSE;
  if (rig->c.verb == RIG_EARLIER_ABORT) {
    rig->prepared = rig->committed = hf_move_abort (move);
    return;
  }
  if (rig->c.verb == RIG_CHECK)
    rig->prepared = hf_move_check (move);
  else if (rig->c.verb == RIG_RELEASE_VERB)
    rig->prepared = hf_move_release (move);
  else
    rig->prepared = hf_move_prepare (move);
  if (rig->prepared && rig->c.verb == RIG_ABORT)
    rig->committed = hf_move_abort (move);
  else if (rig->prepared && (rig->c.verb == RIG_LOAD || rig->c.verb == RIG_REFUSE))
    rig->committed = hf_move_commit (move);
  else if (rig->prepared && (rig->c.verb == RIG_LATER || rig->c.verb == RIG_LATER_ABORT))
    rig->committed = run_later (rig, move);
}

/* A dead link may keep hf_move_add_lu from reading who the LU is: the run ends there, as the program's would. */
void
rig_run (Rig *rig, const char *state_dir)
{
  const guint source = RIG_S;
  HfMoveOptions options = { .role = rig->c.role,
                            .on_change = rig->c.verb == RIG_REFUSE ? HF_ON_CHANGE_REFUSE : HF_ON_CHANGE_ADOPT,
                            .peer_gone = rig->c.gone,
                            .timeout_ms = 2000,
                            .state_dir = state_dir };
  g_autoptr (HfLu) lu = NULL;
  g_autoptr (HfMove) move = NULL;
  g_autoptr (GError) error = NULL;

  if (rig->record == NULL)
    rig->record = rig_make_record (&rig->model, &rig->c, &source, 1);
  lu = hf_model_lu_new (&rig->wire, rig->own, rig->c.identified == RIG_ID_BOTH || rig->c.identified == RIG_ID_OURS);
  move = hf_move_new (rig->record, &options, &error);
  g_assert_no_error (error);
  rig->verdict = HF_VERDICT_ERROR;
  rig->accepted = rig->prepared = rig->committed = FALSE;
  if (!hf_move_add_lus (move, &lu, 1, &error)) {
    g_assert_cmpuint (rig->c.fault, !=, HF_MODEL_FAULT_NONE);
    return;
  }
  run_verb (rig, move);
  keep_result (rig, hf_move_get_unit (move, 0));
  if (g_getenv ("HOLDFAST_MODEL_CASE") != NULL)
    g_printerr ("# %s %s%s(%s)\n", hf_verdict_to_string (rig->verdict), rig->prepared ? "prepared " : "",
                rig->committed ? "committed " : "", rig->text);
}

/* ---- a case as a line ---- */

static const struct {
  const char *name;
  gsize offset;
} members[] = {
  { "target", offsetof (RigCase, target) }, { "identified", offsetof (RigCase, identified) },
  { "role", offsetof (RigCase, role) },     { "saved", offsetof (RigCase, saved) },
  { "s", offsetof (RigCase, keys[RIG_S]) }, { "d", offsetof (RigCase, keys[RIG_D]) },
  { "t", offsetof (RigCase, keys[RIG_T]) }, { "type", offsetof (RigCase, type) },
  { "holder", offsetof (RigCase, holder) }, { "verb", offsetof (RigCase, verb) },
  { "aptpl", offsetof (RigCase, aptpl) },   { "gone", offsetof (RigCase, gone) },
  { "action", offsetof (RigCase, action) }, { "at", offsetof (RigCase, at) },
  { "fault", offsetof (RigCase, fault) },   { "fault-at", offsetof (RigCase, fault_at) },
  { "dead", offsetof (RigCase, dead) },     { "random", offsetof (RigCase, random) },
};
G_STATIC_ASSERT (G_N_ELEMENTS (members) == sizeof (RigCase) / sizeof (guint));

static const char *const verb_names[] = {
  "load", "check", "abort", "refuse", "release", "later", "later-abort", "earlier-abort"
};
G_STATIC_ASSERT (G_N_ELEMENTS (verb_names) == RIG_N_VERBS);

char *
rig_case_to_string (const RigCase *c)
{
  GString *text = g_string_new (NULL);

  for (guint i = 0; i < G_N_ELEMENTS (members); i++) {
    guint value = G_STRUCT_MEMBER (guint, c, members[i].offset);
    if (value != 0)
      g_string_append_printf (text, "%s=%u ", members[i].name, value);
  }
  g_string_append_printf (text, "# %s %s as %s", targets[c->target].name, verb_names[c->verb],
                          c->role == HF_ROLE_DESTINATION ? "destination" : "source");
  if (c->action != RIG_NOTHING)
    g_string_append_printf (text, ", %s before command %u", actions[c->action].name, c->at);
  if (c->fault != HF_MODEL_FAULT_NONE)
    g_string_append_printf (text, ", %s at command %u%s", hf_model_fault_to_string (c->fault), c->fault_at,
                            c->dead ? " and dead since" : "");
  return g_string_free (text, FALSE);
}

static gboolean
parse_member (const char *word, RigCase *ret)
{
  for (guint i = 0; i < G_N_ELEMENTS (members); i++) {
    gsize length = strlen (members[i].name);
    if (strncmp (word, members[i].name, length) != 0 || word[length] != '=')
      continue;
    G_STRUCT_MEMBER (guint, ret, members[i].offset) = (guint)g_ascii_strtoull (word + length + 1, NULL, 10);
    return TRUE;
  }
  return FALSE;
}

gboolean
rig_case_parse (const char *text, RigCase *ret)
{
  g_auto (GStrv) words = g_strsplit (text, " ", -1);

  memset (ret, 0, sizeof *ret);
  for (guint i = 0; words[i] != NULL && words[i][0] != '#'; i++)
    if (words[i][0] != '\0' && !parse_member (words[i], ret))
      return FALSE;
  return ret->target < RIG_N_TARGETS && ret->action < RIG_N_ACTIONS && ret->verb < RIG_N_VERBS && ret->fault < HF_N_MODEL_FAULTS
         && ret->identified < RIG_N_IDENTIFIED;
}
