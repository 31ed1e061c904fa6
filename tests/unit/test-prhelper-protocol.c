/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The pr-helper protocol as bytes: every segmentation gives the same requests, every fault is found, replies keep QEMU alive. */

#include "config.h"

#include "prhelper/protocol.h"

#include <holdfast/scsi.h>
#include <string.h>

#define STREAM_MAX 65536

/* A stream as a client sends it, and where its descriptors go with the bytes. */
typedef struct {
  guint8 bytes[STREAM_MAX];
  gsize length;
  guint descriptors[STREAM_MAX]; /* that come with the byte */
} Stream;

static Stream *
stream_new (void)
{
  return g_new0 (Stream, 1);
}

static void
put (Stream *stream, const guint8 *bytes, gsize length)
{
  memcpy (stream->bytes + stream->length, bytes, length);
  stream->length += length;
}

static void
put_word (Stream *stream, guint32 word)
{
  word = GUINT32_TO_BE (word);
  put (stream, (const guint8 *)&word, sizeof word);
}

static void
put_cdb (Stream *stream, guint8 opcode, guint8 action, guint length)
{
  const guint8 cdb[HF_PROTOCOL_CDB_SIZE] = {
    [0] = opcode, [1] = action, [7] = (guint8)(length >> 8), [8] = (guint8)length, [15] = 0xa5
  };

  put (stream, cdb, sizeof cdb);
}

/* with: which byte of the CDB brings the descriptor. */
static void
put_request (Stream *stream, guint8 opcode, guint8 action, guint length, gsize with)
{
  g_autofree guint8 *list = g_malloc (MAX (length, 1));

  stream->descriptors[stream->length + with] = 1;
  put_cdb (stream, opcode, action, length);
  if (opcode != HF_PROTOCOL_PR_OUT)
    return;
  for (guint i = 0; i < length; i++)
    list[i] = (guint8)(i + action);
  put (stream, list, length);
}

/* What was found, as text, so that two runs compare. */
static void
describe (GString *text, const HfProtocolRequest *request)
{
  g_string_append_printf (text, "%02x/%02x %u:", request->cdb[0], request->cdb[1], request->length);
  for (guint i = 0; request->list && i < request->length; i++)
    g_string_append_printf (text, "%02x", request->list[i]);
  g_string_append_c (text, '\n');
}

/* Feeds pieces of at most size bytes, which end where a descriptor comes, as the kernel ends them. */
static char *
play (const Stream *stream, gsize first, gsize size)
{
  GString *text = g_string_new (NULL);
  HfProtocolDecoder decoder;
  HfProtocolResult result = HF_PROTOCOL_MORE;

  hf_protocol_decoder_init (&decoder);
  for (gsize at = 0; at < stream->length && result != HF_PROTOCOL_FAULT;) {
    gsize n = MIN (at == 0 ? first : size, stream->length - at);
    gsize used;

    n = MIN (n, hf_protocol_decoder_wanted (&decoder));
    for (gsize i = 1; i < n; i++)
      if (stream->descriptors[at + i])
        n = i;
    g_assert_cmpuint (n, >, 0);
    result = hf_protocol_decoder_feed (&decoder, stream->bytes + at, n, stream->descriptors[at], &used);
    g_assert_cmpuint (used, ==, result == HF_PROTOCOL_FAULT ? used : n);
    at += n;
    if (result != HF_PROTOCOL_REQUEST)
      continue;
    describe (text, &decoder.request);
    hf_protocol_decoder_next (&decoder);
  }
  if (result == HF_PROTOCOL_FAULT || hf_protocol_decoder_end (&decoder) == HF_PROTOCOL_FAULT)
    g_string_append_printf (text, "fault: %s\n", hf_protocol_fault_to_string (decoder.fault));
  hf_protocol_decoder_clear (&decoder);
  return g_string_free (text, FALSE);
}

static void
assert_plays (const Stream *stream, const char *expected)
{
  g_autofree char *whole = play (stream, STREAM_MAX, STREAM_MAX);

  g_assert_cmpstr (whole, ==, expected);
  for (gsize first = 1; first < MIN (stream->length, 200); first++) {
    g_autofree char *cut = play (stream, first, STREAM_MAX);

    g_assert_cmpstr (cut, ==, expected);
  }
  for (gsize size = 1; size < 40; size++) {
    g_autofree char *pieces = play (stream, size, size);

    g_assert_cmpstr (pieces, ==, expected);
  }
}

/* ---- segmentation ---- */

