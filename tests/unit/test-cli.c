/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The verbs without a process: the words of a line in, what is printed and the exit code out. The LUs are nexuses of the model
 * LU:
 *
 *   src   the host the VM leaves      dst   the host it goes to      third   another node      alien   a nexus of another LU
 */
#include "../model/model-transport.h"
#include "cli/cli.h"
#include "cli/pr-arguments.h"
#include "scsi/iscsi-address.h"

#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>

#define KEY 0xabc
#define OTHER_KEY 0xd00d

enum { SRC, DST, THIRD };

typedef struct {
  HfModel model, alien;
  HfModelWire wire, alien_wire;
  HfSession *session;
  HfOptions options;
  char *folder;
  char *out, *err; /* of the last run */
} Fixture;

static void
add_lu (Fixture *f, const char *address, HfModelWire *wire, guint nexus)
{
  hf_session_add (f->session, &f->options, address, hf_model_lu_new (wire, nexus, TRUE));
}

static void
set_up (Fixture *f, gconstpointer quirks)
{
  hf_model_init (&f->model, GPOINTER_TO_UINT (quirks), 3);
  hf_model_init (&f->alien, GPOINTER_TO_UINT (quirks), 1);
  f->alien.naa++;
  hf_model_wire_init (&f->wire, &f->model);
  hf_model_wire_init (&f->alien_wire, &f->alien);
  f->session = hf_session_new ();
  add_lu (f, "src", &f->wire, SRC);
  add_lu (f, "dst", &f->wire, DST);
  add_lu (f, "third", &f->wire, THIRD);
  add_lu (f, "alien", &f->alien_wire, 0);
  f->folder = g_dir_make_tmp ("holdfast-test-cli-XXXXXX", NULL);
  g_assert_nonnull (f->folder);
}

static void
remove_folder (const char *path)
{
  g_autoptr (GDir) folder = g_dir_open (path, 0, NULL);
  const char *name;

  while (folder && (name = g_dir_read_name (folder))) {
    g_autofree char *child = g_build_filename (path, name, NULL);
    if (g_file_test (child, G_FILE_TEST_IS_DIR) && !g_file_test (child, G_FILE_TEST_IS_SYMLINK))
      remove_folder (child);
    else
      g_remove (child);
  }
  g_rmdir (path);
}

static void
tear_down (Fixture *f, gconstpointer quirks)
{
  hf_session_free (f->session);
  hf_model_wire_clear (&f->wire);
  hf_model_wire_clear (&f->alien_wire);
  remove_folder (f->folder);
  g_free (f->folder);
  g_free (f->out);
  g_free (f->err);
}

/* "FOLDER" in line is the fixture's. Returns the exit code. */
static int
run (Fixture *f, const char *line)
{
  g_auto (GStrv) words = NULL;
  g_autoptr (GString) text = g_string_new (line);

  g_string_replace (text, "FOLDER", f->folder, 0);
  g_assert_true (g_shell_parse_argv (text->str, NULL, &words, NULL));
  g_clear_pointer (&f->out, g_free);
  g_clear_pointer (&f->err, g_free);
  return hf_run_verb_to_strings (f->session, &f->options, FALSE, words, &f->out, &f->err);
}

/* The one line that --json promises, and that it says the exit code. Free with json_node_unref. */
static JsonNode *
parse_line (const char *out, int result)
{
  g_autoptr (GError) error = NULL;
  JsonNode *node;

  g_assert_true (g_str_has_suffix (out, "\n"));
  g_assert_true (strchr (out, '\n') == out + strlen (out) - 1);
  node = json_from_string (out, &error);
  g_assert_no_error (error);
  g_assert_true (JSON_NODE_HOLDS_OBJECT (node));
  g_assert_cmpint (json_object_get_int_member (json_node_get_object (node), "version"), ==, 1);
  g_assert_cmpint (json_object_get_int_member (json_node_get_object (node), "result"), ==, result);
  return node;
}

static JsonNode *
run_json (Fixture *f, const char *line, int expected)
{
  g_autofree char *with_json = g_strconcat (line, " --json", NULL);
  int result = run (f, with_json);

  if (result != expected)
    g_test_message ("%s: %s%s", line, f->err, f->out);
  g_assert_cmpint (result, ==, expected);
  return parse_line (f->out, result);
}

static JsonObject *
get_unit (JsonNode *node, guint index)
{
  return json_array_get_object_element (json_object_get_array_member (json_node_get_object (node), "units"), index);
}

static void
vm_holds (Fixture *f, guint8 type)
{
  hf_model_set_key (&f->model, SRC, KEY);
  if (type)
    hf_model_set_reservation (&f->model, SRC, type);
}

static void
save (Fixture *f)
{
  g_assert_cmpint (run (f, "save --key abc -o FOLDER/record src"), ==, 0);
}

static void
check_verdict (Fixture *f, const char *line, int expected, const char *verdict)
{
  g_autoptr (JsonNode) node = run_json (f, line, expected);
  g_assert_cmpstr (json_object_get_string_member (get_unit (node, 0), "verdict"), ==, verdict);
}

/* ---- pure parts ---- */

