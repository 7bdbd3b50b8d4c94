"""What a node's own minion tells of its database (``selfheal.witness``): the facts, and what they mean.

A minion's words are a hint, as every result is: any minion can store one under another's name. So they never make a node
well. They may let the healer wait, choose another step, or give up and call a person.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from .remedies import Action


class Process(str, Enum):
    """Whether the service's process is there."""

    RUNS = "runs"
    GONE = "gone"
    UNKNOWN = "unknown"


class Ground(str, Enum):
    """Why a database does not serve, as far as its minion can see."""

    DISK_FULL = "disk_full"
    READ_ONLY = "read_only"
    PORT_TAKEN = "port_taken"
    DATA_IN_USE = "data_in_use"
    DATA_DAMAGED = "data_damaged"
    PID_FILE = "pid_file"
    BAD_CONFIG = "bad_config"
    OUT_OF_FILES = "out_of_files"
    OUT_OF_MEMORY = "out_of_memory"


@dataclass(frozen=True)
class Advice:
    """What can be done for one `Ground`."""

    says: str  #: what is wrong, for people
    person: str  #: what a person has to do if nothing else helps
    helps: frozenset[Action]  #: the actions that may help


_ANY = frozenset({Action.RESTART, Action.START, Action.HIGHSTATE, Action.FORCE_RESTART})
_NONE: frozenset[Action] = frozenset()

ADVICE: Mapping[Ground, Advice] = {
    Ground.DISK_FULL: Advice("its disk is full", "make room in its data directory", _NONE),
    Ground.READ_ONLY: Advice(
        "its data directory is on a file system that is read-only",
        "see what the kernel says about that disk",
        _NONE,
    ),
    Ground.PORT_TAKEN: Advice(
        "another process has its port", "end that process, or give one of them another port", _NONE
    ),
    Ground.DATA_IN_USE: Advice(
        "another process uses its data directory", "end the process that uses the directory", _NONE
    ),
    Ground.DATA_DAMAGED: Advice(
        "its data files are damaged",
        "restore the data, or let the other replicas fill it anew",
        _NONE,
    ),
    Ground.PID_FILE: Advice(
        "a pid file is in its way, and no process has that pid",
        "remove the pid file",
        frozenset({Action.HIGHSTATE, Action.FORCE_RESTART}),
    ),
    Ground.BAD_CONFIG: Advice(
        "its configuration is refused", "correct its configuration", frozenset({Action.HIGHSTATE})
    ),
    Ground.OUT_OF_FILES: Advice(
        "it has no file descriptors left", "raise its limit of open files", _ANY
    ),
    Ground.OUT_OF_MEMORY: Advice(
        "the kernel killed it for want of memory", "give it more memory or less cache", _ANY
    ),
}

#: What RethinkDB says when it ends or does not start (2.4.4), in small letters, and what that means.
_LAST_WORDS: tuple[tuple[str, Ground], ...] = (
    ("ran out of disk space", Ground.DISK_FULL),
    ("no space left on device", Ground.DISK_FULL),
    ("read-only file system", Ground.READ_ONLY),
    ("reserved or already in use", Ground.PORT_TAKEN),
    ("address already in use", Ground.PORT_TAKEN),
    ("could not bind to", Ground.PORT_TAKEN),
    ("is already in use, perhaps another instance", Ground.DATA_IN_USE),
    ("in use by another rethinkdb process", Ground.DATA_IN_USE),
    ("being used by another rethinkdb process", Ground.DATA_IN_USE),
    ("pid file", Ground.PID_FILE),
    ("pid-file", Ground.PID_FILE),
    ("too many open files", Ground.OUT_OF_FILES),
    ("corrupt", Ground.DATA_DAMAGED),
    ("checksum", Ground.DATA_DAMAGED),
    ("unrecognized option", Ground.BAD_CONFIG),
    ("configuration file", Ground.BAD_CONFIG),
    ("config file", Ground.BAD_CONFIG),
)
FRESH_S = 60.0  #: last words that are older than this may be about something else
FULL_BYTES = 1 << 20  #: less room than this on a disk is none
MOST_JOBS = 8  #: a minion names at most so many jobs
MOST_USER_CHARS = 60
#: What is taken for the JID of a job, and for its function, or its functions.
JID = re.compile(r"[A-Za-z0-9_.-]{1,64}")
FUNCTIONS = re.compile(r"[A-Za-z0-9_., ]{1,100}")
FILES_LEFT = 8  #: fewer file descriptors than this let no new client in


@dataclass(frozen=True)
class Running:
    """A job that changes something and runs on the minion."""

    jid: str
    function: str
    by: str = ""


