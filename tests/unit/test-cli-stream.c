/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * holdfast stream without a process: the words of a line in, what is printed and the exit code out. The streams are made up
 * (tests/fake/qemu-stream.h); the LUs are nexuses of the model LU, as in test-cli.
 */
#include "config.h"

#include "../fake/qemu-stream.h"
#include "../model/model-transport.h"
#include "cli/cli.h"
#include "cli/interrupt.h"
#include "cli/verb-stream.h"

#include <fcntl.h>
#include <glib-unix.h>
#include <glib/gstdio.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEY 0xabc
#define OTHER_KEY 0xd00d
#define PR_SECTION "0000:00:01.0/0:3:1/scsi-disk"

enum { SRC, DST, THIRD };

typedef struct {
  HfModel model, alien;
  HfModelWire wire, alien_wire;
  HfSession *session;
  HfOptions options;
  char *folder;
  char *out, *err; /* of the last run */
} Fixture;

static void
add_lu (Fixture *f, const char *address, HfModelWire *wire, guint nexus)
{
  hf_session_add (f->session, &f->options, address, hf_model_lu_new (wire, nexus, TRUE));
}

static void
set_up (Fixture *f, gconstpointer data)
{
  hf_model_init (&f->model, 0, 3);
  hf_model_init (&f->alien, 0, 1);
  f->alien.naa++;
  hf_model_wire_init (&f->wire, &f->model);
  hf_model_wire_init (&f->alien_wire, &f->alien);
  f->session = hf_session_new ();
  add_lu (f, "src", &f->wire, SRC);
  add_lu (f, "dst", &f->wire, DST);
  add_lu (f, "alien", &f->alien_wire, 0);
  f->folder = g_dir_make_tmp ("holdfast-test-stream-XXXXXX", NULL);
  g_assert_nonnull (f->folder);
}

static char *
path_of (const Fixture *f, const char *name)
{
  return g_build_filename (f->folder, name, NULL);
}

static void
tear_down (Fixture *f, gconstpointer data)
{
  g_autoptr (GDir) folder = g_dir_open (f->folder, 0, NULL);
  const char *name;

  hf_session_free (f->session);
  hf_model_wire_clear (&f->wire);
  hf_model_wire_clear (&f->alien_wire);
  while ((name = g_dir_read_name (folder))) {
    g_autofree char *path = path_of (f, name);
    g_remove (path);
  }
  g_assert_cmpint (g_rmdir (f->folder), ==, 0);
  g_free (f->folder);
  g_free (f->out);
  g_free (f->err);
}

/* "FOLDER" in line is the fixture's. */
static int
run_in (Fixture *f, gboolean in_batch, const char *line)
{
  g_auto (GStrv) words = NULL;
  g_autoptr (GString) text = g_string_new (line);

  g_string_replace (text, "FOLDER", f->folder, 0);
  g_assert_true (g_shell_parse_argv (text->str, NULL, &words, NULL));
  g_clear_pointer (&f->out, g_free);
  g_clear_pointer (&f->err, g_free);
  return hf_run_verb_to_strings (f->session, &f->options, in_batch, words, &f->out, &f->err);
}

static void
run (Fixture *f, const char *line, int expected)
{
  int result = run_in (f, FALSE, line);

  if (result != expected)
    g_test_message ("%s: %s%s", line, f->out, f->err);
  g_assert_cmpint (result, ==, expected);
}

static void
has (const char *text, const char *part)
{
  if (!strstr (text, part))
    g_test_message ("no \"%s\" in: %s", part, text);
  g_assert_nonnull (strstr (text, part));
}

/* The one line that --json promises. Free with json_node_unref. */
static JsonNode *
run_json (Fixture *f, const char *line, int expected)
{
  g_autofree char *with_json = g_strconcat (line, " --json", NULL);
  g_autoptr (GError) error = NULL;
  JsonNode *node;

  run (f, with_json, expected);
  g_assert_true (g_str_has_suffix (f->out, "\n"));
  g_assert_true (strchr (f->out, '\n') == f->out + strlen (f->out) - 1);
  node = json_from_string (f->out, &error);
  g_assert_no_error (error);
  g_assert_cmpint (json_object_get_int_member (json_node_get_object (node), "result"), ==, expected);
  return node;
}

/* ---- files ---- */