static void
test_hex (void)
{
  static const struct {
    const char *text;
    guint64 max, value;
    gboolean ok;
  } cases[] = {
    { "0", 0xf, 0, TRUE },
    { "0xAbc", G_MAXUINT64, 0xabc, TRUE },
    { "ffffffffffffffff", G_MAXUINT64, G_MAXUINT64, TRUE },
    { "00000000000000000001", G_MAXUINT64, 1, TRUE },
    { "10000000000000000", G_MAXUINT64, 0, FALSE },
    { "10", 0xf, 0, FALSE },
    { "", 0xf, 0, FALSE },
    { "0x", 0xf, 0, FALSE },
    { "-1", 0xf, 0, FALSE },
    { " 1", 0xf, 0, FALSE },
    { "1 ", 0xf, 0, FALSE },
    { "1g", 0xfff, 0, FALSE },
  };
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (GError) error = NULL;
    guint64 value = 77;
    g_assert_cmpint (hf_parse_hex ("--key", cases[i].text, cases[i].max, &value, &error), ==, cases[i].ok);
    if (cases[i].ok)
      g_assert_cmphex (value, ==, cases[i].value);
    else
      g_assert_nonnull (strstr (error->message, "--key"));
  }
}

static void
test_transport_ids (void)
{
  static const struct {
    const char *text, *name; /* NULL: refused */
  } cases[] = {
    { "sas,5001405000000001", "sas:5001405000000001" },
    { "fcp,2100001b32000001", "fc:2100001b32000001" },
    { "iqn.2026-11.org.example:a", "iscsi:iqn.2026-11.org.example:a" },
    { "iqn.2026-11.org.example:a,i,0x23d000001", "iscsi:iqn.2026-11.org.example:a,i,0x00023d000001" },
    { "6,0,0,0,50,1,40,50,0,0,0,1", "sas:5001405000000001" },
    { "6 0 0 0 50 01 40 50 0 0 0 1", "sas:5001405000000001" },
    { "sas,xyz", NULL },
    { "", NULL },
    { ",,,", NULL },
    { "100", NULL },
    { "iqn.a,i,1000000000000", NULL },
  };
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (GError) error = NULL;
    HfNexus nexus = { 0 };
    g_autofree char *name = NULL;
    gboolean ok = hf_transport_id_parse (cases[i].text, &nexus.transport_id, &error);
    g_assert_cmpint (ok, ==, cases[i].name != NULL);
    g_assert_cmpint (ok, ==, error == NULL);
    name = ok ? hf_nexus_to_string (&nexus) : NULL;
    g_assert_cmpstr (name, ==, cases[i].name);
  }
}

static void
test_transport_id_too_long (void)
{
  g_autoptr (GString) bytes = g_string_new (NULL);
  HfTransportId id;

  for (guint i = 0; i < HF_TRANSPORT_ID_MAX; i++)
    g_string_append (bytes, "5,");
  g_assert_true (hf_transport_id_parse (bytes->str, &id, NULL));
  g_string_append (bytes, "5");
  g_assert_false (hf_transport_id_parse (bytes->str, &id, NULL));
}

/* The highest of 40 to 43 wins, else the first that is not 0. */
static void
test_exit_codes (void)
{
  static const int cases[][3] = {
    { 0, 0, 0 },    { 0, 24, 24 },  { 6, 24, 6 },  { 24, 40, 40 }, { 43, 41, 43 },
    { 41, 42, 42 }, { 42, 99, 42 }, { 99, 1, 99 }, { 44, 43, 43 },
  };
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++)
    g_assert_cmpint (hf_exit_code_combine (cases[i][0], cases[i][1]), ==, cases[i][2]);
}

/* What an LU, a record or a user says cannot move the cursor, end the line, or break UTF-8. */
static void
test_printable (void)
{
  g_autofree char *text = hf_printable ("a\nb\033[2J\xff\302\205\342\200\256 \303\266");
  g_assert_cmpstr (text, ==, "a\\x0ab\\x1b[2J\357\277\275\\x85\\u202e \303\266");
  g_assert_null (hf_printable (NULL));
}

static void
test_password (void)
{
  static const char *const cases[][2] = {
    { "iscsi://me%secret@host/iqn.a/1", "iscsi://me@host/iqn.a/1" },
    { "iscsi://me%a@b@host/iqn.a/1", "iscsi://me@host/iqn.a/1" },
    { "iscsi://me:secret@host/iqn.a/1", "iscsi://me@host/iqn.a/1" },
    { "other://me:secret@host/iqn.a/1", "other://me@host/iqn.a/1" },
    { "/dev/disk/by-id/a:b@c", "/dev/disk/by-id/a:b@c" },
    { "iscsi://me@host/iqn.a/1", "iscsi://me@host/iqn.a/1" },
    { "iscsi://host/iqn.a%b/1", "iscsi://host/iqn.a%b/1" },
    { "/dev/sda", "/dev/sda" },
  };
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autofree char *shown = hf_iscsi_address_without_password (cases[i][0]);
    g_assert_cmpstr (shown, ==, cases[i][1]);
  }
}

/* ---- words ---- */

