/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns: the table of options. Thread: main.
 *
 * Theory of operation: getopt_long, because qemu-pr-helper's command line is read by it: abbreviations, "-kPATH" and "--socket
 * PATH" mean the same here. The command line is kept as a list of words and values; words that stand in it are left out of the
 * file, so the command line wins whatever the order. One table says what each word takes, its default, and its line of help.
 */
#include "config.h"

#include "prhelper/options.h"

#include <errno.h>
#include <getopt.h>
#include <grp.h>
#include <pwd.h>
#include <stddef.h>
#include <string.h>

#define CONFIG_DEFAULT "/etc/holdfast/pr-helper.conf"
#define CONFIG_GROUP "pr-helper"
#define TIMEOUT_MAX 86400000
#define CLIENTS_MAX 65536
#define FIRST_LONG_ONLY 256

typedef enum { TAKES_NOTHING, TAKES_STRING, TAKES_LIST, TAKES_NUMBER, TAKES_MODE, TAKES_SWITCH } Takes;

/* TAKES_SWITCH: the argument is "off|on", the words for FALSE and TRUE, in this order. */

typedef struct {
  const char *name;
  char letter;
  Takes takes;
  gsize offset; /* in HfHelperOptions; of a gboolean, char *, char **, guint, int, gboolean */
  guint max;    /* of TAKES_NUMBER, from 1; of TAKES_NOTHING: counted up to it */
  const char *argument, *help, *note;
} Word;

#define AT(member) offsetof (HfHelperOptions, member)
#define NOWHERE G_MAXSIZE

static const Word words[] = {
  { "help", 'h', TAKES_NOTHING, NOWHERE, 0, NULL, "display this help and exit", NULL },
  { "version", 'V', TAKES_NOTHING, NOWHERE, 0, NULL, "output version information and exit", NULL },
  { "daemon", 'd', TAKES_NOTHING, AT (daemon), 1, NULL, "run in the background", NULL },
  { "pidfile", 'f', TAKES_STRING, AT (pidfile), 0, "PATH", "PID file when running as a daemon",
    "(default '/var/run/holdfast-pr-helper.pid')" },
  { "socket", 'k', TAKES_STRING, AT (socket), 0, "PATH", "path to the unix socket",
    "(default '/var/run/holdfast-pr-helper.sock')" },
  { "trace", 'T', TAKES_LIST, AT (trace), 0, "[[enable=]PATTERN][,events=FILE][,file=FILE]", "trace events; 'help' lists them",
    NULL },
  { "user", 'u', TAKES_STRING, AT (user), 0, "USER", "user to drop privileges to", NULL },
  { "group", 'g', TAKES_STRING, AT (group), 0, "GROUP", "group to drop privileges to", NULL },
  { "verbose", 'v', TAKES_NOTHING, AT (verbose), 3, NULL, "log each PERSISTENT RESERVE OUT", NULL },
  { "quiet", 'q', TAKES_NOTHING, AT (quiet), 1, NULL, "log errors only", NULL },
  { "config", 0, TAKES_STRING, AT (config), 0, "FILE", "more options", "(default '" CONFIG_DEFAULT "', if it is there)" },
  { "strict", 0, TAKES_NOTHING, AT (strict), 1, NULL, "refuse PERSISTENT RESERVE OUT on read-only",
    "descriptors, as qemu-pr-helper does" },
  { "timeout", 0, TAKES_NUMBER, AT (timeout_ms), TIMEOUT_MAX, "MS", "of a command, then BUSY (default 30000)", NULL },
  { "request-timeout", 0, TAKES_NUMBER, AT (request_timeout_ms), TIMEOUT_MAX, "MS",
    "of a client for what it began (default 30000)", NULL },
  { "max-clients", 0, TAKES_NUMBER, AT (max_clients), CLIENTS_MAX, "N", "clients in total (default 4096)", NULL },
  { "max-clients-per-uid", 0, TAKES_NUMBER, AT (max_clients_per_uid), CLIENTS_MAX, "N",
    "clients of one user (default: 3/4 of them)", NULL },
  { "allow-uid", 0, TAKES_LIST, AT (allow_uid), 0, "USER", "only clients of this user; repeatable", NULL },
  { "allow-gid", 0, TAKES_LIST, AT (allow_gid), 0, "GROUP", "only clients of this group; repeatable", NULL },
  { "socket-mode", 0, TAKES_MODE, AT (socket_mode), 0, "MODE", "mode of the socket (default: by umask)", NULL },
  { "sandbox", 0, TAKES_SWITCH, AT (sandbox), 0, "off|on", "filter of system calls (default on)", NULL },
  { "device", 0, TAKES_LIST, AT (device), 0, "GLOB", "nodes to look for a VM's LUs; repeatable",
    "(default: those that its QEMU has open)" },
  { "shared-nexus", 0, TAKES_SWITCH, AT (share_nexus), 0, "refuse|allow", "a second VM on an LU (default refuse)", NULL },
  { "state-dir", 0, TAKES_STRING, AT (state_dir), 0, "DIR", "where the journal is kept",
    "(default /var/lib/holdfast, if it can be written)" },
  { "control", 0, TAKES_STRING, AT (control), 0, "PATH", "control socket (default: none)", NULL },
  { "metrics", 0, TAKES_STRING, AT (metrics), 0, "FILE", "write metrics there, for a textfile collector", NULL },
  { "vmstate-bus", 0, TAKES_LIST, AT (vmstate_bus), 0, "ADDRESS", "message bus of a VM's dbus-vmstate; repeatable;",
    "%p process id, %u uuid, %n name of the VM" },
  { "vmstate-id", 0, TAKES_STRING, AT (vmstate_id), 0, "ID", "the Id of dbus-vmstate (default holdfast)", NULL },
  { "qmp", 0, TAKES_LIST, AT (qmp), 0, "SOCKET", "monitor of a VM; repeatable; %p, %u, %n as above", NULL },
  { "on-change", 0, TAKES_SWITCH, AT (refuse_changes), 0, "adopt|refuse", "what Load does when the LU was changed",
    "since Save (default adopt)" },
  { "commit-warn", 0, TAKES_NUMBER, AT (commit_warn_s), 86400, "S", "log a take-over that waits so long (default 60)", NULL },
};
#define N_WORDS G_N_ELEMENTS (words)
#define WORD_HELP 0
#define WORD_VERSION 1
#define WORD_CONFIG 10

