/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Which VM a Save, a Load or an event of a monitor is brought to: real message bus, real QEMU, and VMs that only note what they
 * were told.
 */

#include "config.h"

#include "prhelper/links.h"

#include "private-qemu.h"

#include <gio/gunixsocketaddress.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define NAME "org.qemu.VMState1"
#define PATH "/org/qemu/VMState1"

/* ---- the VMs ---- */

struct _HfVm {
  HfPeer peer;
  const char *name, *uuid;
  gboolean alive;
  guint n_runs, n_failed, n_saves;
  GBytes *loaded;
  HfOnChange on_change;
  HfVmDone done; /* kept, when the VMs hold */
  gpointer user_data;
};

struct _HfVms {
  GPtrArray *all; /* of HfVm, not owned */
  const char *refusal;
  gboolean hold;
  guint n_lists; /* how often somebody looked */
};

static HfVms the_vms;

HfVm *
hf_vms_find_process (HfVms *vms, pid_t pid, guint64 start_time)
{
  for (guint i = 0; start_time && i < vms->all->len; i++) {
    HfVm *vm = g_ptr_array_index (vms->all, i);

    if (vm->peer.pid == pid && vm->peer.start_time == start_time)
      return vm;
  }
  return NULL;
}

GPtrArray *
hf_vms_list (HfVms *vms)
{
  vms->n_lists++;
  return g_ptr_array_copy (vms->all, NULL, NULL);
}

gboolean
hf_vm_is_alive (HfVm *vm)
{
  return vm->alive;
}

const HfPeer *
hf_vm_get_peer (HfVm *vm)
{
  return &vm->peer;
}

const char *
hf_vm_get_name (HfVm *vm)
{
  return vm->name;
}

const char *
hf_vm_get_uuid (HfVm *vm)
{
  return vm->uuid;
}

void
hf_vm_sign (HfVm *vm, HfSign sign)
{
  if (sign == HF_SIGN_RUNS)
    vm->n_runs++;
  else
    vm->n_failed++;
}

static gboolean
on_idle (gpointer user_data)
{
  HfVm *vm = user_data;
  g_autoptr (GError) error = the_vms.refusal ? g_error_new_literal (G_IO_ERROR, G_IO_ERROR_FAILED, the_vms.refusal) : NULL;
  g_autoptr (GBytes) record = g_bytes_new_static ("record", 6);
  const HfVmOutcome outcome = { .record = record };

  vm->done (vm, &outcome, error, vm->user_data);
  return G_SOURCE_REMOVE;
}

static void
begin (HfVm *vm, HfVmDone done, gpointer user_data)
{
  vm->done = done;
  vm->user_data = user_data;
  if (!the_vms.hold)
    g_idle_add (on_idle, vm);
}

void
hf_vm_save (HfVm *vm, HfVmDone done, gpointer user_data)
{
  vm->n_saves++;
  begin (vm, done, user_data);
}

void
hf_vm_load (HfVm *vm, GBytes *record, HfOnChange on_change, HfVmDone done, gpointer user_data)
{
  g_clear_pointer (&vm->loaded, g_bytes_unref);
  vm->loaded = g_bytes_ref (record);
  vm->on_change = on_change;
  begin (vm, done, user_data);
}

/* ---- the fixture ---- */

typedef struct {
  PrivateBus bus;
  GDBusConnection *caller;
  HfLinks *links;
  HfVm self; /* this process, which calls on the bus */
  HfVm other;
} Fixture;

static void
set_up (Fixture *f, gconstpointer data)
{
  the_vms = (HfVms){ .all = g_ptr_array_new () };
  private_bus_init (&f->bus);
  private_bus_start (&f->bus);
  f->caller = private_bus_connect (&f->bus);
  f->self = (HfVm){ .peer = { .pid = getpid (), .start_time = hf_peer_read_start_time (getpid ()) }, .name = "self" };
  f->other = (HfVm){ .peer = { .pid = getppid (), .start_time = hf_peer_read_start_time (getppid ()) }, .name = "other" };
  g_assert_cmpuint (f->self.peer.start_time, !=, 0);
}

static void
tear_down (Fixture *f, gconstpointer data)
{
  hf_links_free (f->links);
  g_clear_pointer (&f->self.loaded, g_bytes_unref);
  g_clear_object (&f->caller);
  private_bus_clear (&f->bus);
  g_ptr_array_unref (the_vms.all);
}

