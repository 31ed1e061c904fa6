/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Is a file whole: what is, is found good; of what is not, the report names block, page and offset.
 */
#include "config.h"

#include "../fake/qemu-stream.h"
#include "base/bytes.h"
#include "stream/verify.h"

#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

static const FakeStreamOptions classic = { .n_pages = 12 };
static const FakeStreamOptions mapped = { .n_pages = 70, .mapped = TRUE };

static HfVerifyReport *
verify_bytes (const GByteArray *bytes, guint64 offset, gboolean any, HfVerifyFlags flags)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (HfImage) image = hf_image_of_reader (hf_reader_new_memory (bytes->data, bytes->len), offset, any, &error);
  HfVerifyReport *report = NULL;

  g_assert_no_error (error);
  g_assert_true (hf_verify_image (image, flags, NULL, &report, &error));
  g_assert_no_error (error);
  return report;
}

/* In a file of its own, which has no name any more. */
static int
make_file (const GByteArray *bytes)
{
  g_autofree char *path = NULL;
  int fd = g_file_open_tmp ("holdfast-verify-XXXXXX", &path, NULL);

  g_assert_cmpint (fd, >=, 0);
  g_assert_cmpint (g_unlink (path), ==, 0);
  g_assert_cmpint (write (fd, bytes->data, bytes->len), ==, bytes->len);
  return fd;
}

/* Closes fd. */
static HfVerifyReport *
verify_fd (int fd, const HfStreamJob *job, GError **error)
{
  g_autofree char *path = g_strdup_printf ("/proc/self/fd/%d", fd);
  g_autoptr (HfImage) image = hf_image_open (path, 0, FALSE, error);
  HfVerifyReport *report = NULL;

  g_assert_nonnull (image);
  g_assert_true (hf_verify_image (image, HF_VERIFY_DEFAULT, job, &report, error) == (report != NULL));
  close (fd);
  return report;
}

static HfVerifyReport *
verify_file (const GByteArray *bytes, const HfStreamJob *job, GError **error)
{
  return verify_fd (make_file (bytes), job, error);
}

static void
assert_no_problem (const HfVerifyReport *report)
{
  if (report->n_problems)
    g_error ("%s", (const char *)g_ptr_array_index (report->problems, 0));
  g_assert_cmpuint (report->problems->len, ==, 0);
  g_assert_false (report->incomplete);
}

/* One of the lines says all of these. */
static void
assert_problem (const HfVerifyReport *report, const char *a, const char *b, const char *c)
{
  g_autoptr (GString) all = g_string_new (NULL);

  g_assert_cmpuint (report->n_problems, >=, report->problems->len);
  for (guint i = 0; i < report->problems->len; i++) {
    const char *line = g_ptr_array_index (report->problems, i);

    if (strstr (line, a) && strstr (line, b) && strstr (line, c))
      return;
    g_string_append_printf (all, "\n%s", line);
  }
  g_error ("no line says \"%s\", \"%s\" and \"%s\":%s", a, b, c, all->str);
}

static guint64
count_present (const FakeStream *stream)
{
  guint64 n = 0;

  for (guint block = 0; block < FAKE_N_BLOCKS; block++) {
    for (guint at = 0; at < stream->ram[block]->len; at += stream->page_size) {
      const guint8 *page = stream->ram[block]->data + at;

      n += page[0] != 0 || memcmp (page, page + 1, stream->page_size - 1) != 0;
    }
  }
  return n;
}

