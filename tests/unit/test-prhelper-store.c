/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The helper's journal: what was written is read again to the bit, after a kill at any point the older or the newer image is
 * there and whole, and nothing that lies in the folder hurts.
 *
 * A test that kills runs itself again as a child ("--write DIR SYNC", "--lock DIR"), because a child of fork would have no
 * writer.
 */
#include "config.h"

#include "base/fail.h"
#include "prhelper/log.h"
#include "prhelper/store.h"

#include <errno.h>
#include <fcntl.h>
#include <gio/gio.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define READ_TIME_MAX G_USEC_PER_SEC
#define WAIT_TIME_MAX (20 * G_USEC_PER_SEC)

static const char *program;

/* ---- images ---- */

static HfVmImage *
make_image (pid_t pid, guint64 start_time)
{
  HfPeer peer = { .pid = pid, .uid = 107, .gid = 0xfffffffeu, .start_time = start_time };

  return hf_vm_image_new (&peer);
}

static void
fill_randomly (guint8 *bytes, gsize length)
{
  for (gsize i = 0; i < length; i++)
    bytes[i] = (guint8)g_test_rand_int ();
}

static guint64
random_long (void)
{
  return (guint64)(guint32)g_test_rand_int () << 32 | (guint32)g_test_rand_int ();
}

static gboolean
random_flag (void)
{
  return g_test_rand_int_range (0, 2);
}

/* Every printable and unprintable character that is UTF-8 and one byte, or two. */
static void
fill_text (char *text, gsize size)
{
  gsize length = (gsize)g_test_rand_int_range (0, (gint32)size - 2);
  gsize i = 0;

  while (i < length)
    i += (gsize)g_unichar_to_utf8 ((gunichar)g_test_rand_int_range (1, 0x7ff), text + i);
  text[i] = '\0';
}

static void
add_random_held (HfVmImage *image)
{
  HfHeld held = { .block = random_flag (), .major = (guint)g_test_rand_int (), .minor = (guint)g_test_rand_int () };

  held.identified = random_flag ();
  if (held.identified) {
    held.identity.n_designators = (guint)g_test_rand_int_range (0, HF_DESIGNATORS_MAX + 1);
    for (guint i = 0; i < held.identity.n_designators; i++) {
      HfDesignator *designator = &held.identity.designators[i];

      designator->type = (guint8)g_test_rand_int_range (0, 16);
      designator->code_set = (guint8)g_test_rand_int_range (0, 16);
      designator->length = (guint8)g_test_rand_int_range (0, HF_DESIGNATOR_MAX + 1);
      fill_randomly (designator->bytes, designator->length);
    }
    fill_text (held.identity.serial, sizeof held.identity.serial);
  }
  held.state = (HfPrState){
    .key = random_long (),
    .type = (guint8)g_test_rand_int_range (0, 16),
    .scope = (guint8)g_test_rand_int_range (0, 16),
    .aptpl = random_flag (),
    .all_tg_pt = random_flag (),
    .uncertain = random_flag (),
  };
  held.candidate_key = random_long ();
  g_array_append_val (image->held, held);
}

static HfVmImage *
make_random_image (pid_t pid, guint n_held)
{
  HfVmImage *image = make_image (pid, random_long () >> 1);
  guint8 record[1000];
  char text[100];

  image->phase = (HfVmPhase)g_test_rand_int_range (0, HF_N_VM_PHASES);
  image->guest_time = random_flag () ? -1 : (gint64)(random_long () >> 1);
  if (random_flag ()) {
    fill_text (text, sizeof text);
    image->name = g_strdup (text);
    image->uuid = g_uuid_string_random ();
  }
  if (image->phase != HF_VM_IDLE) {
    fill_randomly (record, sizeof record);
    image->record = g_bytes_new (record, (gsize)g_test_rand_int_range (0, sizeof record));
  }
  for (guint i = 0; i < n_held; i++)
    add_random_held (image);
  return image;
}

static void
assert_held_equal (const HfHeld *a, const HfHeld *b)
{
  g_assert_cmpint (a->block, ==, b->block);
  g_assert_cmpuint (a->major, ==, b->major);
  g_assert_cmpuint (a->minor, ==, b->minor);
  g_assert_cmpint (a->identified, ==, b->identified);
  g_assert_cmpuint (a->identity.n_designators, ==, b->identity.n_designators);
  for (guint i = 0; i < a->identity.n_designators; i++) {
    const HfDesignator *x = &a->identity.designators[i], *y = &b->identity.designators[i];

    g_assert_cmpuint (x->type, ==, y->type);
    g_assert_cmpuint (x->code_set, ==, y->code_set);
    g_assert_cmpmem (x->bytes, x->length, y->bytes, y->length);
  }
  g_assert_cmpstr (a->identity.serial, ==, b->identity.serial);
  g_assert_cmphex (a->state.key, ==, b->state.key);
  g_assert_cmpuint (a->state.type, ==, b->state.type);
  g_assert_cmpuint (a->state.scope, ==, b->state.scope);
  g_assert_cmpint (a->state.aptpl, ==, b->state.aptpl);
  g_assert_cmpint (a->state.all_tg_pt, ==, b->state.all_tg_pt);
  g_assert_cmpint (a->state.uncertain, ==, b->state.uncertain);
  g_assert_cmphex (a->candidate_key, ==, b->candidate_key);
}

