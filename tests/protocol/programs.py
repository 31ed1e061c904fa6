# SPDX-License-Identifier: LGPL-2.1-or-later
"""The programs as a service manager, libvirt or a person at a shell meets them: options, sockets, pidfiles, signals.

The cases have the form of cases.py; each starts processes of its own.
"""

import contextlib
import fcntl
import os
import random
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time

from harness.host import end_with_parent
from harness.tap import check, check_equal

from . import crowd
from .cases import EMPTY, KEY, Case
from .client import LIMIT, Client, Closed, parameters, pr_in, pr_out
from .helper import environment

CASES = []
NOBODY = 65534
READ_ONLY = "CHECK 5/2000 700005000000000a00000000200000000000"


def case(name, expect=None, only=None):
    def add(function):
        CASES.append(Case(name, function, expect, only))
        return function
    return add


@contextlib.contextmanager
def scratch():
    """A folder that other users may pass through, for sockets and pidfiles."""
    with tempfile.TemporaryDirectory(prefix="holdfast-helper-") as folder:
        os.chmod(folder, 0o777)
        yield folder


@contextlib.contextmanager
def running(side, folder, name="h", **named):
    helper = side.start(folder, name, **named)
    try:
        yield helper
    finally:
        helper.kill()


def served(side, path, **words):
    """The outcome of one command at that socket, on a nexus of its own."""
    side.fresh(2)
    nexus = f"p{side.n_markers}"
    for _ in range(2):
        with side.lu(2, nexus=nexus, **words) as fd, Client(path) as client:
            reply = client.request(fd, pr_in(0))
        if not reply.code or reply.code[0] != 6:
            break
    return reply.outcome()


def run(side, folder, *words, limit=LIMIT):
    """The program with these words, which ends by itself. Its standard output and error are of both programs' own wording."""
    return subprocess.run([side.program, *words], capture_output=True, text=True, timeout=limit, stdin=subprocess.DEVNULL, cwd=folder,
                          env=environment(side.broker.path), preexec_fn=end_with_parent)


def ended(done):
    told = [name for name, text in (("stdout", done.stdout), ("stderr", done.stderr)) if text.strip()]
    return f"exit status {done.returncode}, words on {' and '.join(told) or 'neither'}"


# ---- options ----


@case("options: -h and --help name every option")
def option_help(side):
    long = ("--socket", "--pidfile", "--daemon", "--trace", "--user", "--group", "--verbose", "--quiet", "--help", "--version")
    short = "kfdTugvqhV"
    with scratch() as folder:
        one, other = run(side, folder, "-h"), run(side, folder, "--help")
    check_equal(one.stdout, other.stdout, f"{side.name}: -h and --help")
    lacking = [word for word in (*long, *("-" + letter for letter in short)) if word not in one.stdout]
    return f"{ended(one)}, without {', '.join(lacking) or 'nothing'}"


@case("options: -V and --version", "exit status 0, words on stdout, a version in the first line")
def option_version(side):
    with scratch() as folder:
        one, other = run(side, folder, "-V"), run(side, folder, "--version")
    check_equal(one.stdout, other.stdout, f"{side.name}: -V and --version")
    return f"{ended(one)}, {'a' if re.search('[0-9]+[.][0-9]+', one.stdout.splitlines()[0]) else 'no'} version in the first line"


def refused(side, words):
    with scratch() as folder:
        done = run(side, folder, *words)
        return f"{ended(done)}{', left ' + ' '.join(sorted(os.listdir(folder))) if os.listdir(folder) else ''}"


for _name, _words in {
    "an unknown short option": ["-Z"],
    "an unknown long option": ["--no-such-option"],
    "-k without a word": ["-k"],
    "-f without a word": ["-f"],
    "a relative -k": ["-k", "here.sock"],
    "an empty -k": ["-k", ""],
    "-k in a folder that is not there": ["-k", "/nonexistent/here.sock"],
    "-k with a path that is too long for a socket": ["-k", "/tmp/" + "x" * 120],
    "an operand": ["-k", "/nonexistent/here.sock", "operand"],
    "an unknown user": ["-u", "no-such-user", "-k", "/nonexistent/here.sock"],
    "an unknown group": ["-g", "no-such-group", "-k", "/nonexistent/here.sock"],
    "-h behind other options": ["-v", "-q", "-h"],
}.items():
    CASES.append(Case(f"options: {_name}", lambda side, words=_words: refused(side, words)))


