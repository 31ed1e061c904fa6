/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * iSCSI: what reaches the wire (names, ISID, LUN, data), what comes back byte for byte, and that no target can make us hang, die
 * or take a lie. The target is a script on loopback (tests/fake/iscsi-target.c).
 */

#include "config.h"

#include "../fake/iscsi-target.h"
#include "scsi/iscsi-address.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

#define TARGET "iqn.2026-11.org.example:target"
#define INITIATOR "iqn.2026-11.org.example:a"
#define ISID G_GUINT64_CONSTANT (0x00023d000001)
/* Far more than loopback needs, and less than a test run notices. */
#define SOON_US (10 * G_USEC_PER_SEC)

static const FakeAnswer good = { .act = FAKE_ANSWER };

static char *
make_url (const FakeTarget *target, const char *lun)
{
  return g_strdup_printf ("iscsi://127.0.0.1:%u/" TARGET "/%s", target->port, lun);
}

static HfLu *
open_lu (const FakeTarget *target, guint timeout_ms, GError **error)
{
  const HfLuOptions options = { .initiator_name = INITIATOR, .has_isid = TRUE, .isid = ISID, .timeout_ms = timeout_ms };
  g_autofree char *url = make_url (target, "5");

  return hf_lu_open (url, &options, error);
}

static void
start (FakeTarget *target, FakeLogin login, const FakeAnswer *answers, guint n_answers)
{
  *target = (FakeTarget){ .login = login, .answers = answers, .n_answers = n_answers };
  fake_target_start (target);
}

static gboolean
send_test_unit_ready (HfLu *lu, HfScsiResult *ret, GError **error)
{
  const HfScsiCommand command = { .cdb_length = 6 };

  return hf_lu_execute (lu, &command, ret, error);
}

static gboolean
send_inquiry (HfLu *lu, void *buffer, guint8 length, HfScsiResult *ret, GError **error)
{
  const HfScsiCommand command = {
    .cdb = { 0x12, 0, 0, 0, length }, .cdb_length = 6, .direction = HF_SCSI_FROM_DEVICE, .data = buffer, .data_length = length
  };

  return hf_lu_execute (lu, &command, ret, error);
}

/* ---- login ---- */

/* What the target sees is what READ FULL STATUS shows later: name and ISID of our TransportID. No command comes with the login.
 */
static void
test_login (void)
{
  static const struct {
    guint64 isid;
    const char *wire;
  } isids[] = {
    { G_GUINT64_CONSTANT (0x00023d000001), "\x00\x02\x3d\x00\x00\x01" },
    { G_GUINT64_CONSTANT (0x3fffffffffff), "\x3f\xff\xff\xff\xff\xff" },
    { G_GUINT64_CONSTANT (0x401234567890), "\x40\x12\x34\x56\x78\x90" },
    { G_GUINT64_CONSTANT (0x80fedcba9876), "\x80\xfe\xdc\xba\x98\x76" },
  };

  for (guint i = 0; i < G_N_ELEMENTS (isids); i++) {
    const HfLuOptions options = { .initiator_name = INITIATOR, .has_isid = TRUE, .isid = isids[i].isid, .timeout_ms = 10000 };
    g_autofree char *expected = g_strdup_printf ("iscsi:" INITIATOR ",i,0x%012" G_GINT64_MODIFIER "x", isids[i].isid);
    g_autoptr (GError) error = NULL;
    g_autofree char *url = NULL;
    g_autofree char *nexus = NULL;
    FakeTarget target;
    HfLu *lu;

    start (&target, FAKE_LOGIN_OK, &good, 1);
    url = make_url (&target, "5");
    lu = hf_lu_open (url, &options, &error);
    g_assert_no_error (error);
    g_assert_cmpstr (hf_lu_get_address (lu), ==, url);
    g_assert_cmpmem (target.isid, 6, isids[i].wire, 6);
    g_assert_nonnull (
        memmem (target.names, sizeof target.names, "InitiatorName=" INITIATOR, strlen ("InitiatorName=" INITIATOR) + 1));
    g_assert_nonnull (memmem (target.names, sizeof target.names, "TargetName=" TARGET, strlen ("TargetName=" TARGET) + 1));
    nexus = hf_nexus_to_string (hf_lu_get_nexus (lu));
    g_assert_cmpstr (nexus, ==, expected);
    hf_lu_free (lu);
    g_assert_cmpint (g_atomic_int_get (&target.n_commands), ==, 0);
    fake_target_stop (&target);
    g_assert_cmpint (target.n_logouts, ==, 1);
  }
}

