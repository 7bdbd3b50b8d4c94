"""Every SLS, rendered by Salt's own reactor class."""

import json
import logging
import re
import sqlite3
import subprocess
import sys
import threading
from copy import deepcopy
from dataclasses import replace

import pytest
import salt.loader
import salt.utils.reactor

from saltext_selfheal import config
from saltext_selfheal.driver.functions import changing
from saltext_selfheal.healing import remedies
from saltext_selfheal.healing.model import Action, Attempt, Finish, Fire, Outcome
from saltext_selfheal.ledger import claims, records
from saltext_selfheal.ledger.writer import Ledger
from saltext_selfheal.loop import jobs, salt_words
from tests.functional.conftest import REACTOR

SERVICE = ["rethinkdb"]


def arguments(action):
    row = remedies.TABLE[action]
    if row.by_observers:
        return ["127.0.0.1:1", "timeout=3"]
    return [*(SERVICE if row.takes_service else []), *([28015] if row.takes_port else [])]


@pytest.fixture
def opts(opts):
    """The same, with observers."""
    opts["engines"] = deepcopy(opts["engines"])
    clusters = opts["engines"][1]["selfheal"]["clusters"]
    clusters["runbook"]["observers"] = {"minions": ["app1", "app2"]}
    return opts


@pytest.fixture
def ledger(opts):
    book = Ledger(config.load(opts).ledger_path(opts))
    yield book
    book.close()


@pytest.fixture
def react(opts):
    """(action of the tag, the event's data) → the reactions, as Salt would run them."""
    reactor = salt.utils.reactor.Reactor(opts)

    def render(action, data):
        tag = f"selfheal/remediate/{action.value}"
        return reactor.reactions(tag, data, [str(REACTOR / f"{action.value}.sls")])

    yield render
    if hasattr(reactor.minion, "destroy"):
        reactor.minion.destroy()


def minions(action):
    return ("app1", "app2") if remedies.TABLE[action].by_observers else ("db1", "db2")


def fire(ledger, opts, action, nodes=None, number=1):
    nodes = minions(action) if nodes is None else nodes
    now = ledger.timeline.now()
    jid = jobs.mint(opts)
    attempt = Attempt(
        f"runbook-1.{number}", "runbook", "runbook-1", action, nodes, 0, now, now,
        jid=jid, args=tuple(arguments(action)),
    )  # fmt: skip
    ledger.commit(now, [], [Fire(attempt)])
    return attempt, jid


def test_every_action_has_its_file_and_every_file_its_action():
    actions = {action.value for action in Action}
    assert {path.stem for path in REACTOR.glob("*")} == {*actions, "heartbeat"}


@pytest.mark.parametrize("action", list(Action))
def test_a_file_names_its_salt_function_literally_and_it_is_the_tables(action):
    text = (REACTOR / f"{action.value}.sls").read_text()
    assert re.findall(r'"(?:local|runner)\.([\w.]+)"', text) == [remedies.TABLE[action].runs]
    # Of the event its JID alone is taken, and of the attempt nothing that could name a function.
    assert set(re.findall(r"\{\{(.*?)\}\}", text)) <= {
        f" attempt.{what} | tojson " for what in ("minions", "jid", "args", "args[0]")
    }
    assert re.findall(r"data\[(.*?)\]", text) == ["'jid'"]
    row = remedies.TABLE[action]
    assert ("attempt.args" in text) is (row.takes_service or row.by_observers)


def test_what_the_runner_sends_is_read_functions_of_salt_on_exactly_its_minions(
    opts, ledger, react
):
    _, jid = fire(ledger, opts, Action.SALT_WITNESS)
    (chunk,) = react(Action.SALT_WITNESS, {"jid": jid, "fun": ["cmd.run"], "tgt": "*"})
    assert (chunk["state"], chunk["fun"]) == ("runner", "salt.execute")
    service = arguments(Action.SALT_WITNESS)[0]
    assert chunk["args"] == {
        "tgt": [*minions(Action.SALT_WITNESS)],
        "tgt_type": "list",
        "jid": jid,
        "timeout": 1,
        "fun": list(salt_words.FUNCTIONS),
        "arg": [[service], [salt_words.NAME], [], [], [], []],
    }
    assert not any(changing(one) for one in salt_words.FUNCTIONS)


