"""What a restart cannot end is ended by force: `force_restart`, after a restart that did not help."""

import pytest

from saltext_selfheal.config.attempts import AttemptSettings
from saltext_selfheal.healing import escalation, remedies, results, testimony
from saltext_selfheal.healing.events import Published, Returned, Verb
from saltext_selfheal.healing.model import Action, Announce, Fault, Outcome, Phase, Step
from tests.unit.test_witness_word import GONE, acted, answer, fail, report
from tests.unit.world import World, policy

FORCED = (Step(Action.FORCE_RESTART),)
HANGS = {"process": {"state": "runs", "age_s": 500.0}, "listens": True, "greets": False}


def world(**changes):
    return World(policy(poll_s=1.0, cooldown_min_s=0.0, **changes)).warm()


def tried(site, outcome=Outcome.DONE, detail="", for_s=25):
    """The order in flight is published and carried out, and does not help."""
    site.publish()
    site.returns(outcome, detail)
    site.pass_time(for_s)


@pytest.mark.parametrize("fault", [Fault.HUNG, Fault.STALLED])
def test_by_default_it_comes_after_a_restart_that_did_not_help(fault):
    assert [step.action for step in escalation.DEFAULT[fault]] == [
        Action.RESTART,
        Action.FORCE_RESTART,
    ]


def test_a_node_that_still_hangs_after_a_restart_is_ended_by_force():
    site = world()
    site.break_("db1", fault=Fault.HUNG)
    site.pass_time(5)
    assert acted(site) == [("restart", ("db1",))]
    tried(site)
    assert acted(site) == [("restart", ("db1",)), ("force_restart", ("db1",))]
    site.publish()
    site.mend("db1")
    site.returns()
    site.pass_time(15)
    assert site.cluster.incidents == ()


def test_a_restart_that_hangs_is_over_when_its_time_is_and_a_look_has_shown_it():
    site = world(attempt_timeout_s=20.0)
    site.break_("db1", fault=Fault.HUNG)
    site.pass_time(5)
    site.publish()
    site.pass_time(90)
    assert ("look", ("db1",)) in site.fired


def test_each_order_by_force_is_about_one_node_also_where_several_are_dead():
    site = world(escalation={Fault.DEAD: FORCED})
    site.break_("db1", "db2")
    site.pass_time(20)
    assert acted(site) == [("force_restart", ("db1",))]


def test_what_nothing_can_end_is_left_to_a_person_and_nothing_is_started_beside_it():
    steps = (*FORCED, Step(Action.HIGHSTATE), Step(Action.RESTART))
    site = world(escalation={Fault.HUNG: steps})
    site.break_("db1", fault=Fault.HUNG)
    site.pass_time(5)
    tried(site, Outcome.STUCK, "process 7 (state D) cannot be killed", for_s=300)
    (incident,) = site.cluster.incidents
    assert incident.phase is Phase.LOCKED
    assert "db1: stuck (process 7 (state D) cannot be killed). Nothing is started" in incident.why
    assert acted(site) == [("force_restart", ("db1",))]
    site.ask("restart", ("db1",))
    site.pass_time(30)
    assert acted(site) == [("force_restart", ("db1",))]
    site.order(Verb.ACK, incident=incident.id)
    site.pass_time(10)
    assert len(acted(site)) == 2  # a person has seen to it


def test_without_the_package_on_the_minion_the_step_is_left_out():
    site = world(witness_s=5.0, escalation={Fault.HUNG: (*FORCED, Step(Action.RESTART))})
    site.break_("db1", fault=Fault.HUNG)
    site.pass_time(1)
    fail(site)
    answer(site, **{**HANGS, "greets": None})  # by Salt's own functions
    site.pass_time(8)
    assert acted(site) == [("restart", ("db1",))]
    told = [e.why for e in site.effects if isinstance(e, Announce)]
    assert "force_restart needs this package on the minion of db1" in told


def test_a_minion_that_has_it_by_now_gets_the_order():
    site = world(witness_s=5.0, escalation={Fault.HUNG: FORCED})
    site.break_("db1", fault=Fault.HUNG)
    site.pass_time(1)
    fail(site)
    assert site.cluster.nodes["db1"].bare
    site.mend("db1")
    site.pass_time(20)
    site.break_("db1", fault=Fault.HUNG)
    site.pass_time(1)
    answer(site, **HANGS)
    site.pass_time(8)
    assert not site.cluster.nodes["db1"].bare
    assert acted(site) == [("force_restart", ("db1",))]


