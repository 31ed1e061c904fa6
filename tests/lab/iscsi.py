# SPDX-License-Identifier: LGPL-2.1-or-later
"""LIO over iSCSI, one initiator name for each nexus: PREEMPT AND ABORT, READ FULL STATUS with iSCSI TransportIDs, and a link that is
lost and made again without losing the nexus."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from harness import faults, matrix, suite, verdicts  # noqa: E402
from harness.tap import check_equal  # noqa: E402
from harness.target_lio import LioIscsiTarget  # noqa: E402
from harness.world import K, KX, State, World  # noqa: E402


def check_reconnect(world):
    """The link is lost after every command of a status: the host logs in again with the same name and ISID, and still holds."""
    world.set_up(5)
    before = world.third.full_status()
    for point in ("before-command#1", "after-command#1", "before-command#2"):
        world.source.call(f"status {world.lu('source')}", fail=f"{point}=link")
        check_equal(world.source.call(f"status {world.lu('source')}")["result"], 0, f"the status after a link lost {point}")
    check_equal(world.third.full_status(), before, "registrations and their TransportIDs, ISID included")
    world.check_state(State({"source": K, "third": KX}, 5, "source"))


def check_preempt_abort(world):
    """pr preempt-abort works, and its victim is told."""
    world.set_up(5)
    world.destination.must(f"pr register --new-key 0x77 {world.lu('destination')}")
    world.destination.must(f"pr preempt-abort --key 0x77 --new-key {K:#x} --type 3 {world.lu('destination')}")
    told = world.source.pr("read-keys", world.lu("source"))
    check_equal(told["result"], 6, f"the victim's next command ({told})")
    world.check_state(State({"destination": 0x77, "third": KX}, 3, "destination"))


def main(tap, log):
    target = LioIscsiTarget(n_luns=2, first_disk=100)
    world = World(target, env=log.env)
    tap.case("lio-iscsi: reconnect keeps the nexus", check_reconnect, world)
    tap.case("lio-iscsi: pr preempt-abort", check_preempt_abort, world)
    matrix.run(tap, world, types=(0, 1, 5, 7), actions=matrix.ACTIONS_ABORT)
    matrix.run(tap, world, types=(5, 8), actions=("none", "clear", "register"))
    for type in (0, 1, 5, 7):
        tap.case(f"lio-iscsi type {type}: moved, then unchanged", verdicts.check_moved, world, type)
        tap.case(f"lio-iscsi type {type}: reclaim", verdicts.check_reclaim, world, type)
    tap.case("lio-iscsi: ambiguous", verdicts.check_ambiguous, world, 5)
    tap.case("lio-iscsi: record of another LU", verdicts.check_wrong_lu, world, target.device("destination", 2))
    faults.run_injections(tap, world, log, types=(5, 7), answers=())
    tap.case("the hosts end in order, no sanitizer complained", world.close)


if __name__ == "__main__":
    suite.run_program(main)
