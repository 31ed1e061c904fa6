# SPDX-License-Identifier: LGPL-2.1-or-later
# The helper is an archive, so that the unit tests run its parts without a process; the program adds its main.
noinst_LTLIBRARIES += libholdfast-prhelper.la
libholdfast_prhelper_la_SOURCES = \
  src/prhelper/client.c src/prhelper/client.h \
  src/prhelper/listener.c src/prhelper/listener.h \
  src/prhelper/log.c src/prhelper/log.h \
  src/prhelper/loop.c src/prhelper/loop.h \
  src/prhelper/notify.c src/prhelper/notify.h \
  src/prhelper/options.c src/prhelper/options.h \
  src/prhelper/peer.c src/prhelper/peer.h \
  src/prhelper/pidfile.c src/prhelper/pidfile.h \
  src/prhelper/privileges.c src/prhelper/privileges.h \
  src/prhelper/protocol.c src/prhelper/protocol.h \
  src/prhelper/queue.c src/prhelper/queue.h \
  src/prhelper/sandbox.c src/prhelper/sandbox.h \
  src/prhelper/server.c src/prhelper/server.h \
  src/prhelper/sgio.c src/prhelper/sgio.h \
  src/prhelper/threads.c src/prhelper/threads.h \
  src/prhelper/trace.c src/prhelper/trace.h
libholdfast_prhelper_la_SOURCES += src/prhelper/control.h src/prhelper/migrate.h src/prhelper/process.h src/prhelper/store.h
libholdfast_prhelper_la_SOURCES += src/prhelper/vms.h
libholdfast_prhelper_la_SOURCES += src/prhelper/process.c
libholdfast_prhelper_la_SOURCES += src/prhelper/store.c src/prhelper/vm-image.c
libholdfast_prhelper_la_CFLAGS = $(AM_CFLAGS) $(CAPNG_CFLAGS) $(SECCOMP_CFLAGS)
libholdfast_prhelper_la_LIBADD = libholdfast-qemu.la libholdfast-core.la $(JSON_LIBS) $(CAPNG_LIBS) $(SECCOMP_LIBS) $(GLIB_LIBS)

bin_PROGRAMS += holdfast-pr-helper
holdfast_pr_helper_SOURCES = src/prhelper/main.c
holdfast_pr_helper_LDADD = libholdfast-prhelper.la $(GLIB_LIBS)

dist_man_MANS += doc/holdfast-pr-helper.8

UNIT_TESTS_PRHELPER = tests/unit/test-prhelper-options tests/unit/test-prhelper-protocol tests/unit/test-prhelper-server
tests_unit_test_prhelper_options_LDADD = libholdfast-prhelper.la $(GLIB_LIBS)
tests_unit_test_prhelper_protocol_LDADD = libholdfast-prhelper.la $(GLIB_LIBS)
tests_unit_test_prhelper_server_LDADD = libholdfast-prhelper.la $(GLIB_LIBS)
check_PROGRAMS += $(UNIT_TESTS_PRHELPER)
TESTS += $(UNIT_TESTS_PRHELPER)

# Sees processes as different users and capabilities do.
UNIT_TESTS_PRHELPER += tests/unit/test-prhelper-process tests/unit/test-prhelper-sandbox
tests_unit_test_prhelper_sandbox_LDADD = libholdfast-prhelper.la $(GLIB_LIBS)
tests_unit_test_prhelper_process_CFLAGS = $(AM_CFLAGS) $(CAPNG_CFLAGS) $(SECCOMP_CFLAGS)
tests_unit_test_prhelper_process_LDADD = libholdfast-prhelper.la $(CAPNG_LIBS) $(SECCOMP_LIBS) $(GLIB_LIBS)

# The journal is read, damaged and killed.
UNIT_TESTS_PRHELPER += tests/unit/test-prhelper-store
tests_unit_test_prhelper_store_LDADD = libholdfast-prhelper.la $(GLIB_LIBS)

# The VMs.
libholdfast_prhelper_la_SOURCES += \
  src/prhelper/command.c \
  src/prhelper/own-command.c src/prhelper/own-command.h \
  src/prhelper/vm-node.c \
  src/prhelper/vm-operation.c \
  src/prhelper/vm-phase.c \
  src/prhelper/vm-private.h \
  src/prhelper/vms.c

# What is done to a VM's LUs beside its own commands. Tested on the model of an LU.
libholdfast_prhelper_la_SOURCES += src/prhelper/migrate.c src/prhelper/migrate-save.c src/prhelper/migrate-load.c \
  src/prhelper/migrate-private.h
UNIT_TESTS_PRHELPER += tests/unit/test-prhelper-migrate
tests_unit_test_prhelper_migrate_SOURCES = tests/unit/test-prhelper-migrate.c tests/model/move-world.c tests/model/move-world.h
tests_unit_test_prhelper_migrate_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/tests/model
tests_unit_test_prhelper_migrate_LDADD = tests/model/libspc-model.la libholdfast-prhelper.la $(GLIB_LIBS)
libholdfast_prhelper_la_SOURCES += src/prhelper/service.c src/prhelper/service.h

# The doors beside QEMU's socket.
libholdfast_prhelper_la_SOURCES += src/prhelper/links.c src/prhelper/links.h src/prhelper/template.c src/prhelper/template.h \
  src/prhelper/unix-holder.c src/prhelper/unix-holder.h

# The control socket and the metrics. Their tests are over VMs that are only told of; from the archive comes only what is called.
libholdfast_prhelper_la_SOURCES += src/prhelper/control.c src/prhelper/control-line.c src/prhelper/control-line.h
libholdfast_prhelper_la_SOURCES += src/prhelper/vm-control.c src/prhelper/vm-control.h src/prhelper/metrics.c src/prhelper/metrics.h
UNIT_TESTS_PRHELPER += tests/unit/test-prhelper-control tests/unit/test-prhelper-metrics
tests_unit_test_prhelper_control_SOURCES = tests/unit/test-prhelper-control.c tests/fake/fake-vms.c tests/fake/fake-vms.h
tests_unit_test_prhelper_control_LDADD = libholdfast-prhelper.la $(JSON_LIBS) $(GLIB_LIBS)
tests_unit_test_prhelper_metrics_SOURCES = tests/unit/test-prhelper-metrics.c tests/fake/fake-vms.c tests/fake/fake-vms.h
tests_unit_test_prhelper_metrics_LDADD = libholdfast-prhelper.la $(JSON_LIBS) $(GLIB_LIBS)

# Buses and monitors, over real ones; the VMs of the test only note what they are told.
UNIT_TESTS_PRHELPER += tests/unit/test-prhelper-links tests/unit/test-prhelper-template tests/unit/test-prhelper-unix-holder
tests_unit_test_prhelper_links_SOURCES = tests/unit/test-prhelper-links.c $(private_bus)
tests_unit_test_prhelper_links_LDADD = libholdfast-prhelper.la $(JSON_LIBS) $(GLIB_LIBS)
tests_unit_test_prhelper_template_LDADD = libholdfast-prhelper.la $(GLIB_LIBS)
tests_unit_test_prhelper_unix_holder_LDADD = libholdfast-prhelper.la $(GLIB_LIBS)

UNIT_TESTS_PRHELPER += tests/unit/test-prhelper-own-command
tests_unit_test_prhelper_own_command_LDADD = libholdfast-prhelper.la $(GLIB_LIBS)
