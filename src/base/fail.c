/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns the process' one list of failures to provoke, and the log of the points that were reached.
 *
 * Thread: any; one lock guards the list. The flag `armed` is read without it, so a program that has nothing to provoke pays one
 * load for each point.
 *
 * Theory of operation: a specification is parsed as a whole into a new list, which then replaces the old one, so a malformed one
 * changes nothing. At a point the first entry that matches and whose turn has come gives the action; every matching entry counts.
 */

#include "config.h"

#include "base/descriptors.h"
#include "base/fail.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

typedef enum { ARGUMENT_NONE, ARGUMENT_SENSE, ARGUMENT_ERRNO, ARGUMENT_MILLISECONDS, ARGUMENT_BYTES } ArgumentKind;

/* Where an action means something. */
enum { BEFORE_ONLY = 1 << 0, COMMAND_ONLY = 1 << 1, NO_COMMAND = 1 << 2, TRANSFER_ONLY = 1 << 3 };

static const struct {
  const char *name;
  ArgumentKind kind;
  guint where;
} actions[] = {
  [HF_FAIL_NOTHING] = { "", ARGUMENT_NONE, 0 },
  [HF_FAIL_STOP] = { "stop", ARGUMENT_NONE, 0 },
  [HF_FAIL_KILL] = { "kill", ARGUMENT_NONE, 0 },
  [HF_FAIL_LINK] = { "link", ARGUMENT_NONE, COMMAND_ONLY },
  [HF_FAIL_TIMEOUT] = { "timeout", ARGUMENT_NONE, COMMAND_ONLY },
  [HF_FAIL_UNIT_ATTENTION] = { "unit-attention", ARGUMENT_SENSE, COMMAND_ONLY | BEFORE_ONLY },
  [HF_FAIL_BUSY] = { "busy", ARGUMENT_NONE, COMMAND_ONLY | BEFORE_ONLY },
  [HF_FAIL_TASK_SET_FULL] = { "task-set-full", ARGUMENT_NONE, COMMAND_ONLY | BEFORE_ONLY },
  [HF_FAIL_CONFLICT] = { "conflict", ARGUMENT_NONE, COMMAND_ONLY | BEFORE_ONLY },
  [HF_FAIL_ERROR] = { "error", ARGUMENT_ERRNO, NO_COMMAND },
  [HF_FAIL_DELAY] = { "delay", ARGUMENT_MILLISECONDS, 0 },
  [HF_FAIL_SHORT] = { "short", ARGUMENT_BYTES, TRANSFER_ONLY | BEFORE_ONLY },
  [HF_FAIL_ZERO] = { "zero", ARGUMENT_NONE, TRANSFER_ONLY | BEFORE_ONLY },
};
G_STATIC_ASSERT (G_N_ELEMENTS (actions) == HF_N_FAIL_ACTIONS);

/* What a full, slow or forbidden disk gives. */
static const struct {
  const char *name;
  int value;
} errors[] = {
  { "EIO", EIO },       { "ENOSPC", ENOSPC }, { "EDQUOT", EDQUOT }, { "EROFS", EROFS },   { "EACCES", EACCES },
  { "EPERM", EPERM },   { "ENOENT", ENOENT }, { "EMFILE", EMFILE }, { "ENOMEM", ENOMEM }, { "EINTR", EINTR },
  { "EAGAIN", EAGAIN }, { "EFBIG", EFBIG },   { "EINVAL", EINVAL },
};

/* 2A/03, reservations preempted: what a VM that is fenced sees first. */
#define DEFAULT_SENSE 0x2a03
#define DELAY_MAX_MS 600000
#define EVERY_COMMAND "command"

typedef struct {
  char *when; /* "before" or "after" */
  char *step; /* "command" matches every SCSI command */
  guint turn; /* 0: every time */
  guint seen;
  HfFailAction action;
  guint argument;
} Entry;

static GMutex lock;
static GPtrArray *entries; /* of Entry; NULL: none */
static int log_fd = -1;
static gboolean initialised;
static const char *const *command_steps, *const *other_steps, *const *transfer_steps; /* NULL: not known */
static gint armed;                                                                    /* atomic: entries or a log are there */

static void
entry_free (gpointer data)
{
  Entry *entry = data;

  g_free (entry->when);
  g_free (entry->step);
  g_free (entry);
}

static gboolean
refuse (const char *text, const char *why, GError **error)
{
  g_set_error (error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE, "HOLDFAST_FAIL: \"%s\": %s", text, why);
  return FALSE;
}

