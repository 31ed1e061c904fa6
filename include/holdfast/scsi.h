/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Opening a logical unit (LU) and sending it a command.
 *
 * A HfLu is one I_T_L nexus: one initiator port, one target port, one LU. Two HfLu of one process that were opened on the same
 * iSCSI target are two sessions and, unless initiator name and ISID are the same, two nexuses.
 *
 * Thread: a HfLu belongs to one thread at a time; different HfLu may be used in parallel. No function here blocks longer than
 * its deadline.
 *
 * Errors: a GError means that the LU gave no usable answer (it could not be opened, the link was lost, the deadline passed, the
 * answer was malformed). What the LU itself answers, RESERVATION CONFLICT and CHECK CONDITION included, is never a GError: it is
 * a HfScsiResult.
 *
 * Source: SAM-5 (status codes), SPC-4 (sense data 4.5, VPD pages 7.8, TransportID 7.6.4).
 */

#include <glib.h>

G_BEGIN_DECLS

#ifndef HF_PUBLIC
#define HF_PUBLIC __attribute__ ((visibility ("default")))
#endif

#define HF_SCSI_ERROR (hf_scsi_error_quark ())
HF_PUBLIC GQuark hf_scsi_error_quark (void);

typedef enum {
  HF_SCSI_ERROR_ADDRESS,   /* the address or an option is malformed, or the device does not exist */
  HF_SCSI_ERROR_OPEN,      /* the device exists but cannot be opened; login refused */
  HF_SCSI_ERROR_LINK,      /* the link was lost: the last command may or may not have been executed */
  HF_SCSI_ERROR_TIMEOUT,   /* the deadline passed: the last command may or may not have been executed */
  HF_SCSI_ERROR_ANSWER,    /* the answer is malformed (residual negative or too large, bad VPD page) */
  HF_SCSI_ERROR_IDENTITY,  /* the LU has no designator of its own */
  HF_SCSI_ERROR_NOT_FOUND, /* no device of this machine has the identity */
  HF_SCSI_ERROR_STATUS     /* the LU answered INQUIRY with BUSY, NOT READY ... : who it is cannot be known now */
} HfScsiError;

/* SAM-5 5.3.1 */
typedef enum {
  HF_SAM_GOOD = 0x00,
  HF_SAM_CHECK_CONDITION = 0x02,
  HF_SAM_CONDITION_MET = 0x04,
  HF_SAM_BUSY = 0x08,
  HF_SAM_RESERVATION_CONFLICT = 0x18,
  HF_SAM_TASK_SET_FULL = 0x28,
  HF_SAM_ACA_ACTIVE = 0x30,
  HF_SAM_TASK_ABORTED = 0x40
} HfSamStatus;

#define HF_SCSI_CDB_MAX 16
#define HF_SCSI_SENSE_MAX 96
#define HF_SCSI_UA_MAX 16
#define HF_SCSI_DATA_MAX (1u << 20)
#define HF_SCSI_TIMEOUT_DEFAULT_MS 30000

typedef enum { HF_SCSI_NO_DATA, HF_SCSI_FROM_DEVICE, HF_SCSI_TO_DEVICE } HfScsiDirection;

typedef enum {
  HF_SCSI_PLAIN = 0,
  /* Repeat the command after UNIT ATTENTION, BUSY and TASK SET FULL, until it gets another answer or the deadline has passed;
     then the last answer counts. Every unit attention that was seen stands in the result. */
  HF_SCSI_RETRY = 1 << 0
} HfScsiFlags;

/* One command. The caller owns everything; nothing is kept after the call. */
typedef struct {
  guint8 cdb[HF_SCSI_CDB_MAX];
  guint8 cdb_length; /* 6, 10, 12 or 16 */
  HfScsiDirection direction;
  void *data;          /* data_length bytes; NULL with HF_SCSI_NO_DATA; not written to with HF_SCSI_TO_DEVICE */
  guint32 data_length; /* at most HF_SCSI_DATA_MAX */
  HfScsiFlags flags;
  guint timeout_ms; /* for the command with its repetitions; 0: the LU's own, from HfLuOptions */
  const char *step; /* what the caller is doing, for messages and HOLDFAST_FAIL ("register"); NULL: "command" */
} HfScsiCommand;

/* The LU's answer to the last attempt, byte for byte. */
typedef struct {
  guint8 status;       /* HfSamStatus */
  guint8 sense_length; /* bytes valid in sense; 0 without CHECK CONDITION */
  guint8 sense[HF_SCSI_SENSE_MAX];
  guint32 transferred;                     /* data_length - residual */
  guint32 residual;                        /* bytes of the buffer that were not transferred; never more than data_length */
  guint attempts;                          /* commands really sent: 1, or more with HF_SCSI_RETRY */
  guint n_unit_attentions;                 /* seen in all attempts; the first HF_SCSI_UA_MAX stand in unit_attentions */
  guint16 unit_attentions[HF_SCSI_UA_MAX]; /* ASC << 8 | ASCQ */
} HfScsiResult;