static void
check_open_fails (FakeLogin login, guint timeout_ms, int code)
{
  gint64 begin = g_get_monotonic_time ();
  g_autoptr (GError) error = NULL;
  FakeTarget target;

  start (&target, login, &good, 1);
  g_assert_null (open_lu (&target, timeout_ms, &error));
  g_assert_error (error, HF_SCSI_ERROR, code);
  g_assert_nonnull (strstr (error->message, "iscsi://127.0.0.1:"));
  g_assert_cmpint (g_get_monotonic_time () - begin, <, SOON_US);
  if (code == HF_SCSI_ERROR_TIMEOUT)
    g_assert_cmpint (g_get_monotonic_time () - begin, >=, timeout_ms * 1000);
  fake_target_stop (&target);
  g_assert_cmpint (target.n_logins, ==, 1);
}

static void
test_login_fails (void)
{
  check_open_fails (FAKE_LOGIN_SILENT, 100, HF_SCSI_ERROR_TIMEOUT);
  check_open_fails (FAKE_LOGIN_CLOSE, 30000, HF_SCSI_ERROR_OPEN);
  check_open_fails (FAKE_LOGIN_REFUSED, 30000, HF_SCSI_ERROR_OPEN);
  check_open_fails (FAKE_LOGIN_GARBAGE, 30000, HF_SCSI_ERROR_OPEN);
}

static void
test_nobody_listens (void)
{
  g_autoptr (GError) error = NULL;
  FakeTarget target;

  start (&target, FAKE_LOGIN_OK, &good, 1);
  fake_target_stop (&target);
  g_assert_null (open_lu (&target, 30000, &error));
  g_assert_error (error, HF_SCSI_ERROR, HF_SCSI_ERROR_OPEN);
}

/* Arrays send the initiator to the port that serves it. */
static void
test_redirect (void)
{
  g_autoptr (GError) error = NULL;
  FakeTarget first, second;
  HfScsiResult result;
  HfLu *lu;

  start (&second, FAKE_LOGIN_OK, &good, 1);
  first = (FakeTarget){ .login = FAKE_LOGIN_REDIRECT, .answers = &good, .n_answers = 1 };
  first.redirect = g_strdup_printf ("127.0.0.1:%u,1", second.port);
  fake_target_start (&first);
  lu = open_lu (&first, 10000, &error);
  g_assert_no_error (error);
  g_assert_true (send_test_unit_ready (lu, &result, &error));
  hf_lu_free (lu);
  fake_target_stop (&first);
  fake_target_stop (&second);
  g_assert_cmpint (first.n_logins, ==, 1);
  g_assert_cmpint (second.n_logins, ==, 1);
  g_assert_cmpint (second.n_commands, ==, 1);
}

static void
test_redirect_loop (void)
{
  g_autoptr (GError) error = NULL;
  FakeTarget target = { .login = FAKE_LOGIN_REDIRECT, .answers = &good, .n_answers = 1 };

  fake_target_start (&target);
  target.redirect = g_strdup_printf ("127.0.0.1:%u", target.port);
  g_assert_null (open_lu (&target, 10000, &error));
  g_assert_error (error, HF_SCSI_ERROR, HF_SCSI_ERROR_OPEN);
  fake_target_stop (&target);
  g_assert_cmpint (target.n_logins, ==, 5);
}

/* ---- answers ---- */

/* Every status of SAM-5 comes through as it is, the transient ones too. CONDITION MET, which only PRE-FETCH gives, is GOOD to
   libiscsi: asserted, so that a version that changes it is noticed. */
