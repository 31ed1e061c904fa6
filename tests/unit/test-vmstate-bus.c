/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * org.qemu.VMState1 on a real message bus: what QEMU asks for and gets, the bounds, and a bus that comes late, goes, and comes
 * back. The last tests let a real QEMU call.
 */

#include "config.h"

#include "vmstate/vmstate-bus.h"

#include "private-bus.h"
#include "private-qemu.h"

#include <glib-unix.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define NAME "org.qemu.VMState1"
#define PATH "/org/qemu/VMState1"
#define PROPERTIES "org.freedesktop.DBus.Properties"

/* A service: what it was asked, and what it answers. */
typedef struct {
  HfVmstateBus *bus;
  GBytes *saved; /* what Save answers, or NULL */
  const char *refusal;
  gboolean hold;    /* keep the calls unanswered */
  GPtrArray *calls; /* those */
  GBytes *loaded;
  guint n_saves, n_loads;
  pid_t pid;
  GPtrArray *states;
  gboolean connected;
} Service;

static void
answer (Service *service, HfVmstateCall *call, GBytes *data)
{
  g_autoptr (GError) error = service->refusal ? g_error_new_literal (G_IO_ERROR, G_IO_ERROR_FAILED, service->refusal) : NULL;

  if (service->hold)
    g_ptr_array_add (service->calls, call);
  else
    hf_vmstate_call_finish (call, data, error);
}

static void
on_save (HfVmstateCall *call, pid_t pid, gpointer user_data)
{
  Service *service = user_data;

  service->n_saves++;
  service->pid = pid;
  answer (service, call, service->saved);
}

static void
on_load (HfVmstateCall *call, pid_t pid, GBytes *data, gpointer user_data)
{
  Service *service = user_data;

  service->n_loads++;
  service->pid = pid;
  g_clear_pointer (&service->loaded, g_bytes_unref);
  service->loaded = g_bytes_ref (data);
  answer (service, call, NULL);
}

static void
on_state (gboolean connected, const char *address, const char *text, gpointer user_data)
{
  Service *service = user_data;

  service->connected = connected;
  g_ptr_array_add (service->states, g_strdup (text));
}

static const HfVmstateHandlers handlers = { on_save, on_load, on_state };

static void
service_init (Service *service, const char *address, const char *id)
{
  *service = (Service){ 0 };
  service->calls = g_ptr_array_new ();
  service->states = g_ptr_array_new_with_free_func (g_free);
  service->saved = g_bytes_new_static ("state", 5);
  service->bus = hf_vmstate_bus_new (address, id, &handlers, service);
}

static void
service_clear (Service *service)
{
  hf_vmstate_bus_free (service->bus);
  g_ptr_array_unref (service->calls);
  g_ptr_array_unref (service->states);
  g_clear_pointer (&service->saved, g_bytes_unref);
  g_clear_pointer (&service->loaded, g_bytes_unref);
}

/* A bus, a service on it and a caller. */
typedef struct {
  PrivateBus bus;
  Service service;
  GDBusConnection *caller;
} Fixture;

static void
set_up (Fixture *f, gconstpointer data)
{
  private_bus_init (&f->bus);
  private_bus_start (&f->bus);
  service_init (&f->service, f->bus.address, "holdfast");
  WAIT_UNTIL (f->service.connected);
  f->caller = private_bus_connect (&f->bus);
}

static void
tear_down (Fixture *f, gconstpointer data)
{
  g_clear_object (&f->caller);
  service_clear (&f->service);
  private_bus_clear (&f->bus);
}

static GVariant *
call (Fixture *f, const char *method, GVariant *parameters, GError **error)
{
  return private_bus_call (f->caller, NAME, PATH, NAME, method, parameters, error);
}

/* zeros: size bytes. */
static GVariant *
state_of_size (gsize size)
{
  g_autoptr (GBytes) bytes = g_bytes_new_take (g_malloc0 (size), size);

  return g_variant_new ("(@ay)", g_variant_new_from_bytes (G_VARIANT_TYPE_BYTESTRING, bytes, TRUE));
}

