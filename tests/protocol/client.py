# SPDX-License-Identifier: LGPL-2.1-or-later
"""A client of the pr-helper protocol that decides about every byte: what stands in one message, which descriptors go with it, and when.

It knows nothing of the programs under test. What they answer becomes an outcome, a short text, so that two programs can be compared.
"""

import array
import os
import select
import socket
import struct
import time

from harness.tap import check

CDB_SIZE, SENSE_SIZE, HEADER_SIZE, DATA_MAX = 16, 96, 104, 8192
# Far longer than an answer takes on a busy machine.
LIMIT = float(os.environ.get("HOLDFAST_TEST_LIMIT", "20"))
# For the absence of an answer there is no event to wait for. Long enough for any answer that is on its way.
PATIENCE = 0.4

STATUS = {0x00: "GOOD", 0x02: "CHECK", 0x08: "BUSY", 0x18: "CONFLICT", 0x28: "TASK SET FULL", 0x40: "TASK ABORTED"}


class Closed(Exception):
    """The helper closed the connection; data is what came before."""

    def __init__(self, data=b""):
        self.data = data
        super().__init__(f"the helper closed the connection after {len(data)} bytes")


class Silent(Exception):
    """Nothing came in time."""


def pr_in(action, length=DATA_MAX):
    return struct.pack(">BB5xHx", 0x5E, action, length).ljust(CDB_SIZE, b"\0")


def pr_out(action, type=0, length=24):
    """Byte 2 is SCOPE and TYPE; bytes 5 to 8 the length, of which the protocol reads 7 and 8."""
    return struct.pack(">BBB4xHx", 0x5F, action, type, length).ljust(CDB_SIZE, b"\0")


def parameters(key=0, new_key=0, flags=0):
    return struct.pack(">QQ4xB3x", key, new_key, flags)


class Reply:
    def __init__(self, status, size, sense, data):
        self.status, self.size, self.sense, self.data = status, size, sense, data

    @property
    def code(self):
        """(sense key, ASC << 8 | ASCQ), or None."""
        if self.status != 2:
            return None
        if self.sense[0] & 0x7E == 0x72:
            return self.sense[1] & 0xF, self.sense[2] << 8 | self.sense[3]
        return self.sense[2] & 0xF, self.sense[12] << 8 | self.sense[13]

    def own_sense(self):
        """The sense without what lies behind it: byte 7 says how many bytes follow it (SPC-4 4.5.2, 4.5.3)."""
        return self.sense[: 8 + self.sense[7]] if 0x70 <= self.sense[0] & 0x7F <= 0x73 else b""

    def outcome(self, with_generation=False):
        text = STATUS.get(self.status, f"status {self.status:#x}")
        if self.status == 2:
            text += " %x/%04x" % self.code + f" {self.own_sense().hex()}"
        if self.size:
            data = self.data.hex()
            text += f" {self.size} bytes " + (data if with_generation or len(data) < 8 else "generation " + data[8:])
        return text

    def __str__(self):
        return self.outcome(with_generation=True)


class Client:
    """One connection. greet: take the greeting and answer it."""

    def __init__(self, path, greet=True, features=0):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Not settimeout: a connect that does not block is refused while the backlog is full.
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(LIMIT), 0))
            self.socket.connect(path)
            if greet:
                self.greeting = self.receive(4)
                self.send(struct.pack(">I", features))
        except BaseException:
            self.socket.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def shut_write(self):
        self.socket.shutdown(socket.SHUT_WR)

    def send(self, data, fds=()):
        """One message. A helper that has closed already is no error here: what counts is what can be received."""
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            sent = self.socket.sendmsg([data], control)
            if sent < len(data):
                self.socket.sendall(data[sent:])
        except (BrokenPipeError, ConnectionResetError):
            pass

    def receive(self, length, limit=LIMIT):
        data = b""
        end = time.monotonic() + limit
        while len(data) < length:
            if not select.select([self.socket], [], [], max(0, end - time.monotonic()))[0]:
                raise Silent(f"{len(data)} of {length} bytes within {limit} s")
            try:
                part = self.socket.recv(length - len(data))
            except ConnectionResetError:
                part = b""
            if not part:
                raise Closed(data)
            data += part
        return data

    def reply(self, limit=LIMIT):
        """The next reply, whatever it is about."""
        status, size = struct.unpack(">Ii", (header := self.receive(HEADER_SIZE, limit))[:8])
        if not 0 <= size <= 65536:
            return Reply(status, size, header[8:], b"")
        return Reply(status, size, header[8:], self.receive(size, limit) if size else b"")

    def request(self, fd, cdb, data=b"", limit=LIMIT):
        """One command as QEMU sends it. A size that breaks the rules would abort QEMU."""
        self.send(cdb, [fd])
        if data:
            self.send(data)
        reply = self.reply(limit)
        allowed = int.from_bytes(cdb[7:9], "big") if cdb[0] == 0x5E and reply.status == 0 else 0
        check(0 <= reply.size <= allowed, f"sz {reply.size} where at most {allowed} is allowed: {reply}")
        return reply

    def expect(self, limit=PATIENCE):
        """The outcome of what was sent: a reply, the end of the connection, or silence."""
        try:
            return self.reply(limit).outcome()
        except Closed as closed:
            return "closes" + (f" after {len(closed.data)} bytes" if closed.data else "")
        except Silent:
            return "silent"

    def outcome(self):
        """The same where something has to come."""
        return self.expect(LIMIT)
