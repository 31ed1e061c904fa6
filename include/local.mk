# SPDX-License-Identifier: LGPL-2.1-or-later
holdfastincludedir = $(includedir)/holdfast
holdfastinclude_HEADERS = \
  include/holdfast/holdfast.h \
  include/holdfast/scsi.h \
  include/holdfast/io.h \
  include/holdfast/pr.h \
  include/holdfast/record.h \
  include/holdfast/move.h
