# SPDX-License-Identifier: LGPL-2.1-or-later
"""SIGKILL at every point of a move, on LIO through SG_IO: a device node is the same nexus after a crash.

arguments: the reservation types (0 1 5 7)"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from harness import faults, suite  # noqa: E402
from harness.target_lio import LoopTarget  # noqa: E402
from harness.world import NEXUSES, World  # noqa: E402


def main(tap, log):
    types = [int(word) for word in sys.argv[1:]] or [0, 1, 5, 7]
    world = World(LoopTarget(NEXUSES, first_disk=10 + types[0]), env=log.env)
    faults.run_kills(tap, world, log, types)
    tap.case("the hosts end in order, no sanitizer complained", world.close)


if __name__ == "__main__":
    suite.run_program(main)
