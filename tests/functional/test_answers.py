"""What every function of the runner answers, whatever it is given: one object, one line, one exit code."""

import json
import logging
import os
import re
import sqlite3
import time
from pathlib import Path

import pytest
import salt.loader
import salt.output
import salt.runner
import salt.utils.args

from saltext_selfheal import config
from saltext_selfheal.console import status as status_of
from saltext_selfheal.healing.events import Door, Request
from saltext_selfheal.healing.model import Answer, ClusterState, NodeState, Reply
from saltext_selfheal.ledger import writer as ledger

NODES = {"db1": "127.0.0.1:1", "db2": "127.0.0.1:2"}
ODD = {"201": "127.0.1.1:1", "no": "127.0.1.2:1", "1.50": "127.0.1.3:1", "null": "127.0.1.4:1"}
CLUSTERS = {
    "runbook": {"minions": "db*", "nodes": NODES},
    "2026": {"minions": "*", "nodes": ODD},
    "0777": {"minions": "w*", "nodes": {"w1": "127.0.2.1:1"}},
    "off": {"minions": "v*", "nodes": {"v1": "127.0.3.1:1"}},
}
FUNCTIONS = {
    "trigger": ("cluster", "action", "nodes", "reason", "request"),
    "force": ("cluster", "action", "nodes", "reason"),
    "pause": ("cluster", "duration", "reason"),
    "resume": ("cluster",),
    "lock": ("cluster", "nodes", "reason"),
    "ack": ("incident", "comment"),
    "approve": ("incident",),
    "reject": ("incident", "comment"),
    "explain": ("cluster", "node"),
    "status": ("cluster",),
    "history": ("cluster", "since", "limit"),
    "incident": ("id",),
    "audit": (),
    "doctor": ("api_config",),
    "config": ("cluster", "minions", "nodes"),
}
#: Something allowed for each argument, so that one odd value is met where it counts.
FINE = {
    "cluster": "runbook", "action": "restart", "nodes": "db1", "node": "db1", "reason": "x", "request": None, "duration": "1h",
    "incident": "runbook-1", "comment": "x", "since": "1h", "limit": 5, "id": "r1", "api_config": None, "minions": "db*",
}  # fmt: skip
STRANGE = [
    None, True, 0, -1, 7, 10**30, 10**5000, [10**5000], 1.5, float("nan"), float("inf"), "", " ", "\ud800", "a\ud800-1", "a\nb",
    "\x1b[2J", "\0", "x" * 100_000, [], ["runbook"], [[]], [None], {}, {"a": 1}, {"db1": ["\ud800"]}, {1: {2: 3}}, b"\xff", b"runbook",
    ("db1",), {"db1"}, "../x", "a: b", "\u202erunbook", "runbook-\u0661", "9" * 5000, "runbook-1.", object(), "{{ 7*7 }}", "%s",
]  # fmt: skip


@pytest.fixture
def opts(opts):
    opts["engines"] = [{"selfheal": {"clusters": CLUSTERS}}]
    return opts


@pytest.fixture
def path(opts):
    """A ledger that was written to just now; its engine is down."""
    where = config.load(opts).ledger_path(opts)
    book = ledger.Ledger(where)
    node = NodeState(since=1e9, fault=None, evidence="answers")
    request = Request("r1", "runbook", "restart", (), "down", Door.RUNNER, "app")
    book.commit(
        book.timeline.now(),
        [ClusterState("runbook", nodes={"db1": node})],
        [Answer(request, Reply.REFUSED, "no fault")],
    )
    book.close()
    return where


@pytest.fixture
def runner(opts, path):
    return salt.loader.runner(opts)


def refused(told):
    assert isinstance(told, dict)
    assert (told["reply"], told["retcode"]) == ("refused", 1)
    assert told["why"].isprintable()
    assert len(told["why"]) <= 2000
    return told["why"]


def calls():
    for function, names in FUNCTIONS.items():
        for name in names:
            yield function, name


@pytest.mark.parametrize(("function", "name"), list(calls()))
def test_no_function_fails_whatever_it_is_given(runner, caplog, function, name):
    caplog.set_level(logging.DEBUG, "saltext_selfheal")
    for strange in STRANGE[
        :: 6 if function == "doctor" else 1
    ]:  # a visit of the doctor takes a second
        given = {one: FINE.get(one) for one in FUNCTIONS[function]} | {name: strange}
        if function == "config" and name != "nodes":
            given.pop("nodes")
        told = runner[f"selfheal.{function}"](**given)
        if isinstance(told, dict) and told.get("reply") == "refused" and told["retcode"]:
            why = refused(told)
            assert "please report it" not in why, (strange, why)
            assert "found" in why or "unknown" in why or "no node" in why, (strange, why)
        elif function != "config":
            json.dumps(told).encode()
            assert "\ud800" not in str(told)
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("wrong", [{"duraton": "2h"}, {"clusters": 1}, {"": 1}, {"kwarg": {}}])
def test_a_mistyped_keyword_is_refused_by_every_function(runner, function, wrong):
    assert "which is not known here" in refused(runner[f"selfheal.{function}"](**wrong))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_too_many_arguments_are_refused_by_every_function(runner, function):
    assert "the first too many is" in refused(runner[f"selfheal.{function}"](*range(9)))


