"""An operator's commands: what each does, what it refuses, and what it never overrides."""

import pytest

from saltext_selfheal.healing.model import Action
from saltext_selfheal.healing.model import Answer
from saltext_selfheal.healing.model import Command
from saltext_selfheal.healing.model import Commanded
from saltext_selfheal.healing.model import Fault
from saltext_selfheal.healing.model import Mode
from saltext_selfheal.healing.model import Outcome
from saltext_selfheal.healing.model import Phase
from saltext_selfheal.healing.model import Reply
from saltext_selfheal.healing.model import Request
from saltext_selfheal.healing.model import Requested
from saltext_selfheal.healing.model import Returned
from saltext_selfheal.healing.model import Step
from saltext_selfheal.healing.model import Tell
from saltext_selfheal.healing.model import Verb
from saltext_selfheal.healing.step import begin
from saltext_selfheal.healing.step import remains
from tests.unit.world import World
from tests.unit.world import policy


def told(world, what):
    return [e for e in world.effects if isinstance(e, Tell) and e.what == what]


def locked(**changes):
    """A world whose db2 was restarted once in vain and is locked."""
    steps = {Fault.DEAD: (Step(Action.RESTART),)}
    world = World(policy(escalation=steps, cooldown_min_s=0.0, verify_s=5.0, **changes)).warm()
    world.break_("db2")
    world.pass_time(5)
    world.publish()
    world.returns(Outcome.FAILED)
    world.pass_time(10)
    assert world.cluster.incidents[0].phase is Phase.LOCKED
    return world


# ---------------------------------------------------------------- pause and resume


def test_nothing_is_done_while_paused_and_all_of_it_afterwards():
    world = World().warm()
    assert world.order("pause", "runbook", for_s=100.0, reason="upgrade").reply is Reply.ACCEPTED
    world.break_("db2")
    world.pass_time(90)
    assert world.fired == []
    assert "paused: by ann for" in world.last_said().why
    world.pass_time(20)
    assert world.fired == [("restart", ("db2",))]
    assert [t.why for t in told(world, "resumed")] == ["the pause by ann is over"]


def test_a_pause_stops_no_job_that_is_under_way_and_its_verification():
    world = World().warm()
    world.break_("db2")
    world.pass_time(5)
    world.order("pause", "runbook", for_s=1000.0, reason="upgrade")
    world.heal("db2")
    world.pass_time(15)
    assert world.said[-1] == ("runbook-1", "resolved")


def test_a_paused_attempt_is_not_fired_again():
    world = World().warm()
    world.break_("db2")
    world.pass_time(5)
    world.order("pause", "runbook", for_s=1000.0, reason="upgrade")
    world.pass_time(200)
    assert len(world.firings) == 1


def test_a_pause_is_lengthened_by_another_and_never_shortened():
    world = World().warm()
    world.order("pause", "runbook", for_s=100.0, reason="upgrade")
    shorter = world.order("pause", "runbook", by="bob", for_s=10.0, reason="tea")
    assert shorter.reply is Reply.JOINED
    assert shorter.why == "runbook is paused for 100 s by ann: upgrade"
    assert world.cluster.pause.by == "ann"
    assert world.order("pause", "runbook", by="bob", for_s=200.0).reply is Reply.ACCEPTED
    assert world.cluster.pause.by == "bob"


def test_resume_ends_a_pause_and_says_if_there_was_none():
    world = World().warm()
    assert world.order("resume", "runbook").reply is Reply.REFUSED
    world.order("pause", for_s=100.0, reason="upgrade")
    assert world.order("resume", "runbook", by="bob").reply is Reply.ACCEPTED
    assert world.cluster.pause is None
    assert told(world, "resumed")[0].why == "by bob"


