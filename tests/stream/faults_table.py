# SPDX-License-Identifier: LGPL-2.1-or-later
"""The faults that QEMU's mapped-ram does not survive, and the others of that table: a short write, a short read, a file that is cut, EIO,
EAGAIN and EINTR of reads and writes, a file system that is full. Whatever happens, a job ends with the right bytes, or with an error
that says what it was and leaves the old file as it was.

Two ways to make a fault: HOLDFAST_FAIL, which both engines ask before each transfer, and the kernel itself (strace, a limit of the
file's size, a full tmpfs), which shows that the first is not a lie.
"""

import collections
import dataclasses
import errno
import json
import os
import resource
import shutil
import signal

from harness.tap import check, check_equal

from .faults_kill import OLD, is_old, prepare
from .faults_material import material, same_memory
from .faults_process import each, run

ENGINES = ("ring", "threads")
DONE, REFUSED = "done", "refused"
# Not tried every time: EAGAIN for ever is given up after HF_IO_PATIENCE_MS, which is a case of its own, EINTR never ends, and byte by byte
# a file takes too long.
NEVER = "never"


@dataclasses.dataclass(frozen=True)
class Job:
    title: str
    source: str
    words: tuple  # the source and the target are put behind them
    transfers: tuple = ("stream-read", "stream-write")  # what it certainly does by position

    def start(self, runner, target, engine, **named):
        source = material(runner).path(self.source)
        words = [*self.words, *(("--engine", engine) if engine else ())]
        if self.words[0] == "capture":
            with open(source, "rb") as file:
                return run(runner, *words, target, stdin=file, **named)
        if self.words[0] == "convert":
            return run(runner, *words, source, target, **named)
        return run(runner, *words, source, **named)

    @property
    def writes(self):
        return self.words[0] in ("capture", "convert")

    def check_done(self, runner, target, ended, text):
        stuff = material(runner)
        if self.words[0] == "replay":
            whole = stuff.data(self.source)[:stuff.layout(self.source).end]
            check(ended.output == whole, f"{text}: what came out is not what is in", ended)
        elif self.words[0] == "capture" and "--mapped" not in self.words:
            with open(target, "rb") as file:
                found = file.read(len(stuff.data(self.source)))
            check(found == stuff.data(self.source), f"{text}: the file is not the input", ended)
        elif self.writes:
            same_memory(target, stuff.layout(self.source), text)


CAPTURE = Job("capture", "large", ("capture",), ("stream-write",))
MAPPED = Job("capture --mapped", "large", ("capture", "--mapped"), ("stream-write",))
TO_MAPPED = Job("convert to mapped-ram", "large", ("convert", "--to", "mapped-ram"))
TO_CLASSIC = Job("convert to classic", "large-mapped", ("convert", "--to", "classic"))
REPLAY = Job("replay", "ours-large", ("replay",), ("stream-read",))
VERIFY = Job("verify", "ours-large", ("verify",), ("stream-read",))
VERIFY_MAPPED = Job("verify of mapped-ram", "large-mapped", ("verify",), ("stream-read",))
JOBS = (CAPTURE, MAPPED, TO_MAPPED, TO_CLASSIC, REPLAY, VERIFY, VERIFY_MAPPED)
# verify has no engine of its own to choose.
WITHOUT_ENGINE = ("verify",)


def engines_of(job):
    return (None,) if job.words[0] in WITHOUT_ENGINE else ENGINES


def reached(log):
    with open(log, encoding="utf-8") as file:
        return collections.Counter(line.split()[0] for line in file)


def judge(runner, job, target, ended, expected, cause, text):
    """expected: DONE, REFUSED, or None: either, but nothing lost. cause: a text that the error has."""
    if expected is not None:
        check_equal(DONE if ended.status == 0 else REFUSED, expected, f"{text}: {ended}")
    if ended.status == 0:
        job.check_done(runner, target, ended, text)
        return
    check(cause is None or cause in ended.errors, f"{text}: the error does not say {cause!r}", ended)
    if job.words[0] == "replay":
        stuff = material(runner)
        check(stuff.data(job.source).startswith(ended.output), f"{text}: what came out is not what is in", ended)
    if job.writes:
        check(is_old(target), f"{text}: the old file is not what it was", ended)
        left = sorted(os.listdir(os.path.dirname(target)))
        check_equal(left, ["vm", "vm.status"] if job.words[0] == "capture" else ["vm"], f"{text}: what is left")
    if job.words[0] == "capture":
        with open(target + ".status", encoding="utf-8") as file:
            status = json.load(file)
        # An input that is at its end is what a saved VM looks like whose QEMU was killed.
        fitting = ("failed", "incomplete", "malformed") if cause is None else ("failed",)
        check(status["outcome"] in fitting and (cause is None or cause in status["error"]), f"{text}: the status", status)


