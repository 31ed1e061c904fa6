/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns: tables for people. Thread: any; pure.
 *
 * Theory of operation: rows are collected as printable strings and written when all widths are known. The last column is not
 * padded.
 */
#include "config.h"

#include "cli/cli.h"

struct _HfTable {
  guint n_columns;
  GPtrArray *rows; /* GStrv, the first is the headings */
};

HfTable *
hf_table_new (guint n_columns, const char *const *headings)
{
  HfTable *table = g_new0 (HfTable, 1);

  table->n_columns = n_columns;
  table->rows = g_ptr_array_new_with_free_func ((GDestroyNotify)g_strfreev);
  hf_table_add (table, headings);
  return table;
}

void
hf_table_free (HfTable *table)
{
  if (!table)
    return;
  g_ptr_array_unref (table->rows);
  g_free (table);
}

void
hf_table_add (HfTable *table, const char *const *cells)
{
  char **row = g_new0 (char *, table->n_columns + 1);

  for (guint i = 0; i < table->n_columns; i++)
    row[i] = cells[i] ? hf_printable (cells[i]) : g_strdup ("-");
  g_ptr_array_add (table->rows, row);
}

void
hf_table_print (HfTable *table, const char *indent, GString *text)
{
  g_autofree glong *widths = g_new0 (glong, table->n_columns);

  for (guint r = 0; r < table->rows->len; r++) {
    char **row = table->rows->pdata[r];
    for (guint i = 0; i < table->n_columns; i++)
      widths[i] = MAX (widths[i], g_utf8_strlen (row[i], -1));
  }
  for (guint r = 0; r < table->rows->len; r++) {
    char **row = table->rows->pdata[r];
    g_string_append (text, indent);
    for (guint i = 0; i + 1 < table->n_columns; i++)
      g_string_append_printf (text, "%s%*s", row[i], (int)(widths[i] - g_utf8_strlen (row[i], -1) + 2), "");
    g_string_append_printf (text, "%s\n", row[table->n_columns - 1]);
  }
}

static void
print_reservation (const HfPrObservation *observation, GString *text)
{
  if (!observation->reserved)
    g_string_append (text, "no reservation");
  else if (hf_pr_type_is_all_registrants (observation->type))
    g_string_append_printf (text, "reservation type %u (%s), held by every registrant", observation->type,
                            hf_pr_type_to_string (observation->type));
  else
    g_string_append_printf (text, "reservation type %u (%s), held by 0x%" G_GINT64_MODIFIER "x", observation->type,
                            hf_pr_type_to_string (observation->type), observation->holder_key);
}

void
hf_table_print_observation (const char *label, const HfPrObservation *observation, HfWhoseFunc whose, void *data, GString *text)
{
  static const char *const headings[] = { "KEY", "HOLDER", "WHOSE", "I_T NEXUS" };
  static const char *const holder[] = { "?", "no", "yes" };
  g_autoptr (HfTable) table = NULL;

  g_string_append_printf (text, "  %s: generation %u, ", label, observation->generation);
  print_reservation (observation, text);
  if (observation->n_keys == 0) {
    g_string_append (text, ", no registrations\n");
    return;
  }
  g_string_append_c (text, '\n');
  table = hf_table_new (G_N_ELEMENTS (headings), headings);
  for (guint i = 0; i < observation->n_keys; i++) {
    g_autofree char *key = g_strdup_printf ("0x%" G_GINT64_MODIFIER "x", observation->keys[i]);
    g_autofree char *nexus = observation->full ? hf_nexus_to_string (&observation->registrants[i].nexus) : NULL;
    const char *ours = whose (observation, i, data);
    const char *cells[] = { key, holder[hf_observation_is_holder (observation, i) + 1], ours ? ours : "?", nexus ? nexus : "?" };
    hf_table_add (table, cells);
  }
  hf_table_print (table, "    ", text);
}
