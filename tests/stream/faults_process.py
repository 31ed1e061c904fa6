# SPDX-License-Identifier: LGPL-2.1-or-later
"""Many short processes of holdfast: some at a time, each with what it took."""

import concurrent.futures
import dataclasses
import functools
import os
import subprocess
import tempfile
import threading
import time

from harness.host import end_with_parent, program
from harness.tap import Failure

# What a damaged file may cost; with sanitizers, whose share is known to nobody, and on a busy machine, more.
SECONDS_MAX, MIB_MAX = 5, 200
SANITIZED_SECONDS_MAX, SANITIZED_MIB_MAX = 20, 400
HANG = 60
# Freed memory is kept by the address sanitizer, which is no matter here.
ASAN = "quarantine_size_mb=8"


def sanitizer_environment():
    old = os.environ.get("ASAN_OPTIONS")
    return {**os.environ, "ASAN_OPTIONS": f"{old}:{ASAN}" if old else ASAN}


@dataclasses.dataclass
class Ended:
    words: list
    status: int  # as subprocess: negative is the signal
    seconds: float
    mib: float
    output: bytes
    errors: str

    def __str__(self):
        told = f"exit status {self.status}, {self.seconds:.1f} s, {self.mib:.0f} MiB"
        return f"holdfast stream {' '.join(self.words)}: {told}\n{self.errors[-1500:]}"

    @property
    def refused(self):
        return self.status > 0


class Running:
    """`holdfast stream WORDS` under way. prefix: the words before it (strace and the like). Output goes to files, so that nothing
    waits for a reader. signals: end() takes a death by signal as a result, not as a failure."""

    def __init__(self, runner, *words, env=None, stdin=subprocess.DEVNULL, stdout=None, prefix=(), prepare=None, **named):
        self.words = [str(word) for word in words]
        self._output = None if stdout is not None else tempfile.TemporaryFile()
        self._errors = tempfile.TemporaryFile()

        def begin():
            end_with_parent()
            if prepare:
                prepare()

        self.started = time.monotonic()
        self.process = subprocess.Popen([*prefix, runner.program, "stream", *self.words], stdin=stdin,
                                        stdout=self._output if stdout is None else stdout, stderr=self._errors, cwd=runner.folder,
                                        env={**sanitizer_environment(), **(env or {})}, preexec_fn=begin, **named)

    def errors(self):
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")

    def end(self, limit=HANG, signals=()):
        """Waits for it. Raises on a crash, on a message of a sanitizer, and if it hangs."""
        killer = threading.Timer(limit, self.process.kill)
        killer.start()
        _, status, usage = os.wait4(self.process.pid, 0)
        killer.cancel()
        self.process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - self.started
        output = b""
        if self._output:
            self._output.seek(0)
            output = self._output.read()
        ended = Ended(self.words, self.process.returncode, seconds, usage.ru_maxrss / 1024, output, self.errors())
        for file in (self._output, self._errors):
            if file:
                file.close()
        if seconds >= limit:
            raise Failure(f"it hangs: {ended}")
        if ended.status < 0 and -ended.status not in signals or "Sanitizer" in ended.errors or "runtime error" in ended.errors:
            raise Failure(f"it crashes: {ended}")
        if ended.status > 0 and not ended.errors.strip() and not ended.output.strip():
            raise Failure(f"it fails without a word: {ended}")
        return ended


def run(runner, *words, limit=HANG, signals=(), **named):
    return Running(runner, *words, **named).end(limit, signals)


@functools.lru_cache(maxsize=None)
def limits():
    with open(program(), "rb") as file:
        sanitized = b"__asan_" in file.read()
    return (SANITIZED_SECONDS_MAX, SANITIZED_MIB_MAX) if sanitized else (SECONDS_MAX, MIB_MAX)


def bounded(ended):
    """The same, and it took no more than hostile input may cost."""
    seconds, mib = limits()
    if ended.seconds > seconds or ended.mib > mib:
        raise Failure(f"more than {seconds} s or {mib} MiB: {ended}")
    return ended


def each(items, work, n=None):
    """[work(item) ...], some at a time, in the order of items."""
    with concurrent.futures.ThreadPoolExecutor(n or os.cpu_count() or 2) as pool:
        return list(pool.map(work, items))


class Copies:
    """One copy of a file for each thread: work changes it and puts it back."""

    def __init__(self, material, name):
        self.material, self.name, self._own, self._lock, self._n = material, name, threading.local(), threading.Lock(), 0

    def path(self):
        if not hasattr(self._own, "path"):
            with self._lock:
                self._n += 1
                number = self._n
            self._own.path = self.material.copy(self.name, f"{self.name}-{number}")
        return self._own.path
