/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* libholdfast: SCSI persistent reservations that follow a virtual machine. Everything a program needs is behind this header. */

#include <holdfast/io.h>
#include <holdfast/move.h>
#include <holdfast/pr.h>
#include <holdfast/record.h>
#include <holdfast/scsi.h>
