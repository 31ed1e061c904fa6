# SPDX-License-Identifier: LGPL-2.1-or-later
"""Misbehaviour of the LU and of the link at every point of a move, on tgt."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from harness import faults, suite  # noqa: E402
from harness.target_tgt import TgtTarget  # noqa: E402
from harness.world import World  # noqa: E402


def main(tap, log):
    with TgtTarget() as target:
        world = World(target, env=log.env)
        faults.run_injections(tap, world, log, types=(0, 1, 3, 5, 6, 7, 8))
        tap.case("the hosts end in order, no sanitizer complained", world.close)


if __name__ == "__main__":
    suite.run_program(main)