static void
test_statuses (void)
{
  static const guint8 statuses[] = { HF_SAM_GOOD,          HF_SAM_CONDITION_MET, HF_SAM_BUSY,        HF_SAM_RESERVATION_CONFLICT,
                                     HF_SAM_TASK_SET_FULL, HF_SAM_ACA_ACTIVE,    HF_SAM_TASK_ABORTED };
  FakeAnswer answers[G_N_ELEMENTS (statuses)] = { 0 };
  g_autoptr (GError) error = NULL;
  FakeTarget target;
  HfLu *lu;

  for (guint i = 0; i < G_N_ELEMENTS (statuses); i++)
    answers[i].status = statuses[i];
  start (&target, FAKE_LOGIN_OK, answers, G_N_ELEMENTS (answers));
  lu = open_lu (&target, 10000, &error);
  g_assert_no_error (error);
  for (guint i = 0; i < G_N_ELEMENTS (statuses); i++) {
    HfScsiResult result;

    g_test_message ("status 0x%02x", statuses[i]);
    g_assert_true (send_test_unit_ready (lu, &result, &error));
    g_assert_no_error (error);
    g_assert_cmphex (result.status, ==, statuses[i] == HF_SAM_CONDITION_MET ? HF_SAM_GOOD : statuses[i]);
    g_assert_cmpuint (result.sense_length, ==, 0);
  }
  hf_lu_free (lu);
  fake_target_stop (&target);
  g_assert_cmpint (target.n_logins, ==, 1);
  g_assert_cmpmem (target.lun, 8, "\0\5\0\0\0\0\0\0", 8);
}

/* Sense data is handed on byte for byte: nothing of the 2-byte length, of the padding or of an old answer. */
static void
test_sense (void)
{
  static const char fixed[] = "\x70\0\x06\0\0\0\0\x0a\0\0\0\0\x2a\x05\0\0\0";
  static const char descriptor[] = "\x72\x06\x2a\x03\0\0\0";
  static const char vendor[] = "\x70\0\x05\x01\x02\x03\x04\x0d\x05\x06\x07\x08\x24\x00\x09\xcf\x0a\x0b\xaa\xbb\xcc"; /* 21 + 1 */
  const FakeAnswer answers[] = {
    { .status = 2, .sense = fixed, .sense_length = sizeof fixed },
    { .status = 2, .sense = descriptor, .sense_length = sizeof descriptor },
    { .status = 2, .sense = vendor, .sense_length = sizeof vendor },
  };
  g_autoptr (GError) error = NULL;
  FakeTarget target;
  HfLu *lu;

  start (&target, FAKE_LOGIN_OK, answers, G_N_ELEMENTS (answers));
  lu = open_lu (&target, 10000, &error);
  g_assert_no_error (error);
  for (guint i = 0; i < G_N_ELEMENTS (answers); i++) {
    HfScsiResult result;

    g_assert_true (send_test_unit_ready (lu, &result, &error));
    g_assert_cmpuint (result.status, ==, HF_SAM_CHECK_CONDITION);
    g_assert_cmpmem (result.sense, result.sense_length, answers[i].sense, answers[i].sense_length);
  }
  hf_lu_free (lu);
  fake_target_stop (&target);
}

static void
test_residual (void)
{
  static const struct {
    FakeAnswer answer;
    guint32 transferred, residual;
  } cases[] = {
    { { .data = "0123456789abcdef", .data_length = 16 }, 16, 0 },
    { { .data = "0123", .data_length = 4, .residual_flag = 0x02, .residual = 12 }, 4, 12 },
    { { .residual_flag = 0x02, .residual = 16 }, 0, 16 },
    /* The device had more than was asked for: all of the buffer is valid. */
    { { .data = "0123456789abcdef", .data_length = 16, .residual_flag = 0x04, .residual = 1000 }, 16, 0 },
  };

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (GError) error = NULL;
    HfScsiResult result;
    FakeTarget target;
    char buffer[16];
    HfLu *lu;

    start (&target, FAKE_LOGIN_OK, &cases[i].answer, 1);
    lu = open_lu (&target, 10000, &error);
    g_assert_no_error (error);
    memset (buffer, '!', sizeof buffer);
    g_assert_true (send_inquiry (lu, buffer, sizeof buffer, &result, &error));
    g_assert_cmpuint (result.transferred, ==, cases[i].transferred);
    g_assert_cmpuint (result.residual, ==, cases[i].residual);
    g_assert_cmpmem (buffer, result.transferred, "0123456789abcdef", result.transferred);
    for (guint k = result.transferred; k < sizeof buffer; k++)
      g_assert_cmpint (buffer[k], ==, '!');
    hf_lu_free (lu);
    fake_target_stop (&target);
  }
}

