# SPDX-License-Identifier: LGPL-2.1-or-later
libholdfast_core_la_SOURCES += \
  src/scsi/iscsi-address.c src/scsi/iscsi-address.h \
  src/scsi/lu.c \
  src/scsi/lu-find.c src/scsi/lu-find.h \
  src/scsi/lu-identity.c \
  src/scsi/nexus.c \
  src/scsi/nexus-sysfs.c src/scsi/nexus-sysfs.h \
  src/scsi/scsi-result.c \
  src/scsi/scsi-text.c src/scsi/scsi-text.h \
  src/scsi/transport.h \
  src/scsi/transport-hook.c src/scsi/transport-hook.h \
  src/scsi/transport-iscsi.c \
  src/scsi/transport-sgio.c
