"""What a node's own minion says, and what the healer makes of it: `questions`, `testimony` and `witnessed`."""

import json
import math
import string

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saltext_selfheal.healing import questions, testimony
from saltext_selfheal.healing.events import Returned, Started, Verb
from saltext_selfheal.healing.explain import explain
from saltext_selfheal.healing.model import Action, Fault, Mode, Outcome, Phase, Step
from saltext_selfheal.healing.testimony import ADVICE, Ground, Process
from tests.unit.world import World, policy

#: What is fired and only asks.
ASKS = ("witness", "salt_witness", "look")

GONE = {"process": {"state": "gone"}, "listens": False}
LOADS = {"process": {"state": "runs", "age_s": 1.0}, "listens": False}
FULL = {**GONE, "directory": {"path": "/data", "free_bytes": 0}}


def report(**parts):
    """What ``selfheal.witness`` returns, as far as a test needs it."""
    return {"version": 1, **parts}


def world(**changes):
    confirm = {**dict.fromkeys(Fault, 10.0), Fault.DEAD: 3.0}
    return World(policy(witness_s=5.0, confirm_s=confirm, poll_s=1.0, **changes)).warm()


def answer(site, node="db1", **parts):
    """The minion answers the question that is in flight."""
    asked = questions.in_flight(site.cluster, node)
    told = testimony.read(report(**parts))
    return site.step(Returned(asked.id, node, Outcome.DONE, told.sentence, told))


def asked(site):
    return [nodes[0] for action, nodes in site.fired if action == "witness"]


def acted(site):
    return [(action, nodes) for action, nodes in site.fired if action not in ASKS]


def gates_of(site, name):
    one, *_ = (e for e in explain(site.state, "runbook", (), site.now) if e.incident)
    return next(g for g in one.gates if g.name == name)


# ---------------------------------------------------------------- reading what a minion tells


@pytest.mark.parametrize(
    "told",
    [None, True, 3, "gone", [], [{"version": 1}], {}, {"version": 2}, {"version": "1"}, b"x"],
)
def test_what_is_no_testimony_is_none(told):
    assert testimony.read(told) is None


NESTED = {"version": 1}
for _ in range(1000):
    NESTED = {"version": 1, "process": NESTED}


