"""The ledger's tables: their schema, how an older schema is migrated, and how SQLite opens the file.

A change of the schema begins here. The meaning of the rows is not known here: `writer` writes them, and `inbox`,
`records` and `chain` read them.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from . import older
from .file import LedgerRefused

SCHEMA = 5

_TABLES = """
CREATE TABLE clock (one INTEGER PRIMARY KEY CHECK (one = 1), boot TEXT, boottime REAL, timeline REAL, wall REAL);
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE state (cluster TEXT PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE attempts (
    id TEXT PRIMARY KEY, jid TEXT UNIQUE NOT NULL, cluster TEXT NOT NULL, incident TEXT NOT NULL,
    action TEXT NOT NULL, minions TEXT NOT NULL, args TEXT NOT NULL, firings INTEGER NOT NULL,
    decided_at REAL NOT NULL, fired_boot TEXT NOT NULL, fired_boottime REAL NOT NULL,
    ended_at REAL, outcome TEXT, why TEXT, claimed INTEGER NOT NULL DEFAULT 0);
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
CREATE INDEX audit_of ON audit (cluster, seq);
CREATE INDEX audit_by_incident ON audit (incident, seq);
"""

#: For each older schema, the SQL that brings a ledger to the next schema.
MIGRATIONS = {
    1: "CREATE INDEX audit_of ON audit (cluster, seq); DROP INDEX audit_by_cluster;",
    # What the older release had fired may be published already, so it counts as claimed. If it is not published, the
    # engine fires it again.
    2: "ALTER TABLE attempts ADD COLUMN claimed INTEGER NOT NULL DEFAULT 0; UPDATE attempts SET claimed = firings;",
    3: "UPDATE state SET body = body_of_4(body);",
    4: "ALTER TABLE clock ADD COLUMN wall REAL;",
}

#: Tables that stay small enough to be checked whole at the start. The audit is not among them: it may be large.
SMALL = ("state", "meta", "clock", "attempts", "incidents", "inbox")

#: Words in SQLite's messages about errors for which the file itself is not to blame.
_OUTSIDE = (
    "locked", "permission denied", "aborted", "readonly", "interrupted", "I/O error", "is full", "unable to open",
    "locking protocol", "schema has changed",
)  # fmt: skip


def connect(path: Path, mode: str, more: str = "") -> sqlite3.Connection:
    """Open the file. ``mode`` is ``ro`` or ``rw``; neither makes a file. ``more`` goes into SQLite's URI.

    Raises sqlite3.Error.
    """
    db = sqlite3.connect(
        f"{path.as_uri()}?mode={mode}{more}", uri=True, timeout=5.0, isolation_level=None
    )
    db.row_factory = sqlite3.Row
    return db


def damaged(exc: sqlite3.DatabaseError) -> bool:
    """Whether this error means that the file's content is damaged, and not that something around it failed."""
    outside = any(word in str(exc) for word in _OUTSIDE)
    return not (isinstance(exc, sqlite3.OperationalError) and outside)


def schema(db: sqlite3.Connection) -> int:
    """The number of the schema that the file has. `SCHEMA` is the one of this release."""
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def check_tables(db: sqlite3.Connection) -> None:
    """Raises sqlite3.DatabaseError if one of the tables that stay small is damaged."""
    for table in SMALL:
        verdict = db.execute(f"PRAGMA quick_check({table})").fetchone()[0]
        if verdict != "ok":
            found = verdict.splitlines()[-1]  # the first line is only SQLite's heading
            raise sqlite3.DatabaseError(f"table {table}: {found}")


def refuse_newer(path: Path, db: sqlite3.Connection) -> None:
    """Raises LedgerRefused if a later release wrote this ledger."""
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA:
        raise LedgerRefused(
            f"{path}: schema {version} is newer than this release knows ({SCHEMA}); "
            "install the release that wrote it"
        )


def create(db: sqlite3.Connection, first: str) -> None:
    """Make the tables and run the statements in ``first``, all in one transaction."""
    db.executescript(f"BEGIN; {_TABLES} {first} PRAGMA user_version={SCHEMA}; COMMIT;")


def migrate(db: sqlite3.Connection, version: int) -> None:
    """Bring a ledger from this schema to `SCHEMA`, or leave it unchanged. Raises sqlite3.DatabaseError."""
    try:
        db.create_function("body_of_4", 1, older.body_of_4, deterministic=True)
        script = " ".join(MIGRATIONS[step] for step in range(version, SCHEMA))
        db.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version={SCHEMA}; COMMIT;")
    except (KeyError, sqlite3.DatabaseError) as exc:
        if isinstance(exc, sqlite3.DatabaseError) and not damaged(exc):
            raise
        raise sqlite3.DatabaseError(
            f"schema {version} could not be brought to {SCHEMA}: {exc}"
        ) from exc
