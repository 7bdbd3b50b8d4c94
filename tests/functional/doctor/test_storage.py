"""What the doctor says of ledger, job cache and the minions' keys."""

import contextlib
import shutil
import sqlite3
from pathlib import Path

import pytest

from saltext_selfheal.ledger import file as ledger_file
from saltext_selfheal.ledger.tables import SCHEMA
from tests.functional.doctor.conftest import KEY, lines, says, settings


def test_without_a_ledger(opts):
    says(lines("ledger", opts), "warn", "there is no ")


def test_a_ledger_that_others_could_write(opts, engine, path):
    path.parent.chmod(0o777)
    says(lines("ledger", opts), "fail", f"{path.parent} has mode 0777")
    path.chmod(0o640)
    says(lines("ledger", opts), "warn", f"{path} has mode 0640: others can read it")
    path.chmod(0o660)
    says(lines("ledger", opts), "fail", f"{path} has mode 0660")


def test_a_ledger_of_somebody_else(opts, engine):
    opts["user"] = "nobody"
    says(lines("ledger", opts), "fail", "and the master runs as nobody")


@pytest.mark.parametrize(
    ("free", "level"), [(9 << 20, "fail"), (11 << 20, "warn"), (101 << 20, "ok")]
)
def test_room_for_the_ledger(opts, engine, monkeypatch, free, level):
    class Usage:
        pass

    Usage.free = free
    monkeypatch.setattr(shutil, "disk_usage", lambda where: Usage)
    says(lines("ledger", opts), level, "MiB are free" if level != "ok" else "entries hold")


def test_a_ledger_on_a_network(opts, engine, monkeypatch):
    monkeypatch.setattr(ledger_file, "file_system", lambda where: "nfs4")
    says(lines("ledger", opts), "fail", "is on nfs4")


def test_ledgers_that_were_put_aside(opts, engine, path):
    kept = path.with_name(f"{path.name}.damaged-20260101T000000")
    kept.touch()
    kept.with_name(f"{kept.name}-wal").touch()
    says(lines("ledger", opts), "warn", f"put aside: {kept}\n")


def sql(path, statement):
    """Somebody else writes to the ledger that the engine holds."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(statement)


def test_a_ledger_of_another_release(opts, engine, path):
    sql(path, "PRAGMA user_version=1")
    says(lines("ledger", opts), "warn", f"has schema 1, this release writes {SCHEMA}")
    sql(path, "PRAGMA user_version=99")
    says(lines("ledger", opts), "fail", "schema 99 is newer than this release knows")


def test_a_chain_that_does_not_hold(opts, engine, path):
    sql(path, "UPDATE audit SET cluster = 'web'")
    says(lines("ledger", opts), "fail", "the chain of its audit does not hold at entry 1")


@pytest.mark.parametrize(
    ("change", "level", "told"),
    [
        ({"job_cache": False}, "fail", "`job_cache: false`"),
        ({"job_cache": False, "ext_job_cache": "local_cache"}, "ok", "read from local_cache"),
        ({"master_job_cache": "nosuch"}, "fail", "nosuch has no get_jid and no get_load"),
        ({"ext_job_cache": "smtp"}, "fail", "the returner smtp has no get_jid and no get_load"),
        ({"keep_jobs_seconds": 600}, "warn", "jobs are kept for 600 s only"),
        ({"keep_jobs_seconds": 0}, "ok", "read from local_cache"),
    ],
)
def test_where_results_are_read(opts, change, level, told):
    opts.update(change)
    says(lines("job cache", opts), level, told)


@pytest.mark.parametrize(
    ("folder", "mode", "level", "told"),
    [
        (None, "auto", "fail", "db2 has no accepted key: an action"),
        (None, "shadow", "warn", "db2 has no accepted key: an action"),
        ("minions_pre", "auto", "fail", "db2 has no accepted key, it waits to be accepted"),
        ("minions_rejected", "auto", "fail", "db2 has no accepted key, it is rejected"),
        ("minions_denied", "auto", "fail", "db2 has no accepted key, it is denied"),
    ],
)
def test_a_node_without_an_accepted_key(opts, folder, mode, level, told):
    keys = Path(opts["pki_dir"])
    (keys / "minions" / "db2").unlink()
    if folder:
        (keys / folder).mkdir(exist_ok=True)
        (keys / folder / "db2").write_text(KEY)
    opts["engines"] = [{"selfheal": settings(mode=mode)}]
    found = lines("minions", opts)
    says(found, level, told)
    says(found, "ok", "1 nodes have an accepted key")
