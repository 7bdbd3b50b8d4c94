"""The highstate that is tried in test mode first: `changes`, `tested`, and what the table makes of it."""

import math
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saltext_selfheal.healing import changes, questions, tested, testimony
from saltext_selfheal.healing.changes import Verdict
from saltext_selfheal.healing.events import Observation, Observed, Returned, Started, Verb
from saltext_selfheal.healing.explain import explain
from saltext_selfheal.healing.model import Action, Announce, Fault, Mode, Outcome, Phase, Step
from tests.unit.world import World, policy

HIGHSTATE, RESTART = Step(Action.HIGHSTATE), Step(Action.RESTART)
MET = {"file.managed /etc/motd": True, "service.running rethinkdb": True}
DRIFTED = {"file.managed /etc/motd": None, "service.running rethinkdb": True}


def dict_of(states):
    """The states' dict that Salt returns, for ``module.function id`` → result."""
    found = {}
    for number, (state, result) in enumerate(states.items()):
        function, _, id_ = state.partition(" ")
        module, _, function = function.partition(".")
        value = {"result": result, "comment": "", "changes": {}, "__run_num__": number}
        found[f"{module}_|-{id_}_|-{id_}_|-{function}"] = value
    return found


def world(*steps, fault=Fault.AUTH, **more):
    steps = steps or (HIGHSTATE, RESTART)
    confirm = {**dict.fromkeys(Fault, 10.0), fault: 3.0}
    more = {"test_first_s": 20.0, "escalation": {fault: steps}, **more}
    return World(policy(confirm_s=confirm, poll_s=1.0, **more)).warm()


def ill(*steps, fault=Fault.AUTH, nodes=("db1",), **more):
    """A world in which a highstate is due on these nodes."""
    site = world(*steps, fault=fault, **more)
    site.break_(*nodes, fault=fault)
    site.pass_time(5)
    return site


def answer(site, states, node="db1"):
    asked = questions.in_flight(site.cluster, node, Action.TEST_HIGHSTATE)
    told = changes.read(states if not isinstance(states, dict) else dict_of(states), 0)
    site.step(Returned(asked.id, node, Outcome.DONE, told.sentence, told))


def words(site):
    return [e.why for e in site.effects if isinstance(e, Announce)]


def runs_of(site):
    return [nodes[0] for action, nodes in site.fired if action == "test_highstate"]


def acts(site):
    return [(a, nodes) for a, nodes in site.fired if a not in ("test_highstate", "look", "witness")]


def gate_of(site):
    one = next(e for e in explain(site.state, "runbook", (), site.now) if e.incident)
    return next(g for g in one.gates if g.name == "tested")


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize(
    ("states", "verdict"),
    [
        (MET, Verdict.NOTHING),
        (DRIFTED, Verdict.WOULD_CHANGE),
        ({"service.running rethinkdb": None}, Verdict.WOULD_CHANGE),
        ({"cmd.run x": None, **MET}, Verdict.CANNOT_TELL),
        ({"module.run x": None, **MET}, Verdict.CANNOT_TELL),
        ({"cmd.run x": None, **DRIFTED}, Verdict.WOULD_CHANGE),
        ({"cmd.run x": True, **MET}, Verdict.NOTHING),  # its `unless` is met
        ({"pkg.installed x": False, **DRIFTED}, Verdict.CANNOT_TELL),
        ({"pkg.installed x": 0, **MET}, Verdict.CANNOT_TELL),
        ({"pkg.installed x": "yes", **MET}, Verdict.CANNOT_TELL),
        ({"pkg.installed x": math.nan, **MET}, Verdict.CANNOT_TELL),
    ],
)
def test_a_test_run_is_judged_by_its_results_alone(states, verdict):
    assert changes.read(dict_of(states), 0).verdict is verdict


NESTED = []
for _ in range(1000):
    NESTED = [NESTED]


@pytest.mark.parametrize(
    "result",
    [
        None,
        True,
        0,
        math.nan,
        "",
        "x" * 10_000_000,
        [],
        ['The function "state.highstate" is running as PID 7'],
        NESTED,
        {},
        {"a": 1},
        {1: {"result": True}},
        {"file_|-a_|-a_|-managed": {}},
        {"file_|-a_|-a_|-managed": [True]},
        {"no_|-states_|-states_|-None": {"result": False, "comment": "No Top file"}},
        {"name": "state.highstate", "result": "False", "comment": "is disabled"},
        {**dict_of(MET), "odd": 5},
    ],
)
def test_what_is_no_result_of_states_proves_nothing(result):
    told = changes.read(result, 0)
    assert told.verdict is Verdict.CANNOT_TELL
    assert told.states == () and 0 < len(told.why) < 1000


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(string.printable, max_size=9),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text("file_|-abresult", max_size=24), inner, max_size=3),
    max_leaves=12,
)


