/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns: the message buses and the monitors. Thread: main.
 *
 * Theory of operation: a link is one expanded address, whoever it was expanded for. Two VMs of one name (a migration within the
 * host) share it, for two objects with the same Id on one bus would make QEMU fail.
 *
 * Who calls on a bus is the process that the bus names; a template narrows it to the VMs that it was expanded for, because the
 * bus of a VM may be served by a process that the VM controls.
 *
 * A monitor does not tell whose it is. If the process that called listen(2) last is one of the VMs, that is it; QEMU calls it for
 * a socket that libvirt has made, too (seen with 7.2). Else (a proxy, another process-id namespace) it is the VM that has the
 * socket open. Where that cannot be seen, it is the only VM that it can belong to: that of the template, or the only one that
 * lives, unless who listens looks like a VM that is not our client (yet). In every other case nobody is told anything: the sign
 * that another VM runs would take a reservation away from the host where it is used. This is decided anew whenever a VM comes or
 * goes.
 */
#include "config.h"

#include "prhelper/links.h"

#include "prhelper/log.h"
#include "prhelper/template.h"
#include "prhelper/unix-holder.h"
#include "vmstate/qmp.h"
#include "vmstate/vmstate-bus.h"

#include <string.h>

#define QMP_TIMEOUT_MS 10000
#define ID_MAX 255
/* For all buses together, at the end. */
#define FLUSH_MS 300

struct _HfLinks {
  HfVms *vms;
  HfOnChange on_change;
  char *vmstate_id;
  char **addresses[2]; /* as they were given, by LinkKind */
  GPtrArray *open;     /* of Link, owned */
};

typedef enum { LINK_BUS, LINK_MONITOR } LinkKind;

typedef struct {
  HfLinks *links;
  LinkKind kind;
  char *address;
  gboolean template; /* made for vms; else for all */
  GPtrArray *vms;    /* of HfVm, not owned */
  HfVmstateBus *bus; /* LINK_BUS */
  /* LINK_MONITOR: */
  HfQmp *qmp;
  pid_t pid;          /* who listens; 0: not known */
  guint64 start_time; /* of pid, when the monitor was connected: a listener may end while its connection lives on */
  HfVm *vm;           /* whose monitor it is; NULL: not known */
  guint asked;        /* Reasons of the query-status that is not answered yet; 0: there is none */
  guint ask_again;    /* those that came meanwhile */
  gboolean said_nobody, said_no_events;
} Link;

static const char *const kind_names[] = { [LINK_BUS] = "message bus", [LINK_MONITOR] = "monitor" };
G_STATIC_ASSERT (G_N_ELEMENTS (kind_names) == LINK_MONITOR + 1);

static gboolean
has_vm (Link *link, HfVm *vm)
{
  return g_ptr_array_find (link->vms, vm, NULL);
}

/* ---- Save and Load ---- */

/* The VM that called; NULL: the call was answered. */
static HfVm *
find_caller (Link *link, HfVmstateCall *call, const char *method, pid_t pid)
{
  HfVm *vm = pid > 0 ? hf_vms_find_process (link->links->vms, pid, hf_peer_read_start_time (pid)) : NULL;
  g_autoptr (GError) error = NULL;

  if (vm && (!link->template || has_vm (link, vm)))
    return vm;
  if (vm)
    error = g_error_new (G_IO_ERROR, G_IO_ERROR_PERMISSION_DENIED, "%s: process %d is not the VM whose message bus this is (%s)",
                         method, (int)pid, link->address);
  else if (pid > 0)
    error = g_error_new (G_IO_ERROR, G_IO_ERROR_NOT_FOUND,
                         "%s: process %d is no client of holdfast-pr-helper: no disk of it has used the helper's socket", method,
                         (int)pid);
  else
    error = g_error_new (G_IO_ERROR, G_IO_ERROR_NOT_FOUND, "%s: the message bus does not know the process that calls", method);
  hf_log_peer (HF_LOG_WARNING, pid, "%s", error->message);
  hf_vmstate_call_finish (call, NULL, error);
  return NULL;
}

