# SPDX-License-Identifier: LGPL-2.1-or-later
"""What tgt does otherwise than SPC-4: every line of the table, asserted."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from harness import limits, suite  # noqa: E402
from harness.target_tgt import TgtTarget  # noqa: E402


def main(tap, _):
    with TgtTarget() as target:
        limits.run(tap, target, ("tgt",))


if __name__ == "__main__":
    suite.run_program(main)
