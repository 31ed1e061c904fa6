/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the read commands of `holdfast pr` say, as text in the lines that readers of sg_persist know, and as JSON. Pure; any
 * thread. */

#include "cli/cli.h"

void hf_pr_print_keys (const HfPrKeys *keys, GString *text, JsonObject *object);
void hf_pr_print_reservation (const HfPrReservation *reservation, GString *text, JsonObject *object);
void hf_pr_print_capabilities (const HfPrCapabilities *capabilities, GString *text, JsonObject *object);
void hf_pr_print_full_status (const HfPrFullStatus *status, GString *text, JsonObject *object);
