# SPDX-License-Identifier: LGPL-2.1-or-later
"""target-limits.tsv, asserted: each line starts from an empty LU, sends its commands, and the last answer is the one in the table."""

import os
import select
import struct

from .nexus import CHECK, GOOD, Answer
from .tap import check, check_equal

PATH = os.path.join(os.path.dirname(__file__), "target-limits.tsv")

NO_ANSWER_LIMIT = 4


def rows(*targets):
    """[(target, commands, answer, why)] of these targets."""
    with open(PATH) as file:
        table = [line.rstrip("\n").split("\t") for line in file if not line.startswith("#")]
    for number, row in enumerate(table):
        check_equal(len(row), 4, f"columns of row {number + 1}")
    return [row for row in table if row[0] in targets]


class _Session:
    """The nexuses a and b of one line."""

    def __init__(self, target, lun):
        self.target, self.lun, self.nexuses = target, lun, {}

    def nexus(self, name):
        if name not in self.nexuses:
            self.nexuses[name] = self.target.nexus(f"limit-{name}", self.lun)
            self.nexuses[name].drain()
            self.nexuses[name].unit_attentions.clear()
        return self.nexuses[name]

    def close(self):
        for nexus in self.nexuses.values():
            nexus.close()

    def run(self, words):
        name, action, *arguments = words.split()
        flags = {word[1:].replace("-", "_") for word in arguments if word[0] == "+"}
        numbers = [int(word, 16) for word in arguments if word[0] != "+"]
        function = getattr(self, "_do_" + action.replace("-", "_"))
        return function(self.nexus(name), numbers, flags)

    # Each returns an Answer or a text.

    @staticmethod
    def _do_full_status(nexus, *_):
        return nexus.pr_in(3)

    @staticmethod
    def _do_capabilities(nexus, *_):
        data = nexus.pr_in(2).data[:6].hex()
        return f"{data[:6]} {data[6:]}"

    @staticmethod
    def _do_keys(nexus, *_):
        answer = nexus.pr_in(0)
        return " ".join(f"{key:x}" for key in nexus.keys()[1]) or "-" if answer.status == GOOD else answer

    @staticmethod
    def _do_reservation(nexus, *_):
        return "%x %d" % (nexus.reservation() or (0, 0))

    @staticmethod
    def _do_attentions(nexus, *_):
        return " ".join(nexus.unit_attentions) or "-"

    @staticmethod
    def _do_drain(nexus, *_):
        return nexus.test_unit_ready()

    @staticmethod
    def _do_write(nexus, *_):
        return nexus.write_block(b"limit")

    @staticmethod
    def _do_capacity(nexus, *_):
        return nexus.command(b"\x25" + bytes(9), length_in=8)

    @staticmethod
    def _do_scsi2_reserve(nexus, *_):
        return nexus.command(bytes([0x16, 0, 0, 0, 0, 0]))

    @staticmethod
    def _do_scsi2_release(nexus, *_):
        return nexus.command(bytes([0x17, 0, 0, 0, 0, 0]))

    def _do_relogin(self, nexus, *_):
        name = next(key for key, value in self.nexuses.items() if value is nexus)
        nexus.close()
        del self.nexuses[name]
        self.nexus(name)
        return "-"

    @staticmethod
    def _do_list_length(nexus, numbers, _):
        return nexus.command(struct.pack(">BB3xIx", 0x5F, 0, int(f"{numbers[0]:x}")), bytes(int(f"{numbers[0]:x}")))

    @staticmethod
    def _out(nexus, action, numbers, flags, names):
        arguments = dict(zip(names, numbers))
        if "spec_i_pt" in flags:
            identifier = b"\x05\0\0\x14" + b"iqn.2026-11.x:other".ljust(20, b"\0")
            head = struct.pack(">QQ4xB3xI", arguments.get("key", 0), arguments["new_key"], 8, len(identifier))
            return nexus.pr_out(action, parameters=head + identifier)
        return nexus.pr_out(action, aptpl="aptpl" in flags, all_tg_pt="all_tg_pt" in flags, **arguments)

    def _do_register(self, nexus, numbers, flags):
        return self._out(nexus, 0, numbers, flags, ("key", "new_key"))

    def _do_ignore(self, nexus, numbers, flags):
        return self._out(nexus, 6, numbers, flags, ("new_key",))

    def _do_reserve(self, nexus, numbers, flags):
        return self._out(nexus, 1, numbers, flags, ("key", "type"))

    def _do_release(self, nexus, numbers, flags):
        return self._out(nexus, 2, numbers, flags, ("key", "type"))

    def _do_clear(self, nexus, numbers, flags):
        return self._out(nexus, 3, numbers, flags, ("key",))

    def _do_preempt(self, nexus, numbers, flags):
        return self._out(nexus, 4, numbers, flags, ("key", "new_key", "type"))

    def _do_abort(self, nexus, numbers, flags):
        return self._out(nexus, 5, numbers, flags, ("key", "new_key", "type"))


def _clean(target, lun):
    """No registration, no flags, no SCSI-2 reservation, whatever the line before left."""
    session = _Session(target, lun)
    try:
        for name in ("a", "b"):
            session.run(f"{name} scsi2-release")
        # ALL_TG_PT sticks to a nexus; the third one never had it.
        session.nexus("cleaner").wipe()
        for name in ("a", "b"):
            session.nexus(name).drain()
    finally:
        session.close()


def _run_line(target, lun, commands, expected):
    _clean(target, lun)
    session = _Session(target, lun)
    try:
        answer = None
        for words in commands.split("; "):
            # A step before the last that fails would make the last one's answer mean nothing.
            if isinstance(answer, Answer):
                check(answer.status != CHECK, f"a step before {words!r} answered {answer}")
            answer = session.run(words)
        check_equal(str(answer), expected, f"the answer to {commands!r}")
    finally:
        session.close()


def _run_no_answer(target, lun, commands):
    """The command must not return. It runs in a child that is left behind: this target's guest is thrown away."""
    _clean(target, lun)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        # Who reads our output must not wait for this child.
        os.dup2(os.open(os.devnull, os.O_RDWR), 1)
        os.dup2(1, 2)
        session = _Session(target, lun)
        for words in commands.split("; "):
            answer = session.run(words)
        os.write(write, str(answer).encode())
        os._exit(0)
    os.close(write)
    ready, _, _ = select.select([read], [], [], NO_ANSWER_LIMIT)
    check(not ready, f"{commands!r} was answered", ready and os.read(read, 100))


def run(tap, target, names, lun=1):
    """One TAP case for each line of the targets called names."""
    found = rows(*names)
    check(len(found) > 5, f"the table has lines for {names}")
    for name, commands, answer, why in found:
        title = f"{name} limit: {commands} -> {answer} ({why})"
        if answer == "no answer":
            tap.case(title, _run_no_answer, target, lun, commands)
        else:
            tap.case(title, _run_line, target, lun, commands, answer)
