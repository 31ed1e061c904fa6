# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reservations in a stream: QEMU 11 puts scsi-disk/pr of each disk into it and, through dbus-vmstate, holdfast's record; inspect
compares both with a real target.

The disks of the VM are files that the SG_IO stand-in makes devices of (tests/fake/sgio-standin.h), their commands reach tgt. The guest is
the one of the migrations, tests/migrate/agent.c.
"""

import os

from harness.nexus import PREEMPT, REGISTER_AND_IGNORE
from harness.tap import check, check_equal
from harness.target_tgt import TgtTarget
from migrate.processes import Bus
from protocol import helper

from .foreign import inspect
from .saves import capture, check_committed
from .world import BOOT_LIMIT, HERE, build_initrd, kernel_files

KEYS = (0xABC0, 0xABC1)
OTHER_KEY = 0xD00D
EXCLUSIVE = 5  # EXCLUSIVE ACCESS - REGISTRANTS ONLY
CHANGED = 41
REFUSED = 43
USAGE = 1
SECTIONS = [f"0000:00:01.0/0:{number}:0/scsi-disk" for number in range(2)]
SIZE = 4 << 20


class Storage:
    """A target, what makes its LUs devices, and the helper of the VM."""

    def __init__(self, runner):
        self.folder = runner.folder
        self.target = TgtTarget(n_luns=3)
        self.broker = self.helper = self.bus = None
        try:
            self.broker = helper.Broker(self.folder)
            self.bus = Bus(self.folder)
            self.helper = helper.Helper(helper.ours(), self.folder, self.broker.path,
                                        options=["--state-dir", self.folder, "--vmstate-bus", self.bus.address])
            self.bus.wait_name()
        except BaseException:
            self.end()
            raise

    def device(self, lun):
        path = os.path.join(self.folder, f"lu{lun}")
        with open(path, "w") as file:
            file.write(f"url={self.target.address(lun)} initiator=iqn.2026-11.org.holdfast.test:vm\n")
        # QEMU takes the size of the file for that of the disk.
        os.truncate(path, SIZE)
        os.utime(path, ns=(0, helper.MARKER_SECOND * 10**9 + 500 + lun))
        return path

    def devices(self):
        """The words for QEMU: disk N is LU N + 1."""
        words = ["-object", f"pr-manager-helper,id=pr,path={self.helper.path}", "-device", "virtio-scsi-pci,id=scsi",
                 "-object", f"dbus-vmstate,id=dv,addr={self.bus.address},id-list=holdfast"]
        for number in range(2):
            words += ["-blockdev", f"node-name=disk{number},driver=host_device,filename={self.device(number + 1)},pr-manager=pr",
                      "-device", f"scsi-block,drive=disk{number},bus=scsi.0,channel=0,scsi-id={number},lun=0,share-rw=on,rerror=report,"
                                 "werror=report,migrate-pr=on"]
        return words

    def environment(self):
        return {"HOLDFAST_STANDIN_SOCKET": self.broker.path}

    def end(self):
        for process in (self.helper, self.bus):
            if process:
                process.kill()
        if self.broker:
            self.broker.stop()
        self.target.stop()


def boot(runner, storage):
    kernel, *modules = kernel_files("virtio_pci", "virtio_scsi", "sd_mod", "sg")
    initrd = build_initrd(runner.path("agent"), os.path.join(HERE, "..", "migrate", "agent.c"), modules)
    check_equal(kernel, runner.world.kernel, "the kernel of the modules")
    qemu = runner.world.qemu("11", preload=helper.standin(), env=storage.environment(), devices=storage.devices(), initrd=initrd,
                             append="disks=2")
    check_equal(qemu.hello(BOOT_LIMIT).line(), "ready 2", "the guest's first word")
    return qemu


def reserve(qemu):
    """Both disks get their key, the first one is reserved."""
    for number, key in enumerate(KEYS):
        check_equal(qemu.guest.call(f"ready {number}"), "ok 00 0/0000", f"disk {number} is ready")
        check_equal(qemu.guest.call(f"pr {number} {REGISTER_AND_IGNORE} 0 0 {key:x}"), "ok 00 0/0000", f"the guest registers on {number}")
    check_equal(qemu.guest.call(f"pr 0 1 {EXCLUSIVE} {KEYS[0]:x} 0"), "ok 00 0/0000", "the guest reserves disk 0")


def found(facts):
    return [(entry["section"], entry["key"], entry["type"], entry["compared"]) for entry in facts["reservations"]]


def expected(*compared):
    return [(section, f"0x{key:x}", type, how) for section, key, type, how in zip(SECTIONS, KEYS, (EXCLUSIVE, 0), compared)]


def inspected(runner):
    storage = Storage(runner)
    try:
        qemu, path = boot(runner, storage), runner.path("vm.hf")
        reserve(qemu)
        qemu.save(capture(runner, path))
        check_committed(runner, path)
        qemu.quit()
        runner.must("verify", path)
        addresses = [storage.target.address(lun) for lun in (1, 2, 3)]
        maps = [word for section, address in zip(SECTIONS, addresses) for word in ("--map", f"{section}={address}")]

        check_nothing_guessed(runner, path)
        check_same(runner, path, maps, addresses)
        check_swapped(runner, path, addresses)
        check_changed(runner, path, storage, maps, addresses)
    finally:
        storage.end()


def check_nothing_guessed(runner, path):
    """No LU was named: what is in the file is shown, and nothing compared."""
    facts = inspect(runner, path, "--offline")
    check_equal(found(facts), expected("unmapped", "unmapped"), "scsi-disk/pr without a map")
    check(all("lu" not in entry for entry in facts["reservations"]), "an LU was guessed", facts["reservations"])
    pr = [part for section in facts["sections"] for part in section["subsections"] if part["name"] == "scsi-disk/pr"]
    check_equal([part["length"] for part in pr], [27, 27], "lengths of the subsections")
    with open(path, "rb") as file:
        file.seek(pr[0]["offset"])
        check_equal(file.read(27), b"\x05\x0cscsi-disk/pr\0\0\0\1" + KEYS[0].to_bytes(8, "big") + bytes([EXCLUSIVE]), "what lies there")


def check_same(runner, path, maps, addresses):
    facts = inspect(runner, path, *maps[:2], "--initiator-name", "iqn.2026-11.org.holdfast.test:inspect")
    check_equal(found(facts), expected("same", "unmapped"), "scsi-disk/pr with one map")
    facts = inspect(runner, path, *maps, "--initiator-name", "iqn.2026-11.org.holdfast.test:inspect")
    check_equal(found(facts), expected("same", "same"), "scsi-disk/pr with both maps")
    # A section that has none, or is none.
    for section in ("0000:00:01.0/virtio-scsi", "ram", ""):
        inspect(runner, path, "--map", f"{section}={addresses[0]}", expect=USAGE)


def check_swapped(runner, path, addresses):
    """What a map says is not corrected: the wrong LU is another one."""
    facts = inspect(runner, path, "--map", f"{SECTIONS[0]}={addresses[1]}", "--map", f"{SECTIONS[1]}={addresses[2]}", expect=CHANGED)
    check_equal(found(facts), expected("different", "different"), "scsi-disk/pr with the wrong maps")


def check_changed(runner, path, storage, maps, addresses):
    """holdfast's record of the same VM; then another node takes the reservation away."""
    facts = inspect(runner, path, *addresses[:2])
    records = [entry["record"] for section in facts["vmstate"] for entry in section["entries"] if entry["record"]]
    check_equal(len(records), 1, f"records in {facts['vmstate']}")
    check(records[0]["compared"] and not records[0]["not_compared"], "the record was not compared", records[0])
    judge = storage.target.nexus("judge", 1)
    try:
        check_equal(judge.pr_out(REGISTER_AND_IGNORE, new_key=OTHER_KEY).status, 0, "the judge registers")
        check_equal(judge.pr_out(PREEMPT, key=OTHER_KEY, new_key=KEYS[0], type=EXCLUSIVE).status, 0, "the judge preempts")
    finally:
        judge.close()
    facts = inspect(runner, path, *maps, expect=CHANGED)
    check_equal(found(facts), expected("different", "same"), "scsi-disk/pr after the preemption")
    inspect(runner, path, *addresses[:2], expect=CHANGED)
    inspect(runner, path, addresses[2], expect=REFUSED)


def run(runner):
    runner.case("QEMU 11.1: scsi-disk/pr and holdfast's record in its stream, compared with the LUs", inspected)