static void
assert_images_equal (const HfVmImage *a, const HfVmImage *b)
{
  g_assert_cmpint (a->peer.pid, ==, b->peer.pid);
  g_assert_cmpuint (a->peer.uid, ==, b->peer.uid);
  g_assert_cmpuint (a->peer.gid, ==, b->peer.gid);
  g_assert_cmpuint (a->peer.start_time, ==, b->peer.start_time);
  g_assert_cmpstr (a->name, ==, b->name);
  g_assert_cmpstr (a->uuid, ==, b->uuid);
  g_assert_cmpint (a->phase, ==, b->phase);
  g_assert_cmpint (a->guest_time, ==, b->guest_time);
  g_assert_cmpint (a->record != NULL, ==, b->record != NULL);
  if (a->record)
    g_assert_true (g_bytes_equal (a->record, b->record));
  g_assert_cmpuint (a->held->len, ==, b->held->len);
  for (guint i = 0; i < a->held->len; i++)
    assert_held_equal (&g_array_index (a->held, HfHeld, i), &g_array_index (b->held, HfHeld, i));
}

static HfVmImage *
decode (GBytes *bytes)
{
  g_autoptr (GError) error = NULL;
  gsize length;
  const char *text = g_bytes_get_data (bytes, &length);
  HfVmImage *image = hf_vm_image_decode (text, length, &error);

  g_assert_no_error (error);
  return image;
}

static void
test_round_trip (void)
{
  for (guint i = 0; i < 200; i++) {
    g_autoptr (HfVmImage) image = make_random_image (1 + (pid_t)i, (guint)g_test_rand_int_range (0, 6));
    g_autoptr (GBytes) text = hf_vm_image_encode (image);
    g_autoptr (HfVmImage) again = decode (text);

    assert_images_equal (image, again);
  }
}

/* The bound of a file has room for everything that the bounds inside it allow. */
static void
test_largest (void)
{
  g_autoptr (HfVmImage) image = make_image (G_MAXINT32, G_MAXINT64);
  g_autofree guint8 *record = g_malloc (HF_RECORD_SIZE_MAX);
  g_autoptr (GBytes) text = NULL;
  g_autoptr (HfVmImage) again = NULL;
  HfHeld held = { .major = G_MAXUINT32, .minor = G_MAXUINT32, .identified = TRUE };

  held.identity.n_designators = HF_DESIGNATORS_MAX;
  for (guint i = 0; i < HF_DESIGNATORS_MAX; i++) {
    held.identity.designators[i] = (HfDesignator){ .type = 15, .code_set = 15, .length = HF_DESIGNATOR_MAX };
    fill_randomly (held.identity.designators[i].bytes, HF_DESIGNATOR_MAX);
  }
  /* What JSON writes in six bytes each. */
  memset (held.identity.serial, 1, HF_DESIGNATOR_MAX);
  held.state.key = held.candidate_key = G_MAXUINT64;
  for (guint i = 0; i < HF_STORE_HELD_MAX; i++)
    g_array_append_val (image->held, held);
  fill_randomly (record, HF_RECORD_SIZE_MAX);
  image->record = g_bytes_new_take (g_steal_pointer (&record), HF_RECORD_SIZE_MAX);
  image->phase = HF_VM_SAVED;
  text = hf_vm_image_encode (image);
  g_assert_cmpuint (g_bytes_get_size (text), <=, HF_STORE_SIZE_MAX - 65536);
  again = decode (text);
  assert_images_equal (image, again);
}

/* A name comes from a command line, where any bytes may stand. */
static void
test_name_of_bytes (void)
{
  g_autoptr (HfVmImage) image = make_image (7, 8);
  g_autoptr (GBytes) text = NULL;
  g_autoptr (HfVmImage) again = NULL;

  image->name = g_strdup ("a\xff\x01\"\\b");
  text = hf_vm_image_encode (image);
  again = decode (text);
  g_assert_cmpstr (again->name, ==, "a\xef\xbf\xbd\x01\"\\b");
}

