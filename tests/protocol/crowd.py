# SPDX-License-Identifier: LGPL-2.1-or-later
"""Many clients at a time, clients that stall, logical units that hang, and what is left of all of them afterwards.

The cases have the form of cases.py.
"""

import concurrent.futures
import contextlib
import random
import select
import socket
import tempfile
import threading

from harness.tap import check, check_equal

from .cases import EMPTY, KEY, Case, all_equal
from .client import DATA_MAX, HEADER_SIZE, LIMIT, PATIENCE, Client, Closed, Silent, parameters, pr_in, pr_out

CASES = []


def case(name, expect=None, only=None):
    def add(function):
        CASES.append(Case(name, function, expect, only))
        return function
    return add


def in_parallel(count, function):
    """function (0) ... function (count - 1), each in a thread; their results in order."""
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        return list(pool.map(function, range(count)))


@contextlib.contextmanager
def own_helper(side):
    """A process that no other case has used, so that what it holds can be counted."""
    with tempfile.TemporaryDirectory(prefix="holdfast-crowd-") as folder:
        helper = side.start(folder)
        try:
            yield helper
        finally:
            helper.kill()


def warm_up(side, path, lus=(0,)):
    for lu in lus:
        for _ in range(3):
            with side.lu(lu) as fd, Client(path) as client:
                client.request(fd, pr_in(0))


# ---- many ----


@case("64 clients in parallel, five commands each on one LU", f"320 times {EMPTY}")
def many_clients(side):
    side.fresh()

    def play(_):
        with side.lu() as fd, side.client() as client:
            return [client.request(fd, pr_in(0)).outcome() for _ in range(5)]
    return all_equal([outcome for outcomes in in_parallel(64, play) for outcome in outcomes])


@case("64 clients in parallel on four LUs, reading and registering", "192 times GOOD, 1 registered on each")
def many_mixed(side):
    for lu in range(4):
        side.fresh(lu)

    def play(number):
        with side.lu(number % 4) as fd, side.client() as client:
            return [client.request(fd, pr_out(6), parameters(0, KEY)).outcome(), client.request(fd, pr_in(0)).outcome().split()[0],
                    client.request(fd, pr_out(6), parameters(0, KEY)).outcome()]
    outcomes = all_equal([outcome for outcomes in in_parallel(64, play) for outcome in outcomes])
    keys = [len(side.judge(lu).keys()[1]) for lu in range(4)]
    return f"{outcomes}, {keys[0] if len(set(keys)) == 1 else keys} registered on each"


def connected(side, count):
    """They connect, each in turn, and stay; then each of them is served; then all go."""
    served = closed = 0
    side.fresh()
    with own_helper(side) as helper:
        warm_up(side, helper.path)
        before = helper.descriptors_settle(0, 0.2)
        with contextlib.ExitStack() as stack, side.lu() as fd:
            clients = []
            for _ in range(count):
                try:
                    clients.append(stack.enter_context(Client(helper.path)))
                except Closed:
                    closed += 1
            for client in clients:
                try:
                    served += client.request(fd, pr_in(0)).status == 0
                except Closed:
                    closed += 1
        after = helper.descriptors_settle(before)
        alive = helper.alive()
    check(after <= before, f"{side.name}: {after} descriptors after {count} clients, {before} before")
    return f"{served} served, {closed} closed, {'runs' if alive else 'ended'}"


CASES.append(Case("1000 clients connected", lambda side: connected(side, 1000), "1000 served, 0 closed, runs"))

# ---- stalls ----


def stalled(side, stall):
    """One client stalls, in ten connections; another is served at once."""
    side.fresh()
    with contextlib.ExitStack() as stack, side.lu() as fd, side.lu() as own:
        clients = [stack.enter_context(side.client()) for _ in range(10)]
        for client in clients:
            stall(client, fd)
        with side.client() as other:
            other.send(pr_in(0), [own])
            return other.outcome()


def write_without_reading(client, fd):
    """Asks until nobody takes any more of it."""
    client.socket.setblocking(False)
    with contextlib.suppress(BlockingIOError, OSError):
        for _ in range(200):
            client.socket.sendmsg([pr_in(0)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fd.to_bytes(4, "little"))])


for _name, _stall in {
    "in front of the CDB": lambda client, fd: None,
    "in the CDB": lambda client, fd: client.send(pr_in(0)[:9], [fd]),
    "in front of the list": lambda client, fd: client.send(pr_out(0), [fd]),
    "in the list": lambda client, fd: client.send(pr_out(0) + bytes(11), [fd]),
    "and does not read its answers": write_without_reading,
}.items():
    CASES.append(Case(f"a client that stalls {_name} delays nobody", lambda side, stall=_stall: stalled(side, stall), EMPTY))


def hanging(side, count, hang, **more):
    """count commands hang on one LU; is another LU served before they come back?"""
    for lu in (0, 1):
        side.fresh(lu)
    with contextlib.ExitStack() as stack, own_helper(side) as helper:
        warm_up(side, helper.path, (0, 1))
        hung = []
        fd = stack.enter_context(side.lu(0, hang=hang, **more))
        for _ in range(count):
            client = stack.enter_context(Client(helper.path))
            client.send(pr_in(0), [fd])
            hung.append(client.socket)
        with side.lu(1) as own, Client(helper.path) as other:
            other.send(pr_in(0), [own])
            first = select.select([other.socket, *hung], [], [], LIMIT)[0]
            outcome = other.outcome().split()[0]
        return f"{outcome}, {'before' if other.socket in first and len(first) == 1 else 'after'} them"


