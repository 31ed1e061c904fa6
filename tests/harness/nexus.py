# SPDX-License-Identifier: LGPL-2.1-or-later
"""An initiator that shares no code with the program under test: the third party and the judge.

A Nexus sends raw CDBs over iSCSI (a small initiator in this file, RFC 7143, one connection, no digests) or through SG_IO, and decodes
what the judgement needs: keys, reservation, full status. A unit attention is consumed, remembered and the command repeated, unless
the caller wants to see it.
"""

import ctypes
import fcntl
import os
import socket
import struct

GOOD, CHECK, CONFLICT = 0x00, 0x02, 0x18

REGISTER, RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_AND_ABORT, REGISTER_AND_IGNORE, REGISTER_AND_MOVE = range(8)


class Answer:
    """What the LU said to one command."""

    def __init__(self, status, sense=b"", data=b""):
        self.status, self.sense, self.data = status, bytes(sense), bytes(data)

    @property
    def code(self):
        """(sense key, ASC << 8 | ASCQ), or None."""
        if self.status != CHECK or len(self.sense) < 4:
            return None
        if self.sense[0] & 0x7E == 0x72:
            return self.sense[1] & 0xF, self.sense[2] << 8 | self.sense[3]
        if len(self.sense) < 14:
            return self.sense[2] & 0xF, 0
        return self.sense[2] & 0xF, self.sense[12] << 8 | self.sense[13]

    def __str__(self):
        names = {0: "GOOD", 0x18: "CONFLICT", 8: "BUSY", 0x28: "TASK SET FULL"}
        if self.code:
            return "%x/%04x" % self.code
        return names.get(self.status, f"status {self.status:02x}")


