/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The steps that HOLDFAST_FAIL may name in this program. Owns: the two lists. Thread: main.
 */
#include "config.h"

#include "base/fail.h"
#include "cli/cli.h"

/* Of verbs that are no move. */
static const char *const of_verbs[] = { "status", "save", "selftest", "judge", "capacity", "read", "write" };

void
hf_set_fail_steps (void)
{
  static GPtrArray *commands, *journal;

  if (commands)
    return;
  commands = g_ptr_array_new ();
  journal = g_ptr_array_new ();
  for (guint i = 0; hf_move_steps ()[i]; i++)
    g_ptr_array_add (g_str_has_prefix (hf_move_steps ()[i], "journal-") ? journal : commands, (gpointer)hf_move_steps ()[i]);
  for (guint i = 0; i < G_N_ELEMENTS (of_verbs); i++)
    g_ptr_array_add (commands, (gpointer)of_verbs[i]);
  for (guint i = 0; hf_pr_sub_verb_name (i); i++)
    g_ptr_array_add (commands, (gpointer)hf_pr_sub_verb_name (i));
  g_ptr_array_add (commands, NULL);
  g_ptr_array_add (journal, NULL);
  hf_fail_set_steps ((const char *const *)commands->pdata, (const char *const *)journal->pdata);
}
