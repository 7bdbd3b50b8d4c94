"""An incident's life, told to the core in virtual time."""

import pytest

from saltext_selfheal.healing import gates
from saltext_selfheal.healing.events import Observation, Observed, Published, Returned
from saltext_selfheal.healing.model import (
    Action,
    Fault,
    Finish,
    Limits,
    Mode,
    Outcome,
    Phase,
    Reply,
    Step,
)
from saltext_selfheal.healing.start import begin, forgotten
from saltext_selfheal.healing.table import TRANSITIONS
from tests.unit.world import World, policy, table


def test_a_dead_node_is_restarted_verified_and_resolved():
    world = World().warm()
    world.break_("db2")
    world.pass_time(4)
    assert world.fired == [("restart", ("db2",))]
    world.heal("db2")
    world.pass_time(15)
    assert [what for _, what in world.said] == [
        "suspected", "open", "remediating", "verifying", "verifying", "resolved",
    ]  # fmt: skip
    assert world.finished == [("runbook-1.1", Outcome.DONE)]
    assert world.cluster.incidents == ()
    assert world.cluster.attempt is None


def test_a_fault_that_ends_before_it_is_confirmed_changes_nothing():
    world = World().warm()
    world.break_("db2")
    world.pass_time(2)
    world.mend("db2")
    world.pass_time(5)
    assert world.fired == []
    assert [what for _, what in world.said] == ["suspected", "resolved"]


def test_a_fault_that_ends_by_itself_while_held_is_resolved_without_an_attempt():
    world = World(policy(mode=Mode.SHADOW)).warm()
    world.break_("db2")
    world.pass_time(30)
    world.mend("db2")
    world.pass_time(12)
    assert world.fired == []
    assert world.last_said().said == "resolved"


def test_each_step_comes_when_the_one_before_did_not_help_and_then_the_healer_gives_up():
    world = World(policy(budget_attempts=0)).warm()
    world.break_("db2")
    world.pass_time(4)
    for _ in range(3):
        world.publish()
        world.returns()
        world.pass_time(22)
    assert [action for action, _ in world.fired] == ["restart", "highstate", "restart"]
    assert world.last_said().said == "locked"
    world.pass_time(600)
    assert len(world.fired) == 3
    world.mend("db2")
    world.pass_time(12)
    assert world.last_said().said == "resolved"


def test_a_job_that_failed_leads_to_the_next_step_as_soon_as_the_fault_is_seen_again():
    world = World().warm()
    world.break_("db2")
    world.pass_time(4)
    world.publish()
    world.returns(Outcome.FAILED, "it exits")
    world.pass_time(2)
    assert [action for action, _ in world.fired] == ["restart", "highstate"]


def test_a_job_that_failed_is_no_reason_for_another_when_the_database_is_well():
    world = World().warm()
    world.break_("db2")
    world.pass_time(4)
    world.publish()
    world.mend("db2")
    world.returns(Outcome.FAILED, "one state of forty failed")
    world.pass_time(12)
    assert len(world.fired) == 1
    assert world.last_said().said == "resolved"


def test_a_fault_that_returns_within_stable_means_the_step_did_not_hold():
    world = World().warm()
    world.break_("db2")
    world.pass_time(4)
    world.heal("db2")
    world.pass_time(5)
    world.break_("db2")
    world.pass_time(5)
    assert [action for action, _ in world.fired] == ["restart", "highstate"]
    assert {incident for incident, _ in world.said} == {"runbook-1"}


def test_dead_nodes_are_started_together_once_every_suspected_one_is_decided():
    world = World().warm()
    world.break_("db1")
    world.pass_time(2)
    world.break_("db2", "db3")
    world.pass_time(2)  # db1 is confirmed now, the others are not
    assert world.fired == []
    world.pass_time(2)
    assert world.fired == [("restart", ("db1", "db2", "db3"))]


def test_nodes_that_may_serve_get_a_step_one_after_the_other():
    world = World().warm()
    world.break_("db1", "db2", fault=Fault.AUTH)
    world.pass_time(4)
    assert world.fired == [("highstate", ("db1",))]
    world.pass_time(3)
    assert len(world.fired) == 1
    world.heal("db1")
    world.pass_time(2)
    assert world.fired == [("highstate", ("db1",)), ("highstate", ("db2",))]