def test_a_stale_pid_file_is_something_that_it_can_mend():
    told = testimony.read(report(**GONE, pid_file={"path": "/run/r.pid", "alive": False}))
    assert Action.FORCE_RESTART in testimony.ADVICE[told.ground].helps


DONE = {"version": 1, "done": True, "how": "killed", "why": "it runs", "stuck": False}


@pytest.mark.parametrize(
    ("result", "retcode", "outcome"),
    [
        (DONE, 0, Outcome.DONE),
        (DONE, 1, Outcome.FAILED),
        ({**DONE, "done": "yes"}, 0, Outcome.FAILED),
        ({**DONE, "done": False}, 1, Outcome.FAILED),
        ({**DONE, "done": False, "stuck": True}, 1, Outcome.STUCK),
        ({**DONE, "version": 2}, 0, Outcome.FAILED),
        (True, 0, Outcome.FAILED),
        ("'selfheal.force_restart' is not available.", 254, Outcome.FAILED),
        ({"version": 1, "why": ["x"] * 10**5, "stuck": True}, 1, Outcome.STUCK),
    ],
)
def test_its_result_is_read(result, retcode, outcome):
    found, told = results.forced(result, retcode, None)
    assert found is outcome and len(told) <= 600


def test_a_webhook_may_not_ask_for_it_and_a_login_is_no_reason_for_it():
    assert "force_restart" not in remedies.webhook_names()
    assert Action.FORCE_RESTART in remedies.forbidden(Fault.AUTH)
    assert Action.FORCE_RESTART in remedies.forbidden(Fault.PARTITIONED)


@pytest.mark.parametrize(
    ("attempt", "stop_s"),
    [
        ({}, 30.0),
        ({"timeout": "20s"}, 10.0),
        ({"stop_timeout": "2m"}, 120.0),
        ({"timeout": 1}, 1.0),
    ],
)
def test_a_minion_is_told_how_long_it_may_wait_for_the_orderly_stop(attempt, stop_s):
    assert AttemptSettings(**attempt).stop_s == stop_s


@pytest.mark.parametrize(
    "attempt", [{"stop_timeout": "3m"}, {"timeout": "1h", "stop_timeout": "11m"}]
)
def test_the_stop_must_fit_into_the_job(attempt):
    with pytest.raises(ValueError, match="a stop_timeout of at most"):
        AttemptSettings(**attempt)


# ---------------------------------------------------------------- a restart that does not come back


def hanging(**changes):
    """The restart of db1 runs on: its service manager waits for a process that does not end."""
    site = world(attempt_timeout_s=20.0, **changes)
    site.break_("db1", fault=Fault.HUNG)
    site.pass_time(5)
    site.publish()
    site.pass_time(22)
    return site


def still_runs(site):
    look = site.cluster.look
    site.step(Published(look.id))
    site.step(Returned(look.id, "db1", Outcome.BUSY, "the job still runs"))


def test_what_a_restart_waits_for_is_ended_by_force_as_soon_as_it_is_known_to_hang():
    site = hanging()
    still_runs(site)
    site.pass_time(2)
    assert acted(site) == [("restart", ("db1",)), ("force_restart", ("db1",))]
    told = [e.why for e in site.effects if isinstance(e, Announce)]
    assert any("restart on db1 does not come back" in why for why in told)
    site.publish()
    site.mend("db1")
    site.returns()
    site.pass_time(15)
    assert site.cluster.incidents == ()


def test_a_look_that_shows_that_it_does_not_run_comes_first():
    site = hanging()
    assert acted(site) == [("restart", ("db1",))]  # not before the look's answer


def test_a_minion_in_blackout_does_not_say_so():
    site = hanging()
    look = site.cluster.look
    site.step(Published(look.id))
    site.step(Returned(look.id, "db1", Outcome.FORBIDDEN, "the minion is in blackout"))
    site.pass_time(2)
    assert acted(site) == [("restart", ("db1",))]


@pytest.mark.parametrize("following", [(Step(Action.RESTART),), (Step(Action.HIGHSTATE),), ()])
def test_nothing_else_goes_to_a_minion_where_a_restart_hangs(following):
    site = hanging(escalation={Fault.HUNG: (Step(Action.RESTART), *following)})
    still_runs(site)
    site.pass_time(40)
    assert acted(site) == [("restart", ("db1",))]


def test_nor_does_force_where_a_highstate_runs():
    site = hanging(escalation={Fault.HUNG: (Step(Action.HIGHSTATE), *FORCED)})
    still_runs(site)
    site.pass_time(10)
    assert acted(site) == [("highstate", ("db1",))]
