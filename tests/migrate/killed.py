# SPDX-License-Identifier: LGPL-2.1-or-later
"""A helper dies (SIGKILL) at any step and is started again at once: what was begun is finished or taken back, nothing is forgotten."""

import re
import signal

from harness.tap import Failure, check

from .failed import begin, check_as_before
from .processes import wait_until
from .world import Migration


def points_of_migration(world, type, victim):
    """What the helper of host victim goes through from here to the end of a migration: ["before-register#1", ...]"""
    source, host = world.host, world.other()
    world.reserve(type)
    victim.start_helper()
    world.migrate(host)
    world.await_holder(type, host.name)
    wait_until(lambda: "release: done" in source.helper.log(), "the source to look for leftovers")
    seen, numbered = {}, []
    for point in victim.points():
        seen[point] = seen.get(point, 0) + 1
        numbered.append(f"{point}#{seen[point]}")
    # What comes after a step comes before the next one, but for the last. Every disk is identified; one death there is enough.
    wanted = re.compile("before-(?!command|.*-sync|identify#[^1])")
    return [point for point in numbered if wanted.match(point)] + numbered[-1:]


def begin_beside(world, host, victim):
    """QEMU greets the helper when it starts, and ends when that dies in the greeting, as it does with any helper. The next one is there."""
    try:
        return Migration(world, host)
    except Failure as failure:
        if victim is not host:
            raise
        wait_until(lambda: victim.helper.deaths, lambda: f"a death of the helper, or QEMU to start: {failure}")
        victim.helper.wait_ready()
        world.note(f"QEMU greeted the helper that died: {str(failure).splitlines()[0]}")
        return Migration(world, host)


def killed_at(world, type, victim, point):
    """Before Load is answered the migration fails; after it, the next helper finishes what is left to do."""
    source, host = world.host, world.other()
    world.reserve(type)
    victim.start_helper(fail=f"{point}=kill")
    world.start_writing()
    world.await_writes()
    migration = begin_beside(world, host, victim).start()
    if migration.ended() == "failed":
        migration.failed()
        check_as_before(world, type)
    else:
        migration.completed()
        world.await_holder(type, host.name)
        world.await_writes()
        world.check_writes()
        world.check_left(source, type)
    wait_until(lambda: victim.helper.n_starts == 2, lambda: f"a death at {point}")


def destination_helper_killed(world, type):
    points = points_of_migration(world, type, world.other())
    world.note(" ".join(points))
    check(len(points) >= 6, "points of a migration", points)
    for point in points:
        world.fresh()
        killed_at(world, type, world.other(), point)


def source_helper_killed(world, type):
    points = points_of_migration(world, type, world.host)
    world.note(" ".join(points))
    check(len(points) >= 4, "points of a migration", points)
    for point in points:
        world.fresh()
        killed_at(world, type, world.host, point)


def source_helper_killed_before_save(world, type):
    """A helper that was started again knows from its journal what the guest holds."""
    world.reserve(type)
    world.start_writing()
    world.await_writes()
    left = world.host
    left.helper.kill_once()
    left.bus.wait_name()
    world.migrate()
    world.await_holder(type, world.host.name)
    world.await_writes()
    world.check_writes()
    world.check_left(left, type)


def source_helper_killed_after_save(world, type):
    """The source's helper dies while the destination loads; its leftovers go all the same."""
    migration, host = begin(world, type)
    left = world.host
    left.helper.kill_once()
    host.helper.signal(signal.SIGCONT)
    migration.completed()
    world.await_holder(type, world.host.name)
    world.await_writes()
    world.check_writes()
    world.check_left(left, type)


def source_helper_killed_after_completion(world, type):
    """It dies between the end of the migration and the end of the source's QEMU."""
    world.reserve(type)
    world.start_writing()
    world.await_writes()
    left = world.host
    migration = Migration(world).start().completed(quit=False)
    left.helper.kill_once()
    world.others.remove(migration.source)
    migration.source.quit()
    world.await_holder(type, world.host.name)
    world.await_writes()
    world.check_writes()
    world.check_left(left, type)


def source_helper_killed_then_failed(world, type):
    """It dies after Save, and the migration fails: the next helper takes back, or finds nothing to do."""
    migration, host = begin(world, type)
    world.host.helper.kill_once()
    migration.destination.kill()
    host.helper.signal(signal.SIGCONT)
    migration.failed()
    check_as_before(world, type, restarted=True)


def run(runner):
    for type in (1, 5):
        runner.case(f"destination's helper killed at each step, type {type}", destination_helper_killed, type)
    runner.case("source's helper killed at each step, type 5", source_helper_killed, 5)
    for type in (1, 5, 7):
        runner.case(f"source's helper killed before Save, type {type}", source_helper_killed_before_save, type)
        runner.case(f"source's helper killed after Save, type {type}", source_helper_killed_after_save, type)
        runner.case(f"source's helper killed after completion, type {type}", source_helper_killed_after_completion, type)
        runner.case(f"source's helper killed after Save, the migration fails, type {type}", source_helper_killed_then_failed, type)