def test_nothing_else_is_fired_while_an_attempt_is_in_flight():
    world = World().warm()
    world.break_("db1", fault=Fault.AUTH)
    world.pass_time(4)
    world.publish()
    world.break_("db3")
    world.pass_time(20)
    assert len(world.fired) == 1
    assert world.last_said("runbook-2").said == "held"
    world.mend("db1")
    world.returns()
    world.pass_time(1)
    assert world.fired[1] == ("restart", ("db3",))


@pytest.mark.parametrize("fault", [Fault.AUTH, Fault.TLS])
def test_a_wrong_password_or_certificate_is_never_restarted(fault):
    world = World().warm()
    world.break_("db1", fault=fault)
    world.pass_time(4)
    world.publish()
    world.returns()
    world.pass_time(60)
    assert world.fired == [("highstate", ("db1",))]
    assert world.last_said().said == "locked"


@pytest.mark.parametrize("fault", [Fault.UNREACHABLE, Fault.SLOW])
def test_what_no_action_helps_against_is_only_announced_once(fault):
    world = World().warm()
    world.break_("db1", fault=fault)
    world.pass_time(100)
    assert world.fired == []
    assert [what for _, what in world.said] == ["suspected", "open", "held"]


def relapsed(**settings):
    """db2 was healed by a restart, and is dead again."""
    world = World(policy(**settings)).warm()
    world.break_("db2")
    world.pass_time(4)
    world.heal("db2")
    world.pass_time(15)
    world.break_("db2")
    world.pass_time(4)
    return world


def test_a_relapse_repeats_the_step_that_had_helped_and_names_the_old_incident():
    world = relapsed()
    assert world.last_said("runbook-2").said == "held"  # the node still rests
    assert any("a relapse of runbook-1" in getattr(e, "why", "") for e in world.effects)
    world.pass_time(120)
    assert [action for action, _ in world.fired] == ["restart", "restart"]
    assert world.cluster.incidents[0].relapse_of == "runbook-1"


def test_the_relapse_after_that_starts_at_the_next_step():
    world = relapsed(cooldown_min_s=0.0)
    world.heal("db2")
    world.pass_time(15)
    world.break_("db2")
    world.pass_time(4)
    assert [action for action, _ in world.fired] == ["restart", "restart", "highstate"]


@pytest.mark.parametrize(("repeat", "second"), [(0, "highstate"), (1, "restart"), (3, "restart")])
def test_how_often_a_step_is_repeated_is_a_setting(repeat, second):
    world = relapsed(cooldown_min_s=0.0, relapse_repeat=repeat)
    assert [action for action, _ in world.fired] == ["restart", second]


def test_only_a_node_that_was_acted_on_can_have_a_relapse():
    world = World(policy(cooldown_min_s=0.0)).warm()
    world.break_("db1", "db2")
    world.pass_time(2)
    world.mend("db1")  # by itself, before anything was done
    world.pass_time(5)
    assert world.fired == [("restart", ("db2",))]
    world.heal("db2")
    world.pass_time(15)
    world.break_("db1")
    world.pass_time(4)
    assert world.fired[-1] == ("restart", ("db1",))


def test_cooldown_counts_from_the_end_of_the_last_attempt():
    world = World(policy(cooldown_min_s=100.0)).warm()
    world.break_("db2")
    world.pass_time(4)
    world.publish()
    world.pass_time(50)
    world.mend("db2")
    world.returns()
    ended = world.now
    assert world.cluster.nodes["db2"].cooldown_until == ended + 100


def test_the_budget_of_a_node_is_never_exceeded():
    world = World(policy(budget_attempts=2, budget_per_s=3600.0, cooldown_min_s=0.0)).warm()
    for _ in range(4):
        world.break_("db2")
        world.pass_time(5)
        if world.in_flight:
            world.heal("db2")
        world.mend("db2")
        world.pass_time(15)
    assert len(world.fired) == 2
    world.break_("db2")
    world.pass_time(130)  # it had come and gone so often that it counted as flapping
    assert world.said[-1][1] == "locked"
    assert "has had 2 of 2 attempts" in world.cluster.incidents[0].why
    world.pass_time(4000)
    assert len(world.fired) == 2  # time alone lifts no lock


