# SPDX-License-Identifier: LGPL-2.1-or-later
"""The verdict table and the verbs around the move, on LIO through SG_IO."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from harness import suite, verdicts  # noqa: E402
from harness.target_lio import LoopTarget  # noqa: E402
from harness.world import NEXUSES, World  # noqa: E402


def main(tap, log):
    target = LoopTarget(NEXUSES, n_luns=2, first_disk=20)
    world = World(target, env=log.env)
    verdicts.run(tap, world, target.device("destination", 2))
    tap.case("the hosts end in order, no sanitizer complained", world.close)


if __name__ == "__main__":
    suite.run_program(main)
