"""The processes of this machine, read from /proc.

`cmdline` and `stat` can be read by everybody, unless /proc was mounted with `hidepid` (proc(5)). If something could not
be read, the scan has a gap, and then nobody may say that a process is gone.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath

from ..driver.argv import serves
from . import files
from .asking import Deadline

MOST_FILES = 1_000_000  #: open files are counted up to here
DEAD = frozenset("ZXx")
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Process:
    """One process, as it was when it was looked at."""

    pid: int
    parent: int
    status: str  #: the kernel's letter: R, S, D, T, Z, …
    cpu_s: float
    rss_bytes: int
    started_s: float  #: since the machine's start
    name: str
    argv: tuple[str, ...]
    executable: str | None  #: its path; None if it may not be read
    owner: int | None = None  #: the user id that it runs with; None if it could not be read

    @property
    def dead(self) -> bool:
        """A zombie is only an exit code that nobody has taken."""
        return self.status in DEAD

    @property
    def is_rethinkdb(self) -> bool:
        """Whether the executable is RethinkDB's, and runs as a server."""
        paths = [self.executable or "", *self.argv[:1]]
        # A package that was upgraded under a server leaves " (deleted)" behind.
        names = [PurePath(path.removesuffix(" (deleted)")).name for path in paths]
        if not any(name.endswith("rethinkdb") for name in names):
            return False
        return serves(self.argv)


@dataclass(frozen=True)
class Scan:
    """All processes that were seen. ``gap``: why there may be others; None if there are none."""

    processes: Mapping[int, Process]
    gap: str | None

    def ancestors(self, pid: int) -> Iterator[int]:
        seen = {pid}
        while pid in self.processes:
            pid = self.processes[pid].parent
            if pid in seen:
                return
            seen.add(pid)
            yield pid


def look(proc: Path, pid: int) -> Process:
    """One process. Raises OSError if it is gone or may not be looked at, ValueError if that makes no sense."""
    base = proc / str(pid)
    stat = files.text(files.proc(base / "stat"))
    # The name may contain blanks and parentheses, so the fields are counted from the last one.
    before, _, after = stat.rpartition(")")
    fields = after.split()
    if not before or len(fields) < 22:
        raise ValueError(f"a stat of {len(fields)} fields")
    line = files.text(files.proc(base / "cmdline"))
    return Process(
        pid=pid,
        parent=int(fields[1]),
        status=fields[0],
        cpu_s=(int(fields[11]) + int(fields[12])) / _TICKS,
        rss_bytes=max(0, int(fields[21])) * _PAGE_BYTES,
        started_s=int(fields[19]) / _TICKS,
        name=before.partition("(")[2],
        argv=tuple(line.removesuffix("\0").split("\0")) if line else (),
        executable=files.link(base / "exe"),
        owner=base.stat().st_uid,
    )


def scan(proc: Path, deadline: Deadline) -> Scan:
    """Look at all processes."""
    found: dict[int, Process] = {}
    gap = _hidden(proc)
    try:
        with os.scandir(proc) as entries:
            pids = sorted(int(one.name) for one in entries if re.fullmatch("[0-9]+", one.name))
    except OSError as exc:
        return Scan({}, f"the list of processes cannot be read ({exc.strerror})")
    for pid in pids:
        if deadline.over:
            return Scan(found, "the list of processes could not be read in time")
        try:
            found[pid] = look(proc, pid)
        except (FileNotFoundError, ProcessLookupError, NotADirectoryError):
            continue  # it has ended meanwhile
        except (OSError, ValueError) as exc:
            gap = gap or f"process {pid} may not be looked at ({type(exc).__name__})"
    # The first process always lives. Where it is not seen, others are not seen either.
    if 1 not in found:
        gap = gap or "processes of others are hidden here"
    return Scan(found, gap)


def _hidden(proc: Path) -> str | None:
    """Why /proc may not show all processes to this user, by the way it was mounted."""
    if os.geteuid() == 0:
        return None
    try:
        mounts = files.text(files.proc(proc / "self" / "mounts"))
    except OSError:
        return None
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) > 3 and fields[1:3] == ["/proc", "proc"]:
            hidden = re.search(r"(?:^|,)hidepid=(\w+)", fields[3])
            if hidden and hidden[1] not in ("0", "off"):
                return f"processes of others are hidden here (hidepid={hidden[1]})"
    return None


def uptime_s(proc: Path) -> float:
    """Seconds since the machine's start."""
    try:
        return float(files.proc(proc / "uptime").split()[0])
    except (OSError, ValueError, IndexError):
        return time.clock_gettime(time.CLOCK_BOOTTIME)


def open_files(proc: Path, pid: int, deadline: Deadline) -> int | None:
    """How many files the process holds open; None if that may not be counted, or takes too long."""
    count = 0
    try:
        with os.scandir(proc / str(pid) / "fd") as entries:
            for count, _ in enumerate(entries, 1):
                if count >= MOST_FILES or (count % 1000 == 0 and deadline.over):
                    return None
    except OSError:
        return None
    return count


def open_files_limit(proc: Path, pid: int) -> int | None:
    """How many files the process may hold open (the soft limit)."""
    try:
        limits = files.text(files.proc(proc / str(pid) / "limits"))
    except OSError:
        return None
    match = re.search(r"^Max open files\s+(\d+)", limits, re.MULTILINE)
    return int(match[1]) if match else None


def alive(proc: Path, pid: int) -> bool | None:
    """Whether a process with this pid lives; None if that cannot be told."""
    try:
        return not look(proc, pid).dead
    except (FileNotFoundError, ProcessLookupError, NotADirectoryError):
        return None if _hidden(proc) else False
    except (OSError, ValueError):
        return None
