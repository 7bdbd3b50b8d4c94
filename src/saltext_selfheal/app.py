"""For applications: connect to RethinkDB through an outage, heal queries, and call for help when that is not enough.

    conn = connect(["db1", "db2"], db="shop", help=Help(SaltAPI(…), cluster="runbook"))

Here live attempts, waiting and retrying, and the command that shows them (``python -m saltext_selfheal.app``). One
dial and the meaning of failures are in `dial`, the doors to the healer in `help`. Nothing of Salt may be imported.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import contextvars
import functools
import inspect
import logging
import os
import random
import re
import signal
import ssl as tls
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rethinkdb.errors import ReqlAuthError, ReqlDriverError, ReqlOpIndeterminateError
from rethinkdb.ql2_pb2 import Term

from . import dial as _dial
from .dial import DRIVER_PORT, Address, Failure, Login, Stage, classify, discard, known_dead
from .help import BadSettings, Help, Helped, SaltAPI, Webhook, shown

__all__ = [
    "Attempt",
    "BadSettings",
    "ConnectError",
    "Failure",
    "Help",
    "Helped",
    "LoginRefused",
    "NotConnected",
    "OutcomeUnknown",
    "SaltAPI",
    "Stopped",
    "TlsFailed",
    "Webhook",
    "aconnect",
    "connect",
    "healing",
    "heals",
]

log = logging.getLogger(__name__)

TIMEOUT_S = 5.0
FIRST_WAIT_S = 0.1
MAX_WAIT_S = 60.0
#: A wait is shorter than this in the first minutes, and than the outage's age divided by that later: who has waited
#: for an hour can wait nine seconds more.
QUICK_WAIT_S = 0.9
PATIENCE = 400.0
#: In the first minute one silent host and a wait together stay below a second.
EARLY_S = 60.0
SILENT_S = 0.5
LAST_TRY_S = 0.2  #: before the deadline
#: A table has a new primary within seconds after a node has died: nobody needs to be called for that.
PRIMARY_CHANGE_S = 10.0

#: Waiting cannot cure these.
_FINAL = (Failure.AUTH, Failure.APPLICATION, Failure.INDETERMINATE)
#: Nothing was heard until the time was over.
_SILENT = (Failure.HUNG, Failure.UNREACHABLE)
#: The connection is of no use any more.
_LOST = (Failure.DEAD, Failure.HUNG, Failure.UNREACHABLE, Failure.ALIEN, Failure.TLS)


class ConnectError(ReqlDriverError):
    """There is no connection; ``failure`` says why. Also a `ReqlDriverError`, which applications catch already."""

    def __init__(self, message: str, failure: Failure | None = None) -> None:
        ReqlDriverError.__init__(self, message)
        self.failure = failure


class NotConnected(ConnectError):
    """Not within the deadline."""


class Stopped(ConnectError):
    """The stop event was set."""


class LoginRefused(ConnectError, ReqlAuthError):
    """User, password or permission: neither waiting nor a restart cures that."""


class TlsFailed(ConnectError):
    """No node has a certificate that can be trusted, or none speaks TLS."""


class OutcomeUnknown(ReqlOpIndeterminateError, ReqlDriverError):
    """The connection ended during a write: it may have been done, or not. It was not repeated."""


@dataclass(frozen=True)
class Attempt:
    """One attempt to connect, for ``on_attempt``. Without ``failure`` it succeeded."""

    number: int
    host: str
    waited_s: float  #: before it
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
    """Clock, sleep and chance; tests bring their own."""

    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float, Any], None] = _pause
    apause: Callable[[float, Any], Any] = _apause
    uniform: Callable[[float, float], float] = random.uniform


# ---------------------------------------------------------------- settings


def _addresses(hosts: Any) -> list[Address]:
    allowed = "host, host:port or [IPv6]:port, or pairs of host and port"
    listed = hosts.split(",") if isinstance(hosts, str) else hosts
    if not isinstance(listed, Iterable):
        raise BadSettings(f"hosts: found {shown(hosts)}; allowed: {allowed}")
    found = [_address(one, allowed) for one in listed]
    if not found:
        raise BadSettings(f"hosts: found none; allowed: {allowed}")
    twice = {str(one) for one in found if found.count(one) > 1}
    if twice:
        raise BadSettings(f"hosts: found twice: {', '.join(sorted(twice))}; once is enough")
    return found


def _address(one: Any, allowed: str) -> Address:
    if isinstance(one, Address):
        return one
    if isinstance(one, (tuple, list)) and len(one) == 2:
        host, port = one
        named = isinstance(host, str) and re.fullmatch(r"[^\[\]\s/@?#]+", host)
        if named and isinstance(port, int) and 0 < port < 65536:
            return Address(host.lower(), port)
    elif isinstance(one, str):
        text = one.strip()
        if re.fullmatch(r"[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(%\w+)?", text):
            return Address(text.lower())
        match = re.fullmatch(r"(?:\[([^\]\s]+)\]|([^:\[\]\s/@?#]+))(?::(\d{1,5}))?", text)
        if match and 0 < int(match[3] or DRIVER_PORT) < 65536:
            return Address((match[1] or match[2]).lower(), int(match[3] or DRIVER_PORT))
    raise BadSettings(f"hosts: found {shown(one)}; allowed: {allowed}")


def _seconds(name: str, value: Any, *, optional: bool = False) -> float | None:
    if value is None and optional:
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float("inf"):
        return float(value)
    raise BadSettings(f"{name}: found {value!r:.40}; allowed: seconds, more than 0")


def _tls(ssl: Any) -> tls.SSLContext | None:
    if ssl is None or ssl is False or isinstance(ssl, tls.SSLContext):
        return ssl or None
    ca = ssl.get("ca_certs") if isinstance(ssl, Mapping) else ssl
    if ssl != {} and ca is None:
        raise BadSettings("ssl: allowed: True, a path, {'ca_certs': path} or an SSLContext")
    try:
        path = None if ca is True or ssl == {} else os.fspath(ca)
        return None if ssl == {} else tls.create_default_context(cafile=path)
    except (OSError, TypeError) as exc:
        raise BadSettings(
            f"ssl: found {ca!r:.100}, which is no file of certificates: {exc}"
        ) from None


def _login(db: Any, user: str, password: str, ssl: Any, query_timeout: Any) -> Login:
    password = "" if password is None else password
    if not isinstance(password, str) or not password.isascii():
        raise BadSettings("password: allowed: ASCII text; the driver takes no other")
    if not isinstance(user, str) or not user:
        raise BadSettings(f"user: found {user!r:.40}; allowed: a name")
    patience_s = _seconds("query_timeout", query_timeout, optional=True)
    return Login(db, user, password, _tls(ssl), patience_s)


# ---------------------------------------------------------------- the way through an outage


def longest_wait_s(failures: int, elapsed_s: float) -> float:
    """The upper end of the wait after so many failures in a row: exponential, and slower the longer it lasts."""
    patient_s = min(MAX_WAIT_S, max(QUICK_WAIT_S, elapsed_s / PATIENCE))
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
class _Around:
    """What the `healing` that calls a factory lends to the `connect` inside."""

    help: Help | None = None
    stop: Any = None
    ends: float | None = None  #: of the clock
    queries: bool = False  #: follow: only they prove that the cluster serves


_AROUND: contextvars.ContextVar[_Around] = contextvars.ContextVar(
    "selfheal_around", default=_Around()  # noqa: B039 (frozen)
)


class _Course:
    """Which host is tried when, and when it ends: all of `connect` but dialling and sleeping."""

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
                f"deadline: found {deadline_s:g} s; allowed: at least one timeout, {timeout_s:g} s"
            )
        self._timing = timing
        self._began = timing.clock()
        self._hosts = [_Host(one, self._began, timing.uniform(0, 1)) for one in hosts]
        self._timeout_s = timeout_s
        around = _AROUND.get()
        own = None if deadline_s is None else self._began + deadline_s
        self._ends = min((at for at in (own, around.ends) if at is not None), default=None)
        self._help = help if help is not None else around.help
        self._queries = around.queries
        self._on_attempt = on_attempt
        self.stop = stop if stop is not None else around.stop
        self._number = 0
        self._waited_s = 0.0

    def next(self) -> tuple[_Host, float]:
        """Whom to try, and how long to wait before."""
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
        """Raises when the application wants to end."""
        if self.stop is not None and self.stop.is_set():
            raise Stopped(f"told to stop: {self._told()}")

    def patience_s(self, host: _Host) -> float:
        """For the attempt that begins now. Early in an outage a host that was silent does not hold up the others."""
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
    def attempt(self, host: _Host) -> Iterator[Stage]:
        """Around one dial: its failure is noted, and swallowed where another attempt follows."""
        stage, began = Stage(), self._timing.clock()
        try:
            yield stage
        except _dial.DIAL_ERRORS as exc:
            self.failed(host, began, exc, stage)
        else:
            self.connected(host, began)

    def connected(self, host: _Host, began: float) -> None:
        """The end."""
        if self._help is not None and not self._queries:
            self._help.well()
        self._tell(host, began, None, None)

    def failed(self, host: _Host, began: float, exc: BaseException, stage: Stage) -> None:
        """Let it rest; or raise what no waiting cures."""
        failure, error = classify(exc, stage.name)
        host.failures += 1
        host.last, host.error = failure, error
        self._tell(host, began, error, failure)
        if failure is Failure.AUTH:
            raise LoginRefused(f"{host.address}: {error}", failure)
        if failure in _FINAL:
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
    """A new connection of the official driver, as soon as one of the hosts gives one.

    Args:
        hosts: ``host``, ``host:port`` or pairs; also one string with commas.
        ssl: True, the path of a certificate authority, the driver's ``{"ca_certs": path}``, or an SSLContext.
        timeout: seconds for one attempt: name, TCP, TLS, login and a first answer together.
        query_timeout: seconds that a query may be silent; None as long as it likes, for changefeeds.
        deadline: seconds for all attempts; None tries until it is connected or stopped.
        on_attempt: gets an `Attempt` for each.
        stop: ends the waiting when set; an attempt under way ends with its timeout.

    Raises `BadSettings`, `LoginRefused`, `TlsFailed`, `NotConnected` or `Stopped`.
    """
    login = _login(db, user, password, ssl, query_timeout)
    course = _course(hosts, timeout, deadline, help, on_attempt, stop, timing)
    timing = timing or Timing()
    while True:
        host, wait_s = course.next()
        if wait_s:
            timing.pause(wait_s, course.stop)
            course.check_stop()
        with course.attempt(host) as stage:
            return _dial.dial(host.address, login, course.patience_s(host), stage)


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
    """As `connect`, with the driver's asyncio connection.

    Args:
        query_timeout: seconds until the first answer to a query is there; then the connection is aborted.
    """
    login = _login(db, user, password, ssl, query_timeout)
    course = _course(hosts, timeout, deadline, help, on_attempt, stop, timing)
    timing = timing or Timing()
    while True:
        host, wait_s = course.next()
        if wait_s:
            await timing.apause(wait_s, course.stop)
            course.check_stop()
        with course.attempt(host) as stage:
            return await _dial.adial(host.address, login, course.patience_s(host), stage)


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
    timeout_s = _seconds("timeout", timeout) or TIMEOUT_S
    deadline_s = _seconds("deadline", deadline, optional=True)
    return _Course(
        _addresses(hosts), timeout_s, deadline_s, help, on_attempt, stop, timing or Timing()
    )


# ---------------------------------------------------------------- queries


_T = Term.TermType
_WRITES = frozenset(
    getattr(_T, name)
    for name in (
        "INSERT", "UPDATE", "REPLACE", "DELETE", "FOR_EACH", "SYNC", "DB_CREATE", "DB_DROP", "TABLE_CREATE",
        "TABLE_DROP", "INDEX_CREATE", "INDEX_DROP", "INDEX_RENAME", "RECONFIGURE", "REBALANCE", "GRANT",
        "SET_WRITE_HOOK", "HTTP", "JAVASCRIPT",
    )
    if hasattr(_T, name)
)  # fmt: skip


def writes_in(term: Any) -> int:
    """How many terms of a query change something, or may: 0 makes it a read; a loop counts as many."""
    found = 0
    looking = [term]
    while looking:
        one = looking.pop()
        if isinstance(one, (list, tuple)):
            looking.extend(one)
            continue
        if isinstance(one, Mapping):
            looking.extend(one.values())
            continue
        kind = getattr(one, "term_type", None)
        if kind in _WRITES:
            found += 2 if kind == _T.FOR_EACH else 1
        looking.extend(getattr(one, "_args", ()))
        looking.extend(getattr(one, "optargs", {}).values())
    return found


def whole(term: Any) -> bool:
    """Whether a write is done as a whole or not at all: one document, or one term of administration.

    RethinkDB writes more than one in batches, and says only of the last that it was not performed (2.4.4).
    """
    kind = getattr(term, "term_type", None)
    if kind not in _WRITES or writes_in(term) != 1:
        return False
    if kind == _T.INSERT:
        return bool(getattr(term._args[1], "term_type", None) == _T.MAKE_OBJ)
    if kind in (_T.UPDATE, _T.REPLACE, _T.DELETE):
        return bool(getattr(term._args[0], "term_type", None) == _T.GET)
    return kind not in (_T.FOR_EACH, _T.HTTP, _T.JAVASCRIPT)


class _Patience:
    """How one query or function waits: a primary change quietly, longer outages as `connect` does."""

    def __init__(self, help: Help | None, deadline_s: float | None, stop: Any, timing: Timing):
        self._help = help
        self._stop = stop
        self._timing = timing
        self._began = timing.clock()
        self.ends = None if deadline_s is None else self._began + deadline_s
        self._failures = 0

    def note(self, failure: Failure, error: str) -> None:
        """For whom to call, when it is due."""
        if self._help is not None:
            quiet_s = 0.0 if failure in _LOST else PRIMARY_CHANGE_S
            self._help.failed(f"{failure}: {error}", quiet_s)

    def wait(self, exc: BaseException, failure: Failure, error: str) -> None:
        """Before the next try; raises ``exc`` when there is none."""
        self.note(failure, error)
        self._failures += 1
        now = self._timing.clock()
        elapsed_s = now - self._began
        wait_s = self._timing.uniform(0, longest_wait_s(self._failures, elapsed_s))
        if self.ends is not None:
            if now >= self.ends - LAST_TRY_S:
                raise exc
            wait_s = min(wait_s, self.ends - LAST_TRY_S - now)
        self._timing.pause(wait_s, self._stop)
        if self._stop is not None and self._stop.is_set():
            raise Stopped(f"told to stop: {failure}: {error}", failure) from exc


class Healing:
    """What `healing` gives: to be used as a connection is. For one thread, as the driver's own."""

    _conn: Any = None

    def __init__(
        self,
        factory: Callable[[], Any],
        help: Help | None = None,
        deadline: float | None = None,
        stop: Any = None,
        timing: Timing | None = None,
    ) -> None:
        if not callable(factory):
            raise BadSettings("connection_factory: allowed: a function that returns a connection")
        self._factory = factory
        self._help = help
        self._deadline_s = _seconds("deadline", deadline, optional=True)
        self._stop = stop
        self._timing = timing or Timing()
        self._db: str | None = None
        self._pid = os.getpid()
        self._ends: float | None = None  #: of the clock, inside of `together`

    def patience(self) -> _Patience:
        """For one query or function."""
        patience = _Patience(self._help, self._deadline_s, self._stop, self._timing)
        if self._ends is not None:
            patience.ends = self._ends
        return patience

    @contextlib.contextmanager
    def together(self) -> Iterator[_Patience]:
        """For one function: none of its queries waits longer than the function itself."""
        before, patience = self._ends, self.patience()
        self._ends = patience.ends
        try:
            yield patience
        finally:
            self._ends = before

    def open(self, patience: _Patience | None = None) -> Any:
        """The driver's connection behind this, a new one where there is none."""
        if self._pid != os.getpid():
            # The parent's: to close it here would say goodbye in its name.
            self._conn, self._pid = None, os.getpid()
        if self._conn is not None and not known_dead(self._conn):
            return self._conn
        self.drop()
        patience = patience or self.patience()
        while True:
            around = _AROUND.set(_Around(self._help, self._stop, patience.ends, True))
            try:
                self._conn = self._factory()
                if self._db is not None:
                    self._conn.use(self._db)
                return self._conn
            except BadSettings:
                raise
            except ConnectError as exc:
                # What `connect` gave up is given up, but for a deadline of its own.
                if not isinstance(exc, NotConnected):
                    raise
                patience.wait(exc, exc.failure or Failure.DEAD, exc.message)
            except _dial.DIAL_ERRORS as exc:
                failure, error = classify(exc, "dial")
                if failure in _FINAL:
                    raise
                patience.wait(exc, failure, error)
            finally:
                _AROUND.reset(around)

    def drop(self) -> None:
        """Forget the connection: after an error it is never used again."""
        conn, self._conn = self._conn, None
        if conn is not None:
            discard(conn)

    def well(self) -> None:
        """A query succeeded."""
        if self._help is not None:
            self._help.well()

    def _start(self, term: Any, **options: Any) -> Any:
        """What the driver calls for ``query.run(conn)``."""
        writes = writes_in(term)
        patience = self.patience()
        while True:
            conn = self.open(patience)
            try:
                answer = conn._start(term, **options)
            except Exception as exc:
                failure, error = classify(exc)
                if failure in (Failure.AUTH, Failure.APPLICATION):
                    raise
                if failure in _LOST:
                    self.drop()
                    if writes:
                        patience.note(failure, error)
                        raise OutcomeUnknown(f"connection lost in a write: {error}") from exc
                # Only a write that was not done at all may be done now.
                elif failure is Failure.INDETERMINATE or (writes and not whole(term)):
                    patience.note(failure, error)
                    raise
                patience.wait(exc, failure, error)
            except BaseException:
                self.drop()
                raise
            else:
                self.well()
                return answer

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.open(), name)

    def use(self, db: str) -> None:
        """The default database, also of the connections to come."""
        self._db = db
        if self._conn is not None:
            self._conn.use(db)

    def is_open(self) -> bool:
        """Whether a connection is open now, as far as is known."""
        return self._conn is not None and not known_dead(self._conn)

    def close(self, noreply_wait: bool = False) -> None:
        """End it; a later query opens a new one."""
        conn, self._conn = self._conn, None
        if conn is not None and self._pid == os.getpid():
            if noreply_wait:
                conn.close(noreply_wait=True)
            else:
                discard(conn)

    def __del__(self) -> None:
        # The driver's connections are circles of references: they would stay open until somebody collects them.
        self.close()

    def __repr__(self) -> str:
        return f"<healing {self._conn!r}>"