def test_a_busy_minion_is_asked_again_and_pays_nothing():
    world = World().warm()
    world.break_("db2", fault=Fault.AUTH)
    world.pass_time(4)
    world.publish()
    world.returns(Outcome.BUSY, "state.apply is running as PID 17")
    assert world.cluster.nodes["db2"].spent == ()
    world.pass_time(6)
    assert [action for action, _ in world.fired] == ["highstate", "highstate"]


def test_a_minion_that_stays_busy_counts_as_failed():
    world = World(policy(attempt_timeout_s=20.0)).warm()
    world.break_("db2", fault=Fault.AUTH)
    world.pass_time(4)
    for _ in range(10):
        if world.in_flight:
            world.publish()
            world.returns(Outcome.BUSY, "busy")
        world.pass_time(6)
    assert world.last_said().said == "locked"


def test_what_is_not_published_is_fired_again_under_the_same_attempt_and_then_written_off():
    world = World().warm()
    world.break_("db2")
    world.pass_time(50)
    assert world.firings == ["runbook-1.1"] * 3
    assert world.finished == [("runbook-1.1", Outcome.LOST)]
    assert world.cluster.nodes["db2"].spent == ()
    assert "does not publish" in next(
        e.why for e in world.effects if getattr(e, "said", "") == "held"
    )
    world.pass_time(60)
    assert world.fired == [("restart", ("db2",))] * 2  # the same step again, never the next


def test_a_job_that_does_not_return_is_looked_for_before_anything_else_is_sent():
    world = World().warm()
    world.break_("db2")
    world.pass_time(4)
    world.publish()
    world.pass_time(61)
    assert world.fired == [("restart", ("db2",)), ("look", ("db2",))]
    world.publish()
    world.returns(Outcome.BUSY, "the job still runs")
    world.pass_time(20)
    assert len(world.fired) == 2  # it runs: nothing is sent
    world.pass_time(15)
    assert world.fired[2] == ("look", ("db2",))
    world.returns(Outcome.DONE, "the job does not run")
    world.pass_time(2)
    assert world.fired[3] == ("highstate", ("db2",))
    assert dict(world.finished)["runbook-1.1"] is Outcome.TIMED_OUT


def test_an_offline_minion_ends_in_a_lock_that_names_the_silence():
    world = World(policy(budget_attempts=0)).warm()
    world.break_("db2")
    world.pass_time(4)
    for _ in range(400):
        if world.in_flight and world.in_flight.published_at is None:
            world.publish()
        world.pass_time(2)
    assert world.last_said().said == "locked"
    assert any(isinstance(e, Finish) and "is the minion up?" in e.why for e in world.effects)


def test_a_late_result_of_an_ended_attempt_changes_nothing():
    world = World().warm()
    world.break_("db2")
    world.pass_time(4)
    world.heal("db2")
    world.pass_time(15)
    before = world.state
    world.step(Returned("runbook-1.1", "db2", Outcome.FAILED, "late"))
    world.step(Published("runbook-1.1"))
    world.step(Returned("runbook-9.9", "db2", Outcome.DONE))
    assert world.state == before


def test_unknown_clusters_and_nodes_change_nothing():
    world = World().warm()
    before = world.state
    assert world.step(Observed(Observation("elsewhere", "db1", Fault.DEAD, ""))) == ()
    assert world.step(Observed(Observation("runbook", "web1", Fault.DEAD, ""))) == ()
    assert world.state == before


def test_a_healer_that_has_just_started_does_not_act():
    world = World()
    world.break_("db2")
    world.pass_time(14)
    assert world.fired == []
    assert "warm-up" in world.last_said().why
    world.pass_time(3)
    assert len(world.fired) == 1


def test_a_healer_that_is_restarted_between_order_and_result_goes_on_where_it_was():
    world = World().warm()
    world.break_("db2")
    world.pass_time(4)
    again = World(remembered=world.state.clusters, now=world.now + 30)
    again.break_("db2")
    again.publish()
    again.returns()
    again.mend("db2")
    again.pass_time(20)
    assert again.fired == []
    assert again.last_said().said == "resolved"


