# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest that goes on writing is saved through holdfast and continued from the file. The guest itself says whether its memory is
what it wrote."""

import json
import os
import struct
import subprocess

from harness.host import end_with_parent
from harness.tap import check, check_equal
from migrate.processes import Process, wait_until

from . import qevm
from .world import LIMIT, MAGIC, RAM, RAM_BLOCK, SLACK

# Ends up in the file more than once: a part of what the guest writes during three rounds.
SENT_AGAIN = 1000
FLIPPED = 12346  # a page of the guest's that is never zero (guest.c)
MALFORMED = 97


def capture(runner, path, *words):
    """The URI that saves into path."""
    return f"exec:'{runner.program}' stream capture {' '.join(words)} '{path}'"


def replay(runner, path, *words):
    return f"exec:'{runner.program}' stream replay {' '.join(words)} '{path}'"


def status_of(path):
    with open(path + ".status") as file:
        return json.load(file)


def check_committed(runner, path, format="classic"):
    """wait says so, the status says what the file is, and nothing else was left."""
    runner.must("wait", path)
    status = status_of(path)
    check_equal((status["outcome"], status["error"], status["complete"], status["sync"], status["format"]),
                ("committed", None, True, True, format), "the status of the capture")
    check(not os.path.exists(path + ".partial"), "a partial file is left")
    return status


def check_sent_again(path, start=0):
    with qevm.Stream(path, start) as stream:
        items = list(stream.items())
    again = len(items) - len({(item.block, item.offset) for item in items})
    check(again >= SENT_AGAIN, f"only {again} pages were sent again: the guest wrote too little during the save")


def continue_from(runner, uri, version, machine=None, written=0):
    """A new QEMU whose guest goes on from there, and is content."""
    qemu = runner.world.qemu(version, machine=machine, incoming=uri)
    qemu.await_loaded()
    check(qemu.guest.written() >= written, f"the guest has written {qemu.guest.written()} pages, before the save {written}")
    qemu.check_memory()
    qemu.end()


def continue_mapped(runner, path, version, machine=None, channels=0, direct=False, offset=0):
    """The same from a mapped-ram file, as QEMU itself reads it."""
    qemu = runner.world.qemu(version, machine=machine, incoming="defer")
    parameters = {"multifd_channels": channels} if channels else {}
    if direct:
        parameters["direct_io"] = True
    qemu.load(f"file:{path}" + (f",offset={offset}" if offset else ""), "mapped-ram", *(["multifd"] if channels else []),
              **parameters)
    qemu.check_memory()
    qemu.end()


WAYS = {"": {}, " with multifd": {"channels": 4}, " with multifd and direct-io": {"channels": 4, "direct": True}}


# ---- live saves ----

def through_exec(runner, version):
    qemu, path = runner.world.guest(version), runner.path("vm.hf")
    qemu.save_live(capture(runner, path))
    status = check_committed(runner, path)
    qemu.quit()
    check_sent_again(path)
    check(0 < os.path.getsize(path) - status["bytes"] < 8192, "what is behind the stream is not just a trailer", status)
    runner.must("verify", path)
    continue_from(runner, replay(runner, path), version, written=SENT_AGAIN)
    continue_from(runner, f"exec:cat '{path}'", version)


def listens(path):
    """Somebody waits for a connection there (unix(7), proc(5): the flag SO_ACCEPTCON). A connection to see it would be taken for QEMU's."""
    with open("/proc/net/unix") as file:
        return any(line.split()[3] == "00010000" for line in file if line.rstrip().endswith(" " + path))


def through_socket(runner, version):
    """capture --listen as destination, replay --connect as source."""
    qemu, path, socket = runner.world.guest(version), runner.path("vm.hf"), os.path.join(runner.world.sockets, f"capture-{version}")
    listener = Process("capture", [runner.program, "stream", "capture", "--listen", f"unix:{socket}", path], runner.folder)
    wait_until(lambda: listens(socket), lambda: f"the socket of capture: {listener.log()}")
    qemu.save_live(f"unix:{socket}")
    check_equal(listener.wait(), 0, f"exit status of capture --listen: {listener.log()}")
    check_committed(runner, path)
    qemu.quit()
    check_sent_again(path)
    incoming = os.path.join(runner.world.sockets, f"incoming-{version}")
    destination = runner.world.qemu(version, incoming=f"unix:{incoming}")
    runner.must("replay", "--connect", f"unix:{incoming}", path)
    destination.await_loaded()
    destination.check_memory()


