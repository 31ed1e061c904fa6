# SPDX-License-Identifier: LGPL-2.1-or-later
"""Real QEMU, in the order in which the cases run."""

from . import disks, foreign, libvirt, saves


def run(runner):
    saves.run(runner)
    foreign.run(runner)
    libvirt.run(runner)
    disks.run(runner)
