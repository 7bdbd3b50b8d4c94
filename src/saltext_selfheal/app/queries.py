"""Queries that survive an outage. A query is repeated if that is safe, but not a write that may have been done.

Nothing here dials. A connection comes from the application's factory, which usually calls `connecting.connect`.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rethinkdb.errors import ReqlDriverError, ReqlOpIndeterminateError
from rethinkdb.ql2_pb2 import Term

from .connecting import (
    AROUND,
    FINAL,
    LAST_TRY_S,
    Around,
    ConnectError,
    NotConnected,
    Stopped,
    Timing,
    longest_wait_s,
)
from .dial import discard, known_dead
from .failures import DIAL_ERRORS, Failure, classify
from .help import Help
from .settings import BadSettings, seconds

#: After a node has died, a table has a new primary within seconds. So help is not called for before this time.
PRIMARY_CHANGE_S = 10.0
#: After these failures the connection cannot be used any more.
_LOST = (Failure.DEAD, Failure.HUNG, Failure.UNREACHABLE, Failure.ALIEN, Failure.TLS)


class OutcomeUnknown(ReqlOpIndeterminateError, ReqlDriverError):
    """The connection ended during a write. The write may have been done or not, and it was not repeated."""


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
    """How many terms of a query change something, or may do so. 0: it is a read. A loop counts as two."""
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
    """Whether a write is done as a whole or not at all: it writes one document, or is one term of administration.

    RethinkDB writes several documents in batches. If it says that a write was not done, that is about the last batch
    only (2.4.4).
    """
    kind = getattr(term, "term_type", None)
    if kind not in _WRITES or writes_in(term) != 1:
        return False
    if kind == _T.INSERT:
        return bool(getattr(term._args[1], "term_type", None) == _T.MAKE_OBJ)
    if kind in (_T.UPDATE, _T.REPLACE, _T.DELETE):
        return bool(getattr(term._args[0], "term_type", None) == _T.GET)
    return kind not in (_T.FOR_EACH, _T.HTTP, _T.JAVASCRIPT)


class _Retries:
    """How one query or function waits for the end of an outage. A change of a primary calls for no help."""

    def __init__(self, help: Help | None, deadline_s: float | None, stop: Any, timing: Timing):
        self._help = help
        self._stop = stop
        self._timing = timing
        self._began = timing.clock()
        self.ends = None if deadline_s is None else self._began + deadline_s
        self._failures = 0

    def note(self, failure: Failure, error: str) -> None:
        """Tell the failure to `Help`, which makes a call when one is due."""
        if self._help is not None:
            quiet_s = 0.0 if failure in _LOST else PRIMARY_CHANGE_S
            self._help.failed(f"{failure}: {error}", quiet_s)

    def wait(self, exc: BaseException, failure: Failure, error: str) -> None:
        """Wait before the next try. Raises ``exc`` if the deadline leaves no time for one."""
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
    """What `healing` gives. It is used like a connection, and like the driver's own by one thread only."""

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
        self._deadline_s = seconds("deadline", deadline, optional=True)
        self._stop = stop
        self._timing = timing or Timing()
        self._db: str | None = None
        self._pid = os.getpid()
        #: The function's deadline, as a time of the clock; only inside `together`.
        self._ends: float | None = None

    def retries(self) -> _Retries:
        """The waiting of one query or function."""
        retries = _Retries(self._help, self._deadline_s, self._stop, self._timing)
        if self._ends is not None:
            retries.ends = self._ends
        return retries

    @contextlib.contextmanager
    def together(self) -> Iterator[_Retries]:
        """For the time of one function: none of its queries waits longer than the function may."""
        before, retries = self._ends, self.retries()
        self._ends = retries.ends
        try:
            yield retries
        finally:
            self._ends = before

    def open(self, retries: _Retries | None = None) -> Any:
        """The driver's connection behind this. A new one is made if there is none."""
        if self._pid != os.getpid():
            # After a fork the connection belongs to the parent. Closing it here would end it for the parent, too.
            self._conn, self._pid = None, os.getpid()
        if self._conn is not None and not known_dead(self._conn):
            return self._conn
        self.drop()
        retries = retries or self.retries()
        while True:
            around = AROUND.set(Around(self._help, self._stop, retries.ends, True))
            try:
                self._conn = self._factory()
                if self._db is not None:
                    self._conn.use(self._db)
                return self._conn
            except BadSettings:
                raise
            except ConnectError as exc:
                # If `connect` has given up, so does this. Only if its own deadline was shorter, it is tried again.
                if not isinstance(exc, NotConnected):
                    raise
                retries.wait(exc, exc.failure or Failure.DEAD, exc.message)
            except DIAL_ERRORS as exc:
                failure, error = classify(exc, "dial")
                if failure in FINAL:
                    raise
                retries.wait(exc, failure, error)
            finally:
                AROUND.reset(around)

    def drop(self) -> None:
        """Forget the connection. After an error it must not be used again."""
        conn, self._conn = self._conn, None
        if conn is not None:
            discard(conn)

    def well(self) -> None:
        """A query has succeeded, so the cluster serves."""
        if self._help is not None:
            self._help.well()

    def _start(self, term: Any, **options: Any) -> Any:
        """The driver calls this for ``query.run(conn)``."""
        writes = writes_in(term)
        retries = self.retries()
        while True:
            conn = self.open(retries)
            try:
                answer = conn._start(term, **options)
            except Exception as exc:
                failure, error = classify(exc)
                if failure in (Failure.AUTH, Failure.APPLICATION):
                    raise
                if failure in _LOST:
                    self.drop()
                    if writes:
                        retries.note(failure, error)
                        raise OutcomeUnknown(f"connection lost in a write: {error}") from exc
                # A write may be repeated only if it is known that nothing of it was done.
                elif failure is Failure.INDETERMINATE or (writes and not whole(term)):
                    retries.note(failure, error)
                    raise
                retries.wait(exc, failure, error)
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
        """Set the default database, also for later connections."""
        self._db = db
        if self._conn is not None:
            self._conn.use(db)

    def is_open(self) -> bool:
        """Whether a connection is open now, as far as is known."""
        return self._conn is not None and not known_dead(self._conn)

    def close(self, noreply_wait: bool = False) -> None:
        """End the connection. A later query opens a new one."""
        conn, self._conn = self._conn, None
        if conn is not None and self._pid == os.getpid():
            if noreply_wait:
                conn.close(noreply_wait=True)
            else:
                discard(conn)

    def __del__(self) -> None:
        # A connection of the driver is a circle of references. It would stay open until garbage collection finds it.
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

    Reads are repeated over new connections. A write is repeated only if it is known that it was not done. Otherwise
    `OutcomeUnknown` or the driver's `ReqlOpIndeterminateError` is raised, and the next query works again.

    Args:
        connection_factory: returns a new connection, such as ``functools.partial(connect, hosts, db="shop")``.
        deadline: seconds for which one query may wait for the end of an outage; None: no limit.
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
    """A decorator for functions whose first argument is a connection. They are called without that argument.

    Each thread keeps one connection open. Each query is healed by itself, as in `healing`. With ``idempotent=True`` the
    whole function is repeated, even after a write of unknown outcome. So calling it twice must have the effect of once.
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
            with conn.together() as retries:
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
                        retries.wait(exc, failure, error)

        return healed

    return decorate
