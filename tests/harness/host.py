# SPDX-License-Identifier: LGPL-2.1-or-later
"""One host: one `holdfast batch --json` process with its own initiator name or device node, so its own I_T nexus.

Every wait has a deadline; a process that does not answer in time is a failure, and where it hangs is printed. Waiting is for events
(a line, a child that stopped or died), never for time to pass.
"""

import contextlib
import ctypes
import json
import os
import select
import shlex
import signal
import subprocess
import tempfile
import time

from .tap import Failure, check_equal

# Much longer than anything takes on a machine that is busy with other things; shorter than a person's patience.
ANSWER_LIMIT = float(os.environ.get("HOLDFAST_TEST_LIMIT", "40"))


class HostDied(Exception):
    """The process ended; signal is the number of the signal that ended it, or 0."""

    def __init__(self, host, status):
        self.signal = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        super().__init__(f"host {host.name} ended with wait status {status:#x}\n{host.errors()}")


STOPPED = object()

_wake_read = None


def _watch_children():
    """SIGCHLD makes a pipe readable, so that select sees lines and stopped children alike."""
    global _wake_read
    if _wake_read is None:
        _wake_read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    return _wake_read


_libc = ctypes.CDLL(None)


def end_with_parent():
    """For preexec_fn: the child ends when its parent does, so that nothing is left behind (prctl PR_SET_PDEATHSIG)."""
    _libc.prctl(1, signal.SIGKILL)


def program():
    folder = os.environ.get("HOLDFAST_BUILDDIR")
    if not folder:
        raise SystemExit("HOLDFAST_BUILDDIR is not set: it names the build folder")
    return os.path.join(folder, "holdfast")


def run_once(*words, env=None, limit=ANSWER_LIMIT):
    """The program once, outside of a batch."""
    return subprocess.run([program(), *words], capture_output=True, text=True, timeout=limit, env={**os.environ, **(env or {})})


