/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Descriptors 0, 1 and 2: nothing but standard input, output and error may have these numbers, because everybody writes there.
 *
 * Thread: main, before any other thread, for hf_descriptors_occupy_standard; any for the other.
 */

#include <glib.h>

/* Call first in main: a standard descriptor that the caller closed is opened in a way that every use of it fails. So no LU, no
   journal and no socket gets its number and then what is printed. FALSE: this could not be done; print nothing and end. */
gboolean hf_descriptors_occupy_standard (void);

/* fd, or, if it is one of the standard numbers, a copy above them; fd is closed then. -1 with errno. For a library in a program
   that closed its standard descriptors. */
int hf_descriptor_above_standard (int fd);
