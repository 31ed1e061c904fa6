# SPDX-License-Identifier: LGPL-2.1-or-later
"""Three hosts, a judge and one VM.

    a, b, c   hosts: each has a nexus of its own to every LU (and a second one to the third LU), a message bus, a pr-helper
    judge     a third node of the guest's cluster, on an initiator that shares no code with holdfast: registered with a key of its
              own, it reads what the LU holds and what the guest wrote, and it is the one who fences
    the VM    disk 0: LU 1; disk 1: LU 2; disks 2 and 3: the two paths of LU 3
"""

import json
import os
import shutil
import signal
import struct
import subprocess
import time

from harness.nexus import CONFLICT, GOOD, PREEMPT, REGISTER, REGISTER_AND_IGNORE, RESERVE
from harness.tap import Failure, check, check_equal
from harness.target_lio import LoopTarget

from .processes import LIMIT, Bus, Helper, Qemu, connect, wait_until

FOLDER = "/run/lab/migrate"
HOSTS = ("a", "b", "c")
K, KX = 0xABC, 0xD00D
ALL_REGISTRANTS = (7, 8)
TYPES = (1, 3, 5, 6, 7, 8)
EBADE = 52  # what a writer in the guest gets for RESERVATION CONFLICT
RATE = 20   # writes a second, at least
TICKS = 40  # a second, of a guest that gets its processor's time; it tries to make 50
STARVED_MAX = 4  # less of it is excused no more
MEGABYTES = 64
BOOT_LIMIT = 150
LOOK_INSIDE = 0.1  # between two questions to the guest, which has to do something else: an answer on its serial line is hard work

# LU number and which of a host's nexuses, for each disk of the VM.
DISKS = ((1, ""), (2, ""), (3, ""), (3, "2"))
TWO_PATHS = (2, 3)
# Not SIGABRT, which is how QEMU objects to a helper's answer.
FAULTS = (signal.SIGSEGV, signal.SIGILL, signal.SIGBUS, signal.SIGFPE)


def prepare_root(folder):
    """What a program that runs there by chroot sees of the machine: all but its own files."""
    for name in ("dev", "proc", "sys", "run", "tmp"):
        if not os.path.ismount(f"{folder}/{name}"):
            subprocess.run(["mount", "--rbind", f"/{name}", f"{folder}/{name}"], check=True)


class GuestSilent(Failure):
    """The guest gave no answer; question: to what."""

    def __init__(self, question, error):
        super().__init__(f"the guest says nothing: {error}")
        self.question = question


class Agent:
    """The guest, on its second serial line: tests/migrate/agent.c."""

    def __init__(self, qemu):
        self.socket = wait_until(lambda: connect(qemu.agent_path), "the guest's serial line")
        self.socket.settimeout(LIMIT)
        self.file, self.question = self.socket.makefile("r"), "start"

    def line(self):
        try:
            line = self.file.readline().strip()
        except OSError as error:
            raise GuestSilent(self.question, error) from None
        check(line.startswith(("ok", "ready")), f"the guest says {line!r}")
        return line.split()[1:]

    def call(self, text):
        self.question = text
        self.socket.sendall(text.encode() + b"\n")
        return self.line()

    def close(self):
        self.socket.close()

    # Forms of it

    def pr_out(self, disk, action, key=0, new_key=0, type=0):
        """The status; a unit attention is consumed and the command sent again, as any initiator does."""
        for _ in range(8):
            status, sense = self.call(f"pr {disk} {action} {type} {key:x} {new_key:x}")
            if not sense.startswith("6/"):
                break
        return int(status, 16) if status != "02" else sense

    def stat(self, disk, verb="stat"):
        return {name: int(value) for name, value in (word.split("=") for word in self.call(f"{verb} {disk}"))}

    def failures(self, disk):
        """[(number, errno, ms)]"""
        return [tuple(int(part) for part in word.split(":")) for word in self.call(f"failures {disk}")]


