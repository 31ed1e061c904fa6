# SPDX-License-Identifier: LGPL-2.1-or-later
"""Files that were made to do harm: an error, quickly, in little memory, and never a crash."""

import json
import os
import random
import struct

from harness.tap import check, check_equal

from .faults_material import material
from .faults_process import bounded, each, run
from .faults_walker import libvirt_header

BIG, MANY = 1 << 63, (1 << 31) - 1
FILE_MAX = 9 << 40  # less than ext4 can have


def u32(value):
    return struct.pack(">I", value & 0xFFFFFFFF)


def u64(value):
    return struct.pack(">Q", value & (1 << 64) - 1)


def text8(text):
    return bytes([len(text) & 255]) + text


def configuration(name=b"pc-q35-10.0", mapped=False, length=None):
    found = b"QEVM" + u32(3) + b"\7" + u32(len(name) if length is None else length) + name
    if mapped:
        found += b"\5" + text8(b"configuration/capabilities") + u32(1) + u32(1) + text8(b"mapped-ram")
    return found


def ram_start(blocks, total=None, section=2):
    """blocks: bytes of each, behind the total."""
    return b"\1" + u32(section) + text8(b"ram") + u32(0) + u32(4) + u64((total or 0) | 4) + blocks


def ram_end(section=2, kind=3):
    return bytes([kind]) + u32(section) + u64(0x10) + b"\x7e" + u32(section)


def classic(blocks, items=b"", total=None):
    """Header to RAM END; blocks: (id, used_length)."""
    body = b"".join(text8(name) + u64(used) for name, used in blocks)
    total = sum(used for _, used in blocks) if total is None else total
    start = ram_start(body, total) + u64(0x10) + b"\x7e" + u32(2)
    part = b"\2" + u32(2) + items + u64(0x10) + b"\x7e" + u32(2) if items else b""
    return configuration() + start + part + ram_end()


def device(name, body, section=3, version=1):
    return b"\4" + u32(section) + text8(name) + u32(0) + u32(version) + body + b"\x7e" + u32(section)


def describe(devices=(), raw=None, length=None):
    description = raw if raw is not None else json.dumps({"page_size": 4096, "devices": list(devices)}).encode()
    return b"\0\6" + u32(len(description) if length is None else length) + description


def mapped_header(bitmap, pages, page_size=4096, version=1):
    return u32(version) + u64(page_size) + u64(bitmap) + u64(pages)


