# SPDX-License-Identifier: LGPL-2.1-or-later
"""The VM is saved to a file and QEMU quits: the LU stays as it was. The file is restored later, elsewhere, on what the LU is then."""

import time

from harness.tap import check_equal

from .processes import wait_until
from .world import KX


def save_to_file(world, type):
    """Returns the file and when it was complete; the VM is nowhere."""
    world.reserve(type)
    world.start_writing()
    world.await_writes()
    source = world.qemu
    path = f"{source.folder}/vm.saved"
    source.set_capabilities(return_path=False, events=True)
    source.qmp("migrate", uri=f"exec:cat >{path}")
    wait_until(lambda: source.migration() in ("completed", "failed"), "the VM to be saved")
    check_equal(source.migration(), "completed", "the end of saving")
    world.stopped_ms = source.qmp("query-migrate").get("downtime", 0)
    saved_at = time.monotonic()
    held, host = world.holds(), world.host
    source.quit()
    wait_until(lambda: "release" in host.helper.log(), "the helper to look whether something is left over")
    check_equal(world.holds(), held, "what the LU holds after the VM was saved to a file and QEMU has quit")
    return path, saved_at


def restore(world, host, path, saved_at):
    qemu = world.new_qemu(host.name, incoming=True)
    world.others.append(qemu)
    qemu.qmp("migrate-incoming", uri=f"exec:cat {path}")
    wait_until(qemu.running, "the restored VM to run")
    world.stopped_ms += (time.monotonic() - saved_at) * 1000
    world.n_stops += 1
    world.others.remove(qemu)
    world.moved(qemu)


def restored_undisturbed(world, type):
    host, left = world.other(), world.host
    saved = save_to_file(world, type)
    restore(world, host, *saved)
    world.await_holder(type, host.name)
    world.await_writes()
    world.check_writes()
    world.check_left(left, type)


def restored_after_take_over(world, type):
    """Another node took the reservation over, key and all: the restored VM is fenced."""
    host = world.other()
    saved = save_to_file(world, type)
    world.fence()
    restore(world, host, *saved)
    world.check_fenced()
    world.stop_writing()
    check_equal(world.judge().keys()[1], [KX], "keys")


def run(runner):
    for type in (1, 5):
        runner.case(f"saved to a file, restored on another host, type {type}", restored_undisturbed, type)
        runner.case(f"saved to a file, restored after another host took over, type {type}", restored_after_take_over, type)
