# SPDX-License-Identifier: LGPL-2.1-or-later
libholdfast_core_la_SOURCES += src/vmstate/record.c src/vmstate/record-file.c
libholdfast_core_la_SOURCES += src/vmstate/move.c