def through_mapped(runner, version, loaders):
    """capture --mapped: more bytes than the guest has memory go into a file that is not larger than its memory. loaders: versions of
    QEMU that load it as it is."""
    qemu, path, classic = runner.world.guest(version), runner.path("vm.hf"), runner.path("classic")
    qemu.save_live(capture(runner, path, "--mapped"), rate=8000, sent=RAM + (8 << 20))
    status = check_committed(runner, path, "mapped-ram")
    qemu.quit()
    used = qevm.disk_usage(path)
    runner.note(f"{status['bytes'] >> 20} MiB came, {used >> 20} MiB are on disk, memory is {RAM >> 20} MiB")
    check(status["bytes"] > RAM, "the guest wrote too little: a stream of less than its memory proves nothing", status)
    check(used <= RAM + SLACK, f"{used} bytes on disk, memory is {RAM}")
    with qevm.Stream(path) as stream:
        check_equal(stream.capabilities, ["mapped-ram"], "capabilities in the file")
        check(len(stream.walk().present(RAM_BLOCK)) > 1000, "hardly a page is there")
    runner.must("verify", path)
    for loader in loaders:
        for ways in WAYS.values():
            continue_mapped(runner, path, loader, machine=version, **ways)
    runner.must("convert", "--to", "classic", path, classic)
    runner.must("verify", classic)
    continue_from(runner, replay(runner, classic), version)


# ---- the guest notices ----

def page_position(path, page):
    """Where the guest's page lies in the file: by what it holds, as guest.c writes it."""
    head = MAGIC + struct.pack("<Q", page)
    with open(path, "rb") as file:
        data = file.read()
    positions = []
    at = data.find(head)
    while at >= 0:
        positions.append(at)
        at = data.find(head, at + 1)
    check_equal(len(positions), 1, f"places in the file that look like page {page}")
    return positions[0]


def check_guest_notices(guest, byte):
    """The guest that was loaded from a file with one flipped bit."""
    words = guest.call("check").split()
    check_equal((words[:3], words[-2:]), (["error", "page", str(FLIPPED)], ["byte", str(byte)]), "the guest's verdict")


def flipped_classic(runner, byte=2001):
    """Captured whole, then one bit of one page of the guest's changes on the disk."""
    qemu, path = runner.world.guest("7.2"), runner.path("vm.hf")
    qemu.save(capture(runner, path))
    check_committed(runner, path)
    qemu.quit()
    position = page_position(path, FLIPPED) + byte
    qevm.flip(path, position)
    done = runner.must("verify", path, expect=MALFORMED)
    text = (done.stdout + done.stderr).decode()
    block = position >> 20
    check(str(block << 20) in text, f"verify does not name the block at {block << 20}", text)
    # replay gives nothing of that block, so QEMU does not load it.
    with open(runner.path("replayed"), "wb") as file:
        runner.must("replay", path, stdout=file, expect=MALFORMED)
    check(os.path.getsize(file.name) <= block << 20, "replay gave more than what is before the bad block")
    broken = runner.world.qemu("7.2", incoming=replay(runner, path))
    check(broken.wait() != 0, "QEMU loaded what replay broke off")
    # Only the guest can notice what comes in by force.
    for uri in (replay(runner, path, "--no-verify"), f"exec:cat '{path}'"):
        forced = runner.world.qemu("7.2", incoming=uri)
        check_guest_notices(forced.await_loaded(), byte)
        forced.end()


def flipped_mapped(runner, byte=1999):
    """The same in a mapped-ram file: QEMU loads it without a word."""
    path = runner.path("vm.hf")
    with open(runner.world.snapshot("10"), "rb") as file:
        runner.must("capture", "--mapped", path, stdin=file)
    continue_mapped(runner, path, "10")
    qevm.flip(path, page_position(path, FLIPPED) + byte)
    loaded = runner.world.qemu("10", incoming="defer")
    check_guest_notices(loaded.load(f"file:{path}", "mapped-ram"), byte)


# ---- saves that end early ----

OLD = b"the file that was there before\n"


def begin_save(runner, *words):
    """(QEMU in the middle of a save, the file that is written): a slow one over an old file."""
    qemu, path = runner.world.guest("7.2"), runner.path("vm.hf")
    with open(path, "wb") as file:
        file.write(OLD)
    qemu.guest.must("start 4000")
    qemu.set(max_bandwidth=16 << 20)
    qemu.qmp("migrate", uri=capture(runner, path, *words))
    wait_until(lambda: qemu.migration().get("ram", {}).get("transferred", 0) > 8 << 20, lambda: f"8 MiB: {qemu.migration()}")
    wait_until(lambda: os.path.exists(path + ".partial"), "the partial file")
    return qemu, path


