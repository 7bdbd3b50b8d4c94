"""From observations to verdicts: nodes, clusters, and the healer's own eyes."""

import pytest

from saltext_selfheal.healing import health
from saltext_selfheal.healing.events import Issue, Observation, Observed, ViewStatus
from saltext_selfheal.healing.model import Fault, NodeState, Tell
from tests.unit.world import World, policy, table

CLOSED = (table(writes=False),)


def after(*faults, step_s=1.0, latency_s=0.001, node=None, acted_on=False, **changes):
    """A node after these observations, one per ``step_s``."""
    node, now = node or NodeState(), 1000.0
    for fault in faults:
        seen = Observation("runbook", "db1", fault, f"{fault}", latency_s)
        node = health.observe(node, seen, policy(**changes), now, acted_on)
        now += step_s
    return node


def told(world):
    return [(e.what, e.node) for e in world.effects if isinstance(e, Tell)]


# ---------------------------------------------------------------- nodes


def test_a_node_nobody_has_seen_is_neither_well_nor_faulty():
    assert not NodeState().well
    assert not NodeState().suspected


def test_a_fault_is_suspected_until_it_has_lasted():
    assert after(None).well
    assert after(None, Fault.DEAD).suspected
    assert after(Fault.DEAD, Fault.DEAD, Fault.DEAD).suspected
    assert after(*[Fault.DEAD] * 4).confirmed


def test_a_fault_that_changes_its_kind_starts_anew():
    patience = {"confirm_s": {Fault.DEAD: 3.0, Fault.HUNG: 20.0}}
    node = after(*[Fault.DEAD] * 3, *[Fault.HUNG] * 10, **patience)
    assert (node.fault, node.confirmed) == (Fault.HUNG, False)


def test_a_node_that_goes_from_fault_to_fault_is_confirmed_by_the_longest_patience():
    patience = {"confirm_s": {Fault.UNREACHABLE: 10.0, Fault.HUNG: 20.0}}
    turns = [Fault.HUNG, Fault.UNREACHABLE] * 10
    assert after(*turns, **patience).confirmed is False
    assert after(*turns, Fault.HUNG, **patience).confirmed is True


def test_with_nothing_to_confirm_the_first_proof_is_enough():
    assert after(Fault.DEAD, confirm_s={}).confirmed


def test_what_a_node_once_said_of_itself_is_remembered():
    node = health.observe(
        NodeState(),
        Observation("r", "db1", None, "", 0.0, "id", "name", "2.4.4"),
        policy(),
        1.0,
        False,
    )
    node = after(Fault.DEAD, node=node)
    assert (node.server_id, node.server_name, node.version) == ("id", "name", "2.4.4")


def test_slow_answers_are_a_fault_only_where_asked_for():
    assert after(*[None] * 9, latency_s=1.0).well
    slow = {"slow_above_s": 0.5, "slow_count": 3, "slow_of": 5}
    assert after(None, None, latency_s=1.0, **slow).well
    node = after(None, None, None, latency_s=1.0, **slow)
    assert (node.fault, node.evidence) == (Fault.SLOW, "3 of 3 answers took more than 0.5 s")
    assert after(*[None] * 3, node=node, **slow).well


# ---------------------------------------------------------------- flapping

COMES_AND_GOES = [None, Fault.DEAD] * 3


def test_a_node_that_comes_and_goes_is_flapping():
    # The first fault is none of them: a recovery that nobody made, and the fault after it.
    assert after(*COMES_AND_GOES[:5]).flapping is False  # three changes
    assert after(*COMES_AND_GOES[:6]).flapping is True  # four


def test_a_node_that_dies_after_each_repair_does_not_flap():
    node = NodeState()
    for _ in range(6):
        node = after(Fault.DEAD, node=node)
        node = after(None, node=node, acted_on=True)
    assert node.changes == ()


def test_flapping_is_about_time_and_not_about_samples():
    assert not after(*COMES_AND_GOES * 3, step_s=600.0).flapping


def test_changes_while_the_healer_works_on_the_node_do_not_count():
    assert not after(*COMES_AND_GOES, acted_on=True).flapping


def test_flapping_can_be_switched_off():
    assert not after(*COMES_AND_GOES * 3, flapping_changes=0).flapping


