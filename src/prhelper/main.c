/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The program holdfast-pr-helper. Owns: the order of its start and end. Thread: main; there is no other before the queue's.
 *
 * Theory of operation: a process that goes into the background leaves one behind that waits for the end of the start, so that who
 * started it can connect as soon as it returns, and learns of a failure. The file with the process id is locked before the socket
 * is replaced: a second start must not take the socket of a helper that serves. Privileges go before the first byte of a client
 * is read, the sandbox last, because it forbids what the others do. SIGTERM, SIGINT and SIGHUP are blocked in all threads and
 * read from a descriptor: no signal ever cuts a command short.
 */
#include "config.h"

#include "base/descriptors.h"
#include "base/fail.h"
#include "prhelper/listener.h"
#include "prhelper/log.h"
#include "prhelper/loop.h"
#include "prhelper/notify.h"
#include "prhelper/options.h"
#include "prhelper/pidfile.h"
#include "prhelper/privileges.h"
#include "prhelper/sandbox.h"
#include "prhelper/service.h"
#include "prhelper/trace.h"

#include <errno.h>
#include <fcntl.h>
#include <gio/gio.h>
#include <glib-unix.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* Devices in use at the same time, each with a thread; a process may have a share of them, however many of its devices hang. */
#define THREADS_MAX 512
#define THREADS_MAX_PER_PROCESS 64
/* A client is its socket, its process, the descriptor of its command and one that an operation on its LU has; descriptors that
   wait to be closed come on top. */
#define DESCRIPTORS_PER_CLIENT 4
#define DESCRIPTORS_OWN 256
#define DESCRIPTORS_DISCARDED 2048
/* QEMU waits 25 s for Save and for Load, which has two phases. */
#define MOVE_TIMEOUT_MAX_MS 10000
#define STATE_DIR_DEFAULT "/var/lib/holdfast"
#define CONTROL_DIR_DEFAULT "/run/holdfast"
#define CONTROL_DEFAULT CONTROL_DIR_DEFAULT "/control.sock"
#define CONTROL_MODE 0600
/* For --control and --state-dir: not even the default. */
#define NOWHERE "none"
/* What the process in the background tells the one that started it: this, or its error. */
#define STARTED "\n"
#define STARTER_TEXT_SIZE 1024

typedef struct {
  HfHelperOptions options;
  guint uid, gid;
  GArray *allow_uids, *allow_gids;
  int signal_fd;
  guint max_discards; /* descriptors that wait to be closed, of all */
  int starter_fd;     /* of the pipe to the process that waits for the start; -1: none */
  HfListener *listener, *control;
  HfPidfile *pidfile;
  char *state_dir; /* NULL: nothing is kept */
  HfStore *store;
  HfServiceRules rules;
  HfService *service;
  GMainLoop *loop;
} Helper;

/* ---- the start, in this order ---- */

static gboolean
resolve_list (char **names, gboolean (*resolve) (const char *, guint *, GError **), GArray **ret, GError **error)
{
  *ret = g_array_new (FALSE, FALSE, sizeof (guint));
  for (; names && *names; names++) {
    guint id;

    if (!resolve (*names, &id, error))
      return FALSE;
    g_array_append_val (*ret, id);
  }
  return TRUE;
}

static gboolean
start_names (Helper *helper, GError **error)
{
  const HfHelperOptions *options = &helper->options;

  helper->uid = helper->gid = HF_NO_ID;
  if (options->user && !hf_helper_user (options->user, &helper->uid, error))
    return FALSE;
  if (options->group && !hf_helper_group (options->group, &helper->gid, error))
    return FALSE;
  return resolve_list (options->allow_uid, hf_helper_user, &helper->allow_uids, error)
         && resolve_list (options->allow_gid, hf_helper_group, &helper->allow_gids, error);
}

static gboolean
start_log (Helper *helper, GError **error)
{
  static const HfLogLevel levels[] = { HF_LOG_NOTICE, HF_LOG_INFO };

  hf_log_init (helper->options.quiet ? HF_LOG_ERROR : levels[helper->options.verbose > 0]);
  for (char **trace = helper->options.trace; trace && *trace; trace++)
    if (!hf_trace_add (*trace, error))
      return FALSE;
  return hf_fail_init (error);
}