@pytest.mark.parametrize(
    "function", ["ack", "approve", "reject", "explain", "incident", "lock", "force", "trigger"]
)
def test_what_must_be_given_is_named(runner, function):
    assert "found nothing; allowed: " in refused(runner[f"selfheal.{function}"]())


@pytest.mark.parametrize("function", FUNCTIONS)
def test_with_settings_that_cannot_be_used_every_function_says_so(opts, function):
    opts["engines"] = [{"selfheal": {"clusters": "x", "moed": 1}}]
    given = {one: FINE.get(one) for one in FUNCTIONS[function]}
    if function in ("doctor", "config"):
        return
    told = salt.loader.runner(opts)[f"selfheal.{function}"](**given)
    if function == "status":
        assert (next(iter(told)), told["retcode"]) == ("engine", 1)
    else:
        assert refused(told).startswith("the settings cannot be used: engines.selfheal.")


def test_a_fault_of_ours_is_one_line_and_no_traceback(runner, caplog, monkeypatch):
    monkeypatch.setattr(status_of, "read", lambda *_: {}["\nforged \x1b"])
    why = refused(runner["selfheal.status"]())
    assert why.startswith("status failed, please report it: KeyError: ")
    assert "Traceback" not in caplog.text
    (line,) = [one for one in caplog.text.splitlines() if "failed" in one]
    assert line.isprintable()


# ---------------------------------------------------------------- exit codes


@pytest.fixture
def client(opts, path):
    """What salt-run uses below its command line."""
    (Path(opts["cachedir"]) / "proc").mkdir()
    with salt.runner.RunnerClient(opts) as made:
        yield made


def run(client, function, *words):
    """What `salt-run` would return for these words, and its exit code."""
    args, kwargs = salt.utils.args.parse_input(list(words), condition=False)
    told = client.low(
        f"selfheal.{function}", {"arg": args, "kwarg": kwargs}, print_event=False, full_return=True
    )
    inner = told["return"]
    # As salt-run finds its exit code (3006 to 3008).
    code = (
        told["retcode"]
        if "retcode" in told
        else inner.get("retcode", 0) if isinstance(inner, dict) else 0
    )
    assert told["success"] is (code == 0)
    return inner, code


@pytest.mark.parametrize(
    ("function", "words", "code"),
    [
        ("history", (), 0), ("history", ("limit=5",), 0), ("incident", ("r1",), 0), ("audit", (), 0), ("config", (), 0),
        ("explain", ("runbook",), 0), ("pause", ("runbook", "1h", "reason=x"), 0), ("pause", ("runbook", "duraton=2h", "reason=x"), 1),
        ("history", ("nosuch",), 1), ("history", ("limit=0",), 1), ("history", ("since=soon",), 1), ("history", ("lmit=3",), 1),
        ("incident", (), 1), ("incident", ("runbook-9",), 1), ("incident", ("id=[1, 2]",), 1), ("status", ("nosuch",), 1),
        ("status", (), 1), ("config", ("nodes=[]",), 1), ("config", ("nodes={web1: 10.0.0.1}",), 1), ("config", ("node={}",), 1),
        ("force", ("runbook", "restart", "db1"), 1), ("audit", ("x",), 1), ("doctor", ("x", "y"), 1), ("explain", (), 1),
        ("ack", (), 1), ("approve", (), 1), ("lock", ("runbook", "nodes=", "reason=x"), 1),
    ],
)  # fmt: skip
def test_the_exit_code_is_0_only_where_it_was_done(client, function, words, code):
    told, found = run(client, function, *words)
    assert found == code, told
    if (code and function != "status") or "nosuch" in words:
        refused(told)


def test_one_refusal_does_not_make_the_next_call_fail(client):
    """A reactor keeps its client, and with it the context in which Salt looks for the exit code."""
    assert run(client, "history", "nosuch")[1] == 1
    assert run(client, "history")[1] == 0


# ---------------------------------------------------------------- status of what does not run


