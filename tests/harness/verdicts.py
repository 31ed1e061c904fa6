# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every row of the verdict table on a real LU, and the verbs around the move: check, release, reclaim, policy, refused records."""

import hashlib
import json
import os
import re

from .host import run_once
from .matrix import final_state, undisturbed_verdict
from .nexus import GOOD
from .tap import check, check_equal
from .world import K, K2, KX, TYPES, State, is_all


def source_only(world, type, third=True):
    """Nothing moved: the VM's own state on the source."""
    registered = {"source": K}
    if third:
        registered["third"] = KX
    return State(registered, type, "source" if type else None)


def load(world, record, extra="", fail=None):
    return world.destination.call(f"load {extra} -i {record} {world.lu('destination')}", fail=fail)


# ---- the rows: each sets the LU up and returns (record, state after load) ----

def row_none(world):
    world.reset()
    if world.target.full_status:
        world.register_third()
    world.n_records += 1
    record = os.path.join(world.folder.name, f"record-{world.n_records}")
    # Without READ FULL STATUS only an LU without any registration shows that the VM has none.
    world.source.must(f"save -o {record} {world.lu('source')}")
    return record, State({"third": KX} if world.target.full_status else {})


def row_fenced(world):
    record = world.set_up(5)
    check_equal(world.third.pr_out(4, key=KX, new_key=K, type=5).status, GOOD, "the fencing PREEMPT")
    return record, State({"third": KX}, 5, "third")


def row_type_changed(world):
    record = world.set_up(5)
    world.source.must(f"pr release --key {K:#x} --type 5 {world.lu('source')}")
    world.source.must(f"pr reserve --key {K:#x} --type 1 {world.lu('source')}")
    return record, final_state(1, third=True)


def row_type_changed_none(world):
    record = world.set_up(0)
    world.source.must(f"pr reserve --key {K:#x} --type 3 {world.lu('source')}")
    return record, final_state(3, third=True)


def row_type_changed_all(world):
    record = world.set_up(6)
    world.source.must(f"pr release --key {K:#x} --type 6 {world.lu('source')}")
    world.source.must(f"pr reserve --key {K:#x} --type 7 {world.lu('source')}")
    return record, final_state(7, third=True)


def row_preempted(world):
    record = world.set_up(5)
    world.source.must(f"pr release --key {K:#x} --type 5 {world.lu('source')}")
    check_equal(world.third.pr_out(1, key=KX, type=6).status, GOOD, "the other's RESERVE")
    return record, State({"source": K, "destination": K, "third": KX}, 6, "third")


def row_released(world):
    record = world.set_up(5)
    world.source.must(f"pr release --key {K:#x} --type 5 {world.lu('source')}")
    return record, State({"source": K, "destination": K, "third": KX})


def row_registered(world):
    return world.set_up(0), final_state(0, third=True)


ROWS = (
    (1, "no key", row_none, "none"),
    (5, "K gone", row_fenced, "fenced"),
    (7, "K holds another type", row_type_changed, "type-changed"),
    (7, "K holds although it did not", row_type_changed_none, "type-changed"),
    (7, "a holder became all registrants", row_type_changed_all, "type-changed"),
    (9, "another key holds", row_preempted, "preempted"),
    (10, "nobody holds", row_released, "released"),
    (11, "registered only", row_registered, "registered"),
)


def check_row(world, build, verdict):
    """check sends only reads and says what load does; load does it."""
    record, state = build(world)
    before = world.third.picture()
    said = world.destination.call(f"check -i {record} {world.lu('destination')}")
    check_equal(world.third.picture(), before, "the LU after check")
    unit = world.unit(said)
    said_so = unit["verdict"] == verdict or (not unit["certain"] and unit.get("or") == verdict)
    check(said_so, f"check says {unit['verdict']}, not {verdict}", said)
    reply = load(world, record)
    world.check_verdict(reply, [verdict])
    world.check_state(state)


def check_refused(world, build):
    """--on-change=refuse: nothing is changed, exit code 40."""
    record, _ = build(world)
    before = world.third.picture()
    reply = load(world, record, "--on-change=refuse")
    check_equal(reply["result"], 40, f"exit code of a refused load ({json.dumps(reply)})")
    after = world.third.picture()
    check_equal((after["keys"], after["reservation"]), (before["keys"], before["reservation"]), "the LU after a refused load")


def check_moved(world, type):
    record = world.set_up(type)
    world.check_verdict(load(world, record), [undisturbed_verdict(type)])
    world.check_state(final_state(type, third=True), probe=False)
    # A second load of the same record finds everything done.
    world.check_verdict(load(world, record), ["unchanged"])
    world.check_state(final_state(type, third=True))


