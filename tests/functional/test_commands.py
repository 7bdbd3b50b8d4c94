"""The runner's commands and what it tells of incidents, with an engine that only answers."""

import json
import re
import sqlite3
import threading
import time
from pathlib import Path

import pytest
import salt.loader
import salt.runner
import salt.utils.args

from saltext_selfheal import config
from saltext_selfheal.healing.events import Door, Request, Verb
from saltext_selfheal.healing.model import (
    Action,
    Announce,
    Answer,
    Attempt,
    ClusterState,
    Fault,
    Finish,
    Fire,
    Incident,
    Outcome,
    Pause,
    Phase,
    Reply,
    Seen,
)
from saltext_selfheal.ledger import inbox, records
from saltext_selfheal.ledger import writer as ledger
from tests.functional.conftest import SETTINGS


@pytest.fixture
def opts(opts):
    web = {"minions": "web*", "nodes": {"web1": "127.0.0.1:3"}}
    opts["engines"] = [{"selfheal": {"clusters": {**SETTINGS["clusters"], "web": web}}}]
    return opts


@pytest.fixture
def runner(opts):
    return salt.loader.runner(opts)


@pytest.fixture
def path(opts):
    return config.load(opts).ledger_path(opts)


def incident(name="runbook-1", phase=Phase.OPEN, **changes):
    return Incident(
        name, "runbook", Seen(Fault.DEAD), ("db2",), phase, 1e9, 1e9, why="no connection", **changes
    )


def recorded(path, *incidents, **state):
    """A ledger that knows these incidents; its engine is down."""
    book = ledger.Ledger(path)
    now = book.timeline.now()
    told = [Announce(i, i.why, "open.held") for i in incidents]
    cluster = ClusterState("runbook", incidents=incidents, **state)
    book.commit(now, [cluster], told)
    book.close()


@pytest.fixture
def engine(path):
    """An engine that takes whatever comes and grants it; gives what it was asked."""
    asked, stop, ready = [], threading.Event(), threading.Event()

    def run():
        book = ledger.Ledger(path)
        ready.set()
        while not stop.is_set():
            for one in book.waiting():
                asked.append(one)
                answer = Answer(one, Reply.ACCEPTED, "granted", "runbook-1")
                book.commit(book.timeline.now(), [], [answer])
            time.sleep(0.01)
        book.close()

    recorded(path, incident())
    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(10)
    yield asked
    stop.set()
    thread.join()


@pytest.mark.parametrize(
    ("call", "args", "kwargs", "expected"),
    [
        ("pause", ("runbook", "30m"), {"reason": "x"}, {"cluster": "runbook", "for_s": 1800.0}),
        ("pause", ("30m",), {"reason": "x"}, {"cluster": None, "for_s": 1800.0}),
        ("pause", (90,), {"reason": "x"}, {"cluster": None, "for_s": 90.0}),
        ("pause", ("30m", "x"), {}, {"cluster": None, "for_s": 1800.0}),
        ("pause", ("web", "2h", "x"), {}, {"cluster": "web", "for_s": 7200.0}),
        ("pause", (), {"duration": "30d", "reason": "x"}, {"cluster": None, "for_s": 30 * 86400.0}),
        ("resume", (), {}, {"cluster": None}),
        ("resume", ("web",), {}, {"cluster": "web"}),
        ("lock", ("runbook",), {"reason": "x"}, {"cluster": "runbook", "nodes": ()}),
        ("lock", ("runbook", "db1,db2", "x"), {}, {"nodes": ("db1", "db2")}),
        ("ack", ("runbook-1",), {}, {"incident": "runbook-1", "reason": ""}),
        ("ack", ("runbook-1", "disk replaced"), {}, {"reason": "disk replaced"}),
        ("approve", ("runbook-1",), {}, {"incident": "runbook-1"}),
        ("reject", ("runbook-1", "not today"), {}, {"reason": "not today"}),
    ],
)
def test_a_command_is_given_and_answered(runner, engine, call, args, kwargs, expected):
    told = runner[f"selfheal.{call}"](*args, **kwargs)
    (command,) = engine
    assert told == {
        "command": command.id, "reply": "accepted", "why": "granted", "incident": "runbook-1",
    }  # fmt: skip
    assert command.verb is Verb(call)
    assert {key: getattr(command, key) for key in expected} == expected
    assert command.reason == expected.get("reason", "x" if call in ("pause", "lock") else "")
    row = runner["selfheal.history"](limit=1)[0]
    assert (row["kind"], row["command"], row["verb"]) == ("command", command.id, call)


