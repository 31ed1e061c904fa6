/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the verbs of the program `holdfast` share: the options that every verb takes, the session that keeps LUs open, and the run
 * of one verb, which collects what is printed.
 *
 * A verb never prints to standard output and never exits: it fills run->text or run->object and says the exit code. So the same
 * verbs run once from the command line and line by line in a batch.
 *
 * Thread: main thread only, except where lus.c says otherwise.
 */

#include <holdfast/holdfast.h>
#include <json-glib/json-glib.h>

/* Exit codes of this program's own; all others are those of sg3_utils. */
enum {
  HF_EXIT_OK = 0,
  HF_EXIT_USAGE = 1,
  HF_EXIT_FILE = 15,      /* sg3_utils: a file or device cannot be used */
  HF_EXIT_CONFLICT = 24,  /* sg3_utils: RESERVATION CONFLICT */
  HF_EXIT_BUSY = 26,      /* sg3_utils: BUSY; here also a file that another process writes */
  HF_EXIT_TIMEOUT = 33,   /* sg3_utils: a deadline passed */
  HF_EXIT_REFUSED = 40,   /* refused by policy, nothing changed */
  HF_EXIT_CHANGED = 41,   /* done, but an LU is type-changed, released, preempted or fenced */
  HF_EXIT_UNCLEAR = 42,   /* ambiguous or occupied */
  HF_EXIT_RECORD = 43,    /* record or identity refused */
  HF_EXIT_MALFORMED = 97, /* sg3_utils: the answer is malformed */
  HF_EXIT_OTHER = 99      /* sg3_utils: some other error */
};

/* ---- options.c: the options of every verb ---- */

typedef struct {
  char *initiator_name; /* NULL: the library's default */
  gboolean has_isid;
  guint64 isid;
  guint timeout_ms; /* 0: the library's default */
  gboolean json;
  char *state_dir; /* NULL: the default of hf_journal_default_dir */
} HfOptions;

void hf_options_clear (HfOptions *options);
void hf_options_copy (const HfOptions *options, HfOptions *ret);

typedef enum { HF_PARSE_OK, HF_PARSE_DONE, HF_PARSE_ERROR } HfParse;

/* Parses argv (argv[0] is the verb's name) with the options of every verb and, if entries is not NULL, the verb's own; ret_rest
   (free with g_strfreev) gets what is not an option. synopsis: the line behind the verb's name in --help. HF_PARSE_DONE: --help
   or --version was answered into ret_text. strict: stop at the first word that is not an option. On error options may be half
   set. */
typedef struct {
  const char *synopsis, *summary, *description;
  const GOptionEntry *entries;
  gboolean strict;
} HfOptionSpec;
HfParse hf_options_parse (HfOptions *options, const HfOptionSpec *spec, char *const *argv, GString *ret_text, char ***ret_rest,
                          GError **error);

/* text, with or without 0x, as hexadecimal of at most max. option names it in the message. */
gboolean hf_parse_hex (const char *option, const char *text, guint64 max, guint64 *ret, GError **error);

/* ---- lus.c: the LUs a process has open ---- */

typedef struct _HfSession HfSession;
HfSession *hf_session_new (void);
void hf_session_free (HfSession *session); /* logs out everywhere */
G_DEFINE_AUTOPTR_CLEANUP_FUNC (HfSession, hf_session_free)

/* The LU of address as options name its nexus; the second call with the same words returns the same LU, so the same nexus. The
   session owns it. */
HfLu *hf_session_open (HfSession *session, const HfOptions *options, const char *address, GError **error);

/* The same for several, in parallel, and, if identities, asks each who it is. ret_lus: n HfLu. errors: n GError * (NULL where it
   worked), each freed by the caller; an LU that opened but has no identity is in both. FALSE with an error if an address is there
   twice or empty, else TRUE. */
gboolean hf_session_open_all (HfSession *session, const HfOptions *options, char *const *addresses, gboolean identities,
                              GPtrArray **ret_lus, GPtrArray **ret_errors, GError **error);

/* TRUE once after a device node was opened with an initiator name or an ISID, which have no effect there. */
gboolean hf_session_take_name_ignored (HfSession *session);

/* Puts an LU that is already open into the session, which takes it over. For tests: LUs that are no device. */
void hf_session_add (HfSession *session, const HfOptions *options, const char *address, HfLu *lu);

/* ---- run.c: one verb ---- */

typedef struct {
  HfSession *session;
  HfOptions options;
  gboolean in_batch;
  gboolean silent;    /* nothing goes to standard output: the verb wrote there itself (batch, a record) */
  gboolean plain;     /* text is printed, --json or not */
  GString *text;      /* standard output without --json */
  JsonObject *object; /* standard output with --json; "version" and "result" are set outside */
  GString *warnings;  /* standard error: "holdfast: ..." lines */
  int result;         /* exit code */
} HfRun;

/* argv[0] is the verb's name. FALSE: error is printed and its exit code is hf_error_to_exit_code's. */
typedef gboolean (*HfVerbFunc) (HfRun *run, char **argv, GError **error);

typedef struct {
  const char *name, *summary;
  HfVerbFunc run;
} HfVerb;

/* Ends with a NULL name. */
extern const HfVerb hf_verbs[];

/* Runs the verb argv[0] and prints what it collected. defaults: the options before the verb, or the batch's. Returns the exit
 * code. */
int hf_run_verb (HfSession *session, const HfOptions *defaults, gboolean in_batch, char **argv);

/* The same without printing: *ret_out and *ret_err are freed with g_free. */
int hf_run_verb_to_strings (HfSession *session, const HfOptions *defaults, gboolean in_batch, char **argv, char **ret_out,
                            char **ret_err);

