"""What observers say about a node, and what the healer makes of it: `sighting` and `observers`."""

import json
import math
import string

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saltext_selfheal.healing import observers, questions, results, sighting, testimony
from saltext_selfheal.healing.events import Returned, Started, Verb, Watchers
from saltext_selfheal.healing.explain import explain
from saltext_selfheal.healing.model import Action, Fault, Mode, Outcome, Phase, Step
from saltext_selfheal.healing.sighting import Sighting
from tests.unit.world import World, policy

APPS = ("app1", "app2", "app3")


def look(**changes):
    """What ``selfheal.probe`` returns."""
    base = {
        "well": False,
        "fault": "hung",
        "ours": False,
        "evidence": "10.0.0.12:28015 accepts TCP, but no handshake within 3 s",
        "latency_ms": 3000.0,
        "server_id": None,
        "server_name": None,
        "version": None,
        "proxy": False,
        "addresses": ["10.0.0.12:28015"],
    }
    return {**base, **changes}


UP = look(well=True, fault=None, evidence="answers")
DOWN = look()


STEPS = (Step(Action.RESTART), Step(Action.HIGHSTATE))


def world(there=APPS, **changes):
    escalation = {Fault.UNREACHABLE: STEPS, Fault.HUNG: STEPS}
    base = {"observers_quorum": 2, "observers_s": 3.0, "escalation": escalation}
    site = World(policy(**{**base, **changes})).warm()
    if there is not None:
        site.step(Watchers("runbook", there))
    return site


def asked(site):
    return [one for one in site.cluster.questions if one.action is Action.PROBE]


def probes(site):
    return [nodes for action, nodes in site.fired if action == "probe"]


def acted(site):
    return [one for one in site.fired if one[0] not in ("probe", "look", "witness")]


def answer(site, **told):
    """Observers answer the question that is in flight."""
    (one,) = asked(site)
    for who, what in told.items():
        said = sighting.read(what)
        outcome, detail = results.sighting(what, 0, None)
        site.step(Returned(one.id, who, outcome, detail, said))


def gate(site, name="observers"):
    told = next(e for e in explain(site.state, "runbook", (), site.now) if e.incident)
    return next(g for g in told.gates if g.name == name)


def held(site):
    return [why for _, said, why in announced(site) if said == "held"]


def announced(site):
    return [(e.incident.id, e.said, e.why) for e in site.effects if hasattr(e, "said")]


# ---------------------------------------------------------------- reading what an observer tells

NESTED = {"well": True}
for _ in range(1000):
    NESTED = {"well": NESTED, "evidence": [NESTED]}


@pytest.mark.parametrize(
    "told",
    [
        None, True, 3, "down", [], [DOWN], {}, b"x", math.nan, NESTED, {"well": False}, "x" * 10_000_000,
        look(well="no"), look(well=math.nan), look(well=1), look(ours=None), look(ours="yes"), look(fault=["hung"]),
        look(well=True), look(well=False, fault=None), look(fault=NESTED), look(fault=7),
    ],
)  # fmt: skip
def test_what_is_no_look_at_a_node_is_no_word(told):
    assert sighting.read(told) is None
    outcome, why = results.sighting(told, 0, None)
    assert len(why) < 400 and (outcome is Outcome.FAILED or isinstance(told, dict))


@pytest.mark.parametrize(
    ("told", "down"),
    [
        (UP, False),
        (look(fault="auth", evidence="refuses the login"), False),
        (look(fault="tls"), False),
        (look(fault="slow"), False),
        (DOWN, True),
        (look(fault="dead"), True),
        (look(fault="unreachable"), True),
        (look(fault="dead", ours=True), None),
        (look(well=True, fault=None, ours=True), None),
        (look(fault="alien"), None),
        (look(fault="DEAD"), None),
        (look(fault="anything"), None),
        (look(fault="unreachable", addresses=[]), None),  # it does not know the name
        (look(fault="unreachable", addresses=None), None),
        (look(fault="unreachable", addresses=[7]), None),
        (look(fault="unreachable", addresses=["x"] * 1000), None),
        (look(evidence=None), True),
        (look(evidence=["hung"]), True),
    ],
)  # fmt: skip
def test_what_a_look_says(told, down):
    assert sighting.read(told).down is down


