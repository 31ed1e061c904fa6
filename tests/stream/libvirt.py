# SPDX-License-Identifier: LGPL-2.1-or-later
"""Save images as libvirt makes them (src/qemu/qemu_saveimage.h there): a header, XML, then QEMU's stream, not aligned to anything."""

import os
import struct

from harness.tap import check, check_equal

from . import qevm
from .foreign import inspect
from .saves import MALFORMED, SENT_AGAIN, capture, check_committed, check_sent_again, continue_from, continue_mapped, replay

COMPLETE, PARTIAL = b"LibvirtQemudSave", b"LibvirtQemudPart"
RAW, GZIP, SPARSE = 0, 1, 6
XML = b"<domain type='qemu'><name>vm1</name></domain>\0" + b"<qemu cookie/>\0" + bytes(65536) + b"\0" * 3


def header(magic=COMPLETE, format=RAW, order="<", running=True):
    return struct.pack(order + "16s5I", magic, 2, len(XML), running, format, 46).ljust(92, b"\0") + XML


OFFSET = len(header())


def set_header(path, **named):
    qevm.overwrite(path, 0, header(**named))


def check_facts(runner, path, mapped, kind="libvirt"):
    facts = inspect(runner, path)
    check_equal((facts["kind"], facts["stream"]["offset"], facts["mapped_ram"], facts["complete"]), (kind, OFFSET, mapped, True),
                "what inspect says of the image")


def captured(runner):
    """libvirt's way: header with the magic of an image that is not complete, stream behind it, then the magic that it is."""
    qemu, path = runner.world.guest("7.2"), runner.path("vm.save")
    with open(path, "wb") as file:
        file.write(header(PARTIAL))
    qemu.save_live(capture(runner, path, f"--offset {OFFSET}"))
    check_committed(runner, path)
    qemu.quit()
    check_sent_again(path, OFFSET)
    with open(path, "rb") as file:
        check_equal(file.read(OFFSET), header(PARTIAL), "the header")
    for verb in ("verify", "inspect"):
        done = runner.must(verb, path, expect=MALFORMED)
        check(b"complete" in done.stdout + done.stderr, f"{verb} does not say that the image is not complete", done)
    set_header(path)
    runner.must("verify", path)
    check_facts(runner, path, False, "holdfast")  # it has a trailer
    continue_from(runner, replay(runner, path), "7.2", written=SENT_AGAIN)
    # As libvirt loads it: from a descriptor that stands behind the header.
    continue_from(runner, f"exec:tail -c +{OFFSET + 1} '{path}'", "7.2")
    # A host of the other byte order.
    set_header(path, order=">")
    runner.must("verify", path)
    set_header(path, format=GZIP)
    done = runner.stream("verify", path)
    check(done.returncode != 0 and b"gzip" in done.stdout + done.stderr, "verify of a compressed image", done)


def captured_mapped(runner):
    """capture --mapped behind a header: what libvirt calls sparse."""
    path = runner.path("vm.save")
    with open(path, "wb") as file:
        file.write(header(PARTIAL, SPARSE))
    with open(runner.world.snapshot("10"), "rb") as file:
        runner.must("capture", "--mapped", "--offset", OFFSET, path, stdin=file)
    set_header(path, format=SPARSE)
    runner.must("verify", path)
    check_facts(runner, path, True)
    continue_mapped(runner, path, "10", channels=2, offset=OFFSET)


def sparse(runner):
    """As libvirt lets QEMU 10 write it: mapped-ram behind the header, whose offsets count from the start of the file."""
    qemu, path = runner.world.guest("10"), runner.path("vm.save")
    with open(path, "wb") as file:
        file.write(header(PARTIAL, SPARSE))
    qemu.save(f"file:{path},offset={OFFSET}", "mapped-ram", "multifd")
    qemu.quit()
    set_header(path, format=SPARSE)
    runner.must("verify", path)
    check_facts(runner, path, True)
    classic = runner.path("classic")
    runner.must("convert", "--to", "classic", path, classic)
    continue_from(runner, replay(runner, classic), "10")
    # A page beyond the end of the file is missed here too.
    with qevm.Stream(path, OFFSET) as stream:
        block = stream.walk().block("pc.ram")
    os.truncate(path, block.pages + block.length // 2)
    runner.must("verify", path, expect=MALFORMED)


def run(runner):
    runner.case("libvirt: capture --offset keeps the header, the image continues", captured)
    runner.case("libvirt: capture --mapped --offset is a sparse image that QEMU 10 loads", captured_mapped)
    runner.case("libvirt: the sparse image that QEMU 10 writes is good, made classic it continues", sparse)
