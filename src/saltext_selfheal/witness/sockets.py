"""Who listens on a TCP port.

The kernel lists sockets by their inode; whose they are tell the processes' descriptors.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from . import files
from .asking import Deadline

_LISTEN = b"0A"
#: The kernel lists the sockets that listen first (3.x to 6.x). After so many others the rest is not read: a busy server
#: has a hundred thousand connections.
_MOST_OTHERS = 1000


def listening(net: Path, port: int) -> frozenset[int] | None:
    """Inodes of the sockets that listen on this port, on any address; None if nothing could be read.

    ``net`` is the folder of a network namespace: `/proc/net`, or `/proc/<pid>/net`.
    """
    found: set[int] = set()
    read = False
    for name in ("tcp", "tcp6"):
        try:
            found.update(_inodes(net / name, port))
            read = True
        except OSError:
            continue  # no IPv6 here, or no permission
    return frozenset(found) if read else None


def _inodes(path: Path, port: int) -> Iterable[int]:
    ending = b":%04X" % port
    others = 0
    with path.open("rb") as lines:
        for line in lines:
            fields = line.split()
            if len(fields) < 10 or b":" not in fields[1]:
                continue
            if fields[3] != _LISTEN:
                others += 1
                if others > _MOST_OTHERS:
                    return
            elif fields[1].endswith(ending) and fields[9].isdigit():
                yield int(fields[9])


def holds(proc: Path, pid: int, inodes: frozenset[int], deadline: Deadline) -> bool | None:
    """Whether the process holds one of these sockets; None if its descriptors may not be read, or not in time."""
    wanted = {f"socket:[{inode}]" for inode in inodes}
    try:
        with os.scandir(proc / str(pid) / "fd") as entries:
            for number, entry in enumerate(entries):
                if number % 1000 == 999 and deadline.over:
                    return None
                if files.link(entry) in wanted:
                    return True
    except FileNotFoundError:
        return False
    except OSError:
        return None
    return False
