"""What the healer does and says while somebody else works on its nodes."""

from dataclasses import replace

import pytest

from saltext_selfheal.healing import foreign, questions, testimony
from saltext_selfheal.healing.events import (
    Backup,
    Backups,
    Door,
    Foreign,
    Request,
    Requested,
    Returned,
    Started,
)
from saltext_selfheal.healing.explain import explain
from saltext_selfheal.healing.model import Action, Fault, Fire, Outcome, Phase
from saltext_selfheal.healing.testimony import Process, Running, read
from tests.unit.world import World, policy, table

JID = "20261127190000000001"
HIGHSTATE = f"state.highstate by ann ({JID})"


def warm_world(**changes):
    return World(policy(**changes)).warm()


def begins(world, *nodes, jid=JID, function="state.highstate"):
    world.step(Foreign("runbook", jid, function, "ann", nodes))


def ends(world, *nodes, jid=JID):
    world.step(Foreign("runbook", jid, "state.highstate", "ann", nodes, ended=True))


def gate_of(world, node):
    """The gate's answer for one node, as an operator reads it."""
    (one,) = explain(world.state, "runbook", (node,), world.now)
    return next(g for g in one.gates if g.name == "foreign")


def incident(world):
    return next(i for i in world.cluster.incidents if i.id == "runbook-1")


def flaps(world):
    return [e.why for e in world.effects if getattr(e, "what", None) == "flapping"]


# ---------------------------------------------------------------- the gate


def test_an_incident_waits_for_somebodys_job_and_names_it_and_goes_on_after_its_grace():
    world = warm_world()
    world.break_("db2")
    world.pass_time(1)
    begins(world, "db2")
    world.pass_time(20)
    assert world.fired == []
    assert world.last_said().said == "held"
    assert world.last_said().why == f"foreign: db2: {HIGHSTATE} has run for 3 s"
    ends(world, "db2")
    world.pass_time(29)
    assert world.fired == []
    assert gate_of(world, "db2").why == f"db2: {HIGHSTATE} ended 29 s ago"
    world.pass_time(2)
    assert world.fired == [("restart", ("db2",))]


def test_an_incident_that_somebodys_job_has_healed_ends_without_a_deed():
    world = warm_world()
    world.break_("db2")
    world.pass_time(1)
    begins(world, "db2")
    world.pass_time(20)
    world.mend("db2")
    ends(world, "db2")
    world.pass_time(60)
    assert world.fired == []
    assert world.last_said().said == "resolved"
    assert world.last_said().why == "well for 10 s"


def test_a_job_that_never_ends_is_waited_for_no_longer_than_most():
    world = warm_world(foreign_most_s=100.0)
    begins(world, "db2")
    world.pass_time(90)
    world.break_("db2")
    world.pass_time(9)
    assert world.fired == []
    world.pass_time(2)
    assert world.fired == [("restart", ("db2",))]


def test_jobs_without_end_hold_one_incident_no_longer_than_most():
    world = warm_world(foreign_most_s=100.0)
    world.break_("db2")
    begins(world, "db2", jid="1")
    for number in range(2, 11):
        world.pass_time(10)
        begins(world, "db2", jid=f"{number}")
    assert world.fired == []
    world.pass_time(20)
    assert world.fired == [("restart", ("db2",))]


def test_the_limit_of_an_incident_counts_from_when_it_was_first_held():
    world = warm_world(foreign_most_s=100.0)
    world.break_("db2")
    begins(world, "db2")
    world.pass_time(4)
    held_at = incident(world).foreign_since
    assert held_at is not None
    ends(world, "db2")
    world.pass_time(20)
    begins(world, "db2", jid="2")
    world.pass_time(30)
    assert incident(world).foreign_since == held_at
    world.order("pause", for_s=10.0, reason="so")
    world.pass_time(2)
    assert incident(world).held == ("paused", "foreign")
    assert incident(world).foreign_since == held_at


def test_it_is_told_at_once():
    world = warm_world()
    world.order("pause", for_s=100.0, reason="so")
    world.break_("db2")
    world.pass_time(6)
    assert incident(world).held == ("paused",)
    begins(world, "db2")
    assert incident(world).held == ("paused", "foreign")