def test_a_pause_for_every_cluster_holds_for_one_that_is_configured_later():
    world = World().warm()
    world.order("pause", for_s=100.0, reason="move")
    old = world.cluster
    state, _ = begin({"new": policy(name="new")}, world.state.limits, {"runbook": old}, world.now)
    assert state.clusters["new"].pause.why == "move"
    kept = remains(old)
    state, _ = begin({"new": policy(name="new")}, world.state.limits, {"runbook": kept}, world.now)
    assert state.clusters["new"].pause.why == "move"


def test_a_pause_without_an_end_is_refused():
    answer = World().order("pause", "runbook", reason="for ever")
    assert (answer.reply, answer.why) == (Reply.REFUSED, "a pause needs a duration, found 0 s")


# ---------------------------------------------------------------- lock and ack


def test_a_lock_by_hand_holds_every_incident_of_its_nodes_until_it_is_acknowledged():
    world = World().warm()
    answer = world.order("lock", "runbook", nodes=("db2",), reason="disk swap")
    assert answer.incident == "runbook-1"
    assert world.said == [("runbook-1", "locked")]
    world.break_("db2")
    world.pass_time(60)
    assert world.fired == []
    assert world.last_said("runbook-2").why.startswith("locked: runbook-1 is locked: locked by ann")
    assert world.order("ack", incident="runbook-1").reply is Reply.ACCEPTED
    world.pass_time(2)
    assert world.fired == [("restart", ("db2",))]


def test_a_lock_by_hand_does_not_end_because_all_is_well():
    world = World().warm()
    world.order("lock", "runbook", reason="hands off")
    world.pass_time(1000)
    assert world.cluster.incidents[0].phase is Phase.LOCKED


def test_a_lock_by_hand_holds_requests_too():
    world = World().warm()
    world.order("lock", "runbook", reason="hands off")
    answer = world.ask("highstate")
    assert answer.reply is Reply.HELD
    assert "locked: runbook-1" in answer.why


def test_two_operators_lock_the_same_nodes_once():
    world = World().warm()
    world.order("lock", "runbook", reason="one")
    second = world.order("lock", "runbook", by="bob", nodes=("db1",), reason="two")
    assert (second.reply, second.incident) == (Reply.JOINED, "runbook-1")
    assert len(world.cluster.incidents) == 1


def test_ack_lifts_the_lock_and_the_healer_begins_anew():
    world = locked()
    answer = world.order("ack", incident="runbook-1", reason="cable")
    assert (answer.reply, answer.incident) == (Reply.ACCEPTED, "runbook-1")
    assert world.last_said().why == "acknowledged by ann: cable"
    assert world.cluster.incidents == ()
    world.pass_time(2)
    assert world.fired == [("restart", ("db2",))] * 2
    assert world.cluster.incidents[0].id == "runbook-2"


def test_ack_leaves_one_attempt_free_where_the_budget_was_spent():
    world = locked(budget_attempts=1)
    world.order("ack", incident="runbook-1")
    world.pass_time(2)
    assert len(world.fired) == 2
    world.publish()
    world.returns(Outcome.FAILED)
    world.pass_time(10)
    assert world.cluster.incidents[0].phase is Phase.LOCKED
    assert len(world.fired) == 2


def test_what_is_not_locked_cannot_be_acknowledged():
    world = World().warm()
    world.break_("db2", fault=Fault.UNREACHABLE)
    world.pass_time(5)
    answer = world.order("ack", incident="runbook-1")
    assert answer.reply is Reply.REFUSED
    assert answer.why == "runbook-1 is open: only a locked incident can be acknowledged"


def test_the_second_of_two_acks_is_told_that_it_is_over():
    world = locked()
    world.order("ack", incident="runbook-1")
    second = world.order("ack", incident="runbook-1", by="bob")
    assert second.reply is Reply.REFUSED
    assert second.why == "no open incident 'runbook-1'; open: none"


# ---------------------------------------------------------------- approve and reject


def waiting():
    """A world in mode approve, with a dead node that waits for a person."""
    world = World(policy(mode=Mode.APPROVE)).warm()
    world.break_("db2")
    world.pass_time(5)
    assert world.fired == []
    return world


