"""Only what is the healer's own is touched, and what happens to it while the engine runs is noticed."""

import os
import shutil
import socket
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from saltext_selfheal.healing.events import Request
from saltext_selfheal.healing.model import ClusterState, News, Tell
from saltext_selfheal.ledger import inbox, records
from saltext_selfheal.ledger import writer as ledger
from saltext_selfheal.ledger.file import LedgerRefused, Unavailable, lock_path


@pytest.fixture
def running(path):
    """An engine's ledger with something in it."""
    book = ledger.Ledger(path)
    go_on(book, 1)
    book.beat()
    yield book
    book.close()


def go_on(book, number):
    book.commit(book.timeline.now(), [ClusterState("runbook", serial=number)], [])


def everything(folder):
    """Name → what it is: kind, mode, content, where a link leads."""
    found = {}
    for one in sorted(folder.rglob("*")):
        info = one.lstat()
        regular = stat.S_ISREG(info.st_mode)
        content = one.read_bytes() if regular else one.readlink() if one.is_symlink() else None
        found[one.name] = (info.st_mode, info.st_ino, content)
    return found


def a_socket(path):
    with socket.socket(socket.AF_UNIX) as made:
        here = Path.cwd()
        os.chdir(path.parent)  # its whole path may be too long for a socket's name
        try:
            made.bind(path.name)
        finally:
            os.chdir(here)


def a_link(path):
    target = path.with_name("target")
    target.write_bytes(b"somebody's")
    target.chmod(0o644)
    path.symlink_to(target)


def a_database(path, tables=("users",), rows=3):
    with closing(sqlite3.connect(path)) as db:
        for table in tables:
            db.execute(f"CREATE TABLE {table} (name TEXT)")
            db.executemany(f"INSERT INTO {table} VALUES (?)", [(f"n{i}",) for i in range(rows)])
        db.commit()
    path.chmod(0o644)


FOREIGN = {
    "a file that begins 'root:x:0:0:root:'": lambda p: p.write_bytes(b"root:x:0:0:root:/root:/bin/sh\n"),
    "a file that begins '\\x00\\x00": lambda p: p.write_bytes(bytes(8192)),
    "a file that begins 'x'": lambda p: p.write_bytes(b"x"),
    "a database with the tables users": a_database,
    "a database with the tables a, b": lambda p: a_database(p, ("a", "b")),
    "a database with the tables inbox, meta, state": lambda p: a_database(p, ("meta", "state", "inbox")),
    "a database that cannot be read": lambda p: p.write_bytes(b"SQLite format 3\0" + os.urandom(5000)),
    "a directory": lambda p: p.mkdir(),
    "a symbolic link": a_link,
    "a named pipe": lambda p: os.mkfifo(p),
    "a socket": a_socket,
}  # fmt: skip


@pytest.mark.parametrize("told", FOREIGN)
def test_what_is_not_the_healers_is_refused_by_name_and_left_as_it_is(path, told):
    path.parent.mkdir()
    FOREIGN[told](path)
    before = everything(path.parent)
    for _ in range(2):  # nothing that the first start leaves makes it ours
        with pytest.raises(LedgerRefused) as refused:
            ledger.Ledger(path)
        assert str(refused.value).startswith(f"{path}: found {told}")
        assert "set ledger.path" in str(refused.value)
    assert everything(path.parent) == before


@pytest.mark.parametrize("lock", [b"", b"4711\n"], ids=["empty", "pid"])
def test_a_foreign_file_beside_a_foreign_lock_is_refused_too(path, lock):
    path.parent.mkdir()
    a_database(path)
    lock_path(path).write_bytes(lock)
    before = everything(path.parent)
    with pytest.raises(LedgerRefused):
        ledger.Ledger(path)
    assert everything(path.parent) == before


@pytest.mark.parametrize("name", ["", "-wal", "-shm", "-journal", ".lock"])
@pytest.mark.parametrize("kind", ["a directory", "a symbolic link", "a named pipe", "a socket"])
def test_what_stands_where_a_part_of_the_ledger_belongs_is_named(path, name, kind):
    path.parent.mkdir()
    part = path.with_name(path.name + name)
    FOREIGN[kind](part)
    before = everything(path.parent)
    with pytest.raises(LedgerRefused) as refused:
        ledger.Ledger(path)
    assert str(refused.value).startswith(f"{part}: found {kind}")
    assert everything(path.parent) == before


def test_a_lock_file_of_somebody_elses_is_not_written_over(path):
    path.parent.mkdir()
    lock_path(path).write_bytes(b"pid 4711 host db1\n")
    with pytest.raises(LedgerRefused, match=r"\.lock: found a file that begins 'pid 4711"):
        ledger.Ledger(path)
    assert lock_path(path).read_bytes() == b"pid 4711 host db1\n"


def test_a_device_is_refused(path):
    path.parent.mkdir()
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except OSError:
        pytest.skip("only root may make a device node")
    before = path.lstat()
    with pytest.raises(LedgerRefused, match="found a character device"):
        ledger.Ledger(path)
    assert (path.lstat().st_mode, path.lstat().st_ino) == (before.st_mode, before.st_ino)