/* Three requests one behind the other; whatever the pieces are, they are the same three. */
static void
test_segmentation (void)
{
  g_autofree Stream *stream = stream_new ();

  put_word (stream, 0);
  put_request (stream, HF_PROTOCOL_PR_IN, 0, 8192, 0);
  put_request (stream, HF_PROTOCOL_PR_OUT, 6, 24, 0);
  put_request (stream, HF_PROTOCOL_CLEANUP, 0, 0, 0);
  assert_plays (stream, "5e/00 8192:\n5f/06 24:060708090a0b0c0d0e0f101112131415161718191a1b1c1d\nff/00 0:\n");
}

/* The descriptor may come with any of the 16 bytes. */
static void
test_descriptor_with_any_byte (void)
{
  for (gsize with = 0; with < HF_PROTOCOL_CDB_SIZE; with++) {
    g_autofree Stream *stream = stream_new ();

    put_word (stream, HF_PROTOCOL_FEATURE_CLEANUP);
    put_request (stream, HF_PROTOCOL_PR_IN, 1, 24, with);
    put_request (stream, HF_PROTOCOL_PR_IN, 0, 8, HF_PROTOCOL_CDB_SIZE - 1 - with);
    assert_plays (stream, "5e/01 24:\n5e/00 8:\n");
  }
}

/* The decoder never takes bytes behind a request: they may have a descriptor of their own. */
static void
test_stops_behind_a_request (void)
{
  g_autofree Stream *stream = stream_new ();
  HfProtocolDecoder decoder;
  gsize used;

  put_word (stream, 0);
  put_cdb (stream, HF_PROTOCOL_PR_IN, 0, 8);
  put_cdb (stream, HF_PROTOCOL_PR_IN, 1, 24);
  hf_protocol_decoder_init (&decoder);
  g_assert_cmpint (hf_protocol_decoder_feed (&decoder, stream->bytes, 4, 0, &used), ==, HF_PROTOCOL_MORE);
  g_assert_cmpint (hf_protocol_decoder_feed (&decoder, stream->bytes + 4, 32, 1, &used), ==, HF_PROTOCOL_REQUEST);
  g_assert_cmpuint (used, ==, 16);
  g_assert_cmpuint (hf_protocol_decoder_wanted (&decoder), ==, 0);
  g_assert_cmpint (hf_protocol_decoder_feed (&decoder, stream->bytes + 20, 16, 1, &used), ==, HF_PROTOCOL_REQUEST);
  g_assert_cmpuint (used, ==, 0);
  hf_protocol_decoder_next (&decoder);
  g_assert_true (hf_protocol_decoder_is_idle (&decoder));
  g_assert_cmpint (hf_protocol_decoder_feed (&decoder, stream->bytes + 20, 16, 0, &used), ==, HF_PROTOCOL_FAULT);
  g_assert_cmpint (decoder.fault, ==, HF_PROTOCOL_FAULT_NO_DESCRIPTOR);
  hf_protocol_decoder_clear (&decoder);
}

/* ---- greeting ---- */

static void
test_greeting (void)
{
  static const struct {
    guint32 word;
    const char *expected;
  } rows[] = {
    { 0x00000000, "5e/00 8:\n" },
    { 0x00000001, "5e/00 8:\n" },
    { 0x00000002, "fault: a feature was requested that is not supported\n" },
    { 0x01000000, "fault: a feature was requested that is not supported\n" }, /* 1 in the wrong byte order */
    { 0x80000000, "fault: a feature was requested that is not supported\n" },
    { 0xffffffff, "fault: a feature was requested that is not supported\n" },
  };
  guint8 offered[HF_PROTOCOL_WORD_SIZE];
  const guint8 expected[] = { 0, 0, 0, 1 };

  hf_protocol_encode_greeting (offered);
  g_assert_cmpmem (offered, sizeof offered, expected, sizeof expected);
  for (guint i = 0; i < G_N_ELEMENTS (rows); i++) {
    g_autofree Stream *stream = stream_new ();

    put_word (stream, rows[i].word);
    put_request (stream, HF_PROTOCOL_PR_IN, 0, 8, 0);
    assert_plays (stream, rows[i].expected);
  }
}

/* qemu-pr-helper does not look for descriptors there, so they are nobody's: the CDB still needs one. */
static void
test_descriptors_with_the_greeting (void)
{
  g_autofree Stream *stream = stream_new ();

  put_word (stream, 0);
  stream->descriptors[0] = 2;
  put_cdb (stream, HF_PROTOCOL_PR_IN, 0, 8);
  assert_plays (stream, "fault: no file descriptor in the request\n");
  stream->descriptors[4] = 1;
  assert_plays (stream, "5e/00 8:\n");
}

/* ---- faults ---- */

typedef struct {
  guint8 opcode;
  guint length, n_descriptors;
  const char *expected;
} FaultRow;

