"""Which processes are one server, and which are another one that must be left alone.

RethinkDB forks helpers with its own command line. One that is left behind keeps the data directory locked, so it must
end, too. Two servers may share a driver port on different addresses: then the port does not tell whose they are.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from ..witness import files, server
from ..witness.host import Host
from ..witness.processes import Process, Scan


@dataclass(frozen=True)
class Family:
    """The processes of one server. ``others``: servers with the same driver port that are not of it."""

    members: tuple[Process, ...]
    others: tuple[Process, ...] = ()


def of(host: Host, scan: Scan, head: Process, port: int) -> Family:
    """The family of the process that the search has found."""
    members, others = [head], []
    above = set(scan.ancestors(head.pid))
    for pid, one in sorted(scan.processes.items()):
        if pid == head.pid or pid in above or one.dead:
            continue
        below = head.pid in scan.ancestors(pid)
        if alike(one, head) or (below and one.is_rethinkdb):
            members.append(one)
        elif not below and _serves(host, one, port):
            others.append(one)
    return Family(tuple(members), tuple(others))


def alike(one: Process, other: Process) -> bool:
    """Whether two processes run the same program with the same command line: two servers cannot, for they share a folder."""
    return bool(one.argv) and one.argv == other.argv and one.executable == other.executable


def _serves(host: Host, one: Process, port: int) -> bool:
    options = ("--config-file", "--driver-port")
    if not one.is_rethinkdb and not any(word.split("=")[0] in options for word in one.argv):
        return False
    found = server.of_process(host, one)
    return found.driver_port == port and (one.is_rethinkdb or found.names_port)


def own(scan: Scan) -> set[int]:
    """The processes that must never be ended from here: the first one, this one, and those that it came from."""
    here = os.getpid()
    return {1, here, *scan.ancestors(here)}


def unit_of(proc: Path, pid: int | str) -> str | None:
    """The systemd service that a process belongs to. None if it belongs to none, or that cannot be told."""
    try:
        text = files.text(files.proc(proc / str(pid) / "cgroup"))
    except OSError:
        return None
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        # The unified hierarchy, or systemd's own.
        if controllers in ("", "name=systemd"):
            units = re.findall(r"/([^/]+\.service)(?=/|$)", path)
            if units:
                return str(units[-1])
    return None