static const struct {
  const char *line, *message;
} usage_errors[] = {
  { "status", "status needs an LU" },
  { "status ''", "the name of an LU is empty" },
  { "access ''", "the name of an LU is empty" },
  { "status iscsi://me:secret@h/iqn.a/1 iscsi://me:secret@h/iqn.a/1", "iscsi://me@h/iqn.a/1 is named twice" },
  { "save -o '' src", "save needs -o FILE" },
  { "frobnicate", "\"frobnicate\" is not a verb" },
  { "status --frobnicate src", "--frobnicate" },
  { "status --timeout 0 src", "--timeout" },
  { "status --timeout 12x src", "--timeout" },
  { "status --timeout -5 src", "--timeout" },
  { "status --isid 1000000000000 src", "--isid" },
  { "status --isid= src", "--isid" },
  { "status --initiator-name '' src", "--initiator-name" },
  { "status --state-dir '' src", "--state-dir" },
  { "status src src", "src is named twice" },
  { "status iscsi://me%secret@h/t/1 src iscsi://me%secret@h/t/1", "iscsi://me@h/t/1 is named twice" },
  { "pr", "pr needs a sub-verb" },
  { "pr register", "needs one LU" },
  { "pr read-keys src dst", "needs one LU" },
  { "pr steal src", "\"steal\" is not a sub-verb" },
  { "pr register src", "needs --new-key" },
  { "pr reserve --key abc src", "needs --type" },
  { "pr reserve --type 5 src", "needs --key" },
  { "pr preempt --key 1 --type 1 src", "needs --new-key" },
  { "pr reserve --key abc --type 10 src", "--type" },
  { "pr reserve --key 11111111111111111 --type 1 src", "--key" },
  { "pr read-keys --key abc src", "does not take --key" },
  { "pr clear --key abc --type 1 src", "does not take --type" },
  { "pr reserve --key abc --type 1 --aptpl src", "does not take --aptpl" },
  { "pr register --new-key abc --unreg src", "does not take --unreg" },
  { "pr register-move --key 1 --new-key 2 src", "needs one --transport-id" },
  { "pr register-move --key 1 --new-key 2 --transport-id sas,1 --transport-id sas,2 src", "needs one --transport-id" },
  { "pr register-move --key 1 --new-key 2 --transport-id sas,1 --relative-target-port 10000 src", "--relative-target-port" },
  { "save src", "save needs -o FILE" },
  { "save -o FOLDER/x", "save needs an LU" },
  { "save --key 0 -o FOLDER/x src", "--key 0" },
  { "save -o - src", "-o -" },
  { "load src", "load needs -i FILE" },
  { "check --on-change maybe -i FOLDER/x src", "adopt or refuse" },
  { "load --destination-gone -i FOLDER/x src", "--destination-gone" },
  { "check --destination-gone -i FOLDER/x src", "--destination-gone" },
  { "release --source-gone -i FOLDER/x src", "--source-gone has no effect" },
  { "release --destination-gone -i FOLDER/x src", "--destination-gone has no effect" },
  { "inspect", "inspect needs one file" },
  { "access", "access needs one LU" },
  { "access --write --write-zeros src", "exclude each other" },
  { "batch a b", "batch reads one file" },
  { "selftest", "needs --source" },
};

/* A mistake is answered by exit code 1, a message with what was wrong, one line of JSON, and nothing that reaches an LU. */
static void
test_usage (Fixture *f, gconstpointer data)
{
  for (guint i = 0; i < G_N_ELEMENTS (usage_errors); i++) {
    g_autoptr (JsonNode) node = run_json (f, usage_errors[i].line, 1);
    JsonObject *error = json_object_get_object_member (json_node_get_object (node), "error");
    g_test_message ("%s: %s", usage_errors[i].line, f->err);
    g_assert_nonnull (strstr (f->err, usage_errors[i].message));
    g_assert_true (g_str_has_prefix (f->err, "holdfast: "));
    g_assert_nonnull (strstr (f->err, "--help"));
    g_assert_nonnull (strstr (json_object_get_string_member (error, "text"), usage_errors[i].message));
    g_assert_null (strstr (f->err, "secret"));
  }
  g_assert_cmpuint (f->wire.n_commands, ==, 0);
}

/* Without --json nothing of a failure goes to standard output, where a script reads results. */
static void
test_usage_text (Fixture *f, gconstpointer data)
{
  g_assert_cmpint (run (f, "pr reserve src"), ==, 1);
  g_assert_cmpstr (f->out, ==, "");
}

/* ---- pr ---- */

static void
test_pr_text (Fixture *f, gconstpointer data)
{
  g_assert_cmpint (run (f, "pr read-keys src"), ==, 0);
  g_assert_cmpstr (f->out, ==, "  PR generation=0x0, there are NO registered reservation keys\n");
  g_assert_cmpint (run (f, "pr register --param-sark 0xABC src"), ==, 0);
  g_assert_cmpstr (f->out, ==, "");
  g_assert_cmpint (run (f, "pr reserve --param-rk abc --prout-type 5 src"), ==, 0);
  g_assert_cmpint (run (f, "pr register --new-key d00d third"), ==, 0);
  g_assert_cmpint (run (f, "pr read-keys src"), ==, 0);
  g_assert_cmpstr (f->out, ==, "  PR generation=0x2, 2 registered reservation keys follow:\n    0xabc\n    0xd00d\n");
  g_assert_cmpint (run (f, "pr read-reservation src"), ==, 0);
  g_assert_cmpstr (f->out, ==,
                   "  PR generation=0x2, Reservation follows:\n    Key=0xabc\n"
                   "    scope: LU_SCOPE,  type: Write Exclusive, registrants only\n");
  g_assert_cmpint (run (f, "pr read-full-status src"), ==, 0);
  g_assert_nonnull (strstr (f->out, "    Key=0xabc\n"));
  g_assert_nonnull (strstr (f->out, "      << Reservation holder >>\n"));
  g_assert_nonnull (strstr (f->out, "      not reservation holder\n"));
  /* As sg_persist prints it, through the same library. */
  g_assert_nonnull (strstr (f->out, "SAS address: 0x5001405000000000\n"));
}

