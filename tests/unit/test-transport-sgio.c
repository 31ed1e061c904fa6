/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * SG_IO: answers, broken links and calls that do not come back. The kernel's side is played here: this program defines
 * libsgutils2's pass-through itself, in front of the library, and the node is /dev/null. Real devices are for tests/lab.
 */

#include "config.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <holdfast/scsi.h>
#include <scsi/sg_pt.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- the kernel ---- */

struct sg_pt_base {
  const guint8 *cdb;
  guint8 *sense, *in;
  const guint8 *out;
  int in_length, out_length, sense_max;
};

/* What the next calls give. Set before execute, read on the transport's worker behind its lock. */
static struct {
  int error, category, status, residual, sense_length, host;
  const char *data;
  gboolean hangs;
  /* seen */
  guint8 cdb[16];
  int cdb_length, timeout_s;
  char written[32];
} kernel;

static GMutex gate_lock;
static GCond gate_changed;
static gboolean gate_open;
static guint n_returned;

struct sg_pt_base *
construct_scsi_pt_obj_with_fd (int fd, int verbose)
{
  return g_new0 (struct sg_pt_base, 1);
}

void
destruct_scsi_pt_obj (struct sg_pt_base *pt)
{
  g_free (pt);
}

void
set_scsi_pt_cdb (struct sg_pt_base *pt, const guint8 *cdb, int length)
{
  memcpy (kernel.cdb, cdb, length);
  kernel.cdb_length = length;
}

void
set_scsi_pt_sense (struct sg_pt_base *pt, guint8 *sense, int length)
{
  pt->sense = sense;
  pt->sense_max = length;
}

void
set_scsi_pt_data_in (struct sg_pt_base *pt, guint8 *data, int length)
{
  pt->in = data;
  pt->in_length = length;
}

void
set_scsi_pt_data_out (struct sg_pt_base *pt, const guint8 *data, int length)
{
  pt->out = data;
  pt->out_length = length;
}

static void
hang (void)
{
  g_mutex_lock (&gate_lock);
  while (!gate_open)
    g_cond_wait (&gate_changed, &gate_lock);
  n_returned++;
  g_cond_broadcast (&gate_changed);
  g_mutex_unlock (&gate_lock);
}

int
do_scsi_pt (struct sg_pt_base *pt, int fd, int timeout_s, int verbose)
{
  kernel.timeout_s = timeout_s;
  if (pt->out)
    memcpy (kernel.written, pt->out, MIN (pt->out_length, (int)sizeof kernel.written));
  if (kernel.hangs)
    hang ();
  if (pt->in && kernel.data)
    memcpy (pt->in, kernel.data, MIN (pt->in_length, (int)strlen (kernel.data)));
  for (int i = 0; i < kernel.sense_length && i < pt->sense_max; i++)
    pt->sense[i] = 0x70 + i;
  return kernel.error;
}

int
get_scsi_pt_result_category (const struct sg_pt_base *pt)
{
  return kernel.category;
}

int
get_scsi_pt_status_response (const struct sg_pt_base *pt)
{
  return kernel.status;
}

int
get_scsi_pt_resid (const struct sg_pt_base *pt)
{
  return kernel.residual;
}

int
get_scsi_pt_sense_len (const struct sg_pt_base *pt)
{
  return kernel.sense_length;
}

int
get_scsi_pt_transport_err (const struct sg_pt_base *pt)
{
  return kernel.host;
}

char *
get_scsi_pt_transport_err_str (const struct sg_pt_base *pt, int length, char *text)
{
  g_snprintf (text, length, "Host_status=0x%02x\n", kernel.host);
  return text;
}

/* ---- the tests ---- */

static HfLu *
open_null (void)
{
  const HfLuOptions options = { .timeout_ms = 10000 };
  g_autoptr (GError) error = NULL;
  HfLu *lu = hf_lu_open ("/dev/null", &options, &error);

  g_assert_no_error (error);
  memset (&kernel, 0, sizeof kernel);
  return lu;
}

static gboolean
send_inquiry (HfLu *lu, void *buffer, guint timeout_ms, HfScsiResult *ret, GError **error)
{
  const HfScsiCommand command = { .cdb = { 0x12, 0, 0, 0, 8 },
                                  .cdb_length = 6,
                                  .direction = HF_SCSI_FROM_DEVICE,
                                  .data = buffer,
                                  .data_length = 8,
                                  .timeout_ms = timeout_ms };

  return hf_lu_execute (lu, &command, ret, error);
}

