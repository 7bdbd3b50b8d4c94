"""Text from outside becomes one clean line of bounded length, wherever it comes in."""

import asyncio
import json
import logging
import queue
import sqlite3
from types import SimpleNamespace
from unittest import mock

import pytest

from saltext_selfheal.driver import text
from saltext_selfheal.driver.address import Address
from saltext_selfheal.healing.events import Door, Issue, Request
from saltext_selfheal.healing.model import (
    Action,
    Announce,
    Answer,
    Fault,
    Incident,
    News,
    Phase,
    Reply,
    Seen,
    Tell,
)
from saltext_selfheal.ledger import inbox
from saltext_selfheal.ledger.file import LedgerError
from saltext_selfheal.ledger.writer import Ledger
from saltext_selfheal.loop import herald, jobs
from saltext_selfheal.probe import node, tables

#: A line break, ESC, CSI, NUL, NEL, a separator, marks of direction, invisible ones, tags, a lone surrogate.
NASTY = [
    "\n2026-01-01 [CRITICAL] forged", "\r", "\x1b[2J", "\x9b1m", "\0", "\x85", "\u2028", "\u2029", "\u202e", "\u2066", "\u200f",
    "\u200b", "\ufeff", "\u00ad", "\u2060", "\ufff9", "\U000e0041", "\x7f", "\x0b", "\ud800", "\udfff",
]  # fmt: skip
ALL = "".join(f"a{one}b" for one in NASTY)


def is_clean(told):
    told.encode()  # it can be stored
    return told.isprintable() and len(told) <= text.MOST_CHARS


@pytest.mark.parametrize("nasty", NASTY)
def test_what_could_forge_or_hide_something_is_a_blank_or_is_written_out(nasty):
    told = text.clean(f"a{nasty}b")
    assert is_clean(told)
    assert told[0] == "a" and told[-1] == "b" and len(told) > 2
    assert text.clean(told) == told
    assert is_clean(text.plain(nasty))
    assert is_clean(text.said(nasty))


def test_what_is_a_line_already_stays_as_it_is():
    for told in (
        "",
        "  two  blanks ",
        "\N{FIRE} é 中 ' \" \\ \\ud800 {{ 7 }}",
        "x" * text.MOST_CHARS,
    ):
        assert text.clean(told) == told


@pytest.mark.parametrize("most", [0, 1, 7, 200])
def test_it_is_never_longer_than_allowed(most):
    for told in ("x" * 1_000_000, "\ud800" * 1000, "\n" * 1000):
        assert len(text.clean(told, most)) <= most
        assert len(text.plain(told, most)) <= most


def test_data_for_people_are_cleaned_in_every_place_and_keep_their_order():
    told = text.all_clean({"b\n": ["\x1b", ("\ud800", 1, None)], "a": {"x": True}})
    assert list(told) == ["b ", "a"]
    assert told == {"b ": [" ", ["\\ud800", 1, None]], "a": {"x": True}}


def test_a_failure_is_one_line_that_names_the_places():
    with pytest.raises(ValueError, match="a") as caught:
        raise ValueError(ALL)
    told = text.failure(caught.value)
    assert told.startswith("ValueError: a")
    assert "(test_text.py:" in told
    assert is_clean(told)


# ---------------------------------------------------------------- where it comes in


def viewed(row):
    """The view of a cluster whose system tables hold this one document each."""

    class Wire:
        """A connection."""

        async def table(self, term, deadline, keep):
            return [keep(row)]

    async def go():
        target = node.Target("runbook", "db1", Address("db1"))
        probe = SimpleNamespace(target=target, answers=True, wire=Wire())
        return await tables.TableReader("runbook", [probe], tables.ViewPlan()).take()

    return asyncio.run(go())


def test_what_a_server_says_of_itself_and_its_tables_is_clean():
    assert is_clean(node.text(ALL * 100))
    row = {
        "id": "t", "db": ALL, "name": ALL * 100, "shards": [{"replicas": [{"server": ALL * 100, "state": ALL}]}],
        "type": ALL, "description": ALL * 1000,
    }  # fmt: skip
    view = viewed(row)
    (table,), (issue,) = view.tables, view.issues
    (replica,) = table.shards[0].replicas
    for told in (table.name, replica.server, replica.state, issue.type, issue.description):
        assert is_clean(told)
    # Names of one server are compared with each other, so they are cut in the same way.
    assert replica.server == node.text(ALL * 100)
    assert isinstance(issue, Issue)


