/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * An iSCSI target that misbehaves by script, on a loopback port of its own: silent, cut in the middle, residuals that lie. Only
 * what the tests of transport-iscsi.c need of RFC 7143; real targets are for tests/iscsi.
 *
 * Thread: one of its own, one connection at a time. The counters are atomic; `isid` is written before the login it belongs to is
 * answered.
 */

#include <glib.h>

typedef enum {
  FAKE_LOGIN_OK,
  FAKE_LOGIN_SILENT,   /* accepts and never answers */
  FAKE_LOGIN_CLOSE,    /* closes when the login request came */
  FAKE_LOGIN_REFUSED,  /* status class 2, detail 1 */
  FAKE_LOGIN_REDIRECT, /* status class 1, detail 1: to `redirect` */
  FAKE_LOGIN_GARBAGE   /* bytes that are no PDU */
} FakeLogin;

typedef enum { FAKE_ANSWER, FAKE_SILENT, FAKE_CLOSE, FAKE_ANSWER_AND_CLOSE } FakeAct;

/* The answer to one command; the last one is repeated. */
typedef struct {
  FakeAct act;
  guint8 status;
  guint8 residual_flag; /* 0x02 underflow, 0x04 overflow, 0: none */
  guint32 residual;
  const char *sense; /* sense data; NULL: no data segment */
  gsize sense_length;
  const char *data; /* sent in one Data-In PDU before the response */
  gsize data_length;
} FakeAnswer;

typedef struct {
  FakeLogin login;
  const FakeAnswer *answers;
  guint n_answers;
  char *redirect; /* "127.0.0.1:PORT" */

  guint16 port;
  gint n_logins, n_commands, n_logouts, n_closed; /* atomic; n_closed: connections that the initiator closed */
  guint8 isid[6];
  guint8 lun[8];
  guint8 data_out[64]; /* immediate data of the last command */
  char names[1024];    /* text of the first login request */

  int listener, connection;
  GThread *thread;
} FakeTarget;

/* The first four members are set by the caller. */
void fake_target_start (FakeTarget *target);
void fake_target_stop (FakeTarget *target);
