"""The last line in which RethinkDB says why it cannot go on: from its log file, or from what it wrote to stderr.

Its own log has a time and a level in each line. Stderr has a level at most: what keeps the server from starting comes
without one (2.4.4), and is recognized by its words. A crash ends with a backtrace and `Exiting.`, which say nothing.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..driver.text import plain
from . import files
from .asking import Deadline
from .host import Host
from .manager import Manager
from .server import Server

MOST_LINE_CHARS = 300
MOST_TAIL_BYTES = 256 * 1024
MOST_JOURNAL_BYTES = 1024 * 1024
JOURNAL = "journal"

#: `2026-01-01T03:00:00.123456789 12.345678s error: words`
_OWN = re.compile(
    r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)? (?:\d+\.\d+s )?(debug|info|notice|warn|error): (.*)$"
)
_CONSOLE = re.compile(r"^(debug|info|notice|warn|warning|error|fatal): (.*)$", re.IGNORECASE)
_ERRORS = ("error", "fatal")
_NOISE = re.compile(
    r"""^(?:$|Exiting\.?$|Backtrace:|Version:|See\ also|Run\ 'rethinkdb
        |\w{3}\ \w{3}\ +\d+\ [\d:]+\ \d{4}   # the date above a backtrace
        |\d+(?:\ |:\ |\ \[).*0x)             # a line of it""",
    re.VERBOSE,
)
#: In what stands on stderr without a level.
_WORDS = re.compile(
    r"error|fatal|already in use|already exists|out of (?:disk|memory|file)|too many open files|cannot|could not"
    r"|can't|failed|failure|denied|trouble|guarantee|segmentation fault|assertion|terminate called|bad_alloc"
    r"|no space|no such file|not a valid|unrecognized|must be|not permitted|read-only|aborted|killed",
    re.IGNORECASE,
)
_JOURNAL_LINE = re.compile(r"^(\d{1,12}\.\d+) \S+ ([^:\[\]]+)(?:\[\d+\])?: (.*)$")


@dataclass(frozen=True)
class Line:
    """One line with an error. ``at_s``: by the wall clock; None: not known."""

    path: str
    words: str
    at_s: float | None


def last_error(
    host: Host, server: Server, override: str | None, manager: Manager | None, deadline: Deadline
) -> dict[str, Any] | None:
    """The last error, wherever it stands."""
    found: list[Line | None]
    if override:
        found = [in_file(Path(override), override)]
    else:
        own = server.log_file
        found = [in_file(server.here(own), str(own)) if own else None]
        if manager and manager.unit and host.systemd.is_dir():
            found.append(in_journal(manager.unit, deadline))
    lines = [line for line in found if line is not None]
    if not lines:
        return None
    last = max(lines, key=lambda line: line.at_s or 0.0)
    words = last.words
    for secret in server.secrets:
        words = words.replace(secret, "…")
    age_s = None if last.at_s is None else round(max(0.0, time.time() - last.at_s), 1)
    return {"path": last.path, "line": plain(words, MOST_LINE_CHARS), "age_s": age_s}


def in_file(path: Path, called: str) -> Line | None:
    """The last error in the end of a file."""
    data = files.tail(path, MOST_TAIL_BYTES)
    if data is None:
        return None
    written_s = path.stat().st_mtime
    lines = files.text(data).split("\n")
    if len(data) == MOST_TAIL_BYTES:
        del lines[0]  # its beginning was cut off
    nothing_since = True
    for text in reversed(lines):
        text = text.rstrip("\r")
        if own := _OWN.match(text):
            if own[2] in _ERRORS and not _NOISE.match(own[3]):
                return Line(called, own[3], _moment(own[1]))
            nothing_since = False
        elif (words := _error(text)) is not None:
            # A line without a time is as old as the file, if it is the last one that says something.
            return Line(called, words, written_s if nothing_since else None)
        elif not _noise(text):
            nothing_since = False
    return None


def _noise(text: str) -> bool:
    """Whether a line of stderr says nothing by itself."""
    if text[:1].isspace():
        return True  # goes on from the line above
    level = _CONSOLE.match(text)
    return bool(_NOISE.match((level[2] if level else text).strip()))


def _error(text: str) -> str | None:
    """The words of a line of stderr, if it tells of an error."""
    if _noise(text):
        return None
    level = _CONSOLE.match(text)
    words = level[2] if level else text
    if level:
        return words if level[1].lower() in _ERRORS else None
    return words if _WORDS.search(words) else None


def _moment(text: str) -> float | None:
    """RethinkDB writes the local time."""
    try:
        return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
    except (ValueError, OverflowError):
        return None


def in_journal(unit: str, deadline: Deadline) -> Line | None:
    """The last error that the unit's journal holds, of the service itself."""
    # Salt's own Python may have set this, and the tool would load libraries that are not its own.
    environ = {key: value for key, value in os.environ.items() if key != "LD_LIBRARY_PATH"}
    command = ["journalctl", f"--unit={unit}", "-n", "50", "-o", "short-unix", "--no-pager", "-q"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env={**environ, "LC_ALL": "C"}, timeout=max(0.05, deadline.left_s(0.9)), check=False,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    for text in reversed(files.text(done.stdout[-MOST_JOURNAL_BYTES:]).split("\n")):
        line = _JOURNAL_LINE.match(text)
        if line is None or line[2] == "systemd":
            continue
        own = _OWN.match(line[3])
        words = own[3] if own and own[2] in _ERRORS else None if own else _error(line[3])
        if words is not None and not _NOISE.match(words):
            return Line(JOURNAL, words, float(line[1]))
    return None
