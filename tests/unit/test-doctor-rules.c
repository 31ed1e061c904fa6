/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The rules of the doctor, and its reading of QEMU's command line. The answers were recorded from QEMU 7.2; each test changes one
 * thing in them and looks at the one check that has to notice. migrate-pr is QEMU 11's.
 */

#include "config.h"

#include "cli/doctor-nodes.h"
#include "cli/doctor-rules.h"

#include <string.h>

/* A VM with all as it should be. */
static const char right[] =
    "{'query-version':{'qemu':{'micro':22,'minor':2,'major':7},'package':'Debian'},"
    " 'query-pr-managers':[{'connected':true,'id':'pr0'}],"
    " 'query-block':[{'device':'','locked':false,'removable':false,'qdev':'d1','type':'unknown',"
    "   'inserted':{'ro':false,'node-name':'fa','drv':'host_device','file':'/dev/sda','image':{'filename':'/dev/sda'}}}],"
    " 'query-migrate-capabilities':[{'state':true,'capability':'events'},{'state':true,'capability':'return-path'}],"
    " 'objects':[{'name':'type','type':'string'},"
    "   {'name':'dv','type':'child<dbus-vmstate>','addr':'unix:path=/bus','id-list':'other,holdfast'},"
    "   {'name':'pr0','type':'child<pr-manager-helper>','path':'/pr.sock','features':1}],"
    " 'devices':{'d1':{'type':'scsi-block','rerror':'report','werror':'report','share-rw':true}},"
    " 'nodes':{'fa':{'driver':'host_device','pr-manager':'pr0','auto-read-only':'off'}}}";

static JsonObject *
parse (const char *text)
{
  g_autoptr (JsonParser) parser = json_parser_new ();
  g_autoptr (GError) error = NULL;
  g_autofree char *json = g_strdelimit (g_strdup (text), "'", '"');

  json_parser_load_from_data (parser, json, -1, &error);
  g_assert_no_error (error);
  return json_object_ref (json_node_get_object (json_parser_get_root (parser)));
}

static const HfDoctorCheck *
find_check (const GPtrArray *checks, const char *name)
{
  for (guint i = 0; i < checks->len; i++)
    if (strcmp (((const HfDoctorCheck *)checks->pdata[i])->name, name) == 0)
      return checks->pdata[i];
  return NULL;
}

/* What the check says when from is replaced by to: its verdict, or "none". */
static const char *
verdict_with (const char *from, const char *to, const char *name)
{
  g_auto (GStrv) parts = g_strsplit (right, from, 2);
  g_autofree char *text = g_strjoinv (to, parts);
  g_autoptr (JsonObject) facts = parse (text);
  g_autoptr (GPtrArray) checks = hf_doctor_judge (facts, "holdfast");
  const HfDoctorCheck *check = find_check (checks, name);

  g_assert_cmpuint (g_strv_length (parts), ==, 2);
  return check ? hf_doctor_verdict_name (check->verdict) : "none";
}

static void
test_right (void)
{
  g_autoptr (JsonObject) facts = parse (right);
  g_autoptr (GPtrArray) checks = hf_doctor_judge (facts, "holdfast");

  g_assert_cmpuint (checks->len, ==, 13);
  g_assert_cmpint (hf_doctor_worst (checks), ==, HF_DOCTOR_OK);
  for (guint i = 0; i < checks->len; i++) {
    const HfDoctorCheck *check = checks->pdata[i];
    g_assert_nonnull (check->found);
    g_assert_nonnull (check->why);
    g_assert_null (check->advice);
  }
}

/* Nothing was answered: nothing is ok, and the VM as a whole is judged. */
static void
test_nothing (void)
{
  g_autoptr (JsonObject) facts = json_object_new ();
  g_autoptr (GPtrArray) checks = hf_doctor_judge (facts, "holdfast");

  g_assert_cmpint (hf_doctor_worst (checks), ==, HF_DOCTOR_ERROR);
  for (guint i = 0; i < checks->len; i++)
    g_assert_cmpint (((const HfDoctorCheck *)checks->pdata[i])->verdict, !=, HF_DOCTOR_OK);
}

