"""Queries that survive an outage: what may be repeated is repeated, and what may have been done is not.

Nothing here dials: a connection comes from the application's factory, `connecting.connect` as a rule.
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

#: A table has a new primary within seconds after a node has died: nobody needs to be called for that.
PRIMARY_CHANGE_S = 10.0
#: The connection is of no use any more.
_LOST = (Failure.DEAD, Failure.HUNG, Failure.UNREACHABLE, Failure.ALIEN, Failure.TLS)


class OutcomeUnknown(ReqlOpIndeterminateError, ReqlDriverError):
    """The connection ended during a write: it may have been done, or not. It was not repeated."""


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
        self._deadline_s = seconds("deadline", deadline, optional=True)
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
            around = AROUND.set(Around(self._help, self._stop, patience.ends, True))
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
            except DIAL_ERRORS as exc:
                failure, error = classify(exc, "dial")
                if failure in FINAL:
                    raise
                patience.wait(exc, failure, error)
            finally:
                AROUND.reset(around)

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
