"""A firing is claimed once, whoever asks, and however many ask at once."""

import sqlite3
import subprocess
import sys
import time

import pytest

from saltext_selfheal.healing.model import Action, Attempt, Finish, Fire, Outcome
from saltext_selfheal.ledger import chain, claims, records
from saltext_selfheal.ledger import writer as ledger
from saltext_selfheal.ledger.file import LedgerError

JID = "20261123030000000000"


def fired(book, firings=1):
    one = Attempt(
        "runbook-1.1",
        "runbook",
        "runbook-1",
        Action.RESTART,
        ("db2",),
        0,
        1.0,
        1.0,
        firings=firings,
        jid=JID,
        args=("rethinkdb",),
    )
    book.commit(float(firings), [], [Fire(one)])
    return one


def claimed(path, jid=JID):
    """As `attempt()` does it."""
    order = records.order(path, jid)
    return order is not None and claims.take(path, jid, order["firing"], order["claimed"])


def test_a_firing_is_claimed_once_and_the_next_one_once_again(book, path):
    assert not claimed(path)
    fired(book)
    assert [claimed(path) for _ in range(3)] == [True, False, False]
    fired(book, 2)
    assert [claimed(path) for _ in range(3)] == [True, False, False]
    assert (records.order(path, JID)["firing"], records.order(path, JID)["claimed"]) == (2, 2)


def test_a_firing_that_nobody_claimed_is_none_once_the_next_one_is_there(book, path):
    fired(book)
    fired(book, 2)
    assert not claims.take(path, JID, 1, 0)
    assert [claimed(path) for _ in range(2)] == [True, False]


def test_what_has_ended_since_it_was_read_is_not_claimed(book, path):
    one = fired(book)
    order = records.order(path, JID)
    book.commit(2.0, [], [Finish(one, Outcome.DONE, "")])
    assert not claims.take(path, JID, order["firing"], order["claimed"])


@pytest.mark.parametrize("jid", ["", "x", "' OR 1 = 1 --", JID[:-1], f"{JID}_1"])
def test_what_is_no_jid_of_ours_claims_nothing(book, path, jid):
    fired(book)
    assert not claims.take(path, jid, 1, 0)
    assert records.order(path, JID)["claimed"] == 0


ASKS = """
import sys
from pathlib import Path
from saltext_selfheal.ledger import claims
path, jid, firing = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
print(claims.take(path, jid, firing, firing - 1), flush=True)
"""


def test_of_several_processes_that_ask_at_once_one_gets_it(book, path):
    for firing in range(1, 6):
        fired(book, firing)
        asking = [
            subprocess.Popen(
                [sys.executable, "-c", ASKS, str(path), JID, str(firing)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )
            for _ in range(4)
        ]  # fmt: skip
        for one in asking:
            assert one.stdout.readline() == "ready\n"
        for one in asking:
            one.stdin.write("now\n")
            one.stdin.flush()
        told = [one.communicate()[0].strip() for one in asking]
        assert sorted(told) == ["False", "False", "False", "True"]


def test_a_busy_ledger_gives_no_claim_and_is_not_waited_for_for_long(book, path, monkeypatch):
    monkeypatch.setattr(claims, "BUSY_MS", 50)
    fired(book)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    with pytest.raises(LedgerError, match="locked"):
        claims.take(path, JID, 1, 0)
    assert time.monotonic() - began < 2
    other.execute("ROLLBACK")
    other.close()
    assert claimed(path)


def test_a_ledger_that_is_not_there_is_not_made(tmp_path):
    with pytest.raises(LedgerError):
        claims.take(tmp_path / "none.sqlite3", JID, 1, 0)
    assert not list(tmp_path.iterdir())


def test_the_engine_minds_no_claim(book, path):
    """Neither its transactions, nor the audit's chain, nor the mark, nor the next start."""
    one = fired(book)
    assert claimed(path)
    book.commit(2.0, [], [Finish(one, Outcome.DONE, "")])
    book.beat()
    with records.read(path) as db:
        assert records.audit(db)["ok"]
    book.close()
    again = ledger.Ledger(path)
    assert again.lost is None
    again.close()


def head(path):
    with records.read(path) as db:
        return chain.read_head(db)


def test_a_claim_after_the_engines_last_word_is_no_damage(book, path):
    fired(book)
    before = head(path)
    assert claimed(path)
    book.close()
    again = ledger.Ledger(path)
    assert (again.lost, head(path)) == (None, before)
    assert records.order(path, JID)["claimed"] == 1
