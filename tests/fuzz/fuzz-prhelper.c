/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The stream of a client of the pr-helper socket.
 *
 * An input is a row of pieces: a byte with the length of the piece (7 bits; of 0: 128 times the next byte), its highest bit says
 * that a descriptor comes with it, 7fh that two do; then the bytes. The same bytes are fed twice, as cut here and one by one:
 * both must give the same.
 */
#include "fuzz.h"

#include "prhelper/protocol.h"

#include <holdfast/scsi.h>
#include <string.h>

typedef struct {
  HfProtocolDecoder decoder;
  guint n_requests;
  guint32 sum; /* of what was found */
} Reader;

static void
check_reply (const HfProtocolRequest *request, guint8 status)
{
  guint8 header[HF_PROTOCOL_REPLY_SIZE];
  const guint8 sense[18] = { 0x70 };
  gsize sz = hf_protocol_encode_reply (request, status, sense, sizeof sense, HF_PROTOCOL_DATA_MAX, header);

  g_assert (sz <= request->length && sz <= HF_PROTOCOL_DATA_MAX);
  g_assert (sz == 0 || (request->cdb[0] == HF_PROTOCOL_PR_IN && status == HF_SAM_GOOD));
}

static void
take (Reader *reader)
{
  const HfProtocolRequest *request = &reader->decoder.request;

  g_assert (request->length <= HF_PROTOCOL_DATA_MAX);
  g_assert ((request->list != NULL) == (request->cdb[0] == HF_PROTOCOL_PR_OUT && request->length > 0));
  for (guint i = 0; request->list && i < request->length; i++)
    reader->sum = reader->sum * 31 + request->list[i];
  for (guint i = 0; i < sizeof request->cdb; i++)
    reader->sum = reader->sum * 31 + request->cdb[i];
  check_reply (request, HF_SAM_GOOD);
  check_reply (request, request->cdb[15]);
  reader->n_requests++;
  hf_protocol_decoder_next (&reader->decoder);
}

/* Cuts as the client does: never more than is wanted, the descriptors with the first byte. */
static void
feed (Reader *reader, const guint8 *bytes, gsize length, guint n_descriptors, gsize piece)
{
  while (length) {
    gsize wanted = hf_protocol_decoder_wanted (&reader->decoder);
    gsize n = MIN (MIN (length, wanted), piece);
    gsize used;

    if (n == 0)
      return;
    if (hf_protocol_decoder_feed (&reader->decoder, bytes, n, n_descriptors, &used) == HF_PROTOCOL_REQUEST)
      take (reader);
    g_assert (used == n || reader->decoder.state == HF_PROTOCOL_FAULTY);
    n_descriptors = 0;
    bytes += n;
    length -= n;
  }
}

static void
play (Reader *reader, const guint8 *data, gsize length, gsize piece)
{
  hf_protocol_decoder_init (&reader->decoder);
  while (length > 1) {
    guint n_descriptors = data[0] == 0x7f ? 2 : data[0] >> 7;
    gsize n = data[0] & 0x7f ? data[0] & 0x7f : 128u * data[1];
    g_autofree guint8 *block = NULL;

    data++;
    length--;
    n = MIN (n, length);
    block = g_malloc (MAX (n, 1));
    memcpy (block, data, n);
    feed (reader, block, n, n_descriptors, piece);
    data += n;
    length -= n;
  }
  hf_protocol_decoder_end (&reader->decoder);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t length)
{
  Reader whole = { 0 }, bytes = { 0 };

  play (&whole, data, length, G_MAXSIZE);
  play (&bytes, data, length, 1);
  g_assert (whole.n_requests == bytes.n_requests && whole.sum == bytes.sum);
  g_assert (whole.decoder.state == bytes.decoder.state && whole.decoder.fault == bytes.decoder.fault);
  g_assert (whole.decoder.state != HF_PROTOCOL_FAULTY || whole.decoder.fault != HF_PROTOCOL_FAULT_NONE);
  hf_protocol_decoder_clear (&whole.decoder);
  hf_protocol_decoder_clear (&bytes.decoder);
  return 0;
}