/* A residual of more than was asked for, and more data than was asked for, are lies. The caller's buffer stays as it was. */
static void
test_lies (void)
{
  static const struct {
    FakeAnswer answer;
    int code;
  } cases[] = {
    { { .residual_flag = 0x02, .residual = 17 }, HF_SCSI_ERROR_ANSWER },
    { { .residual_flag = 0x02, .residual = 0xffffffff }, HF_SCSI_ERROR_ANSWER },
    { { .data = "0123456789abcdef0123456789abcdef", .data_length = 32 }, HF_SCSI_ERROR_LINK },
  };

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (GError) error = NULL;
    HfScsiResult result;
    FakeTarget target;
    char buffer[16];
    HfLu *lu;

    start (&target, FAKE_LOGIN_OK, &cases[i].answer, 1);
    lu = open_lu (&target, 10000, &error);
    g_assert_no_error (error);
    memset (buffer, '!', sizeof buffer);
    g_assert_false (send_inquiry (lu, buffer, sizeof buffer, &result, &error));
    g_assert_error (error, HF_SCSI_ERROR, cases[i].code);
    g_assert_cmpmem (buffer, 16, "!!!!!!!!!!!!!!!!", 16);
    hf_lu_free (lu);
    fake_target_stop (&target);
  }
}

static void
test_data_out (void)
{
  HfScsiCommand command = { .cdb = { 0x5f, 0, 0, 0, 0, 0, 0, 0, 24 },
                            .cdb_length = 10,
                            .direction = HF_SCSI_TO_DEVICE,
                            .data = (char[]){ "parameter list 24 bytes" },
                            .data_length = 24 };
  g_autoptr (GError) error = NULL;
  HfScsiResult result;
  FakeTarget target;
  HfLu *lu;

  start (&target, FAKE_LOGIN_OK, &good, 1);
  lu = open_lu (&target, 10000, &error);
  g_assert_no_error (error);
  g_assert_true (hf_lu_execute (lu, &command, &result, &error));
  g_assert_cmpuint (result.transferred, ==, 24);
  hf_lu_free (lu);
  fake_target_stop (&target);
  g_assert_cmpmem (target.data_out, 24, "parameter list 24 bytes", 24);
}

/* ---- links that break ---- */

/* The deadline is the caller's; the next command has a new session of the same nexus. */
static void
test_silent_then_again (void)
{
  static const FakeAnswer answers[] = { { .act = FAKE_SILENT }, { .act = FAKE_ANSWER } };
  HfScsiCommand command = { .cdb_length = 6, .timeout_ms = 80 };
  g_autoptr (GError) error = NULL;
  HfScsiResult result;
  FakeTarget target;
  gint64 begin;
  HfLu *lu;

  start (&target, FAKE_LOGIN_OK, answers, G_N_ELEMENTS (answers));
  lu = open_lu (&target, 10000, &error);
  g_assert_no_error (error);
  memset (target.isid, 0, sizeof target.isid);
  begin = g_get_monotonic_time ();
  g_assert_false (hf_lu_execute (lu, &command, &result, &error));
  g_assert_error (error, HF_SCSI_ERROR, HF_SCSI_ERROR_TIMEOUT);
  g_assert_cmpint (g_get_monotonic_time () - begin, >=, 80000);
  g_assert_cmpint (g_get_monotonic_time () - begin, <, SOON_US);
  g_clear_error (&error);
  g_assert_true (send_test_unit_ready (lu, &result, &error));
  g_assert_no_error (error);
  hf_lu_free (lu);
  fake_target_stop (&target);
  g_assert_cmpint (target.n_logins, ==, 2);
  g_assert_cmpmem (target.isid, 6, "\x00\x02\x3d\x00\x00\x01", 6);
}

static void
test_cut_then_again (void)
{
  static const FakeAnswer answers[] = { { .act = FAKE_CLOSE }, { .act = FAKE_ANSWER } };
  g_autoptr (GError) error = NULL;
  HfScsiResult result;
  FakeTarget target;
  HfLu *lu;

  start (&target, FAKE_LOGIN_OK, answers, G_N_ELEMENTS (answers));
  lu = open_lu (&target, 10000, &error);
  g_assert_no_error (error);
  g_assert_false (send_test_unit_ready (lu, &result, &error));
  g_assert_error (error, HF_SCSI_ERROR, HF_SCSI_ERROR_LINK);
  g_clear_error (&error);
  g_assert_true (send_test_unit_ready (lu, &result, &error));
  g_assert_no_error (error);
  hf_lu_free (lu);
  fake_target_stop (&target);
  g_assert_cmpint (target.n_logins, ==, 2);
}

