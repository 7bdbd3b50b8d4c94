"""Corners of an incident's life: one node's trouble beside another's, one fault that hides another, bad moments."""

from itertools import pairwise

import pytest

from saltext_selfheal.healing import escalation
from saltext_selfheal.healing.events import Issue, Observation, Observed, Published, Returned
from saltext_selfheal.healing.model import (
    Action,
    ClusterState,
    Fault,
    NodeState,
    Outcome,
    Phase,
    Reply,
    Step,
)
from tests.unit.world import NODES, World, policy, table

OPEN_TABLE = {"tables": (table(),)}
CLOSED_TABLE = {"tables": (table(writes=False),)}
#: db1 and db3 do not see each other.
APART = {
    "db1": frozenset({"id-db1", "id-db2"}),
    "db2": frozenset({"id-db1", "id-db2", "id-db3"}),
    "db3": frozenset({"id-db2", "id-db3"}),
}


def steps(fault, *actions):
    return {**escalation.DEFAULT, fault: tuple(map(Step, actions))}


def each(world, seconds, outcome, **view):
    """Time passes, and whatever is sent returns like this at once."""
    for _ in range(seconds):
        world.pass_time(1, **view)
        if world.in_flight and world.in_flight.published_at is None:
            world.publish()
            world.returns(outcome)


def busy_looks(world, seconds):
    """Time passes, and whoever is asked says that our job still runs."""
    for _ in range(seconds):
        world.pass_time(1)
        if world.cluster.look and world.cluster.look.published_at is None:
            world.publish()
            world.returns(Outcome.BUSY, "the job still runs")


# ---------------------------------------------------------------- one node beside another


def test_a_node_that_was_locked_by_hand_does_not_hold_up_the_others():
    world = World().warm()
    world.order("lock", "runbook", nodes=("db1",), reason="maintenance of db1")
    world.break_("db1")
    world.pass_time(30)
    world.break_("db3")
    world.pass_time(10)
    assert world.fired == [("restart", ("db3",))]


def test_nor_does_it_keep_them_at_the_first_step():
    world = World().warm()
    world.order("lock", "runbook", nodes=("db1",), reason="maintenance of db1")
    world.break_("db1", "db3")
    each(world, 60, Outcome.FAILED)
    assert world.fired == [
        ("restart", ("db3",)),
        ("highstate", ("db3",)),
        ("restart", ("db3",)),
    ]


def test_a_wrong_password_on_one_node_does_not_lock_the_others_crash_out():
    world = World().warm()
    world.break_("db1", fault=Fault.AUTH)
    each(world, 60, Outcome.FAILED)
    assert world.cluster.incidents[0].phase is Phase.LOCKED
    world.break_("db1", "db3")
    world.pass_time(20)
    assert world.fired[-1] == ("restart", ("db3",))


def test_a_job_that_hangs_on_one_node_does_not_hold_up_the_others():
    world = World().warm()
    world.ask(nodes=("db1",))
    world.publish()
    busy_looks(world, 300)
    world.break_("db1", "db3")
    busy_looks(world, 60)
    assert [f for f in world.fired if f[0] != "look"][-1] == ("restart", ("db3",))


def test_nor_does_it_keep_them_at_their_first_step():
    world = World().warm()
    world.ask(nodes=("db1",))
    world.publish()
    busy_looks(world, 300)
    world.break_("db1", "db3")
    for _ in range(60):
        world.pass_time(1)
        sent = world.in_flight
        if sent and sent.published_at is None:
            world.publish()
            world.returns(Outcome.BUSY if sent.action is Action.LOOK else Outcome.FAILED)
    ours = [nodes for action, nodes in world.fired if action == "highstate"]
    assert ours == [("db1",), ("db3",)]  # the one that hangs, and db3's second step


def test_a_node_whose_lock_ends_begins_at_its_own_first_step():
    world = World().warm()
    lock = world.order("lock", "runbook", nodes=("db1",), reason="maintenance of db1")
    world.break_("db1", "db3")
    each(world, 60, Outcome.FAILED)
    assert {nodes for _, nodes in world.fired} == {("db3",)}
    world.order("ack", incident=lock.incident)
    each(world, 5, Outcome.FAILED)
    assert world.fired[3] == ("restart", ("db1",))


def test_a_node_without_budget_does_not_lock_one_that_only_rests():
    now = 1_000_000.0
    nodes = {
        "db1": NodeState(spent=(now - 100,) * 3),
        "db2": NodeState(cooldown_until=now + 80, cooldown_incident="runbook-0"),
    }
    world = World(remembered={"runbook": ClusterState("runbook", nodes=nodes)}).warm()
    world.break_("db1", "db2", fault=Fault.AUTH)
    world.pass_time(50)
    assert world.cluster.incidents[0].phase is Phase.OPEN
    world.pass_time(30)
    assert world.fired == [("highstate", ("db2",))]


