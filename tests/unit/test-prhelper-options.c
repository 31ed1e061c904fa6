/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The words of holdfast-pr-helper: qemu-pr-helper's in all spellings, the file, and who wins. */

#include "config.h"

#include "prhelper/options.h"
#include "prhelper/peer.h"
#include "prhelper/trace.h"

#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

/* line: words with blanks between them, behind the program's name. */
static HfHelperOptionsResult
parse (const char *line, HfHelperOptions *options, GError **error)
{
  g_autofree char *whole = g_strconcat ("holdfast-pr-helper ", line, NULL);
  g_auto (GStrv) words = g_strsplit (g_strchomp (whole), " ", -1);

  return hf_helper_options_parse ((int)g_strv_length (words), words, options, error);
}

static void
assert_refused (const char *line, const char *part)
{
  g_auto (HfHelperOptions) options = { 0 };
  g_autoptr (GError) error = NULL;

  g_assert_cmpint (parse (line, &options, &error), ==, HF_HELPER_OPTIONS_ERROR);
  g_assert_nonnull (error);
  if (!strstr (error->message, part))
    g_error ("'%s' gives '%s', without '%s'", line, error->message, part);
}

static void
assert_runs (const char *line, HfHelperOptions *options)
{
  g_autoptr (GError) error = NULL;
  HfHelperOptionsResult result = parse (line, options, &error);

  g_assert_no_error (error);
  g_assert_cmpint (result, ==, HF_HELPER_OPTIONS_RUN);
}

static void
test_defaults (void)
{
  g_auto (HfHelperOptions) options = { 0 };

  assert_runs ("", &options);
  g_assert_cmpstr (options.socket, ==, "/var/run/holdfast-pr-helper.sock");
  g_assert_cmpstr (options.pidfile, ==, "/var/run/holdfast-pr-helper.pid");
  g_assert_false (options.socket_given || options.pidfile_given || options.socket_on_command_line);
  g_assert_false (options.daemon || options.quiet || options.strict);
  g_assert_true (options.sandbox);
  g_assert_cmpuint (options.verbose, ==, 0);
  g_assert_cmpuint (options.timeout_ms, ==, 30000);
  g_assert_cmpuint (options.request_timeout_ms, ==, 30000);
  g_assert_cmpuint (options.max_clients, ==, 4096);
  g_assert_cmpuint (options.max_clients_per_uid, ==, 3072);
  g_assert_cmpint (options.socket_mode, ==, -1);
  g_assert_null (options.user);
  g_assert_null (options.trace);
}

/* How libvirt, a unit and a hand write the same. */
static void
test_spellings (void)
{
  static const char *const lines[] = {
    "-k /run/a.sock -f /run/a.pid -d -u nobody -g nogroup -v -q -T pr_helper_*",
    "-k/run/a.sock -f/run/a.pid -dvq -unobody -gnogroup -Tpr_helper_*",
    "--socket /run/a.sock --pidfile /run/a.pid --daemon --user nobody --group nogroup --verbose --quiet --trace pr_helper_*",
    "--socket=/run/a.sock --pidfile=/run/a.pid --daemon --user=nobody --group=nogroup --verbose --quiet --trace=pr_helper_*",
    "--sock=/run/a.sock --pid=/run/a.pid --dae --use=nobody --gro=nogroup --verb --qui --tra=pr_helper_*",
  };

  for (guint i = 0; i < G_N_ELEMENTS (lines); i++) {
    g_auto (HfHelperOptions) options = { 0 };

    assert_runs (lines[i], &options);
    g_assert_cmpstr (options.socket, ==, "/run/a.sock");
    g_assert_cmpstr (options.pidfile, ==, "/run/a.pid");
    g_assert_true (options.socket_given && options.pidfile_given && options.socket_on_command_line);
    g_assert_true (options.daemon && options.quiet);
    g_assert_cmpuint (options.verbose, ==, 1);
    g_assert_cmpstr (options.user, ==, "nobody");
    g_assert_cmpstr (options.group, ==, "nogroup");
    g_assert_cmpstr (options.trace[0], ==, "pr_helper_*");
    g_assert_null (options.trace[1]);
  }
}

static void
test_own_words (void)
{
  g_auto (HfHelperOptions) options = { 0 };

  assert_runs ("--strict --timeout=1500 --request-timeout 200 --max-clients=8 --socket-mode=0660 --sandbox=off --allow-uid=0 "
               "--allow-uid=107 "
               "--allow-gid=kvm -v -v -v -v",
               &options);
  g_assert_true (options.strict);
  g_assert_false (options.sandbox);
  g_assert_cmpuint (options.timeout_ms, ==, 1500);
  g_assert_cmpuint (options.request_timeout_ms, ==, 200);
  g_assert_cmpuint (options.max_clients, ==, 8);
  g_assert_cmpuint (options.max_clients_per_uid, ==, 6);
  g_assert_cmpint (options.socket_mode, ==, 0660);
  g_assert_cmpuint (g_strv_length (options.allow_uid), ==, 2);
  g_assert_cmpstr (options.allow_uid[1], ==, "107");
  g_assert_cmpstr (options.allow_gid[0], ==, "kvm");
  g_assert_cmpuint (options.verbose, ==, 3);
}