static void
test_good (void)
{
  const FakeStreamOptions options[] = { classic, mapped, { .n_pages = 3, .mapped = TRUE, .offset = 12345 } };

  for (guint i = 0; i < G_N_ELEMENTS (options); i++) {
    for (guint quick = 0; quick < 2; quick++) {
      g_autoptr (FakeStream) stream = fake_stream_new (&options[i]);
      g_autoptr (HfVerifyReport) report = verify_bytes (stream->bytes, options[i].offset, FALSE, quick ? HF_VERIFY_QUICK : 0);

      assert_no_problem (report);
      g_assert_false (report->checksums);
      g_assert_cmpuint (report->present_pages, ==, options[i].mapped ? count_present (stream) : 0);
      g_assert_cmpuint (report->forward->blocks->len, ==, FAKE_N_BLOCKS);
      g_assert_cmpuint (report->tail->end, ==, stream->bytes->len);
    }
  }
}

/* The description says something that only one of the walks goes by (see test-stream-walks.c): one line, of that walk. */
static void
test_one_walk_is_wrong (void)
{
  static const struct {
    const char *text, *by, *walk;
  } cases[] = {
    { "\"array_len\": 8, ", "\"array_len\": 7, ", "forward: " },
    { "\"size\": 33}", "\"size\": 32}", "from the end: " },
  };

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (FakeStream) stream = fake_stream_new (&classic);
    guint8 *found = memmem (stream->bytes->data, stream->bytes->len, cases[i].text, strlen (cases[i].text));
    g_autoptr (HfVerifyReport) report = NULL;

    g_assert_nonnull (found);
    memcpy (found, cases[i].by, strlen (cases[i].by));
    report = verify_bytes (stream->bytes, 0, FALSE, 0);
    g_assert_cmpuint (report->n_problems, ==, 1);
    g_assert_true (g_str_has_prefix (g_ptr_array_index (report->problems, 0), cases[i].walk));
    g_assert_false (report->incomplete);
  }
}

/* Behind bytes, whose payload begins at start. */
static void
append_trailer (GByteArray *bytes, guint64 start, guint32 block_size)
{
  HfTrailer trailer = {
    .block_size = block_size, .payload_offset = start, .payload_length = bytes->len - start, .flags = HF_TRAILER_COMPLETE
  };
  g_autoptr (GBytes) encoded = NULL;

  trailer.n_blocks = hf_trailer_count_blocks (start, trailer.payload_length, block_size);
  trailer.checksums = g_new (guint64, trailer.n_blocks);
  for (guint64 i = 0; i < trailer.n_blocks; i++) {
    guint64 offset, length;

    hf_trailer_block (&trailer, i, &offset, &length);
    trailer.checksums[i] = hf_trailer_checksum (bytes->data + offset, length);
  }
  encoded = hf_trailer_encode (&trailer);
  g_byte_array_append (bytes, g_bytes_get_data (encoded, NULL), (guint)g_bytes_get_size (encoded));
  hf_trailer_clear (&trailer);
}

/* A dirty bitmap, VFIO: saved in rounds as RAM is, in a format of its own. */
static void
make_other_iterable (FakeStream *stream)
{
  guint8 *id = memmem (stream->bytes->data, stream->bytes->len, "\003ram", 4);

  g_assert_nonnull (id);
  id[2] = 'o';
}

/* What nobody can prove is not bad: as long as all else is right. */
static void
test_unproved (void)
{
  const FakeStreamOptions *options[] = { &classic, &mapped };

  for (guint i = 0; i < G_N_ELEMENTS (options); i++) {
    g_autoptr (FakeStream) stream = fake_stream_new (options[i]);
    g_autoptr (HfVerifyReport) report = NULL, with_sums = NULL, damaged = NULL, cut = NULL;

    make_other_iterable (stream);
    report = verify_bytes (stream->bytes, 0, FALSE, 0);
    g_assert_cmpuint (report->n_problems, ==, 1);
    assert_problem (report, "forward: section \"rom\"", "saved in rounds", "what follows was not looked at");
    g_assert_true (hf_verify_report_is_unproved (report));
    append_trailer (stream->bytes, 0, 64u << 10);
    with_sums = verify_file (stream->bytes, NULL, NULL);
    g_assert_true (hf_verify_report_is_unproved (with_sums) && with_sums->checksums);
    stream->bytes->data[stream->first_page] ^= 1;
    damaged = verify_file (stream->bytes, NULL, NULL);
    g_assert_false (hf_verify_report_is_unproved (damaged));
    g_byte_array_set_size (stream->bytes, (guint)stream->eof);
    cut = verify_file (stream->bytes, NULL, NULL);
    g_assert_true (cut->incomplete && !hf_verify_report_is_unproved (cut));
  }
}

