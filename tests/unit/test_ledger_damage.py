"""Ledgers that cannot be used as they are: one clear error, or kept aside and started anew. Never a loop of either."""

import functools
import json
import os
import shutil
import sqlite3
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from saltext_selfheal.healing.events import Request
from saltext_selfheal.healing.model import (
    Action,
    Announce,
    Attempt,
    ClusterState,
    Fault,
    Fire,
    Incident,
    News,
    Phase,
    Seen,
    Tell,
)
from saltext_selfheal.ledger import chain as audit_chain
from saltext_selfheal.ledger import file as ledger_file
from saltext_selfheal.ledger import inbox, records
from saltext_selfheal.ledger import tables as ledger_tables
from saltext_selfheal.ledger import writer as ledger
from saltext_selfheal.ledger.file import LedgerError, LedgerFile, LedgerRefused, Unavailable

NOBODY = 65534

V1 = """
CREATE TABLE clock (one INTEGER PRIMARY KEY CHECK (one = 1), boot TEXT, boottime REAL, timeline REAL);
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE state (cluster TEXT PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE attempts (
    id TEXT PRIMARY KEY, jid TEXT UNIQUE NOT NULL, cluster TEXT NOT NULL, incident TEXT NOT NULL,
    action TEXT NOT NULL, minions TEXT NOT NULL, args TEXT NOT NULL, firings INTEGER NOT NULL,
    decided_at REAL NOT NULL, fired_boot TEXT NOT NULL, fired_boottime REAL NOT NULL,
    ended_at REAL, outcome TEXT, why TEXT);
CREATE INDEX attempts_of ON attempts (incident);
CREATE TABLE incidents (
    id TEXT PRIMARY KEY, cluster TEXT NOT NULL, fault TEXT NOT NULL, nodes TEXT NOT NULL, phase TEXT NOT NULL,
    opened_at REAL NOT NULL, changed_at REAL NOT NULL, ended_at REAL, attempts INTEGER NOT NULL, why TEXT NOT NULL);
CREATE INDEX incidents_by_time ON incidents (cluster, opened_at);
CREATE TABLE inbox (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT UNIQUE NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL,
    put_at REAL NOT NULL, answered_at REAL, answer TEXT);
CREATE INDEX inbox_open ON inbox (seq) WHERE answered_at IS NULL;
CREATE TABLE audit (
    seq INTEGER PRIMARY KEY, at REAL NOT NULL, cluster TEXT NOT NULL, incident TEXT, kind TEXT NOT NULL,
    body TEXT NOT NULL, hash TEXT NOT NULL);
CREATE INDEX audit_by_cluster ON audit (cluster, at);
CREATE INDEX audit_by_incident ON audit (incident, seq);
"""


def filled(path, rows=50):
    """A ledger with something in every table that matters, closed: one file."""
    book = ledger.Ledger(path)
    now = book.timeline.now()
    one = Incident("runbook-1", "runbook", Seen(Fault.DEAD), ("db1",), Phase.OPEN, now, now)
    tells = [Tell(News.VIEW, "runbook", "db1", "x" * 500, "runbook-1") for _ in range(rows)]
    book.commit(
        now, [ClusterState("runbook", serial=7)], [Announce(one, "", "suspected.confirmed")]
    )
    book.commit(now, [], tells)
    inbox.ask(path, Request("r1", "runbook", "highstate"))
    book.close()
    return path


def add_row(book, at):
    """A transition that leaves one row in the audit."""
    book.commit(at, [], [Tell(News.VIEW, "runbook", "db1", "x", "runbook-1")])


def sql(path, script):
    db = sqlite3.connect(path)
    db.executescript(script)
    db.close()


def kept(path):
    return [p for p in path.parent.glob("*.damaged-*") if not p.name.endswith(("-wal", "-shm"))]


