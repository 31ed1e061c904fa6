/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns: nothing. Thread: main, alone.
 *
 * Theory of operation: started as root, everything is dropped as qemu-pr-helper does. Started as another user with capabilities
 * from a unit or a file, groups and bounding set are not ours to change; PR_SET_NO_NEW_PRIVS makes the bounding set worthless
 * anyway. Devices are opened by the clients, so no group is needed.
 *
 * CAP_SYS_PTRACE is the larger of the two: it reads and writes the memory of every process, were it not for the filter of system
 * calls. So it stays only where a Load looks for its LUs among the descriptors of processes, which main decides.
 *
 * What is left is looked at again, each set and each number: this is the one thing that must not go wrong unnoticed.
 */
#include "config.h"

#include "prhelper/privileges.h"

#include <cap-ng.h>
#include <errno.h>
#include <gio/gio.h>
#include <grp.h>
#include <sys/prctl.h>
#include <unistd.h>

static const unsigned int useful[] = { CAP_SYS_RAWIO, CAP_SYS_PTRACE };
#define RAWIO 0
#define PTRACE 1
#define N_USEFUL G_N_ELEMENTS (useful)

typedef struct {
  guint uid, gid; /* what we are to be; never HF_NO_ID */
  gboolean keep[N_USEFUL];
  gboolean may_change; /* user and groups */
  gboolean may_bound;  /* the bounding set */
} Plan;

static gboolean
fail (const char *what, GError **error)
{
  int reason = errno;

  g_set_error (error, G_IO_ERROR, (int)g_io_error_from_errno (reason), "privileges cannot be dropped: %s: %s", what,
               g_strerror (reason));
  return FALSE;
}

static gboolean
has (unsigned int capability)
{
  return capng_have_capability (CAPNG_EFFECTIVE, capability) != 0;
}

static gboolean
left (const char *what, GError **error)
{
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_FAILED, "privileges cannot be dropped: %s", what);
  return FALSE;
}

static gboolean
plan_make (Plan *plan, guint uid, guint gid, gboolean keep_ptrace, GError **error)
{
  if (capng_get_caps_process () != 0)
    return fail ("capabilities cannot be read", error);
  plan->may_change = has (CAP_SETUID) && has (CAP_SETGID);
  plan->may_bound = has (CAP_SETPCAP);
  plan->keep[RAWIO] = has (CAP_SYS_RAWIO);
  plan->keep[PTRACE] = keep_ptrace && has (CAP_SYS_PTRACE);
  plan->uid = uid == HF_NO_ID ? geteuid () : uid;
  plan->gid = gid == HF_NO_ID ? getegid () : gid;
  if ((uid == HF_NO_ID && gid == HF_NO_ID) || plan->may_change)
    return TRUE;
  errno = EPERM;
  return fail ("user and group can only be changed as root", error);
}

static gboolean
apply (const Plan *plan, GError **error)
{
  capng_flags_t flags = CAPNG_DROP_SUPP_GRP | (plan->may_bound ? CAPNG_CLEAR_BOUNDING : CAPNG_NO_FLAG);
  int result;

  capng_clear (CAPNG_SELECT_BOTH);
  for (guint i = 0; i < N_USEFUL; i++)
    if (plan->keep[i] && capng_update (CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED, useful[i]) != 0)
      return fail (capng_capability_to_name (useful[i]), error);
  if (!plan->may_change)
    return capng_apply (plan->may_bound ? CAPNG_SELECT_BOTH : CAPNG_SELECT_CAPS) == 0 || fail ("capabilities", error);
  result = capng_change_id ((int)plan->uid, (int)plan->gid, flags);
  if (result == 0)
    return TRUE;
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_PERMISSION_DENIED, "privileges cannot be dropped: libcap-ng gives up at step %d: %s",
               -result, g_strerror (errno));
  return FALSE;
}

static gboolean
is_kept (const Plan *plan, unsigned int capability)
{
  for (guint i = 0; i < N_USEFUL; i++)
    if (useful[i] == capability)
      return plan->keep[i];
  return FALSE;
}

static gboolean
check_capability (const Plan *plan, unsigned int capability, GError **error)
{
  gboolean kept = is_kept (plan, capability);
  g_autofree char *what = NULL;

  if (!capng_have_capability (CAPNG_PERMITTED, capability) == !kept
      && !capng_have_capability (CAPNG_EFFECTIVE, capability) == !kept && !capng_have_capability (CAPNG_INHERITABLE, capability)
      && prctl (PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, capability, 0, 0) <= 0
      && (!plan->may_bound || prctl (PR_CAPBSET_READ, capability, 0, 0, 0) <= 0))
    return TRUE;
  what = g_strdup_printf ("capability %s is %s", capng_capability_to_name (capability),
                          kept ? "not as it should be" : "still there");
  return left (what, error);
}

static gboolean
check (const Plan *plan, GError **error)
{
  uid_t uids[3];
  gid_t gids[3];

  if (getresuid (&uids[0], &uids[1], &uids[2]) != 0 || getresgid (&gids[0], &gids[1], &gids[2]) != 0)
    return fail ("user and group cannot be read", error);
  for (guint i = 0; i < G_N_ELEMENTS (uids) && plan->may_change; i++)
    if (uids[i] != plan->uid || gids[i] != plan->gid)
      return left ("user or group is another", error);
  if (plan->may_change && getgroups (0, NULL) != 0)
    return left ("supplementary groups are still there", error);
  capng_clear (CAPNG_SELECT_BOTH);
  if (capng_get_caps_process () != 0)
    return fail ("capabilities cannot be read", error);
  for (unsigned int capability = 0; capability <= CAP_LAST_CAP; capability++)
    if (!check_capability (plan, capability, error))
      return FALSE;
  if (prctl (PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1)
    return left ("no_new_privs is not set", error);
  return TRUE;
}

gboolean
hf_privileges_drop (guint uid, guint gid, gboolean keep_ptrace, gboolean *ret_rawio, GError **error)
{
  Plan plan;

  if (!plan_make (&plan, uid, gid, keep_ptrace, error) || !apply (&plan, error))
    return FALSE;
  if (prctl (PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
    return fail ("PR_SET_NO_NEW_PRIVS", error);
  if (!check (&plan, error))
    return FALSE;
  *ret_rawio = plan.keep[RAWIO];
  return TRUE;
}