def test_a_request_on_a_well_cluster_rolls_over_its_nodes_each_verified_before_the_next():
    world = World().warm()
    answer = world.ask("highstate")
    assert (answer.reply, answer.incident) == (Reply.ACCEPTED, "runbook-1")
    for node in ("db1", "db2", "db3"):
        assert world.fired[-1] == ("highstate", (node,))
        world.publish()
        world.returns()
        assert world.fired[-1] == ("highstate", (node,))  # not before it was seen well
        world.pass_time(1)
    world.pass_time(12)
    assert len(world.fired) == 3
    assert world.last_said().said == "resolved"


def test_a_roll_stops_while_a_node_it_has_visited_is_not_well():
    world = World().warm()
    world.ask("highstate")
    world.publish()
    world.break_("db1", fault=Fault.UNREACHABLE)
    world.returns()
    world.pass_time(60)
    assert world.fired == [("highstate", ("db1",))]
    world.mend("db1")
    world.pass_time(5)
    assert world.fired[-1] == ("highstate", ("db2",))


def test_a_request_joins_the_incident_that_is_open():
    world = World().warm()
    world.break_("db2")
    world.pass_time(4)
    answers = [world.ask("restart", id=f"r{n}") for n in range(10)]
    assert {(a.reply, a.incident) for a in answers} == {(Reply.JOINED, "runbook-1")}
    assert len(world.fired) == 1


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"cluster": "nosuch"}, "unknown cluster 'nosuch'; configured: runbook"),
        ({"action": "destroy"}, "unknown action 'destroy'; allowed: highstate, restart, start"),
        ({"action": "look"}, "unknown action 'look'"),
        ({"nodes": ("web1",)}, "no node 'web1' in runbook; nodes: db1, db2, db3"),
        ({"nodes": ("*",)}, "no node '*'"),
        ({"action": "restart"}, "the probe sees nothing wrong"),
    ],
)
def test_a_request_is_refused_with_the_reason(asked, why):
    world = World().warm()
    answer = world.ask(**asked)
    assert answer.reply is Reply.REFUSED
    assert why in answer.why
    assert world.fired == []
    assert world.cluster.incidents == ()


def test_a_request_is_held_by_the_gates_and_says_which():
    world = World(policy(mode=Mode.SHADOW)).warm()
    answer = world.ask("highstate")
    assert answer.reply is Reply.HELD
    assert "mode: shadow, would highstate db1" in answer.why
    assert world.fired == []


def test_a_step_waits_for_its_time_since_the_incident_opened():
    steps = {Fault.DEAD: (Step(Action.RESTART, after_s=60.0),)}
    world = World(policy(escalation=steps)).warm()
    world.break_("db2")
    world.pass_time(50)
    assert world.fired == []
    world.pass_time(15)
    assert len(world.fired) == 1


def test_limits_count_attempts_over_all_clusters():
    policies = [
        policy(name=f"c{n}", nodes=(f"db{n}",), cooldown_min_s=0.0, budget_attempts=0)
        for n in range(4)
    ]
    world = World(*policies, limits=Limits(attempts=2, per_s=3600.0, storm_share=0.0)).warm()
    for n in range(4):
        world.break_(f"db{n}", cluster=f"c{n}")
    world.pass_time(10)
    assert len(world.fired) == 2


def test_nothing_is_done_in_a_storm():
    policies = [policy(name=f"c{n}", nodes=(f"db{n}",)) for n in range(3)]
    world = World(*policies).warm()
    for n in range(2):
        world.break_(f"db{n}", cluster=f"c{n}")
    world.pass_time(30)
    assert world.fired == []


def test_a_lost_ledger_means_every_node_rests_and_has_spent_its_budget():
    one = policy()
    world = World(one, remembered=forgotten({one.name: one}, 1_000_000.0, Limits())).warm()
    world.break_("db2")
    world.pass_time(3500)
    assert world.fired == []
    world.pass_time(200)
    assert world.fired


