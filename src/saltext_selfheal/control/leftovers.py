"""The pid file that a dead server has left. RethinkDB does not start while it is there (2.4.4).

Only a file that the server's own options name is looked at, and it goes only if its process is dead. All of it may hang:
call it in a `asking.Question`.
"""

from __future__ import annotations

from pathlib import Path

from ..witness import storage
from ..witness.server import Server


def owner(server: Server, proc: Path) -> tuple[str, int] | None:
    """The pid file's path and its process, if that lives."""
    found = storage.pid_file(server, proc)
    return (found["path"], found["pid"]) if found and found["alive"] else None


def remove(server: Server, proc: Path) -> str | None:
    """Remove the file if its process is dead. Its path if that was done."""
    found = storage.pid_file(server, proc)
    if found is None or found["pid"] is None or found["alive"] is not False:
        return None
    assert server.pid_file is not None
    server.here(server.pid_file).unlink(missing_ok=True)
    return str(found["path"])