def accepted(side, words):
    with scratch() as folder, running(side, folder, options=[word.replace("@", folder) for word in words]) as helper:
        outcome = served(side, helper.path)
        return f"{outcome}, exit status {helper.terminate()}, left {' '.join(sorted(os.listdir(folder)))}"


for _words in ([], ["-v"], ["-q"], ["-v", "-v", "-v"], ["--verbose", "--quiet"], ["-f", "@/pid"], ["--pidfile=@/pid"],
               ["-T", "no_such_event*"], ["-u", "nobody"], ["-u", str(NOBODY), "-g", str(NOBODY)], ["--user=nobody", "--group=nogroup"]):
    CASES.append(Case(f"options: {' '.join(_words) or 'only -k'}", lambda side, words=_words: accepted(side, words)))


def identity(side, words):
    """Who the process is once it serves."""
    with scratch() as folder, running(side, folder, options=words) as helper:
        outcome = served(side, helper.path)
        with open(f"/proc/{helper.pid}/status") as file:
            status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    user, group = status["Uid"].split()[1], status["Gid"].split()[1]
    return (f"{outcome}, user {user}, group {group}, groups {status['Groups'].strip() or 'none'}, "
            f"effective {status['CapEff']}, bounding {status['CapBnd']}")


CASES.append(Case("privileges: as root", lambda side: identity(side, [])))
CASES.append(Case("privileges: -u nobody", lambda side: identity(side, ["-u", "nobody"])))
CASES.append(Case("privileges: -u nobody -g nogroup", lambda side: identity(side, ["-u", "nobody", "-g", "nogroup"])))

# ---- pidfile and daemon ----


@case("pidfile: holds the process id, and a second helper does not start with it")
def pidfile(side):
    with scratch() as folder, running(side, folder, options=["-f", f"{folder}/pid"]) as helper:
        outcome = served(side, helper.path)
        with open(f"{folder}/pid") as file:
            text = file.read()
        second = run(side, folder, "-k", f"{folder}/second.sock", "-f", f"{folder}/pid")
        check(helper.alive(), f"{side.name}: the first one ended")
        check_equal(served(side, helper.path), outcome, f"{side.name}: the first one's answer")
    return f"{outcome}, {'its process id' if text.strip() == str(helper.pid) else 'something else'}, {ended(second)}"


@case("pidfile: a stale one is taken over")
def pidfile_stale(side):
    with scratch() as folder:
        with open(f"{folder}/pid", "w") as file:
            file.write("999999999 and more than a number\n")
        with running(side, folder, options=["-f", f"{folder}/pid"]) as helper:
            outcome = served(side, helper.path)
            with open(f"{folder}/pid") as file:
                text = file.read()
            return f"{outcome}, {'its process id' if text.strip() == str(helper.pid) else 'something else'}"


@case("pidfile: in a folder that is not there")
def pidfile_nowhere(side):
    with scratch() as folder:
        done = run(side, folder, "-k", f"{folder}/h.sock", "-f", f"{folder}/none/pid")
        return f"{ended(done)}, left {' '.join(sorted(os.listdir(folder))) or 'nothing'}"