def test_when_it_opens_is_told():
    world = warm_world(foreign_most_s=100.0)
    begins(world, "db2")
    began_at = world.now
    gate = gate_of(world, "db2")
    assert (gate.open, gate.opens_at) == (False, began_at + 100.0)
    world.pass_time(5)
    ends(world, "db2")
    assert gate_of(world, "db2").opens_at == world.now + 30.0
    assert gate_of(world, "db1").why == "nobody else is at work there"


def test_the_grace_does_not_make_a_job_count_for_longer_than_most():
    world = warm_world(foreign_most_s=100.0)
    begins(world, "db2")
    world.pass_time(95)
    ends(world, "db2")
    world.pass_time(6)
    assert gate_of(world, "db2").open


def test_an_operator_who_forces_it_is_not_held():
    world = warm_world()
    begins(world, "db2")
    world.look()
    request = Request("r1", "runbook", "restart", ("db2",), "", Door.FORCE, "ann", forced=True)
    world.step(Requested(request))
    world.pass_time(5, tables=(table(),))
    assert world.fired == [("restart", ("db2",))]


def test_a_request_is_held_like_an_incident():
    world = warm_world()
    begins(world, "db2")
    world.look()
    world.ask("highstate", ("db2",))
    world.pass_time(5, tables=(table(),))
    assert world.fired == []
    assert "foreign" in world.last_said().why


def test_nobody_is_waited_for_where_that_is_off():
    world = warm_world(foreign_most_s=0.0)
    begins(world, "db2")
    assert world.cluster.nodes["db2"].foreign == ()
    world.break_("db2")
    world.pass_time(6)
    assert world.fired == [("restart", ("db2",))]
    assert gate_of(World(policy(foreign_most_s=0.0)), "db2").why.endswith("not waited for")


def test_a_job_on_one_node_does_not_hold_up_the_others():
    world = warm_world()
    begins(world, "db1")
    world.break_("db1", "db2", "db3")
    world.pass_time(10)
    assert world.fired == [("restart", ("db2", "db3"))]


def test_jobs_of_the_healers_own_are_not_somebody_elses():
    world = warm_world()
    world.break_("db2")
    world.pass_time(6)
    named = world.cluster.with_attempts(lambda one: replace(one, jid=JID))
    world.state = world.state.with_cluster(named)
    begins(world, "db2")
    assert world.cluster.nodes["db2"].foreign == ()
    begins(world, "db2", jid="2")
    assert [job.jid for job in world.cluster.nodes["db2"].foreign] == ["2"]


def test_a_job_that_has_ended_does_not_begin_again():
    world = warm_world()
    begins(world, "db2")
    ends(world, "db2")
    before = world.state
    begins(world, "db2")
    ends(world, "db2")
    assert world.state is before


def test_news_of_what_is_not_known_changes_nothing():
    world = warm_world()
    before = world.state
    world.step(Foreign("nosuch", JID, "state.highstate", "ann", ("db2",)))
    begins(world, "nosuch")
    ends(world, "db2")
    assert world.state is before


def test_only_so_many_jobs_are_remembered_and_those_that_count_are_kept():
    world = warm_world(foreign_grace_s=5.0)
    begins(world, "db2", jid="counts")
    begins(world, "db2", jid="over")
    ends(world, "db2", jid="over")
    world.pass_time(6)
    for number in range(foreign.MOST_JOBS - 1):
        begins(world, "db2", jid=f"{number}")
    jobs = [job.jid for job in world.cluster.nodes["db2"].foreign]
    assert len(jobs) == foreign.MOST_JOBS
    assert "counts" in jobs and "over" not in jobs
    begins(world, "db2", jid="one more")
    assert "counts" not in [job.jid for job in world.cluster.nodes["db2"].foreign]


def test_an_incident_of_several_nodes_names_a_few_of_many_jobs():
    world = warm_world()
    for number in range(5):
        begins(world, "db2", jid=f"{number}")
    assert gate_of(world, "db2").why.endswith("; and 2 more")


