/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A real dbus-daemon of the test's own, in a folder of its own, that ends with the test. Thread: main; what waits runs the
 * default main context, so that services of the test's own process answer, and ends the test after a limit.
 */

#include <gio/gio.h>

typedef struct {
  char *dir;
  char *address; /* of the bus, which is there after private_bus_start */
  GSubprocess *daemon;
} PrivateBus;

void private_bus_init (PrivateBus *bus);
void private_bus_start (PrivateBus *bus);
/* By SIGKILL, as a crash. */
void private_bus_stop (PrivateBus *bus);
void private_bus_clear (PrivateBus *bus);

GDBusConnection *private_bus_connect (PrivateBus *bus);
/* Takes over parameters, which may be floating. */
GVariant *private_bus_call (GDBusConnection *connection, const char *name, const char *path, const char *interface,
                            const char *method, GVariant *parameters, GError **error);

/* A program that ends with the test. fd: becomes its descriptor 3 and is closed here; -1: none. */
GSubprocess *private_bus_spawn (const char *const *argv, GSubprocessFlags flags, int fd);

/* One turn of the default main context, at most a moment; fails the test when end is past. */
void private_bus_turn (gint64 end);
#define WAIT_LIMIT_US (20 * G_USEC_PER_SEC)
#define WAIT_UNTIL(condition)                                                                                                    \
  do {                                                                                                                           \
    gint64 wait_end = g_get_monotonic_time () + WAIT_LIMIT_US;                                                                   \
    while (!(condition))                                                                                                         \
      private_bus_turn (wait_end);                                                                                               \
  } while (0)
