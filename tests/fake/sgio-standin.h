/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the preloaded module (sgio-standin.c) and the process behind it (sgio-broker.c) say to each other: one message of a
 * SOCK_SEQPACKET socket for each SG_IO, with the descriptor, and one back. Both are of one build and one machine.
 */

#include <stdint.h>

/* A marker file: a regular file that was last changed in this second; the nanosecond is its device number. So the module knows it
   by fstat, which every program may call, and needs to read nothing. */
#define STANDIN_MARKER_SECOND 1234
#define STANDIN_SENSE_MAX 252
#define STANDIN_DATA_MAX 65536

typedef enum { STANDIN_NO_DATA, STANDIN_TO_DEVICE, STANDIN_FROM_DEVICE } StandinDirection;

/* Followed by length bytes for STANDIN_TO_DEVICE. */
typedef struct {
  uint64_t id;
  uint32_t direction, length, timeout_ms, cdb_length;
  uint8_t cdb[16];
} StandinRequest;

/* Followed by data_length bytes. */
typedef struct {
  uint64_t id;
  int32_t error; /* errno of the ioctl; 0: it succeeds, and what follows counts */
  int32_t status, host, driver, residual;
  uint32_t sense_length, data_length;
  uint8_t sense[STANDIN_SENSE_MAX];
} StandinReply;

_Static_assert(sizeof (StandinRequest) == 40, "no padding");
_Static_assert(sizeof (StandinReply) == 36 + STANDIN_SENSE_MAX, "no padding");
