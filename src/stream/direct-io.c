/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns nothing but what it gives away. Any thread.
 *
 * Sources: open(2) on O_DIRECT, statx(2) on STATX_DIOALIGN, mincore(2), madvise(2).
 */

#include "config.h"

#include "stream/direct-io.h"

#include "stream/stream-error.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define ALIGNMENT_MIN 4096u
#define ALIGNMENT_MAX 65536u
#define SAMPLES 64u

guint
hf_direct_alignment (int fd)
{
  guint alignment = MAX (ALIGNMENT_MIN, (guint)sysconf (_SC_PAGESIZE));
#ifdef STATX_DIOALIGN
  struct statx st;

  if (statx (fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &st) == 0 && (st.stx_mask & STATX_DIOALIGN) != 0) {
    if (st.stx_dio_offset_align == 0)
      return 0;
    alignment = MAX (alignment, MAX (st.stx_dio_offset_align, st.stx_dio_mem_align));
  }
#else
  (void)fd;
#endif
  return alignment <= ALIGNMENT_MAX && (alignment & (alignment - 1)) == 0 ? alignment : 0;
}

int
hf_direct_open_to_read (int fd, guint *ret_alignment)
{
  g_autofree char *name = g_strdup_printf ("/proc/self/fd/%d", fd);
  int direct = open (name, O_RDONLY | O_DIRECT | O_CLOEXEC | O_NOCTTY);

  if (direct < 0)
    return -1;
  *ret_alignment = hf_direct_alignment (direct);
  if (*ret_alignment != 0)
    return direct;
  close (direct);
  return -1;
}

gboolean
hf_direct_is_cached (int fd, guint64 start, guint64 length)
{
  gsize page = (gsize)sysconf (_SC_PAGESIZE);
  guint cached = 0;

  for (guint i = 0; i < SAMPLES; i++) {
    guint64 offset = (start + length / SAMPLES * i) / page * page;
    unsigned char present = 0;
    void *memory = mmap (NULL, page, PROT_READ, MAP_SHARED, fd, (off_t)offset);

    if (memory == MAP_FAILED)
      return TRUE;
    if (mincore (memory, page, &present) == 0)
      cached += present & 1;
    munmap (memory, page);
  }
  return cached * 2 >= SAMPLES;
}

guint8 *
hf_direct_memory_new (gsize size, GError **error)
{
  guint8 *memory = mmap (NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

  if (memory == MAP_FAILED) {
    g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_FILE, "%" G_GSIZE_FORMAT " bytes of memory: %s", size,
                 g_strerror (errno));
    return NULL;
  }
  /* A fork while direct I/O runs on private memory may lose it (open(2)). Large pages are cheaper to pin. Neither may fail us. */
  (void)madvise (memory, size, MADV_DONTFORK);
  (void)madvise (memory, size, MADV_HUGEPAGE);
  return memory;
}

void
hf_direct_memory_free (guint8 *memory, gsize size)
{
  if (memory)
    munmap (memory, size);
}