@contextlib.contextmanager
def healing(
    connection_factory: Callable[[], Any],
    *,
    help: Help | None = None,
    deadline: float | None = None,
    stop: threading.Event | None = None,
    timing: Timing | None = None,
) -> Iterator[Any]:
    """A connection that survives outages.

    Reads are repeated over new connections. A write is repeated only if it is known that it was not done; else
    `OutcomeUnknown` or the driver's `ReqlOpIndeterminateError` is raised, and the next query works again.

    Args:
        connection_factory: returns a new connection, such as ``functools.partial(connect, hosts, db="shop")``.
        deadline: seconds that one query may wait for an outage's end; None has no limit.
    """
    conn = Healing(connection_factory, help, deadline, stop, timing)
    try:
        conn.open()
        yield conn
    finally:
        conn.close()


def heals(
    connection_factory: Callable[[], Any],
    *,
    help: Help | None = None,
    idempotent: bool = False,
    deadline: float | None = None,
    stop: threading.Event | None = None,
    timing: Timing | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """For functions that take a connection first: they are called without it. Each thread keeps one open.

    Queries are healed one by one, as in `healing`. With ``idempotent=True`` the whole function is repeated, also
    after a write of unknown outcome: twice must be as good as once.
    """
    kept = threading.local()

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise BadSettings("heals: allowed: ordinary functions; use aconnect in asyncio")
        if inspect.isgeneratorfunction(function):
            raise BadSettings("heals: allowed: ordinary functions; a generator runs after its call")

        @functools.wraps(function)
        def healed(*args: Any, **kwargs: Any) -> Any:
            conn = getattr(kept, "conn", None)
            if conn is None:
                conn = kept.conn = Healing(connection_factory, help, deadline, stop, timing)
            if not idempotent:
                return function(conn, *args, **kwargs)
            with conn.together() as patience:
                while True:
                    try:
                        return function(conn, *args, **kwargs)
                    except ConnectError:
                        raise
                    except Exception as exc:
                        failure, error = classify(exc)
                        if failure in (Failure.AUTH, Failure.APPLICATION):
                            raise
                        if failure in _LOST or isinstance(exc, OutcomeUnknown):
                            conn.drop()
                        patience.wait(exc, failure, error)

        return healed

    return decorate


# ---------------------------------------------------------------- the command


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m saltext_selfheal.app",
        description="Connect to RethinkDB as an application does, and tell each attempt in a line.",
        epilog="Passwords and secrets are read from the environment: SELFHEAL_DB_PASSWORD, SELFHEAL_API_PASSWORD, "
        "SELFHEAL_WEBHOOK_SECRET. Exit codes: 0 connected, 1 not within the deadline, 2 bad arguments, 3 login or TLS.",
    )
    parser.add_argument("--hosts", required=True, help="host or host:port, separated by commas")
    parser.add_argument("--db", help="the default database")
    parser.add_argument("--user", default="admin", help="RethinkDB user (default: admin)")
    parser.add_argument("--ca", metavar="PATH", help="TLS, trusting this certificate authority")
    parser.add_argument("--tls", action="store_true", help="TLS, trusting what the system trusts")
    parser.add_argument("--timeout", type=float, default=TIMEOUT_S, help="of one attempt, seconds")
    parser.add_argument("--deadline", type=float, default=60.0, help="of all (60); 0: none")
    helping = parser.add_argument_group("calling for help")
    helping.add_argument("--cluster", help="the cluster's name in the healer's settings")
    helping.add_argument("--salt-api", metavar="URL", help="call by salt-api")
    helping.add_argument("--api-user", metavar="NAME")
    helping.add_argument("--eauth", default="pam", help="(default: pam)")
    helping.add_argument("--minion", help="call by this minion instead of the runner")
    helping.add_argument("--webhook", metavar="URL", help="call by the signed webhook")
    helping.add_argument("--api-ca", metavar="PATH", help="the doors' certificate authority")
    helping.add_argument("--insecure", action="store_true", help="take any certificate there")
    helping.add_argument("--highstate-after", type=float, default=300.0, metavar="SECONDS")
    helping.add_argument("--restart-after", type=float, default=600.0, metavar="SECONDS")
    helping.add_argument("--again-after", type=float, default=600.0, metavar="SECONDS")
    return parser


