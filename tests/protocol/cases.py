# SPDX-License-Identifier: LGPL-2.1-or-later
"""What one client can do. Each case is played on both programs and yields an outcome; the outcomes are compared (run).

A case is a function of a Side. What has to hold on both sides, whatever they answer, is asserted inside. expect: what the stock helper
is known to answer; it is asserted too, so that a change of the reference is noticed.
"""

import contextlib
import os
import random
import socket
import tempfile

from harness.tap import check, check_equal

from .client import CDB_SIZE, DATA_MAX, Closed, Silent, parameters, pr_in, pr_out

CASES = []
KEY, OTHER = 0x1111, 0x2222


class Case:
    def __init__(self, name, function, expect=None, only=None):
        self.name, self.function, self.expect, self.only = name, function, expect, only


def case(name, expect=None, only=None):
    """only: the side that it is about, where the other one's outcome is left to chance."""
    def add(function):
        CASES.append(Case(name, function, expect, only))
        return function
    return add


def table(rows, function):
    """One case for each row: (name, expect, argument...)."""
    for name, expect, *arguments in rows:
        CASES.append(Case(name, lambda side, arguments=arguments: function(side, *arguments), expect))


def all_equal(outcomes):
    """One text for many outcomes, with how many had each."""
    return ", ".join(f"{outcomes.count(text)} times {text}" for text in sorted(set(outcomes)))


EMPTY = "GOOD 8 bytes generation 00000000"

# ---- greeting ----


@case("greeting: the features offered", "00000000")
def greeting_features(side):
    with side.client() as client:
        return client.greeting.hex()


def answer_features(side, features):
    side.fresh()
    with side.lu() as fd, side.client(features=features) as client:
        client.send(pr_in(0), [fd])
        return client.outcome()


table([(f"greeting: {features:08x} requested", EMPTY if not features else "closes", features)
       for features in (0, 1, 2, 3, 0x80000000, 0xFFFFFFFF, 0x01000000)], answer_features)


@case("greeting: one byte in each message", EMPTY)
def greeting_split(side):
    side.fresh()
    with side.lu() as fd, side.client(greet=False) as client:
        client.receive(4)
        for _ in range(4):
            client.send(b"\0")
        return client.request(fd, pr_in(0)).outcome()


@case("greeting: in one message with the CDB, the descriptor comes with both")
def greeting_merged(side):
    side.fresh()
    with side.lu() as fd, side.client(greet=False) as client:
        client.receive(4)
        client.send(bytes(4) + pr_in(0), [fd])
        return client.outcome()


@case("greeting: the client speaks first", EMPTY)
def greeting_early(side):
    side.fresh()
    with side.lu() as fd, side.client(greet=False) as client:
        client.send(bytes(4))
        client.send(pr_in(0), [fd])
        client.receive(4)
        return client.outcome()


@case("greeting: half of it, then silence", "silent")
def greeting_stall(side):
    with side.client(greet=False) as client:
        client.receive(4)
        client.send(b"\0\0")
        return client.expect()


@case("greeting: half of it, then the end", "closes")
def greeting_half(side):
    with side.client(greet=False) as client:
        client.receive(4)
        client.send(b"\0\0")
        client.shut_write()
        return client.outcome()


@case("greeting: none, the end at once", "closes")
def greeting_none(side):
    with side.client(greet=False) as client:
        client.receive(4)
        client.shut_write()
        return client.outcome()


@case("greeting: descriptors with it, and again with the CDB", EMPTY)
def greeting_descriptors(side):
    side.fresh()
    with side.lu() as fd, side.client(greet=False) as client:
        client.receive(4)
        client.send(bytes(4), [fd, fd])
        return client.request(fd, pr_in(0)).outcome()


# ---- CDB and descriptor ----


@case("CDB: in two messages, split at each byte", f"15 times {EMPTY}")
def cdb_split(side):
    side.fresh()
    outcomes = []
    with side.lu() as fd, side.client() as client:
        for at in range(1, CDB_SIZE):
            client.send(pr_in(0)[:at], [fd])
            client.send(pr_in(0)[at:])
            outcomes.append(client.outcome())
    return all_equal(outcomes)


@case("CDB: one byte in each message, the descriptor with any of them", f"16 times {EMPTY}")
def descriptor_any_byte(side):
    side.fresh()
    outcomes = []
    with side.lu() as fd, side.client() as client:
        for with_fd in range(CDB_SIZE):
            for at in range(CDB_SIZE):
                client.send(pr_in(0)[at : at + 1], [fd] if at == with_fd else [])
            outcomes.append(client.outcome())
    return all_equal(outcomes)


