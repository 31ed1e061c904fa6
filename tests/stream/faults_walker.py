# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where everything lies in a QEMU migration stream: the third observer of the fault tests. It shares nothing with holdfast, expects only
whole streams, and raises on anything else. The layout is that of QEMU's docs/devel/migration and of migration/{savevm,ram}.c.
"""

import collections
import json
import struct

PAGE = 4096
TYPES = {1: "START", 2: "PART", 3: "END", 4: "FULL"}

# kind: what it is, without numbers, so that a table can be keyed by it; what: the same with the names of this very place.
Field = collections.namedtuple("Field", "kind what offset length")


class Layout:
    """fields: every piece of structure; pages: (block id, offset in the block, offset in the file) of what is present; boundaries:
    where a structure begins or ends; end: behind the last byte of the JSON."""

    def __init__(self, data, start=0):
        self.data, self.start, self.at = data, start, start
        self.fields, self.pages, self.zeros, self.boundaries = [], [], [], {start}
        self.blocks = []  # (id, used_length)
        self.mapped = False
        self._find_json()
        self._walk()

    # ---- bytes ----
    def _number(self, kind, length, what=None):
        value = int.from_bytes(self.data[self.at:self.at + length], "big")
        self._take(kind, length, what)
        return value

    def _take(self, kind, length, what=None):
        assert self.at + length <= len(self.data), f"{what or kind} at {self.at} is cut"
        self.fields.append(Field(kind, what or kind, self.at, length))
        self.at += length
        return self.data[self.at - length:self.at]

    def _text(self, kind, length, what=None):
        return self._take(kind, length, what).decode()

    def _boundary(self):
        self.boundaries.add(self.at)

    # ---- from the end ----
    def _find_json(self):
        """The JSON is what the word before it says it is; the first that fits counts, from the end backwards."""
        self.end = self.json_offset = None
        place = len(self.data)
        while (place := self.data.rfind(b'{"', self.start, place)) > 6:
            length = int.from_bytes(self.data[place - 4:place], "big")
            if self.data[place - 6:place - 4] != b"\0\6" or place + length > len(self.data):
                continue
            try:
                self.json = json.loads(self.data[place:place + length])
            except ValueError:
                continue
            self.json_offset, self.end = place, place + length
            return
        raise AssertionError("no description")

    @staticmethod
    def _body_length(description):
        length = sum(field["size"] * field.get("array_len", 1) for field in description.get("fields", []))
        for sub in description.get("subsections", []):
            length += 6 + len(sub["vmsd_name"]) + Layout._body_length(sub)
        return length

    # ---- forward ----
    def _walk(self):
        self._take("header magic", 4)
        self._number("header version", 4)
        self._boundary()
        self._configuration()
        devices = list(self.json["devices"])
        while (kind := self.data[self.at]) != 0:
            self._boundary()
            if kind == 8:
                self._command()
            elif kind == 4:
                self._device(devices.pop(0))
            else:
                self._ram(kind)
        assert not devices, f"{len(devices)} devices are missing"
        self._boundary()
        self._take("EOF byte", 1)
        self._boundary()
        self._take("description type", 1)
        self._number("description length", 4)
        self._boundary()
        assert self.at == self.json_offset
        self.at = self.end
        self._boundary()

    def _configuration(self):
        self._take("configuration type", 1)
        self._text("configuration name", self._number("configuration length", 4))
        while self.data[self.at] == 5:
            self._boundary()
            self._take("configuration subsection type", 1)
            name = self._text("configuration subsection name", self._number("configuration subsection name length", 1))
            self._number("configuration subsection version", 4)
            assert name == "configuration/capabilities", name
            for _ in range(self._number("capability count", 4)):
                capability = self._text("capability name", self._number("capability name length", 1))
                self.mapped |= capability == "mapped-ram"

    def _head(self, name=None):
        kind = TYPES[self._number("section type", 1, f"type of {name or 'ram'}")]
        prefix = "device" if name else "ram"
        self.section_id = self._number(f"{prefix} section id", 4, f"section id of {name or 'ram'}, {kind}")
        if kind in ("START", "FULL"):
            found = self._text(f"{prefix} id", self._number(f"{prefix} id length", 1), f"id of {name or 'ram'}")
            assert found == (name or "ram"), f"{found} at {self.at}, not {name}"
            self._number(f"{prefix} instance", 4, f"instance of {found}")
            self._number(f"{prefix} version", 4, f"version of {found}")
        return kind

    def _footer(self, prefix):
        assert self.data[self.at] == 0x7e, f"no footer at {self.at}"
        self._number(f"{prefix} footer type", 1)
        assert self._number(f"{prefix} footer id", 4) == self.section_id
        self._boundary()

    def _command(self):
        self._take("command type", 1)
        self._number("command", 2)
        length = self._number("command length", 2)
        assert length == 0
        self._boundary()

    def _device(self, description):
        name = description["name"]
        self._head(name)
        fields = sum(field["size"] * field.get("array_len", 1) for field in description.get("fields", []))
        if fields:
            self._take("device field", fields, f"fields of {name}")
        for sub in description.get("subsections", []):
            self._subsection(sub)
        self._footer("device")

    def _subsection(self, sub):
        self._boundary()
        self._take("subsection type", 1, f"type of {sub['vmsd_name']}")
        found = self._text("subsection name", self._number("subsection name length", 1), f"name of {sub['vmsd_name']}")
        assert found == sub["vmsd_name"], found
        self._number("subsection version", 4, f"version of {found}")
        fields = sum(field["size"] * field.get("array_len", 1) for field in sub.get("fields", []))
        if fields:
            self._take("subsection field", fields, f"fields of {found}")
        for nested in sub.get("subsections", []):
            self._subsection(nested)

    def _ram(self, kind):
        self._head()
        if kind == 1:
            total = self._number("ram total", 8)
            assert total & 0xfff == 4, hex(total)
            self._blocks(total - 4)
        if self.mapped or kind == 1:
            self._eos()
        else:
            self._items()
        self._footer("ram")

    def _eos(self):
        assert self._number("ram EOS", 8) == 0x10

    def _blocks(self, total):
        while total:
            self._boundary()
            name = self._text("block id", self._number("block id length", 1))
            used = self._number("block used_length", 8, f"used_length of {name}")
            self.blocks.append((name, used))
            total -= used
            if self.mapped:
                self._mapped_block(name, used)

    def _mapped_block(self, name, used):
        self._number("mapped version", 4, f"mapped-ram version of {name}")
        assert self._number("mapped page_size", 8, f"page_size of {name}") == PAGE
        bitmap = self._number("mapped bitmap_offset", 8, f"bitmap_offset of {name}")
        pages = self._number("mapped pages_offset", 8, f"pages_offset of {name}")
        assert bitmap == self.at and pages % (1 << 20) == 0
        self._boundary()
        count, length = used // PAGE, (used // PAGE + 63) // 64 * 8
        if count:
            self._take("bitmap", (count + 7) // 8, f"bitmap of {name}")
        if count % 64:
            # Bits of this byte that no page has, and bytes that are only there to fill a word.
            if count % 8:
                self.fields.append(Field("bitmap beyond the end, last byte", f"bitmap of {name}", self.at - 1, 1))
            if length > (count + 7) // 8:
                self._take("bitmap beyond the end", length - (count + 7) // 8, f"bitmap of {name}")
        for page in range(count):
            if self.data[bitmap + page // 8] >> (page % 8) & 1:
                self.pages.append((name, page * PAGE, pages + page * PAGE))
            else:
                self.zeros.append((name, page * PAGE))
        self.at = pages + used
        self._boundary()

    def _items(self):
        name = None
        while True:
            word = int.from_bytes(self.data[self.at:self.at + 8], "big")
            flags, offset = word & 0xfff, word & ~0xfff
            if flags == 0x10:
                self._eos()
                return
            self._number("page word", 8, f"page {offset:#x}")
            assert flags & ~0x20 in (0x02, 0x08), hex(flags)
            if not flags & 0x20:
                name = self._text("page block id", self._number("page block id length", 1))
                self._boundary()
            if flags & 2:
                assert self._number("zero byte", 1) == 0
                self.zeros.append((name, offset))
            else:
                self.pages.append((name, offset, self.at))
                self._take("page", PAGE, f"page {offset:#x} of {name}")

    # ---- what the tests ask ----
    def of(self, *kinds):
        return [field for field in self.fields if field.kind in kinds]

    def count_pages(self, bitmap):
        """Of the block whose bitmap that field is."""
        return next(used // PAGE for name, used in self.blocks if bitmap.what == f"bitmap of {name}")

    def kinds(self):
        return sorted({field.kind for field in self.fields})

    def memory(self):
        """{(block id, offset): page}, of what is not zero. A page that was sent twice has its last content."""
        found = {}
        for name, offset, place in self.pages:
            found[name, offset] = self.data[place:place + PAGE]
        return {key: page for key, page in found.items() if page.count(0) != PAGE}

    def devices(self):
        """Everything behind RAM, as it stands there."""
        last = max(index for index, field in enumerate(self.fields) if field.kind == "ram footer id")
        return self.data[self.fields[last].offset + 4:self.end]


def libvirt_header(padding=70000, was_running=1):
    """The 92 bytes and the data behind them: XML, cookie, padding (libvirt's src/qemu/qemu_saveimage.h). Host byte order."""
    xml = b"<domain type='qemu'><name>vm</name></domain>\0"
    cookie = b"<qemustate/>\0"
    data = xml + cookie + bytes(padding)
    return struct.pack("=16s5I", b"LibvirtQemudSave", 2, len(data), was_running, 0, len(xml)) + bytes(14 * 4) + data


# The fields of that header that mean something to a reader of the file.
LIBVIRT_FIELDS = (("libvirt magic", 0, 16), ("libvirt version", 16, 4), ("libvirt data_len", 20, 4), ("libvirt was_running", 24, 4),
                  ("libvirt format", 28, 4), ("libvirt cookieOffset", 32, 4))


def trailer_fields(size):
    """Of a file of ours (src/stream/trailer.h), from its end."""
    base = size - 80
    table = (("magic", 0, 8), ("version", 8, 4), ("block size", 12, 4), ("payload offset", 16, 8), ("payload length", 24, 8),
             ("time", 32, 8), ("count", 40, 8), ("flags", 48, 4), ("reserved", 52, 20), ("own checksum", 72, 8))
    return [Field(f"trailer {name}", f"trailer {name}", base + offset, length) for name, offset, length in table]
