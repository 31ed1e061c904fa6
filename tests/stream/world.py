# SPDX-License-Identifier: LGPL-2.1-or-later
"""The machines of the suite: QEMU 7.2, 10 and 11 with a Linux guest that checks its own memory (guest.c). No KVM, no root.

A guest boots once for each machine type; its state, saved by `cat`, is where every case starts.
"""

import os
import shutil
import subprocess
import tempfile

from harness.tap import Failure, check, check_equal
from migrate.processes import LIMIT, Monitor, Process, connect, wait_until

HERE = os.path.dirname(os.path.abspath(__file__))
SCRIPTS = os.path.join(HERE, "..", "..", "scripts")
# Not a multiple of 256 KiB: for such blocks QEMU's emulation forgot, until 8.2, to look at what the processor writes after the first
# round over memory ("physmem: Fix migration dirty bitmap coherency with TCG memory access").
RAM = (160 << 20) + 8192
RAM_BLOCK = "pc.ram"
BOOT_LIMIT = 150
N_PAGES = 20480  # guest.c
MAGIC = b"HFGUEST1"
# What a file needs besides the guest's RAM: firmware and the like are less than 2 MiB, devices less than 1 MiB.
SLACK = 4 << 20

MACHINES = {"7.2": "pc-q35-7.2", "10": "pc-q35-10.0", "11": "q35"}


def build_initrd(folder, source, modules=()):
    """The initrd of a guest whose /init is that program, and which finds these modules in the order in which it loads them."""
    tree = os.path.join(folder, "tree")
    os.makedirs(os.path.join(tree, "modules"))
    subprocess.run([os.environ.get("CC", "gcc"), "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-pthread", "-o",
                    os.path.join(tree, "init"), source], check=True)
    for number, module in enumerate(modules):
        shutil.copy(module, os.path.join(tree, "modules", f"{number:03}-{os.path.basename(module)}"))
    names = subprocess.run(["find", "."], cwd=tree, check=True, stdout=subprocess.PIPE).stdout
    with open(os.path.join(folder, "initrd"), "wb") as file:
        subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], cwd=tree, input=names, stdout=file, check=True)
    shutil.rmtree(tree)
    return file.name


def kernel_files(*modules):
    """The kernel's file, then those of the modules."""
    done = subprocess.run([os.path.join(SCRIPTS, "lab"), "--kernel", *modules], check=True, stdout=subprocess.PIPE, text=True)
    files = done.stdout.split()
    return [name for name in files if not name.endswith(".ko")] + [name for name in files if name.endswith(".ko")]


class Version:
    """How to start one version of QEMU. Not by chroot: what exec: starts must be a program of this machine."""

    def __init__(self, name):
        self.name, self.env = name, {}
        if name == "7.2":
            self.command = ["qemu-system-x86_64"]
            return
        done = subprocess.run([os.path.join(SCRIPTS, "fetch-qemu"), name], check=True, stdout=subprocess.PIPE, text=True)
        root = done.stdout.strip()
        libraries = os.path.join(root, "usr/lib/x86_64-linux-gnu")
        self.loader = [os.path.join(root, "usr/lib64/ld-linux-x86-64.so.2"), "--library-path", libraries]
        self.command = [*self.loader, os.path.join(root, "usr/bin/qemu-system-x86_64"),
                        "-L", os.path.join(root, "usr/share/qemu"), "-L", os.path.join(root, "usr/share/seabios")]
        self.env = {"QEMU_MODULE_DIR": os.path.join(libraries, "qemu")}

    def preloading(self, module):
        """command with one more library in QEMU alone, not in what it starts."""
        return [*self.loader, "--preload", module, *self.command[len(self.loader):]]