/* One thing is wrong with each; OLD is replaced by NEW in a good image. */
static void
test_damaged_text (void)
{
  static const struct {
    const char *old, *new, *message;
  } damages[] = {
    { "\"version\":1", "\"version\":2", "\"version\" is missing or wrong" },
    { "\"version\":1", "\"version\":0", "\"version\" is missing or wrong" },
    { "\"version\":1,", "", "\"version\" is missing or wrong" },
    { "\"pid\":77", "\"pid\":-1", "\"pid\" is missing or wrong" },
    { "\"pid\":77", "\"pid\":4294967296", "\"pid\" is missing or wrong" },
    { "\"pid\":77", "\"pid\":\"77\"", "\"pid\" is missing or wrong" },
    { "\"pid\":77", "\"pid\":[77]", "\"pid\" is missing or wrong" },
    { "\"pid\":77", "\"pid\":{}", "\"pid\" is missing or wrong" },
    { "\"pid\":77", "\"pid\":null", "\"pid\" is missing or wrong" },
    { "\"start_time\":\"88\"", "\"start_time\":88", "\"start_time\" is missing or wrong" },
    { "\"start_time\":\"88\"", "\"start_time\":\"-1\"", "\"start_time\" is missing or wrong" },
    { "\"uid\":107", "\"uid\":4294967296", "\"uid\" is missing or wrong" },
    { "\"name\":null", "\"name\":1", "\"name\" is missing or wrong" },
    { "\"phase\":\"saved\"", "\"phase\":\"Saved\"", "\"phase\" is missing or wrong" },
    { "\"phase\":\"saved\"", "\"phase\":\"idle\"", "\"record\" is missing or wrong" },
    { "\"record\":\"cmVjb3Jk\"", "\"record\":null", "\"record\" is missing or wrong" },
    { "\"record\":\"cmVjb3Jk\"", "\"record\":\"cmV*jb3Jk\"", "\"record\" is missing or wrong" },
    { "\"guest_time\":\"-1\"", "\"guest_time\":\"-2\"", "\"guest_time\" is missing or wrong" },
    { "\"guest_time\":\"-1\"", "\"guest_time\":\"9223372036854775808\"", "\"guest_time\" is missing or wrong" },
    { "\"held\":[{", "\"held\":[1,{", "\"held\" is missing or wrong" },
    { "\"held\":[{", "\"held\":[null,{", "\"held\" is missing or wrong" },
    { "\"block\":true", "\"block\":1", "\"block\" is missing or wrong" },
    { "\"major\":8", "\"major\":4294967296", "\"major\" is missing or wrong" },
    { "\"key\":\"0x1234\"", "\"key\":\"1234\"", "\"key\" is missing or wrong" },
    { "\"key\":\"0x1234\"", "\"key\":\"0x\"", "\"key\" is missing or wrong" },
    { "\"key\":\"0x1234\"", "\"key\":\"0x-1\"", "\"key\" is missing or wrong" },
    { "\"key\":\"0x1234\"", "\"key\":\"0x10000000000000000\"", "\"key\" is missing or wrong" },
    { "\"scope\":0", "\"scope\":16", "\"scope\" is missing or wrong" },
    { "\"designators\":[", "\"designators\":[[],", "\"designators\" is missing or wrong" },
    { "\"value\":\"6001\"", "\"value\":\"601\"", "\"value\" is missing or wrong" },
    { "\"value\":\"6001\"", "\"value\":\"60 1\"", "\"value\" is missing or wrong" },
    { "\"serial\":\"S\"", "\"serial\":null", "\"serial\" is missing or wrong" },
    { "\"identity\":{", "\"identity\":1,\"x\":{", "\"identity\" is missing or wrong" },
    { "\"held\":[", "\"held\":[[[[[[[]]]]]]],\"x\":[", "too many levels" },
    { "\"held\"", "/**/\"held\"", "a character that JSON does not know" },
    { "{\"version\"", "[],{\"version\"", NULL },
  };
  g_autoptr (HfVmImage) image = make_image (77, 88);
  g_autoptr (GBytes) bytes = NULL;
  g_autofree char *good = NULL;
  HfHeld held = { .block = TRUE, .major = 8, .identified = TRUE, .state = { .key = 0x1234, .type = 5 } };

  held.identity = (HfLuIdentity){ .n_designators = 1, .designators = { { 3, 1, 2, { 0x60, 0x01 } } }, .serial = "S" };
  g_array_append_val (image->held, held);
  image->phase = HF_VM_SAVED;
  image->record = g_bytes_new ("record", 6);
  bytes = hf_vm_image_encode (image);
  good = g_strndup (g_bytes_get_data (bytes, NULL), g_bytes_get_size (bytes));
  for (gsize i = 0; i < G_N_ELEMENTS (damages); i++) {
    g_autoptr (GString) text = g_string_new (good);
    g_autoptr (GError) error = NULL;

    g_test_message ("%s", damages[i].new);
    g_assert_cmpuint (g_string_replace (text, damages[i].old, damages[i].new, 1), ==, 1);
    g_assert_null (hf_vm_image_decode (text->str, text->len, &error));
    g_assert_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA);
    if (damages[i].message)
      g_assert_cmpstr (error->message, ==, damages[i].message);
  }
}

/* One more than fits into a buffer or a bound. */
static void
test_one_too_many (void)
{
  for (guint what = 0; what < 4; what++) {
    g_autoptr (HfVmImage) image = make_image (77, 88);
    g_autoptr (GError) error = NULL;
    g_autoptr (GBytes) bytes = NULL;
    g_autoptr (GString) text = NULL;
    HfHeld held = { .identified = TRUE };

    held.identity.n_designators = HF_DESIGNATORS_MAX;
    held.identity.designators[0].length = HF_DESIGNATOR_MAX;
    memset (held.identity.serial, 's', HF_DESIGNATOR_MAX);
    for (guint i = 0; i < (what == 0 ? HF_STORE_HELD_MAX : 1); i++)
      g_array_append_val (image->held, held);
    bytes = hf_vm_image_encode (image);
    text = g_string_new_len (g_bytes_get_data (bytes, NULL), (gssize)g_bytes_get_size (bytes));
    hf_vm_image_free (hf_vm_image_decode (text->str, text->len, &error));
    g_assert_no_error (error);
    if (what == 0)
      g_string_replace (text, "\"held\":[", "\"held\":[{},", 1);
    else if (what == 1)
      g_string_replace (text, "\"designators\":[", "\"designators\":[{},", 1);
    else if (what == 2)
      g_string_replace (text, "\"value\":\"", "\"value\":\"00", 1);
    else
      g_string_replace (text, "\"serial\":\"", "\"serial\":\"s", 1);
    g_assert_null (hf_vm_image_decode (text->str, text->len, &error));
    g_assert_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA);
  }
}

