/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns: the rules of the doctor. Thread: any; pure.
 *
 * Theory of operation: each rule is a row of a table: its name, why it matters, what to do, and the function that looks at the
 * facts. A rule looks at the VM as a whole, or at each device that can pass PERSISTENT RESERVE commands. What QEMU does not tell
 * is "unknown" and never "ok". The answers come from a process that is not ours, so nothing is taken for granted about their
 * shape.
 */
#include "config.h"

#include "cli/doctor-rules.h"

#include "cli/doctor-nodes.h"

#include <string.h>

typedef struct _Rule Rule;

typedef struct {
  JsonObject *facts;
  const char *vmstate_id;
  GPtrArray *checks;
  const Rule *rule; /* the one at work */
} Exam;

/* One disk of query-block, with what is known of its device. */
typedef struct {
  const char *name; /* "qdev" */
  const char *type; /* of QOM; "" if not known */
  const char *node, *driver, *filename;
  char *drive; /* "drive:" and the id of its -drive; NULL: none */
  gboolean read_only;
  JsonObject *properties; /* NULL: not known */
} Disk;

struct _Rule {
  const char *name, *why, *advice;
  void (*judge) (Exam *exam);
  void (*judge_disk) (Exam *exam, const Disk *disk);
};

/* ---- JSON of unknown shape ---- */

static JsonNode *
member (JsonObject *object, const char *name)
{
  return object ? json_object_get_member (object, name) : NULL;
}

static const char *
string_of (JsonObject *object, const char *name)
{
  JsonNode *node = member (object, name);

  return node && JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == G_TYPE_STRING ? json_node_get_string (node)
                                                                                                  : NULL;
}

static gint64
int_of (JsonObject *object, const char *name, gint64 otherwise)
{
  JsonNode *node = member (object, name);

  return node && JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == G_TYPE_INT64 ? json_node_get_int (node)
                                                                                                 : otherwise;
}

/* 1, 0; -1: neither. QEMU has "on" and "off" for some properties. */
static int
bool_of (JsonObject *object, const char *name)
{
  JsonNode *node = member (object, name);
  const char *text = string_of (object, name);

  if (node && JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == G_TYPE_BOOLEAN)
    return json_node_get_boolean (node);
  if (!text)
    return -1;
  return strcmp (text, "on") == 0 || strcmp (text, "true") == 0 ? 1 : 0;
}

static JsonObject *
object_of (JsonObject *object, const char *name)
{
  JsonNode *node = member (object, name);

  return node && JSON_NODE_HOLDS_OBJECT (node) ? json_node_get_object (node) : NULL;
}

/* The elements that are objects; of nothing: an empty list. JsonObject, borrowed. */
static GPtrArray *
objects_of (JsonObject *object, const char *name)
{
  GPtrArray *list = g_ptr_array_new ();
  JsonNode *node = member (object, name);
  JsonArray *array = node && JSON_NODE_HOLDS_ARRAY (node) ? json_node_get_array (node) : NULL;

  for (guint i = 0; array && i < json_array_get_length (array); i++)
    if (JSON_NODE_HOLDS_OBJECT (json_array_get_element (array, i)))
      g_ptr_array_add (list, json_array_get_object_element (array, i));
  return list;
}

/* The first with name = value; NULL. */
static JsonObject *
find_object (const GPtrArray *list, const char *name, const char *value)
{
  for (guint i = 0; i < list->len; i++)
    if (g_strcmp0 (string_of (list->pdata[i], name), value) == 0)
      return list->pdata[i];
  return NULL;
}

static JsonObject *
find_object_of_type (JsonObject *facts, const char *type)
{
  g_autoptr (GPtrArray) objects = objects_of (facts, "objects");
  g_autofree char *child = g_strdup_printf ("child<%s>", type);

  return find_object (objects, "type", child);
}

/* ---- results ---- */

static void G_GNUC_PRINTF (4, 5) add (Exam *exam, HfDoctorVerdict verdict, const char *subject, const char *format, ...)
{
  HfDoctorCheck *check = g_new0 (HfDoctorCheck, 1);
  va_list arguments;

  va_start (arguments, format);
  check->found = g_strdup_vprintf (format, arguments);
  va_end (arguments);
  check->name = exam->rule->name;
  check->verdict = verdict;
  check->subject = g_strdup (subject);
  check->why = exam->rule->why;
  check->advice = verdict == HF_DOCTOR_OK ? NULL : exam->rule->advice;
  g_ptr_array_add (exam->checks, check);
}