SELFTEST_LIMIT = 150
COMMANDS_MAX = {True: 7, False: 12}  # of a move, INQUIRYs counted; by whether READ FULL STATUS works


def check_commands(world, type):
    """A process that knows nothing of the LU yet moves with few commands. The unit attention of its login is not the move's."""
    record = world.set_up(type)
    world.replace("destination").call(f"pr read-keys {world.lu('destination')}")
    world.destination.call(f"pr read-keys {world.lu('destination')}")
    reply = load(world, record)
    world.check_verdict(reply, [undisturbed_verdict(type)])
    commands = world.unit(reply)["commands"]
    check(3 < commands <= COMMANDS_MAX[world.target.full_status], f"a move took {commands} commands", reply)


def check_same_nexus(world, type):
    """Source and destination are one nexus: nothing changes hands."""
    record = world.set_up(type)
    reply = world.source.call(f"load -i {record} {world.lu('source')}")
    world.check_verdict(reply, ["unchanged"])
    world.check_state(source_only(world, type))


def check_error_scsi2(world):
    """Row 2: a SCSI-2 reservation of another makes PR IN conflict. That is not a fence, and nothing is sent."""
    record = world.set_up(5)
    world.third.wipe(KX)  # a SCSI-2 reservation cannot be made while registrations exist
    check_equal(world.witness.command(bytes([0x16, 0, 0, 0, 0, 0])).status, GOOD, "RESERVE(6)")
    try:
        reply = load(world, record)
        check_equal(world.unit(reply)["verdict"], "error", "verdict under a SCSI-2 reservation")
        check_equal(reply["result"], 24, "exit code under a SCSI-2 reservation")
    finally:
        world.witness.command(bytes([0x17, 0, 0, 0, 0, 0]))
    world.check_state(State({"third": KX}) if KX in world.third.keys()[1] else State({}))


def check_error_link(world):
    """Row 2: a link that stays lost is an error, not a fence, and nothing was sent."""
    record = world.set_up(5)
    before = world.third.picture()
    reply = load(world, record, fail="before-observe=link")
    check_equal(world.unit(reply)["verdict"], "error", f"verdict of a lost link ({json.dumps(reply)})")
    check(reply["result"] not in (0, 40, 41, 42, 43), "exit code of a lost link", reply)
    check_equal(world.third.picture(), before, "the LU after a load without a link")


def check_ambiguous(world, type):
    """A nexus that is not ours has K too."""
    record = world.set_up(type, third_registered=False)
    check_equal(world.third.pr_out(6, new_key=K).status, GOOD, "the stranger registers with K")
    before = world.third.picture()
    reply = load(world, record)
    world.check_verdict(reply, ["ambiguous"])
    check_equal(world.third.picture(), before, "the LU after an ambiguous load: nothing but reads")
    check(world.unit(reply)["error"] and world.unit(reply)["error"]["text"], "nexuses or counts are named", reply)


def check_occupied(world, type):
    """The destination has another key."""
    record = world.set_up(type)
    world.destination.must(f"pr register-ignore --new-key {K2:#x} {world.lu('destination')}")
    before = world.third.picture()
    reply = load(world, record)
    world.check_verdict(reply, ["occupied"])
    after = world.third.picture()
    check_equal((after["keys"], after["reservation"]), (before["keys"], before["reservation"]), "the LU after an occupied load")
    text = json.dumps(world.unit(reply)["error"])
    if world.target.full_status:
        check(f"{K2:#x}" in text, "the message says which key", reply)


# ---- check: certain or not ----

def check_certain(world):
    """Where reads tell the nexuses apart, check is certain; where not, it says so and names the alternative."""
    record = world.set_up(5)
    unit = world.unit(world.destination.call(f"check -i {record} {world.lu('destination')}"))
    check_equal(unit["verdict"], "moved", "check of an undisturbed move")
    check_equal(unit["certain"], bool(world.target.full_status), f"certain ({unit})")
    if not unit["certain"]:
        check_equal(unit.get("or"), "unchanged", "the alternative")


# ---- release ----

def check_release_refused(world, name, record, host, why):
    before = world.third.picture()
    reply = world.host(host).call(f"release -i {record} {world.lu(host)}")
    check(reply["result"] != 0, f"release {why} must be refused", reply)
    check_equal(world.unit(reply)["verdict"], "refused", f"verdict of release {why}")
    check(world.unit(reply)["error"]["text"], "which condition failed", reply)
    after = world.third.picture()
    check_equal((after["keys"], after["reservation"]), (before["keys"], before["reservation"]), f"the LU after release {why}")


