# SPDX-License-Identifier: LGPL-2.1-or-later
"""The program holdfast with --helper, and the metrics, over VMs that hold something: what it prints is what the LU says."""

import json
import os
import subprocess
import time

from harness.tap import check, check_equal

from .cases import Case
from .client import LIMIT
from .helper import build_dir
from .vms import GOOD, IGNORE, K, OTHER, PREEMPT, REGISTER, hosts, seen

CASES = []


def case(name):
    def add(function):
        CASES.append(Case(name, function, None, "ours"))
        return function
    return add


def holdfast(host, *words, code=0):
    """What it says as JSON; the text must go as well."""
    helper = f"--helper={os.path.join(host.folder, 'control.sock')}"
    process = subprocess.run([os.path.join(build_dir(), "holdfast"), words[0], helper, "--json", *words[1:]], capture_output=True,
                             text=True, timeout=LIMIT, check=False)
    check_equal(process.returncode, code, f"exit code of {words} ({process.stdout} {process.stderr})")
    return json.loads(process.stdout)


def status(host, vm):
    """What is listed of a VM; this process is one too."""
    return next(listed for listed in holdfast(host, "status")["vms"] if listed["pid"] == vm.process.pid)


def verdicts(answer):
    return [(unit["verdict"], unit["done"], unit["prepared"], unit["key"], unit["type"]) for unit in answer["units"]]


@case("holdfast --helper: status, save, check, load and reclaim of a VM that holds type 5")
def move_type_5(side):
    with hosts(side, "a", "b") as (a, b):
        source, destination = a.vm(), b.vm()
        source.hold(5)
        listed = status(a, source)
        lu = listed["lus"][0]["lu"]
        check(lu.startswith("naa."), "the LU has its name", listed)
        check_equal(listed["lus"][0]["key"], hex(K), "the key")
        # A first command may meet a unit attention and come again.
        check_equal([answers[GOOD] for answers in listed["counters"]["commands"].values()], [1, 1], "the commands")
        record = os.path.join(a.folder, "record")
        units = holdfast(a, "save", "--vm", source.name, "-o", record)["units"]
        check_equal([(unit["lu"], unit["key"], unit["type"]) for unit in units], [(lu, hex(K), 5)], "the record")
        words = ("--vm", destination.name, "-i", record)
        checked = holdfast(b, "check", *words)
        check_equal([unit[:2] for unit in verdicts(checked)], [("moved", False)], "check")
        check_equal(seen(side), ([K], (K, 5)), "check changed nothing")
        check_equal(verdicts(holdfast(b, "load", *words)), [("moved", False, True, hex(K), 5)], "load prepares")
        check_equal(destination.out(REGISTER, K, K), GOOD, "the VM runs there")
        check_equal(seen(side), ([K], (K, 5)), "taken over")
        check_equal(status(b, destination)["phase"], "idle", "over")
        check_equal(verdicts(holdfast(a, "reclaim", "--vm", source.name))[0][:1], ("moved",), "the source takes it back")
        check_equal(seen(side), ([K], (K, 5)), "one registration, which holds")


@case("holdfast --helper: type 1 is done when load answers, refuse changes nothing")
def move_type_1(side):
    with hosts(side, "a", "b") as (a, b):
        source, destination = a.vm(), b.vm()
        source.hold(1)
        record = os.path.join(a.folder, "record")
        holdfast(a, "save", "--vm", source.name, "-o", record)
        words = ("load", "--vm", destination.name, "-i", record)
        check_equal(verdicts(holdfast(b, *words)), [("moved", True, False, hex(K), 1)], "load")
        check_equal(seen(side), ([K], (K, 1)), "taken over")
        record = os.path.join(a.folder, "second")
        holdfast(b, "save", "--vm", destination.name, "-o", record)
        judge = side.judge()
        fenced = judge.pr_out(IGNORE, 0, OTHER), judge.pr_out(PREEMPT, OTHER, K, 1)
        check_equal([answer.status for answer in fenced], [0, 0], "a third host fences")
        words = ("load", "--vm", source.name, "-i", record)
        answer = holdfast(a, *words, "--on-change", "refuse", code=40)
        check_equal((answer["units"][0]["verdict"], answer["units"][0]["done"]), ("fenced", False), "refused")
        check_equal(holdfast(a, *words, code=41)["units"][0]["verdict"], "fenced", "adopted")
        check_equal(seen(side), ([OTHER], (OTHER, 1)), "fenced stays fenced")


@case("holdfast --helper: release after a move of type 7")
def release_type_7(side):
    with hosts(side, "a", "b") as (a, b):
        source, destination = a.vm(), b.vm()
        source.hold(7)
        record = os.path.join(a.folder, "record")
        holdfast(a, "save", "--vm", source.name, "-o", record)
        check_equal(holdfast(a, "release", "--vm", source.name, code=40)["units"][0]["verdict"], "refused", "too early")
        holdfast(b, "load", "--vm", destination.name, "-i", record)
        check_equal(destination.out(REGISTER, K, K), GOOD, "the VM runs there")
        check_equal(seen(side), ([K, K], (0, 7)), "both hosts are registered")
        check_equal(holdfast(a, "release", "--vm", source.name)["units"][0]["verdict"], "unregistered", "release")
        check_equal(seen(side), ([K], (0, 7)), "the destination's is left")


@case("metrics: what a VM holds and did is in the file")
def metrics(side):
    with hosts(side, "a", options=("--metrics", "{folder}/holdfast.prom")) as (a,):
        vm = a.vm()
        vm.hold(6)
        path = os.path.join(a.folder, "holdfast.prom")
        lu = status(a, vm)["lus"][0]["lu"]
        labels = f'{{wwid="{lu}",vm="{vm.name}"}}'
        wanted = [f"holdfast_pr_registered{labels} 1", f"holdfast_pr_reservation_type{labels} 6",
                  f'holdfast_pr_commands_total{{vm="{vm.name}",sa="RESERVE",status="GOOD"}} 1']
        end = time.monotonic() + LIMIT
        lines = []
        while not set(wanted) <= set(lines):
            check(time.monotonic() < end, "the metrics", *wanted, "not in", *lines)
            time.sleep(0.05)
            with open(path, encoding="utf-8") as file:
                lines = file.read().splitlines()