def test_in_mode_approve_a_person_is_asked_and_the_step_goes_with_the_yes():
    world = waiting()
    assert world.last_said().said == "held"
    want = "approval: restart on db2 waits for: salt-run selfheal.approve runbook-1"
    assert world.last_said().why == want
    answer = world.order("approve", incident="runbook-1")
    assert (answer.reply, answer.why) == (Reply.ACCEPTED, "restart approved by ann")
    assert world.fired == [("restart", ("db2",))]


def test_an_approval_is_for_one_step():
    world = waiting()
    world.order("approve", incident="runbook-1")
    world.publish()
    world.returns(Outcome.FAILED)
    world.pass_time(10)
    assert len(world.fired) == 1
    assert "approval: highstate on db2 waits for" in world.last_said().why
    world.order("approve", incident="runbook-1", by="bob")
    assert world.fired[1:] == [("highstate", ("db2",))]


def test_an_approval_that_could_not_be_used_expires():
    world = waiting()
    world.order("pause", "runbook", for_s=1000.0, reason="wait")
    answer = world.order("approve", incident="runbook-1")
    assert answer.reply is Reply.HELD
    assert "but held by paused" in answer.why
    world.pass_time(1100)
    assert world.fired == []
    assert "approval" in world.last_said().why


def test_a_step_may_need_approval_where_the_cluster_does_not():
    steps = {Fault.DEAD: (Step(Action.RESTART), Step(Action.HIGHSTATE, mode=Mode.APPROVE))}
    world = World(policy(escalation=steps)).warm()
    world.break_("db2")
    world.pass_time(5)
    world.publish()
    world.returns(Outcome.FAILED)
    world.pass_time(10)
    assert world.fired == [("restart", ("db2",))]
    assert world.order("approve", incident="runbook-1").reply is Reply.ACCEPTED
    assert world.fired[1:] == [("highstate", ("db2",))]


def test_reject_locks():
    world = waiting()
    answer = world.order("reject", incident="runbook-1", reason="not now")
    assert answer.why == "restart rejected by ann: not now"
    assert world.said[-1] == ("runbook-1", "locked")
    late = world.order("approve", incident="runbook-1", by="bob")
    assert late.why == "runbook-1 is locked: its next step does not wait for an approval"
    assert world.fired == []


def test_who_rejects_after_the_approval_comes_too_late():
    world = waiting()
    world.order("approve", incident="runbook-1")
    late = world.order("reject", incident="runbook-1", by="bob")
    assert late.reply is Reply.REFUSED
    assert "runbook-1 is remediating" in late.why


def test_nobody_can_approve_what_waits_for_nothing():
    world = World().warm()
    world.break_("db2")
    world.pass_time(2)
    assert world.order("approve", incident="runbook-1").reply is Reply.REFUSED


# ---------------------------------------------------------------- explain


def test_explain_tells_what_the_gates_say_and_changes_nothing():
    world = waiting()
    before = world.state
    answer = world.order("explain", "runbook", nodes=("db2",))
    assert world.state == before
    (one,) = answer.told
    assert (one["incident"], one["step"], one["on"]) == ("runbook-1", "restart", ["db2"])
    shut = [g["gate"] for g in one["gates"] if not g["open"]]
    assert shut == ["approval"]
    assert world.cluster.incidents[0].held == "approval"


def test_explain_supposes_a_death_where_nothing_is_wrong():
    world = World().warm()
    answer = world.order("explain", "runbook", nodes=("db1",))
    (one,) = answer.told
    assert one["why"] == "supposed that db1 were dead"
    assert [g["gate"] for g in one["gates"] if not g["open"]] == ["confirmed"]


def test_explain_of_a_locked_incident_tells_why():
    world = locked()
    one = world.order("explain", "runbook").told[0]
    assert one["phase"] == "locked"
    assert one["why"].startswith("no step is left")


