"""Queries that survive an outage. A query is repeated if that is safe, but not a write that may have been done.

Nothing here dials. A connection comes from the application's factory, which usually calls `connecting.connect`.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

from rethinkdb.ast import Repl
from rethinkdb.errors import ReqlDriverError

from .connecting import AROUND, FINAL, LAST_TRY_S, Around, Timing, longest_wait_s
from .dial import discard, known_dead
from .errors import ConnectError, NotConnected, OutcomeUnknown, Stopped
from .failures import DIAL_ERRORS, Failure, classify
from .help import Help
from .settings import BadSettings, quoted, seconds
from .terms import whole, writes_in

#: After a node has died, a table has a new primary within seconds. So help is not called for before this time.
PRIMARY_CHANGE_S = 10.0
#: After these failures the connection cannot be used any more.
_LOST = (Failure.DEAD, Failure.HUNG, Failure.UNREACHABLE, Failure.ALIEN, Failure.TLS)


class _Retries:
    """How one query or function waits for the end of an outage. A change of a primary calls for no help."""

    def __init__(self, help: Help | None, deadline_s: float | None, stop: Any, timing: Timing):
        self._help = help
        self._stop = stop
        self._timing = timing
        self._began = timing.clock()
        self.ends = None if deadline_s is None else self._began + deadline_s
        self._failures = 0

    def limit(self, limit_s: float) -> None:
        """Wait no longer than this, whatever the deadline is."""
        ends = self._timing.clock() + limit_s
        self.ends = ends if self.ends is None else min(self.ends, ends)

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


#: The driver's connections whose queries give something to wait for in place of an answer.
_NOT_BLOCKING = ("asyncio_net", "tornado_net", "trio_net", "twisted_net")
_UNSET: Any = object()


def _blocking(made: Any) -> Any:
    """What the factory made, if it is a blocking connection. Raises BadSettings."""
    allowed = "allowed: a function that returns a blocking connection of the driver"
    if inspect.isawaitable(made):
        if inspect.iscoroutine(made):
            made.close()
        raise BadSettings(f"connection_factory: found one for asyncio; {allowed}")
    kinds = [base.__module__ for base in type(made).__mro__]
    if any(kind.startswith(f"rethinkdb.{net}") for kind in kinds for net in _NOT_BLOCKING):
        raise BadSettings(f"connection_factory: found a connection that does not block; {allowed}")
    if not callable(getattr(made, "_start", None)):
        raise BadSettings(f"connection_factory: found one that returns {quoted(made)}; {allowed}")
    return made


class _Fixed:
    """An attribute of the connection behind a `Healing`. It can be read there, but only the factory can choose it."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, healing: Any, owner: Any = None) -> Any:
        return self if healing is None else getattr(healing.open(), self.name)

    def __set__(self, healing: Any, value: Any) -> None:
        raise AttributeError(f"{self.name}: only the connection_factory can choose it")