def test_flapping_ends_when_it_is_quiet():
    node = after(*COMES_AND_GOES, None)
    assert node.flapping
    assert after(*[None] * 3, node=node, step_s=600.0, flapping_quiet_s=1800.0).flapping
    assert not after(*[None] * 5, node=node, step_s=600.0, flapping_quiet_s=1800.0).flapping


def test_flapping_ends_when_the_node_is_steadily_faulty():
    node = after(*COMES_AND_GOES)
    assert node.flapping
    assert not after(*[Fault.DEAD] * 130, node=node).flapping


def test_a_flapping_node_is_left_alone_and_told_once_each_way():
    world = World(policy(confirm_s=dict.fromkeys(Fault, 2.0), stable_s=1.0)).warm()
    for _ in range(4):
        world.break_("db2")
        world.pass_time(1)
        world.mend("db2")
        world.pass_time(1)
    world.break_("db2")
    world.pass_time(30)
    assert world.fired == []
    assert (
        "flapping: db2 comes and goes by itself"
        in world.last_said(world.cluster.incidents[0].id).why
    )
    world.pass_time(100)
    assert world.fired == [("restart", ("db2",))]
    assert told(world) == [("flapping", "db2"), ("steady", "db2")]


# ---------------------------------------------------------------- clusters


def test_a_table_that_is_not_ready_though_every_node_answers_is_unavailable():
    world = World(policy(settle_s=0.0)).warm()
    world.pass_time(3, tables=CLOSED)
    assert world.fired == []
    world.pass_time(2, tables=CLOSED)
    assert world.fired == [("highstate", ("db1",))]
    (incident,) = world.cluster.incidents
    assert (incident.called, incident.nodes) == ("unavailable", ("db1", "db2", "db3"))
    assert "runbook.runbook is not ready for writes" in str(
        [e.why for e in world.effects if hasattr(e, "said")]
    )


def test_a_table_is_given_time_after_a_node_started_and_ready_ends_it_at_once():
    world = World(policy(settle_s=45.0))
    world.pass_time(40, tables=CLOSED)
    assert world.cluster.ailments == ()
    world.pass_time(10, tables=CLOSED)
    assert [a.seen.fault for a in world.cluster.ailments] == [Fault.UNAVAILABLE]
    world.look()
    assert world.cluster.ailments == ()


def test_a_node_that_is_not_well_explains_tables_that_are_not_ready():
    world = World(policy(settle_s=0.0)).warm()
    world.break_("db2", fault=Fault.HUNG)
    world.pass_time(1)
    world.look(tables=CLOSED)
    assert world.cluster.ailments == ()


@pytest.mark.parametrize(
    ("wanted", "ill"),
    [((), True), (("runbook",), True), (("runbook.runbook",), True), (("other",), False)],
)
def test_only_the_tables_that_were_named_count(wanted, ill):
    world = World(policy(settle_s=0.0, tables=wanted)).warm()
    world.look(tables=CLOSED)
    assert bool(world.cluster.ailments) is ill


def test_an_unavailable_cluster_that_a_highstate_cured_is_resolved_by_what_the_tables_say():
    world = World(policy(settle_s=0.0)).warm()
    world.pass_time(5, tables=CLOSED)
    world.publish()
    world.returns()
    world.pass_time(2, tables=(table(),))
    world.pass_time(12, tables=(table(),))
    assert world.last_said().said == "resolved"
    assert len(world.fired) == 1


def test_nodes_that_disagree_about_who_is_connected_are_partitioned_and_only_announced():
    apart = {
        "db1": frozenset({"id-db1"}),
        "db2": frozenset({"id-db2", "id-db3"}),
        "db3": frozenset({"id-db2", "id-db3"}),
    }
    world = World(policy(settle_s=0.0)).warm()
    world.pass_time(60, connected=apart, tables=CLOSED)
    (incident,) = (
        world.cluster.incidents
    )  # and no second one for the tables: the partition explains them
    assert incident.called == "partitioned"
    assert "db1 is not connected to db2" in incident.why
    assert world.fired == []
    world.pass_time(12, tables=(table(),))
    assert world.cluster.incidents == ()


