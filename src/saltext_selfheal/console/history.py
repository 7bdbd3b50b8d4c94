"""What was seen, asked and done: the audit's entries, all about one incident, and the proof of the audit's chain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import EngineSettings
from ..doors.arguments import BadRequest, shown
from ..doors.names import quote, turned_back
from ..driver.text import NAME_CHARS, clean
from ..healing.events import Seconds
from ..ledger import inbox, records, timeline
from . import desk
from .given import NAMED, known_cluster
from .times import clock, seconds

MOST_ENTRIES = 1_000_000
_TIMES = "_at"  #: the names of times in the ledger end with this


@dataclass(frozen=True)
class Entry:
    """One row of the audit."""

    seq: int
    at: Seconds
    cluster: str
    incident: str | None
    kind: str
    row: Mapping[str, Any]  #: the whole row, with the columns above

    def told(self) -> dict[str, Any]:
        """``time``, then the rest of the row."""
        rest = {key: value for key, value in self.row.items() if key != "at"}
        return {"time": clock(self.at), **rest}


@dataclass(frozen=True)
class Tried:
    """One attempt of an incident."""

    id: str
    decided_at: Seconds
    ended_at: Seconds | None
    row: Mapping[str, Any]  #: all that the ledger holds about it

    def told(self) -> dict[str, Any]:
        return _timed(self.row)


@dataclass(frozen=True)
class Whole:
    """One incident from its first entry to its last."""

    id: str
    cluster: str
    fault: str
    nodes: tuple[str, ...]
    phase: str
    why: str
    opened_at: Seconds
    changed_at: Seconds
    ended_at: Seconds | None
    attempts: tuple[Tried, ...]
    audit: tuple[Entry, ...]  #: oldest first
    requests: Mapping[str, Mapping[str, Any]]  #: the answer to each request, by its id

    def told(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "cluster": self.cluster,
            "fault": self.fault,
            "nodes": list(self.nodes),
            "phase": self.phase,
            "attempts": [one.told() for one in self.attempts],
            "why": self.why,
            "audit": [one.told() for one in self.audit],
            "requests": {name: dict(answer) for name, answer in self.requests.items()},
            "opened": clock(self.opened_at),
            "changed": clock(self.changed_at),
            "ended": clock(self.ended_at),
        }


@dataclass(frozen=True)
class Fate:
    """What became of a request or a command: its answer, and the incident that it opened or joined."""

    answer: desk.Answered
    incident: Whole | None = None

    def told(self) -> dict[str, Any]:
        answer = self.answer
        told = {"request": answer.id, "reply": answer.reply, "why": answer.why}
        incident = self.incident.told() if self.incident else answer.incident
        if answer.reply == desk.STORED:
            return {**told, "incident": incident}
        explained = {} if answer.explained is None else {"told": list(answer.explained)}
        return {**told, "incident": incident, **explained, "jid": answer.jid}


@dataclass(frozen=True)
class Proof:
    """How far the audit's chain holds."""

    ok: bool
    rows: int | None = None  #: how many entries are proven; None: the ledger could not be read
    first: int | None = None
    last: int | None = None
    #: The first entry that does not fit. 0: the beginning of the chain could not be read.
    broken: int | None = None
    why: str = ""

    def told(self) -> dict[str, Any]:
        """``ok`` and how far the chain holds. If it is not ok, also where and why, and ``retcode`` 1."""
        if self.rows is None:
            return {"reply": "refused", "ok": self.ok, "why": self.why, "retcode": 1}
        told: dict[str, Any] = {
            "ok": self.ok,
            "rows": self.rows,
            "from": self.first,
            "to": self.last,
        }
        return told if self.ok else {**told, "broken": self.broken, "why": self.why, "retcode": 1}


