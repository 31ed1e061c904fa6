/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What an iSCSI URL and the options ask for, checked, before anything is sent.
 *
 * Thread: any. hf_iscsi_address_parse reads the environment (LIBISCSI_CHAP_...) and /etc/iscsi/initiatorname.iscsi.
 */

#include <holdfast/scsi.h>

/* SPC-4 and RFC 7143: an iSCSI name has at most 223 bytes. */
#define HF_ISCSI_NAME_MAX 223

typedef struct {
  char *printable; /* the URL without the password */
  char *host;      /* name, IPv4 or IPv6 literal without brackets */
  guint16 port;
  char *target;
  guint16 lun;
  char *user, *password;               /* CHAP; NULL: none */
  char *target_user, *target_password; /* mutual CHAP; NULL: none */
  char *initiator_name;
  guint64 isid; /* 48 bits */
} HfIscsiAddress;

/* Errors: HF_SCSI_ERROR_ADDRESS; no message shows a password. Free with hf_iscsi_address_free. */
HfIscsiAddress *hf_iscsi_address_parse (const char *url, const HfLuOptions *options, GError **error);
void hf_iscsi_address_free (HfIscsiAddress *address);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (HfIscsiAddress, hf_iscsi_address_free)

/* url as it may be shown: without what could be a password. An address that is no URL stays as it is. Free with g_free. Pure. */
char *hf_iscsi_address_without_password (const char *url);

/* A random-format ISID (RFC 7143 11.12.5, type 10b) that depends on the name only. Pure. */
guint64 hf_iscsi_isid_from_name (const char *initiator_name);

/* Types 00b, 01b and 10b with the bits zero that libiscsi cannot set. Pure. */
gboolean hf_iscsi_isid_is_valid (guint64 isid);
