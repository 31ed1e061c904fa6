# SPDX-License-Identifier: LGPL-2.1-or-later
"""One bit of a file is wrong: verify says so, or it is on the list of what nobody can see, and that list is exact."""

import json
import os
import re

from harness.tap import check, check_equal

from .faults_material import material
from .faults_process import Copies, bounded, each, run
from .faults_walker import LIBVIRT_FIELDS, Field, libvirt_header, trailer_fields

# The lowest bit of a number and its highest: a little wrong, and absurd.
LOW, HIGH = "low", "high"

# What no reader can see in a file without checksums, because nothing in it says it twice: bytes of the guest (pages, and a page's
# bit in a bitmap), of its devices, and names that only the destination can compare with its own.
INVISIBLE_CLASSIC = {("page", LOW), ("page", HIGH), ("device field", LOW), ("device field", HIGH), ("subsection field", LOW),
                     ("subsection field", HIGH), ("configuration name", LOW), ("configuration name", HIGH), ("page word", "page number")}
INVISIBLE_MAPPED = {("bitmap", "page taken away"), ("page", LOW), ("page", HIGH), ("device field", LOW), ("device field", HIGH),
                    ("subsection field", LOW), ("subsection field", HIGH), ("configuration name", LOW), ("configuration name", HIGH),
                    ("block id", LOW), ("block id", HIGH)}