/* mapped-ram. */

/* What is known of block 0, "pc.ram", of the stream above. */
typedef struct {
  FakeStream *stream;
  guint64 header[FAKE_N_BLOCKS], bitmap[FAKE_N_BLOCKS], pages[FAKE_N_BLOCKS];
} Mapped;

static void
mapped_set_up (Mapped *m, gconstpointer data)
{
  g_autoptr (HfVerifyReport) report = NULL;

  m->stream = fake_stream_new (&mapped);
  report = verify_bytes (m->stream->bytes, 0, FALSE, 0);
  assert_no_problem (report);
  for (guint i = 0; i < FAKE_N_BLOCKS; i++) {
    const HfStreamBlock *block = &g_array_index (report->forward->blocks, HfStreamBlock, i);

    m->header[i] = block->header_offset;
    m->bitmap[i] = block->bitmap_offset;
    m->pages[i] = block->pages_offset;
  }
}

static void
mapped_tear_down (Mapped *m, gconstpointer data)
{
  fake_stream_free (m->stream);
}

static guint8 *
at (Mapped *m, guint64 offset)
{
  return m->stream->bytes->data + offset;
}

static void
assert_mapped_problem (Mapped *m, const char *a, const char *b, const char *c)
{
  g_autoptr (HfVerifyReport) report = verify_bytes (m->stream->bytes, 0, FALSE, 0);
  g_autoptr (HfVerifyReport) quick = verify_bytes (m->stream->bytes, 0, FALSE, HF_VERIFY_QUICK);
  g_autoptr (GError) error = NULL;
  int fd = make_file (m->stream->bytes);

  assert_problem (report, a, b, c);
  assert_problem (quick, a, b, c);
  /* And nothing of that kind is committed. */
  g_assert_false (hf_verify_end (fd, 0, m->stream->bytes->len, &error));
  g_assert_true (error->domain == HF_STREAM_ERROR);
  close (fd);
}

static void
test_mapped_version (Mapped *m, gconstpointer data)
{
  hf_put_be32 (2, at (m, m->header[1]));
  assert_mapped_problem (m, "0000:00:02.0/vga.vram", "version 2", "header");
}

/* QEMU before 11.1: 0 ends in SIGFPE, others corrupt silently. */
static void
test_mapped_page_size (Mapped *m, gconstpointer data)
{
  static const guint64 sizes[] = { 0, 1, 512, 3000, 8192, G_MAXUINT64 };

  for (guint i = 0; i < G_N_ELEMENTS (sizes); i++) {
    g_autofree char *size = g_strdup_printf ("pages of %" G_GUINT64_FORMAT " bytes", sizes[i]);

    hf_put_be64 (sizes[i], at (m, m->header[0] + 4));
    assert_mapped_problem (m, "pc.ram", size, "4096");
  }
}

static void
test_mapped_bitmap_offset (Mapped *m, gconstpointer data)
{
  const guint64 offsets[] = { 0, m->bitmap[1] + 1, m->bitmap[0], m->pages[1], G_MAXUINT64 };

  for (guint i = 0; i < G_N_ELEMENTS (offsets); i++) {
    g_autofree char *offset = g_strdup_printf ("at offset %" G_GUINT64_FORMAT, offsets[i]);

    hf_put_be64 (offsets[i], at (m, m->header[1] + 12));
    assert_mapped_problem (m, "0000:00:02.0/vga.vram", "bitmap", offset);
  }
}