static void
test_good (void)
{
  g_autoptr (HfLu) lu = open_null ();
  g_autoptr (GError) error = NULL;
  HfScsiResult result;
  char buffer[8] = "!!!!!!!";

  kernel.data = "abcde";
  kernel.residual = 3;
  g_assert_true (send_inquiry (lu, buffer, 1500, &result, &error));
  g_assert_no_error (error);
  g_assert_cmpuint (result.transferred, ==, 5);
  g_assert_cmpuint (result.residual, ==, 3);
  g_assert_cmpmem (buffer, 8, "abcde!!", 8);
  g_assert_cmpint (kernel.cdb_length, ==, 6);
  g_assert_cmpmem (kernel.cdb, 6, "\x12\0\0\0\x08\0", 6);
  /* Whole seconds, never fewer than the deadline needs. */
  g_assert_cmpint (kernel.timeout_s, ==, 2);
  g_assert_cmpuint (hf_lu_get_nexus (lu)->transport_id.length, ==, 0);
}

static void
test_data_out (void)
{
  HfScsiCommand command = {
    .cdb = { 0x5f }, .cdb_length = 10, .direction = HF_SCSI_TO_DEVICE, .data = (char[]){ "parameters" }, .data_length = 11
  };
  g_autoptr (HfLu) lu = open_null ();
  HfScsiResult result;

  kernel.data = "must not arrive";
  g_assert_true (hf_lu_execute (lu, &command, &result, NULL));
  g_assert_cmpstr (kernel.written, ==, "parameters");
  g_assert_cmpstr (command.data, ==, "parameters");
  g_assert_cmpuint (result.transferred, ==, 11);
}

/* An answer of the device counts, whatever the host and driver bytes say beside it. */
static void
test_statuses (void)
{
  static const struct {
    int status, category, host, sense_length, expected_sense;
  } cases[] = {
    { HF_SAM_CHECK_CONDITION, SCSI_PT_RESULT_SENSE, 0, 18, 18 },
    { HF_SAM_CHECK_CONDITION, SCSI_PT_RESULT_SENSE, 0, 96, 96 },
    { HF_SAM_CHECK_CONDITION, SCSI_PT_RESULT_SENSE, 0, 1000, 96 },
    { HF_SAM_CHECK_CONDITION, SCSI_PT_RESULT_SENSE, 0, -1, 0 },
    { HF_SAM_RESERVATION_CONFLICT, SCSI_PT_RESULT_STATUS, 0, 0, 0 },
    { HF_SAM_RESERVATION_CONFLICT, SCSI_PT_RESULT_TRANSPORT_ERR, 0x10, 0, 0 },
    { HF_SAM_BUSY, SCSI_PT_RESULT_TRANSPORT_ERR, 0x02, 0, 0 },
    { HF_SAM_TASK_SET_FULL, SCSI_PT_RESULT_TRANSPORT_ERR, 0x03, 0, 0 },
    /* Sense data beside GOOD (driver byte): the status is the answer. */
    { HF_SAM_GOOD, SCSI_PT_RESULT_SENSE, 0, 18, 0 },
  };
  g_autoptr (HfLu) lu = open_null ();

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (GError) error = NULL;
    HfScsiResult result;
    char buffer[8];

    g_test_message ("case %u", i);
    kernel.status = cases[i].status;
    kernel.category = cases[i].category;
    kernel.host = cases[i].host;
    kernel.sense_length = cases[i].sense_length;
    g_assert_true (send_inquiry (lu, buffer, 0, &result, &error));
    g_assert_no_error (error);
    g_assert_cmpuint (result.status, ==, cases[i].status);
    g_assert_cmpuint (result.sense_length, ==, cases[i].expected_sense);
    for (guint k = 0; k < result.sense_length; k++)
      g_assert_cmphex (result.sense[k], ==, 0x70 + k);
  }
}

static void
test_errors (void)
{
  static const struct {
    int error, category, host, residual, code;
  } cases[] = {
    { -ENODEV, 0, 0, 0, HF_SCSI_ERROR_LINK },
    { -ENOTTY, 0, 0, 0, HF_SCSI_ERROR_LINK },
    { -EAGAIN, 0, 0, 0, HF_SCSI_ERROR_LINK },
    { SCSI_PT_DO_BAD_PARAMS, 0, 0, 0, HF_SCSI_ERROR_LINK },
    { SCSI_PT_DO_TIMEOUT, 0, 0, 0, HF_SCSI_ERROR_TIMEOUT },
    { 0, SCSI_PT_RESULT_TRANSPORT_ERR, 0x01, 0, HF_SCSI_ERROR_LINK },
    { 0, SCSI_PT_RESULT_TRANSPORT_ERR, 0x03, 0, HF_SCSI_ERROR_TIMEOUT },
    { 0, SCSI_PT_RESULT_TRANSPORT_ERR, 0x0f, 0, HF_SCSI_ERROR_LINK },
    { 0, 0, 0, -1, HF_SCSI_ERROR_ANSWER },
    { 0, 0, 0, 9, HF_SCSI_ERROR_ANSWER },
    { 0, 0, 0, G_MININT, HF_SCSI_ERROR_ANSWER },
  };
  g_autoptr (HfLu) lu = open_null ();

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (GError) error = NULL;
    HfScsiResult result;
    char buffer[8] = "!!!!!!!";

    g_test_message ("case %u", i);
    kernel.error = cases[i].error;
    kernel.category = cases[i].category;
    kernel.host = cases[i].host;
    kernel.residual = cases[i].residual;
    kernel.data = "abcdefgh";
    g_assert_false (send_inquiry (lu, buffer, 0, &result, &error));
    g_assert_error (error, HF_SCSI_ERROR, cases[i].code);
    g_assert_true (g_str_has_prefix (error->message, "/dev/null: "));
    g_assert_cmpstr (buffer, ==, "!!!!!!!");
  }
}