static void
check_free (gpointer data)
{
  HfDoctorCheck *check = data;

  g_free (check->subject);
  g_free (check->found);
  g_free (check);
}

/* ---- rules of the VM ---- */

static void
judge_version (Exam *exam)
{
  JsonObject *version = object_of (object_of (exam->facts, "query-version"), "qemu");
  gint64 major = int_of (version, "major", -1), minor = int_of (version, "minor", 0);

  if (major < 0)
    add (exam, HF_DOCTOR_UNKNOWN, NULL, "QEMU does not tell its version");
  else
    add (exam, major >= 5 ? HF_DOCTOR_OK : HF_DOCTOR_ERROR, NULL, "QEMU %d.%d", (int)major, (int)minor);
}

static void
judge_managers (Exam *exam)
{
  g_autoptr (GPtrArray) managers = objects_of (exam->facts, "query-pr-managers");

  if (managers->len == 0)
    add (exam, HF_DOCTOR_ERROR, NULL, "no object pr-manager-helper");
  for (guint i = 0; i < managers->len; i++) {
    const char *id = string_of (managers->pdata[i], "id");
    int connected = bool_of (managers->pdata[i], "connected");

    if (connected == 1)
      add (exam, HF_DOCTOR_OK, id, "connected, when QEMU last used it");
    else
      add (exam, connected < 0 ? HF_DOCTOR_UNKNOWN : HF_DOCTOR_ERROR, id, connected < 0 ? "not told" : "not connected");
  }
}

static void
judge_helpers (Exam *exam)
{
  g_autoptr (GPtrArray) objects = objects_of (exam->facts, "objects");

  for (guint i = 0; i < objects->len; i++) {
    JsonObject *object = objects->pdata[i];
    const char *path = string_of (object, "path");
    gint64 features = int_of (object, "features", HF_DOCTOR_NOT_ASKED);

    if (!path || features == HF_DOCTOR_NOT_ASKED)
      continue;
    if (features == HF_DOCTOR_DENIED)
      add (exam, HF_DOCTOR_UNKNOWN, string_of (object, "name"), "%s may not be asked by this user", path);
    else if (features < 0)
      add (exam, HF_DOCTOR_ERROR, string_of (object, "name"), "nobody answers at %s", path);
    else if (features & 1)
      add (exam, HF_DOCTOR_OK, string_of (object, "name"), "%s offers CLEANUP, as holdfast-pr-helper does", path);
    else
      add (exam, HF_DOCTOR_ERROR, string_of (object, "name"), "%s is not holdfast-pr-helper", path);
  }
}

/* id-list has its ids between commas. */
static gboolean
has_id (const char *list, const char *id)
{
  g_auto (GStrv) ids = g_strsplit (list, ",", -1);

  return g_strv_contains ((const char *const *)ids, id);
}

static void
judge_vmstate (Exam *exam)
{
  JsonObject *vmstate = find_object_of_type (exam->facts, "dbus-vmstate");

  if (vmstate)
    add (exam, HF_DOCTOR_OK, string_of (vmstate, "name"), "its bus is %s", string_of (vmstate, "addr") ?: "not told");
  else
    add (exam, HF_DOCTOR_ERROR, NULL, "no object dbus-vmstate");
}

static void
judge_id_list (Exam *exam)
{
  JsonObject *vmstate = find_object_of_type (exam->facts, "dbus-vmstate");
  const char *list = string_of (vmstate, "id-list"), *name = string_of (vmstate, "name");

  if (!vmstate)
    return;
  if (!list || !*list)
    add (exam, HF_DOCTOR_ERROR, name, "no id-list");
  else if (has_id (list, exam->vmstate_id))
    add (exam, HF_DOCTOR_OK, name, "id-list is %s", list);
  else
    add (exam, HF_DOCTOR_ERROR, name, "id-list is %s, without %s", list, exam->vmstate_id);
}

/* libvirt sets the capabilities itself, for each migration, and puts this object into each VM. */
static gboolean
is_libvirts (JsonObject *facts)
{
  g_autoptr (GPtrArray) objects = objects_of (facts, "objects");

  return find_object (objects, "name", "masterKey0") != NULL;
}