/* hf_options_parse for a verb. FALSE with error NULL: nothing more to do (--help). */
gboolean hf_run_parse (HfRun *run, const HfOptionSpec *spec, char **argv, char ***ret_rest, GError **error);

/* Adds the line "holdfast: ..." to what goes to standard error. */
void hf_run_warn (HfRun *run, const char *format, ...) G_GNUC_PRINTF (2, 3);

/* The same for a failure: names the object (an LU or its address), the step, and the answer with decoded sense, unless text does
   already. result, text may be NULL. */
void hf_run_fail (HfRun *run, const char *object, const char *step, const HfScsiResult *result, const char *text);

/* The one command of a verb got no answer. Returns TRUE: the verb is over, and run says how. */
gboolean hf_run_no_answer (HfRun *run, HfLu *lu, const char *step, const GError *error);

#define HF_USAGE_ERROR (hf_usage_error_quark ())
GQuark hf_usage_error_quark (void);
#define HF_USAGE_ERROR_FAILED 0
gboolean hf_usage_error (GError **error, const char *format, ...) G_GNUC_PRINTF (2, 3); /* always FALSE */

int hf_error_to_exit_code (const GError *error);
/* The highest of 40 to 43 wins, else the first that is not 0. */
int hf_exit_code_combine (int first, int second);

/* text with everything that could disturb a terminal or a JSON string escaped; UTF-8. Free with g_free. NULL gives NULL. */
char *hf_printable (const char *text);

/* ---- output-json.c ---- */

/* "0x1f"; 64-bit values do not survive as JSON numbers. */
void hf_json_set_hex (JsonObject *object, const char *name, guint64 value);
/* Escapes; NULL gives null. */
void hf_json_set_string (JsonObject *object, const char *name, const char *value);
void hf_json_set_unit_attentions (JsonObject *object, const guint16 *unit_attentions, guint n);
/* {"key","type","scope"} or null. */
void hf_json_set_reservation (JsonObject *object, const char *name, gboolean reserved, guint64 key, guint8 type, guint8 scope);
/* "transport_id" and "relative_target_port" of a nexus, null where unknown (nexus may be NULL). */
void hf_json_set_nexus (JsonObject *object, const HfNexus *nexus);
/* "status": "GOOD", "sense": "6/2a05" or null; both null without a result. */
void hf_json_set_result (JsonObject *object, const HfScsiResult *result);
/* {"step","status","sense","text"}; result NULL: no answer. */
JsonObject *hf_json_error (const char *step, const HfScsiResult *result, const char *text);

/* Whose registration index of observation is: "source", "destination", "yes", "no" or NULL for unknown. */
typedef const char *(*HfWhoseFunc) (const HfPrObservation *observation, guint index, void *data);
/* {"generation","keys":[{"key","transport_id","relative_target_port","holder","ours"}],"reservation"} */
JsonObject *hf_json_observation (const HfPrObservation *observation, HfWhoseFunc whose, void *data);

/* One line with a newline. */
char *hf_json_line (JsonObject *object);

/* 1: it holds, 0: it does not, -1: cannot be known (several nexuses share the holder's key and READ FULL STATUS did not work). */
int hf_observation_is_holder (const HfPrObservation *observation, guint index);

/* ---- output-table.c ---- */

typedef struct _HfTable HfTable;
HfTable *hf_table_new (guint n_columns, const char *const *headings);
void hf_table_free (HfTable *table);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (HfTable, hf_table_free)
/* n_columns strings; NULL is printed as "-". Copied and made printable. */
void hf_table_add (HfTable *table, const char *const *cells);
void hf_table_print (HfTable *table, const char *indent, GString *text);

/* One line on the reservation, then the table of registrations. label: "before", "after", "holds". */
void hf_table_print_observation (const char *label, const HfPrObservation *observation, HfWhoseFunc whose, void *data,
                                 GString *text);

/* ---- fail-steps.c ---- */

/* Makes HOLDFAST_FAIL refuse a step that no verb has. */
void hf_set_fail_steps (void);

/* ---- the verbs ---- */

/* A record as inspect shows it. */
void hf_show_record (const HfRecord *record, GString *text, JsonObject *object);

/* What check says of record with these LUs, one for each of its units at least; reads only. object gets "units". FALSE: an LU
   does not fit. */
gboolean hf_check_record (HfRun *run, const HfRecord *record, HfLu *const *lus, guint n_lus, JsonObject *object, GError **error);

/* The name of sub-verb index of pr, which is its step as well; NULL behind the last. Static. */
const char *hf_pr_sub_verb_name (guint index);

gboolean hf_verb_access (HfRun *run, char **argv, GError **error);
gboolean hf_verb_batch (HfRun *run, char **argv, GError **error);
gboolean hf_verb_check (HfRun *run, char **argv, GError **error);
gboolean hf_verb_doctor (HfRun *run, char **argv, GError **error);
gboolean hf_verb_inspect (HfRun *run, char **argv, GError **error);
gboolean hf_verb_load (HfRun *run, char **argv, GError **error);
gboolean hf_verb_pr (HfRun *run, char **argv, GError **error);
gboolean hf_verb_reclaim (HfRun *run, char **argv, GError **error);
gboolean hf_verb_release (HfRun *run, char **argv, GError **error);
gboolean hf_verb_save (HfRun *run, char **argv, GError **error);
gboolean hf_verb_status (HfRun *run, char **argv, GError **error);
gboolean hf_verb_selftest (HfRun *run, char **argv, GError **error);
gboolean hf_verb_stream (HfRun *run, char **argv, GError **error);