/* RESERVATION CONFLICT is an answer: exit code 24 as sg_persist, the status in JSON, the name of the LU in the message. */
static void
test_pr_conflict (Fixture *f, gconstpointer data)
{
  g_autoptr (JsonNode) node = NULL;

  vm_holds (f, 1);
  node = run_json (f, "pr clear --key 1 third", 24);
  g_assert_cmpstr (json_object_get_string_member (json_node_get_object (node), "status"), ==, "RESERVATION CONFLICT");
  g_assert_cmpstr (json_object_get_string_member (json_node_get_object (node), "action"), ==, "clear");
  g_assert_true (json_object_get_null_member (json_node_get_object (node), "sense"));
  g_assert_nonnull (strstr (f->err, "clear: RESERVATION CONFLICT"));
  g_assert_cmpuint (hf_model_count_key (&f->model, KEY), ==, 1);
}

/* A unit attention is reported, not repeated: the command was not carried out. */
static void
test_pr_unit_attention (Fixture *f, gconstpointer data)
{
  g_autoptr (JsonNode) node = NULL;
  JsonArray *attentions;

  hf_model_raise_unit_attention (&f->model, SRC, 0x2a05);
  node = run_json (f, "pr register --new-key abc src", 6);
  g_assert_cmpstr (json_object_get_string_member (json_node_get_object (node), "sense"), ==, "6/2a05");
  attentions = json_object_get_array_member (json_node_get_object (node), "unit_attentions");
  g_assert_cmpuint (json_array_get_length (attentions), ==, 1);
  g_assert_cmpstr (json_array_get_string_element (attentions, 0), ==, "2a05");
  g_assert_cmpuint (hf_model_count_key (&f->model, KEY), ==, 0);
}

/* An iSCSI login of our own raises 6/2900 on some targets: behind it, and only there, the command is repeated. */
static void
test_pr_login (Fixture *f, gconstpointer data)
{
  HfLu *lu = hf_lu_new_for_transport (hf_model_transport_new (&f->wire, DST, TRUE), "iscsi://model/iqn.a/1", 0);
  g_autoptr (JsonNode) node = NULL;
  JsonArray *attentions;

  hf_session_add (f->session, &f->options, "iscsi://model/iqn.a/1", lu);
  hf_model_raise_unit_attention (&f->model, DST, 0x2900);
  node = run_json (f, "pr register --new-key abc iscsi://model/iqn.a/1", 0);
  attentions = json_object_get_array_member (json_node_get_object (node), "unit_attentions");
  g_assert_cmpuint (json_array_get_length (attentions), ==, 1);
  g_assert_cmpstr (json_array_get_string_element (attentions, 0), ==, "2900");
  g_assert_cmpuint (hf_model_count_key (&f->model, KEY), ==, 1);

  hf_model_raise_unit_attention (&f->model, DST, 0x2900);
  g_assert_cmpint (run (f, "pr read-keys iscsi://model/iqn.a/1"), ==, 6);
}

/* 2000 keys do not fit into the first buffer of 8192 bytes. */
static void
test_pr_long_list (Fixture *f, gconstpointer data)
{
  g_autoptr (JsonNode) node = NULL;

  f->model.n_crowd = 2000;
  f->model.crowd_key = 0xc0;
  node = run_json (f, "pr read-keys src", 0);
  g_assert_cmpuint (json_array_get_length (json_object_get_array_member (json_node_get_object (node), "keys")), ==, 2000);
  g_assert_cmpint (run (f, "pr read-keys src"), ==, 0);
  g_assert_true (g_str_has_prefix (f->out, "  PR generation=0x0, 2000 registered reservation keys follow:\n"));
}

/* ---- status and access ---- */

static void
test_status (Fixture *f, gconstpointer data)
{
  g_autoptr (JsonNode) node = NULL;
  JsonObject *state, *ours, *theirs;

  vm_holds (f, 5);
  hf_model_set_key (&f->model, THIRD, OTHER_KEY);
  node = run_json (f, "status src", 0);
  g_assert_cmpstr (json_object_get_string_member (get_unit (node, 0), "device"), ==, "model:0");
  state = json_object_get_object_member (get_unit (node, 0), "state");
  g_assert_cmpuint (json_array_get_length (json_object_get_array_member (state, "keys")), ==, 2);
  ours = json_array_get_object_element (json_object_get_array_member (state, "keys"), 0);
  theirs = json_array_get_object_element (json_object_get_array_member (state, "keys"), 1);
  g_assert_cmpstr (json_object_get_string_member (ours, "key"), ==, "0xabc");
  g_assert_cmpstr (json_object_get_string_member (ours, "transport_id"), ==, "sas:5001405000000000");
  g_assert_cmpstr (json_object_get_string_member (ours, "ours"), ==, "yes");
  g_assert_true (json_object_get_boolean_member (ours, "holder"));
  g_assert_cmpstr (json_object_get_string_member (theirs, "ours"), ==, "no");
  g_assert_false (json_object_get_boolean_member (theirs, "holder"));
  g_assert_cmpint (json_object_get_int_member (json_object_get_object_member (state, "reservation"), "type"), ==, 5);

  g_assert_cmpint (run (f, "status src"), ==, 0);
  g_assert_nonnull (strstr (f->out, "reservation type 5 (Write Exclusive, registrants only), held by 0xabc\n"));
}

