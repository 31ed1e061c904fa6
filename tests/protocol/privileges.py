# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a helper that serves may still do: user, groups, capabilities and filter of each of its threads, for each way to start it; and
whether it sees the devices of a VM.

The cases have the form of cases.py. What of a process is seen is tried by tests/unit/test-prhelper-process, what the filter refuses by
tests/unit/test-prhelper-sandbox.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys

from harness.host import end_with_parent
from harness.tap import check, check_equal

from .cases import Case
from .client import LIMIT, Client
from .helper import wait_for_socket
from .programs import NOBODY, scratch

CASES = []
OTHER = 65533
RAWIO, PTRACE = 1 << 17, 1 << 19
# Nothing of the machine's own: no journal below /var/lib, no control socket in /run.
QUIET = ["--state-dir", "none", "--control", "none"]
CONTROL = ["--state-dir", "none", "--control", "{folder}/c.sock"]
SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def bounding():
    """Of this process, which an unprivileged helper cannot change."""
    return int(status_of("/proc/self")["CapBnd"], 16)


def status_of(folder):
    with open(f"{folder}/status") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


def environment():
    env = {name: value for name, value in os.environ.items() if name not in ("LISTEN_PID", "LISTEN_FDS", "NOTIFY_SOCKET", "LD_PRELOAD")}
    env["ASAN_OPTIONS"] = "detect_leaks=0"
    return env


def as_user(uid, *capabilities):
    """Words that start a program as a unit with User= and AmbientCapabilities= does."""
    names = ",".join("+" + name for name in capabilities) or "-all"
    return ["setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups", "--inh-caps", "-all" if not capabilities else names,
            "--ambient-caps", names]


@contextlib.contextmanager
def started(side, folder, words, launcher=()):
    path = f"{folder}/p.sock"
    with open(f"{folder}/stderr", "w+") as stderr:
        process = subprocess.Popen([*launcher, side.program, "-k", path, *words], stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr,
                                   cwd=folder, env=environment(), preexec_fn=end_with_parent)

        def told():
            with open(f"{folder}/stderr") as file:
                return file.read()
        try:
            wait_for_socket(process, path, socket.SOCK_STREAM, told)
            with Client(path):  # greeted: the start is over
                pass
            yield process, told
        finally:
            process.kill()
            process.wait()


def check_status(process, uid, gid, capabilities, bound):
    """Each thread of it."""
    tasks = sorted(os.listdir(f"/proc/{process.pid}/task"))
    for task in tasks:
        status = status_of(f"/proc/{process.pid}/task/{task}")
        seen = {name: int(status[name], 16) for name in SETS}
        check_equal(seen, {"CapInh": 0, "CapPrm": capabilities, "CapEff": capabilities, "CapBnd": bound, "CapAmb": 0},
                    f"capabilities of thread {task}")
        check_equal((status["NoNewPrivs"], status["Seccomp"]), ("1", "2"), f"no_new_privs and filter of thread {task}")
        check_equal((status["Uid"].split(), status["Gid"].split(), status["Groups"].split()), ([str(uid)] * 4, [str(gid)] * 4, []),
                    f"user, group and groups of thread {task}")
    return len(tasks)


# name, launcher, words, uid, gid, capabilities, words of standard error
COMBINATIONS = [
    ("root, -k only", [], QUIET, 0, 0, RAWIO, ""),
    ("root with a control socket: may look into processes", [], CONTROL, 0, 0, RAWIO | PTRACE, ""),
    ("root with --device: need not", [], [*CONTROL, "--device", "/dev/null"], 0, 0, RAWIO, ""),
    ("root with a message bus", [], [*QUIET, "--vmstate-bus", "unix:path=/nonexistent/bus"], 0, 0, RAWIO | PTRACE, ""),
    ("-u -g", [], [*QUIET, "-u", "nobody", "-g", "nogroup"], NOBODY, NOBODY, RAWIO, ""),
    ("-u -g with a message bus", [], [*QUIET, "-u", "nobody", "-g", "nogroup", "--vmstate-bus", "unix:path=/nonexistent/bus"],
     NOBODY, NOBODY, RAWIO | PTRACE, ""),
    ("-u without -g is told", [], [*QUIET, "-u", "nobody"], NOBODY, 0, RAWIO, "the group stays root"),
    ("QEMU's own user with CAP_SYS_RAWIO", as_user(NOBODY, "sys_rawio"), QUIET, NOBODY, NOBODY, RAWIO, ""),
    ("QEMU's own user with CAP_SYS_RAWIO and a control socket", as_user(NOBODY, "sys_rawio"), CONTROL, NOBODY, NOBODY, RAWIO, ""),
    ("another user with CAP_SYS_PTRACE", as_user(OTHER, "sys_rawio", "sys_ptrace"), CONTROL, OTHER, OTHER,
     RAWIO | PTRACE, ""),
    ("another user with CAP_SYS_PTRACE that is not needed", as_user(OTHER, "sys_rawio", "sys_ptrace"), QUIET, OTHER, OTHER, RAWIO, ""),
    ("another user with --device", as_user(OTHER, "sys_rawio", "sys_ptrace"),
     [*CONTROL, "--device", "/dev/null"], OTHER, OTHER, RAWIO, ""),
    ("capabilities that nobody needs", as_user(OTHER, "sys_rawio", "dac_override", "sys_admin", "net_admin", "kill"), QUIET, OTHER, OTHER,
     RAWIO, ""),
    ("no capability is told", as_user(OTHER), QUIET, OTHER, OTHER, 0, "CAP_SYS_RAWIO is missing"),
]