def descriptors_at(side, *counts):
    """counts[n] descriptors with the nth part of a CDB that is cut into as many equal parts."""
    side.fresh()
    step = CDB_SIZE // len(counts)
    with side.lu() as fd, side.client() as client:
        for at, count in enumerate(counts):
            client.send(pr_in(0)[at * step : (at + 1) * step], [fd] * count)
        return client.outcome()


table([
    ("descriptor: none", "closes", 0),
    ("descriptor: two in one message", "closes", 2),
    ("descriptor: 253 in one message, the most there can be", "closes", 253),
    ("descriptor: one with each half", "closes", 1, 1),
    ("descriptor: two with the second half", "closes", 0, 2),
    ("descriptor: one with each byte", "closes", *[1] * 16),
    ("descriptor: one with the last byte", EMPTY, *[0] * 15, 1),
], descriptors_at)


@case("descriptor: with the parameter list only", "closes")
def descriptor_late(side):
    side.fresh()
    with side.lu() as fd, side.client() as client:
        client.send(pr_out(0))
        client.send(parameters(0, KEY), [fd])
        outcome = client.outcome()
    check_equal(side.judge().keys()[1], [], f"{side.name}: keys")
    return outcome


@case("descriptor: a second one with the parameter list")
def descriptor_with_list(side):
    side.fresh()
    with side.lu() as fd, side.client() as client:
        client.send(pr_out(0), [fd])
        client.send(parameters(0, KEY), [fd])
        return f"{client.outcome()}, {len(side.judge().keys()[1])} registered"


@case("descriptor: closed by the client right after the request", EMPTY)
def descriptor_closed(side):
    side.fresh()
    with side.client() as client:
        with side.lu() as fd:
            client.send(pr_in(0), [fd])
        return client.outcome()


@case("descriptor: of the request before does not count", f"{EMPTY}, then closes")
def descriptor_not_kept(side):
    side.fresh()
    with side.lu() as fd, side.client() as client:
        first = client.request(fd, pr_in(0)).outcome()
        client.send(pr_in(0))
        return f"{first}, then {client.outcome()}"


@case("request: 15 bytes, then the end", "closes")
def cdb_short(side):
    with side.lu() as fd, side.client() as client:
        client.send(pr_in(0)[:15], [fd])
        client.shut_write()
        return client.outcome()


@case("request: 15 bytes, then silence, then the last one", f"silent, then {EMPTY}")
def cdb_stall(side):
    side.fresh()
    with side.lu() as fd, side.client() as client:
        client.send(pr_in(0)[:15], [fd])
        first = client.expect()
        client.send(pr_in(0)[15:])
        return f"{first}, then {client.outcome()}"


# ---- lengths and opcodes ----


def in_length(side, length):
    side.fresh()
    before = len(side.commands())
    with side.lu() as fd, side.client() as client:
        client.send(pr_in(0, length), [fd])
        outcome = client.outcome()
    if length > DATA_MAX:
        check_equal(len(side.commands()), before, f"{side.name}: lines of the device's log after a refused length")
    return outcome


SHORT_IN = "CHECK 5/2400 700005000000000a00000000240000000000"
table([(f"PR IN: allocation length {length}", expect, length) for length, expect in (
    (0, SHORT_IN), (1, SHORT_IN), (4, SHORT_IN), (7, SHORT_IN), (8, EMPTY), (24, EMPTY), (8191, EMPTY), (8192, EMPTY), (8193, "closes"),
    (65535, "closes"))], in_length)


@case("PR IN: the data ends at the allocation length")
def in_cut(side):
    """Two keys are 24 bytes: any length below gets its part, and never more."""
    side.fresh()
    side.judge().pr_out(0, new_key=OTHER)
    side.one(pr_out(0), parameters(0, KEY))
    sizes = []
    for length in (8, 9, 15, 16, 17, 23, 24, 25, 200):
        reply = side.one(pr_in(0, length))
        check(reply.status == 0 and reply.size <= length, f"{side.name}: {reply} for {length} bytes")
        sizes.append(f"{length}:{reply.size}")
    return " ".join(sizes)


