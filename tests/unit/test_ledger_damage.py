"""Ledgers that cannot be used as they are: one clear error, or kept aside and started anew. Never a loop of either."""

import os
import shutil
import sqlite3
import tempfile
from pathlib import Path

import pytest

from saltext_selfheal import ledger
from saltext_selfheal.healing.model import Announce
from saltext_selfheal.healing.model import ClusterState
from saltext_selfheal.healing.model import Fault
from saltext_selfheal.healing.model import Incident
from saltext_selfheal.healing.model import Phase
from saltext_selfheal.healing.model import Request
from saltext_selfheal.healing.model import Tell

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


@pytest.fixture
def path(tmp_path):
    return tmp_path / "selfheal" / "ledger.sqlite3"


def filled(path, rows=50):
    """A ledger with something in every table that matters, closed: one file."""
    book = ledger.Ledger(path)
    now = book.timeline.now()
    one = Incident("runbook-1", "runbook", Fault.DEAD, ("db1",), Phase.OPEN, now, now)
    tells = [Tell("view", "runbook", "db1", "x" * 500, "runbook-1") for _ in range(rows)]
    book.commit(now, [ClusterState("runbook", serial=7)], [Announce(one, "open", "")], {})
    book.commit(now, [], tells, {})
    ledger.ask(path, Request("r1", "runbook", "highstate"))
    book.close()
    return path


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
    book.commit(book.timeline.now(), [ClusterState("runbook", serial=1)], [], {})
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


def test_a_full_disk_at_the_first_start_leaves_nothing_behind(path, monkeypatch):
    tables = ledger._TABLES
    monkeypatch.setattr(ledger, "_TABLES", "SELECT no_such_function();")
    for _ in range(3):
        with pytest.raises(ledger.LedgerError, match=str(path)):
            ledger.Ledger(path)
        assert sorted(p.name for p in path.parent.iterdir()) == [f"{path.name}.lock"]
    monkeypatch.setattr(ledger, "_TABLES", tables)
    ledger.Ledger(path).close()


def test_readers_of_an_empty_file_are_told_so(path):
    filled(path).write_bytes(b"")
    with pytest.raises(ledger.LedgerError, match="empty or unfinished"), ledger.read(path):
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
    ],
)
def test_what_no_engine_wrote_is_lost_and_named(path, harm, told):
    sql(filled(path), harm)
    assert told in found_lost(path)


def test_only_the_newest_links_are_looked_at_when_it_opens(path, monkeypatch):
    monkeypatch.setattr(ledger, "LINKS_AT_START", 20)
    sql(filled(path), "UPDATE audit SET body = '{}' WHERE seq = 10")
    ledger.Ledger(path).close()
    with ledger.read(path) as db:
        told = ledger.audit(db)
    assert (told["ok"], told["rows"], told["broken"]) == (False, 9, 10)
    assert "expected hash" in told["why"]
    sql(path, "UPDATE audit SET body = '{}' WHERE seq = 45")
    assert "broken at seq 45" in found_lost(path)


def test_a_chain_without_its_beginning_is_not_proven(path):
    sql(filled(path), "INSERT INTO meta VALUES ('anchor', 'x')")
    with ledger.read(path) as db:
        told = ledger.audit(db)
    assert told == {
        "ok": False, "rows": 0, "from": None, "to": None, "broken": 0,
        "why": "the audit's anchor is unreadable: 'x'",
    }  # fmt: skip


def test_two_ledgers_lost_in_one_second_are_both_kept(path, monkeypatch):
    monkeypatch.setattr(ledger.time, "strftime", lambda _: "20261123T030000")
    for text in (b"one" * 50, b"two" * 50):
        path.parent.mkdir(exist_ok=True)
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
    book.commit(book.timeline.now(), [ClusterState("runbook", serial=3)], [], {})
    with ledger.read(path) as db:
        assert ledger.states(db)["runbook"].serial == 3
    book.close()


# ---------------------------------------------------------------- schemas


def old(path):
    """A ledger as schema 1 had it, with the data of today's."""
    filled(path)
    new, made = path.with_name("new"), path.with_name("old")
    path.rename(new)
    db = sqlite3.connect(made)
    db.executescript(V1)
    db.execute("ATTACH ? AS new", (str(new),))
    for table in ("clock", "meta", "state", "attempts", "incidents", "inbox", "audit"):
        db.execute(f"INSERT INTO {table} SELECT * FROM new.{table}")
    db.commit()
    db.execute("PRAGMA user_version = 1")
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


def test_an_older_schema_is_brought_up_with_all_its_data(path, tmp_path):
    book = ledger.Ledger(old(path))
    assert book.lost is None
    assert book.clusters()["runbook"].serial == 7
    assert [r.id for r in book.waiting()] == ["r1"]
    book.close()
    with ledger.read(path) as db:
        assert ledger.audit(db) == {"ok": True, "rows": 51, "from": 1, "to": 51}
        assert len(ledger.incident(db, "runbook-1")["audit"]) == 51
    fresh = tmp_path / "fresh.sqlite3"
    ledger.Ledger(fresh).close()
    assert indexes(path) == indexes(fresh)


def test_an_older_schema_is_read_before_the_engine_brought_it_up(path):
    with ledger.read(old(path)) as db:
        assert len(ledger.history(db, "runbook", 0.0, 10)) == 10
    assert indexes(path)[1] == 1


def test_an_older_ledger_that_cannot_be_brought_up_is_lost_and_kept_as_it_was(path):
    sql(old(path), "DROP INDEX audit_by_cluster")
    assert "schema 1 could not be brought to 2: no such index" in found_lost(path)


def test_a_schema_that_nobody_can_bring_up_is_lost(path, monkeypatch):
    monkeypatch.setattr(ledger, "_MIGRATIONS", {})
    old(path)
    assert "schema 1 could not be brought to 2" in found_lost(path)


def test_a_newer_schema_is_left_untouched_and_readers_say_so(path):
    sql(filled(path), f"PRAGMA journal_mode=DELETE; PRAGMA user_version={ledger.SCHEMA + 1}")
    before = path.read_bytes()
    for use in (
        lambda: ledger.Ledger(path),
        lambda: ledger.ask(path, Request("r2", "runbook", "highstate")),
        lambda: ledger.read(path).__enter__(),
    ):
        with pytest.raises(ledger.LedgerRefused, match="newer than this release knows"):
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
    told = as_nobody(theirs.parent, lambda: ledger.read(theirs).__enter__())
    assert told == f"LedgerError: {theirs}: unable to open database file"
    told = as_nobody(
        theirs.parent, lambda: ledger.ask(theirs, Request("r2", "runbook", "highstate"))
    )
    assert told == f"LedgerError: {theirs}: unable to open database file"
