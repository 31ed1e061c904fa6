# SPDX-License-Identifier: LGPL-2.1-or-later
EXTRA_DIST += doc/howto-kubevirt.md doc/howto-libvirt.md doc/howto-qemu.md
EXTRA_DIST += doc/control.md
EXTRA_DIST += doc/architecture.md doc/ci.md doc/example.c doc/security.md doc/testing.md

# One page for four verbs that share their words.
install-data-hook:
	cd $(DESTDIR)$(man1dir) && for verb in check release reclaim; do \
	  rm -f holdfast-$$verb.1 && $(LN_S) holdfast-load.1 holdfast-$$verb.1 || exit 1; done

uninstall-hook:
	cd $(DESTDIR)$(man1dir) && rm -f holdfast-check.1 holdfast-release.1 holdfast-reclaim.1
