"""One dial of a RethinkDB node for an application, every wait under one deadline; and what a failure means.

The connections are the official driver's (2.4.10): its queries, cursors and errors. Only the dial is ours. The
driver's own resolves names without a limit, gives TCP and TLS a timeout each, reads the wall clock, and tells no
refused connection from a hung server. What must not live here: attempts, waiting, calls for help, and anything of
Salt.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import re
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Unresolved
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from rethinkdb import net
from rethinkdb.asyncio_net import net_asyncio
from rethinkdb.errors import (
    ReqlAuthError,
    ReqlCompileError,
    ReqlDriverError,
    ReqlError,
    ReqlOpFailedError,
    ReqlOpIndeterminateError,
    ReqlPermissionError,
    ReqlTimeoutError,
)
from rethinkdb.handshake import HandshakeV1_0

from ..driver.address import Address
from ..driver.wire import (
    MAX_GREETING_BYTES,
    Alien,
    LoginRefused,
    Lost,
    advance,
    check_iterations,
    salted_password,
)

CHUNK_BYTES = 256 * 1024  #: read at once; memory is taken for as much before it is there
#: The application's own machine or process is out of something: no fault of the node.
_OURS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES, errno.EPERM)
#: RethinkDB says with one error that a table cannot serve now and that it does not exist (2.4.4).
_NOT_NOW = (
    "not available", "unavailable", "unreachable", "lost contact", "not ready", "timed out",
    "changing from one replica", "quorum of replicas", "too many primary", "no replica is available",
    "any data available", "retrieve the table configuration",
)  # fmt: skip


#: What a dial and the driver raise, hostile answers included. All else comes from outside, as Celery's soft time limit
#: does, which a signal raises wherever the program stands.
DIAL_ERRORS = (
    ReqlError, Alien, Lost, LoginRefused, OSError, EOFError, asyncio.TimeoutError, Unresolved, ValueError, TypeError,
    AttributeError, LookupError, ArithmeticError, RuntimeError, MemoryError, struct.error,
)  # fmt: skip

_LATE = (TimeoutError, BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Failure(str, Enum):
    """What a failure says about the node, or about the application."""

    DEAD = "dead"  #: refused, or ended what was open
    HUNG = "hung"  #: accepts, and says nothing in time
    UNREACHABLE = "unreachable"  #: no answer to TCP, no route, no such name
    ALIEN = "alien"  #: answers, but not as RethinkDB does
    AUTH = "auth"  #: login or permission refused
    TLS = "tls"  #: certificate or TLS failure
    NOT_READY = "not ready"  #: serves, but this table not yet or not now
    INDETERMINATE = "indeterminate"  #: a write of which nobody knows whether it was done
    APPLICATION = "application error"  #: the query's own fault

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Login:
    """How to get in, the same at every node."""

    db: str | None = None
    user: str = "admin"
    password: str = field(default="", repr=False)
    tls: ssl.SSLContext | None = None
    query_timeout_s: float | None = None


@dataclass
class Stage:
    """How far a dial came: it tells what a silence means."""

    name: str = "name"


def plain(words: Any, most: int = 300) -> str:
    """One line without control characters."""
    text = "".join(c if c.isprintable() else " " for c in str(words)[: 4 * most])
    return " ".join(text.split())[:most]


# ---------------------------------------------------------------- what a failure means


def classify(exc: BaseException, at: str = "query") -> tuple[Failure, str]:
    """Which failure an exception is, and a line about it.

    ``at`` is the stage of the dial; ``query``, where only the driver's own errors count; or ``dial`` for a connect
    that tells no stages.
    """
    ours = isinstance(exc, (ReqlError, Alien, Lost))
    driver = isinstance(exc, DIAL_ERRORS) and _from_the_driver(exc)
    if at == "query" and not ours and not driver:
        # A function that queries may also read files and parse what it likes.
        return Failure.APPLICATION, f"{type(exc).__name__}: {plain(exc)}"
    if isinstance(exc, (asyncio.TimeoutError, TimeoutError, Unresolved)):
        return _silence(exc, at)
    if isinstance(exc, LoginRefused):
        return Failure.AUTH, f"login refused: {plain(exc)}"
    if isinstance(exc, (Lost, EOFError)):  # asyncio's IncompleteReadError is an EOFError
        return Failure.DEAD, f"connection closed in the {at}"
    if isinstance(exc, OSError):
        return _os_error(exc, at)
    if isinstance(exc, ReqlError):
        return _reql_error(exc, at)
    if at == "query" and isinstance(exc, AttributeError):
        # The driver uses its socket without looking whether it still has one (2.4.10).
        return Failure.DEAD, "connection closed under the query"
    return Failure.ALIEN, f"does not speak as RethinkDB does: {type(exc).__name__}: {plain(exc)}"


def _silence(exc: BaseException, at: str) -> tuple[Failure, str]:
    if isinstance(exc, OSError) and exc.errno == errno.ETIMEDOUT:
        return Failure.UNREACHABLE, "the connection timed out"
    return {
        "name": (Failure.UNREACHABLE, "its name does not resolve in time"),
        "TCP": (Failure.UNREACHABLE, "does not answer to TCP in time"),
        "TLS": (Failure.HUNG, "accepts TCP, but no TLS handshake in time"),
        "handshake": (Failure.HUNG, "accepts TCP, but no handshake in time"),
    }.get(at, (Failure.HUNG, "is connected, but gives no answer in time"))


def _os_error(exc: OSError, at: str) -> tuple[Failure, str]:
    words = plain(exc.strerror or exc)
    if exc.errno in _OURS and not isinstance(exc, ssl.SSLError):
        return Failure.UNREACHABLE, f"this machine cannot open a connection: {words}"
    if isinstance(exc, ConnectionRefusedError):
        return Failure.DEAD, "connection refused"
    if isinstance(exc, socket.gaierror):
        return Failure.UNREACHABLE, f"its name does not resolve: {words}"
    if isinstance(exc, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return Failure.DEAD, f"connection closed in the {at}"
    if isinstance(exc, ssl.SSLError):
        words = getattr(exc, "verify_message", "") or getattr(exc, "reason", "") or words
        return Failure.TLS, f"TLS failed: {plain(words)}"
    if at in ("name", "TCP") and not isinstance(exc, ConnectionError):
        return Failure.UNREACHABLE, words
    return Failure.DEAD, f"breaks the connection in the {at}: {words}"


def _reql_error(exc: ReqlError, at: str) -> tuple[Failure, str]:
    # `message`, because str() prints the query and what is written with it.
    words = plain(getattr(exc, "message", "") or type(exc).__name__)
    if isinstance(exc, (ReqlAuthError, ReqlPermissionError)):
        return Failure.AUTH, words
    if at not in ("query", "dial") and not isinstance(exc, ReqlDriverError):
        return Failure.ALIEN, f"answers SERVER_INFO with an error: {words}"
    if isinstance(exc, ReqlOpIndeterminateError):
        return Failure.INDETERMINATE, words
    if isinstance(exc, ReqlOpFailedError):
        said = re.sub(r"`[^`]*`", "", words).lower()  # without the names of tables
        now = any(sign in said for sign in _NOT_NOW)
        return (Failure.NOT_READY if now else Failure.APPLICATION), words
    if not isinstance(exc, ReqlDriverError) or isinstance(exc, ReqlCompileError):
        return Failure.APPLICATION, words
    # The driver puts what really happened into its text; the exception itself is behind it (2.4.10).
    behind = exc.__cause__ or exc.__context__
    if words.startswith(("Could not connect", "SSL handshake")) and behind is not None:
        dialling = "handshake" if "handshake" in words else "TCP"
        return classify(behind, dialling if at in ("query", "dial") else at)
    closed = ("Connection is closed", "Connection interrupted", "Error receiving", "Error sending")
    if words.startswith(closed):
        return Failure.DEAD, words
    if words.startswith(("Unexpected", "Unknown Response")) or at not in ("query", "dial"):
        return Failure.ALIEN, words
    return Failure.APPLICATION, words


def _from_the_driver(exc: BaseException) -> bool:
    """Whether it comes from where the driver reads and writes, and not from what a query was made of."""
    trace = exc.__traceback__
    names = []
    while trace is not None:
        frame = trace.tb_frame
        names.append((frame.f_globals.get("__name__", ""), frame.f_code.co_name))
        trace = trace.tb_next
    driver = [function for module, function in names if module in _DRIVER_NETS]
    if not driver or driver[-1] == "serialize":
        return False
    return names[-1][0].partition(".")[0] in _BELOW or names[-1][0] in _DRIVER_NETS


_BELOW = ("rethinkdb", "json", "socket", "ssl", "asyncio")
_DRIVER_NETS = (net.__name__, net_asyncio.__name__, __name__)


# ---------------------------------------------------------------- names


class Names:
    """Names → addresses, on daemon threads: a resolver that hangs holds neither a caller nor the process's end.

    One thread per name at most, however often it is asked for; the last good answer serves meanwhile.
    """

    def __init__(self) -> None:
        self._pid = 0
        self._own()

    def _own(self) -> None:
        if self._pid != os.getpid():
            # After a fork the threads are gone, and the lock may be held by one of them.
            self._lock = threading.Lock()
            self._asking: dict[Address, Future[list[tuple[int, Any]]]] = {}
            self._good: dict[Address, list[tuple[int, Any]]] = {}
            self._pid = os.getpid()

    def ask(self, address: Address) -> Future[list[tuple[int, Any]]]:
        """(family, socket address) pairs, some time."""
        self._own()
        try:
            literal = _getaddrinfo(address, socket.AI_NUMERICHOST)
        except (socket.gaierror, UnicodeError):
            pass
        else:
            known: Future[list[tuple[int, Any]]] = Future()
            known.set_result(literal)
            return known
        with self._lock:
            asking = self._asking.get(address)
            if asking is None:
                asking = Future()
                finding = threading.Thread(
                    target=self._find, args=(address, asking), name="selfheal-name", daemon=True
                )
                try:
                    finding.start()
                except RuntimeError as exc:
                    raise OSError(errno.ENOMEM, str(exc)) from exc
                self._asking[address] = asking
            return asking

    def last_good(self, address: Address) -> list[tuple[int, Any]] | None:
        """What the name was the last time."""
        return self._good.get(address)

    def _find(self, address: Address, asking: Future[list[tuple[int, Any]]]) -> None:
        try:
            found = _getaddrinfo(address)
        except Exception as exc:
            # A name that no encoding knows cannot exist.
            wrong = exc if isinstance(exc, OSError) else socket.gaierror(str(exc))
            with self._lock:
                self._asking.pop(address, None)
            asking.set_exception(wrong)
            return
        with self._lock:
            self._good[address] = found
            self._asking.pop(address, None)
        asking.set_result(found)


def _getaddrinfo(address: Address, flags: int = 0) -> list[tuple[int, Any]]:
    rows = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=flags)
    return [(int(family), sockaddr) for family, _, _, _, sockaddr in rows]


NAMES = Names()


def _resolve(address: Address, patience_s: float) -> list[tuple[int, Any]]:
    asking, good = NAMES.ask(address), NAMES.last_good(address)
    try:
        return asking.result(_for_the_name_s(patience_s, good))
    except Unresolved:
        if good:
            return good
        raise


async def _aresolve(address: Address, patience_s: float) -> list[tuple[int, Any]]:
    asking, good = NAMES.ask(address), NAMES.last_good(address)
    try:
        # Shielded: others wait for the same answer.
        found = asyncio.shield(asyncio.wrap_future(asking))
        return await asyncio.wait_for(found, _for_the_name_s(patience_s, good))
    except asyncio.TimeoutError:
        if good:
            return good
        raise


def _for_the_name_s(patience_s: float, good: Any) -> float:
    """With something to fall back on, most of the time is kept for the dial."""
    return max(0.0, patience_s / 4 if good else patience_s)


# ---------------------------------------------------------------- what is said at the beginning


def _greeting(address: Address, login: Login) -> Generator[bytes, bytes, None]:
    """The V1_0 handshake, by the driver's own state machine: yields what to send, takes the next message."""
    decoder, encoder = json.JSONDecoder(), json.JSONEncoder()
    shake = HandshakeV1_0(decoder, encoder, address.host, address.port, login.user, login.password)
    shake._pbkdf2_hmac = salted_password
    shake.next_message((yield shake.next_message(None)))
    challenge = yield b""
    check_iterations(challenge)
    last = yield advance(shake, challenge)
    advance(shake, last)