/* bus, qmp: NULL: none. */
static void
open_links (Fixture *f, const char *bus, const char *qmp)
{
  const char *const buses[] = { bus, NULL };
  const char *const monitors[] = { qmp, NULL };
  const HfLinksRules rules = { bus ? buses : NULL, "holdfast", qmp ? monitors : NULL, HF_ON_CHANGE_REFUSE };
  g_autoptr (GError) error = NULL;

  g_assert_true (hf_links_check (&rules, &error));
  g_assert_no_error (error);
  f->links = hf_links_new (&rules, &the_vms);
}

/* As the helper's main does it. */
static void
vm_appears (Fixture *f, HfVm *vm)
{
  vm->alive = TRUE;
  g_ptr_array_add (the_vms.all, vm);
  if (f->links)
    hf_links_vm (f->links, vm, TRUE);
}

static void
vm_ends (Fixture *f, HfVm *vm)
{
  vm->alive = FALSE;
  hf_links_vm (f->links, vm, FALSE);
  g_ptr_array_remove (the_vms.all, vm);
}

static guint
count_owners (Fixture *f)
{
  g_autoptr (GVariant) reply = private_bus_call (f->caller, "org.freedesktop.DBus", "/org/freedesktop/DBus",
                                                 "org.freedesktop.DBus", "ListQueuedOwners", g_variant_new ("(s)", NAME), NULL);
  g_autofree const char **owners = NULL;

  if (!reply)
    return 0;
  g_variant_get (reply, "(^a&s)", &owners);
  return g_strv_length ((char **)owners);
}

static void
assert_saves (Fixture *f)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GVariant) reply = private_bus_call (f->caller, NAME, PATH, NAME, "Save", NULL, &error);
  g_autofree char *text = NULL;

  g_assert_no_error (error);
  text = g_variant_print (reply, FALSE);
  g_assert_cmpstr (text, ==, "([0x72, 0x65, 0x63, 0x6f, 0x72, 0x64],)");
}

static void
assert_fails (Fixture *f, const char *method, const char *text)
{
  g_autoptr (GError) error = NULL;
  GVariant *parameters = strcmp (method, "Load") == 0 ? g_variant_new ("(^ay)", "record") : NULL;

  g_assert_null (private_bus_call (f->caller, NAME, PATH, NAME, method, parameters, &error));
  g_assert_error (error, G_DBUS_ERROR, G_DBUS_ERROR_FAILED);
  g_dbus_error_strip_remote_error (error);
  if (!strstr (error->message, text))
    g_error ("\"%s\" is not in \"%s\"", text, error->message);
}

/* ---- buses ---- */

static void
test_save_and_load (Fixture *f, gconstpointer data)
{
  g_autoptr (GVariant) reply = NULL;

  vm_appears (f, &f->other);
  vm_appears (f, &f->self);
  open_links (f, f->bus.address, NULL);
  WAIT_UNTIL (count_owners (f) == 1);
  assert_saves (f);
  g_assert_cmpuint (f->self.n_saves, ==, 1);
  reply = private_bus_call (f->caller, NAME, PATH, NAME, "Load", g_variant_new ("(^ay)", "moved"), NULL);
  g_assert_nonnull (reply);
  g_assert_cmpstr (g_bytes_get_data (f->self.loaded, NULL), ==, "moved");
  g_assert_cmpint (f->self.on_change, ==, HF_ON_CHANGE_REFUSE);
  g_assert_cmpuint (f->other.n_saves, ==, 0);
}

/* The words of the refusal are those that the administrator reads in QEMU's log. */
static void
test_errors (Fixture *f, gconstpointer data)
{
  vm_appears (f, &f->self);
  open_links (f, f->bus.address, NULL);
  WAIT_UNTIL (count_owners (f) == 1);
  the_vms.refusal = "LU naa.5000: occupied";
  assert_fails (f, "Save", "LU naa.5000: occupied");
  assert_fails (f, "Load", "LU naa.5000: occupied");
}

