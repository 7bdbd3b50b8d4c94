"""Somebody's word keeps a job from running on a minion: a disabled highstate, a blackout, or a lie about it."""

import pytest

from saltext_selfheal.healing.events import Returned, Started
from saltext_selfheal.healing.model import Fault, Mode, Outcome, Phase
from tests.unit.world import World, policy

NO = Outcome.FORBIDDEN


def play(world, seconds, answers, looks=None):
    """Let time pass. Each job and each look is answered at once by what the functions say."""
    end = world.now + seconds
    while world.now < end:
        for job, answer in ((world.cluster.attempt, answers), (world.cluster.look, looks)):
            if job and answer and not job.results:
                for node in job.nodes:
                    world.step(Returned(job.id, node, answer(job, node), "somebody's word"))
        world.pass_time(1)


def changes(world):
    """The jobs that change something."""
    return [(action, nodes) for action, nodes in world.fired if action != "look"]


def only(name):
    return lambda _, node: NO if node == name else Outcome.DONE


def test_it_costs_nothing_and_is_told_with_its_reason():
    world = World(policy(budget_attempts=1)).warm()
    world.break_("db1")
    play(world, 600, only("db1"))
    (incident,) = world.cluster.incidents
    assert incident.phase is Phase.OPEN
    assert world.cluster.nodes["db1"].spent == world.cluster.acts == ()
    assert "restart is forbidden there: db1: forbidden (somebody's word)" in world.last_said().why
    assert incident.held == ("forbidden",)
    assert set(changes(world)) == {("restart", ("db1",))}


def test_tries_become_rarer_until_they_are_as_rare_as_the_budget_allows():
    world = World(policy(budget_attempts=3, budget_per_s=3600.0)).warm()
    world.break_("db1")
    play(world, 3600, only("db1"))
    first = len(changes(world))
    assert first <= 8
    play(world, 3600, only("db1"))
    assert len(changes(world)) - first <= 3 + 1


def test_each_try_is_announced_once_as_fired_and_once_as_held():
    world = World().warm()
    world.break_("db1")
    play(world, 3600, only("db1"))
    tries = len(changes(world))
    told = [what for _, what in world.said]
    assert told.count("held") <= tries + 1
    assert told.count("remediating") == tries


def test_a_node_whose_minion_refuses_holds_up_no_other_one():
    world = World().warm()
    world.break_("db1", "db2", fault=Fault.AUTH)
    play(world, 120, only("db1"))
    assert ("highstate", ("db2",)) in changes(world)


def test_dead_nodes_go_on_without_the_one_whose_minion_refuses():
    world = World(policy(budget_attempts=9, cooldown_min_s=0.0)).warm()
    world.break_("db1", "db2")

    def answers(job, node):
        return NO if (job.action.value, node) == ("highstate", "db2") else Outcome.FAILED

    play(world, 600, answers)
    db1 = [action for action, nodes in changes(world) if "db1" in nodes]
    assert db1 == ["restart", "highstate", "restart"]


def test_one_action_is_forbidden_and_not_another():
    world = World(policy(budget_attempts=9)).warm()
    world.break_("db1", fault=Fault.AUTH)
    play(world, 30, only("db1"))
    world.mend("db1")
    world.break_("db1")
    play(world, 30, lambda *_: Outcome.DONE)
    assert ("restart", ("db1",)) in changes(world)


def test_a_request_expires_although_it_is_tried_again_and_again():
    world = World(policy(budget_attempts=10)).warm()
    world.ask()
    play(world, 1000, only("db2"))
    assert world.cluster.incidents == ()
    assert world.last_said().said == "resolved"


