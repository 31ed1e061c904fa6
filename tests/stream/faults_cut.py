# SPDX-License-Identifier: LGPL-2.1-or-later
"""A file that ends too early, at every place where something begins or ends and inside of pages."""

import json
import os

from harness.tap import check, check_equal

from .faults_material import material
from .faults_process import bounded, each, run

OLD = b"the old file, which nobody may touch\n"
# A page is cut at these of its bytes.
INSIDE = (1, 2048, 4095)


def places(layout, size):
    """Every boundary, one byte beside each, and inside of some pages: the first and last one of each block."""
    found = set()
    for place in layout.boundaries:
        found |= {place - 1, place, place + 1}
    by_block = {}
    for name, _, place in layout.pages:
        by_block.setdefault(name, []).append(place)
    for pages in by_block.values():
        for page in (pages[0], pages[-1]):
            found |= {page + inside for inside in INSIDE}
    # A file of ours without all of its trailer is a whole stream, as QEMU writes it: nobody can see that there were checksums.
    return sorted(place for place in found if layout.start <= place < size and place != layout.end)


def thin_out(cuts, layout, n):
    """At most about n of them: all of RAM and of the ends, and of the devices every k-th."""
    devices = layout.fields[max(i for i, field in enumerate(layout.fields) if field.kind == "ram footer id")].offset + 5
    tail = next(field.offset for field in layout.fields if field.kind == "EOF byte") - 40
    middle = [cut for cut in cuts if devices < cut < tail]
    others = [cut for cut in cuts if not devices < cut < tail]
    step = max(1, len(middle) * 2 // n)
    return sorted(others + middle[::step])


def cut_file(runner, name, every=1):
    """verify, replay and convert of a file that is cut; nothing of it is taken for whole. every: only each n-th place."""
    stuff = material(runner)
    layout, data = stuff.layout(name), stuff.data(name)
    other = "classic" if layout.mapped else "mapped-ram"

    def try_cut(cut):
        path, out = runner.path(f"cut-{cut}"), runner.path(f"out-{cut}")
        os.link(stuff.path(name), path + ".source")
        _copy_head(path + ".source", path, cut)
        verified = bounded(run(runner, "verify", path))
        check(verified.refused, f"verify of {name}, cut at {cut} of {len(data)}, is content", verified)
        replayed = bounded(run(runner, "replay", path))
        check(replayed.refused, f"replay of {name}, cut at {cut} of {len(data)}, is content", replayed)
        check(data[layout.start:].startswith(replayed.output), f"replay of {name}, cut at {cut}: what it sent is not the file's", replayed)
        converted = bounded(run(runner, "convert", "--to", other, path, out))
        check(converted.refused, f"convert of {name}, cut at {cut} of {len(data)}, is content", converted)
        left = [entry for entry in os.listdir(runner.folder) if entry == f"out-{cut}" or entry.startswith(f"out-{cut}.")]
        check_equal(left, [], f"what convert of {name}, cut at {cut}, leaves behind")
        os.unlink(path)
        os.unlink(path + ".source")

    cuts = thin_out(places(layout, len(data)), layout, 24)[::every]
    each(cuts, try_cut)
    runner.note(f"{name}: {len(cuts)} cuts")


def _copy_head(source, target, length):
    """Sparse, as files of mapped-ram are."""
    with open(source, "rb") as file, open(target, "wb") as out:
        place = 0
        while place < length:
            try:
                place = os.lseek(file.fileno(), place, os.SEEK_DATA)
                hole = os.lseek(file.fileno(), place, os.SEEK_HOLE)
            except OSError:  # only a hole is left
                break
            os.lseek(out.fileno(), place, os.SEEK_SET)
            file.seek(place)
            out.write(file.read(max(0, min(hole, length) - place)))
            out.flush()
            place = hole
        os.ftruncate(out.fileno(), length)


def cut_input(runner, name, *options):
    """A capture whose input ends early keeps the old file, says so, and leaves nothing."""
    stuff = material(runner)
    layout, data = stuff.layout(name), stuff.data(name)
    cuts = thin_out(places(layout, len(data)), layout, 24)

    def try_cut(cut):
        folder = runner.path(f"in-{cut}")
        os.mkdir(folder)
        target, source = os.path.join(folder, "vm"), os.path.join(folder, "source")
        with open(target, "wb") as file:
            file.write(OLD)
        with open(source, "wb") as file:
            file.write(data[:cut])
        with open(source, "rb") as file:
            captured = bounded(run(runner, "capture", *options, target, stdin=file))
        check(captured.refused, f"capture of {cut} of {len(data)} bytes is content", captured)
        with open(target, "rb") as file:
            check_equal(file.read(), OLD, f"the old file after {cut} of {len(data)} bytes")
        check_equal(sorted(os.listdir(folder)), ["source", "vm", "vm.status"], f"what is left after {cut} of {len(data)} bytes")
        with open(target + ".status", encoding="utf-8") as file:
            status = json.load(file)
        check_equal(status["outcome"], "incomplete", f"the status after {cut} of {len(data)} bytes ({status.get('error')})")

    each(cuts, try_cut)
    runner.note(f"capture {' '.join(options)} of {name}: {len(cuts)} cuts")


# Formats and writers; of those that are like another one, fewer places.
FILES = (("classic7", 3), ("classic10", 1), ("mapped10", 1), ("multifd10", 4), ("libvirt", 3), ("ours", 1), ("ours-mapped", 3),
         ("converted", 3), ("back", 4))


def cases(runner):
    for name, every in FILES:
        runner.case(f"cut: verify, replay and convert of {name}", cut_file, name, every)
    runner.case("cut: capture of what is cut", cut_input, "classic10")
    runner.case("cut: capture --mapped of what is cut", cut_input, "classic10", "--mapped")
