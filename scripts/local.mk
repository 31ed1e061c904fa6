# SPDX-License-Identifier: LGPL-2.1-or-later
EXTRA_DIST += \
  .ci/run .clang-format .editorconfig \
  scripts/bench scripts/bootstrap scripts/check scripts/check-layers scripts/demo scripts/fetch-qemu scripts/install-deps scripts/lab scripts/run scripts/target.sh \
  scripts/suites/lib.sh scripts/suites/demo scripts/suites/distcheck scripts/suites/doc-ci scripts/suites/fuzz \
  scripts/suites/headers scripts/suites/iscsi scripts/suites/lab scripts/suites/layers scripts/suites/migrate scripts/suites/protocol scripts/suites/soak scripts/suites/stream \
  scripts/suites/style scripts/suites/tsan scripts/suites/tsan.supp scripts/suites/unit-clang \
  scripts/suites/unit-gcc-sanitizers scripts/suites/valgrind