class Host:
    """What stands on one machine."""

    def __init__(self, world, name):
        self.world, self.name = world, name
        self.folder = f"{FOLDER}/{name}"
        os.makedirs(self.folder)
        self.socket_path, self.qmp_path = f"{self.folder}/pr.sock", f"{self.folder}/qmp"
        self.control_path, self.state_dir = f"{self.folder}/control.sock", f"{self.folder}/state"
        self.fail_log = f"{self.folder}/points"
        self.disks = [world.target.device(name + path, lu) for lu, path in DISKS]
        self.bus = Bus(self.folder)
        self.helper, self.ordinary = None, True

    def start_helper(self, fail=None, stock=False, with_qmp=None):
        """A new helper; with a VM here, it finds it in its journal. fail: HOLDFAST_FAIL, until it dies of it. with_qmp: only this time
        another way than the rest."""
        self.ordinary = with_qmp is None
        self.end_helper()
        if stock:
            self.helper = Helper("qemu-pr-helper", [], self.folder, self.socket_path, self.socket_path)
            return
        arguments = ["-v", "--state-dir", self.state_dir, "--vmstate-bus", self.bus.address, "--control", self.control_path,
                     "--sandbox", "on"]
        if self.world.with_qmp if with_qmp is None else with_qmp:
            arguments += ["--qmp", self.qmp_path]
        os.makedirs(self.state_dir, exist_ok=True)
        open(self.fail_log, "w").close()
        self.helper = Helper(self.world.program, arguments, self.folder, self.socket_path, self.control_path, fail, self.fail_log)
        self.bus.wait_name()

    def end_helper(self):
        helper, self.helper = self.helper, None
        try:
            if helper:
                helper.end()
        except Failure as failure:
            self.world.complaints.append(f"host {self.name}: {failure}")

    def points(self):
        with open(self.fail_log) as file:
            return file.read().split()

    def ask(self, method, **params):
        """One call on the helper's control socket."""
        connection = wait_until(lambda: connect(self.control_path), "the control socket")
        connection.settimeout(LIMIT)
        with connection, connection.makefile("rw") as file:
            file.readline()  # the greeting
            file.write(json.dumps({"id": 1, "method": method, "params": params}) + "\n")
            file.flush()
            reply = json.loads(file.readline())
        check("result" in reply, f"{method} on host {self.name}: {reply}")
        return reply["result"]

    def vm(self, pid):
        """What the helper knows of the VM that is this process, or None."""
        return next((vm for vm in self.ask("list")["vms"] if vm["pid"] == pid), None)

    def await_load(self, pid):
        """The helper has answered Load of the VM that is this process."""
        wait_until(lambda: (vm := self.vm(pid)) and vm["phase"] != "loading" and vm["counters"]["loads"],
                   lambda: f"an answer to Load: {self.vm(pid)}")