/* Nothing of the links is used here: they may be gone. */
static void
on_saved (HfVm *vm, const HfVmOutcome *outcome, const GError *error, gpointer user_data)
{
  hf_vmstate_call_finish (user_data, outcome ? outcome->record : NULL, error);
}

static void
on_loaded (HfVm *vm, const HfVmOutcome *outcome, const GError *error, gpointer user_data)
{
  hf_vmstate_call_finish (user_data, NULL, error);
}

static void
on_save (HfVmstateCall *call, pid_t pid, gpointer user_data)
{
  HfVm *vm = find_caller (user_data, call, "Save", pid);

  if (vm)
    hf_vm_save (vm, on_saved, call);
}

static void
on_load (HfVmstateCall *call, pid_t pid, GBytes *data, gpointer user_data)
{
  Link *link = user_data;
  HfVm *vm = find_caller (link, call, "Load", pid);

  if (vm)
    hf_vm_load (vm, data, link->links->on_change, on_loaded, call);
}

static void
on_state (gboolean connected, const char *address, const char *text, gpointer user_data)
{
  hf_log (connected ? HF_LOG_NOTICE : HF_LOG_WARNING, "message bus %s: %s", address, text);
}

static const HfVmstateHandlers bus_handlers = { on_save, on_load, on_state };

/* ---- monitors ---- */

static GPtrArray *
list_candidates (Link *link)
{
  GPtrArray *all = hf_vms_list (link->links->vms);

  for (guint i = all->len; i-- > 0;) {
    HfVm *vm = g_ptr_array_index (all, i);

    if (!hf_vm_is_alive (vm) || (link->template && !has_vm (link, vm)))
      g_ptr_array_remove_index (all, i);
  }
  return all;
}

/* /proc/PID/comm: anybody may write anything there, so it is a reason to be silent, never one to speak. */
static gboolean
is_alike (pid_t a, pid_t b)
{
  g_autofree char *a_path = g_strdup_printf ("/proc/%d/comm", (int)a);
  g_autofree char *b_path = g_strdup_printf ("/proc/%d/comm", (int)b);
  g_autofree char *a_name = NULL;
  g_autofree char *b_name = NULL;

  return a > 0 && g_file_get_contents (a_path, &a_name, NULL, NULL) && g_file_get_contents (b_path, &b_name, NULL, NULL)
         && strcmp (a_name, b_name) == 0;
}

/* That of candidates which has the socket open. NULL: none or several; ret_unknown: those that may have, but cannot be seen. */
static HfVm *
find_holder (Link *link, GPtrArray *candidates, guint *ret_unknown)
{
  g_autoptr (GArray) listeners = hf_unix_listeners (hf_qmp_get_path (link->qmp));
  HfVm *holder = NULL;
  guint n[HF_HOLDS_YES + 1] = { 0 };

  for (guint i = 0; i < candidates->len; i++) {
    HfVm *vm = g_ptr_array_index (candidates, i);
    HfHolds holds = hf_unix_holds (listeners, hf_vm_get_peer (vm)->pid);

    n[holds]++;
    if (holds == HF_HOLDS_YES)
      holder = vm;
  }
  *ret_unknown = n[HF_HOLDS_UNKNOWN];
  return n[HF_HOLDS_YES] == 1 ? holder : NULL;
}

