"""An operator's commands: what each does, what it refuses, and what it never overrides."""

import pytest

from saltext_selfheal.healing.events import (
    Command,
    Commanded,
    Door,
    Published,
    Request,
    Requested,
    Returned,
    Verb,
)
from saltext_selfheal.healing.model import (
    Action,
    Answer,
    Fault,
    Limits,
    Mode,
    Outcome,
    Phase,
    Reply,
    Step,
    Tell,
)
from saltext_selfheal.healing.start import begin, remains
from tests.unit.world import World, policy


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
    kept = remains(old, {}, world.now)
    state, _ = begin({"new": policy(name="new")}, world.state.limits, {"runbook": kept}, world.now)
    assert state.clusters["new"].pause.why == "move"


def test_a_pause_for_every_cluster_holds_for_later_ones_where_all_have_a_longer_one():
    world = World().warm()
    world.order("pause", "runbook", for_s=5000.0, reason="upgrade")
    world.order("pause", for_s=1000.0, reason="the network is moved")
    both = {**world.policies, "other": policy(name="other", nodes=("db8",))}
    state, _ = begin(both, Limits(), world.state.clusters, world.now)
    assert state.clusters["other"].pause is not None


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


def test_a_lock_by_hand_outlives_its_clusters_absence():
    world = World().warm()
    world.order("lock", "runbook", reason="hands off")
    away = {"runbook": remains(world.cluster, {}, world.now)}
    back = World(remembered=away, now=world.now + 60).warm()
    back.break_("db2")
    back.pass_time(10)
    assert back.fired == []
    assert "locked" in back.last_said("runbook-2").why


def test_a_cluster_that_is_removed_renews_no_limit():
    world = World(limits=Limits(1, 3600.0, 0.0)).warm()
    world.break_("db2")
    world.pass_time(10)
    assert len(world.fired) == 1
    other = World(
        policy(name="other", nodes=("db8",)),
        limits=Limits(1, 3600.0, 0.0),
        remembered={"runbook": world.cluster},
        now=world.now,
    ).warm()
    other.break_("db8", cluster="other")
    other.pass_time(10)
    assert other.fired == []
    assert "limits: over all clusters 1 of 1" in other.last_said("other-1").why


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
    want = "approval: restart on db2 waits for: salt-run selfheal.approve runbook-1.1"
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


def test_an_approval_is_for_the_nodes_that_were_ill_then():
    world = waiting()
    world.order("approve", incident="runbook-1")
    world.break_("db1")
    world.heal("db2")
    world.pass_time(60)
    assert world.fired == [("restart", ("db2",))]
    assert "restart on db1 waits for: salt-run selfheal.approve runbook-" in world.last_said().why


def test_an_approval_is_good_for_a_quarter_of_an_hour_after_each_of_its_attempts():
    world = World(policy(mode=Mode.APPROVE)).warm()
    world.break_("db1", "db2", fault=Fault.AUTH)
    world.pass_time(5)
    world.order("approve", incident="runbook-1")
    world.order("pause", "runbook", for_s=36000.0, reason="later")
    world.heal("db1")
    world.pass_time(36010)
    assert world.fired == [("highstate", ("db1",))]
    assert "highstate on db2 waits for" in world.last_said().why


def test_a_yes_to_one_attempt_is_none_to_the_next():
    world = waiting()
    world.order("approve", incident="runbook-1", attempt=1)
    world.publish()
    world.returns(Outcome.FAILED)
    world.pass_time(3)
    late = world.order("approve", incident="runbook-1", by="bob", attempt=1)
    assert late.reply is Reply.REFUSED
    assert late.why.startswith("runbook-1.1 is not what is decided now: runbook-1.2 would be next")
    assert world.order("reject", incident="runbook-1", attempt=1).reply is Reply.REFUSED
    assert world.order("approve", incident="runbook-1", attempt=2).reply is Reply.ACCEPTED


def test_an_approval_before_the_first_probe_is_taken():
    world = waiting()
    again = World(policy(mode=Mode.APPROVE), remembered=world.state.clusters, now=world.now + 60)
    again.break_("db2")
    assert again.order("approve", incident="runbook-1").reply in (Reply.ACCEPTED, Reply.HELD)
    again.pass_time(30)
    assert again.fired == [("restart", ("db2",))]


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
    assert (one.incident, one.step, one.on) == ("runbook-1", Action.RESTART, ("db2",))
    shut = [gate.name for gate in one.gates if not gate.open]
    assert shut == ["approval"]
    assert world.cluster.incidents[0].held == ("approval",)


