# SPDX-License-Identifier: LGPL-2.1-or-later
"""VMs and their migration where something goes wrong at the worst moment: each case is a rule that was broken once. The LU as an
initiator of its own sees it, and what the helper lists, tell the end.
"""

import contextlib
import itertools
import os
import select
import time

from harness.tap import check, check_equal

from .cases import Case
from .client import LIMIT, parameters, pr_in, pr_out
from .helper import MARKER_SECOND
from .vms import CLEAR, CONFLICT, GOOD, IGNORE, K, OTHER, PREEMPT, READ_KEYS, REGISTER, RELEASE, RESERVE, Control, hosts, \
    reservation_of, seen

CASES = []
# A path that is dead for now, and says so at once (DID_NO_CONNECT).
DEAD = {"host": "1"}
MONITOR = ["--qmp", "{folder}/qmp.sock"]
# One of two LUs conflicts, and to take the other one's registration back meets a dead link: each back-out
# has three tries and two looks, and there is one in the Load and one right behind it.
FAILING_BACK_OUT = ",".join(["before-register#2=conflict", *(f"before-back-out#{n}=link" for n in range(1, 7)),
                             *(f"before-verify-back-out#{n}=link" for n in range(1, 5))])
# Numbers of devices that Side.marker does not give.
second_numbers = itertools.count(5001)


def case(name):
    def add(function):
        CASES.append(Case(name, function, None, "ours"))
        return function
    return add


# ---- what the cases share ----

def wait_until(condition, text, told=lambda: ""):
    end = time.monotonic() + LIMIT
    while not condition():
        check(time.monotonic() < end, text, told())
        select.select([], [], [], 0.02)


def count_logged(host, word):
    with open(host.helper.stderr_path, encoding="utf-8", errors="replace") as file:
        return file.read().count(word)


def wait_for_log(host, word):
    wait_until(lambda: count_logged(host, word), f"\"{word}\" in the log of {host.name}", host.helper.errors)


def disturb(path, **words):
    """What the stand-in does with the commands that follow; none: nothing any more."""
    with open(path, "r+", encoding="ascii") as file:
        kept = [word for word in file.read().split() if word.startswith(("url=", "initiator="))]
        number = os.fstat(file.fileno()).st_mtime_ns
        file.seek(0)
        file.write(" ".join(kept + [f"{name}={value}" for name, value in words.items()]) + "\n")
        file.truncate()
    os.utime(path, ns=(0, number))


def second_node(side, host, lu=0):
    """Another node of the same path, as /dev/sg0 is beside /dev/sda."""
    path = side.marker(lu, nexus=host.name)
    os.utime(path, ns=(0, MARKER_SECOND * 10**9 + next(second_numbers)))
    return path


def restart(host, vm, fail):
    """The helper anew, with failures; its connection is the VM's second one."""
    host.kill()
    host.start(fail)
    vm.obey({"connect": host.helper.path})


def watch(host, vm, status):
    """The VM gets a monitor that the helper (MONITOR) follows."""
    vm.obey({"status": status})
    vm.obey({"qmp": os.path.join(host.folder, "qmp.sock")})
    wait_for_log(host, f"of VM {vm.name}")


def fail_migration(vm):
    check(vm.obey({"event": "MIGRATION", "data": {"status": "failed"}})["told"], "the helper hears MIGRATION")


def prepared(a, b, type):
    """A VM that is saved on a and prepared on b."""
    source, destination = a.vm(), b.vm()
    source.hold(type)
    b.verdicts("load", destination, record=a.save(source))
    return source, destination


def check_refused(answer, text):
    check("error" in answer, text, answer)


def check_source_only(side, b, destination, text, type=5):
    """Nothing is left of the destination; None: it has ended."""
    wanted = "idle" if destination.process.poll() is None else None
    b.wait_for(destination, wanted, text)
    check_equal(b.listed(destination), (wanted, []), f"{text}: what the destination is listed with")
    check_equal(seen(side), ([K], reservation_of(type)), f"{text}: the LU")


def count_threads(host):
    return len(os.listdir(f"/proc/{host.helper.pid}/task"))