def test_what_an_observer_says_itself_is_cut():
    said = sighting.read(look(evidence="x" * 10_000_000))
    assert len(said.why) == 200 and len(said.sentence) < 250


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(string.printable, max_size=9),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(sorted(DOWN)), JSON).map(lambda told: {**DOWN, **told}))
def test_reading_never_fails(told):
    said = sighting.read(told)
    assert said is None or said.down in (True, False, None)
    json.dumps(said.sentence if said else "")


# ---------------------------------------------------------------- asking


def test_they_are_asked_when_no_other_gate_is_shut_and_the_step_is_taken_when_enough_agree():
    site = world()
    site.break_("db2", fault=Fault.HUNG)
    site.pass_time(2)
    assert not probes(site)  # it is only suspected
    site.pass_time(2)
    assert probes(site) == [APPS] and not acted(site)
    (one,) = asked(site)
    assert one.about == "db2" and one.id == "runbook-1-probe-db2-1"
    answer(site, app1=DOWN)
    assert not acted(site)
    answer(site, app2=DOWN)
    assert acted(site) == [("restart", ("db2",))]
    assert not held(site)


def test_without_the_setting_nobody_is_asked():
    site = world(observers_quorum=0)
    site.break_("db2", fault=Fault.HUNG)
    site.pass_time(5)
    assert not probes(site) and acted(site) == [("restart", ("db2",))]


@pytest.mark.parametrize("fault", [Fault.DEAD, Fault.AUTH, Fault.ALIEN])
def test_other_faults_need_no_observers(fault):
    site = world()
    site.break_("db2", fault=fault)
    site.pass_time(8)
    assert not probes(site) and acted(site)


def test_requests_need_no_observers():
    site = world()
    site.ask("highstate", ["db2"])
    assert not probes(site) and acted(site)


def test_a_refused_connection_needs_them_if_the_setting_says_so():
    site = world(observers_always=True)
    site.break_("db1", "db2", "db3")
    site.pass_time(8)
    assert len(probes(site)) == 3 and not acted(site)
    for one in asked(site):
        for who in APPS[:2]:
            site.step(Returned(one.id, who, Outcome.DONE, "", sighting.read(look(fault="dead"))))
    ((action, nodes),) = acted(site)
    assert action == "restart" and nodes == ("db1", "db2", "db3")  # together, as ever


def test_one_that_reaches_the_node_holds_the_healer():
    site = world()
    site.break_("db2", fault=Fault.UNREACHABLE)
    site.pass_time(5)
    answer(site, app1=UP, app2=DOWN, app3=DOWN)
    site.pass_time(1)
    assert not acted(site)
    assert gate(site).why == (
        "the observers do not agree about db2: app1 reaches it, app2, app3 cannot"
    )
    assert held(site) == ["observers: db2 is unreachable from the master only: app1 reaches it"]


def test_unreachable_from_the_master_only_is_told_once_and_asked_again_every_half_minute():
    site = world()
    site.break_("db2", fault=Fault.UNREACHABLE)
    site.pass_time(5)
    answer(site, app1=UP, app2=look(fault="auth"))
    site.pass_time(20)
    assert held(site) == ["observers: db2 is unreachable from the master only: app1 reaches it"]
    told = "db2 is unreachable from the master only: app1, app2 (and is refused the login) reach it"
    assert gate(site).why == told and len(probes(site)) == 1
    site.pass_time(10)
    assert len(probes(site)) == 2
    answer(site, app1=UP, app2=UP, app3=UP)
    site.pass_time(300)
    assert len(held(site)) == 1 and not acted(site)
    assert 10 <= len(probes(site)) <= 12
    assert site.cluster.incidents[0].phase is Phase.OPEN  # the healer waits, and gives nothing up