class Host:
    def __init__(self, name, options=(), state_dir=None, env=None, timeout_ms=10000):
        self.name = name
        self._folder = tempfile.TemporaryDirectory(prefix=f"holdfast-{name}-")
        self.state_dir = state_dir or os.path.join(self._folder.name, "state")
        self._stderr = open(os.path.join(self._folder.name, "stderr"), "w+b")
        self._buffer = b""
        self.status = None
        self.options = list(options)
        arguments = [program(), "batch", "--json", "--timeout", str(timeout_ms), "--state-dir", self.state_dir, *self.options, "-"]
        _watch_children()
        self.process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr, bufsize=0,
                                        preexec_fn=end_with_parent,
                                        env={**os.environ, **(env or {})})
        self.pid = self.process.pid
        os.set_blocking(self.process.stdout.fileno(), False)

    # One line

    def send(self, line, fail=None):
        """Starts one verb. fail: HOLDFAST_FAIL for this line only."""
        words = f"HOLDFAST_FAIL={fail} {line}\n" if fail else line + "\n"
        self.last_line = words.strip()
        try:
            self.process.stdin.write(words.encode())
        except BrokenPipeError:
            self._reap(block=True)
            raise HostDied(self, self.status) from None

    def wait(self, limit=None):
        """The answer of the verb that runs, or STOPPED if it stopped itself."""
        end = time.monotonic() + (limit or ANSWER_LIMIT)
        while True:
            reply = self._take_line()
            if reply is not None:
                return reply
            if self._reap() is STOPPED:
                return STOPPED
            if self.status is not None:
                # The line may have come between the look at the pipe and the end of the process.
                reply = self._take_line()
                if reply is not None:
                    return reply
                raise HostDied(self, self.status)
            left = end - time.monotonic()
            if left <= 0:
                self._hang()
            ready, _, _ = select.select([self.process.stdout, _watch_children()], [], [], left)
            if _watch_children() in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(_watch_children(), 512)

    def receive(self, limit=None):
        reply = self.wait(limit)
        if reply is STOPPED:
            self.resume()
            raise Failure(f"host {self.name} stopped where no stop was asked for: {self.last_line}")
        return reply

    def call(self, line, fail=None, limit=None):
        self.send(line, fail)
        return self.receive(limit)

    def must(self, line, fail=None, expect=0):
        """call, and the result must be expect."""
        reply = self.call(line, fail)
        if reply["result"] != expect:
            raise Failure(f"host {self.name}: {line!r} gave {reply['result']}, expected {expect}\n  {json.dumps(reply)}\n{self.errors()}")
        return reply

    def resume(self):
        os.kill(self.pid, signal.SIGCONT)

    # Short forms

    def pr(self, action, lu, **options):
        words = " ".join(f"--{name.replace('_', '-')}" + ("" if value is True else f" {value:#x}" if "key" in name else f" {value}")
                         for name, value in options.items())
        return self.call(f"pr {action} {words} {shlex.quote(lu)}")

    def pr_repeated(self, action, lu, **options):
        """pr, again after a unit attention (exit code 6), which pr shows as it is."""
        for _ in range(8):
            reply = self.pr(action, lu, **options)
            if reply["result"] != 6:
                break
        return reply

    def access(self, lu):
        """(may read, may write): what this nexus really may do, by one read and one write of block 0."""
        reply = self.call(f"access --write-zeros {shlex.quote(lu)}")
        if reply.get("capacity") == "RESERVATION CONFLICT":
            # LIO: exclusive access types keep READ CAPACITY from the unregistered too (target-limits.tsv).
            return False, False
        answers = reply.get("read"), reply.get("write")
        if not all(answer in ("GOOD", "RESERVATION CONFLICT") for answer in answers):
            raise Failure(f"host {self.name}: access gave {json.dumps(reply)}\n{self.errors()}")
        check_equal(reply["result"], 0 if answers == ("GOOD", "GOOD") else 24, f"exit code of access ({reply})")
        return tuple(answer == "GOOD" for answer in answers)

    # End

    def kill(self):
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            self._reap(block=True)
        self._release()

    def close(self):
        """Ends the batch in order. Whatever the sanitizers found is a failure."""
        if self.status is None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()
            end = time.monotonic() + ANSWER_LIMIT
            while self._reap() is not None and self.status is None:
                if time.monotonic() > end:
                    self._hang()
                select.select([_watch_children()], [], [], 0.5)
                with contextlib.suppress(BlockingIOError):
                    os.read(_watch_children(), 512)
        text, status = self.errors(), self.status
        self._release()
        if "Sanitizer" in text or "runtime error" in text:
            raise Failure(f"host {self.name}: a sanitizer complained\n{text}")
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) != signal.SIGKILL:
            raise Failure(f"host {self.name} died by signal {os.WTERMSIG(status)}\n{text}")

    def errors(self):
        """What the process wrote to standard error, the end of it."""
        with contextlib.suppress(ValueError, OSError):
            with open(self._stderr.name, "rb") as file:
                return file.read()[-6000:].decode(errors="replace")
        return ""

    def _release(self):
        for pipe in (self.process.stdin, self.process.stdout, self._stderr):
            with contextlib.suppress(OSError):
                pipe.close()
        self.process.returncode = 0 if self.status is None else self.status
        with contextlib.suppress(OSError):
            self._folder.cleanup()

    def _take_line(self):
        if b"\n" not in self._buffer:
            with contextlib.suppress(BlockingIOError):
                while part := os.read(self.process.stdout.fileno(), 65536):
                    self._buffer += part
                    if b"\n" in self._buffer:
                        break
        if b"\n" not in self._buffer:
            return None
        line, self._buffer = self._buffer.split(b"\n", 1)
        try:
            return json.loads(line)
        except ValueError:
            raise Failure(f"host {self.name}: not a line of JSON: {line[:400]!r}\n{self.errors()}") from None

    def _reap(self, block=False):
        """STOPPED, True (nothing new) or None (ended, self.status is set)."""
        if self.status is not None:
            return None
        pid, status = os.waitpid(self.pid, os.WUNTRACED | (0 if block else os.WNOHANG))
        if pid == 0:
            return True
        if os.WIFSTOPPED(status):
            return STOPPED
        self.status = status
        return None

    def _hang(self):
        where = [f"host {self.name} hangs in: {self.last_line}"]
        for task in os.listdir(f"/proc/{self.pid}/task"):
            for name in ("stack", "wchan", "syscall"):
                with contextlib.suppress(OSError):
                    with open(f"/proc/{self.pid}/task/{task}/{name}") as file:
                        where.append(f"  task {task} {name}: " + file.read().strip().replace("\n", "; "))
        errors = self.errors()
        self.kill()
        raise Failure("\n".join(where) + "\n" + errors)
