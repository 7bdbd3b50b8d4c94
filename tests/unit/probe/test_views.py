"""The cluster's system tables, and whom each node has met."""

import pytest

from saltext_selfheal.healing.events import Met, Observed, ViewStatus
from saltext_selfheal.healing.model import Fault
from saltext_selfheal.probe.tables import ViewPlan
from tests.lab.simulated import SimulatedNode
from tests.lab.watching import Watching
from tests.unit.probe.world import is_fault, is_seen, is_view, known, target, watching_all


def test_a_view_shows_tables_replicas_and_who_is_connected(cluster):
    ids = frozenset(n.id for n in cluster)
    with watching_all(cluster) as watching:
        _, event = watching.wait(
            is_view(
                lambda v: known(v) and len(v.connected) == 3 and set(v.connected.values()) == {ids}
            )
        )
        view = event.view
    (table,) = view.tables
    assert (table.name, table.reads, table.writes, table.all_replicas) == (
        "runbook.runbook",
        True,
        True,
        True,
    )
    (shard,) = table.shards
    assert {(r.server, r.state, r.voting) for r in shard.replicas} == {
        (n.name, "ready", True) for n in cluster
    }
    assert set(view.started) == ids
    assert view.issues == ()


def test_tables_that_are_not_ready_and_issues_are_in_the_view(cluster):
    for node in cluster:
        node.set_fault("tables_not_ready", readiness="outdated_reads")
        node.set_fault("issue", types=["log_write_error"], add=True)
    with watching_all(cluster) as watching:
        _, event = watching.wait(is_view(lambda v: known(v) and v.issues))
    assert (event.view.tables[0].reads, event.view.tables[0].writes) == (False, False)
    assert event.view.issues[0].type == "log_write_error"


def test_a_partition_is_seen_as_disagreement(cluster):
    with watching_all(cluster) as watching:
        watching.wait(
            is_view(lambda v: known(v) and all(len(c) == 3 for c in v.connected.values()))
        )
        cluster[0].set_fault("partitioned")
        watching.wait(
            is_view(
                lambda v: known(v)
                and v.connected.get("db1") == {cluster[0].id}
                and not any(cluster[0].id in v.connected[n] for n in ("db2", "db3"))
            )
        )


def test_system_tables_that_hang_mean_unknown_and_no_fault_of_a_node(cluster):
    for node in cluster:
        node.set_fault("hang_system_tables")
    with watching_all(cluster) as watching:
        _, event = watching.wait(is_view(lambda v: v.status is ViewStatus.UNKNOWN))
        assert "some peer hangs" in event.view.why
        assert {e.observation.fault for _, e in watching.seen if isinstance(e, Observed)} == {None}


def test_a_user_who_may_not_read_is_told_the_missing_grant_and_the_node_is_alive(cluster):
    for node in cluster:
        node.set_fault("no_permission")
    with watching_all(cluster) as watching:
        _, event = watching.wait(is_view(lambda v: v.status is ViewStatus.FORBIDDEN))
        watching.wait(is_fault(None))
    assert "missing: r.db('rethinkdb').grant('admin', {read: true})" in event.view.why
    assert "\n" not in event.view.why


def test_the_tables_are_asked_of_one_live_node_a_round_in_turn(cluster):
    with watching_all(cluster) as watching:
        asked = {watching.wait(is_view(known))[1].view.node for _ in range(9)}
        cluster[1].set_fault("refuse", on_existing="drop")
        watching.wait(is_fault(Fault.DEAD, "db2"))
        later = {watching.wait(is_view(known))[1].view.node for _ in range(6)}
    assert asked == {"db1", "db2", "db3"}
    assert later == {"db1", "db3"}


def test_ten_thousand_tables_come_in_batches_and_hold_up_no_probe():
    tables = tuple(f"runbook.t{n}" for n in range(10_000))
    with SimulatedNode(name="db1", password="secret", tables=tables, batch=500) as node:
        plan = {"runbook": ViewPlan(every_s=0.1, timeout_s=30.0)}
        with Watching(target(node, timeout_s=5.0), plans=plan) as watching:
            _, event = watching.wait(is_view(known), timeout_s=60.0)
    assert len(event.view.tables) == 10_000
    assert {e.observation.fault for _, e in watching.seen if isinstance(e, Observed)} == {None}


def is_met(wanted=lambda m: True):
    return lambda e: isinstance(e, Met) and wanted(e)


def test_whom_each_node_has_met_comes_with_every_view(cluster):
    ids = frozenset(n.id for n in cluster)
    with watching_all(cluster) as watching:
        _, met = watching.wait(is_met(lambda m: len(m.connected) == 3))
        watching.wait(is_view(known))
    assert set(met.connected.values()) == {ids}
    assert met.names == {n.id: n.name for n in cluster}
    assert set(met.started) == ids
    assert 0 < met.took_s < 1


@pytest.mark.parametrize("met_too", [True, False])
def test_a_refusal_makes_the_others_be_asked_at_once(cluster, met_too):
    """Without any view: only because of the refusal. A closed port alone, and a dead server."""
    with watching_all(cluster, plans={"other": ViewPlan()}) as watching:
        for node in cluster:
            watching.wait(is_fault(None, node.name))
        cluster[0].set_fault("refuse", cluster_too=met_too is False, on_existing="drop")
        watching.wait(is_fault(Fault.DEAD))
        _, met = watching.wait(is_met(lambda m: len(m.connected) == 2))
    for name in ("db2", "db3"):
        assert (cluster[0].id in met.connected[name]) is met_too


def test_a_refusal_of_new_clients_only_makes_them_be_asked_too(cluster):
    nodes = [target(n, node=n.name, redial_s=0.2) for n in cluster]
    with Watching(*nodes) as watching:
        for node in cluster:
            watching.wait(is_fault(None, node.name))
        cluster[0].set_fault("refuse", cluster_too=False)
        watching.wait(is_seen(lambda o: o.fault is Fault.DEAD and o.answers))
        _, met = watching.wait(is_met(lambda m: "db2" in m.connected))
    assert cluster[0].id in met.connected["db2"]


def test_nobody_is_told_to_have_met_anybody_where_reading_is_forbidden(cluster):
    for node in cluster:
        node.set_fault("no_permission")
    with watching_all(cluster) as watching:
        watching.wait(is_view(lambda v: v.status is ViewStatus.FORBIDDEN))
        cluster[0].set_fault("refuse", on_existing="drop", add=True)
        watching.wait(is_fault(Fault.DEAD))
        watching.wait(is_view(lambda v: v.status is ViewStatus.FORBIDDEN))
    assert not any(isinstance(e, Met) for _, e in watching.seen)
