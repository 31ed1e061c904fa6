# SPDX-License-Identifier: LGPL-2.1-or-later
"""Files that QEMU 10 writes by itself: the good ones are good, the damaged ones are not, also where QEMU sees nothing."""

import contextlib
import json
import os
import re
import resource
import shutil
import subprocess

from harness.host import end_with_parent
from harness.tap import check, check_equal
from migrate.processes import LIMIT, wait_until

from . import qevm
from .saves import MALFORMED, WAYS, continue_from, continue_mapped, replay
from .world import MACHINES, RAM_BLOCK

OFFSET = 71969  # as a libvirt header would leave it: not aligned to anything
HEAD = bytes(range(256)) * 282


def inspect(runner, path, *words, expect=0):
    """The facts, as JSON."""
    done = runner.must("inspect", "--json", path, *words, expect=expect)
    return json.loads(done.stdout) if done.stdout else None


def write_file(runner, qemu, mapped, channels=0, direct=False, offset=0):
    """The guest of qemu is saved as QEMU itself does it, and goes on. The file."""
    path = runner.path("vm")
    if offset:
        with open(path, "wb") as file:
            file.write(HEAD[:offset])
    for name, state in (("mapped-ram", mapped), ("multifd", bool(channels))):
        qemu.qmp("migrate-set-capabilities", capabilities=[{"capability": name, "state": state}])
    qemu.set(direct_io=direct, **({"multifd_channels": channels} if channels else {}))
    qemu.save(f"file:{path}" + (f",offset={offset}" if offset else ""))
    qemu.qmp("cont")
    return path


def check_facts(runner, path, mapped, offset):
    """inspect and verify say of the file what QEMU put into it, as far as this side knows it."""
    words = ["--offset", str(offset)] if offset else []
    runner.must("verify", *words, path)
    facts = inspect(runner, path, *words)
    with qevm.Stream(path, offset) as stream:
        stream.walk()
        check_equal((facts["kind"], facts["machine"], facts["mapped_ram"], facts["complete"], facts["stream"]["offset"]),
                    ("qemu", MACHINES["10"], mapped, True, offset), "kind, machine, mapped-ram, completeness, begin")
        check_equal([(block["id"], block["length"]) for block in facts["blocks"]],
                    [(block.name, block.length) for block in stream.blocks], "RAM blocks")
        if mapped:
            check_equal([(block["bitmap_offset"], block["pages_offset"]) for block in facts["blocks"]],
                        [(block.bitmap, block.pages) for block in stream.blocks], "where the blocks lie")
    names = [section["id"] for section in facts["sections"]]
    check({"ram", "cpu", "timer", "i8259", "0000:00:1f.0/ICH9LPC"} <= set(names), "sections are missing", names)
    check_equal(facts["sections"][0]["id"], "ram", "the first section")
    ends = [section["offset"] + section["length"] for section in facts["sections"]]
    check(all(end <= os.path.getsize(path) for end in ends), "a section lies outside of the file", facts["sections"])


def good(runner, mapped=True, channels=0, direct=False, offset=0):
    qemu = runner.world.guest("10")
    path = write_file(runner, qemu, mapped, channels, direct, offset)
    qemu.end()
    if offset:
        with open(path, "rb") as file:
            check_equal(file.read(offset), HEAD[:offset], "what was before the stream")
    check_facts(runner, path, mapped, offset)
    classic = path
    if mapped:
        continue_mapped(runner, path, "10", channels=channels, direct=direct, offset=offset)
        classic = runner.path("classic")
        runner.must("convert", "--to", "classic", *(["--offset", str(offset)] if offset else []), path, classic)
        offset = 0
    continue_from(runner, replay(runner, classic, *([f"--offset {offset}"] if offset else [])), "10")


# ---- damaged by what QEMU does not notice ----

@contextlib.contextmanager
def injected(qemu, rule, log):
    """strace makes a system call of qemu go wrong meanwhile."""
    with open(log, "wb") as file:
        tracer = subprocess.Popen(["strace", "-f", "-qq", "-p", str(qemu.pid), "-e", "trace=pwritev,pwrite64", "-e", f"inject={rule}"],
                                  stdin=subprocess.DEVNULL, stdout=file, stderr=file, preexec_fn=end_with_parent)

    def attached():
        check(tracer.poll() is None, "strace ended", read(log))
        with contextlib.suppress(OSError):
            return all(f"TracerPid:\t{tracer.pid}\n" in open(f"/proc/{qemu.pid}/task/{task}/status").read()
                       for task in os.listdir(f"/proc/{qemu.pid}/task"))
        return False

    try:
        wait_until(attached, "strace")
        yield
    finally:
        tracer.terminate()
        tracer.wait(LIMIT)


def read(path):
    with open(path, errors="replace") as file:
        return file.read()


