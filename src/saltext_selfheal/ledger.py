"""What the healer remembers: one SQLite file, written by the engine alone.

`Ledger` is the engine's side (one thread, one process at a time: a lock file says which). `read` and `ask` are for
runners and for the reactor's ``attempt()``: they read, and the runner inserts requests into the inbox; nobody but
the engine writes anything else. The healer's timeline lives here too, because it must survive what the ledger
survives. No Salt in this file, no decision.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from .healing.model import Announce
from .healing.model import Answer
from .healing.model import ClusterState
from .healing.model import Effect
from .healing.model import Finish
from .healing.model import Fire
from .healing.model import Request
from .healing.model import Tell

SCHEMA = 1
FIRED_WITHIN_S = 60.0  #: a remediation event older than this is nobody's order any more
NETWORK_FILE_SYSTEMS = frozenset(
    {
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "ncpfs",
        "9p",
        "afs",
        "ceph",
        "glusterfs",
        "lustre",
        "gpfs",
        "ocfs2",
        "gfs2",
        "fuse.sshfs",
        "fuse.glusterfs",
    }
)

_TABLES = """
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

_CLUSTER = TypeAdapter(ClusterState)
_REQUEST = TypeAdapter(Request)


class LedgerError(Exception):
    """The ledger cannot be used: what it is, what was found, what to do."""


class LedgerRefused(LedgerError):
    """Waiting does not make this ledger usable."""


class LedgerBusy(LedgerError):
    """Another engine holds the ledger."""


# ---------------------------------------------------------------- time


@dataclass(frozen=True)
class Anchor:
    """A point of the timeline and the boot clock's reading at it."""

    boot: str
    boottime: float
    timeline: float


def boot_id() -> str:
    """This boot's id; empty where the kernel tells none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def boottime() -> float:
    """Seconds since boot, suspended time included; no clock step moves it."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Timeline:
    """Seconds that look like the epoch's and never run backwards.

    Within one boot they follow CLOCK_BOOTTIME, so that a step of the wall clock shortens no cooldown and renews
    no budget. After a reboot the wall clock counts, but never before the newest time on record.
    """

    def __init__(self, last: Anchor | None, wall: float | None = None) -> None:
        wall = time.time() if wall is None else wall
        here, now = boot_id(), boottime()
        if last is not None and here and last.boot == here:
            start = last.timeline + max(0.0, now - last.boottime)
        else:
            start = wall if last is None else max(wall, last.timeline)
        self._anchor = Anchor(here, now, start)

    def now(self) -> float:
        return self._anchor.timeline + boottime() - self._anchor.boottime

    def anchor(self) -> Anchor:
        return Anchor(self._anchor.boot, boottime(), self.now())


# ---------------------------------------------------------------- the engine's side


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    db = sqlite3.connect(
        f"{path.as_uri()}?mode={mode}", uri=True, timeout=5.0, isolation_level=None
    )
    db.row_factory = sqlite3.Row
    return db


def _file_system(path: Path) -> str:
    """The type of the file system that holds this path, as the kernel names it; empty if unknown."""
    best, kind = "", ""
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    where = str(path.resolve())
    for line in mounts.splitlines():
        parts = line.split()
        point = parts[1].encode().decode("unicode_escape")
        if (where == point or where.startswith(point.rstrip("/") + "/")) and len(point) >= len(
            best
        ):
            best, kind = point, parts[2]
    return kind