static void
test_faults (void)
{
  static const FaultRow rows[] = {
    { HF_PROTOCOL_PR_IN, 8, 0, "fault: no file descriptor in the request\n" },
    { HF_PROTOCOL_PR_IN, 8, 2, "fault: more than one file descriptor in the request\n" },
    { HF_PROTOCOL_PR_IN, 8192, 1, "5e/03 8192:\n" },
    { HF_PROTOCOL_PR_IN, 8193, 1, "fault: more than 8192 bytes of data\n" },
    { HF_PROTOCOL_PR_IN, 65535, 1, "fault: more than 8192 bytes of data\n" },
    { HF_PROTOCOL_PR_IN, 0, 1, "5e/03 0:\n" },
    { HF_PROTOCOL_PR_OUT, 0, 1, "5f/03 0:\n" },
    { HF_PROTOCOL_PR_OUT, 1, 1, "fault: a parameter list of less than 16 bytes\n" },
    { HF_PROTOCOL_PR_OUT, 15, 1, "fault: a parameter list of less than 16 bytes\n" },
    { HF_PROTOCOL_PR_OUT, 8193, 1, "fault: more than 8192 bytes of data\n" },
    { 0x00, 0, 1, "fault: the CDB is no PERSISTENT RESERVE command\n" },
    { 0x12, 36, 1, "fault: the CDB is no PERSISTENT RESERVE command\n" },
    { 0xfe, 0, 1, "fault: the CDB is no PERSISTENT RESERVE command\n" },
    /* Of CLEANUP the length does not count. */
    { HF_PROTOCOL_CLEANUP, 65535, 1, "ff/03 0:\n" },
    /* The descriptor is missed first, as qemu-pr-helper does. */
    { 0x12, 36, 0, "fault: no file descriptor in the request\n" },
  };

  for (guint i = 0; i < G_N_ELEMENTS (rows); i++) {
    g_autofree Stream *stream = stream_new ();

    put_word (stream, 0);
    stream->descriptors[stream->length] = rows[i].n_descriptors;
    put_cdb (stream, rows[i].opcode, 3, rows[i].length);
    assert_plays (stream, rows[i].expected);
  }
}

/* One with the CDB and one with a later byte of it, or with the list. */
static void
test_second_descriptor (void)
{
  const gsize places[] = { 1, 15, 16, 39 };

  for (guint i = 0; i < G_N_ELEMENTS (places); i++) {
    g_autofree Stream *stream = stream_new ();

    put_word (stream, 0);
    put_request (stream, HF_PROTOCOL_PR_OUT, 0, 24, 0);
    stream->descriptors[4 + places[i]] = 1;
    assert_plays (stream, "fault: more than one file descriptor in the request\n");
  }
}

/* Whatever is cut off is a fault, except between two requests. */
static void
test_end_of_stream (void)
{
  g_autofree Stream *stream = stream_new ();
  guint n_whole = 0;

  put_word (stream, 0);
  put_request (stream, HF_PROTOCOL_PR_IN, 0, 8, 0);
  put_request (stream, HF_PROTOCOL_PR_OUT, 0, 16, 0);
  for (gsize length = stream->length; length-- > 0;) {
    g_autofree char *text = NULL;
    gboolean whole = length == 4 || length == 20;

    stream->length = length;
    text = play (stream, STREAM_MAX, STREAM_MAX);
    n_whole += whole;
    g_assert_cmpint (g_str_has_suffix (text, "fault: the connection ended inside a request\n"), ==, !whole);
  }
  g_assert_cmpuint (n_whole, ==, 2);
}

static void
test_between (void)
{
  HfProtocolDecoder decoder;
  gsize used;

  hf_protocol_decoder_init (&decoder);
  g_assert_true (hf_protocol_decoder_is_between (&decoder));
  g_assert_false (hf_protocol_decoder_is_idle (&decoder));
  hf_protocol_decoder_feed (&decoder, (const guint8 *)"\0", 1, 0, &used);
  g_assert_false (hf_protocol_decoder_is_between (&decoder));
  hf_protocol_decoder_feed (&decoder, (const guint8 *)"\0\0\0", 3, 0, &used);
  g_assert_true (hf_protocol_decoder_is_between (&decoder));
  g_assert_true (hf_protocol_decoder_is_idle (&decoder));
}

/* ---- replies ---- */

typedef struct {
  guint8 opcode;
  guint16 allocation;
  guint8 status;
  gsize data_length, sz;
} ReplyRow;

