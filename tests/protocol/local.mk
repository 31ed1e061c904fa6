# SPDX-License-Identifier: LGPL-2.1-or-later
# The pr-helper protocol, byte by byte, against holdfast-pr-helper and qemu-pr-helper. Not part of make check: it needs root, tgt and
# qemu-pr-helper, and nothing of it may be skipped. scripts/check runs it.
#
# The stand-in is loaded into both programs, so it has no sanitizers of its own; -rpath makes libtool build it as a module.
check_LTLIBRARIES += tests/fake/sgio-standin.la
tests_fake_sgio_standin_la_SOURCES = tests/fake/sgio-standin.c tests/fake/sgio-standin.h
tests_fake_sgio_standin_la_CFLAGS = -std=gnu11 -fvisibility=hidden $(WARN_CFLAGS)
tests_fake_sgio_standin_la_LDFLAGS = -module -avoid-version -shared -rpath $(abs_builddir)
tests_fake_sgio_standin_la_LIBADD =

# The same for what tells the thread sanitizer of GLib, and a program that shows that both work.
check_LTLIBRARIES += tests/fake/tsan-glib.la
tests_fake_tsan_glib_la_SOURCES = tests/fake/tsan-glib.c
tests_fake_tsan_glib_la_CFLAGS = -std=gnu11 -fvisibility=hidden $(WARN_CFLAGS) $(GLIB_CFLAGS)
tests_fake_tsan_glib_la_LDFLAGS = -module -avoid-version -shared -rpath $(abs_builddir)
tests_fake_tsan_glib_la_LIBADD = $(GLIB_LIBS)
check_PROGRAMS += tests/fake/racer
tests_fake_racer_SOURCES = tests/fake/racer.c
tests_fake_racer_LDADD = $(GLIB_LIBS)

check_PROGRAMS += tests/fake/sgio-broker
tests_fake_sgio_broker_SOURCES = tests/fake/sgio-broker.c tests/fake/sgio-standin.h
tests_fake_sgio_broker_LDADD = $(ISCSI_LIBS)

EXTRA_DIST += \
  tests/protocol/__init__.py \
  tests/protocol/run \
  tests/protocol/cases.py \
  tests/protocol/client.py \
  tests/protocol/crowd.py \
  tests/protocol/differences.tsv \
  tests/protocol/helper.py \
  tests/protocol/privileges.py \
  tests/protocol/programs.py \
  tests/protocol/soak.py \
  tests/protocol/vm_process.py \
  tests/protocol/vm_regressions.py \
  tests/protocol/vms.py \
  tests/protocol/vms_cli.py

# The client of scripts/bench.
check_PROGRAMS += tests/protocol/load
tests_protocol_load_SOURCES = tests/protocol/load.c
tests_protocol_load_LDADD =