def _lock_path(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


class Ledger:
    """The engine's ledger. Open it after the fork and use it from one thread.

    ``lost`` says why an older ledger could not be used, if there was one: then nothing is remembered, and the
    caller must assume the worst.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lost: str | None = None
        try:
            self._take(path)
        except OSError as exc:
            raise LedgerError(f"{exc.filename or path}: {exc.strerror or exc}") from exc
        self.timeline = Timeline(self._anchor())
        self._seen_version = -1

    def _take(self, path: Path) -> None:
        """Lock it, and open it. Raises LedgerError or OSError."""
        directory = path.parent
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        kind = _file_system(directory)
        if kind in NETWORK_FILE_SYSTEMS:
            raise LedgerRefused(
                f"{path}: on {kind}; a local file system is needed, set ledger.path"
            )
        used = _lock_path(path).exists()  # an engine was here before
        self._lock = os.open(_lock_path(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise LedgerBusy(f"{path}: another engine uses it") from None
        if used and not path.exists():
            self.lost = f"{path} is missing"
        try:
            self._db = self._open()
        except BaseException:
            os.close(self._lock)  # else it would seem that an engine runs
            raise

    def _open(self) -> sqlite3.Connection:
        try:
            return self._open_checked()
        except sqlite3.DatabaseError as exc:
            if isinstance(exc, sqlite3.OperationalError) and "malformed" not in str(exc):
                raise LedgerError(f"{self.path}: {exc}") from exc
            self._quarantine(str(exc))
            return self._open_checked()

    def _open_checked(self) -> sqlite3.Connection:
        if self.path.exists() and not self.path.stat().st_size:
            raise sqlite3.DatabaseError("the file is empty")
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        db = _connect(self.path, "rw")
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA:
            db.close()
            raise LedgerRefused(
                f"{self.path}: schema {version} is newer than this release knows ({SCHEMA}); "
                "install the release that wrote it"
            )
        tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if version == 0 and not tables:
            # That something was lost is forgotten with the first transition, not with the next crash.
            lost = (self.lost or "").replace("'", "''")
            mark = f"INSERT INTO meta VALUES ('lost', '{lost}');" if lost else ""
            db.executescript(f"BEGIN; {_TABLES} {mark} PRAGMA user_version={SCHEMA}; COMMIT;")
            version = SCHEMA
        verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok" or (not version and tables):
            db.close()
            raise sqlite3.DatabaseError(verdict if verdict != "ok" else "no ledger of ours")
        marked = db.execute("SELECT value FROM meta WHERE key = 'lost'").fetchone()
        self.lost = marked["value"] if marked else self.lost
        for row in db.execute("SELECT body FROM state"):
            try:
                _CLUSTER.validate_json(row["body"])
            except ValueError as exc:
                db.close()
                raise sqlite3.DatabaseError(
                    f"state is unreadable: {str(exc).splitlines()[0]}"
                ) from exc
        return db

    def _quarantine(self, why: str) -> None:
        """Keep the damaged file for people, and start anew."""
        stamp = time.strftime("%Y%m%dT%H%M%S")
        kept = self.path.with_name(f"{self.path.name}.damaged-{stamp}")
        for suffix in ("", "-wal", "-shm"):
            old = self.path.with_name(self.path.name + suffix)
            if old.exists():
                old.rename(kept.with_name(kept.name + suffix))
        self.lost = f"{why}; the old file is kept as {kept}"

    def close(self) -> None:
        """For tests and tools: an engine's end is its process's."""
        self._db.close()
        os.close(self._lock)

    def _anchor(self) -> Anchor | None:
        row = self._db.execute("SELECT boot, boottime, timeline FROM clock").fetchone()
        return Anchor(*row) if row else None

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            anchor = self.timeline.anchor()
            self._db.execute(
                "INSERT OR REPLACE INTO clock VALUES (1, ?, ?, ?)",
                (anchor.boot, anchor.boottime, anchor.timeline),
            )
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def clusters(self) -> dict[str, ClusterState]:
        """What was remembered, by cluster."""
        rows = self._db.execute("SELECT cluster, body FROM state")
        return {row["cluster"]: _CLUSTER.validate_json(row["body"]) for row in rows}

    def jid(self, attempt: str) -> str | None:
        """The JID minted for this attempt."""
        row = self._db.execute("SELECT jid FROM attempts WHERE id = ?", (attempt,)).fetchone()
        return row["jid"] if row else None

    def beat(self) -> None:
        """Nothing happened, but time went on."""
        with self._transaction():
            pass

    def commit(
        self,
        now: float,
        changed: Iterable[ClusterState],
        effects: Iterable[Effect],
        orders: Mapping[str, tuple[str, list[str]]],
    ) -> None:
        """One transition, all or nothing.

        ``orders`` holds, for each attempt fired for the first time, its JID and the job's arguments.
        """
        with self._transaction():
            if self.lost:
                self._db.execute("DELETE FROM meta WHERE key = 'lost'")
            for cluster in changed:
                body = _CLUSTER.dump_json(cluster).decode()
                self._db.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (cluster.name, body))
            for effect in effects:
                self._record(effect, now, orders)
        self.lost = None

    def _record(
        self, effect: Effect, now: float, orders: Mapping[str, tuple[str, list[str]]]
    ) -> None:
        if isinstance(effect, Fire):
            attempt = effect.attempt
            boot, since_boot = boot_id(), boottime()
            if attempt.id in orders:
                jid, args = orders[attempt.id]
                self._db.execute(
                    "INSERT INTO attempts VALUES (?,?,?,?,?,?,?,?,?,?,?,NULL,NULL,NULL)",
                    (attempt.id, jid, attempt.cluster, attempt.incident, attempt.action.value,
                     json.dumps(attempt.nodes), json.dumps(args), attempt.firings, attempt.decided_at,
                     boot, since_boot),
                )  # fmt: skip
            elif attempt.firings == 1:
                raise LedgerError(f"attempt {attempt.id} has no JID")
            else:
                self._db.execute(
                    "UPDATE attempts SET firings=?, fired_boot=?, fired_boottime=? WHERE id=? AND ended_at IS NULL",
                    (attempt.firings, boot, since_boot, attempt.id),
                )
            told = {
                "attempt": attempt.id, "action": attempt.action.value, "minions": attempt.nodes,
                "firing": attempt.firings, "jid": self.jid(attempt.id),
            }  # fmt: skip
            self._audit(now, attempt.cluster, attempt.incident, "fire", told)
        elif isinstance(effect, Finish):
            attempt = effect.attempt
            self._db.execute(
                "UPDATE attempts SET ended_at=?, outcome=?, why=? WHERE id=? AND ended_at IS NULL",
                (now, effect.outcome.value, effect.why, attempt.id),
            )
            told = {"attempt": attempt.id, "action": attempt.action.value, "outcome": effect.outcome.value,
                    "why": effect.why}  # fmt: skip
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
            told = {"said": effect.said, "fault": incident.called, "nodes": incident.nodes,
                    "step": incident.step + 1, "attempt": effect.attempt, "why": effect.why}  # fmt: skip
            self._audit(now, incident.cluster, incident.id, "incident", told)
        elif isinstance(effect, Answer):
            self._answer(now, effect)
        elif isinstance(effect, Tell):
            told = {
                "said": effect.what,
                "nodes": [effect.node] if effect.node else [],
                "why": effect.why,
            }
            self._audit(now, effect.cluster, None, "health", told)

    def _answer(self, now: float, effect: Answer) -> None:
        request = effect.request
        answer = {"reply": effect.reply.value, "why": effect.why, "incident": effect.incident}
        self._db.execute(
            "INSERT INTO inbox (key, kind, body, put_at, answered_at, answer) VALUES (?,?,?,?,?,?)"
            " ON CONFLICT (key) DO UPDATE SET answered_at=excluded.answered_at, answer=excluded.answer"
            " WHERE answered_at IS NULL",
            (
                request.id,
                "request",
                _REQUEST.dump_json(request).decode(),
                now,
                now,
                json.dumps(answer),
            ),
        )
        told = {"request": request.id, "door": request.door, "asker": request.asker,
                "action": request.action, "nodes": request.nodes, "reason": request.reason, **answer}  # fmt: skip
        self._audit(now, request.cluster, effect.incident, "request", told)

    def _audit(
        self, now: float, cluster: str, incident: str | None, kind: str, body: Mapping[str, Any]
    ) -> None:
        row = self._db.execute("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1").fetchone()
        seq, before = (row["seq"] + 1, row["hash"]) if row else (1, "")
        text = json.dumps(body, sort_keys=True, ensure_ascii=False)
        link = link_hash(before, seq, now, cluster, incident, kind, text)
        self._db.execute(
            "INSERT INTO audit VALUES (?,?,?,?,?,?,?)",
            (seq, now, cluster, incident, kind, text, link),
        )

    def note(self, now: float, kind: str, body: Mapping[str, Any]) -> None:
        """An audit row about the engine itself."""
        with self._transaction():
            self._audit(now, "", None, kind, body)

    def waiting(self) -> list[Request]:
        """Requests in the inbox without an answer, oldest first. Cheap while nobody writes."""
        version = self._db.execute("PRAGMA data_version").fetchone()[0]
        if version == self._seen_version:
            return []
        self._seen_version = version
        rows = self._db.execute(
            "SELECT seq, body FROM inbox WHERE answered_at IS NULL AND kind = 'request' ORDER BY seq LIMIT 1000"
        ).fetchall()
        if len(rows) == 1000:
            self._seen_version = -1
        requests = []
        for row in rows:
            try:
                requests.append(_REQUEST.validate_json(row["body"]))
            except ValueError:
                self._refuse_row(row["seq"])
        return requests

    def _refuse_row(self, seq: int) -> None:
        """A row that no runner of ours wrote must not hold up the others."""
        refused = {"reply": "refused", "why": "it has not the form of a request", "incident": None}
        with self._transaction():
            self._db.execute(
                "UPDATE inbox SET answered_at = ?, answer = ? WHERE seq = ?",
                (self.timeline.now(), json.dumps(refused), seq),
            )

    def look_again(self) -> None:
        """What `waiting` gave last was not dealt with: give it again."""
        self._seen_version = -1

    def answered(self, request: str) -> bool:
        """Whether a request of this id has had its answer."""
        row = self._db.execute("SELECT answered_at FROM inbox WHERE key = ?", (request,)).fetchone()
        return row is not None and row["answered_at"] is not None


def link_hash(
    before: str, seq: int, at: float, cluster: str, incident: str | None, kind: str, text: str
) -> str:
    """One link of the audit's chain."""
    joined = json.dumps([before, seq, at, cluster, incident, kind, text], ensure_ascii=False)
    return hashlib.sha256(joined.encode()).hexdigest()


# ---------------------------------------------------------------- everybody else's side


def engine_alive(path: Path) -> bool:
    """Whether an engine holds this ledger: the kernel forgets the lock with the process."""
    try:
        with _lock_path(path).open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


@contextmanager
def read(path: Path) -> Iterator[sqlite3.Connection]:
    """A read-only look into the ledger. Raises LedgerError if there is none."""
    if not path.exists():
        raise LedgerError(f"{path}: no ledger; the engine has not run yet")
    db = _connect(path, "ro")
    try:
        yield db
    except sqlite3.Error as exc:
        raise LedgerError(f"{path}: {exc}") from exc
    finally:
        db.close()


def now(db: sqlite3.Connection) -> float:
    """The timeline's present, as a reader sees it."""
    row = db.execute("SELECT boot, boottime, timeline FROM clock").fetchone()
    return Timeline(Anchor(*row) if row else None).now()


def order(path: Path, jid: str) -> dict[str, Any] | None:
    """What the job of this JID may do: fired by the engine less than a minute ago and not ended; else None."""
    with read(path) as db:
        row = db.execute(
            "SELECT cluster, action, minions, args, fired_boot, fired_boottime FROM attempts"
            " WHERE jid = ? AND ended_at IS NULL",
            (jid,),
        ).fetchone()
    if row is None or row["fired_boot"] != boot_id():
        return None
    if not 0 <= boottime() - row["fired_boottime"] < FIRED_WITHIN_S:
        return None
    return {
        "jid": jid,
        "cluster": row["cluster"],
        "action": row["action"],
        "minions": json.loads(row["minions"]),
        "args": json.loads(row["args"]),
    }


def ask(path: Path, request: Request) -> None:
    """Put a request into the inbox. One that is there already stays as it is."""
    if not path.exists():
        raise LedgerError(f"{path}: no ledger; the engine has not run yet")
    db = _connect(path, "rw")
    try:
        db.execute(
            "INSERT OR IGNORE INTO inbox (key, kind, body, put_at) VALUES (?, 'request', ?, ?)",
            (request.id, _REQUEST.dump_json(request).decode(), now(db)),
        )
    except sqlite3.Error as exc:
        raise LedgerError(f"{path}: {exc}") from exc
    finally:
        db.close()


def answer(db: sqlite3.Connection, request: str) -> dict[str, Any] | None:
    """The answer to a request, with the JID of its incident's latest attempt; None while there is none."""
    row = db.execute("SELECT answer FROM inbox WHERE key = ?", (request,)).fetchone()
    if row is None or row["answer"] is None:
        return None
    told: dict[str, Any] = json.loads(row["answer"])
    last = db.execute(
        "SELECT jid FROM attempts WHERE incident = ? AND action != 'look' ORDER BY decided_at DESC LIMIT 1",
        (told["incident"],),
    ).fetchone()
    return {**told, "jid": last["jid"] if last else None}


def states(db: sqlite3.Connection) -> dict[str, ClusterState]:
    """What the engine remembers of each cluster."""
    rows = db.execute("SELECT cluster, body FROM state")
    return {row["cluster"]: _CLUSTER.validate_json(row["body"]) for row in rows}


def history(
    db: sqlite3.Connection, cluster: str | None, since: float, limit: int
) -> list[dict[str, Any]]:
    """Audit rows, newest first."""
    where, values = "at >= ?", [since]
    if cluster is not None:
        where, values = "cluster = ? AND at >= ?", [cluster, since]  # type: ignore[list-item]
    rows = db.execute(
        f"SELECT seq, at, cluster, incident, kind, body FROM audit WHERE {where} ORDER BY seq DESC LIMIT ?",
        (*values, limit),
    )
    return [{**json.loads(row["body"]), **{k: row[k] for k in ("seq", "at", "cluster", "incident", "kind")}}
            for row in rows]  # fmt: skip