@pytest.mark.parametrize(
    "parts",
    [
        {"process": "gone"},
        {"process": {"state": ["gone"]}},
        {"process": {"state": "gone", "age_s": math.nan}, "listens": 1},
        {"process": {"state": "runs", "age_s": -1}, "listens": "no"},
        {"process": {"state": "runs", "age_s": math.inf}},
        {"process": {"state": "runs", "age_s": 10**400}},
        {"process": {"state": "runs", "age_s": True}},
        {"directory": {"free_bytes": math.nan, "free_inodes": "0", "read_only": "yes"}},
        {"holder": {}, "oom_kill": [], "log": 5, "pid_file": None},
        {"log": {"line": ["Ran out of disk space"], "age_s": 1}},
        NESTED,
    ],
)
def test_nonsense_in_a_part_proves_nothing(parts):
    told = testimony.read({**report(**parts)})
    assert told.ground is None and not told.runs_unheard
    assert told.age_s is None and len(told.why) < 1000


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(string.printable, max_size=20),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
PARTS = st.dictionaries(
    st.sampled_from(["process", "listens", "holder", "directory", "pid_file", "oom_kill", "log"]),
    JSON
    | st.dictionaries(
        st.sampled_from(["state", "age_s", "line", "pid", "alive", "free_bytes"]), JSON
    ),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(PARTS)
def test_reading_never_fails(parts):
    told = testimony.read(report(**parts))
    assert isinstance(told.process, Process)
    json.dumps(told.why)


@pytest.mark.parametrize(
    ("parts", "ground"),
    [
        ({"directory": {"path": "/d", "free_bytes": 4096}}, Ground.DISK_FULL),
        ({"directory": {"path": "/d", "free_bytes": 1 << 30, "free_inodes": 0}}, Ground.DISK_FULL),
        ({"directory": {"path": "/d", "read_only": True}}, Ground.READ_ONLY),
        ({"holder": {"pid": 7, "name": "nginx"}}, Ground.PORT_TAKEN),
        ({"oom_kill": {"age_s": 4.0, "what": "rethinkdb"}}, Ground.OUT_OF_MEMORY),
        ({"oom_kill": {"age_s": None, "what": "rethinkdb"}}, Ground.OUT_OF_MEMORY),
        ({"oom_kill": {"age_s": 61.0, "what": "rethinkdb"}}, None),
        ({"oom_kill": {"age_s": 61.0}, "manager": {"state": "failed"}}, Ground.OUT_OF_MEMORY),
        ({"oom_kill": {"age_s": 61.0}, "manager": {"state": None, "running": False}}, None),
        (
            {"oom_kill": {"age_s": 30.0}, "log": {"line": "unrecognized option name 'y'", "age_s": 2.0}},
            Ground.BAD_CONFIG,
        ),
        (
            {"oom_kill": {"age_s": 2.0}, "log": {"line": "unrecognized option name 'y'", "age_s": 30.0}},
            Ground.OUT_OF_MEMORY,
        ),
        (
            {"oom_kill": {"age_s": 30.0}, "log": {"line": "Loading data from directory /d", "age_s": 2.0}},
            Ground.OUT_OF_MEMORY,
        ),
        (
            {"oom_kill": {"age_s": 90000.0}, "pid_file": {"path": "/p", "alive": False}},
            Ground.PID_FILE,
        ),
        ({"pid_file": {"path": "/run/r.pid", "pid": 9, "alive": False}}, Ground.PID_FILE),
        ({"pid_file": {"path": "/run/r.pid", "pid": 9, "alive": True}}, None),
        ({"log": {"line": "Ran out of disk space. (offset = 1)", "age_s": 1.0}}, Ground.DISK_FULL),
        ({"log": {"line": "Ran out of disk space. (offset = 1)", "age_s": 61.0}}, None),
        ({"log": {"line": "Ran out of disk space. (offset = 1)", "age_s": None}}, None),
        (
            {"log": {"line": "Directory '/d' is already in use, perhaps another instance of rethinkdb is using it.", "age_s": 0.0}},
            Ground.DATA_IN_USE,
        ),
        (
            {"log": {"line": "The address at localhost:28015 is reserved or already in use", "age_s": 0.0}},
            Ground.PORT_TAKEN,
        ),
        (
            {"log": {"line": "The pid-file specified already exists.", "age_s": 0.0}},
            Ground.PID_FILE,
        ),
        (
            {"log": {"line": "Config file x.conf: parse error at line 9: unrecognized option name 'y'", "age_s": 0.0}},
            Ground.BAD_CONFIG,
        ),
        ({"log": {"line": "Loading data from directory /d", "age_s": 0.0}}, None),
    ],
)  # fmt: skip
def test_why_a_database_does_not_serve(parts, ground):
    assert testimony.read(report(**GONE, **parts)).ground is ground


def test_a_kill_before_the_illness_is_not_its_reason():
    told = testimony.read(report(**GONE, oom_kill={"age_s": 40.0, "what": "rethinkdb"}))
    assert told.since(began=65.0, now=100.0).ground is None
    assert told.since(began=55.0, now=100.0).ground is Ground.OUT_OF_MEMORY
    # systemd tells when it was started, so its minion names no kill before that.
    systemd = {"manager": {"state": "failed"}, "oom_kill": {"age_s": 40.0}}
    told = testimony.read(report(**GONE, **systemd))
    assert told.since(began=65.0, now=100.0).ground is Ground.OUT_OF_MEMORY


def test_a_process_that_runs_is_not_judged_by_old_last_words_or_by_its_pid_file():
    words = {"log": {"line": "Ran out of disk space.", "age_s": 1.0}, "pid_file": {"alive": False}}
    assert testimony.read(report(process={"state": "runs"}, listens=True, **words)).ground is None


def test_a_server_without_file_descriptors_is_known_by_their_number():
    process = {"state": "runs", "open_files": 1020, "open_files_limit": 1024}
    told = testimony.read(report(process=process, listens=True))
    assert told.ground is Ground.OUT_OF_FILES and "1020 of 1024 are open" in told.sentence


def test_every_reason_has_its_sentences_and_helps_against_none_are_told_to_a_person():
    assert set(ADVICE) == set(Ground)
    assert all(one.says and one.person for one in ADVICE.values())


# ---------------------------------------------------------------- asking


def test_the_minion_is_asked_while_the_fault_is_only_suspected():
    site = world()
    site.break_("db1")
    site.pass_time(1)
    assert asked(site) == ["db1"] and not acted(site)
    assert site.cluster.incidents[0].phase is Phase.SUSPECTED


@pytest.mark.parametrize("changes", [{"mode": Mode.OFF}, {"escalation": {Fault.DEAD: ()}}])
def test_nobody_is_asked_where_nothing_would_be_done(changes):
    site = world(**changes)
    site.break_("db1")
    site.pass_time(60)
    assert asked(site) == []


def test_nobody_is_asked_during_a_pause():
    site = world()
    site.order(Verb.PAUSE, for_s=50.0)
    site.break_("db1")
    site.pass_time(40)
    assert asked(site) == []
    site.pass_time(12)
    assert asked(site) == ["db1"] and not acted(site)


def test_a_fault_that_no_minion_knows_more_about_is_not_asked_for():
    site = world()
    site.break_("db1", fault=Fault.AUTH)
    site.pass_time(60)
    assert asked(site) == []


def test_a_silent_minion_is_waited_for_no_longer_than_its_time():
    site = world()
    site.break_("db1")
    site.pass_time(4)
    assert gates_of(site, "witness").why == "db1's minion is asked what it sees"
    assert not gates_of(site, "witness").open
    site.pass_time(4)
    assert acted(site) == [("restart", ("db1",))]
    assert site.finished == [("runbook-1-witness-db1-1", Outcome.TIMED_OUT)]


def test_an_answer_that_comes_too_late_or_twice_changes_nothing():
    site = world()
    site.break_("db1")
    site.pass_time(1)
    question = questions.in_flight(site.cluster, "db1")
    answer(site, **GONE)
    for late in (0, 6):
        site.pass_time(late, poll=False)
        told = testimony.read(report(**LOADS))
        site.step(Returned(question.id, "db1", Outcome.DONE, "", told))
        assert site.cluster.nodes["db1"].testimony.process is Process.GONE


def test_an_answer_about_another_node_is_not_taken():
    site = world()
    site.break_("db1")
    site.pass_time(1)
    question = questions.in_flight(site.cluster, "db1")
    site.step(Returned(question.id, "db2", Outcome.DONE, "", testimony.read(report(**LOADS))))
    assert site.cluster.nodes["db2"].testimony is None


def fail(site, node="db1"):
    """The minion has no such function, or it fails."""
    asked = questions.in_flight(site.cluster, node)
    site.step(Returned(asked.id, node, Outcome.FAILED, "'selfheal.witness' is not available"))
    return asked


def test_a_minion_without_the_function_is_asked_with_salts_own_at_once():
    site = world()
    site.break_("db1")
    site.pass_time(1)
    fail(site)
    assert [action for action, _ in site.fired] == ["witness", "salt_witness"]
    answer(site, **GONE)
    site.pass_time(1)
    assert acted(site) == [("restart", ("db1",))]


def test_one_that_fails_at_both_is_a_missing_answer():
    site = world()
    site.break_("db1")
    site.pass_time(1)
    first, second = fail(site), fail(site)
    assert (first.action, second.action) == (Action.WITNESS, Action.SALT_WITNESS)
    site.pass_time(3)
    assert acted(site) == [("restart", ("db1",))]


def test_both_questions_together_take_no_longer_than_one():
    site = world()
    site.break_("db1")
    site.pass_time(1)
    began = questions.in_flight(site.cluster, "db1").fired_at
    site.pass_time(2)
    second = fail(site) and questions.in_flight(site.cluster, "db1")
    assert second.action is Action.SALT_WITNESS
    assert questions.waited_until(second, site.state.policies["runbook"]) <= began + 5.0


def test_one_that_fails_after_half_its_time_is_not_asked_otherwise():
    site = world()
    site.break_("db1")
    site.pass_time(4)
    fail(site)
    assert questions.in_flight(site.cluster, "db1") is None


@pytest.mark.parametrize("outcome", [Outcome.FORBIDDEN, Outcome.BUSY])
def test_one_that_may_not_tell_is_not_asked_otherwise(outcome):
    site = world()
    site.break_("db1")
    site.pass_time(1)
    asked = questions.in_flight(site.cluster, "db1")
    site.step(Returned(asked.id, "db1", outcome, "it is in blackout"))
    assert questions.in_flight(site.cluster, "db1") is None


def test_no_word_outlives_a_start_of_the_healer():
    site = world()
    site.break_("db1")
    site.pass_time(1)
    answer(site, **FULL)
    site.step(Started())
    assert site.cluster.nodes["db1"].testimony is None


def test_no_word_outlives_the_illness_that_it_is_about():
    site = world()
    site.break_("db1")
    site.pass_time(1)
    answer(site, **LOADS)
    site.mend("db1")
    site.pass_time(5)
    site.break_("db1")
    site.pass_time(1)
    assert asked(site) == ["db1", "db1"]
    assert site.cluster.nodes["db1"].fault is Fault.DEAD


# ---------------------------------------------------------------- what its word does


def test_a_death_that_was_witnessed_is_confirmed_sooner():
    site = world()
    site.break_("db1")
    site.pass_time(1)
    answer(site, **GONE)
    site.pass_time(1)
    assert acted(site) == [("restart", ("db1",))]


def test_a_process_that_somebody_else_sees_listen_is_not_taken_for_gone():
    site = world()
    site.break_("db1")
    site.pass_time(1)
    answer(site, process={"state": "gone"}, listens=True)
    site.pass_time(1)
    assert acted(site) == []


def test_a_process_on_its_way_up_is_left_alone_and_asked_for_again():
    site = world()
    site.break_("db1")
    site.pass_time(1)
    for age_s in (1.0, 31.0, 61.0):
        answer(site, process={"state": "runs", "age_s": age_s}, listens=False)
        site.pass_time(30)
    assert acted(site) == []
    assert site.cluster.nodes["db1"].fault is Fault.STARTING
    assert asked(site) == ["db1"] * 4


def test_a_request_does_not_reach_a_process_on_its_way_up():
    site = world()
    site.break_("db1")
    site.pass_time(1)
    answer(site, **LOADS)
    site.pass_time(2)
    for action in ("restart", "start", "highstate"):
        site.ask(action, ("db1",), id=action)
        site.pass_time(3)
    assert acted(site) == []


def test_a_process_that_ends_on_its_way_up_is_dead_at_once():
    site = world()
    site.break_("db1")
    site.pass_time(1)
    answer(site, **LOADS)
    site.pass_time(30)
    answer(site, **GONE)
    site.pass_time(2)
    assert ("restart", ("db1",)) in acted(site)


def test_an_old_word_that_a_process_starts_does_not_count_for_ever():
    site = world()
    site.break_("db1")
    site.pass_time(1)
    answer(site, **LOADS)
    site.pass_time(questions.STALE_S + 30)  # it does not answer any more
    assert ("restart", ("db1",)) in acted(site)


def test_a_process_that_its_service_manager_starts_again_and_again_is_not_starting():
    site = world()
    site.break_("db1")
    site.pass_time(1)
    answer(site, **LOADS, manager={"restarts": 4})  # perhaps over a year
    site.pass_time(questions.AGAIN_S)
    assert site.cluster.nodes["db1"].fault is Fault.STARTING
    answer(site, **LOADS, manager={"restarts": 9})
    site.pass_time(5)
    assert site.cluster.nodes["db1"].fault is Fault.DEAD
    assert "its service manager has started it 9 times" in site.cluster.nodes["db1"].evidence
    assert acted(site) == [("restart", ("db1",))]


@pytest.mark.parametrize("counts", [(4, 4), (4, 0), (None, 4), (4, None)])
def test_and_one_of_whom_that_is_not_told_twice_is(counts):
    site = world()
    site.break_("db1")
    site.pass_time(1)
    for restarts in counts:
        answer(site, **LOADS, manager={"restarts": restarts})
        site.pass_time(questions.AGAIN_S)
    assert site.cluster.nodes["db1"].fault is Fault.STARTING


# ---------------------------------------------------------------- a server that only its own machine reaches

SPEAKS = {"process": {"state": "runs", "age_s": 500.0}, "listens": True, "greets": True}


def cut(fault, **changes):
    """A node of which the healer hears nothing, and which greets its own minion."""
    site = world(**changes)
    site.break_("db1", fault=fault)
    site.pass_time(1)
    answer(site, **SPEAKS)
    return site


@pytest.mark.parametrize("fault", [Fault.HUNG, Fault.UNREACHABLE, Fault.DEAD])
def test_what_answers_its_own_minion_is_not_restarted(fault):
    steps = {fault: (Step(Action.RESTART),)}
    site = cut(fault, escalation=steps)
    for _ in range(20):
        site.pass_time(questions.AGAIN_S)
        assert acted(site) == []
        answer(site, **SPEAKS)  # it is asked again and again
    gate = gates_of(site, "witness")
    assert gate.why == "db1 answers its own minion: the way from here to it is broken"
    assert site.cluster.incidents[0].phase is Phase.OPEN
    site.mend("db1")
    site.pass_time(20)
    assert site.cluster.incidents == () and acted(site) == []


def test_a_greeting_proves_nothing_where_the_healer_gets_one_too():
    site = world()
    site.greeted.add("db1")  # it greets, and then hangs
    site.break_("db1", fault=Fault.HUNG)
    site.pass_time(1)
    answer(site, **SPEAKS)
    site.pass_time(12)
    assert acted(site) == [("restart", ("db1",))]


def test_a_greeting_that_is_not_repeated_counts_no_longer():
    site = cut(Fault.HUNG)
    site.pass_time(questions.STALE_S + 30)
    assert acted(site) == [("restart", ("db1",))]


def test_a_greeting_makes_no_node_well():
    site = cut(Fault.HUNG)
    site.pass_time(20)
    assert site.cluster.nodes["db1"].fault is Fault.HUNG
    assert site.cluster.incidents[0].phase is Phase.OPEN


def test_only_a_process_that_runs_can_greet():
    assert testimony.read(report(**SPEAKS)).greets
    assert not testimony.read(report(**{**SPEAKS, "process": {"state": "gone"}})).greets
    assert not testimony.read(report(**{**SPEAKS, "greets": "yes"})).greets


def test_a_word_from_before_the_refusal_makes_no_death_sooner():
    site = world(dead_witnessed_s=0.0)
    site.break_("db1", fault=Fault.HUNG)
    site.pass_time(1)
    answer(site, **GONE)  # it cannot know, but so it says
    site.break_("db1")
    site.pass_time(1)
    assert not site.cluster.nodes["db1"].confirmed


def test_a_stopped_process_is_not_starting():
    site = world()
    site.break_("db1")
    site.pass_time(1)
    answer(site, process={"state": "runs", "age_s": 5.0, "status": "T"}, listens=False)
    site.pass_time(5)
    assert site.cluster.nodes["db1"].fault is Fault.DEAD


def test_a_full_disk_leaves_one_try_and_then_calls_a_person():
    site = world()
    site.break_("db1")
    site.pass_time(1)
    answer(site, **FULL)
    site.pass_time(2)
    assert acted(site) == [("restart", ("db1",))]
    site.publish()
    site.returns(Outcome.FAILED, "it did not start")
    site.pass_time(2)
    answer(site, **FULL)
    site.pass_time(300)
    assert acted(site) == [("restart", ("db1",))]
    (incident,) = site.cluster.incidents
    assert incident.phase is Phase.LOCKED
    assert "Make room in its data directory" in incident.why


def test_the_others_of_an_incident_are_healed_although_one_disk_is_full():
    site = world(cooldown_min_s=0.0)
    site.break_("db1", "db2")
    site.pass_time(1)
    answer(site, "db1", **FULL)
    answer(site, "db2", **GONE)
    site.pass_time(2)
    site.publish()
    site.returns(Outcome.FAILED, "it did not start")
    site.pass_time(2)
    answer(site, "db1", **FULL)
    answer(site, "db2", **GONE)
    site.pass_time(3)
    assert acted(site)[1:] == [("highstate", ("db2",))]


def test_a_step_that_cannot_help_is_left_out_if_a_later_one_can():
    site = world()
    site.break_("db1")
    site.pass_time(1)
    line = "Config file x.conf: parse error at line 9: unrecognized option name 'y'"
    answer(site, **GONE, log={"line": line, "age_s": 2.0})
    site.pass_time(2)
    assert acted(site) == [("highstate", ("db1",))]


def test_a_bad_config_has_one_try_where_no_step_can_help():
    site = world(escalation={Fault.DEAD: (Step(Action.RESTART), Step(Action.RESTART))})
    site.break_("db1")
    site.pass_time(1)
    line = "Config file x.conf: parse error at line 9: unrecognized option name 'y'"
    words = {**GONE, "log": {"line": line, "age_s": 2.0}}
    answer(site, **words)
    site.pass_time(2)
    site.publish()
    site.returns(Outcome.FAILED, "it did not start")
    site.pass_time(2)
    answer(site, **words)
    site.pass_time(300)
    assert acted(site) == [("restart", ("db1",))]
    assert site.cluster.incidents[0].phase is Phase.LOCKED


def test_explain_shows_what_the_minion_has_told():
    site = world(mode=Mode.SHADOW)
    site.break_("db1")
    site.pass_time(1)
    answer(site, **FULL)
    site.pass_time(5)
    assert "its disk is full: 0 KB free at /data" in gates_of(site, "witness").why
    assert "one try, although it can hardly help" in gates_of(site, "helps").why


def test_last_words_of_before_the_illness_prove_nothing():
    site = world()
    site.pass_time(30)
    site.break_("db1")
    site.pass_time(1)
    line = "Config file x.conf: parse error at line 9: unrecognized option name 'y'"
    answer(site, **GONE, log={"line": line, "age_s": 20.0})
    assert site.cluster.nodes["db1"].testimony.ground is None
    site.pass_time(2)
    assert acted(site) == [("restart", ("db1",))]


def test_a_process_on_its_way_may_be_connected_to_its_peers_already():
    site = world()
    site.break_("db1")
    site.pass_time(2)
    ids = frozenset(f"id-{n}" for n in ("db1", "db2", "db3"))
    site.meet(connected={"db2": ids, "db3": ids})
    site.pass_time(1)
    assert site.cluster.nodes["db1"].fault is Fault.CUT_OFF
    assert asked(site) == ["db1"]
    answer(site, **LOADS)
    site.meet(connected={"db2": ids, "db3": ids})
    site.pass_time(1)
    assert site.cluster.nodes["db1"].fault is Fault.STARTING


def test_a_node_that_listens_for_others_is_cut_off_and_not_starting():
    site = world()
    site.break_("db1")
    site.pass_time(2)
    answer(site, process={"state": "runs", "age_s": 5.0}, listens=True)
    ids = frozenset(f"id-{n}" for n in ("db1", "db2", "db3"))
    site.meet(connected={"db2": ids, "db3": ids})
    site.pass_time(1)
    assert site.cluster.nodes["db1"].fault is Fault.CUT_OFF


def test_a_pause_alone_holds_what_nobody_may_ask_about():
    site = world()
    site.order(Verb.PAUSE, for_s=50.0)
    site.break_("db1")
    site.pass_time(5)
    assert site.cluster.incidents[0].held == ("paused",)


def test_a_step_that_may_help_is_not_left_out_because_later_ones_may_too():
    site = world()
    site.break_("db1")
    site.pass_time(1)
    answer(site, **GONE, oom_kill={"age_s": 2.0, "what": "rethinkdb"})
    site.pass_time(2)
    assert acted(site) == [("restart", ("db1",))]
    assert site.cluster.incidents[0].step == 0


def test_what_had_its_one_try_gets_no_incident_of_its_own_when_the_others_go_on():
    site = world(cooldown_min_s=0.0, budget_attempts=9)
    site.break_("db1", "db2")
    site.pass_time(1)
    answer(site, "db1", **FULL)
    answer(site, "db2", **GONE)
    site.pass_time(2)
    for _ in range(3):
        site.publish()
        site.returns(Outcome.FAILED, "it did not start")
        site.pass_time(2)
        for node, said in (("db1", FULL), ("db2", GONE)):
            if questions.in_flight(site.cluster, node):
                answer(site, node, **said)
        site.pass_time(3)
    assert [nodes for _, nodes in acted(site)].count(("db1",)) == 0
    assert [incident.id for incident in site.cluster.incidents] == ["runbook-1"]