typedef struct {
  const Word *word;
  char *value;
} Setting;

static void
setting_clear (gpointer data)
{
  g_free (((Setting *)data)->value);
}

static gboolean
bad (const Word *word, const char *value, const char *wants, GError **error)
{
  g_set_error (error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE, "%s wants %s, not '%s'", word->name, wants, value);
  return FALSE;
}

static void
append_string (char ***list, const char *value)
{
  guint n = *list ? g_strv_length (*list) : 0;

  *list = g_renew (char *, *list, n + 2);
  (*list)[n] = g_strdup (value);
  (*list)[n + 1] = NULL;
}

static gboolean
take_switch (const Word *word, const char *value, gboolean *ret, GError **error)
{
  g_auto (GStrv) words_of = g_strsplit (word->argument, "|", 2);
  g_autofree char *wants = g_strdup_printf ("%s or %s", words_of[0], words_of[1]);

  *ret = strcmp (value, words_of[1]) == 0;
  return *ret || strcmp (value, words_of[0]) == 0 || bad (word, value, wants, error);
}

static gboolean
take_mode (const Word *word, const char *value, int *ret, GError **error)
{
  guint64 mode;

  if (!g_ascii_string_to_unsigned (value, 8, 0, 0777, &mode, NULL))
    return bad (word, value, "an octal mode up to 0777", error);
  *ret = (int)mode;
  return TRUE;
}

static gboolean
take_number (const Word *word, const char *value, guint *ret, GError **error)
{
  g_autofree char *wants = g_strdup_printf ("a number from 1 to %u", word->max);
  guint64 number;

  if (!g_ascii_string_to_unsigned (value, 10, 1, word->max, &number, NULL))
    return bad (word, value, wants, error);
  *ret = (guint)number;
  return TRUE;
}

static gboolean
take_string (const Word *word, const char *value, char **ret, GError **error)
{
  if (*value == '\0')
    return bad (word, value, "a value", error);
  g_free (*ret);
  *ret = g_strdup (value);
  return TRUE;
}