static void
assert_saves (Fixture *f, GBytes *expected)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GVariant) got = call (f, "Save", NULL, &error);
  g_autoptr (GVariant) inner = NULL;
  g_autoptr (GBytes) bytes = NULL;

  g_assert_no_error (error);
  g_assert_cmpstr (g_variant_get_type_string (got), ==, "(ay)");
  inner = g_variant_get_child_value (got, 0);
  bytes = g_variant_get_data_as_bytes (inner);
  g_assert_true (g_bytes_equal (bytes, expected));
}

static void
assert_fails (Fixture *f, const char *method, GVariant *parameters, int code, const char *text)
{
  g_autoptr (GError) error = NULL;

  g_assert_null (call (f, method, parameters, &error));
  g_assert_error (error, G_DBUS_ERROR, code);
  if (!strstr (error->message, text))
    g_error ("\"%s\" is not in \"%s\"", text, error->message);
}

/* QEMU's proxy reads the Id with GetAll. */
static void
test_id (Fixture *f, gconstpointer data)
{
  g_autoptr (GVariant) all = private_bus_call (f->caller, NAME, PATH, PROPERTIES, "GetAll", g_variant_new ("(s)", NAME), NULL);
  g_autoptr (GVariant) one =
      private_bus_call (f->caller, NAME, PATH, PROPERTIES, "Get", g_variant_new ("(ss)", NAME, "Id"), NULL);
  g_autofree char *all_text = g_variant_print (all, FALSE);
  g_autofree char *one_text = g_variant_print (one, FALSE);

  g_assert_cmpstr (all_text, ==, "({'Id': <'holdfast'>},)");
  g_assert_cmpstr (one_text, ==, "(<'holdfast'>,)");
}

static void
test_id_is_read_only (Fixture *f, gconstpointer data)
{
  g_autoptr (GError) error = NULL;

  g_assert_null (private_bus_call (f->caller, NAME, PATH, PROPERTIES, "Set",
                                   g_variant_new ("(ssv)", NAME, "Id", g_variant_new_string ("x")), &error));
  g_assert_error (error, G_DBUS_ERROR, G_DBUS_ERROR_INVALID_ARGS);
}

static void
test_unknown (Fixture *f, gconstpointer data)
{
  g_autoptr (GError) property = NULL;
  g_autoptr (GError) object = NULL;

  assert_fails (f, "Quit", NULL, G_DBUS_ERROR_UNKNOWN_METHOD, "Quit");
  assert_fails (f, "Load", g_variant_new ("(s)", "text"), G_DBUS_ERROR_INVALID_ARGS, "");
  assert_fails (f, "Save", g_variant_new ("(s)", "text"), G_DBUS_ERROR_INVALID_ARGS, "");
  g_assert_null (private_bus_call (f->caller, NAME, PATH, PROPERTIES, "Get", g_variant_new ("(ss)", NAME, "Name"), &property));
  g_assert_error (property, G_DBUS_ERROR, G_DBUS_ERROR_INVALID_ARGS);
  g_assert_null (private_bus_call (f->caller, NAME, "/org/qemu", NAME, "Save", NULL, &object));
  g_assert_error (object, G_DBUS_ERROR, G_DBUS_ERROR_UNKNOWN_METHOD);
  g_assert_cmpuint (f->service.n_saves + f->service.n_loads, ==, 0);
}

static void
test_introspect (Fixture *f, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GVariant) reply =
      private_bus_call (f->caller, NAME, PATH, "org.freedesktop.DBus.Introspectable", "Introspect", NULL, &error);
  g_autoptr (GDBusNodeInfo) node = NULL;
  GDBusInterfaceInfo *interface;
  const char *xml;

  g_assert_no_error (error);
  g_variant_get (reply, "(&s)", &xml);
  node = g_dbus_node_info_new_for_xml (xml, &error);
  g_assert_no_error (error);
  interface = g_dbus_node_info_lookup_interface (node, NAME);
  g_assert_nonnull (interface);
  g_assert_cmpstr (g_dbus_interface_info_lookup_method (interface, "Load")->in_args[0]->signature, ==, "ay");
  g_assert_cmpstr (g_dbus_interface_info_lookup_method (interface, "Save")->out_args[0]->signature, ==, "ay");
  g_assert_cmpstr (g_dbus_interface_info_lookup_property (interface, "Id")->signature, ==, "s");
}

