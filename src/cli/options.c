/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns: the options that every verb takes, and the parsing of numbers. Thread: main.
 *
 * Theory of operation: GOption stores strings, which are checked here, so that a number out of range or with rubbish behind it
 * has one kind of message. Help is asked for as an option of our own, because GOption's prints and exits, which a batch must
 * survive.
 */
#include "config.h"

#include "cli/cli.h"

#include <string.h>

#define ISID_MAX ((G_GUINT64_CONSTANT (1) << 48) - 1)
/* A day: longer than any deadline that makes sense, and far from an overflow of microseconds. */
#define TIMEOUT_MAX_MS 86400000

void
hf_options_clear (HfOptions *options)
{
  g_clear_pointer (&options->initiator_name, g_free);
  g_clear_pointer (&options->state_dir, g_free);
  memset (options, 0, sizeof *options);
}

void
hf_options_copy (const HfOptions *options, HfOptions *ret)
{
  *ret = *options;
  ret->initiator_name = g_strdup (options->initiator_name);
  ret->state_dir = g_strdup (options->state_dir);
}

gboolean
hf_parse_hex (const char *option, const char *text, guint64 max, guint64 *ret, GError **error)
{
  const char *digits = text;
  guint64 value = 0;

  if (digits[0] == '0' && (digits[1] == 'x' || digits[1] == 'X'))
    digits += 2;
  if (*digits == '\0')
    return hf_usage_error (error, "%s wants a hexadecimal number, not \"%s\"", option, text);
  for (; *digits; digits++) {
    if (!g_ascii_isxdigit (*digits))
      return hf_usage_error (error, "%s wants a hexadecimal number, not \"%s\"", option, text);
    if (value > max >> 4)
      return hf_usage_error (error, "%s is at most 0x%" G_GINT64_MODIFIER "x, not \"%s\"", option, max, text);
    value = value << 4 | (guint64)g_ascii_xdigit_value (*digits);
  }
  if (value > max)
    return hf_usage_error (error, "%s is at most 0x%" G_GINT64_MODIFIER "x, not \"%s\"", option, max, text);
  *ret = value;
  return TRUE;
}

/* What GOption found, before it is checked. */
typedef struct {
  char *initiator_name, *isid, *timeout, *state_dir;
  gboolean json, help, version;
  char **rest;
} RawOptions;

static void
raw_options_clear (RawOptions *raw)
{
  g_free (raw->initiator_name);
  g_free (raw->isid);
  g_free (raw->timeout);
  g_free (raw->state_dir);
  g_strfreev (raw->rest);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (RawOptions, raw_options_clear)

static gboolean
take_options (HfOptions *options, RawOptions *raw, GError **error)
{
  if (raw->initiator_name) {
    if (*raw->initiator_name == '\0' || strlen (raw->initiator_name) > 223)
      return hf_usage_error (error, "--initiator-name wants an iSCSI name of 1 to 223 bytes");
    g_free (options->initiator_name);
    options->initiator_name = g_steal_pointer (&raw->initiator_name);
  }
  if (raw->isid) {
    if (!hf_parse_hex ("--isid", raw->isid, ISID_MAX, &options->isid, error))
      return FALSE;
    options->has_isid = TRUE;
  }
  if (raw->timeout) {
    guint64 timeout_ms;
    if (!g_ascii_string_to_unsigned (raw->timeout, 10, 1, TIMEOUT_MAX_MS, &timeout_ms, NULL))
      return hf_usage_error (error, "--timeout wants 1 to %d milliseconds, not \"%s\"", TIMEOUT_MAX_MS, raw->timeout);
    options->timeout_ms = (guint)timeout_ms;
  }
  if (raw->state_dir) {
    if (*raw->state_dir == '\0')
      return hf_usage_error (error, "--state-dir wants a folder");
    g_free (options->state_dir);
    options->state_dir = g_steal_pointer (&raw->state_dir);
  }
  if (raw->json)
    options->json = TRUE;
  return TRUE;
}

HfParse
hf_options_parse (HfOptions *options, const HfOptionSpec *spec, char *const *argv, GString *ret_text, char ***ret_rest,
                  GError **error)
{
  g_auto (RawOptions) raw = { 0 };
  const GOptionEntry common[] = {
    { "initiator-name", 0, 0, G_OPTION_ARG_STRING, &raw.initiator_name, "The iSCSI name to log in with", "IQN" },
    { "isid", 0, 0, G_OPTION_ARG_STRING, &raw.isid, "The ISID to log in with, up to 12 digits", "HEX" },
    { "timeout", 0, 0, G_OPTION_ARG_STRING, &raw.timeout, "Deadline of a login and of each command (30000)", "MS" },
    { "state-dir", 0, 0, G_OPTION_ARG_FILENAME, &raw.state_dir, "Where the journal of a move lives", "DIR" },
    { "json", 0, 0, G_OPTION_ARG_NONE, &raw.json, "Print one line of JSON", NULL },
    { "help", 'h', 0, G_OPTION_ARG_NONE, &raw.help, "Print this text", NULL },
    { "version", 0, 0, G_OPTION_ARG_NONE, &raw.version, "Print the version", NULL },
    { G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &raw.rest, NULL, NULL },
    { NULL },
  };
  g_autoptr (GOptionContext) context = g_option_context_new (spec->synopsis);
  g_auto (GStrv) words = g_strdupv ((char **)argv);
  g_autoptr (GError) failure = NULL;

  g_option_context_set_help_enabled (context, FALSE);
  g_option_context_set_strict_posix (context, spec->strict);
  g_option_context_set_summary (context, spec->summary);
  g_option_context_set_description (context, spec->description);
  if (spec->entries)
    g_option_context_add_main_entries (context, spec->entries, NULL);
  g_option_context_add_main_entries (context, common, NULL);
  if (!g_option_context_parse_strv (context, &words, &failure)) {
    hf_usage_error (error, "%s", failure->message);
    return HF_PARSE_ERROR;
  }
  if (raw.help) {
    g_autofree char *help = g_option_context_get_help (context, TRUE, NULL);
    g_string_append (ret_text, help);
    return HF_PARSE_DONE;
  }
  if (raw.version) {
    g_string_append (ret_text, PACKAGE_NAME " " PACKAGE_VERSION "\n");
    return HF_PARSE_DONE;
  }
  if (!take_options (options, &raw, error))
    return HF_PARSE_ERROR;
  *ret_rest = raw.rest ? g_steal_pointer (&raw.rest) : g_new0 (char *, 1);
  return HF_PARSE_OK;
}