def test_one_approval_is_not_good_for_hours_of_tries():
    world = World(policy(mode=Mode.APPROVE)).warm()
    world.break_("db1", "db2", fault=Fault.TLS)

    def answers(_, node):
        if node == "db2":
            return NO
        world.mend(node)
        return Outcome.DONE

    play(world, 30, answers)
    world.order("approve", incident="runbook-1")
    play(world, 1200, answers)
    tries = changes(world)
    assert len(tries) > 2
    play(world, 1800, answers)
    assert changes(world) == tries
    assert "approval" in world.cluster.incidents[0].held


@pytest.mark.parametrize("lie", [Outcome.FORBIDDEN, Outcome.BUSY])
def test_what_a_look_has_seen_running_is_paid_for_whatever_was_returned(lie):
    world = World(policy(budget_attempts=2, attempt_timeout_s=20.0))
    world.truthful = False
    world.warm()
    world.break_("db1")
    seen = {}

    def looks(look, _):
        seen[look.of] = seen.get(look.of, 0) + 1
        return Outcome.BUSY if seen[look.of] == 1 else Outcome.DONE

    play(world, 1800, lambda *_: lie, looks)
    assert len(changes(world)) <= 3
    assert len(world.cluster.nodes["db1"].spent) == 2
    assert world.cluster.incidents[0].phase is Phase.LOCKED


def test_in_blackout_the_minion_is_asked_ever_more_rarely():
    world = World(policy(budget_attempts=9))
    world.truthful = False
    world.warm()
    world.break_("db1")
    play(world, 3000, lambda *_: NO, lambda *_: NO)
    looks = [nodes for action, nodes in world.fired if action == "look"]
    assert len(looks) < 12
    assert "somebody's word" in world.last_said().why


@pytest.mark.parametrize("fault", [Fault.AUTH, Fault.TLS])
def test_the_healers_own_settings_are_trusted_again_only_when_they_are_taken_anew(fault):
    world = World().warm()
    world.break_("db1", fault=fault)
    world.step(Started())  # the engine began anew, with the same settings
    world.pass_time(60)
    assert ("highstate", ("db1",)) in changes(world)


@pytest.mark.parametrize("fault", [Fault.AUTH, Fault.TLS])
def test_settings_that_no_node_has_taken_are_told_and_nothing_is_done(fault):
    world = World()
    world.break_("db1", "db2", "db3", fault=fault)
    world.pass_time(120)
    assert changes(world) == []
    assert "settings: no node has taken clusters.runbook." in world.last_said().why
    world.mend("db3")  # one takes them, so the others are to blame
    world.pass_time(60)
    assert changes(world)[0] == ("highstate", ("db1",))


def test_a_fault_that_goes_to_and_fro_costs_two_incidents():
    world = World(policy(mode=Mode.SHADOW)).warm()
    for turn in range(40):
        world.break_("db1", fault=Fault.AUTH if turn % 2 else Fault.UNREACHABLE)
        world.pass_time(45)
    assert world.cluster.serial == 2


def another_for_long(world):
    """db1 was dead, and has been unreachable for long since then."""
    world.break_("db1", fault=Fault.UNREACHABLE)
    world.pass_time(1200)
    return [incident.called for incident in world.cluster.incidents]


def test_an_incident_in_which_nothing_was_done_gives_way_to_another_fault():
    world = World(policy(mode=Mode.SHADOW)).warm()
    world.break_("db1")
    world.pass_time(30)
    assert another_for_long(world) == ["unreachable"]
    assert "another fault is there now: unreachable on db1 (runbook-2)" in world.last_said().why


def test_an_incident_in_which_something_was_done_waits_until_its_nodes_are_well():
    world = World().warm()
    world.break_("db1")
    world.pass_time(4)
    world.publish()
    world.returns()
    assert another_for_long(world) == ["dead", "unreachable"]


def test_an_incident_that_somebody_has_joined_does_not_give_way():
    world = World(policy(mode=Mode.SHADOW)).warm()
    world.break_("db1")
    world.pass_time(30)
    assert world.ask("restart").incident == "runbook-1"
    assert another_for_long(world) == ["dead", "unreachable"]