static gboolean
apply (const Setting *setting, HfHelperOptions *options, GError **error)
{
  const Word *word = setting->word;
  char *at = (char *)options + word->offset;

  if (word->offset == NOWHERE)
    return TRUE;
  switch (word->takes) {
  case TAKES_NOTHING:
    *(guint *)at = MIN (*(guint *)at + 1, word->max);
    return TRUE;
  case TAKES_STRING:
    return take_string (word, setting->value, (char **)at, error);
  case TAKES_LIST:
    /* Not "no restriction": a template may have filled in nothing. */
    if (setting->value[0] == '\0')
      return bad (word, "", "a value", error);
    append_string ((char ***)at, setting->value);
    return TRUE;
  case TAKES_NUMBER:
    return take_number (word, setting->value, (guint *)at, error);
  case TAKES_MODE:
    return take_mode (word, setting->value, (int *)at, error);
  case TAKES_SWITCH:
  default:
    return take_switch (word, setting->value, (gboolean *)at, error);
  }
}

static gboolean
stands_in (const GArray *settings, const Word *word)
{
  for (guint i = 0; i < settings->len; i++)
    if (g_array_index (settings, Setting, i).word == word)
      return TRUE;
  return FALSE;
}

/* ---- the command line ---- */

static void
make_getopt_tables (struct option *ret_long, char *ret_short)
{
  for (guint i = 0; i < N_WORDS; i++) {
    gboolean argument = words[i].takes != TAKES_NOTHING;

    ret_long[i] = (struct option){ words[i].name, argument ? required_argument : no_argument, NULL, FIRST_LONG_ONLY + (int)i };
    if (!words[i].letter)
      continue;
    *ret_short++ = words[i].letter;
    if (argument)
      *ret_short++ = ':';
  }
  *ret_short = '\0';
}

static const Word *
find_word (int code)
{
  if (code >= FIRST_LONG_ONLY)
    return &words[code - FIRST_LONG_ONLY];
  for (guint i = 0; i < N_WORDS; i++)
    if (words[i].letter == code)
      return &words[i];
  return NULL;
}

/* "--sock" is --socket for qemu-pr-helper, whatever words there are here beside it: words with a letter are its own. */
static char *
expand (const char *argument)
{
  gsize length = strcspn (argument, "=");
  const Word *found = NULL;

  if (!g_str_has_prefix (argument, "--") || length < 3)
    return g_strdup (argument);
  for (guint i = 0; i < N_WORDS; i++) {
    gboolean begins = strncmp (words[i].name, argument + 2, length - 2) == 0;

    if ((begins && strlen (words[i].name) == length - 2) || (begins && words[i].letter && found))
      return g_strdup (argument);
    if (begins && words[i].letter)
      found = &words[i];
  }
  return found ? g_strdup_printf ("--%s%s", found->name, argument + length) : g_strdup (argument);
}

static gboolean
read_command_line (int argc, char **argv, GArray *settings, GError **error)
{
  struct option long_words[N_WORDS + 1] = { { 0 } };
  char letters[2 * N_WORDS + 2] = ":";
  int code;

  make_getopt_tables (long_words, letters + 1);
  optind = 0; /* glibc: from the start */
  opterr = 0;
  while ((code = getopt_long (argc, argv, letters, long_words, NULL)) != -1) {
    Setting setting = { .word = find_word (code), .value = g_strdup (optarg) };

    if (!setting.word) {
      const char *at = argv[optind > 1 ? optind - 1 : 0];

      g_free (setting.value);
      g_set_error (error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE,
                   code == ':' ? "option '%s' wants a value" : "option '%s' is not known", at);
      return FALSE;
    }
    g_array_append_val (settings, setting);
  }
  if (optind < argc) {
    g_set_error (error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE, "'%s' is no option", argv[optind]);
    return FALSE;
  }
  return TRUE;
}

/* ---- the file ---- */

static const Word *
find_file_word (const char *name)
{
  for (guint i = 0; i < N_WORDS; i++)
    if (words[i].offset != NOWHERE && i != WORD_CONFIG && strcmp (words[i].name, name) == 0)
      return &words[i];
  return NULL;
}

static gboolean
add_file_setting (GKeyFile *file, const Word *word, GArray *settings, GError **error)
{
  g_auto (GStrv) values = NULL;
  GError *failure = NULL;

  if (word->takes == TAKES_NOTHING && word->max == 1) {
    gboolean on = g_key_file_get_boolean (file, CONFIG_GROUP, word->name, &failure);
    Setting setting = { word, NULL };

    if (on && !failure)
      g_array_append_val (settings, setting);
  } else if (word->takes == TAKES_NOTHING) {
    int n = g_key_file_get_integer (file, CONFIG_GROUP, word->name, &failure);
    Setting setting = { word, NULL };

    for (int i = 0; i < MIN (n, (int)word->max) && !failure; i++)
      g_array_append_val (settings, setting);
  } else {
    values = g_key_file_get_string_list (file, CONFIG_GROUP, word->name, NULL, &failure);
    if (values && !*values)
      return bad (word, "", "a value", error);
    for (char **value = values; value && *value; value++) {
      Setting setting = { word, g_strdup (*value) };
      g_array_append_val (settings, setting);
    }
  }
  if (!failure)
    return TRUE;
  g_propagate_error (error, failure);
  return FALSE;
}

