# SPDX-License-Identifier: LGPL-2.1-or-later
# The verbs are an archive, so that the unit tests run them without a process; the program adds its main.
noinst_LTLIBRARIES += libholdfast-cli.la
libholdfast_cli_la_SOURCES = \
  src/cli/cli.h \
  src/cli/lus.c \
  src/cli/options.c \
  src/cli/output-json.c \
  src/cli/output-table.c \
  src/cli/pr-arguments.c src/cli/pr-arguments.h \
  src/cli/pr-print.c src/cli/pr-print.h \
  src/cli/run.c \
  src/cli/verb-access.c \
  src/cli/verb-batch.c \
  src/cli/verb-inspect.c \
  src/cli/verb-move.c \
  src/cli/verb-pr.c \
  src/cli/verb-save.c \
  src/cli/verb-status.c \
  src/cli/block-io.c src/cli/block-io.h \
  src/cli/selftest.c src/cli/selftest.h src/cli/verb-selftest.c \
  src/cli/verbs.c
libholdfast_cli_la_LIBADD = libholdfast-core.la $(JSON_LIBS) $(GLIB_LIBS)

bin_PROGRAMS += holdfast
holdfast_SOURCES = src/cli/main.c
holdfast_LDADD = libholdfast-cli.la $(GLIB_LIBS)