static gboolean
parse_errno (const char *text, guint *ret)
{
  for (gsize i = 0; i < G_N_ELEMENTS (errors); i++)
    if (g_str_equal (text, errors[i].name)) {
      *ret = errors[i].value;
      return TRUE;
    }
  return FALSE;
}

static gboolean
parse_argument (ArgumentKind kind, const char *text, guint *ret)
{
  guint64 value = 0;

  switch (kind) {
  case ARGUMENT_NONE:
    return text == NULL;
  case ARGUMENT_SENSE:
    if (text && (strlen (text) != 4 || !g_ascii_string_to_unsigned (text, 16, 0, 0xffff, &value, NULL)))
      return FALSE;
    *ret = text ? value : DEFAULT_SENSE;
    return TRUE;
  case ARGUMENT_ERRNO:
    return parse_errno (text ?: "EIO", ret);
  case ARGUMENT_MILLISECONDS:
    if (!text || !g_ascii_string_to_unsigned (text, 10, 0, DELAY_MAX_MS, &value, NULL))
      return FALSE;
    *ret = value;
    return TRUE;
  case ARGUMENT_BYTES:
    if (text && !g_ascii_string_to_unsigned (text, 10, 1, G_MAXINT, &value, NULL))
      return FALSE;
    *ret = text ? value : 1;
    return TRUE;
  }
  return FALSE;
}

/* "delay:20" */
static gboolean
parse_action (Entry *entry, const char *text)
{
  g_auto (GStrv) words = g_strsplit (text, ":", 2);

  for (gsize i = HF_FAIL_NOTHING + 1; i < G_N_ELEMENTS (actions); i++)
    if (g_strcmp0 (words[0], actions[i].name) == 0) {
      entry->action = i;
      return parse_argument (actions[i].kind, words[1], &entry->argument);
    }
  return FALSE;
}

/* "before-register" */
static gboolean
parse_point (Entry *entry, const char *text)
{
  const char *dash = strchr (text, '-');

  if (!dash || !dash[1] || dash[1 + strspn (dash + 1, "abcdefghijklmnopqrstuvwxyz0123456789-")])
    return FALSE;
  entry->when = g_strndup (text, dash - text);
  entry->step = g_strdup (dash + 1);
  return g_str_equal (entry->when, "before") || g_str_equal (entry->when, "after");
}

/* A point that is never reached, and an action that is nothing there, would make a test pass that tests nothing. */
static gboolean
check_meaning (const Entry *entry, const char *text, GError **error)
{
  guint where = actions[entry->action].where;
  gboolean is_command, is_transfer;

  if ((where & BEFORE_ONLY) && !g_str_equal (entry->when, "before"))
    return refuse (text, "the action is one of before-STEP only", error);
  if (!command_steps)
    return TRUE;
  is_command = g_str_equal (entry->step, EVERY_COMMAND) || g_strv_contains (command_steps, entry->step);
  is_transfer = transfer_steps && g_strv_contains (transfer_steps, entry->step);
  if (!is_command && !is_transfer && !g_strv_contains (other_steps, entry->step))
    return refuse (text, "there is no such step", error);
  if (is_transfer && !g_str_equal (entry->when, "before"))
    return refuse (text, "a transfer has no point behind it", error);
  if ((where & COMMAND_ONLY) && !is_command)
    return refuse (text, "the action is one of SCSI commands only", error);
  if ((where & NO_COMMAND) && is_command)
    return refuse (text, "the action is none of SCSI commands", error);
  if ((where & TRANSFER_ONLY) && !is_transfer)
    return refuse (text, "the action is one of reads and writes only", error);
  return TRUE;
}

/* "before-register#2=link" */
static gboolean
parse_entry (Entry *entry, const char *text, GError **error)
{
  g_auto (GStrv) sides = g_strsplit (text, "=", 2);
  g_auto (GStrv) point = NULL;
  guint64 turn = 0;

  if (g_strv_length (sides) != 2)
    return refuse (text, "POINT[#N]=ACTION[:ARGUMENT] is expected", error);
  point = g_strsplit (sides[0], "#", 2);
  if (!point[0] || !parse_point (entry, point[0]))
    return refuse (text, "the point is not before-STEP or after-STEP", error);
  if (point[1] && !g_ascii_string_to_unsigned (point[1], 10, 1, G_MAXUINT, &turn, NULL))
    return refuse (text, "the number behind # is not 1 or more", error);
  entry->turn = turn;
  if (!parse_action (entry, sides[1]))
    return refuse (text, "the action is unknown or its argument is wrong", error);
  return check_meaning (entry, text, error);
}

