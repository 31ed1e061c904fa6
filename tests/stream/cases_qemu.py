# SPDX-License-Identifier: LGPL-2.1-or-later
"""Real QEMU, in the order in which the cases run."""


def run(runner):
    pass
