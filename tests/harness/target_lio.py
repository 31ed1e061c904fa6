# SPDX-License-Identifier: LGPL-2.1-or-later
"""LIO, the kernel's target, set up through configfs. Only inside the lab guest (scripts/lab): it owns the whole of LIO."""

import os
import time

from . import nexus

TARGET = "/sys/kernel/config/target"
LIMIT = 10.0
PORTAL = ("127.0.0.1", 3260)


def _write(path, text):
    with open(path, "w") as file:
        file.write(text)


def make_disk(number, megabytes=4):
    """A file behind LIO's fileio; returns its configfs folder."""
    folder = f"{TARGET}/core/fileio_{number}/disk{number}"
    os.makedirs(folder)
    path = f"/run/lab/disk{number}"
    with open(path, "wb") as disk:
        disk.truncate(megabytes << 20)
    _write(f"{folder}/control", f"fd_dev_name={path},fd_dev_size={megabytes << 20}")
    _write(f"{folder}/wwn/vpd_unit_serial", f"holdfast{number:04d}")
    _write(f"{folder}/enable", "1")
    return folder


def _scsi_disks():
    return {name for name in os.listdir("/sys/block") if name.startswith("sd")}


class _Lio:
    """What both front ends of LIO share."""

    name = "lio"
    full_status = True
    login_keeps_nexus = True

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """The guest is thrown away."""


class LoopTarget(_Lio):
    """tcm_loop: every name of nexuses is one more disk node of the same LUs, one more host."""

    def __init__(self, nexuses, n_luns=1, first_disk=0):
        self.disks = [make_disk(first_disk + n) for n in range(n_luns)]
        self.nodes = {}
        for number, name in enumerate(nexuses):
            before = _scsi_disks()
            address = f"{0x5001405000000000 + (first_disk << 8) + number:016x}"
            tpg = f"{TARGET}/loopback/naa.{address}/tpgt_1"
            os.makedirs(tpg)
            _write(f"{tpg}/nexus", f"naa.{0x6001405000000000 + (first_disk << 8) + number:016x}")
            self.nodes[name] = []
            for lun, disk in enumerate(self.disks):
                os.mkdir(f"{tpg}/lun/lun_{lun}")
                os.symlink(disk, f"{tpg}/lun/lun_{lun}/disk")
                self.nodes[name].append(self._wait_new(before))
                before.add(self.nodes[name][-1])

    @staticmethod
    def _wait_new(before):
        """The kernel scans the new LU by itself and makes the node."""
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            new = [name for name in _scsi_disks() - before if os.path.exists(f"/dev/{name}")]
            if new:
                return new[0]
            time.sleep(0.01)  # between two looks at sysfs, which has no event to wait for
        raise RuntimeError("a tcm_loop LU has no node")

    def host_options(self, name):
        return []

    def device(self, name, lun=1):
        return f"/dev/{self.nodes[name][lun - 1]}"

    def nexus(self, name, lun=1):
        return nexus.SgNexus(self.device(name, lun))


class LioIscsiTarget(_Lio):
    """iSCSI on the guest's loopback, any initiator name may log in. LIO wants one IQN for each nexus."""

    name = "lio-iscsi"

    def __init__(self, n_luns=1, first_disk=100, target="iqn.2026-11.org.holdfast.test:lio"):
        self.target, self.port = target, PORTAL[1]
        tpg = f"{TARGET}/iscsi/{target}/tpgt_1"
        os.makedirs(tpg)
        os.mkdir(f"{tpg}/np/{PORTAL[0]}:{PORTAL[1]}")
        for lun in range(n_luns):
            disk = make_disk(first_disk + lun)
            os.mkdir(f"{tpg}/lun/lun_{lun + 1}")
            os.symlink(disk, f"{tpg}/lun/lun_{lun + 1}/disk")
        for name, value in (("authentication", "0"), ("generate_node_acls", "1"), ("cache_dynamic_acls", "1"),
                            ("demo_mode_write_protect", "0")):
            _write(f"{tpg}/attrib/{name}", value)
        _write(f"{tpg}/enable", "1")

    def host_options(self, name):
        return ["--initiator-name", f"iqn.2026-11.org.holdfast.test:{name}", "--isid", "23d%06x" % (sum(name.encode()) & 0xFFFF)]

    def device(self, name, lun=1):
        return f"iscsi://{PORTAL[0]}:{PORTAL[1]}/{self.target}/{lun}"

    def nexus(self, name, lun=1):
        return nexus.IscsiNexus(PORTAL, self.target, lun, f"iqn.2026-11.org.holdfast.test:{name}")
