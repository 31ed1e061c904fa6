/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the files of the contract set share. Thread: the tests' own. */

#include "stream-contract.h"

typedef struct {
  const Mover *mover;
  HfIoOperation operation;
} Case;

enum { READS = 1, WRITES = 2 };

typedef struct {
  const char *name;
  guint operations;
  void (*run) (gconstpointer data); /* of a Case */
} ContractTest;

extern const ContractTest contract_direct_tests[];
extern const guint contract_n_direct_tests;

/* One transfer by the case's mover, and what holds for each. */
int contract_move (const Case *test, gboolean eof_ok, int fd, const struct iovec *iov, gsize n_iov, gint64 offset, gsize *done,
                   GError **error);

/* The message names operation, offset, wanted, moved and errno (0: there is none). */
void contract_assert_error (const Case *test, const GError *error, HfIoError code, gint64 offset, gsize wanted, gsize moved,
                            int errnum);
