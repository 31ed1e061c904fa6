# SPDX-License-Identifier: LGPL-2.1-or-later
"""Nothing goes wrong: not one write fails, the destination holds what the source held, nothing is left on the source."""

from harness.tap import check, check_equal

from .world import EBADE, K, TWO_PATHS, TYPES


def stock_helper_loses_the_reservation(world):
    """What happens without holdfast, so that it is known that these tests can fail: the registration stays behind, writes fail."""
    world.reserve(5)
    left = world.host
    world.start_writing()
    world.await_writes()
    world.migrate()
    world.await_writes(10, what="failed")
    stat, failures = world.stop_writing()
    check_equal({failure[1] for failure in failures}, {EBADE}, "errors of the guest's writes")
    check(stat["last_failed"] > stat["last_good"], "writes work again", stat)
    check_equal(world.holds(), ({left.name: K}, [left.name], 5), "what the LU holds")


def reservation_follows(world, type):
    world.reserve(type)
    left = world.host
    world.start_writing()
    world.await_writes()
    world.migrate()
    world.await_holder(type, world.host.name)
    world.await_writes()
    world.check_writes()
    world.check_left(left, type)


def two_lus_follow(world):
    """Two LUs with different types and keys that are the same: each gets its own."""
    world.reserve(5, disk=0)
    world.reserve(1, disk=1)
    left = world.host
    world.start_writing(0, 1)
    world.await_writes()
    world.migrate()
    world.await_holder(5, world.host.name, disk=0)
    world.await_holder(1, world.host.name, disk=1)
    world.await_writes(disk=1)
    world.check_writes(0, 1)
    for disk, type in ((0, 5), (1, 1)):
        world.check_left(left, type, disk)


def two_paths_follow(world, type):
    """The guest's two paths of one LU share one key: both are registered on the destination, and none is lost on the way."""
    world.reserve(type, disk=TWO_PATHS[0])
    world.register(disk=TWO_PATHS[1])
    world.start_writing(*TWO_PATHS)
    world.await_writes(disk=TWO_PATHS[0])
    world.migrate()
    name = world.host.name
    world.await_holder(type, name, name + "2", disk=TWO_PATHS[0])
    for disk in TWO_PATHS:
        world.await_writes(disk=disk)
    world.check_writes(*TWO_PATHS)


def follows_many_times(world, type, count):
    """To and fro between two hosts, one with a monitor and one without; one writer all the time."""
    hosts = [world.other(), world.host]
    hosts[0].start_helper(with_qmp=False)
    world.reserve(type)
    world.start_writing()
    for number in range(count):
        world.migrate(hosts[number % 2])
    world.await_holder(type, world.host.name)
    world.await_writes()
    world.check_writes()


def follows_along_a_chain(world, type):
    """Over three hosts, at once from one to the next: no reservation stays on the way."""
    chain = [host for host in world.hosts.values() if host is not world.host] + [world.host]
    world.reserve(type)
    world.start_writing()
    for host in chain:
        world.migrate(host)
    world.await_holder(type, chain[-1].name)
    world.await_writes()
    world.check_writes()


def run(runner):
    for type in (0, *TYPES):
        runner.case(f"undisturbed, type {type}", reservation_follows, type)
    runner.case("undisturbed, two LUs", two_lus_follow)
    for type in (5, 6, 7):
        runner.case(f"undisturbed, two paths with one key, type {type}", two_paths_follow, type)
    runner.case("twenty migrations to and fro, type 5", follows_many_times, 5, 20)
    for type in (1, 5, 8):
        runner.case(f"a chain over three hosts, type {type}", follows_along_a_chain, type)


def run_without_monitor(runner):
    for type in (1, 5, 7):
        runner.case(f"without --qmp: undisturbed, type {type}", reservation_follows, type)
    for type in (3, 5):
        runner.case(f"without --qmp: a chain over three hosts, type {type}", follows_along_a_chain, type)