/* Fixed and descriptor format sense data (SPC-4 4.5). FALSE if the result has no sense data that can be read. */
HF_PUBLIC gboolean hf_scsi_result_get_sense (const HfScsiResult *result, guint8 *ret_key, guint16 *ret_asc_ascq);

/* "RESERVATION CONFLICT", "CHECK CONDITION 6/2a05 (Registrations preempted)". Free with g_free. */
HF_PUBLIC char *hf_scsi_result_to_string (const HfScsiResult *result);

/* The exit code that sg3_utils gives for this answer (sg3_utils(8), "EXIT STATUS"): 0 for GOOD, 24 for RESERVATION CONFLICT ...
 */
HF_PUBLIC int hf_scsi_result_to_exit_code (const HfScsiResult *result);

/* The same for a GError of HF_SCSI_ERROR: 33 timeout, 15 file error, 97 malformed, 99 other; 50 + errno if the operating system
   refused a device node or SG_IO, 1 if an iSCSI URL, name or ISID is malformed, and with HF_SCSI_ERROR_STATUS that of the answer.
 */
HF_PUBLIC int hf_scsi_error_to_exit_code (const GError *error);

/* ---- I_T nexus ---- */

/* A TransportID as SPC-4 7.6.4 encodes it, padding included. An iSCSI name is at most 223 bytes, so 256 hold any of SPC-4's. */
#define HF_TRANSPORT_ID_MAX 256
typedef struct {
  guint16 length; /* 0: unknown */
  guint8 bytes[HF_TRANSPORT_ID_MAX];
} HfTransportId;

/* One I_T nexus seen from the LU: the initiator port and, if it is known, the target port. */
typedef struct {
  HfTransportId transport_id;
  guint16 relative_target_port; /* 0: unknown */
} HfNexus;

typedef enum { HF_NEXUS_DIFFERENT, HF_NEXUS_SAME, HF_NEXUS_UNKNOWN } HfNexusMatch;

/* Same initiator port and same target port. iSCSI names are compared without case; a name without ISID against the same name with
   one, and a port that one side does not know, count as the same; an unknown TransportID on either side gives HF_NEXUS_UNKNOWN.
 */
HF_PUBLIC HfNexusMatch hf_nexus_compare (const HfNexus *a, const HfNexus *b);

/* "iscsi:iqn.2026-11.org.example:a,i,0x00023d000001", "sas:5001405000000000", "fc:2100...", "unknown"; with ",port N" behind it
   if the relative target port is known. Free with g_free. */
HF_PUBLIC char *hf_nexus_to_string (const HfNexus *nexus);

/* Build a TransportID: protocol identifiers 5, 6 and 0 of SPC-4 7.6.4. has_isid FALSE gives format 00b (name only).
   FALSE if the name is empty or longer than 223 bytes. */
HF_PUBLIC gboolean hf_transport_id_iscsi (const char *name, gboolean has_isid, guint64 isid, HfTransportId *ret);
HF_PUBLIC void hf_transport_id_sas (guint64 address, HfTransportId *ret);
HF_PUBLIC void hf_transport_id_fc (guint64 port_name, HfTransportId *ret);

/* ---- identity ---- */

#define HF_DESIGNATOR_MAX 255
#define HF_DESIGNATORS_MAX 16

/* One designation descriptor of VPD page 83h with association 0 (the LU itself), SPC-4 7.8.6. */
typedef struct {
  guint8 type;     /* 8 SCSI name string, 3 NAA, 2 EUI-64, 10 UUID, 1 T10 vendor ID, 0 vendor specific */
  guint8 code_set; /* 1 binary, 2 ASCII, 3 UTF-8 */
  guint8 length;
  guint8 bytes[HF_DESIGNATOR_MAX];
} HfDesignator;

/* Who an LU is. Plain data: copy it with =, nothing to free. */
typedef struct {
  guint n_designators;
  HfDesignator
      designators[HF_DESIGNATORS_MAX]; /* the strongest first: NAA, EUI-64, UUID, SCSI name, T10 vendor ID, vendor specific */
  char serial[HF_DESIGNATOR_MAX + 1];  /* VPD page 80h, blanks cut off, UTF-8; "" if not asked for or not there */
} HfLuIdentity;

/* TRUE if both are the same LU: of the strongest designator type that both have, one designator is equal. With no designator type
   in common two equal, non-empty serial numbers count. */
HF_PUBLIC gboolean hf_lu_identity_equal (const HfLuIdentity *a, const HfLuIdentity *b);

