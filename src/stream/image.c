/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns: an open file and where the stream lies in it. Thread: one at a time.
 *
 * Theory of operation: what stands at the end (our trailer) counts before what stands at the start (libvirt's header, "QEVM"),
 * because a capture with --offset has both: such a file is ours, and the trailer says where its payload begins. libvirt's header
 * is looked at all the same: it may say that the file is not complete.
 *
 * libvirt's header, of qemu_saveimage.h there (QEMU_SAVE_VERSION 2), 92 bytes in the byte order of the host that wrote it:
 *   0 magic[16]   16 version   20 data_len   24 was_running   28 format   32 cookieOffset   36 unused[14]
 * The stream begins behind it and data_len bytes (the domain's XML, a cookie, padding).
 */

#include "config.h"

#include "stream/image.h"

#include "base/bytes.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define QEVM_MAGIC "QEVM"
#define QEVM_MAGIC_SIZE 4u

#define LIBVIRT_MAGIC "LibvirtQemudSave"
#define LIBVIRT_MAGIC_PARTIAL "LibvirtQemudPart"
#define LIBVIRT_MAGIC_SIZE 16u
#define LIBVIRT_HEADER_SIZE 92u
#define LIBVIRT_VERSION 2u
#define LIBVIRT_RAW 0u
#define LIBVIRT_SPARSE 6u

static const char *const kind_names[] = { "qemu", "libvirt", "holdfast", "any" };
G_STATIC_ASSERT (G_N_ELEMENTS (kind_names) == HF_N_IMAGE_KINDS);

/* virQEMUSaveFormat. */
static const char *const libvirt_formats[] = { "raw", "gzip", "bzip2", "xz", "lzop", "zstd", "sparse" };
G_STATIC_ASSERT (G_N_ELEMENTS (libvirt_formats) == LIBVIRT_SPARSE + 1);

const char *
hf_image_kind_name (HfImageKind kind)
{
  g_return_val_if_fail ((guint)kind < HF_N_IMAGE_KINDS, NULL);
  return kind_names[kind];
}

void
hf_image_free (HfImage *image)
{
  if (!image)
    return;
  hf_reader_free (image->reader);
  hf_trailer_clear (&image->trailer);
  if (image->fd >= 0)
    close (image->fd);
  g_free (image);
}

/* The trailer, if the file ends with one. FALSE: there is one, and it is damaged, or it could not be read. */
static gboolean
find_trailer (HfImage *image, GError **error)
{
  guint8 footer[HF_TRAILER_FOOTER_SIZE];
  HfTrailer outline = { 0 }; /* without checksums: nothing to free */
  g_autofree guint8 *bytes = NULL;
  guint64 length;

  if (image->size < sizeof footer)
    return TRUE;
  if (!hf_reader_get (image->reader, image->size - sizeof footer, footer, sizeof footer, error))
    return FALSE;
  if (!hf_trailer_is_footer (footer))
    return TRUE;
  if (!hf_trailer_decode_footer (footer, image->size, &outline, error))
    return FALSE;
  /* hf_trailer_decode_footer has bounded it by the file; the file may be sparse and promise more than there is memory. */
  length = outline.n_blocks * sizeof (guint64) + sizeof footer;
  bytes = g_try_malloc (length);
  if (!bytes) {
    g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_UNSUPPORTED,
                 "no memory for the trailer of %" G_GUINT64_FORMAT " checksums", outline.n_blocks);
    return FALSE;
  }
  if (!hf_reader_get_large (image->reader, image->size - length, bytes, length, error)
      || !hf_trailer_decode_take (&bytes, length, image->size, &image->trailer, error))
    return FALSE;
  image->has_trailer = TRUE;
  image->kind = HF_IMAGE_HOLDFAST;
  image->start = image->trailer.payload_offset;
  image->end = image->start + image->trailer.payload_length;
  return TRUE;
}

static guint32
get_libvirt_u32 (const guint8 *header, guint offset, gboolean swap)
{
  guint32 value;

  memcpy (&value, header + offset, sizeof value);
  return swap ? GUINT32_SWAP_LE_BE (value) : value;
}

/* header: whole, with either magic. *ret_start: where the stream begins. */
static gboolean
decode_libvirt (HfImage *image, const guint8 *header, guint64 *ret_start, GError **error)
{
  gboolean swap = get_libvirt_u32 (header, 16, FALSE) > LIBVIRT_VERSION;
  guint32 version = get_libvirt_u32 (header, 16, swap);
  guint32 format = get_libvirt_u32 (header, 28, swap);

  if (memcmp (header, LIBVIRT_MAGIC_PARTIAL, LIBVIRT_MAGIC_SIZE) == 0) {
    g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_INCOMPLETE,
                 "libvirt's header says that the image is not complete (magic " LIBVIRT_MAGIC_PARTIAL ")");
    return FALSE;
  }
  if (version != LIBVIRT_VERSION) {
    g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_UNSUPPORTED, "libvirt's header has version %u, known is %u", version,
                 LIBVIRT_VERSION);
    return FALSE;
  }
  if (format != LIBVIRT_RAW && format != LIBVIRT_SPARSE) {
    g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_UNSUPPORTED,
                 "libvirt's image has format %u (%s); readable are %s and %s", format,
                 format < G_N_ELEMENTS (libvirt_formats) ? libvirt_formats[format] : "unknown", libvirt_formats[LIBVIRT_RAW],
                 libvirt_formats[LIBVIRT_SPARSE]);
    return FALSE;
  }
  image->libvirt_format = format;
  image->libvirt_was_running = get_libvirt_u32 (header, 24, swap) != 0;
  *ret_start = (guint64)LIBVIRT_HEADER_SIZE + get_libvirt_u32 (header, 20, swap);
  return TRUE;
}

