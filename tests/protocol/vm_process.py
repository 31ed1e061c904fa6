#!/usr/bin/python3 -B
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A process that is a VM for the helper: it obeys JSON lines on standard input, and its process id is its own.

{"connect": PATH}                                    one more connection
{"open": FILE}                                       a device, as QEMU has it open
{"request": [CONNECTION, DEVICE, CDB, DATA], ...}    hexadecimal; answered with status, sense key, ASC and ASCQ, data
"""

import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from protocol.client import Client, Closed  # noqa: E402


def obey(words, connections, devices):
    if "connect" in words:
        connections.append(Client(words["connect"]))
        return {"connection": len(connections) - 1}
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