def test_who_gives_a_command_is_the_user_of_the_runner(opts, runner, engine):
    runner["selfheal.resume"].__globals__["__user__"] = "sudo_alice"
    try:
        runner["selfheal.resume"]()
    finally:
        del runner["selfheal.resume"].__globals__["__user__"]
    assert [c.by for c in engine] == ["sudo_alice"]


def test_a_command_while_the_engine_is_down_is_stored_and_said_to_be(path, runner):
    recorded(path, incident())
    told = runner["selfheal.pause"]("runbook", "30m", reason="upgrade")
    assert told["reply"] == "stored"
    assert told["why"] == (
        "the engine is not running; it takes effect before the engine's first decision"
    )
    assert runner["selfheal.incident"](told["command"])["reply"] == "stored"
    book = ledger.Ledger(path)
    assert [c.id for c in book.waiting()] == [told["command"]]
    book.close()


@pytest.mark.parametrize(
    ("call", "args", "kwargs", "told"),
    [
        ("pause", ("runbook", "30m"), {}, "reason: found nothing; allowed: "),
        ("pause", ("runbook", "30m", " "), {}, "reason: found nothing; allowed: "),
        ("pause", ("runbook",), {"reason": "x"}, "duration: found None; allowed: a duration"),
        ("pause", ("runbook", "soon", "x"), {}, "duration: found 'soon'; allowed: a duration such"),
        (
            "pause",
            ("runbook", 0, "x"),
            {},
            "duration: found 0 s; allowed: more than 0, at most 30d",
        ),
        ("pause", ("runbook", "31d", "x"), {}, "allowed: more than 0, at most 30d"),
        ("pause", ("nosuch", "1h", "x"), {}, "cluster: found 'nosuch'; allowed: runbook, web"),
        ("pause", ("nosuch",), {"reason": "x"}, "duration: found 'nosuch'.*: runbook, web"),
        ("pause", (["runbook"], "1h", "x"), {}, "cluster: found a list; allowed: runbook, web$"),
        ("pause", (), {}, "duration: found None"),
        ("resume", ("nosuch",), {}, "cluster: found 'nosuch'; allowed: runbook, web"),
        ("lock", ("runbook",), {}, "reason: found nothing"),
        (
            "lock",
            (None,),
            {"reason": "x"},
            "cluster: found None; allowed: the name of a configured cluster",
        ),
        ("lock", ("nosuch",), {"reason": "x"}, "cluster: found 'nosuch'; allowed: runbook, web"),
        ("lock", ("runbook", "db9", "x"), {}, "nodes: found db9; allowed: db1, db2"),
        ("lock", ("runbook", 5, "x"), {}, "nodes: found 5; allowed: a list of minion ids"),
        ("ack", ("runbook-9",), {}, "incident: found 'runbook-9'; allowed: runbook-1"),
        ("ack", ("../x",), {}, "incident: found '../x'; allowed: the id of an incident"),
        ("approve", (7,), {}, "incident: found 7; allowed: the id of an incident"),
        ("approve", ("runbook-1.²",), {}, "incident: found 'runbook-1.²'; .* such as runbook-7.1"),
        ("approve", ("runbook-1." + "9" * 5000,), {}, "incident: found 'runbook-1.999.*; allowed"),
        ("reject", ("runbook-1.1234567890",), {}, "incident: found 'runbook-1.1234567890'; allo"),
        ("lock", ("runbook", [], "x"), {}, "nodes: found an empty list; allowed: minion ids, at"),
        ("lock", ("runbook", "", "x"), {}, "nodes: found ''; allowed: minion ids, at least one"),
        ("pause", (10**5000,), {"reason": "x"}, "duration: found a number of more than 77 digits"),
        ("reject", (None,), {}, "incident: found None; allowed: the id of an incident"),
    ],
)
def test_a_command_that_cannot_be_is_one_clear_error_and_stored_nowhere(
    path, runner, call, args, kwargs, told
):
    ended = Incident("runbook-2", "runbook", Seen(Fault.HUNG), ("db1",), Phase.RESOLVED, 2e9, 2e9)
    recorded(path, incident(), ended)
    answer = runner[f"selfheal.{call}"](*args, **kwargs)
    assert (answer["reply"], answer["retcode"]) == ("refused", 1)
    assert re.search(told, answer["why"])
    with records.read(path) as db:
        assert db.execute("SELECT count(*) FROM inbox").fetchone()[0] == 0


