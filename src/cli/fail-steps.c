/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The steps that HOLDFAST_FAIL may name in this program. Owns: the lists. Thread: main.
 */
#include "config.h"

#include "base/fail.h"
#include "cli/cli.h"

/* Of verbs that are no move. */
static const char *const of_verbs[] = { "status", "save", "selftest", "judge", "capacity", "read", "write" };

/* Of files with migration state: what is done to them as a whole, and the single transfers (stream/fault.h). */
static const char *const of_files[] = { "stream-create", "stream-sync",     "stream-close",
                                        "stream-rename", "stream-sync-dir", "stream-status" };
static const char *const transfers[] = { "stream-read", "stream-write", NULL };

void
hf_set_fail_steps (void)
{
  static GPtrArray *commands, *others;

  if (commands)
    return;
  commands = g_ptr_array_new ();
  others = g_ptr_array_new ();
  for (guint i = 0; hf_move_steps ()[i]; i++)
    g_ptr_array_add (g_str_has_prefix (hf_move_steps ()[i], "journal-") ? others : commands, (gpointer)hf_move_steps ()[i]);
  for (guint i = 0; i < G_N_ELEMENTS (of_verbs); i++)
    g_ptr_array_add (commands, (gpointer)of_verbs[i]);
  for (guint i = 0; hf_pr_sub_verb_name (i); i++)
    g_ptr_array_add (commands, (gpointer)hf_pr_sub_verb_name (i));
  for (guint i = 0; i < G_N_ELEMENTS (of_files); i++)
    g_ptr_array_add (others, (gpointer)of_files[i]);
  g_ptr_array_add (commands, NULL);
  g_ptr_array_add (others, NULL);
  hf_fail_set_steps ((const char *const *)commands->pdata, (const char *const *)others->pdata, transfers);
}