def silent_loss(runner, direct=False):
    """A short write in a multifd channel: QEMU 10 says that all went well, and its own loader too. verify names the pages that were
    never written; the guest finds one of them."""
    qemu, path, log = runner.world.guest("10"), runner.path("vm"), runner.path("strace")
    with injected(qemu, "pwritev:retval=4096:when=40", log):
        check_equal(qemu.save(f"file:{path}", "mapped-ram", "multifd", multifd_channels=2, direct_io=direct)["status"], "completed",
                    "QEMU's own opinion")
    check("INJECTED" in read(log), "strace injected nothing", read(log)[-1000:])
    qemu.end()
    with qevm.Stream(path) as stream:
        block, lost = stream.walk().block(RAM_BLOCK), []
        for page in stream.present(RAM_BLOCK):
            at = block.pages + page * qevm.PAGE
            if stream.data[at:at + qevm.PAGE].count(0) == qevm.PAGE:
                lost.append(page)
    check(lost, "nothing was lost")
    done = runner.must("verify", path, expect=MALFORMED)
    text = (done.stdout + done.stderr).decode()
    check(RAM_BLOCK in text and re.search(rf"\b{lost[0]}\b", text), f"verify does not name page {lost[0]} of {RAM_BLOCK}", text)
    loaded = runner.world.qemu("10", incoming="defer")
    guest = loaded.load(f"file:{path}", "mapped-ram")
    verdict = guest.call("check")
    runner.note(f"{len(lost)} pages lost, QEMU completed both ways, the guest says: {verdict}")
    check(verdict.startswith("error page"), "the guest found nothing", verdict)


def write_fails(runner, rule):
    """A write that fails so that QEMU sees it; what it leaves is no save."""
    qemu, path, log = runner.world.guest("10"), runner.path("vm"), runner.path("strace")
    qemu.capabilities("mapped-ram")
    with injected(qemu, rule, log):
        qemu.set(max_bandwidth=1 << 40)
        qemu.qmp("migrate", uri=f"file:{path}")
        qemu.await_status("failed")
    check("INJECTED" in read(log), "strace injected nothing", read(log)[-1000:])
    check_bad(runner, path)


def file_too_large(runner):
    """The limit of the file's size is reached when all pages are written and the devices are not."""
    qemu, path = runner.world.guest("10", prefix=["env", "--ignore-signal=XFSZ"]), runner.path("vm")
    limit = os.path.getsize(runner.world.mapped()) - 20000
    resource.prlimit(qemu.pid, resource.RLIMIT_FSIZE, (limit, limit))
    qemu.capabilities("mapped-ram")
    qemu.set(max_bandwidth=1 << 40)
    qemu.qmp("migrate", uri=f"file:{path}")
    qemu.await_status("failed")
    check_bad(runner, path)


def check_bad(runner, path):
    """Neither verify nor convert nor replay takes it for good."""
    done = runner.must("verify", path, expect=MALFORMED)
    check(done.stdout + done.stderr, "verify gives no reason")
    check_equal(runner.stream("convert", "--to", "classic", path, runner.path("out")).returncode, MALFORMED, "exit status of convert")
    check(not os.path.exists(runner.path("out")), "convert left a file")


def cut(runner):
    """Its own good file, cut where each part begins and in the middle of parts."""
    path = runner.path("vm")
    shutil.copy(runner.world.mapped(), path)
    facts = inspect(runner, path)
    size = os.path.getsize(path)
    with qevm.Stream(path) as stream:
        block = stream.walk().block(RAM_BLOCK)
        last = stream.present(RAM_BLOCK)[-1]
    sections = facts["sections"]
    places = {size - 1, size - 1000, sections[-1]["offset"], sections[-1]["offset"] + 20, sections[1]["offset"],
              block.pages + last * qevm.PAGE + 100, block.pages + 5, block.bitmap + 9, block.header + 3, 60, 9}
    for place in sorted(places, reverse=True):
        os.truncate(path, place)
        check_equal(runner.stream("verify", path).returncode, MALFORMED, f"verify of the file cut at {place} of {size}")
    os.truncate(path, 0)
    check(runner.stream("verify", path).returncode != 0, "verify of an empty file")


def aborted(runner):
    """A cancelled save leaves headers and no pages: to QEMU 10 it is a file like any other until its end is missing."""
    qemu, path = runner.world.guest("10"), runner.path("vm")
    qemu.guest.must("start 4000")
    qemu.capabilities("mapped-ram")
    qemu.set(max_bandwidth=8 << 20)
    qemu.qmp("migrate", uri=f"file:{path}")
    wait_until(lambda: qemu.migration().get("ram", {}).get("transferred", 0) > 4 << 20, lambda: f"4 MiB: {qemu.migration()}")
    qemu.qmp("migrate_cancel")
    qemu.await_status("cancelled")
    check_bad(runner, path)


def run(runner):
    runner.case("QEMU 10's classic file: is good, continues", good, mapped=False)
    runner.case("QEMU 10's classic file behind an offset: is good, continues", good, mapped=False, offset=OFFSET)
    for name, ways in WAYS.items():
        runner.case(f"QEMU 10's mapped-ram file{name}: is good, made classic it continues", good, **ways)
    runner.case("QEMU 10's mapped-ram file with multifd behind an offset: is good, made classic it continues", good, channels=4,
                offset=OFFSET)
    runner.case("QEMU 10 loses pages without a word (short write, multifd): verify names them", silent_loss)
    runner.case("QEMU 10 loses pages without a word (short write, multifd, direct-io): verify names them", silent_loss, direct=True)
    runner.case("QEMU 10 fails by a short write: what it leaves is bad", write_fails, "pwritev:retval=2048:when=500")
    runner.case("QEMU 10 fails by EIO: what it leaves is bad", write_fails, "pwritev:error=EIO:when=500")
    runner.case("QEMU 10 fails by ENOSPC: what it leaves is bad", write_fails, "pwritev:error=ENOSPC:when=500")
    runner.case("QEMU 10 reaches the limit of a file's size: what it leaves is bad", file_too_large)
    runner.case("QEMU 10's save is cancelled: what it leaves is bad", aborted)
    runner.case("QEMU 10's mapped-ram file, cut anywhere, is bad", cut)
