"""One order at a time for each service: a second one would kill what the first has just started."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger(__name__)


@contextlib.contextmanager
def taken(path: Path | None) -> Iterator[bool]:
    """Whether it is this process's turn. It is until the block ends, or this process does.

    A file that cannot be made, on a full disk for example, does not keep a database from being started.
    """
    if path is None:
        yield True
        return
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as exc:
        log.warning("selfheal: another order beside this one would not be seen: %s", exc)
        yield True
        return
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(file)