@dataclass(frozen=True)
class Testimony:
    """What a node's minion has told. ``at`` is when it was asked, on the healer's timeline."""

    process: Process = Process.UNKNOWN
    age_s: float | None = None  #: how long the process has run
    listens: bool | None = None  #: on the port of the driver
    cluster_listens: bool | None = None  #: on the port that other servers connect to
    stopped: bool = False  #: the process is stopped (SIGSTOP)
    greets: bool = False  #: the server greets a client that comes from its own machine
    restarts: int | None = None  #: so often its service manager has started it by itself
    loops: bool = False  #: it did so again since the minion was asked before
    ground: Ground | None = None
    found: str = ""  #: what shows the ground
    words_age_s: float | None = (
        None  #: the ground is known by last words, or by a kill, that are so old
    )
    why: str = ""  #: what is known of the process, in a sentence
    jobs: tuple[Running, ...] = ()
    all_jobs: bool = False  #: no other such job runs there
    at: float = 0.0

    @property
    def sentence(self) -> str:
        """All that was found, for people."""
        if self.ground is None:
            return self.why
        found = f": {self.found}" if self.found else ""
        return f"{self.why}, and {ADVICE[self.ground].says}{found}"

    def after(self, before: Testimony | None) -> Testimony:
        """The same, compared with what was told before."""
        if before is None or before.restarts is None or self.restarts is None:
            return self
        if self.restarts <= before.restarts:
            return self
        why = f"{self.why}, and its service manager has started it {self.restarts} times"
        return replace(self, loops=True, why=why)

    def since(self, began: float, now: float) -> Testimony:
        """The same without a ground that is only known by words, or by a kill, that are older than the illness."""
        if self.words_age_s is None or now - self.words_age_s >= began:
            return self
        return replace(self, ground=None, found="", words_age_s=None)

    @property
    def runs_unheard(self) -> bool:
        """The process is there and does not listen: it is starting, or has never come so far."""
        return self.process is Process.RUNS and self.listens is False

    @property
    def gone(self) -> bool:
        return self.process is Process.GONE and not self.listens

    def runs_for_s(self, now: float) -> float | None:
        """How long the process has run by now, if that was told."""
        return None if self.age_s is None else self.age_s + max(0.0, now - self.at)


def read(told: Any) -> Testimony | None:
    """The testimony in what ``selfheal.witness`` returned. None: this is none. Never raises."""
    if not isinstance(told, Mapping) or told.get("version") != 1:
        return None
    process = _part(told, "process")
    state = process.get("state")
    known = state if state in (Process.RUNS.value, Process.GONE.value) else Process.UNKNOWN.value
    ground, found, known_s = _ground(told, process)
    jobs, all_jobs = _jobs(told.get("jobs"))
    testimony = Testimony(
        process=Process(known),
        age_s=_number(process.get("age_s")),
        listens=_truth(told.get("listens")),
        cluster_listens=_truth(told.get("cluster_listens")),
        stopped=process.get("status") in ("T", "t"),
        greets=known == Process.RUNS.value and told.get("greets") is True,
        restarts=_count(_part(told, "manager").get("restarts")),
        ground=ground,
        found=found,
        words_age_s=known_s,
        jobs=jobs,
        all_jobs=all_jobs,
    )
    return replace(testimony, why=_sentence(testimony, process))


def _part(told: Mapping[Any, Any], key: str) -> Mapping[Any, Any]:
    part = told.get(key)
    return part if isinstance(part, Mapping) else {}


def _number(value: Any) -> float | None:
    """A number that makes sense as an amount: finite, and not below 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) and 0 <= number < 1e15 else None


def _count(value: Any) -> int | None:
    number = _number(value)
    return None if number is None else int(number)


def _truth(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _text(value: Any) -> str:
    return value[:300] if isinstance(value, str) else ""


def _jobs(found: Any) -> tuple[tuple[Running, ...], bool]:
    """The jobs that the minion names, and whether these are all. A longer list may have been cut, so it is not all."""
    if not isinstance(found, list):
        return (), False
    jobs = tuple(job for one in found[:MOST_JOBS] if (job := _job(one)) is not None)
    return jobs, len(jobs) == len(found) < MOST_JOBS


def _job(one: Any) -> Running | None:
    if not isinstance(one, Mapping):
        return None
    jid, function = one.get("jid"), one.get("fun")
    if not isinstance(jid, str) or not isinstance(function, str):
        return None
    if not JID.fullmatch(jid) or not FUNCTIONS.fullmatch(function):
        return None
    return Running(jid, function, user(one.get("user")))


def user(found: Any) -> str:
    """The name of a job's user, in signs that can be printed. Empty: none is named."""
    return "".join(sign for sign in _text(found) if sign.isprintable())[:MOST_USER_CHARS]


