"""The quorum gate: no shard that serves now loses the majority of its voting replicas that are ready now."""

from dataclasses import replace

import pytest

from saltext_selfheal.healing import gates
from saltext_selfheal.healing.events import (
    Door,
    Observation,
    Observed,
    Replica,
    Request,
    Requested,
    Shard,
    Table,
)
from saltext_selfheal.healing.model import Action, Answer, Fault, Reply, Step
from tests.unit.world import World, policy, table

THREE = {"db1": True, "db2": True, "db3": True}
STEPS = {
    Fault.HUNG: (Step(Action.RESTART),),
    Fault.SLOW: (Step(Action.RESTART),),
    Fault.AUTH: (Step(Action.HIGHSTATE),),
}


def quorum_of(world, incident=None):
    """What the gate says before the next step of the newest incident."""
    incident = incident or world.cluster.incidents[-1]
    intent = gates.Intent("runbook", incident, incident.steps[incident.step], incident.nodes[:1])
    return gates.quorum(world.state, intent, world.now)


def broken(node, fault, *tables, others=None):
    """A world in which one node has a fault, and whose tables were seen after that."""
    world = World(policy(escalation=STEPS)).warm()
    for other, what in (others or {}).items():
        world.break_(other, fault=what)
    world.break_(node, fault=fault)
    world.pass_time(2)
    world.look(tables=tables)
    world.pass_time(2, tables=tables)
    return world


def test_a_slow_node_is_restarted_while_the_others_keep_the_majority():
    world = broken("db2", Fault.SLOW, table(ready=THREE))
    world.pass_time(3, tables=(table(ready=THREE),))
    assert world.fired == [("restart", ("db2",))]


@pytest.mark.parametrize(
    ("ready", "keeps"),
    [
        ({"db2": True}, "0 of 1"),
        ({"db1": True, "db2": True}, "1 of 2"),
        ({"db1": False, "db2": True, "db3": True}, "1 of 3"),
    ],
)
def test_it_is_not_where_a_shard_would_lose_its_majority(ready, keeps):
    tables = (table(ready=THREE), table("runbook.other", ready=ready))
    world = broken("db2", Fault.SLOW, *tables)
    world.pass_time(60, tables=tables)
    assert world.fired == []
    want = f"without db2 runbook.other keeps {keeps} voting replicas"
    assert quorum_of(world).why == want
    assert world.last_said().why == f"quorum: {want}"


def test_a_shard_that_does_not_serve_has_nothing_to_lose():
    ready = {"db1": False, "db2": True, "db3": False}
    world = broken("db2", Fault.SLOW, table(ready=ready))
    assert quorum_of(world).open


def test_replicas_that_do_not_vote_do_not_count():
    ready = {"db1": True, "db2": True, "db3": True}
    world = broken("db2", Fault.SLOW, table(ready=ready, silent=("db2", "db3")))
    assert quorum_of(world).open  # the only vote is db1's
    world = broken("db2", Fault.SLOW, table(ready=ready, silent=("db1", "db3")))
    assert not quorum_of(world).open


def test_a_hung_node_with_the_only_replica_is_restarted_what_needs_it_is_lost_already():
    tables = (table(ready={"db2": True}),)
    world = broken("db2", Fault.HUNG, *tables)
    world.pass_time(5, tables=tables)
    assert world.fired == [("restart", ("db2",))]


def test_a_node_that_is_away_is_no_replica_that_is_ready():
    tables = (table(ready=THREE),)
    world = broken("db2", Fault.SLOW, *tables, others={"db3": Fault.UNREACHABLE})
    world.pass_time(30, tables=tables)
    assert world.fired == []
    assert "keeps 1 of 3" in quorum_of(world, world.cluster.incidents[0]).why or (
        "keeps 1 of 3" in quorum_of(world, world.cluster.incidents[1]).why
    )


def test_a_server_that_no_node_is_known_by_may_be_the_one_that_has_never_answered():
    """The healer has started while db3 could not be reached: which of the tables' servers is its own, nobody knows."""
    tables = (table(ready=THREE),)
    world = broken("db2", Fault.SLOW, *tables, others={"db3": Fault.UNREACHABLE})
    slow = next(i for i in world.cluster.incidents if i.fault is Fault.SLOW)
    unseen = replace(world.cluster.nodes["db3"], server_id=None, server_name=None)
    world.state = world.state.with_cluster(world.cluster.with_nodes({"db3": unseen}))
    assert quorum_of(world, slow).why == "without db2 runbook.runbook keeps 1 of 3 voting replicas"
    # A server of the cluster that is none of the settings' nodes holds what it holds, once all of them are known.
    spare = {"db1": True, "db2": True, "spare": True}
    world = broken("db2", Fault.SLOW, table(ready=spare))
    assert quorum_of(world).open