/* Less than where they are: then what is read next is another page of the same block, or another's. */
static void
test_mapped_pages_offset (Mapped *m, gconstpointer data)
{
  hf_put_be64 (m->pages[1] - 100, at (m, m->header[1] + 20));
  assert_mapped_problem (m, "0000:00:02.0/vga.vram", "no multiple of 4096", "pages");
  hf_put_be64 (m->pages[0], at (m, m->header[1] + 20));
  assert_mapped_problem (m, "0000:00:02.0/vga.vram", "cannot be", "pages");
  hf_put_be64 (0, at (m, m->header[1] + 20));
  assert_mapped_problem (m, "0000:00:02.0/vga.vram", "cannot be", "pages");
  hf_put_be64 (G_MAXUINT64 - 4095, at (m, m->header[1] + 20));
  assert_mapped_problem (m, "0000:00:02.0/vga.vram", "cannot be", "pages");
  hf_put_be64 ((guint64)1 << 40, at (m, m->header[1] + 20));
  assert_mapped_problem (m, "0000:00:02.0/vga.vram", "should be there", "1099511627776");
}

/* The pages begin in the block's own header and end behind it, so that the walk goes on; its range overlaps those of others. */
static void
test_mapped_overlap (Mapped *m, gconstpointer data)
{
  guint64 page = m->header[0] / 4096 * 4096;

  hf_put_be64 (page, at (m, m->header[0] + 20));
  assert_mapped_problem (m, "the pages of block \"pc.ram\"", "overlap", "the header of block \"pc.ram\"");
  assert_mapped_problem (m, "the start of the stream", "overlap", "the pages of block \"pc.ram\"");
}

static void
test_mapped_lengths (Mapped *m, gconstpointer data)
{
  static const guint64 lengths[] = { 0, 1, 4095, 4096 * 71, (guint64)1 << 62, G_MAXUINT64 - 4095 };

  for (guint i = 0; i < G_N_ELEMENTS (lengths); i++) {
    hf_put_be64 (lengths[i], at (m, m->header[0] - 8));
    /* 71 pages instead of 70 are possible for this block; the sum, or what comes behind it, is not. */
    assert_mapped_problem (m, "forward: ", "offset", "");
  }
}

/* 70 pages: the bitmap has bits for 128. */
static void
test_mapped_bits_beyond (Mapped *m, gconstpointer data)
{
  g_autofree char *offset = g_strdup_printf ("offset %" G_GUINT64_FORMAT, m->bitmap[0] + 15);

  *at (m, m->bitmap[0] + 15) |= 0x80;
  assert_mapped_problem (m, "block \"pc.ram\", page 127", offset, "70 pages");
}

/* A file that was cut in the pages: which page is the first one that is missing. */
static void
test_mapped_cut (Mapped *m, gconstpointer data)
{
  guint64 cut = m->pages[0] + 33 * 4096 + 17;
  guint page = 33;
  g_autofree char *name = NULL;
  g_autoptr (HfVerifyReport) report = NULL;

  while (!(*at (m, m->bitmap[0] + page / 8) >> page % 8 & 1))
    page++;
  name = g_strdup_printf ("block \"pc.ram\", page %u, at offset %" G_GUINT64_FORMAT, page, m->pages[0] + page * 4096);
  g_byte_array_set_size (m->stream->bytes, (guint)cut);
  report = verify_bytes (m->stream->bytes, 0, FALSE, 0);
  g_assert_true (report->incomplete);
  assert_problem (report, name, "missing", "");
  assert_problem (report, "from the end", "description", "cut");
}

