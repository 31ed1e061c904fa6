/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The words of the command line and of the configuration file: those of qemu-pr-helper, and holdfast's own. Thread: main.
 */

#include <glib.h>

typedef struct {
  /* qemu-pr-helper's */
  char *socket, *pidfile;
  gboolean socket_given, pidfile_given; /* on the command line or in the file */
  gboolean socket_on_command_line;
  gboolean daemon, quiet;
  guint verbose;
  char **trace;       /* NULL-terminated */
  char *user, *group; /* NULL: stay who we are */
  /* holdfast's */
  char *config;
  gboolean strict, sandbox;
  guint timeout_ms, request_timeout_ms;
  guint max_clients, max_clients_per_uid;
  int socket_mode; /* -1: as the umask says */
  char **allow_uid, **allow_gid;
  char **device; /* globs; NULL: the devices that the VM's process has open */
  gboolean share_nexus;
  char *state_dir;                        /* NULL: not given */
  char *control;                          /* NULL: no control socket */
  char *metrics;                          /* NULL: none are written */
  char **vmstate_bus, *vmstate_id, **qmp; /* addresses may hold %p, %u, %n */
  gboolean refuse_changes;                /* --on-change=refuse */
  guint commit_warn_s;
} HfHelperOptions;

typedef enum {
  HF_HELPER_OPTIONS_RUN,
  HF_HELPER_OPTIONS_HELP,
  HF_HELPER_OPTIONS_VERSION,
  HF_HELPER_OPTIONS_ERROR
} HfHelperOptionsResult;

/* argv with the program's name. Reads the configuration file; the command line wins, word by word. With _ERROR: G_OPTION_ERROR,
   G_KEY_FILE_ERROR or G_FILE_ERROR. ret may be cleared after any result. */
HfHelperOptionsResult hf_helper_options_parse (int argc, char **argv, HfHelperOptions *ret, GError **error);
void hf_helper_options_clear (HfHelperOptions *options);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (HfHelperOptions, hf_helper_options_clear)

/* Free with g_free. */
char *hf_helper_options_help (const char *program);

/* Names or numbers as numbers. FALSE with G_OPTION_ERROR. */
gboolean hf_helper_user (const char *name, guint *ret, GError **error);
gboolean hf_helper_group (const char *name, guint *ret, GError **error);
