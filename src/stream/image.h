/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A file with migration state, of whoever: QEMU's own (classic or mapped-ram, also behind an offset), libvirt's save image, or
 * what `holdfast stream capture` wrote. Says where in it the stream lies.
 *
 * NAME.partial, and a libvirt image whose magic says that it is not complete, are refused (HF_STREAM_ERROR_INCOMPLETE); a
 * compressed libvirt image is HF_STREAM_ERROR_UNSUPPORTED, and the message names the format.
 *
 * Thread: one at a time. Errors: HF_STREAM_ERROR, HF_IO_ERROR.
 */

#include "stream/reader.h"
#include "stream/trailer.h"

typedef enum { HF_IMAGE_QEMU, HF_IMAGE_LIBVIRT, HF_IMAGE_HOLDFAST, HF_IMAGE_ANY } HfImageKind;
#define HF_N_IMAGE_KINDS (HF_IMAGE_ANY + 1)
const char *hf_image_kind_name (HfImageKind kind); /* "qemu", "libvirt", "holdfast", "any" */

typedef struct {
  int fd; /* read-only, buffered; -1 after hf_image_of_reader */
  HfReader *reader;
  HfImageKind kind;
  guint64 size;       /* of the file */
  guint64 start, end; /* of the stream in it: without header and trailer */
  gboolean has_trailer;
  HfTrailer trailer;      /* whole, its own checksum tested */
  guint32 libvirt_format; /* 0 raw, 6 sparse */
  gboolean libvirt_was_running;
} HfImage;

/* offset: where the stream begins, for QEMU's file:NAME,offset=N; 0: find out. any: bytes that are no QEMU stream are
   HF_IMAGE_ANY instead of an error. */
HfImage *hf_image_open (const char *path, guint64 offset, gboolean any, GError **error);
/* The same on a reader that the image then owns. */
HfImage *hf_image_of_reader (HfReader *reader, guint64 offset, gboolean any, GError **error);
void hf_image_free (HfImage *image);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (HfImage, hf_image_free)