def found_lost(path):
    """Open a damaged ledger: it is kept as it was, a new one begins, and that one opens the next time."""
    before = path.read_bytes()
    book = ledger.Ledger(path)
    why = book.lost
    assert why
    assert book.clusters() == {}
    assert [p.read_bytes() for p in kept(path)] == [before]
    assert str(kept(path)[0]) in why
    book.commit(book.timeline.now(), [ClusterState("runbook", serial=1)], [])
    book.close()
    again = ledger.Ledger(path)
    assert again.lost is None
    assert again.clusters()["runbook"].serial == 1
    assert len(kept(path)) == 1
    again.close()
    return why


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.1, 0.3, 0.5, 0.9])
def test_a_ledger_cut_short_is_lost(path, share):
    size = filled(path).stat().st_size
    os.truncate(path, int(size * share))
    found_lost(path)


def test_a_ledger_cut_by_a_whole_page_is_lost(path):
    os.truncate(path, filled(path).stat().st_size - 4096)
    found_lost(path)


def test_a_ledger_that_was_begun_and_never_finished_is_lost(path):
    """What SQLite writes before the tables: the engine was killed there, after a damaged one was put aside."""
    filled(path).unlink()
    db = sqlite3.connect(path)
    db.execute("PRAGMA journal_mode=WAL")
    db.close()
    assert "begun and never finished" in found_lost(path)


def with_a_full_disk(monkeypatch):
    """From now on a new ledger is begun and cannot be finished."""
    monkeypatch.setattr(
        ledger_tables,
        "create",
        lambda db, first: db.executescript(f"BEGIN; SELECT no_such_function(); {first} COMMIT;"),
    )


def test_a_full_disk_at_the_first_start_leaves_nothing_behind(path, monkeypatch):
    with_a_full_disk(monkeypatch)
    for _ in range(3):
        with pytest.raises(LedgerError, match=str(path)):
            ledger.Ledger(path)
        assert sorted(p.name for p in path.parent.iterdir()) == [f"{path.name}.lock"]
    monkeypatch.undo()
    ledger.Ledger(path).close()


def test_readers_of_an_empty_file_are_told_so(path):
    filled(path).write_bytes(b"")
    with pytest.raises(LedgerError, match="empty or unfinished"), records.read(path):
        pass


def test_garbage_all_over_is_lost(path):
    size = filled(path).stat().st_size
    path.write_bytes(os.urandom(size))
    found_lost(path)


def test_garbage_after_a_sound_header_is_lost(path):
    data = filled(path).read_bytes()
    path.write_bytes(data[:100] + os.urandom(len(data) - 100))
    found_lost(path)


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        ("DROP TABLE inbox", "no such table: inbox"),
        ("DROP TABLE audit", "no such table: audit"),
        ("UPDATE state SET body = '{'", "state is unreadable"),
        ("UPDATE clock SET timeline = 'noon'", "clock is unreadable"),
        ("INSERT INTO meta VALUES ('anchor', 'x')", "the audit's anchor is unreadable: 'x'"),
        ("PRAGMA user_version = 0", "no ledger of ours"),
        ("PRAGMA user_version = -1", "no ledger of ours"),
        ("UPDATE audit SET body = '{}' WHERE seq = 40", "broken at seq 40: expected hash"),
        ("UPDATE audit SET body = x'ff' WHERE seq = 40", "broken at seq 40: expected text"),
        ("DELETE FROM audit WHERE seq = 40", "broken at seq 40: expected seq 40, found 41"),
        ("DELETE FROM audit WHERE seq < 10", "broken at seq 1: expected seq 1, found 10"),
        (
            "DELETE FROM audit WHERE seq > 40",
            "at seq 41: expected entries up to seq 51, found none",
        ),
        (
            "DELETE FROM audit",
            "broken at seq 1: expected entries up to seq 51, found none from 1 on",
        ),
        ("UPDATE audit SET seq = -3 WHERE seq = 1", "expected no entry before seq 1, found -3"),
        ("UPDATE audit SET seq = 0 WHERE seq = 1", "expected no entry before seq 1, found 0"),
        ("INSERT INTO meta VALUES ('anchor', '[500, \"x\"]')", "no entry before seq 501, found 1"),
        (
            "INSERT INTO meta VALUES ('anchor', '[500, \"x\"]'); DELETE FROM audit",
            "expected the end at seq 51, found it at 500",
        ),
        (
            "INSERT INTO meta SELECT 'anchor', json_array(seq, hash) FROM audit WHERE seq = 10",
            "expected no entry before seq 11, found 1",
        ),
        (
            "UPDATE meta SET value = '[2, 51, \"x\"]' WHERE key = 'head'",
            "expected hash x at the end",
        ),
        ("UPDATE meta SET value = '[2' WHERE key = 'head'", "the audit's head is unreadable: '[2'"),
        ("DELETE FROM meta WHERE key = 'head'", "found 0 and 51"),
        ("UPDATE clock SET timeline = 9e999", "clock is unreadable: found inf"),
        ("UPDATE clock SET wall = 'x', boot = 'other'", "clock is unreadable"),
        ("UPDATE clock SET wall = -9e999", "clock is unreadable: found -inf"),
        ("UPDATE clock SET wall = x'00ff'", "clock is unreadable"),
    ],
)
def test_what_no_engine_wrote_is_lost_and_named(path, harm, told):
    sql(filled(path), harm)
    assert told in found_lost(path)


