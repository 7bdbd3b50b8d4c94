"""What was ordered, how long that is good for, how much patience it needs, and what is told afterwards."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

VERSION = 1
MOST_WHY_CHARS = 500

#: What has become of the server's old process: it stopped when it was asked to, it was ended by a signal, there was
#: none, or nothing has ended.
ORDERLY, KILLED, STARTED, NONE = "orderly", "killed", "started", "none"
#: What comes after the orderly stop must fit into this, if the caller sets no time for all of it.
REST_S = 30.0


class Refused(Exception):
    """This must not be done. Nothing was touched."""


class Failed(Exception):
    """It was begun and did not succeed."""


class Stuck(Failed):
    """A process survives SIGKILL, so nothing may be started beside it."""


@dataclass(frozen=True)
class Order:
    """End the server of this service, with this driver port, and start it."""

    service: str
    port: int
    stop_timeout_s: float = 30.0
    not_after_s: float | None = None  #: seconds since the epoch, by this machine's clock
    timeout_s: float | None = None

    @property
    def all_s(self) -> float:
        """Seconds for all of it."""
        return self.stop_timeout_s + REST_S if self.timeout_s is None else self.timeout_s

    def check_age(self, now_s: float) -> None:
        """Raises Refused if the order is not good any more."""
        if self.not_after_s is not None and now_s > self.not_after_s:
            raise Refused(
                f"the order was good until {_utc(self.not_after_s)}, and by this minion's clock it is {_utc(now_s)}"
            )


def _utc(moment_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(moment_s))


@dataclass(frozen=True)
class Patience:
    """How long each thing may take, in seconds. Tests are less patient."""

    ask_s: float = 10.0  #: a question to the service manager
    look_s: float = 5.0  #: a look at all processes
    file_s: float = 2.0  #: a look at the pid file
    #: From SIGTERM to SIGKILL. The service manager has asked the process to end long before, so this is only for one that
    #: was stopped (SIGSTOP) and goes on now.
    term_s: float = 0.5
    unit_s: float = 2.0  #: from `systemctl kill` to the death of its processes
    kill_s: float = 5.0  #: from SIGKILL to death
    #: From the server's death to the return of the stop. A stop that goes on could stop what is started then: RethinkDB's
    #: init script stops all its instances, one after the other, and looks once a second (2.4.4).
    returns_s: float = 5.0
    start_s: float = 5.0  #: the least that a start gets, whatever is left
    appears_s: float = (
        3.0  #: between the start's return and the first sight of the process, whichever is first
    )
    #: How long the process must live before it counts. One with a wrong config file ends after some hundredths of a second.
    lives_s: float = 0.2


def told(
    done: bool,
    how: str,
    why: str,
    killed: Iterable[int] = (),
    pid: int | None = None,
    stuck: bool = False,
) -> dict[str, Any]:
    """What the caller gets."""
    return {
        "version": VERSION,
        "done": done,
        "how": how,
        "why": why[:MOST_WHY_CHARS],
        "killed": sorted(killed),
        "pid": pid,
        "stuck": stuck,
    }