static void
write_bytes (const Fixture *f, const char *name, const void *data, gsize length)
{
  g_autofree char *path = path_of (f, name);

  g_assert_true (g_file_set_contents (path, data, (gssize)length, NULL));
}

static void
write_stream (const Fixture *f, const char *name, const FakeStreamOptions *options)
{
  g_autoptr (FakeStream) stream = fake_stream_new (options);

  write_bytes (f, name, stream->bytes->data, stream->bytes->len);
}

/* What the first length bytes of two files are; G_MAXSIZE: all of both. */
static void
same_bytes (const Fixture *f, const char *a, const char *b, gsize length)
{
  g_autofree char *path_a = path_of (f, a), *path_b = path_of (f, b), *bytes_a = NULL, *bytes_b = NULL;
  gsize length_a, length_b;

  g_assert_true (g_file_get_contents (path_a, &bytes_a, &length_a, NULL));
  g_assert_true (g_file_get_contents (path_b, &bytes_b, &length_b, NULL));
  if (length == G_MAXSIZE)
    g_assert_cmpuint (length_a, ==, length_b);
  length = MIN (length, MIN (length_a, length_b));
  g_assert_cmpmem (bytes_a, length, bytes_b, length);
}

/* Nothing of the folder but these, which end with NULL. */
static void
only_files (const Fixture *f, const char *const *names)
{
  g_autoptr (GDir) folder = g_dir_open (f->folder, 0, NULL);
  const char *name;

  while ((name = g_dir_read_name (folder))) {
    if (!g_strv_contains (names, name))
      g_test_message ("left behind: %s", name);
    g_assert_true (g_strv_contains (names, name));
  }
}

static int
open_file (const Fixture *f, const char *name, int flags)
{
  g_autofree char *path = path_of (f, name);
  int fd = open (path, flags | O_CLOEXEC, 0600);

  g_assert_cmpint (fd, >=, 0);
  return fd;
}

/* capture, with more words, of the file name, which comes as a descriptor. */
static int
capture (Fixture *f, const char *name, const char *words)
{
  g_autofree char *line = NULL;
  int fd = open_file (f, name, O_RDONLY), result;

  line = g_strdup_printf ("stream capture --fd %d %s", fd, words);
  result = run_in (f, FALSE, line);
  close (fd);
  if (result)
    g_test_message ("%s: %s", line, f->err);
  return result;
}

/* ---- words ---- */

static void
test_sizes (void)
{
  static const struct {
    const char *text;
    gint64 value; /* negative: refused */
  } cases[] = {
    { "0", 0 },
    { "92", 92 },
    { "0x11921", 0x11921 },
    { "0X10", 16 },
    { "4k", 4096 },
    { "1M", 1 << 20 },
    { "2G", G_GINT64_CONSTANT (2) << 30 },
    { "1T", G_GINT64_CONSTANT (1) << 40 },
    { "0x10K", 16384 },
    { "010", 10 },
    { "9223372036854775807", G_MAXINT64 },
    { "9223372036854775808", -1 },
    { "18446744073709551616", -1 },
    { "8388608T", -1 },
    { "-1", -1 },
    { "+1", -1 },
    { " 1", -1 },
    { "1 ", -1 },
    { "", -1 },
    { "K", -1 },
    { "1KK", -1 },
    { "1x", -1 },
    { "0x", -1 },
    { "1.5G", -1 },
  };

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (GError) error = NULL;
    guint64 value = 77;
    gboolean ok = hf_stream_parse_size ("--offset", cases[i].text, &value, &error);
    g_test_message ("\"%s\"", cases[i].text);
    g_assert_cmpint (ok, ==, cases[i].value >= 0);
    g_assert_cmpint (ok, ==, error == NULL);
    if (ok)
      g_assert_cmpuint (value, ==, (guint64)cases[i].value);
  }
}