@given(VALUES, st.none() | st.integers())
def test_reading_never_fails(result, retcode):
    assert isinstance(changes.read(result, retcode).verdict, Verdict)
    changes.changed(result)


def test_names_are_cut_and_commands_are_not_told():
    told = changes.read(dict_of({f"file.managed /etc/{'x' * 300}{i}": None for i in range(99)}), 0)
    assert sum(map(len, told.states)) <= changes.MOST_TEXT
    assert told.why.endswith("and 94 more")
    secret = {"cmd.run mysql -p swordfish": None, "module.run swordfish": None, **DRIFTED}
    assert "swordfish" not in str(changes.read(dict_of(secret), 0))


def test_what_a_real_one_has_changed_is_told_and_a_service_is_no_drift():
    result = dict_of({"file.managed /etc/motd": True, "service.running rethinkdb": True})
    for state in result.values():
        state["changes"] = {"diff": "secret"}
    told = changes.changed(result)
    assert told.states == ("file.managed /etc/motd", "service.running rethinkdb")
    assert told.drift == ("file.managed /etc/motd",)
    assert "secret" not in str(told)
    assert changes.changed(dict_of(MET)) is None


# ---------------------------------------------------------------- deciding


def test_a_highstate_waits_for_its_test_run_and_is_made_then():
    site = ill()
    assert runs_of(site) == ["db1"] and acts(site) == []
    gate = gate_of(site)
    assert not gate.open and gate.why == "what a highstate would change on db1 is asked"
    assert gate.opens_at is not None
    answer(site, DRIFTED)
    assert acts(site) == [("highstate", ("db1",))]
    assert site.last_said().why == (
        "highstate on db1 (db1: it would change file.managed /etc/motd)"
    )


def test_one_that_would_change_nothing_is_left_out_and_costs_nothing():
    site = ill()
    answer(site, MET)
    assert acts(site) == [("restart", ("db1",))] or site.cluster.incidents[0].step == 1
    assert "a highstate would change nothing on db1" in words(site)
    assert all(a != "highstate" for a, _ in acts(site))
    assert len(site.cluster.nodes["db1"].spent) <= 1


@pytest.mark.parametrize("told", [{"cmd.run x": None}, ["does not compile"], None, "x"])
def test_one_that_cannot_tell_is_made(told):
    site = ill()
    answer(site, told)
    assert acts(site) == [("highstate", ("db1",))]


def test_a_silent_minion_holds_it_up_for_its_time_and_no_longer():
    site = ill()
    site.pass_time(18)
    assert acts(site) == []
    site.pass_time(4)
    assert acts(site) == [("highstate", ("db1",))] and runs_of(site) == ["db1"]


def test_a_late_answer_and_a_second_one_change_nothing():
    site = ill()
    asked = questions.in_flight(site.cluster, "db1", Action.TEST_HIGHSTATE)
    answer(site, DRIFTED)
    told = changes.read(dict_of(MET), 0)
    site.step(Returned(asked.id, "db1", Outcome.DONE, "", told))
    site.step(Returned(asked.id, "db2", Outcome.DONE, "", told))
    assert site.cluster.nodes["db1"].foreseen.verdict is Verdict.WOULD_CHANGE
    assert site.cluster.nodes["db2"].foreseen is None


def test_without_the_setting_none_is_made():
    site = ill(test_first_s=0.0)
    assert runs_of(site) == [] and acts(site) == [("highstate", ("db1",))]


@pytest.mark.parametrize("mode", [Mode.OFF, Mode.SHADOW])
def test_where_the_healer_does_not_act_it_tests_nothing(mode):
    assert ill(mode=mode).fired == []


def test_a_paused_healer_tests_nothing():
    site = world()
    site.order(Verb.PAUSE, "runbook", for_s=600.0)
    site.break_("db1", fault=Fault.AUTH)
    site.pass_time(20)
    assert site.fired == []


def test_a_person_who_is_asked_sees_what_would_change():
    site = ill(mode=Mode.APPROVE)
    assert runs_of(site) == ["db1"]
    answer(site, DRIFTED)
    assert acts(site) == []
    assert gate_of(site).why == "db1: it would change file.managed /etc/motd"
    site.order(Verb.APPROVE, incident="runbook-1")
    assert acts(site) == [("highstate", ("db1",))]


