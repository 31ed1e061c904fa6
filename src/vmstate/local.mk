# SPDX-License-Identifier: LGPL-2.1-or-later
libholdfast_core_la_SOURCES += src/vmstate/record.c src/vmstate/record-file.c
libholdfast_core_la_SOURCES += src/vmstate/move.c

# What speaks to QEMU: for the helper and the program, not for the library.
noinst_LTLIBRARIES += libholdfast-qemu.la
libholdfast_qemu_la_SOURCES = src/vmstate/qmp.h src/vmstate/vmstate-bus.h
libholdfast_qemu_la_SOURCES += src/vmstate/qmp.c
libholdfast_qemu_la_LIBADD = libholdfast-core.la $(JSON_LIBS) $(GLIB_LIBS)
libholdfast_qemu_la_SOURCES += src/vmstate/vmstate-bus.c