def test_status_without_an_engine_says_so_first_and_when_all_else_was_seen(opts, runner):
    told = runner["selfheal.status"]()
    assert list(told)[:2] == ["engine", "as of"]
    assert "; the engine is not running, so what follows was seen then" in told["as of"]
    assert (told["engine"], told["retcode"]) == ("not running", 1)
    assert told["as of"].startswith("20")
    cluster = told["clusters"]["runbook"]
    assert cluster["as of"] in told["as of"]
    assert cluster["nodes"]["db1"].startswith(f"as of {cluster['as of']}: well since 2001-09-")
    assert cluster["nodes"]["db2"] == "unknown: not probed yet"
    assert cluster["tables"].startswith("as of 20")
    # Salt prints the keys by the alphabet.
    printed = salt.output.string_format(told, "nested", opts)
    assert printed.index("is not running") < printed.index("well since")


def test_status_of_an_engine_that_writes_nothing_is_not_well(path, runner, monkeypatch):
    monkeypatch.setattr(status_of.ledger_file, "engine_alive", lambda _: True)
    told = runner["selfheal.status"]()
    assert (told["engine"], told.get("retcode")) == ("running", None)
    assert "as of" not in told
    assert told["clusters"]["runbook"]["nodes"]["db1"].startswith("well since")
    monkeypatch.setattr(status_of.timeline, "sign_of_life_s", lambda _: 100.0)
    told = runner["selfheal.status"]()
    assert (told["engine"], told["retcode"]) == ("running, but it writes nothing", 1)
    assert told["clusters"]["runbook"]["nodes"]["db1"].startswith("as of 20")


def test_status_of_a_ledger_that_cannot_be_read_is_not_well(path, runner):
    path.write_bytes(b"x" * 4096)
    told = runner["selfheal.status"]()
    assert told["retcode"] == 1
    assert told["errors"]


@pytest.fixture(params=["missing", "a folder", "empty", "no certificate", "a pipe"])
def unusable_ca(request, opts, tmp_path):
    """The settings name a file of CA certificates that cannot be used."""
    place = tmp_path / "ca.pem"
    if request.param == "a folder":
        place.mkdir()
    elif request.param == "a pipe":
        os.mkfifo(place)
    elif request.param != "missing":
        place.write_text("" if request.param == "empty" else "no certificate")
    runbook = {**CLUSTERS["runbook"], "tls": {"ca_certs": str(place)}}
    opts["engines"] = [{"selfheal": {"clusters": {**CLUSTERS, "runbook": runbook}}}]
    return f"engines.selfheal.clusters.runbook.tls.ca_certs: found '{place}' ("


def test_status_without_an_engine_tells_that_a_ca_file_cannot_be_used(unusable_ca, runner):
    told = runner["selfheal.status"]()
    assert told["engine"] == "heals nothing: the settings cannot be used"
    assert told["errors"][0].startswith(unusable_ca[:100])  # a long path is told in part
    assert "; allowed: " in told["errors"][0]
    assert told["retcode"] == 1


def test_status_of_an_engine_that_runs_tells_of_a_ca_file_and_of_the_nodes(
    unusable_ca, runner, monkeypatch
):
    monkeypatch.setattr(status_of.ledger_file, "engine_alive", lambda _: True)
    for cluster in (None, "2026"):
        told = runner["selfheal.status"](cluster=cluster)
        assert (told["engine"], told["retcode"]) == ("running", 1)
        assert told["errors"][0].startswith(unusable_ca[:100])  # a long path is told in part
        assert told["errors"][0].endswith("after a restart nothing will be healed")
        assert "as of" not in told
    told = runner["selfheal.status"]()
    assert told["clusters"]["runbook"]["nodes"]["db1"].startswith("well since")


def test_what_the_ledger_holds_is_shown_clean(path, runner):
    db = sqlite3.connect(path)
    with db:
        db.execute("UPDATE audit SET body = ?", ("\x1b[2J\nforged",))
    db.close()
    (row,) = runner["selfheal.history"]()
    assert row["damaged"] == " [2J forged"


# ---------------------------------------------------------------- names that are read otherwise


def words(runner, function, *given):
    """A function called with these words as the command line reads them."""
    args, kwargs = salt.utils.args.parse_input(list(given), condition=False)
    return runner[f"selfheal.{function}"](*args, **kwargs)


@pytest.mark.parametrize(
    ("function", "given"),
    [
        ("pause", ("2026", "1h", "reason=x")), ("resume", ("2026",)), ("lock", ("2026", "201", "x")),
        ("lock", ("2026", "nodes=no", "reason=x")), ("lock", ("2026", "[201, no, 1.50]", "x")), ("lock", ("2026", "1.50", "reason=x")),
        ("lock", ("off", "reason=x")), ("resume", ("0777",)), ("trigger", ("2026", "highstate", "201")),
        ("force", ("2026", "restart", "no", "reason=x")), ("pause", ("off", "90", "x")), ("lock", ("cluster=2026", "nodes=201,no", "reason=x")),
    ],
)  # fmt: skip
def test_a_name_that_the_command_line_reads_as_a_number_is_known(runner, function, given):
    assert words(runner, function, *given)["reply"] == "stored"


