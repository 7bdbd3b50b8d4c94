"""Whether the files at a path belong to the healer. This is checked before anything is made, moved or closed there.

`ledger.path` is a setting, and it may be wrong. A damaged ledger is renamed, and a new one is made. If the same were
done to somebody else's file, that person would lose it. So only regular files that are ours are touched, and no link is
followed. A file is ours if there is a mark in the lock file beside it, or if it is a database with the ledger's tables.
"""

from __future__ import annotations

import os
import re
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

from .file import LedgerRefused, files, lock_path
from .tables import SMALL, connect

_MAGIC = b"SQLite format 3\0"
#: A mark begins with a checksum and a list, even if it was written only in part.
_MARK = re.compile(rb"[0-9a-f]{8} \[")
_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}
_ALLOWED = "a file of the healer's own, or nothing: set ledger.path, or move that away"


def refuse_foreign(path: Path) -> None:
    """Raises LedgerRefused if a file there is not the ledger's, and OSError if that cannot be told. Changes nothing."""
    lock = lock_path(path)
    for one in (*files(path), lock):
        kind = _kind(one)
        if kind:
            raise LedgerRefused(f"{one}: found {kind}; allowed: {_ALLOWED}")
    mark, head = _head(lock, 64), _head(path, len(_MAGIC))
    strange = "" if not head else _strange(path, head, begun=mark is not None)
    if head and not strange:
        return
    if mark and not _MARK.match(mark):
        raise LedgerRefused(f"{lock}: found a file that begins {_said(mark)}; allowed: {_ALLOWED}")
    if strange and not mark:
        raise LedgerRefused(f"{path}: found {strange}; allowed: {_ALLOWED}")


def _kind(path: Path) -> str:
    """What is at this path, in words, if it is no regular file. Empty if it is one, or if nothing is there."""
    try:
        found = stat.S_IFMT(path.lstat().st_mode)
    except FileNotFoundError:
        return ""
    return "" if found == stat.S_IFREG else _KINDS.get(found, "something that is no file")


def _head(path: Path, size: int) -> bytes | None:
    """The first bytes of a file. None if there is no file."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return os.pread(file, size, 0)
    finally:
        os.close(file)


def _said(data: bytes) -> str:
    return ascii(data[:16].decode("latin-1"))


def _strange(path: Path, head: bytes, begun: bool) -> str:
    """What the file is instead of a ledger. Empty if it is a ledger. ``begun``: there is a lock file beside it.

    A database that cannot be read is taken for a damaged ledger only if there is a lock file. The lock file may be one
    of an older release.
    """
    if head != _MAGIC:
        return f"a file that begins {_said(head)}"
    try:
        # The file is read without its log, as if it could not change. Else SQLite would make a log, and a check must
        # leave nothing behind.
        with closing(connect(path, "ro", "&immutable=1")) as db:
            rows = db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    except sqlite3.DatabaseError as exc:
        return "" if begun else f"a database that cannot be read ({exc})"
    names = {row["name"] for row in rows}
    # All of them: others have a table called `meta`, too.
    if {*SMALL, "audit"} <= names or (begun and not names):
        return ""
    told = f"with the tables {', '.join(sorted(names)[:5])}" if names else "without tables"
    return f"a database {told}"
