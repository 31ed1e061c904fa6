/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * holdfast access LU: may this nexus read, may it write? Owns: this verb. Thread: main.
 *
 * Theory of operation: a reservation shows itself in data commands only, so one READ(10) of block 0 is sent, and if asked for a
 * WRITE(10) of the block just read. Both are repeated after a unit attention, which says nothing about access. Under types 3 and
 * 6 the read may conflict, and then there is nothing to write back: --write-zeros writes regardless and is for scratch LUs only.
 */
#include "config.h"

#include "cli/block-io.h"
#include "cli/cli.h"

#define BLOCK_SIZE_DEFAULT 512

static void
report (HfRun *run, const char *name, const HfScsiResult *result)
{
  g_autofree char *status = result ? hf_scsi_result_to_string (result) : NULL;

  hf_json_set_string (run->object, name, status);
  if (!status)
    return;
  g_string_append_printf (run->text, "%s: %s\n", name, status);
  /* A conflict is what was asked about; the first other answer is the news if there is none. */
  if (result->status == HF_SAM_RESERVATION_CONFLICT)
    run->result = HF_EXIT_CONFLICT;
  else if (run->result == HF_EXIT_OK)
    run->result = hf_scsi_result_to_exit_code (result);
}

static gboolean
try_access (HfRun *run, HfLu *lu, gboolean write, gboolean zeros)
{
  HfScsiResult capacity = { 0 }, read = { 0 }, written = { 0 };
  g_autoptr (GError) error = NULL;
  g_autofree guint8 *block = NULL, *zero = NULL;
  guint32 size;

  hf_json_set_string (run->object, "device", hf_lu_get_address (lu));
  if (!hf_block_size (lu, &size, &capacity, &error))
    return hf_run_no_answer (run, lu, "capacity", error);
  /* LIO refuses READ CAPACITY under types 3, 6, 8, which SPC-4 allows: then any block size shows what a data command gets. */
  if (size == 0 && capacity.status == HF_SAM_RESERVATION_CONFLICT)
    size = BLOCK_SIZE_DEFAULT;
  if (size == 0) {
    report (run, "capacity", &capacity);
    return TRUE;
  }
  block = g_malloc0 (size);
  zero = g_malloc0 (size);
  if (!hf_block_read (lu, block, size, &read, &error))
    return hf_run_no_answer (run, lu, "read", error);
  report (run, "read", &read);
  /* A short read must not become a damaged block. */
  if (!zeros && (!write || read.status != HF_SAM_GOOD || read.transferred != size)) {
    report (run, "write", NULL);
    return TRUE;
  }
  if (!hf_block_write (lu, zeros ? zero : block, size, &written, &error))
    return hf_run_no_answer (run, lu, "write", error);
  report (run, "write", &written);
  return TRUE;
}

gboolean
hf_verb_access (HfRun *run, char **argv, GError **error)
{
  gboolean write = FALSE, zeros = FALSE;
  const GOptionEntry entries[] = {
    { "write", 0, 0, G_OPTION_ARG_NONE, &write, "Write block 0 back as it was read: scratch LUs only", NULL },
    { "write-zeros", 0, 0, G_OPTION_ARG_NONE, &zeros, "Write zeros to block 0, whatever the read said: scratch LUs only", NULL },
    { NULL },
  };
  const HfOptionSpec spec = { "access LU",
                              "Try what the reservation lets this nexus do: one read of block 0, and a write if asked for.", NULL,
                              entries, FALSE };
  g_auto (GStrv) addresses = NULL;
  HfLu *lu;

  if (!hf_run_parse (run, &spec, argv, &addresses, error))
    return FALSE;
  if (!addresses[0] || addresses[1])
    return hf_usage_error (error, "access needs one LU");
  if (write && zeros)
    return hf_usage_error (error, "--write and --write-zeros exclude each other");
  lu = hf_session_open (run->session, &run->options, addresses[0], error);
  if (!lu)
    return FALSE;
  return try_access (run, lu, write, zeros);
}
