/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns: the connection to one message bus, the object on it, and the calls that were not answered yet. Thread: main; GDBus reads
 * and writes on a thread of its own, and connects on one of GLib's pool, so that a bus that hangs delays nobody.
 *
 * Theory of operation: connect, register the object, then ask for the name, for QEMU looks for owners of the name and calls them
 * by their unique names, in the queue or not. A call waits until the bus has told who the caller is; the bus knows it from the
 * socket, so it cannot be lied about by the caller. What the bus does not tell within a time counts as not known.
 *
 * An object that was freed lives on, silent, until what it had begun has come back: every asynchronous step holds a reference.
 */
#include "config.h"

#include "vmstate/vmstate-bus.h"

#include <limits.h>
#include <string.h>

#define BUS_NAME "org.freedesktop.DBus"
#define BUS_PATH "/org/freedesktop/DBus"
#define VMSTATE_NAME "org.qemu.VMState1"
#define VMSTATE_PATH "/org/qemu/VMState1"

#define RETRY_FIRST_MS 50
#define RETRY_MAX_MS 1000
/* A bus that takes the connection and then says nothing. */
#define ATTEMPT_MS 10000
#define PID_MS 5000
#define FLUSH_MS 1000
/* Each may hold HF_VMSTATE_SIZE_MAX bytes. QEMU has at most one at a time, so this is a number of VMs. */
#define CALLS_MAX 64
/* Calls of a connection whose answers were not written yet, those that GDBus answers by itself included. */
#define OWED_MAX 256

/* RequestName's answers (D-Bus specification, "Bus messages"). */
#define REQUEST_NAME_OWNER 1
#define REQUEST_NAME_IN_QUEUE 2

struct _HfVmstateBus {
  char *address, *id;
  const HfVmstateHandlers *handlers;
  gpointer user_data;
  gboolean freed;
  GCancellable *attempt;       /* NULL: nothing is under way */
  GDBusConnection *connection; /* NULL: none */
  guint object;
  guint retry_source, attempt_source;
  guint delay_ms;      /* before the next attempt but this */
  gint64 ready_since;  /* 0: the name was not asked for with success */
  GPtrArray *calls;    /* HfVmstateCall, not owned: those that were not finished */
  gboolean told_ready; /* what the handler was told */
  char *told_text;
};

struct _HfVmstateCall {
  HfVmstateBus *bus;                 /* NULL: it is gone */
  GDBusMethodInvocation *invocation; /* NULL: answered */
  GBytes *data;                      /* of a Load; NULL: a Save */
};

static void connect_later (HfVmstateBus *bus);

/* ---- the object ---- */

static GDBusArgInfo data_arg = { .ref_count = -1, .name = (char *)"data", .signature = (char *)"ay" };
static GDBusArgInfo *data_args[] = { &data_arg, NULL };
static GDBusMethodInfo load_method = { .ref_count = -1, .name = (char *)"Load", .in_args = data_args };
static GDBusMethodInfo save_method = { .ref_count = -1, .name = (char *)"Save", .out_args = data_args };
static GDBusMethodInfo *methods[] = { &load_method, &save_method, NULL };
static GDBusPropertyInfo id_property = {
  .ref_count = -1, .name = (char *)"Id", .signature = (char *)"s", .flags = G_DBUS_PROPERTY_INFO_FLAGS_READABLE
};
static GDBusPropertyInfo *properties[] = { &id_property, NULL };
static GDBusInterfaceInfo vmstate_interface = {
  .ref_count = -1, .name = (char *)VMSTATE_NAME, .methods = methods, .properties = properties
};

static void
bus_clear (gpointer data)
{
  HfVmstateBus *bus = data;

  g_ptr_array_unref (bus->calls);
  g_free (bus->address);
  g_free (bus->id);
  g_free (bus->told_text);
}

