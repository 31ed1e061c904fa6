# SPDX-License-Identifier: LGPL-2.1-or-later
"""A pr-helper process over the SG_IO stand-in, and one side of the comparison: that process with its own logical units."""

import contextlib
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time

from harness.host import end_with_parent
from harness.tap import Failure

from .client import LIMIT, Client, Closed, Reply, Silent, pr_in

PLACES = os.environ.get("PATH", "") + ":/usr/bin:/usr/libexec:/usr/lib/qemu"
STOCK = shutil.which("qemu-pr-helper", path=PLACES) or "/usr/bin/qemu-pr-helper"
# Runs argv[2:] with descriptor argv[1] handed over as a service manager does it.
ACTIVATE = ("import os, sys; os.dup2(int(sys.argv[1]), 3); "
            "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1'); os.execv(sys.argv[2], sys.argv[2:])")
# tests/fake/sgio-standin.h: a file that was last changed in this second is a device; the nanosecond is its number.
MARKER_SECOND = 1234


def build_dir():
    folder = os.environ.get("HOLDFAST_BUILDDIR")
    if not folder:
        raise SystemExit("HOLDFAST_BUILDDIR is not set: it names the build folder")
    return folder


def ours():
    """HOLDFAST_PR_HELPER: another program in its place, to try the suite itself."""
    return os.environ.get("HOLDFAST_PR_HELPER") or os.path.join(build_dir(), "holdfast-pr-helper")


def standin():
    return os.path.join(build_dir(), "tests", "fake", ".libs", "sgio-standin.so")


def broker():
    return os.path.join(build_dir(), "tests", "fake", "sgio-broker")


def missing():
    """What is not there, each with what to do."""
    found = []
    if not os.access(STOCK, os.X_OK):
        found.append(f"{STOCK} is not there: install the Debian package qemu-system-common")
    if not os.access(ours(), os.X_OK):
        found.append(f"{ours()} is not there: build it")
    found += [f"{path} is not there: make check TESTS=" for path in (standin(), broker()) if not os.path.exists(path)]
    return found


def environment(broker_path, leaks=False):
    """leaks: look for them at the end, which a filter of system calls forbids."""
    more = os.environ.get("HOLDFAST_TEST_PRELOAD")
    env = {**os.environ, "LD_PRELOAD": standin() + (":" + more if more else ""), "HOLDFAST_STANDIN_SOCKET": broker_path}
    # The module stands before the sanitizer's own library; it calls on to it.
    env["ASAN_OPTIONS"] = f"verify_asan_link_order=0:quarantine_size_mb=4:detect_leaks={leaks:d}"
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "NOTIFY_SOCKET"):
        env.pop(name, None)
    return env


def _prepare_child():
    end_with_parent()
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def wait_for_socket(process, path, kind, told):
    """Until somebody listens there."""
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        if process.poll() is not None:
            raise Failure(f"{process.args[0]} ended with {process.returncode}\n{told()}")
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, kind) as probe:
            probe.connect(path)
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.01)
    process.kill()
    raise Failure(f"{process.args[0]} does not listen\n{told()}")


class Broker:
    """The process that has the iSCSI sessions behind the stand-in; it outlives the helpers, as a host outlives its programs."""

    def __init__(self, folder):
        self.path, self.log = os.path.join(folder, "broker.sock"), os.path.join(folder, "commands")
        self.process = subprocess.Popen([broker(), self.path, self.log], stdin=subprocess.DEVNULL, preexec_fn=_prepare_child)
        wait_for_socket(self.process, self.path, socket.SOCK_SEQPACKET, lambda: "")

    def stop(self):
        self.process.kill()
        self.process.wait()


class Helper:
    """One process. options: further words of its command line; listen: a listening socket that it is given."""

    def __init__(self, program, folder, broker_path, name="helper", options=(), listen=None, leaks=False):
        self.path = os.path.join(folder, name + ".sock")
        self.stderr_path = os.path.join(folder, name + ".stderr")
        command = [program, *([] if listen else ["-k", self.path]), *options]
        if listen:
            command = [sys.executable, "-c", ACTIVATE, str(listen.fileno()), *command]
        with open(self.stderr_path, "ab") as stderr:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr, cwd=folder,
                                            env=environment(broker_path, leaks), preexec_fn=_prepare_child,
                                            pass_fds=[listen.fileno()] if listen else [])
        self.pid = self.process.pid
        if not listen:
            wait_for_socket(self.process, self.path, socket.SOCK_STREAM, self.errors)

    def errors(self):
        with open(self.stderr_path, errors="replace") as file:
            return file.read()[-4000:]

    def alive(self):
        return self.process.poll() is None

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def descriptors_settle(self, wanted, limit=LIMIT):
        """The number of open descriptors once it is not above wanted, or when the time is up: closing follows the close of a client."""
        end = time.monotonic() + limit
        while (count := self.descriptors()) > wanted and time.monotonic() < end:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.01)
        return count

    def resident_kib(self):
        with open(f"/proc/{self.pid}/status") as file:
            return int(next(line.split()[1] for line in file if line.startswith("VmRSS:")))

    def wait(self, limit=LIMIT):
        """The exit status, or None if it runs on."""
        try:
            return self.process.wait(limit)
        except subprocess.TimeoutExpired:
            return None

    def terminate(self, signal_number=signal.SIGTERM, limit=LIMIT):
        if self.alive():
            self.process.send_signal(signal_number)
        return self.wait(limit)

    def kill(self):
        if self.alive():
            self.process.kill()
            self.process.wait()