@pytest.mark.parametrize(
    ("call", "args", "why"),
    [
        ("trigger", ("nosuch",), "unknown cluster 'nosuch'; configured: runbook, web"),
        ("trigger", ("runbook", "bogus"), "unknown action 'bogus'; allowed: highstate, restart, "),
        ("trigger", ("runbook", "stop"), "unknown action 'stop'; allowed: .* .a stopped databas"),
        ("trigger", ("runbook", "restart", "db9"), "no node 'db9' in runbook; nodes: db1, db2"),
        ("trigger", ("runbook", "restart", []), "nodes: found an empty list; allowed: minion ids"),
        ("trigger", ("runbook", "restart", ""), "nodes: found ''; allowed: minion ids, at least"),
        ("force", ("nosuch", "restart", "db1", "x"), "unknown cluster 'nosuch'; configured: runb"),
        ("force", ("runbook", "bogus", "db1", "x"), "unknown action 'bogus'; allowed: highstate"),
        ("force", ("runbook", "restart", "db9", "x"), "no node 'db9' in runbook; nodes: db1, db2"),
        ("force", ("runbook", "restart", None, "x"), "nodes: found None; allowed: minion ids, at"),
        ("force", ("runbook", "restart", [], "x"), "nodes: found an empty list; allowed: minion "),
        ("force", ("runbook", "restart", " , ", "x"), "nodes: found ' , '; allowed: minion ids,"),
    ],
)
def test_what_the_settings_forbid_is_refused_at_once_although_no_engine_runs(
    path, runner, call, args, why
):
    recorded(path)
    told = runner[f"selfheal.{call}"](*args)
    assert (told["reply"], told["retcode"]) == ("refused", 1)
    assert re.match(why, told["why"])
    with records.read(path) as db:
        assert db.execute("SELECT count(*) FROM inbox").fetchone()[0] == 0


@pytest.mark.parametrize("call", ["trigger", "force"])
def test_what_only_a_running_engine_knows_is_not_refused_beforehand(path, runner, call):
    recorded(path)
    assert runner[f"selfheal.{call}"]("runbook", "restart", "db1", "x")["reply"] == "stored"


def test_an_empty_argument_of_the_command_line_is_no_default(path, runner):
    """`salt-run selfheal.lock runbook nodes= reason=x` gives an empty text."""
    recorded(path)
    (nodes,) = salt.utils.args.parse_input(["nodes="], condition=False)[1].values()
    answer = runner["selfheal.lock"]("runbook", nodes=nodes, reason="x")
    assert answer["why"] == "nodes: found ''; allowed: minion ids, at least one"


@pytest.mark.parametrize("call", ["approve", "ack"])
def test_what_is_good_for_a_while_says_so_where_no_engine_runs(path, runner, call):
    recorded(path, incident())
    assert runner[f"selfheal.{call}"]("runbook-1")["why"] == (
        "the engine is not running; it takes effect before the engine's first decision, "
        "if the engine runs again within a quarter of an hour"
    )


@pytest.mark.parametrize(("call", "args"), [("pause", ("1h", "x")), ("ack", ("runbook-1",))])
def test_without_a_ledger_a_command_is_refused(runner, call, args):
    answer = runner[f"selfheal.{call}"](*args)
    assert answer["reply"] == "refused"
    assert "no ledger; the engine has not run yet" in answer["why"]


@pytest.mark.parametrize(
    ("call", "args"), [("incident", ("runbook-1",)), ("history", ()), ("audit", ())]
)
def test_without_a_ledger_each_says_so_and_ends_with_an_error(runner, call, args):
    told = runner[f"selfheal.{call}"](*args)
    assert "no ledger; the engine has not run yet" in told["why"]
    assert told["retcode"] == 1
    assert told.get("ok", False) is False


def test_settings_that_cannot_be_used_prove_no_audit(opts):
    opts["engines"] = [{"selfheal": {"clusters": "x"}}]
    told = salt.loader.runner(opts)["selfheal.audit"]()
    assert (told["ok"], told["retcode"]) == (False, 1)
    assert "the settings cannot be used" in told["why"]