# ---------------------------------------------------------------- jobs that were given up


def runs_for_ever():
    """A world whose restart of db2 never ended: locked, and the job may still run."""
    world = World(policy(attempt_timeout_s=20.0, cooldown_min_s=0.0)).warm()
    world.break_("db2")
    world.pass_time(4)
    world.publish()
    while world.cluster.incidents[0].phase is not Phase.LOCKED:
        world.pass_time(1)
        if world.cluster.look:
            world.publish()
            world.returns(Outcome.BUSY, "the job still runs")
    assert ("runbook-1.1", Outcome.TIMED_OUT) in world.finished
    return world


def test_nothing_is_sent_where_a_job_that_was_given_up_may_still_run():
    world = runs_for_ever()
    world.mend("db2")
    world.pass_time(15)  # it ended by itself, and the lock with it
    world.break_("db2")
    world.pass_time(5)
    assert world.last_said("runbook-2").why.startswith("look: ")
    assert world.cluster.look.of == "runbook-1.1"
    world.publish()
    world.returns(Outcome.BUSY, "the job still runs")
    world.pass_time(20)
    assert [a for a, _ in world.fired].count("restart") == 1
    world.pass_time(15)  # asked again, and it has ended
    world.publish()
    world.returns(Outcome.DONE, "the job does not run")
    world.pass_time(2)
    assert [a for a, _ in world.fired].count("restart") == 2


def test_a_late_result_is_recorded_and_opens_the_gate():
    world = runs_for_ever()
    world.step(Returned("runbook-1.1", "db2", Outcome.DONE, "at last"))
    (late,) = told(world, "late")
    assert (late.node, late.incident) == ("db2", "runbook-1")
    assert late.why.startswith("restart of runbook-1.1, ")
    assert late.why.endswith(" s after its end: done (at last)")
    assert world.cluster.late == ()
    world.step(Returned("runbook-1.1", "db2", Outcome.DONE, "once more"))
    assert len(told(world, "late")) == 1


def test_ack_says_that_a_person_has_seen_to_the_job():
    world = runs_for_ever()
    world.order("ack", incident="runbook-1")
    assert not any(late.running for late in world.cluster.late)


# ---------------------------------------------------------------- what does not fit