def choose(layout, kinds_once=False):
    """The fields to damage: all that there are one of, and of what comes for each page or each device the first, one in the middle
    and the last."""
    found = []
    for kind in layout.kinds():
        fields = layout.of(kind)
        if kind == "bitmap":
            continue
        if kinds_once:
            fields = fields[len(fields) // 2:][:1]
        elif len(fields) > 8:
            fields = [fields[0], fields[len(fields) // 2], fields[-1]]
        found += fields
    return found


def flips_of(field):
    """(name of the flip, offset, bit)"""
    if field.kind != "bitmap beyond the end, last byte":  # whose low bits are pages
        yield LOW, field.offset + field.length - 1, 0x01
    yield HIGH, field.offset, 0x80


def page_flips(layout):
    """The number of a page, within its block: the page is missing, and another one comes twice."""
    for field in layout.of("page word")[1:3]:
        yield field, "page number", field.offset + 6, 0x10


def bitmap_flips(layout):
    """A page that is there loses its bit. One that is not there gets one: that page was never written, it is a hole in the file."""
    for field in layout.of("bitmap"):
        bits = int.from_bytes(layout.data[field.offset:field.offset + field.length], "little")
        n = field.length * 8
        present = [i for i in range(n) if bits >> i & 1]
        absent = [i for i in range(n) if not bits >> i & 1 and i < layout.count_pages(field)]
        for numbers, name in ((present, "page taken away"), (absent, "page that is a hole")):
            for i in sorted({*numbers[:1], *numbers[-1:]}):
                yield field, name, field.offset + i // 8, 1 << i % 8


def sizes(description):
    """Of every size in the description, in the order of its text: whether anybody needs it. Of a structure inside of a structure the
    forward walk counts what is in it, and the tail walk the structure around it; a field that describes itself (tmp, vstruct) is
    passed by its own size. CONFIGURATION has lengths of its own."""
    def of_fields(fields, outer, needed):
        for field in fields:
            structure = field.get("struct")
            for key, value in field.items():
                if key == "struct":
                    # The tail walk looks inside for subsections, and only then.
                    yield from of_object(value, "subsections" in json.dumps(value), needed)
                elif key == "fields":
                    yield from of_fields(value, False, False)
                elif key == "size":
                    yield needed and field.get("array_len", 1) > 0 and (outer or not structure)

    def of_object(node, outer, needed):
        for key, value in node.items():
            if key == "fields":
                yield from of_fields(value, outer, needed)
            elif key == "subsections":
                for sub in value:
                    yield from of_object(sub, True, needed)
            elif key == "size":
                yield False

    for key, value in description.items():
        for device in value if key == "devices" else [value] if isinstance(value, dict) else []:
            yield from of_object(device, True, key == "devices")


def json_flips(layout):
    """(kind, what, offset) of a digit or a letter of the description: of sizes every 16th, and what the stream says too, of all."""
    text = layout.data[layout.json_offset:layout.end].decode()
    places = [match.end() - 1 for match in re.finditer(r'"size": \d+', text)]
    needed = list(sizes(layout.json))
    check_equal(len(places), len(needed), "the sizes in the description")
    for number in range(0, len(places), 16):
        yield "size" if needed[number] else "size that nobody needs", f"size {number}", places[number]
    place = text.index('"devices"')
    for device in layout.json["devices"]:
        name = f'"name": {json.dumps(device["name"])}, "instance_id": '
        place = text.index(name, place)
        yield "device name", device["name"], place + len('"name": "')
        place += len(name)
        yield "device instance", device["name"], place
        place = text.index('"version": ', place) + len('"version": ')
        yield "device version", device["name"], place
        for sub in device.get("subsections", []):
            found = text.index(f'"vmsd_name": {json.dumps(sub["vmsd_name"])}', place) + len('"vmsd_name": "')
            yield "subsection name", sub["vmsd_name"], found


class Damaged:
    """A copy of a file with one bit turned; puts it back."""

    def __init__(self, path, offset, bit):
        self.path, self.offset, self.bit = path, offset, bit

    def _turn(self):
        fd = os.open(self.path, os.O_RDWR)
        byte = os.pread(fd, 1, self.offset)[0]
        os.pwrite(fd, bytes([byte ^ self.bit]), self.offset)
        os.close(fd)

    def __enter__(self):
        self._turn()
        return self.path

    def __exit__(self, *_):
        self._turn()


def try_flips(runner, name, flips):
    """{(kind, flip): {detected?}} of (field, flip, offset, bit)."""
    copies = Copies(material(runner), name)

    def work(flip):
        field, which, offset, bit = flip
        with Damaged(copies.path(), offset, bit) as path:
            ended = bounded(run(runner, "verify", path))
        return (field.kind, which), ended.refused, field.what

    found = {}
    for key, detected, what in each(flips, work):
        found.setdefault(key, []).append((detected, what))
    return found


def judge(found, invisible, name):
    """Everything is seen but what is on the list; and what is on the list is really not seen, else the list is wrong."""
    missed = [f"{kind}, {which} bit: {what}" for (kind, which), results in sorted(found.items()) if (kind, which) not in invisible
              for detected, what in results if not detected]
    check(not missed, f"{name}: verify does not see {len(missed)}", *missed[:40])
    seen = [f"{kind}, {which} bit: {what}" for (kind, which), results in sorted(found.items()) if (kind, which) in invisible
            for detected, what in results if detected]
    check(not seen, f"{name}: on the list of what nobody can see, but verify does", *seen[:40])
    never = sorted(invisible - found.keys())
    check(not never, f"{name}: on the list, but not tried", *never)


def flip_file(runner, name, kinds_once=False):
    """A file without checksums. kinds_once: one field of each kind."""
    layout = material(runner).layout(name)
    flips = [(field, *flip) for field in choose(layout, kinds_once) for flip in flips_of(field)]
    if layout.mapped:
        first = layout.pages[0][2]
        page = Field("page", "page", first, 4096)
        flips += [(page, *flip) for flip in flips_of(page)]
        flips += bitmap_flips(layout)
    else:
        flips += page_flips(layout)
    found = try_flips(runner, name, flips)
    judge(found, INVISIBLE_MAPPED if layout.mapped else INVISIBLE_CLASSIC, name)
    runner.note(f"{name}: {len(flips)} flips of {len(found)} kinds")


def flip_with_checksums(runner, name):
    """A file of ours: there every bit counts, those of pages and of the trailer too."""
    stuff = material(runner)
    layout, size = stuff.layout(name), os.path.getsize(stuff.path(name))
    fields = choose(layout, kinds_once=True) + trailer_fields(size)
    fields.append(Field("trailer checksum", "checksum of block 0", layout.end, 8))
    fields.append(Field("description", "JSON", layout.json_offset + 1000, 100))
    found = try_flips(runner, name, [(field, *flip) for field in fields for flip in flips_of(field)])
    judge(found, set(), name)
    runner.note(f"{name}: {len(fields) * 2} flips")


def flip_description(runner, name):
    """Sizes, names and versions in the JSON are compared with the sections."""
    layout = material(runner).layout(name)
    flips = [(Field(kind, what, layout.json_offset + place, 1), "character", layout.json_offset + place, 0x01)
             for kind, what, place in json_flips(layout)]
    found = try_flips(runner, name, flips)
    judge(found, {("size that nobody needs", "character")}, name)
    runner.note(f"{name}: {len(flips)} flips")


def flip_libvirt(runner):
    """libvirt's header is in host byte order. Of it, the stream's place and the format count."""
    fields = [Field(kind, kind, offset, length) for kind, offset, length in LIBVIRT_FIELDS]
    flips = []
    for field in fields:
        if field.kind == "libvirt magic":
            flips += [(field, LOW, field.offset + 15, 1), (field, HIGH, field.offset, 0x80)]
        else:
            flips += [(field, LOW, field.offset, 1), (field, HIGH, field.offset + 3, 0x80)]
    found = try_flips(runner, "libvirt", flips)
    # Whether the guest ran is libvirt's affair, and only its own reader looks for a cookie.
    invisible = {("libvirt was_running", LOW), ("libvirt was_running", HIGH), ("libvirt cookieOffset", LOW), ("libvirt cookieOffset", HIGH)}
    judge(found, invisible, "libvirt")
    check_equal(len(libvirt_header()) > 65536, True, "the header has libvirt's padding")


def flip_replay(runner):
    """A block whose checksum is wrong is never sent: what comes out is the stream before it, and the exit status says it."""
    stuff = material(runner)
    data, layout = stuff.data("ours-large"), stuff.layout("ours-large")
    length = layout.end
    blocks = [block << 20 for block in range(length >> 20)]
    for block in blocks:
        path = stuff.copy("ours-large", "damaged")
        with Damaged(path, block + 12345, 0x10):
            ended = run(runner, "replay", path)
        check(ended.refused, f"replay is content with a block at {block} that is wrong", ended)
        check(len(ended.output) <= block and data.startswith(ended.output),
              f"replay sent {len(ended.output)} bytes of a file that is wrong at {block + 12345}, or others", ended)
        os.unlink(path)
    whole = run(runner, "replay", stuff.path("ours-large"))
    check(whole.status == 0 and whole.output == data[:length], "replay of the whole file", whole)
    runner.note(f"{len(blocks)} blocks")


def cases(runner):
    for name in ("classic10", "mapped10"):
        runner.case(f"flip: every field of {name}", flip_file, name)
    for name in ("classic7", "multifd10", "converted"):
        runner.case(f"flip: every kind of field of {name}", flip_file, name, True)
    for name in ("classic10", "mapped10"):
        runner.case(f"flip: the description of {name}", flip_description, name)
    for name in ("ours", "back"):
        runner.case(f"flip: {name}, with checksums", flip_with_checksums, name)
    runner.case("flip: libvirt's header", flip_libvirt)
    runner.case("flip: replay never sends a block that is wrong", flip_replay)