def test_it_is_known_after_a_start_of_the_healer():
    world = warm_world()
    begins(world, "db2")
    world.step(Started())
    assert [job.jid for job in world.cluster.nodes["db2"].foreign] == [JID]


# ---------------------------------------------------------------- flapping


def rolling(world, told, times=4):
    for number in range(times):
        if told:
            begins(world, "db2", jid=f"{number}", function="service.restart")
        world.break_("db2")
        world.pass_time(2)
        world.mend("db2")
        world.pass_time(2)
        if told:
            ends(world, "db2", jid=f"{number}")
        world.pass_time(40)


def test_restarts_that_somebody_makes_are_no_flapping():
    world = warm_world()
    rolling(world, told=True)
    assert flaps(world) == []
    assert world.said == []
    assert world.cluster.nodes["db2"].changes == ()


def test_the_same_without_anybody_is_flapping():
    world = warm_world()
    rolling(world, told=False)
    assert flaps(world)


def test_changes_right_after_a_job_are_that_jobs_and_later_ones_are_not():
    world = warm_world()
    begins(world, "db2")
    ends(world, "db2")
    world.pass_time(20)
    world.break_("db2")
    world.pass_time(2)
    world.mend("db2")
    world.pass_time(2)
    assert world.cluster.nodes["db2"].changes == ()
    world.pass_time(20)
    world.break_("db2")
    world.pass_time(2)
    world.mend("db2")
    world.pass_time(2)
    assert len(world.cluster.nodes["db2"].changes) == 1


def test_a_job_without_end_hides_changes_no_longer_than_most():
    world = warm_world(foreign_most_s=30.0)
    begins(world, "db2")
    world.pass_time(31)
    world.break_("db2")
    world.pass_time(2)
    world.mend("db2")
    world.pass_time(2)
    assert len(world.cluster.nodes["db2"].changes) == 1


def test_a_death_inside_a_job_is_an_incident_once_it_has_lasted():
    world = warm_world()
    begins(world, "db2")
    world.break_("db2")
    world.pass_time(2)
    assert world.said == []
    world.pass_time(3)
    assert world.cluster.incidents[0].phase is Phase.OPEN


# ---------------------------------------------------------------- what the minion says


def answers(world, told, node="db2"):
    """The minion's answer to the question in flight."""
    (question,) = [q for q in world.cluster.questions if node in q.nodes]
    world.step(Returned(question.id, node, Outcome.DONE, "", told))


def saw(*jobs, all_jobs=True):
    running = tuple(Running(jid, "state.highstate", "ann") for jid in jobs)
    return testimony.Testimony(process=Process.GONE, listens=False, jobs=running, all_jobs=all_jobs)


def questioned(**changes):
    world = warm_world(witness_s=5.0, **changes)
    begins(world, "db2")
    world.pass_time(10)
    world.break_("db2")
    world.pass_time(5)
    return world


def test_a_job_whose_end_was_missed_has_ended_by_the_minions_word():
    world = questioned()
    answers(world, saw())
    assert world.cluster.nodes["db2"].foreign[0].ended_at == world.now
    world.pass_time(31)
    assert ("restart", ("db2",)) in world.fired


def test_a_list_that_may_have_been_cut_ends_nothing():
    world = questioned()
    answers(world, saw(all_jobs=False))
    assert world.cluster.nodes["db2"].foreign[0].ended_at is None


def test_a_minion_that_was_asked_as_the_job_began_proves_nothing_about_it():
    world = warm_world(witness_s=5.0)
    world.break_("db2")
    world.pass_time(4)
    begins(world, "db2")
    answers(world, saw())
    assert world.cluster.nodes["db2"].foreign[0].ended_at is None


def test_a_job_that_the_minion_names_becomes_known():
    world = questioned()
    answers(world, saw(JID, "other"))
    assert [job.jid for job in world.cluster.nodes["db2"].foreign] == [JID, "other"]
    assert world.cluster.nodes["db2"].foreign[1].began_at == world.now


