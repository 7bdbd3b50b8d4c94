"""The file system of the data directory, and the pid file. All of it may hang: ask in a `asking.Question`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from . import files, processes
from .server import Server

MOST_PID_BYTES = 64


def directory(server: Server) -> dict[str, Any] | None:
    """How much room the data directory has. None if there is no such directory."""
    if server.directory is None:
        return None
    here = server.here(server.directory)
    if not here.is_dir():
        return None
    found = os.statvfs(here)
    return {
        "path": str(server.directory),
        # What is left for others than root: the server is none.
        "free_bytes": found.f_bavail * found.f_frsize,
        "free_share": round(found.f_bavail / found.f_blocks, 4) if found.f_blocks else 0.0,
        # Some file systems make inodes as they need them, and count none.
        "free_inodes": found.f_favail if found.f_files else None,
        "read_only": bool(found.f_flag & os.ST_RDONLY),
    }


def pid_file(server: Server, proc: Path) -> dict[str, Any] | None:
    """The pid file, if there is one; with whose pid, and whether that process lives."""
    if server.pid_file is None:
        return None
    here = server.here(server.pid_file)
    if not os.path.lexists(here):
        return None
    text = files.text(files.head(here, MOST_PID_BYTES) or b"").strip()
    pid = int(text) if re.fullmatch(r"[0-9]{1,9}", text) and int(text) else None
    alive = None if pid is None else processes.alive(proc, pid)
    return {"path": str(server.pid_file), "pid": pid, "alive": alive}