/* Keys do not say whose they are, nor which of two equal ones holds. */
static void
test_status_without_full_status (Fixture *f, gconstpointer data)
{
  g_autoptr (JsonNode) node = NULL;
  JsonObject *first;

  vm_holds (f, 1);
  hf_model_set_key (&f->model, THIRD, KEY);
  node = run_json (f, "status src", 0);
  first = json_array_get_object_element (
      json_object_get_array_member (json_object_get_object_member (get_unit (node, 0), "state"), "keys"), 0);
  g_assert_true (json_object_get_null_member (first, "transport_id"));
  g_assert_true (json_object_get_null_member (first, "holder"));
  g_assert_true (json_object_get_null_member (first, "ours"));
}

/* One LU that is not there does not hide the other. */
static void
test_status_one_fails (Fixture *f, gconstpointer data)
{
  g_autoptr (JsonNode) node = run_json (f, "status /nonexistent/lu src", 52);

  g_assert_true (json_object_get_null_member (get_unit (node, 0), "state"));
  g_assert_cmpstr (json_object_get_string_member (json_object_get_object_member (get_unit (node, 0), "error"), "step"), ==,
                   "open");
  g_assert_true (json_object_get_null_member (get_unit (node, 1), "error"));
  g_assert_nonnull (strstr (f->err, "/nonexistent/lu"));
}

static void
test_access (Fixture *f, gconstpointer data)
{
  g_autoptr (JsonNode) free_lu = run_json (f, "access --write third", 0);
  g_autoptr (JsonNode) conflict = NULL, skipped = NULL;
  JsonObject *object = json_node_get_object (free_lu);

  g_assert_cmpstr (json_object_get_string_member (object, "read"), ==, "GOOD");
  g_assert_cmpstr (json_object_get_string_member (object, "write"), ==, "GOOD");
  vm_holds (f, 1);
  conflict = run_json (f, "access --write third", 24);
  object = json_node_get_object (conflict);
  g_assert_cmpstr (json_object_get_string_member (object, "read"), ==, "GOOD");
  g_assert_cmpstr (json_object_get_string_member (object, "write"), ==, "RESERVATION CONFLICT");
  hf_model_set_reservation (&f->model, SRC, 3);
  skipped = run_json (f, "access --write third", 24);
  object = json_node_get_object (skipped);
  g_assert_cmpstr (json_object_get_string_member (object, "read"), ==, "RESERVATION CONFLICT");
  g_assert_true (json_object_get_null_member (object, "write"));
}

/* --write puts back what was there; --write-zeros does not. */
static void
test_access_data (Fixture *f, gconstpointer data)
{
  memset (f->model.block, 0x5a, HF_MODEL_BLOCK);
  g_assert_cmpint (run (f, "access --write src"), ==, 0);
  g_assert_cmpint (f->model.block[0], ==, 0x5a);
  g_assert_cmpint (f->model.block[HF_MODEL_BLOCK - 1], ==, 0x5a);
  g_assert_cmpint (run (f, "access --write-zeros src"), ==, 0);
  g_assert_cmpint (f->model.block[0], ==, 0);
}

/* ---- records and moves ---- */

static void
test_save_inspect (Fixture *f, gconstpointer data)
{
  g_autoptr (JsonNode) node = NULL;
  JsonObject *unit;

  vm_holds (f, 5);
  g_assert_cmpint (run (f, "save --vm 'a\tb' --aptpl -o FOLDER/record src"), ==, 0);
  node = run_json (f, "inspect FOLDER/record", 0);
  unit = get_unit (node, 0);
  g_assert_cmpstr (json_object_get_string_member (json_node_get_object (node), "vm"), ==, "a_b");
  g_assert_cmpstr (json_object_get_string_member (unit, "key"), ==, "0xabc");
  g_assert_cmpint (json_object_get_int_member (unit, "type"), ==, 5);
  g_assert_true (json_object_get_boolean_member (unit, "aptpl"));
  g_assert_false (json_object_get_boolean_member (unit, "all_tg_pt"));
  g_assert_cmpuint (json_array_get_length (json_object_get_array_member (unit, "nexuses")), ==, 1);
}

/* Two paths of one LU are one unit. */
static void
test_save_groups (Fixture *f, gconstpointer data)
{
  g_autoptr (JsonNode) node = NULL;

  vm_holds (f, 0);
  hf_model_set_key (&f->model, DST, KEY);
  node = run_json (f, "save -o FOLDER/record src alien dst", 0);
  g_assert_cmpuint (json_array_get_length (json_object_get_array_member (json_node_get_object (node), "units")), ==, 2);
  g_assert_cmpuint (json_array_get_length (json_object_get_array_member (get_unit (node, 0), "devices")), ==, 2);
}

