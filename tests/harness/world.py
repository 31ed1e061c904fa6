# SPDX-License-Identifier: LGPL-2.1-or-later
"""Four nexuses of one LU and what the standard lets each of them do.

    source       a Host; the VM runs there: K registered, reservation of type T
    destination  a Host; the VM goes there
    third        an independent initiator with a key of its own: it interferes, and it judges by reading
    witness      an independent initiator that never registers: it judges by reads and writes of data
"""

import os
import tempfile

from .host import Host
from .nexus import CONFLICT, GOOD
from .tap import Failure, check, check_equal

K, KX, K2 = 0xABC, 0xD00D, 0xBEEF
NEXUSES = ("source", "destination", "third", "witness")
TYPES = (1, 3, 5, 6, 7, 8)


def is_all(type):
    return type in (7, 8)


def allowed(type, registered, holder, write):
    """SPC-4 table 62: may a nexus read or write while a reservation of this type is there? type 0: none."""
    if type == 0 or holder or (is_all(type) and registered):
        return True
    if type in (5, 6) and registered:
        return True
    return type in (1, 5, 7) and not write


# What a load of one LU ends with. An error has the code of the device's answer.
VERDICT_EXIT = {"moved": 0, "registered": 0, "unchanged": 0, "none": 0, "type-changed": 41, "released": 41, "preempted": 41,
                "fenced": 41, "ambiguous": 42, "occupied": 42}


class State:
    """What the LU should hold: registrations {name of a nexus: key}, extra keys of nexuses that are dead, and the holder."""

    def __init__(self, registered, type=0, holder=None, dead=()):
        self.registered, self.type, self.holder, self.dead = dict(registered), type, holder, list(dead)

    def keys(self):
        return sorted([*self.registered.values(), *self.dead])

    def reservation(self):
        if self.type == 0:
            return None
        return (0 if is_all(self.type) else self.registered[self.holder]), self.type

    def __str__(self):
        who = " ".join(f"{name}={key:#x}" for name, key in sorted(self.registered.items())) or "nobody"
        dead = f" dead={[hex(key) for key in self.dead]}" if self.dead else ""
        return f"[{who}{dead}, type {self.type} {self.holder or ''}]".replace(" ]", "]")


