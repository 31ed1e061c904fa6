# SPDX-License-Identifier: LGPL-2.1-or-later
# The verbs are an archive, so that the unit tests run them without a process; the program adds its main.
noinst_LTLIBRARIES += libholdfast-cli.la
libholdfast_cli_la_SOURCES = \
  src/cli/cli.h \
  src/cli/fail-steps.c \
  src/cli/helper-client.c src/cli/helper-client.h \
  src/cli/helper-verbs.c src/cli/helper-verbs.h \
  src/cli/interrupt.c src/cli/interrupt.h \
  src/cli/lus.c \
  src/cli/options.c \
  src/cli/output-json.c \
  src/cli/output-table.c \
  src/cli/pr-arguments.c src/cli/pr-arguments.h \
  src/cli/pr-print.c src/cli/pr-print.h \
  src/cli/run.c \
  src/cli/stream-compare.c src/cli/stream-compare.h \
  src/cli/stream-progress.c src/cli/stream-progress.h \
  src/cli/stream-reservations.c src/cli/stream-reservations.h \
  src/cli/stream-socket.c src/cli/stream-socket.h \
  src/cli/verb-access.c \
  src/cli/verb-batch.c \
  src/cli/verb-inspect.c \
  src/cli/verb-move.c \
  src/cli/verb-pr.c \
  src/cli/verb-save.c \
  src/cli/verb-status.c \
  src/cli/verb-stream.c src/cli/verb-stream.h \
  src/cli/verb-stream-capture.c \
  src/cli/verb-stream-inspect.c \
  src/cli/verb-stream-replay.c \
  src/cli/verb-stream-verify.c \
  src/cli/block-io.c src/cli/block-io.h \
  src/cli/selftest.c src/cli/selftest.h src/cli/verb-selftest.c \
  src/cli/doctor-nodes.c src/cli/doctor-nodes.h \
  src/cli/doctor-rules.c src/cli/doctor-rules.h src/cli/verb-doctor.c \
  src/cli/verbs.c
libholdfast_cli_la_LIBADD = libholdfast-stream.la libholdfast-qemu.la $(JSON_LIBS) $(GLIB_LIBS)

bin_PROGRAMS += holdfast
holdfast_SOURCES = src/cli/main.c
holdfast_LDADD = libholdfast-cli.la $(GLIB_LIBS)

dist_man_MANS += \
  doc/holdfast.1 doc/holdfast-access.1 doc/holdfast-batch.1 doc/holdfast-doctor.1 doc/holdfast-inspect.1 doc/holdfast-load.1 \
  doc/holdfast-pr.1 doc/holdfast-save.1 doc/holdfast-selftest.1 doc/holdfast-status.1 doc/holdfast-stream.1

# bash-completion looks for a file with the name of the program.
bashcompletiondir = $(datadir)/bash-completion/completions
EXTRA_DIST += src/cli/holdfast.bash-completion
install-data-local:
	$(MKDIR_P) '$(DESTDIR)$(bashcompletiondir)'
	$(INSTALL_DATA) '$(srcdir)/src/cli/holdfast.bash-completion' '$(DESTDIR)$(bashcompletiondir)/holdfast'
uninstall-local:
	rm -f '$(DESTDIR)$(bashcompletiondir)/holdfast'

UNIT_TESTS_CLI = tests/unit/test-cli tests/unit/test-doctor-rules
tests_unit_test_cli_LDADD = libholdfast-cli.la tests/model/libspc-model.la $(JSON_LIBS) $(GLIB_LIBS)
tests_unit_test_doctor_rules_LDADD = libholdfast-cli.la $(JSON_LIBS) $(GLIB_LIBS)
UNIT_TESTS_CLI += tests/unit/test-stream-progress tests/unit/test-stream-reservations tests/unit/test-cli-stream
tests_unit_test_cli_stream_SOURCES = tests/unit/test-cli-stream.c tests/fake/qemu-stream.c tests/fake/qemu-stream.h
tests_unit_test_cli_stream_LDADD = libholdfast-cli.la tests/model/libspc-model.la $(JSON_LIBS) $(GLIB_LIBS)
tests_unit_test_stream_progress_LDADD = libholdfast-cli.la $(GLIB_LIBS)
tests_unit_test_stream_reservations_LDADD = libholdfast-cli.la $(GLIB_LIBS)
check_PROGRAMS += $(UNIT_TESTS_CLI)
# The last one has QEMU, a bus, helpers and the stand-in of tests/protocol.
TESTS += $(UNIT_TESTS_CLI) tests/cli/test-program tests/cli/test-completion tests/cli/test-doctor tests/cli/test-stream
dist_check_SCRIPTS += tests/cli/test-program tests/cli/test-completion tests/cli/test-doctor tests/cli/test-stream

# The example of doc/, with nothing but the public headers and the shared library.
check_PROGRAMS += doc/example
doc_example_SOURCES = doc/example.c
doc_example_CPPFLAGS = -I$(top_srcdir)/include
doc_example_LDADD = libholdfast.la $(GLIB_LIBS)

# --helper, against a scripted server and against the real one.
TESTS += tests/cli/test-helper
dist_check_SCRIPTS += tests/cli/test-helper