@pytest.mark.parametrize("fault", [Fault.AUTH, Fault.TLS])
def test_a_highstate_that_kills_the_database_is_not_rolled_on(fault):
    """Whom the healer may not log in to serves its applications all the same."""
    world = World().warm()
    world.break_(*NODES, fault=fault)
    for _ in range(120):
        world.pass_time(1)
        attempt = world.cluster.attempt
        if attempt and attempt.published_at is None:
            world.publish()
            world.break_(*attempt.nodes)
            world.returns(Outcome.DONE if attempt.action is Action.HIGHSTATE else Outcome.FAILED)
    assert {nodes for _, nodes in world.fired} == {("db1",)}
    assert "not well after its turn: db1" in world.last_said().why


# ---------------------------------------------------------------- one fault that hides another


def test_a_partition_does_not_make_closed_tables_well():
    world = World(policy(settle_s=5.0)).warm()
    world.pass_time(10, **OPEN_TABLE)
    world.pass_time(8, **CLOSED_TABLE)
    world.publish()
    world.returns()
    world.pass_time(60, **CLOSED_TABLE, connected=APART)
    incident = next(i for i in world.cluster.incidents if i.fault is Fault.UNAVAILABLE)
    assert incident.phase is Phase.OPEN
    assert "disagree about who is connected" in incident.why
    assert world.fired == [("highstate", ("db1",))]


def test_in_a_partition_closed_tables_are_no_fault_of_their_own():
    world = World(policy(settle_s=5.0)).warm()
    world.pass_time(30, **CLOSED_TABLE, connected=APART)
    assert {i.fault for i in world.cluster.incidents} == {Fault.PARTITIONED}


def test_a_lock_for_closed_tables_ends_with_them_though_a_node_has_died():
    world = World(policy(settle_s=5.0)).warm()
    each(world, 120, Outcome.FAILED, **CLOSED_TABLE)
    assert world.cluster.incidents[0].phase is Phase.LOCKED
    world.break_("db3")
    world.pass_time(30, **OPEN_TABLE)
    assert ("runbook-1", "resolved") in world.said
    assert world.fired[-1] == ("restart", ("db3",))


def test_another_issue_is_no_relapse():
    both = steps(Fault.ISSUE, Action.HIGHSTATE, Action.RESTART)
    world = World(policy(escalation=both, cooldown_min_s=0.0)).warm()
    world.pass_time(6, issues=(Issue("log_write_error", "disk"),))
    world.publish()
    world.returns()
    world.pass_time(20, **OPEN_TABLE)
    world.pass_time(30, issues=(Issue("memory_error", "mem"),))
    (incident,) = world.cluster.incidents
    assert (incident.called, incident.relapse_of, incident.step) == ("issue:memory_error", None, 0)


def test_tables_that_close_everywhere_at_once_are_a_storm():
    policies = [policy(name=f"c{i}", nodes=(f"db{i}a", f"db{i}b"), settle_s=5.0) for i in range(4)]
    world = World(*policies).warm()
    world.order("pause", for_s=20.0)
    for _ in range(24):
        world.pass_time(1)
        for one in policies:
            world.look(one.name, **CLOSED_TABLE)
    assert world.fired == []
    assert "storm: 4 of 4 clusters" in world.last_said("c3-1").why


def test_what_nobody_can_see_any_more_is_no_storm():
    policies = [policy(name=f"c{i}", nodes=(f"db{i}a", f"db{i}b"), settle_s=5.0) for i in range(3)]
    world = World(*policies).warm()
    alone = {n: frozenset({f"id-{n}"}) for n in ("db0a", "db0b")}
    for _ in range(12):
        world.pass_time(1)
        world.look("c0", connected=alone)
    world.break_("db1a", cluster="c1")
    world.pass_time(10)
    assert world.fired == []
    world.pass_time(60)
    assert world.fired == [("restart", ("db1a",))]


def test_an_issue_everywhere_is_none():
    policies = [policy(name=f"c{i}", nodes=(f"db{i}a", f"db{i}b")) for i in range(3)]
    world = World(*policies).warm()
    for one in policies:
        world.look(one.name, issues=(Issue("outdated_index", "old"),))
    world.break_("db0a", cluster="c0")
    world.pass_time(6)
    assert world.fired == [("restart", ("db0a",))]


# ---------------------------------------------------------------- bad moments


def test_a_start_between_two_polls_gives_its_tables_their_time_to_open():
    world = World(policy(settle_s=45.0)).warm()
    started = dict.fromkeys(("id-db1", "id-db2", "id-db3"), 1000.0)
    world.pass_time(60, **OPEN_TABLE, started=started)
    again = {**started, "id-db1": 2000.0}
    world.pass_time(40, **CLOSED_TABLE, started=again)
    assert world.said == []
    world.pass_time(15, **CLOSED_TABLE, started=again)
    assert world.fired == [("highstate", ("db1",))]


def test_what_nobody_has_looked_at_has_not_failed():
    world = World(policy(escalation=steps(Fault.DEAD, Action.RESTART))).warm()
    world.break_("db1")
    world.pass_time(5)
    world.publish()
    world.mend("db1")
    world.returns()
    for _ in range(100):  # the prober has no file descriptors left
        world.pass_time(1, poll=False)
        for node in NODES:
            world.step(Observed(Observation("runbook", node, None, "too many files", ours=True)))
    assert "cannot be seen" in world.last_said().why
    world.pass_time(60)
    assert world.cluster.incidents == ()


