/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The pr-helper protocol (QEMU, docs/interop/pr-helper.rst) as values: bytes of a client in, requests out; answers in, bytes out.
 *
 *   greeting  4 bytes feature word to the client, 4 bytes feature word back
 *   request   16 bytes CDB with exactly one descriptor, then, for PERSISTENT RESERVE OUT, the parameter list
 *   reply     4 bytes status, 4 bytes sz, 96 bytes sense, sz bytes of data; everything big-endian
 *
 * Pure: no descriptor, no clock, no log. A descriptor is only counted here. Any bytes give a request, "more is needed" or a fault
 * of the peer, which is not a GError: it ends this connection and nothing else.
 *
 * Thread: any; one at a time.
 */

#include <glib.h>

#define HF_PROTOCOL_WORD_SIZE 4
#define HF_PROTOCOL_CDB_SIZE 16
#define HF_PROTOCOL_SENSE_SIZE 96
#define HF_PROTOCOL_REPLY_SIZE 104
#define HF_PROTOCOL_DATA_MAX 8192
/* A guest can send a shorter list, but QEMU 11 aborts at any answer to it: the client is closed instead. */
#define HF_PROTOCOL_LIST_MIN 16

#define HF_PROTOCOL_PR_IN 0x5e
#define HF_PROTOCOL_PR_OUT 0x5f
#define HF_PROTOCOL_CLEANUP 0xff /* of the helper, never meant for a device */

/* Bit 0 of the feature word: CLEANUP. It is offered and never insisted upon. */
#define HF_PROTOCOL_FEATURE_CLEANUP 0x00000001u
#define HF_PROTOCOL_FEATURES HF_PROTOCOL_FEATURE_CLEANUP

/* What a client did wrong. */
typedef enum {
  HF_PROTOCOL_FAULT_NONE,
  HF_PROTOCOL_FAULT_FEATURES,       /* a feature was requested that was not offered */
  HF_PROTOCOL_FAULT_SHORT,          /* the stream ended inside the greeting or a request */
  HF_PROTOCOL_FAULT_NO_DESCRIPTOR,  /* none came with the CDB */
  HF_PROTOCOL_FAULT_DESCRIPTORS,    /* more than one */
  HF_PROTOCOL_FAULT_OPCODE,         /* none of the three */
  HF_PROTOCOL_FAULT_TOO_LONG,       /* more than HF_PROTOCOL_DATA_MAX bytes */
  HF_PROTOCOL_FAULT_LIST_TOO_SHORT, /* a parameter list of 1 to 15 bytes */
} HfProtocolFault;
#define HF_N_PROTOCOL_FAULTS (HF_PROTOCOL_FAULT_LIST_TOO_SHORT + 1)

/* "no descriptor in the request"; a constant. */
const char *hf_protocol_fault_to_string (HfProtocolFault fault);

typedef struct {
  guint8 cdb[HF_PROTOCOL_CDB_SIZE];
  /* CDB bytes 7 and 8: allocation length of PR IN, parameter list length of PR OUT (whose bytes 5 and 6 QEMU ignores too), 0 of
     CLEANUP; at most HF_PROTOCOL_DATA_MAX. */
  guint16 length;
  guint8 *list; /* PR OUT: length bytes; else NULL */
} HfProtocolRequest;

typedef enum { HF_PROTOCOL_MORE, HF_PROTOCOL_REQUEST, HF_PROTOCOL_FAULT } HfProtocolResult;

/* One connection's stream. All members are the decoder's, except that request may be read after HF_PROTOCOL_REQUEST. */
typedef struct {
  enum { HF_PROTOCOL_IN_GREETING, HF_PROTOCOL_IN_CDB, HF_PROTOCOL_IN_LIST, HF_PROTOCOL_COMPLETE, HF_PROTOCOL_FAULTY } state;
  gsize filled; /* bytes of the part that state names */
  guint n_descriptors;
  guint8 word[HF_PROTOCOL_WORD_SIZE];
  HfProtocolRequest request;
  HfProtocolFault fault;
} HfProtocolDecoder;

void hf_protocol_decoder_init (HfProtocolDecoder *decoder);
void hf_protocol_decoder_clear (HfProtocolDecoder *decoder);

/* How many bytes the part that is being read still lacks; 0 after a request or a fault. Reading never more than this from the
   socket keeps each descriptor with the request it came with, and leaves pipelined requests in the socket. */
gsize hf_protocol_decoder_wanted (const HfProtocolDecoder *decoder);

/* Takes the next bytes of the stream, and the number of descriptors that came with the first of them; those that came with the
   greeting do not count. Stops behind a request:
   ret_used says how many bytes were taken. After HF_PROTOCOL_REQUEST nothing is taken until hf_protocol_decoder_next; after
   HF_PROTOCOL_FAULT never. */
HfProtocolResult hf_protocol_decoder_feed (HfProtocolDecoder *decoder, const guint8 *bytes, gsize length, guint n_descriptors,
                                           gsize *ret_used);

/* FALSE while the greeting is read: descriptors that come then are nobody's. */
gboolean hf_protocol_decoder_takes_descriptors (const HfProtocolDecoder *decoder);

/* The stream ended. HF_PROTOCOL_FAULT if it was in the middle of something. */
HfProtocolResult hf_protocol_decoder_end (HfProtocolDecoder *decoder);

/* Forgets the request; the next one begins. */
void hf_protocol_decoder_next (HfProtocolDecoder *decoder);

/* TRUE between two requests: nothing of the next one has come. */
gboolean hf_protocol_decoder_is_idle (const HfProtocolDecoder *decoder);

/* TRUE if nothing that was begun would be cut off by the end of the stream: idle, or no byte of the greeting's answer has come.
 */
gboolean hf_protocol_decoder_is_between (const HfProtocolDecoder *decoder);

void hf_protocol_encode_greeting (guint8 ret[HF_PROTOCOL_WORD_SIZE]);

/* The header of the reply to request. Returns sz, the bytes of data that follow it: not 0 only for PR IN with GOOD, and never
   more than the allocation length, because QEMU aborts otherwise. sense counts only with CHECK CONDITION; what is not used is
   zeroed. */
gsize hf_protocol_encode_reply (const HfProtocolRequest *request, guint8 status, const guint8 *sense, gsize sense_length,
                                gsize data_length, guint8 ret[HF_PROTOCOL_REPLY_SIZE]);