static gboolean
start_signals (Helper *helper, GError **error)
{
  sigset_t signals;

  sigemptyset (&signals);
  sigaddset (&signals, SIGTERM);
  sigaddset (&signals, SIGINT);
  sigaddset (&signals, SIGHUP);
  signal (SIGPIPE, SIG_IGN);
  helper->signal_fd = -1;
  if (sigprocmask (SIG_BLOCK, &signals, NULL) == 0)
    helper->signal_fd = signalfd (-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
  if (helper->signal_fd >= 0)
    return TRUE;
  g_set_error (error, G_IO_ERROR, (int)g_io_error_from_errno (errno), "signals: %s", g_strerror (errno));
  return FALSE;
}

static gboolean
start_limits (Helper *helper, GError **error)
{
  rlim_t wanted = (rlim_t)helper->options.max_clients * DESCRIPTORS_PER_CLIENT + DESCRIPTORS_OWN + DESCRIPTORS_DISCARDED;
  struct rlimit limit;

  helper->max_discards = DESCRIPTORS_DISCARDED;
  if (getrlimit (RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= wanted)
    return TRUE;
  limit.rlim_cur = MIN (wanted, limit.rlim_max);
  helper->max_discards = (guint)MIN (limit.rlim_cur / 4, DESCRIPTORS_DISCARDED);
  if (setrlimit (RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur + DESCRIPTORS_DISCARDED >= wanted)
    return TRUE;
  helper->options.max_clients = MAX (1, (guint)(limit.rlim_cur - MIN (limit.rlim_cur, DESCRIPTORS_OWN)) / DESCRIPTORS_PER_CLIENT);
  helper->options.max_clients_per_uid =
      MIN (helper->options.max_clients_per_uid, MAX (1, helper->options.max_clients - helper->options.max_clients / 4));
  hf_log (HF_LOG_WARNING, "%u clients at most: no more descriptors are allowed (RLIMIT_NOFILE)", helper->options.max_clients);
  return TRUE;
}

/* Before the process id changes, which service managers name. */
static gboolean
start_inherited (Helper *helper, GError **error)
{
  GError *failure = NULL;

  helper->listener = hf_listener_inherit (&failure);
  if (failure) {
    g_propagate_error (error, failure);
    return FALSE;
  }
  if (!helper->listener || !helper->options.socket_on_command_line)
    return TRUE;
  g_set_error (error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE, "the socket cannot be set with socket activation");
  return FALSE;
}

/* In the process that was started: ends as the other one says, whose message stands in the pipe. */
static void
end_starter (int fd)
{
  char text[STARTER_TEXT_SIZE] = "";
  gsize length = 0;
  ssize_t n;

  while (length < sizeof text - 1 && ((n = read (fd, text + length, sizeof text - 1 - length)) > 0 || (n < 0 && errno == EINTR)))
    length += (gsize)MAX (n, 0);
  if (strcmp (text, STARTED) == 0)
    _exit (EXIT_SUCCESS);
  hf_log (HF_LOG_ERROR, "%s", length ? text : "ended while it started");
  _exit (EXIT_FAILURE);
}

static void
tell_starter (Helper *helper, const char *text)
{
  if (helper->starter_fd < 0)
    return;
  if (write (helper->starter_fd, text, MIN (strlen (text), STARTER_TEXT_SIZE - 1)) < 0)
    hf_log (HF_LOG_WARNING, "who started us is gone: %s", g_strerror (errno));
  close (helper->starter_fd);
  helper->starter_fd = -1;
}

/* Descriptors 0 to 2 lead nowhere, as daemon(3) has it. */
static gboolean
leave_terminal (void)
{
  int fd = open ("/dev/null", O_RDWR | O_CLOEXEC);
  gboolean done = fd >= 0 && setsid () >= 0 && chdir ("/") == 0;

  for (int standard = STDIN_FILENO; standard <= STDERR_FILENO && done; standard++)
    done = dup2 (fd, standard) == standard;
  if (fd >= 0)
    close (fd);
  return done;
}

static gboolean
start_daemon (Helper *helper, GError **error)
{
  int ends[2] = { -1, -1 };
  pid_t pid = -1;

  if (!helper->options.daemon)
    return TRUE;
  if (pipe2 (ends, O_CLOEXEC) == 0)
    pid = fork ();
  if (pid > 0) {
    close (ends[1]);
    end_starter (ends[0]);
  }
  if (pid == 0) {
    close (ends[0]);
    helper->starter_fd = ends[1];
    if (leave_terminal ())
      return TRUE;
  }
  g_set_error (error, G_IO_ERROR, (int)g_io_error_from_errno (errno), "cannot go into the background: %s", g_strerror (errno));
  return FALSE;
}

static gboolean
start_listener (Helper *helper, GError **error)
{
  if (!helper->listener)
    helper->listener = hf_listener_new (helper->options.socket, helper->options.socket_mode, error);
  return helper->listener != NULL;
}

/* The default is taken where its folder is and nobody else answers there: one of several helpers, one for each VM, has none. */
static gboolean
is_control_free (void)
{
  const struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = CONTROL_DEFAULT };
  int fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  gboolean is_free = access (CONTROL_DIR_DEFAULT, W_OK) == 0 && fd >= 0
                     && connect (fd, (const struct sockaddr *)&address, sizeof address) < 0
                     && (errno == ENOENT || errno == ECONNREFUSED);

  if (fd >= 0)
    close (fd);
  return is_free;
}

static gboolean
start_control (Helper *helper, GError **error)
{
  const char *path = helper->options.control;

  if (g_strcmp0 (path, NOWHERE) == 0 || (!path && !is_control_free ()))
    return TRUE;
  helper->control = hf_listener_new (path ? path : CONTROL_DEFAULT, CONTROL_MODE, error);
  return helper->control != NULL;
}

static gboolean
start_pidfile (Helper *helper, GError **error)
{
  if (!helper->options.daemon && !helper->options.pidfile_given)
    return TRUE;
  helper->pidfile = hf_pidfile_new (helper->options.pidfile, error);
  return helper->pidfile != NULL;
}

static gboolean
start_notify (Helper *helper, GError **error)
{
  return hf_notify_init (error);
}

/* A Load, which comes by a bus or the control socket, looks for its LUs among the descriptors of the VM's process. */
static gboolean
looks_into_processes (const Helper *helper)
{
  return (helper->options.vmstate_bus || helper->control) && !helper->options.device;
}

static gboolean
start_privileges (Helper *helper, GError **error)
{
  gboolean rawio = FALSE;

  if (!hf_privileges_drop (helper->uid, helper->gid, looks_into_processes (helper), &rawio, error))
    return FALSE;
  if (helper->uid != HF_NO_ID && helper->uid != 0 && getegid () == 0)
    hf_log (HF_LOG_WARNING, "the group stays root, whose files can be read: -g sets another");
  if (!rawio)
    hf_log (HF_LOG_WARNING, "CAP_SYS_RAWIO is missing: devices will refuse PERSISTENT RESERVE commands");
  return TRUE;
}

/* A place that was asked for must be there; the default one need not, and several helpers cannot share it. */
static gboolean
start_store (Helper *helper, GError **error)
{
  const char *unit_dir = g_getenv ("STATE_DIRECTORY");
  const char *given = helper->options.state_dir ? helper->options.state_dir : unit_dir;
  const char *path = given ? given : STATE_DIR_DEFAULT;
  g_autoptr (GError) failure = NULL;

  if (g_strcmp0 (given, NOWHERE) == 0)
    return TRUE;
  helper->store = hf_store_new (path, &failure);
  if (helper->store) {
    helper->state_dir = g_strdup (path);
    return TRUE;
  }
  if (given) {
    g_propagate_error (error, g_steal_pointer (&failure));
    return FALSE;
  }
  hf_log (HF_LOG_INFO, "no journal is kept: %s", failure->message);
  return TRUE;
}

static gboolean
start_links (Helper *helper, GError **error)
{
  const HfHelperOptions *options = &helper->options;

  helper->rules.links = (HfLinksRules){ .vmstate_bus = (const char *const *)options->vmstate_bus,
                                        .vmstate_id = options->vmstate_id,
                                        .qmp = (const char *const *)options->qmp,
                                        .on_change = options->refuse_changes ? HF_ON_CHANGE_REFUSE : HF_ON_CHANGE_ADOPT };
  return hf_links_check (&helper->rules.links, error);
}

static gboolean
start_sandbox (Helper *helper, GError **error)
{
  const HfHelperOptions *options = &helper->options;
  const HfSandboxFeatures features = { .state = helper->store != NULL || options->metrics != NULL,
                                       .devices = looks_into_processes (helper),
                                       .links = options->vmstate_bus || options->qmp,
                                       .control = helper->control != NULL };

  return !options->sandbox || hf_sandbox_enter (&features, error);
}

static gboolean (*const start_steps[]) (Helper *helper, GError **error) = {
  start_names,   start_log,     start_links,    start_signals, start_limits,     start_inherited, start_daemon,
  start_pidfile, start_control, start_listener, start_notify,  start_privileges, start_store,     start_sandbox,
};

/* ---- serving ---- */

static gboolean
on_signal (gint fd, GIOCondition condition, gpointer user_data)
{
  Helper *helper = user_data;
  struct signalfd_siginfo info;

  if (read (fd, &info, sizeof info) != sizeof info)
    return G_SOURCE_CONTINUE;
  hf_log (HF_LOG_INFO, "ends: %s", g_strsignal ((int)info.ssi_signo));
  hf_notify ("STOPPING=1");
  hf_service_stop (helper->service);
  return G_SOURCE_CONTINUE;
}

static void
on_ended (gpointer user_data)
{
  g_main_loop_quit (((Helper *)user_data)->loop);
}

static void
fill_in_rules (Helper *helper)
{
  const HfHelperOptions *options = &helper->options;

  helper->rules.metrics = options->metrics;
  helper->rules.server = (HfServerRules){
    .max_clients = options->max_clients,
    .max_clients_per_uid = options->max_clients_per_uid,
    .allow_uids = helper->allow_uids,
    .allow_gids = helper->allow_gids,
    .queue = { .max_threads = THREADS_MAX,
               .max_threads_per_process = THREADS_MAX_PER_PROCESS,
               .max_discards_per_uid = helper->max_discards / 2 },
    .client = { .strict = options->strict, .timeout_ms = options->timeout_ms, .request_timeout_ms = options->request_timeout_ms },
    .vms = { .share_nexus = options->share_nexus,
             .migrates = options->vmstate_bus != NULL,
             .on_change = helper->rules.links.on_change,
             .timeout_ms = MIN (options->timeout_ms, MOVE_TIMEOUT_MAX_MS),
             .commit_warn_ms = options->commit_warn_s * 1000,
             .device_globs = (const char *const *)options->device,
             .state_dir = helper->state_dir },
  };
}

static gboolean
serve (Helper *helper, GError **error)
{
  fill_in_rules (helper);
  helper->loop = g_main_loop_new (NULL, TRUE);
  helper->service = hf_service_new (g_steal_pointer (&helper->listener), g_steal_pointer (&helper->control),
                                    g_steal_pointer (&helper->store), &helper->rules, on_ended, helper, error);
  if (!helper->service)
    return FALSE;
  g_unix_fd_add (helper->signal_fd, G_IO_IN, on_signal, helper);
  tell_starter (helper, STARTED);
  hf_notify ("READY=1");
  hf_loop_run (helper->loop);
  hf_service_free (helper->service);
  g_main_loop_unref (helper->loop);
  return TRUE;
}

static void
helper_clear (Helper *helper)
{
  hf_listener_free (helper->listener);
  hf_listener_free (helper->control);
  hf_store_free (helper->store);
  hf_pidfile_free (helper->pidfile);
  g_free (helper->state_dir);
  g_clear_pointer (&helper->allow_uids, g_array_unref);
  g_clear_pointer (&helper->allow_gids, g_array_unref);
  hf_helper_options_clear (&helper->options);
}

static int
run (Helper *helper)
{
  g_autoptr (GError) failure = NULL;

  for (guint i = 0; i < G_N_ELEMENTS (start_steps); i++) {
    g_autoptr (GError) error = NULL;

    if (start_steps[i](helper, &error))
      continue;
    hf_log (HF_LOG_ERROR, "%s", error->message);
    tell_starter (helper, error->message);
    return EXIT_FAILURE;
  }
  if (serve (helper, &failure))
    return EXIT_SUCCESS;
  hf_log (HF_LOG_ERROR, "%s", failure->message);
  tell_starter (helper, failure->message);
  return EXIT_FAILURE;
}

static int
print (char *text)
{
  fputs (text, stdout);
  g_free (text);
  return fflush (stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

int
main (int argc, char **argv)
{
  Helper helper = { .starter_fd = -1 };
  g_autoptr (GError) error = NULL;
  int result;

  if (!hf_descriptors_occupy_standard ())
    return EXIT_FAILURE;
  g_set_prgname ("holdfast-pr-helper");
  switch (hf_helper_options_parse (argc, argv, &helper.options, &error)) {
  case HF_HELPER_OPTIONS_RUN:
    if (helper.options.trace && g_strv_contains ((const char *const *)helper.options.trace, "help"))
      result = print (hf_trace_list ());
    else
      result = run (&helper);
    break;
  case HF_HELPER_OPTIONS_HELP:
    result = print (hf_helper_options_help (argv[0]));
    break;
  case HF_HELPER_OPTIONS_VERSION:
    result = print (g_strdup ("holdfast-pr-helper " PACKAGE_VERSION "\n"));
    break;
  case HF_HELPER_OPTIONS_ERROR:
  default:
    hf_log (HF_LOG_ERROR, "%s", error->message);
    hf_log (HF_LOG_ERROR, "Try `%s --help' for more information.", argv[0]);
    result = EXIT_FAILURE;
  }
  helper_clear (&helper);
  return result;
}
