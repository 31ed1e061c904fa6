#!/usr/bin/python3 -B
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What ten thousand commands, a thousand connections and a thousand VMs leave in holdfast-pr-helper; and a shorter course under valgrind.

usage: HOLDFAST_BUILDDIR=BUILD tests/protocol/soak.py growth|valgrind|race

Over the SG_IO stand-in backed by tgt, as tests/protocol/run.

growth: the helper is measured after the first tenth of each course and at its end. What it needs once (threads, the memory of the
allocator's arenas, tables that have grown to their size) is there after a tenth; what it needs for each command, connection or VM and
does not give back is nine times the tenth. Descriptors may not be more at all, threads not more than are kept for the next command.
Memory may have grown by GROWTH_KIB: less than one allocation of 64 bytes for each of the 9,000 commands, or one of 512 bytes for each
of the 900 connections or VMs, would add.

race: eight VMs at a time register, reserve and leave on four LUs, for a helper with the thread sanitizer.

valgrind: no read or write of what is not the helper's, no use of what was never set, nothing lost at the end.
"""

import concurrent.futures
import contextlib
import faulthandler
import os
import re
import shutil
import signal
import sys
import tempfile
import time

FOLDER = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(FOLDER))

from harness import target_tgt  # noqa: E402
from harness.tap import Failure, Tap, check, check_equal  # noqa: E402
from protocol import helper as programs  # noqa: E402
from protocol.client import LIMIT, Client, Closed, Silent, parameters, pr_in, pr_out  # noqa: E402

WATCHDOG = float(os.environ.get("HOLDFAST_SOAK_SECONDS", "170"))
KEY = 0x5EED
COMMANDS, CONNECTIONS, VMS = 10000, 1000, 1000
GROWTH_KIB = 440
# Those that wait for the next command (prhelper/queue.c keeps 16 at most), the main thread, and those of the journal and the buses.
THREADS_MAX = 24
N_LUS = 4


def set_watchdog():
    """When the time is up, and when somebody ends the suite: say where it is, clean up, and fail. If that hangs too, just end."""
    def end(*_):
        faulthandler.dump_traceback()
        raise SystemExit(1)
    signal.signal(signal.SIGALRM, end)
    signal.signal(signal.SIGTERM, end)
    signal.setitimer(signal.ITIMER_REAL, WATCHDOG)
    faulthandler.dump_traceback_later(WATCHDOG + 20, exit=True)


# ---- what a VM does ----


def good(client, fd, cdb, data=b""):
    """GOOD, or a unit attention, which the command then gets once."""
    for _ in range(4):
        reply = client.request(fd, cdb, data)
        if reply.code is None or reply.code[0] != 6:
            break
    check_equal(reply.outcome().split()[0], "GOOD", f"the answer to {cdb[:3].hex()}")
    return reply


def register_and_leave(client, fd, type=5):
    """Four commands that change what the VM holds, and one that reads it."""
    good(client, fd, pr_out(6), parameters(0, KEY))
    good(client, fd, pr_out(1, type), parameters(KEY))
    check(good(client, fd, pr_in(0)).size >= 16, "READ KEYS lists the key")
    good(client, fd, pr_out(2, type), parameters(KEY))
    good(client, fd, pr_out(0), parameters(KEY, 0))


def as_process(function):
    """Runs it in a process of its own, which is another VM. Its end is a failure if function raised."""
    pid = os.fork()
    if pid == 0:
        status = 1
        # Nothing of this process' cleaning up is the child's: it ends here whatever happens.
        with contextlib.suppress(BaseException):
            signal.setitimer(signal.ITIMER_REAL, LIMIT)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            function()
            status = 0
        os._exit(status)
    check_equal(os.waitpid(pid, 0)[1], 0, "how the process of a VM ended")


# ---- growth ----


class Measure:
    """What a helper has, when nothing is on its way."""

    def __init__(self, helper, clients=0):
        # Closing follows the close of a client; a number that stands still is all there is to wait for.
        self.descriptors = self.still(helper.descriptors)
        self.threads = self.still(lambda: len(os.listdir(f"/proc/{helper.pid}/task")))
        self.kib = helper.resident_kib()

    @staticmethod
    def still(count):
        seen, since, end = count(), time.monotonic(), time.monotonic() + LIMIT
        while time.monotonic() - since < 0.3 and time.monotonic() < end:
            time.sleep(0.02)
            if (now := count()) != seen:
                seen, since = now, time.monotonic()
        return seen

    def __str__(self):
        return f"{self.kib} KiB, {self.descriptors} descriptors, {self.threads} threads"


def state_files(state):
    folder = os.path.join(state, "vms")
    return [name for name in os.listdir(folder) if name.endswith(".json")] if os.path.isdir(folder) else []


def course(tap, side, name, count, step, n_files=(0,)):
    """step (helper, i, fds) for each i, by a helper that no other course has used; n_files: VMs that may be in its journal at the end."""
    def body():
        with tempfile.TemporaryDirectory(prefix="soak-", dir=side.folder) as folder, contextlib.ExitStack() as stack:
            state = os.path.join(folder, "state")
            helper = side.start(folder, options=("--state-dir", state))
            stack.callback(helper.kill)
            fds = [stack.enter_context(side.lu(lu)) for lu in range(N_LUS)]
            for lu in range(N_LUS):
                side.fresh(lu)
            for i in range(count // 10):
                step(helper, i, fds)
            first = Measure(helper)
            for i in range(count // 10, count):
                step(helper, i, fds)
            # The files of VMs that are gone go too; that is on its way for a moment.
            end = time.monotonic() + LIMIT
            while len(state_files(state)) not in n_files and time.monotonic() < end:
                time.sleep(0.05)
            last, files = Measure(helper), state_files(state)
            tap.note(f"{name}: {first}; at the end {last}, {len(files)} files")
            seen = (f"after a tenth {first}", f"at the end {last}", helper.errors()[-600:])
            check(helper.alive(), "the helper ended", helper.errors())
            check(last.descriptors <= first.descriptors, "descriptors are left", *seen)
            check(last.threads <= max(first.threads, THREADS_MAX), "threads are left", *seen)
            check(last.kib - first.kib < GROWTH_KIB, f"it grew by {last.kib - first.kib} KiB", *seen)
            check(len(files) in n_files, f"{len(files)} VMs in the journal", *files[:5])
            check_equal(helper.terminate(), 0, "its exit status")
    tap.case(name, body)


def commands_step(side):
    """On one connection, as a guest does that looks after its reservation: one REGISTER in twenty commands, on four LUs."""
    connection = {}

    def step(helper, i, fds):
        if helper not in connection:
            connection.clear()
            connection[helper] = Client(helper.path)
        client, fd = connection[helper], fds[i % N_LUS]
        if i % 20 < N_LUS:
            good(client, fd, pr_out(6), parameters(0, KEY + i // 20 % 2))
        else:
            good(client, fd, pr_in(i % 2))
    return step


def reconnect(helper, i, fds):
    with Client(helper.path) as client:
        good(client, fds[i % N_LUS], pr_in(0))


def reconnect_and_register(helper, i, fds):
    with Client(helper.path) as client:
        register_and_leave(client, fds[i % N_LUS])


def other_vm(helper, i, fds):
    def live():
        with Client(helper.path) as client:
            good(client, fds[i % N_LUS], pr_in(0))
    as_process(live)


def other_vm_that_registers(helper, i, fds):
    def live():
        with Client(helper.path) as client:
            register_and_leave(client, fds[i % N_LUS], type=8)
    as_process(live)


def growth(tap, side):
    course(tap, side, f"{COMMANDS} commands on a connection leave nothing", COMMANDS, commands_step(side), (1,))
    course(tap, side, f"{CONNECTIONS} connections leave nothing", CONNECTIONS, reconnect)
    # This process is the VM that connects itself, and lives: it may be known with nothing in its hands.
    course(tap, side, f"{CONNECTIONS} connections that register, reserve and leave, leave nothing", CONNECTIONS, reconnect_and_register,
           (0, 1))
    course(tap, side, f"{VMS} VMs leave nothing", VMS, other_vm)
    course(tap, side, f"{VMS} VMs that register, reserve and leave, leave nothing", VMS, other_vm_that_registers)


# ---- valgrind ----


WRAPPER = """#!/bin/sh
exec {valgrind} --quiet --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite --show-leak-kinds=definite \\
  --track-fds=no --vgdb=no --num-callers=30 --log-file={log} {program} "$@"
"""


# Valgrind 3.19 does not know pidfd_open (434), says so in five lines, and answers ENOSYS.
IGNORED = re.compile(r"--\d+-- (WARNING: unhandled \S+ syscall: 434$|You may be able to|Read the file README_MISSING|"
                     r"Nevertheless we consider|it at http)")


def one_of_everything(side, path):
    """Some hundred commands, good and bad, and connections that end in every state."""
    with contextlib.ExitStack() as stack:
        fds = [stack.enter_context(side.lu(lu)) for lu in range(N_LUS)]
        for i in range(40):
            with Client(path) as client:
                register_and_leave(client, fds[i % N_LUS], type=(1, 3, 5, 6, 7, 8)[i % 6])
                for action in range(4):
                    client.request(fds[i % N_LUS], pr_in(action))
                client.request(fds[i % N_LUS], pr_out(9), parameters(KEY))
        for length in (0, 1, 8, 9000):
            with contextlib.suppress(Closed), Client(path) as client:
                client.send(pr_in(0, length), [fds[0]])
                client.reply()
        for data, with_fds in ((b"\xff" * 16, [fds[0]]), (pr_in(0), []), (pr_in(0), fds), (pr_out(0)[:7], [fds[0]]),
                               (pr_out(0) + bytes(5), [fds[0]]), (b"\xff" + bytes(15), [fds[0]])):
            with contextlib.suppress(Closed, Silent), Client(path) as client:
                client.send(data, with_fds)
                client.shut_write()
                client.reply()
        as_process(lambda: reconnect_and_register(type("Path", (), {"path": path}), 0, fds))


def serve_through_valgrind(side, folder):
    wrapper, log = os.path.join(folder, "program"), os.path.join(folder, "valgrind.log")
    with open(wrapper, "w") as file:
        file.write(WRAPPER.format(valgrind=shutil.which("valgrind"), log=log, program=side.program))
    os.chmod(wrapper, 0o755)
    # Valgrind has system calls of its own.
    options = ("--sandbox=off", "--state-dir", os.path.join(folder, "state"))
    helper = programs.Helper(wrapper, folder, side.broker.path, options=options)
    try:
        check("memcheck" in os.readlink(f"/proc/{helper.pid}/exe"), "valgrind does not run it")
        for lu in range(N_LUS):
            side.fresh(lu)
        one_of_everything(side, helper.path)
        status = helper.terminate(limit=3 * LIMIT)
    finally:
        helper.kill()
    with open(log) as file:
        told = [line for line in file if not IGNORED.match(line)]
    check(status == 0 and not told, f"exit status {status}", "".join(told)[:6000], helper.errors()[-1500:])


def valgrind(tap, side):
    """Twice: what a first start makes and a second one finds are different ways through the code."""
    with tempfile.TemporaryDirectory(prefix="soak-", dir=side.folder) as folder:
        tap.case("valgrind has nothing to say of a first helper", serve_through_valgrind, side, folder)
        tap.case("valgrind has nothing to say of a second one on its journal", serve_through_valgrind, side, folder)


# ---- race ----


def live_in_crowd(path, fds, first):
    """What they do to each other is left to chance: only that each gets its answers is not."""
    for i in range(first, first + 20):
        with Client(path) as client:
            for cdb, data in ((pr_out(6), parameters(0, KEY + first)), (pr_out(1, 5), parameters(KEY + first)), (pr_in(0), b""),
                              (pr_in(3), b""), (pr_out(2, 5), parameters(KEY + first)), (pr_out(0), parameters(KEY + first, 0))):
                client.request(fds[i % N_LUS], cdb, data)


def race(tap, side):
    def body():
        with tempfile.TemporaryDirectory(prefix="soak-", dir=side.folder) as folder, contextlib.ExitStack() as stack:
            helper = side.start(folder, options=("--shared-nexus=allow", "--state-dir", os.path.join(folder, "state")))
            stack.callback(helper.kill)
            fds = [stack.enter_context(side.lu(lu)) for lu in range(N_LUS)]
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                for vm in [pool.submit(as_process, lambda n=n: live_in_crowd(helper.path, fds, n)) for n in range(16)]:
                    try:
                        vm.result()
                    except Failure as failure:
                        raise Failure(f"{failure}\n{helper.errors()}") from failure
            check_equal(helper.terminate(), 0, f"its exit status, {helper.errors()}")
    tap.case("eight VMs at a time, without a race", body)


# ---- main ----


def main():
    tap = Tap()
    course_of = {"growth": growth, "valgrind": valgrind, "race": race}
    if len(sys.argv) != 2 or sys.argv[1] not in course_of:
        raise SystemExit(__doc__)
    trouble = [reason for reason in (target_tgt.available(), *programs.missing()) if reason]
    if sys.argv[1] == "valgrind" and not shutil.which("valgrind"):
        trouble.append("valgrind is not there: install the Debian package valgrind")
    for text in trouble:
        tap.ok(text, False)
    if trouble:
        return tap.finish()
    set_watchdog()
    with tempfile.TemporaryDirectory(prefix="holdfast-soak-") as folder, \
            target_tgt.TgtTarget(n_luns=programs.Side.n_luns) as target:
        side = programs.Side("ours", programs.ours(), target, 1, folder)
        try:
            course_of[sys.argv[1]](tap, side)
        finally:
            side.stop()
    return tap.finish()


if __name__ == "__main__":
    sys.exit(main())
