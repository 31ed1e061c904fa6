/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns: nothing; the descriptor and the buffer are the caller's. Thread: a worker. The deadline is the caller's too.
 *
 * Theory of operation: SG_IO directly, and not through scsi/transport-sgio. A transport is opened on a device, asks sysfs who it
 * is, counts timeouts in seconds, and has a thread of its own; here each command brings a descriptor, already sits on a thread
 * that may hang, and must be one system call: the seccomp filter allows no other ioctl than this one.
 *
 * The device's answer counts, also if host or driver bytes are set beside it. Only without one do these bytes tell what happened:
 * BUSY where the command was not sent, so that the guest tries again, or where qemu-pr-helper says so; its sense data where it
 * has some; else ABORTED COMMAND, I/O PROCESS TERMINATED (B/0006). qemu-pr-helper takes bytes that it does not know for GOOD.
 */
#include "config.h"

#include "prhelper/sgio.h"

#include "base/fail.h"

#include <errno.h>
#include <holdfast/scsi.h>
#include <scsi/sg.h>
#include <string.h>
#include <sys/ioctl.h>

#define PR_CDB_LENGTH 10
/* SAM-4 5.3: bit 0 is reserved. What is not GOOD must not become it. */
#define STATUS_MASK 0xfe
#define DRIVER_MASK 0x0f
#define DRIVER_TIMEOUT 0x06

#define SENSE_ABORTED 0x0b
#define SENSE_ATTENTION 0x06
#define SENSE_HARDWARE 0x04
#define SENSE_ILLEGAL_REQUEST 0x05
#define IO_PROCESS_TERMINATED 0x0006
#define INVALID_FIELD_IN_CDB 0x2400

/* errno values and host bytes (include/scsi/scsi_status.h of Linux) that have an answer of their own. */
typedef struct {
  int value;
  guint8 status, key;
  guint16 asc_ascq;
} Translation;

static const Translation errno_answers[] = {
  /* Nothing was sent: no memory, a suspended map, no path yet. */
  { EAGAIN, HF_SAM_BUSY, 0, 0 },
  { EBUSY, HF_SAM_BUSY, 0, 0 },
  { ENOMEM, HF_SAM_BUSY, 0, 0 },
  { EINVAL, HF_SAM_CHECK_CONDITION, SENSE_ILLEGAL_REQUEST, INVALID_FIELD_IN_CDB },
};

static const Translation host_answers[] = {
  { 0x01, HF_SAM_CHECK_CONDITION, SENSE_ABORTED, 0x0500 },   /* NO_CONNECT: LOGICAL UNIT DOES NOT RESPOND TO SELECTION */
  { 0x02, HF_SAM_BUSY, 0, 0 },                               /* BUS_BUSY */
  { 0x03, HF_SAM_CHECK_CONDITION, SENSE_ABORTED, 0x2e02 },   /* TIME_OUT: COMMAND TIMEOUT DURING PROCESSING */
  { 0x08, HF_SAM_CHECK_CONDITION, SENSE_ATTENTION, 0x2900 }, /* RESET: POWER ON, RESET, OR BUS DEVICE RESET OCCURRED */
  { 0x0c, HF_SAM_BUSY, 0, 0 },                               /* IMM_RETRY */
  { 0x0d, HF_SAM_BUSY, 0, 0 },                               /* REQUEUE */
  { 0x0e, HF_SAM_CHECK_CONDITION, SENSE_ABORTED, 0x2907 },   /* TRANSPORT_DISRUPTED: I_T NEXUS LOSS OCCURRED */
  { 0x10, HF_SAM_CHECK_CONDITION, SENSE_HARDWARE, 0x4400 },  /* TARGET_FAILURE: INTERNAL TARGET FAILURE */
  { 0x11, HF_SAM_RESERVATION_CONFLICT, 0, 0 },               /* NEXUS_FAILURE: how older kernels say it */
};

void
hf_sgio_answer_sense (HfSgioAnswer *answer, guint8 key, guint16 asc_ascq)
{
  memset (answer->sense, 0, sizeof answer->sense);
  answer->status = HF_SAM_CHECK_CONDITION;
  answer->sense_length = 18;
  answer->sense[0] = 0x70;
  answer->sense[2] = key;
  answer->sense[7] = 18 - 8;
  answer->sense[12] = (guint8)(asc_ascq >> 8);
  answer->sense[13] = (guint8)asc_ascq;
  answer->transferred = 0;
}

static void
answer_from_table (HfSgioAnswer *answer, const Translation *table, gsize n_entries, int value)
{
  for (gsize i = 0; i < n_entries; i++) {
    if (table[i].value != value)
      continue;
    answer->status = table[i].status;
    if (answer->status == HF_SAM_CHECK_CONDITION)
      hf_sgio_answer_sense (answer, table[i].key, table[i].asc_ascq);
    return;
  }
  hf_sgio_answer_sense (answer, SENSE_ABORTED, IO_PROCESS_TERMINATED);
}

static void
answer_errno (HfSgioAnswer *answer, int reason)
{
  answer_from_table (answer, errno_answers, G_N_ELEMENTS (errno_answers), reason);
  /* Not g_strerror, which has a lock for all threads. */
  errno = reason;
  g_snprintf (answer->trouble, sizeof answer->trouble, "SG_IO: %m");
}

static void
answer_link (HfSgioAnswer *answer, const sg_io_hdr_t *header)
{
  gboolean timeout = (header->driver_status & DRIVER_MASK) == DRIVER_TIMEOUT;

  if (timeout)
    answer->status = HF_SAM_BUSY;
  else
    answer_from_table (answer, host_answers, G_N_ELEMENTS (host_answers), header->host_status);
  g_snprintf (answer->trouble, sizeof answer->trouble, "host byte %02x, driver byte %02x", header->host_status,
              header->driver_status);
}