static gboolean
check_groups (GKeyFile *file, const char *path, GError **error)
{
  g_auto (GStrv) groups = g_key_file_get_groups (file, NULL);

  for (char **group = groups; *group; group++)
    if (strcmp (*group, CONFIG_GROUP) != 0) {
      g_set_error (error, G_KEY_FILE_ERROR, G_KEY_FILE_ERROR_GROUP_NOT_FOUND, "%s: [%s] is not known, only [" CONFIG_GROUP "] is",
                   path, *group);
      return FALSE;
    }
  return TRUE;
}

/* Words of the file that do not stand on the command line. */
static gboolean
read_file (const char *path, const GArray *command_line, GArray *settings, GError **error)
{
  g_autoptr (GKeyFile) file = g_key_file_new ();
  g_auto (GStrv) keys = NULL;

  if (!g_key_file_load_from_file (file, path, G_KEY_FILE_NONE, error)) {
    g_prefix_error (error, "%s: ", path);
    return FALSE;
  }
  if (!check_groups (file, path, error))
    return FALSE;
  keys = g_key_file_get_keys (file, CONFIG_GROUP, NULL, NULL);
  for (char **key = keys; key && *key; key++) {
    const Word *word = find_file_word (*key);

    if (!word) {
      g_set_error (error, G_KEY_FILE_ERROR, G_KEY_FILE_ERROR_KEY_NOT_FOUND, "%s: '%s' is not known", path, *key);
      return FALSE;
    }
    if (!stands_in (command_line, word) && !add_file_setting (file, word, settings, error)) {
      g_prefix_error (error, "%s: ", path);
      return FALSE;
    }
  }
  return TRUE;
}

/* The file that was asked for must be there, the default one need not. */
static gboolean
read_config (const GArray *command_line, GArray *settings, GError **error)
{
  const char *path = NULL;
  g_autoptr (GError) failure = NULL;

  for (guint i = 0; i < command_line->len; i++)
    if (g_array_index (command_line, Setting, i).word == &words[WORD_CONFIG])
      path = g_array_index (command_line, Setting, i).value;
  if (read_file (path ? path : CONFIG_DEFAULT, command_line, settings, &failure))
    return TRUE;
  if (!path && g_error_matches (failure, G_FILE_ERROR, G_FILE_ERROR_NOENT))
    return TRUE;
  g_propagate_error (error, g_steal_pointer (&failure));
  return FALSE;
}

/* ---- both ---- */

static void
set_defaults (HfHelperOptions *options)
{
  memset (options, 0, sizeof *options);
  options->sandbox = TRUE;
  options->timeout_ms = 30000;
  options->request_timeout_ms = 30000;
  options->max_clients = 4096;
  options->socket_mode = -1;
  options->commit_warn_s = 60;
}

static gboolean
finish (HfHelperOptions *options, const GArray *command_line, GError **error)
{
  options->socket_given = options->socket != NULL;
  options->pidfile_given = options->pidfile != NULL;
  options->socket_on_command_line = stands_in (command_line, find_file_word ("socket"));
  if (!options->socket)
    options->socket = g_strdup ("/var/run/holdfast-pr-helper.sock");
  if (!options->pidfile)
    options->pidfile = g_strdup ("/var/run/holdfast-pr-helper.pid");
  if (!options->vmstate_id)
    options->vmstate_id = g_strdup ("holdfast");
  if (!options->max_clients_per_uid)
    options->max_clients_per_uid = MAX (1, options->max_clients - options->max_clients / 4);
  if (options->socket[0] == '/')
    return TRUE;
  g_set_error (error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE, "socket path must be absolute, not '%s'", options->socket);
  return FALSE;
}

static gboolean
apply_all (const GArray *settings, HfHelperOptions *options, GError **error)
{
  for (guint i = 0; i < settings->len; i++)
    if (!apply (&g_array_index (settings, Setting, i), options, error))
      return FALSE;
  return TRUE;
}

