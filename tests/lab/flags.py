# SPDX-License-Identifier: LGPL-2.1-or-later
"""What only a target with READ FULL STATUS and APTPL can show: flags that survive the move, two paths, our registration found by our own
TransportID, devices found by identity."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from harness import suite  # noqa: E402
from harness.matrix import final_state, undisturbed_verdict  # noqa: E402
from harness.tap import check, check_equal  # noqa: E402
from harness.target_lio import LoopTarget  # noqa: E402
from harness.verdicts import load  # noqa: E402
from harness.world import K, KX, NEXUSES, State, World  # noqa: E402

APTPL_FOLDER = os.environ.get("LAB_APTPL", "/var/target/pr")


def ptpl_active(world):
    return bool(world.third.pr_in(2).data[3] & 1)


def aptpl_files():
    texts = []
    for name in os.listdir(APTPL_FOLDER):
        with open(os.path.join(APTPL_FOLDER, name)) as file:
            texts.append(file.read())
    return "".join(texts)


def check_aptpl(world, type, said):
    """The guest chose APTPL: PTPL_A is 1 before the move, after it and after the release, and the LU's file names the destination.
    said: save was told (--aptpl); else PTPL_A alone says so."""
    world.reset()
    world.register_third()
    world.source.must(f"pr register-ignore --aptpl --new-key {K:#x} {world.lu('source')}")
    if type:
        world.source.must(f"pr reserve --key {K:#x} --type {type} {world.lu('source')}")
    check(ptpl_active(world), "PTPL_A after the guest's REGISTER")
    record = world.save(extra="--aptpl" if said else "")
    world.check_verdict(load(world, record), [undisturbed_verdict(type)])
    check(ptpl_active(world), "PTPL_A after the move")
    address = world.transport_ids["destination"][4:12].hex()
    check(address in aptpl_files(), f"the APTPL file names the destination {address}", aptpl_files())
    world.source.call(f"release -i {record} {world.lu('source')}")
    check(ptpl_active(world), "PTPL_A after the release")
    world.check_state(final_state(type, third=True, source_left=False))


def check_no_aptpl(world):
    """The guest did not choose APTPL: neither does the move."""
    record = world.set_up(5)
    check(not ptpl_active(world), "PTPL_A before the move")
    world.check_verdict(load(world, record), ["moved"])
    check(not ptpl_active(world), "PTPL_A after the move")


def check_aptpl_back_out(world):
    """A move that is backed out unregisters, with APTPL, so the guest's choice stays."""
    world.reset()
    world.register_third()
    world.source.must(f"pr register-ignore --aptpl --new-key {K:#x} {world.lu('source')}")
    world.source.must(f"pr reserve --key {K:#x} --type 5 {world.lu('source')}")
    record = world.save(extra="--aptpl")
    # The LU stays busy from the first look behind the REGISTER on: nothing can be verified, the REGISTER is taken back.
    reply = world.destination.call(f"load --timeout 1500 -i {record} {world.lu('destination')}", fail="before-verify-register=busy")
    check(reply["result"] != 0, "a move that cannot be verified is no success", reply)
    check(ptpl_active(world), "PTPL_A after the back-out")
    world.check_state(State({"source": K, "third": KX}, 5, "source"))


def check_all_tg_pt(world):
    """ALL_TG_PT is replayed as the guest chose it."""
    world.reset()
    world.source.must(f"pr register-ignore --all-tg-pt --new-key {K:#x} {world.lu('source')}")
    world.source.must(f"pr reserve --key {K:#x} --type 5 {world.lu('source')}")
    record = world.save(extra="--all-tg-pt")
    reply = load(world, record)
    world.check_verdict(reply, ["moved"])
    listed = world.destination.call(f"pr read-full-status {world.lu('destination')}")["registrants"]
    mine = [entry for entry in listed if int(entry["key"], 16) == K]
    check(mine and all(entry["all_tg_pt"] for entry in mine), "the destination registered with ALL_TG_PT", listed)
    check_equal(world.destination.access(world.lu("destination")), (True, True), "destination")
    check_equal(world.source.access(world.lu("source")), (True, False), "source")


def check_save_finds_itself(world):
    """save without --key: the registration of our own TransportID, not another's with the same key, not another key."""
    world.set_up(5)
    path = os.path.join(world.folder.name, "own")
    reply = world.source.must(f"save -o {path} {world.lu('source')}")
    check_equal((reply["units"][0]["key"], reply["units"][0]["type"]), (f"{K:#x}", 5), "what the source holds")
    reply = world.destination.must(f"save -o {path} {world.lu('destination')}")
    check_equal(reply["units"][0]["key"], "0x0", "what the destination holds")


def check_two_paths(target, world):
    """A guest with two nexuses of one LU that share one key: both move, and no third one is touched."""
    world.reset()
    nodes = {name: target.device(name, 1) for name in ("source", "source-2", "destination", "destination-2")}
    for name in ("source-2", "destination-2"):
        world.host(name.split("-")[0]).call(f"status {nodes[name]}")
    world.register_third()
    for name in ("source", "source-2"):
        world.source.must(f"pr register-ignore --new-key {K:#x} {nodes[name]}")
    world.source.must(f"pr reserve --key {K:#x} --type 5 {nodes['source']}")
    path = os.path.join(world.folder.name, "two-paths")
    saved = world.source.must(f"save -o {path} {nodes['source']} {nodes['source-2']}")
    check_equal(len(saved["units"]), 1, "one LU, two nexuses")
    reply = world.destination.call(f"load -i {path} {nodes['destination']} {nodes['destination-2']}")
    world.check_verdict(reply, ["moved"])
    check_equal(world.third.picture()["reservation"], (K, 5), "the reservation")
    check_equal(world.third.keys()[1], [K, K, KX], "both nexuses of the destination, and the third party")
    for name, write in (("source", False), ("source-2", False), ("destination", True), ("destination-2", True)):
        check_equal(world.host(name.split("-")[0]).access(nodes[name]), (True, write), name)


def main(tap, log):
    target = LoopTarget((*NEXUSES, "source-2", "destination-2"), first_disk=40)
    world = World(target, env=log.env)
    for type in (0, 1, 5, 7):
        for said in (True, False):
            tap.case(f"APTPL, type {type}, {'save --aptpl' if said else 'PTPL_A only'}", check_aptpl, world, type, said)
    tap.case("no APTPL where the guest chose none", check_no_aptpl, world)
    tap.case("APTPL stays when a move is backed out", check_aptpl_back_out, world)
    tap.case("save without --key finds our own registration", check_save_finds_itself, world)
    tap.case("two nexuses of one LU share one key: both survive", check_two_paths, target, world)
    # The last one: on LIO ALL_TG_PT sticks to a nexus (target-limits.tsv).
    tap.case("ALL_TG_PT is replayed", check_all_tg_pt, world)
    tap.case("the hosts end in order, no sanitizer complained", world.close)


if __name__ == "__main__":
    suite.run_program(main)
