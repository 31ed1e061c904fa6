# SPDX-License-Identifier: LGPL-2.1-or-later
"""Writers that die, and that are asked to end, at each of their stages."""

import collections
import json
import os
import signal

from harness.tap import Failure, check, check_equal

from .faults_material import material, same_memory
from .faults_process import HANG, Running, each, run

OLD = b"the old file\n" * 1000
# Of a point that is reached many times: the first time, in the middle, the last time.
MANY = 3


class Job:
    """A way to write a file. source: of the material; capture: it reads standard input and says its outcome in FILE.status."""

    def __init__(self, title, source, *words):
        self.title, self.source, self.words = title, source, words
        self.capture = words[0] == "capture"

    def start(self, runner, target, **named):
        source = material(runner).path(self.source)
        if not self.capture:
            return Running(runner, *self.words, source, target, **named)
        with open(source, "rb") as file:
            return Running(runner, *self.words, target, stdin=file, **named)

    def check_new(self, runner, target, text):
        """target is the whole new file."""
        stuff = material(runner)
        if self.source == "mapped10" or "--mapped" in self.words or "mapped-ram" in self.words:
            same_memory(target, stuff.layout(self.source), text)
            return
        with open(target, "rb") as file:
            found = file.read(len(stuff.data(self.source)))
        check(found == stuff.data(self.source), f"{text}: the new file is not the input")


JOBS = (Job("capture", "large", "capture"), Job("capture --mapped", "large", "capture", "--mapped"),
        Job("convert to mapped-ram", "large", "convert", "--to", "mapped-ram"),
        Job("convert to classic", "mapped10", "convert", "--to", "classic"))


def is_old(target):
    with open(target, "rb") as file:
        return file.read(len(OLD) + 1) == OLD


def prepare(runner, name):
    """A folder with an old file in it; its path."""
    folder = runner.path(name)
    os.mkdir(folder)
    target = os.path.join(folder, "vm")
    with open(target, "wb") as file:
        file.write(OLD)
    return target


