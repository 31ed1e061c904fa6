# SPDX-License-Identifier: LGPL-2.1-or-later
"""Truncations, flipped bytes, kills, and the faults that QEMU does not survive, in the order in which the cases run."""


def run(runner):
    pass