/* QEMU aborts if sz is more than the guest's buffer, or not 0 with PR OUT. */
static void
test_reply_size (void)
{
  static const ReplyRow rows[] = {
    { HF_PROTOCOL_PR_IN, 24, HF_SAM_GOOD, 24, 24 },
    { HF_PROTOCOL_PR_IN, 24, HF_SAM_GOOD, 8, 8 },
    { HF_PROTOCOL_PR_IN, 24, HF_SAM_GOOD, 8192, 24 },
    { HF_PROTOCOL_PR_IN, 0, HF_SAM_GOOD, 8192, 0 },
    { HF_PROTOCOL_PR_IN, 8192, HF_SAM_GOOD, G_MAXUINT32, 8192 },
    { HF_PROTOCOL_PR_IN, 24, HF_SAM_CHECK_CONDITION, 24, 0 },
    { HF_PROTOCOL_PR_IN, 24, HF_SAM_RESERVATION_CONFLICT, 24, 0 },
    { HF_PROTOCOL_PR_IN, 24, HF_SAM_BUSY, 24, 0 },
    { HF_PROTOCOL_PR_OUT, 24, HF_SAM_GOOD, 24, 0 },
    { HF_PROTOCOL_CLEANUP, 0, HF_SAM_GOOD, 24, 0 },
  };

  for (guint i = 0; i < G_N_ELEMENTS (rows); i++) {
    HfProtocolRequest request = { .cdb = { rows[i].opcode }, .length = rows[i].allocation };
    guint8 header[HF_PROTOCOL_REPLY_SIZE];
    gsize sz = hf_protocol_encode_reply (&request, rows[i].status, NULL, 0, rows[i].data_length, header);
    guint32 word;

    g_assert_cmpuint (sz, ==, rows[i].sz);
    memcpy (&word, header, sizeof word);
    g_assert_cmpuint (GUINT32_FROM_BE (word), ==, rows[i].status);
    memcpy (&word, header + 4, sizeof word);
    g_assert_cmpuint (GUINT32_FROM_BE (word), ==, rows[i].sz);
    for (guint j = 8; j < sizeof header; j++)
      g_assert_cmpuint (header[j], ==, 0);
  }
}

static void
test_reply_sense (void)
{
  HfProtocolRequest request = { .cdb = { HF_PROTOCOL_PR_OUT }, .length = 24 };
  guint8 header[HF_PROTOCOL_REPLY_SIZE], sense[200], zeros[HF_PROTOCOL_SENSE_SIZE] = { 0 };

  memset (sense, 0xee, sizeof sense);
  memset (header, 0x55, sizeof header);
  hf_protocol_encode_reply (&request, HF_SAM_CHECK_CONDITION, sense, 18, 0, header);
  g_assert_cmpmem (header + 8, 18, sense, 18);
  g_assert_cmpmem (header + 8 + 18, HF_PROTOCOL_SENSE_SIZE - 18, zeros, HF_PROTOCOL_SENSE_SIZE - 18);
  hf_protocol_encode_reply (&request, HF_SAM_CHECK_CONDITION, sense, sizeof sense, 0, header);
  g_assert_cmpmem (header + 8, HF_PROTOCOL_SENSE_SIZE, sense, HF_PROTOCOL_SENSE_SIZE);
  /* It counts with CHECK CONDITION only. */
  hf_protocol_encode_reply (&request, HF_SAM_RESERVATION_CONFLICT, sense, 18, 0, header);
  g_assert_cmpmem (header + 8, HF_PROTOCOL_SENSE_SIZE, zeros, HF_PROTOCOL_SENSE_SIZE);
}

static void
test_fault_texts (void)
{
  for (guint i = 0; i < HF_N_PROTOCOL_FAULTS; i++)
    g_assert_nonnull (hf_protocol_fault_to_string (i));
  g_assert_cmpstr (hf_protocol_fault_to_string (HF_N_PROTOCOL_FAULTS), ==, "unknown fault");
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/prhelper/protocol/segmentation", test_segmentation);
  g_test_add_func ("/prhelper/protocol/descriptor-with-any-byte", test_descriptor_with_any_byte);
  g_test_add_func ("/prhelper/protocol/stops-behind-a-request", test_stops_behind_a_request);
  g_test_add_func ("/prhelper/protocol/greeting", test_greeting);
  g_test_add_func ("/prhelper/protocol/descriptors-with-the-greeting", test_descriptors_with_the_greeting);
  g_test_add_func ("/prhelper/protocol/faults", test_faults);
  g_test_add_func ("/prhelper/protocol/second-descriptor", test_second_descriptor);
  g_test_add_func ("/prhelper/protocol/end-of-stream", test_end_of_stream);
  g_test_add_func ("/prhelper/protocol/between", test_between);
  g_test_add_func ("/prhelper/protocol/reply-size", test_reply_size);
  g_test_add_func ("/prhelper/protocol/reply-sense", test_reply_sense);
  g_test_add_func ("/prhelper/protocol/fault-texts", test_fault_texts);
  return g_test_run ();
}