class Healing:
    """What `healing` gives. It is used like a connection, and like the driver's own by one thread only.

    Each public name of the driver's blocking connection is here, too, and does the same through an outage.
    """

    host, port, ssl, connect_timeout, handshake = _Fixed(), _Fixed(), _Fixed(), _Fixed(), _Fixed()

    _conn: Any = None
    _pid = 0
    _unanswered = False  #: writes with ``noreply`` were sent over the connection, and nobody has waited for them
    _forgotten = False  #: such writes were sent over a connection that has ended since

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
        self._db: Any = _UNSET
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
        self._own()
        if self._conn is not None and not known_dead(self._conn):
            return self._conn
        self.drop()
        retries = retries or self.retries()
        while True:
            around = AROUND.set(Around(self._help, self._stop, retries.ends, True))
            try:
                self._conn = _blocking(self._factory())
                if self._db is not _UNSET:
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

    def _own(self) -> None:
        if self._pid != os.getpid():
            # After a fork the connection belongs to the parent. Closing it here would end it for the parent, too.
            self._conn, self._pid = None, os.getpid()
            self._unanswered = self._forgotten = False

    def drop(self) -> None:
        """Forget the connection. After an error it must not be used again."""
        self._own()
        conn, self._conn = self._conn, None
        self._forgotten, self._unanswered = self._forgotten or self._unanswered, False
        if conn is not None:
            discard(conn)

    def well(self) -> None:
        """A query has succeeded, so the cluster serves."""
        if self._help is not None:
            self._help.well()

    def _start(self, term: Any, **options: Any) -> Any:
        """The driver calls this for ``query.run(conn)``."""
        noreply = bool(options.get("noreply"))
        answer = self._ask(lambda conn: conn._start(term, **options), term, not noreply)
        self._unanswered = self._unanswered or noreply
        return answer

    def _ask(self, ask: Callable[[Any], Any], term: Any = None, heard: bool = True) -> Any:
        """Ask the connection, again over a new one if need be. ``heard``: the server answers if all is well."""
        writes = writes_in(term)
        retries = self.retries()
        while True:
            conn = self.open(retries)
            try:
                answer = ask(conn)
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
                if heard:
                    self.well()
                return answer

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.open(), name)

    @property
    def db(self) -> Any:
        """The default database."""
        return self.open().db if self._db is _UNSET else self._db

    @db.setter
    def db(self, db: str | None) -> None:
        self.use(db)

    def use(self, db: str | None) -> None:
        """Set the default database, also for later connections."""
        self._db = db
        if self._conn is not None:
            self._conn.use(db)

    def repl(self) -> Healing:
        """From now on, ``query.run()`` of this thread asks this, and is healed as any other query."""
        Repl.set(self)
        return self

    def server(self) -> Any:
        """What the server that is connected says about itself."""
        return self._ask(lambda conn: conn.server())

    def noreply_wait(self) -> None:
        """Wait until the server has done all writes that were sent with ``noreply=True``.

        Raises OutcomeUnknown if a connection over which such writes were sent has ended since the last call.
        """
        if self.is_open() and self._unanswered:
            try:
                self._conn.noreply_wait()
            except Exception as exc:
                failure, error = classify(exc)
                self.drop()
                self.retries().note(failure, error)
            except BaseException:
                self.drop()
                raise
        lost = self._forgotten or (self._unanswered and not self.is_open())
        self._forgotten = self._unanswered = False
        if lost:
            raise OutcomeUnknown("connection lost after a write with noreply")

    def is_open(self) -> bool:
        """Whether a connection is open now, as far as is known."""
        self._own()
        return self._conn is not None and not known_dead(self._conn)

    def check_open(self) -> None:
        """Raises the driver's error if no connection is open now. A query would open one."""
        if not self.is_open():
            raise ReqlDriverError("Connection is closed.")

    def client_address(self) -> Any:
        """This side's address. None if no connection is open now."""
        return self._conn.client_address() if self.is_open() else None

    def client_port(self) -> Any:
        """This side's port. None if no connection is open now."""
        return self._conn.client_port() if self.is_open() else None

    def reconnect(self, noreply_wait: bool = True, timeout: float | None = None) -> Healing:
        """Open a new connection. ``timeout`` limits how long that may take, in seconds, with all attempts."""
        limit_s = seconds("timeout", timeout, optional=True)
        self.close(noreply_wait)
        retries = self.retries()
        if limit_s is not None:
            retries.limit(limit_s)
        self.open(retries)
        return self

    def close(self, noreply_wait: bool = True) -> None:
        """End the connection, after the writes with ``noreply=True`` are done. A later query opens a new one."""
        try:
            if noreply_wait:
                self.noreply_wait()
        finally:
            self.drop()
            self._forgotten = False

    def __enter__(self) -> Healing:
        self.open()
        return self

    def __exit__(self, *_: Any) -> None:
        if Repl.get() is self:
            Repl.clear()
        self.close(noreply_wait=False)

    def __aenter__(self) -> Any:
        raise BadSettings("healing: found `async with`; allowed: `with`; use aconnect in asyncio")

    def __aexit__(self, *_: Any) -> Any:
        raise BadSettings("healing: found `async with`; allowed: `with`; use aconnect in asyncio")

    def __del__(self) -> None:
        # A connection of the driver is a circle of references. It would stay open until garbage collection finds it.
        self.close(noreply_wait=False)

    def __repr__(self) -> str:
        return f"<healing {self._conn!r}>"


def healing(
    connection_factory: Callable[[], Any],
    *,
    help: Help | None = None,
    deadline: float | None = None,
    stop: threading.Event | None = None,
    timing: Timing | None = None,
) -> Healing:
    """A connection that survives outages. ``with`` opens it at once, and closes it at the end.

    Reads are repeated over new connections. A write is repeated only if it is known that it was not done. Otherwise
    `OutcomeUnknown` or the driver's `ReqlOpIndeterminateError` is raised, and the next query works again.

    Args:
        connection_factory: returns a new connection, such as ``functools.partial(connect, hosts, db="shop")``.
        deadline: seconds for which one query may wait for the end of an outage; None: no limit.
    """
    return Healing(connection_factory, help, deadline, stop, timing)


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
