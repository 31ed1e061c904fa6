/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* TransportIDs as people write them. Pure; any thread. */

#include <holdfast/holdfast.h>

/* "sas,5001405000000000", "fcp,2100...", an iSCSI name with or without ",i,0xISID", or the bytes in hexadecimal, separated by
   commas or blanks and padded with zeros to 24: what sg_persist --transport-id takes for one TransportID. */
gboolean hf_transport_id_parse (const char *text, HfTransportId *ret, GError **error);