class Nexus:
    """Base: everything that does not depend on how a command travels."""

    def __init__(self, name):
        self.name = name
        self.unit_attentions = []

    def execute(self, cdb, data_out=b"", length_in=0):
        raise NotImplementedError

    def command(self, cdb, data_out=b"", length_in=0, see_attention=False):
        for _ in range(16):
            answer = self.execute(bytes(cdb), data_out, length_in)
            if see_attention or not answer.code or answer.code[0] != 6:
                break
            self.unit_attentions.append("%04x" % answer.code[1])
        return answer

    # PERSISTENT RESERVE OUT and IN (SPC-4 6.15, 6.16)

    def pr_out(self, action, key=0, new_key=0, type=0, aptpl=False, all_tg_pt=False, see_attention=False, parameters=None):
        if parameters is None:
            parameters = struct.pack(">QQ4xB3x", key, new_key, (4 if all_tg_pt else 0) | aptpl)
        cdb = struct.pack(">BBB2xIx", 0x5F, action, type, len(parameters))
        return self.command(cdb, parameters, see_attention=see_attention)

    def pr_in(self, action, length=8192, see_attention=False):
        return self.command(struct.pack(">BB5xHx", 0x5E, action, length), length_in=length, see_attention=see_attention)

    def keys(self):
        """(PRGENERATION, sorted keys)"""
        data = self._need(self.pr_in(0), "READ KEYS").data
        generation, length = struct.unpack_from(">II", data)
        return generation, sorted(key for (key,) in struct.iter_unpack(">Q", data[8 : 8 + length // 8 * 8]))

    def reservation(self):
        """(key, type), or None"""
        data = self._need(self.pr_in(1), "READ RESERVATION").data
        if struct.unpack_from(">I", data, 4)[0] == 0:
            return None
        return struct.unpack_from(">Q", data, 8)[0], data[21] & 0xF

    def full_status(self):
        """[(key, holder, relative target port, TransportID)], or None where the target has no READ FULL STATUS"""
        answer = self.pr_in(3)
        if answer.status != GOOD:
            return None
        found, data, at = [], answer.data, 8
        end = 8 + struct.unpack_from(">I", data, 4)[0]
        while at < end:
            key, flags, port, length = struct.unpack_from(">Q4xB5xHI", data, at)
            found.append((key, bool(flags & 1), port, data[at + 24 : at + 24 + length]))
            at += 24 + length
        return found

    def picture(self):
        generation, keys = self.keys()
        return {"generation": generation, "keys": keys, "reservation": self.reservation()}

    # data and the like

    def test_unit_ready(self):
        return self.command(bytes(6))

    def read_block(self, lba=0, see_attention=False):
        return self.command(struct.pack(">BBIBHB", 0x28, 0, lba, 0, 1, 0), length_in=512, see_attention=see_attention)

    def write_block(self, data, lba=0, see_attention=False):
        return self.command(struct.pack(">BBIBHB", 0x2A, 0, lba, 0, 1, 0), data.ljust(512, b"\0"), see_attention=see_attention)

    def vpd(self, page):
        return self.command(struct.pack(">BBBHx", 0x12, 1, page, 255), length_in=255).data

    def wipe(self, key=0x7E57):
        """Leaves the LU without registrations and without a reservation, whatever was there."""
        self._need(self.pr_out(REGISTER_AND_IGNORE, new_key=key), "REGISTER AND IGNORE of a wipe")
        self._need(self.pr_out(CLEAR, key=key), "CLEAR of a wipe")
        self.drain()

    def drain(self):
        """Consumes pending unit attentions."""
        self.test_unit_ready()

    def _need(self, answer, what):
        if answer.status != GOOD:
            raise RuntimeError(f"{self.name}: {what} answered {answer}")
        return answer


class IscsiNexus(Nexus):
    """One iSCSI session with one connection."""

    def __init__(self, portal, target, lun, initiator, isid=0x00023D000001, timeout=10.0):
        super().__init__(initiator)
        self.lun, self.target, self.initiator, self.isid = lun, target, initiator, isid
        host, port = portal
        self.socket = socket.create_connection((host, port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.tag, self.command_sn, self.status_sn = 1, 1, 0
        self._login()

    def close(self):
        try:
            self._send(0x46, 0x80, tail=struct.pack(">IIII", self._next_tag(), 0, self.command_sn, self.status_sn))
            self._receive()
        except OSError:
            pass
        self.socket.close()

    def cut(self):
        """Drops the connection without a word."""
        self.socket.close()

    def _next_tag(self):
        self.tag += 1
        return self.tag

    def _send(self, opcode, flags, head=bytes(8), tail=b"", data=b"", extra=0):
        """head: bytes 8 to 15, tail: from byte 16; both padded. extra: bytes 2 and 3."""
        header = struct.pack(">BBHI", opcode, flags, extra, len(data)) + head.ljust(8, b"\0") + tail
        self.socket.sendall(header.ljust(48, b"\0") + data + bytes(-len(data) % 4))

    def _read(self, length):
        data = b""
        while len(data) < length:
            part = self.socket.recv(length - len(data))
            if not part:
                raise ConnectionError(f"{self.name}: the target closed the connection")
            data += part
        return data

    def _receive(self):
        header = self._read(48)
        length = int.from_bytes(header[5:8], "big")
        data = self._read(length + -length % 4)[:length]
        if header[0] & 0x3F in (0x21, 0x23, 0x24, 0x26) or (header[0] & 0x3F == 0x25 and header[1] & 1):
            self.status_sn = struct.unpack_from(">I", header, 24)[0] + 1
        return header, data

    def _login(self):
        """Security stage (nothing asked for), then the operational stage with every key named, so that the target has none to propose."""
        names = {"InitiatorName": self.initiator, "TargetName": self.target, "SessionType": "Normal", "AuthMethod": "None"}
        operational = {"HeaderDigest": "None", "DataDigest": "None", "InitialR2T": "Yes", "ImmediateData": "Yes",
                       "MaxRecvDataSegmentLength": "262144", "MaxBurstLength": "262144", "FirstBurstLength": "65536",
                       "DefaultTime2Wait": "2", "DefaultTime2Retain": "0", "MaxOutstandingR2T": "1", "MaxConnections": "1",
                       "ErrorRecoveryLevel": "0", "DataPDUInOrder": "Yes", "DataSequenceInOrder": "Yes"}
        for flags, text in ((0x81, names), (0x87, operational)):
            data = b"".join(f"{key}={value}".encode() + b"\0" for key, value in text.items())
            self._send(0x43, flags, self.isid.to_bytes(6, "big") + b"\0\0",
                       struct.pack(">IHHII", self.tag, 0, 0, self.command_sn, self.status_sn), data)
            header, _ = self._receive()
            if header[0] & 0x3F != 0x23 or header[36]:
                raise ConnectionError(f"{self.name}: login refused, class {header[36]} detail {header[37]}")
            if not header[1] & 0x80:
                raise ConnectionError(f"{self.name}: the target goes on negotiating")

    def execute(self, cdb, data_out=b"", length_in=0):
        flags = 0x81 | (0x40 if length_in else 0) | (0x20 if data_out else 0)
        tag = self._next_tag()
        self._send(0x01, flags, struct.pack(">BB6x", 0, self.lun),
                   struct.pack(">IIII", tag, len(data_out) or length_in, self.command_sn, self.status_sn) + cdb.ljust(16, b"\0"), data_out)
        self.command_sn += 1
        data = bytearray()
        while True:
            header, part = self._receive()
            opcode = header[0] & 0x3F
            if opcode == 0x25:
                data += part
                if header[1] & 1:
                    return Answer(header[3], b"", data)
            elif opcode == 0x21:
                return Answer(header[3], part[2:] if len(part) > 2 else b"", data)
            elif opcode == 0x20 and header[20:24] != b"\xff" * 4:
                self._send(0x40, 0x80, header[8:16], b"\xff" * 4 + header[20:24] + struct.pack(">II", self.command_sn, self.status_sn))
            elif opcode in (0x3F, 0x32):
                raise ConnectionError(f"{self.name}: the target rejected a command or ended the session")


class _SgIoHeader(ctypes.Structure):  # <scsi/sg.h>
    _fields_ = [("interface_id", ctypes.c_int), ("direction", ctypes.c_int), ("cdb_length", ctypes.c_ubyte),
                ("sense_max", ctypes.c_ubyte), ("iovecs", ctypes.c_ushort), ("length", ctypes.c_uint), ("data", ctypes.c_void_p),
                ("cdb", ctypes.c_void_p), ("sense", ctypes.c_void_p), ("timeout", ctypes.c_uint), ("flags", ctypes.c_uint),
                ("pack_id", ctypes.c_int), ("user", ctypes.c_void_p), ("status", ctypes.c_ubyte), ("masked", ctypes.c_ubyte),
                ("message", ctypes.c_ubyte), ("sense_length", ctypes.c_ubyte), ("host_status", ctypes.c_ushort),
                ("driver_status", ctypes.c_ushort), ("residual", ctypes.c_int), ("duration", ctypes.c_uint), ("info", ctypes.c_uint)]


class SgNexus(Nexus):
    """A block or sg node."""

    def __init__(self, path, timeout=10.0):
        super().__init__(path)
        self.timeout = int(timeout * 1000)
        self.fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def close(self):
        os.close(self.fd)

    def execute(self, cdb, data_out=b"", length_in=0):
        length = len(data_out) or length_in
        data = ctypes.create_string_buffer(bytes(data_out) or bytes(max(length, 1)), max(length, 1))
        command, sense = ctypes.create_string_buffer(cdb, len(cdb)), ctypes.create_string_buffer(96)
        direction = -2 if data_out else -3 if length_in else -1
        header = _SgIoHeader(interface_id=ord("S"), direction=direction, cdb_length=len(cdb), sense_max=96, length=length,
                             data=ctypes.addressof(data), cdb=ctypes.addressof(command), sense=ctypes.addressof(sense),
                             timeout=self.timeout)
        fcntl.ioctl(self.fd, 0x2285, header)
        if header.host_status:
            raise OSError(f"{self.name}: host status {header.host_status:#x}")
        received = data.raw[: length - max(header.residual, 0)] if length_in else b""
        return Answer(header.status & 0xFE, sense.raw[: header.sense_length], received)
