"""Writes the ledger, for the engine. Others write only two things into it: requests (`inbox`) and claims (`claims`).

`Ledger` is for one thread of one process at a time. It opens the file that it finds, or puts a damaged one aside and
begins anew. It writes each transition whole or not at all, and it forgets what is old. The file and its lock are in
`file`, the tables in `tables`; requests are in `inbox`, and reading is in `records`. No Salt here, no decision.
"""

from __future__ import annotations

import functools
import json
import math
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from ..healing import ids
from ..healing.events import Command, Request, Verb
from ..healing.model import Announce, Answer, Attempt, ClusterState, Effect, Finish, Fire, Tell
from . import chain as audit_chain
from . import inbox, ownership, pruning, records
from . import tables as ledger_tables
from . import timeline
from .file import Head, LedgerError, LedgerFile, Mark, Unavailable, ValueRefused
from .tables import check_tables, connect, damaged, refuse_newer
from .timeline import Timeline

#: SQLite's errors about a value that it was given. They do not mean that the file is damaged.
_OF_VALUES = (sqlite3.DataError, sqlite3.IntegrityError, sqlite3.InterfaceError)

_PUT_RIGHT = "nothing is done until it is put back, or the salt-master is restarted"

#: Our rows have smaller numbers than this. If somebody else has written a row with a huge number, SQLite finds no
#: number for the next row, and says that the disk is full.
NO_NUMBER = 2**53
_LAST_ENTRY = "SELECT coalesce(max(seq), 0) FROM audit WHERE seq < ?"

_P = ParamSpec("_P")
_T = TypeVar("_T")