def test_a_job_that_the_minion_names_runs_whatever_was_told_of_its_end():
    world = warm_world(witness_s=5.0)
    begins(world, "db2")
    ends(world, "db2")
    world.pass_time(5)
    world.break_("db2")
    world.pass_time(5)
    answers(world, saw(JID))
    assert world.cluster.nodes["db2"].foreign[0].ended_at is None


def test_the_healers_own_job_is_not_taken_for_somebody_elses_when_the_minion_names_it():
    world = questioned()
    named = world.cluster.with_attempts(lambda one: replace(one, jid="ours"))
    world.state = world.state.with_cluster(named)
    answers(world, saw(JID, "ours"))
    assert [job.jid for job in world.cluster.nodes["db2"].foreign] == [JID]


def test_a_minion_is_asked_again_while_somebodys_job_runs():
    world = questioned()
    answers(world, saw(JID))
    asked = sum(1 for action, _ in world.fired if action == "witness")
    world.pass_time(questions.AGAIN_S)
    assert sum(1 for action, _ in world.fired if action == "witness") == asked + 1
    answers(world, saw())
    world.pass_time(31)
    assert ("restart", ("db2",)) in world.fired


def test_no_word_of_jobs_changes_nothing_nor_does_one_where_nobody_is_waited_for():
    world = questioned()
    answers(world, testimony.Testimony(process=Process.GONE))
    assert world.cluster.nodes["db2"].foreign[0].ended_at is None
    off = warm_world(witness_s=5.0, foreign_most_s=0.0)
    off.break_("db2")
    off.pass_time(2)
    answers(off, saw(JID))
    assert off.cluster.nodes["db2"].foreign == ()


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


GOOD = {"jid": JID, "fun": "state.highstate", "user": "ann"}
RUNNING = Running(JID, "state.highstate", "ann")


@pytest.mark.parametrize(
    ("jobs", "found", "complete"),
    [
        ([GOOD], (RUNNING,), True),
        ([], (), True),
        (None, (), False),
        ({"jid": JID}, (), False),
        ("x" * (10 << 20), (), False),
        (nested(1000), (), False),
        ([GOOD, nested(1000)], (RUNNING,), False),
        ([GOOD, {"jid": float("nan"), "fun": "state.highstate"}], (RUNNING,), False),
        ([{"jid": "x" * (10 << 20), "fun": "state.highstate"}], (), False),
        ([{"jid": JID, "fun": "x" * (10 << 20)}], (), False),
        ([{"jid": JID, "fun": "state.high\nstate"}], (), False),
        ([{"jid": "", "fun": "state.highstate"}], (), False),
        ([{"jid": JID, "fun": "state.highstate", "user": 7}], (Running(JID, "state.highstate"),), True),
        ([{**GOOD, "user": "a\x1b[0m\n" + "n" * 1000}], (Running(JID, "state.highstate", ("a[0m" + "n" * 60)[:60]),), True),
        ([GOOD] * 8, (RUNNING,) * 8, False),
        ([GOOD] * 100_000, (RUNNING,) * 8, False),
    ],
)  # fmt: skip
def test_what_a_minion_says_of_its_jobs_is_read_with_care(jobs, found, complete):
    told = read({"version": 1, "jobs": jobs})
    assert (told.jobs, told.all_jobs) == (found, complete)


def test_a_minion_without_jobs_in_its_word_says_nothing_of_them():
    told = read({"version": 1})
    assert (told.jobs, told.all_jobs) == ((), False)


# ---------------------------------------------------------------- backups

DUMP = Backup("0a1b", ("db2",), "admin")


def backups(world, *running):
    world.step(Backups("runbook", running))


def test_a_backup_through_a_node_holds_what_would_break_it_off():
    world = warm_world()
    backups(world, DUMP)
    world.break_("db2", fault=Fault.HUNG)
    world.pass_time(10, tables=(table(),))
    assert world.fired == []
    assert world.last_said().why == "foreign: db2: rethinkdb dump by admin (0a1b) has run for 4 s"
    backups(world)
    world.pass_time(2, tables=(table(),))
    assert world.fired == [("restart", ("db2",))]


