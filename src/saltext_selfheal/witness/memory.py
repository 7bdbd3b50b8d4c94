"""Whether the kernel has killed the server because memory ran out: by its own log, by systemd, by the unit's cgroup."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import files
from .host import Host
from .manager import Manager, ago_s
from .processes import Process

MOST_KERNEL_BYTES = (
    4 * 1024 * 1024
)  #: of the kernel's log; its ring buffer is seldom larger than 1 MB
_PART_BYTES = 8192  #: one record is never longer (Documentation/ABI/testing/dev-kmsg)

_RECORD = re.compile(r"^\d+,\d+,(\d+),[^;]*;(.*)$")
_KILLED = re.compile(r"[Kk]illed process (\d+),? \((.{0,20}?)\)")
_MEMCG = re.compile(r"^oom-kill:.*?task_memcg=([^,]*),.*?pid=(\d+)")


@dataclass(frozen=True)
class Kill:
    """One kill, as the kernel tells of it. ``at_s``: by the machine's monotonic clock."""

    at_s: float
    pid: int
    name: str
    cgroup: str | None
    words: str


def last_kill(
    host: Host, manager: Manager | None, process: Process | None, age_s: float | None, pids: frozenset[int]
) -> dict[str, Any] | None:  # fmt: skip
    """The last kill of this server since its last start. ``pids``: those that it is known to have had."""
    told = _by_kernel(host, manager, pids)
    if told is None and manager is not None:
        told = _by_manager(host, manager)
    if told is None:
        return None
    known = told["age_s"]
    if process is not None and known is not None and age_s is not None and known > age_s:
        return None  # it has been started since
    return told


def _by_kernel(host: Host, manager: Manager | None, pids: frozenset[int]) -> dict[str, Any] | None:
    for kill in reversed(kernel_kills(host.kmsg)):
        group = manager.cgroup if manager else None
        if kill.pid in pids or (group and kill.cgroup == group):
            ours = True
        elif group and kill.cgroup:
            ours = False  # another server of this machine
        else:
            ours = kill.name.endswith("rethinkdb")
        if ours and not (manager and manager.started_s and kill.at_s < manager.started_s):
            return {"age_s": round(ago_s(kill.at_s), 1), "what": kill.words}
    return None


def kernel_kills(path: Path) -> list[Kill]:
    """All kills in the kernel's log. Empty if it may not be read."""
    found: list[Kill] = []
    groups: dict[int, str] = {}
    for line in files.text(_kernel_log(path)).splitlines():
        record = _RECORD.match(line)
        if record is None:
            continue
        if group := _MEMCG.match(record[2]):
            groups[int(group[2])] = group[1]
        elif killed := _KILLED.search(record[2]):
            pid = int(killed[1])
            found.append(Kill(int(record[1]) / 1e6, pid, killed[2], groups.get(pid), record[2]))
    return found


def _kernel_log(path: Path) -> bytes:
    try:
        # It would wait for the next record.
        log = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    parts, left = [], MOST_KERNEL_BYTES
    try:
        while left > 0:
            try:
                part = os.read(log, _PART_BYTES)
            except BrokenPipeError:
                continue  # the record was overwritten while it was read
            except OSError:
                break  # that was the last one
            if not part:
                break
            parts.append(part)
            left -= len(part)
    finally:
        os.close(log)
    return b"".join(parts)


def _by_manager(host: Host, manager: Manager) -> dict[str, Any] | None:
    if manager.result == "oom-kill":
        age_s = None if manager.ended_s is None else round(ago_s(manager.ended_s), 1)
        return {"age_s": age_s, "what": "systemd says that the service ended by an OOM kill"}
    if manager.cgroup is None:
        return None
    # The group is made anew at each start.
    events = files.head(host.cgroups / manager.cgroup.lstrip("/") / "memory.events", 4096)
    count = re.search(rb"^oom_kill (\d{1,9})$", events or b"", re.MULTILINE)
    if count is None or not int(count[1]):
        return None
    return {"age_s": None, "what": f"{int(count[1])} OOM kills in the service's control group"}
