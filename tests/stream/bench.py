# SPDX-License-Identifier: LGPL-2.1-or-later
"""How fast `holdfast stream` moves bytes, and what that costs, against cat, dd and what fio can do with the same disk in the same run.

Every input of a write lies in the page cache, so that only the writing is measured; every input of a read is dropped from it before.
Nothing is measured without the sync that makes it durable. CPU is user and system time of the process itself, for each GiB.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import statistics
import subprocess
import tempfile
import time

from harness.host import end_with_parent, program

from .faults_material import qemu_10, save
from .faults_walker import PAGE, Layout
from .world import World

GIB = 1 << 30
RUNS = 3
WRITE_RATIO, READ_RATIO, CPU_FILE, CPU_PIPE = 0.9, 0.9, 0.2, 0.2
# fio's candidates: engine, bytes of a request, depth.
FIO = (("psync", "1M", 1), ("psync", "4M", 1), ("io_uring", "1M", 8), ("io_uring", "4M", 8), ("libaio", "1M", 8))


def stop(text):
    raise SystemExit(f"bench: {text}")


# ---- the input ----


def number(value, length):
    return value.to_bytes(length, "big")


def write_stream(path, size):
    """A whole stream of about size bytes: that of a small guest of QEMU 10, whose pc.ram was made larger and has been filled with random
    pages; every 16th is zero."""
    small = path + ".small"
    save(qemu_10(), small, f"exec:cat >{small}")
    with open(small, "rb") as file:
        data = bytearray(file.read())
    os.unlink(small)
    layout = Layout(bytes(data))
    pages = size // (15 * (PAGE + 8) + 9) * 16
    total, used = layout.of("ram total")[0], layout.of("block used_length")[0]
    old = int.from_bytes(data[used.offset:used.offset + 8], "big")
    data[used.offset:used.offset + 8] = number(old + pages * PAGE, 8)
    data[total.offset:total.offset + 8] = number(int.from_bytes(data[total.offset:total.offset + 8], "big") + pages * PAGE, 8)
    # The new PART goes before what ends RAM.
    place = (layout.of("command type") or layout.of("ram EOS")[-1:])[0].offset
    section = number(int.from_bytes(data[layout.of("ram section id")[0].offset:][:4], "big"), 4)
    rng = random.Random(4)
    pool = [rng.randbytes(PAGE) for _ in range(2048)]
    with open(path, "wb") as file:
        file.write(data[:place])
        file.write(b"\2" + section)
        name = layout.blocks[0][0].encode()
        for start in range(0, pages, 2048):
            items = []
            for page in range(start, min(start + 2048, pages)):
                word = old + page * PAGE | (0 if page == 0 else 0x20)
                items.append(number(word | (8 if page % 16 else 2), 8))
                if page == 0:
                    items.append(bytes([len(name)]) + name)
                items.append(pool[(page * 31 + start) % 2048] if page % 16 else b"\0")
            file.write(b"".join(items))
        file.write(number(0x10, 8) + b"\x7e" + section)
        file.write(data[place:])
    sync_file(path)


def sync_file(path):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def drop_cache(path):
    sync_file(path)
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def fill_cache(path):
    with open(path, "rb", buffering=0) as file:
        buffer = bytearray(1 << 22)
        while file.readinto(buffer):
            continue


# ---- one run ----


class Run:
    """seconds of all of it, and the processor time of the process that is measured."""

    def __init__(self, seconds, cpu):
        self.seconds, self.cpu = seconds, cpu


def finish(process, started):
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        stop(f"{' '.join(process.args)} ended with {process.returncode}")
    return Run(time.monotonic() - started, usage.ru_utime + usage.ru_stime)


def start(words, stdout=subprocess.DEVNULL, **named):
    return subprocess.Popen([str(word) for word in words], stdout=stdout, preexec_fn=end_with_parent, **named)


def from_file(words, source, then=()):
    """words reads source on its standard input; then: what comes after it, in the time too."""
    with open(source, "rb") as file:
        started = time.monotonic()
        run = finish(start(words, stdin=file), started)
    return followed(run, then, started)


def from_pipe(words, source, then=(), **named):
    started = time.monotonic()
    cat = start(["cat", source], stdout=subprocess.PIPE)
    process = start(words, stdin=cat.stdout, **named)
    cat.stdout.close()
    run = finish(process, started)
    cat.wait()
    return followed(run, then, started)


def followed(run, then, started):
    if not then:
        return run
    after = finish(start(then), time.monotonic())
    return Run(time.monotonic() - started, run.cpu + after.cpu)


def to_pipe(words):
    """words writes to a pipe that cat reads."""
    started = time.monotonic()
    process = start(words, stdout=subprocess.PIPE)
    cat = start(["cat"], stdin=process.stdout)
    process.stdout.close()
    run = finish(process, started)
    cat.wait()
    return Run(time.monotonic() - started, run.cpu)


def plain(words):
    started = time.monotonic()
    return finish(start(words), started)


def fio(path, way, size, engine, block, depth):
    """Bytes a second of one fio job over the whole of path; a write ends with fsync, which its time contains."""
    words = ["fio", "--name=bench", f"--filename={path}", f"--rw={way}", f"--bs={block}", f"--ioengine={engine}", f"--iodepth={depth}",
             "--direct=1", f"--size={size // (4 << 20) * (4 << 20)}", "--fallocate=none", "--output-format=json"]
    if way == "write":
        words += ["--end_fsync=1", "--unlink=0"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=900)
    if done.returncode:
        stop(f"{' '.join(words)}: {done.stderr or done.stdout}")
    found = json.loads(done.stdout[done.stdout.index("{"):])["jobs"][0]
    return found[way]["io_bytes"] / (found["job_runtime"] / 1000), (found["usr_cpu"] + found["sys_cpu"]) / 100 * found["job_runtime"] / 1000


class Table:
    """The median of the runs of each row."""

    def __init__(self, size):
        self.size, self.rows = size, {}
        print(f"{'':52} {'MiB/s':>8} {'CPU s/GiB':>10}")

    def add(self, name, runs):
        """runs: of Run. Returns (bytes a second, CPU seconds for each GiB)."""
        rate = self.size / statistics.median(run.seconds for run in runs)
        cpu = statistics.median(run.cpu for run in runs) / (self.size / GIB)
        self.rows[name] = rate, cpu
        spread = " ".join(f"{self.size / run.seconds / (1 << 20):.0f}" for run in runs)
        print(f"{name:52} {rate / (1 << 20):8.0f} {cpu:10.2f}   ({spread})", flush=True)
        return rate, cpu


def fresh(path):
    for name in (path, path + ".status", path + ".partial"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def best_of_fio(table, path, way, size):
    """Each candidate once, the best one again."""
    rates = {}
    for candidate in FIO:
        if way == "write":
            fresh(path)
        else:
            drop_cache(path)
        rates[candidate] = fio(path, way, size, *candidate)[0]
    best = max(rates, key=rates.get)
    runs = []
    for _ in range(RUNS):
        if way == "write":
            fresh(path)
        rate, cpu = fio(path, way, size, *best)
        runs.append(Run(size / rate, cpu))
    return table.add(f"fio, {way}, O_DIRECT: {best[0]}, {best[1]}, depth {best[2]}", runs)[0]


def measure_writes(table, source, folder, size):
    out = os.path.join(folder, "out")
    holdfast = [program(), "stream"]
    dd = ["dd", f"of={out}", "oflag=direct", "iflag=fullblock", "bs=1M", "status=none"]
    rows = {
        "cat > file && sync": lambda: cat_to(out, source),
        "dd oflag=direct bs=1M && sync": lambda: from_pipe(dd, source, ["sync", out]),
        "cat > /dev/null (the pipe alone)": lambda: from_pipe(["cat"], source),
        "holdfast stream capture, a pipe": lambda: from_pipe([*holdfast, "capture", out], source),
        "holdfast stream capture --fd, a regular file": lambda: from_file([*holdfast, "capture", "--fd", "0", out], source),
        "holdfast stream capture --mapped, a pipe": lambda: from_pipe([*holdfast, "capture", "--mapped", out], source),
    }
    runs = {name: [] for name in rows}
    for _ in range(RUNS):  # in turns: what disturbs one disturbs all
        for name, row in rows.items():
            fresh(out)
            fill_cache(source)
            runs[name].append(row())
    fresh(out)
    return {name: table.add(name, found) for name, found in runs.items()}


def cat_to(out, source):
    with open(out, "wb") as file:
        return from_pipe(["cat"], source, ["sync", out], stdout=file)


def measure_reads(table, source, folder):
    ours, mapped, classic = (os.path.join(folder, name) for name in ("ours", "mapped", "classic"))
    holdfast = [program(), "stream"]
    from_file([*holdfast, "capture", "--fd", "0", ours], source)
    os.unlink(source)
    limit = best_of_fio(table, ours, "read", table.size)
    rows = {
        "holdfast stream replay | cat": lambda: to_pipe([*holdfast, "replay", ours]),
        "holdfast stream replay --no-verify | cat": lambda: to_pipe([*holdfast, "replay", "--no-verify", ours]),
        "cat | cat": lambda: to_pipe(["cat", ours]),
        "holdfast stream verify": lambda: plain([*holdfast, "verify", ours]),
    }
    runs = {name: [] for name in rows}
    for _ in range(RUNS):
        for name, row in rows.items():
            drop_cache(ours)
            runs[name].append(row())
    found = {name: table.add(name, each) for name, each in runs.items()}
    drop_cache(ours)
    found["convert --to mapped-ram"] = table.add("holdfast stream convert --to mapped-ram",
                                                 [plain([*holdfast, "convert", "--to", "mapped-ram", ours, mapped])])
    fresh(ours)
    drop_cache(mapped)
    table.add("holdfast stream verify, mapped-ram", [plain([*holdfast, "verify", mapped])])
    drop_cache(mapped)
    table.add("holdfast stream convert --to classic", [plain([*holdfast, "convert", "--to", "classic", mapped, classic])])
    return limit, found


# ---- a guest that writes ----


def measure_guest(folder):
    """MiB on disk of the same guest, saved live both ways."""
    sizes = {}
    world = World(None, folder)
    try:
        for name, words in (("capture", "capture"), ("capture --mapped", "capture --mapped")):
            out = os.path.join(folder, "state")
            qemu = world.guest("10")
            qemu.save_live(f"exec:'{program()}' stream {words} '{out}'")
            qemu.end()
            plain([program(), "stream", "wait", out])
            sizes[name] = os.stat(out).st_blocks * 512
            fresh(out)
    finally:
        world.end()
    for name, size in sizes.items():
        print(f"a guest that writes, saved by {name + ':':20} {size / (1 << 20):8.1f} MiB on disk")
    return sizes["capture --mapped"] / sizes["capture"]


# ---- goals ----


def judge(name, value, goal, at_least=False):
    good = value >= goal if at_least else value <= goal
    print(f"{name:64} {value:8.2f}   goal: at {'least' if at_least else 'most'} {goal:.2f}{'' if good else '   MISSED'}")
    return good


def about_build():
    """What is measured must be what users get."""
    folder = os.environ["HOLDFAST_BUILDDIR"]
    with open(os.path.join(folder, "Makefile"), encoding="utf-8") as file:
        lines = file.read().splitlines()
    flags = " ".join(line.partition("=")[2].strip() for line in lines if line.startswith(("CC =", "CFLAGS =")))
    files = [os.path.join(folder, *names) for names in (("holdfast",), (".libs", "holdfast"))]
    binaries = [open(path, "rb").read() for path in files if os.path.exists(path)]
    if not binaries:
        stop(f"there is no holdfast in {folder}: build it")
    if any(word in binary for binary in binaries for word in (b"__asan_", b"__tsan_", b"__ubsan_")):
        stop(f"{folder} was built with sanitizers, which says nothing about speed; configure another folder without them")
    if "-O2" not in flags and "-O3" not in flags:
        stop(f"{folder} was built without -O2 ({flags})")
    return flags


def parse_size(text):
    suffix = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(text[-1:].upper())
    return int(text[:-1]) * suffix if suffix else int(text)


def bench(arguments):
    parser = argparse.ArgumentParser(prog="bench stream")
    parser.add_argument("--size", type=parse_size, default=4 * GIB, help="bytes of the stream (4G)")
    parser.add_argument("--folder", default=None, help="on the disk to measure (the build folder)")
    parser.add_argument("--no-guest", action="store_true", help="without the guest that writes")
    options = parser.parse_args(arguments)
    if not shutil.which("fio"):
        stop("fio is not there: install the Debian package fio")
    if options.size < 64 << 20:
        stop("--size: at least 64M")
    flags = about_build()
    folder = options.folder or os.environ["HOLDFAST_BUILDDIR"]
    needed = options.size * 5 // 2
    free = shutil.disk_usage(folder).free
    if free < needed:
        stop(f"{folder} has {free >> 20} MiB free, {needed >> 20} are needed: --size or --folder")
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-", dir=folder) as work:
        return measure(work, options, flags)


def measure(work, options, flags):
    source = os.path.join(work, "stream")
    write_stream(source, options.size)
    size = os.path.getsize(source)
    print(f"a stream of {size / (1 << 20):.0f} MiB in {os.path.dirname(work)}; build: {flags}")
    print(f"the median of {RUNS} runs, and behind it each of them")
    table = Table(size)
    write_limit = best_of_fio(table, os.path.join(work, "fio"), "write", size)
    fresh(os.path.join(work, "fio"))
    writes = measure_writes(table, source, work, size)
    read_limit, reads = measure_reads(table, source, work)
    mapped = None if options.no_guest else measure_guest(work)
    print()
    pipe, file = writes["holdfast stream capture, a pipe"], writes["holdfast stream capture --fd, a regular file"]
    through_pipe = writes["cat > /dev/null (the pipe alone)"][1]
    results = [
        judge("capture from a regular file, of fio's write", file[0] / write_limit, WRITE_RATIO, True),
        judge("capture from a pipe, of fio's write", pipe[0] / write_limit, WRITE_RATIO, True),
        judge("capture from a regular file, CPU s/GiB", file[1], CPU_FILE),
        judge("capture from a pipe, CPU s/GiB (cat > /dev/null's and 0.2)", pipe[1], through_pipe + CPU_PIPE),
        judge("replay through a pipe, of fio's read", reads["holdfast stream replay | cat"][0] / read_limit, READ_RATIO, True),
        judge("verify, of fio's read", reads["holdfast stream verify"][0] / read_limit, READ_RATIO, True),
    ]
    if mapped is not None:
        results.append(judge("capture --mapped of a guest that writes, of capture's size", mapped, 1.0))
    return 0 if all(results) else 1