typedef struct {
  const char *from, *to, *check, *verdict;
} Change;

static const Change changes[] = {
  { "'major':7", "'major':4", "version", "error" },
  { "'major':7", "'major':11", "version", "ok" },
  { "'major':7", "'major':'7'", "version", "unknown" },
  { "{'connected':true,'id':'pr0'}", "", "pr-manager", "error" },
  { "'connected':true", "'connected':false", "pr-manager", "error" },
  { "'connected':true", "'connected':1", "pr-manager", "unknown" },
  { "'features':1", "'features':0", "helper", "error" },
  { "'features':1", "'features':-1", "helper", "error" },
  { "'features':1", "'features':-3", "helper", "unknown" },
  { ",'features':1", "", "helper", "none" },
  { "child<dbus-vmstate>", "child<secret>", "vmstate", "error" },
  { "child<dbus-vmstate>", "child<secret>", "id-list", "none" },
  { "other,holdfast", "", "id-list", "error" },
  { "other,holdfast", "holdfast2,hold", "id-list", "error" },
  { "other,holdfast", "holdfast", "id-list", "ok" },
  { ",'id-list':'other,holdfast'", "", "id-list", "error" },
  { "{'state':true,'capability':'return-path'}", "{'state':false,'capability':'return-path'}", "return-path", "warning" },
  { "{'state':true,'capability':'return-path'}", "7", "return-path", "unknown" },
  { "{'state':true,'capability':'events'}", "{'state':false,'capability':'events'}", "events", "warning" },
  { "'type':'scsi-block'", "'type':'scsi-hd'", "disks", "error" },
  { "'type':'scsi-block'", "'type':'scsi-hd'", "bus", "warning" },
  { "'type':'scsi-block'", "'type':'scsi-hd'", "rerror-werror", "none" },
  { "'type':'scsi-block'", "'type':'scsi-cd'", "bus", "none" },
  { "'type':'scsi-block'", "'type':'scsi-generic'", "disks", "ok" },
  { "'type':'scsi-block'", "'type':'scsi-generic'", "node-pr-manager", "ok" },
  { "'type':'scsi-block'", "'type':'scsi-generic'", "rerror-werror", "none" },
  { "'type':'scsi-block',", "", "bus", "warning" },
  { "'d1':{'type'", "'d2':{'type'", "disks", "error" },
  { "'pr-manager':'pr0'", "'pr-manager':'pr1'", "node-pr-manager", "error" },
  { "'pr-manager':'pr0',", "", "node-pr-manager", "error" },
  { "'fa':{'driver'", "'fb':{'driver'", "node-pr-manager", "unknown" },
  { "'nodes'", "'else'", "node-pr-manager", "unknown" },
  { "'auto-read-only':'off'", "'auto-read-only':'on'", "auto-read-only", "warning" },
  { "'auto-read-only':'off'", "'auto-read-only':'true'", "auto-read-only", "warning" },
  { ",'auto-read-only':'off'", "", "auto-read-only", "ok" },
  { "'fa':{'driver'", "'fb':{'driver'", "auto-read-only", "unknown" },
  { "'fa':{'driver':'host_device'", "'fa':{'file':'fa'", "auto-read-only", "ok" },
  { "'ro':false", "'ro':true", "read-only", "warning" },
  { "'rerror':'report'", "'rerror':'stop'", "rerror-werror", "error" },
  { "'werror':'report'", "'werror':'ignore'", "rerror-werror", "error" },
  { "'werror':'report'", "'werror':'auto'", "rerror-werror", "warning" },
  { "'werror':'report'", "'werror':'enospc'", "rerror-werror", "warning" },
  { "'werror':'report'", "'werror':false", "rerror-werror", "unknown" },
  { "'share-rw':true", "'share-rw':false", "share-rw", "warning" },
  { ",'share-rw':true", "", "share-rw", "unknown" },
  { "'share-rw':true", "'share-rw':true,'migrate-pr':false", "migrate-pr", "ok" },
  { "'share-rw':true", "'share-rw':true,'migrate-pr':true", "migrate-pr", "ok" },
  { "'share-rw':true", "'share-rw':true,'migrate-pr':'on'", "migrate-pr", "ok" },
  { "'share-rw':true", "'share-rw':true", "migrate-pr", "none" },
};

