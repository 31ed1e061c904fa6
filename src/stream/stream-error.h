/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What can be wrong with a file of migration state, and what a long piece of work tells and asks its caller.
 *
 * Thread: any; pure.
 */

#include <glib.h>

#define HF_STREAM_ERROR (hf_stream_error_quark ())
GQuark hf_stream_error_quark (void);

/* Messages name offset (bytes from the start of the file or of the input), step and cause; the caller knows the file's name. */
typedef enum {
  HF_STREAM_ERROR_FILE,        /* cannot be opened, read, written, synced, renamed; no engine for it */
  HF_STREAM_ERROR_INCOMPLETE,  /* the stream ends before its own end: cut, cancelled or killed */
  HF_STREAM_ERROR_MALFORMED,   /* the structure is wrong, or two ways of reading it do not agree */
  HF_STREAM_ERROR_UNSUPPORTED, /* well-formed, but this needs something that holdfast does not do; the message says what */
  HF_STREAM_ERROR_CHECKSUM,    /* the bytes are not those that were written */
  HF_STREAM_ERROR_BUSY,        /* another process is writing the file */
  HF_STREAM_ERROR_INTERRUPTED  /* the user asked to stop */
} HfStreamError;

/* A piece of work in progress. Zeroed but for interrupt_fd = -1 it is silent and cannot be stopped. */
typedef struct {
  int interrupt_fd; /* readable as soon as the work shall stop; never read from; -1: none */
  /* May be NULL. total 0: not known. Called at most once for each block, so it decides itself how often it shows something. */
  void (*progress) (guint64 done, guint64 total, gpointer data);
  gpointer data;
} HfStreamJob;

/* Tells progress and looks whether to stop: FALSE with HF_STREAM_ERROR_INTERRUPTED. job may be NULL. Thread: the worker's own. */
gboolean hf_stream_job_step (const HfStreamJob *job, guint64 done, guint64 total, GError **error);
