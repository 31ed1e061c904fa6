# SPDX-License-Identifier: LGPL-2.1-or-later
libholdfast_core_la_SOURCES += src/base/file-sync.c src/base/file-sync.h
libholdfast_core_la_SOURCES += \
  src/base/deadline.h \
  src/base/descriptors.c src/base/descriptors.h \
  src/base/fail.c src/base/fail.h \
  src/base/json-check.c src/base/json-check.h \
  src/base/worker.c src/base/worker.h
libholdfast_core_la_SOURCES += src/base/bytes.h
libholdfast_core_la_SOURCES += src/base/line-buffer.c src/base/line-buffer.h
libholdfast_core_la_SOURCES += src/base/parallel.c src/base/parallel.h