static const struct {
  const char *line, *message;
} usage_errors[] = {
  { "stream", "stream needs a sub-verb" },
  { "stream steal x", "\"steal\" is not a sub-verb" },
  { "stream --frobnicate", "--frobnicate" },
  { "stream capture --fd 0", "capture needs one FILE" },
  { "stream capture --fd 0 a b", "capture needs one FILE" },
  { "stream capture --fd 0 ''", "the name of a file is empty" },
  { "stream capture --fd x FOLDER/a", "--fd" },
  { "stream capture --fd -1 FOLDER/a", "--fd" },
  { "stream capture --fd 1000 FOLDER/a", "no such descriptor" },
  { "stream capture --fd 0 --listen unix:/x FOLDER/a", "exclude each other" },
  { "stream capture --listen unix:FOLDER/s --any --mapped FOLDER/a", "--mapped" },
  { "stream capture --listen unix:FOLDER/s --offset 1Z FOLDER/a", "--offset" },
  { "stream capture --listen unix:FOLDER/s --engine fast FOLDER/a", "--engine" },
  { "stream capture --listen unix:FOLDER/s --progress=bar FOLDER/a", "--progress" },
  { "stream capture --quick FOLDER/a", "--quick" },
  { "stream replay --fd 1 --connect unix:x FOLDER/a", "exclude each other" },
  { "stream replay FOLDER/a", "no room for other output" },
  { "stream replay", "replay needs one FILE" },
  { "stream wait", "wait needs one FILE" },
  { "stream convert FOLDER/a FOLDER/b", "convert needs --to" },
  { "stream convert --to qcow2 FOLDER/a FOLDER/b", "convert needs --to" },
  { "stream convert --to classic FOLDER/a", "two files" },
  { "stream inspect", "inspect needs a FILE" },
  { "stream inspect --offline FOLDER/a src", "--offline" },
  { "stream verify FOLDER/a FOLDER/b", "verify needs one FILE" },
};

static void
test_usage (Fixture *f, gconstpointer data)
{
  for (guint i = 0; i < G_N_ELEMENTS (usage_errors); i++) {
    g_autoptr (JsonNode) node = run_json (f, usage_errors[i].line, 1);
    JsonObject *error = json_object_get_object_member (json_node_get_object (node), "error");
    has (json_object_get_string_member (error, "text"), usage_errors[i].message);
    has (f->err, "try: holdfast stream --help");
  }
  only_files (f, (const char *const[]){ NULL });
}

static void
test_help (Fixture *f, gconstpointer data)
{
  static const char *const names[] = { "capture", "replay", "wait", "convert", "inspect", "verify" };

  run (f, "stream --help", 0);
  for (guint i = 0; i < G_N_ELEMENTS (names); i++)
    has (f->out, names[i]);
  run (f, "stream capture --help", 0);
  has (f->out, "--mapped");
}

/* Standard input and output are the batch's. */
static void
test_batch (Fixture *f, gconstpointer data)
{
  static const char *const lines[] = {
    "stream capture FOLDER/a",
    "stream capture --fd 0 FOLDER/a",
    "stream replay FOLDER/a",
    "stream replay --fd 1 FOLDER/a",
  };

  write_stream (f, "a", NULL);
  for (guint i = 0; i < G_N_ELEMENTS (lines); i++)
    g_assert_cmpint (run_in (f, TRUE, lines[i]), ==, 1);
  g_assert_cmpint (run_in (f, TRUE, "stream verify FOLDER/a"), ==, 0);
}

/* ---- a way there and back ---- */

static void
test_capture_replay (Fixture *f, gconstpointer data)
{
  g_autofree char *line = NULL;
  g_autoptr (JsonNode) node = NULL;
  JsonObject *object;
  int fd;

  write_stream (f, "stream", &(FakeStreamOptions){ .n_pages = 700 });
  g_assert_cmpint (capture (f, "stream", "FOLDER/vm.hf"), ==, 0);
  has (f->out, "vm.hf: committed");
  node = run_json (f, "stream wait FOLDER/vm.hf", 0);
  object = json_node_get_object (node);
  g_assert_cmpstr (json_object_get_string_member (object, "outcome"), ==, "committed");
  g_assert_true (json_object_get_boolean_member (object, "complete"));
  g_assert_true (json_object_get_boolean_member (object, "sync"));
  run (f, "stream verify FOLDER/vm.hf", 0);
  has (f->out, "good, checksums too");
  fd = open_file (f, "back", O_WRONLY | O_CREAT);
  line = g_strdup_printf ("stream replay --fd %d FOLDER/vm.hf", fd);
  run (f, line, 0);
  close (fd);
  same_bytes (f, "stream", "back", G_MAXSIZE);
  only_files (f, (const char *const[]){ "stream", "vm.hf", "vm.hf.status", "back", NULL });
}