def read(settings: EngineSettings, path: Path, cluster: Any, since: Any, limit: Any) -> list[Entry]:
    """At most ``limit`` entries, newest first. ``since`` says how far back, as a duration; None: all that there are.

    Raises BadRequest if an argument is wrong; LedgerError.
    """
    known_cluster(settings, cluster)
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MOST_ENTRIES:
        raise BadRequest(
            f"limit: found {shown(limit)}; allowed: a whole number from 1 to {MOST_ENTRIES}"
        )
    back_s = None if since is None else seconds("since", since)
    with records.read(path) as db:
        oldest = 0.0 if back_s is None else timeline.now(db) - back_s
        return list(map(_entry, records.history(db, cluster, oldest, limit)))


def find(path: Path, asked: Any) -> Whole | Fate:
    """The incident with this id, or the request or command with this id.

    Who has asked by the bus or by a webhook knows the id without the prefix of the door. So that is enough, if it is
    unique.

    Raises BadRequest if there is none of these, or if several callers have given the same id; LedgerError.
    """
    with records.read(path) as db:
        name = _known_id(db, asked)
        found = records.incident(db, name)
        if found is not None:
            return _whole(found)
        if inbox.waits(db, name):
            return Fate(desk.Answered("request", desk.STORED, "it has no answer yet", name))
        answer = inbox.answer(db, name)
        if answer is not None:
            joined = records.incident(db, answer["incident"]) if answer["incident"] else None
            return Fate(desk.recorded("request", name, answer), _whole(joined) if joined else None)
        raise _no_such_id(db, asked)


def _known_id(db: Any, asked: Any) -> str:
    """The id as the ledger holds it. Raises BadRequest if it cannot be one, or if it is not unique."""
    if not isinstance(asked, str):
        asked = turned_back("id", asked, dict.fromkeys(inbox.ids(db)) if asked is not None else ())
    if not isinstance(asked, str) or not asked or asked != clean(asked, NAME_CHARS):
        raise _no_such_id(db, asked)
    if records.knows(db, asked) or inbox.was_asked(db, asked):
        return asked
    whole = inbox.with_prefix(db, asked, NAMED)
    if len(whole) > 1:
        raise BadRequest(
            f"id: found {shown(asked)}, which several callers have given; allowed: {', '.join(whole)}"
        )
    return whole[0] if whole else asked


def _no_such_id(db: Any, asked: Any) -> BadRequest:
    latest = records.latest_incidents(db, NAMED)
    newest = f", the latest: {', '.join(latest)}" if latest else "; there is no incident yet"
    return BadRequest(
        f"id: found {shown(asked)}; allowed: the id of an incident, a request or a command{newest}{quote(asked)}"
    )


def prove(path: Path) -> Proof:
    """Prove the audit's chain from its oldest entry to its newest. Raises LedgerError."""
    with records.read(path) as db:
        found = records.audit(db)
    return Proof(
        ok=found["ok"],
        rows=found["rows"],
        first=found["from"],
        last=found["to"],
        broken=found.get("broken"),
        why=found.get("why", ""),
    )


def unproven(why: object) -> Proof:
    """The result of a proof if nothing could be read."""
    return Proof(False, why=str(why))


def _entry(row: Mapping[str, Any]) -> Entry:
    return Entry(row["seq"], row["at"], row["cluster"], row["incident"], row["kind"], row)


def _whole(found: Mapping[str, Any]) -> Whole:
    """An incident as typed data, from the dict of `records.incident`."""
    attempts = (
        Tried(one["id"], one["decided_at"], one["ended_at"], one) for one in found["attempts"]
    )
    return Whole(
        id=found["id"],
        cluster=found["cluster"],
        fault=found["fault"],
        nodes=tuple(found["nodes"]),
        phase=found["phase"],
        why=found["why"],
        opened_at=found["opened_at"],
        changed_at=found["changed_at"],
        ended_at=found["ended_at"],
        attempts=tuple(attempts),
        audit=tuple(map(_entry, found["audit"])),
        requests=found["requests"],
    )


def _timed(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with its times last, as people read them."""
    told = {key: value for key, value in row.items() if not key.endswith(_TIMES)}
    times = {key.removesuffix(_TIMES): clock(row[key]) for key in row if key.endswith(_TIMES)}
    return {**told, **times}