static GPtrArray *
parse_specification (const char *specification, GError **error)
{
  g_autoptr (GPtrArray) list = g_ptr_array_new_with_free_func (entry_free);
  g_auto (GStrv) words = g_strsplit (specification ?: "", ",", -1);

  for (guint i = 0; words[i]; i++) {
    Entry *entry = g_new0 (Entry, 1);

    g_ptr_array_add (list, entry);
    if (!parse_entry (entry, words[i], error))
      return NULL;
  }
  return g_steal_pointer (&list);
}

void
hf_fail_set_steps (const char *const *commands, const char *const *others, const char *const *transfers)
{
  g_autoptr (GMutexLocker) locker = g_mutex_locker_new (&lock);

  (void)locker;
  command_steps = commands;
  other_steps = others;
  transfer_steps = transfers;
}

static void
rearm (void)
{
  g_atomic_int_set (&armed, (entries && entries->len) || log_fd >= 0);
}

gboolean
hf_fail_set (const char *specification, GError **error)
{
  g_autoptr (GPtrArray) list = parse_specification (specification, error);
  g_autoptr (GMutexLocker) locker = g_mutex_locker_new (&lock);

  (void)locker;
  initialised = TRUE;
  if (!list)
    return FALSE;
  g_clear_pointer (&entries, g_ptr_array_unref);
  entries = g_steal_pointer (&list);
  rearm ();
  return TRUE;
}

static gboolean
open_log (const char *path, GError **error)
{
  g_autoptr (GMutexLocker) locker = g_mutex_locker_new (&lock);
  int fd;

  (void)locker;
  if (!path || !*path || log_fd >= 0)
    return TRUE;
  fd = open (path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0600);
  fd = hf_descriptor_above_standard (fd);
  if (fd < 0) {
    g_set_error (error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE, "HOLDFAST_FAIL_LOG: %s: %s", path, g_strerror (errno));
    return FALSE;
  }
  log_fd = fd;
  rearm ();
  return TRUE;
}

gboolean
hf_fail_init (GError **error)
{
  return hf_fail_set (g_getenv ("HOLDFAST_FAIL"), error) && open_log (g_getenv ("HOLDFAST_FAIL_LOG"), error);
}

void
hf_fail_init_once (void)
{
  g_autoptr (GError) error = NULL;
  gboolean done;

  g_mutex_lock (&lock);
  done = initialised;
  initialised = TRUE;
  g_mutex_unlock (&lock);
  if (!done && !hf_fail_init (&error))
    g_warning ("%s; ignored", error->message);
}

/* One write for each line: several processes may share the file. */
static void
log_point (const char *when, const char *step)
{
  g_autofree char *line = g_strdup_printf ("%s-%s\n", when, step);
  gssize length = strlen (line);

  if (log_fd >= 0 && write (log_fd, line, length) != length)
    g_warning ("HOLDFAST_FAIL_LOG: a line could not be written");
}

static gboolean
matches (const Entry *entry, const char *when, const char *step, gboolean command)
{
  if (!g_str_equal (entry->when, when))
    return FALSE;
  return g_str_equal (entry->step, step) || (command && g_str_equal (entry->step, EVERY_COMMAND));
}

static HfFailAction
choose (const char *when, const char *step, gboolean command, guint *ret_argument)
{
  HfFailAction action = HF_FAIL_NOTHING;

  for (guint i = 0; entries && i < entries->len; i++) {
    Entry *entry = g_ptr_array_index (entries, i);

    if (!matches (entry, when, step, command))
      continue;
    entry->seen++;
    if (action == HF_FAIL_NOTHING && (entry->turn == 0 || entry->turn == entry->seen)) {
      action = entry->action;
      *ret_argument = entry->argument;
    }
  }
  return action;
}

HfFailAction
hf_fail_point (const char *when, const char *step, gboolean command, guint *ret_argument)
{
  HfFailAction action;
  guint argument = 0;

  if (!g_atomic_int_get (&armed))
    return HF_FAIL_NOTHING;
  g_mutex_lock (&lock);
  log_point (when, step);
  action = choose (when, step, command, &argument);
  g_mutex_unlock (&lock);

  if (ret_argument)
    *ret_argument = argument;
  if (action == HF_FAIL_DELAY)
    g_usleep (argument * (gulong)1000);
  else if (action == HF_FAIL_STOP)
    kill (getpid (), SIGSTOP);
  else if (action == HF_FAIL_KILL)
    kill (getpid (), SIGKILL);
  else
    return action;
  return HF_FAIL_NOTHING;
}