# ---- what fails is tried again, and is nothing else then ----

@case("abort: one that failed is tried again as an abort, and is no commit")
def failed_abort(side):
    with hosts(side, "a", "b", options=MONITOR) as (a, b):
        source, destination = a.vm(), b.vm()
        source.hold(5)
        watch(b, destination, "inmigrate")
        b.verdicts("load", destination, record=a.save(source))
        disturb(b.marker(0), **DEAD)
        fail_migration(destination)
        wait_for_log(b, "abort")
        check_equal(seen(side), ([K, K], (K, 5)), "while the path is dead")
        disturb(b.marker(0))
        check_source_only(side, b, destination, "taken back")


@case("abort: a Load that a restart found is taken back although the first try fails")
def failed_abort_of_loading(side):
    with hosts(side, "a", "b") as (a, b):
        source, destination = a.vm(), b.vm()
        source.hold(5)
        record = a.save(source)
        restart(b, destination, "after-register=kill")
        with contextlib.suppress(OSError, ValueError):
            b.control.call("load", vm=destination.name, record=record)
        b.helper.wait()
        check_equal(seen(side), ([K, K], (K, 5)), "killed behind the REGISTER")
        disturb(b.marker(0), all=1, **DEAD)
        b.again()
        wait_for_log(b, "abort")
        check_equal(b.listed(destination)[0], "loading", "the phase after the first try")
        disturb(b.marker(0))
        check_source_only(side, b, destination, "taken back")
        b.save(destination)


@case("abort: after the end of the process it is tried again with the devices that were kept")
def failed_abort_at_end(side):
    with hosts(side, "a", "b") as (a, b):
        destination = prepared(a, b, 5)[1]
        disturb(b.marker(0), **DEAD)
        destination.end()
        wait_for_log(b, "abort")
        disturb(b.marker(0))
        check_source_only(side, b, destination, "taken back")


@case("Load: what could not be taken back at once is taken back later")
def failed_back_out(side):
    with hosts(side, "a", "b", lus=(0, 1)) as (a, b):
        source, destination = a.vm((0, 1)), b.vm((0, 1))
        source.hold(5)
        source.hold(5, device=1)
        record = a.save(source)
        restart(b, destination, FAILING_BACK_OUT)
        answer = b.control.call("load", vm=destination.name, record=record)
        check("error" in answer and "could not be taken back" in str(answer), "one LU conflicts, the other one stays", answer)
        check_source_only(side, b, destination, "taken back")
        check_equal(seen(side, 1), ([K], (K, 5)), "the other LU")


@case("Load: the process that ends in the middle leaves nothing behind")
def ended_in_load(side):
    with hosts(side, "a", "b") as (a, b):
        source, destination = a.vm(), b.vm()
        source.hold(5)
        record = a.save(source)
        disturb(b.marker(0), delay=150)
        b.control.ask("load", vm=destination.name, record=record)
        wait_until(lambda: seen(side)[0] == [K, K], "registered by the Load")
        destination.end()
        b.control.hear()
        check_source_only(side, b, destination, "taken back")


@case("Load: of two at once the second does not spoil what the first prepared")
def two_loads(side):
    for type in (5, 7):
        with hosts(side, "a", "b") as (a, b):
            source, destination = a.vm(), b.vm()
            source.hold(type)
            record = a.save(source)
            disturb(b.marker(0), delay=50)
            second = Control(os.path.join(b.folder, "control.sock"))
            for control in (b.control, second):
                control.ask("load", vm=destination.name, record=record)
            check("error" not in b.control.hear(), "the first Load")
            second.hear()
            second.close()
            disturb(b.marker(0))
            destination.end()
            check_source_only(side, b, destination, f"type {type}, taken back", type)
            check_equal(source.out(RELEASE, K, 0, type), GOOD, "RELEASE by the source")


# ---- the journal ----