static void
judge_capability (Exam *exam, const char *name)
{
  g_autoptr (GPtrArray) capabilities = objects_of (exam->facts, "query-migrate-capabilities");
  int state = bool_of (find_object (capabilities, "capability", name), "state");

  if (state == 1)
    add (exam, HF_DOCTOR_OK, NULL, "%s is on", name);
  else if (state == 0 && is_libvirts (exam->facts))
    add (exam, HF_DOCTOR_UNKNOWN, NULL, "%s is off; libvirt sets it when a migration begins", name);
  else if (state == 0)
    add (exam, HF_DOCTOR_WARNING, NULL, "%s is off", name);
  else
    add (exam, HF_DOCTOR_UNKNOWN, NULL, "QEMU does not tell of %s", name);
}

static void
judge_return_path (Exam *exam)
{
  judge_capability (exam, "return-path");
}

static void
judge_events (Exam *exam)
{
  judge_capability (exam, "events");
}

/* ---- disks ---- */

static void
disk_free (gpointer data)
{
  Disk *disk = data;

  g_free (disk->drive);
  g_free (disk);
}

static Disk *
disk_new (JsonObject *facts, JsonObject *block)
{
  JsonObject *inserted = object_of (block, "inserted");
  const char *name = string_of (block, "qdev"), *device = string_of (block, "device"), *type;
  Disk *disk;

  if (!inserted || !name)
    return NULL;
  disk = g_new0 (Disk, 1);
  disk->name = name;
  disk->node = string_of (inserted, "node-name");
  disk->filename = string_of (inserted, "file") ?: "";
  disk->driver = string_of (inserted, "drv");
  disk->read_only = bool_of (inserted, "ro") == 1;
  disk->properties = object_of (object_of (facts, "devices"), name);
  type = string_of (disk->properties, "type");
  disk->type = type ? type : "";
  if (device && *device)
    disk->drive = g_strconcat ("drive:", device, NULL);
  return disk;
}

/* Disk; what is no disk, or empty, is left out. */
static GPtrArray *
find_disks (JsonObject *facts)
{
  g_autoptr (GPtrArray) blocks = objects_of (facts, "query-block");
  GPtrArray *disks = g_ptr_array_new_with_free_func (disk_free);

  for (guint i = 0; i < blocks->len; i++) {
    Disk *disk = disk_new (facts, blocks->pdata[i]);
    if (disk)
      g_ptr_array_add (disks, disk);
  }
  return disks;
}

static gboolean
passes_pr (const Disk *disk)
{
  return strcmp (disk->type, "scsi-block") == 0 || strcmp (disk->type, "scsi-generic") == 0;
}

/* Only a device of the host can be an LU that others see as well. */
static gboolean
is_host_device (const Disk *disk)
{
  return (g_str_has_prefix (disk->filename, "/dev/") || g_strcmp0 (disk->driver, "host_device") == 0)
         && !strstr (disk->type, "-cd");
}

static void
judge_disks (Exam *exam)
{
  g_autoptr (GPtrArray) disks = find_disks (exam->facts);
  g_autoptr (GString) others = g_string_new (NULL);
  guint n = 0;

  for (guint i = 0; i < disks->len; i++) {
    const Disk *disk = disks->pdata[i];
    if (passes_pr (disk))
      n++;
    else
      g_string_append_printf (others, "%s%s is %s", others->len ? ", " : ": ", disk->name,
                              *disk->type ? disk->type : "not known");
  }
  if (n)
    add (exam, HF_DOCTOR_OK, NULL, "%u of %u disks can pass PERSISTENT RESERVE commands", n, disks->len);
  else
    add (exam, HF_DOCTOR_ERROR, NULL, "no disk can pass PERSISTENT RESERVE commands%s", others->str);
}

static void
judge_bus (Exam *exam)
{
  g_autoptr (GPtrArray) disks = find_disks (exam->facts);

  for (guint i = 0; i < disks->len; i++) {
    const Disk *disk = disks->pdata[i];
    if (passes_pr (disk))
      add (exam, HF_DOCTOR_OK, disk->name, "%s on %s", disk->type, disk->filename);
    else if (is_host_device (disk))
      add (exam, HF_DOCTOR_WARNING, disk->name, "wrong bus: %s on %s", *disk->type ? disk->type : "an unknown device",
           disk->filename);
  }
}