def test_a_number_that_is_no_name_is_still_a_duration(path, runner):
    assert words(runner, "pause", "90", "reason=x")["reply"] == "stored"
    assert "duration: found None" in refused(words(runner, "pause", "2026", "reason=x"))


@pytest.mark.parametrize("given", [("2026",), ("off",), ("0777",)])
@pytest.mark.parametrize("function", ["status", "history", "explain"])
def test_reading_functions_know_such_names_too(runner, function, given):
    told = words(runner, function, *given)
    assert "reply" not in told


@pytest.mark.parametrize(
    ("function", "given", "why"),
    [
        ("lock", ("201", "reason=x"), "cluster: found 201; allowed: 0777, 2026, off, runbook; a name is given as text: "),
        ("lock", ("2026", "null", "reason=x"), "nodes: found None, which is also what the name null would be read as"),
        ("lock", ("2026", "202", "reason=x"), "nodes: found 202; allowed: a list of minion ids"),
        ("lock", ("2026", "[201, 7]", "reason=x"), "nodes: found a list with 7 in it; allowed"),
        ("history", ("1999",), "cluster: found 1999; allowed: 0777, 2026, off, runbook; a name is given as text"),
        ("status", ("yes",), "cluster: found True; allowed: 0777, 2026, off, runbook; a name is given as text"),
        ("trigger", ("runbook", "request=17"), "request: found 17; allowed: .* two pairs of quotes"),
        ("ack", ("17",), "incident: found 17; allowed: the id of an incident"),
    ],
)  # fmt: skip
def test_what_no_name_is_read_as_is_refused_with_how_to_quote_it(runner, function, given, why):
    assert re.match(why, refused(words(runner, function, *given)))


def test_a_value_that_two_names_are_read_as_is_refused(opts, path):
    more = {"777": {"minions": "u*", "nodes": {"u1": "127.0.4.1:1"}}}
    opts["engines"] = [{"selfheal": {"clusters": {**CLUSTERS, **more}}}]
    made = salt.loader.runner(opts)
    why = refused(words(made, "lock", "0777", "reason=x"))
    assert "found 777, which is also what the names 0777 and 777 would be read as" in why
    for quoted in ('"0777"', '"777"'):
        assert words(made, "lock", quoted, "reason=x")["reply"] == "stored"


# ---------------------------------------------------------------- ids without their prefix


@pytest.fixture
def answered(path):
    """Answers in the ledger to requests with these ids."""

    def put(*ids):
        book = ledger.Ledger(path)
        for one in ids:
            request = Request(one, "runbook", "restart", (), "down", Door.WEBHOOK, "web")
            book.commit(book.timeline.now(), [], [Answer(request, Reply.REFUSED, f"as {one}")])
        book.close()

    return put


@pytest.mark.parametrize(
    ("ids", "asked", "found"),
    [
        (("web:msg-1",), "msg-1", "web:msg-1"),
        (("web:msg-1", "shop:msg-2"), "msg-2", "shop:msg-2"),
        (("web:msg-1", "msg-1"), "msg-1", "msg-1"),
        (("web:4711",), 4711, "web:4711"),
        (("4711",), 4711, "4711"),
        (("bus:0777",), 777, "bus:0777"),
        (("web:msg-1", "shop:msg-1"), "shop:msg-1", "shop:msg-1"),
    ],
)
def test_an_id_is_found_without_the_prefix_of_its_caller(runner, answered, ids, asked, found):
    answered(*ids)
    told = runner["selfheal.incident"](asked)
    assert (told["request"], told["why"]) == (found, f"as {found}")


@pytest.mark.parametrize(
    ("ids", "asked"),
    [(("web:m", "shop:m"), "m"), (("bus:m", "web:m"), "m"), (("web:7", "shop:7"), 7)],
)
def test_an_id_that_several_callers_have_given_needs_its_prefix(runner, answered, ids, asked):
    answered(*ids)
    why = refused(runner["selfheal.incident"](asked))
    assert f"which several callers have given; allowed: {', '.join(ids)}" in why


def test_part_of_an_id_is_no_id(runner, answered):
    answered("web:msg-1")
    for asked in ("msg", "sg-1", "eb:msg-1", ":msg-1", "%", "*", 1):
        assert "allowed: the id of an incident" in refused(runner["selfheal.incident"](asked))


def test_the_clock_of_the_last_sign_is_the_present_one(runner):
    """The ledger was written to just now, so this is when all else was seen."""
    told = runner["selfheal.status"]()["as of"]
    assert told.startswith(time.strftime("%Y-%m-%d"))
