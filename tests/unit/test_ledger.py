"""What the healer remembers, and for how long."""

import os
import sqlite3
import subprocess
import sys

import pytest

from saltext_selfheal import ledger
from saltext_selfheal.healing.model import Action
from saltext_selfheal.healing.model import Answer
from saltext_selfheal.healing.model import Attempt
from saltext_selfheal.healing.model import ClusterState
from saltext_selfheal.healing.model import Fault
from saltext_selfheal.healing.model import Finish
from saltext_selfheal.healing.model import Fire
from saltext_selfheal.healing.model import NodeState
from saltext_selfheal.healing.model import Outcome
from saltext_selfheal.healing.model import Reply
from saltext_selfheal.healing.model import Request
from tests.unit.world import World

JID = "20261123030000000000"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "selfheal" / "ledger.sqlite3"


@pytest.fixture
def book(path):
    return ledger.Ledger(path)


def attempt(now=1.0, **changes):
    values = {
        "id": "runbook-1.1", "cluster": "runbook", "incident": "runbook-1", "action": Action.RESTART,
        "nodes": ("db2",), "step": 0, "decided_at": now, "fired_at": now,
    }  # fmt: skip
    return Attempt(**{**values, **changes})


def fired(book, **changes):
    one = attempt(**changes)
    book.commit(book.timeline.now(), [], [Fire(one)], {one.id: (JID, ["rethinkdb"])})
    return one


def test_the_state_comes_back_as_it_was(book, path):
    world = World().warm()
    world.break_("db2", fault=Fault.AUTH)
    world.pass_time(5)
    book.commit(world.now, world.state.clusters.values(), world.effects[:0], {})
    with ledger.read(path) as db:
        assert ledger.states(db) == world.state.clusters
    assert book.clusters() == world.state.clusters


def test_the_file_belongs_to_the_master_alone(book, path):
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_an_order_is_given_while_the_attempt_is_fresh_and_alive(book, path):
    one = fired(book)
    assert ledger.order(path, JID) == {
        "jid": JID, "cluster": "runbook", "action": "restart", "minions": ["db2"], "args": ["rethinkdb"],
    }  # fmt: skip
    assert ledger.order(path, "20200101000000000000") is None
    book.commit(2.0, [], [Finish(one, Outcome.DONE, "")], {})
    assert ledger.order(path, JID) is None


def test_an_order_older_than_a_minute_is_none_whatever_the_wall_clock_says(book, path, monkeypatch):
    fired(book)
    then = ledger.boottime()
    monkeypatch.setattr(ledger, "boottime", lambda: then + 59.0)
    assert ledger.order(path, JID)
    monkeypatch.setattr(ledger, "boottime", lambda: then + 61.0)
    assert ledger.order(path, JID) is None


def test_an_order_from_before_a_reboot_is_none(book, path, monkeypatch):
    fired(book)
    monkeypatch.setattr(ledger, "boot_id", lambda: "another boot")
    assert ledger.order(path, JID) is None


def test_firing_again_keeps_the_jid_and_renews_the_minute(book, path, monkeypatch):
    fired(book)
    later = ledger.boottime() + 100.0
    monkeypatch.setattr(ledger, "boottime", lambda: later)
    assert ledger.order(path, JID) is None
    book.commit(101.0, [], [Fire(attempt(firings=2))], {})
    assert ledger.order(path, JID)["jid"] == JID


def test_a_transition_is_written_whole_or_not_at_all(book):
    fired(book)
    with pytest.raises(sqlite3.IntegrityError):
        # the same JID once more: the attempt cannot be written, so neither is the state
        other = attempt(id="runbook-1.2")
        book.commit(3.0, [ClusterState("runbook", serial=9)], [Fire(other)], {other.id: (JID, [])})
    assert book.clusters() == {}


def test_a_request_is_kept_once_and_answered_once(book, path):
    request = Request("r1", "runbook", "highstate", ("db1",), "drift", "runner", "app")
    ledger.ask(path, request)
    ledger.ask(path, request)
    assert book.waiting() == [request]
    assert book.waiting() == []  # nobody wrote meanwhile
    with ledger.read(path) as db:
        assert ledger.answer(db, "r1") is None
    book.commit(1.0, [], [Answer(request, Reply.JOINED, "it is open", "runbook-1")], {})
    book.commit(2.0, [], [Answer(request, Reply.REFUSED, "later")], {})
    assert book.answered("r1")
    with ledger.read(path) as db:
        told = ledger.answer(db, "r1")
    assert (told["reply"], told["incident"], told["jid"]) == ("joined", "runbook-1", None)


def test_a_request_put_in_while_no_engine_ran_is_found_at_the_start(path):
    del_me = ledger.Ledger(path)
    del_me.close()
    ledger.ask(path, Request("r1", "runbook", "highstate"))
    assert [r.id for r in ledger.Ledger(path).waiting()] == ["r1"]


