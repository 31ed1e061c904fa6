# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the helper knows of VMs, and does for them: tracking, the shared nexus, the journal, Save and Load, on a target without READ FULL
STATUS. A VM is a process of its own (vm_process.py), a host is a helper with a nexus of its own; Save and Load come over the control
socket. Migrations of real guests are in tests/migrate.
"""

import base64
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time

from harness.host import end_with_parent
from harness.tap import Failure, check, check_equal

from .cases import Case
from .client import LIMIT, parameters, pr_in, pr_out

CASES = []
K, OTHER = 0xABC, 0xDEF
REGISTER, RESERVE, RELEASE, CLEAR, PREEMPT, IGNORE = 0, 1, 2, 3, 4, 6
READ_KEYS, READ_RESERVATION, CAPABILITIES = 0, 1, 2
GOOD, CONFLICT = "GOOD", "CONFLICT"
TYPES = (1, 3, 5, 6, 7, 8)


def case(name):
    def add(function):
        CASES.append(Case(name, function, None, "ours"))
        return function
    return add


class Control:
    """The control socket, one line at a time."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(LIMIT)
        self.socket.connect(path)
        self.file = self.socket.makefile("rw")
        self.greeting = json.loads(self.file.readline())

    def ask(self, method, **params):
        self.file.write(json.dumps({"id": 1, "method": method, "params": params}) + "\n")
        self.file.flush()

    def hear(self):
        return json.loads(self.file.readline())

    def call(self, method, **params):
        self.ask(method, **params)
        return self.hear()

    def must(self, method, **params):
        answer = self.call(method, **params)
        check("error" not in answer, f"{method} {sorted(params)}", answer)
        return answer["result"]

    def close(self):
        self.file.close()
        self.socket.close()


