"""What the service manager says of the service: systemd in detail, any other one whether it runs.

Salt's `service.show` is there under systemd only (3006 to 3008). Other managers have `service.status`, which is
believed as it is: the status of RethinkDB's own init script always succeeds, so a yes may mean nothing.
"""

from __future__ import annotations

import contextlib
import inspect
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..driver.text import plain

MOST_STATE_CHARS = 40

Ask = Callable[[str], Any]


@dataclass(frozen=True)
class Manager:
    """What was told. None, or nothing: it could not be told."""

    state: str | None = None
    sub: str | None = None
    result: str | None = None
    restarts: int | None = None
    running: bool | None = None
    #: The rest is systemd's.
    unit: str | None = None
    main_pid: int | None = None
    last_pid: int | None = None  #: of the last main process, also of one that has ended
    command: tuple[str, ...] = ()
    folder: str | None = None
    cgroup: str | None = None
    started_s: float | None = None  #: of the last start and end, by the machine's monotonic clock
    ended_s: float | None = None

    @property
    def told(self) -> dict[str, Any]:
        return {
            "state": self.state,
            "sub": self.sub,
            "result": self.result,
            "restarts": self.restarts,
            "running": self.running,
        }


def show(functions: Mapping[str, Callable[..., Any]], service: str) -> Any:
    """What systemd says, by Salt's functions. Raises KeyError where the service manager is another one.

    Salt's loader loads all modules there are, which takes seconds, before it says that a function is missing (3008).
    """
    status = inspect.unwrap(functions["service.status"])
    if "show" not in getattr(status, "__globals__", {}):
        raise KeyError("service.show")
    return functions["service.show"](service)


def look(service: str, show: Ask, status: Ask) -> Manager | None:
    """Ask the service manager. None if it does not know the service, or there is none."""
    with contextlib.suppress(
        Exception
    ):  # no `service.show` here, or an answer that Salt cannot read
        shown = show(service)
        if isinstance(shown, Mapping) and isinstance(shown.get("ActiveState"), str):
            return None if shown.get("LoadState") == "not-found" else _systemd(shown)
    running = status(service)
    return Manager(running=running) if isinstance(running, bool) else None


def _systemd(shown: Mapping[str, Any]) -> Manager:
    state, sub, result = (_word(shown.get(key)) for key in ("ActiveState", "SubState", "Result"))
    main_pid = _number(shown.get("MainPID")) or None
    alive = state in ("active", "activating", "reloading", "deactivating")
    command = shown.get("ExecStart")
    line = command.get("argv[]") if isinstance(command, Mapping) else None
    folder = shown.get("WorkingDirectory")
    cgroup = shown.get("ControlGroup")
    unit = shown.get("Id")
    return Manager(
        state=state,
        sub=sub,
        result=result,
        restarts=_number(shown.get("NRestarts")),
        # "active (exited)" is what a dead server behind an init script looks like.
        running=alive and (main_pid is not None or sub == "running"),
        unit=unit if isinstance(unit, str) and re.fullmatch(r"[\w@.:\\-]{1,255}", unit) else None,
        main_pid=main_pid,
        last_pid=_number(shown.get("ExecMainPID")) or main_pid,
        command=tuple(line.split()) if isinstance(line, str) else (),
        folder=folder.lstrip("!-") if isinstance(folder, str) and "/" in folder else "/",
        cgroup=cgroup if isinstance(cgroup, str) and _is_cgroup(cgroup) else None,
        started_s=_moment(shown.get("ExecMainStartTimestampMonotonic")),
        ended_s=_moment(shown.get("ExecMainExitTimestampMonotonic")),
    )


def _is_cgroup(path: str) -> bool:
    return path.startswith("/") and len(path) > 1 and ".." not in path.split("/")


def _word(found: Any) -> str | None:
    return plain(found, MOST_STATE_CHARS) or None if isinstance(found, str) else None


def _number(found: Any) -> int | None:
    return int(found) if isinstance(found, str) and re.fullmatch(r"[0-9]{1,9}", found) else None


def _moment(found: Any) -> float | None:
    """systemd counts in microseconds; 0: never."""
    if not isinstance(found, str) or not re.fullmatch(r"[0-9]{1,18}", found) or not int(found):
        return None
    return int(found) / 1e6


def ago_s(moment_s: float) -> float:
    """How long a moment of the machine's monotonic clock is ago."""
    return max(0.0, time.clock_gettime(time.CLOCK_MONOTONIC) - moment_s)
