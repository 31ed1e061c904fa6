# SPDX-License-Identifier: LGPL-2.1-or-later
"""Truncations, flipped bytes, kills, and the faults that QEMU does not survive, in the order in which the cases run."""

from . import faults_cut, faults_flip, faults_hostile, faults_kill, faults_place, faults_table


def run(runner):
    for part in (faults_cut, faults_flip, faults_kill, faults_table, faults_place, faults_hostile):
        part.cases(runner)