def test_what_has_lost_its_majority_already_cannot_lose_it_again():
    away = {"db1": Fault.DEAD, "db3": Fault.DEAD}
    world = broken("db2", Fault.SLOW, table(ready=THREE), others=away)
    world.pass_time(5, tables=(table(ready=THREE),))
    slow = next(i for i in world.cluster.incidents if i.fault is Fault.SLOW)
    assert quorum_of(world, slow).open


@pytest.mark.parametrize("fault", [Fault.UNREACHABLE, Fault.HUNG])
def test_a_replica_whose_node_does_not_answer_the_healer_may_serve_all_the_same(fault):
    """The applications may reach what the master cannot: the tables tell who is ready."""
    ready = {"db1": True, "db2": True, "db3": False}
    world = broken("db2", Fault.SLOW, table(ready=ready), others={"db1": fault})
    world.pass_time(5, tables=(table(ready=ready),))
    slow = next(i for i in world.cluster.incidents if i.fault is Fault.SLOW)
    assert quorum_of(world, slow).why == "without db2 runbook.runbook keeps 0 of 3 voting replicas"


def test_a_proxy_stands_for_no_server_that_answered_there_before():
    world = World(policy(escalation=STEPS)).warm()
    shown = {"cluster": "runbook", "fault": None, "evidence": "answers", "dialled": True}
    led = Observation(node="db3", server_id="id-db9", server_name="db9", **shown)
    world.step(Observed(led))
    world.step(Observed(replace(led, server_id="id-db3", server_name=None, proxy=True)))
    assert world.cluster.nodes["db3"].server_name is None


def test_a_map_that_lists_one_name_twice_counts_for_nothing():
    """A server holds one replica of a shard: a second one of its name is another server's, whose fault nobody sees."""
    shard = Shard(tuple(Replica(name, "ready", True) for name in ("db1", "db2", "db2")))
    twice = Table("runbook.runbook", True, True, True, (shard,))
    world = broken("db1", Fault.SLOW, twice)
    assert quorum_of(world).why == (
        "which server is which is in doubt: two servers have the name db2"
    )
    assert world.fired == []


def test_in_a_partition_the_table_map_is_one_sides():
    world = broken("db2", Fault.SLOW, table(ready=THREE))
    world.look(tables=(table(ready=THREE),), connected={"db1": ["db1"], "db2": ["db2"]})
    assert "disagree about who is connected" in quorum_of(world, world.cluster.incidents[0]).why
    world.pass_time(120)  # nobody can look any more: who knows less must not do more
    assert "disagree about who is connected" in quorum_of(world, world.cluster.incidents[0]).why


def test_without_a_recent_map_one_node_at_a_time_and_only_if_the_others_are_well():
    world = World(policy(escalation=STEPS)).warm()
    world.break_("db2", fault=Fault.SLOW)
    world.pass_time(5)
    assert world.fired == [("restart", ("db2",))]
    world = World(policy(escalation=STEPS)).warm()
    world.break_("db2", fault=Fault.SLOW)
    world.break_("db3", fault=Fault.UNREACHABLE)
    world.pass_time(60)
    assert world.fired == []


def test_a_highstate_that_rolls_waits_for_a_map_that_is_newer_than_the_last_node():
    world = World().warm()
    world.look(tables=(table(ready=THREE),))
    world.pass_time(1)
    world.look(tables=(table(ready=THREE),))
    world.ask("highstate")
    world.publish()
    world.returns()
    world.pass_time(5)
    assert world.fired == [("highstate", ("db1",))]
    assert "older than the last change" in world.last_said().why
    # db1 has come back and fetches what it has missed.
    world.look(tables=(table(ready={"db1": False, "db2": True, "db3": True}),))
    world.pass_time(1)
    assert len(world.fired) == 1
    world.look(tables=(table(ready=THREE),))
    world.pass_time(1)
    assert world.fired == [("highstate", ("db1",)), ("highstate", ("db2",))]


def test_dead_nodes_and_a_start_take_nothing_away():
    world = World().warm()
    world.break_("db1", "db2", "db3")
    world.pass_time(5)
    assert world.fired == [("restart", ("db1", "db2", "db3"))]


def test_what_is_forced_takes_no_majority_away():
    world = World().warm()
    ready = {"db1": True, "db2": True, "db3": False}
    world.pass_time(5, tables=(table(ready=ready),))
    request = Request("f1", "runbook", "restart", ("db2",), "", Door.FORCE, "ann", True)
    (answer,) = (e for e in world.step(Requested(request)) if isinstance(e, Answer))
    assert answer.reply is Reply.HELD
    assert answer.why == "quorum: without db2 runbook.runbook keeps 1 of 3 voting replicas"
    assert world.fired == []