def test_only_the_newest_links_are_looked_at_when_it_opens(path, monkeypatch):
    monkeypatch.setattr(audit_chain, "LINKS_AT_START", 20)
    sql(filled(path), "UPDATE audit SET body = '{}' WHERE seq = 10")
    ledger.Ledger(path).close()
    with records.read(path) as db:
        told = records.audit(db)
    assert (told["ok"], told["rows"], told["broken"]) == (False, 9, 10)
    assert "expected hash" in told["why"]
    sql(path, "UPDATE audit SET body = '{}' WHERE seq = 45")
    assert "broken at seq 45" in found_lost(path)


def test_a_chain_without_its_beginning_is_not_proven(path):
    sql(filled(path), "INSERT INTO meta VALUES ('anchor', 'x')")
    with records.read(path) as db:
        told = records.audit(db)
    assert told == {
        "ok": False, "rows": 0, "from": None, "to": None, "broken": 0,
        "why": "the audit's anchor is unreadable: 'x'",
    }  # fmt: skip


@pytest.mark.parametrize(
    "anchor",
    ['[Infinity, "x"]', '[1e30, "x"]', '[99999999999999999999, "x"]', '[-1, "x"]', "[" * 100_000],
)
def test_an_anchor_that_is_no_number_of_a_row_is_lost_and_audit_says_so(path, anchor):
    sql(filled(path), f"INSERT INTO meta VALUES ('anchor', '{anchor}')")
    with records.read(path) as db:
        told = records.audit(db)
    assert (told["ok"], told["broken"]) == (False, 0)
    assert "the audit's anchor is unreadable" in told["why"]
    assert "the audit's anchor is unreadable" in found_lost(path)


def test_what_is_cut_off_the_audit_of_a_running_engine_shows_although_it_goes_on(path):
    book = ledger.Ledger(filled(path))
    sql(path, "DELETE FROM audit WHERE seq > 40")
    add_row(book, 1.0)
    with records.read(path) as db:
        assert records.audit(db)["why"] == "expected seq 41, found 52: rows are missing"
    book.close()


def test_what_is_added_to_the_audit_of_a_running_engine_shows_and_holds_it_up_no_further(path):
    book = ledger.Ledger(filled(path))
    sql(
        path,
        "INSERT INTO audit SELECT 52, at, cluster, incident, kind, body, hash FROM audit LIMIT 1",
    )
    add_row(book, 1.0)
    with records.read(path) as db:
        assert (records.audit(db)["broken"], records.audit(db)["rows"]) == (52, 51)
    book.close()