@pytest.mark.parametrize(
    ("verb", "cluster", "incident", "fields", "why"),
    [
        ("pause", "other", None, {"for_s": 5.0}, "unknown cluster 'other'; configured: runbook"),
        ("resume", "other", None, {}, "unknown cluster 'other'; configured: runbook"),
        ("lock", None, None, {}, "no cluster is named"),
        (
            "lock",
            "runbook",
            None,
            {"nodes": ("web1",)},
            "no node 'web1' in runbook; nodes: db1, db2, db3",
        ),
        (
            "explain",
            "runbook",
            None,
            {"nodes": ("web1",)},
            "no node 'web1' in runbook; nodes: db1, db2, db3",
        ),
        ("ack", None, "runbook-9", {}, "no open incident 'runbook-9'; open: none"),
        ("approve", None, None, {}, "no open incident None; open: none"),
        ("reject", None, "", {}, "no open incident ''; open: none"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(verb, cluster, incident, fields, why):
    world = World().warm()
    before = world.state
    answer = world.order(verb, cluster, incident, **fields)
    assert (answer.reply, answer.why) == (Reply.REFUSED, why)
    assert world.state == before


@pytest.mark.parametrize("verb", list(Verb))
def test_every_command_has_one_answer(verb):
    world = World().warm()
    command = Command("c", verb, "ann", "runbook", "runbook-1", ("db1",), 5.0, "because")
    effects = world.step(Commanded(command))
    assert sum(isinstance(e, Answer) for e in effects) == 1


# ---------------------------------------------------------------- requests: how many, and forced


def ask(world, id, action="highstate", nodes=(), asker="app", door="runner", forced=False):
    request = Request(id, "runbook", action, tuple(nodes), "", door, asker, forced)
    return next(e for e in world.step(Requested(request)) if isinstance(e, Answer))


def finish(world):
    """Whatever was asked for is done on every node."""
    while world.in_flight:
        world.publish()
        world.returns()
        world.pass_time(2)
    world.pass_time(12)


def test_requests_that_open_are_limited_per_asker_and_per_cluster():
    world = World(policy(request_count=4, request_per_s=3600.0, cooldown_min_s=0.0)).warm()
    for number in range(2):
        assert ask(world, f"a{number}").reply is Reply.ACCEPTED
        finish(world)
    third = ask(world, "a2")
    assert third.reply is Reply.REFUSED
    assert third.why.startswith("too many requests by runner:app: 2 of 2 per 3600 s; again in ")
    for number in range(2):
        reply = ask(world, f"b{number}", asker="other").reply
        assert reply in (Reply.ACCEPTED, Reply.HELD)  # the nodes' own budgets are spent by now
        finish(world)
        world.pass_time(1000)
    assert "too many requests for runbook: 4 of 4" in ask(world, "c", asker="third").why


def test_joins_are_never_refused_and_counted_once_per_asker():
    world = World().warm()
    world.break_("db2")
    world.pass_time(5)
    answers = [ask(world, f"r{n}", asker=f"app{n % 3}") for n in range(100)]
    assert {a.reply for a in answers} == {Reply.JOINED}
    assert [a.repeated for a in answers].count(False) == 3
    assert world.cluster.incidents[0].asked == 100
    assert len(world.cluster.incidents) == 1


def test_all_of_the_bus_is_one_asker():
    world = World(policy(request_count=2, request_per_s=3600.0)).warm()
    ask(world, "a", door="bus", asker="app1 (claimed)")
    finish(world)
    assert ask(world, "b", door="bus", asker="app2 (claimed)").reply is Reply.REFUSED


def test_force_needs_no_agreement_of_the_probe_and_names_its_nodes():
    world = World().warm()
    assert ask(world, "a", "restart").reply is Reply.REFUSED
    assert ask(world, "b", "restart", forced=True).why == "force needs the nodes to be named"
    answer = ask(world, "c", "restart", ["db2"], forced=True)
    assert answer.reply is Reply.ACCEPTED
    assert world.fired == [("restart", ("db2",))]
    again = ask(world, "d", "restart", ["db2"], forced=True)
    assert (again.reply, again.incident) == (Reply.JOINED, answer.incident)


@pytest.mark.parametrize(
    ("prepare", "gate"),
    [
        (lambda w: w.order("pause", "runbook", for_s=100.0, reason="x"), "paused"),
        (lambda w: w.order("lock", "runbook", nodes=("db2",), reason="x"), "locked"),
        (lambda w: w.break_("db1", fault=Fault.UNREACHABLE), "one at a time"),
    ],
)
def test_force_opens_no_other_gate(prepare, gate):
    world = World().warm()
    prepare(world)
    world.pass_time(5)
    answer = ask(world, "a", "restart", ["db2"], forced=True)
    assert answer.reply is Reply.HELD
    assert gate in answer.why
    assert world.fired == []


def test_a_forced_restart_goes_to_a_node_with_a_fault_of_its_own():
    steps = {Fault.AUTH: ()}
    world = World(policy(escalation=steps)).warm()
    world.break_("db2", fault=Fault.AUTH)
    world.pass_time(5)
    assert ask(world, "a", "restart", ["db2"], forced=True).reply is Reply.ACCEPTED
    assert world.fired == [("restart", ("db2",))]


def test_what_is_asked_for_goes_to_no_node_with_a_fault_of_its_own():
    world = World().warm()
    ask(world, "a", "highstate")
    world.break_("db2", fault=Fault.UNREACHABLE)
    world.pass_time(5)
    world.publish()
    world.returns()
    world.pass_time(60)
    assert ("highstate", ("db2",)) not in world.fired