def test_a_backup_ends_with_its_server_and_holds_nothing_about_a_dead_node():
    world = warm_world()
    backups(world, DUMP)
    world.break_("db2")
    world.pass_time(6)
    assert world.fired == [("restart", ("db2",))]


def test_a_backup_without_end_is_waited_for_no_longer_than_most():
    world = warm_world(foreign_most_s=60.0)
    backups(world, DUMP)
    world.break_("db2", fault=Fault.HUNG)
    world.pass_time(59, tables=(table(),))
    assert world.fired == []
    world.pass_time(2, tables=(table(),))
    assert world.fired == [("restart", ("db2",))]


def test_backups_are_told_by_the_names_of_servers_and_may_be_told_again():
    world = warm_world()
    backups(world, DUMP, Backup("0c", ("db1", "db3"), "admin"), Backup("0d", ("a stranger",)))
    known = {n: [job.jid for job in node.foreign] for n, node in world.cluster.nodes.items()}
    assert known == {"db1": ["0c"], "db2": ["0a1b"], "db3": ["0c"]}
    before = world.state
    backups(world, DUMP, Backup("0c", ("db1", "db3"), "admin"))
    assert world.state is before
    backups(world)
    assert all(node.foreign[0].ended_at == world.now for node in world.cluster.nodes.values())
    backups(world, DUMP)  # a server that was away for a moment
    assert world.cluster.nodes["db2"].foreign[0].ended_at is None
    world.step(Backups("nosuch", (DUMP,)))


def test_no_backup_is_known_where_nobody_is_waited_for_nor_where_the_server_is_in_doubt():
    off = warm_world(foreign_most_s=0.0)
    backups(off, DUMP)
    assert off.cluster.nodes["db2"].foreign == ()
    world = warm_world()
    doubted = replace(world.cluster.nodes["db2"], doubt="whose is it?")
    world.state = world.state.with_cluster(world.cluster.with_nodes({"db2": doubted}))
    backups(world, DUMP)
    assert world.cluster.nodes["db2"].foreign == ()


def test_a_minion_says_nothing_of_backups_nor_do_backups_of_jobs():
    world = warm_world(witness_s=5.0)
    backups(world, DUMP)
    begins(world, "db2")
    world.pass_time(10)
    world.break_("db2")
    world.pass_time(5)
    answers(world, saw(JID))
    backups(world, DUMP)
    assert [job.ended_at for job in world.cluster.nodes["db2"].foreign] == [None, None]


def test_nobodys_minion_is_asked_again_for_a_backup():
    world = warm_world(witness_s=5.0)
    backups(world, DUMP)
    world.break_("db2", fault=Fault.HUNG)
    world.pass_time(5, tables=(table(),))
    answers(world, saw())
    world.pass_time(2 * questions.AGAIN_S, tables=(table(),))
    assert [action for action, _ in world.fired] == ["witness"]


# ---------------------------------------------------------------- with the rest


def test_an_attempt_in_flight_goes_on():
    world = warm_world()
    world.break_("db2")
    world.pass_time(6)
    assert world.cluster.attempt is not None
    begins(world, "db2")
    world.heal("db2")
    world.pass_time(15)
    assert world.fired == [("restart", ("db2",))]
    assert world.last_said().said == "resolved"


def test_the_next_step_waits_for_somebodys_job_too():
    world = warm_world(witness_s=0.0)
    world.break_("db2")
    world.pass_time(6)
    world.publish()
    world.returns(Outcome.FAILED)
    begins(world, "db2")
    world.pass_time(60)
    assert world.fired == [("restart", ("db2",))]
    assert any("foreign" in e.why for e in world.effects if getattr(e, "held", False) is True)


def test_a_fault_that_is_not_a_death_waits_as_well():
    world = warm_world()
    world.break_("db2", fault=Fault.AUTH)
    begins(world, "db2")
    world.pass_time(10, tables=(table(),))
    assert not any(
        isinstance(e, Fire) and e.attempt.action is not Action.WITNESS for e in world.effects
    )
