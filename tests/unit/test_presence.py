"""What the healer does and says about minions that are not there, or of which that is not known."""

from dataclasses import replace

import pytest

from saltext_selfheal.console import status
from saltext_selfheal.healing import presence
from saltext_selfheal.healing.events import Door, Presence, Present, Request, Requested, Started
from saltext_selfheal.healing.explain import explain
from saltext_selfheal.healing.model import Outcome, Phase
from tests.unit.world import World, policy, table

AWAY, THERE, NO_KEY = Presence.AWAY, Presence.CONNECTED, Presence.NOT_ACCEPTED
NOT_CONNECTED = "minion: minion db2 is not connected to this master"


def warm_world(**changes):
    return World(policy(**changes)).warm()


def told(world, **minions):
    world.step(Present("runbook", minions))


def gate_of(world, node):
    """The gate's answer for one node, as an operator reads it."""
    (one,) = explain(world.state, "runbook", (node,), world.now)
    return next(g for g in one.gates if g.name == "minion")


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (AWAY, NOT_CONNECTED),
        (NO_KEY, "minion: the key of minion db2 is not accepted on this master"),
    ],
)
def test_an_incident_is_held_at_once_and_its_step_taken_at_once(found, why):
    world = warm_world()
    told(world, db2=found)
    world.break_("db2")
    world.pass_time(10)
    assert world.last_said().why == why
    assert world.fired == []
    assert world.cluster.nodes["db2"].spent == ()
    told(world, db2=THERE)
    assert world.fired == [("restart", ("db2",))]


def test_it_goes_on_where_nothing_is_told_any_more():
    world = warm_world()
    told(world, db2=AWAY)
    world.break_("db2")
    world.pass_time(presence.KNOWN_FOR_S)
    assert world.fired == []
    world.pass_time(2)
    assert world.fired == [("restart", ("db2",))]


def test_what_is_told_again_stays_known():
    world = warm_world()
    world.break_("db2")
    for _ in range(12):
        told(world, db2=AWAY)
        world.pass_time(30)
    assert world.fired == []


def test_of_a_minion_that_is_not_named_nothing_is_known_any_more():
    world = warm_world()
    told(world, db2=AWAY)
    told(world, db1=THERE)
    world.break_("db2")
    world.pass_time(10)
    assert world.fired == [("restart", ("db2",))]


def test_after_a_start_of_the_healer_nothing_is_known():
    world = warm_world()
    told(world, db1=THERE, db2=AWAY)
    world.step(Started())
    for node in world.cluster.nodes.values():
        assert (node.minion, node.minion_at) == (Presence.UNKNOWN, None)


def test_other_nodes_go_first_and_the_one_whose_minion_is_gone_has_its_turn_later():
    world = warm_world()
    told(world, db1=AWAY)
    world.break_("db1", "db2", "db3")
    world.pass_time(10)
    assert world.fired == [("restart", ("db2", "db3"))]
    world.heal("db2", "db3")
    world.pass_time(10)
    assert world.last_said().why == "minion: minion db1 is not connected to this master"
    told(world, db1=THERE)
    assert world.fired[-1] == ("restart", ("db1",))


def test_a_request_goes_to_the_minions_that_are_there():
    world = warm_world()
    told(world, db1=AWAY)
    world.look()
    world.ask("highstate")
    world.pass_time(5, tables=(table(),))
    assert world.fired == [("highstate", ("db2",))]


def test_a_forced_request_is_held_as_well():
    world = warm_world()
    told(world, db2=AWAY)
    world.look()
    request = Request("r1", "runbook", "restart", ("db2",), "", Door.FORCE, "ann", forced=True)
    world.step(Requested(request))
    world.pass_time(5, tables=(table(),))
    assert world.fired == []
    assert NOT_CONNECTED in world.last_said().why


def test_a_job_in_flight_is_not_touched_nor_a_look():
    world = warm_world(attempt_timeout_s=20.0)
    told(world, db2=THERE)
    world.break_("db2")
    world.pass_time(6)
    world.publish()
    told(world, db2=AWAY)
    assert world.cluster.attempt is not None
    world.pass_time(22)
    assert [action for action, _ in world.fired] == ["restart", "look"]
    world.mend("db2")
    world.step(Present("runbook", {"db2": AWAY}))
    assert world.cluster.look is not None


def test_what_the_gate_says_in_an_explanation():
    world = warm_world()
    told(world, db1=THERE, db2=AWAY)
    assert gate_of(world, "db1").why == "connected to this master: db1"
    assert gate_of(world, "db3").why == "it is not known whether minion db3 is connected"
    assert (gate_of(world, "db1").open, gate_of(world, "db3").open) == (True, True)
    shut = gate_of(world, "db2")
    assert (shut.open, shut.why) == (False, "minion db2 is not connected to this master")
    assert shut.opens_at is None


def test_news_of_a_cluster_that_is_not_known_changes_nothing():
    world = warm_world()
    before = world.state
    world.step(Present("nosuch", {"db1": AWAY}))
    assert world.state is before


def test_being_told_the_same_again_is_nothing_to_write_down():
    world = warm_world()
    told(world, db1=THERE)
    before = world.cluster
    world.now += 5
    told(world, db1=THERE)
    assert world.cluster == before
    told(world, db1=AWAY)
    assert world.cluster != before


def test_the_status_tells_of_a_minion_that_is_gone():
    world = warm_world()
    told(world, db1=THERE, db2=AWAY, db3=NO_KEY)
    lines = status._cluster(policy(), world.cluster, world.now).told()["nodes"]
    assert "minion" not in lines["db1"]
    assert lines["db2"].endswith("; minion db2 is not connected to this master")
    assert lines["db3"].endswith("; the key of minion db3 is not accepted on this master")


def test_a_locked_incident_stays_as_it_is():
    world = warm_world(budget_attempts=1)
    world.break_("db2")
    world.pass_time(6)
    world.publish()
    world.returns(Outcome.FAILED)
    world.pass_time(30)
    (incident,) = world.cluster.incidents
    assert incident.phase is Phase.LOCKED
    told(world, db2=AWAY)
    told(world, db2=THERE)
    assert world.cluster.incidents == (replace(incident),)
