# SPDX-License-Identifier: LGPL-2.1-or-later
"""What LIO does otherwise than SPC-4, and what it cannot do: every line of the table, asserted. Runs last: one line blocks an LU."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from harness import limits, suite  # noqa: E402
from harness.target_lio import LioIscsiTarget, LoopTarget  # noqa: E402


def main(tap, _):
    limits.run(tap, LioIscsiTarget(first_disk=110), ("lio", "lio-iscsi"))
    limits.run(tap, LoopTarget([f"limit-{name}" for name in ("a", "b", "cleaner")], first_disk=120), ("lio", "lio-loop"))


if __name__ == "__main__":
    suite.run_program(main)
