# SPDX-License-Identifier: LGPL-2.1-or-later
# The move on LIO in the lab guest (scripts/lab). Not part of make check: it needs a kernel package and minutes. scripts/check runs it.
EXTRA_DIST += \
  tests/lab/run \
  tests/lab/guest \
  tests/lab/flags.py \
  tests/lab/injections.py \
  tests/lab/iscsi.py \
  tests/lab/kills.py \
  tests/lab/limits.py \
  tests/lab/matrix.py \
  tests/lab/sgpersist.py \
  tests/lab/verdicts.py
