"""What people are shown, as data: each view's fields, and the dict that is made of them."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from saltext_selfheal import config
from saltext_selfheal.console import desk, dropin, explanation, given, history, status, times
from saltext_selfheal.doors.arguments import BadRequest
from saltext_selfheal.healing import canary
from saltext_selfheal.healing.events import Verb
from saltext_selfheal.healing.explained import Explained, Gate
from saltext_selfheal.healing.model import (
    Action,
    Attempt,
    ClusterState,
    Fault,
    Mode,
    NodeState,
    Pause,
    Phase,
)

CLUSTERS = {
    "runbook": {"minions": "db*", "nodes": {"db1": "127.0.0.1:1", "db2": "127.0.0.1:2"}},
    "web": {"minions": "web*", "nodes": {"web1": "127.0.0.1:3"}},
}
AT = 1_700_000_000.0
CLOCK = "2023-11-14 22:13:20+00:00"


@pytest.fixture
def settings():
    return config.load({"engines": [{"selfheal": {"clusters": CLUSTERS}}]})


@pytest.fixture(autouse=True)
def utc(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_the_console_needs_no_salt():
    code = (
        "import sys\n"
        "from saltext_selfheal.console import answering, desk, dropin, explanation, given, history, status, times\n"
        "sys.exit('salt' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], env=os.environ, timeout=60).returncode == 0


@pytest.mark.parametrize(("at", "told"), [(None, None), (AT, CLOCK), (1e308, "1e+308 s")])
def test_a_time_as_people_read_it(at, told):
    assert times.clock(at) == told


def test_a_duration_as_people_write_it():
    assert times.seconds("since", "30m") == 1800.0
    with pytest.raises(BadRequest, match=r"since: found 'soon'; allowed: .*, at most 1d"):
        times.seconds("since", "soon", ", at most 1d")


def test_an_attempt_by_its_name():
    assert given.attempt("runbook-7.1") == ("runbook-7", 1)
    assert given.attempt("runbook-7") == ("runbook-7", None)


# ---------------------------------------------------------------- status


def locked(**changes):
    known = {
        "id": "runbook-1", "fault": "dead", "nodes": ("db2",), "phase": Phase.LOCKED, "held": "", "only_told": False, "step": 1,
        "steps": 2, "attempts": 1, "requests": 0, "opened_at": AT, "why": "no connection",
        "next_attempt": "runbook-1.2",
    }  # fmt: skip
    return status.IncidentStatus(**{**known, **changes})


def test_a_cluster_in_trouble_is_told_with_all_that_concerns_people():
    attempt = Attempt("runbook-2.1", "runbook", "runbook-2", Action.RESTART, ("db1",), 0, AT, AT)
    nodes = (
        status.NodeStatus("db1", AT, Fault.DEAD, True, True, "refused"),
        status.NodeStatus("db2", AT, evidence="answers"),
        status.NodeStatus("db3"),
    )
    pause = Pause(AT, "ann", "upgrade", everywhere=True)
    view = status.ClusterStatus(
        "runbook", Mode.AUTO, "known", nodes, (locked(),), pause=pause, in_flight=attempt
    )
    assert [incident.id for incident in view.locked] == ["runbook-1"]
    assert list(view.told().items()) == [
        ("mode", "auto"),
        ("tables", "known"),
        (
            "nodes",
            {
                "db1": f"dead (suspected) (flapping) since {CLOCK}: refused",
                "db2": f"well since {CLOCK}: answers",
                "db3": "unknown: not probed yet",
            },
        ),
        ("incidents", {"runbook-1": locked().told()}),
        ("paused", f"until {CLOCK} by ann (every cluster): upgrade"),
        ("locked", ["db2 by runbook-1: no connection"]),
        ("in flight", "runbook-2.1: restart on db1"),
    ]


def test_what_is_wrong_with_the_canary_is_told_if_something_is():
    nodes = {"db1": NodeState(since=1.0), "db2": NodeState(since=1.0, unasked="no table")}
    made = canary.told(ClusterState("runbook", nodes=nodes))
    view = status.ClusterStatus("runbook", Mode.AUTO, "known", (), canary=made)
    assert view.told()["canary"] == "cannot be asked: no table"
    assert view.told("03:00")["canary"] == "as of 03:00: cannot be asked: no table"
    waits = {**nodes, "db2": NodeState(since=1.0, stalled="a read")}
    assert canary.told(ClusterState("runbook", nodes=waits)) == "not answered through db2"
    alone = {"db2": waits["db2"]}
    assert canary.told(ClusterState("runbook", nodes=alone)) == "no node answers a read"
    assert canary.told(ClusterState("runbook", nodes={"db1": nodes["db1"]})) == ""


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "when it is seen to: salt-run selfheal.ack runbook-1"),
        (
            {"phase": Phase.OPEN, "held": "approval, cooldown"},
            "salt-run selfheal.approve runbook-1.2, or salt-run selfheal.reject runbook-1.2",
        ),
        ({"phase": Phase.OPEN, "held": "cooldown"}, None),
    ],
)
def test_what_is_left_for_a_person_to_do(changes, told):
    assert locked(**changes).next == told
    assert locked(**changes).told()["next"] == told


def test_status_without_a_ledger_says_so_and_tells_what_is_configured(settings, tmp_path):
    path = tmp_path / "ledger.sqlite3"
    view = status.read(settings, path, "web")
    assert view.engine is status.Engine.NOT_RUNNING
    assert [cluster.name for cluster in view.clusters] == ["web"]
    assert list(view.told()) == ["engine", "as of", "ledger", "clusters", "errors", "retcode"]
    assert view.told()["errors"] == [f"{path}: no ledger; the engine has not run yet"]
    with pytest.raises(BadRequest, match="cluster: found 'nosuch'; allowed: runbook, web"):
        status.read(settings, path, "nosuch")


def test_status_of_settings_that_cannot_be_used():
    with pytest.raises(config.ConfigError) as caught:
        config.load({"engines": [{"selfheal": {"clusters": "x"}}]})
    told = status.unusable(caught.value.problems).told()
    assert list(told) == ["engine", "errors", "retcode"]
    assert told["engine"] == "heals nothing: the settings cannot be used"


# ---------------------------------------------------------------- the others


def test_an_entry_of_an_explanation_names_the_gates_that_are_shut():
    gates = (
        Gate("mode", True, "auto"),
        Gate("paused", False, "by ann", AT),
        Gate("budget", False, "spent"),
    )
    entry = Explained(None, None, None, ("db1",), "supposed", Action.RESTART, ("db1",), gates)
    assert explanation.entry_told(entry) == {
        "incident": None, "fault": None, "phase": None, "why": "supposed", "step": "restart", "on": ["db1"],
        "replicas": "not known", "shut": ["paused", "budget"],
        "gates": {"mode": "open: auto", "paused": f"shut: by ann; opens {CLOCK}", "budget": "shut: spent"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("unready", "told"),
    [(None, "not known"), ("", "all ready"), ("t: db1 is backfilling", "t: db1 is backfilling")],
)
def test_an_explanation_says_whether_all_replicas_are_ready(unready, told):
    entry = Explained(None, None, None, ("db1",), "supposed", None, (), (), unready)
    assert explanation.entry_told(entry)["replicas"] == told


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (
            desk.refused("request", "no"),
            {"request": None, "reply": "refused", "why": "no", "incident": None, "retcode": 1, "jid": None},
        ),
        (
            desk.recorded("request", "r", {"reply": "held", "why": "w", "incident": "runbook-1", "jid": "1"}),
            {"request": "r", "reply": "held", "why": "w", "incident": "runbook-1", "jid": "1"},
        ),
        (
            desk.recorded("request", "r", {"reply": "refused", "why": "w", "incident": None, "jid": None}),
            {"request": "r", "reply": "refused", "why": "w", "incident": None, "jid": None, "retcode": 1},
        ),
        (
            desk.Answered("command", desk.STORED, "later", "c"),
            {"command": "c", "reply": "stored", "why": "later", "incident": None},
        ),
    ],
)  # fmt: skip
def test_what_became_of_it_is_told_in_one_form(answer, told):
    assert list(answer.told().items()) == list(told.items())


def test_the_desk_looks_everything_up_before_it_asks(settings, tmp_path):
    counter = desk.Desk(settings, tmp_path / "none", by="ann")
    for call, why in (
        (lambda: counter.trigger("runbook", "restart", None, "x", "runbook-1"), "request: found 'runb"),
        (lambda: counter.trigger("runbook", "bogus", None, "x"), "unknown action 'bogus'"),
        (lambda: counter.force("runbook", "restart", None, "x"), "nodes: found None"),
        (lambda: counter.pause("runbook", "soon", "x"), "duration: found 'soon'"),
        (lambda: counter.command(Verb.LOCK, cluster="runbook", nodes="db9", reason="x"), "found db9"),
    ):  # fmt: skip
        with pytest.raises(BadRequest, match=why):
            call()
    # the ledger comes last, and here there is none
    with pytest.raises(history.records.LedgerError, match="no ledger"):
        counter.pause("1h", "x", None)


def test_a_proof_of_nothing_and_one_that_fails():
    assert history.unproven("no ledger").told() == {
        "reply": "refused", "ok": False, "why": "no ledger", "retcode": 1,
    }  # fmt: skip
    broken = history.Proof(False, 1, 1, 1, broken=2, why="expected hash")
    assert list(broken.told()) == ["ok", "rows", "from", "to", "broken", "why", "retcode"]


def test_a_drop_in_names_the_files_of_this_installation(monkeypatch):
    text = dropin.render("runbook", "db*", {"db1": "10.0.0.1"}, ["engines"])
    assert f"['{dropin.packaged('restart')}']" in text
    assert "# NOTE: this replaces the `engines:`" in text
    onedir = Path("/opt/saltstack/salt/extras-3.10/saltext_selfheal/reactor/restart.sls")
    monkeypatch.setattr(dropin, "packaged", lambda _: onedir)
    assert dropin.reference("restart") == (
        "/opt/saltstack/salt/extras-3.*/saltext_selfheal/reactor/restart.sls"
    )