def check_kept(runner, path):
    """The save did not come to its end: the old file stands, and wait says so."""
    runner.must("wait", path, expect=MALFORMED)
    status = status_of(path)
    check_equal((status["outcome"], status["complete"]), ("incomplete", False), "the status of the capture")
    check(status["error"], "the status gives no reason", status)
    with open(path, "rb") as file:
        check_equal(file.read(), OLD, "the old file")
    check_equal(sorted(os.listdir(runner.folder)), ["vm.hf", "vm.hf.status"], "what is in the folder")


def cancelled(runner, *words):
    qemu, path = begin_save(runner, *words)
    qemu.qmp("migrate_cancel")
    qemu.await_status("cancelled")
    check_kept(runner, path)
    # The source goes on, and the next save is whole.
    before = qemu.guest.written()
    wait_until(lambda: qemu.guest.written() > before, "the guest to go on")
    qemu.check_memory()
    qemu.save(capture(runner, path, *words))
    check_committed(runner, path, "mapped-ram" if words else "classic")
    qemu.quit()
    if words:
        continue_mapped(runner, path, "10", machine="7.2")
    else:
        continue_from(runner, replay(runner, path), "7.2", written=before)


def killed(runner, *words):
    qemu, path = begin_save(runner, *words)
    qemu.kill()
    check_kept(runner, path)


def waits_for_the_end(runner):
    """wait, started while the save is under way, ends after it."""
    qemu, path = begin_save(runner)
    waiter = subprocess.Popen([runner.program, "stream", "wait", path], preexec_fn=end_with_parent, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)
    done = runner.stream("wait", "--timeout", 300, path)
    check_equal(done.returncode, 33, "exit status of a wait whose time is up")
    check(waiter.poll() is None, f"wait ended with {waiter.poll()} while the save goes on")
    qemu.set(max_bandwidth=1 << 40, downtime_limit=5000)
    qemu.await_status("completed")
    check_equal(waiter.wait(LIMIT), 0, "exit status of wait")
    check_equal(status_of(path)["outcome"], "committed", "the outcome")


# ---- conversions ----

def converted(runner, version):
    """What QEMU wrote through `cat` becomes mapped-ram that QEMU 10 loads, and that becomes classic again."""
    mapped, classic = runner.path("mapped"), runner.path("classic")
    runner.must("convert", "--to", "mapped-ram", runner.world.snapshot(version), mapped)
    runner.must("verify", mapped)
    check(qevm.disk_usage(mapped) <= RAM + SLACK, "larger than memory", qevm.disk_usage(mapped))
    for ways in WAYS.values():
        continue_mapped(runner, mapped, "10", machine=version, **ways)
    runner.must("convert", "--to", "classic", mapped, classic)
    continue_from(runner, replay(runner, classic), version)


def converted_foreign(runner):
    """QEMU 10's own mapped-ram file, made classic."""
    classic = runner.path("classic")
    runner.must("convert", "--to", "classic", runner.world.mapped(), classic)
    runner.must("verify", classic)
    continue_from(runner, replay(runner, classic), "10")


def run(runner):
    for version in ("7.2", "10"):
        runner.case(f"QEMU {version}: a live save through exec: and back", through_exec, version)
        runner.case(f"QEMU {version}: a live save through a socket and back", through_socket, version)
    runner.case("QEMU 7.2: capture --mapped of a live save, loaded by QEMU 10 and, made classic, by 7.2", through_mapped, "7.2", ["10"])
    runner.case("QEMU 10: capture --mapped of a live save, loaded and made classic", through_mapped, "10", ["10"])
    runner.case("one flipped bit in a capture: verify, replay and the guest notice", flipped_classic)
    runner.case("one flipped bit in a mapped-ram file: the guest notices", flipped_mapped)
    runner.case("a cancelled save keeps the old file, the guest goes on, and the next save is whole", cancelled)
    runner.case("a cancelled save into mapped-ram keeps the old file, and the next one is whole", cancelled, "--mapped")
    runner.case("QEMU killed during a save: the old file is kept", killed)
    runner.case("QEMU killed during a save into mapped-ram: the old file is kept", killed, "--mapped")
    runner.case("wait ends with the save, or when its time is up", waits_for_the_end)
    for version in ("7.2", "10"):
        runner.case(f"QEMU {version}: its classic file, converted, is loaded by QEMU 10 in every way, and back", converted, version)
    runner.case("QEMU 10: its mapped-ram file, made classic, is loaded", converted_foreign)