@case("journal: a Load that it does not take fails and is taken back, one that was answered outlives a restart")
def load_not_stored(side):
    outcomes = set()
    for n in (1, 2, 3, 4):
        with hosts(side, "a", "b") as (a, b):
            source, destination = a.vm(), b.vm()
            source.hold(5)
            record = a.save(source)
            restart(b, destination, f"before-store-write#{n}=error:ENOSPC")
            answered = "error" not in b.control.call("load", vm=destination.name, record=record)
            outcomes.add(answered)
            if not answered:
                check_source_only(side, b, destination, f"write {n}")
                continue
            b.again()
            check_equal(destination.out(RESERVE, K, 0, 5, connection=2), GOOD, f"write {n}: the first command after a restart")
            check_equal(seen(side), ([K], (K, 5)), f"write {n}: the LU")
    check_equal(outcomes, {False, True}, "a write before the answer and one that is not")


@case("journal: a Save that it does not take fails, and one that was answered is reclaimed after a restart")
def save_not_stored(side):
    outcomes = set()
    for n in (1, 2, 3):
        with hosts(side, "a", "b") as (a, b):
            source, destination = a.vm(), b.vm()
            source.hold(1)
            restart(a, source, f"before-store-write#{n}=error:ENOSPC")
            answer = a.control.call("save", vm=source.name)
            outcomes.add("error" not in answer)
            if "error" in answer:
                check_equal(a.listed(source), ("idle", [(K, 1, False)]), f"write {n}: after the Save")
            else:
                b.verdicts("load", destination, record=answer["result"]["record"])
                destination.end()
                b.wait_for(destination, None, "the destination is forgotten")
                a.again()
            connection = 2 - ("error" in answer)
            check_equal(source.out(REGISTER, K, K, connection=connection), GOOD, f"write {n}: the source's next command")
            check_equal(seen(side), ([K], (K, 1)), f"write {n}: the LU")
    check_equal(outcomes, {False, True}, "a write before the answer and one that is not")


@case("journal: QEMU 11's own commands are answered after a restart as before it")
def own_after_restart(side):
    for type in (1, 5):
        with hosts(side, "a", "b") as (a, b):
            destination = prepared(a, b, type)[1]
            before = seen(side)
            b.again()
            check_equal(destination.register(connection=1), GOOD, f"type {type}, REGISTER")
            check_equal(destination.out(PREEMPT, K, K, type, connection=1), GOOD, f"type {type}, PREEMPT")
            check_equal((b.listed(destination)[0], seen(side)), ("prepared", before), f"type {type}, nothing is proved or changed")


@case("journal: a VM that unregisters after a restart has nothing to save, whoever else is registered")
def unregistered_after_restart(side):
    with hosts(side, "a", "b") as (a, b):
        vm, judge = a.vm(), side.judge()
        check_equal(vm.register(), GOOD, "REGISTER")
        check_equal(judge.pr_out(REGISTER, 0, OTHER).status, 0, "a third host registers")
        a.again()
        check_equal(vm.out(REGISTER, K, 0, connection=1), GOOD, "unregister")
        check_equal(b.verdicts("load", b.vm(), record=a.save(vm)), [], "its record")
        check_equal(seen(side)[0], [OTHER], "the LU")


# ---- the shared nexus ----

@case("shared nexus: where a VM was saved no other VM of its host registers")
def rival_of_saved(side):
    for type in (5, 1):
        with hosts(side, "a", "b") as (a, b):
            source, second = a.vm(), a.vm()
            source.hold(type)
            record = a.save(source)
            for action in (REGISTER, IGNORE):
                check_equal(second.out(action, 0, OTHER), CONFLICT, f"type {type}, service action {action} of the second VM")
            check_equal(b.verdicts("load", b.vm(), record=record), ["moved"], f"type {type}, Load")


@case("shared nexus: where a Load registers no other VM of its host registers meanwhile")
def rival_of_loading(side):
    with hosts(side, "a", "b") as (a, b):
        source, destination, third = a.vm(), b.vm(), b.vm(lus=())
        source.hold(5)
        record = a.save(source)
        third.obey({"open": second_node(side, b)})
        check_equal(third.keys(), GOOD, "READ KEYS of the third VM")
        disturb(b.marker(0), delay=250)
        b.control.ask("load", vm=destination.name, record=record)
        wait_until(lambda: seen(side)[0] == [K, K], "registered by the Load")
        check_equal(third.out(IGNORE, 0, OTHER), CONFLICT, "REGISTER AND IGNORE of the third VM")
        check_equal([lu["verdict"] for lu in b.control.hear()["result"]["lus"]], ["moved"], "Load")
        check_equal(seen(side), ([K, K], (K, 5)), "the LU")


