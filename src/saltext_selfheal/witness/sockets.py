"""Who listens on a TCP port.

The kernel lists sockets by their inode; whose they are tell the processes' descriptors.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path

from . import files
from .asking import Deadline

_LISTEN = b"0A"
#: The kernel lists the sockets that listen first (3.x to 6.x). After so many others the rest is not read: a busy server
#: has a hundred thousand connections.
_MOST_OTHERS = 1000


def places(net: Path, port: int) -> dict[int, str] | None:
    """By inode: the address on which that socket listens on this port. None if nothing could be read.

    ``net`` is the folder of a network namespace: `/proc/net`, or `/proc/<pid>/net`.
    """
    found: dict[int, str] = {}
    read = False
    for name in ("tcp", "tcp6"):
        try:
            found.update(_rows(net / name, port))
            read = True
        except OSError:
            continue  # no IPv6 here, or no permission
    return found if read else None


def _rows(path: Path, port: int) -> Iterable[tuple[int, str]]:
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
                yield int(fields[9]), _address(fields[1].partition(b":")[0])


def _address(digits: bytes) -> str:
    """An address as people write it. The kernel writes it in words of 32 bits, in this machine's order of bytes."""
    try:
        words = [int(digits[at : at + 8], 16) for at in range(0, len(digits), 8)]
        return str(ip_address(b"".join(word.to_bytes(4, sys.byteorder) for word in words)))
    except ValueError:
        return ""


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
