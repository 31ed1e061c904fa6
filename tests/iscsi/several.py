# SPDX-License-Identifier: LGPL-2.1-or-later
"""Several LUs in one record: none is committed before every one is prepared and accepted; LUs go in parallel."""

import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from harness import suite  # noqa: E402
from harness.host import STOPPED, Host  # noqa: E402
from harness.tap import check, check_equal  # noqa: E402
from harness.target_tgt import TgtTarget  # noqa: E402
from harness.world import K, K2, KX  # noqa: E402

N = 8
TYPES = (5, 1, 7, 3, 6, 8, 5, 5)


class Bench:
    """One source and one destination process, both with all LUs open; a third party on each LU."""

    def __init__(self, target, folder, env):
        self.target, self.folder = target, folder
        self.source = Host("source", target.host_options("source"), env=env)
        self.destination = Host("destination", target.host_options("destination"), env=env)
        self.third = [target.nexus(f"third{lun}", lun) for lun in range(1, N + 1)]
        self.records = 0

    def close(self):
        for nexus in self.third:
            nexus.close()
        self.source.close()
        self.destination.close()

    def lus(self, n):
        return " ".join(self.target.address(lun) for lun in range(1, n + 1))

    def set_up(self, n, types=TYPES):
        for index in range(n):
            self.third[index].wipe(KX)
            check_equal(self.third[index].pr_out(6, new_key=KX).status, 0, "the third party registers")
        self.destination.call(f"status {self.lus(n)}")
        self.source.call(f"status {self.lus(n)}")
        for index in range(n):
            lu = self.target.address(index + 1)
            self.source.must(f"pr register-ignore --new-key {K:#x} {lu}")
            if types[index]:
                self.source.must(f"pr reserve --key {K:#x} --type {types[index]} {lu}")
        self.records += 1
        record = os.path.join(self.folder.name, f"record{self.records}")
        self.source.must(f"save --key {K:#x} -o {record} {self.lus(n)}")
        return record

    def pictures(self, n):
        found = [nexus.picture() for nexus in self.third[:n]]
        return [(picture["keys"], picture["reservation"]) for picture in found]

    def load(self, record, n, extra="", fail=None):
        return self.destination.call(f"load {extra} -i {record} {self.lus(n)}", fail=fail)

    def fence(self, index, type):
        check_equal(self.third[index].pr_out(4, key=KX, new_key=K, type=type).status, 0, "the fencing PREEMPT")

    def check_may_write(self, host, n, expected):
        """expected: for each LU, whether host may write."""
        for index in range(n):
            check_equal(host.access(self.target.address(index + 1))[1], expected[index], f"{host.name} writes LU {index + 1}")


def verdicts(reply):
    check("units" in reply, "the reply has units", reply)
    return [unit["verdict"] for unit in reply["units"]]


def check_all_moved(bench):
    record = bench.set_up(N)
    reply = bench.load(record, N)
    check_equal(verdicts(reply), ["moved"] * N, "verdicts")
    check_equal(reply["result"], 0, "exit code")
    bench.check_may_write(bench.destination, N, [True] * N)
    bench.check_may_write(bench.source, N, [type in (7, 8) for type in TYPES])


def check_one_fenced(bench, index):
    """adopt: the others go, the fenced one stays fenced; refuse: all stay as they were."""
    for policy in ("adopt", "refuse"):
        record = bench.set_up(4)
        bench.fence(index, 5)
        before = bench.pictures(4)
        reply = bench.load(record, 4, f"--on-change={policy}")
        if policy == "refuse":
            check_equal(reply["result"], 40, f"exit code ({reply})")
            check_equal(verdicts(reply)[index], "fenced", "verdict of the fenced LU")
            check_equal(bench.pictures(4), before, "the LUs after a refused load")
            continue
        check_equal(verdicts(reply), ["fenced" if i == index else "moved" for i in range(4)], "verdicts")
        check_equal(reply["result"], 41, "exit code")
        bench.check_may_write(bench.destination, 4, [i != index for i in range(4)])
        check(K not in bench.third[index].keys()[1], "the fenced key is on no nexus")


def check_one_occupied(bench, index):
    record = bench.set_up(4)
    bench.destination.must(f"pr register-ignore --new-key {K2:#x} {bench.target.address(index + 1)}")
    before = bench.pictures(4)
    reply = bench.load(record, 4)
    check_equal(verdicts(reply)[index], "occupied", f"verdict of the occupied LU ({reply})")
    check_equal(reply["result"], 42, "exit code")
    check_equal(bench.pictures(4), before, "none is committed: the LUs after the load")


