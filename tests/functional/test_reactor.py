"""Every SLS, rendered by Salt's own reactor class."""

import sqlite3

import pytest
import salt.loader
import salt.utils.reactor

from saltext_selfheal import config
from saltext_selfheal import jobs
from saltext_selfheal.healing.model import Action
from saltext_selfheal.healing.model import Attempt
from saltext_selfheal.healing.model import Finish
from saltext_selfheal.healing.model import Fire
from saltext_selfheal.healing.model import Outcome
from saltext_selfheal.ledger import Ledger
from tests.functional.conftest import REACTOR

DOES = {
    Action.HIGHSTATE: ("state.highstate", []),
    Action.RESTART: ("service.restart", ["rethinkdb"]),
    Action.START: ("service.start", ["rethinkdb"]),
    Action.LOOK: ("saltutil.running", []),
}


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


def fire(ledger, opts, action, nodes=("db1", "db2"), number=1):
    now = ledger.timeline.now()
    attempt = Attempt(f"runbook-1.{number}", "runbook", "runbook-1", action, nodes, 0, now, now)
    jid = jobs.mint(opts)
    ledger.commit(now, [], [Fire(attempt)], {attempt.id: (jid, DOES[action][1])})
    return attempt, jid


def test_every_action_has_its_file_and_every_file_its_action():
    assert {path.stem for path in REACTOR.glob("*")} == {action.value for action in Action}


@pytest.mark.parametrize("action", list(Action))
def test_a_live_attempt_becomes_its_job_on_exactly_its_minions_under_its_jid(
    action, opts, ledger, react
):
    _, jid = fire(ledger, opts, action)
    (chunk,) = react(action, {"jid": jid, "minions": ["web1"], "tgt": "*", "action": "cmd.run"})
    function, args = DOES[action]
    assert f"{chunk['fun']}" == function
    assert chunk["state"] == "local"
    assert (chunk["tgt"], chunk["tgt_type"]) == (["db1", "db2"], "list")
    assert (chunk["jid"], chunk["arg"]) == (jid, args)


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


def test_an_ended_attempt_renders_to_nothing(opts, ledger, react):
    attempt, jid = fire(ledger, opts, Action.RESTART)
    ledger.commit(ledger.timeline.now(), [], [Finish(attempt, Outcome.DONE, "")], {})
    assert react(Action.RESTART, {"jid": jid}) == []


@pytest.mark.parametrize("nodes", [(), ("web1",), ("db1", "db9"), ("*",)])
def test_an_attempt_on_minions_that_the_settings_do_not_allow_renders_to_nothing(
    nodes, opts, ledger, react
):
    _, jid = fire(ledger, opts, Action.RESTART, nodes)
    assert react(Action.RESTART, {"jid": jid}) == []


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
    assert salt.loader.minion_mods(opts)["selfheal.attempt"](jid) is None
    assert react(Action.RESTART, {"jid": jid}) == []


def test_without_a_ledger_everything_renders_to_nothing_and_nothing_is_created(opts, react):
    path = config.load(opts).ledger_path(opts)
    assert react(Action.RESTART, {"jid": "20261231235959000000"}) == []
    assert not path.parent.exists()