def test_what_the_settings_do_not_name_any_more_ends():
    world = World().warm()
    world.break_("db2")
    world.pass_time(4)
    smaller = policy(nodes=("db1", "db3"))
    state, effects = begin({"runbook": smaller}, Limits(), world.state.clusters, world.now)
    assert state.clusters["runbook"].incidents == ()
    assert state.clusters["runbook"].attempt is None
    assert [e.outcome for e in effects if isinstance(e, Finish)] == [Outcome.LOST]


# ---------------------------------------------------------------- scars: each was once a bug here


def test_a_node_that_falls_again_while_another_is_verified_is_not_forgotten():
    world = World(policy(cooldown_min_s=0.0)).warm()
    world.break_("db2")
    world.pass_time(4)
    world.heal("db2")
    world.pass_time(2)
    world.break_("db1")
    world.pass_time(5)
    assert world.fired[-1] == ("restart", ("db1",))
    world.break_("db2")
    world.heal("db1")
    world.pass_time(30)
    assert "db2" in world.fired[-1][1]
    assert len(world.fired) > 2


def test_a_restart_of_the_healer_gives_the_job_cache_time_before_it_judges():
    world = World().warm()
    world.break_("db2")
    world.pass_time(4)
    world.publish()
    world.pass_time(61)
    assert world.fired[-1][0] == "look"
    again = World(remembered=world.state.clusters, now=world.now + 600)
    again.break_("db2")
    again.pass_time(5)
    assert again.finished == []
    again.publish()
    again.returns(Outcome.BUSY, "the job still runs")
    again.pass_time(5)
    assert again.fired == []


def test_an_attempt_of_before_a_long_absence_is_lost_only_when_the_cache_says_so():
    world = World().warm()
    world.break_("db2")
    world.pass_time(4)
    again = World(remembered=world.state.clusters, now=world.now + 1000)
    again.break_("db2")
    again.pass_time(10)
    assert again.finished == []
    again.pass_time(10)
    assert again.finished == [("runbook-1.1", Outcome.LOST)]


def test_a_job_cache_that_cannot_be_read_does_not_make_attempts_free():
    world = World(policy(attempt_timeout_s=30.0, verify_s=5.0)).warm()
    world.cache_readable = False
    world.break_("db2")
    world.pass_time(4000)
    assert len([one for one in world.fired if one[0] != "look"]) == 3  # the budget
    assert {o for _, o in world.finished} == {Outcome.TIMED_OUT}


def test_a_reactor_that_never_publishes_is_asked_less_and_less():
    world = World().warm()
    world.break_("db2")
    world.pass_time(4 * 3600)
    assert len(world.fired) < 12


def test_one_busy_minion_does_not_make_the_others_repeat_their_job():
    world = World().warm()
    world.break_("db1", "db2")
    world.pass_time(4)
    world.publish()
    world.returns(Outcome.DONE, nodes=["db1"])
    world.returns(Outcome.BUSY, "running as PID 17", nodes=["db2"])
    assert [len(world.cluster.nodes[n].spent) for n in ("db1", "db2")] == [1, 0]
    world.mend("db1")
    world.pass_time(5)
    assert world.fired[1:] == [("restart", ("db2",))]


def test_a_look_that_nobody_published_proves_nothing_about_the_job():
    world = World().warm()
    world.break_("db2")
    world.pass_time(4)
    world.publish()
    world.pass_time(61)
    world.pass_time(60)  # the look is never published
    assert {action for action, _ in world.fired[1:]} == {"look"}


def test_a_job_that_never_ends_is_left_to_a_person_after_a_while():
    world = World().warm()
    world.break_("db2")
    world.pass_time(4)
    world.publish()
    for _ in range(200):
        look = world.cluster.look
        if look and look.published_at is None:
            world.step(Published(look.id))
            world.step(Returned(look.id, "db2", Outcome.BUSY, "the job still runs"))
        world.pass_time(5)
    assert world.last_said().said == "locked"
    assert "does not end" in world.last_said().why
    assert {action for action, _ in world.fired[1:]} == {"look"}
    world.break_("db3")
    world.pass_time(10)
    assert world.fired[-1] == ("restart", ("db3",))


