/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns: nothing but what it is given. Thread: one at a time.
 */

#include "config.h"

#include "stream/verify.h"

gboolean
hf_verify_end (int fd, guint64 start, guint64 end, GError **error)
{
  g_autoptr (HfReader) reader = hf_reader_new_fd (fd, end);
  g_autoptr (HfStreamMap) tail = NULL;

  return hf_walk_tail (reader, start, end, &tail, error);
}