@case("shared nexus: of two VMs that register at the same time through two nodes one has the LU")
def rivals_at_once(side):
    with hosts(side, "a") as (a,):
        first, second = a.vm(), a.vm(lus=())
        node = second_node(side, a)
        second.obey({"open": node})
        for vm in (first, second):
            check_equal(vm.keys(), GOOD, "READ KEYS")
        disturb(a.marker(0), delay=200)
        disturb(node, delay=230)
        for vm, key in ((first, K), (second, OTHER)):
            vm.tell({"request": [0, 0, pr_out(IGNORE, 0).hex(), parameters(0, key).hex()]})
        statuses = [vm.hear()["status"] for vm in (first, second)]
        check_equal(sorted(statuses), [0, 0x18], "one is GOOD, one is RESERVATION CONFLICT")
        winner, loser, key = (first, second, K) if statuses[0] == 0 else (second, first, OTHER)
        check_equal(seen(side)[0], [key], "the LU")
        check_equal((a.listed(winner)[1], a.listed(loser)[1]), ([(key, 0, False)], []), "what they are listed with")


@case("same host: a VM that moved registers anew while the process that it left is still there")
def same_host_anew(side):
    with hosts(side, "a") as (a,):
        source, destination = a.vm(), a.vm()
        source.hold(5)
        a.verdicts("load", destination, record=a.save(source))
        check_equal(destination.out(RESERVE, K, 0, 5), GOOD, "RESERVE")
        check_equal(destination.out(REGISTER, K, 0), GOOD, "unregister")
        check_equal(destination.register(), GOOD, "REGISTER")
        check_equal(a.listed(source), ("idle", []), "the source")
        source.end()
        a.wait_for(source, None, "the source is forgotten")
        check_equal(seen(side), ([K], None), "the LU")
        check_equal(a.listed(destination), ("idle", [(K, 0, False)]), "what the destination is listed with")


# ---- signs ----

@case("monitor: a migration that fails behind a Load that is done takes nothing back")
def outgoing_failed(side):
    with hosts(side, "a", "b", options=MONITOR) as (a, b):
        source, destination = a.vm(), b.vm()
        source.hold(7)
        watch(b, destination, "paused")
        b.verdicts("load", destination, record=a.save(source))
        asked = destination.obey({"asked": True})["asked"]
        fail_migration(destination)
        wait_until(lambda: destination.obey({"asked": True})["asked"] > asked, "the helper asks for the status")
        destination.obey({"status": "running"})
        destination.obey({"event": "RESUME"})
        b.wait_for(destination, "idle", "committed")
        check_equal(b.listed(destination)[1], [(K, 7, False)], "what the destination is listed with")
        source.end()
        a.wait_for(source, None, "the source is settled")
        check_equal(seen(side), ([K], (0, 7)), "the LU")
        check_equal(destination.out(RESERVE, K, 0, 7), GOOD, "RESERVE by the destination")


@case("monitor: a migration that fails while its Save runs is reclaimed behind it")
def failed_in_save(side):
    with hosts(side, "a", options=MONITOR) as (a,):
        source = a.vm()
        source.hold(5)
        watch(a, source, "paused")
        before = len(side.commands(("5e",)))
        disturb(a.marker(0), delay=200)
        a.control.ask("save", vm=source.name)
        wait_until(lambda: len(side.commands(("5e",))) > before, "the Save reads")
        source.obey({"status": "running"})
        fail_migration(source)
        check("result" in a.control.hear(), "the Save is answered")
        disturb(a.marker(0))
        a.wait_for(source, "idle", "reclaimed")
        check_equal(a.listed(source)[1], [(K, 5, False)], "what it is listed with")
        check_equal(seen(side), ([K], (K, 5)), "the LU")


