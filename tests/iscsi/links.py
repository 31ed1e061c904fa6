# SPDX-License-Identifier: LGPL-2.1-or-later
"""Logins, deadlines and links: CHAP, a target that does not answer, a link that is cut in the middle of a move."""

import os
import socket
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from harness import suite  # noqa: E402
from harness.host import STOPPED, run_once  # noqa: E402
from harness.matrix import final_state, undisturbed_verdict  # noqa: E402
from harness.tap import check, check_equal  # noqa: E402
from harness.target_tgt import TgtTarget, free_port  # noqa: E402
from harness.world import K, World  # noqa: E402

PASSWORD = "correct-horse-battery"
TIMEOUT_MS = 1000
# A deadline is kept if the program ends this much after it: the machine may be busy.
GRACE = 2.0
# What a load that has to undo something may take on top of its deadline, which may be the very reason for undoing it.
BACK_OUT = 4.0

TIMED_OUT, UNUSABLE = 33, 15

# (type, point): each costs the deadline and, once something was registered, the time for undoing it.
STALLS = ((0, "before-verify-register#1"), (5, "before-observe#1"), (5, "before-register#1"), (5, "after-register#1"),
          (5, "before-take-over#1"), (5, "after-take-over#1"), (5, "before-verify-take-over#1"), (7, "after-register#1"))


def once(*words):
    """(CompletedProcess, seconds)"""
    start = time.monotonic()
    done = run_once(*words, "--timeout", str(TIMEOUT_MS))
    return done, time.monotonic() - start


def check_chap(target):
    done, _ = once("status", target.address())
    check_equal(done.returncode, 0, f"status with the right password ({done.stderr})")
    check(PASSWORD not in done.stdout + done.stderr, "the password is not printed")


def check_chap_environment(target):
    url = target.address().replace("%" + PASSWORD, "")
    done = run_once("status", url, env={"LIBISCSI_CHAP_PASSWORD": PASSWORD})
    check_equal(done.returncode, 0, f"status with the password in the environment ({done.stderr})")


def check_chap_wrong(target, url):
    done, seconds = once("--json", "status", url)
    check(done.returncode not in (0, 40, 41, 42, 43), f"status with a bad login gave {done.returncode}", done.stdout, done.stderr)
    check(seconds < TIMEOUT_MS / 1000 + GRACE, f"it took {seconds:.1f} s")
    check("login" in done.stderr.lower(), "the message says that the login failed", done.stderr)
    check("wrong-password" not in done.stdout + done.stderr, "the password is not printed")


def check_silent(verb):
    """Something listens and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(5)
        url = f"iscsi://127.0.0.1:{listener.getsockname()[1]}/iqn.2026-11.org.holdfast.test:silent/1"
        done, seconds = once(*verb, url)
    check_equal(done.returncode, TIMED_OUT, f"exit code ({done.stderr})")
    check(TIMEOUT_MS / 1000 * 0.5 <= seconds < TIMEOUT_MS / 1000 + GRACE, f"it took {seconds:.2f} s of a deadline of {TIMEOUT_MS} ms")


def check_nobody():
    """Nothing listens: an error at once."""
    done, seconds = once("status", f"iscsi://127.0.0.1:{free_port()}/iqn.2026-11.org.holdfast.test:nobody/1")
    check_equal(done.returncode, UNUSABLE, f"exit code ({done.stderr})")
    check(seconds < GRACE, f"it took {seconds:.2f} s")


def check_stalled(target, world):
    """The storage stops answering: the deadline holds, and afterwards the same process goes on."""
    world.set_up(5)
    target.pause()
    start = time.monotonic()
    try:
        reply = world.destination.call(f"status --timeout {TIMEOUT_MS} {world.lu('destination')}")
    finally:
        target.resume()
    seconds = time.monotonic() - start
    check_equal(reply["result"], TIMED_OUT, f"exit code ({reply})")
    check(seconds < TIMEOUT_MS / 1000 + GRACE, f"it took {seconds:.1f} s")
    reply = world.destination.call(f"status {world.lu('destination')}")
    check_equal(reply["result"], 0, f"the next status ({reply})")


def check_stalled_move(target, world, type, step):
    """The storage stops answering before step of a move; the load ends with an error in time and nothing is lost; the next load works."""
    record = world.set_up(type)
    world.destination.send(f"load --timeout {TIMEOUT_MS} -i {record} {world.lu('destination')}", fail=f"{step}=stop")
    check(world.destination.wait() is STOPPED, f"the load stops {step}")
    target.pause()
    world.destination.resume()
    start = time.monotonic()
    try:
        reply = world.destination.receive()
    finally:
        target.resume()
    seconds = time.monotonic() - start
    check(reply["result"] not in (0, 41), "a load without storage is no success", reply)
    check(seconds < TIMEOUT_MS / 1000 + BACK_OUT + GRACE, f"it took {seconds:.1f} s")
    picture = world.third.picture()
    check(K in picture["keys"], "K is visible", picture)
    if type:
        check_equal(picture["reservation"], (0 if type == 7 else K, type), "the reservation")
    reply = world.destination.call(f"load -i {record} {world.lu('destination')}")
    world.check_verdict(reply, [undisturbed_verdict(type), "unchanged"])
    state = final_state(type, third=True)
    keys = world.third.keys()[1]
    state.dead = [K] * (keys.count(K) - state.keys().count(K))
    check(len(state.dead) <= (1 if type in (0, 7) else 0), "registrations of dead nexuses", keys)
    world.check_state(state)



def main(tap, log):
    with TgtTarget(account=("chap-user", PASSWORD)) as target:
        wrong = target.address().replace(PASSWORD, "wrong-password-1")
        tap.case("CHAP, right password", check_chap, target)
        tap.case("CHAP, password from the environment", check_chap_environment, target)
        tap.case("CHAP, wrong password", check_chap_wrong, target, wrong)
        tap.case("CHAP, no password", check_chap_wrong, target, target.address().replace(f"chap-user%{PASSWORD}@", ""))
    for verb in (("status",), ("pr", "read-keys"), ("access",)):
        tap.case(f"a listener that never answers: {' '.join(verb)}", check_silent, verb)
    tap.case("nobody listens", check_nobody)
    with TgtTarget() as target:
        world = World(target, env=log.env)
        tap.case("the storage stalls: status", check_stalled, target, world)
        for type, step in STALLS:
            tap.case(f"the storage stalls {step}, type {type}", check_stalled_move, target, world, type, step)
        tap.case("the hosts end in order, no sanitizer complained", world.close)


if __name__ == "__main__":
    suite.run_program(main)
