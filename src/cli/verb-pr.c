/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * holdfast pr SUBVERB LU: one PERSISTENT RESERVE command. Owns: this verb. Thread: main.
 *
 * Theory of operation: exactly one command is sent and its answer is shown as it came, a UNIT ATTENTION too, so that the verb can
 * stand where sg_persist stood and a test sees what the LU said. Only a list that was cut is asked for again, with a larger
 * buffer. The name of the LU costs an INQUIRY, which is sent behind the command and with --json only.
 */
#include "config.h"

#include "cli/cli.h"
#include "cli/pr-arguments.h"
#include "cli/pr-print.h"

#include <string.h>

/* What most targets and QEMU's helper protocol take at once; the field of the CDB has 16 bits. */
#define ALLOCATION_FIRST 8192
#define ALLOCATION_MAX 0xffff

#define SENSE_UNIT_ATTENTION 6
#define ASC_RESET 0x29 /* power on, reset, nexus loss */

enum {
  TAKES_KEY = 1 << 0,
  NEEDS_KEY = 1 << 1,
  NEEDS_NEW_KEY = 1 << 2,
  NEEDS_TYPE = 1 << 3,
  TAKES_FLAGS = 1 << 4, /* --aptpl, --all-tg-pt, --transport-id (SPEC_I_PT) */
  IS_MOVE = 1 << 5,
  IS_READ = 1 << 6
};

typedef struct {
  const char *name;
  guint8 action; /* HfPrInAction with IS_READ, else HfPrOutAction */
  guint takes;
} SubVerb;

static const SubVerb sub_verbs[] = {
  { "read-keys", HF_PR_IN_READ_KEYS, IS_READ },
  { "read-reservation", HF_PR_IN_READ_RESERVATION, IS_READ },
  { "report-capabilities", HF_PR_IN_REPORT_CAPABILITIES, IS_READ },
  { "read-full-status", HF_PR_IN_READ_FULL_STATUS, IS_READ },
  { "register", HF_PR_OUT_REGISTER, TAKES_KEY | NEEDS_NEW_KEY | TAKES_FLAGS },
  { "register-ignore", HF_PR_OUT_REGISTER_AND_IGNORE, TAKES_KEY | NEEDS_NEW_KEY | TAKES_FLAGS },
  { "reserve", HF_PR_OUT_RESERVE, NEEDS_KEY | NEEDS_TYPE },
  { "release", HF_PR_OUT_RELEASE, NEEDS_KEY | NEEDS_TYPE },
  { "clear", HF_PR_OUT_CLEAR, NEEDS_KEY },
  { "preempt", HF_PR_OUT_PREEMPT, NEEDS_KEY | NEEDS_NEW_KEY | NEEDS_TYPE },
  { "preempt-abort", HF_PR_OUT_PREEMPT_AND_ABORT, NEEDS_KEY | NEEDS_NEW_KEY | NEEDS_TYPE },
  { "register-move", HF_PR_OUT_REGISTER_AND_MOVE, NEEDS_KEY | NEEDS_NEW_KEY | IS_MOVE },
};

const char *
hf_pr_sub_verb_name (guint index)
{
  return index < G_N_ELEMENTS (sub_verbs) ? sub_verbs[index].name : NULL;
}

/* The words as GOption found them. */
typedef struct {
  char *key, *new_key, *type, *relative_target_port;
  char **transport_ids;
  gboolean aptpl, all_tg_pt, unregister;
  char **rest;
} PrWords;

