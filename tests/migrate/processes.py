# SPDX-License-Identifier: LGPL-2.1-or-later
"""The programs of a host, as processes: message bus, pr-helper, QEMU with its monitor. Every wait ends at a deadline."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
import time

from harness.host import end_with_parent
from harness.tap import Failure, check

# Much longer than anything takes, on a machine with a queue of ten processes too; QEMU itself gives a helper 25 s.
LIMIT = float(os.environ.get("HOLDFAST_TEST_LIMIT", "80"))
LOOK = 0.02  # between two looks at something that has no event to wait for


def wait_until(condition, text, limit=LIMIT, look=LOOK):
    """The first true value of condition()."""
    end = time.monotonic() + limit
    while True:
        value = condition()
        if value:
            return value
        check(time.monotonic() < end, f"waited {limit:.0f} s for: {text() if callable(text) else text}")
        time.sleep(look)


def connect(path):
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(path)
    except OSError:
        connection.close()
        return None
    return connection


class Process:
    """A program, its log, and its end."""

    def __init__(self, name, arguments, folder, env=None):
        self.name, self.arguments, self.env = name, arguments, env
        self.log_path = os.path.join(folder, f"{name}.log")
        self.process = None
        self.mark = os.path.getsize(self.log_path) if os.path.exists(self.log_path) else 0
        self.start()

    def start(self):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(self.arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env={**os.environ, **(self.env or {})}, preexec_fn=end_with_parent)

    @property
    def pid(self):
        return self.process.pid

    def alive(self):
        return self.process.poll() is None

    def ended(self):
        """How, as a number of subprocess; None if it runs on. What closed its sockets a moment ago is about to end."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(1)
        return self.process.poll()

    def stopped(self):
        """It stopped itself, or was stopped (SIGSTOP)."""
        with contextlib.suppress(OSError, IndexError):
            with open(f"/proc/{self.pid}/stat") as file:
                return file.read().rsplit(")", 1)[1].split()[0] == "T"
        return False

    def signal(self, number):
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    def kill(self):
        self.signal(signal.SIGKILL)
        self.process.wait(LIMIT)

    def wait(self, limit=LIMIT):
        try:
            return self.process.wait(limit)
        except subprocess.TimeoutExpired:
            raise Failure(f"{self.name} has not ended after {limit:.0f} s") from None

    def log(self):
        """What it wrote since the mark."""
        with contextlib.suppress(OSError):
            with open(self.log_path, "rb") as file:
                file.seek(self.mark)
                return file.read().decode(errors="replace")
        return ""

    def set_mark(self):
        self.mark = os.path.getsize(self.log_path)


class Bus(Process):
    """A message bus for dbus-vmstate alone."""

    CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path={path}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
    <allow own="*"/>
    <allow user="*"/>
  </policy>
</busconfig>
"""

    def __init__(self, folder):
        self.path = os.path.join(folder, "bus")
        self.address = f"unix:path={self.path}"
        config = os.path.join(folder, "bus.conf")
        with open(config, "w") as file:
            file.write(self.CONFIG.format(path=self.path))
        super().__init__("bus", ["dbus-daemon", f"--config-file={config}", "--nofork", "--nopidfile"], folder)
        wait_until(lambda: os.path.exists(self.path), "the message bus")

    def wait_name(self):
        """A helper has queued for the name that QEMU calls."""
        command = ["dbus-send", f"--bus={self.address}", "--dest=org.freedesktop.DBus", "--print-reply=literal", "/",
                   "org.freedesktop.DBus.NameHasOwner", "string:org.qemu.VMState1"]
        wait_until(lambda: "true" in subprocess.run(command, capture_output=True, text=True, timeout=LIMIT).stdout,
                   "org.qemu.VMState1 on the bus")


class Helper(Process):
    """A pr-helper, started anew at once when it dies, as a service manager does."""

    def __init__(self, path, arguments, folder, socket_path, probe_path, fail=None, fail_log=None):
        """probe_path: a socket where one can see that it is there; every process that connects to socket_path is a VM to it."""
        self.probe_path, self.wanted, self.n_starts = probe_path, True, 0
        self.deaths = []  # statuses of ends that nobody asked for in order
        # Behind the filter of system calls the search for leaks cannot run; tests/protocol and the unit tests do it.
        self.always = {"ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0"}
        env = {**self.always, "HOLDFAST_FAIL": fail} if fail else dict(self.always)
        if fail_log:
            env["HOLDFAST_FAIL_LOG"] = fail_log
        super().__init__("helper", [path, "-k", socket_path, *arguments], folder, env)
        threading.Thread(target=self._keep, daemon=True).start()
        self.wait_ready()

    def start(self):
        self.n_starts += 1
        super().start()

    def _keep(self):
        while True:
            status = self.process.wait()
            if not self.wanted:
                break
            self.deaths.append(status)
            self.env = self.always
            self.start()

    def wait_ready(self):
        def ready():
            connection = connect(self.probe_path)
            if connection:
                connection.close()
            return connection

        wait_until(ready, lambda: f"the helper's socket\n{self.log()[-2000:]}")

    def kill_once(self):
        """SIGKILL, and it is there again."""
        before = self.n_starts
        self.signal(signal.SIGKILL)
        wait_until(lambda: self.n_starts > before, "a helper that was started again")
        self.wait_ready()

    def end(self):
        """Ends it in order. What it did wrong in its life is a failure."""
        self.wanted = False
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            status = self.wait()
        except Failure:
            self.kill()
            raise
        with open(self.log_path, errors="replace") as file:
            log = file.read()
        check(status == 0 and set(self.deaths) <= {-signal.SIGKILL} and "Sanitizer" not in log and "runtime error" not in log,
              f"the helper ended with {status}, before that with {self.deaths}", log[-4000:])


class Monitor:
    """QEMU's monitor (QMP)."""

    def __init__(self, path, process):
        def attempt():
            check(process.alive(), f"{process.name} ended\n{process.log()[-2000:]}")
            return connect(path)

        self.name = process.name
        self.connection = wait_until(attempt, "QEMU's monitor")
        self.connection.settimeout(LIMIT)
        self.file = self.connection.makefile("rw")
        self.events = []
        self._line()
        self("qmp_capabilities")

    def _line(self):
        try:
            line = self.file.readline()
        except OSError as error:
            raise Failure(f"{self.name}: monitor: {error}") from None
        check(line, f"{self.name} closed its monitor")
        return json.loads(line)

    def __call__(self, command, **arguments):
        try:
            self.file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
            self.file.flush()
        except OSError as error:
            raise Failure(f"{self.name}: monitor: {error}") from None
        while "event" in (reply := self._line()):
            self.events.append(reply)
        check("return" in reply, f"{self.name}: {command} {arguments}: {reply}")
        return reply["return"]

    def close(self):
        with contextlib.suppress(OSError):
            self.connection.close()