/* A record that is less than it was asked for would lose a reservation later: it is not written. */
static void
test_save_all_or_nothing (Fixture *f, gconstpointer data)
{
  g_autoptr (JsonNode) node = NULL;
  g_autofree char *path = g_build_filename (f->folder, "record", NULL);

  vm_holds (f, 5);
  node = run_json (f, "save --key abc -o FOLDER/record src alien", 1);
  g_assert_true (json_object_get_null_member (get_unit (node, 0), "error"));
  g_assert_false (json_object_get_null_member (get_unit (node, 1), "error"));
  g_assert_false (g_file_test (path, G_FILE_TEST_EXISTS));
}

/* Without READ FULL STATUS nobody knows which registration is ours: the error asks for the key. */
static void
test_save_asks_for_key (Fixture *f, gconstpointer data)
{
  vm_holds (f, 5);
  g_assert_cmpint (run (f, "save -o FOLDER/record src"), ==, 1);
  g_assert_nonnull (strstr (f->err, "--key"));
  g_assert_cmpint (run (f, "save --key abc -o FOLDER/record src"), ==, 0);
}

static void
test_inspect_refuses (Fixture *f, gconstpointer data)
{
  g_autofree char *path = g_build_filename (f->folder, "record", NULL);
  g_autoptr (JsonNode) node = NULL;

  g_assert_true (g_file_set_contents (path, "#!/bin/sh\n", -1, NULL));
  node = run_json (f, "inspect FOLDER/record", 43);
  g_assert_nonnull (strstr (f->err, path));
  g_assert_cmpint (run (f, "inspect FOLDER/nothing"), ==, 15);
}

static void
test_move (Fixture *f, gconstpointer data)
{
  g_autoptr (JsonNode) node = NULL;
  JsonObject *unit, *key;

  vm_holds (f, 1);
  save (f);
  check_verdict (f, "check --state-dir FOLDER/state -i FOLDER/record dst", 0, "moved");
  g_assert_true (hf_model_is_holder (&f->model, SRC));
  node = run_json (f, "load --state-dir FOLDER/state -i FOLDER/record dst", 0);
  unit = get_unit (node, 0);
  g_assert_cmpstr (json_object_get_string_member (unit, "verdict"), ==, "moved");
  g_assert_true (json_object_get_boolean_member (unit, "certain"));
  g_assert_false (json_object_has_member (unit, "or"));
  g_assert_cmpstr (json_object_get_string_member (unit, "key"), ==, "0xabc");
  g_assert_cmpint (json_object_get_int_member (unit, "type"), ==, 1);
  g_assert_cmpint (json_object_get_int_member (unit, "commands"), <=, 7);
  key = json_array_get_object_element (json_object_get_array_member (json_object_get_object_member (unit, "before"), "keys"), 0);
  g_assert_cmpstr (json_object_get_string_member (key, "ours"), ==, "source");
  key = json_array_get_object_element (json_object_get_array_member (json_object_get_object_member (unit, "after"), "keys"), 0);
  g_assert_cmpstr (json_object_get_string_member (key, "ours"), ==, "destination");
  g_assert_true (hf_model_is_holder (&f->model, DST));
}

/* The source's view: the roles' words stay those of the VM's journey. */
static void
test_release_and_reclaim (Fixture *f, gconstpointer data)
{
  g_autoptr (JsonNode) node = NULL;
  JsonObject *first;

  vm_holds (f, 5);
  save (f);
  check_verdict (f, "release --state-dir FOLDER/state -i FOLDER/record src", 40, "refused");
  g_assert_true (f->model.nexuses[SRC].registered);
  check_verdict (f, "load --state-dir FOLDER/state -i FOLDER/record dst", 0, "moved");
  node = run_json (f, "reclaim --state-dir FOLDER/state -i FOLDER/record src", 0);
  g_assert_true (hf_model_is_holder (&f->model, SRC));
  first = json_array_get_object_element (
      json_object_get_array_member (json_object_get_object_member (get_unit (node, 0), "before"), "keys"), 0);
  g_assert_cmpstr (json_object_get_string_member (first, "ours"), ==, "destination");
}

/* Types 7 and 8: the source removes its own registration. */
static void
test_release (Fixture *f, gconstpointer data)
{
  vm_holds (f, 7);
  save (f);
  check_verdict (f, "load --state-dir FOLDER/state -i FOLDER/record dst", 0, "moved");
  g_assert_true (f->model.nexuses[SRC].registered);
  check_verdict (f, "release --state-dir FOLDER/state -i FOLDER/record src", 0, "unregistered");
  g_assert_false (f->model.nexuses[SRC].registered);
  g_assert_true (f->model.nexuses[DST].registered);
}

static void
test_fenced (Fixture *f, gconstpointer data)
{
  vm_holds (f, 5);
  save (f);
  hf_model_set_key (&f->model, SRC, 0);
  check_verdict (f, "load --on-change refuse --state-dir FOLDER/state -i FOLDER/record dst", 40, "fenced");
  check_verdict (f, "load --on-change=adopt --state-dir FOLDER/state -i FOLDER/record dst", 41, "fenced");
  g_assert_nonnull (strstr (f->err, "warning"));
  g_assert_cmpuint (hf_model_count_key (&f->model, KEY), ==, 0);
}