@pytest.mark.parametrize("action", [a for a in Action if a is not Action.SALT_WITNESS])
def test_a_live_attempt_becomes_its_job_on_exactly_its_minions_under_its_jid(
    action, opts, ledger, react
):
    _, jid = fire(ledger, opts, action)
    (chunk,) = react(action, {"jid": jid, "minions": ["web1"], "tgt": "*", "action": "cmd.run"})
    assert chunk["fun"] == remedies.TABLE[action].runs
    assert chunk["state"] == "local"
    assert (chunk["tgt"], chunk["tgt_type"]) == ([*minions(action)], "list")
    assert (chunk["jid"], chunk["arg"]) == (jid, arguments(action))
    tested = action is Action.TEST_HIGHSTATE
    assert chunk.get("kwarg") == ({"test": True} if tested else None)


@pytest.mark.parametrize(
    "named",
    [("app1", "db1"), ("app1", "web1"), ("db1",), ("app1", "*"), ("*",), ()],
)
def test_observers_are_no_nodes_and_those_that_the_settings_name(named, opts, ledger, react):
    _, jid = fire(ledger, opts, Action.PROBE, named or ("",))
    assert react(Action.PROBE, {"jid": jid}) == []


def test_without_the_setting_no_observer_is_asked(opts, ledger, request):
    del opts["engines"][1]["selfheal"]["clusters"]["runbook"]["observers"]
    _, jid = fire(ledger, opts, Action.PROBE)
    react = request.getfixturevalue("react")
    assert react(Action.PROBE, {"jid": jid}) == []


@pytest.mark.parametrize("action", [a for a in Action if a is not Action.PROBE])
def test_no_other_action_goes_to_observers(action, opts, ledger, react):
    _, jid = fire(ledger, opts, action, ("app1", "app2"))
    assert react(action, {"jid": jid}) == []


@pytest.mark.parametrize("action", list(Action))
@pytest.mark.parametrize(
    "data",
    [
        {}, {"jid": None}, {"jid": ""}, {"jid": 20261231235959000000}, {"jid": "20261231235959000000"},
        {"jid": "*"}, {"jid": "' OR 1=1 --"}, {"jid": "{{ 7 * 7 }}"}, {"jid": ["20261231235959000000"]},
        {"jid": {"a": 1}}, {"jid": "😀"}, {"jid": "x" * 100_000}, {"jid": "2026123123595900000\n0"},
    ],
)  # fmt: skip
def test_an_event_that_names_no_live_attempt_renders_to_nothing(action, data, ledger, react):
    assert react(action, data) == []


def test_a_live_jid_under_another_actions_tag_renders_to_nothing(opts, ledger, react):
    _, jid = fire(ledger, opts, Action.LOOK)
    for other in (Action.HIGHSTATE, Action.RESTART, Action.START):
        assert react(other, {"jid": jid}) == []


def test_a_second_event_of_one_firing_renders_to_nothing_and_the_next_firing_once(
    opts, ledger, react
):
    attempt, jid = fire(ledger, opts, Action.RESTART)
    assert [len(react(Action.RESTART, {"jid": jid})) for _ in range(3)] == [1, 0, 0]
    ledger.commit(ledger.timeline.now(), [], [Fire(replace(attempt, firings=2))])
    assert [len(react(Action.RESTART, {"jid": jid})) for _ in range(3)] == [1, 0, 0]


def test_an_event_under_another_actions_tag_takes_no_claim(opts, ledger, react):
    _, jid = fire(ledger, opts, Action.LOOK)
    for other in (Action.HIGHSTATE, Action.RESTART, Action.START):
        assert react(other, {"jid": jid}) == []
    assert len(react(Action.LOOK, {"jid": jid})) == 1


def test_a_job_that_is_in_the_job_cache_is_not_published_again(opts, ledger, react):
    attempt, jid = fire(ledger, opts, Action.RESTART)
    returners = salt.loader.returners(opts, salt.loader.minion_mods(opts))
    returners["local_cache.prep_jid"](passed_jid=jid)
    returners["local_cache.save_load"](jid, {"jid": jid, "fun": "service.restart", "tgt": "db1"})
    assert react(Action.RESTART, {"jid": jid}) == []
    ledger.commit(ledger.timeline.now(), [], [Fire(replace(attempt, firings=2))])
    assert react(Action.RESTART, {"jid": jid}) == []
    assert records.order(ledger.path, jid)["claimed"] == 0