static void
test_not_a_client (Fixture *f, gconstpointer data)
{
  vm_appears (f, &f->other);
  open_links (f, f->bus.address, NULL);
  WAIT_UNTIL (count_owners (f) == 1);
  assert_fails (f, "Save", "is no client of holdfast-pr-helper");
  assert_fails (f, "Load", "is no client of holdfast-pr-helper");
  g_assert_null (f->other.loaded);
  /* The id of a VM that has ended, given to another process. */
  f->self.peer.start_time++;
  vm_appears (f, &f->self);
  assert_fails (f, "Save", "is no client of holdfast-pr-helper");
}

static void
test_bus_of_a_vm (Fixture *f, gconstpointer data)
{
  g_autofree char *template = g_strdup_printf ("unix:path=%s/%%n", f->bus.dir);

  open_links (f, template, NULL);
  f->self.name = "bus";
  vm_appears (f, &f->self);
  WAIT_UNTIL (count_owners (f) == 1);
  assert_saves (f);
  vm_ends (f, &f->self);
  WAIT_UNTIL (count_owners (f) == 0);
}

/* A VM that is there before: the helper was restarted, and QEMU has connected again. */
static void
test_bus_of_a_vm_that_lives (Fixture *f, gconstpointer data)
{
  g_autofree char *template = g_strdup_printf ("unix:path=%s/%%n", f->bus.dir);

  f->self.name = "bus";
  vm_appears (f, &f->self);
  open_links (f, template, NULL);
  WAIT_UNTIL (count_owners (f) == 1);
}

/* The bus of a VM may be served by what the VM controls: on it, nobody is another VM. */
static void
test_bus_of_another_vm (Fixture *f, gconstpointer data)
{
  g_autofree char *template = g_strdup_printf ("unix:path=%s/%%n", f->bus.dir);

  open_links (f, template, NULL);
  f->other.name = "bus";
  vm_appears (f, &f->other);
  vm_appears (f, &f->self);
  WAIT_UNTIL (count_owners (f) == 1);
  assert_fails (f, "Save", "is not the VM whose message bus this is");
  assert_fails (f, "Load", "is not the VM whose message bus this is");
  g_assert_cmpuint (f->self.n_saves, ==, 0);
}

/* Two services of one Id on one bus would make QEMU fail. */
static void
test_bus_of_two_vms (Fixture *f, gconstpointer data)
{
  g_autofree char *template = g_strdup_printf ("unix:path=%s/%%n", f->bus.dir);

  open_links (f, template, NULL);
  f->self.name = f->other.name = "bus";
  vm_appears (f, &f->other);
  WAIT_UNTIL (count_owners (f) == 1);
  vm_appears (f, &f->self);
  assert_saves (f);
  g_assert_cmpuint (count_owners (f), ==, 1);
  vm_ends (f, &f->other);
  assert_saves (f);
  g_assert_cmpuint (count_owners (f), ==, 1);
  vm_ends (f, &f->self);
  WAIT_UNTIL (count_owners (f) == 0);
}

/* A VM whose name is a path has no bus; the next VM has one. */
static void
test_bad_name (Fixture *f, gconstpointer data)
{
  g_autofree char *template = g_strdup_printf ("unix:path=%s/%%n", f->bus.dir);

  open_links (f, template, NULL);
  f->other.name = "x/../bus";
  vm_appears (f, &f->other);
  f->self.name = "bus";
  vm_appears (f, &f->self);
  WAIT_UNTIL (count_owners (f) == 1);
  vm_ends (f, &f->other);
  assert_saves (f);
  vm_ends (f, &f->self);
  WAIT_UNTIL (count_owners (f) == 0);
}

static void
on_called (GObject *source, GAsyncResult *result, gpointer user_data)
{
  *(GAsyncResult **)user_data = g_object_ref (result);
}

/* The helper ends while a Save is at work. */
static void
test_free_while_saving (Fixture *f, gconstpointer data)
{
  g_autoptr (GAsyncResult) result = NULL;
  g_autoptr (GError) error = NULL;

  vm_appears (f, &f->self);
  open_links (f, f->bus.address, NULL);
  WAIT_UNTIL (count_owners (f) == 1);
  the_vms.hold = TRUE;
  g_dbus_connection_call (f->caller, NAME, PATH, NAME, "Save", NULL, NULL, G_DBUS_CALL_FLAGS_NONE, -1, NULL, on_called, &result);
  WAIT_UNTIL (f->self.n_saves == 1);
  g_clear_pointer (&f->links, hf_links_free);
  WAIT_UNTIL (result);
  g_assert_null (g_dbus_connection_call_finish (f->caller, result, &error));
  g_assert_error (error, G_DBUS_ERROR, G_DBUS_ERROR_FAILED);
  on_idle (&f->self);
}