class World:
    def __init__(self, program, note):
        self.note = note
        os.makedirs(FOLDER)
        for name in ("GUEST_KERNEL", "GUEST_INITRD"):
            os.environ[name] = shutil.copy(os.environ[name], FOLDER)
        self.program = shutil.copy(program, FOLDER)
        nexuses = [name + path for name in HOSTS for path in ("", "2")] + ["judge"]
        self.target = LoopTarget(nexuses, n_luns=3, megabytes=MEGABYTES)
        self.judges = {lu: self.target.nexus("judge", lu) for lu in (1, 2, 3)}
        self.nexus_of = {self._transport_id(name): name for name in nexuses}
        self.next_number = {disk: 1 + 30000 * (disk == 3) for disk in range(len(DISKS))}
        self.first_number, self.writing, self.complaints = {}, set(), []
        self.stopped_ms = self.n_stops = 0  # for how long migrations stopped the VM
        self.with_qmp, self.stock = True, False
        self.version, self.scsi_block = None, ""
        self.hosts = {name: Host(self, name) for name in HOSTS}
        self.qemu = self.agent = self.host = None
        self.others = []  # QEMUs that are not the VM's: destinations that wait, sources that are done

    def _transport_id(self, name):
        judge, nexus = self.judges[1], self.target.nexus(name, 1)
        judge.wipe()
        check_equal(nexus.command(struct.pack(">BBB2xIx", 0x5F, REGISTER_AND_IGNORE, 0, 24), struct.pack(">QQ8x", 0, K)).status, GOOD,
                    f"{name} registers to be seen")
        found = judge.full_status()[0][3]
        nexus.close()
        judge.wipe()
        return found

    # The VM

    def use(self, version=None, scsi_block="", with_qmp=True, stock=False):
        """From now on: this QEMU, these properties of its disks, helpers with a monitor or without, or QEMU's own. A VM that runs
        stays if it can."""
        if version != self.version or scsi_block != self.scsi_block:
            self.power_off()
        self.version, self.scsi_block, self.with_qmp, self.stock = version, scsi_block, with_qmp, stock
        if version:
            prepare_root(version)
        self.end_helpers()

    def end_helpers(self):
        for host in self.hosts.values():
            host.end_helper()

    def check_helpers(self):
        """How all helpers of the suite ended."""
        self.end_helpers()
        check(not self.complaints, f"{len(self.complaints)} helpers did not live or end as they should", *self.complaints[:3])

    def new_qemu(self, name, **named):
        host = self.hosts[name]
        return Qemu(host, self.version, scsi_block=self.scsi_block, vmstate=not self.stock, **named)

    def boot(self, name):
        self.power_off()
        self.blank_disks()
        self.qemu, self.writing = self.new_qemu(name), set()
        self.host = self.hosts[name]
        self.agent = Agent(self.qemu)
        self.agent.socket.settimeout(BOOT_LIMIT)
        check_equal(self.agent.line(), [str(len(DISKS))], "disks of the guest")

    def blank_disks(self):
        """What a guest wrote that nobody could ask for its numbers is no number of the next one."""
        for disk in self.target.disks:
            path = f"/run/lab/{os.path.basename(disk)}"
            os.truncate(path, 0)
            os.truncate(path, MEGABYTES << 20)

    def crashed(self):
        """Why QEMU ended, if it did so by a fault of its processor's; or None."""
        for qemu in [*self.others, self.qemu]:
            if qemu and -(qemu.ended() or 0) in FAULTS:
                return f"{qemu.name} ended by {signal.Signals(-qemu.process.returncode).name}"
        return None

    def moved(self, qemu):
        """The VM is the one in qemu now."""
        if self.agent:
            self.agent.close()
        self.qemu, self.host = qemu, qemu.host
        self.agent = Agent(qemu)

    def power_off(self):
        for qemu in [*self.others, self.qemu]:
            if qemu:
                qemu.kill()
                qemu.qmp.close()
        self.others, self.qemu = [], None
        if self.agent:
            self.agent.close()
        self.agent = None

    def other(self):
        return next(host for host in self.hosts.values() if host is not self.host)

    def well(self):
        """The VM runs and its guest answers."""
        try:
            return bool(self.qemu and self.qemu.alive() and self.qemu.running() and self.agent.call("uptime"))
        except Failure:
            return False

    def fresh(self):
        """Before each case: a VM that runs, helpers without orders to fail, LUs without reservations."""
        for qemu in self.others:
            qemu.kill()
        self.others = []
        for host in self.hosts.values():
            if not host.helper or not host.ordinary or host.helper.env.get("HOLDFAST_FAIL"):
                host.start_helper(stock=self.stock)
            host.helper.set_mark()
        if not self.well():
            self.boot("a")
        self.agent.call("quiet")
        for disk in self.writing:
            self.next_number[disk] = self.agent.stat(disk)["next"]
        self.writing = set()
        for disk in range(len(DISKS)):
            self.agent.call(f"ready {disk}")
            check_equal(self.agent.pr_out(disk, REGISTER_AND_IGNORE), GOOD, f"the guest unregisters on disk {disk}")
        for judge in self.judges.values():
            judge.wipe()
            judge.unit_attentions.clear()
        for disk in range(len(DISKS)):
            self.agent.call(f"ready {disk}")
        if not self.stock and not self.qemu.vmstate:
            self.migrate()  # out of a QEMU that has no place for holdfast in its stream, into one that has

    # What the guest does

    def register(self, disk=0, key=K):
        check_equal(self.agent.pr_out(disk, REGISTER_AND_IGNORE, new_key=key), GOOD, f"the guest registers on disk {disk}")

    def reserve(self, type, disk=0, key=K):
        """The guest registers and reserves; the judge is registered too, as a node of its cluster."""
        check_equal(self.judge(disk).pr_out(REGISTER_AND_IGNORE, new_key=KX).status, GOOD, "the judge registers")
        self.register(disk, key)
        if type:
            check_equal(self.agent.pr_out(disk, RESERVE, key=key, type=type), GOOD, f"the guest reserves type {type} on disk {disk}")

    def start_writing(self, *disks):
        self.stopped_ms = self.n_stops = 0
        for disk in disks or (0,):
            self.writing.add(disk)
            self.first_number[disk] = self.next_number[disk]
            self.agent.call(f"start {disk} {self.next_number[disk]}")

    def await_writes(self, count=RATE, disk=0, what="good"):
        """count more writes than now."""
        before = self.agent.stat(disk)[what]
        wait_until(lambda: self.agent.stat(disk)[what] >= before + count, lambda: f"{count} more {what} writes: {self.agent.stat(disk)}",
                   look=LOOK_INSIDE)

    def stop_writing(self, disk=0):
        """(what the writer counted, its failures); what is on the disk was compared with it."""
        stat, failures = self.agent.stat(disk, "stop"), self.agent.failures(disk)
        self.writing.discard(disk)
        self.next_number[disk] = stat["next"]
        # How much of the time for which the VM was stopped its clock has counted is known only to be at most its longest pause.
        stopped = min(self.stopped_ms, self.n_stops * stat["longest_ms"])
        seconds = (stat["now_ms"] - stat["begin_ms"] - stopped) / 1000
        attempts, ticks = stat["good"] + stat["failed"], stat["ticks"]
        self.note(f"{attempts / max(seconds, 0.001):.0f} writes and {ticks / max(seconds, 0.001):.0f} ticks a second")
        # On a machine that is busy with other things the guest can do less, whatever a helper does.
        starved = min(max(TICKS * seconds / max(ticks, 1), 1), STARVED_MAX)
        check(attempts * starved >= RATE * seconds, f"the guest made {attempts} writes and {ticks} ticks in {seconds:.1f} s", stat)
        self._check_numbers(disk, stat, failures)
        return stat, failures

    def check_writes(self, *disks):
        """The writers stop, and not one write failed."""
        for disk in disks or (0,):
            stat, failures = self.stop_writing(disk)
            check_equal(stat["failed"], 0, f"failed writes on disk {disk} ({failures[:8]}, {stat})")
            check(stat["good"] >= RATE, f"writes on disk {disk}", stat)

    def _check_numbers(self, disk, stat, failures):
        """Block N holds N if and only if the guest was told that write N was good."""
        first, end = self.first_number[disk], stat["next"]
        found = self._read_numbers(disk, first, end)
        check_equal(len(found), stat["good"], f"numbers on disk {disk} from {first} to {end}")
        wrong = [failed for failed in failures if failed[0] in found]
        check(not wrong, f"failed writes that are on disk {disk}", wrong)
        check(stat["good"] == 0 or stat["last_good"] in found, f"the last good write is not on disk {disk}", stat)

    def _read_numbers(self, disk, first, end, step=128):
        judge, lu = self.judge(disk), DISKS[disk][0]
        data = b""
        for block in range(first, end, step):
            count = min(step, end - block)
            answer = judge.command(struct.pack(">BxI1xHx", 0x28, block, count), length_in=count * 512)
            if answer.status == CONFLICT:
                return self._parse(self._read_backing(lu, first, end), first)
            check_equal(answer.status, GOOD, f"the judge reads block {block}")
            data += answer.data
        return self._parse(data, first)

    @staticmethod
    def _read_backing(lu, first, end):
        """Type 3 lets nobody else read: then what the target itself has is looked at."""
        with open(f"/run/lab/disk{lu - 1}", "rb") as file:
            file.seek(first * 512)
            return file.read((end - first) * 512)

    @staticmethod
    def _parse(data, first):
        """The numbers N that stand in block N."""
        found = set()
        for number in range(first, first + len(data) // 512):
            magic, seen = struct.unpack_from("<8sQ", data, (number - first) * 512)
            if magic == b"holdfast" and seen == number:
                found.add(number)
        return found

    # Judging

    def judge(self, disk=0):
        return self.judges[DISKS[disk][0]]

    def holds(self, disk=0):
        """({nexus: key} without the judge, [nexuses that hold], type)"""
        judge = self.judge(disk)
        entries = [(self.nexus_of[entry[3]], entry[0], entry[1]) for entry in judge.full_status()]
        reservation = judge.reservation()
        return ({name: key for name, key, _ in entries if name != "judge"}, sorted(name for name, _, holder in entries if holder),
                reservation[1] if reservation else 0)

    def await_holder(self, type, *nexuses, disk=0, limit=LIMIT):
        """These nexuses and no other of the hosts are registered with K, and hold with this type."""
        holders = sorted([*nexuses, "judge"]) if type in ALL_REGISTRANTS else sorted(nexuses)[:1] if type else []
        expected = ({name: K for name in nexuses}, holders, type)

        def right():
            seen = self.holds(disk)
            if type and type not in ALL_REGISTRANTS and len(nexuses) > 1:  # any one of the VM's nexuses may be the holder
                return seen[0] == expected[0] and len(seen[1]) == 1 and seen[1][0] in nexuses and seen[2] == type
            return seen == expected

        wait_until(right, lambda: f"the LU of disk {disk} to hold {expected}; it holds {self.holds(disk)}", limit)
        self.judge(disk).unit_attentions.clear()

    def check_left(self, host, type, disk=0):
        """The nexus of a host where the VM is no more may not write."""
        nexus = self.target.nexus(host.name, DISKS[disk][0])
        nexus.drain()
        check_equal(nexus.write_block(b"left over").status, CONFLICT if type else GOOD, f"a write by host {host.name}")
        nexus.close()

    def fence(self, disk=0):
        """The judge takes the VM's key away and the reservation over, as a fence agent does."""
        judge = self.judge(disk)
        reservation = judge.reservation()
        answer = judge.pr_out(PREEMPT, key=KX, new_key=K, type=reservation[1] if reservation else 0)
        check_equal(answer.status, GOOD, "the judge fences")

    def check_fenced(self, disk=0):
        """K is nowhere, now and later; and the guest cannot write."""
        check_equal(self.holds(disk)[0], {}, "registrations of the VM, which was fenced")
        self.await_writes(10, disk, "failed")
        check_equal(self.holds(disk)[0], {}, "registrations of the VM a little later")
        check_equal({failure[1] for failure in self.agent.failures(disk)}, {EBADE}, "errors of the guest's writes")

    # Migrating

    def migrate(self, to=None, **named):
        """An undisturbed migration; the source's QEMU has quit when this returns."""
        return Migration(self, to, **named).start().completed()

    def story(self):
        """The logs since the case began, for a failure."""
        parts = []
        for host in self.hosts.values():
            if host.helper and host.helper.log():
                parts.append(f"--- helper of host {host.name}\n{host.helper.log()[-6000:]}")
        for qemu in [*self.others, self.qemu]:
            if qemu:
                parts.append(f"--- {qemu.name} on host {qemu.host.name} ({qemu.ended()})\n{qemu.log()[-1500:]}")
        return "\n".join(parts)


class Migration:
    """One attempt, from the host where the VM is to another."""

    def __init__(self, world, to=None, **named):
        self.world, self.source = world, world.qemu
        self.destination = world.new_qemu((to or world.other()).name, incoming=True, **named)
        world.others.append(self.destination)
        for qemu in (self.source, self.destination):
            qemu.set_capabilities(return_path=True, events=True)
        # On a machine that is slow or busy too, the second pass is the last.
        self.source.qmp("migrate-set-parameters", **{"downtime-limit": 5000, "max-bandwidth": 1 << 32})

    def start(self):
        uri = f"unix:{self.destination.folder}/incoming-{self.destination.name}"
        self.destination.qmp("migrate-incoming", uri=uri)
        self.source.qmp("migrate", uri=uri)
        return self

    def await_status(self, *wanted, limit=LIMIT):
        def status():
            seen = self.source.migration()
            check(seen in wanted or seen not in ("completed", "failed", "cancelled"), f"migration {seen}, expected {wanted}",
                  self.source.qmp("query-migrate"))
            return seen if seen in wanted else None

        return wait_until(status, f"migration {wanted}", limit)

    def completed(self, quit=True):
        self.await_status("completed")
        wait_until(self.destination.running, "the VM to run on the destination")
        self.world.stopped_ms += self.source.qmp("query-migrate").get("downtime", 0)
        self.world.n_stops += 1
        self.world.others.remove(self.destination)
        self.world.moved(self.destination)
        if quit:
            self.source.quit()
        else:
            self.world.others.append(self.source)
        return self

    def ended(self):
        """Whether it worked or not: how."""
        return self.await_status("completed", "failed", "cancelled")

    def failed(self, *statuses):
        """It did not come to be: the VM runs on the source, the destination has ended."""
        self.await_status(*(statuses or ("failed",)))
        wait_until(self.source.running, "the VM to run on the source")
        self.destination.end()
        self.world.others.remove(self.destination)
        return self