def out_length(side, length):
    side.fresh()
    before = len(side.commands())
    with side.lu() as fd, side.client() as client:
        client.send(pr_out(0, length=length), [fd])
        client.send(parameters(0, KEY).ljust(length, b"\0")[:length])
        outcome = client.outcome()
    if outcome == "closes":
        check_equal(len(side.commands()), before, f"{side.name}: lines of the device's log after a refused length")
    return f"{outcome}, {len(side.judge().keys()[1])} registered"


SHORT_OUT = "CHECK 5/2400 700005000000000a00000000240000000000, 0 registered"
table([(f"PR OUT: list length {length}", expect, length) for length, expect in (
    (0, SHORT_OUT), (1, SHORT_OUT), (15, SHORT_OUT), (16, SHORT_OUT), (23, SHORT_OUT), (24, "GOOD, 1 registered"), (25, None), (32, None),
    (8192, None), (8193, "closes, 0 registered"), (65535, "closes, 0 registered"))], out_length)


def opcode(side, first, tail=bytes(15)):
    side.fresh()
    with side.lu() as fd, side.client() as client:
        client.send(bytes([first]) + tail, [fd])
        outcome = client.outcome()
        if outcome == "closes":
            return outcome
        return f"{outcome}, then {client.request(fd, pr_in(0)).outcome()}"


table([(f"opcode {first:02x}h", "closes", first) for first in (0x00, 0x12, 0x28, 0x2A, 0x5D, 0x60, 0xA0, 0xFF)], opcode)
table([("opcode FFh with a length of 24", "closes", 0xFF, bytes(7) + b"\x18" + bytes(7)),
       ("opcode FFh with a length of 65535", "closes", 0xFF, bytes(6) + b"\xff\xff" + bytes(7)),
       ("opcode FFh with all bits set", "closes", 0xFF, b"\xff" * 15)], opcode)


@case("opcode FFh: what this nexus did not register stays", "closes, 1 registered")
def cleanup_of_others(side):
    """Sent by the source of a migration: the destination's registration is never touched."""
    side.fresh()
    side.judge().pr_out(0, new_key=KEY)
    with side.lu() as fd, side.client() as client:
        client.send(b"\xff" + bytes(15), [fd])
        return f"{client.outcome()}, {len(side.judge().keys()[1])} registered"


@case("opcode FFh on a descriptor that is no LU", "closes")
def cleanup_of_nothing(side):
    with open(os.devnull, "r+b") as null, side.client() as client:
        client.send(b"\xff" + bytes(15), [null.fileno()])
        return client.outcome()


# ---- parameter lists ----


@case("PR OUT: the list in two messages, split at each byte", "23 times GOOD")
def list_split(side):
    outcomes = []
    with side.lu() as fd, side.client() as client:
        side.fresh()
        for at in range(1, 24):
            data = parameters(0, KEY + at)
            client.send(pr_out(6), [fd])
            client.send(data[:at])
            client.send(data[at:])
            outcomes.append(client.outcome())
            check_equal(side.judge().keys()[1], [KEY + at], f"{side.name}: keys after a split at {at}")
    return all_equal(outcomes)


@case("PR OUT: CDB and list in one message", "GOOD")
def list_merged(side):
    side.fresh()
    with side.lu() as fd, side.client() as client:
        client.send(pr_out(0) + parameters(0, KEY), [fd])
        outcome = client.outcome()
    check_equal(side.judge().keys()[1], [KEY], f"{side.name}: keys")
    return outcome


@case("PR OUT: one byte in each message", "GOOD")
def list_bytes(side):
    side.fresh()
    with side.lu() as fd, side.client() as client:
        for at, byte in enumerate(pr_out(0) + parameters(0, KEY)):
            client.send(bytes([byte]), [fd] if at == 7 else [])
        outcome = client.outcome()
    check_equal(side.judge().keys()[1], [KEY], f"{side.name}: keys")
    return outcome


def list_of(side, action, flags, tail):
    """A list that is longer than its fixed part, and lies about the lengths in it: nobody on the way believes them."""
    side.fresh()
    side.one(pr_out(0), parameters(0, KEY))
    data = parameters(KEY, OTHER, flags) + tail
    return f"{side.one(pr_out(action, length=len(data)), data).outcome()}, {len(side.judge().keys()[1])} registered"


