# SPDX-License-Identifier: LGPL-2.1-or-later
"""Misbehaviour of the LU at every point of a move, on LIO through SG_IO."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from harness import faults, suite  # noqa: E402
from harness.target_lio import LoopTarget  # noqa: E402
from harness.world import NEXUSES, World  # noqa: E402


def main(tap, log):
    world = World(LoopTarget(NEXUSES, first_disk=50), env=log.env)
    faults.run_injections(tap, world, log, types=(0, 3, 5, 8))
    tap.case("the hosts end in order, no sanitizer complained", world.close)


if __name__ == "__main__":
    suite.run_program(main)