/* A connection that ended between two commands cost none of them: the second is sent over a new one. */
static void
test_cut_while_idle (void)
{
  static const FakeAnswer answers[] = { { .act = FAKE_ANSWER_AND_CLOSE }, { .act = FAKE_ANSWER } };
  g_autoptr (GError) error = NULL;
  HfScsiResult result;
  FakeTarget target;
  HfLu *lu;

  start (&target, FAKE_LOGIN_OK, answers, G_N_ELEMENTS (answers));
  lu = open_lu (&target, 10000, &error);
  g_assert_no_error (error);
  g_assert_true (send_test_unit_ready (lu, &result, &error));
  /* `connection` is -1 a moment before close(2): the second login can only be served behind it. */
  while (g_atomic_int_get (&target.connection) != -1)
    g_thread_yield ();
  g_assert_true (send_test_unit_ready (lu, &result, &error) || g_error_matches (error, HF_SCSI_ERROR, HF_SCSI_ERROR_LINK));
  g_clear_error (&error);
  g_assert_true (send_test_unit_ready (lu, &result, &error));
  g_assert_no_error (error);
  hf_lu_free (lu);
  fake_target_stop (&target);
  g_assert_cmpint (target.n_logins, ==, 2);
}

static int n_pipe_signals;

static void
count_pipe_signal (int number)
{
  n_pipe_signals++;
}

/* The target is gone for good: an error in time, at each try, and the program's SIGPIPE handler never hears of it. */
static void
test_target_gone (void)
{
  const struct sigaction action = { .sa_handler = count_pipe_signal };
  struct sigaction old;
  FakeTarget target;
  sigset_t pending;
  HfLu *lu;

  sigaction (SIGPIPE, &action, &old);
  start (&target, FAKE_LOGIN_OK, &good, 1);
  lu = open_lu (&target, 10000, NULL);
  g_assert_nonnull (lu);
  fake_target_stop (&target);
  for (guint i = 0; i < 3; i++) {
    g_autoptr (GError) error = NULL;
    HfScsiResult result;

    g_assert_false (send_test_unit_ready (lu, &result, &error));
    g_assert_error (error, HF_SCSI_ERROR, HF_SCSI_ERROR_LINK);
  }
  hf_lu_free (lu);
  sigpending (&pending);
  g_assert_false (sigismember (&pending, SIGPIPE));
  g_assert_cmpint (n_pipe_signals, ==, 0);
  sigaction (SIGPIPE, &old, NULL);
}

/* Logging out of a target that does not answer ends as well. */
static void
test_free_does_not_hang (void)
{
  static const FakeAnswer silent = { .act = FAKE_SILENT };
  HfScsiCommand command = { .cdb_length = 6, .timeout_ms = 50 };
  gint64 begin = g_get_monotonic_time ();
  HfScsiResult result;
  FakeTarget target;
  HfLu *lu;

  start (&target, FAKE_LOGIN_OK, &silent, 1);
  lu = open_lu (&target, 10000, NULL);
  g_assert_nonnull (lu);
  g_assert_false (hf_lu_execute (lu, &command, &result, NULL));
  hf_lu_free (lu);
  g_assert_cmpint (g_get_monotonic_time () - begin, <, SOON_US);
  fake_target_stop (&target);
  g_assert_cmpint (target.n_closed, ==, 1);
}

/* ---- addresses ---- */

