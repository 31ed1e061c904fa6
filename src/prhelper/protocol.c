/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns: the bytes of the pr-helper protocol. Pure. Thread: any; one at a time for a decoder.
 *
 * Theory of operation: a stream is a row of parts of known size: the greeting's word, then CDB and list of each request. A part
 * is filled as bytes come; when it is full, its function judges it and names the next part. Nothing is allocated before its
 * length was bounded. The order of the checks is that of qemu-pr-helper, so that the same fault is found first.
 */
#include "config.h"

#include "base/bytes.h"
#include "prhelper/protocol.h"

#include <holdfast/scsi.h>
#include <string.h>

static const char *const fault_texts[] = {
  [HF_PROTOCOL_FAULT_NONE] = "no fault",
  [HF_PROTOCOL_FAULT_FEATURES] = "a feature was requested that is not supported",
  [HF_PROTOCOL_FAULT_SHORT] = "the connection ended inside a request",
  [HF_PROTOCOL_FAULT_NO_DESCRIPTOR] = "no file descriptor in the request",
  [HF_PROTOCOL_FAULT_DESCRIPTORS] = "more than one file descriptor in the request",
  [HF_PROTOCOL_FAULT_OPCODE] = "the CDB is no PERSISTENT RESERVE command",
  [HF_PROTOCOL_FAULT_TOO_LONG] = "more than 8192 bytes of data",
  [HF_PROTOCOL_FAULT_LIST_TOO_SHORT] = "a parameter list of less than 16 bytes",
};
G_STATIC_ASSERT (G_N_ELEMENTS (fault_texts) == HF_N_PROTOCOL_FAULTS);

const char *
hf_protocol_fault_to_string (HfProtocolFault fault)
{
  return (guint)fault < G_N_ELEMENTS (fault_texts) ? fault_texts[fault] : "unknown fault";
}

void
hf_protocol_decoder_init (HfProtocolDecoder *decoder)
{
  memset (decoder, 0, sizeof *decoder);
  decoder->state = HF_PROTOCOL_IN_GREETING;
}

void
hf_protocol_decoder_clear (HfProtocolDecoder *decoder)
{
  g_clear_pointer (&decoder->request.list, g_free);
}

/* Where the bytes of the current part go, and how many it has. */
static guint8 *
current_part (HfProtocolDecoder *decoder, gsize *ret_size)
{
  switch (decoder->state) {
  case HF_PROTOCOL_IN_GREETING:
    *ret_size = sizeof decoder->word;
    return decoder->word;
  case HF_PROTOCOL_IN_CDB:
    *ret_size = sizeof decoder->request.cdb;
    return decoder->request.cdb;
  case HF_PROTOCOL_IN_LIST:
    *ret_size = decoder->request.length;
    return decoder->request.list;
  case HF_PROTOCOL_COMPLETE:
  case HF_PROTOCOL_FAULTY:
  default:
    *ret_size = 0;
    return NULL;
  }
}

gsize
hf_protocol_decoder_wanted (const HfProtocolDecoder *decoder)
{
  gsize size;

  if (!current_part ((HfProtocolDecoder *)decoder, &size))
    return 0;
  return size - decoder->filled;
}

static void
set_fault (HfProtocolDecoder *decoder, HfProtocolFault fault)
{
  decoder->state = HF_PROTOCOL_FAULTY;
  decoder->fault = fault;
}

static void
enter (HfProtocolDecoder *decoder, guint state)
{
  decoder->state = state;
  decoder->filled = 0;
}

static void
judge_greeting (HfProtocolDecoder *decoder)
{
  if (hf_get_be32 (decoder->word) & ~HF_PROTOCOL_FEATURES)
    set_fault (decoder, HF_PROTOCOL_FAULT_FEATURES);
  else
    enter (decoder, HF_PROTOCOL_IN_CDB);
}

static void
judge_cdb (HfProtocolDecoder *decoder)
{
  HfProtocolRequest *request = &decoder->request;
  guint8 opcode = request->cdb[0];
  guint length = (guint)request->cdb[7] << 8 | request->cdb[8];

  if (decoder->n_descriptors == 0) {
    set_fault (decoder, HF_PROTOCOL_FAULT_NO_DESCRIPTOR);
    return;
  }
  if (opcode == HF_PROTOCOL_CLEANUP) {
    request->length = 0;
    enter (decoder, HF_PROTOCOL_COMPLETE);
    return;
  }
  if (opcode != HF_PROTOCOL_PR_IN && opcode != HF_PROTOCOL_PR_OUT) {
    set_fault (decoder, HF_PROTOCOL_FAULT_OPCODE);
    return;
  }
  if (length > HF_PROTOCOL_DATA_MAX) {
    set_fault (decoder, HF_PROTOCOL_FAULT_TOO_LONG);
    return;
  }
  request->length = (guint16)length;
  if (opcode == HF_PROTOCOL_PR_IN || length == 0) {
    enter (decoder, HF_PROTOCOL_COMPLETE);
    return;
  }
  if (length < HF_PROTOCOL_LIST_MIN) {
    set_fault (decoder, HF_PROTOCOL_FAULT_LIST_TOO_SHORT);
    return;
  }
  request->list = g_malloc (length);
  enter (decoder, HF_PROTOCOL_IN_LIST);
}