static void
test_capture_cut (Fixture *f, gconstpointer data)
{
  g_autoptr (FakeStream) stream = fake_stream_new (NULL);
  g_autoptr (JsonNode) node = NULL;

  write_bytes (f, "vm.hf", "old", 3);
  write_bytes (f, "old", "old", 3);
  write_bytes (f, "cut", stream->bytes->data, stream->bytes->len - 1);
  g_assert_cmpint (capture (f, "cut", "FOLDER/vm.hf"), ==, HF_EXIT_MALFORMED);
  node = run_json (f, "stream wait FOLDER/vm.hf", HF_EXIT_MALFORMED);
  g_assert_cmpstr (json_object_get_string_member (json_node_get_object (node), "outcome"), ==, "incomplete");
  same_bytes (f, "vm.hf", "old", G_MAXSIZE);
  only_files (f, (const char *const[]){ "old", "cut", "vm.hf", "vm.hf.status", NULL });
  /* What is no stream of QEMU may be anything. */
  g_assert_cmpint (capture (f, "cut", "--any --no-sync --buffered --engine threads FOLDER/any"), ==, 0);
  has (f->out, "not synced");
  same_bytes (f, "cut", "any", stream->bytes->len - 1);
  write_bytes (f, "text", "just a text, and longer than a header", 37);
  g_assert_cmpint (capture (f, "text", "--any FOLDER/any"), ==, 0);
  run (f, "stream verify FOLDER/any", HF_EXIT_MALFORMED);
  run (f, "stream verify --any FOLDER/any", 0);
  has (f->out, "checksums too");
  run (f, "stream inspect --any FOLDER/any", 0);
  has (f->out, "no stream of QEMU");
}

static void
test_offset (Fixture *f, gconstpointer data)
{
  g_autoptr (FakeStream) stream = fake_stream_new (NULL);
  g_autofree char *line = NULL;
  int fd;

  write_bytes (f, "stream", stream->bytes->data, stream->bytes->len);
  write_bytes (f, "vm.hf", "0123456789", 10);
  write_bytes (f, "head", "01234567", 8);
  g_assert_cmpint (capture (f, "stream", "--offset 8 FOLDER/vm.hf"), ==, 0);
  same_bytes (f, "vm.hf", "head", 8);
  run (f, "stream verify FOLDER/vm.hf", 0);
  fd = open_file (f, "back", O_WRONLY | O_CREAT);
  line = g_strdup_printf ("stream replay --fd %d FOLDER/vm.hf", fd);
  run (f, line, 0);
  close (fd);
  same_bytes (f, "stream", "back", G_MAXSIZE);
}

static void
test_wait (Fixture *f, gconstpointer data)
{
  run (f, "stream wait --timeout 50 FOLDER/never", HF_EXIT_TIMEOUT);
  write_bytes (f, "a.status", "no JSON", 7);
  run (f, "stream wait --timeout 5000 FOLDER/a", HF_EXIT_MALFORMED);
}

static void
test_convert (Fixture *f, gconstpointer data)
{
  g_autoptr (JsonNode) node = NULL;

  write_stream (f, "classic", NULL);
  run (f, "stream convert --to mapped-ram FOLDER/classic FOLDER/mapped", 0);
  has (f->out, "mapped: mapped-ram");
  node = run_json (f, "stream inspect FOLDER/mapped", 0);
  g_assert_true (json_object_get_boolean_member (json_node_get_object (node), "mapped_ram"));
  run (f, "stream convert --to classic FOLDER/mapped FOLDER/again", 0);
  run (f, "stream verify FOLDER/again", 0);
  g_assert_cmpint (capture (f, "classic", "--mapped FOLDER/at-once"), ==, 0);
  same_bytes (f, "mapped", "at-once", G_MAXSIZE);
  /* A stream needs an order, which mapped-ram has not. */
  run (f, "stream replay --fd 2 FOLDER/mapped", HF_EXIT_REFUSED);
  run (f, "stream convert --to mapped-ram FOLDER/nowhere FOLDER/x", HF_EXIT_FILE);
}

/* ---- verify ---- */