class Qemu(Process):
    """One QEMU, running or waiting for a migration. version: folder to run it in by chroot; None: the machine's own."""

    count = 0

    def __init__(self, host, version=None, incoming=False, scsi_block="", extra=(), vmstate=True):
        Qemu.count += 1
        self.host, self.folder, self.vmstate = host, host.folder, vmstate
        self.monitor_path, self.agent_path = f"{self.folder}/monitor-{Qemu.count}", f"{self.folder}/agent-{Qemu.count}"
        arguments = (["chroot", version] if version else []) + [
            "qemu-system-x86_64", "-name", "vm1", "-M", "q35", "-accel", "kvm", "-cpu", "max", "-m", "96", "-nodefaults", "-no-user-config",
            "-display", "none", "-no-reboot", "-kernel", os.environ["GUEST_KERNEL"], "-initrd", os.environ["GUEST_INITRD"],
            "-append", f"console=ttyS0 loglevel=3 panic=-1 mitigations=off tsc=reliable no_timer_check disks={len(host.disks)}",
            "-serial", f"file:{self.folder}/console", "-chardev", f"socket,id=agent,path={self.agent_path},server=on,wait=off",
            "-serial", "chardev:agent", "-qmp", f"unix:{self.monitor_path},server=on,wait=off",
            "-qmp", f"unix:{host.qmp_path},server=on,wait=off",
            "-object", f"pr-manager-helper,id=pr,path={host.socket_path}", "-device", "virtio-scsi-pci,id=scsi"]
        if vmstate:
            arguments += ["-object", f"dbus-vmstate,id=dv,addr={host.bus.address},id-list=holdfast"]
        for number, node in enumerate(host.disks):
            arguments += ["-blockdev", f"node-name=disk{number},driver=host_device,filename={node},cache.direct=on,pr-manager=pr",
                          "-device", f"scsi-block,drive=disk{number},bus=scsi.0,channel=0,scsi-id={number},lun=0,share-rw=on,"
                                     f"rerror=report,werror=report{scsi_block}"]
        super().__init__(f"qemu-{Qemu.count}", [*arguments, *extra, *(["-incoming", "defer"] if incoming else [])], self.folder)
        self.qmp = Monitor(self.monitor_path, self)

    def running(self):
        return self.qmp("query-status")["status"] == "running"

    def set_capabilities(self, **states):
        self.qmp("migrate-set-capabilities",
                 capabilities=[{"capability": name.replace("_", "-"), "state": state} for name, state in states.items()])

    def migration(self):
        return self.qmp("query-migrate").get("status", "none")

    def quit(self):
        """As management ends it after a migration."""
        with contextlib.suppress(Failure):
            self.qmp("quit")
        self.end()

    def end(self):
        self.qmp.close()
        try:
            self.wait(5)
        except Failure:
            self.kill()
