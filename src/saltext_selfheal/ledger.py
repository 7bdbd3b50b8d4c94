"""What the healer remembers: one SQLite file, written by the engine alone.

`Ledger` is the engine's side (one thread, one process at a time: a lock file says which). `read` and `ask` are for
runners and for the reactor's ``attempt()``: they read, and the runner inserts requests and commands into the inbox;
nobody but the engine writes anything else. The healer's timeline lives here too, because it must survive what the ledger
survives. No Salt in this file, no decision.
"""

from __future__ import annotations

import fcntl
import glob
import hashlib
import json
import math
import os
import re
import sqlite3
import stat
import time
import zlib
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from contextlib import ExitStack
from contextlib import closing
from contextlib import contextmanager
from contextlib import suppress
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path
from typing import Annotated
from typing import Any

from pydantic import Field
from pydantic import TypeAdapter

from .healing.model import Announce
from .healing.model import Answer
from .healing.model import ClusterState
from .healing.model import Command
from .healing.model import Effect
from .healing.model import Finish
from .healing.model import Fire
from .healing.model import Request
from .healing.model import Tell
from .healing.model import Verb

SCHEMA = 2
FIRED_WITHIN_S = 60.0  #: a remediation event older than this is nobody's order any more
LOOK_S = 0.5  #: `engine_alive` holds the lock far shorter than this
LINKS_AT_START = 1000  #: of the audit's chain; `audit` proves all of it
MOST_SAID = 500  #: characters of why a ledger was lost
PRUNED_AT_ONCE = 2000  #: rows that one call removes at most, so that its transaction is short
QUESTIONS_KEPT_S = 3600.0  #: whoever asked has read the answer
BODY_BYTES = 64 * 1024  #: of what is asked, at most: a runner of ours writes a tenth of it
END_OF_TIME = 253402300800.0  #: the year 10000: no date can be told from there on
INBOX_KEPT_S = 7 * 86400.0  #: an id that comes again within this time still has its answer
#: As the kernel names them, of remote hosts or shared with some. What runs in user space is judged by `on_network`.
NETWORK_FILE_SYSTEMS = frozenset((
    "9p", "acfs", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "fhgfs", "fuse", "gfs", "gfs2",
    "glusterfs", "gpfs", "hgfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "panfs", "prl_fs",
    "pvfs2", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs", "wekafs", "fuse.glusterfs", "fuse.sshfs",
))  # fmt: skip
#: What the kernel calls fuse.<kind> is mostly remote, and new ones come each year: these are on this machine's disks.
LOCAL_IN_USER_SPACE = frozenset({"fuse.fuse-overlayfs", "fuse.zfs"})

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
CREATE INDEX audit_of ON audit (cluster, seq);
CREATE INDEX audit_by_incident ON audit (incident, seq);
"""

#: What brings a ledger from this schema to the next.
_MIGRATIONS = {
    1: "CREATE INDEX audit_of ON audit (cluster, seq); DROP INDEX audit_by_cluster;",
}

#: Tables that stay small: the audit's pages are not walked at the start.
_SMALL = ("state", "meta", "clock", "attempts", "incidents", "inbox")

#: What SQLite says where the file itself is not to blame.
_OUTSIDE = (
    "locked", "permission denied", "aborted", "readonly", "interrupted", "I/O error", "is full", "unable to open",
    "locking protocol", "schema has changed",
)  # fmt: skip

_ANCHOR = "anchor"  #: in meta: seq and hash of the last audit row that was pruned
_HEAD = "head"  #: in meta: how many transitions there were, seq and hash of the audit's last row

_Count = Annotated[int, Field(strict=True, ge=0, lt=2**62)]
_ANCHORED = TypeAdapter(tuple[_Count, str])
_HEADED = TypeAdapter(tuple[_Count, _Count, str])
_MARKED = TypeAdapter(tuple[_Count, _Count, str, str, str])
_CLUSTER = TypeAdapter(ClusterState)
_REQUEST = TypeAdapter(Request)
_COMMAND = TypeAdapter(Command)
#: As bytes and as what it is: a runner of ours writes text and numbers, but whoever may write can write anything.
_UNANSWERED = (
    "SELECT seq, CAST(key AS BLOB) AS key, CAST(kind AS BLOB) AS kind,"
    f" CASE WHEN length(CAST(body AS BLOB)) <= {BODY_BYTES} THEN CAST(body AS BLOB) END AS body,"
    " CASE WHEN typeof(put_at) IN ('real', 'integer') THEN put_at END AS put_at"
    " FROM inbox WHERE answered_at IS NULL ORDER BY seq LIMIT ?"
)
_KINDS: dict[str, TypeAdapter[Any]] = {
    "request": _REQUEST,
    "command": _COMMAND,
    "question": _COMMAND,
}


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


# ---------------------------------------------------------------- how far it had come


@dataclass(frozen=True)
class Head:
    """Where a ledger ends: how many transitions there were, and the audit's last link."""

    count: int
    seq: int
    link: str

    def text(self) -> str:
        return json.dumps([self.count, self.seq, self.link])


