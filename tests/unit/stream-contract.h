/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The contract of <holdfast/io.h> as one set of tests for everything that moves bytes: the plain calls, threads, a ring. And the
 * device that misbehaves, for them and for other tests of the engine.
 *
 * Thread: the tests' own; the injector's counters may be asked from any.
 */

#include "stream/fault.h"

#include <holdfast/io.h>

/* One way of moving bytes. Gives 1 for all, 0 for the end of the file before any byte (with eof_ok only), -1 with an error. */
typedef struct {
  const char *name;
  gsize n_iov_max; /* 0: any */
  int (*move) (HfIoOperation operation, gboolean eof_ok, int fd, const struct iovec *iov, gsize n_iov, gint64 offset, gsize *done,
               GError **error);
} Mover;

#define FULL G_MAXSSIZE /* as hf_io_fault's result: the call goes as it should */

/* The faults of the calls 0, 1, 2 ..., then `then` for each. With seed instead: anything that a device may do and a caller bears,
   at random. */
typedef struct {
  const gssize *script;
  guint n;
  gssize then;
  GRand *rand; /* not NULL: at random */
  gsize step;  /* random short results are multiples of this */

  GMutex lock;
  guint calls;
  gboolean was_bad; /* the last random fault moved nothing, or not enough */
  gint64 offsets[64];
  gsize lengths[64];
} Injector;

void injector_start (Injector *injector);
void injector_stop (Injector *injector);

/* Registers /NAME/... for mover, which is static. */
void contract_add (const Mover *mover);

/* An open file of its own, already unlinked, with size bytes of pattern (below). direct: O_DIRECT, in the build folder. */
int contract_file (gsize size, gboolean direct);
guint8 pattern (gint64 offset);

/* The test that calls this runs once more in a process of its own, where the limits that it sets hurt nobody else, and must pass
   there. FALSE in that process. */
gboolean contract_parent (void);