def combination(side, launcher, words, uid, gid, capabilities, text):
    with scratch() as folder, started(side, folder, [word.format(folder=folder) for word in words], launcher) as (process, told):
        check_status(process, uid, gid, capabilities, bounding() if launcher else 0)
        check(text in told(), f"standard error names it: {text}", told())


for _name, *_arguments in COMBINATIONS:
    CASES.append(Case(f"privileges: {_name}", lambda side, arguments=_arguments: combination(side, *arguments), only="ours"))


# A client that waits for its standard input to end: a VM of another user than root.
CLIENT = """
import socket, sys
with socket.socket(socket.AF_UNIX) as client:
    client.connect(sys.argv[1])
    client.recv(4)
    client.send(bytes(4))
    print("there", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def machine(folder):
    """Its process id."""
    process = subprocess.Popen([sys.executable, "-c", CLIENT, f"{folder}/p.sock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                               user=NOBODY, group=NOBODY, extra_groups=[], env=environment(), preexec_fn=end_with_parent)
    try:
        check_equal(process.stdout.readline(), "there\n", "what the client says")
        yield process.pid
    finally:
        process.kill()
        process.communicate()


def save(path, pid):
    """The answer to a Save of that VM."""
    with socket.socket(socket.AF_UNIX) as control:
        control.settimeout(LIMIT)
        control.connect(path)
        with control.makefile("rw") as file:
            file.readline()
            file.write(json.dumps({"id": 1, "method": "save", "params": {"vm": f"pid:{pid}"}}) + "\n")
            file.flush()
            return json.loads(file.readline())


# name, launcher, words, whether it sees the devices of a VM that runs as nobody
SIGHTS = [
    ("as QEMU's own user", as_user(NOBODY, "sys_rawio"), [], True),
    ("as another user", as_user(OTHER, "sys_rawio"), [], False),
    ("as another user with CAP_SYS_PTRACE", as_user(OTHER, "sys_rawio", "sys_ptrace"), [], True),
    ("as another user with --device", as_user(OTHER, "sys_rawio"), ["--device", "/dev/null"], True),
    ("as root", [], [], True),
    ("as root with -u and -g", [], ["-u", str(OTHER), "-g", str(OTHER)], True),
    ("as root without CAP_SYS_PTRACE", ["setpriv", "--bounding-set", "-sys_ptrace", "--inh-caps", "-all"], [], False),
]


def sight(side, launcher, words, sees):
    with scratch() as folder, started(side, folder, [*(word.format(folder=folder) for word in CONTROL), "--socket-mode", "0666", *words],
                                      launcher) as (_, told), machine(folder) as pid:
        answer = save(f"{folder}/c.sock", pid)
        if sees:
            check("record" in answer.get("result", {}), f"it saves\n{told()}", answer)
        else:
            check("CAP_SYS_PTRACE is missing" in answer.get("error", {}).get("message", ""), "it says what is missing", answer)


for _name, *_arguments in SIGHTS:
    CASES.append(Case(f"privileges: the devices of a VM, {_name}", lambda side, arguments=_arguments: sight(side, *arguments), only="ours"))


def threads(side):
    """The journal has a thread that is there before the filter."""
    with scratch() as folder, started(side, folder, ["--state-dir", f"{folder}/state", "--control", "none"]) as (process, _):
        check(check_status(process, 0, 0, RAWIO, 0) > 1, "there is more than one thread")


def unfiltered(side):
    """--sandbox=off leaves the filter out and nothing else."""
    with scratch() as folder, started(side, folder, [*QUIET, "--sandbox=off"]) as (process, _):
        status = status_of(f"/proc/{process.pid}")
        check_equal((status["Seccomp"], status["NoNewPrivs"], int(status["CapPrm"], 16), int(status["CapBnd"], 16)), ("0", "1", RAWIO, 0),
                    "filter, no_new_privs, permitted and bounding set")


def not_root(side):
    """Who is not root cannot become somebody; nothing is served then."""
    for words in (["-u", "root"], ["-g", "root"], ["-u", "nobody"]):
        with scratch() as folder:
            done = subprocess.run([*as_user(OTHER, "sys_rawio"), side.program, "-k", f"{folder}/p.sock", *QUIET, *words], text=True,
                                  capture_output=True, timeout=LIMIT, stdin=subprocess.DEVNULL, cwd=folder, env=environment(),
                                  preexec_fn=end_with_parent)
            check_equal(done.returncode, 1, f"{words}: exit status")
            check("only be changed as root" in done.stderr, f"{words}: standard error names it", done.stderr)
            check_equal(os.listdir(folder), [], f"{words}: what is left")


CASES += [
    Case("privileges: every thread has lost them", threads, only="ours"),
    Case("privileges: --sandbox=off", unfiltered, only="ours"),
    Case("privileges: -u and -g as another user", not_root, only="ours"),
]

__all__ = ["CASES"]
