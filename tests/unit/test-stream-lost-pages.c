/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Pages that a bitmap calls present and that lie in holes. Real files; the folder's file system must know holes. */

#include "config.h"

#include "stream/lost-pages.h"

#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

#define PAGE 65536u /* no file system has blocks larger than this */
#define PAGES_AT (1u << 20)
#define BITMAP_AT 100u

typedef struct {
  char *path;
  int fd;
  HfReader *reader;
  HfStreamBlock block;
  GString *found;
} World;

static void
note (const HfStreamBlock *block, guint64 first, guint64 n_pages, gpointer data)
{
  GString *found = data;

  g_string_append_printf (found, "%s:%" G_GUINT64_FORMAT "+%" G_GUINT64_FORMAT " ", block->ram.id, first, n_pages);
}

static void
begin (World *world, guint n_pages)
{
  *world = (World){ .block = { .mapped = TRUE,
                               .bitmap_offset = BITMAP_AT,
                               .bitmap_length = (n_pages + 63) / 64 * 8,
                               .pages_offset = PAGES_AT,
                               .page_size = PAGE },
                    .found = g_string_new (NULL) };
  strcpy (world->block.ram.id, "pc.ram");
  world->block.ram.used_length = (guint64)n_pages * PAGE;
  world->fd = g_file_open_tmp ("holdfast-lost-XXXXXX", &world->path, NULL);
  g_assert_cmpint (world->fd, >=, 0);
  g_assert_cmpint (ftruncate (world->fd, (off_t)(PAGES_AT + world->block.ram.used_length)), ==, 0);
}

static void
end (World *world)
{
  hf_reader_free (world->reader);
  g_string_free (world->found, TRUE);
  close (world->fd);
  g_assert_cmpint (g_unlink (world->path), ==, 0);
  g_free (world->path);
}

/* The page is in the file. */
static void
store_page (World *world, guint page)
{
  g_autofree char *bytes = g_malloc (PAGE);

  memset (bytes, 0x5a, PAGE);
  g_assert_cmpint (lseek (world->fd, (off_t)(PAGES_AT + (guint64)page * PAGE), SEEK_SET), >=, 0);
  g_assert_cmpint (write (world->fd, bytes, PAGE), ==, PAGE);
}

static void
mark (World *world, guint page)
{
  off_t at = (off_t)(BITMAP_AT + page / 8);
  guint8 byte = 0;

  g_assert_cmpint (lseek (world->fd, at, SEEK_SET), ==, at);
  g_assert_cmpint (read (world->fd, &byte, 1), ==, 1);
  byte |= (guint8)(1u << page % 8);
  g_assert_cmpint (lseek (world->fd, at, SEEK_SET), ==, at);
  g_assert_cmpint (write (world->fd, &byte, 1), ==, 1);
}

static void
check (World *world, const char *expected)
{
  g_autoptr (GError) error = NULL;

  world->reader = hf_reader_new_fd (world->fd, PAGES_AT + world->block.ram.used_length);
  g_assert_true (hf_find_lost_pages (world->fd, world->reader, &world->block, note, world->found, &error));
  g_assert_no_error (error);
  g_assert_cmpstr (world->found->str, ==, expected);
}

/* A page that is there, and one that is zero and so has neither bit nor bytes. */
static void
test_good (void)
{
  World world;

  begin (&world, 100);
  for (guint page = 0; page < 100; page += 3) {
    store_page (&world, page);
    mark (&world, page);
  }
  check (&world, "");
  end (&world);
}

static void
test_lost (void)
{
  World world;

  begin (&world, 100);
  for (guint page = 10; page < 20; page++)
    mark (&world, page);
  store_page (&world, 14);
  mark (&world, 99);
  check (&world, "pc.ram:10+4 pc.ram:15+5 pc.ram:99+1 ");
  end (&world);
}

/* The last present page before the end of the file is written: nothing behind it is looked at twice. */
static void
test_last_written (void)
{
  World world;

  begin (&world, 64);
  mark (&world, 0);
  mark (&world, 63);
  store_page (&world, 63);
  check (&world, "pc.ram:0+1 ");
  end (&world);
}

/* A bitmap longer than one piece of the search, all of whose pages are lost: the runs join to all of them. */
static void
test_large (void)
{
  enum { N = 3 * 4096 * 8 };
  World world;
  g_autofree guint8 *bits = g_malloc (N / 8);

  begin (&world, N);
  memset (bits, 0xff, N / 8);
  g_assert_cmpint (lseek (world.fd, BITMAP_AT, SEEK_SET), ==, BITMAP_AT);
  g_assert_cmpint (write (world.fd, bits, N / 8), ==, N / 8);
  check (&world, "pc.ram:0+32768 pc.ram:32768+32768 pc.ram:65536+32768 ");
  end (&world);
}

/* Pages behind the end of the file are somebody else's finding. */
static void
test_cut (void)
{
  World world;

  begin (&world, 100);
  for (guint page = 0; page < 100; page++)
    mark (&world, page);
  store_page (&world, 0);
  g_assert_cmpint (ftruncate (world.fd, PAGES_AT + 2 * PAGE + PAGE / 2), ==, 0);
  world.reader = hf_reader_new_fd (world.fd, PAGES_AT + 2 * PAGE + PAGE / 2);
  g_assert_true (hf_find_lost_pages (world.fd, world.reader, &world.block, note, world.found, NULL));
  g_assert_cmpstr (world.found->str, ==, "pc.ram:1+1 ");
  end (&world);
}

/* What no tested block can be. */
static void
test_refused (void)
{
  static const struct {
    guint64 page_size, used_length, bitmap_length;
    gboolean mapped;
  } cases[] = {
    { 0, PAGE, 8, TRUE },          { PAGE, PAGE, 8, FALSE },     { PAGE, G_MAXUINT64, 8, TRUE },
    { PAGE, G_MAXINT64, 8, TRUE }, { PAGE, 64 * PAGE, 0, TRUE },
  };

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (GError) error = NULL;
    World world;

    begin (&world, 64);
    world.reader = hf_reader_new_fd (world.fd, PAGES_AT + world.block.ram.used_length);
    world.block.page_size = cases[i].page_size;
    world.block.ram.used_length = cases[i].used_length;
    world.block.bitmap_length = cases[i].bitmap_length;
    world.block.mapped = cases[i].mapped;
    g_assert_false (hf_find_lost_pages (world.fd, world.reader, &world.block, note, world.found, &error));
    g_assert_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_MALFORMED);
    end (&world);
  }
}

/* A pipe knows neither holes nor data. */
static void
test_no_holes_known (void)
{
  World world;
  int ends[2];

  begin (&world, 64);
  mark (&world, 3);
  world.reader = hf_reader_new_fd (world.fd, PAGES_AT + world.block.ram.used_length);
  g_assert_cmpint (pipe (ends), ==, 0);
  g_assert_true (hf_find_lost_pages (ends[0], world.reader, &world.block, note, world.found, NULL));
  g_assert_cmpstr (world.found->str, ==, "");
  close (ends[0]);
  close (ends[1]);
  end (&world);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/stream/lost-pages/good", test_good);
  g_test_add_func ("/stream/lost-pages/lost", test_lost);
  g_test_add_func ("/stream/lost-pages/last-written", test_last_written);
  g_test_add_func ("/stream/lost-pages/large", test_large);
  g_test_add_func ("/stream/lost-pages/cut", test_cut);
  g_test_add_func ("/stream/lost-pages/refused", test_refused);
  g_test_add_func ("/stream/lost-pages/no-holes-known", test_no_holes_known);
  return g_test_run ();
}
