"""
Which process is the healer's engine: the one that holds the ledger's lock, and nothing else is.

Names do not tell. A command line holds the interpreter's path, and with it the name of whatever folder the checkout
lies in; a title is what somebody set.
"""

import contextlib
import os
from pathlib import Path

import psutil


def lock_holder(lock, processes):
    """
    The pid of the one among these processes that holds an exclusive flock on this file, None if none does.

    The kernel tells with the open file (/proc/<pid>/fdinfo) which locks are on it, and by which pid each was taken. A
    child that was forked with the file open shows the lock, too, and has not taken it.
    """
    try:
        wanted = Path(lock).stat()
    except FileNotFoundError:
        return None
    for process in processes:
        # It may have ended, or be another user's.
        with contextlib.suppress(OSError):
            if _holds(process.pid, wanted):
                return process.pid
    return None


def _holds(pid, wanted):
    for opened in Path(f"/proc/{pid}/fd").iterdir():
        # One that was closed in this moment says nothing about the others.
        with contextlib.suppress(FileNotFoundError):
            if not os.path.samestat(opened.stat(), wanted):
                continue
            told = Path(f"/proc/{pid}/fdinfo/{opened.name}").read_text(encoding="ascii")
            for line in told.splitlines():
                # lock:	1: FLOCK  ADVISORY  WRITE 7320 fe:00:2146350 0 EOF
                words = line.split()
                if words[:1] == ["lock:"] and words[2:6] == [
                    "FLOCK",
                    "ADVISORY",
                    "WRITE",
                    str(pid),
                ]:
                    return True
    return False


def children(pid):
    """Everything that this process has started, and what that has started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []
