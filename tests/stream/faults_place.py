# SPDX-License-Identifier: LGPL-2.1-or-later
"""Names that cannot be written to, and several who want to write to one."""

import json
import os
import stat
import subprocess

from harness.tap import check, check_equal

from .faults_kill import is_old, prepare, wait_for, write_all
from .faults_material import material
from .faults_process import Running, bounded, run


def status_of(target):
    with open(target + ".status", encoding="utf-8") as file:
        return json.load(file)


def two_at_once(runner, *options):
    """The second is refused, and disturbs neither the first nor what it says."""
    stuff = material(runner)
    data, target = stuff.data("classic10"), prepare(runner, "two")
    read, write = os.pipe()
    first = Running(runner, "capture", *options, target, stdin=read)
    os.close(read)
    write_all(write, data[:len(data) // 2])
    wait_for(lambda: os.path.exists(target + ".partial"), "the first capture to begin")
    for words in (("capture", target), ("capture", "--mapped", target), ("convert", "--to", "mapped-ram", stuff.path("classic10"), target)):
        with open(stuff.path("classic10"), "rb") as file:
            second = bounded(run(runner, *words, stdin=file))
        check(second.refused and target in second.errors, "a second writer is not refused, or does not say of what", second)
        check(is_old(target) and os.path.exists(target + ".partial"), "a second writer disturbs the first", second)
        check(not os.path.exists(target + ".status"), "a second writer speaks for the first", second)
    write_all(write, data[len(data) // 2:])
    os.close(write)
    ended = first.end()
    check_equal(ended.status, 0, f"the first capture: {ended}")
    check_equal(status_of(target)["outcome"], "committed", "the status")
    check_equal(sorted(os.listdir(os.path.dirname(target))), ["vm", "vm.status"], "what is there in the end")
    verified = run(runner, "verify", target)
    check(verified.status == 0, "what the first one wrote", verified)


def bad_targets(runner):
    """Each with what it is, and each error names the file."""
    folder = runner.path("bad")
    os.mkdir(folder)
    fifo, closed, loop = (os.path.join(folder, name) for name in ("fifo", "closed", "loop"))
    os.mkfifo(fifo)
    os.mkdir(closed, 0o500)
    os.symlink("loop", loop)
    os.mkdir(os.path.join(folder, "folder"))
    # Root may write everywhere, unless it gives that up.
    no_override = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search") if os.geteuid() == 0 else ()
    places = ((os.path.join(folder, "no", "vm"), "No such file"), (os.path.join(folder, "folder"), ""), (fifo, ""), ("/dev/null", ""),
              (loop, ""), (os.path.join(closed, "vm"), "ermission"), (os.path.join(folder, "n" * 255), ""),
              (os.path.join(fifo, "vm"), "ot a directory"), ("", ""))
    stuff = material(runner)
    for path, cause in places:
        before = sorted(os.listdir(folder))
        for words in (("capture", path), ("capture", "--mapped", path), ("convert", "--to", "mapped-ram", stuff.path("classic10"), path)):
            with open(stuff.path("classic10"), "rb") as file:
                ended = bounded(run(runner, *words, stdin=file, prefix=no_override))
            clear = ended.refused and path in ended.errors and cause in ended.errors
            check(clear, f"{words[0]} to {path}: not refused, or not clear", ended)
        allowed = {f"{name}{end}" for name in ("fifo", "folder", "loop", "n" * 255) for end in (".status",)}
        check(set(os.listdir(folder)) - allowed <= set(before), f"{path}: what is left", sorted(os.listdir(folder)))
    check(stat.S_ISFIFO(os.lstat(fifo).st_mode) and stat.S_ISCHR(os.lstat("/dev/null").st_mode) and os.path.islink(loop),
          "what was no file is no longer what it was")
    for path in ("/dev/null.status", "/dev/null.partial"):
        try:
            os.unlink(path)
        except FileNotFoundError:
            continue


def bad_sources(runner):
    """What cannot be read: each error names the file, and there is no output."""
    folder = runner.path("sources")
    os.mkdir(folder)
    fifo, closed, out = (os.path.join(folder, name) for name in ("fifo", "closed", "out"))
    os.mkfifo(fifo)
    with open(closed, "wb"):
        os.chmod(closed, 0)
    no_override = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search") if os.geteuid() == 0 else ()
    for path in (os.path.join(folder, "none"), folder, fifo, closed, "/dev/null", "/dev/zero"):
        for words in (("verify", path), ("inspect", path), ("replay", path), ("replay", "--any", path),
                      ("convert", "--to", "classic", path, out)):
            ended = bounded(run(runner, *words, prefix=no_override))
            check(ended.refused and path in ended.errors + ended.output.decode() and not (words[0] == "replay" and ended.output),
                  f"{words[0]} of {path}: not refused, or not clear", ended)
            check_equal(sorted(os.listdir(folder)), ["closed", "fifo"], f"{words[0]} of {path}: what is left")


def links(runner):
    """A symbolic link is followed: what it points to is replaced, the link stays."""
    data = material(runner).data("classic10")
    target = prepare(runner, "real")
    folder = runner.path("links")
    os.mkdir(folder)
    link, dangling = os.path.join(folder, "vm"), os.path.join(folder, "dangling")
    os.symlink(target, link)
    os.symlink(os.path.join(os.path.dirname(target), "new"), dangling)
    for path, real in ((link, target), (dangling, os.path.join(os.path.dirname(target), "new"))):
        with open(material(runner).path("classic10"), "rb") as file:
            ended = run(runner, "capture", path, stdin=file)
        if path is dangling and ended.refused:
            check(os.path.islink(path) and not os.path.exists(real), "a link to nothing is refused, but something changed", ended)
            continue
        check_equal(ended.status, 0, f"capture to a link: {ended}")
        check(os.path.islink(path) and os.path.isfile(real) and not os.path.islink(real), "the link is not what it was")
        with open(real, "rb") as file:
            check(file.read(len(data)) == data, "what the link points to is not the input")
        waited = run(runner, "wait", path)
        check(waited.status == 0, "wait for the link", waited)


def planted(runner):
    """A folder where anybody may write, as /var/tmp: somebody's link is not followed, and somebody's file does not make him the owner of
    the guest's memory. In a folder of root's the owner stays, as libvirt needs it."""
    nobody, stuff = 65534, material(runner)
    folder, precious = runner.path("sticky"), runner.path("precious")
    os.mkdir(folder)
    os.chmod(folder, 0o1777)
    linked, found, kept = (os.path.join(folder, name) for name in ("linked", "found", "kept"))
    with open(precious, "wb") as file:
        file.write(b"precious")
    as_nobody = ("setpriv", f"--reuid={nobody}", f"--regid={nobody}", "--clear-groups")
    # By relative names: the folders above are closed to nobody.
    for words in (("ln", "-s", precious, "linked"), ("install", "-m", "666", "/dev/null", "found")):
        subprocess.run([*as_nobody, *words], cwd=folder, check=True, timeout=20)
    for words in (("capture",), ("capture", "--mapped"), ("convert", "--to", "mapped-ram", stuff.path("classic10"))):
        with open(stuff.path("classic10"), "rb") as file:
            ended = bounded(run(runner, *words, linked, stdin=file))
        check(ended.refused and f"uid {nobody}" in ended.errors, f"{words[0]} follows a link of nobody's, or does not say whose", ended)
        with open(precious, "rb") as file:
            check_equal(file.read(), b"precious", f"{words[0]}: what the link of nobody's points to")
    for mode, path, owner in ((0o1777, found, (0, 0o600)), (0o755, kept, (nobody, 0o640))):
        os.chmod(folder, mode)
        if path is kept:
            with open(path, "wb") as file:
                os.fchmod(file.fileno(), 0o640)
                os.fchown(file.fileno(), nobody, nobody)
        with open(stuff.path("classic10"), "rb") as file:
            ended = run(runner, "capture", path, stdin=file)
        check_equal(ended.status, 0, f"capture over a file of nobody's, folder {mode:o}: {ended}")
        got = os.lstat(path)
        check_equal((got.st_uid, stat.S_IMODE(got.st_mode)), owner, f"its owner and mode, folder {mode:o}")


def prefix_kept(runner):
    """--offset: the first bytes are those of the old file, whatever happens to it; a file that is too short is refused."""
    stuff = material(runner)
    data, folder = stuff.data("classic10"), runner.path("prefix")
    os.mkdir(folder)
    target = os.path.join(folder, "vm")
    for offset in (1, 92, 4096, 70001, (1 << 20) + 1):
        head = bytes(i * 7 % 251 for i in range(offset))
        with open(target, "wb") as file:
            file.write(head + b"old" * 1000)
        with open(stuff.path("classic10"), "rb") as file:
            ended = run(runner, "capture", "--offset", offset, target, stdin=file)
        check_equal(ended.status, 0, f"--offset {offset}: {ended}")
        with open(target, "rb") as file:
            found = file.read()
        check(found.startswith(head + data), f"--offset {offset}: the file does not begin with the old bytes and the stream")
        replayed = run(runner, "replay", target)
        check(replayed.status == 0 and replayed.output == data, f"--offset {offset}: replay", replayed)
    for content in (b"short", None):
        os.unlink(target)
        if content:
            with open(target, "wb") as file:
                file.write(content)
        with open(stuff.path("classic10"), "rb") as file:
            ended = run(runner, "capture", "--offset", 100, target, stdin=file)
        check(ended.refused and target in ended.errors, "--offset behind the end of the file is not refused", ended)
        check(not os.path.exists(target + ".partial") and os.path.exists(target) == bool(content), "and something changed")
        with open(target, "wb") as file:
            file.write(content or b"")


def readers_gone(runner):
    """The reader of a replay goes away, as QEMU does that is killed: an error, not a death by SIGPIPE without a word."""
    path = material(runner).path("ours-large")
    read, write = os.pipe()
    running = Running(runner, "replay", path, stdout=write)
    os.close(write)
    os.read(read, 100)
    os.close(read)
    ended = running.end()
    check(ended.refused and "Broken pipe" in ended.errors, "replay to a pipe that nobody reads any more", ended)


def cases(runner):
    runner.case("place: two writers of one file", two_at_once)
    runner.case("place: two writers of one file, --mapped", two_at_once, "--mapped")
    runner.case("place: targets that cannot be written", bad_targets)
    runner.case("place: files that cannot be read", bad_sources)
    runner.case("place: symbolic links", links)
    runner.case("place: what others planted", planted)
    runner.case("place: what stands before the stream is kept", prefix_kept)
    runner.case("place: a replay whose reader goes away", readers_gone)
