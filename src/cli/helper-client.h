/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The other end of holdfast-pr-helper's control socket (doc/control.md). Thread: main; every call blocks, until its deadline.
 *
 * The helper is not trusted more than a file: its lines are bounded and checked before they are read as JSON.
 */

#include <json-glib/json-glib.h>

#define HF_HELPER_SOCKET_DEFAULT "/run/holdfast/control.sock"
#define HF_HELPER_PROTOCOL 1

/* The code of an error is the exit code of the program. */
#define HF_HELPER_ERROR (hf_helper_error_quark ())
GQuark hf_helper_error_quark (void);

typedef struct _HfHelper HfHelper;

/* deadline: of this and every further call; g_get_monotonic_time scale. NULL with HF_HELPER_ERROR: nobody is there, it may not be
   spoken to, or it speaks another protocol. */
HfHelper *hf_helper_connect (const char *path, gint64 deadline, GError **error);
void hf_helper_free (HfHelper *helper);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (HfHelper, hf_helper_free)

/* As it said; any bytes that are UTF-8. */
const char *hf_helper_get_version (HfHelper *helper);

/* What a call brought. */
typedef struct {
  JsonObject *result; /* NULL: none, which is only possible with an error */
  char *code;         /* "not-found"; NULL: it went well */
  char *message;      /* NULL with code NULL */
} HfHelperAnswer;
void hf_helper_answer_clear (HfHelperAnswer *answer);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (HfHelperAnswer, hf_helper_answer_clear)

/* Calls method; params is taken over, NULL: none. FALSE with HF_HELPER_ERROR: there is no answer. An answer that is an error is
   TRUE. */
gboolean hf_helper_call (HfHelper *helper, const char *method, JsonObject *params, HfHelperAnswer *ret, GError **error);

/* The answer's error as HF_HELPER_ERROR. FALSE; TRUE: it is none. */
gboolean hf_helper_answer_check (const HfHelperAnswer *answer, GError **error);

/* The data of the next event, without a deadline; those that came before an answer are kept. Free with json_object_unref. NULL
   with HF_HELPER_ERROR: the helper has ended. */
JsonObject *hf_helper_next_event (HfHelper *helper, GError **error);

/* Members of answers, whatever they are: NULL, 0 or FALSE if there is none of this type. Strings may be any text. */
const char *hf_helper_get_string (JsonObject *object, const char *name);
gint64 hf_helper_get_int (JsonObject *object, const char *name);
gboolean hf_helper_get_boolean (JsonObject *object, const char *name);
JsonObject *hf_helper_get_object (JsonObject *object, const char *name);
/* Its elements that are objects. Free with g_list_free. */
GList *hf_helper_get_objects (JsonObject *object, const char *name);
/* "0x1f" */
guint64 hf_helper_get_hex (JsonObject *object, const char *name);

/* A copy of node with every string, also the names of members, made printable. Free with json_node_unref. */
JsonNode *hf_helper_printable (JsonNode *node);