def test_a_request_that_was_held_is_not_released_by_its_targets_illness():
    world = World(policy(restart_needs_probe=False)).warm()
    world.break_("db3", fault=Fault.UNREACHABLE)
    world.mend("db3")
    world.pass_time(1)
    world.ask("restart", nodes=("db2",), id="r1")
    world.publish()
    world.returns()
    world.pass_time(15)
    fired = len(world.fired)
    world.break_("db3", fault=Fault.UNREACHABLE)
    world.pass_time(1)
    world.break_("db2", fault=Fault.AUTH)
    world.pass_time(60)
    assert ("restart", ("db2",)) not in world.fired[fired:]


def test_a_request_that_no_gate_lets_through_expires():
    world = World(policy(mode=Mode.SHADOW)).warm()
    world.ask("highstate")
    world.pass_time(901)
    assert world.last_said().said == "resolved"
    assert "expired" in world.last_said().why


def test_nothing_is_decided_on_what_was_seen_long_ago():
    world = World(policy(mode=Mode.AUTO, confirm_s=dict.fromkeys(Fault, 3.0))).warm()
    world.break_("db2")
    world.pass_time(3)
    world.pass_time(60, poll=False)
    world.poll()
    assert world.fired == [("restart", ("db2",))]
    world.publish()
    world.mend("db2")
    world.returns()
    world.pass_time(1)
    world.pass_time(60, poll=False)
    assert world.last_said().said == "verifying"  # not resolved: nobody has looked since


def test_a_relapse_does_not_keep_dead_nodes_apart():
    world = World(policy(cooldown_min_s=0.0)).warm()
    world.break_("db2")
    world.pass_time(4)
    world.heal("db2")
    world.pass_time(15)
    world.break_("db2")
    world.pass_time(1)
    world.break_("db1", "db3")
    world.pass_time(6)
    assert [set(nodes) for _, nodes in world.fired[1:]] == [{"db1", "db2", "db3"}]
    assert world.fired[1][0] == "restart"  # db1 and db3 have had none


def test_each_node_has_its_turn_before_the_healer_gives_up():
    world = World().warm()
    world.break_("db1", "db2", fault=Fault.AUTH)
    world.pass_time(4)
    for _ in range(2):
        world.publish()
        world.returns()
        world.pass_time(25)
    assert world.fired == [("highstate", ("db1",)), ("highstate", ("db2",))]
    assert world.last_said().said == "locked"


def test_a_result_that_came_during_the_look_counts():
    world = World().warm()
    world.break_("db1", "db2")
    world.pass_time(4)
    world.publish()
    world.pass_time(61)
    look, attempt = world.cluster.look, world.cluster.attempt
    world.step(Published(look.id))
    world.step(Returned(attempt.id, "db1", Outcome.DONE, "late but done"))
    world.step(Returned(look.id, "db1", Outcome.DONE, ""))
    world.step(Returned(look.id, "db2", Outcome.DONE, ""))
    ended = next(e for e in world.effects if isinstance(e, Finish) and e.attempt.id == attempt.id)
    assert ended.attempt.results["db1"] == (Outcome.DONE, "late but done")


def test_a_cluster_that_was_removed_leaves_nothing_open():
    world = World().warm()
    world.break_("db2")
    world.pass_time(4)
    other = policy(name="other", nodes=("dbx",))
    _, effects = begin({"other": other}, Limits(), world.state.clusters, world.now)
    assert [e.outcome for e in effects if isinstance(e, Finish)] == [Outcome.LOST]
    assert [e.said for e in effects if hasattr(e, "said")] == ["resolved"]


def test_a_lock_is_told_again_after_a_restart():
    world = World(policy(budget_attempts=0)).warm()
    world.break_("db2", fault=Fault.AUTH)
    world.pass_time(4)
    world.publish()
    world.returns()
    world.pass_time(30)
    again = World(remembered=world.state.clusters, now=world.now + 60)
    assert again.said == [("runbook-1", "locked")]


def test_every_phase_but_the_last_ones_has_a_way_on():
    leaving = {row.leaves for row in TRANSITIONS}
    assert leaving == set(Phase) - {Phase.RESOLVED, Phase.ACKNOWLEDGED}