/* ---- a store in a folder of its own ---- */

typedef struct {
  char *dir, *vms;
} Place;

static void
place_set_up (Place *place, gconstpointer data)
{
  g_autoptr (GError) error = NULL;

  place->dir = g_dir_make_tmp ("holdfast-store-XXXXXX", &error);
  g_assert_no_error (error);
  place->vms = g_build_filename (place->dir, "vms", NULL);
}

static void
remove_all (const char *path)
{
  const char *name;

  if (g_file_test (path, G_FILE_TEST_IS_DIR) && !g_file_test (path, G_FILE_TEST_IS_SYMLINK)) {
    g_autoptr (GDir) dir = g_dir_open (path, 0, NULL);

    while (dir && (name = g_dir_read_name (dir))) {
      g_autofree char *inner = g_build_filename (path, name, NULL);

      remove_all (inner);
    }
  }
  g_remove (path);
}

static void
place_tear_down (Place *place, gconstpointer data)
{
  g_assert_true (hf_fail_set (NULL, NULL));
  remove_all (place->dir);
  g_assert_false (g_file_test (place->dir, G_FILE_TEST_EXISTS));
  g_free (place->dir);
  g_free (place->vms);
}

static HfStore *
open_store (const Place *place)
{
  g_autoptr (GError) error = NULL;
  HfStore *store = hf_store_new (place->dir, &error);

  g_assert_no_error (error);
  return store;
}

static GPtrArray *
read_store (HfStore *store)
{
  g_autoptr (GError) error = NULL;
  GPtrArray *images = hf_store_read (store, &error);

  g_assert_no_error (error);
  return images;
}

static char *
path_of (const Place *place, const char *name)
{
  return g_build_filename (place->vms, name, NULL);
}

static gboolean
exists (const Place *place, const char *name)
{
  g_autofree char *path = path_of (place, name);
  struct stat st;

  return lstat (path, &st) == 0;
}

typedef struct {
  guint calls;
  GError *error;
} Result;

static void
note_result (const GError *error, gpointer user_data)
{
  Result *result = user_data;

  result->calls++;
  g_clear_error (&result->error);
  result->error = error ? g_error_copy (error) : NULL;
}

static void
wait_for (const Result *result, guint calls)
{
  gint64 deadline = g_get_monotonic_time () + WAIT_TIME_MAX;

  while (result->calls < calls && g_get_monotonic_time () < deadline)
    if (!g_main_context_iteration (NULL, FALSE))
      g_usleep (200);
  g_assert_cmpuint (result->calls, ==, calls);
}

static void
write_and_wait (HfStore *store, HfVmImage *image, gboolean sync)
{
  Result result = { 0 };

  hf_store_write (store, image, sync, note_result, &result);
  g_assert_cmpuint (result.calls, ==, 0);
  wait_for (&result, 1);
  g_assert_no_error (result.error);
}

static HfVmImage *
make_keyed_image (pid_t pid, guint64 key)
{
  HfVmImage *image = make_image (pid, 1);
  HfHeld held = { .state = { .key = key } };

  g_array_append_val (image->held, held);
  return image;
}

static guint64
key_of (const HfVmImage *image)
{
  g_assert_cmpuint (image->held->len, ==, 1);
  return g_array_index (image->held, HfHeld, 0).state.key;
}

/* The key in the only image, by a store of its own; 0: none is there. */
static guint64
read_key (const Place *place)
{
  HfStore *store = open_store (place);
  g_autoptr (GPtrArray) images = read_store (store);

  hf_store_free (store);
  g_assert_cmpuint (images->len, <=, 1);
  return images->len ? key_of (g_ptr_array_index (images, 0)) : 0;
}

static void
test_write_and_read (Place *place, gconstpointer data)
{
  HfVmImage *copies[8];
  HfStore *store = open_store (place);
  g_autoptr (GPtrArray) images = NULL;

  for (guint i = 0; i < G_N_ELEMENTS (copies); i++) {
    HfVmImage *image = make_random_image (100 + (pid_t)i, i);
    g_autoptr (GBytes) text = hf_vm_image_encode (image);

    copies[i] = decode (text);
    write_and_wait (store, image, i % 2);
  }
  hf_store_free (store);
  store = open_store (place);
  images = read_store (store);
  g_assert_cmpuint (images->len, ==, G_N_ELEMENTS (copies));
  for (guint i = 0; i < images->len; i++) {
    HfVmImage *image = g_ptr_array_index (images, i);

    assert_images_equal (image, copies[image->peer.pid - 100]);
  }
  for (guint i = 0; i < G_N_ELEMENTS (copies); i++)
    hf_vm_image_free (copies[i]);
  hf_store_free (store);
  g_assert_false (exists (place, ".unfinished"));
}