def test_the_look_into_the_job_cache_is_for_where_results_go(opts, ledger, react, monkeypatch):
    opts["ext_job_cache"], asked = "elsewhere", []
    monkeypatch.setattr(
        jobs, "is_published", lambda opts, *_: asked.append(jobs.returner(opts)) or True
    )
    _, jid = fire(ledger, opts, Action.RESTART)
    assert salt.loader.minion_mods(opts)["selfheal.attempt"](jid, "restart") is None
    assert asked == ["elsewhere"]


def breaks(*_):
    raise OSError("no such host")


def hangs(*_):
    HUNG.wait(30)


@pytest.fixture
def reader(opts, monkeypatch):
    """The process's reader of the job cache, with its loader built, so that a look takes no time."""
    made = jobs.CacheReader()
    made.published(opts, "20261231235959000000")
    monkeypatch.setattr(jobs, "CACHE_READER", made)
    return made


HUNG = threading.Event()


@pytest.mark.parametrize("look", [breaks, hangs])
def test_a_job_cache_that_cannot_be_read_lets_the_first_claim_pass_and_no_other(
    look, opts, ledger, react, reader, monkeypatch, caplog
):
    HUNG.clear()
    monkeypatch.setattr(jobs, "READ_WITHIN_S", 0.05)
    monkeypatch.setattr(jobs, "is_published", look)
    attempt, jid = fire(ledger, opts, Action.RESTART)
    assert len(react(Action.RESTART, {"jid": jid})) == 1
    assert f"attempt {jid} was never claimed and goes on" in caplog.text
    ledger.commit(ledger.timeline.now(), [], [Fire(replace(attempt, firings=2))])
    assert react(Action.RESTART, {"jid": jid}) == []
    assert "was claimed before and is not published again" in caplog.text
    assert records.order(ledger.path, jid)["claimed"] == 1
    HUNG.set()


def test_a_job_cache_that_hangs_is_waited_for_once(opts, reader, monkeypatch):
    HUNG.clear()
    began = []
    monkeypatch.setattr(jobs, "READ_WITHIN_S", 0.05)
    monkeypatch.setattr(jobs, "is_published", lambda *a: began.append(a) or HUNG.wait(30))
    for _ in range(3):
        with pytest.raises(jobs.Unreadable):
            reader.published(opts, "20261231235959000000")
    assert len(began) == 1
    HUNG.set()


def test_a_returner_that_does_not_load_is_a_job_cache_that_cannot_be_read(opts, ledger, react):
    opts["ext_job_cache"] = "nosuch"
    _, jid = fire(ledger, opts, Action.RESTART)
    called = salt.loader.minion_mods(opts)["selfheal.attempt"]
    assert called(jid, "restart")["minions"] == ["db1", "db2"]


def test_a_busy_ledger_gives_no_claim_says_so_and_is_fired_again(
    opts, ledger, react, monkeypatch, caplog
):
    monkeypatch.setattr(claims, "BUSY_MS", 20)
    attempt, jid = fire(ledger, opts, Action.RESTART)
    other = sqlite3.connect(ledger.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert react(Action.RESTART, {"jid": jid}) == []
    other.close()
    assert f"attempt {jid} cannot be claimed now" in caplog.text
    ledger.commit(ledger.timeline.now(), [], [Fire(replace(attempt, firings=2))])
    assert len(react(Action.RESTART, {"jid": jid})) == 1


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((), {}), (("20261231235959000000",), {}), (("20261231235959000000", "restart", "db1"), {}),
        (("20261231235959000000", "restart"), {"minions": ["db1"]}), ((), {"Jid": "x", "action": "restart"}),
        (("20261231235959000000", "restart"), {"jid": "x"}), (("20261231235959000000", ["restart"]), {}),
    ],
)  # fmt: skip
def test_a_claim_of_another_form_is_none_and_raises_nothing(opts, ledger, args, kwargs):
    assert salt.loader.minion_mods(opts)["selfheal.attempt"](*args, **kwargs) is None


def test_a_claim_is_none_on_a_minion(opts, ledger):
    _, jid = fire(ledger, opts, Action.RESTART)
    on_minion = salt.loader.minion_mods({**opts, "__role": "minion"})
    assert on_minion["selfheal.attempt"](jid, "restart") is None
    assert records.order(ledger.path, jid)["claimed"] == 0


def test_an_ended_attempt_renders_to_nothing(opts, ledger, react):
    attempt, jid = fire(ledger, opts, Action.RESTART)
    ledger.commit(ledger.timeline.now(), [], [Finish(attempt, Outcome.DONE, "")])
    assert react(Action.RESTART, {"jid": jid}) == []