static void
test_verify_bad (Fixture *f, gconstpointer data)
{
  g_autoptr (FakeStream) stream = fake_stream_new (NULL);
  g_autoptr (JsonNode) node = NULL, cut = NULL;
  JsonObject *object;

  stream->bytes->data[stream->ram_end - 2] ^= 1;
  write_bytes (f, "bad", stream->bytes->data, stream->bytes->len);
  node = run_json (f, "stream verify FOLDER/bad", HF_EXIT_MALFORMED);
  object = json_node_get_object (node);
  g_assert_false (json_object_get_boolean_member (object, "good"));
  g_assert_cmpint (json_object_get_int_member (object, "n_problems"), >=, 1);
  g_assert_cmpint (json_array_get_length (json_object_get_array_member (object, "problems")), >=, 1);
  stream->bytes->data[stream->ram_end - 2] ^= 1;
  write_bytes (f, "cut", stream->bytes->data, stream->bytes->len / 2);
  cut = run_json (f, "stream verify FOLDER/cut", HF_EXIT_MALFORMED);
  g_assert_true (json_object_get_boolean_member (json_node_get_object (cut), "incomplete"));
  run (f, "stream verify FOLDER/nowhere", HF_EXIT_FILE);
  write_bytes (f, "text", "just a text, and longer than a header", 37);
  run (f, "stream verify FOLDER/text", HF_EXIT_MALFORMED);
}

/* Nothing is wrong, but something is not understood: neither good nor bad, and not cut. */
static void
test_unproved (Fixture *f, gconstpointer data)
{
  g_autoptr (FakeStream) stream = fake_stream_new (NULL);
  g_autoptr (JsonNode) verified = NULL, inspected = NULL;
  guint8 *id = memmem (stream->bytes->data, stream->bytes->len, "\003ram", 4);

  id[2] = 'o';
  write_bytes (f, "bitmap", stream->bytes->data, stream->bytes->len);
  run (f, "stream verify FOLDER/bitmap", HF_EXIT_REFUSED);
  has (f->out, "not proved; the end is right, with ");
  has (f->out, "\"rom\"");
  verified = run_json (f, "stream verify FOLDER/bitmap", HF_EXIT_REFUSED);
  g_assert_false (json_object_get_boolean_member (json_node_get_object (verified), "good"));
  g_assert_false (json_object_get_boolean_member (json_node_get_object (verified), "proved"));
  run (f, "stream inspect FOLDER/bitmap", HF_EXIT_REFUSED);
  has (f->out, "not proved to be whole");
  g_assert_null (strstr (f->out, "missing"));
  inspected = run_json (f, "stream inspect FOLDER/bitmap", HF_EXIT_REFUSED);
  g_assert_false (json_object_get_boolean_member (json_node_get_object (inspected), "proved"));
  run (f, "stream convert --to mapped-ram FOLDER/bitmap FOLDER/x", HF_EXIT_REFUSED);
  write_bytes (f, "cut", stream->bytes->data, stream->bytes->len - 1);
  run (f, "stream verify FOLDER/cut", HF_EXIT_MALFORMED);
  run (f, "stream inspect FOLDER/cut", HF_EXIT_MALFORMED);
  has (f->out, "not whole");
}

/* The last line on standard error. */
static char *
last_progress (Fixture *f, const char *line)
{
  g_autofree char *path = path_of (f, "progress");
  int file = open (path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), saved = dup (STDERR_FILENO);
  g_autofree char *text = NULL;

  g_assert_cmpint (file, >=, 0);
  g_assert_cmpint (dup2 (file, STDERR_FILENO), ==, STDERR_FILENO);
  run (f, line, 0);
  g_assert_cmpint (dup2 (saved, STDERR_FILENO), ==, STDERR_FILENO);
  close (saved);
  close (file);
  g_assert_true (g_file_get_contents (path, &text, NULL, NULL));
  g_strchomp (text);
  return g_strdup (strrchr (text, '\n') ? strrchr (text, '\n') + 1 : text);
}