static void
test_remove (Place *place, gconstpointer data)
{
  HfStore *store = open_store (place);
  HfPeer peer = { .pid = 5, .start_time = 1 };
  HfPeer nobody = { .pid = 6, .start_time = 1 };
  Result result = { 0 };

  write_and_wait (store, make_keyed_image (5, 1), FALSE);
  g_assert_true (exists (place, "5-1.json"));
  hf_store_remove (store, &peer);
  hf_store_remove (store, &nobody);
  hf_store_free (store);
  g_assert_false (exists (place, "5-1.json"));

  /* What waits, then the removal, then what came later. */
  store = open_store (place);
  hf_store_write (store, make_keyed_image (5, 1), FALSE, note_result, &result);
  hf_store_remove (store, &peer);
  wait_for (&result, 1);
  g_assert_no_error (result.error);
  hf_store_remove (store, &peer);
  hf_store_write (store, make_keyed_image (5, 3), FALSE, note_result, &result);
  hf_store_free (store);
  g_assert_cmpuint (result.calls, ==, 1);
  g_assert_cmphex (read_key (place), ==, 3);
}

/* The end waits for everything, and calls nobody. */
static void
test_free_writes (Place *place, gconstpointer data)
{
  HfStore *store = open_store (place);
  Result result = { 0 };

  g_assert_true (hf_fail_set ("before-store-write=delay:20", NULL));
  for (guint i = 0; i < 5; i++)
    hf_store_write (store, make_keyed_image (10 + (pid_t)i, i), FALSE, note_result, &result);
  hf_store_free (store);
  while (g_main_context_iteration (NULL, FALSE))
    ;
  g_assert_cmpuint (result.calls, ==, 0);
  store = open_store (place);
  g_autoptr (GPtrArray) images = read_store (store);
  g_assert_cmpuint (images->len, ==, 5);
  hf_store_free (store);
}

/* ---- order ---- */

static GString *order;

static void
note_letter (const GError *error, gpointer user_data)
{
  g_assert_no_error (error);
  g_string_append_c (order, (char)GPOINTER_TO_INT (user_data));
}

#define FIRST_WRITE_MS 400

/* While the first write takes its time, images of another VM come, and one of the same. FALSE: this machine was too slow. */
static gboolean
write_crowd (HfStore *store)
{
  gint64 before = g_get_monotonic_time ();

  g_assert_true (hf_fail_set ("after-store-write#1=delay:" G_STRINGIFY (FIRST_WRITE_MS), NULL));
  hf_store_write (store, make_keyed_image (1, 1), FALSE, note_letter, GINT_TO_POINTER ('a'));
  hf_store_write (store, make_keyed_image (2, 10), FALSE, note_letter, GINT_TO_POINTER ('b'));
  hf_store_write (store, make_keyed_image (3, 2), FALSE, note_letter, GINT_TO_POINTER ('c'));
  hf_store_write (store, make_keyed_image (2, 20), TRUE, note_letter, GINT_TO_POINTER ('d'));
  hf_store_write (store, make_keyed_image (2, 30), FALSE, NULL, NULL);
  hf_store_write (store, make_keyed_image (2, 40), FALSE, note_letter, GINT_TO_POINTER ('e'));
  return g_get_monotonic_time () - before < FIRST_WRITE_MS * 1000;
}

/* The last image of a VM is written, at the place of its first, and all are told. */
static void
test_coalescing (Place *place, gconstpointer data)
{
  HfStore *store = open_store (place);
  guint64 sum = 0;

  for (gboolean fast = FALSE; !fast;) {
    gint64 deadline = g_get_monotonic_time () + WAIT_TIME_MAX;

    order = g_string_new (NULL);
    fast = write_crowd (store);
    while (order->len < 5 && g_get_monotonic_time () < deadline)
      if (!g_main_context_iteration (NULL, FALSE))
        g_usleep (200);
    g_assert_true (!fast || g_str_equal (order->str, "abdec"));
    g_assert_cmpuint (order->len, ==, 5);
    g_string_free (order, TRUE);
  }
  g_autoptr (GPtrArray) images = read_store (store);
  g_assert_cmpuint (images->len, ==, 3);
  for (guint i = 0; i < images->len; i++)
    sum += key_of (g_ptr_array_index (images, i));
  g_assert_cmpuint (sum, ==, 43);
  hf_store_free (store);
}

/* ---- errors ---- */

static void
test_full_disk (Place *place, gconstpointer data)
{
  static const struct {
    const char *specification, *step;
  } points[] = {
    { "before-store-write=error:ENOSPC", "write" },
    { "after-store-write=error:ENOSPC", "write" },
    { "before-store-sync=error:ENOSPC", "sync" },
  };
  HfStore *store = open_store (place);
  Result result = { 0 };

  write_and_wait (store, make_keyed_image (1, 1), TRUE);
  for (gsize i = 0; i < G_N_ELEMENTS (points); i++) {
    g_autofree char *message = g_strdup_printf ("journal %s/1-1.json: %s: No space left on device", place->vms, points[i].step);

    g_assert_true (hf_fail_set (points[i].specification, NULL));
    hf_store_write (store, make_keyed_image (1, 2), TRUE, note_result, &result);
    wait_for (&result, (guint)i + 1);
    g_assert_error (result.error, G_IO_ERROR, G_IO_ERROR_NO_SPACE);
    g_assert_cmpstr (result.error->message, ==, message);
    g_assert_false (exists (place, ".unfinished"));
  }
  g_clear_error (&result.error);
  hf_store_free (store);
  g_assert_true (hf_fail_set (NULL, NULL));
  g_assert_cmphex (read_key (place), ==, 1);
}