/* Whose monitor it is; NULL and why: that cannot be told. */
static HfVm *
find_monitored (Link *link, const char **ret_why)
{
  g_autoptr (GPtrArray) candidates = list_candidates (link);
  HfVm *listener = link->pid > 0 ? hf_vms_find_process (link->links->vms, link->pid, link->start_time) : NULL;
  guint n_unknown = 0;
  HfVm *holder;

  if (listener && g_ptr_array_find (candidates, listener, NULL))
    return listener;
  /* One that has ended takes its monitor with it: nothing to say about that. */
  if (listener) {
    *ret_why = hf_vm_is_alive (listener) ? "its process is another VM than the address was made for" : NULL;
    return NULL;
  }
  holder = find_holder (link, candidates, &n_unknown);
  if (holder)
    return holder;
  if (candidates->len == 0)
    *ret_why = "no VM that lives is a client";
  else
    *ret_why = n_unknown ? "it cannot be told which of the VMs has it" : "not exactly one of the VMs has its socket open";
  if (candidates->len != 1 || n_unknown != 1)
    return NULL;
  holder = g_ptr_array_index (candidates, 0);
  *ret_why = "its process seems to be a VM that is no client";
  if (!link->template && is_alike (link->pid, hf_vm_get_peer (holder)->pid))
    return NULL;
  *ret_why = NULL;
  return holder;
}

static const char *
get_string (JsonObject *object, const char *name)
{
  JsonNode *node = object ? json_object_get_member (object, name) : NULL;
  gboolean is_string = node && JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == G_TYPE_STRING;

  return is_string ? json_node_get_string (node) : NULL;
}

/* Why query-status is asked. */
enum { ASK_RUNS = 1, ASK_FAILED = 2 };

static void on_status (JsonNode *result, const GError *error, gpointer user_data);

/* One question at a time: a monitor that tells events and answers nothing would fill the memory with them. Its answer may be
   older than what happened since, so there is one more behind it. */
static void
ask_status (Link *link, guint reason)
{
  if (link->asked) {
    link->ask_again |= reason;
    return;
  }
  link->asked = reason;
  hf_qmp_execute (link->qmp, "query-status", NULL, QMP_TIMEOUT_MS, on_status, link);
}

/* After RESUME: does it still run? After MIGRATION failed or cancelled: was it the one that comes in? */
static void
on_status (JsonNode *result, const GError *error, gpointer user_data)
{
  Link *link = user_data;
  JsonObject *object = result && JSON_NODE_HOLDS_OBJECT (result) ? json_node_get_object (result) : NULL;
  const char *status = get_string (object, "status");
  guint asked = link->asked, again = link->ask_again;

  link->asked = link->ask_again = 0;
  if (!link->vm || g_error_matches (error, HF_QMP_ERROR, HF_QMP_ERROR_LOST))
    return;
  if (again)
    ask_status (link, again);
  /* Which may end the VM, and with it this link. */
  if ((asked & ASK_RUNS) && g_strcmp0 (status, "running") == 0)
    hf_vm_sign (link->vm, HF_SIGN_RUNS);
  else if ((asked & ASK_FAILED) && g_strcmp0 (status, "inmigrate") == 0)
    hf_vm_sign (link->vm, HF_SIGN_INCOMING_FAILED);
}

static void
on_events_on (JsonNode *result, const GError *error, gpointer user_data)
{
  Link *link = user_data;

  if (result || g_error_matches (error, HF_QMP_ERROR, HF_QMP_ERROR_LOST) || link->said_no_events)
    return;
  link->said_no_events = TRUE;
  hf_log (HF_LOG_WARNING, "monitor %s: no MIGRATION events (migrate-set-capabilities): %s", link->address, error->message);
}

/* {"capabilities":[{"capability":"events","state":true}]} */
static JsonObject *
events_on (void)
{
  JsonObject *arguments = json_object_new ();
  JsonObject *capability = json_object_new ();
  JsonArray *capabilities = json_array_new ();

  json_object_set_string_member (capability, "capability", "events");
  json_object_set_boolean_member (capability, "state", TRUE);
  json_array_add_object_element (capabilities, capability);
  json_object_set_array_member (arguments, "capabilities", capabilities);
  return arguments;
}