def test_an_unknown_incident_is_an_error_that_names_the_latest(path, runner):
    recorded(path, incident(), incident("runbook-2"))
    told = runner["selfheal.incident"]("runbook-9")
    assert (told["reply"], told["retcode"]) == ("refused", 1)
    assert re.match(r"id: found 'runbook-9'; .* the latest: runbook-", told["why"])


# ---------------------------------------------------------------- explain


def test_explain_while_the_engine_is_down_tells_what_it_would_say_at_its_start(path, runner):
    pause = Pause(time.time() + 3600, "root", "upgrade")
    recorded(path, pause=pause)
    told = runner["selfheal.explain"]("runbook", "db1")
    assert told["engine"].startswith("the engine is not running")
    (entry,) = told["entries"]
    assert (entry["on"], entry["step"]) == (["db1"], "restart")
    assert {"paused", "warm-up", "confirmed"} <= set(entry["shut"])
    assert entry["gates"]["paused"].startswith("shut: by root for ")
    assert "; opens 20" in entry["gates"]["paused"]
    assert entry["gates"]["target"] == "open: db1 allowed by 'db*'"


def test_explain_while_the_engine_is_down_knows_what_waits_for_it(path, runner):
    recorded(path)
    runner["selfheal.pause"]("runbook", "1h", reason="upgrade")
    told = runner["selfheal.explain"]("runbook", "db1")
    assert told["engine"] == "the engine is not running"
    assert "paused" in told["entries"][0]["shut"]
    with records.read(path) as db:
        assert [asked.verb for asked in inbox.unanswered(db)] == [Verb.PAUSE]


def put(path, name, body, at):
    """A row of the inbox that none of our doors has written."""
    db = sqlite3.connect(path)
    with db:
        db.execute(
            "INSERT INTO inbox (key, kind, body, put_at) VALUES (?, ?, ?, ?)",
            (name, "command" if "verb" in body else "request", json.dumps(body), at),
        )
    db.close()


def test_odd_rows_of_the_inbox_end_neither_explain_nor_status(path, runner):
    """A time that is none, and a pause until after the end of every calendar."""
    odd = {"id": "odd", "cluster": "runbook", "action": "highstate"}
    long = {"id": "long", "verb": "pause", "by": "x", "cluster": "runbook", "for_s": 1e308}
    recorded(path, pause=Pause(1e308, "x", "y"))
    put(path, "odd", odd, "abc")
    put(path, "long", long, 1e9)
    runner["selfheal.pause"]("runbook", "1h", reason="upgrade")
    assert "paused" in runner["selfheal.explain"]("runbook", "db1")["entries"][0]["shut"]
    told = runner["selfheal.status"]("runbook")["clusters"]["runbook"]
    assert told["paused"] == "until 1e+308 s by x: y"


def test_explain_asks_no_gates_where_nothing_is_decided(path, runner):
    recorded(path, incident(phase=Phase.VERIFYING))
    (entry,) = runner["selfheal.explain"]("runbook", "db2")["entries"]
    assert (entry["phase"], entry["on"], entry["gates"]) == ("verifying", [], {})


def test_history_shows_a_row_that_somebody_has_edited(path, runner):
    recorded(path, incident())
    db = sqlite3.connect(path)
    with db:
        db.execute("UPDATE audit SET body = 'x' WHERE seq = 1")
    db.close()
    told = runner["selfheal.history"]("runbook")
    assert (told[-1]["damaged"], told[-1]["why"]) == ("x", "see salt-run selfheal.audit")


@pytest.mark.parametrize(
    ("args", "why"),
    [
        ((None,), "cluster: found nothing"),
        (("nosuch",), "cluster: found 'nosuch'; allowed: runbook, web"),
        (("runbook", "db9"), "nodes: found db9; allowed: db1, db2"),
    ],
)
def test_explain_of_what_there_is_not(path, runner, args, why):
    recorded(path, incident())
    answer = runner["selfheal.explain"](*args)
    assert answer["reply"] == "refused"
    assert why in answer["why"]


# ---------------------------------------------------------------- status, incident, audit


