/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns the process' one hook for transfers that go wrong on demand.
 *
 * Thread: hf_io_fault: any; the hook is set while nothing moves, so its two words need no lock, only an order.
 */

#include "config.h"

#include "base/fail.h"
#include "stream/fault.h"

static const char *const steps[] = { [HF_IO_READ] = "stream-read", [HF_IO_WRITE] = "stream-write" };

static gpointer hook_data;
static gpointer hook; /* atomic: of HfIoFault */

void
hf_io_fault_set (HfIoFault fault, gpointer data)
{
  hook_data = data;
  g_atomic_pointer_set (&hook, (gpointer)fault);
}

static gssize
environment_fault (HfIoOperation operation, gsize length)
{
  guint argument = 0;

  switch (hf_fail_point ("before", steps[operation], FALSE, &argument)) {
  case HF_FAIL_SHORT:
    return MIN (argument, length);
  case HF_FAIL_ZERO:
    return 0;
  case HF_FAIL_ERROR:
    return -(gssize)argument;
  default:
    return length;
  }
}

gssize
hf_io_fault (HfIoOperation operation, int fd, gint64 offset, gsize length)
{
  HfIoFault fault = (HfIoFault)g_atomic_pointer_get (&hook);

  return G_UNLIKELY (fault) ? fault (operation, fd, offset, length, hook_data) : environment_fault (operation, length);
}
