"""What Salt's own functions tell of a database, in the words of `selfheal.witness`: for minions without the package.

They tell less: no last words, no open files, no kill by the kernel, and nothing of a config file. What cannot be told
for certain is left out, because a wrong word is worse than none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from ..driver import argv
from ..driver.functions import changing

#: The functions of the job, in the order of ``reactor/salt_witness.sls``. The first takes the service's name.
FUNCTIONS = (
    "service.status", "ps.psaux", "network.netstat", "disk.usage", "disk.inodeusage", "saltutil.running",
)  # fmt: skip
NAME = "rethinkdb"  #: the server's executable, and what `ps.psaux` looks for
MOST_LINES = 1000  #: that are read of each answer
MOST_CHARS = 4096  #: and of each line
#: The columns of `ps.psaux` before the command, and where in them the pid and the state stand.
_COLUMNS, _PID, _STATE = 10, 1, 7


class _Process(NamedTuple):
    pid: int
    state: str
    words: tuple[str, ...]

    def option(self, name: str) -> str | None:
        """The value of this option on the command line, the first one if there are several."""
        return next(iter(argv.options(self.words).get(name, ())), None)


def facts(result: Any, port: Any) -> dict[str, Any] | None:
    """The facts about the server with this driver port. None: nothing was told. Never raises."""
    if not isinstance(result, Mapping):
        return None
    process, found = _process(result.get("ps.psaux"), port)
    told: dict[str, Any] = {"version": 1, "process": process}
    listens = _listens(result.get("network.netstat"), port)
    if listens is not None:
        told["listens"] = listens
    told["directory"] = _directory(found, result.get("disk.usage"), result.get("disk.inodeusage"))
    running = result.get("saltutil.running")
    if isinstance(running, list):
        told["jobs"] = list(_jobs(running))
    return told


def _process(psaux: Any, port: Any) -> tuple[dict[str, Any], _Process | None]:
    """What is known of the process, and the process if it is clear which it is."""
    lines = psaux[1] if isinstance(psaux, list) and len(psaux) > 1 else None
    if not isinstance(lines, list) or len(lines) > MOST_LINES:
        return {"state": "unknown", "why": "ps.psaux has told no processes"}, None
    found = [one for line in lines if (one := _read(line)) is not None]
    # A server forks helpers, which have its command line. The oldest is the server itself, as far as pids tell.
    found.sort(key=lambda one: one.pid, reverse=True)
    servers = list({one.words: one for one in found}.values())
    mine = [one for one in servers if one.option("driver-port") == str(port)]
    may_be = mine or [one for one in servers if one.option("driver-port") is None]
    if len(may_be) > 1:
        why = f"{len(may_be)} run there, and only selfheal.witness can tell which is meant"
        return {"state": "unknown", "why": why}, None
    if not may_be:
        return {"state": "gone"}, None
    (one,) = may_be
    return {"state": "runs", "pid": one.pid, "status": one.state}, one


def _read(line: Any) -> _Process | None:
    """A line of `ps.psaux`. None: it is no RethinkDB that is alive."""
    if not isinstance(line, str):
        return None
    parts = line[:MOST_CHARS].split(None, _COLUMNS)
    if len(parts) <= _COLUMNS or not parts[_PID].isdecimal() or parts[_STATE][:1] in ("Z", "X"):
        return None
    words = tuple(parts[_COLUMNS].split())
    if PurePosixPath(words[0]).name != NAME or not argv.serves(words):
        return None
    return _Process(int(parts[_PID][:10]), parts[_STATE][:1], words)


def _listens(netstat: Any, port: Any) -> bool | None:
    """Whether anything listens on the port. None: it was not told."""
    rows = _rows(netstat)
    if any(
        row.get("state") == "LISTEN" and str(row.get("local-address")).endswith(f":{port}")
        for row in rows
    ):
        return True
    # A busy server has more connections than are read: then the port may be among the others.
    return False if rows and len(netstat) <= MOST_LINES else None


def _directory(server: _Process | None, usage: Any, inodes: Any) -> dict[str, Any]:
    """The room on the data's file system, if it is clear which that is."""
    if not isinstance(usage, Mapping):
        return {}
    mounts = [name for name in usage if isinstance(name, str)]
    path = server.option("directory") if server else None
    if path and path.startswith("/"):
        around = [m for m in mounts if PurePosixPath(path).is_relative_to(m)]
        mount = max(around, key=len, default=None)
    else:
        own = [m for m in mounts if NAME in m]
        mount = own[0] if len(own) == 1 else None
    if mount is None:
        return {}
    told: dict[str, Any] = {"path": path or mount}
    blocks = _amount(usage.get(mount), "available")
    if blocks is not None:
        told["free_bytes"] = blocks * 1024
    free = _amount(inodes.get(mount) if isinstance(inodes, Mapping) else None, "free")
    total = _amount(inodes.get(mount) if isinstance(inodes, Mapping) else None, "inodes")
    if free is not None and total:  # some file systems count none at all
        told["free_inodes"] = free
    return told


def _amount(row: Any, key: str) -> int | None:
    value = row.get(key) if isinstance(row, Mapping) else None
    text = str(value)[:20] if isinstance(value, (int, str)) else ""
    return int(text) if text.isascii() and text.isdecimal() else None


def _jobs(running: Sequence[Any]) -> Iterator[dict[str, str]]:
    for row in _rows(running):
        what = changing(row.get("fun"), row.get("arg"))
        if what and row.get("jid"):
            yield {
                "jid": str(row["jid"])[:100], "fun": what, "user": str(row.get("user") or "")[:100],
            }  # fmt: skip


def _rows(value: Any) -> list[Mapping[Any, Any]]:
    found = value[:MOST_LINES] if isinstance(value, list) else []
    return [row for row in found if isinstance(row, Mapping)]