static void
test_save_and_load (Fixture *f, gconstpointer data)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GVariant) done = NULL;

  assert_saves (f, f->service.saved);
  g_assert_cmpint (f->service.pid, ==, getpid ());
  f->service.pid = 0;
  done = call (f, "Load", g_variant_new ("(^ay)", "what was saved"), &error);
  g_assert_no_error (error);
  g_assert_cmpstr (g_variant_get_type_string (done), ==, "()");
  g_assert_cmpint (f->service.pid, ==, getpid ());
  g_assert_cmpstr (g_bytes_get_data (f->service.loaded, NULL), ==, "what was saved");
  g_assert_cmpuint (f->service.n_saves, ==, 1);
  g_assert_cmpuint (f->service.n_loads, ==, 1);
}

/* An empty record is not for us to judge. */
static void
test_load_empty (Fixture *f, gconstpointer data)
{
  g_autoptr (GVariant) done = call (f, "Load", state_of_size (0), NULL);

  g_assert_nonnull (done);
  g_assert_cmpuint (g_bytes_get_size (f->service.loaded), ==, 0);
}

static void
test_errors (Fixture *f, gconstpointer data)
{
  f->service.refusal = "LU naa.5000: fenced";
  assert_fails (f, "Save", NULL, G_DBUS_ERROR_FAILED, "LU naa.5000: fenced");
  assert_fails (f, "Load", state_of_size (3), G_DBUS_ERROR_FAILED, "LU naa.5000: fenced");
  /* A name that is not UTF-8 cannot go over the bus as it is. */
  f->service.refusal = "file \xff";
  assert_fails (f, "Save", NULL, G_DBUS_ERROR_FAILED, "file \xef\xbf\xbd");
}

static void
test_size_of_save (Fixture *f, gconstpointer data)
{
  g_autoptr (GBytes) largest = g_bytes_new_take (g_malloc0 (HF_VMSTATE_SIZE_MAX), HF_VMSTATE_SIZE_MAX);
  g_autoptr (GBytes) larger = g_bytes_new_take (g_malloc0 (HF_VMSTATE_SIZE_MAX + 1), HF_VMSTATE_SIZE_MAX + 1);
  GBytes *const wrong[] = { NULL, g_bytes_new (NULL, 0), g_bytes_ref (larger) };

  g_bytes_unref (f->service.saved);
  f->service.saved = g_bytes_ref (largest);
  assert_saves (f, largest);
  for (guint i = 0; i < G_N_ELEMENTS (wrong); i++) {
    g_clear_pointer (&f->service.saved, g_bytes_unref);
    f->service.saved = wrong[i];
    assert_fails (f, "Save", NULL, G_DBUS_ERROR_FAILED, "cannot be saved");
  }
}

static void
test_size_of_load (Fixture *f, gconstpointer data)
{
  g_autoptr (GVariant) done = call (f, "Load", state_of_size (HF_VMSTATE_SIZE_MAX), NULL);

  g_assert_nonnull (done);
  g_assert_cmpuint (g_bytes_get_size (f->service.loaded), ==, HF_VMSTATE_SIZE_MAX);
  assert_fails (f, "Load", state_of_size (HF_VMSTATE_SIZE_MAX + 1), G_DBUS_ERROR_LIMITS_EXCEEDED, "1 MiB");
  g_assert_cmpuint (f->service.n_loads, ==, 1);
}

static void
on_called (GObject *source, GAsyncResult *result, gpointer user_data)
{
  g_ptr_array_add (user_data, g_object_ref (result));
}

