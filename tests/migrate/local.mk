# SPDX-License-Identifier: LGPL-2.1-or-later
# Live migration with real QEMU in the lab guest. Not part of make check: it needs a kernel package, other versions of QEMU and
# minutes. scripts/check runs it.
EXTRA_DIST += \
  tests/migrate/run \
  tests/migrate/guest \
  tests/migrate/agent.c \
  tests/migrate/__init__.py \
  tests/migrate/cases.py \
  tests/migrate/failed.py \
  tests/migrate/fenced.py \
  tests/migrate/files.py \
  tests/migrate/killed.py \
  tests/migrate/processes.py \
  tests/migrate/undisturbed.py \
  tests/migrate/versions.py \
  tests/migrate/world.py
