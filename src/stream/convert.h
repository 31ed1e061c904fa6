/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Classic to mapped-ram and back. The input is verified as it is read; the output is verified before it is committed (verify.h),
 * and appears whole or not at all.
 *
 * To classic: CONFIGURATION without the capability, START, early devices, then every page once: those of clear bits as ZERO
 * items, because the destination's memory need not be zero (firmware), then END and everything behind it as it was.
 *
 * Of a libvirt image only the stream is converted; the output is a file of QEMU's own. Checksums of the input, if it has some,
 * are tested on the way. HF_STREAM_ERROR_UNSUPPORTED: x-ignore-shared (the memory is not in the file), a stream without
 * CONFIGURATION; to mapped-ram also what mapped-writer.h names.
 *
 * Thread: one at a time. Errors: HF_STREAM_ERROR, HF_IO_ERROR.
 */

#include "stream/capture.h"
#include "stream/image.h"

typedef struct {
  HfSaveFlags flags;
  HfEngineKind engine;
} HfConvertOptions;

gboolean hf_convert_to_mapped (HfImage *image, const char *output, const HfConvertOptions *options, const HfStreamJob *job,
                               GError **error);
/* The output gets a trailer, like every capture. */
gboolean hf_convert_to_classic (HfImage *image, const char *output, const HfConvertOptions *options, const HfStreamJob *job,
                                GError **error);
