/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A device that misbehaves on demand: every positioned transfer of this tree, by system call or by ring, asks here first. Tests
 * set a function; without one, HOLDFAST_FAIL counts (base/fail.h), with the points before-stream-read and before-stream-write and
 * the actions short[:BYTES], zero, error[:ERRNO-NAME] besides stop, kill and delay. Without either it costs two loads.
 *
 * Thread: any. hf_io_fault_set: while no transfer is under way.
 */

#include <glib.h>

typedef enum { HF_IO_READ, HF_IO_WRITE } HfIoOperation;

/* How this transfer of length bytes shall go. length: as it does. 1 to length - 1: at most so many bytes are moved. 0: the call
   moves nothing and returns 0. Negative: the call moves nothing and fails with this errno value (-EINTR ...). */
typedef gssize (*HfIoFault) (HfIoOperation operation, int fd, gint64 offset, gsize length, gpointer data);

/* NULL: none. */
void hf_io_fault_set (HfIoFault fault, gpointer data);
gssize hf_io_fault (HfIoOperation operation, int fd, gint64 offset, gsize length);