static void
test_too_many_devices (Place *place, gconstpointer data)
{
  HfStore *store = open_store (place);
  Result result = { 0 };
  HfVmImage *image = make_keyed_image (1, 2);
  HfVmImage *no_record = make_keyed_image (1, 3);

  write_and_wait (store, make_keyed_image (1, 1), FALSE);
  g_array_set_size (image->held, HF_STORE_HELD_MAX + 1);
  hf_store_write (store, image, FALSE, note_result, &result);
  wait_for (&result, 1);
  g_assert_error (result.error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT);
  no_record->phase = HF_VM_SAVED;
  hf_store_write (store, no_record, FALSE, note_result, &result);
  wait_for (&result, 2);
  g_assert_error (result.error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT);
  g_clear_error (&result.error);
  hf_store_free (store);
  g_assert_cmphex (read_key (place), ==, 1);
}

static void
assert_refused (const char *dir, const char *message)
{
  g_autoptr (GError) error = NULL;

  g_assert_null (hf_store_new (dir, &error));
  g_assert_true (error && error->domain == G_IO_ERROR);
  g_assert_cmpstr (error->message, ==, message);
}

static void
test_no_folder (Place *place, gconstpointer data)
{
  g_autofree char *file = g_build_filename (place->dir, "file", NULL);
  g_autofree char *message = g_strdup_printf ("journal %s/vms: make the folder %s: File exists", file, file);
  g_autofree char *link_message = g_strdup_printf ("journal %s: open: Not a directory", place->vms);

  g_assert_true (g_file_set_contents (file, "", 0, NULL));
  assert_refused (file, message);
  /* A link in place of the folder leads somewhere else. */
  g_assert_cmpint (symlink ("/", place->vms), ==, 0);
  assert_refused (place->dir, link_message);
}

/* What file permissions forbid is not forbidden to root, so a child gives that up. */
static void
test_not_writable (Place *place, gconstpointer data)
{
  g_autofree char *message = g_strdup_printf ("journal %s/.lock: open: Permission denied", place->vms);
  int status;
  pid_t child;

  g_assert_cmpint (g_mkdir (place->vms, 0755), ==, 0);
  g_assert_cmpint (chmod (place->dir, 0755), ==, 0);
  g_assert_cmpint (chmod (place->vms, 0555), ==, 0);
  child = fork ();
  if (child == 0) {
    g_autoptr (GError) error = NULL;

    if (getuid () == 0 && (setgid (65534) != 0 || setuid (65534) != 0))
      _exit (2);
    if (hf_store_new (place->dir, &error) || g_strcmp0 (error->message, message) != 0)
      _exit (1);
    _exit (0);
  }
  g_assert_cmpint (waitpid (child, &status, 0), ==, child);
  g_assert_cmpint (status, ==, 0);
  g_assert_cmpint (chmod (place->vms, 0755), ==, 0);
}

static void
test_second_store (Place *place, gconstpointer data)
{
  g_autofree char *message = g_strdup_printf ("journal %s: another helper has it", place->vms);
  HfStore *store = open_store (place);

  assert_refused (place->dir, message);
  hf_store_free (store);
  store = open_store (place);
  hf_store_free (store);
}

/* ---- kills ---- */

/* A child that writes key 1, then key 2 with HOLDFAST_FAIL. */
static int
child_main (const char *dir, gboolean sync)
{
  Place place = { .dir = (char *)dir };
  HfStore *store = open_store (&place);

  write_and_wait (store, make_keyed_image (1, 1), sync);
  g_assert_true (hf_fail_init (NULL));
  write_and_wait (store, make_keyed_image (1, 2), sync);
  hf_store_free (store);
  return 0;
}

static int
run_child (const Place *place, const char *point, gboolean sync)
{
  const char *arguments[] = { program, "--write", place->dir, sync ? "sync" : "", NULL };
  g_autofree char *specification = g_strdup_printf ("%s=kill", point);
  g_autofree char *log = g_build_filename (place->dir, "points", NULL);
  g_auto (GStrv) environment = g_get_environ ();
  g_autoptr (GError) error = NULL;
  int status;

  environment = g_environ_setenv (environment, "HOLDFAST_FAIL", specification, TRUE);
  environment = g_environ_setenv (environment, "HOLDFAST_FAIL_LOG", log, TRUE);
  g_spawn_sync (NULL, (char **)arguments, environment, G_SPAWN_DEFAULT, NULL, NULL, NULL, NULL, &status, &error);
  g_assert_no_error (error);
  return status;
}