def test_what_was_put_before_the_audit_s_beginning_is_not_pruned_away(path):
    book = ledger.Ledger(path)
    for n in range(20):
        add_row(book, float(n))
    book.prune(30.0, 20.0)
    sql(path, "INSERT INTO audit VALUES (2, 1.0, 'runbook', NULL, 'engine', '{}', '00')")
    book.prune(35.0, 20.0)
    with records.read(path) as db:
        told = records.audit(db)
    assert (told["broken"], told["why"]) == (2, "expected no entry before seq 16, found 2")
    book.close()


def test_two_ledgers_lost_in_one_second_are_both_kept(path, monkeypatch):
    monkeypatch.setattr(ledger_file.time, "strftime", lambda _: "20261123T030000")
    filled(path)
    for text in (b"one" * 50, b"two" * 50):
        path.write_bytes(text)
        ledger.Ledger(path).close()
    assert {p.read_bytes() for p in kept(path)} == {b"one" * 50, b"two" * 50}


def test_the_new_ledger_keeps_its_own_log_when_the_old_one_had_one(path):
    filled(path)
    writer = sqlite3.connect(path)  # it stays open, so that the log stays
    writer.execute("UPDATE state SET body = '{'")
    writer.commit()
    book = ledger.Ledger(path)
    assert "state is unreadable" in book.lost
    assert path.with_name(path.name + "-wal").exists()
    assert kept(path)[0].with_name(kept(path)[0].name + "-wal").exists()
    writer.close()
    book.commit(book.timeline.now(), [ClusterState("runbook", serial=3)], [])
    with records.read(path) as db:
        assert records.states(db)["runbook"].serial == 3
    book.close()


# ---------------------------------------------------------------- what the file itself does not show


class Killed(BaseException):
    """As by SIGKILL: nothing of ours runs any more."""


def killed(path, to):
    """What lies there when the engine is killed: its files as they are while it runs. ``to`` must not exist."""
    shutil.copytree(path.parent, to)
    return to / path.name


def wal(path):
    return path.with_name(path.name + "-wal")


def serial(path):
    """Of the cluster's state in a ledger that is not lost."""
    book = ledger.Ledger(path)
    try:
        assert book.lost is None
        return book.clusters()["runbook"].serial
    finally:
        book.close()


def go_on(book, number):
    book.commit(book.timeline.now(), [ClusterState("runbook", serial=number)], [])


def flip_a_byte(log):
    data = bytearray(log.read_bytes())
    data[32 + 24 + 100] ^= 1  # in the first page that it holds
    log.write_bytes(data)


@pytest.fixture
def running(path):
    """An engine that runs: the file holds the tables and some rows, the log what came later."""
    book = ledger.Ledger(filled(path))
    go_on(book, 8)
    go_on(book, 9)
    yield path
    book.close()


def test_what_an_engine_that_was_killed_had_written_is_known(running, tmp_path):
    assert serial(killed(running, tmp_path / "dead")) == 9


