/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What must be right with a VM so that its reservations can follow it, judged from what its monitor answers.
 *
 * Thread: any; pure.
 */

#include <json-glib/json-glib.h>

typedef enum {
  HF_DOCTOR_OK,
  HF_DOCTOR_UNKNOWN, /* cannot be seen from here */
  HF_DOCTOR_WARNING,
  HF_DOCTOR_ERROR,
} HfDoctorVerdict;

typedef struct {
  const char *name; /* static */
  HfDoctorVerdict verdict;
  char *subject;      /* a device, an object; NULL: the VM */
  char *found;        /* what is there */
  const char *why;    /* static: why it matters */
  const char *advice; /* static; NULL: nothing to do */
} HfDoctorCheck;

/* facts: what was asked, as it was answered; each may be missing, and may be anything:
     "query-version", "query-pr-managers", "query-block", "query-migrate-capabilities": the "return" of the command
     "objects": array of {"name","type"} as qom-list of /objects, with the properties "path", "addr", "id-list" of the object, and
                "features", the greeting of the pr-helper protocol at path, or one of the values below
     "devices": object, the "qdev" of query-block -> {"type","rerror","werror","share-rw","migrate-pr"}, as far as it has them
     "nodes":   as hf_doctor_nodes returned it
   vmstate_id: what id-list must have. Returns HfDoctorCheck in a fixed order; free with g_ptr_array_unref. */
GPtrArray *hf_doctor_judge (JsonObject *facts, const char *vmstate_id);

enum { HF_DOCTOR_NO_ANSWER = -1, HF_DOCTOR_NOT_ASKED = -2, HF_DOCTOR_DENIED = -3 };

/* The worst of them. */
HfDoctorVerdict hf_doctor_worst (const GPtrArray *checks);

/* "ok", "unknown", "warning", "error". Static. */
const char *hf_doctor_verdict_name (HfDoctorVerdict verdict);