ISCSI_ID = b"\x05\0" + (24).to_bytes(2, "big") + b"iqn.2026-11.org.none:x".ljust(24, b"\0")
table([(f"PR OUT: {name}", None, action, flags, tail) for name, action, flags, tail in (
    ("SPEC_I_PT, a TransportID", 0, 8, len(ISCSI_ID).to_bytes(4, "big") + ISCSI_ID),
    ("SPEC_I_PT, an additional length beyond the list", 0, 8, b"\xff\xff\xff\xff" + ISCSI_ID),
    ("SPEC_I_PT, a TransportID beyond the list", 0, 8, len(ISCSI_ID).to_bytes(4, "big") + b"\x05\0\xff\xff" + ISCSI_ID[4:]),
    ("SPEC_I_PT, half an additional length", 0, 8, b"\0\0"),
    ("SPEC_I_PT, as many TransportIDs as fit", 0, 8, (8064).to_bytes(4, "big") + ISCSI_ID * 288),
    ("REGISTER AND MOVE, a TransportID", 7, 0, ISCSI_ID),
    ("REGISTER AND MOVE, a TransportID beyond the list", 7, 0, b"\x05\0\xff\xff" + ISCSI_ID[4:]))], list_of)


@case("PR OUT: a short list, then silence, then the rest", "silent, then GOOD")
def list_stall(side):
    side.fresh()
    with side.lu() as fd, side.client() as client:
        client.send(pr_out(0), [fd])
        client.send(parameters(0, KEY)[:20])
        first = client.expect()
        check_equal(side.judge().keys()[1], [], f"{side.name}: keys")
        client.send(parameters(0, KEY)[20:])
        return f"{first}, then {client.outcome()}"


@case("PR OUT: a short list, then the end", "closes, 0 registered")
def list_short(side):
    side.fresh()
    with side.lu() as fd, side.client() as client:
        client.send(pr_out(0), [fd])
        client.send(parameters(0, KEY)[:23])
        client.shut_write()
        return f"{client.outcome()}, {len(side.judge().keys()[1])} registered"


