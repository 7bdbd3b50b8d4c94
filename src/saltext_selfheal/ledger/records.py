"""Reads the ledger, for the runners, the doctor and the reactor's ``attempt()``, which only read it.

`read` opens the ledger, and the other functions query it. The engine reads the remembered states in the same way.
Nothing is written here: requests to the engine go through `inbox`, and a firing is claimed in `claims`. No Salt here,
no decision.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from ..healing.model import ClusterState
from . import inbox, older, timeline
from .chain import Chain, prove
from .file import LedgerError
from .tables import connect, damaged, refuse_newer, schema

#: An attempt that was fired longer ago than this must not be published any more.
FIRED_WITHIN_S = 60.0

CLUSTER = TypeAdapter(ClusterState)  #: reads and writes a cluster's state, as the ledger holds it
_COLUMNS = ("seq", "at", "cluster", "incident", "kind")
_HISTORY = (
    "SELECT seq, at, cluster, incident, kind, body FROM audit WHERE {} ORDER BY seq {} LIMIT ?"
)


@contextmanager
def read(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the ledger read-only. Raises LedgerError if there is none or it cannot be read."""
    if not path.exists():
        raise LedgerError(f"{path}: no ledger; the engine has not run yet")
    db = None
    try:
        db = connect(path, "ro")
        refuse_newer(path, db)
        if not schema(db):
            raise LedgerError(f"{path}: empty or unfinished; the engine's next start puts it aside")
        yield db
    except sqlite3.Error as exc:
        raise LedgerError(f"{path}: {exc}") from exc
    finally:
        if db is not None:
            db.close()


def order(path: Path, jid: str) -> dict[str, Any] | None:
    """What the job of this JID may do. None unless the engine fired it less than a minute ago and it has not ended.

    ``firing`` says how often it was fired, and ``claimed`` which of these firings was claimed last; 0 = none.
    """
    with read(path) as db:
        row = db.execute(
            "SELECT cluster, action, minions, args, fired_boot, fired_boottime, firings, claimed FROM attempts"
            " WHERE jid = ? AND ended_at IS NULL",
            (jid,),
        ).fetchone()
    if row is None or row["fired_boot"] != timeline.boot_id():
        return None
    if not 0 <= timeline.boottime() - row["fired_boottime"] < FIRED_WITHIN_S:
        return None
    return {
        "jid": jid,
        "cluster": row["cluster"],
        "action": row["action"],
        "minions": json.loads(row["minions"]),
        "args": json.loads(row["args"]),
        "firing": row["firings"],
        "claimed": row["claimed"],
    }


def states(db: sqlite3.Connection) -> dict[str, ClusterState]:
    """What the engine remembers of each cluster."""
    rows = db.execute("SELECT cluster, body FROM state")
    modern = older.body_of_4 if schema(db) < 4 else str
    try:
        return {row["cluster"]: CLUSTER.validate_json(modern(row["body"])) for row in rows}
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise sqlite3.DatabaseError(f"state is unreadable: {str(exc).splitlines()[0]}") from exc


def _first_since(db: sqlite3.Connection, since: float) -> int:
    """Seq of the first audit row at or after this time. Found by halving, because times in the audit never decrease."""
    low, high = db.execute(
        "SELECT (SELECT min(seq) FROM audit), (SELECT max(seq) FROM audit)"
    ).fetchone()
    if low is None:
        return 0
    high += 1
    while low < high:
        middle = (low + high) // 2
        row = db.execute(
            "SELECT seq, at FROM audit WHERE seq >= ? ORDER BY seq LIMIT 1", (middle,)
        ).fetchone()
        if row is not None and row["at"] < since:
            low = row["seq"] + 1
        else:
            high = middle
    return int(low)


def _rows(rows: Iterable[sqlite3.Row]) -> list[dict[str, Any]]:
    return [{**_body(row["body"]), **{k: row[k] for k in _COLUMNS}} for row in rows]


def _body(text: str) -> dict[str, Any]:
    """The body of an audit row. If it is damaged, a substitute that says so."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    told = {"damaged": text[:200], "why": "see salt-run selfheal.audit"}
    return found if isinstance(found, dict) else told


def history(
    db: sqlite3.Connection, cluster: str | None, since: float, limit: int
) -> list[dict[str, Any]]:
    """Audit rows, newest first."""
    where, values = "seq >= ?", [_first_since(db, since), limit]
    if cluster is not None:
        where, values = f"cluster = ? AND {where}", [cluster, *values]  # type: ignore[list-item]
    return _rows(db.execute(_HISTORY.format(where, "DESC"), values))


def incident(db: sqlite3.Connection, name: str) -> dict[str, Any] | None:
    """All about one incident: its row, attempts, audit rows (oldest first), and its requests with their answers.

    None if there is no such incident.
    """
    row = db.execute("SELECT * FROM incidents WHERE id = ?", (name,)).fetchone()
    if row is None:
        return None
    told = {**row, "nodes": json.loads(row["nodes"])}
    attempts = db.execute(
        "SELECT id, jid, action, minions, args, firings, decided_at, ended_at, outcome, why FROM attempts"
        " WHERE incident = ? ORDER BY decided_at, id",
        (name,),
    )
    told["attempts"] = [
        {**one, "minions": json.loads(one["minions"]), "args": json.loads(one["args"])}
        for one in map(dict, attempts)
    ]
    told["audit"] = _rows(db.execute(_HISTORY.format("incident = ?", "ASC"), (name, -1)))
    told["requests"] = {}
    for one in told["audit"]:
        asked = one.get(one["kind"]) if one["kind"] in inbox.KINDS else None
        answered = inbox.answer(db, asked) if asked else None
        if answered:
            told["requests"][asked] = answered
    return told


def knows(db: sqlite3.Connection, name: str) -> bool:
    """Whether there is, or was, an incident with this id."""
    return db.execute("SELECT 1 FROM incidents WHERE id = ?", (name,)).fetchone() is not None


def latest_incidents(db: sqlite3.Connection, count: int, only_open: bool = False) -> list[str]:
    """Ids of the newest incidents, newest first."""
    where = "WHERE ended_at IS NULL" if only_open else ""
    rows = db.execute(f"SELECT id FROM incidents {where} ORDER BY opened_at DESC LIMIT ?", (count,))
    return [row["id"] for row in rows]


def audit(db: sqlite3.Connection, newest: int | None = None) -> dict[str, Any]:
    """Prove the audit's chain, or only its newest links, and that no entry lies before or after the chain."""
    db.execute("BEGIN")  # so that anchor, rows and head are read as they were at one moment
    try:
        chain = prove(db, newest)
    except sqlite3.DatabaseError as exc:
        if not damaged(exc):
            raise
        chain = Chain(0, None, None, 0, str(exc))  # not even the beginning of the chain can be read
    finally:
        db.execute("ROLLBACK")
    told: dict[str, Any] = {
        "ok": chain.broken is None,
        "rows": chain.rows,
        "from": chain.first,
        "to": chain.last,
    }
    return told if told["ok"] else {**told, "broken": chain.broken, "why": chain.why}