/* Also when nothing has changed. */
static void
map_monitor (Link *link)
{
  const char *why = NULL;
  HfVm *vm = hf_qmp_is_connected (link->qmp) ? find_monitored (link, &why) : NULL;

  if (why && !link->said_nobody)
    hf_log (HF_LOG_NOTICE, "monitor %s (process %d): nobody listens to it: %s", link->address, (int)link->pid, why);
  link->said_nobody = why != NULL;
  if (link->vm == vm)
    return;
  link->vm = vm;
  if (!vm)
    return;
  hf_log (HF_LOG_INFO, "monitor %s: of VM %s", link->address, hf_vm_get_name (vm));
  /* In this order: what changes after the events are on is told by one of them, what was before by query-status. */
  hf_qmp_execute (link->qmp, "migrate-set-capabilities", events_on (), QMP_TIMEOUT_MS, on_events_on, link);
  ask_status (link, ASK_RUNS);
}

static void
on_connected (HfQmp *qmp, pid_t pid, gpointer user_data)
{
  Link *link = user_data;

  hf_log (HF_LOG_NOTICE, "monitor %s: connected", link->address);
  link->pid = pid;
  link->start_time = pid > 0 ? hf_peer_read_start_time (pid) : 0;
  map_monitor (link);
}

static void
on_lost (HfQmp *qmp, const char *why, gpointer user_data)
{
  Link *link = user_data;

  hf_log (HF_LOG_WARNING, "monitor %s: %s", link->address, why);
  link->vm = NULL;
  link->pid = 0;
}

/* RESUME may be old: the VM may have stopped for the last part of a migration since. Its status is what counts. */
static void
on_event (HfQmp *qmp, const char *name, JsonObject *data, gpointer user_data)
{
  Link *link = user_data;
  const char *status = get_string (data, "status");

  if (!link->vm)
    return;
  if (strcmp (name, "RESUME") == 0)
    ask_status (link, ASK_RUNS);
  else if (strcmp (name, "MIGRATION") == 0 && (g_strcmp0 (status, "failed") == 0 || g_strcmp0 (status, "cancelled") == 0)) {
    ask_status (link, ASK_FAILED);
    hf_vm_sign (link->vm, HF_SIGN_FAILED); /* which may end the VM, and with it this link */
  }
}

static const HfQmpHandlers monitor_handlers = { on_connected, on_event, on_lost };

/* ---- links ---- */

static void
link_free (gpointer data)
{
  Link *link = data;

  /* What waits for the monitor is told now, and finds that there is no VM. */
  link->vm = NULL;
  hf_qmp_free (link->qmp);
  hf_vmstate_bus_free (link->bus);
  g_ptr_array_unref (link->vms);
  g_free (link->address);
  g_free (link);
}

/* vm NULL: for all. */
static void
open_link (HfLinks *links, LinkKind kind, const char *address, HfVm *vm)
{
  Link *link = NULL;

  for (guint i = 0; i < links->open->len && !link; i++) {
    Link *other = g_ptr_array_index (links->open, i);

    if (other->kind == kind && strcmp (other->address, address) == 0)
      link = other;
  }
  if (!link) {
    link = g_new0 (Link, 1);
    *link = (Link){ .links = links, .kind = kind, .template = vm != NULL, .address = g_strdup (address) };
    link->vms = g_ptr_array_new ();
    g_ptr_array_add (links->open, link);
    if (kind == LINK_BUS)
      link->bus = hf_vmstate_bus_new (address, links->vmstate_id, &bus_handlers, link);
    else
      link->qmp = hf_qmp_new (address, TRUE, &monitor_handlers, link);
  }
  if (vm && link->template && !has_vm (link, vm))
    g_ptr_array_add (link->vms, vm);
}

/* A VM's name is "pid:N" when it has none; that is refused as a part of an address, as every name with a colon. */
static void
open_for (HfLinks *links, LinkKind kind, const char *text, HfVm *vm)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *address = hf_template_expand (text, vm ? hf_vm_get_peer (vm)->pid : 0, vm ? hf_vm_get_name (vm) : NULL,
                                                 vm ? hf_vm_get_uuid (vm) : NULL, &error);

  if (address)
    open_link (links, kind, address, vm);
  else
    hf_log_peer (HF_LOG_WARNING, vm ? hf_vm_get_peer (vm)->pid : 0, "VM %s: no %s: %s", vm ? hf_vm_get_name (vm) : "(all)",
                 kind_names[kind], error->message);
}