/* getopt puts the words into another order: order has the same ones as words, which stay in theirs. */
static void
copy_words (int argc, char **argv, GPtrArray *ret_words, GPtrArray *ret_order)
{
  for (int i = 0; i < argc; i++) {
    g_ptr_array_add (ret_words, i ? expand (argv[i]) : g_strdup (argv[i]));
    g_ptr_array_add (ret_order, ret_words->pdata[i]);
  }
  g_ptr_array_add (ret_order, NULL);
}

HfHelperOptionsResult
hf_helper_options_parse (int argc, char **argv, HfHelperOptions *ret, GError **error)
{
  g_autoptr (GPtrArray) own = g_ptr_array_new_with_free_func (g_free), order = g_ptr_array_new ();
  g_autoptr (GArray) command_line = g_array_new (FALSE, FALSE, sizeof (Setting));
  g_autoptr (GArray) file = g_array_new (FALSE, FALSE, sizeof (Setting));

  g_array_set_clear_func (command_line, setting_clear);
  g_array_set_clear_func (file, setting_clear);
  set_defaults (ret);
  copy_words (argc, argv, own, order);
  if (!read_command_line (argc, (char **)order->pdata, command_line, error))
    return HF_HELPER_OPTIONS_ERROR;
  for (guint i = 0; i < command_line->len; i++) {
    if (g_array_index (command_line, Setting, i).word == &words[WORD_HELP])
      return HF_HELPER_OPTIONS_HELP;
    if (g_array_index (command_line, Setting, i).word == &words[WORD_VERSION])
      return HF_HELPER_OPTIONS_VERSION;
  }
  if (!read_config (command_line, file, error) || !apply_all (file, ret, error) || !apply_all (command_line, ret, error)
      || !finish (ret, command_line, error))
    return HF_HELPER_OPTIONS_ERROR;
  return HF_HELPER_OPTIONS_RUN;
}

void
hf_helper_options_clear (HfHelperOptions *options)
{
  g_free (options->socket);
  g_free (options->pidfile);
  g_strfreev (options->trace);
  g_free (options->user);
  g_free (options->group);
  g_free (options->config);
  g_strfreev (options->allow_uid);
  g_strfreev (options->allow_gid);
  g_strfreev (options->device);
  g_free (options->state_dir);
  g_free (options->control);
  g_free (options->metrics);
  g_strfreev (options->vmstate_bus);
  g_free (options->vmstate_id);
  g_strfreev (options->qmp);
  memset (options, 0, sizeof *options);
}

char *
hf_helper_options_help (const char *program)
{
  GString *text = g_string_new (NULL);

  g_string_printf (text, "Usage: %s [OPTIONS]\nPersistent reservation helper for QEMU; takes the options of qemu-pr-helper\n\n",
                   program);
  for (guint i = 0; i < N_WORDS; i++) {
    g_autofree char *left =
        g_strdup_printf ("--%s%s%s", words[i].name, words[i].argument ? "=" : "", words[i].argument ? words[i].argument : "");
    g_autofree char *letter = words[i].letter ? g_strdup_printf ("-%c, ", words[i].letter) : g_strdup ("    ");

    g_string_append_printf (text, "  %s%-26s%s%s\n", letter, left,
                            strlen (left) < 26 ? " " : "\n                                 ", words[i].help);
    if (words[i].note)
      g_string_append_printf (text, "%33s%s\n", "", words[i].note);
  }
  return g_string_free (text, FALSE);
}

/* ---- names ---- */

static gboolean
take_id (const char *kind, const char *name, guint *ret, GError **error)
{
  guint64 id;

  /* The highest is the kernel's "no change". */
  if (g_ascii_string_to_unsigned (name, 10, 0, G_MAXUINT32 - 1, &id, NULL)) {
    *ret = (guint)id;
    return TRUE;
  }
  g_set_error (error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE, "invalid %s '%s'", kind, name);
  return FALSE;
}

gboolean
hf_helper_user (const char *name, guint *ret, GError **error)
{
  const struct passwd *entry = getpwnam (name);

  if (!entry)
    return take_id ("user", name, ret, error);
  *ret = entry->pw_uid;
  return TRUE;
}

gboolean
hf_helper_group (const char *name, guint *ret, GError **error)
{
  const struct group *entry = getgrnam (name);

  if (!entry)
    return take_id ("group", name, ret, error);
  *ret = entry->gr_gid;
  return TRUE;
}