@dataclass(frozen=True)
class Mark:
    """What the lock file says of the ledger beside it.

    SQLite takes a log that is damaged, cut or gone for the end of what was written, and an older copy of the file for
    a sound one. Both end before the mark. It is written after each transition, and not waited for: if the machine
    goes down it may be older than the ledger, never newer.
    """

    head: Head
    lost: str = ""  #: why, and where to, while a ledger is being put aside
    kept: str = ""  #: the name it gets


def _read_mark(lock: int) -> Mark | None:
    """None if there is none. One that is torn says nothing."""
    line = os.pread(lock, 65536, 0).partition(b"\n")[0]
    check, _, text = line.partition(b" ")
    try:
        if int(check, 16) != zlib.crc32(text):
            return None
        count, seq, link, lost, kept = _MARKED.validate_json(text)
    except ValueError:
        return None
    return Mark(Head(count, seq, link), lost, kept)


def _write_mark(lock: int, mark: Mark) -> None:
    head = mark.head
    text = json.dumps([head.count, head.seq, head.link, mark.lost, mark.kept]).encode()
    with suppress(OSError):  # what was committed stays so; the mark is only older
        os.pwrite(lock, b"%08x %s\n" % (zlib.crc32(text), text), 0)


# ---------------------------------------------------------------- the engine's side


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    db = sqlite3.connect(
        f"{path.as_uri()}?mode={mode}", uri=True, timeout=5.0, isolation_level=None
    )
    db.row_factory = sqlite3.Row
    return db


def _damaged(exc: sqlite3.DatabaseError) -> bool:
    """Whether this speaks of the file's content, not of the world around it."""
    outside = any(word in str(exc) for word in _OUTSIDE)
    return not (isinstance(exc, sqlite3.OperationalError) and outside)


def _newer(path: Path, db: sqlite3.Connection) -> None:
    """Raises LedgerRefused if a later release wrote this ledger."""
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA:
        raise LedgerRefused(
            f"{path}: schema {version} is newer than this release knows ({SCHEMA}); "
            "install the release that wrote it"
        )


def file_system(path: Path) -> str:
    """The type of the file system that holds this path, as the kernel names it; empty if unknown."""
    best, kind = "", ""
    try:
        mounts = Path("/proc/self/mounts").read_bytes()
    except OSError:
        return ""
    where = os.path.realpath(path)
    for line in os.fsdecode(mounts).split("\n"):
        parts = line.split(" ")
        if len(parts) < 3:
            continue
        # The kernel writes blanks, line ends and backslashes as octal numbers, and all other bytes as they are.
        point = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), parts[1])
        inside = where == point or where.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, parts[2]
    return kind


def on_network(kind: str) -> bool:
    """Whether two machines could hold a lock on a file there at once, as far as the file system's type tells."""
    return kind in NETWORK_FILE_SYSTEMS or (
        kind.startswith("fuse.") and kind not in LOCAL_IN_USER_SPACE
    )


def _for_us_alone(path: Path) -> None:
    """Nobody else may read or write this file, however it came here. Raises LedgerError."""
    found = path.stat()
    mode = stat.S_IMODE(found.st_mode)
    if not mode & 0o077:
        return
    try:
        path.chmod(mode & 0o700)
    except OSError as exc:
        raise LedgerError(
            f"{path}: found mode {mode:04o} and owner {found.st_uid}; allowed: 0600, owner {os.geteuid()}"
        ) from exc


