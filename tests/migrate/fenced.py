# SPDX-License-Identifier: LGPL-2.1-or-later
"""A VM that was fenced stays fenced, whenever it happened: its key is on no nexus, and its writes fail."""

import signal

from .processes import wait_until
from .world import Migration

# The steps of a move (doc/testing.md). before-observe: Save was answered, and Load has not looked yet.
LOAD = ("before-observe", "before-register", "before-verify-register")
COMMIT = ("before-take-over", "before-verify-take-over")


def fenced_before_save(world, type):
    world.reserve(type)
    world.start_writing()
    world.await_writes()
    world.fence()
    world.await_writes(5, what="failed")
    world.migrate()
    world.check_fenced()
    world.stop_writing()


def fenced_at(world, type, point):
    """The destination's helper stops at point, the judge fences, the helper goes on."""
    host = world.other()
    host.start_helper(fail=f"{point}#1=stop")
    world.reserve(type)
    world.start_writing()
    world.await_writes()
    migration = Migration(world, host).start()
    wait_until(host.helper.stopped, lambda: f"the helper to stop at {point}; it reached {host.points()}")
    world.fence()
    host.helper.signal(signal.SIGCONT)
    migration.completed()
    world.check_fenced()
    world.stop_writing()


def run(runner):
    for type in (1, 5, 7):
        runner.case(f"fenced before Save, type {type}", fenced_before_save, type)
    for type in (1, 5, 7):
        for point in (*LOAD, *(COMMIT if type != 7 else ())):
            runner.case(f"fenced {point}, type {type}", fenced_at, type, point)