static void
judge_part (HfProtocolDecoder *decoder)
{
  if (decoder->state == HF_PROTOCOL_IN_GREETING)
    judge_greeting (decoder);
  else if (decoder->state == HF_PROTOCOL_IN_CDB)
    judge_cdb (decoder);
  else
    enter (decoder, HF_PROTOCOL_COMPLETE);
}

gboolean
hf_protocol_decoder_takes_descriptors (const HfProtocolDecoder *decoder)
{
  return decoder->state != HF_PROTOCOL_IN_GREETING;
}

static void
count_descriptors (HfProtocolDecoder *decoder, guint n_descriptors)
{
  if (n_descriptors == 0 || !hf_protocol_decoder_takes_descriptors (decoder))
    return;
  /* The list brings none, so one that comes with it is a second one. */
  if (n_descriptors > 1 || decoder->n_descriptors + n_descriptors > 1)
    set_fault (decoder, HF_PROTOCOL_FAULT_DESCRIPTORS);
  else
    decoder->n_descriptors = 1;
}

static HfProtocolResult
result_now (const HfProtocolDecoder *decoder)
{
  if (decoder->state == HF_PROTOCOL_COMPLETE)
    return HF_PROTOCOL_REQUEST;
  return decoder->state == HF_PROTOCOL_FAULTY ? HF_PROTOCOL_FAULT : HF_PROTOCOL_MORE;
}

HfProtocolResult
hf_protocol_decoder_feed (HfProtocolDecoder *decoder, const guint8 *bytes, gsize length, guint n_descriptors, gsize *ret_used)
{
  gsize used = 0;

  if (decoder->state != HF_PROTOCOL_COMPLETE)
    count_descriptors (decoder, n_descriptors);
  while (result_now (decoder) == HF_PROTOCOL_MORE && used < length) {
    gsize size, n;
    guint8 *part = current_part (decoder, &size);

    n = MIN (size - decoder->filled, length - used);
    memcpy (part + decoder->filled, bytes + used, n);
    decoder->filled += n;
    used += n;
    if (decoder->filled == size)
      judge_part (decoder);
  }
  *ret_used = used;
  return result_now (decoder);
}

gboolean
hf_protocol_decoder_is_idle (const HfProtocolDecoder *decoder)
{
  return decoder->state == HF_PROTOCOL_IN_CDB && decoder->filled == 0;
}

gboolean
hf_protocol_decoder_is_between (const HfProtocolDecoder *decoder)
{
  return (decoder->state == HF_PROTOCOL_IN_GREETING || decoder->state == HF_PROTOCOL_IN_CDB) && decoder->filled == 0;
}

HfProtocolResult
hf_protocol_decoder_end (HfProtocolDecoder *decoder)
{
  if (result_now (decoder) == HF_PROTOCOL_MORE && !hf_protocol_decoder_is_idle (decoder))
    set_fault (decoder, HF_PROTOCOL_FAULT_SHORT);
  return result_now (decoder);
}

void
hf_protocol_decoder_next (HfProtocolDecoder *decoder)
{
  if (decoder->state != HF_PROTOCOL_COMPLETE)
    return;
  hf_protocol_decoder_clear (decoder);
  memset (&decoder->request, 0, sizeof decoder->request);
  decoder->n_descriptors = 0;
  enter (decoder, HF_PROTOCOL_IN_CDB);
}

void
hf_protocol_encode_greeting (guint8 ret[HF_PROTOCOL_WORD_SIZE])
{
  hf_put_be32 (HF_PROTOCOL_FEATURES, ret);
}

gsize
hf_protocol_encode_reply (const HfProtocolRequest *request, guint8 status, const guint8 *sense, gsize sense_length,
                          gsize data_length, guint8 ret[HF_PROTOCOL_REPLY_SIZE])
{
  gsize sz = 0;

  if (request->cdb[0] == HF_PROTOCOL_PR_IN && status == HF_SAM_GOOD)
    sz = MIN (data_length, request->length);
  memset (ret, 0, HF_PROTOCOL_REPLY_SIZE);
  hf_put_be32 (status, ret);
  hf_put_be32 ((guint32)sz, ret + 4);
  if (status == HF_SAM_CHECK_CONDITION && sense_length)
    memcpy (ret + 8, sense, MIN (sense_length, HF_PROTOCOL_SENSE_SIZE));
  return sz;
}
