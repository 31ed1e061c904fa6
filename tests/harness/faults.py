# SPDX-License-Identifier: LGPL-2.1-or-later
"""Death and misbehaviour at every point of the move.

First an undisturbed load writes down which points it reaches (HOLDFAST_FAIL_LOG); then each of them is the place where the process is
killed, or where the LU or the link misbehaves once.
"""

import os

from .host import HostDied
from .matrix import final_state, undisturbed_verdict
from .tap import Failure, check, check_equal
from .verdicts import load, source_only
from .world import K, KX, State, is_all

ANSWERS = ("unit-attention:2900", "unit-attention:2a03", "busy", "task-set-full", "conflict")
LOST = ("link", "timeout")


class PointLog:
    """The file behind HOLDFAST_FAIL_LOG, shared by all processes of a suite."""

    def __init__(self, path):
        self.path = path
        open(path, "a").close()
        self.env = {"HOLDFAST_FAIL_LOG": path}

    def mark(self):
        return os.path.getsize(self.path)

    def since(self, mark):
        with open(self.path) as file:
            file.seek(mark)
            return file.read().split()

    def names(self):
        return set(self.since(0))


def numbered(points):
    """["before-x", "before-x"] -> ["before-x#1", "before-x#2"]"""
    seen, result = {}, []
    for point in points:
        seen[point] = seen.get(point, 0) + 1
        result.append(f"{point}#{seen[point]}")
    return result


def points_of_load(world, log, type):
    record = world.set_up(type)
    mark = log.mark()
    world.check_verdict(load(world, record), [undisturbed_verdict(type)])
    points = log.since(mark)
    check(any("journal" in point for point in points) and any("register" in point for point in points), "the load met its points", points)
    return numbered(points)


def _killed(world, record, point, verb, host):
    """Runs verb with a kill at point. True: it died there; False: it ended before."""
    try:
        reply = world.host(host).call(f"{verb} -i {record} {world.lu(host)}", fail=f"{point}=kill")
    except HostDied as died:
        check_equal(died.signal, 9, f"the signal that ended {verb} at {point}")
        return True
    raise Failure(f"{verb} was not killed at {point}: {reply}")


def _dead_keys(world, expected_keys):
    """On a target where a login is a new nexus a dead process' registration stays until it is preempted. Returns those keys."""
    if world.target.login_keeps_nexus:
        return []
    keys = list(world.third.keys()[1])
    for key in expected_keys:
        if key in keys:
            keys.remove(key)
    return [key for key in keys if key == K]


def kill_and_load(world, type, point):
    """Killed at point; a new process runs load again: the state of an undisturbed move."""
    record = world.set_up(type)
    _killed(world, record, point, "load", "destination")
    picture = world.third.picture()
    check(K in picture["keys"], f"after a kill at {point} K is gone", picture)
    world.replace("destination")
    reply = load(world, record)
    world.check_verdict(reply, [undisturbed_verdict(type), "unchanged"])
    state = final_state(type, third=True)
    state.dead = _dead_keys(world, state.keys())
    check(len(state.dead) <= (1 if type == 0 or is_all(type) else 0), f"registrations of dead nexuses after a kill at {point}", state)
    world.check_state(state)


def kill_and_reclaim(world, type, point):
    """Killed at point; the migration is given up and the source takes back what it had."""
    record = world.set_up(type)
    _killed(world, record, point, "load", "destination")
    world.replace("destination")
    reply = world.source.call(f"reclaim -i {record} {world.lu('source')}")
    check_equal(reply["result"], 0, f"exit code of reclaim after a kill at {point} ({reply})")
    # What the dead load registered is removed by the destination, or stays with its dead nexus.
    world.destination.call(f"release -i {record} {world.lu('destination')}")
    state = source_only(world, type)
    state.dead = _dead_keys(world, state.keys())
    check(len(state.dead) <= 1, f"registrations of dead nexuses after a kill at {point}", state)
    world.check_state(state)