static void
test_addresses (void)
{
  static const struct {
    const char *url, *printable, *host;
    guint16 port, lun;
    const char *user, *password;
  } cases[] = {
    { "iscsi://host/iqn.a/0", "iscsi://host/iqn.a/0", "host", 3260, 0, NULL, NULL },
    { "iscsi://10.0.0.1:13260/iqn.a:b/255", "iscsi://10.0.0.1:13260/iqn.a:b/255", "10.0.0.1", 13260, 255, NULL, NULL },
    { "iscsi://[::1]/iqn.a/1", "iscsi://[::1]/iqn.a/1", "::1", 3260, 1, NULL, NULL },
    { "iscsi://[2001:db8::1]:13260/iqn.a/1", "iscsi://[2001:db8::1]:13260/iqn.a/1", "2001:db8::1", 13260, 1, NULL, NULL },
    { "iscsi://me%secret@host/iqn.a/1", "iscsi://me@host/iqn.a/1", "host", 3260, 1, "me", "secret" },
  };

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    const HfLuOptions options = { .initiator_name = INITIATOR };
    g_autoptr (GError) error = NULL;
    g_autoptr (HfIscsiAddress) address = hf_iscsi_address_parse (cases[i].url, &options, &error);

    g_assert_no_error (error);
    g_assert_cmpstr (address->printable, ==, cases[i].printable);
    g_assert_cmpstr (address->host, ==, cases[i].host);
    g_assert_cmpuint (address->port, ==, cases[i].port);
    g_assert_cmpuint (address->lun, ==, cases[i].lun);
    g_assert_cmpstr (address->user, ==, cases[i].user);
    g_assert_cmpstr (address->password, ==, cases[i].password);
    g_assert_cmpuint (address->isid, ==, hf_iscsi_isid_from_name (INITIATOR));
  }
}

static void
test_refused_addresses (void)
{
  g_autofree char *long_name = g_strnfill (300, 'a');
  g_autofree char *long_url = g_strconcat ("iscsi://host/", long_name, "/1", NULL);
  const char *const urls[] = {
    "iser://host/iqn.a/1",
    "iscsi:/host/iqn.a/1",
    "iscsi://",
    "iscsi:///iqn.a/1",
    "iscsi://host/iqn.a",
    "iscsi://host/iqn.a/",
    "iscsi://host/iqn.a/x",
    "iscsi://host/iqn.a/-1",
    "iscsi://host/iqn.a/65536",
    "iscsi://host/iqn.a/1x",
    "iscsi://host//1",
    "iscsi://host:/iqn.a/1",
    "iscsi://host:0/iqn.a/1",
    "iscsi://host:65536/iqn.a/1",
    "iscsi://host:x/iqn.a/1",
    "iscsi://[::1/iqn.a/1",
    "iscsi://[::1]x/iqn.a/1",
    "iscsi://host/iqn.a,b/1",
    "iscsi://host/iqn a/1",
    "iscsi://host/iqn.a/1?header_digest",
    "iscsi://user@host/iqn.a/1",
    "iscsi://user%s3cret@more@host/iqn.a/1",
    "iscsi://user%s3cret@host:x/iqn.a/1",
    "iscsi://user%s3cret@host/iqn.a",
    long_url,
  };

  for (guint i = 0; i < G_N_ELEMENTS (urls); i++) {
    g_autoptr (GError) error = NULL;

    g_test_message ("%s", urls[i]);
    g_assert_null (hf_iscsi_address_parse (urls[i], NULL, &error));
    g_assert_error (error, HF_SCSI_ERROR, HF_SCSI_ERROR_ADDRESS);
    g_assert_null (strstr (error->message, "s3cret"));
  }
}

/* The password may come from the environment, and no process sees it in our arguments. */
static void
test_chap_environment (void)
{
  g_autoptr (HfIscsiAddress) address = NULL;
  g_autoptr (GError) error = NULL;

  g_setenv ("LIBISCSI_CHAP_PASSWORD", "s3cret", TRUE);
  address = hf_iscsi_address_parse ("iscsi://me@host/iqn.a/1", NULL, &error);
  g_unsetenv ("LIBISCSI_CHAP_PASSWORD");
  g_assert_no_error (error);
  g_assert_cmpstr (address->user, ==, "me");
  g_assert_cmpstr (address->password, ==, "s3cret");
  g_assert_cmpstr (address->printable, ==, "iscsi://me@host/iqn.a/1");
}

