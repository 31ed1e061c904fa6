/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A stream from a descriptor into a file, and back.
 *
 * Capture commits only what is whole: RAM END was seen while it passed (feed.h), and the end of the file is that of a QEMU stream
 * (verify.h). Everything else leaves the old file as it was. The outcome goes into FILE.status.
 *
 * Thread: one at a time. Errors: HF_STREAM_ERROR, HF_IO_ERROR.
 */

#include "stream/engine.h"
#include "stream/save-file.h"
#include "stream/status.h"

typedef struct {
  HfSaveFlags flags;
  HfEngineKind engine;
  guint64 offset;  /* the stream goes behind so many bytes of the old file */
  gboolean any;    /* not a QEMU stream: end of input is the end */
  gboolean mapped; /* write mapped-ram (mapped-writer.h); not together with any */
  const char *id;  /* goes into the status; NULL: none */
  /* Gives the input if that is -1, when the file is locked already and the old status gone, so that who waits sees a capture.
     What it gives stays its own. */
  int (*open_input) (gpointer data, const HfStreamJob *job, GError **error);
  gpointer data;
} HfCaptureOptions;

/* Reads input (a pipe, a socket, a regular file from its file position on) to its end. ret_status (clear it with
   hf_stream_status_clear) is filled in any case, and written to FILE.status. If only that fails, so does the call, and ret_status
   says that it is committed. */
gboolean hf_capture (int input, const char *path, const HfCaptureOptions *options, const HfStreamJob *job,
                     HfStreamStatus *ret_status, GError **error);

typedef struct {
  HfEngineKind engine;
  guint64 offset;     /* as hf_image_open */
  gboolean any;       /* as hf_image_open */
  gboolean no_verify; /* do not test the checksums on the way */
} HfReplayOptions;

/* Writes the payload of path to output (a pipe, a socket, a file): of ours, of a libvirt image (without its header) or of QEMU's.
   A block whose checksum is wrong is not written: the stream breaks off before it, so that QEMU fails instead of loading it.
   mapped-ram is HF_STREAM_ERROR_UNSUPPORTED (QEMU loads it with file:, and convert makes it classic). */
gboolean hf_replay (const char *path, int output, const HfReplayOptions *options, const HfStreamJob *job, guint64 *ret_bytes,
                    GError **error);
