# SPDX-License-Identifier: LGPL-2.1-or-later
"""LIO, the kernel's target, set up through configfs. Only inside the lab guest (scripts/lab): it owns the whole of LIO."""

import os
import time

from . import nexus

TARGET = "/sys/kernel/config/target"
LIMIT = 10.0


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


class _Lio:
    """What both front ends of LIO share."""

    name = "lio"
    full_status = True
    login_keeps_nexus = True
    node_is_nexus = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """The guest is thrown away."""


class LoopTarget(_Lio):
    """tcm_loop: every name of nexuses is one more disk node of the same LUs, one more host. first_disk keeps several targets of one
    guest apart."""

    node_is_nexus = True

    def __init__(self, nexuses, n_luns=1, first_disk=0, megabytes=4):
        self.disks = [make_disk(first_disk + n, megabytes) for n in range(n_luns)]
        self.nodes = {}
        for number, name in enumerate(nexuses):
            tpg = f"{TARGET}/loopback/naa.{0x5001405000000000 + (first_disk << 8) + number:016x}/tpgt_1"
            os.makedirs(tpg)
            _write(f"{tpg}/nexus", f"naa.{0x6001405000000000 + (first_disk << 8) + number:016x}")
            for lun, disk in enumerate(self.disks):
                os.mkdir(f"{tpg}/lun/lun_{lun}")
                os.symlink(disk, f"{tpg}/lun/lun_{lun}/disk")
            with open(f"{tpg}/address") as file:
                address = file.read().strip()
            self.nodes[name] = [self._wait_node(f"{address}:{lun}") for lun in range(n_luns)]

    @staticmethod
    def _wait_node(address):
        """The kernel scans the new LU by itself and makes the node."""
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            try:
                name = os.listdir(f"/sys/bus/scsi/devices/{address}/block")[0]
                os.close(os.open(f"/dev/{name}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))  # there is a node before it can be opened
                return name
            except (OSError, IndexError):
                pass
            time.sleep(0.01)  # between two looks at sysfs, which has no event to wait for
        raise RuntimeError(f"the tcm_loop LU {address} has no node")

    def host_options(self, name):
        return []

    def device(self, name, lun=1):
        return f"/dev/{self.nodes[name][lun - 1]}"

    def nexus(self, name, lun=1):
        return nexus.SgNexus(self.device(name, lun))


class LioIscsiTarget(_Lio):
    """iSCSI on the guest's loopback, any initiator name may log in. LIO wants one IQN for each nexus."""

    name = "lio-iscsi"

    def __init__(self, n_luns=1, first_disk=100):
        self.target, self.portal = f"iqn.2026-11.org.holdfast.test:lio{first_disk}", ("127.0.0.1", 3260 + first_disk)
        tpg = f"{TARGET}/iscsi/{self.target}/tpgt_1"
        os.makedirs(tpg)
        os.mkdir(f"{tpg}/np/{self.portal[0]}:{self.portal[1]}")
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
        return f"iscsi://{self.portal[0]}:{self.portal[1]}/{self.target}/{lun}"

    def nexus(self, name, lun=1):
        return nexus.IscsiNexus(self.portal, self.target, lun, f"iqn.2026-11.org.holdfast.test:{name}")