class Side:
    """One of the two programs, its process for most cases, and LUs of its own: the same numbers, counted from first_lun."""

    n_luns = 6

    def __init__(self, name, program, target, first_lun, folder):
        self.name, self.program, self.target, self.first_lun = name, program, target, first_lun
        self.folder = os.path.join(folder, name)
        os.mkdir(self.folder)
        self.is_stock = name == "stock"
        self.n_markers, self.judges, self.devices = 0, {}, {}
        self.broker = Broker(self.folder)
        self.helper = self.start(self.folder)

    def stop(self):
        for judge in self.judges.values():
            judge.close()
        self.helper.kill()
        self.broker.stop()

    def start(self, folder, name="helper", **named):
        """One more process of the program."""
        return Helper(self.program, folder, self.broker.path, name, **named)

    def again(self):
        """A helper that died in a case is replaced, so that the next case counts."""
        if not self.helper.alive():
            self.helper = self.start(self.folder)

    def lun(self, lu):
        return self.first_lun + lu

    def marker(self, lu=0, nexus="vm", **words):
        """A file that is the logical unit for a program under the stand-in."""
        self.n_markers += 1
        path = os.path.join(self.folder, f"lu{lu}-{self.n_markers}")
        initiator = f"iqn.2026-11.org.holdfast.test:{self.name}-{nexus}"
        options = " ".join(f"{name}={value}" for name, value in words.items())
        with open(path, "w") as file:
            file.write(f"url={self.target.address(self.lun(lu))} initiator={initiator} {options}\n")
        # The same nexus of the same LU is the same device, whichever file stands for it.
        number = self.devices.setdefault((self.lun(lu), nexus), self.first_lun * 1000 + len(self.devices))
        os.utime(path, ns=(0, MARKER_SECOND * 10**9 + number))
        return path

    @contextlib.contextmanager
    def lu(self, lu=0, flags=os.O_RDWR, **words):
        """A descriptor of it."""
        path = self.marker(lu, **words)
        fd = os.open(path, flags | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)

    def judge(self, lu=0, name="judge"):
        """An initiator that has nothing to do with the helper."""
        if (lu, name) not in self.judges:
            self.judges[lu, name] = self.target.nexus(f"{self.name}-{name}-{lu}", self.lun(lu))
        return self.judges[lu, name]

    def client(self, **named):
        return Client(self.helper.path, **named)

    def one(self, cdb, data=b"", lu=0, **words):
        """One command on a connection of its own."""
        with self.lu(lu, **words) as fd, self.client() as client:
            return client.request(fd, cdb, data)

    def drain(self, lu=0, **words):
        """Until no unit attention waits for the helper's nexus."""
        for _ in range(16):
            reply = self.one(pr_in(0, 256), lu=lu, **words)
            if reply.status == 0:
                return
        raise Failure(f"{self.name}: READ KEYS answers {reply}")

    def fresh(self, lu=0):
        """Nobody is registered, nobody waits for a unit attention."""
        self.judge(lu).wipe()
        self.drain(lu)

    def commands(self, opcodes=("5e", "5f")):
        """What reached the logical units: lines of the stand-in's log, without what the helper asks on its own account."""
        with contextlib.suppress(FileNotFoundError), open(self.broker.log) as file:
            lines = [dict(word.split("=") for word in line.split()[1:]) | {"what": line.split()[0]} for line in file]
            return [line for line in lines if line["cdb"][:2] in opcodes]
        return []

    def healthy(self):
        """It runs, and serves somebody else."""
        if not self.helper.alive():
            raise Failure(f"{self.name} ended with {self.helper.process.returncode}\n{self.helper.errors()}")
        try:
            reply = self.one(pr_in(0, 256), lu=self.n_luns - 1)
            if reply.status == 2 and reply.code[0] == 6:
                reply = self.one(pr_in(0, 256), lu=self.n_luns - 1)
        except (Closed, Silent) as trouble:
            raise Failure(f"{self.name} does not serve another client: {trouble}\n{self.helper.errors()}") from trouble
        if reply.status != 0:
            raise Failure(f"{self.name} answers another client with {reply}")


__all__ = ["Helper", "Reply", "Side", "missing", "ours", "STOCK"]