static guint
count_lines (const char *path)
{
  g_autofree char *text = NULL;
  g_auto (GStrv) lines = NULL;

  g_assert_true (g_file_get_contents (path, &text, NULL, NULL));
  lines = g_strsplit (g_strchomp (text), "\n", -1);
  return g_strv_length (lines);
}

static void
test_kills (Place *place, gconstpointer data)
{
  static const struct {
    const char *point;
    gboolean sync;
    guint64 key;     /* afterwards */
    guint n_reached; /* points, up to that one */
  } kills[] = {
    { "before-store-write", FALSE, 1, 1 }, { "after-store-write", FALSE, 1, 2 }, { "before-store-write", TRUE, 1, 1 },
    { "after-store-write", TRUE, 1, 2 },   { "before-store-sync", TRUE, 1, 3 },  { "after-store-sync", TRUE, 2, 4 },
  };
  g_autofree char *log = g_build_filename (place->dir, "points", NULL);

  for (gsize i = 0; i < G_N_ELEMENTS (kills); i++) {
    int status;

    g_test_message ("%s %s", kills[i].point, kills[i].sync ? "sync" : "");
    status = run_child (place, kills[i].point, kills[i].sync);
    g_assert_true (WIFSIGNALED (status) && WTERMSIG (status) == SIGKILL);
    g_assert_cmpuint (count_lines (log), ==, kills[i].n_reached);
    g_assert_cmphex (read_key (place), ==, kills[i].key);
    g_assert_false (exists (place, ".unfinished"));
    g_assert_cmpint (g_unlink (log), ==, 0);
  }
  /* The same child lives if nothing kills it, so it was not something else that ended it. */
  g_assert_cmpint (run_child (place, "before-nothing", FALSE), ==, 0);
  g_assert_cmphex (read_key (place), ==, 2);
}

/* ---- what lies in the folder ---- */

static char *
read_file (const Place *place, const char *name, gsize *ret_length)
{
  g_autofree char *path = path_of (place, name);
  g_autoptr (GError) error = NULL;
  char *text;

  g_file_get_contents (path, &text, ret_length, &error);
  g_assert_no_error (error);
  return text;
}

static void
write_file (const Place *place, const char *name, const char *text, gsize length)
{
  g_autofree char *path = path_of (place, name);

  g_assert_true (g_file_set_contents (path, text, (gssize)length, NULL));
}

static void
write_one (const Place *place)
{
  HfStore *store = open_store (place);

  write_and_wait (store, make_keyed_image (1, 1), FALSE);
  hf_store_free (store);
}

static void
test_other_boot (Place *place, gconstpointer data)
{
  g_autofree char *text = NULL, *boot = NULL;
  gsize length;

  write_one (place);
  text = read_file (place, "1-1.json", &length);
  g_assert_true (g_file_get_contents ("/proc/sys/kernel/random/boot_id", &boot, NULL, NULL));
  g_assert_nonnull (strstr (text, g_strstrip (boot)));
  /* The rest need not even be an image. */
  *strstr (text, boot) ^= 1;
  write_file (place, "1-1.json", text, length - 9);
  g_assert_cmphex (read_key (place), ==, 0);
  g_assert_false (exists (place, "1-1.json"));
  g_assert_false (exists (place, "1-1.json.damaged"));
}

/* Each single byte that is another one, and each end that comes too early: never read as if nothing was, never a crash. */
static void
test_damaged_file (Place *place, gconstpointer data)
{
  g_autofree char *text = NULL;
  gsize length;
  HfStore *store;

  write_one (place);
  text = read_file (place, "1-1.json", &length);
  hf_log_init (HF_LOG_ERROR - 1);
  store = open_store (place);
  for (gsize i = 0; i < length; i++) {
    g_autoptr (GPtrArray) images = NULL;

    text[i] ^= 1;
    write_file (place, "1-1.json", text, length);
    text[i] ^= 1;
    images = read_store (store);
    g_assert_cmpuint (images->len, ==, 0);
    g_assert_false (exists (place, "1-1.json"));
  }
  g_assert_true (exists (place, "1-1.json.damaged"));
  for (gsize cut = 0; cut < length; cut++) {
    g_autoptr (GPtrArray) images = NULL;

    write_file (place, "1-1.json", text, cut);
    images = read_store (store);
    g_assert_cmpuint (images->len, ==, 0);
    g_assert_false (exists (place, "1-1.json"));
  }
  hf_store_free (store);
  hf_log_init (HF_LOG_WARNING);
}

