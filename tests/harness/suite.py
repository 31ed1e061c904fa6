# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs the programs of a suite, each in a process of its own, some at a time, and makes one TAP stream of theirs.

A program is a file with main(tap, log): tap takes the cases, log is the PointLog that its processes of holdfast write to. A program
that prints no plan, fewer cases than its plan, or does not end in time is a failure.
"""

import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time

from .faults import PointLog
from .host import end_with_parent, program, run_once
from .tap import Tap

POINTS_FOLDER = "HOLDFAST_TEST_POINTS"


def run_program(main):
    """What the __main__ of a program calls."""
    folder = os.environ.get(POINTS_FOLDER) or tempfile.mkdtemp(prefix="holdfast-points-")
    name = "-".join([os.path.basename(sys.argv[0]).removesuffix(".py"), *sys.argv[1:]])
    tap = Tap()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    main(tap, PointLog(os.path.join(folder, name)))
    sys.exit(tap.finish())


class _Running:
    def __init__(self, folder, words, limit, env):
        file, *arguments = words.split()
        self.name = words.replace(".py", "")
        self.limit, self.started = limit, time.monotonic()
        self.process = subprocess.Popen([sys.executable, "-B", os.path.join(folder, file), *arguments],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, env=env, preexec_fn=end_with_parent)
        self.output = b""

    def left(self):
        return self.started + self.limit - time.monotonic()

    def read(self):
        """False at the end of the output."""
        part = os.read(self.process.stdout.fileno(), 65536)
        self.output += part
        return bool(part)

    def end(self):
        """The program's time is up. It cleans up when it is asked to; what it started ends with it in any case."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()


class Suite:
    def __init__(self, name, folder, jobs):
        self.name, self.folder, self.jobs = name, folder, jobs
        self.tap = Tap()
        self.points = tempfile.TemporaryDirectory(prefix="holdfast-points-")

    def _take(self, running, timed_out):
        """Copies the program's cases into the suite's stream."""
        status = running.process.wait()
        planned = seen = 0
        for line in running.output.decode(errors="replace").splitlines():
            match = re.match(r"(not )?ok \d+ - (.*)$", line)
            if match:
                seen += 1
                directive = re.search(r" # SKIP.*$", match[2])
                self.tap.ok(running.name + ": " + match[2], not match[1])
                self.tap.skipped += bool(directive)
            elif re.match(r"1\.\.\d+$", line):
                planned = int(line[3:])
            else:
                self.tap.note(line.removeprefix("# "))
        seconds = time.monotonic() - running.started
        whole = not timed_out and planned == seen > 0 and status in (0, 1)
        self.tap.ok(f"{running.name}: ran to its end", whole,
                    f"status {status}, plan {planned}, cases {seen}, {seconds:.0f} s of {running.limit}"
                    + (", time is up" if timed_out else ""))

    def run(self, programs):
        """programs: [(file and its arguments, seconds)]. The long ones first."""
        env = {**os.environ, POINTS_FOLDER: self.points.name, "PYTHONDONTWRITEBYTECODE": "1"}
        waiting, running = list(programs), []
        while waiting or running:
            while waiting and len(running) < self.jobs:
                words, limit = waiting.pop(0)
                running.append(_Running(self.folder, words, limit, env))
            ready, _, _ = select.select([item.process.stdout for item in running], [], [], max(0, min(item.left() for item in running)))
            for item in list(running):
                timed_out = item.left() <= 0
                if timed_out:
                    item.end()
                if timed_out or (item.process.stdout in ready and not item.read()):
                    running.remove(item)
                    self._take(item, timed_out)

    def reached(self):
        names = set()
        for name in os.listdir(self.points.name):
            names |= PointLog(os.path.join(self.points.name, name)).names()
        return names

    def check_points(self, elsewhere=()):
        """Every point that the program names was reached, and no step of a move is missing in what it names. elsewhere: steps that only
        the other suite can reach; that one asserts them."""
        listed = run_once("selftest", "--list-points").stdout.split()
        well_formed = len(listed) > 10 and all(re.match("(before|after)-", name) for name in listed)
        self.tap.ok("points: selftest lists them", well_formed, f"got {listed}")
        reached = self.reached()
        for name in listed:
            if name.split("-", 1)[1] not in elsewhere:
                self.tap.ok(f"points: {name} was reached", name in reached)
        # Points of single commands (pr, access, status) are named after the verb and not listed.
        step_of_a_move = re.compile("-(journal|verify|back-out|take-over|observe|identify)")
        unknown = [name for name in sorted(reached - set(listed)) if step_of_a_move.search(name)]
        self.tap.ok("points: no step of a move is missing in the list", not unknown, f"not listed: {unknown}")

    def finish(self):
        self.points.cleanup()
        return self.tap.finish()


def need_program():
    if not os.access(program(), os.X_OK):
        print(f"Bail out! {program()} is not there: build first, HOLDFAST_BUILDDIR names the build folder")
        sys.exit(1)