/* ---- monitors ---- */

/* A QEMU with a second monitor at PATH, which it listens on itself. */
static void
start_monitored (Qemu *qemu, const char *path, gboolean running)
{
  g_autofree char *monitor = g_strdup_printf ("unix:%s,server=on,wait=off", path);
  const char *const arguments[] = { "-qmp", monitor, running ? NULL : "-S", NULL };

  private_qemu_start (qemu, arguments);
}

/* As libvirt does it: the socket is made here and handed over. QEMU calls listen(2) once more, so the process is its own. */
static void
start_handed_over (Qemu *qemu, const char *path)
{
  const char *const arguments[] = { "-chardev", "socket,id=m,fd=3,server=on,wait=off", "-mon", "chardev=m,mode=control", NULL };
  struct sockaddr_un name = { .sun_family = AF_UNIX };
  int fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

  g_strlcpy (name.sun_path, path, sizeof name.sun_path);
  g_assert_cmpint (bind (fd, (struct sockaddr *)&name, sizeof name), ==, 0);
  g_assert_cmpint (listen (fd, 1), ==, 0);
  private_qemu_start_with (qemu, arguments, fd);
}

/* A monitor behind another process: this one listens at path and passes on. The QEMU behind it is real. */
typedef struct {
  Qemu qemu;
  char *inner;
  GSocketService *service;
  int fd; /* the socket that listens */
} Proxy;

static gboolean
on_incoming (GSocketService *service, GSocketConnection *connection, GObject *source, gpointer user_data)
{
  Proxy *proxy = user_data;
  g_autoptr (GSocketClient) client = g_socket_client_new ();
  g_autoptr (GSocketAddress) address = g_unix_socket_address_new (proxy->inner);
  g_autoptr (GSocketConnection) inner = g_socket_client_connect (client, G_SOCKET_CONNECTABLE (address), NULL, NULL);

  g_assert_nonnull (inner);
  g_io_stream_splice_async (G_IO_STREAM (connection), G_IO_STREAM (inner),
                            G_IO_STREAM_SPLICE_CLOSE_STREAM1 | G_IO_STREAM_SPLICE_CLOSE_STREAM2, G_PRIORITY_DEFAULT, NULL, NULL,
                            NULL);
  return TRUE;
}

static void
proxy_start (Proxy *proxy, const char *path)
{
  g_autoptr (GSocketAddress) address = g_unix_socket_address_new (path);
  g_autoptr (GSocket) listener = g_socket_new (G_SOCKET_FAMILY_UNIX, G_SOCKET_TYPE_STREAM, G_SOCKET_PROTOCOL_DEFAULT, NULL);

  proxy->inner = g_strconcat (path, "-inner", NULL);
  start_monitored (&proxy->qemu, proxy->inner, TRUE);
  g_assert_true (g_socket_bind (listener, address, TRUE, NULL));
  g_assert_true (g_socket_listen (listener, NULL));
  proxy->fd = g_socket_get_fd (listener);
  proxy->service = g_socket_service_new ();
  g_assert_true (g_socket_listener_add_socket (G_SOCKET_LISTENER (proxy->service), listener, NULL, NULL));
  g_signal_connect (proxy->service, "incoming", G_CALLBACK (on_incoming), proxy);
}

static void
proxy_end (Proxy *proxy, const char *path)
{
  g_socket_service_stop (proxy->service);
  g_socket_listener_close (G_SOCKET_LISTENER (proxy->service));
  g_clear_object (&proxy->service);
  private_qemu_end (&proxy->qemu);
  g_unlink (proxy->inner);
  g_unlink (path);
  g_free (proxy->inner);
}

static char *
monitor_path (Fixture *f)
{
  return g_build_filename (f->bus.dir, "qmp", NULL);
}

static void
be_process (HfVm *vm, Qemu *qemu)
{
  vm->peer.pid = private_qemu_pid (qemu);
  vm->peer.start_time = hf_peer_read_start_time (vm->peer.pid);
}

static void
end_monitored (Qemu *qemu, const char *path)
{
  private_qemu_end (qemu);
  g_unlink (path);
}