def check_release_holder(world, type):
    record = world.set_up(type)
    check_release_refused(world, "holder", record, "source", "by the holder")


def check_release_alone(world, type):
    record = world.set_up(type)
    check_release_refused(world, "alone", record, "source", "of the only registration")


def check_release_same_nexus(world):
    record = world.set_up(7)
    world.source.call(f"load -i {record} {world.lu('source')}")
    check_release_refused(world, "same", record, "source", "of the nexus the VM is on")


def check_release_twice(world, type):
    record = world.set_up(type)
    world.check_verdict(load(world, record), [undisturbed_verdict(type)])
    for attempt in (1, 2):
        world.source.call(f"release -i {record} {world.lu('source')}")
        world.check_state(final_state(type, third=True, source_left=False), probe=attempt == 2)


def check_release_after_move(world, type):
    """The take-over removed the source's registration: release has nothing to do and harms nothing."""
    record = world.set_up(type)
    world.check_verdict(load(world, record), ["moved"])
    world.source.call(f"release -i {record} {world.lu('source')}")
    world.check_state(final_state(type, third=True))


# ---- reclaim ----

def check_reclaim(world, type):
    """The migration failed after load: the source takes everything back, the destination removes itself."""
    record = world.set_up(type)
    world.check_verdict(load(world, record), [undisturbed_verdict(type)])
    reply = world.source.call(f"reclaim -i {record} {world.lu('source')}")
    check_equal(reply["result"], 0, f"exit code of reclaim ({json.dumps(reply)})")
    if type == 0 or is_all(type):
        world.destination.call(f"release -i {record} {world.lu('destination')}")
    world.check_state(source_only(world, type))


def check_reclaim_untouched(world, type):
    """Nothing was moved: reclaim changes nothing."""
    record = world.set_up(type)
    reply = world.source.call(f"reclaim -i {record} {world.lu('source')}")
    world.check_verdict(reply, ["unchanged"])
    world.check_state(source_only(world, type))


def check_reclaim_fenced(world):
    """Fenced while it was away: reclaim does not resurrect."""
    record = world.set_up(5)
    world.check_verdict(load(world, record), ["moved"])
    check_equal(world.third.pr_out(4, key=KX, new_key=K, type=5).status, GOOD, "the fencing PREEMPT")
    world.check_verdict(world.source.call(f"reclaim -i {record} {world.lu('source')}"), ["fenced"])
    world.check_state(State({"third": KX}, 5, "third"))


def check_source_gone(world, type):
    """--source-gone: the dead source's registration is removed with the load."""
    record = world.set_up(type)
    reply = load(world, record, "--source-gone")
    world.check_verdict(reply, [undisturbed_verdict(type)])
    world.check_state(final_state(type, third=True, source_left=False))


# ---- records ----

def _with_version(data, version):
    """A record of another version with a right checksum: magic, version, length, SHA-256 of all other bytes, body."""
    data = bytearray(data)
    data[8:12] = version.to_bytes(4, "big")
    data[16:48] = hashlib.sha256(bytes(data[:16]) + bytes(data[48:])).digest()
    return bytes(data)


RECORD_DAMAGES = (
    ("truncated", lambda data: data[:-5]),
    ("truncated inside the head", lambda data: data[:10]),
    ("empty", lambda data: b""),
    ("corrupted in the body", lambda data: data[:60] + bytes([data[60] ^ 1]) + data[61:]),
    ("corrupted in the checksum", lambda data: data[:20] + bytes([data[20] ^ 0x80]) + data[21:]),
    ("longer than it says", lambda data: data + b"x"),
    ("foreign", lambda data: b"QEVM" + data[4:]),
    ("newer", lambda data: _with_version(data, 99)),
)


def check_record_refused(world, damage):
    record = world.set_up(5)
    with open(record, "rb") as file:
        data = file.read()
    with open(record, "wb") as file:
        file.write(damage(data))
    before = world.third.picture()
    reply = load(world, record)
    check_equal(reply["result"], 43, f"exit code for a bad record ({json.dumps(reply)})")
    check(record in json.dumps(reply) + world.destination.errors(), "the message names the record", reply)
    check_equal(world.third.picture(), before, "the LU after a refused record")


def check_wrong_lu(world, other_lu):
    """The record is of another LU."""
    record = world.set_up(5)
    before = world.third.picture()
    reply = world.destination.call(f"load -i {record} {other_lu}")
    check_equal(reply["result"], 43, f"exit code for the wrong LU ({json.dumps(reply)})")
    check_equal(world.third.picture(), before, "the LU after a load on another LU")