def test_a_later_word_replaces_an_earlier_one():
    site = world()
    site.break_("db2", fault=Fault.UNREACHABLE)
    site.pass_time(5)
    answer(site, app1=UP, app2=DOWN, app3=DOWN)
    site.pass_time(31)
    answer(site, app1=DOWN, app2=DOWN, app3=DOWN)
    assert acted(site) == [("restart", ("db2",))]


def test_too_few_answers_are_told_by_name():
    site = world()
    site.break_("db2", fault=Fault.HUNG)
    site.pass_time(5)
    answer(site, app1=DOWN)
    site.pass_time(10)
    assert not acted(site)
    (told,) = held(site)
    assert told == (
        "observers: 2 of app1, app2, app3 must agree that db2 is down, "
        "and app1 cannot reach it, app2, app3 did not answer"
    )
    assert gate(site).why == told.removeprefix("observers: ")


def test_who_cannot_tell_is_named_with_the_reason():
    site = world()
    site.break_("db2", fault=Fault.HUNG)
    site.pass_time(5)
    answer(
        site,
        app1=DOWN,
        app2=look(ours=True, evidence="no route"),
        app3="'selfheal.probe' is not available.",
    )
    site.pass_time(1)
    assert not acted(site)
    assert (
        "app2 cannot tell (no route); app3 cannot tell (the minion does not have this function"
        in gate(site).why
    )


@pytest.mark.parametrize(
    ("there", "why"),
    [
        (None, "it is not known yet which observers are there"),
        ((), "no observer is there: no accepted key matches clusters.runbook.observers.minions"),
    ],
)  # fmt: skip
def test_where_nobody_is_there_the_gate_is_shut_and_says_why(there, why):
    site = world(there)
    site.break_("db2", fault=Fault.HUNG)
    site.pass_time(30)
    assert not acted(site) and not probes(site) and held(site) == [f"observers: {why}"]


def test_one_alone_is_no_quorum():
    site = world(("app1",))
    site.break_("db2", fault=Fault.HUNG)
    site.pass_time(5)
    answer(site, app1=DOWN)
    site.pass_time(1)
    assert "only 1 is there" in gate(site).why and not acted(site)


def test_words_that_come_too_late_or_twice_or_from_others_count_for_nothing():
    site = world()
    site.break_("db2", fault=Fault.HUNG)
    site.pass_time(5)
    (one,) = asked(site)
    for who in ("app1", "app1", "db1", "app9"):
        site.step(Returned(one.id, who, Outcome.DONE, "", Sighting(True)))
    assert set(site.cluster.nodes["db2"].sightings) == {"app1"}
    site.step(Returned(one.id, "app1", Outcome.DONE, "", Sighting(False)))
    assert site.cluster.nodes["db2"].sightings["app1"].down
    site.pass_time(9)
    assert not asked(site)
    site.step(Returned(one.id, "app2", Outcome.DONE, "", Sighting(True)))
    site.pass_time(1)
    assert not acted(site) and set(site.cluster.nodes["db2"].sightings) == {"app1"}


def test_no_word_outlives_the_illness_the_attempt_or_a_start():
    site = world()
    site.break_("db2", fault=Fault.HUNG)
    site.pass_time(5)
    answer(site, app1=DOWN, app2=DOWN, app3=DOWN)
    assert len(acted(site)) == 1
    site.publish()
    site.pass_time(2)
    site.returns(Outcome.FAILED)
    site.pass_time(3)
    assert len(acted(site)) == 1 and len(probes(site)) == 2  # after the attempt they are asked anew
    site.step(Started())
    assert not site.cluster.nodes["db2"].sightings