static void
call_later (Fixture *f, const char *method, GVariant *parameters, GPtrArray *results)
{
  g_dbus_connection_call (f->caller, NAME, PATH, NAME, method, parameters, NULL, G_DBUS_CALL_FLAGS_NONE, -1, NULL, on_called,
                          results);
}

/* Who calls without waiting for answers cannot make us keep any number of states. */
static void
test_calls_are_bounded (Fixture *f, gconstpointer data)
{
  g_autoptr (GPtrArray) results = g_ptr_array_new_with_free_func (g_object_unref);
  g_autoptr (GError) error = NULL;

  f->service.hold = TRUE;
  for (guint i = 0; i < 65; i++)
    call_later (f, "Save", NULL, results);
  WAIT_UNTIL (results->len == 1 && f->service.calls->len == 64);
  g_assert_null (g_dbus_connection_call_finish (f->caller, results->pdata[0], &error));
  g_assert_error (error, G_DBUS_ERROR, G_DBUS_ERROR_LIMITS_EXCEEDED);
  for (guint i = 0; i < f->service.calls->len; i++)
    hf_vmstate_call_finish (f->service.calls->pdata[i], f->service.saved, NULL);
  f->service.hold = FALSE;
  WAIT_UNTIL (results->len == 65);
  assert_saves (f, f->service.saved);
}

/* The handler may take its time; what else is asked meanwhile is answered. */
static void
test_answered_later (Fixture *f, gconstpointer data)
{
  g_autoptr (GPtrArray) results = g_ptr_array_new_with_free_func (g_object_unref);
  g_autoptr (GVariant) done = NULL;

  f->service.hold = TRUE;
  call_later (f, "Load", state_of_size (7), results);
  WAIT_UNTIL (f->service.calls->len == 1);
  test_id (f, NULL);
  g_assert_cmpuint (results->len, ==, 0);
  hf_vmstate_call_finish (f->service.calls->pdata[0], NULL, NULL);
  WAIT_UNTIL (results->len == 1);
  done = g_dbus_connection_call_finish (f->caller, results->pdata[0], NULL);
  g_assert_nonnull (done);
}

/* Freed with calls that wait: they get an error at once, and finishing them later is safe. */
static void
test_free_with_calls (Fixture *f, gconstpointer data)
{
  g_autoptr (GPtrArray) results = g_ptr_array_new_with_free_func (g_object_unref);
  g_autoptr (GError) failed = g_error_new_literal (G_IO_ERROR, G_IO_ERROR_FAILED, "too late");

  f->service.hold = TRUE;
  call_later (f, "Save", NULL, results);
  call_later (f, "Load", state_of_size (100), results);
  WAIT_UNTIL (f->service.calls->len == 2);
  g_clear_pointer (&f->service.bus, hf_vmstate_bus_free);
  WAIT_UNTIL (results->len == 2);
  for (guint i = 0; i < 2; i++) {
    g_autoptr (GError) error = NULL;

    g_assert_null (g_dbus_connection_call_finish (f->caller, results->pdata[i], &error));
    g_assert_nonnull (strstr (error->message, "holdfast has left the message bus"));
  }
  hf_vmstate_call_finish (f->service.calls->pdata[0], f->service.saved, NULL);
  hf_vmstate_call_finish (f->service.calls->pdata[1], NULL, failed);
}

/* A process that ends right after its answer: no loop runs any more, and the answer arrives all the same. */
static void
test_free_flushed (Fixture *f, gconstpointer data)
{
  g_autoptr (GPtrArray) results = g_ptr_array_new_with_free_func (g_object_unref);
  g_autoptr (GError) error = NULL;
  g_autoptr (GVariant) done = NULL;

  f->service.hold = TRUE;
  call_later (f, "Load", state_of_size (5), results);
  call_later (f, "Save", NULL, results);
  WAIT_UNTIL (f->service.calls->len == 2);
  hf_vmstate_call_finish (f->service.calls->pdata[0], NULL, NULL);
  hf_vmstate_bus_free_flushed (g_steal_pointer (&f->service.bus), 5000);
  WAIT_UNTIL (results->len == 2);
  done = g_dbus_connection_call_finish (f->caller, results->pdata[0], &error);
  g_assert_no_error (error);
  g_assert_null (g_dbus_connection_call_finish (f->caller, results->pdata[1], &error));
  g_assert_nonnull (strstr (error->message, "holdfast has left the message bus"));
  hf_vmstate_call_finish (f->service.calls->pdata[1], f->service.saved, NULL);
}

