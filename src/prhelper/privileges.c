/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns: nothing. Thread: main, alone.
 *
 * Theory of operation: started as root, everything is dropped as qemu-pr-helper does. Started as another user with CAP_SYS_RAWIO
 * from a unit or a file, groups and bounding set are not ours to change; PR_SET_NO_NEW_PRIVS makes the bounding set worthless
 * anyway. Devices are opened by the clients, so no group is needed.
 */
#include "config.h"

#include "prhelper/privileges.h"

#include <cap-ng.h>
#include <errno.h>
#include <gio/gio.h>
#include <sys/prctl.h>
#include <unistd.h>

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
apply (guint uid, guint gid, capng_flags_t flags, gboolean may_change, GError **error)
{
  int result;

  if (!may_change)
    return capng_apply (CAPNG_SELECT_CAPS) == 0 || fail ("capabilities", error);
  result = capng_change_id (uid == HF_NO_ID ? (int)getuid () : (int)uid, gid == HF_NO_ID ? (int)getgid () : (int)gid, flags);
  if (result == 0)
    return TRUE;
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_PERMISSION_DENIED, "privileges cannot be dropped: libcap-ng gives up at step %d: %s",
               -result, g_strerror (errno));
  return FALSE;
}

/* What is left is looked at again: this is the one thing that must not go wrong unnoticed. */
static gboolean
check (GError **error)
{
  capng_clear (CAPNG_SELECT_BOTH);
  if (capng_get_caps_process () != 0)
    return fail ("capabilities cannot be read", error);
  for (unsigned int capability = 0; capability <= CAP_LAST_CAP; capability++)
    if (capability != CAP_SYS_RAWIO
        && (capng_have_capability (CAPNG_PERMITTED, capability) || capng_have_capability (CAPNG_INHERITABLE, capability))) {
      g_set_error (error, G_IO_ERROR, G_IO_ERROR_FAILED, "privileges cannot be dropped: %s is still there",
                   capng_capability_to_name (capability));
      return FALSE;
    }
  return TRUE;
}

gboolean
hf_privileges_drop (guint uid, guint gid, gboolean *ret_rawio, GError **error)
{
  capng_flags_t flags = CAPNG_NO_FLAG;
  gboolean may_change, rawio;

  if (capng_get_caps_process () != 0)
    return fail ("capabilities cannot be read", error);
  rawio = has (CAP_SYS_RAWIO);
  may_change = has (CAP_SETUID) && has (CAP_SETGID);
  if ((uid != HF_NO_ID || gid != HF_NO_ID) && !may_change) {
    errno = EPERM;
    return fail ("user and group can only be changed as root", error);
  }
  if (may_change)
    flags |= CAPNG_DROP_SUPP_GRP;
  if (has (CAP_SETPCAP))
    flags |= CAPNG_CLEAR_BOUNDING;
  capng_clear (CAPNG_SELECT_BOTH);
  if (rawio && capng_update (CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED, CAP_SYS_RAWIO) != 0)
    return fail ("CAP_SYS_RAWIO", error);
  if (!apply (uid, gid, flags, may_change, error) || !check (error))
    return FALSE;
  if (prctl (PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
    return fail ("PR_SET_NO_NEW_PRIVS", error);
  *ret_rawio = rawio;
  return TRUE;
}