@pytest.mark.parametrize(
    "harm",
    [
        flip_a_byte,
        lambda log: os.truncate(log, log.stat().st_size // 3),
        lambda log: os.truncate(log, log.stat().st_size - 1),
        lambda log: log.write_bytes(b""),
        lambda log: log.unlink(),
    ],
    ids=["flipped", "cut", "cut at its end", "empty", "gone"],
)
def test_a_log_that_does_not_hold_all_is_a_lost_ledger(running, tmp_path, harm):
    dead = killed(running, tmp_path / "dead")
    harm(wal(dead))
    assert "its -wal is damaged or gone, or an older copy was put there" in found_lost(dead)


def test_an_older_copy_put_in_its_place_is_a_lost_ledger(path):
    copy = filled(path).read_bytes()
    book = ledger.Ledger(path)
    go_on(book, 8)
    book.close()
    path.write_bytes(copy)
    assert "an older copy was put there" in found_lost(path)


def test_another_ledger_of_the_same_length_put_in_its_place_is_a_lost_ledger(path, tmp_path):
    other = filled(tmp_path / "other" / path.name)
    filled(path).write_bytes(other.read_bytes())
    assert "an older copy was put there" in found_lost(path)


def test_an_engine_killed_between_a_transition_and_its_mark_lost_nothing(
    path, tmp_path, monkeypatch
):
    book = ledger.Ledger(filled(path))
    monkeypatch.setattr(LedgerFile, "write_mark", lambda *_: None)
    go_on(book, 8)
    dead = killed(path, tmp_path / "dead")
    monkeypatch.undo()
    assert serial(dead) == 8
    book.close()


@pytest.mark.parametrize(
    "torn",
    [
        lambda mark: b"",
        lambda mark: b"\xff" * 200,
        lambda mark: mark[: len(mark) // 2],
        lambda mark: mark.replace(b"[", b"[9"),
        lambda mark: mark[:9] + b"[" * 50_000,
    ],
)
def test_a_mark_that_is_torn_says_nothing(path, torn):
    lock = ledger_file.lock_path(filled(path))
    lock.write_bytes(torn(lock.read_bytes()))
    assert serial(path) == 7
    assert serial(path) == 7


def test_a_mark_that_cannot_be_written_fails_no_transition(path, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    book = ledger.Ledger(filled(path))
    monkeypatch.setattr(ledger_file.os, "pwrite", full)
    go_on(book, 8)
    book.close()
    assert serial(path) == 8


class Full(sqlite3.Connection):
    """A database that finds at the end of a transition that it cannot be written."""

    full = False

    def execute(self, sql, *args):
        if Full.full and sql == "COMMIT":
            raise sqlite3.OperationalError("database or disk is full")
        return super().execute(sql, *args)


def test_a_transition_that_is_not_committed_leaves_the_mark_where_it_was_and_the_next_may_come(
    path, monkeypatch
):
    monkeypatch.setattr(sqlite3, "connect", functools.partial(sqlite3.connect, factory=Full))
    book = ledger.Ledger(path)
    before = ledger_file.lock_path(path).read_bytes()
    monkeypatch.setattr(Full, "full", True)
    with pytest.raises(Unavailable, match="is full"):
        add_row(book, 1.0)
    monkeypatch.setattr(Full, "full", False)
    assert ledger_file.lock_path(path).read_bytes() == before
    go_on(book, 8)
    add_row(book, 1.0)
    book.close()
    assert serial(path) == 8


def test_a_ledger_without_heads_is_taken_and_guarded_from_its_first_transition_on(path, tmp_path):
    sql(filled(path), "DELETE FROM meta WHERE key = 'head'")
    ledger_file.lock_path(path).write_bytes(b"")  # as older releases left it
    assert serial(path) == 7
    assert serial(path) == 7
    book = ledger.Ledger(path)
    go_on(book, 8)
    dead = killed(path, tmp_path / "dead")
    book.close()
    wal(dead).unlink()
    assert "its -wal is damaged or gone" in found_lost(dead)


def test_what_was_written_moves_into_the_file_with_each_sign_of_life(running, tmp_path):
    dead = killed(running, tmp_path / "before")
    wal(dead).unlink()
    assert ledger.Ledger(dead).lost
    shutil.copytree(running.parent, tmp_path / "again")
    book = ledger.Ledger(tmp_path / "again" / running.name)
    book.beat()
    dead = killed(book.path, tmp_path / "after")
    book.close()
    wal(dead).unlink()
    assert serial(dead) == 9


# ---------------------------------------------------------------- putting aside


def dies_after(number, monkeypatch):
    """The engine is killed when so many files have been renamed."""
    rename, done = Path.rename, []

    def counted(self, to):
        if len(done) == number:
            raise Killed
        done.append(to)
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", counted)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_an_engine_killed_while_it_puts_a_ledger_aside_is_followed_by_one_that_ends_it(
    running, tmp_path, monkeypatch, number
):
    dead = killed(running, tmp_path / "dead")
    sql(dead, "UPDATE state SET body = '{'")  # closing moves it into the file, and ends the log
    log = b"of the old one" * 100
    wal(dead).write_bytes(log)
    wal(dead).with_name(dead.name + "-shm").write_bytes(b"")
    dies_after(number, monkeypatch)
    with pytest.raises(Killed):
        ledger.Ledger(dead)
    monkeypatch.undo()
    book = ledger.Ledger(dead)
    (old,) = kept(dead)
    assert "state is unreadable" in book.lost
    assert book.lost.endswith(f"; the old file is kept as {old}")
    assert wal(old).read_bytes() == log
    go_on(book, 1)
    book.close()
    assert serial(dead) == 1


def test_an_engine_killed_before_the_new_ledger_has_its_mark_is_followed_by_one_that_takes_it(
    path, monkeypatch
):
    os.truncate(filled(path), 5000)
    write = LedgerFile.write_mark

    def not_the_new_one(lock, mark):
        if not mark.lost:
            raise Killed
        write(lock, mark)

    monkeypatch.setattr(LedgerFile, "write_mark", not_the_new_one)
    with pytest.raises(Killed):
        ledger.Ledger(path)
    monkeypatch.undo()
    book = ledger.Ledger(path)
    assert str(kept(path)[0]) in book.lost  # nothing was decided yet
    assert len(kept(path)) == 1
    go_on(book, 1)
    book.close()
    assert serial(path) == 1


def test_why_a_ledger_was_lost_is_told_when_the_disk_was_full_meanwhile(path, monkeypatch):
    sql(filled(path), "UPDATE state SET body = '{'")
    with_a_full_disk(monkeypatch)
    for _ in range(2):
        with pytest.raises(LedgerError, match="no such function"):
            ledger.Ledger(path)
    monkeypatch.undo()
    book = ledger.Ledger(path)
    assert "state is unreadable" in book.lost
    assert str(kept(path)[0]) in book.lost
    book.close()


def test_a_missing_ledger_names_the_newest_that_was_put_aside(path):
    for day in ("20261121", "20261123", "20261122"):
        filled(path).rename(path.with_name(f"{path.name}.damaged-{day}T030000"))
    path.with_name(f"{path.name}.damaged-20261124T030000-wal").touch()
    book = ledger.Ledger(path)
    assert book.lost == (
        f"{path} is missing; the newest file that was put aside is {path}.damaged-20261123T030000"
    )
    book.close()


def test_a_first_start_on_a_full_disk_loses_nothing(path, monkeypatch):
    with_a_full_disk(monkeypatch)
    with pytest.raises(LedgerError):
        ledger.Ledger(path)
    monkeypatch.undo()
    book = ledger.Ledger(path)
    assert book.lost is None
    book.close()


@pytest.mark.parametrize("trace", [".damaged-20261123T030000", "-wal"])
def test_an_older_release_s_empty_lock_beside_a_trace_of_a_ledger_means_that_there_was_one(
    path, trace
):
    path.parent.mkdir()
    ledger_file.lock_path(path).touch()
    path.with_name(path.name + trace).touch()
    book = ledger.Ledger(path)
    assert f"{path} is missing" in book.lost
    book.close()


# ---------------------------------------------------------------- schemas


STEPS = (
    "CREATE INDEX audit_of ON audit (cluster, seq); DROP INDEX audit_by_cluster;",
    "ALTER TABLE attempts ADD COLUMN claimed INTEGER NOT NULL DEFAULT 0;",
)


def old_body(text):
    """A cluster's state as schemas 1 to 3 had it, without incidents."""
    body = json.loads(text)
    assert not body["incidents"]
    del body["tables"]
    return json.dumps({**body, "ailments": {}, "view": "known"})


def old(path, version=1):
    """A ledger as an older schema had it, with the data of today's."""
    filled(path)
    new, made = path.with_name("new"), path.with_name("old")
    path.rename(new)
    db = sqlite3.connect(made)
    db.executescript(V1 + "".join(STEPS[: version - 1]))
    db.create_function("old_body", 1, old_body)
    db.execute("ATTACH ? AS new", (str(new),))
    for table in ("clock", "meta", "state", "attempts", "incidents", "inbox", "audit"):
        columns = ", ".join(row[1] for row in db.execute(f"PRAGMA table_info({table})"))
        converted = table == "state" and version < 4
        said = columns.replace("body", "old_body(body)") if converted else columns
        db.execute(f"INSERT INTO {table} SELECT {said} FROM new.{table}")
    db.commit()
    db.execute(f"PRAGMA user_version = {version}")
    db.execute("DETACH new")
    db.execute("PRAGMA journal_mode = WAL")
    db.close()
    new.unlink()
    made.rename(path)
    return path


def indexes(path):
    db = sqlite3.connect(path)
    names = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE sql IS NOT NULL")}
    version = db.execute("PRAGMA user_version").fetchone()[0]
    db.close()
    return names, version


@pytest.mark.parametrize("version", range(1, ledger_tables.SCHEMA))
def test_an_older_schema_is_brought_up_with_all_its_data(path, tmp_path, version):
    book = ledger.Ledger(old(path, version))
    assert book.lost is None
    assert book.clusters()["runbook"].serial == 7
    assert [r.id for r in book.waiting()] == ["r1"]
    book.close()
    with records.read(path) as db:
        assert records.audit(db) == {"ok": True, "rows": 51, "from": 1, "to": 51}
        assert len(records.incident(db, "runbook-1")["audit"]) == 51
    fresh = tmp_path / "fresh.sqlite3"
    ledger.Ledger(fresh).close()
    assert indexes(path) == indexes(fresh)
    for table in ("attempts", "clock"):
        assert columns(path, table) == columns(fresh, table)


def columns(path, table):
    db = sqlite3.connect(path)
    found = [row[1:] for row in db.execute(f"PRAGMA table_info({table})")]
    db.close()
    return found


def test_what_an_older_release_had_fired_counts_as_claimed_until_it_is_fired_again(path):
    jid = "20261123030000000000"
    book = ledger.Ledger(old(path, 2))
    fire = Fire(
        Attempt(
            "runbook-9.1", "runbook", "runbook-9", Action.RESTART, ("db1",), 0, 1.0, 1.0, jid=jid
        )
    )
    book.commit(1.0, [], [fire])
    assert records.order(path, jid)["claimed"] == 0
    book.close()
    db = sqlite3.connect(path)
    db.create_function("old_body", 1, old_body)
    db.execute("ALTER TABLE attempts DROP COLUMN claimed")
    db.execute("ALTER TABLE clock DROP COLUMN wall")
    db.execute("UPDATE state SET body = old_body(body)")
    db.execute("PRAGMA user_version = 2")
    db.commit()
    db.close()
    book = ledger.Ledger(path)
    assert (records.order(path, jid)["firing"], records.order(path, jid)["claimed"]) == (1, 1)
    book.commit(2.0, [], [Fire(replace(fire.attempt, firings=2))])
    assert (records.order(path, jid)["firing"], records.order(path, jid)["claimed"]) == (2, 1)
    book.close()


@pytest.mark.parametrize("version", (1, 2))
def test_a_schema_without_claims_gives_no_order_and_says_so(path, version):
    with pytest.raises(LedgerError, match="no such column: claimed"):
        records.order(old(path, version), "20261123030000000000")


def test_an_older_schema_is_read_before_the_engine_brought_it_up(path):
    with records.read(old(path)) as db:
        assert len(records.history(db, "runbook", 0.0, 10)) == 10
    assert indexes(path)[1] == 1


def test_an_older_ledger_that_cannot_be_brought_up_is_lost_and_kept_as_it_was(path):
    sql(old(path), "DROP INDEX audit_by_cluster")
    assert "schema 1 could not be brought to 5: no such index" in found_lost(path)


def test_a_schema_that_nobody_can_bring_up_is_lost(path, monkeypatch):
    monkeypatch.setattr(ledger_tables, "MIGRATIONS", {})
    old(path)
    assert "schema 1 could not be brought to 5" in found_lost(path)


def test_a_newer_schema_is_left_untouched_and_readers_say_so(path):
    sql(filled(path), f"PRAGMA journal_mode=DELETE; PRAGMA user_version={ledger_tables.SCHEMA + 1}")
    before = path.read_bytes()
    for use in (
        lambda: ledger.Ledger(path),
        lambda: inbox.ask(path, Request("r2", "runbook", "highstate")),
        lambda: records.read(path).__enter__(),
    ):
        with pytest.raises(LedgerRefused, match="newer than this release knows"):
            use()
    assert path.read_bytes() == before
    assert not kept(path)


# ---------------------------------------------------------------- rights


def as_nobody(folder, use):
    """What ``use`` raises where rights count: root has them all, so that another user must try."""
    if os.geteuid() != 0:
        return _told(use)
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        os.write(write_end, _told(use).encode()[:4000])
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, encoding="utf-8") as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    return told


def _told(use):
    try:
        use()
    except BaseException as exc:
        return f"{type(exc).__name__}: {exc}"
    return "nothing"


@pytest.fixture
def theirs():
    """A ledger's path in a folder that another user can reach."""
    folder = Path(tempfile.mkdtemp(prefix="selfheal-test-"))
    folder.chmod(0o755)
    (folder / "selfheal").mkdir()
    yield folder / "selfheal" / "ledger.sqlite3"
    for one in (folder, *folder.rglob("*")):
        one.chmod(0o700)
    shutil.rmtree(folder)


def give(path):
    """All of the folder to whoever tries."""
    if os.geteuid() == 0:
        for one in (path.parent, *path.parent.iterdir()):
            os.chown(one, NOBODY, NOBODY)


def test_a_file_that_may_only_be_read_is_one_clear_error(theirs):
    filled(theirs)
    give(theirs)
    theirs.chmod(0o400)
    before = theirs.read_bytes() if os.geteuid() == 0 else None
    told = as_nobody(theirs.parent, lambda: ledger.Ledger(theirs))
    assert told == f"LedgerError: {theirs}: Permission denied"
    assert not kept(theirs)
    assert before is None or theirs.read_bytes() == before


def test_a_folder_that_may_only_be_read_is_one_clear_error(theirs):
    give(theirs)
    theirs.parent.chmod(0o500)
    told = as_nobody(theirs.parent, lambda: ledger.Ledger(theirs))
    assert told == f"LedgerError: {theirs}.lock: Permission denied"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")
@pytest.mark.parametrize("name", ["ledger.sqlite3", "ledger.sqlite3.lock"])
def test_a_file_of_another_user_is_one_clear_error(theirs, name):
    filled(theirs)
    give(theirs)
    foreign = theirs.with_name(name)
    os.chown(foreign, 0, 0)
    told = as_nobody(theirs.parent, lambda: ledger.Ledger(theirs))
    assert told == f"LedgerError: {foreign}: Permission denied"
    assert not kept(theirs)


def test_readers_without_the_right_say_so(theirs):
    filled(theirs)
    theirs.chmod(0o000)
    told = as_nobody(theirs.parent, lambda: records.read(theirs).__enter__())
    assert told == f"LedgerError: {theirs}: unable to open database file"
    told = as_nobody(
        theirs.parent, lambda: inbox.ask(theirs, Request("r2", "runbook", "highstate"))
    )
    assert told == f"LedgerError: {theirs}: unable to open database file"