/* A bus that is stuck does not keep the process. */
static void
test_free_flushed_is_bounded (Fixture *f, gconstpointer data)
{
  const pid_t pid = (pid_t)g_ascii_strtoll (g_subprocess_get_identifier (f->bus.daemon), NULL, 10);
  g_autoptr (GPtrArray) results = g_ptr_array_new_with_free_func (g_object_unref);
  g_autoptr (GBytes) large = g_bytes_new_take (g_malloc0 (HF_VMSTATE_SIZE_MAX), HF_VMSTATE_SIZE_MAX);
  gint64 start;

  f->service.hold = TRUE;
  for (guint i = 0; i < 4; i++)
    call_later (f, "Save", NULL, results);
  WAIT_UNTIL (f->service.calls->len == 4);
  g_assert_cmpint (kill (pid, SIGSTOP), ==, 0);
  for (guint i = 0; i < 4; i++)
    hf_vmstate_call_finish (f->service.calls->pdata[i], large, NULL);
  start = g_get_monotonic_time ();
  hf_vmstate_bus_free_flushed (g_steal_pointer (&f->service.bus), 100);
  g_assert_cmpint (g_get_monotonic_time () - start, >=, 100 * G_TIME_SPAN_MILLISECOND);
  g_assert_cmpint (g_get_monotonic_time () - start, <, 10 * G_USEC_PER_SEC);
  g_assert_cmpint (kill (pid, SIGCONT), ==, 0);
  WAIT_UNTIL (results->len == 4);
}

/* Freed while the bus is asked who calls: the handler is not called any more. Whether a call is just there is a matter of luck,
   so it is tried until one was. */
static void
test_free_while_asking (Fixture *f, gconstpointer data)
{
  guint n_left = 0, n_rounds = 0;

  for (; n_left <= f->service.n_saves; n_rounds++) {
    g_autoptr (GPtrArray) results = g_ptr_array_new_with_free_func (g_object_unref);

    service_clear (&f->service);
    service_init (&f->service, f->bus.address, "holdfast");
    WAIT_UNTIL (f->service.connected);
    f->service.hold = TRUE;
    n_left = 0;
    for (guint i = 0; i < 20; i++)
      call_later (f, "Save", NULL, results);
    for (guint i = 0; i <= n_rounds % 20; i++)
      private_bus_turn (G_MAXINT64);
    g_clear_pointer (&f->service.bus, hf_vmstate_bus_free);
    WAIT_UNTIL (results->len == 20);
    for (guint i = 0; i < 20; i++) {
      g_autoptr (GError) error = NULL;

      g_assert_null (g_dbus_connection_call_finish (f->caller, results->pdata[i], &error));
      n_left += strstr (error->message, "holdfast has left the message bus") ? 1 : 0;
    }
    g_assert_cmpuint (f->service.calls->len, ==, f->service.n_saves);
    for (guint i = 0; i < f->service.calls->len; i++)
      hf_vmstate_call_finish (f->service.calls->pdata[i], f->service.saved, NULL);
    g_assert_cmpuint (n_rounds, <, 1000);
  }
}

