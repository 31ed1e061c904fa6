/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Which initiator port an SG_IO command leaves from, as the kernel's sysfs and configfs tell it.
 *
 * Thread: any; reads files only. Unknown is a correct answer, a wrong one is not: a nexus that is taken for another one would let
 * a move unregister what it must not.
 */

#include <holdfast/scsi.h>
#include <sys/types.h>

/* sysfs: "/sys", or a tree made up by a test. block: device is the number of a block node, else of a character node (sg).
   ret->length 0: unknown. */
void hf_nexus_from_sysfs (const char *sysfs, gboolean block, dev_t device, HfTransportId *ret);
