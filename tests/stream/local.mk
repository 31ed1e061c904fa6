# SPDX-License-Identifier: LGPL-2.1-or-later
# `holdfast stream` with real QEMU and against every fault. Not part of make check: it needs a kernel package, other versions of QEMU
# and minutes. scripts/check runs it.
EXTRA_DIST += \
  tests/stream/run \
  tests/stream/guest.c \
  tests/stream/__init__.py \
  tests/stream/cases_faults.py \
  tests/stream/cases_qemu.py \
  tests/stream/disks.py \
  tests/stream/foreign.py \
  tests/stream/libvirt.py \
  tests/stream/bench.py \
  tests/stream/faults_cut.py \
  tests/stream/faults_flip.py \
  tests/stream/faults_hostile.py \
  tests/stream/faults_kill.py \
  tests/stream/faults_material.py \
  tests/stream/faults_place.py \
  tests/stream/faults_process.py \
  tests/stream/faults_table.py \
  tests/stream/faults_walker.py \
  tests/stream/qevm.py \
  tests/stream/saves.py \
  tests/stream/world.py
