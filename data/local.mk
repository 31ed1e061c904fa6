# SPDX-License-Identifier: LGPL-2.1-or-later
# What the system needs to run the helper: units of systemd and a profile of AppArmor, with the path of the program put in.
unitdir = $(prefix)/lib/systemd/system
apparmordir = $(sysconfdir)/apparmor.d

dist_unit_DATA = data/holdfast-pr-helper.socket
nodist_unit_DATA = data/holdfast-pr-helper.service
nodist_apparmor_DATA = data/usr.bin.holdfast-pr-helper
EXTRA_DIST += data/holdfast-pr-helper.service.in data/usr.bin.holdfast-pr-helper.in
EXTRA_DIST += data/examples/devices.conf.in data/examples/qemu-user.conf.in
CLEANFILES += data/holdfast-pr-helper.service data/usr.bin.holdfast-pr-helper data/examples/devices.conf
CLEANFILES += data/examples/qemu-user.conf

# Drop-ins for the three ways to see the devices of a machine.
examplesdir = $(docdir)/examples
dist_examples_DATA = data/examples/processes.conf
nodist_examples_DATA = data/examples/devices.conf data/examples/qemu-user.conf

dist_check_SCRIPTS += tests/data/test-data
TESTS += tests/data/test-data

FILL_IN = sed 's,@bindir[@],$(bindir),g; s,@docdir[@],$(docdir),g'
data/holdfast-pr-helper.service: data/holdfast-pr-helper.service.in Makefile
	$(AM_V_GEN)$(MKDIR_P) data && $(FILL_IN) '$(srcdir)/data/holdfast-pr-helper.service.in' >$@.tmp && mv $@.tmp $@
data/usr.bin.holdfast-pr-helper: data/usr.bin.holdfast-pr-helper.in Makefile
	$(AM_V_GEN)$(MKDIR_P) data && $(FILL_IN) '$(srcdir)/data/usr.bin.holdfast-pr-helper.in' >$@.tmp && mv $@.tmp $@
data/examples/devices.conf: data/examples/devices.conf.in Makefile
	$(AM_V_GEN)$(MKDIR_P) data/examples && $(FILL_IN) '$(srcdir)/data/examples/devices.conf.in' >$@.tmp && mv $@.tmp $@
data/examples/qemu-user.conf: data/examples/qemu-user.conf.in Makefile
	$(AM_V_GEN)$(MKDIR_P) data/examples && $(FILL_IN) '$(srcdir)/data/examples/qemu-user.conf.in' >$@.tmp && mv $@.tmp $@
