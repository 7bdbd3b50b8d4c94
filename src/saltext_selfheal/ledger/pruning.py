"""Removes from the ledger what is too old, a bounded part at a time."""

from __future__ import annotations

import json
import sqlite3

from . import chain, records

AT_ONCE = 2000  #: one call removes at most this many rows, so that its transaction is short
#: Answers to ``explain`` are kept for this time; the asker has read them by then.
QUESTIONS_KEPT_S = 3600.0
#: If the same id is asked again within this time, its answer is still there.
INBOX_KEPT_S = 7 * 86400.0


def prune(db: sqlite3.Connection, now: float, keep_s: float | None) -> int:
    """Remove what is older than ``keep_s``, at most `AT_ONCE` rows. Returns how many. The caller begins a transaction.

    If that many were removed, there may be more. While an incident has not ended, its rows are kept, and so are all
    audit rows after its first one. Without ``keep_s`` all history is kept. Answers are removed after `INBOX_KEPT_S`,
    however long ``keep_s`` is: the history has them, too.
    """
    removed = db.execute(
        "DELETE FROM inbox WHERE seq IN"
        " (SELECT seq FROM inbox WHERE kind = 'question' AND answered_at < ? LIMIT ?)",
        (now - QUESTIONS_KEPT_S, AT_ONCE),
    ).rowcount
    removed += db.execute(
        "DELETE FROM inbox WHERE seq IN (SELECT seq FROM inbox ORDER BY seq LIMIT ?) AND answered_at < ?",
        (AT_ONCE - removed, now - INBOX_KEPT_S),
    ).rowcount
    if not keep_s:
        return removed
    before = now - keep_s
    removed += _audit(db, before, AT_ONCE - removed)
    removed += _incidents(db, before, AT_ONCE - removed)
    removed += _attempts(db, before, AT_ONCE - removed)
    return removed


def _audit(db: sqlite3.Connection, before: float, most: int) -> int:
    """Remove only the oldest rows, without a gap. The last removed one becomes the anchor of the chain."""
    bound = db.execute(
        "SELECT min((SELECT min(seq) FROM audit WHERE incident = incidents.id))"
        " FROM incidents WHERE ended_at IS NULL"
    ).fetchone()[0]
    # A row before the anchor was not written by the engine. It is kept, so that the proof finds it.
    start, _ = chain.read_anchor(db)
    last, removed = None, 0
    for row in db.execute(
        "SELECT seq, at, hash FROM audit WHERE seq > ? ORDER BY seq LIMIT ?", (start, most)
    ):
        if row["at"] >= before or (bound is not None and row["seq"] >= bound):
            break
        last, removed = row, removed + 1
    if last is not None:
        db.execute("DELETE FROM audit WHERE seq > ? AND seq <= ?", (start, last["seq"]))
        anchor = json.dumps([last["seq"], last["hash"]])
        db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (chain.ANCHOR, anchor))
    return removed


def _incidents(db: sqlite3.Connection, before: float, most: int) -> int:
    """Remove an ended incident when none of its audit rows is left."""
    return db.execute(
        "DELETE FROM incidents WHERE id IN (SELECT id FROM incidents AS old WHERE ended_at < ?"
        " AND NOT EXISTS (SELECT 1 FROM audit WHERE incident = old.id) LIMIT ?)",
        (before, most),
    ).rowcount


def _attempts(db: sqlite3.Connection, before: float, most: int) -> int:
    """Remove an attempt after its incident was removed, but not while the healer still waits for its results."""
    old = db.execute(
        "SELECT id FROM attempts WHERE coalesce(ended_at, decided_at) < ?"
        " AND incident NOT IN (SELECT id FROM incidents) LIMIT ?",
        (before, most),
    ).fetchall()
    if not old:
        return 0
    needed = {
        a.id
        for c in records.states(db).values()
        for a in (c.attempt, c.look, *c.questions, *(late.attempt for late in c.late))
        if a
    }
    gone = [(row["id"],) for row in old if row["id"] not in needed]
    db.executemany("DELETE FROM attempts WHERE id = ?", gone)
    return len(gone)