def test_a_job_that_runs_after_it_was_written_off_is_given_its_time():
    world = World().warm()
    world.break_("db1")
    world.pass_time(5)
    first = world.cluster.attempt.id
    world.pass_time(100)  # never seen in the job cache
    world.step(Published(first))
    world.pass_time(17)
    fired = len(world.fired)
    world.step(Returned(first, "db1", Outcome.DONE, ""))
    world.pass_time(19)
    assert len(world.fired) == fired
    world.pass_time(2)
    assert len(world.fired) == fired + 1


def test_acknowledging_another_lock_says_nothing_of_a_job_that_still_runs():
    world = World().warm()
    world.ask(nodes=("db1",))
    world.publish()
    busy_looks(world, 300)
    assert [one.running for one in world.cluster.late] == [True]
    lock = world.order("lock", "runbook", nodes=("db1",), reason="mine")
    world.order("ack", incident=lock.incident)
    world.break_("db1")
    busy_looks(world, 60)
    assert ("restart", ("db1",)) not in world.fired
    each(world, 60, Outcome.DONE)  # somebody has ended it
    assert ("restart", ("db1",)) in world.fired


def test_a_step_that_repeats_the_one_before_backs_off_and_doubles():
    thrice = steps(Fault.DEAD, *[Action.RESTART] * 3)
    world = World(policy(escalation=thrice, cooldown_min_s=30.0)).warm()
    world.break_("db1")
    at = []
    for _ in range(120):
        world.pass_time(1)
        if world.cluster.attempt and world.cluster.attempt.published_at is None:
            at.append(world.now)
            world.publish()
            world.returns(Outcome.FAILED)
    assert [b - a for a, b in pairwise(at)] == [31.0, 61.0]


def test_a_minion_that_is_busy_for_too_long_pays_nothing():
    world = World().warm()
    world.break_("db1")
    each(world, 80, Outcome.BUSY)
    assert world.cluster.incidents[0].step == 1
    assert world.cluster.nodes["db1"].spent == ()
    assert world.cluster.acts == ()


def test_the_patience_with_a_busy_minion_begins_anew_after_a_pause():
    world = World().warm()
    world.break_("db1")
    each(world, 10, Outcome.BUSY)
    world.order("pause", "runbook", for_s=600.0)
    world.pass_time(595)
    each(world, 10, Outcome.BUSY)
    assert world.cluster.incidents[0].step == 0


def test_two_busy_minions_do_not_keep_each_other_waiting_for_ever():
    world = World().warm()
    world.break_("db1")
    world.break_("db2", fault=Fault.HUNG)
    for _ in range(400):
        world.pass_time(1)
        sent = world.in_flight
        if sent and sent.published_at is None:
            world.publish()
        elif sent and world.now - sent.fired_at >= 2:
            world.returns(Outcome.BUSY)
    assert {i.phase for i in world.cluster.incidents} == {Phase.LOCKED}


def test_what_a_pause_kept_from_being_published_is_not_put_on_the_reactor():
    world = World().warm()
    world.break_("db1")
    world.pass_time(4)
    world.order("pause", "runbook", for_s=3600.0, reason="network")
    world.pass_time(310)
    told = [e.why for e in world.effects if getattr(e, "said", "") == "held"]
    assert not any("reactor" in why for why in told)
    assert any("must not be fired again: paused: by ann" in why for why in told)


def test_one_look_that_nobody_published_proves_no_endless_job():
    world = World().warm()
    world.break_("db1")
    world.pass_time(5)
    world.publish()
    later = World(remembered=dict(world.state.clusters), now=world.now + 1200)
    later.break_("db1")
    later.pass_time(90)
    assert later.cluster.incidents[0].phase is Phase.REMEDIATING


def test_a_budget_of_one_says_that_it_leaves_requests_nothing():
    world = World(policy(budget_attempts=1)).warm()
    assert "budget: requests may use none of 1 per 3600 s" in world.ask().why


@pytest.mark.parametrize("verb", ["approve", "ack"])
def test_a_word_that_was_given_long_ago_is_not_taken_now(verb):
    world = World().warm()
    world.break_("db1")
    world.pass_time(2)
    answer = world.order(verb, incident="runbook-1", at=world.now - 901.0)
    assert answer.reply is Reply.REFUSED
    assert answer.why == "given 901 s ago, when no engine ran: give it again"


def test_a_pause_has_an_end_that_somebody_lives_to_see():
    answer = World().order("pause", "runbook", for_s=1e308)
    assert answer.reply is Reply.REFUSED
    assert "at most 30 days" in answer.why


def test_a_word_of_a_moment_ago_is_taken():
    world = World().warm()
    lock = world.order("lock", "runbook", reason="so")
    answer = world.order("ack", incident=lock.incident, at=world.now - 10.0)
    assert answer.reply is Reply.ACCEPTED