static void
bus_unref (HfVmstateBus *bus)
{
  g_rc_box_release_full (bus, bus_clear);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC (HfVmstateBus, bus_unref)

/* ---- calls ---- */

static void
answer_error (HfVmstateCall *call, const char *text)
{
  /* A string of D-Bus is UTF-8, and names of LUs and files need not be. */
  g_autofree char *valid = g_utf8_make_valid (text, -1);

  g_dbus_method_invocation_return_error_literal (g_steal_pointer (&call->invocation), G_DBUS_ERROR, G_DBUS_ERROR_FAILED, valid);
}

static void
answer_data (HfVmstateCall *call, GBytes *data)
{
  gsize size = data ? g_bytes_get_size (data) : 0;
  GVariant *bytes;

  /* QEMU would only log it and leave our entry out, and the destination would fail on that: say what it is. */
  if (size == 0 || size > HF_VMSTATE_SIZE_MAX) {
    g_autofree char *text = g_strdup_printf ("a state of %" G_GSIZE_FORMAT " bytes cannot be saved", size);

    answer_error (call, text);
    return;
  }
  bytes = g_variant_new_from_bytes (G_VARIANT_TYPE_BYTESTRING, data, TRUE);
  g_dbus_method_invocation_return_value (g_steal_pointer (&call->invocation), g_variant_new_tuple (&bytes, 1));
}

/* Also when it was answered. */
static void
call_free (HfVmstateCall *call)
{
  if (call->bus)
    g_ptr_array_remove_fast (call->bus->calls, call);
  if (call->data)
    g_bytes_unref (call->data);
  g_free (call);
}

void
hf_vmstate_call_finish (HfVmstateCall *call, GBytes *data, const GError *error)
{
  if (!call->invocation)
    ; /* The bus was freed meanwhile, and the call was answered then. */
  else if (error)
    answer_error (call, error->message);
  else if (!call->data)
    answer_data (call, data);
  else
    g_dbus_method_invocation_return_value (g_steal_pointer (&call->invocation), NULL);
  call_free (call);
}

static void
on_pid (GObject *source, GAsyncResult *result, gpointer user_data)
{
  HfVmstateCall *call = user_data;
  g_autoptr (GVariant) answer = g_dbus_connection_call_finish (G_DBUS_CONNECTION (source), result, NULL);
  HfVmstateBus *bus = call->bus;
  guint32 pid = 0;

  if (!bus) {
    call_free (call);
    return;
  }
  if (answer)
    g_variant_get (answer, "(u)", &pid);
  if (pid > INT_MAX)
    pid = 0;
  if (call->data)
    bus->handlers->load (call, (pid_t)pid, call->data, bus->user_data);
  else
    bus->handlers->save (call, (pid_t)pid, bus->user_data);
}

/* Why a call is not even looked at; NULL if it is. */
static const char *
refuse_call (HfVmstateBus *bus, const char *sender, gsize size)
{
  if (!sender)
    return "a call without a sender";
  if (size > HF_VMSTATE_SIZE_MAX)
    return "a state of more than 1 MiB is refused";
  if (bus->calls->len >= CALLS_MAX)
    return "too many calls wait for their answer";
  return NULL;
}

/* GDBus has checked the names and the types. */
static void
on_method (GDBusConnection *connection, const char *sender, const char *path, const char *interface, const char *method,
           GVariant *parameters, GDBusMethodInvocation *invocation, gpointer user_data)
{
  HfVmstateBus *bus = user_data;
  g_autoptr (GVariant) data = strcmp (method, load_method.name) == 0 ? g_variant_get_child_value (parameters, 0) : NULL;
  const char *why = refuse_call (bus, sender, data ? g_variant_get_size (data) : 0);
  HfVmstateCall *call;

  if (why) {
    g_dbus_method_invocation_return_error_literal (invocation, G_DBUS_ERROR, G_DBUS_ERROR_LIMITS_EXCEEDED, why);
    return;
  }
  call = g_new0 (HfVmstateCall, 1);
  call->bus = bus;
  call->invocation = invocation;
  call->data = data ? g_variant_get_data_as_bytes (data) : NULL;
  g_ptr_array_add (bus->calls, call);
  g_dbus_connection_call (connection, BUS_NAME, BUS_PATH, BUS_NAME, "GetConnectionUnixProcessID", g_variant_new ("(s)", sender),
                          G_VARIANT_TYPE ("(u)"), G_DBUS_CALL_FLAGS_NONE, PID_MS, NULL, on_pid, call);
}

static GVariant *
on_property (GDBusConnection *connection, const char *sender, const char *path, const char *interface, const char *property,
             GError **error, gpointer user_data)
{
  HfVmstateBus *bus = user_data;

  return g_variant_new_string (bus->id);
}

static const GDBusInterfaceVTable vtable = { .method_call = on_method, .get_property = on_property };

/* ---- the connection ---- */

static void
tell (HfVmstateBus *bus, gboolean ready, const char *text)
{
  if (bus->told_text && bus->told_ready == ready && strcmp (bus->told_text, text) == 0)
    return;
  g_free (bus->told_text);
  bus->told_text = g_strdup (text);
  bus->told_ready = ready;
  bus->handlers->state (ready, bus->address, text, bus->user_data);
}

static void
end_attempt (HfVmstateBus *bus)
{
  g_clear_object (&bus->attempt);
  g_clear_handle_id (&bus->attempt_source, g_source_remove);
}

static void
on_flushed (GObject *source, GAsyncResult *result, gpointer user_data)
{
  g_dbus_connection_flush_finish (G_DBUS_CONNECTION (source), result, NULL);
  g_dbus_connection_close (G_DBUS_CONNECTION (source), NULL, NULL, NULL);
}

static gboolean
on_flush_late (gpointer user_data)
{
  g_dbus_connection_close (user_data, NULL, NULL, NULL);
  return G_SOURCE_REMOVE;
}

/* Of a connection on which answers may be under way, which closing would overtake. A bus that does not read them would keep the
   thread that waits for it: closing ends that too, and closing twice does no harm. */
static void
flush_and_close (GDBusConnection *connection)
{
  g_dbus_connection_flush (connection, NULL, on_flushed, NULL);
  g_timeout_add_full (G_PRIORITY_DEFAULT, FLUSH_MS, on_flush_late, g_object_ref (connection), g_object_unref);
}

/* NULL: there was none. */
static GDBusConnection *
take_connection (HfVmstateBus *bus)
{
  GDBusConnection *connection = g_steal_pointer (&bus->connection);

  bus->ready_since = 0;
  if (!connection)
    return NULL;
  g_signal_handlers_disconnect_by_data (connection, bus);
  if (bus->object)
    g_dbus_connection_unregister_object (connection, bus->object);
  bus->object = 0;
  return connection;
}

/* The attempt, or the connection, is over. */
static void
fail (HfVmstateBus *bus, const char *text)
{
  G_GNUC_UNUSED g_autoptr (HfVmstateBus) held = g_rc_box_acquire (bus);
  g_autoptr (GDBusConnection) connection = NULL;

  /* A bus that lets us in and throws us out at once is no reason to try again at once. */
  if (bus->ready_since && g_get_monotonic_time () - bus->ready_since >= RETRY_MAX_MS * G_TIME_SPAN_MILLISECOND)
    bus->delay_ms = 0;
  end_attempt (bus);
  connection = take_connection (bus);
  if (connection)
    g_dbus_connection_close (connection, NULL, NULL, NULL);
  connect_later (bus);
  tell (bus, FALSE, text);
}

/* What an attempt died of; the limit of its time looks like a cancellation. */
static void
fail_attempt (HfVmstateBus *bus, const GError *error)
{
  gboolean late = g_error_matches (error, G_IO_ERROR, G_IO_ERROR_CANCELLED);

  fail (bus, late ? "the message bus does not answer" : error->message);
}

static void
on_closed (GDBusConnection *connection, gboolean remote, GError *error, gpointer user_data)
{
  fail (user_data, error ? error->message : "the message bus has closed the connection");
}

static void
on_name (GObject *source, GAsyncResult *result, gpointer user_data)
{
  g_autoptr (HfVmstateBus) bus = user_data;
  g_autoptr (GError) error = NULL;
  g_autoptr (GVariant) answer = g_dbus_connection_call_finish (G_DBUS_CONNECTION (source), result, &error);
  guint32 code = 0;

  /* Of a connection that was given up. */
  if (bus->connection != G_DBUS_CONNECTION (source))
    return;
  if (!answer) {
    fail_attempt (bus, error);
    return;
  }
  g_variant_get (answer, "(u)", &code);
  if (code != REQUEST_NAME_OWNER && code != REQUEST_NAME_IN_QUEUE) {
    fail (bus, "the message bus does not give us the name " VMSTATE_NAME);
    return;
  }
  end_attempt (bus);
  bus->ready_since = g_get_monotonic_time ();
  tell (bus, TRUE, "connected");
}

/* On GDBus' thread. It keeps without bound what a bus does not read: who calls on and on is not heard until some of its answers
   are written. */
static GDBusMessage *
bound_answers (GDBusConnection *connection, GDBusMessage *message, gboolean incoming, gpointer user_data)
{
  GDBusMessageType type = g_dbus_message_get_message_type (message);
  gint *n_owed = user_data;

  if (incoming && type == G_DBUS_MESSAGE_TYPE_METHOD_CALL
      && !(g_dbus_message_get_flags (message) & G_DBUS_MESSAGE_FLAGS_NO_REPLY_EXPECTED)) {
    if (*n_owed >= OWED_MAX) {
      g_object_unref (message);
      return NULL;
    }
    ++*n_owed;
  } else if (!incoming && *n_owed > 0 && (type == G_DBUS_MESSAGE_TYPE_METHOD_RETURN || type == G_DBUS_MESSAGE_TYPE_ERROR)) {
    --*n_owed;
  }
  return message;
}

static void
on_connection (GObject *source, GAsyncResult *result, gpointer user_data)
{
  g_autoptr (HfVmstateBus) bus = user_data;
  g_autoptr (GError) error = NULL;
  g_autoptr (GDBusConnection) connection = g_dbus_connection_new_for_address_finish (result, &error);

  if (bus->freed) {
    if (connection)
      g_dbus_connection_close (connection, NULL, NULL, NULL);
    return;
  }
  if (!connection) {
    fail_attempt (bus, error);
    return;
  }
  g_dbus_connection_set_exit_on_close (connection, FALSE);
  g_dbus_connection_add_filter (connection, bound_answers, g_new0 (gint, 1), g_free);
  bus->connection = g_steal_pointer (&connection);
  g_signal_connect (bus->connection, "closed", G_CALLBACK (on_closed), bus);
  bus->object = g_dbus_connection_register_object (bus->connection, VMSTATE_PATH, &vmstate_interface, &vtable, bus, NULL, &error);
  if (!bus->object) {
    fail_attempt (bus, error);
    return;
  }
  /* Flags 0: wait in the queue behind other helpers, and give the name to nobody. A connection that was closed before we listened
     for it makes this fail. */
  g_dbus_connection_call (bus->connection, BUS_NAME, BUS_PATH, BUS_NAME, "RequestName", g_variant_new ("(su)", VMSTATE_NAME, 0),
                          G_VARIANT_TYPE ("(u)"), G_DBUS_CALL_FLAGS_NONE, ATTEMPT_MS, bus->attempt, on_name,
                          g_rc_box_acquire (bus));
}

static gboolean
on_attempt_late (gpointer user_data)
{
  HfVmstateBus *bus = user_data;

  bus->attempt_source = 0;
  g_cancellable_cancel (bus->attempt);
  return G_SOURCE_REMOVE;
}

static gboolean
on_retry (gpointer user_data)
{
  HfVmstateBus *bus = user_data;

  bus->retry_source = 0;
  bus->attempt = g_cancellable_new ();
  bus->attempt_source = g_timeout_add (ATTEMPT_MS, on_attempt_late, bus);
  g_dbus_connection_new_for_address (
      bus->address, G_DBUS_CONNECTION_FLAGS_AUTHENTICATION_CLIENT | G_DBUS_CONNECTION_FLAGS_MESSAGE_BUS_CONNECTION, NULL,
      bus->attempt, on_connection, g_rc_box_acquire (bus));
  return G_SOURCE_REMOVE;
}

static void
connect_later (HfVmstateBus *bus)
{
  bus->retry_source = g_timeout_add (bus->delay_ms, on_retry, bus);
  bus->delay_ms = CLAMP (bus->delay_ms * 2, RETRY_FIRST_MS, RETRY_MAX_MS);
}

/* ---- the public part ---- */

HfVmstateBus *
hf_vmstate_bus_new (const char *address, const char *id, const HfVmstateHandlers *handlers, gpointer user_data)
{
  HfVmstateBus *bus = g_rc_box_new0 (HfVmstateBus);

  bus->address = g_strdup (address);
  bus->id = g_strdup (id);
  bus->handlers = handlers;
  bus->user_data = user_data;
  bus->calls = g_ptr_array_new ();
  connect_later (bus);
  return bus;
}

/* Answers what waits, and gives up bus. Returns its connection, or NULL. */
static GDBusConnection *
dissolve (HfVmstateBus *bus)
{
  GDBusConnection *connection;

  bus->freed = TRUE;
  for (guint i = 0; i < bus->calls->len; i++) {
    HfVmstateCall *call = g_ptr_array_index (bus->calls, i);

    answer_error (call, "holdfast has left the message bus");
    call->bus = NULL;
  }
  g_ptr_array_set_size (bus->calls, 0);
  g_clear_handle_id (&bus->retry_source, g_source_remove);
  if (bus->attempt)
    g_cancellable_cancel (bus->attempt);
  end_attempt (bus);
  connection = take_connection (bus);
  bus_unref (bus);
  return connection;
}

void
hf_vmstate_bus_free (HfVmstateBus *bus)
{
  g_autoptr (GDBusConnection) connection = bus ? dissolve (bus) : NULL;

  if (connection)
    flush_and_close (connection);
}

static void
set_true (GObject *source, GAsyncResult *result, gpointer user_data)
{
  *(gboolean *)user_data = TRUE;
}

static gboolean
on_end_late (gpointer user_data)
{
  *(gboolean *)user_data = TRUE;
  return G_SOURCE_REMOVE;
}

void
hf_vmstate_bus_free_flushed (HfVmstateBus *bus, guint timeout_ms)
{
  g_autoptr (GDBusConnection) connection = bus ? dissolve (bus) : NULL;
  g_autoptr (GMainContext) context = NULL;
  g_autoptr (GSource) timer = NULL;
  gboolean ended = FALSE;

  if (!connection)
    return;
  /* Of its own: nothing else of the program may run in here. After the timer it is never run again, so that a flush that comes
     back then finds nobody. */
  context = g_main_context_new ();
  timer = g_timeout_source_new (timeout_ms);
  g_source_set_callback (timer, on_end_late, &ended, NULL);
  g_source_attach (timer, context);
  g_main_context_push_thread_default (context);
  g_dbus_connection_flush (connection, NULL, set_true, &ended);
  while (!ended)
    g_main_context_iteration (context, TRUE);
  g_main_context_pop_thread_default (context);
  g_source_destroy (timer);
  g_dbus_connection_close (connection, NULL, NULL, NULL);
}

const char *
hf_vmstate_bus_get_address (HfVmstateBus *bus)
{
  return bus->address;
}