/* RESUME, and an answer that comes after it: what the other monitor was sent before has been read by then. */
static void
stop_and_go (Qemu *qemu)
{
  private_qemu_command (qemu, "stop", "{}", "\"STOP\"");
  private_qemu_command (qemu, "cont", "{}", "\"RESUME\"");
  private_qemu_command (qemu, "query-status", "{}", "\"running\"");
}

/* The process that listens is the VM. */
static void
test_resume (Fixture *f, gconstpointer data)
{
  g_autofree char *path = monitor_path (f);
  Qemu qemu;

  start_monitored (&qemu, path, FALSE);
  be_process (&f->other, &qemu);
  vm_appears (f, &f->self);
  vm_appears (f, &f->other);
  open_links (f, NULL, path);
  /* It may be before the monitor is connected, then query-status tells it. */
  private_qemu_command (&qemu, "cont", "{}", "\"RESUME\"");
  WAIT_UNTIL (f->other.n_runs > 0);
  g_assert_cmpuint (f->self.n_runs + f->other.n_failed, ==, 0);
  end_monitored (&qemu, path);
}

static void
test_running_before (Fixture *f, gconstpointer data)
{
  g_autofree char *path = monitor_path (f);
  Qemu qemu;

  start_monitored (&qemu, path, TRUE);
  be_process (&f->other, &qemu);
  vm_appears (f, &f->other);
  open_links (f, NULL, path);
  WAIT_UNTIL (f->other.n_runs == 1);
  /* Connected: from here on, events. */
  stop_and_go (&qemu);
  WAIT_UNTIL (f->other.n_runs == 2);
  end_monitored (&qemu, path);
}

/* Set by hf_links itself: without the capability there are no MIGRATION events at all. */
static void
test_failed_and_cancelled (Fixture *f, gconstpointer data)
{
  g_autofree char *path = monitor_path (f);
  g_autofree char *nobody = g_strdup_printf ("{\"uri\":\"unix:%s/nobody\"}", f->bus.dir);
  Qemu qemu;

  start_monitored (&qemu, path, TRUE);
  be_process (&f->other, &qemu);
  vm_appears (f, &f->other);
  private_qemu_command (&qemu, "migrate-set-capabilities",
                        "{\"capabilities\":[{\"capability\":\"events\",\"state\":false},"
                        "{\"capability\":\"pause-before-switchover\",\"state\":true}]}",
                        "\"return\"");
  open_links (f, NULL, path);
  /* The events are turned on before the status is asked. */
  WAIT_UNTIL (f->other.n_runs == 1);
  private_qemu_command (&qemu, "migrate", "{\"uri\":\"exec:cat>/dev/null\"}", "\"pre-switchover\"");
  g_assert_cmpuint (f->other.n_failed, ==, 0);
  private_qemu_command (&qemu, "migrate_cancel", "{}", "\"cancelled\"");
  WAIT_UNTIL (f->other.n_failed == 1);
  private_qemu_command (&qemu, "migrate-set-capabilities",
                        "{\"capabilities\":[{\"capability\":\"pause-before-switchover\",\"state\":false}]}", "\"return\"");
  private_qemu_command (&qemu, "migrate", nobody, "\"failed\"");
  WAIT_UNTIL (f->other.n_failed == 2);
  end_monitored (&qemu, path);
}

/* Somebody else listens, so the process tells nothing; but the VM has the socket open, and the other has not. */
static void
test_holder (Fixture *f, gconstpointer data)
{
  const char *const argv[] = { "cat", NULL };
  g_autofree char *path = monitor_path (f);
  g_autoptr (GSubprocess) holder = NULL;
  Proxy proxy;

  proxy_start (&proxy, path);
  holder = private_bus_spawn (argv, G_SUBPROCESS_FLAGS_STDIN_PIPE, dup (proxy.fd));
  f->self.peer = (HfPeer){ .pid = getppid (), .start_time = hf_peer_read_start_time (getppid ()) };
  f->other.peer.pid = (pid_t)g_ascii_strtoll (g_subprocess_get_identifier (holder), NULL, 10);
  f->other.peer.start_time = hf_peer_read_start_time (f->other.peer.pid);
  vm_appears (f, &f->self);
  vm_appears (f, &f->other);
  open_links (f, NULL, path);
  WAIT_UNTIL (f->other.n_runs == 1);
  g_assert_cmpuint (f->self.n_runs, ==, 0);
  g_subprocess_force_exit (holder);
  g_subprocess_wait (holder, NULL, NULL);
  proxy_end (&proxy, path);
}

