/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * FILE.status: how the last capture of FILE ended, for those who cannot see its exit status (QEMU throws that of exec: away).
 * Written last, atomically. One JSON object:
 *   {"version":1,"file":NAME,"outcome":"committed|incomplete|failed|interrupted|malformed|unsupported","error":TEXT or null,
 *    "bytes":N,"seconds":N.N,"time":SECONDS-SINCE-1970,"sync":BOOL,"complete":BOOL,"format":"classic|mapped-ram|any",
 *    "id":TEXT or null}
 *
 * HOLDFAST_FAIL point: stream-status.
 *
 * Thread: any. Errors: HF_STREAM_ERROR.
 */

#include "stream/stream-error.h"

typedef enum {
  HF_OUTCOME_COMMITTED,
  HF_OUTCOME_INCOMPLETE,  /* the stream ended before its own end */
  HF_OUTCOME_FAILED,      /* a file could not be written, and the like */
  HF_OUTCOME_INTERRUPTED, /* by a signal to the capture */
  HF_OUTCOME_MALFORMED,   /* what came is no stream of QEMU, or a broken one */
  HF_OUTCOME_UNSUPPORTED  /* it cannot become what was asked for */
} HfStreamOutcome;
#define HF_N_STREAM_OUTCOMES (HF_OUTCOME_UNSUPPORTED + 1)
const char *hf_stream_outcome_name (HfStreamOutcome outcome);

typedef struct {
  HfStreamOutcome outcome;
  char *error;       /* NULL if committed */
  guint64 bytes;     /* of the stream, as far as it was received */
  double seconds;    /* from the first byte to the commit */
  gint64 time;       /* of the end, seconds since 1970 UTC */
  gboolean sync;     /* what is committed is on the disk */
  gboolean complete; /* the stream's own end was seen, and FILE is this stream, even if the outcome is not committed */
  char *format;      /* "classic", "mapped-ram" or "any" */
  char *id;          /* of this capture, by who began it; NULL: none */
} HfStreamStatus;

void hf_stream_status_clear (HfStreamStatus *status);

/* Room on the disk for the status of path, so that it can be written when the disk is full. HF_STREAM_ERROR_FILE if there is
 * none. */
typedef struct _HfStatusRoom HfStatusRoom;
HfStatusRoom *hf_stream_status_reserve (const char *path, GError **error);
void hf_stream_status_room_free (HfStatusRoom *room);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (HfStatusRoom, hf_stream_status_room_free)

/* path is FILE's; a symbolic link is followed, and ".status" is added. The file is a regular one of at most 64 KiB or it is
   refused. room: of the same path, used up in any case; NULL: none was made. */
gboolean hf_stream_status_write (const char *path, const HfStreamStatus *status, HfStatusRoom *room, GError **error);
gboolean hf_stream_status_read (const char *path, HfStreamStatus *ret, GError **error);
/* TRUE if there is none either. What is there and does not begin as a status is nobody's to remove, or to write over: it is
   refused. A capture removes it before it makes FILE.partial, and writes it before it gives up the lock; one that found another
   at work touches it not at all. */
gboolean hf_stream_status_remove (const char *path, GError **error);

typedef struct {
  const char *id;         /* wait for the capture with this one; NULL: for any */
  gint64 deadline;        /* absolute, monotonic microseconds; 0: none */
  guint start_timeout_ms; /* how long to wait for a capture to begin, from the beginning and from the end of another one's; 0: no
                             end */
  gboolean late;          /* set if one of the two has passed */
} HfStreamWait;

/* Waits until a capture of path has said how it ended. A capture that is under way holds its lock on FILE.partial; one that died
   without a word is an error (HF_STREAM_ERROR_INCOMPLETE), as soon as its lock is gone and there is still no status. With neither
   FILE.partial nor FILE.status it waits for one to appear; so it does with a FILE.partial that was dead at the first look,
   because that may be an earlier capture's. A status that is there before the capture has begun is that of the one before, unless
   id tells them apart. When it gives up: HF_STREAM_ERROR_BUSY if a capture is under way, HF_STREAM_ERROR_INCOMPLETE if there is
   only a dead FILE.partial, else HF_STREAM_ERROR_FILE. */
gboolean hf_stream_status_wait (const char *path, HfStreamWait *wait, const HfStreamJob *job, HfStreamStatus *ret,
                                GError **error);