@pytest.mark.parametrize("nodes", [(), ("web1",), ("db1", "db9"), ("*",)])
def test_an_attempt_on_minions_that_the_settings_do_not_allow_renders_to_nothing(
    nodes, opts, ledger, react
):
    _, jid = fire(ledger, opts, Action.RESTART, nodes)
    assert react(Action.RESTART, {"jid": jid}) == []
    assert records.order(ledger.path, jid)["claimed"] == 0


@pytest.mark.parametrize(
    "minions",
    ['{"db1": 1}', '"db1"', "[]", "null", '["db1", 1]', '[["db1"]]', '["db1", null]', "x"],
)
def test_an_attempt_whose_minions_are_no_list_of_names_renders_to_nothing(
    minions, opts, ledger, react
):
    _, jid = fire(ledger, opts, Action.RESTART)
    db = sqlite3.connect(ledger.path)
    with db:
        db.execute("UPDATE attempts SET minions = ?", (minions,))
    db.close()
    assert salt.loader.minion_mods(opts)["selfheal.attempt"](jid, "restart") is None
    assert react(Action.RESTART, {"jid": jid}) == []


def test_without_a_ledger_everything_renders_to_nothing_and_nothing_is_created(opts, react):
    path = config.load(opts).ledger_path(opts)
    assert react(Action.RESTART, {"jid": "20261231235959000000"}) == []
    assert not path.parent.exists()


# ---------------------------------------------------------------- the heartbeat


@pytest.mark.parametrize(
    "data", [{}, {"incidents": []}, {"jid": "20260101030000000000"}, {"incidents": None, "jid": ["x"], "action": "restart"}]
)  # fmt: skip
def test_a_heartbeat_makes_no_job_and_claims_nothing(opts, ledger, data):
    _, jid = fire(ledger, opts, Action.RESTART)
    reactor = salt.utils.reactor.Reactor(opts)
    for one in (data, {**data, "jid": jid}):
        found = reactor.reactions(
            "selfheal/engine/heartbeat", one, [str(REACTOR / "heartbeat.sls")]
        )
        assert found == []
    assert records.order(ledger.path, jid)["claimed"] == 0
    found = reactor.reactions(
        "selfheal/remediate/restart", {"jid": jid}, [str(REACTOR / "restart.sls")]
    )
    assert [one["jid"] for one in found] == [jid]


LOADING = """
import json, sys
import salt.config, salt.utils.reactor
opts = salt.config.master_config(sys.argv[1])
opts["engines"] = json.loads(sys.argv[2])
reactor = salt.utils.reactor.Reactor(opts)
def ours():
    return {name for name in sys.modules if name.startswith(("saltext_selfheal", "pydantic", "sqlite3"))}
def react(name, data):
    assert reactor.reactions("selfheal/x", data, [f"{sys.argv[3]}/{name}.sls"]) == []
before = ours()
react("heartbeat", {"incidents": []})
warm = ours()
react("restart", {"jid": "20260101030000000000"})
from saltext_selfheal.loop import jobs, salt_words
print(json.dumps([len(before), len(warm), sorted(ours() - warm), jobs.CACHE_READER._returners is not None]))
"""


def test_after_a_heartbeat_an_order_has_nothing_left_to_load(opts, ledger):
    made = subprocess.run(
        [sys.executable, "-c", LOADING, opts["conf_file"], json.dumps(opts["engines"]), str(REACTOR)],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    before, warm, left, cache = json.loads(made.stdout.splitlines()[-1])
    assert warm > before + 20
    assert (left, cache) == ([], True)


@pytest.mark.parametrize("wrong", ["settings", "ledger", "job cache"])
def test_a_heartbeat_that_finds_something_wrong_is_silent(opts, monkeypatch, caplog, wrong):
    if wrong == "settings":
        opts["engines"] = [{"selfheal": {"clusters": 5}}]
    if wrong == "job cache":
        opts["master_job_cache"] = "nosuch"
    reactor = salt.utils.reactor.Reactor(opts)
    assert reactor.reactions("x", {}, [str(REACTOR / "heartbeat.sls")]) == []
    assert not [
        one for one in caplog.records if one.levelno > logging.INFO and "selfheal" in one.message
    ]


def test_a_minion_loads_nothing_for_it(opts, monkeypatch):
    monkeypatch.setattr(config, "load", lambda _: pytest.fail("it was loaded"))
    functions = salt.loader.minion_mods({**opts, "__role": "minion"})
    assert functions["selfheal.warm"]() is None