@pytest.mark.parametrize(
    "result",
    [
        {"return": ALL, "retcode": 1},
        {"return": [ALL, "x" * 100_000], "retcode": 1},
        {"return": {"s": {"result": False, "comment": ALL}}, "retcode": 2},
        {"return": {}, "retcode": ALL * 1000},
        {"return": {ALL: ALL}, "retcode": 0},
    ],
)
@pytest.mark.parametrize("action", [Action.HIGHSTATE, Action.RESTART, Action.LOOK])
def test_what_a_minion_returns_is_delivered_clean(result, action, monkeypatch):
    came = queue.Queue()
    monkeypatch.setattr(jobs.salt.minion, "MasterMinion", mock.Mock())
    monkeypatch.setattr(jobs, "is_published", lambda *_: True)
    monkeypatch.setattr(jobs, "results", lambda *_: {"db1": result})
    reader = jobs.JobReader({}, came.put)
    reader.start()
    reader.watch((jobs.Watched("runbook-1.1", "20260101000000000000", action, ("db1",)),))
    assert isinstance(came.get(timeout=5), jobs.Published)
    returned = came.get(timeout=5)
    reader.watch(())
    assert is_clean(returned.detail)


@pytest.fixture
def book(tmp_path):
    made = Ledger(tmp_path / "ledger.sqlite3")
    yield made
    made.close()


def put(book, key, kind, body):
    db = sqlite3.connect(book.path)
    with db:
        db.execute(
            "INSERT INTO inbox (key, kind, body, put_at) VALUES (?, ?, ?, 1e9)",
            (key, kind, json.dumps(body)),
        )
    db.close()


SAYABLE = ALL.replace("\ud800", "").replace("\udfff", "")


def test_what_a_row_of_the_inbox_says_is_clean(book):
    asked = {"cluster": SAYABLE, "nodes": [SAYABLE * 50, "db1"], "reason": SAYABLE * 100}
    put(
        book,
        "r",
        "request",
        {**asked, "id": "r", "action": SAYABLE, "door": "webhook", "asker": SAYABLE},
    )
    put(book, "o", "request", {**asked, "id": "o", "action": "restart", "door": SAYABLE})
    put(
        book,
        "c",
        "command",
        {**asked, "id": "c", "verb": "lock", "by": SAYABLE, "incident": SAYABLE},
    )
    request, command = book.waiting()
    told = [
        request.cluster,
        request.action,
        request.asker,
        request.reason,
        *request.nodes,
    ]
    told += [command.cluster, command.by, command.incident, command.reason, *command.nodes]
    assert all(map(is_clean, told))
    assert request.nodes[1] == "db1"


@pytest.mark.parametrize("key", ["a\nb", "\x1b[2J", "a\u202eb", "x" * 201])
def test_a_row_whose_id_could_forge_a_line_is_refused(book, key):
    put(book, key, "request", {"id": key, "cluster": "runbook", "action": "restart"})
    put(book, "fine", "request", {"id": "fine", "cluster": "runbook", "action": "restart"})
    assert [asked.id for asked in book.waiting()] == ["fine"]
    db = sqlite3.connect(book.path)
    db.row_factory = sqlite3.Row
    assert inbox.answer(db, key)["reply"] == "refused"
    db.close()


def test_the_words_of_a_strange_file_are_one_line():
    assert is_clean(str(LedgerError(f"ledger: malformed database schema ({ALL * 100})")))


def test_what_an_older_ledger_remembers_is_told_on_one_line(caplog):
    """An older release stored the words of servers and minions as they were."""
    caplog.set_level(logging.INFO)
    fired = []

    class Out:
        """Keeps what is fired."""

        def fire(self, tag, data):
            fired.append((tag, data))
            return True

    seen = Seen(Fault.ISSUE, ALL)
    incident = Incident("runbook-1", "runbook", seen, ("db1",), Phase.OPEN, 1e9, 1e9, why=ALL)
    request = Request("r", "runbook", ALL, (), ALL, Door.BUS, ALL)
    teller = herald.Herald(Out())
    teller.tell_all(
        [
            Announce(incident, ALL, "open.held"),
            Answer(request, Reply.REFUSED, ALL),
            Tell(next(iter(News)), "runbook", "db1", ALL),
        ],
        1e9,
    )
    teller.engine("ledger_failed", {"why": ALL}, 1e9)
    assert len(caplog.records) == 3
    for record in caplog.records:
        assert record.getMessage().isprintable()
    assert json.dumps(fired, ensure_ascii=False).isprintable()
