/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns: the LUs this process has open. Thread: main; hf_session_open_all opens on worker threads, each with LUs of its own, and
 * returns when all are done.
 *
 * Theory of operation: a new login is a new nexus on some targets, and a nexus is what a registration belongs to. So an LU that
 * was opened once stays open until the session ends, under the words that named the nexus: address, initiator name and ISID. The
 * deadline is not among them: the same name and ISID again would throw the first login out.
 */
#include "config.h"

#include "cli/cli.h"
#include "scsi/iscsi-address.h"

#include <string.h>

/* Logins and INQUIRYs wait for the network, not for a processor. */
#define OPEN_THREADS 64

struct _HfSession {
  GHashTable *lus; /* char * -> HfLu * */
  gboolean name_ignored;
};

HfSession *
hf_session_new (void)
{
  HfSession *session = g_new0 (HfSession, 1);
  session->lus = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, (GDestroyNotify)hf_lu_free);
  return session;
}

void
hf_session_free (HfSession *session)
{
  if (!session)
    return;
  g_hash_table_unref (session->lus);
  g_free (session);
}

/* Newlines cannot stand in an address that opens. */
static char *
nexus_words (const HfOptions *options, const char *address)
{
  return g_strdup_printf ("%s\n%s\n%d%012" G_GINT64_MODIFIER "x", address, options->initiator_name ? options->initiator_name : "",
                          options->has_isid, options->isid);
}

static HfLu *
open_lu (const HfOptions *options, const char *address, GError **error)
{
  HfLuOptions lu_options = {
    .initiator_name = options->initiator_name,
    .has_isid = options->has_isid,
    .isid = options->isid,
    .timeout_ms = options->timeout_ms,
  };
  return hf_lu_open (address, &lu_options, error);
}

void
hf_session_add (HfSession *session, const HfOptions *options, const char *address, HfLu *lu)
{
  g_hash_table_replace (session->lus, nexus_words (options, address), lu);
}

/* The kernel logged in for a device node: who asks for a nexus of his choice there gets another one, and has to be told. */
static void
note_ignored_name (HfSession *session, const HfOptions *options, const char *address)
{
  session->name_ignored |= (options->initiator_name || options->has_isid) && !strstr (address, "://");
}

gboolean
hf_session_take_name_ignored (HfSession *session)
{
  gboolean ignored = session->name_ignored;

  session->name_ignored = FALSE;
  return ignored;
}

/* NULL: not open. */
static HfLu *
find_lu (HfSession *session, const HfOptions *options, const char *address)
{
  g_autofree char *words = nexus_words (options, address);
  HfLu *lu = g_hash_table_lookup (session->lus, words);

  if (lu)
    hf_lu_set_timeout (lu, options->timeout_ms);
  return lu;
}

HfLu *
hf_session_open (HfSession *session, const HfOptions *options, const char *address, GError **error)
{
  g_autofree char *words = nexus_words (options, address);
  HfLu *lu = find_lu (session, options, address);

  if (lu)
    return lu;
  if (!*address) {
    hf_usage_error (error, "the name of an LU is empty");
    return NULL;
  }
  note_ignored_name (session, options, address);
  lu = open_lu (options, address, error);
  if (lu)
    g_hash_table_insert (session->lus, g_steal_pointer (&words), lu);
  return lu;
}

typedef struct {
  const HfOptions *options;
  const char *address;
  gboolean identity;
  HfLu *lu; /* may be open before */
  GError *error;
} OpenJob;

static void
open_job (gpointer data, gpointer unused)
{
  OpenJob *job = data;

  if (!job->lu)
    job->lu = open_lu (job->options, job->address, &job->error);
  if (job->lu && job->identity)
    hf_lu_get_identity (job->lu, &job->error);
}

static void
run_jobs (OpenJob *jobs, guint n)
{
  GThreadPool *pool;

  /* One LU needs no thread, and so its commands come in an order that tests can count on. */
  if (n == 1) {
    open_job (&jobs[0], NULL);
    return;
  }
  pool = g_thread_pool_new (open_job, NULL, OPEN_THREADS, FALSE, NULL);
  for (guint i = 0; i < n; i++)
    g_thread_pool_push (pool, &jobs[i], NULL);
  g_thread_pool_free (pool, FALSE, TRUE);
}

static gboolean
check_addresses (char *const *addresses, GError **error)
{
  for (guint i = 0; addresses[i]; i++) {
    if (!*addresses[i])
      return hf_usage_error (error, "the name of an LU is empty");
    if (g_strv_contains ((const char *const *)addresses + i + 1, addresses[i])) {
      g_autofree char *shown = hf_iscsi_address_without_password (addresses[i]);
      return hf_usage_error (error, "%s is named twice", shown);
    }
  }
  return TRUE;
}

static void
free_error (gpointer error)
{
  g_clear_error ((GError **)&error);
}

gboolean
hf_session_open_all (HfSession *session, const HfOptions *options, char *const *addresses, gboolean identities,
                     GPtrArray **ret_lus, GPtrArray **ret_errors, GError **error)
{
  guint n = g_strv_length ((char **)addresses);
  g_autofree OpenJob *jobs = g_new0 (OpenJob, n + 1);

  if (!check_addresses (addresses, error))
    return FALSE;
  for (guint i = 0; i < n; i++) {
    jobs[i] = (OpenJob){ options, addresses[i], identities, find_lu (session, options, addresses[i]), NULL };
    if (!jobs[i].lu)
      note_ignored_name (session, options, addresses[i]);
  }
  if (n > 0)
    run_jobs (jobs, n);

  *ret_lus = g_ptr_array_new ();
  *ret_errors = g_ptr_array_new_with_free_func (free_error);
  for (guint i = 0; i < n; i++) {
    g_autofree char *words = nexus_words (options, addresses[i]);
    if (jobs[i].lu && !g_hash_table_contains (session->lus, words))
      g_hash_table_insert (session->lus, g_steal_pointer (&words), jobs[i].lu);
    g_ptr_array_add (*ret_lus, jobs[i].lu);
    g_ptr_array_add (*ret_errors, jobs[i].error);
  }
  return TRUE;
}
