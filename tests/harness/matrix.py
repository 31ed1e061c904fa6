# SPDX-License-Identifier: LGPL-2.1-or-later
"""The matrix: reservation type x third party's action x the gap before every command of the move.

The load stops itself (SIGSTOP) before its Nth SCSI command; the action happens while it stands; then it goes on. N grows until a load
ends without having stopped, so every gap was met. What the LU must hold then follows from rules, not from the program's plan:

    nothing lost         the VM's key stays visible while nobody takes it, the reservation too; at the end the destination has both
    nothing resurrected  after a PREEMPT of K or a CLEAR no nexus of ours is registered, and stays so
    others untouched     the third party's registration and what it holds are as it left them
    no false word        the verdict and the exit code say what the LU shows
"""

from .host import STOPPED, HostDied
from .tap import Failure, check, check_equal
from .world import K, KX, TYPES, State, is_all

ACTIONS = ("none", "preempt", "clear", "register", "change-type", "unregister")
# On targets that can abort: LIO over iSCSI (target-limits.tsv).
ACTIONS_ABORT = ("preempt-abort",)
GAPS_MAX = 60

# The type that change-type changes to: each into another kind. 7 and 8 are changed by the third party, a holder like all registrants.
OTHER_TYPE = {0: 5, 1: 6, 3: 1, 5: 7, 6: 5, 7: 8, 8: 7}
# The type of the fencing node's reservation. For 7 and 8 the same type: with another one LIO makes it a reservation of the CDB's TYPE.
FENCE_TYPE = {0: 5, 1: 3, 3: 1, 5: 6, 6: 5, 7: 7, 8: 8}


def final_state(type, third, source_left=None):
    """The LU after an undisturbed move. third: its registration is there. source_left: the source is still registered."""
    if source_left is None:
        source_left = type == 0 or is_all(type)
    registered = {"destination": K}
    if source_left:
        registered["source"] = K
    if third:
        registered["third"] = KX
    return State(registered, type, "destination" if type else None)


def undisturbed_verdict(type):
    return "moved" if type else "registered"