static void
test_occupied (Fixture *f, gconstpointer data)
{
  vm_holds (f, 5);
  save (f);
  hf_model_set_key (&f->model, DST, OTHER_KEY);
  check_verdict (f, "load --state-dir FOLDER/state -i FOLDER/record dst", 42, "occupied");
  g_assert_nonnull (strstr (f->err, "0xd00d"));
  g_assert_true (hf_model_is_holder (&f->model, SRC));
}

/* An LU that is not in the record is refused before any command but the question who it is. */
static void
test_other_lu (Fixture *f, gconstpointer data)
{
  g_autoptr (JsonNode) node = NULL;

  vm_holds (f, 5);
  save (f);
  f->alien_wire.n_commands = 0;
  f->wire.n_commands = 0;
  node = run_json (f, "load --state-dir FOLDER/state -i FOLDER/record dst alien", 43);
  g_assert_cmpuint (f->alien_wire.n_commands, <=, 1);
  g_assert_cmpuint (f->wire.n_commands, <=, 1);
  g_assert_true (hf_model_is_holder (&f->model, SRC));
}

/* Two LUs, one of which the policy refuses: neither text nor JSON calls anything done. */
static void
test_refused_by_policy (Fixture *f, gconstpointer data)
{
  g_autoptr (JsonNode) node = NULL;
  JsonObject *first, *second;

  vm_holds (f, 5);
  hf_model_set_key (&f->alien, 0, KEY);
  hf_model_set_reservation (&f->alien, 0, 5);
  g_assert_cmpint (run (f, "save --key abc -o FOLDER/record src alien"), ==, 0);
  hf_model_set_reservation (&f->model, SRC, 6);
  node = run_json (f, "load --on-change refuse --state-dir FOLDER/state -i FOLDER/record dst alien", 40);
  first = get_unit (node, 0);
  second = get_unit (node, 1);
  g_assert_cmpstr (json_object_get_string_member (first, "verdict"), ==, "type-changed");
  g_assert_false (json_object_get_boolean_member (first, "done"));
  g_assert_cmpstr (json_object_get_string_member (json_object_get_object_member (first, "error"), "text"), ==,
                   "refused: type-changed");
  g_assert_false (json_object_get_boolean_member (second, "done"));
  g_assert_nonnull (strstr (f->err, "refused: type-changed"));
  g_assert_null (strstr (f->err, "moved"));
  g_assert_cmpint (run (f, "load --on-change refuse --state-dir FOLDER/state -i FOLDER/record dst alien"), ==, 40);
  g_assert_nonnull (strstr (f->out, "type-changed (not done: would be moved"));
  g_assert_null (strstr (f->out, "(moved"));
}

/* "would be" of a verb that only reads; done where it was done. */
static void
test_done (Fixture *f, gconstpointer data)
{
  g_autoptr (JsonNode) checked = NULL, loaded = NULL;

  vm_holds (f, 5);
  save (f);
  checked = run_json (f, "check --state-dir FOLDER/state -i FOLDER/record dst", 0);
  g_assert_false (json_object_get_boolean_member (get_unit (checked, 0), "done"));
  g_assert_cmpint (run (f, "check --state-dir FOLDER/state -i FOLDER/record dst"), ==, 0);
  g_assert_nonnull (strstr (f->out, "moved (would be registered and holding)"));
  loaded = run_json (f, "load --state-dir FOLDER/state -i FOLDER/record dst", 0);
  g_assert_true (json_object_get_boolean_member (get_unit (loaded, 0), "done"));
}

/* An LU that cannot be opened: which, at which step, and that no unit was touched. */
static void
test_not_started (Fixture *f, gconstpointer data)
{
  g_autoptr (JsonNode) node = NULL;
  JsonObject *error, *unit;

  vm_holds (f, 5);
  save (f);
  node = run_json (f, "load --state-dir FOLDER/state -i FOLDER/record dst /nonexistent/lu", 52);
  error = json_object_get_object_member (json_node_get_object (node), "error");
  unit = get_unit (node, 0);
  g_assert_cmpstr (json_object_get_string_member (error, "step"), ==, "open");
  g_assert_cmpstr (json_object_get_string_member (unit, "verdict"), ==, "error");
  g_assert_false (json_object_get_boolean_member (unit, "done"));
  g_assert_nonnull (strstr (json_object_get_string_member (unit, "note"), "/nonexistent/lu"));
  g_assert_cmpuint (f->model.nexuses[DST].key, ==, 0);
}

/* Nothing was done, so 41 does not count: the device's code does. */
static void
test_not_done_is_not_41 (Fixture *f, gconstpointer data)
{
  vm_holds (f, 5);
  hf_model_set_key (&f->alien, 0, KEY);
  g_assert_cmpint (run (f, "save --key abc -o FOLDER/record src alien"), ==, 0);
  hf_model_set_reservation (&f->model, SRC, 6);
  check_verdict (f, "check --state-dir FOLDER/state -i FOLDER/record dst", 15, "type-changed");
  check_verdict (f, "load --state-dir FOLDER/state -i FOLDER/record dst", 15, "type-changed");
}

static void
ask_to_end (HfModel *model, guint nexus, guint index, const guint8 *cdb, gpointer user_data)
{
  /* PERSISTENT RESERVE OUT */
  int *action = user_data;

  if (cdb[0] != 0x5f || (cdb[1] & 0x1f) != *action)
    return;
  *action = -1; /* once: a second signal kills */
  raise (SIGTERM);
}

