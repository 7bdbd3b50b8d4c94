"""One blocking dial of a RethinkDB node for an application. All its waits share one deadline.

The connections are those of the official driver (2.4.10), with its queries, cursors and errors. Only the dial is ours.
The driver's own dial resolves names without a limit, gives TCP and TLS a timeout each, uses the wall clock, and does
not tell a refused connection from a hung server. Attempts, waiting, calls for help and anything of Salt do not belong
here.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import sys
import time
from collections.abc import Callable
from typing import Any

from rethinkdb import net
from rethinkdb.errors import ReqlDriverError, ReqlTimeoutError

from ..driver.address import Address
from ..driver.answer import Alien
from ..driver.causes import Stage
from ..driver.dialling import InTurn, certified, prepare
from ..driver.text import plain
from ..driver.wire import MAX_GREETING_BYTES, Lost
from .errors import one_failed
from .failures import DIAL_ERRORS, classify
from .greeting import Login, Progress, check_info, conversation
from .names import resolve
from .settings import seconds

#: So much is read at once; for each read this much memory is taken before data is there.
CHUNK_BYTES = 256 * 1024
_LATE = (TimeoutError, BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class _Socket(net.SocketWrapper):
    """The driver's reading and writing, on a socket that we dialled. A failure within a message ends the connection."""

    def __init__(self, parent: Any, sock: socket.socket, ends: float) -> None:
        self.host = parent._parent.host
        self.port = parent._parent.port
        self.ssl = parent._parent.ssl
        self._read_buffer: bytes | None = None
        self._socket: Any = sock
        self.clock: Callable[[], float] = parent._parent.clock
        self.ends: float | None = ends  #: the deadline of the dial; None after it
        self.query_timeout_s: float | None = None

    def recvall(self, length: int, deadline: float | None) -> bytes:
        """Read this many bytes.

        ``deadline`` comes from a cursor's ``next(wait=…)`` and is a time of the wall clock. If it passes, what was read
        is kept, and the next call goes on from there.
        """
        self._check_open()
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
        self._check_open()
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
        """Close the socket. The driver's own method leaves it open if the other end is gone, and logs that (2.4.10)."""
        sock, self._socket = self._socket, None
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _check_open(self) -> None:
        """Raises the driver's error. The driver itself uses its socket without looking if there is one (2.4.10)."""
        if self._socket is None:
            raise ReqlDriverError("Connection is closed.")

    def _left_s(self) -> float | None:
        """How long the other side may be silent. A dial has one limit in all; for a query each byte begins it anew."""
        if self.ends is None:
            return self.query_timeout_s
        left_s = self.ends - self.clock()
        if left_s <= 0:
            raise TimeoutError
        return left_s

    def _end(self, exc: BaseException) -> None:
        """Close the connection, and raise the driver's own error if it has one for this failure."""
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
        sock = _open(parent.address, parent.login, deadline, parent.clock, parent.progress)
        try:
            _greet(sock, parent.address, parent.login, deadline, parent.clock)
            parent.progress.stage = Stage.ANSWER
            self._socket = _Socket(self, sock, deadline)
            # A server may accept a login and then do nothing more, so it must answer a first query. SERVER_INFO needs
            # no permission and reads no table.
            query = net.Query(net.pQuery.SERVER_INFO, parent._new_token(), None, None)
            check_info(self.run_query(query, False))
            self._socket.ends = None
            self._socket.query_timeout_s = parent.login.query_timeout_s
        except BaseException:
            sock.close()
            raise
        return parent


class Connection(net.Connection):
    """The driver's blocking connection, dialled under a deadline."""

    _instance: Any  #: None when the connection is closed

    def __init__(self, address: Address, login: Login, timeout_s: float, clock: Any) -> None:
        super().__init__(
            _Instance, address.host, address.port, login.db, None, login.user, login.password,
            timeout_s, {}, 10,
        )  # fmt: skip
        self.address = address
        self.login = login
        self.clock = clock
        self.progress = Progress()

    def reconnect(self, noreply_wait: bool = True, timeout: float | None = None) -> Any:
        """Connect anew if the application asks for it. On Ctrl-C the driver calls this, too (2.4.10): then only close.

        Else the driver would dial a new connection before it lets Ctrl-C through. Raises a `ConnectError`, after which
        this is a closed connection.
        """
        limit_s = seconds("timeout", timeout, optional=True) or self.connect_timeout
        if self._instance is not None and isinstance(sys.exc_info()[1], KeyboardInterrupt):
            self.close(noreply_wait=False)
            return self
        self.close(noreply_wait)
        self.progress = Progress()
        instance = _Instance(self)
        try:
            instance.connect(limit_s)
        except DIAL_ERRORS as exc:
            failure, error = classify(exc, self.progress.stage)
            raise one_failed(self.address, failure, error) from exc
        self._instance = instance
        return self

    def __repr__(self) -> str:
        return f"<connection to {self.address}, {'open' if self.is_open() else 'closed'}>"


def dial(
    address: Address,
    login: Login,
    timeout_s: float,
    progress: Progress,
    clock: Callable[[], float] = time.monotonic,
) -> Connection:
    """A new connection that has answered a first query. Blocks for at most ``timeout_s``.

    Meanwhile ``progress`` says how far the dial has come. Raises one of `DIAL_ERRORS`. `classify` says what it means,
    if it is given the stage, too.
    """
    made = Connection(address, login, timeout_s, clock)
    made.progress = progress
    made._instance = _Instance(made)
    made._instance.connect(timeout_s)
    return made


def _open(
    address: Address, login: Login, deadline: float, clock: Callable[[], float], progress: Progress
) -> socket.socket:
    """Connect by TCP, with TLS if asked for. All addresses of the name share one deadline."""
    progress.stage = Stage.NAME
    rows = InTurn(resolve(address, deadline - clock()))
    for family, sockaddr in rows:
        progress.stage = Stage.TCP
        sock: socket.socket | None = None
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
            sock.settimeout(rows.share_s(deadline - clock()))
            sock.connect(sockaddr)
            # From here on the connection was accepted, even if it has been reset already (ENOTCONN).
            progress.stage = Stage.TLS if login.tls else Stage.HANDSHAKE
            prepare(sock)
            if login.tls is not None:
                sock = login.tls.wrap_socket(
                    sock, server_hostname=certified(address), do_handshake_on_connect=False
                )
                sock.settimeout(rows.share_s(deadline - clock()))
                sock.do_handshake()
                progress.stage = Stage.HANDSHAKE
            return sock
        except BaseException as exc:
            if sock is not None:
                sock.close()
            rows.failed(exc, progress.stage)
    raise rows.told()


def _greet(
    sock: socket.socket,
    address: Address,
    login: Login,
    deadline: float,
    clock: Callable[[], float],
) -> None:
    talk = conversation(address, login)
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
    """Whether a blocking connection is known to have ended. It does not wait, and takes no data away."""
    try:
        if not conn.is_open():
            return True
        sock = conn._instance._socket._socket
        # The plain socket's own method is used, so that this also works with TLS: it sees the encrypted bytes.
        return socket.socket.recv(sock, 1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
    except AttributeError:
        return False  # it is another kind of connection


def discard(conn: Any) -> None:
    """End a connection that may be broken, without waiting for anything."""
    try:
        conn.close(noreply_wait=False)
    except Exception:
        # The driver fails on a connection that is closed already (2.4.10).
        return
