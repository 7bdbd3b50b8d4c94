"""Reading files of others: never a FIFO or a device, never more than was asked for, never an exception.

All of it may hang, if the file system does: call it in a `asking.Question`.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

MOST_CONFIG_BYTES = 256 * 1024
MOST_PROC_BYTES = 64 * 1024


def _opened(path: Path) -> int | None:
    """A descriptor of the regular file at this path."""
    try:
        # Opening a device can act, and opening a FIFO can wait, so its kind is asked before and after.
        if not stat.S_ISREG(path.stat().st_mode):
            return None
        found = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    if stat.S_ISREG(os.fstat(found).st_mode):
        return found
    os.close(found)
    return None


def head(path: Path, most: int = MOST_CONFIG_BYTES) -> bytes | None:
    """The beginning of a regular file; None if it cannot be read, or is none."""
    return _part(path, most, from_end=False)


def tail(path: Path, most: int) -> bytes | None:
    """The end of a regular file; None if it cannot be read, or is none."""
    return _part(path, most, from_end=True)


def _part(path: Path, most: int, from_end: bool) -> bytes | None:
    found = _opened(path)
    if found is None:
        return None
    try:
        if from_end:
            os.lseek(found, max(0, os.fstat(found).st_size - most), os.SEEK_SET)
        return _read(found, most)
    except OSError:
        return None
    finally:
        os.close(found)


def _read(descriptor: int, most: int) -> bytes:
    parts, left = [], most
    while left > 0 and (part := os.read(descriptor, left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def proc(path: Path, most: int = MOST_PROC_BYTES) -> bytes:
    """A small file of /proc, read in one go. Raises OSError."""
    with path.open("rb", buffering=0) as file:
        return _read(file.fileno(), most)


def link(path: os.PathLike[str]) -> str | None:
    """Where a symbolic link leads; None if it may not be read, or is none."""
    try:
        return os.readlink(path)  # noqa: PTH115
    except OSError:
        return None


def text(data: bytes) -> str:
    """What stands in a file, whatever its coding."""
    return data.decode("utf-8", "backslashreplace")