@case("control: release and reclaim of a VM that is prepared are refused, and change nothing")
def wrong_verb(side):
    for type, verb in itertools.product((5, 7), ("release", "reclaim")):
        with hosts(side, "a", "b") as (a, b):
            destination = prepared(a, b, type)[1]
            check_refused(b.control.call(verb, vm=destination.name), f"type {type}, {verb}")
            check_equal(b.listed(destination)[0], "prepared", f"type {type}, {verb}: the phase")
            check_equal(seen(side), ([K, K], reservation_of(type)), f"type {type}, {verb}: the LU")
            check_equal(destination.out(RESERVE, K, 0, type), GOOD, f"type {type}, {verb}: RESERVE")


# ---- what is answered in place of the LU ----

@case("QEMU 11: fenced stays fenced, REGISTER and PREEMPT of the VM's old key conflict")
def own_fenced(side):
    with hosts(side, "a", "b") as (a, b):
        source, destination, judge = a.vm(), b.vm(), side.judge()
        source.hold(5)
        record = a.save(source)
        fenced = judge.pr_out(REGISTER, 0, OTHER), judge.pr_out(PREEMPT, OTHER, K, 5)
        check_equal([answer.status for answer in fenced], [0, 0], "a third host fences")
        check_equal(b.verdicts("load", destination, record=record), ["fenced"], "Load")
        for outcome in (destination.register(), destination.out(PREEMPT, K, K, 5)):
            check_equal(outcome, CONFLICT, "QEMU's own commands")
        check_equal(seen(side), ([OTHER], (OTHER, 5)), "the LU")


@case("QEMU 11: a PREEMPT of another type is the guest's and is sent")
def other_type(side):
    with hosts(side, "a", "b") as (a, b):
        destination = prepared(a, b, 5)[1]
        check_equal(destination.out(PREEMPT, K, K, 1), GOOD, "PREEMPT")
        check_equal(seen(side), ([K], (K, 1)), "the LU")
        b.save(destination)
        check_equal(b.listed(destination), ("saved", [(K, 1, False)]), "what it is listed with after a Save")


def clear_by_another(side):
    judge = side.judge()
    check_equal([judge.pr_out(REGISTER, 0, OTHER).status, judge.pr_out(CLEAR, OTHER).status], [0, 0], "a third host clears")


def check_attention(vm, text):
    answers = [vm.obey({"request": [0, 0, pr_in(READ_KEYS).hex(), ""]}) for _ in range(2)]
    check_equal([answer["code"] for answer in answers], [[6, 0x2A03], None], text)


@case("unit attention: what a check or a Save that fails met is given to the guest's next command")
def attention_kept(side):
    with hosts(side, "a", lus=(0, 1)) as (a,):
        vm = a.vm((0, 1))
        vm.hold(5)
        vm.hold(5, device=1)
        record = a.save(vm)
        check_equal(vm.out(REGISTER, K, K), GOOD, "it runs on")
        clear_by_another(side)
        a.control.must("check", vm=vm.name, record=record)
        check_attention(vm, "after a check")
        vm.hold(5)
        clear_by_another(side)
        disturb(a.marker(1), **DEAD)
        check_refused(a.control.call("save", vm=vm.name), "a Save of an LU that cannot be reached")
        check_attention(vm, "after a Save that failed")


# ---- commands that hang ----

@case("hanging REGISTER: no Save until it is answered, then what it did is saved")
def save_behind_register(side):
    with hosts(side, "a", "b", options=["--timeout", "500"]) as (a, b):
        vm = a.vm()
        path = side.marker(0, nexus=a.name)
        device = vm.obey({"open": path})["device"]
        check_equal(vm.keys(device=device), GOOD, "READ KEYS")
        disturb(path, hang=2500, times=1)
        answer = vm.obey({"request": [0, device, pr_out(REGISTER, 0).hex(), parameters(0, K).hex()]})
        check_equal(answer["code"], [0xB, 0x2E02], "REGISTER times out")
        check_refused(a.control.call("save", vm=vm.name), "a Save meanwhile")
        answer = {}
        wait_until(lambda: "result" in answer or answer.update(a.control.call("save", vm=vm.name)), "a Save later", lambda: answer)
        check_equal(a.listed(vm), ("saved", [(K, 0, False)]), "what it is listed with")
        check_equal(b.verdicts("load", b.vm(), record=answer["result"]["record"]), ["registered"], "Load")