static void
open_gate (guint wait_for)
{
  g_mutex_lock (&gate_lock);
  gate_open = TRUE;
  g_cond_broadcast (&gate_changed);
  while (n_returned < wait_for)
    g_cond_wait (&gate_changed, &gate_lock);
  g_mutex_unlock (&gate_lock);
}

/*
 * The ioctl does not come back. The caller does, at its deadline; the next command is told that the first is still on its way,
 * and was not sent; what the first one brings at last reaches nobody's buffer; afterwards the device is usable.
 */
static void
test_hang (void)
{
  HfLu *lu = open_null ();
  g_autoptr (GError) error = NULL;
  HfScsiResult result;
  char buffer[8] = "!!!!!!!";
  gint64 begin = g_get_monotonic_time ();

  gate_open = FALSE;
  n_returned = 0;
  kernel.hangs = TRUE;
  kernel.data = "abcdefgh";
  g_assert_false (send_inquiry (lu, buffer, 50, &result, &error));
  g_assert_error (error, HF_SCSI_ERROR, HF_SCSI_ERROR_TIMEOUT);
  g_assert_cmpint (g_get_monotonic_time () - begin, >=, 50000);
  g_clear_error (&error);
  g_assert_false (send_inquiry (lu, buffer, 50, &result, &error));
  g_assert_error (error, HF_SCSI_ERROR, HF_SCSI_ERROR_TIMEOUT);
  g_assert_nonnull (strstr (error->message, "still in flight"));
  g_assert_cmpint (g_get_monotonic_time () - begin, <, 10 * G_USEC_PER_SEC);
  g_clear_error (&error);

  open_gate (1);
  g_assert_cmpstr (buffer, ==, "!!!!!!!");
  g_assert_true (send_inquiry (lu, buffer, 10000, &result, &error));
  g_assert_no_error (error);
  g_assert_cmpmem (buffer, 8, "abcdefgh", 8);
  hf_lu_free (lu);
}

/* Closing does not wait for it either. */
static void
test_free_while_hanging (void)
{
  HfLu *lu = open_null ();
  HfScsiResult result;
  char buffer[8];

  gate_open = FALSE;
  n_returned = 0;
  kernel.hangs = TRUE;
  g_assert_false (send_inquiry (lu, buffer, 20, &result, NULL));
  hf_lu_free (lu);
  g_assert_cmpuint (n_returned, ==, 0);
  open_gate (1);
}

static void
test_refused_nodes (void)
{
  g_autofree char *folder = g_dir_make_tmp ("holdfast-sgio-XXXXXX", NULL);
  g_autofree char *file = g_build_filename (folder, "file", NULL);
  g_autofree char *fifo = g_build_filename (folder, "fifo", NULL);
  g_autofree char *missing = g_build_filename (folder, "missing", NULL);
  const char *const paths[] = { file, fifo, missing, folder, "" };

  g_assert_true (g_file_set_contents (file, "x", 1, NULL));
  g_assert_cmpint (mkfifo (fifo, 0600), ==, 0);
  for (guint i = 0; i < G_N_ELEMENTS (paths); i++) {
    g_autoptr (GError) error = NULL;

    g_assert_null (hf_lu_open (paths[i], NULL, &error));
    g_assert_error (error, HF_SCSI_ERROR, HF_SCSI_ERROR_ADDRESS);
    g_assert_true (g_str_has_prefix (error->message, paths[i]));
  }
  g_unlink (file);
  g_unlink (fifo);
  g_rmdir (folder);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/transport-sgio/good", test_good);
  g_test_add_func ("/transport-sgio/data-out", test_data_out);
  g_test_add_func ("/transport-sgio/statuses", test_statuses);
  g_test_add_func ("/transport-sgio/errors", test_errors);
  g_test_add_func ("/transport-sgio/hang", test_hang);
  g_test_add_func ("/transport-sgio/free-while-hanging", test_free_while_hanging);
  g_test_add_func ("/transport-sgio/refused-nodes", test_refused_nodes);
  return g_test_run ();
}
