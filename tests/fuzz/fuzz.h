/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What a fuzz target defines: reads length bytes of data, a block of exactly that size (data may be NULL if length is 0), and
   aborts if something that must hold does not. Returns 0. Thread: one. */

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t length);