/* Behind another helper that has the name: QEMU asks for all that queue, and calls each by its unique name. */
static void
test_two_owners (Fixture *f, gconstpointer data)
{
  g_autoptr (GVariant) reply = NULL;
  g_autofree const char **owners = NULL;
  g_autofree char *ids = NULL;
  Service second;

  service_init (&second, f->bus.address, "second");
  WAIT_UNTIL (second.connected);
  reply = private_bus_call (f->caller, "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus",
                            "ListQueuedOwners", g_variant_new ("(s)", NAME), NULL);
  g_variant_get (reply, "(^a&s)", &owners);
  g_assert_cmpuint (g_strv_length ((char **)owners), ==, 2);
  for (guint i = 0; i < 2; i++) {
    g_autoptr (GVariant) all =
        private_bus_call (f->caller, owners[i], PATH, PROPERTIES, "GetAll", g_variant_new ("(s)", NAME), NULL);
    g_autoptr (GVariant) saved = private_bus_call (f->caller, owners[i], PATH, NAME, "Save", NULL, NULL);
    g_autofree char *text = g_variant_print (all, FALSE);
    g_autofree char *before = g_steal_pointer (&ids);

    g_assert_nonnull (saved);
    ids = g_strconcat (before ? before : "", text, NULL);
  }
  g_assert_cmpstr (ids, ==, "({'Id': <'holdfast'>},)({'Id': <'second'>},)");
  g_assert_cmpuint (f->service.n_saves, ==, 1);
  g_assert_cmpuint (second.n_saves, ==, 1);
  service_clear (&second);
}

/* The first goes, the one behind it has the name. */
static void
test_next_in_queue (Fixture *f, gconstpointer data)
{
  Service second;

  service_init (&second, f->bus.address, "second");
  WAIT_UNTIL (second.connected);
  g_clear_pointer (&f->service.bus, hf_vmstate_bus_free);
  for (guint i = 0; second.n_saves == 0; i++) {
    G_GNUC_UNUSED g_autoptr (GVariant) saved = call (f, "Save", NULL, NULL);

    g_assert_cmpuint (i, <, 1000);
  }
  g_assert_cmpuint (f->service.n_saves, <=, 1);
  service_clear (&second);
}

/* The bus of a VM may come after the helper. */
static void
test_bus_comes_later (void)
{
  Fixture f = { 0 };

  private_bus_init (&f.bus);
  service_init (&f.service, f.bus.address, "holdfast");
  WAIT_UNTIL (f.service.states->len == 1);
  g_assert_false (f.service.connected);
  private_bus_start (&f.bus);
  WAIT_UNTIL (f.service.connected);
  g_assert_cmpuint (f.service.states->len, ==, 2);
  f.caller = private_bus_connect (&f.bus);
  assert_saves (&f, f.service.saved);
  tear_down (&f, NULL);
}

/* Attempts that fail alike are told once. */
static void
test_state_is_told_once (void)
{
  g_autofree char *dir = g_dir_make_tmp ("holdfast-bus-XXXXXX", NULL);
  g_autofree char *path = g_build_filename (dir, "bus", NULL);
  g_autofree char *address = g_strdup_printf ("unix:path=%s", path);
  struct sockaddr_un name = { .sun_family = AF_UNIX };
  int fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  guint n_attempts = 0;
  Service service;

  /* A server that closes whoever comes: it shows that attempts were made. */
  g_strlcpy (name.sun_path, path, sizeof name.sun_path);
  g_assert_cmpint (bind (fd, (struct sockaddr *)&name, sizeof name), ==, 0);
  g_assert_cmpint (listen (fd, 1), ==, 0);
  g_unix_set_fd_nonblocking (fd, TRUE, NULL);
  service_init (&service, address, "holdfast");
  for (gint64 end = g_get_monotonic_time () + WAIT_LIMIT_US; n_attempts < 5;) {
    int client = accept (fd, NULL, NULL);

    if (client >= 0) {
      char zero;

      n_attempts++;
      g_unix_set_fd_nonblocking (client, FALSE, NULL);
      /* All of it read, so that the end is the same each time. */
      while (read (client, &zero, 1) == 1 && zero != '\n')
        ;
      close (client);
    }
    private_bus_turn (end);
  }
  g_assert_false (service.connected);
  g_assert_cmpuint (service.states->len, ==, 1);
  service_clear (&service);
  close (fd);
  g_unlink (path);
  g_rmdir (dir);
}

