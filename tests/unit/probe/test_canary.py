"""The canary, as the prober sends it through simulated nodes."""

import time

import pytest

from saltext_selfheal.healing.events import Canary, CanaryEnd
from saltext_selfheal.probe import canary
from saltext_selfheal.probe.canary import CanaryPlan
from tests.lab.simulated import SimulatedNode
from tests.lab.watching import Watching
from tests.unit.probe.world import target

TABLE = "runbook.runbook"
READ = CanaryPlan(read=TABLE, every_s=0.2, timeout_s=0.3)
WRITE = CanaryPlan(write=TABLE, every_s=0.2, timeout_s=0.3)


@pytest.fixture
def node():
    with SimulatedNode(name="db1", password="secret") as made:
        yield made


def watched(*nodes, plan=READ, **changes):
    targets = [target(n, node=n.name, **changes) for n in nodes]
    return Watching(*targets, canaries={"runbook": plan})


def ends(end, node="db1", why=""):
    return lambda e: (isinstance(e, Canary) and (e.node, e.end) == (node, end) and why in e.why)


def test_a_document_that_is_missing_is_an_answer(node):
    with watched(node) as seen:
        seen.wait(ends(CanaryEnd.ANSWERED))
        assert node.command({"status": True})["faults"] == {}


def test_a_node_that_lets_it_wait_is_told_with_what_it_does_not_answer(node):
    with watched(node) as seen:
        node.set_fault("stalled")
        _, told = seen.wait(ends(CanaryEnd.UNANSWERED))
        assert told.why == "the canary's read of runbook.runbook within 0.3 s"
        assert seen.faults == {"db1": None}  # it answers its probe
        node.clear()
        seen.wait(ends(CanaryEnd.ANSWERED))


def test_only_writes_may_wait(node):
    with watched(node, plan=CanaryPlan(TABLE, TABLE, 0.2, 0.3)) as seen:
        node.set_fault("stalled", deed="write")
        _, told = seen.wait(ends(CanaryEnd.UNANSWERED))
        assert told.why == "the canary's write to runbook.runbook within 0.3 s"


def test_a_table_without_a_primary_is_not_answered(node):
    with watched(node) as seen:
        node.set_fault("tables_not_ready")
        _, told = seen.wait(ends(CanaryEnd.UNANSWERED))
        assert told.why.startswith(
            "the canary's read of runbook.runbook (Cannot perform read: primary"
        )


@pytest.mark.parametrize(
    ("plan", "fault", "options", "why"),
    [
        (READ, "no_table", {}, "Table `runbook.runbook` does not exist. Make that table, or name another one"),
        (READ, "no_rights", {}, "admin may not read runbook.runbook; missing: "
         "r.db('runbook').table('runbook').grant('admin', {read: true}) (User `admin` does not have"),
        (WRITE, "no_rights", {"deed": "write"}, "admin may not write runbook.runbook; missing: "
         "r.db('runbook').table('runbook').grant('admin', {read: true, write: true})"),
        (WRITE, "no_rights", {"deed": "read"}, "may not read runbook.runbook; missing: "
         "r.db('runbook').table('runbook').grant('admin', {read: true, write: true})"),
        (WRITE, "primary_key", {}, "the canary's write to runbook.runbook is refused: Inserted object must have primary "
         "key `name`"),
    ],
)  # fmt: skip
def test_a_question_that_the_database_refuses_is_told_in_one_line(node, plan, fault, options, why):
    with watched(node, plan=plan) as seen:
        seen.wait(ends(CanaryEnd.ANSWERED))
        node.set_fault(fault, **options)
        _, told = seen.wait(ends(CanaryEnd.UNASKED, why=why))
        assert "\n" not in told.why
        assert "epoch" not in told.why  # it is the same each time, so it is told once
        node.clear()
        seen.wait(ends(CanaryEnd.ANSWERED))