/* The good image among them counts, nothing else is opened or followed, and an image under another VM's name is not its. */
static void
test_strange_files (Place *place, gconstpointer data)
{
  static const char *const ignored[] = { "1.json",    "01-1.json",         "1-1.json.old", "-1-1.json", "1-1-1.json",
                                         "1- 1.json", "4294967296-1.json", "x-1.json",     "1-1.JSON",  ".json" };
  static const char *const aside[] = { "2-1.json", "3-1.json", "4-1.json", "5-1.json", "6-1.json" };
  g_autofree char *text = NULL, *large = NULL;
  gsize length;

  write_one (place);
  text = read_file (place, "1-1.json", &length);
  for (gsize i = 0; i < G_N_ELEMENTS (ignored); i++)
    write_file (place, ignored[i], text, length);
  for (gsize i = 0; i < G_N_ELEMENTS (aside); i++) {
    g_autofree char *path = path_of (place, aside[i]);
    int result = 0;

    if (i == 0)
      result = symlink ("1-1.json", path);
    else if (i == 1)
      result = mkfifo (path, 0600);
    else if (i == 2)
      result = mkdir (path, 0700);
    else if (i == 3)
      write_file (place, aside[i], text, length);
    else
      write_file (place, aside[i], "", 0);
    g_assert_cmpint (result, ==, 0);
  }
  /* Larger than memory would be a crash if it were read. */
  large = path_of (place, "6-1.json");
  g_assert_cmpint (truncate (large, (off_t)1 << 40), ==, 0);
  hf_log_init (HF_LOG_ERROR - 1);
  g_assert_cmphex (read_key (place), ==, 1);
  hf_log_init (HF_LOG_WARNING);
  for (gsize i = 0; i < G_N_ELEMENTS (ignored); i++)
    g_assert_true (exists (place, ignored[i]));
  for (gsize i = 0; i < G_N_ELEMENTS (aside); i++) {
    g_autofree char *damaged = g_strconcat (aside[i], ".damaged", NULL);

    g_assert_false (exists (place, aside[i]));
    g_assert_true (exists (place, damaged));
  }
}

/* ---- time ---- */

static void
fill_typical (HfHeld *held, guint number)
{
  memset (held, 0, sizeof *held);
  held->block = TRUE;
  held->major = 8;
  held->minor = number;
  held->identified = TRUE;
  held->identity.n_designators = 2;
  held->identity.designators[0] = (HfDesignator){ .type = 3, .code_set = 1, .length = 16 };
  memcpy (held->identity.designators[0].bytes, &number, sizeof number);
  held->identity.designators[1] = (HfDesignator){ .type = 1, .code_set = 2, .length = 40 };
  memset (held->identity.designators[1].bytes, 't', 40);
  g_snprintf (held->identity.serial, sizeof held->identity.serial, "serial-%u", number);
  held->state = (HfPrState){ .key = number + 1, .type = 7 };
}

static void
time_reading (const Place *place, guint n_images, guint n_held)
{
  HfStore *store = open_store (place);
  gint64 before;

  for (guint i = 0; i < n_images; i++) {
    HfVmImage *image = make_image (1000 + (pid_t)i, 1);

    g_array_set_size (image->held, n_held);
    for (guint j = 0; j < n_held; j++)
      fill_typical (&g_array_index (image->held, HfHeld, j), i + j);
    hf_store_write (store, image, FALSE, NULL, NULL);
  }
  hf_store_free (store);

  before = g_get_monotonic_time ();
  store = open_store (place);
  g_autoptr (GPtrArray) images = read_store (store);
  before = g_get_monotonic_time () - before;
  g_test_message ("%u images of %u LUs: %" G_GINT64_FORMAT " us", n_images, n_held, before);
  g_assert_cmpuint (images->len, ==, n_images);
  for (guint i = 0; i < images->len; i++)
    g_assert_cmpuint (((HfVmImage *)g_ptr_array_index (images, i))->held->len, ==, n_held);
  g_assert_cmpint (before, <, READ_TIME_MAX);
  hf_store_free (store);
}

static void
test_time_many_images (Place *place, gconstpointer data)
{
  time_reading (place, 1000, 1);
}

static void
test_time_many_lus (Place *place, gconstpointer data)
{
  time_reading (place, 1, 1000);
}

static const struct {
  const char *path;
  void (*function) (Place *place, gconstpointer data);
} tests[] = {
  { "/store/write-and-read", test_write_and_read }, { "/store/remove", test_remove },
  { "/store/free-writes", test_free_writes },       { "/store/coalescing", test_coalescing },
  { "/store/full-disk", test_full_disk },           { "/store/too-many-devices", test_too_many_devices },
  { "/store/no-folder", test_no_folder },           { "/store/not-writable", test_not_writable },
  { "/store/second-store", test_second_store },     { "/store/kills", test_kills },
  { "/store/other-boot", test_other_boot },         { "/store/damaged-file", test_damaged_file },
  { "/store/strange-files", test_strange_files },   { "/store/1000-images", test_time_many_images },
  { "/store/1000-lus", test_time_many_lus },
};

int
main (int argc, char **argv)
{
  if (argc == 4 && g_str_equal (argv[1], "--write"))
    return child_main (argv[2], g_str_equal (argv[3], "sync"));
  program = argv[0];
  g_test_init (&argc, &argv, NULL);
  hf_log_init (HF_LOG_WARNING);
  g_test_add_func ("/vm-image/round-trip", test_round_trip);
  g_test_add_func ("/vm-image/largest", test_largest);
  g_test_add_func ("/vm-image/name-of-bytes", test_name_of_bytes);
  g_test_add_func ("/vm-image/damaged-text", test_damaged_text);
  g_test_add_func ("/vm-image/one-too-many", test_one_too_many);
  for (gsize i = 0; i < G_N_ELEMENTS (tests); i++)
    g_test_add (tests[i].path, Place, NULL, place_set_up, tests[i].function, place_tear_down);
  return g_test_run ();
}