/* Every boundary: nothing that is cut is good. */
static void
test_cut (gconstpointer data)
{
  const FakeStreamOptions *options = data;
  g_autoptr (FakeStream) stream = fake_stream_new (options);
  guint n = stream->boundaries->len;

  for (guint i = n - 1; i > 0; i--) {
    guint64 offset = g_array_index (stream->boundaries, FakeBoundary, i).offset;
    g_autoptr (HfVerifyReport) report = NULL, quick = NULL;

    if (offset <= options->offset + 4)
      break;
    g_byte_array_set_size (stream->bytes, (guint)offset - 1);
    report = verify_bytes (stream->bytes, options->offset, FALSE, 0);
    quick = verify_bytes (stream->bytes, options->offset, FALSE, HF_VERIFY_QUICK);
    g_assert_cmpuint (report->n_problems, >, 0);
    g_assert_cmpuint (quick->n_problems, >, 0);
    g_assert_true (report->incomplete);
    g_assert_true (quick->incomplete);
  }
}

/* Checksums. */

/* Larger than what is read ahead; of the forms in which the blocks can lie. */
static const FakeStreamOptions large = { .n_pages = 3200, .n_rounds = 1 };
static const FakeStreamOptions large_offset = { .n_pages = 700, .n_rounds = 1, .offset = 71969 };
static const FakeStreamOptions large_mapped = { .n_pages = 2500, .mapped = TRUE };

/* The number of the page of the first block whose bytes are at offset of the stream. */
static guint64
page_at (const FakeStream *stream, guint64 offset)
{
  guint64 page = 0;

  while (memcmp (stream->ram[0]->data + page * stream->page_size, stream->bytes->data + offset, stream->page_size) != 0)
    page++;
  return page;
}

/* The line of the bad block says which pages of "pc.ram" lie there: this one among them, and no more than the block has room for
   (a page of zeros takes 9 bytes of a classic stream). */
static void
assert_pages_named (const HfVerifyReport *report, guint64 page, guint32 block_size, gboolean is_mapped)
{
  const char *line = g_ptr_array_index (report->problems, 0);
  const char *pages = strstr (line, "; it holds pages ");
  guint64 first, last;

  if (!pages
      || sscanf (pages, "; it holds pages %" G_GUINT64_FORMAT " to %" G_GUINT64_FORMAT " of \"pc.ram\"", &first, &last) != 2)
    g_error ("no pages in: %s", line);
  g_assert_cmpuint (first, <=, page);
  g_assert_cmpuint (last, >=, page);
  g_assert_cmpuint (last - first, <=, block_size / (is_mapped ? 4096u : 9u));
}

/* One byte of a page, and of the last block: the line has the block's number, offset and length. In a file (through the engine),
   and in memory. */
static void
test_checksums (gconstpointer data)
{
  const FakeStreamOptions *options = data;
  static const guint32 block_sizes[] = { 64u << 10, 1u << 20, 64u << 20 };

  for (guint i = 0; i < G_N_ELEMENTS (block_sizes); i++) {
    g_autoptr (FakeStream) stream = fake_stream_new (options);
    guint64 bad = stream->first_page + 5, page = page_at (stream, stream->first_page);
    g_autofree char *index = g_strdup_printf ("block %" G_GUINT64_FORMAT " of the trailer (offset %" G_GUINT64_FORMAT ",",
                                              bad / block_sizes[i] - options->offset / block_sizes[i],
                                              MAX (bad / block_sizes[i] * block_sizes[i], options->offset));
    g_autoptr (HfVerifyReport) good = NULL, damaged = NULL, memory = NULL, quick = NULL;
    g_autoptr (GError) error = NULL;

    append_trailer (stream->bytes, options->offset, block_sizes[i]);
    good = verify_file (stream->bytes, NULL, &error);
    g_assert_no_error (error);
    assert_no_problem (good);
    g_assert_true (good->checksums);
    stream->bytes->data[bad] ^= 0x40;
    damaged = verify_file (stream->bytes, NULL, &error);
    g_assert_no_error (error);
    g_assert_cmpuint (damaged->n_problems, ==, 1);
    assert_problem (damaged, index, "checksum", "bytes)");
    assert_pages_named (damaged, page, block_sizes[i], options->mapped);
    memory = verify_bytes (stream->bytes, 0, FALSE, 0);
    g_assert_cmpuint (memory->n_problems, ==, 1);
    assert_problem (memory, index, "checksum", "bytes)");
    quick = verify_bytes (stream->bytes, 0, FALSE, HF_VERIFY_QUICK);
    assert_no_problem (quick);
    g_assert_false (quick->checksums);
  }
}

