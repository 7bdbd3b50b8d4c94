"""Connects through an outage: the attempts, the waiting between them, and when to give up.

A single dial is in `dial` and `async_dial`, the meaning of failures is in `failures`, and calls for help are in `help`.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ..driver.address import Address
from . import async_dial as _async_dial
from . import dial as _dial
from .errors import ConnectError, LoginRefused, NotConnected, Stopped, TlsFailed
from .failures import DIAL_ERRORS, Failure, classify
from .greeting import Progress
from .help import Help
from .settings import BadSettings, addresses, login, seconds

log = logging.getLogger(__name__)

TIMEOUT_S = 5.0
FIRST_WAIT_S = 0.1
MAX_WAIT_S = 60.0
#: In the first minutes of an outage a wait is shorter than ``QUICK_WAIT_S``. Later it is shorter than the outage's age
#: divided by ``WAITED_PER_WAIT``: after an hour, a wait of nine seconds does not matter.
QUICK_WAIT_S = 0.9
WAITED_PER_WAIT = 400.0
#: In the first minute, an attempt at one silent host and a wait together take less than a second.
EARLY_S = 60.0
SILENT_S = 0.5
LAST_TRY_S = 0.2  #: the last attempt begins this long before the deadline

#: Failures that waiting cannot cure.
FINAL = (Failure.AUTH, Failure.APPLICATION, Failure.INDETERMINATE)
#: Failures in which nothing was heard until the time was over.
_SILENT = (Failure.HUNG, Failure.UNREACHABLE)


@dataclass(frozen=True)
class Attempt:
    """One attempt to connect, for ``on_attempt``. If ``failure`` is None, it succeeded."""

    number: int
    host: str
    waited_s: float  #: the wait before this attempt
    took_s: float
    error: str | None = None
    failure: Failure | None = None
    elapsed_s: float = 0.0  #: since the call began

    def __str__(self) -> str:
        what = f"{self.failure}: {self.error}" if self.failure else "connected"
        after = f"after a wait of {self.waited_s:.1f} s, in {1000 * self.took_s:.0f} ms"
        return f"{self.elapsed_s:7.1f} s  attempt {self.number}  {self.host}  {what} ({after})"


def _pause(seconds: float, stop: Any) -> None:
    if stop is None:
        time.sleep(seconds)
    else:
        stop.wait(seconds)


async def _apause(seconds: float, stop: Any) -> None:
    if stop is None:
        await asyncio.sleep(seconds)
        return
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)


@dataclass(frozen=True)
class Timing:
    """Clock, sleep and random numbers. Tests pass their own."""

    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float, Any], None] = _pause
    apause: Callable[[float, Any], Any] = _apause
    uniform: Callable[[float, float], float] = random.uniform


# ---------------------------------------------------------------- the way through an outage


def longest_wait_s(failures: int, elapsed_s: float) -> float:
    """The longest wait, in seconds, after so many failures of one host in a row.

    It doubles with each failure, up to a limit that grows with the outage's age.
    """
    patient_s = min(MAX_WAIT_S, max(QUICK_WAIT_S, elapsed_s / WAITED_PER_WAIT))
    return min(patient_s, FIRST_WAIT_S * 2.0 ** min(failures - 1, 30))


@dataclass
class _Host:
    address: Address
    due: float
    order: float
    failures: int = 0
    last: Failure | None = None
    error: str = ""


@dataclass(frozen=True)
class Around:
    """What `healing` passes on to the `connect` that its factory calls."""

    help: Help | None = None
    stop: Any = None
    ends: float | None = None  #: the deadline, as a time of the clock
    queries: bool = False  #: queries follow, and only they prove that the cluster serves


AROUND: contextvars.ContextVar[Around] = contextvars.ContextVar(
    "selfheal_around", default=Around()  # noqa: B039 (frozen)
)


class _Course:
    """Which host is tried next and when, and when to give up: all of `connect` except dialling and sleeping."""

    def __init__(
        self,
        hosts: list[Address],
        timeout_s: float,
        deadline_s: float | None,
        help: Help | None,
        on_attempt: Callable[[Attempt], None] | None,
        stop: Any,
        timing: Timing,
    ) -> None:
        if deadline_s is not None and deadline_s < timeout_s:
            raise BadSettings(
                f"deadline: found {deadline_s:g} s; allowed: at least one timeout, which is {timeout_s:g} s: "
                "lower the timeout, too"
            )
        self._timing = timing
        self._began = timing.clock()
        self._hosts = [_Host(one, self._began, timing.uniform(0, 1)) for one in hosts]
        self._timeout_s = timeout_s
        around = AROUND.get()
        own = None if deadline_s is None else self._began + deadline_s
        self._ends = min((at for at in (own, around.ends) if at is not None), default=None)
        self._help = help if help is not None else around.help
        self._queries = around.queries
        self._on_attempt = on_attempt
        self.stop = stop if stop is not None else around.stop
        self._number = 0
        self._waited_s = 0.0

    def next(self) -> tuple[_Host, float]:
        """The next host, and how many seconds to wait first. Raises Stopped, or NotConnected at the deadline."""
        self.check_stop()
        host = min(self._hosts, key=lambda one: (one.due, one.order))
        now = self._timing.clock()
        wait_s = max(0.0, host.due - now)
        if self._ends is not None and now + wait_s > self._ends - LAST_TRY_S:
            wait_s = self._ends - LAST_TRY_S - now
            if wait_s <= 0 and self._number > 0:
                raise NotConnected(f"not connected within the deadline: {self._told()}", host.last)
        self._waited_s = max(0.0, wait_s)
        return host, self._waited_s

    def check_stop(self) -> None:
        """Raises Stopped if the application wants to end."""
        if self.stop is not None and self.stop.is_set():
            raise Stopped(f"told to stop: {self._told()}")

    def patience_s(self, host: _Host) -> float:
        """How many seconds the attempt that begins now may take.

        Early in an outage a host that was silent before gets less time, so that it does not hold up the others.
        """
        short = host.last in _SILENT and self._early() and len(self._hosts) > 1
        patience_s = min(self._timeout_s, SILENT_S) if short else self._timeout_s
        if self._ends is None:
            return patience_s
        return min(patience_s, max(0.01, self._ends - self._timing.clock()))

    def _early(self) -> bool:
        return self._timing.clock() - self._began < EARLY_S

    def _told(self) -> str:
        heard = [f"{one.address}: {one.last}, {one.error}" for one in self._hosts if one.last]
        return "; ".join(heard) or "no attempt made"

    def _tell(self, host: _Host, began: float, error: str | None, failure: Failure | None) -> None:
        self._number += 1
        if self._on_attempt is None:
            return
        now = self._timing.clock()
        attempt = Attempt(
            self._number, str(host.address), self._waited_s, now - began, error, failure,
            now - self._began,
        )  # fmt: skip
        try:
            self._on_attempt(attempt)
        except Exception:
            log.exception("on_attempt failed")

    @contextlib.contextmanager
    def attempt(self, host: _Host) -> Iterator[Progress]:
        """For use around one dial. A failure is noted, and is not raised if another attempt follows."""
        progress, began = Progress(), self._timing.clock()
        try:
            yield progress
        except DIAL_ERRORS as exc:
            self.failed(host, began, exc, progress)
        else:
            self.connected(host, began)

    def connected(self, host: _Host, began: float) -> None:
        """The attempt succeeded. Unless queries follow, that proves that the cluster serves."""
        if self._help is not None and not self._queries:
            self._help.well()
        self._tell(host, began, None, None)

    def failed(self, host: _Host, began: float, exc: BaseException, progress: Progress) -> None:
        """The attempt failed. The host rests for a while, or an error is raised if waiting cannot cure the failure."""
        failure, error = classify(exc, progress.stage)
        host.failures += 1
        host.last, host.error = failure, error
        self._tell(host, began, error, failure)
        if failure is Failure.AUTH:
            raise LoginRefused(f"{host.address}: {error}", failure)
        if failure in FINAL:
            raise ConnectError(f"{host.address}: {error}", failure)
        if all(one.last is Failure.TLS for one in self._hosts):
            raise TlsFailed(self._told(), failure)
        now = self._timing.clock()
        limit_s = longest_wait_s(host.failures, now - self._began)
        if self._early() and any(one.last in _SILENT for one in self._hosts if one is not host):
            limit_s = min(limit_s, QUICK_WAIT_S - SILENT_S)
        host.due = now + self._timing.uniform(0, limit_s)
        if self._help is not None:
            self._help.failed(f"{host.address}: {failure}: {error}")


def connect(
    hosts: Any,
    *,
    db: str | None = None,
    user: str = "admin",
    password: str = "",
    ssl: Any = None,
    timeout: float = TIMEOUT_S,
    query_timeout: float | None = None,
    deadline: float | None = None,
    help: Help | None = None,
    on_attempt: Callable[[Attempt], None] | None = None,
    stop: threading.Event | None = None,
    timing: Timing | None = None,
) -> Any:
    """A new connection of the official driver, as soon as one of the hosts can be connected.

    Args:
        hosts: ``host``, ``host:port`` or pairs; also one string with commas.
        ssl: True, the path of a certificate authority, the driver's ``{"ca_certs": path}``, or an SSLContext.
        timeout: seconds for one attempt: name, TCP, TLS, login and a first answer together.
        query_timeout: seconds for which a query may be silent; None: without limit, as for changefeeds.
        deadline: seconds for all attempts; None: try until connected or stopped.
        on_attempt: gets an `Attempt` for each attempt.
        stop: when it is set, the waiting ends; an attempt in progress ends with its timeout.

    Raises `BadSettings`, `LoginRefused`, `TlsFailed`, `NotConnected` or `Stopped`.
    """
    entry = login(db, user, password, ssl, query_timeout)
    course = _course(hosts, timeout, deadline, help, on_attempt, stop, timing)
    timing = timing or Timing()
    while True:
        host, wait_s = course.next()
        if wait_s:
            timing.pause(wait_s, course.stop)
            course.check_stop()
        with course.attempt(host) as progress:
            return _dial.dial(host.address, entry, course.patience_s(host), progress)


async def aconnect(
    hosts: Any,
    *,
    db: str | None = None,
    user: str = "admin",
    password: str = "",
    ssl: Any = None,
    timeout: float = TIMEOUT_S,
    query_timeout: float | None = None,
    deadline: float | None = None,
    help: Help | None = None,
    on_attempt: Callable[[Attempt], None] | None = None,
    stop: asyncio.Event | None = None,
    timing: Timing | None = None,
) -> Any:
    """Like `connect`, but with the driver's asyncio connection.

    Args:
        query_timeout: seconds until the first answer to a query must have come; after that the connection is aborted.
    """
    entry = login(db, user, password, ssl, query_timeout)
    course = _course(hosts, timeout, deadline, help, on_attempt, stop, timing)
    timing = timing or Timing()
    while True:
        host, wait_s = course.next()
        if wait_s:
            await timing.apause(wait_s, course.stop)
            course.check_stop()
        with course.attempt(host) as progress:
            return await _async_dial.adial(host.address, entry, course.patience_s(host), progress)


def _course(
    hosts: Any,
    timeout: Any,
    deadline: Any,
    help: Any,
    on_attempt: Any,
    stop: Any,
    timing: Timing | None,
) -> _Course:
    if help is not None and not isinstance(help, Help):
        raise BadSettings("help: allowed: a Help, or None")
    timeout_s = seconds("timeout", timeout) or TIMEOUT_S
    deadline_s = seconds("deadline", deadline, optional=True)
    return _Course(
        addresses(hosts), timeout_s, deadline_s, help, on_attempt, stop, timing or Timing()
    )
