# SPDX-License-Identifier: LGPL-2.1-or-later
"""Test Anything Protocol: one Tap for each program, one line for each case.

A case is a function that raises. The plan stands first when the number of cases is known before they run, else last; a program
that dies on the way prints no plan and is a failure either way.
"""

import sys
import time
import traceback


class Skip(Exception):
    """The case cannot run here; the reason is the text."""


class Failure(AssertionError):
    """An assertion of a case, with what was seen."""


def check(condition, text, *seen):
    """Raises Failure unless condition holds. seen is printed with it."""
    if not condition:
        raise Failure(text + "".join(f"\n  {item}" for item in seen))


def check_equal(got, expected, text):
    check(got == expected, f"{text}: got {got!r}, expected {expected!r}")


class Tap:
    def __init__(self, plan=None, stream=None):
        self.stream = stream or sys.stdout
        self.number = self.failed = self.skipped = 0
        self.plan = plan
        self.started = time.monotonic()
        if plan is not None:
            self._print(f"1..{plan}")

    def _print(self, line):
        print(line, file=self.stream, flush=True)

    def note(self, text):
        for line in str(text).splitlines():
            self._print(f"# {line}")

    def ok(self, name, passed=True, detail="", directive=""):
        """One case. name carries the coordinates of the case; detail is printed when it failed."""
        self.number += 1
        self.failed += not passed
        self._print(f"{'ok' if passed else 'not ok'} {self.number} - {name}{directive}")
        if not passed and detail:
            self.note(detail)

    def skip(self, name, reason):
        self.skipped += 1
        self.ok(name, directive=f" # SKIP {reason}")

    def case(self, name, function, *arguments, **named):
        """Runs function and reports it. TRUE if it passed."""
        try:
            function(*arguments, **named)
        except Skip as reason:
            self.skip(name, reason)
            return True
        except Failure as failure:
            self.ok(name, False, str(failure))
            return False
        except Exception:  # whatever it is, the case failed and the next one runs
            self.ok(name, False, traceback.format_exc())
            return False
        self.ok(name)
        return True

    def finish(self):
        """Prints the plan if it was not known. Returns the exit status of the program."""
        if self.plan is None:
            self._print(f"1..{self.number}")
        elif self.plan != self.number:
            self.note(f"planned {self.plan} cases, ran {self.number}")
            self.failed += 1
        self.note(f"{self.number} cases, {self.failed} failed, {time.monotonic() - self.started:.1f} s")
        return 1 if self.failed else 0
