# SPDX-License-Identifier: LGPL-2.1-or-later
"""A tgtd of our own on loopback: own control port, own TCP port. Other tgtd on the machine are neither seen nor touched."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from . import host, nexus

LIMIT = 10.0


def available():
    """None, or what is missing."""
    missing = [name for name in ("tgtd", "tgtadm") if not shutil.which(name, path=_PATH)]
    return f"needs the Debian package tgt ({', '.join(missing)})" if missing else None


_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class TgtTarget:
    """n_luns disks of megabytes each behind one target; LU n is LUN n (from 1; LUN 0 is tgt's controller)."""

    name = "tgt"
    full_status = False
    # A new login with the same initiator name and ISID is a new I_T nexus.
    login_keeps_nexus = False
    # A second open of an address is the same I_T nexus.
    node_is_nexus = False

    def __init__(self, n_luns=1, megabytes=4, target="iqn.2026-11.org.holdfast.test:disk", account=None):
        self.target, self.account = target, account
        self.folder = tempfile.mkdtemp(prefix="holdfast-tgt-")
        self.daemon = None
        try:
            self._start()
            self._configure(n_luns, megabytes)
        except BaseException:
            self.stop()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def _start(self):
        # Two daemons that choose the same control port: the second ends at once. The next number is tried then.
        first = 1000 + os.getpid() % 20000
        for control in range(first, first + 50):
            if os.path.exists(f"/var/run/tgtd/socket.{control}"):
                continue
            self.control, self.port = control, free_port()
            self.log = open(os.path.join(self.folder, "tgtd.log"), "wb")
            self.daemon = subprocess.Popen(["tgtd", "-f", "-C", str(control), "--iscsi", f"portal=127.0.0.1:{self.port}"],
                                           stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, env={**os.environ, "PATH": _PATH},
                                           preexec_fn=host.end_with_parent)
            if self._wait_ready():
                return
        raise RuntimeError("tgtd does not start: " + open(self.log.name).read())

    def _wait_ready(self):
        """The daemon answers on both ports."""
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            if self.daemon.poll() is not None:
                return False
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 0.2).close()
                if self._admin("--lld", "iscsi", "--mode", "system", "--op", "show", check=False).returncode == 0:
                    return True
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.daemon.wait(0.02)
        self._end_daemon()
        return False

    def _admin(self, *arguments, check=True):
        run = subprocess.run(["tgtadm", "-C", str(self.control), *arguments], capture_output=True, text=True, timeout=LIMIT,
                             env={**os.environ, "PATH": _PATH})
        if check and run.returncode:
            raise RuntimeError(f"tgtadm {' '.join(arguments)}: {run.stderr}")
        return run

    def _configure(self, n_luns, megabytes):
        self._admin("--lld", "iscsi", "--mode", "target", "--op", "new", "--tid", "1", "-T", self.target)
        for lun in range(1, n_luns + 1):
            path = os.path.join(self.folder, f"disk{lun}")
            with open(path, "wb") as disk:
                disk.truncate(megabytes << 20)
            self._admin("--lld", "iscsi", "--mode", "logicalunit", "--op", "new", "--tid", "1", "--lun", str(lun), "-b", path)
            # The same on each run of one folder would be the same on two targets of one test: the number makes it unique.
            self._admin("--lld", "iscsi", "--mode", "logicalunit", "--op", "update", "--tid", "1", "--lun", str(lun), "--params",
                        f"scsi_sn=hf{self.port:05d}{lun:02d},scsi_id=HF {self.port:05d}{lun:02d}")
        if self.account:
            user, password = self.account
            self._admin("--lld", "iscsi", "--mode", "account", "--op", "new", "--user", user, "--password", password)
            self._admin("--lld", "iscsi", "--mode", "account", "--op", "bind", "--tid", "1", "--user", user)
        self._admin("--lld", "iscsi", "--mode", "target", "--op", "bind", "--tid", "1", "-I", "ALL")

    def address(self, lun=1):
        user = "%s%%%s@" % self.account if self.account else ""
        return f"iscsi://{user}127.0.0.1:{self.port}/{self.target}/{lun}"

    def host_options(self, name):
        """Words for a holdfast process that plays host name."""
        return ["--initiator-name", f"iqn.2026-11.org.holdfast.test:{name}", "--isid", "23d%06x" % (sum(name.encode()) & 0xFFFF)]

    def device(self, name, lun=1):
        """The LU's address for host name: the same for every host, the initiator name makes the nexus."""
        return self.address(lun)

    def nexus(self, name, lun=1):
        """An independent initiator."""
        return nexus.IscsiNexus(("127.0.0.1", self.port), self.target, lun, f"iqn.2026-11.org.holdfast.test:{name}")

    def pause(self):
        """The storage stops answering; connections stay up."""
        os.kill(self.daemon.pid, signal.SIGSTOP)

    def resume(self):
        os.kill(self.daemon.pid, signal.SIGCONT)

    def _end_daemon(self):
        if self.daemon and self.daemon.poll() is None:
            self.daemon.kill()
            self.daemon.wait(LIMIT)

    def stop(self):
        """tgtd ignores SIGTERM while it has targets, so they go first; then it is asked to end."""
        if self.daemon and self.daemon.poll() is None:
            with contextlib.suppress(Exception):
                self.resume()
                self._admin("--lld", "iscsi", "--mode", "target", "--op", "delete", "--force", "--tid", "1", check=False)
                self._admin("--mode", "system", "--op", "delete", check=False)
                self.daemon.wait(2)
            self._end_daemon()
        if self.daemon:
            self.log.close()
            for name in (f"socket.{self.control}", f"socket.{self.control}.lock"):
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join("/var/run/tgtd", name))
        shutil.rmtree(self.folder, ignore_errors=True)