static void
test_isids (void)
{
  static const guint64 refused[] = { G_GUINT64_CONSTANT (0x410000000000), G_GUINT64_CONSTANT (0x7f0000000000),
                                     G_GUINT64_CONSTANT (0x810000000000), G_GUINT64_CONSTANT (0xc00000000000),
                                     G_GUINT64_CONSTANT (0x1000000000000) };
  guint64 a = hf_iscsi_isid_from_name ("iqn.2026-11.org.example:a");
  guint64 b = hf_iscsi_isid_from_name ("iqn.2026-11.org.example:b");

  /* A rerun, of a later version too, has to be the same nexus. */
  g_assert_cmphex (a, ==, G_GUINT64_CONSTANT (0x8075bdbcc80d));
  g_assert_cmphex (b, !=, a);
  g_assert_cmphex (hf_iscsi_isid_from_name ("IQN.2026-11.org.example:A"), ==, a);
  g_assert_true (hf_iscsi_isid_is_valid (a) && hf_iscsi_isid_is_valid (b));
  for (guint i = 0; i < G_N_ELEMENTS (refused); i++) {
    const HfLuOptions options = { .initiator_name = INITIATOR, .has_isid = TRUE, .isid = refused[i] };
    g_autoptr (GError) error = NULL;

    g_assert_null (hf_iscsi_address_parse ("iscsi://host/iqn.a/1", &options, &error));
    g_assert_error (error, HF_SCSI_ERROR, HF_SCSI_ERROR_ADDRESS);
    g_assert_nonnull (strstr (error->message, "ISID"));
  }
}

static void
test_initiator_names (void)
{
  g_autofree char *longest = g_strnfill (223, 'n');
  g_autofree char *too_long = g_strnfill (224, 'n');
  const char *const refused[] = { "", "iqn a", "iqn.a,i,0x1", "iqn.a\n", "iqn.\xff", too_long };
  HfLuOptions options = { .initiator_name = longest };
  g_autoptr (HfIscsiAddress) address = hf_iscsi_address_parse ("iscsi://host/iqn.a/1", &options, NULL);
  g_autoptr (HfIscsiAddress) by_default = hf_iscsi_address_parse ("iscsi://host/iqn.a/1", NULL, NULL);

  g_assert_cmpstr (address->initiator_name, ==, longest);
  g_assert_true (g_str_has_prefix (by_default->initiator_name, "iqn."));
  for (guint i = 0; i < G_N_ELEMENTS (refused); i++) {
    g_autoptr (GError) error = NULL;

    options.initiator_name = refused[i];
    g_assert_null (hf_iscsi_address_parse ("iscsi://host/iqn.a/1", &options, &error));
    g_assert_error (error, HF_SCSI_ERROR, HF_SCSI_ERROR_ADDRESS);
  }
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_unsetenv ("LIBISCSI_CHAP_USERNAME");
  g_unsetenv ("LIBISCSI_CHAP_PASSWORD");
  g_test_add_func ("/transport-iscsi/login", test_login);
  g_test_add_func ("/transport-iscsi/login-fails", test_login_fails);
  g_test_add_func ("/transport-iscsi/nobody-listens", test_nobody_listens);
  g_test_add_func ("/transport-iscsi/redirect", test_redirect);
  g_test_add_func ("/transport-iscsi/redirect-loop", test_redirect_loop);
  g_test_add_func ("/transport-iscsi/statuses", test_statuses);
  g_test_add_func ("/transport-iscsi/sense", test_sense);
  g_test_add_func ("/transport-iscsi/residual", test_residual);
  g_test_add_func ("/transport-iscsi/lies", test_lies);
  g_test_add_func ("/transport-iscsi/data-out", test_data_out);
  g_test_add_func ("/transport-iscsi/silent-then-again", test_silent_then_again);
  g_test_add_func ("/transport-iscsi/cut-then-again", test_cut_then_again);
  g_test_add_func ("/transport-iscsi/cut-while-idle", test_cut_while_idle);
  g_test_add_func ("/transport-iscsi/target-gone", test_target_gone);
  g_test_add_func ("/transport-iscsi/free-does-not-hang", test_free_does_not_hang);
  g_test_add_func ("/iscsi-address/accepted", test_addresses);
  g_test_add_func ("/iscsi-address/refused", test_refused_addresses);
  g_test_add_func ("/iscsi-address/chap-environment", test_chap_environment);
  g_test_add_func ("/iscsi-address/isids", test_isids);
  g_test_add_func ("/iscsi-address/initiator-names", test_initiator_names);
  return g_test_run ();
}
