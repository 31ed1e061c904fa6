# SPDX-License-Identifier: LGPL-2.1-or-later
# The move on a real iSCSI target. Skipped by make check where tgt is not installed; scripts/check installs it.
TESTS += tests/iscsi/run
EXTRA_DIST += \
  tests/iscsi/run \
  tests/iscsi/commands.py \
  tests/iscsi/injections.py \
  tests/iscsi/kills.py \
  tests/iscsi/limits.py \
  tests/iscsi/links.py \
  tests/iscsi/matrix.py \
  tests/iscsi/several.py \
  tests/iscsi/verdicts.py
# What the suites on real targets share, here and in tests/lab.
EXTRA_DIST += \
  tests/harness/__init__.py \
  tests/harness/faults.py \
  tests/harness/host.py \
  tests/harness/limits.py \
  tests/harness/matrix.py \
  tests/harness/nexus.py \
  tests/harness/suite.py \
  tests/harness/tap.py \
  tests/harness/target-limits.tsv \
  tests/harness/target_lio.py \
  tests/harness/target_tgt.py \
  tests/harness/verdicts.py \
  tests/harness/world.py
