# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where RAM lies in a migration stream. Shares nothing with src/stream: what the tests know of a file they know from here.

Only what real QEMU writes: no postcopy, no ignored shared blocks, page size 4096.
"""

import collections
import mmap
import os
import struct

from harness.tap import check, check_equal

PAGE = 4096
ZERO, MEM_SIZE, FULL_PAGE, EOS, CONTINUE, XBZRLE, MULTIFD_FLUSH = 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x200
FLAGS = PAGE - 1

# One page message of a classic stream: position is that of the content (page), or None (zero).
Item = collections.namedtuple("Item", "block offset position")
Block = collections.namedtuple("Block", "name length header bitmap pages")


class Stream:
    """A file that holds a stream from byte start on. with Stream(...) as stream."""

    def __init__(self, path, start=0):
        self.path, self.at = path, start
        with open(path, "rb") as file:
            self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        check_equal(self._take(">II"), (0x5145564D, 3), f"{path}: the stream's header")
        check_equal(self._take(">B"), (0x07,), f"{path}: CONFIGURATION")
        self.machine = self._text(">I")
        self.capabilities = []
        while self.data[self.at] == 0x05:
            self._subsection()
        self.blocks = []
        self.sections = []  # (type, id) as far as they were read

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.data.close()

    def _take(self, layout):
        values = struct.unpack_from(layout, self.data, self.at)
        self.at += struct.calcsize(layout)
        return values

    def _text(self, layout):
        (length,) = self._take(layout)
        self.at += length
        return self.data[self.at - length:self.at].decode()

    def _subsection(self):
        self.at += 1
        name = self._text(">B")
        self._take(">I")
        if name == "configuration/capabilities":
            (count,) = self._take(">I")
            self.capabilities = [self._text(">B") for _ in range(count)]
        elif name == "configuration/target-page-bits":
            check_equal(self._take(">I"), (12,), "target-page-bits")
        else:
            check_equal(name, "configuration/uuid", "subsection of CONFIGURATION")
            self.at += 16

    # Sections

    def _ram_section(self):
        """Reads the head of a section of ram or a command; its type."""
        (type,) = self._take(">B")
        if type == 0x08:
            _, length = self._take(">HH")
            self.at += length
            return type
        check(type in (0x01, 0x02, 0x03), f"{self.path}: section type {type:#x} at {self.at - 1}, where RAM is expected")
        (self.section_id,) = self._take(">I")
        if type == 0x01:
            check_equal(self._text(">B"), "ram", "the first iterable section")
            check_equal(self._take(">II"), (0, 4), "instance and version of ram")
        return type

    def _footer(self):
        check_equal(self._take(">BI"), (0x7E, self.section_id), f"{self.path}: footer of ram at {self.at}")

    def _block_list(self, total):
        mapped = "mapped-ram" in self.capabilities
        while total > 0:
            name = self._text(">B")
            (length,) = self._take(">Q")
            header = bitmap = pages = None
            if mapped:
                header = self.at
                version, page_size, bitmap, pages = self._take(">IQQQ")
                check_equal((version, page_size), (1, PAGE), f"header of {name}")
                self.at = pages + length
            self.blocks.append(Block(name, length, header, bitmap, pages))
            total -= length
        check_equal(total, 0, "the block list ends with the total")

    def items(self):
        """Every page message up to RAM END; afterwards at is behind its footer. A mapped-ram file has none."""
        block = None
        while True:
            type = self._ram_section()
            if type == 0x08:
                continue
            while True:
                (word,) = self._take(">Q")
                flags, offset = word & FLAGS, word & ~FLAGS
                if flags == EOS:
                    break
                if flags == MEM_SIZE:
                    self._block_list(offset)
                elif flags & (ZERO | FULL_PAGE):
                    check(flags & ~(ZERO | FULL_PAGE | CONTINUE) == 0, f"flags {flags:#x} at {self.at - 8}")
                    block = block if flags & CONTINUE else self._text(">B")
                    yield Item(block, offset, None if flags & ZERO else self.at)
                    self.at += 1 if flags & ZERO else PAGE
                else:
                    check_equal(flags, MULTIFD_FLUSH, f"flags at {self.at - 8}")
            self._footer()
            if type == 0x03:
                return

    # What the cases ask

    def walk(self):
        """Of a mapped-ram file: reads the block list."""
        for _ in self.items():
            pass
        return self

    def block(self, name):
        return next(block for block in self.blocks if block.name == name)

    def present(self, name):
        """The page numbers of a mapped-ram block whose bit is set."""
        block = self.block(name)
        count = -(-block.length // PAGE)
        bits = int.from_bytes(self.data[block.bitmap:block.bitmap + -(-count // 64) * 8], "little")
        return [number for number in range(count) if bits >> number & 1] if count < 4096 else _set_bits(bits, count)

    def find(self, needle, start=0):
        return self.data.find(needle, start)


def _set_bits(bits, count):
    data = bits.to_bytes(-(-count // 64) * 8, "little")
    return [8 * index + bit for index, byte in enumerate(data) if byte for bit in range(8) if byte >> bit & 1]


def disk_usage(path):
    return os.stat(path).st_blocks * 512


def overwrite(path, position, data):
    with open(path, "r+b") as file:
        file.seek(position)
        file.write(data)


def flip(path, position):
    """One bit of one byte."""
    with open(path, "r+b") as file:
        file.seek(position)
        byte = file.read(1)
        file.seek(position)
        file.write(bytes([byte[0] ^ 0x10]))
