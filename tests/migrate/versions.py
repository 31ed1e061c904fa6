# SPDX-License-Identifier: LGPL-2.1-or-later
"""Other versions of QEMU than Debian 12's: one migration that works and one that fails, of each."""

import os

from . import failed, undisturbed


def run(runner):
    world = runner.world
    for name, folder, migrate_pr in (("QEMU 10", "QEMU_10", None), ("QEMU 11, migrate-pr=on", "QEMU_11", "on"),
                                     ("QEMU 11, migrate-pr=off", "QEMU_11", "off")):
        world.use(version=os.environ[folder], scsi_block=f",migrate-pr={migrate_pr}" if migrate_pr else "")
        runner.case(f"{name}: undisturbed, type 5", undisturbed.reservation_follows, 5)
        runner.case(f"{name}: destination killed after Load, type 5", failed.destination_killed_after_load, 5)
        runner.case(f"{name}: destination killed after Load, type 1", failed.destination_killed_after_load, 1)
