# SPDX-License-Identifier: LGPL-2.1-or-later
"""The files that the fault tests damage: small ones of real QEMU without a guest's system (-S), and what holdfast made of them. Made
once, when the first case asks, and never changed: who damages, damages a copy.
"""

import functools
import os
import random
import shutil
import subprocess
import threading

from harness.host import end_with_parent
from harness.tap import Failure, check

from .faults_walker import Layout, libvirt_header
from .world import Version

LIMIT = 60
# Random bytes in the large guest's memory, so that a file has blocks enough to break in the middle.
LARGE, LARGE_MIB = 5 << 20, 8


@functools.lru_cache(maxsize=None)
def qemu_10():
    return Version("10").command


def save(qemu, path, uri, capabilities=(), mib=4, fill=None, machine="q35"):
    """A guest that never runs is saved to path."""
    words = [*qemu, "-M", machine, "-m", str(mib), "-S", "-display", "none", "-nodefaults", "-monitor", "stdio"]
    if fill:
        words += ["-device", f"loader,file={fill},addr=0x100000,force-raw=on"]
    commands = [*(f"migrate_set_capability {name} on" for name in capabilities), f'migrate "{uri}"', "info migrate", "quit", ""]
    run = subprocess.run(words, input="\n".join(commands), capture_output=True, text=True, timeout=LIMIT, preexec_fn=end_with_parent)
    check(run.returncode == 0 and "Migration status: completed" in run.stdout, f"QEMU saves {path}", run.stdout[-800:], run.stderr)


class Material:
    """Each of the names below is a path."""

    def __init__(self, runner):
        self.runner, self.folder = runner, os.path.join(runner.root, "material")
        os.makedirs(self.folder, exist_ok=True)
        self._layouts = {}
        self._making = threading.RLock()  # cases run several programs at a time, and one material is made of another

    def path(self, name):
        path = os.path.join(self.folder, name)
        with self._making:
            if not os.path.exists(path):
                getattr(self, "make_" + name.replace("-", "_"))(path)
        return path

    def data(self, name):
        with open(self.path(name), "rb") as file:
            return file.read()

    def layout(self, name):
        """Where everything lies in the file's stream."""
        if name not in self._layouts:
            data = self.data(name)
            self._layouts[name] = Layout(data, len(libvirt_header()) if name == "libvirt" else 0)
        return self._layouts[name]

    def copy(self, name, to=None):
        """A copy in the case's folder. Sparse stays sparse."""
        target = self.runner.path(to or name)
        subprocess.run(["cp", "--sparse=auto", self.path(name), target], check=True)
        os.chmod(target, 0o600)
        return target

    # ---- QEMU's own ----
    def make_classic7(self, path):
        save([shutil.which("qemu-system-x86_64")], path, f"exec:cat >{path}")

    def make_classic10(self, path):
        save(qemu_10(), path, f"exec:cat >{path}")

    def make_mapped10(self, path):
        save(qemu_10(), path, f"file:{path}", ["mapped-ram"])

    def make_multifd10(self, path):
        save(qemu_10(), path, f"file:{path}", ["mapped-ram", "multifd"])

    def _fill(self):
        fill = os.path.join(self.folder, "fill")
        if not os.path.exists(fill):
            with open(fill, "wb") as file:
                file.write(random.Random(1).randbytes(LARGE))
        return fill

    def make_large(self, path):
        save(qemu_10(), path, f"exec:cat >{path}", mib=LARGE_MIB, fill=self._fill())

    def make_large_mapped(self, path):
        save(qemu_10(), path, f"file:{path}", ["mapped-ram", "multifd"], mib=LARGE_MIB, fill=self._fill())

    # ---- libvirt's ----
    def make_libvirt(self, path):
        with open(path, "wb") as file:
            file.write(libvirt_header() + self.data("classic10"))

    # ---- ours ----
    def _ours(self, *words, source):
        with open(self.path(source), "rb") as file:
            self.runner.must(*words, stdin=file)

    def make_ours(self, path):
        self._ours("capture", path, source="classic10")

    def make_ours_large(self, path):
        self._ours("capture", path, source="large")

    def make_ours_mapped(self, path):
        self._ours("capture", "--mapped", path, source="classic10")

    def make_converted(self, path):
        self.runner.must("convert", "--to", "mapped-ram", self.path("classic10"), path)

    def make_back(self, path):
        self.runner.must("convert", "--to", "classic", self.path("mapped10"), path)


@functools.lru_cache(maxsize=None)
def material(runner):
    return Material(runner)


def same_file(path, data, text):
    """path holds these bytes, and nothing else."""
    with open(path, "rb") as file:
        found = file.read()
    if found != data:
        first = next((i for i, (a, b) in enumerate(zip(found, data)) if a != b), min(len(found), len(data)))
        raise Failure(f"{text}: {path} has {len(found)} bytes, expected {len(data)}; the first difference is at {first}")


def same_memory(path, layout, text):
    """The memory and the devices in path are those of layout, whatever the format."""
    with open(path, "rb") as file:
        found = Layout(file.read())
    check(found.blocks == layout.blocks, f"{text}: the blocks differ", found.blocks, layout.blocks)
    mine, theirs = found.memory(), layout.memory()
    wrong = [key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key)]
    check(not wrong, f"{text}: {len(wrong)} pages differ", sorted(wrong)[:5])
    check(found.devices() == layout.devices(), f"{text}: what comes behind RAM differs")