@case("hanging READ KEYS: a Save does not wait until the device answers")
def save_behind_read(side):
    with hosts(side, "a", options=["--timeout", "500"]) as (a,):
        vm = a.vm()
        vm.hold(5)
        path = side.marker(0, nexus=a.name)
        device = vm.obey({"open": path})["device"]
        disturb(path, hang=2000 * LIMIT, times=1)
        before = a.helper.descriptors()
        vm.tell({"request": [0, device, pr_in(READ_KEYS).hex(), ""]})
        wait_until(lambda: a.helper.descriptors() > before, "the command is there")
        a.save(vm)
        check_equal(a.listed(vm), ("saved", [(K, 5, False)]), "what it is listed with")
        check_equal(vm.hear()["code"], [0xB, 0x2E02], "READ KEYS times out")


@case("hanging REGISTERs: however many come, one thread and its descriptors hang")
def many_registers(side):
    with hosts(side, "a", options=["--timeout", "100"]) as (a,):
        vm = a.vm()
        path = side.marker(0, nexus=a.name)
        device = vm.obey({"open": path})["device"]
        disturb(path, hang=2000 * LIMIT, all=1)
        vm.register(device=device)
        threads, descriptors = count_threads(a), a.helper.descriptors()
        for _ in range(15):
            vm.register(device=device)
        check(a.helper.descriptors_settle(descriptors + 2) <= descriptors + 2, "descriptors", descriptors, a.helper.descriptors())
        check(count_threads(a) <= threads + 2, "threads", threads, count_threads(a))


@case("RESERVE without registration that times out: nothing to save, whoever else is registered")
def reserve_unregistered(side):
    with hosts(side, "a", options=["--timeout", "300"]) as (a,):
        vm = a.vm()
        check_equal(vm.keys(), GOOD, "READ KEYS")
        check_equal(side.judge().pr_out(REGISTER, 0, OTHER).status, 0, "a third host registers")
        path = side.marker(0, nexus=a.name)
        device = vm.obey({"open": path})["device"]
        disturb(path, hang=1000, times=1)
        vm.out(RESERVE, K, 0, 5, device=device)
        answer = {}
        wait_until(lambda: "result" in answer or answer.update(a.control.call("save", vm=vm.name)), "a Save", lambda: answer)
        check_equal(a.listed(vm), ("idle", []), "what it is listed with")


# ---- who comes and goes ----

@case("processes without connection: so many have descriptors, and the quiet VM before them is not forgotten")
def crowd_alone(side):
    # A helper that migrates knows the quiet VM from its journal.
    with hosts(side, "a", options=["--vmstate-bus", "unix:path={folder}/nobody"]) as (a,):
        quiet, crowd = a.vm(), a.vm()
        a.kill()
        a.start()
        before = a.helper.descriptors()
        check_equal(crowd.obey({"crowd": 100, "path": a.helper.path}), {"left": 100}, "processes that came and went")
        check(a.helper.descriptors_settle(before + 70) <= before + 70, "descriptors", before, a.helper.descriptors())
        check_equal(a.listed(quiet), ("idle", []), "the quiet VM")
        a.save(quiet)


@case("unplugged: a disk that the VM does not have any more is left behind, and told")
def unplugged(side):
    with hosts(side, "a", "b", lus=(0, 1)) as (a, b):
        vm = a.vm((0, 1))
        vm.hold(5)
        vm.hold(5, device=1)
        vm.obey({"close": 1})
        check_equal(b.verdicts("load", b.vm(), record=a.save(vm)), ["moved"], "Load of what is left")
        check("not saved" in a.helper.errors(), "the log tells what was not saved")
        check_equal((seen(side, 0), seen(side, 1)), (([K, K], (K, 5)), ([K], (K, 5))), "the LUs")