static void
pr_words_clear (PrWords *words)
{
  g_free (words->key);
  g_free (words->new_key);
  g_free (words->type);
  g_free (words->relative_target_port);
  g_strfreev (words->transport_ids);
  g_strfreev (words->rest);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (PrWords, pr_words_clear)

static gboolean
parse_words (HfRun *run, char **argv, PrWords *words, GError **error)
{
  const GOptionEntry entries[] = {
    { "key", 0, 0, G_OPTION_ARG_STRING, &words->key, "RESERVATION KEY", "HEX" },
    { "param-rk", 0, 0, G_OPTION_ARG_STRING, &words->key, "The same as --key", "HEX" },
    { "new-key", 0, 0, G_OPTION_ARG_STRING, &words->new_key, "SERVICE ACTION RESERVATION KEY", "HEX" },
    { "param-sark", 0, 0, G_OPTION_ARG_STRING, &words->new_key, "The same as --new-key", "HEX" },
    { "type", 0, 0, G_OPTION_ARG_STRING, &words->type, "TYPE: 1, 3, 5, 6, 7 or 8", "N" },
    { "prout-type", 0, 0, G_OPTION_ARG_STRING, &words->type, "The same as --type", "N" },
    { "aptpl", 0, 0, G_OPTION_ARG_NONE, &words->aptpl, "Set APTPL: keep registrations across a power loss", NULL },
    { "all-tg-pt", 0, 0, G_OPTION_ARG_NONE, &words->all_tg_pt, "Set ALL_TG_PT: register at every target port", NULL },
    { "transport-id", 0, 0, G_OPTION_ARG_STRING_ARRAY, &words->transport_ids, "A TransportID; with register SPEC_I_PT is set",
      "TID" },
    { "relative-target-port", 0, 0, G_OPTION_ARG_STRING, &words->relative_target_port,
      "register-move: RELATIVE TARGET PORT IDENTIFIER", "HEX" },
    { "unreg", 0, 0, G_OPTION_ARG_NONE, &words->unregister, "register-move: set UNREG, unregister this nexus", NULL },
    { NULL },
  };
  const HfOptionSpec spec = {
    "pr SUBVERB LU", "Send one PERSISTENT RESERVE command and show the answer.",
    "Sub-verbs: read-keys read-reservation report-capabilities read-full-status register register-ignore\n"
    "reserve release clear preempt preempt-abort register-move",
    entries, FALSE
  };
  return hf_run_parse (run, &spec, argv, &words->rest, error);
}

static const SubVerb *
find_sub_verb (char **rest, GError **error)
{
  if (!rest[0]) {
    hf_usage_error (error, "pr needs a sub-verb");
    return NULL;
  }
  for (guint i = 0; i < G_N_ELEMENTS (sub_verbs); i++)
    if (strcmp (sub_verbs[i].name, rest[0]) == 0) {
      if (rest[1] && !rest[2])
        return &sub_verbs[i];
      hf_usage_error (error, "pr %s needs one LU", rest[0]);
      return NULL;
    }
  hf_usage_error (error, "\"%s\" is not a sub-verb of pr", rest[0]);
  return NULL;
}

static gboolean
refuse_word (const SubVerb *sub_verb, gboolean given, gboolean taken, const char *option, GError **error)
{
  if (given && !taken)
    return hf_usage_error (error, "pr %s does not take %s", sub_verb->name, option);
  return TRUE;
}

/* An option without effect would hide a mistake, and a missing one would mean 0, which unregisters. */
static gboolean
check_words (const SubVerb *sub_verb, const PrWords *words, GError **error)
{
  guint takes = sub_verb->takes;

  if (!refuse_word (sub_verb, words->key != NULL, takes & (TAKES_KEY | NEEDS_KEY), "--key", error)
      || !refuse_word (sub_verb, words->new_key != NULL, takes & NEEDS_NEW_KEY, "--new-key", error)
      || !refuse_word (sub_verb, words->type != NULL, takes & NEEDS_TYPE, "--type", error)
      || !refuse_word (sub_verb, words->aptpl, takes & (TAKES_FLAGS | IS_MOVE), "--aptpl", error)
      || !refuse_word (sub_verb, words->all_tg_pt, takes & TAKES_FLAGS, "--all-tg-pt", error)
      || !refuse_word (sub_verb, words->transport_ids != NULL, takes & (TAKES_FLAGS | IS_MOVE), "--transport-id", error)
      || !refuse_word (sub_verb, words->relative_target_port != NULL, takes & IS_MOVE, "--relative-target-port", error)
      || !refuse_word (sub_verb, words->unregister, takes & IS_MOVE, "--unreg", error))
    return FALSE;
  if ((takes & NEEDS_KEY) && !words->key)
    return hf_usage_error (error, "pr %s needs --key", sub_verb->name);
  if ((takes & NEEDS_NEW_KEY) && !words->new_key)
    return hf_usage_error (error, "pr %s needs --new-key", sub_verb->name);
  if ((takes & NEEDS_TYPE) && !words->type)
    return hf_usage_error (error, "pr %s needs --type", sub_verb->name);
  if ((takes & IS_MOVE) && (!words->transport_ids || words->transport_ids[1]))
    return hf_usage_error (error, "pr %s needs one --transport-id", sub_verb->name);
  return TRUE;
}

static gboolean
parse_transport_ids (char **words, GArray *ids, GError **error)
{
  for (guint i = 0; words && words[i]; i++) {
    HfTransportId id;
    if (!hf_transport_id_parse (words[i], &id, error))
      return FALSE;
    g_array_append_val (ids, id);
  }
  return TRUE;
}

/* ids: of HfTransportId, must live as long as ret. */
static gboolean
make_out (const SubVerb *sub_verb, const PrWords *words, GArray *ids, HfPrOut *ret, GError **error)
{
  guint64 type = 0, port = 0;

  *ret = (HfPrOut){
    .action = sub_verb->action, .aptpl = words->aptpl, .all_tg_pt = words->all_tg_pt, .unregister = words->unregister
  };
  if (words->key && !hf_parse_hex ("--key", words->key, G_MAXUINT64, &ret->key, error))
    return FALSE;
  if (words->new_key && !hf_parse_hex ("--new-key", words->new_key, G_MAXUINT64, &ret->new_key, error))
    return FALSE;
  if (words->type && !hf_parse_hex ("--type", words->type, 0xf, &type, error))
    return FALSE;
  if (words->relative_target_port
      && !hf_parse_hex ("--relative-target-port", words->relative_target_port, G_MAXUINT16, &port, error))
    return FALSE;
  if (!parse_transport_ids (words->transport_ids, ids, error))
    return FALSE;
  ret->type = (guint8)type;
  ret->relative_target_port = (guint16)port;
  ret->transport_ids = (const HfTransportId *)ids->data;
  ret->n_transport_ids = ids->len;
  return TRUE;
}

/* ---- the command ---- */

static gboolean
send_read_once (HfLu *lu, const SubVerb *sub_verb, guint8 *data, guint16 length, HfScsiResult *result, GError **error)
{
  HfScsiCommand command = {
    .cdb_length = 10,
    .direction = HF_SCSI_FROM_DEVICE,
    .data = data,
    .data_length = length,
    .flags = HF_SCSI_PLAIN,
    .step = sub_verb->name,
  };
  hf_pr_in_encode (sub_verb->action, length, command.cdb);
  return hf_lu_execute (lu, &command, result, error);
}

static gboolean
decode_read (HfRun *run, const SubVerb *sub_verb, const guint8 *data, gsize length, gboolean *ret_truncated, GError **error)
{
  HfPrKeys keys = { 0 };
  HfPrReservation reservation;
  HfPrCapabilities capabilities;
  HfPrFullStatus status = { 0 };

  *ret_truncated = FALSE;
  switch ((HfPrInAction)sub_verb->action) {
  case HF_PR_IN_READ_KEYS:
    if (!hf_pr_keys_decode (data, length, &keys, error))
      return FALSE;
    *ret_truncated = keys.truncated;
    hf_pr_print_keys (&keys, run->text, run->object);
    hf_pr_keys_clear (&keys);
    return TRUE;
  case HF_PR_IN_READ_RESERVATION:
    if (!hf_pr_reservation_decode (data, length, &reservation, error))
      return FALSE;
    hf_pr_print_reservation (&reservation, run->text, run->object);
    return TRUE;
  case HF_PR_IN_REPORT_CAPABILITIES:
    if (!hf_pr_capabilities_decode (data, length, &capabilities, error))
      return FALSE;
    hf_pr_print_capabilities (&capabilities, run->text, run->object);
    return TRUE;
  case HF_PR_IN_READ_FULL_STATUS:
    break;
  }
  if (!hf_pr_full_status_decode (data, length, &status, error))
    return FALSE;
  *ret_truncated = status.truncated;
  hf_pr_print_full_status (&status, run->text, run->object);
  hf_pr_full_status_clear (&status);
  return TRUE;
}

static gboolean
send_read (HfRun *run, HfLu *lu, const SubVerb *sub_verb, HfScsiResult *result, GError **error)
{
  g_autofree guint8 *data = g_malloc0 (ALLOCATION_MAX);
  gboolean truncated;

  if (!send_read_once (lu, sub_verb, data, ALLOCATION_FIRST, result, error))
    return FALSE;
  if (result->status != HF_SAM_GOOD)
    return TRUE;
  if (!decode_read (run, sub_verb, data, result->transferred, &truncated, error))
    return FALSE;
  if (!truncated)
    return TRUE;

  g_string_truncate (run->text, 0);
  if (!send_read_once (lu, sub_verb, data, ALLOCATION_MAX, result, error))
    return FALSE;
  if (result->status != HF_SAM_GOOD)
    return TRUE;
  if (!decode_read (run, sub_verb, data, result->transferred, &truncated, error))
    return FALSE;
  if (truncated)
    hf_run_warn (run, "%s: %s: the list is longer than %d bytes and was cut", hf_lu_get_address (lu), sub_verb->name,
                 ALLOCATION_MAX);
  return TRUE;
}

static void
set_lu_name (HfRun *run, HfLu *lu)
{
  const HfLuIdentity *identity = run->options.json ? hf_lu_get_identity (lu, NULL) : NULL;
  g_autofree char *name = identity ? hf_lu_identity_to_string (identity) : NULL;

  hf_json_set_string (run->object, "lu", name);
}

static void
report_result (HfRun *run, HfLu *lu, const SubVerb *sub_verb, const HfScsiResult *result)
{
  hf_json_set_result (run->object, result);
  hf_json_set_unit_attentions (run->object, result->unit_attentions, result->n_unit_attentions);
  run->result = hf_scsi_result_to_exit_code (result);
  if (result->status == HF_SAM_GOOD)
    return;
  g_string_truncate (run->text, 0);
  hf_run_fail (run, hf_lu_get_address (lu), sub_verb->name, result, NULL);
}

static gboolean
send_sub_verb (HfRun *run, HfLu *lu, const SubVerb *sub_verb, const HfPrOut *out, HfScsiResult *result, GError **error)
{
  if (sub_verb->takes & IS_READ)
    return send_read (run, lu, sub_verb, result, error);
  return hf_pr_send (lu, sub_verb->name, out, HF_SCSI_PLAIN, result, error);
}

static gboolean
is_reset_attention (const HfScsiResult *result)
{
  guint8 key;
  guint16 asc_ascq;

  return hf_scsi_result_get_sense (result, &key, &asc_ascq) && key == SENSE_UNIT_ATTENTION && asc_ascq >> 8 == ASC_RESET;
}

/* again: of the command's repetition, gets the unit attentions of first in front. */
static void
prepend_unit_attentions (const HfScsiResult *first, HfScsiResult *again)
{
  HfScsiResult sum = *again;

  sum.n_unit_attentions = 0;
  for (guint i = 0; i < first->n_unit_attentions && sum.n_unit_attentions < HF_SCSI_UA_MAX; i++)
    sum.unit_attentions[sum.n_unit_attentions++] = first->unit_attentions[i];
  for (guint i = 0; i < again->n_unit_attentions && sum.n_unit_attentions < HF_SCSI_UA_MAX; i++)
    sum.unit_attentions[sum.n_unit_attentions++] = again->unit_attentions[i];
  *again = sum;
}

static gboolean
run_sub_verb (HfRun *run, HfLu *lu, const SubVerb *sub_verb, const HfPrOut *out)
{
  gboolean is_new_login = hf_lu_get_commands (lu) == 0 && g_str_has_prefix (hf_lu_get_address (lu), "iscsi://");
  HfScsiResult result = { 0 }, first = { 0 };
  g_autoptr (GError) error = NULL;

  json_object_set_null_member (run->object, "lu"); /* its place in the line */
  hf_json_set_string (run->object, "device", hf_lu_get_address (lu));
  hf_json_set_string (run->object, "action", sub_verb->name);
  if (!send_sub_verb (run, lu, sub_verb, out, &result, &error))
    return hf_run_no_answer (run, lu, sub_verb->name, error);
  if (is_new_login && is_reset_attention (&result)) {
    first = result;
    if (!send_sub_verb (run, lu, sub_verb, out, &result, &error))
      return hf_run_no_answer (run, lu, sub_verb->name, error);
    prepend_unit_attentions (&first, &result);
  }
  report_result (run, lu, sub_verb, &result);
  set_lu_name (run, lu);
  return TRUE;
}

gboolean
hf_verb_pr (HfRun *run, char **argv, GError **error)
{
  g_auto (PrWords) words = { 0 };
  g_autoptr (GArray) ids = g_array_new (FALSE, FALSE, sizeof (HfTransportId));
  const SubVerb *sub_verb;
  HfPrOut out;
  HfLu *lu;

  if (!parse_words (run, argv, &words, error))
    return FALSE;
  sub_verb = find_sub_verb (words.rest, error);
  if (!sub_verb || !check_words (sub_verb, &words, error) || !make_out (sub_verb, &words, ids, &out, error))
    return FALSE;
  lu = hf_session_open (run->session, &run->options, words.rest[1], error);
  if (!lu)
    return FALSE;
  return run_sub_verb (run, lu, sub_verb, &out);
}
