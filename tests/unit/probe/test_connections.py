"""A connection that stays, and what its end tells."""

import time

from saltext_selfheal.healing.model import Fault
from tests.lab.simulated import SimulatedNode
from tests.lab.watching import Watching
from tests.unit.probe.world import is_fault, target


def test_the_connection_stays_open_between_probes(well):
    before = well.dials
    with Watching(target(well)) as watching:
        for _ in range(10):
            watching.wait(is_fault(None))
    assert well.dials == before + 1


def test_the_end_of_the_open_connection_is_seen_at_once(well):
    with Watching(target(well, poll_s=3.0)) as watching:
        watching.wait(is_fault(None))
        well.set_fault("refuse", on_existing="drop")
        cut = time.monotonic()
        at, _ = watching.wait(is_fault(Fault.DEAD))
    assert at - cut < 1.5  # not by the interval; the benchmark tells the milliseconds


def test_a_connection_that_is_only_dropped_is_no_fault(well):
    with Watching(target(well)) as watching:
        watching.wait(is_fault(None))
        dials = well.dials
        well.drop_connections()
        well.wait_for(lambda: well.dials > dials, 5.0)
        watching.wait(is_fault(None))
    assert {e.observation.fault for _, e in watching.seen} == {None}


def test_a_sick_node_does_not_delay_anothers_probe(well):
    with (
        SimulatedNode(name="db2", password="secret") as sick,
        Watching(target(well), target(sick, node="db2")) as watching,
    ):
        watching.wait(is_fault(None, "db2"))
        sick.set_fault("silent", on_existing="drop")
        watching.wait(is_fault(Fault.HUNG, "db2"))
        others = [at for at, e in watching.seen if e.observation.node == "db1"]
        watching.wait(is_fault(Fault.HUNG, "db2"))
    assert len(others) >= 5
