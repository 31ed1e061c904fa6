# SPDX-License-Identifier: LGPL-2.1-or-later
"""holdfast pr beside sg_persist: the same commands on two LUs of the same nexuses, the same exit codes, the same print."""

import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from harness import suite  # noqa: E402
from harness.host import run_once  # noqa: E402
from harness.tap import check_equal  # noqa: E402
from harness.target_lio import LoopTarget  # noqa: E402
from harness.world import NEXUSES  # noqa: E402

# (nexus, holdfast pr ..., sg_persist ...), one after the other; PORT and TID are the witness' target port and TransportID.
STEPS = (
    ("source", "read-keys", "-i -k"),
    ("source", "reserve --key 1 --type 5", "-o -R -K 1 -T 5"),
    ("source", "register --new-key 0xabc", "-o -G -S 0xabc"),
    ("source", "register --new-key 0xabd", "-o -G -S 0xabd"),
    ("source", "register --key 0xabc --new-key 0xabd --aptpl", "-o -G -K 0xabc -S 0xabd -Z"),
    ("destination", "register-ignore --new-key 0x123456789abcdef0", "-o -I -S 0x123456789abcdef0"),
    ("source", "reserve --key abd --type 1", "-o -R -K abd -T 1"),
    ("destination", "reserve --key 123456789abcdef0 --type 1", "-o -R -K 123456789abcdef0 -T 1"),
    ("source", "release --key abd --type 3", "-o -L -K abd -T 3"),
    ("source", "release --key abd --type 1", "-o -L -K abd -T 1"),
    ("source", "reserve --key abd --type 8", "-o -R -K abd -T 8"),
    ("destination", "release --key 123456789abcdef0 --type 8", "-o -L -K 123456789abcdef0 -T 8"),
    ("source", "read-keys", "-i -k"),
    ("source", "read-keys", "-i -k"),
    ("source", "reserve --key abd --type 6", "-o -R -K abd -T 6"),
    ("destination", "preempt --key 123456789abcdef0 --new-key abd --type 3", "-o -P -K 123456789abcdef0 -S abd -T 3"),
    ("source", "read-reservation", "-i -r"),
    ("source", "register --new-key 0", "-o -G -S 0"),
    ("destination", "preempt --key 123456789abcdef0 --new-key 99 --type 3", "-o -P -K 123456789abcdef0 -S 99 -T 3"),
    ("source", "register --new-key 5", "-o -G -S 5"),
    ("source", "clear --key 6", "-o -C -K 6"),
    ("source", "clear --key 5", "-o -C -K 5"),
    ("destination", "report-capabilities", "-i -c"),
    ("destination", "report-capabilities", "-i -c"),
)
READS = (("read-keys", "-i -k"), ("read-reservation", "-i -r"), ("report-capabilities", "-i -c"), ("read-full-status", "-i -s"))


def ours(node, words):
    done = run_once("pr", *words.split(), node)
    return done.returncode, done.stdout, done.stderr


def theirs(node, words):
    done = subprocess.run(["sg_persist", "-n", *words.split(), node], capture_output=True, text=True, timeout=30)
    return done.returncode, done.stdout, done.stderr


def check_same(target, words_ours, words_theirs, name, text):
    """Exit codes, and for reads the print, of LU 1 (holdfast) and LU 2 (sg_persist)."""
    mine, reference = ours(target.device(name, 1), words_ours), theirs(target.device(name, 2), words_theirs)
    check_equal(mine[0], reference[0], f"{text}: exit code of {words_ours} ({mine[2]} | {reference[2]})")
    if words_ours.startswith("read") or words_ours.startswith("report"):
        check_equal(mine[1].splitlines(), reference[1].splitlines(), f"{text}: print of {words_ours}")


def check_steps(target):
    for number, (name, words_ours, words_theirs) in enumerate(STEPS):
        check_same(target, words_ours, words_theirs, name, f"step {number} by {name}")
        for read_ours, read_theirs in READS:
            check_same(target, read_ours, read_theirs, "witness", f"after step {number} ({words_ours})")


def check_move(target):
    """REGISTER AND MOVE, with and without UNREG: both LUs end in the same state."""
    for node in (target.device("source", 1), target.device("source", 2)):
        for words in ("-o -I -S 0xabc", "-o -R -K 0xabc -T 5"):
            check_equal(theirs(node, words)[0], 0, f"sg_persist {words}")
    # The TransportID and the relative target port of the destination, as READ FULL STATUS names them. On both LUs, so that their
    # generations stay equal.
    for lun in (2, 1):
        nexus = target.nexus("destination", lun)
        nexus.drain()
        check_equal(nexus.pr_out(6, new_key=0x99).status, 0, "the destination registers to be seen")
        port, transport_id = [(entry[2], entry[3]) for entry in nexus.full_status() if entry[0] == 0x99][0]
        check_equal(nexus.pr_out(0, key=0x99).status, 0, "the destination unregisters")
        nexus.close()
    address = transport_id[4:12].hex()
    words = f"register-move --key 0xabc --new-key 0xdef --relative-target-port {port:x} --unreg --transport-id sas,{address}"
    mine = ours(target.device("source", 1), words)
    reference = theirs(target.device("source", 2), f"-o -M -K 0xabc -S 0xdef -Q {port:x} -U -X sas,{address}")
    check_equal(mine[0], reference[0], f"exit code ({mine} | {reference})")
    check_equal(mine[0], 0, f"exit code ({mine})")
    for read_ours, read_theirs in READS:
        check_same(target, read_ours, read_theirs, "witness", "after REGISTER AND MOVE")
    nexus = target.nexus("destination", 1)
    nexus.drain()
    check_equal([(key, holder) for key, holder, _, _ in nexus.full_status()], [(0xDEF, True)], "the destination holds")
    check_equal(nexus.write_block(b"moved").status, 0, "the destination writes")
    nexus.close()


def main(tap, _):
    target = LoopTarget(NEXUSES, n_luns=2, first_disk=30)
    for name in NEXUSES:
        for lun in (1, 2):
            nexus = target.nexus(name, lun)
            nexus.drain()
            nexus.close()
    tap.case(f"{len(STEPS)} commands: exit codes and prints equal sg_persist's", check_steps, target)
    tap.case("REGISTER AND MOVE equals sg_persist's, and moves", check_move, target)


if __name__ == "__main__":
    suite.run_program(main)