def test_status_shows_pauses_locks_and_what_is_left_to_do(path, runner):
    until = time.time() + 3600
    locked = incident("runbook-1", Phase.LOCKED)
    asks = incident("runbook-2", held=("approval",))
    other = incident("runbook-3", held=("cooldown", "budget"))
    pause = Pause(until, "root", "upgrade", everywhere=True)
    recorded(path, locked, asks, other, pause=pause)
    told = runner["selfheal.status"]("runbook")["clusters"]["runbook"]
    assert told["paused"].startswith("until 20")
    assert told["paused"].endswith(" by root (every cluster): upgrade")
    assert told["locked"] == ["db2 by runbook-1: no connection"]
    assert [told["incidents"][f"runbook-{n}"]["next"] for n in (1, 2, 3)] == [
        "when it is seen to: salt-run selfheal.ack runbook-1",
        "salt-run selfheal.approve runbook-2.1, or salt-run selfheal.reject runbook-2.1",
        None,
    ]


def test_status_says_nothing_of_a_pause_that_is_over(path, runner):
    recorded(path, pause=Pause(time.time() - 1, "root", "upgrade"))
    told = runner["selfheal.status"]("runbook")["clusters"]["runbook"]
    assert "paused" not in told
    assert "locked" not in told


def test_an_incident_is_told_by_its_id_and_by_that_of_a_request(path, runner):
    recorded(path, incident())
    book = ledger.Ledger(path)
    now = book.timeline.now()
    request = Request("app-7", "runbook", "restart", (), "down", Door.RUNNER, "app")
    one = Attempt(
        "runbook-1.1", "runbook", "runbook-1", Action.RESTART, ("db2",), 0, now, now,
        jid="20261123030000000000", args=("rethinkdb",),
    )  # fmt: skip
    book.commit(now, [], [Answer(request, Reply.JOINED, "it is open", "runbook-1")])
    refused = Answer(Request("7", "runbook", "restart"), Reply.REFUSED, "no fault")
    book.commit(now, [], [refused])
    book.commit(now, [], [Fire(one)])
    book.commit(now, [], [Finish(one, Outcome.DONE, "all done")])
    book.close()
    told = runner["selfheal.incident"]("runbook-1")
    assert (told["id"], told["fault"], told["phase"]) == ("runbook-1", "dead", "open")
    assert told["opened"].startswith("2001-09-0")
    assert told["ended"] is None
    (tried,) = told["attempts"]
    assert (tried["jid"], tried["minions"], tried["outcome"]) == (
        "20261123030000000000", ["db2"], "done",
    )  # fmt: skip
    assert tried["decided"].startswith("20")
    assert [row["kind"] for row in told["audit"]] == ["incident", "request", "fire", "finish"]
    assert told["audit"][0]["rule"] == "open.held"
    assert all(row["time"].startswith("20") for row in told["audit"])
    assert told["requests"]["app-7"]["reply"] == "joined"
    assert not [key for key in told if key.endswith("_at")]
    by_request = runner["selfheal.incident"]("app-7")
    assert (by_request["request"], by_request["reply"]) == ("app-7", "joined")
    assert by_request["incident"] == told
    # the command line reads digits as a number
    assert runner["selfheal.incident"](7)["why"] == "no fault"


@pytest.fixture
def client(opts):
    """What salt-run uses below its command line."""
    (Path(opts["cachedir"]) / "proc").mkdir()
    with salt.runner.RunnerClient(opts) as made:
        yield made


def test_a_sound_chain_is_proven(path, client):
    recorded(path, incident())
    told = client.low("selfheal.audit", {}, print_event=False, full_return=True)
    assert told["return"] == {"ok": True, "rows": 1, "from": 1, "to": 1}
    assert told["success"] is True


def test_a_broken_chain_is_named_and_fails_the_run(path, client):
    recorded(path, incident("runbook-1"), incident("runbook-2"))
    db = sqlite3.connect(path)
    db.execute("UPDATE audit SET cluster = 'web' WHERE seq = 2")
    db.commit()
    db.close()
    told = client.low("selfheal.audit", {}, print_event=False, full_return=True)
    assert told["success"] is False
    # salt-run ends with the code that it finds in what was returned
    assert {k: told["return"][k] for k in ("ok", "rows", "to", "broken", "retcode")} == {
        "ok": False, "rows": 1, "to": 1, "broken": 2, "retcode": 1,
    }  # fmt: skip
    assert "expected hash" in told["return"]["why"]
