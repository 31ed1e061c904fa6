# SPDX-License-Identifier: LGPL-2.1-or-later
"""The matrix on LIO through SG_IO: four disk nodes of one LU, READ FULL STATUS."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from harness import matrix, suite  # noqa: E402
from harness.target_lio import LoopTarget  # noqa: E402
from harness.world import NEXUSES, World  # noqa: E402


def main(tap, log):
    world = World(LoopTarget(NEXUSES, first_disk=0), env=log.env)
    matrix.run(tap, world)
    tap.case("the hosts end in order, no sanitizer complained", world.close)


if __name__ == "__main__":
    suite.run_program(main)