/* A socket whose name is another than the one it was bound to: who has it cannot be seen. There is only one VM. */
static char *
rename_monitor (const char *path)
{
  char *hidden = g_strconcat (path, "-hidden", NULL);

  g_assert_cmpint (g_rename (path, hidden), ==, 0);
  return hidden;
}

/* Of two VMs none is told what may be the other's; when one ends it is clear again. */
static void
test_one_of_two (Fixture *f, gconstpointer data)
{
  g_autofree char *path = monitor_path (f);
  g_autofree char *hidden = NULL;
  guint n_lists;
  Proxy proxy;

  proxy_start (&proxy, path);
  hidden = rename_monitor (path);
  f->self.peer = (HfPeer){ .pid = getppid (), .start_time = hf_peer_read_start_time (getppid ()) };
  be_process (&f->other, &proxy.qemu);
  vm_appears (f, &f->other);
  open_links (f, NULL, hidden);
  WAIT_UNTIL (f->other.n_runs == 1);
  n_lists = the_vms.n_lists;
  vm_appears (f, &f->self);
  g_assert_cmpuint (the_vms.n_lists, ==, n_lists + 1);
  stop_and_go (&proxy.qemu);
  stop_and_go (&proxy.qemu);
  g_assert_cmpuint (f->other.n_runs, ==, 1);
  vm_ends (f, &f->self);
  /* Of query-status, which is asked again. */
  WAIT_UNTIL (f->other.n_runs == 2);
  stop_and_go (&proxy.qemu);
  WAIT_UNTIL (f->other.n_runs >= 3);
  g_assert_cmpuint (f->other.n_runs, ==, 3);
  g_assert_cmpuint (f->self.n_runs, ==, 0);
  proxy_end (&proxy, hidden);
}

/* A QEMU that listens itself and is no client yet is not taken for the VM that is. */
static void
test_not_guessed (Fixture *f, gconstpointer data)
{
  g_autofree char *path = monitor_path (f);
  g_autofree char *hidden = NULL;
  const char *const none[] = { "-S", NULL };
  HfVm monitored = { .name = "monitored" };
  Qemu qemu, client;

  start_monitored (&qemu, path, TRUE);
  hidden = rename_monitor (path);
  private_qemu_start (&client, none);
  be_process (&monitored, &qemu);
  be_process (&f->other, &client);
  vm_appears (f, &f->other);
  open_links (f, NULL, hidden);
  WAIT_UNTIL (the_vms.n_lists == 2);
  stop_and_go (&qemu);
  g_assert_cmpuint (f->other.n_runs, ==, 0);
  vm_appears (f, &monitored);
  WAIT_UNTIL (monitored.n_runs == 1);
  g_assert_cmpuint (f->other.n_runs, ==, 0);
  private_qemu_end (&client);
  end_monitored (&qemu, hidden);
}

/* The monitor is there before the VM has opened a disk. It is not that of the only VM there is, for that has not the socket. */
static void
test_monitor_before_vm (Fixture *f, gconstpointer data)
{
  g_autofree char *path = monitor_path (f);
  Qemu qemu;

  start_monitored (&qemu, path, TRUE);
  be_process (&f->other, &qemu);
  vm_appears (f, &f->self);
  open_links (f, NULL, path);
  /* Once by hf_links_new, and when the monitor was connected. */
  WAIT_UNTIL (the_vms.n_lists == 2);
  stop_and_go (&qemu);
  g_assert_cmpuint (f->self.n_runs, ==, 0);
  vm_appears (f, &f->other);
  WAIT_UNTIL (f->other.n_runs == 1);
  g_assert_cmpuint (f->self.n_runs, ==, 0);
  end_monitored (&qemu, path);
}

