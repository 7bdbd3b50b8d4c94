"""All facts together, in time and in bounds: what `selfheal.witness` returns."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ..driver.text import all_clean, plain
from . import greeting, jobs, log, manager, memory, processes, storage
from .asking import Deadline, Question
from .host import Host
from .manager import Manager
from .processes import Process
from .search import Found, Search

VERSION = 1
MOST_BYTES = 8192
MOST_NAME_CHARS = 60
#: Texts are cut to the first of these with which all fits.
_CUTS = (300, 150, 60, 20)

#: Until when, as shares of the whole time, the manager and the search may answer; the rest is for what comes after.
_MANAGER_SHARE = 0.4
_SEARCH_SHARE = 0.8
_REST_SHARE = 0.98


def testify(
    service: str,
    port: int,
    timeout_s: float,
    *,
    show: Callable[[str], Any],
    status: Callable[[str], Any],
    running: Callable[[], Any],
    config: str | None = None,
    log_path: str | None = None,
    host: Host | None = None,
) -> dict[str, Any]:
    """What can be seen of the server with this driver port.

    ``show`` and ``status`` are Salt's functions of these names in `service`, and ``running`` is that of `saltutil`; they
    may raise whatever they want.
    ``config`` and ``log_path`` are paths that somebody has set for this machine.
    """
    host = host or Host()
    deadline = Deadline(timeout_s)
    others = Question(jobs.running, running)
    seen = Question(manager.look, service, show, status).answer(
        deadline.left_s(_MANAGER_SHARE), None
    )
    found = Question(Search(host, port, deadline, seen, config).find).answer(
        deadline.left_s(_SEARCH_SHARE), Found(why="the list of processes could not be read in time")
    )  # fmt: skip
    process = found.process
    age_s = None if process is None else max(0.0, processes.uptime_s(host.proc) - process.started_s)
    asked: dict[str, Question[Any]] = {
        "process": Question(_numbers, host, process, age_s, deadline),
        "directory": Question(storage.directory, found.server),
        "pid_file": Question(storage.pid_file, found.server, host.proc),
        "log": Question(log.last_error, host, found.server, log_path, seen, deadline),
        "oom_kill": Question(_oom, host, found, seen, age_s),
        "jobs": others,
        "greets": Question(_greets, found.at, port, deadline.left_s(_REST_SHARE)),
    }
    told: dict[str, Any] = {
        key: question.answer(deadline.left_s(_REST_SHARE), None) for key, question in asked.items()
    }
    return bounded(
        {
            "version": VERSION,
            "service": service,
            "port": port,
            "process": _process(found, age_s, told.pop("process")),
            "listens": found.listens,
            "cluster_listens": found.cluster_listens,
            "holder": _holder(found.holder),
            "manager": None if seen is None else seen.told,
            **told,
            "peers": list(found.server.peers),
        }
    )


def _numbers(
    host: Host, process: Process | None, age_s: float | None, deadline: Deadline
) -> dict[str, Any] | None:
    """What has to be counted."""
    if process is None:
        return None
    return {
        "open_files": processes.open_files(host.proc, process.pid, deadline),
        "open_files_limit": processes.open_files_limit(host.proc, process.pid),
    }


def _greets(ip: str, port: int, within_s: float) -> bool | None:
    """Whether the server says anything to a client from here. None: it cannot be dialled from here."""
    if not ip:
        return None
    anywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}
    return greeting.greets(anywhere.get(ip, ip), port, within_s)


def _process(found: Found, age_s: float | None, counted: dict[str, Any] | None) -> dict[str, Any]:
    process = found.process
    return {
        "state": found.state,
        "pid": process.pid if process else None,
        "age_s": None if age_s is None else round(age_s, 2),
        "cpu_s": round(process.cpu_s, 2) if process else None,
        "rss_bytes": process.rss_bytes if process else None,
        "open_files": counted["open_files"] if counted else None,
        "open_files_limit": counted["open_files_limit"] if counted else None,
        "status": process.status if process else None,
        "why": found.why,
    }


def _holder(process: Process | None) -> dict[str, Any] | None:
    if process is None:
        return None
    return {"pid": process.pid, "name": plain(process.name, MOST_NAME_CHARS)}


def _oom(
    host: Host, found: Found, seen: Manager | None, age_s: float | None
) -> dict[str, Any] | None:
    pids = {seen.last_pid} if seen and seen.last_pid else set()
    file = storage.pid_file(found.server, host.proc)
    if file and file["pid"]:
        pids.add(file["pid"])
    if found.process:
        pids.add(found.process.pid)
    return memory.last_kill(host, seen, found.process, age_s, frozenset(pids))


def bounded(told: dict[str, Any]) -> dict[str, Any]:
    """The same with clean texts, so short that all of it fits."""
    for most in _CUTS:
        cut: dict[str, Any] = all_clean(told, most)
        if len(json.dumps(cut)) <= MOST_BYTES:
            break
    return cut