# ---- selftest ----

def selftest(world, *words):
    return run_once("selftest", "--source", world.lu("source"), "--destination", world.lu("destination"), "--witness", world.lu("witness"),
                    "--state-dir", os.path.join(world.folder.name, "selftest"), *words, limit=SELFTEST_LIMIT)


def check_selftest(world):
    """The program's own matrix passes on this target, and leaves the LU empty."""
    world.third.wipe()
    done = selftest(world, "--tap")
    bad = [line for line in done.stdout.splitlines() if line.startswith("not ok")]
    if world.target.name == "tgt":
        # tgt uses a freed record there (target-limits.tsv), and selftest is there to find such targets.
        unexpected = [line for line in bad if not re.search(r"type [78], PREEMPT", line)]
        check(not unexpected, f"exit code {done.returncode}", *unexpected, done.stderr)
    else:
        check(done.returncode == 0 and not bad, f"exit code {done.returncode}", *bad, done.stderr)
    check_equal(done.returncode != 0, bool(bad), "whether the exit code says that cases failed")
    plan = [line for line in done.stdout.splitlines() if line.startswith("1..")]
    cases = [line for line in done.stdout.splitlines() if line.startswith("ok ")]
    check(len(cases) > 100 and plan == [f"1..{len(cases) + len(bad)}"], f"{len(cases)} cases passed, {len(bad)} failed, plan {plan}")
    world.check_state(State({}))


def check_selftest_refuses(world):
    """An LU with a registration is somebody's: selftest refuses it and changes nothing."""
    world.third.wipe()
    world.register_third()
    before = world.third.picture()
    done = selftest(world)
    check(done.returncode != 0, "selftest of an LU with a registration is refused", done.stdout, done.stderr)
    check_equal(world.third.picture(), before, "the LU")


def run(tap, world, other_lu):
    """All of it as TAP cases. other_lu: the destination's address of another LU of the target."""
    name = world.target.name
    for row, text, build, verdict in ROWS:
        tap.case(f"{name} row {row}, {text}: {verdict}", check_row, world, build, verdict)
        if verdict in ("fenced", "type-changed", "preempted", "released"):
            tap.case(f"{name} row {row}, {text}: --on-change=refuse", check_refused, world, build)
    if name != "tgt":  # target-limits.tsv: tgt's PR IN does not conflict
        tap.case(f"{name} row 2, SCSI-2 reservation: error", check_error_scsi2, world)
    tap.case(f"{name} row 2, the link stays lost: error", check_error_link, world)
    for type in (0, 5, 7):
        tap.case(f"{name} row 3, type {type}: ambiguous", check_ambiguous, world, type)
        tap.case(f"{name} row 4, type {type}: occupied", check_occupied, world, type)
    for type in (0, *TYPES):
        tap.case(f"{name} rows 8 and 11, type {type}: {undisturbed_verdict(type)}, then unchanged", check_moved, world, type)
        tap.case(f"{name} type {type}: at most {COMMANDS_MAX[world.target.full_status]} commands", check_commands, world, type)
        tap.case(f"{name} row 6, type {type}: one nexus, unchanged", check_same_nexus, world, type)
        tap.case(f"{name} reclaim, type {type}", check_reclaim, world, type)
        tap.case(f"{name} reclaim where nothing was moved, type {type}", check_reclaim_untouched, world, type)
        tap.case(f"{name} load --source-gone, type {type}", check_source_gone, world, type)
    tap.case(f"{name} reclaim of a fenced VM", check_reclaim_fenced, world)
    tap.case(f"{name} check says whether it is certain", check_certain, world)
    for type in (1, 3, 5, 6):
        tap.case(f"{name} release by the holder, type {type}: refused", check_release_holder, world, type)
        tap.case(f"{name} release after the move, type {type}", check_release_after_move, world, type)
    for type in (0, 7, 8):
        tap.case(f"{name} release of the only registration, type {type}: refused", check_release_alone, world, type)
        tap.case(f"{name} release twice, type {type}", check_release_twice, world, type)
    tap.case(f"{name} release of the nexus the VM is on: refused", check_release_same_nexus, world)
    for text, damage in RECORD_DAMAGES:
        tap.case(f"{name} record {text}: refused", check_record_refused, world, damage)
    tap.case(f"{name} record of another LU: refused", check_wrong_lu, world, other_lu)
    tap.case(f"{name} selftest passes", check_selftest, world)
    tap.case(f"{name} selftest refuses an LU with a registration", check_selftest_refuses, world)