/* All of it was looked at, also where that is no work. */
static void
test_progress_end (Fixture *f, gconstpointer data)
{
  static const char *const lines[] = {
    "stream verify --progress=json FOLDER/mapped",
    "stream verify --quick --progress=json FOLDER/mapped",
    "stream verify --progress=json FOLDER/classic",
    "stream inspect --progress=json FOLDER/mapped",
  };

  write_stream (f, "mapped", &(FakeStreamOptions){ .mapped = TRUE });
  write_stream (f, "classic", &(FakeStreamOptions){ 0 });
  for (guint i = 0; i < G_N_ELEMENTS (lines); i++) {
    g_autofree char *text = last_progress (f, lines[i]);
    g_autoptr (JsonNode) node = json_from_string (text, NULL);
    JsonObject *object;

    g_assert_nonnull (node);
    object = json_node_get_object (node);
    g_assert_cmpint (json_object_get_int_member (object, "bytes"), >, 0);
    g_assert_cmpint (json_object_get_int_member (object, "bytes"), ==, json_object_get_int_member (object, "total"));
  }
}

/* ---- inspect ---- */

static void
test_inspect (Fixture *f, gconstpointer data)
{
  g_autoptr (JsonNode) node = NULL;
  JsonObject *object;

  write_stream (f, "s", &(FakeStreamOptions){ .uuid = TRUE, .machine = "pc-q35-9.2" });
  node = run_json (f, "stream inspect FOLDER/s", 0);
  object = json_node_get_object (node);
  g_assert_cmpstr (json_object_get_string_member (object, "kind"), ==, "qemu");
  g_assert_cmpstr (json_object_get_string_member (object, "machine"), ==, "pc-q35-9.2");
  g_assert_cmpuint (strlen (json_object_get_string_member (object, "uuid")), ==, 36);
  g_assert_true (json_object_get_boolean_member (object, "complete"));
  g_assert_cmpuint (json_array_get_length (json_object_get_array_member (object, "blocks")), ==, FAKE_N_BLOCKS);
  g_assert_cmpuint (json_array_get_length (json_object_get_array_member (object, "sections")), >, 4);
  run (f, "stream inspect FOLDER/s", 0);
  has (f->out, "pc-q35-9.2");
  has (f->out, "complete");
}

/* Of a cut file: what there is, what is missing, and an exit code that says it. */
static void
test_inspect_cut (Fixture *f, gconstpointer data)
{
  g_autoptr (FakeStream) stream = fake_stream_new (NULL);

  for (guint i = 0; i + 1 < stream->boundaries->len; i++) {
    const FakeBoundary *boundary = &g_array_index (stream->boundaries, FakeBoundary, i);
    g_autoptr (JsonNode) node = NULL;
    JsonObject *object;

    write_bytes (f, "cut", stream->bytes->data, boundary->offset);
    g_test_message ("cut at %" G_GUINT64_FORMAT ", %s", boundary->offset, boundary->what);
    node = run_json (f, "stream inspect FOLDER/cut", HF_EXIT_MALFORMED);
    object = json_node_get_object (node);
    g_assert_nonnull (json_object_get_object_member (object, "error"));
    if (!json_object_has_member (object, "seen"))
      continue;
    g_assert_false (json_object_get_boolean_member (object, "complete"));
    g_assert_cmpint (json_object_get_boolean_member (json_object_get_object_member (object, "seen"), "ram_end"), ==,
                     boundary->offset >= stream->ram_end);
  }
}

/* The end is whole, the memory is not: the devices are found from the end. */
static void
test_inspect_damaged_ram (Fixture *f, gconstpointer data)
{
  g_autoptr (FakeStream) stream = fake_stream_new (&(FakeStreamOptions){ .pr_key = KEY, .pr_type = 5 });
  g_autoptr (JsonNode) node = NULL;
  JsonObject *object;

  /* The word in front of the first page's bytes. */
  memset (stream->bytes->data + stream->first_page - 8, 0xff, 8);
  write_bytes (f, "s", stream->bytes->data, stream->bytes->len);
  node = run_json (f, "stream inspect FOLDER/s", HF_EXIT_MALFORMED);
  object = json_node_get_object (node);
  g_assert_false (json_object_get_boolean_member (object, "complete"));
  g_assert_cmpuint (json_array_get_length (json_object_get_array_member (object, "reservations")), ==, 1);
}

/* ---- reservations ---- */

/* A stream with what src holds. */
static void
write_record_stream (Fixture *f, guint8 type)
{
  g_autofree char *path = path_of (f, "record"), *record = NULL;
  gsize length;

  hf_model_set_key (&f->model, SRC, KEY);
  if (type)
    hf_model_set_reservation (&f->model, SRC, type);
  run (f, "save --key abc -o FOLDER/record src", 0);
  g_assert_true (g_file_get_contents (path, &record, &length, NULL));
  write_stream (f, "s",
                &(FakeStreamOptions){ .dbus_id = "holdfast", .dbus_data = (const guint8 *)record, .dbus_length = length });
}

