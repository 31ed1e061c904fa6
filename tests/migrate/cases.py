# SPDX-License-Identifier: LGPL-2.1-or-later
"""All cases in their order: one guest lives through as many of them as it can."""

from . import failed, fenced, files, killed, undisturbed, versions


def run(runner):
    world = runner.world
    world.use(stock=True)
    runner.case("qemu-pr-helper loses the reservation", undisturbed.stock_helper_loses_the_reservation)
    world.use()
    for part in (undisturbed, fenced, failed, killed, files):
        part.run(runner)
    world.use(with_qmp=False)
    for part in (undisturbed, failed):
        part.run_without_monitor(runner)
    versions.run(runner)