static void
test_changes (void)
{
  for (guint i = 0; i < G_N_ELEMENTS (changes); i++) {
    const char *verdict = verdict_with (changes[i].from, changes[i].to, changes[i].check);

    g_test_message ("%s -> %s", changes[i].from, changes[i].to);
    g_assert_cmpstr (verdict, ==, changes[i].verdict);
  }
}

/* QEMU's own move, and nobody who helps. */
static void
test_migrate_pr_alone (void)
{
  g_autoptr (JsonObject) facts = parse (right);
  g_autoptr (GPtrArray) checks = NULL;

  json_object_set_boolean_member (json_object_get_object_member (json_object_get_object_member (facts, "devices"), "d1"),
                                  "migrate-pr", TRUE);
  json_object_remove_member (facts, "objects");
  checks = hf_doctor_judge (facts, "holdfast");
  g_assert_cmpint (find_check (checks, "migrate-pr")->verdict, ==, HF_DOCTOR_WARNING);
}

/* libvirt sets capabilities for each migration: before it nobody can know. */
static void
test_libvirt (void)
{
  g_autoptr (JsonObject) facts = parse (right);
  g_autoptr (JsonObject) others = parse ("{'c':[{'state':false,'capability':'return-path'}],'o':{'name':'masterKey0'}}");
  g_autoptr (GPtrArray) checks = NULL;

  json_object_set_member (facts, "query-migrate-capabilities", json_node_copy (json_object_get_member (others, "c")));
  json_array_add_object_element (json_object_get_array_member (facts, "objects"),
                                 json_object_ref (json_object_get_object_member (others, "o")));
  checks = hf_doctor_judge (facts, "holdfast");
  g_assert_cmpint (find_check (checks, "return-path")->verdict, ==, HF_DOCTOR_UNKNOWN);
  g_assert_cmpint (hf_doctor_worst (checks), ==, HF_DOCTOR_UNKNOWN);
}

/* A disk of -drive is known by the id of the drive, whose auto-read-only is on unless it says otherwise. */
static void
test_drive (void)
{
  const char *argv[] = { "qemu", "-drive", "file=/dev/sda,if=none,id=x,format=raw,file.pr-manager=pr0", NULL };
  g_autoptr (JsonObject) facts = parse (right);
  JsonObject *block = json_array_get_object_element (json_object_get_array_member (facts, "query-block"), 0);
  g_autoptr (GPtrArray) checks = NULL;

  json_object_set_string_member (block, "device", "x");
  json_object_set_string_member (json_object_get_object_member (block, "inserted"), "node-name", "#block123");
  json_object_set_object_member (facts, "nodes", hf_doctor_nodes (argv));
  checks = hf_doctor_judge (facts, "holdfast");
  g_assert_cmpint (find_check (checks, "node-pr-manager")->verdict, ==, HF_DOCTOR_OK);
  g_assert_cmpint (find_check (checks, "auto-read-only")->verdict, ==, HF_DOCTOR_WARNING);
}