static void
test_bus_is_restarted (Fixture *f, gconstpointer data)
{
  g_autoptr (GPtrArray) results = g_ptr_array_new_with_free_func (g_object_unref);

  f->service.hold = TRUE;
  call_later (f, "Save", NULL, results);
  WAIT_UNTIL (f->service.calls->len == 1);
  private_bus_stop (&f->bus);
  WAIT_UNTIL (!f->service.connected);
  /* The answer to a bus that is not there any more. */
  hf_vmstate_call_finish (f->service.calls->pdata[0], f->service.saved, NULL);
  f->service.hold = FALSE;
  g_clear_object (&f->caller);
  private_bus_start (&f->bus);
  WAIT_UNTIL (f->service.connected);
  f->caller = private_bus_connect (&f->bus);
  assert_saves (f, f->service.saved);
  g_assert_cmpstr (g_ptr_array_index (f->service.states, f->service.states->len - 1), ==, "connected");
}

/* Freed while it waits for a bus that took the connection and says nothing. */
static void
test_free_while_connecting (void)
{
  g_autofree char *dir = g_dir_make_tmp ("holdfast-bus-XXXXXX", NULL);
  g_autofree char *path = g_build_filename (dir, "bus", NULL);
  g_autofree char *address = g_strdup_printf ("unix:path=%s", path);
  struct sockaddr_un name = { .sun_family = AF_UNIX };
  int fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), client = -1;
  Service service;
  char byte;

  g_strlcpy (name.sun_path, path, sizeof name.sun_path);
  g_assert_cmpint (bind (fd, (struct sockaddr *)&name, sizeof name), ==, 0);
  g_assert_cmpint (listen (fd, 1), ==, 0);
  g_unix_set_fd_nonblocking (fd, TRUE, NULL);
  service_init (&service, address, "holdfast");
  WAIT_UNTIL ((client = accept (fd, NULL, NULL)) >= 0);
  /* The credentials' zero byte: it is in the middle of the handshake. */
  WAIT_UNTIL (recv (client, &byte, 1, MSG_DONTWAIT) == 1);
  service_clear (&service);
  while (recv (client, &byte, 1, MSG_DONTWAIT) > 0)
    ;
  WAIT_UNTIL (recv (client, &byte, 1, MSG_DONTWAIT) == 0);
  close (client);
  close (fd);
  g_unlink (path);
  g_rmdir (dir);
}

static void
test_bad_address (void)
{
  Service service;

  service_init (&service, "nonsense", "holdfast");
  WAIT_UNTIL (service.states->len > 0);
  g_assert_false (service.connected);
  service_clear (&service);
  hf_vmstate_bus_free (NULL);
}

/* ---- QEMU ---- */

static void
start_qemu (Qemu *qemu, PrivateBus *bus, gboolean incoming)
{
  g_autofree char *object = g_strdup_printf ("dbus-vmstate,id=dv,addr=%s,id-list=holdfast", bus->address);
  const char *const arguments[] = { "-S", "-object", object, incoming ? "-incoming" : NULL, "defer", NULL };

  private_qemu_start (qemu, arguments);
}

static void
migrate_to_file (Fixture *f, const char *file)
{
  g_autofree char *arguments = g_strdup_printf ("{\"uri\":\"exec:cat>%s\"}", file);
  Qemu qemu;

  start_qemu (&qemu, &f->bus, FALSE);
  private_qemu_command (&qemu, "migrate", arguments, "\"completed\"");
  g_assert_cmpuint (f->service.n_saves, ==, 1);
  g_assert_cmpint (f->service.pid, ==, private_qemu_pid (&qemu));
  private_qemu_end (&qemu);
}