def points(runner, job):
    """Every point of writing that the job reaches, in order, each with its number."""
    target, log = prepare(runner, "points"), runner.path("points.log")
    ended = job.start(runner, target, env={"HOLDFAST_FAIL_LOG": log}).end()
    check_equal(ended.status, 0, f"{job.title}: {ended}")
    job.check_new(runner, target, job.title)
    with open(log, encoding="utf-8") as file:
        names = [line.split()[0] for line in file if "-stream-" in line and "-stream-read" not in line]
    wanted = {"before-stream-create", "before-stream-write", "before-stream-sync", "before-stream-close", "before-stream-rename",
              "before-stream-sync-dir"} | ({"before-stream-status"} if job.capture else set())
    check(wanted <= set(names), f"{job.title}: points that are not reached", sorted(wanted - set(names)))
    found = []
    for name, count in collections.Counter(names).items():
        numbers = range(1, count + 1) if count <= MANY else (1, count // 2, count)
        found += [(name, number) for number in numbers]
    return found


def check_partial(runner, target):
    """What a dead writer left is refused by every reader."""
    partial = target + ".partial"
    if not os.path.exists(partial):
        return False
    for words in (("verify", partial), ("replay", partial), ("convert", "--to", "classic", partial, target + ".out"),
                  ("inspect", partial)):
        ended = run(runner, *words)
        check(ended.refused and not (words[0] == "replay" and ended.output), "a reader takes what a dead writer left", ended)
    return True


def kill_at(runner, job, point, number):
    """Returns whether the new file was there."""
    where = f"{job.title}, {point}#{number}"
    target = prepare(runner, f"{point}-{number}")
    ended = job.start(runner, target, env={"HOLDFAST_FAIL": f"{point}#{number}=kill"}).end(signals=(signal.SIGKILL,))
    check_equal(ended.status, -signal.SIGKILL, f"{where}: how it ended")
    old = is_old(target)
    if not old:
        job.check_new(runner, target, where)
        verified = run(runner, "verify", target)
        check(verified.status == 0, f"{where}: the new file is there, but not good", verified)
    check_partial(runner, target)
    if job.capture:
        check_wait(runner, target, where, old)
    # The next one is not disturbed by what is left.
    ended = job.start(runner, target).end()
    check_equal(ended.status, 0, f"{where}: the next one, {ended}")
    job.check_new(runner, target, f"{where}, the next one")
    left = sorted(os.listdir(os.path.dirname(target)))
    check_equal(left, ["vm", "vm.status"] if job.capture else ["vm"], f"{where}: what is there after the next one")
    if job.capture:
        waited = run(runner, "wait", target)
        check(waited.status == 0, f"{where}: wait for the next one", waited)
    return not old


def check_wait(runner, target, where, old):
    """wait tells a capture that died: not in time is a failure here. Only one that said that it was done counts as done."""
    said = os.path.exists(target + ".status")
    options = () if said else ("--start-timeout", "100")
    waited = run(runner, "wait", *options, target, limit=20)
    if said:
        check(not old and waited.status == 0, f"{where}: wait, after the capture said that it was done", waited)
    else:
        check(waited.refused, f"{where}: wait takes a capture that died for done", waited)


def killed(runner, job):
    stages = points(runner, job)
    new = each(stages, lambda stage: kill_at(runner, job, *stage))
    for (point, number), there in zip(stages, new):
        expected = point in ("after-stream-rename", "before-stream-sync-dir", "after-stream-sync-dir", "before-stream-status",
                             "after-stream-status")
        check_equal(there, expected, f"{job.title}, killed at {point}#{number}: whether the new file is there")
    runner.note(f"{len(stages)} stages: " + " ".join(f"{point}#{number}" for point, number in stages))


def stopped(process):
    """Waits until it has stopped itself."""
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    if not os.WIFSTOPPED(status):
        process.returncode = os.waitstatus_to_exitcode(status)
        raise Failure(f"it ended with {process.returncode} instead of stopping")


def end_at(runner, job, point, number, signum):
    """Asked to end while it stands at a point: nothing is left behind, the old file is there; or it was done already."""
    where = f"{job.title}, {signal.Signals(signum).name} at {point}#{number}"
    target = prepare(runner, f"{signum}-{point}-{number}")
    running = job.start(runner, target, env={"HOLDFAST_FAIL": f"{point}#{number}=stop"})
    stopped(running.process)
    os.kill(running.process.pid, signum)
    os.kill(running.process.pid, signal.SIGCONT)
    ended = running.end(limit=HANG, signals=(signum,))
    old, left = is_old(target), set(os.listdir(os.path.dirname(target)))
    check(left <= {"vm", "vm.status"}, f"{where}: what is left behind", sorted(left), ended)
    check(old == (ended.status != 0), f"{where}: exit status {ended.status}, but the file is {'old' if old else 'new'}", ended)
    if not old:
        job.check_new(runner, target, where)
    if job.capture:
        with open(target + ".status", encoding="utf-8") as file:
            outcome = json.load(file)["outcome"]
        check_equal(outcome, "interrupted" if old else "committed", f"{where}: the status")
    return old


def asked_to_end(runner, job):
    stages = points(runner, job)
    attempts = [(*stage, signum) for stage in stages for signum in (signal.SIGINT, signal.SIGTERM)][::3]
    old = each(attempts, lambda attempt: end_at(runner, job, *attempt))
    early = [kept for (point, _, _), kept in zip(attempts, old) if point.endswith("stream-create")]
    check(early and all(early), f"{job.title}: asked to end before it writes, it goes on")
    runner.note(f"{len(attempts)} times, {sum(old)} times in time")


def stalled(runner, *options):
    """An input that says nothing: SIGINT ends it at once, with what there was."""
    data = material(runner).data("classic10")
    for amount in (0, 1, len(data) // 2, len(data)):
        target = prepare(runner, f"stall-{amount}")
        read, write = os.pipe()
        running = Running(runner, "capture", *options, target, stdin=read)
        os.close(read)
        os.write(write, data[:1]) if amount == 1 else write_all(write, data[:amount])
        wait_for(lambda: os.path.exists(target + ".partial"), "the capture to begin")
        os.kill(running.process.pid, signal.SIGINT)
        ended = running.end(limit=20, signals=(signal.SIGINT,))
        os.close(write)
        check(ended.status != 0 and is_old(target), f"{amount} bytes, then nothing, then SIGINT", ended)
        check_equal(sorted(os.listdir(os.path.dirname(target))), ["vm", "vm.status"], f"{amount} bytes: what is left")
        with open(target + ".status", encoding="utf-8") as file:
            check_equal(json.load(file)["outcome"], "interrupted", f"{amount} bytes: the status")


def write_all(fd, data):
    while data:
        data = data[os.write(fd, data):]


def wait_for(condition, text, limit=HANG):
    """Polls; for what gives no sign."""
    import time
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            raise Failure(f"waited {limit} s for {text}")
        time.sleep(0.005)


def cases(runner):
    for job in JOBS:
        runner.case(f"kill: {job.title}, at every stage", killed, job)
        runner.case(f"end: {job.title}, by SIGINT and SIGTERM", asked_to_end, job)
    runner.case("end: a capture whose input stalls", stalled)
    runner.case("end: a capture --mapped whose input stalls", stalled, "--mapped")