def test_a_document_is_written_for_each_node_and_only_one(node):
    with watched(node, plan=WRITE) as seen:
        for _ in range(3):
            seen.wait(ends(CanaryEnd.ANSWERED))
    rows = node.rows(TABLE)
    assert [(row["id"], row["node"], row["cluster"]) for row in rows] == [
        ("selfheal-canary-db1", "db1", "runbook")
    ]
    assert abs(rows[0]["at"]["epoch_time"] - time.time()) < 10


def test_documents_of_nodes_that_are_gone_are_deleted_and_no_others(node):
    def row(key, node, cluster="runbook"):
        return {"id": key, "node": node, "cluster": cluster}

    kept = [
        row("selfheal-canary-db7", "db7", "other"),
        row("selfheal-canary-db6", "db9"),
        row("mine", "db8"),
        {"id": "selfheal-canary-x"},
        {"id": 3},
    ]
    for one in [*kept, row("selfheal-canary-db8", "db8"), row("selfheal-canary-db9", "db9")]:
        node.insert(TABLE, one)
    with watched(node, plan=WRITE) as seen:
        for _ in range(2):
            seen.wait(ends(CanaryEnd.ANSWERED))
    left = [one for one in node.rows(TABLE) if one["id"] != "selfheal-canary-db1"]
    assert left == kept


def test_a_node_that_answers_nothing_is_left_to_its_probe(node):
    with watched(node) as seen:
        seen.wait(ends(CanaryEnd.ANSWERED))
        node.set_fault("stall", stall_at="query")
        seen.wait_until(lambda: seen.faults["db1"] is not None)
        node.set_fault("refuse", on_existing="drop")
        time.sleep(1.0)
    assert [e for _, e in seen.seen if ends(CanaryEnd.UNANSWERED)(e)] == []


def test_when_one_stalls_the_others_are_asked_at_once():
    plan = CanaryPlan(read=TABLE, every_s=3.0, timeout_s=0.3)
    one, other = (SimulatedNode(name=name, password="secret") for name in ("db1", "db2"))
    with one, other, watched(one, other, plan=plan) as seen:
        seen.wait_until(lambda: sum(isinstance(e, Canary) for _, e in seen.seen) >= 2)
        one.set_fault("stalled")
        at, _ = seen.wait(ends(CanaryEnd.UNANSWERED))
        told = [at2 for at2, e in seen.seen if ends(CanaryEnd.ANSWERED, "db2")(e) and at2 >= at]
        told = told or [seen.wait(ends(CanaryEnd.ANSWERED, "db2"))[0]]
        assert told[0] - at < 1.0


def test_a_new_connection_gets_a_canary_at_once(node):
    with watched(node, plan=CanaryPlan(read=TABLE, every_s=60.0, timeout_s=0.3)) as seen:
        seen.wait_until(lambda: any(isinstance(e, Canary) for _, e in seen.seen), 5.0)
        time.sleep(0.6)
        node.drop_connections()
        seen.wait(ends(CanaryEnd.ANSWERED), 5.0)


def test_a_node_that_answers_no_canary_does_not_get_ever_more_of_them(node, monkeypatch):
    monkeypatch.setattr(canary, "MOST_OWED", 2)
    with watched(node, plan=CanaryPlan(read=TABLE, every_s=0.1, timeout_s=0.1)) as seen:
        seen.wait(ends(CanaryEnd.ANSWERED))
        node.set_fault("stalled")
        for _ in range(2):
            seen.wait(ends(CanaryEnd.UNANSWERED))
        time.sleep(1.2)
        assert seen.prober._probes["runbook", "db1"].wire.owed == 2
        node.clear()
        seen.wait(ends(CanaryEnd.ANSWERED))


def test_without_a_plan_nothing_is_asked_and_no_timer_runs(node):
    with Watching(target(node)) as seen:
        seen.wait_for_fault("db1", None)
        time.sleep(0.3)
        assert not any(isinstance(e, Canary) for _, e in seen.seen)
        assert seen.prober._probes["runbook", "db1"].on_fresh is None
