"""Ports and sockets: who listens on them, and what is read from them by lines."""

from __future__ import annotations

import asyncio
import os
import socket
import traceback
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from tests.lab.ports import Reservation, reserve
from tests.lab.simulated.settings import StartError

UNIX_PATH_MAX_BYTES = 107
BACKLOG = 1024


def _bound_socket(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        # Needed to come back on a port whose old connections are still in TIME_WAIT.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
    except BaseException:
        sock.close()
        raise
    return sock


class Listener:
    """
    Accepts connections and gives each, as a raw socket, to a coroutine of its own.

    asyncio's servers are not used: the faults need the socket before anything was read from it (a
    TLS handshake that never starts), and closing such a server means another thing in each of
    Python 3.10, 3.11 and 3.12.
    """

    def __init__(self, what: str, serve: Callable[[socket.socket], Awaitable[None]]):
        """`serve` owns the socket it gets, and closes it."""
        self._what = what
        self._serve = serve
        self._sockets: list[socket.socket] = []
        self._reservation: Reservation | None = None
        self._accepting: list[asyncio.Task[None]] = []
        self._serving: set[asyncio.Task[None]] = set()
        self._unserved: set[socket.socket] = set()
        self.is_open = False

    @property
    def is_bound(self) -> bool:
        return bool(self._sockets)

    @property
    def port(self) -> int:
        return int(self._sockets[0].getsockname()[1])

    def bind(self, addresses: Iterable[str], port: int) -> None:
        """Takes the addresses; port 0 is any free one. StartError when one is taken."""
        if not port:
            self._reservation = reserve()
            port = self._reservation.port
        for address in addresses:
            try:
                sock = _bound_socket(address, port)
                self._sockets.append(sock)
                sock.listen(BACKLOG)
            except OSError as exc:
                self._give_back()
                raise StartError(
                    f"error: Could not bind to {self._what} port: The address at"
                    f" {address}:{port} is reserved or already in use ({exc.strerror})."
                ) from exc
        self._start()

    def bind_unix(self, path: Path) -> None:
        """Takes a Unix socket; one left behind by a killed process is replaced."""
        if len(os.fsencode(path)) > UNIX_PATH_MAX_BYTES:
            raise StartError(
                f"error: the path of the {self._what} socket has more than"
                f" {UNIX_PATH_MAX_BYTES} bytes: '{path}'. Set simulate-control to a shorter one."
            )
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        self._sockets.append(sock)
        try:
            path.unlink(missing_ok=True)
            sock.bind(str(path))
            sock.listen(BACKLOG)
        except OSError as exc:
            raise StartError(
                f"error: Could not bind to the {self._what} socket '{path}': {exc.strerror}"
            ) from exc
        self._start()

    def _start(self) -> None:
        self._accepting = [asyncio.ensure_future(self._accept(sock)) for sock in self._sockets]
        self.is_open = True

    async def _accept(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, _ = await loop.sock_accept(sock)
                self._welcome(accepted)
                # All that wait, at once: in a busy test the next turn of this thread may be 5 ms
                # away, and at one dial a turn the backlog overflows.
                while True:
                    accepted, _ = sock.accept()
                    accepted.setblocking(False)
                    self._welcome(accepted)
            except BlockingIOError:
                pass
            except OSError:  # the peer left before we took it, or no file descriptor is left
                await asyncio.sleep(0.01)

    def _welcome(self, sock: socket.socket) -> None:
        self._unserved.add(sock)
        task = asyncio.ensure_future(self._served(sock))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _served(self, sock: socket.socket) -> None:
        self._unserved.discard(sock)
        try:
            await self._serve(sock)
        except (OSError, asyncio.TimeoutError):
            pass  # the peer left
        except Exception:
            traceback.print_exc()

    def shut(self) -> None:
        """Refuses from now on, but keeps the port: a bound socket that does not listen refuses."""
        if not self.is_open:
            return
        self.is_open = False
        for task in self._accepting:
            task.cancel()
        names = [sock.getsockname() for sock in self._sockets]
        for sock in self._sockets:
            sock.close()
        self._sockets = [_bound_socket(name[0], name[1]) for name in names]

    def open(self) -> None:
        """Accepts again after shut()."""
        if not self.is_open:
            for sock in self._sockets:
                sock.listen(BACKLOG)
            self._start()

    async def close(self) -> None:
        """Ends the listening and every coroutine that still serves."""
        self.is_open = False
        tasks = [*self._accepting, *self._serving]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for sock in self._sockets:
            sock.close()
        for sock in self._unserved:  # a task that is cancelled before it starts runs not at all
            sock.close()
        self._sockets = []
        self._give_back()

    def _give_back(self) -> None:
        reservation, self._reservation = self._reservation, None
        if reservation is not None:
            reservation.close()


async def read_line(sock: socket.socket, buffer: bytearray) -> bytes:
    """The next line without its end; b"" when the peer closed. The buffer keeps what came after."""
    loop = asyncio.get_running_loop()
    while b"\n" not in buffer:
        chunk = await loop.sock_recv(sock, 65536)
        if not chunk or len(buffer) > 1_000_000:
            return b""
        buffer += chunk
    line, _, rest = bytes(buffer).partition(b"\n")
    buffer[:] = rest
    return line