def lock_path(path: Path) -> Path:
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
        except sqlite3.Error as exc:
            raise LedgerError(f"{path}: {exc}") from exc
        self._seen_version = -1

    def _take(self, path: Path) -> None:
        """Lock it, and open it. Raises LedgerError, OSError or sqlite3.Error; then nothing is held."""
        directory = path.parent
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The file may be a link: the database lies where that leads.
        kind = file_system(Path(os.path.realpath(path)).parent)
        if on_network(kind):
            raise LedgerRefused(
                f"{path}: on {kind}; a local file system is needed, set ledger.path"
            )
        with ExitStack() as undo:
            self._lock = os.open(lock_path(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            undo.callback(os.close, self._lock)  # else it would seem that an engine runs
            self._hold()
            _for_us_alone(lock_path(path))
            self._mark = _read_mark(self._lock)
            if not path.exists():
                self.lost = self._missing()
            self._db = self._open()
            undo.callback(self._db.close)
            self._head = _head(self._db)
            self.timeline = Timeline(self._anchor())
            _write_mark(self._lock, Mark(self._head))
            undo.pop_all()

    def _hold(self) -> None:
        """Take the lock. Raises LedgerBusy if another engine has it, or OSError."""
        until = time.monotonic() + LOOK_S
        while True:
            try:
                return fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise LedgerBusy(f"{self.path}: another engine uses it") from None
            time.sleep(LOOK_S / 20)

    def _missing(self) -> str | None:
        """Why there is no file; None if there never was one."""
        if self._mark and self._mark.lost:
            return self._mark.lost  # it was put aside, and no new one could be made
        files = self._files(self.path)
        aside = sorted(self.path.parent.glob(f"{glob.escape(self.path.name)}.damaged-*"))
        whole = [p for p in aside if not p.name.endswith(("-wal", "-shm", "-journal"))]
        # An empty lock file proves nothing: a first start leaves it behind when the disk is full.
        if not (os.fstat(self._lock).st_size or aside or any(p.exists() for p in files)):
            return None
        told = f"{self.path} is missing"
        return f"{told}; the newest file that was put aside is {whole[-1]}" if whole else told

    def _open(self) -> sqlite3.Connection:
        try:
            return self._open_checked()
        except sqlite3.DatabaseError as exc:
            if not (
                _damaged(exc) and self.path.exists()
            ):  # one that could not be made is no damaged one
                raise LedgerError(f"{self.path}: {exc}") from exc
            why = str(exc)
        self._quarantine(why)
        try:
            return self._open_checked()
        except sqlite3.Error as exc:
            raise LedgerError(f"{self.path}: {exc}") from exc

    def _open_checked(self) -> sqlite3.Connection:
        found = self.path.exists()
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        for one in self._files(Path(os.path.realpath(self.path))):
            if one.exists():
                _for_us_alone(one)
        version = self._examine() if found else 0
        db = _connect(self.path, "rw")
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            if not version:
                # That something was lost is forgotten with the first transition, not with the next crash.
                lost = (self.lost or "").replace("'", "''")
                told = f"INSERT INTO meta VALUES ('lost', '{lost}');" if lost else ""
                # It counts on from the one before: an engine that ends here leaves it newer than the mark.
                head = Head(self._mark.head.count + 1 if self._mark else 1, 0, "").text()
                told += f"INSERT INTO meta VALUES ('{_HEAD}', '{head}');"
                db.executescript(f"BEGIN; {_TABLES} {told} PRAGMA user_version={SCHEMA}; COMMIT;")
            elif version < SCHEMA:
                self._migrate(db, version)
            marked = db.execute("SELECT value FROM meta WHERE key = 'lost'").fetchone()
            self.lost = marked["value"] if marked else self.lost
        except BaseException:
            db.close()  # left open, it would take the next ledger's files for its own
            if not found:  # a full disk: the next try would take what we began for a damaged ledger
                for one in self._files(self.path):
                    one.unlink(missing_ok=True)
            raise
        return db

    def _examine(self) -> int:
        """The schema of a ledger that can be used; 0 = nothing was written yet. Changes nothing in the file.

        Raises LedgerRefused, or sqlite3.DatabaseError.
        """
        if not self.path.stat().st_size:
            raise sqlite3.DatabaseError("the file is empty")
        # Only who may write can finish what another journal mode left behind.
        mode = "rw" if self.path.with_name(self.path.name + "-journal").exists() else "ro"
        with closing(_connect(self.path, mode)) as db:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            _newer(self.path, db)
            if version <= 0:
                if version or db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    raise sqlite3.DatabaseError("no ledger of ours")
                raise sqlite3.DatabaseError("it was begun and never finished")
            for table in _SMALL:
                verdict = db.execute(f"PRAGMA quick_check({table})").fetchone()[0]
                if verdict != "ok":
                    raise sqlite3.DatabaseError(f"{table}: {verdict}")
            states(db)
            try:
                present = now(db)
            except TypeError as exc:
                raise sqlite3.DatabaseError(f"clock is unreadable: {exc}") from exc
            if not math.isfinite(present):  # every cooldown would be over
                raise sqlite3.DatabaseError(f"clock is unreadable: found {present}")
            chain = _chain(db, LINKS_AT_START)
            if chain.broken is not None:
                raise sqlite3.DatabaseError(
                    f"the audit's chain is broken at seq {chain.broken}: {chain.why}"
                )
            self._compare(_head(db))
            return int(version)

    def _compare(self, head: Head) -> None:
        """Raises sqlite3.DatabaseError if the ledger ends before the mark."""
        mark = self._mark
        if mark is None or head.count > mark.head.count:
            return
        if mark.lost:  # an engine ended while it put this one aside
            raise sqlite3.DatabaseError(mark.lost)
        if (
            head == mark.head or head.count == mark.head.count == 0
        ):  # an older release wrote no heads
            return
        raise sqlite3.DatabaseError(
            f"expected transition {mark.head.count} and audit entry {mark.head.seq} at its end, found "
            f"{head.count} and {head.seq}: its -wal is damaged or gone, or an older copy was put there"
        )

    def _migrate(self, db: sqlite3.Connection, version: int) -> None:
        try:
            script = " ".join(_MIGRATIONS[step] for step in range(version, SCHEMA))
            db.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version={SCHEMA}; COMMIT;")
        except (KeyError, sqlite3.DatabaseError) as exc:
            if isinstance(exc, sqlite3.DatabaseError) and not _damaged(exc):
                raise
            raise sqlite3.DatabaseError(
                f"schema {version} could not be brought to {SCHEMA}: {exc}"
            ) from exc

    @staticmethod
    def _files(path: Path) -> list[Path]:
        """A database and what SQLite keeps beside it."""
        return [path.with_name(path.name + end) for end in ("", "-wal", "-shm", "-journal")]

    def _quarantine(self, why: str) -> None:
        """Keep the damaged file for people, and start anew. Who ends meanwhile leaves a word for the next engine."""
        mark = self._mark
        if mark is None or not mark.lost or self._in_the_way(mark.kept):
            kept = self._free_name()
            lost = f"{why[:MOST_SAID]}; the old file is kept as {kept}"
            mark = Mark(mark.head if mark else Head(0, 0, ""), lost, kept.name)
            _write_mark(self._lock, mark)
            with suppress(OSError):
                os.fsync(self._lock)
            self._mark = mark
        # The file itself last: without its log it could pass for a sound one, and the log would be overwritten.
        for old, new in reversed(self._moves(mark.kept)):
            if new.exists():
                old.unlink()  # made anew, and empty, by who looked at what was left
            else:
                old.rename(new)
        self.lost = mark.lost

    def _moves(self, name: str) -> list[tuple[Path, Path]]:
        """What is to be renamed, and to what, to put the ledger aside under this name."""
        files = zip(self._files(self.path), self._files(self.path.with_name(name)), strict=True)
        return [(old, new) for old, new in files if old.exists()]

    def _in_the_way(self, name: str) -> bool:
        """Whether something lies there that one of the ledger's files would be lost to."""
        return any(
            new.exists() and old.stat().st_size and not old.name.endswith("-shm")
            for old, new in self._moves(name)
        )

    def _free_name(self) -> Path:
        stamp = time.strftime("%Y%m%dT%H%M%S")
        free, more = self.path.with_name(f"{self.path.name}.damaged-{stamp}"), 1
        while any(one.exists() for one in self._files(free)):  # two in one second
            more += 1
            free = self.path.with_name(f"{self.path.name}.damaged-{stamp}.{more}")
        return free

    def close(self) -> None:
        """For tests and tools: an engine's end is its process's."""
        self._db.close()
        os.close(self._lock)

    def _anchor(self) -> Anchor | None:
        row = self._db.execute("SELECT boot, boottime, timeline FROM clock").fetchone()
        return Anchor(*row) if row else None

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        before = self._head
        self._db.execute("BEGIN IMMEDIATE")
        try:
            anchor = self.timeline.anchor()
            self._db.execute(
                "INSERT OR REPLACE INTO clock VALUES (1, ?, ?, ?)",
                (anchor.boot, anchor.boottime, anchor.timeline),
            )
            yield
            self._head = replace(self._head, count=before.count + 1)
            self._put(_HEAD, self._head.text())
            self._db.execute("COMMIT")
        except BaseException:
            self._head = before
            if self._db.in_transaction:  # a full disk ends it
                self._db.execute("ROLLBACK")
            raise
        _write_mark(self._lock, Mark(self._head))

    def _put(self, key: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def clusters(self) -> dict[str, ClusterState]:
        """What was remembered, by cluster."""
        return states(self._db)

    def jid(self, attempt: str) -> str | None:
        """The JID minted for this attempt."""
        row = self._db.execute("SELECT jid FROM attempts WHERE id = ?", (attempt,)).fetchone()
        return row["jid"] if row else None

    def beat(self) -> None:
        """Nothing happened, but time went on. What was written moves from the log into the file."""
        with self._transaction():
            pass
        with suppress(sqlite3.Error):  # it stays in the log, and is as safe there
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

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
            self._audit(now, effect.cluster, effect.incident, "health", told)

    def _answer(self, now: float, effect: Answer) -> None:
        asked = effect.request
        answer = {"reply": effect.reply.value, "why": effect.why, "incident": effect.incident}
        kind = _kind(asked)
        told = {"told": [dict(one) for one in effect.told]} if effect.told else {}
        self._db.execute(
            "INSERT INTO inbox (key, kind, body, put_at, answered_at, answer) VALUES (?,?,?,?,?,?)"
            " ON CONFLICT (key) DO UPDATE SET answered_at=excluded.answered_at, answer=excluded.answer"
            " WHERE answered_at IS NULL",
            (asked.id, kind, _dump(asked), now, now, json.dumps({**answer, **told}, default=str)),
        )
        if isinstance(asked, Request):
            if effect.repeated:
                return  # its incident counts it, and the row above has its answer
            body = {"request": asked.id, "door": asked.door, "asker": asked.asker, "action": asked.action,
                    "nodes": asked.nodes, "reason": asked.reason, **answer}  # fmt: skip
            self._audit(now, asked.cluster, effect.incident, kind, body)
        elif asked.verb is not Verb.EXPLAIN:  # who only asks changes nothing
            incident = effect.incident or asked.incident
            body = {"command": asked.id, "verb": asked.verb.value, "by": asked.by, "cluster": asked.cluster,
                    "nodes": asked.nodes, "for_s": asked.for_s, "reason": asked.reason, **answer,
                    "incident": incident}  # fmt: skip
            self._audit(now, self._cluster_of(asked), incident, kind, body)

    def _cluster_of(self, command: Command) -> str:
        """Where a command belongs: its cluster, or that of its incident; empty for all."""
        if command.cluster or not command.incident:
            return command.cluster or ""
        row = self._db.execute(
            "SELECT cluster FROM incidents WHERE id = ?", (command.incident,)
        ).fetchone()
        cluster: str = row["cluster"] if row else command.incident.rpartition("-")[0]
        return cluster

    def _audit(
        self, now: float, cluster: str, incident: str | None, kind: str, body: Mapping[str, Any]
    ) -> None:
        now = float(now)  # as it will be read
        # On from what we wrote last, not from what lies there: what was cut off or added must show.
        last = self._db.execute("SELECT coalesce(max(seq), 0) FROM audit").fetchone()[0]
        seq = max(self._head.seq, last) + 1
        text = json.dumps(body, sort_keys=True, ensure_ascii=False)
        link = link_hash(self._head.link, seq, now, cluster, incident, kind, text)
        self._db.execute(
            "INSERT INTO audit VALUES (?,?,?,?,?,?,?)",
            (seq, now, cluster, incident, kind, text, link),
        )
        self._head = replace(self._head, seq=seq, link=link)

    def note(self, now: float, kind: str, body: Mapping[str, Any]) -> None:
        """An audit row about the engine itself."""
        with self._transaction():
            self._audit(now, "", None, kind, body)

    def waiting(self, most: int = 200) -> list[Request | Command]:
        """What lies in the inbox without an answer, oldest first, so many at a time. Cheap while nobody writes."""
        version = self._db.execute("PRAGMA data_version").fetchone()[0]
        if version == self._seen_version:
            return []
        found: list[Request | Command] = []
        more = True
        while more and not found:  # nothing at all would mean that nothing waits
            rows = self._db.execute(_UNANSWERED, (most,)).fetchall()
            more = len(rows) == most
            asked = [(row, _asked(row)) for row in rows]
            found = [one for _, one in asked if one is not None]
            self._refuse_rows([row for row, one in asked if one is None])
        self._seen_version = -1 if more else version
        return found

    def _refuse_rows(self, rows: list[sqlite3.Row]) -> None:
        """Rows that no runner of ours wrote must not hold up the others. What they say goes nowhere."""
        if not rows:
            return
        with self._transaction():
            self._db.executemany(
                "UPDATE inbox SET answered_at = ?, answer = ? WHERE seq = ?",
                [(self.timeline.now(), json.dumps(_refusal(row)), row["seq"]) for row in rows],
            )

    def look_again(self) -> None:
        """What `waiting` gave last was not dealt with: give it again."""
        self._seen_version = -1

    def answered(self, asked: str) -> bool:
        """Whether a request or a command of this id has had its answer."""
        row = self._db.execute("SELECT answered_at FROM inbox WHERE key = ?", (asked,)).fetchone()
        return row is not None and row["answered_at"] is not None

    def prune(self, now: float, keep_s: float | None) -> int:
        """Forget what is older than ``keep_s``, a bounded part at a time; says how many rows went.

        `PRUNED_AT_ONCE` of them mean that there may be more. Nothing of an incident that has not ended goes, nor
        any audit row after its first; but answers go after `INBOX_KEPT_S`, however long history is kept. No
        ``keep_s`` keeps everything.
        """
        with self._transaction():
            removed = self._db.execute(
                "DELETE FROM inbox WHERE seq IN"
                " (SELECT seq FROM inbox WHERE kind = 'question' AND answered_at < ? LIMIT ?)",
                (now - QUESTIONS_KEPT_S, PRUNED_AT_ONCE),
            ).rowcount
            if not keep_s:
                return removed
            before = now - keep_s
            removed += self._prune_audit(before, PRUNED_AT_ONCE - removed)
            removed += self._prune_incidents(before, PRUNED_AT_ONCE - removed)
            removed += self._prune_attempts(before, PRUNED_AT_ONCE - removed)
            removed += self._db.execute(
                "DELETE FROM inbox WHERE seq IN (SELECT seq FROM inbox ORDER BY seq LIMIT ?) AND answered_at < ?",
                (PRUNED_AT_ONCE - removed, now - INBOX_KEPT_S),
            ).rowcount
        return removed

    def _prune_audit(self, before: float, most: int) -> int:
        """Only the oldest contiguous part; its last row stays as the anchor of what is left."""
        bound = self._db.execute(
            "SELECT min((SELECT min(seq) FROM audit WHERE incident = incidents.id))"
            " FROM incidents WHERE ended_at IS NULL"
        ).fetchone()[0]
        start, _ = _anchor(self._db)  # what lies before it is none of ours, and stays to be found
        last, removed = None, 0
        for row in self._db.execute(
            "SELECT seq, at, hash FROM audit WHERE seq > ? ORDER BY seq LIMIT ?", (start, most)
        ):
            if row["at"] >= before or (bound is not None and row["seq"] >= bound):
                break
            last, removed = row, removed + 1
        if last is not None:
            self._db.execute("DELETE FROM audit WHERE seq > ? AND seq <= ?", (start, last["seq"]))
            self._put(_ANCHOR, json.dumps([last["seq"], last["hash"]]))
        return removed

    def _prune_incidents(self, before: float, most: int) -> int:
        """An incident goes when none of its audit rows is left."""
        return self._db.execute(
            "DELETE FROM incidents WHERE id IN (SELECT id FROM incidents AS old WHERE ended_at < ?"
            " AND NOT EXISTS (SELECT 1 FROM audit WHERE incident = old.id) LIMIT ?)",
            (before, most),
        ).rowcount

    def _prune_attempts(self, before: float, most: int) -> int:
        """An attempt goes after its incident, but not while the healer still waits for its results."""
        old = self._db.execute(
            "SELECT id FROM attempts WHERE coalesce(ended_at, decided_at) < ?"
            " AND incident NOT IN (SELECT id FROM incidents) LIMIT ?",
            (before, most),
        ).fetchall()
        if not old:
            return 0
        needed = {
            a.id
            for c in self.clusters().values()
            for a in (c.attempt, c.look, *(late.attempt for late in c.late))
            if a
        }
        gone = [(row["id"],) for row in old if row["id"] not in needed]
        self._db.executemany("DELETE FROM attempts WHERE id = ?", gone)
        return len(gone)


# ---------------------------------------------------------------- the chain


def link_hash(
    before: str, seq: int, at: float, cluster: str, incident: str | None, kind: str, text: str
) -> str:
    """One link of the audit's chain."""
    joined = json.dumps([before, seq, at, cluster, incident, kind, text], ensure_ascii=False)
    return hashlib.sha256(joined.encode()).hexdigest()


@dataclass(frozen=True)
class Chain:
    """How far the audit's chain holds. ``broken`` is the first seq that does not, ``why`` what was found there."""

    rows: int
    first: int | None
    last: int | None
    broken: int | None = None
    why: str = ""


def _anchor(db: sqlite3.Connection) -> tuple[int, str]:
    """Seq and hash of the last row that was pruned: what the first row that is left goes on from."""
    row = db.execute("SELECT value FROM meta WHERE key = ?", (_ANCHOR,)).fetchone()
    if row is None:
        return 0, ""
    try:
        return _ANCHORED.validate_json(row["value"])
    except ValueError as exc:
        found = row["value"][:100]
        raise sqlite3.DatabaseError(f"the audit's anchor is unreadable: {found!r}") from exc


def _head(db: sqlite3.Connection) -> Head:
    """Where the ledger says that it ends. One of an older release says nothing: then it is where it does end."""
    row = db.execute("SELECT value FROM meta WHERE key = ?", (_HEAD,)).fetchone()
    if row is None:
        last = db.execute("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1").fetchone()
        return Head(0, *(last or _anchor(db)))
    try:
        return Head(*_HEADED.validate_json(row["value"]))
    except ValueError as exc:
        found = row["value"][:100]
        raise sqlite3.DatabaseError(f"the audit's head is unreadable: {found!r}") from exc


def _chain(db: sqlite3.Connection, newest: int | None = None) -> Chain:
    """Prove the chain from its anchor to its head, or only the newest links. Holds one row at a time."""
    anchor, link = _anchor(db)
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
        if not _damaged(exc):
            raise
        why = f"expected a row, found a damaged file: {exc}"
        return Chain(rows, first, last if rows else None, last + 1, why)
    broken_at, why = _end(_head(db), last, link)
    return Chain(rows, first, last if rows else None, broken_at, why)


def _link(row: sqlite3.Row, last: int, link: str) -> tuple[str, str]:
    """What is wrong with this row, which should follow the one of this seq and hash; and the hash it should have."""
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
    """Where and why the chain, which ends here, does not end at its head."""
    if last < head.seq:
        return last + 1, f"expected entries up to seq {head.seq}, found none from {last + 1} on"
    if last > head.seq:
        return head.seq + 1, f"expected the end at seq {head.seq}, found it at {last}"
    if link != head.link:
        return last, f"expected hash {head.link} at the end, found {link!r}"
    return None, ""


# ---------------------------------------------------------------- everybody else's side


def engine_alive(path: Path) -> bool:
    """Whether an engine holds this ledger: the kernel forgets the lock with the process.

    Raises LedgerError where that cannot be told.
    """
    lock = lock_path(path)
    try:
        file = os.open(lock, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise OSError("it is no file")
            # Shared: two who ask at once must not take each other for the engine.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        finally:
            os.close(file)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except OSError as exc:
        raise LedgerError(
            f"{lock}: {exc.strerror or exc}; whether an engine runs cannot be told"
        ) from exc
    return False


@contextmanager
def read(path: Path) -> Iterator[sqlite3.Connection]:
    """A read-only look into the ledger. Raises LedgerError if there is none."""
    if not path.exists():
        raise LedgerError(f"{path}: no ledger; the engine has not run yet")
    db = None
    try:
        db = _connect(path, "ro")
        _newer(path, db)
        if not schema(db):
            raise LedgerError(f"{path}: empty or unfinished; the engine's next start puts it aside")
        yield db
    except sqlite3.Error as exc:
        raise LedgerError(f"{path}: {exc}") from exc
    finally:
        if db is not None:
            db.close()


def now(db: sqlite3.Connection) -> float:
    """The timeline's present, as a reader sees it."""
    row = db.execute("SELECT boot, boottime, timeline FROM clock").fetchone()
    return Timeline(Anchor(*row) if row else None).now()


def sign_of_life_s(db: sqlite3.Connection) -> float | None:
    """Seconds since the engine last wrote, on the timeline; None if it never has."""
    row = db.execute("SELECT timeline FROM clock").fetchone()
    return now(db) - row["timeline"] if row else None


def schema(db: sqlite3.Connection) -> int:
    """Which release's tables these are: `SCHEMA` are this one's."""
    return int(db.execute("PRAGMA user_version").fetchone()[0])


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


def _kind(asked: Request | Command) -> str:
    if isinstance(asked, Request):
        return "request"
    return "question" if asked.verb is Verb.EXPLAIN else "command"


def _dump(asked: Request | Command) -> str:
    return _KINDS[_kind(asked)].dump_json(asked).decode()


def ask(path: Path, asked: Request | Command) -> None:
    """Put a request or a command into the inbox. The same one again changes nothing.

    Raises LedgerError: also if the id stands there for another one.
    """
    if not path.exists():
        raise LedgerError(f"{path}: no ledger; the engine has not run yet")
    db = None
    try:
        db = _connect(path, "rw")
        _newer(path, db)
        db.execute(
            "INSERT OR IGNORE INTO inbox (key, kind, body, put_at) VALUES (?, ?, ?, ?)",
            (asked.id, _kind(asked), _dump(asked), now(db)),
        )
        (body,) = db.execute(
            "SELECT CAST(body AS BLOB) FROM inbox WHERE key = ?", (asked.id,)
        ).fetchone()
    except sqlite3.Error as exc:
        raise LedgerError(f"{path}: {exc}") from exc
    finally:
        if db is not None:
            db.close()
    if _meant(body) != _meant(_dump(asked).encode()):
        raise LedgerError(f"id {asked.id!r} was used for another request; give each its own")


def _meant(body: bytes) -> tuple[Any, ...] | None:
    """What makes a request this one: who wants what where. The reason may be put otherwise.

    None if no runner of ours wrote it.
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


def _asked(row: sqlite3.Row) -> Request | Command | None:
    """What a row of the inbox asks for; None if it has not the form, or an answer would not find its row."""
    put_at = row["put_at"]
    if row["body"] is None or put_at is None or not 0.0 <= put_at < END_OF_TIME:
        return None
    try:
        asked: Request | Command = _KINDS[row["kind"].decode()].validate_json(row["body"])
        found = asked.id == row["key"].decode()
    except (KeyError, ValueError):
        return None
    if isinstance(asked, Command) and not 0.0 <= asked.for_s < END_OF_TIME - put_at:
        return None  # neither the ledger nor who reads it can write that time down
    return replace(asked, at=put_at) if found else None


def _refusal(row: sqlite3.Row) -> dict[str, Any]:
    """The answer to a row that has not the form."""
    kind = row["kind"].decode(errors="replace")
    why = f"it has not the form of a {kind if kind in _KINDS else 'request'}"
    if row["body"] is None:
        why = f"{why}: it has more than {BODY_BYTES} bytes"
    return {"reply": "refused", "why": why, "incident": None}


def unanswered(db: sqlite3.Connection, most: int = 1000) -> list[Request | Command]:
    """What lies in the inbox for the engine's next start, oldest first."""
    found = map(_asked, db.execute(_UNANSWERED, (most,)))
    return [asked for asked in found if asked is not None]


def answer(db: sqlite3.Connection, asked: str) -> dict[str, Any] | None:
    """The answer to a request or a command, with the JID of its incident's latest attempt; None while there is none.

    ``told`` is there if the answer explains something.
    """
    row = db.execute("SELECT answer FROM inbox WHERE key = ?", (asked,)).fetchone()
    if row is None or row["answer"] is None:
        return None
    told: dict[str, Any] = json.loads(row["answer"])
    last = db.execute(
        "SELECT jid FROM attempts WHERE incident = ? AND action != 'look' ORDER BY decided_at DESC LIMIT 1",
        (told["incident"],),
    ).fetchone()
    return {**told, "jid": last["jid"] if last else None}


def waits(db: sqlite3.Connection, asked: str) -> bool:
    """Whether a request or a command of this id lies in the inbox without an answer."""
    row = db.execute("SELECT answered_at FROM inbox WHERE key = ?", (asked,)).fetchone()
    return row is not None and row["answered_at"] is None


def was_asked(db: sqlite3.Connection, asked: str) -> bool:
    """Whether a request or a command of this id is known."""
    return db.execute("SELECT 1 FROM inbox WHERE key = ?", (asked,)).fetchone() is not None


def states(db: sqlite3.Connection) -> dict[str, ClusterState]:
    """What the engine remembers of each cluster."""
    rows = db.execute("SELECT cluster, body FROM state")
    try:
        return {row["cluster"]: _CLUSTER.validate_json(row["body"]) for row in rows}
    except ValueError as exc:
        raise sqlite3.DatabaseError(f"state is unreadable: {str(exc).splitlines()[0]}") from exc


def _first_since(db: sqlite3.Connection, since: float) -> int:
    """Seq of the first audit row at or after this time. Time never runs backwards, so halving finds it."""
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


_COLUMNS = ("seq", "at", "cluster", "incident", "kind")
_HISTORY = (
    "SELECT seq, at, cluster, incident, kind, body FROM audit WHERE {} ORDER BY seq {} LIMIT ?"
)


def _rows(rows: Iterable[sqlite3.Row]) -> list[dict[str, Any]]:
    return [{**_body(row["body"]), **{k: row[k] for k in _COLUMNS}} for row in rows]


def _body(text: str) -> dict[str, Any]:
    """A row's body; what somebody has made of it, if it is none."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    damaged = {"damaged": text[:200], "why": "see salt-run selfheal.audit"}
    return found if isinstance(found, dict) else damaged


def history(
    db: sqlite3.Connection, cluster: str | None, since: float, limit: int
) -> list[dict[str, Any]]:
    """Audit rows, newest first."""
    where, values = "seq >= ?", [_first_since(db, since), limit]
    if cluster is not None:
        where, values = f"cluster = ? AND {where}", [cluster, *values]  # type: ignore[list-item]
    return _rows(db.execute(_HISTORY.format(where, "DESC"), values))


def incident(db: sqlite3.Connection, name: str) -> dict[str, Any] | None:
    """One incident whole: its row, its attempts, its audit rows oldest first, what was asked and answered about it.

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
        asked = one.get(one["kind"]) if one["kind"] in _KINDS else None
        answered = answer(db, asked) if asked else None
        if answered:
            told["requests"][asked] = answered
    return told


def knows(db: sqlite3.Connection, name: str) -> bool:
    """Whether there is, or was, an incident of this id."""
    return db.execute("SELECT 1 FROM incidents WHERE id = ?", (name,)).fetchone() is not None


def latest_incidents(db: sqlite3.Connection, count: int, only_open: bool = False) -> list[str]:
    """Ids of the newest incidents, newest first."""
    where = "WHERE ended_at IS NULL" if only_open else ""
    rows = db.execute(f"SELECT id FROM incidents {where} ORDER BY opened_at DESC LIMIT ?", (count,))
    return [row["id"] for row in rows]


def audit(db: sqlite3.Connection, newest: int | None = None) -> dict[str, Any]:
    """Prove the chain of the audit, or only its newest links, and that nothing lies before or after it."""
    db.execute("BEGIN")  # the anchor and the rows of one moment
    try:
        chain = _chain(db, newest)
    except sqlite3.DatabaseError as exc:
        if not _damaged(exc):
            raise
        chain = Chain(0, None, None, 0, str(exc))  # there is no telling where it begins
    finally:
        db.execute("ROLLBACK")
    told: dict[str, Any] = {
        "ok": chain.broken is None,
        "rows": chain.rows,
        "from": chain.first,
        "to": chain.last,
    }
    return told if told["ok"] else {**told, "broken": chain.broken, "why": chain.why}