def kill_in_reclaim(world, type, log):
    """reclaim itself is killed at each of its points and run again."""
    def moved():
        record = world.set_up(type)
        world.check_verdict(load(world, record), [undisturbed_verdict(type)])
        return record

    record, mark = moved(), log.mark()
    world.source.must(f"reclaim -i {record} {world.lu('source')}")
    points = numbered(log.since(mark))
    for point in points:
        record = moved()
        _killed(world, record, point, "reclaim", "source")
        check(K in world.third.keys()[1], f"after a kill of reclaim at {point} K is gone")
        world.replace("source")
        reply = world.source.call(f"reclaim -i {record} {world.lu('source')}")
        check_equal(reply["result"], 0, f"exit code of reclaim after its own kill at {point} ({reply})")
        if type == 0 or is_all(type):
            world.destination.call(f"release -i {record} {world.lu('destination')}")
        state = source_only(world, type)
        state.dead = _dead_keys(world, state.keys())
        world.check_state(state)
    return len(points)


def fenced_after_kill(world, point):
    """Killed with a REGISTER on its way, then fenced, then run again: no resurrection."""
    record = world.set_up(5)
    _killed(world, record, point, "load", "destination")
    check_equal(world.third.pr_out(4, key=KX, new_key=K, type=5).status, 0, "the fencing PREEMPT")
    world.replace("destination")
    reply = load(world, record)
    world.check_verdict(reply, ["fenced"])
    world.check_state(State({"third": KX}, 5, "third"))


def inject(world, type, point, action):
    """The LU or the link misbehaves once at point: the final state, or a clean error with nothing lost; then a second load works."""
    where = f"{action} at {point}"
    record = world.set_up(type)
    reply = load(world, record, fail=f"{point}={action}")
    picture = world.third.picture()
    check(K in picture["keys"], f"{where}: K is lost", picture, reply)
    if type:
        check_equal(picture["reservation"], ((0 if is_all(type) else K), type), f"{where}: the reservation")
    if reply["result"] != 0:
        check(world.unit(reply)["error"] and world.unit(reply)["error"]["text"], f"{where}: an error says why", reply)
        # A conflict is an answer with a meaning: to REGISTER, that this nexus has another key; to PREEMPT, that it has none, and that
        # the K that is listed is a stranger's. Both are refusals that change nothing.
        told = ("error", "occupied", "ambiguous") if action == "conflict" else ("error",)
        check(world.unit(reply)["verdict"] in told, f"{where}: verdict {world.unit(reply)['verdict']}", reply)
        reply = load(world, record)
    world.check_verdict(reply, [undisturbed_verdict(type), "unchanged"])
    state = final_state(type, third=True)
    state.dead = _dead_keys(world, state.keys())
    check(len(state.dead) <= (1 if type == 0 or is_all(type) else 0), f"{where}: registrations of dead nexuses", state)
    world.check_state(state)


def _each(items, function, *arguments):
    """function for every item; all failures in one."""
    failures, count = [], 0
    for item in items:
        count += 1
        try:
            function(*arguments, *(item if isinstance(item, tuple) else (item,)))
        except (Failure, HostDied) as failure:
            failures.append(f"{item}: {failure}")
            arguments[0].recover()
    check(count > 0, "nothing was tried")
    if failures:
        raise Failure(f"{len(failures)} of {count} failed\n" + "\n".join(failures[:4]))


def run_kills(tap, world, log, types):
    name = world.target.name
    for type in types:
        points = points_of_load(world, log, type)
        tap.case(f"{name} type {type}: SIGKILL at each of {len(points)} points, load again", _each, points, kill_and_load, world, type)
        tap.case(f"{name} type {type}: SIGKILL at each of {len(points)} points, reclaim", _each, points, kill_and_reclaim, world, type)
        tap.case(f"{name} type {type}: SIGKILL at each point of reclaim, reclaim again", kill_in_reclaim, world, type, log)
    if 5 not in types:
        return
    points = [point for point in points_of_load(world, log, 5) if "take-over" not in point]
    tap.case(f"{name}: SIGKILL, then fenced, then load again", _each, points, fenced_after_kill, world)


def run_injections(tap, world, log, types, answers=ANSWERS, lost=LOST):
    name = world.target.name
    for type in types:
        points = [point for point in points_of_load(world, log, type) if "journal" not in point]
        before = [point for point in points if point.startswith("before-")]
        after = [point for point in points if point.startswith("after-")]
        for action in answers:
            tap.case(f"{name} type {type}: {action} at each of {len(before)} commands",
                     _each, [(point, action) for point in before], inject, world, type)
        for action in lost:
            both = [(point, action) for point in [*before, *after]]
            tap.case(f"{name} type {type}: {action} before and after each of {len(before)} commands", _each, both, inject, world, type)