/* What one QEMU saves, another loads, byte for byte. */
static void
test_qemu_migrates (Fixture *f, gconstpointer data)
{
  g_autofree char *file = g_build_filename (f->bus.dir, "stream", NULL);
  g_autofree char *arguments = g_strdup_printf ("{\"uri\":\"exec:cat %s\"}", file);
  Qemu qemu;

  migrate_to_file (f, file);
  start_qemu (&qemu, &f->bus, TRUE);
  private_qemu_command (&qemu, "migrate-incoming", arguments, "\"completed\"");
  g_assert_cmpuint (f->service.n_loads, ==, 1);
  g_assert_cmpint (f->service.pid, ==, private_qemu_pid (&qemu));
  g_assert_true (g_bytes_equal (f->service.loaded, f->service.saved));
  private_qemu_end (&qemu);
  g_unlink (file);
}

/* An error of Load is the one word that ends the destination; its text is what the administrator reads there. */
static void
test_qemu_is_refused (Fixture *f, gconstpointer data)
{
  g_autofree char *file = g_build_filename (f->bus.dir, "stream", NULL);
  g_autofree char *line = g_strdup_printf ("{\"execute\":\"migrate-incoming\",\"arguments\":{\"uri\":\"exec:cat %s\"}}\n", file);
  g_autoptr (GDataInputStream) errors = NULL;
  g_autoptr (GString) said = g_string_new (NULL);
  char *text;
  Qemu qemu;

  migrate_to_file (f, file);
  f->service.refusal = "LU naa.5000: occupied";
  start_qemu (&qemu, &f->bus, TRUE);
  errors = g_data_input_stream_new (g_subprocess_get_stderr_pipe (qemu.process));
  g_output_stream_write_all (g_subprocess_get_stdin_pipe (qemu.process), line, strlen (line), NULL, NULL, NULL);
  while (private_qemu_wait (&qemu, "\"event\""))
    ;
  g_subprocess_wait (qemu.process, NULL, NULL);
  g_assert_cmpint (g_subprocess_get_exit_status (qemu.process), ==, 1);
  while ((text = g_data_input_stream_read_line (errors, NULL, NULL, NULL))) {
    g_string_append (said, text);
    g_free (text);
  }
  g_assert_nonnull (strstr (said->str, "LU naa.5000: occupied"));
  private_qemu_end (&qemu);
  g_unlink (file);
}

#define ADD(path, function) g_test_add (path, Fixture, NULL, set_up, function, tear_down)

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  ADD ("/vmstate-bus/id", test_id);
  ADD ("/vmstate-bus/id-is-read-only", test_id_is_read_only);
  ADD ("/vmstate-bus/unknown", test_unknown);
  ADD ("/vmstate-bus/introspect", test_introspect);
  ADD ("/vmstate-bus/save-and-load", test_save_and_load);
  ADD ("/vmstate-bus/load-empty", test_load_empty);
  ADD ("/vmstate-bus/errors", test_errors);
  ADD ("/vmstate-bus/size-of-save", test_size_of_save);
  ADD ("/vmstate-bus/size-of-load", test_size_of_load);
  ADD ("/vmstate-bus/calls-are-bounded", test_calls_are_bounded);
  ADD ("/vmstate-bus/answered-later", test_answered_later);
  ADD ("/vmstate-bus/free-with-calls", test_free_with_calls);
  ADD ("/vmstate-bus/free-flushed", test_free_flushed);
  ADD ("/vmstate-bus/free-flushed-is-bounded", test_free_flushed_is_bounded);
  ADD ("/vmstate-bus/free-while-asking", test_free_while_asking);
  ADD ("/vmstate-bus/two-owners", test_two_owners);
  ADD ("/vmstate-bus/next-in-queue", test_next_in_queue);
  g_test_add_func ("/vmstate-bus/bus-comes-later", test_bus_comes_later);
  g_test_add_func ("/vmstate-bus/state-is-told-once", test_state_is_told_once);
  ADD ("/vmstate-bus/bus-is-restarted", test_bus_is_restarted);
  g_test_add_func ("/vmstate-bus/free-while-connecting", test_free_while_connecting);
  g_test_add_func ("/vmstate-bus/bad-address", test_bad_address);
  ADD ("/vmstate-bus/qemu/migrates", test_qemu_migrates);
  ADD ("/vmstate-bus/qemu/is-refused", test_qemu_is_refused);
  return g_test_run ();
}