CASES.append(Case("one command that hangs on an LU does not delay another LU", lambda side: hanging(side, 1, 1500), "GOOD, before them"))
CASES.append(Case("70 commands that hang on an LU do not delay another LU", lambda side: hanging(side, 70, 1500)))


@case("commands of one LU are sent one at a time, in the order they came", only="ours")
def one_at_a_time(side):
    side.fresh()
    start = len(side.commands())

    def play(_):
        with side.lu(0, delay=5) as fd, side.client() as client:
            return client.request(fd, pr_in(0)).status
    check_equal(set(in_parallel(16, play)), {0}, "statuses")
    lines = side.commands()[start:]
    check_equal(len(lines), 32, "lines of the device's log")
    check_equal([line["what"] for line in lines], ["begin", "end"] * 16, "begins and ends")


# ---- what is left ----


def hostile(client, fd, source):
    """One connection that breaks some rule, or several, and goes at any point."""
    kind = source.randrange(9)
    if kind == 0:
        client.send(source.randbytes(source.randrange(1, 5000)))
    elif kind == 1:
        client.send(pr_in(0)[: source.randrange(1, 16)], [fd])
    elif kind == 2:
        client.send(pr_in(0), [fd] * source.randrange(2, 200))
    elif kind == 3:
        for byte in range(16):
            client.send(pr_in(0)[byte : byte + 1], [fd])
    elif kind == 4:
        client.send(pr_out(0, length=source.randrange(24, DATA_MAX)) + bytes(source.randrange(0, 20)), [fd])
    elif kind == 5:
        client.send(pr_in(0, 9000), [fd])
    elif kind == 6:
        for _ in range(20):
            client.send(pr_in(0), [fd])
    elif kind == 7:
        client.send(pr_out(0), [fd])
        client.send(parameters(0, KEY), [fd, fd])
        client.shut_write()
    else:
        client.send(bytes([source.randrange(256)]) + source.randbytes(15), [fd])
    if source.randrange(2):
        with contextlib.suppress(Closed, Silent):
            client.receive(HEADER_SIZE, 0.01)


@case("200 hostile connections leave no descriptor behind", "no descriptor is left, serves")
def leaks(side):
    side.fresh()
    source = random.Random(7)
    with own_helper(side) as helper, side.lu() as fd:
        warm_up(side, helper.path)
        # A helper may keep a few things for good after its first trouble.
        for _ in range(20):
            with contextlib.suppress(Closed), Client(helper.path, greet=source.randrange(8) > 0) as client:
                hostile(client, fd, source)
        before = helper.descriptors_settle(0, 0.3)
        for _ in range(200):
            with contextlib.suppress(Closed), Client(helper.path, greet=source.randrange(8) > 0) as client:
                hostile(client, fd, source)
        after = helper.descriptors_settle(before)
        check(helper.alive(), f"{side.name} ended", helper.errors())
        with Client(helper.path) as client:
            served = client.request(fd, pr_in(0))
        left = "no descriptor is" if after <= before else f"{after - before} descriptors are"
        return f"{left} left, {'serves' if served.status in (0, 2) else served}"


@case("3000 commands and 300 connections do not make it grow", "bounded")
def growth(side):
    side.fresh()
    with own_helper(side) as helper, side.lu() as fd:
        def play(connections):
            for _ in range(connections):
                with Client(helper.path) as client:
                    for _ in range(10):
                        check(client.request(fd, pr_in(0)).status in (0, 2), f"{side.name}: status")
        play(100)
        before = helper.resident_kib()
        play(300)
        grown = helper.resident_kib() - before
        return "bounded" if grown < 2048 else f"{grown} KiB more"


@case("a client that never reads does not make it grow", "bounded, 400 of 400 answers")
def not_reading_growth(side):
    """What it is told waits in its socket, not in the helper; when it reads at last, everything is there, in order."""
    side.fresh()
    with own_helper(side) as helper, side.lu() as fd:
        warm_up(side, helper.path)
        before = helper.resident_kib()
        with Client(helper.path) as client:
            writer = threading.Thread(target=lambda: [client.send(pr_in(0), [fd]) for _ in range(400)], daemon=True)
            writer.start()
            writer.join(PATIENCE)
            grown = helper.resident_kib() - before
            answers = sum(client.reply().status == 0 for _ in range(400))
            writer.join()
        return f"{'bounded' if grown < 4096 else f'{grown} KiB more'}, {answers} of 400 answers"


@case("connections that say nothing cost little", None, only="ours")
def idle_memory(side):
    with own_helper(side) as helper, contextlib.ExitStack() as stack:
        warm_up(side, helper.path)
        before = helper.resident_kib()
        for _ in range(200):
            stack.enter_context(Client(helper.path))
        each = (helper.resident_kib() - before) / 200
        check(each < 64, f"{each:.0f} KiB for each connection")


__all__ = ["CASES"]