static void
test_refused (void)
{
  assert_refused ("-k", "'-k' wants a value");
  assert_refused ("--socket", "wants a value");
  assert_refused ("-x", "'-x' is not known");
  assert_refused ("--no-such-word", "not known");
  assert_refused ("--ver", "not known"); /* --verbose or --version */
  assert_refused ("--socket-modes=1", "not known");
  assert_refused ("/run/a.sock", "'/run/a.sock' is no option");
  assert_refused ("-k a.sock", "absolute");
  assert_refused ("--socket=", "socket wants a value");
  assert_refused ("--timeout=0", "timeout wants a number");
  assert_refused ("--timeout=-1", "timeout wants a number");
  assert_refused ("--timeout=5s", "timeout wants a number");
  assert_refused ("--max-clients=70000", "1 to 65536");
  assert_refused ("--socket-mode=0888", "octal");
  assert_refused ("--socket-mode=01777", "octal");
  assert_refused ("--sandbox=yes", "off or on");
  assert_refused ("--config=/nonexistent/pr-helper.conf", "/nonexistent/pr-helper.conf");
}

static void
test_help_and_version (void)
{
  static const char *const words[] = { "-h, --help",   "-V, --version", "-d, --daemon", "-f, --pidfile=", "-k, --socket=",
                                       "-T, --trace=", "-u, --user=",   "-g, --group=", "-v, --verbose",  "-q, --quiet",
                                       "--config=",    "--strict",      "--timeout=",   "--sandbox=" };
  g_autofree char *help = hf_helper_options_help ("PROGRAM");

  for (guint i = 0; i < 4; i++) {
    const char *const lines[] = { "-h", "--help -k a", "-V", "-d --version" };
    g_auto (HfHelperOptions) options = { 0 };

    g_assert_cmpint (parse (lines[i], &options, NULL), ==, i < 2 ? HF_HELPER_OPTIONS_HELP : HF_HELPER_OPTIONS_VERSION);
  }
  for (guint i = 0; i < G_N_ELEMENTS (words); i++)
    g_assert_nonnull (strstr (help, words[i]));
  g_assert_true (g_str_has_prefix (help, "Usage: PROGRAM "));
}

/* ---- the file ---- */

static char *
write_config (const char *text)
{
  g_autofree char *path = NULL;
  g_autoptr (GError) error = NULL;
  int fd = g_file_open_tmp ("test-prhelper-XXXXXX", &path, &error);

  g_assert_no_error (error);
  close (fd);
  g_file_set_contents (path, text, -1, &error);
  g_assert_no_error (error);
  return g_steal_pointer (&path);
}

/* The command line wins, word by word; a list of it replaces the file's. */
static void
test_config (void)
{
  g_autofree char *path =
      write_config ("[pr-helper]\nsocket=/run/file.sock\ntimeout=1000\nmax-clients=16\nstrict=true\nquiet=false\n"
                    "verbose=2\nallow-uid=1;2;3\nallow-gid=4\nsandbox=off\nsocket-mode=0600\n");
  g_autofree char *alone = g_strconcat ("--config=", path, NULL);
  g_autofree char *both = g_strconcat ("-k /run/line.sock --config=", path, " --timeout=2000 --allow-uid=9 --sandbox=on", NULL);
  g_auto (HfHelperOptions) file = { 0 }, line = { 0 };

  assert_runs (alone, &file);
  g_assert_cmpstr (file.socket, ==, "/run/file.sock");
  g_assert_true (file.socket_given && !file.socket_on_command_line && file.strict && !file.quiet && !file.sandbox);
  g_assert_cmpuint (file.timeout_ms, ==, 1000);
  g_assert_cmpuint (file.verbose, ==, 2);
  g_assert_cmpuint (g_strv_length (file.allow_uid), ==, 3);
  g_assert_cmpstr (file.allow_gid[0], ==, "4");

  assert_runs (both, &line);
  g_assert_cmpstr (line.socket, ==, "/run/line.sock");
  g_assert_true (line.socket_on_command_line && line.strict && line.sandbox);
  g_assert_cmpuint (line.timeout_ms, ==, 2000);
  g_assert_cmpuint (line.max_clients, ==, 16);
  g_assert_cmpuint (g_strv_length (line.allow_uid), ==, 1);
  g_assert_cmpstr (line.allow_uid[0], ==, "9");
  g_assert_cmpint (line.socket_mode, ==, 0600);
  g_unlink (path);
}