def test_explain_supposes_a_death_where_nothing_is_wrong():
    world = World().warm()
    answer = world.order("explain", "runbook", nodes=("db1",))
    (one,) = answer.told
    assert one.why == "supposed that db1 were dead"
    assert [gate.name for gate in one.gates if not gate.open] == ["confirmed"]


def test_explain_supposes_no_incident_that_could_be_approved():
    world = World(policy(mode=Mode.APPROVE)).warm()
    (one,) = world.order("explain", "runbook", nodes=("db1",)).told
    why = {gate.name: gate.why for gate in one.gates}["approval"]
    assert why == "restart on db1 would wait for a person's approval"


def test_explain_of_a_locked_incident_tells_why():
    world = locked()
    one = world.order("explain", "runbook").told[0]
    assert one.phase is Phase.LOCKED
    assert one.why.startswith("no step is left")


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
    while world.cluster.look is None:  # asked again, and it has ended
        world.pass_time(1)
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
    assert [one.running for one in world.cluster.late] == [
        True
    ]  # any minion could have returned it
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


def ask(world, id, action="highstate", nodes=(), asker="app", door=Door.RUNNER, forced=False):
    request = Request(id, "runbook", action, tuple(nodes), "", door, asker, forced)
    world.step(Requested(request))
    return world.answer(id)


def finish(world):
    """Whatever was asked for is done on every node."""
    while world.in_flight:
        world.publish()
        world.returns()
        world.pass_time(2)
    world.pass_time(12)


def test_requests_that_open_are_limited_per_asker_and_per_cluster():
    plenty = policy(request_count=4, request_per_s=3600.0, cooldown_min_s=0.0, budget_attempts=0)
    world = World(plenty, limits=Limits(0, 3600.0, 0.0)).warm()
    for number in range(2):
        assert ask(world, f"a{number}").reply is Reply.ACCEPTED
        finish(world)
    third = ask(world, "a2")
    assert third.reply is Reply.REFUSED
    assert third.why.startswith("too many requests by runner:app: 2 of 2 per 3600 s; again in ")
    for number in range(2):
        assert ask(world, f"b{number}", asker="other").reply is Reply.ACCEPTED
        finish(world)
    assert "too many requests for runbook: 4 of 4" in ask(world, "c", asker="third").why


def test_requests_leave_half_of_the_budget_for_what_the_probe_finds():
    world = World(policy(cooldown_min_s=0.0)).warm()
    replies = []
    for number in range(3):
        replies.append(ask(world, f"a{number}", nodes=["db1"], door=Door.BUS).reply)
        finish(world)
        world.pass_time(60)
    assert replies == [Reply.ACCEPTED, Reply.HELD, Reply.JOINED]
    assert (
        "db1 has had 1 of 3 attempts per 3600 s, of which requests may use 1"
        in world.last_said("runbook-2").why
    )
    world.break_("db1")
    world.pass_time(10)
    assert world.fired == [("highstate", ("db1",)), ("restart", ("db1",))]


def test_requests_leave_half_of_the_limits_for_what_the_probe_finds():
    two = policy(cooldown_min_s=0.0), policy(name="other", nodes=("db8", "db9"))
    world = World(*two, limits=Limits(4, 3600.0, 0.0)).warm()
    ask(world, "a")
    finish(world)
    assert len(world.fired) == 2
    assert (
        "limits: over all clusters 2 of 4 attempts per 3600 s, of which requests may use 2"
        in world.last_said().why
    )
    world.break_("db9", cluster="other")
    world.pass_time(10)
    assert world.fired[-1] == ("restart", ("db9",))


def test_a_wish_is_joined_by_the_same_wish_only():
    world = World().warm()
    first = ask(world, "a", "start", ["db1"], door=Door.BUS)
    assert first.reply is Reply.ACCEPTED
    other = ask(world, "b", "highstate", ["db2"])
    assert other.reply is Reply.HELD
    assert other.incident != first.incident
    assert ask(world, "c", "highstate", ["db2"], asker="other").incident == other.incident
    assert ask(world, "d", "highstate").incident not in (first.incident, other.incident)


def test_what_was_asked_too_long_ago_is_not_done():
    world = World().warm()
    old = Request("a", "runbook", "highstate", at=world.now - 901.0)
    told = next(e for e in world.step(Requested(old)) if isinstance(e, Answer))
    assert (told.reply, told.why) == (
        Reply.REFUSED,
        "asked 901 s ago, when no engine ran to decide it: ask again",
    )
    assert world.fired == []