/* SIGTERM in the middle of prepare: the phase ends, what was registered is taken back, and a rerun goes through. */
static void
test_signal (Fixture *f, gconstpointer data)
{
  g_autoptr (JsonNode) node = NULL;
  int action = HF_PR_OUT_REGISTER;

  vm_holds (f, 5);
  save (f);
  f->wire.before = ask_to_end;
  f->wire.user_data = &action;
  node = run_json (f, "load --state-dir FOLDER/state -i FOLDER/record dst", 128 + SIGTERM);
  g_assert_false (json_object_get_boolean_member (get_unit (node, 0), "done"));
  g_assert_cmpuint (f->model.nexuses[DST].key, ==, 0);
  g_assert_cmpuint (f->model.nexuses[SRC].key, ==, KEY);
  g_assert_nonnull (strstr (f->err, "signal 15"));
  f->wire.before = NULL;
  check_verdict (f, "load --state-dir FOLDER/state -i FOLDER/record dst", 0, "moved");
}

/* SIGTERM while the reservation is taken over: too late to go back, so it is finished. */
static void
test_late_signal (Fixture *f, gconstpointer data)
{
  int action = HF_PR_OUT_PREEMPT;

  vm_holds (f, 5);
  save (f);
  f->wire.before = ask_to_end;
  f->wire.user_data = &action;
  check_verdict (f, "load --state-dir FOLDER/state -i FOLDER/record dst", 0, "moved");
  g_assert_nonnull (strstr (f->err, "what was begun is finished"));
}

/* Help is text for a person and line for line of a batch. */
static void
test_help (Fixture *f, gconstpointer data)
{
  g_autoptr (JsonNode) node = NULL;
  char *words[] = { (char *)"status", (char *)"--help", (char *)"--json", NULL };
  g_autofree char *out = NULL, *err = NULL;

  g_assert_cmpint (run (f, "status --help --json"), ==, 0);
  g_assert_nonnull (strstr (f->out, "--initiator-name"));
  g_assert_cmpint (hf_run_verb_to_strings (f->session, &f->options, TRUE, words, &out, &err), ==, 0);
  node = parse_line (out, 0);
}

#define ADD(name, quirks, function) g_test_add ("/cli/" name, Fixture, GUINT_TO_POINTER (quirks), set_up, function, tear_down)

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/cli/hex", test_hex);
  g_test_add_func ("/cli/transport-ids", test_transport_ids);
  g_test_add_func ("/cli/transport-id-too-long", test_transport_id_too_long);
  g_test_add_func ("/cli/exit-codes", test_exit_codes);
  g_test_add_func ("/cli/printable", test_printable);
  g_test_add_func ("/cli/password", test_password);
  ADD ("usage", HF_MODEL_SPC, test_usage);
  ADD ("usage-text", HF_MODEL_SPC, test_usage_text);
  ADD ("help", HF_MODEL_SPC, test_help);
  ADD ("pr/text", HF_MODEL_SPC, test_pr_text);
  ADD ("pr/conflict", HF_MODEL_SPC, test_pr_conflict);
  ADD ("pr/unit-attention", HF_MODEL_SPC, test_pr_unit_attention);
  ADD ("pr/login", HF_MODEL_TGT, test_pr_login);
  ADD ("pr/long-list", HF_MODEL_SPC, test_pr_long_list);
  ADD ("status", HF_MODEL_SPC, test_status);
  ADD ("status/without-full-status", HF_MODEL_TGT, test_status_without_full_status);
  ADD ("status/one-fails", HF_MODEL_SPC, test_status_one_fails);
  ADD ("access", HF_MODEL_SPC, test_access);
  ADD ("access/data", HF_MODEL_SPC, test_access_data);
  ADD ("save/inspect", HF_MODEL_SPC, test_save_inspect);
  ADD ("save/groups", HF_MODEL_SPC, test_save_groups);
  ADD ("save/all-or-nothing", HF_MODEL_SPC, test_save_all_or_nothing);
  ADD ("save/asks-for-key", HF_MODEL_TGT, test_save_asks_for_key);
  ADD ("inspect/refuses", HF_MODEL_SPC, test_inspect_refuses);
  ADD ("move", HF_MODEL_SPC, test_move);
  ADD ("move/release-and-reclaim", HF_MODEL_SPC, test_release_and_reclaim);
  ADD ("move/release", HF_MODEL_LIO, test_release);
  ADD ("move/fenced", HF_MODEL_SPC, test_fenced);
  ADD ("move/occupied", HF_MODEL_SPC, test_occupied);
  ADD ("move/other-lu", HF_MODEL_SPC, test_other_lu);
  ADD ("move/refused-by-policy", HF_MODEL_SPC, test_refused_by_policy);
  ADD ("move/done", HF_MODEL_SPC, test_done);
  ADD ("move/not-started", HF_MODEL_SPC, test_not_started);
  ADD ("move/not-done-is-not-41", HF_MODEL_SPC, test_not_done_is_not_41);
  ADD ("move/signal", HF_MODEL_SPC, test_signal);
  ADD ("move/late-signal", HF_MODEL_SPC, test_late_signal);
  return g_test_run ();
}
