"""The chain of the audit's entries. The hash of each entry seals the entry and all entries before it.

Here is how a link is made, where the chain begins and ends, and the proof that it holds. Nothing is written here:
`writer` writes the entries, and `records` reads them.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from dataclasses import dataclass

from pydantic import TypeAdapter

from .file import Count, Head
from .tables import damaged

#: The engine's start proves only this many links; `records.audit` proves all of them.
LINKS_AT_START = 1000
ANCHOR = "anchor"  #: in meta: seq and hash of the last audit row that was pruned
HEAD = "head"  #: in meta: how many transitions there were, seq and hash of the audit's last row

_ANCHORED = TypeAdapter(tuple[Count, str])
_HEADED = TypeAdapter(tuple[Count, Count, str])


def link_hash(
    before: str, seq: int, at: float, cluster: str, incident: str | None, kind: str, text: str
) -> str:
    """One link of the audit's chain."""
    joined = json.dumps([before, seq, at, cluster, incident, kind, text], ensure_ascii=False)
    return hashlib.sha256(joined.encode()).hexdigest()


@dataclass(frozen=True)
class Chain:
    """How far the audit's chain holds. ``broken`` is the first seq that does not fit, ``why`` says what was found."""

    rows: int
    first: int | None
    last: int | None
    broken: int | None = None
    why: str = ""


def read_anchor(db: sqlite3.Connection) -> tuple[int, str]:
    """Seq and hash of the last row that was pruned. The first row that is left continues the chain from there."""
    row = db.execute("SELECT value FROM meta WHERE key = ?", (ANCHOR,)).fetchone()
    if row is None:
        return 0, ""
    try:
        return _ANCHORED.validate_json(row["value"])
    except ValueError as exc:
        found = row["value"][:100]
        raise sqlite3.DatabaseError(f"the audit's anchor is unreadable: {found!r}") from exc


def read_head(db: sqlite3.Connection) -> Head:
    """Where the ledger says that it ends. A ledger of an older release does not say it; then its last row counts."""
    row = db.execute("SELECT value FROM meta WHERE key = ?", (HEAD,)).fetchone()
    if row is None:
        last = db.execute("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1").fetchone()
        return Head(0, *(last or read_anchor(db)))
    try:
        return Head(*_HEADED.validate_json(row["value"]))
    except ValueError as exc:
        found = row["value"][:100]
        raise sqlite3.DatabaseError(f"the audit's head is unreadable: {found!r}") from exc


def check(db: sqlite3.Connection) -> None:
    """Raises sqlite3.DatabaseError if the newest links of the chain are broken."""
    chain = prove(db, LINKS_AT_START)
    if chain.broken is not None:
        raise sqlite3.DatabaseError(
            f"the audit's chain is broken at seq {chain.broken}: {chain.why}"
        )


def prove(db: sqlite3.Connection, newest: int | None = None) -> Chain:
    """Prove the chain from its anchor to its head, or only its newest links. Only one row is in memory at a time."""
    anchor, link = read_anchor(db)
    stray = db.execute("SELECT min(seq) FROM audit").fetchone()[0]
    if stray is not None and stray <= anchor:
        why = f"expected no entry before seq {anchor + 1}, found {stray}"
        return Chain(0, None, None, stray, why)
    last = anchor
    if newest is not None:
        start = db.execute(
            "SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1 OFFSET ?", (newest,)
        ).fetchone()
        last, link = start or (last, link)
    rows, first = 0, None
    try:
        for row in db.execute("SELECT * FROM audit WHERE seq > ? ORDER BY seq", (last,)):
            broken, expected = _link(row, last, link)
            if broken:
                return Chain(rows, first, last if rows else None, last + 1, broken)
            last, link, rows = row["seq"], expected, rows + 1
            first = last if first is None else first
    except sqlite3.DatabaseError as exc:
        if not damaged(exc):
            raise
        why = f"expected a row, found a damaged file: {exc}"
        return Chain(rows, first, last if rows else None, last + 1, why)
    broken_at, why = _end(read_head(db), last, link)
    return Chain(rows, first, last if rows else None, broken_at, why)


def _link(row: sqlite3.Row, last: int, link: str) -> tuple[str, str]:
    """What is wrong with this row, empty if nothing is; and the hash it should have.

    ``last`` and ``link`` are seq and hash of the row before it.
    """
    if row["seq"] != last + 1:
        return f"expected seq {last + 1}, found {row['seq']}: rows are missing", ""
    values = (row["at"], row["cluster"], row["incident"], row["kind"], row["body"])
    try:
        expected = link_hash(link, row["seq"], *values)
    except (TypeError, ValueError) as exc:
        return f"expected text and numbers, found something else: {exc}", ""
    if row["hash"] != expected:
        return f"expected hash {expected}, found {row['hash']!r}", ""
    return "", expected


def _end(head: Head, last: int, link: str) -> tuple[int | None, str]:
    """Where and why the chain does not end at its head. ``last`` and ``link`` are seq and hash of its last row."""
    if last < head.seq:
        return last + 1, f"expected entries up to seq {head.seq}, found none from {last + 1} on"
    if last > head.seq:
        return head.seq + 1, f"expected the end at seq {head.seq}, found it at {last}"
    if link != head.link:
        return last, f"expected hash {head.link} at the end, found {link!r}"
    return None, ""