static void
open_all (HfLinks *links, HfVm *vm)
{
  for (guint kind = 0; kind < G_N_ELEMENTS (kind_names); kind++)
    for (char **text = links->addresses[kind]; text && *text; text++)
      if (hf_template_is_template (*text) == (vm != NULL))
        open_for (links, (LinkKind)kind, *text, vm);
}

/* Templates of which vm was the last user are closed. */
static void
forget (HfLinks *links, HfVm *vm)
{
  for (guint i = links->open->len; i-- > 0;) {
    Link *link = g_ptr_array_index (links->open, i);

    if (link->vm == vm)
      link->vm = NULL;
    if (g_ptr_array_remove (link->vms, vm) && link->vms->len == 0)
      g_ptr_array_remove_index (links->open, i);
  }
}

void
hf_links_vm (HfLinks *links, HfVm *vm, gboolean alive)
{
  if (alive)
    open_all (links, vm);
  else
    forget (links, vm);
  for (guint i = 0; i < links->open->len; i++) {
    Link *link = g_ptr_array_index (links->open, i);

    if (link->kind == LINK_MONITOR)
      map_monitor (link);
  }
}

static gboolean
check_address (LinkKind kind, const char *text, GError **error)
{
  g_autofree char *example = hf_template_expand (text, 1, "name", "uuid", error);

  return example && (kind != LINK_BUS || g_dbus_is_supported_address (example, error));
}

gboolean
hf_links_check (const HfLinksRules *rules, GError **error)
{
  const gsize id_length = strlen (rules->vmstate_id);

  for (guint i = 0; rules->vmstate_bus && rules->vmstate_bus[i]; i++)
    if (!check_address (LINK_BUS, rules->vmstate_bus[i], error))
      return FALSE;
  for (guint i = 0; rules->qmp && rules->qmp[i]; i++)
    if (!check_address (LINK_MONITOR, rules->qmp[i], error))
      return FALSE;
  if (id_length >= 1 && id_length <= ID_MAX && g_utf8_validate (rules->vmstate_id, -1, NULL))
    return TRUE;
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT, "the Id of dbus-vmstate has to be 1 to %d bytes of UTF-8", ID_MAX);
  return FALSE;
}

HfLinks *
hf_links_new (const HfLinksRules *rules, HfVms *vms)
{
  HfLinks *links = g_new0 (HfLinks, 1);
  g_autoptr (GPtrArray) living = hf_vms_list (vms);

  links->vms = vms;
  links->on_change = rules->on_change;
  links->vmstate_id = g_strdup (rules->vmstate_id);
  links->addresses[LINK_BUS] = g_strdupv ((char **)rules->vmstate_bus);
  links->addresses[LINK_MONITOR] = g_strdupv ((char **)rules->qmp);
  links->open = g_ptr_array_new_with_free_func (link_free);
  open_all (links, NULL);
  for (guint i = 0; i < living->len; i++)
    if (hf_vm_is_alive (g_ptr_array_index (living, i)))
      hf_links_vm (links, g_ptr_array_index (living, i), TRUE);
  return links;
}

void
hf_links_free (HfLinks *links)
{
  gint64 deadline = g_get_monotonic_time () + FLUSH_MS * G_TIME_SPAN_MILLISECOND;

  if (!links)
    return;
  /* The answer to a Load that was just committed must not be lost with the process. */
  for (guint i = 0; i < links->open->len; i++) {
    Link *link = g_ptr_array_index (links->open, i);
    gint64 rest = deadline - g_get_monotonic_time ();

    hf_vmstate_bus_free_flushed (g_steal_pointer (&link->bus), (guint)MAX (rest / G_TIME_SPAN_MILLISECOND, 0));
  }
  g_ptr_array_unref (links->open);
  for (guint kind = 0; kind < G_N_ELEMENTS (links->addresses); kind++)
    g_strfreev (links->addresses[kind]);
  g_free (links->vmstate_id);
  g_free (links);
}