@case("PR OUT: 8192 bytes in many messages")
def list_long(side):
    side.fresh()
    with side.lu() as fd, side.client() as client:
        client.send(pr_out(0, length=DATA_MAX), [fd])
        for _ in range(DATA_MAX // 256):
            client.send(bytes(256))
        return client.outcome()


# ---- order on one connection ----


def pipelined(side, count):
    side.fresh()
    with side.lu() as fd, side.client() as client:
        for _ in range(count):
            client.send(pr_in(0), [fd])
        return all_equal([client.outcome() for _ in range(count)])


table([(f"pipelined: {count} READ KEYS before the first answer is read", f"{count} times {EMPTY}", count) for count in (2, 10)], pipelined)


@case("pipelined: REGISTER, RESERVE, READ RESERVATION are done in order")
def pipelined_mixed(side):
    side.fresh()
    with side.lu() as fd, side.client() as client:
        client.send(pr_out(0), [fd])
        client.send(parameters(0, KEY))
        client.send(pr_out(1, 5), [fd])
        client.send(parameters(KEY))
        client.send(pr_in(1), [fd])
        return ", ".join(client.outcome() for _ in range(3))


@case("pipelined: two requests, then the end of what the client says")
def pipelined_end(side):
    side.fresh()
    with side.lu() as fd, side.client() as client:
        client.send(pr_in(0), [fd])
        client.send(pr_in(0), [fd])
        client.shut_write()
        return ", ".join(client.outcome() for _ in range(3))


@case("pipelined: a request that closes behind one that is served")
def pipelined_close(side):
    side.fresh()
    with side.lu() as fd, side.client() as client:
        client.send(pr_in(0), [fd])
        client.send(bytes(16), [fd])
        return ", ".join(client.outcome() for _ in range(2))


@case("half-closed: the client will say no more, and waits for its answer", f"{EMPTY}, then closes")
def half_closed(side):
    side.fresh()
    with side.lu() as fd, side.client() as client:
        client.send(pr_in(0), [fd])
        client.shut_write()
        return f"{client.outcome()}, then {client.outcome()}"


@case("half-closed: the client will not read its answer", "1 registered")
def not_reading(side):
    """The command may be executed; who serves it must not fall over the answer. One command behind it is a barrier for the judge."""
    side.fresh()
    with side.lu() as fd, side.client() as client:
        client.socket.shutdown(socket.SHUT_RD)
        client.send(pr_out(0), [fd])
        client.send(parameters(0, KEY))
        with contextlib.suppress(Closed, Silent):
            client.reply()
    return f"{len(wait_for_keys(side))} registered"


@case("the client is gone before the answer", "1 registered")
def gone_client(side):
    side.fresh()
    with side.lu(delay=200) as fd, side.client() as client:
        client.send(pr_out(0), [fd])
        client.send(parameters(0, KEY))
    return f"{len(wait_for_keys(side))} registered"


def wait_for_keys(side, wanted=1, rounds=200):
    """What the judge sees once there are as many as wanted."""
    for _ in range(rounds):
        keys = side.judge().keys()[1]
        if len(keys) >= wanted:
            break
        with contextlib.suppress(Exception):
            side.helper.process.wait(0.01)
    return keys


@case("a hundred connections, one after the other", f"100 times {EMPTY}")
def reconnects(side):
    side.fresh()
    outcomes = []
    with side.lu() as fd:
        for _ in range(100):
            with side.client() as client:
                outcomes.append(client.request(fd, pr_in(0)).outcome())
    return all_equal(outcomes)


# ---- garbage ----


@case("garbage: instead of the greeting", "20 times closes")
def garbage_greeting(side):
    outcomes = []
    for seed in range(20):
        with side.client(greet=False) as client:
            client.receive(4)
            client.send(b"\xff" + random.Random(seed).randbytes(4095))
            outcomes.append(client.outcome())
    return all_equal(outcomes)


@case("garbage: instead of a request, without a descriptor", "20 times closes")
def garbage_request(side):
    outcomes = []
    for seed in range(20):
        with side.client() as client:
            client.send(random.Random(seed).randbytes(4096))
            outcomes.append(client.outcome())
    return all_equal(outcomes)


@case("garbage: any PR CDB with a descriptor gets an answer or the end", None)
def garbage_cdb(side):
    """Random service actions, types and lengths on a real LU. Each answer keeps to the rules; which it is, is compared."""
    side.fresh()
    outcomes = []
    for seed in range(40):
        source = random.Random(1000 + seed)
        cdb = bytearray(source.randbytes(16))
        cdb[0] = 0x5E
        cdb[7] = source.randrange(0, 0x24)
        with side.lu() as fd, side.client() as client:
            client.send(bytes(cdb), [fd])
            outcomes.append(client.outcome().split(" generation")[0])
    return all_equal(outcomes)


# ---- what a descriptor may be ----


@contextlib.contextmanager
def thing(side, kind):
    """A descriptor that is no LU, or an LU opened in an unusual way."""
    with contextlib.ExitStack() as stack:
        def keep(fd):
            stack.callback(os.close, fd)
            return fd
        if kind == "a plain file":
            yield stack.enter_context(tempfile.TemporaryFile()).fileno()
        elif kind == "an empty pipe":
            read, write = os.pipe()
            keep(write)
            yield keep(read)
        elif kind == "a socket":
            one, two = socket.socketpair()
            stack.enter_context(two)
            yield stack.enter_context(one).fileno()
        elif kind == "memory":
            yield keep(os.memfd_create("x"))
        elif kind == "the LU, O_RDONLY":
            yield keep(os.open(side.marker(), os.O_RDONLY))
        elif kind == "the LU, O_PATH":
            yield keep(os.open(side.marker(), os.O_PATH))
        elif kind == "the LU, its file deleted":
            path = side.marker()
            fd = keep(os.open(path, os.O_RDWR))
            os.unlink(path)
            yield fd
        elif kind == "the helper's own socket":
            yield stack.enter_context(side.client()).socket.fileno()
        else:
            yield keep(os.open("/", os.O_RDONLY) if kind == "a directory" else os.open(kind, os.O_RDWR))


def in_through(side, kind):
    side.fresh()
    with thing(side, kind) as fd, side.client() as client:
        client.send(pr_in(0), [fd])
        outcome = client.outcome()
        if outcome != "closes":
            outcome += f"; a good one then: {next_outcome(side, client)}"
        return outcome


def next_outcome(side, client):
    with side.lu() as fd:
        return client.request(fd, pr_in(0)).outcome()


def out_through(side, kind):
    side.fresh()
    with thing(side, kind) as fd, side.client() as client:
        client.send(pr_out(0), [fd])
        client.send(parameters(0, KEY))
        return f"{client.outcome()}, {len(side.judge().keys()[1])} registered"


NO_LU = ("a plain file", "/dev/null", "/dev/zero", "a directory", "an empty pipe", "a socket", "memory", "the helper's own socket")
LU_WAYS = ("the LU, O_RDONLY", "the LU, O_PATH", "the LU, its file deleted")
table([(f"PR IN through {kind}", None, kind) for kind in (*NO_LU, *LU_WAYS)], in_through)
table([(f"PR OUT through {kind}", None, kind) for kind in (*NO_LU, *LU_WAYS)], out_through)

# ---- every service action ----


def same_in(side, action, length):
    """What the helper hands on is what the LU tells an initiator that knows no helper: status, sense, every byte."""
    side.fresh()
    for judge, key in ((side.judge(), OTHER), (side.judge(0, "second"), OTHER + 1)):
        judge.pr_out(0, new_key=key)
    side.one(pr_out(0), parameters(0, KEY))
    side.one(pr_out(1, 5), parameters(KEY))
    reply = side.one(pr_in(action, length))
    answer = side.judge().pr_in(action, length)
    check_equal(reply.status, answer.status, f"{side.name}: status of PR IN {action:#x}")
    check_equal(reply.data, answer.data, f"{side.name}: data of PR IN {action:#x}")
    check_equal(reply.code, answer.code, f"{side.name}: sense of PR IN {action:#x}")
    side.judge(0, "second").drain()
    return reply.outcome()


table([(f"PR IN service action {action:#x}, {length} bytes", None, action, length)
       for action in (0, 1, 2, 3, 4, 0x1F) for length in (8, 24, DATA_MAX)], same_in)


def play_out(command, story):
    """The story on a nexus. command(action, type, list) -> (status, sense code)."""
    return [command(action, type, parameters(key, new_key, flags)) for action, type, key, new_key, flags in story]


def same_out(side, story):
    """The same story through the helper on one LU and by a plain initiator on another: the same answers, and both LUs look the same."""
    for lu in (0, 1):
        side.fresh(lu)
        side.judge(lu).pr_out(0, new_key=OTHER)
    plain = side.judge(1, "plain")
    plain.drain()

    def helper_command(action, type, data):
        reply = side.one(pr_out(action, type), data)
        check_equal(reply.size, 0, f"{side.name}: sz of PR OUT")
        return reply.status, reply.code

    def plain_command(action, type, data):
        answer = plain.pr_out(action, type=type, parameters=data, see_attention=True)
        return answer.status, answer.code

    through, direct = play_out(helper_command, story), play_out(plain_command, story)
    check_equal(through, direct, f"{side.name}: answers of {story}")
    check_equal(side.judge(0).keys()[1], side.judge(1).keys()[1], f"{side.name}: keys")
    check_equal(side.judge(0).reservation(), side.judge(1).reservation(), f"{side.name}: reservation")
    return ", ".join(f"{status:02x}" + (" %x/%04x" % code if code else "") for status, code in through)


REGISTERED = (0, 0, 0, KEY, 0)
STORIES = {
    "REGISTER": [REGISTERED, (0, 0, KEY, KEY + 1, 0), (0, 0, KEY + 1, 0, 0)],
    "REGISTER with a wrong key": [REGISTERED, (0, 0, OTHER, KEY, 0)],
    "REGISTER with APTPL": [(0, 0, 0, KEY, 1)],
    "REGISTER with ALL_TG_PT": [(0, 0, 0, KEY, 4)],
    "REGISTER with SPEC_I_PT": [(0, 0, 0, KEY, 8)],
    **{f"RESERVE and RELEASE type {type}": [REGISTERED, (1, type, KEY, 0, 0), (1, type, KEY, 0, 0), (2, type, KEY, 0, 0)]
       for type in range(9)},
    "RESERVE unregistered": [(1, 5, 0, 0, 0)],
    "RELEASE with another type": [REGISTERED, (1, 5, KEY, 0, 0), (2, 6, KEY, 0, 0)],
    "CLEAR": [REGISTERED, (1, 5, KEY, 0, 0), (3, 0, KEY, 0, 0)],
    "PREEMPT of another": [REGISTERED, (4, 5, KEY, OTHER, 0)],
    "PREEMPT of nobody": [REGISTERED, (4, 5, KEY, 0x9999, 0)],
    "PREEMPT of the own key": [REGISTERED, (1, 7, KEY, 0, 0), (4, 5, KEY, KEY, 0)],
    "PREEMPT AND ABORT": [REGISTERED, (5, 5, KEY, OTHER, 0)],
    "REGISTER AND IGNORE": [(6, 0, 0x9999, KEY, 0), (6, 0, 0, KEY + 1, 0), (6, 0, 0, 0, 0)],
    "REGISTER AND MOVE": [REGISTERED, (1, 5, KEY, 0, 0), (7, 0, KEY, OTHER, 0)],
    "REPLACE LOST RESERVATION": [(8, 0, 0, KEY, 0)],
    "service action 1Fh": [(0x1F, 0, 0, KEY, 0)],
    "a scope other than LU": [REGISTERED, (1, 0x15, KEY, 0, 0)],
}
table([(f"PR OUT {name}", None, story) for name, story in STORIES.items()], same_out)

# ---- answers of the device ----


@case("RESERVATION CONFLICT is 18h", "CONFLICT, then CONFLICT, 2 registered")
def conflict(side):
    side.fresh()
    side.judge().pr_out(0, new_key=OTHER)
    side.judge().pr_out(1, key=OTHER, type=1)
    side.one(pr_out(0), parameters(0, KEY))
    with side.lu() as fd, side.client() as client:
        outcomes = [client.request(fd, pr_out(1, 1), parameters(KEY)).outcome(),
                    client.request(fd, pr_out(0), parameters(0x9999, KEY)).outcome()]
    return f"{', then '.join(outcomes)}, {len(side.judge().keys()[1])} registered"


def attention(side, action):
    """What the fence leaves for the fenced nexus is handed on once, by the first command."""
    side.fresh()
    side.one(pr_out(0), parameters(0, KEY))
    side.judge().pr_out(0, new_key=OTHER)
    check_equal(side.judge().pr_out(action, key=OTHER, new_key=KEY if action == 4 else 0, type=5).status, 0, "the judge's command")
    return ", then ".join(side.one(pr_in(0)).outcome() for _ in range(2))


table([("UNIT ATTENTION after PREEMPT", None, 4), ("UNIT ATTENTION after CLEAR", None, 3)], attention)


@case("UNIT ATTENTION reaches a PR OUT too, which is not executed", None)
def attention_out(side):
    side.fresh()
    side.one(pr_out(0), parameters(0, KEY))
    side.judge().pr_out(0, new_key=OTHER)
    side.judge().pr_out(3, key=OTHER)
    first = side.one(pr_out(6), parameters(0, KEY)).outcome()
    keys = side.judge().keys()[1]
    return f"{first}, {len(keys)} registered, then {side.one(pr_out(6), parameters(0, KEY)).outcome()}"


def played(side, words, cdb=pr_in(0), data=b""):
    """The stand-in answers in place of the device."""
    side.fresh()
    with side.lu(**words) as fd, side.client() as client:
        client.send(cdb, [fd])
        if data:
            client.send(data)
        outcome = client.outcome()
        if outcome != "closes":
            outcome += f"; a good one then: {next_outcome(side, client)}"
        return outcome


LONG_SENSE = "70000600000000f0" + "0000000029000000" + "".join(f"{n:02x}" for n in range(1, 81)) + "ff" * 100
ANSWERS = {
    "BUSY": dict(status="8"),
    "TASK SET FULL": dict(status="28"),
    "TASK ABORTED": dict(status="40"),
    "RESERVATION CONFLICT": dict(status="18"),
    "sense in fixed format": dict(sense="70000500000000" + "0a" + "00000000" + "2604" + "00" + "80000f"),
    "sense in descriptor format": dict(sense="72052604" + "0000000c" + "020a80000f00" + "000000000000"),
    "deferred sense": dict(sense="71000400000000" + "0a" + "00000000" + "4400" + "00000000"),
    "sense of 8 bytes": dict(sense="7000020000000000"),
    "sense of 1 byte": dict(sense="70"),
    "sense longer than the protocol's": dict(sense=LONG_SENSE),
    "CHECK CONDITION without sense": dict(status="2"),
    "host byte DID_TIME_OUT": dict(host="3"),
    "host byte DID_NO_CONNECT": dict(host="1"),
    "host byte DID_TRANSPORT_DISRUPTED": dict(host="e"),
    "host byte DID_BUS_BUSY": dict(host="2"),
    "host byte DID_RESET": dict(host="8"),
    "host byte DID_TARGET_FAILURE": dict(host="10"),
    "host byte DID_ERROR": dict(host="7"),
    "RESERVATION CONFLICT beside a host byte": dict(status="18", host="11"),
    "driver byte DRIVER_TIMEOUT": dict(driver="6"),
    "SG_IO fails with EIO": dict(errno=5),
    "SG_IO fails with ENODEV": dict(errno=19),
    "SG_IO fails with ENOMEM": dict(errno=12),
    "SG_IO fails with EPERM": dict(errno=1),
    "SG_IO fails with EINVAL": dict(errno=22),
    "a device that was taken away": dict(errno=6),
}
table([(f"PR IN: {name}", None, words) for name, words in ANSWERS.items()], played)
table([(f"PR OUT: {name}", None, words, pr_out(6), parameters(0, KEY)) for name, words in ANSWERS.items()], played)
table([(f"PR OUT: residual {residual} after GOOD", None, {"residual": residual}, pr_out(6), parameters(0, KEY))
       for residual in (0, 24, -1, 4096)], played)


@case("PR IN: BUSY once", None)
def busy_once(side):
    side.fresh()
    with side.lu(status="8", times=1) as fd, side.client() as client:
        return ", then ".join(client.request(fd, pr_in(0)).outcome() for _ in range(2))


@case("a command that takes 1.5 s is waited for", "GOOD, 1 registered")
def slow(side):
    """Longer than the stock helper's own time limit of 1 ms, which the block layer lifts."""
    side.fresh()
    reply = side.one(pr_out(0), parameters(0, KEY), hang=1500)
    return f"{reply.outcome()}, {len(side.judge().keys()[1])} registered"




def bad_residual(side, residual):
    """A residual that the transfer cannot have. What it becomes must not leave the bounds of sz: that aborts QEMU."""
    side.fresh()
    try:
        reply = side.one(pr_in(0, 24), residual=residual)
    except Closed:
        status = side.helper.wait()
        side.again()
        return f"the helper ends with {status}"
    check(0 <= reply.size <= 24, f"{side.name}: sz {reply.size} for 24 bytes")
    return reply.outcome() if reply.status else "GOOD"


table([(f"PR IN: residual {residual}", None, residual)
       for residual in (-2147483648, -8192, -1, 25, 8192, 8193, 100000, 2147483647)], bad_residual)

# ---- what only ours promises ----


@case("sense that is not used is zero", only="ours")
def zero_sense(side):
    side.fresh()
    replies = [side.one(pr_in(0)), side.one(pr_out(1, 5), parameters(KEY)), side.one(pr_out(0), parameters(0, KEY)),
               side.one(pr_in(0), status="8"), side.one(pr_in(0), status="18"), side.one(b"\xff" + bytes(15))]
    for reply in replies:
        check(reply.status != 2 and reply.sense == bytes(96), f"{reply}: sense {reply.sense.hex()}")
    check_equal(sorted({reply.status for reply in replies}), [0, 8, 0x18], "statuses that were seen")
    short = side.one(pr_in(0), sense="7000050000000000")
    check_equal(short.sense, bytes.fromhex("7000050000000000").ljust(96, b"\0"), "sense of 8 bytes")


@case("sz is 0 with any status but GOOD", only="ours")
def zero_size(side):
    side.fresh()
    for words in (dict(status="8"), dict(status="18"), dict(sense="70000500000000"), dict(host="3"), dict(errno=5)):
        for cdb, data in ((pr_in(0), b""), (pr_out(6), parameters(0, KEY))):
            reply = side.one(cdb, data, **words)
            check(reply.status != 0 and reply.size == 0, f"{words}: {reply}")


@case("the device is asked for what the guest asked for", only="ours")
def asked_length(side):
    side.fresh()
    for length in (8, 24, 252, 8192):
        before = len(side.commands())
        side.one(pr_in(0, length))
        lines = side.commands()[before:]
        check(len(lines) == 2, "one command", lines)
        check_equal(int(lines[0]["length"]), length, "length of the transfer")
        check(int(lines[0]["timeout"]) >= 1000, "a time limit of a second or more", lines[0])


@case("an iSCSI disk that is away for one command is there for the next", only="ours")
def link_lost(side):
    side.fresh()
    with side.lu(host="1", times=1) as fd, side.client() as client:
        first, second = client.request(fd, pr_in(0)), client.request(fd, pr_in(0))
    check(first.status != 0 and second.status == 0, f"{first}, then {second}")


__all__ = ["CASES", "Case"]