static JsonObject *
get_record (JsonNode *node)
{
  JsonObject *object = json_node_get_object (node);
  JsonObject *vmstate = json_array_get_object_element (json_object_get_array_member (object, "vmstate"), 0);
  JsonObject *entry = json_array_get_object_element (json_object_get_array_member (vmstate, "entries"), 0);

  g_assert_cmpstr (json_object_get_string_member (entry, "id"), ==, "holdfast");
  return json_object_get_object_member (entry, "record");
}

static const char *
get_verdict (JsonNode *node)
{
  JsonObject *compared = json_object_get_object_member (get_record (node), "compared");
  JsonObject *unit = json_array_get_object_element (json_object_get_array_member (compared, "units"), 0);

  return json_object_get_string_member (unit, "verdict");
}

static void
test_record (Fixture *f, gconstpointer data)
{
  g_autoptr (JsonNode) same = NULL, moved = NULL, fenced = NULL, not_here = NULL;
  JsonArray *missing;
  guint commands;

  write_record_stream (f, 5);
  same = run_json (f, "stream inspect FOLDER/s src", 0);
  g_assert_cmpstr (get_verdict (same), ==, "unchanged");
  moved = run_json (f, "stream inspect FOLDER/s dst", 0);
  g_assert_cmpstr (get_verdict (moved), ==, "moved");
  hf_model_set_key (&f->model, SRC, 0);
  hf_model_set_key (&f->model, THIRD, OTHER_KEY);
  fenced = run_json (f, "stream inspect FOLDER/s dst", HF_EXIT_CHANGED);
  g_assert_cmpstr (get_verdict (fenced), ==, "fenced");
  /* This machine has no such LU, and that is no failure. */
  commands = f->wire.n_commands;
  not_here = run_json (f, "stream inspect FOLDER/s", 0);
  missing = json_object_get_array_member (get_record (not_here), "not_compared");
  g_assert_cmpuint (json_array_get_length (missing), ==, 1);
  g_assert_true (json_object_get_null_member (get_record (not_here), "compared"));
  run (f, "stream inspect --offline FOLDER/s", 0);
  has (f->out, "no LU was opened");
  g_assert_cmpuint (f->wire.n_commands, ==, commands);
}

/* Only reads: what the LU holds is what it held. */
static void
test_reads_only (Fixture *f, gconstpointer data)
{
  guint32 generation;

  write_record_stream (f, 1);
  generation = f->model.generation;
  run (f, "stream inspect FOLDER/s dst", 0);
  g_assert_cmpuint (f->model.generation, ==, generation);
  g_assert_cmpuint (hf_model_count_key (&f->model, KEY), ==, 1);
  g_assert_true (hf_model_is_holder (&f->model, SRC));
}

static void
test_foreign_lu (Fixture *f, gconstpointer data)
{
  write_record_stream (f, 5);
  run (f, "stream inspect FOLDER/s alien", HF_EXIT_RECORD);
  has (f->err, "no record in this stream has this LU");
  run (f, "stream inspect FOLDER/s src src", 1);
}

static void
test_damaged_record (Fixture *f, gconstpointer data)
{
  write_stream (
      f, "s", &(FakeStreamOptions){ .dbus_id = "holdfast", .dbus_data = (const guint8 *)"HOLDFAST-but-not", .dbus_length = 16 });
  run (f, "stream inspect FOLDER/s", HF_EXIT_RECORD);
  has (f->out, "a record that is refused");
  write_stream (f, "s", &(FakeStreamOptions){ .dbus_id = "other", .dbus_data = (const guint8 *)"data", .dbus_length = 4 });
  run (f, "stream inspect FOLDER/s", 0);
  has (f->out, "\"other\": 4 bytes");
}

static JsonObject *
get_reservation (JsonNode *node)
{
  JsonArray *all = json_object_get_array_member (json_node_get_object (node), "reservations");

  g_assert_cmpuint (json_array_get_length (all), ==, 1);
  return json_array_get_object_element (all, 0);
}