/* By the name of the node, else of its -drive. */
static const char *
node_option (Exam *exam, const Disk *disk, const char *option, gboolean *ret_seen)
{
  JsonObject *nodes = object_of (exam->facts, "nodes");
  const char *value = NULL;

  *ret_seen = FALSE;
  if (nodes)
    value = hf_doctor_node_option (nodes, disk->node, option, ret_seen);
  if (nodes && !*ret_seen && disk->drive)
    value = hf_doctor_node_option (nodes, disk->drive, option, ret_seen);
  return value;
}

static void
judge_node_manager (Exam *exam, const Disk *disk)
{
  g_autoptr (GPtrArray) managers = objects_of (exam->facts, "query-pr-managers");
  gboolean seen;
  const char *manager = node_option (exam, disk, "pr-manager", &seen);

  if (manager && find_object (managers, "id", manager))
    add (exam, HF_DOCTOR_OK, disk->name, "pr-manager is %s", manager);
  else if (manager)
    add (exam, HF_DOCTOR_ERROR, disk->name, "pr-manager is %s, and there is no such object", manager);
  else if (seen)
    add (exam, HF_DOCTOR_ERROR, disk->name, "its node has no pr-manager");
  else
    add (exam, HF_DOCTOR_UNKNOWN, disk->name, "cannot be seen: its node is not on QEMU's command line");
}

static void
judge_auto_read_only (Exam *exam, const Disk *disk)
{
  gboolean seen;
  const char *value = node_option (exam, disk, "auto-read-only", &seen);

  if (value && (strcmp (value, "on") == 0 || strcmp (value, "true") == 0))
    add (exam, HF_DOCTOR_WARNING, disk->name, "auto-read-only is on");
  else if (value || seen)
    add (exam, HF_DOCTOR_OK, disk->name, "auto-read-only is off");
  else
    add (exam, HF_DOCTOR_UNKNOWN, disk->name, "cannot be seen: its node is not on QEMU's command line");
}

static void
judge_read_only (Exam *exam, const Disk *disk)
{
  if (disk->read_only)
    add (exam, HF_DOCTOR_WARNING, disk->name, "its node is read-only");
}

static HfDoctorVerdict
policy_verdict (const char *policy)
{
  if (strcmp (policy, "report") == 0)
    return HF_DOCTOR_OK;
  return strcmp (policy, "auto") == 0 || strcmp (policy, "enospc") == 0 ? HF_DOCTOR_WARNING : HF_DOCTOR_ERROR;
}

static void
judge_errors (Exam *exam, const Disk *disk)
{
  const char *rerror = string_of (disk->properties, "rerror"), *werror = string_of (disk->properties, "werror");

  /* scsi-generic passes every answer on. */
  if (strcmp (disk->type, "scsi-block") != 0)
    return;
  if (!rerror || !werror)
    add (exam, HF_DOCTOR_UNKNOWN, disk->name, "QEMU does not tell rerror and werror");
  else
    add (exam, MAX (policy_verdict (rerror), policy_verdict (werror)), disk->name, "rerror is %s, werror is %s", rerror, werror);
}

static void
judge_share_rw (Exam *exam, const Disk *disk)
{
  int share = bool_of (disk->properties, "share-rw");

  if (share < 0)
    add (exam, HF_DOCTOR_UNKNOWN, disk->name, "QEMU does not tell share-rw");
  else
    add (exam, share ? HF_DOCTOR_OK : HF_DOCTOR_WARNING, disk->name, "share-rw is %s", share ? "on" : "off");
}

static void
judge_migrate_pr (Exam *exam, const Disk *disk)
{
  int migrate = bool_of (disk->properties, "migrate-pr");

  /* Before QEMU 11 there is nothing to choose. */
  if (migrate < 0)
    return;
  if (migrate == 0)
    add (exam, HF_DOCTOR_OK, disk->name, "migrate-pr is off: holdfast moves the reservation");
  else if (find_object_of_type (exam->facts, "dbus-vmstate"))
    add (exam, HF_DOCTOR_OK, disk->name, "migrate-pr is on: this ends right with holdfast too, but off is the plainer way");
  else
    add (exam, HF_DOCTOR_WARNING, disk->name, "migrate-pr is on, and holdfast takes no part in the migration");
}