def check_one_missing(bench):
    """The record has three LUs, load is given two: an error, and nothing moves."""
    record = bench.set_up(3)
    before = bench.pictures(3)
    reply = bench.load(record, 2)
    check(reply["result"] not in (0, 41), "a load that misses an LU is no success", reply)
    check_equal(bench.pictures(3), before, "the LUs after the load")


def check_prepared_before_committed(bench):
    """At the first take-over every LU is prepared: K twice on each. An LU that is fenced there ends fenced, the others moved."""
    n = 4
    record = bench.set_up(n, types=(5, 5, 5, 5))
    bench.destination.send(f"load -i {record} {bench.lus(n)}", fail="before-take-over#1=stop")
    check(bench.destination.wait() is STOPPED, "the load stops before the first take-over")
    try:
        counts = [keys.count(K) for keys, _ in bench.pictures(n)]
        bench.fence(2, 5)
    finally:
        bench.destination.resume()
    reply = bench.destination.receive()
    # LUs go in parallel: another's take-over may be over when the first one stops the process.
    check(counts[2] == 2 and all(count in (1, 2) for count in counts), f"every LU is prepared before one is committed: {counts}", reply)
    check_equal(verdicts(reply), ["moved", "moved", "fenced", "moved"], "verdicts")
    check_equal(reply["result"], 41, "exit code")
    check(K not in bench.third[2].keys()[1], "the fenced key is on no nexus")


def check_prepare_fails_late(bench):
    """The link of one LU is lost for good while it is verified: what the others registered is taken back."""
    n = 3
    record = bench.set_up(n)
    before = bench.pictures(n)
    reply = bench.load(record, n, fail="before-register=conflict")
    check(reply["result"] != 0, "no REGISTER worked", reply)
    check_equal(bench.pictures(n), before, "the LUs after the load")


def check_parallel(bench):
    """Every command takes 30 ms more: eight LUs take hardly longer than one."""
    seconds = []
    for n in (1, N):
        record = bench.set_up(n, types=(5,) * N)
        start = time.monotonic()
        reply = bench.load(record, n, fail="before-command=delay:30")
        seconds.append(time.monotonic() - start)
        check_equal(verdicts(reply), ["moved"] * n, "verdicts")
    check(seconds[1] < 2.5 * seconds[0], f"1 LU: {seconds[0]:.2f} s, {N} LUs: {seconds[1]:.2f} s")


def check_same_nexus_twice(bench):
    """Two addresses that are one I_T nexus (same initiator port, same target port) are not two paths: one is used, and the note says so.
    Two real nexuses of one LU are shown in tests/lab/flags.py: tgt has one target port, and a process one initiator port."""
    one, two = bench.target.address(1), bench.target.address(1).replace("127.0.0.1", "localhost")
    record = bench.set_up(1)
    reply = bench.destination.call(f"load -i {record} {one} {two}")
    check_equal(verdicts(reply), ["moved"], "verdicts")
    check("not used" in (reply["units"][0].get("note") or ""), "the note says that an address is not used", reply)
    check_equal(bench.pictures(1)[0], ([K, KX], (K, 5)), "one registration, which holds")
    bench.check_may_write(bench.destination, 1, [True])
    bench.check_may_write(bench.source, 1, [False])


def main(tap, log):
    import tempfile
    with TgtTarget(N) as target, tempfile.TemporaryDirectory() as name:
        folder = type("Folder", (), {"name": name})
        bench = Bench(target, folder, log.env)
        tap.case(f"{N} LUs move together", check_all_moved, bench)
        for index in (0, 3):
            tap.case(f"LU {index + 1} of 4 is fenced", check_one_fenced, bench, index)
            tap.case(f"LU {index + 1} of 4 is occupied: none is committed", check_one_occupied, bench, index)
        tap.case("an LU of the record is missing: nothing moves", check_one_missing, bench)
        tap.case("all are prepared before one is committed; one is fenced in between", check_prepared_before_committed, bench)
        tap.case("no LU can be registered: all stay as they were", check_prepare_fails_late, bench)
        tap.case("LUs go in parallel", check_parallel, bench)
        tap.case("two addresses of one nexus: one is used", check_same_nexus_twice, bench)
        tap.case("the hosts end in order, no sanitizer complained", bench.close)


if __name__ == "__main__":
    suite.run_program(main)