class Guest:
    """What runs in the machine, on its second serial line: guest.c."""

    def __init__(self, qemu, limit=LIMIT):
        self.qemu = qemu
        self.socket = wait_until(lambda: connect(qemu.guest_path), "the guest's serial line")
        self.socket.settimeout(limit)
        self.file = self.socket.makefile("r")

    def line(self):
        try:
            line = self.file.readline().strip()
        except OSError as error:
            raise Failure(f"the guest says nothing: {error}\n{self.qemu.log()[-2000:]}") from None
        check(line, f"the guest's line was closed\n{self.qemu.log()[-2000:]}")
        return line

    def call(self, text):
        self.socket.sendall(text.encode() + b"\n")
        return self.line()

    def must(self, text):
        line = self.call(text)
        check(line.split()[0] == "ok", f"{text}: the guest says {line!r}")
        return line.split()[1:]

    def written(self):
        return int(self.must("stat")[0])

    def close(self):
        self.file.close()
        self.socket.close()


class Qemu(Process):
    """One QEMU, which boots or waits for a migration, with its monitor."""

    count = 0

    def __init__(self, world, version, machine=None, incoming=None, prefix=(), preload=None, env=None, devices=(), initrd=None,
                 append=""):
        """version, machine: names of MACHINES. prefix: what runs QEMU. incoming: "defer", or a URI, whose end is not waited for."""
        Qemu.count += 1
        self.world, self.version = world, world.version(version)
        self.guest_path, monitor_path = (os.path.join(world.sockets, f"{name}{Qemu.count}") for name in ("g", "m"))
        self.guest = None
        arguments = [*prefix, *(self.version.preloading(preload) if preload else self.version.command),
                     "-M", MACHINES[machine or version], "-accel", "tcg", "-cpu", "qemu64", "-m", f"{RAM >> 10}K", "-nodefaults",
                     "-no-user-config", "-display", "none", "-no-reboot", "-kernel", world.kernel, "-initrd", initrd or world.initrd,
                     "-append", f"console=ttyS0 quiet panic=-1 mitigations=off {append}",
                     "-serial", f"file:{world.root}/console-{Qemu.count}",
                     "-chardev", f"socket,id=guest,path={self.guest_path},server=on,wait=off", "-serial", "chardev:guest",
                     "-qmp", f"unix:{monitor_path},server=on,wait=off", *devices, *(["-incoming", incoming] if incoming else [])]
        super().__init__(f"qemu-{version}-{Qemu.count}", arguments, world.root, {**self.version.env, **(env or {})})
        world.running.append(self)
        try:
            self.qmp = Monitor(monitor_path, self)
        except Failure:
            self.qmp = None
            if not incoming or incoming == "defer":
                raise

    def hello(self, limit=LIMIT):
        """The guest, which runs here now."""
        self.guest = Guest(self, limit)
        return self.guest

    def set(self, **parameters):
        self.qmp("migrate-set-parameters", **{name.replace("_", "-"): value for name, value in parameters.items()})

    def capabilities(self, *names):
        self.qmp("migrate-set-capabilities", capabilities=[{"capability": name, "state": True} for name in names])

    def migration(self):
        return self.qmp("query-migrate")

    def await_status(self, *wanted, limit=LIMIT):
        """The answer to query-migrate as soon as its status is one of these."""
        def look():
            seen = self.migration()
            check(seen.get("status") in wanted or seen.get("status") not in ("completed", "failed", "cancelled"),
                  f"{self.name}: the migration is {seen.get('status')}, not {' or '.join(wanted)}: {seen.get('error-desc')}",
                  self.log()[-2000:])
            return seen if seen.get("status") in wanted else None

        return wait_until(look, lambda: f"{self.name}: migration {wanted}: {self.migration()}", limit)

    def save(self, uri, *capabilities, **parameters):
        """The whole of a migration to uri, as fast as it goes."""
        self.capabilities(*capabilities)
        self.set(max_bandwidth=1 << 40, **parameters)
        self.qmp("migrate", uri=uri)
        return self.await_status("completed")

    def save_live(self, uri, rate=5000, rounds=4, sent=0):
        """A migration to uri while the guest writes, faster than the second round and those after it let it catch up: so many rounds,
        and so many bytes, before it may end. The caller looks at what was sent whether pages were sent again."""
        self.guest.must(f"start {rate}")
        before = self.guest.written()
        wait_until(lambda: self.guest.written() > before, "the guest to write")
        self.set(max_bandwidth=192 << 20, downtime_limit=1)
        self.qmp("migrate", uri=uri)
        self._await_sent(rounds=2)
        self.set(max_bandwidth=24 << 20)
        self._await_sent(rounds, sent)
        self.set(max_bandwidth=1 << 40, downtime_limit=5000)
        return self.await_status("completed")

    def _await_sent(self, rounds, sent=0):
        def look():
            seen = self.await_status("setup", "active", "device", "completed")
            ram = seen.get("ram", {})
            return seen["status"] == "completed" or (ram.get("dirty-sync-count", 0) >= rounds and ram.get("transferred", 0) >= sent)

        wait_until(look, lambda: f"round {rounds} over memory, {sent} bytes: {self.migration()}")

    def load(self, uri, *capabilities, **parameters):
        """Into a QEMU that was started with incoming="defer"."""
        self.capabilities(*capabilities)
        if parameters:
            self.set(**parameters)
        self.qmp("migrate-incoming", uri=uri)
        return self.await_loaded()

    def await_loaded(self):
        """The guest runs on here; it, or the failure with QEMU's own words."""
        def look():
            check(self.alive(), f"{self.name} ended with {self.process.poll()}\n{self.log()[-2000:]}")
            return self.qmp("query-status")["status"] == "running"

        check(self.qmp, f"{self.name} ended with {self.process.poll()}\n{self.log()[-2000:]}")
        wait_until(look, lambda: f"{self.name}: the guest to run: {self.qmp('query-status')}")
        return self.hello()

    def check_memory(self):
        """The guest's own verdict."""
        check_equal(self.guest.call("check"), f"ok {N_PAGES}", f"{self.name}: the guest checks its memory")

    def end(self):
        if self.guest:
            self.guest.close()
        if self.qmp:
            self.qmp.close()
        if self.alive():
            self.kill()

    def quit(self):
        """As management ends the source of a migration."""
        self.qmp("quit")
        self.wait()
        self.end()