static const Rule rules[] = {
  { "version", "dbus-vmstate, the place of a helper's state in a migration, came with QEMU 5.0", "use QEMU 5.0 or newer",
    judge_version, NULL },
  { "pr-manager", "without it no PERSISTENT RESERVE command of the guest reaches the helper",
    "start the helper, and add -object pr-manager-helper,id=pr,path=SOCKET", judge_managers, NULL },
  { "helper", "only holdfast-pr-helper knows what this VM holds and can move it",
    "run holdfast-pr-helper on this socket; QEMU uses it from its next connection on", judge_helpers, NULL },
  { "vmstate", "without it the helper has no part in a migration, and reservations stay behind",
    "add -object dbus-vmstate,id=dv,addr=ADDRESS,id-list=holdfast on both sides", judge_vmstate, NULL },
  { "id-list", "without the helper's id in id-list, a migration without the helper completes as if nothing were missing",
    "set id-list=holdfast on both sides (qom-set of /objects/ID id-list does it on a running VM)", judge_id_list, NULL },
  { "return-path", "without it the source believes that a migration completed which the destination refused: the VM is lost",
    "migrate-set-capabilities return-path=true on both sides, before the migration", judge_return_path, NULL },
  { "events", "without it the helper hears of a failed migration only when the VM goes on",
    "migrate-set-capabilities events=true before the migration", judge_events, NULL },
  { "disks", "only scsi-block and scsi-generic pass the guest's PERSISTENT RESERVE commands on",
    "attach the LU as -device virtio-scsi-pci and -device scsi-block", judge_disks, NULL },
  { "bus", "the guest's PERSISTENT RESERVE commands do not reach the LU from here; if it needs none, all is well",
    "attach the LU as scsi-block on virtio-scsi (libvirt: device='lun', bus='scsi')", judge_bus, NULL },
  { "node-pr-manager", "a node without pr-manager sends reservations itself, past the helper, or is refused by the kernel",
    "add pr-manager=ID to the -blockdev that opens the device", NULL, judge_node_manager },
  { "auto-read-only", "QEMU opens the device read-only while the VM does not run, and a helper may refuse to write through that",
    "add auto-read-only=off to the -blockdev that opens the device", NULL, judge_auto_read_only },
  { "read-only", "a guest cannot write to it, and a helper may refuse PERSISTENT RESERVE OUT", "add read-only=off", NULL,
    judge_read_only },
  { "rerror-werror", "a guest that is fenced must see RESERVATION CONFLICT; stop halts the VM instead, ignore loses the write",
    "add rerror=report,werror=report to the device (libvirt: error_policy, rerror_policy)", NULL, judge_errors },
  { "share-rw", "QEMU's own lock on the device keeps a second VM of this host, or a migration within it, from opening it",
    "add share-rw=on to the device (libvirt: <shareable/>)", NULL, judge_share_rw },
  { "migrate-pr", "QEMU's own move does not see who was fenced meanwhile, and two movers have to agree",
    "migrate-pr=off on both sides, with dbus-vmstate and holdfast", NULL, judge_migrate_pr },
};

static void
judge_each_disk (Exam *exam, const GPtrArray *disks)
{
  for (guint i = 0; i < disks->len; i++)
    if (passes_pr (disks->pdata[i]))
      exam->rule->judge_disk (exam, disks->pdata[i]);
}

GPtrArray *
hf_doctor_judge (JsonObject *facts, const char *vmstate_id)
{
  Exam exam = { .facts = facts, .vmstate_id = vmstate_id, .checks = g_ptr_array_new_with_free_func (check_free) };
  g_autoptr (GPtrArray) disks = find_disks (facts);

  for (guint i = 0; i < G_N_ELEMENTS (rules); i++) {
    exam.rule = &rules[i];
    if (rules[i].judge)
      rules[i].judge (&exam);
    else
      judge_each_disk (&exam, disks);
  }
  return exam.checks;
}

HfDoctorVerdict
hf_doctor_worst (const GPtrArray *checks)
{
  HfDoctorVerdict worst = HF_DOCTOR_OK;

  for (guint i = 0; i < checks->len; i++)
    worst = MAX (worst, ((const HfDoctorCheck *)checks->pdata[i])->verdict);
  return worst;
}

const char *
hf_doctor_verdict_name (HfDoctorVerdict verdict)
{
  static const char *const names[] = { "ok", "unknown", "warning", "error" };

  G_STATIC_ASSERT (G_N_ELEMENTS (names) == HF_DOCTOR_ERROR + 1);
  return names[verdict];
}