def test_a_flood_of_refusals_is_not_told_one_by_one():
    world = World().warm()
    answers = [ask(world, f"a{n}", "dance", door=Door.BUS) for n in range(50)]
    assert {a.reply for a in answers} == {Reply.REFUSED}
    assert [a.repeated for a in answers].count(False) == 10
    assert not ask(world, "other", "dance").repeated
    world.pass_time(61)
    assert not ask(world, "later", "dance", door=Door.BUS).repeated


def test_an_answer_names_few_of_many_unknown_nodes():
    world = World().warm()
    told = ask(world, "a", nodes=[f"x{n}" for n in range(64)])
    assert told.why.startswith("no node 'x0', 'x1', 'x2', 'x3', 'x4' and 59 more in runbook")


def test_a_wish_whose_job_does_not_end_makes_way_for_a_fault():
    world = World().warm()
    ask(world, "a", nodes=["db2"], door=Door.BUS)
    world.publish()
    world.break_("db1")
    restart = ("restart", ("db1",))
    while restart not in world.fired and world.now < 1_000_400:
        world.pass_time(1)
        look = world.cluster.look
        if look is not None and not look.results:
            world.step(Published(look.id))
            world.step(Returned(look.id, "db2", Outcome.BUSY, "it runs"))
    assert restart in world.fired
    assert world.now - 1_000_020 < 60 + 60  # the attempt's timeout, and two looks


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
    ask(world, "a", door=Door.BUS, asker="app1 (claimed)")
    finish(world)
    assert ask(world, "b", door=Door.BUS, asker="app2 (claimed)").reply is Reply.REFUSED


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


# ---------------------------------------------------------------- what simulation had found


def test_ack_frees_a_nodes_budget_and_never_the_limits():
    limits = Limits(attempts=2, per_s=3600.0, storm_share=0.0)
    world = World(policy(budget_attempts=1, cooldown_min_s=0.0), limits=limits).warm()
    world.break_("db1")
    world.pass_time(5)
    for number in range(5):
        if world.in_flight:
            world.publish()
            world.returns(Outcome.FAILED)
        world.pass_time(5)
        if world.cluster.incidents[0].phase is Phase.LOCKED:
            world.order("ack", incident=f"runbook-{number + 1}")
        world.pass_time(8)
    assert len(world.fired) == 2
    assert "limits" in world.last_said(world.cluster.incidents[0].id).why


def test_a_job_that_was_written_off_and_runs_after_all_is_paid_for_and_waited_for():
    world = World().warm()
    world.break_("db2")
    world.pass_time(60)
    assert ("runbook-1.1", Outcome.LOST) in world.finished
    assert world.cluster.nodes["db2"].spent == ()
    world.step(Published("runbook-1.1"))
    assert len(world.cluster.nodes["db2"].spent) == 1
    assert len(world.cluster.acts) == 1
    (late,) = told(world, "late")
    assert (
        late.why == "restart of runbook-1.1 was published: that was not known when it was given up"
    )
    world.pass_time(90)
    assert set(world.fired[1:]) == {("look", ("db2",))}
    world.step(Returned("runbook-1.1", "db2", Outcome.DONE))
    world.pass_time(40)  # a look has said the same
    assert not any(late.attempt.id == "runbook-1.1" for late in world.cluster.late)


def test_a_job_that_was_assumed_to_have_run_is_paid_for_once():
    world = World().warm()
    world.break_("db2")
    world.cache_readable = False
    world.pass_time(600)
    assert world.finished[0] == ("runbook-1.1", Outcome.TIMED_OUT)
    paid, acts = world.cluster.nodes["db2"].spent, world.cluster.acts
    world.step(Published("runbook-1.1"))
    assert (world.cluster.nodes["db2"].spent, world.cluster.acts) == (paid, acts)


def test_a_machine_that_boots_is_given_its_time():
    confirm = {**dict.fromkeys(Fault, 10.0), Fault.DEAD: 3.0}
    world = World(policy(confirm_s=confirm)).warm()
    world.break_("db2", fault=Fault.UNREACHABLE)
    world.pass_time(60)
    world.break_("db2", fault=Fault.DEAD)  # its network is up, the database about to start
    world.pass_time(2)
    world.mend("db2")
    world.pass_time(30)
    assert world.fired == []
