"""The ledger as a file: where it may lie, who may read it, its lock and its mark, and how a damaged one is put aside.

`LedgerFile` is for the engine, which holds the file. The functions are for everybody who wants to know something about
it. Nothing here knows the content of the file: no SQL, no Salt.
"""

from __future__ import annotations

import fcntl
import glob
import json
import os
import re
import stat
import time
import zlib
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter

from ..driver.text import clean

#: Flags that open or make a file of ours, but no link or pipe that somebody has put in its place.
_OWN_FILE = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
LOCK_WAIT_S = (
    0.5  #: a lock is waited for this long, since `engine_alive` holds it for a moment, too
)
MOST_SAID = 500  #: the reason why a ledger was lost is cut to this many characters
#: File systems on other machines, or shared with them, by the kernel's names. `on_network` also judges those in user
#: space.
NETWORK_FILE_SYSTEMS = frozenset((
    "9p", "acfs", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "fhgfs", "fuse", "gfs", "gfs2",
    "glusterfs", "gpfs", "hgfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "panfs", "prl_fs",
    "pvfs2", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs", "wekafs", "fuse.glusterfs", "fuse.sshfs",
))  # fmt: skip
#: File systems in user space (fuse.<kind>) are mostly remote, and new ones come each year. So only those that are known
#: to be on this machine's disks are listed.
LOCAL_IN_USER_SPACE = frozenset({"fuse.fuse-overlayfs", "fuse.zfs"})

Count = Annotated[int, Field(strict=True, ge=0, lt=2**62)]
_MARKED = TypeAdapter(tuple[Count, Count, str, str, str])


class LedgerError(Exception):
    """The ledger cannot be used. The message says which file, what was found, and what to do.

    It is one clean line, although SQLite's words may quote what somebody has written into the file.
    """

    def __init__(self, why: object) -> None:
        super().__init__(clean(str(why)))


class LedgerRefused(LedgerError):
    """This ledger cannot be used, and waiting does not help."""


class LedgerBusy(LedgerError):
    """Another engine holds the ledger."""


class Unavailable(LedgerError):
    """The ledger cannot be read or written now: a full disk, somebody else's lock, damage. The words are SQLite's."""


class ValueRefused(Unavailable):
    """The ledger does not take a value that it was given. The file may be in order."""


# ---------------------------------------------------------------- how far the ledger had come


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
    """What the lock file says about the ledger: how far it had come.

    With a log that is damaged, cut or gone, SQLite reads the ledger only up to there, without an error. It also reads
    an older copy of the file without an error. In both cases the ledger ends before its mark, and so the loss is found.
    The mark is written after each transition, and nothing waits for the disk. So after a crash of the machine the mark
    may be older than the ledger, but never newer.
    """

    head: Head
    lost: str = ""  #: only while a ledger is being put aside: why, and where it is kept
    kept: str = ""  #: only then: its new name


# ---------------------------------------------------------------- where the ledger lies, and who may read it


def file_system(path: Path) -> str:
    """The type of the file system that holds this path, by the kernel's name. Empty if unknown."""
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
    """Whether the file system may be shared with other machines. There two engines could hold one lock at once."""
    return kind in NETWORK_FILE_SYSTEMS or (
        kind.startswith("fuse.") and kind not in LOCAL_IN_USER_SPACE
    )


def _for_us_alone(path: Path) -> None:
    """Take the rights on this file away from everybody but its owner. No link is followed. Raises LedgerError."""
    found = path.lstat()
    mode = stat.S_IMODE(found.st_mode)
    if not mode & 0o077:
        return
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.fchmod(file, mode & 0o700)
        finally:
            os.close(file)
    except OSError as exc:
        raise LedgerError(
            f"{path}: found mode {mode:04o} and owner {found.st_uid}; allowed: 0600, owner {os.geteuid()}"
        ) from exc


def files(path: Path) -> list[Path]:
    """The database file and the files that SQLite keeps beside it."""
    return [path.with_name(path.name + end) for end in ("", "-wal", "-shm", "-journal")]


def _identity(found: os.stat_result) -> tuple[int, int]:
    """What tells a file from any other file: its device and its inode."""
    return found.st_dev, found.st_ino


# ---------------------------------------------------------------- who holds the ledger


