/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns: nothing. Pure; thread: any.
 *
 * Theory of operation: one pass, and what was put in is not looked at again. A value that does not fit is refused, not escaped:
 * an escaped name would be the name of another file than the one that the administrator meant, and perhaps of another VM.
 */
#include "config.h"

#include "prhelper/template.h"

#include <gio/gio.h>
#include <string.h>

#define SEPARATORS "/,;:=%"

static gboolean
is_word (char letter)
{
  return letter && strchr ("pnu%", letter);
}

gboolean
hf_template_is_template (const char *text)
{
  for (const char *at = strchr (text, '%'); at && at[1]; at = strchr (at + 2, '%'))
    if (at[1] != '%' && is_word (at[1]))
      return TRUE;
  return FALSE;
}

gboolean
hf_template_check (const char *text, GError **error)
{
  for (const char *at = strchr (text, '%'); at; at = strchr (at + 2, '%')) {
    g_autofree char *word = NULL;

    if (is_word (at[1]))
      continue;
    /* A whole character, not the first byte of one; text may end within it. */
    word = g_utf8_make_valid (at + 1, (gssize)strnlen (at + 1, (gsize)(g_utf8_next_char (at + 1) - (at + 1))));
    g_set_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT, "%s: \"%%%s\" is not known (only %%p, %%u, %%n and %%%%)", text,
                 word);
    return FALSE;
  }
  return TRUE;
}

/* Why value may not stand in an address; NULL if it may. */
static const char *
refuse_value (const char *value)
{
  if (!value)
    return "is not known";
  if (!*value)
    return "is empty";
  if (strcmp (value, ".") == 0 || strcmp (value, "..") == 0)
    return "is a folder";
  if (!g_utf8_validate (value, -1, NULL))
    return "is not UTF-8";
  for (const char *at = value; *at; at = g_utf8_next_char (at))
    if (g_unichar_iscntrl (g_utf8_get_char (at)))
      return "has a control character";
  return strpbrk (value, SEPARATORS) ? "has one of " SEPARATORS " in it" : NULL;
}

static gboolean
append (GString *address, const char *text, const char *what, const char *value, GError **error)
{
  const char *why = refuse_value (value);

  if (why) {
    g_set_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT, "%s: the %s of the VM %s", text, what, why);
    return FALSE;
  }
  g_string_append (address, value);
  return TRUE;
}

char *
hf_template_expand (const char *text, pid_t pid, const char *name, const char *uuid, GError **error)
{
  g_autofree char *number = pid > 0 ? g_strdup_printf ("%d", (int)pid) : NULL;
  const struct {
    char letter;
    const char *what, *value;
  } values[] = { { 'p', "process id", number }, { 'n', "name", name }, { 'u', "uuid", uuid } };
  g_autoptr (GString) address = g_string_new (NULL);

  if (!hf_template_check (text, error))
    return NULL;
  for (const char *at = text; *at; at++) {
    if (*at != '%') {
      g_string_append_c (address, *at);
      continue;
    }
    at++;
    if (*at == '%')
      g_string_append_c (address, '%');
    for (guint i = 0; i < G_N_ELEMENTS (values); i++)
      if (*at == values[i].letter && !append (address, text, values[i].what, values[i].value, error))
        return NULL;
  }
  return g_string_free (g_steal_pointer (&address), FALSE);
}