# Row of the table, action, what becomes of it once (#K) and every time, what the error says.
Fault = collections.namedtuple("Fault", "row step action once always cause")
FAULTS = (
    Fault("short write", "stream-write", "short:5000", DONE, DONE, None),
    Fault("short write", "stream-write", "short:1", DONE, NEVER, None),
    Fault("write of nothing", "stream-write", "zero", REFUSED, REFUSED, "bytes moved"),
    Fault("write EAGAIN", "stream-write", "error:EAGAIN", DONE, NEVER, None),
    Fault("write EINTR", "stream-write", "error:EINTR", DONE, NEVER, None),
    Fault("write EIO", "stream-write", "error:EIO", REFUSED, REFUSED, os.strerror(errno.EIO)),
    Fault("write ENOSPC", "stream-write", "error:ENOSPC", REFUSED, REFUSED, os.strerror(errno.ENOSPC)),
    Fault("short read", "stream-read", "short:5000", DONE, DONE, None),
    Fault("short read", "stream-read", "short:1", DONE, NEVER, None),
    Fault("end of file where none is", "stream-read", "zero", REFUSED, REFUSED, None),
    Fault("read EAGAIN", "stream-read", "error:EAGAIN", DONE, NEVER, None),
    Fault("read EINTR", "stream-read", "error:EINTR", DONE, NEVER, None),
    Fault("read EIO", "stream-read", "error:EIO", REFUSED, REFUSED, os.strerror(errno.EIO)),
)


def measure_points(runner, job, engine):
    """{step: how often it is reached}, in a run without faults."""
    log = runner.path(f"log-{engine}")
    target = prepare(runner, f"measure-{engine}")
    ended = job.start(runner, target, engine, env={"HOLDFAST_FAIL_LOG": log})
    judge(runner, job, target, ended, DONE, None, f"{job.title} without a fault")
    counts = reached(log)
    found = {step: counts[f"before-{step}"] for step in ("stream-read", "stream-write")}
    check(all(found[step] for step in job.transfers), f"{job.title} does nothing by position", found)
    return found