/* Whatever stands where something else is expected: an answer, no crash. */
static void
test_shapes (void)
{
  static const char *const members[] = { "query-version", "query-pr-managers",
                                         "query-block",   "query-migrate-capabilities",
                                         "objects",       "devices" };
  static const char *const shapes[] = { "null",
                                        "7",
                                        "'x'",
                                        "[]",
                                        "{}",
                                        "[null,7,'x',[],{}]",
                                        "{'qemu':7,'d1':7,'fa':7}",
                                        "[{'qdev':7,'inserted':{}},{'qdev':'d1','inserted':7},{'name':7,'type':{}}]",
                                        "[{'qdev':'d1','device':7,'inserted':{'node-name':[],'file':{},'ro':{}}}]" };

  for (guint i = 0; i < G_N_ELEMENTS (members); i++)
    for (guint j = 0; j < G_N_ELEMENTS (shapes); j++) {
      g_autofree char *text = g_strdup_printf ("{'x':%s}", shapes[j]);
      g_autoptr (JsonObject) facts = parse (right), shape = parse (text);
      g_autoptr (GPtrArray) checks = NULL;

      json_object_set_member (facts, members[i], json_node_copy (json_object_get_member (shape, "x")));
      checks = hf_doctor_judge (facts, "holdfast");
      g_assert_cmpuint (checks->len, >=, 7);
    }
}

/* ---- the command line ---- */

static const char *const command_line[] = {
  "qemu-system-x86_64",
  "-blockdev",
  "driver=host_device,node-name=plain,filename=/dev/a,,b,pr-manager=pr0",
  "--blockdev",
  "{\"driver\":\"host_device\",\"node-name\":\"json\",\"pr-manager\":\"pr1\",\"auto-read-only\":true,\"cache\":{\"direct\":true}"
  "}",
  "-blockdev",
  "driver=raw,node-name=above,file=json",
  "-blockdev",
  "driver=raw,node-name=within,auto-read-only=off,file.driver=host_device,file.pr-manager=pr2,file.auto-read-only=on",
  "-blockdev",
  "driver=raw,node-name=circle,file=circle",
  "-blockdev",
  "driver=raw,node-name=lost,file=later",
  "-blockdev",
  "driver=null-co",
  "-blockdev",
  "{\"driver\":[[[",
  "-blockdev",
  "{\"node-name\":7}",
  "-blockdev",
  "",
  "-drive",
  "file=json,id=d,auto-read-only=off",
  "-blockdev",
  NULL,
};

typedef struct {
  const char *node, *option, *value;
  gboolean seen;
} Option;

static const Option options[] = {
  { "plain", "pr-manager", "pr0", TRUE },    { "plain", "filename", "/dev/a,b", TRUE },
  { "plain", "auto-read-only", NULL, TRUE }, { "json", "pr-manager", "pr1", TRUE },
  { "json", "auto-read-only", "on", TRUE },  { "json", "direct", "on", TRUE },
  { "above", "pr-manager", "pr1", TRUE },    { "above", "auto-read-only", "on", TRUE },
  { "within", "pr-manager", "pr2", TRUE },   { "within", "auto-read-only", "on", TRUE },
  { "circle", "pr-manager", NULL, TRUE },    { "lost", "pr-manager", NULL, FALSE },
  { "later", "pr-manager", NULL, FALSE },    { "drive:d", "auto-read-only", "off", TRUE },
  { "drive:d", "pr-manager", NULL, TRUE },   { NULL, "pr-manager", NULL, FALSE },
};

static void
test_nodes (void)
{
  g_autoptr (JsonObject) nodes = hf_doctor_nodes (command_line);

  for (guint i = 0; i < G_N_ELEMENTS (options); i++) {
    gboolean seen = !options[i].seen;
    const char *value = hf_doctor_node_option (nodes, options[i].node, options[i].option, &seen);

    g_test_message ("%s of %s", options[i].option, options[i].node);
    g_assert_cmpstr (value, ==, options[i].value);
    g_assert_cmpint (seen, ==, options[i].seen);
  }
  g_assert_cmpuint (json_object_get_size (nodes), ==, 7);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/doctor/right", test_right);
  g_test_add_func ("/doctor/nothing", test_nothing);
  g_test_add_func ("/doctor/changes", test_changes);
  g_test_add_func ("/doctor/migrate-pr-alone", test_migrate_pr_alone);
  g_test_add_func ("/doctor/libvirt", test_libvirt);
  g_test_add_func ("/doctor/drive", test_drive);
  g_test_add_func ("/doctor/shapes", test_shapes);
  g_test_add_func ("/doctor/nodes", test_nodes);
  return g_test_run ();
}