/* Opened with the VM, closed with it, and of nobody else. */
static void
test_monitor_of_a_vm (Fixture *f, gconstpointer data)
{
  g_autofree char *template = g_build_filename (f->bus.dir, "%n", NULL);
  g_autofree char *path = monitor_path (f);
  Qemu qemu;

  start_handed_over (&qemu, path);
  be_process (&f->other, &qemu);
  open_links (f, NULL, template);
  f->other.name = "qmp";
  vm_appears (f, &f->self);
  vm_appears (f, &f->other);
  WAIT_UNTIL (f->other.n_runs == 1);
  vm_ends (f, &f->other);
  /* It takes one client at a time: it was closed if another is served. */
  vm_appears (f, &f->other);
  WAIT_UNTIL (f->other.n_runs == 2);
  g_assert_cmpuint (f->self.n_runs, ==, 0);
  end_monitored (&qemu, path);
}

/* QEMU goes and another comes: connected again, and the new one is asked. */
static void
test_monitor_comes_back (Fixture *f, gconstpointer data)
{
  g_autofree char *path = monitor_path (f);
  Qemu qemu;

  open_links (f, NULL, path);
  for (guint i = 1; i <= 2; i++) {
    start_handed_over (&qemu, path);
    be_process (&f->other, &qemu);
    vm_appears (f, &f->other);
    WAIT_UNTIL (f->other.n_runs == i);
    end_monitored (&qemu, path);
    vm_ends (f, &f->other);
  }
}

/* ---- the rules ---- */

static void
assert_rules (const char *bus, const char *id, const char *qmp, const char *text)
{
  const char *const buses[] = { "unix:path=/run/bus", bus, NULL };
  const char *const monitors[] = { "/run/qmp", qmp, NULL };
  const HfLinksRules rules = { buses, id, monitors, HF_ON_CHANGE_ADOPT };
  g_autoptr (GError) error = NULL;

  if (!text) {
    g_assert_true (hf_links_check (&rules, &error));
    g_assert_no_error (error);
    return;
  }
  g_assert_false (hf_links_check (&rules, &error));
  if (!strstr (error->message, text))
    g_error ("\"%s\" is not in \"%s\"", text, error->message);
}

static void
test_check (void)
{
  g_autofree char *long_id = g_strnfill (256, 'x');

  assert_rules (NULL, "holdfast", NULL, NULL);
  assert_rules ("unix:path=/run/%n/%p", "holdfast", "/run/%u", NULL);
  assert_rules ("/run/bus", "holdfast", NULL, "/run/bus");
  assert_rules ("unix:path=/run/%x", "holdfast", NULL, "%x");
  assert_rules (NULL, "holdfast", "/run/%", "/run/%");
  assert_rules (NULL, "", NULL, "Id");
  assert_rules (NULL, long_id, NULL, "Id");
  assert_rules (NULL, long_id + 1, NULL, NULL);
  assert_rules (NULL, "\xff", NULL, "Id");
  hf_links_free (NULL);
}

#define ADD(path, function) g_test_add (path, Fixture, NULL, set_up, function, tear_down)

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  ADD ("/prhelper/links/save-and-load", test_save_and_load);
  ADD ("/prhelper/links/errors", test_errors);
  ADD ("/prhelper/links/not-a-client", test_not_a_client);
  ADD ("/prhelper/links/bus-of-a-vm", test_bus_of_a_vm);
  ADD ("/prhelper/links/bus-of-a-vm-that-lives", test_bus_of_a_vm_that_lives);
  ADD ("/prhelper/links/bus-of-another-vm", test_bus_of_another_vm);
  ADD ("/prhelper/links/bus-of-two-vms", test_bus_of_two_vms);
  ADD ("/prhelper/links/bad-name", test_bad_name);
  ADD ("/prhelper/links/free-while-saving", test_free_while_saving);
  ADD ("/prhelper/links/resume", test_resume);
  ADD ("/prhelper/links/running-before", test_running_before);
  ADD ("/prhelper/links/failed-and-cancelled", test_failed_and_cancelled);
  ADD ("/prhelper/links/holder", test_holder);
  ADD ("/prhelper/links/one-of-two", test_one_of_two);
  ADD ("/prhelper/links/not-guessed", test_not_guessed);
  ADD ("/prhelper/links/monitor-before-vm", test_monitor_before_vm);
  ADD ("/prhelper/links/monitor-of-a-vm", test_monitor_of_a_vm);
  ADD ("/prhelper/links/monitor-comes-back", test_monitor_comes_back);
  g_test_add_func ("/prhelper/links/check", test_check);
  return g_test_run ();
}