def test_every_gate_answers_under_a_name_of_its_own():
    world = World().warm()
    world.break_("db2")
    world.pass_time(1)
    incident = world.cluster.incidents[0]
    intent = gates.Intent("runbook", incident, Step(Action.RESTART), ("db2",))
    answers = gates.judge(world.state, intent, world.now)
    assert len({gate.name for gate in answers}) == len(gates.GATES)
    assert all(gate.why for gate in answers)


def test_a_minion_outside_the_pattern_is_never_a_target():
    world = World(policy(nodes=("db1", "web1"))).warm()
    world.break_("web1")
    world.pass_time(30)
    assert world.fired == []
    assert "not allowed by minions 'db*'" in world.last_said().why


def test_a_highstate_that_restarts_the_service_does_not_count_as_help_while_tables_are_closed():
    closed = (table(reads=False, writes=False),)
    world = World(policy(settle_s=45.0, stable_s=30.0)).warm()
    world.pass_time(60, tables=closed)
    assert world.fired == [("highstate", ("db1",))]
    world.publish()
    world.break_("db1")
    world.pass_time(3, tables=closed)
    world.mend("db1")
    world.pass_time(1, tables=closed)
    world.returns()
    world.pass_time(40, tables=closed)
    assert ("runbook-1", "resolved") not in world.said
    world.pass_time(31, tables=(table(),))
    assert world.said[-1] == ("runbook-1", "resolved")


def test_a_request_that_was_held_on_its_way_expires():
    world = World().warm()
    world.ask("highstate")
    world.publish()
    world.returns()
    world.order("pause", "runbook", for_s=2000.0, reason="upgrade")
    world.pass_time(2100)
    assert world.fired == [("highstate", ("db1",))]
    assert world.said[-1] == ("runbook-1", "resolved")


def test_closed_tables_stay_unavailable_across_a_start_of_the_healer():
    closed = (table(reads=False, writes=False),)
    settings = policy(settle_s=45.0, stable_s=30.0)
    world = World(settings).warm()
    world.pass_time(90, tables=closed)
    again = World(settings, remembered=world.state.clusters, now=world.now + 1)
    again.pass_time(40, tables=closed)
    assert ("runbook-1", "resolved") not in again.said


def test_an_empty_target_is_no_target():
    world = World().warm()
    world.ask("highstate")
    intent = gates.Intent("runbook", world.cluster.incidents[0], Step(Action.HIGHSTATE), ())
    gate = gates.target(world.state, intent, world.now)
    assert (gate.open, gate.why) == (False, "no node is left to act on")


def test_several_nodes_that_may_serve_are_never_named_together():
    world = World().warm()
    world.ask("highstate")
    incident = world.cluster.incidents[0]
    intent = gates.Intent("runbook", incident, Step(Action.HIGHSTATE), ("db1", "db2"))
    gate = gates.one_at_a_time(world.state, intent, world.now)
    assert (gate.open, gate.why) == (False, "several nodes that may serve are named")


def test_a_roll_does_not_go_on_past_a_node_that_nobody_has_looked_at():
    """All probes stop for a while after the first node's job; the second node is seen first."""
    world = World().warm()
    world.break_("db1", "db2", fault=Fault.AUTH)
    world.pass_time(10)
    world.publish()
    world.returns()
    world.pass_time(100, poll=False)
    for _ in range(3):
        world.now += 0.1
        seen = Observation("runbook", "db2", Fault.AUTH, "auth it is")
        world.step(Observed(seen))
    assert world.fired == [("highstate", ("db1",))]
    assert "fresh: not seen since the last attempt: db1" in world.last_said().why
    world.pass_time(2)
    assert world.fired == [("highstate", ("db1",)), ("highstate", ("db2",))]


def test_a_node_whose_budget_is_spent_does_not_hold_up_the_others():
    world = World(policy(budget_attempts=1, cooldown_min_s=0.0, relapse_s=0.0)).warm()
    world.break_("db1", fault=Fault.AUTH)
    world.pass_time(5)
    world.heal("db1")
    world.pass_time(20)
    world.break_("db1", "db2", fault=Fault.AUTH)
    world.pass_time(10)
    assert world.fired == [("highstate", ("db1",)), ("highstate", ("db2",))]
