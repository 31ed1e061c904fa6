# SPDX-License-Identifier: LGPL-2.1-or-later
"""holdfast pr: every sub-verb, what it does to the LU and its exit code, which is sg3_utils'."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from harness import suite  # noqa: E402
from harness.host import run_once  # noqa: E402
from harness.tap import check_equal  # noqa: E402
from harness.target_tgt import TgtTarget  # noqa: E402
from harness.world import World  # noqa: E402

# From an empty LU, one after the other: host, words, exit code, keys and reservation afterwards.
STEPS = (
    ("source", "read-keys", 0, [], None),
    ("source", "read-reservation", 0, [], None),
    ("source", "report-capabilities", 0, [], None),
    ("source", "read-full-status", 5, [], None),
    ("source", "reserve --key 1 --type 5", 24, [], None),
    ("source", "register --key 5 --new-key 1", 24, [], None),
    ("source", "register --new-key 1", 0, [1], None),
    ("source", "register --new-key 2", 24, [1], None),
    ("source", "register --param-rk 1 --param-sark 2", 0, [2], None),
    ("source", "register-ignore --new-key 0x3", 0, [3], None),
    ("destination", "register --new-key 4", 0, [3, 4], None),
    ("source", "reserve --key 3 --prout-type 5", 0, [3, 4], (3, 5)),
    ("source", "reserve --key 3 --type 5", 0, [3, 4], (3, 5)),
    ("source", "reserve --key 3 --type 6", 24, [3, 4], (3, 5)),
    ("destination", "reserve --key 4 --type 5", 24, [3, 4], (3, 5)),
    ("source", "release --key 3 --type 5", 0, [3, 4], None),
    ("destination", "reserve --key 4 --type 1", 0, [3, 4], (4, 1)),
    ("source", "preempt --key 3 --new-key 4 --type 3", 0, [3], (3, 3)),
    ("destination", "read-keys", 6, [3], (3, 3)),
    ("destination", "read-keys", 0, [3], (3, 3)),
    ("destination", "clear --key 4", 24, [3], (3, 3)),
    ("source", "preempt --key 3 --new-key 9 --type 3", 24, [3], (3, 3)),
    ("source", "preempt-abort --key 3 --new-key 3 --type 3", 5, [3], (3, 3)),
    ("source", "register --new-key 7 --key 3 --aptpl", 5, [3], (3, 3)),
    ("source", "clear --key 3", 0, [], None),
)

USAGE = ("pr", "pr read-keys", "pr frobnicate LU", "pr reserve --key 1 LU", "pr reserve --key x --type 5 LU", "pr register LU",
         "pr read-keys --key 1 LU", "pr register-move --key 1 --new-key 2 LU", "frobnicate", "save LU", "load LU", "status --timeout 0 LU",
         "status --isid 1234567890123 LU", "load -i FILE --on-change=perhaps LU")


def check_steps(world):
    """Each answer comes back as it is: a unit attention too, because pr stands where sg_persist stood."""
    world.reset()
    world.third.wipe()
    for host in ("source", "destination"):
        world.host(host).call(f"status {world.lu(host)}")
    for number, (host, words, code, keys, reservation) in enumerate(STEPS):
        reply = world.host(host).call(f"pr {words} {world.lu(host)}")
        check_equal(reply["result"], code, f"step {number}: exit code of {host} pr {words} ({reply})")
        picture = world.third.picture()
        check_equal((picture["keys"], picture["reservation"]), (keys, reservation), f"the LU after step {number}: {host} pr {words}")


def check_usage(world, words):
    before = world.third.picture()
    done = run_once(*world.target.host_options("usage"), *words.replace("LU", world.lu("source")).split())
    check_equal(done.returncode, 1, f"exit code ({done.stdout} {done.stderr})")
    check_equal(world.third.picture(), before, "the LU")


def main(tap, log):
    with TgtTarget() as target:
        world = World(target, env=log.env)
        tap.case("pr sub-verbs: effect and exit code", check_steps, world)
        for words in USAGE:
            tap.case(f"usage error: {words}", check_usage, world, words)
        tap.case("the hosts end in order, no sanitizer complained", world.close)


if __name__ == "__main__":
    suite.run_program(main)
