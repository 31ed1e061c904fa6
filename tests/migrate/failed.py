# SPDX-License-Identifier: LGPL-2.1-or-later
"""The migration does not come to be and the VM goes on where it was. Types 5 to 8: not one write fails. Types 1 and 3 were taken over
in Load: writes fail inside the gap that the helper measures, and then work again."""

import signal

from harness.tap import check, check_equal

from .processes import wait_until
from .world import EBADE, LOOK_INSIDE, Migration

COMMITTED_IN_LOAD = (1, 3)


def last_step(type):
    """Of a Load: what comes after it is the answer."""
    return "after-verify-take-over" if type in COMMITTED_IN_LOAD else "after-verify-register"


def begin(world, type, paused=False):
    """A migration whose destination has done everything for Load except to answer. paused: it waits for `cont` then, as with libvirt."""
    host = world.other()
    host.start_helper(fail=f"{last_step(type)}#1=stop")
    world.reserve(type)
    world.start_writing()
    world.await_writes()
    migration = Migration(world, host)
    if paused:
        migration.destination.qmp("stop")
    migration.start()
    wait_until(host.helper.stopped, lambda: f"the helper to stop at {last_step(type)}; it reached {host.points()}")
    return migration, host


# A helper that is started again counts the gap from its own start; its VM may have run before, while the helper was started.
RESTART_MS = 10000


def check_as_before(world, type, restarted=False):
    """The source holds what it held, nothing is left on the destination; and writes failed only where they may. restarted: the source's
    helper is another one than that which answered Save."""
    world.await_holder(type, world.host.name)
    if type not in COMMITTED_IN_LOAD:
        world.await_writes()
        world.check_writes()
        return
    world.await_writes()
    stat, failures = world.stop_writing()
    if not failures:
        return
    check_equal({failure[1] for failure in failures}, {EBADE}, "errors of the guest's writes")
    check(stat["last_good"] > stat["last_failed"], "writes do not work again", stat)
    lost = stat["last_failed_ms"] - failures[0][2]
    gap = wait_until(lambda: world.host.vm(world.qemu.pid)["counters"]["last_gap_us"], "the gap to be measured") / 1000
    gap += RESTART_MS * restarted
    check(lost <= gap, f"writes failed for {lost} ms, longer than the gap of {gap:.0f} ms that the helper measured", stat)


def cancelled(world, type):
    """migrate_cancel while the destination is in Load. By then it may have received everything, and a QEMU that may start the VM by
    itself would: both sides would run, which no helper can mend."""
    migration, host = begin(world, type, paused=True)
    migration.source.qmp("migrate_cancel")
    host.helper.signal(signal.SIGCONT)
    migration.failed("cancelled")
    check_as_before(world, type)


def destination_killed_after_load(world, type):
    """Load is answered; the destination's QEMU, which was not let see the answer, is killed."""
    migration, host = begin(world, type)
    migration.destination.signal(signal.SIGSTOP)
    host.helper.signal(signal.SIGCONT)
    host.await_load(migration.destination.pid)
    migration.destination.kill()
    migration.failed()
    check_as_before(world, type)


def run(runner):
    for type in (1, 3, 5, 6, 7, 8):
        runner.case(f"destination killed after Load, type {type}", destination_killed_after_load, type)
        runner.case(f"migrate_cancel during Load, type {type}", cancelled, type)


def taken_back_without_monitor(world, type):
    """Nobody tells the helper that the VM runs here after all: writes fail until it sees the guest run, at the latest at the guest's
    next PERSISTENT RESERVE command."""
    migration, host = begin(world, type)
    migration.destination.kill()
    host.helper.signal(signal.SIGCONT)
    migration.failed()
    # On a busy machine the helper may see the guest run before the guest has come to its first write.
    source = world.host.helper
    wait_until(lambda: world.agent.stat(0)["failed"] or "reclaim: done" in source.log(),
               lambda: f"a failed write, or that the helper takes back: {world.agent.stat(0)}", look=LOOK_INSIDE)
    world.agent.call("in 0 0")
    check_as_before(world, type)


def run_without_monitor(runner):
    for type in (5, 7):
        runner.case(f"without --qmp: destination killed after Load, type {type}", destination_killed_after_load, type)
    for type in COMMITTED_IN_LOAD:
        runner.case(f"without --qmp: destination killed in Load, type {type}", taken_back_without_monitor, type)
