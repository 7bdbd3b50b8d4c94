"""The whole way on a real site: a fault, an event, a reaction, a job, a database that is well again."""

import os
import signal

from tests.integration.conftest import ASKING, orders, wait_order


def started_jobs(events, function):
    """Jobs of this function that were really published."""
    return [e.data for e in events.matching("salt/job/*/new") if e.data["fun"] == function]


def returned(events, function):
    """(minion, jid) of each return of this function."""
    return [
        (e.data["id"], e.data["jid"])
        for e in events.matching("salt/job/*/ret/*")
        if e.data["fun"] == function
    ]


def test_a_killed_node_is_brought_back_by_one_restart(quiet):
    with quiet.events("selfheal/*", "salt/job/*") as events:
        quiet.nodes["db2"].kill()
        resolved = events.wait("selfheal/incident/runbook/resolved", timeout=60)
        assert quiet.nodes["db2"].serving()
        (job,) = started_jobs(events, "service.restart")
        assert (job["tgt"], job["tgt_type"], job["arg"]) == (["db2"], "list", ["rethinkdb"])
        remediation = events.wait("selfheal/remediate/restart").data
        assert remediation["jid"] == job["jid"]
        assert started_jobs(events, "state.highstate") == []
    phases = [e.data["phase"] for e in events.matching("selfheal/incident/*")]
    assert phases == ["suspected", "open", "remediating", "verifying", "verifying", "resolved"]
    assert resolved.data["nodes"] == ["db2"]
    told = quiet.run_runner("selfheal.history", "runbook", limit=20)
    mine = [row for row in told if row["incident"] == resolved.data["incident"]]
    assert {row["kind"] for row in mine} == {"incident", "fire", "finish"}
    assert next(row for row in mine if row["kind"] == "finish")["outcome"] == "done"


def test_a_stopped_process_is_hung_and_restarted(quiet):
    with quiet.events("selfheal/*") as events:
        quiet.nodes["db3"].pause()
        opened = events.wait("selfheal/incident/runbook/open", timeout=30).data
        assert opened["fault"] == "hung"
        events.wait(
            "selfheal/incident/runbook/resolved",
            lambda d: d["incident"] == opened["incident"],
            timeout=60,
        )
    assert quiet.nodes["db3"].serving()


def test_dead_nodes_are_started_together(quiet):
    with quiet.events("selfheal/*", "salt/job/*") as events:
        # At once: one that still lives would say that it is connected to one that does not.
        for pid in [node.pid() for node in quiet.nodes.values()]:
            os.kill(pid, signal.SIGKILL)
        events.wait("selfheal/incident/runbook/resolved", timeout=90)
        first = started_jobs(events, "service.restart")[0]
        assert sorted(first["tgt"]) == ["db1", "db2", "db3"]
    assert all(node.serving() for node in quiet.nodes.values())


def test_what_a_restart_does_not_hold_a_highstate_repairs(quiet):
    with quiet.events("selfheal/*", "salt/job/*") as events:
        quiet.nodes["db1"].damage_config()
        quiet.nodes["db1"].kill()
        events.wait("selfheal/incident/runbook/resolved", timeout=90)
        actions = [e.data["action"] for e in orders(events)]
    # Not the look between the two: a result alone does not prove that the restart has ended.
    assert actions == ["restart", "highstate"]
    assert quiet.nodes["db1"].config_is_right()
    assert quiet.nodes["db1"].serving()


def test_an_engine_killed_between_order_and_result_ends_in_one_execution_and_one_resolved_incident(
    quiet,
):
    with quiet.events("selfheal/*", "salt/job/*") as events:
        engine = quiet.engine_pid()
        quiet.nodes["db2"].kill()
        order = wait_order(events)
        os.kill(engine, signal.SIGKILL)
        resolved = events.wait("selfheal/incident/runbook/resolved", timeout=90).data
        assert resolved["incident"] == order["incident"]
        assert {e.data["jid"] for e in orders(events)} == {order["jid"]}
        ran = returned(events, "service.restart") + returned(events, "state.highstate")
        assert ran == [("db2", order["jid"])]
    assert quiet.engine_pid() != engine
    assert quiet.nodes["db2"].serving()
    finished = [
        row
        for row in quiet.run_runner("selfheal.history", "runbook", limit=40)
        if (row["kind"], row["incident"]) == ("finish", order["incident"])
        and row["action"] not in ASKING
    ]
    assert len(finished) == 1
