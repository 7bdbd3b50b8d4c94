"""The ledger's inbox: requests and commands to the engine, their form there, and their answers.

The runners put requests here and look for the answers. The engine takes what waits and answers it, in `writer`. Whoever
may write to the file can put anything into it, so every row is checked when it is read, and its texts are cleaned.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from ..driver.text import NAME_CHARS, clean
from ..healing.events import Command, Request, Verb
from ..healing.explained import Explained
from ..healing.remedies import ASKING
from . import timeline
from .file import LedgerError
from .tables import connect, refuse_newer

BODY_BYTES = 64 * 1024  #: a body may have at most this many bytes; our runners write a tenth of it
NODE_CHARS = 255  #: a node's name is cut to this many characters
END_OF_TIME = 253402300800.0  #: the year 10000; a later time cannot be written as a date

_REQUEST = TypeAdapter(Request)
_COMMAND = TypeAdapter(Command)
_EXPLAINED = TypeAdapter(Explained)
#: SQLite columns can hold values of any type, whoever wrote them. So text is read as bytes, and a time only if it is a
#: number.
_UNANSWERED = (
    "SELECT seq, CAST(key AS BLOB) AS key, CAST(kind AS BLOB) AS kind,"
    f" CASE WHEN length(CAST(body AS BLOB)) <= {BODY_BYTES} THEN CAST(body AS BLOB) END AS body,"
    " CASE WHEN typeof(put_at) IN ('real', 'integer') THEN put_at END AS put_at"
    " FROM inbox WHERE answered_at IS NULL ORDER BY seq LIMIT ?"
)
KINDS: dict[str, TypeAdapter[Any]] = {
    "request": _REQUEST,
    "command": _COMMAND,
    "question": _COMMAND,
}


def kind_of(asked: Request | Command) -> str:
    """The kind of this request or command: a key of `KINDS`."""
    if isinstance(asked, Request):
        return "request"
    return "question" if asked.verb is Verb.EXPLAIN else "command"


def dump(asked: Request | Command) -> str:
    """The body of the row for this request or command. `read_row` reads it back."""
    return KINDS[kind_of(asked)].dump_json(asked).decode()


def dump_explained(one: Explained) -> Any:
    """A part of an explanation as plain data. `read_explained` reads it back."""
    return _EXPLAINED.dump_python(one, mode="json")


def read_explained(found: Iterable[Any]) -> tuple[Explained, ...]:
    """The explanation in an answer (its key ``told``).

    Raises LedgerError if it has another form, because another release of this package runs in the engine.
    """
    try:
        return tuple(map(_EXPLAINED.validate_python, found))
    except ValueError:
        raise LedgerError(
            "the engine explains in a form that is not known here: it runs another release of this package; "
            "restart the salt-master"
        ) from None


def ask(path: Path, asked: Request | Command) -> None:
    """Put a request or a command into the inbox. If the same one is there already, nothing changes.

    Raises LedgerError, also if the id was used for another request.
    """
    if not path.exists():
        raise LedgerError(f"{path}: no ledger; the engine has not run yet")
    db = None
    try:
        db = connect(path, "rw")
        refuse_newer(path, db)
        db.execute(
            "INSERT OR IGNORE INTO inbox (key, kind, body, put_at) VALUES (?, ?, ?, ?)",
            (asked.id, kind_of(asked), dump(asked), timeline.now(db)),
        )
        (body,) = db.execute(
            "SELECT CAST(body AS BLOB) FROM inbox WHERE key = ?", (asked.id,)
        ).fetchone()
    except sqlite3.Error as exc:
        raise LedgerError(f"{path}: {exc}") from exc
    finally:
        if db is not None:
            db.close()
    if _meant(body) != _meant(dump(asked).encode()):
        raise LedgerError(f"id {asked.id!r} was used for another request; give each its own")


def _meant(body: bytes) -> tuple[Any, ...] | None:
    """What identifies a request: who wants what where. The reason does not count: it may be worded differently.

    None if the body was not written by our runners.
    """
    try:
        found = json.loads(body) if len(body) <= BODY_BYTES else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    return tuple(
        found.get(key) for key in ("door", "asker", "cluster", "action", "nodes", "forced")
    )


def unanswered_rows(db: sqlite3.Connection, most: int) -> sqlite3.Cursor:
    """The rows without an answer, oldest first. `read_row` and `refusal` read them."""
    return db.execute(_UNANSWERED, (most,))


def read_row(row: sqlite3.Row) -> Request | Command | None:
    """What a row of the inbox asks for, with clean texts. None if its form is wrong, or if its id is not the row's key.

    The key must be the id, because the answer is written to the row with that key. So an id that is not clean is a
    wrong form. Cleaned names may be names of nothing, but never of something else: no character is taken out.
    """
    put_at = row["put_at"]
    if row["body"] is None or put_at is None or not 0.0 <= put_at < END_OF_TIME:
        return None
    try:
        asked: Request | Command = KINDS[row["kind"].decode()].validate_json(row["body"])
        found = asked.id == row["key"].decode() == clean(asked.id, NAME_CHARS)
    except (KeyError, ValueError):
        return None
    if isinstance(asked, Command) and not 0.0 <= asked.for_s < END_OF_TIME - put_at:
        return None  # the pause would end at a time that cannot be written as a date
    return replace(_cleaned(asked), at=put_at) if found else None


#: The fields of requests and commands that hold texts, and one name each. The reason may be longer.
_NAMES = ("cluster", "action", "asker", "by", "incident")


def _cleaned(asked: Request | Command) -> Request | Command:
    """The same request or command, with each text on one line that can be stored, shown and logged."""
    texts = {name: getattr(asked, name, None) for name in _NAMES}
    names: dict[str, Any] = {k: clean(v, NAME_CHARS) for k, v in texts.items() if v is not None}
    nodes = tuple(clean(node, NODE_CHARS) for node in asked.nodes)
    return replace(asked, nodes=nodes, reason=clean(asked.reason), **names)


def refusal(row: sqlite3.Row) -> dict[str, Any]:
    """The answer to a row whose form is wrong."""
    kind = row["kind"].decode(errors="replace")
    why = f"it has not the form of a {kind if kind in KINDS else 'request'}"
    if row["body"] is None:
        why = f"{why}: it has more than {BODY_BYTES} bytes"
    return {"reply": "refused", "why": why, "incident": None}


def unanswered(db: sqlite3.Connection, most: int = 1000) -> list[Request | Command]:
    """What waits in the inbox for the engine, oldest first. Rows whose form is wrong are left out."""
    found = map(read_row, unanswered_rows(db, most))
    return [asked for asked in found if asked is not None]


def answer(db: sqlite3.Connection, asked: str) -> dict[str, Any] | None:
    """The answer to a request or a command, with the JID of its incident's latest attempt. None if there is none yet.

    The key ``told`` is there only in the answer to ``explain``.
    """
    row = db.execute("SELECT answer FROM inbox WHERE key = ?", (asked,)).fetchone()
    if row is None or row["answer"] is None:
        return None
    told: dict[str, Any] = json.loads(row["answer"])
    asking = sorted(action.value for action in ASKING)
    last = db.execute(
        f"SELECT jid FROM attempts WHERE incident = ? AND action NOT IN ({', '.join('?' * len(asking))})"
        " ORDER BY decided_at DESC LIMIT 1",
        (told["incident"], *asking),
    ).fetchone()
    return {**told, "jid": last["jid"] if last else None}


def waits(db: sqlite3.Connection, asked: str) -> bool:
    """Whether a request or a command with this id waits in the inbox without an answer."""
    row = db.execute("SELECT answered_at FROM inbox WHERE key = ?", (asked,)).fetchone()
    return row is not None and row["answered_at"] is None


def with_prefix(db: sqlite3.Connection, asked: str, most: int) -> list[str]:
    """At most this many ids that are a door's or a caller's prefix, a colon and this, in the order in which they came."""
    rows = db.execute(
        "SELECT CAST(key AS BLOB) AS key FROM inbox"
        " WHERE instr(key, ':') > 0 AND substr(key, instr(key, ':') + 1) = ? ORDER BY seq LIMIT ?",
        (asked, most),
    )
    return [row["key"].decode(errors="replace") for row in rows]


def ids(db: sqlite3.Connection) -> Iterator[str]:
    """The ids of all requests and commands that are remembered, with and without their prefix."""
    for row in db.execute("SELECT CAST(key AS BLOB) AS key FROM inbox"):
        name = row["key"].decode(errors="replace")
        yield name
        if ":" in name:
            yield name.partition(":")[2]


def was_asked(db: sqlite3.Connection, asked: str) -> bool:
    """Whether a request or a command with this id was ever put into the inbox, as far as that is remembered."""
    return db.execute("SELECT 1 FROM inbox WHERE key = ?", (asked,)).fetchone() is not None