@case("daemon: -d returns when the socket is there, the pidfile names the one that serves")
def daemon(side):
    with scratch() as folder:
        path, pidfile_path = f"{folder}/h.sock", f"{folder}/pid"
        done = subprocess.run([side.program, "-d", "-k", path, "-f", pidfile_path], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL, timeout=LIMIT, env=environment(side.broker.path))
        # The socket is there already; the pidfile may be written and locked by the child a moment later.
        with Client(path):
            pid = _read_pid(pidfile_path)
        pidfd = os.pidfd_open(pid)
        try:
            outcome = served(side, path)
            with open(f"/proc/{pid}/stat") as file:
                fields = file.read().rsplit(")", 1)[1].split()
            own_session = int(fields[3]) == pid or int(fields[3]) != os.getsid(0)
            where = os.readlink(f"/proc/{pid}/cwd")
        finally:
            signal.pidfd_send_signal(pidfd, signal.SIGTERM)
            ended_in_time = bool(_wait_readable(pidfd))
            if not ended_in_time:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)
        return (f"exit status {done.returncode}, {outcome}, {'a' if own_session else 'no'} session of its own, in {where}, "
                f"{'ends' if ended_in_time else 'does not end'}, left {' '.join(sorted(os.listdir(folder))) or 'nothing'}")


def _wait_readable(fd):
    return select.select([fd], [], [], LIMIT)[0]


def _read_pid(path):
    """The number in a pidfile that somebody holds locked."""
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        with contextlib.suppress(FileNotFoundError, ValueError), open(path, "r+") as file:
            pid = int(file.read())
            os.kill(pid, 0)
            return pid
        os.sched_yield()
    check(False, f"no process id in {path}")


# ---- sockets ----


@case("socket: what is left of a dead helper is replaced")
def socket_stale(side):
    with scratch() as folder:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(f"{folder}/h.sock")
        with running(side, folder) as helper:
            return served(side, helper.path)


@case("socket: that of a helper that runs")
def socket_busy(side):
    with scratch() as folder, running(side, folder) as first:
        before = os.stat(first.path).st_ino
        process = subprocess.Popen([side.program, "-k", first.path], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL, env=environment(side.broker.path), preexec_fn=end_with_parent)
        try:
            status = _ended_or(process, lambda: os.path.exists(first.path) and os.stat(first.path).st_ino != before)
            outcome = served(side, first.path)
        finally:
            process.kill()
            process.wait()
        told = "takes it over" if status is None else f"exit status {status}"
        return f"{told}, {outcome}, the first one {'runs' if first.alive() else 'ended'}"


def _ended_or(process, event):
    end = time.monotonic() + LIMIT
    while time.monotonic() < end and not event():
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(0.01)
    return None