def test_a_file_without_anything_in_it_is_taken(path):
    path.parent.mkdir()
    path.touch()
    ledger.Ledger(path).close()


def test_a_ledger_whose_lock_file_is_gone_is_still_ours(running, path):
    running.close()
    lock_path(path).unlink()
    again = ledger.Ledger(path)
    assert again.lost is None
    assert again.clusters()["runbook"].serial == 1


# ---------------------------------------------------------------- while the engine runs


def away(path):
    path.rename(path.with_name("elsewhere"))


def replaced(path):
    shutil.copy2(path, path.with_name("copy"))
    path.with_name("copy").replace(path)


def a_folder_instead(path):
    away(path)
    path.mkdir()


def a_link_instead(path):
    away(path)
    path.symlink_to("elsewhere")


@pytest.mark.parametrize("harm", [away, replaced, a_folder_instead, a_link_instead])
@pytest.mark.parametrize("name", ["", "-wal", "-shm", ".lock"])
def test_nothing_is_written_where_nobody_would_find_it(running, path, harm, name):
    part = path.with_name(path.name + name)
    harm(part)
    with pytest.raises(Unavailable, match="while the engine runs; nothing is done until") as told:
        go_on(running, 2)
    assert str(told.value).startswith(str(part))
    assert running.clusters()["runbook"].serial == 1
    with pytest.raises(Unavailable):
        running.beat()


def test_what_is_put_back_is_taken_again(running, path):
    away(path)
    with pytest.raises(Unavailable):
        go_on(running, 2)
    path.with_name("elsewhere").rename(path)
    go_on(running, 3)
    running.beat()
    with records.read(path) as db:
        assert records.states(db)["runbook"].serial == 3


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_ledger_that_is_cut_while_the_engine_runs_is_noticed_at_once(running, path, share):
    os.truncate(path, int(path.stat().st_size * share))
    with pytest.raises(Unavailable, match="was cut from"):
        go_on(running, 2)


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda data: bytes(len(data)), "was damaged while the engine runs"),
        (lambda data: os.urandom(len(data)), "was damaged while the engine runs"),
        (lambda data: b"\0" * 4096 + data[4096:], "was damaged while the engine runs"),
    ],
)
def test_a_ledger_that_is_written_over_is_noticed_with_the_next_sign_of_life(
    running, path, harm, told
):
    data = harm(path.read_bytes())
    with path.open("r+b") as file:
        file.write(data)
    with pytest.raises(Unavailable, match=told):
        running.beat()
    with pytest.raises(Unavailable, match=told):
        go_on(running, 2)


def test_an_older_copy_written_over_it_is_noticed(running, path):
    old = path.read_bytes()
    for number in range(2, 50):
        tell = Tell(News.VIEW, "runbook", "db1", "x" * 2000, "runbook-1")
        running.commit(running.timeline.now(), [ClusterState("runbook", serial=number)], [tell])
    running.beat()
    with path.open("r+b") as file:
        file.write(old)
    with pytest.raises(Unavailable, match=r"while the engine runs|something else than was written"):
        running.beat()


# ---------------------------------------------------------------- numbers that nothing can follow


@pytest.mark.parametrize(
    "harm",
    [
        "INSERT INTO inbox (seq, key, kind, body, put_at) VALUES (9223372036854775807, 'k', 'request', '{}', 1.0)",
        "INSERT INTO inbox (seq, key, kind, body, put_at, answered_at) VALUES"
        " (9223372036854775806, 'k', 'x', x'00', 1.0, 2.0), (9223372036854775807, 'l', 'x', '', 1.0, NULL)",
        "UPDATE sqlite_sequence SET seq = 9223372036854775807 WHERE name = 'inbox'",
        "UPDATE sqlite_sequence SET seq = 'many' WHERE name = 'inbox'",
        "UPDATE inbox SET seq = 9223372036854775807",
    ],
)
def test_an_absurd_number_in_the_inbox_stops_nobody(running, path, harm):
    inbox.ask(path, Request("r0", "runbook", "highstate"))
    with closing(sqlite3.connect(path)) as db:
        db.executescript(harm)
    assert [one.id for one in running.waiting()] == ["r0"]
    inbox.ask(path, Request("r1", "runbook", "highstate"))
    assert [one.id for one in running.waiting()] == ["r0", "r1"]


def test_an_absurd_number_in_the_history_stops_nobody(running, path):
    with closing(sqlite3.connect(path)) as db:
        db.execute(
            "INSERT INTO audit VALUES (9223372036854775807, 1.0, 'runbook', NULL, 'engine', '{}', 'x')"
        )
        db.commit()
    for number in (1, 2):
        tell = Tell(News.VIEW, "runbook", "db1", f"news {number}", "runbook-1")
        running.commit(running.timeline.now(), [], [tell])
    with closing(sqlite3.connect(path)) as db:
        numbers = [seq for (seq,) in db.execute("SELECT seq FROM audit ORDER BY seq")]
    assert numbers == [1, 2, 9223372036854775807]