def _in_our_words(method: Callable[_P, _T]) -> Callable[_P, _T]:
    """Turn SQLite's errors into the ledger's own. For methods that the loop calls, which does not know SQLite."""

    @functools.wraps(method)
    def told(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return method(*args, **kwargs)
        except sqlite3.Error as exc:
            ours = ValueRefused if isinstance(exc, _OF_VALUES) else Unavailable
            raise ours(str(exc)) from exc

    return told


class Ledger:
    """The engine's ledger. Open it after the fork and use it from one thread.

    ``lost`` says why an older ledger could not be used, if there was one. Then nothing is remembered, and the caller
    must assume the worst: no budget left, every cooldown at its maximum. ``jump_s`` says by how much the timeline has gone on
    more than the machine was off. The caller must move all times that are remembered by it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lost: str | None = None
        self.jump_s = 0.0
        try:
            self._take(path)
        except OSError as exc:
            raise LedgerError(f"{exc.filename or path}: {exc.strerror or exc}") from exc
        except sqlite3.Error as exc:
            raise LedgerError(f"{path}: {exc}") from exc
        self._seen_version = -1
        self._unfit = ""  #: why what was written cannot be read back

    def _take(self, path: Path) -> None:
        """Lock the ledger and open it. Raises LedgerError, OSError or sqlite3.Error; then nothing is held."""
        with ExitStack() as undo:
            ownership.refuse_foreign(path)
            self._file = LedgerFile(path)
            undo.callback(self._file.close)
            if not path.exists():
                self.lost = self._file.missing()
            self._db = self._open()
            undo.callback(self._db.close)
            self._head = audit_chain.read_head(self._db)
            last = timeline.anchor(self._db)
            self.timeline, self.jump_s = Timeline(last), timeline.jump_s(last)
            self._file.write_mark(Mark(self._head))
            self._file.hold()
            undo.pop_all()

    def _open(self) -> sqlite3.Connection:
        """Open the file. A damaged one is put aside, and a new one is made."""
        try:
            return self._open_checked()
        except sqlite3.DatabaseError as exc:
            # If no file exists, it could not be made. Then there is nothing damaged to put aside.
            if not (damaged(exc) and self.path.exists()):
                raise LedgerError(f"{self.path}: {exc}") from exc
            why = str(exc)
        self.lost = self._file.put_aside(why)
        try:
            return self._open_checked()
        except sqlite3.Error as exc:
            raise LedgerError(f"{self.path}: {exc}") from exc

    def _open_checked(self) -> sqlite3.Connection:
        """Check the file that is found and migrate it, or make a new one. Raises sqlite3.DatabaseError if damaged."""
        found = self.path.exists()
        self._file.make()
        version = self._examine() if found else 0
        db = connect(self.path, "rw")
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            if not version:
                # The new ledger remembers that an older one was lost, until the first transition is recorded. So this
                # is not forgotten if the engine ends before it has assumed the worst and written that down.
                lost = (self.lost or "").replace("'", "''")
                told = f"INSERT INTO meta VALUES ('lost', '{lost}');" if lost else ""
                # The new ledger continues the count of the old one. So it is newer than the mark, and if the engine
                # ends here, the next one does not take it for an older copy.
                mark = self._file.mark
                head = Head(mark.head.count + 1 if mark else 1, 0, "").text()
                told += f"INSERT INTO meta VALUES ('{audit_chain.HEAD}', '{head}');"
                ledger_tables.create(db, told)
            elif version < ledger_tables.SCHEMA:
                ledger_tables.migrate(db, version)
            marked = db.execute("SELECT value FROM meta WHERE key = 'lost'").fetchone()
            self.lost = marked["value"] if marked else self.lost
        except BaseException:
            db.close()  # an open connection would later use the next ledger's files
            # As with a full disk; the next try would take the unfinished file for a damaged ledger.
            if not found:
                self._file.remove()
            raise
        return db

    def _examine(self) -> int:
        """Check whether this ledger can be used, and return its schema. Changes nothing in the file.

        Raises LedgerRefused if a newer release wrote it, or sqlite3.DatabaseError if it is damaged.
        """
        if not self.path.stat().st_size:
            raise sqlite3.DatabaseError("the file is empty")
        # A journal file was left by another journal mode. SQLite must roll it back, and for that it must open for
        # writing.
        mode = "rw" if self.path.with_name(self.path.name + "-journal").exists() else "ro"
        with closing(connect(self.path, mode)) as db:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            refuse_newer(self.path, db)
            if version <= 0:
                if version or db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    raise sqlite3.DatabaseError("no ledger of ours")
                raise sqlite3.DatabaseError("it was begun and never finished")
            check_tables(db)
            records.states(db)
            try:
                present = timeline.now(db)
            except TypeError as exc:
                raise sqlite3.DatabaseError(f"clock is unreadable: {exc}") from exc
            if not math.isfinite(present):  # with an infinite time every cooldown would be over
                raise sqlite3.DatabaseError(f"clock is unreadable: found {present}")
            audit_chain.check(db)
            self._compare(audit_chain.read_head(db))
            return int(version)

    def _compare(self, head: Head) -> None:
        """Raises sqlite3.DatabaseError if the ledger ends before the mark."""
        mark = self._file.mark
        if mark is None or head.count > mark.head.count:
            return
        if mark.lost:  # an engine ended while it put this ledger aside
            raise sqlite3.DatabaseError(mark.lost)
        # An older release wrote no head, so both counts are 0.
        if head == mark.head or head.count == mark.head.count == 0:
            return
        raise sqlite3.DatabaseError(
            f"expected transition {mark.head.count} and audit entry {mark.head.seq} at its end, found "
            f"{head.count} and {head.seq}: its -wal is damaged or gone, or an older copy was put there"
        )

    def close(self) -> None:
        """Close the ledger. Only tests and tools do so; an engine holds it until its process ends."""
        self._db.close()
        self._file.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """One transaction. It also records the present time and the new head; after it the mark is written.

        Raises Unavailable if what is written would be lost, because nothing may be done that is not on record.
        """
        unfit = self._unfit or self._file.displaced()
        if unfit:
            raise Unavailable(f"{unfit}; {_PUT_RIGHT}")
        before = self._head
        self._db.execute("BEGIN IMMEDIATE")
        try:
            anchor = self.timeline.anchor()
            self._db.execute(
                "INSERT OR REPLACE INTO clock VALUES (1, ?, ?, ?, ?)",
                (anchor.boot, anchor.boottime, anchor.timeline, anchor.wall),
            )
            yield
            self._head = replace(self._head, count=before.count + 1)
            self._put(audit_chain.HEAD, self._head.text())
            self._db.execute("COMMIT")
        except BaseException:
            self._head = before
            if self._db.in_transaction:  # with a full disk SQLite has rolled back already
                self._db.execute("ROLLBACK")
            raise
        self._file.write_mark(Mark(self._head))

    def _put(self, key: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    @_in_our_words
    def clusters(self) -> dict[str, ClusterState]:
        """The remembered state of each cluster. Raises Unavailable, as all methods that the loop calls."""
        states = records.states(self._db)
        return {name: one.with_attempts(self._with_jid) for name, one in states.items()}

    def _with_jid(self, attempt: Attempt) -> Attempt:
        """The attempt with its JID. Older releases kept it only in the table of attempts, and not in the state."""
        if attempt.jid:
            return attempt
        find = "SELECT jid, args FROM attempts WHERE id = ?"
        row = self._db.execute(find, (attempt.id,)).fetchone()
        of = self._db.execute(find, (attempt.of,)).fetchone()
        return replace(
            attempt,
            jid=row["jid"] if row else "",
            args=tuple(json.loads(row["args"])) if row else (),
            of_jid=of["jid"] if of else "",
        )

    @_in_our_words
    def beat(self) -> None:
        """Record that time goes on although nothing has happened. SQLite also moves its log into the file here.

        Then the file is checked by a second connection. The first one has pages in memory, and does not notice what
        happens to the file.
        """
        self._unfit = ""
        if self._file.written_by_others():
            self._unfit = self._damage(whole=True)
        with self._transaction():
            pass
        with suppress(sqlite3.Error):  # what cannot be moved is as safe in the log
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        self._unfit = self._damage(whole=False)
        if self._unfit:
            raise Unavailable(f"{self._unfit}; {_PUT_RIGHT}")
        self._file.note_written()

    def _damage(self, whole: bool) -> str:
        """What is wrong with the file, as another connection reads it. Empty if nothing is.

        ``whole``: the tables and the newest links of the audit are checked, too.
        """
        try:
            with closing(connect(self.path, "ro")) as db:
                head = audit_chain.read_head(db)
                if whole:
                    check_tables(db)
                    audit_chain.check(db)
        except sqlite3.DatabaseError as exc:
            return f"{self.path} was damaged while the engine runs: {exc}" if damaged(exc) else ""
        return "" if head == self._head else f"{self.path} holds something else than was written"

    @_in_our_words
    def commit(
        self,
        now: float,
        changed: Iterable[ClusterState],
        effects: Iterable[Effect],
    ) -> None:
        """Record one transition, all or nothing. An attempt that is fired must have its JID."""
        with self._transaction():
            if self.lost:
                self._db.execute("DELETE FROM meta WHERE key = 'lost'")
            for cluster in changed:
                body = records.CLUSTER.dump_json(cluster).decode()
                self._db.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (cluster.name, body))
            for effect in effects:
                self._record(effect, now)
        self.lost, self.jump_s = None, 0.0

    def _record(self, effect: Effect, now: float) -> None:
        """Write one effect into its table, and into the audit."""
        if isinstance(effect, Fire):
            attempt = effect.attempt
            boot, since_boot = timeline.boot_id(), timeline.boottime()
            if not attempt.jid:
                raise LedgerError(f"attempt {attempt.id} has no JID")
            if attempt.firings == 1:
                self._db.execute(
                    "INSERT INTO attempts VALUES (?,?,?,?,?,?,?,?,?,?,?,NULL,NULL,NULL,0)",
                    (attempt.id, attempt.jid, attempt.cluster, attempt.incident, attempt.action.value,
                     json.dumps(attempt.nodes), json.dumps(attempt.args), attempt.firings, attempt.decided_at,
                     boot, since_boot),
                )  # fmt: skip
            else:
                self._db.execute(
                    "UPDATE attempts SET firings=?, fired_boot=?, fired_boottime=? WHERE id=? AND ended_at IS NULL",
                    (attempt.firings, boot, since_boot, attempt.id),
                )
            told: dict[str, Any] = {
                "attempt": attempt.id, "action": attempt.action.value, "minions": attempt.nodes,
                "firing": attempt.firings, "jid": attempt.jid, "rule": effect.rule,
            }  # fmt: skip
            self._audit(now, attempt.cluster, attempt.incident, "fire", told)
        elif isinstance(effect, Finish):
            attempt = effect.attempt
            self._db.execute(
                "UPDATE attempts SET ended_at=?, outcome=?, why=? WHERE id=? AND ended_at IS NULL",
                (now, effect.outcome.value, effect.why, attempt.id),
            )
            told = {"attempt": attempt.id, "action": attempt.action.value, "outcome": effect.outcome.value,
                    "why": effect.why, "rule": effect.rule}  # fmt: skip
            self._audit(now, attempt.cluster, attempt.incident, "finish", told)
        elif isinstance(effect, Announce):
            incident = effect.incident
            ended = now if incident.phase.value in ("resolved", "acknowledged") else None
            self._db.execute(
                "INSERT OR REPLACE INTO incidents VALUES (?,?,?,?,?,?,?,?,?,?)",
                (incident.id, incident.cluster, incident.called, json.dumps(incident.nodes),
                 incident.phase.value, incident.opened_at, incident.changed_at, ended, incident.attempts,
                 effect.why),
            )  # fmt: skip
            told = {"said": effect.said, "rule": effect.rule, "fault": incident.called, "nodes": incident.nodes,
                    "step": incident.step + 1, "attempt": effect.attempt, "why": effect.why}  # fmt: skip
            self._audit(now, incident.cluster, incident.id, "incident", told)
        elif isinstance(effect, Answer):
            self._answer(now, effect)
        elif isinstance(effect, Tell):
            told = {
                "said": effect.what.value,
                "nodes": [effect.node] if effect.node else [],
                "why": effect.why,
            }
            self._audit(now, effect.cluster, effect.incident, "health", told)

    def _answer(self, now: float, effect: Answer) -> None:
        """Write an answer to the row of the inbox. A request that came by the bus has no row yet, so one is made."""
        asked = effect.request
        answer = {"reply": effect.reply.value, "why": effect.why, "incident": effect.incident}
        kind = inbox.kind_of(asked)
        told = {"told": list(map(inbox.dump_explained, effect.told))} if effect.told else {}
        answered = json.dumps({**answer, **told}, default=str)
        self._db.execute(
            "INSERT INTO inbox (key, kind, body, put_at, answered_at, answer) VALUES (?,?,?,?,?,?)"
            " ON CONFLICT (key) DO UPDATE SET answered_at=excluded.answered_at, answer=excluded.answer"
            " WHERE answered_at IS NULL",
            (asked.id, kind, inbox.dump(asked), now, now, answered),
        )
        if isinstance(asked, Request):
            if effect.repeated:
                # It is not audited: the incident counts it, and the row above has the answer.
                return
            body: dict[str, Any] = {"request": asked.id, "door": asked.door.value, "asker": asked.asker, "action": asked.action,
                    "nodes": asked.nodes, "reason": asked.reason, **answer}  # fmt: skip
            self._audit(now, asked.cluster, effect.incident, kind, body)
        elif asked.verb is not Verb.EXPLAIN:  # ``explain`` changes nothing, so it is not audited
            incident = effect.incident or asked.incident
            body = {"command": asked.id, "verb": asked.verb.value, "by": asked.by, "cluster": asked.cluster,
                    "nodes": asked.nodes, "for_s": asked.for_s, "reason": asked.reason, **answer,
                    "incident": incident, **({"rule": effect.rule} if effect.rule else {})}  # fmt: skip
            self._audit(now, self._cluster_of(asked), incident, kind, body)

    def _cluster_of(self, command: Command) -> str:
        """The cluster of a command, or of the incident that it names. Empty for a command about all clusters."""
        if command.cluster or not command.incident:
            return command.cluster or ""
        row = self._db.execute(
            "SELECT cluster FROM incidents WHERE id = ?", (command.incident,)
        ).fetchone()
        if row:
            return str(row["cluster"])
        named = ids.read(command.incident)
        return named.cluster if named else ""

    def _audit(
        self, now: float, cluster: str, incident: str | None, kind: str, body: Mapping[str, Any]
    ) -> None:
        """Append an entry to the audit, as the next link of its chain."""
        now = float(now)  # the column is REAL, and the hash must be made of the value as it is read
        # The chain goes on from the entry that this process wrote last, and not from the last row in the table. So rows
        # that somebody has removed or added break the chain.
        last = self._db.execute(_LAST_ENTRY, (NO_NUMBER,)).fetchone()[0]
        seq = max(self._head.seq, last) + 1
        text = json.dumps(body, sort_keys=True, ensure_ascii=False)
        link = audit_chain.link_hash(self._head.link, seq, now, cluster, incident, kind, text)
        self._db.execute(
            "INSERT INTO audit VALUES (?,?,?,?,?,?,?)",
            (seq, now, cluster, incident, kind, text, link),
        )
        self._head = replace(self._head, seq=seq, link=link)

    @_in_our_words
    def waiting(self, most: int = 200) -> list[Request | Command]:
        """What waits in the inbox without an answer, oldest first, up to a number. Cheap while nobody else writes."""
        version = self._db.execute("PRAGMA data_version").fetchone()[0]
        if version == self._seen_version:
            return []
        self._renumber()
        found: list[Request | Command] = []
        more = True
        # If all rows were refused, go on: an empty list means that nothing waits.
        while more and not found:
            rows = inbox.unanswered_rows(self._db, most).fetchall()
            more = len(rows) == most
            asked = [(row, inbox.read_row(row)) for row in rows]
            found = [one for _, one in asked if one is not None]
            self._refuse_rows([row for row, one in asked if one is None])
        self._seen_version = -1 if more else version
        return found

    def _renumber(self) -> None:
        """Give rows of the inbox that have a huge number the next regular ones, so that other rows can follow."""
        tops = self._db.execute(
            "SELECT seq FROM sqlite_sequence WHERE name = 'inbox' UNION ALL SELECT max(seq) FROM inbox"
        ).fetchall()
        if all(top is None or (isinstance(top, int) and top < NO_NUMBER) for (top,) in tops):
            return
        with self._transaction():
            last = self._db.execute(
                "SELECT coalesce(max(seq), 0) FROM inbox WHERE seq < ?", (NO_NUMBER,)
            ).fetchone()[0]
            absurd = self._db.execute(
                "SELECT seq FROM inbox WHERE seq >= ? ORDER BY seq", (NO_NUMBER,)
            ).fetchall()
            self._db.executemany(
                "UPDATE inbox SET seq = ? WHERE seq = ?",
                [(number, row["seq"]) for number, row in enumerate(absurd, last + 1)],
            )
            self._db.execute(
                "UPDATE sqlite_sequence SET seq = ? WHERE name = 'inbox'", (last + len(absurd),)
            )

    def _refuse_rows(self, rows: list[sqlite3.Row]) -> None:
        """Answer rows whose form is wrong, so that they do not hold up the others. What they say is copied nowhere."""
        if not rows:
            return
        with self._transaction():
            self._db.executemany(
                "UPDATE inbox SET answered_at = ?, answer = ? WHERE seq = ?",
                [(self.timeline.now(), json.dumps(inbox.refusal(row)), row["seq"]) for row in rows],
            )

    def give_again(self) -> None:
        """What `waiting` returned last was not dealt with, so it must return it again."""
        self._seen_version = -1

    @_in_our_words
    def answered(self, asked: str) -> bool:
        """Whether a request or a command with this id has its answer."""
        row = self._db.execute("SELECT answered_at FROM inbox WHERE key = ?", (asked,)).fetchone()
        return row is not None and row["answered_at"] is not None

    @_in_our_words
    def prune(self, now: float, keep_s: float | None) -> int:
        """Forget a part of what is older than ``keep_s``. Returns how many rows were removed (see `pruning`)."""
        with self._transaction():
            return pruning.prune(self._db, now, keep_s)