/* "naa.6001405...", "eui...", "uuid...", "t10...", "name..." after the strongest designator; "serial..." without one. Printable
   ASCII whatever the LU sent. Free with g_free. */
HF_PUBLIC char *hf_lu_identity_to_string (const HfLuIdentity *identity);

/* Decode VPD pages 83h and 80h of length bytes, header included, into ret. FALSE with HF_SCSI_ERROR_ANSWER if it is malformed, or
   HF_SCSI_ERROR_IDENTITY if page 83h has no designator of the LU. ret_relative_target_port may be NULL; 0 if the page has none.
   Pure: any bytes may be passed. */
HF_PUBLIC gboolean hf_lu_identity_parse_83 (const guint8 *page, gsize length, HfLuIdentity *ret,
                                            guint16 *ret_relative_target_port, GError **error);
HF_PUBLIC gboolean hf_lu_identity_parse_80 (const guint8 *page, gsize length, HfLuIdentity *ret, GError **error);

/* ---- LU ---- */

typedef struct _HfLu HfLu;

/* All members may be 0 or NULL. Strings are copied. */
typedef struct {
  const char *initiator_name; /* iSCSI only; NULL: /etc/iscsi/initiatorname.iscsi, else iqn.2026-11.org.holdfast:HOSTNAME */
  gboolean has_isid;          /* FALSE: derived from the initiator name, so that a rerun has the same nexus */
  guint64 isid;               /* 48 bits, the value behind ",i,0x" in a TransportID */
  guint timeout_ms;           /* 0: HF_SCSI_TIMEOUT_DEFAULT_MS; for open, login and each command */
} HfLuOptions;

/* address: a block or sg node ("/dev/sda", "/dev/sg3", a link to one) or
   iscsi://[user[%password]@]host[:port]/target-iqn/lun . CHAP passwords may also come from LIBISCSI_CHAP_PASSWORD.
   Logs in, sends no SCSI command. A unit attention that the login raised is left for the first command. NULL on error. */
HF_PUBLIC HfLu *hf_lu_open (const char *address, const HfLuOptions *options, GError **error);

/* Logs out and closes. NULL is accepted. */
HF_PUBLIC void hf_lu_free (HfLu *lu);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (HfLu, hf_lu_free)

/* The address without the password. Valid as long as lu. */
HF_PUBLIC const char *hf_lu_get_address (HfLu *lu);

/* Who the LU is: INQUIRY 83h at the first call (and 80h if 83h had nothing), then from memory. Valid as long as lu. NULL on
   error. The first call also completes the relative target port in hf_lu_get_nexus. */
HF_PUBLIC const HfLuIdentity *hf_lu_get_identity (HfLu *lu, GError **error);

/* Our own nexus as far as it is known: iSCSI from name and ISID; SG_IO from sysfs (FC, SAS, kernel iSCSI) and configfs
   (tcm_loop). Never NULL; transport_id.length 0 if unknown. Valid as long as lu. */
HF_PUBLIC const HfNexus *hf_lu_get_nexus (HfLu *lu);

/* The deadline of each command from now on, instead of that of HfLuOptions. 0: HF_SCSI_TIMEOUT_DEFAULT_MS. */
HF_PUBLIC void hf_lu_set_timeout (HfLu *lu, guint timeout_ms);

/* Commands sent since open, INQUIRYs and repetitions included. */
HF_PUBLIC guint hf_lu_get_commands (HfLu *lu);

/* The unit attentions (ASC << 8 | ASCQ) that commands met on this nexus since the last call, each once, at most HF_SCSI_UA_MAX,
   into ret; returns how many. A guest that uses the nexus will not see them any more (SAM-5 5.14). */
HF_PUBLIC guint hf_lu_take_unit_attentions (HfLu *lu, guint16 *ret);

/* How often the link was set up again since open, with the same initiator name and ISID. Some targets take each login for a new
   I_T nexus: a registration made before it may not be ours any more (tgt does, LIO does not). */
HF_PUBLIC guint hf_lu_get_logins (HfLu *lu);

/* Sends command and fills ret_result with the answer. FALSE with HF_SCSI_ERROR_LINK or _TIMEOUT if there is none: the command may
   have been executed. After a lost link the next call logs in again with the same initiator name and ISID. */
HF_PUBLIC gboolean hf_lu_execute (HfLu *lu, const HfScsiCommand *command, HfScsiResult *ret_result, GError **error);

/* A block node of this machine whose LU has the identity, or NULL with HF_SCSI_ERROR_NOT_FOUND. Reads sysfs only: open the node
   and ask hf_lu_get_identity before acting on it. Nodes of one LU are returned as a NULL-terminated array. Free with g_strfreev.
 */
HF_PUBLIC char **hf_lu_find_devices (const HfLuIdentity *identity, GError **error);

G_END_DECLS
