#!/usr/bin/python3 -B
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A process that is a VM for the helper: it obeys JSON lines on standard input, and its process id is its own.

{"connect": PATH}                                    one more connection
{"open": FILE}                                       a device, as QEMU has it open
{"close": DEVICE}                                    an unplugged one
{"qmp": PATH}                                        a monitor that listens there
{"status": STATUS}                                   what query-status answers from now on
{"asked": true}                                      how often it was asked
{"crowd": NUMBER, "path": PATH}                      so many processes that connect, disconnect and stay while this one does
{"event": NAME, "data": {...}}                       to all who are connected to the monitor
{"request": [CONNECTION, DEVICE, CDB, DATA], ...}    hexadecimal; answered with status, sense key, ASC and ASCQ, data
"""

import contextlib
import json
import os
import socket
import sys
import threading

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from protocol.client import Client, Closed  # noqa: E402


class Monitor:
    """QMP as far as the helper speaks it: the greeting, query-status, success for every other command, events."""

    greeting = {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""}, "capabilities": []}}

    def __init__(self):
        self.status, self.asked = "inmigrate", 0
        self.lock, self.peers = threading.Lock(), []

    def listen(self, path):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen()
        threading.Thread(target=self.accept, args=(listener,), daemon=True).start()

    def accept(self, listener):
        while True:
            peer = listener.accept()[0]
            threading.Thread(target=self.serve, args=(peer,), daemon=True).start()

    def answer(self, command):
        result = {}
        if command.get("execute") == "query-status":
            self.asked += 1
            result = {"status": self.status, "running": self.status == "running", "singlestep": False}
        return {"return": result, **({"id": command["id"]} if "id" in command else {})}

    def serve(self, peer):
        def say(message):
            peer.sendall(json.dumps(message).encode() + b"\r\n")
        with self.lock:
            say(self.greeting)
            self.peers.append(say)
        with contextlib.suppress(OSError):
            for line in peer.makefile("rb"):
                with self.lock:
                    say(self.answer(json.loads(line)))

    def tell(self, event, data):
        told = 0
        with self.lock:
            for say in self.peers:
                with contextlib.suppress(OSError):
                    say({"event": event, "data": data, "timestamp": {"seconds": 1, "microseconds": 1}})
                    told += 1
        return told


monitor = Monitor()


def obey_monitor(words):
    """The answer, or None: it is not for the monitor."""
    if "qmp" in words:
        monitor.listen(words["qmp"])
        return {}
    if "status" in words:
        monitor.status = words["status"]
        return {}
    if "asked" in words:
        return {"asked": monitor.asked}
    if "event" in words:
        return {"told": monitor.tell(words["event"], words.get("data", {}))}
    return None


def crowd(number, path):
    """How many have done it. They end when the last descriptor that this process has of the pipe is closed."""
    stays, ends = os.pipe()
    told, tells = os.pipe()
    for _ in range(number):
        if os.fork() == 0:
            os.close(ends)
            Client(path).close()
            os.write(tells, b".")
            os.read(stays, 1)
            os._exit(0)
    left = 0
    while left < number:
        left += len(os.read(told, number))
    return left


def obey(words, connections, devices):
    answer = obey_monitor(words)
    if answer is not None:
        return answer
    if "connect" in words:
        connections.append(Client(words["connect"]))
        return {"connection": len(connections) - 1}
    if "crowd" in words:
        return {"left": crowd(words["crowd"], words["path"])}
    if "close" in words:
        os.close(devices[words["close"]])
        return {}
    if "open" in words:
        devices.append(os.open(words["open"], os.O_RDWR | os.O_CLOEXEC))
        return {"device": len(devices) - 1}
    connection, device, cdb, data = words["request"]
    try:
        reply = connections[connection].request(devices[device], bytes.fromhex(cdb), bytes.fromhex(data))
    except Closed:
        return {"closed": True}
    return {"status": reply.status, "code": reply.code, "data": reply.data.hex()}


def main():
    connections, devices = [], []
    for line in sys.stdin:
        print(json.dumps(obey(json.loads(line), connections, devices)), flush=True)


if __name__ == "__main__":
    main()