/* A page that begins in one block and ends in the next is named by both, and a device by its section. */
static void
test_checksums_places (void)
{
  g_autoptr (FakeStream) stream = fake_stream_new (&large);
  g_autoptr (HfVerifyReport) report = NULL;
  guint64 offset = stream->first_page, page = page_at (stream, offset), second;

  append_trailer (stream->bytes, 0, 64u << 10);
  while (offset / 65536 == (offset + 4095) / 65536) {
    guint64 word = 0;

    for (offset += 4096; !(word & 0x08); offset += word & 0x08 ? 8 : 9) /* pages of zeros are passed */
      word = hf_get_be64 (stream->bytes->data + offset);
    g_assert_true (word & 0x20); /* of the same block */
    page = word / 4096;
  }
  second = offset / 65536 + 1;
  stream->bytes->data[offset] ^= 1;
  stream->bytes->data[offset + 4095] ^= 1;
  stream->bytes->data[stream->eof - 6] ^= 1;
  report = verify_file (stream->bytes, NULL, NULL);
  g_assert_cmpuint (report->n_problems, ==, 3);
  for (guint64 index = second - 1; index <= second; index++) {
    g_autofree char *block = g_strdup_printf ("block %" G_GUINT64_FORMAT " of the trailer", index);
    g_autofree char *name =
        g_strdup_printf (index == second ? "pages %" G_GUINT64_FORMAT " to " : " to %" G_GUINT64_FORMAT " of", page);

    assert_problem (report, block, name, "of \"pc.ram\"");
  }
  assert_problem (report, "of the trailer", "section \"timer\"", "");
}

/* Also where the structure is so wrong that no walk comes to the end: all blocks are tested. */
static void
test_checksums_behind_damage (void)
{
  g_autoptr (FakeStream) stream = fake_stream_new (&large);
  g_autoptr (HfVerifyReport) report = NULL;
  g_autoptr (GError) error = NULL;
  gsize last;

  append_trailer (stream->bytes, 0, 64u << 10);
  last = stream->eof;
  stream->bytes->data[9] ^= 0xff; /* the length of the machine's name */
  stream->bytes->data[last] ^= 1; /* the EOF byte */
  report = verify_file (stream->bytes, NULL, &error);
  g_assert_no_error (error);
  g_assert_true (report->checksums);
  assert_problem (report, "forward", "", "");
  assert_problem (report, "from the end", "", "");
  assert_problem (report, "block 0 of the trailer", "", "");
}

/* More than anybody reads: all are counted. */
static void
test_many_problems (void)
{
  g_autoptr (GByteArray) bytes = g_byte_array_new ();
  g_autoptr (HfVerifyReport) report = NULL;

  g_byte_array_set_size (bytes, 150 * (64u << 10));
  memset (bytes->data, 'x', bytes->len);
  append_trailer (bytes, 0, 64u << 10);
  memset (bytes->data, 'y', 150 * (64u << 10));
  report = verify_bytes (bytes, 0, TRUE, 0);
  g_assert_cmpuint (report->n_problems, ==, 150);
  g_assert_cmpuint (report->problems->len, ==, HF_VERIFY_PROBLEMS_MAX);
  g_assert_null (report->forward);
  g_assert_null (report->tail);
}