def _say(line: object) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _asked_help(options: argparse.Namespace) -> Help | None:
    if not options.salt_api and not options.webhook:
        return None
    if options.salt_api and options.webhook:
        raise BadSettings("--salt-api and --webhook: allowed: one of them")
    if not options.cluster:
        raise BadSettings("--cluster: needed to call for help")
    verify: bool | str = False if options.insecure else options.api_ca or True
    via: SaltAPI | Webhook
    if options.webhook:
        secret = os.environ.get("SELFHEAL_WEBHOOK_SECRET", "")
        via = Webhook(options.webhook, secret, verify=verify)
    else:
        password = os.environ.get("SELFHEAL_API_PASSWORD", "")
        if not options.api_user or not password:
            raise BadSettings("--api-user and SELFHEAL_API_PASSWORD: needed with --salt-api")
        client = "local" if options.minion else "runner"
        via = SaltAPI(
            options.salt_api, options.api_user, password, options.eauth, verify=verify, client=client,
            minion=options.minion,
        )  # fmt: skip
    return Help(
        via,
        options.cluster,
        highstate_after=options.highstate_after,
        restart_after=options.restart_after,
        again_after=options.again_after,
        on_help=lambda helped: _say(f"    help  {helped}"),
    )


def main(arguments: list[str] | None = None) -> int:
    """The command. Returns its exit code."""
    options = _parser().parse_args(arguments)
    if options.ca and not Path(options.ca).is_file():
        _parser().error(f"--ca: there is no file {options.ca}")
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    help = None
    try:
        help = _asked_help(options)
        conn = connect(
            options.hosts,
            db=options.db,
            user=options.user,
            password=os.environ.get("SELFHEAL_DB_PASSWORD", ""),
            ssl=options.ca or options.tls or None,
            timeout=options.timeout,
            deadline=options.deadline or None,
            help=help,
            on_attempt=_say,
            stop=stop,
        )
    except BadSettings as exc:
        sys.stderr.write(f"{exc}\n")
        return 2
    except ConnectError as exc:
        sys.stderr.write(f"{exc.message}\n")
        return 3 if isinstance(exc, (LoginRefused, TlsFailed)) else 1
    finally:
        if help is not None:
            # A call under way would end with this process.
            help.wait(15.0)
    discard(conn)
    return 0


if __name__ == "__main__":
    sys.exit(main())