class Case:
    """One type, one action, one gap."""

    def __init__(self, world, type, action, gap):
        self.world, self.type, self.action, self.gap = world, type, action, gap
        self.third_registered = action != "register"

    def run(self):
        """False when the load ended before the gap was reached."""
        world = self.world
        record = world.set_up(self.type, self.third_registered)
        world.destination.send(f"load -i {record} {world.lu('destination')}", fail=f"before-command#{self.gap}=stop")
        reply = world.destination.wait()
        stopped = reply is STOPPED
        try:
            self.before = world.third.picture()
            if stopped:
                self._check_nothing_lost()
                getattr(self, "_act_" + self.action.replace("-", "_"))()
        finally:
            if stopped:
                world.destination.resume()
        if stopped:
            reply = world.destination.receive()
        self._judge(reply, stopped)
        if not stopped and self.action == "none":
            self._release(record)
        return stopped

    def _check_nothing_lost(self):
        """At every instant of the move: K on one of our nexuses, and no moment without the reservation."""
        check(K in self.before["keys"], "K is not visible in the gap", self.before)
        if self.type:
            expected = (0 if is_all(self.type) else K), self.type
            check_equal(self.before["reservation"], expected, "the reservation in the gap")

    # The actions. Each asserts that it really happened, or that the LU refused it as it must.

    def _act_none(self):
        pass

    def _act_preempt(self):
        self._third_does("PREEMPT", action=4, key=KX, new_key=K, type=FENCE_TYPE[self.type])

    def _act_preempt_abort(self):
        self._third_does("PREEMPT AND ABORT", action=5, key=KX, new_key=K, type=FENCE_TYPE[self.type])

    def _act_clear(self):
        self._third_does("CLEAR", action=3, key=KX)

    def _act_register(self):
        self._third_does("REGISTER", action=0, key=0, new_key=KX)

    def _act_change_type(self):
        new = OTHER_TYPE[self.type]
        if is_all(self.type):
            self._third_does("RELEASE", action=2, key=KX, type=self.type)
            self._third_does("RESERVE", action=1, key=KX, type=new)
        else:
            lu = self.world.lu("source")
            if self.type:
                self.world.source.pr_repeated("release", lu, key=K, type=self.type)
            self.world.source.pr_repeated("reserve", lu, key=K, type=new)
        # Once the source's registration is gone it can change nothing: that gap is an undisturbed one.
        picture = self.world.third.picture()
        self.changed = picture["reservation"] == ((0 if is_all(new) else K), new)
        if not self.changed:
            check_equal(picture["reservation"], self.before["reservation"], "the reservation after a change that was refused")

    def _act_unregister(self):
        self.world.source.pr_repeated("register", self.world.lu("source"), key=K, new_key=0)
        self.left = len(self.world.third.keys()[1]) < len(self.before["keys"])

    def _third_does(self, what, **arguments):
        answer = self.world.third.pr_out(**arguments)
        check_equal(answer.status, 0, f"the third party's {what} in the gap")

    # The judgement

    def _judge(self, reply, stopped):
        expected = self._expected(stopped)
        told = reply["units"][0]["verdict"] if reply.get("units") else None
        states = [state for verdict, state in expected if verdict == told]
        now = self.world.third.picture()
        if not states:
            wanted = " or ".join(sorted({verdict for verdict, _ in expected}))
            raise Failure(f"expected {wanted}\n  before the action {self.before}\n  now {now}\n  {reply}")
        # Where two states are right, keys and reservation say which one is judged.
        fitting = [state for state in states if (state.keys(), state.reservation()) == (now["keys"], now["reservation"])]
        try:
            self.world.check_verdict(reply, [told])
            self.world.check_state((fitting or states)[0])
        except Failure as failure:
            raise Failure(f"{failure}\n  verdict {told}\n  before the action {self.before}\n  {reply}") from None

    def _expected(self, stopped):
        """[(verdict, State)]: more than one where the action meets a command on its way and either order is right."""
        type = self.type
        undisturbed = [(undisturbed_verdict(type), final_state(type, third=self.third_registered))]
        if not stopped or self.action == "none":
            return undisturbed
        return getattr(self, "_expected_" + self.action.replace("-", "_"))(undisturbed)

    def _expected_preempt(self, _):
        taken = FENCE_TYPE[self.type] if self.type else 0
        fenced = [("fenced", State({"third": KX}, taken, "third" if taken else None))]
        if self.world.target.name == "tgt" and is_all(self.type):
            # tgt goes on using the record of the registration that it freed (target-limits.tsv): the reservation may end by itself.
            fenced.append(("fenced", State({"third": KX})))
        return fenced

    _expected_preempt_abort = _expected_preempt

    def _expected_clear(self, _):
        return [("fenced", State({}))]

    def _expected_register(self, _):
        return [(undisturbed_verdict(self.type), final_state(self.type, third=True))]

    def _expected_change_type(self, undisturbed):
        type, new = self.type, OTHER_TYPE[self.type]
        if not self.changed:
            return undisturbed
        changed = [("type-changed", final_state(new, third=True))]
        if is_all(new) and not is_all(type):
            # A PREEMPT that was on its way to a holder meets all registrants: it removes the source as well (SPC-4 5.13.11.3).
            changed.append(("type-changed", final_state(new, third=True, source_left=False)))
        # PREEMPT names the type that the last look showed. A change right between that look and the PREEMPT is overwritten by it.
        return changed + (undisturbed if type and not is_all(type) else [])

    def _expected_unregister(self, undisturbed):
        if not self.left:
            return undisturbed
        fenced = ("fenced", State({"third": KX}, self.type if is_all(self.type) else 0, "third" if is_all(self.type) else None))
        if self.before["keys"].count(K) < 2:
            return [fenced]
        # The destination is registered. Until that registration is verified the source's is the only proof that K was not fenced.
        kept_type = self.type if is_all(self.type) else 0
        kept = State({"destination": K, "third": KX}, kept_type, "destination" if kept_type else None)
        verdicts = ("moved", "unchanged") if is_all(self.type) else ("released",) if self.type else ("registered", "unchanged")
        return [fenced] + [(verdict, kept) for verdict in verdicts]

    # After an undisturbed move of a kind that leaves the source registered: the source removes itself.

    def _release(self, record):
        world = self.world
        if self.type and not is_all(self.type):
            return
        if self.type == 0:
            # The judgement ended with a reservation of the third party, which release must not mind.
            world.third.pr_out(2, key=KX, type=5)
        reply = world.source.call(f"release -i {record} {world.lu('source')}")
        check_equal((reply["result"], world.unit(reply)["verdict"]), (0, "unregistered"), "release on the source")
        world.check_state(final_state(self.type, third=True, source_left=False))


def run(tap, world, types=(0, *TYPES), actions=ACTIONS):
    """One TAP case for each type and action, with all its gaps. Returns the number of gaps."""
    total = 0

    def all_gaps(type, action):
        nonlocal total
        failures, gap = [], 1
        while gap < GAPS_MAX:
            total += 1
            try:
                if not Case(world, type, action, gap).run():
                    break
            except (Failure, HostDied) as failure:
                failures.append(f"type {type}, action {action}, before command {gap}:\n{failure}")
                world.recover()
            gap += 1
        check(gap > 3, f"only {gap - 1} commands were met: the load did not run")
        check(gap < GAPS_MAX, "the load never ended without a stop")
        if failures:
            raise Failure(f"{len(failures)} of {gap} gaps failed\n" + "\n".join(failures[:4]))

    for type in types:
        for action in actions:
            tap.case(f"{world.target.name} type {type or 'none'}, third party: {action}, at every gap", all_gaps, type, action)
    tap.note(f"{total} loads in the matrix")
    return total