static void
answer_device (HfSgioAnswer *answer, const sg_io_hdr_t *header)
{
  guint8 status = header->status & STATUS_MASK;
  guint sense_length = MIN (header->sb_len_wr, HF_PROTOCOL_SENSE_SIZE);
  gboolean link_lost = header->host_status != 0 || (header->driver_status & DRIVER_MASK) == DRIVER_TIMEOUT;

  /* Some drivers give the sense data and forget the status. */
  if (status == HF_SAM_GOOD && !link_lost && sense_length)
    status = HF_SAM_CHECK_CONDITION;
  if (status == HF_SAM_GOOD && link_lost) {
    answer_link (answer, header);
    return;
  }
  /* More than was asked for is missing: nobody knows what came. Of PR OUT nothing comes. */
  if (header->resid > (int)header->dxfer_len && header->dxfer_direction == SG_DXFER_FROM_DEV && status == HF_SAM_GOOD) {
    hf_sgio_answer_sense (answer, SENSE_ABORTED, IO_PROCESS_TERMINATED);
    g_snprintf (answer->trouble, sizeof answer->trouble, "residual %d of %u bytes", header->resid, header->dxfer_len);
    return;
  }
  answer->status = status;
  answer->sense_length = (guint8)(status == HF_SAM_CHECK_CONDITION ? sense_length : 0);
  /* A negative residual tells of bytes that did not fit. */
  if (header->dxfer_direction == SG_DXFER_FROM_DEV)
    answer->transferred = header->dxfer_len - (guint)CLAMP (header->resid, 0, (int)header->dxfer_len);
}

/* HOLDFAST_FAIL, steps guest-in and guest-out: what a test lets happen instead of the command, or instead of its answer. TRUE:
 * answer has it. */
static gboolean
acted_out (const char *when, gboolean in, HfSgioAnswer *answer)
{
  guint argument = 0;

  switch (hf_fail_point (when, in ? "guest-in" : "guest-out", TRUE, &argument)) {
  case HF_FAIL_LINK:
  case HF_FAIL_ERROR:
    answer_errno (answer, EIO);
    return TRUE;
  case HF_FAIL_TIMEOUT:
  case HF_FAIL_BUSY:
    answer->status = HF_SAM_BUSY;
    return TRUE;
  case HF_FAIL_TASK_SET_FULL:
    answer->status = HF_SAM_TASK_SET_FULL;
    return TRUE;
  case HF_FAIL_CONFLICT:
    answer->status = HF_SAM_RESERVATION_CONFLICT;
    return TRUE;
  case HF_FAIL_UNIT_ATTENTION:
    hf_sgio_answer_sense (answer, 0x06, (guint16)argument);
    return TRUE;
  case HF_FAIL_NOTHING:
  case HF_FAIL_STOP:
  case HF_FAIL_KILL:
  case HF_FAIL_DELAY:
  default:
    return FALSE;
  }
}

void
hf_sgio_execute (int fd, const HfProtocolRequest *request, guint8 *data, guint timeout_ms, HfSgioAnswer *ret)
{
  gboolean in = request->cdb[0] == HF_PROTOCOL_PR_IN;
  sg_io_hdr_t header = {
    .interface_id = 'S',
    .dxfer_direction = request->length == 0 ? SG_DXFER_NONE
                       : in                 ? SG_DXFER_FROM_DEV
                                            : SG_DXFER_TO_DEV,
    .cmd_len = PR_CDB_LENGTH,
    .mx_sb_len = HF_PROTOCOL_SENSE_SIZE,
    .dxfer_len = request->length,
    .dxferp = data,
    .cmdp = (unsigned char *)request->cdb,
    .sbp = ret->sense,
    .timeout = MAX (timeout_ms, 1),
  };

  memset (ret, 0, sizeof *ret);
  if (acted_out ("before", in, ret))
    return;
  if (ioctl (fd, SG_IO, &header) < 0)
    answer_errno (ret, errno);
  else
    answer_device (ret, &header);
  acted_out ("after", in, ret);
}

/* ---- who the LU is ---- */

#define INQUIRY 0x12
#define VPD_SIZE 1024

/* Bytes of the page that came; 0: none. */
static gsize
inquire (int fd, guint8 page, guint timeout_ms, guint8 *data)
{
  guint8 cdb[6] = { INQUIRY, 1, page, VPD_SIZE >> 8, VPD_SIZE & 0xff, 0 };
  guint8 sense[HF_PROTOCOL_SENSE_SIZE];
  sg_io_hdr_t header = {
    .interface_id = 'S',
    .dxfer_direction = SG_DXFER_FROM_DEV,
    .cmd_len = sizeof cdb,
    .mx_sb_len = sizeof sense,
    .dxfer_len = VPD_SIZE,
    .dxferp = data,
    .cmdp = cdb,
    .sbp = sense,
    .timeout = MAX (timeout_ms, 1),
  };

  if (ioctl (fd, SG_IO, &header) < 0 || (header.status & STATUS_MASK) != HF_SAM_GOOD || header.host_status || header.resid < 0
      || header.resid > VPD_SIZE)
    return 0;
  return VPD_SIZE - (gsize)header.resid;
}

gboolean
hf_sgio_identify (int fd, guint timeout_ms, HfLuIdentity *ret)
{
  guint8 data[VPD_SIZE];
  gsize length = inquire (fd, 0x83, timeout_ms, data);

  memset (ret, 0, sizeof *ret);
  if (length && hf_lu_identity_parse_83 (data, length, ret, NULL, NULL))
    return TRUE;
  length = inquire (fd, 0x80, timeout_ms, data);
  return length && hf_lu_identity_parse_80 (data, length, ret, NULL) && ret->serial[0];
}