def _talk(address: Address, login: Login) -> Generator[bytes, bytes, None]:
    """The same over a stream: yields what to send, which may be nothing, and takes the next bytes read."""
    greeting, buffer = _greeting(address, login), bytearray()
    say = next(greeting)
    with contextlib.suppress(StopIteration):
        while True:
            while (end := buffer.find(b"\0", 0, MAX_GREETING_BYTES)) < 0:
                if len(buffer) > MAX_GREETING_BYTES:
                    raise Alien(f"sent {len(buffer)} bytes without ending its greeting")
                chunk = yield say
                say = b""
                if not chunk:
                    raise Alien(f"sent {bytes(buffer[:40])!r} and hung up") if buffer else Lost()
                buffer += chunk
            message = bytes(buffer[:end])
            del buffer[: end + 1]
            say += greeting.send(message)


def _check_info(info: Any) -> None:
    if not isinstance(info, dict):
        raise Alien("answers SERVER_INFO with something else")


def _check_peer(sock: socket.socket) -> None:
    """Linux lets a dial to a free local port connect to itself: nobody listens there."""
    if sock.getsockname() == sock.getpeername():
        raise ConnectionRefusedError(errno.ECONNREFUSED, "connected to itself")


def _prepare(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def _worst(failures: list[Exception]) -> Exception:
    """Of several addresses: refused proves death only if it is all that was heard."""
    told = next((e for e in failures if not isinstance(e, ConnectionRefusedError)), failures[0])
    failures.clear()  # else exception and list hold each other
    return told


# ---------------------------------------------------------------- blocking


class _Socket(net.SocketWrapper):
    """The driver's reading and writing, on a socket that we dialled. What breaks in a message ends the connection."""

    def __init__(self, parent: Any, sock: socket.socket, ends: float) -> None:
        self.host = parent._parent.host
        self.port = parent._parent.port
        self.ssl = parent._parent.ssl
        self._read_buffer = None
        self._socket: Any = sock
        self.clock = parent._parent.clock
        self.ends: float | None = ends  #: of the dial
        self.query_timeout_s: float | None = None

    def recvall(self, length: int, deadline: float | None) -> bytes:
        """``deadline`` is of a cursor's ``next(wait=…)``, by the wall clock: when it passes, the next call goes on."""
        until = None if deadline is None else self.clock() + max(0.0, deadline - time.time())
        held = bytearray(self._read_buffer or b"")
        self._read_buffer = None
        try:
            if self.ends is not None and length > MAX_GREETING_BYTES:
                raise Alien(f"answers SERVER_INFO with {length} bytes")
            while len(held) < length:
                left_s = self._left_s() if until is None else max(0.0, until - self.clock())
                self._socket.settimeout(left_s)
                chunk = self._socket.recv(min(length - len(held), CHUNK_BYTES))
                if not chunk:
                    raise Lost
                held += chunk
            self._socket.settimeout(None)
        except BaseException as exc:
            if until is None or not isinstance(exc, _LATE):
                self._end(exc)
                raise
            self._socket.settimeout(None)
            self._read_buffer = bytes(held)
            raise ReqlTimeoutError(self.host, self.port) from None
        return bytes(held)

    def sendall(self, data: bytes) -> None:
        left = memoryview(data)
        try:
            while left:
                self._socket.settimeout(self._left_s())
                left = left[self._socket.send(left) :]
            self._socket.settimeout(None)
        except BaseException as exc:
            self._end(exc)
            raise

    def close(self) -> None:
        """The driver's own leaves a socket open whose other end is gone, and logs it (2.4.10)."""
        sock, self._socket = self._socket, None
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _left_s(self) -> float | None:
        """How long the other side may be silent: a dial has one limit, a query has it anew with each byte."""
        if self.ends is None:
            return self.query_timeout_s
        left_s = self.ends - self.clock()
        if left_s <= 0:
            raise TimeoutError
        return left_s

    def _end(self, exc: BaseException) -> None:
        """Raises in the driver's words what it has words for."""
        self.close()
        if isinstance(exc, _LATE):
            raise ReqlTimeoutError(self.host, self.port) from None
        if isinstance(exc, Lost):
            raise ReqlDriverError("Connection is closed.") from None
        if isinstance(exc, OSError):
            raise ReqlDriverError(f"Connection interrupted: {plain(exc.strerror or exc)}") from exc


class _Instance(net.ConnectionInstance):
    def connect(self, timeout: float) -> Any:
        parent = self._parent
        deadline = parent.clock() + timeout
        sock = _open(parent.address, parent.login, deadline, parent.clock, parent.stage)
        try:
            _greet(sock, parent.address, parent.login, deadline, parent.clock)
            parent.stage.name = "answer"
            self._socket = _Socket(self, sock, deadline)
            # A server may take a login and do nothing more. This needs no permission and reads no table.
            query = net.Query(net.pQuery.SERVER_INFO, parent._new_token(), None, None)
            _check_info(self.run_query(query, False))
            self._socket.ends = None
            self._socket.query_timeout_s = parent.login.query_timeout_s
        except BaseException:
            sock.close()
            raise
        return parent


class Connection(net.Connection):
    """The driver's blocking connection, dialled under a deadline."""

    def __init__(self, address: Address, login: Login, timeout_s: float, clock: Any) -> None:
        super().__init__(
            _Instance, address.host, address.port, login.db, None, login.user, login.password,
            timeout_s, {}, 10,
        )  # fmt: skip
        self.address = address
        self.login = login
        self.clock = clock
        self.stage = Stage()

    def reconnect(self, noreply_wait: bool = True, timeout: float | None = None) -> Any:
        """Only for its user: the driver itself would dial anew before it lets Ctrl-C through (2.4.10)."""
        if self._instance is not None and isinstance(sys.exc_info()[1], KeyboardInterrupt):
            self.close(noreply_wait=False)
            return self
        return super().reconnect(noreply_wait, timeout)

    def __repr__(self) -> str:
        return f"<connection to {self.address}, {'open' if self.is_open() else 'closed'}>"


def dial(
    address: Address,
    login: Login,
    timeout_s: float,
    stage: Stage,
    clock: Callable[[], float] = time.monotonic,
) -> Connection:
    """A new connection, proved to answer. Blocks for at most ``timeout_s``; raises whatever went wrong."""
    made = Connection(address, login, timeout_s, clock)
    made.stage = stage
    made._instance = _Instance(made)
    made._instance.connect(timeout_s)
    return made


def _open(
    address: Address, login: Login, deadline: float, clock: Callable[[], float], stage: Stage
) -> socket.socket:
    """TCP, and TLS where asked for. Several addresses share the one deadline."""
    stage.name = "name"
    found = _resolve(address, deadline - clock())
    failures: list[Exception] = []
    for index, (family, sockaddr) in enumerate(found):
        stage.name = "TCP"
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
        except OSError as exc:
            failures.append(exc)
            continue
        try:
            sock.settimeout(max(0.001, (deadline - clock()) / (len(found) - index)))
            sock.connect(sockaddr)
            _check_peer(sock)
            _prepare(sock)
            if login.tls is None:
                stage.name = "handshake"
                return sock
            stage.name = "TLS"
            # Its certificate must name what was asked for, not the address found for it.
            sock = login.tls.wrap_socket(
                sock, server_hostname=address.host.partition("%")[0], do_handshake_on_connect=False
            )
            sock.settimeout(max(0.001, deadline - clock()))
            sock.do_handshake()
            stage.name = "handshake"
            return sock
        except OSError as exc:
            sock.close()
            failures.append(exc)
            if stage.name == "TLS" or exc.errno in _OURS:
                break
        except BaseException:
            sock.close()
            raise
    raise _worst(failures)


def _greet(
    sock: socket.socket,
    address: Address,
    login: Login,
    deadline: float,
    clock: Callable[[], float],
) -> None:
    talk = _talk(address, login)
    say = next(talk)
    with contextlib.suppress(StopIteration):
        while True:
            left_s = deadline - clock()
            if left_s <= 0:
                raise TimeoutError
            sock.settimeout(left_s)
            sock.sendall(say)
            say = talk.send(sock.recv(4096))


def known_dead(conn: Any) -> bool:
    """Whether a blocking connection is known to have ended: looks without waiting, and reads nothing away."""
    try:
        if not conn.is_open():
            return True
        sock = conn._instance._socket._socket
        # Also under TLS: the bytes below it.
        return socket.socket.recv(sock, 1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
    except AttributeError:
        return False  # a connection of some other making


def discard(conn: Any) -> None:
    """End a connection of which nothing good is known any more, without waiting for anything."""
    try:
        conn.close(noreply_wait=False)
    except Exception:
        # It fails on what is closed already (2.4.10).
        return


# ---------------------------------------------------------------- asyncio


class _AsyncInstance(net_asyncio.ConnectionInstance):
    query_timeout_s: float | None = None
    ended_by: Exception | None = None

    async def connect(self, timeout: float) -> Any:
        try:
            await asyncio.wait_for(self._connect(timeout), timeout)
        except BaseException:
            self.abort()
            raise
        self.query_timeout_s = self._parent.login.query_timeout_s
        return self._parent

    def abort(self) -> None:
        self._closing = True
        for cursor in list(self._cursor_cache.values()):
            cursor._error("Connection is closed.")
        for _, answer in self._user_queries.values():
            if not answer.done():
                answer.set_exception(ReqlDriverError("Connection is closed."))
        if self._streamwriter is not None:
            self._streamwriter.transport.abort()
        if self._reader_task is not None:
            self._reader_task.cancel()

    async def close(
        self, noreply_wait: bool = False, token: Any = None, exception: Exception | None = None
    ) -> None:
        self.ended_by = exception  # the driver keeps its words only
        try:
            await super().close(noreply_wait, token, exception)
        except BaseException:
            self.abort()
            raise

    async def run_query(self, query: Any, noreply: bool) -> Any:
        try:
            return await asyncio.wait_for(super().run_query(query, noreply), self.query_timeout_s)
        except asyncio.TimeoutError:
            self.abort()
            raise ReqlTimeoutError(self._parent.host, self._parent.port) from None

    async def _connect(self, timeout: float) -> None:
        parent = self._parent
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        parent.stage.name = "name"
        found = await _aresolve(parent.address, timeout)
        failures: list[Exception] = []
        for index, (family, sockaddr) in enumerate(found):
            try:
                await self._open(family, sockaddr, (deadline - loop.time()) / (len(found) - index))
                break
            except (OSError, asyncio.TimeoutError) as exc:
                failures.append(exc)
                if parent.stage.name == "TLS" or getattr(exc, "errno", None) in _OURS:
                    break
        if self._streamwriter is None:
            raise _worst(failures)
        parent.stage.name = "handshake"
        await self._greet()
        parent.stage.name = "answer"
        self._reader_task = asyncio.ensure_future(self._reader())
        query = net.Query(net.pQuery.SERVER_INFO, parent._new_token(), None, None)
        try:
            info = await self.run_query(query, False)
        except ReqlDriverError as exc:
            raise self.ended_by or exc from None
        _check_info(info)

    async def _open(self, family: int, sockaddr: Any, patience_s: float) -> None:
        """TCP, and TLS where asked for. Several addresses share the time for TCP."""
        parent = self._parent
        tls = parent.login.tls
        parent.stage.name = "TCP"
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            connecting = asyncio.get_running_loop().sock_connect(sock, sockaddr)
            await asyncio.wait_for(connecting, patience_s)
            _check_peer(sock)
            _prepare(sock)
            parent.stage.name = "TLS" if tls else "handshake"
            host = parent.address.host.partition("%")[0] if tls else None
            self._streamreader, self._streamwriter = await asyncio.open_connection(
                sock=sock, ssl=tls, server_hostname=host
            )
        except BaseException:
            sock.close()
            raise

    async def _greet(self) -> None:
        talk = _talk(self._parent.address, self._parent.login)
        say = next(talk)
        with contextlib.suppress(StopIteration):
            while True:
                self._streamwriter.write(say)
                say = talk.send(await self._streamreader.read(4096))


class AsyncConnection(net_asyncio.Connection):
    """The driver's asyncio connection, dialled under a deadline."""

    def __init__(self, address: Address, login: Login, timeout_s: float) -> None:
        super().__init__(
            address.host, address.port, login.db, None, login.user, login.password,
            timeout_s, {}, 10,
        )  # fmt: skip
        self._conn_type = _AsyncInstance
        self.address = address
        self.login = login
        self.stage = Stage()

    def abort(self) -> None:
        """End it without waiting for anything. ``close`` waits until what was written is sent, at a hung node for ever."""
        instance, self._instance = self._instance, None
        if instance is not None:
            instance.abort()

    def __repr__(self) -> str:
        return f"<asyncio connection to {self.address}>"


async def adial(address: Address, login: Login, timeout_s: float, stage: Stage) -> AsyncConnection:
    """As `dial`, in the running loop."""
    made = AsyncConnection(address, login, timeout_s)
    made.stage = stage
    made._instance = _AsyncInstance(made)
    await made._instance.connect(timeout_s)
    return made