def lock_path(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def engine_alive(path: Path) -> bool:
    """Whether an engine holds this ledger. The kernel frees the lock when the engine's process ends, however it ends.

    Raises LedgerError if that cannot be told.
    """
    lock = lock_path(path)
    try:
        file = os.open(lock, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise OSError("it is no file")
            # A shared lock, so that two processes that ask at once do not take each other for the engine.
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


class LedgerFile:
    """The ledger's file while an engine holds it. ``mark`` is what the lock file said when the lock was taken."""

    def __init__(self, path: Path) -> None:
        """Lock the ledger. Raises LedgerError or OSError; then nothing is held."""
        self.path = path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A folder above the file may be a link. Then the file system of its target counts.
        kind = file_system(path.parent)
        if on_network(kind):
            raise LedgerRefused(
                f"{path}: on {kind}; a local file system is needed, set ledger.path"
            )
        with ExitStack() as undo:
            self._lock = os.open(lock_path(path), _OWN_FILE, 0o600)
            undo.callback(os.close, self._lock)  # if this start fails, the lock must not stay held
            self._hold()
            _for_us_alone(lock_path(path))
            self.mark = self._read_mark()
            self._held: dict[Path, tuple[int, int]] = {}
            self._size = self._written_ns = 0
            undo.pop_all()

    def _hold(self) -> None:
        """Take the lock. Raises LedgerBusy if another engine has it, or OSError."""
        until = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                return fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise LedgerBusy(f"{self.path}: another engine uses it") from None
            time.sleep(LOCK_WAIT_S / 20)

    def _read_mark(self) -> Mark | None:
        """The mark in the lock file. None if there is none, or if it was written only in part."""
        line = os.pread(self._lock, 65536, 0).partition(b"\n")[0]
        check, _, text = line.partition(b" ")
        try:
            if int(check, 16) != zlib.crc32(text):
                return None
            count, seq, link, lost, kept = _MARKED.validate_json(text)
        except ValueError:
            return None
        return Mark(Head(count, seq, link), lost, kept)

    def write_mark(self, mark: Mark) -> None:
        """Write the mark in place of the one before. A failure, as with a full disk, is no error."""
        head = mark.head
        text = json.dumps([head.count, head.seq, head.link, mark.lost, mark.kept]).encode()
        with suppress(OSError):  # the commit is safe all the same; the mark is only older then
            os.pwrite(self._lock, b"%08x %s\n" % (zlib.crc32(text), text), 0)

    def hold(self) -> None:
        """Remember which files the engine has open now, so that `displaced` notices if they are replaced."""
        self._held = {lock_path(self.path): _identity(os.fstat(self._lock))}
        self._held[self.path] = _identity(self.path.lstat())

    def displaced(self) -> str:
        """Why what is written now would not be found at the ledger's path. Empty if it would be found.

        A file that was deleted or replaced stays open here. What is written to it is lost.
        """
        for one in (lock_path(self.path), *files(self.path)[:3]):
            known = self._held.get(one)
            try:
                found = one.lstat()
            except FileNotFoundError:
                if known is not None:
                    return f"{one} was removed while the engine runs"
                continue
            except OSError as exc:
                return f"{one}: {exc.strerror}"
            if known is None:
                self._held[one] = _identity(found)  # SQLite makes its log when it is needed
            elif known != _identity(found):
                return f"{one} was replaced while the engine runs"
            if one == self.path:
                # The database never becomes smaller by itself, because nothing here frees pages of the file.
                if found.st_size < self._size:
                    return f"{one} was cut from {self._size} to {found.st_size} bytes while the engine runs"
                self._size = found.st_size
        return ""

    def note_written(self) -> None:
        """Remember size and time of the file. What is in it now was checked."""
        found = self.path.lstat()
        self._written_ns, self._size = found.st_mtime_ns, found.st_size

    def written_by_others(self) -> bool:
        """Whether the file was written after `note_written`, by SQLite itself or by somebody else."""
        try:
            return bool(self._written_ns) and self.path.lstat().st_mtime_ns != self._written_ns
        except OSError:
            return False  # `displaced` tells what is wrong

    def missing(self) -> str | None:
        """Why the ledger's file is missing. None if there never was one."""
        if self.mark and self.mark.lost:
            return self.mark.lost  # the file was put aside, and no new one could be made
        there = files(self.path)
        aside = sorted(self.path.parent.glob(f"{glob.escape(self.path.name)}.damaged-*"))
        whole = [p for p in aside if not p.name.endswith(("-wal", "-shm", "-journal"))]
        # An empty lock file does not prove that there was a ledger: a first start on a full disk leaves one behind.
        if not (os.fstat(self._lock).st_size or aside or any(p.exists() for p in there)):
            return None
        told = f"{self.path} is missing"
        return f"{told}; the newest file that was put aside is {whole[-1]}" if whole else told

    def make(self) -> None:
        """Make the file if there is none, and take the rights on it away from others. Raises LedgerError or OSError."""
        os.close(os.open(self.path, _OWN_FILE, 0o600))
        for one in files(self.path):
            if one.exists():
                _for_us_alone(one)

    def remove(self) -> None:
        """Remove the file and what SQLite keeps beside it. Only the lock file stays."""
        for one in files(self.path):
            one.unlink(missing_ok=True)

    def put_aside(self, why: str) -> str:
        """Rename the damaged file, so that people can look into it. Returns why it was put aside, and its new name.

        The mark says so before the first file is renamed. If the engine ends half-way, the next engine reads the mark
        and finishes the renaming.
        """
        mark = self.mark
        if mark is None or not mark.lost or self._in_the_way(mark.kept):
            kept = self._free_name()
            lost = f"{clean(why, MOST_SAID)}; the old file is kept as {kept}"
            mark = Mark(mark.head if mark else Head(0, 0, ""), lost, kept.name)
            self.write_mark(mark)
            with suppress(OSError):
                os.fsync(self._lock)
            self.mark = mark
        # The database file is renamed last. If it were first and the engine ended then, the kept file would lack its
        # log without showing it, and a new database would overwrite the log.
        for old, new in reversed(self._moves(mark.kept)):
            if new.exists():
                old.unlink()  # empty: a reader that opened what was left has made it anew
            else:
                old.rename(new)
        return mark.lost

    def _moves(self, name: str) -> list[tuple[Path, Path]]:
        """Which files must be renamed, and to what, to put the ledger aside under this name."""
        pairs = zip(files(self.path), files(self.path.with_name(name)), strict=True)
        return [(old, new) for old, new in pairs if old.exists()]

    def _in_the_way(self, name: str) -> bool:
        """Whether a file of that name exists already, so that one of the ledger's files would be lost."""
        return any(
            new.exists() and old.stat().st_size and not old.name.endswith("-shm")
            for old, new in self._moves(name)
        )

    def _free_name(self) -> Path:
        stamp = time.strftime("%Y%m%dT%H%M%S")
        free, more = self.path.with_name(f"{self.path.name}.damaged-{stamp}"), 1
        while any(one.exists() for one in files(free)):  # two in one second
            more += 1
            free = self.path.with_name(f"{self.path.name}.damaged-{stamp}.{more}")
        return free

    def close(self) -> None:
        """Free the lock."""
        os.close(self._lock)