static void
test_scsi_disk_pr (Fixture *f, gconstpointer data)
{
  g_autoptr (JsonNode) unmapped = NULL, same = NULL, different = NULL;
  JsonObject *object;

  write_stream (f, "s", &(FakeStreamOptions){ .pr_key = KEY, .pr_type = 5 });
  hf_model_set_key (&f->model, SRC, KEY);
  hf_model_set_reservation (&f->model, SRC, 5);
  unmapped = run_json (f, "stream inspect FOLDER/s", 0);
  object = get_reservation (unmapped);
  g_assert_cmpstr (json_object_get_string_member (object, "section"), ==, PR_SECTION);
  g_assert_cmpstr (json_object_get_string_member (object, "key"), ==, "0xabc");
  g_assert_cmpint (json_object_get_int_member (object, "type"), ==, 5);
  g_assert_cmpstr (json_object_get_string_member (object, "compared"), ==, "unmapped");
  g_assert_cmpuint (f->wire.n_commands, ==, 0);
  same = run_json (f, "stream inspect --map " PR_SECTION "=dst FOLDER/s", 0);
  g_assert_cmpstr (json_object_get_string_member (get_reservation (same), "compared"), ==, "same");
  hf_model_set_key (&f->model, SRC, 0);
  different = run_json (f, "stream inspect --map " PR_SECTION "=dst FOLDER/s", HF_EXIT_CHANGED);
  g_assert_cmpstr (json_object_get_string_member (get_reservation (different), "compared"), ==, "different");
  has (f->err, "key 0xabc is not registered");
}

static void
test_maps (Fixture *f, gconstpointer data)
{
  static const char *const lines[] = {
    "stream inspect --map timer=dst FOLDER/s",
    "stream inspect --map " PR_SECTION " FOLDER/s",
    "stream inspect --map " PR_SECTION "= FOLDER/s",
    "stream inspect --map =dst FOLDER/s",
    "stream inspect --map '' FOLDER/s",
    "stream inspect --map " PR_SECTION "x=dst FOLDER/s",
  };

  write_stream (f, "s", &(FakeStreamOptions){ .pr_key = KEY });
  for (guint i = 0; i < G_N_ELEMENTS (lines); i++) {
    run (f, lines[i], 1);
    has (f->err, "names no section");
  }
  g_assert_cmpuint (f->wire.n_commands, ==, 0);
}

/* ---- signals ---- */

static void
test_interrupt_fd (void)
{
  struct pollfd poll_fd = { .fd = hf_interrupt_begin_fd (), .events = POLLIN };

  g_assert_cmpint (poll_fd.fd, >=, 0);
  g_assert_cmpint (poll (&poll_fd, 1, 0), ==, 0);
  g_assert_cmpint (raise (SIGPIPE), ==, 0);
  g_assert_cmpint (hf_interrupted (), ==, 0);
  g_assert_cmpint (raise (SIGHUP), ==, 0);
  g_assert_cmpint (poll (&poll_fd, 1, 0), ==, 1);
  g_assert_cmpint (hf_interrupted (), ==, SIGHUP);
  hf_interrupt_end ();
  g_assert_cmpint (fcntl (poll_fd.fd, F_GETFD), ==, -1);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/cli-stream/sizes", test_sizes);
  g_test_add_func ("/cli-stream/interrupt-fd", test_interrupt_fd);
#define ADD(name, function) g_test_add ("/cli-stream/" name, Fixture, NULL, set_up, function, tear_down)
  ADD ("usage", test_usage);
  ADD ("help", test_help);
  ADD ("batch", test_batch);
  ADD ("capture-replay", test_capture_replay);
  ADD ("capture-cut", test_capture_cut);
  ADD ("offset", test_offset);
  ADD ("wait", test_wait);
  ADD ("convert", test_convert);
  ADD ("verify-bad", test_verify_bad);
  ADD ("unproved", test_unproved);
  ADD ("progress-end", test_progress_end);
  ADD ("inspect", test_inspect);
  ADD ("inspect-cut", test_inspect_cut);
  ADD ("inspect-damaged-ram", test_inspect_damaged_ram);
  ADD ("record", test_record);
  ADD ("reads-only", test_reads_only);
  ADD ("foreign-lu", test_foreign_lu);
  ADD ("damaged-record", test_damaged_record);
  ADD ("scsi-disk-pr", test_scsi_disk_pr);
  ADD ("maps", test_maps);
  return g_test_run ();
}