class World:
    def __init__(self, runner, root):
        self.runner, self.root = runner, root
        self.sockets = tempfile.mkdtemp(prefix="hf-")  # their names must be short
        self.running, self._made = [], {}

    def _once(self, key, make):
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def version(self, name):
        return self._once(("version", name), lambda: Version(name))

    @property
    def kernel(self):
        return self._once("kernel", lambda: kernel_files()[0])

    @property
    def initrd(self):
        def make():
            return build_initrd(os.path.join(self.root, "guest"), os.path.join(HERE, "guest.c"))

        return self._once("initrd", make)

    # Guests

    def qemu(self, version, **named):
        return Qemu(self, version, **named)

    def snapshot(self, machine):
        """The classic stream of a guest that has booted on that version of QEMU, as `cat` wrote it. Who changes it copies it."""
        def make():
            path = os.path.join(self.root, f"snapshot-{machine}")
            qemu = self.qemu(machine)
            try:
                check_equal(qemu.hello(BOOT_LIMIT).line(), "ready", "the guest's first word")
                qemu.check_memory()
                qemu.save(f"exec:cat > '{path}'")
                qemu.quit()
            finally:
                qemu.end()
            return path

        return self._once(("snapshot", machine), make)

    def guest(self, version, machine=None, **named):
        """A QEMU whose guest runs, from the snapshot of its machine type."""
        machine = machine or version
        qemu = self.qemu(version, machine=machine, incoming=f"exec:cat '{self.snapshot(machine)}'", **named)
        qemu.await_loaded()
        return qemu

    def mapped(self):
        """QEMU 10's own mapped-ram file of a guest. Who changes it copies it."""
        def make():
            path = os.path.join(self.root, "mapped-10")
            qemu = self.guest("10")
            qemu.save(f"file:{path}", "mapped-ram")
            qemu.end()
            return path

        return self._once("mapped", make)

    # The ends of cases

    def story(self):
        """What the machines of the case said."""
        return "\n".join(f"--- {qemu.name}, {qemu.process.poll()}\n{qemu.log()[-1500:]}" for qemu in self.running)

    def end_case(self):
        for qemu in self.running:
            qemu.end()
        self.running = []

    def end(self):
        self.end_case()
        shutil.rmtree(self.sockets, ignore_errors=True)
