# SPDX-License-Identifier: LGPL-2.1-or-later
# `holdfast stream` with real QEMU and against every fault. Not part of make check: it needs a kernel package, other versions of QEMU
# and minutes. scripts/check runs it.
EXTRA_DIST += \
  tests/stream/run \
  tests/stream/guest.c \
  tests/stream/__init__.py \
  tests/stream/cases_faults.py \
  tests/stream/cases_qemu.py \
  tests/stream/qevm.py \
  tests/stream/world.py