static void
test_config_refused (void)
{
  static const struct {
    const char *text, *part;
  } rows[] = {
    { "[pr-helper]\ntimeuot=1\n", "'timeuot' is not known" },
    { "[pr-helper]\nconfig=/etc/other\n", "'config' is not known" },
    { "[pr-helper]\nhelp=true\n", "'help' is not known" },
    { "[helper]\ntimeout=1\n", "[helper] is not known" },
    { "[pr-helper]\ntimeout=soon\n", "timeout wants a number" },
    { "[pr-helper]\nstrict=perhaps\n", "strict" },
    { "timeout=1\n", "group" },
    { "[pr-helper]\nsocket=a.sock\n", "absolute" },
    { "[pr-helper]\nallow-uid=\n", "allow-uid wants a value" },
    { "[pr-helper]\nallow-gid=;\n", "allow-gid wants a value" },
  };

  for (guint i = 0; i < G_N_ELEMENTS (rows); i++) {
    g_autofree char *path = write_config (rows[i].text);
    g_autofree char *line = g_strconcat ("--config=", path, NULL);

    assert_refused (line, rows[i].part);
    g_unlink (path);
  }
}

/* ---- names, traces, start times ---- */

static void
test_ids (void)
{
  g_autoptr (GError) error = NULL;
  guint id = 1;

  g_assert_true (hf_helper_user ("root", &id, NULL));
  g_assert_cmpuint (id, ==, 0);
  g_assert_true (hf_helper_user ("4711", &id, NULL));
  g_assert_cmpuint (id, ==, 4711);
  g_assert_true (hf_helper_group ("root", &id, NULL));
  g_assert_cmpuint (id, ==, 0);
  /* The kernel's "no change" is no user. */
  g_assert_false (hf_helper_user ("4294967295", &id, NULL));
  g_assert_false (hf_helper_group ("-1", &id, NULL));
  g_assert_false (hf_helper_user ("no such user", &id, &error));
  g_assert_cmpstr (error->message, ==, "invalid user 'no such user'");
}

static void
test_trace (void)
{
  g_autofree char *path = write_config ("# a list\npr_helper_request\n-pr_helper_reply\n\n");
  g_autofree char *out = write_config ("");
  g_autofree char *specification = g_strdup_printf ("enable=-*,events=%s,file=%s", path, out);
  g_autofree char *text = NULL;
  g_autoptr (GError) error = NULL;

  g_assert_true (hf_trace_add (specification, &error));
  g_assert_no_error (error);
  hf_trace (HF_TRACE_REQUEST, "n=%d", 1);
  hf_trace (HF_TRACE_REPLY, "n=%d", 2);
  g_assert_true (hf_trace_add ("pr_helper_re*", NULL));
  hf_trace (HF_TRACE_REPLY, "n=%d", 3);
  g_assert_true (g_file_get_contents (out, &text, NULL, NULL));
  g_assert_cmpstr (text, ==, "pr_helper_request n=1\npr_helper_reply n=3\n");
  g_assert_true (hf_trace_add ("no_such_*", NULL));
  g_assert_false (hf_trace_add ("no_such_event", NULL));
  g_assert_false (hf_trace_add ("*,colour=red", NULL));
  g_assert_false (hf_trace_add ("events=/nonexistent/list", NULL));
  g_unlink (path);
  g_unlink (out);
}

/* The name of a process is whatever it likes. */
static void
test_start_time (void)
{
  static const struct {
    const char *line;
    guint64 expected;
  } rows[] = {
    { "7 (sh) S 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 4242 23 24\n", 4242 },
    { "7 (a) b (c) S 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 4242 23\n", 4242 },
    { "7 (1 2 3 4) S 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 18446744073709551615", G_MAXUINT64 },
    { "7 (sh) S 4 5 6", 0 },
    { "7 sh S", 0 },
    { ")", 0 },
    { "", 0 },
  };

  for (guint i = 0; i < G_N_ELEMENTS (rows); i++)
    g_assert_cmpuint (hf_peer_parse_start_time (rows[i].line), ==, rows[i].expected);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/prhelper/options/defaults", test_defaults);
  g_test_add_func ("/prhelper/options/spellings", test_spellings);
  g_test_add_func ("/prhelper/options/own-words", test_own_words);
  g_test_add_func ("/prhelper/options/refused", test_refused);
  g_test_add_func ("/prhelper/options/help-and-version", test_help_and_version);
  g_test_add_func ("/prhelper/options/config", test_config);
  g_test_add_func ("/prhelper/options/config-refused", test_config_refused);
  g_test_add_func ("/prhelper/options/ids", test_ids);
  g_test_add_func ("/prhelper/options/trace", test_trace);
  g_test_add_func ("/prhelper/peer/start-time", test_start_time);
  return g_test_run ();
}
