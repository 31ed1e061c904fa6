/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Two threads that count in one variable; with the word "locked", under a GMutex. Shows that the thread sanitizer finds a race,
 * and that it understands GLib's locks (tsan-glib.c), before what it does not find counts.
 */

#include <glib.h>

#define ROUNDS 1000

static GMutex lock;
static gboolean locked;
static guint count;

static gpointer
add (gpointer data)
{
  for (guint i = 0; i < ROUNDS; i++) {
    if (locked)
      g_mutex_lock (&lock);
    count++;
    if (locked)
      g_mutex_unlock (&lock);
  }
  return NULL;
}

int
main (int argc, char **argv)
{
  GThread *thread;

  locked = argc > 1 && g_str_equal (argv[1], "locked");
  thread = g_thread_new ("racer", add, NULL);
  add (NULL);
  g_thread_join (thread);
  return locked && count != 2 * ROUNDS;
}