def test_history_is_newest_first_and_by_cluster(book, path):
    fired(book)
    other = attempt(id="web-1.1", cluster="web", incident="web-1")
    book.commit(2.0, [], [Fire(other)], {other.id: ("20261123030000000001", [])})
    with ledger.read(path) as db:
        assert [row["cluster"] for row in ledger.history(db, None, 0.0, 10)] == ["web", "runbook"]
        assert [row["cluster"] for row in ledger.history(db, "runbook", 0.0, 10)] == ["runbook"]
        assert ledger.history(db, None, 0.0, 1)[0]["attempt"] == "web-1.1"


def test_each_audit_row_carries_the_hash_of_the_one_before(book, path):
    one = fired(book)
    book.commit(2.0, [], [Finish(one, Outcome.DONE, "")], {})
    with ledger.read(path) as db:
        rows = db.execute("SELECT * FROM audit ORDER BY seq").fetchall()
    before = ""
    for row in rows:
        assert row["hash"] == ledger.link_hash(
            before, row["seq"], row["at"], row["cluster"], row["incident"], row["kind"], row["body"]
        )
        before = row["hash"]
    assert len(rows) == 2


def test_one_engine_at_a_time(book, path):
    code = f"from pathlib import Path; from saltext_selfheal import ledger; ledger.Ledger(Path({str(path)!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "LedgerBusy" in done.stderr
    assert ledger.engine_alive(path)


def test_the_lock_ends_with_the_engine(path):
    code = f"from pathlib import Path; from saltext_selfheal import ledger; import os; ledger.Ledger(Path({str(path)!r})); os._exit(9)"
    subprocess.run([sys.executable, "-c", code], check=False)
    assert not ledger.engine_alive(path)
    assert ledger.Ledger(path).lost is None


def test_without_a_ledger_readers_say_so_and_create_nothing(path):
    assert not ledger.engine_alive(path)
    with pytest.raises(ledger.LedgerError, match="no ledger"), ledger.read(path):
        pass
    with pytest.raises(ledger.LedgerError, match="no ledger"):
        ledger.ask(path, Request("r1", "runbook", "highstate"))
    assert not path.parent.exists()


@pytest.mark.parametrize(
    "damage", [b"", b"not a database at all, but long enough to have a header" * 40]
)
def test_a_damaged_ledger_is_kept_and_said_to_be_lost(path, damage):
    ledger.Ledger(path).close()
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    path.write_bytes(damage)
    book = ledger.Ledger(path)
    assert book.lost
    assert book.clusters() == {}
    kept = list(path.parent.glob("*.damaged-*"))
    assert [k.read_bytes() for k in kept] == [damage]


def test_a_ledger_whose_file_was_deleted_is_lost(path):
    ledger.Ledger(path).close()
    path.unlink()
    assert "missing" in ledger.Ledger(path).lost


def test_a_fresh_ledger_is_not_lost(book):
    assert book.lost is None


def test_a_newer_schema_is_refused_and_left_alone(path):
    ledger.Ledger(path).close()
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version={ledger.SCHEMA + 1}")
    db.commit()
    db.close()
    with pytest.raises(ledger.LedgerError, match="newer than this release knows"):
        ledger.Ledger(path)
    assert not list(path.parent.glob("*.damaged-*"))


def test_network_file_systems_are_refused(path, monkeypatch):
    monkeypatch.setattr(ledger, "_file_system", lambda _: "nfs4")
    with pytest.raises(ledger.LedgerError, match="a local file system is needed"):
        ledger.Ledger(path)


def test_within_one_boot_the_timeline_follows_the_boot_clock(monkeypatch):
    monkeypatch.setattr(ledger, "boot_id", lambda: "b")
    monkeypatch.setattr(ledger, "boottime", lambda: 150.0)
    last = ledger.Anchor("b", 100.0, 1_000.0)
    for wall in (0.0, 10_000_000.0):  # a step of the wall clock changes nothing
        assert ledger.Timeline(last, wall).now() == 1_050.0


def test_after_a_reboot_the_wall_clock_counts_but_never_runs_backwards(monkeypatch):
    monkeypatch.setattr(ledger, "boot_id", lambda: "b2")
    last = ledger.Anchor("b1", 100.0, 1_000.0)
    assert ledger.Timeline(last, 5_000.0).now() == pytest.approx(5_000.0, abs=1)
    assert ledger.Timeline(last, 10.0).now() == pytest.approx(1_000.0, abs=1)


def test_the_time_of_the_last_transition_survives(book, path):
    book.commit(1.0, [ClusterState("runbook", nodes={"db1": NodeState()})], [], {})
    then = book.timeline.now()
    book.close()
    assert ledger.Ledger(path).timeline.now() >= then


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_ledger_that_cannot_be_written_is_an_error(path):
    ledger.Ledger(path).close()
    path.chmod(0o400)
    with pytest.raises(ledger.LedgerError):
        ledger.Ledger(path)