class World:
    """The four nexuses on LU number lun of target."""

    def __init__(self, target, lun=1, prefix="", env=None):
        self.target, self.lun, self.prefix = target, lun, prefix
        self.folder = tempfile.TemporaryDirectory(prefix="holdfast-world-")
        self.env = env
        self.source = self.destination = None
        self.state_dirs = {name: os.path.join(self.folder.name, f"state-{name}") for name in ("source", "destination")}
        self.third, self.witness = target.nexus(prefix + "third", lun), target.nexus(prefix + "witness", lun)
        self.source, self.destination = self.new_host("source"), self.new_host("destination")
        self.transport_ids = self._learn_transport_ids() if target.full_status else None
        self.n_records = 0

    def new_host(self, name):
        """A process for host name; on targets where a login is a new nexus, a new nexus."""
        return Host(name, self.target.host_options(self.prefix + name), self.state_dirs[name], self.env)

    def lu(self, name):
        return self.target.device(self.prefix + name, self.lun)

    def host(self, name):
        return {"source": self.source, "destination": self.destination}[name]

    def replace(self, name):
        """A host after a crash: the old process is gone, a new one starts."""
        self.host(name).kill()
        setattr(self, name, self.new_host(name))
        return self.host(name)

    def recover(self):
        """After a failed case: whatever the hosts are doing, they start anew."""
        for name in ("source", "destination"):
            self.replace(name)

    def close(self):
        failures = []
        for host in (self.source, self.destination):
            try:
                if host:
                    host.close()
            except Failure as failure:
                failures.append(str(failure))
        for nexus in (self.third, self.witness):
            nexus.close()
        self.folder.cleanup()
        if failures:
            raise Failure("\n".join(failures))

    def _learn_transport_ids(self):
        ids = {}
        self.reset()
        for name in ("source", "destination"):
            self.host(name).pr("register-ignore", self.lu(name), new_key=K2)
            ids[name] = [entry[3] for entry in self.third.full_status()][0]
            self.reset()
        self.third.pr_out(6, new_key=K2)
        ids["third"] = self.third.full_status()[0][3]
        self.reset()
        check_equal(len(set(ids.values())), 3, "every host has its own TransportID")
        return ids

    # Setting up

    def reset(self):
        """No registration, no reservation, no unit attention pending anywhere."""
        self.third.wipe(KX)
        for name in ("source", "destination"):
            self.host(name).call(f"status {self.lu(name)}")
        self.witness.drain()
        self.third.unit_attentions.clear()

    def set_up(self, type, third_registered=True):
        """The VM runs on the source with K and a reservation of type (0: none)."""
        self.reset()
        if third_registered:
            self.register_third()
        self.source.must(f"pr register-ignore --new-key {K:#x} {self.lu('source')}")
        if type:
            self.source.must(f"pr reserve --key {K:#x} --type {type} {self.lu('source')}")
        return self.save()

    def register_third(self):
        answer = self.third.pr_out(6, new_key=KX)
        check_equal(answer.status, GOOD, "the third party registers")

    def save(self, key=K, extra=""):
        self.n_records += 1
        path = os.path.join(self.folder.name, f"record-{self.n_records}")
        words = f"--key {key:#x} " if key is not None and not self.target.full_status else ""
        self.source.must(f"save {words}{extra} -o {path} {self.lu('source')}")
        return path

    # Judging

    def unit(self, reply, index=0):
        units = reply.get("units")
        if not units:
            raise Failure(f"the reply has no units: {reply}")
        return units[index]

    def check_verdict(self, reply, verdicts):
        """The verdict is one of verdicts and the exit code belongs to it. Returns the verdict."""
        verdict = self.unit(reply)["verdict"]
        check(verdict in verdicts, f"verdict {verdict}, expected {' or '.join(verdicts)}", reply)
        if verdict in VERDICT_EXIT:
            check_equal(reply["result"], VERDICT_EXIT[verdict], f"exit code of {verdict}")
        return verdict

    def check_state(self, state, probe=True):
        """The LU holds exactly state: by keys, reservation and (where the target has it) full status, then by data access."""
        picture = self.third.picture()
        check_equal(picture["keys"], state.keys(), f"keys, for {state}")
        check_equal(picture["reservation"], state.reservation(), f"reservation, for {state}")
        if self.transport_ids and not state.dead:
            listed = sorted((entry[3].hex(), entry[0], entry[1]) for entry in self.third.full_status())
            expected = sorted((self.transport_ids[name].hex(), key, is_all(state.type) or name == state.holder and state.type != 0)
                              for name, key in state.registered.items())
            check_equal(listed, expected, f"READ FULL STATUS, for {state}")
        self.check_access(state)
        if probe and state.type not in (5, 6, 7, 8):
            self._probe_registrations(state)

    def check_access(self, state):
        for name in ("source", "destination"):
            expected = tuple(allowed(state.type, name in state.registered, state.holder == name, write) for write in (False, True))
            check_equal(self.access(name), expected, f"{name} (reads, writes), for {state}")
        for write in (False, True):
            answer = self.witness.write_block(b"witness") if write else self.witness.read_block()
            expected = GOOD if allowed(state.type, False, False, write) else CONFLICT
            check_equal(answer.status, expected, f"unregistered witness {'writes' if write else 'reads'}, for {state}")

    def access(self, name):
        """(may read, may write) of host name's nexus. A second descriptor of a device node is the same nexus, so there the data goes
        past the program under test; a second login is not."""
        if not self.target.node_is_nexus:
            return self.host(name).access(self.lu(name))
        nexus = self.target.nexus(self.prefix + name, self.lun)
        try:
            answers = nexus.read_block().status, nexus.write_block(b"data").status
        finally:
            nexus.close()
        check(set(answers) <= {GOOD, CONFLICT}, f"{name}: data commands answered {answers}")
        return tuple(answer == GOOD for answer in answers)

    def _probe_registrations(self, state):
        """Keys do not say whose they are. A registrants-only reservation of the third party does: only the registered may write. This
        ends the case, because the reservation that was there goes."""
        third = self.third
        third.pr_out(6, new_key=KX)
        if state.type:
            # The holder's key goes, and with it the registration that is asked about; so type 1 and 3 are answered by access alone.
            return
        check_equal(third.pr_out(1, key=KX, type=5).status, GOOD, "the probe reserves")
        probe = State({**state.registered, "third": KX}, 5, "third")
        self.check_access(probe)