def attempts_of(counts):
    """(fault, number or None for every time)"""
    for fault in FAULTS:
        count = counts[fault.step]
        if not count:
            continue
        for number in sorted({1, count // 2 or 1, count}):
            yield fault, number
        if fault.always != NEVER:
            yield fault, None


def injected(runner, job, engine):
    """Every fault at the first transfer, in the middle, at the last one, and every time."""
    counts = measure_points(runner, job, engine)
    attempts = list(attempts_of(counts))

    def work(attempt):
        fault, number = attempt
        point = f"before-{fault.step}" + (f"#{number}" if number else "")
        text = f"{job.title}, {engine}: {point}={fault.action}"
        name = f"{fault.step}-{fault.action.replace(':', '-')}-{number}"
        target, log = prepare(runner, name), runner.path(name + ".log")
        ended = job.start(runner, target, engine, env={"HOLDFAST_FAIL": f"{point}={fault.action}", "HOLDFAST_FAIL_LOG": log})
        # The last transfer of a run may be an earlier one in another: engines have no order. Then the fault did not happen.
        happened = reached(log)[f"before-{fault.step}"] >= (number or 1)
        expected = (fault.once if number else fault.always) if happened else DONE
        judge(runner, job, target, ended, expected, fault.cause, text)
        shutil.rmtree(os.path.dirname(target))
        return happened

    happened = each(attempts, work)
    check(sum(happened) >= len(attempts) * 3 // 4, f"{job.title}: of {len(attempts)} faults only {sum(happened)} happened")
    runner.note(f"{engine}: {sum(happened)} faults, transfers without one: {counts}")


def lasting(runner):
    """EAGAIN for ever is given up, by both engines, reading and writing, and the old file is kept."""
    work = [(job, engine, step) for job, step in ((CAPTURE, "stream-write"), (MAPPED, "stream-write"), (REPLAY, "stream-read"))
            for engine in ENGINES] + [(VERIFY, None, "stream-read")]

    def attempt(item):
        job, engine, step = item
        text = f"{job.title}, {engine}: EAGAIN for ever"
        target = prepare(runner, f"{job.words[0]}-{len(job.words)}-{engine}")
        ended = job.start(runner, target, engine, env={"HOLDFAST_FAIL": f"before-{step}=error:EAGAIN"}, limit=90)
        judge(runner, job, target, ended, REFUSED, None, text)
        check(ended.seconds > 25, f"{text}: given up too early", ended)

    each(work, attempt, len(work))


# ---- the kernel's own ----
# The leak checker cannot work under another tracer.
TRACED = {"ASAN_OPTIONS": "detect_leaks=0"}
WRITES, READS, RING = "pwrite64,pwritev,pwritev2", "pread64,preadv,preadv2", "io_uring_enter"
# System calls, what is injected, at which of them, engine, what becomes of it, what the error says.
TRACES = (
    (CAPTURE, WRITES, "error=EIO:when=2", "threads", REFUSED, os.strerror(errno.EIO)),
    (CAPTURE, WRITES, "error=ENOSPC:when=3", "threads", REFUSED, os.strerror(errno.ENOSPC)),
    (CAPTURE, WRITES, "error=EINTR:when=1..4", "threads", DONE, None),
    (CAPTURE, WRITES, "error=EAGAIN:when=1..4", "threads", DONE, None),
    (CAPTURE, READS, "error=EINTR:when=2..5", "threads", DONE, None),
    (CAPTURE, READS, "error=EIO:when=3", "threads", REFUSED, os.strerror(errno.EIO)),
    (CAPTURE, "fdatasync", "error=EIO", "threads", REFUSED, os.strerror(errno.EIO)),
    (CAPTURE, "fsync", "error=EIO", "threads", None, None),
    (CAPTURE, "rename,renameat,renameat2", "error=EACCES:when=1", "threads", REFUSED, os.strerror(errno.EACCES)),
    (CAPTURE, "ftruncate", "error=EIO", "threads", REFUSED, os.strerror(errno.EIO)),
    (CAPTURE, RING, "error=EINTR:when=1..3", "ring", DONE, None),
    (CAPTURE, "io_uring_setup", "error=EPERM", "auto", DONE, None),
    (CAPTURE, "io_uring_setup", "error=ENOSYS", "auto", DONE, None),
    (CAPTURE, "io_uring_setup", "error=ENOMEM", "auto", DONE, None),
    (CAPTURE, "io_uring_setup", "error=EPERM", "ring", REFUSED, os.strerror(errno.EPERM)),
    (MAPPED, WRITES, "error=EIO:when=2", "threads", REFUSED, os.strerror(errno.EIO)),
    (MAPPED, WRITES, "error=EAGAIN:when=1..4", "threads", DONE, None),
    (TO_MAPPED, WRITES, "error=ENOSPC:when=2", "threads", REFUSED, os.strerror(errno.ENOSPC)),
    (TO_CLASSIC, WRITES, "error=EIO:when=2", "threads", REFUSED, os.strerror(errno.EIO)),
    (TO_CLASSIC, READS, "error=EIO:when=6", "threads", REFUSED, os.strerror(errno.EIO)),
    (REPLAY, READS, "error=EIO:when=4", "threads", REFUSED, os.strerror(errno.EIO)),
    (REPLAY, READS, "error=EINTR:when=2..5", "threads", DONE, None),
    (REPLAY, READS, "error=EAGAIN:when=2..5", "threads", DONE, None),
    (REPLAY, RING, "error=EINTR:when=1..3", "ring", DONE, None),
    (VERIFY, READS, "error=EIO:when=5", None, REFUSED, os.strerror(errno.EIO)),
)


def traced(runner):
    """The kernel answers with an error that it did not have. threads: the calls of all threads are counted together."""
    check(shutil.which("strace"), "strace is needed: install the Debian package strace")

    def work(numbered):
        number, (job, calls, what, engine, expected, cause) = numbered
        target, log = prepare(runner, f"trace-{number}"), runner.path(f"trace-{number}.log")
        # The loader reads too, before there is a program.
        only = ["-P", material(runner).path(job.source)] if calls == READS else []
        ended = job.start(runner, target, engine, env=TRACED,
                          prefix=["strace", "-f", "-qq", "-o", log, *only, "-e", f"trace={calls}", "-e", f"inject={calls}:{what}"])
        text = f"{job.title}, {engine}: {calls}: {what}"
        with open(log, encoding="utf-8", errors="replace") as file:
            check("(INJECTED)" in file.read(), f"{text}: it did not happen", ended)
        if "fsync" not in calls:
            judge(runner, job, target, ended, expected, cause, text)
        elif calls == "fdatasync":
            judge(runner, job, target, ended, REFUSED, cause, text)
        elif ended.status == 0 or not is_old(target):
            # The folder's fsync comes after the rename: the new file is there, whole; but it is not said to be on the disk.
            check(ended.status != 0, f"{text}: the folder was not synced, and nobody hears of it", ended)
            job.check_done(runner, target, ended, text)

    each(list(enumerate(TRACES)), work)
    runner.note(f"{len(TRACES)} injections")


def limited(runner, job, engine):
    """Writes end in the middle of a page, short, then EFBIG: RLIMIT_FSIZE, which is the kernel's own short write."""
    for size in (3000, 4096 * 3 + 100, (1 << 20) + 5000, (4 << 20) - 1):
        def limit(size=size):
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        target = prepare(runner, f"limit-{engine}-{size}")
        ended = job.start(runner, target, engine, prepare=limit)
        judge(runner, job, target, ended, REFUSED, None, f"{job.title}, {engine}, files of at most {size} bytes")


# $1: the tmpfs' size, $2: the mount point, $3: where the results go; then the command, whose target lies in the mount point.
IN_TMPFS = """
mount -t tmpfs -o "size=$1" tmpfs "$2" || exit 125
cp -a "$3"/. "$2" || exit 125
into=$2 out=$3
shift 3
"$@"
status=$?
rm -rf "${out:?}"/*
cp -a "$into"/. "$out" || exit 125
exit $status
"""


def full(runner, job, engine, kib):
    """A file system that is really full: a tmpfs in a mount namespace of this case."""
    target, mount = prepare(runner, f"full-{engine}-{kib}"), runner.path(f"mount-{engine}-{kib}")
    os.mkdir(mount)
    own = () if os.geteuid() == 0 else ("-r",)
    prefix = ["unshare", "-m", *own, "sh", "-c", IN_TMPFS, "sh", f"{kib}k", mount, os.path.dirname(target)]
    ended = job.start(runner, os.path.join(mount, "vm"), engine, prefix=prefix)
    check(ended.status != 125, "no tmpfs of our own", ended)
    judge(runner, job, target, ended, REFUSED, os.strerror(errno.ENOSPC), f"{job.title}, {engine}, on {kib} KiB")


def full_disks(runner, job):
    size = os.path.getsize(material(runner).path(job.source)) // 1024
    # Early, in the middle, and only for the trailer or the end; on a tmpfs everything takes whole pages, the old file too.
    sizes = (1200, 3000) + ((size + 15,) if job is CAPTURE else ())
    for kib in sizes:
        for engine in ENGINES:
            full(runner, job, engine, kib)


def cases(runner):
    for job in JOBS:
        for engine in engines_of(job):
            runner.case(f"faults: {job.title}{', ' + engine if engine else ''}, injected", injected, job, engine)
    runner.case("faults: EAGAIN for ever", lasting)
    runner.case("faults: by the kernel, with strace", traced)
    for job in (CAPTURE, MAPPED, TO_MAPPED, TO_CLASSIC):
        for engine in ENGINES:
            runner.case(f"faults: {job.title}, {engine}, a limit of the file's size", limited, job, engine)
        runner.case(f"faults: {job.title}, a full file system", full_disks, job)
    assert OLD