def test_each_of_rethinkdbs_issues_is_an_incident_of_its_own_name():
    issues = (
        Issue("log_write_error", "No space left on device"),
        Issue("table_availability", ""),
    )
    world = World(policy(settle_s=0.0)).warm()
    world.pass_time(10, issues=issues)
    assert [i.called for i in world.cluster.incidents] == ["issue:log_write_error"]
    assert world.fired == []


def many(first: int, count: int) -> tuple[Issue, ...]:
    return tuple(Issue(f"kind_{number:04}", "odd") for number in range(first, first + count))


def test_a_hundred_kinds_of_issues_are_seven_incidents():
    world = World(policy(settle_s=0.0)).warm()
    world.pass_time(10, issues=many(0, 100))
    assert [i.called for i in world.cluster.incidents] == [
        *(f"issue:kind_{number:04}" for number in range(6)),
        "issue:others",
    ]
    told = "94 more kinds of issues within an hour, such as kind_0006, kind_0007, kind_0008"
    assert world.cluster.incidents[-1].why.endswith(told)


def test_new_kinds_of_issues_at_each_look_open_seven_incidents_an_hour():
    world = World(policy(settle_s=0.0, stable_s=1.0)).warm()
    for number in range(200):
        world.pass_time(2, issues=many(100 * number, 100))
    assert world.cluster.serial == 7
    world.pass_time(3600)
    world.pass_time(4, issues=many(0, 100))
    assert world.cluster.serial == 13  # the incident of all others is still open


def test_a_kind_that_has_an_incident_keeps_it_among_many():
    world = World(policy(settle_s=0.0)).warm()
    world.pass_time(10, issues=many(50, 1))
    world.pass_time(10, issues=many(0, 100))
    assert world.cluster.incidents[0].called == "issue:kind_0050"
    assert world.cluster.incidents[0].gone_since is None


@pytest.mark.parametrize("status", [ViewStatus.UNKNOWN, ViewStatus.FORBIDDEN])
def test_a_view_that_could_not_be_had_changes_no_verdict_and_is_told_once(status):
    world = World(policy(settle_s=0.0)).warm()
    world.look(tables=CLOSED)
    ill = world.cluster.ailments
    for node in ("db1", "db2", "db3"):
        world.look(status=status, why="some peer hangs", tables=(), node=node)
    assert world.cluster.ailments == ill
    assert told(world) == [("view", "db1")]
    assert str(world.cluster.tables) == f"{status.value}: some peer hangs"


def test_the_table_map_is_kept_with_its_age():
    world = World().warm()
    world.look()
    taken, tables = world.state.maps["runbook"]
    assert (taken, tables) == (world.now, (table(),))


def test_start_times_go_to_the_node_with_that_server_id():
    world = World().warm()
    world.look(started={"id-db2": 1234.5, "foreign": 1.0})
    assert world.cluster.nodes["db2"].started_at == 1234.5


# ---------------------------------------------------------------- the healer's own eyes


def test_a_healer_to_whom_everything_is_unreachable_suspects_itself():
    world = World(policy(), policy(name="web", nodes=("dbw",))).warm()
    world.break_("db1", "db2", "db3", fault=Fault.UNREACHABLE)
    world.pass_time(5)
    assert world.state.blind == ""
    world.break_("dbw", fault=Fault.UNREACHABLE, cluster="web")
    world.pass_time(5)
    assert "all 4 nodes are unreachable at once" in world.state.blind
    world.mend("dbw", cluster="web")
    world.pass_time(2)
    assert world.state.blind == ""
    assert told(world) == [("blind", ""), ("sighted", "")]


def test_a_probe_that_failed_on_the_healers_own_side_blames_no_node_and_stops_all_action():
    world = World(policy(confirm_s={})).warm()
    ours = Observation("runbook", "db1", Fault.UNREACHABLE, "Too many open files", ours=True)
    world.step(Observed(ours))
    assert world.cluster.nodes["db1"].well
    world.break_("db2")
    world.pass_time(5)
    assert world.fired == []
    assert "blind: Too many open files" in world.last_said().why
    world.pass_time(40)
    assert world.fired == [("restart", ("db2",))]