class Vm:
    """A process that is a client of a host's helper, with devices of that host's nexus."""

    def __init__(self, host, lus=(0,)):
        self.process = subprocess.Popen([sys.executable, "-B", os.path.join(os.path.dirname(__file__), "vm_process.py")],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=end_with_parent)
        self.host, self.name = host, f"pid:{self.process.pid}"
        self.obey({"connect": host.helper.path})
        for lu in lus:
            self.obey({"open": host.marker(lu)})

    def tell(self, words):
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()

    def hear(self):
        check(select.select([self.process.stdout], [], [], LIMIT)[0], f"{self.name} answers")
        return json.loads(self.process.stdout.readline())

    def obey(self, words):
        self.tell(words)
        return self.hear()

    def send(self, cdb, data=b"", device=0, connection=0):
        """A command, again after each unit attention: its outcome and its data."""
        for _ in range(16):
            answer = self.obey({"request": [connection, device, cdb.hex(), data.hex()]})
            if answer.get("closed"):
                return "closed", b""
            if answer["status"] != 2 or answer["code"][0] != 6:
                break
        text = {0: GOOD, 0x18: CONFLICT, 8: "BUSY"}.get(answer["status"], str(answer))
        return text, bytes.fromhex(answer["data"])

    def out(self, action, key=0, new_key=0, type=0, **where):
        return self.send(pr_out(action, type), parameters(key, new_key), **where)[0]

    def register(self, key=K, **where):
        return self.out(REGISTER, 0, key, **where)

    def hold(self, type, key=K, **where):
        check_equal(self.register(key, **where), GOOD, "REGISTER")
        check_equal(self.out(RESERVE, key, 0, type, **where), GOOD, "RESERVE")

    def keys(self, **where):
        return self.send(pr_in(READ_KEYS), **where)[0]

    def end(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


class Host:
    """A helper with a nexus and a state directory of its own."""

    def __init__(self, side, folder, name, options=(), **words):
        """words: of its devices' markers."""
        self.side, self.name, self.folder, self.options, self.vms = side, name, os.path.join(folder, name), list(options), []
        self.words = words
        os.mkdir(self.folder)
        self.control = self.helper = None
        self.markers = {}
        self.start()

    def start(self, fail=None):
        """fail: HOLDFAST_FAIL of this life of it."""
        if fail:
            os.environ["HOLDFAST_FAIL"] = fail
        try:
            path = os.path.join(self.folder, "control.sock")
            options = [word.format(folder=self.folder) for word in self.options]
            self.helper = self.side.start(self.folder, "pr", options=["--state-dir", os.path.join(self.folder, "state"), "-v",
                                                                      "--control", path, "--sandbox=off", *options])
        finally:
            os.environ.pop("HOLDFAST_FAIL", None)
        self.control = Control(path)

    def kill(self):
        self.control.close()
        self.helper.kill()

    def again(self, fail=None):
        """Killed, and there again; its VMs connect anew, as QEMU does."""
        self.kill()
        self.start(fail)
        for vm in self.vms:
            if vm.process.poll() is None:
                vm.obey({"connect": self.helper.path})

    def marker(self, lu):
        if lu not in self.markers:
            self.markers[lu] = self.side.marker(lu, nexus=self.name, **self.words)
            os.symlink(self.markers[lu], os.path.join(self.folder, f"lu{lu}"))
        return self.markers[lu]

    def vm(self, lus=(0,)):
        self.vms.append(Vm(self, lus))
        return self.vms[-1]

    def stop(self):
        for vm in self.vms:
            vm.end()
        self.kill()

    def save(self, vm):
        return self.control.must("save", vm=vm.name)["record"]

    def verdicts(self, method, vm, **params):
        return sorted(lu["verdict"] for lu in self.control.must(method, vm=vm.name, **params)["lus"])

    def listed(self, vm):
        """{(key, type, uncertain)} of a VM."""
        for entry in self.control.must("list")["vms"]:
            if entry["pid"] == vm.process.pid:
                return entry["phase"], sorted((int(lu["key"], 16), lu["type"], lu["uncertain"]) for lu in entry["lus"])
        return None, []

    def wait_for(self, vm, wanted, text):
        """Until the VM is listed so; None: not any more."""
        end = time.monotonic() + LIMIT
        while (seen := self.listed(vm)[0]) != wanted:
            check(time.monotonic() < end, text, f"phase {seen}, wanted {wanted}", self.helper.errors()[-1500:])
            select.select([], [], [], 0.02)


@contextlib.contextmanager
def hosts(side, *names, options=(), lus=(0,)):
    for lu in lus:
        side.judge(lu).wipe()
    with tempfile.TemporaryDirectory(prefix="holdfast-vms-") as folder:
        os.chmod(folder, 0o755)
        made = []
        try:
            for name in names:
                made.append(Host(side, folder, name, options))
            yield made
        except Exception as trouble:
            logs = "".join(f"\n--- {host.name}, its helper (status {host.helper.process.poll()}):\n{host.helper.errors()}"
                           for host in made)
            raise Failure(f"{trouble!r}{logs}") from trouble
        finally:
            for host in made:
                host.stop()
            for lu in lus:
                side.judge(lu).wipe()


def seen(side, lu=0):
    """What an initiator of its own sees: the keys, and the holder's key and type."""
    judge = side.judge(lu)
    reservation = judge.reservation()
    return judge.keys()[1], reservation


def reservation_of(type, key=K):
    return (0 if type in (7, 8) else key, type)


# ---- what is held ----

@case("vm: what it registers, reserves and gives up is what it is listed with")
def tracked(side):
    with hosts(side, "a") as (a,):
        vm = a.vm()
        check_equal(a.listed(vm), ("idle", []), "a VM that sent nothing")
        vm.hold(5)
        check_equal(a.listed(vm), ("idle", [(K, 5, False)]), "after REGISTER and RESERVE")
        check_equal(vm.out(RESERVE, OTHER, 0, 1), CONFLICT, "RESERVE of another type")
        check_equal(a.listed(vm), ("idle", [(K, 5, False)]), "after a conflict")
        check_equal(vm.out(REGISTER, K, 0), GOOD, "unregister")
        check_equal(a.listed(vm), ("idle", []), "after unregistering")


@case("shared nexus: a second VM's REGISTER conflicts, on the LU where another is registered, and nowhere else")
def shared_nexus(side):
    with hosts(side, "a", lus=(0, 1)) as (a,):
        first, second = a.vm((0, 1)), a.vm((0, 1))
        first.hold(5)
        for action in (REGISTER, IGNORE):
            check_equal(second.out(action, 0, OTHER), CONFLICT, f"service action {action} of the second VM")
        check_equal(seen(side), ([K], (K, 5)), "the LU")
        check_equal(second.register(OTHER, device=1), GOOD, "on another LU")
        check("RESERVATION CONFLICT" in a.helper.errors() and first.name in a.helper.errors(), "the log names the other VM")
        check_equal(first.out(REGISTER, K, 0), GOOD, "the first unregisters")
        check_equal(second.register(OTHER), GOOD, "and then the second registers")


@case("shared nexus: a VM's own second connection is no second VM")
def second_path(side):
    with hosts(side, "a") as (a,):
        vm = a.vm()
        vm.hold(5)
        vm.obey({"connect": a.helper.path})
        check_equal(vm.out(IGNORE, 0, OTHER, connection=1), GOOD, "REGISTER AND IGNORE on its second connection")
        check_equal(a.listed(vm)[1], [(OTHER, 5, False)], "what it is listed with")


@case("shared nexus: --shared-nexus=allow leaves it to the device")
def shared_allowed(side):
    with hosts(side, "a", options=["--shared-nexus=allow"]) as (a,):
        first, second = a.vm(), a.vm()
        first.hold(5)
        check_equal(second.out(IGNORE, 0, OTHER), GOOD, "REGISTER AND IGNORE of the second VM")


@case("shared nexus: a VM that has ended is none")
def rival_ended(side):
    with hosts(side, "a") as (a,):
        first, second = a.vm(), a.vm()
        first.hold(5)
        first.end()
        a.wait_for(first, None, "the VM that ended is forgotten")
        check_equal(second.out(IGNORE, 0, OTHER), GOOD, "REGISTER AND IGNORE of the second VM")


@case("REPORT CAPABILITIES: whole without --vmstate-bus, SIP_C hidden with it")
def capabilities(side):
    with hosts(side, "a") as (a,):
        plain = a.vm().send(pr_in(CAPABILITIES))[1]
        a.options += ["--vmstate-bus", f"unix:path={a.folder}/nobody"]
        a.again()
        masked = a.vm().send(pr_in(CAPABILITIES))[1]
    check_equal(masked, plain[:2] + bytes([plain[2] & ~0x08]) + plain[3:], "the data")


# ---- the journal ----

@case("journal: after SIGKILL the VM is known, its record is the same, and the second VM is still refused")
def restart(side):
    with hosts(side, "a") as (a,):
        vm, second = a.vm(), a.vm()
        vm.hold(6)
        a.again()
        check_equal(a.listed(vm), ("idle", [(K, 6, True)]), "what it is listed with")
        check_equal(second.out(IGNORE, 0, OTHER, connection=1), CONFLICT, "REGISTER AND IGNORE of another VM")
        a.save(vm)
        check_equal(a.listed(vm), ("saved", [(K, 6, False)]), "after a Save, which reads the LU")


def check_killed_in_register(side, point):
    with hosts(side, "a", "b") as (a, b):
        a.again(fail=f"{point}=kill")
        vm = a.vm()
        outcome = vm.register()
        check_equal(a.helper.wait(), -signal.SIGKILL, f"the helper at {point} (REGISTER: {outcome})")
        a.again()
        there = K in side.judge().keys()[1]
        record, other = a.save(vm), b.vm()
        verdicts = b.verdicts("load", other, record=record)
        # An LU without a key may stand in the record or not.
        check(verdicts == ["registered"] if there else verdicts in ([], ["none"]), f"the verdict (registered: {there})", verdicts)
        return there


@case("journal: killed before it has the key, before it replaces the file, after the command: nothing is forgotten")
def killed_in_register(side):
    outcomes = {point: check_killed_in_register(side, point)
                for point in ("before-store-write#1", "after-store-write#1", "after-guest-out#1", "before-store-write#2",
                              "after-store-write#2", "before-store-sync#1", "after-store-sync#1")}
    check_equal(sorted(set(outcomes.values())), [False, True], f"killed before and after the command: {outcomes}")


@case("journal: a REGISTER that conflicted leaves nothing behind that outlives a restart")
def conflict_forgotten(side):
    with hosts(side, "a") as (a,):
        vm, other = a.vm(), a.vm()
        check_equal(vm.out(REGISTER, OTHER, K), CONFLICT, "REGISTER with a wrong key")
        a.again()
        check_equal(a.listed(vm), ("idle", []), "what it is listed with")
        check_equal(other.out(IGNORE, 0, OTHER, connection=1), GOOD, "REGISTER AND IGNORE of another VM")


# ---- Save and Load ----

def check_move(side, type):
    with hosts(side, "a", "b") as (a, b):
        source, destination = a.vm(), b.vm()
        source.hold(type)
        record = a.save(source)
        check_equal(seen(side), ([K], reservation_of(type)), "after Save nothing is given up")
        check_equal(b.verdicts("load", destination, record=record), ["moved"], "Load")
        late = type not in (1, 3)
        check_equal(seen(side), ([K, K] if late else [K], reservation_of(type)), "after Load")
        check_equal(b.listed(destination)[0], "prepared", "the destination's phase")
        check_equal(destination.out(REGISTER, K, K), GOOD, "the destination's first command")
        source.end()
        a.wait_for(source, None, "the source's leftovers go")
        check_equal(seen(side), ([K], reservation_of(type)), "at the end")
        check_equal(destination.out(RELEASE, K, 0, type), GOOD, "RELEASE by the destination")
        check_equal(seen(side), ([K], None), "after RELEASE")


for _type in TYPES:
    case(f"move, type {_type}: prepared or committed inside Load, committed by the first command, nothing is left behind")(
        lambda side, type=_type: check_move(side, type))


@case("move, no reservation: the registration follows")
def move_registered(side):
    with hosts(side, "a", "b") as (a, b):
        source, destination = a.vm(), b.vm()
        check_equal(source.register(), GOOD, "REGISTER")
        record = a.save(source)
        check_equal(b.verdicts("load", destination, record=record), ["registered"], "Load")
        check_equal(seen(side), ([K, K], None), "after Load")
        source.end()
        a.wait_for(source, None, "the source's leftovers go")
        check_equal(seen(side), ([K], None), "at the end")


@case("move: a VM that holds nothing has a valid empty record")
def move_nothing(side):
    with hosts(side, "a", "b") as (a, b):
        record = a.save(a.vm())
        check_equal(base64.b64decode(record)[:8], b"HOLDFAST", "the record's magic")
        check("no PERSISTENT RESERVE command of this VM was seen" in a.helper.errors(), "the log says why it is empty")
        check_equal(b.verdicts("load", b.vm(), record=record), [], "Load")


@case("move: two LUs, one that commits inside Load and one that waits")
def move_two(side):
    with hosts(side, "a", "b", lus=(0, 1)) as (a, b):
        source, destination = a.vm((0, 1)), b.vm((1, 0))
        source.hold(1)
        source.hold(5, device=1)
        record = a.save(source)
        check_equal(b.verdicts("load", destination, record=record), ["moved", "moved"], "Load")
        check_equal((seen(side, 0), seen(side, 1)), (([K], (K, 1)), ([K, K], (K, 5))), "after Load")
        check_equal(destination.out(REGISTER, K, K), GOOD, "a command to the LU that waits")
        check_equal(seen(side, 1), ([K], (K, 5)), "committed by it")


@case("move: an LU that the destination does not have is an error, and nothing is changed")
def move_missing(side):
    with hosts(side, "a", "b", lus=(0, 1)) as (a, b):
        source, destination = a.vm((0, 1)), b.vm((0,))
        source.hold(5)
        source.hold(1, device=1)
        record = a.save(source)
        answer = b.control.call("load", vm=destination.name, record=record)
        check("error" in answer and "naa." in str(answer), "an error that names the LU", answer)
        check_equal((seen(side, 0), seen(side, 1)), (([K], (K, 5)), ([K], (K, 1))), "the LUs")


@case("move: --on-change=refuse leaves everything as it was, adopt follows the LU")
def move_released(side):
    with hosts(side, "a", "b") as (a, b):
        source, destination = a.vm(), b.vm()
        source.hold(5)
        record = a.save(source)
        judge = side.judge()
        fenced = judge.pr_out(REGISTER, 0, OTHER), judge.pr_out(PREEMPT, OTHER, K, 5)
        check_equal([answer.status for answer in fenced], [0, 0], "a third host fences")
        answer = b.control.call("load", vm=destination.name, record=record, on_change="refuse")
        check("error" in answer, "refused", answer)
        check_equal(b.verdicts("load", destination, record=record), ["fenced"], "adopt")
        check_equal(seen(side), ([OTHER], (OTHER, 5)), "fenced stays fenced")


@case("abort: the destination ends before it ran: one unregister, and the source never noticed")
def abort(side):
    for type in (5, 6):
        with hosts(side, "a", "b") as (a, b):
            source, destination = a.vm(), b.vm()
            source.hold(type)
            record = a.save(source)
            b.verdicts("load", destination, record=record)
            destination.end()
            b.wait_for(destination, None, "the destination is forgotten")
            check_equal(seen(side), ([K], (K, type)), f"type {type}, at the end")
            check_equal(source.out(REGISTER, K, K), GOOD, "the source's next command")


@case("reclaim: types 1 and 3, at the VM's next command")
def reclaim(side):
    for type in (1, 3):
        with hosts(side, "a", "b") as (a, b):
            source, destination = a.vm(), b.vm()
            source.hold(type)
            record = a.save(source)
            b.verdicts("load", destination, record=record)
            destination.end()
            b.wait_for(destination, None, "the destination is forgotten")
            check_equal(source.out(REGISTER, K, K), GOOD, f"type {type}, the source's next command")
            check_equal(seen(side), ([K], (K, type)), "at the end")
            check_equal(source.out(RELEASE, K, 0, type), GOOD, "RELEASE by the source")
            check_equal(seen(side), ([K], None), "after RELEASE")


@case("QEMU 11: REGISTER, PREEMPT and REGISTER after our Load are answered from what is true, and not sent")
def qemu_11(side):
    for type in (1, 5, 7):
        with hosts(side, "a", "b") as (a, b):
            source, destination = a.vm(), b.vm()
            source.hold(type)
            record = a.save(source)
            b.verdicts("load", destination, record=record)
            before = seen(side), len(side.commands(("5f",)))
            check_equal(destination.send(pr_in(READ_RESERVATION, 24))[0], GOOD, "READ RESERVATION")
            check_equal(destination.send(pr_in(READ_KEYS, 136))[0], GOOD, "READ KEYS")
            check_equal(destination.register(), GOOD, "REGISTER")
            check_equal(destination.out(PREEMPT, K, K, type), GOOD, "PREEMPT")
            check_equal(destination.register(), GOOD, "REGISTER again")
            check_equal((seen(side), len(side.commands(("5f",)))), before, f"type {type}: the LU, and the commands sent to it")


@case("QEMU 11: the roll-back on a source that lost the reservation finds it reclaimed")
def qemu_11_source(side):
    with hosts(side, "a", "b") as (a, b):
        source, destination = a.vm(), b.vm()
        source.hold(1)
        record = a.save(source)
        b.verdicts("load", destination, record=record)
        destination.end()
        b.wait_for(destination, None, "the destination is forgotten")
        for outcome in (source.register(), source.out(PREEMPT, K, K, 1), source.register()):
            check_equal(outcome, GOOD, "QEMU's own commands")
        check_equal(seen(side), ([K], (K, 1)), "at the end")


@case("CLEANUP: the source's leftovers go, and the destination keeps what it has")
def cleanup(side):
    with hosts(side, "a", "b") as (a, b):
        source, destination = a.vm(), b.vm()
        source.hold(7)
        record = a.save(source)
        b.verdicts("load", destination, record=record)
        check_equal(source.send(bytes([0xFF]).ljust(16, b"\0"))[0], GOOD, "CLEANUP")
        a.wait_for(source, "idle", "the source is settled")
        check_equal(seen(side), ([K], (0, 7)), "the LU")


@case("a Save to a file: quitting changes nothing")
def save_and_quit(side):
    with hosts(side, "a") as (a,):
        source = a.vm()
        source.hold(5)
        a.save(source)
        source.end()
        end = time.monotonic() + LIMIT
        while "refused" not in a.helper.errors() and time.monotonic() < end:
            select.select([], [], [], 0.02)
        check("refused" in a.helper.errors(), "the release was tried and refused", a.helper.errors())
        check_equal(seen(side), ([K], (K, 5)), "the LU")


@case("chain: a Load that waits is committed before the next Save")
def chain(side):
    with hosts(side, "a", "b", "c") as (a, b, c):
        first, second, third = a.vm(), b.vm(), c.vm()
        first.hold(5)
        b.verdicts("load", second, record=a.save(first))
        check_equal(c.verdicts("load", third, record=b.save(second)), ["moved"], "Load on c")
        check_equal(third.out(REGISTER, K, K), GOOD, "the first command on c")
        first.end()
        second.end()
        a.wait_for(first, None, "a is settled")
        b.wait_for(second, None, "b is settled")
        check_equal(seen(side), ([K], (K, 5)), "at the end")


@case("same host: a Load on the same nexus is unchanged, and the end of the source takes nothing away")
def same_host(side):
    with hosts(side, "a") as (a,):
        source, destination = a.vm(), a.vm()
        source.hold(5)
        check_equal(a.verdicts("load", destination, record=a.save(source)), ["unchanged"], "Load")
        source.end()
        a.wait_for(source, None, "the source is settled")
        check_equal(seen(side), ([K], (K, 5)), "the LU")
        check_equal(destination.out(RELEASE, K, 0, 5), GOOD, "RELEASE by the destination")


@case("restart: a Load that waits is committed by the first command after it")
def restart_prepared(side):
    with hosts(side, "a", "b") as (a, b):
        source, destination = a.vm(), b.vm()
        source.hold(5)
        b.verdicts("load", destination, record=a.save(source))
        b.again()
        check_equal(b.listed(destination)[0], "prepared", "the phase after the restart")
        check_equal(destination.out(REGISTER, K, K, connection=1), GOOD, "the first command")
        check_equal(seen(side), ([K], (K, 5)), "the LU")


@case("restart: a Load whose VM ended meanwhile is taken back, through --device")
def restart_ended_load(side):
    with hosts(side, "a", "b", options=["--device", "{folder}/lu*"]) as (a, b):
        source, destination = a.vm(), b.vm()
        source.hold(5)
        b.verdicts("load", destination, record=a.save(source))
        b.helper.kill()
        destination.end()
        b.again()
        b.wait_for(destination, None, "taken back")
        check_equal(seen(side), ([K], (K, 5)), "the LU")


@case("restart: a Save whose VM ended meanwhile is released, through --device")
def restart_ended_save(side):
    with hosts(side, "a", "b", options=["--device", "{folder}/lu*"]) as (a, b):
        source, destination = a.vm(), b.vm()
        source.hold(7)
        b.verdicts("load", destination, record=a.save(source))
        a.helper.kill()
        source.end()
        a.again()
        a.wait_for(source, None, "released")
        check_equal(seen(side), ([K], (0, 7)), "the LU")


@case("restart: a source that lost type 1 reclaims it at its next command after the restart")
def restart_saved(side):
    with hosts(side, "a", "b") as (a, b):
        source, destination = a.vm(), b.vm()
        source.hold(1)
        b.verdicts("load", destination, record=a.save(source))
        a.again()
        destination.end()
        b.wait_for(destination, None, "the destination is forgotten")
        check_equal(source.out(REGISTER, K, K, connection=1), GOOD, "the source's next command")
        check_equal(seen(side), ([K], (K, 1)), "the LU")


@case("unit attention: what our own commands met on the guest's nexus is given to the guest's next command")
def unit_attention(side):
    with hosts(side, "a") as (a,):
        vm = a.vm()
        vm.hold(5)
        judge = side.judge()
        cleared = judge.pr_out(REGISTER, 0, OTHER), judge.pr_out(CLEAR, OTHER)
        check_equal([answer.status for answer in cleared], [0, 0], "a third host clears")
        a.save(vm)
        check("its key is not on the LU any more" in a.helper.errors(), "the log says what happened to the key")
        answers = [vm.obey({"request": [0, 0, pr_in(READ_KEYS).hex(), ""]}) for _ in range(2)]
        check_equal([(answer["status"], answer["code"]) for answer in answers], [(2, [6, 0x2A03]), (0, None)], "the next two commands")