/* *ret_start 0: there is no such header. */
static gboolean
find_libvirt (HfImage *image, guint64 *ret_start, GError **error)
{
  guint8 header[LIBVIRT_HEADER_SIZE];

  *ret_start = 0;
  if (image->size < LIBVIRT_MAGIC_SIZE)
    return TRUE;
  if (!hf_reader_get (image->reader, 0, header, LIBVIRT_MAGIC_SIZE, error))
    return FALSE;
  if (memcmp (header, LIBVIRT_MAGIC, LIBVIRT_MAGIC_SIZE) != 0 && memcmp (header, LIBVIRT_MAGIC_PARTIAL, LIBVIRT_MAGIC_SIZE) != 0)
    return TRUE;
  return hf_reader_get (image->reader, 0, header, sizeof header, error) && decode_libvirt (image, header, ret_start, error);
}

/* TRUE: a QEMU stream, or at least its first bytes, stand at the start; or any may. */
static gboolean
check_magic (HfImage *image, gboolean any, GError **error)
{
  guint8 magic[QEVM_MAGIC_SIZE];
  gsize length;

  if (image->start > image->end) {
    g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_INCOMPLETE,
                 "the stream should begin at offset %" G_GUINT64_FORMAT ", but the file ends at %" G_GUINT64_FORMAT, image->start,
                 image->end);
    return FALSE;
  }
  length = MIN (sizeof magic, image->end - image->start);
  if (!hf_reader_get (image->reader, image->start, magic, length, error))
    return FALSE;
  if (length == sizeof magic && memcmp (magic, QEVM_MAGIC, length) == 0)
    return TRUE;
  if (any) {
    image->kind = HF_IMAGE_ANY;
    return TRUE;
  }
  if (memcmp (magic, QEVM_MAGIC, length) == 0)
    g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_INCOMPLETE,
                 "the stream ends at offset %" G_GUINT64_FORMAT ", before its header is complete", image->end);
  else
    g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_MALFORMED,
                 "no QEMU migration stream at offset %" G_GUINT64_FORMAT ": it does not begin with " QEVM_MAGIC, image->start);
  return FALSE;
}

static gboolean
find_stream (HfImage *image, guint64 offset, gboolean any, GError **error)
{
  guint64 behind_libvirt, found;

  image->end = image->size;
  if (!find_trailer (image, error) || !find_libvirt (image, &behind_libvirt, error))
    return FALSE;
  found = image->has_trailer ? image->start : behind_libvirt;
  if (offset && (image->has_trailer || behind_libvirt) && offset != found) {
    g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_MALFORMED,
                 "the stream begins at offset %" G_GUINT64_FORMAT " as the file says, not at %" G_GUINT64_FORMAT, found, offset);
    return FALSE;
  }
  if (!image->has_trailer) {
    image->kind = behind_libvirt ? HF_IMAGE_LIBVIRT : HF_IMAGE_QEMU;
    image->start = behind_libvirt ? behind_libvirt : offset;
  }
  return check_magic (image, any, error);
}

HfImage *
hf_image_of_reader (HfReader *reader, guint64 offset, gboolean any, GError **error)
{
  g_autoptr (HfImage) image = g_new0 (HfImage, 1);

  image->fd = -1;
  image->reader = reader;
  image->size = hf_reader_size (reader);
  return find_stream (image, offset, any, error) ? g_steal_pointer (&image) : NULL;
}

/* A regular file; a FIFO does not block the open. */
static int
open_regular (const char *path, guint64 *ret_size, GError **error)
{
  int fd = open (path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  struct stat st;

  if (fd < 0 || fstat (fd, &st) < 0) {
    g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE, "open: %s", g_strerror (errno));
    if (fd >= 0)
      close (fd);
    return -1;
  }
  if (!S_ISREG (st.st_mode)) {
    g_set_error_literal (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE, "open: not a regular file");
    close (fd);
    return -1;
  }
  *ret_size = (guint64)st.st_size;
  return fd;
}

HfImage *
hf_image_open (const char *path, guint64 offset, gboolean any, GError **error)
{
  HfImage *image;
  guint64 size;
  int fd;

  if (g_str_has_suffix (path, ".partial")) {
    g_set_error_literal (error, HF_STREAM_ERROR, HF_STREAM_ERROR_INCOMPLETE,
                         "a file .partial is what a capture has not committed");
    return NULL;
  }
  fd = open_regular (path, &size, error);
  if (fd < 0)
    return NULL;
  image = hf_image_of_reader (hf_reader_new_fd (fd, size), offset, any, error);
  if (!image)
    close (fd);
  else
    image->fd = fd;
  return image;
}