@case("socket: a plain file is in its place")
def socket_file(side):
    with scratch() as folder:
        with open(f"{folder}/h.sock", "w") as file:
            file.write("precious")
        process = subprocess.Popen([side.program, "-k", f"{folder}/h.sock"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL, env=environment(side.broker.path), preexec_fn=end_with_parent)
        try:
            status = _ended_or(process, lambda: not os.path.isfile(f"{folder}/h.sock") and os.path.exists(f"{folder}/h.sock"))
        finally:
            process.kill()
            process.wait()
        if status is None:
            return "the file is gone"
        return f"exit status {status}, the file is {'there' if os.path.isfile(f'{folder}/h.sock') else 'gone'}"


@case("socket: its mode follows the umask")
def socket_mode(side):
    modes = []
    for mask in (0o022, 0o077, 0o007):
        old = os.umask(mask)
        try:
            with scratch() as folder, running(side, folder) as helper:
                modes.append(f"{mask:03o}:{os.stat(helper.path).st_mode & 0o777:03o}")
        finally:
            os.umask(old)
    return " ".join(modes)


# ---- activation ----


@contextlib.contextmanager
def listening(folder):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{folder}/a.sock")
        listener.listen(4)
        yield listener


@case("activation: serves the socket it is given, and leaves it")
def activation(side):
    with scratch() as folder, listening(folder) as listener, running(side, folder, listen=listener) as helper:
        outcome = served(side, f"{folder}/a.sock")
        status = helper.terminate()
        return f"{outcome}, exit status {status}, the socket is {'there' if os.path.exists(f'{folder}/a.sock') else 'gone'}"


@case("activation: who connected before the start is served")
def activation_early(side):
    with scratch() as folder, listening(folder) as listener, Client(f"{folder}/a.sock", greet=False) as client:
        client.send(bytes(4))
        with running(side, folder, listen=listener):
            client.receive(4)
            side.fresh(2)
            with side.lu(2, nexus=f"early{side.n_markers}") as fd:
                logged_in(client, fd)
                return client.request(fd, pr_in(0)).outcome()


@case("activation: -k beside it")
def activation_and_path(side):
    with scratch() as folder, listening(folder) as listener, \
            running(side, folder, listen=listener, options=["-k", f"{folder}/k.sock"]) as helper:
        return _activation_end(helper)


@case("activation: with a connected socket in place of a listening one")
def activation_wrong(side):
    one, two = socket.socketpair()
    with scratch() as folder, one, two, running(side, folder, listen=one) as helper:
        return _activation_end(helper, 1)


def _activation_end(helper, limit=LIMIT):
    status = helper.wait(limit)
    return "runs" if status is None else f"exit status {status}"


# ---- the end ----


def wait_for_begin(side, number):
    """Until the device has begun that many commands."""
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        if sum(line["what"] == "begin" for line in side.commands()) >= number:
            return
        os.sched_yield()
    check(False, "the command does not begin", side.commands()[-4:])


def logged_in(client, fd):
    """A new nexus begins with a unit attention; it is over after this."""
    check(any(client.request(fd, pr_in(0)).status == 0 for _ in range(4)), "the unit attentions of a new nexus end")


def drains(side, number):
    """A command that the device is busy with is finished and answered; then the process ends."""
    side.fresh(2)
    with scratch() as folder, running(side, folder) as helper:
        nexus = f"drain{side.n_markers}"
        with side.lu(2, nexus=nexus) as fd, side.lu(2, nexus=nexus, hang=700) as slow, Client(helper.path) as client:
            logged_in(client, fd)
            begun = sum(line["what"] == "begin" for line in side.commands())
            client.send(pr_out(6), [slow])
            client.send(parameters(0, KEY))
            wait_for_begin(side, begun + 1)
            helper.process.send_signal(number)
            outcome, then = client.outcome(), client.outcome()
        status = helper.wait()
        gone = not os.path.exists(helper.path)
    return (f"{outcome}, then {then}, exit status {status}, the socket is {'gone' if gone else 'there'}, "
            f"{len(side.judge(2).keys()[1])} registered")


for _signal in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    CASES.append(Case(f"{_signal.name}: the command in flight is finished", lambda side, number=_signal: drains(side, number)))


def ends_with(side, prepare):
    """SIGTERM while a client is connected that has said nothing, or something."""
    with scratch() as folder, running(side, folder) as helper, side.lu(2) as fd, Client(helper.path) as client:
        prepare(client, fd)
        helper.process.send_signal(signal.SIGTERM)
        return f"{client.outcome()}, exit status {helper.wait()}"


CASES.append(Case("SIGTERM: an idle client", lambda side: ends_with(side, lambda client, fd: None)))
CASES.append(Case("SIGTERM: half a CDB", lambda side: ends_with(side, lambda client, fd: client.send(pr_in(0)[:8], [fd]))))
CASES.append(Case("SIGTERM: half a list", lambda side: ends_with(side, lambda client, fd: client.send(pr_out(0) + bytes(9), [fd]))))


@case("SIGKILL and a new start: reconnecting clients are served at the same path", None)
def killed(side):
    with scratch() as folder:
        with running(side, folder) as helper, Client(helper.path) as client:
            first = served(side, helper.path)
            helper.kill()
            try:
                client.receive(1)
            except Closed:
                closed = "closed"
        with running(side, folder) as helper:
            return f"{first}, {closed}, {served(side, helper.path)}"


# ---- what only ours has ----


@contextlib.contextmanager
def ours_with(side, *options, **named):
    with scratch() as folder, running(side, folder, options=options, **named) as helper:
        yield helper


@case("--strict: PR OUT through O_RDONLY is refused as the stock helper does", only="ours")
def strict(side):
    side.fresh(2)
    with ours_with(side, "--strict") as helper, side.lu(2, flags=os.O_RDONLY) as fd, Client(helper.path) as client:
        check_equal(client.request(fd, pr_out(6), parameters(0, KEY)).outcome(), READ_ONLY, "the answer")
        check_equal(client.request(fd, pr_in(0)).status, 0, "status of READ KEYS")
    check_equal(side.judge(2).keys()[1], [], "keys")


@case("--request-timeout: who does not finish what it began is closed, who is idle is not", only="ours")
def request_timeout(side):
    side.fresh(2)
    with ours_with(side, "--request-timeout", "300") as helper, side.lu(2) as fd, Client(helper.path) as idle:
        for part in (pr_in(0)[:5], pr_out(0) + parameters()[:7]):
            with Client(helper.path) as client:
                client.send(part, [fd])
                check_equal(client.outcome(), "closes", f"a client that stalls after {len(part)} bytes")
        with Client(helper.path, greet=False) as client:
            client.receive(4)
            check_equal(client.outcome(), "closes", "a client that does not greet")
        check_equal(idle.request(fd, pr_in(0)).status, 0, "status for the client that was idle meanwhile")


@case("--timeout: a device that hangs is answered for with CHECK CONDITION b/2e02, and its LU waits for it", only="ours")
def command_timeout(side):
    side.fresh(2)
    with ours_with(side, "--timeout", "300") as helper, side.lu(2, hang=1500, times=1) as fd, Client(helper.path) as client:
        check_equal(client.request(fd, pr_in(0)).outcome()[:12], "CHECK b/2e02", "the answer of the hanging command")
        end = time.monotonic() + LIMIT
        # BUSY while it waits for its LU; b/2e02 if its turn comes in the last moment before its deadline.
        while (reply := client.request(fd, pr_in(0))).status != 0 and time.monotonic() < end:
            check(reply.status == 8 or reply.outcome()[:12] == "CHECK b/2e02", "an answer of another kind", reply.outcome())
        check_equal(reply.status, 0, "the status once the device is back")


@case("--max-clients: the next one is closed, until one goes", only="ours")
def max_clients(side):
    with ours_with(side, "--max-clients", "8", "--max-clients-per-uid", "8") as helper, side.lu(2) as fd, \
            contextlib.ExitStack() as stack:
        # The look whether it listens may count as a client until its end is seen.
        clients = []
        end = time.monotonic() + LIMIT
        while len(clients) < 8 and time.monotonic() < end:
            with contextlib.suppress(Closed):
                clients.append(stack.enter_context(Client(helper.path)))
        check_equal(len(clients), 8, "clients that are served")
        try:
            with Client(helper.path):
                check(False, "a ninth client is greeted")
        except Closed:
            pass
        check(all(client.request(fd, pr_in(0)).status in (0, 2) for client in clients), "the eight are served")
        clients.pop().close()
        while time.monotonic() < end:
            with contextlib.suppress(Closed), Client(helper.path) as client:
                check(client.request(fd, pr_in(0)).status in (0, 2), "the new one is served")
                return
        check(False, "no place for another client")


@case("--allow-uid: others are closed", only="ours")
def allow_uid(side):
    with ours_with(side, "--allow-uid", "nobody") as helper:
        try:
            with Client(helper.path):
                check(False, "root is greeted")
        except Closed:
            pass
    with ours_with(side, "--allow-uid", "0") as helper:
        check_equal(served(side, helper.path), EMPTY, "for root")


@case("--config: its words count, the command line's more", only="ours")
def config(side):
    side.fresh(2)
    with scratch() as folder:
        with open(f"{folder}/conf", "w") as file:
            file.write("[pr-helper]\nstrict=true\nsocket=/nonexistent/no.sock\n")
        with running(side, folder, options=["--config", f"{folder}/conf"]) as helper, side.lu(2, flags=os.O_RDONLY) as fd, \
                Client(helper.path) as client:
            check_equal(client.request(fd, pr_out(6), parameters(0, KEY)).outcome(), READ_ONLY, "the answer")
        done = run(side, folder, "--config", f"{folder}/none", "-k", f"{folder}/h.sock")
        check(done.returncode == 1 and done.stderr, "a file that was named and is not there is an error", done)


@case("memory: nothing is leaked by anything that clients do", only="ours")
def leaks(side):
    """The sanitizer's look at the end of the process, where it was built with one. The filter would forbid it."""
    side.fresh(2)
    source = random.Random(11)
    with ours_with(side, "--sandbox=off", leaks=True) as helper, side.lu(2) as fd, side.lu(2, hang=200) as slow:
        for _ in range(150):
            with contextlib.suppress(Closed), Client(helper.path, greet=source.randrange(8) > 0) as client:
                crowd.hostile(client, fd, source)
        with Client(helper.path) as client:
            client.send(pr_in(0), [slow])
            client.send(pr_in(0), [fd])
            check_equal(helper.terminate(), 0, f"exit status\n{helper.errors()}")


@case("-k is enough, and nothing else is written", only="ours")
def only_socket(side):
    """libvirt's managed mode: -k and nothing else, nothing to write but the socket."""
    with scratch() as folder:
        with open(f"{folder}/lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with running(side, folder) as helper:
                check_equal(served(side, helper.path), EMPTY, "its answer")
                check_equal(sorted(os.listdir(folder)), ["h.sock", "h.stderr", "lock"], "files in its folder")


# ---- the stand-in itself ----

# REGISTER AND IGNORE and READ KEYS through struct sg_io_v4 (<linux/bsg.h>), by a process that has the module.
VERSION_4 = """
import ctypes, fcntl, os, struct, sys
fd = os.open(sys.argv[1], os.O_RDWR)
def command(cdb, out=b"", length_in=0):
    request, sense = ctypes.create_string_buffer(cdb, len(cdb)), ctypes.create_string_buffer(96)
    data_out, data_in = ctypes.create_string_buffer(out, max(len(out), 1)), ctypes.create_string_buffer(max(length_in, 1))
    at = ctypes.addressof
    header = bytearray(struct.pack("=iIIIQQIIIIQIIIIQQIIQ", ord("Q"), 0, 0, len(cdb), at(request), 0, 0, 0, 0, 96, at(sense),
                                   0, len(out), 0, length_in, at(data_out), at(data_in), 20000, 0, 0).ljust(160, b"\\0"))
    fcntl.ioctl(fd, 0x2285, header)
    driver, transport, device, _, _, _, sense_length, residual_in, _ = struct.unpack_from("=IIIIIIIii", header, 108)
    return device, sense.raw[:sense_length], data_in.raw[:length_in - residual_in] if length_in else b""
command(bytes(6))
device, sense, _ = command(bytes.fromhex("5f060000000000001800"), bytes(8) + (0x4444).to_bytes(8, "big") + bytes(8))
print(device, sense.hex())
device, sense, data = command(bytes.fromhex("5e000000000000010000"), length_in=256)
print(device, sense.hex(), data[4:].hex())
device, sense, data = command(bytes.fromhex("5e1f0000000000010000"), length_in=256)
print(device, sense.hex(), data.hex())
"""


@case("the stand-in: version 4 of SG_IO", only="ours")
def version_4(side):
    side.fresh(2)
    done = subprocess.run([sys.executable, "-c", VERSION_4, side.marker(2, nexus=f"v4-{side.n_markers}")], capture_output=True, text=True,
                          timeout=LIMIT, env=environment(side.broker.path))
    check_equal(done.stderr, "", "words on stderr")
    check_equal(done.stdout.splitlines(), ["0 ", "0  000000080000000000004444", "2 700005000000000a00000000240000000000 "], "what it saw")


@case("the stand-in: sg_persist reads through it what the judge sees", only="ours")
def sg_persist(side):
    side.fresh(2)
    side.judge(2).pr_out(0, new_key=0xABC1)
    # Its INQUIRY does not take the unit attention of a new nexus, its second try does.
    for _ in range(2):
        done = subprocess.run(["sg_persist", "--in", "--read-keys", side.marker(2, nexus="sg")], capture_output=True, text=True,
                              timeout=LIMIT, env=environment(side.broker.path))
    check_equal((done.returncode, done.stderr), (0, ""), "its exit status and words on stderr")
    check("1 registered reservation key" in done.stdout and "0xabc1" in done.stdout, "the key is shown", done.stdout)


__all__ = ["CASES"]
