/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns nothing. Thread: see the header.
 *
 * Theory of operation: open gives the lowest free number. So a program that was started with its standard output closed opens a
 * disk as descriptor 1, and its next message becomes the disk's first sector.
 */
#include "config.h"

#include "base/descriptors.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

gboolean
hf_descriptors_occupy_standard (void)
{
  for (int fd = 0; fd <= STDERR_FILENO; fd++) {
    if (fcntl (fd, F_GETFD) >= 0 || errno != EBADF)
      continue;
    /* Against the grain: reading from 0 and writing to 1 and 2 fail, and so are noticed. Lower numbers are taken: this is fd. */
    if (open ("/dev/null", (fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) | O_NOCTTY) != fd)
      return FALSE;
  }
  return TRUE;
}

int
hf_descriptor_above_standard (int fd)
{
  int above, reason;

  if (fd < 0 || fd > STDERR_FILENO)
    return fd;
  above = fcntl (fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
  reason = errno;
  close (fd);
  errno = reason;
  return above;
}
