/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Owns: the error domain of this folder. Thread: any; pure. */
#include "config.h"

#include "stream/stream-error.h"

G_DEFINE_QUARK (hf - stream - error - quark, hf_stream_error)
