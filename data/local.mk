# SPDX-License-Identifier: LGPL-2.1-or-later
# What the system needs to run the helper: units of systemd and a profile of AppArmor, with the path of the program put in.
unitdir = $(prefix)/lib/systemd/system
apparmordir = $(sysconfdir)/apparmor.d

dist_unit_DATA = data/holdfast-pr-helper.socket
nodist_unit_DATA = data/holdfast-pr-helper.service
nodist_apparmor_DATA = data/usr.bin.holdfast-pr-helper
EXTRA_DIST += data/holdfast-pr-helper.service.in data/usr.bin.holdfast-pr-helper.in
CLEANFILES += data/holdfast-pr-helper.service data/usr.bin.holdfast-pr-helper

data/holdfast-pr-helper.service: data/holdfast-pr-helper.service.in Makefile
	$(AM_V_GEN)$(MKDIR_P) data && sed 's,@bindir[@],$(bindir),g' '$(srcdir)/data/holdfast-pr-helper.service.in' >$@.tmp && mv $@.tmp $@
data/usr.bin.holdfast-pr-helper: data/usr.bin.holdfast-pr-helper.in Makefile
	$(AM_V_GEN)$(MKDIR_P) data && sed 's,@bindir[@],$(bindir),g' '$(srcdir)/data/usr.bin.holdfast-pr-helper.in' >$@.tmp && mv $@.tmp $@
