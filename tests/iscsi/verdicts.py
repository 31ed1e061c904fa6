# SPDX-License-Identifier: LGPL-2.1-or-later
"""The verdict table and the verbs around the move, on tgt."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from harness import suite, verdicts  # noqa: E402
from harness.tap import check  # noqa: E402
from harness.target_tgt import TgtTarget  # noqa: E402
from harness.world import World  # noqa: E402


def check_save_asks_for_key(world):
    """tgt has no READ FULL STATUS: our registration cannot be told, and save says that it needs --key."""
    world.set_up(5)
    path = os.path.join(world.folder.name, "no-key")
    reply = world.source.call(f"save -o {path} {world.lu('source')}")
    check(reply["result"] == 1, "save without --key must fail as a usage error", reply)
    check("--key" in str(reply) + world.source.errors(), "the error asks for --key", reply)
    check(not os.path.exists(path), "nothing was written")


def main(tap, log):
    with TgtTarget(2) as target:
        world = World(target, env=log.env)
        verdicts.run(tap, world, target.address(2))
        tap.case("tgt save without --key asks for it", check_save_asks_for_key, world)
        tap.case("the hosts end in order, no sanitizer complained", world.close)


if __name__ == "__main__":
    suite.run_program(main)