def test_what_was_told_is_asked_again_when_it_is_old():
    """While a person's approval is missing, once is enough."""
    site = ill(mode=Mode.APPROVE)
    answer(site, DRIFTED)
    site.pass_time(2 * tested.VALID_S)
    assert runs_of(site) == ["db1"]
    site.order(Verb.APPROVE, incident="runbook-1")
    assert runs_of(site) == ["db1", "db1"] and acts(site) == []
    answer(site, DRIFTED)
    assert acts(site) == [("highstate", ("db1",))]


def test_each_highstate_of_an_incident_is_tested_anew():
    site = ill(HIGHSTATE, HIGHSTATE, cooldown_min_s=1.0, verify_s=5.0)
    answer(site, DRIFTED)
    site.publish()
    site.returns(Outcome.DONE)
    site.pass_time(10)
    assert runs_of(site) == ["db1", "db1"] and len(acts(site)) == 1
    answer(site, MET)
    assert len(acts(site)) == 1
    assert site.last_said().incident.phase is Phase.LOCKED


def test_a_spent_budget_locks_without_a_test_run():
    site = ill(HIGHSTATE, HIGHSTATE, cooldown_min_s=1.0, verify_s=5.0, budget_attempts=1)
    answer(site, DRIFTED)
    site.publish()
    site.returns(Outcome.DONE)
    site.pass_time(10)
    assert runs_of(site) == ["db1"]
    assert site.last_said().incident.phase is Phase.LOCKED


def test_a_dead_node_whose_process_was_not_seen_is_beyond_a_highstate():
    site = ill(HIGHSTATE, RESTART, fault=Fault.DEAD)
    answer(site, MET)
    why = "a highstate would change nothing on db1; what is wrong with db1 it cannot see"
    assert why in words(site)
    assert acts(site) == [("restart", ("db1",))]


def test_where_the_minion_sees_the_process_nothing_more_is_said():
    told = testimony.read({"version": 1, "process": {"state": "runs"}, "listens": True})
    site = ill(HIGHSTATE, RESTART, fault=Fault.HUNG, witness_s=5.0)
    question = next(q for q in site.cluster.questions if q.action is Action.WITNESS)
    site.step(Returned(question.id, "db1", Outcome.DONE, "", told))
    site.pass_time(1)
    answer(site, MET)
    assert "a highstate would change nothing on db1" in words(site)


def test_a_highstate_that_is_asked_for_and_would_change_nothing_ends_at_once():
    site = world()
    site.ask("highstate", nodes=("db1", "db2"))
    answer(site, MET, "db1")
    answer(site, MET, "db2")
    assert acts(site) == []
    last = site.last_said()
    assert last.incident.phase is Phase.RESOLVED
    assert last.why == "a highstate would change nothing on db1, db2"


def test_each_incident_has_a_test_run_of_its_own():
    site = world()
    site.ask("highstate", nodes=("db1",))
    answer(site, MET, "db1")
    site.pass_time(5)
    site.ask("highstate", nodes=("db1",), id="r2")
    assert runs_of(site) == ["db1", "db1"]
    answer(site, DRIFTED, "db1")
    assert acts(site) == [("highstate", ("db1",))]


def test_of_several_nodes_only_those_are_done_where_something_would_change():
    site = world()
    site.ask("highstate", nodes=("db1", "db2"))
    answer(site, MET, "db1")
    answer(site, DRIFTED, "db2")
    assert acts(site) == [("highstate", ("db2",))]


def test_after_a_start_nothing_is_left_out_before_all_nodes_were_seen():
    site = ill(HIGHSTATE, nodes=("db1", "db2"))
    site.step(Started())
    question = questions.in_flight(site.cluster, "db1", Action.TEST_HIGHSTATE)
    site.step(Observed(Observation("runbook", "db1", Fault.AUTH, "refused")))
    told = changes.read(dict_of(MET), 0)
    site.step(Returned(question.id, "db1", Outcome.DONE, "", told))
    assert site.cluster.incidents[0].step == 0  # db2 may need it
    site.pass_time(20)
    assert runs_of(site)[:2] == ["db1", "db2"]
    answer(site, MET, "db2")
    site.pass_time(1)
    assert site.last_said().incident.phase is Phase.LOCKED


def test_the_drift_that_was_mended_is_named():
    site = ill()
    answer(site, DRIFTED)
    site.publish()
    result = dict_of({"file.managed /etc/motd": True})
    next(iter(result.values()))["changes"] = {"diff": "x"}
    attempt = site.in_flight
    told = changes.changed(result)
    site.mend("db1")
    site.step(Returned(attempt.id, "db1", Outcome.DONE, "1 states", told))
    site.pass_time(60)
    assert site.last_said().why == (
        "well for 10 s after highstate; the configuration had drifted: file.managed /etc/motd"
    )