def _ground(
    told: Mapping[Any, Any], process: Mapping[Any, Any]
) -> tuple[Ground | None, str, float | None]:
    """Why the database does not serve, what shows it, and how old that is if it happened once.

    What can be measured now comes before what has happened.
    """
    for asks in _SIGNS:
        found = asks(told, process)
        if found is not None:
            age_s = _HAPPENED.get(asks)
            return *found, age_s(told) if age_s else None
    return None, "", None


def _said_s(told: Mapping[Any, Any]) -> float | None:
    """How old its last words are."""
    return _number(_part(told, "log").get("age_s"))


def _killed_s(told: Mapping[Any, Any]) -> float | None:
    """How old a kill by the kernel is that may be about an earlier process. None: there is no such doubt.

    Only systemd tells when a service was started. Elsewhere the minion names the last kill that its kernel knows of.
    """
    if isinstance(_part(told, "manager").get("state"), str):
        return None
    return _number(_part(told, "oom_kill").get("age_s"))


_Found = tuple[Ground, str]


def _disk(told: Mapping[Any, Any], _: Mapping[Any, Any]) -> _Found | None:
    where = _part(told, "directory")
    path, free = _text(where.get("path")), _number(where.get("free_bytes"))
    if where.get("read_only") is True:
        return Ground.READ_ONLY, path
    if free is not None and free < FULL_BYTES:
        return Ground.DISK_FULL, f"{free / 1024:.0f} KB free at {path}"
    if _number(where.get("free_inodes")) == 0 and where.get("free_inodes") is not None:
        return Ground.DISK_FULL, f"no inode is free at {path}"
    return None


def _port(told: Mapping[Any, Any], _: Mapping[Any, Any]) -> _Found | None:
    holder = _part(told, "holder")
    if not holder:
        return None
    pid = _number(holder.get("pid"))
    who = _text(holder.get("name")) or "a process"
    return Ground.PORT_TAKEN, f"{who}{f' (pid {pid:.0f})' if pid else ''} listens there"


def _pid_file(told: Mapping[Any, Any], process: Mapping[Any, Any]) -> _Found | None:
    one = _part(told, "pid_file")
    if process.get("state") == Process.GONE.value and one.get("alive") is False:
        return Ground.PID_FILE, _text(one.get("path"))
    return None


def _files(_: Mapping[Any, Any], process: Mapping[Any, Any]) -> _Found | None:
    had, limit = _number(process.get("open_files")), _number(process.get("open_files_limit"))
    if had is None or limit is None or had < limit - FILES_LEFT:
        return None
    return Ground.OUT_OF_FILES, f"{had:.0f} of {limit:.0f} are open"


def _memory(told: Mapping[Any, Any], process: Mapping[Any, Any]) -> _Found | None:
    """A kill by the kernel. One that is long past, or before the last words, may not have ended this process."""
    kill = _part(told, "oom_kill")
    if not kill:
        return None
    past_s, said_s = _killed_s(told), _said_s(told)
    if past_s is not None:
        spoke_since = said_s is not None and said_s < past_s and _words(told, process) is not None
        if past_s > FRESH_S or spoke_since:
            return None
    age_s = _number(kill.get("age_s"))
    return Ground.OUT_OF_MEMORY, f"{age_s:.0f} s before it was asked" if age_s is not None else ""


def _words(told: Mapping[Any, Any], process: Mapping[Any, Any]) -> _Found | None:
    """The last words of a process that has ended just now. Older ones, and those of one that runs, prove nothing."""
    log, age_s = _part(told, "log"), _said_s(told)
    if process.get("state") != Process.GONE.value or age_s is None or age_s > FRESH_S:
        return None
    line = _text(log.get("line"))
    low = line.lower()
    return next(((ground, line) for words, ground in _LAST_WORDS if words in low), None)


_Asks = Callable[[Mapping[Any, Any], Mapping[Any, Any]], "_Found | None"]
_SIGNS: tuple[_Asks, ...] = (_disk, _port, _files, _memory, _words, _pid_file)
#: Of the signs of something that has happened once: how old it is.
_HAPPENED: Mapping[_Asks, Callable[[Mapping[Any, Any]], float | None]] = {
    _memory: _killed_s,
    _words: _said_s,
}


def _sentence(one: Testimony, process: Mapping[Any, Any]) -> str:
    """What is known of the process, for people."""
    if one.process is Process.RUNS:
        age = "" if one.age_s is None else f" since {one.age_s:.0f} s"
        stopped = ", and is stopped" if one.stopped else ""
        deaf = ", and does not listen" if one.listens is False else ""
        speaks = ", and answers there" if one.greets else ""
        return f"its process runs{age}{stopped}{deaf}{speaks}"
    if one.process is Process.GONE:
        return "its process is gone"
    why = _text(process.get("why"))
    return f"whether its process runs cannot be told{f' ({why})' if why else ''}"