def mapped(blocks, total=None):
    """blocks: (id, used_length, {what of the header is wrong}). Returns {offset: bytes}, sparse, and the size."""
    head = configuration(mapped=True) + ram_start(b"", sum(used for _, used, _ in blocks) if total is None else total)
    pieces, at = {0: head}, len(head)
    for name, used, wrong in blocks:
        fields = text8(name) + u64(used)
        bitmap = at + len(fields) + 28
        n_bitmap = min((used // 4096 + 63) // 64 * 8, 1 << 26)
        pages = (bitmap + n_bitmap + (1 << 20) - 1) >> 20 << 20
        values = {"bitmap": bitmap, "pages": pages, **wrong}
        set_bits = values.pop("bits", b"")
        pieces[at] = fields + mapped_header(**values) + set_bits
        at = pages + min(used, 1 << 41)
    tail = u64(0x10) + b"\x7e" + u32(2) + ram_end() + describe()
    pieces[at] = tail
    return pieces, at + len(tail)


ONE_PAGE = u64(0x08) + text8(b"pc.ram") + bytes(range(256)) * 16
SMALL = classic([(b"pc.ram", 4096)], ONE_PAGE)


def with_field(**field):
    """A small stream with one device whose only field is this."""
    fields = [{"name": "f", "type": "buffer", "size": 8, **field}]
    timer = {"name": "timer", "instance_id": 0, "vmsd_name": "timer", "version": 1, "fields": fields}
    return SMALL + device(b"timer", bytes(8)) + describe([timer])


def nested(depth, key="struct"):
    inner = '{"vmsd_name":"a","version":1,"fields":['
    return (b'{"page_size":4096,"devices":[{"name":"timer","instance_id":0,"vmsd_name":"timer","version":1,"fields":['
            + (f'{{"name":"f","type":"struct","size":8,"{key}":{inner}' * depth).encode() + (b"]}}" * depth) + b"]}]}")


def trailer(payload, n_blocks=1, block_size=1 << 20, offset=0, length=None, version=1):
    """The fields as they are told; the checksum of the trailer itself is wrong, as an attacker without xxHash would leave it."""
    length = len(payload) if length is None else length
    footer = b"HFSTREAM" + u32(version) + u32(block_size) + u64(offset) + u64(length) + u64(0) + u64(n_blocks)
    return payload + bytes(8) + footer + u32(1) + bytes(20) + u64(0)


def huge_trailer():
    """Every length in it fits the file, which is nearly all hole: a gigabyte of checksums."""
    n_blocks, block_size = 1 << 27, 1 << 16
    length = n_blocks * block_size
    size = length + 8 * n_blocks + 80
    return {0: SMALL, size - 80: trailer(b"", n_blocks, block_size, length=length)[8:]}, size


def libvirt(version=2, data_len=100, format=0, magic=b"LibvirtQemudSave"):
    return struct.pack("=16s5I", magic, version, data_len, 1, format, 0) + bytes(56) + bytes(100) + SMALL + describe()


# Of the 28 bytes of mapped-ram.
WRONG_HEADERS = (("page_size", 0), ("page_size", 512), ("page_size", 8192), ("page_size", BIG), ("version", 2), ("bitmap", -8),
                 ("bitmap", 0), ("pages", -4096), ("pages", 0), ("pages", (1 << 20) + 1), ("pages", 1 << 62))


def many_blocks(n):
    return classic([(f"b{i}".encode(), 4096) for i in range(n)]) + describe()


def files():
    """{name: bytes, or ({offset: bytes}, size)}"""
    rng = random.Random(2)
    whole = SMALL + describe()
    found = {
        "empty": b"", "one byte": b"Q", "magic": b"QEVM", "header": b"QEVM" + u32(3), "garbage": rng.randbytes(1 << 20),
        "garbage behind the header": configuration() + rng.randbytes(1 << 20), "garbage behind RAM": SMALL + rng.randbytes(1 << 20),
        "nothing, 1 TiB": ({0: b""}, 1 << 40), "header, then 1 TiB": ({0: configuration()}, 1 << 40),
        "RAM, then 1 TiB": ({0: SMALL}, 1 << 40), "RAM, 1 TiB, description": ({0: SMALL, 1 << 40: describe()}, (1 << 40) + len(describe())),
        "machine name of 4 GiB": configuration(length=0xFFFFFFFF) + SMALL, "old version": b"QEVM" + u32(2) + whole[8:],
        "total 2^63": classic([(b"pc.ram", 4096)], ONE_PAGE, total=BIG) + describe(),
        "used_length 2^63": classic([(b"pc.ram", BIG)], ONE_PAGE) + describe(),
        "used_length 2^64 - 4096": classic([(b"pc.ram", -4096 & (1 << 64) - 1)], ONE_PAGE) + describe(),
        "sum of used_length overflows": classic([(b"a", BIG), (b"b", BIG), (b"pc.ram", 4096)], ONE_PAGE, total=4096) + describe(),
        "used_length odd": classic([(b"pc.ram", 4097)], ONE_PAGE, total=4096) + describe(),
        "used_length 0 for ever": classic([(b"z", 0)] * 20000, total=4096) + describe(),
        "a block twice": classic([(b"pc.ram", 4096), (b"pc.ram", 4096)], ONE_PAGE) + describe(),
        "page outside": classic([(b"pc.ram", 4096)], u64(0x1000 | 8) + text8(b"pc.ram") + bytes(4096)) + describe(),
        "page at 2^63": classic([(b"pc.ram", 4096)], u64(BIG | 8) + text8(b"pc.ram") + bytes(4096)) + describe(),
        "page of no block": classic([(b"pc.ram", 4096)], u64(0x28) + bytes(4096)) + describe(),
        "compressed page": classic([(b"pc.ram", 4096)], u64(0x100) + text8(b"pc.ram") + bytes(4096)) + describe(),
        "4097 blocks": many_blocks(4097), "100000 blocks": many_blocks(100000),
        "200000 sections": SMALL + b"".join(device(b"timer", b"", section=i) for i in range(200000)) + describe(),
        "JSON 100000 deep": SMALL + describe(raw=b'{"devices":' + b"[" * 100000 + b"]" * 100000 + b"}"),
        "JSON 100000 structs deep": SMALL + device(b"timer", bytes(8)) + describe(raw=nested(20000)),
        "JSON of 65 MiB": SMALL + describe(raw=b'{"devices":[],"a":"' + b"a" * (65 << 20) + b'"}'),
        "JSON of numbers": SMALL + describe(raw=b'{"devices":[' + b"1," * 500000 + b"1]}"),
        "JSON that is none": SMALL + describe(raw=b'{"devices":'), "description of 4 GiB": SMALL + describe(length=0xFFFFFFFF),
        "devices no array": SMALL + describe(raw=b'{"devices":{}}'), "many descriptions": SMALL + b'\0\6\0\0\0\2{"' * 100000,
        "size 2^63": with_field(size=BIG - 1), "size -8": with_field(size=-8), "size 1e300": with_field(size=1e300),
        "size a text": with_field(size="8"), "size an object": with_field(size={}),
        "array_len 2^62": with_field(array_len=1 << 62, size=4), "array_len -1": with_field(array_len=-1),
        "array of 2^31 empty structs": with_field(array_len=MANY, size=0, struct={"vmsd_name": "a", "version": 1, "fields": []}),
        "array of 2^31 structs": with_field(array_len=MANY, size=0, struct={"vmsd_name": "a", "version": 1, "fields": [
            {"name": "g", "type": "buffer", "size": 0, "array_len": MANY}]}),
        "mapped: used_length 2^63": mapped([(b"pc.ram", BIG, {})]), "mapped: total 2^63": mapped([(b"pc.ram", 4096, {})], total=BIG),
        "mapped: 1 TiB of nothing, all present": mapped([(b"pc.ram", 1 << 40, {"bits": b"\xff" * 4096})]),
        **{f"mapped: {name} {value:#x}": mapped([(b"pc.ram", 4096, {name: value})]) for name, value in WRONG_HEADERS},
        "mapped: blocks that overlap": mapped([(b"a", 8192, {}), (b"b", 8192, {"pages": 1 << 20})]),
        "mapped: pages that go round": mapped([(b"a", 8192, {"pages": 0}), (b"b", 8192, {"pages": 0})]),
        "trailer: 2^60 blocks": trailer(whole, n_blocks=1 << 60), "trailer: block size 0": trailer(whole, block_size=0),
        "trailer: block size 3": trailer(whole, block_size=3), "trailer: payload longer than the file": trailer(whole, length=BIG),
        "trailer: payload before the file": trailer(whole, offset=-1), "trailer: only a footer": trailer(b"", n_blocks=0),
        "trailer: of 8 TiB in the smallest blocks": huge_trailer(),
        "trailer: version 2": trailer(whole, version=2), "trailer: wrong sum": trailer(whole),
        "libvirt: data_len 4 GiB": libvirt(data_len=0xFFFFFFFF), "libvirt: version 3": libvirt(version=3),
        "libvirt: gzip": libvirt(format=1), "libvirt: format 99": libvirt(format=99),
        "libvirt: not complete": libvirt(magic=b"LibvirtQemudPart"),
        "libvirt: header alone": libvirt_header(0)[:92], "libvirt: swapped": libvirt(version=0x02000000),
    }
    return found


def write_file(path, content):
    pieces, size = content if isinstance(content, tuple) else ({0: content}, len(content))
    with open(path, "wb") as file:
        for offset, data in pieces.items():
            if offset < FILE_MAX:
                file.seek(offset)
                file.write(data)
        file.truncate(min(size, FILE_MAX))


# What is odd, but a stream all the same, as far as anybody can see who has not that much memory: these verbs may take it.
HARMLESS = {"array of 2^31 empty structs": ("verify", "replay", "convert"), "used_length 2^63": ("verify", "replay", "capture"),
            # A block list of no known form, as postcopy-ram makes one: then the stream's end decides whether it is captured.
            "total 2^63": ("capture",), "sum of used_length overflows": ("capture",),
            "used_length 2^64 - 4096": ("verify", "replay", "capture"), "compressed page": ("capture",), "200000 sections": ("capture",)}


def read_all(runner):
    """Every reader of every file."""
    def work(numbered):
        number, (name, content) = numbered
        path, out, problems = runner.path(f"hostile-{number}"), runner.path(f"out-{number}"), []
        write_file(path, content)
        form = "classic" if name.startswith("mapped") else "mapped-ram"
        for words in (("verify", path), ("inspect", "--json", path), ("replay", path), ("convert", "--to", form, path, out)):
            if name == "mapped: 1 TiB of nothing, all present" and words[0] == "convert":
                continue  # 2^28 pages are work, not harm
            ended = bounded(run(runner, *words))
            if words[0] == "inspect":
                continue  # what can be shown of it is shown
            if words[0] == "replay":
                # It looks at the end, and hands RAM on as it is: QEMU reads that itself. What is there is all that comes out.
                if not ended.refused and not content.startswith(ended.output):
                    problems.append(f"replay of {name} gives something else: {ended}")
                continue
            if not ended.refused and words[0] not in HARMLESS.get(name, ()):
                problems.append(f"{words[0]} takes: {name}: {ended}")
            left = [entry for entry in os.listdir(runner.folder) if entry == f"out-{number}" or entry.startswith(f"out-{number}.")]
            if left and ended.refused:
                problems.append(f"{name}: {words[0]} leaves {left}")
            if os.path.exists(out):
                os.unlink(out)
        os.unlink(path)
        return problems

    made = files()
    report(each(list(enumerate(made.items())), work))
    runner.note(f"{len(made)} files")


def report(found):
    problems = [problem for part in found for problem in part]
    check(not problems, f"{len(problems)} problems", *problems)


def feed_all(runner):
    """The same, given to capture: nothing is committed."""
    def work(numbered):
        number, (name, content) = numbered
        path, problems = runner.path(f"input-{number}"), []
        write_file(path, content)
        for options in ((), ("--mapped",)):
            target = runner.path(f"vm-{number}{len(options)}")
            with open(path, "rb") as file:
                ended = bounded(run(runner, "capture", *options, target, stdin=file))
            if ended.refused == os.path.exists(target) or os.path.exists(target + ".partial"):
                problems.append(f"{name}: the exit status and what is left do not agree: {ended}")
            if not ended.refused and (options or "capture" not in HARMLESS.get(name, ())):
                problems.append(f"capture {' '.join(options)} takes: {name}: {ended}")
        os.unlink(path)
        return problems

    # Only what comes through a pipe in a moment; a trailer or libvirt's header is nothing that QEMU sends.
    made = [(number, item) for number, item in enumerate(files().items())
            if isinstance(item[1], bytes) and item[0] not in HARMLESS and not item[0].startswith(("trailer", "JSON of 65"))]
    report(each(made, work))
    runner.note(f"{len(made)} files")


def garbage(runner):
    """Runs of random bytes in a good file, the same ones each time."""
    stuff = material(runner)
    rng = random.Random(3)
    refused = 0
    attempts = []
    for name in ("classic10", "mapped10", "ours"):
        end = stuff.layout(name).end
        attempts += [(i, name, rng.randrange(end), rng.randbytes(rng.choice((1, 8, 64, 4096)))) for i in range(16)]

    def work(attempt):
        number, name, offset, noise = attempt
        path = stuff.copy(name, f"{name}-noise-{number}")
        with open(path, "r+b") as file:
            file.seek(offset)
            file.write(noise)
        ended = [bounded(run(runner, *words)) for words in (("verify", path), ("inspect", "--json", path))]
        os.unlink(path)
        return name, ended[0].refused

    for name, bad in each(attempts, work):
        refused += bad
        check(bad or name != "ours", "noise in a file with checksums is not seen")
    check_equal(refused >= 16, True, "noise is seen")


def cases(runner):
    runner.case("hostile: every reader", read_all)
    runner.case("hostile: as the input of a capture", feed_all)
    runner.case("hostile: noise in good files", garbage)