def test_old_words_do_not_count():
    site = world(mode=Mode.APPROVE)
    site.break_("db2", fault=Fault.HUNG)
    site.pass_time(5)
    answer(site, app1=DOWN, app2=DOWN, app3=DOWN)
    site.pass_time(1)
    assert gate(site).open
    site.pass_time(59)
    assert len(probes(site)) == 2 and not gate(site).open
    answer(site, app1=DOWN, app2=DOWN, app3=DOWN)
    # It waits for a person, and that is all that was told.
    assert [why[:9] for why in held(site)] == ["approval:"]
    site.order(Verb.APPROVE, incident="runbook-1")
    assert acted(site) == [("restart", ("db2",))]


def test_while_they_are_asked_again_what_is_held_is_not_announced_anew():
    site = world(mode=Mode.APPROVE)
    site.break_("db2", fault=Fault.HUNG)
    site.pass_time(200)
    assert len(probes(site)) > 4
    assert [why.split(":")[0] for why in held(site)] == ["approval", "observers"]


def test_a_node_that_nobody_contradicts_does_not_wait_for_one_that_is():
    site = world()
    site.break_("db1", "db2", fault=Fault.UNREACHABLE)
    site.pass_time(5)
    (one,) = asked(site)
    assert one.about == "db1"
    answer(site, app1=UP, app2=UP, app3=UP)
    site.pass_time(1)
    one = asked(site)[-1]
    assert one.about == "db2"
    answer(site, app1=DOWN, app2=DOWN, app3=DOWN)
    assert [nodes for _, nodes in acted(site)] == [("db2",)]


def test_a_budget_that_is_spent_locks_without_asking():
    site = world(budget_attempts=1, verify_s=2.0)
    site.break_("db2", fault=Fault.HUNG)
    site.pass_time(5)
    answer(site, app1=DOWN, app2=DOWN, app3=DOWN)
    site.publish()
    site.pass_time(2)
    site.returns(Outcome.DONE)
    site.pass_time(60)
    assert site.cluster.incidents[0].phase is Phase.LOCKED
    assert len(probes(site)) == 1


def test_nobody_is_asked_while_the_healer_may_not_act():
    site = world()
    site.order(Verb.PAUSE, "runbook", for_s=600.0, reason="upgrade")
    site.break_("db2", fault=Fault.HUNG)
    site.pass_time(60)
    assert not probes(site)
    assert held(site) == ["paused: by ann for 596 s more: upgrade"]


def test_a_process_that_listens_by_its_own_minions_word_makes_a_death_doubtful():
    site = world(witness_s=5.0)
    site.break_("db2")
    site.pass_time(2)
    told = testimony.read(
        {"version": 1, "process": {"state": "runs", "age_s": 99}, "listens": True}
    )
    one = questions.in_flight(site.cluster, "db2")
    site.step(Returned(one.id, "db2", Outcome.DONE, told.sentence, told))
    site.pass_time(5)
    assert probes(site) == [APPS] and not acted(site)
    answer(site, app1=UP, app2=UP, app3=UP)
    site.pass_time(1)
    assert held(site) == ["observers: db2 is dead from the master only: app1 reaches it"]


def test_without_observers_that_word_changes_nothing():
    site = world(witness_s=5.0, observers_quorum=0)
    site.break_("db2")
    site.pass_time(2)
    told = testimony.read(
        {"version": 1, "process": {"state": "runs", "age_s": 99}, "listens": True}
    )
    one = questions.in_flight(site.cluster, "db2")
    site.step(Returned(one.id, "db2", Outcome.DONE, told.sentence, told))
    site.pass_time(5)
    assert acted(site)


def test_minions_of_a_database_are_never_asked():
    site = world(("db1", "app1", "app1", *(f"x{n}" for n in range(20))))
    assert len(site.state.watchers["runbook"]) == observers.MOST
    assert "db1" not in site.state.watchers["runbook"]
    site.step(Watchers("other", ("app1",)))
    assert "other" not in site.state.watchers


def test_what_would_be_asked_of_a_node_that_were_dead_is_explained():
    site = world(observers_always=True)
    told = next(e for e in explain(site.state, "runbook", ("db1",), site.now))
    one = next(g for g in told.gates if g.name == "observers")
    assert one.open and one.why == "observers would be asked: app1, app2, app3"