static void
test_interrupt (void)
{
  g_autoptr (FakeStream) stream = fake_stream_new (&large);
  g_autoptr (HfVerifyReport) report = NULL;
  HfStreamJob job = { 0 };
  g_autoptr (GError) error = NULL;
  int ends[2];

  append_trailer (stream->bytes, 0, 1u << 20);
  g_assert_cmpint (pipe (ends), ==, 0);
  g_assert_cmpint (write (ends[1], "x", 1), ==, 1);
  job.interrupt_fd = ends[0];
  report = verify_file (stream->bytes, &job, &error);
  g_assert_null (report);
  g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_INTERRUPTED);
  close (ends[0]);
  close (ends[1]);
}

typedef struct {
  guint n;
  guint64 last, total;
} Progress;

static void
note_progress (guint64 done, guint64 total, gpointer data)
{
  Progress *progress = data;

  g_assert_cmpuint (done, >, progress->last);
  g_assert_cmpuint (done, <=, total);
  progress->n++;
  progress->last = done;
  progress->total = total;
}

/* HfIoFault: nothing goes wrong; how much is read. */
static gssize
count_read (HfIoOperation operation, int fd, gint64 offset, gsize length, gpointer data)
{
  __atomic_fetch_add ((guint64 *)data, length, __ATOMIC_RELAXED);
  return (gssize)length;
}

/* It only grows, and ends at the end of the payload. And although there are two walks and the checksums, the file is read once.
 */
static void
test_progress (void)
{
  g_autoptr (FakeStream) stream = fake_stream_new (&large);
  guint64 length = stream->bytes->len;
  Progress progress = { 0 };
  const HfStreamJob job = { .interrupt_fd = -1, .progress = note_progress, .data = &progress };
  g_autoptr (HfVerifyReport) report = NULL;
  g_autoptr (GError) error = NULL;
  guint64 n_read = 0;

  append_trailer (stream->bytes, 0, 1u << 20);
  hf_io_fault_set (count_read, &n_read);
  report = verify_file (stream->bytes, &job, &error);
  hf_io_fault_set (NULL, NULL);
  g_assert_no_error (error);
  g_assert_cmpuint (n_read, >=, length);
  g_assert_cmpuint (n_read, <, length + (4u << 20)); /* the description, twice, and what the walks look at around it */
  g_assert_cmpuint (progress.n, ==, (length + (1u << 20) - 1) >> 20);
  g_assert_cmpuint (progress.last, ==, length);
  g_assert_cmpuint (progress.total, ==, length);
}

/* HfStreamJob.progress */
static void
note_last (guint64 done, guint64 total, gpointer data)
{
  Progress *progress = data;

  g_assert_cmpuint (done, >=, progress->last);
  *progress = (Progress){ progress->n + 1, done, total };
}

/* Of mapped-ram the layout is what takes time. */
static void
test_progress_mapped (void)
{
  g_autoptr (FakeStream) stream = fake_stream_new (&mapped);
  Progress progress = { 0 };
  const HfStreamJob job = { .interrupt_fd = -1, .progress = note_last, .data = &progress };
  g_autoptr (HfVerifyReport) report = verify_file (stream->bytes, &job, NULL);

  assert_no_problem (report);
  g_assert_cmpuint (progress.n, >=, FAKE_N_BLOCKS);
  g_assert_cmpuint (progress.last, ==, stream->bytes->len);
  g_assert_cmpuint (progress.total, ==, stream->bytes->len);
}

/* A page that is marked present, in a file that has nothing there: what QEMU 10 leaves after a short write. The same file in
   memory has only zeros. */
