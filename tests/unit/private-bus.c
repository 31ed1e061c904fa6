/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns: the daemon and its folder. Thread: main.
 *
 * Theory of operation: dbus-daemon prints its address when it listens, so reading that line is waiting for it.
 */
#include "config.h"

#include "private-bus.h"

#include <glib/gstdio.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#define TICK_MS 20

static const char config[] = "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\"\n"
                             " \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">\n"
                             "<busconfig><type>session</type><listen>%s</listen><policy context=\"default\">\n"
                             "<allow send_destination=\"*\" eavesdrop=\"true\"/><allow eavesdrop=\"true\"/><allow own=\"*\"/>\n"
                             "</policy></busconfig>\n";

static void
set_up_child (gpointer user_data)
{
  /* A test that was aborted leaves nothing behind. */
  prctl (PR_SET_PDEATHSIG, SIGKILL);
}

GSubprocess *
private_bus_spawn (const char *const *argv, GSubprocessFlags flags, int fd)
{
  g_autoptr (GSubprocessLauncher) launcher = g_subprocess_launcher_new (flags);
  g_autoptr (GError) error = NULL;
  GSubprocess *process;

  g_subprocess_launcher_set_child_setup (launcher, set_up_child, NULL, NULL);
  if (fd >= 0)
    g_subprocess_launcher_take_fd (launcher, fd, 3);
  process = g_subprocess_launcher_spawnv (launcher, argv, &error);
  g_assert_no_error (error);
  return process;
}

void
private_bus_init (PrivateBus *bus)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *text = NULL;
  g_autofree char *file = NULL;

  *bus = (PrivateBus){ 0 };
  bus->dir = g_dir_make_tmp ("holdfast-bus-XXXXXX", &error);
  g_assert_no_error (error);
  bus->address = g_strdup_printf ("unix:path=%s/bus", bus->dir);
  text = g_strdup_printf (config, bus->address);
  file = g_build_filename (bus->dir, "config", NULL);
  g_file_set_contents (file, text, -1, &error);
  g_assert_no_error (error);
}

void
private_bus_start (PrivateBus *bus)
{
  g_autofree char *file = g_strdup_printf ("--config-file=%s/config", bus->dir);
  const char *const argv[] = { "dbus-daemon", file, "--nofork", "--nopidfile", "--nosyslog", "--print-address", NULL };
  char first = 0;

  bus->daemon = private_bus_spawn (argv, G_SUBPROCESS_FLAGS_STDOUT_PIPE, -1);
  g_assert_cmpint (g_input_stream_read (g_subprocess_get_stdout_pipe (bus->daemon), &first, 1, NULL, NULL), ==, 1);
}

void
private_bus_stop (PrivateBus *bus)
{
  g_autofree char *path = g_build_filename (bus->dir, "bus", NULL);

  g_subprocess_force_exit (bus->daemon);
  g_subprocess_wait (bus->daemon, NULL, NULL);
  g_clear_object (&bus->daemon);
  g_unlink (path);
}

void
private_bus_clear (PrivateBus *bus)
{
  g_autofree char *file = g_build_filename (bus->dir, "config", NULL);

  if (bus->daemon)
    private_bus_stop (bus);
  g_unlink (file);
  g_assert_cmpint (g_rmdir (bus->dir), ==, 0);
  g_free (bus->dir);
  g_free (bus->address);
}

GDBusConnection *
private_bus_connect (PrivateBus *bus)
{
  g_autoptr (GError) error = NULL;
  GDBusConnection *connection = g_dbus_connection_new_for_address_sync (
      bus->address, G_DBUS_CONNECTION_FLAGS_AUTHENTICATION_CLIENT | G_DBUS_CONNECTION_FLAGS_MESSAGE_BUS_CONNECTION, NULL, NULL,
      &error);

  g_assert_no_error (error);
  return connection;
}

static gboolean
on_tick (gpointer user_data)
{
  return G_SOURCE_CONTINUE;
}

void
private_bus_turn (gint64 end)
{
  guint tick = g_timeout_add (TICK_MS, on_tick, NULL);

  g_main_context_iteration (NULL, TRUE);
  g_source_remove (tick);
  if (g_get_monotonic_time () > end)
    g_error ("what the test waits for did not happen");
}

static void
on_called (GObject *source, GAsyncResult *result, gpointer user_data)
{
  *(GAsyncResult **)user_data = g_object_ref (result);
}

GVariant *
private_bus_call (GDBusConnection *connection, const char *name, const char *path, const char *interface, const char *method,
                  GVariant *parameters, GError **error)
{
  g_autoptr (GAsyncResult) result = NULL;

  g_dbus_connection_call (connection, name, path, interface, method, parameters, NULL, G_DBUS_CALL_FLAGS_NONE, -1, NULL,
                          on_called, &result);
  WAIT_UNTIL (result);
  return g_dbus_connection_call_finish (connection, result, error);
}
