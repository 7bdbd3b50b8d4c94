"""Checks whether the healer's engine is configured and runs. Also finds out when its master was started."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from .. import config
from ..console.status import SILENT_AFTER_S
from ..ledger import file as ledger_file
from ..ledger import records, timeline
from ..ledger.file import LedgerError
from .master import Finding, Master, fail, ok, warn


def check_engine(master: Master) -> Iterator[Finding]:
    if config.entry(master.opts) is None:
        lost = [str(file.path) for file in master.files if file.holds_ours]
        also = f" any more, though {', '.join(lost)} lists it" if lost else ""
        yield fail(
            f"`engines:` does not list selfheal{also}",
            "Put what `salt-run selfheal.config` prints into a file of master.d and restart the salt-master.",
        )
    for name in config.aliases(master.opts):
        yield fail(
            f"`engines:` lists selfheal as {name!r}, too, and nobody heals what stands there",
            "Put its clusters under an entry `- selfheal:`. Several files may have one: Salt joins the lists, and one "
            "engine heals them all.",
        )
    path = master.ledger_path
    silent_s = None
    # If the ledger cannot be read, its own check tells why.
    with contextlib.suppress(LedgerError), records.read(path) as db:
        silent_s = timeline.sign_of_life_s(db)
    told = "no sign of life yet" if silent_s is None else f"last sign of life {silent_s:.0f} s ago"
    try:
        alive = ledger_file.engine_alive(path)
    except LedgerError as exc:
        yield fail(f"whether it runs is not known: {exc}", "See the ledger's own line below.")
        return
    if not alive:
        yield fail(
            f"not running, {told}", "Restart the salt-master, and look for selfheal in its log."
        )
    elif silent_s is not None and silent_s > SILENT_AFTER_S:
        yield warn(
            f"it holds the ledger, but {told}",
            "Look for selfheal in the master's log, and restart the salt-master.",
        )
    else:
        yield ok(f"running, {told}")


def master_started_at(master: Master) -> float | None:
    """When the master was started whose engine holds the ledger. None if that cannot be found out.

    If Salt starts an engine again, it still has the options of its master. So the master's start counts.
    """
    engine = _holder(master.ledger_path)
    if engine is None:
        return None
    process, pid = engine, _pid_in(Path(str(master.opts.get("pidfile") or "")))
    ancestor = engine
    try:
        while ancestor > 1:
            if ancestor == pid:
                process = pid
            ancestor = int(_proc_stat(ancestor)[1])
        ticks = int(_proc_stat(process)[19])
    except OSError:  # the process has just ended
        return None
    return time.time() - timeline.boottime() + ticks / os.sysconf("SC_CLK_TCK")


def _pid_in(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _proc_stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat after the name. The name is cut off, because it may hold blanks and brackets."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()


def _holder(path: Path) -> int | None:
    """The process that holds the ledger's lock, from the kernel's list of locks."""
    lock = ledger_file.lock_path(path)
    try:
        inode = lock.stat().st_ino
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            parts = line.split()
            if parts[1] != "FLOCK" or not parts[5].endswith(f":{inode}"):
                continue
            pid = int(parts[4])
            if pid > 0 and _has_open(pid, lock):
                return pid
    except (OSError, ValueError, IndexError):
        pass
    return None


def _has_open(pid: int, path: Path) -> bool:
    """Whether the process has this file open.

    The kernel may not let us look, as with a process that has changed its user. Then the lock's inode must be enough.
    """
    try:
        return any(file.samefile(path) for file in Path(f"/proc/{pid}/fd").iterdir())
    except PermissionError:
        return True
