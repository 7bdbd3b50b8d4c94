"""Which backups run in a cluster, as its table `jobs` tells."""

import time

import pytest

from saltext_selfheal.healing.events import Backup, Backups, ViewStatus
from saltext_selfheal.probe.backups import backup
from saltext_selfheal.probe.tables import ViewPlan
from tests.unit.probe.world import is_view, known, watching_all

PLAN = {"runbook": ViewPlan(every_s=0.1, timeout_s=1.0, backups=True)}
DUMP = 'r.db("runbook").table("runbook").orderBy({"index": "id"})'


def is_backups(wanted):
    return lambda e: isinstance(e, Backups) and wanted(e)


def told(watching):
    return [e for _, e in watching.seen if isinstance(e, Backups)]


def test_a_dump_is_seen_as_long_as_it_runs(cluster):
    cluster[0].set_fault("jobs")
    with watching_all(cluster, PLAN) as watching:
        _, event = watching.wait(is_backups(lambda e: e.running))
        (one,) = event.running
        assert (one.servers, one.by) == (("db1",), "admin")
        cluster[0].clear()
        watching.wait(is_backups(lambda e: not e.running))


@pytest.mark.parametrize("fault", ["no_jobs", "no_permission"])
def test_where_the_user_may_not_read_jobs_nothing_is_known_and_the_view_goes_on(cluster, fault):
    for node in cluster:
        node.set_fault(fault)
    with watching_all(cluster, PLAN) as watching:
        wanted = known if fault == "no_jobs" else lambda v: v.status is ViewStatus.FORBIDDEN
        for _ in range(5):
            watching.wait(is_view(wanted))
        assert told(watching) == []
        assert set(watching.faults.values()) == {None}


def test_where_nobody_is_waited_for_nobody_looks(cluster):
    cluster[0].set_fault("jobs")
    with watching_all(cluster) as watching:
        watching.wait(is_view(known))
        time.sleep(0.5)
        assert told(watching) == []


def row(query=DUMP, **changes):
    return {
        "type": "query", "id": ["query", "0a-1b"], "duration_sec": 60.0, "servers": ["db1"],
        "info": {"query": query, "user": "admin", "client_address": "::1", "client_port": 1}, **changes,
    }  # fmt: skip


@pytest.mark.parametrize(
    "query",
    [
        DUMP,
        'r.db("a")\n .table("b")\n .orderBy({"index":\n   "key"})',
        'r.db("a").table("b").between("x y", r.maxval, {"leftBound": "open"}).orderBy({"index": "id"})',
    ],
)
def test_what_a_dump_or_an_export_sends(query):
    assert backup(row(query)) == Backup("0a-1b", ("db1",), "admin")


@pytest.mark.parametrize(
    "query",
    [
        'r.db("a").table("b").orderBy({"index": "id"}).limit(10)',
        'r.db("a").table("b").orderBy({"index": "id"}).changes()',
        'r.db("a").table("b").orderBy("id")',
        'r.db("a").table("b").between("x", "y").orderBy({"index": "id"})',
        'r.db("a").table("b")',
        'r.db("a").table("b").filter({"a": 1}).orderBy({"index": "id"})',
        'r.db("rethinkdb").table("jobs")',
        "",
        None,
        7,
        "x" * (10 << 20),
        DUMP + " " * 5000,
    ],
    ids=range(12),
)
def test_what_is_no_backup(query):
    assert backup(row(query)) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "index_construction"},
        {"duration_sec": 4.0},
        {"duration_sec": None},
        {"duration_sec": float("nan")},
        {"duration_sec": True},
        {"id": None},
        {"id": []},
        {"id": ["query", None]},
        {"id": ["query", "x" * 100]},
        {"id": ["query", "a b"]},
        {"info": None},
        {"info": []},
    ],
)
def test_odd_documents_are_none(changes):
    assert backup(row(**changes)) is None


@pytest.mark.parametrize("servers", [None, 7, {}, [None, 7, []]])
def test_odd_servers_are_left_out(servers):
    assert backup(row(servers=servers)) == Backup("0a-1b", (), "admin")