static void
test_hole (void)
{
  g_autoptr (FakeStream) stream = fake_stream_new (&mapped);
  g_autofree char *where = g_strdup_printf ("(offset %" G_GUINT64_FORMAT ")", stream->first_page);
  g_autoptr (HfVerifyReport) whole = verify_file (stream->bytes, NULL, NULL), report = NULL, memory = NULL;
  g_autoptr (GError) error = NULL;
  int fd = make_file (stream->bytes);

  assert_no_problem (whole);
  g_assert_cmpint (fallocate (fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)stream->first_page, stream->page_size), ==,
                   0);
  g_assert_false (hf_verify_end (fd, 0, stream->bytes->len, &error));
  g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_MALFORMED);
  report = verify_fd (fd, NULL, NULL);
  g_assert_cmpuint (report->n_problems, ==, 1);
  assert_problem (report, stream->ids[0], "never written", where);
  memset (stream->bytes->data + stream->first_page, 0, stream->page_size);
  memory = verify_bytes (stream->bytes, 0, FALSE, HF_VERIFY_DEFAULT);
  assert_no_problem (memory);
}

/* What capture asks: the end alone, of what begins at start and ends at end of a larger file. */
static void
test_end (void)
{
  const FakeStreamOptions options = { .n_pages = 8, .offset = 4321 };
  g_autoptr (FakeStream) stream = fake_stream_new (&options);
  guint64 end = stream->bytes->len;
  g_autoptr (GError) error = NULL, cut = NULL, behind = NULL;
  int fd;

  g_byte_array_append (stream->bytes, (const guint8 *)"more", 4);
  fd = make_file (stream->bytes);
  g_assert_true (hf_verify_end (fd, 4321, end, &error));
  g_assert_no_error (error);
  g_assert_false (hf_verify_end (fd, 4321, end - 1, &cut));
  g_assert_error (cut, HF_STREAM_ERROR, HF_STREAM_ERROR_INCOMPLETE);
  g_assert_false (hf_verify_end (fd, 4321, end + 1, &behind));
  g_assert_error (behind, HF_STREAM_ERROR, HF_STREAM_ERROR_INCOMPLETE);
  close (fd);
}

#define MAPPED_TEST(NAME, FUNCTION)                                                                                              \
  g_test_add ("/stream/verify/mapped/" NAME, Mapped, NULL, mapped_set_up, FUNCTION, mapped_tear_down)

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/stream/verify/good", test_good);
  g_test_add_func ("/stream/verify/one-walk-is-wrong", test_one_walk_is_wrong);
  g_test_add_func ("/stream/verify/unproved", test_unproved);
  MAPPED_TEST ("version", test_mapped_version);
  MAPPED_TEST ("page-size", test_mapped_page_size);
  MAPPED_TEST ("bitmap-offset", test_mapped_bitmap_offset);
  MAPPED_TEST ("pages-offset", test_mapped_pages_offset);
  MAPPED_TEST ("overlap", test_mapped_overlap);
  MAPPED_TEST ("lengths", test_mapped_lengths);
  MAPPED_TEST ("bits-beyond", test_mapped_bits_beyond);
  MAPPED_TEST ("cut", test_mapped_cut);
  g_test_add_data_func ("/stream/verify/cut/classic", &classic, test_cut);
  g_test_add_data_func ("/stream/verify/cut/mapped", &mapped, test_cut);
  g_test_add_data_func ("/stream/verify/checksums/classic", &large, test_checksums);
  g_test_add_data_func ("/stream/verify/checksums/offset", &large_offset, test_checksums);
  g_test_add_data_func ("/stream/verify/checksums/mapped", &large_mapped, test_checksums);
  g_test_add_func ("/stream/verify/checksums-places", test_checksums_places);
  g_test_add_func ("/stream/verify/checksums-behind-damage", test_checksums_behind_damage);
  g_test_add_func ("/stream/verify/many-problems", test_many_problems);
  g_test_add_func ("/stream/verify/interrupt", test_interrupt);
  g_test_add_func ("/stream/verify/progress", test_progress);
  g_test_add_func ("/stream/verify/progress-mapped", test_progress_mapped);
  g_test_add_func ("/stream/verify/hole", test_hole);
  g_test_add_func ("/stream/verify/end", test_end);
  return g_test_run ();
}
